//! The operator's book: networks, gateways, devices and tokens, in one SQLite file. Secrets in it are sealed.
//!
//! The command writes it. The cloud looks at [`Registry::version`] and [`Registry::history_version`] all the time, so that a
//! revocation reaches live connections within a second, and writes nothing but the certificates that it issues.

mod certificates;
mod classic;
mod deeds;
mod enrolment;
mod local;
mod receipts;
mod renewal;
mod reseal;
mod rotation;
mod signers;
mod succession;
mod templates;
mod tokens;
mod touched;
mod waivers;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::suite::Alg;
use fivefold_core::wire::state::Phase;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

pub use crate::rotation::Rotation;
pub use certificates::{Certificate, Deed, Event, IssuedTo, NotIssued, Word};
pub use classic::{
    ClassicDevice, ClassicKeyKind, ClassicKeys, ClassicProfile, ClassicSecret, Enrolled, HardenedHolder, HardenedKey,
    MessageServer, NewClassic, NodeEnrolment, did_of, is_refused,
};
pub use deeds::{By, Line};
pub use enrolment::Entry;
pub use local::Local;
pub use receipts::{ReceiptCertificate, ReceiptSigner};
pub use renewal::{CloudIdentity, DeviceKey, FirstContexts, Renewal, Whom, can_renew, draw_key};
pub use reseal::forget_free_pages;
pub use rotation::{ShutOut, Why};
pub use signers::{KeyOrigin, Replaces, Signer};
pub use templates::RegisteredTemplate;
pub use tokens::{NoScope, Scope, Token};
pub use waivers::WaiverWords;

use crate::files::{self, Readers};
use crate::migrate::{self, Formats};
use crate::vault::{Vault, VaultError, random};
use deeds::{Done, Hand, Makes};

/// File name of the registry in the operator's folder.
pub const REGISTRY_FILE: &str = "registry.db";

/// What a new book begins with: format 2.
const SCHEMA: &str = include_str!("registry.sql");
/// Formats of the file (`user_version`). No release wrote 1.
const FORMATS: Formats = Formats { oldest: 2, known: 3 };

/// Makes format `to` of the one before.
fn step(db: &Connection, to: i64) -> rusqlite::Result<()> {
    match to {
        // Books of format 2 have any of these, as far as they were opened for changes since each came.
        3 => {
            renewal::prepare(db)?;
            rotation::prepare(db)?;
            succession::prepare(db)?;
            classic::prepare(db)?;
            signers::prepare(db)?;
            templates::prepare(db)?;
            receipts::prepare(db)?;
            deeds::prepare(db)?;
            waivers::prepare(db)?;
            tokens::prepare(db)?;
            touched::prepare(db)
        }
        _ => Ok(()),
    }
}

/// Why the registry refused. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The database failed.
    #[error("the registry {path}: {source}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite finds the file damaged.
    #[error("the registry {path} is damaged ({reason}); move it away, keep it, and put a copy of it there", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
    /// It is of a format that this program does not know, or was not brought to the present one.
    #[error(transparent)]
    Format(migrate::Stopped),
    /// Something with that name or number is there already, or breaks a rule.
    #[error("{0}")]
    Refused(String),
    /// Nothing has that name or number.
    #[error("there is no {what} {name}; type: fivefold {what} list")]
    Unknown {
        /// `network`, `gateway`, `device` or `token`.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A secret did not open or could not be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl RegistryError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Format(stopped) => stopped.is_lasting(),
            Self::Vault(e) => e.is_lasting(),
            Self::Database { .. } | Self::Refused(_) | Self::Unknown { .. } => false,
        }
    }

    fn of(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, reason: source.to_string() },
            _ => Self::Database { path, source },
        }
    }
}

impl From<migrate::Stopped> for RegistryError {
    fn from(stopped: migrate::Stopped) -> Self {
        match stopped {
            migrate::Stopped::Database { path, source } => Self::of(&path, source),
            stopped => Self::Format(stopped),
        }
    }
}

type Result<T> = std::result::Result<T, RegistryError>;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub net: Net,
    /// Its name.
    pub name: String,
    /// PAN id on the air.
    pub pan: u16,
    /// The combination that its devices must use.
    pub profile: Profile,
    /// Gateway group of its C2 contexts.
    pub group: GatewayGroup,
    /// The operator's words that allow a network with E1 alone.
    pub override_words: Option<String>,
}

