//! One file a subcommand.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod passwd;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod subscribe;

use crate::cli::RunArgs;
use std::{future::Future, process::ExitCode};
use waystation::{Config, ConfigError, Layers};

/// The configuration is wrong.
const BAD_CONFIG: u8 = 2;

fn read_config(args: &RunArgs) -> Result<Config, ConfigError> {
    let layers = Layers::gather(args.config.as_deref(), &args.set)?;
    Config::read(&waystation::gateways::registry(), &layers)
}

fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("waystation: {error}");
    ExitCode::from(code)
}

/// Runs a client command to its end.
fn finish(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, error),
    };
    let outcome = runtime.block_on(work);
    // A thread that still reads standard input must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // All causes on one line.
        Err(error) => fail(1, format_args!("{error:#}")),
    }
}
