//! Signing keys of devices in the operator's book (docs/protocol.md 3, 13.1): whose each is, since when, and until when.
//!
//! A row stays for ever: evidence of years ago is checked by a key that was replaced long since. Of one device at most one
//! key is not revoked.

use fivefold_core::id::{Did, Net};
use fivefold_core::profile::Policy;
use fivefold_core::proof::KeyName;
use fivefold_core::proof::possession::SigningPublic;
use fivefold_core::suite::agreement::PublicX;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::deeds::Done;
use super::{Device, Registry, RegistryError, Result, hidden};
use crate::ca::{Certified, chain_der};
use crate::imported;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS signing_keys (      -- of devices; only grows
    name         BLOB PRIMARY KEY,         -- the first 8 bytes of SHA-256 of the SubjectPublicKeyInfo
    did          BLOB NOT NULL REFERENCES devices,
    x            BLOB NOT NULL UNIQUE,     -- of the key, or y of Ed25519: no two devices share one (AR-07)
    spki         BLOB NOT NULL,            -- SubjectPublicKeyInfo, DER
    origin       INTEGER NOT NULL,         -- 0 not known, 1 made on the device, 2 in a secure element, 3 made elsewhere
    chain        TEXT NOT NULL,            -- its certificate, PEM
    not_after    INTEGER NOT NULL,
    certified_at INTEGER NOT NULL,
    revoked_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS signing_key_in_force ON signing_keys (did) WHERE revoked_at IS NULL;
CREATE TABLE IF NOT EXISTS network_signing (   -- networks whose devices sign, unless one is told otherwise
    net          INTEGER PRIMARY KEY REFERENCES networks,
    batch        INTEGER NOT NULL          -- N_batch
) STRICT;";

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// Where a signing key was made, as far as the operator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyOrigin {
    /// Nobody said.
    Unknown,
    /// On the device, which proved that it has it.
    Device,
    /// In a secure element, as the operator says.
    SecureElement,
    /// Elsewhere: whoever made it may have kept it (AR-26).
    Elsewhere,
}

impl KeyOrigin {
    /// All, in the order of their numbers 0 to 3.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Device, Self::SecureElement, Self::Elsewhere];

    /// Its number in the log's entry of enrolment.
    pub const fn wire(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Device => 1,
            Self::SecureElement => 2,
            Self::Elsewhere => 3,
        }
    }

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::Device => "made on the device",
            Self::SecureElement => "in a secure element, as the operator says",
            Self::Elsewhere => "made elsewhere",
        }
    }
}

/// The signing key of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Whose.
    pub did: Did,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Where it was made.
    pub origin: KeyOrigin,
    /// Its certificate, PEM; the root, which every verifier has, does not stand in it.
    pub chain: String,
    /// When the certificate ends, Unix seconds.
    pub not_after: u64,
    /// When the key was certified first, Unix seconds.
    pub certified_at: u64,
    /// When it was revoked or replaced, Unix seconds.
    pub revoked_at: Option<u64>,
}

impl Signer {
    /// A key that was certified just now.
    pub fn new(did: Did, key: &SigningPublic, origin: KeyOrigin, certified: &Certified, now_unix_s: u64) -> Self {
        Self::of_spki(did, &key.spki(), origin, certified, now_unix_s)
    }

    /// The same of a classic node's RSA key, by its SubjectPublicKeyInfo (DER).
    pub fn of_spki(did: Did, spki: &[u8], origin: KeyOrigin, certified: &Certified, now_unix_s: u64) -> Self {
        Self {
            did,
            spki: spki.to_vec(),
            origin,
            chain: certified.chain.clone(),
            not_after: certified.not_after,
            certified_at: now_unix_s,
            revoked_at: None,
        }
    }

    /// What names it in a COSE header.
    pub fn name(&self) -> KeyName {
        KeyName::of(&self.spki)
    }

    /// Its certificates as DER, its own first.
    pub fn chain_der(&self) -> Vec<Vec<u8>> {
        chain_der(&self.chain)
    }

    fn coordinate(&self) -> PublicX {
        SigningPublic::from_spki(&self.spki).map_or(PublicX([0; 32]), |key| key.coordinate())
    }
}

/// Whether a key may take the place of the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// It may: the one before is revoked in the same moment.
    TheOneInForce,
    /// It may not.
    Nothing,
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(RegistryError::Refused(text.into()))
}

