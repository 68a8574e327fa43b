//! Reading a store while another writes it: the uplink does, and whoever reads out what a gateway without a cloud keeps.

use std::path::{Path, PathBuf};

use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_keep::format::Newer;
use fivefold_keep::why::{self, Kept, Question};
use rusqlite::{Connection, OpenFlags, params};

use super::{FIRST, SpoolError, VERSION, Wrap, explain, state_name};
use crate::gateway::AppliedState;

/// Envelopes of one run, in order.
#[derive(Debug)]
pub struct StoredBatch {
    /// The run.
    pub boot: GatewayBoot,
    /// Number and bytes.
    pub envelopes: Vec<(u64, Vec<u8>)>,
}

/// Reads envelopes while the writer writes.
pub struct SpoolReader {
    db: Connection,
    path: PathBuf,
}

impl SpoolReader {
    /// Of a store, whether or not a gateway runs on it. `None` while there is none, or one that its gateway has not made
    /// yet.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(path: &Path) -> Result<Option<Self>, SpoolError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let fail = |e| explain(path, &e);
        let db = Connection::open_with_flags(path, flags).map_err(fail)?;
        match db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(fail)? {
            0 => Ok(None),
            FIRST..=VERSION => Ok(Some(Self { db, path: path.to_owned() })),
            found => Err(Newer::new(path.display(), found, VERSION).into()),
        }
    }

    /// The state that was applied last.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn state(&self, wrap: &dyn Wrap) -> Result<Option<AppliedState>, SpoolError> {
        state_in(&self.db, &self.path, wrap)
    }

    /// So many envelopes with numbers above `after`, in order; without `after` the newest.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn page(&self, after: Option<u64>, count: usize) -> Result<Vec<(u64, Vec<u8>)>, SpoolError> {
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let sql = format!("SELECT seq, bytes FROM spool WHERE seq > ?1 ORDER BY seq {order} LIMIT ?2");
        let from = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
        let read = || {
            let mut query = self.db.prepare_cached(&sql)?;
            let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?));
            query.query_map(params![from, count as i64], row)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut page = read().map_err(|e| explain(&self.path, &e))?;
        page.sort_by_key(|(seq, _)| *seq);
        Ok(page)
    }

    /// Why things were refused, the newest first.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn why(&self, question: &Question) -> Result<Vec<Kept>, SpoolError> {
        why::find(&self.db, question).map_err(|e| explain(&self.path, &e))
    }

    /// The oldest envelopes with numbers above `after`, all of one run: at most `count`, and `bytes` bytes. `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn batch(&self, after: u64, count: usize, bytes: usize) -> Result<Option<StoredBatch>, SpoolError> {
        let fail = |e| explain(&self.path, &e);
        let mut query = self
            .db
            .prepare_cached("SELECT seq, boot, bytes FROM spool WHERE seq > ?1 ORDER BY seq LIMIT ?2")
            .map_err(fail)?;
        let mut rows = query.query(params![i64::try_from(after).unwrap_or(i64::MAX), count as i64]).map_err(fail)?;
        let mut batch: Option<StoredBatch> = None;
        let mut size = 0;
        while let Some(row) = rows.next().map_err(fail)? {
            let read = || -> rusqlite::Result<(i64, [u8; 8], Vec<u8>)> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
            let (seq, boot, envelope) = read().map_err(fail)?;
            let boot = GatewayBoot(boot);
            let batch = batch.get_or_insert_with(|| StoredBatch { boot, envelopes: Vec::new() });
            size += envelope.len();
            if batch.boot != boot || (size > bytes && !batch.envelopes.is_empty()) {
                break;
            }
            batch.envelopes.push((seq as u64, envelope));
        }
        Ok(batch)
    }
}

impl std::fmt::Debug for SpoolReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolReader").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The state that was applied last.
pub(super) fn state_in(db: &Connection, path: &Path, wrap: &dyn Wrap) -> Result<Option<AppliedState>, SpoolError> {
    let fail = |e| explain(path, &e);
    let mut query = db.prepare("SELECT part, version, applied, sealed FROM state ORDER BY part").map_err(fail)?;
    let mut rows = query.query([]).map_err(fail)?;
    let mut state: Option<AppliedState> = None;
    while let Some(row) = rows.next().map_err(fail)? {
        let read = || -> rusqlite::Result<(i64, i64, i64, Vec<u8>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let (part, version, applied, sealed) = read().map_err(fail)?;
        let plain = wrap
            .unwrap(&state_name(version, part), &sealed)
            .map_err(|source| SpoolError::Sealed { path: path.to_owned(), source })?;
        let state = state.get_or_insert_with(|| AppliedState {
            version: version as u64,
            applied: Millis(applied as u64),
            parts: Vec::new(),
        });
        state.parts.push(plain.as_slice().into());
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::super::Spool;
    use super::*;

    struct Clear;

    impl Wrap for Clear {
        fn wrap(&self, _: &str, plain: &[u8]) -> Result<Vec<u8>, super::super::WrapError> {
            Ok(plain.to_vec())
        }

        fn unwrap(&self, _: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, super::super::WrapError> {
            Ok(zeroize::Zeroizing::new(sealed.to_vec()))
        }
    }

    #[test]
    fn a_store_is_read_once_its_gateway_has_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        assert!(SpoolReader::open(&path).unwrap().is_none());
        // As a gateway that has just started leaves it for a moment.
        let begun = Connection::open(&path).unwrap();
        begun.pragma_update(None, "journal_mode", "WAL").unwrap();
        assert!(SpoolReader::open(&path).unwrap().is_none());
        drop(begun);
        let (spool, _) = Spool::open(&path, GatewayBoot([1; 8]), Box::new(Clear)).unwrap();
        let reader = SpoolReader::open(&path).unwrap().unwrap();
        assert!(reader.page(None, 10).unwrap().is_empty());
        assert!(reader.state(&Clear).unwrap().is_none());
        drop(spool);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(SpoolReader::open(&path), Err(SpoolError::Newer(n)) if n.found == VERSION + 1));
    }
}
