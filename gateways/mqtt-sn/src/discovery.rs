//! How boards find the gateway (§6.1): ADVERTISE from time to time, GWINFO for SEARCHGW. Pure: the driver owns the
//! multicast sockets.

use crate::codec::Packet;
use std::time::Duration;
use waystation_broker::Time;

/// Longest wait before GWINFO goes to the group: several gateways that hear one SEARCHGW should not answer at once.
const MAX_JITTER: Duration = Duration::from_millis(500);

/// Hops of a datagram that is to reach the whole network.
const EVERYWHERE: u8 = 32;

/// A datagram for the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// What to say.
    pub packet: Packet<'static>,
    /// How many hops it may take: the broadcast radius as IP knows it.
    pub hops: u8,
}

/// When to say what to the group.
#[derive(Debug)]
pub struct Discovery {
    advertise_at: Time,
    /// At most one: whoever asks meanwhile hears it too.
    answer: Option<(Time, u8)>,
}

impl Discovery {
    /// The first ADVERTISE is due at once.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { advertise_at: now, answer: None }
    }

    /// SEARCHGW came by the group; `random` is any number.
    pub fn searched(&mut self, now: Time, radius: u8, random: u64) {
        // §5.4.2: 0 means everybody. The answer goes as far as the question.
        let hops = if radius == 0 { EVERYWHERE } else { radius };
        let jitter = Duration::from_millis(random % u64::try_from(MAX_JITTER.as_millis()).unwrap_or(1));
        let at = now.after(jitter);
        self.answer = Some(match self.answer {
            Some((before, far)) => (before.min(at), far.max(hops)),
            None => (at, hops),
        });
    }

    /// What is due.
    pub fn poll_transmit(&mut self, now: Time, gateway: u8, interval_s: u16) -> Option<Announcement> {
        if let Some((_, hops)) = self.answer.take_if(|(at, _)| *at <= now) {
            return Some(Announcement { packet: Packet::GwInfo { gateway, address: &[] }, hops });
        }
        if self.advertise_at <= now {
            self.advertise_at = now.after(Duration::from_secs(interval_s.into()));
            return Some(Announcement {
                packet: Packet::Advertise { gateway, duration_s: interval_s },
                hops: EVERYWHERE,
            });
        }
        None
    }

    /// When [`Discovery::poll_transmit`] will have something.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.answer.map_or(self.advertise_at, |(at, _)| at.min(self.advertise_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertise_comes_at_once_and_then_at_the_interval_it_names() {
        let mut discovery = Discovery::new(Time(1_000));
        let said = discovery.poll_transmit(Time(1_000), 7, 900).unwrap();
        assert_eq!(said.packet, Packet::Advertise { gateway: 7, duration_s: 900 });
        assert_eq!(discovery.poll_transmit(Time(1_000), 7, 900), None);
        assert_eq!(discovery.poll_timeout(), Time(901_000));
        assert!(discovery.poll_transmit(Time(901_000), 7, 900).is_some());
    }

    #[test]
    fn a_search_is_answered_after_a_jitter_once_and_as_far_as_it_came() {
        let mut discovery = Discovery::new(Time(0));
        discovery.poll_transmit(Time(0), 7, 900);
        for (radius, random) in [(1, 499), (3, 200), (2, 400)] {
            discovery.searched(Time(1_000), radius, random);
        }
        assert_eq!(discovery.poll_timeout(), Time(1_200));
        assert_eq!(discovery.poll_transmit(Time(1_199), 7, 900), None);
        let said = discovery.poll_transmit(Time(1_200), 7, 900).unwrap();
        assert_eq!((said.packet, said.hops), (Packet::GwInfo { gateway: 7, address: &[] }, 3));
        assert_eq!(discovery.poll_transmit(Time(2_000), 7, 900), None);
        discovery.searched(Time(2_000), 0, 12_345);
        assert!(discovery.poll_timeout() < Time(2_500));
        assert_eq!(discovery.poll_transmit(Time(2_500), 7, 900).unwrap().hops, EVERYWHERE);
    }
}
