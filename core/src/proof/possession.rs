//! The signing key that a device made, and its proof that it has it (docs/protocol.md 11.1).
//!
//! ```text
//! signed = "fivefold-signing-key-v1" ‖ did ‖ DH x (32, zero for a device without one) ‖ key (64, or 32 of Ed25519)
//! ```
//!
//! The key stands in what is signed, so that a proof fits one key alone; device and DH key, so that it fits one device.

use core::ops::Deref;

use crate::id::Did;
use crate::proof::{ED25519_SPKI, KeyName, P256_SPKI, Sign, SignError, Signature, SignatureRefused, Verify};
use crate::suite::agreement::PublicX;

/// What stands first in what is signed: no other signature of a device begins so.
const CONTEXT: &[u8] = b"fivefold-signing-key-v1";

/// A P-256 point, x ‖ y. Nothing says yet that it lies on the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SigningPoint(pub [u8; Self::SIZE]);

impl SigningPoint {
    /// Bytes of one.
    pub const SIZE: usize = 64;

    /// Out of a SubjectPublicKeyInfo (DER); `None` if that is no uncompressed P-256 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let point = spki.strip_prefix(&P256_SPKI)?.strip_prefix(&[4])?;
        point.try_into().ok().map(Self)
    }

    /// As SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> [u8; P256_SPKI.len() + 1 + Self::SIZE] {
        let mut spki = [4; P256_SPKI.len() + 1 + Self::SIZE];
        let parts = P256_SPKI.iter().chain(&[4]).chain(&self.0);
        spki.iter_mut().zip(parts).for_each(|(s, b)| *s = *b);
        spki
    }

    /// Its x coordinate.
    pub fn x(&self) -> PublicX {
        let mut x = [0; 32];
        x.iter_mut().zip(&self.0).for_each(|(x, b)| *x = *b);
        PublicX(x)
    }
}

/// The public half of a device's signing key. Nothing says yet that it is a point of its curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningPublic {
    /// Of ECDSA on P-256.
    P256(SigningPoint),
    /// Of Ed25519 (RFC 8032): y, and the sign of x in the last bit.
    Ed25519([u8; 32]),
}

impl SigningPublic {
    /// From the bytes that stand in a request: 64 of P-256, or 32 of Ed25519.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let point = || bytes.try_into().ok().map(|point| Self::P256(SigningPoint(point)));
        point().or_else(|| bytes.try_into().ok().map(Self::Ed25519))
    }

    /// Those bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::P256(point) => &point.0,
            Self::Ed25519(key) => key,
        }
    }

    /// Out of a SubjectPublicKeyInfo (DER); `None` if that is neither an uncompressed P-256 key nor one of Ed25519.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let ed25519 = || spki.strip_prefix(&ED25519_SPKI)?.try_into().ok().map(Self::Ed25519);
        SigningPoint::from_spki(spki).map(Self::P256).or_else(ed25519)
    }

    /// As SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> Spki {
        let mut spki = Spki { bytes: [0; Spki::LONGEST], len: 0 };
        let (head, point): (&[u8], &[u8]) = match self {
            Self::P256(_) => (&P256_SPKI, &[4]),
            Self::Ed25519(_) => (&ED25519_SPKI, &[]),
        };
        for (to, byte) in spki.bytes.iter_mut().zip(head.iter().chain(point).chain(self.as_bytes())) {
            *to = *byte;
            spki.len += 1;
        }
        spki
    }

    /// What tells it from the keys of others: x of P-256, or y of Ed25519. Two keys of one curve that share it are one key, or
    /// one is the negative of the other: whoever has the one has the other.
    pub fn coordinate(&self) -> PublicX {
        match self {
            Self::P256(point) => point.x(),
            Self::Ed25519(key) => {
                let mut y = *key;
                y[31] &= 0x7F;
                PublicX(y)
            }
        }
    }
}

/// The SubjectPublicKeyInfo (DER) of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spki {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl Spki {
    const LONGEST: usize = P256_SPKI.len() + 1 + SigningPoint::SIZE;
}

