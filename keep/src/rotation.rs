//! Rotation of a network's key (docs/protocol.md 4.3) as a machine without a clock or a disk: from handing out to done,
//! and back. The registry keeps it, the operator and the cloud turn it.
//!
//! ```text
//! handing out ── switch ──▶ draining ── retire ──▶ done
//!      └───────── roll back ──┴──▶ rolling back ── retire ──▶ done
//! ```
//!
//! Every step makes a new value out of one that was read. It is written only where that one still stands, so whoever comes
//! second, or again after a crash, changes nothing.

use std::fmt;

use fivefold_core::id::Net;
use fivefold_core::profile::KeyIndexes;
use fivefold_core::wire::state::Phase;

/// How long devices keep the key before after a switch, in seconds: then it is retired.
pub const DRAIN_S: u64 = 7 * 86_400;
/// How long gateways keep a retired key, in seconds, to take nothing but EDHOC under it: then it is deleted.
pub const RECOVERY_S: u64 = 30 * 86_400;
/// Of a hundred devices so many must have the new key before it is switched to without the operator's word.
pub const SWITCH_AT: usize = 95;

/// Where the rotation of a network's key stands, or how the last one ended. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rotation {
    /// The network.
    pub net: Net,
    /// Index of the key before.
    pub previous: u8,
    /// Index of the new key.
    pub index: u8,
    /// When it began.
    pub started_at: u64,
    /// When gateways began to send under the new key.
    pub switched_at: Option<u64>,
    /// When it was decided to go back to the key before.
    pub rolled_back_at: Option<u64>,
    /// When the key before was given up; after a rollback, the new one.
    pub retired_at: Option<u64>,
    /// Nothing goes on by itself, and nobody is handed the new key.
    pub is_paused: bool,
    /// Somebody is to be shut out: the key before is retired as soon as nobody needs it, not after seven days.
    pub is_urgent: bool,
    /// Somebody was revoked who may have been handed the new key: when this one is over, another one begins.
    pub starts_over: bool,
}

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Devices get the new key; all send under the key before.
    HandingOut,
    /// Gateways send under the new key; the key before is good still, for those who are late.
    Draining,
    /// All go back to the key before; the new one is good still, for those who send under it.
    RollingBack,
    /// One key is left.
    Done,
}

impl Stage {
    /// In a word or two.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandingOut => "handing out",
            Self::Draining => "draining",
            Self::RollingBack => "rolling back",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where one device stands in a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// It has not said that it has the new key.
    Without,
    /// It has the new key, and sends under the other.
    Has,
    /// It sends under the new key, and takes frames under the one before.
    Sends,
    /// It has the new key alone.
    GaveUp,
}

impl Place {
    /// All, in the order in which a device comes to them.
    pub const ALL: [Self; 4] = [Self::Without, Self::Has, Self::Sends, Self::GaveUp];
}

/// What a device said last, and what it may have been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Said {
    /// Its key indexes (control item 5).
    pub keys: Option<KeyIndexes>,
    /// When it said so, Unix seconds.
    pub at: u64,
    /// Whether the new key may have been given to it: it was put into an answer, or nobody can know.
    pub may_have_it: bool,
}

/// How many devices stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Count {
    /// All that count: not revoked, and on a radio with E1 of ours.
    pub devices: usize,
    /// By place.
    pub at: [usize; Place::ALL.len()],
    /// Of a rollback: those of which it is not known since then that they do not send under the new key.
    pub unsure: usize,
}

impl Count {
    /// How many are at this place or beyond.
    pub fn at_least(&self, place: Place) -> usize {
        self.at.iter().zip(Place::ALL).filter(|(_, p)| *p >= place).map(|(n, _)| n).sum()
    }
}

/// Why a step is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Switching wants a key that is being handed out.
    #[error("no key is being handed out; start with: fivefold key rotate")]
    NotHandedOut,
    /// Retiring wants a key that drains.
    #[error("no key is on its way out; see: fivefold key show")]
    NotDraining,
    /// There is nothing to pause, to resume, or to go back from.
    #[error("no key is being rotated; start with: fivefold key rotate")]
    Over,
    /// Seven days after the switch devices give up the key before by themselves.
    #[error("devices have given up the key before by now; let the rotation end, then rotate again")]
    TooLate,
}

