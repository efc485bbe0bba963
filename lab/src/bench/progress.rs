//! What a person at a terminal sees while a run goes on; nothing otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shown only when stderr is a terminal.
    pub(super) fn new(total: u64, what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:40}] {percent}% {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    pub(super) fn at(&self, position: u64, message: String) {
        if !self.0.is_hidden() {
            self.0.set_position(position);
            self.0.set_message(message);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
