//! A request whose answer comes later, and its answer, without hyper: all a reader that waits costs beside its wait is
//! the socket.

use super::exchange::{Aside, Terms};
use crate::{
    farewell::{Unread, farewell},
    line::Line,
    state::App,
};
use axum::{
    body::HttpBody,
    http::{HeaderValue, StatusCode, Version, header, response::Parts},
};
use futures_util::{FutureExt, StreamExt};
use std::{future::poll_fn, io::Write, mem, pin::Pin, task::Poll, time::SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What a client may send before it has its answer; past that it is not read from.
const MOST_EARLY: usize = 8 * 1024;

/// What is read of it at a time.
const PIECE: usize = 1024;

/// What goes out at once.
const FULL: usize = 64 * 1024;

/// Waits for the answer and writes it. Gives the stream back if there may be another request.
pub(super) async fn answer<S>(mut line: Line<S>, Aside { mut later, mut terms }: Aside, app: &App) -> Option<Line<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut early = Vec::new();
    let response = tokio::select! {
        biased;
        response = &mut later => response,
        () = hung_up(&mut line, &mut early) => return None,
    };
    // What it waited with is not kept for the length of a stream.
    drop(later);
    let (head, body) = response.into_parts();
    let length = if has_body(head.status) { body.size_hint().exact() } else { Some(0) };
    // Without a length and without chunks the end of the connection is the end of the body (RFC 9112 §6.3).
    let chunked = length.is_none() && terms.version == Version::HTTP_11;
    terms.keep_alive &= !app.is_draining() && (chunked || length.is_some());
    let mut out = Vec::new();
    write_head(&mut out, &head, terms, length);
    drop(head);
    let mut body = body.into_data_stream();
    while length != Some(0) {
        let piece = match body.next().now_or_never() {
            Some(piece) if out.len() < FULL => piece,
            Some(piece) => {
                line.write_all(&mem::take(&mut out)).await.ok()?;
                piece
            }
            None => {
                line.write_all(&mem::take(&mut out)).await.ok()?;
                line.flush().await.ok()?;
                tokio::select! {
                    biased;
                    piece = body.next() => piece,
                    () = hung_up(&mut line, &mut early) => return None,
                }
            }
        };
        match piece {
            // No chunk is empty: that would be the last one.
            Some(Ok(piece)) if chunked && !piece.is_empty() => {
                write!(out, "{:x}\r\n", piece.len()).ok()?;
                out.extend_from_slice(&piece);
                out.extend_from_slice(b"\r\n");
            }
            Some(Ok(piece)) => out.extend_from_slice(&piece),
            // What breaks off must not look whole.
            Some(Err(_)) => return None,
            None => break,
        }
    }
    if chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    line.write_all(&out).await.ok()?;
    line.flush().await.ok()?;
    if terms.keep_alive && !app.is_draining() {
        line.put_back(&early);
        return Some(line);
    }
    farewell(line, Unread::Nothing).await;
    None
}

/// Completes when the client has closed its side. What it sends before that is kept for later.
async fn hung_up<S: AsyncRead + Unpin>(line: &mut Line<S>, early: &mut Vec<u8>) {
    poll_fn(|cx| {
        while early.len() < MOST_EARLY {
            let mut piece = [0; PIECE];
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut *line).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => early.extend_from_slice(buffer.filled()),
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    })
    .await;
}

/// Whether answers of this status have a body (RFC 9110 §6.4.1).
fn has_body(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// Status line and fields; without a `length` the body comes in chunks, or ends with the connection.
pub(super) fn write_head(out: &mut Vec<u8>, head: &Parts, terms: Terms, length: Option<u64>) {
    let field = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    let start = format!(
        "{:?} {} {}\r\n",
        terms.version,
        head.status.as_str(),
        head.status.canonical_reason().unwrap_or_default()
    );
    out.extend_from_slice(start.as_bytes());
    for (name, value) in &head.headers {
        field(out, name.as_str(), value.as_bytes());
    }
    match length {
        _ if !has_body(head.status) || head.headers.contains_key(header::CONTENT_LENGTH) => {}
        Some(length) => field(out, "content-length", HeaderValue::from(length).as_bytes()),
        None if terms.version == Version::HTTP_11 => field(out, "transfer-encoding", b"chunked"),
        None => {}
    }
    if !terms.keep_alive {
        field(out, "connection", b"close");
    }
    field(out, "date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    out.extend_from_slice(b"\r\n");
}
