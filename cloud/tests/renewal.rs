//! The cloud's table of docs/protocol.md 11, row by row, with core's own device as the other side; codes E5-01 to E5-09.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::runs::*;
use common::*;
use fivefold_cloud::book::ContextState;
use fivefold_cloud::cloud::Outcome;
use fivefold_cloud::store::Standing;
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Announce, Credential, ErrorMessage, Initiator};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Net, Sid};
use fivefold_core::profile::{KeyIndexes, LinkClass, Mode, Profile, Radio};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap;
use fivefold_core::wire::control::{Downlink as ControlMap, Uplink};
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_keep::registry::{FirstContexts, Renewal, Rotation};
use fivefold_keep::sign::AgreementKey;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn world_of(profile: Profile) -> World {
    let mut d = device(0x0a17, profile, Mode::Persistent);
    d.policy.pq_mix = true;
    World::renewing(vec![d.clone()], vec![renewal(&d)])
}

fn world() -> World {
    world_of(Profile::ToCloud)
}

fn contexts(w: &World) -> Vec<(u16, Standing)> {
    let device = w.cloud.book().by_did.get(&w.source.devices[0].did).cloned().unwrap();
    device.contexts().iter().map(|c: &ContextState| (c.epoch.0, c.standing)).collect()
}

fn answered(w: &mut World, node: &mut Node) -> bool {
    let sent = node.send(READING);
    let reply = w.post(&[sent.envelope()]);
    assert!(reply.refused.is_empty(), "{:?}", reply.refused);
    reply.answers.first().is_some_and(|a| node.open(&sent, a).0 == coap::CHANGED)
}

#[test]
fn both_keys_are_good_until_the_first_message_under_the_new_one() {
    let mut w = world();
    let mut old = Node::of(&w.source.devices[0]);
    assert!(answered(&mut w, &mut old));
    let mut new = renew(&mut w, 2);
    assert_eq!(contexts(&w), [(2, Standing::Pending), (1, Standing::Active)]);
    // Make before break: the old one is answered, also over a restart.
    assert!(answered(&mut w, &mut old));
    let mut w = w.restart();
    assert!(answered(&mut w, &mut old));
    assert!(answered(&mut w, &mut new));
    assert_eq!(contexts(&w), [(2, Standing::Active), (1, Standing::Draining)]);
    // Late messages are taken and never answered, whatever the cloud went through.
    for _ in 0..2 {
        assert!(!answered(&mut w, &mut old));
        assert!(answered(&mut w, &mut new));
        w = w.restart();
    }
    assert_eq!(w.readings().len(), 8);
    assert!(w.counts().is_empty());
}

#[test]
fn what_came_late_is_confirmed_under_the_new_context() {
    let mut w = world();
    let mut old = Node::of(&w.source.devices[0]);
    let (first, second, third) = (old.send(READING), old.send(READING), old.send(READING));
    w.post(&[first.envelope()]);
    let mut new = renew(&mut w, 2);
    assert!(answered(&mut w, &mut new));
    w.post(&[third.envelope()]);
    let earlier = |w: &mut World, new: &mut Node| {
        let sent = new.send(READING);
        let reply = w.post(&[sent.envelope()]);
        let (_, payload, _) = new.open(&sent, &reply.answers[0]);
        let covers = |e: fivefold_core::wire::control::Earlier<'_>| [0, 1, 2].map(|piv| e.covers(Epoch(1), piv));
        if payload.is_empty() { None } else { ControlMap::parse(&payload).unwrap().earlier.map(covers) }
    };
    assert_eq!(earlier(&mut w, &mut new), Some([true, false, true]));
    assert_eq!(earlier(&mut w, &mut new), None, "once, until something comes");
    // Its answer was lost: the same once more, after a restart, is confirmed once more.
    w = w.restart();
    w.post(&[first.envelope(), second.envelope()]);
    assert_eq!(earlier(&mut w, &mut new), Some([true, true, true]));
    assert_eq!(w.readings().len(), 7);
}

