//! What is open of a device's evidence (docs/protocol.md 13.1).

use std::collections::VecDeque;

use fivefold_core::time::Millis;
use fivefold_core::wire::control::BatchState;

use crate::accepted::signed::{Bitmap, Claim, Partial};

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

/// What is open of a device's evidence.
#[derive(Debug, Default)]
pub struct Dossier {
    /// Claims that are not decided.
    pub open: Vec<Open>,
    /// Batches that were verified while readings of them were missing.
    pub partial: Vec<Partial>,
    /// Readings since the last claim.
    pub unsigned: Option<Unsigned>,
    /// When it was last said that a batch is overdue.
    pub(crate) overdue: Option<Millis>,
    /// What the device is to be told, with the number of the batch.
    pub(crate) to_say: VecDeque<(u64, Told)>,
    /// Numbers of batches that it was asked to sign again, since this process started.
    again: VecDeque<u64>,
}

impl Dossier {
    /// Claims that are kept open, and batches that wait for readings, at most.
    pub(crate) const MOST: usize = 16;
    /// What waits to be said, at most.
    const SAYINGS: usize = 4;

    /// One more reading that nothing proves yet.
    pub(crate) fn unsigned(&mut self, at: Millis) {
        let so_far = self.unsigned.unwrap_or(Unsigned { since: at, count: 0 });
        self.unsigned = Some(Unsigned { count: so_far.count.saturating_add(1), ..so_far });
    }

    /// Whether it was asked to sign this batch again.
    pub(crate) fn was_asked(&self, number: u64) -> bool {
        self.again.contains(&number)
    }

    /// It is asked to sign this batch again.
    pub(crate) fn ask(&mut self, number: u64) {
        if !self.was_asked(number) {
            self.again.push_back(number);
        }
        if self.again.len() > 2 * Self::MOST {
            self.again.pop_front();
        }
    }

    /// To be said with the next answer; what was to be said of the same batch is out of date.
    pub(crate) fn say(&mut self, number: u64, told: Told) {
        self.to_say.retain(|(n, _)| *n != number);
        self.to_say.push_back((number, told));
        while self.to_say.len() > Self::SAYINGS {
            self.to_say.pop_front();
        }
    }
}
