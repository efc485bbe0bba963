//! As fast as it goes, with every message accounted for.

use super::{bridge, route, site};
use crate::harness::{Broker, Cloud, run_in};

#[test]
fn every_message_of_a_benchmark_crosses_either_way_at_every_qos() {
    let cloud = Cloud::start();
    for direction in ["out", "in"] {
        let site = site(&(bridge("cloud", &cloud, crate::clients::V5, "") + &route(direction, "bench/#", "qos = 2")));
        let (near, far) = (format!("mqtt://{}", site.mqtt()), format!("mqtt://{}", cloud.mqtt()));
        let (from, to) = if direction == "out" { (near, far) } else { (far, near) };
        for qos in ["-q0", "-q1", "-q2"] {
            // mosquitto cuts off who has more than 20 exchanges of QoS 2 open.
            let load = ["bench", "fan-in", "--publishers", "5", "--messages", "2000", "--inflight", "20", qos];
            let arguments = [&load[..], &["--url", &from, "--to", &to]].concat();
            // Its exit code counts what is lost of QoS 1 and what comes twice of QoS 2.
            let ended = run_in(site.dir(), &arguments, &[]);
            assert_eq!(ended.code, Some(0), "{direction} {qos}: {}{}", ended.stdout, ended.stderr);
        }
    }
}
