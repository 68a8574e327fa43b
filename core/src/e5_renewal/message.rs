//! EDHOC messages as bytes: message_1, what stands before and inside the others, errors; no keys (RFC 9528 5, 6, A.2).

use core::{fmt, str};

use crate::error::{Code, Rejected, SealError};
use crate::id::{Epoch, Sid};
use crate::oscore::Id;
use crate::suite::agreement::PublicX;
use crate::wire::cbor::{Major, Malformed, Reader, Writer};

use super::credential::{emit_id, read_id};
use super::initiator::Announce;

/// METHOD: both sides authenticate by static Diffie-Hellman keys (RFC 9528 3.2).
pub(super) const METHOD: u8 = 3;
/// The cipher suite: AES-CCM-16-64-128, SHA-256, 8, P-256, ES256, AES-CCM-16-64-128, SHA-256 (RFC 9528 3.6).
pub(super) const SUITE: u8 = 2;
/// Bytes of MAC_2 and MAC_3 under suite 2.
pub(super) const MAC: usize = 8;
/// CBOR true: what stands before message_1 (RFC 9528 A.2).
const BEFORE_MESSAGE_1: u8 = 0xF5;
/// The label of our EAD_1 item, critical, hence negative: the short id of the device.
const SID_LABEL: i64 = -65001;
/// SUITES_I lists that are longer are not read.
const MOST_SUITES: u64 = 16;

/// A message that goes out: the payload of a tiny EDHOC frame, or of a CoAP message, with what RFC 9528 A.2 puts before it.
/// It is kept as long as it may have to be sent again, byte for byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    bytes: [u8; Self::LONGEST],
    len: u8,
}

impl Message {
    /// Bytes, at most.
    pub const LONGEST: usize = 48;

    /// As it was stored. `None` when it is longer than any message of ours.
    pub fn new(message: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..message.len())?.copy_from_slice(message);
        Some(Self { bytes, len: message.len() as u8 })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// Writes one. What is written always fits: the sizes of our messages are a matter of docs/protocol.md 11.
    pub(super) fn write(f: impl FnOnce(&mut Writer<'_>) -> Result<(), SealError>) -> Self {
        let mut bytes = [0; Self::LONGEST];
        let mut w = Writer::new(&mut bytes);
        let written = f(&mut w);
        debug_assert!(written.is_ok());
        let len = w.len() as u8;
        Self { bytes, len }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message(")?;
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str(")")
    }
}

/// What comes from a device: the payload of RuleID 10, or of a CoAP POST (RFC 9528 A.2). Checked for shape, not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer<'b> {
    /// C_R, then an error message.
    Error {
        /// Which session it is about.
        c_r: Id,
        /// What it says.
        error: ErrorMessage<'b>,
    },
    /// message_1.
    Offer(Offer<'b>),
    /// C_R, then message_3.
    Proof {
        /// Which session it belongs to: the bytes of the device's short id.
        c_r: Id,
        /// message_3 itself.
        message_3: &'b [u8],
    },
}

impl<'b> ToServer<'b> {
    /// Reads a payload, and nothing after it.
    ///
    /// # Errors
    /// `E5-04` when message_1 asks for another method or suite, `E5-02` for what is no EDHOC message.
    pub fn parse(payload: &'b [u8]) -> Result<Self, Rejected> {
        if let Some((&BEFORE_MESSAGE_1, message_1)) = payload.split_first() {
            return Offer::parse(message_1).map(Self::Offer);
        }
        Self::parse_later(payload).map_err(|m| m.counted(Code::RenewalForged))
    }

    fn parse_later(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let c_r = read_id(&mut r)?;
        if r.peek()? == Major::Bytes {
            return Ok(Self::Proof { c_r, message_3: r.rest() });
        }
        Ok(Self::Error { c_r, error: ErrorMessage::read(&mut r)? })
    }
}

/// message_1 (RFC 9528 5.2): a device asks for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'b> {
    message_1: &'b [u8],
    pub(super) g_x: PublicX,
    c_i: Id,
    announced: Option<Sid>,
}

impl<'b> Offer<'b> {
    /// Reads message_1, without the byte that A.2 puts before it.
    ///
    /// # Errors
    /// `E5-04` for a method other than 3, or when suite 2 is not the one selected or stands earlier in the list as well
    /// (RFC 9528 5.2.3); `E5-02` for anything else that is not message_1.
    pub fn parse(message_1: &'b [u8]) -> Result<Self, Rejected> {
        let malformed = |m: Malformed| m.counted(Code::RenewalForged);
        let mut r = Reader::new(message_1);
        if r.int().map_err(malformed)? != i64::from(METHOD) {
            return Err(Rejected::new(Code::RenewalSuite, "the method is not 3"));
        }
        if selected_suite(&mut r).map_err(malformed)? != Some(i64::from(SUITE)) {
            return Err(Rejected::new(Code::RenewalSuite, "the selected suite is not 2"));
        }
        Self::parse_keys(message_1, &mut r).map_err(malformed)
    }

