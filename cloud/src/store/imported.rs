//! What a Meshlium stored: beside the ledger and never in it, because nobody here proves it.
//!
//! An import works on a connection of its own, in short transactions, so that it may run beside a cloud. Rows, what was refused
//! and where to go on are written together: whenever it is killed, it goes on where it was, and a row is there once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_core::id::{Did, Net};
use fivefold_core::time::Millis;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{Page, Query, Reader, StoreError, beside};

/// Lines of the report that are kept of one run; the others are counted.
pub const MOST_NOTES: i64 = 100_000;

/// A reading as a Meshlium stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedValue {
    /// Its id in `sensorParser` there.
    pub row: i64,
    /// The device.
    pub did: Did,
    /// Its serial, as text.
    pub serial: String,
    /// Its node id.
    pub node_id: String,
    /// Type byte of the frame.
    pub kind: Option<u8>,
    /// Sequence of the frame.
    pub sequence: Option<u8>,
    /// Tag of the sensor.
    pub tag: String,
    /// The value, as text.
    pub value: String,
    /// `YYYY-MM-DD hh:mm:ss`, UTC, by that Meshlium's clock.
    pub timestamp: String,
    /// Bits of connectors there.
    pub sync: i64,
    /// Line of the dump, for the report.
    pub line: u64,
}

/// A frame for a cloud, as a Meshlium kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedFrame {
    /// Its id in `sensorCloud` there.
    pub row: i64,
    /// The device.
    pub did: Did,
    /// Its serial, as text.
    pub serial: String,
    /// Type byte.
    pub kind: u8,
    /// The frame, as it was kept.
    pub raw: String,
    /// As of an [`ImportedValue`].
    pub timestamp: String,
    /// Bits of connectors there.
    pub sync: i64,
    /// Line of the dump, for the report.
    pub line: u64,
}

/// A line of an import's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportNote {
    /// Line of the dump; 0 of a live database.
    pub line: u64,
    /// Its table.
    pub table: String,
    /// Its id there.
    pub row: Option<i64>,
    /// A stable word.
    pub reason: String,
    /// `left`, `refused` or `taken`.
    pub fate: String,
    /// A sentence.
    pub text: String,
}

/// How far an import came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    id: i64,
    source: i64,
    /// Where to go on; empty: at the beginning.
    pub place: String,
    /// Whether everything was read.
    pub is_done: bool,
    /// Rows that were new.
    pub stored: u64,
    /// Rows that were there.
    pub repeated: u64,
    /// Lines of the report that there was no room for.
    pub unsaid: u64,
}

/// What is made durable at once.
#[derive(Clone, Debug, Default)]
pub struct ImportBatch {
    /// Readings.
    pub values: Vec<ImportedValue>,
    /// Frames for a cloud.
    pub frames: Vec<ImportedFrame>,
    /// Lines of the report.
    pub notes: Vec<ImportNote>,
    /// Where to go on.
    pub place: String,
    /// Whether everything was read.
    pub is_last: bool,
}

/// An imported reading as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRow {
    /// Grows with every row stored: the cursor.
    pub id: i64,
    /// The operator's name of that Meshlium.
    pub source: String,
    /// Network.
    pub net: Net,
    /// The reading.
    pub value: ImportedValue,
    /// Its time.
    pub at: Millis,
}

/// A node that imported readings are from, under one of its node ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedNode {
    /// Its serial, as text.
    pub serial: String,
    /// The node id.
    pub node_id: String,
    /// Readings under it.
    pub rows: u64,
    /// Id of the first there.
    pub first: i64,
    /// Whether frames of type 7 are among them.
    pub has_agriculture: bool,
    /// Whether frames of type 8 are among them.
    pub has_water: bool,
}

/// The store, for imports.
#[derive(Debug)]
pub struct Imports {
    db: Connection,
    path: PathBuf,
}

