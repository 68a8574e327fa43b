//! What stands inside an OSCORE message, and whether our profile takes it (docs/protocol.md 5, 6.2).

use super::{OscoreOption, SHORTEST_CIPHERTEXT};
use crate::error::{Rejected, SealError};
use crate::level::OscoreLevel;
use crate::wire::coap::{self, Options, number};

/// The OSCORE plaintext (RFC 8613 5.3): code, options of class E, payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext<'b> {
    /// CoAP code.
    pub code: u8,
    /// Options as they stand in CoAP, checked for shape. [`Options::new`] walks over them.
    pub options: &'b [u8],
    /// Payload; empty means that there is none, and no marker.
    pub payload: &'b [u8],
}

impl<'b> Plaintext<'b> {
    /// `None` when there is no code, options that cannot be read, or a payload marker with nothing behind it.
    pub fn parse(bytes: &'b [u8]) -> Option<Self> {
        let (&code, rest) = bytes.split_first()?;
        let (options, payload) = coap::split_options(rest)?;
        Some(Self { code, options, payload })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub const fn emitted_len(&self) -> usize {
        1 + self.options.len() + if self.payload.is_empty() { 0 } else { 1 + self.payload.len() }
    }

    /// Writes the plaintext and returns its length.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = self.emitted_len();
        let out = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
        let marker: &[u8] = if self.payload.is_empty() { &[] } else { &[coap::PAYLOAD_MARKER] };
        let parts: [&[u8]; 4] = [&[self.code], self.options, marker, self.payload];
        out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(o, p)| *o = *p);
        Ok(len)
    }
}

/// A request that opened and is still no reading: what to count, and the code to answer with, under protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is counted: `E2-07` or `E3-07`.
    pub rejected: Rejected,
    /// CoAP code of the protected answer: 4.00, 4.02, 4.04 or 4.05.
    pub answer_code: u8,
}

/// A request inside that our profile takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerRequest<'b> {
    /// Only at E2, on links with IP: the C3 message that C2 was put around.
    Nested {
        /// OSCORE option of the C3 message, with number and kid.
        option: OscoreOption<'b>,
        /// Its ciphertext with tag.
        ciphertext: &'b [u8],
    },
    /// Items of docs/protocol.md 7; never empty.
    Payload(&'b [u8]),
}

/// An answer inside that our profile takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerAnswer<'b> {
    /// CoAP code: 2.xx, 4.xx or 5.xx.
    pub code: u8,
    /// Items of docs/protocol.md 7; may be empty.
    pub payload: &'b [u8],
}

/// Judges what a tiny request carried under one level (docs/protocol.md 6.2): code POST, no options, a payload.
///
/// # Errors
/// `L::INNER`, to be answered 4.05 for another code, 4.02 for options and 4.00 else.
pub fn judge_tiny_request<L: OscoreLevel>(plaintext: &[u8]) -> Result<&[u8], Refused> {
    let inner =
        Plaintext::parse(plaintext).ok_or(refused::<L>(coap::BAD_REQUEST, "no CoAP code, options and payload"))?;
    if inner.code != coap::POST {
        return Err(refused::<L>(coap::METHOD_NOT_ALLOWED, "code must be POST"));
    }
    if !inner.options.is_empty() {
        return Err(refused::<L>(coap::BAD_OPTION, "inner options are not allowed in tiny messages"));
    }
    if inner.payload.is_empty() {
        return Err(refused::<L>(coap::BAD_REQUEST, "payload missing"));
    }
    Ok(inner.payload)
}

