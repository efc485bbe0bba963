//! What is served where.

pub(crate) mod messages;
pub(crate) mod sessions;
pub(crate) mod stream;
pub(crate) mod topics;

use crate::{problem::Problem, state::App};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post, put},
};
use serde_json::{Value, json};

/// All routes.
pub(crate) fn all() -> Router<App> {
    let topic = get(topics::read).post(topics::publish).put(topics::set).delete(topics::clear);
    Router::new()
        .route("/v1/topics", get(topics::list))
        // The wildcard takes no empty path; the empty topic is to be told as what it is.
        .route("/v1/topics/", topic.clone())
        .route("/v1/topics/{*topic}", topic)
        .route("/v1/messages", post(messages::publish))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", put(sessions::set).get(sessions::show).delete(sessions::end))
        .route("/v1/sessions/{id}/messages", get(sessions::read::messages))
        .route("/v1/sessions/{id}/ack", post(sessions::read::acknowledge))
        .route("/v1/stream", get(stream::open))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
}

/// The process answers.
async fn healthy() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// It takes clients.
async fn ready(State(app): State<App>) -> Result<Json<Value>, Problem> {
    if app.is_draining() { Err(Problem::Stopping) } else { Ok(Json(json!({ "status": "ready" }))) }
}
