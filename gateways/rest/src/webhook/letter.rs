//! What is sent: a body that is written once, and headers that differ from attempt to attempt.

use super::signature::Secret;
use crate::{conditional::id_text, wire::Kept, wire::Reader};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use waystation_broker::{Cursor, Message, Time};

/// Most bytes (topics and payloads) in a batch; its first message goes whatever its size.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// RFC 3986 §2.3 leaves these as they are; the slashes of a topic stay readable.
const TOPIC: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const VALUE: &AsciiSet = &TOPIC.add(b'/');

/// One request: a message as it is, or a batch as JSON.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The first message's.
    pub(crate) id: String,
    pub(crate) body: Bytes,
    /// The place of its last message.
    pub(crate) last: Cursor,
    pub(crate) messages: Vec<Kept>,
    /// What is the same at every attempt.
    constant: HeaderMap,
}

impl Letter {
    /// A letter of these messages; `missed` were lost before them. `None` for no messages.
    pub(crate) fn new(messages: Vec<Kept>, batch: bool, missed: u64) -> Option<Self> {
        let (first, last) = (messages.first()?, messages.last()?.cursor?);
        let id = id_text(first.message.id());
        let mut constant = HeaderMap::new();
        let body = if batch {
            constant.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            json(&messages)
        } else {
            describe(first, &mut constant);
            Bytes::copy_from_slice(first.message.payload())
        };
        if missed > 0 {
            constant.insert("waystation-missed", missed.into());
        }
        insert(&mut constant, "webhook-id", &id);
        Some(Self { id, body, last, messages, constant })
    }

    /// The headers of one attempt.
    pub(crate) fn headers(&self, attempt: u32, now: Time, secret: Option<&Secret>) -> HeaderMap {
        let mut headers = self.constant.clone();
        let seconds = now.0 / 1_000;
        headers.insert("waystation-attempt", attempt.into());
        headers.insert("webhook-timestamp", seconds.into());
        if let Some(secret) = secret {
            insert(&mut headers, "webhook-signature", &secret.sign(&self.id, seconds, &self.body));
        }
        headers
    }
}

/// What the headers of a single message say about it.
fn describe(kept: &Kept, headers: &mut HeaderMap) {
    let message = &kept.message;
    headers.insert(header::CONTENT_TYPE, content_type(message));
    insert(headers, "waystation-topic", &utf8_percent_encode(message.topic().as_str(), TOPIC).to_string());
    headers.insert("waystation-qos", u16::from(kept.qos as u8).into());
    headers.insert("waystation-retain", HeaderValue::from_static(if kept.retain { "true" } else { "false" }));
    let user = message.properties().map_or(&[][..], |properties| &properties.user);
    let json = serde_json::to_string(user).unwrap_or_default();
    insert(headers, "waystation-user-properties", &utf8_percent_encode(&json, VALUE).to_string());
}

