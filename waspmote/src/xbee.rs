//! The serial API of an XBee module, both ways (W10): frames with or without escaping, no port and no clock.
//!
//! ```text
//! 7E | length(2) | packet | checksum       length counts the packet as it was before escaping,
//!                                          checksum is FF less the low byte of the sum of the packet
//! ```
//!
//! With AP=2 each 7E, 7D, 11 and 13 after the first byte goes as `7D, byte xor 20`, so that a bare 7E is always the start
//! of a frame. [`Decoder`] finds packets in what comes over the line, [`Packet`] reads and writes them. Both directions of
//! the line are there: what a host hears ([`Packet::Receive`], statuses) and what it says ([`Packet::Transmit`], commands).

mod packet;

pub use packet::{Address16, Address64, At, LinkKey, Packet, link_key_commands};

use alloc::vec::Vec;
use core::fmt;
use zeroize::Zeroizing;

/// Longest packet in bytes that is sent or waited for: a module takes at most 255 bytes of payload, and the longest header
/// has 20. Half of the 512 bytes that a node's serial port buffers.
pub const LONGEST: usize = 275;

const DELIMITER: u8 = 0x7E;
const ESCAPE: u8 = 0x7D;
const XON: u8 = 0x11;
const XOFF: u8 = 0x13;
const FLIP: u8 = 0x20;

/// The setting AP of a module. 0, without frames, has no place here: it tells no sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// AP=1: frames as they are.
    Plain,
    /// AP=2: frames with escaped bytes, as Waspmote nodes have it.
    Escaped,
}

/// Why bytes of the line, or a packet, are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The sum over packet and checksum is not FF.
    Checksum {
        /// What would be right.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// A packet, or what a frame announced, longer than [`LONGEST`].
    Long {
        /// Bytes of it.
        length: usize,
    },
    /// The packet is shorter than its type says, or the frame ended before its length.
    Short {
        /// Bytes that are needed at least.
        wanted: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// A packet of a type that this crate does not know.
    Type(u8),
}

impl Refused {
    /// One word that stays the same from release to release: `checksum`, `long`, `short`, `type`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Checksum { .. } => "checksum",
            Self::Long { .. } => "long",
            Self::Short { .. } => "short",
            Self::Type(_) => "type",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { expected, found } => {
                write!(
                    f,
                    "the checksum is {found:02x} and would have to be {expected:02x}: look at cable and baud rate"
                )
            }
            Self::Long { length } => write!(f, "{length} bytes, and an XBee packet has at most {LONGEST}"),
            Self::Short { wanted, found } => write!(f, "it ends after {found} bytes, {wanted} are needed"),
            Self::Type(kind) => write!(f, "packets of type {kind:02x} are not known here"),
        }
    }
}

impl core::error::Error for Refused {}

/// Finds packets in the bytes of a serial line. Holds at most one frame.
pub struct Decoder {
    mode: Mode,
    place: Place,
    /// Wiped, for a host that is the module of another hears a link key.
    packet: Zeroizing<Vec<u8>>,
    escaped: bool,
    noise: u64,
}

/// Where in a frame the next byte stands.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    LengthHigh,
    LengthLow(u8),
    /// Bytes of the packet that are still to come.
    Packet(usize),
    Checksum,
}

