//! The load generator on its own: `cargo run --release -p waystation-lab --example bench -- fan-in`.

use std::process::ExitCode;

use clap::Parser;
use waystation_lab::bench;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: bench::Args,
}

fn main() -> anyhow::Result<ExitCode> {
    bench::run(&Cli::parse().bench)
}
