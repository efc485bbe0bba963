//! One board's topic ids (§6.5): which name an id stands for, and which id the board knows for a name.

use crate::codec::TopicRef;
use hashbrown::HashMap;
use std::collections::VecDeque;
use waystation_broker::{InvalidTopic, Topic};

/// Most ids one board holds. At it the id given first is taken back; a board that uses it again hears "invalid topic
/// id" and registers anew (§6.5).
const MAX_TOPICS: usize = 4_096;

/// Boards with no more names than this are searched without an index: most have two or three.
const MAX_SEARCHED: usize = 16;

/// One board's ids.
#[derive(Debug, Default)]
pub struct Topics {
    /// In the order the ids were given; predefined ones too.
    names: VecDeque<Name>,
    /// How many of `names` were taken back since the beginning: place = number - gone.
    gone: u32,
    /// The numbers of names, by name and by id, once there are many.
    index: Option<Box<Index>>,
    last: u16,
}

#[derive(Debug)]
struct Name {
    topic: Topic,
    reference: TopicRef,
    standing: Standing,
}

#[derive(Debug, Default)]
struct Index {
    by_topic: HashMap<Topic, u32>,
    by_id: HashMap<u16, u32>,
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
    /// The topic that the board means by an id it was given.
    #[must_use]
    pub fn topic(&self, id: u16) -> Option<&Topic> {
        Some(&self.name(self.number_of_id(id)?)?.topic)
    }

    /// The id of a name, a new one if it has none; the board hears of it by REGACK or SUBACK.
    pub fn id_for(&mut self, topic: &Topic) -> u16 {
        if let Some(name) = self.number_of(topic).and_then(|number| self.name_mut(number))
            && let TopicRef::Normal(id) = name.reference
        {
            name.standing = Standing::Told;
            return id;
        }
        self.give(topic, Standing::Told)
    }

    /// The board subscribed to a predefined id: it knows the topic by that, whatever else it forgets.
    pub fn knows_predefined(&mut self, topic: &Topic, id: u16) {
        if self.number_of(topic).is_none() {
            self.add(Name { topic: topic.clone(), reference: TopicRef::Predefined(id), standing: Standing::Told });
        }
    }

    /// How to name a topic in a PUBLISH to the board, and whether it knows that name.
    #[must_use]
    pub fn name_for(&self, topic: &Topic) -> Option<(TopicRef, Standing)> {
        if let Some(name) = self.number_of(topic).and_then(|number| self.name(number)) {
            return Some((name.reference, name.standing));
        }
        // Names of two octets need no registration (§3).
        let short = <[u8; 2]>::try_from(topic.as_str().as_bytes()).ok()?;
        Some((TopicRef::Short(short), Standing::Told))
    }

    /// An id for a REGISTER to the board: the one it should know, or a new one.
    pub fn offer(&mut self, topic: &Topic) -> u16 {
        match self.number_of(topic).and_then(|number| self.name(number)).map(|name| name.reference) {
            Some(TopicRef::Normal(id)) => id,
            _ => self.give(topic, Standing::Untold),
        }
    }

    /// Notes what the board said to a registration.
    pub fn note(&mut self, id: u16, standing: Standing) {
        if let Some(name) = self.number_of_id(id).and_then(|number| self.name_mut(number)) {
            name.standing = standing;
        }
    }

