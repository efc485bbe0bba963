//! Who gets what: filters, sessions by index, and the routes worked out from them.

pub(crate) mod retained;
pub(crate) mod shared;
pub(crate) mod trie;

use crate::{
    access::Rights,
    message::Qos,
    session::{Session, queue::Identifiers},
    topic::{Filter, Topic},
};
use hashbrown::HashMap;
use parking_lot::RwLock;
use shared::{Change, Groups, Shared};
use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use trie::{Subscriber, Trie};
use triomphe::ThinArc;

/// Most subscribers that all remembered routes together may name; past it they are forgotten and worked out anew.
const CACHED_TARGETS: usize = 1_000_000;
/// Most topics with a remembered route.
const CACHED_ROUTES: usize = 65_536;

/// Filters to sessions. A route is worked out once per topic and then remembered until a subscription or a right
/// changes (a generation).
pub(crate) struct Router {
    table: RwLock<Table>,
    cache: RwLock<Cache>,
    generation: AtomicU64,
    rights: Arc<Rights>,
}

#[derive(Default)]
struct Table {
    trie: Trie,
    groups: Groups,
    /// By [`Session::id`]. Index 0 stays empty: it stands for "no session".
    sessions: Vec<Option<Arc<Session>>>,
    free: Vec<u32>,
    subscriptions: usize,
}

#[derive(Default)]
struct Cache {
    routes: HashMap<Topic, Arc<Route>>,
    targets: usize,
}

/// Where messages on one topic go.
pub(crate) struct Route {
    pub(crate) generation: u64,
    pub(crate) topic: Topic,
    pub(crate) targets: Vec<Target>,
    pub(crate) shared: Vec<Shared>,
}

/// One session on a route.
pub(crate) struct Target {
    pub(crate) session: Arc<Session>,
    pub(crate) qos: Qos,
    pub(crate) retain_as_published: bool,
    /// Every subscription that matched says No Local.
    pub(crate) no_local: bool,
    pub(crate) identifiers: Identifiers,
    /// The group it was chosen for; zero for a subscription of its own.
    pub(crate) group: u32,
}

impl Router {
    pub(crate) fn new(rights: Arc<Rights>) -> Self {
        let table = Table { sessions: vec![None], ..Table::default() };
        Self { table: RwLock::new(table), cache: RwLock::default(), generation: AtomicU64::new(1), rights }
    }

    /// The generation of subscriptions and rights; what was worked out under an older one is stale.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Everything worked out so far is stale.
    pub(crate) fn bump(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives a session its index.
    pub(crate) fn add_session(&self, make: impl FnOnce(u32) -> Arc<Session>) -> Arc<Session> {
        let mut table = self.table.write();
        let id = table.free.pop().unwrap_or_else(|| {
            table.sessions.push(None);
            u32::try_from(table.sessions.len() - 1).expect("four thousand million sessions do not fit into memory")
        });
        let session = make(id);
        table.sessions[id as usize] = Some(session.clone());
        session
    }

    /// Forgets a session and its filters.
    pub(crate) fn remove_session(&self, session: &Session, filters: impl Iterator<Item = Filter>) {
        let mut table = self.table.write();
        // A session without filters is on no route.
        let mut routed = false;
        for filter in filters {
            table.unsubscribe(&filter, session.id);
            routed = true;
        }
        if table.sessions[session.id as usize].take().is_some() {
            table.free.push(session.id);
        }
        if routed {
            self.bump();
        }
    }

    pub(crate) fn for_each_session(&self, each: impl FnMut(&Arc<Session>)) {
        // Copied out: no session's lock is taken under the table's.
        let sessions: Vec<_> = self.table.read().sessions.iter().flatten().cloned().collect();
        sessions.iter().for_each(each);
    }

    pub(crate) fn subscribe(&self, filter: &Filter, subscriber: Subscriber) {
        self.table.write().subscribe(filter, subscriber);
        self.bump();
    }

    pub(crate) fn unsubscribe(&self, filter: &Filter, session: u32) {
        self.table.write().unsubscribe(filter, session);
        self.bump();
    }

    /// The number of the group that shares `filter`, also while nobody is in it.
    pub(crate) fn group(&self, filter: &Filter) -> u32 {
        self.table.write().groups.number(filter)
    }

    /// What a group shares; `None`: it has ended.
    pub(crate) fn group_filter(&self, group: u32) -> Option<Filter> {
        self.table.read().groups.filter(group)
    }

    /// Forgets the groups that nobody has joined.
    pub(crate) fn forget_empty_groups(&self) {
        self.table.write().groups.forget_empty();
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.table.read().subscriptions
    }

    /// The remembered route of a topic, if it is not stale.
    pub(crate) fn known(&self, topic: &str) -> Option<Arc<Route>> {
        let route = self.cache.read().routes.get(topic)?.clone();
        (route.generation == self.generation()).then_some(route)
    }

    /// The route of a topic.
    pub(crate) fn route(&self, topic: &Topic) -> Arc<Route> {
        self.known(topic.as_str()).unwrap_or_else(|| self.resolve(topic))
    }

    fn resolve(&self, topic: &Topic) -> Arc<Route> {
        let mut route = self.table.read().route(topic, || self.generation());
        // Rights are asked for without the table's lock, which this may take a while.
        let may_receive = |target: &Target| {
            let principal = target.session.state.lock().principal.clone();
            self.rights.may_receive(&principal, target.session.client.as_ref(), topic)
        };
        route.targets.retain(may_receive);
        route.shared.iter_mut().for_each(|shared| shared.members.retain(may_receive));
        route.shared.retain(|shared| !shared.members.is_empty());
        let route = Arc::new(route);
        // The server's words about itself come seldom, and may be as many as there are clients.
        if !topic.as_str().starts_with("$SYS/") {
            self.remember(&route);
        }
        route
    }

    fn remember(&self, route: &Arc<Route>) {
        let mut cache = self.cache.write();
        if cache.routes.len() >= CACHED_ROUTES || cache.targets + route.size() > CACHED_TARGETS {
            *cache = Cache::default();
        }
        if route.size() <= CACHED_TARGETS {
            cache.targets += route.size();
            if let Some(old) = cache.routes.insert(route.topic.clone(), route.clone()) {
                cache.targets -= old.size();
            }
        }
    }

    /// Forgets routes that are stale, and with them sessions that are gone. Called now and then.
    pub(crate) fn forget_stale(&self) {
        let generation = self.generation();
        let mut cache = self.cache.write();
        let mut targets = 0;
        cache.routes.retain(|_, route| {
            let keep = route.generation == generation;
            targets += if keep { route.size() } else { 0 };
            keep
        });
        cache.targets = targets;
    }
}

impl Table {
    fn subscribe(&mut self, filter: &Filter, subscriber: Subscriber) {
        let is_new = match filter.group() {
            None => self.trie.insert(filter.pattern(), subscriber),
            Some(_) => {
                let (is_new, change) = self.groups.join(filter, subscriber);
                self.apply(filter, &change);
                is_new
            }
        };
        self.subscriptions += usize::from(is_new);
    }

