//! End to end: the real binary, on free ports, spoken to from outside. One module a subject.

mod commands;
mod config_errors;
mod harness;
mod ready;
mod shutdown;
