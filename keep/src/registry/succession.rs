//! Who answers under a C2 context: one gateway in its life (docs/protocol.md 3, K2).
//!
//! The window and the answer flags of a primary stay in its store. A successor that sent under the same MS2 would repeat
//! answer nonces, and a stolen primary keeps every MS2 that it was given. So the book remembers, for every device of a network
//! that gets another primary, the newest epoch that the one before may have held.

use std::collections::HashMap;

use fivefold_core::id::{Did, Epoch, Net};
use rusqlite::{Connection, Transaction};

use super::{Registry, Result};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS successions (
    did         BLOB PRIMARY KEY REFERENCES devices,
    epoch       INTEGER NOT NULL           -- contexts up to this one were, or may have been, an earlier primary's
) STRICT;";

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// The network gets another primary: what its devices have agreed so far stays with the one before.
pub(super) fn enter(tx: &Transaction<'_>, net: Net) -> rusqlite::Result<usize> {
    // A device that agrees its first contexts has none of the epoch that it will offer.
    let sql = "INSERT OR REPLACE INTO successions
               SELECT d.did, CASE WHEN r.installed = 0 THEN r.highest ELSE max(d.epoch, coalesce(r.highest, 0)) END
               FROM devices d LEFT JOIN renewals r ON r.did = d.did WHERE d.net = ?";
    tx.execute(sql, [net.0])
}

impl Registry {
    /// For devices whose network had another primary: the newest epoch under which that one may have answered. Under it and
    /// those before, the present primary only opens.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn held_before(&self) -> Result<HashMap<Did, Epoch>> {
        let all = self.all("SELECT did, epoch FROM successions", |r| Ok((Did(r.get(0)?), Epoch(r.get(1)?))))?;
        Ok(all.into_iter().collect())
    }
}
