//! `data_dir` and `[durability]`: what is to be kept, and how safely.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use waystation_broker::store::disk;

/// The `[durability]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Durability {
    /// When an acknowledged message is on disk.
    pub sync: Sync,
    /// Milliseconds, for `sync = "interval"`.
    pub interval_ms: u64,
    /// Damage in the middle of a file.
    pub on_damage: OnDamage,
    /// Bytes of the data folder.
    pub max_bytes: u64,
    /// Bytes of a waiting queue kept in memory.
    pub memory_per_session: u64,
}

/// When an acknowledged message is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Before it is acknowledged.
    Always,
    /// Within `interval_ms`.
    Interval,
    /// When the operating system likes.
    Never,
}

/// What to do about damage in the middle of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDamage {
    /// Quarantine a copy, keep what is good, say what was lost.
    Salvage,
    /// Exit with file and offset.
    Refuse,
}

impl Durability {
    /// How the store on disk is to keep; `None`: nothing is kept on disk.
    #[must_use]
    pub fn settings(&self, data_dir: &str) -> Option<disk::Settings> {
        (!data_dir.is_empty()).then(|| disk::Settings {
            folder: data_dir.into(),
            sync: match self.sync {
                Sync::Always => disk::Sync::Always,
                Sync::Interval => disk::Sync::Interval(Duration::from_millis(self.interval_ms)),
                Sync::Never => disk::Sync::Never,
            },
            on_damage: match self.on_damage {
                OnDamage::Salvage => disk::OnDamage::Salvage,
                OnDamage::Refuse => disk::OnDamage::Refuse,
            },
            max_bytes: self.max_bytes,
        })
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// The key, and what would be right.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.interval_ms == 0 {
            return Err(("interval_ms", "0 is no interval; sync = \"always\" syncs before it acknowledges".into()));
        }
        if self.max_bytes < LEAST_BYTES {
            return Err(("max_bytes", format!("the store needs {LEAST_BYTES} bytes to work at all; give more")));
        }
        if self.memory_per_session == 0 {
            return Err(("memory_per_session", "0 would hand nothing out; give a number above 0".into()));
        }
        Ok(())
    }
}

/// Journal, tables in memory that are on their way to disk, and the reserve.
const LEAST_BYTES: u64 = 16 << 20;

impl Default for Durability {
    fn default() -> Self {
        Self {
            sync: Sync::Always,
            interval_ms: 100,
            on_damage: OnDamage::Salvage,
            max_bytes: 10_737_418_240,
            memory_per_session: 262_144,
        }
    }
}
