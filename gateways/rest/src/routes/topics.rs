//! Messages and state, by topic.

use crate::{
    body,
    conditional::{self, Tags},
    idempotency,
    identity::Who,
    later::later,
    media, page,
    problem::Problem,
    publish::Burst,
    query::{Query, TopicPath},
    readers,
    receipt::Published,
    routes::stream::unnamed,
    state::App,
    wait::{Wait, Woken},
    wire::{self, Kept, Reader},
};
use axum::{
    Json,
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::{Duration, UNIX_EPOCH};
use utoipa::ToSchema;
use waystation_broker::{Filter, Message, Peer, Principal, Properties, Publish, Qos, Refusal, Topic};

/// Bytes of payload and topic in one list; the first entry always fits.
const LIST_BYTES: usize = 8 << 20;

/// `POST /v1/topics/{topic}`
#[utoipa::path(
    post, path = "/v1/topics/{topic}", tag = "topics", request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The payload as it is; its Content-Type goes with it"),
    params(("topic" = String, Path, description = "The topic; its slashes may stand as they are"), ("qos" = Option<u8>, Query, description = "0, 1 (default) or 2", maximum = 2),
        ("retain" = Option<bool>, Query, description = "Keep it as the topic's state"),
        ("expiry" = Option<u32>, Query, description = "Seconds until it is no longer worth delivering"),
        ("response_topic" = Option<String>, Query, description = "Where an answer is wanted"),
        ("correlation_data" = Option<String>, Query, description = "Base64url; comes back with the answer"),
        ("user.NAME" = Option<Vec<String>>, Query, description = "MQTT 5 user property NAME; any name, any number"), ("Idempotency-Key" = Option<String>, Header, description = "A repeat within ten minutes is answered as this one")),
    responses((status = 200, description = "Published", body = Published), Problem)
)]
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let peer = head.extensions.get().copied().unwrap_or(Peer::INTERNAL);
    post(&app, peer, &head, body).await
}

/// The same without a router: nothing is looked up or boxed that this call does not need.
pub(crate) async fn post<B>(app: &App, peer: Peer, head: &Parts, body: B) -> Result<Response, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let who = Who::ask(app, peer, &head.headers).await?;
    let TopicPath(topic) = TopicPath::of(head.uri.path())?;
    let query = Query::parse(head.uri.query())?;
    put_in(app, &who, topic, query, head, body).await
}

/// `PUT /v1/topics/{topic}`
#[utoipa::path(
    put, path = "/v1/topics/{topic}", tag = "topics", request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The payload as it is; its Content-Type goes with it"),
    params(("topic" = String, Path, description = "The topic; its slashes may stand as they are"), ("qos" = Option<u8>, Query, description = "0, 1 (default) or 2", maximum = 2),
        ("retain" = Option<bool>, Query, description = "Keep it as the topic's state"),
        ("expiry" = Option<u32>, Query, description = "Seconds until it is no longer worth delivering"),
        ("response_topic" = Option<String>, Query, description = "Where an answer is wanted"),
        ("correlation_data" = Option<String>, Query, description = "Base64url; comes back with the answer"),
        ("user.NAME" = Option<Vec<String>>, Query, description = "MQTT 5 user property NAME; any name, any number"), ("Idempotency-Key" = Option<String>, Header, description = "A repeat within ten minutes is answered as this one"), ("If-Match" = Option<String>, Header, description = "Only if the state is one of these"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    responses((status = 200, description = "Published", body = Published, headers(("ETag" = String))), Problem)
)]
pub(crate) async fn set(
    State(app): State<App>,
    who: Who,
    TopicPath(topic): TopicPath,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    put_in(&app, &who, topic, query, &head, body).await
}

