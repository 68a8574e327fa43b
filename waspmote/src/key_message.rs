//! Key messages on classic radios: KR1 and KR2 cut into frames of type 6A, and put together again.
//!
//! ```text
//! 3C 3D 3E | 6A | N | serial(8) | id(1) | index(1) | count(1) | bytes of the message
//! ```
//!
//! Up and down alike: serial is the node's, id is the sender's and differs from that of its last message. What is carried is
//! opaque here (docs/protocol.md 12 has the layout): the parts are as little secret and as little proven as the radio,
//! the message proves itself when it is whole. How long parts are waited for, and from how many nodes, is the caller's to
//! say; a message is never longer than [`LONGEST`].

use crate::Serial;
use alloc::vec::Vec;
use core::fmt;

/// Type byte of a part.
pub const TYPE: u8 = 0x6A;
/// Bytes before the message's.
pub const HEADER: usize = 16;
/// Most parts of a message.
pub const MOST_PARTS: usize = 16;
/// Longest message in bytes: a signed KR1 of 3072 bits has 792.
pub const LONGEST: usize = 1024;
/// Longest frame of a part in bytes: the buffer of a node.
pub const LONGEST_FRAME: usize = 255;

/// Why bytes are no part, or do not belong to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The place for it is too small.
    Buffer {
        /// Bytes that are needed.
        wanted: usize,
    },
    /// Another part with this index came before.
    Conflict {
        /// The index.
        index: u8,
    },
    /// N says another length.
    Length {
        /// Bytes after N.
        found: usize,
        /// N.
        said: u8,
    },
    /// The message, or the frame, is longer than it may be.
    Long {
        /// Bytes.
        found: usize,
    },
    /// An index that is not below the count, or a count of none or more than [`MOST_PARTS`].
    Place {
        /// The index.
        index: u8,
        /// The count.
        count: u8,
    },
    /// Too short for a part: one with no byte of the message is none.
    Short {
        /// Bytes.
        found: usize,
    },
    /// It does not start with `<=>`.
    Start,
    /// Another type of frame.
    Type(u8),
}

impl Refused {
    /// One word that stays the same from release to release.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Buffer { .. } => "buffer",
            Self::Conflict { .. } => "conflict",
            Self::Length { .. } => "length",
            Self::Long { .. } => "long",
            Self::Place { .. } => "place",
            Self::Short { .. } => "short",
            Self::Start => "start",
            Self::Type(_) => "type",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffer { wanted } => write!(f, "{wanted} bytes are needed for it"),
            Self::Conflict { index } => write!(f, "another part {index} came before it"),
            Self::Length { found, said } => write!(f, "it says that {said} bytes follow, and {found} do"),
            Self::Long { found } => write!(f, "{found} bytes are more than a key message may have"),
            Self::Place { index, count } => write!(f, "there is no part {index} of {count}"),
            Self::Short { found } => write!(f, "{found} bytes are no part of a key message"),
            Self::Start => f.write_str("it does not start with <=>"),
            Self::Type(kind) => write!(f, "frames of type {kind:02x} are no parts of key messages"),
        }
    }
}

impl core::error::Error for Refused {}

/// A part: its shape was looked at, nothing is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'b> {
    /// Whose key it is about.
    pub serial: [u8; 8],
    /// Of which message of the sender.
    pub id: u8,
    /// Which part, from 0.
    pub index: u8,
    /// How many there are.
    pub count: u8,
    /// Its bytes of the message.
    pub bytes: &'b [u8],
}

impl<'b> Part<'b> {
    /// Looks at a whole frame.
    ///
    /// # Errors
    /// [`Refused::Short`], [`Refused::Long`], [`Refused::Start`], [`Refused::Type`], [`Refused::Length`],
    /// [`Refused::Place`].
    pub fn parse(frame: &'b [u8]) -> Result<Self, Refused> {
        let found = frame.len();
        let (header, bytes) = frame.split_first_chunk::<HEADER>().ok_or(Refused::Short { found })?;
        let &[d1, d2, d3, kind, said, s1, s2, s3, s4, s5, s6, s7, s8, id, index, count] = header;
        if [d1, d2, d3] != START {
            return Err(Refused::Start);
        }
        if kind != TYPE {
            return Err(Refused::Type(kind));
        }
        if found > LONGEST_FRAME {
            return Err(Refused::Long { found });
        }
        if usize::from(said) != found - 5 {
            return Err(Refused::Length { found: found - 5, said });
        }
        if bytes.is_empty() {
            return Err(Refused::Short { found });
        }
        if index >= count || usize::from(count) > MOST_PARTS {
            return Err(Refused::Place { index, count });
        }
        Ok(Self { serial: [s1, s2, s3, s4, s5, s6, s7, s8], id, index, count, bytes })
    }

    /// The serial as other frames have it.
    pub const fn serial(&self) -> Serial {
        Serial::V15(self.serial)
    }