#[test]
fn a_repeated_message_is_answered_with_the_same_bytes_also_after_a_restart() {
    let mut w = world();
    let d = w.source.devices[0].clone();
    let run = offer(0x0a17, 2, 0);
    let m2 = ask(&w, 0x0a17, run.message.as_bytes()).message();
    assert_eq!(ask(&w, 0x0a17, run.message.as_bytes()).message(), m2);
    let run = run.take(&m2);
    let Said::Agreed(agreement) = ask(&w, 0x0a17, run.message.as_bytes()) else { panic!() };
    // While the first is being written, nothing goes out: it is not durable.
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    let m4 = conclude(&mut w, &agreement);
    drop(agreement);
    assert_eq!(ask(&w, 0x0a17, run.message.as_bytes()).message(), m4);
    let mut w = w.restart();
    assert_eq!(ask(&w, 0x0a17, run.message.as_bytes()).message(), m4);
    assert!(w.counts().is_empty());
    // In use: whoever repeats it now has its answer already.
    let m3 = run.message;
    let mut new = run.end(&m4, &d);
    assert!(answered(&mut w, &mut new));
    assert!(matches!(ask(&w, 0x0a17, m3.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalLate), 1);
}

#[test]
fn a_crash_before_the_commit_spends_the_epoch_and_the_next_run_goes_through() {
    let mut w = world();
    let run = proof(&w, 2, 0);
    let Said::Agreed(agreement) = ask(&w, 0x0a17, run.message.as_bytes()) else { panic!() };
    // Noted in the book; then the power went.
    let (did, epoch) = agreement.noted();
    drop(agreement);
    w.source.renewals.iter_mut().find(|r| r.did == did).unwrap().highest = epoch;
    let mut w = w.restart();
    assert_eq!(contexts(&w), [(1, Standing::Active)]);
    // The run is gone: nobody answers, and that is no attack.
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalLate), 1);
    // Another run with the same epoch is none of this device's.
    let again = proof(&w, 2, 1);
    assert!(matches!(ask(&w, 0x0a17, again.message.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalEpochNotGreater), 1);
    let mut old = Node::of(&w.source.devices[0]);
    assert!(answered(&mut w, &mut old));
    let mut new = renew(&mut w, 3);
    assert!(answered(&mut w, &mut new));
}

#[test]
fn a_crash_between_the_commit_and_message_4_loses_nothing() {
    let w = world();
    let d = w.source.devices[0].clone();
    let run = proof(&w, 2, 0);
    let Said::Agreed(agreement) = ask(&w, 0x0a17, run.message.as_bytes()) else { panic!() };
    let write = agreement.write(w.vault.as_ref().unwrap()).unwrap();
    w.cloud.memory().store().commit_now(write).unwrap();
    drop(agreement);
    let mut w = w.restart();
    assert_eq!(contexts(&w), [(2, Standing::Pending), (1, Standing::Active)]);
    let m4 = ask(&w, 0x0a17, run.message.as_bytes()).message();
    let mut new = run.end(&m4, &d);
    assert!(answered(&mut w, &mut new));
}

