//! P-256 and RSA behind the traits of [`fivefold_core::proof`] and [`fivefold_core::suite::agreement`], by aws-lc-rs: signing,
//! verifying, key agreement.
//!
//! Signatures are r ‖ s (64 bytes); key agreement takes and gives x coordinates alone.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, KeyPair, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{agreement, encoding::AsBigEndian};
use fivefold_core::proof::batch::Stated;
use fivefold_core::proof::statement::CONTEXT;
use fivefold_core::proof::{
    ED25519_SPKI, Header, KeyName, P256_SPKI, Sign, SignAlg, SignError, Signature, SignatureRefused, ToBeSigned, Verify,
};
use fivefold_core::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use fivefold_core::wire::key_message::RsaSize;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use zeroize::Zeroizing;

use crate::device_key::is_weak;
use crate::key_message::rsa::PrivateRsaSigner;
use crate::key_message::{InvalidRsaKey, PublicRsaKey, ServerKey};

/// Bytes of the moduli of RSA keys that sign: 2048, 3072 and 4096 bits.
const MODULI: [usize; 3] = [256, 384, 512];

/// SubjectPublicKeyInfo (DER) of an RSA key with this modulus and the exponent 65537 (RFC 8017 A.1.1), in its one form; and
/// where the RSAPublicKey in it begins. Every length in it takes two bytes, for moduli of 256 to 512 bytes.
fn rsa_spki(modulus: &[u8]) -> (Vec<u8>, usize) {
    let long = |tag: u8, length: usize| [tag, 0x82, (length >> 8) as u8, length as u8];
    let k = modulus.len();
    let algorithm = [0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];
    let outside = [&long(0x30, k + 34)[..], &algorithm, &long(0x03, k + 15), &[0]].concat();
    let key = [&long(0x30, k + 10)[..], &long(0x02, k + 1), &[0], modulus, &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    ([&outside[..], &key].concat(), outside.len())
}

/// What is no key, or none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of this kind: {0}")]
pub struct InvalidKey(pub(crate) &'static str);

/// A P-256 key that signs: a gateway's receipts, a CA's answers, or a device's batches. Prints only its name.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
    random: SystemRandom,
}

impl SigningKey {
    /// A new key, and its PKCS#8 to be sealed and kept.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), InvalidKey> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| InvalidKey("the system gave no randomness"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From PKCS#8 (DER).
    ///
    /// # Errors
    /// When it is no P-256 private key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| InvalidKey("expected a P-256 private key (PKCS#8)"))?;
        let spki = [&P256_SPKI[..], pair.public_key().as_ref()].concat();
        Ok(Self { pair, spki, random: SystemRandom::new() })
    }

    /// Its public key as SubjectPublicKeyInfo (DER), for certificates and registries.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({})", self.key_name())
    }
}

impl Sign for SigningKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }

    fn key_name(&self) -> KeyName {
        KeyName::of(&self.spki)
    }

    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let signature = self.pair.sign(&self.random, &message.concat()).map_err(|_| SignError::SignerFailed)?;
        signature.as_ref().try_into().map(Signature).map_err(|_| SignError::SignerFailed)
    }
}

/// The RSA key with which a hardened classic node signs its readings (docs/protocol.md 13.4). Prints only its name.
pub struct RsaSigningKey {
    signer: PrivateRsaSigner,
    public: PublicRsaKey,
}

impl RsaSigningKey {
    /// A new key of 2048 bits, and its PKCS#8 to be flashed.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), InvalidRsaKey> {
        let (_, pkcs8) = ServerKey::generate(RsaSize::Rsa2048)?;
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From PKCS#8 (DER).
    ///
    /// # Errors
    /// When it is no RSA private key of 2048 or 3072 bits.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidRsaKey> {
        let (signer, public) = PrivateRsaSigner::from_pkcs8(pkcs8)?;
        Ok(Self { signer, public })
    }

    /// Its public key as SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> &[u8] {
        self.public.spki()
    }

    /// Signs the statement of a batch.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn sign(&self, stated: &Stated) -> Result<Vec<u8>, InvalidRsaKey> {
        let header = Header { alg: SignAlg::Ps256, key: KeyName::of(self.spki()) };
        self.signer.sign(&ToBeSigned::new(header, CONTEXT, stated.as_bytes()).parts().concat())
    }
}

impl core::fmt::Debug for RsaSigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RsaSigningKey({})", KeyName::of(self.spki()))
    }
}

/// A public key that checks signatures: P-256 or Ed25519; of a device, RSA too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    alg: SignAlg,
    name: KeyName,
    point: Vec<u8>,
}

