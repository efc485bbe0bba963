//! How a webhook fares, for whoever looks after it.

use parking_lot::Mutex;
use waystation_broker::Time;

/// Since the server started. Shared by the courier, who writes, and the API, which reads.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Snapshot>);

/// The figures at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// Messages that were answered with 2xx.
    pub(crate) delivered: u64,
    /// Messages that became dead letters.
    pub(crate) dead: u64,
    /// Requests.
    pub(crate) attempts: u64,
    /// Requests for the message that is under way now.
    pub(crate) attempt: u32,
    pub(crate) last_attempt: Option<Time>,
    pub(crate) last_delivery: Option<Time>,
    /// When the target is tried again, while it fails.
    pub(crate) next_attempt: Option<Time>,
    /// The last thing that went wrong, and when.
    pub(crate) last_error: Option<(Time, String)>,
}

impl Figures {
    /// The figures now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.0.lock().clone()
    }

    pub(crate) fn began(&self, attempt: u32, now: Time) {
        let mut figures = self.0.lock();
        figures.attempts += 1;
        figures.attempt = attempt;
        (figures.last_attempt, figures.next_attempt) = (Some(now), None);
    }

    pub(crate) fn delivered(&self, messages: usize, now: Time) {
        let mut figures = self.0.lock();
        figures.delivered += messages as u64;
        (figures.attempt, figures.last_delivery) = (0, Some(now));
    }

    /// Something went wrong; `again` is when the target is tried again.
    pub(crate) fn failed(&self, error: String, now: Time, again: Option<Time>) {
        let mut figures = self.0.lock();
        (figures.last_error, figures.next_attempt) = (Some((now, error)), again);
    }

    pub(crate) fn buried(&self, messages: usize) {
        let mut figures = self.0.lock();
        figures.dead += messages as u64;
        figures.attempt = 0;
    }
}
