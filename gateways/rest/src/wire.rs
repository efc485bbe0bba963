//! The JSON shapes of messages.

use crate::{conditional::id_text, cursor, idempotency, identity::Who, problem::Problem};
use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    },
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use waystation_broker::{Broker, ClientId, Cursor, Delivery, Idempotency, Message, Properties, Qos, Time};

const FORGIVING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);

/// A message object as clients send it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Message)]
pub(crate) struct Incoming<'a> {
    topic: String,
    #[serde(default, borrow, deserialize_with = "given")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    qos: Option<u8>,
    #[serde(default)]
    retain: bool,
    expiry: Option<u32>,
    #[schema(value_type = Option<String>)]
    content_type: Option<Box<str>>,
    #[schema(value_type = Option<String>)]
    response_topic: Option<Box<str>>,
    correlation_data: Option<String>,
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    user_properties: Vec<(Box<str>, Box<str>)>,
    idempotency_key: Option<String>,
}

/// `null` is a payload too: an `Option` alone would take it for none.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A message to publish, read and checked as far as it can be without the broker.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<u32>,
    pub(crate) properties: Option<Box<Properties>>,
    pub(crate) idempotency: Option<Box<Idempotency>>,
}

impl Order {
    /// Reads one message object.
    pub(crate) fn from_json(json: &str) -> Result<Self, Problem> {
        let bad = |why: String| Problem::BadBody(why);
        let message: Incoming<'_> =
            serde_json::from_str(json).map_err(|error| bad(format!("no message object: {error}")))?;
        let payload = match (message.payload, message.payload_base64) {
            (Some(_), Some(_)) => return Err(bad("`payload` and `payload_base64` exclude each other".into())),
            (None, None) => return Err(bad("`payload` is missing; \"\" sends an empty message".into())),
            (Some(value), None) => payload_of(value).map_err(|error| bad(format!("`payload`: {error}")))?,
            (None, Some(text)) => ANY_STANDARD
                .decode(&text)
                .or_else(|_| ANY_URL_SAFE.decode(&text))
                .map_err(|error| bad(format!("`payload_base64`: {error}")))?,
        };
        let properties = Properties {
            payload_is_utf8: false,
            content_type: message.content_type,
            response_topic: message.response_topic,
            correlation_data: message.correlation_data.map(|text| correlation_data(&text)).transpose().map_err(bad)?,
            user: message.user_properties,
        };
        let key = message.idempotency_key.as_deref().map(idempotency::key).transpose().map_err(bad)?;
        Ok(Self {
            topic: message.topic,
            payload,
            qos: qos(message.qos.unwrap_or(1)).map_err(bad)?,
            retain: message.retain,
            expiry: message.expiry,
            properties: checked(properties).map_err(bad)?,
            idempotency: key.map(|key| idempotency::named(key, &[b"message", json.as_bytes()])),
        })
    }
}

/// A string is sent as its text, any other value as compact JSON with its key order and digits.
fn payload_of(value: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str::<String>(json).map(String::into_bytes);
    }
    let mut compact = Vec::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for byte in json.bytes() {
        if quoted {
            (quoted, escaped) = (byte != b'"' || escaped, byte == b'\\' && !escaped);
        } else if byte == b'"' {
            quoted = true;
        } else if byte.is_ascii_whitespace() {
            continue;
        }
        compact.push(byte);
    }
    Ok(compact)
}

/// 0, 1 or 2.
pub(crate) fn qos(level: u8) -> Result<Qos, String> {
    Qos::from_u8(level).ok_or_else(|| format!("`qos` is {level}; 0, 1 or 2 is right"))
}

/// Correlation data as it stands in JSON and in queries.
pub(crate) fn correlation_data(text: &str) -> Result<Box<[u8]>, String> {
    ANY_URL_SAFE
        .decode(text)
        .map(Vec::into_boxed_slice)
        .map_err(|error| format!("`correlation_data` is no base64url: {error}"))
}

/// Properties that MQTT can carry (strings of at most 65,535 bytes without U+0000), or `None` where nothing is set.
pub(crate) fn checked(properties: Properties) -> Result<Option<Box<Properties>>, String> {
    let user = properties.user.iter().flat_map(|(name, value)| [("user property", name), ("user property", value)]);
    let named = [("content type", &properties.content_type), ("response topic", &properties.response_topic)];
    let named = named.iter().filter_map(|(name, text)| Some((*name, text.as_ref()?)));
    for (name, text) in user.chain(named) {
        if text.len() > 65_535 || text.contains('\0') {
            return Err(format!("a {name} is longer than 65535 bytes or holds U+0000"));
        }
    }
    if let Some(topic) = &properties.response_topic {
        waystation_broker::Topic::parse(topic).map_err(|error| format!("`response_topic` {error}"))?;
    }
    if properties.correlation_data.as_ref().is_some_and(|data| data.len() > 65_535) {
        return Err("`correlation_data` is longer than 65535 bytes".into());
    }
    Ok((properties != Properties::default()).then(|| Box::new(properties)))
}

/// A message object as clients read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct Outgoing<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    qos: u8,
    retain: bool,
    duplicate: bool,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(skip_serializing_if = "no_user_properties")]
    #[schema(value_type = Vec<Vec<String>>)]
    user_properties: &'a [(Box<str>, Box<str>)],
}

