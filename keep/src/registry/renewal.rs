//! What the book knows of renewal by EDHOC (docs/protocol.md 11): the cloud's key, each device's public one, and the greatest
//! epoch of each, so that none is ever used twice.

use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::id::{Did, Epoch, Net};
use fivefold_core::profile::{Mode, Policy, Profile};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use zeroize::Zeroizing;

use super::deeds::Done;
use super::{Registry, RegistryError, Result, hidden};
use crate::sign::AgreementKey;
use crate::vault::{Vault, VaultError, random};

/// The tables, which an older book gets when it is opened for changes.
pub(super) const SCHEMA: &str = include_str!("renewal.sql");

/// Where a device has its first contexts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstContexts {
    /// It agrees them with the cloud: its share holds none.
    Agreed,
    /// They stand in its share.
    Installed,
}

/// What a device needs in the book to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// Its public DH key.
    pub x: PublicX,
    /// Where its first contexts are from.
    pub first: FirstContexts,
}

/// A device that can renew, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Which.
    pub did: Did,
    /// Its public DH key.
    pub x: PublicX,
    /// Where its contexts of the device's own epoch in this book are from.
    pub first: FirstContexts,
    /// No epoch up to this one is agreed any more.
    pub highest: Epoch,
    /// When that one was agreed, Unix seconds; `None` if it was installed.
    pub agreed_at: Option<u64>,
    /// When the operator ordered it to renew, Unix seconds.
    pub ordered_at: Option<u64>,
}

impl Renewal {
    /// The end of the second in which the operator ordered it to renew: only what is agreed later fulfils the order. An order
    /// in the second of an agreement may have come after it.
    pub fn ordered_until(&self) -> Option<Millis> {
        self.ordered_at.map(|s| Millis(s.saturating_mul(1000).saturating_add(999)))
    }
}

/// The cloud's key for EDHOC. Its scalar is wiped when dropped and never printed.
pub struct CloudIdentity {
    /// What names it.
    pub kid: PeerKid,
    /// The key.
    pub key: AgreementKey,
}

impl std::fmt::Debug for CloudIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CloudIdentity({:02x}, {})", self.kid.value(), self.key.public_x())
    }
}

/// Which devices the operator orders to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// All that can.
    All,
    /// One.
    Device(Did),
    /// Those of a network.
    Network(Net),
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(RegistryError::Refused(text.into()))
}

/// Whether a device with this record renews by EDHOC.
pub fn can_renew(policy: &Policy) -> bool {
    policy.mode == Mode::Persistent && policy.profile != Profile::DangerLinkOnly
}

pub(super) fn cloud_key_name(kid: u8) -> String {
    format!("cloud key {kid:02x}")
}

/// Draws a key for key agreement, and its scalar to be sealed and kept.
///
/// # Errors
/// [`VaultError::Random`].
pub fn draw_key() -> std::result::Result<(AgreementKey, Zeroizing<[u8; 32]>), VaultError> {
    loop {
        let scalar = random::<32>()?;
        // All but one of 2^32 are a key.
        if let Some(key) = AgreementKey::from_random(&scalar) {
            return Ok((key, scalar));
        }
    }
}

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

impl Registry {
    /// The cloud's key for EDHOC; made now, if this book never had one.
    ///
    /// # Errors
    /// [`RegistryError::Vault`], [`RegistryError::Database`].
    pub fn cloud_identity(&mut self, vault: &Vault) -> Result<CloudIdentity> {
        if let Some(identity) = self.known_cloud_identity(vault)? {
            return Ok(identity);
        }
        let (_, scalar) = draw_key()?;
        let sealed = vault.seal(&cloud_key_name(0), scalar.as_slice())?;
        // Another process may have made one at the same time: then that one counts.
        self.change(Done::new("cloud's key for renewal made", "key 0"), |tx| {
            tx.execute("INSERT INTO cloud_keys VALUES (0, ?) ON CONFLICT DO NOTHING", [sealed])
        })?;
        self.known_cloud_identity(vault)?.ok_or_else(|| VaultError::Damaged { name: cloud_key_name(0) }.into())
    }

