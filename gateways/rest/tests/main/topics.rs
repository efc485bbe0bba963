//! Messages and state, by topic.

use crate::harness::{header, json, problem, serve, serve_with};
use reqwest::Method;
use std::time::Duration;
use waystation_broker::Limits;
use waystation_rest::Config;

#[tokio::test]
async fn a_state_is_set_read_and_cleared() {
    let server = serve().await;
    problem(server.get("/v1/topics/house//lamp").await, 404, "no-state").await;
    let put = server.ask(Method::PUT, "/v1/topics/house//lamp?qos=2").header("content-type", "text/plain").body("on");
    let put = put.send().await.unwrap();
    let etag = header(&put, "etag").to_owned();
    let body = json(put).await;
    assert_eq!((&body["topic"], &body["retain"], &body["qos"]), (&"house//lamp".into(), &true.into(), &2.into()));
    assert_eq!(format!("\"{}\"", body["id"].as_str().unwrap()), etag);

    let got = server.get("/v1/topics?topic=house//lamp").await;
    assert_eq!((header(&got, "etag"), header(&got, "content-type")), (etag.as_str(), "text/plain"));
    assert_eq!((header(&got, "waystation-qos"), header(&got, "cache-control")), ("2", "no-cache"));
    assert!(!header(&got, "last-modified").is_empty());
    assert_eq!(got.text().await.unwrap(), "on");

    let head = server.ask(Method::HEAD, "/v1/topics/house//lamp?wait=30").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "etag")), (200, etag.as_str()));
    for _ in 0..2 {
        let gone = server.ask(Method::DELETE, "/v1/topics/house//lamp").send().await.unwrap();
        assert_eq!(gone.status(), 204);
    }
    problem(server.get("/v1/topics/house//lamp").await, 404, "no-state").await;
    server.drain().await;
}

#[tokio::test]
async fn an_event_is_not_kept_and_equal_bytes_are_a_new_state() {
    let server = serve().await;
    let event = json(server.post("/v1/topics/a", "x").await).await;
    assert_eq!((&event["matched"], &event["retain"], &event["qos"]), (&0.into(), &false.into(), &1.into()));
    assert_eq!(server.get("/v1/topics/a").await.status(), 404);
    let first = header(&server.put("/v1/topics/a", "x").await, "etag").to_owned();
    let second = header(&server.put("/v1/topics/a", "x").await, "etag").to_owned();
    assert_ne!(first, second);
    server.drain().await;
}

#[tokio::test]
async fn changes_honour_their_preconditions() {
    let server = serve().await;
    let put = |name: &'static str, value: String| {
        server.ask(Method::PUT, "/v1/topics/a").header(name, value).body("x").send()
    };
    problem(put("if-match", "*".into()).await.unwrap(), 412, "precondition-failed").await;
    let made = put("if-none-match", "*".into()).await.unwrap();
    assert_eq!(made.status(), 200);
    let etag = header(&made, "etag").to_owned();
    let again = put("if-none-match", "*".into()).await.unwrap();
    assert_eq!(header(&again, "etag"), etag);
    problem(again, 412, "precondition-failed").await;
    let changed = put("if-match", etag.clone()).await.unwrap();
    assert_eq!(changed.status(), 200);
    let stale = server.ask(Method::DELETE, "/v1/topics/a").header("if-match", etag).send().await.unwrap();
    problem(stale, 412, "precondition-failed").await;
    server.drain().await;
}

#[tokio::test]
async fn a_held_read_ends_with_the_change() {
    let server = serve().await;
    let etag = header(&server.put("/v1/topics/a", "1").await, "etag").to_owned();
    let known = server.ask(Method::GET, "/v1/topics/a").header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((known.status().as_u16(), header(&known, "etag")), (304, etag.as_str()));

    let held = server.ask(Method::GET, "/v1/topics/a").header("if-none-match", &etag).header("prefer", "wait=15");
    let held = tokio::spawn(held.send());
    server.attached(1).await;
    server.post("/v1/topics/a", "an event changes no state").await;
    server.put("/v1/topics/a", "2").await;
    let news = held.await.unwrap().unwrap();
    assert_eq!((news.status().as_u16(), header(&news, "preference-applied")), (200, "wait=15"));
    assert_eq!(news.text().await.unwrap(), "2");
    server.attached(0).await;
    server.drain().await;
}

