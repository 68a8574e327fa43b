//! P-256 of `suite::p256` through project Wycheproof, RFC 6979, and keys that are none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod curve;

use fivefold_core::proof::{Sign, SignatureRefused, Verify};
use fivefold_core::suite::p256::{AgreementKey, SigningKey, VerifyingKey};

#[test]
fn key_agreement_passes_wycheproof() {
    curve::agrees_as_wycheproof::<AgreementKey>();
}

#[test]
fn signatures_pass_wycheproof() {
    curve::verifies_as_wycheproof(|spki| VerifyingKey::from_spki(spki).unwrap());
}

#[test]
fn what_is_no_key_is_refused() {
    curve::refuses_what_is_no_key::<AgreementKey>();
    assert!(SigningKey::from_random(&[0; 32]).is_none() && SigningKey::from_random(&[0xFF; 32]).is_none());
    let spki = SigningKey::from_random(&[7; 32]).unwrap().spki();
    assert!(VerifyingKey::from_spki(&spki).is_ok());
    for end in 0..spki.len() {
        assert!(VerifyingKey::from_spki(&spki[..end]).is_err());
    }
    let mut off_curve = spki;
    off_curve[90] ^= 1;
    assert!(VerifyingKey::from_spki(&off_curve).is_err());
}

#[test]
fn nonces_are_those_of_rfc_6979_a_2_5() {
    let scalar = hex::decode("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").unwrap();
    let key = SigningKey::from_random(&scalar.try_into().unwrap()).unwrap();
    let public = VerifyingKey::from_spki(&key.spki()).unwrap();
    assert_eq!(key.key_name(), public.key_name());
    for (message, signature) in [
        (
            &[&b"sam"[..], b"ple"],
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
             f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            &[&b"test"[..], b""],
            "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367\
             019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ] {
        let made = key.sign(message).unwrap();
        assert_eq!(hex::encode(made.0), signature);
        assert_eq!(public.verify(message, &made.0), Ok(()));
        assert_eq!(public.verify(&[b"another"], &made.0), Err(SignatureRefused));
    }
}

#[test]
fn private_keys_print_nothing_of_themselves() {
    use fivefold_core::suite::agreement::Agree;
    assert_eq!(format!("{:?}", AgreementKey::from_random(&[7; 32]).unwrap()), "AgreementKey(..)");
    let shown = format!("{:?}", SigningKey::from_random(&[7; 32]).unwrap());
    assert!(shown.starts_with("SigningKey(") && shown.len() == "SigningKey()".len() + 16, "{shown}");
    assert_eq!(AgreementKey::from_random(&[7; 32]).unwrap().danger_scalar()[..], [7; 32]);
}
