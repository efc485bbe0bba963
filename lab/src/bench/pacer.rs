//! A clock that releases messages at a fixed rate: the poll's own timeout is too coarse for a message a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;

/// Wakes the event loop whenever another message is due.
#[derive(Debug)]
pub(super) struct Pacer {
    due: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    pub(super) fn start(rate: u32, waker: Waker) -> Self {
        let due = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, ended) = (Arc::clone(&due), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let interval = Duration::from_secs(1) / rate.max(1);
            let mut next = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let now = Instant::now();
                if next > now {
                    std::thread::sleep(next - now);
                }
                next += interval;
                counter.fetch_add(1, Ordering::Relaxed);
                // A waker fails only with its poll gone; the flag ends this thread then.
                let _ = waker.wake();
            }
        });
        Self { due, stop, thread: Some(thread) }
    }

    /// Messages released so far.
    pub(super) fn due(&self) -> u32 {
        self.due.load(Ordering::Relaxed)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
