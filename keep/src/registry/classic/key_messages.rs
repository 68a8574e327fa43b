//! Key messages of hardened classic devices in the book (docs/protocol.md 12): who may send them, for which key of the cloud
//! they are sealed, and where the keys stand that they brought.

use std::collections::{HashMap, HashSet};

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, MessageHash};
use fivefold_core::id::{Did, GatewayId, Net, Serial as KeySerial, ServerKid, Sid};
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{KeyEpoch, KeyLevel, Kr2, RsaSize};
use fivefold_waspmote::Serial;
use rusqlite::{Connection, Transaction, params};
use zeroize::Zeroizing;

use super::super::deeds::Done;
use super::super::{Registry, RegistryError, Result};
use super::hardened::hardened_name;
use super::{ClassicDevice, HardenedHolder, refuse};
use crate::key_message::{Answered, Chain, KeyState, PendingKey, ServerKey, Switch};
use crate::vault::{Vault, VaultError, random};

const SCHEMA: &str = include_str!("key_messages.sql");
const PENDING: u8 = 0;
const ACTIVE: u8 = 1;
const DRAINING: u8 = 2;

/// A key of the cloud that key messages are sealed for, without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageServer {
    /// srv_kid.
    pub kid: ServerKid,
    /// Its size.
    pub size: RsaSize,
    /// SubjectPublicKeyInfo (DER).
    pub spki: Vec<u8>,
}

/// What a node needs to send key messages. Its key is wiped when dropped and never printed.
pub struct NodeEnrolment {
    /// What its keys are for.
    pub level: KeyLevel,
    /// Shared with the cloud: S of `kr1_auth = mac`.
    pub key: Zeroizing<[u8; 32]>,
    /// The cloud's key that it seals for.
    pub server: MessageServer,
}

impl std::fmt::Debug for NodeEnrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeEnrolment({:?}, for {})", self.level, self.server.kid)
    }
}

/// A device that may send key messages, as their server takes it up.
#[derive(Debug)]
pub struct Enrolled {
    /// Its serial.
    pub serial: KeySerial,
    /// Its network.
    pub net: Net,
    /// Its short id.
    pub sid: Sid,
    /// What its keys are for.
    pub level: KeyLevel,
    /// Size of the cloud's key that it seals for.
    pub size: RsaSize,
    /// Shared with it.
    pub key: EnrolmentKey,
    /// Its keys, and where they stand.
    pub chain: Chain,
}

