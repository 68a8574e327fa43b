//! A store that was put back from a copy, or lost.

use std::path::Path;
use std::time::Duration;

use fivefold_core::time::Millis;
use rusqlite::Connection;

use super::{StoreError, lock, migrate};

/// Marks the store as put back from a copy (docs/protocol.md 8.4), or as an empty one in the place of one that was lost, in
/// one transaction: nothing in it says how far things went. Returns how many contexts it has.
///
/// # Errors
/// [`StoreError::InUse`] while a cloud runs.
pub fn restored(path: &Path, now: Millis) -> Result<usize, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let _lock = lock(path)?;
    let mut db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(failed)?;
    if check != "ok" {
        return Err(StoreError::Damaged { path: path.to_owned(), reason: check });
    }
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    migrate(&mut db, path)?;
    let at = i64::try_from(now.0).unwrap_or(i64::MAX);
    let tx = db.transaction().map_err(failed)?;
    let contexts = tx.execute("UPDATE context SET restored_at = ?", [at]).map_err(failed)?;
    tx.execute("INSERT INTO restored VALUES (?)", [at]).map_err(failed)?;
    // Room for a million changes a second since the copy was made, or the one before it was put back.
    tx.execute("UPDATE generation SET value = max(value, ?) + 1", [(at / 1000) << 20]).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(contexts)
}
