//! Who a node says it is.

use core::fmt;
use core::str::FromStr;

/// Generation of the hardware (W1): length and form of the serial, the information type and the sensor table hang on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// Boards with a bootloader letter below `G`: a serial of 32 bits.
    V12,
    /// Boards with `G` or above: a serial of 8 bytes.
    V15,
}

impl Generation {
    /// `v12` or `v15`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "v12",
            Self::V15 => "v15",
        }
    }

    /// Bytes of a serial in a binary frame.
    pub const fn serial_length(self) -> usize {
        match self {
            Self::V12 => 4,
            Self::V15 => 8,
        }
    }
}

/// Order of the serial's bytes in binary frames of v12 (W4): the same node changed it with its software.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SerialOrder {
    /// API v026 and later.
    #[default]
    BigEndian,
    /// API v004 to v023.
    LittleEndian,
}

/// Serial of a node. Shown as the node prints it in ASCII frames, but in lower case: 16 hex digits, or decimal on v12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serial {
    /// v12.
    V12(u32),
    /// v15, in the order on the wire.
    V15([u8; 8]),
}

impl Serial {
    /// Which hardware has such a serial.
    pub const fn generation(self) -> Generation {
        match self {
            Self::V12(_) => Generation::V12,
            Self::V15(_) => Generation::V15,
        }
    }

    /// Whether it is what a node sends that could not read its own: zero.
    pub fn is_zero(self) -> bool {
        self == Self::V12(0) || self == Self::V15([0; 8])
    }

    /// The serial whose bytes came in the other order: of v12 alone.
    pub const fn reversed(self) -> Self {
        match self {
            Self::V12(number) => Self::V12(number.swap_bytes()),
            Self::V15(_) => self,
        }
    }

    /// From the field of an ASCII frame: 16 hex digits, or a decimal of 32 bits without leading zeros.
    pub(crate) fn parse_ascii(text: &[u8]) -> Option<Self> {
        if text.len() == 16 {
            let mut bytes = [0; 8];
            for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                let &[high, low] = pair else { return None };
                *byte = (hex_digit(high)? << 4) | hex_digit(low)?;
            }
            return Some(Self::V15(bytes));
        }
        decimal(text).map(Self::V12)
    }

    /// From the first bytes after N of a binary frame. `None` if there are too few.
    pub(crate) fn parse_binary(bytes: &[u8], generation: Generation, order: SerialOrder) -> Option<Self> {
        match (generation, order) {
            (Generation::V15, _) => bytes.first_chunk().copied().map(Self::V15),
            (_, SerialOrder::BigEndian) => bytes.first_chunk().map(|&b| Self::V12(u32::from_be_bytes(b))),
            (_, SerialOrder::LittleEndian) => bytes.first_chunk().map(|&b| Self::V12(u32::from_le_bytes(b))),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V12(number) => write!(f, "{number}"),
            Self::V15(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// No serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialRefused;

impl fmt::Display for SerialRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a serial is 16 hex digits, or on v12 a decimal number up to 4294967295")
    }
}

impl core::error::Error for SerialRefused {}

impl FromStr for Serial {
    type Err = SerialRefused;

    fn from_str(text: &str) -> Result<Self, SerialRefused> {
        Self::parse_ascii(text.as_bytes()).ok_or(SerialRefused)
    }
}

/// A decimal as nodes print it: no sign, no leading zeros, 32 bits.
pub(crate) fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    text.iter().try_fold(0_u32, |number, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u32::from(digit)) }
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A').wrapping_add(10)),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_serial_is_read_as_it_is_shown() {
        for text in ["8a7384477876150c", "2179156386", "0", "4294967295", "0000000000000000"] {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), text);
        }
        for text in ["", "8a7384477876150", "8a7384477876150cc", "4294967296", "007", "-1", "8a738447787615 c"] {
            assert_eq!(text.parse::<Serial>(), Err(SerialRefused), "{text}");
        }
    }
}
