//! IEEE 802.15.4 data frames in the one form of docs/protocol.md 4.1, and the frame check sequence.
//!
//! A [`Frame`] is a view: its shape is checked, nothing in it is believed. [`Frame::parse`] answers what needs no
//! policy (form, security bit); [`Frame::security`] answers what needs one (levels).

use crate::error::{Code, Rejected, SealError};
use crate::id::{Did, Sid};

/// Largest frame with its frame check sequence (aMaxPhyPacketSize), in bytes.
pub const MAX_FRAME: usize = 127;
/// Size of the frame check sequence in bytes.
pub const FCS: usize = 2;
/// Header through the key index with a short source address, in bytes.
pub const SHORT_HEADER: usize = 15;
/// Header through the key index with a 64-bit source address, in bytes.
pub const EXTENDED_HEADER: usize = 21;

const DATA_SHORT: u16 = 0x9849;
const DATA_EXTENDED: u16 = 0xD849;
const ACK_REQUEST: u16 = 0x0020;
const SECURED: u16 = 0x0008;
const TYPE_MASK: u16 = 0x0007;
const TYPE_DATA: u16 = 0x0001;
const KEY_ID_MODE_1: u8 = 0x08;

const fn malformed(reason: &'static str) -> Rejected {
    Rejected::new(Code::LinkMalformed, reason)
}

/// Network identifier of the MAC: the destination PAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pan(pub u16);

impl Pan {
    /// Every network.
    pub const BROADCAST: Self = Self(0xFFFF);
}

/// Whether the sender asks its neighbour's radio for an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// No acknowledgement: broadcasts, HELLO frames, and "any gateway".
    None,
    /// One acknowledgement, sent by the receiving radio.
    Request,
}

/// Source address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// 64-bit address: HELLO frames only.
    Extended(Did),
    /// Short address.
    Short(Sid),
}

/// Security levels that docs/protocol.md 4.1 knows, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecurityLevel {
    /// Level 5: encrypted, 4-byte MIC.
    EncMic32,
    /// Level 6: encrypted, 8-byte MIC. The default.
    EncMic64,
}

impl SecurityLevel {
    /// The level as the standard numbers it.
    pub const fn number(self) -> u8 {
        match self {
            Self::EncMic32 => 5,
            Self::EncMic64 => 6,
        }
    }

    /// Size of the MIC in bytes.
    pub const fn mic_len(self) -> usize {
        match self {
            Self::EncMic32 => 4,
            Self::EncMic64 => 8,
        }
    }

    /// The whole security control byte: key identifier mode 1, no reserved bit.
    pub const fn control(self) -> u8 {
        KEY_ID_MODE_1 | self.number()
    }

    /// The level of a security control byte, if a network whose weakest level is `minimum` allows it.
    ///
    /// # Errors
    /// `E1-03` for a level that is not allowed, `E1-11` for any other deviation.
    pub fn parse_control(byte: u8, minimum: Self) -> Result<Self, Rejected> {
        let level = match byte & 0x07 {
            5 => Self::EncMic32,
            6 => Self::EncMic64,
            7 => return Err(Rejected::new(Code::LinkLevelTooLow, "security level 7 is not allowed")),
            _ => {
                return Err(Rejected::new(Code::LinkLevelTooLow, "a security level without encryption or without MIC"));
            }
        };
        if level < minimum {
            return Err(Rejected::new(Code::LinkLevelTooLow, "the network's policy asks for a longer MIC"));
        }
        if byte != level.control() {
            return Err(malformed("security control is not 0d or 0e"));
        }
        Ok(level)
    }
}

/// Auxiliary security header of a frame, or the head of an E1S message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    /// Level, allowed by the policy that was asked.
    pub level: SecurityLevel,
    /// Frame counter of the sender under this key.
    pub frame_counter: u32,
    /// Key index as sent; 0 and 255 occur on the air and name no key.
    pub key_index: u8,
}

