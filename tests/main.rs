//! End to end: the real binary, on free ports, spoken to from outside. One module a subject.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail their test")]

mod bench_durable;
mod bench_http;
mod boards;
mod bridge;
mod certificates;
mod clients;
mod commands;
mod config_errors;
mod conformance;
mod conversations;
mod documents;
mod examples;
mod full_disk;
mod harness;
mod interface;
mod javascript;
mod kept;
mod kills;
mod long_queues;
mod malformed;
mod mosquitto_options;
mod mqtt_clients;
mod openapi;
mod overload;
mod ready;
mod restart;
mod rights;
mod roads;
mod sessions;
mod shared;
mod shutdown;
mod tls;
mod webhooks;
mod websocket;
mod wire;
