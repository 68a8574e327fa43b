//! ZEP version 2, type 1: an 802.15.4 frame in a UDP datagram (docs/protocol.md 4.1).
//!
//! Channel, device id, link quality, time and sequence are the sender's word: nothing is decided by them.

use super::ieee802154::MAX_FRAME;
use crate::error::{Code, Rejected, SealError};

/// Default UDP port.
pub const PORT: u16 = 17754;
/// Size of the header in bytes.
pub const HEADER: usize = 32;
/// Largest datagram in bytes.
pub const MAX_DATAGRAM: usize = HEADER + MAX_FRAME;

const PREAMBLE: [u8; 2] = *b"EX";
const VERSION: u8 = 2;
const TYPE_DATA: u8 = 1;
const MODE_CRC: u8 = 1;

/// A ZEP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zep<'b> {
    /// Radio channel, 11..=26 at 2.4 GHz. Untrusted.
    pub channel: u8,
    /// Device id of the sender's choice. Untrusted.
    pub device: u16,
    /// Link quality, 0..=255. Untrusted.
    pub lqi: u8,
    /// NTP time. Untrusted.
    pub time: [u8; 8],
    /// Sequence number of the encapsulation. Untrusted.
    pub sequence: u32,
    /// The frame, with its check sequence.
    pub frame: &'b [u8],
}

impl<'b> Zep<'b> {
    /// Looks at a datagram.
    ///
    /// # Errors
    /// `E1-11` for another preamble, version, type or mode, bytes that must be 0 and are not, or a length that differs
    /// from the rest.
    pub fn parse(datagram: &'b [u8]) -> Result<Self, Rejected> {
        const fn bad(reason: &'static str) -> Rejected {
            Rejected::new(Code::LinkMalformed, reason)
        }
        let (header, frame) = datagram.split_first_chunk::<HEADER>().ok_or(bad("too short for a ZEP header"))?;
        let &[p1, p2, version, kind, channel, d1, d2, mode, lqi, ref tail @ ..] = header;
        let &[t1, t2, t3, t4, t5, t6, t7, t8, s1, s2, s3, s4, ref zeros @ .., len] = tail;
        if [p1, p2] != PREAMBLE || version != VERSION || kind != TYPE_DATA || mode != MODE_CRC {
            return Err(bad("not ZEP version 2, type 1, CRC mode"));
        }
        if zeros.iter().any(|&b| b != 0) {
            return Err(bad("reserved bytes of the ZEP header are not 0"));
        }
        if usize::from(len) != frame.len() {
            return Err(bad("the ZEP length differs from the rest"));
        }
        Ok(Self {
            channel,
            device: u16::from_be_bytes([d1, d2]),
            lqi,
            time: [t1, t2, t3, t4, t5, t6, t7, t8],
            sequence: u32::from_be_bytes([s1, s2, s3, s4]),
            frame,
        })
    }

    /// The 32 bytes that stand before the frame.
    ///
    /// # Errors
    /// [`SealError::TooLong`] for a frame of more than 127 bytes.
    pub fn header(&self) -> Result<[u8; HEADER], SealError> {
        let len =
            u8::try_from(self.frame.len()).ok().filter(|&n| usize::from(n) <= MAX_FRAME).ok_or(SealError::TooLong)?;
        let [d1, d2] = self.device.to_be_bytes();
        let [t1, t2, t3, t4, t5, t6, t7, t8] = self.time;
        let [s1, s2, s3, s4] = self.sequence.to_be_bytes();
        let [p1, p2] = PREAMBLE;
        Ok([
            p1,
            p2,
            VERSION,
            TYPE_DATA,
            self.channel,
            d1,
            d2,
            MODE_CRC,
            self.lqi,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
            t8,
            s1,
            s2,
            s3,
            s4,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            len,
        ])
    }

    /// Writes the datagram and returns its size.
    ///
    /// # Errors
    /// [`SealError::TooLong`], [`SealError::BufferTooSmall`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = HEADER + self.frame.len();
        let out = out.get_mut(..len).ok_or(SealError::BufferTooSmall)?;
        let (head, body) = out.split_first_chunk_mut::<HEADER>().ok_or(SealError::BufferTooSmall)?;
        *head = self.header()?;
        body.copy_from_slice(self.frame);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    const FRAME: [u8; 5] = [1, 2, 3, 4, 5];

    fn datagram() -> [u8; 37] {
        let zep = Zep { channel: 26, device: 1, lqi: 255, time: [7; 8], sequence: 9, frame: &FRAME };
        let mut out = [0; 37];
        assert_eq!(zep.emit(&mut out), Ok(37));
        assert_eq!(Zep::parse(&out), Ok(zep));
        out
    }

    #[test]
    fn a_wrong_byte_in_a_fixed_place_is_refused() {
        let good = datagram();
        for at in [0, 1, 2, 3, 7, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31] {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Zep::parse(&bad).unwrap_err().code, Code::LinkMalformed, "byte {at}");
        }
    }

    #[test]
    fn a_shorter_or_longer_datagram_is_refused() {
        let good = datagram();
        for n in 0..good.len() {
            assert!(Zep::parse(&good[..n]).is_err());
        }
        assert!(Zep::parse(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_frame_that_no_radio_could_carry_is_not_wrapped() {
        let zep = Zep { channel: 26, device: 1, lqi: 0, time: [0; 8], sequence: 0, frame: &[0; 128] };
        assert_eq!(zep.emit(&mut [0; 200]), Err(SealError::TooLong));
    }

    proptest! {
        #[test]
        fn a_datagram_emits_what_was_parsed(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            shape in any::<bool>(),
        ) {
            if shape && bytes.len() >= HEADER {
                let n = bytes.len() - HEADER;
                bytes[..4].copy_from_slice(b"EX\x02\x01");
                bytes[7] = 1;
                bytes[21..31].fill(0);
                bytes[31] = n as u8;
            }
            if let Ok(zep) = Zep::parse(&bytes) {
                if zep.frame.len() <= MAX_FRAME {
                    let mut out = std::vec![0; bytes.len()];
                    prop_assert_eq!(zep.emit(&mut out), Ok(bytes.len()));
                    prop_assert_eq!(out, bytes);
                } else {
                    prop_assert_eq!(zep.header(), Err(SealError::TooLong));
                }
            }
        }
    }
}
