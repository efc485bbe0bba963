//! From every road to every road, with what each road shares with the others.

use crate::{
    clients::{Curl, Program, V5, V311, curl, mosquitto_pub, mosquitto_sub, python, rest_session},
    harness::{PATIENCE, Server},
};
use std::future::Future;
use tokio::{runtime::Runtime, time::timeout};
use waystation_broker::Qos;
use waystation_mqtt_sn::{Board, Options, codec::TopicRef};

/// The roads, and who travels them.
const ROADS: [Road; 5] = [Road::Mqtt(V311), Road::Mqtt(V5), Road::Sn, Road::PythonSn, Road::Rest];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Road {
    /// mosquitto's clients.
    Mqtt(&'static str),
    /// The board of this project.
    Sn,
    /// The board of mqtt-sn-12.
    PythonSn,
    /// curl.
    Rest,
}

/// Somebody who waits for a message.
enum Listener {
    Program(Program),
    Board(Runtime, Box<Board>),
    Session(Curl),
}

impl Road {
    fn publish(self, server: &Server, topic: &str, qos: u8, payload: &str) {
        match self {
            Self::Mqtt(version) => {
                mosquitto_pub(server, version, &["-t", topic, "-q", &qos.to_string(), "-m", payload]);
            }
            Self::Sn => soon(async {
                let mut board = Board::connect(server.address("mqtt_sn"), Options::new("from")).await.unwrap();
                board.publish(topic, payload.as_bytes(), level(qos), false).await.unwrap();
                board.disconnect().await.unwrap();
            }),
            Self::PythonSn => {
                python_board(server, &["pub", topic, &qos.to_string(), payload]).finish();
            }
            Self::Rest => {
                let answer = curl(server, &format!("/v1/topics/{topic}?qos={qos}"), &["--data", payload]);
                assert_eq!((answer.status, &answer.json()["matched"]), (200, &1.into()), "{answer:?}");
            }
        }
    }

    fn listen(self, server: &Server, topic: &str, qos: u8) -> Listener {
        let level_text = qos.to_string();
        match self {
            Self::Mqtt(version) => {
                let arguments = ["-t", topic, "-q", &level_text, "-C", "1", "-F", "%q %p"];
                Listener::Program(mosquitto_sub(server, version, &arguments))
            }
            Self::Sn => {
                let runtime = Runtime::new().unwrap();
                let board = runtime.block_on(async {
                    let mut board = Board::connect(server.address("mqtt_sn"), Options::new("to")).await.unwrap();
                    assert_eq!(board.subscribe(topic, level(qos)).await.unwrap(), level(qos));
                    board
                });
                Listener::Board(runtime, Box::new(board))
            }
            Self::PythonSn => {
                let mut board = python_board(server, &["sub", topic, &level_text, "1"]);
                board.says("subscribed");
                Listener::Program(board)
            }
            Self::Rest => {
                rest_session(server, "to", topic, "");
                Listener::Session(Curl::start(server, "/v1/sessions/to/messages?wait=20", &[]))
            }
        }
    }
}

impl Listener {
    /// The message, preceded by its QoS where the program tells it.
    fn hears(self) -> String {
        match self {
            Self::Program(program) => program.finish().pop().expect("a message"),
            Self::Board(runtime, mut board) => runtime.block_on(async {
                let message = timeout(PATIENCE, board.receive()).await.expect("a message in time").unwrap();
                let text = format!("{} {}", message.qos as u8, String::from_utf8_lossy(&message.payload));
                board.disconnect().await.unwrap();
                text
            }),
            Self::Session(curl) => {
                let answer = curl.answer();
                assert_eq!(answer.status, 200, "{answer:?}");
                let message = &answer.json()["messages"][0];
                format!("{} {}", message["qos"], message["payload"].as_str().unwrap())
            }
        }
    }
}

#[test]
fn every_message_goes_from_every_road_to_every_road_with_its_qos() {
    let server = Server::start();
    for to in ROADS {
        for from in ROADS {
            for qos in [0, 1, 2] {
                // mqtt-sn-12 does not acknowledge what it receives.
                if (to, qos) == (Road::PythonSn, 2) {
                    continue;
                }
                let payload = format!("from {from:?} to {to:?}");
                let listener = to.listen(&server, "house/door", qos);
                from.publish(&server, "house/door", qos, &payload);
                let expected = if to == Road::PythonSn { payload } else { format!("{qos} {payload}") };
                assert_eq!(listener.hears(), expected);
                curl(&server, "/v1/sessions/to", &["-X", "DELETE"]);
            }
        }
    }
}

#[test]
fn every_qos_of_foreign_boards_meets_every_qos_of_mqtt() {
    let server = Server::start_with("[gateways.mqtt_sn]\npredefined_topics = { 1 = \"readings/1\" }\n", &[]);
    for wanted in ["0", "1", "2"] {
        for (topic, name, said) in
            [("k1", "k1", "-1"), ("1", "readings/1", "-1"), ("k1", "k1", "0"), ("k1", "k1", "1"), ("k1", "k1", "2")]
        {
            let subscriber = mosquitto_sub(&server, V5, &["-t", name, "-q", wanted, "-C", "1", "-F", "%q %p"]);
            let action = if said == "-1" { "minus1" } else { "pub" };
            python_board(&server, &[action, topic, said, "21"]).finish();
            // QoS -1 is QoS 0 to everybody else.
            let qos = said.min(wanted).replace("-1", "0");
            assert_eq!(subscriber.finish(), [format!("{qos} 21")], "{said} to {wanted}");
        }
    }
    for said in ["0", "1", "2"] {
        for wanted in ["0", "1", "2"] {
            let port = server.address("mqtt_sn").port().to_string();
            let mut board = python("eclipse_board.py", 2, &[&port, "k1", wanted, "1"]);
            board.says("subscribed");
            mosquitto_pub(&server, V311, &["-t", "k1", "-q", said, "-m", "on"]);
            let heard = format!("{} on", said.min(wanted));
            assert_eq!(board.finish(), ["subscribed".to_owned(), heard], "{said} to {wanted}");
        }
    }
}

#[test]
fn a_command_set_by_curl_reaches_boards_that_come_later() {
    let server = Server::start();
    let set = curl(&server, "/v1/topics/valves/7/command", &["-X", "PUT", "--data", "open"]);
    assert_eq!((set.status, &set.json()["retain"]), (200, &true.into()), "{set:?}");
    soon(async {
        let mut board = Board::connect(server.address("mqtt_sn"), Options::new("valve-7")).await.unwrap();
        board.subscribe("valves/7/command", Qos::AtLeastOnce).await.unwrap();
        let command = board.receive().await.unwrap();
        assert_eq!((command.topic.as_str(), command.retain), ("valves/7/command", true));
        assert_eq!(&command.payload[..], b"open");
    });
    let mut board = python_board(&server, &["sub", "valves/7/command", "1", "1"]);
    board.says("open");
    board.finish();
}

#[test]
fn a_state_published_by_a_board_is_read_by_curl() {
    let server = Server::start();
    python_board(&server, &["pub", "meters/1", "1", "12.5", "retain"]).finish();
    let state = curl(&server, "/v1/topics/meters/1", &[]);
    assert_eq!((state.status, state.body.as_str()), (200, "12.5"));
}

#[test]
fn a_reading_of_a_board_that_never_connected_reaches_mosquitto_and_a_waiting_curl() {
    let server = Server::start_with("[gateways.mqtt_sn]\npredefined_topics = { 1 = \"sensors/temperature\" }\n", &[]);
    let subscriber = mosquitto_sub(&server, V5, &["-t", "sensors/#", "-C", "1", "-F", "%t %p"]);
    rest_session(&server, "app", "sensors/+", "");
    let session = Curl::start(&server, "/v1/sessions/app/messages?wait=20", &[]);
    let state = Curl::start(&server, "/v1/topics/sensors/temperature?wait=20", &[]);
    soon(async {
        let reading = TopicRef::Predefined(1);
        Board::publish_without_connect(server.address("mqtt_sn"), reading, b"21.5", true).await.unwrap();
    });
    assert_eq!(subscriber.finish(), ["sensors/temperature 21.5"]);
    let message = session.answer().json()["messages"][0].clone();
    assert_eq!((&message["topic"], &message["payload"]), (&"sensors/temperature".into(), &"21.5".into()), "{message}");
    let state = state.answer();
    assert_eq!((state.status, state.body.as_str()), (200, "21.5"));
}

#[test]
fn what_a_sleeping_board_missed_waits_until_it_wakes() {
    let server = Server::start();
    soon(async {
        let mut board = Board::connect(server.address("mqtt_sn"), Options::new("sleeper")).await.unwrap();
        board.subscribe("night/#", Qos::AtLeastOnce).await.unwrap();
        board.sleep(600).await.unwrap();
        mosquitto_pub(&server, V311, &["-t", "night/a", "-q", "1", "-m", "by mqtt"]);
        curl(&server, "/v1/topics/night/b", &["--data", "by rest"]);
        board.wake().await.unwrap();
        for (topic, payload) in [("night/a", "by mqtt"), ("night/b", "by rest")] {
            let message = board.receive().await.unwrap();
            assert_eq!((message.topic.as_str(), &message.payload[..]), (topic, payload.as_bytes()));
        }
    });
}

#[test]
fn a_foreign_board_lives_through_will_wildcards_sleep_return_and_loss() {
    let server = Server::start_with("[gateways.mqtt_sn]\npredefined_topics = { 900 = \"lights\" }\n", &[]);
    let wills = mosquitto_sub(&server, V5, &["-t", "wills/#", "-C", "1", "-F", "%t %p"]);
    let mut board = python("board_life.py", 2, &[&server.address("mqtt_sn").port().to_string()]);
    board.says("subscribed");
    let publish = |topic, payload| mosquitto_pub(&server, V311, &["-t", topic, "-q", "1", "-m", payload]);
    for (topic, payload) in [("valves/7", "by wildcard"), ("lights", "by predefined id")] {
        publish(topic, payload);
        board.says(&format!("heard {payload}"));
    }
    board.says("asleep");
    publish("valves/8", "asleep, a new topic");
    publish("valves/7", "asleep, a known topic");
    board.hears("");
    board.says("back");
    publish("valves/7", "not wanted any more");
    board.hears("");
    let heard = board.finish();
    let asleep = ["heard asleep, a new topic", "heard asleep, a known topic"].map(str::to_owned);
    assert!(heard.windows(2).any(|two| two == asleep), "{heard:?}");
    assert!(!heard.concat().contains("not wanted"), "{heard:?}");
    assert_eq!(wills.finish(), ["wills/life gone for good"]);
}

fn python_board(server: &Server, arguments: &[&str]) -> Program {
    let port = server.address("mqtt_sn").port().to_string();
    python("board.py", 2, &[&[port.as_str()], arguments].concat())
}

fn level(qos: u8) -> Qos {
    Qos::from_u8(qos).expect("a QoS")
}

fn soon<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(async { timeout(PATIENCE, future).await.expect("it takes too long") })
}
