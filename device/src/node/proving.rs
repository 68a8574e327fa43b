//! Readings become leaves of batches, and batches become messages (docs/protocol.md 13.1).

use fivefold_core::profile::Sign as Signed;
use fivefold_core::proof::statement::{BlindKey, SignedLevel, Subject};
use fivefold_core::suite::agreement::Agree;
use fivefold_core::time::Millis;
use fivefold_core::wire::control::BatchState;
use heapless::Vec;

use super::sending::{Body, LEASE_WAIT};
use super::{Event, Node};
use crate::boot::{BootRefused, Ends, Secrets, Settings};
use crate::evidence::{Close, Evidence};
use crate::outbox::{Carried, Number};
use crate::relay::PAYLOAD;
use crate::storage::Record;

/// What a device signs with after a boot: K_blind of the record's epoch, if the policy record wants signatures.
pub(super) fn begin(
    evidence: &mut impl Evidence,
    settings: &Settings,
    secrets: &Secrets,
    record: &Record,
    ends: &Ends,
) -> Result<(), BootRefused> {
    if settings.policy.sign != Signed::Batch || !evidence.needs_blind() {
        return Ok(());
    }
    let blind = match &record.context {
        Some(context) => Some(context.blind()),
        None => secrets.blind.as_ref().map(|b| BlindKey::new(*b.danger_bytes())),
    };
    if blind.is_none() && !ends.is_empty() {
        return Err(BootRefused::MissingSecret("K_blind, without which no reading can be signed,"));
    }
    evidence.sign_every(settings.policy.batch);
    evidence.blind_with(blind);
    Ok(())
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    /// What signs its readings.
    pub const fn evidence(&self) -> &E {
        &self.evidence
    }

    /// Signs what is due. Number and hash of the statement are durable before anything else leaves: the record is written
    /// first.
    pub(super) fn tend_evidence(&mut self, now: Millis, close: Close) {
        let outbox = &self.outbox;
        let is_waiting = |epoch, piv| outbox.numbers().any(|n| n.epoch == epoch && u64::from(n.value) == piv);
        let is_about = |batch: u32| outbox.is_about(batch.into());
        let on_its_way = (is_waiting, is_about);
        if let Some(chain) = self.evidence.tend(now, close, self.durable.record().chain, on_its_way) {
            self.durable.change().chain = chain;
        }
        while let Some(event) = self.evidence.event() {
            self.tell(event);
        }
    }

    /// A reading is in the outbox: it is a leaf of the open batch, which may be full now.
    pub(super) fn reading_sealed(&mut self, now: Millis, number: Number, payload: &[u8]) {
        let (settings, ends) = (&self.settings, &self.ends);
        let level = if settings.policy.profile.has_e3() { SignedLevel::Cloud } else { SignedLevel::Gateway };
        let cloud = ends.cloud.as_ref().and_then(|c| c.id_context());
        let bctx = cloud.or(ends.gateway.as_ref().and_then(|c| c.id_context()));
        let subject = Subject { level, did: settings.did, epoch: number.epoch, bctx };
        let next = self.durable.record().chain.number.saturating_add(1);
        self.evidence.sealed(now, &subject, next, number.value, payload);
        self.tend_evidence(now, Close::WhenDue);
    }

    /// Puts what is to be said of batches into the outbox, as far as there is room.
    pub(super) fn say_evidence(&mut self, now: Millis) {
        let mut out = [0; PAYLOAD];
        while self.may_take().is_ok() {
            let room = self.room().min(out.len());
            let outbox = &self.outbox;
            let is_about = |batch: u32| outbox.is_about(batch.into());
            let Some(item) = self.evidence.item(now, room, is_about, &mut out) else { return };
            let Ok(payload) = Vec::from_slice(out.get(..item.len).unwrap_or_default()) else { return };
            let body = Body { payload, carried: Carried { batch: item.batch, ..Carried::default() } };
            if self.seal(now, &body).is_err() {
                self.evidence.item_postponed(now.plus(LEASE_WAIT));
                return;
            }
            self.evidence.item_sealed(item);
        }
    }

    /// Item 4. What lacks in a batch was said too early while something about that batch is on its way.
    pub(super) fn told_of_batch(&mut self, state: &BatchState<'_>) {
        if let BatchState::SignAgain { number, .. } = state
            && self.outbox.is_about(*number)
        {
            return;
        }
        self.evidence.told(state);
    }

    /// The epoch is left: what was sealed under it is signed under it, and the statement goes out under it.
    pub(super) fn leave_epoch(&mut self, now: Millis, blind: BlindKey) {
        self.tend_evidence(now, Close::Now);
        self.say_evidence(now);
        let blind = Some(blind).filter(|_| self.settings.policy.sign == Signed::Batch);
        self.evidence.blind_with(blind);
    }

    /// A message is lost. What it said of a batch is said again in another one, under the same epoch.
    pub(super) fn give_up(&mut self, number: Number) -> Event {
        if let Some(message) = self.outbox.take(number)
            && message.carried.batch > 0
            && number.epoch == self.epoch()
        {
            self.evidence.item_lost(message.carried.batch);
        }
        Event::GivenUp(number)
    }
}
