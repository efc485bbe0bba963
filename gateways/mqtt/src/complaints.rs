//! What the log says about clients that break the rules or are refused: once a connection, and never a flood.

use crate::codec::ReasonCode;
use std::fmt;
use waystation_broker::Peer;
use waystation_kit::Complaints;

static COMPLAINTS: Complaints = Complaints::new();

/// A connection that never became one: TLS, WebSocket.
pub(crate) fn not_opened(peer: Peer, error: &std::io::Error) {
    if let Some(left_out) = COMPLAINTS.one_more() {
        tracing::info!(%peer, %error, left_out = left_out.field(), "connection not opened");
    }
}

/// A client that did not get in.
pub(crate) fn turned_away(peer: Peer, why: &str) {
    if let Some(left_out) = COMPLAINTS.one_more() {
        tracing::info!(%peer, why, left_out = left_out.field(), "client turned away");
    }
}

/// A client whose connection ends by its own fault.
pub(crate) fn sent_away(peer: Peer, client: &str, reason: ReasonCode, why: &dyn fmt::Display) {
    if let Some(left_out) = COMPLAINTS.one_more() {
        tracing::info!(%peer, client, %reason, %why, left_out = left_out.field(), "client sent away");
    }
}
