//! CoAP messages (RFC 7252) and the profile that ours keep on the outside (docs/protocol.md 5).

use crate::error::{Code, Rejected, SealError};
use crate::oscore::{OscoreOption, SHORTEST_CIPHERTEXT};

/// Code 0.02.
pub const POST: u8 = 0x02;
/// Code 2.04, "changed": accepted and durable.
pub const CHANGED: u8 = 0x44;
/// Code 4.00.
pub const BAD_REQUEST: u8 = 0x80;
/// Code 4.01: re-key needed.
pub const UNAUTHORIZED: u8 = 0x81;
/// Code 4.02.
pub const BAD_OPTION: u8 = 0x82;
/// Code 4.04.
pub const NOT_FOUND: u8 = 0x84;
/// Code 4.05.
pub const METHOD_NOT_ALLOWED: u8 = 0x85;
/// Code 4.15.
pub const UNSUPPORTED_CONTENT_FORMAT: u8 = 0x8F;
/// Code 4.29: slow down.
pub const TOO_MANY_REQUESTS: u8 = 0x9D;
/// Code 5.03, from the gateway under C2.
pub const SERVICE_UNAVAILABLE: u8 = 0xA3;
/// Code 5.04, from the gateway under C2: stored at the gateway.
pub const GATEWAY_TIMEOUT: u8 = 0xA4;
/// The byte before a payload.
pub const PAYLOAD_MARKER: u8 = 0xFF;

/// Option numbers (RFC 7252 5.10, RFC 8613 2).
pub mod number {
    /// Uri-Host.
    pub const URI_HOST: u16 = 3;
    /// Uri-Port.
    pub const URI_PORT: u16 = 7;
    /// OSCORE.
    pub const OSCORE: u16 = 9;
    /// Uri-Path.
    pub const URI_PATH: u16 = 11;
    /// Content-Format.
    pub const CONTENT_FORMAT: u16 = 12;
    /// Uri-Query.
    pub const URI_QUERY: u16 = 15;
    /// Accept.
    pub const ACCEPT: u16 = 17;
}

/// Whether a receiver that does not know the option must refuse the message: its number is odd (RFC 7252 5.4.6).
pub const fn is_critical(option: u16) -> bool {
    option & 1 == 1
}

/// Whether the code is one of a response: class 2, 4 or 5.
pub const fn is_answer_code(code: u8) -> bool {
    matches!(code >> 5, 2 | 4 | 5)
}

/// An unsigned integer option value (RFC 7252 3.2), at most 4 bytes.
pub fn uint(value: &[u8]) -> Option<u32> {
    (value.len() <= 4).then(|| value.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// Message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Confirmable.
    Con,
    /// Non-confirmable.
    Non,
    /// Acknowledgement.
    Ack,
    /// Reset.
    Rst,
}

impl Type {
    /// As it is written in captures: CON, NON, ACK, RST.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Con => "CON",
            Self::Non => "NON",
            Self::Ack => "ACK",
            Self::Rst => "RST",
        }
    }
}

/// A token: 0 to 8 bytes that bring an answer to its request.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    bytes: [u8; 8],
    len: u8,
}

impl Token {
    /// `None` for more than 8 bytes.
    pub fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(Self { bytes, len: token.len() as u8 })
    }

    /// The bytes, possibly none.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl From<u8> for Token {
    fn from(token: u8) -> Self {
        Self { bytes: [token, 0, 0, 0, 0, 0, 0, 0], len: 1 }
    }
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(")?;
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str(")")
    }
}

/// Any CoAP message over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'b> {
    /// Message type.
    pub kind: Type,
    /// Code; 0 is the empty message.
    pub code: u8,
    /// Message ID.
    pub message_id: u16,
    /// Token.
    pub token: Token,
    /// Options as they stand in the message, checked for shape. [`Options::new`] walks over them.
    pub options: &'b [u8],
    /// Payload; empty means that there is none, and no marker.
    pub payload: &'b [u8],
}

impl<'b> Message<'b> {
    /// An empty message of a type: the acknowledgement or reset of `message_id`.
    pub const fn empty(kind: Type, message_id: u16) -> Self {
        Self { kind, code: 0, message_id, token: Token { bytes: [0; 8], len: 0 }, options: &[], payload: &[] }
    }

