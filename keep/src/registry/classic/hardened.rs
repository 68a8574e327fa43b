//! Keys of the hardened profile (docs/protocol.md 12.4). Those that are brought to a classic device by hand are drawn here, once
//! for each epoch, and flashed with the sketch.

use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_waspmote::Serial;
use rusqlite::params;
use zeroize::Zeroizing;

use super::super::deeds::Done;
use super::super::{Registry, RegistryError, Result};
use super::ClassicDevice;
use crate::vault::{Vault, VaultError, random};

/// Who holds the other copy of a key, and opens what is sealed under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardenedHolder {
    /// The cloud.
    Cloud,
    /// One gateway. No other one gets the key: it would answer frames under nonces that this one has used.
    Gateway(GatewayId),
}

impl HardenedHolder {
    /// The level of docs/protocol.md 12: 2 or 3.
    pub(super) const fn level(self) -> u8 {
        match self {
            Self::Gateway(_) => 2,
            Self::Cloud => 3,
        }
    }

    pub(super) const fn gateway(self) -> Option<u32> {
        match self {
            Self::Gateway(gateway) => Some(gateway.0),
            Self::Cloud => None,
        }
    }
}

/// A key of the hardened profile. Wiped when dropped, never printed.
pub struct HardenedKey {
    /// Its generation.
    pub epoch: u32,
    /// The key, AES-256.
    pub key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for HardenedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HardenedKey({})", self.epoch)
    }
}

pub(in super::super) fn hardened_name(did: Did, level: u8, epoch: u32) -> String {
    format!("hardened key {did} {level} {epoch}")
}

pub(super) fn no_primary(net: Net) -> String {
    format!("network {net} has no primary gateway that could hold the other copy: add one with fivefold gateway add")
}

impl Registry {
    /// Draws a key for a classic device and the primary gateway of its network, under the next epoch. From now on only its
    /// hardened frames count.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for v12 and revoked devices, and where there is no primary
    /// gateway; [`RegistryError::Vault`].
    pub fn harden_classic(
        &mut self,
        vault: &Vault,
        serial: Serial,
        now_unix_s: u64,
    ) -> Result<(ClassicDevice, HardenedKey)> {
        let device = self.hardenable(serial)?;
        let Some(primary) = self.primary_of(device.net)? else {
            return Err(RegistryError::Refused(no_primary(device.net)));
        };
        self.draw_hardened(vault, &device, HardenedHolder::Gateway(primary), now_unix_s)
    }

    /// Draws a key for a classic device and the cloud, under the next epoch. From now on only its hardened frames count.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for v12 and revoked devices; [`RegistryError::Vault`].
    pub fn harden_classic_to_cloud(
        &mut self,
        vault: &Vault,
        serial: Serial,
        now_unix_s: u64,
    ) -> Result<(ClassicDevice, HardenedKey)> {
        let device = self.hardenable(serial)?;
        self.draw_hardened(vault, &device, HardenedHolder::Cloud, now_unix_s)
    }

    pub(super) fn hardenable(&self, serial: Serial) -> Result<ClassicDevice> {
        let device = self.classic_device(serial)?;
        let refused = match serial {
            _ if device.revoked_at.is_some() => Some(format!("device {serial} is revoked")),
            Serial::V12(_) => Some(format!("device {serial} is v12, which has no room for the profile: it takes v15")),
            Serial::V15(_) => None,
        };
        refused.map_or(Ok(device), |why| Err(RegistryError::Refused(why)))
    }

    fn draw_hardened(
        &mut self,
        vault: &Vault,
        device: &ClassicDevice,
        holder: HardenedHolder,
        now_unix_s: u64,
    ) -> Result<(ClassicDevice, HardenedKey)> {
        let sql = "SELECT coalesce(max(epoch), 0) FROM classic_hardened WHERE did = ? AND level = ?";
        let last: u32 =
            self.db.query_row(sql, params![device.did.0, holder.level()], |r| r.get(0)).map_err(|e| self.failed(e))?;
        let epoch =
            last.checked_add(1).ok_or_else(|| RegistryError::Refused("this device has used all epochs".into()))?;
        let key = HardenedKey { epoch, key: random::<32>()? };
        let sealed = vault.seal(&hardened_name(device.did, holder.level(), epoch), key.key.as_slice())?;
        self.change(
            Done::new("hardened key drawn", format_args!("device {}, level {}", device.serial, holder.level())),
            |tx| {
                tx.execute(
                    "INSERT INTO classic_hardened VALUES (?, ?, ?, ?, ?, ?)",
                    params![device.did.0, holder.level(), epoch, holder.gateway(), sealed, now_unix_s as i64],
                )?;
                tx.execute("UPDATE classic_devices SET is_hardened = 1 WHERE did = ?", [device.did.0])
            },
        )?;
        Ok((self.classic_device(device.serial)?, key))
    }

    /// The gateways that hold keys of a classic device in the hardened profile: the primary one, and those that were it when a key was
    /// drawn.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn hardened_holders(&self, did: Did) -> Result<Vec<GatewayId>> {
        let read = || {
            let sql = "SELECT DISTINCT gw FROM classic_hardened WHERE did = ? AND gw IS NOT NULL ORDER BY gw";
            self.db
                .prepare_cached(sql)?
                .query_map([did.0], |r| r.get(0).map(GatewayId))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|e| self.failed(e))
    }

    /// The keys of a classic device in the hardened profile that somebody holds, by epoch: `most` of them, the one in
    /// use and the newest.
    ///
    /// # Errors
    /// [`RegistryError::Vault`].
    pub fn hardened_keys(
        &self,
        vault: &Vault,
        device: &ClassicDevice,
        holder: HardenedHolder,
        most: usize,
    ) -> Result<Vec<HardenedKey>> {
        let epochs = self.standing_epochs(device.did, holder, most)?;
        let sql = "SELECT sealed FROM classic_hardened WHERE did = ? AND level = ? AND epoch = ?";
        let mut keys = Vec::with_capacity(epochs.len());
        for epoch in epochs {
            let row = params![device.did.0, holder.level(), epoch];
            let sealed: Vec<u8> = self.db.query_row(sql, row, |r| r.get(0)).map_err(|e| self.failed(e))?;
            let name = hardened_name(device.did, holder.level(), epoch);
            let opened = vault.open(&name, &sealed)?;
            let key: [u8; 32] = opened.as_slice().try_into().map_err(|_| VaultError::Damaged { name })?;
            keys.push(HardenedKey { epoch, key: Zeroizing::new(key) });
        }
        Ok(keys)
    }
}
