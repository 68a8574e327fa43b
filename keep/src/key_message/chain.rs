//! The keys of one device: pending, active, draining, as in docs/protocol.md 11. The keys themselves are in the store;
//! here are their numbers.

use fivefold_core::e5_renewal::key_message::MessageHash;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{KeyEpoch, Kr2};

/// Keys that may wait for their first frame.
pub const PENDING: usize = 8;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// A frame was verified under it, and under no newer one.
    Active,
    /// A newer one is active; frames under it are taken until then.
    Draining {
        /// The last point in time.
        until: Millis,
    },
    /// Agreed; no frame was verified under it yet.
    Pending,
}

/// The message that made the newest key, to answer its repeats as the first was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its epoch.
    pub epoch: KeyEpoch,
    /// Its hash.
    pub message: MessageHash,
    /// What it was answered.
    pub answer: Kr2,
}

/// The first frame under a pending key: what changes, to be made durable with what the frame brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "make it durable, then give it to `handle_switched`"]
pub struct Switch {
    /// From pending to active.
    pub activates: KeyEpoch,
    /// From active to draining, until then.
    pub drains: Option<(KeyEpoch, Millis)>,
    /// Pending keys of lower epochs: deleted.
    pub drops: Vec<KeyEpoch>,
}

/// What a new message of a device is, by its epoch and hash.
pub(super) enum Place {
    /// The next key.
    Next,
    /// The message that made the newest key.
    Repeat(Kr2),
    /// Another message for the newest key, or for the next one while one is being made durable.
    Other,
    /// Any other epoch.
    Off,
}

/// The numbers and states of a device's keys.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    keys: Vec<(KeyEpoch, KeyState)>,
    answered: Option<Answered>,
    /// A message that was taken and is not known to be durable.
    taken: Option<(KeyEpoch, MessageHash)>,
}

impl Chain {
    /// No key yet: the first message says epoch 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// As the store has it.
    pub fn restore(keys: Vec<(KeyEpoch, KeyState)>, answered: Option<Answered>) -> Self {
        Self { keys, answered, taken: None }
    }

    /// Every key and where it stands.
    pub fn keys(&self) -> impl Iterator<Item = (KeyEpoch, KeyState)> + '_ {
        self.keys.iter().copied()
    }

    /// The newest epoch, pending or not; 0 without a key.
    pub fn current(&self) -> KeyEpoch {
        self.keys.iter().map(|(epoch, _)| *epoch).max().unwrap_or_default()
    }

    pub(super) fn place(&self, epoch: KeyEpoch, message: &MessageHash) -> Place {
        let current = self.current();
        if epoch == current {
            let first = self.answered.filter(|a| a.epoch == epoch && a.message == *message);
            return first.map_or(Place::Other, |first| Place::Repeat(first.answer));
        }
        if current.next() != Some(epoch) {
            return Place::Off;
        }
        match &self.taken {
            Some((taken, first)) if *taken == epoch && first != message => Place::Other,
            _ => Place::Next,
        }
    }

    /// Only this message may be the next one from now on.
    pub(super) fn take(&mut self, epoch: KeyEpoch, message: MessageHash) {
        self.taken = Some((epoch, message));
    }

    /// Which key gives way to one more pending one.
    pub(super) fn evicted(&self) -> Option<KeyEpoch> {
        let pending = || self.keys.iter().filter(|(_, state)| *state == KeyState::Pending).map(|(epoch, _)| *epoch);
        pending().min().filter(|_| pending().count() >= PENDING)
    }

    /// The next key is durable. Twice the same is once.
    pub(super) fn add(&mut self, answered: Answered, evicts: Option<KeyEpoch>) {
        if self.current().next() != Some(answered.epoch) {
            return;
        }
        self.keys.retain(|(epoch, _)| Some(*epoch) != evicts);
        self.keys.push((answered.epoch, KeyState::Pending));
        self.answered = Some(answered);
        self.taken = None;
    }

    /// A frame was verified under a key.
    ///
    /// # Errors
    /// The key is unknown, or no longer taken.
    pub(super) fn frame(&self, now: Millis, epoch: KeyEpoch, drain_ms: u64) -> Result<Option<Switch>, NotValid> {
        let (_, state) = self.keys.iter().find(|(e, _)| *e == epoch).ok_or(NotValid::Unknown)?;
        match *state {
            KeyState::Active => Ok(None),
            KeyState::Draining { until } if now <= until => Ok(None),
            KeyState::Draining { .. } => Err(NotValid::Drained),
            KeyState::Pending => {
                let active = self.keys.iter().find(|(_, state)| *state == KeyState::Active);
                let lower = |(e, state): &(KeyEpoch, KeyState)| *state == KeyState::Pending && *e < epoch;
                Ok(Some(Switch {
                    activates: epoch,
                    drains: active.map(|(e, _)| (*e, now.plus(drain_ms))),
                    drops: self.keys.iter().filter(|key| lower(key)).map(|(e, _)| *e).collect(),
                }))
            }
        }
    }

    /// A switch is durable. Twice the same is once.
    pub(super) fn switch(&mut self, switch: &Switch) {
        if !self.keys.contains(&(switch.activates, KeyState::Pending)) {
            return;
        }
        self.keys.retain(|(epoch, state)| *state != KeyState::Pending || !switch.drops.contains(epoch));
        for (epoch, state) in &mut self.keys {
            match (switch.drains, *state) {
                (_, KeyState::Pending) if *epoch == switch.activates => *state = KeyState::Active,
                (Some((drained, until)), KeyState::Active) if *epoch == drained => {
                    *state = KeyState::Draining { until };
                }
                _ => {}
            }
        }
    }

    /// Forgets keys that have drained, and names them.
    pub(super) fn expire(&mut self, now: Millis) -> Vec<KeyEpoch> {
        let over = |state: &KeyState| matches!(state, KeyState::Draining { until } if *until < now);
        let gone = self.keys.iter().filter(|(_, state)| over(state)).map(|(epoch, _)| *epoch).collect();
        self.keys.retain(|(_, state)| !over(state));
        gone
    }
}

