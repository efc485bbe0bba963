//! What was lost, and what was counted. For operators.

use crate::{identity::Admin, metrics, page, problem::Problem, query::Query, state::App};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use waystation_broker::Dropped;

/// Messages that were lost alike.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drop)]
pub(crate) struct Lost {
    /// When the last of them was lost.
    time: String,
    /// `null`: it lay on disk, and was not read again.
    topic: Option<String>,
    /// Who was to get them; of refused publications, who published.
    client: Option<String>,
    /// The front-end this client came by last.
    gateway: String,
    cause: &'static str,
    count: u64,
}

impl From<&Dropped> for Lost {
    fn from(line: &Dropped) -> Self {
        Self {
            time: line.time.to_string(),
            topic: line.topic.as_ref().map(|topic| topic.as_str().to_owned()),
            client: line.client.as_ref().map(|client| client.as_str().to_owned()),
            gateway: line.gateway.to_string(),
            cause: line.cause.name(),
            count: line.count,
        }
    }
}

/// A page of the ledger, latest news first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DropList)]
pub(crate) struct Drops {
    drops: Vec<Lost>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/drops`
#[utoipa::path(
    get, path = "/v1/drops", tag = "operators", params(page::Asked),
    responses((status = 200, description = "A page", body = Drops), Problem)
)]
pub(crate) async fn drops(State(app): State<App>, _: Admin, mut query: Query) -> Result<Json<Drops>, Problem> {
    let limit = page::limit(&mut query)?;
    let after = query.parsed("after", "the `next` of a page before")?;
    query.finish()?;
    let mut lines = app.broker.drops(after, limit + 1);
    let next = page::cut(&mut lines, limit, |last| last.id.to_string());
    Ok(Json(Drops { drops: lines.iter().map(Lost::from).collect(), next }))
}

/// `GET /metrics`
#[utoipa::path(
    get, path = "/metrics", tag = "operators",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"), Problem)
)]
pub(crate) async fn metrics(State(app): State<App>, _: Admin, query: Query) -> Result<Response, Problem> {
    query.finish()?;
    let text = metrics::text(&app.broker, &*app.host).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::Internal
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
