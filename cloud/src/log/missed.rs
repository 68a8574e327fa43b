//! Heads of the log as the service signs and shows them, with all that is EV-05 counted: who contradicts the log, and witnesses
//! that have been away for too long.

mod last_seen;

use std::sync::{Arc, Mutex, PoisonError};

use fivefold_core::error::{Code, Severity};
use fivefold_core::time::Millis;
use fivefold_evidence::log::LogError;

use crate::service::Service;
use crate::store::{CountKey, Place, Write};
use crate::witnesses::Published;
use last_seen::LastSeen;

impl Service {
    /// Signs a head of the log, asks the witnesses and shows it; counts EV-05 for each that contradicts it, and for a log that does
    /// not go on. `None` without a log.
    pub(crate) async fn publish_head(&self, now: Millis) -> Option<Result<Published, LogError>> {
        let done = self.logging()?.publish().await;
        let contradictions = match &done {
            Ok(done) => done.failed.iter().filter(|(_, error)| error.is_alarm()).count(),
            Err(LogError::Inconsistent { .. }) => 1,
            Err(_) => 0,
        };
        for _ in 0..contradictions {
            self.count(EVIDENCE_LOG, now).await;
        }
        Some(done)
    }
}

/// The log is nobody's in particular.
pub(crate) const EVIDENCE_LOG: CountKey =
    CountKey { code: Code::EvidenceLog, net: None, gateway: None, sid: None, place: Place::Cloud };

/// Counts EV-05 once a day for each witness that has not cosigned for a day, restarts or not.
#[derive(Debug)]
pub(crate) struct Missed {
    service: Arc<Service>,
    seen: Mutex<Option<LastSeen>>,
}

impl Missed {
    /// With what is remembered beside the log. Blocks.
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let seen = service.logging().map(|logging| LastSeen::open(logging.log().directory()));
        Self { service, seen: Mutex::new(seen) }
    }

    /// To be called after each head, with what became of it. Blocks.
    pub(crate) fn look(&self, done: &Result<Published, LogError>, now: Millis) {
        let Some(logging) = self.service.logging() else { return };
        let cosigned = |url: &str| done.as_ref().is_ok_and(|done| done.failed.iter().all(|(failed, _)| failed != url));
        let keys = logging.witnesses().iter().filter_map(|w| Some((w.keys().first()?.to_string(), cosigned(w.url()))));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen.as_mut() else { return };
        for witness in seen.look(keys.collect(), now) {
            tracing::warn!(code = "EV-05", witness, "a witness has not cosigned for a day");
            let service = self.service.clone();
            let said = vec![(EVIDENCE_LOG, 1, Severity::Warning)];
            tokio::spawn(async move {
                if let Err(error) = service.commit(Write { now, said, ..Write::default() }).await {
                    tracing::error!(%error, "a missing witness could not be counted");
                }
            });
        }
        if let Err(error) = seen.write() {
            tracing::error!(%error, "it cannot be kept when witnesses cosigned last");
        }
    }
}
