//! Renewal by EDHOC, row by row of docs/protocol.md 11: what starts a run, what ends it, and what goes on meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::e5_renewal::HandedKey;
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::Profile;
use fivefold_core::wire::coap;
use fivefold_core::wire::control::{Downlink, LinkKey, Uplink};
use fivefold_core::wire::state::{Phase, Standing};
use fivefold_device::renewal::{Failed, Stage, Why};
use fivefold_device::storage::StoredContext;
use fivefold_device::{Event, Record, SendRefused, Slots};
use proptest::prelude::*;
use world::*;

const SID: Sid = Sid(0x0a10);
const SEALED: [Profile; 3] = [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth];

/// A device in reach of its gateway, synced, its contexts confirmed.
fn settled(seed: u64, profile: Profile) -> World {
    let mut world = World::renewing(seed, &[profile], Enrolment::Installed);
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.run(1_000);
    assert!(world.devices[0].persisted().unwrap().confirmed);
    world
}

/// The cloud says "renew now" in its next answers.
fn order(world: &mut World, upto: u16) {
    world.gateway.ordered.insert(SID, Epoch(upto));
}

fn flash(world: &mut World) -> Record {
    let slots = world.devices[0].slots.take().unwrap();
    let (slots, record) = Slots::open(slots.into_storage()).unwrap();
    world.devices[0].slots = Some(slots);
    record.unwrap()
}

/// Changes what the device will find on flash at its next boot.
fn reboot_with(world: &mut World, change: impl FnOnce(&mut Record)) {
    let mut record = flash(world);
    change(&mut record);
    world.devices[0].slots.as_mut().unwrap().write(&record).unwrap();
    world.reboot(0);
}

fn started(epoch: u16, why: Why) -> Event {
    Event::RenewalStarted { epoch: Epoch(epoch), why }
}

fn done(epoch: u16) -> [Event; 2] {
    [Event::RenewalAgreed(Epoch(epoch)), Event::RenewalConfirmed(Epoch(epoch))]
}

fn renewed(epoch: u16, why: Why) -> Vec<Event> {
    [&[started(epoch, why)][..], &done(epoch)].concat()
}

/// Failures: (epoch, why, pause).
fn failures(world: &World) -> Vec<(u16, Failed, u64)> {
    let failed = |e: Event| match e {
        Event::RenewalFailed { epoch, failed, pause } => Some((epoch.0, failed, pause)),
        _ => None,
    };
    world.devices[0].renewals().into_iter().filter_map(failed).collect()
}

/// Nothing of what must never be has happened, and readings arrive.
fn is_well(world: &mut World) {
    let number = world.read(0, 3).unwrap();
    world.run(10_000);
    let device = &world.devices[0];
    assert!(device.delivered().contains(&number), "{:?} {:?}", device.events, device.dropped);
    assert_eq!((world.gateway.ledger.reused, world.repeated_counters), (0, 0));
    assert_eq!(world.gateway.cloud.clones, 0);
}

#[test]
fn new_contexts_are_agreed_on_confirmed_and_durable_while_readings_flow() {
    for profile in SEALED {
        let mut world = settled(1, profile);
        order(&mut world, 1);
        for value in 0..6 {
            let number = world.read(0, value).unwrap();
            world.run(500);
            assert!(world.devices[0].delivered().contains(&number), "{profile}");
        }
        world.run(5_000);
        assert_eq!(world.devices[0].renewals(), renewed(2, Why::Ordered(1)), "{profile}");
        let record = flash(&mut world);
        assert_eq!((record.epoch, record.next_epoch, record.confirmed), (Epoch(2), Epoch(3), true));
        assert_eq!((record.piv_bound, record.runs), (64, 0));
        assert!(record.context.is_some());
        let member = &world.gateway.cloud.members[&SID];
        assert_eq!(member.trials(), [Epoch(2), Epoch(1)]);
        assert_eq!(member.held(Epoch(1)).standing, Standing::Draining);
        is_well(&mut world);
        assert_eq!(world.gateway.edhoc.iter().map(Vec::len).collect::<Vec<_>>(), [38, 47, 24, 9]);
        // And again, from what is on flash.
        world.reboot(0);
        world.run(10_000);
        order(&mut world, 2);
        is_well(&mut world);
        assert!(world.devices[0].renewals().ends_with(&renewed(3, Why::Ordered(1))), "{profile}");
        world.reboot(0);
        world.run(10_000);
        is_well(&mut world);
    }
}

