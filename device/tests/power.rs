//! Power is cut between any two steps, and in the middle of writes: numbers never repeat, commands run at most once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::control::{Command, Downlink, Uplink};
use fivefold_device::node::status;
use fivefold_device::storage::RECORD;
use fivefold_device::{BootRefused, Entropy, Event, Node, Slots};
use proptest::prelude::*;
use world::*;

fn commands(ids: &[u64]) -> Vec<u8> {
    let all: Vec<Command<'_>> = ids.iter().map(|&id| Command { id, op: 1, arguments: &[] }).collect();
    let mut out = [0; 80];
    let len = Downlink { commands: List::of(&all), ..Downlink::default() }.emit(&mut out).unwrap();
    out[..len].to_vec()
}

/// The results that arrived: (id, status).
fn results(world: &World) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for payload in world.gateway.ledger.readings.values() {
        let at = (0..payload.len()).find(|&at| payload[at] >> 5 == 5);
        if let Some(map) = at.and_then(|at| Uplink::parse(&payload[at..]).ok().map(|m| (at, m))) {
            found.extend(map.1.results.iter().map(|r| (r.id, r.status)));
        }
    }
    found
}

#[test]
fn a_command_runs_once_and_its_result_is_reported_until_it_is_known() {
    let mut world = World::row(20, &[Profile::ToCloud]);
    world.run(6_000);
    world.gateway.control = commands(&[3, 4]);
    world.read(0, 1).unwrap();
    world.run(1_000);
    world.read(0, 2).unwrap();
    world.run(10_000);
    assert_eq!(world.devices[0].executed, [3, 4], "the second time they are known");
    assert_eq!(results(&world), [(3, 0), (4, 0)]);
    world.gateway.control.clear();
    let before = world.gateway.ledger.readings.len();
    world.read(0, 3).unwrap();
    world.run(10_000);
    assert_eq!(results(&world).len(), 2, "what is acknowledged is not said again");
    assert_eq!(world.gateway.ledger.readings.len(), before + 1);
}

#[test]
fn a_command_that_power_interrupted_is_not_tried_again() {
    let mut world = World::row(21, &[Profile::ToCloud]);
    world.run(6_000);
    world.gateway.control = commands(&[9]);
    world.devices[0].obedient = false;
    world.read(0, 1).unwrap();
    world.run(1_000);
    assert_eq!(world.devices[0].executed, [9]);
    world.reboot(0);
    world.run(20_000);
    world.read(0, 2).unwrap();
    world.run(10_000);
    assert_eq!(world.devices[0].executed, [9]);
    assert!(results(&world).contains(&(9, status::INTERRUPTED.into())), "{:?}", results(&world));
}

#[test]
fn an_older_share_and_a_broken_generator_do_not_start() {
    let mut world = World::row(22, &[Profile::ToCloud]);
    world.run(6_000);
    let flash = world.devices[0].slots.take().unwrap().into_storage();
    let record = Slots::open(flash).unwrap().1.unwrap();
    let sid = Sid(0x0a10);
    let boot = |epoch: u16, record, bytes: [u8; 64]| {
        let mut s = settings(sid, Profile::ToCloud);
        s.epoch = Epoch(epoch);
        let entropy = Entropy::check(bytes).map_err(BootRefused::Entropy)?;
        Node::<8>::boot(fivefold_core::time::Millis(0), s, &secrets(sid, Epoch(epoch)), record, &entropy).map(|_| ())
    };
    let random: [u8; 64] = core::array::from_fn(|n| (n * 7) as u8);
    let mut later = record.clone();
    later.epoch = Epoch(2);
    assert_eq!(boot(1, Some(later), random), Err(BootRefused::EpochWentBack));
    assert_eq!(boot(1, Some(record.clone()), random), Ok(()));
    assert!(matches!(boot(1, None, [0x55; 64]), Err(BootRefused::Entropy(_))));
    assert_eq!(boot(0, None, random), Err(BootRefused::EpochOfMode));
}

