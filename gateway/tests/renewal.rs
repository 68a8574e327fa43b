//! Runs of EDHOC on their way through a gateway, and what becomes of C2 contexts by them (docs/protocol.md 8.2, 10, 11).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;

use common::*;
use fivefold_core::e2_gateway::E2;
use fivefold_core::e5_renewal::{Announce, Initiator};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, GatewayGroup, Net, Sid};
use fivefold_core::profile::{Profile, Radio};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::wire::coap::{self, Message, Token, Type, number};
use fivefold_core::wire::control::Downlink as ControlMap;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_core::wire::ieee802154::Ack;
use fivefold_core::wire::mesh;
use fivefold_core::wire::state::{Added, NetworkKey, Phase, Share, Standing};
use fivefold_core::wire::tiny::{EdhocRule, KidLength, Tiny, Wants};
use fivefold_gateway::gateway::Setup;
use fivefold_keep::sign::AgreementKey;

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];
const M1: &[u8] = &[0xF5, 0x03, 0x02, 0x58, 0x20, 1, 2, 3];
/// A byte string, as message_2 and message_4 are.
const M4: &[u8] = &[0x48, 1, 2, 3, 4, 5, 6, 7, 8];

/// A message of EDHOC on the air.
fn edhoc(d: &mut Device, payload: &[u8]) -> Vec<u8> {
    let mut tiny = vec![0; payload.len() + 1];
    Tiny::Edhoc { rule: EdhocRule::ToServer, payload }.emit(&mut tiny).unwrap();
    d.on_air(&tiny)
}

fn answered(d: &mut Device, heard: &Heard) -> Vec<(EdhocRule, Vec<u8>)> {
    let tiny = heard.air.iter().filter_map(|frame| d.hear(frame));
    tiny.filter_map(|t| match Tiny::parse(&t, KidLength::None) {
        Ok(Tiny::Edhoc { rule, payload }) => Some((rule, payload.to_vec())),
        _ => None,
    })
    .collect()
}

/// A run that ends: the cloud hands the new context over, and message_4.
fn renew(w: &mut World, d: &mut Device, epoch: u16, version: u64) -> Heard {
    let frame = edhoc(d, &[M1, &[epoch as u8]].concat());
    let (ticket, _) = w.frame(&frame).exchanges.pop().unwrap();
    d.renew(epoch);
    w.exchanged(ticket, Some(&d.added(version)), Some((d.sid, M4)))
}

/// Sends a reading and gives what the gateway said to it.
fn send(w: &mut World, d: &mut Device) -> (Option<C2Said>, Heard) {
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    let said = heard.air.iter().filter_map(|f| d.hear(f)).next().map(|tiny| d.open_c2(&request, &tiny));
    (said, heard)
}

#[test]
fn a_message_of_edhoc_goes_to_the_cloud_at_once_unstored_and_its_answer_comes_back() {
    for profile in [Profile::ToCloud, Profile::ToGateway, Profile::ToBoth] {
        let mut d = Device::new(1, profile);
        let mut w = World::of(&[&d]);
        let frame = edhoc(&mut d, M1);
        let heard = w.frame(&frame);
        assert_eq!((heard.dropped.len(), heard.exchanges.len(), w.stored().len()), (0, 1, 0));
        let (ticket, bytes) = &heard.exchanges[0];
        let envelope = Envelope::parse(bytes).unwrap();
        assert_eq!((envelope.seq, envelope.kind, envelope.bytes), (*ticket, Kind::Edhoc, M1));
        assert_eq!(envelope.originator, Originator::Node { net: NET, sid: d.sid });
        let heard = w.exchanged(*ticket, None, Some((d.sid, M4)));
        assert_eq!(answered(&mut d, &heard), [(EdhocRule::ToClient, M4.to_vec())]);
        // An error is one by its first byte, and goes back as one.
        let frame = edhoc(&mut d, &[M1, &[9]].concat());
        let ticket = w.frame(&frame).exchanges[0].0;
        let heard = w.exchanged(ticket, None, Some((d.sid, &[2, 2])));
        assert_eq!(answered(&mut d, &heard), [(EdhocRule::Error, vec![2, 2])]);
    }
}

