//! The engine's manifests, looked at before it reads them. It believes them without asking the checksum that stands
//! beside each, and breaks down over what cannot be; we ask, and mend the one flipped bit that is the most usual damage.
//!
//! `keyspaces/N/current` (lsm-tree 3) is `version u64, xxh3-128 of file v{version} u128, 0`, little-endian. A keyspace
//! without it counts as one that was never finished, and is removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_128;

/// Largest manifest in which a flipped bit is looked for: every bit costs a checksum of the whole.
const SEARCHED: usize = 16 << 10;

/// A manifest that is not what its checksum says.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) file: PathBuf,
    /// What it was before one bit of it flipped, if that is all that happened.
    mended: Option<Vec<u8>>,
}

/// The damaged manifests of a database.
pub(super) fn check(database: &Path) -> io::Result<Vec<Damaged>> {
    let mut damaged = Vec::new();
    let keyspaces = match fs::read_dir(database.join("keyspaces")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(damaged),
        keyspaces => keyspaces?,
    };
    for keyspace in keyspaces {
        damaged.extend(check_one(&keyspace?.path())?);
    }
    Ok(damaged)
}

fn check_one(keyspace: &Path) -> io::Result<Option<Damaged>> {
    let current = keyspace.join("current");
    let pointer = match fs::read(&current) {
        Ok(bytes) => bytes,
        // Never finished, unless there are tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tables = fs::read_dir(keyspace.join("tables")).is_ok_and(|mut tables| tables.next().is_some());
            return Ok(tables.then_some(Damaged { file: current, mended: None }));
        }
        Err(error) => return Err(error),
    };
    let Some((version, sum)) = parse(&pointer) else { return Ok(Some(Damaged { file: current, mended: None })) };
    let manifest = keyspace.join(format!("v{version}"));
    let content = match fs::read(&manifest) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mended = other_version(keyspace, sum)?.map(|version| point(version, sum));
            return Ok(Some(Damaged { file: current, mended }));
        }
        Err(error) => return Err(error),
    };
    let found = xxh3_128(&content);
    Ok(if found == sum {
        None
    } else if (found ^ sum).is_power_of_two() {
        Some(Damaged { file: current, mended: Some(point(version, found)) })
    } else {
        Some(Damaged { file: manifest, mended: without_flip(content, sum) })
    })
}

fn parse(pointer: &[u8]) -> Option<(u64, u128)> {
    let (version, rest) = pointer.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    (rest.len() == 1).then(|| (u64::from_le_bytes(*version), u128::from_le_bytes(*sum)))
}

fn point(version: u64, sum: u128) -> Vec<u8> {
    [&version.to_le_bytes()[..], &sum.to_le_bytes(), &[0]].concat()
}

/// The version that has this checksum, where the one that is named is not there.
fn other_version(keyspace: &Path, sum: u128) -> io::Result<Option<u64>> {
    for entry in fs::read_dir(keyspace)? {
        let entry = entry?;
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_prefix('v')?.parse().ok());
        if version.is_some() && xxh3_128(&fs::read(entry.path())?) == sum {
            return Ok(version);
        }
    }
    Ok(None)
}

/// The bytes that have this checksum, if they are one flipped bit away.
fn without_flip(mut bytes: Vec<u8>, sum: u128) -> Option<Vec<u8>> {
    let searched = if bytes.len() <= SEARCHED { bytes.len() * 8 } else { 0 };
    for bit in 0..searched {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if xxh3_128(&bytes) == sum {
            return Some(bytes);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

impl Damaged {
    /// Writes the manifest as it was, if that is known. Gives whether it is.
    pub(super) fn mend(&self) -> io::Result<bool> {
        match &self.mended {
            Some(bytes) => super::folder::write_synced(&self.file, bytes).map(|()| true),
            None => Ok(false),
        }
    }
}