impl Decoder {
    /// Waits for the start of a frame.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            place: Place::Outside,
            packet: Zeroizing::new(Vec::with_capacity(LONGEST)),
            escaped: false,
            noise: 0,
        }
    }

    /// Takes the next byte of the line. A packet, or why there is none, comes out with its last byte; the packet stays
    /// readable by [`packet`](Self::packet) until the next call.
    ///
    /// # Errors
    /// In the result: [`Refused::Checksum`]; [`Refused::Long`] as soon as the length was read; [`Refused::Short`] for a
    /// length of 0, and with AP=2 when a frame starts before the last one was whole (the new one is being read).
    pub fn push(&mut self, byte: u8) -> Option<Result<(), Refused>> {
        let byte = match self.mode {
            Mode::Plain => byte,
            Mode::Escaped => match byte {
                DELIMITER => return self.start().map(Err),
                ESCAPE if self.is_inside() && !self.escaped => {
                    self.escaped = true;
                    return None;
                }
                byte if core::mem::take(&mut self.escaped) => byte ^ FLIP,
                byte => byte,
            },
        };
        match self.place {
            Place::Outside if byte == DELIMITER && self.mode == Mode::Plain => return self.start().map(Err),
            Place::Outside => self.noise = self.noise.saturating_add(1),
            Place::LengthHigh => self.place = Place::LengthLow(byte),
            Place::LengthLow(high) => {
                let length = usize::from(u16::from_be_bytes([high, byte]));
                self.place = Place::Packet(length);
                let refused = match length {
                    0 => Refused::Short { wanted: 1, found: 0 },
                    1..=LONGEST => return None,
                    _ => Refused::Long { length },
                };
                self.place = Place::Outside;
                return Some(Err(refused));
            }
            Place::Packet(left) => {
                self.packet.push(byte);
                self.place = if left > 1 { Place::Packet(left - 1) } else { Place::Checksum };
            }
            Place::Checksum => {
                self.place = Place::Outside;
                let expected = checksum(&self.packet);
                return Some(if byte == expected { Ok(()) } else { Err(Refused::Checksum { expected, found: byte }) });
            }
        }
        None
    }

    /// The bytes of the last packet that [`push`](Self::push) announced, for [`Packet::parse`].
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }

    /// The line has been silent for so long that the frame will not go on.
    ///
    /// # Errors
    /// [`Refused::Short`] when there was one: it is forgotten.
    pub fn idle(&mut self) -> Result<(), Refused> {
        let unfinished = self.unfinished();
        self.place = Place::Outside;
        self.escaped = false;
        unfinished.map_or(Ok(()), Err)
    }

    /// Bytes so far that belonged to no frame.
    pub const fn noise(&self) -> u64 {
        self.noise
    }

    const fn is_inside(&self) -> bool {
        !matches!(self.place, Place::Outside)
    }

    fn start(&mut self) -> Option<Refused> {
        let unfinished = self.unfinished();
        self.place = Place::LengthHigh;
        self.escaped = false;
        zeroize::Zeroize::zeroize(&mut *self.packet);
        unfinished
    }

    /// Counts what stands between the delimiter and the checksum, both included.
    fn unfinished(&self) -> Option<Refused> {
        let here = self.packet.len();
        match self.place {
            Place::Outside => None,
            Place::LengthHigh => Some(Refused::Short { wanted: 3, found: 1 }),
            Place::LengthLow(_) => Some(Refused::Short { wanted: 3, found: 2 }),
            Place::Packet(left) => Some(Refused::Short { wanted: 4 + here + left, found: 3 + here }),
            Place::Checksum => Some(Refused::Short { wanted: 4 + here, found: 3 + here }),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({:?}, {} bytes)", self.mode, self.packet.len())
    }
}

