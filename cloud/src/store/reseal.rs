//! Sealing the store's secrets again, while the vault's data key is replaced.

use std::path::Path;
use std::time::Duration;

use fivefold_core::id::{Did, Epoch};
use fivefold_keep::registry::forget_free_pages;
use fivefold_keep::vault::Vault;
use rusqlite::{Connection, params};

use super::{StoreError, lock, migrate};
use crate::context::name;

/// Seals every secret that the vault's key before sealed under its present key, in one transaction; returns how many.
/// Afterwards the file has no byte left of what the key before sealed: it is rewritten, which takes as much room again.
///
/// # Errors
/// [`StoreError::InUse`] while a cloud runs; [`StoreError::Sealed`] names a record that does not open, and then nothing was
/// changed.
pub fn reseal(path: &Path, vault: &Vault) -> Result<usize, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let _lock = lock(path)?;
    let mut db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    migrate(&mut db, path)?;
    let mut resealed = Vec::new();
    for (id, name, old) in sealed(&db).map_err(failed)? {
        let new = vault.reseal(&name, &old).map_err(|source| StoreError::Sealed { path: path.to_owned(), source })?;
        resealed.extend(new.map(|new| (id, new)));
    }
    let tx = db.transaction().map_err(failed)?;
    for (id, new) in &resealed {
        tx.execute("UPDATE context SET sealed = ?1 WHERE id = ?2", params![new, id]).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    forget_free_pages(&db).map_err(failed)?;
    Ok(resealed.len())
}

fn sealed(db: &Connection) -> rusqlite::Result<Vec<(i64, String, Vec<u8>)>> {
    let mut query = db.prepare("SELECT id, did, epoch, sealed FROM context WHERE sealed IS NOT NULL")?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, name(Did(r.get(1)?), Epoch(r.get(2)?)), r.get(3)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_with_something_sealed_is_sealed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("readings.db");
        drop(super::super::Store::open(&path).unwrap());
        let db = Connection::open(&path).unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND c.name LIKE '%sealed%'";
        let mut query = db.prepare(sql).unwrap();
        let tables: Vec<String> = query.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(tables, ["context"], "seal the others again too");
    }
}
