//! Who is connected, by whatever road, and what is subscribed. For operators.

use crate::{
    identity::Admin,
    page,
    problem::Problem,
    query::{PathName, Query},
    state::App,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;
use waystation_broker::{ClientId, Reason, SessionInfo};

/// A client that is connected.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Client {
    id: String,
    /// The user its session belongs to; `null` when made anonymously.
    user: Option<String>,
    /// The front-end it came by.
    gateway: String,
    /// Where it speaks from.
    address: Option<String>,
    /// Seconds its session outlives the connection.
    expiry: u32,
    /// How many.
    subscriptions: usize,
    /// Messages that wait or are not acknowledged.
    queued: u64,
    delivered: u64,
    dropped: u64,
}

/// The client that holds a session; `None`: nobody does.
fn client(info: &SessionInfo) -> Option<Client> {
    let gateway = info.held_by.as_deref()?.to_owned();
    Some(Client {
        id: info.id.as_str().to_owned(),
        user: info.owner.clone(),
        gateway,
        address: info.peer.and_then(|peer| peer.address()).map(|address| address.to_string()),
        expiry: info.expiry,
        subscriptions: info.subscriptions.len(),
        queued: info.queued,
        delivered: info.delivered,
        dropped: info.dropped,
    })
}

/// A page of clients.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClientList)]
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/clients`
#[utoipa::path(
    get, path = "/v1/clients", tag = "operators", params(page::Asked),
    responses((status = 200, description = "A page", body = Clients), Problem)
)]
pub(crate) async fn list(State(app): State<App>, _: Admin, mut query: Query) -> Result<Json<Clients>, Problem> {
    let limit = page::limit(&mut query)?;
    let after = query.text("after")?.and_then(|id| ClientId::new(&id));
    query.finish()?;
    let mut clients = Vec::new();
    page::of_sessions(&app.broker, after, limit, &mut clients, |info| client(&info).filter(|_| !info.id.is_own()));
    let next = page::cut(&mut clients, limit, |client| client.id.clone());
    Ok(Json(Clients { clients, next }))
}

/// `GET /v1/clients/{id}`
#[utoipa::path(
    get, path = "/v1/clients/{id}", tag = "operators",
    params(("id" = String, Path, description = "The client id")),
    responses((status = 200, description = "The client", body = Client), Problem)
)]
pub(crate) async fn show(
    State(app): State<App>,
    _: Admin,
    PathName(id): PathName,
    query: Query,
) -> Result<Json<Client>, Problem> {
    query.finish()?;
    let info = ClientId::new(&id).and_then(|id| app.broker.session(&id));
    info.as_ref().and_then(client).map(Json).ok_or(Problem::NoClient)
}

/// `DELETE /v1/clients/{id}`: the client is told to go, its session stays.
#[utoipa::path(
    delete, path = "/v1/clients/{id}", tag = "operators",
    params(("id" = String, Path, description = "The client id")),
    responses((status = 204, description = "It was told to go"), Problem)
)]
pub(crate) async fn disconnect(
    State(app): State<App>,
    _: Admin,
    PathName(id): PathName,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let gone = ClientId::new(&id).is_some_and(|id| !id.is_own() && app.broker.disconnect(&id, Reason::Administrative));
    if gone { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::NoClient) }
}

/// One filter of one session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Subscribed {
    client: String,
    filter: String,
    qos: u8,
}

/// A page of subscriptions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionList)]
pub(crate) struct Subscriptions {
    subscriptions: Vec<Subscribed>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/subscriptions`: of all sessions that have a name.
#[utoipa::path(
    get, path = "/v1/subscriptions", tag = "operators", params(page::Asked),
    responses((status = 200, description = "A page", body = Subscriptions), Problem)
)]
pub(crate) async fn subscriptions(State(app): State<App>, _: Admin, mut query: Query) -> Result<Response, Problem> {
    let limit = page::limit(&mut query)?;
    let after = query.text("after")?.map(|after| Place::decode(&after)).transpose()?;
    query.finish()?;
    let mut subscriptions = Vec::new();
    if let Some(Place { client, filter }) = &after {
        let rest = app.broker.session(client).into_iter();
        let rest = rest.flat_map(|info| subscribed(&info)).filter(|one| one.filter.as_str() > filter.as_str());
        subscriptions.extend(rest);
    }
    let after = after.map(|place| place.client);
    page::of_sessions(&app.broker, after, limit, &mut subscriptions, |info| subscribed(&info));
    let next = page::cut(&mut subscriptions, limit, Place::encode);
    Ok(Json(Subscriptions { subscriptions, next }).into_response())
}

/// In the order of their filters.
fn subscribed(info: &SessionInfo) -> Vec<Subscribed> {
    let one = |s: &waystation_broker::Subscription| Subscribed {
        client: info.id.as_str().to_owned(),
        filter: s.filter.as_str().to_owned(),
        qos: s.qos as u8,
    };
    info.subscriptions.iter().map(one).collect()
}

/// Where a page of subscriptions ends.
struct Place {
    client: ClientId,
    filter: String,
}

impl Place {
    fn encode(last: &Subscribed) -> String {
        // U+0000 is in neither of them.
        URL_SAFE_NO_PAD.encode(format!("{}\0{}", last.client, last.filter))
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let place = bytes.as_deref().and_then(|text| text.split_once('\0'));
        place
            .and_then(|(client, filter)| Some(Self { client: ClientId::new(client)?, filter: filter.to_owned() }))
            .ok_or_else(|| Problem::BadQuery("`after` is no `next` of this list".into()))
    }
}
