//! Rows of templates that nobody registered: they are kept as they came, and counted.

use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use rusqlite::{Transaction, params};

use super::read::uint;
use super::write::int;
use super::{Reader, StoreError};

/// What a device sent of such rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRows {
    /// How many.
    pub count: u64,
    /// Template of the last one.
    pub template: u64,
    /// When that came.
    pub at: Millis,
}

/// Counts one.
pub(super) fn put(tx: &Transaction<'_>, did: Did, template: u64, now: Millis) -> rusqlite::Result<()> {
    let id = i64::from_ne_bytes(template.to_ne_bytes());
    tx.prepare_cached(
        "INSERT INTO unknown_row VALUES (?1, 1, ?2, ?3) ON CONFLICT (did) DO UPDATE SET n = n + 1, id = ?2, at = ?3",
    )?
    .execute(params![did.0, id, int(now.0)])?;
    Ok(())
}

impl Reader {
    /// What a device sent of rows that no registered template fitted when they came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unknown_rows(&self, did: Did) -> Result<Option<UnknownRows>, StoreError> {
        let rows = self.all("SELECT n, id, at FROM unknown_row WHERE did = ?", [did.0], |r| {
            let template = u64::from_ne_bytes(r.get::<_, i64>(1)?.to_ne_bytes());
            Ok(UnknownRows { count: uint(r.get(0)?), template, at: Millis(uint(r.get(2)?)) })
        })?;
        Ok(rows.into_iter().next())
    }

    /// The same of all devices, how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all_unknown_rows(&self) -> Result<u64, StoreError> {
        let sum = self.all("SELECT coalesce(sum(n), 0) FROM unknown_row", [], |r| r.get(0))?;
        Ok(sum.into_iter().next().map_or(0, uint))
    }
}