#[test]
fn a_repeat_on_its_way_a_stranger_and_a_flood_are_refused_and_counted() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let codes = |heard: &Heard| heard.dropped.iter().map(|(code, _)| *code).collect::<Vec<_>>();
    // As a relay brings it, of a device that nobody knows.
    let mesh = mesh::Header { hops: 3, originator: Sid(0x0a09), destination: Sid::ANY_GATEWAY };
    let mut frame = [0; 127];
    let tiny = [&[0x10], M1].concat();
    let len = d.link.seal(Sid::ANY_GATEWAY, Ack::None, Some(mesh), &tiny, &mut frame).unwrap();
    assert_eq!(codes(&w.frame(&frame[..len])), [Code::CloudUnknownKid]);
    let frame = edhoc(&mut d, M1);
    let ticket = w.frame(&frame).exchanges[0].0;
    let frame = edhoc(&mut d, M1);
    let heard = w.frame(&frame);
    assert_eq!((codes(&heard), heard.exchanges.len()), (vec![Code::CloudDuplicate], 0));
    // Nobody answers: the device's next attempt is passed on.
    w.gateway.handle_exchanged(ticket, None);
    let mut passed = 1;
    for _ in 0..20 {
        let frame = edhoc(&mut d, M1);
        let heard = w.frame(&frame);
        match heard.exchanges.first() {
            Some((ticket, _)) => {
                passed += 1;
                assert!(heard.air.is_empty());
                w.gateway.handle_exchanged(*ticket, None);
            }
            None => assert_eq!(codes(&heard), [Code::CloudLimitReached]),
        }
    }
    assert_eq!(passed, 12);
    w.wait(60_000);
    let frame = edhoc(&mut d, M1);
    assert_eq!(w.frame(&frame).exchanges.len(), 1);
}

#[test]
fn a_reply_for_somebody_else_or_about_something_else_is_not_passed_on() {
    let (mut d, other) = (Device::new(1, Profile::ToCloud), Device::new(2, Profile::ToCloud));
    let mut w = World::of(&[&d, &other]);
    let ask = |w: &mut World, d: &mut Device, n: u8| {
        let frame = edhoc(d, &[M1, &[n]].concat());
        w.frame(&frame).exchanges[0].0
    };
    let ticket = ask(&mut w, &mut d, 1);
    let heard = w.exchanged(ticket, None, Some((other.sid, M4)));
    assert_eq!((heard.air.len(), heard.dropped.len()), (0, 1));
    let ticket = ask(&mut w, &mut d, 2);
    w.gateway.handle_exchanged(ticket, Some(b"\x81\x01"));
    let heard = w.run();
    assert_eq!((heard.air.len(), heard.dropped[0].0), (0, Code::TinyMalformed));
    // Twice, or one that nobody asked for.
    assert_eq!(w.exchanged(ticket, None, Some((d.sid, M4))).air.len(), 0);
}