#[test]
fn eight_contexts_wait_and_the_ninth_takes_the_place_of_the_lowest() {
    let mut w = world();
    let mut nodes = Vec::new();
    for epoch in 2..=10 {
        w.now = w.now.plus(HOUR);
        nodes.push(renew(&mut w, epoch));
    }
    let pending = |w: &World| contexts(w).iter().filter(|c| c.1 == Standing::Pending).map(|c| c.0).collect::<Vec<_>>();
    assert_eq!(pending(&w), [10, 9, 8, 7, 6, 5, 4, 3]);
    w = w.restart();
    assert_eq!(pending(&w), [10, 9, 8, 7, 6, 5, 4, 3]);
    // Whichever message_4 arrived: all are tried. Lower ones drain from the first message on, higher ones stay.
    let mut fourth = nodes.remove(3);
    assert!(answered(&mut w, &mut fourth));
    let pending = [10, 9, 8, 7, 6].map(|e| (e, Standing::Pending));
    let draining = [4, 3, 1].map(|e| (e, Standing::Draining));
    let expected = [&pending[..], &[(5, Standing::Active)], &draining].concat();
    assert_eq!(contexts(&w), expected);
    w = w.restart();
    assert_eq!(contexts(&w), expected);
    // What was sent under one of them, and not heard then, is taken and not answered.
    let mut third = nodes.remove(2);
    assert!(!answered(&mut w, &mut third));
    let mut evicted = nodes.remove(0);
    let sent = evicted.send(READING);
    assert_eq!(w.post(&[sent.envelope()]).refused[0].1, Code::CloudForged);
    let mut last = nodes.pop().unwrap();
    assert!(answered(&mut w, &mut last));
    // Eight drain, and the lowest goes with the ninth.
    let expected = |newest: u16, others: [u16; 8]| {
        [&[(newest, Standing::Active)][..], &others.map(|e| (e, Standing::Draining))].concat()
    };
    assert_eq!(contexts(&w), expected(10, [9, 8, 7, 6, 5, 4, 3, 1]));
    w.now = w.now.plus(HOUR);
    let mut next = renew(&mut w, 11);
    assert!(answered(&mut w, &mut next));
    assert_eq!(contexts(&w), expected(11, [10, 9, 8, 7, 6, 5, 4, 3]));
    w = w.restart();
    assert_eq!(contexts(&w), expected(11, [10, 9, 8, 7, 6, 5, 4, 3]));
    assert!(!answered(&mut w, &mut third));
}

#[test]
fn e5_06_and_e5_09_a_late_message_is_told_from_a_device_that_lost_its_state() {
    let mut w = world();
    // A run is abandoned before message_3 is sent, and a later one ends; then the first message_3 arrives.
    let late = proof(&w, 2, 0);
    renew(&mut w, 3);
    assert!(matches!(ask(&w, 0x0a17, late.message.as_bytes()), Said::Nothing));
    assert_eq!((w.count(Code::RenewalLate), w.count(Code::RenewalEpochNotGreater)), (1, 0));
    // Somebody with the device's key begins after that, with an epoch that is not greater.
    for (n, epoch) in [2, 3].into_iter().enumerate() {
        let clone = proof(&w, epoch, 1);
        assert!(matches!(ask(&w, 0x0a17, clone.message.as_bytes()), Said::Nothing));
        assert_eq!(w.count(Code::RenewalEpochNotGreater), 1 + n as u64);
    }
    assert_eq!(contexts(&w), [(3, Standing::Pending), (1, Standing::Active)]);
    w.now = w.now.plus(HOUR);
    renew(&mut w, 4);
}

#[test]
fn enrolling_again_ends_the_runs_of_before() {
    let mut w = world();
    let run = proof(&w, 2, 0);
    let again = w.enrol_again(0x0a17);
    assert_eq!(again.epoch, Epoch(2));
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    assert_eq!((w.count(Code::RenewalLate), w.counts().len()), (1, 1));
    assert_eq!(contexts(&w), [(2, Standing::Pending), (1, Standing::Active)]);
    renew(&mut w, 3);
}