    fn parse_keys(message_1: &'b [u8], r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let g_x = PublicX(*r.bytes_of()?);
        let c_i = read_id(r)?;
        let mut announced = None;
        while let Some(item) = Ead::next(r)? {
            match (item.label, item.value) {
                (SID_LABEL, Some([a, b])) if announced.is_none() => announced = Some(Sid::from_bytes([*a, *b])),
                (SID_LABEL, _) => return Err(Malformed::new("EAD_1: the short id is 2 bytes, once")),
                _ => item.ignored()?,
            }
        }
        Ok(Self { message_1, g_x, c_i, announced })
    }

    /// C_I as it stands there.
    pub const fn c_i(&self) -> Id {
        self.c_i
    }

    /// The epoch that the device asks for; `None` when C_I is none (1 or greater, minimal bytes).
    pub fn epoch(&self) -> Option<Epoch> {
        epoch_of(self.c_i)
    }

    /// The short id that the device says it has (EAD_1). Anybody can say so: what counts is ID_CRED_I.
    pub const fn announced(&self) -> Option<Sid> {
        self.announced
    }

    /// message_1 itself: the same bytes again are a repeat, and get the same message_2.
    pub const fn as_bytes(&self) -> &'b [u8] {
        self.message_1
    }
}

/// The epoch whose bytes an identifier is.
pub(super) fn epoch_of(id: Id) -> Option<Epoch> {
    match *id.as_bytes() {
        [low] if low > 0 => Some(Epoch(low.into())),
        [high, low] if high > 0 => Some(Epoch(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// The suite that SUITES_I selects: the last one. `None` when it stands in the list before.
fn selected_suite(r: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    if r.peek()? != Major::Array {
        return r.int().map(Some);
    }
    let n = r.array()?;
    if !(2..=MOST_SUITES).contains(&n) {
        return Err(Malformed::new("SUITES_I: a list has at least two suites, and not many"));
    }
    let mut earlier = r.clone();
    for _ in 1..n {
        r.int()?;
    }
    let selected = r.int()?;
    for _ in 1..n {
        if earlier.int()? == selected {
            return Ok(None);
        }
    }
    Ok(Some(selected))
}

/// Writes the payload of message_1.
pub(super) fn emit_message_1(g_x: &PublicX, c_i: Id, announce: Option<Sid>) -> Message {
    Message::write(|w| {
        w.encoded(&[BEFORE_MESSAGE_1])?;
        w.unsigned(METHOD)?;
        w.unsigned(SUITE)?;
        w.bytes(&g_x.0)?;
        emit_id(w, c_i)?;
        if let Some(sid) = announce {
            w.int(SID_LABEL)?;
            w.bytes(&sid.to_bytes())?;
        }
        Ok(())
    })
}

impl Announce {
    pub(super) const fn of(self, sid: Sid) -> Option<Sid> {
        match self {
            Self::Nothing => None,
            Self::Sid => Some(sid),
        }
    }
}

/// message_1 without what A.2 puts before it.
pub(super) fn message_1_of(payload: &Message) -> &[u8] {
    payload.as_bytes().get(1..).unwrap_or_default()
}

/// One item of external authorization data (RFC 9528 3.8).
pub(super) struct Ead<'b> {
    pub(super) label: i64,
    pub(super) value: Option<&'b [u8]>,
}

impl<'b> Ead<'b> {
    pub(super) fn next(r: &mut Reader<'b>) -> Result<Option<Self>, Malformed> {
        if r.is_at_end() {
            return Ok(None);
        }
        let label = r.int()?;
        let value = if !r.is_at_end() && r.peek()? == Major::Bytes { Some(r.bytes()?) } else { None };
        Ok(Some(Self { label, value }))
    }

    /// An item of no meaning to us is passed over, unless its sender says that it must not be (a negative label).
    pub(super) fn ignored(&self) -> Result<(), Malformed> {
        if self.label < 0 { Err(Malformed::new("EAD: a critical item is unknown")) } else { Ok(()) }
    }
}

/// All that follows is EAD; none of its items has a meaning in messages 2 and 3.
pub(super) fn ignore_ead(r: &mut Reader<'_>) -> Result<(), Malformed> {
    while let Some(item) = Ead::next(r)? {
        item.ignored()?;
    }
    Ok(())
}

/// ID_CRED_x, Signature_or_MAC_x and EAD_x: how PLAINTEXT_2 (behind C_R) and PLAINTEXT_3 look. `(kid, MAC, EAD)`.
pub(super) fn read_claim<'b>(r: &mut Reader<'b>) -> Result<(Id, &'b [u8; MAC], &'b [u8]), Malformed> {
    let kid = read_id(r)?;
    let mac = r.bytes_of()?;
    let ead = r.rest();
    ignore_ead(r)?;
    Ok((kid, mac, ead))
}

/// A message that is one byte string, and nothing after it.
pub(super) fn read_byte_string(message: &[u8]) -> Result<&[u8], Malformed> {
    let mut r = Reader::new(message);
    let bytes = r.bytes()?;
    r.end()?;
    Ok(bytes)
}

/// An error message (RFC 9528 6). Nobody vouches for it: it is counted and logged, and ends no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMessage<'b> {
    /// Another ERR_CODE; what it says is not looked at.
    Other(i64),
    /// 3: unknown credential referenced.
    UnknownCredential,
    /// 1: something else, in words.
    Unspecified(&'b str),
    /// 2: wrong selected cipher suite. We say that suite 2 is ours; which ones others have is not looked at.
    WrongSuite,
}

impl<'b> ErrorMessage<'b> {
    /// What may be said about a refusal: that the suite was wrong, and otherwise always the same.
    pub fn about(rejected: &Rejected) -> ErrorMessage<'static> {
        match rejected.code {
            Code::RenewalSuite => ErrorMessage::WrongSuite,
            _ => ErrorMessage::Unspecified("refused"),
        }
    }

    /// Reads one, and nothing after it: the payload of RuleID 12, or of a CoAP error.
    ///
    /// # Errors
    /// `E5-02` when it is no error message, or says success.
    pub fn parse(payload: &'b [u8]) -> Result<Self, Rejected> {
        Self::read(&mut Reader::new(payload)).map_err(|m| m.counted(Code::RenewalForged))
    }

    fn read(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        let error = match r.int()? {
            0 => return Err(Malformed::new("an error message says success")),
            1 => Self::Unspecified(r.text()?),
            2 => {
                match r.peek()? {
                    Major::Array => drop(r.item()?),
                    _ => drop(r.int()?),
                }
                Self::WrongSuite
            }
            3 => {
                if !r.bool()? {
                    return Err(Malformed::new("error 3 says true"));
                }
                Self::UnknownCredential
            }
            other => {
                r.item()?;
                Self::Other(other)
            }
        };
        r.end()?;
        Ok(error)
    }

    /// As a message to the device.
    pub fn to_message(&self) -> Message {
        Message::write(|w| self.emit(w))
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        match *self {
            Self::Other(code) => {
                w.int(code)?;
                w.null()
            }
            Self::UnknownCredential => {
                w.unsigned(3u8)?;
                w.bool(true)
            }
            Self::Unspecified(text) => {
                w.unsigned(1u8)?;
                // As much of it as there is room for.
                let room = text.len().min(Message::LONGEST - 3);
                let end = (0..=room).rev().find(|i| text.is_char_boundary(*i)).unwrap_or_default();
                w.text(text.get(..end).unwrap_or_default())
            }
            Self::WrongSuite => {
                w.unsigned(2u8)?;
                w.unsigned(SUITE)
            }
        }
    }
}
