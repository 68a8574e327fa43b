//! The RSA key message of hardened classic devices: KR1 and KR2 (docs/protocol.md 12).
//!
//! ```text
//! KR1  device to server   hdr(24) ‖ C(k) ‖ S        S is k bytes of signature, or 32 of HMAC
//!      RSA bits  k        signed    with a MAC
//!      1024      128      280       184
//!      2048      256      536       312
//!      3072      384      792       440
//! KR2  server to device   hdr2(24) ‖ T(16)          40
//!
//! hdr  magic(4) ver(1) alg(1) serial(8) level(1) keylen(1) epoch(4) srv_kid(4)
//!      hdr: magic "E5R1".  hdr2: magic "E5R2", and a status in the place of keylen; the rest repeats hdr
//! ```
//!
//! No keys here: what parses has the right shape, and is believed in nothing.

use crate::error::{Code, Rejected, SealError};
use crate::id::{Serial, ServerKid};

/// Bytes of hdr and of hdr2.
pub const HEADER: usize = 24;
/// Bytes of an HMAC in the place of a signature.
pub const MAC: usize = 32;
/// Bytes of T.
pub const CONFIRMATION: usize = 16;
/// Bytes of KR2.
pub const KR2: usize = HEADER + CONFIRMATION;
/// Bytes of the longest KR1.
pub const KR1_LONGEST: usize = HEADER + 2 * RsaSize::LONGEST;
/// The only version of the format.
pub const VERSION: u8 = 1;

const MAGIC_1: [u8; 4] = *b"E5R1";
const MAGIC_2: [u8; 4] = *b"E5R2";
/// Set in alg when S is an HMAC.
const MACED: u8 = 0x80;

const fn refused(reason: &'static str) -> Rejected {
    Rejected::new(Code::KeyMessageRefused, reason)
}

/// Size of the RSA keys of a message: the server's, and the device's if it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RsaSize {
    /// alg 01, only for devices that the operator lists until a date (AR-12).
    Rsa1024,
    /// alg 02.
    Rsa2048,
    /// alg 03.
    Rsa3072,
}

impl RsaSize {
    /// All sizes, ascending.
    pub const ALL: [Self; 3] = [Self::Rsa1024, Self::Rsa2048, Self::Rsa3072];
    /// Bytes of the longest modulus.
    pub const LONGEST: usize = 384;

    /// k, the bytes of a modulus: 128, 256 or 384.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Rsa1024 => 128,
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
        }
    }

    /// Bits of a modulus.
    pub const fn bits(self) -> usize {
        self.bytes() * 8
    }

    const fn alg(self) -> u8 {
        match self {
            Self::Rsa1024 => 1,
            Self::Rsa2048 => 2,
            Self::Rsa3072 => 3,
        }
    }

    const fn from_alg(alg: u8) -> Option<Self> {
        match alg {
            1 => Some(Self::Rsa1024),
            2 => Some(Self::Rsa2048),
            3 => Some(Self::Rsa3072),
            _ => None,
        }
    }
}

/// What S is (policy `kr1_auth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Auth {
    /// HMAC-SHA-256 under the node's enrolment key, 32 bytes: the node cannot compute an RSA signature. Proves nothing to
    /// a third party.
    Mac,
    /// RSASSA-PSS with the device's key, k bytes.
    Signature,
}

impl Auth {
    /// Bytes of S.
    pub const fn bytes(self, size: RsaSize) -> usize {
        match self {
            Self::Mac => MAC,
            Self::Signature => size.bytes(),
        }
    }
}

/// What the new key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyLevel {
    /// 02: between device and gateway.
    E2,
    /// 03: between device and cloud.
    E3,
}

impl KeyLevel {
    const fn byte(self) -> u8 {
        match self {
            Self::E2 => 2,
            Self::E3 => 3,
        }
    }
}

/// Bytes of the new key: AES-128, AES-192 or AES-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyLen {
    /// 10 (hex): 16 bytes.
    B16,
    /// 18 (hex): 24 bytes.
    B24,
    /// 20 (hex): 32 bytes.
    B32,
}

impl KeyLen {
    /// All lengths, ascending.
    pub const ALL: [Self; 3] = [Self::B16, Self::B24, Self::B32];

    /// 16, 24 or 32.
    pub const fn bytes(self) -> usize {
        match self {
            Self::B16 => 16,
            Self::B24 => 24,
            Self::B32 => 32,
        }
    }

