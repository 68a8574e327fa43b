//! How old keys are and how many numbers they have left, as the cloud shows it: by network and level.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::*;
use fivefold_cloud::book::Vital;
use fivefold_core::id::Sid;
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;
use fivefold_keep::registry::Rotation;

const DAY: u64 = 86_400;

fn vital(world: &World, level: u8) -> Option<Vital> {
    world.cloud.book().vitals().get(&(NET, level)).copied()
}

#[test]
fn the_oldest_key_and_the_fewest_numbers_of_a_network_are_shown_and_whose_they_are_is_not() {
    let today = NOW.0 / 1000;
    let mut devices = vec![
        device(0x0a17, Profile::ToCloud, Mode::Persistent),
        device(0x0a18, Profile::ToBoth, Mode::Persistent),
        device(0x0a19, Profile::ToGateway, Mode::Random),
    ];
    for (device, days) in devices.iter_mut().zip([3, 5, 8]) {
        device.enrolled_at = today - days * DAY;
    }
    let mut world = World::new(devices);
    let days_ago = |days: u64| Some(Millis((today - days * DAY) * 1000));
    assert_eq!(vital(&world, 1).unwrap().oldest, days_ago(8), "the network's key is as old as its first device");
    assert_eq!(vital(&world, 2).unwrap().oldest, days_ago(8));
    assert_eq!(vital(&world, 3).unwrap().oldest, days_ago(5));
    assert_eq!((vital(&world, 4), vital(&world, 5)), (None, None));
    // Of two devices the one that used more counts, whoever sends last.
    for (at, next) in [(0, 700), (1, 20)] {
        let mut node = Node::of(&world.source.devices[at]).at(next);
        let sent = node.send(READING);
        world.post(&[sent.envelope()]);
    }
    assert_eq!(vital(&world, 3).unwrap().numbers_left, Some(NUMBER_LIMIT - 701));
    // A rotation makes the network's key young, once it is switched to.
    let begun = Rotation::begin(NET, 1, 2, today - DAY);
    world.source.rotation = Some(begun.clone());
    world.reload();
    assert_eq!(vital(&world, 1).unwrap().oldest, days_ago(8));
    world.source.rotation = Some(begun.switched(today).unwrap());
    world.reload();
    assert_eq!(vital(&world, 1).unwrap().oldest, days_ago(1));
    // Who is revoked has no keys.
    world.source.devices.iter_mut().find(|d| d.sid == Sid(0x0a19)).unwrap().revoked_at = Some(today);
    world.reload();
    assert_eq!(vital(&world, 2).unwrap().oldest, days_ago(5));
}
