//! A frame, whatever it is (W2 to W4, W7, W11, W12).

use alloc::vec::Vec;

use crate::encrypted::{Encrypted, EncryptedType};
use crate::field::{Entry, Field, Fields, RefusedField, Rest};
use crate::kind::{Encoding, FrameType};
use crate::refused::Refused;
use crate::sensors::{Sensors, Table};
use crate::serial::{Generation, Serial, SerialOrder, decimal};
use crate::text::Text;
use crate::time::TIME_REQUEST;

/// How every frame starts.
pub(crate) const DELIMITER: [u8; 3] = *b"<=>";
/// Bytes of the largest frame.
pub(crate) const LONGEST: usize = 255;
/// Bytes of the longest node id.
pub(crate) const LONGEST_ID: usize = 16;
/// Id of the sensor that holds a timestamp.
pub(crate) const TST: u8 = 123;

/// What some bytes are.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Readable by anybody, and proven by nobody.
    Clear(Clear<'a>),
    /// AES in ECB.
    Encrypted(Encrypted<'a>),
    /// The hardened profile: the whole frame, of type 0x68 or 0x69, whose N is right.
    Hardened(&'a [u8]),
    /// Part of a key message: the whole frame, of type 0x6A, whose N is right.
    KeyMessage(&'a [u8]),
    /// A node asks for the time.
    TimeRequest,
    /// A command of over-the-air programming: no data, and never to be obeyed.
    OverTheAir(OverTheAir),
}

/// What a reader knows beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Hardware of the sender. Without it, binary frames of types 1 to 5 are read as whatever fits better.
    pub generation: Option<Generation>,
    /// Order of the serial's bytes in binary frames of v12.
    pub order: SerialOrder,
    /// How old the sender's software is.
    pub software: Software,
}

/// How old the software of a node is, as far as its binary frames show it (W4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Software {
    /// Before API v012 (2014): byte 4 of a binary frame is its number of fields, and nothing says how long it is. Such
    /// software ran on v12 alone, and its serial is little-endian. Frames in clear alone are read: what encrypted ones of that
    /// time looked like is not known.
    BeforeV012,
    /// API v012 and later.
    #[default]
    V012,
}

/// What follows the end of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    Nothing,
    /// Zeros that fill a block.
    Padding,
}

/// A command of over-the-air programming (W12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OverTheAir {
    /// The type byte: 0x78 to 0x7F.
    pub command: u8,
}

impl OverTheAir {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self.command {
            0x78 => "delete-program",
            0x79 => "check-new-program",
            0x7a => "new-firmware-start",
            0x7b => "new-firmware-block",
            0x7c => "new-firmware-end",
            0x7d => "run-program",
            0x7e => "id-request",
            _ => "boot-list",
        }
    }
}

impl<'a> Frame<'a> {
    /// What the bytes are, read without knowing who sent them.
    ///
    /// # Errors
    /// Why they are no frame.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        Self::parse_as(bytes, Reading::default())
    }

    /// What the bytes are, for a reader who knows the sender.
    ///
    /// # Errors
    /// Why they are no frame.
    pub fn parse_as(bytes: &'a [u8], reading: Reading) -> Result<Self, Refused> {
        let type_byte = type_byte(bytes)?;
        if bytes == TIME_REQUEST {
            return Ok(Self::TimeRequest);
        }
        match type_byte {
            command @ 0x78..=0x7f => Ok(Self::OverTheAir(OverTheAir { command })),
            0x68 | 0x69 => Ok(Self::Hardened(exactly(bytes)?)),
            0x6a => Ok(Self::KeyMessage(exactly(bytes)?)),
            byte => match EncryptedType::from_number(byte) {
                Some(kind) => Encrypted::parse(kind, exactly(bytes)?, reading).map(Self::Encrypted),
                None => Clear::parse(bytes, reading, Tail::Nothing).map(Self::Clear),
            },
        }
    }
}

