//! Power is cut at every byte of every write of a device's life, and copies are damaged after it: it always comes back with
//! a context that the other side has, and repeats no number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeMap;

use fivefold_core::e5_renewal::HandedKey;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::Profile;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::control::{Command, Downlink, LinkKey};
use fivefold_core::wire::state::Phase;
use fivefold_device::storage::{RECORD, choose};
use fivefold_device::{Patience, Record, Slots};
use world::*;

const SID: Sid = Sid(0x0a10);

/// Readings, as far as there is power.
fn readings(world: &mut World, count: u8) {
    for value in 0..count {
        if !world.devices[0].dead {
            let _ = world.read(0, value);
        }
        world.pass(100);
    }
}

fn told(world: &mut World, map: &Downlink<'_>) {
    let mut out = [0; 80];
    let len = map.emit(&mut out).unwrap();
    world.gateway.control = out[..len].to_vec();
    readings(world, 1);
    world.pass(400);
    world.gateway.control.clear();
}

fn link_key(world: &mut World, index: u8, key: Option<&[u8; 16]>, phase: Phase) {
    let link_key = Some(LinkKey { index, key, phase });
    told(world, &Downlink { link_key, ..Downlink::default() });
}

/// Boot, leases, a network key that comes, is switched to and outlives the other, a command, a renewal, its confirmation,
/// a second one whose message_4 is lost, silence and recovery. It ends where the power goes.
fn life(world: &mut World) {
    let steps: [fn(&mut World); 9] = [
        |world| {
            world.pass(6_000);
            readings(world, 3);
        },
        |world| {
            world.gateway.link.keys_mut().install(2, &Key::new([7; 16]), 0).unwrap();
            link_key(world, 2, Some(&[7; 16]), Phase::Distribute);
            world.pass(3_000);
        },
        |world| {
            world.gateway.link.keys_mut().send_under(2).unwrap();
            link_key(world, 2, None, Phase::Switch);
        },
        |world| link_key(world, 1, None, Phase::Retire),
        |world| {
            let order = Command { id: 1, op: 1, arguments: &[] };
            told(world, &Downlink { commands: List::of(&[order]), ..Downlink::default() });
            world.pass(3_000);
        },
        |world| {
            world.gateway.ordered.insert(SID, world.devices[0].node.epoch());
            readings(world, 60);
        },
        |world| {
            world.gateway.ordered.insert(SID, world.devices[0].node.epoch());
            world.gateway.lost[3] = 9;
            readings(world, 3);
            world.pass(100_000);
        },
        |world| {
            world.gateway.lost[3] = 0;
            world.gateway.ordered.clear();
            world.gateway.mood = Mood::Silent;
            readings(world, 6);
            world.pass(2 * HOUR);
        },
        |world| {
            world.gateway.mood = Mood::Kind;
            readings(world, 3);
            world.pass(HOUR);
        },
    ];
    for step in steps {
        if !world.devices[0].dead {
            step(world);
        }
    }
}

/// The device sleeps while the network's key is rotated, and wakes with one that nothing but EDHOC passes under.
fn sleeper(world: &mut World) {
    world.pass(6_000);
    readings(world, 3);
    let keys = world.gateway.link.keys_mut();
    keys.install(2, &Key::new([7; 16]), 0).unwrap();
    keys.send_under(2).unwrap();
    keys.retire(1, world.now.plus(365 * 24 * HOUR)).unwrap();
    world.gateway.cloud.handed = Some(HandedKey::new(2, [7; 16]));
    for _ in 0..24 {
        if !world.devices[0].dead {
            readings(world, 1);
            world.pass(HOUR / 8);
        }
    }
}

/// What happens to a device, and what it comes to when power is never cut.
#[derive(Clone, Copy)]
struct Life {
    lived: fn(&mut World),
    /// Contexts that are agreed, at least.
    renewals: u16,
    /// Indexes of its network keys, the last one sent under.
    keys: &'static [u8],
    /// Hours after a cut within which a reading arrives: recovery wants 16 messages that nobody answered.
    hours: u8,
}

const LIFE: Life = Life { lived: life, renewals: 3, keys: &[2], hours: 6 };
const SLEEPER: Life = Life { lived: sleeper, renewals: 1, keys: &[1, 2], hours: 24 };

fn born(profile: Profile, enrolment: Enrolment) -> World {
    let mut settings = settings(SID, profile);
    // An hour of silence is a day here.
    settings.timers.recovery = HOUR;
    settings.patience = Patience { park: HOUR / 4, longest: HOUR };
    World::enrolled(77, vec![settings], enrolment)
}

/// What is on flash, as far as it makes a difference: whole copies, and whether a damaged one was ever written.
fn meaning(flash: &Flash) -> Vec<Vec<u8>> {
    let nothing = [0; RECORD];
    let seen = |slot: &[u8; RECORD]| match choose(slot, &nothing) {
        Some(_) => slot.to_vec(),
        None => vec![u8::from(slot.iter().any(|&b| b != 0xFF))],
    };
    flash.slots.iter().map(seen).collect()
}

