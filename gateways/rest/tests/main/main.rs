//! The front-end over loopback, as its clients meet it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to fail where it stands")]

mod abuse;
mod admin;
mod contract;
mod door;
mod floods;
mod fuzz;
mod harness;
mod idempotency;
mod messages;
mod overload;
mod request;
mod sessions;
mod tls;
mod topics;
mod webhooks;
