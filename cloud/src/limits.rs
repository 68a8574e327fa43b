//! How long the cloud keeps what, and how much of it: sizes, ages and floors in, steps out.
//!
//! Two things that never mix. What is *pruned* is what the operator's ages and sizes say, oldest first, and nothing that
//! somebody still needs. Where the disk has no room, nothing is pruned for it: batches are *refused*, and gateways keep them
//! (E4-04). So nothing goes that nobody asked to go, and nothing that was acknowledged goes unseen.

#[cfg(feature = "server")]
pub mod disk;

use std::fmt;

use fivefold_core::time::Millis;
use fivefold_keep::share::{CloudLimit, CloudLimits};

const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 3600 * 1000;
/// What must stay free on the disk, unless the operator says otherwise.
const KEEP_FREE_MIB: u64 = 64;
/// A budget below this holds the store's journal and little else.
const LEAST_DISK: u64 = 64 * MIB;
/// Of the budget so many hundredths are for batches: the rest is for renewals, leases, orders and the log, which go on.
const FOR_BATCHES: u64 = 98;
/// Batches that were refused are taken again below this.
const AGAIN: u64 = 97;
/// From here on it is counted once (E4-04), and again after it was below the second.
const WARN_FROM: u64 = 80;
/// See [`WARN_FROM`].
const WARN_AGAIN_BELOW: u64 = 75;
/// Rows that one step looks at, at most: batches that came meanwhile wait no longer than for a group of their own.
pub const ROWS: u32 = 2_000;
/// So long the signature over a reading is waited for, if readings are to go earlier.
pub const UNPROVEN: u64 = 30 * DAY;

/// What has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What readings say.
    Readings,
    /// Rows by which a repeat is known (docs/protocol.md 8.1).
    Ledger,
    /// Why things were refused, and what was kept apart.
    Refusals,
    /// Alarms.
    Alarms,
    /// What proves readings to strangers.
    Evidence,
}

impl Part {
    /// All of them, in the order in which they are pruned: rows of the ledger go behind what stood in them.
    pub const ALL: [Self; 5] = [Self::Readings, Self::Evidence, Self::Ledger, Self::Refusals, Self::Alarms];

    /// One word, as in `cloud.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Ledger => "ledger",
            Self::Refusals => "refusals",
            Self::Alarms => "alarms",
            Self::Evidence => "evidence",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The limit of one part; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Milliseconds since it came.
    pub age: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
}

impl Limit {
    /// As the file says it, over what holds where it says nothing.
    fn of(words: &CloudLimit, or: (u32, u64)) -> Self {
        let days = u64::from(words.days.unwrap_or(or.0));
        let mib = words.max_mib.unwrap_or(or.1);
        Self { age: (days > 0).then_some(days * DAY), bytes: (mib > 0).then_some(mib.saturating_mul(MIB)) }
    }

    const fn is_none(self) -> bool {
        self.age.is_none() && self.bytes.is_none()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.age.map(|age| age / DAY);
        match (days, self.bytes.map(|bytes| bytes / MIB)) {
            (None, None) => f.write_str("kept for ever"),
            (Some(days), None) => write!(f, "{days} days"),
            (None, Some(mib)) => write!(f, "{mib} MiB"),
            (Some(days), Some(mib)) => write!(f, "{days} days, {mib} MiB"),
        }
    }
}

/// A key of `cloud.toml` that makes no sense beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonsense {
    /// The key.
    pub key: &'static str,
    /// What is wrong, and what to write.
    pub reason: String,
}

/// What the operator wants, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What the cloud may take of its disk, in bytes.
    pub disk: Option<u64>,
    /// What must stay free there, in bytes.
    pub keep_free: u64,
    readings: Limit,
    ledger: Limit,
    refusals: Limit,
    alarms: Limit,
    evidence: Limit,
}

