//! Request bodies: bounded, and read no more slowly than is bearable.

use crate::{media, problem::Problem};
use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::Request,
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

/// The whole body of a request, at most `limit` bytes. What is too large is refused at once; the connection reads past
/// the rest of it.
pub(crate) async fn whole(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::TooLarge(format!("the body is larger than {limit} bytes"));
    if HttpBody::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let start = Instant::now();
    let Some(first) = chunk(&mut stream, start, 0).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(too_large());
    }
    // Nearly every body is one chunk: no copy.
    let Some(second) = chunk(&mut stream, start, first.len()).await? else { return Ok(first) };
    let mut all = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(bytes) = next {
        if all.len() + bytes.len() > limit {
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
    let json = whole(request.into_body(), limit).await?;
    // The error names line and column.
    serde_json::from_slice(&json).map_err(|error| Problem::BadBody(error.to_string()))
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
