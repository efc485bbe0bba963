//! Bulk and full control: one message object, an array, or a stream of lines.

use crate::{
    body,
    idempotency::{self, IDEMPOTENCY_REPLAYED},
    identity::Who,
    media,
    openapi::{Answers, Orders},
    problem::Problem,
    publish::Burst,
    query::Query,
    receipt::{Entry, Published},
    state::App,
    wire::{self, Order},
};
use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{fmt, time::Duration};
use tokio::time::timeout;
use waystation_broker::{Idempotency, Publish, Topic};

/// Entries of an array. Each costs memory for its result however small it is; NDJSON has no such bound.
const MOST_ENTRIES: usize = 100_000;

/// Messages that are routed and made safe together.
const BURST: usize = 256;

/// JSON over this size is read away from the threads that serve other clients.
const LARGE: usize = 64 * 1024;

/// A stream of lines that says nothing for so long ends: an open connection costs memory.
const SILENCE: Duration = Duration::from_secs(60);

/// `POST /v1/messages`
#[utoipa::path(
    post, path = "/v1/messages", tag = "topics",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat within ten minutes is answered as this one")),
    request_body(content(
        (inline(Orders) = "application/json"),
        (wire::Incoming = "application/x-ndjson")
    )),
    responses(
        (status = 200, description = "Published, all of it", content((inline(Answers) = "application/json"), (Entry = "application/x-ndjson"))),
        (status = 207, description = "Some entries failed", body = Vec<Entry>),
        Problem
    )
)]
pub(crate) async fn publish(
    State(app): State<App>,
    who: Who,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query.finish()?;
    let key = idempotency::header(&headers)?;
    match media::sent(&headers).as_deref() {
        Some(media::LINES) if key.is_some() => Err(Problem::BadRequest(
            "Idempotency-Key names one request; give each line an `idempotency_key` of its own".into(),
        )),
        Some(media::LINES) => Ok(lines(&app, &who, body)),
        None | Some(media::JSON | media::FORM) => {
            let json = body::whole(body, app.config().max_bulk_bytes).await?;
            let key = key.map(|key| idempotency::named(key, &[b"POST /v1/messages", &json]));
            if !json.trim_ascii_start().starts_with(b"[") {
                return Ok(object(&app, &who, json, key).await?.response());
            }
            let (mut response, replayed) = array(&app, &who, json, key).await?;
            if replayed {
                response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
        Some(other) => Err(Problem::UnsupportedMediaType(format!(
            "`{other}` is not taken; application/json or application/x-ndjson is"
        ))),
    }
}

async fn object(app: &App, who: &Who, json: Bytes, key: Option<Box<Idempotency>>) -> Result<Published, Problem> {
    let mut order = aside(json.len(), move || Order::from_json(text(&json)?)).await??;
    name(&mut order, key)?;
    let mut burst = Burst::new(app, who);
    if !burst.has_room() {
        return Err(Problem::Busy("too much is on its way to the disk".into()));
    }
    burst.stage(publication(&order));
    burst.finish().await.pop().unwrap_or(Err(Problem::Internal))
}

/// One result an entry, and whether they are those of an earlier request.
async fn array(app: &App, who: &Who, json: Bytes, key: Option<Box<Idempotency>>) -> Result<(Response, bool), Problem> {
    let mut orders = aside(json.len(), move || orders(text(&json)?)).await??;
    let mut burst = Burst::new(app, who);
    let mut results: Vec<Result<Published, Problem>> = Vec::with_capacity(orders.len());
    let is_named = key.is_some();
    if let Some(key) = key {
        // The first entry that can be published carries the key, the others one made of it: a space is in no key.
        let read = orders.iter_mut().enumerate().filter_map(|(at, order)| Some((at, order.as_mut().ok()?)));
        let mut good = read.filter(|(_, order)| publication(order).is_ok());
        let first = good.next().map(|(at, order)| name(order, Some(key.clone())).map(|()| at)).transpose()?;
        for (at, order) in good {
            let key = Idempotency { key: format!("{} {at}", key.key).into(), ..*key };
            name(order, Some(Box::new(key)))?;
        }
        // It goes ahead: if its key belongs to another request, so does the whole array.
        for order in orders.drain(..first.map_or(0, |first| first + 1)) {
            burst.stage(order.as_ref().map_err(Clone::clone).and_then(publication));
        }
        results.append(&mut burst.finish().await);
        if results.last() == Some(&Err(Problem::KeyReused)) {
            return Err(Problem::KeyReused);
        }
    }
    for some in orders.chunks(BURST) {
        for order in some {
            burst.stage(order.as_ref().map_err(Clone::clone).and_then(publication));
            // Waiting until it is safe is what makes room.
            if !burst.has_room() {
                results.append(&mut burst.finish().await);
            }
        }
        results.append(&mut burst.finish().await);
    }
    let replayed = results.iter().flatten().any(|published| published.replayed);
    if is_named {
        // The header says it of the whole answer, which is as the first was.
        results.iter_mut().flatten().for_each(|published| published.replayed = false);
    }
    let status = if results.iter().any(Result::is_err) { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    let entries: Vec<Entry> = results.into_iter().map(Entry::from).collect();
    Ok(((status, Json(entries)).into_response(), replayed))
}

/// Gives an order the key of its request.
fn name(order: &mut Order, key: Option<Box<Idempotency>>) -> Result<(), Problem> {
    if key.is_some() && order.idempotency.is_some() {
        return Err(Problem::BadBody("`idempotency_key` and the header Idempotency-Key exclude each other".into()));
    }
    order.idempotency = order.idempotency.take().or(key);
    Ok(())
}

fn publication(order: &Order) -> Result<Publish<'_>, Problem> {
    let topic = Topic::parse(&order.topic)?;
    Ok(Publish {
        retain: order.retain,
        expiry: order.expiry,
        properties: order.properties.clone(),
        idempotency: order.idempotency.clone(),
        ..Publish::new(topic, &order.payload, order.qos)
    })
}

fn text(json: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(json).map_err(|_| Problem::BadBody("the body is not UTF-8".into()))
}

/// Runs what may take long elsewhere.
async fn aside<T: Send + 'static>(bytes: usize, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    if bytes <= LARGE {
        return Ok(read());
    }
    tokio::task::spawn_blocking(read).await.map_err(|_| Problem::Internal)
}