impl Policy {
    /// Takes the operator's words.
    ///
    /// # Errors
    /// [`Nonsense`]: the first key that cannot be meant.
    pub fn check(words: &CloudLimits) -> Result<Self, Nonsense> {
        let mib = |n: u64| n.saturating_mul(MIB);
        let policy = Self {
            disk: words.disk_max_mib.filter(|n| *n > 0).map(mib),
            keep_free: mib(words.keep_free_mib.unwrap_or(KEEP_FREE_MIB)),
            readings: Limit::of(&words.readings, (0, 0)),
            ledger: Limit::of(&words.ledger, (0, 0)),
            refusals: Limit::of(&words.refusals, (400, 256)),
            alarms: Limit::of(&words.alarms, (0, 0)),
            evidence: Limit::of(&words.evidence, (0, 0)),
        };
        let wrong = |key, reason: &str| Err(Nonsense { key, reason: reason.to_owned() });
        let longer = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a > b);
        if longer(policy.evidence.age, policy.readings.age) {
            return wrong(
                "limits.evidence.days",
                "evidence goes with its reading; write no more than limits.readings.days",
            );
        }
        if !policy.ledger.is_none() && policy.readings.is_none() {
            let reason = "a row stays as long as its reading: give limits.readings a limit too, or write 0";
            return wrong("limits.ledger", reason);
        }
        if longer(policy.readings.age, policy.ledger.age) {
            return wrong(
                "limits.ledger.days",
                "a row stays as long as its reading; write at least limits.readings.days",
            );
        }
        if policy.disk.is_some_and(|disk| disk < LEAST_DISK) {
            let reason =
                format!("an empty store and its journal need up to {} MiB; write more, or 0", LEAST_DISK / MIB);
            return Err(Nonsense { key: "limits.disk_max_mib", reason });
        }
        Ok(policy)
    }

    /// The limit of a part.
    pub const fn limit(&self, part: Part) -> Limit {
        match part {
            Part::Readings => self.readings,
            Part::Ledger => self.ledger,
            Part::Refusals => self.refusals,
            Part::Alarms => self.alarms,
            Part::Evidence => self.evidence,
        }
    }

    /// The next step for a part that takes so many bytes; `None` where nothing of it can be due.
    pub fn step(&self, part: Part, bytes: u64, floors: Floors, now: Millis) -> Option<Step> {
        let limit = self.limit(part);
        // What proves a reading goes with it, too.
        let with_readings = part == Part::Evidence && !self.readings.is_none();
        if limit.is_none() && !with_readings {
            return None;
        }
        Some(Step {
            part,
            before: Millis(limit.age.map_or(0, |age| now.0.saturating_sub(age))),
            excess: limit.bytes.map_or(0, |most| bytes.saturating_sub(most)),
            floor: floors.lowest(),
            now,
            rows: ROWS,
        })
    }

    /// Whether there is room for batches. `was_full`: there was none when this was asked last.
    ///
    /// # Errors
    /// [`Full`]: they are to be refused.
    pub fn room(&self, space: Space, was_full: bool) -> Result<(), Full> {
        let part = if was_full { AGAIN } else { FOR_BATCHES };
        let used = space.used();
        if let Some(limit) = self.disk.filter(|disk| used >= of(*disk, part)) {
            return Err(Full::Budget { used, beside: space.beside, limit });
        }
        let least = if was_full { self.keep_free.saturating_add(self.keep_free / 50) } else { self.keep_free };
        let Space { free, store: Taken { spare, .. }, .. } = space;
        if free.saturating_add(spare) < least {
            return Err(Full::Disk { free, spare, keep_free: self.keep_free });
        }
        Ok(())
    }

    /// Whether it is nearly full. `was_near`: it was when this was asked last.
    pub fn is_near(&self, used: u64, was_near: bool) -> bool {
        let part = if was_near { WARN_AGAIN_BELOW } else { WARN_FROM };
        self.disk.is_some_and(|disk| used >= of(disk, part))
    }

    /// As it was resolved, one setting a line.
    pub fn describe(&self) -> String {
        let disk = self.disk.map_or("none".to_owned(), |bytes| format!("{} MiB", bytes / MIB));
        let parts = Part::ALL.map(|part| format!("\nlimits.{part} = {}", self.limit(part))).concat();
        format!("limits.disk_max_mib = {disk}\nlimits.keep_free_mib = {}{parts}", self.keep_free / MIB)
    }
}

const fn of(whole: u64, hundredths: u64) -> u64 {
    whole / 100 * hundredths + whole % 100 * hundredths / 100
}

