//! What is written is read again, for every packet in every version.

use proptest::{collection::vec, option, prelude::*};
use std::num::{NonZeroU16, NonZeroU32};
use waystation_broker::{Properties, Qos, RetainHandling};
use waystation_mqtt::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Filters, MISSED, Packet, PacketType, Publication, Publish, PublishProperties, ReasonCode,
    SubAck, Subscribe, SubscribeTo, SubscriptionIdentifiers, TopicFilters, UnsubAck, Unsubscribe, UserProperties,
    Version, Will, WillProperties, decode, decode_connect, decode_from_server, encode_ack,
};

const LIMIT: u32 = 268_435_460;

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3_1), Just(Version::V3_1_1), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|id| NonZeroU16::new(id).unwrap())
}

fn identifier() -> impl Strategy<Value = NonZeroU32> {
    (1..=268_435_455u32).prop_map(|id| NonZeroU32::new(id).unwrap())
}

/// Text of any characters but U+0000, of a length that sometimes needs a longer packet length.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[^\0]{0,12}", "[a-z]{100,200}"]
}

fn topic() -> impl Strategy<Value = String> {
    "[^\0+#]{1,20}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn borrow(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    out
}

fn from_client(packet: &Packet<'_>, version: Version) {
    let out = encode(packet, version);
    assert_eq!(decode(&out, version, LIMIT).unwrap().unwrap(), (packet.clone(), out.len()));
}

