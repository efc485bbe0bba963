//! Publishing for HTTP: an outcome only once it is as safe as its QoS promises.

use crate::{conditional::id_text, identity::Who, problem::Problem, receipt::Published, state::App};
use waystation_broker::{Lsn, Outcome, Publish, Publisher, Qos, Receipt};

/// A burst on its way: stage any number, then [`Burst::finish`].
pub(crate) struct Burst {
    app: App,
    publisher: Publisher,
    receipts: Vec<Receipt>,
    /// By token: what was staged, or why not.
    results: Vec<Result<Published, Problem>>,
    must_sync: bool,
}

impl Burst {
    pub(crate) fn new(app: &App, who: &Who) -> Self {
        let publisher = app.broker.publisher(&app.gateway, who.principal.clone(), None);
        Self { app: app.clone(), publisher, receipts: Vec::new(), results: Vec::new(), must_sync: false }
    }

    /// Whether the broker takes more now.
    pub(crate) fn has_room(&self) -> bool {
        self.publisher.has_room()
    }

    /// How many results wait for [`Burst::finish`].
    pub(crate) fn len(&self) -> usize {
        self.results.len()
    }

    /// Puts a message in, or the reason why there is none.
    pub(crate) fn stage(&mut self, message: Result<Publish<'_>, Problem>) {
        let token = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        let result = message.and_then(|message| {
            let published = Published {
                id: String::new(),
                topic: message.topic.as_str().to_owned(),
                qos: message.qos as u8,
                retain: message.retain,
                matched: 0,
                replayed: false,
            };
            let must_sync = message.qos != Qos::AtMostOnce || message.retain || message.idempotency.is_some();
            self.publisher.stage(message, token)?;
            self.must_sync |= must_sync;
            Ok(published)
        });
        self.results.push(result);
    }

    /// Routes what was staged, waits until it is safe, and gives one result a message, in order.
    pub(crate) async fn finish(&mut self) -> Vec<Result<Published, Problem>> {
        let lsn = self.flush();
        if self.must_sync {
            self.app.broker.durable(lsn).await;
        }
        self.must_sync = false;
        std::mem::take(&mut self.results)
    }

    fn flush(&mut self) -> Lsn {
        self.receipts.clear();
        let lsn = self.publisher.flush(&mut self.receipts);
        for receipt in &self.receipts {
            let Some(slot) = usize::try_from(receipt.token).ok().and_then(|token| self.results.get_mut(token)) else {
                continue;
            };
            let Ok(published) = slot else { continue };
            match receipt.outcome {
                Outcome::Accepted { matched, id } | Outcome::Repeated { matched, id } => {
                    published.matched = matched;
                    published.id = id_text(id);
                    published.replayed = matches!(receipt.outcome, Outcome::Repeated { .. });
                }
                refused => *slot = Err(problem(refused)),
            }
        }
        // A message without receipt is one that nobody took.
        for slot in &mut self.results {
            if slot.as_ref().is_ok_and(|published| published.id.is_empty()) {
                *slot = Err(Problem::Stopping);
            }
        }
        lsn
    }
}

fn problem(outcome: Outcome) -> Problem {
    match outcome {
        Outcome::QuotaExceeded => {
            Problem::QuotaExceeded("a queue that refuses is full, or the retained limits are reached".into())
        }
        Outcome::StoreUnavailable => Problem::StoreFull,
        Outcome::ConditionFailed { current } => Problem::PreconditionFailed(current),
        Outcome::KeyReused => Problem::KeyReused,
        // None of these refuses: HTTP publications carry no packet identifier.
        Outcome::Accepted { .. } | Outcome::Repeated { .. } | Outcome::Duplicate => Problem::Internal,
    }
}