/// Publishes what a POST or PUT describes.
async fn put_in<B>(app: &App, who: &Who, topic: Topic, query: Query, head: &Parts, body: B) -> Result<Response, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let most = usize::try_from(app.broker.limits().max_packet_size).unwrap_or(usize::MAX);
    let payload = body::whole(body, most).await?;
    let message = message(head, topic, query, &payload)?;
    let sets = message.retain && !payload.is_empty();
    let published = send(app, who, message).await?;
    let mut response = published.response();
    if sets && let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", published.id)) {
        // An empty body clears the state: there is nothing an ETag could name.
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// `DELETE /v1/topics/{topic}`
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", tag = "topics",
    params(("topic" = String, Path, description = "The topic; its slashes may stand as they are"), ("If-Match" = Option<String>, Header, description = "Only if the state is one of these"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    responses((status = 204, description = "It has no state (any more)"), Problem)
)]
pub(crate) async fn clear(
    State(app): State<App>,
    who: Who,
    TopicPath(topic): TopicPath,
    query: Query,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    query.finish()?;
    let condition = conditional::precondition(&headers)?;
    let empty = Publish { retain: true, condition, ..Publish::new(topic, b"", Qos::AtLeastOnce) };
    send(&app, &who, empty).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The message that a request describes.
pub(crate) fn message<'a>(
    head: &Parts,
    topic: Topic,
    mut query: Query,
    payload: &'a [u8],
) -> Result<Publish<'a>, Problem> {
    let headers = &head.headers;
    let sets = head.method == Method::PUT;
    let qos = wire::qos(query.parsed("qos", "0, 1 or 2")?.unwrap_or(1)).map_err(Problem::BadQuery)?;
    let retain = query.flag("retain")?.unwrap_or(sets);
    if sets && !retain {
        return Err(Problem::BadQuery("`retain=false`: PUT sets the topic's state; POST publishes an event".into()));
    }
    let expiry = query.parsed("expiry", "a whole number of seconds")?;
    let correlation = query.text("correlation_data")?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map(|value| {
            value.to_str().map_err(|_| Problem::BadRequest("the header Content-Type is not plain text".into()))
        })
        .transpose()?;
    let properties = Properties {
        payload_is_utf8: false,
        content_type: content_type.map(Into::into),
        response_topic: query.text("response_topic")?.map(Into::into),
        correlation_data: correlation
            .map(|text| wire::correlation_data(&text))
            .transpose()
            .map_err(Problem::BadQuery)?,
        user: query.under("user.").into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    query.finish()?;
    let properties = wire::checked(properties).map_err(Problem::BadQuery)?;
    let condition = if sets { conditional::precondition(headers)? } else { None };
    let idempotency = idempotency::header(headers)?.map(|key| {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let kind = content_type.unwrap_or_default();
        idempotency::named(key, &[head.method.as_str().as_bytes(), target.as_bytes(), kind.as_bytes(), payload])
    });
    Ok(Publish { retain, expiry, properties, condition, idempotency, ..Publish::new(topic, payload, qos) })
}

async fn send(app: &App, who: &Who, message: Publish<'_>) -> Result<Published, Problem> {
    let mut burst = Burst::new(app, who);
    if !burst.has_room() {
        return Err(Problem::Busy("too much is on its way to the disk".into()));
    }
    burst.stage(Ok(message));
    burst.finish().await.pop().unwrap_or(Err(Problem::Internal))
}

