//! Which messages of one publisher have reached one subscriber.

use std::ops::Range;

/// Gaps remembered a stream; beyond them a late message counts as a duplicate.
const MOST_GAPS: usize = 65_536;

/// One publisher's messages as one subscriber sees them.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// One above the highest sequence seen.
    next: u32,
    gaps: Vec<Range<u32>>,
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
}

impl Stream {
    /// One above the highest sequence seen; what lies below has come or been overtaken.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Counts a message; true if it had not come before.
    pub(super) fn note(&mut self, sequence: u32) -> bool {
        if sequence >= self.next {
            if sequence > self.next && self.gaps.len() < MOST_GAPS {
                self.gaps.push(self.next..sequence);
            }
            self.next = sequence.saturating_add(1);
            self.delivered += 1;
            return true;
        }
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&sequence)) else {
            self.duplicates += 1;
            return false;
        };
        let gap = self.gaps.swap_remove(at);
        for rest in [gap.start..sequence, sequence + 1..gap.end] {
            if !rest.is_empty() {
                self.gaps.push(rest);
            }
        }
        self.delivered += 1;
        self.reordered += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(sequences: &[u32]) -> (u64, u64, u64) {
        let mut stream = Stream::default();
        for sequence in sequences {
            stream.note(*sequence);
        }
        (stream.delivered, stream.duplicates, stream.reordered)
    }

    #[test]
    fn messages_in_order_are_delivered_once() {
        assert_eq!(counted(&[0, 1, 2, 3]), (4, 0, 0));
    }

    #[test]
    fn a_message_that_comes_twice_is_a_duplicate() {
        assert_eq!(counted(&[0, 1, 1, 0, 2]), (3, 2, 0));
    }

    #[test]
    fn an_overtaken_message_is_reordered_and_not_lost() {
        assert_eq!(counted(&[0, 5, 2, 2, 1, 4, 3, 3]), (6, 2, 4));
    }

    #[test]
    fn a_lost_message_is_missing_from_the_count() {
        assert_eq!(counted(&[1, 2, 9]), (3, 0, 0));
    }
}
