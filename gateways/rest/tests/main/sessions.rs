//! Sessions: pull with a cursor, and push.

use crate::harness::{Server, header, json, problem, serve, serve_with};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::Duration;
use waystation_broker::{ClientId, Hello, Limits, Peer, Start, Takeover};
use waystation_rest::Config;

async fn make(server: &Server, id: &str, filter: &str) {
    let body = json!({ "subscriptions": [{ "filter": filter }] }).to_string();
    assert_eq!(server.put(&format!("/v1/sessions/{id}"), &body).await.status(), 201);
}

async fn read(server: &Server, id: &str, query: &str) -> Value {
    let response = server.get(&format!("/v1/sessions/{id}/messages?{query}")).await;
    assert_eq!((response.status().as_u16(), header(&response, "cache-control")), (200, "no-store"));
    json(response).await
}

fn payloads(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["payload"].as_str().unwrap()).collect()
}

fn hello(id: &str) -> Hello {
    Hello { start: Start::Resume, expiry: 60, ..Hello::new("mqtt".into(), Peer::INTERNAL, ClientId::new(id)) }
}

#[tokio::test]
async fn messages_come_again_until_their_cursor_is_given_back() {
    let server = serve().await;
    make(&server, "till", "a/#").await;
    for payload in ["1", "2", "3"] {
        assert_eq!(json(server.post("/v1/topics/a/b", payload).await).await["matched"], 1);
    }
    let page = read(&server, "till", "max=2").await;
    assert_eq!((payloads(&page), &page["missed"]), (vec!["1", "2"], &0.into()));
    assert_eq!(page["messages"][1]["cursor"], page["cursor"]);
    assert_eq!(payloads(&read(&server, "till", "").await), ["1", "2", "3"]);
    let after = format!("after={}", page["cursor"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(payloads(&read(&server, "till", &after).await), ["3"]);
    }
    let shown = json(server.get("/v1/sessions/till").await).await;
    assert_eq!((&shown["queued"], &shown["delivered"], &shown["dropped"]), (&1.into(), &2.into(), &0.into()));
    server.drain().await;
}

#[tokio::test]
async fn a_message_keeps_all_it_was_published_with() {
    let server = serve().await;
    make(&server, "till", "a").await;
    let target = "/v1/topics/a?expiry=90&user.k=v&user.k=w&response_topic=r&correlation_data=_wA&qos=1";
    let sent = server.ask(Method::POST, target).header("content-type", "text/x-test").body(vec![0xFF]);
    let id = json(sent.send().await.unwrap()).await["id"].clone();
    server.clock.advance(Duration::from_secs(30));
    let page = read(&server, "till", "").await;
    let message = &page["messages"][0];
    assert_eq!(message["id"], id);
    assert_eq!(message["payload_base64"], "/w==");
    assert_eq!(message["payload"], Value::Null);
    assert_eq!(message["expiry"], 60);
    assert_eq!(message["content_type"], "text/x-test");
    assert_eq!(message["response_topic"], "r");
    assert_eq!(message["correlation_data"], "_wA");
    assert_eq!(message["user_properties"], json!([["k", "v"], ["k", "w"]]));
    assert_eq!((&message["qos"], &message["retain"], &message["duplicate"]), (&1.into(), &false.into(), &false.into()));
    assert_eq!(message["time"], "2023-11-14T22:13:20.000Z");
    server.clock.advance(Duration::from_secs(61));
    assert_eq!(server.get("/v1/sessions/till/messages").await.status(), 204);
    server.drain().await;
}

#[tokio::test]
async fn a_read_waits_for_what_comes_and_says_when_nothing_did() {
    let server = serve().await;
    make(&server, "till", "a").await;
    let empty = server.get("/v1/sessions/till/messages").await;
    assert_eq!(empty.status(), 204);
    assert!(!header(&empty, "waystation-cursor").is_empty());
    let held = tokio::spawn(server.ask(Method::GET, "/v1/sessions/till/messages?wait=15").send());
    server.attached(1).await;
    server.post("/v1/topics/a?qos=0", "now").await;
    assert_eq!(payloads(&json(held.await.unwrap().unwrap()).await), ["now"]);
    server.drain().await;
}

#[tokio::test]
async fn of_two_readers_the_newest_wins_and_an_mqtt_client_is_left_alone() {
    let server = serve().await;
    make(&server, "till", "a").await;
    let older = tokio::spawn(server.ask(Method::GET, "/v1/sessions/till/messages?wait=15").send());
    server.attached(1).await;
    assert_eq!(server.get("/v1/sessions/till/messages").await.status(), 204);
    assert_eq!(older.await.unwrap().unwrap().status(), 204);

    let held = server.broker.attach(hello("till")).await.unwrap();
    problem(server.get("/v1/sessions/till/messages").await, 409, "session-in-use").await;
    problem(server.put("/v1/sessions/till", "{}").await, 409, "session-in-use").await;
    let gone = server.ask(Method::DELETE, "/v1/sessions/till").send().await.unwrap();
    problem(gone, 409, "session-in-use").await;
    assert_eq!(server.get("/v1/sessions/till/messages?takeover=true").await.status(), 204);
    drop(held);

    let reader = tokio::spawn(server.ask(Method::GET, "/v1/sessions/till/messages?wait=15").send());
    server.attached(1).await;
    let held = server.broker.attach(Hello { takeover: Takeover::Always, ..hello("till") }).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().status(), 204);
    drop(held);
    server.drain().await;
}

