//! A coarse timer wheel, one a loop: for deadlines of which there are a hundred thousand and that hardly ever fire.
//!
//! A [`Timer`] is an index; arming it moves that index to another slot, which costs a few memory writes and no
//! system call. One task a loop turns the wheel, and sleeps while nothing is armed. A timer fires late by up to two
//! [`TICK`]s and never early.

use std::{
    cell::RefCell,
    marker::PhantomData,
    task::{Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// The wheel's grain.
pub const TICK: Duration = Duration::from_millis(100);

/// One turn: 51.2 s. What is due later stays in its slot for more turns.
const SLOTS: usize = 512;

/// No entry.
const NONE: u32 = u32::MAX;

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::default());
}

/// One deadline of a task on this loop. Not armed when made.
#[derive(Debug)]
pub struct Timer {
    key: u32,
    /// The wheel is this thread's.
    _here: PhantomData<*const ()>,
}

impl Timer {
    /// A timer that is not armed.
    #[must_use]
    pub fn new() -> Self {
        Self { key: WHEEL.with_borrow_mut(Wheel::insert), _here: PhantomData }
    }

    /// Wakes `waker` once, when `after` has passed; an earlier wish is forgotten.
    pub fn arm(&self, after: Duration, waker: &Waker) {
        let turner = WHEEL.with_borrow_mut(|wheel| {
            let now = wheel.at(Instant::now());
            wheel.arm(self.key, now, after, waker);
            wheel.turner.take()
        });
        if let Some(turner) = turner {
            turner.wake();
        }
    }

    /// Forgets the wish.
    pub fn disarm(&self) {
        WHEEL.with_borrow_mut(|wheel| wheel.unlink(self.key));
    }

    /// Whether it is still to fire.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        WHEEL.with_borrow(|wheel| wheel.entries.get(self.key as usize).is_some_and(|it| it.waker.is_some()))
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The thread may be ending, and its wheel gone before this timer.
        let _gone = WHEEL.try_with(|wheel| wheel.borrow_mut().remove(self.key));
    }
}

