//! `waystation bench`: see the lab.

use std::process::ExitCode;

pub(crate) fn run(args: &waystation_lab::bench::Args) -> ExitCode {
    waystation_lab::bench::run(args).unwrap_or_else(|error| super::fail(1, format_args!("{error:#}")))
}