impl Security {
    /// Control byte, counter (little-endian) and key index: the six bytes that 4.1 and 4.2 share.
    pub fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d] = self.frame_counter.to_le_bytes();
        [self.level.control(), a, b, c, d, self.key_index]
    }

    /// From the six bytes.
    ///
    /// # Errors
    /// As [`SecurityLevel::parse_control`].
    pub fn parse(bytes: [u8; 6], minimum: SecurityLevel) -> Result<Self, Rejected> {
        let [control, a, b, c, d, key_index] = bytes;
        let level = SecurityLevel::parse_control(control, minimum)?;
        Ok(Self { level, frame_counter: u32::from_le_bytes([a, b, c, d]), key_index })
    }
}

/// A secured data frame of docs/protocol.md 4.1, without its frame check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Whether an acknowledgement is asked for.
    pub ack: Ack,
    /// Sequence number of the MAC; means nothing to us.
    pub sequence: u8,
    /// Destination PAN.
    pub pan: Pan,
    /// Destination short address.
    pub destination: Sid,
    /// Source address.
    pub source: Address,
    /// Security control, counter and key index, not yet judged.
    pub security: [u8; 6],
    /// Ciphertext and MIC.
    pub sealed: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Looks at a frame without its check sequence. The shape is checked up to the key index.
    ///
    /// # Errors
    /// `E1-11` when it is short, no data frame, or not of the form of 4.1; `E1-01` when its security bit is not set.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Rejected> {
        let (fcf, rest) = bytes.split_first_chunk::<2>().ok_or(malformed("too short for a frame control field"))?;
        let fcf = u16::from_le_bytes(*fcf);
        if fcf & TYPE_MASK != TYPE_DATA {
            return Err(malformed("not a data frame"));
        }
        if fcf & SECURED == 0 {
            return Err(Rejected::new(Code::LinkUnsecured, "the security bit is not set"));
        }
        let (ack, extended) = match fcf {
            DATA_SHORT => (Ack::None, false),
            DATA_EXTENDED => (Ack::None, true),
            f if f == DATA_SHORT | ACK_REQUEST => (Ack::Request, false),
            _ => return Err(malformed("the frame control field is not of the form of 4.1")),
        };
        const SHORT: Rejected = malformed("too short for the header");
        let (&[sequence, pan_low, pan_high, to_low, to_high], rest) = rest.split_first_chunk::<5>().ok_or(SHORT)?;
        let (source, rest) = if extended {
            let (mut eui64, rest) = rest.split_first_chunk::<8>().map(|(e, r)| (*e, r)).ok_or(SHORT)?;
            eui64.reverse();
            (Address::Extended(Did(eui64)), rest)
        } else {
            let (short, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
            (Address::Short(Sid(u16::from_le_bytes(*short))), rest)
        };
        let (&security, sealed) = rest.split_first_chunk::<6>().ok_or(SHORT)?;
        let pan = Pan(u16::from_le_bytes([pan_low, pan_high]));
        let destination = Sid(u16::from_le_bytes([to_low, to_high]));
        Ok(Self { ack, sequence, pan, destination, source, security, sealed })
    }

    /// Judges the security header, and that there is room for the MIC it announces.
    ///
    /// # Errors
    /// `E1-03` for a level that is not allowed; `E1-11` for another security control or a frame shorter than its MIC.
    pub fn security(&self, minimum: SecurityLevel) -> Result<Security, Rejected> {
        let security = Security::parse(self.security, minimum)?;
        if self.sealed.len() < security.level.mic_len() {
            return Err(malformed("too short for the MIC"));
        }
        Ok(security)
    }

    /// Size of the header, which is the additional authenticated data of CCM*, in bytes.
    pub const fn header_len(&self) -> usize {
        match self.source {
            Address::Extended(_) => EXTENDED_HEADER,
            Address::Short(_) => SHORT_HEADER,
        }
    }

    /// Writes the header, and after it whatever stands in `sealed`. Returns the size; no check sequence is added.
    ///
    /// A 64-bit source has no form with acknowledgement: `ack` is ignored then.
    ///
    /// # Errors
    /// [`SealError::BufferTooSmall`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let fcf = match (self.source, self.ack) {
            (Address::Extended(_), _) => DATA_EXTENDED,
            (Address::Short(_), Ack::None) => DATA_SHORT,
            (Address::Short(_), Ack::Request) => DATA_SHORT | ACK_REQUEST,
        };
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            let slot = out.get_mut(at..at + bytes.len()).ok_or(SealError::BufferTooSmall)?;
            slot.copy_from_slice(bytes);
            at += bytes.len();
            Ok::<(), SealError>(())
        };
        put(&fcf.to_le_bytes())?;
        put(&[self.sequence])?;
        put(&self.pan.0.to_le_bytes())?;
        put(&self.destination.0.to_le_bytes())?;
        match self.source {
            Address::Extended(Did(mut eui64)) => {
                eui64.reverse();
                put(&eui64)?;
            }
            Address::Short(sid) => put(&sid.0.to_le_bytes())?,
        }
        put(&self.security)?;
        put(self.sealed)?;
        Ok(at)
    }
}

