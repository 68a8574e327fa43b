//! Network keys of one station: at most two usable indexes and, at a gateway, one retired (docs/protocol.md 4.3).

use core::fmt;

use super::E1;
use crate::counter::{Counter, Lease};
use crate::error::{Code, LeaseSpent, Rejected};
use crate::key::Key;
use crate::suite::{LinkSchedule, sha256};
use crate::time::Millis;

/// Numbers in one durable lease of a sender (docs/protocol.md 8.2, W1).
pub const BLOCK: u32 = 1024;
/// From this frame counter on the key must be rotated (`E1-09`).
pub const ROTATE_AT: u32 = 0xF000_0000;
/// No frame counter at or above this is ever sent.
pub const LIMIT: u32 = u32::MAX;
/// A lease is asked for when fewer numbers than this are left.
const LOW: u32 = 64;
const USABLE: usize = 2;

/// Why a network key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefused {
    /// Two other indexes are usable already: retire one first.
    Full,
    /// Indexes are 1..=254.
    Index,
    /// No usable key has this index.
    Unknown,
}

impl fmt::Display for KeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "two network keys are usable already; retire one first",
            Self::Index => "a network key index is 1 to 254",
            Self::Unknown => "no usable network key has this index",
        })
    }
}

impl core::error::Error for KeyRefused {}

/// A bound that must be durable before more frames can be sealed under a key index (W1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// Key index.
    pub key_index: u8,
    /// Bound to make durable, then to hand to [`LinkKeys::extend_lease`].
    pub bound: u32,
}

/// What may be received under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Recovery mode of a gateway: EDHOC only (RuleID 10), until that time.
    Retired {
        /// First moment at which the index is unknown.
        until: Millis,
    },
    /// Everything.
    Usable,
}

/// Tells key generations apart, also under a reused index: a greater one was installed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub(super) u16);

pub(super) struct Held {
    pub(super) index: u8,
    pub(super) generation: Generation,
    pub(super) schedule: LinkSchedule,
    pub(super) state: KeyState,
    lease: Lease,
    /// Something was to be sealed under it beside the sending key: it is leased like that one.
    wanted: bool,
    fingerprint: [u8; 8],
}

/// Under which key a frame is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// This usable one, or the sending key where it is none or has no numbers left.
    Index(u8),
    /// This retired one and no other (recovery mode).
    Recovery(u8),
    /// The key that is sent under.
    Sending,
}

/// The network keys that a station holds, their expanded schedules, and its one sender counter for each.
pub struct LinkKeys {
    held: [Option<Held>; USABLE + 1],
    sending: u8,
    installs: u16,
    /// The newest key when the sending one was ordered: frames of neighbours lead to later ones alone.
    ordered: Generation,
}

impl LinkKeys {
    /// No key yet.
    pub const fn new() -> Self {
        Self { held: [const { None }; USABLE + 1], sending: 0, installs: 0, ordered: Generation(0) }
    }

    /// Takes a key for receiving; the first one is sent under, too. Install the oldest first.
    ///
    /// `durable_bound` is the last bound that was made durable for this key, 0 for a new one. Another key under a
    /// present index replaces it and starts with empty receive counters; the same key again changes nothing, above all
    /// not its counter.
    ///
    /// # Errors
    /// [`KeyRefused::Index`], [`KeyRefused::Full`].
    pub fn install(&mut self, index: u8, key: &Key<E1, 16>, durable_bound: u32) -> Result<(), KeyRefused> {
        self.put(index, key, durable_bound, KeyState::Usable)?;
        if self.sending().is_none() {
            self.sending = index;
        }
        Ok(())
    }

    /// Gateway: takes a key that was retired before this start, for recovery until `until`. One that is held changes
    /// nothing.
    ///
    /// # Errors
    /// [`KeyRefused::Index`]; [`KeyRefused::Full`] while another one is in recovery.
    pub fn install_retired(
        &mut self,
        index: u8,
        key: &Key<E1, 16>,
        durable_bound: u32,
        until: Millis,
    ) -> Result<(), KeyRefused> {
        self.put(index, key, durable_bound, KeyState::Retired { until })
    }

