//! The AES of a node as its library has it (W8): ECB and CBC with two paddings that do not always come back.
//!
//! For reading what exists. ECB shows equal blocks, nothing here is authenticated, and both paddings lose what they are
//! given when it looks like padding: [`crate::hardened`] is what to use.
//!
//! | Padding | adds | takes away |
//! |---|---|---|
//! | PKCS5 | as PKCS #7 does, but nothing to whole blocks | every last byte that equals the last one, whatever it is |
//! | ZEROS | zeros up to the next block, nothing to whole blocks | every last zero |

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a block.
pub const BLOCK: usize = 16;

/// How blocks hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chaining<'b> {
    /// Mode 2 of the vendor: each block is mixed with the one before it, the first with this.
    Cbc(&'b [u8; BLOCK]),
    /// Mode 1 of the vendor, and the only one that frames use: not at all.
    Ecb,
}

/// How the last block is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Padding 3 of the vendor.
    Pkcs5,
    /// Padding 4 of the vendor, and the only one that frames use.
    Zeros,
}

impl Padding {
    /// Fills the last block.
    pub fn pad(self, text: &mut Vec<u8>) {
        let missing = text.len().next_multiple_of(BLOCK) - text.len();
        let with = match self {
            // Less than a block, so it is its own byte.
            Self::Pkcs5 => missing as u8,
            Self::Zeros => 0,
        };
        text.resize(text.len() + missing, with);
    }

    /// Takes away what the vendor's code takes for padding.
    pub fn unpad(self, text: &mut Vec<u8>) {
        let padding = match self {
            Self::Pkcs5 => text.last().copied(),
            Self::Zeros => Some(0),
        };
        let kept = text.iter().rposition(|&byte| Some(byte) != padding).map_or(0, |last| last + 1);
        text.truncate(kept);
    }
}

/// Why nothing was encrypted or decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// Ciphertext that is not whole blocks, or none.
    Blocks {
        /// Its bytes.
        bytes: usize,
    },
    /// A key of another size than 16, 24 or 32 bytes.
    Key {
        /// Its bytes.
        bytes: usize,
    },
}

impl Refused {
    /// One word that stays the same from release to release: `blocks`, `key`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Blocks { .. } => "blocks",
            Self::Key { .. } => "key",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks { bytes } => write!(f, "{bytes} bytes are no whole blocks of {BLOCK}"),
            Self::Key { bytes } => write!(f, "a key has 16, 24 or 32 bytes, not {bytes}"),
        }
    }
}

impl core::error::Error for Refused {}

/// Pads and encrypts as a node does. No bytes give no bytes, which nothing decrypts.
///
/// # Errors
/// [`Refused::Key`].
pub fn encrypt(key: &[u8], chaining: Chaining<'_>, padding: Padding, plaintext: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut text = plaintext.to_vec();
    padding.pad(&mut text);
    match key.len() {
        16 => forth(&aes::Aes128::new_from_slice(key), chaining, &mut text),
        24 => forth(&aes::Aes192::new_from_slice(key), chaining, &mut text),
        32 => forth(&aes::Aes256::new_from_slice(key), chaining, &mut text),
        _ => None,
    }
    .ok_or(Refused::Key { bytes: key.len() })?;
    Ok(text)
}

/// Decrypts, and leaves the padding where it is: frames say their length inside (W7).
///
/// # Errors
/// [`Refused::Key`], [`Refused::Blocks`].
pub fn decrypt(key: &[u8], chaining: Chaining<'_>, ciphertext: &[u8]) -> Result<Vec<u8>, Refused> {
    let bytes = ciphertext.len();
    if bytes == 0 || !bytes.is_multiple_of(BLOCK) {
        return Err(Refused::Blocks { bytes });
    }
    let mut text = ciphertext.to_vec();
    match key.len() {
        16 => back(&aes::Aes128::new_from_slice(key), chaining, &mut text),
        24 => back(&aes::Aes192::new_from_slice(key), chaining, &mut text),
        32 => back(&aes::Aes256::new_from_slice(key), chaining, &mut text),
        _ => None,
    }
    .ok_or(Refused::Key { bytes: key.len() })?;
    Ok(text)
}