#[test]
fn e5_01_six_runs_an_hour_begin_for_a_device_and_sixty_a_minute_by_a_gateway() {
    let mut w = world();
    for epoch in 2..8 {
        ask(&w, 0x0a17, offer(0x0a17, epoch, 0).message.as_bytes()).message();
    }
    assert!(matches!(ask(&w, 0x0a17, offer(0x0a17, 8, 0).message.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalRate), 1);
    // A repeat begins nothing.
    ask(&w, 0x0a17, offer(0x0a17, 7, 0).message.as_bytes()).message();
    w.now = w.now.plus(HOUR);
    ask(&w, 0x0a17, offer(0x0a17, 8, 0).message.as_bytes()).message();

    let devices: Vec<_> = (1..=70).map(|n| device(0x0b00 + n, Profile::ToCloud, Mode::Persistent)).collect();
    let renewals = devices.iter().map(renewal).collect();
    let mut w = World::renewing(devices, renewals);
    let begins = |w: &World, by: &Gateway, sid: u16, nonce| {
        matches!(ask_by(w, by, sid, offer(sid, 2, nonce).message.as_bytes()), Said::Message(_))
    };
    let begun = (1..=70).filter(|n| begins(&w, &w.gateway, 0x0b00 + n, 0)).count();
    assert_eq!((begun, w.count(Code::RenewalRate)), (60, 10));
    assert!(begins(&w, &w.second, 0x0b46, 0), "another gateway has a rate of its own");
    w.now = w.now.plus(60_000);
    assert!(begins(&w, &w.gateway, 0x0b45, 1));
}

#[test]
fn e5_02_what_was_changed_on_the_way_is_refused_and_the_run_goes_on() {
    let mut w = world();
    let d = w.source.devices[0].clone();
    let run = proof(&w, 2, 0);
    let m3 = run.message.as_bytes().to_vec();
    let mut refused = 0;
    // The first three bytes name the device.
    for at in 3..m3.len() {
        let mut changed = m3.clone();
        changed[at] ^= 1;
        assert!(matches!(ask(&w, 0x0a17, &changed), Said::Nothing), "byte {at}");
        refused += 1;
        assert!(matches!(ask(&w, 0x0a17, &m3[..at]), Said::Nothing), "cut at {at}");
        refused += 1;
    }
    // An error that nobody vouches for ends nothing.
    let error = [&[0x42, 0x0a, 0x17], ErrorMessage::WrongSuite.to_message().as_bytes()].concat();
    for nothing in [&error[..], b"", b"\xF5", b"\xF5\x03\x02\x41\x00\x05", b"\x01", b"\xFF\xFF"] {
        assert!(matches!(ask(&w, 0x0a17, nothing), Said::Nothing));
        refused += 1;
    }
    assert_eq!((w.count(Code::RenewalForged), w.counts().len()), (refused, 1));
    let Said::Agreed(agreement) = ask(&w, 0x0a17, &m3) else { panic!("the right one still counts") };
    let m4 = conclude(&mut w, &agreement);
    run.end(&m4, &d);
    // A point that is none.
    let mut off_curve = offer(0x0a17, 3, 0).message.as_bytes().to_vec();
    while AgreementKey::from_random(&[1; 32]).unwrap().agree(&PublicX(off_curve[5..37].try_into().unwrap())).is_ok() {
        off_curve[36] = off_curve[36].wrapping_add(1);
    }
    assert!(matches!(ask(&w, 0x0a17, &off_curve), Said::Nothing));
    assert_eq!(w.count(Code::RenewalForged), refused + 1);
}

#[test]
fn e5_03_who_is_not_known_not_this_device_or_revoked_is_refused() {
    let mut devices: Vec<_> = [0x0a17, 0x0a18, 0x0a19].map(|n| device(n, Profile::ToCloud, Mode::Persistent)).into();
    devices[2].revoked_at = Some(1);
    let mut renewals: Vec<_> = devices.iter().map(renewal).collect();
    renewals.sort_by_key(|r| r.did);
    let keyless = device(0x0a20, Profile::ToCloud, Mode::Persistent);
    devices.push(keyless);
    let w = World::renewing(devices, renewals);
    let mut expected = 0;
    let mut refused = |w: &World, sid: u16, payload: &[u8]| {
        assert!(matches!(ask(w, sid, payload), Said::Nothing));
        expected += 1;
        assert_eq!((w.count(Code::RenewalUnknownCredential), w.counts().len()), (expected, 1));
    };
    for sid in [0x0a18 + 7, 0x0a19, 0x0a20] {
        refused(&w, sid, offer(sid, 2, 0).message.as_bytes());
    }
    // message_1 that announces another device than the gateway names.
    let ephemeral = AgreementKey::from_random(&[3; 32]).unwrap();
    let (_, announced) = Initiator::<E3, _>::offer(ephemeral, Sid(0x0a18), Epoch(2), Announce::Sid).unwrap();
    refused(&w, 0x0a17, announced.as_bytes());
    // C_R of another device.
    let run = offer(0x0a17, 2, 0);
    let m2 = ask(&w, 0x0a17, run.message.as_bytes()).message();
    let run = run.take(&m2);
    refused(&w, 0x0a18, run.message.as_bytes());
    // Another device's credential, with that device's own key.
    let run = offer(0x0a17, 3, 0);
    let m2 = ask(&w, 0x0a17, run.message.as_bytes()).message();
    let key = scalar(0x0a18);
    let run = run.take_as(&m2, &key, &Credential::device(Sid(0x0a18), key.public_x()));
    refused(&w, 0x0a17, run.message.as_bytes());
    // The right name over another key.
    let run = offer(0x0a17, 4, 0);
    let m2 = ask(&w, 0x0a17, run.message.as_bytes()).message();
    let run = run.take_as(&m2, &key, &Credential::device(Sid(0x0a17), key.public_x()));
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalForged), 1);
}

