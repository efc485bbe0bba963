//! Webhooks, with a receiver in Python that checks signatures by a library nobody here wrote.

use crate::{
    certificates::Authority,
    clients::{Answer, Program, curl, python},
    harness::{Server, eventually},
    rights::Place,
};
use serde_json::{Value, json};
use std::{net::TcpListener, time::Instant};

const PRIVATE: &str = "[gateways.rest]\nallow_private_targets = true\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An app that is called.
pub(crate) struct Receiver {
    program: Program,
    pub(crate) url: String,
}

impl Receiver {
    pub(crate) fn start(secret: &str) -> Self {
        Self::start_with(&[secret])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let mut program = python("receiver.py", 2, arguments);
        program.says("://");
        let url = program.lines()[0].clone();
        Self { program, url }
    }

    /// What it is to answer: to the next request, or about a topic.
    fn answers(&mut self, answer: &Value) {
        let told = |lines: &[String]| lines.iter().filter(|line| *line == "told").count();
        let before = told(&self.program.lines());
        self.program.hears(&answer.to_string());
        eventually("the receiver is told", || told(&self.program.lines()) > before);
    }

    /// The requests it has had.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.program.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The same once there are so many.
    fn wait_for(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} requests; so far {:?}", self.program.lines()), || self.requests().len() >= count);
        self.requests()
    }
}

/// What requests said in a field, in order.
fn each<'a>(requests: &'a [Value], field: &str) -> Vec<&'a Value> {
    requests.iter().map(|request| &request[field]).collect()
}

fn put(server: &Server, name: &str, webhook: &Value) -> Answer {
    curl(server, &format!("/v1/webhooks/{name}"), &["-X", "PUT", "--data", &webhook.to_string()])
}

fn make(server: &Server, name: &str, webhook: &Value) {
    let answer = put(server, name, webhook);
    assert_eq!(answer.status, 201, "{answer:?}");
}

fn show(server: &Server, name: &str) -> Value {
    curl(server, &format!("/v1/webhooks/{name}"), &[]).json()
}

fn publish(server: &Server, topic: &str, payload: &str) {
    let answer = curl(server, &format!("/v1/topics/{topic}"), &["--data", payload]);
    assert_eq!((answer.status, &answer.json()["matched"]), (200, &1.into()), "{answer:?}");
}

fn dead_letters(server: &Server, name: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/sessions/%24dead%2F{name}/messages");
    let mut messages = Vec::new();
    eventually(&format!("{count} dead letters"), || {
        let answer = curl(server, &path, &[]);
        messages =
            if answer.status == 200 { answer.json()["messages"].as_array().unwrap().clone() } else { Vec::new() };
        messages.len() >= count
    });
    messages
}

#[test]
fn a_message_is_posted_with_all_that_is_known_of_it_and_signed() {
    let server = Server::start_with(PRIVATE, &[]);
    let receiver = Receiver::start(SECRET);
    let webhook = json!({"url": receiver.url, "filters": ["house/+/alarm"], "qos": 2, "secret": SECRET});
    make(&server, "alarm", &webhook);
    let target = "/v1/topics/house/k%C3%BCche%201/alarm?qos=2&user.room=K%C3%BCche";
    let answer = curl(&server, target, &["-H", "Content-Type: application/json", "--data", "{\"on\":true}"]);
    let id = answer.json()["id"].clone();
    let request = receiver.wait_for(1)[0].clone();
    assert_eq!((&request["verified"], &request["body"]), (&true.into(), &"{\"on\":true}".into()), "{request}");
    assert_eq!(request["topic"], "house/küche 1/alarm");
    for (name, value) in [
        ("content-type", "application/json"),
        ("waystation-topic", "house/k%C3%BCche%201/alarm"),
        ("waystation-qos", "2"),
        ("waystation-retain", "false"),
        ("waystation-attempt", "1"),
        ("waystation-user-properties", "%5B%5B%22room%22%2C%22K%C3%BCche%22%5D%5D"),
    ] {
        assert_eq!(request["headers"][name], value, "{name}");
    }
    assert_eq!(request["headers"]["webhook-id"], id);
    eventually("it counts as delivered", || show(&server, "alarm")["delivered"] == 1);
    let shown = show(&server, "alarm");
    assert!(!shown.to_string().contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "{shown}");
    assert_eq!((&shown["signed"], &shown["queued"], &shown["attempts"]), (&true.into(), &0.into(), &1.into()));
}

