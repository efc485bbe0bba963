//! Webhooks: what survives, and whose they are. That they deliver is shown end to end.

use crate::harness::{LONG, Server, json, problem, serve_parts, serve_with};
use reqwest::Method;
use serde_json::json;
use std::{net::TcpListener, sync::Arc, time::Duration};
use waystation_broker::{
    Action, Authorize, ClientId, Hello, Limits, ManualClock, Parts, Peer, Principal, store::rehearsal::Rehearsal,
};
use waystation_rest::{Config, Webhook};

fn private() -> Config {
    Config { allow_private_targets: true, ..Config::default() }
}

/// A target on this machine where nobody listens.
fn nowhere() -> String {
    format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// A server on a disk that syncs all the time.
async fn serve_on(store: &Rehearsal, config: Config) -> Server {
    let clock = Arc::new(ManualClock::default());
    let parts = Parts { store: Arc::new(store.clone()), ..Parts::in_memory(Limits::default(), clock.clone()) };
    let disk = store.clone();
    tokio::spawn(async move {
        loop {
            disk.sync();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    serve_parts(parts, clock, config, None).await
}

async fn names(server: &Server) -> Vec<String> {
    let list = json(server.get("/v1/webhooks").await).await;
    list["webhooks"].as_array().unwrap().iter().map(|hook| hook["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_was_made_over_the_api_is_there_after_a_crash_with_what_waits_for_it() {
    let store = Rehearsal::default();
    let of_file =
        Webhook { name: "file".into(), ..serde_json::from_value(json!({"url": nowhere(), "filters": ["b"]})).unwrap() };
    let server = serve_on(&store, Config { webhook: vec![of_file], ..private() }).await;
    for name in ["kept", "ended"] {
        let hook = json!({"url": nowhere(), "filters": ["a"], "secret": "s3cr3t", "batch": 7}).to_string();
        assert_eq!(server.put(&format!("/v1/webhooks/{name}"), &hook).await.status(), 201);
    }
    assert_eq!(server.ask(Method::DELETE, "/v1/webhooks/ended").send().await.unwrap().status(), 204);
    assert_eq!(json(server.post("/v1/topics/a", "1").await).await["matched"], 1);
    assert_eq!(names(&server).await, ["file", "kept"]);
    server.drain().await;

    // The file names none any more: its webhook leaves nothing behind.
    let store = store.crash();
    let server = serve_on(&store, private()).await;
    assert_eq!(names(&server).await, ["kept"]);
    let shown = json(server.get("/v1/webhooks/kept").await).await;
    assert_eq!((&shown["queued"], &shown["batch"], &shown["signed"]), (&json!(1), &json!(7), &json!(true)));
    assert!(server.broker.session(&ClientId::new("$webhook/file").unwrap()).is_none());
    assert_eq!(json(server.post("/v1/topics/b", "1").await).await["matched"], 0);
    server.drain().await;
}

#[tokio::test]
async fn a_webhook_that_cannot_be_written_down_is_not_made() {
    let store = Rehearsal::default();
    let server = serve_on(&store, private()).await;
    store.set_down(true);
    let hook = json!({"url": nowhere(), "filters": ["a"]}).to_string();
    problem(server.put("/v1/webhooks/app", &hook).await, 507, "store-full").await;
    let health = json(server.get("/healthz").await).await;
    assert_eq!(
        (&health["survives"], &health["trouble"]),
        (&"power loss".into(), &"the disk or the data folder is full".into())
    );
    assert!(server.get("/metrics").await.text().await.unwrap().contains("\nwaystation_store_accepts 0\n"));
    assert!(names(&server).await.is_empty());
    store.set_down(false);
    assert_eq!(server.put("/v1/webhooks/app", &hook).await.status(), 201);
}

/// Nobody runs the place, and nobody reads what is secret.
struct Few;

impl Authorize for Few {
    fn may(&self, _: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool {
        match action {
            Action::Admin(_) => client.is_some(),
            Action::Subscribe(filter) => filter.as_str() != "secret",
            _ => true,
        }
    }
}

/// The same with an operator.
struct Operated;

impl Authorize for Operated {
    fn may(&self, who: &Principal, client: Option<&ClientId>, action: Action<'_>) -> bool {
        matches!(action, Action::Admin(_)) || Few.may(who, client, action)
    }
}

async fn serve_with_rights(rights: impl Authorize + 'static) -> Server {
    let clock = Arc::new(ManualClock::default());
    let parts = Parts { authorize: Arc::new(rights), ..Parts::in_memory(Limits::default(), clock.clone()) };
    serve_parts(parts, clock, private(), None).await
}

#[tokio::test]
async fn webhooks_and_dead_letters_are_for_operators() {
    let server = serve_with_rights(Few).await;
    let hook = json!({"url": nowhere(), "filters": ["a"]}).to_string();
    problem(server.put("/v1/webhooks/app", &hook).await, 403, "forbidden").await;
    for target in ["/v1/webhooks", "/v1/webhooks/app", "/v1/sessions/$dead%2Fapp", "/v1/sessions/$dead/app/messages"] {
        problem(server.get(target).await, 403, "forbidden").await;
    }
    let own = Hello::new("rest".into(), Peer::INTERNAL, ClientId::new("$webhook/app"));
    let held = server.broker.attach(own).await.unwrap();
    let sessions = json(server.get("/v1/sessions").await).await;
    assert_eq!(sessions["sessions"], json!([]));
    drop(held);
}

#[tokio::test]
async fn a_webhook_reads_no_more_than_whoever_made_it() {
    let server = serve_with_rights(Operated).await;
    let hook = |filters: &[&str]| json!({"url": nowhere(), "filters": filters}).to_string();
    problem(server.put("/v1/webhooks/app", &hook(&["a", "secret"])).await, 403, "forbidden").await;
    assert!(names(&server).await.is_empty());
    assert!(server.broker.session(&ClientId::new("$webhook/app").unwrap()).is_none());
    assert_eq!(server.put("/v1/webhooks/app", &hook(&["a"])).await.status(), 201);
    // A change that is refused changes nothing.
    problem(server.put("/v1/webhooks/app", &hook(&["b", "secret"])).await, 403, "forbidden").await;
    assert_eq!(json(server.get("/v1/webhooks/app").await).await["filters"], json!(["a"]));
    for (topic, matched) in [("a", 1), ("b", 0)] {
        assert_eq!(json(server.post(&format!("/v1/topics/{topic}"), "").await).await["matched"], matched);
    }
}

#[tokio::test]
async fn the_sessions_of_webhooks_are_nobodys_to_make_or_read() {
    let server = serve_with(Limits::default(), private()).await;
    for target in ["/v1/sessions/$webhook%2Fapp", "/v1/sessions/$other", "/v1/sessions/$dead%2Fapp"] {
        problem(server.put(target, "{}").await, 400, "bad-request").await;
    }
    problem(server.get("/v1/sessions/$webhook%2Fapp/messages").await, 400, "bad-request").await;
    problem(server.get("/v1/sessions/$dead/app/messages").await, 404, "no-session").await;
}

#[tokio::test]
async fn there_are_only_so_many_webhooks() {
    let server = serve_with(Limits::default(), private()).await;
    let hook = json!({"url": nowhere(), "filters": ["a"]}).to_string();
    for number in 0..256 {
        assert_eq!(server.put(&format!("/v1/webhooks/{number}"), &hook).await.status(), 201);
    }
    problem(server.put("/v1/webhooks/256", &hook).await, 429, "quota-exceeded").await;
    assert_eq!(server.put("/v1/webhooks/255", &hook).await.status(), 200);
    tokio::time::timeout(LONG, server.drain()).await.unwrap();
}
