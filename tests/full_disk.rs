//! A real disk that is full: a tmpfs of a few megabytes below the data folder. Where the system lets no test mount one,
//! they say so and show nothing.

use crate::{
    clients::{curl, rest_session},
    harness::{PATIENCE, Server, eventually, within},
    wire::{
        QUOTA_EXCEEDED,
        client::Client,
        heard::Heard,
        say::{self, Publish},
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};
use waystation_broker::Qos;
use waystation_mqtt::codec::Version::{V3_1_1, V5};
use waystation_mqtt_sn::{Board, BoardError, Options, codec::ReturnCode};

/// A disk of its own; unmounted when dropped.
struct Disk {
    dir: TempDir,
    /// Puts a server's data folder there.
    setting: String,
}

impl Disk {
    /// `None`: it takes a right that this process does not have.
    fn of(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m,mode=700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "waystation-test"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => {
                let setting = format!("data_dir={}", dir.path().join("data").display());
                Some(Self { dir, setting })
            }
            refused => {
                eprintln!("skipped, for no tmpfs can be mounted here: {refused:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Somebody else's file.
    fn ballast(&self, megabytes: usize) -> PathBuf {
        let file = self.path().join("ballast");
        fs::write(&file, vec![1; megabytes << 20]).unwrap();
        file
    }

    fn server(&self) -> Server {
        Server::start_with("[limits]\nmax_queued_messages = 1_000_000\n", &self.arguments())
    }

    fn arguments(&self) -> [&str; 2] {
        ["--set", self.setting.as_str()]
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.path().display());
    }
}

/// Messages of this size fill a disk in a few hundred.
const SIZE: usize = 4_096;

fn payload(number: usize) -> Vec<u8> {
    let mut payload = format!("{number:06}").into_bytes();
    payload.resize(SIZE, b'.');
    payload
}

/// Publishes numbered messages until the server refuses them for good: it may find some space yet. How many it has
/// acknowledged.
fn fill(server: &Server, publisher: &mut Client) -> usize {
    let (mut number, mut refused) = (0, None);
    while refused.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(3)) {
        let (payload, qos) = (payload(number), 1 + u8::from(number % 2 == 1));
        match publisher.publish(&Publish { topic: "t", payload: &payload, qos, ..Default::default() }) {
            0 => (number, refused) = (number + 1, None),
            reason => {
                assert_eq!(reason, QUOTA_EXCEEDED);
                refused.get_or_insert_with(Instant::now);
            }
        }
    }
    assert!(!writes(server));
    number
}

fn writes(server: &Server) -> bool {
    curl(server, "/healthz", &[]).json()["trouble"].is_null()
}

/// Reads a page by cursor, acknowledges it, and gives the numbers in it.
fn read(server: &Server, max: usize) -> Vec<usize> {
    let answer = curl(server, &format!("/v1/sessions/reader/messages?max={max}"), &[]);
    if answer.status == 204 {
        return Vec::new();
    }
    let page = answer.json();
    let number = |message: &serde_json::Value| message["payload"].as_str().unwrap()[..6].parse().unwrap();
    let numbers = page["messages"].as_array().unwrap().iter().map(number).collect();
    let ack = format!(r#"{{"cursor":{}}}"#, page["cursor"]);
    let acknowledged = curl(server, "/v1/sessions/reader/ack", &["--data", &ack]);
    assert_eq!(acknowledged.status, 204, "{acknowledged:?}");
    numbers
}

fn read_all(server: &Server) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        match read(server, 100) {
            page if page.is_empty() => return numbers,
            page => numbers.extend(page),
        }
    }
}

fn publish_over_sn(server: &Server, qos: Qos) -> Result<(), BoardError> {
    Runtime::new().unwrap().block_on(async {
        let board = async {
            let mut board = Board::connect(server.address("mqtt_sn"), Options::new("board")).await.unwrap();
            board.publish("t", &payload(0)[..1_000], qos, false).await
        };
        timeout(PATIENCE, board).await.expect("an answer in time")
    })
}

#[test]
fn a_full_disk_refuses_on_every_road_lets_qos_0_pass_and_heals_when_there_is_space() {
    let Some(disk) = Disk::of(16) else { return };
    let ballast = disk.ballast(10);
    let server = disk.server();
    rest_session(&server, "reader", "t", "");
    let mut watcher = Client::clean(&server, V5, "watcher");
    watcher.subscribe("now", 0);
    let mut publisher = Client::clean(&server, V5, "publisher");
    let acknowledged = fill(&server, &mut publisher);
    assert!(acknowledged > 100, "{acknowledged} fit");

    let payload = payload(acknowledged);
    for qos in [1, 2] {
        let refused = publisher.publish(&Publish { topic: "t", payload: &payload, qos, ..Default::default() });
        assert_eq!(refused, QUOTA_EXCEEDED, "QoS {qos}");
    }
    let body = String::from_utf8(payload.clone()).unwrap();
    assert_eq!(curl(&server, "/v1/topics/t", &["--data", &body]).status, 507);
    assert_eq!(curl(&server, "/v1/topics/state", &["-X", "PUT", "--data", "kept?"]).status, 507);
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let refused = publish_over_sn(&server, qos);
        assert!(matches!(refused, Err(BoardError::Refused(ReturnCode::Congestion))), "{refused:?}");
    }
    // MQTT 3.1.1 has no word for it: the publication is kept, and everything else obeyed.
    let mut old = Client::clean(&server, V3_1_1, "old");
    old.send(&Publish { topic: "t", payload: &payload, qos: 1, id: 7, ..Default::default() }.bytes(V3_1_1));
    old.ping();
    // Nothing was promised of QoS 0.
    publisher.publish(&Publish { topic: "now", payload: b"passes", ..Default::default() });
    assert_eq!(watcher.message().text(), "passes");
    // Sessions that are there are resumed and read, and what is acknowledged stays so.
    let first = read(&server, 10);
    assert_eq!(first, (0..10).collect::<Vec<_>>());

    fs::remove_file(ballast).unwrap();
    assert_eq!(old.hear(), Heard::Ack { first: say::PUBACK, id: 7, reason: 0 }, "offered again once there is room");
    eventually("the store writes again", || writes(&server));
    let mut publisher = Client::clean(&server, V5, "publisher");
    publisher.tell("t", std::str::from_utf8(&self::payload(acknowledged + 1)).unwrap());

    let dir = server.kill();
    let server = Server::start_in(dir, &disk.arguments()).unwrap();
    let wanted: Vec<_> = (10..acknowledged + 2).collect();
    assert_eq!(read_all(&server), wanted, "what was acknowledged is there, once and in order");
    assert!(server.stop().success());
}

