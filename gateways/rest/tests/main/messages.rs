//! Bulk and full control.

use crate::harness::{Server, header, json, problem, serve};
use reqwest::{Method, Response};
use serde_json::Value;

async fn send(server: &Server, kind: &str, body: &str) -> Response {
    let request = server.ask(Method::POST, "/v1/messages").header("content-type", kind).body(body.to_owned());
    request.send().await.unwrap()
}

#[tokio::test]
async fn one_object_is_answered_like_a_post_to_its_topic() {
    let server = serve().await;
    let done = send(&server, "application/json", r#"{"topic":"a/../b","payload":{"b":1.0,"a":2},"retain":true}"#).await;
    assert_eq!(done.status(), 200);
    assert_eq!(json(done).await["topic"], "a/../b");
    assert_eq!(server.get("/v1/topics?topic=a/../b").await.text().await.unwrap(), r#"{"b":1.0,"a":2}"#);
    problem(send(&server, "application/json", "{}").await, 400, "bad-body").await;
    problem(send(&server, "text/plain", "{}").await, 415, "unsupported-media-type").await;
    // What curl says of a body whose type nobody said.
    let form = send(&server, "application/x-www-form-urlencoded", r#"{"topic":"a","payload":""}"#).await;
    assert_eq!(form.status(), 200);
    server.drain().await;
}

#[tokio::test]
async fn a_bad_entry_of_an_array_fails_alone() {
    let server = serve().await;
    let good = send(&server, "application/json", r#"[{"topic":"a","payload":"1"}]"#).await;
    assert_eq!(good.status(), 200);
    let mixed = r#"[{"topic":"a","payload":"1"},{"topic":"+","payload":"2"},{"topic":"b","payload_base64":"/w=="}]"#;
    let mixed = send(&server, "application/json; charset=utf-8", mixed).await;
    assert_eq!(mixed.status(), 207);
    let results = json(mixed).await;
    let statuses: Vec<_> = results.as_array().unwrap().iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 400, 200]);
    assert_eq!((&results[1]["type"], &results[2]["topic"]), (&"urn:waystation:problem:bad-topic".into(), &"b".into()));
    server.drain().await;
}

#[tokio::test]
async fn lines_come_back_as_lines_in_order() {
    let server = serve().await;
    let lines: String = (0..1_000)
        .map(
            |n| if n % 100 == 7 { "{bad\n".to_owned() } else { format!("{{\"topic\":\"t/{n}\",\"payload\":{n}}}\n\n") },
        )
        .collect();
    let answer = send(&server, "application/x-ndjson", lines.trim_end()).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, "application/x-ndjson"));
    let text = answer.text().await.unwrap();
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 1_000);
    for (n, result) in results.iter().enumerate() {
        if n % 100 == 7 {
            assert_eq!(result["status"], 400);
        } else {
            assert_eq!((&result["status"], &result["topic"]), (&200.into(), &format!("t/{n}").into()));
        }
    }
    server.drain().await;
}
