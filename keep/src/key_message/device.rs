//! The device's side with RSA by aws-lc-rs: for devices that have an operating system, and for tests.

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, Offer, to_be_signed};
use fivefold_core::id::Serial;
use fivefold_core::wire::key_message::{Auth, Header, KR1_LONGEST, KeyEpoch, KeyLevel, Kr1};

use super::rsa::{InvalidRsaKey, PrivateRsaSigner, PublicRsaKey, encrypt};

/// Why a device cannot make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// A key that the library does not use.
    #[error(transparent)]
    Key(#[from] InvalidRsaKey),
    /// hdr has one size for both keys.
    #[error("the device's RSA key and the server's differ in size: use a server key of the device's size")]
    Sizes,
}

/// How a device proves that a message is its own.
pub struct Identity(Kind);

enum Kind {
    Mac(EnrolmentKey),
    Signature(PrivateRsaSigner, PublicRsaKey),
}

impl Identity {
    /// It cannot sign: HMAC under the enrolment key.
    pub const fn mac(key: EnrolmentKey) -> Self {
        Self(Kind::Mac(key))
    }

    /// It signs with its private key (PKCS#8, DER).
    ///
    /// # Errors
    /// When it is no RSA private key of 2048 or 3072 bits with an exponent of 65537 or more.
    pub fn signing(pkcs8: &[u8]) -> Result<Self, InvalidRsaKey> {
        let (signer, public) = PrivateRsaSigner::from_pkcs8(pkcs8)?;
        Ok(Self(Kind::Signature(signer, public)))
    }
}

/// A device that makes key messages for one server.
pub struct DeviceSide {
    serial: Serial,
    level: KeyLevel,
    identity: Identity,
    server: PublicRsaKey,
    server_spki: Vec<u8>,
}

impl DeviceSide {
    /// A device, what its keys are for, and the SubjectPublicKeyInfo (DER) of its server.
    ///
    /// # Errors
    /// When a key is none of ours, or the two differ in size.
    pub fn new(serial: Serial, level: KeyLevel, identity: Identity, server_spki: &[u8]) -> Result<Self, OfferError> {
        let server = PublicRsaKey::from_spki(server_spki)?;
        match &identity.0 {
            Kind::Signature(_, own) if own.size() != server.size() => Err(OfferError::Sizes),
            _ => Ok(Self { serial, level, identity, server, server_spki: server_spki.to_vec() }),
        }
    }

    /// Makes KR1 for the key of that epoch, and what waits for its KR2. Seed and key are given; the seed of OAEP and the
    /// salt of PSS come from the library.
    ///
    /// The message and the key are durable before the message is sent, and the same bytes are sent until an answer
    /// verifies.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn offer(&self, epoch: KeyEpoch, fresh: FreshKey) -> Result<(Vec<u8>, Offer), OfferError> {
        let auth = match &self.identity.0 {
            Kind::Mac(_) => Auth::Mac,
            Kind::Signature(..) => Auth::Signature,
        };
        let header = Header {
            size: self.server.size(),
            auth,
            serial: self.serial,
            level: self.level,
            keylen: fresh.key_len(),
            epoch,
            server: self.server.kid(),
        };
        let label = header.to_bytes();
        let ciphertext = encrypt(&self.server_spki, &label, fresh.danger_plaintext())?;
        let proof = match &self.identity.0 {
            Kind::Mac(key) => key.mac(&label, &ciphertext).to_vec(),
            Kind::Signature(key, _) => key.sign(&to_be_signed(&label, &ciphertext).concat())?,
        };
        let kr1 = Kr1 { header, ciphertext: &ciphertext, proof: &proof };
        let mut bytes = vec![0; KR1_LONGEST];
        let len = kr1.emit(&mut bytes).unwrap_or_default();
        bytes.truncate(len);
        Ok((bytes, Offer::new(&kr1, fresh)))
    }
}

impl core::fmt::Debug for DeviceSide {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DeviceSide({}, for {})", self.serial, self.server.kid())
    }
}
