//! Who speaks, and what they may: the two ports the host fills.

mod peer;
mod rights;

pub use peer::Peer;
pub(crate) use rights::{Policy, Rights};

use crate::{
    clock::Time,
    topic::{Filter, Topic},
};
use bytes::Bytes;
use std::{
    any::Any,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock},
};

/// The name of a session. A client id is the same client whatever road it comes by.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// A client's own id. Ids that begin with `$` are the server's own; [`crate::Broker::attach`] refuses them
    /// from peers. `None` for the empty id and for what is no MQTT string.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        (!id.is_empty() && id.len() <= 65_535 && !id.contains('\0')).then(|| Self(id.into()))
    }

    /// A fresh id for a client that brought none (MQTT 5.0 §3.1.3.1).
    #[must_use]
    pub fn assigned() -> Self {
        Self(format!("auto-{:032x}", fastrand::u128(..)).into())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a session of the server's own parts: those begin with `$`.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client shows to say who it is.
#[derive(Clone)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user name, and a password unless the protocol let it be left out.
    Password {
        /// The user name.
        user: String,
        /// The password; bytes, as MQTT has it.
        password: Option<Bytes>,
    },
    /// A bearer token.
    Token(String),
    /// A name the gateway vouches for: that of a verified certificate or pre-shared key, or the one its
    /// configuration gives this client.
    Vouched(String),
    /// Authenticated before, by [`crate::Broker::authenticate`].
    Known(Principal),
}

/// What an [`Authenticate`] port knows about one login beyond its name: rules a token brought, how it was proved. The
/// core carries it and never looks inside.
pub type Grant = Arc<dyn Any + Send + Sync>;

/// Somebody who was authenticated. Only an [`Authenticate`] port makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal(Arc<Identity>);

struct Identity {
    name: Name,
    expires: Option<Time>,
    grant: Option<Grant>,
}

#[derive(PartialEq, Eq)]
enum Name {
    Anonymous,
    User(Box<str>),
    Server,
}

impl Principal {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        // One for all: a hundred thousand anonymous clients need no hundred thousand names.
        static NOBODY: LazyLock<Principal> = LazyLock::new(|| Principal::new(Name::Anonymous, None));
        NOBODY.clone()
    }

    /// The server itself (`$SYS`), whose rights nobody asks for.
    #[must_use]
    pub fn server() -> Self {
        static SERVER: LazyLock<Principal> = LazyLock::new(|| Principal::new(Name::Server, None));
        SERVER.clone()
    }

    /// A user. The connection ends at `expires`, if set.
    #[must_use]
    pub fn user(name: &str, expires: Option<Time>) -> Self {
        Self::new(Name::User(name.into()), expires)
    }

    /// The same with what the port wants to find again when it is asked for rights.
    #[must_use]
    pub fn with_grant(self, grant: Grant) -> Self {
        let name = match &self.0.name {
            Name::Anonymous => Name::Anonymous,
            Name::User(name) => Name::User(name.clone()),
            Name::Server => Name::Server,
        };
        Self(Arc::new(Identity { name, expires: self.0.expires, grant: Some(grant) }))
    }

    fn new(name: Name, expires: Option<Time>) -> Self {
        Self(Arc::new(Identity { name, expires, grant: None }))
    }

    /// The user's name; `None` when anonymous.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0.name {
            Name::User(name) => Some(name),
            Name::Anonymous | Name::Server => None,
        }
    }

    /// Whether this is the server itself.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.0.name == Name::Server
    }

    /// When the right to be connected ends.
    #[must_use]
    pub fn expires(&self) -> Option<Time> {
        self.0.expires
    }

    /// What the port gave it at login.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.0.grant.as_ref()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let same_grant = match (&self.grant, &other.grant) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_grant && self.name == other.name && self.expires == other.expires
    }
}

impl Eq for Identity {}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0.name {
            Name::User(name) => name,
            Name::Anonymous => "anonymous",
            Name::Server => "server",
        })
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Publish to a topic.
    Publish(&'a Topic),
    /// Subscribe to a filter.
    Subscribe(&'a Filter),
    /// Be given a message on a topic, or read its state.
    Receive(&'a Topic),
    /// Run the place, from there.
    Admin(Peer),
    /// Make sessions that may refuse other people's messages, from there.
    Reject(Peer),
}

/// Why a client may not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong user name or password.
    #[error("wrong user name or password")]
    BadCredentials,
    /// Known, but not allowed.
    #[error("not authorized")]
    NotAuthorized,
    /// Passwords and tokens are taken over TLS only, and the way is not encrypted.
    #[error("passwords are taken over encrypted connections only (auth.require_tls)")]
    EncryptionRequired,
    /// The id begins with `$`, which are the server's own.
    #[error("the client id is not one a client may use")]
    InvalidClientId,
    /// `max_connections` or `max_connections_per_address` is reached.
    #[error("too many connections (limits.max_connections)")]
    ServerBusy,
    /// The server stops.
    #[error("the server is not able to take clients now")]
    ServerUnavailable,
    /// The store is down and cannot remember one more session that is to outlive its connection, or one more will.
    #[error("the store cannot keep the session now")]
    StoreUnavailable,
    /// [`crate::Start::Existing`], and there is no such session.
    #[error("there is no such session")]
    NoSession,
    /// [`crate::Takeover::SameGateway`], and another road holds the session.
    #[error("the session is held by a client of another gateway")]
    InUse,
    /// The will's topic may not be published to.
    #[error("the will topic may not be published to")]
    WillRefused,
}

/// Verifies credentials. May take its time (password hashes), hence a future.
pub trait Authenticate: Send + Sync {
    /// Who this is, or why not.
    fn authenticate<'a>(
        &'a self,
        who: &'a Credentials,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>>;

    /// Whether somebody who was let in earlier still would be. Asked for everybody connected after
    /// [`crate::Broker::policy_changed`].
    fn still_admits(&self, who: &Principal, peer: Peer) -> bool {
        let _ = (who, peer);
        true
    }

    /// Whether it makes a difference who somebody says to be: there are users, or tokens.
    fn knows_users(&self) -> bool {
        false
    }
}

/// Decides on rights; never asked about [`Principal::server`]. Asked once per topic and subscriber, then cached until [`crate::Broker::policy_changed`].
pub trait Authorize: Send + Sync {
    /// Whether `who`, speaking as `client` (`None`: no client id on this road), may do this.
    fn may(&self, who: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool;
}

/// Lets everybody in, anonymously, whatever name is shown. Everybody may publish and subscribe; running the place is
/// for those on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authenticate for AllowAll {
    fn authenticate<'a>(
        &'a self,
        _: &'a Credentials,
        _: Peer,
    ) -> Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(Principal::anonymous())))
    }
}

impl Authorize for AllowAll {
    fn may(&self, _: &Principal, _: Option<&ClientId>, action: Action<'_>) -> bool {
        match action {
            Action::Admin(peer) | Action::Reject(peer) => peer.is_local(),
            Action::Publish(_) | Action::Subscribe(_) | Action::Receive(_) => true,
        }
    }
}
