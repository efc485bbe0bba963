//! The MQTT clients that people use: mosquitto's, paho-mqtt of both generations, aiomqtt, rumqttc.

use crate::{
    clients::{V5, V311, curl, do_both, mosquitto_pub, mosquitto_sub, mosquitto_sub_to_the_end, python},
    harness::{PATIENCE, Server, eventually},
};
use std::time::Instant;

#[test]
fn mosquitto_hears_every_qos() {
    do_both(|server, version| {
        for qos in ["0", "1", "2"] {
            let subscriber = mosquitto_sub(server, version, &["-t", "a/+", "-q", qos, "-C", "1", "-F", "%t %q %p"]);
            mosquitto_pub(server, version, &["-t", "a/b", "-q", qos, "-m", "hello"]);
            assert_eq!(subscriber.finish(), [format!("a/b {qos} hello")]);
        }
    });
}

#[test]
fn mosquitto_gets_the_lower_of_both_qos() {
    do_both(|server, version| {
        let subscriber = mosquitto_sub(server, version, &["-t", "a", "-q", "1", "-C", "2", "-F", "%q %p"]);
        mosquitto_pub(server, version, &["-t", "a", "-q", "2", "-m", "two"]);
        mosquitto_pub(server, version, &["-t", "a", "-q", "0", "-m", "zero"]);
        assert_eq!(subscriber.finish(), ["1 two", "0 zero"]);
    });
}

#[test]
fn mosquitto_sees_retained_messages_and_their_deletion() {
    do_both(|server, version| {
        mosquitto_pub(server, version, &["-t", "state/a", "-r", "-q", "1", "-m", "on"]);
        let read = ["-t", "state/#", "-q", "1", "-C", "1", "-F", "%t %r %p"];
        assert_eq!(mosquitto_sub_to_the_end(server, version, &read), ["state/a 1 on"]);
        // Who is subscribed already gets it as it is published: without the flag [MQTT-3.3.1-9].
        let live = mosquitto_sub(server, version, &["-t", "live", "-C", "1", "-F", "%r %p"]);
        mosquitto_pub(server, version, &["-t", "live", "-r", "-q", "1", "-m", "now"]);
        assert_eq!(live.finish(), ["0 now"]);
        mosquitto_pub(server, version, &["-t", "state/a", "-r", "-q", "1", "-n"]);
        mosquitto_pub(server, version, &["-t", "state/z", "-r", "-q", "1", "-m", "only"]);
        assert_eq!(mosquitto_sub_to_the_end(server, version, &read), ["state/z 1 only"]);
    });
}

#[test]
fn mosquittos_will_is_published_when_it_is_killed() {
    do_both(|server, version| {
        let mut witness = mosquitto_sub(server, version, &["-t", "wills/+", "-q", "2", "-C", "1", "-F", "%t %q %p"]);
        let will = ["--will-topic", "wills/a", "--will-payload", "gone", "--will-qos", "2"];
        mosquitto_sub(server, version, &[&["-t", "x", "-i", "mortal"], will.as_slice()].concat()).kill();
        witness.says("wills/a 2 gone");
        assert_eq!(witness.finish(), ["wills/a 2 gone"]);
    });
}

#[test]
fn mosquittos_persistent_session_keeps_what_came_while_it_was_away() {
    do_both(|server, version| {
        let mine = ["-i", "sleeper", "-c", "-q", "2", "-t", "night/#"];
        mosquitto_sub_to_the_end(server, version, &[&mine[..], &["-E"]].concat());
        for qos in ["1", "2"] {
            for n in 0..5 {
                let text = format!("{qos}:{n}");
                mosquitto_pub(server, version, &["-t", &format!("night/{qos}"), "-q", qos, "-m", &text]);
            }
        }
        let heard = mosquitto_sub_to_the_end(server, version, &[&mine[..], &["-C", "10"]].concat());
        let expected: Vec<_> = ["1", "2"].iter().flat_map(|qos| (0..5).map(move |n| format!("{qos}:{n}"))).collect();
        assert_eq!(heard, expected);
    });
}

#[test]
fn a_session_ends_at_its_expiry_and_not_before() {
    let server = Server::start();
    let subscribe = |id: &str, expiry: &str| {
        mosquitto_sub_to_the_end(&server, V5, &["-i", id, "-c", "-x", expiry, "-q", "1", "-t", "a", "-E"]);
    };
    let exists = |id: &str| curl(&server, &format!("/v1/sessions/{id}"), &[]).status == 200;
    let started = Instant::now();
    subscribe("brief", "1");
    subscribe("long", "600");
    assert!(exists("brief") || started.elapsed().as_secs() >= 1);
    eventually("the session expires", || !exists("brief"));
    assert!(started.elapsed().as_millis() >= 900, "it ended early: {:?}", started.elapsed());
    assert!(exists("long"));
    subscribe("none", "0");
    eventually("a session without expiry ends with its connection", || !exists("none"));
}

