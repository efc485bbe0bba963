//! MQTT 3.1.1.

use super::{
    Answer, Arrival, Dialect, Heard, Hello, NotWelcome, Parcel, Terms, Unwritable, Verdict, Welcome, Wish, judged,
    written,
};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{
    QoS,
    v4::{
        Connect, ConnectReturnCode, LastWill, Packet, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe,
        SubscribeFilter, SubscribeReasonCode,
    },
};
use std::num::NonZeroU16;
use waystation_broker::Qos;
use waystation_kit::words::in_words;

/// Writes one publication after the other from the same place.
pub(super) struct V4 {
    publish: Publish,
    payloads: BytesMut,
}

impl Default for V4 {
    fn default() -> Self {
        Self { publish: Publish::new("", QoS::AtMostOnce, Vec::new()), payloads: BytesMut::new() }
    }
}

impl Dialect for V4 {
    fn connect(&self, hello: &Hello<'_>, out: &mut BytesMut) -> Result<(), Unwritable> {
        let mut connect = Connect::new(hello.client_id);
        connect.keep_alive = hello.keep_alive_s;
        connect.clean_session = hello.clean_start;
        connect.last_will = hello.state_topic.map(|topic| LastWill::new(topic, "0", QoS::AtLeastOnce, true));
        if let Some((user, password)) = hello.login {
            connect.set_login(user, password);
        }
        let before = out.len();
        written(connect.write(out).is_ok(), before, out)
    }

    fn publish(&mut self, parcel: &Parcel<'_>, out: &mut BytesMut) -> Result<(), Unwritable> {
        let publish = &mut self.publish;
        if publish.topic != parcel.topic {
            publish.topic.clear();
            publish.topic.push_str(parcel.topic);
        }
        publish.dup = parcel.duplicate;
        publish.qos = qos_v4(parcel.qos);
        publish.retain = parcel.retain;
        publish.pkid = parcel.id.map_or(0, NonZeroU16::get);
        self.payloads.extend_from_slice(parcel.payload);
        publish.payload = self.payloads.split().freeze();
        let before = out.len();
        let fits = publish.write(out).is_ok();
        // Its memory is for the next one.
        publish.payload = Bytes::new();
        written(fits, before, out)
    }

    fn answer(&self, answer: Answer, id: NonZeroU16, out: &mut BytesMut) {
        let pkid = id.get();
        let result = match answer {
            Answer::PubAck => PubAck { pkid }.write(out),
            Answer::PubRec => PubRec { pkid }.write(out),
            Answer::PubRel => PubRel { pkid }.write(out),
            Answer::PubComp => PubComp { pkid }.write(out),
        };
        debug_assert!(result.is_ok(), "four bytes always fit");
    }

    fn subscribe(&self, id: NonZeroU16, wishes: &[Wish<'_>], out: &mut BytesMut) -> Result<(), Unwritable> {
        let filters = wishes.iter().map(|wish| SubscribeFilter::new(wish.filter.to_owned(), qos_v4(wish.qos)));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = id.get();
        let before = out.len();
        written(subscribe.write(out).is_ok(), before, out)
    }

    fn read(&self, input: &mut BytesMut) -> Result<Heard, String> {
        let packet = Packet::read(input, usize::MAX).map_err(|error| error.to_string())?;
        Ok(match packet {
            Packet::ConnAck(ack) => Heard::ConnAck(match ack.code {
                ConnectReturnCode::Success => {
                    Ok(Welcome { session_present: ack.session_present, server: None, terms: Terms::default() })
                }
                code => {
                    Err(NotWelcome { why: in_words(&code), for_good: code != ConnectReturnCode::ServiceUnavailable })
                }
            }),
            Packet::Publish(publish) => Heard::Publish(Box::new(Arrival {
                topic: Bytes::from(publish.topic),
                payload: publish.payload,
                qos: qos_of(publish.qos),
                retain: publish.retain,
                id: NonZeroU16::new(publish.pkid),
                expiry: None,
                properties: None,
            })),
            Packet::PubAck(PubAck { pkid }) => judged(Answer::PubAck, pkid, Verdict::Taken),
            Packet::PubRec(PubRec { pkid }) => judged(Answer::PubRec, pkid, Verdict::Taken),
            Packet::PubComp(PubComp { pkid }) => judged(Answer::PubComp, pkid, Verdict::Taken),
            Packet::PubRel(PubRel { pkid }) => NonZeroU16::new(pkid).map_or(Heard::OutOfPlace, Heard::PubRel),
            Packet::SubAck(ack) => {
                let results = ack.return_codes.iter().map(|code| match code {
                    SubscribeReasonCode::Success(_) => Ok(()),
                    SubscribeReasonCode::Failure => Err("no reason given".to_owned()),
                });
                let results = results.collect();
                NonZeroU16::new(ack.pkid).map_or(Heard::OutOfPlace, |id| Heard::SubAck(id, results))
            }
            Packet::PingResp => Heard::PingResp,
            _ => Heard::OutOfPlace,
        })
    }
}

fn qos_v4(qos: Qos) -> QoS {
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