/// Every flash that a cut in this write can leave, and every one where a copy went bad just before it.
fn outcomes(world: &mut World) -> Vec<Flash> {
    let (before, record) = world.devices[0].cut.take().unwrap();
    let mut found = BTreeMap::new();
    for cut in 0..=2 * RECORD {
        let (mut slots, _) = Slots::open(Flash { power: Some(cut), ..before.clone() }).unwrap();
        let written = slots.write(&record);
        let flash = Flash { power: None, ..slots.into_storage() };
        assert!(written.is_ok() || cut < 2 * RECORD);
        found.entry(meaning(&flash)).or_insert(flash);
    }
    if choose(&before.slots[0], &before.slots[1]).is_some() {
        for slot in 0..2 {
            let mut damaged = before.clone();
            damaged.slots[slot] = [0x5A; RECORD];
            found.entry(meaning(&damaged)).or_insert(damaged);
        }
    }
    found.into_values().collect()
}

fn every_cut(profile: Profile, enrolment: Enrolment, life: Life) -> (usize, usize) {
    let mut whole = born(profile, enrolment);
    (life.lived)(&mut whole);
    assert!(
        whole.devices[0].node.epoch().0 >= whole.devices[0].settings.epoch.0 + life.renewals,
        "{:?}",
        whole.devices[0].renewals()
    );
    let keys = whole.devices[0].node.mesh().unwrap().link().keys();
    assert_eq!((keys.indexes().collect::<Vec<_>>(), keys.sending()), (life.keys.to_vec(), life.keys.last().copied()));
    let writes = transitions(&whole.devices[0].written);
    let mut lives = 0;
    for &write in &writes {
        let until_cut = || {
            let mut world = born(profile, enrolment);
            world.devices[0].cut_at = Some(write);
            (life.lived)(&mut world);
            world
        };
        for flash in outcomes(&mut until_cut()) {
            let mut world = until_cut();
            let used = world.devices[0].persisted().map_or(Epoch(0), |r| r.epoch);
            world.gateway.mood = Mood::Kind;
            world.gateway.ordered.clear();
            world.gateway.lost = [0; 4];
            world.restart(0, flash);
            world.pass(12_000);
            // The command may come again; the network key that it knows may be retired at most.
            let mut heard = false;
            for _ in 0..life.hours {
                let number = world.read(0, 1);
                world.pass(5_000);
                heard |= number.is_ok_and(|n| world.devices[0].delivered().contains(&n));
                if !heard {
                    world.pass(HOUR);
                }
            }
            let device = &world.devices[0];
            let last = device.events.len().saturating_sub(8);
            assert!(heard, "{profile}, write {write}: {:?}", &device.events[last..]);
            assert!(device.node.epoch() >= used, "write {write}: back to {}", device.node.epoch());
            assert_eq!((world.repeated_counters, world.gateway.ledger.reused), (0, 0), "write {write}");
            assert_eq!(world.gateway.cloud.clones, 0, "write {write}");
            assert!(device.executed.len() <= 1, "write {write}");
            lives += 1;
        }
    }
    (writes.len(), lives)
}

/// Which records are written in the middle of something. Those that only count silence, 96 a day, are all alike: each
/// twentieth stands for them.
fn transitions(written: &[Record]) -> Vec<usize> {
    let quiet = |r: &Record| {
        let mut r = r.clone();
        (r.silence, r.unanswered) = (0, 0);
        r
    };
    let counts = |n: usize| n > 0 && quiet(&written[n]) == quiet(&written[n - 1]);
    (0..written.len()).filter(|&n| !counts(n) || n % 20 == 0).collect()
}

#[test]
fn a_cut_at_any_byte_of_any_write_leaves_a_usable_context_and_no_number_twice() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let (writes, lives) = every_cut(profile, Enrolment::Installed, LIFE);
        println!("{profile}: {writes} records, {lives} different things on flash");
        assert!(writes >= 20 && lives > 3 * writes, "{writes} {lives}");
    }
}

#[test]
fn a_network_key_that_came_with_message_4_is_there_with_the_contexts_or_comes_again() {
    let (writes, lives) = every_cut(Profile::ToBoth, Enrolment::Installed, SLEEPER);
    println!("{writes} records, {lives} different things on flash");
    assert!(writes >= 8 && lives > 2 * writes, "{writes} {lives}");
}

#[test]
fn a_device_that_is_enrolled_by_edhoc_survives_every_cut_as_well() {
    let (writes, lives) = every_cut(Profile::ToBoth, Enrolment::Bare, LIFE);
    println!("{writes} records, {lives} different things on flash");
}
