//! The network key is rotated: what the gateway tells devices whose messages end here, and what it takes under which key.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::key::Key;
use fivefold_core::profile::{KeyIndexes, Profile};
use fivefold_core::wire::control::{Downlink, LinkKey, Uplink};
use fivefold_core::wire::state::{NetworkKey, Phase, Standing};
use fivefold_core::wire::tiny::Wants;

const NEW: [u8; 16] = [0x77; 16];
const NOTHING: Option<(u8, Phase, bool)> = None;
/// A row of template 1.
const READING: &[u8] = &[0x82, 0x01, 0x05];
const DAY: u64 = 86_400_000;

fn keys<'k>(phases: &[(u8, Phase)]) -> Vec<NetworkKey<'k>> {
    phases
        .iter()
        .map(|&(index, phase)| NetworkKey { index, key: if index == 1 { &KEY } else { &NEW }, phase })
        .collect()
}

fn push(world: &mut World, version: u64, devices: &[&Device], phases: &[(u8, Phase)]) {
    world.push(&state_with(version, devices, Standing::Active, &keys(phases))).unwrap();
}

fn says(sending: u8, receiving: u8) -> Vec<u8> {
    let receiving = (receiving > 0).then_some(receiving);
    let map = Uplink { key_indexes: Some(KeyIndexes { sending, receiving }), ..Uplink::default() };
    let mut out = [0; 16];
    let len = map.emit(&mut out).unwrap();
    out[..len].to_vec()
}

/// Sends a payload, and returns what the answer tells of a key: index, phase, whether the key is there.
fn told(world: &mut World, device: &mut Device, payload: &[u8]) -> Option<(u8, Phase, bool)> {
    let (tiny, request) = device.tiny(payload, Wants::Answer);
    while let Some(due) = device.link.keys().lease_due() {
        device.link.keys_mut().extend_lease(due);
    }
    let frame = device.on_air(&tiny);
    let heard = world.frame(&frame);
    let answer = heard.air.iter().find_map(|frame| device.hear(frame)).expect("it is answered");
    let said = device.open_c2(&request, &answer);
    link_key(&said.payload)
}

fn link_key(payload: &[u8]) -> Option<(u8, Phase, bool)> {
    let map = if payload.is_empty() { Downlink::default() } else { Downlink::parse(payload).unwrap() };
    map.link_key.map(|LinkKey { index, key, phase }| {
        assert!(key.is_none_or(|k| *k == NEW));
        (index, phase, key.is_some())
    })
}

#[test]
fn a_device_whose_messages_end_here_is_told_each_step_until_it_says_that_it_took_it() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    assert_eq!(told(&mut world, &mut device, READING), NOTHING);
    push(&mut world, 2, &[&device], &[(1, Phase::Switch), (2, Phase::Distribute)]);
    let hand_out = Some((2, Phase::Distribute, true));
    assert_eq!(told(&mut world, &mut device, READING), hand_out);
    assert_eq!(told(&mut world, &mut device, READING), hand_out, "it did not say that it has it");
    assert_eq!(told(&mut world, &mut device, &says(1, 0)), hand_out);
    device.link.keys_mut().install(2, &Key::new(NEW), 0).unwrap();
    assert_eq!(told(&mut world, &mut device, &says(1, 2)), NOTHING);
    push(&mut world, 3, &[&device], &[(1, Phase::Keep), (2, Phase::Switch)]);
    assert_eq!(told(&mut world, &mut device, READING), Some((2, Phase::Switch, false)));
    assert_eq!(told(&mut world, &mut device, &says(2, 1)), NOTHING);
    push(&mut world, 4, &[&device], &[(1, Phase::Retire), (2, Phase::Switch)]);
    assert_eq!(device.link.keys().sending(), Some(2), "it followed");
    assert_eq!(told(&mut world, &mut device, READING), Some((1, Phase::Retire, false)));
    assert_eq!(told(&mut world, &mut device, &says(2, 0)), NOTHING);
}

#[test]
fn the_answer_to_a_repeat_hands_out_the_key_too() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Switch), (2, Phase::Distribute)]);
    let (tiny, request) = device.tiny(READING, Wants::Answer);
    for numbered in [false, true] {
        let frame = device.on_air(&tiny);
        let heard = world.frame(&frame);
        let answer = heard.air.iter().find_map(|frame| device.hear(frame)).expect("it is answered");
        let said = device.open_c2(&request, &answer);
        assert_eq!((said.numbered, link_key(&said.payload)), (numbered, Some((2, Phase::Distribute, true))));
    }
}

#[test]
fn after_a_restart_of_the_gateway_it_is_told_again() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Switch), (2, Phase::Distribute)]);
    told(&mut world, &mut device, &says(1, 2));
    let mut world = world.restart();
    world.greet(&[&device]);
    assert_eq!(told(&mut world, &mut device, READING), Some((2, Phase::Distribute, true)));
    assert_eq!(told(&mut world, &mut device, &says(1, 2)), NOTHING);
}

#[test]
fn a_message_that_was_overtaken_takes_back_nothing_that_was_said_later() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Switch), (2, Phase::Distribute)]);
    let (early, _) = device.tiny(&says(1, 0), Wants::Nothing);
    assert_eq!(told(&mut world, &mut device, &says(1, 2)), NOTHING);
    let frame = device.on_air(&early);
    assert!(world.frame(&frame).dropped.is_empty());
    assert_eq!(told(&mut world, &mut device, READING), NOTHING);
}

