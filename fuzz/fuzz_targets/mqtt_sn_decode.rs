//! Any datagram: no panic, and what is read can be written and read again.
//!
//! `cargo +nightly fuzz run mqtt_sn_decode`
#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation_mqtt_sn::codec::{decode, encode};

fuzz_target!(|datagram: &[u8]| {
    if let Ok(packet) = decode(datagram) {
        let mut again = Vec::new();
        encode(&packet, &mut again).expect("what was read is short enough to be written");
        assert_eq!(decode(&again), Ok(packet));
    }
});