#[test]
fn e5_04_another_suite_or_method_is_told_so_and_nothing_else_is_ever_said() {
    let w = world();
    let m1 = offer(0x0a17, 2, 0).message.as_bytes().to_vec();
    for (at, value) in [(1, 0), (2, 0x03)] {
        let mut other = m1.clone();
        other[at] = value;
        let said = ask(&w, 0x0a17, &other).message();
        assert_eq!(ErrorMessage::parse(&said), Ok(ErrorMessage::WrongSuite));
    }
    // C_I that is no epoch: a byte string of three.
    let mut other = m1.clone();
    other.truncate(37);
    other.extend_from_slice(&[0x43, 1, 2, 3]);
    ask(&w, 0x0a17, &other).message();
    assert_eq!(w.count(Code::RenewalSuite), 3);
}

#[test]
fn e5_07_a_renewal_that_is_overdue_is_counted_once_a_day() {
    let mut w = world();
    let tick = |w: &mut World, days: u64| {
        w.now = NOW.plus(days * DAY);
        let write = w.cloud.handle_timeout(w.now);
        w.cloud.memory().store().commit_now(write).unwrap();
        w.count(Code::RenewalOverdue)
    };
    assert_eq!(tick(&mut w, 45), 0);
    assert_eq!(tick(&mut w, 46), 1);
    assert_eq!(tick(&mut w, 46), 1);
    assert_eq!(tick(&mut w, 47), 2);
    let mut new = renew(&mut w, 2);
    assert!(answered(&mut w, &mut new));
    assert_eq!(tick(&mut w, 48), 2);
}

