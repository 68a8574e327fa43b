//! A node's signature over its readings, in parts: what stands in a hardened frame in the place of a reading.
//!
//! ```text
//! 3C 3D 3E | 6E | N | serial(8) | batch(4) | index(1) | count(1: 1..=16) | bytes(1..=128)
//! ```
//!
//! Sealed like the binary frame of a reading, under a number of its own; nobody takes it in clear. What the parts are,
//! one after the other, is for whoever verifies: docs/protocol.md, "Signatures of classic nodes".

use super::{Refused, START};

/// Type byte.
pub const TYPE: u8 = 0x6E;
/// Most parts of a signature.
pub const MOST_PARTS: u8 = 16;
/// Most bytes of one.
pub const LONGEST_PART: usize = 128;
/// Bytes of the frame in clear beside those of the part.
pub const HEADER: usize = 19;

/// A part of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'b> {
    /// Whose.
    pub serial: [u8; 8],
    /// Number of the batch.
    pub batch: u32,
    /// Which part, from 0.
    pub index: u8,
    /// How many there are.
    pub count: u8,
    /// The part.
    pub bytes: &'b [u8],
}

impl<'b> Part<'b> {
    /// Reads a frame that was opened.
    ///
    /// # Errors
    /// [`Refused::Short`], [`Refused::Start`], [`Refused::Type`], [`Refused::Length`]; [`Refused::Content`] for a part that
    /// cannot be.
    pub fn parse(frame: &'b [u8]) -> Result<Self, Refused> {
        let found = frame.len();
        let (head, bytes) = frame.split_first_chunk::<HEADER>().ok_or(Refused::Short { found })?;
        let &[d1, d2, d3, kind, said, s1, s2, s3, s4, s5, s6, s7, s8, b1, b2, b3, b4, index, count] = head;
        if [d1, d2, d3] != START {
            return Err(Refused::Start);
        }
        if kind != TYPE {
            return Err(Refused::Type(kind));
        }
        if usize::from(said) != found - 5 {
            return Err(Refused::Length { found: found - 5, said });
        }
        content(index, count, bytes.len()).map_err(Refused::Content)?;
        let (serial, batch) = ([s1, s2, s3, s4, s5, s6, s7, s8], u32::from_be_bytes([b1, b2, b3, b4]));
        Ok(Self { serial, batch, index, count, bytes })
    }

    /// Writes the frame in clear, to be sealed; returns how many bytes it took.
    ///
    /// # Errors
    /// [`Refused::Content`] for a part that cannot be, [`Refused::Buffer`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Refused> {
        content(self.index, self.count, self.bytes.len()).map_err(Refused::Content)?;
        let wanted = HEADER + self.bytes.len();
        let out = out.get_mut(..wanted).ok_or(Refused::Buffer { wanted })?;
        // At most 142.
        let (kind, batch, place) = ([TYPE, (wanted - 5) as u8], self.batch.to_be_bytes(), [self.index, self.count]);
        let all = START.iter().chain(&kind).chain(&self.serial).chain(&batch).chain(&place).chain(self.bytes);
        out.iter_mut().zip(all).for_each(|(slot, byte)| *slot = *byte);
        Ok(wanted)
    }
}

fn content(index: u8, count: u8, bytes: usize) -> Result<(), &'static str> {
    if index >= count || count > MOST_PARTS {
        return Err("a signature has 1 to 16 parts, counted from 0");
    }
    if bytes == 0 || bytes > LONGEST_PART { Err("a part has 1 to 128 bytes") } else { Ok(()) }
}

/// Whether this stands behind the serial of such a frame, and if not, why.
pub(super) fn is_rest(rest: &[u8]) -> Result<(), &'static str> {
    match rest {
        [_, _, _, _, index, count, bytes @ ..] => content(*index, *count, bytes.len()),
        _ => Err("a part has 1 to 128 bytes"),
    }
}
