//! `waystation check`: what would run, without running it.

use crate::cli::RunArgs;
use std::{io::Write, process::ExitCode};

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    match super::read_config(args) {
        Ok(config) => match std::io::stdout().write_all(config.to_masked_toml().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => super::fail(1, error),
        },
        Err(error) => super::fail(super::BAD_CONFIG, error),
    }
}
