//! The far side's hand and ear: rumqttc's packets in neutral words.

use crate::config::Protocol;
use bytes::{Bytes, BytesMut};
use rumqttc::{mqttbytes, v5::mqttbytes as five};
use waystation_broker::Properties;

/// A PUBLISH, either way.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Published {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) id: u16,
    pub(super) duplicate: bool,
    pub(super) retain: bool,
    pub(super) expiry: Option<u32>,
    pub(super) user: Vec<(String, String)>,
    /// The others, without the user properties.
    pub(super) said: Option<Properties>,
}

impl Published {
    pub(super) fn new(topic: &str, payload: &str, qos: u8, id: u16) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, id, ..Self::default() }
    }
}

/// What we said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Publish(Box<Published>),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe(u16, Vec<String>),
    PingReq,
    Disconnect,
}

impl Said {
    fn publish(&self) -> &Published {
        match self {
            Self::Publish(publish) => publish,
            other => panic!("{other:?} is no PUBLISH"),
        }
    }

    /// Payload, identifier, DUP.
    pub(super) fn numbered(&self) -> (String, u16, bool) {
        let publish = self.publish();
        (publish.payload.clone(), publish.id, publish.duplicate)
    }

    /// Payload, QoS, retain.
    pub(super) fn seen(&self) -> (&str, u8, bool) {
        let publish = self.publish();
        (&publish.payload, publish.qos, publish.retain)
    }

    pub(super) fn user(self) -> Vec<(String, String)> {
        self.publish().user.clone()
    }
}

/// What the far side says.
pub(super) enum Say {
    Publish(Published),
    /// With a reason other than success.
    PubAck(u16, Option<u8>),
    PubRec(u16, Option<u8>),
    PubRel(u16),
    PubComp(u16),
    /// Whether each is granted.
    SubAck(u16, Vec<bool>),
    PingResp,
}

impl Say {
    pub(super) fn publish(topic: &str, payload: &str, qos: u8, id: u16) -> Self {
        Self::Publish(Published::new(topic, payload, qos, id))
    }
}

/// Reads the next packet of what we sent.
pub(super) fn read(protocol: Protocol, bytes: &mut BytesMut) -> Said {
    match protocol {
        Protocol::V311 => read_v4(bytes),
        Protocol::V5 => read_v5(bytes),
    }
}

fn read_v4(bytes: &mut BytesMut) -> Said {
    use mqttbytes::v4::Packet;
    match Packet::read(bytes, usize::MAX).unwrap() {
        Packet::Publish(publish) => Said::Publish(Box::new(Published {
            topic: publish.topic,
            payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
            qos: publish.qos as u8,
            id: publish.pkid,
            duplicate: publish.dup,
            retain: publish.retain,
            ..Published::default()
        })),
        Packet::PubAck(ack) => Said::PubAck(ack.pkid),
        Packet::PubRec(ack) => Said::PubRec(ack.pkid),
        Packet::PubRel(ack) => Said::PubRel(ack.pkid),
        Packet::PubComp(ack) => Said::PubComp(ack.pkid),
        Packet::Subscribe(subscribe) => {
            Said::Subscribe(subscribe.pkid, subscribe.filters.into_iter().map(|filter| filter.path).collect())
        }
        Packet::PingReq => Said::PingReq,
        Packet::Disconnect => Said::Disconnect,
        other => panic!("{other:?} is not a bridge's to send"),
    }
}

fn read_v5(bytes: &mut BytesMut) -> Said {
    use five::v5::Packet;
    if bytes.starts_with(&[0xE0, 0]) {
        drop(bytes.split_to(2));
        return Said::Disconnect;
    }
    match Packet::read(bytes, None).unwrap() {
        Packet::Publish(publish) => {
            let said = publish.properties.unwrap_or_default();
            Said::Publish(Box::new(Published {
                topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
                qos: publish.qos as u8,
                id: publish.pkid,
                duplicate: publish.dup,
                retain: publish.retain,
                expiry: said.message_expiry_interval,
                user: said.user_properties,
                said: Some(Properties {
                    payload_is_utf8: said.payload_format_indicator == Some(1),
                    content_type: said.content_type.map(Into::into),
                    response_topic: said.response_topic.map(Into::into),
                    correlation_data: said.correlation_data.map(|data| data.as_ref().into()),
                    user: Vec::new(),
                }),
            }))
        }
        Packet::PubAck(ack) => Said::PubAck(ack.pkid),
        Packet::PubRec(ack) => Said::PubRec(ack.pkid),
        Packet::PubRel(ack) => Said::PubRel(ack.pkid),
        Packet::PubComp(ack) => Said::PubComp(ack.pkid),
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.filters.iter().all(|filter| filter.nolocal && filter.preserve_retain));
            Said::Subscribe(subscribe.pkid, subscribe.filters.into_iter().map(|filter| filter.path).collect())
        }
        Packet::PingReq(_) => Said::PingReq,
        other => panic!("{other:?} is not a bridge's to send"),
    }
}

/// Writes a packet of the far side.
pub(super) fn write(protocol: Protocol, say: Say) -> BytesMut {
    let mut out = BytesMut::new();
    let ack = |first: u8, id: u16, reason: Option<u8>| {
        let [high, low] = id.to_be_bytes();
        match reason {
            None => vec![first, 2, high, low],
            Some(reason) => vec![first, 3, high, low, reason],
        }
    };
    match say {
        Say::PubAck(id, reason) => out.extend(ack(0x40, id, reason)),
        Say::PubRec(id, reason) => out.extend(ack(0x50, id, reason)),
        Say::PubRel(id) => out.extend(ack(0x62, id, None)),
        Say::PubComp(id) => out.extend(ack(0x70, id, None)),
        Say::PingResp => out.extend([0xD0, 0]),
        Say::SubAck(id, results) => {
            let properties: &[u8] = if protocol == Protocol::V5 { &[0] } else { &[] };
            let length = 2 + properties.len() + results.len();
            out.extend([0x90, u8::try_from(length).unwrap()]);
            out.extend(id.to_be_bytes());
            out.extend(properties);
            out.extend(results.into_iter().map(|granted| if granted { 1 } else { 0x80 }));
        }
        Say::Publish(publish) => write_publish(protocol, publish, &mut out),
    }
    out
}

fn write_publish(protocol: Protocol, publish: Published, out: &mut BytesMut) {
    match protocol {
        Protocol::V311 => {
            let qos = mqttbytes::qos(publish.qos).unwrap();
            let mut packet = mqttbytes::v4::Publish::new(publish.topic, qos, publish.payload);
            (packet.pkid, packet.retain) = (publish.id, publish.retain);
            packet.write(out).unwrap();
        }
        Protocol::V5 => {
            let said = publish.said.unwrap_or_default();
            let properties = five::v5::PublishProperties {
                payload_format_indicator: said.payload_is_utf8.then_some(1),
                message_expiry_interval: publish.expiry,
                content_type: said.content_type.map(Into::into),
                response_topic: said.response_topic.map(Into::into),
                correlation_data: said.correlation_data.map(|data| Bytes::from(data.into_vec())),
                user_properties: publish.user,
                ..Default::default()
            };
            let qos = five::qos(publish.qos).unwrap();
            let mut packet = five::v5::Publish::new(publish.topic, qos, publish.payload, Some(properties));
            (packet.pkid, packet.retain) = (publish.id, publish.retain);
            packet.write(out).unwrap();
        }
    }
}
