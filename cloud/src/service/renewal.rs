//! `POST /v1/edhoc`: one message of a run in, what answers it out (docs/protocol.md 10, 11).
//!
//! Elliptic curves are work for a processor: it is done beside the tasks that take readings, by as many threads as there are
//! processors, and above a bound the gateway is told to come back; its device asks again by itself.

use std::sync::Arc;
use std::time::Duration;

use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::e5_renewal::Message;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, emit_downlinks};
use fivefold_keep::registry::{RegistryError, Whom};
use fivefold_keep::vault::{VaultError, random};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{Service, ServiceError};
use crate::cloud::{Agreement, BatchRefused, Exchange, Outcome};
use crate::context::ContextSecrets;
use crate::notes::NoteError;
use crate::push;
use crate::store::{Ledger as _, StoreError, Write};

/// How long a request waits for a processor.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that are under way or wait.
const REQUESTS: usize = 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It was refused.
    #[error("{}", .0.rejected)]
    Refused(BatchRefused),
    /// There are too many at a time.
    #[error("too many runs are under way; ask again")]
    Busy,
    /// The operator's book cannot be written: nothing was agreed.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The store cannot be written: nothing was agreed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Bounds of the work.
#[derive(Debug)]
pub(super) struct Work {
    requests: Semaphore,
    processors: Arc<Semaphore>,
}

impl Default for Work {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { requests: Semaphore::new(REQUESTS), processors: Arc::new(Semaphore::new(processors)) }
    }
}

impl Service {
    /// Has devices renew whose contexts are old, and whom no answer of ours reaches: it is ordered in the book, and their
    /// gateways say so. May block: not for async tasks.
    ///
    /// # Errors
    /// [`ServiceError`]: the registry cannot be written. The next call tries again.
    pub fn order_by_age(&self, now: Millis) -> Result<(), ServiceError> {
        let old = self.cloud.old_behind_gateways(now);
        if old.is_empty() {
            return Ok(());
        }
        let mut book = self.open_registry(super::by_itself(now))?;
        for did in old {
            match book.order_renewal(Whom::Device(did), now.0 / 1000) {
                Ok(_) => tracing::info!(%did, "its keys are old: it is ordered to renew them"),
                // Somebody revoked it, or enrolled it again without a key, a moment ago.
                Err(RegistryError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.refresh(now)
    }
}

impl Service {
    /// Takes one envelope of kind 3; the body of the reply, an array of downlinks that may be empty. Once begun it is to be
    /// carried to its end: call it in a task of its own.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange(
        self: &Arc<Self>,
        gateway: &ProvenGateway,
        body: &[u8],
        now: Millis,
    ) -> Result<Vec<u8>, ExchangeError> {
        let _place = self.work.requests.try_acquire().map_err(|_| ExchangeError::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, self.work.processors.clone().acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(ExchangeError::Busy)?;
        let (service, by, asked) = (self.clone(), gateway.clone(), body.to_vec());
        let done = tokio::task::spawn_blocking(move || -> Result<Exchange, ExchangeError> {
            let ephemeral = random::<32>()?;
            let exchange = service.cloud.exchange(&by, &asked, &ephemeral, now).map_err(ExchangeError::Refused);
            drop(turn);
            exchange
        });
        let Exchange { write, outcome } = match done.await.map_err(|_| ExchangeError::Busy)? {
            Ok(exchange) => exchange,
            Err(ExchangeError::Refused(refused)) => {
                self.refuse(refused.key, refused.rejected, now).await;
                return Err(ExchangeError::Refused(refused));
            }
            Err(error) => return Err(error),
        };
        if !write.is_empty() {
            self.cloud.memory().commit(Arc::new(write)).await?;
        }
        let (added, message) = match outcome {
            Outcome::Agree(agreement) => self.conclude_run(gateway, &agreement).await?,
            Outcome::Answer(message) => (None, Some(message)),
            Outcome::Nothing => (None, None),
            Outcome::Repeat { device, context, epoch, m4 } => {
                let mut added = None;
                if device.policy.profile.has_e2() {
                    let row = self.cloud.memory().read(|r| r.context(context))?;
                    let sealed = row.and_then(|row| row.sealed);
                    if let Some(sealed) = sealed {
                        let secrets = ContextSecrets::open(&self.vault, device.did, epoch, &sealed)?;
                        let version = self.notes.version().await? + self.cloud.memory().read(|r| r.generation())?;
                        added = self.share(gateway, &device, (epoch, &secrets), version);
                    }
                }
                (added, Some(m4))
            }
        };
        Ok(reply(body, added.as_ref(), message.as_ref()))
    }

    /// Makes a context durable, in the book first, and only then lets message_4 go (docs/protocol.md 8.2, W6).
    async fn conclude_run(
        &self,
        gateway: &ProvenGateway,
        agreement: &Agreement,
    ) -> Result<(Option<Zeroizing<Vec<u8>>>, Option<Message>), ExchangeError> {
        let (did, epoch) = agreement.noted();
        if !self.notes.agreed(did, epoch, agreement.at()).await? {
            let counted: Write = self.cloud.superseded(gateway, agreement);
            self.cloud.memory().commit(Arc::new(counted)).await?;
            return Ok((None, None));
        }
        let write = agreement.write(&self.vault)?;
        let committed = self.cloud.memory().commit(Arc::new(write)).await?;
        let m4 = self.cloud.agreed(agreement);
        self.changed(&committed);
        let Some(generation) = committed.generation else { return Ok((None, m4)) };
        // Only now: every state without this context has a lower version.
        let version = self.notes.version().await? + generation;
        Ok((self.share(gateway, agreement.device(), (epoch, agreement.secrets()), version), m4))
    }

    /// What the gateway that forwarded a run gets of its context: of one that is durable under `version`.
    pub fn share(
        &self,
        gateway: &ProvenGateway,
        device: &crate::book::Device,
        (epoch, secrets): (fivefold_core::id::Epoch, &ContextSecrets),
        version: u64,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let book = self.cloud.book();
        let (known, network) = (book.gateway(gateway.name())?, book.network(gateway.net())?);
        let root = secrets.e2_root.as_ref()?;
        push::added(version, network, &known.registered, device.enrolled(), (epoch, root))
    }
}

/// An array of downlinks: the gateway's share first, since it is to be durable before the message goes on.
pub fn reply(asked: &[u8], added: Option<&Zeroizing<Vec<u8>>>, message: Option<&Message>) -> Vec<u8> {
    let Ok(envelope) = Envelope::parse(asked) else { return vec![0x80] };
    let mut downlinks = Vec::with_capacity(2);
    if let (Some(added), Some(_)) = (added, message) {
        let kind = DownlinkKind::Context;
        downlinks.push(Downlink { kind, originator: None, bytes: added, seq: None, expires: None });
    }
    if let Some(message) = message {
        let (originator, seq) = (Some(envelope.originator), Some(envelope.seq));
        let kind = DownlinkKind::Edhoc;
        downlinks.push(Downlink { kind, originator, bytes: message.as_bytes(), seq, expires: None });
    }
    let mut out = vec![0; 512];
    let len = emit_downlinks(&downlinks, &mut out).unwrap_or_else(|error| {
        // Two short messages always fit; an empty answer makes the device ask again.
        tracing::error!(%error, "a reply could not be written");
        0
    });
    out.truncate(len);
    out
}
