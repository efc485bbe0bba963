//! Acknowledgements that wait until what they acknowledge is durable.

use std::collections::VecDeque;
use waystation_broker::Lsn;

/// Encoded acknowledgements, one mark a burst. The connection stops reading at [`MOST_HELD`] bytes.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: VecDeque<u8>,
    marks: VecDeque<Mark>,
}

/// Bytes at which the client is read no further.
pub(crate) const MOST_HELD: usize = 262_144;

#[derive(Debug)]
struct Mark {
    lsn: Lsn,
    bytes: usize,
    credits: usize,
}

impl Held {
    /// Keeps a burst's acknowledgements; `credits` of them give the client room in our receive maximum.
    pub(crate) fn push(&mut self, lsn: Lsn, bytes: &[u8], credits: usize) {
        self.bytes.extend(bytes);
        self.marks.push_back(Mark { lsn, bytes: bytes.len(), credits });
    }

    /// Appends to `out` what is safe up to `durable`, in order; gives the credits.
    pub(crate) fn release(&mut self, durable: Lsn, out: &mut Vec<u8>) -> usize {
        let mut credits = 0;
        while self.marks.front().is_some_and(|mark| mark.lsn <= durable) {
            let Some(mark) = self.marks.pop_front() else { break };
            out.extend(self.bytes.drain(..mark.bytes));
            credits += mark.credits;
        }
        credits
    }

    /// What the next ones wait for.
    pub(crate) fn next(&self) -> Option<Lsn> {
        self.marks.front().map(|mark| mark.lsn)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
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
