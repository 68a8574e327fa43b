//! Enrolment of a device (docs/protocol.md 11.1): what it asks with, and what it is answered.
//!
//! ```text
//! request = {1: 1, 2: did(8), 3: x(32), ?4: made, 5: fingerprint(8), ?6: [key, proof(64)]}
//! signing = {1: 3, 2: did(8), ?3: x(32), ?4: made, 5: fingerprint(8), 6: [key, proof(64)]}
//! answer  = {1: 2, 2: did(8), 3: ephemeral x(32), 4: sealed}
//! key     = the signing key: x ‖ y of P-256 (64), or Ed25519 (32)
//! grant   = {1: net(4), 2: sid(2), 3: pan, 4: gg(4), 5: epoch, 6: policy record, 7: overrides, 8: [kid, x(32)],
//!            9: [index, K_net(16)], 10: root_psk(32)}
//! ```
//!
//! Neither request nor answer holds a secret in clear; a grant does, and stands sealed in an answer only. As text, for QR
//! codes and for people who copy it, both are [`TEXT`] and base45.

mod signing;

use core::fmt;

use crate::e5_renewal::PeerKid;
use crate::error::SealError;
use crate::id::{Did, Epoch, GatewayGroup, Net, Sid};
use crate::profile::{Overrides, Policy, key_index};
use crate::proof::possession::Possession;
use crate::suite::agreement::PublicX;
use crate::suite::sha256;
use crate::wire::base45;
use crate::wire::cbor::{Element, Malformed, Reader, Writer};

pub use signing::SigningRequest;

/// What stands before a request or an answer that is written as text.
pub const TEXT: &str = "FV1:";

const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const SIGNING: u8 = 3;

/// What a device asks to be enrolled with: its permanent id, and the public half of the key that it made. A device that signs
/// adds its signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its EUI-64.
    pub did: Did,
    /// Its public DH key.
    pub x: PublicX,
    /// When it was written, Unix seconds; a device without a clock leaves it out.
    pub made: Option<u64>,
    /// Its signing key, if it signs. The proof is still to be checked.
    pub signing: Option<Possession>,
}

/// What a person compares at both ends: the first 8 bytes of SHA-256 over did ‖ x, and ‖ the signing key where one
/// is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, b)| {
            let dash = if i > 0 && i % 2 == 0 { "-" } else { "" };
            write!(f, "{dash}{b:02x}")
        })
    }
}

impl Fingerprint {
    fn of(parts: &[&[u8]]) -> Self {
        let mut first = [0; 8];
        first.iter_mut().zip(sha256(parts)).for_each(|(f, h)| *f = h);
        Self(first)
    }
}

impl Request {
    /// Bytes of one, at most.
    pub const LONGEST: usize = 1 + 2 + 10 + 35 + 10 + 10 + signing::ITEM;

    /// What a person compares. It is in the request too, so that one that was damaged is refused.
    pub fn fingerprint(&self) -> Fingerprint {
        let signing = self.signing.as_ref().map_or(&[][..], |s| s.key.as_bytes());
        Fingerprint::of(&[&self.did.0, &self.x.0, signing])
    }

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is no request, or was damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const OTHER: Malformed = Malformed::new("not a request for enrolment");
        let mut r = Reader::new(bytes);
        let items = r.map().map_err(|_| OTHER)?;
        kind(&mut r, REQUEST, OTHER)?;
        key(&mut r, 2)?;
        let did = Did(*r.bytes_of()?);
        key(&mut r, 3)?;
        let x = PublicX(*r.bytes_of()?);
        let (made, fingerprint, signing) = signing::tail(&mut r)?;
        r.end()?;
        if items != 4 + u64::from(made.is_some()) + u64::from(signing.is_some()) {
            return Err(OTHER);
        }
        let request = Self { did, x, made, signing };
        if request.fingerprint() == fingerprint { Ok(request) } else { Err(signing::DAMAGED) }
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`Request::LONGEST`] bytes suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(4 + usize::from(self.made.is_some()) + usize::from(self.signing.is_some()))?;
        w.unsigned(1u8)?;
        w.unsigned(REQUEST)?;
        w.unsigned(2u8)?;
        w.bytes(&self.did.0)?;
        w.unsigned(3u8)?;
        w.bytes(&self.x.0)?;
        signing::emit_tail(&mut w, self.made, self.fingerprint(), self.signing.as_ref())?;
        Ok(w.len())
    }
}

