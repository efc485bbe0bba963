//! The named sessions, by name. Each name is kept once, in its session.

use super::Session;
use crate::access::ClientId;
use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// See the module's documentation. Bounded by `limits.max_connections` for those that are connected, by their expiry
/// for those that are not.
#[derive(Default)]
pub(crate) struct Registry(BTreeSet<Named>);

impl Registry {
    pub(crate) fn get(&self, id: &ClientId) -> Option<&Arc<Session>> {
        self.0.get(id.as_str()).map(|named| &named.0)
    }

    /// Puts a session under its name, in place of the one that it gives. Unnamed ones are not put anywhere.
    pub(crate) fn insert(&mut self, session: Arc<Session>) -> Option<Arc<Session>> {
        session.client.as_ref()?;
        self.0.replace(Named(session)).map(|named| named.0)
    }

    /// Takes a session out, unless another has its name by now.
    pub(crate) fn remove(&mut self, session: &Arc<Session>) {
        let Some(id) = &session.client else { return };
        if self.get(id).is_some_and(|it| Arc::ptr_eq(it, session)) {
            self.0.remove(id.as_str());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of their ids, those after `after`.
    pub(crate) fn after(&self, after: Option<&ClientId>) -> impl Iterator<Item = &Arc<Session>> {
        let from = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        self.0.range::<str, _>((from, Unbounded)).map(|named| &named.0)
    }
}

/// Ordered and found by its client id.
struct Named(Arc<Session>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        self.0.client.as_ref().map_or("", ClientId::as_str)
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        Borrow::<str>::borrow(self).cmp(other.borrow())
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Named {}
