//! What carries datagrams.

pub mod dtls;
pub mod udp;