impl Registry {
    /// All signing keys, revoked ones too, by device, the oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn signers(&self) -> Result<Vec<Signer>> {
        self.all(&format!("{COLUMNS} ORDER BY did, certified_at, rowid"), signer_of)
    }

    /// The signing keys of a device, the oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn signers_of(&self, did: Did) -> Result<Vec<Signer>> {
        let read = || {
            let mut query = self.db.prepare_cached(&format!("{COLUMNS} WHERE did = ? ORDER BY certified_at, rowid"))?;
            query.query_map([did.0], signer_of)?.collect::<rusqlite::Result<Vec<Signer>>>()
        };
        read().map_err(|e| self.failed(e))
    }

    /// The signing key of a device that is in force.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn signer(&self, did: Did) -> Result<Option<Signer>> {
        Ok(self.signers_of(did)?.into_iter().find(|s| s.revoked_at.is_none()))
    }

    /// Why a device must not sign with this key, in one sentence; `None` if it may. `dh` is its key of key agreement, and
    /// `replaces` whether its key in force gives way.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn examine_signing_key(
        &self,
        did: Did,
        dh: Option<PublicX>,
        key: &SigningPublic,
        replaces: Replaces,
    ) -> Result<Option<String>> {
        if dh == Some(key.coordinate()) {
            return Ok(Some(format!(
                "the signing key of device {did} is its DH key: a key has one use; let the device make another one (AR-26)"
            )));
        }
        if let Err(refused) = imported::examine_signing(key, did) {
            return Ok(Some(format!("the signing key of device {did}: {refused}")));
        }
        let dh_of = "SELECT did FROM renewals WHERE x = ?";
        if let Some(other) = self.one(dh_of, key.coordinate())? {
            return Ok(Some(if other == did {
                format!(
                    "the signing key of device {did} is its DH key: a key has one use; let it make another one (AR-26)"
                )
            } else {
                format!(
                    "the signing key of device {did} is the DH key of device {other}: every device needs its own (AR-07)"
                )
            }));
        }
        let receipts = "SELECT count(*) FROM certificates WHERE receipts = ?";
        let of_gateway: i64 =
            self.db.query_row(receipts, [&key.spki()[..]], |r| r.get(0)).map_err(|e| self.failed(e))?;
        if of_gateway > 0 {
            return Ok(Some(format!(
                "the signing key of device {did} is a gateway's key for receipts: every party needs its own (AR-07)"
            )));
        }
        let of = self.signer_with(key.coordinate())?;
        Ok(match (of, self.signer(did)?) {
            (Some(known), _) if known.did != did => {
                Some(format!("device {} has this signing key already: every device needs its own (AR-07)", known.did))
            }
            (Some(Signer { revoked_at: Some(_), .. }), _) => Some(format!(
                "this signing key of device {did} was revoked or replaced, and counts for nothing any more; let it make a new \
                 one: fivefold node signing-request --new"
            )),
            (Some(_), _) => None,
            (None, Some(_)) if replaces == Replaces::Nothing => Some(format!(
                "device {did} has another signing key in force; if this one takes its place, add --replace"
            )),
            (None, _) => None,
        })
    }

    /// Whose signing key has this coordinate.
    fn signer_with(&self, x: PublicX) -> Result<Option<Signer>> {
        let sql = format!("{COLUMNS} WHERE x = ?");
        self.db.query_row(&sql, [x.0], signer_of).optional().map_err(|e| self.failed(e))
    }

    fn one(&self, sql: &str, x: PublicX) -> Result<Option<Did>> {
        self.db.query_row(sql, [x.0], |r| r.get(0).map(Did)).optional().map_err(|e| self.failed(e))
    }

    /// Whose signing key is this DH key.
    pub(super) fn signs_with(&self, x: PublicX) -> Result<Option<Did>> {
        Ok(self.signer_with(x)?.map(|s| s.did))
    }

    /// Enters the signing key of a device that is in the book, and was examined. The same key again gets the newer
    /// certificate.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for a revoked device, and where
    /// [`examine_signing_key`](Self::examine_signing_key) has something against it.
    pub fn enter_signer(&mut self, signer: &Signer, replaces: Replaces) -> Result<Signer> {
        let did = signer.did;
        if self.device(did)?.revoked_at.is_some() {
            return refuse(format!("device {did} is revoked: nothing of it is certified any more"));
        }
        let dh = self.renewal(did)?.map(|r| r.x);
        let Some(key) = SigningPublic::from_spki(&signer.spki) else {
            return refuse(format!("the signing key of device {did} is neither of P-256 nor of Ed25519"));
        };
        if let Some(why) = self.examine_signing_key(did, dh, &key, replaces)? {
            return refuse(why);
        }
        self.change(
            Done::new("signing key entered", format_args!("device {did}, key {}", hex::encode(signer.name().0))),
            |tx| enter(tx, signer),
        )?;
        self.signer(did)?.ok_or_else(|| RegistryError::Unknown { what: "device", name: did.to_string() })
    }

    /// Revokes the signing key of a device, and nothing else of it: what it signed and witnesses saw before this second stays
    /// proven.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] when it has none in force.
    pub fn revoke_signer(&mut self, did: Did, now_unix_s: u64) -> Result<Signer> {
        self.device(did)?;
        let Some(mut signer) = self.signer(did)? else {
            return refuse(format!("device {did} has no signing key in force; see: fivefold device show {did}"));
        };
        self.change(
            Done::new("signing key revoked", format_args!("device {did}, key {}", hex::encode(signer.name().0))),
            |tx| revoke(tx, did, now_unix_s),
        )?;
        signer.revoked_at = Some(now_unix_s);
        Ok(signer)
    }

    // What networks demand.

    /// Lets devices that are added to a network from now on sign in batches of `batch`; `None`: not sign.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn set_network_signing(&mut self, network: &str, batch: Option<u8>) -> Result<()> {
        let net = self.network(network)?.net;
        self.change(Done::new("signing of a network set", format_args!("network {network}")), |tx| match batch {
            Some(batch) => tx.execute("INSERT OR REPLACE INTO network_signing VALUES (?, ?)", params![net.0, batch]),
            None => tx.execute("DELETE FROM network_signing WHERE net = ?", [net.0]),
        })?;
        Ok(())
    }

    /// N_batch of devices that are added to a network, if they sign.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn network_signing(&self, net: Net) -> Result<Option<u8>> {
        let sql = "SELECT batch FROM network_signing WHERE net = ?";
        self.db.query_row(sql, [net.0], |r| r.get(0)).optional().map_err(|e| self.failed(e))
    }

    /// Gives a device another policy record. At the device it has to be changed as well.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Refused`] for a record that is not allowed, and a revoked device.
    pub fn set_policy(&mut self, did: Did, policy: Policy) -> Result<Device> {
        let device = self.device(did)?;
        if device.revoked_at.is_some() {
            return refuse(format!("device {did} is revoked; nothing of it is changed any more"));
        }
        if let Err(broken) = policy.validate(device.overrides) {
            return refuse(broken.reason);
        }
        let mut bytes = [0; Policy::LONGEST];
        let len = policy.emit(&mut bytes).unwrap_or(0);
        let sql = "UPDATE devices SET policy = ? WHERE did = ?";
        self.change(Done::new("policy set", format_args!("device {did}")), |tx| {
            tx.execute(sql, params![bytes.get(..len), did.0])
        })?;
        self.device(did)
    }
}

