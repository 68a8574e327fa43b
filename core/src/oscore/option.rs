//! The OSCORE option (RFC 8613 6.1): flags, Partial IV, kid context, kid.

use super::PartialIv;
use crate::error::{Code, Rejected, SealError};

/// The value of an OSCORE option. What parses emits the same bytes again: there is one form of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OscoreOption<'b> {
    /// Partial IV.
    pub piv: Option<PartialIv>,
    /// kid context: the ID Context, in full.
    pub kid_context: Option<&'b [u8]>,
    /// kid: Sender ID of the sender, possibly empty.
    pub kid: Option<&'b [u8]>,
}

const KID: u8 = 0x08;
const KID_CONTEXT: u8 = 0x10;
const RESERVED: u8 = 0xE0;

impl<'b> OscoreOption<'b> {
    /// Parses the value of the option.
    ///
    /// # Errors
    /// `T-01` for reserved bits or lengths, missing or trailing bytes, and a lone 00; `T-02` for a Partial IV with a
    /// leading zero.
    pub fn parse(value: &'b [u8]) -> Result<Self, Rejected> {
        let malformed = |reason| Err(Rejected::new(Code::TinyMalformed, reason));
        let Some((&flags, rest)) = value.split_first() else {
            return Ok(Self::default());
        };
        if flags & RESERVED != 0 {
            return malformed("reserved bits of the OSCORE flag byte");
        }
        if flags == 0 {
            return malformed("flag byte 0 must be sent as an empty option");
        }
        let (piv, rest) = match usize::from(flags & 0x07) {
            0 => (None, rest),
            n @ 1..=5 => match rest.split_at_checked(n) {
                Some((piv, rest)) => (Some(PartialIv::from_minimal(piv)?), rest),
                None => return malformed("PIV shorter than n"),
            },
            _ => return malformed("PIV lengths 6 and 7 are reserved"),
        };
        let (kid_context, rest) = if flags & KID_CONTEXT == 0 {
            (None, rest)
        } else {
            let Some((context, rest)) = rest.split_first().and_then(|(&s, rest)| rest.split_at_checked(s.into()))
            else {
                return malformed("kid context cut");
            };
            (Some(context), rest)
        };
        let kid = if flags & KID != 0 {
            Some(rest)
        } else if rest.is_empty() {
            None
        } else {
            return malformed("bytes after the OSCORE option");
        };
        Ok(Self { piv, kid_context, kid })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn emitted_len(&self) -> usize {
        let piv = self.piv.map_or(0, |p| p.as_bytes().len());
        let body = piv + self.kid_context.map_or(0, |c| 1 + c.len()) + self.kid.map_or(0, <[u8]>::len);
        if self.piv.is_none() && self.kid_context.is_none() && self.kid.is_none() { 0 } else { 1 + body }
    }

    /// Writes the value of the option and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`]; [`SealError::TooLong`] for a kid context of more than 255 bytes.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = self.emitted_len();
        let out = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
        if len == 0 {
            return Ok(0);
        }
        let piv = self.piv.as_ref().map_or(&[][..], PartialIv::as_bytes);
        let context = self.kid_context.unwrap_or_default();
        let context_len = [u8::try_from(context.len()).map_err(|_| SealError::TooLong)?];
        let flags = piv.len() as u8
            | if self.kid.is_some() { KID } else { 0 }
            | if self.kid_context.is_some() { KID_CONTEXT } else { 0 };
        let parts: [&[u8]; 5] = [
            &[flags],
            piv,
            if self.kid_context.is_some() { &context_len } else { &[] },
            context,
            self.kid.unwrap_or_default(),
        ];
        out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(o, p)| *o = *p);
        Ok(len)
    }
}
