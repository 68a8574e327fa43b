//! Text that came from outside.

use core::fmt::{self, Write as _};

/// Bytes that a node meant as text: a node id, a tag, the value of a string sensor. Nothing about them is checked.
///
/// Shown, it is safe on a terminal and in a log: what is not printable ASCII or a letter beyond it, and the backslash,
/// comes out escaped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// These bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// As they came.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// As UTF-8, if it is that.
    pub fn to_str(self) -> Option<&'a str> {
        core::str::from_utf8(self.0).ok()
    }

    /// Whether nothing is there.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    ' '..='~' if c != '\\' => f.write_char(c)?,
                    _ if c.is_alphanumeric() => f.write_char(c)?,
                    '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(c))?,
                    _ => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn what_a_terminal_would_obey_comes_out_escaped() {
        assert_eq!(Text::new(b"\x1b[2J\\\xff\0ok").to_string(), "\\x1b[2J\\x5c\\xff\\x00ok");
        assert_eq!(Text::new("m³ \u{9b}\u{202e}é".as_bytes()).to_string(), "m³ \\u{9b}\\u{202e}é");
    }
}
