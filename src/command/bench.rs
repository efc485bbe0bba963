//! `waystation bench`: see the lab.

use std::process::ExitCode;

pub(crate) fn run(args: &waystation_lab::bench::Args) -> ExitCode {
    // A client is a descriptor; a run that has too few says so itself.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    waystation_lab::bench::run(args).unwrap_or_else(|error| super::fail(1, format_args!("{error:#}")))
}
