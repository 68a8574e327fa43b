//! Keys that several classic devices have (K4, AR-07): whoever takes one of these nodes reads and makes the frames of all.
//!
//! Which devices have one key stands in the book, so that it is seen without the vault; the keys do not, nor anything made
//! of them.

use std::collections::HashMap;

use fivefold_core::id::Did;
use fivefold_core::suite::sha256;
use rusqlite::{Transaction, params};

use super::super::{Registry, Result};
use super::{ClassicDevice, ClassicKeys, ClassicSecret, NewClassic, did_of, keys_name};
use crate::vault::{Vault, VaultError};

/// Devices that a sentence names, at most.
const NAMED: usize = 3;

type KeyHash = [u8; 32];

fn hashes(keys: &ClassicKeys) -> impl Iterator<Item = KeyHash> {
    [&keys.gateway, &keys.cloud].into_iter().flatten().map(|key| sha256(&[ClassicSecret::bytes(key)]))
}

impl Registry {
    /// Of each of these, who else has a key of it: in the book, or among them; `place` names one of them, as in "line 3".
    ///
    /// # Errors
    /// [`RegistryError::Vault`](super::super::RegistryError::Vault): a key of the book does not open.
    pub fn classic_key_sharers(
        &self,
        vault: &Vault,
        new: &[NewClassic],
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<Option<String>>> {
        if new.iter().all(|one| one.keys.gateway.is_none() && one.keys.cloud.is_none()) {
            return Ok(vec![None; new.len()]);
        }
        let mut holders: HashMap<KeyHash, Vec<String>> = HashMap::new();
        let mine: Vec<Did> = new.iter().map(|one| did_of(one.serial)).collect();
        let serials: HashMap<Did, String> = self.classic_devices()?.iter().map(|d| (d.did, shown(d))).collect();
        for (did, key) in self.key_hashes(vault)?.into_iter().filter(|(did, _)| !mine.contains(did)) {
            holders.entry(key).or_default().extend(serials.get(&did).cloned());
        }
        for (at, one) in new.iter().enumerate() {
            hashes(&one.keys).for_each(|key| holders.entry(key).or_default().push(place(at)));
        }
        let of = |(at, one): (usize, &NewClassic)| {
            let own = place(at);
            let others: Vec<&String> = hashes(&one.keys)
                .flat_map(|key| holders.get(&key).into_iter().flatten())
                .filter(|who| **who != own)
                .collect();
            (!others.is_empty()).then(|| listed(&others))
        };
        Ok(new.iter().enumerate().map(of).collect())
    }

    /// Every key in the book, as a hash, with whose it is.
    fn key_hashes(&self, vault: &Vault) -> Result<Vec<(Did, KeyHash)>> {
        let sql = "SELECT did, sealed FROM classic_devices WHERE gateway_bits IS NOT NULL OR cloud_bits IS NOT NULL";
        let rows = self.all(sql, |r| Ok((Did(r.get(0)?), r.get::<_, Vec<u8>>(1)?)))?;
        let mut all = Vec::with_capacity(rows.len());
        for (did, sealed) in rows {
            let name = keys_name(did);
            let keys = ClassicKeys::from_bytes(&vault.open(&name, &sealed)?).ok_or(VaultError::Damaged { name })?;
            all.extend(hashes(&keys).map(|key| (did, key)));
        }
        Ok(all)
    }

    /// Which devices will have one key with others once these have theirs.
    pub(super) fn sharers_after(&self, vault: &Vault, changed: &[(Did, &ClassicKeys)]) -> Result<Sharers> {
        let mut holders: HashMap<KeyHash, Vec<Did>> = HashMap::new();
        let replaced: HashMap<Did, &ClassicKeys> = changed.iter().copied().collect();
        for (did, key) in self.key_hashes(vault)?.into_iter().filter(|(did, _)| !replaced.contains_key(did)) {
            holders.entry(key).or_default().push(did);
        }
        for (did, keys) in changed {
            hashes(keys).for_each(|key| holders.entry(key).or_default().push(*did));
        }
        let mut groups: Vec<Vec<Did>> = holders.into_values().filter(|dids| dids.len() > 1).collect();
        groups.iter_mut().for_each(|dids| dids.sort_unstable());
        groups.sort_unstable();
        Ok(Sharers(groups))
    }

    /// Which devices have one key, group by group; revoked ones are among them.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::super::RegistryError::Database).
    pub fn classic_sharers(&self) -> Result<Vec<Vec<ClassicDevice>>> {
        let by_did: HashMap<Did, ClassicDevice> = self.classic_devices()?.into_iter().map(|d| (d.did, d)).collect();
        let mut groups: Vec<(i64, Vec<ClassicDevice>)> = Vec::new();
        for (group, did) in
            self.all("SELECT grp, did FROM classic_shared ORDER BY grp, did", |r| Ok((r.get(0)?, Did(r.get(1)?))))?
        {
            let Some(device) = by_did.get(&did).cloned() else { continue };
            match groups.last_mut() {
                Some((last, members)) if *last == group => members.push(device),
                _ => groups.push((group, vec![device])),
            }
        }
        Ok(groups.into_iter().map(|(_, members)| members).collect())
    }
}

/// Which devices have one key, group by group.
pub(super) struct Sharers(Vec<Vec<Did>>);

impl Sharers {
    /// Writes them in place of those of before.
    pub(super) fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        tx.execute("DELETE FROM classic_shared", [])?;
        let mut insert = tx.prepare_cached("INSERT INTO classic_shared VALUES (?, ?)")?;
        for (group, did) in
            self.0.iter().zip(0_i64..).flat_map(|(dids, group)| dids.iter().map(move |did| (group, did)))
        {
            insert.execute(params![group, did.0])?;
        }
        Ok(())
    }
}

fn shown(device: &ClassicDevice) -> String {
    let revoked = if device.revoked_at.is_some() { " (revoked)" } else { "" };
    format!("device {}{revoked}", device.serial)
}

fn listed(names: &[&String]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED));
    let mut text = named.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if !more.is_empty() {
        text += &format!(" and {} more", more.len());
    }
    text
}
