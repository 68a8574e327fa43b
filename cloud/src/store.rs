//! The embedded store: one SQLite file, one writer thread, many readers.
//!
//! Writes are grouped: whatever waits while one commit runs goes into the next, so that a thousand messages cost one
//! `fsync` and a single one costs no delay. A write is answered only when it is durable (W7), and the ledger's unique key
//! decides what is new: there is no window that could forget.

mod alarms;
mod classic;
mod evidence;
mod heard;
mod held;
mod imported;
mod limits;
mod log;
mod outbox;
mod proof;
mod raised;
mod read;
mod reseal;
mod restored;
mod tokens;
mod unknown_rows;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use fivefold_core::error::{Code, Rejected, Severity};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::KeyIndexes;
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::why::{Detail, FrameId, Refusal};
use fivefold_keep::closed::{self, Left};
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::format::Newer;
use fivefold_keep::migrate::{Formats, Stopped};
use fivefold_keep::vault::VaultError;
use fivefold_keep::why::{self, A_SECOND};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::accepted::{Accepted, ContextId, MessageHash};
use crate::classic::{ClassicFrame, UnknownFrame};
use crate::limits::Taken;

pub use alarms::{AlarmRow, AlarmWrite, MOST_ALARMS, SinkRow};
pub use classic::{ClassicRow, Published, PublishedRow, QuarantinedRow, UnknownRow};
pub use evidence::{BatchPast, Claims, Closed, Evidence, LeavesRow, OPEN, PART, PARTS, PartRow, State, StatementRow};
pub use heard::{HeardRow, Hearing, Kept, Leaves};
pub use held::{Held, HeldRow, Release};
pub use imported::{
    ImportBatch, ImportNote, ImportedFrame, ImportedNode, ImportedRow, ImportedValue, Imports, MOST_NOTES, Run,
    SeenRow, seen_classic,
};
pub use limits::{Measured, PartSize, Stepped};
pub use log::{LogRecord, LogWrite, Placed, Waiting};
pub use outbox::{
    Asked, Dead, DeadRow, MOST_DEAD, OutboxMove, OutboxPage, OutboxReading, OutboxRow, OutboxSink, OutboxWrite,
};
pub use proof::{EvidenceRow, Proof};
pub use raised::{Raised, RaisedRow};
pub use read::{CountRow, GatewaySummary, Page, Query, Reader, ReadingRow, Recent, Report};
pub use reseal::reseal;
pub use restored::restored;
pub use tokens::{TokenUse, token_uses};
pub use unknown_rows::UnknownRows;

const MIGRATIONS: &[&str] = &[
    include_str!("store/migrations/0001_ledger.sql"),
    include_str!("store/migrations/0002_link_keys.sql"),
    include_str!("store/migrations/0003_renewal.sql"),
    include_str!("store/migrations/0004_rotation.sql"),
    include_str!("store/migrations/0005_restored.sql"),
    include_str!("store/migrations/0006_classic.sql"),
    include_str!("store/migrations/0007_imported.sql"),
    include_str!("store/migrations/0008_evidence.sql"),
    include_str!("store/migrations/0009_log.sql"),
    include_str!("store/migrations/0010_batches.sql"),
    include_str!("store/migrations/0011_templates.sql"),
    include_str!("store/migrations/0012_heard.sql"),
    include_str!("store/migrations/0013_parts.sql"),
    include_str!("store/migrations/0014_paths.sql"),
    include_str!("store/migrations/0015_alarms.sql"),
    include_str!("store/migrations/0016_published.sql"),
    why::SCHEMA,
    include_str!("store/migrations/0018_tokens.sql"),
    include_str!("store/migrations/0019_limits.sql"),
    include_str!("store/migrations/0020_outbox.sql"),
    include_str!("store/migrations/0021_held.sql"),
];
/// Pages that the journal takes before it starts anew.
const JOURNAL_PAGES: i64 = 8192;
/// Bytes of the journal at its full length: it stays as long, so it always counts as taken.
pub const JOURNAL: u64 = JOURNAL_PAGES as u64 * (4096 + 24);
/// Rows that one transaction takes before it commits, when more is waiting.
const GROUP: usize = 4096;

