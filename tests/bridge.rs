//! Bridges: a site and its cloud, over a line that fails. The cloud is Debian's mosquitto, or another Waystation.

mod boards;
mod check;
mod examples;
mod faraway;
mod load;
mod loops;
mod outage;
mod routes;
mod security;
mod state;

use crate::{
    clients::{V311, curl},
    harness::{Broker, Server, eventually},
};
use serde_json::Value;

/// A `[[gateways.bridge]]` over plain TCP; `more` are further lines of it. Routes go behind it.
fn bridge(name: &str, far: &impl Broker, version: &str, more: &str) -> String {
    bridge_to(name, &format!("mqtt://{}", far.mqtt()), version, more)
}

/// The same, by URL.
fn bridge_to(name: &str, url: &str, version: &str, more: &str) -> String {
    let protocol = if version == V311 { "3.1.1" } else { "5" };
    format!(
        "\n[[gateways.bridge]]\nname = \"{name}\"\nurl = \"{url}\"\nprotocol = \"{protocol}\"\n\
         client_id = \"site-{name}\"\n{more}\n"
    )
}

/// A route of the bridge before it; `more` are further lines of it.
fn route(direction: &str, filter: &str, more: &str) -> String {
    format!("[[gateways.bridge.route]]\ndirection = \"{direction}\"\nfilter = \"{filter}\"\n{more}\n")
}

/// A site with this configuration whose bridge `cloud` has reached the other side.
fn site(config: &str) -> Server {
    let server = Server::start_with(config, &[]);
    connected(&server, "cloud");
    server
}

/// The bridge as `/v1/bridges` shows it.
fn status(server: &Server, name: &str) -> Value {
    let page = curl(server, "/v1/bridges", &[]).json();
    let bridges = page["bridges"].as_array().expect("a list");
    bridges.iter().find(|bridge| bridge["name"] == name).unwrap_or_else(|| panic!("no {name} in {page}")).clone()
}

/// A figure of the bridge.
fn figure(server: &Server, name: &str, figure: &str) -> u64 {
    let status = status(server, name);
    status[figure].as_u64().unwrap_or_else(|| panic!("no {figure} in {status}"))
}

fn connected(server: &Server, name: &str) {
    eventually(&format!("{name} is connected"), || status(server, name)["connected"] == true);
}

fn parted(server: &Server, name: &str) {
    eventually(&format!("{name} notices that it is cut off"), || status(server, name)["connected"] == false);
}