/// The type byte of what starts as a frame does.
fn type_byte(bytes: &[u8]) -> Result<u8, Refused> {
    if bytes.len() > LONGEST {
        return Err(Refused::Long { length: bytes.len() });
    }
    match bytes.split_first_chunk() {
        Some((&DELIMITER, [type_byte, _n, ..])) => Ok(*type_byte),
        Some((&DELIMITER, _)) | None => Err(Refused::Short { length: bytes.len() }),
        Some(_) => Err(Refused::Delimiter),
    }
}

/// The bytes, if N says that they are as many.
fn exactly(bytes: &[u8]) -> Result<&[u8], Refused> {
    let (frame, rest) = measured(bytes)?;
    if rest.is_empty() { Ok(frame) } else { Err(Refused::Trailing { bytes: rest.len() }) }
}

/// The bytes of a frame that has N, and what follows it.
fn measured(bytes: &[u8]) -> Result<(&[u8], &[u8]), Refused> {
    let n = bytes.get(4).copied().ok_or(Refused::Short { length: bytes.len() })?;
    let promised = usize::from(n) + 5;
    bytes.split_at_checked(promised).ok_or(Refused::Truncated { promised, present: bytes.len() })
}

/// A frame in clear: who sent it, and fields that a [`Sensors`] table reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear<'a> {
    /// The type.
    pub kind: FrameType,
    /// How the fields are written.
    pub encoding: Encoding,
    /// Who says that it sent the frame.
    pub serial: Serial,
    /// Name that the operator gave the node: up to 16 bytes of anything but `#`.
    pub node_id: Text<'a>,
    /// Counter of the node, 255 is followed by 0; every boot starts it again at 0 (W5).
    pub sequence: u8,
    /// The fields, as they came.
    pub payload: &'a [u8],
    /// Fields that the header promises: of ASCII frames, and of binary ones from before API v012.
    pub count: Option<u8>,
    /// The whole frame.
    pub bytes: &'a [u8],
}

impl<'a> Clear<'a> {
    /// Which hardware sent it.
    pub const fn generation(&self) -> Generation {
        self.serial.generation()
    }

    /// The table that the sender's own software uses for such a frame.
    pub const fn table(&self) -> Table {
        Table::of(self.kind, self.generation())
    }