/// The frame around a packet, as it goes over the line. Wiped, for it may hold a link key.
///
/// # Errors
/// [`Refused::Long`], [`Refused::Short`] for no bytes at all.
pub fn frame(packet: &[u8], mode: Mode) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let length = packet.len();
    let [high, low] = match u16::try_from(length) {
        Ok(0) => return Err(Refused::Short { wanted: 1, found: 0 }),
        Ok(short) if length <= LONGEST => short.to_be_bytes(),
        _ => return Err(Refused::Long { length }),
    };
    // Room for all of it escaped: a vector that grows leaves what it held behind.
    let mut out = Zeroizing::new(Vec::with_capacity(2 * (length + 4)));
    out.push(DELIMITER);
    for &byte in [high, low].iter().chain(packet).chain(&[checksum(packet)]) {
        match byte {
            DELIMITER | ESCAPE | XON | XOFF if mode == Mode::Escaped => out.extend([ESCAPE, byte ^ FLIP]),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn checksum(packet: &[u8]) -> u8 {
    !packet.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn all(mode: Mode, line: &[u8]) -> Vec<Result<Vec<u8>, Refused>> {
        let mut decoder = Decoder::new(mode);
        let step = |&byte: &u8| decoder.push(byte).map(|said| said.map(|()| decoder.packet().to_vec()));
        line.iter().filter_map(step).collect()
    }

    #[test]
    fn a_frame_is_found_behind_noise_which_is_counted() {
        let mut decoder = Decoder::new(Mode::Escaped);
        let line = [0x00, 0x7D, 0x5E, 0x7E, 0x00, 0x02, 0x8A, 0x06, 0x6F];
        let said: Vec<_> = line.iter().filter_map(|&byte| decoder.push(byte)).collect();
        assert_eq!((said, decoder.packet(), decoder.noise()), (vec![Ok(())], &[0x8A, 0x06][..], 3));
    }

    #[test]
    fn a_bare_delimiter_starts_anew_wherever_it_comes() {
        let whole = [0x7E, 0x00, 0x02, 0x8A, 0x06, 0x6F];
        let good = Ok(vec![0x8A, 0x06]);
        for cut in 1..whole.len() {
            let (wanted, found) = if cut < 3 { (3, cut) } else { (6, cut) };
            let line = [&whole[..cut], &whole].concat();
            assert_eq!(
                all(Mode::Escaped, &line),
                [Err(Refused::Short { wanted, found }), good.clone()],
                "cut at {cut}"
            );
        }
        // Between an escape and what it stands for, too.
        let line = [&[0x7E, 0x00, 0x02, 0x7D][..], &whole].concat();
        assert_eq!(all(Mode::Escaped, &line), [Err(Refused::Short { wanted: 6, found: 3 }), good]);
    }

    #[test]
    fn without_escaping_a_delimiter_inside_is_content() {
        assert_eq!(all(Mode::Plain, &[0x7E, 0x00, 0x02, 0x7E, 0x7D, 0x04]), [Ok(vec![0x7E, 0x7D])]);
    }

    #[test]
    fn a_length_that_no_module_sends_is_refused_before_it_is_waited_for() {
        assert_eq!(all(Mode::Plain, &[0x7E, 0xFF, 0xFF]), [Err(Refused::Long { length: 0xFFFF })]);
        assert_eq!(all(Mode::Escaped, &[0x7E, 0x00, 0x00]), [Err(Refused::Short { wanted: 1, found: 0 })]);
        assert_eq!(frame(&[0; LONGEST + 1], Mode::Plain).unwrap_err(), Refused::Long { length: LONGEST + 1 });
        assert_eq!(frame(&[], Mode::Plain).unwrap_err(), Refused::Short { wanted: 1, found: 0 });
    }

    #[test]
    fn silence_ends_a_frame_and_the_next_is_read() {
        let mut decoder = Decoder::new(Mode::Plain);
        assert_eq!(decoder.idle(), Ok(()));
        for byte in [0x7E, 0x00, 0x05, 0x8A] {
            assert_eq!(decoder.push(byte), None);
        }
        assert_eq!(decoder.idle(), Err(Refused::Short { wanted: 9, found: 4 }));
        assert_eq!(decoder.idle(), Ok(()));
        let said: Vec<_> = [0x7E, 0x00, 0x01, 0x8A, 0x75].iter().filter_map(|&byte| decoder.push(byte)).collect();
        assert_eq!((said, decoder.packet()), (vec![Ok(())], &[0x8A][..]));
    }

    #[test]
    fn every_refusal_has_a_word_and_a_sentence() {
        use alloc::string::ToString;
        let refusals = [
            Refused::Checksum { expected: 1, found: 2 },
            Refused::Long { length: 999 },
            Refused::Short { wanted: 4, found: 3 },
            Refused::Type(0x42),
        ];
        assert_eq!(refusals.map(|r| r.as_str()), ["checksum", "long", "short", "type"]);
        assert!(refusals.iter().all(|r| r.to_string().len() > 20));
    }

    proptest! {
        #[test]
        fn what_is_framed_is_found_again(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..LONGEST), 1..4), escaped in any::<bool>()) {
            let mode = if escaped { Mode::Escaped } else { Mode::Plain };
            let line: Vec<u8> = packets.iter().flat_map(|p| frame(p, mode).unwrap().to_vec()).collect();
            let found: Vec<_> = all(mode, &line).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(found, packets);
        }
    }
}
