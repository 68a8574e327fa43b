//! What must hold in every year, whatever happens.
//!
//! 1. Whoever uses new contexts, the other side has them durable; at the end every device that was not revoked has the
//!    context that the cloud uses, and its last reading came through under it.
//! 2. What a device saw acknowledged is stored, nothing is stored twice, and nothing that no device sent.
//! 3. Behind honest gateways a message is lost in two cases only: its device lost power while it held it, or gave it up as
//!    docs/protocol.md 8 and 9.1 allow: too old for the gateway's window, or of an epoch that is over.
//! 4. Frame counters and sender numbers never repeat, and no key seals two messages under one nonce: where nobody but
//!    a gateway that was taken over does it.
//! 5. Of a revoked device nothing is taken any more, and once its network's key was rotated, nothing but E1 refuses it.
//! 6. Where no gateway is hostile, no code is counted that means harm, a repeated key or a reset device.

use std::collections::{BTreeMap, HashMap, HashSet};

use fivefold_cloud::accepted::flag;
use fivefold_cloud::store::ReadingRow;
use fivefold_core::id::Epoch;
use fivefold_device::Number;

/// What became of a reading, as its device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The device holds it.
    Held,
    /// It was acknowledged.
    Delivered,
    /// The power went while the device held it.
    PowerLost,
    /// Its epoch was over, or it made room for a newer one.
    EpochOver,
    /// It was too old for the gateway's window.
    WindowPassed,
    /// 4.01: the other side would not have it.
    Refused,
}

impl Fate {
    /// In a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Delivered => "acknowledged",
            Self::PowerLost => "in memory when the power went",
            Self::EpochOver => "given up: its epoch was over",
            Self::WindowPassed => "given up: too old for the window",
            Self::Refused => "refused",
        }
    }
}

/// A message: device by place, epoch, sender number.
pub type Name = (usize, Epoch, u32);

/// Accounts of everything that was sent.
#[derive(Debug, Default)]
pub struct Accounts {
    /// The first thing that went wrong.
    pub failure: Option<String>,
    readings: HashMap<Name, (u32, Fate)>,
    last_sealed: HashMap<usize, (Epoch, u32)>,
    last_counter: HashMap<(usize, u8), u32>,
}

/// What became of all readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Readings that were taken.
    pub taken: u64,
    /// Rows of the ledger that are readings.
    pub stored: u64,
    /// Readings that were not stored, by what their devices know; of honest networks, and of the others.
    pub lost: [BTreeMap<&'static str, u64>; 2],
}

impl Accounts {
    /// Something is wrong. The first one counts.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failure.get_or_insert(what.into());
    }

    /// A device took a reading.
    pub fn took(&mut self, n: usize, number: Number, serial: u32) {
        let (epoch, value) = (number.epoch, number.value);
        let last = self.last_sealed.insert(n, (epoch, value));
        if last.is_some_and(|last| last >= (epoch, value)) {
            self.fail(format!("4: device {n} sealed number {value} of epoch {epoch} after {last:?}"));
        }
        self.readings.insert((n, epoch, value), (serial, Fate::Held));
    }

    /// A device sent a frame.
    pub fn sent_frame(&mut self, n: usize, index: u8, counter: u32) {
        let last = self.last_counter.insert((n, index), counter);
        if last.is_some_and(|last| last >= counter) {
            self.fail(format!("4: device {n} sent frame counter {counter} under key {index} after {last:?}"));
        }
    }

    /// A device knows more of a message.
    pub fn learned(&mut self, n: usize, number: Number, fate: Fate) {
        // Reports of its own accord are nobody's reading.
        if let Some((_, known)) = self.readings.get_mut(&(n, number.epoch, number.value))
            && *known == Fate::Held
        {
            *known = fate;
        }
    }

    /// Readings that devices hold still.
    pub fn held(&self) -> usize {
        self.readings.values().filter(|(_, fate)| *fate == Fate::Held).count()
    }

    /// How many readings were taken.
    pub fn taken(&self) -> usize {
        self.readings.len()
    }

    /// What became of a reading.
    pub fn fate(&self, n: usize, number: Number) -> Option<Fate> {
        self.readings.get(&(n, number.epoch, number.value)).map(|(_, fate)| *fate)
    }

    /// Looks at all that is stored. `place` says whose row it is; `is_honest` whether its gateway is; `at_mercy` whether
    /// its gateway may invent what it likes.
    pub fn close(
        &mut self,
        ledger: &[ReadingRow],
        place: impl Fn(&ReadingRow) -> Option<usize>,
        is_honest: impl Fn(usize) -> bool,
        reading: impl Fn(usize, u32) -> Vec<u8>,
    ) -> Outcome {
        let mut outcome = Outcome { taken: self.readings.len() as u64, ..Outcome::default() };
        let mut stored: HashSet<Name> = HashSet::new();
        for row in ledger {
            let Some(n) = place(row) else {
                self.fail(format!("2: a row of nobody is stored: {row:?}"));
                continue;
            };
            let name = (n, row.epoch, u32::try_from(row.piv).unwrap_or(u32::MAX));
            if !stored.insert(name) {
                self.fail(format!("2: {name:?} is stored twice"));
            }
            if row.flags & (flag::HIDDEN | flag::CONFLICT) != 0 {
                self.fail(format!("2: {name:?} is stored with flags {}", row.flags));
            }
            match self.readings.get(&name) {
                Some((serial, _)) if row.payload.starts_with(&reading(n, *serial)) => outcome.stored += 1,
                Some(_) => self.fail(format!("2: {name:?} is stored, and is not what was sent")),
                // Control maps go out without being asked for.
                None if row.payload.first().is_some_and(|b| b >> 5 == 5) => {}
                None => self.fail(format!("2: {name:?} is stored, and no device sent it")),
            }
        }
        let mut wrong: Vec<(Name, Fate)> = Vec::new();
        for (name, (_, fate)) in &self.readings {
            if stored.contains(name) {
                continue;
            }
            let honest = is_honest(name.0);
            let [of_honest, of_others] = &mut outcome.lost;
            *if honest { of_honest } else { of_others }.entry(fate.as_str()).or_default() += 1;
            if *fate == Fate::Delivered || honest && matches!(fate, Fate::Held | Fate::Refused) {
                wrong.push((*name, *fate));
            }
        }
        wrong.sort_unstable();
        if let Some((name, fate)) = wrong.first() {
            self.fail(format!(
                "2, 3: {} messages are not stored; the first is {name:?}: {}",
                wrong.len(),
                fate.as_str()
            ));
        }
        outcome
    }
}
