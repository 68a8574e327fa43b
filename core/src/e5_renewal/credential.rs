//! Credentials: CWT Claims Sets by `kid` (RFC 9528 3.5.2), and their identifiers in messages.

use core::fmt;

use crate::error::SealError;
use crate::id::Sid;
use crate::oscore::Id;
use crate::suite::agreement::PublicX;
use crate::wire::cbor::{Major, Malformed, Reader, Writer};

/// The kid of a cloud or a gateway: one byte 00..17, which takes one byte in message_2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKid(u8);

impl PeerKid {
    /// `None` above 17 (hex).
    pub const fn new(kid: u8) -> Option<Self> {
        if kid <= 0x17 { Some(Self(kid)) } else { None }
    }

    /// The byte.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// CRED_x: a public key under a kid, as a CCS. Public through and through.
///
/// Ours holds the key and nothing else: `{8: {1: {1: 2, 2: kid, -1: 1, -2: x}}}`, a COSE_Key of compact representation
/// (RFC 9528 3.7) with the four bytes before it that make it a CCS (RFC 9528 3.5.2). 47 bytes for a cloud, 48 for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    kid: Id,
    public_x: PublicX,
    foreign: Option<&'a [u8]>,
}

const BEFORE_KID: &[u8] = &[0xA1, 0x08, 0xA1, 0x01, 0xA4, 0x01, 0x02, 0x02];
const BEFORE_X: &[u8] = &[0x20, 0x01, 0x21, 0x58, 0x20];

impl Credential<'static> {
    /// A device's: its kid is its short id.
    pub fn device(sid: Sid, public_x: PublicX) -> Self {
        Self { kid: sid.into(), public_x, foreign: None }
    }

    /// A cloud's or gateway's.
    pub fn peer(kid: PeerKid, public_x: PublicX) -> Self {
        Self { kid: Id::new(&[kid.0]).unwrap_or_default(), public_x, foreign: None }
    }
}

impl<'a> Credential<'a> {
    /// Bytes that [`emit`](Self::emit) writes of a credential of ours, at most.
    pub const LONGEST: usize = BEFORE_KID.len() + 3 + BEFORE_X.len() + 32;

    /// Takes a CCS as it is, for a device whose library makes its own: `{?2: sub, 8: {1: COSE_Key}}` with a P-256 key and a
    /// kid of 1 to 7 bytes. Whoever takes part in a run must have the same bytes.
    ///
    /// # Errors
    /// When it has any other form.
    pub fn parse(ccs: &'a [u8]) -> Result<Self, Malformed> {
        const OTHER: Malformed = Malformed::new("CCS: not {?sub, cnf: COSE_Key} with a P-256 key and a kid");
        let mut r = Reader::new(ccs);
        let mut claims = r.keys()?;
        let mut key = None;
        while let Some(claim) = claims.next(&mut r)? {
            match claim {
                2 => drop(r.text()?),
                8 => {
                    if r.map()? != 1 || r.unsigned()? != 1 {
                        return Err(OTHER);
                    }
                    key = Some(cose_key(&mut r)?);
                }
                _ => return Err(OTHER),
            }
        }
        r.end()?;
        let (kid, public_x) = key.ok_or(OTHER)?;
        Ok(Self { kid, public_x, foreign: Some(ccs) })
    }

    /// What names it: the kid.
    pub const fn kid(&self) -> Id {
        self.kid
    }

    /// The public key.
    pub const fn public_x(&self) -> PublicX {
        self.public_x
    }

    /// Writes the CCS and returns its length.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        if let Some(ccs) = self.foreign {
            w.encoded(ccs)?;
        } else {
            w.encoded(BEFORE_KID)?;
            w.bytes(self.kid.as_bytes())?;
            w.encoded(BEFORE_X)?;
            w.encoded(&self.public_x.0)?;
        }
        Ok(w.len())
    }

    /// The CCS in parts that need no buffer, for hashing.
    pub(super) fn parts<'c>(&'c self, kid: &'c EncodedKid) -> [&'c [u8]; 4] {
        match self.foreign {
            Some(ccs) => [ccs, &[], &[], &[]],
            None => [BEFORE_KID, kid.as_byte_string(), BEFORE_X, &self.public_x.0],
        }
    }

    pub(super) fn encoded_kid(&self) -> EncodedKid {
        EncodedKid::new(self.kid)
    }
}

