//! The ledger of drops: where is my message? Lines by topic, client, gateway and cause, with a count each.

use crate::{
    access::ClientId,
    clock::{Clock, Time},
    metrics::{DropCause, Metrics},
    topic::Topic,
    traffic::Traffic,
};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// Most lines; past it the line that was longest without news goes.
const MOST_LINES: usize = 1_000;

/// A line of the ledger: what was lost alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Names the line as it is now; greater than that of all that have older news.
    pub id: u64,
    /// When the last of them was dropped.
    pub time: Time,
    /// What they were published to. `None`: they lay on disk, and were not read again.
    pub topic: Option<Topic>,
    /// Who was to get them; of refused publications, who published. `None`: an unnamed session, or no client id on
    /// this road.
    pub client: Option<ClientId>,
    /// The gateway this client came by last.
    pub gateway: Arc<str>,
    /// Why.
    pub cause: DropCause,
    /// How many.
    pub count: u64,
}

/// All lines, in the order of their last news.
pub(crate) struct Drops {
    clock: Arc<dyn Clock>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    by_news: BTreeMap<u64, Dropped>,
    known: HashMap<Key, u64>,
    last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    topic: Option<Topic>,
    client: Option<ClientId>,
    gateway: Arc<str>,
    cause: DropCause,
}

/// What one visit to a session, or one burst of a publisher, drops: kept aside, entered once.
#[derive(Debug)]
pub(crate) struct Tally {
    traffic: Arc<Traffic>,
    rows: Vec<(Option<Topic>, DropCause, u64)>,
}

impl Tally {
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, rows: Vec::new() }
    }

    /// Messages in it.
    pub(crate) fn len(&self) -> u64 {
        self.rows.iter().map(|row| row.2).sum()
    }

    pub(crate) fn add(&mut self, topic: Option<&Topic>, cause: DropCause, count: u64) {
        match self.rows.last_mut() {
            Some(last) if last.1 == cause && last.0.as_ref() == topic => last.2 += count,
            _ => self.rows.push((topic.cloned(), cause, count)),
        }
    }
}

impl Drops {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, lines: Mutex::default() }
    }

    /// Enters a tally, here and into the counters.
    pub(crate) fn enter(&self, tally: Tally, client: Option<&ClientId>, metrics: &Metrics) {
        let time = self.clock.now();
        let mut lines = self.lines.lock();
        for (topic, cause, count) in tally.rows {
            metrics.count_drop(cause, count);
            lines.enter(
                Key { topic, client: client.cloned(), gateway: tally.traffic.gateway().clone(), cause },
                time,
                count,
            );
        }
    }

    /// Lines with the latest news first, from the one before `before` on, at most `limit`.
    pub(crate) fn page(&self, before: Option<u64>, limit: usize) -> Vec<Dropped> {
        let lines = self.lines.lock();
        lines.by_news.range(..before.unwrap_or(u64::MAX)).rev().take(limit).map(|(_, line)| line.clone()).collect()
    }
}

impl Lines {
    fn enter(&mut self, key: Key, time: Time, count: u64) {
        self.last += 1;
        let id = self.last;
        let before = self.known.insert(key.clone(), id).and_then(|known| self.by_news.remove(&known));
        let count = count + before.map_or(0, |line| line.count);
        let Key { topic, client, gateway, cause } = key;
        self.by_news.insert(id, Dropped { id, time, topic, client, gateway, cause, count });
        if self.by_news.len() > MOST_LINES
            && let Some((_, Dropped { topic, client, gateway, cause, .. })) = self.by_news.pop_first()
        {
            self.known.remove(&Key { topic, client, gateway, cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, traffic::Gateways};
    use std::time::Duration;

    fn tally(topics: &[&str]) -> Tally {
        let mut tally = Tally::new(Gateways::default().of(&"test".into()));
        topics.iter().for_each(|topic| tally.add(Topic::parse(topic).ok().as_ref(), DropCause::Expired, 1));
        tally
    }

    #[test]
    fn what_is_lost_alike_is_one_line_and_the_latest_news_stand_first() {
        let clock = Arc::new(ManualClock::default());
        let (drops, metrics) = (Drops::new(clock.clone()), Metrics::default());
        drops.enter(tally(&["a", "a", "b"]), None, &metrics);
        clock.advance(Duration::from_secs(1));
        drops.enter(tally(&["a"]), None, &metrics);
        let page = drops.page(None, 10);
        let lines: Vec<_> = page.iter().map(|line| (line.topic.as_ref().unwrap().as_str(), line.count)).collect();
        assert_eq!((lines, page[0].time), (vec![("a", 3), ("b", 1)], clock.now()));
        assert_eq!(drops.page(Some(page[0].id), 10), page[1..]);
        assert_eq!(metrics.dropped(DropCause::Expired), 4);
    }

    #[test]
    fn the_ledger_is_bounded_and_its_oldest_line_goes() {
        let (drops, metrics) = (Drops::new(Arc::new(ManualClock::default())), Metrics::default());
        for n in 0..=MOST_LINES {
            drops.enter(tally(&[&n.to_string()]), None, &metrics);
        }
        let page = drops.page(None, usize::MAX);
        assert_eq!((page.len(), page[MOST_LINES - 1].topic.as_ref().unwrap().as_str()), (MOST_LINES, "1"));
        assert_eq!(drops.lines.lock().known.len(), MOST_LINES);
    }
}
