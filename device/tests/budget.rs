//! Memory of the engines, and bytes that one message carries.
#![allow(clippy::unwrap_used)]

mod world;

use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::{KidLength, Mode, Policy, Profile, Radio};
use fivefold_core::suite::p256::{AgreementKey, SigningKey};
use fivefold_core::time::Millis;
use fivefold_device::evidence::Signing;
use fivefold_device::{Entropy, Node, Record, Relay, Settings};

#[test]
fn the_state_of_an_engine_fits_a_small_controller() {
    let sizes = [
        ("Relay", size_of::<Relay>(), 5_000),
        ("Node<4>", size_of::<Node<4>>(), 8_500),
        ("Node<8>", size_of::<Node<8>>(), 9_900),
        ("Node<4>, renewing", size_of::<Node<4, AgreementKey>>(), 8_500),
        ("Node<8>, renewing", size_of::<Node<8, AgreementKey>>(), 9_900),
        ("Node<4>, signing, 16 leaf hashes", size_of::<Node<4, AgreementKey, Signing<SigningKey, 16>>>(), 10_000),
        ("Node<8>, signing, 16 leaf hashes", size_of::<Node<8, AgreementKey, Signing<SigningKey, 16>>>(), 11_400),
        ("Node<4>, signing", size_of::<Node<4, AgreementKey, Signing<SigningKey>>>(), 11_900),
        ("Node<8>, signing", size_of::<Node<8, AgreementKey, Signing<SigningKey>>>(), 13_300),
        ("Record", size_of::<Record>(), 320),
    ];
    for (what, size, limit) in sizes {
        println!("{what}: {size} bytes");
        assert!(size <= limit, "{what} takes {size} bytes, more than {limit}");
    }
}

fn room(change: impl FnOnce(&mut Settings)) -> usize {
    let sid = Sid(0x0a10);
    let mut s = world::settings(sid, Profile::ToCloud);
    change(&mut s);
    let entropy = Entropy::check(core::array::from_fn(|n| (n * 3) as u8)).unwrap();
    Node::<8>::boot(Millis(0), s.clone(), &world::secrets(sid, s.epoch), None, &entropy).unwrap().room()
}

#[test]
fn room_is_what_the_frame_leaves() {
    // The first number takes one byte; docs/protocol.md 6.4 counts with two.
    assert_eq!(room(|_| {}), 85);
    assert_eq!(room(|s| s.policy = Policy::new(Profile::ToBoth)), 76);
    assert_eq!(room(|s| s.policy.kid_length = KidLength::Two), 83);
    assert_eq!(room(|s| s.policy.radio = Radio::Ieee802154Mic32), 89);
    assert_eq!(room(|s| (s.policy.mode, s.epoch) = (Mode::Random, Epoch(0))), 76);
}