#[test]
fn a_target_that_fails_gets_every_message_in_order_once_it_recovers() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start("");
    for status in [500, 503, 408, 425] {
        receiver.answers(&json!({"status": status}));
    }
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"]}));
    for number in 0..5 {
        publish(&server, "in/a", &number.to_string());
    }
    let requests = receiver.wait_for(9);
    assert_eq!(each(&requests, "body"), ["0", "0", "0", "0", "0", "1", "2", "3", "4"]);
    assert_eq!(each(&requests, "attempt"), [1, 2, 3, 4, 5, 1, 1, 1, 1]);
    let ids: Vec<_> = requests[..5].iter().map(|request| &request["headers"]["webhook-id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_target_that_is_not_there_yet_is_waited_for() {
    let server = Server::start_with(PRIVATE, &[]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/hook");
    make(&server, "app", &json!({"url": url, "filters": ["in/#"]}));
    publish(&server, "in/a", "early");
    eventually("it has tried", || show(&server, "app")["last_error"].is_object());
    let shown = show(&server, "app");
    assert!(shown["next_attempt"].is_string() && shown["queued"] == 1, "{shown}");
    let receiver = python("receiver.py", 2, &["--port", &port.to_string()]);
    eventually("it is delivered", || show(&server, "app")["delivered"] == 1);
    drop(receiver);
}

#[test]
fn a_target_that_asks_for_time_gets_it() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start("");
    receiver.answers(&json!({"status": 429, "headers": {"Retry-After": "2"}}));
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"]}));
    publish(&server, "in/a", "1");
    let requests = receiver.wait_for(2);
    let pause = requests[1]["at"].as_f64().unwrap() - requests[0]["at"].as_f64().unwrap();
    assert!(pause >= 1.9, "{pause}");
}

#[test]
fn what_is_refused_or_redirected_becomes_a_dead_letter_and_the_next_one_follows() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start("");
    receiver.answers(&json!({"topic": "in/gone", "status": 410}));
    let elsewhere = json!({"Location": format!("{}/elsewhere", receiver.url)});
    receiver.answers(&json!({"topic": "in/moved", "status": 307, "headers": elsewhere}));
    receiver.answers(&json!({"topic": "in/slow", "status": 503}));
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"], "max_attempts": 2}));
    for topic in ["in/gone", "in/moved", "in/slow", "in/fine"] {
        publish(&server, topic, topic);
    }
    let requests = receiver.wait_for(5);
    assert_eq!(each(&requests, "topic"), ["in/gone", "in/moved", "in/slow", "in/slow", "in/fine"]);
    let dead = dead_letters(&server, "app", 3);
    assert_eq!(each(&dead, "topic"), ["$dead/app/in/gone", "$dead/app/in/moved", "$dead/app/in/slow"]);
    assert_eq!(each(&dead, "payload"), ["in/gone", "in/moved", "in/slow"]);
    assert_eq!(dead[0]["user_properties"][0], json!(["waystation-dead-reason", "the target answered 410 Gone"]));
    let shown = show(&server, "app");
    assert_eq!((&shown["dead"], &shown["delivered"]), (&3.into(), &1.into()), "{shown}");
    // Acknowledged like any other message, and the webhook may go.
    let page = curl(&server, "/v1/sessions/%24dead%2Fapp/messages", &[]).json();
    let cursor = json!({"cursor": page["cursor"]}).to_string();
    assert_eq!(curl(&server, "/v1/sessions/%24dead%2Fapp/ack", &["--data", &cursor]).status, 204);
    assert_eq!(curl(&server, "/v1/webhooks/app", &["-X", "DELETE"]).status, 204);
    assert_eq!(curl(&server, "/v1/webhooks/app", &[]).status, 404);
    assert_eq!(curl(&server, "/v1/sessions/%24dead%2Fapp", &[]).status, 404);
}