pub(in super::super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

pub(in super::super) fn enrolment_name(did: Did, level: u8) -> String {
    format!("classic enrolment key {did} {level}")
}

pub(in super::super) fn server_name(kid: [u8; 4]) -> String {
    format!("classic server key {}", ServerKid(kid))
}

const fn number(level: KeyLevel) -> u8 {
    match level {
        KeyLevel::E2 => 2,
        KeyLevel::E3 => 3,
    }
}

fn level_of(number: u8) -> Option<KeyLevel> {
    [KeyLevel::E2, KeyLevel::E3].into_iter().find(|level| self::number(*level) == number)
}

fn size_of(bits: u32) -> Option<RsaSize> {
    RsaSize::ALL.into_iter().find(|size| u32::try_from(size.bits()) == Ok(bits))
}

type ChainKey = (Did, u8);

impl Registry {
    /// The primary gateway of a network, which alone holds keys of level 2 of its classic devices.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn primary_of(&self, net: Net) -> Result<Option<GatewayId>> {
        let primary = self.gateways()?.into_iter().find(|g| g.net == net && g.primary && g.revoked_at.is_none());
        Ok(primary.map(|g| g.gateway))
    }

    /// The keys of the cloud that key messages are sealed for.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn message_servers(&self) -> Result<Vec<MessageServer>> {
        let rows = self.all("SELECT kid, bits, spki FROM classic_servers ORDER BY made_at, kid", |r| {
            Ok((r.get::<_, [u8; 4]>(0)?, r.get::<_, u32>(1)?, r.get::<_, Vec<u8>>(2)?))
        })?;
        let of = |(kid, bits, spki)| Some(MessageServer { kid: ServerKid(kid), size: size_of(bits)?, spki });
        Ok(rows.into_iter().filter_map(of).collect())
    }

    /// One of them, to decrypt with.
    ///
    /// # Errors
    /// [`RegistryError::Vault`], also where it is no key any more.
    pub fn message_server(&self, vault: &Vault, kid: ServerKid) -> Result<ServerKey> {
        let sql = "SELECT sealed FROM classic_servers WHERE kid = ?";
        let sealed: Vec<u8> = self.db.query_row(sql, [kid.0], |r| r.get(0)).map_err(|e| self.failed(e))?;
        let name = server_name(kid.0);
        let pkcs8 = vault.open(&name, &sealed)?;
        ServerKey::from_pkcs8(&pkcs8).map_err(|_| VaultError::Damaged { name }.into())
    }

    /// Enters a key of the cloud for key messages (PKCS #8, DER); devices of its size are enrolled for it from now on.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when it is none of 2048 or 3072 bits, or its srv_kid is another's; [`RegistryError::Vault`].
    pub fn enter_message_server(&mut self, vault: &Vault, pkcs8: &[u8], now_unix_s: u64) -> Result<MessageServer> {
        let key = ServerKey::from_pkcs8(pkcs8).map_err(|e| RegistryError::Refused(e.to_string()))?;
        let (kid, size, spki) = (key.public().kid(), key.public().size(), key.public().spki().to_vec());
        if self.message_servers()?.iter().any(|s| s.kid == kid) {
            return refuse(format!("another key for key messages has the id {kid}; make a new one"));
        }
        let sealed = vault.seal(&server_name(kid.0), pkcs8)?;
        let bits = size.bits() as i64;
        let row = params![kid.0, bits, spki, sealed, now_unix_s as i64];
        self.change(Done::new("key for key messages entered", format_args!("key {kid}")), |tx| {
            tx.execute("INSERT INTO classic_servers VALUES (?, ?, ?, ?, ?)", row)
        })?;
        Ok(MessageServer { kid, size, spki })
    }

    /// The newest key of that size; a new one where there is none.
    fn server_of_size(&mut self, vault: &Vault, size: RsaSize, now_unix_s: u64) -> Result<MessageServer> {
        if let Some(server) = self.message_servers()?.into_iter().rfind(|s| s.size == size) {
            return Ok(server);
        }
        let (_, pkcs8) = ServerKey::generate(size).map_err(|e| RegistryError::Refused(e.to_string()))?;
        self.enter_message_server(vault, &pkcs8, now_unix_s)
    }

    /// Lets a classic device renew its key of one level by key messages, and draws the enrolment key that proves them, in
    /// place of the one before. From now on only its hardened frames count.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for v12 and revoked devices, for RSA-1024, and at level 2 where
    /// there is no primary gateway; [`RegistryError::Vault`].
    pub fn enrol_for_messages(
        &mut self,
        vault: &Vault,
        serial: Serial,
        (level, size): (KeyLevel, RsaSize),
        now_unix_s: u64,
    ) -> Result<(ClassicDevice, NodeEnrolment)> {
        let device = self.hardenable(serial)?;
        if level == KeyLevel::E2 && self.primary_of(device.net)?.is_none() {
            return refuse(super::hardened::no_primary(device.net));
        }
        let server = self.server_of_size(vault, size, now_unix_s)?;
        let key = random::<32>()?;
        let sealed = vault.seal(&enrolment_name(device.did, number(level)), key.as_slice())?;
        let bits = size.bits() as i64;
        self.change(
            Done::new("key messages enrolled", format_args!("device {serial}, level {}", number(level))),
            |tx| {
                tx.execute(
                    "INSERT OR REPLACE INTO classic_enrolled VALUES (?, ?, ?, ?, ?)",
                    params![device.did.0, number(level), bits, sealed, now_unix_s as i64],
                )?;
                tx.execute("UPDATE classic_devices SET is_hardened = 1 WHERE did = ?", [device.did.0])
            },
        )?;
        Ok((self.classic_device(serial)?, NodeEnrolment { level, key, server }))
    }

    /// Takes no key messages of a device for that level any more. The keys that it has stay.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] where it sends none.
    pub fn end_key_messages(&mut self, serial: Serial, level: KeyLevel) -> Result<ClassicDevice> {
        let device = self.classic_device(serial)?;
        let row = params![device.did.0, number(level)];
        let gone = self.change_if(
            Done::new("key messages ended", format_args!("device {serial}, level {}", number(level))),
            |tx| {
                let gone = tx.execute("DELETE FROM classic_enrolled WHERE did = ? AND level = ?", row)?;
                Ok((gone > 0).then_some(()))
            },
        )?;
        if gone.is_none() {
            return refuse(format!("device {serial} sends no key messages for that level"));
        }
        Ok(device)
    }

    /// Every device that may send key messages.
    ///
    /// # Errors
    /// [`RegistryError::Vault`].
    pub fn enrolled_for_messages(&self, vault: &Vault) -> Result<Vec<Enrolled>> {
        let mut chains = self.chains()?;
        let sql = "SELECT e.did, e.level, e.bits, e.sealed, d.net, d.sid FROM classic_enrolled e JOIN classic_devices d USING (did) \
                   WHERE d.revoked_at IS NULL ORDER BY e.did, e.level";
        let rows = self.all(sql, |r| {
            let (did, level): ([u8; 8], u8) = (r.get(0)?, r.get(1)?);
            Ok((did, level, r.get::<_, u32>(2)?, r.get::<_, Vec<u8>>(3)?, Net(r.get(4)?), Sid(r.get(5)?)))
        })?;
        let mut all = Vec::with_capacity(rows.len());
        for (did, number, bits, sealed, net, sid) in rows {
            let (Some(level), Some(size)) = (level_of(number), size_of(bits)) else { continue };
            let name = enrolment_name(Did(did), number);
            let opened = vault.open(&name, &sealed)?;
            let key: Zeroizing<[u8; 32]> =
                Zeroizing::new(opened.as_slice().try_into().map_err(|_| VaultError::Damaged { name })?);
            let (keys, answered) = chains.remove(&(Did(did), number)).unwrap_or_default();
            let (serial, key, chain) = (KeySerial(did), EnrolmentKey::new(*key), Chain::restore(keys, answered));
            all.push(Enrolled { serial, net, sid, level, size, key, chain });
        }
        Ok(all)
    }

    #[expect(clippy::type_complexity, reason = "what `Chain::restore` takes, by device and level")]
    fn chains(&self) -> Result<HashMap<ChainKey, (Vec<(KeyEpoch, KeyState)>, Option<Answered>)>> {
        let sql = "SELECT h.did, h.level, h.epoch, coalesce(s.standing, 0), s.until_ms, s.message, s.answer \
                   FROM classic_hardened h LEFT JOIN classic_standing s USING (did, level, epoch) ORDER BY h.did, h.level, h.epoch";
        let rows = self.all(sql, |r| {
            let (did, level, epoch): ([u8; 8], u8, u32) = (r.get(0)?, r.get(1)?, r.get(2)?);
            let state = match r.get::<_, u8>(3)? {
                ACTIVE => KeyState::Active,
                DRAINING => {
                    KeyState::Draining { until: Millis(r.get::<_, Option<i64>>(4)?.unwrap_or(0).max(0) as u64) }
                }
                _ => KeyState::Pending,
            };
            let (message, answer): (Option<[u8; 32]>, Option<Vec<u8>>) = (r.get(5)?, r.get(6)?);
            Ok((Did(did), level, KeyEpoch(epoch), state, message.zip(answer)))
        })?;
        let mut chains: HashMap<ChainKey, (Vec<_>, Option<Answered>)> = HashMap::new();
        for (did, level, epoch, state, answered) in rows {
            let (keys, newest) = chains.entry((did, level)).or_default();
            keys.push((epoch, state));
            // A later key that was brought by hand answers to nobody.
            *newest = answered.and_then(|(message, answer)| {
                let (message, answer) = (MessageHash(message), Kr2::parse(&answer).ok()?);
                Some(Answered { epoch, message, answer })
            });
        }
        Ok(chains)
    }

    /// Keys that wait for their first frame, of devices that may send key messages: by device, level (2 or 3) and epoch.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn unused_hardened(&self) -> Result<HashSet<(Did, u8, u32)>> {
        let sql = "SELECT h.did, h.level, h.epoch FROM classic_hardened h JOIN classic_enrolled e USING (did, level) \
                   LEFT JOIN classic_standing s USING (did, level, epoch) WHERE coalesce(s.standing, 0) = 0";
        Ok(self.all(sql, |r| Ok((Did(r.get(0)?), r.get(1)?, r.get(2)?)))?.into_iter().collect())
    }

    /// Since when nobody can have recorded anything under a key (docs/protocol.md 8.4), in Unix seconds: by device, level (2 or 3)
    /// and epoch. One that was brought by hand is from then. One that a message agreed is as old as the enrolment key that
    /// proved the message, for the message itself may be a recording; where that one was drawn anew since, nobody knows how old,
    /// and it is not among these.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn hardened_since(&self) -> Result<HashMap<(Did, u8, u32), u64>> {
        let sql = "SELECT h.did, h.level, h.epoch, iif(s.message IS NULL, h.made_at, e.made_at) FROM classic_hardened h \
                   LEFT JOIN classic_standing s USING (did, level, epoch) LEFT JOIN classic_enrolled e USING (did, level) \
                   WHERE s.message IS NULL OR e.made_at < h.made_at";
        let rows = self.all(sql, |r| Ok(((Did(r.get(0)?), r.get(1)?, r.get(2)?), r.get::<_, i64>(3)?)))?;
        Ok(rows.into_iter().map(|(key, at)| (key, u64::try_from(at).unwrap_or(0))).collect())
    }

    /// Enters a key that a key message brought; durable when this returns. `false` where the book has changed since its
    /// message was judged: the epoch is taken, or the device may send none any more. A key of level 2 is that gateway's.
    ///
    /// # Errors
    /// [`RegistryError::Vault`]; [`RegistryError::Database`]: then it must not be answered.
    pub fn agree_hardened(
        &mut self,
        vault: &Vault,
        key: &PendingKey,
        holder: HardenedHolder,
        now_unix_s: u64,
    ) -> Result<bool> {
        let (did, level, epoch) = (Did(key.serial.0), number(key.level), key.epoch.0);
        let sealed = vault.seal(&hardened_name(did, level, epoch), key.fresh.danger_key())?;
        let agreed = self.change_if(
            Done::new("key agreed by message", format_args!("device {did}, level {level}, epoch {epoch}")),
            |tx| {
                let sql = "SELECT count(*) FROM classic_enrolled e JOIN classic_devices d USING (did) \
                       WHERE e.did = ? AND e.level = ? AND d.revoked_at IS NULL";
                let may: i64 = tx.query_row(sql, params![did.0, level], |r| r.get(0))?;
                let sql = "SELECT coalesce(max(epoch), 0) FROM classic_hardened WHERE did = ? AND level = ?";
                let last: u32 = tx.query_row(sql, params![did.0, level], |r| r.get(0))?;
                if may == 0 || last.checked_add(1) != Some(epoch) {
                    return Ok(None);
                }
                tx.execute(
                    "INSERT INTO classic_hardened VALUES (?, ?, ?, ?, ?, ?)",
                    params![did.0, level, epoch, holder.gateway(), sealed, now_unix_s as i64],
                )?;
                tx.execute(
                    "INSERT OR REPLACE INTO classic_standing VALUES (?, ?, ?, ?, NULL, ?, ?)",
                    params![did.0, level, epoch, PENDING, key.message.0, key.answer.to_bytes()],
                )?;
                key.evicts.map_or(Ok(()), |evicted| erase(tx, did, level, evicted))?;
                Ok(Some(()))
            },
        )?;
        Ok(agreed.is_some())
    }

    /// The first frame under a key came: makes what changes durable.
    ///
    /// # Errors
    /// [`RegistryError::Database`]: then nothing has changed.
    pub fn switch_hardened(&mut self, serial: KeySerial, level: KeyLevel, switch: &Switch) -> Result<()> {
        let (did, level) = (Did(serial.0), number(level));
        self.change(Done::new("key taken into use", format_args!("device {did}, level {level}")), |tx| {
            stand(tx, (did, level, switch.activates), ACTIVE, None)?;
            if let Some((drained, until)) = switch.drains {
                stand(tx, (did, level, drained), DRAINING, Some(until))?;
            }
            switch.drops.iter().try_for_each(|dropped| erase(tx, did, level, *dropped))
        })
    }

    /// Erases keys that have drained.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn forget_hardened(&mut self, level: KeyLevel, drained: &[(KeySerial, KeyEpoch)]) -> Result<()> {
        let erase_one = |tx: &Transaction<'_>, (serial, epoch): &(KeySerial, KeyEpoch)| {
            erase(tx, Did(serial.0), number(level), *epoch)
        };
        self.change(
            Done::new("keys that drained erased", format_args!("{} keys, level {}", drained.len(), number(level))),
            |tx| drained.iter().try_for_each(|one| erase_one(tx, one)),
        )
    }

    /// The epochs of a device's keys that somebody holds, ascending: the one in use, and of the others the newest.
    pub(super) fn standing_epochs(&self, did: Did, holder: HardenedHolder, most: usize) -> Result<Vec<u32>> {
        let read = || {
            let sql = "SELECT h.epoch FROM classic_hardened h LEFT JOIN classic_standing s USING (did, level, epoch) \
                       WHERE h.did = ? AND h.level = ? AND h.gw IS ? ORDER BY coalesce(s.standing, 0) = 1 DESC, h.epoch DESC LIMIT ?";
            let row = params![did.0, holder.level(), holder.gateway(), i64::try_from(most).unwrap_or(i64::MAX)];
            self.db.prepare_cached(sql)?.query_map(row, |r| r.get(0))?.collect::<rusqlite::Result<Vec<u32>>>()
        };
        let mut epochs = read().map_err(|e| self.failed(e))?;
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Levels (2, 3) for which a device may send key messages.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn message_levels(&self, did: Did) -> Result<Vec<u8>> {
        let read = || {
            let mut query =
                self.db.prepare_cached("SELECT level FROM classic_enrolled WHERE did = ? ORDER BY level")?;
            query.query_map([did.0], |r| r.get(0))?.collect::<rusqlite::Result<Vec<u8>>>()
        };
        read().map_err(|e| self.failed(e))
    }
}

fn stand(
    tx: &Transaction<'_>,
    (did, level, epoch): (Did, u8, KeyEpoch),
    standing: u8,
    until: Option<Millis>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO classic_standing (did, level, epoch, standing, until_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT DO UPDATE SET standing = ?4, until_ms = ?5";
    let until = until.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
    tx.execute(sql, params![did.0, level, epoch.0, standing, until]).map(drop)
}

fn erase(tx: &Transaction<'_>, did: Did, level: u8, epoch: KeyEpoch) -> rusqlite::Result<()> {
    for table in ["classic_hardened", "classic_standing"] {
        let sql = format!("DELETE FROM {table} WHERE did = ? AND level = ? AND epoch = ?");
        tx.execute(&sql, params![did.0, level, epoch.0])?;
    }
    Ok(())
}
