//! Tests of the MQTT front-end from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod codec {
    mod mutation;
    mod round_trip;
    mod samples;
}
