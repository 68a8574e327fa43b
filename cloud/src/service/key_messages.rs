//! Key messages of classic nodes (docs/protocol.md 12): taken beside the tasks that take readings, one after the other, since
//! each is one private operation and one write to the book.

use std::sync::{Arc, MutexGuard, PoisonError};

use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::error::Rejected;
use fivefold_core::id::Sid;
use fivefold_core::time::Millis;
use fivefold_keep::registry::By;

use super::{Service, ServiceError, by_itself};
use crate::cloud::Used;
use crate::key_desk::{Answer, Asked, KeyDesk};
use crate::store::{CountKey, Place, Write};

impl Service {
    fn desk_of_keys(&self) -> MutexGuard<'_, KeyDesk> {
        // What it holds follows the book: a panic elsewhere leaves nothing that the next refresh does not mend.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the book says of devices that send key messages. Under the lock, so that what it reads is not older than
    /// what this process wrote.
    pub(super) fn follow_keys(&self, book: &fivefold_keep::registry::Registry) -> Result<(), ServiceError> {
        Ok(self.desk_of_keys().follow(book, &self.vault)?)
    }

    /// Answers the key messages of a batch that is durable. What fails here costs the node a repeat, and no reading: its gateway
    /// hears that the batch is durable all the same.
    pub(super) async fn answer_keys(
        self: &Arc<Self>,
        gateway: &ProvenGateway,
        asked: Vec<Asked>,
        now: Millis,
    ) -> Vec<Answer> {
        let (service, by) = (self.clone(), gateway.clone());
        let done = tokio::task::spawn_blocking(move || service.take_keys(&by, asked, now)).await;
        let (answers, refused) = done.unwrap_or_default();
        if !refused.is_empty() {
            let mut write = Write { now, ..Write::default() };
            for (rejected, sid) in refused {
                tracing::warn!(gateway = %gateway.name(), ?sid, %rejected, "a key message was refused");
                let (net, gateway) = (Some(gateway.net()), Some(gateway.gateway()));
                write.refuse(CountKey { code: rejected.code, net, gateway, sid, place: Place::Cloud }, rejected);
            }
            if let Err(error) = self.commit(write).await {
                tracing::error!(%error, "refused key messages could not be counted");
            }
        }
        answers
    }

    fn take_keys(
        &self,
        gateway: &ProvenGateway,
        asked: Vec<Asked>,
        now: Millis,
    ) -> (Vec<Answer>, Vec<(Rejected, Option<Sid>)>) {
        let (mut answers, mut refused, mut is_new) = (Vec::new(), Vec::new(), false);
        let take = || -> Result<(), ServiceError> {
            let name = gateway.name();
            let by = By::new("a node's key message", format_args!("gateway {name}"), "cloud run", now.0 / 1000);
            let mut book = self.open_registry(by)?;
            let mut desk = self.desk_of_keys();
            for Asked { seq, serial, bytes } in asked {
                let taken = desk.take(&mut book, &self.vault, gateway.name(), &bytes, now)?;
                // A repeat too: it may be the first to be answered.
                is_new |= taken.is_new || taken.answer.is_some();
                refused.extend(taken.refused);
                answers.extend(taken.answer.map(|kr2| Answer { seq, serial, kr2 }));
            }
            Ok(())
        };
        if let Err(error) = take() {
            tracing::error!(%error, "a key message could not be answered; its node sends it again");
        }
        // Before an answer leaves: a frame under the new key must open.
        if is_new && let Err(error) = self.refresh(now) {
            tracing::error!(%error, "a new key is in the book and not in use yet; its node asks again");
            answers.clear();
        }
        (answers, refused)
    }

    /// Frames under waiting keys are durable: those keys are in use from now on.
    pub(super) async fn take_into_use(self: &Arc<Self>, used: Vec<Used>, now: Millis) {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || -> Result<(), ServiceError> {
            let mut book = service.open_registry(by_itself(now))?;
            let mut any = false;
            for one in used {
                any |= service.desk_of_keys().used(&mut book, one, now)?;
            }
            if any { service.refresh(now) } else { Ok(()) }
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(%error, "a new key of a classic node is not noted as in use; its next frame does it");
        }
    }

    /// Erases keys of classic nodes that have drained. May block: not for async tasks.
    ///
    /// # Errors
    /// [`ServiceError`]: the registry cannot be written. The next call tries again.
    pub fn expire_keys(&self, now: Millis) -> Result<(), ServiceError> {
        if !self.desk_of_keys().drains() {
            return Ok(());
        }
        let mut book = self.open_registry(by_itself(now))?;
        let gone = self.desk_of_keys().expire(&mut book, now);
        match gone {
            Ok(true) => self.refresh(now),
            Ok(false) => Ok(()),
            Err(error) => {
                self.follow_keys(&book)?;
                Err(error.into())
            }
        }
    }
}