/// K_net under one index. Its key is wiped when dropped and never printed.
pub struct NetworkKey {
    /// Index, 1 to 254.
    pub index: u8,
    /// Where the rotation stands.
    pub phase: Phase,
    /// The key.
    pub key: Zeroizing<[u8; 16]>,
}

impl std::fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetworkKey({}, {:?})", self.index, self.phase)
    }
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its id, in its certificate.
    pub gateway: GatewayId,
    /// The network it serves.
    pub net: Net,
    /// Its name.
    pub name: String,
    /// Short address on the radio.
    pub sid: Sid,
    /// EUI-64 on the radio.
    pub did: Did,
    /// Whether it is the one that may send under C2 (K2).
    pub primary: bool,
    /// SubjectPublicKeyInfo (DER) of its keys for receipts, the newest first: of all its certificates in force.
    pub receipt_keys: Vec<Vec<u8>>,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

impl Gateway {
    /// The name in its certificates.
    pub const fn certified_as(&self) -> GatewayName {
        GatewayName { net: self.net, gateway: self.gateway }
    }
}

/// A device, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Permanent id.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// Its network.
    pub net: Net,
    /// Its policy record.
    pub policy: Policy,
    /// What the operator lets it do that is not safe.
    pub overrides: Overrides,
    /// The operator's words for that.
    pub words: Option<String>,
    /// Epoch of its contexts.
    pub epoch: Epoch,
    /// When it was enrolled last, Unix seconds.
    pub enrolled_at: u64,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

/// The secrets of one device (docs/protocol.md 3, "installed"). Wiped when dropped, never printed.
pub struct DeviceSecrets {
    /// MS3: 16 bytes for algorithm 10, else 32.
    pub ms3: Zeroizing<Vec<u8>>,
    /// salt3.
    pub salt3: [u8; 8],
    /// K_e2root.
    pub e2_root: Zeroizing<[u8; 32]>,
    /// K_blind.
    pub blind: Zeroizing<[u8; 32]>,
    /// root_psk; made once, kept over new enrolments.
    pub root_psk: Zeroizing<[u8; 32]>,
}

impl ZeroizeOnDrop for DeviceSecrets {}

impl Drop for DeviceSecrets {
    fn drop(&mut self) {
        self.salt3.zeroize();
    }
}

impl std::fmt::Debug for DeviceSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceSecrets(..)")
    }
}

impl DeviceSecrets {
    /// Fresh random secrets for algorithm `alg`, never derived from `root_psk`.
    fn draw(alg: Alg, root_psk: Zeroizing<[u8; 32]>) -> std::result::Result<Self, VaultError> {
        let mut ms3 = Zeroizing::new(random::<32>()?.to_vec());
        ms3.truncate(alg.key_len());
        Ok(Self { ms3, salt3: *random::<8>()?, e2_root: random()?, blind: random()?, root_psk })
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + 32 + 8 + 96));
        out.push(self.ms3.len() as u8);
        out.extend_from_slice(&self.ms3);
        out.extend_from_slice(&self.salt3);
        for part in [&self.e2_root, &self.blind, &self.root_psk] {
            out.extend_from_slice(part.as_slice());
        }
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first()?;
        let (ms3, rest) = rest.split_at_checked(usize::from(*len))?;
        let (salt3, rest) = rest.split_first_chunk::<8>()?;
        let (e2_root, rest) = rest.split_first_chunk::<32>()?;
        let (blind, rest) = rest.split_first_chunk::<32>()?;
        let root_psk: &[u8; 32] = rest.try_into().ok()?;
        Some(Self {
            ms3: Zeroizing::new(ms3.to_vec()),
            salt3: *salt3,
            e2_root: Zeroizing::new(*e2_root),
            blind: Zeroizing::new(*blind),
            root_psk: Zeroizing::new(*root_psk),
        })
    }
}

/// What the operator asks for when adding a device.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Permanent id; drawn if not given.
    pub did: Option<Did>,
    /// Short id; the next free one if not given.
    pub sid: Option<Sid>,
    /// Its network.
    pub net: Net,
    /// Its policy record.
    pub policy: Policy,
    /// What it may do that is not safe.
    pub overrides: Overrides,
    /// The operator's words for that.
    pub words: Option<String>,
    /// Its key for renewal by EDHOC, if it can renew.
    pub key: Option<DeviceKey>,
}

