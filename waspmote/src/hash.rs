//! The hashes that a node can compute (W8): MD5, SHA-1 and SHA-2, for reading and checking what exists.
//!
//! MD5 and SHA-1 are broken: nothing of ours rests on them. The vendor's call counts its message in **bits**, so that a
//! sketch which passes the number of bytes hashes an eighth of it: [`Algorithm::of_bits`] does as that call does.

use alloc::vec::Vec;
use core::fmt;
use sha2::Digest;

/// A hash of `WaspHash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// MD5 (RFC 1321), 16 bytes. Broken.
    Md5,
    /// SHA-1 (FIPS 180-4), 20 bytes. Broken.
    Sha1,
    /// SHA-224 (FIPS 180-4), 28 bytes.
    Sha224,
    /// SHA-256 (FIPS 180-4), 32 bytes.
    Sha256,
    /// SHA-384 (FIPS 180-4), 48 bytes.
    Sha384,
    /// SHA-512 (FIPS 180-4), 64 bytes.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// `md5`, `sha1`, `sha224`, `sha256`, `sha384`, `sha512`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The hash of a whole message.
    pub fn of(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => md5::Md5::digest(message).to_vec(),
            Self::Sha1 => sha1::Sha1::digest(message).to_vec(),
            Self::Sha224 => sha2::Sha224::digest(message).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(message).to_vec(),
            Self::Sha384 => sha2::Sha384::digest(message).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(message).to_vec(),
        }
    }

    /// What the vendor's call gives for a buffer and a length in bits, as a sketch passes them.
    ///
    /// # Errors
    /// [`Refused::Beyond`] when the buffer ends before, where a node would read what lies behind it;
    /// [`Refused::PartOfByte`].
    pub fn of_bits(self, buffer: &[u8], bits: usize) -> Result<Vec<u8>, Refused> {
        if !bits.is_multiple_of(8) {
            return Err(Refused::PartOfByte { bits });
        }
        let message = buffer.get(..bits / 8).ok_or(Refused::Beyond { bits, bytes: buffer.len() })?;
        Ok(self.of(message))
    }
}

/// Why a length in bits is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// More bits than there are.
    Beyond {
        /// The length.
        bits: usize,
        /// Bytes that there are.
        bytes: usize,
    },
    /// Not a whole number of bytes: the node hashes a part of one, this crate does not.
    PartOfByte {
        /// The length.
        bits: usize,
    },
}

impl Refused {
    /// One word that stays the same from release to release: `beyond`, `part-of-byte`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Beyond { .. } => "beyond",
            Self::PartOfByte { .. } => "part-of-byte",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beyond { bits, bytes } => write!(f, "{bits} bits are more than the {bytes} bytes that there are"),
            Self::PartOfByte { bits } => {
                write!(f, "{bits} bits are no whole number of bytes: is it a length in bytes?")
            }
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_in_bytes_hashes_an_eighth_of_the_message() {
        let message = [0x61; 64];
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.of_bits(&message, 64).unwrap(), algorithm.of(&message[..8]));
            assert_eq!(algorithm.of_bits(&message, 512).unwrap(), algorithm.of(&message));
        }
        assert_eq!(Algorithm::Md5.of_bits(&message, 60), Err(Refused::PartOfByte { bits: 60 }));
        assert_eq!(Algorithm::Md5.of_bits(&message, 520), Err(Refused::Beyond { bits: 520, bytes: 64 }));
    }

    #[test]
    fn a_name_finds_its_algorithm_and_nothing_else() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::named(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(Algorithm::named("MD5"), None);
    }
}
