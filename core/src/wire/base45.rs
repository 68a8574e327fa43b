//! Base45 (RFC 9285): bytes as the characters that a QR code packs best (its alphanumeric mode), three for every two bytes.

use crate::error::SealError;
use crate::wire::cbor::Malformed;

const ALPHABET: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

/// Characters for `n` bytes.
pub const fn encoded_len(n: usize) -> usize {
    n / 2 * 3 + n % 2 * 2
}

/// Writes the characters of `bytes`, and returns how many.
///
/// # Errors
/// When `out` is too small.
pub fn emit(bytes: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
    let len = encoded_len(bytes.len());
    let mut room = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?.iter_mut();
    for pair in bytes.chunks(2) {
        let mut value = pair.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
        for character in room.by_ref().take(pair.len() + 1) {
            *character = ALPHABET.get(value % 45).copied().unwrap_or_default();
            value /= 45;
        }
    }
    Ok(len)
}

/// Reads characters into `out`, and returns how many bytes they are.
///
/// # Errors
/// When a character is none of the 45, a group is none that [`emit`] writes, or `out` is too small.
pub fn parse(text: &[u8], out: &mut [u8]) -> Result<usize, Malformed> {
    const NONE: Malformed = Malformed::new("not base45");
    let mut len = 0;
    for group in text.chunks(3) {
        let mut value = 0;
        for character in group.iter().rev() {
            let digit = ALPHABET.iter().position(|a| a == character).ok_or(NONE)?;
            value = value * 45 + digit;
        }
        let size = group.len() - 1;
        if size == 0 || value >> (8 * size) != 0 {
            return Err(NONE);
        }
        let bytes = value.to_be_bytes();
        let bytes = bytes.get(bytes.len() - size..).ok_or(NONE)?;
        out.get_mut(len..len + size).ok_or(Malformed::new("base45 of too many bytes"))?.copy_from_slice(bytes);
        len += size;
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9285_hold() {
        for (bytes, text) in [(&b"AB"[..], "BB8"), (b"Hello!!", "%69 VD92EX0"), (b"base-45", "UJCLQE7W581"), (b"", "")]
        {
            let mut out = [0; 32];
            let len = emit(bytes, &mut out).unwrap();
            assert_eq!(&out[..len], text.as_bytes());
            let len = parse(text.as_bytes(), &mut out).unwrap();
            assert_eq!(&out[..len], bytes);
        }
        assert_eq!(parse(b"QED8WEX0", &mut [0; 8]), Ok(5), "ietf!");
    }

    #[test]
    fn what_is_no_base45_is_refused() {
        for text in ["A", "BB8A", "GGW", "::", "bb8", "BB_", "BB8\n"] {
            assert!(parse(text.as_bytes(), &mut [0; 8]).is_err(), "{text}");
        }
        assert!(parse(b"FGW", &mut [0; 1]).is_err());
        assert!(emit(&[1, 2], &mut [0; 2]).is_err());
    }
}