#[test]
fn a_disk_that_its_own_messages_filled_is_emptied_by_their_readers() {
    let Some(disk) = Disk::of(12) else { return };
    let server = disk.server();
    rest_session(&server, "reader", "t", "");
    let mut publisher = Client::clean(&server, V5, "publisher");
    let first = fill(&server, &mut publisher);
    // Killed while it is full: it starts, and has everything.
    let dir = server.kill();
    let server = Server::start_in(dir, &disk.arguments()).unwrap();
    assert_eq!(read_all(&server), (0..first).collect::<Vec<_>>());
    within(Duration::from_secs(60), "space is given back", || writes(&server));
    let mut publisher = Client::clean(&server, V5, "publisher");
    let mut second = 0;
    within(Duration::from_secs(60), "as much fits as before, or nearly", || {
        second += fill(&server, &mut publisher);
        second > first / 2
    });
    // A session that ends leaves its space as well, and so does a start in order.
    let dir = server.stop_and_keep().1;
    let server = Server::start_in(dir, &disk.arguments()).unwrap();
    assert_eq!(read(&server, 3), [0, 1, 2]);
    assert_eq!(curl(&server, "/v1/sessions/reader", &["-X", "DELETE"]).status, 204);
    within(Duration::from_secs(60), "space is given back", || writes(&server));
    rest_session(&server, "reader", "t", "");
    let mut publisher = Client::persistent(&server, V5, "publisher").0;
    publisher.tell("t", std::str::from_utf8(&payload(0)).unwrap());
    assert_eq!(read_all(&server), [0]);
}
