//! `data_dir` and `[durability]`: what is to be kept, and how safely.

use serde::{Deserialize, Serialize};

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