impl VerifyingKey {
    /// From a SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    /// When it is no P-256 or Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidKey> {
        let (alg, point) =
            if let Some(point) = spki.strip_prefix(&P256_SPKI).filter(|p| p.len() == 65 && p.first() == Some(&4)) {
                (SignAlg::Esp256, point)
            } else if let Some(point) = spki.strip_prefix(&ED25519_SPKI).filter(|p| p.len() == 32) {
                if is_weak(point) {
                    return Err(InvalidKey("an Ed25519 key of small order, or in another form than its only one"));
                }
                (SignAlg::Ed25519, point)
            } else {
                return Err(InvalidKey("expected the SubjectPublicKeyInfo of a P-256 or Ed25519 key"));
            };
        Ok(Self { alg, name: KeyName::of(spki), point: point.to_vec() })
    }

    /// The key that a device signs its readings with: as [`from_spki`](Self::from_spki), or RSA with 2048, 3072 or 4096 bits
    /// and the exponent 65537, in its one form. That such a device is a classic node is the caller's to see.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn of_device(spki: &[u8]) -> Result<Self, InvalidKey> {
        const MODULUS: usize = 33;
        let one = |k: usize| {
            let modulus = spki.get(MODULUS..)?.get(..k)?;
            let whole = modulus.first()? & 0x80 != 0 && modulus.last()? & 1 != 0;
            let (expected, at) = rsa_spki(modulus);
            (whole && expected == spki).then(|| spki.get(at..)).flatten()
        };
        match MODULI.into_iter().find_map(one) {
            Some(key) => Ok(Self { alg: SignAlg::Ps256, name: KeyName::of(spki), point: key.to_vec() }),
            None => Self::from_spki(spki),
        }
    }

    /// The key that a certificate is about. Nothing of the certificate is checked.
    ///
    /// # Errors
    /// When the certificate cannot be read, or its key is neither P-256 nor Ed25519.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, InvalidKey> {
        let (_, x509) =
            X509Certificate::from_der(certificate).map_err(|_| InvalidKey("the certificate cannot be read"))?;
        let spki: &SubjectPublicKeyInfo<'_> = x509.public_key();
        Self::from_spki(spki.raw)
    }

    /// Whether it is a key on P-256, which TLS certificates and receipts of gateways must have.
    pub fn is_p256(&self) -> bool {
        self.alg == SignAlg::Esp256
    }
}

impl Verify for VerifyingKey {
    fn alg(&self) -> SignAlg {
        self.alg
    }

    fn key_name(&self) -> KeyName {
        self.name
    }

    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.alg {
            SignAlg::Ed25519 if signature.get(..32).is_none_or(is_weak) => return Err(SignatureRefused),
            SignAlg::Ed25519 => &ED25519,
            SignAlg::Esp256 => &ECDSA_P256_SHA256_FIXED,
            SignAlg::Ps256 => &RSA_PSS_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.point)
            .verify(&message.concat(), signature)
            .map_err(|_| SignatureRefused)
    }
}

/// A P-256 key pair for key agreement (EDHOC suite 2). Prints nothing of the private key.
pub struct AgreementKey {
    private: agreement::PrivateKey,
    public_x: PublicX,
}

impl core::fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AgreementKey(..)")
    }
}

impl AgreementKey {
    /// The private scalar, to be sealed and kept.
    ///
    /// # Errors
    /// When the library does not give it out.
    pub fn danger_scalar(&self) -> Result<Zeroizing<Vec<u8>>, InvalidKey> {
        let scalar: aws_lc_rs::encoding::EcPrivateKeyBin<'static> =
            self.private.as_be_bytes().map_err(|_| InvalidKey("the key is not given out"))?;
        Ok(Zeroizing::new(scalar.as_ref().to_vec()))
    }
}

impl Agree for AgreementKey {
    fn from_random(random: &[u8; 32]) -> Option<Self> {
        let private = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, random).ok()?;
        let public = private.compute_public_key().ok()?;
        let public_x = PublicX(public.as_ref().get(1..33)?.try_into().ok()?);
        Some(Self { private, public_x })
    }

    fn public_x(&self) -> PublicX {
        self.public_x
    }

    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused> {
        // Either point with this x gives the same shared x: take the even one.
        let mut compressed = [2; 33];
        compressed.iter_mut().skip(1).zip(peer.0).for_each(|(c, x)| *c = x);
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, compressed);
        agreement::agree(&self.private, peer, PointRefused, |shared| {
            shared.try_into().map(SharedX::new).map_err(|_| PointRefused)
        })
    }
}