impl Rotation {
    /// One that begins now.
    pub const fn begin(net: Net, previous: u8, index: u8, now: u64) -> Self {
        Self {
            net,
            previous,
            index,
            started_at: now,
            switched_at: None,
            rolled_back_at: None,
            retired_at: None,
            is_paused: false,
            is_urgent: false,
            starts_over: false,
        }
    }

    /// How far it has come.
    pub const fn stage(&self) -> Stage {
        match (self.retired_at, self.rolled_back_at, self.switched_at) {
            (Some(_), _, _) => Stage::Done,
            (None, Some(_), _) => Stage::RollingBack,
            (None, None, Some(_)) => Stage::Draining,
            (None, None, None) => Stage::HandingOut,
        }
    }

    /// Since when.
    pub fn since(&self) -> u64 {
        self.retired_at.or(self.rolled_back_at).or(self.switched_at).unwrap_or(self.started_at)
    }

    /// What gateways and devices are to do with its two keys.
    pub const fn phases(&self) -> [(u8, Phase); 2] {
        let (before, new) = match (self.stage(), self.rolled_back_at) {
            (Stage::HandingOut, _) if self.is_paused => (Phase::Switch, Phase::Keep),
            (Stage::HandingOut, _) => (Phase::Switch, Phase::Distribute),
            (Stage::Draining, _) => (Phase::Keep, Phase::Switch),
            (Stage::RollingBack, _) => (Phase::Switch, Phase::Keep),
            (Stage::Done, Some(_)) => (Phase::Switch, Phase::Retire),
            (Stage::Done, None) => (Phase::Retire, Phase::Switch),
        };
        [(self.previous, before), (self.index, new)]
    }

    /// Since when the key is known that is in use, Unix seconds: it is at least so old. `None` for the one that the network
    /// began with.
    pub fn key_since(&self) -> Option<u64> {
        let is_new = self.switched_at.is_some() && self.rolled_back_at.is_none();
        // The key before came by a rotation that the book forgot, or with the network.
        (is_new || self.previous != 1).then_some(self.started_at)
    }

    /// Where a device stands that said this last.
    pub fn place(&self, keys: Option<KeyIndexes>) -> Place {
        match keys {
            Some(has) if has.sending == self.index && has.receiving == Some(self.previous) => Place::Sends,
            Some(has) if has.sending == self.index => Place::GaveUp,
            Some(has) if has.receiving == Some(self.index) => Place::Has,
            _ => Place::Without,
        }
    }

    /// Whether this stage wants it to be elsewhere.
    pub fn is_late(&self, place: Place) -> bool {
        match (self.stage(), self.rolled_back_at) {
            (Stage::HandingOut, _) => place < Place::Has,
            (Stage::Draining, _) => place < Place::Sends,
            (Stage::RollingBack, _) => place > Place::Has,
            (Stage::Done, None) => place < Place::GaveUp,
            (Stage::Done, Some(_)) => place > Place::Without,
        }
    }

    /// Counts devices by what they said.
    pub fn count(&self, devices: impl IntoIterator<Item = Said>) -> Count {
        let mut count = Count::default();
        for said in devices {
            let place = self.place(said.keys);
            count.devices += 1;
            if let Some(n) = count.at.get_mut(place as usize) {
                *n += 1;
            }
            let heard_since = self.rolled_back_at.is_some_and(|at| said.at > at);
            let may_send = matches!(place, Place::Sends | Place::GaveUp);
            let could_send = place == Place::Has || said.may_have_it;
            count.unsure += usize::from(may_send || could_send && !heard_since);
        }
        count
    }

    /// Gateways, and by them all nodes, send under the new key.
    ///
    /// # Errors
    /// [`NotNow::NotHandedOut`].
    pub fn switched(&self, now: u64) -> Result<Self, NotNow> {
        match self.stage() {
            Stage::HandingOut => Ok(Self { switched_at: Some(now), is_paused: false, ..self.clone() }),
            _ => Err(NotNow::NotHandedOut),
        }
    }

    /// The key on its way out is good for nothing any more.
    ///
    /// # Errors
    /// [`NotNow::NotDraining`].
    pub fn retired(&self, now: u64) -> Result<Self, NotNow> {
        match self.stage() {
            Stage::Draining | Stage::RollingBack => {
                Ok(Self { retired_at: Some(now), is_paused: false, ..self.clone() })
            }
            _ => Err(NotNow::NotDraining),
        }
    }

