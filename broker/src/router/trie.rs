//! The subscription tree: interned levels, nodes by index, a subscriber in twelve bytes.

use crate::message::Qos;
use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;
use std::hash::BuildHasher;

/// No level, no node: both arenas begin at 1 (a level) and hold the root at 0 (a node).
const NONE: u32 = 0;
const ROOT: u32 = 0;

/// Which session wants messages, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) session: u32,
    /// Subscription identifier; zero for none.
    pub(crate) identifier: u32,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
}

/// Filters and who subscribed them.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    levels: Levels,
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Children, found by parent and level; but the first stands in its parent.
    edges: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Node {
    parent: u32,
    level: u32,
    /// A child with a literal level, and that level; most nodes have no other.
    first: (u32, u32),
    /// How many more are among the edges.
    others: u32,
    plus: u32,
    hash: u32,
    subscribers: Subscribers,
}

/// Sorted by session: a filter with a hundred thousand subscribers loses one by binary search.
#[derive(Debug, Default)]
enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    #[expect(clippy::box_collection, reason = "most nodes have none or one: eight bytes a node count")]
    Many(Box<Vec<Subscriber>>),
}

impl Trie {
    /// Adds or replaces; `true` when it is new.
    pub(crate) fn insert(&mut self, pattern: &str, subscriber: Subscriber) -> bool {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let node = pattern.split('/').fold(ROOT, |node, level| self.child_or_new(node, level));
        self.nodes[node as usize].subscribers.insert(subscriber)
    }

    /// Removes; `false` when there was none.
    pub(crate) fn remove(&mut self, pattern: &str, session: u32) -> bool {
        let Some(mut node) = self.find(pattern) else { return false };
        let removed = self.nodes[node as usize].subscribers.remove(session);
        while node != ROOT && self.nodes[node as usize].is_useless() {
            node = self.unlink(node);
        }
        removed
    }

    /// Appends the subscribers of every filter that matches `topic`; one session may come several times.
    pub(crate) fn matches(&self, topic: &str, out: &mut Vec<Subscriber>) {
        if self.nodes.is_empty() {
            return;
        }
        let levels: SmallVec<[u32; 16]> = topic.split('/').map(|level| self.levels.find(level)).collect();
        // A leading wildcard matches no topic that begins with $ [MQTT-4.7.2-1].
        let reserved = topic.starts_with('$');
        // Depth-first without recursion: a topic may have tens of thousands of levels.
        let mut todo: SmallVec<[(u32, usize); 16]> = SmallVec::new();
        todo.push((ROOT, 0));
        while let Some((index, depth)) = todo.pop() {
            let node = &self.nodes[index as usize];
            let wild = depth > 0 || !reserved;
            if wild && node.hash != NONE {
                // `a/#` matches `a` too (§4.7.1.2), hence before the end is looked at.
                self.nodes[node.hash as usize].subscribers.append_to(out);
            }
            let Some(&level) = levels.get(depth) else {
                node.subscribers.append_to(out);
                continue;
            };
            if wild && node.plus != NONE {
                todo.push((node.plus, depth + 1));
            }
            if let Some(child) = self.literal_child(index, level) {
                todo.push((child, depth + 1));
            }
        }
    }

    fn literal_child(&self, parent: u32, level: u32) -> Option<u32> {
        let node = &self.nodes[parent as usize];
        match node {
            _ if level == NONE => None,
            node if node.first.0 == level => Some(node.first.1),
            node if node.others == 0 => None,
            _ => self
                .edges
                .find(self.hasher.hash_one((parent, level)), |child| self.is_edge(*child, parent, level))
                .copied(),
        }
    }

    fn is_edge(&self, child: u32, parent: u32, level: u32) -> bool {
        let node = &self.nodes[child as usize];
        (node.parent, node.level) == (parent, level)
    }

