//! Frames of the hardened profile at the gateway: number, tag, content, mark; each counted once and answered once, also over
//! a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::classic::{Carrier, Report};
use fivefold_core::wire::envelope::Envelope;
use fivefold_core::wire::state::{ClassicDevice, ClassicFlags, HardenedKey, State};
use fivefold_gateway::gateway::{Arrival, ClassicDone, Output};
use fivefold_waspmote::hardened::{Answer, Epoch, Key, Number, Peer, seal};

const SERIAL: [u8; 8] = [0x8A, 0x73, 0x84, 0x47, 0x78, 0x76, 0x15, 0x0C];
const SID: Sid = Sid(0x0a17);

fn book(version: u64, keys: &[(u32, u8)]) -> Vec<u8> {
    let bytes: Vec<[u8; 32]> = keys.iter().map(|(_, b)| [*b; 32]).collect();
    let keys: Vec<_> = keys.iter().zip(&bytes).map(|((epoch, _), key)| HardenedKey { epoch: *epoch, key }).collect();
    let device = ClassicDevice {
        serial: "8a7384477876150c",
        sid: SID,
        flags: ClassicFlags { hardened: true },
        dev_eui: None,
        key: None,
        hardened: List::of(&keys),
    };
    emitted(&State { classic: List::of(std::slice::from_ref(&device)), ..bare_state(version) })
}

fn world() -> World {
    let mut world = World::new();
    world.push(&book(1, &[(3, 0x33)])).unwrap();
    world
}

/// The binary frame that the node's library made: battery 35.
fn clear() -> Vec<u8> {
    [&b"<=>\x06"[..], &[13], &SERIAL, b"n#\x05", &[52, 35]].concat()
}

fn number(epoch: u32, sequence: u32) -> Number {
    Number { epoch: Epoch(epoch), sequence, seed: [7; 4] }
}

fn sealed(peer: Peer, key: u8, number: &Number) -> Vec<u8> {
    let mut out = [0; 255];
    let len = seal(peer, &Key::from_bytes([key; 32]), number, &clear(), &mut out).unwrap();
    out[..len].to_vec()
}

fn bring(world: &mut World, frame: &[u8]) -> (ClassicDone, Vec<(Code, Option<Sid>)>) {
    let arrival = Arrival { carrier: Carrier::Xbee, source: Some([1; 8]), rssi: None, frame, lorawan: None };
    world.gateway.handle_classic(world.now, 5, arrival);
    let mut heard = world.run();
    assert_eq!(heard.classic.len(), 1);
    (heard.classic.remove(0).1, heard.dropped)
}

fn reports(world: &World) -> Vec<(Option<Vec<u8>>, Option<Code>)> {
    let of = |bytes: &Vec<u8>| {
        let envelope = Envelope::parse(bytes).unwrap();
        let report = Report::parse(envelope.bytes).unwrap();
        (report.inner.map(<[u8]>::to_vec), report.code)
    };
    world.stored().iter().map(of).collect()
}

#[test]
fn a_hardened_frame_is_opened_stored_and_answered_when_that_is_durable() {
    let mut w = world();
    let number = number(3, 64);
    let frame = sealed(Peer::Gateway, 0x33, &number);
    let arrival = Arrival { carrier: Carrier::Xbee, source: Some([1; 8]), rssi: None, frame: &frame, lorawan: None };
    w.gateway.handle_classic(w.now, 5, arrival);
    let (envelope, mark) = (w.gateway.poll(), w.gateway.poll());
    assert!(matches!(envelope, Some(Output::Persist(_))) && matches!(mark, Some(Output::Persist(_))));
    assert!(w.gateway.poll().is_none(), "answered before it was durable");
    let mut w = world();
    let (done, dropped) = bring(&mut w, &frame);
    let ClassicDone::Answer(answer) = done else { panic!("{done:?}") };
    assert_eq!((dropped, reports(&w)), (vec![], vec![(Some(clear()), None)]));
    let answer = Answer::open(&answer, Peer::Gateway, &SERIAL, &number, &Key::from_bytes([0x33; 32])).unwrap();
    assert_eq!(u64::from(answer.time), w.now.0 / 1000);
}

#[test]
fn a_number_is_taken_once_also_after_a_restart_and_under_a_state_that_came_later() {
    let mut w = world();
    let frame = sealed(Peer::Gateway, 0x33, &number(3, 64));
    assert!(matches!(bring(&mut w, &frame).0, ClassicDone::Answer(_)));
    for round in 0..3 {
        let (done, dropped) = bring(&mut w, &frame);
        assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::HardenedReplayed), "{round}: {done:?}");
        assert_eq!((dropped, w.stored().len()), (vec![(Code::HardenedReplayed, Some(SID))], 1));
        match round {
            0 => w = w.restart(),
            _ => w.push(&book(2, &[(3, 0x33), (4, 0x44)])).unwrap(),
        }
    }
    // 64 below the highest is too old, whoever sends it; what lies between was not taken.
    let new = sealed(Peer::Gateway, 0x33, &number(3, 128));
    assert!(matches!(bring(&mut w, &new).0, ClassicDone::Answer(_)));
    let between = sealed(Peer::Gateway, 0x33, &number(3, 100));
    assert!(matches!(bring(&mut w, &between).0, ClassicDone::Answer(_)));
    let old = sealed(Peer::Gateway, 0x33, &number(3, 63));
    assert!(matches!(bring(&mut w, &old).0, ClassicDone::Refused(r) if r.code == Code::HardenedReplayed));
    // Another key begins anew.
    let next = sealed(Peer::Gateway, 0x44, &number(4, 0));
    assert!(matches!(bring(&mut w, &next).0, ClassicDone::Answer(_)));
    assert_eq!(w.stored().len(), 4);
}

#[test]
fn what_does_not_open_is_handed_on_with_its_code_and_takes_no_number() {
    let mut w = world();
    let good = sealed(Peer::Gateway, 0x33, &number(3, 9));
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(bring(&mut w, &bad), (ClassicDone::Stored, vec![(Code::HardenedForged, Some(SID))]));
    let other_epoch = sealed(Peer::Gateway, 0x33, &number(2, 9));
    assert_eq!(bring(&mut w, &other_epoch), (ClassicDone::Stored, vec![(Code::ClassicForged, Some(SID))]));
    assert!(matches!(bring(&mut w, &good).0, ClassicDone::Answer(_)));
    let short = &good[..30];
    assert!(matches!(bring(&mut w, short).0, ClassicDone::Refused(r) if r.code == Code::ClassicMalformed));
    let codes: Vec<_> = reports(&w).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [Some(Code::HardenedForged), Some(Code::ClassicForged), None]);
}

#[test]
fn what_is_for_the_cloud_passes_unread_and_unanswered() {
    let mut w = world();
    let frame = sealed(Peer::Cloud, 0x33, &number(3, 9));
    for _ in 0..2 {
        assert_eq!(bring(&mut w, &frame), (ClassicDone::Stored, vec![]), "the cloud judges what comes twice");
    }
    assert_eq!(reports(&w), [(None, None), (None, None)]);
}
