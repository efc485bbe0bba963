//! MQTT-SN 1.2 over UDP: boards too small for TCP as clients of the same broker as everybody else.
//!
//! [`MqttSn`] is the front-end; [`client`] holds the protocol as a machine without a socket, [`hub`] all boards,
//! [`driver`] the sockets.

pub mod address;
pub mod board;
pub mod client;
pub mod codec;
pub mod config;
pub mod discovery;
pub mod driver;
pub mod gateway;
pub mod hub;
pub mod outbox;
pub mod peers;
pub mod registrations;
pub mod settings;
pub mod statuses;
pub mod strangers;
pub mod topics;
pub mod transport;

pub use board::{Board, BoardError, Options, Received};
pub use config::Config;
pub use gateway::MqttSn;
