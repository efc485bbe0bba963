//! The data folder: its lock, its format, who may read it, how full it is, and the reserve that lets deletes and
//! acknowledgements go on when the disk is full.
//!
//! ```text
//! data/
//! ├─ lock          held while a server serves from it
//! ├─ format        "waystation 1"
//! ├─ clean         there while the last server stopped in order
//! ├─ reserve       space that is given up when there is no other
//! ├─ db/           the engine's
//! ├─ rebuilt/      what is good of a damaged one, until it takes its place
//! └─ quarantine/   copies of what was damaged
//! ```

use super::OpenError;
use rustix::fs::StatVfs;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What this version writes and reads.
pub(super) const FORMAT: &str = "waystation 1";

/// The largest reserve; on a small disk it is a sixteenth.
const RESERVE: u64 = 8 << 20;

/// What is left free beside the reserve: as much as the tables take, up to this. The engine merges tables by writing
/// new ones, and nothing that was removed gives its space back before.
const MERGING: u64 = 64 << 20;

/// A data folder that is ours while this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held, not read: the lock goes with it.
    _lock: File,
    pub(super) stopped_clean: bool,
}

impl Folder {
    /// Makes or takes the folder.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |what: &Path| {
            let what = what.to_owned();
            move |error: io::Error| OpenError::Io { what, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        // It may have been there: nobody else is to read what clients say.
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed(path))?;
        let lock = lock(path)?;
        if !has_format(path)? {
            let format = path.join("format");
            write_synced(&format, FORMAT.as_bytes()).map_err(failed(&format))?;
        }
        let clean = path.join("clean");
        let stopped_clean = clean.exists();
        Ok(Self { path: path.to_owned(), _lock: lock, stopped_clean })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// From here on a stop is out of order until [`Folder::mark_clean`].
    pub(super) fn mark_in_use(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join("clean")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    pub(super) fn mark_clean(&self) -> io::Result<()> {
        write_synced(&self.path.join("clean"), b"")
    }

    /// The names in it are on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Puts a copy of a damaged file aside; gives its path.
    pub(super) fn quarantine(&self, file: &Path) -> io::Result<PathBuf> {
        let copy = self.free_place(file)?;
        fs::copy(file, &copy)?;
        File::open(&copy)?.sync_all()?;
        Ok(copy)
    }

    /// Moves what cannot be opened out of the way; gives its path.
    pub(super) fn move_away(&self, what: &Path) -> io::Result<PathBuf> {
        let place = self.free_place(what)?;
        fs::rename(what, &place)?;
        Ok(place)
    }

    fn free_place(&self, what: &Path) -> io::Result<PathBuf> {
        let quarantine = self.path.join("quarantine");
        DirBuilder::new().recursive(true).mode(0o700).create(&quarantine)?;
        let name = what.file_name().unwrap_or_default().to_string_lossy();
        let free = (1u32..).map(|n| quarantine.join(format!("{n}-{name}"))).find(|place| !place.exists());
        free.ok_or_else(|| io::ErrorKind::AlreadyExists.into())
    }

    /// Gives the reserve up: there is some space now.
    pub(super) fn release_reserve(&self) {
        let _ = fs::remove_file(self.path.join("reserve"));
    }

    /// Puts the reserve up, if there is space for it beside what is left free. Gives the bytes that may be written
    /// until the disk counts as full.
    pub(super) fn restore_reserve(&self) -> u64 {
        let reserve = self.path.join("reserve");
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return 0 };
        let (size, free) = (reserve_of(&disk), disk.f_bavail.saturating_mul(disk.f_frsize));
        let tables = size_of(&self.database(), &|path| !is_journal(path));
        let beside = free.saturating_sub(tables.clamp(size, MERGING));
        if fs::metadata(&reserve).is_ok_and(|file| file.len() >= size) {
            return beside;
        }
        if beside <= size {
            return 0;
        }
        let zeros = vec![0; usize::try_from(size).unwrap_or(0)];
        if write_synced(&reserve, &zeros).is_err() {
            let _ = fs::remove_file(&reserve);
            return 0;
        }
        beside - size
    }

    /// Bytes on disk that the journals take.
    pub(super) fn journals(&self) -> u64 {
        size_of(&self.database(), &is_journal)
    }

    /// Bytes on disk that the folder takes.
    pub(super) fn size(&self) -> u64 {
        size_of(&self.path, &|_| true)
    }
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

/// Bytes of the reserve on the disk that holds a folder.
pub(super) fn reserve_on(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().map(|disk| reserve_of(&disk))
}

fn reserve_of(disk: &StatVfs) -> u64 {
    RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 16)
}

/// Whether a folder says that it has the format of this version; `false`: it does not say yet.
pub(super) fn has_format(folder: &Path) -> Result<bool, OpenError> {
    let path = folder.join("format");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == FORMAT => Ok(true),
        // Its first start was killed in this moment.
        Ok(text) if text.is_empty() && !folder.join("db").exists() => Ok(false),
        Ok(text) => Err(OpenError::Format { folder: folder.to_owned(), found: text.trim_end().to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::Io { what: path, error }),
    }
}

/// Takes the lock of a folder, or says who may have it.
pub(super) fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let failed = |error| OpenError::Io { what: path.clone(), error };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Writes a file, and its name, to the disk.
pub(super) fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Bytes on disk of the files below a folder that count.
pub(super) fn size_of(folder: &Path, counts: &impl Fn(&Path) -> bool) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size_of(&entry.path(), counts),
        Ok(_) if !counts(&entry.path()) => 0,
        // Blocks, not length: the engine takes room ahead that is not there yet.
        Ok(about) => about.blocks() * 512,
        // Removed meanwhile.
        Err(_) => 0,
    });
    sizes.sum()
}
