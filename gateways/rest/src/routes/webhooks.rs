//! Webhooks: made, changed, shown and ended. For operators only.

use crate::{
    body,
    identity::Admin,
    page::{self, limit},
    problem::Problem,
    query::{PathName, Query},
    state::App,
    webhook::{Declaration, Source, View, Webhooks},
};
use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use waystation_broker::Time;

/// Bytes of a body that describes a webhook.
const MOST_BODY: usize = 1 << 20;

/// `PUT /v1/webhooks/{name}`
#[utoipa::path(
    put, path = "/v1/webhooks/{name}", tag = "webhooks", request_body = Declaration, params(("name" = String, Path, description = "Its name")),
    responses((status = 201, description = "Made", body = Shown), (status = 200, description = "Changed", body = Shown), Problem)
)]
pub(crate) async fn set(
    State(app): State<App>,
    Admin(who): Admin,
    PathName(name): PathName,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    query.finish()?;
    let mut declaration: Declaration = body::json(request, MOST_BODY).await?;
    if !declaration.name.is_empty() && declaration.name != name {
        return Err(Problem::BadBody("`name` is another than in the path; it may be left out".into()));
    }
    declaration.name.clone_from(&name);
    let user = who.principal.name().map(str::to_owned);
    let made = Webhooks::set(&app, declaration, user).await?;
    let view = app.webhooks.view(&name).ok_or(Problem::NoWebhook)?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&app, view))).into_response())
}

/// `GET /v1/webhooks/{name}`
#[utoipa::path(
    get, path = "/v1/webhooks/{name}", tag = "webhooks", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "As it is now", body = Shown), Problem)
)]
pub(crate) async fn show(
    State(app): State<App>,
    _: Admin,
    PathName(name): PathName,
    query: Query,
) -> Result<Response, Problem> {
    query.finish()?;
    let view = app.webhooks.view(&name).ok_or(Problem::NoWebhook)?;
    Ok(Json(shown(&app, view)).into_response())
}

/// `DELETE /v1/webhooks/{name}`
#[utoipa::path(
    delete, path = "/v1/webhooks/{name}", tag = "webhooks", params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Ended"), Problem)
)]
pub(crate) async fn end(
    State(app): State<App>,
    _: Admin,
    PathName(name): PathName,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    Webhooks::remove(&app, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookList)]
struct List {
    webhooks: Vec<Shown>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/webhooks`
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", params(page::Asked),
    responses((status = 200, description = "A page", body = List), Problem)
)]
pub(crate) async fn list(State(app): State<App>, _: Admin, mut query: Query) -> Result<Response, Problem> {
    let limit = limit(&mut query)?;
    let after = query.text("after")?;
    query.finish()?;
    let mut views = app.webhooks.views(after.as_deref(), limit.saturating_add(1));
    let next = page::cut(&mut views, limit, |last| last.declaration.name.clone());
    Ok(Json(List { webhooks: views.into_iter().map(|view| shown(&app, view)).collect(), next }).into_response())
}

/// A webhook as operators see it: all but its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookShown)]
struct Shown {
    name: String,
    url: String,
    filters: Vec<String>,
    qos: u8,
    /// Whether it has a secret.
    signed: bool,
    batch: u16,
    timeout_ms: u64,
    max_attempts: Option<u32>,
    give_up_after_s: u64,
    source: Source,
    /// Messages that wait, with the one under way.
    queued: u64,
    oldest_age_s: Option<u64>,
    /// Messages lost to a full queue or to their expiry, since the webhook was made.
    dropped: u64,
    /// The following count from the server's start.
    delivered: u64,
    dead: u64,
    attempts: u64,
    /// Attempts at the message under way.
    attempt: u32,
    last_attempt: Option<String>,
    last_delivery: Option<String>,
    /// When a failing target is tried again.
    next_attempt: Option<String>,
    last_error: Option<Failure>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookFailure)]
struct Failure {
    time: String,
    error: String,
}

fn shown(app: &App, view: View) -> Shown {
    let session = view.session.and_then(|id| app.broker.session(&id));
    let now = app.broker.now();
    let url = view.declaration.shown_url();
    let (declaration, figures) = (view.declaration, view.figures);
    let time = |time: Option<Time>| time.map(|time| time.to_string());
    Shown {
        name: declaration.name,
        url,
        filters: declaration.filters,
        qos: declaration.qos,
        signed: declaration.secret.is_some_and(|secret| !secret.is_empty()),
        batch: declaration.batch,
        timeout_ms: declaration.timeout_ms,
        max_attempts: declaration.max_attempts,
        give_up_after_s: declaration.give_up_after_s,
        source: view.source,
        queued: session.as_ref().map_or(0, |session| session.queued),
        oldest_age_s: session.as_ref().and_then(|session| session.oldest).map(|oldest| now.since(oldest).as_secs()),
        dropped: session.as_ref().map_or(0, |session| session.dropped),
        delivered: figures.delivered,
        dead: figures.dead,
        attempts: figures.attempts,
        attempt: figures.attempt,
        last_attempt: time(figures.last_attempt),
        last_delivery: time(figures.last_delivery),
        next_attempt: time(figures.next_attempt),
        last_error: figures.last_error.map(|(at, error)| Failure { time: at.to_string(), error }),
    }
}
