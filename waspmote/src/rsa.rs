//! Textbook RSA as `WaspRSA` has it (W8): m^e mod n on hex text, without padding, and what follows from that.
//!
//! For reading and breaking what exists: the same message gives the same ciphertext, a short one under e = 3 is an integer
//! cube ([`whole_root`]), and nothing here keeps its time or its memory to itself. Never for a secret worth keeping.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use num_bigint::BigUint;

/// Longest number in bytes: 4096 bits. A node gives out at 1024.
pub const LONGEST: usize = 512;

/// Why a number is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// Something else than hex digits, or none.
    Hex {
        /// Which argument.
        what: &'static str,
    },
    /// More than [`LONGEST`] bytes.
    Long {
        /// Which argument.
        what: &'static str,
    },
    /// A modulus, or a prime, that is even or less than 3.
    Modulus {
        /// Which argument.
        what: &'static str,
    },
}

impl Refused {
    /// One word that stays the same from release to release: `hex`, `long`, `modulus`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Hex { .. } => "hex",
            Self::Long { .. } => "long",
            Self::Modulus { .. } => "modulus",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex { what } => write!(f, "the {what} is no hex number"),
            Self::Long { what } => write!(f, "the {what} has more than {LONGEST} bytes"),
            Self::Modulus { what } => write!(f, "the {what} is even or less than 3, as none of RSA is"),
        }
    }
}

impl core::error::Error for Refused {}

/// m^e mod n. With the private exponent it is the vendor's signature, and the undoing of the public operation.
///
/// # Errors
/// As [`Refused`] says.
pub fn power(message: &str, exponent: &str, modulus: &str) -> Result<String, Refused> {
    let (message, exponent) = (number("message", message)?, number("exponent", exponent)?);
    Ok(text(&message.modpow(&exponent, &odd("modulus", modulus)?)))
}

/// The same of bytes, which are one big-endian number.
///
/// # Errors
/// As [`Refused`] says.
pub fn power_of_bytes(message: &[u8], exponent: &str, modulus: &str) -> Result<String, Refused> {
    if message.len() > LONGEST {
        return Err(Refused::Long { what: "message" });
    }
    let exponent = number("exponent", exponent)?;
    Ok(text(&BigUint::from_bytes_be(message).modpow(&exponent, &odd("modulus", modulus)?)))
}

/// A private key by the Chinese remainder theorem, as the vendor's decrypt call took it until API v012 (RFC 8017 3.2).
#[derive(Clone, Copy)]
pub struct CrtKey<'b> {
    /// First prime.
    pub p: &'b str,
    /// Second prime.
    pub q: &'b str,
    /// d mod p - 1.
    pub dp: &'b str,
    /// d mod q - 1.
    pub dq: &'b str,
    /// Inverse of q mod p.
    pub qinv: &'b str,
}

impl CrtKey<'_> {
    /// c^d mod p·q.
    ///
    /// # Errors
    /// As [`Refused`] says.
    pub fn decrypt(&self, ciphertext: &str) -> Result<String, Refused> {
        let (p, q) = (odd("prime p", self.p)?, odd("prime q", self.q)?);
        let c = number("ciphertext", ciphertext)?;
        let m1 = c.modpow(&number("exponent dp", self.dp)?, &p);
        let m2 = c.modpow(&number("exponent dq", self.dq)?, &q);
        // p is added so that the difference is not negative; q may be the larger prime.
        let difference = m1 + &p - (&m2 % &p);
        let h = (number("coefficient qinv", self.qinv)? * difference) % &p;
        Ok(text(&(m2 + h * q)))
    }
}

impl fmt::Debug for CrtKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrtKey(…)")
    }
}

/// The message, if the ciphertext is its plain power: what was encrypted under a small exponent and never came near the
/// modulus. A 256-bit key under e = 3 and 1024 bits always is. Needs no key.
///
/// # Errors
/// As [`Refused`] says; an exponent of 0 is a [`Refused::Hex`].
pub fn whole_root(ciphertext: &str, exponent: u32) -> Result<Option<String>, Refused> {
    let c = number("ciphertext", ciphertext)?;
    if exponent == 0 {
        return Err(Refused::Hex { what: "exponent" });
    }
    let root = c.nth_root(exponent);
    Ok((root.pow(exponent) == c).then(|| text(&root)))
}

fn number(what: &'static str, hex: &str) -> Result<BigUint, Refused> {
    if hex.len() > 2 * LONGEST {
        return Err(Refused::Long { what });
    }
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    digits.filter(|d| !d.is_empty()).and_then(|d| BigUint::from_radix_be(&d, 16)).ok_or(Refused::Hex { what })
}

fn odd(what: &'static str, hex: &str) -> Result<BigUint, Refused> {
    let n = number(what, hex)?;
    if n.bit(0) && n.bits() > 1 { Ok(n) } else { Err(Refused::Modulus { what }) }
}

/// As the vendor writes a number: upper case, an even count of digits, no zeros up to the size of the modulus.
fn text(n: &BigUint) -> String {
    let bytes = n.to_bytes_be();
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A String takes everything.
        let _ = write!(out, "{byte:02X}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_rsa_is_refused() {
        assert_eq!(power("12G4", "3", "23"), Err(Refused::Hex { what: "message" }));
        assert_eq!(power("+1", "3", "23"), Err(Refused::Hex { what: "message" }));
        assert_eq!(power("", "3", "23"), Err(Refused::Hex { what: "message" }));
        for modulus in ["0", "1", "22"] {
            assert_eq!(power("2", "3", modulus), Err(Refused::Modulus { what: "modulus" }));
        }
        let long = "1".repeat(2 * LONGEST + 1);
        assert_eq!(power(&long, "3", "23"), Err(Refused::Long { what: "message" }));
        assert_eq!(power_of_bytes(&[1; LONGEST + 1], "3", "23"), Err(Refused::Long { what: "message" }));
        assert_eq!(whole_root("8", 0), Err(Refused::Hex { what: "exponent" }));
    }

    #[test]
    fn a_power_that_was_reduced_has_no_whole_root() {
        // 0x1B is 3^3; 0x1C is no cube.
        assert_eq!(whole_root("1b", 3).unwrap().as_deref(), Some("03"));
        assert_eq!(whole_root("1c", 3), Ok(None));
    }
}
