//! Whether the cloud lives and can do its work now, in one word each, for what starts and watches processes. Anybody may ask: what
//! costs something is looked at once in some seconds, however many do.

use std::sync::Arc;
use std::time::Duration;

use fivefold_core::time::Millis;
use tokio::sync::Mutex;

use crate::service::Service;
use crate::store::{Ledger as _, StoreError, Write};

/// How long what was found is told again, in milliseconds.
const FRESH: u64 = 3_000;
/// How often it is asked whether the store's writer turns.
const BEAT: Duration = Duration::from_secs(1);
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

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// It does.
    Yes,
    /// The thread that writes the store has ended: a restart alone brings it back.
    Stuck,
}

/// What was found last, and when.
#[derive(Debug, Default)]
pub struct Looked(Mutex<Option<(Millis, Ready)>>);

impl Service {
    /// Whether it goes on.
    pub fn lives(&self) -> Live {
        if self.cloud.memory().store().has_writer() { Live::Yes } else { Live::Stuck }
    }

    /// Calls `beat` each time that the store's writer has had its turn; ends when the writer has.
    pub(crate) async fn turn(&self, beat: impl Fn()) {
        while self.cloud.memory().store().turn().await.is_ok() {
            beat();
            tokio::time::sleep(BEAT).await;
        }
    }

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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use fivefold_keep::registry::Registry;
    use fivefold_keep::vault::Vault;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::Notify;

    use super::*;
    use crate::cloud::RenewalSettings;
    use crate::service::by_itself;
    use crate::store::Store;
    use crate::{api, clock};

    #[tokio::test]
    async fn a_writer_that_ended_is_told_to_whoever_asks_and_ends_the_beat() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let book = folder.path().join("registry.db");
        drop(Registry::create(&book, by_itself(clock::now())).unwrap());
        let store = Store::open(&folder.path().join("readings.db")).unwrap();
        // It waits for its store, as no thread of a runtime may.
        let open = || Service::open(store, book, vault, RenewalSettings::default(), clock::now()).unwrap();
        let service = Arc::new(std::thread::scope(|s| s.spawn(open).join().unwrap()));
        let beats = AtomicUsize::new(0);
        let first = Notify::new();
        let beat = || {
            beats.fetch_add(1, Ordering::Relaxed);
            first.notify_one();
        };
        tokio::select! {
            () = first.notified() => {}
            () = service.turn(beat) => panic!("it turns for ever"),
        }
        assert_eq!(service.lives(), Live::Yes);
        let before = beats.load(Ordering::Relaxed);
        service.cloud.memory().store().break_writer();
        service.turn(beat).await;
        assert_eq!(beats.load(Ordering::Relaxed), before, "a writer that ended beats no more");
        // The thread is gone a moment after what it held.
        while service.lives() == Live::Yes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let app = TowerToHyperService::new(api::app(service, Path::new("no such file")));
        let answer = app.call(Request::get("/livez").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 503);
        assert_eq!(&to_bytes(answer.into_body(), 64).await.unwrap()[..], b"stuck");
    }
}
