//! Devices in the operator's book: what is looked at before one is entered, and how one or ten thousand are entered at once.

use std::collections::{HashMap, HashSet};

use fivefold_core::id::{Did, Epoch, Net, Sid};
use fivefold_core::profile::Policy;
use fivefold_core::suite::{hmac_sha256, sha256};
use rusqlite::{Transaction, params};

use super::deeds::Done;
use super::renewal::{self, DeviceKey, can_renew};
use super::signers::{self, Signer};
use super::{Device, DeviceSecrets, Gateway, NewDevice, Registry, RegistryError, Result, secret_name};
use crate::vault::{Vault, VaultError, random};

/// A device as it is going to stand in the book.
#[derive(Debug)]
pub struct Entry {
    /// The device.
    pub device: Device,
    /// Its secrets.
    pub secrets: DeviceSecrets,
    /// Its key for renewal, if it can renew.
    pub key: Option<DeviceKey>,
    /// Its signing key, if it has one: examined like the device.
    pub signer: Option<Signer>,
}

impl Entry {
    /// With fresh secrets.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn draw(device: Device, key: Option<DeviceKey>) -> std::result::Result<Self, VaultError> {
        let secrets = DeviceSecrets::draw(device.policy.alg, random()?)?;
        Ok(Self { device, secrets, key, signer: None })
    }
}

/// First and last of the short ids that are given out by themselves.
pub(super) const FREE: std::ops::Range<u16> = 0x0101..0xE200;

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(RegistryError::Refused(text.into()))
}

impl Registry {
    /// Enters a device with fresh random secrets and epoch 1.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] names the rule; [`RegistryError::Vault`].
    pub fn add_device(&mut self, vault: &Vault, new: &NewDevice, now_unix_s: u64) -> Result<(Device, DeviceSecrets)> {
        let examined = self.examine(std::slice::from_ref(new), now_unix_s, |_| "this one".into())?.pop();
        let device = examined.unwrap_or_else(|| Err("nothing was asked for".into())).or_else(refuse)?;
        let entry = Entry::draw(device, new.key)?;
        self.enter(vault, std::slice::from_ref(&entry))?;
        Ok((entry.device, entry.secrets))
    }

    /// What devices would stand in the book, or why not, in one sentence each: against the book and against one another
    /// (K4, AR-07, AR-38). `place` names one of them, as in "line 3". The book is not read whole: each is looked up.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn examine(
        &self,
        new: &[NewDevice],
        now_unix_s: u64,
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<std::result::Result<Device, String>>> {
        let mut desk = Desk::new(self, new)?;
        let mut examined = Vec::with_capacity(new.len());
        for (at, one) in new.iter().enumerate() {
            examined.push(desk.examine(at, one, now_unix_s, &place)?);
        }
        Ok(examined)
    }

    /// Enters devices that were examined: all of them in one transaction, or none.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when another command entered one of them in between; [`RegistryError::Vault`].
    pub fn enter(&mut self, vault: &Vault, entries: &[Entry]) -> Result<()> {
        let sealed = entries
            .iter()
            .map(|e| vault.seal(&secret_name(e.device.did, e.device.epoch), &e.secrets.to_bytes()))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let entered = self.change(Done::many("devices entered", entries.iter().map(|e| e.device.did)), |tx| {
            for (entry, sealed) in entries.iter().zip(&sealed) {
                insert(tx, "", &entry.device, &entry.secrets, sealed)?;
                renewal::enter(tx, entry.device.did, entry.device.epoch, entry.key.as_ref())?;
                if let Some(signer) = &entry.signer {
                    signers::enter(tx, signer)?;
                }
            }
            Ok(())
        });
        match entered {
            Err(RegistryError::Database { source, .. })
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
            {
                refuse("another command changed the book in this moment, so nothing was entered; type this again")
            }
            other => other,
        }
    }

    /// Installs a device anew: fresh secrets and an epoch above all that it ever had, agreed ones among them
    /// (docs/protocol.md 3). Its root_psk stays; `key` takes the place of its key for renewal.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Refused`] for a revoked device.
    pub fn enrol_again(
        &mut self,
        vault: &Vault,
        did: Did,
        key: Option<&DeviceKey>,
        now_unix_s: u64,
    ) -> Result<(Device, DeviceSecrets)> {
        let mut device = self.device(did)?;
        if device.revoked_at.is_some() {
            return refuse(format!("device {did} is revoked; add it under a new id"));
        }
        self.check_local(device.net, &device.policy, key)?;
        if let Some(key) = key {
            self.check_key(did, &device.policy, key)?;
        }
        let old = self.secrets(vault, &device)?;
        device.enrolled_at = now_unix_s;
        loop {
            let agreed = self.renewal(did)?.map_or(Epoch(0), |r| r.highest);
            device.epoch = device.epoch.max(agreed);
            loop {
                let next = device.epoch.0.checked_add(1);
                let next = next.ok_or_else(|| RegistryError::Refused("this device has used all epochs".into()))?;
                device.epoch = Epoch(next);
                if !device.epoch.collides_with(device.sid) {
                    break;
                }
            }
            let secrets = DeviceSecrets::draw(device.policy.alg, old.root_psk.clone())?;
            // Unless the cloud agreed a greater one in the meantime.
            if self.write_again(vault, &device, &secrets, key)? {
                return Ok((device, secrets));
            }
        }
    }

