//! P-256 of `sign`, by aws-lc-rs, through the same tests as the one for devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../core/tests/curve/mod.rs"]
mod curve;

use fivefold_core::proof::Verify;
use fivefold_keep::sign::{AgreementKey, VerifyingKey};

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
}

// aws-lc-rs draws its nonces; what RFC 6979 A.2.5 signs must verify all the same.
#[test]
fn signatures_of_rfc_6979_a_2_5_verify() {
    let spki = hex::decode(concat!(
        "3059301306072a8648ce3d020106082a8648ce3d030107034200",
        "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
        "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
    ))
    .unwrap();
    let key = VerifyingKey::from_spki(&spki).unwrap();
    let signature = hex::decode(concat!(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    ))
    .unwrap();
    assert!(key.verify(&[b"sam", b"ple"], &signature).is_ok());
    assert!(key.verify(&[b"samples"], &signature).is_err());
}