#[test]
fn a_context_is_durable_before_the_message_that_lets_the_device_use_it() {
    for fuse in 1..40 {
        let mut d = Device::new(1, Profile::ToGateway);
        let mut w = World::of(&[&d]);
        let frame = edhoc(&mut d, M1);
        let ticket = w.frame(&frame).exchanges[0].0;
        d.renew(2);
        w.fuse = Some(fuse);
        let heard = w.exchanged(ticket, Some(&d.added(2)), Some((d.sid, M4)));
        let told = !answered(&mut d, &heard).is_empty();
        let done = !w.dead();
        let mut w = w.restart();
        w.greet(&[&d]);
        if told {
            let (said, heard) = send(&mut w, &mut d);
            assert_eq!((heard.dropped, w.stored().len()), (vec![], 1), "fuse {fuse}");
            assert_eq!(said.unwrap().code, coap::CHANGED);
        }
        if done {
            assert!(told && fuse > 2);
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn what_is_older_than_the_state_or_of_another_network_is_refused_with_its_message() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    w.push(&state(7, &[&d], Standing::Active)).unwrap();
    let refused = |w: &mut World, d: &mut Device, n: u8, added: &[u8]| {
        let frame = edhoc(d, &[M1, &[n]].concat());
        let ticket = w.frame(&frame).exchanges[0].0;
        let heard = w.exchanged(ticket, Some(added), Some((d.sid, M4)));
        assert!(heard.air.is_empty(), "message_4 went out without its context");
        heard.dropped[0].0
    };
    let active = d.added(7);
    d.renew(2);
    let (old, good) = (d.added(7), d.added(9));
    assert_eq!(refused(&mut w, &mut d, 1, &old), Code::ChannelSequence);
    assert_eq!(refused(&mut w, &mut d, 2, &good[..good.len() - 1]), Code::ChannelSequence);
    let mut foreign = vec![0; Added::LONGEST];
    let len = Added { net: Net(8), ..Added::parse(&good).unwrap() }.emit(&mut foreign).unwrap();
    assert_eq!(refused(&mut w, &mut d, 3, &foreign[..len]), Code::ChannelWrongNet);
    // One that the state has already is no attack: the state was faster.
    let frame = edhoc(&mut d, &[M1, &[4]].concat());
    let ticket = w.frame(&frame).exchanges[0].0;
    let heard = w.exchanged(ticket, Some(&active), Some((d.sid, M4)));
    assert_eq!((heard.air.len(), heard.dropped.len()), (1, 0));
    // A newer one takes, and after it an older one of the same epoch does not.
    assert_eq!(renew(&mut w, &mut d, 2, 9).air.len(), 1);
    d.renew(2);
    let mut other = Device::new(1, Profile::ToGateway);
    other.renew(3);
    other.renewed = Some(Epoch(2));
    let forged = other.added(8);
    assert_eq!(refused(&mut w, &mut d, 5, &forged), Code::ChannelSequence);
}

#[test]
fn a_context_under_another_name_is_refused_and_no_counter_begins_anew() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    let answer = d.hear(&heard.air[0]).unwrap();
    assert!(!d.open_c2(&request, &answer).numbered);
    let installed = d.added(9);
    let installed = Added::parse(&installed).unwrap();
    let part = d.root.secret(GROUP).context_for_peer(d.sid, d.epoch(), None, d.policy.alg).unwrap().receive_part();
    let (mut twin, mut next) = (Device::new(1, Profile::ToGateway), Device::new(1, Profile::ToGateway));
    twin.renew(2);
    twin.renewed = Some(Epoch(1));
    next.renew(2);
    let (twin, next) = (twin.added(9), next.added(9));
    let [twin, next] = [&twin, &next].map(|bytes| Added::parse(bytes).unwrap());
    let receive = Share::Secondary { device_key: part.danger_recipient_key(), common_iv: part.common_iv() };
    let role = fivefold_core::wire::state::Context { share: receive, ..installed.context };
    let foreign = GatewayGroup(GROUP.0 + 1);
    let refused = [
        // The same keys in another group: its sender numbers would be used twice, its messages taken twice.
        Added { group: foreign, ..installed },
        Added { group: foreign, ..next },
        // Another context under an epoch that is taken, and the same one in another role.
        twin,
        Added { context: role, ..installed },
    ];
    for restarted in [false, true] {
        if restarted {
            w = w.restart();
            w.greet(&[&d]);
        }
        for (n, added) in refused.iter().enumerate() {
            let mut bytes = vec![0; Added::LONGEST];
            let len = added.emit(&mut bytes).unwrap();
            let frame = edhoc(&mut d, &[M1, &[n as u8]].concat());
            let ticket = w.frame(&frame).exchanges[0].0;
            let heard = w.exchanged(ticket, Some(&bytes[..len]), Some((d.sid, M4)));
            assert_eq!((heard.air.len(), heard.dropped), (0, vec![(Code::ChannelSequence, Some(d.sid))]), "{n}");
        }
        let db = rusqlite::Connection::open(w.path()).unwrap();
        assert_eq!(db.query_row("SELECT count(*) FROM added", [], |r| r.get::<_, i64>(0)).unwrap(), 0);
        // The same message once more is a repeat still, and answered under a number.
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        assert_eq!(w.stored().len(), 1);
        let answer = d.hear(&heard.air[0]).unwrap();
        assert!(d.open_c2(&request, &answer).numbered);
    }
    // The context itself once more is no other: it is taken, and its counters go on.
    let mut bytes = vec![0; Added::LONGEST];
    let len = installed.emit(&mut bytes).unwrap();
    let frame = edhoc(&mut d, &[M1, &[9]].concat());
    let ticket = w.frame(&frame).exchanges[0].0;
    assert_eq!(w.exchanged(ticket, Some(&bytes[..len]), Some((d.sid, M4))).dropped, []);
    let frame = d.on_air(&tiny);
    w.frame(&frame);
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn the_first_message_under_a_new_context_ends_answers_under_the_old_one_also_after_a_restart() {
    for restarted in [false, true] {
        let mut d = Device::new(1, Profile::ToGateway);
        let mut w = World::of(&[&d]);
        let (before, request) = d.tiny(READING, Wants::Answer);
        let (late, _) = d.tiny(READING, Wants::Answer);
        let mut old = Device::new(1, Profile::ToGateway);
        let frame = d.on_air(&before);
        let heard = w.frame(&frame);
        assert_eq!(old.open_c2(&request, &d.hear(&heard.air[0]).unwrap()).code, coap::CHANGED);
        old.next = 2;
        // Until the new one is seen in use, the old one is answered: make before break.
        renew(&mut w, &mut d, 2, 2);
        let (tiny, request) = old.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        assert_eq!(old.open_c2(&request, &d.hear(&heard.air[0]).unwrap()).code, coap::CHANGED);
        let (said, _) = send(&mut w, &mut d);
        assert_eq!(said.unwrap().code, coap::CHANGED);
        if restarted {
            w = w.restart();
            w.greet(&[&d]);
        }
        let frame = d.on_air(&late);
        let heard = w.frame(&frame);
        assert_eq!((heard.air.len(), heard.dropped.len(), w.stored().len()), (0, 0, 4), "taken, and not answered");
        // The same once more: no answer either, and it is what item 10 confirms under the new context.
        let frame = d.on_air(&late);
        assert_eq!(w.frame(&frame).air.len(), 0);
        let (said, _) = send(&mut w, &mut d);
        let payload = said.unwrap().payload;
        let earlier = ControlMap::parse(&payload).unwrap().earlier.unwrap();
        assert!((0..3).all(|piv| earlier.covers(Epoch(1), piv)) && !earlier.covers(Epoch(1), 3));
        // Once is enough, until there is something new.
        let (said, _) = send(&mut w, &mut d);
        assert_eq!(ControlMap::parse(&said.unwrap().payload).unwrap().earlier, None);
        // What the cloud pushes meanwhile says less than what was heard here: it changes nothing.
        let secrets = [Device::new(1, Profile::ToGateway).root.secret(GROUP), d.root.secret(GROUP)];
        let [first, second] = [Epoch(1), Epoch(2)].map(|epoch| {
            let s = &secrets[usize::from(epoch.0) - 1];
            let share = Share::Primary { master_secret: s.danger_master_secret(), master_salt: s.master_salt() };
            let standing = if epoch == Epoch(1) { Standing::Active } else { Standing::Pending };
            fivefold_core::wire::state::Context { epoch, ..d.pushed(standing, share) }
        });
        let listed = listed(&d);
        w.push(&emit_state(3, &[listed], &[first, second], &keys(), &[])).unwrap();
        let (tiny, _) = old.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).air.len(), 0);
        assert_eq!(send(&mut w, &mut d).0.unwrap().code, coap::CHANGED);
    }
}

