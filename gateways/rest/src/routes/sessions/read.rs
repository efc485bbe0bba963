//! Reading a session: long-poll with a cursor, the same as a stream, and acknowledging.

use super::{hello, visible};
use crate::{
    body, cursor,
    identity::Who,
    later::later,
    page,
    problem::Problem,
    push::{Form, Pump, Settling},
    query::{Query, SessionPath},
    readers::{Held, Noted, Shared},
    state::App,
    wait::{Wait, Woken, until},
    wire::{self, Kept, Reader},
};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;
use waystation_broker::{
    Budget, ClientId, Cursor, Hello, Link, Lsn, Pick, Reason, SessionInfo, SessionOptions, Start, Taken, Takeover,
};

/// Bytes of payload and topic in one page; the first message always fits.
const PAGE_BYTES: usize = 8 << 20;

/// How long the disk may take to give what lies there.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// Attempts to acknowledge while others take the session over in between.
const ATTEMPTS: usize = 8;

const CURSOR: HeaderName = HeaderName::from_static("waystation-cursor");

#[derive(Serialize, ToSchema)]
#[schema(as = MessagePage)]
struct Page {
    #[schema(value_type = Vec<wire::Outgoing>)]
    messages: Vec<Box<RawValue>>,
    cursor: String,
    /// Lost to a full queue since the acknowledged position.
    missed: u64,
}

