//! Answers that are kept: a publication that comes with a key of its own is made once, however often it is asked for.

use crate::{
    clock::Time,
    link::Lsn,
    message::MessageId,
    store::{Lapsed, Record},
};
use hashbrown::HashMap;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// How long a repeat is answered as the first was.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Answers kept at a time; past it a publication with a new key is refused with "quota exceeded" until old ones lapse.
const MOST: usize = 1_000_000;

/// What makes a publication repeatable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the publisher; means nothing to other users. The road bounds its length.
    pub key: Box<str>,
    /// A digest of the request, the same in every release: the same key with another request is a mistake.
    pub request: [u8; 32],
}

/// The answer to a publication with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked; `None` is everybody without a name.
    pub user: Option<Box<str>>,
    /// The key and the request it came with.
    pub idempotency: Idempotency,
    /// What was published.
    pub id: MessageId,
    /// Sessions that matched then.
    pub matched: u32,
    /// When it lapses.
    pub until: Time,
}

/// Whose key.
type Scope = (Option<Box<str>>, Box<str>);

/// The answers of the last ten minutes.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    kept: HashMap<Arc<Scope>, Kept>,
    /// In the order in which they lapse.
    order: VecDeque<(Time, Arc<Scope>)>,
}

#[derive(Debug)]
struct Kept {
    request: [u8; 32],
    id: MessageId,
    matched: u32,
    /// The answer holds once this is durable; a repeat waits for it as the first does.
    lsn: Lsn,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: publish.
    New,
    /// It was answered like this.
    Answered { id: MessageId, matched: u32, lsn: Lsn },
    /// It was used for another request.
    Other,
    /// Nothing, and no more can be kept.
    Full,
}

impl Answers {
    /// Looks a key up, after forgetting what lapsed; the store is told of that by `records`.
    pub(crate) fn look(
        &mut self,
        user: Option<&str>,
        asked: &Idempotency,
        now: Time,
        records: &mut Vec<Record>,
    ) -> Known {
        while let Some((_, scope)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.kept.remove(&scope);
            records.push(Record::Lapsed(Box::new(Lapsed { user: scope.0.clone(), key: scope.1.clone() })));
        }
        match self.kept.get(&(user.map(Into::into), asked.key.clone())) {
            Some(kept) if kept.request != asked.request => Known::Other,
            Some(kept) => Known::Answered { id: kept.id, matched: kept.matched, lsn: kept.lsn },
            None if self.kept.len() >= MOST => Known::Full,
            None => Known::New,
        }
    }

    /// Keeps the answer to a new key until [`Answers::journaled`] or [`Answers::take_back`] says how it went.
    pub(crate) fn keep(
        &mut self,
        user: Option<&str>,
        asked: &Idempotency,
        id: MessageId,
        now: Time,
        matched: u32,
    ) -> Answer {
        let until = now.after(KEPT_FOR);
        let answer = Answer { user: user.map(Into::into), idempotency: asked.clone(), id, matched, until };
        self.restore(answer.clone());
        answer
    }

    /// Puts in an answer that the store kept.
    pub(crate) fn restore(&mut self, answer: Answer) {
        let Answer { user, idempotency: Idempotency { key, request }, id, matched, until } = answer;
        let scope = Arc::new((user, key));
        self.kept.insert(scope.clone(), Kept { request, id, matched, lsn: Lsn::default() });
        self.order.push_back((until, scope));
    }

    /// The answer is in the journal.
    pub(crate) fn journaled(&mut self, answer: &Answer, lsn: Lsn) {
        if let Some(kept) = self.kept.get_mut(&(answer.user.clone(), answer.idempotency.key.clone())) {
            kept.lsn = lsn;
        }
    }

    /// The publication failed after all: errors are not kept.
    pub(crate) fn take_back(&mut self, answer: &Answer) {
        let scope = (answer.user.clone(), answer.idempotency.key.clone());
        self.kept.remove(&scope);
        // It is among the newest.
        if let Some(at) = self.order.iter().rposition(|(_, kept)| **kept == scope) {
            self.order.remove(at);
        }
    }

    /// What the store says has lapsed.
    pub(crate) fn forget(&mut self, lapsed: Lapsed) {
        let scope = (lapsed.user, lapsed.key);
        self.kept.remove(&scope);
        self.order.retain(|(_, kept)| **kept != scope);
    }
}
