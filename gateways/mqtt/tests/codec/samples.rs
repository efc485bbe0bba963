//! The table of samples against the codec.

use waystation_mqtt::codec::{
    DecodeError, Malformation, Packet, PacketType, ReasonCode, Sender, Version, decode, decode_connect,
    decode_from_server,
    samples::{MALFORMED, MAX_PACKET_SIZE, Sample, WELL_FORMED},
};

type Decoded<'a> = Result<Option<(Packet<'a>, usize)>, DecodeError>;

fn decode_sample<'a>(sample: &Sample, bytes: &'a [u8]) -> Decoded<'a> {
    match sample.sender {
        Sender::Client => decode(bytes, sample.version, MAX_PACKET_SIZE),
        Sender::Server => decode_from_server(bytes, sample.version, MAX_PACKET_SIZE),
    }
}

#[test]
fn malformed_samples_are_refused_with_their_reason() {
    assert!(MALFORMED.len() >= 80);
    for sample in MALFORMED {
        let error = decode_sample(sample, sample.bytes).expect_err(sample.name);
        assert_eq!(Some(error.reason()), sample.expected, "{}: {error}", sample.name);
        let text = error.to_string();
        assert!(text.starts_with("malformed ") && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn well_formed_samples_are_read_and_written_again() {
    for sample in WELL_FORMED {
        let (packet, used) = decode_sample(sample, sample.bytes).expect(sample.name).expect(sample.name);
        assert_eq!(used, sample.bytes.len(), "{}", sample.name);
        let mut again = b"before".to_vec();
        packet.encode(sample.version, &mut again).expect(sample.name);
        let (same, used) = decode_sample(sample, &again[6..]).expect(sample.name).expect(sample.name);
        assert_eq!((same, used), (packet, again.len() - 6), "{}", sample.name);
    }
}

#[test]
fn every_beginning_of_a_packet_asks_for_more() {
    for sample in WELL_FORMED {
        for cut in 0..sample.bytes.len() {
            assert_eq!(decode_sample(sample, &sample.bytes[..cut]), Ok(None), "{} cut at {cut}", sample.name);
        }
    }
}

#[test]
fn more_bytes_never_turn_a_refusal_into_a_packet() {
    for sample in MALFORMED {
        let whole = decode_sample(sample, sample.bytes).unwrap_err();
        for cut in 0..sample.bytes.len() {
            match decode_sample(sample, &sample.bytes[..cut]) {
                Ok(None) => {}
                Err(early) => assert_eq!(early, whole, "{} cut at {cut}", sample.name),
                Ok(Some(packet)) => panic!("{} cut at {cut} gives {packet:?}", sample.name),
            }
        }
    }
}

#[test]
fn a_stream_gives_the_same_packets_in_any_cut() {
    for (version, sender) in [Version::V3_1, Version::V3_1_1, Version::V5]
        .into_iter()
        .flat_map(|version| [(version, Sender::Client), (version, Sender::Server)])
    {
        let samples: Vec<_> = WELL_FORMED.iter().filter(|s| s.version == version && s.sender == sender).collect();
        let stream: Vec<u8> = samples.iter().flat_map(|s| s.bytes).copied().collect();
        for step in 1..=stream.len().min(40) {
            let (mut start, mut seen) = (0, 0);
            for end in (0..stream.len()).step_by(step).chain([stream.len()]) {
                while let Some((packet, used)) = decode_sample(samples[0], &stream[start..end]).unwrap() {
                    let alone = decode_sample(samples[seen], samples[seen].bytes).unwrap().unwrap();
                    assert_eq!((packet, used), alone, "{} in steps of {step}", samples[seen].name);
                    (start, seen) = (start + used, seen + 1);
                }
            }
            assert_eq!((start, seen), (stream.len(), samples.len()));
        }
    }
}

#[test]
fn the_first_packet_is_known_not_to_be_a_connect_by_its_first_byte() {
    for first in (0..=255u8).filter(|first| first >> 4 != 1) {
        let error = decode_connect(&[first], MAX_PACKET_SIZE).unwrap_err();
        assert_eq!(error.kind, Malformation::NotConnect { got: first });
        assert_eq!(error.reason(), ReasonCode::PROTOCOL_ERROR);
    }
    assert_eq!(decode_connect(&[], MAX_PACKET_SIZE), Ok(None));
    assert_eq!(decode_connect(&[0x10], MAX_PACKET_SIZE), Ok(None));
}

#[test]
fn connect_samples_are_judged_alike_as_first_packet() {
    for sample in MALFORMED.iter().filter(|s| s.sender == Sender::Client && s.bytes[0] >> 4 == 1) {
        let first = decode_connect(sample.bytes, MAX_PACKET_SIZE).expect_err(sample.name);
        assert_eq!(Some(first.reason()), sample.expected, "{}", sample.name);
        assert_eq!(first.packet, Some(PacketType::Connect));
        assert!(first.version.is_none_or(|version| version == sample.version), "{}", sample.name);
    }
}

#[test]
fn a_packet_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let packet = b"\x30\x04\x00\x01ax";
    assert!(decode(packet, Version::V3_1_1, 6).unwrap().is_some());
    let error = decode(&packet[..2], Version::V3_1_1, 5).unwrap_err();
    assert_eq!(error.kind, Malformation::PacketTooLarge { size: 6, limit: 5 });
}