/// The frame without its check sequence, if the check sequence is right.
///
/// # Errors
/// `E1-11` when it is wrong, or the frame is shorter than that or longer than 127 bytes.
pub fn check_fcs(frame: &[u8]) -> Result<&[u8], Rejected> {
    let (bytes, sum) = frame.split_last_chunk::<FCS>().ok_or(malformed("too short for a check sequence"))?;
    if frame.len() > MAX_FRAME {
        return Err(malformed("longer than 127 bytes"));
    }
    if u16::from_le_bytes(*sum) != fcs(bytes) {
        return Err(malformed("the frame check sequence does not match"));
    }
    Ok(bytes)
}

/// Writes the check sequence of `out[..len]` behind it and returns the new length.
///
/// # Errors
/// [`SealError::BufferTooSmall`].
pub fn append_fcs(out: &mut [u8], len: usize) -> Result<usize, SealError> {
    let sum = fcs(out.get(..len).ok_or(SealError::BufferTooSmall)?);
    out.get_mut(len..len + FCS).ok_or(SealError::BufferTooSmall)?.copy_from_slice(&sum.to_le_bytes());
    Ok(len + FCS)
}

/// Frame check sequence (CRC-16 ITU-T, x^16 + x^12 + x^5 + 1, least significant bit first, from 0), IEEE 802.15.4-2006
/// 7.2.1.9. It stands low byte first at the end of a frame.
pub fn fcs(bytes: &[u8]) -> u16 {
    if cfg!(target_pointer_width = "64") {
        fcs_by_eight(bytes)
    } else {
        bytes.iter().fold(0, |crc, &b| fcs_step(crc, b))
    }
}

/// One byte, without a table: on a small node flash is dearer than these eight operations.
const fn fcs_step(crc: u16, byte: u8) -> u16 {
    let mut x = (crc as u8) ^ byte;
    x ^= x << 4;
    (crc >> 8) ^ ((x as u16) << 8) ^ ((x as u16) << 3) ^ ((x as u16) >> 4)
}

/// `TABLES[k][b]`: what byte `b` followed by `k` zero bytes leaves.
static TABLES: [[u16; 256]; 8] = tables();

#[expect(clippy::indexing_slicing, reason = "constant indexes, evaluated by the compiler")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut b = 0;
    while b < 256 {
        let mut crc = fcs_step(0, b as u8);
        let mut k = 0;
        while k < 8 {
            tables[k][b] = crc;
            crc = fcs_step(crc, 0);
            k += 1;
        }
        b += 1;
    }
    tables
}

