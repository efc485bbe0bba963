//! Request and reply.

use crate::harness::{LONG, Server, header, problem, serve};
use reqwest::{Method, Response};
use tokio::task::JoinHandle;
use waystation_broker::{
    Budget, ClientId, Filter, Hello, Interest, Link, Message, Peer, Pick, Properties, Publish, Qos, Subscription,
    Taken, Topic,
};

async fn responder(server: &Server, id: &str, properties: bool) -> Link {
    let peer = Peer::direct("127.0.0.1:5000".parse().unwrap());
    let hello = Hello { properties, ..Hello::new("mqtt".into(), peer, ClientId::new(id)) };
    let mut link = server.broker.attach(hello).await.unwrap().link;
    link.subscribe(&[Subscription::new(Filter::parse("ask/#").unwrap(), Qos::AtLeastOnce)], &mut Vec::new());
    link
}

/// The next request that comes to a responder.
async fn next(link: &mut Link) -> Message {
    let one = Budget { messages: 1, bytes: usize::MAX };
    loop {
        let mut found = None;
        link.take(Pick::Unsent, one, |delivery| {
            found = Some(delivery.message.clone());
            Taken::Sent
        });
        match found {
            Some(message) => return message,
            None => drop(tokio::time::timeout(LONG, link.event(Interest::Everything)).await.unwrap()),
        }
    }
}

fn answer(link: &mut Link, topic: &str, payload: &str) {
    let properties = Properties { content_type: Some("text/x-answer".into()), ..Properties::default() };
    let topic = Topic::parse(topic).unwrap();
    let message =
        Publish { properties: Some(Box::new(properties)), ..Publish::new(topic, payload.as_bytes(), Qos::AtLeastOnce) };
    link.publisher().stage(message, 0).unwrap();
    link.publisher().flush(&mut Vec::new());
}

fn ask(server: &Server, target: &str, body: &'static str) -> JoinHandle<reqwest::Result<Response>> {
    tokio::spawn(server.ask(Method::POST, target).body(body).send())
}

async fn text(asked: JoinHandle<reqwest::Result<Response>>) -> String {
    let response = asked.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

#[tokio::test]
async fn a_responder_that_reads_properties_answers_where_it_is_told() {
    let server = serve().await;
    let mut link = responder(&server, "r", true).await;
    // Two at a time: each has an address of its own.
    let (first, second) = (ask(&server, "/v1/request/ask/it?timeout=15", "1"), ask(&server, "/v1/request/ask/it", "1"));
    let mut asked = [next(&mut link).await, next(&mut link).await];
    asked.reverse();
    for request in asked {
        let properties = request.properties().unwrap();
        let reply = properties.response_topic.clone().unwrap();
        assert!(reply.len() == "$reply/".len() + 32 && properties.correlation_data.is_some());
        answer(&mut link, &reply, std::str::from_utf8(request.payload()).unwrap());
    }
    let response = first.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "text/x-answer"));
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(text(second).await, "1");
    server.attached(1).await;
    server.drain().await;
}

#[tokio::test]
async fn a_responder_without_properties_answers_below_the_topic_one_request_at_a_time() {
    let server = serve().await;
    // What was said there before is no answer.
    server.put("/v1/topics/ask/it/reply", "stale").await;
    let mut link = responder(&server, "r", false).await;
    // The scan of retained messages: "stale" comes to it, too.
    assert_eq!(next(&mut link).await.payload(), b"stale");
    let first = ask(&server, "/v1/request/ask/it?timeout=15", "1");
    assert_eq!(next(&mut link).await.payload(), b"1");
    let second = ask(&server, "/v1/request/ask/it?timeout=15", "2");
    answer(&mut link, "ask/it/reply", "one");
    assert_eq!(text(first).await, "one");
    let mut request = next(&mut link).await;
    while request.payload() != b"2" {
        request = next(&mut link).await;
    }
    answer(&mut link, "ask/it/reply", "two");
    assert_eq!(text(second).await, "two");

    let elsewhere = ask(&server, "/v1/request/ask/it?timeout=15&reply=else/where", "3");
    while next(&mut link).await.payload() != b"3" {}
    answer(&mut link, "else/where", "three");
    assert_eq!(text(elsewhere).await, "three");
    server.attached(1).await;
    server.drain().await;
}

#[tokio::test]
async fn who_is_not_there_or_silent_is_told_apart() {
    let server = serve().await;
    let nobody = server.post("/v1/request/ask/it?timeout=15", "1").await;
    assert_eq!(header(&nobody, "retry-after"), "");
    problem(nobody, 503, "nobody-listens").await;
    let mut link = responder(&server, "r", true).await;
    problem(server.post("/v1/request/ask/it?timeout=0", "1").await, 504, "no-reply").await;
    let late = next(&mut link).await.properties().unwrap().response_topic.clone().unwrap();
    server.attached(1).await;
    problem(server.post(&format!("/v1/topics/{late}"), "late").await, 403, "forbidden").await;
    problem(server.post("/v1/request/ask/%23", "1").await, 400, "bad-topic").await;
    problem(server.post("/v1/request/ask/it?retain=true", "1").await, 400, "bad-query").await;
    problem(server.get("/v1/stream?filter=%24reply/%23").await, 403, "forbidden").await;
    problem(server.get("/v1/request/ask/it").await, 405, "method-not-allowed").await;
    server.drain().await;
}

#[tokio::test]
async fn a_rest_client_answers_too() {
    let server = serve().await;
    server.put("/v1/sessions/worker", r#"{"subscriptions":[{"filter":"ask/#"}]}"#).await;
    let asked = ask(&server, "/v1/request/ask/it?timeout=15", "2+2");
    let read = server.get("/v1/sessions/worker/messages?wait=15").await;
    let request = &crate::harness::json(read).await["messages"][0];
    assert_eq!(request["payload"], "2+2");
    let reply = request["response_topic"].as_str().unwrap();
    assert_eq!(server.post(&format!("/v1/topics/{reply}"), "4").await.status(), 200);
    assert_eq!(text(asked).await, "4");
    server.drain().await;
}
