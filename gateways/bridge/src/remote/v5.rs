//! MQTT 5.0.

use super::{
    Answer, Arrival, Dialect, Heard, Hello, LARGEST_PACKET, LONGEST_TEXT, NotWelcome, Parcel, Terms, Unwritable,
    Verdict, Welcome, Wish, judged, written,
};
use crate::loops::{self, Stamp};
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{
        ConnAck, ConnAckProperties, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter,
        LastWill, Login, Packet, PubAck, PubAckReason, PubComp, PubRec, PubRecReason, PubRel, Publish,
        PublishProperties, RetainForwardRule, Subscribe, SubscribeReasonCode,
    },
};
use std::{fmt::Write, num::NonZeroU16};
use waystation_broker::{Properties, Qos};
use waystation_kit::{
    names::{HOPS, ORIGIN},
    words::in_words,
};

/// Writes one publication after the other from the same place.
#[derive(Default)]
pub(super) struct V5 {
    publish: Publish,
    payloads: BytesMut,
}

impl Dialect for V5 {
    fn connect(&self, hello: &Hello<'_>, out: &mut BytesMut) -> Result<(), Unwritable> {
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = (!hello.clean_start).then_some(u32::MAX);
        properties.receive_maximum = Some(hello.receive_maximum);
        properties.max_packet_size = Some(hello.maximum_packet);
        // A far Waystation answers with who it is; to others it says nothing.
        properties.user_properties = vec![(ORIGIN.to_owned(), hello.server.to_owned())];
        let connect = Connect {
            keep_alive: hello.keep_alive_s,
            client_id: hello.client_id.to_owned(),
            clean_start: hello.clean_start,
            properties: Some(properties),
        };
        let will = hello.state_topic.map(|topic| LastWill::new(topic, "0", QoS::AtLeastOnce, true, None));
        let login = hello.login.map(|(user, password)| Login::new(user, password));
        let before = out.len();
        written(connect.write(&will, &login, out).is_ok(), before, out)
    }

    fn publish(&mut self, parcel: &Parcel<'_>, out: &mut BytesMut) -> Result<(), Unwritable> {
        let publish = &mut self.publish;
        if publish.topic != parcel.topic.as_bytes() {
            publish.topic = Bytes::copy_from_slice(parcel.topic.as_bytes());
        }
        publish.dup = parcel.duplicate;
        publish.qos = qos_v5(parcel.qos);
        publish.retain = parcel.retain;
        publish.pkid = parcel.id.map_or(0, NonZeroU16::get);
        fill(publish.properties.get_or_insert_default(), parcel)?;
        self.payloads.extend_from_slice(parcel.payload);
        publish.payload = self.payloads.split().freeze();
        let before = out.len();
        let fits = publish.write(out).is_ok();
        // Its memory is for the next one.
        publish.payload = Bytes::new();
        written(fits, before, out)
    }

    fn answer(&self, answer: Answer, id: NonZeroU16, out: &mut BytesMut) {
        let id = id.get();
        let result = match answer {
            Answer::PubAck => PubAck::new(id, None).write(out),
            Answer::PubRec => PubRec::new(id, None).write(out),
            Answer::PubRel => PubRel::new(id, None).write(out),
            Answer::PubComp => PubComp::new(id, None).write(out),
        };
        debug_assert!(result.is_ok(), "four bytes always fit");
    }

