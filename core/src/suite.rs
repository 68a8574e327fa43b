//! The only place that names an algorithm: AES-CCM (RFC 3610, IEEE 802.15.4 CCM*), SHA-256, HMAC and HKDF (RFC 5869), and
//! P-256 behind the trait in [`agreement`].
//!
//! Everything else says [`Alg`], [`AeadSchedule`], [`LinkSchedule`], [`sha256`], [`hkdf_expand`], [`agreement::Agree`].

pub mod agreement;
#[cfg(feature = "p256")]
pub mod p256;

use core::fmt;

use aes::{Aes128Enc, Aes256Enc};
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U4, U8, U13};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// Bytes of an OSCORE tag (AES-CCM-16-64).
pub const TAG: usize = 8;
/// Bytes of a nonce: AES-CCM-16-64 and CCM* alike.
pub const NONCE: usize = 13;
/// The longest AEAD key, in bytes.
pub const LONGEST_KEY: usize = 32;
/// Bytes of a [`sha256`] hash.
pub const HASH: usize = 32;

/// AEAD algorithm of an OSCORE context, by its COSE number (RFC 9053 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alg {
    /// COSE 10: 128-bit key, 64-bit tag, 13-byte nonce.
    AesCcm16_64_128,
    /// COSE 11: 256-bit key, 64-bit tag, 13-byte nonce. The default.
    AesCcm16_64_256,
}

impl Alg {
    /// The COSE algorithm number, 10 or 11.
    pub const fn cose(self) -> u8 {
        match self {
            Self::AesCcm16_64_128 => 10,
            Self::AesCcm16_64_256 => 11,
        }
    }

    /// The algorithm of a COSE number, if it is one of ours.
    pub const fn from_cose(number: u8) -> Option<Self> {
        match number {
            10 => Some(Self::AesCcm16_64_128),
            11 => Some(Self::AesCcm16_64_256),
            _ => None,
        }
    }

    /// Bytes of a key: 16 or 32.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCcm16_64_128 => 16,
            Self::AesCcm16_64_256 => 32,
        }
    }
}

/// The tag does not belong to these bytes under this key and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag does not hold")
    }
}

impl core::error::Error for Forged {}

type OscoreCcm<C> = Ccm<C, U8, U13>;

/// An expanded AEAD key of an OSCORE context. Large (hundreds of bytes): make it for a call, or cache a few.
///
/// Nonces are the caller's duty; [`oscore::Context`](crate::oscore::Context) is the one that keeps it.
#[derive(Clone)]
pub struct AeadSchedule {
    cipher: Cipher,
    #[cfg(feature = "witness")]
    key: witness::Key,
}

#[derive(Clone)]
enum Cipher {
    Ccm128(OscoreCcm<Aes128Enc>),
    Ccm256(OscoreCcm<Aes256Enc>),
}

impl AeadSchedule {
    /// Expands a key. Of `key` the first [`Alg::key_len`] bytes count; what is missing reads as zero.
    pub fn new(alg: Alg, key: &[u8]) -> Self {
        let cipher = match alg {
            Alg::AesCcm16_64_128 => {
                let mut bytes = fitted::<16>(key);
                let cipher = Cipher::Ccm128(Ccm::from(Aes128Enc::new((&bytes).into())));
                bytes.zeroize();
                cipher
            }
            Alg::AesCcm16_64_256 => {
                let mut bytes = fitted::<32>(key);
                let cipher = Cipher::Ccm256(Ccm::from(Aes256Enc::new((&bytes).into())));
                bytes.zeroize();
                cipher
            }
        };
        Self {
            cipher,
            #[cfg(feature = "witness")]
            key: witness::Key::of(key, alg.key_len()),
        }
    }

    /// Encrypts `body` in place and returns its tag.
    pub fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], body: &mut [u8]) -> [u8; TAG] {
        #[cfg(feature = "witness")]
        self.key.tell(nonce, body);
        let sealed = match &self.cipher {
            Cipher::Ccm128(c) => c.encrypt_inout_detached(nonce.into(), aad, body.into()),
            Cipher::Ccm256(c) => c.encrypt_inout_detached(nonce.into(), aad, body.into()),
        };
        // Only a body of 64 KiB or more fails, which no message of ours reaches; it then leaves nothing readable.
        sealed.map_or_else(
            |_| {
                body.zeroize();
                [0; TAG]
            },
            Into::into,
        )
    }

    /// Decrypts `body` in place.
    ///
    /// # Errors
    /// [`Forged`] when the tag does not hold; `body` is then all zero.
    pub fn open(&self, nonce: &[u8; NONCE], aad: &[u8], body: &mut [u8], tag: &[u8; TAG]) -> Result<(), Forged> {
        match &self.cipher {
            Cipher::Ccm128(c) => c.decrypt_inout_detached(nonce.into(), aad, body.into(), tag.into()),
            Cipher::Ccm256(c) => c.decrypt_inout_detached(nonce.into(), aad, body.into(), tag.into()),
        }
        .map_err(|_| {
            body.zeroize();
            Forged
        })
    }
}

