//! Classic devices in the operator's book: Waspmote and Plug & Sense! nodes, by serial, with the keys that the operator types in.
//!
//! Nothing of theirs proves who sent it; a network takes them only where the operator says so, and is marked for it.

mod desk;
mod hardened;
mod key_messages;
mod secret;
mod sensors;
mod shared;
mod signers;

use fivefold_core::id::{Did, Net, Sid};
use fivefold_waspmote::{KeyBits, Serial, Table, Weak};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::deeds::Done;
use super::{Network, Registry, RegistryError, Result, hidden};
use crate::vault::{Vault, VaultError};

use desk::Desk;
pub(super) use hardened::hardened_name;
pub use hardened::{HardenedHolder, HardenedKey};
pub use key_messages::{Enrolled, MessageServer, NodeEnrolment};
pub(super) use key_messages::{enrolment_name, server_name};
pub use secret::{ClassicKeys, ClassicSecret};

/// The tables, which an older book gets when it is opened for changes.
const SCHEMA: &str = include_str!("classic.sql");
/// Bytes of a node id, at most (W3).
const NODE_ID: usize = 16;
const COLUMNS: &str = "did, sid, net, serial, node_id, sensors, dev_eui, is_hardened, gateway_bits, gateway_weak, cloud_bits, \
                       cloud_weak, words, added_at, revoked_at";

/// Which frames of a classic device count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClassicProfile {
    /// Those of the vendor's code.
    #[default]
    Classic,
    /// Those of the hardened profile alone.
    Hardened,
}

/// A key that a classic device has, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicKeyKind {
    /// Its size.
    pub bits: KeyBits,
    /// What makes it easy to guess (CL-13).
    pub weakness: Option<Weak>,
}

/// A classic device, without its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicDevice {
    /// Permanent id, made of its serial.
    pub did: Did,
    /// Short id, one of the network's.
    pub sid: Sid,
    /// Its network.
    pub net: Net,
    /// Its serial.
    pub serial: Serial,
    /// Name that the operator gave the node.
    pub node_id: Option<String>,
    /// Its sensor table, where it is not the one of its hardware.
    pub table: Option<Table>,
    /// Its DevEUI, where its frames come by LoRaWAN.
    pub dev_eui: Option<Did>,
    /// Which of its frames count.
    pub profile: ClassicProfile,
    /// Its key for the gateway (E2 classic).
    pub gateway_key: Option<ClassicKeyKind>,
    /// Its key for the cloud (E3 classic).
    pub cloud_key: Option<ClassicKeyKind>,
    /// The operator's words for a weak key.
    pub words: Option<String>,
    /// When it was added, Unix seconds.
    pub added_at: u64,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

/// What the operator asks for when adding a classic device.
#[derive(Debug)]
pub struct NewClassic {
    /// Its serial.
    pub serial: Serial,
    /// Short id; the next free one if not given.
    pub sid: Option<Sid>,
    /// Its network.
    pub net: Net,
    /// Name that the operator gave the node, up to 16 bytes.
    pub node_id: Option<String>,
    /// Its sensor table, where it is not the one of its hardware.
    pub table: Option<Table>,
    /// Its DevEUI, where its frames come by LoRaWAN.
    pub dev_eui: Option<Did>,
    /// Which of its frames count.
    pub profile: ClassicProfile,
    /// Its keys.
    pub keys: ClassicKeys,
    /// The operator's words for a weak key.
    pub words: Option<String>,
}

impl NewClassic {
    /// A device in clear, and nothing more about it.
    pub const fn plain(serial: Serial, net: Net) -> Self {
        Self {
            serial,
            sid: None,
            net,
            node_id: None,
            table: None,
            dev_eui: None,
            profile: ClassicProfile::Classic,
            keys: ClassicKeys { gateway: None, cloud: None },
            words: None,
        }
    }
}

/// The permanent id of a serial: its 8 bytes, or 4 zero bytes and those of v12.
pub fn did_of(serial: Serial) -> Did {
    match serial {
        Serial::V15(bytes) => Did(bytes),
        Serial::V12(number) => {
            let [a, b, c, d] = number.to_be_bytes();
            Did([0, 0, 0, 0, a, b, c, d])
        }
    }
}

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)?;
    key_messages::prepare(db)
}

