//! What is open of a device's evidence (docs/protocol.md 13.1).

use std::collections::VecDeque;

use fivefold_core::time::Millis;
use fivefold_core::wire::control::BatchState;

use crate::accepted::signed::{BatchName, Bitmap, Chain, Claim};
use crate::store::{Claims, OPEN};

/// What a device is told of a batch (docs/protocol.md 7.3, item 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// 0.
    Complete,
    /// 1, with the numbers that are here.
    SignAgain(Bitmap),
    /// 2.
    SendLeaves,
}

impl Told {
    /// As item 4, of batch `number`.
    pub(crate) fn wire(&self, number: u64) -> BatchState<'_> {
        match self {
            Self::Complete => BatchState::Complete { number },
            Self::SignAgain(bitmap) => BatchState::SignAgain { number, bitmap: bitmap.as_bytes() },
            Self::SendLeaves => BatchState::SendLeaves { number },
        }
    }
}

/// A claim that is not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What the device said.
    pub claim: Claim,
    /// How often it was asked for more.
    pub asked: u8,
}

/// Readings since the last claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsigned {
    /// When the first of them came.
    pub since: Millis,
    /// How many.
    pub count: u32,
}

/// Signatures that may still be verified for a device: 256 at a time, and one more with each second.
#[derive(Debug, Default)]
pub struct Tries {
    spent: u32,
    at: Millis,
}

impl Tries {
    const MOST: u32 = 256;
    const EACH: u64 = 1000;

    /// All that there are now.
    pub(crate) fn take(&mut self, now: Millis) -> u32 {
        let seconds = now.since(self.at) / Self::EACH;
        self.spent = self.spent.saturating_sub(u32::try_from(seconds).unwrap_or(u32::MAX));
        // What is left of a second counts for the next; before the first try there is none.
        self.at = if self.spent == 0 { now } else { self.at.plus(seconds * Self::EACH) };
        let left = Self::MOST - self.spent;
        self.spent = Self::MOST;
        left
    }

    /// Those of them that were not needed.
    pub(crate) fn put_back(&mut self, left: u32) {
        self.spent = Self::MOST.saturating_sub(left);
    }
}

/// What is open of a device's evidence.
#[derive(Debug, Default)]
pub struct Dossier {
    /// Claims that are not decided.
    pub open: Vec<Open>,
    /// Readings since the last claim.
    pub unsigned: Option<Unsigned>,
    /// Whether all that completed a claim was weighed, and what came of it is durable.
    pub(crate) is_settled: bool,
    /// What its signatures may cost.
    pub(crate) tries: Tries,
    /// When it was last said that a batch is overdue.
    pub(crate) overdue: Option<Millis>,
    /// What the device is to be told.
    to_say: VecDeque<(BatchName, Told)>,
    /// Batches that it was asked to sign again, since this process started.
    again: VecDeque<BatchName>,
    /// Row of its last claim when this process started: whether an earlier one asked for what was claimed by then is not known.
    pub claimed_before: Option<i64>,
}

impl Dossier {
    /// What waits to be said, at most.
    const SAYINGS: usize = 4;

    /// One more reading that nothing proves yet.
    pub(crate) fn unsigned(&mut self, at: Millis) {
        let so_far = self.unsigned.unwrap_or(Unsigned { since: at, count: 0 });
        self.unsigned = Some(Unsigned { count: so_far.count.saturating_add(1), ..so_far });
    }

    /// A claim that is not decided. Whoever weighs it sees to it that they do not become too many.
    pub(crate) fn open(&mut self, claim: &Claim) {
        if !self.open.iter().any(|o| o.claim.is_same(claim)) {
            self.open.push(Open { claim: claim.clone(), asked: 0 });
        }
    }

    /// Whether it was asked to sign this batch again, of which there are these claims, or may have been by an earlier process:
    /// nobody asks for what was never claimed.
    pub(crate) fn was_asked(&self, batch: BatchName, claims: Claims) -> bool {
        let by_earlier = claims.first.is_some_and(|row| self.claimed_before.is_some_and(|last| row <= last));
        by_earlier || self.again.contains(&batch)
    }

    /// It is asked to sign this batch again.
    pub(crate) fn ask(&mut self, batch: BatchName) {
        if !self.again.contains(&batch) {
            self.again.push_back(batch);
        }
        if self.again.len() > OPEN {
            self.again.pop_front();
        }
    }

    /// To be said with the next answer; what was to be said of the same batch is out of date.
    pub(crate) fn say(&mut self, batch: BatchName, told: Told) {
        self.to_say.retain(|(b, _)| *b != batch);
        self.to_say.push_back((batch, told));
        while self.to_say.len() > Self::SAYINGS {
            self.to_say.pop_front();
        }
    }

    /// What is to be said next of batches of this chain: another boot knows them not, and has others of these numbers.
    pub(crate) fn next_to_say(&self, chain: Chain) -> Option<(BatchName, Told)> {
        self.to_say.iter().find(|(b, _)| b.chain == chain).copied()
    }

    /// It was said.
    pub(crate) fn said(&mut self, batch: BatchName) {
        self.to_say.retain(|(b, _)| *b != batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_are_spent_come_back_one_a_second_and_never_more_than_all() {
        let (mut tries, start) = (Tries::default(), Millis(1_790_000_000_000));
        assert_eq!(tries.take(start), Tries::MOST);
        tries.put_back(0);
        let mut had = 0;
        // However often somebody asks.
        for ms in (300..=10_200).step_by(300) {
            had += tries.take(start.plus(ms));
            tries.put_back(0);
        }
        assert_eq!(had, 10);
        tries.take(start.plus(20_000));
        tries.put_back(7);
        assert_eq!(tries.take(start.plus(23_000)), 10);
        tries.put_back(1000);
        assert_eq!(tries.take(start), Tries::MOST, "a clock that went back takes nothing away");
        tries.put_back(0);
        assert_eq!(tries.take(start.plus(3_600_000)), Tries::MOST);
    }
}
