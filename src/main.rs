//! The `waystation` program.

mod cli;
mod client;
mod command;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command {
        None => command::run::run(&cli.run),
        Some(cli::Command::Run(args)) => command::run::run(&args),
        Some(cli::Command::Check(args)) => command::check::run(&args),
        Some(cli::Command::Pub(args)) => command::publish::run(args),
        Some(cli::Command::Sub(args)) => command::subscribe::run(args),
        Some(cli::Command::Passwd(args)) => command::passwd::run(&args),
        Some(cli::Command::Bench(args)) => command::bench::run(&args),
    }
}
