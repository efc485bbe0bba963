//! One single-threaded runtime a core: where fast connections live and die.

use std::future::Future;

/// A handle on the loops. Cheap to clone.
#[derive(Clone)]
pub struct Loops {}

impl Loops {
    /// Starts one thread per core this process may use.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start() -> std::io::Result<Self> {
        todo!()
    }

    /// How many loops there are.
    #[must_use]
    pub fn count(&self) -> usize {
        todo!()
    }

    /// Makes and runs a future on the least busy loop. `make` runs there, so that what it registers (sockets) belongs
    /// to that loop; the future need not be `Send`.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, _make: impl FnOnce() -> F + Send + 'static) {
        todo!()
    }
}
