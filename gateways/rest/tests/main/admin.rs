//! What is meant for operators.

use crate::harness::{LONG, Server, header, json, problem, serve, serve_on, serve_with};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    future::{Future, ready},
    pin::Pin,
    sync::{Arc, Mutex},
};
use waystation_broker::{
    ClientId, Event, Filter, Hello, Interest, Limits, Peer, Qos, Reason, Start, Subscription, Time,
};
use waystation_kit::{BindError, EnableError, GatewayStatus, Host, Remote, RemoteStatus};

/// A client by another road, with these filters.
async fn client(server: &Server, id: &str, filters: &[&str]) -> waystation_broker::Link {
    let peer = Peer::direct("192.0.2.7:5000".parse().unwrap());
    let hello = Hello { start: Start::Resume, expiry: 60, ..Hello::new("mqtt".into(), peer, ClientId::new(id)) };
    let mut link = server.broker.attach(hello).await.unwrap().link;
    for filter in filters {
        let wanted = Subscription::new(Filter::parse(filter).unwrap(), Qos::AtLeastOnce);
        link.subscribe(&[wanted], &mut Vec::new());
    }
    link
}

fn names<'a>(page: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    page[list].as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

#[tokio::test]
async fn who_is_connected_is_listed_shown_and_told_to_go() {
    let server = serve().await;
    let _a = client(&server, "a", &["x"]).await;
    let mut b = client(&server, "b/1", &[]).await;
    server.put("/v1/sessions/away", "{}").await;
    let page = json(server.get("/v1/clients?limit=1").await).await;
    assert_eq!((names(&page, "clients", "id"), &page["next"]), (vec!["a"], &"a".into()));
    let entry = &page["clients"][0];
    assert_eq!((&entry["gateway"], &entry["address"]), (&"mqtt".into(), &"192.0.2.7:5000".into()));
    assert_eq!(entry["subscriptions"], 1);
    let page = json(server.get("/v1/clients?after=a").await).await;
    assert_eq!((names(&page, "clients", "id"), &page["next"]), (vec!["b/1"], &Value::Null));

    assert_eq!(json(server.get("/v1/clients/b%2F1").await).await["id"], "b/1");
    for absent in ["away", "nobody"] {
        problem(server.get(&format!("/v1/clients/{absent}")).await, 404, "no-client").await;
        let gone = server.ask(Method::DELETE, &format!("/v1/clients/{absent}")).send().await.unwrap();
        problem(gone, 404, "no-client").await;
    }
    assert_eq!(server.ask(Method::DELETE, "/v1/clients/b%2F1").send().await.unwrap().status(), 204);
    let told = tokio::time::timeout(LONG, b.event(Interest::Everything)).await.unwrap();
    assert_eq!(told, Event::Detached(Reason::Administrative));
    drop(b);
    problem(server.get("/v1/clients/b%2F1").await, 404, "no-client").await;
    assert_eq!(json(server.get("/v1/sessions/b%2F1").await).await["id"], "b/1", "the session stays");
    server.drain().await;
}

#[tokio::test]
async fn subscriptions_are_listed_in_pages_across_clients() {
    let server = serve().await;
    let _a = client(&server, "a", &["1", "2", "3"]).await;
    let _b = client(&server, "b", &["4"]).await;
    let (mut seen, mut target) = (Vec::new(), "/v1/subscriptions?limit=2".to_owned());
    loop {
        let page = json(server.get(&target).await).await;
        for entry in page["subscriptions"].as_array().unwrap() {
            seen.push(format!("{} {} {}", entry["client"], entry["filter"], entry["qos"]).replace('"', ""));
        }
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/subscriptions?limit=2&after={next}");
    }
    assert_eq!(seen, ["a 1 1", "a 2 1", "a 3 1", "b 4 1"]);
    problem(server.get("/v1/subscriptions?after=x").await, 400, "bad-query").await;
    server.drain().await;
}

/// A host with two gateways and one bridge.
#[derive(Default)]
struct TwoGateways {
    mqtt: Mutex<bool>,
}

impl Host for TwoGateways {
    fn gateways(&self) -> Vec<GatewayStatus> {
        let listening = vec![("mqtt".to_owned(), "127.0.0.1:1883".parse().unwrap())];
        vec![
            GatewayStatus { name: "rest".into(), kind: "rest", enabled: true, listening: Vec::new() },
            GatewayStatus { name: "mqtt".into(), kind: "mqtt", enabled: *self.mqtt.lock().unwrap(), listening },
        ]
    }

    fn enable<'a>(
        &'a self,
        name: &'a str,
        on: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), EnableError>> + Send + 'a>> {
        Box::pin(ready(match name {
            "mqtt" => {
                *self.mqtt.lock().unwrap() = on;
                Ok(())
            }
            "broken" => Err(BindError::Other { key: "gateways.broken".into(), why: "no port".into() }.into()),
            _ => Err(EnableError::Unknown),
        }))
    }

    fn introduce(&self, _: Arc<dyn Remote>) {}

    fn remotes(&self) -> Vec<RemoteStatus> {
        vec![RemoteStatus {
            name: "cloud".into(),
            url: "mqtts://broker.example.com:8883".into(),
            connected: false,
            since: Time(0),
            error: Some("refused".into()),
            queued: 3,
            in_flight: 1,
            sent: 2,
            received: 1,
            dropped: 5,
            reduced: 4,
        }]
    }
}

