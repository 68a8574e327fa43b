//! # Proof: what a third party can check
//!
//! | | |
//! |---|---|
//! | Key held by | one device or one gateway, for signing; the operator's CA says whose it is |
//! | Hides       | nothing; a leaf hides its reading behind a salt until both are shown |
//! | Proves      | who said a set of things, and that one thing is in the set |
//! | Binds       | level, device, epoch, boot, number, payload; or gateway, boot, sequence, times |
//! | Drops as    | `EV-01` forged or malformed, `EV-05` inconsistent |
//! | Does not    | prove when, beyond what a log's witnesses saw |
//! | Spec        | docs/protocol.md 10 (receipt), 13.1 |
//!
//! [`merkle`] is the tree of RFC 9162, [`statement`] what devices sign, [`batch`] how it is put together, [`receipt`] what
//! gateways sign, [`possession`] how a device proves that a signing key is its own; here are COSE_Sign1 (RFC 9052 4.2) and the
//! traits behind which the signature lies.

pub mod batch;
pub mod merkle;
pub mod possession;
pub mod receipt;
pub mod statement;

use core::fmt;

use crate::error::{Code, Rejected, SealError};
use crate::suite::sha256;
use crate::wire::cbor::{Malformed, Reader, Writer};

/// A signature algorithm, by its COSE number (RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignAlg {
    /// -19: Ed25519.
    Ed25519,
    /// -9: ECDSA on P-256 with SHA-256, signature r ‖ s. The default.
    Esp256,
    /// -37: RSASSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes. Of classic nodes alone, whose libraries have RSA.
    Ps256,
}

impl SignAlg {
    /// The COSE algorithm number.
    pub const fn cose(self) -> i8 {
        match self {
            Self::Ed25519 => -19,
            Self::Esp256 => -9,
            Self::Ps256 => -37,
        }
    }

    /// The algorithm of a COSE number, if it is one of ours.
    pub const fn from_cose(number: i64) -> Option<Self> {
        match number {
            -19 => Some(Self::Ed25519),
            -9 => Some(Self::Esp256),
            -37 => Some(Self::Ps256),
            _ => None,
        }
    }

    /// Whether its signatures can have so many bytes: 64, or those of a modulus of 2048, 3072 or 4096 bits.
    pub const fn fits(self, signature: usize) -> bool {
        match self {
            Self::Ed25519 | Self::Esp256 => signature == 64,
            Self::Ps256 => matches!(signature, 256 | 384 | 512),
        }
    }
}

/// Names a signing key: the first 8 bytes of SHA-256 over its SubjectPublicKeyInfo (DER).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(pub [u8; 8]);

impl KeyName {
    /// Of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> Self {
        let mut first = [0; 8];
        first.iter_mut().zip(sha256(&[spki])).for_each(|(f, h)| *f = h);
        Self(first)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({self})")
    }
}

/// SubjectPublicKeyInfo (DER) of a P-256 key, up to its uncompressed point of 65 bytes (RFC 5480 2).
pub const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// SubjectPublicKeyInfo (DER) of an Ed25519 key, up to the key of 32 bytes (RFC 8410 4).
pub const ED25519_SPKI: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A signature: r ‖ s of ECDSA, or Ed25519's 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

/// The signature does not belong to this message and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRefused;

impl fmt::Display for SignatureRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not hold")
    }
}

impl core::error::Error for SignatureRefused {}

/// Why something could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// It could not be written.
    Encode(SealError),
    /// The signer gave nothing: no randomness, or hardware that does not answer.
    SignerFailed,
}

impl From<SealError> for SignError {
    fn from(e: SealError) -> Self {
        Self::Encode(e)
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode(e) => e.fmt(f),
            Self::SignerFailed => f.write_str("the signer gave no signature"),
        }
    }
}

impl core::error::Error for SignError {}

/// A private key that signs. Implemented outside of core, over a library or a secure element.
pub trait Sign {
    /// Its algorithm.
    fn alg(&self) -> SignAlg;

    /// Its name.
    fn key_name(&self) -> KeyName;

    /// Signs the parts, one after the other.
    ///
    /// # Errors
    /// [`SignError::SignerFailed`].
    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError>;
}

/// A public key that checks signatures. Implemented outside of core.
pub trait Verify {
    /// Its algorithm.
    fn alg(&self) -> SignAlg;

    /// Its name.
    fn key_name(&self) -> KeyName;

    /// Checks a signature over the parts, one after the other.
    ///
    /// # Errors
    /// [`SignatureRefused`] when it does not hold.
    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused>;
}

/// A COSE_Sign1 in the one form of docs/protocol.md 13.1: tag 18, protected `{1: alg, 4: kid8}`, nothing unprotected,
/// payload attached. Its shape is checked; nothing is believed before [`Sign1::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign1<'b> {
    /// Who claims to have signed, and how.
    pub header: Header,
    payload: &'b [u8],
    /// The signature, of a length that its algorithm has.
    pub signature: &'b [u8],
}

/// The protected header: `{1: alg, 4: kid8}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Algorithm.
    pub alg: SignAlg,
    /// Key.
    pub key: KeyName,
}

