//! Nodes, relays and a gateway talk over an air that loses, doubles and delays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::error::{Code, SealError};
use fivefold_core::id::Sid;
use fivefold_core::profile::{KidLength, Profile};
use fivefold_core::wire::coap;
use fivefold_core::wire::control::{Downlink, Received};
use fivefold_device::renewal::Why;
use fivefold_device::{Event, Number, SendRefused};
use proptest::prelude::*;
use world::*;

const SEALED: [Profile; 3] = [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth];

fn count(events: &[Event], which: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|e| which(e)).count()
}

#[test]
fn a_reading_is_delivered_under_every_profile() {
    for profile in SEALED {
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
    for profile in SEALED {
        let mut world = World::row(2, &[profile; 4]);
        world.run(15_000);
        let number = world.read(3, 5).unwrap();
        world.run(1_000);
        let device = &world.devices[3];
        assert!(device.delivered().contains(&number), "{profile}: {:?} {:?}", device.events, device.dropped);
        let attempts = count(&device.events, |e| matches!(e, Event::Sent { number: n, .. } if *n == number));
        assert_eq!(attempts, 1);
    }
}

#[test]
fn a_retransmission_passes_every_relay() {
    let mut world = World::row(3, &[Profile::ToCloud; 3]);
    world.run(15_000);
    world.gateway.mood = Mood::Silent;
    let before = world.gateway.requests.len();
    world.read(2, 5).unwrap();
    world.run(23_000);
    let requests = &world.gateway.requests[before..];
    assert_eq!(requests.len(), 4, "sent once and three times again");
    assert!(requests.iter().all(|r| r == &requests[0]), "identical bytes");
    assert_eq!(count(&world.devices[2].events, |e| matches!(e, Event::Parked(_))), 1);
}

#[test]
fn a_parked_reading_is_sent_again_when_the_way_is_open() {
    for profile in SEALED {
        let mut world = World::row(4, &[profile]);
        world.run(5_000);
        world.gateway.mood = Mood::Silent;
        let parked = world.read(0, 1).unwrap();
        world.run(25_000);
        world.gateway.mood = Mood::Kind;
        let later = world.read(0, 2).unwrap();
        world.run(2_000);
        let delivered = world.devices[0].delivered();
        assert!(delivered.contains(&parked) && delivered.contains(&later), "{profile}: {:?}", world.devices[0].events);
        assert_eq!(world.gateway.ledger.reused, 0);
    }
}

#[test]
fn a_parent_that_forgot_its_child_learns_of_it_again() {
    let mut world = World::row(19, &[Profile::ToCloud; 2]);
    world.run(10_000);
    // The parent reboots, and the child does not hear its HELLO.
    let reach = core::mem::replace(&mut world.reach, vec![(0, 1)]);
    world.reboot(0);
    world.run(30_000);
    world.reach = reach;
    let number = world.read(1, 7).unwrap();
    world.run(90_000);
    assert!(world.devices[1].delivered().contains(&number), "{:?}", world.devices[1].events);
}

#[test]
fn at_most_four_requests_wait_for_their_answers() {
    let mut world = World::row(5, &[Profile::ToCloud]);
    world.run(5_000);
    world.gateway.mood = Mood::Silent;
    for value in 0..8 {
        world.read(0, value).unwrap();
    }
    world.run(1_000);
    let sent = count(&world.devices[0].events, |e| matches!(e, Event::Sent { attempt: 1, .. }));
    assert_eq!(sent - 1, 4, "one more was the report at boot");
    assert_eq!(world.read(0, 9), Err(SendRefused::Full));
    world.gateway.mood = Mood::Kind;
    world.run(10_000);
    assert_eq!(world.devices[0].node.waiting().count(), 0);
}

#[test]
fn custody_does_not_free_a_reading_of_the_cloud() {
    let mut world = World::row(6, &[Profile::ToBoth]);
    world.run(5_000);
    world.gateway.mood = Mood::Withholding;
    let number = world.read(0, 7).unwrap();
    world.run(300_000);
    let device = &world.devices[0];
    assert!(device.events.contains(&Event::Custody(number)));
    assert_eq!(device.node.waiting().collect::<Vec<_>>(), [number]);
    // A gateway that lies in its own name cannot make the reading vanish either.
    for code in [coap::CHANGED, coap::BAD_REQUEST] {
        world.gateway.mood = Mood::Lying(code);
        world.run(600_000);
        assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [number]);
    }
    world.gateway.mood = Mood::Kind;
    world.run(1_000_000);
    assert!(world.devices[0].delivered().contains(&number));
}

#[test]
fn an_answer_is_taken_once() {
    for profile in SEALED {
        let mut world = World::row(7, &[profile]);
        world.run(5_000);
        world.read(0, 7).unwrap();
        world.run(1_000);
        let answer = world.gateway.answers.last().unwrap().clone();
        let before = world.devices[0].events.len();
        world.gateway_says(0, &answer);
        world.run(100);
        let code = if profile == Profile::ToCloud { Code::CloudReplayed } else { Code::GatewayReplayed };
        assert_eq!(world.devices[0].node.tally().of(code), 1, "{profile}");
        assert_eq!(world.devices[0].events.len(), before);
    }
}

