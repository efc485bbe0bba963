//! Request bodies: bounded, and read no more slowly than is bearable.

use crate::{media, problem::Problem};
use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a sender has in any case; each [`BYTES_PER_SECOND`] that came give it a second more.
const PATIENCE: Duration = Duration::from_secs(30);

/// The slowest bearable sender.
const BYTES_PER_SECOND: usize = 4_096;

/// So much of a body that is too large is read past. Who is still sending when the connection closes on unread bytes
/// sees it reset, and never the answer (RFC 9112 §9.6).
const MOST_SKIPPED: usize = 64 << 20;

/// And for so long.
const SKIPPING: Duration = Duration::from_secs(10);

/// The whole body of a request with these `headers`, at most `limit` bytes.
pub(crate) async fn whole(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::TooLarge(format!("the body is larger than {limit} bytes"));
    let said_too_large = hyper::body::Body::size_hint(&body).lower() > limit as u64;
    let mut stream = body.into_data_stream();
    if said_too_large {
        // Who waits for our word to send it has not begun.
        if !headers.contains_key(header::EXPECT) {
            skip(&mut stream).await;
        }
        return Err(too_large());
    }
    let start = Instant::now();
    let Some(first) = chunk(&mut stream, start, 0).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        skip(&mut stream).await;
        return Err(too_large());
    }
    // Nearly every body is one chunk: no copy.
    let Some(second) = chunk(&mut stream, start, first.len()).await? else { return Ok(first) };
    let mut all = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(bytes) = next {
        if all.len() + bytes.len() > limit {
            skip(&mut stream).await;
            return Err(too_large());
        }
        all.extend_from_slice(&bytes);
        next = chunk(&mut stream, start, all.len()).await?;
    }
    Ok(all.freeze())
}

/// The whole body as JSON.
pub(crate) async fn json<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, Problem> {
    media::demand_json(request.headers())?;
    let (head, body) = request.into_parts();
    let json = whole(&head.headers, body, limit).await?;
    // The error names line and column.
    serde_json::from_slice(&json).map_err(|error| Problem::BadBody(error.to_string()))
}

/// Reads past what is left, within bounds.
async fn skip(stream: &mut BodyDataStream) {
    let until = Instant::now() + SKIPPING;
    let mut skipped = 0;
    while let Ok(Some(Ok(bytes))) = timeout_at(until, stream.next()).await {
        skipped += bytes.len();
        if skipped > MOST_SKIPPED {
            return;
        }
    }
}

async fn chunk(stream: &mut BodyDataStream, start: Instant, received: usize) -> Result<Option<Bytes>, Problem> {
    let earned = Duration::from_secs((received / BYTES_PER_SECOND) as u64);
    match timeout_at(start + PATIENCE + earned, stream.next()).await {
        Err(_) => Err(Problem::RequestTimeout),
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(_))) => Err(Problem::BadBody("the body broke off".into())),
    }
}
