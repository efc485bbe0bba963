//! No open door by accident: a listener beyond loopback wants users first.

use super::{Config, ConfigError, Layers, words};
use std::net::SocketAddr;
use toml::{Table, Value};

/// Refuses listeners that other machines can reach while nothing tells who comes: neither users nor certificates.
pub(super) fn check(config: &Config, layers: &Layers) -> Result<(), ConfigError> {
    if config.auth.anonymous_anywhere || config.auth.has_users() {
        return Ok(());
    }
    for gateway in config.gateways.iter().filter(|gateway| gateway.enabled) {
        let mut open = None;
        walk(&gateway.table, &format!("gateways.{}", gateway.name), &mut |key, address| {
            if !address.ip().to_canonical().is_loopback() {
                open.get_or_insert((key.to_owned(), address));
            }
        });
        if let Some((key, address)) = open {
            let why = format!(
                "{address} is reachable from other machines, and there are no users: make some \
                 (`waystation passwd FILE USER`, auth.password_file), listen on 127.0.0.1, or say \
                 auth.anonymous_anywhere = true if everybody is meant to come in"
            );
            return Err(layers.error(&key, why));
        }
    }
    Ok(())
}

/// Every address under a key `listen`, however deep, that asks nobody for a certificate: what the plug-in contract
/// calls a listener's address.
fn walk(table: &Table, prefix: &str, found: &mut impl FnMut(&str, SocketAddr)) {
    let asks = ["client_ca", "psk_file"].iter().any(|key| table.get(*key).is_some_and(is_said));
    for (name, value) in table {
        let key = words::join(prefix, name);
        match value {
            Value::Table(inner) => walk(inner, &key, found),
            Value::Array(list) => {
                for element in list {
                    match element {
                        Value::Table(inner) => walk(inner, &key, found),
                        Value::String(text) if name == "listen" && !asks => address(&key, text, found),
                        _ => {}
                    }
                }
            }
            Value::String(text) if name == "listen" && !asks => address(&key, text, found),
            _ => {}
        }
    }
}

fn is_said(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn address(key: &str, text: &str, found: &mut impl FnMut(&str, SocketAddr)) {
    if let Ok(address) = text.parse() {
        found(key, address);
    }
}
