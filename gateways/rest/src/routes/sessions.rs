//! Sessions: made, changed, shown and ended. Reading them is in [`read`].

pub(crate) mod read;

use crate::{
    body,
    identity::Who,
    page,
    problem::Problem,
    query::{Query, SessionPath},
    state::App,
    wire,
};
use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use utoipa::ToSchema;
use waystation_broker::{
    ClientId, Credentials, Filter, Hello, Link, Lsn, Overflow, Qos, Reason, Refused, RetainHandling, SessionInfo,
    SessionOptions, Start, Subscription, Takeover, WhileAway,
};
use waystation_kit::dead;

/// Seconds a session outlives its last call unless it says otherwise.
const EXPIRY: u32 = 3_600;

/// A reader counts as present for this long after its last call: a shared subscription serves those who are.
const PRESENT_FOR: Duration = Duration::from_secs(60);

/// Bytes of a body that describes a session.
const MOST_BODY: usize = 4 << 20;

/// The body of a PUT.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionWish)]
struct Wish {
    /// Absent: as they are.
    subscriptions: Option<Vec<Wanted>>,
    /// Absent: as it is, or [`EXPIRY`].
    expiry: Option<u32>,
    max_queued_messages: Option<u32>,
    #[schema(value_type = Option<String>, pattern = "^(drop_oldest|drop_newest|reject)$")]
    overflow: Option<Overflow>,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Subscription)]
struct Wanted {
    filter: String,
    #[serde(default = "one")]
    qos: u8,
}

fn one() -> u8 {
    1
}

/// `PUT /v1/sessions/{id}`
#[utoipa::path(
    put, path = "/v1/sessions/{id}", tag = "sessions", request_body = Wish,
    params(("id" = String, Path, description = "The session, which is an MQTT client id")),
    responses((status = 201, description = "Made", body = Shown), (status = 200, description = "Changed", body = Shown), Problem)
)]
pub(crate) async fn set(
    State(app): State<App>,
    who: Who,
    SessionPath(id): SessionPath,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    query.finish()?;
    if id.is_own() {
        return Err(Problem::BadRequest("the session id begins with `$`; those are the server's own".into()));
    }
    let wish: Wish = body::json(request, MOST_BODY).await?;
    check(&app, &who, &id, &wish)?;
    let wanted = wish.subscriptions.as_deref().map(subscriptions).transpose()?;
    let before = app.broker.session(&id);
    let hello = Hello {
        start: Start::Resume,
        takeover: Takeover::SameGateway,
        expiry: wish.expiry.or(before.as_ref().map(|info| info.expiry)).unwrap_or(EXPIRY),
        options: SessionOptions {
            max_queued_messages: wish.max_queued_messages.or(before.as_ref().map(|info| info.max_queued_messages)),
            overflow: wish.overflow.or(before.as_ref().map(|info| info.overflow)),
            ..SessionOptions::default()
        },
        ..hello(&app, &who, &id)
    };
    let attached = app.broker.attach(hello).await?;
    let mut link = attached.link;
    let lsn = match wanted.map(|wanted| subscribe(&mut link, wanted)).transpose() {
        Ok(lsn) => lsn.unwrap_or_default(),
        Err(refused) => {
            // What cannot be as wished is not made at all.
            if !attached.resumed {
                drop(link);
                app.broker.end_session(&id, Reason::SessionEnded);
            }
            return Err(refused.into());
        }
    };
    drop(link);
    app.broker.durable(lsn.max(attached.lsn)).await;
    let info = app.broker.session(&id).ok_or(Problem::NoSession)?;
    let status = if attached.resumed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(shown(&app, &info))).into_response())
}

fn check(app: &App, who: &Who, id: &ClientId, wish: &Wish) -> Result<(), Problem> {
    if wish.expiry == Some(0) {
        return Err(Problem::BadBody("`expiry` is 0; a session of no seconds ends with this call".into()));
    }
    if wish.max_queued_messages == Some(0) {
        return Err(Problem::BadBody("`max_queued_messages` is 0; a number from 1 is right".into()));
    }
    if wish.overflow == Some(Overflow::Reject) && !who.may_reject(&app.broker, id) {
        return Err(Problem::Forbidden("`overflow`: \"reject\" needs the right `reject`".into()));
    }
    Ok(())
}

fn subscriptions(wanted: &[Wanted]) -> Result<Vec<Subscription>, Problem> {
    wanted
        .iter()
        .map(|Wanted { filter, qos }| {
            let bad = |error| Problem::BadTopic(format!("the filter `{filter}` {error}"));
            let qos: Qos = wire::qos(*qos).map_err(Problem::BadBody)?;
            Ok(Subscription::new(Filter::parse(filter).map_err(bad)?, qos))
        })
        .collect()
}

