//! Rows of the REST interface that no other subject covers: see docs/rest-conformance.md.

use crate::{
    clients::{Answer, Curl, Program, V5, curl, mosquitto_sub, rest_session},
    harness::Server,
    rights::Place,
};
use std::process::Command;

/// The value of a field in an answer with its head.
fn field(answer: &Answer, name: &str) -> Option<String> {
    let head = answer.body.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(|value| value.trim().to_owned()))
}

/// Every path of the description, with names put in, and its methods.
fn paths(server: &Server) -> Vec<(String, Vec<String>)> {
    let document = curl(server, "/openapi.json", &[]).json();
    let fill = |path: &str| path.replace("{topic}", "house/lamp").replace("{id}", "till").replace("{name}", "mqtt");
    let paths = document["paths"].as_object().unwrap().iter();
    paths.map(|(path, item)| (fill(path), item.as_object().unwrap().keys().cloned().collect())).collect()
}

#[test]
fn head_is_served_wherever_get_is_and_a_wrong_method_is_told_the_right_ones() {
    let server = Server::start();
    assert_eq!(curl(&server, "/v1/topics/house/lamp", &["-X", "PUT", "--data", "on"]).status, 200);
    rest_session(&server, "till", "a", "");
    for (path, methods) in paths(&server) {
        let query = if path == "/v1/stream" { "?filter=a" } else { "" };
        let target = format!("{path}{query}");
        if methods.contains(&"get".to_owned()) {
            let head = curl(&server, &target, &["--head"]);
            let streams = path == "/v1/stream";
            let get = if streams { 200 } else { curl(&server, &target, &[]).status };
            assert_eq!(head.status, get, "{target}");
        }
        let wrong = curl(&server, &target, &["-X", "PATCH", "--include"]);
        assert_eq!(wrong.status, 405, "{target}");
        let allow = field(&wrong, "allow").unwrap_or_default().to_lowercase();
        for method in &methods {
            assert!(allow.split(',').any(|allowed| allowed.trim() == method), "{target}: {allow} lacks {method}");
        }
        assert!(wrong.body.contains("urn:waystation:problem:method-not-allowed"), "{wrong:?}");
    }
}

#[test]
fn every_answer_has_a_request_id_and_says_whether_it_may_be_kept() {
    let server = Server::start();
    curl(&server, "/v1/topics/a", &["-X", "PUT", "--data", "on"]);
    rest_session(&server, "till", "b", "");
    for (target, kept) in [
        ("/v1/topics/a", "no-cache"),
        ("/v1/topics/none", "no-cache"),
        ("/v1/topics?filter=%23", "no-cache"),
        ("/v1/sessions/till", "no-store"),
        ("/v1/sessions/till/messages", "no-store"),
        ("/v1/clients", "no-store"),
        ("/v1/nowhere", "no-store"),
    ] {
        let answer = curl(&server, target, &["--include"]);
        assert_eq!(field(&answer, "cache-control").as_deref(), Some(kept), "{answer:?}");
        assert!(field(&answer, "x-request-id").is_some_and(|id| !id.is_empty()), "{answer:?}");
        let echoed = curl(&server, target, &["--include", "-H", "X-Request-Id: mine-1"]);
        assert_eq!(field(&echoed, "x-request-id").as_deref(), Some("mine-1"));
    }
    // Also to what is no request at all.
    let refused = curl(&server, "/healthz", &["--include", "-H", "bad name: x"]);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(field(&refused, "x-request-id").is_some() && refused.body.contains("problem:bad-request"), "{refused:?}");
}

#[test]
fn long_topics_and_those_with_dots_go_by_message_and_query() {
    let server = Server::start();
    let long = "level".repeat(9_000);
    for topic in [long.as_str(), "a/../b", "./c", "/", "//"] {
        let message = serde_json::json!({ "topic": topic, "payload": "x", "retain": true }).to_string();
        let body = server.dir().join("message.json");
        std::fs::write(&body, message).unwrap();
        let data = format!("@{}", body.display());
        let sent = curl(&server, "/v1/messages", &["-H", "Content-Type: application/json", "--data-binary", &data]);
        assert_eq!((sent.status, sent.json()["topic"].as_str()), (200, Some(topic)));
        let state = curl(&server, &format!("/v1/topics?topic={topic}"), &[]);
        assert_eq!((state.status, state.body.as_str()), (200, "x"));
    }
    assert_eq!(curl(&server, &format!("/v1/topics/{long}"), &[]).status, 414);
    assert_eq!(curl(&server, &format!("/v1/topics?topic={long}{long}"), &[]).status, 414);
    // Empty levels are kept in paths too.
    assert_eq!(curl(&server, "/v1/topics//", &[]).body, "x");
}