    fn find(&self, pattern: &str) -> Option<u32> {
        if self.nodes.is_empty() {
            return None;
        }
        pattern.split('/').try_fold(ROOT, |node, level| match level {
            "+" => Some(self.nodes[node as usize].plus).filter(|n| *n != NONE),
            "#" => Some(self.nodes[node as usize].hash).filter(|n| *n != NONE),
            literal => self.literal_child(node, self.levels.find(literal)),
        })
    }

    fn child_or_new(&mut self, parent: u32, level: &str) -> u32 {
        match level {
            "+" | "#" => {
                let node = &self.nodes[parent as usize];
                let there = if level == "+" { node.plus } else { node.hash };
                if there != NONE {
                    return there;
                }
                let child = self.new_node(parent, NONE);
                let node = &mut self.nodes[parent as usize];
                *(if level == "+" { &mut node.plus } else { &mut node.hash }) = child;
                child
            }
            literal => {
                let known = self.levels.find(literal);
                if let Some(child) = self.literal_child(parent, known) {
                    return child;
                }
                let level = self.levels.intern(literal);
                let child = self.new_node(parent, level);
                let node = &mut self.nodes[parent as usize];
                if node.first.0 == NONE {
                    node.first = (level, child);
                } else {
                    node.others += 1;
                    let (nodes, hasher) = (&self.nodes, &self.hasher);
                    let hash = |child: &u32| {
                        let node = &nodes[*child as usize];
                        hasher.hash_one((node.parent, node.level))
                    };
                    self.edges.insert_unique(hash(&child), child, hash);
                }
                child
            }
        }
    }

    fn new_node(&mut self, parent: u32, level: u32) -> u32 {
        let node = Node { parent, level, ..Node::default() };
        match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("four thousand million nodes do not fit into memory")
            }
        }
    }

    /// Takes a childless node without subscribers out of its parent, which it gives.
    fn unlink(&mut self, index: u32) -> u32 {
        let Node { parent, level, .. } = self.nodes[index as usize];
        let node = &mut self.nodes[parent as usize];
        if node.plus == index {
            node.plus = NONE;
        } else if node.hash == index {
            node.hash = NONE;
        } else {
            if node.first.0 == level {
                node.first = (NONE, NONE);
            } else {
                node.others -= 1;
                let hash = self.hasher.hash_one((parent, level));
                if let Ok(edge) = self.edges.find_entry(hash, |child| *child == index) {
                    edge.remove();
                }
            }
            self.levels.release(level);
        }
        self.free.push(index);
        parent
    }
}

impl Node {
    fn is_useless(&self) -> bool {
        self.first.0 == NONE
            && self.others == 0
            && self.plus == NONE
            && self.hash == NONE
            && matches!(self.subscribers, Subscribers::None)
    }
}

impl Subscribers {
    fn insert(&mut self, new: Subscriber) -> bool {
        match self {
            Self::None => {
                *self = Self::One(new);
                true
            }
            Self::One(old) if old.session == new.session => {
                *old = new;
                false
            }
            Self::One(old) => {
                let mut both = vec![*old, new];
                both.sort_by_key(|s| s.session);
                *self = Self::Many(Box::new(both));
                true
            }
            Self::Many(all) => match all.binary_search_by_key(&new.session, |s| s.session) {
                Ok(at) => {
                    all[at] = new;
                    false
                }
                Err(at) => {
                    all.insert(at, new);
                    true
                }
            },
        }
    }

    fn remove(&mut self, session: u32) -> bool {
        match self {
            Self::One(one) if one.session == session => {
                *self = Self::None;
                true
            }
            Self::None | Self::One(_) => false,
            Self::Many(all) => {
                let Ok(at) = all.binary_search_by_key(&session, |s| s.session) else { return false };
                all.remove(at);
                if let [one] = all.as_slice() {
                    *self = Self::One(*one);
                }
                true
            }
        }
    }

