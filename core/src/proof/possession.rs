//! The signing key that a device made, and its proof that it has it (docs/protocol.md 11.1).
//!
//! ```text
//! signed = "fivefold-signing-key-v1" ‖ did ‖ DH x (32, zero for a device without one) ‖ point (64)
//! ```
//!
//! The point stands in what is signed, so that a proof fits one key alone; device and DH key, so that it fits one device.

use crate::id::Did;
use crate::proof::{P256_SPKI, Sign, SignError, Signature, SignatureRefused, Verify};
use crate::suite::agreement::PublicX;

/// What stands first in what is signed: no other signature of a device begins so.
const CONTEXT: &[u8] = b"fivefold-signing-key-v1";

/// The public half of a signing key: a P-256 point, x ‖ y. Nothing says yet that it lies on the curve.
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

    /// Its x coordinate. Two keys with one x are one key, or its negative: whoever has the one has the other.
    pub fn x(&self) -> PublicX {
        let mut x = [0; 32];
        x.iter_mut().zip(&self.0).for_each(|(x, b)| *x = *b);
        PublicX(x)
    }
}

/// A signing key with the proof that its device has it. Nothing is believed before [`Possession::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possession {
    /// The key.
    pub key: SigningPoint,
    /// The proof.
    pub proof: Signature,
}

impl Possession {
    /// Proves it, for the device `did` with the DH key `x`, if it has one.
    ///
    /// # Errors
    /// [`SignError::SignerFailed`].
    pub fn prove(signer: &impl Sign, key: SigningPoint, did: Did, x: Option<&PublicX>) -> Result<Self, SignError> {
        Ok(Self { key, proof: signer.sign(&[CONTEXT, &did.0, &dh(x), &key.0])? })
    }

    /// Checks it with `verifier`, which is made of this very key.
    ///
    /// # Errors
    /// [`SignatureRefused`] when the proof is another key's, device's or DH key's.
    pub fn verify(&self, verifier: &impl Verify, did: Did, x: Option<&PublicX>) -> Result<(), SignatureRefused> {
        if verifier.key_name() != crate::proof::KeyName::of(&self.key.spki()) {
            return Err(SignatureRefused);
        }
        verifier.verify(&[CONTEXT, &did.0, &dh(x), &self.key.0], &self.proof.0)
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
        let key = SigningPoint::from_spki(&signer.spki()).unwrap();
        assert_eq!(key.spki(), signer.spki());
        let verifier = |key: &SigningPoint| VerifyingKey::from_spki(&key.spki()).unwrap();
        let x = PublicX([7; 32]);
        let proven = Possession::prove(&signer, key, DID, Some(&x)).unwrap();
        assert_eq!(proven.verify(&verifier(&key), DID, Some(&x)), Ok(()));
        let other = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 2]);
        assert!(proven.verify(&verifier(&key), other, Some(&x)).is_err());
        assert!(proven.verify(&verifier(&key), DID, None).is_err());
        assert!(proven.verify(&verifier(&key), DID, Some(&PublicX([8; 32]))).is_err());
        let thief = SigningKey::from_random(&[0x32; 32]).unwrap();
        let own = SigningPoint::from_spki(&thief.spki()).unwrap();
        let claimed = Possession { key: own, ..proven };
        assert!(claimed.verify(&verifier(&own), DID, Some(&x)).is_err(), "somebody else's proof");
        assert!(claimed.verify(&verifier(&key), DID, Some(&x)).is_err(), "somebody else's key");
        let bare = Possession::prove(&signer, key, DID, None).unwrap();
        assert_eq!(bare.verify(&verifier(&key), DID, None), Ok(()));
    }

    #[test]
    fn what_is_no_uncompressed_p256_key_is_no_point() {
        let spki = SigningKey::from_random(&[0x31; 32]).unwrap().spki();
        assert!(SigningPoint::from_spki(&spki[..90]).is_none());
        let mut compressed = spki;
        compressed[26] = 2;
        assert!(SigningPoint::from_spki(&compressed).is_none());
    }
}