    fn subscribe(&self, id: NonZeroU16, wishes: &[Wish<'_>], out: &mut BytesMut) -> Result<(), Unwritable> {
        let filters = wishes.iter().map(|wish| Filter {
            path: wish.filter.to_owned(),
            qos: qos_v5(wish.qos),
            // What we published is not to come back.
            nolocal: true,
            preserve_retain: true,
            // State that is there already came with the first.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        });
        let subscribe = Subscribe { pkid: id.get(), filters: filters.collect(), properties: None };
        let before = out.len();
        written(subscribe.write(out).is_ok(), before, out)
    }

    fn read(&self, input: &mut BytesMut) -> Result<Heard, String> {
        // rumqttc wants a reason and properties, both of which may be left out (§3.14.2.1, §3.14.2.2.1).
        match **input {
            // A broker that knows no MQTT 5 answers as its own protocol says (MQTT 3.1.1 §3.1.2.2).
            [0x20, 2, _, code, ..] => {
                let why = format!("it answers in MQTT 3.1.1 (return code {code}); try protocol = \"3.1.1\"");
                return Ok(Heard::ConnAck(Err(NotWelcome { why, for_good: true })));
            }
            [0xE0, 0, ..] => return Ok(Heard::Disconnect("normal disconnection".into())),
            [0xE0, 1, reason, ..] => {
                let reason = DisconnectReasonCode::try_from(reason).map_err(|error| error.to_string())?;
                return Ok(Heard::Disconnect(in_words(&reason)));
            }
            _ => {}
        }
        let packet = Packet::read(input, None).map_err(|error| error.to_string())?;
        Ok(match packet {
            Packet::ConnAck(ack) => Heard::ConnAck(welcome(ack)),
            Packet::Publish(publish) => Heard::Publish(Box::new(arrival(publish))),
            Packet::PubAck(ack) => judged(
                Answer::PubAck,
                ack.pkid,
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Verdict::Taken,
                    PubAckReason::QuotaExceeded => Verdict::NoRoom,
                    reason => refused(&reason, ack.properties.and_then(|properties| properties.reason_string)),
                },
            ),
            Packet::PubRec(ack) => judged(
                Answer::PubRec,
                ack.pkid,
                match ack.reason {
                    PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Verdict::Taken,
                    PubRecReason::QuotaExceeded => Verdict::NoRoom,
                    reason => refused(&reason, ack.properties.and_then(|properties| properties.reason_string)),
                },
            ),
            // It ends the exchange whatever it says.
            Packet::PubComp(ack) => judged(Answer::PubComp, ack.pkid, Verdict::Taken),
            Packet::PubRel(ack) => NonZeroU16::new(ack.pkid).map_or(Heard::OutOfPlace, Heard::PubRel),
            Packet::SubAck(ack) => {
                let results = ack.return_codes.iter().map(|code| match code {
                    SubscribeReasonCode::Success(_) => Ok(()),
                    reason => Err(in_words(reason)),
                });
                let results = results.collect();
                NonZeroU16::new(ack.pkid).map_or(Heard::OutOfPlace, |id| Heard::SubAck(id, results))
            }
            Packet::PingResp(_) => Heard::PingResp,
            Packet::Disconnect(farewell) => {
                let text = farewell.properties.and_then(|properties| properties.reason_string);
                Heard::Disconnect(with_text(in_words(&farewell.reason_code), text))
            }
            _ => Heard::OutOfPlace,
        })
    }
}

fn welcome(ack: ConnAck) -> Result<Welcome, NotWelcome> {
    use ConnectReturnCode as Code;
    let ConnAck { session_present, code, properties } = ack;
    if code != Code::Success {
        let text = properties.and_then(|properties| properties.reason_string);
        let passing = [
            Code::ServerUnavailable,
            Code::ServerBusy,
            Code::ServiceUnavailable,
            Code::UnspecifiedError,
            Code::QuotaExceeded,
            Code::ConnectionRateExceeded,
            Code::UseAnotherServer,
        ];
        return Err(NotWelcome { why: with_text(in_words(&code), text), for_good: !passing.contains(&code) });
    }
    let server = properties.iter().flat_map(|properties| &properties.user_properties);
    let server = server.clone().find(|(name, _)| name == ORIGIN).map(|(_, value)| value.as_str().into());
    let terms = properties.map_or_else(Terms::default, |properties| terms(&properties));
    Ok(Welcome { session_present, server, terms })
}

fn terms(properties: &ConnAckProperties) -> Terms {
    let packet = properties.max_packet_size.and_then(|size| usize::try_from(size).ok());
    Terms {
        receive_maximum: properties.receive_max.unwrap_or(u16::MAX).max(1),
        maximum_packet: packet.map_or(LARGEST_PACKET, |size| size.min(LARGEST_PACKET)),
        maximum_qos: properties.max_qos.and_then(Qos::from_u8).unwrap_or(Qos::ExactlyOnce),
        retain: properties.retain_available != Some(0),
        keep_alive_s: properties.server_keep_alive,
        session_expiry_s: properties.session_expiry_interval,
    }
}

/// The properties of a publication, in the memory of the one before: the two stamps first, then its own.
fn fill(properties: &mut PublishProperties, parcel: &Parcel<'_>) -> Result<(), Unwritable> {
    let user = &mut properties.user_properties;
    match parcel.stamp {
        None => user.clear(),
        Some(Stamp { origin, hops }) => {
            user.resize_with(2, Default::default);
            for ((name, value), ours) in user.iter_mut().zip([ORIGIN, HOPS]) {
                if name != ours {
                    ours.clone_into(name);
                }
                value.clear();
            }
            user[0].1.push_str(origin.unwrap_or_default());
            // Writing to a string does not fail.
            let _ = write!(user[1].1, "{hops}");
        }
    }
    properties.message_expiry_interval = parcel.expiry;
    let Some(said) = parcel.properties else {
        properties.payload_format_indicator = None;
        properties.content_type = None;
        properties.response_topic = None;
        properties.correlation_data = None;
        return Ok(());
    };
    let fits = |text: &str| text.len() <= LONGEST_TEXT;
    let texts = said.user.iter().flat_map(|(name, value)| [&**name, &**value]);
    let texts = texts.chain(said.content_type.as_deref()).chain(said.response_topic.as_deref());
    let data = said.correlation_data.as_deref().unwrap_or_default();
    if !texts.into_iter().all(fits) || data.len() > LONGEST_TEXT {
        return Err(Unwritable);
    }
    properties.payload_format_indicator = said.payload_is_utf8.then_some(1);
    properties.content_type = said.content_type.as_deref().map(str::to_owned);
    properties.response_topic = said.response_topic.as_deref().map(str::to_owned);
    properties.correlation_data = said.correlation_data.as_deref().map(Bytes::copy_from_slice);
    let own = said.user.iter().filter(|(name, _)| !loops::is_ours(name));
    properties.user_properties.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
    Ok(())
}

fn arrival(publish: Publish) -> Arrival {
    let (mut expiry, mut properties) = (None, None);
    if let Some(said) = publish.properties {
        expiry = said.message_expiry_interval;
        properties = Some(Properties {
            payload_is_utf8: said.payload_format_indicator == Some(1),
            content_type: said.content_type.map(Into::into),
            response_topic: said.response_topic.map(Into::into),
            correlation_data: said.correlation_data.map(|data| data.as_ref().into()),
            user: said.user_properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        });
    }
    Arrival {
        topic: publish.topic,
        payload: publish.payload,
        qos: qos_of(publish.qos),
        retain: publish.retain,
        id: NonZeroU16::new(publish.pkid),
        expiry,
        properties,
    }
}

fn refused(reason: &impl std::fmt::Debug, text: Option<String>) -> Verdict {
    Verdict::Refused(with_text(in_words(reason), text))
}

fn with_text(mut words: String, text: Option<String>) -> String {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        // It is from outside and goes into a line of the log.
        let _ = write!(words, " ({})", text.escape_debug());
    }
    words
}

fn qos_v5(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn qos_of(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_knows_no_mqtt_5_is_told_from_one_that_talks_nonsense() {
        let heard = V5::default().read(&mut BytesMut::from(&[0x20, 2, 0, 1][..]));
        let Ok(Heard::ConnAck(Err(refusal))) = heard else { panic!("{heard:?}") };
        assert!(refusal.why.contains("protocol = \"3.1.1\""), "{}", refusal.why);
        assert!(V5::default().read(&mut BytesMut::from(&[0x20, 1, 0][..])).is_err());
    }
}
