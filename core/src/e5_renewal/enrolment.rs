//! Enrolment (docs/protocol.md 11.1): a device makes its key itself, and the operator's CA says in one signed and sealed
//! answer whose it is and what belongs to it.
//!
//! | | |
//! |---|---|
//! | Key held by | the device: its DH key; the operator: the key of the CA |
//! | Hides       | network key and root_psk, from whoever carries the answer |
//! | Proves      | to the device, which operator enrolled it |
//! | Binds       | EUI-64 and public key to short id, network, policy record and the cloud's key |
//! | Drops as    | `E5-02` changed or forged, `E5-03` for another device or by another operator |
//! | Does not    | prove to the operator whose request it is: people compare the [`Fingerprint`] |
//!
//! [`Fingerprint`]: crate::wire::enrolment::Fingerprint
//!
//! ```text
//! K ‖ N  = HKDF(salt = did ‖ x, ikm = ECDH(ephemeral, x), info = "fivefold enrol v1" ‖ ephemeral x, 32 + 13)
//! sealed = AES-CCM-16-64-256(K, N, aad = did ‖ x, [CA's public key (64, x ‖ y), COSE_Sign1(grant)])
//!          external_aad of the signature: "fivefold-enrol-v1" ‖ did ‖ x
//! ```
//!
//! The ephemeral key is used once, so K and N are.

use zeroize::{Zeroize as _, Zeroizing};

use super::{agree, forged};
use crate::error::{Code, Rejected, SealError};
use crate::id::Did;
use crate::proof::possession::SigningPoint;
use crate::proof::{P256_SPKI, Sign, Sign1, SignError, Verify};
use crate::suite::agreement::{Agree, PointRefused, PublicX};
use crate::suite::{AeadSchedule, Alg, NONCE, TAG, hkdf};
use crate::wire::cbor::{Malformed, Reader, Writer};
use crate::wire::enrolment::{Answer, Grant, Request};

const INFO: &[u8] = b"fivefold enrol v1";
const SIGNED: &[u8] = b"fivefold-enrol-v1";
const SIGNED_GRANT: usize = Grant::LONGEST + Sign1::OVERHEAD;
const PLAINTEXT: usize = 1 + 2 + AuthorityKey::SIZE + SIGNED_GRANT;

// An answer must hold what can stand in it.
const _: () = assert!(PLAINTEXT + TAG + 1 + 2 + 10 + 35 + 4 <= Answer::LONGEST);

/// The public P-256 key of an operator's CA: x ‖ y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityKey(pub [u8; Self::SIZE]);

impl AuthorityKey {
    /// Bytes of one.
    pub const SIZE: usize = 64;

    /// Out of a SubjectPublicKeyInfo (DER); `None` if that is no uncompressed P-256 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        SigningPoint::from_spki(spki).map(|point| Self(point.0))
    }

    /// As SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> [u8; P256_SPKI.len() + 1 + Self::SIZE] {
        SigningPoint(self.0).spki()
    }
}

/// Why an answer could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSealed {
    /// The request's key is no point of the curve.
    Key(PointRefused),
    /// The CA did not sign.
    Sign(SignError),
}

impl From<SealError> for NotSealed {
    fn from(e: SealError) -> Self {
        Self::Sign(SignError::Encode(e))
    }
}

impl core::fmt::Display for NotSealed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Key(e) => e.fmt(f),
            Self::Sign(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for NotSealed {}

/// Signs a grant and seals it for the device that asked; returns how many bytes of `out` the answer takes. `ephemeral` is
/// drawn for this answer and used for nothing else.
///
/// # Errors
/// [`NotSealed`].
pub fn answer(
    request: &Request,
    grant: &Grant<'_>,
    (authority, authority_key): (&impl Sign, &AuthorityKey),
    ephemeral: impl Agree,
    out: &mut [u8],
) -> Result<usize, NotSealed> {
    let bound = bound(request.did, &request.x);
    let mut granted = Zeroizing::new([0; Grant::LONGEST]);
    let len = grant.emit(granted.as_mut_slice())?;
    let mut signed = Zeroizing::new([0; SIGNED_GRANT]);
    let granted = granted.get(..len).unwrap_or_default();
    let len = Sign1::seal(authority, &external_aad(&bound), granted, signed.as_mut_slice()).map_err(NotSealed::Sign)?;
    let mut sealed = Zeroizing::new([0; PLAINTEXT + TAG]);
    let mut w = Writer::new(sealed.as_mut_slice());
    w.array(2)?;
    w.bytes(&authority_key.0)?;
    w.encoded(signed.get(..len).unwrap_or_default())?;
    let len = w.len();
    let public = ephemeral.public_x();
    let cipher = Cipher::agree(&ephemeral, &request.x, &public, &bound).map_err(NotSealed::Key)?;
    let body = sealed.get_mut(..len).unwrap_or_default();
    let tag = cipher.schedule.seal(&cipher.nonce, &bound, body);
    sealed.get_mut(len..len + TAG).ok_or(SealError::BufferTooSmall)?.copy_from_slice(&tag);
    let sealed = sealed.get(..len + TAG).unwrap_or_default();
    Ok(Answer { did: request.did, ephemeral: public, sealed }.emit(out)?)
}

/// What an answer holds, once it was opened with the device's key. Nothing says yet by whom it is. Wiped when dropped.
pub struct Opened {
    plaintext: Zeroizing<[u8; PLAINTEXT]>,
    authority: AuthorityKey,
    /// Where the signed grant stands.
    signed: core::ops::Range<usize>,
    bound: [u8; BOUND],
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Opened(..)")
    }
}