#[test]
fn a_device_is_told_to_renew_by_age_and_by_the_operator_until_it_has() {
    let mut w = world();
    let told = |w: &mut World, node: &mut Node| {
        let sent = node.send(READING);
        let reply = w.post(&[sent.envelope()]);
        let (_, payload, _) = node.open(&sent, &reply.answers[0]);
        if payload.is_empty() { None } else { ControlMap::parse(&payload).unwrap().renew }
    };
    let mut node = Node::of(&w.source.devices[0]);
    assert_eq!(told(&mut w, &mut node), None);
    // An installed context is renewed within a week.
    w.now = NOW.plus(7 * DAY);
    assert_eq!(told(&mut w, &mut node), Some(4));
    assert_eq!(told(&mut w, &mut node), None, "it is about it");
    w.now = w.now.plus(300_000);
    assert_eq!(told(&mut w, &mut node), Some(4), "unless the answer was lost");
    let mut node = renew(&mut w, 2);
    assert_eq!(told(&mut w, &mut node), None);
    // One that was agreed is as old as its record allows.
    w.now = w.now.plus(29 * DAY);
    assert_eq!(told(&mut w, &mut node), None);
    w.source.renewals[0].ordered_at = Some(w.now.0 / 1000 + 1);
    w.reload();
    assert_eq!(told(&mut w, &mut node), Some(5));
    w.now = w.now.plus(DAY);
    let mut node = renew(&mut w, 3);
    assert_eq!(told(&mut w, &mut node), None);
    w.now = w.now.plus(30 * DAY);
    assert_eq!(told(&mut w, &mut node), Some(4));
}

#[test]
fn a_campaign_does_not_bring_all_devices_at_once() {
    let devices: Vec<_> = (1..=100).map(|n| device(0x0b00 + n, Profile::ToCloud, Mode::Persistent)).collect();
    let renewals = devices.iter().map(|d| Renewal { ordered_at: Some(NOW.0 / 1000 + 1), ..renewal(d) }).collect();
    let mut w = World::renewing(devices.clone(), renewals);
    let mut nodes: Vec<_> = devices.iter().map(Node::of).collect();
    let mut told = std::collections::HashSet::new();
    for minute in 0..5 {
        w.now = NOW.plus((minute + 1) * 60_000);
        for (n, node) in nodes.iter_mut().enumerate() {
            let sent = node.send(READING);
            let reply = w.post(&[sent.envelope()]);
            let (_, payload, _) = node.open(&sent, &reply.answers[0]);
            if !payload.is_empty() && ControlMap::parse(&payload).unwrap().renew.is_some() {
                assert!(told.insert(n));
            }
        }
        assert_eq!(told.len() as u64, (30 * (minute + 1)).min(100));
    }
}