    /// Back to the key before. The new one stays good until nobody sends under it.
    ///
    /// # Errors
    /// [`NotNow::Over`]; [`NotNow::TooLate`] when devices may have given up the key before.
    pub fn rolled_back(&self, now: u64) -> Result<Self, NotNow> {
        match (self.stage(), self.switched_at) {
            (Stage::Draining, Some(at)) if now >= at.saturating_add(DRAIN_S) => Err(NotNow::TooLate),
            (Stage::HandingOut | Stage::Draining, _) => {
                Ok(Self { rolled_back_at: Some(now), is_paused: false, ..self.clone() })
            }
            _ => Err(NotNow::Over),
        }
    }

    /// Nothing goes on by itself.
    ///
    /// # Errors
    /// [`NotNow::Over`].
    pub fn paused(&self) -> Result<Self, NotNow> {
        self.is_under_way().then(|| Self { is_paused: true, ..self.clone() }).ok_or(NotNow::Over)
    }

    /// After a pause.
    ///
    /// # Errors
    /// [`NotNow::Over`].
    pub fn resumed(&self) -> Result<Self, NotNow> {
        self.is_under_way().then(|| Self { is_paused: false, ..self.clone() }).ok_or(NotNow::Over)
    }

    /// Somebody was revoked while it is under way: it hurries, and starts over once it ended.
    ///
    /// # Errors
    /// [`NotNow::Over`].
    pub fn overtaken(&self) -> Result<Self, NotNow> {
        let hurried = Self { is_paused: false, is_urgent: true, starts_over: true, ..self.clone() };
        self.is_under_way().then_some(hurried).ok_or(NotNow::Over)
    }

    /// Whether it is not over.
    pub const fn is_under_way(&self) -> bool {
        self.retired_at.is_none()
    }

