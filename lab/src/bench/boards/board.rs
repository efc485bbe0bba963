//! One board as MQTT-SN 1.2 has it: one exchange at a time, repeated until it is answered (§6.13).

use std::time::{Duration, Instant};

use super::super::args::{Down, Fleet};
use super::wire;

/// N_retry: after so many repetitions a message counts as lost.
const RETRIES: u32 = 20;

/// Seconds a board says it will sleep; it wakes as soon as it is asleep.
const SLEEP_S: u16 = 60;

/// What happened to messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) repeats: u64,
}

/// What a board waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It has not begun, was refused, or gave up.
    Nothing,
    Connecting,
    Registering,
    Subscribing,
    /// Connected, with nothing under way.
    Ready,
    Publishing,
    /// QoS 2: PUBREL is out.
    Releasing,
    FallingAsleep,
    /// PINGREQ is out, from asleep or from a new address.
    Pinging,
}

/// One board.
pub(super) struct Board {
    id: String,
    topic: String,
    /// It is published to, and does not publish.
    listens: bool,
    qos: u8,
    payload: Vec<u8>,
    retry: Duration,
    sleep_every: u32,
    move_every: u32,
    doing: Doing,
    topic_id: u16,
    msg_id: u16,
    /// What is unanswered, when it goes out again, and how often it did.
    request: Vec<u8>,
    due: Option<Instant>,
    retries: u32,
    since: Option<Instant>,
    /// Messages it may still send.
    left: u32,
    /// What was published last has to be published again.
    again: bool,
    sent: u32,
    was_asleep: bool,
    moving: bool,
    news: Counts,
}

