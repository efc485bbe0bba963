//! Waystation's laboratory: measurements that users can repeat.
//!
//! [`mod@bench`] is the load generator behind `waystation bench`; it drives any MQTT broker, and deliberately shares no
//! protocol code with the one in this workspace, so that a mistake there cannot hide itself here.

pub mod bench;
