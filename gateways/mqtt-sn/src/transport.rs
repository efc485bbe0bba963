//! What carries datagrams.

pub mod udp;
