//! Every refusal counted by code and device: totals to be shown, increments for the cloud.

use std::collections::HashMap;

use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::wire::event::{self, Count};

/// Counters that are kept apart by device, at most; above it only the code is counted.
const DISTINCT: usize = 1 << 16;

/// Counters.
#[derive(Debug, Default)]
pub struct Tally {
    totals: HashMap<(Code, Option<Sid>), u64>,
    /// Increments that no event has carried yet.
    unsaid: HashMap<(Code, Option<Sid>), u64>,
}

impl Tally {
    /// Counts one.
    pub(super) fn count(&mut self, code: Code, sid: Option<Sid>) {
        self.add(code, sid, 1);
    }

    /// Counts so many.
    pub(super) fn add(&mut self, code: Code, sid: Option<Sid>, times: u64) {
        let key = if self.totals.len() < DISTINCT || self.totals.contains_key(&(code, sid)) {
            (code, sid)
        } else {
            (code, None)
        };
        *self.totals.entry(key).or_default() += times;
        *self.unsaid.entry(key).or_default() += times;
    }

    /// Takes increments for one event, the loudest first.
    pub(super) fn take(&mut self) -> Vec<Count> {
        let mut counts: Vec<Count> =
            self.unsaid.iter().map(|(&(code, sid), &count)| Count { code, sid, count }).collect();
        counts.sort_by_key(|c| (std::cmp::Reverse(c.code.severity()), c.code, c.sid));
        counts.truncate(event::COUNTS);
        for c in &counts {
            self.unsaid.remove(&(c.code, c.sid));
        }
        counts
    }

    /// Whether something was counted that no event has carried.
    pub(super) fn has_news(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// All counters since the start, in no order.
    pub fn totals(&self) -> impl Iterator<Item = Count> + '_ {
        self.totals.iter().map(|(&(code, sid), &count)| Count { code, sid, count })
    }

    /// How often a code was counted since the start.
    pub fn total(&self, code: Code) -> u64 {
        self.totals.iter().filter(|((c, _), _)| *c == code).map(|(_, n)| n).sum()
    }
}
