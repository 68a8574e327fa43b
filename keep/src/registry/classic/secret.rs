//! Keys of classic devices, as the operator has them in files and the vault keeps them.

use fivefold_waspmote::{ClassicKey, KeyBits, KeyRefused, Weak};
use zeroize::Zeroizing;

use super::ClassicKeyKind;
use crate::share::{field, take_field};

/// A key of a classic device. Wiped when dropped, never printed.
pub struct ClassicSecret {
    bytes: Zeroizing<Vec<u8>>,
    kind: ClassicKeyKind,
}

impl std::fmt::Debug for ClassicSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClassicSecret({} bits)", self.kind.bits.bits())
    }
}

impl ClassicSecret {
    /// Of what stands in a file: the whole key in hex digits, or a text as Meshlium and the nodes take it, filled with zeros.
    /// A line end behind it does not count.
    ///
    /// # Errors
    /// A text that is longer than the key: the node ignores such a one and uses the all-zero key.
    pub fn read(file: &[u8], bits: KeyBits) -> Result<Self, KeyRefused> {
        let text = file.strip_suffix(b"\n").unwrap_or(file);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut bytes = Zeroizing::new(vec![0; bits.bytes()]);
        if hex::decode_to_slice(text, &mut bytes).is_ok() {
            return Self::from_bytes(&bytes);
        }
        ClassicKey::from_text(text, bits)?;
        bytes.fill(0);
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        Self::from_bytes(&bytes)
    }

    /// The key itself: 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// Another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyRefused> {
        let key = ClassicKey::from_bytes(bytes)?;
        let kind = ClassicKeyKind { bits: key.bits(), weakness: key.weakness() };
        Ok(Self { bytes: Zeroizing::new(bytes.to_vec()), kind })
    }

    /// What opens and seals with it.
    ///
    /// # Errors
    /// Never: it was one already.
    pub fn key(&self) -> Result<ClassicKey, KeyRefused> {
        ClassicKey::from_bytes(&self.bytes)
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All about it but the key.
    pub const fn kind(&self) -> ClassicKeyKind {
        self.kind
    }

    /// What makes it easy to guess.
    pub const fn weakness(&self) -> Option<Weak> {
        self.kind.weakness
    }
}

/// The keys of one classic device.
#[derive(Debug, Default)]
pub struct ClassicKeys {
    /// For the gateway (E2 classic).
    pub gateway: Option<ClassicSecret>,
    /// For the cloud (E3 classic).
    pub cloud: Option<ClassicSecret>,
}

impl ClassicKeys {
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(2 * (2 + 32)));
        for key in [&self.gateway, &self.cloud] {
            field(&mut out, key.as_ref().map_or(&[], ClassicSecret::bytes));
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = |bytes: &[u8]| match bytes {
            [] => Some(None),
            key => ClassicSecret::from_bytes(key).ok().map(Some),
        };
        let (gateway, rest) = take_field(bytes)?;
        let (cloud, rest) = take_field(rest)?;
        let keys = Self { gateway: key(gateway)?, cloud: key(cloud)? };
        rest.is_empty().then_some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_holds_hex_or_a_text_and_nothing_longer() {
        let read = |text: &[u8], bits| ClassicSecret::read(text, bits).map(|k| k.bytes().to_vec());
        let hex = b"000102030405060708090a0b0c0d0e0f\n";
        assert_eq!(read(hex, KeyBits::Aes128).unwrap(), (0..16).collect::<Vec<u8>>());
        let text = b"Fb9iZ1AeU9\r\n";
        assert_eq!(read(text, KeyBits::Aes128).unwrap(), b"Fb9iZ1AeU9\0\0\0\0\0\0");
        assert_eq!(read(text, KeyBits::Aes256).unwrap().len(), 32);
        assert_eq!(ClassicSecret::read(text, KeyBits::Aes128).unwrap().weakness(), Some(Weak::Short));
        // 32 hex digits are a text of 32 bytes where the key has so many.
        assert_eq!(read(hex, KeyBits::Aes256).unwrap(), hex[..32]);
        assert_eq!(read(b"Od2ayZnAVbrzWZHU1", KeyBits::Aes128).unwrap_err(), KeyRefused::Long { length: 17, most: 16 });
    }

    #[test]
    fn keys_read_as_they_were_written_and_print_nothing() {
        let key = |n, bits| ClassicSecret::from_bytes(&vec![n; bits]).unwrap();
        for keys in [
            ClassicKeys::default(),
            ClassicKeys { gateway: Some(key(0xAB, 16)), cloud: None },
            ClassicKeys { gateway: Some(key(0xAB, 24)), cloud: Some(key(0xCD, 32)) },
        ] {
            let bytes = keys.to_bytes();
            let read = ClassicKeys::from_bytes(&bytes).unwrap();
            assert_eq!(read.to_bytes(), bytes);
            let printed = format!("{read:?}");
            assert!(!printed.contains("171") && !printed.to_lowercase().contains("ab, "), "{printed}");
            assert!(ClassicKeys::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        }
    }
}
