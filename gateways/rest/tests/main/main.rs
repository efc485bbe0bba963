//! The front-end over loopback, as its clients meet it.

mod contract;
mod door;
mod harness;
mod messages;
mod sessions;
mod topics;
