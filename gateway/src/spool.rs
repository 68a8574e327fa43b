//! # The gateway's store: what was accepted stays
//!
//! SQLite in WAL mode with `synchronous=FULL`, one writer. In it: envelopes until the cloud has them (W8), the numbers
//! accepted under C2 with their hashes (W5), old boot ids, leases (W1), and the pushed state, sealed.
//!
//! The spool has a size. When it is full, new messages are refused and not acknowledged (`E4-04`); what is stored stays.
//! From 80 % on it is counted once. Names of contexts and keys are hashes; secrets stand in it only sealed.

mod reader;
mod reseal;
mod restored;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fivefold_core::id::{BootContext, Epoch, Sid};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::CiphertextHash;
use fivefold_core::time::Millis;
use fivefold_core::why::Refusal;
use fivefold_core::wire::envelope::Envelope;
use fivefold_keep::closed::{self, Left};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::format::Newer;
use fivefold_keep::why;
use fivefold_waspmote::hardened::Window;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use zeroize::Zeroizing;

use reader::state_in;
pub use reader::{SpoolReader, StoredBatch};
pub use restored::{PutBack, Site, restored};

use crate::gateway::{
    AddedContext, AgreedContext, AppliedState, ContextName, HardenedName, LinkKeyName, Lookup, Record, Restored,
    Stored, boot_name,
};

/// What seals secrets before they are written: keep's vault, with a key from the operator's passphrase.
pub trait Wrap: Send {
    /// Seals `plain` under a name.
    ///
    /// # Errors
    /// When there is no randomness.
    fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError>;

    /// Opens what was sealed under the same name.
    ///
    /// # Errors
    /// When it was sealed under another key or name, or changed.
    fn unwrap(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError>;
}

/// A secret could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrapError(pub String);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file is no store of ours, or damaged.
    #[error(
        "the store {path} is damaged ({detail}): stop the gateway, move the file aside and keep it; what was acknowledged is in it"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// No space left, or the file system is read-only.
    #[error("the store {path} cannot grow ({detail}): make room on its file system; what was accepted before stays")]
    Full {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// Another process has it.
    #[error("the store {path} is in use by another gateway process: stop that one first")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Anything else that SQLite or the file system says.
    #[error("the store {path} cannot be used: {detail}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        detail: String,
    },
    /// The pushed state cannot be opened.
    #[error("the state in {path} does not open ({source}): give the vault that the store was made with")]
    Sealed {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: WrapError,
    },
    /// A copy is so old, or the clock so wrong, that no number is safe.
    #[error(
        "the copy of {path} cannot be used ({reason}): check the clock of this machine, restore a newer one, or give the gateway a \
         successor (docs/operate.md, A stolen gateway)"
    )]
    TooOld {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The store has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
}

impl SpoolError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Sealed { .. } | Self::TooOld { .. } | Self::Newer(_) => true,
            Self::Full { .. } | Self::InUse { .. } | Self::Io { .. } => false,
        }
    }
}

