//! Readings are signed in batches, and a small cloud verifies each statement from payloads alone (docs/protocol.md 13.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::{Mode, Profile, Sign};
use fivefold_core::proof::batch::{Claim, Members, NO_PREVIOUS};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{CONTEXT, SignedLevel, Subject};
use fivefold_core::proof::{Header, ToBeSigned, Verify as _};
use fivefold_core::reading::{Item, Payload};
use fivefold_core::suite::p256::VerifyingKey;
use fivefold_core::wire::control::{Batch, BatchState, Downlink, Uplink};
use fivefold_device::Event;
use world::*;

const SID: Sid = Sid(0x0a10);

/// Item 1, put together again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    number: u64,
    members: Members,
    signature: [u8; 64],
    epoch: u16,
}

/// What a cloud has: payloads, but for those that it `lacks`.
#[derive(Default)]
struct Judge {
    lacks: BTreeSet<(u16, u64)>,
}

impl Judge {
    fn controls(&self, world: &World) -> Vec<(u16, Vec<u8>)> {
        let mut all = Vec::new();
        for ((_, _, epoch, _), payload) in &world.gateway.ledger.readings {
            let Payload::Sequence(items) = Payload::parse(payload).unwrap() else { panic!() };
            all.extend(
                items.filter_map(|i| if let Item::Control(map) = i { Some((*epoch, map.to_vec())) } else { None }),
            );
        }
        all
    }

    /// Every item 1 that came, in order.
    fn said(&self, world: &World) -> Vec<Said> {
        let (mut all, mut pieces) = (Vec::new(), BTreeMap::<(u64, u16), BTreeMap<u16, Vec<u8>>>::new());
        for (epoch, map) in self.controls(world) {
            match Uplink::parse(&map).unwrap().batch {
                Some(Batch::Chunk { number, index, count, bytes }) => {
                    let pieces = pieces.entry((number, count)).or_default();
                    pieces.insert(index, bytes.to_vec());
                    if pieces.len() == usize::from(count) {
                        let whole =
                            [&[0xA1, 0x01][..], &core::mem::take(pieces).into_values().flatten().collect::<Vec<_>>()]
                                .concat();
                        all.extend(whole_of(epoch, Uplink::parse(&whole).unwrap().batch.unwrap()));
                    }
                }
                Some(whole) => all.extend(whole_of(epoch, whole)),
                None => {}
            }
        }
        all
    }

    fn given(&self, world: &World, number: u64) -> BTreeMap<usize, Hash> {
        let mut all = BTreeMap::new();
        for (_, map) in self.controls(world) {
            if let Some(leaves) = Uplink::parse(&map).unwrap().leaves.filter(|l| l.number == number) {
                all.extend(leaves.iter().enumerate().map(|(i, h)| (usize::from(leaves.first_index) + i, Hash(*h))));
            }
        }
        all
    }

    fn subject(&self, world: &World, epoch: u16) -> Subject {
        let level =
            if world.gateway.policies[&SID].profile.has_e3() { SignedLevel::Cloud } else { SignedLevel::Gateway };
        Subject { level, did: did(SID), epoch: Epoch(epoch), bctx: None }
    }

    /// The hash of the statement, if the signature holds over what is here.
    fn verify(&self, world: &World, said: &Said, previous: Hash) -> Option<Hash> {
        let (subject, given) = (self.subject(world, said.epoch), self.given(world, said.number));
        let blind = world.gateway.cloud.members[&SID].held(Epoch(said.epoch)).blind(SID);
        let leaf = |(at, piv): (usize, u64)| {
            let payload = world.gateway.ledger.readings.get(&(SID.0, None, said.epoch, piv));
            match payload.filter(|_| !self.lacks.contains(&(said.epoch, piv))) {
                Some(payload) => Some(subject.leaf(&blind.salt(piv), piv, payload)),
                None => given.get(&at).copied(),
            }
        };
        let leaves: Option<Vec<Hash>> = said.members.numbers().enumerate().map(leaf).collect();
        let claim = Claim { subject, number: said.number, members: said.members, previous };
        let stated = claim.over(leaves?).unwrap();
        let key = VerifyingKey::from_spki(&signing_key(SID).spki()).unwrap();
        let header = Header { alg: key.alg(), key: key.key_name() };
        let signed = ToBeSigned::new(header, CONTEXT, stated.as_bytes());
        key.verify(&signed.parts(), &said.signature).ok().map(|()| stated.hash())
    }

