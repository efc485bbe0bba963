//! What every gateway promises its host, as tests. A gateway describes itself once as a [`Subject`] and calls
//! [`holds`] from its own tests.

use crate::{
    gateway::{BindError, Context, EnableError, Gateway, GatewayStatus, Host},
    loops::Loops,
    registry::{Bound, BoxFuture, Listen, Registry, Running},
};
use std::{any::Any, future::Future, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use waystation_broker::{Broker, Limits, Parts, SystemClock};

/// A drain's deadline in these tests; far above what a gateway should need.
const DEADLINE: Duration = Duration::from_secs(4);

/// A gateway under test.
pub trait Subject {
    /// The gateway.
    type Gateway: Gateway;

    /// A table that listens there, and nowhere else.
    fn config(listen: Listen) -> <Self::Gateway as Gateway>::Config;

    /// A client that is connected and stays so until it is dropped.
    fn client(address: SocketAddr) -> impl Future<Output = Box<dyn Any>>;

    /// Whether the client has noticed that it was sent away (waits for it).
    fn is_gone(client: Box<dyn Any>) -> impl Future<Output = bool>;
}

/// Runs all contract tests.
///
/// # Panics
/// Where the gateway breaks the contract.
#[expect(clippy::panic, reason = "this is a test that other crates run")]
pub async fn holds<S: Subject>() {
    let scene = Scene::new(S::Gateway::KIND);
    scene.run::<S>().await.unwrap_or_else(|broken| panic!("{}: {broken}", S::Gateway::KIND));
    scene.cx.loops.shutdown();
}

/// A gateway's surroundings, for tests of its own.
pub struct Scene {
    /// What the gateway is given.
    pub cx: Context,
}

impl Scene {
    /// An empty broker that lets everybody in, and one loop.
    ///
    /// # Panics
    /// The system has no thread left.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let broker = Broker::new(Parts::in_memory(Limits::default(), Arc::new(SystemClock::default())));
        Self::with_broker(name, broker)
    }

    /// The same with a broker of one's own.
    ///
    /// # Panics
    /// The system has no thread left.
    #[must_use]
    pub fn with_broker(name: &str, broker: Broker) -> Self {
        let loops = Loops::with_count(NonZeroUsize::MIN).expect("tests can start a thread");
        Self { cx: Context { name: name.into(), broker, loops, host: Arc::new(NoHost) } }
    }

    async fn run<S: Subject>(&self) -> Result<(), String> {
        self.drains_without_clients::<S>().await?;
        self.drains_with_a_client::<S>().await?;
        self.is_reloaded::<S>().await?;
        self.names_a_port_in_use::<S>().await
    }

    async fn drains_without_clients<S: Subject>(&self) -> Result<(), String> {
        let running = self.bind::<S>(any_port()).await.map_err(|error| error.to_string())?.start();
        drained(running).await
    }

    async fn drains_with_a_client<S: Subject>(&self) -> Result<(), String> {
        let (running, address) = self.serving::<S>().await?;
        let client = S::client(address).await;
        drained(running).await?;
        match timeout(DEADLINE, S::is_gone(client)).await {
            Ok(true) => Ok(()),
            _ => Err("its client is still connected after the drain".into()),
        }
    }

    async fn is_reloaded<S: Subject>(&self) -> Result<(), String> {
        let (running, address) = self.serving::<S>().await?;
        let client = S::client(address).await;
        running.reload(table::<S>(any_port())?).await.map_err(|error| format!("reload is refused: {error}"))?;
        // The listener it has stays; both an old and a new client are served.
        let newcomer = S::client(address).await;
        drained(running).await?;
        drop((client, newcomer));
        Ok(())
    }

    async fn names_a_port_in_use<S: Subject>(&self) -> Result<(), String> {
        let first = self.bind::<S>(any_port()).await.map_err(|error| error.to_string())?;
        let (_, address) = first.listening().first().cloned().ok_or("it names no address")?;
        let Err(error) = self.bind::<S>(Listen(vec![address])).await else {
            return Err("a second bind to the same port succeeds".into());
        };
        let message = error.to_string();
        let key = format!("gateways.{}", self.cx.name);
        if message.contains(&key) && message.contains(&address.to_string()) {
            return Ok(());
        }
        Err(format!("the error names not both {key} and {address}: {message}"))
    }

    async fn serving<S: Subject>(&self) -> Result<(Running, SocketAddr), String> {
        let bound = self.bind::<S>(any_port()).await.map_err(|error| error.to_string())?;
        let listening = bound.listening();
        let [(name, address)] = listening.as_slice() else { return Err(format!("it listens on {listening:?}")) };
        if !name.starts_with(S::Gateway::KIND) {
            return Err(format!("its ready-line name {name} does not begin with its kind"));
        }
        if address.port() == 0 {
            return Err("port 0 is shown as it was asked for".into());
        }
        Ok((bound.start(), *address))
    }

    async fn bind<S: Subject>(&self, listen: Listen) -> Result<Box<dyn Bound>, BindError> {
        let other = |why: String| BindError::Other { key: format!("gateways.{}", self.cx.name), why };
        let registry = Registry::default().with::<S::Gateway>();
        let kind = registry.kind(S::Gateway::KIND).ok_or_else(|| other("is not in its registry".into()))?;
        kind.bind(table::<S>(listen).map_err(other)?, self.cx.clone()).await
    }
}

async fn drained(running: Running) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    running.drain(deadline).await;
    match timeout(DEADLINE + Duration::from_secs(1), running.task).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(format!("it fails while draining: {error}")),
        Ok(Err(error)) => Err(format!("it panics while draining: {error}")),
        Err(_) => Err("it is not done by its deadline".into()),
    }
}

fn table<S: Subject>(listen: Listen) -> Result<toml::Table, String> {
    toml::Table::try_from(S::config(listen)).map_err(|error| format!("its table cannot be written: {error}"))
}

fn any_port() -> Listen {
    Listen(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
}

/// A host with nothing to tell.
#[derive(Debug)]
pub struct NoHost;

impl Host for NoHost {
    fn gateways(&self) -> Vec<GatewayStatus> {
        Vec::new()
    }

    fn enable<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<(), EnableError>> {
        Box::pin(std::future::ready(Err(EnableError::Unknown)))
    }

    fn introduce(&self, _: Arc<dyn crate::Remote>) {}

    fn remotes(&self) -> Vec<crate::RemoteStatus> {
        Vec::new()
    }
}