/// Why a frame's key does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotValid {
    Drained,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::id::{Serial, ServerKid};
    use fivefold_core::wire::key_message::{Auth, Confirmation, Header, KeyLen, KeyLevel, RsaSize, Status};

    const HOUR: u64 = 3_600_000;
    const DRAIN: u64 = 96 * HOUR;

    fn answered(epoch: u32) -> Answered {
        let header = Header {
            size: RsaSize::Rsa2048,
            auth: Auth::Signature,
            serial: Serial([1; 8]),
            level: KeyLevel::E3,
            keylen: KeyLen::B16,
            epoch: KeyEpoch(epoch),
            server: ServerKid([2; 4]),
        };
        let answer = Kr2::answer_to(&header, Status::Accepted, Confirmation([epoch as u8; 16]));
        Answered { epoch: KeyEpoch(epoch), message: MessageHash([epoch as u8; 32]), answer }
    }

    fn agreed(chain: &mut Chain, epochs: std::ops::RangeInclusive<u32>) {
        for epoch in epochs {
            let evicts = chain.evicted();
            chain.add(answered(epoch), evicts);
        }
    }

    fn switched(chain: &mut Chain, now: Millis, epoch: u32) -> Switch {
        let switch = chain.frame(now, KeyEpoch(epoch), DRAIN).unwrap().unwrap();
        chain.switch(&switch);
        switch
    }

    #[test]
    fn the_old_key_counts_until_the_new_one_was_used_and_then_drains() {
        let mut chain = Chain::new();
        agreed(&mut chain, 1..=1);
        let _ = switched(&mut chain, Millis(0), 1);
        agreed(&mut chain, 2..=2);
        assert_eq!(chain.frame(Millis(HOUR), KeyEpoch(1), DRAIN), Ok(None));
        let switch = switched(&mut chain, Millis(HOUR), 2);
        let until = Millis(HOUR + DRAIN);
        assert_eq!(switch, Switch { activates: KeyEpoch(2), drains: Some((KeyEpoch(1), until)), drops: vec![] });
        assert_eq!(chain.frame(until, KeyEpoch(1), DRAIN), Ok(None));
        assert_eq!(chain.frame(until.plus(1), KeyEpoch(1), DRAIN), Err(NotValid::Drained));
        assert_eq!(chain.expire(until), []);
        assert_eq!(chain.expire(until.plus(1)), [KeyEpoch(1)]);
        assert_eq!(chain.frame(until, KeyEpoch(1), DRAIN), Err(NotValid::Unknown));
        assert_eq!(chain.keys().collect::<Vec<_>>(), [(KeyEpoch(2), KeyState::Active)]);
    }

    #[test]
    fn a_switch_drops_lower_pending_keys_keeps_higher_ones_and_is_done_once() {
        let mut chain = Chain::new();
        agreed(&mut chain, 1..=4);
        let switch = switched(&mut chain, Millis(5), 3);
        assert_eq!(switch, Switch { activates: KeyEpoch(3), drains: None, drops: vec![KeyEpoch(1), KeyEpoch(2)] });
        let expected = [(KeyEpoch(3), KeyState::Active), (KeyEpoch(4), KeyState::Pending)];
        assert_eq!(chain.keys().collect::<Vec<_>>(), expected);
        chain.switch(&switch);
        assert_eq!(chain.keys().collect::<Vec<_>>(), expected);
        assert_eq!(chain.frame(Millis(6), KeyEpoch(2), DRAIN), Err(NotValid::Unknown));
    }

    #[test]
    fn a_ninth_pending_key_takes_the_place_of_the_lowest() {
        let mut chain = Chain::new();
        agreed(&mut chain, 1..=8);
        assert_eq!(chain.evicted(), Some(KeyEpoch(1)));
        agreed(&mut chain, 9..=9);
        assert_eq!(chain.keys().map(|(e, _)| e.0).collect::<Vec<_>>(), (2..=9).collect::<Vec<_>>());
        assert_eq!(chain.current(), KeyEpoch(9));
    }

    #[test]
    fn no_epoch_but_the_next_one_is_new_and_none_follows_the_last() {
        let mut chain = Chain::new();
        assert!(matches!(chain.place(KeyEpoch(1), &MessageHash([1; 32])), Place::Next));
        assert!(matches!(chain.place(KeyEpoch(2), &MessageHash([1; 32])), Place::Off));
        agreed(&mut chain, 1..=2);
        assert!(matches!(chain.place(KeyEpoch(2), &MessageHash([2; 32])), Place::Repeat(a) if a == answered(2).answer));
        assert!(matches!(chain.place(KeyEpoch(2), &MessageHash([9; 32])), Place::Other));
        assert!(matches!(chain.place(KeyEpoch(1), &MessageHash([1; 32])), Place::Off));
        chain.take(KeyEpoch(3), MessageHash([3; 32]));
        assert!(matches!(chain.place(KeyEpoch(3), &MessageHash([3; 32])), Place::Next));
        assert!(matches!(chain.place(KeyEpoch(3), &MessageHash([9; 32])), Place::Other));
        let last = Chain::restore(vec![(KeyEpoch(u32::MAX), KeyState::Active)], None);
        assert!(matches!(last.place(KeyEpoch(0), &MessageHash([1; 32])), Place::Off));
    }
}
