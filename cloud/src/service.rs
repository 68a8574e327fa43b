//! What the running cloud shares: the engine, the operator's registry behind it, and who is told when either changes.

mod key_messages;
mod limits;
mod renewal;
mod rotations;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use fivefold_keep::registry::{By, Certificate, Registry, RegistryError};
use fivefold_keep::tls::{LiveIdentity, LiveRoll, Serial};
use fivefold_keep::vault::Vault;
use tokio::sync::watch;

use crate::book::{Book, Maker, Remembered, Source};
use crate::cloud::{BatchRefused, Cloud, RenewalSettings};
use crate::embedded::Embedded;
use crate::enrol::Desk;
use crate::health::Looked;
use crate::key_desk::KeyDesk;
use crate::limits::Full;
use crate::log::{EVIDENCE_LOG, Events, Logging, LoggingError};
use crate::notes::Notes;
use crate::push::{self, Push, PushError};
use crate::selfcheck::SelfCheck;
use crate::store::{Committed, CountKey, Ledger as _, Place, Store, StoreError, Write};

pub use limits::{Keeper, Usage};
pub use renewal::{ExchangeError, reply};

/// Why the service failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The gateway's state could not be built.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The registry did not give what is in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("the system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl ServiceError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Push(_) | Self::Thread(_) => false,
            Self::Registry(e) => e.is_lasting(),
            Self::Store(e) => e.is_lasting(),
        }
    }
}

/// Why a batch got no reply of its own.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// It was refused.
    #[error("{}", .0.rejected)]
    Refused(BatchRefused),
    /// There is no room: nothing of it was looked at (E4-04).
    #[error("{0}")]
    Full(Full),
    /// The store failed: nothing of it is acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is durable, and its answer could not be made: it is answered when it comes again.
    #[error("the answer to a batch could not be made")]
    Unanswered,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    /// The engine.
    pub cloud: Cloud<Embedded>,
    /// Certificates of gateways that count: consulted by every handshake.
    pub roll: Arc<LiveRoll>,
    /// Issues certificates.
    pub desk: Desk,
    /// When it started.
    pub started: Millis,
    registry: PathBuf,
    vault: Arc<Vault>,
    // What listeners show.
    identity: Option<LiveIdentity>,
    // Counts commits that stored something.
    stored: watch::Sender<u64>,
    // Version of the book in use.
    version: watch::Sender<u64>,
    // Generation of what gateways are pushed of contexts.
    generation: watch::Sender<u64>,
    // Counts new rolls: whoever holds a connection looks whether it still may.
    rolls: watch::Sender<u64>,
    // Version of the history that the roll is of.
    history: AtomicU64,
    reading: Mutex<Registry>,
    // When the store was put back from a copy.
    restored: Option<Millis>,
    notes: Notes,
    // What was queued for the log.
    events: Mutex<Events>,
    logging: Option<Arc<Logging>>,
    selfcheck: Option<SelfCheck>,
    pub(crate) health: Looked,
    keeper: Option<Keeper>,
    // Seconds that sinks of readings let them wait on purpose, by name.
    gathering: BTreeMap<String, u64>,
    work: renewal::Work,
    // Serves key messages of classic nodes. Taken behind `reading` or alone, never before it.
    keys: Mutex<KeyDesk>,
}