/// Reads an array entry by entry, so that a bad one fails alone.
fn orders(json: &str) -> Result<Vec<Result<Order, Problem>>, Problem> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<Result<Order, Problem>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of message objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut orders = Vec::new();
            while let Some(entry) = seq.next_element::<&RawValue>()? {
                if orders.len() == MOST_ENTRIES {
                    let why = format!("more than {MOST_ENTRIES} entries; send them as application/x-ndjson");
                    return Err(serde::de::Error::custom(why));
                }
                orders.push(Order::from_json(entry.get()));
            }
            Ok(orders)
        }
    }
    let bad = |error: serde_json::Error| Problem::BadBody(format!("no array of message objects: {error}"));
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let orders = deserializer.deserialize_seq(Entries).map_err(bad)?;
    deserializer.end().map_err(bad)?;
    Ok(orders)
}

/// Lines in, lines out. The next lines are read once the results of the last ones went out: a client that does not
/// read is not read from.
fn lines(app: &App, who: &Who, body: Body) -> Response {
    let limits = app.broker.limits();
    // A payload may double its size in JSON; what is beyond is not worth keeping.
    let longest = usize::try_from(limits.max_packet_size).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(LARGE);
    let start = Lines {
        burst: Burst::new(app, who),
        body: body.into_data_stream(),
        buffer: BytesMut::new(),
        looked: 0,
        longest,
        overlong: false,
        ended: false,
    };
    let answer = stream::unfold(start, |mut lines| async move {
        let bytes = lines.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), lines))
    });
    ([(header::CONTENT_TYPE, media::LINES)], Body::from_stream(answer)).into_response()
}

struct Lines {
    burst: Burst,
    body: BodyDataStream,
    /// A line that is not complete; at most `longest`.
    buffer: BytesMut,
    /// So much of it holds no line end.
    looked: usize,
    longest: usize,
    /// The current line was too long; the rest of it is skipped.
    overlong: bool,
    ended: bool,
}

impl Lines {
    /// The results of the next burst of lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.stage();
            if self.burst.len() > 0 {
                return Some(written(self.burst.finish().await));
            }
            if self.ended {
                return None;
            }
            match timeout(SILENCE, self.body.next()).await {
                Ok(Some(Ok(chunk))) => self.buffer.extend_from_slice(&chunk),
                // The last line may lack its newline. A body that broke off has no last line.
                Ok(None) => {
                    self.ended = true;
                    self.buffer.extend_from_slice(b"\n");
                }
                Ok(Some(Err(_))) => return None,
                Err(_) => {
                    self.ended = true;
                    return Some(written([Err(Problem::RequestTimeout)]));
                }
            }
        }
    }

    /// Stages complete lines, up to a burst.
    fn stage(&mut self) {
        // One at least: waiting until it is safe is what makes room again.
        while self.burst.len() == 0 || (self.burst.len() < BURST && self.burst.has_room()) {
            let Some(end) = self.buffer[self.looked..].iter().position(|byte| *byte == b'\n') else {
                if self.buffer.len() > self.longest {
                    self.overlong = true;
                    self.buffer.clear();
                }
                self.looked = self.buffer.len();
                return;
            };
            let line = self.buffer.split_to(std::mem::take(&mut self.looked) + end + 1);
            let line = line.trim_ascii();
            if std::mem::take(&mut self.overlong) || line.len() > self.longest {
                self.burst.stage(Err(Problem::TooLarge(format!("the line is longer than {} bytes", self.longest))));
            } else if !line.is_empty() {
                let order = text(line).and_then(Order::from_json);
                self.burst.stage(order.as_ref().map_err(Clone::clone).and_then(publication));
            }
        }
    }
}

/// Results as lines.
fn written(results: impl IntoIterator<Item = Result<Published, Problem>>) -> Bytes {
    let mut out = Vec::new();
    for result in results {
        Entry::from(result).write(&mut out);
        out.push(b'\n');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_entry_fails_alone_and_a_bad_array_as_a_whole() {
        let some = orders(r#"[{"topic":"a","payload":"x"}, 7, {"topic":"b","payload":1}]"#).unwrap();
        assert_eq!(some.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        for bad in ["[", "[1,]", "[] x", "[{]"] {
            assert!(matches!(orders(bad), Err(Problem::BadBody(_))), "{bad}");
        }
        assert!(orders("[]").unwrap().is_empty());
    }

    #[test]
    fn an_array_of_very_many_entries_is_refused() {
        let many = format!("[{}1]", "1,".repeat(MOST_ENTRIES));
        assert!(matches!(orders(&many), Err(Problem::BadBody(why)) if why.contains("x-ndjson")));
    }
}
