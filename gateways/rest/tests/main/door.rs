//! What every request passes.

use crate::harness::{header, json, problem, serve, serve_with};
use reqwest::Method;
use waystation_broker::Limits;
use waystation_rest::Config;

#[tokio::test]
async fn errors_of_the_router_are_problems_too() {
    let server = serve().await;
    problem(server.get("/nowhere").await, 404, "no-route").await;
    let refused = server.ask(Method::PATCH, "/v1/messages").send().await.unwrap();
    assert_eq!(header(&refused, "allow"), "POST");
    problem(refused, 405, "method-not-allowed").await;
    problem(server.get("/v1/topics/a?typo=1").await, 400, "bad-query").await;
    problem(server.get(&format!("/v1/topics/{}", "a".repeat(33_000))).await, 414, "uri-too-long").await;
    server.drain().await;
}

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let server = serve().await;
    let echoed = server.ask(Method::GET, "/healthz").header("x-request-id", "abc-1").send().await.unwrap();
    assert_eq!((echoed.status().as_u16(), header(&echoed, "x-request-id")), (200, "abc-1"));
    assert!(!header(&server.get("/readyz").await, "x-request-id").is_empty());
    server.drain().await;
}

#[tokio::test]
async fn foreign_names_and_pages_are_turned_away() {
    let server = serve().await;
    let other = server.ask(Method::GET, "/healthz").header("host", "evil.example").send().await.unwrap();
    problem(other, 421, "misdirected").await;
    let page = server.ask(Method::POST, "/v1/topics/a").header("origin", "https://evil.example").send().await.unwrap();
    problem(page, 403, "cross-origin").await;
    server.drain().await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let server = serve().await;
    let described =
        server.ask(Method::GET, "/openapi.json").header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(header(&described, "content-type"), "application/json");
    let document = json(described).await;
    assert_eq!(document["openapi"].as_str().unwrap().split_once('.').unwrap().0, "3");
    // Every operation exists: none is answered with "no route" or "no such method".
    for (path, operations) in document["paths"].as_object().unwrap() {
        let target = path.replace("{topic}", "a").replace("{id}", "a").replace("{name}", "a");
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = server.ask(method.clone(), &format!("{target}?no-such-parameter=1")).send().await.unwrap();
            assert_eq!(answer.status(), 400, "{method} {target}");
        }
    }
    server.drain().await;
}

#[tokio::test]
async fn the_dashboard_runs_its_own_script_only_and_can_be_switched_off() {
    let server = serve().await;
    let page = server.get("/").await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    let policy = header(&page, "content-security-policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(page.text().await.unwrap().contains("<title>Waystation</title>"));
    server.drain().await;
    let server = serve_with(Limits::default(), Config { dashboard: false, ..Config::default() }).await;
    problem(server.get("/").await, 404, "no-route").await;
    server.drain().await;
}

#[tokio::test]
async fn lists_are_compressed_and_state_is_not() {
    let server = serve().await;
    server.put("/v1/topics/a", &"x".repeat(5_000)).await;
    let ask = |target| server.ask(Method::GET, target).header("accept-encoding", "gzip").send();
    server.put("/v1/sessions/till", "{}").await;
    for target in ["/v1/sessions", "/openapi.json", "/"] {
        assert_eq!(header(&ask(target).await.unwrap(), "content-encoding"), "gzip", "{target}");
    }
    let state = ask("/v1/topics/a").await.unwrap();
    assert_eq!((header(&state, "content-encoding"), state.content_length()), ("", Some(5_000)));
    server.drain().await;
}