/// What a store takes of its disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Pages in use, and the journal at its full length.
    pub used: u64,
    /// Pages of its file that nothing is in any more: they are used again before the file grows.
    pub spare: u64,
}

/// What a cloud takes of its disk, and what is free there, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its store.
    pub store: Taken,
    /// What else lies in its folder.
    pub beside: u64,
    /// What the disk has.
    pub free: u64,
}

impl Space {
    /// What the cloud takes of it.
    pub const fn used(self) -> u64 {
        self.store.used.saturating_add(self.beside)
    }
}

/// There is no room for batches. One sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The operator's budget is used up.
    Budget {
        /// Bytes.
        used: u64,
        /// Bytes of them that are in no store, but lie in the folder.
        beside: u64,
        /// Bytes.
        limit: u64,
    },
    /// The disk is.
    Disk {
        /// Bytes.
        free: u64,
        /// Bytes that are free in the store's file besides.
        spare: u64,
        /// Bytes.
        keep_free: u64,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { used, beside, limit } => {
                let (used, beside, limit) = (used / MIB, beside / MIB, limit / MIB);
                write!(
                    f,
                    "the disk budget is reached ({used} of {limit} MiB, {beside} of them beside the store): batches are refused \
                     (E4-04) and gateways keep them; "
                )?;
                f.write_str("raise limits.disk_max_mib, or keep less: [limits] of cloud.toml")
            }
            Self::Disk { free, spare, keep_free } => {
                let (free, spare, keep) = (free / MIB, spare / MIB, keep_free / MIB);
                write!(
                    f,
                    "the disk has {free} MiB free, the store's file {spare}, and {keep} are to be: batches are refused (E4-04) and \
                     gateways keep them; "
                )?;
                f.write_str("make room on it, keep less, or lower keep_free_mib: [limits] of cloud.toml")
            }
        }
    }
}

/// What others still need: the first reading that each has not got yet. `None`: nobody waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// A sink that is to get every reading.
    pub undelivered: Option<i64>,
    /// The next backup, if what is pruned must be in one.
    pub not_backed_up: Option<i64>,
}

impl Floors {
    /// The first reading that must stay.
    fn lowest(self) -> i64 {
        [self.undelivered, self.not_backed_up].into_iter().flatten().min().unwrap_or(i64::MAX)
    }
}

/// A step of pruning: what is older than this goes, and of what is not, the oldest until so many bytes are freed; in the
/// order in which it came, and nothing from the floor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of what.
    pub part: Part,
    /// Whatever came before this.
    pub before: Millis,
    /// Bytes that are too many.
    pub excess: u64,
    /// The first reading that must stay.
    pub floor: i64,
    /// The time.
    pub now: Millis,
    /// Rows to look at, at most.
    pub rows: u32,
}

