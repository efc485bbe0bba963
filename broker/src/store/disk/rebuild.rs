//! A database of which some tables are damaged, written anew with what is good: the engine gives up whenever it meets
//! damage while it merges, so that nothing could be written any more.

use super::{
    base::{Base, EngineError},
    folder::Folder,
};
use std::{fs, path::PathBuf};

/// Where the new database grows. Until it is whole the old one is in its place.
fn nursery(folder: &Folder) -> PathBuf {
    folder.path().join("rebuilt")
}

/// Puts the damaged database aside, and one with all that can be read of it in its place. If that cannot be done the
/// old one stays.
pub(super) fn rebuild(folder: &Folder, damaged: Base) -> Result<Base, EngineError> {
    let (place, nursery) = (folder.database(), nursery(folder));
    clear(folder)?;
    let fresh = Base::open(&nursery)?;
    fresh.take_over(&damaged)?;
    drop((fresh, damaged));
    let copy = folder.move_away(&place)?;
    fs::rename(&nursery, &place)?;
    folder.sync()?;
    tracing::error!(copy = %copy.display(), "the database is damaged; it is put aside, and what is good of it is written anew");
    Base::open(&place)
}

/// Ends what a start before has begun and did not come to the end of.
pub(super) fn finish(folder: &Folder) -> Result<(), EngineError> {
    let (place, nursery) = (folder.database(), nursery(folder));
    if nursery.exists() && !place.exists() {
        // It was whole, or the old one would be there.
        fs::rename(&nursery, &place)?;
        return Ok(folder.sync()?);
    }
    clear(folder)
}

fn clear(folder: &Folder) -> Result<(), EngineError> {
    let nursery = nursery(folder);
    if nursery.exists() { Ok(fs::remove_dir_all(nursery)?) } else { Ok(()) }
}
