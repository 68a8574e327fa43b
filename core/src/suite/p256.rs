//! P-256 in Rust, for devices: key agreement behind [`Agree`], signatures (ECDSA with SHA-256, r ‖ s) behind
//! [`Sign`] and [`Verify`].
//!
//! Nonces of signatures are those of RFC 6979: a device signs without randomness of its own.

use core::fmt;

use ::p256::ecdsa;
use ::p256::ecdsa::signature::{MultipartSigner, MultipartVerifier};
use ::p256::elliptic_curve::point::{AffineCoordinates, DecompressPoint};
use ::p256::{AffinePoint, SecretKey, ecdh};
use zeroize::Zeroizing;

use crate::proof::{KeyName, P256_SPKI, Sign, SignAlg, SignError, Signature, SignatureRefused, Verify};
use crate::suite::agreement::{Agree, PointRefused, PublicX, SharedX};

/// A private key for key agreement: its 32 bytes, wiped when dropped.
pub struct AgreementKey(SecretKey);

impl AgreementKey {
    /// The private scalar, to be sealed and kept.
    pub fn danger_scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }
}

impl Agree for AgreementKey {
    fn from_random(random: &[u8; 32]) -> Option<Self> {
        SecretKey::from_bytes(random.into()).ok().map(Self)
    }

    fn public_x(&self) -> PublicX {
        PublicX(self.0.public_key().as_affine().x().into())
    }

    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused> {
        // Either point with this x gives the same shared x: take the even one.
        let point = AffinePoint::decompress((&peer.0).into(), 0.into()).into_option().ok_or(PointRefused)?;
        let shared = ecdh::diffie_hellman(self.0.to_nonzero_scalar(), point);
        Ok(SharedX::new((*shared.raw_secret_bytes()).into()))
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementKey(..)")
    }
}

/// Bytes of the SubjectPublicKeyInfo of a P-256 key.
pub const SPKI: usize = P256_SPKI.len() + 65;

fn spki_of(key: &ecdsa::VerifyingKey) -> [u8; SPKI] {
    let point = key.to_sec1_point(false);
    let mut spki = [0; SPKI];
    spki.iter_mut().zip(P256_SPKI.iter().chain(point.as_bytes())).for_each(|(s, b)| *s = *b);
    spki
}

/// A private key that signs, wiped when dropped. Never the key of key agreement.
pub struct SigningKey {
    key: ecdsa::SigningKey,
    name: KeyName,
}

impl SigningKey {
    /// From 32 random bytes, or from the scalar that was stored. `None` for 0 and for the order of the curve or more: draw
    /// again.
    pub fn from_random(random: &[u8; 32]) -> Option<Self> {
        let key = ecdsa::SigningKey::from_bytes(random.into()).ok()?;
        let name = KeyName::of(&spki_of(key.verifying_key()));
        Some(Self { key, name })
    }

    /// Its public key as SubjectPublicKeyInfo (DER), for certificates and registries.
    pub fn spki(&self) -> [u8; SPKI] {
        spki_of(self.key.verifying_key())
    }

    /// The private scalar, to be sealed and kept.
    pub fn danger_scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }
}

impl Sign for SigningKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }

    fn key_name(&self) -> KeyName {
        self.name
    }

    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let signature: ecdsa::Signature = self.key.try_multipart_sign(message).map_err(|_| SignError::SignerFailed)?;
        Ok(Signature(signature.to_bytes().into()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

/// A public key that checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    key: ecdsa::VerifyingKey,
    name: KeyName,
}

impl VerifyingKey {
    /// From a SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    /// When it is no P-256 key, or its point is not on the curve.
    pub fn from_spki(spki: &[u8]) -> Result<Self, PointRefused> {
        let point = spki.strip_prefix(&P256_SPKI).filter(|p| p.len() == 65).ok_or(PointRefused)?;
        let key = ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| PointRefused)?;
        Ok(Self { key, name: KeyName::of(spki) })
    }
}

impl Verify for VerifyingKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }

    fn key_name(&self) -> KeyName {
        self.name
    }

    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused> {
        let signature = ecdsa::Signature::from_slice(signature).map_err(|_| SignatureRefused)?;
        self.key.multipart_verify(message, &signature).map_err(|_| SignatureRefused)
    }
}