/// A COSE_Key of type EC2 (RFC 9053 7.1.1) on P-256 with a kid. Its y, if there, is not looked at: x coordinates suffice.
fn cose_key(r: &mut Reader<'_>) -> Result<(Id, PublicX), Malformed> {
    const OTHER: Malformed = Malformed::new("CCS: not a COSE_Key of P-256 with a kid");
    let (mut kty, mut crv, mut kid, mut x) = (None, None, None, None);
    for _ in 0..r.map()? {
        let label = r.int()?;
        match label {
            1 if kty.is_none() => kty = Some(r.unsigned()?),
            2 if kid.is_none() => kid = Some(Id::new(r.bytes()?).filter(|k| !k.as_bytes().is_empty()).ok_or(OTHER)?),
            -1 if crv.is_none() => crv = Some(r.unsigned()?),
            -2 if x.is_none() => x = Some(PublicX(*r.bytes_of()?)),
            -3 => match r.peek()? {
                Major::Bytes => drop(r.bytes_of::<32>()?),
                _ => drop(r.bool()?),
            },
            _ => return Err(OTHER),
        }
    }
    match (kty, crv, kid, x) {
        (Some(2), Some(1), Some(kid), Some(x)) => Ok((kid, x)),
        _ => Err(OTHER),
    }
}

/// Who takes part: a private key and the credential over its public one.
pub struct Identity<'a, A> {
    /// The private key.
    pub key: &'a A,
    /// The credential. It must be that of the key, or every run fails at the other side.
    pub credential: &'a Credential<'a>,
}

impl<A> fmt::Debug for Identity<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.credential.kid)
    }
}

/// A kid as a CBOR byte string, at most 8 bytes.
pub(super) struct EncodedKid {
    bytes: [u8; 8],
    len: usize,
}

impl EncodedKid {
    fn new(kid: Id) -> Self {
        let mut bytes = [0; 8];
        let kid = kid.as_bytes();
        // An Id has at most 7 bytes: its head is one byte.
        bytes[0] = 0x40 | kid.len() as u8;
        bytes.iter_mut().skip(1).zip(kid).for_each(|(b, k)| *b = *k);
        Self { bytes, len: 1 + kid.len() }
    }

    pub(super) fn as_byte_string(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Whether a byte string of this one byte is written as an integer of one byte (RFC 9528 3.3.2).
const fn is_short(byte: u8) -> bool {
    matches!(byte, 0x00..=0x17 | 0x20..=0x37)
}

/// Writes C_x, or ID_CRED_x that is a kid: one byte if it can be read as an integer of one byte, else a byte string.
pub(super) fn emit_id(w: &mut Writer<'_>, id: Id) -> Result<(), SealError> {
    match *id.as_bytes() {
        [byte] if is_short(byte) => w.encoded(&[byte]),
        ref bytes => w.bytes(bytes),
    }
}

/// Reads what [`emit_id`] writes, and no other form of it.
pub(super) fn read_id(r: &mut Reader<'_>) -> Result<Id, Malformed> {
    const LONG: Malformed = Malformed::new("an identifier is longer than 7 bytes");
    match r.peek()? {
        Major::Bytes => match r.bytes()? {
            [byte] if is_short(*byte) => Err(Malformed::new("an identifier is not in its short form")),
            bytes => Id::new(bytes).ok_or(LONG),
        },
        Major::Unsigned | Major::Negative => {
            let from = r.rest();
            r.int()?;
            match from.get(..from.len() - r.rest().len()) {
                Some(byte @ [_]) => Id::new(byte).ok_or(LONG),
                _ => Err(Malformed::new("an identifier is an integer of more than one byte")),
            }
        }
        _ => Err(Malformed::new("an identifier is missing")),
    }
}
