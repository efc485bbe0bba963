//! When to try again. Knows no clock and rolls no dice: both are given.

use std::time::Duration;

/// Before the first attempt after a connection that worked, and doubled for each one more.
const FIRST: Duration = Duration::from_secs(1);

/// Never more between two attempts at a far side that cannot be reached.
const LONGEST: Duration = Duration::from_secs(15);

/// Between two attempts while the far side refuses us: it would take further ones for an attack.
const REFUSED: Duration = Duration::from_secs(30);
const LONGEST_REFUSED: Duration = Duration::from_secs(300);

/// Why there is no connection, as far as waiting is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The network, the name, a far side that is down or hangs up.
    Fault,
    /// The far side does not take us as we are: credentials, rights, client id.
    Refused,
}

/// The attempts since the last connection that was of use.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The far side has let us in: should it hang up at once, it is not tried at full speed, but soon.
    pub(crate) fn reached(&mut self) {
        self.failures = self.failures.min(1);
    }

    /// A connection was of use.
    pub(crate) fn worked(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after a failure; half of it by chance (`jitter` is from 0 to 1), so that many sites that lost
    /// the same broker come back one by one.
    pub(crate) fn pause(&mut self, cause: Cause, jitter: f64) -> Duration {
        let (first, longest) = match cause {
            Cause::Fault => (FIRST, LONGEST),
            Cause::Refused => (REFUSED, LONGEST_REFUSED),
        };
        let whole = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_after_a_connection_of_use() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..6).map(|_| backoff.pause(Cause::Fault, 1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        backoff.worked();
        assert_eq!(backoff.pause(Cause::Fault, 0.0), FIRST / 2);
    }

    #[test]
    fn a_far_side_that_lets_us_in_is_tried_again_soon() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.pause(Cause::Fault, 1.0);
        }
        for _ in 0..3 {
            backoff.reached();
            assert_eq!(backoff.pause(Cause::Fault, 1.0), 2 * FIRST);
        }
    }

    #[test]
    fn refused_credentials_are_not_tried_at_full_speed() {
        let mut backoff = Backoff::default();
        assert!(backoff.pause(Cause::Refused, 0.0) >= Duration::from_secs(15));
        assert!(backoff.pause(Cause::Refused, 0.0) > backoff.pause(Cause::Fault, 1.0));
    }

    proptest! {
        #[test]
        fn no_pause_is_shorter_than_half_the_first_or_longer_than_the_bound(causes: Vec<bool>, jitter in 0.0..=1.0) {
            let mut backoff = Backoff::default();
            for refused in causes {
                let cause = if refused { Cause::Refused } else { Cause::Fault };
                let pause = backoff.pause(cause, jitter);
                prop_assert!(pause >= FIRST / 2 && pause <= LONGEST_REFUSED);
            }
        }
    }
}