/// What a context may be used for (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// In use.
    Active,
    /// Known, not yet seen in use.
    Pending,
    /// A newer one is in use: receive only, for T_drain.
    Draining,
}

impl Standing {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Draining => "draining",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Active => 1,
            Self::Pending => 2,
            Self::Draining => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Active),
            2 => Some(Self::Pending),
            3 => Some(Self::Draining),
            _ => None,
        }
    }
}

/// A context as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRow {
    /// Its row.
    pub id: ContextId,
    /// Network of the device.
    pub net: Net,
    /// The device.
    pub did: Did,
    /// 3, 2 or 1.
    pub level: u8,
    /// Key generation.
    pub epoch: Epoch,
    /// Boot, in mode R.
    pub bctx: Option<BootContext>,
    /// What it may be used for.
    pub standing: Standing,
    /// Since when.
    pub since: Millis,
    /// Its secrets under the vault, so that it outlives a restart
    /// ([`ContextSecrets`](crate::context::ContextSecrets)).
    pub sealed: Option<Vec<u8>>,
    /// How it was agreed; `None` if it was installed.
    pub agreed: Option<AgreedBy>,
    /// Failed verifications so far.
    pub failures: u32,
    /// Our own sender numbers below this may have been used.
    pub bound: u32,
    /// When the store was put back from a copy, if it was there then.
    pub restored_at: Option<Millis>,
}

/// The run of EDHOC that made a context (docs/protocol.md 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreedBy {
    /// When message_3 was verified.
    pub at: Millis,
    /// SHA-256 of message_3.
    pub m3: [u8; 32],
    /// The message_4 that answers it.
    pub m4: fivefold_core::e5_renewal::Message,
}

/// Who refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Here.
    Cloud,
    /// A gateway, which reported it.
    Gateway,
}

impl Place {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Gateway => "gateway",
        }
    }
}

/// What one counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountKey {
    /// The code.
    pub code: Code,
    /// Network, where it is known.
    pub net: Option<Net>,
    /// Gateway, where it is known.
    pub gateway: Option<GatewayId>,
    /// Device, where it is known or claimed.
    pub sid: Option<Sid>,
    /// Who counted.
    pub place: Place,
}

/// A message that opened and must not be shown: kept for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Why.
    pub code: Code,
    /// Under which context.
    pub context: ContextId,
    /// Sender number.
    pub piv: u64,
    /// Its hash.
    pub hash: MessageHash,
    /// Who brought it.
    pub gateway: GatewayId,
    /// When.
    pub at: Millis,
    /// What was inside.
    pub payload: Vec<u8>,
}

/// A message that no context opens yet (mode R): kept for 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Network.
    pub net: Net,
    /// Device.
    pub sid: Sid,
    /// When it came.
    pub at: Millis,
    /// Who brought it.
    pub gateway: GatewayId,
    /// Tells repeats apart.
    pub hash: MessageHash,
    /// The envelope.
    pub envelope: Vec<u8>,
}

/// Orphans kept for one device, at most.
pub const ORPHANS: usize = 32;
/// How long an orphan is kept, in milliseconds.
pub const ORPHAN_LIFE: u64 = 24 * 3600 * 1000;

/// A gateway's receipt, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Its network, for counters.
    pub net: Net,
    /// Who signed.
    pub gateway: GatewayId,
    /// In which run.
    pub boot: GatewayBoot,
    /// Number of the first envelope.
    pub first: u64,
    /// How many; at least 1.
    pub count: u64,
    /// Root over them.
    pub root: Hash,
    /// When it came.
    pub at: Millis,
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
}

