//! What a node makes of the network keys that it is told of (docs/protocol.md 4.3, 7.3 item 7).
//!
//! Its two places are in the order in which the keys count: the one that neighbours lead to stands behind the one that
//! they lead away from. A start installs them in that order, so a node that was ordered back does not follow again.

use fivefold_core::e1_link::LinkKeys;
use fivefold_core::key::Key;
use fivefold_core::wire::control::LinkKey;
use fivefold_core::wire::state::Phase;

use crate::storage::StoredKey;

/// Network keys as a record has them, the older one first.
pub type Places = [Option<StoredKey>; 2];

/// Takes what a node is told of a key. What is to be stored comes back, and must be durable before anything is sent; it is
/// `None` when nothing changed. Either way the node says what it has: whoever told it did not know.
///
/// `first_bound` is where frame counters start under a key that was never used.
pub fn take(keys: &mut LinkKeys, places: &Places, told: &LinkKey<'_>, first_bound: u32) -> Option<Places> {
    let present = places.iter().flatten().find(|k| k.index == told.index);
    let mut last = present.copied();
    match (told.phase, told.key) {
        (Phase::Distribute, Some(key)) => {
            let is_known = present.is_some_and(|k| k.key == Some(*key));
            // Under the index that it sends under nobody hands it another key.
            if is_known || keys.sending() == Some(told.index) {
                return None;
            }
            let bound = present.map_or(first_bound, |k| k.bound);
            keys.install(told.index, &Key::new(*key), bound).ok()?;
            last = Some(StoredKey { index: told.index, bound, key: Some(*key) });
        }
        (Phase::Switch, _) => keys.send_under(told.index).ok()?,
        (Phase::Retire, _) => {
            if present.is_none() || !keys.indexes().any(|i| i != told.index) {
                return None;
            }
            keys.forget(told.index);
            last = None;
        }
        (Phase::Distribute, None) | (Phase::Keep, _) => return None,
    }
    let other = places.iter().flatten().find(|k| k.index != told.index).copied();
    Some(match (other, last) {
        (None, only) | (only, None) => [only, None],
        both => [both.0, both.1],
    })
}