#[test]
fn a_target_that_fails_for_too_long_is_given_up() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start("");
    receiver.answers(&json!({"topic": "in/a", "status": 500}));
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"], "give_up_after_s": 1}));
    publish(&server, "in/a", "1");
    assert_eq!(dead_letters(&server, "app", 1)[0]["payload"], "1");
}

#[test]
fn a_batch_is_one_signed_request() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start(SECRET);
    receiver.answers(&json!({"status": 500}));
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"], "batch": 3, "secret": SECRET}));
    publish(&server, "in/a", "0");
    receiver.wait_for(1);
    for number in 1..5 {
        publish(&server, "in/a", &number.to_string());
    }
    let requests = receiver.wait_for(4);
    let mut payloads = Vec::new();
    for request in &requests {
        assert_eq!((&request["verified"], &request["topic"]), (&true.into(), &"".into()), "{request}");
        assert_eq!(request["headers"]["content-type"], "application/json");
        let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        let messages = body["messages"].as_array().unwrap().clone();
        assert_eq!(messages[0]["id"], request["headers"]["webhook-id"]);
        payloads.push(messages.iter().map(|m| m["payload"].as_str().unwrap().to_owned()).collect::<String>());
    }
    // What is tried again is the same request; what came meanwhile goes together.
    assert_eq!(payloads, ["0", "0", "123", "4"]);
}

