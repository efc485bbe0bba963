//! Port 0 is chosen once: a gateway that is switched off and on again is found where it was.

use crate::config::GatewayConfig;
use std::net::SocketAddr;
use toml::Value;

/// The listeners a gateway may have: what comes after its kind in their names, and their table below its own.
const LISTENERS: [(&str, Option<&str>); 5] = [
    ("", None),
    ("_tls", Some("tls")),
    ("_ws", Some("websocket")),
    ("_wss", Some("websocket")),
    ("_dtls", Some("dtls")),
];

/// Writes the ports that the system chose for `listening` into the gateway's table.
pub(super) fn keep(config: &mut GatewayConfig, listening: &[(String, SocketAddr)]) {
    for (suffix, inner) in LISTENERS {
        let mut bound = listening.iter().filter(|(name, _)| name.strip_prefix(config.kind) == Some(suffix));
        let table = match inner {
            None => Some(&mut config.table),
            Some(inner) => config.table.get_mut(inner).and_then(Value::as_table_mut),
        };
        let addresses = match table.and_then(|table| table.get_mut("listen")) {
            Some(Value::Array(list)) => list.as_mut_slice(),
            Some(one) => std::slice::from_mut(one),
            None => continue,
        };
        for (address, (_, bound)) in addresses.iter_mut().zip(&mut bound) {
            if address.as_str().and_then(|text| text.parse().ok()).is_some_and(|wish: SocketAddr| wish.port() == 0) {
                *address = Value::String(bound.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_system_chose_stays() {
        let table = r#"
            listen = ["127.0.0.1:0", "[::1]:7", "[::1]:0"]
            [tls]
            listen = "127.0.0.1:0"
        "#;
        let table = table.parse().unwrap();
        let mut config = GatewayConfig { name: "mqtt".into(), kind: "mqtt", enabled: true, table };
        let listening =
            [("mqtt", "127.0.0.1:10"), ("mqtt", "[::1]:7"), ("mqtt", "[::1]:12"), ("mqtt_tls", "127.0.0.1:13")];
        keep(&mut config, &listening.map(|(name, address)| (name.to_owned(), address.parse().unwrap())));
        let listen = &config.table["listen"];
        assert_eq!(
            listen.as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>(),
            ["127.0.0.1:10", "[::1]:7", "[::1]:12"]
        );
        assert_eq!(config.table["tls"]["listen"].as_str(), Some("127.0.0.1:13"));
    }
}
