//! Places whose messages lie on disk alone: which they are, and what each counts for. Four bytes a place, and a few
//! for every run of places without a gap.

use crate::link::Cursor;
use std::collections::VecDeque;

/// Places in the order of their cursors.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    runs: VecDeque<Run>,
    /// What each place counts for, one after the other.
    costs: VecDeque<u32>,
    /// What they count for together.
    bytes: u64,
}

/// Places at consecutive cursors.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    count: usize,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.count as u64
    }
}

/// Places at consecutive cursors that are done with, and nobody has looked at what lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unseen {
    pub(crate) first: Cursor,
    pub(crate) count: u64,
    /// What they counted for.
    pub(crate) bytes: u64,
}

impl Shelf {
    pub(crate) fn len(&self) -> usize {
        self.costs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.costs.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn first(&self) -> Option<Cursor> {
        self.runs.front().map(|run| Cursor(run.first))
    }

    pub(crate) fn last(&self) -> Option<Cursor> {
        self.runs.back().map(|run| Cursor(run.end() - 1))
    }

    pub(crate) fn first_after(&self, cursor: Cursor) -> Option<Cursor> {
        let after = cursor.0.saturating_add(1);
        let run = self.runs.get(self.runs.partition_point(|run| run.end() <= after))?;
        Some(Cursor(run.first.max(after)))
    }

    pub(crate) fn contains(&self, cursor: Cursor) -> bool {
        self.run_of(cursor).is_some()
    }

    /// Puts a place behind all others.
    pub(crate) fn push(&mut self, cursor: Cursor, cost: u32) {
        debug_assert!(self.last().is_none_or(|last| last < cursor), "places come in order");
        match self.runs.back_mut().filter(|run| run.end() == cursor.0) {
            Some(run) => run.count += 1,
            None => self.runs.push_back(Run { first: cursor.0, count: 1 }),
        }
        self.costs.push_back(cost);
        self.bytes += u64::from(cost);
    }

    /// Takes out the first place.
    pub(crate) fn pop(&mut self) -> Option<Unseen> {
        self.pop_run(1)
    }

    /// Takes out the first run, as far as it goes through `cursor`.
    pub(crate) fn pop_through(&mut self, cursor: Cursor) -> Option<Unseen> {
        let first = self.first().filter(|first| *first <= cursor)?;
        self.pop_run(usize::try_from(cursor.0 - first.0).unwrap_or(usize::MAX).saturating_add(1))
    }

    fn pop_run(&mut self, at_most: usize) -> Option<Unseen> {
        let run = self.runs.front_mut()?;
        let (first, count) = (Cursor(run.first), run.count.min(at_most));
        run.first += count as u64;
        run.count -= count;
        if run.count == 0 {
            self.runs.pop_front();
        }
        let bytes = self.costs.drain(..count).map(u64::from).sum();
        self.bytes -= bytes;
        Some(Unseen { first, count: count as u64, bytes })
    }

    /// Takes out a place by its cursor, and gives what it counted for. Cheap near either end.
    pub(crate) fn remove(&mut self, cursor: Cursor) -> Option<u32> {
        let at = self.run_of(cursor)?;
        let before: usize = self.runs.range(..at).map(|run| run.count).sum();
        let run = &mut self.runs[at];
        let offset = usize::try_from(cursor.0 - run.first).ok()?;
        let behind = run.count - offset - 1;
        match (offset, behind) {
            (0, 0) => drop(self.runs.remove(at)),
            (0, _) => (run.first, run.count) = (cursor.0 + 1, behind),
            (_, 0) => run.count = offset,
            (..) => {
                run.count = offset;
                self.runs.insert(at + 1, Run { first: cursor.0 + 1, count: behind });
            }
        }
        let cost = self.costs.remove(before + offset)?;
        self.bytes -= u64::from(cost);
        Some(cost)
    }

    fn run_of(&self, cursor: Cursor) -> Option<usize> {
        let at = self.runs.partition_point(|run| run.end() <= cursor.0);
        self.runs.get(at).filter(|run| run.first <= cursor.0).map(|_| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// It is a map from cursors to costs, whatever is done to it.
        #[test]
        fn a_shelf_is_a_map_in_order(gaps in prop::collection::vec((1u64..4, 0u32..100), 0..60), steps in prop::collection::vec((0u8..3, 0u64..150), 0..40)) {
            let (mut shelf, mut map, mut last) = (Shelf::default(), BTreeMap::new(), 0);
            for (gap, cost) in gaps {
                last += gap;
                shelf.push(Cursor(last), cost);
                map.insert(last, cost);
            }
            for (kind, at) in steps {
                match kind {
                    0 => prop_assert_eq!(shelf.remove(Cursor(at)), map.remove(&at)),
                    1 => {
                        let popped = map.pop_first().map(|(first, cost)| (Cursor(first), 1, u64::from(cost)));
                        prop_assert_eq!(shelf.pop().map(|u| (u.first, u.count, u.bytes)), popped);
                    }
                    _ => while let Some(unseen) = shelf.pop_through(Cursor(at)) {
                        let mut bytes = 0;
                        for cursor in unseen.first.0..unseen.first.0 + unseen.count {
                            prop_assert!(cursor <= at);
                            bytes += u64::from(map.remove(&cursor).unwrap());
                        }
                        prop_assert_eq!(bytes, unseen.bytes);
                    },
                }
                if kind > 1 {
                    prop_assert!(map.keys().next().is_none_or(|first| *first > at));
                }
                prop_assert_eq!(shelf.len(), map.len());
                prop_assert_eq!(shelf.bytes(), map.values().map(|cost| u64::from(*cost)).sum::<u64>());
                prop_assert_eq!(shelf.first(), map.keys().next().map(|c| Cursor(*c)));
                prop_assert_eq!(shelf.last(), map.keys().last().map(|c| Cursor(*c)));
                prop_assert_eq!(shelf.first_after(Cursor(at)), map.range(at + 1..).next().map(|(c, _)| Cursor(*c)));
                prop_assert_eq!(shelf.contains(Cursor(at)), map.contains_key(&at));
            }
        }
    }
}
