//! Keys of encrypted frames, as Meshlium stores and nodes use them (W7).

use alloc::boxed::Box;
use core::fmt;

use aes::cipher::{Block, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use aes::{Aes128, Aes192, Aes256};
use zeroize::Zeroizing;

/// Size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyBits {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    Aes256,
}

impl KeyBits {
    /// Of a number of bits.
    pub const fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            128 => Some(Self::Aes128),
            192 => Some(Self::Aes192),
            256 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// 128, 192 or 256.
    pub const fn bits(self) -> u16 {
        match self {
            Self::Aes128 => 128,
            Self::Aes192 => 192,
            Self::Aes256 => 256,
        }
    }

    /// Bytes of the key.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// Why a text or some bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefused {
    /// Longer than the size: the node ignores such a text without a word and uses the all-zero key.
    Long {
        /// Bytes of the text.
        length: usize,
        /// Bytes of the size.
        most: usize,
    },
    /// A text holds a 0x00, where the node's C string ends.
    Zero,
    /// Bytes that are no 16, 24 or 32.
    Length {
        /// Bytes there are.
        length: usize,
    },
}

impl KeyRefused {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Long { .. } => "key-too-long",
            Self::Zero => "key-with-zero",
            Self::Length { .. } => "key-length",
        }
    }
}

impl fmt::Display for KeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long { length, most } => write!(
                f,
                "the key text has {length} bytes and the key {most}: a node ignores such a text and uses the all-zero key"
            ),
            Self::Zero => f.write_str("the key text holds a zero byte, where a node would stop reading it"),
            Self::Length { length } => write!(f, "{length} bytes are no AES key: it has 16, 24 or 32"),
        }
    }
}

impl core::error::Error for KeyRefused {}

/// What makes a key easy to guess; the worst is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weak {
    /// All zero: what a node uses that was given too long a text.
    Zero,
    /// One of the texts that are tried first, or a repeated or counted character.
    Dictionary,
    /// A text shorter than the key: the rest is zeros.
    Short,
    /// Nothing but printable characters: 6.6 bits of each 8 at most, and often words.
    Printable,
}

impl Weak {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Dictionary => "dictionary",
            Self::Short => "short",
            Self::Printable => "printable",
        }
    }
}

impl fmt::Display for Weak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "the key is all zeros: nodes use it when their key text is too long",
            Self::Dictionary => "the key is one of those that are tried first",
            Self::Short => "the key text is shorter than the key: the rest is zeros",
            Self::Printable => "the key is printable text",
        })
    }
}

enum Cipher {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

/// An AES key of the classic scheme, wiped when it is dropped.
pub struct ClassicKey {
    cipher: Box<Cipher>,
    weakness: Option<Weak>,
}

impl ClassicKey {
    /// As Meshlium and the nodes take a text: filled with zeros up to the size.
    ///
    /// # Errors
    /// A text that the node would not use as it stands.
    pub fn from_text(text: &[u8], bits: KeyBits) -> Result<Self, KeyRefused> {
        if text.len() > bits.bytes() {
            return Err(KeyRefused::Long { length: text.len(), most: bits.bytes() });
        }
        if text.contains(&0) {
            return Err(KeyRefused::Zero);
        }
        let mut key = Zeroizing::new([0; 32]);
        for (to, from) in key.iter_mut().zip(text) {
            *to = *from;
        }
        Self::from_bytes(key.get(..bits.bytes()).unwrap_or_default())
    }

    /// The key itself: 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// Another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyRefused> {
        let length = KeyRefused::Length { length: bytes.len() };
        let cipher = match bytes.len() {
            16 => Aes128::new_from_slice(bytes).map(Cipher::Aes128),
            24 => Aes192::new_from_slice(bytes).map(Cipher::Aes192),
            _ => Aes256::new_from_slice(bytes).map(Cipher::Aes256),
        };
        Ok(Self { cipher: Box::new(cipher.map_err(|_| length)?), weakness: weakness(bytes) })
    }

    /// Size of the key.
    pub const fn bits(&self) -> KeyBits {
        match *self.cipher {
            Cipher::Aes128(_) => KeyBits::Aes128,
            Cipher::Aes192(_) => KeyBits::Aes192,
            Cipher::Aes256(_) => KeyBits::Aes256,
        }
    }

    /// What makes it easy to guess, if anything does. Even without it, ECB hides little.
    pub const fn weakness(&self) -> Option<Weak> {
        self.weakness
    }