/// Makes `wanted` the session's subscriptions. If one of them is refused, they stay as they were.
pub(crate) fn subscribe(link: &mut Link, mut wanted: Vec<Subscription>) -> Result<Lsn, Refused> {
    let before: HashMap<Filter, Subscription> =
        link.subscriptions().into_iter().map(|subscription| (subscription.filter.clone(), subscription)).collect();
    let kept: HashSet<&Filter> = wanted.iter().map(|new| &new.filter).collect();
    let gone: Vec<Filter> = before.keys().filter(|old| !kept.contains(old)).cloned().collect();
    // What is as it should be is left alone; retained messages come for new filters only.
    wanted.retain(|new| before.get(&new.filter).is_none_or(|old| old.qos != new.qos));
    for new in &mut wanted {
        new.retain_handling = RetainHandling::SendIfNew;
    }
    let mut granted = Vec::new();
    let lsn = link.subscribe(&wanted, &mut granted);
    if let Some(refused) = granted.iter().find_map(|result| result.err()) {
        let (old, new): (Vec<_>, Vec<_>) =
            wanted.into_iter().map(|new| new.filter).partition(|filter| before.contains_key(filter));
        let mut restored: Vec<Subscription> = old.iter().filter_map(|filter| before.get(filter).cloned()).collect();
        for subscription in &mut restored {
            subscription.retain_handling = RetainHandling::DoNotSend;
        }
        link.unsubscribe(&new, &mut Vec::new());
        link.subscribe(&restored, &mut Vec::new());
        return Err(refused);
    }
    Ok(link.unsubscribe(&gone, &mut Vec::new()).max(lsn))
}

/// How a call comes to the session `id`: what is not said here is as the session has it.
fn hello(app: &App, who: &Who, id: &ClientId) -> Hello {
    if id.is_own() {
        // Asked for by an operator: the path was taken apart by then.
        return dead::hello(&app.gateway, id.clone());
    }
    Hello {
        credentials: Credentials::Known(who.principal.clone()),
        while_away: WhileAway::KeepQos0,
        lingers: PRESENT_FOR,
        ..Hello::new(Arc::clone(&app.gateway), who.peer, Some(id.clone()))
    }
}

/// The session, if this one may see it.
fn visible(app: &App, who: &Who, id: &ClientId) -> Result<SessionInfo, Problem> {
    let info = app.broker.session(id).ok_or(Problem::NoSession)?;
    // Whoever asks for one of the server's own may: the path was checked.
    if id.is_own() || who.owns(info.owner.as_deref()) || who.may_admin(&app.broker) {
        return Ok(info);
    }
    Err(Problem::Forbidden("the session belongs to another user".into()))
}

/// A session as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
struct Shown {
    id: String,
    subscriptions: Vec<Wanted>,
    expiry: u32,
    max_queued_messages: u32,
    #[schema(value_type = String)]
    overflow: Overflow,
    queued: u64,
    queued_bytes: u64,
    /// Of the oldest message that waits; `null` when none does.
    oldest_age_s: Option<u64>,
    delivered: u64,
    dropped: u64,
    /// The gateway whose client holds it now.
    held_by: Option<String>,
}

fn shown(app: &App, info: &SessionInfo) -> Shown {
    let now = app.broker.now();
    Shown {
        id: info.id.as_str().to_owned(),
        subscriptions: info
            .subscriptions
            .iter()
            .map(|s| Wanted { filter: s.filter.as_str().to_owned(), qos: s.qos as u8 })
            .collect(),
        expiry: info.expiry,
        max_queued_messages: info.max_queued_messages,
        overflow: info.overflow,
        queued: info.queued,
        queued_bytes: info.queued_bytes,
        oldest_age_s: info.oldest.map(|oldest| now.since(oldest).as_secs()),
        delivered: info.delivered,
        dropped: info.dropped,
        held_by: info.held_by.as_deref().map(str::to_owned),
    }
}

/// `GET /v1/sessions/{id}`
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session, which is an MQTT client id")),
    responses((status = 200, description = "As it is now", body = Shown), Problem)
)]
pub(crate) async fn show(
    State(app): State<App>,
    who: Who,
    SessionPath(id): SessionPath,
    query: Query,
) -> Result<Response, Problem> {
    query.finish()?;
    let info = visible(&app, &who, &id)?;
    Ok(Json(shown(&app, &info)).into_response())
}

#[derive(Serialize, ToSchema)]
#[schema(as = SessionList)]
struct List {
    sessions: Vec<Shown>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/sessions`
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(page::Asked),
    responses((status = 200, description = "A page", body = List), Problem)
)]
pub(crate) async fn list(State(app): State<App>, who: Who, mut query: Query) -> Result<Response, Problem> {
    let limit = page::limit(&mut query)?;
    let after = query.text("after")?.and_then(|id| ClientId::new(&id));
    query.finish()?;
    let admin = who.may_admin(&app.broker);
    let mut found = Vec::new();
    let may_see = |info: &SessionInfo| admin || (!info.id.is_own() && who.owns(info.owner.as_deref()));
    page::of_sessions(&app.broker, after, limit, &mut found, |info| Some(info).filter(may_see));
    let next = page::cut(&mut found, limit, |last| last.id.as_str().to_owned());
    Ok(Json(List { sessions: found.iter().map(|info| shown(&app, info)).collect(), next }).into_response())
}

/// `DELETE /v1/sessions/{id}`
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session, which is an MQTT client id")),
    responses((status = 204, description = "Ended"), Problem)
)]
pub(crate) async fn end(
    State(app): State<App>,
    who: Who,
    SessionPath(id): SessionPath,
    query: Query,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let info = visible(&app, &who, &id)?;
    if info.held_by.is_some_and(|gateway| gateway != app.gateway) {
        return Err(Problem::SessionInUse);
    }
    let lsn = app.broker.end_session(&id, Reason::SessionEnded).ok_or(Problem::NoSession)?;
    app.broker.durable(lsn).await;
    Ok(StatusCode::NO_CONTENT)
}