    /// The board may have forgotten everything it was told (§6.5); what it tells us by the ids it had still holds.
    pub fn may_be_forgotten(&mut self) {
        for name in &mut self.names {
            if matches!(name.reference, TopicRef::Normal(_)) {
                name.standing = Standing::Untold;
            }
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn give(&mut self, topic: &Topic, standing: Standing) -> u16 {
        // At most MAX_TOPICS of 65,534 ids are taken: this ends. 0x0000 and 0xFFFF are reserved (§5.3.11).
        let id = loop {
            self.last = if self.last >= 0xFFFE { 1 } else { self.last + 1 };
            if self.number_of_id(self.last).is_none() {
                break self.last;
            }
        };
        self.add(Name { topic: topic.clone(), reference: TopicRef::Normal(id), standing });
        id
    }

    /// Adds a name; it takes the place of one that the topic had by a predefined id.
    fn add(&mut self, name: Name) {
        if self.names.len() >= MAX_TOPICS
            && let Some(first) = self.names.pop_front()
        {
            if let Some(index) = &mut self.index {
                index.forget(&first, self.gone);
            }
            self.gone = self.gone.wrapping_add(1);
        }
        if self.index.is_none() && self.names.len() >= MAX_SEARCHED {
            let mut index = Box::<Index>::default();
            for (number, name) in (self.gone..).zip(&self.names) {
                index.note(name, number);
            }
            self.index = Some(index);
        }
        if let Some(index) = &mut self.index {
            index.note(&name, self.gone.wrapping_add(u32::try_from(self.names.len()).unwrap_or(u32::MAX)));
        }
        self.names.push_back(name);
    }

    fn number_of(&self, topic: &Topic) -> Option<u32> {
        match &self.index {
            Some(index) => index.by_topic.get(topic).copied(),
            // The newest first: a name may have been given after a predefined id was known.
            None => self.number(self.names.iter().rposition(|name| name.topic == *topic)?),
        }
    }

    fn number_of_id(&self, id: u16) -> Option<u32> {
        match &self.index {
            Some(index) => index.by_id.get(&id).copied(),
            None => self.number(self.names.iter().position(|name| name.reference == TopicRef::Normal(id))?),
        }
    }

    fn number(&self, place: usize) -> Option<u32> {
        Some(self.gone.wrapping_add(u32::try_from(place).ok()?))
    }

    fn name(&self, number: u32) -> Option<&Name> {
        self.names.get(number.wrapping_sub(self.gone) as usize)
    }

    fn name_mut(&mut self, number: u32) -> Option<&mut Name> {
        self.names.get_mut(number.wrapping_sub(self.gone) as usize)
    }
}

impl Index {
    fn note(&mut self, name: &Name, number: u32) {
        self.by_topic.insert(name.topic.clone(), number);
        if let TopicRef::Normal(id) = name.reference {
            self.by_id.insert(id, number);
        }
    }

    fn forget(&mut self, name: &Name, number: u32) {
        if self.by_topic.get(&name.topic) == Some(&number) {
            self.by_topic.remove(&name.topic);
        }
        if let TopicRef::Normal(id) = name.reference {
            self.by_id.remove(&id);
        }
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
            let name = topic(&format!("t/{n}"));
            let id = topics.id_for(&name);
            assert!((1..=0xFFFE).contains(&id));
            assert_eq!(topics.id_for(&name), id);
            assert_eq!(topics.topic(id), Some(&name));
        }
        let index = topics.index.as_ref().unwrap();
        assert_eq!((topics.names.len(), index.by_topic.len(), index.by_id.len()), (MAX_TOPICS, MAX_TOPICS, MAX_TOPICS));
        assert_eq!(topics.topic(1), None, "the id given first was taken back");
    }

    #[test]
    fn a_few_names_and_many_are_found_alike() {
        let mut topics = Topics::default();
        for n in 0..u16::try_from(3 * MAX_SEARCHED).unwrap() {
            assert_eq!(topics.id_for(&topic(&format!("t/{n}"))), n + 1);
            for earlier in 0..=n {
                let name = topic(&format!("t/{earlier}"));
                assert_eq!(topics.topic(earlier + 1), Some(&name));
                assert_eq!(topics.name_for(&name), Some((TopicRef::Normal(earlier + 1), Standing::Told)));
            }
        }
    }

    #[test]
    fn names_of_two_octets_go_without_registration_unless_the_board_asked_for_an_id() {
        let mut topics = Topics::default();
        assert_eq!(topics.name_for(&topic("ab")), Some((TopicRef::Short(*b"ab"), Standing::Told)));
        let id = topics.id_for(&topic("ab"));
        assert_eq!(topics.name_for(&topic("ab")), Some((TopicRef::Normal(id), Standing::Told)));
    }

    #[test]
    fn what_was_told_before_a_new_connection_is_told_again_and_predefined_ids_are_not() {
        let mut topics = Topics::default();
        let id = topics.id_for(&topic("a/b"));
        topics.knows_predefined(&topic("p"), 7);
        topics.may_be_forgotten();
        assert_eq!(topics.name_for(&topic("a/b")), Some((TopicRef::Normal(id), Standing::Untold)));
        assert_eq!(topics.offer(&topic("a/b")), id);
        assert_eq!(topics.topic(id), Some(&topic("a/b")));
        assert_eq!(topics.name_for(&topic("p")), Some((TopicRef::Predefined(7), Standing::Told)));
    }

    #[test]
    fn a_board_that_registers_a_predefined_name_is_told_by_the_new_id() {
        let mut topics = Topics::default();
        topics.knows_predefined(&topic("p"), 7);
        let id = topics.id_for(&topic("p"));
        assert_eq!(topics.name_for(&topic("p")), Some((TopicRef::Normal(id), Standing::Told)));
    }
}