#[test]
fn mqtt_5_properties_go_through_and_to_curl() {
    let server = Server::start();
    let format = "%p|%C|%R|%D|%P";
    let subscriber = mosquitto_sub(&server, V5, &["-t", "a", "-q", "1", "-C", "1", "-F", format]);
    let properties = [
        ["content-type", "text/plain"].as_slice(),
        &["response-topic", "answers/1"],
        &["correlation-data", "c1"],
        &["user-property", "who", "me"],
    ];
    let mut arguments = vec!["-t", "a", "-q", "1", "-r", "-m", "hello"];
    for property in properties {
        arguments.extend([&["-D", "publish"], property].concat());
    }
    mosquitto_pub(&server, V5, &arguments);
    let heard = subscriber.finish();
    assert_eq!(heard, ["hello|text/plain|answers/1|c1|who:me"]);
    let state = curl(&server, "/v1/topics/a", &["--include"]);
    assert!(state.body.to_lowercase().contains("content-type: text/plain"), "{state:?}");
    // An older client is not troubled by them.
    assert_eq!(mosquitto_sub_to_the_end(&server, V311, &["-t", "a", "-C", "1"]), ["hello"]);
}

#[test]
fn both_versions_hear_each_other() {
    let server = Server::start();
    for (from, to) in [(V311, V5), (V5, V311)] {
        for qos in ["0", "1", "2"] {
            let subscriber = mosquitto_sub(&server, to, &["-t", "a", "-q", qos, "-C", "1", "-F", "%q %p"]);
            mosquitto_pub(&server, from, &["-t", "a", "-q", qos, "-m", from]);
            assert_eq!(subscriber.finish(), [format!("{qos} {from}")]);
        }
    }
}

/// Each generation of paho-mqtt with each version of MQTT.
fn with_paho(check: impl Fn(&Server, u8, &str)) {
    for paho in [1, 2] {
        for version in ["3.1.1", "5"] {
            eprintln!("with paho-mqtt {paho}, MQTT {version}");
            check(&Server::start(), paho, version);
        }
    }
}

#[test]
fn paho_reads_each_qos_2_message_once_from_its_persistent_session() {
    with_paho(|server, paho, version| {
        let port = server.address("mqtt").port().to_string();
        assert_eq!(python("persistent.py", paho, &[&port, version, "30"]).finish(), ["each once, in order"]);
    });
}

#[test]
fn pahos_will_comes_when_it_is_killed_and_not_when_it_says_goodbye() {
    with_paho(|server, paho, version| {
        let port = server.address("mqtt").port().to_string();
        let will = |topic: &str| {
            let mut program = python("will.py", paho, &[&port, version, topic, "gone"]);
            program.says("connected");
            program
        };
        let mut polite = will("wills/polite");
        polite.hears("bye");
        polite.finish();
        will("wills/killed").kill();
        let killed = curl(server, "/v1/topics/wills/killed?wait=20", &[]);
        assert_eq!((killed.status, killed.body.as_str()), (200, "gone"));
        assert_eq!(curl(server, "/v1/topics/wills/polite", &[]).status, 404);
    });
}

#[test]
fn paho_publishes_json_periodically_and_averages_it() {
    with_paho(|server, paho, version| {
        let port = server.address("mqtt").port().to_string();
        assert_eq!(python("periodic.py", paho, &[&port, version, "10"]).finish(), ["average 24.5"]);
    });
}

#[test]
fn paho_watches_the_servers_own_topics() {
    let config = "[sys]\ninterval_s = 1\n";
    let version = concat!("version=waystation version ", env!("CARGO_PKG_VERSION"));
    let wanted = [version, "uptime=*", "messages/received=*", "clients/connected=1", "subscriptions/count=2"];
    let wanted = wanted.map(|it| format!("$SYS/broker/{it}"));
    for (paho, version) in [(1, "3.1.1"), (2, "5")] {
        let server = Server::start_with(config, &[]);
        let port = server.address("mqtt").port().to_string();
        let mut arguments = vec![port.as_str(), version];
        arguments.extend(wanted.iter().map(String::as_str));
        python("sys_topics.py", paho, &arguments).finish();
    }
}

#[test]
fn gmqtt_speaks_both_versions() {
    for version in ["3.1.1", "5"] {
        let server = Server::start();
        let port = server.address("mqtt").port().to_string();
        let said = python("gmqtt_client.py", 2, &[&port, version]).finish();
        // It complains of the connection that the test tears down.
        assert!(said.iter().any(|line| line == "all read"), "{said:?}");
    }
}

#[test]
fn aiomqtt_consumes_the_json_it_produces() {
    let server = Server::start();
    let port = server.address("mqtt").port().to_string();
    for version in ["3.1.1", "5"] {
        assert_eq!(python("json_sensors.py", 2, &[&port, version, "50"]).finish(), ["all read"]);
    }
}

#[test]
fn rumqttc_hears_every_qos_in_3_1_1() {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let server = Server::start();
    let address = server.address("mqtt");
    let options = MqttOptions::new("rumqttc", address.ip().to_string(), address.port());
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("a/#", QoS::ExactlyOnce).unwrap();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        match connection.recv_timeout(PATIENCE).expect("an event in time").expect("a connection") {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client.publish("a/b", qos, false, "x").unwrap();
                }
            }
            Event::Incoming(Packet::Publish(message)) => heard.push(message.qos as u8),
            _ => {}
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2]);
}

#[test]
fn rumqttc_hears_every_qos_in_mqtt_5() {
    use rumqttc::v5::{
        Client, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    };
    let server = Server::start();
    let address = server.address("mqtt");
    let options = MqttOptions::new("rumqttc", address.ip().to_string(), address.port());
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("a/#", QoS::ExactlyOnce).unwrap();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        match connection.recv_timeout(PATIENCE).expect("an event in time").expect("a connection") {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client.publish("a/b", qos, false, "x").unwrap();
                }
            }
            Event::Incoming(Packet::Publish(message)) => heard.push(message.qos as u8),
            _ => {}
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2]);
}