#[test]
fn a_run_crosses_three_relays() {
    let mut world = World::renewing(2, &[Profile::ToBoth; 4], Enrolment::Bare);
    world.run(60_000);
    for device in &world.devices {
        assert_eq!(device.renewals()[..2], [started(1, Why::NoContext), Event::RenewalAgreed(Epoch(1))]);
    }
    let number = world.read(3, 5).unwrap();
    world.run(2_000);
    assert!(world.devices[3].delivered().contains(&number));
}

#[test]
fn a_device_without_contexts_takes_no_reading_before_it_agreed_on_some() {
    for profile in SEALED {
        let mut world = World::renewing(3, &[profile], Enrolment::Bare);
        assert_eq!(world.read(0, 1), Err(SendRefused::NotAgreed));
        world.gateway.lost = [3, 0, 0, 0];
        world.pass(110_000);
        let [(1, Failed::Unanswered, pause)] = failures(&world)[..] else { panic!("{:?}", failures(&world)) };
        assert!(pause <= 60_000, "a minute at most, at first");
        assert_eq!(world.read(0, 1), Err(SendRefused::NotAgreed));
        assert!(world.gateway.requests.iter().all(|r| r[0] == 0x10), "nothing else is sent");
        world.pass(60_000);
        world.run(10_000);
        assert!(world.devices[0].renewals().ends_with(&renewed(2, Why::NoContext)), "{profile}");
        is_well(&mut world);
        world.reboot(0);
        world.run(10_000);
        is_well(&mut world);
        assert_eq!(world.devices[0].node.epoch(), Epoch(2));
    }
}

#[test]
fn age_starts_a_run_by_the_uptime_of_the_contexts() {
    let mut settings = settings(SID, Profile::ToCloud);
    settings.policy.renew_days = 2;
    let mut world = World::enrolled(4, vec![settings], Enrolment::Installed);
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.pass(2 * DAY - 60_000);
    assert_eq!(world.devices[0].renewals(), []);
    world.pass(120_000);
    assert_eq!(world.devices[0].renewals(), renewed(2, Why::Age));
    world.pass(2 * DAY);
    assert!(world.devices[0].renewals().ends_with(&renewed(3, Why::Age)));
    is_well(&mut world);
}

#[test]
fn a_high_number_starts_a_run_and_numbers_begin_at_0_again() {
    let mut world = settled(5, Profile::ToBoth);
    reboot_with(&mut world, |record| record.piv_bound = 49_152);
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.run(10_000);
    assert_eq!(world.devices[0].renewals(), renewed(2, Why::Number));
    let number = world.read(0, 1).unwrap();
    assert!(number.value < 8, "{number}");
    is_well(&mut world);
}

#[test]
fn keys_that_are_refused_are_renewed_and_what_was_refused_under_them_is_given_up() {
    let mut world = settled(6, Profile::ToCloud);
    world.gateway.mood = Mood::Code(coap::UNAUTHORIZED);
    world.gateway.lost = [3, 0, 0, 0];
    let refused = world.read(0, 2).unwrap();
    world.run(2_000);
    assert_eq!(world.devices[0].renewals(), [started(2, Why::Refused)]);
    assert_eq!(world.read(0, 3), Err(SendRefused::RenewalNeeded), "keys of no use seal nothing");
    world.pass(200_000);
    assert_eq!(failures(&world).len(), 1);
    let sent = world.gateway.requests.iter().filter(|r| r[0] != 0x10).count();
    world.gateway.mood = Mood::Kind;
    world.pass(HOUR);
    assert!(world.devices[0].renewals().ends_with(&renewed(3, Why::Refused)));
    assert!(world.devices[0].events.contains(&Event::GivenUp(refused)));
    // Only the report after the switch went out.
    assert_eq!(world.gateway.requests.iter().filter(|r| r[0] != 0x10).count(), sent + 1);
    is_well(&mut world);
}

#[test]
fn a_gateway_that_refuses_keys_in_the_clouds_place_silences_no_device() {
    let mut world = settled(7, Profile::ToBoth);
    world.gateway.mood = Mood::Lying(coap::UNAUTHORIZED);
    world.read(0, 2).unwrap();
    world.run(2_000);
    assert_eq!(world.devices[0].renewals(), [], "these contexts are too young for that");
    world.pass(HOUR);
    let number = world.read(0, 2).unwrap();
    world.run(2_000);
    assert_eq!(world.devices[0].renewals()[0], started(2, Why::Refused));
    assert!(world.devices[0].node.waiting().any(|n| n == number));
    world.gateway.mood = Mood::Kind;
    world.pass(120_000);
    is_well(&mut world);
    assert!(world.devices[0].delivered().contains(&number));
}