/// `GET /v1/topics/{topic}`
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "topics",
    params(("topic" = String, Path, description = "The topic; its slashes may stand as they are"), ("wait" = Option<u64>, Query, description = "Seconds to hold the read; lowered to `max_wait_s`"), ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`, likewise"), ("If-None-Match" = Option<String>, Header, description = "States the client knows")),
    responses((status = 200, description = "The payload", content_type = "*/*", headers(("ETag" = String), ("Last-Modified" = String), ("Waystation-Qos" = u8))), (status = 304, description = "Unchanged"), Problem)
)]
pub(crate) async fn read(
    State(app): State<App>,
    who: Who,
    TopicPath(topic): TopicPath,
    method: Method,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state_of(&app, &who, &topic, &method, query, headers).await
}

/// `GET /v1/topics`: a list, or with `?topic=T` that topic's state.
#[utoipa::path(
    get, path = "/v1/topics", tag = "topics",
    params(("filter" = Option<String>, Query, description = "Topic filter; `#` unless given"), page::Asked,
        ("topic" = Option<String>, Query, description = "This topic's state instead of a list"), ("wait" = Option<u64>, Query, description = "Seconds to hold the read; lowered to `max_wait_s`"), ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`, likewise"),
        ("If-None-Match" = Option<String>, Header, description = "With `topic`: states the client knows")),
    responses((status = 200, description = "A page; with `topic` the payload", content((List = "application/json"), (Vec<u8> = "*/*"))), (status = 304, description = "Unchanged"), Problem)
)]
pub(crate) async fn list(
    State(app): State<App>,
    who: Who,
    method: Method,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(topic) = query.text("topic")? else { return listed(&app, &who, query, &headers) };
    state_of(&app, &who, &Topic::parse(&topic)?, &method, query, headers).await
}

/// The state, at once or when it changes.
async fn state_of(
    app: &App,
    who: &Who,
    topic: &Topic,
    method: &Method,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Wait::read(app, method, &headers, &mut query)?;
    query.finish()?;
    let known = Tags::read(&headers, &header::IF_NONE_MATCH)?;
    let mut answer = match answer(app, &who.principal, topic, known.as_ref())? {
        Answer::NotYet(unchanged) if wait.is_wanted() => {
            // A session of no name: its link says when something is to be looked at, or is over.
            let link = unnamed(app, who, &[]).await?;
            let had_state = unchanged.is_some();
            let held = Held { app: app.clone(), topic: topic.clone(), known, wait, had_state, link };
            return Ok(later(held.answer()));
        }
        answer => answer.into_response(),
    };
    wait.tell(&mut answer);
    Ok(answer)
}

/// What a read of the state gives now.
enum Answer {
    /// It is news to this reader.
    News(Message),
    /// The state the reader knows is gone.
    Gone,
    /// Worth waiting: the reader knows the state there is, or there is none and it knew of none.
    NotYet(Option<Message>),
}

fn answer(app: &App, who: &Principal, topic: &Topic, known: Option<&Tags>) -> Result<Answer, Problem> {
    let state = app.broker.retained(who, topic).map_err(unreadable)?;
    Ok(match state {
        Some(state) if known.is_some_and(|known| known.hold(state.id())) => Answer::NotYet(Some(state)),
        Some(state) => Answer::News(state),
        // Who names a state has seen one: that it is gone is a change, and told at once.
        None if matches!(known, Some(Tags::These(_))) => Answer::Gone,
        None => Answer::NotYet(None),
    })
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::News(state) => full(&state),
            Self::Gone | Self::NotYet(None) => Problem::NoState.into_response(),
            Self::NotYet(Some(state)) => {
                let mut response = StatusCode::NOT_MODIFIED.into_response();
                validators(&mut response, &state);
                response
            }
        }
    }
}

/// A read that waits for the state to change.
struct Held {
    app: App,
    topic: Topic,
    known: Option<Tags>,
    wait: Wait,
    had_state: bool,
    link: readers::Held,
}

impl Held {
    async fn answer(self) -> Result<Response, Problem> {
        let (watch, principal) = {
            let link = self.link.lock();
            (link.watch(&self.topic), link.principal().clone())
        };
        let mut answer = loop {
            // While it is watched: nothing falls between the look and the wait.
            let now = match answer(&self.app, &principal, &self.topic, self.known.as_ref())? {
                Answer::NotYet(None) if self.had_state => Answer::Gone,
                answer => answer,
            };
            let Answer::NotYet(state) = &now else { break now.into_response() };
            // A state that runs out makes no sound.
            let expires = state.as_ref().and_then(Message::expires).map(|at| at.since(self.app.broker.now()));
            let expires = expires.map(|left| left.max(Duration::from_millis(1)));
            match self.wait.next_within(&self.app, &self.link, expires).await {
                Woken::Something => {}
                Woken::TimeIsUp | Woken::Detached(_) => break now.into_response(),
            }
        };
        drop(watch);
        self.wait.tell(&mut answer);
        Ok(answer)
    }
}

fn unreadable(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotAuthorized => Problem::Forbidden("the rights do not allow reading this topic".into()),
        other => other.into(),
    }
}

/// The state, with what names it.
fn full(state: &Message) -> Response {
    let mut response = payload(state);
    validators(&mut response, state);
    response
}

/// A message's payload as it is, described by headers.
pub(crate) fn payload(state: &Message) -> Response {
    let mut response = state.payload().to_vec().into_response();
    let kind = state
        .properties()
        .and_then(|properties| properties.content_type.as_deref())
        .and_then(|kind| HeaderValue::from_str(kind).ok())
        .filter(|kind| !kind.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert("waystation-qos", HeaderValue::from(state.qos() as u16));
    // Whoever may publish chooses bytes and type: a browser must neither guess nor run them as a page of ours.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    response
}

fn validators(response: &mut Response, state: &Message) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, conditional::etag(state.id()));
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(state.time().0));
    if let Some(time) = time.and_then(|time| HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()) {
        headers.insert(header::LAST_MODIFIED, time);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

#[derive(Serialize, ToSchema)]
#[schema(as = TopicList)]
struct List {
    #[schema(value_type = Vec<wire::Outgoing>)]
    topics: Vec<Box<RawValue>>,
    /// Goes into `after`; `null` when this was the last page.
    next: Option<String>,
}

/// `GET /v1/topics?filter=F`
fn listed(app: &App, who: &Who, mut query: Query, headers: &HeaderMap) -> Result<Response, Problem> {
    media::choose(headers, &[media::JSON])?;
    let filter = Filter::parse(query.text("filter")?.as_deref().unwrap_or("#"))?;
    if filter.group().is_some() {
        return Err(Problem::BadTopic("a shared filter has no state to list".into()));
    }
    let limit = page::limit(&mut query)?;
    let after = query.text("after")?.map(|after| Topic::parse(&after)).transpose()?;
    query.finish()?;
    let mut found = Vec::new();
    app.broker.retained_under(&who.principal, &filter, after.as_ref(), limit + 1, &mut found);
    let mut bytes = 0;
    let fits = found
        .iter()
        .take(limit)
        .take_while(|message| {
            let first = bytes == 0;
            bytes += message.cost();
            first || bytes <= LIST_BYTES
        })
        .count();
    let more = found.len() > fits;
    found.truncate(fits);
    let next = found.last().filter(|_| more).map(|last| last.topic().as_str().to_owned());
    let (reader, now) = (Reader::new(who, &app.broker), app.broker.now());
    let topics = found.into_iter().map(|state| wire::raw(Kept::state(state, now).json(&reader, None))).collect();
    Ok(Json(List { topics, next }).into_response())
}
