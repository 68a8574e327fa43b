//! Every bit of every field of KR1 and KR2, altered.

use std::ops::Range;

use fivefold_core::wire::key_message::{Auth, KeyLen, KeyLevel, Kr1, RsaSize};

use crate::book::{HOUR, NOW, accepted, answered, fresh, offered, refused, sender, server, usual};
use fivefold_core::wire::key_message::KeyEpoch;

const C: Range<usize> = 24..280;
const S: Range<usize> = 280..536;

fn flipped(bytes: &[u8], field: Range<usize>) -> impl Iterator<Item = Vec<u8>> + '_ {
    field.flat_map(|at| (0..8).map(move |bit| (at, bit))).map(|(at, bit)| {
        let mut other = bytes.to_vec();
        other[at] ^= 1 << bit;
        other
    })
}

/// No message with a bit of that field altered is taken, and the good one still is.
fn no_altered_kr1_is_taken(field: Range<usize>) {
    let (good, _) = offered(5);
    let mut server = usual();
    for other in flipped(&good, field) {
        refused(&mut server, NOW, &other);
    }
    let _ = accepted(&mut server, NOW, &good);
}

/// No answer with a bit of that field altered is taken, and the good one still is.
fn no_altered_kr2_is_taken(field: Range<usize>) {
    let (message, mut offer) = offered(5);
    let answer = answered(&mut usual(), NOW, &message);
    for other in flipped(&answer, field) {
        offer = offer.answer(&other).unwrap_err().0;
    }
    assert_eq!(offer.answer(&answer).unwrap().danger_key(), fresh(5).danger_key());
}

macro_rules! fields {
    ($check:ident: $($name:ident = $field:expr;)*) => {
        $(#[test] fn $name() { $check($field); })*
    };
}

fields! { no_altered_kr1_is_taken:
    kr1_with_another_magic_is_refused = 0..4;
    kr1_with_another_version_is_refused = 4..5;
    kr1_with_another_alg_is_refused = 5..6;
    kr1_with_another_serial_is_refused = 6..14;
    kr1_with_another_level_is_refused = 14..15;
    kr1_with_another_keylen_is_refused = 15..16;
    kr1_with_another_epoch_is_refused = 16..20;
    kr1_with_another_srv_kid_is_refused = 20..24;
    kr1_with_another_ciphertext_is_refused = C;
    kr1_with_another_signature_is_refused = S;
}

fields! { no_altered_kr2_is_taken:
    kr2_with_another_magic_is_refused = 0..4;
    kr2_with_another_version_is_refused = 4..5;
    kr2_with_another_alg_is_refused = 5..6;
    kr2_with_another_serial_is_refused = 6..14;
    kr2_with_another_level_is_refused = 14..15;
    kr2_with_another_status_is_refused = 15..16;
    kr2_with_another_epoch_is_refused = 16..20;
    kr2_with_another_srv_kid_is_refused = 20..24;
    kr2_with_another_confirmation_is_refused = 24..40;
}

#[test]
fn kr1_with_a_mac_is_refused_with_any_bit_altered() {
    let (good, _) = sender(RsaSize::Rsa2048, Auth::Mac).offer(KeyEpoch(5), fresh(5)).unwrap();
    assert_eq!(good.len(), 312);
    let mut server = server(KeyLevel::E3, RsaSize::Rsa2048, Auth::Mac, KeyLen::B32);
    for other in flipped(&good, 0..312) {
        refused(&mut server, NOW, &other);
    }
    let _ = accepted(&mut server, NOW, &good);
}

#[test]
fn kr1_of_any_other_length_is_refused() {
    let (good, _) = offered(5);
    let mut server = usual();
    for cut in 0..good.len() {
        refused(&mut server, NOW, &good[..cut]);
    }
    refused(&mut server, NOW, &[&good[..], &[0]].concat());
    let _ = accepted(&mut server, NOW, &good);
}

#[test]
fn parts_of_two_good_messages_make_no_third() {
    let ((a, _), (b, _)) = (offered(5), offered(5));
    let ((a1, b1), mut server) = ((Kr1::parse(&a).unwrap(), Kr1::parse(&b).unwrap()), usual());
    assert_eq!(a1.header, b1.header);
    for (c, s) in [(a1.ciphertext, b1.proof), (b1.ciphertext, a1.proof)] {
        refused(&mut server, NOW, &[&a[..24], c, s].concat());
    }
    let (later, _) = offered(6);
    refused(&mut server, NOW.plus(HOUR), &[&a[..24], &later[24..]].concat());
    let _ = accepted(&mut server, NOW.plus(HOUR), &a);
}
