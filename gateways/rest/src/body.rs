//! Request bodies: bounded, and read no more slowly than is bearable.

use crate::{media, problem::Problem};
use axum::{body::HttpBody, extract::Request};
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use std::{future::poll_fn, pin::Pin, time::Duration};
use tokio::time::{Instant, timeout_at};

/// What a sender has in any case; each [`BYTES_PER_SECOND`] that came give it a second more.
const PATIENCE: Duration = Duration::from_secs(30);

/// The slowest bearable sender.
const BYTES_PER_SECOND: usize = 4_096;

/// The whole body of a request, at most `limit` bytes. What is too large is refused at once; the connection reads past
/// the rest of it.
pub(crate) async fn whole<B>(mut body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let too_large = || Problem::TooLarge(format!("the body is larger than {limit} bytes"));
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let start = Instant::now();
    let Some(first) = chunk(&mut body, start, 0).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(too_large());
    }
    if body.is_end_stream() {
        // Nearly every body is one chunk: no copy.
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while let Some(bytes) = chunk(&mut body, start, all.len()).await? {
        if all.len() + bytes.len() > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&bytes);
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

async fn chunk<B>(body: &mut B, start: Instant, received: usize) -> Result<Option<Bytes>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let earned = Duration::from_secs((received / BYTES_PER_SECOND) as u64);
    let next = async {
        loop {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                None => return Ok(None),
                Some(Err(_)) => return Err(Problem::BadBody("the body broke off".into())),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    };
    timeout_at(start + PATIENCE + earned, next).await.unwrap_or(Err(Problem::RequestTimeout))
}