#[test]
fn a_new_enrolment_starts_its_numbers_anew_and_the_networks_go_on() {
    let mut world = World::row(23, &[Profile::ToCloud]);
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.run(1_000);
    let flash = world.devices[0].slots.take().unwrap().into_storage();
    let (_, record) = Slots::open(flash.clone()).unwrap();
    let before = record.unwrap().key(1).unwrap().bound;
    let mut s = settings(Sid(0x0a10), Profile::ToCloud);
    s.epoch = Epoch(2);
    let mut device = Device::boot(world.now, s.clone(), Enrolment::Fixed, flash, &mut world.rng);
    device.events.clear();
    world.devices[0] = device;
    world.flush(0);
    let (_, record) = Slots::open(world.devices[0].slots.take().unwrap().into_storage()).unwrap();
    let record = record.unwrap();
    assert_eq!((record.piv_bound, record.epoch), (64, Epoch(2)));
    assert!(record.key(1).unwrap().bound > before);
    // A device that lost its record as well counts where no earlier enrolment did.
    let lost = Device::boot(world.now, s, Enrolment::Fixed, Flash::default(), &mut world.rng);
    world.devices[0] = lost;
    world.flush(0);
    let (_, record) = Slots::open(world.devices[0].slots.take().unwrap().into_storage()).unwrap();
    assert_eq!(record.unwrap().key(1).unwrap().bound, (1 << 24) + 1024);
}

#[test]
fn mode_r_draws_a_boot_id_says_it_until_it_is_answered_and_refuses_commands() {
    let mut s = settings(Sid(0x0a10), Profile::ToBoth);
    (s.policy.mode, s.epoch) = (Mode::Random, Epoch(0));
    let mut world = World::of(24, vec![s]);
    world.run(3_000);
    world.gateway.mood = Mood::Silent;
    world.run(6_000);
    world.read(0, 1).unwrap();
    world.run(1_000);
    assert!(world.gateway.requests.iter().all(|r| r[0] & 0x03 == 0), "explicit until the first answer");
    world.gateway.mood = Mood::Kind;
    world.gateway.control = commands(&[5]);
    world.run(30_000);
    let n = world.gateway.requests.len();
    for value in 0..20 {
        world.read(0, value).unwrap();
        world.run(1_000);
    }
    let explicit = world.gateway.requests[n..].iter().filter(|r| r[0] & 0x03 == 0).count();
    assert!((1..=2).contains(&explicit), "every sixteenth: {explicit}");
    assert!(world.devices[0].executed.is_empty());
    assert!(world.devices[0].events.contains(&Event::CommandRefused(5)));
    assert!(results(&world).contains(&(5, status::REFUSED.into())));
    let boots = |world: &World| {
        let mut boots: Vec<_> = world.gateway.ledger.readings.keys().map(|k| k.1).collect();
        boots.dedup();
        boots.len()
    };
    assert_eq!(boots(&world), 1);
    world.reboot(0);
    world.run(10_000);
    world.read(0, 1).unwrap();
    world.run(5_000);
    assert_eq!(boots(&world), 2, "a new boot id, and numbers from 0 again");
    assert_eq!(world.gateway.ledger.reused, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_number_repeats_and_no_command_runs_twice_wherever_the_power_goes(
        seed in any::<u64>(),
        profile in 0usize..3,
        cuts in proptest::collection::vec((0usize..40, 0usize..RECORD, 0u64..40_000), 1..10),
    ) {
        let profile = [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth][profile];
        let mut world = World::row(seed, &[profile]);
        world.gateway.control = commands(&[1, 2, 3]);
        for (n, (steps, torn, pause)) in cuts.into_iter().enumerate() {
            world.devices[0].fuse = Some((steps, torn));
            for value in 0..3 {
                if !world.devices[0].dead {
                    let _ = world.read(0, value);
                }
                world.run(pause / 3 + 10);
            }
            world.gateway.control = commands(&[1 + n as u64, 2 + n as u64]);
            world.reboot(0);
            world.run(300);
        }
        world.devices[0].fuse = None;
        // So many boots in a minute used up the HELLOs that are answered in one.
        world.run(200_000);
        let number = world.read(0, 4).unwrap();
        world.run(30_000);
        prop_assert!(world.devices[0].delivered().contains(&number));
        prop_assert_eq!(world.repeated_counters, 0);
        prop_assert_eq!(world.gateway.ledger.reused, 0);
        let mut executed = world.devices[0].executed.clone();
        executed.sort_unstable();
        executed.dedup();
        prop_assert_eq!(executed.len(), world.devices[0].executed.len());
    }
}
