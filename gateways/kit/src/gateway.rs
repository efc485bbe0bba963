//! The plug-in contract: [`Gateway`], what it is given ([`Context`]) and told ([`Control`]).

use crate::loops::Loops;
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::{sync::mpsc, time::Instant};
use waystation_broker::{Broker, Time};

/// A front-end. Three steps: the host reads its table, binds it, serves it.
pub trait Gateway: Sized + Send + 'static {
    /// Its table under `[gateways]`, its label in metrics, its name in the ready line.
    const KIND: &'static str;

    /// Whether there may be any number of them: `[[gateways.KIND]]`, each a gateway of its own, addressed by the `name` in
    /// its table.
    const PLURAL: bool = false;

    /// Its table: a default for every field, unknown fields refused. The host takes `enabled` out before.
    type Config: DeserializeOwned + Serialize + Default + Clone + Send + 'static;

    /// What the types cannot say about a table; looked at by `waystation check` too, before anything is bound.
    ///
    /// # Errors
    /// The offending key (relative to the table) and what would be right.
    fn check(config: &Self::Config) -> Result<(), InvalidConfig> {
        let _ = config;
        Ok(())
    }

    /// Of a plural kind: what a table does to those before it.
    ///
    /// # Errors
    /// The offending key (relative to the table) and what would be right.
    fn check_beside(config: &Self::Config, before: &[Self::Config]) -> Result<(), InvalidConfig> {
        let _ = (config, before);
        Ok(())
    }

    /// Reads the files a table names, as `bind` will; for `waystation check`, which binds nothing.
    ///
    /// # Errors
    /// The offending key (relative to the table), its file and what is wrong with it.
    fn look(config: &Self::Config) -> Result<(), InvalidConfig> {
        let _ = config;
        Ok(())
    }

    /// Opens everything that can fail to open; accepts nothing yet. Port 0 is honoured.
    fn bind(config: Self::Config, cx: Context) -> impl Future<Output = Result<Self, BindError>> + Send;

    /// Of a plural kind: `names` are all that the configuration has. What others have left in the core goes. Called
    /// before any is bound, and at each reload.
    fn forget_others(broker: &Broker, names: &[Arc<str>]) {
        let _ = (broker, names);
    }

    /// What was bound, by its name in the ready line (`mqtt`, `mqtt_tls`). Empty for a gateway that dials out.
    fn listening(&self) -> Vec<(String, SocketAddr)>;

    /// Serves until told to drain; returns when its last client is gone or the deadline has passed. Runs on the
    /// multi-thread runtime; connections that must be fast go to [`Context::loops`].
    fn serve(self, control: Control<Self::Config>) -> impl Future<Output = Result<(), ServeError>> + Send;
}

/// What a gateway gets from its host.
#[derive(Clone)]
pub struct Context {
    /// The gateway's name: its kind, or for bridges the name of its table.
    pub name: Arc<str>,
    /// The core.
    pub broker: Broker,
    /// One single-threaded runtime a core.
    pub loops: Loops,
    /// What only the host can do.
    pub host: Arc<dyn Host>,
}

/// What only the host can do; REST's `/v1/gateways` speaks to it.
pub trait Host: Send + Sync {
    /// All gateways of the configuration.
    fn gateways(&self) -> Vec<GatewayStatus>;

    /// Starts or stops a gateway while the rest runs.
    fn enable<'a>(
        &'a self,
        name: &'a str,
        on: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), EnableError>> + Send + 'a>>;

    /// A gateway that dials out shows itself, in place of what it was before it was switched off. It is listed as long as
    /// the configuration has it. Called once, from `bind`.
    fn introduce(&self, remote: Arc<dyn Remote>);

    /// What the gateways that dial out reach; `/v1/bridges` shows it.
    fn remotes(&self) -> Vec<RemoteStatus>;
}

/// A gateway's way to another server.
pub trait Remote: Send + Sync {
    /// How it stands now. Must be quick.
    fn status(&self) -> RemoteStatus;
}

/// How a gateway's way to another server stands.
#[derive(Debug, Clone)]
pub struct RemoteStatus {
    /// The gateway's name.
    pub name: Arc<str>,
    /// The other server, without secrets.
    pub url: String,
    /// Whether it is reached.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Time,
    /// What last went wrong; it stays when the other server is reached again.
    pub error: Option<String>,
    /// Messages that wait for the other side, those under way among them.
    pub queued: u64,
    /// Messages sent there that it has not acknowledged yet.
    pub in_flight: u64,
    /// Messages taken there.
    pub sent: u64,
    /// Messages taken from there.
    pub received: u64,
    /// Messages for the other side that were lost, all causes.
    pub dropped: u64,
    /// Messages that went with less than they asked for, since the other server can do no more: a lower QoS, or without
    /// the retain flag.
    pub reduced: u64,
}

/// A gateway as the host sees it.
#[derive(Debug, Clone)]
pub struct GatewayStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it serves.
    pub enabled: bool,
    /// What it has bound.
    pub listening: Vec<(String, SocketAddr)>,
}

/// The host's words to a running gateway, in order.
pub struct Control<C>(pub(crate) mpsc::Receiver<Command<C>>);

/// What the host says.
pub enum Command<C> {
    /// Stop accepting, take leave of clients, be done by the deadline.
    Drain {
        /// Past it the host waits no longer.
        deadline: Instant,
    },
    /// The table as it is now (SIGHUP). On error keep the old one and log why.
    Reload(C),
}

impl<C> Control<C> {
    /// The next word; a host that is gone means draining at once. Cancel-safe.
    pub async fn next(&mut self) -> Command<C> {
        self.0.recv().await.unwrap_or_else(|| Command::Drain { deadline: Instant::now() })
    }
}

/// A key whose value is well-formed and yet impossible.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct InvalidConfig {
    /// The key, relative to the gateway's table, dotted.
    pub key: String,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Why a gateway could not open what it needs.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address could not be bound.
    #[error("{}", bind_message(.key, *.address, .source))]
    Address {
        /// The full key, as `gateways.mqtt.listen`.
        key: String,
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else: a certificate, a file.
    #[error("{key}: {why}")]
    Other {
        /// The full key.
        key: String,
        /// What is wrong and what to do.
        why: String,
    },
}

fn bind_message(key: &str, address: SocketAddr, source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "port {} is in use ({key} = \"{address}\"); choose another or stop the other server",
            address.port()
        ),
        _ => format!("cannot listen on {address} ({key}): {source}"),
    }
}

/// Why a gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system refused something the gateway cannot go on without.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why a gateway could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EnableError {
    /// No such gateway.
    #[error("there is no gateway of this name")]
    Unknown,
    /// It could not open what it needs.
    #[error(transparent)]
    Bind(#[from] BindError),
}