    /// `false`, and nothing is written, when the device's epoch is not above all that it had.
    fn write_again(
        &mut self,
        vault: &Vault,
        device: &Device,
        secrets: &DeviceSecrets,
        key: Option<&DeviceKey>,
    ) -> Result<bool> {
        let sealed = vault.seal(&secret_name(device.did, device.epoch), &secrets.to_bytes())?;
        let again = "ON CONFLICT (did) DO UPDATE SET epoch = ?7, sealed = ?8, digest = ?9, enrolled_at = ?10";
        self.change(
            Done::new("device enrolled again", format_args!("device {}, epoch {}", device.did, device.epoch)),
            |tx| {
                if renewal::highest(tx, device.did)?.is_some_and(|h| h >= device.epoch.0) {
                    return Ok(false);
                }
                insert(tx, again, device, secrets, &sealed)?;
                renewal::enter(tx, device.did, device.epoch, key)?;
                Ok(true)
            },
        )
    }

    /// Short ids that somebody has in a network.
    pub(super) fn taken_short_ids(&self, net: Net) -> Result<HashSet<Sid>> {
        let mut taken: HashSet<Sid> = self.short_ids(net, Sid(0), Sid(u16::MAX))?.into_iter().collect();
        taken.extend(self.gateways()?.iter().filter(|g| g.net == net).map(|g| g.sid));
        Ok(taken)
    }

    /// Short ids of a network's devices from `first` to `last`, in order.
    fn short_ids(&self, net: Net, first: Sid, last: Sid) -> Result<Vec<Sid>> {
        let sql = "SELECT sid FROM devices WHERE net = ?1 AND sid BETWEEN ?2 AND ?3
                   UNION SELECT sid FROM classic_devices WHERE net = ?1 AND sid BETWEEN ?2 AND ?3 ORDER BY sid";
        let read = || {
            let mut query = self.db.prepare_cached(sql)?;
            query
                .query_map(params![net.0, first.0, last.0], |r| r.get(0).map(Sid))?
                .collect::<rusqlite::Result<Vec<Sid>>>()
        };
        read().map_err(|e| self.failed(e))
    }
}

fn insert(
    tx: &Transaction<'_>,
    or: &str,
    device: &Device,
    secrets: &DeviceSecrets,
    sealed: &[u8],
) -> rusqlite::Result<()> {
    let mut policy = [0; Policy::LONGEST];
    let len = device.policy.emit(&mut policy).unwrap_or(0);
    // Keyed with itself: equal secrets give equal digests, and a digest says nothing about a random secret.
    let digest = hmac_sha256(b"fivefold device secret", &[&sha256(&[&secrets.ms3, secrets.e2_root.as_slice()])]);
    let sql = format!("INSERT INTO devices VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL) {or}");
    tx.prepare_cached(&sql)?.execute(params![
        device.did.0,
        device.sid.0,
        device.net.0,
        policy.get(..len),
        device.overrides.bits(),
        device.words,
        device.epoch.0,
        sealed,
        digest,
        device.enrolled_at as i64
    ])?;
    Ok(())
}

/// Looks at devices one after the other, and remembers what those before have.
struct Desk<'r> {
    book: &'r Registry,
    gateways: Vec<Gateway>,
    dids: HashMap<Did, usize>,
    sids: HashMap<(Net, Sid), usize>,
    keys: HashMap<[u8; 32], usize>,
    /// Short ids that are taken in the networks where some are given out, and the last one that was.
    free: HashMap<Net, (HashSet<Sid>, u16)>,
}

impl<'r> Desk<'r> {
    fn new(book: &'r Registry, new: &[NewDevice]) -> Result<Self> {
        let gateways = book.gateways()?;
        let mut free = HashMap::new();
        for one in new.iter().filter(|n| n.sid.is_none()) {
            if let std::collections::hash_map::Entry::Vacant(place) = free.entry(one.net) {
                let mut taken = book.taken_short_ids(one.net)?;
                // Those that are asked for by name, further down too, are given to nobody else.
                taken.extend(new.iter().filter(|n| n.net == one.net).filter_map(|n| n.sid));
                place.insert((taken, FREE.start));
            }
        }
        let (dids, sids, keys) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ok(Self { book, gateways, dids, sids, keys, free })
    }

