//! What is held since the store was put back from a copy (docs/protocol.md 8.4), and its release by the operator.
//!
//! A reading that is released gets the next id, as if it came now: whoever follows readings by their ids finds it there.
//! Works on a connection of its own, in short transactions, so that it may run beside a cloud.

use std::path::{Path, PathBuf};

use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_core::time::Millis;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::read::uint;
use super::write::int;
use super::{StoreError, beside};
use crate::accepted::flag;

/// The condition of the index: it finds them without looking at the others.
const HELD: &str = "r.flags & 32 <> 0";
const _: () = assert!(flag::HELD == 32);
/// What is held and never becomes a reading.
const NOT_THESE: u8 = flag::QUARANTINED | flag::REFUSED | flag::PRUNED;

/// Readings that one transaction releases.
const STEP: u32 = 1000;

/// What is held of one device, by the gateway that brought it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Network.
    pub net: Net,
    /// Device.
    pub did: Did,
    /// Gateway.
    pub gateway: GatewayId,
    /// How many readings.
    pub count: u64,
    /// When that gateway says that it received the first.
    pub first: Millis,
    /// The same of the last.
    pub last: Millis,
}

/// What is to be released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// What this gateway brought first.
    pub gateway: Option<GatewayId>,
    /// Of this device.
    pub device: Option<Did>,
    /// Received at or after, by the gateway's clock.
    pub since: Option<Millis>,
}

/// The store, for what is held in it.
#[derive(Debug)]
pub struct Held {
    db: Connection,
    path: PathBuf,
}

impl Held {
    /// Opens the store, which a running cloud may have open too.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where a cloud of an earlier version runs on it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: beside(path)?, path: path.to_owned() })
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::of(&self.path, source)
    }

    /// What is held, by device and gateway.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rows(&self) -> Result<Vec<HeldRow>, StoreError> {
        let sql = format!(
            "SELECT c.net, c.did, r.gateway, count(*), min(r.received), max(r.received)
             FROM reading r CROSS JOIN context c ON c.id = r.ctx WHERE {HELD} AND r.flags & ? = 0
             GROUP BY c.net, c.did, r.gateway ORDER BY c.net, c.did, r.gateway"
        );
        let run = || {
            let mut query = self.db.prepare(&sql)?;
            let rows = query.query_map([NOT_THESE], |r| {
                Ok(HeldRow {
                    net: Net(r.get(0)?),
                    did: Did(r.get(1)?),
                    gateway: GatewayId(r.get(2)?),
                    count: uint(r.get(3)?),
                    first: Millis(uint(r.get(4)?)),
                    last: Millis(uint(r.get(5)?)),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        run().map_err(|e| self.failed(e))
    }

    /// Makes readings of it: late ones, with the label that they have. Returns how many; what was quarantined meanwhile is not
    /// among them. If it fails in between, what was released until then stays so, and the rest is released by the next call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn release(&mut self, which: &Release) -> Result<u64, StoreError> {
        let last = format!("SELECT coalesce(max(r.id), 0) FROM reading r WHERE {HELD}");
        let last: i64 = self.db.query_row(&last, [], |r| r.get(0)).map_err(|e| self.failed(e))?;
        let mut released = 0;
        loop {
            let mut run = || {
                let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = step(&tx, which, last)?;
                tx.commit()?;
                Ok(done)
            };
            match run().map_err(|e| StoreError::of(&self.path, e))? {
                0 => return Ok(released),
                done => released += done,
            }
        }
    }
}

fn step(tx: &Transaction<'_>, which: &Release, last: i64) -> rusqlite::Result<u64> {
    let sql = format!(
        "SELECT r.id FROM reading r CROSS JOIN context c ON c.id = r.ctx
         WHERE {HELD} AND r.flags & ?1 = 0 AND r.id <= ?2 AND (?3 IS NULL OR r.gateway = ?3)
         AND (?4 IS NULL OR c.did = ?4) AND (?5 IS NULL OR r.received >= ?5) ORDER BY r.id LIMIT ?6"
    );
    let (gateway, device) = (which.gateway.map(|g| g.0), which.device.map(|d| d.0));
    let since = which.since.map(|at| int(at.0));
    let held: Vec<i64> = tx
        .prepare_cached(&sql)?
        .query_map(params![NOT_THESE, last, gateway, device, since, STEP], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if held.is_empty() {
        return Ok(0);
    }
    super::limits::uncount(tx, &held)?;
    let newest: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM reading", [], |r| r.get(0))?;
    for (id, new) in held.iter().zip(newest.saturating_add(1)..) {
        tx.prepare_cached("UPDATE reading SET id = ?2, flags = flags & ~?3, fresh = 0 WHERE id = ?1")?
            .execute(params![id, new, flag::HELD])?;
        // Whatever names a reading; what a classic frame says is shown from now on.
        for table in ["leaf", "heard", "raised", "classic"] {
            tx.prepare_cached(&format!("UPDATE {table} SET reading = ?2 WHERE reading = ?1"))?.execute([*id, new])?;
        }
        super::classic::release(tx, new)?;
        // It is not behind what is pruned any more.
        tx.prepare_cached("DELETE FROM spared WHERE reading = ?")?.execute([*id])?;
    }
    Ok(held.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_names_a_reading_is_known_here() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("readings.db");
        drop(super::super::Store::open(&path).unwrap());
        let db = Connection::open(&path).unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND c.name = 'reading' ORDER BY m.name";
        let tables: Vec<String> =
            db.prepare(sql).unwrap().query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        // In people's own tables and in the outbox nothing is held; the others get the new id.
        assert_eq!(
            tables,
            ["classic", "classic_cloud", "classic_value", "dead_letter", "heard", "leaf", "outbox", "raised", "spared"],
            "is it held there?"
        );
        // What is held is found by its index, however much else there is.
        let plan = format!("EXPLAIN QUERY PLAN SELECT r.id FROM reading r WHERE {HELD} ORDER BY r.id");
        let plan: String = db.query_row(&plan, [], |r| r.get(3)).unwrap();
        assert!(plan.contains("reading_held"), "{plan}");
    }
}
