//! Pings, sleep and goodbye (§6.11, §6.12, §6.14).

use super::{Client, State};
use crate::{codec::Packet, outbox::Outbox};
use std::time::Duration;
use waystation_broker::{Detach, Link, Time};

impl Client {
    pub(super) fn ping(&mut self, now: Time, client_id: &[u8], out: &mut Outbox) {
        let named = self.id.as_ref().is_some_and(|id| id.as_str().as_bytes() == client_id);
        match self.state {
            State::Asleep if named => {
                self.state = State::Awake;
                self.left_of_visit = self.settings.max_per_wake;
                self.next_wake = Some(now.after(self.patience));
                self.wake_up();
                self.remind(now, out);
                // `deliver` ends with PINGRESP.
            }
            // Its repetition; what it has not heard is repeated at its time.
            State::Awake if named => {}
            _ => self.send(out, &Packet::PingResp),
        }
    }

    pub(super) fn disconnect(&mut self, now: Time, duration_s: Option<u16>, out: &mut Outbox) {
        self.send(out, &Packet::Disconnect { duration_s: None });
        match duration_s {
            Some(seconds) if seconds > 0 => {
                self.patience = Duration::from_secs(seconds.into());
                self.next_wake = Some(now.after(self.patience));
                self.fall_asleep();
                self.heard(now);
            }
            _ => self.leave(Detach::Clean),
        }
    }

    /// Nothing waits any more, or it has had what it may at once: the board sleeps again (§6.14).
    pub(super) fn end_of_visit(&mut self, out: &mut Outbox) {
        if self.state == State::Awake && self.takes_deliveries() && !self.waits_for_disk() {
            self.send(out, &Packet::PingResp);
            self.fall_asleep();
        }
    }

    /// Whether the board may have more, and it is being read.
    fn waits_for_disk(&self) -> bool {
        self.left_of_visit > 0 && self.link.as_ref().is_some_and(Link::is_paging)
    }

    pub(super) fn fall_asleep(&mut self) {
        self.state = State::Asleep;
        self.answered();
        self.doze(true);
    }

    pub(super) fn wake_up(&mut self) {
        self.doze(false);
    }

    fn doze(&mut self, dozing: bool) {
        if !self.settings.queue_qos0_asleep
            && let Some(link) = &mut self.link
        {
            link.doze(dozing);
        }
    }
}