    /// Parses a datagram.
    ///
    /// # Errors
    /// `T-01` for anything that RFC 7252 3 calls a format error.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Rejected> {
        let Some((&[first, code, high, low], rest)) = bytes.split_first_chunk() else {
            return malformed("shorter than a CoAP header");
        };
        if first >> 6 != 1 {
            return malformed("CoAP version is not 1");
        }
        let kind = match first >> 4 & 3 {
            0 => Type::Con,
            1 => Type::Non,
            2 => Type::Ack,
            _ => Type::Rst,
        };
        let Some((token, rest)) = rest.split_at_checked(usize::from(first & 0x0F)) else {
            return malformed("token cut");
        };
        let Some(token) = Token::new(token) else {
            return malformed("token length above 8");
        };
        if code == 0 && (!token.as_bytes().is_empty() || !rest.is_empty()) {
            return malformed("an empty message with content");
        }
        let Some((options, payload)) = split_options(rest) else {
            return malformed("options or payload marker");
        };
        Ok(Self { kind, code, message_id: u16::from_be_bytes([high, low]), token, options, payload })
    }

    /// The options, in order: number and value.
    pub fn options(&self) -> Options<'b> {
        Options::new(self.options)
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn emitted_len(&self) -> usize {
        let payload = if self.payload.is_empty() { 0 } else { 1 + self.payload.len() };
        4 + self.token.as_bytes().len() + self.options.len() + payload
    }

    /// Writes the message and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = self.emitted_len();
        let out = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
        let marker: &[u8] = if self.payload.is_empty() { &[] } else { &[PAYLOAD_MARKER] };
        let token = self.token.as_bytes();
        let [high, low] = self.message_id.to_be_bytes();
        let head = [0x40 | (self.kind as u8) << 4 | token.len() as u8, self.code, high, low];
        let parts: [&[u8]; 5] = [&head, token, self.options, marker, self.payload];
        out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(o, p)| *o = *p);
        Ok(len)
    }
}

/// Splits what follows a token (or the code of an OSCORE plaintext) into options and payload. `None` when an option cannot
/// be read, or nothing follows the payload marker.
pub fn split_options(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut walk = Options::new(bytes);
    while walk.step()?.is_some() {}
    let (options, rest) = bytes.split_at_checked(bytes.len() - walk.rest.len())?;
    match rest {
        [] => Some((options, &[])),
        [PAYLOAD_MARKER, payload @ ..] if !payload.is_empty() => Some((options, payload)),
        _ => None,
    }
}

/// Walks over options (RFC 7252 3.1). It ends at the payload marker, and at the first option that cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'b> {
    rest: &'b [u8],
    number: u16,
}

impl<'b> Options<'b> {
    /// Over options as they stand in a message.
    pub const fn new(options: &'b [u8]) -> Self {
        Self { rest: options, number: 0 }
    }

    /// `None` when the next option cannot be read; `Some(None)` at the end.
    #[allow(clippy::option_option, reason = "private: malformed, end, or an option")]
    fn step(&mut self) -> Option<Option<(u16, &'b [u8])>> {
        let (delta, len, rest) = match self.rest {
            [] | [PAYLOAD_MARKER, ..] => return Some(None),
            [first, rest @ ..] => {
                let (delta, rest) = extended(first >> 4, rest)?;
                let (len, rest) = extended(first & 0x0F, rest)?;
                (delta, len, rest)
            }
        };
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        self.number = self.number.checked_add(delta)?;
        self.rest = rest;
        Some(Some((self.number, value)))
    }
}

impl<'b> Iterator for Options<'b> {
    type Item = (u16, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step().flatten()
    }
}

fn extended(nibble: u8, rest: &[u8]) -> Option<(u16, &[u8])> {
    match (nibble, rest) {
        (0..=12, _) => Some((u16::from(nibble), rest)),
        (13, [a, rest @ ..]) => Some((u16::from(*a) + 13, rest)),
        (14, [a, b, rest @ ..]) => Some((u16::from_be_bytes([*a, *b]).checked_add(269)?, rest)),
        _ => None,
    }
}

/// Writes one option whose predecessor had the number `previous` (0 for the first). Returns its length.
///
/// # Errors
/// [`SealError::BufferTooSmall`]; [`SealError::TooLong`] for a value of more than 64 KiB or a number below `previous`.
pub fn emit_option(out: &mut [u8], previous: u16, number: u16, value: &[u8]) -> Result<usize, SealError> {
    let delta = number.checked_sub(previous).ok_or(SealError::TooLong)?;
    let len = u16::try_from(value.len()).map_err(|_| SealError::TooLong)?;
    let (d, d_more, d_len) = nibble(delta);
    let (l, l_more, l_len) = nibble(len);
    let head = [d << 4 | l];
    let parts: [&[u8]; 4] =
        [&head, d_more.get(..d_len).unwrap_or_default(), l_more.get(..l_len).unwrap_or_default(), value];
    let total = 1 + d_len + l_len + value.len();
    let out = out.get_mut(..total).ok_or(SealError::BufferTooSmall)?;
    out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(o, p)| *o = *p);
    Ok(total)
}

fn nibble(n: u16) -> (u8, [u8; 2], usize) {
    match n {
        0..=12 => (n as u8, [0; 2], 0),
        13..=268 => (13, [(n - 13) as u8, 0], 1),
        _ => (14, (n - 269).to_be_bytes(), 2),
    }
}

/// What may stand on the outside of a protected request (docs/protocol.md 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// CoAP over UDP from a stock client: Uri-Host, Uri-Port and elective options are skipped.
    StockClient,
    /// Ours: nothing but the OSCORE option.
    Strict,
}