    fn examine(
        &mut self,
        at: usize,
        new: &NewDevice,
        now_unix_s: u64,
        place: impl Fn(usize) -> String,
    ) -> Result<std::result::Result<Device, String>> {
        // What this one has is taken, also when it is refused for something else.
        let did_before = new.did.and_then(|did| earlier(&mut self.dids, did, at));
        let sid_before = new.sid.and_then(|sid| earlier(&mut self.sids, (new.net, sid), at));
        let key_before = new.key.and_then(|key| earlier(&mut self.keys, key.x.0, at));
        if let Err(broken) = new.policy.validate(new.overrides) {
            return Ok(Err(broken.reason.to_owned()));
        }
        let did = match new.did {
            Some(did) => did,
            None => {
                let mut did = *random::<8>()?;
                did[0] = (did[0] | 0x02) & !0x01; // locally administered, individual
                Did(did)
            }
        };
        if let Some(same) = self.book.known_device(did)? {
            return Ok(Err(format!(
                "device {did} exists already (sid {}); to install new keys, type: fivefold device enrol-again {did}",
                same.sid
            )));
        }
        if let Some(before) = did_before {
            return Ok(Err(format!("device {did} is there twice: {} has it already", place(before))));
        }
        if let Some(gateway) = self.gateways.iter().find(|g| g.did == did) {
            return Ok(Err(format!("{did} is the EUI-64 of gateway {}; every radio has its own", gateway.name)));
        }
        let sid = match self.short_id(new, sid_before.map(&place))? {
            Ok(sid) => sid,
            Err(refused) => return Ok(Err(refused)),
        };
        match self.book.check_local(new.net, &new.policy, new.key.as_ref()) {
            Err(RegistryError::Refused(why)) => return Ok(Err(why)),
            checked => checked?,
        }
        if let Some(key) = &new.key {
            if !can_renew(&new.policy) {
                return Ok(Err(format!("device {did} cannot renew: that takes mode P and E2 or E3")));
            }
            let of_device = self.book.key_of_another(did, key)?.map(|other| format!("device {other}"));
            let other = of_device.or(key_before.map(&place));
            if let Some(other) = other {
                return Ok(Err(format!("{other} has this DH key already: every device needs its own (AR-07)")));
            }
            if let Some(signer) = self.book.signs_with(key.x)? {
                return Ok(Err(renewal::signs(signer)));
            }
        }
        Ok(Ok(Device {
            did,
            sid,
            net: new.net,
            policy: new.policy,
            overrides: new.overrides,
            words: new.words.clone(),
            epoch: Epoch(1),
            enrolled_at: now_unix_s,
            revoked_at: None,
        }))
    }

    fn short_id(&mut self, new: &NewDevice, before: Option<String>) -> Result<std::result::Result<Sid, String>> {
        let Some(sid) = new.sid else {
            let Some((taken, next)) = self.free.get_mut(&new.net) else { return Ok(Err("no network".into())) };
            let found = (*next..FREE.end).map(Sid).find(|s| s.is_assignable() && !taken.contains(s));
            *next = found.map_or(FREE.end, |sid| sid.0 + 1);
            let Some(sid) = found else { return Ok(Err("this network has no free short id left".into())) };
            return Ok(Ok(sid));
        };
        if !sid.is_assignable() {
            return Ok(Err(format!("sid {sid} is reserved: not 0000, fffe, ffff, nor e200 to e2ff (AR-38)")));
        }
        let of_gateway = self.gateways.iter().any(|g| g.net == new.net && g.sid == sid);
        if of_gateway || !self.book.short_ids(new.net, sid, sid)?.is_empty() {
            return Ok(Err(format!("sid {sid} is taken in this network (AR-38); leave it out for a free one")));
        }
        if let Some(before) = before {
            return Ok(Err(format!("sid {sid} is there twice in this network: {before} has it already (AR-38)")));
        }
        Ok(Ok(sid))
    }
}

