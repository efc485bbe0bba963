//! What a front-end is made of: the [`Gateway`] trait and its host's side, the loops that fast connections run on,
//! server TLS, and the contract tests every gateway runs.

pub mod accept;
pub mod buffers;
pub mod complaints;
#[doc(hidden)]
pub mod contract;
pub mod dead;
pub mod gateway;
pub mod held;
pub mod loops;
pub mod names;
pub mod registry;
pub mod tls;
pub mod wheel;
pub mod words;

pub use accept::{Acceptor, Listener};
pub use complaints::Complaints;
pub use gateway::{
    BindError, Command, Context, Control, EnableError, Gateway, GatewayStatus, Host, InvalidConfig, Remote,
    RemoteStatus, ServeError,
};
pub use loops::Loops;
pub use registry::{Bound, Kind, Listen, Registry, Running};
pub use tls::{Tls, TlsFiles, UseIdentity};
pub use wheel::Timer;
