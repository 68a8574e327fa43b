//! A gateway at a site without a cloud agrees keys with its devices alone (docs/protocol.md 3, 5, 11, "C2 local").
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::*;
use fivefold_core::e2_gateway::{E2, E2Local};
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, PeerKid, WaitM4};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::Profile;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::coap;
use fivefold_core::wire::control::Downlink as ControlMap;
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::state::{Device as Listed, LocalKey, NetworkKey, Part, Phase, State};
use fivefold_core::wire::tiny::{EdhocRule, KidLength, Tiny, Wants};
use fivefold_gateway::gateway::{Local, Output, Setup};
use fivefold_keep::sign::AgreementKey;

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];
const HOUR: u64 = 3_600_000;

fn key(n: u8) -> AgreementKey {
    AgreementKey::from_random(&[n; 32]).unwrap()
}

fn site(boot: GatewayBoot) -> Setup {
    let kid = PeerKid::new(1).unwrap();
    // Another start is another seed.
    Setup { local: Some(Local { kid, key: Arc::new(key(0x61)), seed: [boot.0[0]; 32] }), ..setup(boot) }
}

fn local_device(n: u8) -> Device {
    let mut d = Device::new(n, Profile::ToGateway);
    d.policy.pq_mix = false;
    d
}

/// What the operator's file says: these devices, with the keys that [`key`] gives for these numbers; 0 for none.
fn told(version: u64, devices: &[(&Device, u8)]) -> Vec<u8> {
    told_keys(version, devices, &[NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }])
}

