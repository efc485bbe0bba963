//! Front-ends and bridges: which run, where they listen, what they reach. For operators.

use crate::{
    body,
    identity::Admin,
    page,
    problem::Problem,
    query::{PathName, Query},
    state::App,
};
use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waystation_broker::Broker;
use waystation_kit::{EnableError, GatewayStatus, RemoteStatus};

/// A gateway of the configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gateway)]
pub(crate) struct Shown {
    name: String,
    kind: &'static str,
    /// Whether it serves.
    enabled: bool,
    listening: Vec<Listening>,
    /// How often clients broke its protocol: datagrams that were ignored, connections that were ended.
    violations: u64,
}

/// A socket it has bound.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Listening {
    /// As in the ready line.
    name: String,
    address: String,
}

impl Shown {
    fn new(status: GatewayStatus, broker: &Broker) -> Self {
        let violations = broker.traffic(&status.name).violations();
        let listening = status.listening.into_iter();
        let listening = listening.map(|(name, address)| Listening { name, address: address.to_string() }).collect();
        Self { name: status.name.to_string(), kind: status.kind, enabled: status.enabled, listening, violations }
    }
}

/// A page of gateways.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayList)]
pub(crate) struct Gateways {
    gateways: Vec<Shown>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/gateways`
#[utoipa::path(
    get, path = "/v1/gateways", tag = "operators", params(page::Asked),
    responses((status = 200, description = "A page", body = Gateways), Problem)
)]
pub(crate) async fn list(State(app): State<App>, _: Admin, mut query: Query) -> Result<Json<Gateways>, Problem> {
    let (limit, after) = (page::limit(&mut query)?, query.text("after")?);
    query.finish()?;
    let all = app.host.gateways().into_iter().map(|status| Shown::new(status, &app.broker));
    let (gateways, next) = page::of(all, |gateway| &gateway.name, after.as_deref(), limit);
    Ok(Json(Gateways { gateways, next }))
}

/// What `PUT` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewaySwitch)]
pub(crate) struct Switch {
    enabled: bool,
}

/// `PUT /v1/gateways/{name}`: started or stopped until the next start of the server.
#[utoipa::path(
    put, path = "/v1/gateways/{name}", tag = "operators", request_body = Switch, params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "As it is now", body = Shown), Problem)
)]
pub(crate) async fn switch(
    State(app): State<App>,
    _: Admin,
    PathName(name): PathName,
    query: Query,
    request: Request,
) -> Result<Json<Shown>, Problem> {
    query.finish()?;
    let Switch { enabled } = body::json(request, 4_096).await?;
    if !enabled && *name == *app.gateway {
        return Err(Problem::OwnGateway);
    }
    app.host.enable(&name, enabled).await.map_err(|error| match error {
        EnableError::Unknown => Problem::NoGateway,
        EnableError::Bind(error) => Problem::CannotStart(error.to_string()),
    })?;
    let status = app.host.gateways().into_iter().find(|status| *status.name == *name);
    status.map(|status| Json(Shown::new(status, &app.broker))).ok_or(Problem::NoGateway)
}

/// A bridge to another broker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bridge {
    name: String,
    url: String,
    connected: bool,
    /// Since when it is connected, or is not.
    since: String,
    /// What last went wrong.
    error: Option<String>,
    /// Messages that wait for the other side, those under way among them.
    queued: u64,
    /// Messages sent there that it has not acknowledged yet.
    in_flight: u64,
    /// Messages taken to the other side and from it.
    sent: u64,
    received: u64,
    /// Messages for the other side that were lost, all causes.
    dropped: u64,
    /// Messages that went with a lower QoS or without the retain flag, since the other side can do no more.
    reduced: u64,
}

impl From<RemoteStatus> for Bridge {
    fn from(status: RemoteStatus) -> Self {
        Self {
            name: status.name.to_string(),
            url: status.url,
            connected: status.connected,
            since: status.since.to_string(),
            error: status.error,
            queued: status.queued,
            in_flight: status.in_flight,
            sent: status.sent,
            received: status.received,
            dropped: status.dropped,
            reduced: status.reduced,
        }
    }
}

/// A page of bridges.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BridgeList)]
pub(crate) struct Bridges {
    bridges: Vec<Bridge>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/bridges`
#[utoipa::path(
    get, path = "/v1/bridges", tag = "operators", params(page::Asked),
    responses((status = 200, description = "A page", body = Bridges), Problem)
)]
pub(crate) async fn bridges(State(app): State<App>, _: Admin, mut query: Query) -> Result<Json<Bridges>, Problem> {
    let (limit, after) = (page::limit(&mut query)?, query.text("after")?);
    query.finish()?;
    let all = app.host.remotes().into_iter().map(Bridge::from);
    let (bridges, next) = page::of(all, |bridge| &bridge.name, after.as_deref(), limit);
    Ok(Json(Bridges { bridges, next }))
}
