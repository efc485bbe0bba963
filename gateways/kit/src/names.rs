//! Names that Waystation's own parts give to user properties (MQTT 5.0 §3.3.2.3.7), on whatever road.

/// The server a message first crossed a bridge from. In a CONNECT: the server whose bridge this is, which is told in
/// CONNACK by the same name whom it has reached.
pub const ORIGIN: &str = "waystation-origin";

/// How many bridges a message has crossed.
pub const HOPS: &str = "waystation-hops";

/// How many messages a session lost just before this one; between a server and its client, and nobody else's business.
pub const MISSED: &str = "waystation-missed";