    fn known_cloud_identity(&self, vault: &Vault) -> Result<Option<CloudIdentity>> {
        let sql = "SELECT kid, sealed FROM cloud_keys ORDER BY kid DESC LIMIT 1";
        let row = self.db.query_row(sql, [], |r| Ok((r.get::<_, u8>(0)?, r.get::<_, Vec<u8>>(1)?))).optional();
        let Some((kid, sealed)) = row.map_err(|e| self.failed(e))? else { return Ok(None) };
        let name = cloud_key_name(kid);
        let scalar = vault.open(&name, &sealed)?;
        let key = scalar.as_slice().try_into().ok().and_then(AgreementKey::from_random);
        match (PeerKid::new(kid), key) {
            (Some(kid), Some(key)) => Ok(Some(CloudIdentity { kid, key })),
            _ => Err(VaultError::Damaged { name }.into()),
        }
    }

    /// All devices that can renew.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn renewals(&self) -> Result<Vec<Renewal>> {
        self.all("SELECT did, x, installed, highest, agreed_at, ordered_at FROM renewals ORDER BY did", renewal_of)
    }

    /// Those of one network.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn renewals_of(&self, net: Net) -> Result<Vec<Renewal>> {
        let sql = "SELECT r.did, r.x, r.installed, r.highest, r.agreed_at, r.ordered_at FROM devices d JOIN renewals r ON r.did = d.did
                   WHERE d.net = ?";
        self.all_of(sql, [net.0], renewal_of)
    }

    /// How far a device is, if it can renew.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn renewal(&self, did: Did) -> Result<Option<Renewal>> {
        let sql = "SELECT did, x, installed, highest, agreed_at, ordered_at FROM renewals WHERE did = ?";
        self.db.query_row(sql, [did.0], renewal_of).optional().map_err(|e| self.failed(e))
    }

    /// Orders devices to renew: each is told in its next answers, until it has done so. Returns how many.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when there is none that can.
    pub fn order_renewal(&mut self, whom: Whom, now_unix_s: u64) -> Result<usize> {
        let of = "UPDATE renewals SET ordered_at = ?1 WHERE did IN (SELECT did FROM devices WHERE revoked_at IS NULL AND \
                  net NOT IN (SELECT net FROM local_networks)";
        let now = now_unix_s as i64;
        if let Whom::Device(did) = whom {
            let device = self.device(did)?;
            if device.revoked_at.is_some() {
                return refuse(format!("device {did} is revoked; nothing is agreed with it any more"));
            }
            if self.local(device.net)?.is_some() {
                return refuse(format!(
                    "device {did} agrees its keys with its gateway alone, which tells it by itself when they are old"
                ));
            }
        }
        let to = match whom {
            Whom::All => "all devices".to_owned(),
            Whom::Device(did) => format!("device {did}"),
            Whom::Network(net) => format!("network {net}"),
        };
        let ordered = self.change(Done::new("renewal ordered", to), |tx| match whom {
            Whom::All => tx.execute(&format!("{of})"), [now]),
            Whom::Device(did) => tx.execute(&format!("{of} AND did = ?2)"), params![now, did.0]),
            Whom::Network(net) => tx.execute(&format!("{of} AND net = ?2)"), params![now, net.0]),
        })?;
        match (ordered, whom) {
            (0, Whom::Device(did)) => refuse(format!(
                "device {did} has no key for renewal (its share is of an earlier version, or its mode is R); give it one \
                 with: fivefold device enrol-again {did}"
            )),
            (0, _) => refuse("none of these devices has a key for renewal; see: fivefold device list"),
            (n, _) => Ok(n),
        }
    }

    /// Takes note that epochs were agreed, in one transaction and before anything else of them is durable; for the cloud.
    /// Says of each whether it is greater than all before it. Gateways are not told: this makes no version. Devices do this by
    /// themselves, so that it is nobody's deed.
    ///
    /// # Errors
    /// [`RegistryError::Database`]: then none of them may be used.
    pub fn note_agreed(&mut self, agreed: &[(Did, Epoch)], now_unix_s: u64) -> Result<Vec<bool>> {
        let sql = "UPDATE renewals SET highest = ?2, agreed_at = ?3 WHERE did = ?1 AND highest < ?2";
        let greater = self.written(|tx| {
            let note = |(did, epoch): &(Did, Epoch)| {
                tx.prepare_cached(sql)?.execute(params![did.0, epoch.0, now_unix_s as i64]).map(|n| n == 1)
            };
            agreed.iter().map(note).collect::<rusqlite::Result<Vec<bool>>>().map(Some)
        });
        Ok(greater.map_err(|e| self.failed(e))?.unwrap_or_default())
    }

    /// Whether this key is nobody else's.
    pub(super) fn check_key(&self, did: Did, policy: &Policy, key: &DeviceKey) -> Result<()> {
        if !can_renew(policy) {
            return refuse(format!("device {did} cannot renew: that takes mode P and E2 or E3"));
        }
        match self.key_of_another(did, key)? {
            Some(other) => {
                refuse(format!("device {other} has this DH key already: every device needs its own (AR-07)"))
            }
            None => match self.signs_with(key.x)? {
                Some(signer) => refuse(signs(signer)),
                None => Ok(()),
            },
        }
    }

    /// Which other device has this key.
    pub(super) fn key_of_another(&self, did: Did, key: &DeviceKey) -> Result<Option<Did>> {
        let look = || {
            let mut query = self.db.prepare_cached("SELECT did FROM renewals WHERE x = ? AND did <> ?")?;
            query.query_row(params![key.x.0, did.0], |r| r.get(0).map(Did)).optional()
        };
        look().map_err(|e| self.failed(e))
    }
}

