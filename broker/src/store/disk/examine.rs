//! A data folder looked at without serving from it, and without changing it.

use super::{
    Flaw, OpenError,
    base::Base,
    folder, journal, manifest,
    recover::{self, Found},
};
use crate::store::{Lying, Record, Recovery};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What was found in a data folder.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What is wrong with its journals: what a start would cut off or put aside.
    pub flaws: Vec<Flaw>,
    /// What else cannot be read.
    pub unreadable: Vec<String>,
    /// Records that are whole.
    pub records: u64,
    /// Records whose checksum fails.
    pub damaged: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Looks a data folder through; `None`: there is none yet.
///
/// # Errors
/// It is in use, or cannot be read at all.
pub fn examine(folder: &Path) -> Result<Option<Examined>, OpenError> {
    let failed = |what: &Path| {
        let what = what.to_owned();
        move |error: io::Error| OpenError::Io { what, error }
    };
    folder::has_format(folder)?;
    let database = folder.join("db");
    if !database.exists() {
        return Ok(None);
    }
    let _lock = folder::lock(folder)?;
    let stopped_clean = folder.join("clean").exists();
    let journals = journal::read_all(&database, stopped_clean).map_err(failed(&database))?;
    let flaws = journals.iter().flat_map(|journal| journal.flaws.clone()).collect();
    // The engine mends what it opens: it gets a copy. Tables are never written twice, so a second name is enough.
    let copy = Copy::of(&database, folder.join("examined")).map_err(failed(folder))?;
    for journal in &journals {
        let name = journal.path.file_name().unwrap_or_default();
        journal.mend_into(&copy.0.join(name)).map_err(failed(&copy.0))?;
    }
    let damaged = manifest::check(&database).map_err(failed(&database))?;
    let mut unreadable: Vec<_> = damaged.iter().map(|manifest| manifest.file.display().to_string()).collect();
    let mut found = Found::default();
    // The engine breaks down over a manifest that cannot be.
    if unreadable.is_empty() {
        match Base::open(&copy.0) {
            Ok(base) => found = recover::read(&base, &mut Everything),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    unreadable.append(&mut found.unreadable);
    let records = found.records - found.damaged.min(found.records);
    let bytes = folder::size_of(&database, &|_| true);
    Ok(Some(Examined { flaws, unreadable, records, damaged: found.damaged, bytes }))
}

/// Reads everything, and makes nothing of it.
pub(super) struct Everything;

impl Recovery for Everything {
    fn apply(&mut self, _: Record) {}

    fn wants(&mut self, _: Lying) -> bool {
        true
    }
}

/// A copy of a database that goes when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(database: &Path, place: PathBuf) -> io::Result<Self> {
        // Left by an examination that was killed.
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let copy = Self(place);
        copy_tree(database, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything but journals, which are written anew.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &target)?;
        } else if from.ends_with("tables") {
            fs::hard_link(&path, &target)?;
        } else if path.extension().is_none_or(|e| e != "jnl") {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
