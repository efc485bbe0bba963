//! How long a read may be held, and what ends it.

use crate::{
    conditional::{PREFERENCE_APPLIED, preferred_wait},
    problem::Problem,
    query::Query,
    readers::Held,
    state::App,
};
use axum::{
    http::{HeaderMap, HeaderValue, Method},
    response::Response,
};
use std::{future::poll_fn, time::Duration};
use tokio::time::Instant;
use waystation_broker::{Event, Interest, Reason};

/// A wish to wait, as far as it is granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    seconds: Option<u64>,
    until: Instant,
}

impl Wait {
    /// `?wait=N`, else `Prefer: wait=N`; lowered to `max_wait_s`. HEAD never waits.
    pub(crate) fn read(app: &App, method: &Method, headers: &HeaderMap, query: &mut Query) -> Result<Self, Problem> {
        let asked = query.parsed("wait", "a whole number of seconds")?.or_else(|| preferred_wait(headers));
        let seconds = asked.filter(|_| method != Method::HEAD).map(|seconds| seconds.min(app.config().max_wait_s));
        Ok(Self { seconds, until: Instant::now() + Duration::from_secs(seconds.unwrap_or(0)) })
    }

    /// Whether there is a wish at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.seconds.is_some_and(|seconds| seconds > 0)
    }

    /// Tells what was granted (RFC 7240 §3).
    pub(crate) fn tell(&self, response: &mut Response) {
        if let Some(value) = self.seconds.and_then(|s| HeaderValue::from_str(&format!("wait={s}")).ok()) {
            response.headers_mut().insert(PREFERENCE_APPLIED, value);
        }
    }

    /// The next thing on this link, or the end of the wait. Costs no thread and does not poll; dropping it ends it.
    pub(crate) async fn next(&self, app: &App, link: &Held) -> Woken {
        until(app, link, self.until).await
    }

    /// The same, no later than `earlier` from now.
    pub(crate) async fn next_within(&self, app: &App, link: &Held, earlier: Option<Duration>) -> Woken {
        match earlier.map(|earlier| Instant::now() + earlier).filter(|at| *at < self.until) {
            None => self.next(app, link).await,
            Some(at) => match until(app, link, at).await {
                Woken::TimeIsUp => Woken::Something,
                other => other,
            },
        }
    }
}

/// What ended a stretch of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Look again.
    Something,
    /// The wait ran out, or the gateway drains.
    TimeIsUp,
    /// The link is dead.
    Detached(Reason),
}

/// Waits on a link until `at`.
pub(crate) async fn until(app: &App, link: &Held, at: Instant) -> Woken {
    let event = poll_fn(|cx| link.lock().poll_event(cx, Interest::Everything));
    tokio::select! {
        biased;
        event = event => match event {
            Event::Detached(reason) => Woken::Detached(reason),
            Event::Deliverable | Event::Durable(_) | Event::Room => Woken::Something,
        },
        () = link.nudged() => Woken::Something,
        () = app.drained() => Woken::TimeIsUp,
        () = tokio::time::sleep_until(at) => Woken::TimeIsUp,
    }
}
