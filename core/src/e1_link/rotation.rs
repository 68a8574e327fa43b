//! Rotation of the network key (docs/protocol.md 4.3): what a device is told next, from the keys of its network and from
//! what it said it has; and what a gateway makes of the keys that it was pushed.
//!
//! One key is sent under. Beside it one may be handed out, or one may be kept: it drains, or its rotation is paused. No
//! state is kept: told twice is told once, and what was lost is told again.

use super::keys::LinkKeys;
use crate::key::Key;
use crate::profile::KeyIndexes;
use crate::time::Millis;
use crate::wire::state::{NetworkKey, Phase};

/// Index that follows `index`: 1 to 254, then 1 again.
pub const fn next_index(index: u8) -> u8 {
    index % 254 + 1
}

/// How many indexes after `from` the index `to` comes, 0 to 253.
const fn ahead(from: u8, to: u8) -> u8 {
    ((to as u16 + 254 - from as u16) % 254) as u8
}

/// Whether a key with this index was drawn before the one that is sent under.
pub const fn is_older(index: u8, sending: u8) -> bool {
    let by = ahead(index, sending);
    1 <= by && by < 128
}

/// A step that a device is told, item 7 of docs/protocol.md 7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Index of the key.
    pub index: u8,
    /// What to do with it. [`Phase::Distribute`] comes with the key, the others without; never [`Phase::Keep`].
    pub phase: Phase,
}

/// What a device is told next, if anything: `keys` are those of its network (index and phase), `has` is what it said last
/// (control item 5), or nothing.
pub fn next_step(keys: &[(u8, Phase)], has: Option<KeyIndexes>) -> Option<Step> {
    let step = |index, phase| Some(Step { index, phase });
    let in_phase = |wanted: Phase| keys.iter().find(|(_, phase)| *phase == wanted).map(|(index, _)| *index);
    let phase_of = |index: u8| keys.iter().find(|(i, _)| *i == index).map(|(_, phase)| *phase);
    let sending = in_phase(Phase::Switch)?;
    let handed_out = in_phase(Phase::Distribute);
    let Some(has) = has else {
        // It said nothing yet. Where there is but one key it has that, or it would not be heard. Where another one drains it
        // may have that alone. One that has what it is told says so.
        let drains = in_phase(Phase::Keep).is_some_and(|index| is_older(index, sending));
        let missing = handed_out.or(drains.then_some(sending));
        return missing.and_then(|index| step(index, Phase::Distribute));
    };
    let holds = |index: u8| has.sending == index || has.receiving == Some(index);
    if !holds(sending) {
        // A node has two places: what it does not send under makes room.
        return has.receiving.map_or(step(sending, Phase::Distribute), |index| step(index, Phase::Retire));
    }
    if has.sending != sending && Some(has.sending) != handed_out {
        return step(sending, Phase::Switch);
    }
    let is_out = |index: &u8| !matches!(phase_of(*index), Some(Phase::Distribute | Phase::Keep | Phase::Switch));
    if let Some(index) = has.receiving.filter(is_out) {
        return step(index, Phase::Retire);
    }
    handed_out.filter(|i| !holds(*i)).and_then(|i| step(i, Phase::Distribute))
}

/// Index of the key that the network sends under, if a device missed it: nothing but EDHOC passes under what it has, or soon
/// will. `keys` and `has` are those of [`next_step`], retired keys among them. Who said nothing yet may have missed whatever
/// was switched to.
pub fn missed(keys: &[(u8, Phase)], has: Option<KeyIndexes>) -> Option<u8> {
    let sending = keys.iter().find(|(_, phase)| *phase == Phase::Switch).map(|(index, _)| *index)?;
    let has_it = match has {
        Some(has) => has.sending == sending || has.receiving == Some(sending),
        None => !keys.iter().any(|(i, phase)| matches!(phase, Phase::Keep | Phase::Retire) && is_older(*i, sending)),
    };
    (!has_it).then_some(sending)
}

