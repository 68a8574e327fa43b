//! Signing keys of hardened classic nodes (docs/protocol.md 13.4): RSA, made by the computer that flashes the node.

use fivefold_core::id::Did;
use fivefold_core::proof::{SignAlg, Verify as _};
use fivefold_waspmote::Serial;
use rusqlite::{Transaction, params};

use super::super::deeds::Done;
use super::super::signers::{Replaces, Signer, signer_of};
use super::super::{Registry, RegistryError, Result};
use super::ClassicProfile;
use crate::sign::VerifyingKey;

const COLUMNS: &str = "SELECT did, spki, origin, chain, not_after, certified_at, revoked_at FROM classic_signing_keys";

impl Registry {
    /// All signing keys of classic nodes, revoked ones too, by device, the oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn classic_signers(&self) -> Result<Vec<Signer>> {
        self.all(&format!("{COLUMNS} ORDER BY did, certified_at, rowid"), signer_of)
    }

    /// The signing key of a classic node that is in force.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn classic_signer(&self, did: Did) -> Result<Option<Signer>> {
        Ok(self.classic_signers()?.into_iter().find(|s| s.did == did && s.revoked_at.is_none()))
    }

    /// Why a classic node gets no signing key, in one sentence; `None` if it may have one.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Database`].
    pub fn examine_classic_signer(&self, serial: Serial, replaces: Replaces) -> Result<Option<String>> {
        let device = self.classic_device(serial)?;
        Ok(if device.revoked_at.is_some() {
            Some(format!("device {serial} is revoked: nothing of it is certified any more"))
        } else if device.profile != ClassicProfile::Hardened {
            Some(format!(
                "device {serial} is not hardened, and nothing proves what it sends: fivefold device harden {serial} comes first"
            ))
        } else if replaces == Replaces::Nothing && self.classic_signer(device.did)?.is_some() {
            Some(format!(
                "device {serial} has another signing key in force; if this one takes its place, add --replace"
            ))
        } else {
            None
        })
    }

    /// Enters the signing key of a hardened node. The one in force before is revoked in this moment.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for a key that is not RSA in its one form, and as
    /// [`examine_classic_signer`](Self::examine_classic_signer) says.
    pub fn enter_classic_signer(&mut self, serial: Serial, signer: &Signer, replaces: Replaces) -> Result<()> {
        let did = self.classic_device(serial)?.did;
        let is_rsa = VerifyingKey::of_device(&signer.spki).is_ok_and(|key| key.alg() == SignAlg::Ps256);
        let other = self.classic_signers()?.into_iter().any(|s| s.spki == signer.spki);
        let why = match self.examine_classic_signer(serial, replaces)? {
            None if !is_rsa || signer.did != did => Some(format!(
                "the signing key of device {serial} is no RSA key of 2048, 3072 or 4096 bits with the exponent 65537"
            )),
            None if other => {
                Some(format!("the signing key of device {serial} is in the book already: make another one (AR-07)"))
            }
            why => why,
        };
        if let Some(why) = why {
            return Err(RegistryError::Refused(why));
        }
        self.change(
            Done::new("signing key entered", format_args!("device {serial}, key {}", hex::encode(signer.name().0))),
            |tx| {
                revoke(tx, did, signer.certified_at)?;
                tx.execute(
                    "INSERT INTO classic_signing_keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                    params![
                        signer.name().0,
                        did.0,
                        signer.spki,
                        signer.origin.wire(),
                        signer.chain,
                        signer.not_after as i64,
                        signer.certified_at as i64
                    ],
                )
            },
        )?;
        Ok(())
    }

    /// Revokes the signing key of a classic node, and nothing else of it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] when it has none in force.
    pub fn revoke_classic_signer(&mut self, serial: Serial, now_unix_s: u64) -> Result<Signer> {
        let did = self.classic_device(serial)?.did;
        let Some(mut signer) = self.classic_signer(did)? else {
            return Err(RegistryError::Refused(format!("device {serial} has no signing key in force")));
        };
        self.change(
            Done::new("signing key revoked", format_args!("device {serial}, key {}", hex::encode(signer.name().0))),
            |tx| revoke(tx, did, now_unix_s),
        )?;
        signer.revoked_at = Some(now_unix_s);
        Ok(signer)
    }
}

/// Revokes what a node has in force.
pub(super) fn revoke(tx: &Transaction<'_>, did: Did, now_unix_s: u64) -> rusqlite::Result<usize> {
    let sql = "UPDATE classic_signing_keys SET revoked_at = ? WHERE did = ? AND revoked_at IS NULL";
    tx.execute(sql, params![now_unix_s as i64, did.0])
}
