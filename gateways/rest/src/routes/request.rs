//! Request and reply: publish, and wait for the first answer.

use crate::{
    body,
    identity::Who,
    later::later,
    problem::Problem,
    publish::Burst,
    query::{Query, TopicPath},
    readers::Held,
    routes::{stream::unnamed, topics},
    state::App,
    wait::{Woken, until},
};
use axum::{
    extract::{Request, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};
use waystation_broker::{
    Budget, Cursor, Filter, Message, Peer, Pick, Principal, Qos, RetainHandling, Subscription, Taken, Topic,
};

/// Seconds to wait for a reply unless `timeout` says otherwise.
const TIMEOUT: u64 = 5;

/// Requests under way whose responders know no response topic: one a reply topic, for nothing else tells whose an
/// answer is. As many as there are open requests.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<Topic, Arc<tokio::sync::Mutex<()>>>>);

/// One's turn on a reply topic.
struct Turn<'a> {
    turns: &'a Turns,
    topic: Topic,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    async fn wait(&self, topic: &Topic, deadline: Instant) -> Result<Turn<'_>, Problem> {
        let queue = Arc::clone(self.0.lock().entry(topic.clone()).or_default());
        // From here on dropped in any case, so that the last one out clears the entry.
        let mut turn = Turn { turns: self, topic: topic.clone(), guard: None };
        let guard = timeout_at(deadline, queue.lock_owned()).await;
        turn.guard = guard.ok();
        match turn.guard {
            Some(_) => Ok(turn),
            None => Err(Problem::Busy("other requests wait for their answers on the same reply topic".into())),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.turns.0.lock();
        // Whoever waits holds the queue too.
        if turns.get(&self.topic).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            turns.remove(&self.topic);
        }
    }
}

/// `POST /v1/request/{topic}`
#[utoipa::path(
    post, path = "/v1/request/{topic}", tag = "topics", request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The payload as it is; its Content-Type goes with it"),
    params(("topic" = String, Path, description = "The topic; its slashes may stand as they are"),
        ("timeout" = Option<u64>, Query, description = "Seconds to wait for the reply, 5 unless given; lowered to `max_wait_s`"),
        ("reply" = Option<String>, Query, description = "Where responders answer that read no response topic; `{topic}/reply` unless given"),
        ("qos" = Option<u8>, Query, description = "0, 1 (default) or 2", maximum = 2),
        ("expiry" = Option<u32>, Query, description = "Seconds until the request is no longer worth delivering"),
        ("correlation_data" = Option<String>, Query, description = "Base64url; random unless given"),
        ("user.NAME" = Option<Vec<String>>, Query, description = "MQTT 5 user property NAME; any name, any number")),
    responses((status = 200, description = "The reply", content_type = "*/*"), Problem)
)]
pub(crate) async fn ask(
    State(app): State<App>,
    who: Who,
    TopicPath(topic): TopicPath,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let seconds = query.parsed("timeout", "a whole number of seconds")?.unwrap_or(TIMEOUT);
    let deadline = Instant::now() + Duration::from_secs(seconds.min(app.config().max_wait_s));
    let wanted = query.text("reply")?.map(|topic| Topic::parse(&topic)).transpose()?;
    let (head, body) = request.into_parts();
    let most = usize::try_from(app.broker.limits().max_packet_size).unwrap_or(usize::MAX);
    let payload = body::whole(body, most).await?;
    let question = Question { app, who, topic, head, query, payload, wanted, deadline };
    Ok(later(question.answer()))
}

/// A request that was read.
struct Question {
    app: App,
    who: Who,
    topic: Topic,
    head: Parts,
    query: Query,
    payload: Bytes,
    /// Where responders answer that read no response topic, if the client says so.
    wanted: Option<Topic>,
    deadline: Instant,
}

impl Question {
    async fn answer(self) -> Result<Response, Problem> {
        let Self { app, who, topic, head, query, payload, wanted, deadline } = self;
        let mut message = topics::message(&head, topic.clone(), query, &payload)?;
        let properties = message.properties.get_or_insert_default();
        if properties.response_topic.is_some() || message.retain || message.idempotency.is_some() {
            return Err(Problem::BadQuery(
                "a request is no state, is made once, and has a response topic of its own (`reply` for those who cannot \
                 read it)"
                    .into(),
            ));
        }
        let id = secret()?;
        let address = Topic::parse(&format!("$reply/{id}"))?;
        properties.response_topic = Some(address.as_str().into());
        properties.correlation_data.get_or_insert_with(|| id.as_bytes().into());

        if !app.broker.publisher(&app.gateway, who.principal.clone(), None).may_publish(&topic) {
            return Err(waystation_broker::Refused::NotAuthorized.into());
        }
        let audience = app.broker.audience(&topic);
        if audience.sessions == 0 {
            return Err(Problem::NobodyListens);
        }
        // The server's own: nobody else may listen there.
        let server = Who { principal: Principal::server(), peer: Peer::INTERNAL };
        let direct = listen(&app, &server, &address).await?;
        let (_turn, plain) = if audience.plain > 0 {
            let asked = wanted.is_some();
            let reply = wanted.map_or_else(|| Topic::parse(&format!("{}/reply", topic.as_str())), Ok)?;
            let turn = app.turns.wait(&reply, deadline).await?;
            match listen(&app, &who, &reply).await {
                Ok(link) => (Some(turn), Some(link)),
                // Whoever can read the response topic answers there all the same.
                Err(Problem::Forbidden(_)) if !asked && audience.plain < audience.sessions => (None, None),
                Err(problem) => return Err(problem),
            }
        } else {
            (None, None)
        };
        let mut burst = Burst::new(&app, &who);
        burst.stage(Ok(message));
        let published = burst.finish().await.pop().unwrap_or(Err(Problem::Internal))?;
        if published.matched == 0 {
            return Err(Problem::NobodyListens);
        }
        let reply = match &plain {
            None => first(&app, &direct, deadline).await,
            Some(plain) => tokio::select! {
                reply = first(&app, &direct, deadline) => reply,
                reply = first(&app, plain, deadline) => reply,
            },
        }?;
        Ok(topics::payload(&reply).into_response())
    }
}

/// 128 bits that nobody can guess, as text.
fn secret() -> Result<String, Problem> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|_| Problem::Internal)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

/// Subscribes to one topic, from now on.
async fn listen(app: &App, who: &Who, topic: &Topic) -> Result<Held, Problem> {
    let filter = Filter::parse(topic.as_str())?;
    let live =
        Subscription { retain_handling: RetainHandling::DoNotSend, ..Subscription::new(filter, Qos::AtMostOnce) };
    unnamed(app, who, &[live]).await
}

/// The first message there is.
async fn first(app: &App, link: &Held, deadline: Instant) -> Result<Message, Problem> {
    const ONE: Budget = Budget { messages: 1, bytes: usize::MAX };
    loop {
        let mut found = None;
        link.lock().take(Pick::Oldest(Cursor::default()), ONE, |delivery| {
            found = Some(delivery.message.clone());
            Taken::Sent
        });
        if let Some(message) = found {
            return Ok(message);
        }
        match until(app, link, deadline).await {
            Woken::Something => {}
            Woken::TimeIsUp if !app.is_draining() => return Err(Problem::NoReply),
            Woken::TimeIsUp | Woken::Detached(_) => return Err(Problem::Stopping),
        }
    }
}