    fn append_to(&self, out: &mut Vec<Subscriber>) {
        match self {
            Self::None => {}
            Self::One(one) => out.push(*one),
            Self::Many(all) => out.extend_from_slice(all),
        }
    }
}

/// Each distinct level's text, once.
#[derive(Debug, Default)]
struct Levels {
    names: Vec<Name>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Name {
    text: Box<str>,
    users: u32,
}

impl Levels {
    fn find(&self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |id| &*self.names[*id as usize - 1].text == text).copied().unwrap_or(NONE)
    }

    fn intern(&mut self, text: &str) -> u32 {
        let known = self.find(text);
        if known != NONE {
            self.names[known as usize - 1].users += 1;
            return known;
        }
        let name = Name { text: text.into(), users: 1 };
        let id = if let Some(id) = self.free.pop() {
            self.names[id as usize - 1] = name;
            id
        } else {
            self.names.push(name);
            u32::try_from(self.names.len()).expect("four thousand million names do not fit into memory")
        };
        let (names, hasher) = (&self.names, &self.hasher);
        self.table.insert_unique(hasher.hash_one(text), id, |id| hasher.hash_one(&*names[*id as usize - 1].text));
        id
    }

    fn release(&mut self, id: u32) {
        let name = &mut self.names[id as usize - 1];
        name.users -= 1;
        if name.users == 0 {
            let text = std::mem::take(&mut name.text);
            if let Ok(entry) = self.table.find_entry(self.hasher.hash_one(&*text), |other| *other == id) {
                entry.remove();
            }
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscriber(session: u32) -> Subscriber {
        Subscriber { session, identifier: 0, qos: Qos::AtMostOnce, no_local: false, retain_as_published: false }
    }

    fn sessions(trie: &Trie, topic: &str) -> Vec<u32> {
        let mut out = Vec::new();
        trie.matches(topic, &mut out);
        let mut ids: Vec<u32> = out.iter().map(|s| s.session).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_filter_with_many_children_survives_losing_them_one_by_one() {
        let mut trie = Trie::default();
        for (id, name) in ["a/x", "a/y", "a/z"].into_iter().enumerate() {
            trie.insert(name, subscriber(u32::try_from(id).unwrap()));
        }
        assert!(trie.remove("a/x", 0));
        assert!(trie.remove("a/y", 1));
        assert_eq!(sessions(&trie, "a/z"), [2]);
        assert!(trie.insert("a/x", subscriber(7)));
        assert_eq!((sessions(&trie, "a/x"), sessions(&trie, "a/z")), (vec![7], vec![2]));
    }

    proptest! {
        /// The tree agrees with the rules applied filter by filter, whatever was added and removed before.
        #[test]
        fn tree_agrees_with_plain_matching(
            operations in prop::collection::vec((any::<bool>(), "[$]?(a|b|\\+)(/(a|b|c|\\+|)){0,3}(/#)?|#", 0u32..4), 0..40),
            topics in prop::collection::vec("[$]?(a|b|)(/(a|b|c|d|)){0,4}", 1..10),
        ) {
            let (mut trie, mut model) = (Trie::default(), std::collections::BTreeSet::new());
            for (add, filter, session) in operations {
                if crate::topic::Filter::parse(&filter).is_err() { continue; }
                if add {
                    prop_assert_eq!(trie.insert(&filter, subscriber(session)), model.insert((filter, session)));
                } else {
                    prop_assert_eq!(trie.remove(&filter, session), model.remove(&(filter, session)));
                }
            }
            for topic in topics {
                let mut expected: Vec<u32> =
                    model.iter().filter(|(f, _)| crate::topic::matches(f, &topic)).map(|(_, s)| *s).collect();
                expected.sort_unstable();
                prop_assert_eq!(sessions(&trie, &topic), expected, "{}", topic);
            }
            for (filter, session) in &model {
                prop_assert!(trie.remove(filter, *session));
            }
            prop_assert!(trie.edges.is_empty() && trie.levels.table.is_empty());
        }
    }
}
