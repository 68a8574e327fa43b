//! Which devices a change of the book touched: who has a large book in memory reads what changed, and not all of it.
//!
//! Triggers note it, whatever program writes. What is written in between two versions counts for the next one.

use fivefold_core::id::Did;
use rusqlite::Connection;

use super::{Registry, Result};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS touched (       -- the version that the last change of each device made
    did         BLOB PRIMARY KEY,          -- of nobody (x''): of all of them
    version     INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS touched_since ON touched (version);";

/// What a device is made of, and what touches all of them.
const TABLES: [(&str, &str); 3] = [("devices", "did"), ("renewals", "did"), ("local_networks", "")];

/// Devices that are read one by one; more are read with all others.
const MOST: usize = 10_000;

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)?;
    for (table, column) in TABLES {
        for (event, row) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
            let did = if column.is_empty() { "x''".to_owned() } else { format!("{row}.{column}") };
            // Not by OR REPLACE: a statement's own words for conflicts would count in here.
            db.execute_batch(&format!(
                "CREATE TRIGGER IF NOT EXISTS {table}_{event}_touches AFTER {event} ON {table} BEGIN
                     DELETE FROM touched WHERE did = {did};
                     INSERT INTO touched SELECT {did}, version + 1 FROM meta;
                 END;"
            ))?;
        }
    }
    // What was written before there was a note of it.
    let all = "INSERT INTO touched SELECT x'', version FROM meta WHERE NOT EXISTS (SELECT 1 FROM touched)";
    db.execute(all, []).map(drop)
}

impl Registry {
    /// Devices that changed behind this version; `None` where all have to be read.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn touched_since(&self, version: u64) -> Result<Option<Vec<Did>>> {
        // The last: one that was put back from a copy.
        if version == 0 || self.version()? < version {
            return Ok(None);
        }
        let sql = format!("SELECT did FROM touched WHERE version > {version} LIMIT {}", MOST + 1);
        let touched = self.all(&sql, |r| r.get::<_, Vec<u8>>(0))?;
        if touched.len() > MOST {
            return Ok(None);
        }
        Ok(touched.iter().map(|did| <[u8; 8]>::try_from(did.as_slice()).ok().map(Did)).collect())
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::{Overrides, Policy, Profile};

    use fivefold_core::id::{GatewayId, Sid};

    use super::super::{By, Gateway, NewDevice};
    use super::*;
    use crate::vault::Vault;

    #[test]
    fn a_change_touches_its_devices_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let path = folder.path().join("registry.db");
        let mut book = Registry::create(&path, By::new("anna", "pts/1", "device add", 1)).unwrap();
        let net = book.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        let policy = Policy::new(Profile::ToCloud);
        let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None };
        let mut version = book.version().unwrap();
        let mut touched = |book: &Registry| {
            let touched = book.touched_since(version).unwrap();
            version = book.version().unwrap();
            touched
        };
        let [a, b] = [0, 1].map(|_| book.add_device(&vault, &new, 1).unwrap().0.did);
        let mut both = touched(&book).unwrap();
        both.sort_unstable();
        assert_eq!(both, [a.min(b), a.max(b)]);
        assert_eq!(touched(&book), Some(vec![]));
        book.revoke_device(a, 2).unwrap();
        assert_eq!(touched(&book), Some(vec![a]));
        book.enrol_again(&vault, b, None, 2).unwrap();
        assert_eq!(touched(&book), Some(vec![b]));
        // A change of something else.
        book.add_network(&vault, "m", Profile::ToCloud, None).unwrap();
        assert_eq!(touched(&book), Some(vec![]));
        let gateway = Gateway {
            gateway: GatewayId(1),
            net,
            name: "north".into(),
            sid: Sid(1),
            did: Did([9; 8]),
            primary: true,
            receipt_keys: Vec::new(),
            revoked_at: None,
        };
        book.add_gateway(&gateway).unwrap();
        assert_eq!(touched(&book), Some(vec![]));
        // Where nobody can say it, all are read.
        assert_eq!(book.touched_since(0).unwrap(), None);
        assert_eq!(book.touched_since(book.version().unwrap() + 1).unwrap(), None);
        book.written(|tx| {
            tx.execute("INSERT INTO local_networks VALUES (?, 1, x'00')", [net.0])?;
            tx.execute("UPDATE meta SET version = version + 1", []).map(Some)
        })
        .unwrap_or_else(|e: rusqlite::Error| panic!("{e}"));
        assert_eq!(touched(&book), None);
    }
}
