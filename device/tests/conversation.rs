//! Nodes, relays and a gateway talk over an air that loses, doubles and delays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::profile::Profile;
use fivefold_device::Event;
use world::*;

#[test]
fn a_reading_is_delivered_under_every_profile() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let mut world = World::row(1, &[profile]);
        world.run(5_000);
        let number = world.read(0, 21).unwrap();
        world.run(1_000);
        let device = &world.devices[0];
        assert!(device.delivered().contains(&number), "{profile}: {:?} {:?}", device.events, device.dropped);
        assert_eq!(device.node.waiting().count(), 0, "{profile}");
        assert_eq!(world.gateway.ledger.reused, 0);
        assert_eq!(world.repeated_counters, 0);
    }
}

#[test]
fn a_reading_crosses_three_relays_and_its_answer_comes_back() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let mut world = World::row(2, &[profile; 4]);
        world.run(15_000);
        let number = world.read(3, 5).unwrap();
        world.run(2_000);
        let device = &world.devices[3];
        assert!(device.delivered().contains(&number), "{profile}: {:?} {:?}", device.events, device.dropped);
        let first = device.events.iter().find_map(|e| match e {
            Event::Sent { number: n, attempt } if *n == number => Some(*attempt),
            _ => None,
        });
        assert_eq!(first, Some(1));
    }
}
