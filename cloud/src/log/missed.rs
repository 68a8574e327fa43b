//! Heads of the log as the service signs and shows them, with all that is EV-05 counted: who contradicts the log, and witnesses
//! that have been away for too long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fivefold_core::error::Code;
use fivefold_core::time::Millis;
use fivefold_evidence::log::LogError;

use crate::service::Service;
use crate::store::{CountKey, Place};
use crate::witnesses::Published;

/// A witness is missing after so long, in milliseconds (EV-05).
const MISSING: u64 = 24 * 3600 * 1000;

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

/// Counts EV-05 once a day for each witness that has not cosigned for a day.
#[derive(Debug)]
pub(crate) struct Missed {
    service: Arc<Service>,
    said: Mutex<HashMap<String, Millis>>,
}

impl Missed {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service, said: Mutex::default() }
    }

    /// To be called after each head.
    pub(crate) fn look(&self, now: Millis) {
        let Some(logging) = self.service.logging() else { return };
        for witness in logging.witnesses().iter() {
            let heard =
                witness.standing().at.map_or(self.service.started, |s| Millis(s.saturating_mul(1000).min(now.0)));
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let last = said.get(witness.url()).copied().unwrap_or(Millis(0)).0.max(heard.0);
            if now.since(Millis(last)) <= MISSING {
                continue;
            }
            said.insert(witness.url().to_owned(), now);
            drop(said);
            tracing::warn!(code = "EV-05", witness = witness.url(), "a witness has not cosigned for a day");
            let service = self.service.clone();
            tokio::spawn(async move { service.count(EVIDENCE_LOG, now).await });
        }
    }
}
