//! `waystation check`: what would run, without running it.

use crate::cli::RunArgs;
use std::{io::Write, process::ExitCode};
use waystation::auth::{FileError, Policy};

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let config = match super::read_config(args) {
        Ok(config) => config,
        Err(error) => return super::fail(super::BAD_CONFIG, error),
    };
    match Policy::read(config.auth.clone()) {
        Ok(_) => {}
        Err(FileError::Wrong(error)) => return super::fail(super::BAD_CONFIG, error),
        Err(error) => return super::fail(1, error),
    }
    match std::io::stdout().write_all(config.to_masked_toml().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, error),
    }
}