/// A command for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// The device.
    pub did: Did,
    /// Grows per device.
    pub id: u64,
    /// What to do.
    pub op: u64,
    /// CBOR items, one after the other.
    pub args: Vec<u8>,
    /// When it was given.
    pub at: Millis,
}

/// A command, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandState {
    /// The command.
    pub command: CommandRow,
    /// When its result came, and the status in it (0: done).
    pub done: Option<(Millis, u64)>,
}

/// A device's result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The device.
    pub did: Did,
    /// Which command.
    pub id: u64,
    /// 0: done.
    pub status: u64,
    /// One CBOR item.
    pub value: Option<Vec<u8>>,
    /// When it came.
    pub at: Millis,
}

/// Which network keys a device said last that it has (control item 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// Their indexes.
    pub keys: KeyIndexes,
    /// When it said so first.
    pub since: Millis,
    /// When it said so last.
    pub at: Millis,
}

impl LinkReport {
    /// It says `keys` now, after `before`.
    pub fn after(before: Option<Self>, keys: KeyIndexes, now: Millis) -> Self {
        let since = before.filter(|b| b.keys == keys).map_or(now, |b| b.since);
        Self { keys, since, at: now }
    }
}

/// Everything that one batch makes durable, in one transaction. Parts are carried out in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// When, for counters.
    pub now: Millis,
    /// Contexts that may be new.
    pub contexts: Vec<ContextRow>,
    /// Contexts whose standing changed.
    pub standings: Vec<(ContextId, Standing, Millis)>,
    /// Contexts whose secrets are to be erased.
    pub forgotten: Vec<ContextId>,
    /// Pending contexts that will never be used: nothing was received under them.
    pub dropped: Vec<ContextId>,
    /// Whether gateways are to be pushed something else after this: then it makes a new generation.
    pub new_generation: bool,
    /// Failed verifications, as totals.
    pub failures: Vec<(ContextId, u32)>,
    /// Sender numbers that will be used, as bounds (W1).
    pub leases: Vec<(ContextId, u32)>,
    /// Ledger rows and readings in one.
    pub accepted: Vec<Accepted>,
    /// Classic frames, those that are no readings too.
    pub classic: Vec<ClassicFrame>,
    /// Classic frames of strangers.
    pub unknown: Vec<UnknownFrame>,
    /// Authentic messages that are not shown.
    pub quarantined: Vec<Quarantined>,
    /// Messages that nothing opens yet.
    pub orphans: Vec<Orphan>,
    /// Orphans that found their context.
    pub adopted: Vec<MessageHash>,
    /// What devices signed.
    pub evidence: Evidence,
    /// What goes to the log, and where it stands there.
    pub log: LogWrite,
    /// The receipt over the batch.
    pub receipt: Option<ReceiptRow>,
    /// Envelopes of the batch that the receipt is to prove.
    pub hearing: Hearing,
    /// New commands.
    pub commands: Vec<CommandRow>,
    /// Results of commands.
    pub results: Vec<ResultRow>,
    /// Rows of templates that nobody registered, by device, with the template's id.
    pub unknown_rows: Vec<(Did, u64)>,
    /// Control maps in which devices said how they are.
    pub reports: Vec<(Did, Vec<u8>)>,
    /// Network keys that devices said they have.
    pub link_keys: Vec<(Did, KeyIndexes)>,
    /// Network keys that will be put into answers to devices, by index.
    pub link_told: Vec<(Did, u8)>,
    /// Versions of the gateway state that will be pushed.
    pub pushed: Vec<(GatewayId, u64)>,
    /// What a broker has acknowledged of classic values.
    pub published: Option<Published>,
    /// What was refused, and how often.
    pub counts: Vec<(CountKey, u64)>,
    /// The same where who saw it says how severe it is.
    pub said: Vec<(CountKey, u64, Severity)>,
    /// What became of alarms at their sinks.
    pub alarms: AlarmWrite,
    /// Tokens of the API that are used.
    pub token_uses: Vec<TokenUse>,
    /// What became of readings at their sinks.
    pub outbox: OutboxWrite,
    /// Why, of some of it.
    pub refusals: Vec<Refusal>,
    /// Whether somebody asks if anything can be written.
    pub probe: bool,
}