/// The publisher's, unless it cannot stand in a header.
fn content_type(message: &Message) -> HeaderValue {
    message
        .properties()
        .and_then(|properties| properties.content_type.as_deref())
        .filter(|text| !text.is_empty())
        .and_then(|text| HeaderValue::from_str(text).ok())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// `{"messages": [...]}`, each as sessions show it. Who made the webhook may see who published.
fn json(messages: &[Kept]) -> Bytes {
    let mut out = Vec::from(&b"{\"messages\":["[..]);
    for (index, kept) in messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(kept.json(&Reader::operator(), None).as_bytes());
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// Sets a header to text that was made to fit into one.
fn insert(headers: &mut HeaderMap, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use waystation_broker::{
        Broker, Budget, Credentials, Filter, Hello, Limits, ManualClock, Parts, Peer, Pick, Principal, Properties,
        Publish, Qos, Subscription, Taken, Topic,
    };

    /// The messages as a session would get them.
    async fn kept(messages: Vec<Publish<'_>>) -> Vec<Kept> {
        let broker = Broker::new(Parts::in_memory(Limits::default(), Arc::new(ManualClock::default())));
        let hello = Hello {
            credentials: Credentials::Known(Principal::server()),
            ..Hello::new("rest".into(), Peer::INTERNAL, None)
        };
        let mut link = broker.attach(hello).await.unwrap().link;
        link.subscribe(&[Subscription::new(Filter::parse("#").unwrap(), Qos::ExactlyOnce)], &mut Vec::new());
        let mut publisher = broker.publisher(&"rest".into(), Principal::server(), None);
        for message in messages {
            publisher.stage(message, 0).unwrap();
        }
        publisher.flush(&mut Vec::new());
        let mut kept = Vec::new();
        link.take(Pick::Oldest(Cursor(0)), Budget { messages: 100, bytes: MOST_BYTES }, |delivery| {
            kept.push(Kept::delivery(delivery));
            Taken::Sent
        });
        kept
    }

    fn publish<'a>(topic: &str, payload: &'a [u8], properties: Properties) -> Publish<'a> {
        let properties = Some(Box::new(properties));
        Publish { properties, ..Publish::new(Topic::parse(topic).unwrap(), payload, Qos::AtLeastOnce) }
    }

    #[tokio::test]
    async fn a_message_goes_as_it_is_with_its_description_in_headers() {
        let properties = Properties {
            content_type: Some("text/plain; charset=utf-8".into()),
            user: vec![("room".into(), "Küche/1".into())],
            ..Properties::default()
        };
        let letter = Letter::new(kept(vec![publish("grün/a b", b"\xFF\0", properties)]).await, false, 3).unwrap();
        assert_eq!(&letter.body[..], b"\xFF\0");
        let secret = Secret::parse("s").unwrap();
        let headers = letter.headers(2, Time(1_700_000_000_999), Some(&secret));
        let signature = secret.sign(&letter.id, 1_700_000_000, b"\xFF\0");
        for (name, value) in [
            ("content-type", "text/plain; charset=utf-8"),
            ("waystation-topic", "gr%C3%BCn/a%20b"),
            ("waystation-qos", "1"),
            ("waystation-retain", "false"),
            ("waystation-attempt", "2"),
            ("waystation-missed", "3"),
            ("waystation-user-properties", "%5B%5B%22room%22%2C%22K%C3%BCche%2F1%22%5D%5D"),
            ("webhook-id", &letter.id),
            ("webhook-timestamp", "1700000000"),
            ("webhook-signature", &signature),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert_eq!(headers.len(), 10);
    }

    #[tokio::test]
    async fn a_content_type_that_would_break_the_request_is_not_sent() {
        let properties = Properties { content_type: Some("a\r\nX-Evil: 1".into()), ..Properties::default() };
        let letter = Letter::new(kept(vec![publish("a", b"", properties)]).await, false, 0).unwrap();
        let headers = letter.headers(1, Time(0), None);
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert_eq!(headers["waystation-user-properties"], "%5B%5D");
        assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("waystation-missed"));
    }

    #[tokio::test]
    async fn a_batch_is_json_and_named_after_its_first_message() {
        let messages =
            kept(vec![publish("a", b"1", Properties::default()), publish("b", b"\xFF", Properties::default())]).await;
        let (first, last) = (id_text(messages[0].message.id()), messages[1].cursor);
        let letter = Letter::new(messages, true, 0).unwrap();
        assert_eq!((Some(letter.last), &letter.id), (last, &first));
        let body: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
        assert_eq!(body["messages"][0]["payload"], "1");
        assert_eq!(body["messages"][0]["id"], first);
        assert_eq!(body["messages"][1]["payload_base64"], "/w==");
        let headers = letter.headers(1, Time(0), None);
        assert_eq!(headers["content-type"], "application/json");
        assert!(!headers.contains_key("waystation-topic"));
        assert!(Letter::new(Vec::new(), true, 0).is_none());
    }
}