pub(super) fn keys_name(did: Did) -> String {
    format!("classic keys {did}")
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(RegistryError::Refused(text.into()))
}

impl Registry {
    /// The networks that take classic devices.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn classic_networks(&self) -> Result<Vec<Net>> {
        self.all("SELECT net FROM classic_networks ORDER BY net", |r| r.get(0).map(Net))
    }

    /// Lets a network take classic devices.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] where there is no cloud to judge what they send.
    pub fn allow_classic(&mut self, network: &str) -> Result<Network> {
        let network = self.network(network)?;
        if self.local(network.net)?.is_some() {
            return refuse(format!(
                "network {} has no cloud, and only a cloud judges what classic devices send; add another network for them",
                network.name
            ));
        }
        self.change(Done::new("classic devices allowed", format_args!("network {}", network.name)), |tx| {
            tx.execute("INSERT OR IGNORE INTO classic_networks VALUES (?)", [network.net.0])
        })?;
        Ok(network)
    }

    /// Lets a network take no classic devices any more.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] while it has any.
    pub fn forbid_classic(&mut self, network: &str) -> Result<Network> {
        let network = self.network(network)?;
        let left = self.classic_devices()?.iter().filter(|d| d.net == network.net && d.revoked_at.is_none()).count();
        if left > 0 {
            return refuse(format!(
                "network {} has {left} classic device{}: revoke them first",
                network.name,
                if left == 1 { "" } else { "s" }
            ));
        }
        self.change(Done::new("classic devices forbidden", format_args!("network {}", network.name)), |tx| {
            tx.execute("DELETE FROM classic_sensors WHERE net = ?", [network.net.0])?;
            tx.execute("DELETE FROM classic_networks WHERE net = ?", [network.net.0])
        })?;
        Ok(network)
    }

    /// All classic devices, by network and short id.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn classic_devices(&self) -> Result<Vec<ClassicDevice>> {
        self.all(&format!("SELECT {COLUMNS} FROM classic_devices ORDER BY net, sid"), classic_of)
    }

    /// The classic device with a serial, if it is in the book.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn known_classic(&self, serial: Serial) -> Result<Option<ClassicDevice>> {
        let sql = format!("SELECT {COLUMNS} FROM classic_devices WHERE serial = ?");
        self.db.query_row(&sql, [serial.to_string()], classic_of).optional().map_err(|e| self.failed(e))
    }

    /// The classic device with a serial.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn classic_device(&self, serial: Serial) -> Result<ClassicDevice> {
        self.known_classic(serial)?.ok_or_else(|| RegistryError::Unknown { what: "device", name: serial.to_string() })
    }

    /// The keys of a classic device.
    ///
    /// # Errors
    /// [`RegistryError::Vault`].
    pub fn classic_keys(&self, vault: &Vault, device: &ClassicDevice) -> Result<ClassicKeys> {
        let sql = "SELECT sealed FROM classic_devices WHERE did = ?";
        let sealed: Vec<u8> = self.db.query_row(sql, [device.did.0], |r| r.get(0)).map_err(|e| self.failed(e))?;
        let name = keys_name(device.did);
        let bytes = vault.open(&name, &sealed)?;
        ClassicKeys::from_bytes(&bytes).ok_or_else(|| VaultError::Damaged { name }.into())
    }

    /// Adds a classic device.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] names what is wrong; [`RegistryError::Vault`].
    pub fn add_classic(&mut self, vault: &Vault, new: &NewClassic, now_unix_s: u64) -> Result<ClassicDevice> {
        let examined = self.examine_classic(std::slice::from_ref(new), now_unix_s, |_| "this one".into())?.pop();
        let device = examined.unwrap_or_else(|| Err("nothing was asked for".into())).or_else(refuse)?;
        self.enter_classic(vault, &[(&device, &new.keys)])?;
        Ok(device)
    }

    /// What classic devices would stand in the book, or why not, in one sentence each: against the book and against one
    /// another. `place` names one of them, as in "line 3".
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn examine_classic(
        &self,
        new: &[NewClassic],
        now_unix_s: u64,
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<std::result::Result<ClassicDevice, String>>> {
        let mut desk = Desk::new(self, new)?;
        new.iter().enumerate().map(|(at, one)| desk.examine(at, one, now_unix_s, &place)).collect()
    }

    /// Enters classic devices that were examined, each with its keys: all of them in one transaction, or none.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when another command entered one of them in between; [`RegistryError::Vault`].
    pub fn enter_classic(&mut self, vault: &Vault, entries: &[(&ClassicDevice, &ClassicKeys)]) -> Result<()> {
        let seal =
            |(device, keys): &(&ClassicDevice, &ClassicKeys)| vault.seal(&keys_name(device.did), &keys.to_bytes());
        let sealed = entries.iter().map(seal).collect::<std::result::Result<Vec<_>, _>>()?;
        let dids: Vec<_> = entries.iter().map(|(device, keys)| (device.did, *keys)).collect();
        let sharers = self.sharers_after(vault, &dids)?;
        let entered = self.change(Done::many("classic devices entered", entries.iter().map(|(d, _)| d.serial)), |tx| {
            entries.iter().zip(&sealed).try_for_each(|((device, _), sealed)| insert(tx, device, sealed).map(drop))?;
            sharers.write(tx)
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

    /// Gives a classic device other keys in place of all that it had.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Refused`] for a revoked device, or keys that are refused as when adding.
    pub fn rekey_classic(
        &mut self,
        vault: &Vault,
        serial: Serial,
        keys: &ClassicKeys,
        words: Option<&str>,
    ) -> Result<ClassicDevice> {
        let device = self.classic_device(serial)?;
        if device.revoked_at.is_some() {
            return refuse(format!("device {serial} is revoked"));
        }
        check_keys(keys, words).or_else(refuse)?;
        let sealed = vault.seal(&keys_name(device.did), &keys.to_bytes())?;
        let [gateway, cloud] = [keys.gateway.as_ref(), keys.cloud.as_ref()].map(|k| k.map(ClassicSecret::kind));
        let sharers = self.sharers_after(vault, &[(device.did, keys)])?;
        self.change(Done::new("keys of a classic device replaced", format_args!("device {serial}")), |tx| {
            sharers.write(tx)?;
            tx.execute(
                "UPDATE classic_devices SET gateway_bits = ?, gateway_weak = ?, cloud_bits = ?, cloud_weak = ?, words = ?, \
                 sealed = ? WHERE did = ?",
                params![bits(gateway), weak(gateway), bits(cloud), weak(cloud), words, sealed, device.did.0],
            )
        })?;
        self.classic_device(serial)
    }

    /// Gives a classic device another node id, as the operator set it on the node.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Refused`].
    pub fn rename_classic(&mut self, serial: Serial, node_id: &str) -> Result<ClassicDevice> {
        let device = self.classic_device(serial)?;
        check_node_id(node_id).or_else(refuse)?;
        self.change(Done::new("classic device renamed", format_args!("device {serial}")), |tx| {
            tx.execute("UPDATE classic_devices SET node_id = ? WHERE did = ?", params![node_id, device.did.0])
        })?;
        self.classic_device(serial)
    }

    /// Revokes a classic device: what comes under its serial is a stranger's from now on.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_classic(&mut self, serial: Serial, now_unix_s: u64) -> Result<ClassicDevice> {
        let device = self.classic_device(serial)?;
        let sql = "UPDATE classic_devices SET revoked_at = coalesce(revoked_at, ?) WHERE did = ?";
        self.change(Done::new("classic device revoked", format_args!("device {serial}")), |tx| {
            signers::revoke(tx, device.did, now_unix_s)?;
            tx.execute(sql, params![now_unix_s as i64, device.did.0])
        })?;
        self.classic_device(serial)
    }
}

/// Whether a key with this weakness needs the operator's words. Printable text is what nodes take: it is named, no more.
pub const fn is_refused(weak: Weak) -> bool {
    !matches!(weak, Weak::Printable)
}

fn check_keys(keys: &ClassicKeys, words: Option<&str>) -> std::result::Result<(), String> {
    for (whom, key) in [("gateway", &keys.gateway), ("cloud", &keys.cloud)] {
        if let Some(weak) = key.as_ref().and_then(ClassicSecret::weakness).filter(|w| is_refused(*w))
            && words.is_none_or(|w| w.len() < 8)
        {
            return Err(format!(
                "its {whom} key is weak (CL-13): {weak}. Give the node another one; if it must stay, say so: \
                 --danger-weak-key \"WORDS\""
            ));
        }
    }
    match (&keys.gateway, &keys.cloud) {
        (Some(gateway), Some(cloud)) if gateway.bytes() == cloud.bytes() => {
            Err("its two keys are one: a gateway that has it \
             opens what is sealed for the cloud (AR-05); leave out the gateway's"
                .into())
        }
        _ => Ok(()),
    }
}

fn check_node_id(node_id: &str) -> std::result::Result<(), String> {
    if node_id.len() > NODE_ID || node_id.is_empty() || node_id.bytes().any(|b| b == b'#' || !b.is_ascii_graphic()) {
        return Err(format!(
            "node id: 1 to {NODE_ID} visible ASCII characters without # and blanks, as the node sends them"
        ));
    }
    Ok(())
}

fn bits(key: Option<ClassicKeyKind>) -> Option<u16> {
    key.map(|k| k.bits.bits())
}

fn weak(key: Option<ClassicKeyKind>) -> Option<&'static str> {
    key.and_then(|k| k.weakness).map(Weak::as_str)
}

fn insert(tx: &Transaction<'_>, d: &ClassicDevice, sealed: &[u8]) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO classic_devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)";
    tx.prepare_cached(sql)?.execute(params![
        d.did.0,
        d.sid.0,
        d.net.0,
        d.serial.to_string(),
        d.node_id,
        d.table.map(Table::as_str),
        d.dev_eui.map(|eui| eui.0),
        d.profile == ClassicProfile::Hardened,
        bits(d.gateway_key),
        weak(d.gateway_key),
        bits(d.cloud_key),
        weak(d.cloud_key),
        d.words,
        sealed,
        d.added_at as i64,
    ])
}

fn classic_of(row: &Row<'_>) -> rusqlite::Result<ClassicDevice> {
    let wrong = || rusqlite::Error::InvalidQuery;
    let serial: String = row.get(3)?;
    let table: Option<String> = row.get(5)?;
    let key = |bits: Option<u16>, weak: Option<String>| -> rusqlite::Result<Option<ClassicKeyKind>> {
        let Some(bits) = bits else { return Ok(None) };
        let known = [Weak::Zero, Weak::Dictionary, Weak::Short, Weak::Printable];
        let weakness = weak.map(|w| known.into_iter().find(|k| k.as_str() == w).ok_or_else(wrong)).transpose()?;
        Ok(Some(ClassicKeyKind { bits: KeyBits::from_bits(bits).ok_or_else(wrong)?, weakness }))
    };
    Ok(ClassicDevice {
        did: Did(row.get(0)?),
        sid: Sid(row.get(1)?),
        net: Net(row.get(2)?),
        serial: serial.parse().map_err(|_| wrong())?,
        node_id: row.get(4)?,
        table: table.map(|t| Table::from_word(&t).ok_or_else(wrong)).transpose()?,
        dev_eui: row.get::<_, Option<[u8; 8]>>(6)?.map(Did),
        profile: if row.get(7)? { ClassicProfile::Hardened } else { ClassicProfile::Classic },
        gateway_key: key(row.get(8)?, row.get(9)?)?,
        cloud_key: key(row.get(10)?, row.get(11)?)?,
        words: row.get(12)?,
        added_at: hidden(row.get(13)?),
        revoked_at: row.get::<_, Option<i64>>(14)?.map(hidden),
    })
}