/// The book.
#[derive(Debug)]
pub struct Registry {
    db: Connection,
    path: PathBuf,
    // Whoever opened it for changes.
    hand: Option<Hand>,
}

/// Between two looks at a book that somebody writes to.
const A_WHILE: Duration = Duration::from_millis(50);

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let failed = |source| RegistryError::of(path, source);
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    Ok(db)
}

fn hidden(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

impl Registry {
    /// Makes a new one, opened for changes by somebody; the file must not exist.
    ///
    /// # Errors
    /// [`RegistryError::Database`], [`RegistryError::Refused`].
    pub fn create(path: &Path, by: By) -> Result<Self> {
        if path.exists() {
            return Err(RegistryError::Refused(format!("{} exists already; init wants a new folder", path.display())));
        }
        // If it cannot be made, SQLite says why.
        let _ = files::ensure(path, Readers::Everybody);
        let db = Connection::open(path).map_err(|source| RegistryError::of(path, source))?;
        let made = Self { db, path: path.to_owned(), hand: Some(Hand::of(by)?) };
        let set = || {
            made.db.pragma_update(None, "journal_mode", "WAL")?;
            made.db.pragma_update(None, "synchronous", "FULL")?;
            made.db.execute_batch(SCHEMA)?;
            (FORMATS.oldest + 1..=FORMATS.known).try_for_each(|to| step(&made.db, to))?;
            made.db.pragma_update(None, "user_version", FORMATS.known)?;
            made.db.pragma_update(None, "query_only", true)
        };
        set().map_err(|e| made.failed(e))?;
        Ok(made)
    }

    /// Opens it for changes by somebody: each leaves a line in the operator's log, under that name. One of an earlier format is
    /// brought to the present one first; a copy of what it was stays beside it.
    ///
    /// # Errors
    /// [`RegistryError::Database`], [`RegistryError::Format`].
    pub fn open(path: &Path, by: By) -> Result<Self> {
        let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if let Some(found) = FORMATS.beside_a_copy(&mut db, path, &step)? {
            let copy = migrate::copy_beside(path, found);
            tracing::info!(path = %path.display(), found, now = FORMATS.known, copy = %copy.display(), "the registry has a new format");
        }
        let failed = |source| RegistryError::of(path, source);
        db.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        db.pragma_update(None, "query_only", true).map_err(failed)?;
        Ok(Self { db, path: path.to_owned(), hand: Some(Hand::of(by)?) })
    }

    /// Opens it for reading. One of an earlier format is left alone: what is read is a copy of it in memory, brought to the
    /// present one, which shows no later change.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let failed = |source| RegistryError::of(path, source);
        if FORMATS.of(&db, path)? < FORMATS.known {
            let mut copy = Connection::open_in_memory().map_err(failed)?;
            Backup::new(&db, &mut copy).and_then(|b| b.run_to_completion(c_int::MAX, A_WHILE, None)).map_err(failed)?;
            FORMATS.step_by_step(&mut copy, path, &step)?;
            copy.pragma_update(None, "query_only", true).map_err(failed)?;
            db = copy;
        }
        db.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        Ok(Self { db, path: path.to_owned(), hand: None })
    }

    fn failed(&self, source: rusqlite::Error) -> RegistryError {
        RegistryError::of(&self.path, source)
    }

    /// Runs `change` in one transaction; if it changes anything, the version counts up, and a line tells of it.
    fn change<T>(&mut self, done: Done, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let done = self.change_if(done, |tx| change(tx).map(Some))?;
        done.ok_or_else(|| self.failed(rusqlite::Error::QueryReturnedNoRows))
    }

    /// The same, unless `change` comes to nothing: then nothing of it stays.
    fn change_if<T>(
        &mut self,
        done: Done,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.logged(&done, Makes::Version, change).map_err(|e| self.failed(e))
    }

    /// Grows with every change.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn version(&self) -> Result<u64> {
        self.db.query_row("SELECT version FROM meta", [], |r| r.get(0)).map(hidden).map_err(|e| self.failed(e))
    }

    // Networks.

    /// Adds a network with a first network key under index 1. `override_words` must be given for E1 alone, and only then.
    ///
    /// # Errors
    /// [`RegistryError::Refused`]; [`RegistryError::Vault`].
    pub fn add_network(
        &mut self,
        vault: &Vault,
        name: &str,
        profile: Profile,
        override_words: Option<&str>,
    ) -> Result<Network> {
        let key = random::<16>()?;
        let taken = self.networks()?;
        let pan = loop {
            let pan = u16::from_be_bytes(*random::<2>()?);
            if is_pan(pan) && taken.iter().all(|n| n.pan != pan) {
                break pan;
            }
        };
        self.insert_network(vault, name, profile, override_words, pan, &key)
    }

    /// Adds a network whose radios have their PAN id and network key already: the key is as good as its history. It stands
    /// under index 1.
    ///
    /// # Errors
    /// As [`add_network`](Self::add_network), and when the PAN id is taken or none.
    pub fn danger_adopt_network(
        &mut self,
        vault: &Vault,
        name: &str,
        profile: Profile,
        override_words: Option<&str>,
        pan: u16,
        key: &Zeroizing<[u8; 16]>,
    ) -> Result<Network> {
        if !is_pan(pan) {
            return Err(RegistryError::Refused(format!("{pan:04x} is no PAN id of a network; name another")));
        }
        if let Some(other) = self.networks()?.iter().find(|n| n.pan == pan) {
            return Err(RegistryError::Refused(format!(
                "PAN {pan:04x} is that of network {}; name another",
                other.name
            )));
        }
        self.insert_network(vault, name, profile, override_words, pan, key)
    }

    fn insert_network(
        &mut self,
        vault: &Vault,
        name: &str,
        profile: Profile,
        override_words: Option<&str>,
        pan: u16,
        key: &Zeroizing<[u8; 16]>,
    ) -> Result<Network> {
        let all = self.networks()?;
        if all.iter().any(|n| n.name == name) {
            return Err(RegistryError::Refused(format!("a network called {name} exists already; choose another name")));
        }
        if profile == Profile::DangerLinkOnly && override_words.is_none() {
            return Err(RegistryError::Refused(
                "a network with E1 alone needs the operator's words; see: fivefold network add --help".into(),
            ));
        }
        let net = Net(all.iter().map(|n| n.net.0).max().unwrap_or(0) + 1);
        let words = if profile == Profile::DangerLinkOnly { override_words } else { None };
        let network = Network {
            net,
            name: name.to_owned(),
            pan,
            profile,
            group: GatewayGroup(net.0),
            override_words: words.map(str::to_owned),
        };
        let sealed = vault.seal(&key_name(net, 1), key.as_slice())?;
        self.change(Done::new("network added", format_args!("network {name}")), |tx| {
            tx.execute(
                "INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?)",
                params![net.0, network.name, pan, profile.as_str(), network.group.0, words],
            )?;
            tx.execute(
                "INSERT INTO network_keys VALUES (?, 1, ?, ?, NULL)",
                params![net.0, Phase::Switch.wire(), sealed],
            )
        })?;
        Ok(network)
    }

    /// All networks, by id.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn networks(&self) -> Result<Vec<Network>> {
        let read = |row: &Row<'_>| {
            let profile: String = row.get(3)?;
            let profile =
                Profile::ALL.into_iter().find(|p| p.as_str() == profile).ok_or(rusqlite::Error::InvalidQuery)?;
            Ok(Network {
                net: Net(row.get(0)?),
                name: row.get(1)?,
                pan: row.get(2)?,
                profile,
                group: GatewayGroup(row.get(4)?),
                override_words: row.get(5)?,
            })
        };
        self.all("SELECT net, name, pan, profile, grp, override FROM networks ORDER BY net", read)
    }

    /// The network with a name.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn network(&self, name: &str) -> Result<Network> {
        let found = self.networks()?.into_iter().find(|n| n.name == name || n.net.to_string() == name);
        found.ok_or_else(|| RegistryError::Unknown { what: "network", name: name.to_owned() })
    }

    /// The keys of a network, by index.
    ///
    /// # Errors
    /// [`RegistryError::Vault`].
    pub fn network_keys(&self, vault: &Vault, net: Net) -> Result<Vec<NetworkKey>> {
        let sql = format!("SELECT idx, phase, sealed FROM network_keys WHERE net = {} ORDER BY idx", net.0);
        let rows = self.all(&sql, |r| Ok((r.get::<_, u8>(0)?, r.get::<_, u32>(1)?, r.get::<_, Vec<u8>>(2)?)))?;
        rows.into_iter()
            .map(|(index, phase, sealed)| {
                let name = key_name(net, index);
                let opened = vault.open(&name, &sealed)?;
                let key: [u8; 16] =
                    opened.as_slice().try_into().map_err(|_| VaultError::Damaged { name: name.clone() })?;
                let phase = Phase::from_wire(phase.into()).unwrap_or(Phase::Retire);
                Ok(NetworkKey { index, phase, key: Zeroizing::new(key) })
            })
            .collect()
    }

    // Gateways.

    /// Enters a gateway; its certificate comes later. `name` must be new; one gateway of a network is the primary.
    ///
    /// # Errors
    /// [`RegistryError::Refused`].
    pub fn add_gateway(&mut self, gateway: &Gateway) -> Result<()> {
        let others = self.gateways()?;
        if others.iter().any(|g| g.name == gateway.name) {
            return Err(RegistryError::Refused(format!(
                "a gateway called {} exists already; choose another name",
                gateway.name
            )));
        }
        if gateway.primary && others.iter().any(|g| g.net == gateway.net && g.primary && g.revoked_at.is_none()) {
            return Err(RegistryError::Refused(
                "this network has a primary gateway already: two may not send under one C2 context (AR-28)".into(),
            ));
        }
        let succeeds = gateway.primary && others.iter().any(|g| g.net == gateway.net && g.primary);
        self.change(Done::new("gateway added", format_args!("gateway {}", gateway.name)), |tx| {
            if succeeds {
                succession::enter(tx, gateway.net)?;
            }
            tx.execute(
                "INSERT INTO gateways VALUES (?, ?, ?, ?, ?, ?, NULL)",
                params![gateway.gateway.0, gateway.net.0, gateway.name, gateway.sid.0, gateway.did.0, gateway.primary],
            )
        })?;
        Ok(())
    }

    /// All gateways, by id.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn gateways(&self) -> Result<Vec<Gateway>> {
        let sql = "SELECT gw, net, name, sid, did, is_primary, revoked_at FROM gateways ORDER BY gw";
        let mut gateways = self.all(sql, |r| {
            Ok(Gateway {
                gateway: GatewayId(r.get(0)?),
                net: Net(r.get(1)?),
                name: r.get(2)?,
                sid: Sid(r.get(3)?),
                did: Did(r.get(4)?),
                primary: r.get(5)?,
                receipt_keys: Vec::new(),
                revoked_at: r.get::<_, Option<i64>>(6)?.map(hidden),
            })
        })?;
        for (id, key) in self.receipt_keys()? {
            let at = gateways.binary_search_by_key(&id, |g| g.gateway);
            if let Some(gateway) = at.ok().and_then(|at| gateways.get_mut(at))
                && !gateway.receipt_keys.contains(&key)
            {
                gateway.receipt_keys.push(key);
            }
        }
        Ok(gateways)
    }

    /// The gateway with a name or id.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn gateway(&self, name: &str) -> Result<Gateway> {
        let found = self.gateways()?.into_iter().find(|g| g.name == name || g.gateway.to_string() == name);
        found.ok_or_else(|| RegistryError::Unknown { what: "gateway", name: name.to_owned() })
    }

    /// The next gateway id and short address in a network.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn next_gateway(&self, net: Net) -> Result<(GatewayId, Sid)> {
        let all = self.gateways()?;
        let id = all.iter().map(|g| g.gateway.0).max().unwrap_or(0) + 1;
        let taken = all.iter().filter(|g| g.net == net).count() as u16;
        Ok((GatewayId(id), Sid(1 + taken)))
    }

    /// Revokes a gateway: its certificates are refused from now on, and no token and no late renewal gives it another.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_gateway(&mut self, name: &str, word: Word<'_>) -> Result<Gateway> {
        let gateway = self.gateway(name)?;
        let gw = gateway.gateway;
        if gateway.revoked_at.is_none() {
            self.change(Done::new("gateway revoked", format_args!("gateway {name}")), |tx| {
                tx.execute("UPDATE gateways SET revoked_at = ? WHERE gw = ?", params![word.at as i64, gw.0])?;
                tx.execute("DELETE FROM enrolments WHERE gw = ? AND serial IS NULL", [gw.0])?;
                tx.execute("DELETE FROM late_renewals WHERE gw = ?", [gw.0])?;
                if certificates::revoke(tx, word, "gw = ?1", &gw.0)? == 0 {
                    certificates::log(tx, word, Some(gw), Deed::Revoked, None)?;
                }
                Ok(())
            })?;
        }
        self.gateway(name)
    }

    // Devices.

    /// All devices, by network and short id.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn devices(&self) -> Result<Vec<Device>> {
        let sql = "SELECT did, sid, net, policy, overrides, words, epoch, enrolled_at, revoked_at FROM devices ORDER BY net, sid";
        self.all(sql, device_of)
    }

    /// Those of one network.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn devices_of(&self, net: Net) -> Result<Vec<Device>> {
        let sql = "SELECT did, sid, net, policy, overrides, words, epoch, enrolled_at, revoked_at FROM devices WHERE net = ? ORDER BY sid";
        self.all_of(sql, [net.0], device_of)
    }

    /// One device.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn device(&self, did: Did) -> Result<Device> {
        self.known_device(did)?.ok_or_else(|| RegistryError::Unknown { what: "device", name: did.to_string() })
    }

    /// One device, if it is in the book.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn known_device(&self, did: Did) -> Result<Option<Device>> {
        let sql =
            "SELECT did, sid, net, policy, overrides, words, epoch, enrolled_at, revoked_at FROM devices WHERE did = ?";
        self.db.query_row(sql, [did.0], device_of).optional().map_err(|e| self.failed(e))
    }

    /// The secrets of a device.
    ///
    /// # Errors
    /// [`RegistryError::Vault`].
    pub fn secrets(&self, vault: &Vault, device: &Device) -> Result<DeviceSecrets> {
        let sealed: Vec<u8> = self
            .db
            .query_row("SELECT sealed FROM devices WHERE did = ?", [device.did.0], |r| r.get(0))
            .map_err(|e| self.failed(e))?;
        let name = secret_name(device.did, device.epoch);
        let bytes = vault.open(&name, &sealed)?;
        DeviceSecrets::from_bytes(&bytes).ok_or_else(|| VaultError::Damaged { name }.into())
    }

    /// Revokes a device: nothing of it is accepted from now on, and its signing key is revoked with it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn revoke_device(&mut self, did: Did, now_unix_s: u64) -> Result<Device> {
        self.device(did)?;
        let sql = "UPDATE devices SET revoked_at = coalesce(revoked_at, ?) WHERE did = ?";
        self.change(Done::new("device revoked", format_args!("device {did}")), |tx| {
            signers::revoke(tx, did, now_unix_s)?;
            tx.execute(sql, params![now_unix_s as i64, did.0])
        })?;
        self.device(did)
    }

    fn all<T>(&self, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        self.all_of(sql, [], read)
    }

    fn all_of<T>(
        &self,
        sql: &str,
        of: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let run = || self.db.prepare_cached(sql)?.query_map(of, read)?.collect::<rusqlite::Result<Vec<T>>>();
        run().map_err(|e| self.failed(e))
    }
}