    /// What it becomes now without anybody's word, if anything: docs/protocol.md 4.3. `count` is of all its devices.
    pub fn due(&self, count: &Count, now: u64) -> Option<Self> {
        if self.is_paused {
            return None;
        }
        let drained = now >= self.since().saturating_add(DRAIN_S);
        match self.stage() {
            Stage::HandingOut if count.at_least(Place::Has) * 100 >= count.devices * SWITCH_AT => {
                self.switched(now).ok()
            }
            Stage::Draining if drained || self.is_urgent && count.at_least(Place::Sends) == count.devices => {
                self.retired(now).ok()
            }
            Stage::RollingBack if drained || count.unsure == 0 => self.retired(now).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn rotation() -> Rotation {
        Rotation::begin(Net(7), 1, 2, START)
    }

    fn said(sending: u8, receiving: u8, at: u64) -> Said {
        let receiving = (receiving > 0).then_some(receiving);
        Said { keys: Some(KeyIndexes { sending, receiving }), at, may_have_it: true }
    }

    fn many(of: &[(usize, Said)]) -> Vec<Said> {
        of.iter().flat_map(|(n, s)| std::iter::repeat_n(*s, *n)).collect()
    }

    #[test]
    fn it_switches_by_itself_when_95_of_100_have_the_key_and_not_before() {
        let r = rotation();
        for (have, of, switches) in [(94, 100, false), (95, 100, true), (19, 20, true), (18, 19, false), (4, 5, false)]
        {
            let devices = many(&[(have, said(1, 2, START)), (of - have, said(1, 0, START))]);
            let due = r.due(&r.count(devices), START + 60);
            assert_eq!(due.is_some(), switches, "{have} of {of}");
            if let Some(next) = due {
                assert_eq!((next.stage(), next.since()), (Stage::Draining, START + 60));
            }
        }
        assert!(r.due(&Count::default(), START).is_some(), "nobody has to be waited for");
    }

    #[test]
    fn it_retires_by_itself_after_seven_days_and_at_once_only_when_it_is_urgent_and_nobody_is_left() {
        let r = rotation().switched(START + 60).unwrap();
        let all = r.count(many(&[(10, said(2, 1, START + 70))]));
        let one_left = r.count(many(&[(9, said(2, 1, START + 70)), (1, said(1, 2, START + 70))]));
        assert_eq!(r.due(&all, START + 60 + DRAIN_S - 1), None);
        assert_eq!(r.due(&one_left, START + 60 + DRAIN_S).unwrap().stage(), Stage::Done);
        let urgent = Rotation { is_urgent: true, ..r };
        assert_eq!(urgent.due(&one_left, START + 70), None);
        assert_eq!(urgent.due(&all, START + 70).unwrap().retired_at, Some(START + 70));
    }

    #[test]
    fn a_key_is_as_old_as_its_rotation_once_it_is_switched_to_and_at_least_as_old_as_a_later_one() {
        let begun = rotation();
        assert_eq!(begun.key_since(), None, "the network's first key is in use");
        let switched = begun.switched(START + 60).unwrap();
        assert_eq!(switched.key_since(), Some(START));
        assert_eq!(switched.rolled_back(START + 100).unwrap().key_since(), None);
        assert_eq!(Rotation { previous: 4, index: 5, ..rotation() }.key_since(), Some(START));
    }

    #[test]
    fn nothing_goes_on_by_itself_while_it_is_paused() {
        let all = Count::default();
        for r in [rotation(), rotation().switched(START).unwrap(), rotation().rolled_back(START).unwrap()] {
            let paused = r.paused().unwrap();
            assert_eq!(paused.due(&all, START + 10 * DRAIN_S), None, "{}", r.stage());
            assert!(paused.resumed().unwrap().due(&all, START + 10 * DRAIN_S).is_some());
        }
        assert_eq!(rotation().paused().unwrap().phases(), [(1, Phase::Switch), (2, Phase::Keep)]);
    }

    #[test]
    fn a_rollback_ends_when_nobody_can_be_sending_under_the_new_key() {
        let r = rotation().switched(START + 60).unwrap().rolled_back(START + 100).unwrap();
        assert_eq!(r.phases(), [(1, Phase::Switch), (2, Phase::Keep)]);
        let never = Said { keys: None, at: 0, may_have_it: false };
        let sure = [said(1, 2, START + 101), said(1, 0, START + 101), never];
        let counted = |more: Said| r.count(sure.iter().copied().chain([more]));
        assert_eq!(r.due(&r.count(sure), START + 200).unwrap().stage(), Stage::Done);
        for unsure in [
            said(2, 1, START + 101),
            said(2, 0, START + 101),
            said(1, 2, START + 100),
            said(1, 0, START + 99),
            Said { may_have_it: true, ..never },
        ] {
            assert_eq!(r.due(&counted(unsure), START + 200), None, "{unsure:?}");
            assert!(r.due(&counted(unsure), START + 100 + DRAIN_S).is_some());
        }
        let done = r.retired(START + 300).unwrap();
        assert_eq!(done.phases(), [(1, Phase::Switch), (2, Phase::Retire)]);
    }

    #[test]
    fn there_is_no_way_back_once_devices_give_up_the_key_before() {
        let r = rotation().switched(START).unwrap();
        assert!(r.rolled_back(START + DRAIN_S - 1).is_ok());
        assert_eq!(r.rolled_back(START + DRAIN_S), Err(NotNow::TooLate));
        assert_eq!(r.retired(START + 1).unwrap().rolled_back(START + 2), Err(NotNow::Over));
    }

    #[test]
    fn a_step_that_does_not_fit_says_so() {
        let done = rotation().switched(START).unwrap().retired(START).unwrap();
        assert_eq!(rotation().retired(START), Err(NotNow::NotDraining));
        assert_eq!(done.switched(START), Err(NotNow::NotHandedOut));
        for refused in [done.paused(), done.resumed(), done.overtaken()] {
            assert_eq!(refused, Err(NotNow::Over));
        }
    }

    #[test]
    fn somebody_revoked_in_between_makes_it_hurry_and_start_over() {
        let r = rotation().paused().unwrap().overtaken().unwrap();
        assert!(r.is_urgent && r.starts_over && !r.is_paused);
        assert!(r.switched(START).unwrap().retired(START).unwrap().starts_over);
    }

    #[test]
    fn every_place_and_stage_says_who_is_late() {
        let handing_out = rotation();
        let draining = handing_out.switched(START).unwrap();
        let back = draining.rolled_back(START).unwrap();
        let late = |r: &Rotation| Place::ALL.map(|p| r.is_late(p));
        assert_eq!(late(&handing_out), [true, false, false, false]);
        assert_eq!(late(&draining), [true, true, false, false]);
        assert_eq!(late(&draining.retired(START).unwrap()), [true, true, true, false]);
        assert_eq!(late(&back), [false, false, true, true]);
        assert_eq!(late(&back.retired(START).unwrap()), [false, true, true, true]);
        let place = |sending, receiving| handing_out.place(said(sending, receiving, 0).keys);
        assert_eq!([place(1, 0), place(1, 2), place(2, 1), place(2, 0)], Place::ALL);
        assert_eq!((place(1, 9), handing_out.place(None)), (Place::Without, Place::Without));
    }
}