fn no_user_properties(user: &&[(Box<str>, Box<str>)]) -> bool {
    user.is_empty()
}

/// A delivery kept beyond the session's lock: a reference count and what differs per session.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) message: Message,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    redelivered: bool,
    expiry: Option<u32>,
}

impl Kept {
    /// As a session is to get it.
    pub(crate) fn delivery(delivery: &Delivery<'_>) -> Self {
        Self {
            message: delivery.message.clone(),
            cursor: Some(delivery.cursor),
            qos: delivery.qos,
            retain: delivery.retain,
            redelivered: delivery.redelivered,
            expiry: delivery.expiry,
        }
    }

    /// As a topic's state.
    pub(crate) fn state(message: Message, now: Time) -> Self {
        // At least one second: what has none left is not delivered at all.
        let expiry =
            message.expires().map(|at| u32::try_from(at.since(now).as_millis().div_ceil(1_000)).unwrap_or(u32::MAX));
        let qos = message.qos();
        Self { message, cursor: None, qos, retain: true, redelivered: false, expiry }
    }

    /// The message object for this reader; `session` names whose cursors these are.
    pub(crate) fn json(&self, reader: &Reader, session: Option<cursor::Scope>) -> String {
        let message = &self.message;
        let properties = message.properties();
        let text = std::str::from_utf8(message.payload()).ok();
        let outgoing = Outgoing {
            id: id_text(message.id()),
            cursor: session.zip(self.cursor).map(|(session, place)| cursor::encode(session, place)),
            topic: message.topic().as_str(),
            payload: text,
            payload_base64: text.is_none().then(|| STANDARD.encode(message.payload())),
            qos: self.qos as u8,
            retain: self.retain,
            duplicate: self.redelivered,
            time: message.time().to_string(),
            from: message.publisher().filter(|_| reader.may_see(message)).map(ClientId::as_str),
            expiry: self.expiry,
            content_type: properties.and_then(|p| p.content_type.as_deref()),
            response_topic: properties.and_then(|p| p.response_topic.as_deref()),
            correlation_data: properties
                .and_then(|p| p.correlation_data.as_deref())
                .map(|data| URL_SAFE_NO_PAD.encode(data)),
            user_properties: properties.map_or(&[], |p| &p.user),
        };
        serde_json::to_string(&outgoing).unwrap_or_default()
    }
}

/// JSON that was written before, to stand inside other JSON.
pub(crate) fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Who a message object is written for.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    admin: bool,
    user: Option<Box<str>>,
}

impl Reader {
    pub(crate) fn new(who: &Who, broker: &Broker) -> Self {
        Self { admin: who.may_admin(broker), user: who.principal.name().map(Into::into) }
    }

    /// Whoever runs the place.
    pub(crate) fn operator() -> Self {
        Self { admin: true, user: None }
    }

    /// The publisher's client id is for operators and for its own user.
    fn may_see(&self, message: &Message) -> bool {
        self.admin || (self.user.is_some() && self.user.as_deref() == message.publisher_user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_payload_keeps_its_key_order_and_digits() {
        let json = r#"{"topic":"a","payload":{ "z": 1.50, "a" : [ 10000000000000000000001, "x \" { y" ] }}"#;
        let order = Order::from_json(json).unwrap();
        assert_eq!(order.payload, br#"{"z":1.50,"a":[10000000000000000000001,"x \" { y"]}"#);
        assert_eq!((order.qos, order.retain), (Qos::AtLeastOnce, false));
        for (payload, bytes) in [(r#""t\u00e9xt\n""#, "téxt\n"), ("null", "null"), ("12", "12"), ("\"\"", "")] {
            let order = Order::from_json(&format!(r#"{{"topic":"a","payload":{payload}}}"#)).unwrap();
            assert_eq!(order.payload, bytes.as_bytes());
        }
    }

    #[test]
    fn binary_payloads_and_properties_are_read() {
        let json = r#"{"topic":"a","payload_base64":"/wA","qos":2,"retain":true,"expiry":9,"content_type":"x/y",
            "response_topic":"r","correlation_data":"_w","user_properties":[["k","v"],["k","w"]]}"#;
        let order = Order::from_json(json).unwrap();
        assert_eq!(order.payload, [0xFF, 0]);
        let properties = order.properties.unwrap();
        assert_eq!(properties.correlation_data.as_deref(), Some(&[0xFF][..]));
        assert_eq!(properties.user.len(), 2);
        assert_eq!((order.qos, order.retain, order.expiry), (Qos::ExactlyOnce, true, Some(9)));
    }

    #[test]
    fn what_is_no_message_object_is_refused() {
        for bad in [
            "{}",
            "[]",
            r#"{"topic":"a"}"#,
            r#"{"topic":"a","payload":"","payload_base64":""}"#,
            r#"{"topic":"a","payload":"","qos":3}"#,
            r#"{"topic":"a","payload":"","typo":3}"#,
            r#"{"topic":"a","payload_base64":"?"}"#,
            r#"{"topic":"a","payload":"","response_topic":"+"}"#,
            r#"{"topic":"a","payload":"","user_properties":[["a","\u0000"]]}"#,
        ] {
            assert!(matches!(Order::from_json(bad), Err(Problem::BadBody(_))), "{bad}");
        }
    }
}