#[test]
fn an_answer_under_fewer_levels_is_refused() {
    let mut cloud_only = World::row(8, &[Profile::ToCloud]);
    cloud_only.run(5_000);
    cloud_only.read(0, 7).unwrap();
    cloud_only.run(1_000);
    let mut answer = cloud_only.gateway.answers.last().unwrap().clone();
    answer[0] += 1;
    cloud_only.gateway_says(0, &answer);
    cloud_only.run(100);
    assert_eq!(cloud_only.devices[0].node.tally().of(Code::CloudLevelMissing), 1);
}

#[test]
fn a_forged_answer_changes_nothing() {
    let mut world = World::row(9, &[Profile::ToCloud]);
    world.run(5_000);
    world.gateway.mood = Mood::Silent;
    let number = world.read(0, 7).unwrap();
    world.run(100);
    world.gateway_says(0, &[&[0x01, number.value as u8][..], &[0; 20]].concat());
    world.run(100);
    assert_eq!(world.devices[0].node.tally().of(Code::CloudForged), 1);
    assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [number]);
}

#[test]
fn recorded_frames_and_hellos_are_nothing_to_a_rebooted_node() {
    let mut world = World::row(10, &[Profile::ToCloud]);
    world.run(5_000);
    world.read(0, 7).unwrap();
    world.run(1_000);
    let recorded: Vec<Vec<u8>> = world.log.iter().filter(|(who, ..)| *who == 0).map(|(_, _, f)| f.clone()).collect();
    assert!(recorded.len() > 2);
    world.reboot(0);
    world.reach.clear();
    for frame in recorded {
        world.hear(1, frame);
    }
    let synced = count(&world.devices[0].events, |e| matches!(e, Event::Synced(..)));
    assert!(world.devices[0].node.tally().of(Code::LinkNeighbourUnknown) > 0);
    world.run(20_000);
    assert_eq!(count(&world.devices[0].events, |e| matches!(e, Event::Synced(..))), synced);
}

#[test]
fn what_is_too_long_is_refused_and_never_cut() {
    let cases = [(Profile::ToCloud, 84), (Profile::ToGateway, 84), (Profile::ToBoth, 75)];
    for (profile, room) in cases {
        let mut world = World::row(11, &[profile]);
        world.run(5_000);
        for _ in 0..300 {
            // Docs/protocol.md 6.4 counts with numbers of two bytes.
            if world.devices[0].node.room() == room {
                break;
            }
            world.read(0, 1).unwrap();
            world.run(100);
        }
        assert_eq!(world.devices[0].node.room(), room, "{profile}");
        let refused = world.devices[0].node.send(world.now, &vec![0x80; room + 1]);
        assert_eq!(refused, Err(SendRefused::Seal(SealError::TooLong)));
        let number = world.devices[0].node.send(world.now, &vec![0x80; room]).unwrap();
        world.flush(0);
        world.run(1_000);
        assert!(world.devices[0].delivered().contains(&number));
        assert_eq!(world.log.iter().map(|(.., f)| f.len()).max(), Some(127));
    }
}

#[test]
fn a_sender_may_stand_in_the_message() {
    let mut s = settings(Sid(0x0a10), Profile::ToBoth);
    s.policy.kid_length = KidLength::Two;
    let mut world = World::of(12, vec![s]);
    world.run(5_000);
    let number = world.read(0, 7).unwrap();
    world.run(1_000);
    assert!(world.devices[0].delivered().contains(&number));
}

#[test]
fn readings_without_an_answer_wait_for_the_list_of_the_cloud() {
    let mut s = settings(Sid(0x0a10), Profile::ToCloud);
    s.policy.ack_every = 4;
    let mut world = World::of(13, vec![s]);
    world.run(5_000);
    let numbers: Vec<Number> = (0..3).map(|v| world.read(0, v).unwrap()).collect();
    world.run(1_000);
    assert_eq!(world.devices[0].node.waiting().count(), 3, "nothing was said about them yet");
    let mut map = [0; 32];
    // The second of them was lost.
    let bitmap = [0b101];
    let received = Some(Received { base_piv: numbers[0].value.into(), bitmap: &bitmap });
    let len = Downlink { received, ..Downlink::default() }.emit(&mut map).unwrap();
    world.gateway.control = map[..len].to_vec();
    let asking = world.read(0, 9).unwrap();
    let before = world.gateway.requests.len();
    world.run(1_000);
    let delivered = world.devices[0].delivered();
    assert!([numbers[0], numbers[2], asking].iter().all(|n| delivered.contains(n)), "{delivered:?}");
    assert_eq!(world.gateway.requests.len() - before, 2, "the lost one was sent again");
    assert_eq!(world.gateway.requests[before + 1][0] & 0x04, 0x04, "and asks for an answer of its own");
    assert!(delivered.contains(&numbers[1]));
    assert_eq!(world.devices[0].node.waiting().count(), 0);
}