impl Write {
    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.contexts.is_empty()
            && self.standings.is_empty()
            && self.forgotten.is_empty()
            && self.dropped.is_empty()
            && !self.new_generation
            && self.failures.is_empty()
            && self.leases.is_empty()
            && self.accepted.is_empty()
            && self.classic.is_empty()
            && self.unknown.is_empty()
            && self.quarantined.is_empty()
            && self.orphans.is_empty()
            && self.adopted.is_empty()
            && self.evidence.is_empty()
            && self.log.is_empty()
            && self.receipt.is_none()
            && self.hearing.kept.is_empty()
            && self.commands.is_empty()
            && self.results.is_empty()
            && self.unknown_rows.is_empty()
            && self.reports.is_empty()
            && self.link_keys.is_empty()
            && self.link_told.is_empty()
            && self.pushed.is_empty()
            && self.published.is_none()
            && self.counts.is_empty()
            && self.said.is_empty()
            && self.alarms.is_empty()
            && self.token_uses.is_empty()
            && self.outbox.is_empty()
            && self.refusals.is_empty()
            && !self.probe
    }

    /// Rows of the ledger.
    const fn rows(&self) -> usize {
        self.accepted.len() + self.classic.len()
    }

    /// Counts once more under `key`.
    pub fn count(&mut self, key: CountKey) {
        match self.counts.iter_mut().find(|(k, _)| *k == key) {
            Some((_, n)) => *n += 1,
            None => self.counts.push((key, 1)),
        }
    }

    /// Explains what was counted: of each code so often as it is kept.
    pub fn explain(&mut self, refusal: Refusal) {
        let code = refusal.rejected.code;
        if self.refusals.iter().filter(|r| r.rejected.code == code).count() < A_SECOND as usize {
            self.refusals.push(refusal);
        }
    }

    /// Counts and explains what came in no envelope.
    pub fn refuse(&mut self, key: CountKey, rejected: Rejected) {
        self.count(key);
        self.explain(refusal(key, rejected, self.now));
    }
}

/// The explanation of what came in no envelope, or in none that was looked at.
pub(crate) fn refusal(key: CountKey, rejected: Rejected, at: Millis) -> Refusal {
    let CountKey { code, net, gateway, sid, .. } = key;
    Refusal { id: FrameId::of_event(code, at, sid), at, rejected, detail: Detail::default(), net, gateway, sid }
}

/// What the ledger said of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not there.
    New,
    /// The same message was there (E2-05, E3-05).
    Dup {
        /// Who brought it first.
        gateway: GatewayId,
        /// When.
        ingested: Millis,
    },
    /// Another message was there under this number (E2-06, E3-06).
    NonceReuse,
}

/// What the store said of a gateway's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceVerdict {
    /// They go on where they stopped.
    #[default]
    InOrder,
    /// Numbers are missing in between (E4-03).
    Gap,
    /// They were here before, with the same content or in another grouping.
    Repeat,
    /// They were here before, with other content (E4-03).
    Different,
}

/// The outcome of a [`Write`] that is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// One for each accepted row, in order.
    pub verdicts: Vec<Verdict>,
    /// The same for classic frames.
    pub classic: Vec<Verdict>,
    /// Of the receipt.
    pub sequence: SequenceVerdict,
    /// The new generation, if it made one.
    pub generation: Option<u64>,
}