    /// The length of `bytes` bytes, if a key may have it.
    pub fn of(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|len| len.bytes() == bytes)
    }
}

/// Key generation of a classic device. 0 is none: the first message says 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyEpoch(pub u32);

impl KeyEpoch {
    /// The one after it; `None` after the last.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// hdr, and the label of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// alg: size of the RSA keys.
    pub size: RsaSize,
    /// alg: what S is.
    pub auth: Auth,
    /// Which device.
    pub serial: Serial,
    /// What the key is for.
    pub level: KeyLevel,
    /// Length of the key.
    pub keylen: KeyLen,
    /// Number of the key, at least 1.
    pub epoch: KeyEpoch,
    /// Which key of the server C is for.
    pub server: ServerKid,
}

impl Header {
    /// The 24 bytes of hdr.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        // 16, 24 or 32: it is its own byte.
        self.with(MAGIC_1, self.keylen.bytes() as u8)
    }

    /// Bytes of the whole KR1.
    pub const fn message_len(&self) -> usize {
        HEADER + self.size.bytes() + self.auth.bytes(self.size)
    }

    fn with(&self, magic: [u8; 4], keylen_or_status: u8) -> [u8; HEADER] {
        let alg = self.size.alg()
            | match self.auth {
                Auth::Mac => MACED,
                Auth::Signature => 0,
            };
        let [m1, m2, m3, m4] = magic;
        let [s1, s2, s3, s4, s5, s6, s7, s8] = self.serial.to_bytes();
        let [e1, e2, e3, e4] = self.epoch.0.to_be_bytes();
        let [k1, k2, k3, k4] = self.server.to_bytes();
        #[rustfmt::skip]
        let bytes = [
            m1, m2, m3, m4, VERSION, alg, s1, s2, s3, s4, s5, s6, s7, s8, self.level.byte(), keylen_or_status,
            e1, e2, e3, e4, k1, k2, k3, k4,
        ];
        bytes
    }

    fn parse(bytes: &[u8; HEADER]) -> Result<Self, Rejected> {
        let fields = Fields::parse(bytes, MAGIC_1)?;
        let keylen =
            KeyLen::of(usize::from(fields.keylen_or_status)).ok_or(refused("a key of 16, 24 or 32 bytes (keylen)"))?;
        let Fields { size, auth, serial, level, epoch, server, .. } = fields;
        Ok(Self { size, auth, serial, level, keylen, epoch, server })
    }
}

/// What hdr and hdr2 have in common.
struct Fields {
    size: RsaSize,
    auth: Auth,
    serial: Serial,
    level: KeyLevel,
    keylen_or_status: u8,
    epoch: KeyEpoch,
    server: ServerKid,
}

impl Fields {
    fn parse(bytes: &[u8; HEADER], magic: [u8; 4]) -> Result<Self, Rejected> {
        #[rustfmt::skip]
        let &[
            m1, m2, m3, m4, version, alg, s1, s2, s3, s4, s5, s6, s7, s8, level, keylen_or_status,
            e1, e2, e3, e4, k1, k2, k3, k4,
        ] = bytes;
        if [m1, m2, m3, m4] != magic {
            return Err(refused("another magic"));
        }
        if version != VERSION {
            return Err(refused("another version"));
        }
        let size = RsaSize::from_alg(alg & !MACED).ok_or(refused("an unknown alg"))?;
        let auth = if alg & MACED == 0 { Auth::Signature } else { Auth::Mac };
        let level = match level {
            2 => KeyLevel::E2,
            3 => KeyLevel::E3,
            _ => return Err(refused("a key of level 2 or 3 (level)")),
        };
        let epoch = KeyEpoch(u32::from_be_bytes([e1, e2, e3, e4]));
        if epoch.0 == 0 {
            return Err(refused("epoch 0"));
        }
        Ok(Self {
            size,
            auth,
            serial: Serial([s1, s2, s3, s4, s5, s6, s7, s8]),
            level,
            keylen_or_status,
            epoch,
            server: ServerKid([k1, k2, k3, k4]),
        })
    }
}

/// KR1, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kr1<'b> {
    /// hdr.
    pub header: Header,
    /// C: k bytes.
    pub ciphertext: &'b [u8],
    /// S: k bytes of signature, or 32 of HMAC.
    pub proof: &'b [u8],
}