fn listed(d: &Device) -> fivefold_core::wire::state::Device {
    fivefold_core::wire::state::Device { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides }
}

fn keys() -> [NetworkKey<'static>; 1] {
    [NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }]
}

#[test]
fn a_state_from_before_a_run_keeps_its_context_and_one_from_after_it_decides() {
    let mut d = Device::new(1, Profile::ToGateway);
    let before = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    renew(&mut w, &mut d, 2, 10);
    // Built before the context was durable at the cloud, and slower.
    w.push(&state(9, &[&before], Standing::Active)).unwrap();
    assert_eq!(send(&mut w, &mut d).1.dropped, []);
    let mut w = w.restart();
    w.greet(&[&d]);
    assert_eq!(send(&mut w, &mut d).1.dropped, []);
    // Built after it: the cloud let go of it.
    w.push(&state(11, &[&before], Standing::Active)).unwrap();
    assert_eq!(send(&mut w, &mut d).1.dropped[0].0, Code::GatewayForged);
    let mut w = w.restart();
    w.greet(&[&d]);
    assert_eq!(send(&mut w, &mut d).1.dropped[0].0, Code::GatewayForged);
}

#[test]
fn pending_contexts_below_the_one_in_use_drain_and_those_above_stay() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let mut generations = Vec::new();
    for epoch in 2..=9 {
        renew(&mut w, &mut d, epoch, u64::from(epoch));
        let mut copy = Device::new(1, Profile::ToGateway);
        copy.renew(epoch);
        generations.push(copy);
    }
    // All eight are tried: whichever message_4 arrived last, the device can speak.
    let speak = |w: &mut World, d: &mut Device, g: &mut Device| {
        let (tiny, _) = g.tiny(READING, Wants::Nothing);
        let frame = d.on_air(&tiny);
        w.frame(&frame).dropped.first().map(|(code, _)| *code)
    };
    let [.., five, six] = &mut generations[..5] else { panic!() };
    assert_eq!(speak(&mut w, &mut d, five), None);
    assert_eq!(speak(&mut w, &mut d, six), None);
    // What the device had sent under one before, and nobody heard, is taken still; and answered no more.
    assert_eq!(speak(&mut w, &mut d, &mut generations[0]), None);
    let (tiny, _) = generations[1].tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    assert_eq!(w.frame(&frame).air.len(), 0);
    assert_eq!(speak(&mut w, &mut d, &mut generations[7]), None);
    let (tiny, _) = generations[6].tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    assert_eq!((w.frame(&frame).air.len(), w.stored().len()), (0, 6));
}

