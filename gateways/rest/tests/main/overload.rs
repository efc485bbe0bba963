//! Too much, too slow, too late, and who is not known.

use crate::harness::{LONG, header, problem, serve, serve_with};
use reqwest::Method;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use waystation_broker::{
    Budget, ClientId, Filter, Hello, Interest, Limits, Peer, Pick, Qos, RetainHandling, Subscription, Taken,
};
use waystation_rest::Config;

/// What a server says to these bytes until it closes the connection.
async fn said(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may have heard enough before it has heard all.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_cut_off() {
    let server = serve().await;
    let head = "POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nslow";
    let answer = said(server.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("urn:waystation:problem:request-timeout") && answer.contains("connection: close"));
    server.drain().await;
}

#[tokio::test(start_paused = true)]
async fn silent_lines_are_cut_off_after_their_results() {
    let server = serve().await;
    let head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
        content-length: 100\r\n\r\n{\"topic\":\"a\",\"payload\":\"1\"}\n{\"topic\"";
    let answer = said(server.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"topic\":\"a\""), "{answer}");
    assert!(answer.contains("\"type\":\"urn:waystation:problem:request-timeout\""), "{answer}");
    server.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_cut_off() {
    let server = serve().await;
    let start = tokio::time::Instant::now();
    for head in ["", "GET /v1/top", "GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n"] {
        assert!(!said(server.address, head.as_bytes()).await.contains(" 200 "), "{head}");
    }
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
    server.drain().await;
}

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let server = serve().await;
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    for flood in [many, long] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{flood}\r\n");
        let answer = said(server.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("problem:head-too-large"), "{answer}");
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.drain().await;
}

#[tokio::test]
async fn a_connection_too_many_is_told_to_come_back() {
    let server = serve_with(Limits { max_connections: 1, ..Limits::default() }, Config::default()).await;
    let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(head).await.unwrap();
    first.read_exact(&mut [0; 12]).await.unwrap();
    let answer = said(server.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("urn:waystation:problem:busy"), "{answer}");
    drop(first);
    server.drain().await;
}

#[tokio::test]
async fn who_sends_a_large_body_without_asking_reads_the_refusal_too() {
    let server = serve().await;
    let large = vec![b'x'; 16 << 20];
    for head in ["content-length: 16777216\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1000000\r\n"] {
        let end: &[u8] = if head.starts_with('t') { b"\r\n0\r\n\r\n" } else { b"" };
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}");
        // Like a client that reads nothing before it has sent everything.
        for part in [head.as_bytes(), &large, end] {
            stream.write_all(part).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    server.drain().await;
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    let server = serve().await;
    let head =
        "POST /v1/topics/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\nexpect: 100-continue\r\n\r\n";
    let answer = said(server.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains("100 Continue"), "{answer}");
    server.drain().await;
}

#[tokio::test]
async fn media_types_that_are_not_served_or_taken_are_named() {
    let server = serve().await;
    for target in ["/v1/sessions", "/v1/clients", "/v1/topics", "/v1/stream?filter=a", "/v1/sessions/a/messages"] {
        let answer = server.ask(Method::GET, target).header("accept", "text/html").send().await.unwrap();
        problem(answer, 406, "not-acceptable").await;
    }
    for target in ["/v1/sessions/a", "/v1/gateways/mqtt"] {
        let answer = server.ask(Method::PUT, target).header("content-type", "text/plain").body("{}");
        problem(answer.send().await.unwrap(), 415, "unsupported-media-type").await;
    }
    let coded = server.ask(Method::POST, "/v1/topics/a").header("content-encoding", "gzip").body("x");
    problem(coded.send().await.unwrap(), 415, "unsupported-media-type").await;
    server.drain().await;
}

#[tokio::test]
async fn a_login_that_is_none_is_challenged() {
    let server = serve().await;
    let answer = server.ask(Method::GET, "/v1/sessions").header("authorization", "Digest x").send().await.unwrap();
    assert!(header(&answer, "www-authenticate").starts_with("Basic "));
    problem(answer, 401, "unauthenticated").await;
    server.drain().await;
}

#[tokio::test]
async fn a_server_without_places_says_when_to_come_back() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let server = serve_with(limits, Config::default()).await;
    let peer = Peer::direct("127.0.0.1:5000".parse().unwrap());
    let attach = |id| server.broker.attach(Hello::new("mqtt".into(), peer, ClientId::new(id)));
    let _others = (attach("a").await.unwrap(), attach("b").await.unwrap());
    let refused = server.get("/v1/stream?filter=a").await;
    assert_eq!(header(&refused, "retry-after"), "1");
    problem(refused, 503, "busy").await;
    server.drain().await;
}

#[tokio::test]
async fn a_queue_that_refuses_tells_the_publisher() {
    let server = serve().await;
    let session = r#"{"subscriptions":[{"filter":"a"}],"max_queued_messages":1,"overflow":"reject"}"#;
    assert_eq!(server.put("/v1/sessions/small", session).await.status(), 201);
    assert_eq!(server.post("/v1/topics/a", "1").await.status(), 200);
    let refused = server.post("/v1/topics/a", "2").await;
    assert_eq!(header(&refused, "retry-after"), "1");
    problem(refused, 429, "quota-exceeded").await;
    server.drain().await;
}

#[tokio::test]
async fn who_waits_when_the_server_stops_is_told() {
    let server = serve().await;
    let peer = Peer::direct("127.0.0.1:5000".parse().unwrap());
    let hello = Hello { properties: true, ..Hello::new("mqtt".into(), peer, ClientId::new("silent")) };
    let mut silent = server.broker.attach(hello).await.unwrap().link;
    let wanted = Subscription::new(Filter::parse("ask").unwrap(), Qos::AtMostOnce);
    silent.subscribe(&[Subscription { retain_handling: RetainHandling::DoNotSend, ..wanted }], &mut Vec::new());
    let asked = tokio::spawn(server.ask(Method::POST, "/v1/request/ask?timeout=15").send());
    let one = Budget { messages: 1, bytes: usize::MAX };
    // An event alone may speak of nothing: the question has been put when it is here.
    while silent.take(Pick::Unsent, one, |_| Taken::Sent) == 0 {
        tokio::time::timeout(LONG, silent.event(Interest::Everything)).await.unwrap();
    }
    server.drain().await;
    let answer = tokio::time::timeout(LONG, asked).await.unwrap().unwrap().unwrap();
    problem(answer, 503, "stopping").await;
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_nothing_to_say_is_kept_open() {
    let server = serve().await;
    for (accept, sign) in [("text/event-stream", ":\n\n"), ("application/x-ndjson", "\n")] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET /v1/stream?filter=a HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("\r\n{:x}\r\n{sign}\r\n", sign.len());
        let start = tokio::time::Instant::now();
        let mut heard = Vec::new();
        // One at the start, and one every 15 s.
        while String::from_utf8_lossy(&heard).matches(&chunk[2..]).count() < 4 {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
        }
        assert_eq!(start.elapsed().as_secs(), 45, "{accept}");
    }
    server.drain().await;
}
