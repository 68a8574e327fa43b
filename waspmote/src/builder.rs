//! Making frames, as a node makes them (W3 to W5): what it refuses is refused here, and what it gets wrong is wrong here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::field::{Style, Value};
use crate::frame::{Clear, DELIMITER, LONGEST, LONGEST_ID, TST};
use crate::kind::{Encoding, FrameType};
use crate::sensors::{Kind, Sensor, Sensors};
use crate::serial::{Generation, Serial, SerialOrder};
use crate::text::Text;

/// Fields that a node puts into one frame at most.
pub const MOST_FIELDS: u8 = 30;
/// Characters of a float's text that a node has room for: one more overwrites its stack.
const LONGEST_FLOAT: usize = 19;

/// Makes one frame in clear.
#[derive(Clone, Debug)]
pub struct Builder<'s> {
    sensors: &'s Sensors,
    kind: FrameType,
    encoding: Encoding,
    header: Vec<u8>,
    payload: Vec<u8>,
    fields: u8,
    most: usize,
}

/// Who sends a frame, and which of its frames it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender<'a> {
    /// The serial.
    pub serial: Serial,
    /// Order of a v12 serial's bytes in binary frames.
    pub order: SerialOrder,
    /// Name of the node: cut to 16 bytes, and `#` and space become `_`.
    pub node_id: Text<'a>,
    /// Counter of the node.
    pub sequence: u8,
}

/// Why a field is not in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotAdded {
    /// The table has no such sensor.
    Unknown,
    /// The sensor has other values, or another number of them.
    Values,
    /// The frame would become too long; a shorter field may still fit.
    Full,
    /// 30 fields are there.
    Fields,
}

impl NotAdded {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown-sensor",
            Self::Values => "values",
            Self::Full => "full",
            Self::Fields => "fields",
        }
    }
}

impl fmt::Display for NotAdded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the table has no such sensor",
            Self::Values => "the sensor has values of another kind, or another number of them",
            Self::Full => "the field does not fit into the frame",
            Self::Fields => "a frame has 30 fields at most",
        })
    }
}

impl core::error::Error for NotAdded {}

impl<'s> Builder<'s> {
    /// A frame without fields: of the information type that the sender's hardware and table have.
    pub fn new(sensors: &'s Sensors, encoding: Encoding, sender: &Sender<'_>) -> Self {
        let kind = match (sensors.table(), sender.serial.generation()) {
            (crate::sensors::Table::Agriculture, _) => FrameType::AgricultureXtreme,
            (crate::sensors::Table::Water, _) => FrameType::WaterXtreme,
            (_, Generation::V12) => FrameType::InformationV12,
            (_, Generation::V15) => FrameType::InformationV15,
        };
        let header = match encoding {
            Encoding::Ascii => ascii_header(sender),
            Encoding::Binary => binary_header(sender),
        };
        Self { sensors, kind, encoding, header, payload: Vec::new(), fields: 0, most: LONGEST }
    }

    /// Of another type.
    #[must_use]
    pub const fn kind(mut self, kind: FrameType) -> Self {
        self.kind = kind;
        self
    }

