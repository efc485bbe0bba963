//! Logs: to stderr, as text or JSON.

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

/// The `[log]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`; or per target, as in `RUST_LOG`, which wins.
    pub level: String,
    /// What a line looks like.
    pub format: Format,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    Pretty,
    /// One JSON object a line, for machines.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Pretty }
    }
}

impl Log {
    /// What the types cannot say: whether `level` is one.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let hint = "expected off, error, warn, info, debug, trace, or TARGET=LEVEL pairs with commas between them";
        // The filter would read a misspelt level as the name of a target, and log nothing else.
        let misspelt = self.level.split(',').map(str::trim).find(|part| {
            !part.contains(['=', '[', ':']) && part.parse::<tracing_subscriber::filter::LevelFilter>().is_err()
        });
        if let Some(part) = misspelt {
            return Err(format!("\"{part}\" is no level; {hint}"));
        }
        EnvFilter::builder().parse(&self.level).map(drop).map_err(|error| format!("{error}; {hint}"))
    }

    /// Makes this the log of the process. `RUST_LOG`, if set, decides the level.
    pub fn install(&self) {
        let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
        let level = if self.level == "info" { USUAL } else { &self.level };
        let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or(level));
        let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // Somebody who embeds the server may have a subscriber of his own: then his stays.
        let _ = match self.format {
            Format::Pretty => {
                builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init()
            }
            Format::Json => builder.json().finish().try_init(),
        };
    }
}

/// The usual level. Without that the store's engine would tell of every file that it opens, and the check of a certificate
/// what whoever asked for it says anyway.
const USUAL: &str = "info,fjall=warn,lsm_tree=warn,rustls_platform_verifier=off";
