//! Three connections say anything to the real core in any order: no panic, everything the server says is well-formed,
//! and a well-behaved client is served afterwards.
//!
//! `cargo +nightly fuzz run mqtt_conversation`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| waystation_mqtt::conversation::act_out(script));
