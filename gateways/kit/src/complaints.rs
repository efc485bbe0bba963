//! Lines in the log that peers can cause at will: so many a second, and a count of the rest.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Lines in one [`WINDOW`]. Enough to see what is wrong with a handful of clients, too few to fill a disk.
const MOST: u32 = 20;

/// See [`MOST`].
const WINDOW: Duration = Duration::from_secs(1);

/// Says whether one more line may be written.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Complaints {
    /// None written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Window { began: None, written: 0, left_out: 0 }))
    }

    /// `None`: too many just now. Else write it, and say in it how many were left out since the last.
    pub fn one_more(&self) -> Option<LeftOut> {
        let now = Instant::now();
        let mut window = self.0.lock();
        if window.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (window.began, window.written) = (Some(now), 0);
        }
        if window.written >= MOST {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(LeftOut(std::mem::take(&mut window.left_out)))
    }
}

/// How many lines were not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut(u64);

impl LeftOut {
    /// As a field of a line: absent when there were none.
    #[must_use]
    pub fn field(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_and_its_size_told_with_the_next_line() {
        let complaints = Complaints::new();
        let written = (0..1_000).filter(|_| complaints.one_more().is_some()).count();
        assert_eq!(written, MOST as usize);
        tokio::time::advance(WINDOW).await;
        assert_eq!(complaints.one_more().and_then(LeftOut::field), Some(1_000 - u64::from(MOST)));
        assert_eq!(complaints.one_more().map(LeftOut::field), Some(None));
    }
}