/// What comes back: opened with the device's key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'b> {
    /// For which device.
    pub did: Did,
    /// The ephemeral key that it was sealed with.
    pub ephemeral: PublicX,
    /// Ciphertext and tag.
    pub sealed: &'b [u8],
}

impl<'b> Answer<'b> {
    /// Bytes of one, at most.
    pub const LONGEST: usize = 512;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is no answer.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        const OTHER: Malformed = Malformed::new("not an answer to a request for enrolment");
        if bytes.len() > Self::LONGEST {
            return Err(OTHER);
        }
        let mut r = Reader::new(bytes);
        let items = r.map().map_err(|_| OTHER)?;
        kind(&mut r, ANSWER, OTHER)?;
        if items != 4 {
            return Err(OTHER);
        }
        key(&mut r, 2)?;
        let did = Did(*r.bytes_of()?);
        key(&mut r, 3)?;
        let ephemeral = PublicX(*r.bytes_of()?);
        key(&mut r, 4)?;
        let sealed = r.bytes()?;
        r.end()?;
        Ok(Self { did, ephemeral, sealed })
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(4)?;
        w.unsigned(1u8)?;
        w.unsigned(ANSWER)?;
        w.unsigned(2u8)?;
        w.bytes(&self.did.0)?;
        w.unsigned(3u8)?;
        w.bytes(&self.ephemeral.0)?;
        w.unsigned(4u8)?;
        w.bytes(self.sealed)?;
        Ok(w.len())
    }
}

/// Everything that a node needs beside its own key. Prints no key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Grant<'b> {
    /// Its network.
    pub net: Net,
    /// Its short id.
    pub sid: Sid,
    /// PAN id on the air.
    pub pan: u16,
    /// Gateway group of its C2 contexts.
    pub group: GatewayGroup,
    /// The first epoch that it agrees on.
    pub epoch: Epoch,
    /// Its policy record.
    pub policy: Policy,
    /// What it may do that is not safe.
    pub overrides: Overrides,
    /// What names the cloud's key.
    pub cloud_kid: PeerKid,
    /// The cloud's public DH key.
    pub cloud_x: PublicX,
    /// Index of the network key.
    pub key_index: u8,
    /// The network key. Secret.
    pub network_key: &'b [u8; 16],
    /// root_psk. Secret.
    pub root_psk: &'b [u8; 32],
}

impl fmt::Debug for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({} in {}, epoch {})", self.sid, self.net, self.epoch)
    }
}

