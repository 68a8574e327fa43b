//! The writer of the deployment's log (docs/protocol.md 13.2): batches that were verified, receipts of gateways, enrolments,
//! revocations, restores, changes of policy and what operators did go to it in the order in which they became durable, each once.
//!
//! The store queues an entry in the transaction of the event itself (W9). Here it goes to the log, and its place goes back to
//! the store. A crash in between leaves entries in the log whose place the store does not know: they stand at its end, in the
//! order of the queue, and are found again at the next start. So none is lost, and none is there twice.

mod deeds;
mod events;
mod missed;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::log::{Entry, Log, LogError};
use fivefold_evidence::note::VKey;
use fivefold_keep::tls::Anchor;
use tokio::sync::Notify;

use crate::embedded::Embedded;
use crate::store::{LogWrite, StoreError, Write};
use crate::witnesses::{self, Published, Witness, WitnessError};

pub use deeds::{Deeds, News};
pub use events::Events;
pub(crate) use missed::{EVIDENCE_LOG, Missed};

/// Entries that go to the log at a time.
const GROUP: u32 = 1024;

/// Why nothing is logged. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The log does not go on.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A witness in the settings cannot be used.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The log's folder is older than the store.
    #[error(
        "EV-05: the store knows the places of {known} entries, and the log has {have}: its folder was lost or put back from an \
         older copy; put back the newer one"
    )]
    Shorter {
        /// Places that the store knows.
        known: u64,
        /// Entries of the log.
        have: u64,
    },
}

/// A witness as `cloud.toml` names it, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Where it is asked.
    pub url: String,
    /// Its keys.
    pub keys: Vec<VKey>,
    /// PEM of the CA of its certificate.
    pub ca: Option<String>,
}

/// Whether the API serves the log's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// It does not.
    #[default]
    ToNobody,
    /// To everybody, without a token.
    ToEverybody,
}

/// Who writes to the log.
#[derive(Debug)]
pub struct Logging {
    log: Arc<Log>,
    witnesses: Arc<Vec<Witness>>,
    wanted: Arc<Notify>,
    serving: Serving,
    // Entries that the store never knew of when the log was opened.
    strays: u64,
    // Held while entries go to the log: their order is that of the queue. Rows and places that the store does not know yet.
    writing: Mutex<Vec<(i64, u64)>>,
    // Held while a head is signed, witnessed and shown: of two at a time, the later one would look like a rollback.
    publishing: tokio::sync::Mutex<()>,
}

impl Logging {
    /// Opens the log in `folder`, or begins it, and finds the places of entries that the store does not know. Blocks.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn open(
        folder: &Path,
        key: LogKey,
        witnesses: &[WitnessConfig],
        serving: Serving,
        memory: &Embedded,
    ) -> Result<Self, LoggingError> {
        let (_, known) = memory.read(|r| r.log_standing())?;
        // What the store does not know to be in the log waits in it, and is appended again.
        let log = Log::open_known(folder, key, known)?;
        if let Some(aside) = log.aside() {
            tracing::warn!(
                file = %aside.path.display(), entry = aside.entry, bytes = aside.bytes,
                "a power cut left an end of the log's journal that does not read: nobody was told of those entries, they are written \
                 again, and what was there is in this file"
            );
        }
        let witness = |w: &WitnessConfig| {
            let ca = w.ca.as_ref().map(|pem| Anchor::from_pem(pem.as_bytes())).transpose()?;
            Witness::new(&w.url, w.keys.clone(), ca.as_ref())
        };
        let witnesses = witnesses.iter().map(witness).collect::<Result<Vec<_>, WitnessError>>()?;
        let wanted = Arc::new(Notify::new());
        let mut this = Self {
            log: Arc::new(log),
            witnesses: Arc::new(witnesses),
            wanted,
            serving,
            strays: 0,
            writing: Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
        };
        this.strays = this.find_places(memory)?;
        Ok(this)
    }

    /// The log.
    pub const fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Who cosigns its heads.
    pub const fn witnesses(&self) -> &Arc<Vec<Witness>> {
        &self.witnesses
    }

    /// Whether the API serves its files.
    pub fn is_served(&self) -> bool {
        self.serving == Serving::ToEverybody
    }

    /// Tells that a head is wanted now.
    pub const fn wanted(&self) -> &Arc<Notify> {
        &self.wanted
    }

    /// Entries that the store never knew of when the log was opened: it is an older copy.
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// Entries behind the last place that the store knows went to the log before a crash. How many are none of those that wait.
    fn find_places(&self, memory: &Embedded) -> Result<u64, LoggingError> {
        let (waiting, known) = memory.read(|r| r.log_standing())?;
        let have = self.log.durable();
        if have < known {
            return Err(LoggingError::Shorter { known, have });
        }
        if have == known || waiting == 0 {
            return Ok(have - known);
        }
        // In the order of the queue, unless the store was put back from a copy that does not know all of them.
        let mut unplaced: HashMap<Entry, Vec<u64>> = HashMap::new();
        for index in (known..have).rev() {
            if let Some(entry) = self.log.entry(index)? {
                unplaced.entry(entry).or_default().push(index);
            }
        }
        // No more of the queue than that can be there.
        let limit = u32::try_from(have - known).unwrap_or(u32::MAX);
        let waiting = memory.read(|r| r.log_waiting(limit))?;
        let place = |unplaced: &mut HashMap<Entry, Vec<u64>>, entry| unplaced.get_mut(entry)?.pop();
        let placed: Vec<_> = waiting.iter().filter_map(|w| Some((w.row, place(&mut unplaced, &w.entry)?))).collect();
        let strays = unplaced.values().map(|left| left.len() as u64).sum();
        memory.store().commit_now(Write { log: LogWrite { placed, ..LogWrite::default() }, ..Write::default() })?;
        Ok(strays)
    }

    /// Puts what waits into the log, and its places into the store; says how many. Blocks.
    ///
    /// # Errors
    /// [`LoggingError`]: what is durable in the log gets its place with the next call, before anything else, or the next start.
    pub fn write(&self, memory: &Embedded) -> Result<usize, LoggingError> {
        let mut written = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = 0;
        loop {
            if !written.is_empty() {
                let placed = written.clone();
                memory
                    .store()
                    .commit_now(Write { log: LogWrite { placed, ..LogWrite::default() }, ..Write::default() })?;
                all += written.len();
                written.clear();
            }
            let waiting = memory.read(|r| r.log_waiting(GROUP))?;
            if waiting.is_empty() {
                return Ok(all);
            }
            let entries: Vec<Entry> = waiting.iter().map(|w| w.entry).collect();
            let first = self.log.append(&entries)?;
            written.extend(waiting.iter().map(|w| w.row).zip(first..));
        }
    }

    /// Signs a head, asks the witnesses and shows it, one at a time.
    ///
    /// # Errors
    /// [`LogError`]; never because of a witness.
    pub async fn publish(&self) -> Result<Published, LogError> {
        let _alone = self.publishing.lock().await;
        witnesses::publish(&self.log, &self.witnesses).await
    }
}
