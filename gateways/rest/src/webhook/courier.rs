//! One webhook at work: takes what waits, POSTs it until it is answered, settles it, takes the next.

use super::{
    Webhook, dead,
    figures::Figures,
    letter::{Letter, MOST_BYTES},
    resolver::Unreachable,
    schedule::{Answer, Schedule, Verdict, retry_after},
    session_id,
};
use crate::{state::App, wire::Kept};
use axum::http::header;
use std::{error::Error, sync::Arc, time::Duration};
use waystation_broker::{
    Budget, Credentials, Cursor, Event, Hello, Interest, Link, Peer, Pick, Principal, Reason, Start, Taken, Time,
    WhileAway,
};

/// Before a session that was lost is taken up again.
const PAUSE: Duration = Duration::from_secs(1);

/// Most of an answer's body that is read, and for how long, so that its connection can be used again.
const MOST_ANSWER: usize = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Courier {
    pub(super) app: App,
    pub(super) webhook: Webhook,
    pub(super) principal: Principal,
    pub(super) figures: Arc<Figures>,
    /// Since when the target has answered nothing well.
    pub(super) failing: Option<Time>,
}

/// What became of a letter.
enum Fate {
    Delivered,
    Dead {
        reason: String,
        attempts: u32,
    },
    /// Nothing: the link is gone, or the gateway drains.
    Left,
}

/// How a webhook comes to its session.
pub(super) fn hello(app: &App, name: &str, principal: &Principal) -> Hello {
    Hello {
        credentials: Credentials::Known(principal.clone()),
        start: Start::Resume,
        expiry: u32::MAX,
        while_away: WhileAway::KeepQos0,
        ..Hello::new(Arc::clone(&app.gateway), Peer::INTERNAL, session_id(name))
    }
}

impl Courier {
    /// Works until the gateway drains or the task is aborted; what is not settled by then is sent again.
    pub(super) async fn run(mut self) {
        while !self.app.is_draining() {
            let hello = hello(&self.app, &self.webhook.name, &self.principal);
            match self.app.broker.attach(hello).await {
                Ok(attached) => self.serve(attached.link).await,
                Err(error) => tracing::debug!(webhook = %self.webhook.name, %error, "no session for now"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.app.drained() => {}
            }
        }
    }

    /// Works as long as the link lives.
    async fn serve(&mut self, mut link: Link) {
        let mut position = link.settled();
        while !self.app.is_draining() {
            let Some(letter) = self.collect(&mut link, position) else {
                tokio::select! {
                    event = link.event(Interest::Everything) => match event {
                        Event::Detached(_) => return,
                        Event::Deliverable | Event::Durable(_) | Event::Room => continue,
                    },
                    () = self.app.drained() => return,
                }
            };
            match self.deliver(&mut link, &letter).await {
                Fate::Delivered => {}
                Fate::Dead { reason, attempts } => {
                    tracing::warn!(webhook = %self.webhook.name, %reason, attempts, "a message became a dead letter");
                    if !dead::bury(&self.app, &self.webhook.name, &letter, &reason, attempts).await {
                        return;
                    }
                    self.figures.buried(letter.messages.len());
                }
                Fate::Left => return,
            }
            // Refused only when somebody else holds the session by now; then it is for them.
            if link.settle_through(letter.last).is_err() {
                return;
            }
            position = letter.last;
        }
    }

    /// What goes next.
    fn collect(&self, link: &mut Link, position: Cursor) -> Option<Letter> {
        let budget = Budget { messages: self.webhook.batch, bytes: MOST_BYTES };
        let mut messages = Vec::new();
        link.take(Pick::Oldest(position), budget, |delivery| {
            messages.push(Kept::delivery(delivery));
            Taken::Sent
        });
        if messages.is_empty() {
            return None;
        }
        Letter::new(messages, self.webhook.batch > 1, link.missed())
    }

    async fn deliver(&mut self, link: &mut Link, letter: &Letter) -> Fate {
        let since = match (self.failing, letter.messages.first()) {
            // It waited behind others that failed: that time counts, or a queue would take days for each message.
            (Some(failing), Some(first)) => failing.max(first.message.time()),
            _ => self.app.broker.now(),
        };
        let mut schedule = Schedule::new(self.webhook.patience, since);
        loop {
            let attempt = schedule.begin();
            self.figures.began(attempt, self.app.broker.now());
            let (answer, told) = self.attempt(letter, attempt).await;
            let now = self.app.broker.now();
            match schedule.judge(answer, now, fastrand::f64()) {
                Verdict::Delivered => {
                    self.failing = None;
                    self.figures.delivered(letter.messages.len(), now);
                    return Fate::Delivered;
                }
                Verdict::Dead => {
                    self.figures.failed(told.clone(), now, None);
                    return Fate::Dead { reason: told, attempts: schedule.attempts() };
                }
                Verdict::Again(at) => {
                    tracing::debug!(webhook = %self.webhook.name, attempt, error = %told, "the target failed");
                    self.failing.get_or_insert(now);
                    self.figures.failed(told, now, Some(at));
                    if !self.wait(link, at.since(now)).await {
                        return Fate::Left;
                    }
                }
            }
        }
    }

    /// One request; what the target said, and in words.
    async fn attempt(&self, letter: &Letter, attempt: u32) -> (Answer, String) {
        let request = self.request(letter, attempt);
        match tokio::time::timeout(self.webhook.timeout, request).await {
            Ok(answer) => answer,
            Err(_) => (Answer::Fault, format!("no answer within {} ms", self.webhook.timeout.as_millis())),
        }
    }

    async fn request(&self, letter: &Letter, attempt: u32) -> (Answer, String) {
        // Connections are kept, names are not: each attempt looks anew.
        if let Err(error) = self.app.webhooks.resolver().check(&self.webhook.url).await {
            let answer = if matches!(error, Unreachable::Private(_)) { Answer::Forbidden } else { Answer::Fault };
            return (answer, error.to_string());
        }
        let client = match self.app.webhooks.client() {
            Ok(client) => client,
            Err(error) => return (Answer::Fault, error),
        };
        let headers = letter.headers(attempt, self.app.broker.now(), self.webhook.secret.as_ref());
        let request = client.post(self.webhook.url.clone()).headers(headers).body(letter.body.clone());
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                let wish = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let wish = wish.and_then(|text| retry_after(text, self.app.broker.now()));
                // Not waited for: the answer is known.
                tokio::spawn(tokio::time::timeout(ANSWER_TIME, drain(response)));
                (Answer::Status(status.as_u16(), wish), format!("the target answered {status}"))
            }
            Err(error) if is_private(&error) => (Answer::Forbidden, told(error)),
            Err(error) => (Answer::Fault, told(error)),
        }
    }

    /// Waits before the next attempt; `false`: there is to be none.
    async fn wait(&self, link: &mut Link, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                () = self.app.drained() => return false,
                event = link.event(Interest::NoDeliveries) => match event {
                    Event::Detached(reason) => {
                        let name = &self.webhook.name;
                        tracing::debug!(webhook = %name, stopping = reason == Reason::ServerStopping, "lost its session");
                        return false;
                    }
                    Event::Deliverable | Event::Durable(_) | Event::Room => {}
                },
            }
        }
    }
}

/// Reads what is left of an answer, if that is little.
async fn drain(mut response: reqwest::Response) {
    let mut left = MOST_ANSWER;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn is_private(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| matches!(cause.downcast_ref(), Some(Unreachable::Private(_))))
}

/// The error with its causes, and without the URL, which may hold a password.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes: Vec<String> = causes(&error).map(ToString::to_string).collect();
    causes.join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
