//! mqtt.js, in node.

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