#[test]
fn what_drained_long_enough_is_erased_while_the_cloud_runs() {
    let mut w = world();
    let mut new = renew(&mut w, 2);
    assert!(answered(&mut w, &mut new));
    let sealed = |w: &World| {
        let rows = w.cloud.memory().read(|r| r.contexts()).unwrap();
        rows.iter().map(|r| (r.epoch.0, r.sealed.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(sealed(&w), [(1, true), (2, true)]);
    w.now = w.now.plus(121 * HOUR);
    let write = w.cloud.handle_timeout(w.now);
    w.cloud.memory().store().commit_now(write).unwrap();
    assert_eq!((contexts(&w), sealed(&w)), (vec![(2, Standing::Active)], vec![(1, false), (2, true)]));
    let mut w = w.restart();
    assert_eq!(contexts(&w), [(2, Standing::Active)]);
    assert!(answered(&mut w, &mut new));
}

#[test]
fn a_device_without_contexts_agrees_its_first_ones() {
    let d = device(0x0a17, Profile::ToCloud, Mode::Persistent);
    let first = Renewal { first: FirstContexts::Agreed, highest: Epoch(0), ..renewal(&d) };
    let mut w = World::renewing(vec![d.clone()], vec![first]);
    assert_eq!(contexts(&w), []);
    let mut guess = Node::of(&d);
    let sent = guess.send(READING);
    assert_eq!(w.post(&[sent.envelope()]).refused[0].1, Code::CloudNoContext);
    let mut node = renew(&mut w, 1);
    assert_eq!(contexts(&w), [(1, Standing::Pending)]);
    assert!(answered(&mut w, &mut node));
    let mut w = w.restart();
    assert_eq!(contexts(&w), [(1, Standing::Active)]);
    assert!(answered(&mut w, &mut node));
}

#[test]
fn a_gateways_word_counts_for_every_epoch_that_was_agreed_and_its_first_one_takes_it_in_use() {
    let mut w = world_of(Profile::ToGateway);
    let said = |w: &mut World, epoch: u16, piv: u64| {
        let opened = Opened { kid: Sid(0x0a17), piv, bctx: None, epoch: Epoch(epoch) };
        let bytes = [&[0x02, 0xFF], READING].concat();
        let word = word(Kind::GatewayOpened, Sid(0x0a17), piv, &bytes);
        w.post(&[Envelope { opened: Some(opened), ..word }]).refused.first().map(|r| r.1)
    };
    assert_eq!(said(&mut w, 1, 0), None);
    assert_eq!(said(&mut w, 2, 0), Some(Code::GatewayNoContext));
    renew(&mut w, 2);
    assert_eq!(said(&mut w, 1, 1), None);
    assert_eq!(said(&mut w, 2, 0), None);
    let mut w = w.restart();
    assert_eq!(contexts(&w), [(2, Standing::Active), (1, Standing::Draining)]);
    assert_eq!(said(&mut w, 1, 2), None);
    w.now = w.now.plus(97 * HOUR);
    assert_eq!(said(&mut w, 1, 3), Some(Code::CloudStale));
    assert_eq!(said(&mut w, 2, 1), None);
    assert_eq!(w.readings().len(), 5);
    // Nothing of E3 is kept of such a device.
    let rows = w.cloud.memory().read(|r| r.contexts()).unwrap();
    let vault = w.vault.as_ref().unwrap();
    for row in rows {
        let secrets = fivefold_cloud::context::ContextSecrets::open(vault, row.did, row.epoch, &row.sealed.unwrap());
        let secrets = secrets.unwrap();
        assert!(secrets.e3.is_none() && secrets.e2_root.is_some());
    }
}

#[test]
fn what_a_gateway_may_not_post_is_refused_as_a_whole() {
    let w = world();
    let run = offer(0x0a17, 2, 0);
    let good = envelope(0x0a17, run.message.as_bytes());
    let refused =
        |e: &Envelope<'_>| w.cloud.exchange(&w.gateway.proven, &body(e), &[1; 32], NOW).unwrap_err().rejected.code;
    let foreign = Originator::Node { net: Net(8), sid: Sid(0x0a17) };
    assert_eq!(refused(&Envelope { originator: foreign, ..good }), Code::ChannelWrongNet);
    assert_eq!(refused(&Envelope { kind: Kind::CloudTiny, ..good }), Code::TinyMalformed);
    let stranger = Gateway::new(NET, 9);
    let e = w.cloud.exchange(&stranger.proven, &body(&good), &[1; 32], NOW).unwrap_err();
    assert_eq!(e.rejected.code, Code::ChannelRefused);
    let e = w.cloud.exchange(&w.gateway.proven, b"\xA1", &[1; 32], NOW).unwrap_err();
    assert_eq!(e.rejected.code, Code::TinyMalformed);
    // Without E1 where the record has it.
    let bytes = body(&Envelope { link: LinkClass::None, ..good });
    let exchange = w.cloud.exchange(&w.gateway.proven, &bytes, &[1; 32], NOW).unwrap();
    assert_eq!(exchange.write.counts[0].0.code, Code::CloudLevelMissing);
    assert!(matches!(exchange.outcome, Outcome::Nothing));
    // A batch is no place for it.
    let mut w = w;
    assert_eq!(w.post(&[Envelope { seq: 0, ..good }]).refused[0].1, Code::TinyMalformed);
}

#[test]
fn a_run_waits_two_minutes_and_no_longer() {
    let mut w = world();
    let run = proof(&w, 2, 0);
    w.now = Millis(w.now.0 + 120_000);
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    assert_eq!(w.count(Code::RenewalLate), 1);
}

/// Index and key of what a device holds after a run, if message_4 handed it a network key.
fn handed(w: &mut World, epoch: u16) -> Option<(u8, [u8; 16])> {
    let run = proof(w, epoch, 0);
    let Said::Agreed(agreement) = ask(w, 0x0a17, run.message.as_bytes()) else { panic!("nothing was agreed") };
    let m4 = conclude(w, &agreement);
    drop(agreement);
    // The same bytes, also after a restart.
    assert_eq!(ask(w, 0x0a17, run.message.as_bytes()).message(), m4);
    let agreed = run.state.handle_message_4(&m4).unwrap();
    agreed.handed().map(|handed| (handed.told().index, *handed.told().key.unwrap()))
}

fn rotated(w: &mut World, rotation: &Rotation) {
    w.source.rotation = Some(rotation.clone());
    w.reload();
}

fn says(sending: u8, receiving: u8) -> Vec<u8> {
    let receiving = (receiving > 0).then_some(receiving);
    let map = Uplink { key_indexes: Some(KeyIndexes { sending, receiving }), ..Uplink::default() };
    let mut out = [0; 16];
    let len = map.emit(&mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn message_4_hands_the_network_key_to_who_missed_it_and_to_nobody_else() {
    let begun = Rotation::begin(NET, 1, 2, NOW.0 / 1000);
    let drains = begun.switched(NOW.0 / 1000 + 1).unwrap();
    let done = drains.retired(NOW.0 / 1000 + 2).unwrap();
    let key = Some((2, network_key(2)));
    for (rotation, said, gets) in [
        (&begun, Some((1, 0)), None),
        (&drains, Some((1, 0)), key),
        (&drains, Some((1, 2)), None),
        (&drains, None, key),
        (&done, Some((1, 0)), key),
        (&done, None, key),
        (&done, Some((1, 2)), None),
        (&done, Some((2, 1)), None),
        (&done, Some((2, 0)), None),
        (&drains.rolled_back(NOW.0 / 1000 + 3).unwrap(), Some((1, 2)), None),
    ] {
        let mut w = world();
        let mut node = Node::of(&w.source.devices[0]);
        if let Some((sending, receiving)) = said {
            let sent = node.send(&says(sending, receiving));
            w.post(&[sent.envelope()]);
        }
        rotated(&mut w, rotation);
        assert_eq!(handed(&mut w, 2), gets, "{} {said:?}", rotation.stage());
        let told = w.cloud.memory().read(|r| r.link_told()).unwrap();
        assert_eq!(told.iter().any(|(_, index, _)| *index == 2), gets.is_some(), "durable before it leaves");
        // What was said outlives the process; who did not say that it has the key gets it again.
        let mut w = w.restart();
        assert_eq!(handed(&mut w, 3), gets, "{} {said:?}", rotation.stage());
    }
    let mut w = world();
    assert_eq!(handed(&mut w, 2), None, "no key was ever rotated");
}

#[test]
fn who_is_revoked_or_has_no_network_key_is_handed_none() {
    let done = Rotation::begin(NET, 1, 2, NOW.0 / 1000).switched(NOW.0 / 1000 + 1).unwrap();
    let done = done.retired(NOW.0 / 1000 + 2).unwrap();
    let mut d = device(0x0a17, Profile::ToCloud, Mode::Persistent);
    (d.policy.radio, d.overrides.danger_no_link) = (Radio::Ip, true);
    let mut w = World::renewing(vec![d.clone()], vec![renewal(&d)]);
    rotated(&mut w, &done);
    d.policy.pq_mix = true;
    assert_eq!(handed(&mut w, 2), None);

    // Revoked while its run is under way: not even a context.
    let mut w = world();
    rotated(&mut w, &done);
    let run = proof(&w, 2, 0);
    w.source.devices[0].revoked_at = Some(1);
    w.reload();
    assert!(matches!(ask(&w, 0x0a17, run.message.as_bytes()), Said::Nothing));
    assert!(w.cloud.memory().read(|r| r.link_told()).unwrap().is_empty());
}