    /// Every statement that came, each chained to the one before.
    fn verify_all(&self, world: &World) -> Vec<Said> {
        let all = self.said(world);
        all.iter().fold(NO_PREVIOUS, |previous, said| {
            self.verify(world, said, previous).unwrap_or_else(|| panic!("{said:?} of {all:?}"))
        });
        all
    }
}

fn whole_of(epoch: u16, batch: Batch<'_>) -> Option<Said> {
    let Batch::Signature { number, first_piv, bitmap, signature } = batch else { return None };
    Some(Said { number, members: Members::parse(first_piv, bitmap).unwrap(), signature: *signature, epoch })
}

fn world(seed: u64, profile: Profile, batch: u8, enrolment: Enrolment) -> World {
    let mut s = settings(SID, profile);
    (s.policy.sign, s.policy.batch) = (Sign::Batch, batch);
    let mut world = World::enrolled(seed, vec![s], enrolment);
    world.run(if enrolment == Enrolment::Bare { 60_000 } else { 6_000 });
    world
}

/// So many readings, each confirmed before the next.
fn read(world: &mut World, readings: u8) -> Vec<(u16, u64)> {
    let mut numbers = Vec::new();
    for value in 0..readings {
        let number = world.read(0, value).unwrap();
        numbers.push((number.epoch.0, u64::from(number.value)));
        world.run(400);
    }
    numbers
}

/// Says so once, in the answer to the next message.
fn tell(world: &mut World, state: BatchState<'_>) {
    let mut out = [0; 40];
    let len = Downlink { batch: Some(state), ..Downlink::default() }.emit(&mut out).unwrap();
    world.gateway.control = out[..len].to_vec();
    let before = world.gateway.answers.len();
    let _ = world.read(0, 1);
    while world.gateway.answers.len() == before {
        world.run(10);
    }
    world.gateway.control.clear();
    world.run(2_000);
}

fn events(world: &World) -> Vec<Event> {
    let about = |e: &&Event| {
        matches!(e, Event::BatchSigned { .. } | Event::BatchComplete(_) | Event::BatchLost(_) | Event::SignerFailed)
    };
    world.devices[0].events.iter().filter(about).copied().collect()
}

#[test]
fn batches_are_signed_by_number_under_every_profile_and_each_names_the_one_before() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let mut world = world(1, profile, 3, Enrolment::Fixed);
        let numbers = read(&mut world, 10);
        world.run(3_000);
        let all = Judge::default().verify_all(&world);
        let counts: Vec<_> = all.iter().map(|s| (s.number, s.members.count())).collect();
        assert_eq!(counts, [(1, 3), (2, 3), (3, 3)], "{profile}");
        let signed: Vec<u64> = all.iter().flat_map(|s| s.members.numbers()).collect();
        assert_eq!(signed, numbers[..9].iter().map(|n| n.1).collect::<Vec<_>>(), "{profile}");
        assert_eq!(world.devices[0].node.waiting().count(), 0);
        tell(&mut world, BatchState::Complete { number: 1 });
        assert!(events(&world).contains(&Event::BatchComplete(1)));
    }
}