impl Imports {
    /// Opens the store, which a running cloud may have open too.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where a cloud of an earlier version runs on it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: beside(path)?, path: path.to_owned() })
    }

    fn change<T>(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let run = || {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = change(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        run().map_err(|e| StoreError::of(&self.path, e))
    }

    /// Begins a run, or finds how far it came. `None`: what has that name was imported into another network.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(&mut self, source: &str, net: Net, digest: &[u8]) -> Result<Option<Run>, StoreError> {
        self.change(|tx| {
            tx.execute(
                "INSERT INTO import_source (name, net) VALUES (?, ?) ON CONFLICT DO NOTHING",
                params![source, net.0],
            )?;
            let sql = "SELECT id, net FROM import_source WHERE name = ?";
            let (source, of): (i64, u32) = tx.query_row(sql, [source], |r| Ok((r.get(0)?, r.get(1)?)))?;
            if of != net.0 {
                return Ok(None);
            }
            tx.execute(
                "INSERT INTO import_run (source, digest, place) VALUES (?, ?, '') ON CONFLICT DO NOTHING",
                params![source, digest],
            )?;
            let sql =
                "SELECT id, place, done, stored, repeated, unsaid FROM import_run WHERE source = ? AND digest = ?";
            let run = tx.query_row(sql, params![source, digest], |r| {
                Ok(Run {
                    id: r.get(0)?,
                    source,
                    place: r.get(1)?,
                    is_done: r.get(2)?,
                    stored: uint(r.get(3)?),
                    repeated: uint(r.get(4)?),
                    unsaid: uint(r.get(5)?),
                })
            })?;
            Ok(Some(run))
        })
    }

    /// Forgets how far a run came: it is not the file that it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn restart(&mut self, run: &mut Run) -> Result<(), StoreError> {
        self.change(|tx| {
            tx.execute("DELETE FROM import_note WHERE run = ?", [run.id])?;
            tx.execute(
                "UPDATE import_run SET place = '', done = 0, stored = 0, repeated = 0, unsaid = 0 WHERE id = ?",
                [run.id],
            )
        })?;
        *run = Run { place: String::new(), is_done: false, stored: 0, repeated: 0, unsaid: 0, ..run.clone() };
        Ok(())
    }

    /// Nodes and keys are in the registry: what was to be said of them, in place of what was said before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn book(&mut self, run: &mut Run, said: &[ImportNote]) -> Result<(), StoreError> {
        let id = run.id;
        run.unsaid += self.change(|tx| {
            tx.execute("DELETE FROM import_note WHERE run = ? AND book = 1", [id])?;
            notes(tx, id, true, said)
        })?;
        Ok(())
    }

    /// Makes a part of the history durable, and that it is.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing of it is.
    pub fn put(&mut self, run: &mut Run, batch: &ImportBatch) -> Result<(), StoreError> {
        let (stored, repeated, unsaid) = self.change(|tx| {
            let mut said = Vec::new();
            let (mut stored, mut repeated) = (0u64, 0u64);
            for v in &batch.values {
                match value(tx, run.source, v)? {
                    Found::New => stored += 1,
                    Found::Same => repeated += 1,
                    Found::Other => said.push(conflict(v.line, "sensorParser", v.row)),
                }
            }
            for f in &batch.frames {
                match frame(tx, run.source, f)? {
                    Found::New => stored += 1,
                    Found::Same => repeated += 1,
                    Found::Other => said.push(conflict(f.line, "sensorCloud", f.row)),
                }
            }
            let unsaid = notes(tx, run.id, false, &batch.notes)? + notes(tx, run.id, false, &said)?;
            tx.prepare_cached(
                "UPDATE import_run SET place = ?, done = ?, stored = stored + ?, repeated = repeated + ? WHERE id = ?",
            )?
            .execute(params![batch.place, batch.is_last, stored as i64, repeated as i64, run.id])?;
            Ok((stored, repeated, unsaid))
        })?;
        run.place.clone_from(&batch.place);
        run.is_done = batch.is_last;
        run.stored += stored;
        run.repeated += repeated;
        run.unsaid += unsaid;
        Ok(())
    }

    /// The nodes that readings of this Meshlium are from.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn nodes(&self, run: &Run) -> Result<Vec<ImportedNode>, StoreError> {
        let read = || {
            let sql = "SELECT serial, node_id, count(*), min(row), max(type & 127 = 7), max(type & 127 = 8)
                       FROM imported_value WHERE source = ? GROUP BY serial, node_id ORDER BY serial, node_id";
            let mut select = self.db.prepare_cached(sql)?;
            let rows = select.query_map([run.source], |r| {
                Ok(ImportedNode {
                    serial: r.get(0)?,
                    node_id: r.get(1)?,
                    rows: uint(r.get(2)?),
                    first: r.get(3)?,
                    has_agriculture: r.get::<_, Option<bool>>(4)?.unwrap_or(false),
                    has_water: r.get::<_, Option<bool>>(5)?.unwrap_or(false),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| StoreError::of(&self.path, e))
    }

    /// The report, by line; at most [`MOST_NOTES`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn notes(&self, run: &Run) -> Result<Vec<ImportNote>, StoreError> {
        let read = || {
            let sql = "SELECT line, tbl, row, reason, fate, text FROM import_note WHERE run = ? ORDER BY line, id";
            let mut select = self.db.prepare_cached(sql)?;
            let rows = select.query_map([run.id], |r| {
                Ok(ImportNote {
                    line: uint(r.get(0)?),
                    table: r.get(1)?,
                    row: r.get(2)?,
                    reason: r.get(3)?,
                    fate: r.get(4)?,
                    text: r.get(5)?,
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| StoreError::of(&self.path, e))
    }
}

fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// What was there under a row's id.
enum Found {
    New,
    Same,
    Other,
}

fn found(changed: usize, same: impl FnOnce() -> rusqlite::Result<bool>) -> rusqlite::Result<Found> {
    Ok(match changed {
        0 if same()? => Found::Same,
        0 => Found::Other,
        _ => Found::New,
    })
}

fn value(tx: &Transaction<'_>, source: i64, v: &ImportedValue) -> rusqlite::Result<Found> {
    let changed = tx
        .prepare_cached(
            "INSERT INTO imported_value (source, row, did, serial, node_id, type, sequence, tag, value, timestamp, sync)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, row) DO NOTHING",
        )?
        .execute(params![
            source,
            v.row,
            v.did.0,
            v.serial,
            v.node_id,
            v.kind,
            v.sequence,
            v.tag,
            v.value,
            v.timestamp,
            v.sync
        ])?;
    found(changed, || {
        tx.prepare_cached(
            "SELECT 1 FROM imported_value WHERE source = ? AND row = ? AND did = ? AND tag = ? AND value = ? AND timestamp = ?",
        )?
        .exists(params![source, v.row, v.did.0, v.tag, v.value, v.timestamp])
    })
}

fn frame(tx: &Transaction<'_>, source: i64, f: &ImportedFrame) -> rusqlite::Result<Found> {
    let changed = tx
        .prepare_cached(
            "INSERT INTO imported_cloud (source, row, did, serial, type, raw, timestamp, sync)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, row) DO NOTHING",
        )?
        .execute(params![source, f.row, f.did.0, f.serial, f.kind, f.raw, f.timestamp, f.sync])?;
    found(changed, || {
        tx.prepare_cached("SELECT 1 FROM imported_cloud WHERE source = ? AND row = ? AND did = ? AND raw = ?")?
            .exists(params![source, f.row, f.did.0, f.raw])
    })
}

fn conflict(line: u64, table: &str, row: i64) -> ImportNote {
    ImportNote {
        line,
        table: table.to_owned(),
        row: Some(row),
        reason: "id-conflict".to_owned(),
        fate: "refused".to_owned(),
        text:
            "another row was imported under this id: is it another Meshlium, or was its table emptied? Give it another \
               name with --from"
                .to_owned(),
    }
}

/// Puts lines of the report down; returns for how many there was no room.
fn notes(tx: &Transaction<'_>, run: i64, of_book: bool, said: &[ImportNote]) -> rusqlite::Result<u64> {
    if said.is_empty() {
        return Ok(0);
    }
    let there: i64 = tx.query_row("SELECT count(*) FROM import_note WHERE run = ?", [run], |r| r.get(0))?;
    let room = usize::try_from(MOST_NOTES - there).unwrap_or(0);
    let mut insert = tx.prepare_cached(
        "INSERT INTO import_note (run, book, line, tbl, row, reason, fate, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for n in said.iter().take(room) {
        insert.execute(params![run, of_book, n.line as i64, n.table, n.row, n.reason, n.fate, n.text])?;
    }
    let unsaid = said.len().saturating_sub(room) as u64;
    tx.execute("UPDATE import_run SET unsaid = unsaid + ? WHERE id = ?", params![unsaid as i64, run])?;
    Ok(unsaid)
}

impl Reader {
    /// Imported readings.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn imported(&self, q: &Query) -> Result<Vec<ImportedRow>, StoreError> {
        let (compare, order) = match q.order {
            Page::Oldest => (">", "ASC"),
            Page::Newest => ("<", "DESC"),
        };
        let by_device = if q.device.is_some() { "i.did = ?2" } else { "?2 IS NULL" };
        let sql = format!(
            "SELECT i.id, s.name, s.net, i.row, i.did, i.serial, i.node_id, i.type, i.sequence, i.tag, i.value, i.timestamp,
                    i.sync, CAST(strftime('%s', i.timestamp) AS INTEGER)
             FROM imported_value i JOIN import_source s ON s.id = i.source
             WHERE {by_device} AND (?1 IS NULL OR s.net = ?1)
             AND (?3 IS NULL OR i.timestamp >= datetime(?3 / 1000, 'unixepoch'))
             AND (?4 IS NULL OR i.timestamp < datetime(?4 / 1000, 'unixepoch'))
             AND (?5 IS NULL OR i.id {compare} ?5) ORDER BY i.id {order} LIMIT ?6"
        );
        let time = |t: Option<Millis>| t.map(|t| i64::try_from(t.0).unwrap_or(i64::MAX));
        self.all(
            &sql,
            params![q.net.map(|n| n.0), q.device.map(|d| d.0), time(q.since), time(q.until), q.cursor, q.limit],
            |r| {
                Ok(ImportedRow {
                    id: r.get(0)?,
                    source: r.get(1)?,
                    net: Net(r.get(2)?),
                    value: ImportedValue {
                        row: r.get(3)?,
                        did: Did(r.get(4)?),
                        serial: r.get(5)?,
                        node_id: r.get(6)?,
                        kind: r.get(7)?,
                        sequence: r.get(8)?,
                        tag: r.get(9)?,
                        value: r.get(10)?,
                        timestamp: r.get(11)?,
                        sync: r.get(12)?,
                        line: 0,
                    },
                    at: Millis(r.get::<_, i64>(13)?.max(0).unsigned_abs() * 1000),
                })
            },
        )
    }
}

/// A reading of a classic device that came here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    /// Its serial, as text.
    pub serial: String,
    /// Sequence of its frame.
    pub sequence: Option<u8>,
    /// Tag of the sensor.
    pub tag: String,
    /// The value, as text.
    pub value: String,
    /// `YYYY-MM-DD hh:mm:ss`, UTC, by the gateway's clock.
    pub timestamp: String,
}

/// Hands over every reading of classic devices that came here, of one network or of all; imported ones are none.
///
/// # Errors
/// [`StoreError`]; what `each` fails with.
pub fn seen_classic<E>(
    path: &Path,
    net: Option<Net>,
    each: &mut impl FnMut(SeenRow) -> Result<(), E>,
) -> Result<Result<(), E>, StoreError> {
    let mut read = || {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let sql = "SELECT k.serial, k.sequence, v.tag, v.value, v.timestamp
                   FROM classic_value v JOIN classic k ON k.reading = v.reading
                   JOIN reading r ON r.id = v.reading JOIN context c ON c.id = r.ctx
                   WHERE ?1 IS NULL OR c.net = ?1";
        let mut select = db.prepare(sql)?;
        let mut rows = select.query([net.map(|n| n.0)])?;
        while let Some(r) = rows.next()? {
            let (serial, sequence, tag) = (r.get(0)?, r.get(1)?, r.get(2)?);
            if let Err(e) = each(SeenRow { serial, sequence, tag, value: r.get(3)?, timestamp: r.get(4)? }) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    };
    read().map_err(|e| StoreError::of(path, e))
}
