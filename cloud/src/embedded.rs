//! The embedded store as the engine's memory, and a pool of readers for whoever asks it something.

use std::sync::{Arc, Mutex, PoisonError};

use fivefold_core::id::{BootContext, Did, Net, Sid};
use fivefold_core::time::Millis;

use crate::accepted::ContextId;
use crate::accepted::signed::{BatchName, Claim};
use crate::book::Remembered;
use crate::classic::history::Glimpse;
use crate::cloud::Memory;
use crate::store::{BatchPast, Committed, Ledger, Orphan, PartRow, Reader, Recent, Store, StoreError, Write};

/// The store with its readers.
#[derive(Debug)]
pub struct Embedded {
    store: Store,
    readers: Mutex<Vec<Reader>>,
}

impl Embedded {
    /// Over an open store.
    pub const fn new(store: Store) -> Self {
        Self { store, readers: Mutex::new(Vec::new()) }
    }

    /// The store itself.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What remains of earlier runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remembered(&self) -> Result<Remembered, StoreError> {
        self.read(|r| {
            Ok(Remembered {
                contexts: r.contexts()?,
                commands: r.open_commands()?,
                last_commands: r.last_commands()?,
                link_keys: r.link_keys()?,
                link_told: r.link_told()?,
                dossiers: r.dossiers()?,
            })
        })
    }

    /// Asks with a reader of the pool.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read<T>(&self, ask: impl FnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.store.reader()?,
        };
        let answer = ask(&reader);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        answer
    }
}

impl Ledger for Embedded {
    async fn commit(&self, write: Arc<Write>) -> Result<Committed, StoreError> {
        self.store.commit(write).await
    }
}

impl Memory for Embedded {
    fn new_context(&self) -> ContextId {
        self.store.new_context()
    }

    fn recent(&self, context: ContextId) -> Recent {
        self.read(|r| r.recent(context)).unwrap_or_else(|error| {
            // Freshness and item 1 are hints; the ledger decides what is new.
            tracing::error!(%error, "the past of a context could not be read");
            Recent::default()
        })
    }

    fn orphans(&self, net: Net, sid: Sid, oldest: Millis) -> Vec<Orphan> {
        self.read(|r| r.orphans(net, sid, oldest)).unwrap_or_else(|error| {
            tracing::error!(%error, "orphans could not be read: they wait for the next boot");
            Vec::new()
        })
    }

    fn classic_history(&self, did: Did) -> Vec<(u64, Glimpse)> {
        self.read(|r| r.classic_history(did)).unwrap_or_else(|error| {
            tracing::error!(%error, %did, "earlier frames could not be read: repeats of them are not seen");
            Vec::new()
        })
    }

    fn classic_context(&self, did: Did, boot: BootContext) -> Option<ContextId> {
        self.read(|r| r.classic_context(did, boot)).unwrap_or_else(|error| {
            tracing::error!(%error, %did, "a context could not be looked up");
            None
        })
    }

    fn batch_past(&self, net: Net, claim: &Claim) -> Option<BatchPast> {
        self.read(|r| r.batch_past(net, claim)).map(Some).unwrap_or_else(|error| {
            tracing::error!(%error, did = %claim.did, "a signed batch cannot be weighed: it is when its device repeats it");
            None
        })
    }

    fn unclaimed_parts(&self, did: Did) -> Vec<PartRow> {
        self.read(|r| r.unclaimed_parts(did)).unwrap_or_else(|error| {
            tracing::error!(%error, %did, "signatures that wait could not be read: they are when the device is heard again");
            Vec::new()
        })
    }

    fn batch_parts(&self, did: Did, batch: BatchName, level: Option<u8>) -> Option<Vec<u8>> {
        self.read(|r| r.batch_parts(did, batch, level)).unwrap_or_else(|error| {
            tracing::error!(%error, %did, "parts of a signature could not be read");
            None
        })
    }
}
