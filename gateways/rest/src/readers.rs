//! Links that held reads and streams of this gateway hold, so that `/ack` works beside them.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::sync::Notify;
use waystation_broker::{ClientId, Link};

/// A link that its reader and an acknowledgement share.
pub(crate) type Held = Arc<Shared>;

/// See [`Held`].
pub(crate) struct Shared {
    link: Mutex<Link>,
    nudge: Notify,
}

impl Shared {
    pub(crate) fn new(link: Link) -> Held {
        Arc::new(Self { link: Mutex::new(link), nudge: Notify::new() })
    }

    /// For the length of one call, never over an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock()
    }

    /// The reader is to look again: a link wakes its holder for what others do, not for calls on the link itself.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Completes after a nudge. Cancel-safe.
    pub(crate) async fn nudged(&self) {
        self.nudge.notified().await;
    }
}

/// Who reads which session now. As large as the number of reads that are open.
#[derive(Default)]
pub(crate) struct Readers(Arc<Mutex<HashMap<ClientId, Weak<Shared>>>>);

impl Readers {
    /// Notes a reader, until the guard is dropped. Of two the newest is the one to find.
    pub(crate) fn note(&self, session: &ClientId, link: &Held) -> Noted {
        self.0.lock().insert(session.clone(), Arc::downgrade(link));
        Noted { readers: Arc::clone(&self.0), session: session.clone(), link: Arc::downgrade(link) }
    }

    /// The link of the session's reader, if there is one.
    pub(crate) fn find(&self, session: &ClientId) -> Option<Held> {
        self.0.lock().get(session)?.upgrade()
    }
}

/// Takes the note back when dropped.
pub(crate) struct Noted {
    readers: Arc<Mutex<HashMap<ClientId, Weak<Shared>>>>,
    session: ClientId,
    link: Weak<Shared>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut readers = self.readers.lock();
        // A newer reader's note stays.
        if readers.get(&self.session).is_some_and(|noted| noted.ptr_eq(&self.link)) {
            readers.remove(&self.session);
        }
    }
}
