//! Links that held reads and streams of this gateway hold, so that `/ack` works beside them.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use waystation_broker::{ClientId, Link};

/// A link that its reader and an acknowledgement share. Locked for the length of one call, never over an await.
pub(crate) type Held = Arc<Mutex<Link>>;

/// Who reads which session now. As large as the number of reads that are open.
#[derive(Default)]
pub(crate) struct Readers(Arc<Mutex<HashMap<ClientId, Weak<Mutex<Link>>>>>);

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
    readers: Arc<Mutex<HashMap<ClientId, Weak<Mutex<Link>>>>>,
    session: ClientId,
    link: Weak<Mutex<Link>>,
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
