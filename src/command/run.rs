//! `waystation run`: start, wait for signals, stop.

use crate::cli::RunArgs;
use std::{io::Write, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};
use waystation::{Config, Server, StartError, auth::FileError};

pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let config = match super::read_config(args) {
        Ok(config) => config,
        Err(error) => return super::fail(super::BAD_CONFIG, error),
    };
    config.log.install();
    // What clients say and keep is nobody else's business: files are made for their owner alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // Each connection is a descriptor; the usual 1,024 would be the first limit to be met.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::fail(1, error),
    };
    let outcome = runtime.block_on(serve(args, config));
    // What still runs was given its time.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(error) | StartError::Auth(FileError::Wrong(error))) => {
            super::fail(super::BAD_CONFIG, error)
        }
        Err(error) => super::fail(1, error),
    }
}

async fn serve(args: &RunArgs, config: Config) -> Result<(), StartError> {
    // Before the ready line: whoever has read it may send a signal.
    let mut signals = Signals::listen()?;
    let server = Server::start(config).await?;
    announce(&server.ready_line());
    loop {
        match signals.next().await {
            Word::Stop => break,
            Word::Reload => match super::read_config(args) {
                Ok(config) => server.reload(config).await,
                Err(error) => tracing::error!(%error, "the configuration is wrong; the old settings stay"),
            },
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Whoever started us may not want to read it; that is no reason not to serve.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "cannot write to standard output");
    }
}

enum Word {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Word {
        tokio::select! {
            _ = self.terminate.recv() => Word::Stop,
            _ = self.interrupt.recv() => Word::Stop,
            _ = self.hang_up.recv() => Word::Reload,
        }
    }
}