    fn put(&mut self, index: u8, key: &Key<E1, 16>, durable_bound: u32, state: KeyState) -> Result<(), KeyRefused> {
        if !(1..=254).contains(&index) {
            return Err(KeyRefused::Index);
        }
        let fingerprint = fingerprint(key);
        if let Some(held) = self.held.iter_mut().flatten().find(|h| h.index == index && h.fingerprint == fingerprint) {
            held.lease = resumed(held.lease.bound().max(durable_bound), &held.lease);
            return Ok(());
        }
        let is_usable = |state: KeyState| state == KeyState::Usable;
        let same = |h: &&Held| h.index != index && is_usable(h.state) == is_usable(state);
        let room = if is_usable(state) { USABLE } else { 1 };
        if self.held.iter().flatten().filter(same).count() >= room {
            return Err(KeyRefused::Full);
        }
        let slot = match self.held.iter().position(|h| h.as_ref().is_some_and(|h| h.index == index)) {
            Some(same) => Some(same),
            None => self.held.iter().position(Option::is_none),
        };
        let slot = slot.and_then(|at| self.held.get_mut(at)).ok_or(KeyRefused::Full)?;
        self.installs = self.installs.checked_add(1).ok_or(KeyRefused::Full)?;
        *slot = Some(Held {
            index,
            generation: Generation(self.installs),
            schedule: LinkSchedule::new(key.expose()),
            state,
            lease: Lease::resume(durable_bound, LIMIT),
            wanted: false,
            fingerprint,
        });
        Ok(())
    }

    /// Sends under `index` from now on, by order: what neighbours send under leads away from it only to a key that is
    /// installed later. The caller makes it durable, and installs it last at the next start.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`].
    pub fn send_under(&mut self, index: u8) -> Result<(), KeyRefused> {
        self.resume_under(index)?;
        self.ordered = Generation(self.installs);
        Ok(())
    }

    /// Goes on under the key that was sent under before a restart.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`].
    pub fn resume_under(&mut self, index: u8) -> Result<(), KeyRefused> {
        self.usable(index).ok_or(KeyRefused::Unknown)?;
        self.sending = index;
        Ok(())
    }

    /// Nobody answers under the key that is sent under: goes on under the other one, if there is one.
    pub fn send_under_other(&mut self) {
        let other = self.indexes().find(|index| *index != self.sending);
        self.sending = other.unwrap_or(self.sending);
    }

    /// Deletes a key.
    pub fn forget(&mut self, index: u8) {
        for slot in &mut self.held {
            slot.take_if(|h| h.index == index);
        }
        if self.sending().is_none() {
            let newest =
                self.held.iter().flatten().filter(|h| h.state == KeyState::Usable).max_by_key(|h| h.generation);
            self.sending = newest.map_or(0, |h| h.index);
        }
    }

    /// Gateway: keeps a key for recovery until `until` (30 days after it was retired). A key that was retired before is
    /// deleted. Nothing is sent under it any more, unless it is the only one: then it is refused.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`] when no usable key has this index, or no other is left to send under.
    pub fn retire(&mut self, index: u8, until: Millis) -> Result<(), KeyRefused> {
        self.usable(index).ok_or(KeyRefused::Unknown)?;
        let other = self.held.iter().flatten().filter(|h| h.index != index && h.state == KeyState::Usable);
        let newest = other.max_by_key(|h| h.generation).map(|h| h.index).ok_or(KeyRefused::Unknown)?;
        for slot in &mut self.held {
            slot.take_if(|h| h.state != KeyState::Usable);
            if let Some(held) = slot.as_mut().filter(|h| h.index == index) {
                held.state = KeyState::Retired { until };
            }
        }
        if self.sending == index {
            self.sending = newest;
        }
        Ok(())
    }

    /// The index that is sent under.
    pub fn sending(&self) -> Option<u8> {
        self.usable(self.sending).map(|h| h.index)
    }