/// A gateway's keys become those that it was pushed. The one that was retired last stays until `until`, for EDHOC alone;
/// of every other key that is not in use any more nothing stays. `bound` says what is durable of the frame counter under a
/// key.
pub fn take_over(
    keys: &mut LinkKeys,
    pushed: &[NetworkKey<'_>],
    until: Millis,
    bound: impl Fn(&NetworkKey<'_>) -> u32,
) {
    let Some(sending) = pushed.iter().find(|k| k.phase == Phase::Switch) else { return };
    let retired = pushed.iter().filter(|k| k.phase == Phase::Retire);
    let retired = retired.min_by_key(|k| ahead(k.index, sending.index));
    let in_use = |index: u8| pushed.iter().any(|k| k.index == index && k.phase != Phase::Retire);
    for index in 1..=254 {
        if keys.holds(index) && !in_use(index) && retired.is_none_or(|k| k.index != index) {
            keys.forget(index);
        }
    }
    // The oldest first, for frames under older keys are worth less: what lies behind the sending key, that, what follows.
    let older = pushed.iter().filter(|k| in_use(k.index) && is_older(k.index, sending.index));
    let newer =
        pushed.iter().filter(|k| in_use(k.index) && !is_older(k.index, sending.index) && k.index != sending.index);
    if let Some(key) = retired {
        // It makes room, as soon as there is another to send under.
        let present = keys.holds(key.index);
        if present && keys.indexes().any(|i| i == key.index) && keys.indexes().count() == 1 {
            let _ = keys.install(sending.index, &Key::new(*sending.key), bound(sending));
        }
        if present {
            let _ = keys.retire(key.index, until);
        } else {
            let _ = keys.install_retired(key.index, &Key::new(*key.key), bound(key), until);
        }
    }
    for key in older.chain([sending]).chain(newer) {
        let _ = keys.install(key.index, &Key::new(*key.key), bound(key));
    }
    let _ = keys.send_under(sending.index);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;
    use Phase::{Distribute, Keep, Retire, Switch};

    fn has(sending: u8, receiving: u8) -> Option<KeyIndexes> {
        Some(KeyIndexes { sending, receiving: (receiving > 0).then_some(receiving) })
    }

    fn told(keys: &[(u8, Phase)], has: Option<KeyIndexes>) -> Option<(u8, Phase)> {
        next_step(keys, has).map(|s| (s.index, s.phase))
    }

    #[test]
    fn nobody_is_told_anything_while_there_is_one_key() {
        assert_eq!(told(&[(1, Switch)], has(1, 0)), None);
        assert_eq!(told(&[(1, Switch)], None), None);
        assert_eq!(told(&[], has(1, 0)), None);
    }

    #[test]
    fn a_device_missed_the_key_that_is_sent_under_when_it_said_so_or_may_have_slept() {
        let drains = [(1, Keep), (2, Switch)];
        let retired = [(1, Retire), (2, Switch)];
        for keys in [drains, retired] {
            for (has, lacks) in
                [(None, true), (has(1, 0), true), (has(1, 2), false), (has(2, 1), false), (has(2, 0), false)]
            {
                assert_eq!(missed(&keys, has), lacks.then_some(2), "{keys:?} {has:?}");
            }
        }
        // Still being handed out, or gone back from.
        for keys in [[(1, Switch), (2, Distribute)], [(1, Switch), (2, Keep)], [(1, Switch), (2, Retire)]] {
            for has in [None, has(1, 0), has(2, 1)] {
                assert_eq!(missed(&keys, has), None, "{keys:?} {has:?}");
            }
        }
        assert_eq!(missed(&[(2, Switch)], None), None);
        assert_eq!(missed(&[(2, Switch)], has(1, 0)), Some(2));
        assert_eq!(missed(&[], has(1, 0)), None);
    }

    #[test]
    fn a_key_is_handed_out_until_the_device_says_that_it_has_it() {
        let keys = [(1, Switch), (2, Distribute)];
        assert_eq!(told(&keys, None), Some((2, Distribute)));
        assert_eq!(told(&keys, has(1, 0)), Some((2, Distribute)));
        assert_eq!(told(&keys, has(1, 2)), None);
        // A neighbour of one that was told to switch by another gateway sends under it already: nothing to say.
        assert_eq!(told(&keys, has(2, 1)), None);
    }

    #[test]
    fn after_the_switch_all_send_under_it_and_late_ones_get_it_first() {
        let keys = [(1, Keep), (2, Switch)];
        assert_eq!(told(&keys, has(1, 2)), Some((2, Switch)));
        assert_eq!(told(&keys, has(1, 0)), Some((2, Distribute)));
        assert_eq!(told(&keys, has(2, 1)), None);
        assert_eq!(told(&keys, has(2, 0)), None, "nobody gets a key that drains");
        assert_eq!(told(&keys, None), Some((2, Distribute)), "one that said nothing may lack it");
        assert_eq!(told(&[(1, Retire), (2, Switch)], None), None, "it would not be heard without");
    }

    #[test]
    fn a_retired_key_is_given_up() {
        let keys = [(1, Retire), (2, Switch)];
        assert_eq!(told(&keys, has(2, 1)), Some((1, Retire)));
        assert_eq!(told(&keys, has(1, 2)), Some((2, Switch)), "what it sends under is given up last");
        assert_eq!(told(&keys, has(2, 0)), None);
        // The row is gone, and the device was away all the time.
        assert_eq!(told(&[(2, Switch)], has(2, 1)), Some((1, Retire)));
    }

    #[test]
    fn a_rollback_takes_back_what_was_handed_out() {
        // First all send under the key before, then the other is given up.
        let keys = [(1, Switch), (2, Keep)];
        assert_eq!(told(&keys, has(2, 1)), Some((1, Switch)));
        assert_eq!(told(&keys, has(1, 2)), None);
        assert_eq!(told(&keys, has(1, 0)), None);
        let keys = [(1, Switch), (2, Retire)];
        assert_eq!(told(&keys, has(1, 2)), Some((2, Retire)));
        assert_eq!(told(&keys, has(2, 1)), Some((1, Switch)));
    }

    #[test]
    fn a_pause_hands_out_nothing() {
        let keys = [(1, Switch), (2, Keep)];
        for said in [None, has(1, 0), has(1, 2)] {
            assert_eq!(told(&keys, said), None);
        }
    }

    #[test]
    fn room_is_made_before_the_next_rotation() {
        let keys = [(1, Retire), (2, Switch), (3, Distribute)];
        assert_eq!(told(&keys, has(2, 1)), Some((1, Retire)));
        assert_eq!(told(&keys, has(2, 0)), Some((3, Distribute)));
    }

    #[test]
    fn indexes_go_round() {
        assert_eq!((next_index(1), next_index(253), next_index(254)), (2, 254, 1));
        assert_eq!((ahead(1, 2), ahead(254, 1), ahead(1, 254), ahead(9, 9)), (1, 1, 253, 0));
        assert_eq!(told(&[(1, Distribute), (254, Switch)], has(254, 0)), Some((1, Distribute)));
        assert_eq!(told(&[(1, Switch), (254, Keep)], has(1, 0)), None);
    }

    #[test]
    fn an_index_that_was_rolled_back_is_passed_over() {
        // 2 was taken back; a device that was away since has it still. It is no 3.
        let keys = [(1, Switch), (2, Retire), (3, Distribute)];
        assert_eq!(told(&keys, has(1, 2)), Some((2, Retire)));
        assert_eq!(told(&keys, has(1, 0)), Some((3, Distribute)));
    }

    const UNTIL: Millis = Millis(1_000);

    fn pushed(keys: &mut LinkKeys, now: &[(u8, Phase)]) {
        let bytes: Vec<[u8; 16]> = now.iter().map(|(index, _)| [*index; 16]).collect();
        let list: Vec<NetworkKey<'_>> = now
            .iter()
            .zip(&bytes)
            .map(|((index, phase), key)| NetworkKey { index: *index, key, phase: *phase })
            .collect();
        take_over(keys, &list, UNTIL, |_| 0);
    }

    fn held(keys: &LinkKeys) -> (Option<u8>, Vec<u8>, Vec<u8>) {
        let mut usable: Vec<u8> = keys.indexes().collect();
        usable.sort_unstable();
        let retired = (1..=254).filter(|i| keys.holds(*i) && !usable.contains(i)).collect();
        (keys.sending(), usable, retired)
    }

    #[test]
    fn a_gateway_goes_along_through_rotations_and_a_restart_changes_nothing() {
        type Then<'a> = (&'a [(u8, Phase)], Option<u8>, &'a [u8], &'a [u8]);
        let steps: [Then<'_>; 9] = [
            (&[(1, Switch)], Some(1), &[1], &[]),
            (&[(1, Switch), (2, Distribute)], Some(1), &[1, 2], &[]),
            (&[(1, Keep), (2, Switch)], Some(2), &[1, 2], &[]),
            (&[(1, Retire), (2, Switch)], Some(2), &[2], &[1]),
            (&[(1, Retire), (2, Switch), (3, Distribute)], Some(2), &[2, 3], &[1]),
            (&[(1, Retire), (2, Switch), (3, Keep)], Some(2), &[2, 3], &[1]),
            (&[(1, Retire), (2, Switch), (3, Retire), (4, Distribute)], Some(2), &[2, 4], &[1]),
            (&[(1, Retire), (2, Keep), (3, Retire), (4, Switch)], Some(4), &[2, 4], &[3]),
            (&[(1, Retire), (2, Retire), (4, Switch)], Some(4), &[4], &[2]),
        ];
        let mut keys = LinkKeys::new();
        for (now, sending, usable, retired) in steps {
            let expected = (sending, usable.to_vec(), retired.to_vec());
            pushed(&mut keys, now);
            assert_eq!(held(&keys), expected, "{now:?}");
            let mut again = LinkKeys::new();
            again.install(1, &Key::new([1; 16]), 0).unwrap();
            pushed(&mut again, now);
            assert_eq!(held(&again), expected, "after a restart: {now:?}");
        }
        pushed(&mut keys, &[(4, Switch)]);
        assert_eq!(held(&keys), (Some(4), vec![4], vec![]), "what is forgotten is gone");
        pushed(&mut keys, &[]);
        assert_eq!(held(&keys).0, Some(4), "no key at all says nothing about keys");
    }

    #[test]
    fn a_key_that_follows_is_newer_after_a_restart_too() {
        for (now, older) in [
            (&[(1, Keep), (2, Switch)][..], Some(1)),
            (&[(1, Switch), (2, Keep)], None),
            (&[(254, Keep), (1, Switch)], Some(254)),
            (&[(1, Distribute), (254, Switch)], None),
        ] {
            let mut keys = LinkKeys::new();
            pushed(&mut keys, now);
            assert_eq!(keys.previous(), older, "{now:?}");
        }
    }

    /// Whatever a device has, and whatever is lost, told often enough it ends with the one key of the network.
    #[test]
    fn every_device_comes_to_rest_with_the_networks_key() {
        for keys in [&[(1, Retire), (2, Switch)][..], &[(2, Switch)]] {
            for sending in 1..=3u8 {
                for receiving in [0, 1, 2, 3].into_iter().filter(|r| *r != sending) {
                    let mut device = KeyIndexes { sending, receiving: (receiving > 0).then_some(receiving) };
                    let mut steps = 0;
                    while let Some(step) = next_step(keys, Some(device)) {
                        match step.phase {
                            Distribute => {
                                assert_eq!(device.receiving, None, "there is no room");
                                device.receiving = Some(step.index);
                            }
                            Switch => (device.receiving, device.sending) = (Some(device.sending), step.index),
                            Retire => device.receiving = None,
                            Keep => panic!("nobody is told that"),
                        }
                        steps += 1;
                        assert!(steps < 5, "{keys:?} {sending} {receiving}");
                    }
                    assert_eq!(device, KeyIndexes { sending: 2, receiving: None });
                }
            }
        }
    }
}