#[tokio::test]
async fn a_held_read_without_state_waits_for_one_and_one_with_state_for_its_end() {
    let server = serve().await;
    let held = tokio::spawn(server.ask(Method::GET, "/v1/topics/a?wait=15").send());
    server.attached(1).await;
    let etag = header(&server.put("/v1/topics/a", "1").await, "etag").to_owned();
    assert_eq!(held.await.unwrap().unwrap().text().await.unwrap(), "1");

    server.attached(0).await;
    let held = server.ask(Method::GET, "/v1/topics/a?wait=15").header("if-none-match", &etag).send();
    let held = tokio::spawn(held);
    server.attached(1).await;
    server.put("/v1/topics/a", "").await;
    problem(held.await.unwrap().unwrap(), 404, "no-state").await;
    server.drain().await;
}

#[tokio::test]
async fn a_client_that_goes_frees_its_wait() {
    let server = serve().await;
    let held = tokio::spawn(server.ask(Method::GET, "/v1/topics/a?wait=30").send());
    server.attached(1).await;
    held.abort();
    server.attached(0).await;
    server.drain().await;
}

#[tokio::test]
async fn held_reads_end_normally_when_the_server_stops_and_long_wishes_are_lowered() {
    let server = serve_with(Limits::default(), Config { max_wait_s: 12, ..Config::default() }).await;
    let held = tokio::spawn(server.ask(Method::GET, "/v1/topics/a?wait=1000").send());
    server.attached(1).await;
    server.drain().await;
    let answer = tokio::time::timeout(Duration::from_secs(5), held).await.unwrap().unwrap().unwrap();
    assert_eq!(header(&answer, "preference-applied"), "wait=12");
    problem(answer, 404, "no-state").await;
}

#[tokio::test]
async fn states_are_listed_in_pages() {
    let server = serve().await;
    for topic in ["a/1", "a/2", "a/3", "b"] {
        server.put(&format!("/v1/topics/{topic}?user.k=v"), topic).await;
    }
    let page = json(server.get("/v1/topics?filter=a/%23&limit=2").await).await;
    let names: Vec<_> = page["topics"].as_array().unwrap().iter().map(|t| t["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["a/1", "a/2"]);
    assert_eq!(page["topics"][0]["user_properties"], serde_json::json!([["k", "v"]]));
    let page =
        json(server.get(&format!("/v1/topics?filter=a/%23&after={}", page["next"].as_str().unwrap())).await).await;
    assert_eq!((page["topics"].as_array().unwrap().len(), &page["next"]), (1, &serde_json::Value::Null));
    server.drain().await;
}

#[tokio::test]
async fn a_head_without_a_body_to_measure_says_no_length() {
    let server = serve().await;
    let put = server.put("/v1/topics/a", "1").await;
    assert_eq!(server.put("/v1/sessions/s", r#"{"subscriptions":[]}"#).await.status(), 201);
    let head = server.ask(Method::HEAD, "/v1/topics/a").header("if-none-match", header(&put, "etag"));
    for (head, status) in [(head, 304), (server.ask(Method::HEAD, "/v1/sessions/s/messages"), 204)] {
        let answer = head.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (status, None));
    }
    assert_eq!(header(&server.ask(Method::HEAD, "/v1/topics/a").send().await.unwrap(), "content-length"), "1");
    server.drain().await;
}

#[tokio::test]
async fn bad_topics_and_large_messages_are_refused() {
    let server = serve_with(Limits { max_packet_size: 1_000, ..Limits::default() }, Config::default()).await;
    for topic in ["a/%23", "%00", "", "a%zz"] {
        assert_eq!(server.post(&format!("/v1/topics/{topic}"), "x").await.status(), 400, "{topic}");
    }
    problem(server.post("/v1/topics/a", &"x".repeat(1_001)).await, 413, "too-large").await;
    problem(server.post("/v1/topics/a", &"x".repeat(1_000)).await, 413, "too-large").await;
    assert_eq!(server.post("/v1/topics/a", &"x".repeat(990)).await.status(), 200);
    problem(server.post("/v1/topics/$SYS/x", "x").await, 403, "forbidden").await;
    server.drain().await;
}
