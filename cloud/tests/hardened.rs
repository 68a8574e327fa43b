//! Hardened classic frames at the cloud: opened under the key that the operator brought, each number once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::classic::{hardened_frame as frame, *};
use common::*;
use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_keep::registry::ClassicProfile;
use fivefold_waspmote::EncryptedType;
use fivefold_waspmote::hardened::Peer;

const MINUTE: u64 = 60_000;
const FIELDS: &[u8] = &[52, 80];

fn at(minutes: u64) -> Millis {
    NOW.plus(minutes * MINUTE)
}

fn device() -> Classic {
    Classic { profile: ClassicProfile::Hardened, hardened_key: Some([1; 32]), ..Classic::plain(SERIAL, 0x0c01) }
}

#[test]
fn a_hardened_frame_is_a_reading_once_whoever_brings_it_and_however_late() {
    let mut w = world(vec![device()]);
    let to_cloud = |sequence| frame(Peer::Cloud, 1, sequence, 1);
    for sequence in [0, 2, 1, 200] {
        assert_eq!(bring(&mut w, &to_cloud(sequence), at(0)), None, "{sequence}");
    }
    // The same within a minute is one delivery; later it is a repeat, and so is what is too old to tell.
    assert_eq!((bring(&mut w, &to_cloud(200), at(1)), w.count(Code::GatewayDuplicate)), (None, 1));
    for sequence in [0, 1, 2, 200, 100] {
        assert_eq!(bring(&mut w, &to_cloud(sequence), at(5)), Some(Code::HardenedReplayed), "{sequence}");
    }
    assert_eq!(bring(&mut w, &to_cloud(199), at(5)), None);
    assert_eq!((w.readings().len(), w.count(Code::HardenedReplayed)), (5, 5));
    // What was taken is in the ledger: another cloud on the same store knows it.
    let mut w = w.restart();
    assert_eq!(bring(&mut w, &to_cloud(200), at(6)), Some(Code::HardenedReplayed));
    assert_eq!(bring(&mut w, &to_cloud(201), at(6)), None);
    let readings = w.readings();
    assert_eq!(readings.len(), 6);
    for reading in readings {
        assert_eq!(reading.origin, Origin::Legacy, "nothing classic is shown as modern");
        assert_eq!(reading.classic.unwrap().suite, "classic-hardened");
    }
}

#[test]
fn a_frame_for_the_gateway_is_a_reading_once_as_well_and_has_numbers_of_its_own() {
    let mut w = world(vec![device()]);
    let post = |w: &mut World, sequence, minute| {
        let inner = binary(SERIAL, "node_01", sequence as u8, FIELDS);
        let bytes = said(&frame(Peer::Gateway, 3, sequence, 9), Carrier::Http, Some(&inner));
        w.post(&[envelope(SERIAL, &bytes, at(minute))]).refused.first().map(|(_, code)| *code)
    };
    assert_eq!(bring(&mut w, &frame(Peer::Cloud, 1, 7, 1), at(0)), None);
    assert_eq!(post(&mut w, 7, 0), None);
    // The number is the gateway's word, and the ledger has the same frame once.
    assert_eq!((post(&mut w, 7, 0), post(&mut w, 7, 2)), (None, None));
    assert_eq!((w.readings().len(), w.count(Code::GatewayDuplicate)), (2, 2));
    assert_eq!(post(&mut w, 8, 2), None);
    assert_eq!(w.readings().len(), 3);
}

#[test]
fn a_gateway_that_invents_great_numbers_makes_no_true_reading_vanish() {
    let mut w = world(vec![device()]);
    let post = |w: &mut World, sequence: u32, said_to_be: u8| {
        let inner = binary(SERIAL, "node_01", said_to_be, FIELDS);
        let bytes = said(&frame(Peer::Gateway, 3, sequence, said_to_be), Carrier::Http, Some(&inner));
        w.post(&[envelope(SERIAL, &bytes, at(0))]).refused.first().map(|(_, code)| *code)
    };
    for sequence in [u32::MAX, u32::MAX / 2, 8] {
        assert_eq!(post(&mut w, sequence, 200), None);
    }
    for sequence in [7, 8, 9] {
        assert_eq!(post(&mut w, sequence, sequence as u8), None);
    }
    assert_eq!(w.readings().len(), 6);
}

#[test]
fn what_is_not_sealed_under_the_hardened_key_of_its_node_is_kept_apart() {
    let mut w = world(vec![device(), Classic::plain("0123456789abcdef", 0x0c02)]);
    let good = frame(Peer::Cloud, 1, 5, 1);
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (frame, code) in [
        (changed, Code::HardenedForged),
        (frame(Peer::Cloud, 1, 5, 2), Code::HardenedForged),
        (frame(Peer::Cloud, 2, 5, 1), Code::HardenedForged),
        (binary(SERIAL, "node_01", 5, FIELDS), Code::ClassicRelabelled),
        (sealed(EncryptedType::Cloud, 5, FIELDS), Code::ClassicRelabelled),
    ] {
        assert_eq!(bring(&mut w, &frame, at(0)), Some(code));
    }
    assert_eq!(bring_of(&mut w, "0123456789abcdef", &good, at(0)), Some(Code::ClassicRelabelled));
    assert!(w.readings().is_empty());
    // None of them used the number up.
    assert_eq!(bring(&mut w, &good, at(0)), None);
}