/// Why the store failed. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened or written.
    #[error("the store {path}: {source}; nothing that was accepted is lost", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It is damaged.
    #[error("the store {path} is damaged ({reason}); move it away and restore a backup", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// There is no room left.
    #[error("the disk of {path} is full; free some space, gateways keep what is not acknowledged", path = path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path} is in use by another cloud process; stop that one first", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A secret in it did not open.
    #[error("the store {path}: {source}", path = path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VaultError,
    },
    /// It was written by an earlier version, and is only to be read.
    #[error("{path} has format {found}, this version reads {known}; start the cloud once, which brings it there", path = path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// As found.
        found: usize,
        /// As read.
        known: usize,
    },
    /// The mark beside it, of how it was closed, cannot be removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is of a later format, or was not brought to the present one.
    #[error("the store {0}")]
    Format(Stopped),
    /// The writer thread is gone.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::TooOld { .. } => true,
            Self::Sealed { source, .. } => source.is_lasting(),
            Self::File(e) => e.is_lasting(),
            Self::Format(stopped) => stopped.is_lasting(),
            Self::Database { .. } | Self::Full { .. } | Self::InUse { .. } | Self::Closed => false,
        }
    }

    fn newer(path: &Path, found: usize, known: usize) -> Self {
        let newer = Newer::new(path.display(), i64::try_from(found).unwrap_or(i64::MAX), known as i64);
        Self::Format(newer.into())
    }

    fn of(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as E;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(E::DatabaseCorrupt | E::NotADatabase) => Self::Damaged { path, reason: source.to_string() },
            Some(E::DiskFull) => Self::Full { path },
            _ => Self::Database { path, source },
        }
    }
}

/// Where accepted messages become durable. The embedded store is one; the engine knows no more than this of any.
pub trait Ledger: Send + Sync {
    /// Makes all of `write` durable, or nothing of it.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing of it may be acknowledged.
    fn commit(&self, write: Arc<Write>) -> impl Future<Output = Result<Committed, StoreError>> + Send;
}

/// What waits for the writer.
enum Job {
    Write(Waits),
    /// Between two groups.
    Between(limits::Task, oneshot::Sender<Result<Stepped, StoreError>>),
    /// Nothing: somebody asks whether its turn comes.
    Turn(oneshot::Sender<()>),
    /// A mistake of ours.
    #[cfg(test)]
    Panic,
}

struct Waits {
    write: Arc<Write>,
    done: oneshot::Sender<Result<Committed, StoreError>>,
}

/// The embedded store. Dropping it waits until what was handed in is written.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
    next_context: std::sync::atomic::AtomicI64,
    empty_at_start: bool,
    taken: Arc<Mutex<Taken>>,
    _lock: File,
}

/// Opens the database for changes, if it is whole, and brings it to this version's format. Who calls this has the lock.
fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let left = closed::take(path)?;
    // If it cannot be made, SQLite says why.
    let _ = files::ensure(path, Readers::Everybody);
    let mut db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    if left == Left::Unknown {
        tracing::info!(path = %path.display(), "{UNKNOWN}");
        check(&db, path)?;
    }
    db.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    migrate(&mut db, path)?;
    Ok(db)
}

/// What is said before a store is read through.
const UNKNOWN: &str = "whoever wrote to the store last did not close it, so all of it is read through before anything is accepted; \
                       the larger it is, the longer that takes";

/// Reads all of the database.
fn check(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let checked = db.query_row("PRAGMA quick_check(1)", [], |r| r.get::<_, String>(0));
    match checked.map_err(|source| StoreError::of(path, source))? {
        ok if ok == "ok" => Ok(()),
        reason => Err(StoreError::Damaged { path: path.to_owned(), reason }),
    }
}

/// Opens the database for changes beside a cloud that may have it open too, in another process.
fn beside(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::of(path, source);
    let current = || -> rusqlite::Result<bool> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
        Ok(usize::try_from(version) == Ok(MIGRATIONS.len()))
    };
    if !path.exists() || !current().map_err(failed)? {
        let _lock = lock(path)?;
        drop(open(path)?);
    }
    let db = Connection::open(path).map_err(failed)?;
    // A cloud's transactions are short.
    db.busy_timeout(Duration::from_secs(60)).map_err(failed)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(db)
}

