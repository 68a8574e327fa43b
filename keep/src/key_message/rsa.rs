//! RSA by aws-lc-rs, at 2048 and 3072 bits: OAEP and PSS of RFC 8017 with SHA-256, MGF1-SHA-256 and a salt of 32 bytes.
//!
//! The library refuses keys below 2048 bits; what a server does with RSA-1024 comes in through [`Decrypt`] and
//! [`VerifyPss`] from elsewhere, or not at all.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, UnparsedPublicKey};
use fivefold_core::e5_renewal::key_message::to_be_signed;
use fivefold_core::id::ServerKid;
use fivefold_core::suite::sha256;
use fivefold_core::wire::key_message::{HEADER, RsaSize};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

/// What is no RSA key that a key message may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA key for key messages: {0}")]
pub struct InvalidRsaKey(&'static str);

/// The ciphertext does not open, whatever the reason: RFC 8017 7.1.2 knows one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open under this key and label")]
pub struct Undecryptable;

/// The signature is not this key's over this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold")]
pub struct SignatureRefused;

/// The private operation of a server.
///
/// Whoever implements it answers for this: with ciphertexts c of 1 < c < n - 1 it takes the same time whether the
/// ciphertext opens or not, and whatever is in it.
pub trait Decrypt: Send + Sync {
    /// RSAES-OAEP-DECRYPT (RFC 8017 7.1.2) with SHA-256 and MGF1-SHA-256. Writes M and returns its length.
    ///
    /// # Errors
    /// [`Undecryptable`].
    fn decrypt(&self, label: &[u8], ciphertext: &[u8], m: &mut [u8; RsaSize::LONGEST]) -> Result<usize, Undecryptable>;
}

/// The public key of a device that signs.
pub trait VerifyPss: Send + Sync {
    /// Size of the key.
    fn size(&self) -> RsaSize;

    /// RSASSA-PSS-VERIFY (RFC 8017 8.1.2) with SHA-256, MGF1-SHA-256 and a salt of 32 bytes. Does the public operation
    /// with every signature of the key's length.
    ///
    /// # Errors
    /// [`SignatureRefused`].
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRefused>;
}

/// A public RSA key: of exactly one of our sizes, with an odd exponent of 65537 or more (AR-14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicRsaKey {
    size: RsaSize,
    modulus: Vec<u8>,
    spki: Vec<u8>,
    /// RSAPublicKey of RFC 8017 A.1.1.
    der: Vec<u8>,
    kid: ServerKid,
}

impl PublicRsaKey {
    /// From a SubjectPublicKeyInfo (DER) with rsaEncryption.
    ///
    /// # Errors
    /// When it is none, has another size, or an exponent below 65537.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidRsaKey> {
        const NO_SPKI: InvalidRsaKey = InvalidRsaKey("expected the SubjectPublicKeyInfo of an RSA key (rsaEncryption)");
        let (rest, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| NO_SPKI)?;
        let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(NO_SPKI) };
        if !rest.is_empty() || info.algorithm.algorithm != x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION {
            return Err(NO_SPKI);
        }
        let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
        let size = RsaSize::ALL
            .into_iter()
            .find(|size| size.bytes() == modulus.len() && modulus.first().is_some_and(|top| top & 0x80 != 0))
            .ok_or(InvalidRsaKey("expected 1024, 2048 or 3072 bits"))?;
        let exponent = key.try_exponent().unwrap_or(0);
        if exponent < 65537 || exponent.is_multiple_of(2) {
            return Err(InvalidRsaKey("expected an odd public exponent of 65537 or more (AR-14)"));
        }
        let [a, b, c, d, ..] = sha256(&[spki]);
        let der = info.subject_public_key.data.to_vec();
        Ok(Self { size, modulus: modulus.to_vec(), spki: spki.to_vec(), der, kid: ServerKid([a, b, c, d]) })
    }

    /// Its size.
    pub const fn size(&self) -> RsaSize {
        self.size
    }

    /// Its name as srv_kid: SHA-256 of the SubjectPublicKeyInfo, the first four bytes.
    pub const fn kid(&self) -> ServerKid {
        self.kid
    }

    /// Its SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its modulus, big-endian, without zeros before it: k bytes.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Whether the private operation works on it in full: 1 < c < n - 1. Others a library refuses at once.
    pub(super) fn is_ordinary(&self, c: &[u8]) -> bool {
        let (Some((last, high)), Some((n_last, n_high))) = (c.split_last(), self.modulus.split_last()) else {
            return false;
        };
        // n is odd, so that n - 1 differs from n in its last byte only.
        let below = c.len() == self.modulus.len() && (high, *last) < (n_high, n_last - 1);
        below && (high.iter().any(|b| *b != 0) || *last > 1)
    }
}