#[test]
fn a_whole_signature_fits_one_frame_and_behind_two_levels_it_comes_in_pieces() {
    for (profile, whole) in [(Profile::ToCloud, true), (Profile::ToBoth, false)] {
        let mut world = world(2, profile, 40, Enrolment::Fixed);
        read(&mut world, 40);
        world.run(2_000);
        let judge = Judge::default();
        let items: Vec<_> = judge.controls(&world).into_iter().map(|(_, m)| m).collect();
        let is = |m: &Vec<u8>| matches!(Uplink::parse(m).unwrap().batch, Some(Batch::Signature { .. }));
        assert_eq!(items.iter().any(is), whole, "{profile}");
        assert_eq!(judge.verify_all(&world).len(), 1);
    }
}

#[test]
fn a_batch_that_is_not_full_is_signed_after_a_day() {
    let mut world = world(3, Profile::ToCloud, 32, Enrolment::Fixed);
    read(&mut world, 2);
    world.pass(DAY - 10_000);
    assert_eq!(Judge::default().said(&world), []);
    world.pass(20_000);
    let all = Judge::default().verify_all(&world);
    assert_eq!(all.iter().map(|s| s.members.count()).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_was_sealed_under_an_epoch_is_signed_under_it() {
    let mut world = world(4, Profile::ToCloud, 32, Enrolment::Installed);
    read(&mut world, 3);
    world.devices[0].node.renew(world.now, 1);
    world.run(10_000);
    assert_eq!(world.devices[0].node.epoch(), Epoch(2));
    read(&mut world, 2);
    world.pass(DAY + 10_000);
    let all = Judge::default().verify_all(&world);
    let found: Vec<_> = all.iter().map(|s| (s.number, s.epoch, s.members.count())).collect();
    assert_eq!(found, [(1, 1, 3), (2, 2, 2)]);
}

#[test]
fn a_device_that_agrees_its_first_keys_signs_under_them() {
    let mut world = world(5, Profile::ToCloud, 2, Enrolment::Bare);
    read(&mut world, 4);
    world.run(2_000);
    assert_eq!(Judge::default().verify_all(&world).len(), 2);
}

#[test]
fn over_what_came_it_is_signed_again_under_the_same_number_and_the_next_is_chained_to_that() {
    let mut world = world(6, Profile::ToCloud, 4, Enrolment::Fixed);
    let numbers = read(&mut world, 4);
    world.run(2_000);
    let mut judge = Judge::default();
    judge.lacks.insert(numbers[1]);
    let first = judge.said(&world)[0].clone();
    assert_eq!(judge.verify(&world, &first, NO_PREVIOUS), None);
    tell(&mut world, BatchState::SignAgain { number: 1, bitmap: &[0b1101] });
    let again = judge.said(&world)[1].clone();
    assert_eq!((again.number, again.members.count()), (1, 3));
    let hash = judge.verify(&world, &again, NO_PREVIOUS).unwrap();
    read(&mut world, 3);
    world.run(2_000);
    let next = judge.said(&world)[2].clone();
    assert_eq!(next.number, 2);
    assert!(judge.verify(&world, &next, hash).is_some());
    // No third one: the leaf hashes are all that is left to say.
    tell(&mut world, BatchState::SignAgain { number: 1, bitmap: &[0b0001] });
    assert!(judge.said(&world).iter().filter(|s| s.number == 1).all(|s| *s == first || *s == again));
    assert_eq!(judge.given(&world, 1).len(), 3);
}

#[test]
fn leaf_hashes_complete_a_batch_of_which_a_reading_is_missing() {
    let mut world = world(7, Profile::ToCloud, 5, Enrolment::Fixed);
    let numbers = read(&mut world, 5);
    world.run(2_000);
    let mut judge = Judge::default();
    judge.lacks.extend([numbers[0], numbers[3]]);
    let said = judge.said(&world)[0].clone();
    tell(&mut world, BatchState::SendLeaves { number: 1 });
    assert_eq!(judge.given(&world, 1).len(), 5);
    assert!(judge.verify(&world, &said, NO_PREVIOUS).is_some());
    assert_eq!(judge.said(&world), [said]);
}

#[test]
fn an_older_batch_is_not_signed_over_fewer_readings_for_the_next_is_chained_to_it() {
    let mut world = world(8, Profile::ToCloud, 2, Enrolment::Fixed);
    let numbers = read(&mut world, 4);
    world.run(2_000);
    let mut judge = Judge::default();
    judge.lacks.insert(numbers[0]);
    tell(&mut world, BatchState::SignAgain { number: 1, bitmap: &[0b10] });
    assert_eq!(judge.verify_all(&world).iter().map(|s| s.number).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_batch_whose_predecessor_never_came_is_signed_again_chained_to_nothing() {
    let mut world = world(9, Profile::ToCloud, 2, Enrolment::Fixed);
    read(&mut world, 4);
    world.run(2_000);
    let judge = Judge::default();
    let second = judge.said(&world)[1].clone();
    assert_eq!(judge.verify(&world, &second, NO_PREVIOUS), None);
    tell(&mut world, BatchState::SignAgain { number: 2, bitmap: &[0b11] });
    let again = judge.said(&world)[2].clone();
    assert_eq!((again.number, again.members), (2, second.members));
    let hash = judge.verify(&world, &again, NO_PREVIOUS).unwrap();
    read(&mut world, 1);
    world.run(2_000);
    let third = judge.said(&world)[3].clone();
    assert!(judge.verify(&world, &third, hash).is_some());
}

#[test]
fn what_a_reboot_lost_is_never_signed() {
    let mut world = world(11, Profile::ToCloud, 4, Enrolment::Fixed);
    read(&mut world, 6);
    world.run(2_000);
    let before = Judge::default().verify_all(&world);
    assert_eq!(before.len(), 1);
    world.reboot(0);
    world.run(10_000);
    tell(&mut world, BatchState::SendLeaves { number: 1 });
    assert!(Judge::default().given(&world, 1).is_empty());
    assert!(events(&world).contains(&Event::BatchLost(1)));
    let numbers = read(&mut world, 3);
    world.run(2_000);
    let all = Judge::default().verify_all(&world);
    assert_eq!(all.iter().map(|s| (s.number, s.members.count())).collect::<Vec<_>>(), [(1, 4), (2, 4)]);
    // Of the two readings before the reboot nothing is in it.
    assert!(all[1].members.numbers().all(|n| n + 1 >= numbers[0].1));
}

#[test]
fn a_node_without_a_key_or_without_the_policy_signs_nothing() {
    let mut world = World::row(12, &[Profile::ToCloud]);
    world.run(6_000);
    read(&mut world, 3);
    assert_eq!(Judge::default().said(&world), []);
    assert_eq!(events(&world), []);
}

#[test]
fn readings_wait_rather_than_batches_be_lost() {
    let mut world = world(13, Profile::ToCloud, 1, Enrolment::Fixed);
    world.gateway.mood = Mood::Silent;
    let mut taken = 0;
    while world.read(0, 1).is_ok() {
        taken += 1;
    }
    assert!((4..=8).contains(&taken), "{taken}");
    world.gateway.mood = Mood::Kind;
    world.run(120_000);
    let all = Judge::default().verify_all(&world);
    assert_eq!(all.len(), taken);
    assert_eq!(world.devices[0].node.waiting().count(), 0);
}

#[test]
fn each_boot_of_mode_r_signs_a_chain_of_its_own_though_its_record_was_kept() {
    let mut s = settings(SID, Profile::ToCloud);
    (s.policy.mode, s.epoch, s.policy.sign, s.policy.batch) = (Mode::Random, Epoch(0), Sign::Batch, 2);
    let mut world = World::of(31, vec![s]);
    for boot in 1..=2 {
        world.run(6_000);
        read(&mut world, 4);
        world.run(3_000);
        let numbers: Vec<u64> = Judge::default().said(&world).iter().map(|s| s.number).collect();
        assert_eq!(numbers.len(), 2 * boot);
        assert!(numbers.chunks(2).all(|chain| chain == [1, 2]), "{numbers:?}");
        world.reboot(0);
    }
}