#[tokio::test]
async fn gateways_are_listed_and_switched_and_bridges_shown() {
    let server = serve_on(Arc::new(TwoGateways::default())).await;
    let page = json(server.get("/v1/gateways").await).await;
    assert_eq!((names(&page, "gateways", "name"), &page["next"]), (vec!["mqtt", "rest"], &Value::Null));
    assert_eq!(page["gateways"][0]["listening"], json!([{"name": "mqtt", "address": "127.0.0.1:1883"}]));
    let on = server.put("/v1/gateways/mqtt", r#"{"enabled":true}"#).await;
    assert_eq!((on.status().as_u16(), &json(on).await["enabled"]), (200, &true.into()));
    problem(server.put("/v1/gateways/rest", r#"{"enabled":false}"#).await, 409, "own-gateway").await;
    problem(server.put("/v1/gateways/none", r#"{"enabled":true}"#).await, 404, "no-gateway").await;
    problem(server.put("/v1/gateways/broken", r#"{"enabled":true}"#).await, 409, "cannot-start").await;
    problem(server.put("/v1/gateways/mqtt", r#"{"enabled":1}"#).await, 400, "bad-body").await;

    let page = json(server.get("/v1/bridges").await).await;
    assert_eq!((names(&page, "bridges", "name"), &page["next"]), (vec!["cloud"], &Value::Null));
    assert_eq!((&page["bridges"][0]["queued"], &page["bridges"][0]["connected"]), (&3.into(), &false.into()));
    server.drain().await;
}

#[tokio::test]
async fn what_was_lost_is_listed_with_its_cause_latest_first() {
    let server = serve().await;
    server.put("/v1/sessions/small", r##"{"subscriptions":[{"filter":"#"}],"max_queued_messages":1}"##).await;
    for topic in ["a", "a", "b", "b", "b"] {
        server.post(&format!("/v1/topics/{topic}"), "x").await;
    }
    let page = json(server.get("/v1/drops?limit=1").await).await;
    let line = &page["drops"][0];
    assert_eq!((&line["topic"], &line["client"], &line["count"]), (&"b".into(), &"small".into(), &2.into()));
    assert_eq!((&line["cause"], &line["gateway"]), (&"queue_full".into(), &"rest".into()));
    assert_eq!(line["time"], "2023-11-14T22:13:20.000Z");
    let page = json(server.get(&format!("/v1/drops?after={}", page["next"].as_str().unwrap())).await).await;
    assert_eq!((names(&page, "drops", "topic"), &page["next"]), (vec!["a"], &Value::Null));
    server.drain().await;
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = serve().await;
    server.put("/v1/topics/a", "x").await;
    let answer = server.get("/metrics").await;
    assert_eq!(header(&answer, "content-type"), "text/plain; version=0.0.4");
    let text = answer.text().await.unwrap();
    for line in [
        "# TYPE waystation_messages_published_total counter",
        "waystation_messages_published_total 1",
        "waystation_messages_dropped_total{cause=\"queue_full\"} 0",
        "waystation_retained_messages 1",
        "waystation_session_backlog_messages_most 0",
        "waystation_session_backlog_bytes_most 0",
        "waystation_session_backlog_oldest_seconds 0",
        "waystation_gateway_messages_received_total{gateway=\"rest\"} 1",
        "waystation_gateway_violations_total{gateway=\"rest\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let bytes =
        text.lines().find_map(|line| line.strip_prefix("waystation_gateway_bytes_received_total{gateway=\"rest\"} "));
    assert!(bytes.unwrap().parse::<u64>().unwrap() > 50);
    server.drain().await;
}

#[tokio::test]
async fn a_webhook_that_is_not_there_is_told() {
    let server = serve().await;
    problem(server.get("/v1/webhooks/none").await, 404, "no-webhook").await;
    let gone = server.ask(Method::DELETE, "/v1/webhooks/none").send().await.unwrap();
    problem(gone, 404, "no-webhook").await;
    server.drain().await;
}

#[tokio::test]
async fn a_webhook_of_the_file_is_changed_there() {
    let file = "[[webhook]]\nname = \"alarm\"\nurl = \"https://alarms.example.com\"\nfilters = [\"a\"]\n";
    let server = serve_with(Limits::default(), toml::from_str(file).unwrap()).await;
    let hook = json!({"url": "https://alarms.example.com", "filters": ["b"]}).to_string();
    problem(server.put("/v1/webhooks/alarm", &hook).await, 409, "webhook-of-file").await;
    let gone = server.ask(Method::DELETE, "/v1/webhooks/alarm").send().await.unwrap();
    problem(gone, 409, "webhook-of-file").await;
    server.drain().await;
}

#[tokio::test]
async fn operators_calls_are_closed_behind_a_proxy() {
    let server = serve().await;
    for target in
        ["/v1/clients", "/v1/clients/a", "/v1/subscriptions", "/v1/gateways", "/v1/bridges", "/v1/drops", "/metrics"]
    {
        let far = server.ask(Method::GET, target).header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
        problem(far, 403, "forbidden").await;
    }
    let open = server.ask(Method::GET, "/healthz").header("forwarded", "for=192.0.2.1").send().await.unwrap();
    assert_eq!((open.status().as_u16(), header(&open, "cache-control")), (200, "no-store"));
    server.drain().await;
}
