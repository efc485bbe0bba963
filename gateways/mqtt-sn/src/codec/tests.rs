use super::{
    Connect, Packet, Publish, PublishQos, ReturnCode, SubAck, Subscribe, TopicName, TopicRef, Unsubscribe, WillTopic,
    decode, encode,
    samples::{BAD, GOOD},
};
use proptest::{collection::vec, prelude::*};
use waystation_broker::Qos;

#[test]
fn samples_decode_to_what_they_mean() {
    for (name, bytes, meaning) in GOOD {
        assert_eq!(decode(bytes).as_ref(), Ok(meaning), "{name}");
    }
}

#[test]
fn malformed_samples_are_refused_with_their_reason() {
    for (name, bytes, reason) in BAD {
        assert_eq!(decode(bytes), Err(*reason), "{name}");
    }
}

#[test]
fn every_proper_prefix_of_a_fixed_size_sample_is_refused() {
    for (name, bytes, _) in GOOD {
        for cut in 0..bytes.len() {
            let whole = matches!(decode(&bytes[..cut]), Ok(Packet::Encapsulated { .. }));
            assert!(decode(&bytes[..cut]).is_err() || whole, "{name} cut at {cut}");
        }
    }
}

#[test]
fn the_long_form_of_the_length_begins_at_256_octets() {
    for (payload, header) in [(253, 2), (254, 4)] {
        let payload = vec![7; payload];
        let mut out = Vec::new();
        encode(&Packet::WillMsg(&payload), &mut out).unwrap();
        assert_eq!(out.len(), header + payload.len());
        assert_eq!(decode(&out), Ok(Packet::WillMsg(&payload)));
    }
}

#[test]
fn what_no_length_field_can_say_is_not_encoded() {
    let mut out = vec![1, 2, 3];
    assert!(encode(&Packet::WillMsg(&vec![0; 65_532]), &mut out).is_err());
    assert!(encode(&Packet::Encapsulated { radius: 0, node: &[0; 253], message: &[2, 0x16] }, &mut out).is_err());
    assert_eq!(out, [1, 2, 3]);
    assert!(encode(&Packet::WillMsg(&vec![0; 65_531]), &mut out).is_ok());
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

/// Calls `check` with a packet of every kind made of these ingredients.
fn every_packet(
    (a, b, code, flags, qos, bytes): (u16, u16, u8, [bool; 3], Qos, &[u8]),
    mut check: impl FnMut(Packet<'_>),
) {
    let [x, y, z] = flags;
    let code = ReturnCode::from(code);
    let octet = a.to_be_bytes()[0];
    let short = b.to_be_bytes();
    let will = z.then_some(WillTopic { qos, retain: x, topic: bytes });
    check(Packet::Advertise { gateway: octet, duration_s: b });
    check(Packet::SearchGw { radius: octet });
    check(Packet::GwInfo { gateway: octet, address: bytes });
    check(Packet::Connect(Connect { will: x, clean_session: y, protocol_id: octet, duration_s: b, client_id: bytes }));
    check(Packet::ConnAck(code));
    check(Packet::WillTopicReq);
    check(Packet::WillTopic(will));
    check(Packet::WillMsgReq);
    check(Packet::WillMsg(bytes));
    check(Packet::Register { topic_id: a, msg_id: b, name: bytes });
    check(Packet::RegAck { topic_id: a, msg_id: b, code });
    for topic in [TopicRef::Normal(a), TopicRef::Predefined(a), TopicRef::Short(short)] {
        for qos in [PublishQos::MinusOne, PublishQos::Mqtt(qos)] {
            check(Packet::Publish(Publish { dup: x, qos, retain: y, topic, msg_id: b, payload: bytes }));
        }
    }
    check(Packet::PubAck { topic_id: a, msg_id: b, code });
    check(Packet::PubRec { msg_id: a });
    check(Packet::PubRel { msg_id: a });
    check(Packet::PubComp { msg_id: a });
    for topic in [TopicName::Name(bytes), TopicName::Predefined(b), TopicName::Short(short)] {
        check(Packet::Subscribe(Subscribe { dup: x, qos, msg_id: a, topic }));
        check(Packet::Unsubscribe(Unsubscribe { msg_id: a, topic }));
    }
    check(Packet::SubAck(SubAck { qos, topic_id: a, msg_id: b, code }));
    check(Packet::UnsubAck { msg_id: a });
    check(Packet::PingReq { client_id: bytes });
    check(Packet::PingResp);
    check(Packet::Disconnect { duration_s: x.then_some(a) });
    check(Packet::WillTopicUpd(will));
    check(Packet::WillTopicResp(code));
    check(Packet::WillMsgUpd(bytes));
    check(Packet::WillMsgResp(code));
    let node = &bytes[..bytes.len().min(252)];
    check(Packet::Encapsulated { radius: octet & 3, node, message: bytes });
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(
        a: u16, b: u16, code: u8, flags: [bool; 3], qos in qos(), bytes in vec(any::<u8>(), 0..400),
    ) {
        every_packet((a, b, code, flags, qos, &bytes), |packet| {
            let mut out = Vec::new();
            encode(&packet, &mut out).unwrap();
            assert_eq!(decode(&out), Ok(packet));
        });
    }

    #[test]
    fn any_bytes_decode_without_panic_and_to_something_that_encodes(bytes in vec(any::<u8>(), 0..64)) {
        round(&bytes);
    }
}

/// Whatever decodes must encode, and to something that decodes the same.
fn round(bytes: &[u8]) {
    if let Ok(packet) = decode(bytes) {
        let mut out = Vec::new();
        encode(&packet, &mut out).unwrap();
        assert_eq!(decode(&out), Ok(packet), "{bytes:02x?}");
    }
}

/// Samples with octets changed, cut, doubled and joined: the decoder's fuzz test that runs with every `cargo test`.
#[test]
fn mutated_samples_never_panic_and_never_change_meaning() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    for _ in 0..200_000 {
        let mut bytes = GOOD[next(GOOD.len())].1.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len().max(1));
            match next(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << next(8),
                1 if at < bytes.len() => bytes[at] = u8::try_from(next(256)).unwrap(),
                2 => bytes.truncate(at),
                3 => bytes.extend_from_slice(GOOD[next(GOOD.len())].1),
                _ => bytes.insert(at, u8::try_from(next(256)).unwrap()),
            }
        }
        // Half of them with a length that is right, so that the mutation reaches the fields.
        if let (Ok(length), true, false) = (u8::try_from(bytes.len()), next(2) == 0, bytes.is_empty()) {
            bytes[0] = length;
        }
        round(&bytes);
    }
}
