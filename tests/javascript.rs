//! mqtt.js, in node over TCP and WebSocket, and in a page of headless Chromium.

use crate::{clients::node, harness::Server};

/// The versions as mqtt.js numbers them.
const VERSIONS: [&str; 3] = ["3", "4", "5"];

#[test]
fn mqtt_js_over_tcp() {
    for version in VERSIONS {
        let server = Server::start();
        assert_eq!(node("sensors.js", &[&server.url("mqtt", "mqtt"), version, "30"]).finish(), ["all read"]);
    }
}

#[test]
fn mqtt_js_over_websocket() {
    for version in VERSIONS {
        let server = Server::start_with("", &["--set", "gateways.mqtt.websocket.listen=127.0.0.1:0"]);
        let url = server.url("ws", "mqtt_ws") + "/mqtt";
        assert_eq!(node("sensors.js", &[&url, version, "30"]).finish(), ["all read"]);
    }
}

#[test]
fn a_page_in_chromium_speaks_mqtt_where_its_origin_is_listed() {
    let chromium = std::env::var("WAYSTATION_TEST_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    assert!(std::path::Path::new(&chromium).exists(), "no {chromium} (scripts/test installs it)");
    let mut page = node("browser.js", &[&chromium]);
    page.says("serving");
    let said = page.lines();
    let listed = said[0].split(' ').nth(1).expect("serving ORIGIN STRANGER");
    let config = format!("[gateways.mqtt.websocket]\nlisten = \"127.0.0.1:0\"\norigins = [\"{listed}\"]\n");
    let server = Server::start_with(&config, &[]);
    page.hears(&format!("{}/mqtt", server.url("ws", "mqtt_ws")));
    // A browser takes its time to start on a busy machine.
    page.says_within("refused", 3 * crate::harness::PATIENCE);
    assert_eq!(page.finish()[1..], ["heard all", "heard all", "refused"]);
}