#[test]
fn a_message_object_is_checked_and_its_payload_kept_to_the_digit() {
    let server = Server::start();
    rest_session(&server, "till", "m", "");
    let json = ["-H", "Content-Type: application/json", "--data"];
    let send = |body: &str| curl(&server, "/v1/messages", &[&json[..], &[body]].concat());
    for bad in [
        r#"{"topic":"m","payload":"x","payload_base64":"eA=="}"#,
        r#"{"topic":"m"}"#,
        r#"{"topic":"m","payload":"x","qos":3}"#,
        r#"{"topic":"m","payload":"x","extra":1}"#,
        r#"{"topic":"m","payload":"x"#,
    ] {
        let refused = send(bad);
        assert_eq!((refused.status, refused.json()["status"].as_u64()), (400, Some(400)), "{bad}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{refused:?}");
    }
    assert_eq!(send(r#"{"topic":"m","payload":{ "z": 1.50, "a": 12345678901234567890123 }}"#).status, 200);
    let some = send(r#"[{"topic":"m","payload_base64":"/w=="},{"topic":"m/#","payload":""}]"#);
    assert_eq!(some.status, 207, "{some:?}");
    let (good, bad) = (&some.json()[0], &some.json()[1]);
    assert_eq!(
        (good["status"].as_u64(), good["matched"].as_u64(), good["qos"].as_u64()),
        (Some(200), Some(1), Some(1))
    );
    assert!(bad["status"] == 400 && bad["type"].is_string() && bad["title"].is_string() && bad["detail"].is_string());
    let messages = curl(&server, "/v1/sessions/till/messages", &[]).json()["messages"].clone();
    assert_eq!(messages[0]["payload"], r#"{"z":1.50,"a":12345678901234567890123}"#);
    assert_eq!((&messages[1]["payload_base64"], messages[1]["payload"].is_null()), (&"/w==".into(), true));
    let lines = ["-H", "Content-Type: application/x-ndjson", "-H", "Idempotency-Key: k", "--data", "{}"];
    assert_eq!(curl(&server, "/v1/messages", &lines).status, 400);
    assert_eq!(curl(&server, "/v1/messages", &["-H", "Content-Type: text/plain", "--data", "{}"]).status, 415);
}

#[test]
fn a_session_that_nobody_reads_is_present_for_qos_0_and_its_cursor_is_good_after_a_restart() {
    let server = Server::start();
    rest_session(&server, "till", "a", "");
    assert_eq!(curl(&server, "/v1/topics/a?qos=0", &["--data", "zero"]).json()["matched"], 1);
    assert_eq!(curl(&server, "/v1/topics/a", &["--data", "one"]).status, 200);
    assert_eq!(curl(&server, "/v1/topics/a", &["--data", "two"]).status, 200);
    let page = curl(&server, "/v1/sessions/till/messages?max=2", &[]).json();
    assert_eq!((&page["messages"][0]["payload"], &page["messages"][1]["payload"]), (&"zero".into(), &"one".into()));
    let server = Server::start_in(server.kill(), &[]).unwrap();
    let cursor = page["cursor"].as_str().unwrap();
    let rest = curl(&server, &format!("/v1/sessions/till/messages?after={cursor}"), &[]).json();
    assert_eq!((rest["messages"].as_array().map(Vec::len), &rest["messages"][0]["payload"]), (Some(1), &"two".into()));
}

#[test]
fn a_stream_has_several_filters_and_marks_itself_as_one() {
    let server = Server::start();
    for topic in ["a/1", "b", "c"] {
        assert_eq!(curl(&server, &format!("/v1/topics/{topic}"), &["-X", "PUT", "--data", topic]).status, 200);
    }
    let mut command = Command::new("curl");
    command.args(["--silent", "--no-buffer", "--include", "-H", "Accept: application/x-ndjson"]);
    let mut heard =
        Program::start(command.arg(format!("{}/v1/stream?filter=a/%23&filter=b&qos=1", server.url("http", "rest"))));
    heard.says("content-type: application/x-ndjson");
    heard.says("cache-control: no-store");
    heard.says("\"topic\":\"a/1\"");
    heard.says("\"topic\":\"b\"");
    assert_eq!(curl(&server, "/v1/topics/b", &["--data", "live"]).json()["matched"], 1);
    heard.says("\"payload\":\"live\"");
    assert!(!heard.lines().iter().any(|line| line.contains("\"topic\":\"c\"")), "{:?}", heard.lines());
    assert_eq!(server.stop().code(), Some(0));
    heard.finish();
    let server = Server::start();
    assert_eq!(curl(&server, "/v1/stream", &[]).status, 400);
    assert_eq!(curl(&server, "/v1/stream?filter=a", &["-H", "Accept: text/html"]).status, 406);
}

#[test]
fn pages_of_other_sites_hold_nothing_and_listed_ones_read_what_they_need() {
    let server = Server::start_with("[gateways.rest]\ncors_origins = [\"https://app.example\"]\n", &[]);
    rest_session(&server, "till", "a", "");
    let cross = ["-H", "Sec-Fetch-Site: cross-site", "--max-time", "2"];
    for target in ["/v1/sessions/till/messages", "/v1/stream?filter=a", "/v1/topics/a?wait=1"] {
        assert_eq!(curl(&server, target, &cross).status, 403, "{target}");
    }
    assert_eq!(curl(&server, "/v1/request/a", &["-X", "POST", cross[0], cross[1]]).status, 403);
    assert_eq!(curl(&server, "/v1/topics/a", &["-H", "Origin: https://evil.example", "--data", "x"]).status, 403);
    assert_eq!(curl(&server, "/healthz", &["-H", "Host: evil.example"]).status, 421);

    let origin = "Origin: https://app.example";
    let read = curl(&server, "/v1/sessions/till/messages", &["--include", cross[0], cross[1], "-H", origin]);
    assert_eq!(
        (read.status, field(&read, "access-control-allow-origin").as_deref()),
        (204, Some("https://app.example"))
    );
    let exposed = field(&read, "access-control-expose-headers").unwrap_or_default().to_lowercase();
    for name in [
        "etag",
        "last-modified",
        "retry-after",
        "x-request-id",
        "waystation-cursor",
        "waystation-qos",
        "idempotency-replayed",
    ] {
        assert!(exposed.split(',').any(|one| one.trim() == name), "{exposed} lacks {name}");
    }
    assert_eq!(field(&read, "vary").as_deref(), Some("Origin"));
    let asks = ["-X", "OPTIONS", "--include", "-H", origin, "-H", "Access-Control-Request-Method: PUT"];
    let preflight = curl(&server, "/v1/topics/a", &asks);
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert!(field(&preflight, "access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
}

#[test]
fn who_has_no_name_is_asked_for_one_and_some_calls_need_none() {
    let place = Place::with_users(&["ada"])
        .acl("[[rule]]\nuser = \"ada\"\nallow = [\"publish\", \"subscribe\", \"admin\"]\ntopics = [\"#\"]\n");
    let strict = place.try_start(&["--set", "auth.allow_anonymous=false"]).unwrap();
    let ada = ["-u", "ada:ada!"];
    for target in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(curl(&strict, target, &[]).status, 200, "{target}");
    }
    for target in ["/metrics", "/v1/clients", "/v1/topics/a", "/v1/sessions"] {
        let asked = curl(&strict, target, &["--include"]);
        assert_eq!(asked.status, 401, "{target}");
        assert!(field(&asked, "www-authenticate").is_some_and(|how| how.starts_with("Basic ")), "{asked:?}");
        assert_eq!(curl(&strict, target, &["-u", "ada:wrong"]).status, 401, "{target}");
        assert_ne!(curl(&strict, target, &ada).status, 401, "{target}");
    }
    drop(strict);
    // Where people without a name may come in, a name would change what they are refused.
    let open = place.try_start(&[]).unwrap();
    let refused = curl(&open, "/v1/topics/a", &["--include", "--data", "x"]);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(field(&refused, "www-authenticate").is_some(), "{refused:?}");
    assert_eq!(curl(&open, "/v1/stream?filter=a", &["--head"]).status, 403);
    assert_eq!(curl(&open, "/v1/topics/a", &[&ada[..], &["--data", "x"]].concat()).status, 200);
    let known = curl(&open, "/v1/topics/$SYS/x", &[&ada[..], &["--include", "--data", "x"]].concat());
    assert_eq!((known.status, field(&known, "www-authenticate")), (403, None));
}

#[test]
fn an_idempotency_key_is_its_users_own_and_errors_are_not_kept() {
    let place = Place::with_users(&["ada", "bob"]);
    let server = place.try_start(&["--set", "auth.allow_anonymous=false"]).unwrap();
    let post = |user: &str, target: &str| {
        let login = format!("{user}:{user}!");
        curl(&server, target, &["-u", &login, "-H", "Idempotency-Key: k", "--include", "--data", "x"])
    };
    let id = |answer: &Answer| answer.body.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(post("ada", "/v1/topics/%23").status, 400);
    let (ada, again, bob) = (post("ada", "/v1/topics/a"), post("ada", "/v1/topics/a"), post("bob", "/v1/topics/a"));
    assert_eq!((ada.status, again.status, bob.status), (200, 200, 200));
    assert_eq!((id(&ada), field(&again, "idempotency-replayed").as_deref()), (id(&again), Some("true")));
    assert!(id(&bob) != id(&ada) && field(&bob, "idempotency-replayed").is_none());
    assert_eq!(post("ada", "/v1/topics/b").status, 422);
}

#[test]
fn the_place_is_run_over_http() {
    let server = Server::start();
    let mut subscriber = mosquitto_sub(&server, V5, &["-i", "watcher", "-t", "a/#"]);
    let clients = curl(&server, "/v1/clients", &[]).json();
    assert_eq!((&clients["clients"][0]["id"], clients["next"].is_null()), (&"watcher".into(), true), "{clients}");
    assert_eq!(curl(&server, "/v1/clients/watcher", &[]).json()["gateway"], "mqtt");
    let subscriptions = curl(&server, "/v1/subscriptions", &[]).json()["subscriptions"].clone();
    assert_eq!((&subscriptions[0]["client"], &subscriptions[0]["filter"]), (&"watcher".into(), &"a/#".into()));
    assert_eq!(curl(&server, "/v1/clients/watcher", &["-X", "DELETE"]).status, 204);
    subscriber.says("Received DISCONNECT (152)");
    assert_eq!(curl(&server, "/v1/clients/nobody", &["-X", "DELETE"]).status, 404);

    let switch =
        |name: &str, body: &str| curl(&server, &format!("/v1/gateways/{name}"), &["-X", "PUT", "--data", body]);
    assert_eq!(switch("mqtt_sn", r#"{"enabled":false}"#).json()["enabled"], false);
    assert_eq!(switch("mqtt_sn", r#"{"enabled":true}"#).json()["enabled"], true);
    assert_eq!(
        (switch("rest", r#"{"enabled":false}"#).status, switch("none", r#"{"enabled":true}"#).status),
        (409, 404)
    );
    assert_eq!(curl(&server, "/v1/bridges", &[]).json()["bridges"], serde_json::json!([]));

    rest_session(&server, "full", "b", r#","max_queued_messages":1"#);
    for _ in 0..3 {
        curl(&server, "/v1/topics/b", &["--data", "x"]);
    }
    let drops = curl(&server, "/v1/drops", &[]).json();
    assert_eq!((&drops["drops"][0]["topic"], &drops["drops"][0]["client"]), (&"b".into(), &"full".into()), "{drops}");
    assert_eq!(
        (&drops["drops"][0]["count"], &drops["drops"][0]["cause"]),
        (&2.into(), &"queue_full".into()),
        "{drops}"
    );
    let metrics = curl(&server, "/metrics", &[]).body;
    assert!(metrics.contains("waystation_messages_dropped_total{cause=\"queue_full\"} 2"), "{metrics}");
    assert!(curl(&server, "/", &[]).body.contains("<title>"));
    assert_eq!(curl(&server, "/v1/topics/$SYS/broker/version", &[]).status, 200);
}

#[test]
fn every_kind_of_answer_comes_over_http2_too() {
    let server = Server::start();
    let two = "--http2-prior-knowledge";
    assert_eq!(curl(&server, "/v1/topics/a", &[two, "-X", "PUT", "--data", "on"]).json()["retain"], true);
    let state = curl(&server, "/v1/topics/a", &[two, "--include"]);
    assert!(state.body.starts_with("HTTP/2 200") && state.body.ends_with("on"), "{state:?}");
    rest_session(&server, "till", "b", "");
    let held = Curl::start(&server, "/v1/sessions/till/messages?wait=20", &[two]);
    assert_eq!(curl(&server, "/v1/topics/b", &[two, "--data", "now"]).json()["matched"], 1);
    assert_eq!(held.answer().json()["messages"][0]["payload"], "now");
    let url = format!("{}/v1/stream?filter=a", server.url("http", "rest"));
    let mut stream = Program::start(Command::new("curl").args(["--silent", "--no-buffer", two, &url]));
    stream.says("data: {");
    let lines = "{\"topic\":\"c\",\"payload\":1}\n{\"topic\":\"c\"}\n";
    let bulk =
        curl(&server, "/v1/messages", &[two, "-H", "Content-Type: application/x-ndjson", "--data-binary", lines]);
    assert!(bulk.body.lines().count() == 2 && bulk.body.contains("problem:bad-body"), "{bulk:?}");
    let large = server.dir().join("large");
    std::fs::write(&large, vec![b'x'; 4 << 20]).unwrap();
    let refused = curl(&server, "/v1/topics/a", &[two, "--data-binary", &format!("@{}", large.display())]);
    assert_eq!((refused.status, refused.json()["status"].as_u64()), (413, Some(413)));
    assert_eq!(curl(&server, "/v1/nowhere", &[two]).status, 404);
}
