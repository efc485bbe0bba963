//! Waystation: one server where three roads meet, MQTT, MQTT-SN and REST.
//!
//! This crate is the host. It reads the configuration, starts the core (`waystation-broker`) and the gateways around
//! it, and stops them again; it routes nothing and parses no protocol. [`Server::start`] runs a server inside another
//! program; [`Server::start_with`] takes gateways of your own.

pub mod auth;
pub mod config;
pub mod gateways;
mod server;
pub mod telemetry;

pub use config::{Config, ConfigError, Layers};
pub use server::{Server, StartError};
