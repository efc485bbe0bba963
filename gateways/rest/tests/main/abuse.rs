//! What a client may do to HTTP/1 itself, byte by byte, and how readers that wait are served without hyper.

use crate::harness::{LONG, Server, header, json, problem, serve};
use reqwest::Method;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A connection that is spoken on by hand.
struct Raw(TcpStream);

impl Raw {
    async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes until `end` has come.
    async fn until(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let reading = async {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(self.0.read_u8().await.unwrap());
            }
        };
        timeout(LONG, reading).await.unwrap();
        String::from_utf8(heard).unwrap()
    }

    /// What comes until the server closes; not a reset.
    async fn rest(&mut self) -> String {
        let mut heard = Vec::new();
        timeout(LONG, self.0.read_to_end(&mut heard)).await.unwrap().unwrap();
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// Everything the server says to these bytes.
async fn said(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::open(server.address).await;
    raw.say(bytes).await;
    raw.rest().await
}

fn is_problem(answer: &str, status: u16, kind: &str) -> bool {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    answer.starts_with(&format!("HTTP/1.1 {status} "))
        && head.contains("content-type: application/problem+json")
        && answer.contains(&format!("urn:waystation:problem:{kind}\""))
        && answer.contains(&format!("\"status\":{status}"))
}

#[tokio::test]
async fn what_is_no_http_is_told_so_as_a_problem() {
    let server = serve().await;
    for bytes in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}",
        "hello\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n",
        "GET  /healthz  HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health z HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nspace : x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nfolded: a\r\n b\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nnul: a\0b\r\n\r\n",
    ] {
        let answer = said(&server, bytes).await;
        assert!(is_problem(&answer, 400, "bad-request") && answer.contains("connection: close"), "{bytes}: {answer}");
    }
    server.drain().await;
}

#[tokio::test]
async fn no_request_hides_in_another() {
    let server = serve().await;
    let hidden = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for lengths in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 2\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "content-length: 0x1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: gzip\r\n",
    ] {
        let bytes = format!("POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\n0\r\n\r\n{hidden}");
        let answer = said(&server, &bytes).await;
        assert!(!answer.contains("\"survives\""), "{lengths}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 200 "), "{lengths}: {answer}");
    }
    server.drain().await;
}

#[tokio::test]
async fn a_body_in_bad_chunks_is_refused() {
    let server = serve().await;
    for chunks in ["x\r\n", "5\r\nabc\r\n", "1\r\nab\r\n", "fffffffffffffffff\r\n", "1;\r\na\r\n-1\r\n", "3\r\nab"] {
        let head = "POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut raw = Raw::open(server.address).await;
        raw.say(format!("{head}{chunks}")).await;
        raw.0.shutdown().await.unwrap();
        let answer = raw.rest().await;
        assert!(answer.is_empty() || is_problem(&answer, 400, "bad-body"), "{chunks:?}: {answer}");
    }
    let huge = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(100_000));
    let head = "POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(!said(&server, format!("{head}{huge}")).await.starts_with("HTTP/1.1 2"));
    server.drain().await;
}

