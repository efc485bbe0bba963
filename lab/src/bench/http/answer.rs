//! The little of HTTP/1.1 answers that a load generator looks at (RFC 9112).

use anyhow::{Context, Result, bail};

/// Bytes of a head; what is longer is none.
const LONGEST_HEAD: usize = 65_536;

/// An answer with a length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// Status line and header lines.
    pub(super) head: &'a str,
    /// Bytes of head and body.
    pub(super) length: usize,
}

impl<'a> Answer<'a> {
    /// The answer at the beginning of `bytes`; `None` while it is incomplete.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<Self>> {
        let Some(head) = head(bytes)? else { return Ok(None) };
        let status = status(head)?;
        let body = match header(head, "content-length") {
            Some(length) => length.parse().context("the server sent a Content-Length that is none")?,
            // These have no body (RFC 9110 §6.4.1).
            None if matches!(status, 204 | 304) => 0,
            None => bail!("the server sent an answer without a length"),
        };
        let length = head.len() + body;
        Ok((bytes.len() >= length).then_some(Self { status, head, length }))
    }
}

/// Everything up to the empty line, that included; `None` while it is incomplete.
pub(super) fn head(bytes: &[u8]) -> Result<Option<&str>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > LONGEST_HEAD {
            bail!("the server sent something that is not HTTP");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end + 4]).context("the server sent a head that is not text")?;
    Ok(Some(head))
}

/// The status of an answer.
pub(super) fn status(head: &str) -> Result<u16> {
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.context("the server sent something that is not HTTP/1.1")
}

/// The value of a header field.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A body in chunks (RFC 9112 §7.1), taken apart as it comes.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// In the line that says how long the next chunk is, and so far it says this.
    #[default]
    Size0,
    Size(usize),
    /// So many bytes of the chunk are to come.
    Data(usize),
    /// In the line end behind a chunk.
    Behind,
    Ended,
}

impl Chunks {
    /// Hands over the pieces of the body in `bytes`; true at its end.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut piece: impl FnMut(&[u8])) -> Result<bool> {
        while let [first, rest @ ..] = bytes {
            match self.state {
                State::Ended => return Ok(true),
                State::Data(left) => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    piece(now);
                    self.state = if now.len() == left { State::Behind } else { State::Data(left - now.len()) };
                    bytes = later;
                    continue;
                }
                State::Behind if *first == b'\n' => self.state = State::Size0,
                State::Size(0) if *first == b'\n' => self.state = State::Ended,
                State::Size(size) if *first == b'\n' => self.state = State::Data(size),
                State::Behind | State::Size(_) if *first == b'\r' => {}
                State::Size0 => self.state = State::Size(digit(*first)?),
                State::Size(size) if size < 1 << 24 => self.state = State::Size(size * 16 + digit(*first)?),
                State::Size(_) | State::Behind => bail!("the server sent a body in malformed chunks"),
            }
            bytes = rest;
        }
        Ok(self.state == State::Ended)
    }
}

fn digit(byte: u8) -> Result<usize> {
    let digit = char::from(byte).to_digit(16).context("the server sent a chunk without a size")?;
    Ok(usize::try_from(digit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_only_when_complete() {
        let bytes = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\ncontent-length: 4\r\n\r\nbodyHTTP";
        for cut in 0..bytes.len() - 4 {
            assert_eq!(Answer::parse(&bytes[..cut]).unwrap(), None, "cut at {cut}");
        }
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.length, header(answer.head, "etag")), (200, bytes.len() - 4, Some("\"1\"")));
        assert_eq!(Answer::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap().status, 204);
    }

    #[test]
    fn what_is_not_http_is_told_as_such() {
        assert!(Answer::parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Answer::parse(&[b'x'; LONGEST_HEAD + 1]).is_err());
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let bytes = b"4\r\nab\nc\r\n1b\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ\n\r\n0\r\n\r\n";
        for cut in 0..bytes.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            let (early, late) = bytes.split_at(cut);
            chunks.take(early, |piece| body.extend_from_slice(piece)).unwrap();
            assert!(chunks.take(late, |piece| body.extend_from_slice(piece)).unwrap(), "cut at {cut}");
            assert_eq!(body, b"ab\ncABCDEFGHIJKLMNOPQRSTUVWXYZ\n");
        }
        assert!(Chunks::default().take(b"x\r\n", |_| {}).is_err());
        assert!(Chunks::default().take(b"1\r\nab", |_| {}).is_err());
    }
}
