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
    fingerprint: [u8; 8],
}

/// The network keys that a station holds, their expanded schedules, and its one sender counter for each.
pub struct LinkKeys {
    held: [Option<Held>; USABLE + 1],
    sending: u8,
    installs: u16,
}

impl LinkKeys {
    /// No key yet.
    pub const fn new() -> Self {
        Self { held: [const { None }; USABLE + 1], sending: 0, installs: 0 }
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
        if !(1..=254).contains(&index) {
            return Err(KeyRefused::Index);
        }
        let fingerprint = fingerprint(key);
        if let Some(held) = self.held.iter_mut().flatten().find(|h| h.index == index && h.fingerprint == fingerprint) {
            held.lease = resumed(held.lease.bound().max(durable_bound), &held.lease);
            return Ok(());
        }
        let usable = |h: &&Held| h.index != index && h.state == KeyState::Usable;
        if self.held.iter().flatten().filter(usable).count() >= USABLE {
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
            state: KeyState::Usable,
            lease: Lease::resume(durable_bound, LIMIT),
            fingerprint,
        });
        if self.sending().is_none() {
            self.sending = index;
        }
        Ok(())
    }

    /// Sends under `index` from now on. The caller makes it durable.
    ///
    /// # Errors
    /// [`KeyRefused::Unknown`].
    pub fn send_under(&mut self, index: u8) -> Result<(), KeyRefused> {
        self.usable(index).ok_or(KeyRefused::Unknown)?;
        self.sending = index;
        Ok(())
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

    /// What must be made durable before the lease of the sending key runs out, if it is about to.
    pub fn lease_due(&self) -> Option<LeaseWrite> {
        let held = self.usable(self.sending).filter(|h| h.lease.left() < LOW)?;
        Some(LeaseWrite { key_index: held.index, bound: held.lease.proposal(BLOCK)? })
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

    /// Whether a frame can be sealed without another durable write.
    pub fn is_ready(&self) -> bool {
        self.usable(self.sending).is_some_and(|h| h.lease.left() > 0)
    }

    pub(super) fn take(&mut self) -> Result<(u8, &LinkSchedule, Counter), LeaseSpent> {
        let sending = self.sending;
        let held = self.held.iter_mut().flatten().find(|h| h.index == sending && h.state == KeyState::Usable);
        let held = held.ok_or(LeaseSpent)?;
        let counter = held.lease.take()?;
        Ok((held.index, &held.schedule, counter))
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

    /// Generations of usable keys older than `than`.
    pub(super) fn older(&self, than: Generation) -> impl Iterator<Item = Generation> + '_ {
        self.held.iter().flatten().map(|h| h.generation).filter(move |&g| g < than)
    }

    /// A frame under `index` was accepted: a node follows to the newer key (4.3, switch).
    pub(super) fn follow(&mut self, index: u8) {
        let sending = self.usable(self.sending).map(|h| h.generation);
        if self.usable(index).is_some_and(|h| Some(h.generation) > sending) {
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
        assert_eq!(keys.take().unwrap().2.value(), 5000);
        keys.install(1, &key(1), 0).unwrap();
        assert_eq!(keys.take().unwrap().2.value(), 5001);
        keys.install(1, &key(1), 7000).unwrap();
        assert!(keys.take().is_err());
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.take().unwrap().2.value(), 7000);
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
        keys.take().unwrap();
        assert_eq!(keys.alarm().unwrap().code, Code::LinkCounterHigh);
        let mut keys = LinkKeys::new();
        keys.install(1, &key(1), LIMIT - 1).unwrap();
        keys.extend_lease(keys.lease_due().unwrap());
        assert_eq!(keys.take().unwrap().2.value(), 0xFFFF_FFFE);
        assert!(keys.take().is_err());
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
}
