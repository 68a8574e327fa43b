//! Sealing the store's secrets again, while the vault's data key is replaced.

use std::path::Path;
use std::sync::Arc;

use fivefold_core::id::{Epoch, Sid};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_keep::registry::forget_free_pages;
use fivefold_keep::vault::Vault;
use rusqlite::{Row, params};

use super::{Spool, SpoolError, WrapError, added_name, agreed_name, state_name};

/// A table with a column `sealed`, and what its rows are sealed as.
struct Sealed {
    table: &'static str,
    /// What the name is made of.
    columns: &'static str,
    name: fn(&Row<'_>) -> rusqlite::Result<String>,
}

const SEALED: [Sealed; 3] = [
    Sealed {
        table: "added",
        columns: "sid, epoch, version",
        name: |r| Ok(added_name(Sid(r.get("sid")?), Epoch(r.get("epoch")?), r.get("version")?)),
    },
    Sealed {
        table: "agreed",
        columns: "sid, epoch",
        name: |r| Ok(agreed_name(Sid(r.get("sid")?), Epoch(r.get("epoch")?))),
    },
    Sealed { table: "state", columns: "version, part", name: |r| Ok(state_name(r.get("version")?, r.get("part")?)) },
];

impl Spool {
    /// Seals every secret of a store that the vault's key before sealed under its present key, in one transaction; returns
    /// how many. Afterwards the file has no byte left of what the key before sealed.
    ///
    /// # Errors
    /// As [`Spool::open`]; [`SpoolError::InUse`] while a gateway runs.
    pub fn reseal(path: &Path, vault: &Arc<Vault>) -> Result<usize, SpoolError> {
        let (mut spool, _) = Self::open(path, GatewayBoot([0; 8]), Box::new(vault.clone()))?;
        let mut resealed = 0;
        spool.begin()?;
        for sealed in &SEALED {
            resealed += spool.reseal_table(sealed, vault)?;
        }
        spool.commit()?;
        forget_free_pages(&spool.db).map_err(|e| spool.explain(&e))?;
        Ok(resealed)
    }

    fn reseal_table(&self, of: &Sealed, vault: &Vault) -> Result<usize, SpoolError> {
        let fail = |e| self.explain(&e);
        let Sealed { table, columns, name } = of;
        let mut query = self.db.prepare(&format!("SELECT sealed, {columns} FROM {table}")).map_err(fail)?;
        let rows = query
            .query_map([], |r| Ok((name(r)?, r.get::<_, Vec<u8>>("sealed")?)))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(fail)?;
        // No two are alike: each has a nonce of its own.
        let sql = format!("UPDATE {table} SET sealed = ?1 WHERE sealed = ?2");
        let mut update = self.db.prepare(&sql).map_err(fail)?;
        let sealed = |source| SpoolError::Sealed { path: self.path.clone(), source };
        let mut resealed = 0;
        for (name, old) in rows {
            if let Some(new) = vault.reseal(&name, &old).map_err(|e| sealed(WrapError(e.to_string())))? {
                resealed += update.execute(params![new, old]).map_err(fail)?;
            }
        }
        Ok(resealed)
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::time::Millis;
    use fivefold_keep::vault::Rekey;

    use super::*;
    use crate::gateway::{AddedContext, AgreedContext, AppliedState, Record};

    #[test]
    fn every_table_with_something_sealed_is_sealed_again() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let (spool, _) = Spool::open(&folder.path().join("store.db"), GatewayBoot([1; 8]), Box::new(vault)).unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND c.name LIKE '%sealed%' ORDER BY m.name";
        let mut query = spool.db.prepare(sql).unwrap();
        let tables: Vec<String> = query.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(tables, SEALED.map(|s| s.table), "add a line to SEALED");
    }

    #[test]
    fn state_and_added_contexts_are_the_same_under_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let (mut spool, _) = Spool::open(&path, GatewayBoot([1; 8]), Box::new(vault.clone())).unwrap();
        let parts = [b"one".as_slice(), b"two"].map(Into::into).into();
        spool.write(&Record::State(AppliedState { version: 3, applied: Millis(5), parts })).unwrap();
        for n in 0..3u8 {
            // Whatever the bytes say: they were sealed, and are sealed again.
            let context = AddedContext { version: 4 + u64::from(n), bytes: [n; 40].into() };
            spool.write(&Record::Added { sid: Sid(n.into()), epoch: Epoch(2), context }).unwrap();
        }
        let (at, drains_since) = (Millis(7), Some(Millis(8)));
        let agreed = AgreedContext { sid: Sid(3), epoch: Epoch(4), at, drains_since, bytes: [9; 50].into() };
        spool.write(&Record::Agreed(agreed)).unwrap();
        spool.commit().unwrap();
        drop((spool, vault));
        let rekey = Rekey::begin(folder.path(), None).unwrap();
        assert_eq!(Spool::reseal(&path, rekey.vault()).unwrap(), 6);
        assert_eq!(Spool::reseal(&path, rekey.vault()).unwrap(), 0);
        rekey.finish().unwrap();
        let vault = Arc::new(Vault::open_folder(folder.path()).unwrap());
        let (_, restored) = Spool::open(&path, GatewayBoot([1; 8]), Box::new(vault)).unwrap();
        assert_eq!(restored.state.unwrap().parts.len(), 2);
        let added: Vec<_> = restored.added.iter().map(|a| (a.version, a.bytes[0])).collect();
        assert_eq!(added, [(4, 0), (5, 1), (6, 2)]);
        let agreed: Vec<_> =
            restored.agreed.iter().map(|a| (a.sid, a.epoch, a.at, a.drains_since, a.bytes[0])).collect();
        assert_eq!(agreed, [(Sid(3), Epoch(4), at, drains_since, 9)]);
    }
}
