//! What is served where.

pub(crate) mod clients;
pub(crate) mod figures;
pub(crate) mod gateways;
pub(crate) mod messages;
pub(crate) mod request;
pub(crate) mod sessions;
pub(crate) mod stream;
pub(crate) mod topics;
pub(crate) mod webhooks;

use crate::{dashboard, media, openapi, problem::Problem, query::Query, state::App};
use axum::{
    Json, Router,
    extract::State,
    middleware,
    routing::{get, post, put},
};
use serde_json::{Value, json};
use tower_http::compression::CompressionLayer;
use waystation_broker::store::Promise;

/// All routes.
pub(crate) fn all() -> Router<App> {
    let topic = get(topics::read).post(topics::publish).put(topics::set).delete(topics::clear);
    Router::new()
        .merge(lists())
        .route("/", get(dashboard::page).route_layer(CompressionLayer::new()))
        .route("/v1/topics", get(topics::list))
        // The wildcard takes no empty path; the empty topic is to be told as what it is.
        .route("/v1/topics/", topic.clone())
        .route("/v1/topics/{*topic}", topic)
        .route("/v1/messages", post(messages::publish))
        .route("/v1/sessions/{id}/messages", get(sessions::read::messages))
        .route("/v1/sessions/{id}/ack", post(sessions::read::acknowledge))
        // The name of a dead-letter session with its slash as it is; `$dead%2F{name}` goes the way of all others.
        .route("/v1/sessions/$dead/{name}", get(sessions::show).delete(sessions::end))
        .route("/v1/sessions/$dead/{name}/messages", get(sessions::read::messages))
        .route("/v1/sessions/$dead/{name}/ack", post(sessions::read::acknowledge))
        .route("/v1/stream", get(stream::open))
        .route("/v1/request/", post(request::ask))
        .route("/v1/request/{*topic}", post(request::ask))
        .route("/metrics", get(figures::metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
}

/// Served as JSON and nothing else.
fn lists() -> Router<App> {
    Router::new()
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", put(sessions::set).get(sessions::show).delete(sessions::end))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/{id}", get(clients::show).delete(clients::disconnect))
        .route("/v1/subscriptions", get(clients::subscriptions))
        .route("/v1/gateways", get(gateways::list))
        .route("/v1/gateways/{name}", put(gateways::switch))
        .route("/v1/bridges", get(gateways::bridges))
        .route("/v1/drops", get(figures::drops))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{name}", put(webhooks::set).get(webhooks::show).delete(webhooks::end))
        .route("/openapi.json", get(openapi::describe))
        .route_layer(middleware::from_fn(media::json_only))
        .route_layer(CompressionLayer::new())
}

/// Whether the process answers, what an acknowledged message outlives, and what keeps the server from promising it.
#[utoipa::path(
    get, path = "/healthz", tag = "open",
    responses((status = 200, description = "It does", body = serde_json::Value), Problem)
)]
pub(crate) async fn healthy(State(app): State<App>, query: Query) -> Result<Json<Value>, Problem> {
    query.finish()?;
    let store = app.broker.durability();
    let survives = match store.promise {
        Promise::Connection => "nothing",
        Promise::Process => "kill",
        Promise::Power => "power loss",
    };
    let trouble = store.trouble.map(|trouble| trouble.to_string());
    Ok(Json(json!({ "status": "ok", "survives": survives, "trouble": trouble })))
}

/// Whether it takes clients.
#[utoipa::path(
    get, path = "/readyz", tag = "open",
    responses((status = 200, description = "It does", body = serde_json::Value), Problem)
)]
pub(crate) async fn ready(State(app): State<App>, query: Query) -> Result<Json<Value>, Problem> {
    query.finish()?;
    if app.is_draining() { Err(Problem::Stopping) } else { Ok(Json(json!({ "status": "ready" }))) }
}