#[test]
fn an_unconfirmed_context_is_not_renewed() {
    let mut settings = settings(SID, Profile::ToCloud);
    settings.timers.renew_after = Some(60_000);
    let mut world = World::enrolled(8, vec![settings], Enrolment::Installed);
    world.gateway.mood = Mood::Silent;
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.pass(HOUR);
    assert_eq!(world.devices[0].renewals(), [], "nobody answered yet");
    world.gateway.mood = Mood::Kind;
    world.pass(HOUR);
    assert_eq!(world.devices[0].renewals()[..3], renewed(2, Why::Age));
}

#[test]
fn each_message_may_be_lost_twice_and_is_sent_again_byte_by_byte() {
    for message in 0..4 {
        let mut world = settled(9, Profile::ToBoth);
        order(&mut world, 1);
        world.gateway.lost[message] = 2;
        let before = world.gateway.requests.len();
        is_well(&mut world);
        world.run(70_000);
        assert_eq!(world.devices[0].renewals(), renewed(2, Why::Ordered(1)), "message {}", message + 1);
        let sent: Vec<&Vec<u8>> = world.gateway.requests[before..].iter().filter(|r| r[0] == 0x10).collect();
        let first: Vec<_> = sent.iter().filter(|r| r[1] == 0xF5).collect();
        let third: Vec<_> = sent.iter().filter(|r| r[1] != 0xF5).collect();
        assert_eq!((first.len(), third.len()), if message < 2 { (3, 1) } else { (1, 3) });
        assert!(first.windows(2).all(|w| w[0] == w[1]) && third.windows(2).all(|w| w[0] == w[1]));
        is_well(&mut world);
    }
}

#[test]
fn three_timeouts_end_a_run_and_the_pauses_grow_from_one_hour_to_24() {
    for message in 0..4 {
        let mut world = settled(10, Profile::ToBoth);
        order(&mut world, 1);
        world.gateway.lost[message] = usize::MAX;
        world.read(0, 2).unwrap();
        world.run(1_000);
        assert_eq!(world.devices[0].renewals(), [started(2, Why::Ordered(1))]);
        world.run(88_000);
        assert_eq!(failures(&world), []);
        world.run(3_000);
        assert_eq!(failures(&world).len(), 1);
        // The contexts in use are untouched.
        is_well(&mut world);
        world.pass(4 * DAY);
        let failed = failures(&world);
        for (n, &(epoch, why, pause)) in failed.iter().enumerate() {
            assert_eq!((usize::from(epoch), why), (n + 2, Failed::Unanswered));
            let whole = (HOUR << n.min(5)).min(24 * HOUR);
            assert!((whole / 2..=whole).contains(&pause), "{n}: {pause}");
        }
        assert!(failed.len() >= 7, "{failed:?}");
        assert_eq!(world.devices[0].node.tally().of(Code::RenewalFailed), 1, "E5-05 once, after three");
        assert!(flags(&world).contains(&1), "and item 3 says so");
        world.gateway.lost = [0; 4];
        world.pass(DAY);
        is_well(&mut world);
        assert!(world.devices[0].renewals().ends_with(&done(world.devices[0].node.epoch().0)));
        assert!(world.devices[0].node.epoch().0 > 8);
        assert_eq!(flags(&world).last(), Some(&0), "it worked again");
    }
}

/// The flags of item 3, as they were reported.
fn flags(world: &World) -> Vec<u32> {
    let mut flags = Vec::new();
    for payload in world.gateway.ledger.readings.values() {
        if let Some(at) = payload.iter().position(|b| b >> 5 == 5) {
            flags.extend(Uplink::parse(&payload[at..]).ok().and_then(|m| m.status).map(|s| s.flags));
        }
    }
    flags
}