/// Of a store that was put back from a copy: who knows nothing of that must not run on it, or it would answer what is spent.
const VERSION: i64 = 2;
/// Of every other one.
const FIRST: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS spool (seq INTEGER PRIMARY KEY AUTOINCREMENT, boot BLOB NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS numbers (context BLOB NOT NULL, slot INTEGER NOT NULL, number INTEGER NOT NULL,
        hash BLOB NOT NULL, PRIMARY KEY (context, slot)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS contexts (context BLOB PRIMARY KEY, bound INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS boots (n INTEGER PRIMARY KEY AUTOINCREMENT, family BLOB NOT NULL, boot BLOB NOT NULL,
        UNIQUE (family, boot));
    CREATE TABLE IF NOT EXISTS link_leases (name BLOB PRIMARY KEY, bound INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS added (sid INTEGER NOT NULL, epoch INTEGER NOT NULL, version INTEGER NOT NULL,
        sealed BLOB NOT NULL, PRIMARY KEY (sid, epoch)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS agreed (sid INTEGER NOT NULL, epoch INTEGER NOT NULL, at INTEGER NOT NULL,
        drains_since INTEGER, sealed BLOB NOT NULL, PRIMARY KEY (sid, epoch)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hardened (name BLOB PRIMARY KEY, window BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS put_back (at INTEGER NOT NULL, floor INTEGER NOT NULL, is_open INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS state (part INTEGER PRIMARY KEY, version INTEGER NOT NULL, applied INTEGER NOT NULL,
        sealed BLOB NOT NULL);
";

/// Explanations of refusals that are kept: a day's, at most.
const REFUSALS: why::Bounds = why::Bounds { rows: 10_000, life: 24 * 3_600_000 };

/// The writer.
pub struct Spool {
    db: Connection,
    path: PathBuf,
    boot: GatewayBoot,
    wrap: Box<dyn Wrap>,
    open: bool,
    /// Whether something failed that is no full disk: it may have left more behind than a power cut does.
    failed: AtomicBool,
    _lock: File,
}

impl Spool {
    /// Opens or makes the store, and says what is in it. Beside the file lies its lock.
    ///
    /// # Errors
    /// One clear sentence each: [`SpoolError`].
    pub fn open(path: &Path, boot: GatewayBoot, wrap: Box<dyn Wrap>) -> Result<(Self, Restored), SpoolError> {
        let spool = Self::made(path, boot, wrap)?;
        let restored = spool.restore()?;
        Ok((spool, restored))
    }

    /// The store, made where it is not there, with every table.
    fn made(path: &Path, boot: GatewayBoot, wrap: Box<dyn Wrap>) -> Result<Self, SpoolError> {
        let path = path.to_path_buf();
        let io = |e: std::io::Error| SpoolError::Io { path: path.clone(), detail: e.to_string() };
        let lock = files::open_or_create(&path.with_extension("lock"), Readers::Owner).map_err(io)?;
        lock.try_lock().map_err(|_| SpoolError::InUse { path: path.clone() })?;
        files::ensure(&path, Readers::Owner).map_err(io)?;
        let left = closed::take(&path).map_err(|e| SpoolError::Io { path: path.clone(), detail: e.to_string() })?;
        let fail = |e| explain(&path, &e);
        let db = Connection::open(&path).map_err(fail)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        if left == Left::Unknown {
            tracing::info!(
                path = %path.display(),
                "whoever wrote to the store last did not close it, so all of it is read through before anything is accepted"
            );
            let check: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(fail)?;
            if check != "ok" {
                return Err(SpoolError::Damaged { path, detail: check });
            }
        }
        let found: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(fail)?;
        match found {
            // Tables that came later are made where they are missing.
            0..=VERSION => {
                // At once, so that who reads meanwhile finds all of them or a store that is not made yet.
                let made = db.unchecked_transaction().map_err(fail)?;
                made.execute_batch(SCHEMA).and_then(|()| made.execute_batch(why::SCHEMA)).map_err(fail)?;
                made.pragma_update(None, "user_version", found.max(FIRST)).map_err(fail)?;
                made.commit().map_err(fail)?;
            }
            _ => return Err(Newer::new(path.display(), found, VERSION).into()),
        }
        Ok(Self { db, path, boot, wrap, open: false, failed: AtomicBool::new(false), _lock: lock })
    }

    /// What the store has from before, for a new engine.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn restore(&self) -> Result<Restored, SpoolError> {
        let fail = |e| self.explain(&e);
        let last: Option<i64> = self
            .db
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'spool'", [], |r| r.get(0))
            .optional()
            .map_err(fail)?;
        let used: i64 =
            self.db.query_row("SELECT COALESCE(SUM(LENGTH(bytes)), 0) FROM spool", [], |r| r.get(0)).map_err(fail)?;
        let mut leases = self.db.prepare("SELECT name, bound FROM link_leases WHERE LENGTH(name) = 8").map_err(fail)?;
        let link_leases = leases
            .query_map([], |r| Ok((LinkKeyName(r.get(0)?), r.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(fail)?;
        Ok(Restored {
            state: self.state()?,
            added: self.added()?,
            agreed: self.agreed()?,
            hardened: self.hardened()?,
            link_leases,
            link_floor: restored::floor(&self.db).map_err(fail)?,
            next_seq: last.unwrap_or(0) as u64 + 1,
            spool_used: used as u64,
        })
    }

    fn hardened(&self) -> Result<Vec<(HardenedName, Window)>, SpoolError> {
        let fail = |e| self.explain(&e);
        let mut query = self.db.prepare("SELECT name, window FROM hardened").map_err(fail)?;
        let rows = query.query_map([], |r| Ok((HardenedName(r.get(0)?), r.get::<_, [u8; Window::BYTES]>(1)?)));
        let rows = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(fail)?;
        let damaged = || SpoolError::Damaged { path: self.path.clone(), detail: "a window that is none".into() };
        rows.into_iter().map(|(name, w)| Window::from_bytes(&w).map(|w| (name, w)).ok_or_else(damaged)).collect()
    }

    fn added(&self) -> Result<Vec<AddedContext>, SpoolError> {
        let fail = |e| self.explain(&e);
        let mut query =
            self.db.prepare("SELECT sid, epoch, version, sealed FROM added ORDER BY version").map_err(fail)?;
        let read = |r: &rusqlite::Row<'_>| {
            Ok((r.get::<_, u16>(0)?, r.get::<_, u16>(1)?, r.get::<_, i64>(2)?, r.get::<_, Vec<u8>>(3)?))
        };
        let rows = query.query_map([], read).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(fail)?;
        let open = |(sid, epoch, version, sealed): (u16, u16, i64, Vec<u8>)| {
            let plain = self
                .wrap
                .unwrap(&added_name(Sid(sid), Epoch(epoch), version), &sealed)
                .map_err(|source| SpoolError::Sealed { path: self.path.clone(), source })?;
            Ok(AddedContext { version: version as u64, bytes: plain.as_slice().into() })
        };
        rows.into_iter().map(open).collect()
    }

    fn agreed(&self) -> Result<Vec<AgreedContext>, SpoolError> {
        let fail = |e| self.explain(&e);
        let mut query = self
            .db
            .prepare("SELECT sid, epoch, at, drains_since, sealed FROM agreed ORDER BY sid, epoch")
            .map_err(fail)?;
        let mut rows = query.query([]).map_err(fail)?;
        let mut agreed = Vec::new();
        while let Some(row) = rows.next().map_err(fail)? {
            let read = || -> rusqlite::Result<(AgreedContext, Vec<u8>)> {
                let (sid, epoch, at) = (Sid(row.get(0)?), Epoch(row.get(1)?), Millis(row.get::<_, i64>(2)? as u64));
                let drains_since = row.get::<_, Option<i64>>(3)?.map(|ms| Millis(ms as u64));
                Ok((AgreedContext { sid, epoch, at, drains_since, bytes: Box::default() }, row.get(4)?))
            };
            let (mut context, sealed) = read().map_err(fail)?;
            let plain = self
                .wrap
                .unwrap(&agreed_name(context.sid, context.epoch), &sealed)
                .map_err(|source| SpoolError::Sealed { path: self.path.clone(), source })?;
            context.bytes = plain.as_slice().into();
            agreed.push(context);
        }
        Ok(agreed)
    }

    fn state(&self) -> Result<Option<AppliedState>, SpoolError> {
        state_in(&self.db, &self.path, &*self.wrap)
    }

    /// Deletes readings and all else that waits in a store, up to and with this number; how many rows. For a gateway without
    /// a cloud, whose operator read them out.
    ///
    /// # Errors
    /// As [`Spool::open`]; [`SpoolError::InUse`] while a gateway runs.
    pub fn forget(path: &Path, wrap: Box<dyn Wrap>, upto: u64) -> Result<usize, SpoolError> {
        let (spool, _) = Self::open(path, GatewayBoot([0; 8]), wrap)?;
        let upto = i64::try_from(upto).unwrap_or(i64::MAX);
        spool.db.execute("DELETE FROM spool WHERE seq <= ?1", [upto]).map_err(|e| spool.explain(&e))
    }

    /// Writes a record into the open transaction. Returns the bytes of envelopes that it deleted.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing since the last [`Spool::commit`] stays.
    pub fn write(&mut self, record: &Record) -> Result<u64, SpoolError> {
        let written = self.begin().and_then(|()| self.put(record));
        if written.is_err() {
            self.rollback();
        }
        written
    }

    fn begin(&mut self) -> Result<(), SpoolError> {
        if !self.open {
            self.db.execute_batch("BEGIN IMMEDIATE").map_err(|e| self.explain(&e))?;
            self.open = true;
        }
        Ok(())
    }

    fn put(&self, record: &Record) -> Result<u64, SpoolError> {
        let fail = |e| self.explain(&e);
        let run = |sql: &str, p: &[&dyn rusqlite::ToSql]| -> Result<(), SpoolError> {
            self.db.prepare_cached(sql).and_then(|mut s| s.execute(p)).map(drop).map_err(fail)
        };
        match record {
            Record::Accepted { context, number, hash } => run(
                "INSERT INTO numbers VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET number = excluded.number, hash = excluded.hash",
                params![context.0, number % 64, number, hash.0],
            )?,
            Record::Added { sid, epoch, context } => {
                let version = context.version as i64;
                let sealed = self
                    .wrap
                    .wrap(&added_name(*sid, *epoch, version), &context.bytes)
                    .map_err(|source| SpoolError::Sealed { path: self.path.clone(), source })?;
                run("INSERT OR REPLACE INTO added VALUES (?1, ?2, ?3, ?4)", params![sid.0, epoch.0, version, sealed])?;
            }
            Record::Agreed(context) => {
                let AgreedContext { sid, epoch, at, drains_since, ref bytes } = *context;
                let sealed = self
                    .wrap
                    .wrap(&agreed_name(sid, epoch), bytes)
                    .map_err(|source| SpoolError::Sealed { path: self.path.clone(), source })?;
                run(
                    "INSERT OR REPLACE INTO agreed VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![sid.0, epoch.0, at.0 as i64, drains_since.map(|ms| ms.0 as i64), sealed],
                )?;
            }
            Record::AnswerLease { context, bound } => run(
                "INSERT INTO contexts (context, bound) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET bound = MAX(bound, excluded.bound)",
                params![context.0, bound],
            )?,
            Record::BootOpened { family, boot } => {
                run("INSERT OR IGNORE INTO boots (family, boot) VALUES (?1, ?2)", params![family.0, boot.0])?;
                // What is used up of a family is used up in each of its boots.
                run(
                    "INSERT OR IGNORE INTO contexts (context, bound) SELECT ?1, bound FROM contexts WHERE context = ?2",
                    params![boot_name(*family, *boot).0, family.0],
                )?;
            }
            Record::Delivered { boot, upto } => {
                let upto = i64::try_from(*upto).unwrap_or(i64::MAX);
                let freed: i64 = self
                    .db
                    .prepare_cached("SELECT COALESCE(SUM(LENGTH(bytes)), 0) FROM spool WHERE seq <= ?1 AND boot = ?2")
                    .and_then(|mut s| s.query_row(params![upto, boot.0], |r| r.get(0)))
                    .map_err(fail)?;
                run("DELETE FROM spool WHERE seq <= ?1 AND boot = ?2", params![upto, boot.0])?;
                return Ok(freed as u64);
            }
            Record::Drains { sid, epoch, since } => run(
                "UPDATE agreed SET drains_since = ?3 WHERE sid = ?1 AND epoch = ?2",
                params![sid.0, epoch.0, since.0 as i64],
            )?,
            Record::Envelope { seq, bytes } => {
                let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
                run("INSERT INTO spool VALUES (?1, ?2, ?3)", params![seq, self.boot.0, &bytes[..]])?;
            }
            Record::Failures { context, count } => run(
                "INSERT INTO contexts (context, failures) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET failures = MAX(failures, excluded.failures)",
                params![context.0, count],
            )?,
            Record::Forgotten { context } => {
                run("DELETE FROM numbers WHERE context = ?1", params![context.0])?;
                // If it ever comes back, from a cloud that was put back from a copy, all of its numbers were used.
                run(
                    "INSERT INTO contexts (context, bound) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET bound = excluded.bound",
                    params![context.0, NUMBER_LIMIT],
                )?;
            }
            Record::HardenedWindow { name, window } => run(
                "INSERT INTO hardened VALUES (?1, ?2) ON CONFLICT DO UPDATE SET window = excluded.window",
                params![name.0, window],
            )?,
            Record::LinkLease { key, bound } => run(
                "INSERT INTO link_leases VALUES (?1, ?2) ON CONFLICT DO UPDATE SET bound = MAX(bound, excluded.bound)",
                params![key.0, bound],
            )?,
            Record::State(state) => {
                // Whatever was pushed while the past was lost has been asked for by now.
                run("UPDATE put_back SET is_open = 0", &[])?;
                run("DELETE FROM state", &[])?;
                run("DELETE FROM added WHERE version <= ?1", params![state.version as i64])?;
                for (part, plain) in state.parts.iter().enumerate() {
                    let (version, part) = (state.version as i64, part as i64);
                    let sealed = self
                        .wrap
                        .wrap(&state_name(version, part), plain)
                        .map_err(|source| SpoolError::Sealed { path: self.path.clone(), source })?;
                    let applied = state.applied.0 as i64;
                    run("INSERT INTO state VALUES (?1, ?2, ?3, ?4)", params![part, version, applied, sealed])?;
                }
            }
            Record::Unagreed { sid, epoch } => {
                run("DELETE FROM agreed WHERE sid = ?1 AND epoch = ?2", params![sid.0, epoch.0])?;
            }
        }
        Ok(0)
    }

    /// Makes everything since the last commit durable.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing since the last commit stays.
    pub fn commit(&mut self) -> Result<(), SpoolError> {
        if !self.open {
            return Ok(());
        }
        let done = self.db.execute_batch("COMMIT").map_err(|e| self.explain(&e));
        match done {
            Ok(()) => self.open = false,
            Err(_) => self.rollback(),
        }
        done
    }

    fn rollback(&mut self) {
        // After some failures SQLite has rolled back by itself.
        let _ = self.db.execute_batch("ROLLBACK");
        self.open = false;
    }

    /// Keeps why something was refused, for a while. Nothing waits for it, and nothing is lost that counts when it fails.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn note(&mut self, refusals: &[Refusal], now: Millis) -> Result<(), SpoolError> {
        if refusals.is_empty() {
            return Ok(());
        }
        self.begin()?;
        match why::keep(&self.db, refusals, now, &REFUSALS) {
            Ok(()) => self.commit(),
            Err(e) => {
                let why = self.explain(&e);
                self.rollback();
                Err(why)
            }
        }
    }

    /// Whether a write works at all.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn probe(&mut self) -> Result<(), SpoolError> {
        self.begin()?;
        let touched = self.db.execute("INSERT OR REPLACE INTO link_leases VALUES (x'', 0)", []);
        match touched {
            Ok(_) => self.commit(),
            Err(e) => {
                let why = self.explain(&e);
                self.rollback();
                Err(why)
            }
        }
    }

    /// Whether something waits for [`Spool::commit`].
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Answers a question of the engine; it sees what was written and not yet committed.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn answer(&self, lookup: Lookup) -> Result<Stored, SpoolError> {
        let fail = |e| self.explain(&e);
        Ok(match lookup {
            Lookup::Boot { ticket, family, boot } => {
                let opened: bool = self
                    .db
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM boots WHERE family = ?1 AND boot = ?2)")
                    .and_then(|mut s| s.query_row(params![family.0, boot.0], |r| r.get(0)))
                    .map_err(fail)?;
                Stored::Boot { ticket, opened, bound: self.known(family).map_err(fail)?.unwrap_or_default().0 }
            }
            Lookup::Context(context) => {
                let numbers = self.numbers(context).map_err(fail)?;
                restored::spend_unknown(&self.db, context).map_err(fail)?;
                let (bound, failures) = self.known(context).map_err(fail)?.unwrap_or_default();
                Stored::Context { context, numbers, bound, failures }
            }
            Lookup::Family(family) => {
                restored::spend_unknown(&self.db, family).map_err(fail)?;
                let boots: rusqlite::Result<Vec<BootContext>> = self
                    .db
                    .prepare_cached("SELECT boot FROM boots WHERE family = ?1 ORDER BY n DESC LIMIT 2")
                    .and_then(|mut s| s.query_map(params![family.0], |r| Ok(BootContext(r.get(0)?)))?.collect());
                let mut boots = boots.map_err(fail)?;
                boots.reverse();
                Stored::Family { family, boots }
            }
            Lookup::Hash { ticket, context, number } => {
                let hash: Option<[u8; 16]> = self
                    .db
                    .prepare_cached("SELECT hash FROM numbers WHERE context = ?1 AND slot = ?2 AND number = ?3")
                    .and_then(|mut s| s.query_row(params![context.0, number % 64, number], |r| r.get(0)).optional())
                    .map_err(fail)?;
                Stored::Hash { ticket, hash: hash.map(CiphertextHash) }
            }
        })
    }

    /// Bound and failures of a context.
    fn known(&self, context: ContextName) -> rusqlite::Result<Option<(u32, u32)>> {
        self.db
            .prepare_cached("SELECT bound, failures FROM contexts WHERE context = ?1")
            .and_then(|mut s| s.query_row(params![context.0], |r| Ok((r.get(0)?, r.get(1)?))).optional())
    }

    /// When the envelope was received that waits the longest.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn oldest(&self) -> Result<Option<Millis>, SpoolError> {
        let first: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT bytes FROM spool ORDER BY seq LIMIT 1")
            .and_then(|mut s| s.query_row([], |r| r.get(0)).optional())
            .map_err(|e| self.explain(&e))?;
        Ok(first.and_then(|bytes| Some(Envelope::parse(&bytes).ok()?.received)))
    }

    fn numbers(&self, context: ContextName) -> rusqlite::Result<Vec<u32>> {
        let mut query = self.db.prepare_cached("SELECT number FROM numbers WHERE context = ?1")?;
        query.query_map(params![context.0], |r| r.get(0))?.collect()
    }

    /// A second, read-only look at the envelopes, for the uplink.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn reader(&self) -> Result<SpoolReader, SpoolError> {
        SpoolReader::open(&self.path)?
            .ok_or_else(|| SpoolError::Io { path: self.path.clone(), detail: "it was made and is gone".to_owned() })
    }

    fn explain(&self, e: &rusqlite::Error) -> SpoolError {
        let explained = explain(&self.path, e);
        if !matches!(explained, SpoolError::Full { .. }) {
            self.failed.store(true, Ordering::Relaxed);
        }
        explained
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is not committed goes back by itself.
        if !self.open && !self.failed.load(Ordering::Relaxed) {
            closed::leave(&self.db, &self.path);
        }
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("path", &self.path).finish_non_exhaustive()
    }
}

fn added_name(sid: Sid, epoch: Epoch, version: i64) -> String {
    format!("gateway context {sid} {epoch} of {version}")
}

fn agreed_name(sid: Sid, epoch: Epoch) -> String {
    format!("gateway agreed context {sid} {epoch}")
}

fn state_name(version: i64, part: i64) -> String {
    format!("gateway state {version} part {part}")
}

fn explain(path: &Path, e: &rusqlite::Error) -> SpoolError {
    let (path, detail) = (path.to_path_buf(), e.to_string());
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => SpoolError::Damaged { path, detail },
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure) => {
            SpoolError::Full { path, detail }
        }
        _ => SpoolError::Io { path, detail },
    }
}