/// Why a DH key is refused that a device signs with.
pub(super) fn signs(did: Did) -> String {
    format!("device {did} signs with this key: a key has one use, and every device its own (AR-26)")
}

/// The greatest epoch that a device ever had; `None` if it is new.
pub(super) fn highest(tx: &Transaction<'_>, did: Did) -> rusqlite::Result<Option<u16>> {
    let sql = "SELECT max(epoch, coalesce((SELECT highest FROM renewals r WHERE r.did = d.did), 0)) FROM devices d
               WHERE did = ?";
    tx.query_row(sql, [did.0], |r| r.get(0)).optional()
}

/// Enters the key of a device whose book entry has `epoch` now, or takes note that it has none.
pub(super) fn enter(tx: &Transaction<'_>, did: Did, epoch: Epoch, key: Option<&DeviceKey>) -> rusqlite::Result<()> {
    let Some(key) = key else {
        tx.execute("DELETE FROM renewals WHERE did = ?", [did.0])?;
        return Ok(());
    };
    let installed = key.first == FirstContexts::Installed;
    // A device without contexts offers this very epoch first.
    let highest = if installed { epoch.0 } else { epoch.0.saturating_sub(1) };
    tx.execute(
        "INSERT OR REPLACE INTO renewals VALUES (?, ?, ?, ?, NULL, NULL)",
        params![did.0, key.x.0, installed, highest],
    )?;
    Ok(())
}