#[test]
fn a_forged_message_is_counted_and_the_true_one_is_taken_after_it() {
    for message in 0..2 {
        let mut world = settled(11, Profile::ToBoth);
        order(&mut world, 1);
        world.gateway.forged[message] = true;
        is_well(&mut world);
        assert_eq!(world.devices[0].renewals(), [started(2, Why::Ordered(1))]);
        assert_eq!(world.devices[0].node.tally().of(Code::RenewalForged), 1);
        assert_eq!(world.devices[0].node.epoch(), Epoch(1));
        world.run(30_000);
        assert_eq!(world.devices[0].renewals(), renewed(2, Why::Ordered(1)), "sent again after its time");
        is_well(&mut world);
    }
}

#[test]
fn eight_messages_that_do_not_verify_end_a_run_and_nothing_else() {
    for message in 0..2 {
        let mut world = settled(12, Profile::ToBoth);
        order(&mut world, 1);
        world.gateway.lost[2 * message + 1] = 3;
        is_well(&mut world);
        let junk: Vec<u8> = match message {
            0 => [&[0x11, 0x58, 45][..], &[0, 0, 0, 0], &[7; 41]].concat(),
            _ => [&[0x11, 0x48][..], &[7; 8]].concat(),
        };
        for n in 0..8 {
            assert_eq!(failures(&world), [], "{n}");
            assert_ne!(world.devices[0].node.stage(), Stage::Idle);
            world.gateway_says(0, &junk);
            world.run(100);
        }
        let [(2, Failed::Refused, pause)] = failures(&world)[..] else { panic!("{:?}", failures(&world)) };
        assert!(pause <= HOUR);
        assert_eq!(world.devices[0].node.tally().of(Code::RenewalForged), 8);
        assert_eq!((world.devices[0].node.epoch(), world.devices[0].node.stage()), (Epoch(1), Stage::Idle));
        is_well(&mut world);
        world.gateway.lost = [0; 4];
        world.pass(HOUR);
        assert!(world.devices[0].renewals().ends_with(&renewed(3, Why::Ordered(1))));
        is_well(&mut world);
    }
}

#[test]
fn message_2_of_an_abandoned_run_does_no_harm_to_the_next() {
    let mut world = settled(12, Profile::ToCloud);
    order(&mut world, 1);
    world.gateway.lost[2] = 3;
    is_well(&mut world);
    world.pass(100_000);
    assert_eq!(failures(&world).len(), 1);
    let message_2 = world.gateway.edhoc[1].clone();
    world.gateway.lost[1] = 1;
    while world.devices[0].node.stage() == Stage::Idle {
        world.pass(10_000);
    }
    let forged = world.devices[0].node.tally().of(Code::RenewalForged);
    world.gateway_says(0, &[&[0x11][..], &message_2].concat());
    world.run(100);
    assert_eq!(world.devices[0].node.tally().of(Code::RenewalForged), forged + 1);
    assert_eq!(world.devices[0].node.stage(), Stage::WaitMessage2(Epoch(3)));
    world.run(40_000);
    is_well(&mut world);
    assert_eq!(world.devices[0].node.epoch(), Epoch(3));
}

#[test]
fn what_comes_twice_late_or_from_anybody_ends_no_run() {
    let mut world = settled(13, Profile::ToCloud);
    order(&mut world, 1);
    world.gateway.lost[3] = 1;
    world.read(0, 1).unwrap();
    world.run(500);
    assert_eq!(world.devices[0].node.stage(), Stage::WaitMessage4(Epoch(2)));
    let message_2 = [&[0x11][..], &world.gateway.edhoc[1]].concat();
    // message_2 once more, an error in clear, message_4 of a wrong length, and no EDHOC at all.
    let long = [&[0x11, 0x58, 80][..], &[7; 80]].concat();
    for frame in [&message_2[..], &[0x12, 0x01, 0x60], &[0x11, 0x43, 1, 2, 3], &[0x11, 0xFF], &long] {
        world.gateway_says(0, frame);
        world.run(100);
        assert_eq!(world.devices[0].node.stage(), Stage::WaitMessage4(Epoch(2)), "{}", hex::encode(frame));
    }
    assert_eq!(world.devices[0].node.tally().of(Code::RenewalLate), 1);
    assert_eq!(world.devices[0].node.tally().of(Code::RenewalForged), 4);
    world.run(40_000);
    assert_eq!(world.devices[0].renewals(), renewed(2, Why::Ordered(1)));
    // The same after the run.
    let message_4 = [&[0x11][..], world.gateway.edhoc.last().unwrap()].concat();
    for frame in [&message_2[..], &message_4] {
        world.gateway_says(0, frame);
        world.run(100);
    }
    assert_eq!(world.devices[0].node.tally().of(Code::RenewalLate), 3);
    is_well(&mut world);
}