    /// Usable indexes, in no order.
    pub fn indexes(&self) -> impl Iterator<Item = u8> + '_ {
        self.held.iter().flatten().filter(|h| h.state == KeyState::Usable).map(|h| h.index)
    }

    /// Whether there is a key with this index, usable or in recovery.
    pub fn holds(&self, index: u8) -> bool {
        self.held.iter().flatten().any(|h| h.index == index)
    }

    /// The usable index that was installed before the one that is sent under: it is on its way out.
    pub fn previous(&self) -> Option<u8> {
        let sending = self.usable(self.sending)?.generation;
        let older = |h: &&Held| h.state == KeyState::Usable && h.generation < sending;
        self.held.iter().flatten().find(older).map(|h| h.index)
    }

    /// What must be made durable before a lease runs out that is needed: of the sending key first, then of others that
    /// neighbours are still spoken to under.
    pub fn lease_due(&self) -> Option<LeaseWrite> {
        let others = self.held.iter().flatten().filter(|h| h.wanted && h.index != self.sending);
        let needed = self.usable(self.sending).into_iter().chain(others).filter(|h| h.lease.left() < LOW);
        let write = |h: &Held| Some(LeaseWrite { key_index: h.index, bound: h.lease.proposal(BLOCK)? });
        needed.into_iter().find_map(write)
    }

    /// Takes note that a bound is durable.
    pub fn extend_lease(&mut self, written: LeaseWrite) {
        if let Some(held) = self.held.iter_mut().flatten().find(|h| h.index == written.key_index) {
            held.lease.extend(written.bound);
        }
    }

    /// `E1-09` once the sending key must be rotated.
    pub fn alarm(&self) -> Option<Rejected> {
        let held = self.usable(self.sending)?;
        (held.lease.next() >= ROTATE_AT).then_some(Rejected::new(Code::LinkCounterHigh, "rotate the network key"))
    }

    /// For each usable index the numbers that are left before `E1-09`.
    pub fn left(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        let usable = self.held.iter().flatten().filter(|h| h.state == KeyState::Usable);
        usable.map(|h| (h.index, ROTATE_AT.saturating_sub(h.lease.next())))
    }

    /// Whether a frame can be sealed without another durable write.
    pub fn is_ready(&self) -> bool {
        self.usable(self.sending).is_some_and(|h| h.lease.left() > 0)
    }

    /// The next number under a key. One that has none left is leased for the next time.
    pub(super) fn take(&mut self, under: Under) -> Result<(u8, &LinkSchedule, Counter), LeaseSpent> {
        let index = match under {
            Under::Index(index) if self.has_number(index) => index,
            Under::Index(_) | Under::Sending => self.sending,
            Under::Recovery(index) => index,
        };
        let is_recovery = matches!(under, Under::Recovery(_));
        let fits = |h: &&mut Held| h.index == index && (h.state != KeyState::Usable) == is_recovery;
        let held = self.held.iter_mut().flatten().find(fits).ok_or(LeaseSpent)?;
        held.wanted |= is_recovery;
        let counter = held.lease.take()?;
        Ok((held.index, &held.schedule, counter))
    }

    fn has_number(&mut self, index: u8) -> bool {
        let usable = |h: &&mut Held| h.index == index && h.state == KeyState::Usable;
        let Some(held) = self.held.iter_mut().flatten().find(usable) else { return false };
        held.wanted = true;
        held.lease.left() > 0
    }

    /// The key of a received frame.
    pub(super) fn find(&self, now: Millis, index: u8) -> Result<&Held, Rejected> {
        let held = self.held.iter().flatten().find(|h| h.index == index);
        let held = held.ok_or(Rejected::new(Code::LinkKeyUnknown, "no such key index"))?;
        match held.state {
            KeyState::Retired { until } if now >= until => {
                Err(Rejected::new(Code::LinkKeyUnknown, "the index is retired"))
            }
            _ => Ok(held),
        }
    }

    /// The index of a key that is held, and whether all may be sent under it.
    pub(super) fn index_of(&self, generation: Generation) -> Option<(u8, KeyState)> {
        self.held.iter().flatten().find(|h| h.generation == generation).map(|h| (h.index, h.state))
    }

    /// The key that is sent under.
    pub(super) fn sending_generation(&self) -> Option<Generation> {
        self.usable(self.sending).map(|h| h.generation)
    }

    /// Generations of held keys older than `than`.
    pub(super) fn older(&self, than: Generation) -> impl Iterator<Item = Generation> + '_ {
        self.held.iter().flatten().map(|h| h.generation).filter(move |&g| g < than)
    }

    /// A frame under `index` was accepted: a node follows to the newer key (4.3, switch), unless it was ordered to send
    /// under another one since it has that.
    pub(super) fn follow(&mut self, index: u8) {
        let beyond = self.sending_generation().max(Some(self.ordered));
        if self.usable(index).is_some_and(|h| Some(h.generation) > beyond) {
            self.sending = index;
        }
    }

    fn usable(&self, index: u8) -> Option<&Held> {
        self.held.iter().flatten().find(|h| h.index == index && h.state == KeyState::Usable)
    }
}