impl Store {
    /// Opens or makes the store, brings it to this version's format, and starts its writer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::of(path, source);
        let lock = lock(path)?;
        let mut db = open(path)?;
        db.pragma_update(None, "cache_size", -65_536).map_err(failed)?;
        db.pragma_update(None, "temp_store", "MEMORY").map_err(failed)?;
        db.pragma_update(None, "wal_autocheckpoint", JOURNAL_PAGES).map_err(failed)?;
        // While somebody reads, a backup for one, it grows beyond that; when it starts anew, what is too long is cut off.
        db.pragma_update(None, "journal_size_limit", JOURNAL as i64).map_err(failed)?;
        let last: i64 = db.query_row("SELECT coalesce(max(id), 0) FROM context", [], |r| r.get(0)).map_err(failed)?;
        let rows: i64 = db.query_row("SELECT EXISTS (SELECT 1 FROM reading)", [], |r| r.get(0)).map_err(failed)?;
        let (jobs, queue) = mpsc::channel();
        let at = path.to_owned();
        let taken = Arc::new(Mutex::new(taken_by(&db, path).map_err(failed)?));
        let now_taken = taken.clone();
        let writer = std::thread::Builder::new()
            .name("store writer".into())
            .spawn(move || {
                // What failed may have left more behind than a power cut does: then the next start looks.
                if run(&mut db, &queue, &at, &now_taken) == Writing::Sound {
                    closed::leave(&db, &at);
                }
            })
            .map_err(|e| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        Ok(Self {
            path: path.to_owned(),
            jobs: Some(jobs),
            writer: Some(writer),
            next_context: std::sync::atomic::AtomicI64::new(last + 1),
            empty_at_start: rows == 0,
            taken,
            _lock: lock,
        })
    }

    /// A row for a context that is not written yet.
    pub fn new_context(&self) -> ContextId {
        ContextId(self.next_context.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// Whether there was no reading when it was opened: then nothing has to be looked up that memory does not know.
    pub const fn was_empty(&self) -> bool {
        self.empty_at_start
    }

    /// What it takes of the disk.
    pub fn taken(&self) -> Taken {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn reader(&self) -> Result<Reader, StoreError> {
        read::read_only(&self.path)
    }

    fn send(&self, write: Arc<Write>) -> oneshot::Receiver<Result<Committed, StoreError>> {
        let (done, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // If the writer is gone, `done` is dropped with the job, and the receiver says so.
            let _ = jobs.send(Job::Write(Waits { write, done }));
        }
        answer
    }

    /// Returns when the writer has done what waited before this.
    ///
    /// # Errors
    /// [`StoreError::Closed`]: it has ended.
    pub async fn turn(&self) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job::Turn(done));
        }
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Whether its writer is there. Without it, nothing is accepted any more.
    pub fn has_writer(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| !writer.is_finished())
    }

    /// Ends the writer as a panic does.
    #[cfg(test)]
    pub(crate) fn break_writer(&self) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job::Panic);
        }
    }

    fn between(&self, task: limits::Task) -> Result<Stepped, StoreError> {
        let (done, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job::Between(task, done));
        }
        answer.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// [`Ledger::commit`] for threads that may wait.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn commit_now(&self, write: Write) -> Result<Committed, StoreError> {
        self.send(Arc::new(write)).blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Ledger for Store {
    async fn commit(&self, write: Arc<Write>) -> Result<Committed, StoreError> {
        self.send(write).await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was reported by the thread itself.
            let _ = writer.join();
        }
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |e: std::io::Error| StoreError::Database {
        path: path.to_owned(),
        source: rusqlite::Error::ToSqlConversionFailure(Box::new(e)),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = files::open_or_create(Path::new(&name), Readers::Everybody).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let formats = Formats { oldest: 0, known: MIGRATIONS.len() as i64 };
    // What it cannot say is said below.
    if let Ok(found @ 1..) = formats.of(db, path)
        && found < formats.known
    {
        let (path, now) = (path.display(), formats.known);
        tracing::info!(%path, found, now, "the store is brought to a new format; the larger it is, the longer that takes");
    }
    let step = |db: &Connection, to: i64| {
        let sql = usize::try_from(to - 1).ok().and_then(|n| MIGRATIONS.get(n));
        sql.map_or(Ok(()), |sql| db.execute_batch(sql))
    };
    let begun = formats.step_by_step(db, path, &step).map_err(|stopped| match stopped {
        Stopped::Database { path, source } => StoreError::of(&path, source),
        stopped => StoreError::Format(stopped),
    })?;
    if let Some(found @ 1..) = begun {
        tracing::info!(path = %path.display(), found, now = formats.known, "the store has a new format");
    }
    Ok(())
}

/// Whether everything that was written is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Sound,
    /// Something failed that is no full disk.
    Failed,
}

