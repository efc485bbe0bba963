//! Keep alive (MQTT 5.0 §3.1.2.10): a client that is silent for one and a half times its interval is gone.

use std::time::Duration;
use waystation_broker::Time;

/// When the client was last heard, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    heard: Time,
    /// Milliseconds; zero: for ever.
    patience: u32,
    standing: bool,
}

impl KeepAlive {
    /// `interval_s` zero switches it off [MQTT-3.1.2-22].
    pub(crate) fn new(interval_s: u16, now: Time) -> Self {
        Self { heard: now, patience: u32::from(interval_s) * 1_500, standing: false }
    }

    /// The client said something.
    pub(crate) fn heard(&mut self, now: Time) {
        self.heard = now;
    }

    /// Whether we listen. While we do not, the clock stands: silence is not the client's fault.
    pub(crate) fn listen(&mut self, listening: bool, now: Time) {
        if self.standing && listening {
            self.heard = now;
        }
        self.standing = !listening;
    }

    /// When patience ends; `None`: not before we hear or listen again.
    pub(crate) fn deadline(&self) -> Option<Time> {
        (self.patience > 0 && !self.standing).then(|| self.heard.after(Duration::from_millis(self.patience.into())))
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time(1_000 * s)
    }

    #[test]
    fn patience_is_one_and_a_half_intervals_from_the_last_word() {
        let mut clock = KeepAlive::new(10, at(0));
        assert!(!clock.is_over(at(14)));
        clock.heard(at(14));
        assert!(!clock.is_over(at(28)));
        assert!(clock.is_over(at(29)));
    }

    #[test]
    fn zero_is_for_ever() {
        assert_eq!(KeepAlive::new(0, at(0)).deadline(), None);
    }

    #[test]
    fn the_clock_stands_while_we_do_not_listen() {
        let mut clock = KeepAlive::new(10, at(0));
        clock.listen(false, at(5));
        assert!(!clock.is_over(at(1_000)));
        clock.listen(true, at(1_000));
        assert_eq!(clock.deadline(), Some(at(1_015)));
    }
}
