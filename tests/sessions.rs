//! One session, whatever road its client comes by.

use crate::{
    clients::{Curl, V5, curl, do_both, mosquitto_pub, mosquitto_sub, mosquitto_sub_to_the_end, rest_session},
    harness::Server,
    wire::{self, SERVER_SHUTTING_DOWN, SESSION_TAKEN_OVER, Wire, reason},
};
use tokio::runtime::Runtime;
use waystation_broker::Qos;
use waystation_mqtt::codec::Version;
use waystation_mqtt_sn::{Board, BoardError, Options};

#[test]
fn a_second_client_of_the_same_id_takes_over_and_the_first_is_told() {
    let server = Server::start();
    for second in [Version::V3_1_1, Version::V5] {
        let mut first = Wire::connect(&server, Version::V5, "same");
        let mut newer = Wire::connect(&server, second, "same");
        assert_eq!(first.ends().last().and_then(|packet| reason(packet)), Some(SESSION_TAKEN_OVER));
        newer.send(b"\xc0\x00");
        assert_eq!(newer.packet().unwrap(), [0xD0, 0x00]);
    }
}

#[test]
fn rest_is_refused_while_mqtt_holds_the_session_and_takes_it_when_it_says_so() {
    let server = Server::start();
    let mut client = Wire::connect(&server, Version::V5, "held");
    for (path, arguments) in [
        ("/v1/sessions/held/messages", [].as_slice()),
        ("/v1/sessions/held", &["-X", "PUT", "--data", r#"{"subscriptions":[]}"#]),
        ("/v1/sessions/held", &["-X", "DELETE"]),
    ] {
        let answer = curl(&server, path, arguments);
        assert_eq!(answer.status, 409, "{path} {arguments:?}: {answer:?}");
    }
    client.send(b"\xc0\x00");
    assert_eq!(client.packet().unwrap(), [0xD0, 0x00], "a refused call does the client no harm");
    // This session has an end: it is over when its client is gone, so the reader may find nothing any more.
    curl(&server, "/v1/sessions/held/messages?takeover=true", &[]);
    assert_eq!(client.ends().last().and_then(|packet| reason(packet)), Some(SESSION_TAKEN_OVER));
}

#[test]
fn an_mqtt_client_that_comes_back_ends_a_held_read() {
    do_both(|server, version| {
        rest_session(server, "walker", "a", "");
        let read = Curl::start(server, "/v1/sessions/walker/messages?wait=50", &[]);
        // Whether the read was there first or came second, the client has the session when both are done.
        let client = mosquitto_sub(server, version, &["-i", "walker", "-c", "-q", "1", "-t", "a", "-C", "1"]);
        let status = read.answer().status;
        assert!(status == 204 || status == 409, "{status}");
        mosquitto_pub(server, version, &["-t", "a", "-q", "1", "-m", "for the client"]);
        assert_eq!(client.finish(), ["for the client"]);
    });
}

#[test]
fn a_session_walks_from_mqtt_to_rest_and_back_without_loss() {
    do_both(|server, version| {
        let mine = ["-i", "walker", "-c", "-q", "1", "-t", "road/#"];
        let publish = |text: &str| mosquitto_pub(server, version, &["-t", "road/1", "-q", "1", "-m", text]);
        mosquitto_sub_to_the_end(server, version, &[&mine[..], &["-E"]].concat());
        publish("one");
        publish("two");
        publish("three");

        let read = curl(server, "/v1/sessions/walker/messages?max=2&wait=20", &[]).json();
        assert_eq!(payloads(&read), ["one", "two"], "{read}");
        // The same again until it is acknowledged.
        let again = curl(server, "/v1/sessions/walker/messages?max=2", &[]).json();
        assert_eq!(payloads(&again), ["one", "two"], "{again}");
        let ack = format!(r#"{{"cursor":{}}}"#, read["cursor"]);
        assert_eq!(curl(server, "/v1/sessions/walker/ack", &["--data", &ack]).status, 204);
        publish("four");

        // It leaves with nothing unread: a reset connection may take acknowledgements with it.
        let client = mosquitto_sub(server, version, &[&mine[..], &["-C", "3"]].concat());
        publish("five");
        assert_eq!(client.finish(), ["three", "four", "five"]);
        publish("six");
        let rest = curl(server, "/v1/sessions/walker/messages?wait=20", &[]).json();
        assert_eq!(payloads(&rest), ["six"], "{rest}");
    });
}

#[test]
fn a_session_walks_between_mqtt_and_mqtt_sn_and_each_takes_it_from_the_other() {
    let server = Server::start();
    let runtime = Runtime::new().unwrap();
    let board = || {
        let options = Options { clean_session: false, ..Options::new("walker") };
        runtime.block_on(Board::connect(server.address("mqtt_sn"), options)).unwrap()
    };
    let publish = |qos, text| mosquitto_pub(&server, V5, &["-t", "road/1", "-q", qos, "-m", text]);
    let mut first = board();
    assert_eq!(runtime.block_on(first.subscribe("road/+", Qos::ExactlyOnce)).unwrap(), Qos::ExactlyOnce);

    let mut client = Wire::open(&server);
    // CONNECT of MQTT 3.1.1 that resumes.
    client.send(b"\x10\x12\x00\x04MQTT\x04\x00\x00\x00\x00\x06walker");
    assert_eq!(client.packet().unwrap(), [0x20, 0x02, 0x01, 0x00]);
    assert!(matches!(runtime.block_on(first.receive()), Err(BoardError::Disconnected)));
    publish("1", "by mqtt");
    let message = client.packet().unwrap();
    assert!(message[0] == 0x32 && message.ends_with(b"by mqtt"), "{message:02x?}");
    client.send(&[0x40, 0x02, message[10], message[11]]);
    publish("2", "half by mqtt");
    let message = client.packet().unwrap();
    assert!(message[0] == 0x34 && message.ends_with(b"half by mqtt"), "{message:02x?}");

    let mut second = board();
    assert!(client.ends().is_empty());
    publish("1", "by mqtt-sn");
    for (text, qos) in [("half by mqtt", Qos::ExactlyOnce), ("by mqtt-sn", Qos::AtLeastOnce)] {
        let message = runtime.block_on(second.receive()).unwrap();
        assert_eq!((&message.payload[..], message.qos, message.topic.as_str()), (text.as_bytes(), qos, "road/1"));
    }
    runtime.block_on(second.disconnect()).unwrap();
    let read = curl(&server, "/v1/sessions/walker/messages", &[]);
    assert_eq!(read.status, 204, "nothing is left: {read:?}");
}

#[test]
fn an_acknowledgement_right_before_the_goodbye_counts() {
    let server = Server::start();
    rest_session(&server, "brief", "jobs", "");
    curl(&server, "/v1/topics/jobs", &["--data", "done"]);
    let mut client = Wire::open(&server);
    // CONNECT of MQTT 3.1.1 that resumes.
    client.send(b"\x10\x11\x00\x04MQTT\x04\x00\x00\x00\x00\x05brief");
    assert_eq!(client.packet().unwrap(), [0x20, 0x02, 0x01, 0x00]);
    let message = client.packet().unwrap();
    assert_eq!(message[0], 0x32, "{message:02x?}");
    // PUBACK and DISCONNECT in one segment. The packet identifier follows the topic.
    client.send(&[0x40, 0x02, message[8], message[9], 0xE0, 0x00]);
    assert!(client.ends().is_empty());
    let read = curl(&server, "/v1/sessions/brief/messages", &[]);
    assert_eq!(read.status, 204, "nothing is left: {read:?}");
}

#[test]
fn a_session_made_over_rest_is_resumed_by_mqtt_with_its_subscriptions() {
    do_both(|server, version| {
        rest_session(server, "made", "jobs/+", "");
        curl(server, "/v1/topics/jobs/1?qos=2", &["--data", "wash"]);
        // It subscribes to something else only because mosquitto_sub must.
        let arguments = ["-i", "made", "-c", "-q", "2", "-t", "nothing", "-C", "1", "-F", "%t %q %p"];
        assert_eq!(mosquitto_sub_to_the_end(server, version, &arguments), ["jobs/1 2 wash"]);
    });
}

#[test]
fn a_clean_start_forgets_what_rest_had_left() {
    let server = Server::start();
    rest_session(&server, "made", "jobs/+", "");
    curl(&server, "/v1/topics/jobs/1", &["--data", "old"]);
    let client = mosquitto_sub(&server, V5, &["-i", "made", "-q", "1", "-t", "jobs/+", "-C", "1"]);
    mosquitto_pub(&server, V5, &["-t", "jobs/1", "-q", "1", "-m", "new"]);
    assert_eq!(client.finish(), ["new"]);
}

#[test]
fn clients_are_told_that_the_server_shuts_down() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..10).map(|n| Wire::connect(&server, Version::V5, &format!("client-{n}"))).collect();
    let mut older = Wire::connect(&server, Version::V3_1_1, "older");
    clients[0].send(&wire::subscribe("a", 1));
    assert_eq!(clients[0].packet().unwrap()[0], 0x90);
    assert!(server.stop().success());
    for client in &mut clients {
        assert_eq!(client.ends().last().and_then(|packet| reason(packet)), Some(SERVER_SHUTTING_DOWN));
    }
    // Before MQTT 5 a server has no DISCONNECT to send.
    assert!(older.ends().is_empty());
}

fn payloads(read: &serde_json::Value) -> Vec<&str> {
    let messages = read["messages"].as_array().expect("a list");
    messages.iter().map(|it| it["payload"].as_str().expect("text")).collect()
}
