//! Retained messages, in level order, so that a filter is answered by seeking and not by looking at all of them.

use crate::{
    clock::Time,
    limits::Limits,
    message::{Message, MessageId},
    session::signal::{DELIVERABLE, Signal},
    topic::{Topic, matches},
};
use hashbrown::HashMap;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

/// The last retained message of every topic that has one (MQTT 5.0 §3.3.1.3).
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Key, Message>,
    bytes: u64,
    /// Those that expire, in that order.
    expiring: BTreeSet<(Time, Key)>,
    /// How many are the server's own words about itself: they count against no bound.
    transient: usize,
    /// Who is told when a topic's state changes. As many as there are links, one topic each.
    watched: HashMap<Topic, Vec<Arc<Signal>>>,
}

/// A topic, or a place between topics, ordered level by level: the slash counts as the lowest character, so that a
/// topic's children follow it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key(Arc<str>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |b: u8| if b == b'/' { 0 } else { b };
        self.0.bytes().map(place).cmp(other.0.bytes().map(place))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Retained {
    /// The topic's message, unless it has expired.
    pub(crate) fn get(&self, topic: &str, now: Time) -> Option<&Message> {
        self.messages.get(&Key(topic.into())).filter(|m| !m.expired(now))
    }

    pub(crate) fn current(&self, topic: &str, now: Time) -> Option<MessageId> {
        self.get(topic, now).map(Message::id)
    }

    /// Whether one more message of this cost may be kept.
    pub(crate) fn has_room(&self, message: &Message, limits: &Limits) -> bool {
        let old = self.messages.get(&Key(message.topic().text())).map_or(0, |m| m.cost() as u64);
        let count = self.len() as u64 + u64::from(old == 0);
        count <= u64::from(limits.max_retained_messages)
            && self.bytes - old + message.cost() as u64 <= limits.max_retained_bytes
    }

    /// Sets the topic's message; an empty payload clears it [MQTT-3.3.1-6].
    pub(crate) fn set(&mut self, message: &Message) {
        if message.payload().is_empty() {
            self.clear(message.topic().as_str());
            return;
        }
        self.bytes += message.cost() as u64;
        self.transient += usize::from(message.is_transient());
        let key = Key(message.topic().text());
        let old = self.messages.insert(key.clone(), message.clone());
        self.forget(&key, old);
        self.tell(message.topic().as_str());
        self.expiring.extend(message.expires().map(|at| (at, key)));
    }

    pub(crate) fn clear(&mut self, topic: &str) {
        let key = Key(topic.into());
        let old = self.messages.remove(&key);
        if old.is_some() {
            self.tell(topic);
        }
        self.forget(&key, old);
    }

    /// Rings whenever the topic's state changes, until [`Retained::unwatch`].
    pub(crate) fn watch(&mut self, topic: &Topic, signal: Arc<Signal>) {
        self.watched.entry(topic.clone()).or_default().push(signal);
    }

    pub(crate) fn unwatch(&mut self, topic: &Topic, signal: &Arc<Signal>) {
        let Some(signals) = self.watched.get_mut(topic) else { return };
        if let Some(at) = signals.iter().position(|watching| Arc::ptr_eq(watching, signal)) {
            signals.swap_remove(at);
        }
        if signals.is_empty() {
            self.watched.remove(topic);
        }
    }

    fn tell(&self, topic: &str) {
        for signal in self.watched.get(topic).into_iter().flatten() {
            signal.raise(DELIVERABLE);
        }
    }

    /// Whether anything has expired.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.expiring.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Takes out a message that has expired.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Message> {
        let (_, key) = self.expiring.first().filter(|(at, _)| *at <= now)?.clone();
        let old = self.messages.remove(&key);
        self.tell(&key.0);
        self.forget(&key, old.clone());
        old
    }

    fn forget(&mut self, key: &Key, old: Option<Message>) {
        if let Some(old) = old {
            if let Some(at) = old.expires() {
                self.expiring.remove(&(at, key.clone()));
            }
            self.bytes -= old.cost() as u64;
            self.transient -= usize::from(old.is_transient());
        }
    }

    /// Messages, without the server's words about itself.
    pub(crate) fn len(&self) -> usize {
        self.messages.len() - self.transient
    }

    /// Shows the messages that `pattern` matches, in order, after the topic `after`, until `visit` says `false`.
    pub(crate) fn scan(
        &self,
        pattern: &str,
        after: Option<&Topic>,
        now: Time,
        mut visit: impl FnMut(&Message) -> bool,
    ) {
        let mut from = match after {
            Some(topic) => Excluded(Key(topic.text())),
            None => match literal_prefix(pattern) {
                "" => Unbounded,
                prefix => Included(Key(prefix.into())),
            },
        };
        'seek: loop {
            for (key, message) in self.messages.range((from.clone(), Unbounded)) {
                if matches(pattern, &key.0) {
                    if !message.expired(now) && !visit(message) {
                        return;
                    }
                    continue;
                }
                match next_candidate(pattern, &key.0) {
                    Some(place) => {
                        from = Included(Key(place.into()));
                        continue 'seek;
                    }
                    None => return,
                }
            }
            return;
        }
    }
}