impl Opened {
    /// Opens an answer for the device `did` that has the key `own`.
    ///
    /// # Errors
    /// E5-03 when it is for another device; E5-02 when it is none, was changed, or is for another key of this device.
    pub fn open(answer: &[u8], did: Did, own: &impl Agree) -> Result<Self, Rejected> {
        let answer = Answer::parse(answer).map_err(refused)?;
        if answer.did != did {
            return Err(Rejected::new(Code::RenewalUnknownCredential, "the answer is for another device"));
        }
        const OTHER_KEY: Rejected = forged("the answer was changed, or is for keys that this device had before");
        let bound = bound(did, &own.public_x());
        let cipher = Cipher::agree(own, &answer.ephemeral, &answer.ephemeral, &bound).map_err(|_| OTHER_KEY)?;
        let (body, tag) = answer.sealed.split_last_chunk::<TAG>().ok_or(OTHER_KEY)?;
        let mut plaintext = Zeroizing::new([0; PLAINTEXT]);
        let place = plaintext.get_mut(..body.len()).ok_or(OTHER_KEY)?;
        place.copy_from_slice(body);
        cipher.schedule.open(&cipher.nonce, &bound, place, tag).map_err(|_| OTHER_KEY)?;
        let mut r = Reader::new(place);
        r.array_of(2).map_err(refused)?;
        let authority = AuthorityKey(*r.bytes_of().map_err(refused)?);
        let signed = place.len() - r.rest().len()..place.len();
        Ok(Self { plaintext, authority, signed, bound })
    }

    /// The CA that claims to have signed. A device that knows its operator's compares; one that does not learns it here.
    pub const fn authority(&self) -> &AuthorityKey {
        &self.authority
    }

    /// The grant, once the signature of `key` holds.
    ///
    /// # Errors
    /// E5-03 when another CA signed it; E5-02 when the signature does not hold, or what was signed is no grant.
    pub fn verify(&self, key: &impl Verify) -> Result<Grant<'_>, Rejected> {
        let signed = self.plaintext.get(self.signed.clone()).unwrap_or_default();
        let signed = Sign1::parse(signed).map_err(refused)?;
        if signed.header.key != key.key_name() {
            return Err(Rejected::new(Code::RenewalUnknownCredential, "the answer is signed by another operator's CA"));
        }
        let aad = external_aad(&self.bound);
        let granted =
            signed.verify(key, &aad).map_err(|_| forged("the signature of the operator's CA does not hold"))?;
        Grant::parse(granted).map_err(refused)
    }
}

const fn refused(malformed: Malformed) -> Rejected {
    malformed.counted(Code::RenewalForged)
}

const BOUND: usize = 8 + 32;

/// What everything is bound to: did ‖ x.
fn bound(did: Did, x: &PublicX) -> [u8; BOUND] {
    let mut bound = [0; BOUND];
    bound.iter_mut().zip(did.0.iter().chain(&x.0)).for_each(|(o, b)| *o = *b);
    bound
}

fn external_aad(bound: &[u8; BOUND]) -> [u8; SIGNED.len() + BOUND] {
    let mut aad = [0; SIGNED.len() + BOUND];
    aad.iter_mut().zip(SIGNED.iter().chain(bound)).for_each(|(o, b)| *o = *b);
    aad
}

struct Cipher {
    schedule: AeadSchedule,
    nonce: [u8; NONCE],
}

impl Cipher {
    fn agree(own: &impl Agree, peer: &PublicX, ephemeral: &PublicX, bound: &[u8; BOUND]) -> Result<Self, PointRefused> {
        let shared = agree(own, peer)?;
        let mut out: [u8; 32 + NONCE] = hkdf(bound, shared.expose(), &[INFO, &ephemeral.0]);
        let (key, rest) = out.split_at(32);
        let schedule = AeadSchedule::new(Alg::AesCcm16_64_256, key);
        let nonce = rest.first_chunk().copied().unwrap_or_default();
        out.zeroize();
        Ok(Self { schedule, nonce })
    }
}