/// `GET /v1/sessions/{id}/messages`
#[utoipa::path(
    get, path = "/v1/sessions/{id}/messages", tag = "sessions",
    params(("id" = String, Path, description = "The session, which is an MQTT client id"),
        ("after" = Option<String>, Query, description = "Acknowledges everything up to this cursor"),
        ("max" = Option<u32>, Query, description = "Most messages of this page; lowered to 1000", minimum = 1),
        ("takeover" = Option<bool>, Query, description = "Take the session from an MQTT client"), ("wait" = Option<u64>, Query, description = "Seconds to hold the read; lowered to `max_wait_s`"), ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`, likewise"),
        ("Last-Event-ID" = Option<String>, Header, description = "For event streams: as `after`")),
    responses(
        (status = 200, description = "Messages, or a stream of them", content((Page = "application/json"), (String = "text/event-stream"), (wire::Outgoing = "application/x-ndjson")), headers(("Waystation-Cursor" = String))),
        (status = 204, description = "Nothing came", headers(("Waystation-Cursor" = String))),
        Problem
    )
)]
pub(crate) async fn messages(
    State(app): State<App>,
    who: Who,
    SessionPath(id): SessionPath,
    method: Method,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = Form::asked(&headers)?;
    let after = match query.text("after")? {
        // What an event stream saw last says more than the address it was opened with.
        after if form == Some(Form::Events) => last_event_id(&headers)?.or(after),
        after => after,
    };
    let max = match query.parsed::<usize>("max", "a number from 1")? {
        Some(0) => return Err(Problem::BadQuery("`max=0`: a number from 1 is right".into())),
        max => max.unwrap_or(page::DEFAULT).min(page::MOST),
    };
    let takeover = query.flag("takeover")?.unwrap_or(false);
    let wait = Wait::read(&app, &method, &headers, &mut query)?;
    query.finish()?;
    // No cursor is one of a session that is not there.
    let scope = cursor::Scope::from(&visible(&app, &who, &id)?);
    let after = after.map(|text| cursor::decode(scope, &text)).transpose()?;
    if method == Method::HEAD {
        return head(&app, &who, &id);
    }
    let mut link = open(&app, &who, &id, if takeover { Takeover::Always } else { Takeover::SameGateway }).await?;
    let position = start(&mut link, after)?;
    let link = Shared::new(link);
    let reader = Reader::new(&who, &app.broker);
    let noted = app.readers.note(&id, &link);
    if let Some(form) = form {
        let settling = Settling::ByClient { session: scope, _noted: noted };
        return Ok(later(async move { Ok(Pump { app, link, form, reader, position, settling }.into_response()) }));
    }
    let read = Read { scope, link, position, max, reader, _noted: noted };
    let page = read.page()?;
    if page.is_some() || !(wait.is_wanted() || read.is_paging()) {
        let mut answer = page.unwrap_or_else(|| read.nothing());
        wait.tell(&mut answer);
        return Ok(answer);
    }
    Ok(later(async move {
        let mut answer = read.held(&app, wait).await?;
        wait.tell(&mut answer);
        Ok(answer)
    }))
}

/// A read of one page.
struct Read {
    scope: cursor::Scope,
    link: Held,
    position: Cursor,
    max: usize,
    reader: Reader,
    /// Lets `/ack` find the link.
    _noted: Noted,
}

impl Read {
    /// What there is; `None`: nothing, or it lies on disk and is being read.
    fn page(&self) -> Result<Option<Response>, Problem> {
        let mut kept = Vec::new();
        let (missed, behind) = {
            let mut link = self.link.lock();
            link.take(Pick::Oldest(self.position), Budget { messages: self.max, bytes: PAGE_BYTES }, |delivery| {
                kept.push(Kept::delivery(delivery));
                Taken::Sent
            });
            if kept.is_empty() && link.is_paging() {
                return Ok(None);
            }
            (link.missed(), link.behind_the_missed())
        };
        if kept.is_empty() && missed == 0 {
            return Ok(None);
        }
        // Where there are only losses they have a place to be acknowledged by.
        let end = kept.last().and_then(|kept| kept.cursor).or(behind).unwrap_or(self.position);
        let cursor = cursor::encode(self.scope, end);
        let messages = kept.iter().map(|kept| wire::raw(kept.json(&self.reader, Some(self.scope)))).collect();
        let header = HeaderValue::from_str(&cursor).map_err(|_| Problem::Internal)?;
        Ok(Some(([(CURSOR, header)], Json(Page { messages, cursor, missed })).into_response()))
    }

    fn is_paging(&self) -> bool {
        self.link.lock().is_paging()
    }

    /// What comes within the wait. What waits already and lies on disk comes whatever the wait.
    async fn held(&self, app: &App, wait: Wait) -> Result<Response, Problem> {
        loop {
            let paging = self.is_paging();
            let woken = match paging {
                true => until(app, &self.link, Instant::now() + DISK_PATIENCE).await,
                false => wait.next(app, &self.link).await,
            };
            match woken {
                Woken::Detached(Reason::SessionEnded) => return Err(Problem::NoSession),
                Woken::Detached(_) => return Ok(self.nothing()),
                // With the end of the wait one more look: what came with it is not left lying.
                Woken::Something | Woken::TimeIsUp => {}
            }
            match self.page()? {
                Some(page) => return Ok(page),
                None if woken == Woken::TimeIsUp && paging && !app.is_draining() => {
                    return Err(Problem::Busy("the messages lie on a disk that does not answer".into()));
                }
                None if woken == Woken::TimeIsUp => return Ok(self.nothing()),
                None => {}
            }
        }
    }

    fn nothing(&self) -> Response {
        nothing(self.scope, self.position)
    }
}

fn nothing(scope: cursor::Scope, position: Cursor) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(cursor) = HeaderValue::from_str(&cursor::encode(scope, position)) {
        response.headers_mut().insert(CURSOR, cursor);
    }
    response
}

/// HEAD looks without touching: it takes nothing over and acknowledges nothing.
fn head(app: &App, who: &Who, id: &ClientId) -> Result<Response, Problem> {
    let info = visible(app, who, id)?;
    let mut response = nothing(cursor::Scope::from(&info), info.settled);
    if info.queued > 0 || info.missed > 0 {
        *response.status_mut() = StatusCode::OK;
    }
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else { return Ok(None) };
    id.to_str().map(|id| Some(id.to_owned())).map_err(|_| Problem::BadCursor)
}

/// Takes hold of a session there is, as it is.
async fn open(app: &App, who: &Who, id: &ClientId, takeover: Takeover) -> Result<Link, Problem> {
    let SessionInfo { expiry, max_queued_messages, overflow, .. } = app.broker.session(id).ok_or(Problem::NoSession)?;
    let options = SessionOptions {
        max_queued_messages: Some(max_queued_messages),
        overflow: Some(overflow),
        ..SessionOptions::default()
    };
    let hello = Hello { start: Start::Existing, takeover, expiry, options, ..hello(app, who, id) };
    Ok(app.broker.attach(hello).await?.link)
}

/// Acknowledges up to `after`, and says where to read from.
fn start(link: &mut Link, after: Option<Cursor>) -> Result<Cursor, Problem> {
    if let Some(after) = after {
        // Nobody waits until it is durable: after a crash the same cursor comes again and finds the same messages.
        link.settle_through(after).map_err(|_| Problem::BadCursor)?;
    }
    Ok(link.settled())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    cursor: String,
}

/// `POST /v1/sessions/{id}/ack`
#[utoipa::path(
    post, path = "/v1/sessions/{id}/ack", tag = "sessions", request_body = Acknowledgement,
    params(("id" = String, Path, description = "The session, which is an MQTT client id")),
    responses((status = 204, description = "Acknowledged"), Problem)
)]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    who: Who,
    SessionPath(id): SessionPath,
    query: Query,
    request: Request,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let wish: Acknowledgement = body::json(request, 4_096).await?;
    let info = visible(&app, &who, &id)?;
    let cursor = cursor::decode(cursor::Scope::from(&info), &wish.cursor)?;
    for _ in 0..ATTEMPTS {
        match settle(&app, &who, &id, cursor).await? {
            Some(lsn) => {
                app.broker.durable(lsn).await;
                return Ok(StatusCode::NO_CONTENT);
            }
            None => tokio::task::yield_now().await,
        }
    }
    Err(Problem::Busy("other readers keep taking the session over".into()))
}

/// Settles on the link of a reader of ours, so that it goes on reading, else on a link of its own. `None`: the link
/// was taken over meanwhile.
async fn settle(app: &App, who: &Who, id: &ClientId, cursor: Cursor) -> Result<Option<Lsn>, Problem> {
    let info = app.broker.session(id).ok_or(Problem::NoSession)?;
    if !id.is_own() && !who.owns(info.owner.as_deref()) {
        return Err(Problem::Forbidden("the session belongs to another user".into()));
    }
    let ours = info.held_by.as_ref().is_some_and(|gateway| *gateway == app.gateway);
    let found = app.readers.find(id).filter(|_| ours);
    if let Some(reader) = found {
        let mut link = reader.lock();
        // The rights to the session were settled when it was opened; only its own user comes by this way.
        if id.is_own() || link.principal().name() == who.principal.name() {
            let outcome = outcome(&mut link, cursor);
            reader.nudge();
            return outcome;
        }
    }
    outcome(&mut open(app, who, id, Takeover::SameGateway).await?, cursor)
}

fn outcome(link: &mut Link, cursor: Cursor) -> Result<Option<Lsn>, Problem> {
    match link.settle_through(cursor) {
        Ok(lsn) => Ok(Some(lsn)),
        Err(_) if is_dead(link) => Ok(None),
        Err(_) => Err(Problem::BadCursor),
    }
}

/// Whether the link was taken over: its word counts no more, which says nothing about the cursor.
fn is_dead(link: &mut Link) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let event = link.poll_event(&mut cx, waystation_broker::Interest::NoDeliveries);
    matches!(event, std::task::Poll::Ready(waystation_broker::Event::Detached(_)))
}