/// Eight bytes at a time: a gateway checks every frame on the air, most of which it drops.
#[expect(clippy::indexing_slicing, reason = "a byte indexes a table of 256")]
fn fcs_by_eight(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let mut crc = 0u16;
    for &[a, b, c, d, e, f, g, h] in chunks {
        let [low, high] = crc.to_le_bytes();
        crc = t7[usize::from(a ^ low)]
            ^ t6[usize::from(b ^ high)]
            ^ t5[usize::from(c)]
            ^ t4[usize::from(d)]
            ^ t3[usize::from(e)]
            ^ t2[usize::from(f)]
            ^ t1[usize::from(g)]
            ^ t0[usize::from(h)];
    }
    rest.iter().fold(crc, |crc, &b| fcs_step(crc, b))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn the_check_sequence_of_the_catalogue_string_is_right() {
        // CRC-16/KERMIT, "123456789"
        assert_eq!(fcs(b"123456789"), 0x2189);
        assert_eq!(fcs(b""), 0);
    }

    #[test]
    fn a_broadcast_of_64_bit_source_never_asks_for_an_acknowledgement() {
        let frame = Frame {
            ack: Ack::Request,
            sequence: 1,
            pan: Pan(7),
            destination: Sid::BROADCAST,
            source: Address::Extended(Did([1; 8])),
            security: [0x0E, 0, 0, 0, 0, 1],
            sealed: &[],
        };
        let mut out = [0; 21];
        assert_eq!(frame.emit(&mut out), Ok(21));
        assert_eq!(out[..2], [0x49, 0xD8]);
        assert_eq!(frame.emit(&mut out[..20]), Err(SealError::BufferTooSmall));
    }

    #[test]
    fn unsecured_data_is_called_so_whatever_its_version() {
        for fcf in [[0x61, 0x88], [0x41, 0x98], [0x01, 0xD8]] {
            assert_eq!(Frame::parse(&fcf).unwrap_err().code, Code::LinkUnsecured);
        }
        assert_eq!(Frame::parse(&[0x6B, 0x98]).unwrap_err().code, Code::LinkMalformed);
        assert_eq!(Frame::parse(&[0x69]).unwrap_err().code, Code::LinkMalformed);
    }

    proptest! {
        #[test]
        fn both_check_sequence_routines_agree(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
            prop_assert_eq!(fcs_by_eight(&bytes), bytes.iter().fold(0, |crc, &b| fcs_step(crc, b)));
        }

        #[test]
        fn a_frame_emits_what_was_parsed(
            fcf in prop_oneof![Just([0x69u8, 0x98]), Just([0x49, 0x98]), Just([0x49, 0xD8]), any::<[u8; 2]>()],
            rest in proptest::collection::vec(any::<u8>(), 0..127),
        ) {
            let bytes = [&fcf[..], &rest].concat();
            if let Ok(frame) = Frame::parse(&bytes) {
                let mut out = vec![0; bytes.len()];
                prop_assert_eq!(frame.emit(&mut out), Ok(bytes.len()));
                prop_assert_eq!(frame.header_len() + frame.sealed.len(), bytes.len());
                prop_assert_eq!(&out, &bytes);
                for minimum in [SecurityLevel::EncMic32, SecurityLevel::EncMic64] {
                    if let Ok(s) = frame.security(minimum) {
                        prop_assert_eq!(s.to_bytes(), frame.security);
                        prop_assert!(s.level >= minimum && frame.sealed.len() >= s.level.mic_len());
                    }
                }
            }
        }

        #[test]
        fn no_flipped_bit_passes_the_check_sequence(bytes in proptest::collection::vec(any::<u8>(), 1..120), bit in 0usize..960) {
            let mut frame = bytes.clone();
            frame.extend(fcs(&bytes).to_le_bytes());
            prop_assert_eq!(check_fcs(&frame), Ok(&bytes[..]));
            let bit = bit % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check_fcs(&frame).is_err());
        }
    }
}
