//! Where records lie: five keyspaces, keys in big-endian so that their order is that of the numbers.

use super::codec::Damaged;
use crate::{link::Cursor, message::MessageId, store::SessionKey};
use fjall::UserKey;
use std::num::NonZeroU16;

/// A keyspace. Few of them, not one a queue: each costs memory and files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Space {
    /// Format, epoch, documents.
    Meta,
    /// Sessions and what belongs to them, by [`SessionField`].
    Sessions,
    /// Places in queues: session, cursor.
    Queues,
    /// Messages that several queues hold, by number.
    Messages,
    /// Retained messages, by topic.
    Retained,
}

impl Space {
    pub(super) const ALL: [Self; 5] = [Self::Meta, Self::Sessions, Self::Queues, Self::Messages, Self::Retained];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Queues => "queues",
            Self::Messages => "messages",
            Self::Retained => "retained",
        }
    }
}

/// A key in its space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) space: Space,
    /// Up to twenty of them lie right here.
    pub(super) bytes: UserKey,
}

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionField {
    /// Its terms. A session without them has ended; what is left of it is swept.
    Head,
    /// When it ends; absent while its client is connected.
    Ends,
    Will,
    /// The position acknowledged by cursor.
    Settled,
    Subscription(String),
    /// A QoS 2 identifier its client has not released.
    Unreleased(NonZeroU16),
    /// A delivery under way: its tag, and how far it got.
    Sent(Cursor),
    /// The last tag given out, and for what. After those under way, so that it is read as the last.
    LastTag,
    /// What was lost of its queue.
    Counts,
}

impl SessionField {
    pub(super) fn key(&self, session: SessionKey) -> Key {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&session.0.to_be_bytes());
        match self {
            Self::Head => bytes.push(0),
            Self::Ends => bytes.push(1),
            Self::Will => bytes.push(2),
            Self::Settled => bytes.push(3),
            Self::Subscription(filter) => {
                bytes.push(4);
                bytes.extend_from_slice(filter.as_bytes());
            }
            Self::Unreleased(id) => {
                bytes.push(5);
                bytes.extend_from_slice(&id.get().to_be_bytes());
            }
            Self::Sent(cursor) => {
                bytes.push(6);
                bytes.extend_from_slice(&cursor.0.to_be_bytes());
            }
            Self::LastTag => bytes.push(7),
            Self::Counts => bytes.push(8),
        }
        Key { space: Space::Sessions, bytes: bytes.into() }
    }

    pub(super) fn parse(key: &[u8]) -> Result<(SessionKey, Self), Damaged> {
        let (session, rest) = key.split_first_chunk::<8>().ok_or(Damaged)?;
        let (kind, rest) = rest.split_first().ok_or(Damaged)?;
        let field = match (kind, rest) {
            (0, []) => Self::Head,
            (1, []) => Self::Ends,
            (2, []) => Self::Will,
            (3, []) => Self::Settled,
            (4, filter) => Self::Subscription(String::from_utf8(filter.to_vec()).map_err(|_| Damaged)?),
            (5, id) => {
                let id = u16::from_be_bytes(id.try_into().map_err(|_| Damaged)?);
                Self::Unreleased(NonZeroU16::new(id).ok_or(Damaged)?)
            }
            (6, cursor) => Self::Sent(Cursor(u64::from_be_bytes(cursor.try_into().map_err(|_| Damaged)?))),
            (7, []) => Self::LastTag,
            (8, []) => Self::Counts,
            _ => return Err(Damaged),
        };
        Ok((SessionKey(u64::from_be_bytes(*session)), field))
    }
}

pub(super) fn place(session: SessionKey, cursor: Cursor) -> Key {
    let both = u128::from(session.0) << 64 | u128::from(cursor.0);
    Key { space: Space::Queues, bytes: both.to_be_bytes().into() }
}

pub(super) fn parse_place(key: &[u8]) -> Result<(SessionKey, Cursor), Damaged> {
    let (session, cursor) = key.split_first_chunk::<8>().ok_or(Damaged)?;
    let cursor = cursor.try_into().map_err(|_| Damaged)?;
    Ok((SessionKey(u64::from_be_bytes(*session)), Cursor(u64::from_be_bytes(cursor))))
}

pub(super) fn message(id: MessageId) -> Key {
    Key { space: Space::Messages, bytes: id.0.to_be_bytes().into() }
}

pub(super) fn retained(topic: &str) -> Key {
    Key { space: Space::Retained, bytes: topic.into() }
}

pub(super) fn epoch() -> Key {
    Key { space: Space::Meta, bytes: "epoch".into() }
}

/// Kinds hold no NUL: they are written in the source.
pub(super) fn document(kind: &str, name: &str) -> Key {
    let bytes = [DOCUMENT, kind.as_bytes(), b"\0", name.as_bytes()].concat();
    Key { space: Space::Meta, bytes: bytes.into() }
}

/// Kind and name of a document; `None` for other keys of its space.
pub(super) fn parse_document(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key.strip_prefix(DOCUMENT)?).ok()?.split_once('\0')
}

/// The answer to a publication with an idempotency key. No user name holds a NUL, nor is one empty.
pub(super) fn answer(user: Option<&str>, key: &str) -> Key {
    let bytes = [ANSWER, user.unwrap_or_default().as_bytes(), b"\0", key.as_bytes()].concat();
    Key { space: Space::Meta, bytes: bytes.into() }
}

pub(super) fn is_answer(key: &[u8]) -> bool {
    key.starts_with(ANSWER)
}

const DOCUMENT: &[u8] = b"document\0";
const ANSWER: &[u8] = b"answer\0";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_come_back_as_they_were(session: u64, number: u64, id in 1u16.., text in "[a-z/+#]{0,20}", kind in 0u8..9) {
            let field = match kind {
                0 => SessionField::Head,
                1 => SessionField::Ends,
                2 => SessionField::Will,
                3 => SessionField::Settled,
                4 => SessionField::LastTag,
                5 => SessionField::Subscription(text.clone()),
                6 => SessionField::Unreleased(NonZeroU16::new(id).unwrap()),
                7 => SessionField::Counts,
                _ => SessionField::Sent(Cursor(number)),
            };
            let session = SessionKey(session);
            prop_assert_eq!(SessionField::parse(&field.key(session).bytes), Ok((session, field)));
            prop_assert_eq!(parse_place(&place(session, Cursor(number)).bytes), Ok((session, Cursor(number))));
            let document = document("kind", &text);
            prop_assert_eq!(parse_document(&document.bytes), Some(("kind", text.as_str())));
        }

        #[test]
        fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (SessionField::parse(&bytes), parse_place(&bytes), parse_document(&bytes));
        }
    }
}
