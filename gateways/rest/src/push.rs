//! Push instead of pull: a link's deliveries as server-sent events or as lines.

use crate::{
    cursor, media,
    problem::Problem,
    readers::{Held, Noted},
    state::App,
    wait::{Woken, until},
    wire::{Kept, Reader},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;
use waystation_broker::{Budget, Cursor, Pick, Taken};

/// A line that says nothing goes out after this long, so that proxies keep the connection.
const QUIET: Duration = Duration::from_secs(15);

/// What goes out at once. The client's socket takes it before more is taken from the queue.
const PIECE: Budget = Budget { messages: 256, bytes: 256 * 1024 };

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `text/event-stream`
    Events,
    /// `application/x-ndjson`
    Lines,
}

impl Form {
    /// What `Accept` asks for where JSON is served too: then `None`.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        media::choose(headers, &[media::JSON, media::EVENTS, media::LINES]).map(Self::of)
    }

    /// The same where nothing but a stream is served.
    pub(crate) fn demanded(headers: &HeaderMap) -> Result<Self, Problem> {
        media::choose(headers, &[media::EVENTS, media::LINES]).map(|kind| Self::of(kind).unwrap_or(Self::Events))
    }

    fn of(kind: &str) -> Option<Self> {
        match kind {
            media::EVENTS => Some(Self::Events),
            media::LINES => Some(Self::Lines),
            _ => None,
        }
    }

    /// The fields of a stream's head.
    pub(crate) fn head(self) -> [(HeaderName, HeaderValue); 3] {
        let kind = match self {
            Self::Events => media::EVENTS,
            Self::Lines => media::LINES,
        };
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ]
    }

    fn message(self, out: &mut Vec<u8>, place: Option<&str>, json: &str) {
        if self == Self::Events {
            if let Some(place) = place {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(place.as_bytes());
                out.push(b'\n');
            }
            // JSON holds no line break outside of escapes.
            out.extend_from_slice(b"data: ");
        }
        out.extend_from_slice(json.as_bytes());
        out.extend_from_slice(self.end());
    }

    fn missed(self, out: &mut Vec<u8>, count: u64) {
        if self == Self::Events {
            out.extend_from_slice(b"event: missed\ndata: ");
        }
        out.extend_from_slice(format!("{{\"missed\":{count}}}").as_bytes());
        out.extend_from_slice(self.end());
    }

    fn quiet(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Events => b":\n\n",
            Self::Lines => b"\n",
        })
    }

    fn end(self) -> &'static [u8] {
        match self {
            Self::Events => b"\n\n",
            Self::Lines => b"\n",
        }
    }
}

/// A link that is written to a client as long as both are there.
pub(crate) struct Pump {
    pub(crate) app: App,
    pub(crate) link: Held,
    pub(crate) form: Form,
    pub(crate) reader: Reader,
    /// What was sent last.
    pub(crate) position: Cursor,
    pub(crate) settling: Settling,
}

/// Who acknowledges what a stream sent.
pub(crate) enum Settling {
    /// The client, with the cursors of this session.
    ByClient {
        /// Whose cursors.
        session: cursor::Scope,
        /// Lets `/ack` find the link.
        _noted: Noted,
    },
    /// Sending is all there is.
    BySending,
}

impl Pump {
    /// The response; the stream ends with the link, with the gateway, or when the client goes.
    pub(crate) fn into_response(self) -> Response {
        self.link.lock().stream(self.position);
        let head = self.form.head();
        let hello = self.form.quiet();
        let start = (self, Some(hello));
        let body = stream::unfold(start, |(mut pump, hello)| async move {
            let bytes = match hello {
                // Something at once: headers pass proxies, and the client knows that it is heard.
                Some(hello) => hello,
                None => pump.next().await?,
            };
            Some((Ok::<_, Infallible>(bytes), (pump, None)))
        });
        (head, Body::from_stream(body)).into_response()
    }

    /// What goes out next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let quiet = Instant::now() + QUIET;
        loop {
            let piece = self.piece();
            if !piece.is_empty() {
                return Some(piece.into());
            }
            match until(&self.app, &self.link, quiet).await {
                Woken::Something => {}
                Woken::TimeIsUp if self.app.is_draining() => return None,
                Woken::TimeIsUp => return Some(self.form.quiet()),
                Woken::Detached(_) => return None,
            }
        }
    }

    /// What waits, written down.
    fn piece(&mut self) -> Vec<u8> {
        let mut kept = Vec::new();
        let missed = {
            let mut link = self.link.lock();
            link.take(Pick::Oldest(self.position), PIECE, |delivery| {
                kept.push(Kept::delivery(delivery));
                Taken::Sent
            });
            let missed = link.newly_missed();
            if let Some(last) = kept.last().and_then(|kept| kept.cursor) {
                self.position = last;
                if matches!(self.settling, Settling::BySending) {
                    // What was just handed out can be settled.
                    _ = link.settle_through(last);
                }
            }
            missed
        };
        let mut out = Vec::new();
        if missed > 0 {
            self.form.missed(&mut out, missed);
        }
        let session = match &self.settling {
            Settling::ByClient { session, .. } => Some(*session),
            Settling::BySending => None,
        };
        for kept in kept {
            let place = session.zip(kept.cursor).map(|(session, place)| cursor::encode(session, place));
            self.form.message(&mut out, place.as_deref(), &kept.json(&self.reader, session));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_their_cursor_and_losses_are_events_of_their_own() {
        let mut out = Vec::new();
        Form::Events.message(&mut out, Some("c1"), "{}");
        Form::Events.missed(&mut out, 3);
        Form::Lines.message(&mut out, Some("c1"), "{}");
        assert_eq!(out, b"id: c1\ndata: {}\n\nevent: missed\ndata: {\"missed\":3}\n\n{}\n");
    }
}