impl<'b> Kr1<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// `E5-08`: another length than alg says, or a field with a value that section 12 does not have.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Rejected> {
        const LENGTH: Rejected = refused("another length than its alg says");
        let (header, rest) = bytes.split_first_chunk().ok_or(LENGTH)?;
        let header = Header::parse(header)?;
        let (ciphertext, proof) = rest.split_at_checked(header.size.bytes()).ok_or(LENGTH)?;
        if proof.len() != header.auth.bytes(header.size) {
            return Err(LENGTH);
        }
        Ok(Self { header, ciphertext, proof })
    }

    /// Writes it to the front of `out`, and returns how many bytes it took: [`KR1_LONGEST`] at most.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = HEADER + self.ciphertext.len() + self.proof.len();
        let slots = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
        let header = self.header.to_bytes();
        let bytes = header.iter().chain(self.ciphertext).chain(self.proof);
        slots.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        Ok(len)
    }
}

/// What a server says in the place of keylen. There is one word: a refusal is silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// 00: the key is pending, and takes effect with the first frame under it.
    Accepted,
}

/// T: what only who decrypted C can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation(pub [u8; CONFIRMATION]);

/// KR2, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kr2 {
    /// As in KR1.
    pub size: RsaSize,
    /// As in KR1.
    pub auth: Auth,
    /// As in KR1.
    pub serial: Serial,
    /// As in KR1.
    pub level: KeyLevel,
    /// What became of the key.
    pub status: Status,
    /// As in KR1.
    pub epoch: KeyEpoch,
    /// As in KR1.
    pub server: ServerKid,
    /// T.
    pub confirmation: Confirmation,
}