#[test]
fn a_device_that_renews_nothing_says_what_is_due_and_takes_no_run() {
    let mut world = World::row(14, &[Profile::ToCloud]);
    world.run(6_000);
    order(&mut world, 1);
    world.read(0, 1).unwrap();
    world.run(1_000);
    assert_eq!(world.devices[0].renewals(), [Event::RenewalNeeded(Why::Ordered(1))]);
    world.gateway_says(0, &[0x11, 0x41, 0x00]);
    world.run(100);
    assert_eq!(world.devices[0].node.tally().of(Code::RenewalLate), 1);
    is_well(&mut world);
}

#[test]
fn a_reboot_drops_the_run_and_never_its_epoch() {
    // Waiting for message_2, for message_4 (whose context is pending at the cloud then), and unconfirmed.
    for (message, silent) in [(0, false), (3, false), (9, true)] {
        let mut world = settled(15, Profile::ToBoth);
        order(&mut world, 1);
        if message < 4 {
            world.gateway.lost[message] = 2;
        }
        world.read(0, 1).unwrap();
        world.run(300);
        if silent {
            world.gateway.mood = Mood::Silent;
            world.run(200);
            assert_eq!(world.devices[0].node.epoch(), Epoch(2));
        } else {
            assert_eq!(flash(&mut world).next_epoch, Epoch(3));
        }
        world.reboot(0);
        world.gateway.mood = Mood::Kind;
        assert_eq!(world.devices[0].node.stage(), Stage::Idle);
        world.run(10_000);
        is_well(&mut world);
        world.run(60_000);
        let expected = if silent { 2 } else { 3 };
        assert_eq!(world.devices[0].node.epoch(), Epoch(expected), "message {message}");
        assert!(world.devices[0].persisted().unwrap().confirmed);
        is_well(&mut world);
    }
}

#[test]
fn message_4_lost_for_good_leaves_a_pending_context_that_the_next_run_passes() {
    let mut world = settled(16, Profile::ToBoth);
    order(&mut world, 1);
    world.gateway.lost[3] = 3;
    is_well(&mut world);
    world.pass(100_000);
    let member = &world.gateway.cloud.members[&SID];
    assert_eq!(member.trials(), [Epoch(1), Epoch(2)]);
    assert_eq!(member.held(Epoch(2)).standing, Standing::Pending);
    is_well(&mut world);
    world.reboot(0);
    world.run(10_000);
    is_well(&mut world);
    world.run(5_000);
    assert_eq!(world.gateway.cloud.members[&SID].trials(), [Epoch(3), Epoch(2), Epoch(1)]);
    is_well(&mut world);
}

/// Readings every ten minutes, as many as the outbox takes.
fn days_of_readings(world: &mut World, ms: u64) {
    let end = world.now.plus(ms);
    while world.now < end {
        let _ = world.read(0, 2);
        world.pass(600_000);
    }
}

#[test]
fn after_a_day_without_any_answer_a_device_recovers_and_not_before() {
    for profile in SEALED {
        let mut world = settled(17, profile);
        // The cloud has lost everything but who the device is.
        world.gateway.cloud.members.get_mut(&SID).unwrap().contexts.clear();
        days_of_readings(&mut world, DAY - HOUR);
        assert_eq!(world.devices[0].renewals(), [], "{profile}");
        days_of_readings(&mut world, 2 * HOUR);
        assert_eq!(world.devices[0].renewals(), renewed(2, Why::Silence), "{profile}");
        days_of_readings(&mut world, 4 * DAY);
        is_well(&mut world);
        assert_eq!(world.devices[0].renewals().len(), 3, "what was sealed before is no reason");
        assert_eq!(world.devices[0].node.waiting().count(), 0, "its time is over: {profile}");
    }
}