/// An OSCORE message of our profile, from the outside: POST or an answer, with an OSCORE option and a ciphertext.
///
/// Type, Message ID and Token are hop-local; code, option and ciphertext are not, and [`emit`](Self::emit) writes
/// them as they were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected<'b> {
    /// Message type, hop-local.
    pub kind: Type,
    /// Outer code: [`POST`] or [`CHANGED`].
    pub code: u8,
    /// Message ID, hop-local.
    pub message_id: u16,
    /// Token, hop-local.
    pub token: Token,
    /// The OSCORE option.
    pub option: OscoreOption<'b>,
    /// Ciphertext with its tag: at least 9 bytes.
    pub ciphertext: &'b [u8],
}

impl<'b> Protected<'b> {
    /// Parses a request, up or down: POST, CON or NON, with number and kid in the OSCORE option.
    ///
    /// # Errors
    /// `T-01` for anything else; `T-02` for a Partial IV with a leading zero.
    pub fn parse_request(bytes: &'b [u8], outer: Outer) -> Result<Self, Rejected> {
        let message = Message::parse(bytes)?;
        if !matches!(message.kind, Type::Con | Type::Non) {
            return malformed("a request must be CON or NON");
        }
        if message.code != POST {
            return malformed("outer code must be POST");
        }
        let this = Self::of(&message, outer)?;
        if this.option.piv.is_none() {
            return malformed("request without PIV");
        }
        if this.option.kid.is_none() {
            return malformed("request without kid");
        }
        Ok(this)
    }

    /// Parses an answer: code 2.04, with an OSCORE option that has a number or is empty.
    ///
    /// # Errors
    /// `T-01` for anything else; `T-02` for a Partial IV with a leading zero.
    pub fn parse_answer(bytes: &'b [u8]) -> Result<Self, Rejected> {
        let message = Message::parse(bytes)?;
        if message.kind == Type::Rst {
            return malformed("an answer is no RST");
        }
        if message.code != CHANGED {
            return malformed("outer code of an answer must be 2.04");
        }
        let this = Self::of(&message, Outer::Strict)?;
        if this.option.kid.is_some() || this.option.kid_context.is_some() {
            return malformed("answer with kid or kid context");
        }
        Ok(this)
    }

    fn of(message: &Message<'b>, outer: Outer) -> Result<Self, Rejected> {
        let mut oscore = None;
        for (option, value) in message.options() {
            match option {
                number::OSCORE if oscore.is_none() => oscore = Some(value),
                number::OSCORE => return malformed("OSCORE is not repeatable"),
                number::URI_HOST | number::URI_PORT if outer == Outer::StockClient => {}
                _ if outer == Outer::StockClient && !is_critical(option) => {}
                _ => return malformed("outer option other than OSCORE"),
            }
        }
        let Some(oscore) = oscore else {
            return malformed("no OSCORE option");
        };
        let option = OscoreOption::parse(oscore)?;
        if message.payload.len() < SHORTEST_CIPHERTEXT {
            return malformed("ciphertext missing, or shorter than tag and code");
        }
        let Message { kind, code, message_id, token, .. } = *message;
        Ok(Self { kind, code, message_id, token, option, ciphertext: message.payload })
    }

    /// Bytes that [`emit`](Self::emit) writes at most.
    pub fn emitted_len(&self) -> usize {
        // Header, option head (two extra bytes at most), marker.
        4 + self.token.as_bytes().len() + 3 + self.option.emitted_len() + 1 + self.ciphertext.len()
    }

    /// Writes the message with the OSCORE option alone, and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`]; [`SealError::TooLong`] for a kid context of more than 255 bytes.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        // The option's value is written where it will stand, once its head is known to fit.
        let mut head = [0; 3];
        let head_len = emit_option_head(&mut head, number::OSCORE, self.option.emitted_len())?;
        let token = self.token.as_bytes();
        let [high, low] = self.message_id.to_be_bytes();
        let fixed = [0x40 | (self.kind as u8) << 4 | token.len() as u8, self.code, high, low];
        let mut at = 0;
        for part in [&fixed[..], token, head.get(..head_len).unwrap_or_default()] {
            at = put(out, at, part)?;
        }
        at += self.option.emit(out.get_mut(at..).ok_or(SealError::BufferTooSmall)?)?;
        at = put(out, at, &[PAYLOAD_MARKER])?;
        put(out, at, self.ciphertext)
    }
}

fn emit_option_head(out: &mut [u8; 3], number: u16, len: usize) -> Result<usize, SealError> {
    let (l, more, more_len) = nibble(u16::try_from(len).map_err(|_| SealError::TooLong)?);
    *out = [(number as u8) << 4 | l, more[0], more[1]];
    Ok(1 + more_len)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> Result<usize, SealError> {
    let end = at + bytes.len();
    out.get_mut(at..end).ok_or(SealError::BufferTooSmall)?.copy_from_slice(bytes);
    Ok(end)
}

fn malformed<T>(reason: &'static str) -> Result<T, Rejected> {
    Err(Rejected::new(Code::TinyMalformed, reason))
}
