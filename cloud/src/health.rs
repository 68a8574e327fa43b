//! Whether the cloud can do its work now, in one word, for what starts and watches processes. Anybody may ask: it is looked at
//! once in some seconds, however many do.

use std::sync::Arc;
use std::time::Duration;

use fivefold_core::time::Millis;
use tokio::sync::Mutex;

use crate::service::Service;
use crate::store::{Ledger as _, StoreError, Write};

/// How long what was found is told again, in milliseconds.
const FRESH: u64 = 3_000;
/// How long the store may take to write a row.
const PATIENCE: Duration = Duration::from_secs(5);

/// What keeps the cloud from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nothing.
    Yes,
    /// The operator's book cannot be read.
    Book,
    /// The certificate that it shows is not valid now.
    Certificate,
    /// There is no room left on the store's disk, or in the disk budget: batches are refused.
    Full,
    /// The store does not write.
    Store,
}

impl Ready {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "ready",
            Self::Book => "book",
            Self::Certificate => "certificate",
            Self::Full => "full",
            Self::Store => "store",
        }
    }
}

/// What was found last, and when.
#[derive(Debug, Default)]
pub struct Looked(Mutex<Option<(Millis, Ready)>>);

impl Service {
    /// Whether it can do its work.
    pub async fn ready(self: &Arc<Self>, now: Millis) -> Ready {
        // Held while it looks: who asks meanwhile is told the same.
        let mut looked = self.health.0.lock().await;
        if let Some((at, ready)) = *looked
            && at.0.abs_diff(now.0) < FRESH
        {
            return ready;
        }
        let ready = self.look(now).await;
        *looked = Some((now, ready));
        ready
    }

    async fn look(self: &Arc<Self>, now: Millis) -> Ready {
        if !self.shows_valid_certificate(now) {
            return Ready::Certificate;
        }
        let service = self.clone();
        if !matches!(tokio::task::spawn_blocking(move || service.reads_book()).await, Ok(Ok(_))) {
            return Ready::Book;
        }
        let write = Arc::new(Write { now, probe: true, ..Write::default() });
        match tokio::time::timeout(PATIENCE, self.cloud.memory().commit(write)).await {
            Ok(Ok(_)) if self.usage().is_some_and(|usage| usage.refusing.is_some()) => Ready::Full,
            Ok(Ok(_)) => Ready::Yes,
            Ok(Err(StoreError::Full { .. })) => Ready::Full,
            Ok(Err(_)) | Err(_) => Ready::Store,
        }
    }
}