/// The public key of a device that signs, of 2048 or 3072 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKey(PublicRsaKey);

impl DeviceKey {
    /// From a SubjectPublicKeyInfo (DER) with rsaEncryption.
    ///
    /// # Errors
    /// When it is none, has another size, or an exponent below 65537.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidRsaKey> {
        Self::new(PublicRsaKey::from_spki(spki)?)
    }

    fn new(key: PublicRsaKey) -> Result<Self, InvalidRsaKey> {
        match key.size {
            RsaSize::Rsa1024 => Err(InvalidRsaKey("this version verifies with keys of 2048 and 3072 bits")),
            RsaSize::Rsa2048 | RsaSize::Rsa3072 => Ok(Self(key)),
        }
    }
}

impl VerifyPss for DeviceKey {
    fn size(&self) -> RsaSize {
        self.0.size
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRefused> {
        // A number of n or more is refused before the public operation, which would tell whose key it was held against.
        // Without its top byte it is below every n, and the outcome is no longer asked for.
        let Self(PublicRsaKey { modulus, der, .. }) = self;
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, der);
        if signature.len() == modulus.len() && signature >= modulus.as_slice() {
            let mut lower = signature.to_vec();
            lower.iter_mut().take(1).for_each(|top| *top = 0);
            let _ = key.verify(message, &lower);
            return Err(SignatureRefused);
        }
        key.verify(message, signature).map_err(|_| SignatureRefused)
    }
}

/// A private RSA key that decrypts. Prints nothing of itself.
pub struct PrivateRsaKey(OaepPrivateDecryptingKey);

impl PrivateRsaKey {
    /// From PKCS#8 (DER).
    ///
    /// # Errors
    /// When it is no RSA private key of 2048 bits or more.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidRsaKey> {
        const NO_KEY: InvalidRsaKey = InvalidRsaKey("expected an RSA private key (PKCS#8) of 2048 or 3072 bits");
        let key = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| NO_KEY)?;
        OaepPrivateDecryptingKey::new(key).map(Self).map_err(|_| NO_KEY)
    }
}

impl Decrypt for PrivateRsaKey {
    fn decrypt(&self, label: &[u8], ciphertext: &[u8], m: &mut [u8; RsaSize::LONGEST]) -> Result<usize, Undecryptable> {
        let opened = self.0.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, m, Some(label));
        opened.map(|m| m.len()).map_err(|_| Undecryptable)
    }
}

impl core::fmt::Debug for PrivateRsaKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PrivateRsaKey(..)")
    }
}

/// What is checked and decrypted when a message does not deserve it: it opens under the server's own key, and its
/// signature holds, so that it costs what a good message costs.
pub struct Decoy {
    /// The label of `ciphertext`.
    pub header: [u8; HEADER],
    /// 48 bytes, encrypted for the server's own key.
    pub ciphertext: Vec<u8>,
    /// Over the two, by `key`.
    pub signature: Vec<u8>,
    /// The key that the signature holds under.
    pub key: Box<dyn VerifyPss>,
}

/// A server's key: its public half, the private operation, and a decoy.
pub struct ServerKey {
    public: PublicRsaKey,
    private: Box<dyn Decrypt>,
    decoy: Decoy,
}