/// Takes the key that message_4 hands to a node which slept through its being handed out, and sends under it as the network
/// does. What the node does not send under makes room.
pub fn take_handed(keys: &mut LinkKeys, places: &Places, handed: &LinkKey<'_>, first_bound: u32) -> Option<Places> {
    let idle = || keys.indexes().find(|index| keys.sending() != Some(*index));
    let retired = if keys.holds(handed.index) { None } else { idle() };
    let retired = retired.map(|index| LinkKey { index, key: None, phase: Phase::Retire });
    let steps = [retired, Some(LinkKey { phase: Phase::Distribute, ..*handed }), Some(*handed)];
    let mut changed = None;
    for step in steps.iter().flatten() {
        changed = take(keys, changed.as_ref().unwrap_or(places), step, first_bound).or(changed);
    }
    changed
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const fn key(index: u8, byte: u8) -> [u8; 16] {
        [index ^ byte; 16]
    }

    fn stored(index: u8) -> Option<StoredKey> {
        Some(StoredKey { index, bound: 100, key: Some(key(index, 0)) })
    }

    /// As a start does it.
    fn boot(places: &Places, sending: u8) -> LinkKeys {
        let mut keys = LinkKeys::new();
        for place in places.iter().flatten() {
            keys.install(place.index, &Key::new(place.key.unwrap()), place.bound).unwrap();
        }
        keys.resume_under(sending).unwrap();
        keys
    }

    fn told(keys: &mut LinkKeys, places: &Places, index: u8, phase: Phase) -> Option<Places> {
        let bytes = key(index, 0);
        let key = (phase == Phase::Distribute).then_some(&bytes);
        take(keys, places, &LinkKey { index, key, phase }, 7)
    }

    fn indexes(places: Option<Places>) -> Vec<u8> {
        places.unwrap().iter().flatten().map(|k| k.index).collect()
    }

    #[test]
    fn a_new_key_stands_behind_the_one_that_is_there_wherever_that_stood() {
        for places in [[stored(1), None], [None, stored(1)]] {
            let mut keys = boot(&places, 1);
            let after = told(&mut keys, &places, 2, Phase::Distribute);
            assert_eq!(indexes(after), [1, 2]);
            assert_eq!(after.unwrap()[1].unwrap().bound, 7);
            // After a start it is the one that neighbours lead to.
            assert_eq!(boot(&after.unwrap(), 1).previous(), None);
            assert_eq!(boot(&after.unwrap(), 2).previous(), Some(1));
        }
    }

    #[test]
    fn told_twice_is_told_once_and_a_third_key_is_not_taken() {
        let places = [stored(1), stored(2)];
        let mut keys = boot(&places, 1);
        assert_eq!(told(&mut keys, &places, 2, Phase::Distribute), None);
        assert_eq!(told(&mut keys, &places, 1, Phase::Distribute), None);
        assert_eq!(told(&mut keys, &places, 3, Phase::Distribute), None);
        assert_eq!(keys.indexes().count(), 2);
    }

    #[test]
    fn an_order_to_go_back_outlives_the_next_start() {
        let places = [stored(1), stored(2)];
        let mut keys = boot(&places, 2);
        let after = told(&mut keys, &places, 1, Phase::Switch);
        assert_eq!(indexes(after), [2, 1]);
        assert_eq!(boot(&after.unwrap(), 1).previous(), Some(2));
        assert_eq!(told(&mut keys, &places, 9, Phase::Switch), None);
    }

    #[test]
    fn a_handed_key_is_sent_under_at_once_and_what_was_not_sent_under_makes_room() {
        let handed = |keys: &mut LinkKeys, places: &Places, index| {
            let bytes = key(index, 0);
            take_handed(keys, places, &LinkKey { index, key: Some(&bytes), phase: Phase::Switch }, 7)
        };
        for (places, sending, after) in [
            ([stored(1), None], 1, [1, 3]),
            ([stored(1), stored(2)], 1, [1, 3]),
            ([stored(1), stored(2)], 2, [2, 3]),
            ([stored(1), stored(3)], 1, [1, 3]),
            ([stored(1), stored(3)], 3, [1, 3]),
            ([stored(3), stored(1)], 1, [1, 3]),
        ] {
            let mut keys = boot(&places, sending);
            let taken = handed(&mut keys, &places, 3);
            assert_eq!(indexes(taken), after, "{places:?} {sending}");
            assert_eq!((keys.sending(), keys.indexes().count()), (Some(3), 2));
            // After a start nobody leads it back.
            let again = boot(&taken.unwrap(), 3);
            assert_eq!((again.sending(), again.previous()), (Some(3), Some(after[0])));
        }
        // A counter that was used under it goes on, a new one begins where those of the epoch do.
        for (places, bound) in [([stored(1), stored(3)], 100), ([stored(1), None], 7)] {
            let taken = handed(&mut boot(&places, 1), &places, 3).unwrap();
            assert_eq!(taken[1].unwrap().bound, bound);
        }
    }

    #[test]
    fn the_last_key_is_never_given_up() {
        let places = [stored(1), stored(2)];
        let mut keys = boot(&places, 2);
        let after = told(&mut keys, &places, 1, Phase::Retire).unwrap();
        assert_eq!(after, [stored(2), None]);
        assert_eq!(told(&mut keys, &after, 2, Phase::Retire), None);
        assert_eq!(told(&mut keys, &after, 1, Phase::Retire), None);
        assert_eq!(keys.sending(), Some(2));
    }

    #[test]
    fn another_key_under_the_index_that_is_sent_under_is_not_taken() {
        let places = [stored(1), stored(2)];
        let mut keys = boot(&places, 2);
        let other = key(2, 9);
        let told = LinkKey { index: 2, key: Some(&other), phase: Phase::Distribute };
        assert_eq!(take(&mut keys, &places, &told, 0), None);
        let other = key(1, 9);
        let told = LinkKey { index: 1, key: Some(&other), phase: Phase::Distribute };
        let after = take(&mut keys, &places, &told, 0).unwrap();
        assert_eq!((after[1].unwrap().key, after[1].unwrap().bound), (Some(other), 100));
    }
}
