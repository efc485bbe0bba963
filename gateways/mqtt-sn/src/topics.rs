//! One board's topic ids (§6.5): which name an id stands for, and which id the board knows for a name.

use crate::{codec::TopicRef, config::PredefinedTopics};
use hashbrown::HashMap;
use std::{collections::BTreeMap, collections::VecDeque};
use waystation_broker::{InvalidTopic, Topic};

/// Most ids one board holds. At it the id given first is taken back; a board that uses it again hears "invalid topic
/// id" and registers anew (§6.5).
const MAX_TOPICS: usize = 4_096;

/// The ids all boards know beforehand.
#[derive(Debug, Default)]
pub struct Predefined(BTreeMap<u16, Topic>);

impl Predefined {
    /// The table of the configuration; names that are no topic are left out (`check` refuses them).
    #[must_use]
    pub fn new(table: &PredefinedTopics) -> Self {
        Self(table.0.iter().filter_map(|(id, name)| Some((*id, Topic::parse(name).ok()?))).collect())
    }

    /// The topic of an id.
    #[must_use]
    pub fn topic(&self, id: u16) -> Option<&Topic> {
        self.0.get(&id)
    }
}

/// One board's ids.
#[derive(Debug, Default)]
pub struct Topics {
    by_id: HashMap<u16, Topic>,
    by_name: HashMap<Topic, Known>,
    /// Ids in the order they were given.
    given: VecDeque<u16>,
    last: u16,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    reference: TopicRef,
    standing: Standing,
}

/// What the board knows of a name's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was told, and said so.
    Told,
    /// It may have forgotten: tell it again before the next PUBLISH.
    Untold,
    /// It refused the registration: it can not be given messages of this topic.
    Refused,
}

impl Topics {
    /// The topic a board means in a PUBLISH. `None`: an id nobody gave, or a short name that is no topic.
    #[must_use]
    pub fn resolve(&self, reference: TopicRef, predefined: &Predefined) -> Option<Topic> {
        match reference {
            TopicRef::Normal(id) => self.by_id.get(&id).cloned(),
            TopicRef::Predefined(id) => predefined.topic(id).cloned(),
            TopicRef::Short(name) => short_topic(name).ok(),
        }
    }

    /// The id of a name, a new one if it has none; the board hears of it by REGACK or SUBACK.
    pub fn id_for(&mut self, topic: &Topic) -> u16 {
        if let Some(Known { reference: TopicRef::Normal(id), standing }) = self.by_name.get_mut(topic) {
            *standing = Standing::Told;
            return *id;
        }
        self.give(topic, Standing::Told)
    }

    /// The board subscribed to a predefined id: it knows the topic by that.
    pub fn knows_predefined(&mut self, topic: &Topic, id: u16) {
        if self.by_name.len() < 2 * MAX_TOPICS {
            let known = Known { reference: TopicRef::Predefined(id), standing: Standing::Told };
            self.by_name.entry(topic.clone()).or_insert(known);
        }
    }

    /// How to name a topic in a PUBLISH to the board, and whether it knows that name.
    #[must_use]
    pub fn name_for(&self, topic: &Topic) -> Option<(TopicRef, Standing)> {
        if let Some(known) = self.by_name.get(topic) {
            return Some((known.reference, known.standing));
        }
        // Names of two octets need no registration (§3).
        let short = <[u8; 2]>::try_from(topic.as_str().as_bytes()).ok()?;
        Some((TopicRef::Short(short), Standing::Told))
    }

    /// An id for a REGISTER to the board: the one it should know, or a new one.
    pub fn offer(&mut self, topic: &Topic) -> u16 {
        match self.by_name.get(topic) {
            Some(Known { reference: TopicRef::Normal(id), .. }) => *id,
            _ => self.give(topic, Standing::Untold),
        }
    }

    /// Notes what the board said to a registration.
    pub fn note(&mut self, id: u16, standing: Standing) {
        if let Some(topic) = self.by_id.get(&id)
            && let Some(known) = self.by_name.get_mut(topic)
        {
            known.standing = standing;
        }
    }

    /// The board may have forgotten everything it was told.
    pub fn may_be_forgotten(&mut self) {
        for known in self.by_name.values_mut() {
            known.standing = Standing::Untold;
        }
        self.by_name.retain(|_, known| matches!(known.reference, TopicRef::Normal(_)));
    }

    fn give(&mut self, topic: &Topic, standing: Standing) -> u16 {
        if self.given.len() >= MAX_TOPICS
            && let Some(first) = self.given.pop_front()
            && let Some(name) = self.by_id.remove(&first)
        {
            self.by_name.remove(&name);
        }
        // At most MAX_TOPICS of 65,534 ids are taken: this ends. 0x0000 and 0xFFFF are reserved (§5.3.11).
        let id = loop {
            self.last = if self.last >= 0xFFFE { 1 } else { self.last + 1 };
            if !self.by_id.contains_key(&self.last) {
                break self.last;
            }
        };
        self.by_id.insert(id, topic.clone());
        self.by_name.insert(topic.clone(), Known { reference: TopicRef::Normal(id), standing });
        self.given.push_back(id);
        id
    }
}

/// The topic that a short name is.
///
/// # Errors
/// It is none.
pub fn short_topic(name: [u8; 2]) -> Result<Topic, InvalidTopic> {
    Topic::from_bytes(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    #[test]
    fn a_name_keeps_its_id_and_the_reserved_ids_are_never_given() {
        let mut topics = Topics::default();
        assert_eq!(topics.id_for(&topic("a/b")), 1);
        assert_eq!(topics.id_for(&topic("a/b")), 1);
        for n in 0..70_000 {
            let id = topics.id_for(&topic(&format!("t/{n}")));
            assert!((1..=0xFFFE).contains(&id));
        }
        assert_eq!(topics.by_id.len(), MAX_TOPICS);
        assert_eq!(topics.by_name.len(), MAX_TOPICS);
        assert_eq!(topics.given.len(), MAX_TOPICS);
    }

    #[test]
    fn names_of_two_octets_go_without_registration_unless_the_board_asked_for_an_id() {
        let mut topics = Topics::default();
        assert_eq!(topics.name_for(&topic("ab")), Some((TopicRef::Short(*b"ab"), Standing::Told)));
        let id = topics.id_for(&topic("ab"));
        assert_eq!(topics.name_for(&topic("ab")), Some((TopicRef::Normal(id), Standing::Told)));
    }

    #[test]
    fn what_was_told_before_a_new_connection_is_told_again() {
        let mut topics = Topics::default();
        let id = topics.id_for(&topic("a/b"));
        topics.may_be_forgotten();
        assert_eq!(topics.name_for(&topic("a/b")), Some((TopicRef::Normal(id), Standing::Untold)));
        assert_eq!(topics.offer(&topic("a/b")), id);
        assert_eq!(topics.resolve(TopicRef::Normal(id), &Predefined::default()), Some(topic("a/b")));
    }
}