#[test]
fn a_secondary_gateway_opens_what_is_new_and_answers_nothing() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let frame = edhoc(&mut d, M1);
    let ticket = w.frame(&frame).exchanges[0].0;
    d.renew(2);
    let part = d.root.secret(GROUP).context_for_peer(d.sid, d.epoch(), None, d.policy.alg).unwrap().receive_part();
    let share = Share::Secondary { device_key: part.danger_recipient_key(), common_iv: part.common_iv() };
    let added = emit_added(2, d.pushed(Standing::Pending, share));
    assert_eq!(w.exchanged(ticket, Some(&added), Some((d.sid, M4))).air.len(), 1);
    let (said, heard) = send(&mut w, &mut d);
    assert_eq!((said, heard.dropped, w.stored().len()), (None, vec![], 1));
}

#[test]
fn a_context_that_comes_back_is_opened_and_never_answered_again() {
    for restarted in [false, true] {
        let mut d = Device::new(1, Profile::ToGateway);
        let mut w = World::of(&[&d]);
        let (tiny, _) = d.tiny(READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).air.len(), 1);
        let mut newer = Device::new(1, Profile::ToGateway);
        newer.renew(2);
        w.push(&state(2, &[&newer], Standing::Active)).unwrap();
        w.run();
        // The cloud was put back from a copy of before.
        w.push(&state(3, &[&d], Standing::Active)).unwrap();
        w.run();
        if restarted {
            w = w.restart();
            w.greet(&[&d]);
        }
        let (next, _) = d.tiny(READING, Wants::Answer);
        for tiny in [&tiny, &next] {
            let frame = d.on_air(tiny);
            let heard = w.frame(&frame);
            assert_eq!((heard.air.len(), heard.dropped), (0, vec![]), "taken, and not answered");
        }
        assert_eq!(w.stored().len(), 3);
    }
}