/// Enters a key that was examined; the one in force before is revoked. The same key stays, with the newer certificate.
pub(super) fn enter(tx: &Transaction<'_>, signer: &Signer) -> rusqlite::Result<()> {
    let (did, name) = (signer.did.0, signer.name().0);
    let now = signer.certified_at as i64;
    tx.prepare_cached("UPDATE signing_keys SET revoked_at = ?1 WHERE did = ?2 AND name <> ?3 AND revoked_at IS NULL")?
        .execute(params![now, did, name])?;
    let sql = "INSERT INTO signing_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)
               ON CONFLICT (name) DO UPDATE SET chain = ?6, not_after = ?7, origin = ?5 WHERE revoked_at IS NULL AND did = ?2";
    let changed = tx.prepare_cached(sql)?.execute(params![
        name,
        did,
        signer.coordinate().0,
        signer.spki,
        signer.origin.wire(),
        signer.chain,
        signer.not_after as i64,
        now
    ])?;
    // Somebody entered the same key meanwhile, for another device.
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

/// Revokes what a device has in force.
pub(super) fn revoke(tx: &Transaction<'_>, did: Did, now_unix_s: u64) -> rusqlite::Result<usize> {
    let sql = "UPDATE signing_keys SET revoked_at = ? WHERE did = ? AND revoked_at IS NULL";
    tx.execute(sql, params![now_unix_s as i64, did.0])
}

const COLUMNS: &str = "SELECT did, spki, origin, chain, not_after, certified_at, revoked_at FROM signing_keys";

pub(super) fn signer_of(row: &Row<'_>) -> rusqlite::Result<Signer> {
    let origin: u8 = row.get(2)?;
    Ok(Signer {
        did: Did(row.get(0)?),
        spki: row.get(1)?,
        origin: KeyOrigin::ALL.into_iter().find(|o| o.wire() == origin).ok_or(rusqlite::Error::InvalidQuery)?,
        chain: row.get(3)?,
        not_after: hidden(row.get(4)?),
        certified_at: hidden(row.get(5)?),
        revoked_at: row.get::<_, Option<i64>>(6)?.map(hidden),
    })
}