/// Decrypts and unpads as a node does, which is not always what was encrypted.
///
/// # Errors
/// [`Refused::Key`], [`Refused::Blocks`].
pub fn vendor_decrypt(
    key: &[u8],
    chaining: Chaining<'_>,
    padding: Padding,
    ciphertext: &[u8],
) -> Result<Vec<u8>, Refused> {
    let mut text = decrypt(key, chaining, ciphertext)?;
    padding.unpad(&mut text);
    Ok(text)
}

fn forth<C: BlockCipherEncrypt, E>(cipher: &Result<C, E>, chaining: Chaining<'_>, text: &mut [u8]) -> Option<()> {
    let cipher = cipher.as_ref().ok()?;
    let mut before = match chaining {
        Chaining::Cbc(iv) => *iv,
        Chaining::Ecb => [0; BLOCK],
    };
    let (blocks, _) = text.as_chunks_mut::<BLOCK>();
    for slot in blocks {
        if matches!(chaining, Chaining::Cbc(_)) {
            mix(slot, &before);
        }
        let mut block = Block::<C>::try_from(&slot[..]).ok()?;
        cipher.encrypt_block(&mut block);
        slot.iter_mut().zip(&block).for_each(|(slot, byte)| *slot = *byte);
        before = *slot;
    }
    Some(())
}

fn back<C: BlockCipherDecrypt, E>(cipher: &Result<C, E>, chaining: Chaining<'_>, text: &mut [u8]) -> Option<()> {
    let cipher = cipher.as_ref().ok()?;
    let mut before = match chaining {
        Chaining::Cbc(iv) => *iv,
        Chaining::Ecb => [0; BLOCK],
    };
    let (blocks, _) = text.as_chunks_mut::<BLOCK>();
    for slot in blocks {
        let came = *slot;
        let mut block = Block::<C>::try_from(&slot[..]).ok()?;
        cipher.decrypt_block(&mut block);
        slot.iter_mut().zip(&block).for_each(|(slot, byte)| *slot = *byte);
        if matches!(chaining, Chaining::Cbc(_)) {
            mix(slot, &before);
        }
        before = came;
    }
    Some(())
}

fn mix(block: &mut [u8; BLOCK], with: &[u8; BLOCK]) {
    block.iter_mut().zip(with).for_each(|(byte, other)| *byte ^= other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_size_or_a_broken_block_is_refused() {
        for bytes in [0, 15, 17, 31, 33] {
            let key = [1; 33];
            assert_eq!(encrypt(&key[..bytes], Chaining::Ecb, Padding::Zeros, b"x"), Err(Refused::Key { bytes }));
            assert_eq!(decrypt(&key[..bytes], Chaining::Ecb, &[0; 16]), Err(Refused::Key { bytes }));
        }
        for bytes in [0, 1, 15, 17, 31] {
            assert_eq!(decrypt(&[1; 16], Chaining::Ecb, &[0; 31][..bytes]), Err(Refused::Blocks { bytes }));
        }
    }

    #[test]
    fn whole_blocks_get_no_padding_and_lose_what_looks_like_it() {
        let key = [7; 32];
        let lost = |padding, text: &[u8]| {
            let sealed = encrypt(&key, Chaining::Ecb, padding, text).unwrap();
            assert_eq!(sealed.len(), text.len().next_multiple_of(BLOCK));
            text.len() - vendor_decrypt(&key, Chaining::Ecb, padding, &sealed).unwrap().len()
        };
        assert_eq!(lost(Padding::Pkcs5, &[9; 16]), 16);
        assert_eq!(lost(Padding::Pkcs5, b"fifteen letters"), 0);
        assert_eq!(lost(Padding::Zeros, &[1, 2, 3, 0, 0]), 2);
    }
}
