//! Tiny frames (W6): a sequence, a length and fields. Who sent one is for the carrier to say.

use crate::field::Fields;
use crate::refused::Refused;
use crate::sensors::Sensors;

/// Bytes of the largest tiny frame.
pub const LONGEST_TINY: usize = 100;

/// A tiny frame. All frames made of one full frame have its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiny<'a> {
    /// Counter of the node.
    pub sequence: u8,
    /// The fields, as they came.
    pub payload: &'a [u8],
    /// The whole frame.
    pub bytes: &'a [u8],
}

impl<'a> Tiny<'a> {
    /// Reads a tiny frame.
    ///
    /// # Errors
    /// Its length byte, which counts all of it, is not right.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        let [sequence, promised, payload @ ..] = bytes else {
            return Err(Refused::Short { length: bytes.len() });
        };
        let (promised, present) = (usize::from(*promised), bytes.len());
        if promised > LONGEST_TINY {
            return Err(Refused::Long { length: promised });
        }
        match promised.cmp(&present) {
            core::cmp::Ordering::Greater => Err(Refused::Truncated { promised, present }),
            core::cmp::Ordering::Less => Err(Refused::Trailing { bytes: present.saturating_sub(promised) }),
            core::cmp::Ordering::Equal => Ok(Self { sequence: *sequence, payload, bytes }),
        }
    }

    /// The fields in the order on the wire. They are always written as in binary frames.
    pub const fn fields(&self, sensors: &'a Sensors) -> Fields<'a> {
        Fields::binary(self.payload, self.bytes.len(), sensors)
    }
}
