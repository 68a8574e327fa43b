//! Rotation of the network key (docs/protocol.md 4.3): what a device is told next, from the keys of its network and from
//! what it said it has.
//!
//! One key is sent under. A key whose index follows it is being handed out; one whose index comes before it drains. No
//! state is kept: told twice is told once, and what was lost is told again.

use crate::profile::KeyIndexes;
use crate::wire::state::Phase;

/// Index that follows `index`: 1 to 254, then 1 again.
pub const fn next_index(index: u8) -> u8 {
    index % 254 + 1
}

/// A step that a device is told, item 7 of docs/protocol.md 7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index of the key.
    pub index: u8,
    /// What to do with it. [`Phase::Distribute`] comes with the key, the others without.
    pub phase: Phase,
}

/// What a device is told next, if anything: `keys` are those of its network (index and phase), `has` is what it said last
/// (control item 5), or nothing.
pub fn next_step(keys: &[(u8, Phase)], has: Option<KeyIndexes>) -> Option<Step> {
    let step = |index, phase| Some(Step { index, phase });
    let phase_of = |index: u8| keys.iter().find(|(i, _)| *i == index).map(|(_, phase)| *phase);
    let sending = keys.iter().find(|(_, phase)| *phase == Phase::Switch)?.0;
    let handed_out = Some(next_index(sending)).filter(|i| phase_of(*i) == Some(Phase::Distribute));
    let Some(has) = has else {
        // It said nothing yet: it has the key that the network sends under, or it would not be heard.
        return handed_out.and_then(|i| step(i, Phase::Distribute));
    };
    let holds = |index: u8| has.sending == index || has.receiving == Some(index);
    if !holds(sending) {
        // A node has two places: what it does not send under makes room.
        return has.receiving.map_or(step(sending, Phase::Distribute), |index| step(index, Phase::Retire));
    }
    if has.sending != sending && Some(has.sending) != handed_out {
        return step(sending, Phase::Switch);
    }
    let given_up = has.receiving.filter(|i| *i != sending && !matches!(phase_of(*i), Some(Phase::Distribute)));
    if let Some(index) = given_up {
        return step(index, Phase::Retire);
    }
    handed_out.filter(|i| !holds(*i)).and_then(|i| step(i, Phase::Distribute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Distribute, Retire, Switch};

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
        let keys = [(1, Distribute), (2, Switch)];
        assert_eq!(told(&keys, has(1, 2)), Some((2, Switch)));
        assert_eq!(told(&keys, has(1, 0)), Some((2, Distribute)));
        assert_eq!(told(&keys, has(2, 1)), None);
        assert_eq!(told(&keys, has(2, 0)), None, "nobody gets a key that drains");
        assert_eq!(told(&keys, None), None);
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
        let keys = [(1, Switch), (2, Retire)];
        assert_eq!(told(&keys, has(1, 2)), Some((2, Retire)));
        assert_eq!(told(&keys, has(2, 1)), Some((1, Switch)));
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
        assert_eq!(told(&[(1, Distribute), (254, Switch)], has(254, 0)), Some((1, Distribute)));
        assert_eq!(told(&[(1, Switch), (254, Distribute)], has(1, 0)), None);
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