#[cfg(all(test, feature = "p256"))]
mod tests {
    use super::*;
    use crate::e5_renewal::PeerKid;
    use crate::id::{Epoch, GatewayGroup, Net, Sid};
    use crate::profile::{Overrides, Policy, Profile};
    use crate::suite::p256::{AgreementKey, SigningKey, VerifyingKey};

    fn key(n: u8) -> AgreementKey {
        AgreementKey::from_random(&[n; 32]).unwrap()
    }

    const DID: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);

    fn grant() -> Grant<'static> {
        Grant {
            net: Net(7),
            sid: Sid(0x0a17),
            pan: 0x4321,
            group: GatewayGroup(1),
            epoch: Epoch(1),
            policy: Policy::new(Profile::ToBoth),
            overrides: Overrides::NONE,
            cloud_kid: PeerKid::new(0).unwrap(),
            cloud_x: key(9).public_x(),
            key_index: 1,
            network_key: &[9; 16],
            root_psk: &[10; 32],
        }
    }

    fn sealed(device: u8, ca: u8) -> ([u8; Answer::LONGEST], usize, VerifyingKey) {
        let ca = SigningKey::from_random(&[ca; 32]).unwrap();
        let public = AuthorityKey::from_spki(&ca.spki()).unwrap();
        assert_eq!(public.spki(), ca.spki());
        let request = Request { did: DID, x: key(device).public_x(), made: None, signing: None };
        let mut out = [0; Answer::LONGEST];
        let len = answer(&request, &grant(), (&ca, &public), key(0x55), &mut out).unwrap();
        (out, len, VerifyingKey::from_spki(&ca.spki()).unwrap())
    }

    #[test]
    fn the_device_that_asked_opens_its_answer_and_nobody_else() {
        let (bytes, len, ca) = sealed(1, 2);
        let opened = Opened::open(&bytes[..len], DID, &key(1)).unwrap();
        assert_eq!(opened.verify(&ca).unwrap(), grant());
        assert_eq!(VerifyingKey::from_spki(&opened.authority().spki()).unwrap(), ca);
        let code = |r: Result<Opened, Rejected>| r.unwrap_err().code;
        assert_eq!(code(Opened::open(&bytes[..len], DID, &key(3))), Code::RenewalForged);
        let other = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 2]);
        assert_eq!(code(Opened::open(&bytes[..len], other, &key(1))), Code::RenewalUnknownCredential);
        // Neither key stands in it as it is.
        assert!(!bytes.windows(16).any(|w| w == [9; 16] || w == [10; 16]));
    }

    #[test]
    fn an_answer_with_any_bit_changed_or_cut_is_refused() {
        let (bytes, len, _) = sealed(1, 2);
        for at in 0..len {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(Opened::open(&changed[..len], DID, &key(1)).is_err(), "byte {at}");
            assert!(Opened::open(&bytes[..at], DID, &key(1)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_operators_answer_is_told_from_a_forged_one() {
        let (bytes, len, ca) = sealed(1, 2);
        let (_, _, other) = sealed(1, 4);
        let opened = Opened::open(&bytes[..len], DID, &key(1)).unwrap();
        assert_eq!(opened.verify(&other).unwrap_err().code, Code::RenewalUnknownCredential);
        // Somebody who seals for the device and does not have the CA's key.
        let thief = SigningKey::from_random(&[6; 32]).unwrap();
        struct Claims<'a>(&'a SigningKey, VerifyingKey);
        impl Sign for Claims<'_> {
            fn alg(&self) -> crate::proof::SignAlg {
                self.0.alg()
            }
            fn key_name(&self) -> crate::proof::KeyName {
                Verify::key_name(&self.1)
            }
            fn sign(&self, message: &[&[u8]]) -> Result<crate::proof::Signature, SignError> {
                self.0.sign(message)
            }
        }
        let request = Request { did: DID, x: key(1).public_x(), made: None, signing: None };
        let mut out = [0; Answer::LONGEST];
        let named = Claims(&thief, ca.clone());
        let len = answer(&request, &grant(), (&named, opened.authority()), key(0x56), &mut out).unwrap();
        let forged = Opened::open(&out[..len], DID, &key(1)).unwrap();
        assert_eq!(forged.verify(&ca).unwrap_err().code, Code::RenewalForged);
    }

    #[test]
    fn a_request_with_a_key_off_the_curve_is_not_answered() {
        let ca = SigningKey::from_random(&[2; 32]).unwrap();
        let public = AuthorityKey::from_spki(&ca.spki()).unwrap();
        let off = (0..20u8).map(|n| PublicX([n; 32])).filter(|x| {
            let request = Request { did: DID, x: *x, made: None, signing: None };
            let sealed = answer(&request, &grant(), (&ca, &public), key(0x55), &mut [0; Answer::LONGEST]);
            matches!(sealed, Err(NotSealed::Key(_)))
        });
        assert!(off.count() > 2, "zero, and about half of all others");
    }
}