#[test]
fn what_a_gateway_was_handed_is_nowhere_in_the_clear_and_is_erased_with_its_context() {
    let mut d = Device::new(1, Profile::ToGateway);
    let before = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    renew(&mut w, &mut d, 2, 2);
    send(&mut w, &mut d);
    let secret = d.root.secret(GROUP);
    let root = *d.root.danger_bytes();
    let rows = |w: &World| -> (i64, i64) {
        let db = rusqlite::Connection::open(w.path()).unwrap();
        let count = |sql: &str| db.query_row(sql, [], |r| r.get(0)).unwrap();
        (count("SELECT count(*) FROM added"), count("SELECT count(DISTINCT context) FROM numbers"))
    };
    for file in std::fs::read_dir(w.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for needle in [secret.danger_master_secret().as_slice(), &root] {
            assert!(!bytes.windows(32).any(|b| b == needle));
        }
    }
    assert_eq!(rows(&w), (1, 1));
    w.push(&state(3, &[&before], Standing::Active)).unwrap();
    assert_eq!(rows(&w), (0, 0));
}

#[test]
fn the_operators_order_reaches_a_device_whose_messages_end_here_a_few_a_minute() {
    let mut devices: Vec<_> = (1..=40).map(|n| Device::new(n, Profile::ToGateway)).collect();
    let mut w = World::of(&devices.iter().collect::<Vec<_>>());
    let order = |version, devices: &[Device]| state(version, &devices.iter().collect::<Vec<_>>(), Standing::Due);
    w.push(&order(2, &devices)).unwrap();
    let told = |w: &mut World, d: &mut Device| {
        let said = send(w, d).0.unwrap();
        if said.payload.is_empty() { None } else { ControlMap::parse(&said.payload).unwrap().renew }
    };
    let first: Vec<_> = devices.iter_mut().filter_map(|d| told(&mut w, d)).collect();
    assert_eq!(first, [5; 30]);
    w.wait(60_000);
    assert_eq!(devices.iter_mut().filter_map(|d| told(&mut w, d)).count(), 10, "the rest; the others are about it");
    w.push(&order(3, &devices)).unwrap();
    assert_eq!(devices.iter_mut().filter_map(|d| told(&mut w, d)).count(), 0, "the same order once more is no news");
    w.wait(300_000);
    // Whoever has renewed is not told again, whoever has not is.
    let d = &mut devices[0];
    renew(&mut w, d, 2, 4);
    assert_eq!(told(&mut w, d), None);
    assert_eq!(told(&mut w, &mut devices[1]), Some(5));
    w.push(&state(5, &devices[2..].iter().collect::<Vec<_>>(), Standing::Active)).unwrap();
    assert_eq!(told(&mut w, &mut devices[2]), None, "the order was taken back");
}

// CoAP.

fn client() -> SocketAddr {
    "127.0.0.9:40001".parse().unwrap()
}

fn ip(n: u8) -> Device {
    let mut d = Device::new(n, Profile::ToCloud);
    d.policy.radio = Radio::Ip;
    d.overrides.danger_no_link = true;
    d
}

fn post(kind: Type, path: [&[u8]; 2], extra: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut options = [0; 64];
    let mut at = coap::emit_option(&mut options, 0, number::URI_PATH, path[0]).unwrap();
    at += coap::emit_option(&mut options[at..], number::URI_PATH, number::URI_PATH, path[1]).unwrap();
    at += coap::emit_option(&mut options[at..], number::URI_PATH, number::CONTENT_FORMAT, &[65]).unwrap();
    if let Some(extra) = extra {
        at += coap::emit_option(&mut options[at..], number::CONTENT_FORMAT, extra, &[]).unwrap();
    }
    let token = Token::new(&[0xAA, 0xBB]).unwrap();
    let message = Message { kind, code: coap::POST, message_id: 77, token, options: &options[..at], payload };
    let mut out = vec![0; message.emitted_len()];
    message.emit(&mut out).unwrap();
    out
}

const PATH: [&[u8]; 2] = [b".well-known", b"edhoc"];

