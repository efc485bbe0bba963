//! Cursors on the wire: opaque, and good for one session only.

use crate::problem::Problem;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use waystation_broker::{Cursor, SessionInfo};

/// Bytes that say which session a cursor belongs to.
const MARK: usize = 4;

/// Whose cursors they are: one session's, not those of the next that has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope([u8; MARK]);

impl From<&SessionInfo> for Scope {
    fn from(session: &SessionInfo) -> Self {
        Self::new(session.id.as_str(), session.key.0)
    }
}

impl Scope {
    /// FNV-1a: the same in every release and on every machine, which cursors that outlive a restart need. It catches
    /// mistakes; it is no protection, and none is needed: a session opens to its own user only.
    fn new(id: &str, key: u64) -> Self {
        let bytes = id.bytes().chain(key.to_be_bytes());
        let hash = bytes.fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self(hash.to_be_bytes())
    }
}

/// A cursor as clients see it.
pub(crate) fn encode(session: Scope, cursor: Cursor) -> String {
    let mut bytes = [0; MARK + 8];
    bytes[..MARK].copy_from_slice(&session.0);
    bytes[MARK..].copy_from_slice(&cursor.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The cursor a client gives back.
pub(crate) fn decode(session: Scope, text: &str) -> Result<Cursor, Problem> {
    // A longer text cannot be one; decoding it would cost for nothing.
    let bytes = (text.len() <= 32).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten().ok_or(Problem::BadCursor)?;
    let (head, tail) = bytes.split_at_checked(MARK).ok_or(Problem::BadCursor)?;
    let position = <[u8; 8]>::try_from(tail).map_err(|_| Problem::BadCursor)?;
    if head != session.0 {
        return Err(Problem::BadCursor);
    }
    Ok(Cursor(u64::from_be_bytes(position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Scope {
        Scope::new(text, 7)
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        for position in [0, 1, 77, u64::MAX] {
            let text = encode(id("till"), Cursor(position));
            assert_eq!(decode(id("till"), &text), Ok(Cursor(position)));
        }
    }

    #[test]
    fn a_cursor_of_another_session_is_refused() {
        let text = encode(id("till"), Cursor(5));
        assert_eq!(decode(id("tilt"), &text), Err(Problem::BadCursor));
        assert_eq!(decode(Scope::new("till", 8), &text), Err(Problem::BadCursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let long = "A".repeat(1_000);
        for text in ["", "5", "!!!!", "AAAA", "AAAAAAAAAAAAAAAAA", long.as_str()] {
            assert_eq!(decode(id("till"), text), Err(Problem::BadCursor), "{text}");
        }
    }

    #[test]
    fn the_wire_form_is_the_same_in_every_release() {
        assert_eq!(encode(id("till"), Cursor(258)), "hf74RwAAAAAAAAEC");
    }
}
