//! Shared subscriptions (MQTT 5.0 §4.8.2): who is in which group.

use super::{Target, trie::Subscriber};
use crate::topic::Filter;
use hashbrown::HashMap;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// In the tree a group stands where a session would, with this bit in its number.
const GROUP: u32 = 1 << 31;

/// All groups: a share name together with a filter. One ends with its last member.
#[derive(Default)]
pub(crate) struct Groups {
    numbers: HashMap<Filter, u32>,
    groups: HashMap<u32, Group>,
    last: u32,
}

struct Group {
    filter: Filter,
    turn: Arc<AtomicU32>,
    /// Sorted by session.
    members: Vec<Subscriber>,
}

/// A group on a route: its members that may have what goes this way, and whose turn it is.
pub(crate) struct Shared {
    /// Never zero. What is queued for a member remembers it, to find the others should the member end.
    pub(crate) group: u32,
    pub(crate) filter: Filter,
    pub(crate) members: Vec<Target>,
    turn: Arc<AtomicU32>,
}

/// What the tree must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Take this in: the group is new.
    Begins(Subscriber),
    /// Take it out: the group ended.
    Ends(u32),
    /// Nothing.
    None,
}

impl Groups {
    /// The number of a group, which may have no members yet: those come, or [`Groups::forget_empty`] does.
    pub(crate) fn number(&mut self, filter: &Filter) -> u32 {
        if let Some(number) = self.numbers.get(filter) {
            return *number;
        }
        loop {
            // Counts round the numbers without the bit, and without zero.
            self.last = (self.last + 1) % GROUP;
            if self.last != 0 && !self.groups.contains_key(&self.last) {
                break;
            }
        }
        let group = Group { filter: filter.clone(), turn: Arc::default(), members: Vec::new() };
        self.groups.insert(self.last, group);
        self.numbers.insert(filter.clone(), self.last);
        self.last
    }

    pub(crate) fn filter(&self, group: u32) -> Option<Filter> {
        self.groups.get(&group).map(|group| group.filter.clone())
    }

    /// Adds or replaces a member; the flag says whether it is new.
    pub(crate) fn join(&mut self, filter: &Filter, subscriber: Subscriber) -> (bool, Change) {
        let number = self.number(filter);
        let Some(group) = self.groups.get_mut(&number) else { return (false, Change::None) };
        match group.members.binary_search_by_key(&subscriber.session, |member| member.session) {
            Ok(at) => {
                group.members[at] = subscriber;
                (false, Change::None)
            }
            Err(at) => {
                group.members.insert(at, subscriber);
                let first = group.members.len() == 1;
                let entry = Subscriber { session: number | GROUP, ..subscriber };
                (true, if first { Change::Begins(entry) } else { Change::None })
            }
        }
    }

    /// Takes a member out; the flag says whether it was one.
    pub(crate) fn leave(&mut self, filter: &Filter, session: u32) -> (bool, Change) {
        let Some(number) = self.numbers.get(filter).copied() else { return (false, Change::None) };
        let Some(group) = self.groups.get_mut(&number) else { return (false, Change::None) };
        let Ok(at) = group.members.binary_search_by_key(&session, |member| member.session) else {
            return (false, Change::None);
        };
        group.members.remove(at);
        if !group.members.is_empty() {
            return (true, Change::None);
        }
        self.groups.remove(&number);
        self.numbers.remove(filter);
        (true, Change::Ends(number | GROUP))
    }

    pub(crate) fn forget_empty(&mut self) {
        self.groups.retain(|_, group| !group.members.is_empty());
        self.numbers.retain(|_, number| self.groups.contains_key(number));
    }

    /// The group that a subscriber in the tree stands for, with what `target` makes of its members.
    pub(crate) fn resolve(
        &self,
        entry: &Subscriber,
        target: impl Fn(&[Subscriber]) -> Option<Target>,
    ) -> Option<Shared> {
        let number = entry.session & !GROUP;
        let group = self.groups.get(&number)?;
        let member = |member| Some(Target { group: number, ..target(std::slice::from_ref(member))? });
        let members = group.members.iter().filter_map(member).collect();
        Some(Shared { group: number, filter: group.filter.clone(), turn: group.turn.clone(), members })
    }
}

impl Subscriber {
    pub(crate) fn is_group(&self) -> bool {
        self.session & GROUP != 0
    }
}

impl Shared {
    /// The members' places, beginning with the one whose turn it is.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.members.len();
        // Members come and go, and routes to one group differ: a turn is a hint.
        let first = if count == 0 { 0 } else { self.turn.load(Relaxed) as usize % count };
        (first..count).chain(0..first)
    }

    /// The turn passes to whoever stands after this place.
    pub(crate) fn pass_turn(&self, place: usize) {
        self.turn.store(u32::try_from(place + 1).unwrap_or(0), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;

    fn member(session: u32) -> Subscriber {
        Subscriber { session, identifier: 0, qos: Qos::AtMostOnce, no_local: false, retain_as_published: false }
    }

    #[test]
    fn a_group_begins_with_its_first_member_and_ends_with_its_last() {
        let (mut groups, filter) = (Groups::default(), Filter::parse("$share/g/a").unwrap());
        let (new, change) = groups.join(&filter, member(1));
        let Change::Begins(entry) = change else { panic!("{change:?}") };
        assert!(new && entry.is_group());
        assert_eq!(groups.join(&filter, member(2)), (true, Change::None));
        assert_eq!(groups.join(&filter, member(2)), (false, Change::None));
        assert_eq!(groups.leave(&filter, 3), (false, Change::None));
        assert_eq!(groups.leave(&filter, 1), (true, Change::None));
        assert_eq!(groups.leave(&filter, 2), (true, Change::Ends(entry.session)));
        assert!(groups.groups.is_empty() && groups.numbers.is_empty());
    }

    #[test]
    fn a_group_without_members_is_forgotten() {
        let (mut groups, filter) = (Groups::default(), Filter::parse("$share/g/a").unwrap());
        assert_eq!(groups.number(&filter), groups.number(&filter));
        groups.forget_empty();
        assert!(groups.groups.is_empty() && groups.numbers.is_empty());
    }
}