/// Judges what a request carried that came as CoAP over UDP (docs/protocol.md 5): POST to the root or to `r`, with
/// Uri-Query, Content-Format 112, 60, 42 or none, and Accept; other elective options are ignored. At E2 it may be a
/// C3 message instead.
///
/// # Errors
/// `L::INNER`, to be answered 4.02 for an unknown critical option, 4.04 for another resource, 4.05 for another code, 4.15
/// for another Content-Format, and 4.00 for what cannot be read or has no payload.
pub fn judge_request<L: OscoreLevel>(plaintext: &[u8]) -> Result<InnerRequest<'_>, Refused> {
    let inner =
        Plaintext::parse(plaintext).ok_or(refused::<L>(coap::BAD_REQUEST, "no CoAP code, options and payload"))?;
    let mut nested = None;
    let mut path = None;
    let (mut elsewhere, mut format_seen, mut accept_seen) = (false, false, false);
    let mut format = 42;
    for (option, value) in Options::new(inner.options) {
        match option {
            number::URI_PATH if path.is_none() => path = Some(value),
            number::URI_PATH => elsewhere = true,
            number::URI_QUERY => {}
            number::CONTENT_FORMAT if !format_seen => {
                format_seen = true;
                format = coap::uint(value).ok_or(refused::<L>(coap::BAD_REQUEST, "Content-Format is no number"))?;
            }
            number::ACCEPT if !accept_seen => accept_seen = true,
            number::OSCORE if L::MAY_NEST && nested.is_none() => nested = Some(value),
            _ if coap::is_critical(option) => {
                return Err(refused::<L>(coap::BAD_OPTION, "unknown critical option inside"));
            }
            _ => {}
        }
    }
    if elsewhere || !matches!(path, None | Some(b"r")) {
        return Err(refused::<L>(coap::NOT_FOUND, "the resource is the root or r"));
    }
    if inner.code != coap::POST {
        return Err(refused::<L>(coap::METHOD_NOT_ALLOWED, "code must be POST"));
    }
    if inner.payload.is_empty() {
        return Err(refused::<L>(coap::BAD_REQUEST, "payload missing"));
    }
    let Some(option) = nested else {
        if !matches!(format, 112 | 60 | 42) {
            return Err(refused::<L>(coap::UNSUPPORTED_CONTENT_FORMAT, "Content-Format is not 112, 60 or 42"));
        }
        return Ok(InnerRequest::Payload(inner.payload));
    };
    let option = OscoreOption::parse(option)
        .map_err(|r| Refused { rejected: Rejected::new(L::INNER, r.reason), answer_code: coap::BAD_OPTION })?;
    if option.piv.is_none() || option.kid.is_none() || inner.payload.len() < SHORTEST_CIPHERTEXT {
        return Err(refused::<L>(coap::BAD_REQUEST, "C3 message without number, kid or ciphertext"));
    }
    Ok(InnerRequest::Nested { option, ciphertext: inner.payload })
}

/// Judges what an answer carried: a response code, no critical option. Elective options are ignored.
///
/// # Errors
/// `L::INNER`.
pub fn judge_answer<L: OscoreLevel>(plaintext: &[u8]) -> Result<InnerAnswer<'_>, Rejected> {
    let inner = Plaintext::parse(plaintext).ok_or(Rejected::new(L::INNER, "no CoAP code, options and payload"))?;
    if !coap::is_answer_code(inner.code) {
        return Err(Rejected::new(L::INNER, "an answer must have a response code"));
    }
    if Options::new(inner.options).any(|(option, _)| coap::is_critical(option)) {
        return Err(Rejected::new(L::INNER, "critical option in an answer"));
    }
    Ok(InnerAnswer { code: inner.code, payload: inner.payload })
}

/// The C3 answer inside a C2 answer on links with IP: option and ciphertext. `None` when the answer is the gateway's own.
///
/// # Errors
/// `L::INNER` when there is an OSCORE option that cannot be one of an answer, or a ciphertext is missing.
pub fn nested_answer<L: OscoreLevel>(plaintext: &[u8]) -> Result<Option<(OscoreOption<'_>, &[u8])>, Rejected> {
    let inner = Plaintext::parse(plaintext).ok_or(Rejected::new(L::INNER, "no CoAP code, options and payload"))?;
    let mut options = Options::new(inner.options);
    let value = match (L::MAY_NEST, options.next(), options.next()) {
        (true, Some((number::OSCORE, value)), None) => value,
        _ => return Ok(None),
    };
    let option = OscoreOption::parse(value).map_err(|r| Rejected::new(L::INNER, r.reason))?;
    if inner.code != coap::CHANGED || option.kid.is_some() || inner.payload.len() < SHORTEST_CIPHERTEXT {
        return Err(Rejected::new(L::INNER, "no C3 answer inside"));
    }
    Ok(Some((option, inner.payload)))
}

const fn refused<L: OscoreLevel>(answer_code: u8, reason: &'static str) -> Refused {
    Refused { rejected: Rejected::new(L::INNER, reason), answer_code }
}