impl Deref for Spki {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A signing key with the proof that its device has it. Nothing is believed before [`Possession::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possession {
    /// The key.
    pub key: SigningPublic,
    /// The proof.
    pub proof: Signature,
}

impl Possession {
    /// Proves it, for the device `did` with the DH key `x`, if it has one.
    ///
    /// # Errors
    /// [`SignError::SignerFailed`].
    pub fn prove(signer: &impl Sign, key: SigningPublic, did: Did, x: Option<&PublicX>) -> Result<Self, SignError> {
        Ok(Self { key, proof: signer.sign(&[CONTEXT, &did.0, &dh(x), key.as_bytes()])? })
    }

    /// Checks it with `verifier`, which is made of this very key.
    ///
    /// # Errors
    /// [`SignatureRefused`] when the proof is another key's, device's or DH key's.
    pub fn verify(&self, verifier: &impl Verify, did: Did, x: Option<&PublicX>) -> Result<(), SignatureRefused> {
        if verifier.key_name() != KeyName::of(&self.key.spki()) {
            return Err(SignatureRefused);
        }
        verifier.verify(&[CONTEXT, &did.0, &dh(x), self.key.as_bytes()], &self.proof.0)
    }
}

/// No key has the x of zero.
fn dh(x: Option<&PublicX>) -> [u8; 32] {
    x.map_or([0; 32], |x| x.0)
}

#[cfg(all(test, feature = "p256"))]
mod tests {
    use super::*;
    use crate::suite::p256::{SigningKey, VerifyingKey};

    const DID: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);

    #[test]
    fn a_proof_fits_one_key_one_device_and_one_dh_key() {
        let signer = SigningKey::from_random(&[0x31; 32]).unwrap();
        let key = SigningPublic::from_spki(&signer.spki()).unwrap();
        assert_eq!(key.spki()[..], signer.spki());
        let verifier = |key: &SigningPublic| VerifyingKey::from_spki(&key.spki()).unwrap();
        let x = PublicX([7; 32]);
        let proven = Possession::prove(&signer, key, DID, Some(&x)).unwrap();
        assert_eq!(proven.verify(&verifier(&key), DID, Some(&x)), Ok(()));
        let other = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 2]);
        assert!(proven.verify(&verifier(&key), other, Some(&x)).is_err());
        assert!(proven.verify(&verifier(&key), DID, None).is_err());
        assert!(proven.verify(&verifier(&key), DID, Some(&PublicX([8; 32]))).is_err());
        let thief = SigningKey::from_random(&[0x32; 32]).unwrap();
        let own = SigningPublic::from_spki(&thief.spki()).unwrap();
        let claimed = Possession { key: own, ..proven };
        assert!(claimed.verify(&verifier(&own), DID, Some(&x)).is_err(), "somebody else's proof");
        assert!(claimed.verify(&verifier(&key), DID, Some(&x)).is_err(), "somebody else's key");
        let bare = Possession::prove(&signer, key, DID, None).unwrap();
        assert_eq!(bare.verify(&verifier(&key), DID, None), Ok(()));
    }

    #[test]
    fn a_key_of_either_kind_reads_as_it_was_written_and_its_negative_is_the_same_key() {
        let p256 = SigningPublic::from_spki(&SigningKey::from_random(&[0x31; 32]).unwrap().spki()).unwrap();
        let ed25519 = SigningPublic::Ed25519([0x5A; 32]);
        for key in [p256, ed25519] {
            assert_eq!(SigningPublic::from_spki(&key.spki()), Some(key));
            assert_eq!(SigningPublic::from_bytes(key.as_bytes()), Some(key));
        }
        assert_eq!((p256.spki().len(), ed25519.spki().len()), (91, 44));
        let mut negative = [0x5A; 32];
        negative[31] |= 0x80;
        assert_eq!(SigningPublic::Ed25519(negative).coordinate(), ed25519.coordinate());
        assert!([0, 31, 33, 63, 65].iter().all(|n| SigningPublic::from_bytes(&[1; 65][..*n]).is_none()));
        assert!(SigningPublic::from_spki(&ed25519.spki()[..43]).is_none());
    }

    #[test]
    fn what_is_no_uncompressed_p256_key_is_no_point() {
        let spki = SigningKey::from_random(&[0x31; 32]).unwrap().spki();
        assert!(SigningPublic::from_spki(&spki[..90]).is_none());
        let mut compressed = spki;
        compressed[26] = 2;
        assert!(SigningPublic::from_spki(&compressed).is_none());
    }
}
