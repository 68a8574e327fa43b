//! What both sides of an RSA key message compute without RSA: M, what is signed, the HMAC of nodes that cannot sign, and T
//! (docs/protocol.md 12). Layouts are in [`wire::key_message`](crate::wire::key_message); RSA is whose library it is.

use core::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

use crate::error::{Code, Rejected};
use crate::suite::{HASH, hkdf, hmac_sha256, sha256};
use crate::wire::key_message::{CONFIRMATION, Confirmation, HEADER, Header, KR2, KeyLen, Kr1, Kr2, MAC, Status};

/// Bytes of the seed.
pub const SEED: usize = 16;
/// Bytes of the longest M.
pub const M_LONGEST: usize = SEED + 32;

/// The seed and the new key: M = seed(16) ‖ newkey(keylen). Wiped when dropped, and prints as `FreshKey(..)`.
pub struct FreshKey {
    m: [u8; M_LONGEST],
    len: KeyLen,
}

impl FreshKey {
    /// From randomness. The caller wipes its own copy, if one is left.
    ///
    /// `None` when the key has not 16, 24 or 32 bytes.
    pub fn new(seed: &[u8; SEED], key: &[u8]) -> Option<Self> {
        let len = KeyLen::of(key.len())?;
        let mut m = [0; M_LONGEST];
        m.iter_mut().zip(seed.iter().chain(key)).for_each(|(slot, byte)| *slot = *byte);
        Some(Self { m, len })
    }

    /// From a decrypted M.
    ///
    /// # Errors
    /// `E5-08` when it has another length than the header announced.
    pub fn from_plaintext(m: &[u8], announced: KeyLen) -> Result<Self, Rejected> {
        const OTHER: Rejected = Rejected::new(Code::KeyMessageRefused, "M has another length than keylen says");
        let (seed, key) = m.split_first_chunk().ok_or(OTHER)?;
        Self::new(seed, key).filter(|fresh| fresh.len == announced).ok_or(OTHER)
    }

    /// Length of the new key.
    pub const fn key_len(&self) -> KeyLen {
        self.len
    }

    /// M: 32, 40 or 48 bytes. Whoever holds it has the key.
    pub fn danger_plaintext(&self) -> &[u8] {
        self.m.get(..SEED + self.len.bytes()).unwrap_or_default()
    }

    /// The new key: 16, 24 or 32 bytes, for those who must store it wrapped or use it.
    pub fn danger_key(&self) -> &[u8] {
        self.danger_plaintext().get(SEED..).unwrap_or_default()
    }

    /// T of the answer with that hdr2 to the message with that hash.
    fn confirmation(&self, header: &[u8; HEADER], message: &MessageHash) -> Confirmation {
        let seed = self.m.get(..SEED).unwrap_or_default();
        let mut confirming: [u8; 32] = hkdf(seed, self.danger_key(), &[b"E5R2"]);
        let tag = hmac_sha256(&confirming, &[header, &message.0]);
        confirming.zeroize();
        let mut first = [0; CONFIRMATION];
        first.iter_mut().zip(tag).for_each(|(f, t)| *f = t);
        Confirmation(first)
    }

    /// The server's answer: it decrypted, and the key is pending.
    pub fn accept(&self, header: &Header, message: &MessageHash) -> Kr2 {
        let mut kr2 = Kr2::answer_to(header, Status::Accepted, Confirmation([0; CONFIRMATION]));
        kr2.confirmation = self.confirmation(&kr2.header_bytes(), message);
        kr2
    }
}

impl Drop for FreshKey {
    fn drop(&mut self) {
        self.m.zeroize();
    }
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshKey(..)")
    }
}

/// SHA-256 of a whole KR1: tells a repeat from another message of the same epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHash(pub [u8; HASH]);

impl MessageHash {
    /// Of a message that was taken apart: of its bytes as they came, since what parses is emitted as it was.
    pub fn of(kr1: &Kr1<'_>) -> Self {
        Self(sha256(&[&kr1.header.to_bytes(), kr1.ciphertext, kr1.proof]))
    }
}

/// What RSASSA-PSS signs, in parts: "E5R1-sig" ‖ hdr ‖ C.
pub const fn to_be_signed<'b>(header: &'b [u8; HEADER], ciphertext: &'b [u8]) -> [&'b [u8]; 3] {
    [b"E5R1-sig", header, ciphertext]
}

/// The HMAC does not belong to the message under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacRefused;

/// The secret of a node that cannot sign, shared with its server at enrolment. Wiped when dropped, and prints nothing.
pub struct EnrolmentKey([u8; 32]);

impl EnrolmentKey {
    /// 32 random bytes. The caller wipes its own copy, if one is left.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// S of `kr1_auth = mac`: HMAC-SHA-256("E5R1-mac" ‖ hdr ‖ C).
    pub fn mac(&self, header: &[u8; HEADER], ciphertext: &[u8]) -> [u8; MAC] {
        hmac_sha256(&self.0, &[b"E5R1-mac", header, ciphertext])
    }

