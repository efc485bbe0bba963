//! `[sys]`: what the server says about itself.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[sys]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sys {
    /// Seconds between two looks at the figures under `$SYS`; 0 switches them off.
    pub interval_s: u32,
}

impl Default for Sys {
    fn default() -> Self {
        Self { interval_s: 10 }
    }
}

impl Sys {
    /// The time between two looks; `None`: they are off.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        (self.interval_s > 0).then(|| Duration::from_secs(self.interval_s.into()))
    }
}
