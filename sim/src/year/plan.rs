//! What a year is made of.

use fivefold_core::profile::Profile;

use crate::plan::{Hostility, Weather};

const HOUR: u64 = 3_600_000;
/// Milliseconds of a day.
pub const DAY: u64 = 24 * HOUR;

/// A mistake that is built in on purpose: the year must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The cloud lets message_4 go before the context is durable (W6).
    EarlyMessage4,
    /// The operator does not revoke the node that was stolen.
    ForgottenThief,
    /// From its third boot on the flash of every node says that it wrote, and does not (W1 to W3).
    LyingFlash,
}

/// How often things break: once in so many milliseconds on average, each of them.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Power of a node, between any two of its outputs, in the middle of a write among them.
    pub node: u64,
    /// A gateway's process, between any two of its outputs.
    pub gateway: u64,
    /// The cloud's process, between any two of its durable writes.
    pub cloud: u64,
    /// The way between gateways and cloud.
    pub away: u64,
    /// Clocks, of nodes, gateways and cloud.
    pub clock: u64,
}

/// A year.
#[derive(Clone, Debug)]
pub struct YearPlan {
    /// Everything random comes from it.
    pub seed: u64,
    /// How many devices, in five networks.
    pub devices: usize,
    /// How long things break.
    pub days: u64,
    /// On the radio, and between devices with IP and their gateway.
    pub weather: Weather,
    /// Of a thousand exchanges between gateway and cloud, so many break: half of them after the cloud has done its part.
    pub uplink_loss: u64,
    /// What breaks.
    pub trouble: Trouble,
    /// Milliseconds between two readings of a device, on average.
    pub every: u64,
    /// Days between two rotations of a network's key; each second one because a node was stolen.
    pub rotation: u64,
    /// A mistake to be found.
    pub flaw: Option<Flaw>,
    /// A device of which everything is told.
    pub follow: Option<usize>,
}

impl YearPlan {
    /// The usual one: 20 % of all frames lost, 5 % doubled, each up to 1.5 s late.
    pub const fn new(seed: u64, devices: usize, days: u64) -> Self {
        Self {
            seed,
            devices,
            days,
            weather: Weather { loss: 200, double: 50, delay: 1_500 },
            uplink_loss: 100,
            trouble: Trouble { node: 14 * DAY, gateway: 3 * DAY, cloud: DAY, away: 10 * DAY, clock: 2 * HOUR },
            every: 24 * HOUR,
            rotation: 91,
            flaw: None,
            follow: None,
        }
    }
}

/// The networks: what their devices must use, and whether their gateway was taken over.
pub const NETWORKS: [(&str, Profile, bool); 5] = [
    ("cloud", Profile::ToCloud, false),
    ("both", Profile::ToBoth, false),
    ("gateway", Profile::ToGateway, false),
    ("hostile-both", Profile::ToBoth, true),
    ("hostile-cloud", Profile::ToCloud, true),
];

/// How a gateway behaves that was taken over, in thousandths.
pub const HOSTILE: Hostility = Hostility { drop: 100, withhold: 100, replay: 100, alter: 50, splice: 50, censor: 0 };
/// What it does to messages of EDHOC, each in so many of a thousand cases: drop, alter and repeat them, give them another
/// device's name, and the same with what the cloud answers.
pub const MEDDLES: u64 = 60;
