//! Requests made of what breaks servers, many and at random but always the same: none is answered with a 500, none goes
//! without an answer, and none is anybody else's trouble. Every error is told as a problem.

use crate::harness::{Server, serve_with};
use fastrand::Rng;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use waystation_broker::Limits;
use waystation_rest::Config;

const REQUESTS: usize = 3_000;

const METHODS: [&str; 9] = ["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"];
const PATHS: [&str; 24] = [
    "/",
    "/v1/topics",
    "/v1/topics/",
    "/v1/topics/{}",
    "/v1/topics/{}/{}",
    "/v1/messages",
    "/v1/sessions",
    "/v1/sessions/{}",
    "/v1/sessions/{}/messages",
    "/v1/sessions/{}/ack",
    "/v1/sessions/$dead/{}/messages",
    "/v1/stream",
    "/v1/request/{}",
    "/v1/webhooks",
    "/v1/webhooks/{}",
    "/v1/clients/{}",
    "/v1/subscriptions",
    "/v1/gateways/{}",
    "/v1/bridges",
    "/v1/drops",
    "/metrics",
    "/healthz",
    "/openapi.json",
    "/v1/{}",
];
const NAMES: [&str; 16] = [
    "a",
    "a",
    "till",
    "%00",
    "%ff",
    "%2f",
    "%",
    "%zz",
    "..",
    ".",
    "+",
    "%23",
    "$SYS",
    "$share%2Fg%2Fa",
    "%F0%9F%98%80",
    "\u{fc}",
];
const KEYS: [&str; 19] = [
    "filter",
    "topic",
    "qos",
    "retain",
    "expiry",
    "wait",
    "after",
    "max",
    "limit",
    "takeover",
    "timeout",
    "reply",
    "user.k",
    "user.",
    "correlation_data",
    "response_topic",
    "",
    "%00",
    "x",
];
const VALUES: [&str; 18] = [
    "",
    "0",
    "1",
    "2",
    "-1",
    "true",
    "a",
    "a%2F%2B%2F%23",
    "%23",
    "99999999999999999999",
    "1e9",
    "0.5",
    "%ff",
    "%00",
    "_w",
    "====",
    "+",
    "NaN",
];
const FIELDS: [&str; 17] = [
    "accept",
    "content-type",
    "content-encoding",
    "if-match",
    "if-none-match",
    "prefer",
    "last-event-id",
    "idempotency-key",
    "authorization",
    "x-request-id",
    "origin",
    "range",
    "expect",
    "te",
    "connection",
    "upgrade",
    "x-forwarded-for",
];
const TEXTS: [&str; 26] = [
    "",
    "*",
    "*/*",
    "text/event-stream",
    "application/x-ndjson",
    "application/json",
    "application/json;q=x",
    "text/html",
    "gzip",
    "\"0000000000000001\"",
    "W/\"\", \"",
    "wait=1",
    "wait=99999999999999999999",
    "wait=-1",
    "Basic",
    "Basic !",
    "Basic Og==",
    "Bearer x.y.z",
    "null",
    "https://a",
    "100-continue",
    "keep-alive, close",
    "websocket",
    "bytes=0-",
    "\u{e4}\u{f6}",
    ",,,;;;==",
];
const BODIES: [&str; 20] = [
    "",
    "x",
    "{}",
    "[]",
    "null",
    "[",
    "{\"topic\":",
    "{\"topic\":\"a\",\"payload\":1}",
    "[{\"topic\":\"\",\"payload\":\"\"},7]",
    "{\"topic\":\"a\",\"payload\":\"x\",\"qos\":9e9}",
    "{\"subscriptions\":[{\"filter\":\"a\"}],\"expiry\":4294967295}",
    "{\"subscriptions\":[{\"filter\":\"$share/g/#\",\"qos\":2}],\"overflow\":\"reject\"}",
    "{\"expiry\":0}",
    "{\"cursor\":\"AAAA\"}",
    "{\"cursor\":1}",
    "{\"enabled\":1}",
    "{\"url\":\"http://127.0.0.1/\",\"filters\":[\"#\"]}",
    "{\"url\":\"\",\"filters\":[]}",
    "\u{feff}{}",
    "{\"topic\":\"a\",\"payload\":\"\\ud800\"}",
];

fn pick<'a>(random: &mut Rng, some: &[&'a str]) -> &'a str {
    some[random.usize(..some.len())]
}

/// A request, now and then with a few bytes of it changed.
fn request(random: &mut Rng) -> Vec<u8> {
    let mut target = pick(random, &PATHS).to_owned();
    while target.contains("{}") {
        target = target.replacen("{}", pick(random, &NAMES), 1);
    }
    for n in 0..random.usize(..4) {
        target += if n == 0 { "?" } else { "&" };
        target += &format!("{}={}", pick(random, &KEYS), pick(random, &VALUES));
    }
    let mut bytes = format!("{} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", pick(random, &METHODS));
    for _ in 0..random.usize(..5) {
        bytes += &format!("{}: {}\r\n", pick(random, &FIELDS), pick(random, &TEXTS));
    }
    let body = pick(random, &BODIES);
    match random.u8(..4) {
        0 => bytes += "\r\n",
        1 => bytes += &format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        _ => bytes += &format!("content-length: {}\r\n\r\n{body}", body.len()),
    }
    let mut bytes = bytes.into_bytes();
    if random.u8(..4) == 0 {
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
    }
    bytes
}

/// The beginning of the answer; streams have no end.
async fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut heard = Vec::new();
    drop(stream.write_all(bytes).await);
    // What is not whole gets no answer before this.
    drop(stream.shutdown().await);
    while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
        match timeout(Duration::from_secs(20), stream.read_buf(&mut heard)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            Err(_) => heard = b"HTTP/1.1 599 nothing comes\r\n\r\n".to_vec(),
        }
    }
    heard
}

#[tokio::test]
async fn nothing_that_a_request_contains_makes_a_500() {
    let server = serve_with(Limits::default(), Config { max_wait_s: 1, ..Config::default() }).await;
    let mut random = Rng::with_seed(7);
    for number in 0..REQUESTS {
        let bytes = request(&mut random);
        let heard = answer(&server, &bytes).await;
        let (heard, asked) = (String::from_utf8_lossy(&heard), String::from_utf8_lossy(&bytes));
        // Who closes before the answer, or sends half a request, may hear nothing.
        let Some(status) = heard.get(9..12) else { continue };
        let status: u16 = status.parse().unwrap_or_else(|_| unreachable!("{asked}\n{heard}"));
        // A gateway behind a test's host cannot be switched, and nobody answers requests.
        assert!(status < 500 || matches!(status, 503 | 504), "{number}: {asked}\n{heard}");
        let told = heard.contains("content-type: application/problem+json");
        assert!(status < 400 || told, "{number}: {asked}\n{heard}");
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.drain().await;
}