#[test]
fn a_device_that_slept_through_the_switch_of_the_network_key_recovers_under_the_new_one() {
    let mut world = settled(19, Profile::ToCloud);
    let new = [0x77; 16];
    let mut out = [0; 40];
    let link_key = Some(LinkKey { index: 2, key: Some(&new), phase: Phase::Distribute });
    let len = Downlink { link_key, ..Downlink::default() }.emit(&mut out).unwrap();
    world.gateway.control = out[..len].to_vec();
    world.read(0, 1).unwrap();
    world.run(500);
    world.gateway.control.clear();
    world.run(5_000);
    // Its neighbour has switched and given up the old key, and says nothing of its own accord.
    let keys = world.gateway.link.keys_mut();
    keys.install(2, &Key::new(new), 0).unwrap();
    keys.send_under(2).unwrap();
    keys.forget(1);
    days_of_readings(&mut world, DAY - HOUR);
    assert!(world.gateway.refused.iter().any(|r| r.code == Code::LinkKeyUnknown), "{:?}", world.gateway.refused);
    assert_eq!(world.devices[0].renewals(), []);
    days_of_readings(&mut world, 2 * HOUR);
    assert_eq!(world.devices[0].renewals(), renewed(2, Why::Silence));
    is_well(&mut world);
    // In time it gives up the old one as well, and goes on after a restart.
    world.pass(8 * DAY);
    world.reboot(0);
    world.run(20_000);
    is_well(&mut world);
    let keys = world.devices[0].node.mesh().unwrap().link().keys();
    assert_eq!((keys.indexes().collect::<Vec<_>>(), keys.sending()), (vec![2], Some(2)));
}

/// The network has another key, and the gateway takes nothing but EDHOC under the one that the device has.
fn rotated_away(world: &mut World) -> HandedKey {
    let new = [0x77; 16];
    let keys = world.gateway.link.keys_mut();
    keys.install(2, &Key::new(new), 0).unwrap();
    keys.send_under(2).unwrap();
    keys.retire(1, world.now.plus(30 * DAY)).unwrap();
    HandedKey::new(2, new)
}

#[test]
fn a_device_that_slept_through_a_whole_rotation_gets_the_new_network_key_with_message_4() {
    for profile in SEALED {
        let mut world = settled(23, profile);
        world.gateway.cloud.handed = Some(rotated_away(&mut world));
        days_of_readings(&mut world, DAY + 2 * HOUR);
        assert_eq!(world.devices[0].renewals(), renewed(2, Why::Silence), "{profile}");
        is_well(&mut world);
        let sending = |world: &World| world.devices[0].node.mesh().unwrap().link().keys().sending();
        assert_eq!(sending(&world), Some(2));
        assert!(world.gateway.refused.iter().any(|r| r.code == Code::LinkKeyUnknown), "{:?}", world.gateway.refused);
        // It keeps it, and gives up the other one in time.
        world.reboot(0);
        world.run(20_000);
        is_well(&mut world);
        world.pass(8 * DAY);
        is_well(&mut world);
        let keys = world.devices[0].node.mesh().unwrap().link().keys();
        assert_eq!((keys.indexes().collect::<Vec<_>>(), keys.sending()), (vec![2], Some(2)));
    }
}

#[test]
fn without_the_new_network_key_new_contexts_are_of_no_use() {
    let mut world = settled(23, Profile::ToCloud);
    rotated_away(&mut world);
    days_of_readings(&mut world, DAY + 2 * HOUR);
    assert_eq!(world.devices[0].renewals(), [started(2, Why::Silence), Event::RenewalAgreed(Epoch(2))]);
}

#[test]
fn recovery_runs_once_a_day_and_silence_alone_is_no_reason() {
    let mut world = settled(18, Profile::ToCloud);
    world.gateway.mood = Mood::Silent;
    world.pass(3 * DAY);
    // The daily report is tried again and again; that is reason enough.
    let twice = [started(2, Why::Silence), Event::RenewalAgreed(Epoch(2)), started(3, Why::Silence)];
    assert_eq!(world.devices[0].renewals()[..3], twice);
    assert_eq!(world.devices[0].renewals().len(), 4);
    world.gateway.lost = [usize::MAX, 0, 0, 0];
    days_of_readings(&mut world, 6 * DAY);
    assert!((5..=6).contains(&failures(&world).len()), "{:?}", failures(&world));
    world.gateway.lost = [0; 4];
    world.gateway.mood = Mood::Kind;
    world.pass(HOUR);
    is_well(&mut world);
    let before = world.devices[0].renewals().len();
    world.pass(20 * DAY);
    assert_eq!(world.devices[0].renewals().len(), before, "it is answered again");
}