/// The x coordinate of a P-256 point (SEC1, compressed or not), if it lies on the curve.
///
/// # Errors
/// [`PointRefused`].
pub fn x_of_point(sec1: &[u8]) -> Result<PublicX, PointRefused> {
    let point = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, sec1);
    agreement::ParsedPublicKey::try_from(&point).map_err(|_| PointRefused)?;
    sec1.get(1..33).and_then(|x| x.try_into().ok()).map(PublicX).ok_or(PointRefused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use fivefold_core::proof::Sign1;

    #[test]
    fn what_one_key_signs_only_that_key_verifies() {
        let (key, pkcs8) = SigningKey::generate().unwrap();
        let (other, _) = SigningKey::generate().unwrap();
        let mut out = [0; 200];
        let n = Sign1::seal(&key, b"context", b"payload", &mut out).unwrap();
        let signed = Sign1::parse(&out[..n]).unwrap();
        let public = VerifyingKey::from_spki(SigningKey::from_pkcs8(&pkcs8).unwrap().spki()).unwrap();
        assert_eq!(signed.verify(&public, b"context"), Ok(&b"payload"[..]));
        assert!(signed.verify(&public, b"other").is_err());
        assert!(signed.verify(&VerifyingKey::from_spki(other.spki()).unwrap(), b"context").is_err());
    }

    #[test]
    fn rsa_signs_for_devices_alone_and_has_one_form() {
        let (key, pkcs8) = RsaSigningKey::generate().unwrap();
        assert_eq!(RsaSigningKey::from_pkcs8(&pkcs8).unwrap().spki(), key.spki());
        assert!(VerifyingKey::from_spki(key.spki()).is_err(), "not a gateway's");
        let public = VerifyingKey::of_device(key.spki()).unwrap();
        assert_eq!((public.alg(), public.is_p256()), (SignAlg::Ps256, false));
        let statement = b"statement";
        let header = Header { alg: SignAlg::Ps256, key: public.key_name() };
        let signature = key.signer.sign(&ToBeSigned::new(header, CONTEXT, statement).parts().concat()).unwrap();
        let mut out = vec![0; statement.len() + Sign1::AROUND + signature.len()];
        let n = Sign1::of(header, statement, &signature).emit(&mut out).unwrap();
        let signed = Sign1::parse(&out[..n]).unwrap();
        assert_eq!(signed.verify(&public, CONTEXT), Ok(&statement[..]));
        assert!(signed.verify(&public, b"other").is_err());
        let (other, _) = RsaSigningKey::generate().unwrap();
        assert!(signed.verify(&VerifyingKey::of_device(other.spki()).unwrap(), CONTEXT).is_err());
        // Modulus even, or too short; exponent; a byte more or less.
        for (at, byte) in [(33, 0x7F), (33 + 255, 2), (293, 3), (0, 0x31), (3, 0)] {
            let mut bent = key.spki().to_vec();
            bent[at] = byte;
            assert!(VerifyingKey::of_device(&bent).is_err(), "{at}");
        }
        assert!(VerifyingKey::of_device(&[key.spki(), &[0]].concat()).is_err());
        assert!(VerifyingKey::of_device(&key.spki()[..293]).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(SigningKey::from_pkcs8(b"no key").is_err());
        let (key, _) = SigningKey::generate().unwrap();
        let spki = key.spki().to_vec();
        assert!(VerifyingKey::from_spki(&spki[..spki.len() - 1]).is_err());
        assert!(VerifyingKey::from_spki(&[0; 91]).is_err());
        assert!(!format!("{key:?}").contains("pair"));
    }

    #[test]
    fn two_sides_agree_by_x_coordinates_alone() {
        let a = AgreementKey::from_random(&[7; 32]).unwrap();
        let b = AgreementKey::from_random(&[9; 32]).unwrap();
        let [ab, ba] = [a.agree(&b.public_x()), b.agree(&a.public_x())].map(Result::unwrap);
        assert_eq!(ab.danger_bytes(), ba.danger_bytes());
        assert_eq!(a.danger_scalar().unwrap()[..], [7; 32]);
        assert!(AgreementKey::from_random(&[0; 32]).is_none());
        assert!(AgreementKey::from_random(&[0xFF; 32]).is_none());
        let mut off_curve = 0;
        for x in 0..20u8 {
            let mut candidate = [0; 32];
            candidate[31] = x;
            off_curve += usize::from(a.agree(&PublicX(candidate)).is_err());
        }
        assert!(off_curve > 0, "about half of all x have no point");
    }
}