/// Turns this thread's wheel for ever. [`crate::Loops`] runs one on each loop.
pub async fn turn() {
    loop {
        std::future::poll_fn(|cx| {
            WHEEL.with_borrow_mut(|wheel| {
                if wheel.armed > 0 {
                    return Poll::Ready(());
                }
                wheel.turner = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await;
        tokio::time::sleep(TICK).await;
        let mut due = WHEEL.with_borrow_mut(|wheel| {
            let now = wheel.at(Instant::now());
            wheel.advance(now)
        });
        due.drain(..).for_each(Waker::wake);
        WHEEL.with_borrow_mut(|wheel| wheel.due = due);
    }
}

/// The wheel itself; pure: time is a count of ticks.
#[derive(Debug)]
struct Wheel {
    start: Option<Instant>,
    /// Ticks that have been looked at.
    tick: u64,
    /// Bounded by the loop's tasks.
    entries: Vec<Entry>,
    /// First free entry.
    free: u32,
    /// First entry of each slot's ring.
    slots: Box<[u32]>,
    armed: usize,
    turner: Option<Waker>,
    /// Kept between turns for its capacity.
    due: Vec<Waker>,
}

#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    due: u64,
    next: u32,
    previous: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            start: None,
            tick: 0,
            entries: Vec::new(),
            free: NONE,
            slots: vec![NONE; SLOTS].into(),
            armed: 0,
            turner: None,
            due: Vec::new(),
        }
    }
}

impl Wheel {
    fn at(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        u64::try_from(now.saturating_duration_since(start).as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
    }

    fn insert(&mut self) -> u32 {
        let entry = Entry { waker: None, due: 0, next: NONE, previous: NONE };
        if self.free != NONE {
            let key = self.free;
            self.free = self.entries[key as usize].next;
            self.entries[key as usize] = entry;
            return key;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).expect("a loop holds fewer than four billion tasks")
    }

    fn remove(&mut self, key: u32) {
        self.unlink(key);
        self.entries[key as usize].next = self.free;
        self.free = key;
    }

    fn arm(&mut self, key: u32, now: u64, after: Duration, waker: &Waker) {
        self.unlink(key);
        if self.armed == 0 {
            // Nobody turned the wheel while it was empty.
            self.tick = self.tick.max(now);
        }
        // Rounded up, and one more because the current tick has begun: never early.
        let ticks = u64::try_from(after.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX);
        let due = now.max(self.tick).saturating_add(ticks).saturating_add(1);
        let slot = slot(due);
        let first = self.slots[slot];
        let entry = &mut self.entries[key as usize];
        entry.waker = Some(waker.clone());
        entry.due = due;
        entry.next = first;
        entry.previous = NONE;
        if first != NONE {
            self.entries[first as usize].previous = key;
        }
        self.slots[slot] = key;
        self.armed += 1;
    }

    fn unlink(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        if entry.waker.take().is_none() {
            return;
        }
        let (previous, next, slot) = (entry.previous, entry.next, slot(entry.due));
        match previous {
            NONE => self.slots[slot] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.armed -= 1;
    }

    /// What is due by tick `now`.
    fn advance(&mut self, now: u64) -> Vec<Waker> {
        let mut due = std::mem::take(&mut self.due);
        // After a long stall each slot is looked at once.
        let from = (self.tick + 1).max(now.saturating_sub(SLOTS as u64 - 1));
        for tick in from..=now {
            let mut key = self.slots[slot(tick)];
            while key != NONE {
                let entry = &self.entries[key as usize];
                let (next, is_due) = (entry.next, entry.due <= now);
                if is_due {
                    due.extend(entry.waker.clone());
                    self.unlink(key);
                }
                key = next;
            }
        }
        self.tick = self.tick.max(now);
        due
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        wheel.arm(key, 10, Duration::from_millis(250), &waker());
        assert!(wheel.advance(13).is_empty());
        assert_eq!(wheel.advance(14).len(), 1);
        assert!(wheel.advance(2_000).is_empty());
        assert_eq!(wheel.armed, 0);
    }

    #[test]
    fn what_is_due_after_many_turns_waits_for_them() {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        wheel.arm(key, 0, TICK * 2_000, &waker());
        for tick in 1..=2_000 {
            assert!(wheel.advance(tick).is_empty(), "{tick}");
        }
        assert_eq!(wheel.advance(2_001).len(), 1);
    }

    #[test]
    fn a_stall_of_many_turns_fires_everything_that_is_due() {
        let mut wheel = Wheel::default();
        for n in 0..1_000 {
            let key = wheel.insert();
            wheel.arm(key, 0, TICK * n, &waker());
        }
        assert_eq!(wheel.advance(100_000).len(), 1_000);
    }

    #[test]
    fn arming_again_replaces_and_removing_forgets() {
        let mut wheel = Wheel::default();
        let keys: Vec<u32> = (0..3).map(|_| wheel.insert()).collect();
        for key in &keys {
            wheel.arm(*key, 0, TICK, &waker());
        }
        wheel.arm(keys[1], 0, TICK * 9, &waker());
        wheel.remove(keys[0]);
        assert_eq!(wheel.advance(5).len(), 1);
        assert_eq!(wheel.advance(10).len(), 1);
        assert_eq!(wheel.insert(), keys[0], "indices are used again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_turning_task_wakes_wakers() {
        let count = Arc::new(Count::default());
        let timer = Timer::new();
        let turning = tokio::spawn(turn());
        tokio::task::yield_now().await;
        timer.arm(Duration::from_secs(60), &Waker::from(Arc::clone(&count)));
        assert!(timer.is_armed());
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(!timer.is_armed());
        turning.abort();
    }
}
