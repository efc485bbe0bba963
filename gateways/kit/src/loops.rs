//! One single-threaded runtime a core: where fast connections live and die.
//!
//! A future made on a loop stays there: its socket, its timers ([`crate::wheel`]) and the buffers it borrows
//! ([`crate::buffers`]) belong to that thread, so nothing of it needs a lock.

use crate::wheel;
use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
};

/// A handle on the loops. Cheap to clone; the loops run until [`Loops::shutdown`] or until the last handle is gone.
#[derive(Clone)]
pub struct Loops(Arc<[Loop]>);

struct Loop {
    /// Unbounded, but what is sent are accepted connections, which `limits.max_connections` and the system's
    /// descriptors bound.
    jobs: mpsc::UnboundedSender<Word>,
    /// Futures that were given to this loop and have not ended.
    load: Arc<AtomicUsize>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

enum Word {
    Run(Box<dyn FnOnce() + Send>),
    Stop,
}

impl Loops {
    /// Starts one thread per core this process may use.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start() -> io::Result<Self> {
        Self::with_count(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// Starts this many loops.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn with_count(count: NonZeroUsize) -> io::Result<Self> {
        (0..count.get()).map(Loop::start).collect::<io::Result<Vec<_>>>().map(|loops| Self(loops.into()))
    }

    /// How many loops there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Futures that run on the loops now, all loops together.
    #[must_use]
    pub fn load(&self) -> usize {
        self.0.iter().map(|it| it.load.load(Ordering::Relaxed)).sum()
    }

    /// Makes and runs a future on the least busy loop. `make` runs there, so that what it registers (sockets) belongs
    /// to that loop; the future need not be `Send`. `None`: there is nothing to run after all. After
    /// [`Loops::shutdown`] it is dropped unmade.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, make: impl FnOnce() -> Option<F> + Send + 'static) {
        let Some(least) = self.0.iter().min_by_key(|it| it.load.load(Ordering::Relaxed)) else { return };
        least.spawn(make);
    }

    /// Ends every loop: what still runs is dropped where it stands. Returns when the threads are gone; called from a
    /// loop, that loop ends after it returns to it.
    pub fn shutdown(&self) {
        for it in self.0.iter() {
            // A loop that is gone needs no telling.
            drop(it.jobs.send(Word::Stop));
        }
        for it in self.0.iter() {
            let thread = it.thread.lock().ok().and_then(|mut thread| thread.take());
            // A thread that joins itself would wait for ever.
            let elsewhere = thread.filter(|it| it.thread().id() != std::thread::current().id());
            if elsewhere.is_some_and(|it| it.join().is_err()) {
                tracing::error!("a loop ended by panic");
            }
        }
    }
}

impl Loop {
    fn start(index: usize) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("loop-{index}")).spawn(move || run(inbox, &ready))?;
        // The runtime is made on its own thread; its error comes back here.
        started.recv().map_err(|_| io::Error::other("a loop ended before it started"))??;
        Ok(Self { jobs, load: Arc::default(), thread: std::sync::Mutex::new(Some(thread)) })
    }

    fn spawn<F: Future<Output = ()> + 'static>(&self, make: impl FnOnce() -> Option<F> + Send + 'static) {
        let load = Load::new(&self.load);
        let job = move || {
            if let Some(future) = make() {
                // An async block around it would hold the future, and what made it, side by side: an idle connection
                // would cost half as much again.
                tokio::task::spawn_local(Counted { future, _load: load });
            }
        };
        // Fails only after `shutdown`, when nothing is to start any more.
        drop(self.jobs.send(Word::Run(Box::new(job))));
    }
}

fn run(mut inbox: mpsc::UnboundedReceiver<Word>, ready: &std::sync::mpsc::Sender<io::Result<()>>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            // `start` waits for this answer.
            drop(ready.send(Err(error)));
            return;
        }
    };
    drop(ready.send(Ok(())));
    runtime.block_on(async move {
        let ticking = tokio::task::spawn_local(wheel::turn());
        while let Some(Word::Run(job)) = inbox.recv().await {
            job();
        }
        ticking.abort();
    });
}

pin_project_lite::pin_project! {
    /// A future that counts as long as it lives.
    struct Counted<F> {
        #[pin]
        future: F,
        _load: Load,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
    }
}

/// Counts one running future, by its life.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, rc::Rc, sync::mpsc::channel, thread::ThreadId};

    fn two() -> Loops {
        Loops::with_count(NonZeroUsize::new(2).unwrap()).unwrap()
    }

    #[test]
    fn futures_that_are_not_send_are_spread_over_the_loops() {
        let loops = two();
        let (sender, receiver) = channel::<ThreadId>();
        for _ in 0..4 {
            let sender = sender.clone();
            loops.spawn(move || {
                let local = Rc::new(std::thread::current().id());
                Some(async move {
                    sender.send(*local).unwrap();
                    std::future::pending::<()>().await;
                })
            });
        }
        let threads: Vec<ThreadId> = receiver.iter().take(4).collect();
        assert_eq!(threads.iter().collect::<HashSet<_>>().len(), 2);
        assert_eq!(loops.load(), 4);
        loops.shutdown();
        assert_eq!(loops.load(), 0);
    }

    #[test]
    fn a_loop_whose_futures_ended_is_the_least_busy_one() {
        let loops = two();
        let (sender, receiver) = channel::<()>();
        loops.spawn(|| Some(std::future::pending::<()>()));
        loops.spawn(move || Some(async move { drop(sender) }));
        assert!(receiver.recv().is_err());
        loops.spawn(|| Some(std::future::pending::<()>()));
        let loads: Vec<_> = loops.0.iter().map(|it| it.load.load(Ordering::Relaxed)).collect();
        // The sender is dropped before the future's own count, hence the 2.
        assert!(loads == [1, 1] || loads == [2, 1] || loads == [1, 2], "{loads:?}");
        loops.shutdown();
    }

    #[test]
    fn shutdown_drops_what_runs_and_refuses_what_comes_later() {
        let loops = two();
        let (sender, receiver) = channel::<()>();
        let kept = sender.clone();
        loops.spawn(move || {
            Some(async move {
                let _kept = kept;
                std::future::pending::<()>().await;
            })
        });
        loops.shutdown();
        loops.spawn(move || Some(async move { drop(sender) }));
        assert!(receiver.recv().is_err(), "both senders are gone");
    }
}