impl Writing {
    fn met(&mut self, error: &StoreError) {
        if !matches!(error, StoreError::Full { .. }) {
            *self = Self::Failed;
        }
    }
}

/// The writer: takes what waits, up to a group, and commits it as one. What is done between two groups waits its turn, too.
fn run(db: &mut Connection, queue: &mpsc::Receiver<Job>, path: &Path, taken: &Mutex<Taken>) -> Writing {
    let mut writing = Writing::Sound;
    let mut next = None;
    while let Some(job) = next.take().or_else(|| queue.recv().ok()) {
        match job {
            Job::Between(task, done) => {
                let outcome = limits::carry_out(db, &task).map_err(|e| StoreError::of(path, e));
                let outcome = outcome.inspect_err(|e| writing.met(e));
                let _ = done.send(outcome);
            }
            Job::Write(first) => next = commit(db, queue, (path, &mut writing), first),
            Job::Turn(done) => {
                let _ = done.send(());
                continue;
            }
            #[cfg(test)]
            Job::Panic => panic!("as a mistake of ours does"),
        }
        if let Ok(now) = taken_by(db, path) {
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }
    writing
}

/// Commits a group. What comes back was found behind it and is no part of one.
fn commit(
    db: &mut Connection,
    queue: &mpsc::Receiver<Job>,
    (path, writing): (&Path, &mut Writing),
    first: Waits,
) -> Option<Job> {
    let mut next = None;
    let mut rows = first.write.rows();
    let mut jobs = vec![first];
    while rows < GROUP {
        match queue.try_recv() {
            Ok(Job::Write(job)) => {
                rows += job.write.rows();
                jobs.push(job);
            }
            other => {
                next = other.ok();
                break;
            }
        }
    }
    let outcome = write::group(db, jobs.iter().map(|j| &*j.write));
    match outcome {
        Ok(all) => {
            for (job, committed) in jobs.into_iter().zip(all) {
                let _ = job.done.send(Ok(committed));
            }
        }
        Err(error) => {
            tracing::error!(%error, "the store refused a transaction");
            for job in jobs {
                let again = StoreError::of(path, again(&error));
                writing.met(&again);
                let _ = job.done.send(Err(again));
            }
        }
    }
    next
}

/// Pages of the file, and the journal beside it, which is about to be as long as it gets ([`JOURNAL`]).
fn taken_by(db: &Connection, path: &Path) -> rusqlite::Result<Taken> {
    let sql = "SELECT (p.page_count - f.freelist_count) * s.page_size, f.freelist_count * s.page_size
               FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s";
    let (pages, spare): (i64, i64) = db.prepare_cached(sql)?.query_row([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    let journal = std::fs::metadata(PathBuf::from(journal)).map_or(0, |m| m.len()).max(JOURNAL);
    let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Taken { used: bytes(pages).saturating_add(journal), spare: bytes(spare) })
}

/// rusqlite's errors are not `Clone`; what is told to each of a group is what SQLite said.
fn again(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(e, text) => rusqlite::Error::SqliteFailure(*e, text.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