    /// The fields in the order on the wire, one by one, without taking memory.
    pub fn fields(&self, sensors: &'a Sensors) -> Fields<'a> {
        Fields::new(self, sensors)
    }

    /// All fields at once.
    ///
    /// # Errors
    /// A binary field that ends behind the frame: nothing of such a frame is to be believed.
    pub fn decode(&self, sensors: &'a Sensors) -> Result<Decoded<'a>, Refused> {
        Decoded::of(self.fields(sensors))
    }

    pub(crate) fn parse(bytes: &'a [u8], reading: Reading, tail: Tail) -> Result<Self, Refused> {
        let type_byte = type_byte(bytes)?;
        let kind = FrameType::from_number(type_byte & 0x7f).ok_or(Refused::Type { byte: type_byte })?;
        match Encoding::of(type_byte) {
            Encoding::Ascii => Self::parse_ascii(kind, bytes, reading, tail),
            Encoding::Binary if reading.software == Software::BeforeV012 && tail == Tail::Nothing => {
                Self::parse_counted(kind, bytes, reading)
            }
            Encoding::Binary => {
                let (frame, rest) = measured(bytes)?;
                end(rest, tail)?;
                match (kind.generation(), reading.generation) {
                    (Some(of_type), Some(known)) if of_type != known => Err(Refused::Generation),
                    (Some(generation), _) | (None, Some(generation)) => {
                        Self::parse_binary(kind, frame, generation, reading.order)
                    }
                    (None, None) => Self::likelier(kind, frame, reading.order),
                }
            }
        }
    }

    fn parse_binary(
        kind: FrameType,
        bytes: &'a [u8],
        generation: Generation,
        order: SerialOrder,
    ) -> Result<Self, Refused> {
        let body = bytes.get(5..).unwrap_or_default();
        let serial = Serial::parse_binary(body, generation, order).ok_or(Refused::Serial)?;
        // By position: the serial may hold a 0x23.
        let named = body.get(generation.serial_length()..).unwrap_or_default();
        let (node_id, rest) = until_hash(named, LONGEST_ID).ok_or(Refused::NodeId)?;
        let (&sequence, payload) = rest.split_first().ok_or(Refused::Sequence)?;
        let node_id = Text::new(node_id);
        let frame = Self { kind, encoding: Encoding::Binary, serial, node_id, sequence, payload, count: None, bytes };
        if generation == Generation::V15 && frame.is_stamped_in_its_header() {
            return Err(Refused::Stamped);
        }
        Ok(frame)
    }

    /// A binary frame from before API v012. Since nothing says how long it is, its fields must be as many as it says and end
    /// where it ends; behind an unknown sensor nobody can count.
    fn parse_counted(kind: FrameType, bytes: &'a [u8], reading: Reading) -> Result<Self, Refused> {
        if [kind.generation(), reading.generation].contains(&Some(Generation::V15)) {
            return Err(Refused::Generation);
        }
        let promised = match bytes.get(4).copied() {
            // What stands there until a field is added.
            Some(b'?') => 0,
            count => count.ok_or(Refused::Short { length: bytes.len() })?,
        };
        // A field has two bytes at least, so this is N, and the frame a younger one.
        if usize::from(promised) + 5 == bytes.len() {
            return Err(Refused::FieldCount { promised, present: 0 });
        }
        let frame = Self::parse_binary(kind, bytes, Generation::V12, SerialOrder::LittleEndian)
            .and_then(|frame| frame.counted(promised));
        match frame {
            Err(_) if has_serial_text(bytes) => Err(Refused::SerialText),
            other => other,
        }
    }

    fn counted(self, promised: u8) -> Result<Self, Refused> {
        let sensors = Sensors::of(Table::V12);
        let mut present: u8 = 0;
        for entry in Fields::new(&self, &sensors) {
            match entry? {
                Entry::Rest(_) if present < promised => return Ok(Self { count: Some(promised), ..self }),
                _ => present = present.saturating_add(1),
            }
        }
        if present == promised {
            Ok(Self { count: Some(promised), ..self })
        } else {
            Err(Refused::FieldCount { promised, present })
        }
    }

    /// Whether the node took a 0x23 in the second half of its serial for the `#` before the sequence, and put TST behind
    /// the byte after it (W4). Bytes of the serial and of the time are then read as the node id.
    fn is_stamped_in_its_header(&self) -> bool {
        let searched = self.bytes.get(9..13).unwrap_or_default();
        let Some(hash) = searched.iter().position(|&byte| byte == b'#') else { return false };
        self.bytes.get(9 + hash + 2) == Some(&TST) && !self.has_visible_id()
    }

    /// A binary frame of a type that both generations send (W2): v15 unless only v12 makes sense of it.
    fn likelier(kind: FrameType, bytes: &'a [u8], order: SerialOrder) -> Result<Self, Refused> {
        let new = Self::parse_binary(kind, bytes, Generation::V15, order);
        let old = Self::parse_binary(kind, bytes, Generation::V12, order);
        match (new, old) {
            (Ok(new), Ok(old)) => {
                // The first four characters of a v12 node id are where a v15 serial ends.
                let named = u8::from(old.node_id.bytes().len() >= 4 && old.has_visible_id());
                if old.sense() + named > new.sense() { Ok(old) } else { Ok(new) }
            }
            (Err(_), Ok(old)) => Ok(old),
            (new, Err(_)) => new,
        }
    }

    /// How much sense the frame makes under the sender's own table.
    fn sense(&self) -> u8 {
        let sensors = Sensors::of(self.table());
        let whole = self.decode_ends_well(&sensors);
        2 * u8::from(whole) + u8::from(self.has_visible_id())
    }

    fn decode_ends_well(&self, sensors: &Sensors) -> bool {
        Fields::new(self, sensors).all(|entry| matches!(entry, Ok(Entry::Field(_))))
    }

    fn has_visible_id(&self) -> bool {
        self.node_id.bytes().iter().all(u8::is_ascii_graphic)
    }

    fn parse_ascii(kind: FrameType, bytes: &'a [u8], reading: Reading, tail: Tail) -> Result<Self, Refused> {
        let [_, _, _, _, promised, b'#', body @ ..] = bytes else {
            return Err(Refused::Serial);
        };
        let (serial, body) = until_hash(body, 16).ok_or(Refused::Serial)?;
        let serial = Serial::parse_ascii(serial).ok_or(Refused::Serial)?;
        let generation = serial.generation();
        if [kind.generation(), reading.generation].into_iter().flatten().any(|other| other != generation) {
            return Err(Refused::Generation);
        }
        let (node_id, body) = until_hash(body, LONGEST_ID).ok_or(Refused::NodeId)?;
        let (sequence, fields) = until_hash(body, 3).ok_or(Refused::Sequence)?;
        let sequence = decimal(sequence).and_then(|n| u8::try_from(n).ok()).ok_or(Refused::Sequence)?;
        let mut rest = fields;
        for present in 0..*promised {
            (_, rest) = ascii_field(rest).ok_or(Refused::FieldCount { promised: *promised, present })?;
        }
        end(rest, tail)?;
        let payload = fields.get(..fields.len().saturating_sub(rest.len())).unwrap_or_default();
        let bytes = bytes.get(..bytes.len().saturating_sub(rest.len())).unwrap_or_default();
        let node_id = Text::new(node_id);
        let count = Some(*promised);
        Ok(Self { kind, encoding: Encoding::Ascii, serial, node_id, sequence, payload, count, bytes })
    }
}

/// All fields of a frame.
#[derive(Clone, Debug, Default)]
pub struct Decoded<'a> {
    /// What was understood, in the order on the wire.
    pub fields: Vec<Field<'a>>,
    /// Fields of an ASCII frame that were not.
    pub refused: Vec<RefusedField<'a>>,
    /// What follows the first unknown id of a binary frame.
    pub rest: Option<Rest<'a>>,
}

impl<'a> Decoded<'a> {
    /// All fields of a frame, a tiny frame or pieces that were put together.
    ///
    /// # Errors
    /// A binary field that ends behind the frame.
    pub fn of(fields: Fields<'a>) -> Result<Self, Refused> {
        let mut decoded = Self::default();
        for entry in fields {
            match entry? {
                Entry::Field(field) => decoded.fields.push(field),
                Entry::Refused(field) => decoded.refused.push(field),
                Entry::Rest(rest) => decoded.rest = Some(rest),
            }
        }
        Ok(decoded)
    }
}

/// Whether a binary frame holds its serial as a decimal, as the very first software wrote it.
fn has_serial_text(bytes: &[u8]) -> bool {
    let serial = bytes.get(5..).and_then(|body| until_hash(body, 10));
    serial.is_some_and(|(digits, _)| Serial::parse_ascii(digits).is_some_and(|s| s.generation() == Generation::V12))
}

/// Splits at the first `#`, if it comes within `longest` bytes and one.
pub(crate) fn until_hash(bytes: &[u8], longest: usize) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(longest + 1).position(|&byte| byte == b'#')?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// The first field of an ASCII payload without its `#`, and what follows it.
///
/// A node counts one byte too many after a TIME with a negative offset (W3): that 0x00 belongs to the field.
pub(crate) fn ascii_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (field, rest) = until_hash(bytes, LONGEST)?;
    match rest {
        [0, after @ ..] if has_negative_offset(field) => Some((field, after)),
        _ => Some((field, rest)),
    }
}

fn has_negative_offset(field: &[u8]) -> bool {
    field.strip_prefix(b"TIME:").is_some_and(|time| time.iter().filter(|&&byte| byte == b'-').count() == 3)
}

fn end(rest: &[u8], tail: Tail) -> Result<(), Refused> {
    match tail {
        Tail::Nothing if !rest.is_empty() => Err(Refused::Trailing { bytes: rest.len() }),
        Tail::Padding if rest.len() > 15 || rest.iter().any(|&byte| byte != 0) => Err(Refused::Padding),
        _ => Ok(()),
    }
}
