//! The models with their bounds, and the broken variants of each.

use fivefold_keep::rotation::Stage;

use super::explore::{Looked, Reach, explore};
use super::rotation::{self, Village};
use super::site::{Bounds, Site};
use super::{Flaw, Plan};

/// A model with its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// One word.
    pub name: &'static str,
    /// What it is about, and what bounds it.
    pub about: &'static str,
    /// Moves in a row, unless more are asked for.
    pub depth: usize,
    what: What,
    /// Broken variants, each to be found within so many moves and so many faults.
    pub flaws: &'static [(Flaw, usize, u8)],
}

#[derive(Clone, Copy, Debug)]
enum What {
    Rotation(rotation::Bounds),
    Site(Bounds),
}

const BOUNDS: Bounds =
    Bounds { flying: 3, faults: 2, readings: 0, orders: 0, resets: 0, succession: false, ordered: true };

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "renewal",
        about: "device, gateway, cloud: 3 messages in flight each way, 2 faults, a second order",
        depth: 6,
        what: What::Site(Bounds { orders: 1, ..BOUNDS }),
        flaws: &[
            (Flaw::AgreedTooLate, 6, 1),
            (Flaw::BrokenBeforeMade, 6, 1),
            (Flaw::ContextNotKept, 8, 1),
            (Flaw::EpochNotUsedUp, 4, 1),
            (Flaw::ShareNotKept, 6, 1),
        ],
    },
    Case {
        name: "long",
        about: "the same from end to end: 2 messages in flight each way, 1 fault",
        depth: 8,
        what: What::Site(Bounds { flying: 2, faults: 1, ..BOUNDS }),
        flaws: &[],
    },
    Case {
        name: "reset",
        about: "the same with a device that is reset to its state of before: 1 fault",
        depth: 6,
        what: What::Site(Bounds { resets: 1, faults: 1, ..BOUNDS }),
        flaws: &[(Flaw::OldCopyRestored, 6, 1)],
    },
    Case {
        name: "rotation",
        about: "two nodes, one behind the other, gateway and cloud, while the key is handed out: 1 fault, a week",
        depth: 4,
        what: What::Rotation(rotation::Bounds { from: Stage::HandingOut, faults: 1, weeks: 1 }),
        flaws: &[(Flaw::FramesNotLeased, 4, 2), (Flaw::RetiredTooSoon, 4, 0)],
    },
    Case {
        name: "rotation-switched",
        about: "the same from the switch on",
        depth: 4,
        what: What::Rotation(rotation::Bounds { from: Stage::Draining, faults: 1, weeks: 1 }),
        flaws: &[],
    },
    Case {
        name: "rotation-retired",
        about: "the same from the end of the old key on",
        depth: 4,
        what: What::Rotation(rotation::Bounds { from: Stage::Done, faults: 1, weeks: 1 }),
        flaws: &[(Flaw::KeyNotKept, 3, 1)],
    },
    Case {
        name: "nonces",
        about: "the same with 2 readings, a renewal, and another primary gateway: 2 faults",
        depth: 5,
        what: What::Site(Bounds { readings: 2, orders: 1, ordered: false, succession: true, ..BOUNDS }),
        flaws: &[
            (Flaw::AcceptedNotKept, 4, 1),
            (Flaw::CloudNumbersNotLeased, 6, 2),
            (Flaw::GatewayNumbersNotLeased, 6, 3),
            (Flaw::LedgerNotKept, 4, 1),
            (Flaw::NumbersNotLeased, 4, 2),
            (Flaw::SuccessorAnswers, 5, 1),
        ],
    },
];

impl Case {
    /// Looks at it, whole.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn look(&self, reach: Reach) -> anyhow::Result<Looked> {
        self.explore(None, reach)
    }

    /// Looks for a flaw, with no more going on than it takes.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn find(&self, flaw: Flaw, depth: usize, faults: u8, threads: usize) -> anyhow::Result<Looked> {
        self.explore(Some((flaw, faults)), Reach { depth, threads })
    }

    fn explore(&self, flaw: Option<(Flaw, u8)>, reach: Reach) -> anyhow::Result<Looked> {
        match self.what {
            What::Rotation(bounds) => {
                let faults = flaw.map_or(bounds.faults, |(_, faults)| faults);
                let bounds = rotation::Bounds { faults, ..bounds };
                explore::<Village>(&Plan::new(bounds, flaw.map(|(flaw, _)| flaw))?, reach)
            }
            What::Site(bounds) => {
                let bounds = flaw.map_or(bounds, |(flaw, faults)| bounds.narrow(flaw, faults));
                explore::<Site>(&Plan::new(bounds, flaw.map(|(flaw, _)| flaw))?, reach)
            }
        }
    }
}
