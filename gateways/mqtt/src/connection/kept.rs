//! Publications of an MQTT 3.1.1 client that were refused for now: the protocol has no word for that, so they are
//! kept, with what follows them, and offered again.

use std::{collections::VecDeque, time::Duration};
use waystation_broker::Time;

/// Bytes of packets kept for one connection.
const MOST_BYTES: usize = 1_048_576;

/// For how long nothing may move before the connection is closed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// PUBLISH packets as they came, in order. At its bounds the connection is closed, and the client sends again.
#[derive(Debug)]
pub(crate) struct Kept {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
    since: Time,
}

impl Kept {
    /// Nothing yet.
    pub(crate) fn new(now: Time) -> Self {
        Self { packets: VecDeque::new(), bytes: 0, since: now }
    }

    /// Keeps a packet behind the others. `false`: it would be more than may be kept.
    #[must_use]
    pub(crate) fn push(&mut self, packet: &[u8], most: u16) -> bool {
        let fits = self.packets.len() < usize::from(most) && self.bytes + packet.len() <= MOST_BYTES;
        if fits {
            self.bytes += packet.len();
            self.packets.push_back(packet.into());
        }
        fits
    }

    /// The packets, to be offered again; those refused again come back by [`Kept::push`].
    pub(crate) fn take(&mut self) -> VecDeque<Box<[u8]>> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }

    /// Some were accepted.
    pub(crate) fn moved(&mut self, now: Time) {
        self.since = now;
    }

    /// None was: patience ends when it would have.
    pub(crate) fn wait_until(&mut self, deadline: Time) {
        self.since = Time(deadline.0.saturating_sub(PATIENCE.as_millis().try_into().unwrap_or(0)));
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// When patience ends.
    pub(crate) fn deadline(&self) -> Time {
        self.since.after(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_in_order_within_both_bounds() {
        let mut kept = Kept::new(Time(0));
        assert!(kept.push(b"1", 2) && kept.push(b"2", 2) && !kept.push(b"3", 2));
        assert_eq!(kept.take(), [Box::from(*b"1"), Box::from(*b"2")]);
        assert_eq!(kept.len(), 0);
        assert!(kept.push(&vec![0; MOST_BYTES], 2));
        assert!(!kept.push(b"x", 2));
    }
}