fn device_of(row: &Row<'_>) -> rusqlite::Result<Device> {
    let policy: Vec<u8> = row.get(3)?;
    Ok(Device {
        did: Did(row.get(0)?),
        sid: Sid(row.get(1)?),
        net: Net(row.get(2)?),
        policy: Policy::parse(&policy).map_err(|_| rusqlite::Error::InvalidQuery)?,
        overrides: Overrides::from_bits(row.get(4)?).ok_or(rusqlite::Error::InvalidQuery)?,
        words: row.get(5)?,
        epoch: Epoch(row.get(6)?),
        enrolled_at: hidden(row.get(7)?),
        revoked_at: row.get::<_, Option<i64>>(8)?.map(hidden),
    })
}

fn key_name(net: Net, index: u8) -> String {
    format!("network key {net} {index}")
}

fn secret_name(did: Did, epoch: Epoch) -> String {
    format!("device secrets {did} {epoch}")
}

/// Whether a network can have this PAN id.
const fn is_pan(pan: u16) -> bool {
    !matches!(pan, 0 | 0xFFFE | 0xFFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Book {
        registry: Registry,
        vault: Vault,
        folder: tempfile::TempDir,
    }

    fn book() -> Book {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let registry =
            Registry::create(&folder.path().join("registry.db"), By::new("test", "here", "test", 1)).unwrap();
        Book { registry, vault, folder }
    }

    fn new_device(net: Net) -> NewDevice {
        let policy = Policy::new(Profile::ToCloud);
        NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None }
    }

    #[test]
    fn enrolling_again_gives_new_secrets_and_a_greater_epoch() {
        let mut b = book();
        let net = b.registry.add_network(&b.vault, "n", Profile::ToCloud, None).unwrap().net;
        let (device, first) = b.registry.add_device(&b.vault, &new_device(net), 1).unwrap();
        assert_eq!(device.epoch, Epoch(1));
        let (again, second) = b.registry.enrol_again(&b.vault, device.did, None, 2).unwrap();
        assert_eq!(again.epoch, Epoch(2));
        assert_ne!(first.ms3, second.ms3);
        assert_ne!(first.e2_root, second.e2_root);
        assert_eq!(first.root_psk, second.root_psk);
        assert_eq!(b.registry.secrets(&b.vault, &again).unwrap().ms3, second.ms3);
    }

    #[test]
    fn the_book_holds_no_secret_in_the_clear() {
        let mut b = book();
        let net = b.registry.add_network(&b.vault, "n", Profile::ToBoth, None).unwrap().net;
        let (_, secrets) = b.registry.add_device(&b.vault, &new_device(net), 1).unwrap();
        let token = b.registry.add_token("t", Scope::Read, 9, 1).unwrap();
        let keys = b.registry.network_keys(&b.vault, net).unwrap();
        drop(b.registry);
        for entry in std::fs::read_dir(b.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let needles: [&[u8]; 6] = [
                &secrets.ms3,
                secrets.e2_root.as_slice(),
                secrets.root_psk.as_slice(),
                secrets.blind.as_slice(),
                keys[0].key.as_slice(),
                token.as_bytes(),
            ];
            for needle in needles {
                assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{}", path.display());
            }
        }
    }

    #[test]
    fn an_adopted_network_has_the_key_and_pan_of_its_radios() {
        let mut b = book();
        let key = Zeroizing::new([0xC0; 16]);
        let adopt = |b: &mut Book, name: &str, pan| {
            b.registry.danger_adopt_network(&b.vault, name, Profile::ToCloud, None, pan, &key)
        };
        let network = adopt(&mut b, "old", 0x4321).unwrap();
        assert_eq!(network.pan, 0x4321);
        let keys = b.registry.network_keys(&b.vault, network.net).unwrap();
        assert_eq!((keys[0].index, &keys[0].key), (1, &key));
        assert!(adopt(&mut b, "other", 0x4321).unwrap_err().to_string().contains("network old"));
        assert!(adopt(&mut b, "other", 0xFFFF).is_err());
    }

    #[test]
    fn rules_are_refused_by_name() {
        let mut b = book();
        let refused = b.registry.add_network(&b.vault, "weak", Profile::DangerLinkOnly, None).unwrap_err();
        assert!(refused.to_string().contains("operator's words"), "{refused}");
        let net = b.registry.add_network(&b.vault, "n", Profile::ToCloud, None).unwrap().net;
        let mut new = new_device(net);
        new.sid = Some(Sid(0xE205));
        assert!(b.registry.add_device(&b.vault, &new, 1).unwrap_err().to_string().contains("AR-38"));
        new.sid = Some(Sid(0x0a17));
        b.registry.add_device(&b.vault, &new, 1).unwrap();
        assert!(b.registry.add_device(&b.vault, &new, 1).unwrap_err().to_string().contains("taken"));
        new.policy.profile = Profile::DangerLinkOnly;
        new.sid = None;
        assert!(b.registry.add_device(&b.vault, &new, 1).is_err());
    }

    #[test]
    fn every_change_is_a_new_version_that_a_reader_sees() {
        let mut b = book();
        let reader = Registry::open_read_only(&b.folder.path().join("registry.db")).unwrap();
        let before = reader.version().unwrap();
        let net = b.registry.add_network(&b.vault, "n", Profile::ToCloud, None).unwrap().net;
        let (device, _) = b.registry.add_device(&b.vault, &new_device(net), 1).unwrap();
        b.registry.revoke_device(device.did, 9).unwrap();
        assert_eq!(reader.version().unwrap(), before + 3);
        assert_eq!(reader.device(device.did).unwrap().revoked_at, Some(9));
        assert_eq!(reader.devices().unwrap().len(), 1);
    }

    #[test]
    fn another_file_is_no_registry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(Registry::open(&path, By::new("test", "here", "test", 1)), Err(RegistryError::Format { .. })));
    }
}