fn renewal_of(row: &Row<'_>) -> rusqlite::Result<Renewal> {
    Ok(Renewal {
        did: Did(row.get(0)?),
        x: PublicX(row.get(1)?),
        first: if row.get(2)? { FirstContexts::Installed } else { FirstContexts::Agreed },
        highest: Epoch(row.get(3)?),
        agreed_at: row.get::<_, Option<i64>>(4)?.map(hidden),
        ordered_at: row.get::<_, Option<i64>>(5)?.map(hidden),
    })
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Overrides;

    use super::super::{Device, NewDevice};
    use super::*;

    struct Book {
        registry: Registry,
        vault: Vault,
        folder: tempfile::TempDir,
        net: Net,
    }

    fn book() -> Book {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        let net = registry.add_network(&vault, "n", Profile::ToBoth, None).unwrap().net;
        Book { registry, vault, folder, net }
    }

    fn key(n: u8, first: FirstContexts) -> DeviceKey {
        DeviceKey { x: PublicX([n; 32]), first }
    }

    impl Book {
        fn add(&mut self, key: DeviceKey) -> Result<Device> {
            let policy = Policy::new(Profile::ToBoth);
            let (net, overrides) = (self.net, Overrides::NONE);
            let new = NewDevice { did: None, sid: None, net, policy, overrides, words: None, key: Some(key) };
            self.registry.add_device(&self.vault, &new, 1).map(|(device, _)| device)
        }

        fn highest(&self, did: Did) -> u16 {
            self.registry.renewal(did).unwrap().unwrap().highest.0
        }
    }

    #[test]
    fn the_clouds_key_is_made_once_and_is_nowhere_in_the_clear() {
        let mut b = book();
        let first = b.registry.cloud_identity(&b.vault).unwrap();
        let again = b.registry.cloud_identity(&b.vault).unwrap();
        assert_eq!((first.kid, first.key.public_x()), (again.kid, again.key.public_x()));
        let scalar = first.key.danger_scalar().unwrap();
        drop(b.registry);
        for entry in std::fs::read_dir(b.folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(32).any(|w| w == scalar.as_slice()));
        }
        assert!(!format!("{first:?}").contains(&hex::encode(scalar.as_slice())));
    }

    #[test]
    fn a_book_from_before_renewal_gets_its_tables_when_it_is_opened_for_changes() {
        let b = book();
        b.registry.db.pragma_update(None, "query_only", false).unwrap();
        b.registry.db.execute_batch("DROP TABLE renewals; DROP TABLE cloud_keys; PRAGMA user_version = 2").unwrap();
        let path = b.folder.path().join("registry.db");
        drop(b.registry);
        let mut opened = Registry::open(&path, super::super::By::new("test", "here", "test", 1)).unwrap();
        assert_eq!(opened.renewals().unwrap(), []);
        opened.cloud_identity(&b.vault).unwrap();
    }

    #[test]
    fn no_epoch_is_noted_twice_and_enrolling_again_goes_above_all_of_them() {
        let mut b = book();
        let installed = b.add(key(1, FirstContexts::Installed)).unwrap();
        let agrees = b.add(key(2, FirstContexts::Agreed)).unwrap();
        assert_eq!((b.highest(installed.did), b.highest(agrees.did)), (1, 0));
        let version = b.registry.version().unwrap();
        let note = |b: &mut Book, all: &[(Did, Epoch)]| b.registry.note_agreed(all, 7).unwrap();
        assert_eq!(note(&mut b, &[(installed.did, Epoch(1)), (agrees.did, Epoch(1))]), [false, true]);
        assert_eq!(note(&mut b, &[(installed.did, Epoch(300)), (agrees.did, Epoch(1))]), [true, false]);
        assert_eq!(b.registry.version().unwrap(), version, "gateways are not told of every renewal");
        assert_eq!(b.registry.renewal(installed.did).unwrap().unwrap().agreed_at, Some(7));
        let new = key(3, FirstContexts::Installed);
        let (again, _) = b.registry.enrol_again(&b.vault, installed.did, Some(&new), 9).unwrap();
        assert_eq!((again.epoch, b.highest(again.did)), (Epoch(301), 301));
        let new = key(4, FirstContexts::Agreed);
        let (again, _) = b.registry.enrol_again(&b.vault, agrees.did, Some(&new), 9).unwrap();
        assert_eq!((again.epoch, b.highest(again.did)), (Epoch(2), 1));
        assert_eq!(b.registry.renewal(again.did).unwrap().unwrap().x, PublicX([4; 32]));
    }

    #[test]
    fn two_devices_never_have_one_key() {
        let mut b = book();
        let first = b.add(key(1, FirstContexts::Installed)).unwrap();
        assert!(b.add(key(1, FirstContexts::Installed)).unwrap_err().to_string().contains("AR-07"));
        let second = b.add(key(2, FirstContexts::Installed)).unwrap();
        let same = key(1, FirstContexts::Installed);
        assert!(b.registry.enrol_again(&b.vault, second.did, Some(&same), 2).is_err());
        b.registry.enrol_again(&b.vault, first.did, Some(&same), 2).unwrap();
    }

    #[test]
    fn only_devices_that_can_renew_are_ordered_to() {
        let mut b = book();
        let can = b.add(key(1, FirstContexts::Installed)).unwrap();
        let revoked = b.add(key(2, FirstContexts::Installed)).unwrap();
        b.registry.revoke_device(revoked.did, 2).unwrap();
        assert!(b.registry.order_renewal(Whom::Device(revoked.did), 3).unwrap_err().to_string().contains("revoked"));
        assert_eq!(b.registry.order_renewal(Whom::All, 3).unwrap(), 1);
        assert_eq!(b.registry.order_renewal(Whom::Network(b.net), 4).unwrap(), 1);
        assert_eq!(b.registry.renewal(can.did).unwrap().unwrap().ordered_at, Some(4));
        b.registry.enrol_again(&b.vault, can.did, None, 5).unwrap();
        let refused = b.registry.order_renewal(Whom::Device(can.did), 6).unwrap_err().to_string();
        assert!(refused.contains("enrol-again"), "{refused}");
        assert!(b.registry.order_renewal(Whom::All, 6).is_err());
        let mut policy = Policy::new(Profile::ToBoth);
        policy.mode = Mode::Random;
        assert!(b.registry.check_key(can.did, &policy, &key(9, FirstContexts::Installed)).is_err());
    }
}
