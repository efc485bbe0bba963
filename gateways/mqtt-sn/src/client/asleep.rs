//! Pings, sleep and goodbye (§6.11, §6.12, §6.14).

use super::{Client, State};
use crate::{codec::Packet, outbox::Outbox};
use std::time::Duration;
use waystation_broker::{Detach, Time};

impl Client {
    pub(super) fn ping(&mut self, now: Time, client_id: &[u8], out: &mut Outbox) {
        let own = self.link.as_ref().and_then(|link| link.client_id());
        let named = own.is_some_and(|id| id.as_str().as_bytes() == client_id);
        match self.state {
            State::Asleep | State::Awake if named => {
                self.state = State::Awake;
                if self.outgoing.is_some() {
                    self.repeat(out);
                    self.await_answer(now);
                }
                // `deliver` ends with PINGRESP.
            }
            _ => self.send(out, &Packet::PingResp),
        }
    }

    pub(super) fn disconnect(&mut self, now: Time, duration_s: Option<u16>, out: &mut Outbox) {
        self.send(out, &Packet::Disconnect { duration_s: None });
        match duration_s {
            Some(seconds) if seconds > 0 => {
                self.state = State::Asleep;
                self.answered();
                self.patience = Duration::from_secs(seconds.into());
                self.heard(now);
            }
            _ => self.leave(Detach::Clean),
        }
    }

    /// Nothing waits any more: the board may sleep again (§6.14).
    pub(super) fn end_of_visit(&mut self, out: &mut Outbox) {
        if self.state == State::Awake && self.outgoing.is_none() && self.held.is_empty() {
            self.send(out, &Packet::PingResp);
            self.state = State::Asleep;
        }
    }
}