/// The time to count ages by: what the clock says, and no more than a day after the newest of what gateways `heard`, by their
/// clocks. So no clock makes anything old alone, be it one that NTP has not set yet; and where nothing comes, nothing grows old.
pub fn time(now: Millis, heard: Option<Millis>) -> Millis {
    heard.map_or(Millis(0), |heard| now.min(heard.plus(DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(used: u64, free: u64) -> Space {
        Space { store: Taken { used, spare: 0 }, free, ..Space::default() }
    }

    fn limit(days: u32, max_mib: u64) -> CloudLimit {
        CloudLimit { days: Some(days), max_mib: Some(max_mib) }
    }

    #[test]
    fn nothing_is_pruned_by_default_but_what_was_refused() {
        let policy = Policy::check(&CloudLimits::default()).unwrap();
        let due = Part::ALL.map(|part| policy.step(part, 1 << 40, Floors::default(), Millis(1 << 41)).is_some());
        assert_eq!(due, [false, false, false, true, false]);
        assert_eq!((policy.disk, policy.room(space(u64::MAX, 64 * MIB), false)), (None, Ok(())));
    }

    #[test]
    fn limits_that_cannot_be_meant_are_refused_by_their_key() {
        let words = |readings, ledger, evidence| CloudLimits { readings, ledger, evidence, ..CloudLimits::default() };
        let none = CloudLimit::default;
        for (words, key) in [
            (words(limit(30, 0), none(), limit(31, 0)), "limits.evidence.days"),
            (words(none(), limit(30, 0), none()), "limits.ledger"),
            (words(limit(30, 0), limit(29, 0), none()), "limits.ledger.days"),
            (CloudLimits { disk_max_mib: Some(63), ..CloudLimits::default() }, "limits.disk_max_mib"),
        ] {
            assert_eq!(Policy::check(&words).unwrap_err().key, key);
        }
        Policy::check(&words(limit(30, 0), limit(30, 0), limit(30, 0))).unwrap();
    }

    #[test]
    fn a_step_says_what_is_too_old_and_how_much_is_too_much() {
        let policy = Policy::check(&CloudLimits { readings: limit(30, 10), ..CloudLimits::default() }).unwrap();
        let floors = Floors { undelivered: Some(70), not_backed_up: Some(40) };
        let step = policy.step(Part::Readings, 12 * MIB, floors, Millis(31 * DAY)).unwrap();
        assert_eq!((step.before, step.excess, step.floor), (Millis(DAY), 2 * MIB, 40));
        let step = policy.step(Part::Readings, 0, Floors::default(), Millis(DAY)).unwrap();
        assert_eq!((step.before, step.excess, step.floor), (Millis(0), 0, i64::MAX), "younger than the age");
        // What proves them goes with them.
        assert!(policy.step(Part::Evidence, 0, floors, Millis(31 * DAY)).is_some());
        assert!(policy.step(Part::Ledger, 0, floors, Millis(31 * DAY)).is_none());
    }

    #[test]
    fn batches_are_refused_at_the_edge_and_taken_again_a_little_below_it() {
        let policy =
            Policy::check(&CloudLimits { disk_max_mib: Some(100), keep_free_mib: Some(50), ..CloudLimits::default() })
                .unwrap();
        let of = |used| space(used, 1 << 40);
        assert_eq!(policy.room(of(98 * MIB - 1), false), Ok(()));
        let full = policy.room(of(98 * MIB), false).unwrap_err();
        assert!(full.to_string().contains("98 of 100 MiB"), "{full}");
        assert_eq!(
            policy.room(of(98 * MIB - 1), true).unwrap_err(),
            Full::Budget { used: 98 * MIB - 1, beside: 0, limit: 100 * MIB }
        );
        let beside = Space { beside: 90 * MIB, ..of(8 * MIB) };
        let full = policy.room(beside, false).unwrap_err();
        assert!(full.to_string().contains("98 of 100 MiB, 90 of them beside the store"), "{full}");
        assert_eq!(policy.room(of(97 * MIB - 1), true), Ok(()));
        assert!(policy.room(space(0, 50 * MIB - 1), false).unwrap_err().to_string().contains("49 MiB free"));
        assert!(policy.room(space(0, 50 * MIB), true).is_err() && policy.room(space(0, 51 * MIB), true).is_ok());
        // What was pruned is room, whatever the disk says: the file does not shrink.
        let pruned = |spare| Space { store: Taken { used: 0, spare }, free: 10 * MIB, ..Space::default() };
        let full = policy.room(pruned(39 * MIB), false).unwrap_err();
        assert!(full.to_string().contains("10 MiB free, the store's file 39, and 50 are to be"), "{full}");
        assert!(policy.room(pruned(40 * MIB), false).is_ok() && policy.room(pruned(41 * MIB), true).is_ok());
        assert!(policy.is_near(80 * MIB, false) && !policy.is_near(79 * MIB, false) && policy.is_near(75 * MIB, true));
    }

    #[test]
    fn no_clock_makes_anything_old_alone() {
        let heard = Millis(1_790_000_000_000);
        assert_eq!(time(heard.plus(DAY), Some(heard)), heard.plus(DAY));
        assert_eq!(time(heard.plus(400 * DAY), Some(heard)), heard.plus(DAY), "ours is ahead");
        assert_eq!(time(heard, Some(heard.plus(400 * DAY))), heard, "a gateway's is");
        assert_eq!(time(Millis(heard.0 - DAY), Some(heard)), Millis(heard.0 - DAY));
        assert_eq!(time(heard, None), Millis(0));
    }
}