impl Header {
    /// As a CBOR byte string, head included: 14 bytes, or 15 where the number of the algorithm takes two.
    pub fn emit(self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let alg: &[u8] = match self.alg {
            SignAlg::Ed25519 => &[0x32],
            SignAlg::Esp256 => &[0x28],
            SignAlg::Ps256 => &[0x38, 0x24],
        };
        w.bytes_head(12 + alg.len())?;
        w.encoded(&[0xA2, 0x01])?;
        w.encoded(alg)?;
        w.encoded(&[0x04])?;
        w.bytes(&self.key.0)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut keys = r.keys()?;
        let (mut alg, mut key) = (None, None);
        while let Some(label) = keys.next(&mut r)? {
            match label {
                1 => {
                    alg =
                        Some(SignAlg::from_cose(r.int()?).ok_or(Malformed::new("COSE: algorithm not in the profile"))?)
                }
                4 => key = Some(KeyName(*r.bytes_of()?)),
                _ => return Err(Malformed::new("COSE: protected header not in the profile")),
            }
        }
        r.end()?;
        match (alg, key) {
            (Some(alg), Some(key)) => Ok(Self { alg, key }),
            _ => Err(Malformed::new("COSE: protected header needs alg and kid")),
        }
    }
}

impl<'b> Sign1<'b> {
    /// Bytes around a payload of up to 255 bytes, at most, with a signature of 64 bytes.
    pub const OVERHEAD: usize = Self::AROUND + 64;
    /// The same without the signature, however long that is.
    pub const AROUND: usize = 1 + 1 + 15 + 1 + 2 + 3;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has any other form: untagged, detached payload, another header, another signature size.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        if r.tag()? != 18 {
            return Err(Malformed::new("COSE: tag 18 is missing"));
        }
        r.array_of(4)?;
        let header = Header::parse(r.bytes()?)?;
        if r.map()? != 0 {
            return Err(Malformed::new("COSE: unprotected headers are not in the profile"));
        }
        let payload = r.bytes()?;
        let signature = r.bytes()?;
        if !header.alg.fits(signature.len()) {
            return Err(Malformed::new("COSE: a signature of another length"));
        }
        r.end()?;
        Ok(Self { header, payload, signature })
    }

    /// The payload, once the signature holds. `context` is the external_aad of the kind of thing that was signed.
    ///
    /// # Errors
    /// EV-01 when key or algorithm are not those of the header, or the signature does not hold.
    pub fn verify(&self, key: &impl Verify, context: &[u8]) -> Result<&'b [u8], Rejected> {
        if self.header.alg != key.alg() || self.header.key != key.key_name() {
            return Err(Rejected::new(Code::EvidenceSignature, "signed by another key"));
        }
        let message = ToBeSigned::new(self.header, context, self.payload);
        key.verify(&message.parts(), self.signature)
            .map_err(|SignatureRefused| Rejected::new(Code::EvidenceSignature, "the signature does not hold"))?;
        Ok(self.payload)
    }

    /// The payload, although nothing says that it was signed: for showing, and for finding the key.
    pub const fn danger_payload(&self) -> &'b [u8] {
        self.payload
    }

    /// Signs `payload` and writes the whole, tag included; returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small, or the signer fails.
    pub fn seal(key: &impl Sign, context: &[u8], payload: &[u8], out: &mut [u8]) -> Result<usize, SignError> {
        let header = Header { alg: key.alg(), key: key.key_name() };
        let signature = key.sign(&ToBeSigned::new(header, context, payload).parts())?;
        Ok(Sign1::of(header, payload, &signature.0).emit(out)?)
    }

    /// One whose parts are known, and may be anything.
    pub const fn of(header: Header, payload: &'b [u8], signature: &'b [u8]) -> Self {
        Self { header, payload, signature }
    }

    /// Writes it, tag included; returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`Sign1::AROUND`] beside payload and signature always suffices.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.tag(18)?;
        w.array(4)?;
        self.header.emit(&mut w)?;
        w.map(0)?;
        w.bytes(self.payload)?;
        w.bytes(self.signature)?;
        Ok(w.len())
    }
}

/// The Sig_structure of RFC 9052 4.4 for one signer: what is really signed, in parts that need no buffer.
#[derive(Clone, Debug)]
pub struct ToBeSigned<'a> {
    header: ([u8; 15], usize),
    context_head: ([u8; 9], usize),
    context: &'a [u8],
    payload_head: ([u8; 9], usize),
    payload: &'a [u8],
}

impl<'a> ToBeSigned<'a> {
    /// Of a protected header, an external_aad and a payload.
    pub fn new(header: Header, context: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            header: header_of(header),
            context_head: bytes_head(context.len()),
            context,
            payload_head: bytes_head(payload.len()),
            payload,
        }
    }

    /// The bytes, one part after the other.
    pub fn parts(&self) -> [&[u8]; 6] {
        [
            b"\x84\x6aSignature1",
            self.header.0.get(..self.header.1).unwrap_or_default(),
            self.context_head.0.get(..self.context_head.1).unwrap_or_default(),
            self.context,
            self.payload_head.0.get(..self.payload_head.1).unwrap_or_default(),
            self.payload,
        ]
    }
}

fn header_of(header: Header) -> ([u8; 15], usize) {
    let mut bytes = [0; 15];
    let mut w = Writer::new(&mut bytes);
    // They hold any header.
    let written = header.emit(&mut w);
    debug_assert!(written.is_ok());
    let len = w.len();
    (bytes, len)
}

/// Head of a CBOR byte string of `n` bytes.
fn bytes_head(n: usize) -> ([u8; 9], usize) {
    let mut head = [0; 9];
    let mut w = Writer::new(&mut head);
    // Nine bytes hold any head.
    let written = w.bytes_head(n);
    debug_assert!(written.is_ok());
    let len = w.len();
    (head, len)
}