#[test]
fn a_device_that_reboots_every_three_hours_recovers_as_well() {
    let mut world = settled(19, Profile::ToBoth);
    world.gateway.cloud.members.get_mut(&SID).unwrap().contexts.clear();
    let mut hours = 0;
    while world.devices[0].renewals().is_empty() {
        days_of_readings(&mut world, 3 * HOUR);
        world.reboot(0);
        hours += 3;
        assert!(hours < 40, "no recovery");
        assert!(hours >= 24 || world.devices[0].renewals().is_empty());
    }
    assert!(hours >= 24, "{hours}");
    world.run(20_000);
    days_of_readings(&mut world, 3 * HOUR);
    is_well(&mut world);
}

#[test]
fn an_epoch_with_the_bytes_of_the_short_id_is_skipped_and_the_last_one_is_never_offered() {
    let mut world = settled(20, Profile::ToBoth);
    reboot_with(&mut world, |record| record.next_epoch = Epoch(SID.0));
    world.run(6_000);
    order(&mut world, 1);
    is_well(&mut world);
    assert_eq!(world.devices[0].renewals(), renewed(SID.0 + 1, Why::Ordered(1)));
    assert_eq!(world.gateway.edhoc[0].len(), 40, "two bytes of epoch");
    is_well(&mut world);

    reboot_with(&mut world, |record| record.next_epoch = Epoch(u16::MAX));
    world.run(6_000);
    order(&mut world, u16::MAX - 1);
    is_well(&mut world);
    assert_eq!(failures(&world), [(u16::MAX, Failed::Exhausted, u64::MAX)]);
    world.pass(3 * DAY);
    assert_eq!(failures(&world).len(), 1);
    is_well(&mut world);
}

#[test]
fn what_was_sent_under_the_older_epoch_is_confirmed_by_item_10() {
    for profile in SEALED {
        let mut world = settled(21, profile);
        world.devices[0].node.renew(world.now, 7);
        world.flush(0);
        // What leaves now is heard, and nobody's answers are, until the switch is over.
        world.gateway.mood = Mood::Silent;
        let old: Vec<_> = (0..4).map(|v| world.read(0, v).unwrap()).collect();
        world.run(1_000);
        assert_eq!(world.devices[0].node.epoch(), Epoch(2), "{profile}");
        world.gateway.mood = Mood::Kind;
        let new = world.read(0, 5).unwrap();
        world.run(1_000);
        let device = &world.devices[0];
        assert_eq!((new.epoch, new.value < 4), (Epoch(2), true));
        assert!(device.delivered().contains(&new), "{profile}");
        assert!(old.iter().all(|n| n.epoch == Epoch(1) && device.delivered().contains(n)), "{profile}: {old:?}");
        assert_eq!(device.node.waiting().count(), 0);
        is_well(&mut world);
    }
}

#[test]
fn what_was_lost_under_the_older_epoch_is_sent_again_as_it_is_and_given_up_when_that_is_drained() {
    for arrives in [true, false] {
        let mut world = settled(22, Profile::ToBoth);
        let lost = world.devices[0].node.send(world.now, &[0x80; 30]).unwrap();
        world.flush(0);
        world.lost_length = world.log.last().map(|(.., f)| f.len());
        world.air_is_cleared();
        world.devices[0].node.renew(world.now, 7);
        world.run(60_000);
        assert_eq!(world.devices[0].node.epoch(), Epoch(2));
        is_well(&mut world);
        assert_eq!(world.devices[0].node.waiting().collect::<Vec<_>>(), [lost]);
        if arrives {
            world.lost_length = None;
        }
        for _ in 0..9 {
            world.pass(12 * HOUR);
            let _ = world.read(0, 1);
            world.run(1_000);
        }
        let device = &world.devices[0];
        assert_eq!(device.delivered().contains(&lost), arrives);
        assert_eq!(device.events.contains(&Event::GivenUp(lost)), !arrives);
        assert_eq!(
            world.gateway.ledger.readings.values().filter(|r| r.as_slice() == [0x80; 30]).count(),
            usize::from(arrives)
        );
        is_well(&mut world);
    }
}

#[test]
fn messages_that_wanted_no_answer_are_not_forgotten_with_their_epoch() {
    let mut s = settings(SID, Profile::ToCloud);
    s.policy.ack_every = 4;
    let mut world = World::enrolled(23, vec![s], Enrolment::Installed);
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.run(1_000);
    let lost = world.devices[0].node.send(world.now, &[0x80; 30]).unwrap();
    world.flush(0);
    world.air_is_cleared();
    let heard = world.read(0, 2).unwrap();
    world.devices[0].node.renew(world.now, 7);
    world.run(5_000);
    assert_eq!(world.devices[0].node.epoch(), Epoch(2));
    assert!(world.devices[0].delivered().contains(&heard));
    for value in 0..4 {
        world.read(0, value).unwrap();
        world.run(1_000);
    }
    assert!(world.devices[0].delivered().contains(&lost), "{:?}", world.devices[0].events);
}