#[test]
fn nothing_is_handed_out_while_it_is_paused_nor_to_devices_that_the_cloud_answers() {
    let (mut device, mut other) = (Device::new(1, Profile::ToGateway), Device::new(2, Profile::ToBoth));
    let mut world = World::of(&[&device, &other]);
    push(&mut world, 2, &[&device, &other], &[(1, Phase::Switch), (2, Phase::Keep)]);
    for payload in [READING, &says(1, 0), &says(1, 2)] {
        assert_eq!(told(&mut world, &mut device, payload), NOTHING);
    }
    push(&mut world, 3, &[&device, &other], &[(1, Phase::Switch), (2, Phase::Distribute)]);
    let (tiny, request) = other.tiny(READING, Wants::Answer);
    let frame = other.on_air(&tiny);
    world.frame(&frame);
    let custody = world.wait(5_000);
    let answer = custody.air.iter().find_map(|frame| other.hear(frame)).expect("custody");
    let said = other.open_c2(&request, &answer);
    assert_eq!(said.payload, fivefold_core::wire::control::STORED);
}

#[test]
fn a_revoked_device_is_not_even_answered() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    let now = keys(&[(1, Phase::Switch), (2, Phase::Distribute)]);
    world.push(&emit_state(2, &[], &[], &now, &[device.did])).unwrap();
    let (tiny, _) = device.tiny(&says(1, 0), Wants::Answer);
    let frame = device.on_air(&tiny);
    let heard = world.frame(&frame);
    assert!(heard.air.iter().all(|frame| device.hear(frame).is_none()));
    assert_eq!(heard.dropped.iter().map(|d| d.0).collect::<Vec<_>>(), [Code::LinkNeighbourUnknown]);
}

#[test]
fn a_late_device_is_answered_under_the_key_it_has_until_that_is_retired() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Keep), (2, Phase::Switch)]);
    let hears = |world: &mut World, device: &mut Device| {
        let (tiny, _) = device.tiny(&says(1, 0), Wants::Answer);
        let frame = device.on_air(&tiny);
        let heard = world.frame(&frame);
        (heard.dropped.first().map(|d| d.0), heard.air.iter().any(|frame| device.hear(frame).is_some()))
    };
    let answered = (0..12).filter(|_| hears(&mut world, &mut device) == (None, true)).count();
    assert_eq!(answered, 9, "every fourth goes under the new key");
    push(&mut world, 3, &[&device], &[(1, Phase::Retire), (2, Phase::Switch)]);
    for _ in 0..8 {
        assert_eq!(hears(&mut world, &mut device), (Some(Code::LinkKeyUnknown), false));
    }
}

#[test]
fn a_restart_changes_nothing_about_which_keys_are_good_for_what() {
    let mut device = Device::new(1, Profile::ToGateway);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Keep), (2, Phase::Switch)]);
    push(&mut world, 3, &[&device], &[(1, Phase::Retire), (2, Phase::Switch)]);
    let refused = |world: &mut World, device: &mut Device, payload: &[u8]| {
        let frame = device.on_air(payload);
        world.frame(&frame).dropped.first().map(|d| d.0)
    };
    let mut world = {
        let world = world.restart();
        assert_eq!(world.gateway.link().keys().sending(), Some(2));
        assert_eq!(world.gateway.link().keys().indexes().collect::<Vec<_>>(), [2]);
        world
    };
    world.greet(&[&device]);
    assert_eq!(refused(&mut world, &mut device, &[0x21, 0, 1, 2, 3]), Some(Code::LinkKeyUnknown));
    // EDHOC passes E1 in recovery, for thirty days after the state that retired the key.
    let passes = |code| code != Some(Code::LinkKeyUnknown);
    assert!(passes(refused(&mut world, &mut device, &[0x10, 1, 2, 3])));
    world.now = world.now.plus(31 * DAY);
    assert!(!passes(refused(&mut world, &mut device, &[0x10, 1, 2, 3])));
}

#[test]
fn a_straggler_is_answered_under_its_retired_key_and_only_in_edhoc() {
    let mut device = Device::new(1, Profile::ToCloud);
    let mut world = World::of(&[&device]);
    push(&mut world, 2, &[&device], &[(1, Phase::Keep), (2, Phase::Switch)]);
    push(&mut world, 3, &[&device], &[(1, Phase::Retire), (2, Phase::Switch)]);
    // After a restart no frame counter of the retired key is leased: the answer waits for that.
    let mut world = world.restart();
    world.greet(&[&device]);
    let message_4: &[u8] = &[0x48, 1, 2, 3, 4, 5, 6, 7, 8];
    for round in 0..3u8 {
        let frame = device.on_air(&[0x10, 0xF5, 3, 2, round]);
        let mut heard = world.frame(&frame);
        let (ticket, envelope) = heard.exchanges.pop().expect("it goes to the cloud");
        let envelope = fivefold_core::wire::envelope::Envelope::parse(&envelope).unwrap();
        assert_eq!(envelope.key_index, Some(1), "which says under which key it came");
        let heard = world.exchanged(ticket, None, Some((device.sid, message_4)));
        let frame = heard.air.first().expect("it is answered");
        assert_eq!(frame[14], 1);
        assert_eq!(device.hear(frame).unwrap(), [&[0x11][..], message_4].concat());
    }
    let frame = device.on_air(&[0x21, 0, 1, 2, 3]);
    assert_eq!(world.frame(&frame).dropped[0].0, Code::LinkKeyUnknown);
}