    /// At most this many bytes, delimiter included: never more than 255.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.most = bytes.min(LONGEST);
        self
    }

    /// Adds a field. Of TIME, an ASCII frame takes a fourth value, the offset in hours; a binary one drops it.
    ///
    /// # Errors
    /// Why the node would not have added it either.
    pub fn add(&mut self, id: u8, values: &[Value<'_>]) -> Result<(), NotAdded> {
        let sensor = self.sensors.by_id(id).ok_or(NotAdded::Unknown)?;
        self.add_as(sensor, values, sensor.decimals)
    }

    /// Adds a field of floats with other decimals than those of the table. They count in ASCII frames alone.
    ///
    /// # Errors
    /// As of [`add`](Self::add).
    pub fn add_with_decimals(&mut self, id: u8, values: &[Value<'_>], decimals: u8) -> Result<(), NotAdded> {
        let sensor = self.sensors.by_id(id).ok_or(NotAdded::Unknown)?;
        self.add_as(sensor, values, decimals)
    }

    /// Adds the time in seconds since 1970: in front of all fields of a binary frame, at the end of an ASCII one.
    ///
    /// # Errors
    /// As of [`add`](Self::add).
    pub fn add_timestamp(&mut self, epoch: u32) -> Result<(), NotAdded> {
        let before = self.payload.len();
        self.add(TST, &[Value::Integer(i64::from(epoch))])?;
        if self.encoding == Encoding::Binary {
            let added = self.payload.len().saturating_sub(before);
            self.payload.rotate_right(added);
        }
        Ok(())
    }

    fn add_as(&mut self, sensor: &Sensor, values: &[Value<'_>], decimals: u8) -> Result<(), NotAdded> {
        if self.fields >= MOST_FIELDS {
            return Err(NotAdded::Fields);
        }
        let values = match (Style::of(sensor), values) {
            (Style::Time, [time @ .., _]) if time.len() == 3 && self.encoding == Encoding::Binary => time,
            _ => values,
        };
        let offset = usize::from(Style::of(sensor) == Style::Time && values.len() == 4);
        if values.len() != usize::from(sensor.fields) + offset {
            return Err(NotAdded::Values);
        }
        let field = match self.encoding {
            Encoding::Ascii => ascii_field(sensor, values, decimals)?,
            Encoding::Binary => binary_field(sensor, values)?,
        };
        let length = DELIMITER.len() + 2 + self.header.len() + self.payload.len() + field.len();
        if length > self.most {
            return Err(NotAdded::Full);
        }
        self.payload.extend_from_slice(&field);
        self.fields = self.fields.saturating_add(1);
        Ok(())
    }

    /// The frame.
    pub fn finish(&self) -> Vec<u8> {
        assemble(self.kind, self.encoding, self.fields, &self.header, &self.payload)
    }
}

/// A frame of its parts. Both together have at most 250 bytes.
fn assemble(kind: FrameType, encoding: Encoding, fields: u8, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let rest = header.len().saturating_add(payload.len());
    let (bit, length) = match encoding {
        Encoding::Ascii => (0x80, fields),
        Encoding::Binary => (0, u8::try_from(rest).unwrap_or(u8::MAX)),
    };
    let mut frame = Vec::with_capacity(DELIMITER.len() + 2 + rest);
    frame.extend_from_slice(&DELIMITER);
    frame.extend_from_slice(&[kind.number() | bit, length]);
    frame.extend_from_slice(header);
    frame.extend_from_slice(payload);
    frame
}

/// A binary frame with the header of another one, and these fields: `None` if that is longer than a frame can be.
pub(crate) fn with_payload(head: &Clear<'_>, payload: &[u8]) -> Option<Vec<u8>> {
    let end = head.bytes.len().checked_sub(head.payload.len())?;
    let header = head.bytes.get(5..end)?;
    let fits = DELIMITER.len() + 2 + header.len() + payload.len() <= LONGEST;
    fits.then(|| assemble(head.kind, Encoding::Binary, 0, header, payload))
}

fn binary_header(sender: &Sender<'_>) -> Vec<u8> {
    let mut header = Vec::with_capacity(8 + LONGEST_ID + 2);
    match (sender.serial, sender.order) {
        (Serial::V15(bytes), _) => header.extend_from_slice(&bytes),
        (Serial::V12(number), SerialOrder::BigEndian) => header.extend_from_slice(&number.to_be_bytes()),
        (Serial::V12(number), SerialOrder::LittleEndian) => header.extend_from_slice(&number.to_le_bytes()),
    }
    header.extend(stored_id(sender.node_id));
    header.extend_from_slice(&[b'#', sender.sequence]);
    header
}

fn ascii_header(sender: &Sender<'_>) -> Vec<u8> {
    let mut header = Vec::with_capacity(16 + LONGEST_ID + 8);
    header.push(b'#');
    header.extend_from_slice(format!("{}#", sender.serial).to_ascii_uppercase().as_bytes());
    header.extend(stored_id(sender.node_id));
    header.extend_from_slice(format!("#{}#", sender.sequence).as_bytes());
    header
}

/// A node id as a node stores it.
fn stored_id(id: Text<'_>) -> impl Iterator<Item = u8> {
    let underscored = |&byte: &u8| if byte == b'#' || byte == b' ' { b'_' } else { byte };
    id.bytes().iter().take(LONGEST_ID).map(underscored)
}

/// What a text becomes in a field.
fn stored_text(text: Text<'_>) -> impl Iterator<Item = u8> {
    text.bytes().iter().map(|&byte| if byte == b'#' { b'_' } else { byte })
}

fn binary_field(sensor: &Sensor, values: &[Value<'_>]) -> Result<Vec<u8>, NotAdded> {
    let mut field = Vec::with_capacity(16);
    field.push(sensor.id);
    for value in values {
        match (sensor.kind, value) {
            (Kind::Text, Value::Text(text)) => {
                field.push(u8::try_from(text.bytes().len()).map_err(|_| NotAdded::Full)?);
                field.extend(stored_text(*text));
            }
            (Kind::Float, Value::Float(number)) => field.extend_from_slice(&(*number as f32).to_le_bytes()),
            (kind, Value::Integer(number)) => {
                let number = *number;
                let bytes = checked(kind, number)?.to_le_bytes();
                field.extend(bytes.iter().take(kind.width().unwrap_or(0)));
            }
            _ => return Err(NotAdded::Values),
        }
    }
    Ok(field)
}

/// The number, if a call that takes such a sensor can have it.
fn checked(kind: Kind, number: i64) -> Result<i64, NotAdded> {
    let range = match kind {
        // The node keeps the low byte of a negative number.
        Kind::U8 => i64::from(i16::MIN)..=255,
        Kind::I16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        Kind::U16 => 0..=i64::from(u16::MAX),
        Kind::U32 => 0..=i64::from(u32::MAX),
        Kind::Float | Kind::Text => return Err(NotAdded::Values),
    };
    if range.contains(&number) { Ok(number) } else { Err(NotAdded::Values) }
}

fn ascii_field(sensor: &Sensor, values: &[Value<'_>], decimals: u8) -> Result<Vec<u8>, NotAdded> {
    let style = Style::of(sensor);
    let mut field = Vec::with_capacity(24);
    field.extend_from_slice(sensor.tag.as_bytes());
    let mut negative_offset = false;
    for (index, value) in values.iter().enumerate() {
        let separator = match (index, style) {
            (0, _) => ":",
            (_, Style::List) => ";",
            (3, Style::Time) if matches!(value, Value::Integer(0..)) => "+",
            // The number brings its own sign.
            (3, Style::Time) => "",
            _ => "-",
        };
        field.extend_from_slice(separator.as_bytes());
        match (sensor.kind, value) {
            (Kind::Text, Value::Text(text)) => field.extend(stored_text(*text)),
            (Kind::Float, Value::Float(number)) => {
                let text = printed(*number as f32, decimals);
                if text.len() > LONGEST_FLOAT {
                    return Err(NotAdded::Values);
                }
                field.extend_from_slice(text.as_bytes());
            }
            (kind, Value::Integer(number)) => {
                negative_offset |= index == 3 && style == Style::Time && *number < 0;
                field.extend_from_slice(format!("{}", checked(kind, *number)?).as_bytes());
            }
            _ => return Err(NotAdded::Values),
        }
    }
    field.push(b'#');
    if negative_offset {
        // The node counts one byte too many.
        field.push(0);
    }
    Ok(field)
}

/// A float as a node prints it: rounded to the decimals, or to 8 significant digits and then zeros.
fn printed(number: f32, decimals: u8) -> String {
    const DIGITS: usize = 8;
    if number.is_nan() {
        return "NAN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "INF".into() } else { "-INF".into() };
    }
    let (wide, decimals) = (f64::from(number), usize::from(decimals));
    let significant = format!("{:.*e}", DIGITS - 1, wide.abs());
    let (mantissa, exponent) = significant.split_once('e').unwrap_or((&significant, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Digits that the decimals ask for, from the first one that is not zero.
    let asked = usize::try_from(exponent + 1).unwrap_or(0) + decimals;
    if exponent < 0 || asked <= DIGITS {
        return format!("{wide:.decimals$}");
    }
    let whole = usize::try_from(exponent + 1).unwrap_or(1);
    let mut digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    digits.extend(core::iter::repeat_n('0', asked.saturating_sub(DIGITS)));
    let sign = if number.is_sign_negative() { "-" } else { "" };
    match digits.split_at_checked(whole) {
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, decimals)) => format!("{sign}{whole}.{decimals}"),
        None => format!("{sign}{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_with_the_digits_that_a_node_has() {
        assert_eq!(printed(127.177_443, 6), "127.177440");
        assert_eq!(printed(-71.977_75, 6), "-71.977753");
        assert_eq!(printed(101_325.0, 2), "101325.00");
        assert_eq!(printed(0.296_162, 6), "0.296162");
        assert_eq!(printed(-0.0, 2), "-0.00");
        assert_eq!(printed(21.5, 0), "22");
        assert_eq!(printed(4_000_000_000.0, 1), "4000000000.0");
        assert_eq!(printed(f32::NAN, 2), "NAN");
        assert_eq!(printed(f32::NEG_INFINITY, 2), "-INF");
    }

    #[test]
    fn a_field_that_the_node_would_not_take_is_not_taken() {
        let sensors = Sensors::of(crate::sensors::Table::Default);
        let sender = Sender {
            serial: Serial::V15([1; 8]),
            order: SerialOrder::BigEndian,
            node_id: Text::new(b"a b#c and much more"),
            sequence: 0,
        };
        for encoding in [Encoding::Ascii, Encoding::Binary] {
            let mut builder = Builder::new(&sensors, encoding, &sender).limit(60);
            assert_eq!(builder.add(41, &[Value::Integer(300)]), Err(NotAdded::Values));
            assert_eq!(builder.add(74, &[Value::Integer(20)]), Err(NotAdded::Values));
            assert_eq!(builder.add(54, &[Value::Float(1.5)]), Err(NotAdded::Values));
            assert_eq!(builder.add(63, &[Value::Integer(1)]), Err(NotAdded::Values));
            assert_eq!(builder.add(22, &[Value::Integer(1)]), Err(NotAdded::Unknown));
            assert_eq!(builder.add(65, &[Value::Text(Text::new(&[b'z'; 60]))]), Err(NotAdded::Full));
            assert_eq!(builder.add(52, &[Value::Integer(3)]), Ok(()));
            assert!(builder.finish().windows(16).any(|part| part == b"a_b_c_and_much_m"));
        }
    }
}