#[test]
fn targets_on_this_machine_are_refused_when_set_and_dead_letters_when_they_turn_so() {
    let server = Server::start_with(PRIVATE, &[]);
    let receiver = Receiver::start("");
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"]}));
    publish(&server, "in/a", "1");
    receiver.wait_for(1);
    server.rewrite_config("[gateways.rest]\nallow_private_targets = false\n");
    server.signal("HUP");
    let other = |url: &str| put(&server, "other", &json!({"url": url, "filters": ["other"]})).status;
    eventually("it is forbidden", || other(&receiver.url) == 403);
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    for host in
        ["localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
    {
        assert_eq!(other(&format!("http://{host}:{port}")), 403, "{host}");
    }
    for address in ["10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "224.0.0.1", "[fd00::1]"]
    {
        assert_eq!(other(&format!("http://{address}/")), 403, "{address}");
    }
    publish(&server, "in/a", "2");
    assert_eq!(dead_letters(&server, "app", 1)[0]["payload"], "2");
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn webhooks_of_the_file_are_changed_in_the_file_alone() {
    let receiver = Receiver::start("");
    let hook = |name: &str, filter: &str| {
        format!("[[gateways.rest.webhook]]\nname = \"{name}\"\nurl = \"{}\"\nfilters = [\"{filter}\"]\n", receiver.url)
    };
    let config = format!("{PRIVATE}{}{}", hook("same", "same/#"), hook("other", "before/#"));
    let server = Server::start_with(&config, &[]);
    make(&server, "api", &json!({"url": receiver.url, "filters": ["api/#"]}));
    let same = json!({"url": receiver.url, "filters": ["a"]});
    assert_eq!(put(&server, "same", &same).status, 409);
    assert_eq!(curl(&server, "/v1/webhooks/same", &["-X", "DELETE"]).status, 409);
    assert_eq!(show(&server, "same")["source"], "file");
    publish(&server, "same/1", "1");
    receiver.wait_for(1);
    server.rewrite_config(&format!("{PRIVATE}{}{}", hook("same", "same/#"), hook("other", "after/#")));
    server.signal("HUP");
    eventually("it has changed", || show(&server, "other")["filters"][0] == "after/#");
    publish(&server, "after/1", "2");
    receiver.wait_for(2);
    // Left alone: it goes on counting.
    assert_eq!((&show(&server, "same")["delivered"], &show(&server, "api")["source"]), (&1.into(), &"api".into()));
    // A broken file keeps the old ones.
    server.rewrite_config(&format!("{PRIVATE}{}", hook("bad/name", "a")));
    server.signal("HUP");
    eventually("it is said why", || server.log().contains("webhook[0].name"));
    server.rewrite_config(PRIVATE);
    server.signal("HUP");
    eventually("they have gone", || {
        let webhooks = curl(&server, "/v1/webhooks", &[]).json()["webhooks"].clone();
        each(webhooks.as_array().unwrap(), "name") == ["api"]
    });
}

#[test]
fn a_slow_target_holds_up_neither_others_nor_the_end() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut slow = Receiver::start("");
    slow.answers(&json!({"topic": "in/a", "delay": 60}));
    let quick = Receiver::start("");
    make(&server, "slow", &json!({"url": slow.url, "filters": ["in/#"], "timeout_ms": 120_000}));
    make(&server, "quick", &json!({"url": quick.url, "filters": ["in/#"]}));
    assert_eq!(curl(&server, "/v1/topics/in/a", &["--data", "1"]).status, 200);
    slow.wait_for(1);
    quick.wait_for(1);
    let start = Instant::now();
    assert!(server.stop().success());
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_target_without_an_answer_in_time_is_tried_again() {
    let server = Server::start_with(PRIVATE, &[]);
    let mut receiver = Receiver::start("");
    receiver.answers(&json!({"delay": 5}));
    make(&server, "app", &json!({"url": receiver.url, "filters": ["in/#"], "timeout_ms": 300}));
    publish(&server, "in/a", "1");
    assert_eq!(each(&receiver.wait_for(2), "attempt"), [1, 2]);
    assert_eq!(show(&server, "app")["last_error"]["error"], "no answer within 300 ms");
}

#[test]
fn what_is_no_webhook_is_refused_with_its_reason() {
    let server = Server::start();
    let url = "https://example.com/hook";
    for (webhook, part) in [
        (json!({}), "url"),
        (json!({"url": url}), "filters"),
        (json!({"url": url, "filters": ["a"], "typo": 1}), "typo"),
        (json!({"url": "nowhere", "filters": ["a"]}), "`url`"),
        (json!({"url": url, "filters": ["a/#/b"]}), "`filters`"),
        (json!({"url": url, "filters": ["a"], "qos": 3}), "`qos`"),
        (json!({"url": url, "filters": ["a"], "name": "other"}), "`name`"),
    ] {
        let answer = put(&server, "app", &webhook);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{answer:?}");
    }
    assert_eq!(put(&server, "a%2Fb", &json!({"url": url, "filters": ["a"]})).status, 400);
    assert_eq!(curl(&server, "/v1/webhooks/app", &["-X", "DELETE"]).status, 404);
    assert_eq!(curl(&server, "/v1/webhooks?typo=1", &[]).status, 400);
    // A proxy stands before it: whoever asks may be anybody.
    assert_eq!(curl(&server, "/v1/webhooks", &["-H", "X-Forwarded-For: 192.0.2.1"]).status, 403);
}

#[test]
fn lists_come_in_pages_and_a_change_keeps_the_secret() {
    let server = Server::start_with(PRIVATE, &[]);
    let receiver = Receiver::start(SECRET);
    for name in ["a", "b", "c"] {
        make(&server, name, &json!({"url": receiver.url, "filters": [name], "secret": SECRET}));
    }
    let page = curl(&server, "/v1/webhooks?limit=2", &[]).json();
    assert_eq!(each(page["webhooks"].as_array().unwrap(), "name"), ["a", "b"]);
    assert_eq!(page["next"], "b");
    let rest = curl(&server, "/v1/webhooks?limit=2&after=b", &[]).json();
    assert_eq!((each(rest["webhooks"].as_array().unwrap(), "name").len(), &rest["next"]), (1, &Value::Null));
    assert_eq!(put(&server, "a", &json!({"url": receiver.url, "filters": ["a"]})).status, 200);
    publish(&server, "a", "{}");
    assert_eq!(receiver.wait_for(1)[0]["verified"], true);
    assert_eq!(put(&server, "a", &json!({"url": receiver.url, "filters": ["a"], "secret": ""})).status, 200);
    publish(&server, "a", "{}");
    let unsigned = receiver.wait_for(2)[1].clone();
    assert!(unsigned["headers"].get("webhook-signature").is_none(), "{unsigned}");
}

#[test]
fn certificates_are_verified_and_proxies_of_the_environment_not_used() {
    let authority = Authority::new();
    let mut receiver = Receiver::start_with(&["--tls", authority.name("server").trim_end_matches(".pem")]);
    receiver.answers(&json!({"topic": "in/b", "status": 410}));
    let hook = json!({"url": receiver.url, "filters": ["in/#"]});
    let nowhere = ("HTTPS_PROXY", "http://127.0.0.1:9");
    let start = |more: &[(&str, &str)]| {
        Server::try_start_in(PRIVATE, &[], &[&[nowhere], more].concat()).unwrap_or_else(|ended| panic!("{ended:?}"))
    };
    let stranger = start(&[]);
    make(&stranger, "app", &hook);
    publish(&stranger, "in/a", "1");
    eventually("it is not trusted", || {
        show(&stranger, "app")["last_error"]["error"].to_string().contains("certificate")
    });
    assert!(receiver.requests().is_empty());
    let known = start(&[("SSL_CERT_FILE", &authority.name("ca.pem"))]);
    make(&known, "app", &hook);
    publish(&known, "in/a", "1");
    assert_eq!(receiver.wait_for(1)[0]["body"], "1");
}

#[test]
fn a_webhook_has_the_rights_of_whoever_made_it_as_long_as_they_last() {
    let rules = |filter: &str| {
        format!(
            "[[rule]]\nuser = \"ops\"\nallow = [\"publish\", \"subscribe\", \"admin\"]\ntopics = [\"{filter}\"]\n\
             [[rule]]\nuser = \"anna\"\nallow = [\"publish\"]\ntopics = [\"#\"]\n"
        )
    };
    let place = Place::with_users(&["ops", "anna"]).acl(&rules("in/#"));
    let server = place.try_start(&["--set", "gateways.rest.allow_private_targets=true"]).unwrap();
    let mut receiver = Receiver::start("");
    receiver.answers(&json!({"topic": "in/gone", "status": 410}));
    let put = |user: &str, filter: &str| {
        let hook = json!({"url": receiver.url, "filters": [filter]}).to_string();
        curl(&server, "/v1/webhooks/app", &["-u", user, "-X", "PUT", "--data", &hook]).status
    };
    assert_eq!(put("anna:anna!", "in/#"), 403);
    assert_eq!(put("ops:ops!", "secret"), 403);
    assert_eq!(put("ops:ops!", "in/#"), 201);
    let publish = |topic: &str| {
        let answer = curl(&server, &format!("/v1/topics/{topic}"), &["-u", "anna:anna!", "--data", topic]);
        answer.json()["matched"].clone()
    };
    assert_eq!((publish("in/gone"), publish("in/a"), publish("secret")), (1.into(), 1.into(), 0.into()));
    assert_eq!(each(&receiver.wait_for(2), "topic"), ["in/gone", "in/a"]);
    let dead = "/v1/sessions/%24dead%2Fapp/messages";
    assert_eq!(curl(&server, dead, &["-u", "anna:anna!"]).status, 403);
    let letters = curl(&server, dead, &["-u", "ops:ops!"]);
    assert_eq!((letters.status, &letters.json()["messages"][0]["payload"]), (200, &"in/gone".into()), "{letters:?}");
    place.put("acl", &rules("other/#"));
    server.signal("HUP");
    eventually("its right is gone", || publish("in/a") == 0);
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_webhook() {
    let server = Server::start_with(PRIVATE, &[]);
    let receivers = [Receiver::start(""), Receiver::start("")];
    for (name, receiver) in ["a", "b"].iter().zip(&receivers) {
        make(&server, name, &json!({"url": receiver.url, "filters": ["$share/apps/in/#"]}));
    }
    for number in 0..10 {
        publish(&server, "in/a", &number.to_string());
    }
    let count = || receivers.iter().map(|receiver| receiver.requests().len()).sum::<usize>();
    eventually("all are delivered", || count() >= 10);
    let mut bodies: Vec<Value> = receivers.iter().flat_map(Receiver::requests).map(|r| r["body"].clone()).collect();
    bodies.sort_by_key(Value::to_string);
    assert_eq!(bodies, (0..10).map(|number: u8| number.to_string()).collect::<Vec<_>>());
}