impl<'b> Grant<'b> {
    /// Bytes of one, at most.
    pub const LONGEST: usize = 1 + 6 + 4 + 4 + 6 + 4 + 1 + Policy::LONGEST + 2 + 37 + 21 + 35;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When an item is missing, unknown or out of range, or the policy record makes no sense.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        if r.map()? != 10 {
            return Err(Malformed::new("grant: ten items are needed"));
        }
        key(&mut r, 1)?;
        let net = Net::from_bytes(*r.bytes_of()?);
        key(&mut r, 2)?;
        let sid = Sid::from_bytes(*r.bytes_of()?);
        key(&mut r, 3)?;
        let pan = r.uint()?;
        key(&mut r, 4)?;
        let group = GatewayGroup::from_bytes(*r.bytes_of()?);
        key(&mut r, 5)?;
        let epoch = Epoch(r.uint()?);
        key(&mut r, 6)?;
        let policy = <Policy as Element<'_>>::parse(&mut r)?;
        key(&mut r, 7)?;
        let overrides = Overrides::from_bits(r.uint()?).ok_or(Malformed::new("grant: unknown override"))?;
        key(&mut r, 8)?;
        r.array_of(2)?;
        let cloud_kid = PeerKid::new(r.uint()?).ok_or(Malformed::new("grant: the cloud's kid is 00 to 17"))?;
        let cloud_x = PublicX(*r.bytes_of()?);
        key(&mut r, 9)?;
        r.array_of(2)?;
        let key_index = key_index(&mut r)?;
        let network_key = r.bytes_of()?;
        key(&mut r, 10)?;
        let root_psk = r.bytes_of()?;
        r.end()?;
        if !sid.is_assignable() || epoch.0 == 0 || epoch.collides_with(sid) {
            return Err(Malformed::new("grant: no short id or epoch that a device can have"));
        }
        policy.validate(overrides).map_err(|e| Malformed::new(e.reason))?;
        Ok(Self {
            net,
            sid,
            pan,
            group,
            epoch,
            policy,
            overrides,
            cloud_kid,
            cloud_x,
            key_index,
            network_key,
            root_psk,
        })
    }

    /// Writes it, and returns how many bytes it took. They hold secrets: wipe them.
    ///
    /// # Errors
    /// When `out` is too small; [`Grant::LONGEST`] bytes suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(10)?;
        w.unsigned(1u8)?;
        w.bytes(&self.net.to_bytes())?;
        w.unsigned(2u8)?;
        w.bytes(&self.sid.to_bytes())?;
        w.unsigned(3u8)?;
        w.unsigned(self.pan)?;
        w.unsigned(4u8)?;
        w.bytes(&self.group.to_bytes())?;
        w.unsigned(5u8)?;
        w.unsigned(self.epoch.0)?;
        w.unsigned(6u8)?;
        Element::emit(&self.policy, &mut w)?;
        w.unsigned(7u8)?;
        w.unsigned(self.overrides.bits())?;
        w.unsigned(8u8)?;
        w.array(2)?;
        w.unsigned(self.cloud_kid.value())?;
        w.bytes(&self.cloud_x.0)?;
        w.unsigned(9u8)?;
        w.array(2)?;
        w.unsigned(self.key_index)?;
        w.bytes(self.network_key)?;
        w.unsigned(10u8)?;
        w.bytes(self.root_psk)?;
        Ok(w.len())
    }
}

/// Characters of a request or an answer as text, at most.
pub const TEXT_LONGEST: usize = TEXT.len() + base45::encoded_len(Answer::LONGEST);

/// Writes a request or an answer as text, and returns how many characters.
///
/// # Errors
/// When `out` is too small; [`TEXT_LONGEST`] suffice.
pub fn emit_text(bytes: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
    let (head, rest) = out.split_at_mut_checked(TEXT.len()).ok_or(SealError::BufferTooSmall)?;
    head.copy_from_slice(TEXT.as_bytes());
    Ok(TEXT.len() + base45::emit(bytes, rest)?)
}

/// Reads text into bytes, if it is text of ours; white space around it does not count. `None`: it is none, and may be the
/// bytes themselves.
///
/// # Errors
/// When it begins as ours and goes on as something else.
pub fn parse_text(text: &[u8], out: &mut [u8]) -> Result<Option<usize>, Malformed> {
    match text.trim_ascii().strip_prefix(TEXT.as_bytes()) {
        None => Ok(None),
        Some(characters) => base45::parse(characters, out).map(Some),
    }
}

fn kind(r: &mut Reader<'_>, wanted: u8, other: Malformed) -> Result<(), Malformed> {
    match (r.unsigned(), r.unsigned()) {
        (Ok(1), Ok(kind)) if kind == u64::from(wanted) => Ok(()),
        (Ok(1), Ok(1)) => Err(Malformed::new("a request for enrolment, which is not what is wanted here")),
        (Ok(1), Ok(2)) => Err(Malformed::new("an answer to a request for enrolment, which is not what is wanted here")),
        (Ok(1), Ok(3)) => Err(Malformed::new(
            "a request to certify a signing key, which is not what is wanted here: fivefold device certify takes it",
        )),
        _ => Err(other),
    }
}