impl Default for LinkKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKeys(..)")
    }
}

/// Tells "the same key again" from "another key": only ever compared with itself, never sent or stored.
fn fingerprint(key: &Key<E1, 16>) -> [u8; 8] {
    let hash = sha256(&[b"link key", key.expose()]);
    let mut first = [0; 8];
    first.iter_mut().zip(hash).for_each(|(f, h)| *f = h);
    first
}

/// A lease never goes back: a bound that somebody else stored in the meantime moves it on.
fn resumed(durable_bound: u32, present: &Lease) -> Lease {
    let mut lease =
        Lease::resume(present.next().max(if durable_bound > present.bound() { durable_bound } else { 0 }), LIMIT);
    lease.extend(present.bound());
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key<E1, 16> {
        Key::new([byte; 16])
    }

    #[test]
    fn the_same_key_again_does_not_touch_its_counter() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 5000).unwrap();
        let write = keys.lease_due().unwrap();
        assert_eq!(write, LeaseWrite { key_index: 1, bound: 6024 });
        keys.extend_lease(write);
        assert_eq!(keys.take(Under::Sending).unwrap().2.value(), 5000);
        keys.install(1, &key(1), 0).unwrap();
        assert_eq!(keys.take(Under::Sending).unwrap().2.value(), 5001);
        keys.install(1, &key(1), 7000).unwrap();
        assert!(keys.take(Under::Sending).is_err());
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.take(Under::Sending).unwrap().2.value(), 7000);
    }

    #[test]
    fn a_third_usable_index_is_refused() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 0).unwrap();
        keys.install(2, &key(2), 0).unwrap();
        assert_eq!(keys.install(3, &key(3), 0), Err(KeyRefused::Full));
        keys.forget(1);
        keys.install(3, &key(3), 0).unwrap();
        assert_eq!(keys.install(0, &key(3), 0), Err(KeyRefused::Index));
        assert_eq!(keys.install(255, &key(3), 0), Err(KeyRefused::Index));
    }

    #[test]
    fn a_retired_index_ends_at_its_time_and_is_never_sent_under() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 0).unwrap();
        assert_eq!(keys.retire(1, Millis(10)), Err(KeyRefused::Unknown));
        keys.install(2, &key(2), 0).unwrap();
        keys.retire(1, Millis(10)).unwrap();
        assert_eq!(keys.sending(), Some(2));
        assert_eq!(keys.send_under(1), Err(KeyRefused::Unknown));
        assert!(keys.find(Millis(9), 1).is_ok());
        assert_eq!(keys.find(Millis(10), 1).err().unwrap().code, Code::LinkKeyUnknown);
    }

    #[test]
    fn the_alarm_rings_at_f0000000_and_the_counter_stops_below_ffffffff() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), ROTATE_AT - 1).unwrap();
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.alarm(), None);
        assert!(keys.left().eq([(1, 1)]));
        keys.take(Under::Sending).unwrap();
        assert!(keys.left().eq([(1, 0)]));
        assert_eq!(keys.alarm().unwrap().code, Code::LinkCounterHigh);
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), LIMIT - 1).unwrap();
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.take(Under::Sending).unwrap().2.value(), 0xFFFF_FFFE);
        assert!(keys.take(Under::Sending).is_err());
        assert_eq!(keys.lease_due(), None);
    }

    #[test]
    fn a_node_follows_to_the_newer_key_and_never_back() {
        let mut keys = LinkKeys::new();
        keys.install(9, &key(1), 0).unwrap();
        keys.install(2, &key(2), 0).unwrap();
        keys.follow(2);
        assert_eq!(keys.sending(), Some(2));
        keys.follow(9);
        assert_eq!(keys.sending(), Some(2));
    }

    #[test]
    fn a_node_that_nobody_answers_tries_its_keys_in_turn() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 0).unwrap();
        keys.send_under_other();
        assert_eq!(keys.sending(), Some(1), "it has no other");
        keys.install(2, &key(2), 0).unwrap();
        keys.send_under_other();
        assert_eq!(keys.sending(), Some(2));
        keys.send_under_other();
        assert_eq!(keys.sending(), Some(1));
        keys.follow(2);
        assert_eq!(keys.sending(), Some(2), "what a neighbour sends under leads on");
    }

    #[test]
    fn an_order_holds_against_neighbours_that_send_under_a_key_of_before() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 0).unwrap();
        keys.install(2, &key(2), 0).unwrap();
        keys.follow(2);
        keys.send_under(1).unwrap();
        keys.follow(2);
        assert_eq!(keys.sending(), Some(1), "rolled back");
        keys.forget(2);
        keys.install(3, &key(3), 0).unwrap();
        keys.follow(3);
        assert_eq!((keys.sending(), keys.previous()), (Some(3), Some(1)));
        // Starting again says nothing about an order.
        keys.resume_under(1).unwrap();
        keys.follow(3);
        assert_eq!(keys.sending(), Some(3));
    }

    #[test]
    fn a_key_beside_the_sending_one_is_leased_once_it_is_needed() {
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), 100).unwrap();
        keys.install(2, &key(2), 0).unwrap();
        keys.send_under(2).unwrap();
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.lease_due(), None, "nobody was spoken to under the other");
        // Without a number it is the sending key's turn.
        assert_eq!(keys.take(Under::Index(1)).unwrap().0, 2);
        assert_eq!(keys.lease_due(), Some(LeaseWrite { key_index: 1, bound: 100 + BLOCK }));
        keys.extend_lease(keys.lease_due().unwrap());
        let (index, _, counter) = keys.take(Under::Index(1)).unwrap();
        assert_eq!((index, counter.value()), (1, 100));
        keys.retire(1, Millis(10)).unwrap();
        assert_eq!(keys.take(Under::Index(1)).unwrap().0, 2, "what is retired is for recovery alone");
        let (index, _, counter) = keys.take(Under::Recovery(1)).unwrap();
        assert_eq!((index, counter.value()), (1, 101), "and counts on where it was");
        assert!(keys.take(Under::Recovery(2)).is_err());
    }

    #[test]
    fn a_retired_key_comes_back_for_recovery_alone() {
        let mut keys = LinkKeys::new();
        keys.install_retired(1, &key(1), 500, Millis(10)).unwrap();
        assert_eq!(keys.sending(), None);
        for index in [2, 3] {
            keys.install(index, &key(index), 0).unwrap();
        }
        assert_eq!(keys.install_retired(4, &key(4), 0, Millis(10)), Err(KeyRefused::Full));
        assert_eq!((keys.sending(), keys.send_under(1)), (Some(2), Err(KeyRefused::Unknown)));
        assert!(keys.take(Under::Recovery(1)).is_err(), "its numbers are leased first");
        let due = core::iter::from_fn(|| keys.lease_due().inspect(|w| keys.extend_lease(*w)));
        assert!(due.into_iter().any(|w| w == LeaseWrite { key_index: 1, bound: 500 + BLOCK }));
        assert_eq!(keys.take(Under::Recovery(1)).unwrap().2.value(), 500);
    }
}
