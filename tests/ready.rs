//! The ready line, and what stands in its way.

use crate::{
    clients::curl,
    harness::{Server, eventually},
};
use std::net::{TcpListener, TcpStream};

#[test]
fn the_ready_line_names_every_listener_and_each_answers() {
    let server = Server::start();
    assert!(server.ready_line().starts_with("waystation ready mqtt=127.0.0.1:"), "{}", server.ready_line());
    for listener in ["mqtt", "rest"] {
        TcpStream::connect(server.address(listener)).unwrap();
    }
    assert_ne!(server.address("mqtt_sn").port(), 0);
    assert!(server.stop().success());
}

#[test]
fn a_gateway_that_is_off_is_not_in_the_ready_line() {
    let server = Server::start_with("[gateways.mqtt_sn]\nenabled = false\n", &["--set", "gateways.rest.enabled=false"]);
    assert!(!server.ready_line().contains("mqtt_sn="), "{}", server.ready_line());
    assert!(!server.ready_line().contains("rest="), "{}", server.ready_line());
}

#[test]
fn a_gateway_that_is_switched_off_and_on_again_is_found_where_it_was() {
    let server = Server::start();
    let mqtt = server.address("mqtt");
    for (body, open) in [(r#"{"enabled":false}"#, false), (r#"{"enabled":true}"#, true)] {
        assert_eq!(curl(&server, "/v1/gateways/mqtt", &["--request", "PUT", "--data", body]).status, 200);
        assert_eq!(TcpStream::connect(mqtt).is_ok(), open, "{body}");
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = Server::try_start("", &["--set", &format!("gateways.rest.listen={address}")]).err().unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = format!("port {} is in use (gateways.rest.listen", address.port());
    assert!(ended.stderr.contains(&line), "{ended:?}");
}

#[test]
fn the_log_is_json_when_asked_for() {
    let server = Server::start_with("[log]\nformat = \"json\"\nlevel = \"info\"\n", &[]);
    server.signal("HUP");
    eventually("a line is logged", || server.log().contains("configuration reloaded"));
    for line in server.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
