//! Any bytes, in every version, from either side: no panic, and what is read can be written and read again.
//!
//! `cargo +nightly fuzz run mqtt_decode`
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation_mqtt::codec::{Version, decode, decode_connect, decode_from_server, samples::MAX_PACKET_SIZE};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_connect(bytes, MAX_PACKET_SIZE);
    let mut again = Vec::new();
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        for decode in [decode, decode_from_server] {
            let Ok(Some((packet, used))) = decode(bytes, version, MAX_PACKET_SIZE) else { continue };
            assert!(used <= bytes.len());
            again.clear();
            packet.encode(version, &mut again).expect("what was read is short enough to be written");
            // Twice the limit: property lengths are written anew, but never longer than they were read.
            let second = decode(&again, version, 2 * MAX_PACKET_SIZE).expect("what was written can be read");
            assert_eq!(second, Some((packet, again.len())));
        }
    }
});