fn from_server(packet: &Packet<'_>, version: Version) {
    let out = encode(packet, version);
    assert_eq!(decode_from_server(&out, version, LIMIT).unwrap().unwrap(), (packet.clone(), out.len()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connect(
        version in version(), flags in any::<[bool; 4]>(), keep_alive: u16, client_id in "[^\0]{1,30}",
        user_name in option::of(text()), password in option::of(bytes()), will_qos in qos(), will_topic in topic(),
        payload in bytes(), pairs in pairs(), numbers in any::<[Option<u32>; 3]>(), id in option::of(id()),
        size in option::of(identifier()), alias: Option<u16>, method in option::of(text()),
    ) {
        let [clean_start, retain, has_will, flag] = flags;
        let v5 = version == Version::V5;
        let pairs = borrow(&pairs);
        let user = UserProperties::new(&pairs);
        let properties = ConnectProperties {
            session_expiry: numbers[0], receive_maximum: id, maximum_packet_size: size, topic_alias_maximum: alias,
            request_response_information: Some(flag), request_problem_information: Some(retain), user,
            authentication_method: method.as_deref(),
            authentication_data: method.is_some().then_some(&payload[..]),
        };
        let will = WillProperties {
            delay: numbers[1], payload_is_utf8: flag, message_expiry: numbers[2], content_type: method.as_deref(),
            response_topic: Some(&will_topic), correlation_data: Some(&payload), user,
        };
        let packet = Connect {
            version, clean_start, keep_alive, client_id: &client_id,
            will: has_will.then(|| Will {
                qos: will_qos, retain, topic: &will_topic, payload: &payload,
                properties: if v5 { will } else { WillProperties::default() },
            }),
            user_name: user_name.as_deref(),
            password: if v5 || user_name.is_some() { password.as_deref() } else { None },
            properties: if v5 { properties } else { ConnectProperties::default() },
        };
        let out = encode(&Packet::Connect(Box::new(packet.clone())), version);
        prop_assert_eq!(decode_connect(&out, LIMIT).unwrap().unwrap(), (packet.clone(), out.len()));
        from_client(&Packet::Connect(Box::new(packet)), version);
    }

    #[test]
    fn connack(
        version in version(), present: bool, numbers in any::<(Option<u32>, Option<u16>, Option<u16>)>(),
        flags in any::<[Option<bool>; 4]>(), id in option::of(id()), size in option::of(identifier()),
        text in option::of(text()), data in option::of(bytes()), pairs in pairs(), refused in 0..6u8,
    ) {
        let pairs = borrow(&pairs);
        let text = text.as_deref();
        let properties = ConnAckProperties {
            session_expiry: numbers.0, receive_maximum: id, maximum_qos: flags[0].map(u8::from),
            retain_available: flags[1], maximum_packet_size: size, assigned_client_id: text,
            topic_alias_maximum: numbers.1, reason_string: text, user: UserProperties::new(&pairs),
            wildcard_subscription_available: flags[1], subscription_identifier_available: flags[2],
            shared_subscription_available: flags[3], server_keep_alive: numbers.2, response_information: text,
            server_reference: text, authentication_method: text, authentication_data: data.as_deref(),
        };
        let v5 = version == Version::V5;
        let reason = ReasonCode(if v5 && refused > 0 { 0x80 + refused } else { refused });
        let packet = ConnAck {
            session_present: present && refused == 0 && version != Version::V3_1, reason,
            properties: if v5 { properties } else { ConnAckProperties::default() },
        };
        from_server(&Packet::ConnAck(Box::new(packet)), version);
    }

    #[test]
    fn publish(
        version in version(), dup: bool, qos in qos(), retain: bool, topic in topic(), id in id(), alias in option::of(id()),
        expiry: Option<u32>, text in option::of(text()), data in option::of(bytes()), pairs in pairs(),
        identifiers in vec(identifier(), 0..3), payload in bytes(), utf8: bool,
    ) {
        let pairs = borrow(&pairs);
        let properties = PublishProperties {
            payload_is_utf8: utf8, message_expiry: expiry, topic_alias: alias,
            response_topic: data.is_some().then_some(&topic[..]), correlation_data: data.as_deref(),
            user: UserProperties::new(&pairs), subscription_identifiers: SubscriptionIdentifiers::default(),
            content_type: text.as_deref(),
        };
        let mut packet = Publish {
            dup: dup && qos != Qos::AtMostOnce, qos, retain, topic: &topic,
            packet_id: (qos != Qos::AtMostOnce).then_some(id),
            properties: if version == Version::V5 { properties } else { PublishProperties::default() },
            payload: &payload,
        };
        from_client(&Packet::Publish(packet.clone()), version);
        if version == Version::V5 {
            packet.properties.subscription_identifiers = SubscriptionIdentifiers::new(&identifiers);
        }
        from_server(&Packet::Publish(packet), version);
    }

    #[test]
    fn publication_is_as_long_as_measured_and_says_what_the_core_said(
        version in version(), qos in qos(), retain: bool, topic in topic(), id in id(), alias in option::of(id()),
        expiry: Option<u32>, text in option::of(text()), data in option::of(bytes()), pairs in pairs(),
        identifiers in vec(identifier(), 0..3), payload in bytes(), utf8: bool, missed: u32,
    ) {
        let properties = Properties {
            payload_is_utf8: utf8, content_type: text.as_deref().map(Box::from),
            response_topic: data.is_some().then(|| topic.as_str().into()), correlation_data: data.as_deref().map(Box::from),
            user: pairs.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect(),
        };
        let publication = Publication {
            dup: qos != Qos::AtMostOnce, qos, retain, packet_id: (qos != Qos::AtMostOnce).then_some(id),
            properties: Some(&properties), expiry, identifiers: &identifiers, alias, missed,
            ..Publication::new(version, &topic, &payload)
        };
        let measured = publication.measure().unwrap();
        let (mut out, mut head) = (Vec::new(), Vec::new());
        measured.write(&mut out);
        prop_assert_eq!(measured.size(), out.len());
        measured.write_head(&mut head);
        head.extend_from_slice(&payload);
        prop_assert_eq!(&head, &out);
        let Some((Packet::Publish(read), _)) = decode_from_server(&out, version, LIMIT).unwrap() else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!((read.topic, read.qos, read.retain), (&topic[..], qos, retain));
        prop_assert_eq!((read.payload, read.packet_id), (&payload[..], publication.packet_id));
        if version == Version::V5 {
            prop_assert_eq!((read.properties.message_expiry, read.properties.topic_alias), (expiry, alias));
            prop_assert!(read.properties.subscription_identifiers.iter().eq(identifiers));
            let told = read.properties.user.iter().find(|(name, _)| *name == MISSED);
            let number = missed.to_string();
            prop_assert_eq!(told, (missed != 0).then_some((MISSED, number.as_str())));
            let set = (properties != Properties::default()).then_some(properties);
            prop_assert_eq!(read.properties.application().map(|boxed| *boxed), set);
        } else {
            prop_assert_eq!(read.properties, PublishProperties::default());
        }
    }

    #[test]
    fn acknowledgements(version in version(), id in id(), failed: bool, text in option::of(text()), pairs in pairs()) {
        let pairs = borrow(&pairs);
        let properties = AckProperties { reason_string: text.as_deref(), user: UserProperties::new(&pairs) };
        let v5 = version == Version::V5;
        let properties = if v5 { properties } else { AckProperties::default() };
        let ack = |failure| Ack {
            packet_id: id, properties, reason: if v5 && failed { failure } else { ReasonCode::SUCCESS },
        };
        let (quota, unknown) = (ack(ReasonCode::QUOTA_EXCEEDED), ack(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND));
        for packet in [Packet::PubAck(quota), Packet::PubRec(quota), Packet::PubRel(unknown), Packet::PubComp(unknown)] {
            from_client(&packet, version);
            from_server(&packet, version);
        }
        let disconnect = Disconnect {
            reason: if v5 && failed { ReasonCode::QUOTA_EXCEEDED } else { ReasonCode::SUCCESS },
            properties: DisconnectProperties {
                session_expiry: v5.then_some(7), reason_string: properties.reason_string, user: properties.user,
                server_reference: None,
            },
        };
        from_client(&Packet::Disconnect(disconnect), version);
        let auth = Auth {
            reason: ReasonCode::CONTINUE_AUTHENTICATION,
            properties: AuthProperties {
                method: Some("m"), data: Some(b"\xff"), reason_string: properties.reason_string, user: properties.user,
            },
        };
        from_client(&Packet::Auth(auth.clone()), Version::V5);
        from_server(&Packet::Auth(auth), Version::V5);
    }

    #[test]
    fn subscribing(
        version in version(), id in id(), identifier in option::of(identifier()), pairs in pairs(),
        wanted in vec((topic(), qos(), any::<[bool; 2]>(), 0..3usize), 1..4), text in option::of(text()),
    ) {
        let v5 = version == Version::V5;
        let pairs = borrow(if v5 { &pairs } else { &[] });
        let user = UserProperties::new(&pairs);
        let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let list: Vec<_> = wanted.iter().map(|(filter, qos, [no_local, as_published], retain)| {
            let plain = SubscribeTo::new(filter, *qos);
            if !v5 { return plain }
            SubscribeTo {
                no_local: *no_local, retain_as_published: *as_published, retain_handling: handling[*retain], ..plain
            }
        }).collect();
        let names: Vec<_> = list.iter().map(|wanted| wanted.filter).collect();
        // A filter drawn at random may by chance be a broken $share.
        prop_assume!(names.iter().all(|name| !name.starts_with("$share")));
        let filters = Filters::new(&list);
        from_client(
            &Packet::Subscribe(Subscribe { packet_id: id, identifier: identifier.filter(|_| v5), user, filters }),
            version,
        );
        let filters = TopicFilters::new(&names);
        from_client(&Packet::Unsubscribe(Unsubscribe { packet_id: id, user, filters }), version);

        let properties = AckProperties { reason_string: text.as_deref().filter(|_| v5), user };
        from_server(&Packet::SubAck(SubAck { packet_id: id, properties, reasons: &[0, 1, 2, 0x80] }), version);
        let reasons: &[u8] = if v5 { &[0, 0x11] } else { &[] };
        from_server(&Packet::UnsubAck(UnsubAck { packet_id: id, properties, reasons }), version);
    }

    #[test]
    fn any_bytes_at_all_do_not_panic(bytes in vec(any::<u8>(), 0..200), version in version()) {
        for packet in [decode(&bytes, version, LIMIT), decode_from_server(&bytes, version, LIMIT)] {
            if let Ok(Some((packet, used))) = packet {
                prop_assert!(used <= bytes.len());
                encode(&packet, version);
            }
        }
    }
}

#[test]
fn pings_are_two_bytes() {
    from_client(&Packet::PingReq, Version::V3_1_1);
    from_server(&Packet::PingResp, Version::V5);
    assert_eq!(encode(&Packet::PingResp, Version::V5), b"\xd0\0");
}

#[test]
fn acknowledgements_are_as_short_as_they_can_be() {
    let id = NonZeroU16::new(0x0102).unwrap();
    let mut out = Vec::new();
    encode_ack(&mut out, PacketType::PubAck, Version::V5, id, ReasonCode::SUCCESS);
    encode_ack(&mut out, PacketType::PubRel, Version::V3_1_1, id, ReasonCode::SUCCESS);
    encode_ack(&mut out, PacketType::PubRec, Version::V5, id, ReasonCode::NOT_AUTHORIZED);
    encode_ack(&mut out, PacketType::PubRec, Version::V3_1_1, id, ReasonCode::NOT_AUTHORIZED);
    assert_eq!(out, b"\x40\x02\x01\x02\x62\x02\x01\x02\x50\x03\x01\x02\x87\x50\x02\x01\x02");
}

#[test]
fn what_mqtt_cannot_say_is_refused_and_leaves_nothing_behind() {
    let long = "x".repeat(65_536);
    let mut out = b"before".to_vec();
    assert!(Publication::new(Version::V5, &long, b"").encode(&mut out).is_err());
    assert!(Connect::new(Version::V5, &long).encode(&mut out).is_err());
    let missing_id = Publication { qos: Qos::AtLeastOnce, ..Publication::new(Version::V5, "a", b"") };
    assert!(missing_id.encode(&mut out).is_err());
    assert_eq!(out, b"before");
}
