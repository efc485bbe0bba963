//! The thread that reads pages of queues that lie on disk. It never stands in the way of a commit.

use super::{
    Shared,
    base::{Base, EngineError, Way},
    keys, recover,
};
use crate::{
    link::Cursor,
    store::{Page, PageWanted},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

/// Most messages of a page, however small they are.
const MOST: usize = 4_096;

/// Between two looks at a store that is down.
const PATIENCE: Duration = Duration::from_millis(100);

type Answer = Box<dyn FnOnce(Page) + Send>;

/// Pages that were asked for and not read. One a session at most, as the core asks.
#[derive(Default)]
pub(super) struct Pages {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Default)]
struct Asked {
    pages: VecDeque<(PageWanted, Answer)>,
    stopping: bool,
}

impl Pages {
    pub(super) fn ask(&self, wanted: PageWanted, answer: Answer) {
        let mut asked = self.asked.lock();
        if !asked.stopping {
            asked.pages.push_back((wanted, answer));
            self.wake.notify_one();
        }
    }

    /// Nothing is read any more, and what was asked for is not answered.
    pub(super) fn stop(&self) {
        let mut asked = self.asked.lock();
        asked.stopping = true;
        self.wake.notify_one();
    }

    /// The next page to read, when the store is there; `None`: nothing is read any more.
    fn next(&self, store_is_there: impl Fn() -> bool) -> Option<(PageWanted, Answer)> {
        let mut asked = self.asked.lock();
        loop {
            if asked.stopping {
                asked.pages.clear();
                return None;
            }
            match asked.pages.is_empty() {
                true => self.wake.wait(&mut asked),
                false if store_is_there() => return asked.pages.pop_front(),
                false => drop(self.wake.wait_for(&mut asked, PATIENCE)),
            }
        }
    }
}

/// Reads until the store closes.
pub(super) fn run(shared: &Shared) {
    while let Some((wanted, answer)) = shared.pages.next(|| shared.base.lock().is_some()) {
        let Some(base) = shared.base.lock().clone() else {
            shared.pages.ask(wanted, answer);
            continue;
        };
        let (page, damaged) = read(&base, wanted);
        drop(base);
        shared.damaged.fetch_add(damaged, Ordering::Relaxed);
        answer(page);
    }
}

/// Reads a page; gives how much of it is damaged, too.
fn read(base: &Base, wanted: PageWanted) -> (Page, u64) {
    let PageWanted { session, after, through, bytes } = wanted;
    let (first, last) = (keys::place(session, Cursor(after.0 + 1)), keys::place(session, through));
    let (mut page, mut damaged, mut left) = (Page { through, messages: Vec::new() }, 0, bytes);
    let done = caught(|| {
        base.range(&first, &last, Way::Forwards, |key, value| {
            match recover::place_of(key, value, |id| recover::body_of(base, id)) {
                Ok((message, place)) => {
                    let cost = message.cost() as u64;
                    if cost > left && !page.messages.is_empty() {
                        page.through = Cursor(place.cursor.0 - 1);
                        return false;
                    }
                    left = left.saturating_sub(cost);
                    if page.messages.len() + 1 == MOST {
                        page.through = place.cursor;
                    }
                    page.messages.push((message, place));
                }
                Err(error) => {
                    damaged += 1;
                    tracing::error!(%error, key = %recover::hex(key), "a message that waits on disk is left out");
                }
            }
            page.messages.len() < MOST
        })
    });
    if let Err(error) = done {
        // What was read before comes first; then what lies behind the damage.
        page.through = match page.messages.last() {
            Some((_, place)) => place.cursor,
            None => {
                damaged += 1;
                tracing::error!(%error, session = session.0, "a part of a queue on disk cannot be read");
                before_readable(base, wanted)
            }
        };
    }
    (page, damaged)
}

/// The last place that cannot be read, where the first cannot.
fn before_readable(base: &Base, wanted: PageWanted) -> Cursor {
    let (first, last) = (Cursor(wanted.after.0 + 1), wanted.through);
    let mut readable = Cursor(last.0.saturating_add(1));
    let (from, to) = (keys::place(wanted.session, first), keys::place(wanted.session, last));
    // Ends where the damage is.
    let _ = caught(|| {
        base.range(&from, &to, Way::Backwards, |key, _| {
            readable = keys::parse_place(key).map_or(readable, |(_, cursor)| cursor);
            true
        })
    });
    Cursor(readable.0 - 1).max(first)
}

/// A panic of the engine is an error like any other.
fn caught(work: impl FnOnce() -> Result<(), EngineError>) -> Result<(), EngineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(EngineError::panicked()))
}
