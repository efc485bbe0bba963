//! When to try again, and when to give up. Knows no clock and rolls no dice: both are given.

use std::time::{Duration, UNIX_EPOCH};
use waystation_broker::Time;

/// Before the second attempt; doubled for each one more.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Never more between two attempts, unless the target asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long a message is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Attempts; `None`: no such bound.
    pub(crate) max_attempts: Option<u32>,
    /// Since the target began to fail, or since the message came, whichever is later.
    pub(crate) give_up_after: Duration,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The target answered with this status, and perhaps with the wish not to be asked again for a while.
    Status(u16, Option<Duration>),
    /// No answer: the network, the name, the time.
    Fault,
    /// The target is one that webhooks may not have.
    Forbidden,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Delivered: the next one.
    Delivered,
    /// Try again then.
    Again(Time),
    /// A dead letter: the next one.
    Dead,
}

/// The attempts at one request. Call [`Schedule::begin`] before each, [`Schedule::judge`] after it.
#[derive(Debug)]
pub(crate) struct Schedule {
    patience: Patience,
    give_up: Time,
    attempts: u32,
}

impl Schedule {
    /// `since` is when the target began to keep this message waiting.
    pub(crate) fn new(patience: Patience, since: Time) -> Self {
        Self { patience, give_up: since.after(patience.give_up_after), attempts: 0 }
    }

    /// The number of the attempt that begins, from 1.
    pub(crate) fn begin(&mut self) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// How many there have been.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What follows from the answer to the last attempt. `jitter` is from 0 to 1.
    pub(crate) fn judge(&self, answer: Answer, now: Time, jitter: f64) -> Verdict {
        let wish = match answer {
            Answer::Status(200..300, _) => return Verdict::Delivered,
            Answer::Status(408 | 425 | 429 | 500..600, wish) => wish,
            Answer::Fault => None,
            // Redirects are not followed, and a request that is wrong now will be wrong again.
            Answer::Status(..) | Answer::Forbidden => return Verdict::Dead,
        };
        let spent = self.patience.max_attempts.is_some_and(|most| self.attempts >= most);
        if spent || now >= self.give_up {
            return Verdict::Dead;
        }
        let next = now.after(self.pause(jitter));
        match wish.map(|wish| now.after(wish)) {
            // What may not be asked again in time is given up at once.
            Some(wished) if wished > self.give_up => Verdict::Dead,
            Some(wished) if wished > next => Verdict::Again(wished),
            // One last attempt when the time is up.
            _ => Verdict::Again(next.min(self.give_up)),
        }
    }

    /// Exponential, and half of it by chance: many webhooks that failed together come back one by one.
    fn pause(&self, jitter: f64) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        whole / 2 + (whole / 2).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// What `Retry-After` asks for: seconds, or an HTTP-date (RFC 9110 §10.2.3). `None` where it says nothing clear.
pub(crate) fn retry_after(text: &str, now: Time) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a wish for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u32::MAX.into())));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Time(u64::try_from(at.as_millis()).unwrap_or(u64::MAX)).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Time = Time(1_700_000_000_000);

    fn schedule(max_attempts: Option<u32>, seconds: u64) -> Schedule {
        Schedule::new(Patience { max_attempts, give_up_after: Duration::from_secs(seconds) }, START)
    }

    #[test]
    fn every_status_has_its_verdict() {
        let mut schedule = schedule(None, 3_600);
        schedule.begin();
        for status in 100..=999 {
            let verdict = schedule.judge(Answer::Status(status, None), START, 0.5);
            match status {
                200..300 => assert_eq!(verdict, Verdict::Delivered),
                408 | 425 | 429 | 500..600 => assert!(matches!(verdict, Verdict::Again(_)), "{status}"),
                _ => assert_eq!(verdict, Verdict::Dead, "{status}"),
            }
        }
        assert!(matches!(schedule.judge(Answer::Fault, START, 0.5), Verdict::Again(_)));
        assert_eq!(schedule.judge(Answer::Forbidden, START, 0.5), Verdict::Dead);
    }

    #[test]
    fn it_gives_up_after_so_many_attempts() {
        let mut schedule = schedule(Some(3), 3_600);
        for _ in 0..2 {
            schedule.begin();
            assert!(matches!(schedule.judge(Answer::Fault, START, 0.0), Verdict::Again(_)));
        }
        schedule.begin();
        assert_eq!(schedule.judge(Answer::Fault, START, 0.0), Verdict::Dead);
    }

    #[test]
    fn a_wish_to_wait_is_kept_to_or_given_up_for() {
        let mut schedule = schedule(None, 60);
        schedule.begin();
        let busy = |seconds| Answer::Status(429, Some(Duration::from_secs(seconds)));
        let later = |seconds| Verdict::Again(START.after(Duration::from_secs(seconds)));
        assert_eq!(schedule.judge(busy(30), START, 0.0), later(30));
        assert_eq!(schedule.judge(busy(60), START, 0.0), later(60));
        assert_eq!(schedule.judge(busy(61), START, 0.0), Verdict::Dead);
        // No wish is shorter than the pause would be.
        assert_eq!(schedule.judge(busy(0), START, 0.0), Verdict::Again(START.after(FIRST_PAUSE / 2)));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = Time(784_111_777_000);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u32::MAX.into())),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pauses_grow_within_their_bounds(attempts in 1u32..100, jitter in 0.0f64..=1.0) {
            let mut schedule = schedule(None, u64::from(u32::MAX));
            schedule.attempts = attempts;
            let pause = schedule.pause(jitter);
            let whole = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(20)).min(LONGEST_PAUSE);
            prop_assert!(pause >= whole / 2 && pause <= whole, "{:?} of {:?}", pause, whole);
        }

        #[test]
        fn a_failing_target_is_given_up_in_time_and_never_asked_too_early(
            wishes in prop::collection::vec(prop::option::of(0u64..100_000), 1..50),
            max_attempts in prop::option::of(1u32..40),
            seconds in 1u64..1_000_000,
            jitter in 0.0f64..=1.0,
        ) {
            let mut schedule = schedule(max_attempts, seconds);
            let mut now = START;
            let end = START.after(Duration::from_secs(seconds));
            let mut over = false;
            for wish in wishes.iter().cycle().take(20_000) {
                let attempt = schedule.begin();
                prop_assert!(max_attempts.is_none_or(|most| attempt <= most));
                let wish = wish.map(Duration::from_secs);
                match schedule.judge(Answer::Status(503, wish), now, jitter) {
                    Verdict::Delivered => prop_assert!(false, "delivered what failed"),
                    Verdict::Dead => { over = true; break }
                    Verdict::Again(at) => {
                        prop_assert!(at > now && at <= end);
                        prop_assert!(wish.is_none_or(|wish| at >= now.after(wish)));
                        now = at;
                    }
                }
            }
            prop_assert!(over, "it goes on for ever");
        }
    }
}
