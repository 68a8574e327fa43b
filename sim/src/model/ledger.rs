//! What is durable at the cloud of a model: the store and the operator's book, in memory, doing what the real ones promise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fivefold_cloud::accepted::{ContextId, MessageHash, Row};
use fivefold_cloud::cloud::Memory;
use fivefold_cloud::store::{Committed, ContextRow, LinkReport, Orphan, Recent, Standing, Verdict, Write};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::time::Millis;
use fivefold_keep::rotation::Rotation;

use super::{Flaw, History};

/// A message that was taken, by whom, and when.
type Taken = (MessageHash, GatewayId, Millis);

/// What is durable at the cloud: the store, and the operator's book.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) contexts: BTreeMap<i64, ContextRow>,
    /// By context and number.
    pub(super) readings: BTreeMap<(i64, u64), Vec<Taken>>,
    pub(super) next: i64,
    pub(super) generation: u64,
    pub(super) link_keys: BTreeMap<Did, LinkReport>,
    pub(super) link_told: BTreeMap<Did, (u8, Millis)>,
    pub(super) counts: BTreeMap<Code, u64>,
    /// No epoch up to this one is agreed any more.
    pub(super) highest: BTreeMap<Did, Epoch>,
    pub(super) ordered: BTreeMap<Did, u64>,
    pub(super) rotation: Option<Rotation>,
    pub(super) primary: usize,
    pub(super) book_version: u64,
}

/// The same, as the engine's memory.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Rows>>);

impl Ledger {
    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory for Ledger {
    fn new_context(&self) -> ContextId {
        let mut rows = self.rows();
        rows.next += 1;
        ContextId(rows.next)
    }

    fn recent(&self, context: ContextId) -> Recent {
        let rows = self.rows();
        let of: Vec<_> = rows.readings.range((context.0, 0)..=(context.0, u64::MAX)).collect();
        let Some(((_, highest), last)) = of.last() else { return Recent::default() };
        let bitmap = of.iter().map(|((_, piv), _)| highest - piv).filter(|b| *b < 64).fold(0, |bits, b| bits | 1 << b);
        let last = last.first().map_or(Millis(0), |(_, _, at)| *at);
        Recent { highest: Some(*highest), bitmap, last }
    }

    fn orphans(&self, _: Net, _: Sid, _: Millis) -> Vec<Orphan> {
        Vec::new()
    }
}

impl Rows {
    fn take(&mut self, row: &Row, flaw: Option<Flaw>) -> Verdict {
        if flaw == Some(Flaw::LedgerNotKept) {
            return Verdict::New;
        }
        let there = self.readings.entry((row.context.0, row.piv)).or_default();
        if let Some((_, gateway, ingested)) = there.iter().find(|(hash, ..)| *hash == row.hash) {
            return Verdict::Dup { gateway: *gateway, ingested: *ingested };
        }
        there.push((row.hash, row.way.gateway, row.way.ingested));
        if there.len() == 1 { Verdict::New } else { Verdict::NonceReuse }
    }

    pub(super) fn commit(&mut self, write: &Write, flaw: Option<Flaw>) -> Committed {
        for row in &write.contexts {
            self.contexts.entry(row.id.0).or_insert_with(|| row.clone());
        }
        for (id, standing, since) in &write.standings {
            if let Some(row) = self.contexts.get_mut(&id.0) {
                (row.standing, row.since) = (*standing, *since);
            }
        }
        for id in &write.forgotten {
            if let Some(row) = self.contexts.get_mut(&id.0) {
                row.sealed = None;
            }
        }
        for id in &write.dropped {
            let used = self.readings.range((id.0, 0)..=(id.0, u64::MAX)).next().is_some();
            if !used && self.contexts.get(&id.0).is_some_and(|c| c.standing == Standing::Pending) {
                self.contexts.remove(&id.0);
            }
        }
        for (id, failures) in &write.failures {
            if let Some(row) = self.contexts.get_mut(&id.0) {
                row.failures = row.failures.max(*failures);
            }
        }
        for (id, bound) in write.leases.iter().filter(|_| flaw != Some(Flaw::CloudNumbersNotLeased)) {
            if let Some(row) = self.contexts.get_mut(&id.0) {
                row.bound = row.bound.max(*bound);
            }
        }
        let verdicts = write.accepted.iter().map(|accepted| self.take(accepted.row(), flaw)).collect();
        for (did, keys) in &write.link_keys {
            let report = LinkReport::after(self.link_keys.get(did).copied(), *keys, write.now);
            self.link_keys.insert(*did, report);
        }
        for (did, index) in &write.link_told {
            self.link_told.insert(*did, (*index, write.now));
        }
        for (key, n) in &write.counts {
            *self.counts.entry(key.code).or_default() += n;
        }
        let generation = write.new_generation.then(|| {
            self.generation += 1;
            self.generation
        });
        Committed { verdicts, generation, ..Committed::default() }
    }

    /// A device's contexts, the newest first.
    pub(super) fn of(&self, did: Did) -> Vec<&ContextRow> {
        let mut of: Vec<_> = self.contexts.values().filter(|c| c.did == did).collect();
        of.sort_by_key(|c| std::cmp::Reverse(c.epoch));
        of
    }

    /// How many messages were taken under contexts of this device below an epoch.
    pub(super) fn taken_below(&self, did: Did, epoch: Epoch) -> usize {
        let old = |id: &i64| self.contexts.get(id).is_some_and(|c| c.did == did && c.epoch < epoch);
        self.readings.iter().filter(|((id, _), _)| old(id)).map(|(_, all)| all.len()).sum()
    }

    pub(super) fn history(&self) -> History {
        let contexts: Vec<_> = self
            .contexts
            .values()
            .map(|c| (c.id, c.did, c.epoch, c.standing, c.since, c.agreed, c.failures, c.bound, c.sealed.is_some()))
            .collect();
        let all = format!(
            "{contexts:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.readings,
            self.next,
            self.generation,
            self.link_keys,
            self.link_told,
            self.highest,
            self.ordered,
            self.rotation,
            (self.primary, self.book_version),
        );
        History::of(&[all.as_bytes()])
    }
}
