//! MQTT-SN 1.2 over UDP: boards too small for TCP as clients of the same broker as everybody else.

pub mod codec;
pub mod config;

pub use config::Config;