/// Who has `key` already; otherwise this one has it from now on.
fn earlier<K: std::hash::Hash + Eq>(of: &mut HashMap<K, usize>, key: K, at: usize) -> Option<usize> {
    match of.entry(key) {
        std::collections::hash_map::Entry::Occupied(taken) => Some(*taken.get()),
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(at);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::{Mode, Overrides, Profile};
    use fivefold_core::suite::agreement::PublicX;

    use super::*;
    use crate::registry::FirstContexts;

    struct Book {
        _folder: tempfile::TempDir,
        vault: Vault,
        registry: Registry,
        net: Net,
    }

    fn book() -> Book {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        let net = registry.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        Book { _folder: folder, vault, registry, net }
    }

    impl Book {
        fn new_device(&self, n: u16) -> NewDevice {
            let [a, b] = n.to_be_bytes();
            let mut x = [0x11; 32];
            x[..2].copy_from_slice(&[a, b]);
            NewDevice {
                did: Some(Did([0xAC, 0xDE, 0x48, 0, 0, 0, a, b])),
                sid: None,
                net: self.net,
                policy: Policy::new(Profile::ToCloud),
                overrides: Overrides::NONE,
                words: None,
                key: Some(DeviceKey { x: PublicX(x), first: FirstContexts::Agreed }),
            }
        }

        fn examine(&self, new: &[NewDevice]) -> Vec<std::result::Result<Device, String>> {
            self.registry.examine(new, 1, |at| format!("line {}", at + 2)).unwrap()
        }

        fn enter(&mut self, new: &[NewDevice]) {
            let devices = self.examine(new).into_iter().map(std::result::Result::unwrap);
            let entries: Vec<Entry> = devices.zip(new).map(|(d, n)| Entry::draw(d, n.key).unwrap()).collect();
            self.registry.enter(&self.vault, &entries).unwrap();
        }
    }

    #[test]
    fn many_are_entered_in_one_version_and_short_ids_go_to_nobody_twice() {
        let mut b = book();
        let version = b.registry.version().unwrap();
        let mut new: Vec<NewDevice> = (0..3000).map(|n| b.new_device(n)).collect();
        new[2999].sid = Some(Sid(0x0105));
        b.enter(&new);
        assert_eq!(b.registry.version().unwrap(), version + 1);
        let devices = b.registry.devices().unwrap();
        assert!(devices.is_sorted_by(|a, b| a.sid < b.sid) && devices.len() == 3000);
        assert_eq!(b.registry.device(new[2999].did.unwrap()).unwrap().sid, Sid(0x0105));
        assert_eq!(b.registry.renewal(new[0].did.unwrap()).unwrap().unwrap().highest, Epoch(0));
        let more = [b.new_device(4000)];
        b.enter(&more);
        assert_eq!(b.registry.device(more[0].did.unwrap()).unwrap().sid, Sid(0x0101 + 3000));
    }

    #[test]
    fn whatever_is_there_twice_is_refused_by_its_place() {
        let mut b = book();
        let known = NewDevice { sid: Some(Sid(0x0a17)), ..b.new_device(1) };
        b.enter(std::slice::from_ref(&known));
        let fresh = NewDevice { sid: Some(Sid(0x0a18)), ..b.new_device(2) };
        let random = Policy { mode: Mode::Random, ..fresh.policy };
        let rows = [
            fresh.clone(),
            NewDevice { sid: None, key: b.new_device(3).key, ..fresh.clone() },
            NewDevice { sid: fresh.sid, ..b.new_device(4) },
            NewDevice { key: fresh.key, ..b.new_device(5) },
            NewDevice { key: b.new_device(6).key, ..known.clone() },
            NewDevice { sid: known.sid, ..b.new_device(7) },
            NewDevice { key: known.key, ..b.new_device(8) },
            NewDevice { sid: Some(Sid(0xE201)), ..b.new_device(9) },
            NewDevice { policy: random, ..b.new_device(10) },
            NewDevice { policy: Policy { renew_days: 0, ..fresh.policy }, ..b.new_device(11) },
            NewDevice { sid: Some(Sid(0x0a19)), ..b.new_device(12) },
        ];
        let said = [
            "",
            "twice: line 2 has it",
            "sid 0a18 is there twice in this network: line 2",
            "line 2 has this DH key already",
            "exists already (sid 0a17)",
            "sid 0a17 is taken",
            "device acde480000000001 has this DH key",
            "reserved",
            "cannot renew",
            "T_renew",
            "",
        ];
        for (examined, says) in b.examine(&rows).into_iter().zip(said) {
            match examined {
                Ok(_) => assert_eq!(says, ""),
                Err(refused) => assert!(!says.is_empty() && refused.contains(says), "`{refused}`: `{says}`"),
            }
        }
        assert_eq!(b.registry.devices().unwrap().len(), 1, "examining enters nothing");
    }

    #[test]
    fn nothing_is_entered_when_another_command_was_faster() {
        let mut b = book();
        let new = [b.new_device(1), b.new_device(2)];
        let entries: Vec<Entry> =
            b.examine(&new).into_iter().zip(&new).map(|(d, n)| Entry::draw(d.unwrap(), n.key).unwrap()).collect();
        b.registry.add_device(&b.vault, &new[1], 1).unwrap();
        let refused = b.registry.enter(&b.vault, &entries).unwrap_err().to_string();
        assert!(refused.contains("type this again"), "{refused}");
        assert_eq!(b.registry.devices().unwrap().len(), 1);
    }
}
