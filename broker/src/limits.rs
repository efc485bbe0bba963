//! The `[limits]` table: every bound on what a peer can make grow.

use serde::{Deserialize, Serialize};

/// What happens when a message comes to a session whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The oldest message that holds no packet identifier goes; if all do, the newcomer.
    DropOldest,
    /// The newcomer goes.
    DropNewest,
    /// The publisher is told, and the message reaches nobody.
    Reject,
}

/// Bounds, for all clients alike. Units stand with each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one message with its header, on every road.
    pub max_packet_size: u32,
    /// Connections at the same time, all roads together.
    pub max_connections: u32,
    /// Connections at the same time from one address; loopback is exempt.
    pub max_connections_per_address: u32,
    /// Levels of a topic or filter.
    pub max_topic_levels: usize,
    /// Messages a session holds: waiting, and handed out but not acknowledged.
    pub max_queued_messages: u32,
    /// Bytes (topic, payload and properties) a session holds, likewise.
    pub max_queued_bytes: u64,
    /// Bytes all sessions together hold in memory; at it the session that would grow applies its own overflow.
    pub max_total_queued_bytes: u64,
    /// What a full session does, unless it chose otherwise itself.
    pub overflow: Overflow,
    /// Most messages of QoS 1 and 2 handed out to one session and not acknowledged.
    pub max_inflight: u16,
    /// QoS 1 and 2 publications the server lets a publisher have open.
    pub receive_maximum: u16,
    /// Highest topic alias a client may use; 0 forbids aliases.
    pub topic_alias_maximum: u16,
    /// Seconds; a longer wish is lowered.
    pub max_session_expiry: u32,
    /// Seconds; a longer wish of an MQTT 5 client is lowered.
    pub max_keep_alive: u16,
    /// Highest QoS granted and accepted.
    pub max_qos: u8,
    /// Whether retained messages are kept.
    pub retain_available: bool,
    /// Whether filters may hold wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether `$share/` filters are served.
    pub shared_subscriptions: bool,
    /// Whether MQTT 5 subscription identifiers are served.
    pub subscription_identifiers: bool,
    /// Milliseconds from an open connection to its complete CONNECT.
    pub connect_timeout_ms: u64,
    /// Subscriptions of one session.
    pub max_subscriptions: u32,
    /// Retained messages kept; a publication that would set one more is refused with "quota exceeded".
    pub max_retained_messages: u32,
    /// Bytes (topic, payload and properties) of all retained messages, likewise.
    pub max_retained_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: 1_048_576,
            max_connections: 100_000,
            max_connections_per_address: 100_000,
            max_topic_levels: 128,
            max_queued_messages: 10_000,
            max_queued_bytes: 67_108_864,
            max_total_queued_bytes: 1_073_741_824,
            overflow: Overflow::DropOldest,
            max_inflight: 1_000,
            receive_maximum: 1_000,
            topic_alias_maximum: 64,
            max_session_expiry: u32::MAX,
            max_keep_alive: u16::MAX,
            max_qos: 2,
            retain_available: true,
            wildcard_subscriptions: true,
            shared_subscriptions: true,
            subscription_identifiers: true,
            connect_timeout_ms: 10_000,
            max_subscriptions: 10_000,
            max_retained_messages: 1_000_000,
            max_retained_bytes: 1_073_741_824,
        }
    }
}
