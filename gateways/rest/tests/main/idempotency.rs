//! A request with a key is carried out once.

use crate::harness::{Server, header, json, problem, serve};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::Duration;

async fn ask(server: &Server, method: Method, target: &str, key: &str, body: &str) -> Response {
    let request = server.ask(method, target).header("idempotency-key", key).header("content-type", "application/json");
    request.body(body.to_owned()).send().await.unwrap()
}

async fn queued(server: &Server) -> Value {
    json(server.get("/v1/sessions/till").await).await["queued"].clone()
}

async fn listening() -> Server {
    let server = serve().await;
    let body = r##"{"subscriptions":[{"filter":"#"}]}"##;
    assert_eq!(server.put("/v1/sessions/till", body).await.status(), 201);
    server
}

#[tokio::test]
async fn a_repeated_post_is_published_once_and_answered_alike() {
    let server = listening().await;
    let first = ask(&server, Method::POST, "/v1/topics/a?qos=0", "k1", "x").await;
    assert_eq!((first.status().as_u16(), header(&first, "idempotency-replayed")), (200, ""));
    let first = json(first).await;
    let again = ask(&server, Method::POST, "/v1/topics/a?qos=0", "k1", "x").await;
    assert_eq!((again.status().as_u16(), header(&again, "idempotency-replayed")), (200, "true"));
    assert_eq!(json(again).await, first);
    assert_eq!(queued(&server).await, 1);
    for (target, body) in [("/v1/topics/b?qos=0", "x"), ("/v1/topics/a?qos=1", "x"), ("/v1/topics/a?qos=0", "y")] {
        problem(ask(&server, Method::POST, target, "k1", body).await, 422, "key-reused").await;
    }
    problem(ask(&server, Method::POST, "/v1/topics/a", "no key", "x").await, 400, "bad-request").await;
    server.clock.advance(Duration::from_secs(600));
    let later = ask(&server, Method::POST, "/v1/topics/a?qos=0", "k1", "x").await;
    assert_ne!(json(later).await["id"], first["id"]);
    server.drain().await;
}

#[tokio::test]
async fn a_repeated_put_is_answered_before_its_precondition_is_looked_at() {
    let server = serve().await;
    let put = || {
        let request = server.ask(Method::PUT, "/v1/topics/a").header("idempotency-key", "k");
        request.header("if-none-match", "*").body("1").send()
    };
    let first = put().await.unwrap();
    let etag = header(&first, "etag").to_owned();
    assert_eq!(first.status(), 200);
    let again = put().await.unwrap();
    assert_eq!((again.status().as_u16(), header(&again, "etag")), (200, etag.as_str()));
    // Errors are not kept: after the state is gone, the refused request passes.
    let refused =
        || server.ask(Method::PUT, "/v1/topics/a").header("idempotency-key", "k2").header("if-none-match", "*");
    problem(refused().body("2").send().await.unwrap(), 412, "precondition-failed").await;
    assert_eq!(server.ask(Method::DELETE, "/v1/topics/a").send().await.unwrap().status(), 204);
    assert_eq!(refused().body("2").send().await.unwrap().status(), 200);
    server.drain().await;
}

#[tokio::test]
async fn concurrent_repeats_are_published_once() {
    let server = listening().await;
    let all: Vec<_> = (0..20)
        .map(|_| {
            let request = server.ask(Method::POST, "/v1/topics/a").header("idempotency-key", "k").body("x");
            tokio::spawn(request.send())
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for one in all {
        ids.insert(json(one.await.unwrap().unwrap()).await["id"].to_string());
    }
    assert_eq!((ids.len(), queued(&server).await), (1, 1.into()));
    server.drain().await;
}

#[tokio::test]
async fn arrays_and_lines_have_keys_too() {
    let server = listening().await;
    let array = r#"[{"topic":"+","payload":""},{"topic":"a","payload":"1"},{"topic":"b","payload":"2"}]"#;
    let first = ask(&server, Method::POST, "/v1/messages", "k", array).await;
    assert_eq!((first.status().as_u16(), header(&first, "idempotency-replayed")), (207, ""));
    let first = json(first).await;
    let again = ask(&server, Method::POST, "/v1/messages", "k", array).await;
    assert_eq!((again.status().as_u16(), header(&again, "idempotency-replayed")), (207, "true"));
    assert_eq!(json(again).await, first);
    assert_eq!(queued(&server).await, 2);
    let other = r#"[{"topic":"a","payload":"1"}]"#;
    problem(ask(&server, Method::POST, "/v1/messages", "k", other).await, 422, "key-reused").await;
    let object = r#"{"topic":"a","payload":"1"}"#;
    problem(ask(&server, Method::POST, "/v1/messages", "k", object).await, 422, "key-reused").await;

    let own = json!({"topic":"a","payload":"1","idempotency_key":"l"}).to_string();
    problem(ask(&server, Method::POST, "/v1/messages", "m", &own).await, 400, "bad-body").await;
    let lines = || server.ask(Method::POST, "/v1/messages").header("content-type", "application/x-ndjson");
    problem(lines().header("idempotency-key", "m").body(own.clone()).send().await.unwrap(), 400, "bad-request").await;
    let results = lines().body(format!("{own}\n{own}\n")).send().await.unwrap().text().await.unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results[0]["id"], results[1]["id"]);
    assert_eq!(
        (&results[0]["idempotency_replayed"], &results[1]["idempotency_replayed"]),
        (&Value::Null, &true.into())
    );
    assert_eq!(queued(&server).await, 3);
    server.drain().await;
}