#[test]
fn answers_under_the_older_contexts_are_taken_until_one_came_under_the_newer() {
    let mut world = settled(24, Profile::ToBoth);
    world.devices[0].node.renew(world.now, 7);
    world.flush(0);
    let reach = std::mem::take(&mut world.reach);
    world.reach = reach.clone();
    // The answer to a reading is on its way while the run ends.
    world.run(100);
    let old = world.read(0, 1).unwrap();
    let before = world.devices[0].node.epoch();
    world.run(20_000);
    assert_eq!((old.epoch <= Epoch(2), before <= Epoch(2)), (true, true));
    assert!(world.devices[0].delivered().contains(&old));
    is_well(&mut world);
}

#[test]
fn a_damaged_copy_of_the_record_never_brings_the_older_epoch_back() {
    let mut world = settled(25, Profile::ToBoth);
    order(&mut world, 1);
    is_well(&mut world);
    assert_eq!(world.devices[0].renewals(), renewed(2, Why::Ordered(1)));
    let flash = world.devices[0].slots.take().unwrap().into_storage();
    let both: Vec<Record> = (0..2)
        .map(|slot| {
            let mut damaged = flash.clone();
            damaged.slots[slot][77] ^= 0x10;
            Slots::open(damaged).unwrap().1.unwrap()
        })
        .collect();
    for record in &both {
        assert_eq!(record.epoch, Epoch(2));
        assert!(record.next_epoch >= Epoch(3) && record.piv_bound >= 64);
    }
    let same = |a: &Option<StoredContext>, b: &Option<StoredContext>| a == b && a.is_some();
    assert!(same(&both[0].context, &both[1].context));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_any_weather_and_wherever_the_power_goes_a_device_ends_with_keys_that_both_sides_hold(
        seed in any::<u64>(), profile in 0usize..3, bare in any::<bool>(), loss in 0u32..300, double in 0u32..300,
        delay in 0u64..1500, hops in 1usize..3,
        cuts in proptest::collection::vec((0usize..60, 0usize..2 * fivefold_device::storage::RECORD, 0u64..60_000), 0..6),
    ) {
        let enrolment = if bare { Enrolment::Bare } else { Enrolment::Installed };
        let mut world = World::renewing(seed, &vec![SEALED[profile]; hops], enrolment);
        let n = hops - 1;
        let sid = world.devices[n].settings.sid;
        world.run(60_000);
        world.gateway.ordered.insert(sid, Epoch(3));
        world.weather = Weather { loss, double, delay };
        let mut taken = std::collections::BTreeSet::new();
        for (steps, torn, pause) in cuts {
            world.devices[n].fuse = Some((steps, torn));
            for value in 0..3 {
                if !world.devices[n].dead {
                    let _ = world.read(n, value);
                }
                world.run(pause / 3 + 10);
            }
            world.reboot(n);
            world.run(300);
        }
        world.devices[n].fuse = None;
        for value in 0..6 {
            if let Ok(number) = world.read(n, value) {
                taken.insert(number);
            }
            world.run(3_000);
        }
        world.weather = Weather::default();
        // So many boots in a minute used up the HELLOs that are answered in one, and a run that failed pauses.
        for value in 0..40 {
            world.pass(200_000);
            if let Ok(number) = world.read(n, value) {
                taken.insert(number);
            }
        }
        world.pass(2 * HOUR);
        let device = &world.devices[n];
        prop_assert!(taken.is_subset(&device.delivered()), "{taken:?} {:?} {:?}", device.events, device.dropped);
        prop_assert!(device.node.epoch() >= Epoch(4), "{:?}", device.renewals());
        prop_assert_eq!(world.gateway.cloud.members[&sid].active(), Some(device.node.epoch()));
        prop_assert_eq!(world.gateway.cloud.clones, 0);
        prop_assert_eq!(world.repeated_counters, 0);
        prop_assert_eq!(world.gateway.ledger.reused, 0);
        prop_assert_eq!(world.gateway.unknown, 0);
    }
}
