//! CONNECT and CONNACK (MQTT 5.0 §3.1, §3.2): from a client's first packet to what the core is asked, and from the
//! core's answer to the client's.

use crate::codec::{
    self, ConnAck, ConnAckProperties, Connect, DecodeError, Malformation, ReasonCode, UserProperties, Version,
};
use bytes::Bytes;
use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};
use waystation_broker::{
    Attached, Broker, ClientId, Credentials, Hello, Limits, Peer, Refusal, Start, Topic, WhileAway, Will,
};
use waystation_kit::names::ORIGIN;

/// Characters.
const LONGEST_3_1_CLIENT_ID: usize = 23;

/// What a client asks for, and how it wants to be spoken to.
pub(crate) struct Knock {
    pub(crate) hello: Hello,
    pub(crate) terms: Terms,
}

/// What holds for one connection.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// Seconds, as granted.
    pub(crate) keep_alive: u16,
    /// It differs from what the client asked for.
    keep_alive_lowered: bool,
    /// The session expiry asked for, in seconds.
    pub(crate) expiry: u32,
    /// Largest packet the client takes.
    pub(crate) client_maximum: u32,
    /// Highest alias the client takes.
    pub(crate) client_aliases: u16,
    /// The client brought no id.
    assigned: Option<ClientId>,
    /// The client is a bridge, which wants to know whom it has reached.
    is_bridge: bool,
}

/// A client that does not get in, and what it is told.
#[derive(Debug)]
pub(crate) struct TurnedAway {
    /// Its CONNACK; empty where the specification has none for the case.
    pub(crate) answer: Vec<u8>,
    /// For the log.
    pub(crate) why: String,
}

/// Reads the first packet. `None` while bytes are missing; else what it asks and how many bytes it took.
pub(crate) fn knock(
    bytes: &[u8],
    gateway: &Arc<str>,
    peer: Peer,
    limits: &Limits,
) -> Result<Option<(Box<Knock>, usize)>, TurnedAway> {
    let (connect, used) = match codec::decode_connect(bytes, limits.max_packet_size) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        Err(error) => return Err(malformed(&error)),
    };
    let version = connect.version;
    match read(&connect, gateway, peer, limits) {
        Ok(knock) => Ok(Some((Box::new(knock), used))),
        Err((reason, why)) => Err(turn_away(version, reason, why, client_maximum(&connect))),
    }
}

/// The CONNACK of a client that the core does not let in.
pub(crate) fn refuse(terms: &Terms, refusal: &Refusal) -> TurnedAway {
    let reason = match refusal {
        Refusal::BadCredentials => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        Refusal::NotAuthorized | Refusal::EncryptionRequired | Refusal::WillRefused => ReasonCode::NOT_AUTHORIZED,
        Refusal::InvalidClientId => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        Refusal::ServerBusy | Refusal::InUse => ReasonCode::SERVER_BUSY,
        Refusal::StoreUnavailable if terms.version == Version::V5 => ReasonCode::QUOTA_EXCEEDED,
        Refusal::StoreUnavailable | Refusal::ServerUnavailable | Refusal::NoSession => ReasonCode::SERVER_UNAVAILABLE,
    };
    turn_away(terms.version, reason, &refusal.to_string(), terms.client_maximum)
}

/// The CONNACK of a client that is in: what it got, and what is limited.
pub(crate) fn welcome(terms: &Terms, attached: &Attached, broker: &Broker) -> Vec<u8> {
    let limits = broker.limits();
    let identity = terms.is_bridge.then(|| broker.identity());
    let user = identity.as_deref().map(|identity| [(ORIGIN, identity)]);
    let lowered = |available: bool| (!available).then_some(false);
    let properties = ConnAckProperties {
        session_expiry: (attached.expiry != terms.expiry).then_some(attached.expiry),
        receive_maximum: NonZeroU16::new(limits.receive_maximum).filter(|it| *it != NonZeroU16::MAX),
        maximum_qos: (limits.max_qos < 2).then_some(limits.max_qos),
        retain_available: lowered(limits.retain_available),
        maximum_packet_size: NonZeroU32::new(limits.max_packet_size),
        assigned_client_id: terms.assigned.as_ref().map(ClientId::as_str),
        topic_alias_maximum: (limits.topic_alias_maximum > 0).then_some(limits.topic_alias_maximum),
        wildcard_subscription_available: lowered(limits.wildcard_subscriptions),
        subscription_identifier_available: lowered(limits.subscription_identifiers),
        shared_subscription_available: lowered(limits.shared_subscriptions),
        server_keep_alive: terms.keep_alive_lowered.then_some(terms.keep_alive),
        user: UserProperties::new(user.as_ref().map_or(&[], |user| user.as_slice())),
        ..ConnAckProperties::default()
    };
    encode(terms.version, &ConnAck { session_present: attached.resumed, reason: ReasonCode::SUCCESS, properties })
}