impl ServerKey {
    /// A new key of 2048 or 3072 bits, and its PKCS#8 to be sealed and kept.
    ///
    /// # Errors
    /// For another size, and when the system gives no randomness.
    pub fn generate(size: RsaSize) -> Result<(Self, Zeroizing<Vec<u8>>), InvalidRsaKey> {
        let bits = match size {
            RsaSize::Rsa1024 => return Err(InvalidRsaKey("this version makes keys of 2048 and 3072 bits")),
            RsaSize::Rsa2048 => KeySize::Rsa2048,
            RsaSize::Rsa3072 => KeySize::Rsa3072,
        };
        let key = PrivateDecryptingKey::generate(bits).map_err(|_| InvalidRsaKey("the system gave no randomness"))?;
        let pkcs8 = key.as_der().map_err(|_| InvalidRsaKey("the key is not given out"))?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From PKCS#8 (DER).
    ///
    /// # Errors
    /// When it is no RSA private key of 2048 or 3072 bits with an exponent of 65537 or more.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, InvalidRsaKey> {
        const NO_KEY: InvalidRsaKey = InvalidRsaKey("expected an RSA private key (PKCS#8) of 2048 or 3072 bits");
        let key = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| NO_KEY)?;
        let spki: PublicKeyX509Der<'static> = key.public_key().as_der().map_err(|_| NO_KEY)?;
        let public = PublicRsaKey::from_spki(spki.as_ref())?;
        let decoy = Self::decoy(&public, &key, pkcs8).ok_or(NO_KEY)?;
        Self::danger_foreign(public, Box::new(PrivateRsaKey::from_pkcs8(pkcs8)?), decoy)
    }

    /// A key whose private operation is done elsewhere, or by another library. It is the caller who answers for what
    /// [`Decrypt`] demands.
    ///
    /// # Errors
    /// When the decoy does not open, or its signature does not hold: then it is another key's.
    pub fn danger_foreign(
        public: PublicRsaKey,
        private: Box<dyn Decrypt>,
        decoy: Decoy,
    ) -> Result<Self, InvalidRsaKey> {
        const OTHER: InvalidRsaKey = InvalidRsaKey("its decoy is another key's");
        let Decoy { header, ciphertext, signature, key } = &decoy;
        let mut m = Zeroizing::new([0; RsaSize::LONGEST]);
        private.decrypt(header, ciphertext, &mut m).map_err(|_| OTHER)?;
        key.verify(&to_be_signed(header, ciphertext).concat(), signature).map_err(|_| OTHER)?;
        Ok(Self { public, private, decoy })
    }

    /// Its public half.
    pub const fn public(&self) -> &PublicRsaKey {
        &self.public
    }

    /// What [`danger_foreign`](Self::danger_foreign) takes, to put something between.
    pub fn danger_into_parts(self) -> (PublicRsaKey, Box<dyn Decrypt>, Decoy) {
        (self.public, self.private, self.decoy)
    }

    /// One private operation: on the message if there is one, on the decoy if not, or if the message is a number that
    /// would be refused without it.
    pub(super) fn open(
        &self,
        message: Option<(&[u8; HEADER], &[u8])>,
        m: &mut [u8; RsaSize::LONGEST],
    ) -> Result<usize, Undecryptable> {
        let message = message.filter(|(_, c)| self.public.is_ordinary(c));
        let (label, ciphertext) = message.unwrap_or((&self.decoy.header, &self.decoy.ciphertext));
        let opened = self.private.decrypt(label, ciphertext, m);
        if message.is_some() { opened } else { Err(Undecryptable) }
    }

    /// One check of a signature, of which nothing is asked.
    pub(super) fn check_decoy(&self) {
        let Decoy { header, ciphertext, signature, key } = &self.decoy;
        let _ = key.verify(&to_be_signed(header, ciphertext).concat(), signature);
    }

    fn decoy(public: &PublicRsaKey, key: &PrivateDecryptingKey, pkcs8: &[u8]) -> Option<Decoy> {
        let header = [0; HEADER];
        let mut ciphertext = vec![0; public.size.bytes()];
        let encrypting = OaepPublicEncryptingKey::new(key.public_key()).ok()?;
        encrypting.encrypt(&OAEP_SHA256_MGF1SHA256, &[0; 48], &mut ciphertext, Some(&header)).ok()?;
        // The one signature that this key makes: nobody but this process ever sees it.
        let signature = PrivateRsaSigner(KeyPair::from_pkcs8(pkcs8).ok()?);
        let signature = signature.sign(&to_be_signed(&header, &ciphertext).concat()).ok()?;
        Some(Decoy { header, ciphertext, signature, key: Box::new(DeviceKey::new(public.clone()).ok()?) })
    }
}

impl core::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ServerKey({}, {} bits)", self.public.kid, self.public.size.bits())
    }
}

/// Encrypts for a server.
pub(super) fn encrypt(spki: &[u8], label: &[u8; HEADER], m: &[u8]) -> Result<Vec<u8>, InvalidRsaKey> {
    const REFUSED: InvalidRsaKey = InvalidRsaKey("the library refused to encrypt for the server's key");
    let key = PublicEncryptingKey::from_der(spki).map_err(|_| REFUSED)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| REFUSED)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, m, &mut ciphertext, Some(label)).map_err(|_| REFUSED)?;
    Ok(ciphertext)
}

/// A private RSA key that signs: a device's. Prints nothing of itself.
pub(crate) struct PrivateRsaSigner(KeyPair);

impl PrivateRsaSigner {
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<(Self, PublicRsaKey), InvalidRsaKey> {
        const NO_KEY: InvalidRsaKey = InvalidRsaKey("expected an RSA private key (PKCS#8) of 2048 or 3072 bits");
        let pair = KeyPair::from_pkcs8(pkcs8).map_err(|_| NO_KEY)?;
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let spki: PublicKeyX509Der<'static> = public.as_der().map_err(|_| NO_KEY)?;
        Ok((Self(pair), PublicRsaKey::from_spki(spki.as_ref())?))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, InvalidRsaKey> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| InvalidRsaKey("the library refused to sign"))?;
        Ok(signature)
    }
}
