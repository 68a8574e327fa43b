//! Enrolment of a device (docs/protocol.md 11.1): what it asks with, and what it is answered.
//!
//! ```text
//! request = {1: 1, 2: did(8), 3: x(32), ?4: made, 5: fingerprint(8)}
//! answer  = {1: 2, 2: did(8), 3: ephemeral x(32), 4: sealed}
//! grant   = {1: net(4), 2: sid(2), 3: pan, 4: gg(4), 5: epoch, 6: policy record, 7: overrides, 8: [kid, x(32)],
//!            9: [index, K_net(16)], 10: root_psk(32)}
//! ```
//!
//! Neither request nor answer holds a secret in clear; a grant does, and stands sealed in an answer only. As text, for QR
//! codes and for people who copy it, both are [`TEXT`] and base45.

use core::fmt;

use crate::e5_renewal::PeerKid;
use crate::error::SealError;
use crate::id::{Did, Epoch, GatewayGroup, Net, Sid};
use crate::profile::{Overrides, Policy, key_index};
use crate::suite::agreement::PublicX;
use crate::suite::sha256;
use crate::wire::base45;
use crate::wire::cbor::{Element, Malformed, Reader, Writer};

/// What stands before a request or an answer that is written as text.
pub const TEXT: &str = "FV1:";

const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

/// What a device asks to be enrolled with: its permanent id, and the public half of the key that it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its EUI-64.
    pub did: Did,
    /// Its public DH key.
    pub x: PublicX,
    /// When it was written, Unix seconds; a device without a clock leaves it out.
    pub made: Option<u64>,
}

/// What a person compares at both ends: the first 8 bytes of SHA-256 over did ‖ x.
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

impl Request {
    /// Bytes of one, at most.
    pub const LONGEST: usize = 1 + 2 + 10 + 35 + 10 + 10;

    /// What a person compares. It is in the request too, so that one that was damaged is refused.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut first = [0; 8];
        first.iter_mut().zip(sha256(&[&self.did.0, &self.x.0])).for_each(|(f, h)| *f = h);
        Fingerprint(first)
    }

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is no request, or was damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const OTHER: Malformed = Malformed::new("not a request for enrolment");
        let mut r = Reader::new(bytes);
        let items = r.map().map_err(|_| OTHER)?;
        kind(&mut r, REQUEST, OTHER, Malformed::new("an answer to a request, not a request"))?;
        if !(4..=5).contains(&items) {
            return Err(OTHER);
        }
        key(&mut r, 2)?;
        let did = Did(*r.bytes_of()?);
        key(&mut r, 3)?;
        let x = PublicX(*r.bytes_of()?);
        let made = if items == 5 {
            key(&mut r, 4)?;
            Some(r.unsigned()?)
        } else {
            None
        };
        key(&mut r, 5)?;
        let fingerprint = Fingerprint(*r.bytes_of()?);
        r.end()?;
        let request = Self { did, x, made };
        if request.fingerprint() == fingerprint { Ok(request) } else { Err(Malformed::new("the request was damaged")) }
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`Request::LONGEST`] bytes suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(4 + usize::from(self.made.is_some()))?;
        w.unsigned(1u8)?;
        w.unsigned(REQUEST)?;
        w.unsigned(2u8)?;
        w.bytes(&self.did.0)?;
        w.unsigned(3u8)?;
        w.bytes(&self.x.0)?;
        if let Some(made) = self.made {
            w.unsigned(4u8)?;
            w.unsigned(made)?;
        }
        w.unsigned(5u8)?;
        w.bytes(&self.fingerprint().0)?;
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
        kind(&mut r, ANSWER, OTHER, Malformed::new("a request for enrolment, not the answer"))?;
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

fn kind(r: &mut Reader<'_>, wanted: u8, other: Malformed, swapped: Malformed) -> Result<(), Malformed> {
    match (r.unsigned(), r.unsigned()) {
        (Ok(1), Ok(kind)) if kind == u64::from(wanted) => Ok(()),
        (Ok(1), Ok(1 | 2)) => Err(swapped),
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

    const REQUESTED: Request =
        Request { did: Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]), x: PublicX([7; 32]), made: Some(1_790_000_000) };

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
        for made in [None, Some(0), Some(u64::MAX)] {
            let request = Request { made, ..REQUESTED };
            let mut out = [0; Request::LONGEST];
            let len = request.emit(&mut out).unwrap();
            assert_eq!(Request::parse(&out[..len]), Ok(request));
            assert!((0..len).all(|cut| Request::parse(&out[..cut]).is_err()));
            for at in 5..13 {
                let mut changed = out;
                changed[at] ^= 1;
                assert!(Request::parse(&changed[..len]).is_err(), "byte {at}");
            }
        }
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
        assert!(Answer::parse(&out[..len]).unwrap_err().reason.contains("not the answer"));
        let answer = Answer { did: REQUESTED.did, ephemeral: PublicX([1; 32]), sealed: &[2; 300] };
        let len = answer.emit(&mut out).unwrap();
        assert_eq!(Answer::parse(&out[..len]), Ok(answer));
        assert!(Request::parse(&out[..len]).unwrap_err().reason.contains("not a request"));
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