/// The same, with these network keys.
fn told_keys(version: u64, devices: &[(&Device, u8)], keys: &[NetworkKey<'_>]) -> Vec<u8> {
    let listed: Vec<Listed> = devices
        .iter()
        .map(|(d, _)| Listed { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides })
        .collect();
    let with_key = devices.iter().filter(|(_, n)| *n != 0);
    let local: Vec<LocalKey> = with_key.map(|(d, n)| LocalKey { sid: d.sid, x: key(*n).public_x() }).collect();
    let state = State {
        version,
        net: NET,
        group: GROUP,
        part: Part::WHOLE,
        devices: List::of(&listed),
        contexts: List::default(),
        keys: List::of(keys),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::of(&local),
        classic: List::default(),
    };
    let mut out = vec![0; 4096];
    let len = state.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

fn world(devices: &[(&Device, u8)]) -> World {
    let mut w = World::with(site);
    w.push(&told(1, devices)).unwrap();
    for (d, _) in devices {
        w.greet(&[d]);
    }
    w
}

/// Sends a message of EDHOC; what came back, and what was refused.
fn edhoc(w: &mut World, d: &mut Device, payload: &[u8]) -> (Vec<(EdhocRule, Vec<u8>)>, Vec<Code>) {
    let mut tiny = vec![0; payload.len() + 1];
    Tiny::Edhoc { rule: EdhocRule::ToServer, payload }.emit(&mut tiny).unwrap();
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    assert_eq!(heard.exchanges.len(), 0, "nothing of a run leaves the site");
    let tiny = heard.air.iter().filter_map(|frame| d.hear(frame));
    let back = tiny.filter_map(|t| match Tiny::parse(&t, KidLength::None) {
        Ok(Tiny::Edhoc { rule, payload }) => Some((rule, payload.to_vec())),
        _ => None,
    });
    (back.collect(), heard.dropped.iter().map(|(code, _)| *code).collect())
}

/// A run as far as message_3.
struct Proof {
    epoch: u16,
    waiting: Initiator<E2, WaitM4>,
    m3: Vec<u8>,
}

fn prove_as(w: &mut World, d: &mut Device, own: u8, epoch: u16, ephemeral: u8) -> Result<Proof, Vec<Code>> {
    let (waiting, m1) = Initiator::offer(key(ephemeral), d.sid, Epoch(epoch), Announce::Nothing).unwrap();
    let (back, refused) = edhoc(w, d, m1.as_bytes());
    let [(EdhocRule::ToClient, m2)] = &back[..] else { return Err(refused) };
    let credential = Credential::device(d.sid, key(own).public_x());
    let identity = Identity { key: &key(own), credential: &credential };
    let peer = Credential::peer(PeerKid::new(1).unwrap(), key(0x61).public_x());
    let (waiting, m3) = waiting.handle_message_2(m2, &identity, &peer).unwrap();
    Ok(Proof { epoch, waiting, m3: m3.as_bytes().to_vec() })
}

fn prove(w: &mut World, d: &mut Device, epoch: u16, ephemeral: u8) -> Proof {
    prove_as(w, d, d.did.0[7], epoch, ephemeral).unwrap()
}

/// The device has message_4.
fn take(d: &mut Device, waiting: Initiator<E2, WaitM4>, epoch: u16, m4: &[u8]) {
    d.local = Some(waiting.handle_message_4(m4).unwrap().secrets(d.policy.alg).e2);
    (d.renewed, d.next) = (Some(Epoch(epoch)), 0);
}

fn agree(w: &mut World, d: &mut Device, epoch: u16, ephemeral: u8) {
    let Proof { waiting, m3, .. } = prove(w, d, epoch, ephemeral);
    let (back, refused) = edhoc(w, d, &m3);
    assert_eq!((back.len(), refused), (1, vec![]), "epoch {epoch}");
    take(d, waiting, epoch, &back[0].1);
}

/// Sends a reading; what the gateway said, and what was refused.
fn send(w: &mut World, d: &mut Device) -> (Option<C2Said>, Vec<Code>) {
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    let said = heard.air.iter().filter_map(|f| d.hear(f)).next().map(|tiny| d.open_c2(&request, &tiny));
    (said, heard.dropped.iter().map(|(code, _)| *code).collect())
}

#[track_caller]
fn is_taken(w: &mut World, d: &mut Device) -> C2Said {
    let (said, refused) = send(w, d);
    assert_eq!(refused, []);
    let said = said.expect("an answer");
    assert_eq!(said.code, coap::CHANGED);
    said
}

/// A device with the keys that another one has now.
fn copy(d: &Device) -> Device {
    let mut copy = local_device(d.did.0[7]);
    copy.policy = d.policy;
    copy.local =
        d.local.as_ref().map(|l| E2Local::new(l.danger_master_secret(), l.master_salt().try_into().unwrap()).unwrap());
    (copy.renewed, copy.next) = (d.renewed, d.next);
    copy
}

/// Epochs and numbers of the readings in the spool. Here each write is durable alone: one whose mark was lost stands twice.
fn numbers(w: &World) -> BTreeSet<(Epoch, u64)> {
    let opened = |bytes: &Vec<u8>| Envelope::parse(bytes).unwrap().opened.unwrap();
    w.stored().iter().map(opened).map(|o| (o.epoch, o.piv)).collect()
}

fn rows(w: &World) -> i64 {
    let db = rusqlite::Connection::open(w.path()).unwrap();
    db.query_row("SELECT count(*) FROM agreed", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_run_ends_at_the_gateway_and_readings_come_under_what_it_gave() {
    for alg in [Alg::AesCcm16_64_256, Alg::AesCcm16_64_128] {
        let mut d = local_device(1);
        d.policy.alg = alg;
        let mut w = world(&[(&d, 1)]);
        agree(&mut w, &mut d, 1, 0x11);
        is_taken(&mut w, &mut d);
        let stored = w.stored();
        let envelope = Envelope::parse(&stored[0]).unwrap();
        assert_eq!((envelope.kind, stored.len()), (Kind::GatewayOpened, 1));
        assert_eq!((envelope.opened.unwrap().epoch, envelope.opened.unwrap().piv), (Epoch(1), 0));
        let mut w = w.restart();
        w.greet(&[&d]);
        is_taken(&mut w, &mut d);
        // Nothing is told to a cloud that does not exist, however long.
        w.wait(10 * HOUR);
        assert_eq!(w.gateway.tally().total(Code::CloudUnreachable), 0);
        assert_eq!(w.stored().len(), 2);
    }
}

#[test]
fn what_was_agreed_is_durable_before_message_4_wherever_power_goes() {
    for fuse in 1..40 {
        let mut d = local_device(1);
        let mut w = world(&[(&d, 1)]);
        let Proof { waiting, m3, .. } = prove(&mut w, &mut d, 1, 0x11);
        w.fuse = Some(fuse);
        let (back, _) = edhoc(&mut w, &mut d, &m3);
        let done = !w.dead();
        let mut w = w.restart();
        w.greet(&[&d]);
        // The device asks again with the same message_3, whether or not it had its answer.
        let (again, refused) = edhoc(&mut w, &mut d, &m3);
        match (back.first(), again.first()) {
            (Some(first), Some(second)) => assert_eq!(first, second, "one message_4, byte for byte"),
            (Some(_), None) => panic!("message_4 went out, and the context is not there: fuse {fuse}"),
            (None, Some(_)) => {}
            (None, None) => {
                // Power went before anything was agreed: the run is gone with it, and the next epoch is as good.
                assert_eq!((refused, rows(&w)), (vec![Code::RenewalLate], 0));
                agree(&mut w, &mut d, 2, 0x12);
                is_taken(&mut w, &mut d);
                continue;
            }
        }
        take(&mut d, waiting, 1, &again[0].1);
        is_taken(&mut w, &mut d);
        assert_eq!(edhoc(&mut w, &mut d, &m3).1, [Code::RenewalLate], "in use: nobody needs message_4 any more");
        if done {
            assert!(fuse > 2);
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn message_4_waits_for_the_commit_and_so_does_a_repeat_of_message_3() {
    let mut d = local_device(1);
    let mut w = world(&[(&d, 1)]);
    let Proof { waiting, m3, .. } = prove(&mut w, &mut d, 1, 0x11);
    let mut tiny = vec![0; m3.len() + 1];
    Tiny::Edhoc { rule: EdhocRule::ToServer, payload: &m3 }.emit(&mut tiny).unwrap();
    let mut written = 0;
    for _ in 0..2 {
        let mut frame = d.on_air(&tiny);
        w.gateway.handle_frame(w.now, &mut frame, Some(200));
        while let Some(output) = w.gateway.poll() {
            match output {
                Output::Persist(record) => {
                    w.spool.write(&record).unwrap();
                    (w.persisted, written) = (w.persisted + 1, written + 1);
                }
                Output::Transmit(_) => panic!("nothing of it is durable yet"),
                _ => {}
            }
        }
    }
    assert!(written > 0);
    w.spool.commit().unwrap();
    w.gateway.handle_durable(w.now, w.persisted);
    let heard = w.run();
    let tiny = d.hear(&heard.air[0]).unwrap();
    let Tiny::Edhoc { payload, .. } = Tiny::parse(&tiny, KidLength::None).unwrap() else { panic!("no message_4") };
    assert_eq!(heard.air.len(), 1);
    take(&mut d, waiting, 1, payload);
    is_taken(&mut w, &mut d);
}

#[test]
fn power_may_go_anywhere_around_the_first_message_under_new_keys() {
    for fuse in 1..60 {
        let mut d = local_device(1);
        let mut w = world(&[(&d, 1)]);
        agree(&mut w, &mut d, 1, 0x11);
        is_taken(&mut w, &mut d);
        let mut old = copy(&d);
        agree(&mut w, &mut d, 2, 0x12);
        w.fuse = Some(fuse);
        let (tiny, request) = d.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        let said = heard.air.iter().filter_map(|f| d.hear(f)).next().map(|tiny| d.open_c2(&request, &tiny));
        let done = !w.dead();
        let mut w = w.restart();
        w.greet(&[&d]);
        if said.is_some() {
            assert_eq!(numbers(&w).len(), 2, "answered, so it is there: fuse {fuse}");
        }
        // The same message once more, then the next: they are there, whatever became of the first.
        let frame = d.on_air(&tiny);
        w.frame(&frame);
        is_taken(&mut w, &mut d);
        assert_eq!(numbers(&w).len(), 3, "fuse {fuse}");
        // Under the old keys nobody is answered any more.
        let (tiny, _) = old.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        assert_eq!((heard.air.len(), heard.dropped.len(), numbers(&w).len()), (0, 0, 4), "fuse {fuse}");
        w.fuse = None;
        w.wait(97 * HOUR);
        assert_eq!(rows(&w), 1, "and they are erased in the end: fuse {fuse}");
        if done {
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn old_keys_are_answered_until_the_new_ones_are_used_then_drain_and_are_erased() {
    for restarted in [false, true] {
        let mut d = local_device(1);
        let mut w = world(&[(&d, 1)]);
        agree(&mut w, &mut d, 1, 0x11);
        is_taken(&mut w, &mut d);
        let mut old = copy(&d);
        agree(&mut w, &mut d, 2, 0x12);
        // Make before break.
        let (tiny, request) = old.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        assert_eq!(old.open_c2(&request, &d.hear(&heard.air[0]).unwrap()).code, coap::CHANGED);
        is_taken(&mut w, &mut d);
        let again = |w: World, d: &Device| {
            if !restarted {
                return w;
            }
            let w = w.restart();
            let mut w = w;
            w.greet(&[d]);
            w
        };
        w = again(w, &d);
        let (tiny, _) = old.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).air.len(), 0, "taken, and not answered");
        let said = is_taken(&mut w, &mut d);
        let earlier = ControlMap::parse(&said.payload).unwrap().earlier.unwrap();
        assert!((0..3).all(|piv| earlier.covers(Epoch(1), piv)));
        assert_eq!(rows(&w), 2);
        w.wait(95 * HOUR);
        w = again(w, &d);
        w.wait(60_000);
        assert_eq!(rows(&w), 2);
        w.wait(HOUR);
        assert_eq!(rows(&w), 1, "96 hours are over");
        let (tiny, _) = old.tiny(READING, Wants::Nothing);
        w.greet(&[&d]);
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).dropped[0].0, Code::GatewayForged);
        is_taken(&mut w, &mut d);
    }
}

#[test]
fn eight_contexts_wait_the_lowest_gives_way_and_those_below_the_one_in_use_drain() {
    let mut d = local_device(1);
    let mut w = world(&[(&d, 1)]);
    let mut generations = Vec::new();
    for epoch in 1..=9 {
        // Six an hour.
        w.wait(HOUR / 5);
        w.greet(&[&d]);
        agree(&mut w, &mut d, epoch, 0x10 + epoch as u8);
        generations.push(copy(&d));
    }
    let mut w = w.restart();
    w.greet(&[&d]);
    assert_eq!(rows(&w), 8);
    let speak = |w: &mut World, d: &mut Device, g: &mut Device| {
        let (tiny, _) = g.tiny(READING, Wants::Nothing);
        let frame = d.on_air(&tiny);
        w.frame(&frame).dropped.first().map(|(code, _)| *code)
    };
    assert_eq!(speak(&mut w, &mut d, &mut generations[0]), Some(Code::GatewayForged));
    assert_eq!(speak(&mut w, &mut d, &mut generations[4]), None);
    // What was sealed under those that waited, and was not heard, is heard still.
    assert_eq!(speak(&mut w, &mut d, &mut generations[2]), None);
    assert_eq!(speak(&mut w, &mut d, &mut generations[8]), None);
    let mut w = w.restart();
    w.greet(&[&d]);
    assert_eq!(rows(&w), 8, "9, and 2 to 8 which drain");
    assert_eq!(speak(&mut w, &mut d, &mut generations[1]), None);
    w.wait(97 * HOUR);
    assert_eq!(rows(&w), 1, "96 hours are over");
}

#[test]
fn a_reset_a_clone_a_stranger_and_a_flood_are_refused_and_the_keys_in_use_stay() {
    let (mut d, mut other, mut unlisted) = (local_device(1), local_device(2), local_device(3));
    let mut w = world(&[(&d, 1), (&other, 2), (&unlisted, 0)]);
    // Late: it began before the one that was agreed.
    let late = prove(&mut w, &mut d, 5, 0x11);
    agree(&mut w, &mut d, 6, 0x12);
    is_taken(&mut w, &mut d);
    assert_eq!(edhoc(&mut w, &mut d, &late.m3), (vec![], vec![Code::RenewalLate]));
    // A device that lost its state, or a second one with its key: also after a restart.
    for restarted in [false, true] {
        if restarted {
            w = w.restart();
            w.greet(&[&d, &other, &unlisted]);
        }
        let reset = prove(&mut w, &mut d, 6, 0x13 + u8::from(restarted));
        assert_eq!(edhoc(&mut w, &mut d, &reset.m3), (vec![], vec![Code::RenewalEpochNotGreater]));
        assert_eq!(reset.epoch, 6);
    }
    // Another key than that of its short id.
    let stranger = prove_as(&mut w, &mut other, 1, 1, 0x15).unwrap();
    assert_eq!(edhoc(&mut w, &mut other, &stranger.m3).1, [Code::RenewalForged]);
    // C_R of another device.
    let foreign = prove(&mut w, &mut other, 1, 0x16);
    assert_eq!(edhoc(&mut w, &mut d, &foreign.m3).1, [Code::RenewalUnknownCredential]);
    // One for which the operator gave no key.
    let (_, m1) = Initiator::<E2, _>::offer(key(0x17), unlisted.sid, Epoch(1), Announce::Nothing).unwrap();
    assert_eq!(edhoc(&mut w, &mut unlisted, m1.as_bytes()), (vec![], vec![Code::RenewalUnknownCredential]));
    // Another suite is told so.
    let mut suite = m1.as_bytes().to_vec();
    suite[1] = 0x00;
    let (back, refused) = edhoc(&mut w, &mut d, &suite);
    assert_eq!((back[0].0, refused), (EdhocRule::Error, vec![Code::RenewalSuite]));
    // Six an hour: one of them was before the restart.
    let mut began = 0;
    let refused = loop {
        match prove_as(&mut w, &mut d, 1, 7, 0x20 + began) {
            Ok(_) => began += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((began, refused), (5, vec![Code::RenewalRate]));
    is_taken(&mut w, &mut d);
}

#[test]
fn the_operators_word_alone_ends_what_was_agreed_and_an_older_one_undoes_nothing() {
    let (mut d, mut other) = (local_device(1), local_device(2));
    let mut w = world(&[(&d, 1), (&other, 2)]);
    agree(&mut w, &mut d, 7, 0x11);
    agree(&mut w, &mut other, 1, 0x12);
    is_taken(&mut w, &mut d);
    is_taken(&mut w, &mut other);
    // The same devices: everything goes on.
    w.push(&told(2, &[(&d, 1), (&other, 2)])).unwrap();
    is_taken(&mut w, &mut d);
    // One was enrolled again, with a key of its own: its contexts are over, and its epochs begin anew.
    w.push(&told(3, &[(&d, 0x33), (&other, 2)])).unwrap();
    assert_eq!(rows(&w), 1);
    assert_eq!(send(&mut w, &mut d).1, [Code::GatewayNoContext]);
    w = w.restart();
    w.greet(&[&d, &other]);
    assert_eq!(rows(&w), 1);
    let Proof { waiting, m3, .. } = prove_as(&mut w, &mut d, 0x33, 1, 0x13).unwrap();
    let (back, _) = edhoc(&mut w, &mut d, &m3);
    take(&mut d, waiting, 1, &back[0].1);
    is_taken(&mut w, &mut d);
    // One is not listed any more.
    w.push(&told(4, &[(&d, 0x33)])).unwrap();
    assert_eq!(rows(&w), 1);
    assert_eq!(send(&mut w, &mut other).1, [Code::LinkNeighbourUnknown]);
    // What an old file says is refused as a whole.
    let old = w.push(&told(3, &[(&d, 1), (&other, 2)])).unwrap_err();
    assert_eq!(old.code, Code::ChannelSequence);
    is_taken(&mut w, &mut d);
}

#[test]
fn no_state_makes_a_gateway_agree_keys_of_a_device_that_has_more_than_e2() {
    let good = local_device(1);
    let mut w = world(&[(&good, 1)]);
    for (profile, pq_mix) in [(Profile::ToCloud, false), (Profile::ToBoth, false), (Profile::ToGateway, true)] {
        let mut d = local_device(2);
        (d.policy.profile, d.policy.pq_mix) = (profile, pq_mix);
        let refused = w.push(&told(2, &[(&good, 1), (&d, 2)])).unwrap_err();
        assert_eq!(refused.code, Code::ChannelSequence, "{profile}");
        assert!(refused.reason.contains("further"), "{}", refused.reason);
    }
    // Of a device that is not in the list at all.
    let mut part = told(2, &[(&good, 1)]);
    let at = part.windows(2).rposition(|w| w == good.sid.to_bytes()).unwrap();
    part[at..at + 2].copy_from_slice(&Sid(0x0b00).to_bytes());
    assert_eq!(w.push(&part).unwrap_err().code, Code::ChannelSequence);
    assert_eq!(w.gateway.state_version(), 1);
}

#[test]
fn message_4_hands_the_network_key_to_a_device_that_missed_it() {
    let mut d = local_device(1);
    let mut w = world(&[(&d, 1)]);
    let keys = |before| {
        let new = NetworkKey { index: 2, key: &[7; 16], phase: Phase::Switch };
        [NetworkKey { index: 1, key: &KEY, phase: before }, new]
    };
    let handed = |w: &mut World, d: &mut Device, epoch| {
        let Proof { waiting, m3, .. } = prove(w, d, epoch, epoch as u8 + 0x20);
        let (back, refused) = edhoc(w, d, &m3);
        assert_eq!((back.len(), refused), (1, vec![]), "epoch {epoch}");
        let agreed = waiting.handle_message_4(&back[0].1).unwrap();
        agreed.handed().map(|handed| (handed.told().index, *handed.told().key.unwrap()))
    };
    assert_eq!(handed(&mut w, &mut d, 1), None);
    w.push(&told_keys(2, &[(&d, 1)], &keys(Phase::Retire))).unwrap();
    assert_eq!(handed(&mut w, &mut d, 2), Some((2, [7; 16])));
}

#[test]
fn a_device_is_told_when_its_keys_are_old() {
    let mut d = local_device(1);
    d.policy.renew_days = 2;
    let mut w = world(&[(&d, 1)]);
    agree(&mut w, &mut d, 1, 0x11);
    let told = |w: &mut World, d: &mut Device| {
        w.greet(&[d]);
        let said = is_taken(w, d);
        if said.payload.is_empty() { None } else { ControlMap::parse(&said.payload).unwrap().renew }
    };
    assert_eq!(told(&mut w, &mut d), None);
    w.wait(47 * HOUR);
    assert_eq!(told(&mut w, &mut d), None);
    w.wait(HOUR + 1);
    assert_eq!(told(&mut w, &mut d), Some(4));
    assert_eq!(told(&mut w, &mut d), None, "the device is about it");
    w.wait(300_000);
    assert_eq!(told(&mut w, &mut d), Some(4));
    agree(&mut w, &mut d, 2, 0x12);
    w.wait(300_000);
    assert_eq!(told(&mut w, &mut d), None);
}

#[test]
fn secrets_that_were_agreed_are_nowhere_in_the_clear() {
    let mut d = local_device(1);
    let mut w = world(&[(&d, 1)]);
    agree(&mut w, &mut d, 1, 0x11);
    is_taken(&mut w, &mut d);
    let local = d.local.as_ref().unwrap();
    let scalar = key(0x61).danger_scalar().unwrap();
    for file in std::fs::read_dir(w.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for needle in [local.danger_master_secret(), scalar.as_slice()] {
            assert!(!bytes.windows(32).any(|b| b == needle));
        }
    }
    assert_ne!(key(1).public_x(), PublicX([0; 32]));
}