#[test]
fn the_answer_codes_mean_what_they_say() {
    let run = |code: u8| {
        let mut world = World::row(14, &[Profile::ToCloud]);
        world.run(5_000);
        world.gateway.mood = Mood::Code(code);
        let number = world.read(0, 7).unwrap();
        world.run(1_000);
        (world, number)
    };
    let (mut world, number) = run(coap::UNAUTHORIZED);
    assert!(world.devices[0].events.contains(&Event::RenewalNeeded(Why::Refused)));
    assert_eq!(world.read(0, 8), Err(SendRefused::RenewalNeeded));
    assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [number]);
    let sent = world.log.len();
    world.run(600_000);
    assert_eq!(world.log.len(), sent, "nothing is sent under keys that are of no use");

    let (mut world, number) = run(coap::TOO_MANY_REQUESTS);
    assert!(world.devices[0].events.contains(&Event::SlowDown(60_000)));
    world.gateway.mood = Mood::Kind;
    let sent = world.gateway.requests.len();
    world.run(58_000);
    assert_eq!(world.gateway.requests.len(), sent);
    world.run(5_000);
    assert!(world.devices[0].delivered().contains(&number));

    let (world, number) = run(coap::BAD_REQUEST);
    assert!(world.devices[0].events.contains(&Event::Refused { number, code: coap::BAD_REQUEST }));
    assert_eq!(world.devices[0].node.waiting().count(), 0);

    // 5.04 is a gateway's word; the cloud has no custody.
    let (world, number) = run(coap::GATEWAY_TIMEOUT);
    assert_eq!(world.devices[0].node.tally().of(Code::CloudInnerMalformed), 1);
    assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [number]);
}

#[test]
fn a_message_behind_the_gateways_window_is_wrapped_again() {
    let mut world = World::row(15, &[Profile::ToBoth]);
    world.run(5_000);
    let number = world.devices[0].node.send(world.now, &[0x80; 30]).unwrap();
    // Its frames are lost by their length; later ones arrive.
    world.flush(0);
    world.lost_length = world.log.last().map(|(.., f)| f.len());
    world.air_is_cleared();
    for value in 0..40 {
        world.read(0, value).unwrap();
        world.run(500);
    }
    assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [number]);
    // Wrapped again it is longer.
    world.run(120_000);
    assert!(world.devices[0].delivered().contains(&number), "{:?}", world.devices[0].events);
    assert_eq!(world.gateway.ledger.readings[&(0x0a10, None, 1, number.value.into())], vec![0x80; 30]);
    assert_eq!(world.gateway.ledger.reused, 0);
}

#[test]
fn a_message_that_only_the_gateway_could_take_is_given_up_behind_its_window() {
    let mut world = World::row(16, &[Profile::ToGateway]);
    world.run(5_000);
    let number = world.devices[0].node.send(world.now, &[0x80; 30]).unwrap();
    world.flush(0);
    world.lost_length = world.log.last().map(|(.., f)| f.len());
    world.air_is_cleared();
    for value in 0..55 {
        world.read(0, value).unwrap();
        world.run(500);
    }
    assert!(
        world.devices[0].events.contains(&Event::GivenUp(number)),
        "{:?}",
        world.devices[0].node.waiting().collect::<Vec<_>>()
    );
}

#[test]
fn a_device_with_the_link_alone_keeps_nothing() {
    let mut world = World::row(17, &[Profile::DangerLinkOnly]);
    world.run(5_000);
    world.read(0, 7).unwrap();
    world.run(100);
    assert!(world.gateway.plain.contains(&vec![0x82, 0x01, 7]));
    assert_eq!(world.devices[0].node.waiting().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_any_weather_everything_arrives_and_nothing_repeats(
        seed in any::<u64>(), profile in 0usize..3, loss in 0u32..400, double in 0u32..300, delay in 0u64..1500, hops in 1usize..4,
    ) {
        let mut world = World::row(seed, &vec![SEALED[profile]; hops]);
        world.run(60_000);
        world.weather = Weather { loss, double, delay };
        let mut taken = std::collections::BTreeSet::new();
        for value in 0..12 {
            if let Ok(number) = world.read(hops - 1, value) {
                taken.insert(number);
            }
            world.run(3_000);
        }
        world.weather = Weather::default();
        world.run(1_500_000);
        let device = &world.devices[hops - 1];
        prop_assert!(taken.is_subset(&device.delivered()), "{taken:?} {:?} {:?}", device.events, device.dropped);
        prop_assert_eq!(world.repeated_counters, 0);
        prop_assert_eq!(world.gateway.ledger.reused, 0);
        let name = |n: &Number| (device.settings.sid.0, None, n.epoch.0, u64::from(n.value));
        let stored = |n: &Number| world.gateway.ledger.readings.contains_key(&name(n));
        prop_assert!(taken.iter().all(stored));
    }
}