#[tokio::test]
async fn cursors_are_good_for_their_session_only() {
    let server = serve().await;
    make(&server, "till", "a").await;
    make(&server, "tilt", "a").await;
    server.post("/v1/topics/a", "1").await;
    server.post("/v1/topics/a", "2").await;
    let page = read(&server, "till", "max=1").await;
    let cursor = page["cursor"].as_str().unwrap();
    problem(server.get(&format!("/v1/sessions/tilt/messages?after={cursor}")).await, 400, "bad-cursor").await;
    problem(server.get("/v1/sessions/till/messages?after=nonsense").await, 400, "bad-cursor").await;
    problem(server.get("/v1/sessions/none/messages").await, 404, "no-session").await;
    problem(server.get("/v1/sessions/none/messages?after=nonsense").await, 404, "no-session").await;
    let nonsense = server.ask(Method::POST, "/v1/sessions/none/ack").body(r#"{"cursor":"nonsense"}"#).send();
    problem(nonsense.await.unwrap(), 404, "no-session").await;
    problem(server.get("/v1/sessions/%24own/messages").await, 400, "bad-request").await;
    let acknowledged = server.post("/v1/sessions/till/ack", &json!({ "cursor": cursor }).to_string()).await;
    assert_eq!(acknowledged.status(), 204);
    assert_eq!(payloads(&read(&server, "till", "").await), ["2"]);
    // Nor is it one of the next session that has the name.
    assert_eq!(server.ask(Method::DELETE, "/v1/sessions/till").send().await.unwrap().status(), 204);
    server.put("/v1/sessions/till", r#"{"subscriptions":[{"filter":"a"}]}"#).await;
    server.post("/v1/topics/a", "1").await;
    read(&server, "till", "").await;
    problem(server.get(&format!("/v1/sessions/till/messages?after={cursor}")).await, 400, "bad-cursor").await;
    server.drain().await;
}

#[tokio::test]
async fn a_put_replaces_the_subscriptions_and_keeps_the_queue() {
    let server = serve().await;
    server.put("/v1/topics/b", "state").await;
    make(&server, "till", "a").await;
    server.post("/v1/topics/a", "1").await;
    let body = json!({ "subscriptions": [{ "filter": "b", "qos": 0 }], "expiry": 7 }).to_string();
    let changed = server.put("/v1/sessions/till", &body).await;
    assert_eq!(changed.status(), 200);
    let changed = json(changed).await;
    assert_eq!((&changed["subscriptions"], &changed["expiry"]), (&json!([{ "filter": "b", "qos": 0 }]), &7.into()));
    assert_eq!(json(server.post("/v1/topics/a", "2").await).await["matched"], 0);
    let mut all = payloads(&read(&server, "till", "").await).join(" ");
    assert_eq!(all, "1 state");
    server.put("/v1/sessions/till", &body).await;
    all = payloads(&read(&server, "till", "").await).join(" ");
    assert_eq!(all, "1 state");

    problem(server.put("/v1/sessions/till", r#"{"typo":1}"#).await, 400, "bad-body").await;
    assert_eq!(server.put("/v1/sessions/new", r#"{"subscriptions":[{"filter":"a/#/b"}]}"#).await.status(), 400);
    assert_eq!(server.get("/v1/sessions/new").await.status(), 404);
    let listed = json(server.get("/v1/sessions").await).await;
    assert_eq!((&listed["sessions"][0]["id"], &listed["next"]), (&"till".into(), &Value::Null));
    assert_eq!(server.ask(Method::DELETE, "/v1/sessions/till").send().await.unwrap().status(), 204);
    problem(server.get("/v1/sessions/till").await, 404, "no-session").await;
    server.drain().await;
}

#[tokio::test]
async fn what_a_full_queue_lost_is_told_until_it_is_acknowledged() {
    let limits = Limits { max_queued_messages: 2, ..Limits::default() };
    let server = serve_with(limits, Config::default()).await;
    make(&server, "till", "a").await;
    for payload in ["1", "2", "3", "4", "5"] {
        server.post("/v1/topics/a", payload).await;
    }
    let mut page = read(&server, "till", "").await;
    for _ in 0..2 {
        assert_eq!((payloads(&page), &page["missed"]), (vec!["4", "5"], &3.into()));
        page = read(&server, "till", "").await;
    }
    server.post("/v1/sessions/till/ack", &json!({ "cursor": page["cursor"] }).to_string()).await;
    server.post("/v1/topics/a", "6").await;
    let page = read(&server, "till", "").await;
    assert_eq!((payloads(&page), &page["missed"]), (vec!["6"], &0.into()));
    server.drain().await;
}

/// Reads a stream until it holds `end`.
async fn stream_until(response: &mut Response, text: &mut String, end: &str) {
    while !text.contains(end) {
        let chunk = response.chunk().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[tokio::test]
async fn a_session_is_pushed_as_events_that_resume_and_are_acknowledged_beside_it() {
    let server = serve().await;
    make(&server, "till", "a").await;
    server.post("/v1/topics/a", "one").await;
    let ask = || server.ask(Method::GET, "/v1/sessions/till/messages").header("accept", "text/event-stream");
    let mut stream = ask().send().await.unwrap();
    assert_eq!(header(&stream, "content-type"), "text/event-stream");
    let mut text = String::new();
    stream_until(&mut stream, &mut text, "one").await;
    server.post("/v1/topics/a", "two").await;
    stream_until(&mut stream, &mut text, "\"two\"").await;
    let first = text.split("id: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
    let acknowledged = server.post("/v1/sessions/till/ack", &json!({ "cursor": first }).to_string()).await;
    assert_eq!(acknowledged.status(), 204);
    server.post("/v1/topics/a", "three").await;
    stream_until(&mut stream, &mut text, "three").await;
    assert_eq!(text.matches("data: ").count(), 3);
    // An acknowledgement beside the stream once ate its wake-up: the next message came with the next quiet line.
    assert_eq!(text.lines().filter(|line| *line == ":").count(), 1);

    let last = text.rsplit("id: ").next().unwrap().split('\n').next().unwrap().to_owned();
    let mut again = ask().header("last-event-id", &last).send().await.unwrap();
    let mut text = String::new();
    server.post("/v1/topics/a", "four").await;
    stream_until(&mut again, &mut text, "four").await;
    assert_eq!(text.matches("data: ").count(), 1);
    // The older stream was ended by the newer.
    while stream.chunk().await.unwrap().is_some() {}
    drop(again);
    server.drain().await;
}

#[tokio::test]
async fn a_stream_without_a_session_has_retained_first_and_ends_with_the_server() {
    let server = serve().await;
    server.put("/v1/topics/a/1", "kept").await;
    let lines = server.ask(Method::GET, "/v1/stream?filter=a/%23&filter=b").header("accept", "application/x-ndjson");
    let mut stream = lines.send().await.unwrap();
    let mut text = String::new();
    stream_until(&mut stream, &mut text, "kept").await;
    server.post("/v1/topics/b", "live").await;
    stream_until(&mut stream, &mut text, "live").await;
    let messages: Vec<Value> =
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&messages[0]["retain"], &messages[1]["retain"]), (&true.into(), &false.into()));
    assert_eq!((messages.len(), &messages[0]["cursor"]), (2, &Value::Null));
    problem(server.get("/v1/stream").await, 400, "bad-query").await;
    server.drain().await;
    while let Some(chunk) = stream.chunk().await.unwrap() {
        assert_eq!(chunk.trim_ascii(), b"");
    }
}
