//! No open door by accident: a listener beyond loopback wants users first.

use super::{Config, ConfigError, Layers, words};
use std::net::SocketAddr;
use toml::{Table, Value};

/// Refuses listeners that other machines can reach while everybody is let in anonymously.
pub(super) fn check(config: &Config, layers: &Layers) -> Result<(), ConfigError> {
    if config.auth.anonymous_anywhere || !config.auth.allow_anonymous {
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
                "{address} is reachable from other machines, and anybody may come in without a password; \
                 listen on 127.0.0.1, or say auth.anonymous_anywhere = true if that is meant"
            );
            return Err(layers.error(&key, why));
        }
    }
    Ok(())
}

/// Every address under a key `listen`, however deep: what the plug-in contract calls a listener's address.
fn walk(table: &Table, prefix: &str, found: &mut impl FnMut(&str, SocketAddr)) {
    for (name, value) in table {
        let key = words::join(prefix, name);
        match value {
            Value::Table(inner) => walk(inner, &key, found),
            Value::Array(list) => {
                for element in list {
                    match element {
                        Value::Table(inner) => walk(inner, &key, found),
                        Value::String(text) if name == "listen" => address(&key, text, found),
                        _ => {}
                    }
                }
            }
            Value::String(text) if name == "listen" => address(&key, text, found),
            _ => {}
        }
    }
}

fn address(key: &str, text: &str, found: &mut impl FnMut(&str, SocketAddr)) {
    if let Ok(address) = text.parse() {
        found(key, address);
    }
}
