//! Which kinds of gateway a binary knows, and a gateway with its type erased.

use crate::gateway::{BindError, Command, Context, Control, Gateway, InvalidConfig, ServeError};
use serde::Serialize;
use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::{sync::mpsc, time::Instant};
use waystation_broker::Broker;

/// Which kinds this binary knows: `Registry::default().with::<Mqtt>().with::<MqttSn>()`.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, Box<dyn Kind>>);

impl Registry {
    /// Adds a kind.
    #[must_use]
    pub fn with<G: Gateway>(mut self) -> Self {
        self.0.insert(G::KIND, Box::new(KindOf::<G>(std::marker::PhantomData)));
        self
    }

    /// The names of all kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// A kind by its name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&dyn Kind> {
        self.0.get(name).map(AsRef::as_ref)
    }
}

/// A future as trait objects give it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Gateway`], erased: what the host needs to read, bind and run any kind.
pub trait Kind: Send + Sync {
    /// The kind's name.
    fn name(&self) -> &'static str;

    /// Whether there may be any number of them.
    fn is_plural(&self) -> bool;

    /// Of a plural kind: what gateways that are none of `names` have left in the core goes.
    fn forget_others(&self, broker: &Broker, names: &[Arc<str>]);

    /// Reads and checks a table and gives it back with every default filled in.
    ///
    /// # Errors
    /// The offending key, relative to the table.
    fn check(&self, table: toml::Table) -> Result<toml::Table, InvalidConfig>;

    /// Of a plural kind: checks a table beside those before it. All of them were checked.
    ///
    /// # Errors
    /// The offending key, relative to the table.
    fn check_beside(&self, table: toml::Table, before: Vec<toml::Table>) -> Result<(), InvalidConfig>;

    /// Reads the files that a table names.
    ///
    /// # Errors
    /// The offending key, relative to the table.
    fn look(&self, table: toml::Table) -> Result<(), InvalidConfig>;

    /// Binds a gateway.
    fn bind(&self, table: toml::Table, cx: Context) -> BoxFuture<'_, Result<Box<dyn Bound>, BindError>>;
}

/// A gateway that is bound and not yet serving.
pub trait Bound: Send {
    /// What was bound.
    fn listening(&self) -> Vec<(String, SocketAddr)>;

    /// Starts serving on the current runtime.
    fn start(self: Box<Self>) -> Running;
}

/// A gateway that serves.
pub struct Running {
    /// Ends when the gateway does.
    pub task: tokio::task::JoinHandle<Result<(), ServeError>>,
    words: Box<dyn Words>,
}

impl Running {
    /// Tells it to take leave of its clients and be done by `deadline`.
    pub async fn drain(&self, deadline: Instant) {
        self.words.drain(deadline).await;
    }

    /// Gives it its table anew.
    ///
    /// # Errors
    /// The table is wrong; the gateway keeps the old one.
    pub async fn reload(&self, table: toml::Table) -> Result<(), InvalidConfig> {
        self.words.reload(table).await
    }
}

trait Words: Send + Sync {
    fn drain(&self, deadline: Instant) -> BoxFuture<'_, ()>;
    fn reload(&self, table: toml::Table) -> BoxFuture<'_, Result<(), InvalidConfig>>;
}

struct KindOf<G>(std::marker::PhantomData<fn() -> G>);

impl<G: Gateway> Kind for KindOf<G> {
    fn name(&self) -> &'static str {
        G::KIND
    }

    fn is_plural(&self) -> bool {
        G::PLURAL
    }

    fn forget_others(&self, broker: &Broker, names: &[Arc<str>]) {
        G::forget_others(broker, names);
    }

    fn check(&self, table: toml::Table) -> Result<toml::Table, InvalidConfig> {
        let config = read::<G>(table)?;
        toml::Table::try_from(&config)
            .map_err(|error| InvalidConfig { key: String::new(), why: format!("cannot be written as TOML: {error}") })
    }

    fn check_beside(&self, table: toml::Table, before: Vec<toml::Table>) -> Result<(), InvalidConfig> {
        let before = before.into_iter().map(read::<G>).collect::<Result<Vec<_>, _>>()?;
        G::check_beside(&read::<G>(table)?, &before)
    }

    fn look(&self, table: toml::Table) -> Result<(), InvalidConfig> {
        G::look(&read::<G>(table)?)
    }

    fn bind(&self, table: toml::Table, cx: Context) -> BoxFuture<'_, Result<Box<dyn Bound>, BindError>> {
        Box::pin(async move {
            let config = read::<G>(table).map_err(|InvalidConfig { key, why }| BindError::Other {
                key: format!("gateways.{}.{key}", cx.name),
                why,
            })?;
            Ok(Box::new(G::bind(config, cx).await?) as Box<dyn Bound>)
        })
    }
}

impl<G: Gateway> Bound for G {
    fn listening(&self) -> Vec<(String, SocketAddr)> {
        Gateway::listening(self)
    }

    fn start(self: Box<Self>) -> Running {
        let (sender, receiver) = mpsc::channel(4);
        let task = tokio::spawn((*self).serve(Control(receiver)));
        Running { task, words: Box::new(WordsTo::<G>(sender)) }
    }
}

struct WordsTo<G: Gateway>(mpsc::Sender<Command<G::Config>>);

impl<G: Gateway> Words for WordsTo<G> {
    fn drain(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        // A gateway that is gone has nothing left to drain.
        Box::pin(async move { drop(self.0.send(Command::Drain { deadline }).await) })
    }

    fn reload(&self, table: toml::Table) -> BoxFuture<'_, Result<(), InvalidConfig>> {
        Box::pin(async move {
            let config = read::<G>(table)?;
            drop(self.0.send(Command::Reload(config)).await);
            Ok(())
        })
    }
}

fn read<G: Gateway>(table: toml::Table) -> Result<G::Config, InvalidConfig> {
    let config: G::Config = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
        InvalidConfig { key: error.path().to_string(), why: error.inner().message().trim().to_owned() }
    })?;
    G::check(&config)?;
    Ok(config)
}

/// An address, or a list of them, as `listen` keys have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(pub Vec<SocketAddr>);

impl<'de> serde::Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Listen;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address such as \"127.0.0.1:1883\", or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Listen, E> {
                let address = text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Listen(vec![address]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Listen, A::Error> {
                let mut addresses = Vec::new();
                while let Some(address) = seq.next_element::<SocketAddr>()? {
                    addresses.push(address);
                }
                if addresses.is_empty() {
                    return Err(serde::de::Error::invalid_length(0, &self));
                }
                Ok(Listen(addresses))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [address] => address.serialize(serializer),
            addresses => addresses.serialize(serializer),
        }
    }
}
