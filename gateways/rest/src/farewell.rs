//! The end of a connection. One that is closed on bytes that nobody read is reset, and the client loses an answer that
//! is still on its way to it (RFC 9112 §9.6): so what comes is read past for a while, within bounds.

use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

/// So much is read past.
const MOST: usize = 64 << 20;

/// For so long.
const LONGEST: Duration = Duration::from_secs(10);

/// Who says nothing for so long has said everything.
const SILENCE: Duration = Duration::from_secs(1);

/// What a client has to take the last bytes.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Bytes read past at a time.
const PIECE: usize = 16 * 1024;

/// Whether a client may still be sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Nothing,
    Perhaps,
}

/// Ends a connection on which everything is said.
pub(crate) async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, unread: Unread) {
    let shut = timeout(SHUTDOWN, stream.shutdown()).await;
    if unread == Unread::Nothing || !matches!(shut, Ok(Ok(()))) {
        return;
    }
    let until = Instant::now() + LONGEST;
    let mut buffer = vec![0; PIECE];
    let mut left = MOST;
    while left > 0 {
        match timeout_at(until.min(Instant::now() + SILENCE), stream.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => left = left.saturating_sub(count),
            _ => return,
        }
    }
}
