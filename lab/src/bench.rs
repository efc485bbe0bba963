//! `waystation bench`: load against any MQTT broker, with every message accounted for.
//!
//! The generator has to cost clearly less than what it measures: packets are encoded once (`template`) and sent
//! straight from there in writes of up to 64 KiB, what comes back is parsed by frame headers in bulk (`wire`), and
//! one thread serves all connections (`engine`). A window bounds what is under way between the two ends, so that a
//! QoS 0 run measures forwarding and not a broker's way of dropping.

mod args;
mod boards;
mod churn;
mod clients;
mod conn;
mod durable;
mod engine;
mod flows;
mod http;
mod idle;
mod pacer;
mod process;
mod progress;
mod report;
mod retained;
mod stream;
mod sync;
mod tally;
mod template;
mod wire;

use std::process::ExitCode;

pub use args::{Args, Client, Common, Down, Fleet, Mqtt, Scenario, Wait};
pub use report::{Latency, Report};

/// Runs one scenario, prints its report to stdout, and says by the exit code whether every message arrived that had to
/// (1: lost at QoS 1 or 2, duplicated at QoS 2, refused, or a connection ended early).
///
/// # Errors
/// The broker cannot be reached, refuses a client, or answers with something that is not MQTT; `--pid` is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if matches!(args.scenario, Scenario::Floor) {
        return http::floor();
    }
    let report = measure(args)?;
    report.print(args.common.json)?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs one scenario and hands over its report.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &Args) -> anyhow::Result<Report> {
    let common = &args.common;
    match &args.scenario {
        Scenario::FanIn { publishers } => flows::fan_in(common, *publishers),
        Scenario::FanOut { subscribers } => flows::fan_out(common, *subscribers),
        Scenario::Pairs { pairs } => flows::pairs(common, *pairs),
        Scenario::Rotate { publishers, topics } => flows::rotate(common, *publishers, *topics),
        Scenario::Latency { rate } => flows::latency(common, *rate),
        Scenario::Filters { filters, per_connection } => flows::filters(common, *filters, *per_connection),
        Scenario::Durable { flight, publishers, session } => durable::run(common, *flight, *publishers, *session),
        Scenario::Sync { group, folder } => sync::run(common, *group, folder),
        Scenario::Idle { connections } => idle::run(common, *connections),
        Scenario::Retained { count } => retained::run(common, *count),
        Scenario::Churn { concurrency } => churn::run(common, *concurrency),
        Scenario::Http { connections, bulk: false } => http::single(common, *connections),
        Scenario::Http { connections, bulk: true } => http::bulk(common, *connections),
        Scenario::Handover { http, rate } => http::handover(common, http, *rate),
        Scenario::Held { connections, on } => http::held(common, *connections, *on),
        Scenario::Floor => anyhow::bail!("the floor is something to measure, and measures nothing"),
        Scenario::Boards(fleet) => boards::run(common, fleet),
    }
}
