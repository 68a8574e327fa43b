//! What goes to the deployment's log, and where it stands there.

use fivefold_core::id::Did;
use fivefold_evidence::log::{Entry, EntryKind};
use rusqlite::{Transaction, params};

use super::read::uint;
use super::write::int;
use super::{Reader, StoreError};

/// An event whose record stands nowhere else: all but batches and receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// `en`, `rv`, `rs`, `cf` or `op`.
    pub kind: EntryKind,
    /// The device that it is about, if it is about one.
    pub did: Option<Did>,
    /// What is hashed.
    pub record: Vec<u8>,
}

/// An entry whose place is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its row: entries go to the log in the order of these.
    pub row: i64,
    /// The entry.
    pub entry: Entry,
}

/// A record with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What is hashed.
    pub record: Vec<u8>,
    /// Its place.
    pub index: u64,
}

/// What one write says of the log.
#[derive(Clone, Debug, Default)]
pub struct LogWrite {
    /// Events.
    pub records: Vec<LogRecord>,
    /// Rows of entries, each with its place in the log.
    pub placed: Vec<(i64, u64)>,
}

impl LogWrite {
    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty() && self.placed.is_empty()
    }
}

pub(super) fn put(tx: &Transaction<'_>, log: &LogWrite) -> rusqlite::Result<()> {
    for r in &log.records {
        tx.prepare_cached("INSERT INTO log_entry (kind, did, record) VALUES (?, ?, ?)")?.execute(params![
            r.kind.name(),
            r.did.map(|d| d.0),
            r.record
        ])?;
    }
    for (row, index) in &log.placed {
        tx.prepare_cached("UPDATE log_entry SET idx = ? WHERE id = ? AND idx IS NULL")?
            .execute(params![int(*index), row])?;
    }
    Ok(())
}

/// A batch or receipt that has just become durable goes to the log, once.
pub(super) fn queue(tx: &Transaction<'_>, kind: EntryKind, row: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO log_entry (kind, ref) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![kind.name(), row])?;
    Ok(())
}

fn kind(name: &str) -> rusqlite::Result<EntryKind> {
    EntryKind::ALL.into_iter().find(|k| k.name() == name).ok_or(rusqlite::Error::InvalidQuery)
}

const RECORD: &str = "coalesce(e.record, b.cose, r.cose) FROM log_entry e
    LEFT JOIN batch b ON e.kind = 'b1' AND b.id = e.ref LEFT JOIN receipt r ON e.kind = 'g1' AND r.id = e.ref";

impl Reader {
    /// Entries whose place is not known yet, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_waiting(&self, limit: u32) -> Result<Vec<Waiting>, StoreError> {
        let sql = format!("SELECT e.id, e.kind, {RECORD} WHERE e.idx IS NULL ORDER BY e.id LIMIT ?");
        self.all(&sql, [limit], |r| {
            let record: Vec<u8> = r.get(2)?;
            Ok(Waiting { row: r.get(0)?, entry: Entry::of(kind(&r.get::<_, String>(1)?)?, &record) })
        })
    }

    /// How many entries wait, and how many places are known: the log has at least as many entries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_standing(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM log_entry WHERE idx IS NULL),
                          (SELECT coalesce(max(idx) + 1, 0) FROM log_entry)";
        Ok(self.all(sql, [], |r| Ok((uint(r.get(0)?), uint(r.get(1)?))))?.pop().unwrap_or_default())
    }

    /// All events but batches and receipts, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_records(&self) -> Result<Vec<LogRecord>, StoreError> {
        self.all("SELECT kind, did, record FROM log_entry WHERE record IS NOT NULL ORDER BY id", [], |r| {
            let kind = kind(&r.get::<_, String>(0)?)?;
            Ok(LogRecord { kind, did: r.get::<_, Option<[u8; 8]>>(1)?.map(Did), record: r.get(2)? })
        })
    }

    /// Records of a kind that are in the log, of a device if one is named, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_placed(&self, kind: EntryKind, did: Option<Did>) -> Result<Vec<Placed>, StoreError> {
        let sql = "SELECT record, idx FROM log_entry WHERE kind = ? AND record IS NOT NULL AND idx IS NOT NULL
                   AND (?2 IS NULL OR did = ?2) ORDER BY id DESC";
        self.all(sql, params![kind.name(), did.map(|d| d.0)], |r| {
            Ok(Placed { record: r.get(0)?, index: uint(r.get(1)?) })
        })
    }

    /// The place of a batch or a receipt in the log, by its row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_index(&self, kind: EntryKind, row: i64) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT idx FROM log_entry WHERE kind = ? AND ref = ?";
        let found = self.all(sql, params![kind.name(), row], |r| r.get::<_, Option<i64>>(0))?;
        Ok(found.into_iter().next().flatten().map(uint))
    }
}