impl fmt::Debug for AeadSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadSchedule(..)")
    }
}

/// Length of the integrity code of an 802.15.4 frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MicLen {
    /// 4 bytes: level 5, ENC-MIC-32.
    M4,
    /// 8 bytes: level 6, ENC-MIC-64.
    M8,
}

impl MicLen {
    /// Bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::M4 => 4,
            Self::M8 => 8,
        }
    }
}

/// An expanded network key for CCM* (IEEE 802.15.4, AES-128), for either length of integrity code.
#[derive(Clone)]
pub struct LinkSchedule {
    cipher: Aes128Enc,
    #[cfg(feature = "witness")]
    key: witness::Key,
}

impl LinkSchedule {
    /// Expands a network key.
    pub fn new(key: &[u8; 16]) -> Self {
        Self {
            cipher: Aes128Enc::new(key.into()),
            #[cfg(feature = "witness")]
            key: witness::Key::of(key, 16),
        }
    }

    /// Encrypts `body` in place and writes the integrity code to the first bytes of the result; with [`MicLen::M4`] the
    /// last four are zero and not sent.
    pub fn seal(&self, mic: MicLen, nonce: &[u8; NONCE], aad: &[u8], body: &mut [u8]) -> [u8; 8] {
        #[cfg(feature = "witness")]
        self.key.tell(nonce, body);
        let mut out = [0; 8];
        let sealed = match mic {
            MicLen::M4 => Ccm::<&Aes128Enc, U4, U13>::from(&self.cipher)
                .encrypt_inout_detached(nonce.into(), aad, body.into())
                .map(|tag| out.iter_mut().zip(tag).for_each(|(o, t)| *o = t)),
            MicLen::M8 => Ccm::<&Aes128Enc, U8, U13>::from(&self.cipher)
                .encrypt_inout_detached(nonce.into(), aad, body.into())
                .map(|tag| out.iter_mut().zip(tag).for_each(|(o, t)| *o = t)),
        };
        if sealed.is_err() {
            body.zeroize();
        }
        out
    }

    /// Decrypts `body` in place. The length of `mic` decides the level: 4 or 8 bytes.
    ///
    /// # Errors
    /// [`Forged`] when the code does not hold or has another length; `body` is then all zero.
    pub fn open(&self, nonce: &[u8; NONCE], aad: &[u8], body: &mut [u8], mic: &[u8]) -> Result<(), Forged> {
        let opened = if let Ok(mic) = <&[u8; 4]>::try_from(mic) {
            Ccm::<&Aes128Enc, U4, U13>::from(&self.cipher)
                .decrypt_inout_detached(nonce.into(), aad, body.into(), mic.into())
                .is_ok()
        } else if let Ok(mic) = <&[u8; 8]>::try_from(mic) {
            Ccm::<&Aes128Enc, U8, U13>::from(&self.cipher)
                .decrypt_inout_detached(nonce.into(), aad, body.into(), mic.into())
                .is_ok()
        } else {
            false
        };
        if opened {
            Ok(())
        } else {
            body.zeroize();
            Err(Forged)
        }
    }
}

impl fmt::Debug for LinkSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSchedule(..)")
    }
}

/// SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; HASH] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// HMAC-SHA-256 of the parts, one after the other, under a key of any length.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; HASH] {
    // HMAC takes keys of every length; longer ones than a block are hashed first (RFC 2104).
    let mut block = [0; 64];
    if let Some(start) = block.get_mut(..key.len()) {
        start.copy_from_slice(key);
    } else {
        block[..HASH].copy_from_slice(&sha256(&[key]));
    }
    let mut mac = Hmac::<Sha256>::new((&block).into());
    block.zeroize();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HKDF-Extract (RFC 5869 2.2). An empty salt is 32 zero bytes.
pub fn hkdf_extract(salt: &[u8], ikm: &[u8]) -> [u8; HASH] {
    hmac_sha256(salt, &[ikm])
}