    /// Writes the frame to the front of `out`, and returns how many bytes it took.
    ///
    /// # Errors
    /// [`Refused::Long`], [`Refused::Buffer`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Refused> {
        let wanted = HEADER + self.bytes.len();
        let n =
            u8::try_from(wanted - 5).ok().filter(|_| wanted <= LONGEST_FRAME).ok_or(Refused::Long { found: wanted })?;
        let [s1, s2, s3, s4, s5, s6, s7, s8] = self.serial;
        let [d1, d2, d3] = START;
        let header = [d1, d2, d3, TYPE, n, s1, s2, s3, s4, s5, s6, s7, s8, self.id, self.index, self.count];
        let slots = out.get_mut(..wanted).ok_or(Refused::Buffer { wanted })?;
        slots.iter_mut().zip(header.iter().chain(self.bytes)).for_each(|(slot, byte)| *slot = *byte);
        Ok(wanted)
    }
}

/// A message in parts, each for a frame of at most `room` bytes. What a radio carries is in W10: 100 bytes and fewer.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'b> {
    serial: [u8; 8],
    id: u8,
    message: &'b [u8],
    each: usize,
    count: u8,
}

impl<'b> Cut<'b> {
    /// Cuts a message.
    ///
    /// # Errors
    /// [`Refused::Short`] for no message; [`Refused::Long`] for one above [`LONGEST`], or one that takes more than
    /// [`MOST_PARTS`] frames of that size.
    pub fn new(serial: [u8; 8], id: u8, message: &'b [u8], room: usize) -> Result<Self, Refused> {
        let found = message.len();
        let long = Refused::Long { found };
        let each = room.min(LONGEST_FRAME).saturating_sub(HEADER);
        if found == 0 {
            return Err(Refused::Short { found });
        }
        if found > LONGEST || each == 0 {
            return Err(long);
        }
        let count = found.div_ceil(each);
        let count = u8::try_from(count).ok().filter(|_| count <= MOST_PARTS).ok_or(long)?;
        Ok(Self { serial, id, message, each, count })
    }

    /// How many parts there are.
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// A part, or `None` after the last.
    pub fn part(&self, index: u8) -> Option<Part<'b>> {
        let bytes = self.message.chunks(self.each).nth(usize::from(index))?;
        Some(Part { serial: self.serial, id: self.id, index, count: self.count, bytes })
    }
}

/// Parts of one node's message, until all are there. Holds at most [`MOST_PARTS`] frames.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    id: u8,
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    /// With no part.
    pub const fn new() -> Self {
        Self { id: 0, parts: Vec::new() }
    }

    /// Takes a part of that node. Out comes the message when it was the last missing; then nothing is kept. A part with
    /// another id or count begins anew: a node that sends again has given up the message before.
    ///
    /// # Errors
    /// [`Refused::Conflict`], and the part that came first stays; [`Refused::Place`]; [`Refused::Long`] for a message above
    /// [`LONGEST`], which is then forgotten.
    pub fn take(&mut self, part: &Part<'_>) -> Result<Option<Vec<u8>>, Refused> {
        let Part { id, index, count, bytes, .. } = *part;
        let place = Refused::Place { index, count };
        if index >= count || usize::from(count) > MOST_PARTS {
            return Err(place);
        }
        if self.id != id || self.parts.len() != usize::from(count) {
            self.id = id;
            self.parts = Vec::new();
            self.parts.resize(usize::from(count), None);
        }
        let slot = self.parts.get_mut(usize::from(index)).ok_or(place)?;
        match slot {
            Some(before) if before != bytes => return Err(Refused::Conflict { index }),
            Some(_) => return Ok(None),
            None => *slot = Some(bytes.to_vec()),
        }
        let found = self.parts.iter().flatten().map(Vec::len).sum();
        if found > LONGEST {
            *self = Self::new();
            return Err(Refused::Long { found });
        }
        if self.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let message = core::mem::take(&mut self.parts).into_iter().flatten().flatten().collect();
        Ok(Some(message))
    }

    /// Whether no part is there.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Which parts are missing; none while no part is there.
    pub fn missing(&self) -> impl Iterator<Item = u8> + '_ {
        (0..).zip(&self.parts).filter(|(_, part)| part.is_none()).map(|(index, _)| index)
    }
}