fn read(
    connect: &Connect<'_>,
    gateway: &Arc<str>,
    peer: Peer,
    limits: &Limits,
) -> Result<Knock, (ReasonCode, &'static str)> {
    let properties = &connect.properties;
    if properties.authentication_method.is_some() {
        return Err((ReasonCode::BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered"));
    }
    // 3.1 §3.1; its successors have no such bound.
    if connect.version == Version::V3_1 && connect.client_id.chars().count() > LONGEST_3_1_CLIENT_ID {
        return Err((ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "MQTT 3.1 allows client ids of 1 to 23 characters"));
    }
    let assigned = connect.client_id.is_empty().then(ClientId::assigned);
    let client_id = match &assigned {
        Some(id) => id.clone(),
        None => ClientId::new(connect.client_id)
            .ok_or((ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "the client id is not valid"))?,
    };
    let expiry = match connect.version {
        Version::V5 => properties.session_expiry.unwrap_or(0),
        // A session that is not clean outlives its connection until it is made clean (3.1.1 §3.1.2.4).
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    let too_long = connect.keep_alive > limits.max_keep_alive || connect.keep_alive == 0;
    let keep_alive_lowered = connect.version == Version::V5 && too_long && connect.keep_alive != 0;
    let keep_alive = if keep_alive_lowered { limits.max_keep_alive } else { connect.keep_alive };
    let mut hello = Hello::new(gateway.clone(), peer, Some(client_id));
    hello.credentials = credentials(connect);
    hello.start = if connect.clean_start { Start::Clean } else { Start::Resume };
    hello.expiry = expiry;
    hello.window = properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
    hello.while_away = WhileAway::DropQos0;
    hello.properties = connect.version == Version::V5;
    hello.will = connect.will.as_ref().map(|will| read_will(will, keep_alive, limits)).transpose()?;
    let terms = Terms {
        version: connect.version,
        keep_alive,
        keep_alive_lowered,
        expiry,
        client_maximum: client_maximum(connect),
        client_aliases: properties.topic_alias_maximum.unwrap_or(0),
        assigned: assigned.filter(|_| connect.version == Version::V5),
        is_bridge: properties.user.iter().any(|(name, _)| name == ORIGIN),
    };
    Ok(Knock { hello, terms })
}

/// Largest packet the client takes, in bytes.
fn client_maximum(connect: &Connect<'_>) -> u32 {
    connect.properties.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get)
}

fn credentials(connect: &Connect<'_>) -> Credentials {
    let password = connect.password.map(Bytes::copy_from_slice);
    match (connect.user_name, password) {
        (Some(user), password) => Credentials::Password { user: user.to_owned(), password },
        // MQTT 5 §3.1.2.9: "to be used for credentials other than a password".
        (None, Some(token)) => match std::str::from_utf8(&token) {
            Ok(token) => Credentials::Token(token.to_owned()),
            Err(_) => Credentials::Password { user: String::new(), password: Some(token) },
        },
        (None, None) => Credentials::Anonymous,
    }
}

fn read_will(will: &codec::Will<'_>, keep_alive_s: u16, limits: &Limits) -> Result<Will, (ReasonCode, &'static str)> {
    if will.qos as u8 > limits.max_qos {
        return Err((ReasonCode::QOS_NOT_SUPPORTED, "the will's QoS is above limits.max_qos"));
    }
    if will.retain && !limits.retain_available {
        return Err((ReasonCode::RETAIN_NOT_SUPPORTED, "the will is retained, which limits.retain_available forbids"));
    }
    if will.properties.payload_is_utf8 && std::str::from_utf8(will.payload).is_err() {
        return Err((ReasonCode::PAYLOAD_FORMAT_INVALID, "the will's payload is not UTF-8 as it says"));
    }
    let topic = Topic::parse(will.topic).map_err(|_| (ReasonCode::TOPIC_NAME_INVALID, "the will topic is invalid"))?;
    if topic.levels() > limits.max_topic_levels {
        return Err((ReasonCode::TOPIC_NAME_INVALID, "the will topic has more levels than limits.max_topic_levels"));
    }
    Ok(Will {
        topic,
        payload: Bytes::copy_from_slice(will.payload),
        qos: will.qos,
        retain: will.retain,
        delay_s: will.properties.delay.unwrap_or(0),
        keep_alive_s,
        expiry: will.properties.message_expiry,
        properties: will.properties.application(),
        stays: false,
    })
}

fn malformed(error: &DecodeError) -> TurnedAway {
    let why = error.to_string();
    let answer = |version, most| turn_away(version, error.reason(), &why, most);
    match (error.version, &error.kind) {
        // What the client takes at most was in what could not be read.
        (Some(version), _) => answer(version, u32::MAX),
        // A version we do not know is answered in the shortest form, the one that is most likely understood: what comes
        // after MQTT 5 knows that one's. The high bit is how bridges of mosquitto say what they are; they are of the
        // old ones.
        (None, Malformation::ProtocolLevel { got: 6..=0x7F }) => answer(Version::V5, 0),
        (None, Malformation::ProtocolLevel { .. }) => answer(Version::V3_1_1, 0),
        // Nothing says that MQTT is spoken at all.
        (None, _) => TurnedAway { answer: Vec::new(), why },
    }
}

fn turn_away(version: Version, reason: ReasonCode, why: &str, client_maximum: u32) -> TurnedAway {
    // Before MQTT 5 a malformed CONNECT is answered by closing; only six causes have a return code.
    let has_code = version == Version::V5
        || !matches!(
            reason,
            ReasonCode::MALFORMED_PACKET
                | ReasonCode::PROTOCOL_ERROR
                | ReasonCode::PACKET_TOO_LARGE
                | ReasonCode::TOPIC_NAME_INVALID
        );
    let mut answer = Vec::new();
    if has_code {
        let mut connack = ConnAck { reason, ..ConnAck::default() };
        connack.properties.reason_string = Some(why);
        answer = encode(version, &connack);
        if answer.len() > client_maximum as usize {
            connack.properties.reason_string = None; // [MQTT-3.2.2-19]
            answer = encode(version, &connack);
        }
    }
    TurnedAway { answer, why: why.to_owned() }
}

fn encode(version: Version, connack: &ConnAck<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = connack.encode(version, &mut bytes) {
        // Its longest field is an id of our own making.
        tracing::error!(%error, "CONNACK cannot be encoded");
    }
    bytes
}