impl Service {
    /// Opens store and registry.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn open(
        store: Store,
        registry: PathBuf,
        vault: Arc<Vault>,
        renewals: RenewalSettings,
        now: Millis,
    ) -> Result<Self, ServiceError> {
        let mut book = Registry::open(&registry, by_itself(now))?;
        let identity = book.cloud_identity(&vault)?;
        let notes = Notes::start(book)?;
        let reading = Registry::open_read_only(&registry)?;
        let memory = Embedded::new(store);
        let remembered = memory.remembered()?;
        let pushed = memory.read(|r| r.pushed())?;
        let restored = memory.read(|r| r.restored())?;
        // Before what it stands for: what changes meanwhile is read again.
        let history = reading.history_version()?;
        let roll = Arc::new(LiveRoll::from_pointee(reading.roll()?));
        let source = Source::read(&reading, &vault, &Book::default())?;
        let mut keys = KeyDesk::default();
        keys.follow(&reading, &vault)?;
        // A store that was restored from a copy must not say anything under a version of before (docs/protocol.md 8.4).
        let mut write = Write { now, new_generation: true, ..Write::default() };
        let maker = Maker {
            vault: Some(&vault),
            new_context: &|| memory.store().new_context(),
            fresh_store: memory.store().was_empty(),
            restored,
            now,
        };
        let book = maker.book(source, &Book::default(), remembered, &mut write);
        let mut events = Events::of(&memory.read(|r| r.log_records())?);
        write.log.records = events.news(&book, restored);
        events.take(&write.log.records);
        let generation = memory.store().commit_now(write)?.generation.unwrap_or(0);
        let version = watch::Sender::new(book.version);
        let this = Self {
            cloud: Cloud::new(book, memory, pushed).with_identity(identity).with_renewals(renewals),
            roll,
            desk: Desk::default(),
            started: now,
            registry,
            vault,
            identity: None,
            stored: watch::Sender::new(0),
            version,
            generation: watch::Sender::new(generation),
            rolls: watch::Sender::new(0),
            history: AtomicU64::new(history),
            reading: Mutex::new(reading),
            restored,
            notes,
            events: Mutex::new(events),
            logging: None,
            selfcheck: None,
            health: Looked::default(),
            keeper: None,
            gathering: BTreeMap::new(),
            work: renewal::Work::default(),
            keys: Mutex::new(keys),
        };
        this.tell_deeds(&this.reading.lock().unwrap_or_else(PoisonError::into_inner), now)?;
        Ok(this)
    }

    /// The same with what issues certificates; without, it issues none.
    #[must_use]
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    /// The same with a log.
    #[must_use]
    pub fn with_logging(self, logging: Logging) -> Self {
        Self { logging: Some(Arc::new(logging)), ..self }
    }

    /// The same with an audit of itself.
    #[must_use]
    pub fn with_selfcheck(self, selfcheck: SelfCheck) -> Self {
        Self { selfcheck: Some(selfcheck), ..self }
    }

    /// The same, knowing which sinks of readings let them wait on purpose.
    #[must_use]
    pub fn with_outbox(self, sinks: &[fivefold_sinks::Settings]) -> Self {
        Self { gathering: sinks.iter().map(|s| (s.name.clone(), s.gathers().as_secs())).collect(), ..self }
    }

    /// Seconds that a reading may wait on purpose for this sink.
    pub fn gathers(&self, sink: &str) -> u64 {
        self.gathering.get(sink).copied().unwrap_or(0)
    }

    /// The audit of itself.
    pub const fn selfcheck(&self) -> Option<&SelfCheck> {
        self.selfcheck.as_ref()
    }

    /// When the store was put back from a copy, by the procedure.
    pub const fn restored(&self) -> Option<Millis> {
        self.restored
    }

    /// The same, knowing what its listeners show.
    #[must_use]
    pub fn with_identity(self, identity: LiveIdentity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// When the certificate ends that its listeners show, Unix seconds.
    pub fn certificate_ends(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.current().validity().1.0 / 1000)
    }

    /// Whether the certificate that its listeners show is valid.
    pub(crate) fn shows_valid_certificate(&self, now: Millis) -> bool {
        let valid = self.identity.as_ref().map(|identity| identity.current().validity());
        valid.is_none_or(|(begins, ends)| (begins..ends).contains(&now))
    }

    /// Reads something of the book. Blocks.
    pub(crate) fn reads_book(&self) -> Result<u64, RegistryError> {
        Registry::open_read_only(&self.registry)?.version()
    }

    /// All certificates that were ever issued. Blocks while it reads the registry.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn certificates(&self) -> Result<Vec<Certificate>, RegistryError> {
        Registry::open_read_only(&self.registry)?.certificates()
    }

    /// When the last backup was begun that was written and read back, Unix seconds, as the operator's log says. Blocks.
    pub fn last_backup(&self) -> Option<u64> {
        let told = Registry::open_read_only(&self.registry).and_then(|book| book.last_backup());
        told.unwrap_or_else(|error| {
            tracing::error!(%error, "nobody is told when the last backup was made");
            None
        })
    }

    /// The log, if it can be written.
    pub const fn logging(&self) -> Option<&Arc<Logging>> {
        self.logging.as_ref()
    }

    /// Puts what waits into the log. Blocks.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn write_log(&self) -> Result<usize, LoggingError> {
        self.logging.as_ref().map_or(Ok(0), |logging| logging.write(self.cloud.memory()))
    }

    /// Looks whether the registry changed, and takes over what did. May block: not for async tasks.
    ///
    /// # Errors
    /// [`ServiceError`]: then the book stays as it was.
    pub fn refresh(&self, now: Millis) -> Result<(), ServiceError> {
        // Held to the end: of two that refresh at a time, the later one must not put back what the earlier one read.
        let registry = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.cloud.book();
        // Certificates first and apart: they are few, and a revocation must not wait until a large book is read.
        let history = registry.history_version()?;
        if history != self.history.load(Ordering::Acquire) {
            self.roll.store(Arc::new(registry.roll()?));
            self.rolls.send_modify(|n| *n += 1);
            let book = before.with_gateways(registry.gateways()?, registry.receipt_signers()?);
            self.cloud.replace_book(book.clone());
            // A gateway that enrols again has its key for receipts revoked, and the version stays.
            self.tell_log(&book, Write { now, ..Write::default() })?;
            self.history.store(history, Ordering::Release);
        }
        self.tell_deeds(&registry, now)?;
        if registry.version()? == before.version {
            return Ok(());
        }
        let source = Source::read(&registry, &self.vault, &before)?;
        self.follow_keys(&registry)?;
        let memory = self.cloud.memory();
        let mut write = Write { now, ..Write::default() };
        let maker = Maker {
            vault: Some(&self.vault),
            new_context: &|| memory.store().new_context(),
            fresh_store: false,
            restored: self.restored,
            now,
        };
        // Rows of contexts that this process never saw, of a device that was revoked and is back, say.
        let book = maker.book(source, &before, Remembered::default(), &mut write);
        self.tell_log(&book, write)?;
        let version = book.version;
        self.cloud.replace_book(book);
        self.version.send_replace(version);
        tracing::info!(version, "the registry changed");
        Ok(())
    }

    /// Commits what comes with a book, and queues for the log what is new in it.
    fn tell_log(&self, book: &Book, mut write: Write) -> Result<(), StoreError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let news = events.news(book, self.restored);
        write.log.records.clone_from(&news);
        if !write.is_empty() {
            self.changed(&self.cloud.memory().store().commit_now(write)?);
        }
        events.take(&news);
        Ok(())
    }

    /// Queues for the log what the operator's log has that is not there. A crash before this loses nothing: the book has it.
    fn tell_deeds(&self, registry: &Registry, now: Millis) -> Result<(), ServiceError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(news) = events.deeds.news(registry)? {
            let mut write = Write { now, ..Write::default() };
            write.log.records.clone_from(&news.records);
            if news.is_fork {
                tracing::error!(
                    code = "EV-05",
                    "the operator's log does not go on from what the evidence log has of it: the book was put back from a copy, or \
                     its lines were altered; see: fivefold operator log --check"
                );
                write.count(EVIDENCE_LOG);
            }
            if !write.is_empty() {
                self.changed(&self.cloud.memory().store().commit_now(write)?);
            }
            events.deeds.took(&news);
        }
        Ok(())
    }

    /// Enters in the operator's log what somebody does elsewhere than in the book; durable when this returns.
    ///
    /// # Errors
    /// [`ServiceError`]: then it must not be done.
    pub async fn enter_deed(self: &Arc<Self>, by: By, done: &'static str, about: String) -> Result<(), ServiceError> {
        let service = self.clone();
        let entered = move || Ok(service.open_registry(by)?.enter_deed(done, about)?);
        tokio::task::spawn_blocking(entered).await.map_err(std::io::Error::other)?
    }

    /// Tells when another version of the registry is in use.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Tells when contexts came or went that gateways are pushed.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn changed(&self, committed: &Committed) {
        if let Some(generation) = committed.generation {
            self.generation.send_if_modified(|known| {
                let newer = generation > *known;
                *known = generation.max(*known);
                newer
            });
        }
    }

    /// Commits what the engine saw over time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commit(&self, write: Write) -> Result<(), StoreError> {
        let committed = self.cloud.memory().commit(Arc::new(write)).await?;
        self.changed(&committed);
        Ok(())
    }

    /// Tells when certificates were issued or revoked.
    pub fn rolls(&self) -> watch::Receiver<u64> {
        self.rolls.subscribe()
    }

    /// Tells when readings were stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Takes a batch: opened, durable, answered. Returns the reply.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn ingest(
        self: &Arc<Self>,
        gateway: &ProvenGateway,
        body: &[u8],
        now: Millis,
    ) -> Result<Vec<u8>, IngestError> {
        self.admit(gateway.name(), now).map_err(IngestError::Full)?;
        let mut judged = match self.cloud.judge(gateway, body, now) {
            Ok(judged) => judged,
            Err(refused) => {
                self.refuse(refused.key, refused.rejected, now).await;
                return Err(IngestError::Refused(refused));
            }
        };
        let memory = self.cloud.memory();
        let write = Arc::new(std::mem::take(&mut judged.write));
        let committed = match memory.commit(write.clone()).await {
            Ok(committed) => committed,
            Err(error) => {
                self.cloud.abandon(&judged);
                return Err(error.into());
            }
        };
        self.changed(&committed);
        let stored = !write.accepted.is_empty() || !write.classic.is_empty();
        let (asked, used) = judged.take_keys();
        // Signatures of batches are verified in there: hundreds for a device that misbehaves, and as many for each of them.
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || service.cloud.conclude(judged, write, committed)).await;
        let mut concluded = done.map_err(|_| IngestError::Unanswered)?;
        if !concluded.write.is_empty() {
            memory.commit(concluded.write.clone()).await?;
        }
        if stored {
            self.stored.send_modify(|n| *n += 1);
        }
        if !used.is_empty() {
            self.take_into_use(used, now).await;
        }
        if !asked.is_empty() {
            concluded.key_answers = self.answer_keys(gateway, asked, now).await;
        }
        Ok(self.cloud.reply(concluded))
    }

    /// Counts something that was refused.
    pub async fn count(&self, key: CountKey, now: Millis) {
        let mut write = Write { now, ..Write::default() };
        write.count(key);
        if let Err(error) = self.cloud.memory().commit(Arc::new(write)).await {
            tracing::error!(%error, code = %key.code, "a refusal could not be counted");
        }
    }

    /// Counts something that was refused, and explains it.
    pub async fn refuse(&self, key: CountKey, rejected: Rejected, now: Millis) {
        let mut write = Write { now, ..Write::default() };
        write.refuse(key, rejected);
        if let Err(error) = self.cloud.memory().commit(Arc::new(write)).await {
            tracing::error!(%error, code = %key.code, "a refusal could not be counted");
        }
    }

    /// Counts what was refused on a connection: of a gateway, or of nobody that is known.
    pub async fn count_channel(&self, rejected: Rejected, gateway: Option<GatewayName>, now: Millis) {
        let (net, gateway) = (gateway.map(|g| g.net), gateway.map(|g| g.gateway));
        let key = CountKey { code: rejected.code, net, gateway, sid: None, place: Place::Cloud };
        self.refuse(key, rejected, now).await;
    }

    /// Whether who showed this certificate may still speak.
    pub fn may_speak(&self, serial: &Serial) -> bool {
        self.roll.load().is_in_force(serial)
    }

    /// The registry, for what is written in it by somebody's word: certificates that the cloud issues, say.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn open_registry(&self, by: By) -> Result<Registry, RegistryError> {
        Registry::open(&self.registry, by)
    }

    /// The state of a gateway, made durable as pushed. Blocks while it reads the registry.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn push(&self, gateway: GatewayName) -> Result<Push, ServiceError> {
        let registry = Registry::open_read_only(&self.registry)?;
        let contexts = |net| self.cloud.memory().read(|r| r.pushed_contexts(net));
        let push = push::build(&registry, &contexts, &self.vault, gateway)?;
        let write = Write { pushed: vec![(gateway.gateway, push.version)], ..Write::default() };
        self.cloud.memory().store().commit_now(write)?;
        self.cloud.pushed(gateway.gateway, push.version);
        Ok(push)
    }
}

/// What the cloud does by itself, for the operator's log.
pub(crate) fn by_itself(now: Millis) -> By {
    By::new("cloud", "this computer", "cloud run", now.0 / 1000)
}

/// The refusal of a handshake that was neither a TLS error nor ours.
pub const HANDSHAKE: Rejected = Rejected::new(Code::ChannelRefused, "the handshake did not end");

/// Waits until `stop` says that the process ends.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // What it lends must not be held: it is no value to keep over an await.
    let _ = stop.wait_for(|s| *s).await.map(|s| *s);
}
