//! Subscriptions of a session, and the scans through the retained messages that they begin.

use super::{Link, Lsn, Refused, RetainHandling, Subscription};
use crate::{
    message::Qos,
    router::trie::Subscriber,
    session::{rare::Scan, signal::DELIVERABLE},
    store::{Record, Standing},
    topic::Filter,
};
use std::num::NonZeroU32;

impl Link {
    /// Adds or replaces subscriptions; one result each, in order, appended to `granted`. Retained messages come
    /// through `take`. Hold SUBACK until the position is durable.
    pub fn subscribe(&mut self, wanted: &[Subscription], granted: &mut Vec<Result<Qos, Refused>>) -> Lsn {
        let mut records = Vec::new();
        for subscription in wanted {
            granted.push(self.subscribe_one(subscription, &mut records));
        }
        self.core.note(&mut records)
    }

    fn subscribe_one(&mut self, wanted: &Subscription, records: &mut Vec<Record>) -> Result<Qos, Refused> {
        let limits = &self.core.budget.limits;
        let filter = &wanted.filter;
        if filter.group().is_some() && !limits.shared_subscriptions {
            return Err(Refused::SharedNotSupported);
        }
        if filter.has_wildcard() && !limits.wildcard_subscriptions {
            return Err(Refused::WildcardsNotSupported);
        }
        if filter.levels() > limits.max_topic_levels {
            return Err(Refused::TooManyLevels);
        }
        if !self.core.rights.may_subscribe(self.principal(), self.client_id(), filter) {
            return Err(Refused::NotAuthorized);
        }
        if self.kept() && self.core.store.standing() == Standing::Exhausted {
            return Err(Refused::QuotaExceeded);
        }
        let qos = wanted.qos.min(Qos::from_u8(limits.max_qos).unwrap_or(Qos::ExactlyOnce));
        let subscription = Subscription { qos, ..wanted.clone() };
        let Some(mut state) = self.state() else { return Err(Refused::Fenced) };
        let place = state.subscriptions.binary_search_by(|s| s.filter.cmp(filter));
        let is_new = match place {
            Ok(at) => {
                state.subscriptions[at] = subscription.clone();
                false
            }
            Err(_) if state.subscriptions.len() >= limits.max_subscriptions as usize => {
                return Err(Refused::QuotaExceeded);
            }
            Err(at) => {
                if state.subscriptions.is_empty() {
                    // Most clients have one.
                    state.subscriptions.reserve_exact(1);
                }
                state.subscriptions.insert(at, subscription.clone());
                true
            }
        };
        let subscriber = Subscriber {
            session: self.session.id,
            identifier: wanted.identifier.map_or(0, NonZeroU32::get),
            qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
        };
        self.core.router.subscribe(filter, subscriber);
        if self.kept() {
            records.push(Record::Subscribed(self.session.key, subscription.clone()));
        }
        let replay = match wanted.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // A shared subscription begins without what is retained (§4.8.2).
        if replay && filter.group().is_none() {
            let since = self.core.clock.now();
            // A scan of the same filter under way begins anew.
            state.seldom.change(|seldom| {
                seldom.scans.retain(|scan| scan.subscription.filter != *filter);
                seldom.scans.push_back(Scan { subscription, after: None, since });
            });
            self.signal.note(DELIVERABLE);
        }
        Ok(qos)
    }

    /// Ends subscriptions; whether each existed is appended to `existed`.
    pub fn unsubscribe(&mut self, filters: &[Filter], existed: &mut Vec<bool>) -> Lsn {
        let mut records = Vec::new();
        for filter in filters {
            let found = self.state().is_some_and(|mut state| {
                let place = state.subscriptions.binary_search_by(|s| s.filter.cmp(filter));
                if let Ok(at) = place {
                    state.subscriptions.remove(at);
                    if !state.seldom.scans.is_empty() {
                        state.seldom.change(|seldom| {
                            seldom.scans.retain(|scan| scan.subscription.filter != *filter);
                        });
                    }
                    self.core.router.unsubscribe(filter, self.session.id);
                }
                place.is_ok()
            });
            if found && self.kept() {
                records.push(Record::Unsubscribed(self.session.key, filter.clone()));
            }
            existed.push(found);
        }
        self.core.note(&mut records)
    }

    /// The session's subscriptions, in the order of their filters.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.session.state.lock().subscriptions.clone()
    }
}
