//! Bridges to other brokers: `[[gateways.bridge]]`.
//!
//! A bridge is a link on the session `$bridge/NAME`, in which what is to go out waits as in any session, and a
//! publisher for what comes in. It settles a message only when the far side has acknowledged it, and acknowledges one
//! only when the core has it safely.
//!
//! Packets are written and read by rumqttc; the conversation is our own (`pump`), since rumqttc's event loop takes no
//! stream of ours (TLS with one's own trust), flushes after each message, and forgets on a reconnect what of QoS 2 it
//! has received. The core remembers that for us, as it does the packet identifiers of what is under way.
//!
//! Pure: `config`, `route` topics and their prefixes, `loops` what must not come round again, `backoff`,
//! `remote` packets, `pump`. With a driver around them: `dial`, `work`, `gateway`.

mod backoff;
mod config;
mod dial;
mod figures;
mod gateway;
mod loops;
mod pump;
mod remote;
mod route;
mod settings;
mod url;
mod work;

pub use config::Config;
pub use gateway::Bridge;
