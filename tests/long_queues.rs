//! Queues far longer than the memory they may take.

use crate::{
    clients::{V311, curl, mosquitto_sub_to_the_end, rest_session},
    harness::Server,
    restart::read_all,
};
use std::{fs, io::Write};

const CONFIG: &str = "[limits]\nmax_queued_messages = 1_000_000\nmax_queued_bytes = 1_000_000_000\n\
    [durability]\nmemory_per_session = 400_000\n";

/// Messages, of a kilobyte each, that wait for two sessions.
const MESSAGES: usize = 40_000;

/// What the engine under the store takes for itself: tables on their way to disk, and what it keeps of those on disk. In
/// memory the messages would take as much again.
const ROOM: usize = 40 << 20;

/// Publishes numbered messages, a few thousand with each request.
fn publish(server: &Server, numbers: std::ops::Range<usize>) {
    let file = server.dir().join("lines");
    let numbers: Vec<usize> = numbers.collect();
    for numbers in numbers.chunks(5_000) {
        let mut lines = std::io::BufWriter::new(fs::File::create(&file).unwrap());
        for n in numbers {
            writeln!(lines, r#"{{"topic":"t","payload":"{n} {}"}}"#, "x".repeat(1_000)).unwrap();
        }
        drop(lines);
        let data = format!("@{}", file.display());
        let answer =
            curl(server, "/v1/messages", &["-H", "Content-Type: application/x-ndjson", "--data-binary", &data]);
        assert_eq!(answer.status, 200);
        assert!(answer.body.lines().all(|line| line.contains("\"status\":200")), "all were accepted");
    }
}

fn numbers(texts: &[String]) -> Vec<usize> {
    texts.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// `mosquitto_sub` takes so many of what waits for it.
fn take(server: &Server, count: usize) -> Vec<usize> {
    let count = count.to_string();
    numbers(&mosquitto_sub_to_the_end(server, V311, &["-c", "-i", "away", "-q", "1", "-t", "t", "-C", &count]))
}

#[test]
fn queues_beyond_memory_lie_on_disk_and_come_in_order_on_every_road_over_kills() {
    let server = Server::start_with(CONFIG, &[]);
    mosquitto_sub_to_the_end(&server, V311, &["-c", "-i", "away", "-q", "1", "-t", "t", "-E"]);
    rest_session(&server, "reader", "t", "");
    let before = server.resident_bytes();
    publish(&server, 0..MESSAGES);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < ROOM, "{grown} bytes for what lies on disk");

    let server = Server::start_in(server.kill(), &[]).unwrap();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < ROOM, "{grown} bytes after a start");
    let info = curl(&server, "/v1/sessions/reader", &[]).json();
    assert_eq!(info["queued"], MESSAGES);
    let half = MESSAGES / 2;
    assert_eq!(take(&server, half), (0..half).collect::<Vec<_>>());
    assert_eq!(numbers(&read_all(&server, "reader")), (0..MESSAGES).collect::<Vec<_>>());

    let server = Server::start_in(server.kill(), &[]).unwrap();
    // The last may have been sent and not acknowledged as the client ended: those come again.
    let rest = take(&server, MESSAGES - half);
    let new: Vec<usize> = rest.iter().copied().filter(|n| *n >= half).collect();
    assert_eq!(new, (half..half + new.len()).collect::<Vec<_>>());
    assert!(new.len() + 1_000 > MESSAGES - half, "{} came again", rest.len() - new.len());
}