fn key(r: &mut Reader<'_>, n: u64) -> Result<(), Malformed> {
    if r.unsigned()? == n { Ok(()) } else { Err(Malformed::new("enrolment: an item is missing or unknown")) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::profile::Profile;
    use crate::proof::Signature;
    use crate::proof::possession::{SigningPoint, SigningPublic};

    const REQUESTED: Request = Request {
        did: Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]),
        x: PublicX([7; 32]),
        made: Some(1_790_000_000),
        signing: None,
    };
    const SIGNS: Option<Possession> =
        Some(Possession { key: SigningPublic::P256(SigningPoint([0x5A; 64])), proof: Signature([0xA5; 64]) });

    fn grant() -> Grant<'static> {
        Grant {
            net: Net(7),
            sid: Sid(0x0a17),
            pan: 0xFFFE,
            group: GatewayGroup(u32::MAX),
            epoch: Epoch(u16::MAX),
            policy: Policy { ack_every: 255, renew_days: 90, batch: 64, ..Policy::new(Profile::ToBoth) },
            overrides: Overrides { danger_link_only: true, danger_no_link: true },
            cloud_kid: PeerKid::new(0x17).unwrap(),
            cloud_x: PublicX([8; 32]),
            key_index: 254,
            network_key: &[9; 16],
            root_psk: &[10; 32],
        }
    }

    #[test]
    fn a_request_reads_as_it_was_written_and_not_when_damaged() {
        for (made, signing) in [(None, None), (Some(0), None), (Some(u64::MAX), SIGNS), (None, SIGNS)] {
            let request = Request { made, signing, ..REQUESTED };
            let mut out = [0; Request::LONGEST];
            let len = request.emit(&mut out).unwrap();
            assert_eq!(Request::parse(&out[..len]), Ok(request));
            assert!((0..len).all(|cut| Request::parse(&out[..cut]).is_err()));
            // All that the fingerprint is over, and the shape; the proof is checked with its key.
            let proof = if signing.is_some() { 66 } else { 0 };
            let time = if made.is_some() { out[48..].iter().position(|b| *b == 5).unwrap() } else { 0 };
            for at in (0..48).chain(48 + time..len - proof) {
                let mut changed = out;
                changed[at] ^= 1;
                assert!(Request::parse(&changed[..len]).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn whoever_puts_another_signing_key_into_a_request_changes_its_fingerprint() {
        let signs = Request { signing: SIGNS, ..REQUESTED };
        assert_ne!(signs.fingerprint(), REQUESTED.fingerprint());
        let other =
            Some(Possession { key: SigningPublic::P256(SigningPoint([0x5B; 64])), proof: Signature([0xA5; 64]) });
        assert_ne!(Request { signing: other, ..REQUESTED }.fingerprint(), signs.fingerprint());
    }

    #[test]
    fn a_grant_reads_as_it_was_written() {
        let mut out = [0; Grant::LONGEST];
        let len = grant().emit(&mut out).unwrap();
        assert_eq!(Grant::parse(&out[..len]), Ok(grant()));
        assert!((0..len).all(|cut| Grant::parse(&out[..cut]).is_err()));
        for bad in [Grant { sid: Sid(0xE201), ..grant() }, Grant { epoch: Epoch(0x0a17), ..grant() }] {
            let len = bad.emit(&mut out).unwrap();
            assert!(Grant::parse(&out[..len]).is_err(), "{bad:?}");
        }
        assert!(!std::format!("{:?}", grant()).contains('['));
    }

    #[test]
    fn who_takes_one_for_the_other_is_told_so() {
        let mut out = [0; Answer::LONGEST];
        let len = REQUESTED.emit(&mut out).unwrap();
        assert!(Answer::parse(&out[..len]).unwrap_err().reason.contains("a request for enrolment"));
        let answer = Answer { did: REQUESTED.did, ephemeral: PublicX([1; 32]), sealed: &[2; 300] };
        let len = answer.emit(&mut out).unwrap();
        assert_eq!(Answer::parse(&out[..len]), Ok(answer));
        assert!(Request::parse(&out[..len]).unwrap_err().reason.contains("an answer"));
        assert!(Request::parse(b"hello").is_err() && Answer::parse(b"").is_err());
    }

    #[test]
    fn text_gives_the_bytes_back_and_a_fingerprint_is_easy_to_read_out() {
        let mut bytes = [0; Request::LONGEST];
        let len = REQUESTED.emit(&mut bytes).unwrap();
        let mut text = [b' '; TEXT_LONGEST];
        let n = emit_text(&bytes[..len], &mut text).unwrap();
        let mut back = [0; Answer::LONGEST];
        // A line end comes with a file.
        assert_eq!(parse_text(&text[..=n], &mut back), Ok(Some(len)));
        assert_eq!(back[..len], bytes[..len]);
        assert_eq!(parse_text(&bytes[..len], &mut back), Ok(None));
        assert!(parse_text(b"FV1:abc", &mut back).is_err());
        assert_eq!(REQUESTED.fingerprint().to_string().len(), 19);
    }
}
