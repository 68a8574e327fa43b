//! Sealing the book's secrets again, while the vault's data key is replaced.

use fivefold_core::id::{Did, Epoch, Net};
use rusqlite::{Connection, Row, params};

use super::classic::{enrolment_name, hardened_name, keys_name, server_name};
use super::deeds::{Done, Makes};
use super::renewal::cloud_key_name;
use super::{Registry, Result, key_name, secret_name};
use crate::vault::Vault;

/// A table with a column `sealed`, and what its rows are sealed as.
struct Sealed {
    table: &'static str,
    /// What the name is made of.
    columns: &'static str,
    name: fn(&Row<'_>) -> rusqlite::Result<String>,
}

const SEALED: [Sealed; 7] = [
    Sealed { table: "classic_devices", columns: "did", name: |r| Ok(keys_name(Did(r.get("did")?))) },
    Sealed {
        table: "classic_enrolled",
        columns: "did, level",
        name: |r| Ok(enrolment_name(Did(r.get("did")?), r.get("level")?)),
    },
    Sealed {
        table: "classic_hardened",
        columns: "did, level, epoch",
        name: |r| Ok(hardened_name(Did(r.get("did")?), r.get("level")?, r.get("epoch")?)),
    },
    Sealed { table: "classic_servers", columns: "kid", name: |r| Ok(server_name(r.get("kid")?)) },
    Sealed { table: "cloud_keys", columns: "kid", name: |r| Ok(cloud_key_name(r.get("kid")?)) },
    Sealed {
        table: "devices",
        columns: "did, epoch",
        name: |r| Ok(secret_name(Did(r.get("did")?), Epoch(r.get("epoch")?))),
    },
    Sealed { table: "network_keys", columns: "net, idx", name: |r| Ok(key_name(Net(r.get("net")?), r.get("idx")?)) },
];

/// A row that was sealed: in which table, where, under which name, as what.
type Found = (&'static str, i64, String, Vec<u8>);

impl Registry {
    /// Seals every secret that the vault's key before sealed under its present key, in one transaction; returns how many.
    /// Afterwards the file has no byte left of what the key before sealed.
    ///
    /// # Errors
    /// [`RegistryError::Vault`](super::RegistryError::Vault) names a record that does not open; then nothing was changed.
    pub fn reseal(&mut self, vault: &Vault) -> Result<usize> {
        let mut resealed = Vec::new();
        for (table, row, name, old) in found(&self.db).map_err(|e| self.failed(e))? {
            if let Some(new) = vault.reseal(&name, &old)? {
                resealed.push((table, row, old, new));
            }
        }
        let done =
            Done::new("secrets sealed again", format_args!("{} records, under key {}", resealed.len(), vault.key_id()));
        let sealed = self.logged(&done, Makes::NoVersion, |tx| {
            for (table, row, old, new) in &resealed {
                // A command that came in between sealed it under the present key itself.
                let sql = format!("UPDATE {table} SET sealed = ?1 WHERE rowid = ?2 AND sealed = ?3");
                tx.execute(&sql, params![new, row, old])?;
            }
            Ok::<_, rusqlite::Error>(Some(()))
        });
        sealed.and_then(|_| self.rewritten()).map_err(|e| self.failed(e))?;
        Ok(resealed.len())
    }
}

impl Registry {
    /// Says the same in other pages, and nothing else.
    fn rewritten(&self) -> rusqlite::Result<()> {
        self.db.pragma_update(None, "query_only", false)?;
        let done = forget_free_pages(&self.db);
        self.db.pragma_update(None, "query_only", true).and(done)
    }
}

fn found(db: &Connection) -> rusqlite::Result<Vec<Found>> {
    let mut all = Vec::new();
    for Sealed { table, columns, name } in &SEALED {
        let mut query = db.prepare(&format!("SELECT rowid AS place, sealed, {columns} FROM {table}"))?;
        let rows = query.query_map([], |r| Ok((*table, r.get("place")?, name(r)?, r.get("sealed")?)))?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

/// Rewrites a database in WAL mode, so that nothing stays in it of what was overwritten or deleted.
///
/// # Errors
/// There is no room for a second copy, or somebody reads it at this moment.
pub fn forget_free_pages(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("VACUUM")?;
    let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
    if busy {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(code, Some("somebody reads it; type the command again".into())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::{Overrides, Policy, Profile};
    use fivefold_core::suite::agreement::Agree as _;

    use super::super::NewDevice;
    use super::*;
    use crate::vault::Rekey;

    #[test]
    fn every_table_with_something_sealed_is_sealed_again() {
        let folder = tempfile::tempdir().unwrap();
        let book =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND c.name LIKE '%sealed%' ORDER BY m.name";
        let tables: Vec<String> = book.all(sql, |r| r.get(0)).unwrap();
        assert_eq!(tables, SEALED.map(|s| s.table), "add a line to SEALED");
    }

    #[test]
    fn secrets_are_the_same_under_another_key_and_the_old_ciphertext_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(&path, super::super::By::new("test", "here", "test", 1)).unwrap();
        let net = book.add_network(&vault, "n", Profile::ToBoth, None).unwrap().net;
        let policy = Policy::new(Profile::ToBoth);
        let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None };
        let (device, secrets) = book.add_device(&vault, &new, 1).unwrap();
        let (device, again) = book.enrol_again(&vault, device.did, None, 2).unwrap();
        assert_ne!(secrets.ms3, again.ms3);
        let key = book.network_keys(&vault, net).unwrap().remove(0).key;
        let renewal = book.cloud_identity(&vault).unwrap().key.public_x();
        // Keys that were forgotten: SQLite only forgets where they are.
        book.db.pragma_update(None, "query_only", false).unwrap();
        for index in 100..150u8 {
            let sealed = vault.seal(&key_name(net, index), &[index; 16]).unwrap();
            book.db
                .execute("INSERT INTO network_keys VALUES (?, ?, 3, ?, NULL)", params![net.0, index, sealed])
                .unwrap();
        }
        book.db.execute("DELETE FROM network_keys WHERE idx >= 100", []).unwrap();
        let old = vault.key_id();
        drop(vault);

        let rekey = Rekey::begin(folder.path(), None).unwrap();
        assert_eq!(book.reseal(rekey.vault()).unwrap(), 3);
        assert_eq!(book.reseal(rekey.vault()).unwrap(), 0, "the second time nothing is left");
        rekey.finish().unwrap();
        let vault = Vault::open_folder(folder.path()).unwrap();
        assert_ne!(vault.key_id(), old);
        assert_eq!(book.secrets(&vault, &device).unwrap().ms3, again.ms3);
        assert_eq!(book.network_keys(&vault, net).unwrap()[0].key, key);
        assert_eq!(book.cloud_identity(&vault).unwrap().key.public_x(), renewal);
        drop(book);
        let header = hex::decode(format!("46565332{old}")).unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(header.len()).any(|w| w == header), "{}", file.display());
        }
    }
}