impl Kr2 {
    /// The answer to a message with that header.
    pub const fn answer_to(header: &Header, status: Status, confirmation: Confirmation) -> Self {
        let Header { size, auth, serial, level, epoch, server, .. } = *header;
        Self { size, auth, serial, level, status, epoch, server, confirmation }
    }

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// `E5-08`: another length than 40, or a field with a value that section 12 does not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejected> {
        const LENGTH: Rejected = refused("a KR2 has 40 bytes");
        let (header, rest) = bytes.split_first_chunk().ok_or(LENGTH)?;
        let confirmation = Confirmation(rest.try_into().map_err(|_| LENGTH)?);
        let Fields { size, auth, serial, level, keylen_or_status, epoch, server } = Fields::parse(header, MAGIC_2)?;
        let status = match keylen_or_status {
            0 => Status::Accepted,
            _ => return Err(refused("an unknown status")),
        };
        Ok(Self { size, auth, serial, level, status, epoch, server, confirmation })
    }

    /// The 24 bytes of hdr2.
    pub fn header_bytes(&self) -> [u8; HEADER] {
        let Self { size, auth, serial, level, status: Status::Accepted, epoch, server, .. } = *self;
        Header { size, auth, serial, level, keylen: KeyLen::B16, epoch, server }.with(MAGIC_2, 0)
    }

    /// The 40 bytes.
    pub fn to_bytes(&self) -> [u8; KR2] {
        let mut out = [0; KR2];
        let header = self.header_bytes();
        let bytes = header.iter().chain(&self.confirmation.0);
        out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        out
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn header(size: RsaSize, auth: Auth) -> Header {
        Header {
            size,
            auth,
            serial: Serial([1, 2, 3, 4, 5, 6, 7, 8]),
            level: KeyLevel::E3,
            keylen: KeyLen::B32,
            epoch: KeyEpoch(0x0a0b_0c0d),
            server: ServerKid([0xd1, 0xd2, 0xd3, 0xd4]),
        }
    }

    fn message(header: Header) -> Vec<u8> {
        let (c, s) = ([0xCC; RsaSize::LONGEST], [0x55; RsaSize::LONGEST]);
        let kr1 = Kr1 { header, ciphertext: &c[..header.size.bytes()], proof: &s[..header.auth.bytes(header.size)] };
        let mut out = [0; KR1_LONGEST];
        let len = kr1.emit(&mut out).unwrap();
        assert_eq!(len, header.message_len());
        out[..len].to_vec()
    }

    #[test]
    fn a_message_has_the_size_of_its_alg_and_no_other() {
        let expected = [(280, 184), (536, 312), (792, 440)];
        for (size, (signed, maced)) in RsaSize::ALL.into_iter().zip(expected) {
            for (auth, len) in [(Auth::Signature, signed), (Auth::Mac, maced)] {
                let bytes = message(header(size, auth));
                assert_eq!(bytes.len(), len);
                assert_eq!(Kr1::parse(&bytes).unwrap().header, header(size, auth));
                for cut in 0..len {
                    assert!(Kr1::parse(&bytes[..cut]).is_err(), "{size:?} cut at {cut}");
                }
                assert!(Kr1::parse(&[&bytes[..], &[0]].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_header_stands_as_section_12_draws_it() {
        let bytes = header(RsaSize::Rsa2048, Auth::Signature).to_bytes();
        assert_eq!(bytes[..4], *b"E5R1");
        assert_eq!(bytes[4..], [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0x20, 0x0a, 0x0b, 0x0c, 0x0d, 0xd1, 0xd2, 0xd3, 0xd4]);
        assert_eq!(header(RsaSize::Rsa3072, Auth::Mac).to_bytes()[5], 0x83);
    }

    #[test]
    fn each_value_that_section_12_does_not_have_is_refused() {
        let good = message(header(RsaSize::Rsa2048, Auth::Signature));
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Kr1::parse(&bytes).map(|_| ()).map_err(|r| r.reason)
        };
        assert_eq!(with(0, b'e'), Err("another magic"));
        assert_eq!(with(3, b'2'), Err("another magic"));
        assert_eq!(with(4, 2), Err("another version"));
        for alg in [0, 4, 0x42, 0x80, 0x84] {
            assert_eq!(with(5, alg), Err("an unknown alg"));
        }
        for alg in [1, 3, 0x82] {
            assert_eq!(with(5, alg), Err("another length than its alg says"));
        }
        for level in [0, 1, 4, 0x12] {
            assert_eq!(with(14, level), Err("a key of level 2 or 3 (level)"));
        }
        for keylen in [0, 15, 17, 0x21, 0x40] {
            assert_eq!(with(15, keylen), Err("a key of 16, 24 or 32 bytes (keylen)"));
        }
        let mut zero = good;
        zero[16..20].fill(0);
        assert_eq!(Kr1::parse(&zero).unwrap_err(), refused("epoch 0"));
    }

    #[test]
    fn an_answer_repeats_the_header_with_a_status_for_the_length() {
        let header = header(RsaSize::Rsa3072, Auth::Mac);
        let kr2 = Kr2::answer_to(&header, Status::Accepted, Confirmation([0x77; 16]));
        let bytes = kr2.to_bytes();
        let mut expected = header.to_bytes();
        expected[3] = b'2';
        expected[15] = 0;
        assert_eq!((&bytes[..24], &bytes[24..]), (&expected[..], &[0x77; 16][..]));
        assert_eq!(Kr2::parse(&bytes), Ok(kr2));
        for cut in 0..KR2 {
            assert!(Kr2::parse(&bytes[..cut]).is_err());
        }
        assert!(Kr2::parse(&[&bytes[..], &[0]].concat()).is_err());
        let mut other = bytes;
        other[15] = 1;
        assert_eq!(Kr2::parse(&other), Err(refused("an unknown status")));
    }

    #[test]
    fn no_epoch_comes_after_the_last() {
        assert_eq!(KeyEpoch(0).next(), Some(KeyEpoch(1)));
        assert_eq!(KeyEpoch(u32::MAX).next(), None);
    }

    proptest! {
        #[test]
        fn what_parses_is_emitted_as_it_was(
            alg in any::<u8>(), mut bytes in proptest::collection::vec(any::<u8>(), 0..KR1_LONGEST + 8),
            sized in any::<bool>(), second in any::<bool>(),
        ) {
            let head = if second { *b"E5R2\x01" } else { *b"E5R1\x01" };
            bytes.iter_mut().zip(head).for_each(|(b, h)| *b = h);
            if sized && bytes.len() > 15 {
                bytes[5] = (alg % 4) | (alg & 0x80);
                bytes[14] = 2 | (bytes[14] & 1);
                bytes[15] = [0x10, 0x18, 0x20, 0][usize::from(bytes[15] % 4)];
                bytes.resize([280, 184, 536, 312, 792, 440, KR2][usize::from(alg % 7)], 0x5A);
            }
            if let Ok(kr1) = Kr1::parse(&bytes) {
                let mut out = [0; KR1_LONGEST];
                let len = kr1.emit(&mut out).unwrap();
                prop_assert_eq!(&out[..len], &bytes[..]);
            }
            if let Ok(kr2) = Kr2::parse(&bytes) {
                prop_assert_eq!(&kr2.to_bytes()[..], &bytes[..]);
            }
        }
    }
}
