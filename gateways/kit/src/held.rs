//! Acknowledgements that wait until what they acknowledge is durable.

use std::collections::VecDeque;
use waystation_broker::Lsn;

/// Encoded acknowledgements, one mark a burst. Whoever holds them stops reading at [`MOST_HELD`] bytes.
#[derive(Debug, Default)]
pub struct Held {
    bytes: VecDeque<u8>,
    marks: VecDeque<Mark>,
}

/// Bytes at which the other side is read no further.
pub const MOST_HELD: usize = 262_144;

#[derive(Debug)]
struct Mark {
    lsn: Lsn,
    bytes: usize,
    credits: usize,
}

impl Held {
    /// Keeps a burst's acknowledgements; `credits` of them give the publisher room in our receive maximum.
    pub fn push(&mut self, lsn: Lsn, bytes: &[u8], credits: usize) {
        self.bytes.extend(bytes);
        self.marks.push_back(Mark { lsn, bytes: bytes.len(), credits });
    }

    /// Appends to `out` what is safe up to `durable`, in order; gives the credits.
    pub fn release(&mut self, durable: Lsn, out: &mut impl Extend<u8>) -> usize {
        let mut credits = 0;
        while self.marks.front().is_some_and(|mark| mark.lsn <= durable) {
            let Some(mark) = self.marks.pop_front() else { break };
            out.extend(self.bytes.drain(..mark.bytes));
            credits += mark.credits;
        }
        credits
    }

    /// What the next ones wait for.
    #[must_use]
    pub fn next(&self) -> Option<Lsn> {
        self.marks.front().map(|mark| mark.lsn)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_leave_in_order_once_they_are_durable() {
        let (mut held, mut out) = (Held::default(), Vec::new());
        held.push(Lsn(3), b"abc", 2);
        // A burst that changed nothing still waits behind the ones before it.
        held.push(Lsn(0), b"d", 1);
        held.push(Lsn(7), b"ef", 1);
        assert_eq!(held.release(Lsn(2), &mut out), 0);
        assert_eq!((held.release(Lsn(3), &mut out), out.as_slice()), (3, b"abcd".as_slice()));
        assert_eq!((held.next(), held.len()), (Some(Lsn(7)), 2));
        assert_eq!((held.release(Lsn(9), &mut out), out.as_slice()), (1, b"abcdef".as_slice()));
        assert_eq!((held.next(), held.len()), (None, 0));
    }
}