#[tokio::test]
async fn targets_in_every_form_are_answered() {
    let server = serve().await;
    let get = async |target: &str| {
        let bytes = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        said(&server, bytes).await
    };
    for (target, status) in [
        ("http://localhost/healthz", 200),
        ("http://localhost:1/v1/topics//a//b", 404),
        ("http://evil.example/healthz", 421),
        ("//evil.example/healthz", 404),
        ("/v1/topics/a/../../../healthz", 404),
        ("/v1/topics/%2e%2e/%2f", 404),
        ("/v1/topics/%00", 400),
        ("/v1/topics/%ff", 400),
        ("/v1/topics/a?wait=%00", 400),
        ("/v1/sessions/%00", 400),
        ("/v1/clients/%ff", 400),
        ("/healthz?", 200),
        ("/healthz?&&", 200),
        ("/healthz#fragment", 200),
    ] {
        let answer = get(target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
        assert!(status < 400 || answer.contains("application/problem+json"), "{target}: {answer}");
    }
    for request in ["OPTIONS * HTTP/1.1\r\nhost: localhost\r\n", "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n"]
    {
        let answer = said(&server, format!("{request}connection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{request}: {answer}");
    }
    server.drain().await;
}

#[tokio::test]
async fn a_target_or_a_head_that_is_too_long_is_told_so() {
    let server = serve().await;
    for length in [33 << 10, 62 << 10, 80 << 10] {
        let answer = said(
            &server,
            format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "a".repeat(length)),
        )
        .await;
        assert!(is_problem(&answer, 414, "uri-too-long"), "{length}: {answer}");
    }
    let answer = said(&server, format!("GET /{} HTTP/1.1\r\n", "a".repeat(200_000))).await;
    assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"), "{answer}");
    let long = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    assert!(is_problem(&said(&server, long).await, 431, "head-too-large"));
    server.drain().await;
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let server = serve().await;
    let answer = said(&server, "GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with('}'), "{answer}");
    // Without chunks the end of the connection is the end of the stream.
    let mut raw = Raw::open(server.address).await;
    raw.say("GET /v1/stream?filter=a HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    let head = raw.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(raw.until(":\n\n").await, ":\n\n");
    server.post("/v1/topics/a", "x").await;
    assert!(raw.until("\n\n").await.starts_with("data: {"));
    server.drain().await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn ranges_are_passed_over_and_bytes_after_the_end_are_no_request() {
    let server = serve().await;
    server.put("/v1/topics/a", "0123456789").await;
    let part = server.ask(Method::GET, "/v1/topics/a").header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (200, "0123456789"));
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = said(&server, format!("{request}garbage\r\n\r\n")).await;
    let (first, second) = answer.split_once("null}").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 ") && is_problem(second, 400, "bad-request"), "{answer}");
    server.drain().await;
}

#[tokio::test]
async fn who_expects_to_be_asked_for_a_body_is_asked() {
    let server = serve().await;
    let mut raw = Raw::open(server.address).await;
    raw.say("POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(raw.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.say("x").await;
    assert!(raw.until("}").await.starts_with("HTTP/1.1 200 OK\r\n"));
    server.drain().await;
}

#[tokio::test]
async fn an_answer_that_comes_early_is_read_by_who_is_still_sending() {
    let server = serve().await;
    let large = vec![b'x'; 8 << 20];
    for target in ["/v1/nowhere", "/v1/topics/%23", "/v1/topics/a?typo=1", "/v1/clients"] {
        let mut raw = Raw::open(server.address).await;
        raw.say(format!("POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", large.len())).await;
        // Like a client that reads nothing before it has sent everything.
        raw.say(&large).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"), "{target}: {answer}");
    }
    server.drain().await;
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_a_row() {
    let server = serve().await;
    let wait = "GET /v1/topics/a?wait=15 HTTP/1.1\r\nhost: localhost\r\nx-request-id: waits\r\n\r\n";
    let health = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-request-id: next\r\n";
    let mut raw = Raw::open(server.address).await;
    raw.say(format!("{health}\r\n{wait}{wait}{health}connection: close\r\n\r\n")).await;
    let first = raw.until("null}").await;
    assert!(first.contains("x-request-id: next"), "{first}");
    server.attached(1).await;
    server.put("/v1/topics/a", "state").await;
    let rest = raw.rest().await;
    let answers: Vec<&str> = rest.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(answers.len(), 3, "{rest}");
    assert!(answers[..2].iter().all(|one| one.contains("x-request-id: waits") && one.ends_with("\r\n\r\nstate")));
    assert!(answers[2].contains("x-request-id: next"), "{rest}");
    server.drain().await;
}

#[tokio::test]
async fn a_connection_goes_on_after_a_held_read_and_ends_when_it_is_asked_to() {
    let server = serve().await;
    assert_eq!(server.put("/v1/sessions/s", r#"{"subscriptions":[{"filter":"a"}]}"#).await.status(), 201);
    let read = "GET /v1/sessions/s/messages?wait=15 HTTP/1.1\r\nhost: localhost\r\n";
    let mut raw = Raw::open(server.address).await;
    for payload in ["1", "2", "3"] {
        raw.say(format!("{read}\r\n")).await;
        server.attached(1).await;
        server.post("/v1/topics/a", payload).await;
        let head = raw.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("preference-applied: wait=15\r\n"), "{head}");
        assert!(head.contains("\r\ndate: ") && head.contains("cache-control: no-store") && !head.contains("close"));
        let page = raw.until("\"missed\":0}").await;
        assert!(page.contains(&format!("\"payload\":\"{payload}\"")), "{page}");
        let cursor = page.split("\"cursor\":\"").last().unwrap().split('"').next().unwrap();
        let ack = format!("{{\"cursor\":\"{cursor}\"}}");
        assert_eq!(server.post("/v1/sessions/s/ack", &ack).await.status(), 204);
    }
    raw.say(format!("{read}connection: close\r\n\r\n")).await;
    server.attached(1).await;
    server.post("/v1/topics/a", "4").await;
    let last = raw.rest().await;
    assert!(last.contains("connection: close\r\n") && last.ends_with("\"missed\":0}"), "{last}");
    server.drain().await;
}

#[tokio::test]
async fn a_held_read_with_a_body_is_answered_like_any_other() {
    let server = serve().await;
    let held = server.ask(Method::GET, "/v1/topics/a?wait=15").body("what for?").send();
    let held = tokio::spawn(held);
    server.attached(1).await;
    server.put("/v1/topics/a", "1").await;
    assert_eq!(held.await.unwrap().unwrap().text().await.unwrap(), "1");
    server.drain().await;
}

#[tokio::test]
async fn a_stream_is_whole_in_chunks_and_refusals_of_it_are_plain_answers() {
    let server = serve().await;
    let mut raw = Raw::open(server.address).await;
    raw.say("GET /v1/stream?filter=a HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n").await;
    let head = raw.until("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && head.contains("x-request-id: "), "{head}");
    assert_eq!(raw.until("1\r\n\n\r\n").await, "1\r\n\n\r\n");
    server.post("/v1/topics/a", "x").await;
    let piece = raw.until("}\n\r\n").await;
    let (length, line) = piece.split_once("\r\n").unwrap();
    assert_eq!(usize::from_str_radix(length, 16).unwrap(), line.len() - 2);
    problem(server.get("/v1/stream?filter=a%23").await, 400, "bad-topic").await;
    let head = server.ask(Method::HEAD, "/v1/stream?filter=a").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-type")), (200, "text/event-stream"));
    server.drain().await;
    assert_eq!(raw.rest().await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_or_streams_is_gone_at_once() {
    let server = serve().await;
    server.put("/v1/sessions/s", r#"{"subscriptions":[{"filter":"a"}]}"#).await;
    for target in ["/v1/topics/a?wait=50", "/v1/sessions/s/messages?wait=50", "/v1/stream?filter=b"] {
        let mut raw = Raw::open(server.address).await;
        raw.say(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        server.attached(1).await;
        drop(raw);
        server.attached(0).await;
    }
    let shown = json(server.get("/v1/sessions/s").await).await;
    assert_eq!(shown["id"], "s");
    server.drain().await;
}

#[tokio::test]
async fn who_closes_its_side_behind_its_request_is_answered_unless_it_is_to_wait() {
    let server = serve().await;
    let health = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let post = "POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx";
    let lines = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
        content-length: 27\r\n\r\n{\"topic\":\"a\",\"payload\":\"x\"}";
    let wait = "GET /v1/topics/a?wait=50 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (request, is_answered) in [(health, true), (post, true), (lines, true), (wait, false)] {
        for _ in 0..20 {
            let mut raw = Raw::open(server.address).await;
            raw.say(request).await;
            raw.0.shutdown().await.unwrap();
            assert_eq!(raw.rest().await.starts_with("HTTP/1.1 200 OK\r\n"), is_answered, "{request}");
        }
    }
    server.attached(0).await;
    server.drain().await;
}

#[tokio::test]
async fn who_asks_and_goes_leaves_nobody_waiting_for_the_reply() {
    let server = serve().await;
    server.put("/v1/sessions/s", r#"{"subscriptions":[{"filter":"ask"}]}"#).await;
    let mut raw = Raw::open(server.address).await;
    raw.say("POST /v1/request/ask?timeout=50 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n?").await;
    server.attached(1).await;
    drop(raw);
    server.attached(0).await;
    server.drain().await;
}