/// HKDF-Expand (RFC 5869 2.3) of `info`, given in parts, to `N` bytes.
///
/// More than 8160 bytes do not compile:
/// ```compile_fail
/// let _: [u8; 8161] = fivefold_core::suite::hkdf_expand(&[0; 32], &[b"info"]);
/// ```
/// ```
/// let _: [u8; 8160] = fivefold_core::suite::hkdf_expand(&[0; 32], &[b"info"]);
/// ```
pub fn hkdf_expand<const N: usize>(prk: &[u8; HASH], info: &[&[u8]]) -> [u8; N] {
    const { assert!(N <= HKDF_LONGEST) };
    let mut out = [0; N];
    let fits = hkdf_expand_into(prk, info, &mut out);
    debug_assert!(fits.is_ok());
    out
}

/// The longest output of HKDF-Expand with SHA-256, in bytes.
pub const HKDF_LONGEST: usize = 255 * HASH;

/// More than 8160 bytes were asked of HKDF-Expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputTooLong;

/// HKDF-Expand (RFC 5869 2.3) of `info`, given in parts, over all of `out`.
///
/// # Errors
/// [`OutputTooLong`] for more than [`HKDF_LONGEST`] bytes; `out` is then untouched.
pub fn hkdf_expand_into(prk: &[u8; HASH], info: &[&[u8]], out: &mut [u8]) -> Result<(), OutputTooLong> {
    if out.len() > HKDF_LONGEST {
        return Err(OutputTooLong);
    }
    let keyed = Hmac::<Sha256>::new(&block_of(prk).into());
    let mut block = [0; HASH];
    for (number, chunk) in (1u8..=255).zip(out.chunks_mut(HASH)) {
        let mut mac = keyed.clone();
        if number > 1 {
            mac.update(&block);
        }
        for part in info {
            mac.update(part);
        }
        mac.update(&[number]);
        block = mac.finalize().into_bytes().into();
        chunk.copy_from_slice(block.get(..chunk.len()).unwrap_or_default());
    }
    block.zeroize();
    Ok(())
}

/// HKDF (RFC 5869 2): extract, then expand.
pub fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> [u8; N] {
    let mut prk = hkdf_extract(salt, ikm);
    let out = hkdf_expand(&prk, info);
    prk.zeroize();
    out
}

/// The first 16 bytes of the SHA-256 of an OSCORE ciphertext with its tag: what windows and the ledger remember of a
/// message (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CiphertextHash(pub [u8; 16]);

impl CiphertextHash {
    /// Of a ciphertext with its tag.
    pub fn of(ciphertext: &[u8]) -> Self {
        let hash = sha256(&[ciphertext]);
        let mut first = [0; 16];
        first.iter_mut().zip(hash).for_each(|(f, h)| *f = h);
        Self(first)
    }
}

#[cfg(feature = "witness")]
pub use witness::{Witness, set_seal_witness};

/// Lets a test see every (key, nonce, plaintext) before it is sealed, as fingerprints.
#[cfg(feature = "witness")]
mod witness {
    extern crate std;
    use std::sync::OnceLock;

    use super::{HASH, NONCE, sha256};

    /// What a witness is: it gets SHA-256(key ‖ nonce) and SHA-256(plaintext).
    pub type Witness = fn(&[u8; HASH], &[u8; HASH]);

    static WITNESS: OnceLock<Witness> = OnceLock::new();

    /// Has `tell` called before every seal of this process with SHA-256(key ‖ nonce) and SHA-256(plaintext). The first
    /// call counts, later ones change nothing.
    pub fn set_seal_witness(tell: Witness) {
        let _ = WITNESS.set(tell);
    }

    #[derive(Clone)]
    pub(super) struct Key([u8; 32], usize);

    impl Key {
        pub(super) fn of(key: &[u8], len: usize) -> Self {
            Self(super::fitted(key), len.min(32))
        }

        pub(super) fn tell(&self, nonce: &[u8; NONCE], plaintext: &[u8]) {
            if let Some(tell) = WITNESS.get() {
                let key = self.0.get(..self.1).unwrap_or_default();
                tell(&sha256(&[key, nonce]), &sha256(&[plaintext]));
            }
        }
    }
}

fn fitted<const N: usize>(key: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(key).for_each(|(o, k)| *o = *k);
    out
}

fn block_of(key: &[u8; HASH]) -> [u8; 64] {
    fitted(key)
}
