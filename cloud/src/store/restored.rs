//! A store that was put back from a copy, or lost.

use std::path::Path;

use fivefold_core::time::Millis;

use super::{StoreError, lock, open};

/// Marks the store as put back from a copy (docs/protocol.md 8.4), or as an empty one in the place of one that was lost, in
/// one transaction: nothing in it says how far things went. Returns how many contexts it has.
///
/// # Errors
/// [`StoreError::InUse`] while a cloud runs.
pub fn restored(path: &Path, now: Millis) -> Result<usize, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let _lock = lock(path)?;
    let mut db = open(path)?;
    let at = i64::try_from(now.0).unwrap_or(i64::MAX);
    let tx = db.transaction().map_err(failed)?;
    let contexts = tx.execute("UPDATE context SET restored_at = ?", [at]).map_err(failed)?;
    tx.execute("INSERT INTO restored VALUES (?)", [at]).map_err(failed)?;
    // Room for a million changes a second since the copy was made, or the one before it was put back.
    tx.execute("UPDATE generation SET value = max(value, ?) + 1", [(at / 1000) << 20]).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(contexts)
}