/// The levels before the first wildcard, without the slash that follows them.
fn literal_prefix(pattern: &str) -> &str {
    let end = pattern
        .split('/')
        .scan(0, |at, level| {
            let start = *at;
            *at += level.len() + 1;
            Some((start, level))
        })
        .find(|(_, level)| matches!(*level, "+" | "#"))
        .map_or(pattern.len(), |(start, _)| start.saturating_sub(1));
    &pattern[..end]
}

/// The first place after `topic`, which does not match, where a matching topic may be; `None`: nowhere.
fn next_candidate(pattern: &str, topic: &str) -> Option<String> {
    let mut levels = topic.split('/');
    let mut start = 0; // of the level looked at, in `topic`
    let mut movable = None; // end of the level under the last `+`: what may still be moved on
    for wanted in pattern.split('/') {
        let Some(level) = levels.next() else {
            // The topic is too short: its first child with what is wanted.
            return Some(format!("{topic}/{}", if wanted == "+" { "" } else { wanted }));
        };
        let end = start + level.len();
        match wanted {
            // A leading wildcard that does not match means a $ topic; its whole tree is passed by.
            "#" | "+" if start == 0 && topic.starts_with('$') => return Some(past(level)),
            "+" => movable = Some(end),
            _ if level == wanted => {}
            _ if level < wanted => return Some(format!("{}{wanted}", &topic[..start])),
            _ => return movable.map(|at| past(&topic[..at])),
        }
        start = end + 1;
    }
    // The topic is too long: past everything below what agrees.
    Some(past(&topic[..start - 1]))
}

/// Past a topic and all its children, before anything else: U+0001 is the lowest character after the slash.
fn past(topic: &str) -> String {
    format!("{topic}\u{1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Policy, Principal};
    use crate::message::{Head, Origin, Qos};
    use proptest::prelude::*;

    fn message(topic: &str, payload: &[u8]) -> Message {
        let head = Head {
            topic: Topic::parse(topic).unwrap(),
            origin: Arc::new(Origin { client: None, principal: Principal::anonymous(), session: 0 }),
            id: MessageId(1),
            time: Time(0),
            expires: None,
            properties: None,
            qos: Qos::AtMostOnce,
            retain: true,
            policy: Policy::NONE,
        };
        Message::new(head, payload)
    }

    fn scan(retained: &Retained, pattern: &str, after: Option<&str>) -> Vec<String> {
        let mut out = Vec::new();
        let after = after.map(|t| Topic::parse(t).unwrap());
        retained.scan(pattern, after.as_ref(), Time(0), |m| {
            out.push(m.topic().to_string());
            true
        });
        out
    }

    #[test]
    fn an_empty_payload_clears_and_gives_the_bytes_back() {
        let mut retained = Retained::default();
        retained.set(&message("a", b"xyz"));
        retained.set(&message("a", b"x"));
        assert_eq!((retained.len(), retained.bytes), (1, 2));
        retained.set(&message("a", b""));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }

    #[test]
    fn scans_page_in_level_order() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a-b", "a/b/c", "b"] {
            retained.set(&message(topic, b"1"));
        }
        assert_eq!(scan(&retained, "#", None), ["a", "a/b", "a/b/c", "a-b", "b"]);
        assert_eq!(scan(&retained, "a/#", Some("a/b")), ["a/b/c"]);
    }

    proptest! {
        #[test]
        fn seeking_finds_what_looking_at_all_finds(
            topics in prop::collection::btree_set("[$]?(a|b|ab|)(/(a|b|c|-|)){0,3}", 0..30),
            pattern in "[$]?(a|b|\\+)(/(a|b|c|\\+|)){0,3}(/#)?|#",
        ) {
            let mut retained = Retained::default();
            for topic in topics.iter().filter(|t| !t.is_empty()) {
                retained.set(&message(topic, b"1"));
            }
            let mut expected: Vec<&str> = topics.iter().filter(|t| !t.is_empty() && matches(&pattern, t)).map(String::as_str).collect();
            expected.sort_by_key(|t| Key((*t).into()));
            prop_assert_eq!(scan(&retained, &pattern, None), expected);
        }
    }
}