impl Board {
    pub(super) fn new(run: u32, number: u32, qos: u8, size: usize, fleet: &Fleet) -> Self {
        Self {
            id: format!("bench-{run}-{number}"),
            topic: match fleet.down {
                Some(Down::All) => format!("bench/{run}/boards"),
                _ => format!("bench/{run}/board/{number}"),
            },
            listens: fleet.down.is_some(),
            qos,
            payload: vec![b'x'; size],
            retry: Duration::from_millis(fleet.retry_ms.into()),
            sleep_every: fleet.sleep_every.unwrap_or(0),
            move_every: fleet.move_every.unwrap_or(0),
            doing: Doing::Nothing,
            topic_id: 0,
            msg_id: 0,
            request: Vec::new(),
            due: None,
            retries: 0,
            since: None,
            left: 0,
            again: false,
            sent: 0,
            was_asleep: false,
            moving: false,
            news: Counts::default(),
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn doing(&self) -> Doing {
        self.doing
    }

    /// When [`Board::time_out`] is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Hands over what is new.
    pub(super) fn account(&mut self, counts: &mut Counts) {
        let news = std::mem::take(&mut self.news);
        counts.sent += news.sent;
        counts.lost += news.lost;
        counts.repeats += news.repeats;
    }

    /// Whether it is to have a new socket before it speaks, once.
    pub(super) fn takes_new_address(&mut self) -> bool {
        std::mem::take(&mut self.moving)
    }

    pub(super) fn begin(&mut self, now: Instant) -> Option<Vec<u8>> {
        let request = wire::connect(&self.id);
        self.asks(now, Doing::Connecting, request)
    }

    /// Begins to publish that many.
    pub(super) fn publish(&mut self, now: Instant, messages: u32) -> Option<Vec<u8>> {
        self.left = messages;
        self.goes_on(now)
    }

    /// Begins nothing new.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    /// What it does next of its own accord.
    pub(super) fn goes_on(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.doing != Doing::Ready || (self.left == 0 && !self.again) {
            return None;
        }
        let is_turn = |every: u32| every > 0 && self.sent > 0 && self.sent.is_multiple_of(every);
        if is_turn(self.sleep_every) && !self.was_asleep {
            self.was_asleep = true;
            return self.asks(now, Doing::FallingAsleep, wire::sleep(SLEEP_S));
        }
        if is_turn(self.move_every) && self.since.is_some() {
            self.since = None;
            self.moving = true;
            return self.asks(now, Doing::Pinging, wire::ping(&self.id));
        }
        self.was_asleep = false;
        if std::mem::take(&mut self.again) {
            self.news.repeats += 1;
        } else {
            self.left -= 1;
            self.sent += 1;
            self.news.sent += 1;
            self.since = Some(now);
        }
        let msg_id = if self.qos == 0 { 0 } else { self.next_msg_id() };
        let request = wire::publish(self.qos, self.topic_id, msg_id, &self.payload);
        self.asks(now, Doing::Publishing, request)
    }

    fn next_msg_id(&mut self) -> u16 {
        self.msg_id = self.msg_id.checked_add(1).unwrap_or(1);
        self.msg_id
    }

    fn asks(&mut self, now: Instant, doing: Doing, request: Vec<u8>) -> Option<Vec<u8>> {
        (self.doing, self.retries, self.due) = (doing, 0, Some(now + self.retry));
        self.request.clone_from(&request);
        Some(request)
    }

    pub(super) fn time_out(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        if self.retries >= RETRIES {
            self.due = None;
            if matches!(self.doing, Doing::Publishing | Doing::Releasing) {
                self.news.lost += 1;
            }
            self.doing = Doing::Nothing;
            return None;
        }
        self.retries += 1;
        self.news.repeats += 1;
        self.due = Some(now + self.retry);
        wire::mark_repeated(&mut self.request);
        Some(self.request.clone())
    }

    /// Obeys a message; `took` is how long an acknowledgement took.
    pub(super) fn hears(
        &mut self,
        now: Instant,
        datagram: &[u8],
        counts: &mut Counts,
        took: &mut Option<Duration>,
    ) -> Option<Vec<u8>> {
        let (kind, body) = wire::parse(datagram)?;
        match (kind, self.doing) {
            (wire::CONNACK, Doing::Connecting) if body == [0] => match self.topic_id {
                0 => {
                    let msg_id = self.next_msg_id();
                    if self.listens {
                        let request = wire::subscribe(self.qos, msg_id, &self.topic);
                        return self.asks(now, Doing::Subscribing, request);
                    }
                    let request = wire::register(msg_id, &self.topic);
                    return self.asks(now, Doing::Registering, request);
                }
                _ => self.ready(),
            },
            // Congestion: it comes again with the retry.
            (wire::CONNACK, Doing::Connecting) => {}
            (wire::REGACK, Doing::Registering)
                if wire::word(body, 2) == Some(self.msg_id) && body.get(4) == Some(&0) =>
            {
                self.topic_id = wire::word(body, 0)?;
                self.ready();
            }
            (wire::SUBACK, Doing::Subscribing)
                if wire::word(body, 3) == Some(self.msg_id) && body.get(5) == Some(&0) =>
            {
                self.topic_id = wire::word(body, 1)?;
                self.ready();
            }
            (wire::PUBACK, Doing::Publishing) if wire::word(body, 2) == Some(self.msg_id) => match body.get(4)? {
                0 if self.qos == 1 => self.acknowledged(now, counts, took),
                0 => {}
                // Congestion: it comes again with the retry (§5.3.10).
                1 => {}
                _ => {
                    counts.refused += 1;
                    self.ready();
                }
            },
            (wire::PUBREC, Doing::Publishing) if wire::word(body, 0) == Some(self.msg_id) => {
                return self.asks(now, Doing::Releasing, wire::release(self.msg_id));
            }
            (wire::PUBCOMP, Doing::Releasing) if wire::word(body, 0) == Some(self.msg_id) => {
                self.acknowledged(now, counts, took);
            }
            (wire::GOODBYE, Doing::FallingAsleep) => {
                return self.asks(now, Doing::Pinging, wire::ping(&self.id));
            }
            (wire::PINGRESP, Doing::Pinging) if self.was_asleep => return self.begin(now),
            (wire::PINGRESP, Doing::Pinging) => self.ready(),
            // The gateway does not know it (any more), or a late answer to its going to sleep says so: from the
            // beginning (§6.12). What was not acknowledged is published again.
            (wire::GOODBYE, doing) if doing != Doing::Nothing && doing != Doing::Ready => {
                self.again |= doing == Doing::Publishing && self.qos > 0;
                if doing == Doing::Releasing || (doing == Doing::Publishing && self.qos == 0) {
                    self.news.lost += 1;
                }
                self.topic_id = 0;
                return self.begin(now);
            }
            _ => {}
        }
        None
    }

    /// What a message that is for it carries, and the answer it wants.
    pub(super) fn receives<'a>(&self, datagram: &'a [u8]) -> Option<(&'a [u8], Option<Vec<u8>>)> {
        let (wire::PUBLISH, [flags, a, b, c, d, payload @ ..]) = wire::parse(datagram)? else { return None };
        let (topic_id, msg_id) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let wanted = (flags >> 5) & 3 == 1;
        (topic_id == self.topic_id).then(|| (payload, wanted.then(|| wire::acknowledge(topic_id, msg_id))))
    }

    fn acknowledged(&mut self, now: Instant, counts: &mut Counts, took: &mut Option<Duration>) {
        counts.acknowledged += 1;
        *took = self.since.map(|since| now - since);
        self.ready();
    }

    fn ready(&mut self) {
        (self.doing, self.due) = (Doing::Ready, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        fleet: Fleet,
    }

    #[test]
    fn a_board_that_listens_subscribes_and_acknowledges_what_is_its_own() {
        let fleet = Cli::parse_from(["boards", "--down", "one", "--from", "mqtt://localhost"]).fleet;
        let (now, mut counts, mut took) = (Instant::now(), Counts::default(), None);
        let mut board = Board::new(1, 2, 1, 16, &fleet);
        board.begin(now);
        let asked = board.hears(now, &[3, wire::CONNACK, 0], &mut counts, &mut took);
        assert_eq!(asked, Some(wire::subscribe(1, 1, board.topic())));
        board.hears(now, &[8, wire::SUBACK, 0x20, 0, 9, 0, 1, 0], &mut counts, &mut took);
        assert_eq!(board.doing(), Doing::Ready);
        assert_eq!(board.receives(&wire::publish(1, 9, 5, b"x")), Some((&b"x"[..], Some(wire::acknowledge(9, 5)))));
        assert_eq!(board.receives(&wire::publish(0, 9, 0, b"x")), Some((&b"x"[..], None)));
        assert_eq!(board.receives(&wire::publish(1, 8, 5, b"x")), None, "another topic's");
        assert_eq!(board.receives(&wire::release(5)), None);
    }
}