    /// Decrypts whole blocks in place, each by itself; a last part of a block stays as it is.
    pub(crate) fn decrypt(&self, bytes: &mut [u8]) {
        match &*self.cipher {
            Cipher::Aes128(cipher) => cipher.decrypt_blocks(Block::<Aes128>::slice_as_chunks_mut(bytes).0),
            Cipher::Aes192(cipher) => cipher.decrypt_blocks(Block::<Aes192>::slice_as_chunks_mut(bytes).0),
            Cipher::Aes256(cipher) => cipher.decrypt_blocks(Block::<Aes256>::slice_as_chunks_mut(bytes).0),
        }
    }

    /// Encrypts whole blocks in place, each by itself; a last part of a block stays as it is.
    pub(crate) fn encrypt(&self, bytes: &mut [u8]) {
        match &*self.cipher {
            Cipher::Aes128(cipher) => cipher.encrypt_blocks(Block::<Aes128>::slice_as_chunks_mut(bytes).0),
            Cipher::Aes192(cipher) => cipher.encrypt_blocks(Block::<Aes192>::slice_as_chunks_mut(bytes).0),
            Cipher::Aes256(cipher) => cipher.encrypt_blocks(Block::<Aes256>::slice_as_chunks_mut(bytes).0),
        }
    }
}

impl fmt::Debug for ClassicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClassicKey({} bits)", self.bits().bits())
    }
}

/// Texts that somebody who guesses tries first. In lower case; digits at the end do not count.
const WORDS: [&str; 18] = [
    "admin",
    "changeme",
    "default",
    "gateway",
    "key",
    "libelium",
    "libeliumlibelium",
    "meshlium",
    "node",
    "password",
    "plugandsense",
    "qwerty",
    "secret",
    "sensor",
    "smartcity",
    "test",
    "waspmote",
    "waspmotekey",
];

fn weakness(key: &[u8]) -> Option<Weak> {
    let end = key.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = key.get(..end).unwrap_or_default();
    let printable = text.iter().all(|&byte| (b' '..=b'~').contains(&byte));
    let letters = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    let word = text.get(..letters).unwrap_or_default();
    let steady = |step: u8| text.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step));
    let counted = || {
        text.iter().all(u8::is_ascii_digit)
            && text
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a.wrapping_sub(b'0').wrapping_add(1) % 10 == b.wrapping_sub(b'0')))
    };
    if text.is_empty() {
        Some(Weak::Zero)
    } else if WORDS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
        || steady(0)
        || steady(1)
        || counted()
    {
        Some(Weak::Dictionary)
    } else if printable && text.len() < key.len() {
        Some(Weak::Short)
    } else if printable {
        Some(Weak::Printable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_about_a_key_is_named() {
        let named = |text: &[u8]| ClassicKey::from_text(text, KeyBits::Aes128).unwrap().weakness();
        assert_eq!(named(b""), Some(Weak::Zero));
        assert_eq!(named(b"libelium"), Some(Weak::Dictionary));
        assert_eq!(named(b"Password1234"), Some(Weak::Dictionary));
        assert_eq!(named(b"1234567890123456"), Some(Weak::Dictionary));
        assert_eq!(named(b"aaaaaaaaaaaaaaaa"), Some(Weak::Dictionary));
        assert_eq!(named(b"Fb9iZ1AeU9"), Some(Weak::Short));
        assert_eq!(named(b"Fb9iZ1AeU9Yu9vTf"), Some(Weak::Printable));
        assert_eq!(ClassicKey::from_bytes(&[7; 15]).unwrap_err(), KeyRefused::Length { length: 15 });
        let random = *b"\x23\x58\x2d\x8a\xa5\xe3\x9a\x9f\xf3\x65\x95\x46\x62\xd0\x83\xff";
        assert_eq!(ClassicKey::from_bytes(&random).unwrap().weakness(), None);
    }

    #[test]
    fn a_text_that_the_node_would_ignore_is_refused() {
        let long = ClassicKey::from_text(b"Od2ayZnAVbrzWZHU1", KeyBits::Aes128).unwrap_err();
        assert_eq!(long, KeyRefused::Long { length: 17, most: 16 });
        assert_eq!(ClassicKey::from_text(b"a\0b", KeyBits::Aes256).unwrap_err(), KeyRefused::Zero);
    }
}
