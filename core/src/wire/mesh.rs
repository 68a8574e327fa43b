//! The mesh header of RFC 4944 5.2 in the one form of docs/protocol.md 4.1, and what may follow it.

use crate::error::{Code, Rejected, SealError};
use crate::id::Sid;

/// Size of the mesh header in bytes.
pub const HEADER: usize = 5;
/// Most hops that the header can announce in one byte.
pub const MAX_HOPS: u8 = 14;

/// Mesh header with two short addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Hops left, 1..=14. [`parse`] refuses 0.
    pub hops: u8,
    /// Who sent the datagram first.
    pub originator: Sid,
    /// Who it is for. 0000: any gateway of the network.
    pub destination: Sid,
}

impl Header {
    /// The five bytes.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let ([o1, o2], [f1, f2]) = (self.originator.to_bytes(), self.destination.to_bytes());
        [0xB0 | self.hops.min(MAX_HOPS), o1, o2, f1, f2]
    }

    /// Writes the header to the front of `out` and returns its size.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`].
    pub fn emit(self, out: &mut [u8]) -> Result<usize, SealError> {
        *out.first_chunk_mut().ok_or(SealError::BufferTooSmall)? = self.to_bytes();
        Ok(HEADER)
    }
}

/// What a datagram is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// RFC 4944 fragment, first or subsequent.
    Fragment,
    /// LOWPAN_IPHC (RFC 6282).
    Iphc,
    /// A tiny frame (docs/protocol.md 6): the byte is its RuleID.
    Tiny(u8),
}

/// The plaintext of an E1 frame, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext<'b> {
    /// Mesh header, if there is one.
    pub mesh: Option<Header>,
    /// What the rest is.
    pub dispatch: Dispatch,
    /// The rest, never empty.
    pub rest: &'b [u8],
}

/// Takes an opened plaintext apart.
///
/// # Errors
/// `E1-11`: empty, a mesh header not of 4.1, an unknown dispatch. `E1-10`: no hop left. `T-01`: RuleID 00, or 1F (E1S
/// inside E1).
pub fn parse(plaintext: &[u8]) -> Result<Plaintext<'_>, Rejected> {
    let first = *plaintext.first().ok_or(Rejected::new(Code::LinkMalformed, "the payload is empty"))?;
    let (mesh, rest) = if first & 0xC0 == 0x80 {
        let (header, rest) = header(plaintext)?;
        (Some(header), rest)
    } else {
        (None, plaintext)
    };
    let first = *rest.first().ok_or(Rejected::new(Code::LinkMalformed, "nothing follows the mesh header"))?;
    Ok(Plaintext { mesh, dispatch: dispatch(first)?, rest })
}

fn header(bytes: &[u8]) -> Result<(Header, &[u8]), Rejected> {
    const fn bad(reason: &'static str) -> Rejected {
        Rejected::new(Code::LinkMalformed, reason)
    }
    let (&[first, o1, o2, f1, f2], rest) = bytes.split_first_chunk::<HEADER>().ok_or(bad("the mesh header is cut"))?;
    if first & 0xF0 != 0xB0 {
        return Err(bad("a mesh header with a 64-bit address"));
    }
    match first & 0x0F {
        0 => return Err(Rejected::new(Code::LinkHopLimit, "no hop is left")),
        0x0F => return Err(bad("a mesh header with a second hops byte")),
        _ => {}
    }
    let originator = Sid::from_bytes([o1, o2]);
    let destination = Sid::from_bytes([f1, f2]);
    Ok((Header { hops: first & 0x0F, originator, destination }, rest))
}

fn dispatch(first: u8) -> Result<Dispatch, Rejected> {
    match first {
        0x00 => Err(Rejected::new(Code::TinyMalformed, "RuleID 00")),
        0x1F => Err(Rejected::new(Code::TinyMalformed, "E1S inside E1")),
        0x01..=0x3F => Ok(Dispatch::Tiny(first)),
        0x60..=0x7F => Ok(Dispatch::Iphc),
        0xC0..=0xC7 | 0xE0..=0xE7 => Ok(Dispatch::Fragment),
        _ => Err(Rejected::new(Code::LinkMalformed, "unknown dispatch")),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn code(bytes: &[u8]) -> Code {
        parse(bytes).unwrap_err().code
    }

    #[test]
    fn a_header_alone_carries_nothing() {
        assert_eq!(code(&[0xB1, 0x0a, 0x17, 0, 1]), Code::LinkMalformed);
        assert_eq!(code(&[0xB1, 0x0a, 0x17, 0]), Code::LinkMalformed);
        assert_eq!(code(&[]), Code::LinkMalformed);
    }

    #[test]
    fn each_forbidden_form_has_its_code() {
        assert_eq!(code(&[0xB0, 0, 1, 0, 2, 0x22]), Code::LinkHopLimit);
        assert_eq!(code(&[0xBF, 0, 1, 0, 2, 0x22]), Code::LinkMalformed);
        assert_eq!(code(&[0x91, 0, 1, 0, 2, 0x22]), Code::LinkMalformed);
        assert_eq!(code(&[0xB1, 0, 1, 0, 2, 0xB1, 0, 1, 0, 2, 0x22]), Code::LinkMalformed);
        assert_eq!(code(&[0x00]), Code::TinyMalformed);
        assert_eq!(code(&[0x1F]), Code::TinyMalformed);
        assert_eq!(code(&[0x41]), Code::LinkMalformed);
        assert_eq!(code(&[0xC8]), Code::LinkMalformed);
    }

    proptest! {
        #[test]
        fn a_plaintext_emits_what_was_parsed(first in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..110)) {
            let bytes = [&[first][..], &rest].concat();
            if let Ok(p) = parse(&bytes) {
                let mut out: Vec<u8> = p.mesh.map(|h| h.to_bytes().to_vec()).unwrap_or_default();
                out.extend(p.rest);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
