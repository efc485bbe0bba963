//! The least an HTTP server in this language costs: axum, and a handler that only reads the body.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, routing::post};

/// Serves on a free port of the loopback until the process is ended; the first line of stdout tells the address.
pub(in super::super) fn run() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let router = Router::new().route("/{*topic}", post(|_: Bytes| async {}));
        writeln!(std::io::stdout().lock(), "floor ready http={}", listener.local_addr()?)?;
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router)
            .await?;
        Ok(ExitCode::SUCCESS)
    })
}