    fn unsubscribe(&mut self, filter: &Filter, session: u32) {
        let was_there = match filter.group() {
            None => self.trie.remove(filter.pattern(), session),
            Some(_) => {
                let (was_there, change) = self.groups.leave(filter, session);
                self.apply(filter, &change);
                was_there
            }
        };
        self.subscriptions -= usize::from(was_there);
    }

    fn apply(&mut self, filter: &Filter, change: &Change) {
        match change {
            Change::Begins(group) => drop(self.trie.insert(filter.pattern(), *group)),
            Change::Ends(group) => drop(self.trie.remove(filter.pattern(), *group)),
            Change::None => {}
        }
    }

    /// Who subscribed, whatever the rights say. The generation is read under the lock: a subscription that comes
    /// later makes the route stale at once.
    fn route(&self, topic: &Topic, generation: impl FnOnce() -> u64) -> Route {
        let generation = generation();
        let mut matched = Vec::new();
        self.trie.matches(topic.as_str(), &mut matched);
        matched.sort_unstable_by_key(|s| s.session);
        // The numbers of groups are above those of sessions.
        let (sessions, groups) = matched.split_at(matched.partition_point(|s| !s.is_group()));
        let target = |same: &[Subscriber]| {
            let session = self.sessions.get(same[0].session as usize)?.as_ref()?;
            Some(Target::merge(session.clone(), same))
        };
        Route {
            generation,
            topic: topic.clone(),
            targets: sessions.chunk_by(|a, b| a.session == b.session).filter_map(target).collect(),
            shared: groups.iter().filter_map(|group| self.groups.resolve(group, target)).collect(),
        }
    }
}

impl Route {
    /// Sessions that get what `publisher` (zero: no session) publishes; a group counts as one.
    pub(crate) fn matched(&self, publisher: u32) -> u32 {
        let targets = self.targets.iter().filter(|target| !target.is_own(publisher)).count();
        u32::try_from(targets + self.shared.len()).unwrap_or(u32::MAX)
    }

    /// Whether any session on it has one of these traits.
    pub(crate) fn any(&self, traits: u8) -> bool {
        let members = self.shared.iter().flat_map(|shared| &shared.members);
        self.targets.iter().chain(members).any(|target| target.session.has(traits))
    }

    fn size(&self) -> usize {
        self.targets.len() + self.shared.iter().map(|shared| shared.members.len()).sum::<usize>()
    }
}

impl Target {
    /// One copy for all of a session's subscriptions that match, at the highest QoS, with all their identifiers
    /// [MQTT-3.3.4-2], [MQTT-3.3.4-3].
    fn merge(session: Arc<Session>, same: &[Subscriber]) -> Self {
        let identifiers: Vec<NonZeroU32> = same.iter().filter_map(|s| NonZeroU32::new(s.identifier)).collect();
        Self {
            session,
            qos: same.iter().map(|s| s.qos).max().unwrap_or_default(),
            retain_as_published: same.iter().any(|s| s.retain_as_published),
            no_local: same.iter().all(|s| s.no_local),
            identifiers: (!identifiers.is_empty()).then(|| ThinArc::from_header_and_slice((), &identifiers)),
            group: 0,
        }
    }

    /// Whether `publisher` is not to get it, because it is its own.
    pub(crate) fn is_own(&self, publisher: u32) -> bool {
        self.no_local && publisher == self.session.id
    }
}
