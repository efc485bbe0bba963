//! Webhooks: messages pushed to REST apps, each by a POST that the app answers.
//!
//! A webhook is a link on the session `$webhook/NAME`, so that what waits for it is as safe as in any session. One
//! request is under way at a time: order is kept, and a target that is down holds up nobody but itself. What cannot
//! be delivered becomes a dead letter in the session `$dead/NAME`.
//!
//! Pure: [`declaration`] what a webhook is, [`guard`] where it may go, [`letter`] what is sent, [`signature`],
//! [`schedule`] when again. With a driver around them: [`resolver`], [`courier`], [`dead`], [`registry`].

mod courier;
mod dead;
mod declaration;
mod figures;
mod guard;
mod letter;
mod registry;
mod resolver;
mod schedule;
mod signature;

pub use declaration::Declaration;
pub(crate) use declaration::Webhook;
pub(crate) use registry::{Source, View, Webhooks};

use waystation_broker::ClientId;

/// Most webhooks, those of the file and those made over the API together. Each has at most one body under way, of
/// at most `limits.max_packet_size` and, in a batch, [`letter::MOST_BYTES`] before it is written as JSON.
pub(crate) const MOST_WEBHOOKS: usize = 256;

/// What the sessions of webhooks begin with.
const SESSIONS: &str = "$webhook/";

/// The session a webhook's messages wait in.
fn session_id(name: &str) -> Option<ClientId> {
    ClientId::new(&format!("{SESSIONS}{name}"))
}
