//! Small named documents that the server's own parts keep: what was set over an interface and must survive a restart.

use crate::{
    broker::Broker,
    link::Lsn,
    store::{Record, StoreUnavailable},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Documents by kind and name. Clients do not reach them; whoever keeps some bounds their number and size.
#[derive(Debug, Default)]
pub(crate) struct Documents(BTreeMap<(Box<str>, Box<str>), Bytes>);

impl Documents {
    pub(crate) fn set(&mut self, kind: Box<str>, name: Box<str>, document: Option<Bytes>) {
        match document {
            Some(document) => drop(self.0.insert((kind, name), document)),
            None => drop(self.0.remove(&(kind, name))),
        }
    }
}

impl Broker {
    /// Keeps a document under a kind and a name in place of the one before; `None` keeps it no longer. It is there
    /// after a restart once the position is durable, where the store keeps anything.
    ///
    /// # Errors
    /// The store cannot write; nothing has changed.
    pub fn keep(&self, kind: &str, name: &str, document: Option<Bytes>) -> Result<Lsn, StoreUnavailable> {
        // Held while it is appended: the order in the journal is the order here.
        let mut documents = self.0.documents.lock();
        let lsn = if self.0.store.keeps() {
            let record = Record::Kept { kind: kind.into(), name: name.into(), document: document.clone() };
            self.0.store.append(&mut vec![record])?
        } else {
            Lsn::default()
        };
        documents.set(kind.into(), name.into(), document);
        Ok(lsn)
    }

    /// What names this server to other servers: a number made once and kept.
    #[must_use]
    pub fn identity(&self) -> String {
        const KIND: &str = "server";
        let kept = self.kept(KIND).into_iter().next();
        if let Some(identity) = kept.and_then(|(_, document)| String::from_utf8(document.to_vec()).ok()) {
            return identity;
        }
        let identity = format!("{:016x}", fastrand::u64(..));
        if self.keep(KIND, "identity", Some(identity.clone().into())).is_err() {
            // It counts until the end of the process, as soon as the store writes again.
            self.0.documents.lock().set(KIND.into(), "identity".into(), Some(identity.clone().into()));
        }
        identity
    }

    /// All documents of a kind with their names, in the order of the names.
    #[must_use]
    pub fn kept(&self, kind: &str) -> Vec<(Box<str>, Bytes)> {
        let documents = self.0.documents.lock();
        let of_kind = documents.0.range((kind.into(), "".into())..).take_while(|((other, _), _)| &**other == kind);
        of_kind.map(|((_, name), document)| (name.clone(), document.clone())).collect()
    }
}