fn offer(sid: Sid, announce: Announce) -> Vec<u8> {
    let ephemeral = AgreementKey::from_random(&[7; 32]).unwrap();
    let (_, m1) = Initiator::<E2, _>::offer(ephemeral, sid, Epoch(2), announce).unwrap();
    m1.as_bytes().to_vec()
}

#[test]
fn a_device_over_ip_says_who_it_is_and_is_answered_with_its_token() {
    let d = ip(1);
    let mut w = World::of(&[&d]);
    let heard = w.coap(client(), &post(Type::Con, PATH, None, &offer(d.sid, Announce::Sid)));
    assert_eq!((heard.dropped.len(), heard.udp.len()), (0, 0));
    let (ticket, bytes) = &heard.exchanges[0];
    assert_eq!(Envelope::parse(bytes).unwrap().originator, Originator::Node { net: NET, sid: d.sid });
    let heard = w.exchanged(*ticket, None, Some((d.sid, M4)));
    let answer = Message::parse(&heard.udp[0].1).unwrap();
    assert_eq!((answer.kind, answer.code, answer.message_id), (Type::Ack, coap::CHANGED, 77));
    assert_eq!((answer.token.as_bytes(), answer.payload), (&[0xAA, 0xBB][..], M4));
    assert_eq!(answer.options().collect::<Vec<_>>(), [(number::CONTENT_FORMAT, &[64][..])]);
    // message_3 names the device by C_R.
    let proof = [&[0x42], &d.sid.to_bytes()[..], &[0x41, 9]].concat();
    let heard = w.coap(client(), &post(Type::Non, PATH, None, &proof));
    let ticket = heard.exchanges[0].0;
    let heard = w.exchanged(ticket, None, Some((d.sid, &[1, 0x60])));
    let answer = Message::parse(&heard.udp[0].1).unwrap();
    assert_eq!((answer.kind, answer.code), (Type::Non, coap::BAD_REQUEST));
}

#[test]
fn who_says_nothing_is_known_by_address_or_refused() {
    fn listed(boot: GatewayBoot) -> Setup {
        Setup { coap_devices: HashMap::from([(client().ip(), Sid(0x0a01))]), ..setup(boot) }
    }
    let d = ip(1);
    let silent = post(Type::Con, PATH, None, &offer(d.sid, Announce::Nothing));
    let mut w = World::of(&[&d]);
    assert_eq!(w.coap(client(), &silent).dropped[0].0, Code::CloudUnknownKid);
    let mut w = World::with(listed);
    w.push(&state(1, &[&d], Standing::Active)).unwrap();
    assert_eq!(w.coap(client(), &silent).exchanges.len(), 1);
    assert_eq!(w.coap("127.0.0.8:40001".parse().unwrap(), &silent).dropped[0].0, Code::CloudUnknownKid);
}

#[test]
fn edhoc_over_ip_is_for_devices_whose_record_says_ip_and_takes_no_unknown_option() {
    let (radio, d) = (Device::new(2, Profile::ToBoth), ip(1));
    let mut w = World::of(&[&d, &radio]);
    let mut dropped = |message: &[u8]| w.coap(client(), message).dropped.first().map(|(code, _)| *code);
    let of = |sid| offer(sid, Announce::Sid);
    assert_eq!(dropped(&post(Type::Con, PATH, None, &of(radio.sid))), Some(Code::GatewayLevelMissing));
    assert_eq!(dropped(&post(Type::Con, PATH, None, &of(Sid(9)))), Some(Code::CloudUnknownKid));
    assert_eq!(dropped(&post(Type::Con, PATH, Some(27), &of(d.sid))), Some(Code::TinyMalformed));
    assert_eq!(dropped(&post(Type::Con, [b".well-known", b"core"], None, &of(d.sid))), Some(Code::TinyMalformed));
    assert_eq!(dropped(&post(Type::Con, PATH, None, &[0xF5, 0x02])), Some(Code::RenewalSuite));
    assert_eq!(dropped(&post(Type::Con, PATH, None, &of(d.sid))), None);
}
