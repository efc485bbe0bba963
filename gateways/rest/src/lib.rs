//! The REST front-end: topics as resources, sessions read with a cursor, streams.
//!
//! It keeps no message state of its own. A publication is a [`waystation_broker::Publisher`] for the length of a
//! request; a read of a session takes the session over for the length of a call; held reads and streams without a
//! session are links on unnamed sessions; a webhook is a link on a session of its own. An answer leaves once what it
//! promises is durable.
//!
//! Where to look: `routes` has one file per resource, `front` what every request passes, `problem` every error,
//! `wire` and `cursor` what clients see, `webhook` what is pushed to them, `server` sockets and draining, `connection` and
//! `http1` what HTTP itself needs, `later` how a reader waits without all that.

mod body;
mod conditional;
mod config;
mod connection;
mod cursor;
mod dashboard;
mod farewell;
mod front;
mod head;
mod http1;
mod idempotency;
mod identity;
mod later;
mod line;
mod media;
mod metrics;
mod openapi;
mod page;
mod places;
mod problem;
mod publish;
mod push;
mod query;
mod readers;
mod receipt;
mod routes;
mod server;
mod state;
mod wait;
mod webhook;
mod wire;

pub use config::Config;
pub use server::Rest;
pub use webhook::Declaration as Webhook;
