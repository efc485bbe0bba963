//! The files that `[auth]` names.

use crate::config::ConfigError;
use std::path::Path;

/// Why a file that `[auth]` names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, not readable or holds nothing.
    #[error("{file}: {why} ({key})")]
    Unfit {
        /// The file.
        file: String,
        /// The key that names it.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

/// Reads a whole file.
pub(super) fn read(file: &str, key: &'static str) -> Result<Vec<u8>, FileError> {
    std::fs::read(Path::new(file)).map_err(|error| unfit(file, key, format!("cannot be read: {error}")))
}

/// Reads a file of text.
pub(super) fn read_text(file: &str, key: &'static str) -> Result<String, FileError> {
    String::from_utf8(read(file, key)?).map_err(|_| unfit(file, key, "is not UTF-8"))
}

pub(super) fn unfit(file: &str, key: &'static str, why: impl Into<String>) -> FileError {
    FileError::Unfit { file: file.into(), key, why: why.into() }
}
