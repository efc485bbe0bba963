//! Topic aliases (MQTT 5.0 §3.3.2.3.4): a number in place of a topic, each way on its own, for one connection.

use std::{collections::HashMap, num::NonZeroU16};
use waystation_broker::Topic;

/// The aliases of a connection, both ways. Few clients have any.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    pub(crate) inbound: Inbound,
    /// `None` where the client allows none.
    pub(crate) outbound: Option<Outbound>,
}

impl Aliases {
    /// What a client needs that allows us to set `maximum`.
    pub(crate) fn new(maximum: u16) -> Option<Box<Self>> {
        let outbound = Outbound::new(maximum)?;
        Some(Box::new(Self { inbound: Inbound::default(), outbound: Some(outbound) }))
    }
}

/// Aliases the client set.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Grows to the highest alias used, at most `limits.topic_alias_maximum`.
    topics: Vec<Option<Topic>>,
    /// Topic bytes of all of them: a number and two bytes of header must not hold 65 KB each.
    bytes: usize,
}

/// Most bytes of topics a connection's aliases may hold.
const MAX_BYTES: usize = 1_048_576;

impl Inbound {
    /// Remembers a topic under an alias. `false`: the alias is above `maximum` [MQTT-3.3.2-9], or too much is
    /// remembered already.
    pub(crate) fn set(&mut self, alias: u16, topic: Topic, maximum: u16) -> bool {
        if alias == 0 || alias > maximum {
            return false;
        }
        let index = usize::from(alias) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if self.topics[index].as_ref() == Some(&topic) {
            return true;
        }
        let freed = self.topics[index].as_ref().map_or(0, |old| old.as_str().len());
        let bytes = self.bytes - freed + topic.as_str().len();
        if bytes > MAX_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.topics[index] = Some(topic);
        true
    }

    /// The topic an alias stands for.
    pub(crate) fn get(&self, alias: u16) -> Option<&Topic> {
        self.topics.get(usize::from(alias).checked_sub(1)?)?.as_ref()
    }
}

/// Aliases we set. First come, first served: a table that changes its mind costs a topic each time it does.
#[derive(Debug)]
pub(crate) struct Outbound {
    aliases: HashMap<Topic, NonZeroU16>,
    maximum: u16,
}

/// More would cost more memory than it saves bytes on the wire.
const MOST_OUTBOUND: u16 = 64;

/// A shorter topic costs fewer bytes than its alias property.
const SHORTEST: usize = 4;

/// How to name a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// In full, without an alias.
    Full,
    /// In full, and from now on by this alias.
    Introduce(NonZeroU16),
    /// By its alias alone.
    Alias(NonZeroU16),
}

impl Outbound {
    /// `None` where the client allows none.
    pub(crate) fn new(maximum: u16) -> Option<Self> {
        (maximum > 0).then(|| Self { aliases: HashMap::new(), maximum: maximum.min(MOST_OUTBOUND) })
    }

    /// How to name the topic in the next PUBLISH; call [`Outbound::introduced`] once one has introduced it.
    pub(crate) fn name(&self, topic: &Topic) -> Naming {
        if let Some(alias) = self.aliases.get(topic) {
            return Naming::Alias(*alias);
        }
        let next = u16::try_from(self.aliases.len() + 1).ok().filter(|next| *next <= self.maximum);
        match next.and_then(NonZeroU16::new) {
            Some(alias) if topic.as_str().len() >= SHORTEST => Naming::Introduce(alias),
            _ => Naming::Full,
        }
    }

    /// The client knows the alias from now on.
    pub(crate) fn introduced(&mut self, topic: &Topic, alias: NonZeroU16) {
        self.aliases.insert(topic.clone(), alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    #[test]
    fn an_alias_stands_for_the_topic_it_was_last_given() {
        let mut aliases = Inbound::default();
        assert_eq!(aliases.get(0), None);
        assert_eq!(aliases.get(7), None);
        assert!(aliases.set(7, topic("a"), 10));
        assert!(aliases.set(7, topic("b"), 10));
        assert_eq!(aliases.get(7), Some(&topic("b")));
        assert_eq!(aliases.get(6), None);
    }

    #[test]
    fn an_alias_of_zero_or_above_the_maximum_is_refused() {
        let mut aliases = Inbound::default();
        assert!(!aliases.set(0, topic("a"), 10));
        assert!(!aliases.set(11, topic("a"), 10));
        assert!(!aliases.set(1, topic("a"), 0));
    }

    #[test]
    fn aliases_hold_a_bounded_number_of_bytes() {
        let mut aliases = Inbound::default();
        let kept = (1..=64).filter(|n| aliases.set(*n, topic(&format!("{n}/{}", "x".repeat(60_000))), 64)).count();
        assert_eq!(kept, 17);
        assert!(aliases.set(1, topic("short"), 64), "replacing frees");
        assert!(aliases.set(18, topic("short"), 64));
    }

    #[test]
    fn outbound_aliases_are_first_come_and_only_after_they_were_introduced() {
        let mut aliases = Outbound::new(1).unwrap();
        let one = NonZeroU16::MIN;
        assert_eq!(aliases.name(&topic("a/long/one")), Naming::Introduce(one));
        assert_eq!(aliases.name(&topic("a/long/two")), Naming::Introduce(one));
        aliases.introduced(&topic("a/long/two"), one);
        assert_eq!(aliases.name(&topic("a/long/two")), Naming::Alias(one));
        assert_eq!(aliases.name(&topic("a/long/one")), Naming::Full);
        assert!(Outbound::new(0).is_none());
    }
}