    /// Checks S, in constant time.
    ///
    /// # Errors
    /// When it is another one.
    pub fn check(&self, header: &[u8; HEADER], ciphertext: &[u8], mac: &[u8]) -> Result<(), MacRefused> {
        if self.mac(header, ciphertext).ct_eq(mac).into() { Ok(()) } else { Err(MacRefused) }
    }
}

impl Drop for EnrolmentKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for EnrolmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentKey(..)")
    }
}

/// A device that waits for KR2.
///
/// KR1 and M are durable before KR1 is sent the first time, and until KR2 verifies the device sends those same bytes
/// again: the server refuses another message of the same epoch, and every message that skips one.
pub struct Offer {
    expected: [u8; KR2],
    fresh: FreshKey,
}

impl Offer {
    /// Of the message that was sent, or is to be sent again after a reboot, with what its C carries.
    pub fn new(kr1: &Kr1<'_>, fresh: FreshKey) -> Self {
        Self { expected: fresh.accept(&kr1.header, &MessageHash::of(kr1)).to_bytes(), fresh }
    }

    /// Takes the server's answer; the key is then in use.
    ///
    /// # Errors
    /// The offer as it was, to wait on: anybody can send bytes that are no KR2.
    pub fn answer(self, kr2: &[u8]) -> Result<FreshKey, (Self, Rejected)> {
        if let Err(reason) = Kr2::parse(kr2) {
            return Err((self, reason));
        }
        if self.expected.ct_eq(kr2).into() {
            Ok(self.fresh)
        } else {
            Err((self, Rejected::new(Code::KeyMessageRefused, "KR2 is not the answer to this message")))
        }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer(..)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::id::{Serial, ServerKid};
    use crate::wire::key_message::{Auth, KeyEpoch, KeyLevel, RsaSize};

    const HDR: Header = Header {
        size: RsaSize::Rsa2048,
        auth: Auth::Mac,
        serial: Serial([1, 2, 3, 4, 5, 6, 7, 8]),
        level: KeyLevel::E2,
        keylen: KeyLen::B24,
        epoch: KeyEpoch(5),
        server: ServerKid([9; 4]),
    };

    fn fresh() -> FreshKey {
        FreshKey::new(&[3; 16], &[4; 24]).unwrap()
    }

    #[test]
    fn m_is_the_seed_and_then_the_key_of_the_announced_length() {
        assert_eq!(fresh().danger_plaintext(), [&[3; 16][..], &[4; 24]].concat());
        assert_eq!(fresh().danger_key(), [4; 24]);
        for len in [0, 15, 17, 23, 33] {
            assert!(FreshKey::new(&[3; 16], &[4; 33][..len]).is_none());
        }
        for (bytes, announced, good) in [(40, KeyLen::B24, true), (32, KeyLen::B24, false), (40, KeyLen::B32, false)] {
            assert_eq!(FreshKey::from_plaintext(&[7; 64][..bytes], announced).is_ok(), good);
        }
        for bytes in (0..64).filter(|b| ![32, 40, 48].contains(b)) {
            assert!(KeyLen::ALL.into_iter().all(|len| FreshKey::from_plaintext(&[7; 64][..bytes], len).is_err()));
        }
        assert_eq!(std::format!("{:?}", fresh()), "FreshKey(..)");
    }

    #[test]
    fn an_offer_takes_its_own_answer_and_stays_for_every_other_one() {
        let kr1 = Kr1 { header: HDR, ciphertext: &[0xCC; 256], proof: &[0x55; 32] };
        let mut offer = Offer::new(&kr1, fresh());
        let answer = fresh().accept(&HDR, &MessageHash::of(&kr1)).to_bytes();
        for bit in 0..KR2 * 8 {
            let mut other = answer;
            other[bit / 8] ^= 1 << (bit % 8);
            offer = offer.answer(&other).unwrap_err().0;
        }
        for cut in 0..KR2 {
            offer = offer.answer(&answer[..cut]).unwrap_err().0;
        }
        let foreign = Kr1 { proof: &[0x56; 32], ..kr1 };
        offer = offer.answer(&fresh().accept(&HDR, &MessageHash::of(&foreign)).to_bytes()).unwrap_err().0;
        assert_eq!(offer.answer(&answer).unwrap().danger_key(), [4; 24]);
    }

    #[test]
    fn a_mac_holds_for_its_key_header_and_ciphertext_alone() {
        let key = EnrolmentKey::new([7; 32]);
        let (header, other) = (HDR.to_bytes(), Header { epoch: KeyEpoch(6), ..HDR }.to_bytes());
        let mac = key.mac(&header, &[1, 2, 3]);
        assert_eq!(key.check(&header, &[1, 2, 3], &mac), Ok(()));
        assert_eq!(key.check(&other, &[1, 2, 3], &mac), Err(MacRefused));
        assert_eq!(key.check(&header, &[1, 2, 4], &mac), Err(MacRefused));
        assert_eq!(key.check(&header, &[1, 2, 3], &mac[..31]), Err(MacRefused));
        assert_eq!(EnrolmentKey::new([8; 32]).check(&header, &[1, 2, 3], &mac), Err(MacRefused));
        assert_eq!(std::format!("{key:?}"), "EnrolmentKey(..)");
    }
}