const START: [u8; 3] = *b"<=>";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const SERIAL: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 0x23];

    fn frames(id: u8, message: &[u8], room: usize) -> Vec<Vec<u8>> {
        let cut = Cut::new(SERIAL, id, message, room).unwrap();
        let frame = |index| {
            let mut out = [0; LONGEST_FRAME];
            let len = cut.part(index).unwrap().emit(&mut out).unwrap();
            assert!(len <= room);
            out[..len].to_vec()
        };
        assert!(cut.part(cut.count()).is_none());
        (0..cut.count()).map(frame).collect()
    }

    #[test]
    fn a_message_comes_together_in_any_order_and_only_once() {
        let message: Vec<u8> = (0..=255).chain(0..56).collect();
        let mut frames = frames(7, &message, 100);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 100, 76]);
        frames.reverse();
        let mut assembly = Assembly::new();
        assert!(assembly.is_empty() && assembly.missing().next().is_none());
        for frame in &frames[..3] {
            let part = Part::parse(frame).unwrap();
            assert_eq!(part.serial(), Serial::V15(SERIAL));
            assert_eq!(assembly.take(&part), Ok(None));
            assert_eq!(assembly.take(&part), Ok(None), "a repeat changes nothing");
        }
        assert_eq!(assembly.missing().collect::<Vec<_>>(), [0]);
        assert_eq!(assembly.take(&Part::parse(&frames[3]).unwrap()), Ok(Some(message)));
        assert!(assembly.is_empty());
    }

    #[test]
    fn another_message_begins_anew_and_a_forged_part_does_not_replace_the_first() {
        let (old, new) = (frames(1, &[1; 200], 100), frames(2, &[2; 200], 100));
        let mut assembly = Assembly::new();
        let mut take = |frame: &[u8]| assembly.take(&Part::parse(frame).unwrap());
        assert_eq!(take(&old[0]), Ok(None));
        assert_eq!(take(&new[0]), Ok(None));
        let mut forged = new[0].clone();
        forged[50] ^= 1;
        assert_eq!(take(&forged), Err(Refused::Conflict { index: 0 }));
        assert_eq!(take(&new[1]), Ok(None));
        assert_eq!(take(&new[2]), Ok(Some(vec![2; 200])));
    }

    #[test]
    fn what_is_no_part_is_refused_with_its_reason() {
        let good = frames(7, &[9; 60], 100).remove(0);
        for cut in 0..good.len() {
            let expected = if cut < HEADER {
                Refused::Short { found: cut }
            } else {
                Refused::Length { found: cut - 5, said: good[4] }
            };
            assert_eq!(Part::parse(&good[..cut]), Err(expected));
        }
        let with = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            Part::parse(&frame).map(|_| ())
        };
        assert_eq!(with(0, 0), Err(Refused::Start));
        assert_eq!(with(3, 0x68), Err(Refused::Type(0x68)));
        assert_eq!(with(14, 1), Err(Refused::Place { index: 1, count: 1 }));
        assert_eq!(with(15, 0), Err(Refused::Place { index: 0, count: 0 }));
        assert_eq!(with(15, 17), Err(Refused::Place { index: 0, count: 17 }));
        assert_eq!(Part::parse(b"<=>\x6A\x0B12345678\x01\x00\x01"), Err(Refused::Short { found: 16 }));
        let mut long = good.clone();
        long.resize(256, 0);
        assert_eq!(Part::parse(&long), Err(Refused::Long { found: 256 }));
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let refused = |len, room| Cut::new(SERIAL, 1, &[0; 2000][..len], room).map(|_| ()).unwrap_err();
        assert_eq!(refused(0, 100), Refused::Short { found: 0 });
        assert_eq!(refused(LONGEST + 1, 255), Refused::Long { found: LONGEST + 1 });
        assert_eq!(refused(312, 16), Refused::Long { found: 312 });
        // 16 parts of 19 bytes are 304.
        assert_eq!(refused(312, 35), Refused::Long { found: 312 });
        assert_eq!(Cut::new(SERIAL, 1, &[0; 304], 35).unwrap().count(), 16);
        let part = Part { serial: SERIAL, id: 1, index: 0, count: 1, bytes: &[0; 240] };
        assert_eq!(part.emit(&mut [0; 300]), Err(Refused::Long { found: 256 }));
        let part = Part { bytes: &[0; 9], ..part };
        assert_eq!(part.emit(&mut [0; 24]), Err(Refused::Buffer { wanted: 25 }));
    }

    #[test]
    fn parts_that_sum_up_to_too_much_are_forgotten() {
        let mut assembly = Assembly::new();
        let bytes = [0; 239];
        for index in 0..4 {
            let part = Part { serial: SERIAL, id: 1, index, count: 16, bytes: &bytes };
            assert_eq!(assembly.take(&part), Ok(None));
        }
        let part = Part { serial: SERIAL, id: 1, index: 4, count: 16, bytes: &bytes };
        assert_eq!(assembly.take(&part), Err(Refused::Long { found: 1195 }));
        assert!(assembly.is_empty());
        let part = Part { index: 3, count: 3, ..part };
        assert_eq!(assembly.take(&part), Err(Refused::Place { index: 3, count: 3 }));
    }

    proptest! {
        #[test]
        fn what_is_cut_comes_together(message in proptest::collection::vec(any::<u8>(), 1..LONGEST), room in 90_usize..255) {
            let mut assembly = Assembly::new();
            let whole: Vec<_> = frames(3, &message, room).iter().filter_map(|f| assembly.take(&Part::parse(f).unwrap()).unwrap()).collect();
            prop_assert_eq!(whole, [message]);
        }
    }
}
