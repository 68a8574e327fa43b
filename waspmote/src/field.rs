//! Fields and their values (W3, W4).

use core::fmt;

use crate::frame::{Clear, ascii_field};
use crate::kind::Encoding;
use crate::refused::Refused;
use crate::sensors::{Kind, Sensor, Sensors};
use crate::text::Text;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number without decimals.
    Integer(i64),
    /// A number with decimals: exactly the single-precision number of a binary frame, or the decimal of an ASCII one.
    Float(f64),
    /// Text.
    Text(Text<'a>),
}

/// As a node prints it, but floats with as many decimals as tell them apart (those of single precision, if it is one).
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) if number.is_nan() => f.write_str("NAN"),
            Self::Float(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "INF" } else { "-INF" }),
            Self::Float(number) if f64::from(*number as f32) == *number => (*number as f32).fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A field that was understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Id of the sensor. None for a tag of an ASCII frame that the table does not have, or has twice.
    pub id: Option<u8>,
    /// Tag of the sensor.
    pub tag: Text<'a>,
    /// Its values, at least one.
    pub values: Values<'a>,
    /// Where it starts in the frame.
    pub at: usize,
}

/// A field of an ASCII frame that was not understood; the others are not touched by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedField<'a> {
    /// The field without its `#`.
    pub text: Text<'a>,
    /// Where it starts in the frame.
    pub at: usize,
    /// Why.
    pub fault: FieldFault,
}

/// What is wrong with a field of an ASCII frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldFault {
    /// No `:`.
    NoColon,
    /// Nothing after the `:` of a sensor that has numbers.
    NoValue,
    /// What should be a number is none, or one that the sensor cannot have.
    NotANumber,
    /// Another number of values than the sensor has.
    Count {
        /// Values the sensor has.
        expected: u8,
        /// Values there are.
        present: usize,
    },
}

impl FieldFault {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoColon => "no-colon",
            Self::NoValue => "no-value",
            Self::NotANumber => "not-a-number",
            Self::Count { .. } => "value-count",
        }
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColon => f.write_str("the field has no colon between tag and value"),
            Self::NoValue => f.write_str("the numeric field has no value"),
            Self::NotANumber => f.write_str("the value is no number that this sensor can have"),
            Self::Count { expected, present } => write!(f, "the sensor has {expected} values, {present} are there"),
        }
    }
}

/// What follows the first unknown id of a binary frame: nobody can say where its field ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest<'a> {
    /// The id that the table does not have.
    pub id: u8,
    /// Where its field starts in the frame.
    pub at: usize,
    /// From that field to the end of the frame.
    pub bytes: &'a [u8],
}

/// What comes next in a payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A field that was understood.
    Field(Field<'a>),
    /// A field that was not.
    Refused(RefusedField<'a>),
    /// The rest cannot be read.
    Rest(Rest<'a>),
}

/// The fields of a frame, in the order on the wire.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    encoding: Encoding,
    sensors: &'a Sensors,
    left: &'a [u8],
    end: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new<'s: 'a>(frame: &Clear<'a>, sensors: &'s Sensors) -> Self {
        Self { encoding: frame.encoding, sensors, left: frame.payload, end: frame.bytes.len() }
    }

    /// Fields of a binary payload that stands by itself, `end` bytes after its frame began.
    pub(crate) const fn binary(payload: &'a [u8], end: usize, sensors: &'a Sensors) -> Self {
        Self { encoding: Encoding::Binary, sensors, left: payload, end }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Entry<'a>, Refused>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.end.saturating_sub(self.left.len());
        let (&id, body) = self.left.split_first()?;
        match self.encoding {
            Encoding::Ascii => {
                let (field, rest) = ascii_field(self.left)?;
                self.left = rest;
                Some(Ok(read_ascii(field, at, self.sensors)))
            }
            Encoding::Binary => {
                let bytes = core::mem::take(&mut self.left);
                let Some(sensor) = self.sensors.by_id(id) else {
                    return Some(Ok(Entry::Rest(Rest { id, at, bytes })));
                };
                let Some((values, rest)) = read_binary(sensor, body) else {
                    return Some(Err(Refused::FieldLength { id, at }));
                };
                self.left = rest;
                let tag = Text::new(sensor.tag.as_bytes());
                Some(Ok(Entry::Field(Field { id: Some(id), tag, values, at })))
            }
        }
    }
}

impl core::iter::FusedIterator for Fields<'_> {}

fn read_binary<'a>(sensor: &Sensor, body: &'a [u8]) -> Option<(Values<'a>, &'a [u8])> {
    let (length, body) = match sensor.kind.width() {
        Some(width) => (width * usize::from(sensor.fields), body),
        None => {
            let (&length, body) = body.split_first()?;
            (usize::from(length), body)
        }
    };
    let (bytes, rest) = body.split_at_checked(length)?;
    Some((Values(Form::Binary { kind: sensor.kind, bytes }), rest))
}

fn read_ascii<'a>(text: &'a [u8], at: usize, sensors: &'a Sensors) -> Entry<'a> {
    let refused = |fault| Entry::Refused(RefusedField { text: Text::new(text), at, fault });
    let Some(colon) = text.iter().position(|&byte| byte == b':') else {
        return refused(FieldFault::NoColon);
    };
    let tag = text.get(..colon).unwrap_or_default();
    let value = text.get(colon + 1..).unwrap_or_default();
    let mut named = sensors.with_tag(tag);
    let (first, twice) = (named.next(), named.next().is_some());
    let Some(sensor) = first else {
        let values = Values(Form::Ascii { kind: Kind::Text, style: Style::List, text: value });
        return Entry::Field(Field { id: None, tag: Text::new(tag), values, at });
    };
    let style = Style::of(sensor);
    let values = Values(Form::Ascii { kind: sensor.kind, style, text: value });
    if sensor.kind != Kind::Text {
        if value.is_empty() {
            return refused(FieldFault::NoValue);
        }
        let (mut parts, mut good) = (Parts { style, left: Some(value), index: 0 }, true);
        let present = parts.by_ref().inspect(|part| good &= part.is_number(sensor.kind)).count();
        let expected = sensor.fields;
        if !good {
            return refused(FieldFault::NotANumber);
        }
        if present != usize::from(expected) && !(style == Style::Time && present == usize::from(expected) + 1) {
            return refused(FieldFault::Count { expected, present });
        }
    }
    Entry::Field(Field { id: (!twice).then_some(sensor.id), tag: Text::new(tag), values, at })
}

/// The values of a field, not yet read: iterate over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values<'a>(Form<'a>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form<'a> {
    Binary { kind: Kind, bytes: &'a [u8] },
    Ascii { kind: Kind, style: Style, text: &'a [u8] },
}

/// How the values of an ASCII field are strung together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `a;b;c`
    List,
    /// `x-y-z`
    Date,
    /// `h-m-s`, `h-m-s+g` or `h-m-s-g`
    Time,
}

impl Style {
    pub(crate) fn of(sensor: &Sensor) -> Self {
        match (&*sensor.tag, sensor.kind) {
            ("DATE", Kind::U8) => Self::Date,
            ("TIME", Kind::U8) => Self::Time,
            _ => Self::List,
        }
    }
}

impl<'a> Values<'a> {
    /// One by one.
    #[inline]
    pub fn iter(&self) -> ValuesIter<'a> {
        ValuesIter(match self.0 {
            Form::Binary { kind, bytes } => Walk::Binary { kind, left: Some(bytes) },
            Form::Ascii { kind: Kind::Text, text, .. } => Walk::Binary { kind: Kind::Text, left: Some(text) },
            Form::Ascii { kind, style, text } => {
                Walk::Ascii { kind, parts: Parts { style, left: Some(text), index: 0 } }
            }
        })
    }
}

impl<'a> IntoIterator for Values<'a> {
    type Item = Value<'a>;
    type IntoIter = ValuesIter<'a>;

    fn into_iter(self) -> ValuesIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Values<'a> {
    type Item = Value<'a>;
    type IntoIter = ValuesIter<'a>;

    fn into_iter(self) -> ValuesIter<'a> {
        self.iter()
    }
}

/// Iterates over [`Values`].
#[derive(Clone, Debug)]
pub struct ValuesIter<'a>(Walk<'a>);

#[derive(Clone, Debug)]
enum Walk<'a> {
    Binary { kind: Kind, left: Option<&'a [u8]> },
    Ascii { kind: Kind, parts: Parts<'a> },
}

impl<'a> Iterator for ValuesIter<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        match &mut self.0 {
            Walk::Binary { kind: Kind::Text, left } => left.take().map(|bytes| Value::Text(Text::new(bytes))),
            Walk::Binary { kind, left } => {
                let bytes = left.as_mut()?;
                Some(match kind {
                    Kind::U8 | Kind::Text => Value::Integer(i64::from(u8::from_le_bytes(take(bytes)?))),
                    Kind::I16 => Value::Integer(i64::from(i16::from_le_bytes(take(bytes)?))),
                    Kind::U16 => Value::Integer(i64::from(u16::from_le_bytes(take(bytes)?))),
                    Kind::U32 => Value::Integer(i64::from(u32::from_le_bytes(take(bytes)?))),
                    Kind::Float => Value::Float(f64::from(f32::from_le_bytes(take(bytes)?))),
                })
            }
            Walk::Ascii { kind, parts } => parts.next()?.number(*kind),
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// The parts of an ASCII value.
#[derive(Clone, Debug)]
struct Parts<'a> {
    style: Style,
    left: Option<&'a [u8]>,
    index: u8,
}

struct Part<'a> {
    text: &'a [u8],
    /// Of an offset of TIME: its sign is what separates it.
    negative: bool,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let left = self.left.take()?;
        let (sign, left) = match (self.style, self.index, left) {
            (Style::Time, 3, [sign, left @ ..]) => (*sign, left),
            _ => (b'+', left),
        };
        let end = left.iter().position(|&byte| match self.style {
            Style::List => byte == b';',
            Style::Date => byte == b'-',
            Style::Time => byte == b'-' || byte == b'+',
        });
        let text = left.get(..end.unwrap_or(left.len())).unwrap_or_default();
        self.index = self.index.saturating_add(1);
        self.left = end.and_then(|end| {
            // The sign of an offset stays in front of it.
            let skip = if self.style == Style::Time && self.index == 3 { end } else { end + 1 };
            left.get(skip..)
        });
        Some(Part { text, negative: sign == b'-' })
    }
}

impl Part<'_> {
    /// Whether [`number`](Self::number) gives one. Looks at the form alone where that decides.
    fn is_number(&self, kind: Kind) -> bool {
        if kind != Kind::Float {
            return self.number(kind).is_some();
        }
        let digits = self.text.strip_prefix(b"-").unwrap_or(self.text);
        if digits == b"INF" || self.text == b"NAN" {
            return true;
        }
        let point = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
        let (whole, decimals) = digits.split_at(point);
        let decimals = decimals.strip_prefix(b".").unwrap_or(b"0");
        [whole, decimals].iter().all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    }

    fn number<'v>(&self, kind: Kind) -> Option<Value<'v>> {
        if kind == Kind::Float {
            return Some(Value::Float(match self.text {
                b"NAN" => f64::NAN,
                b"INF" => f64::INFINITY,
                b"-INF" => f64::NEG_INFINITY,
                text if self.is_number(kind) => core::str::from_utf8(text).ok()?.parse().ok()?,
                _ => return None,
            }));
        }
        let digits = self.text.strip_prefix(b"-").unwrap_or(self.text);
        if digits.is_empty() || digits.len() > 10 {
            return None;
        }
        let number = digits.iter().try_fold(0_i64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit.wrapping_sub(b'0')))
        })?;
        let negative = self.negative != (digits.len() != self.text.len());
        let number = if negative { -number } else { number };
        let range = match kind {
            Kind::U32 => 0..=i64::from(u32::MAX),
            // What the sketch handed over was an int or a uint16_t, whatever the row says.
            _ => i64::from(i16::MIN)..=i64::from(u16::MAX),
        };
        range.contains(&number).then_some(Value::Integer(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::Table;
    use alloc::string::{String, ToString as _};
    use alloc::vec::Vec;

    fn read(text: &str) -> Result<Vec<String>, FieldFault> {
        let sensors = Sensors::of(Table::Default);
        match read_ascii(text.as_bytes(), 0, &sensors) {
            Entry::Field(field) => Ok(field.values.iter().map(|value| value.to_string()).collect()),
            Entry::Refused(field) => Err(field.fault),
            Entry::Rest(_) => panic!("of binary frames alone"),
        }
    }

    #[test]
    fn an_ascii_value_is_a_number_as_nodes_print_it_or_refused() {
        for (text, wanted) in [
            ("TC:-4.24", &["-4.24"][..]),
            ("TC:-INF", &["-INF"]),
            ("TC:NAN", &["NAN"]),
            ("TC:7", &["7"]),
            ("GPS:-71.977753;-77.016449", &["-71.977753", "-77.016449"]),
            ("TIME:1-2-3", &["1", "2", "3"]),
            ("TIME:1-2-3+4", &["1", "2", "3", "4"]),
            ("TIME:1-2-3-4", &["1", "2", "3", "-4"]),
            ("STR:a:b;c", &["a:b;c"]),
            ("STR:", &[""]),
            ("NEVERSEEN:1;2", &["1;2"]),
        ] {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
        for (text, fault) in [
            ("TC", FieldFault::NoColon),
            ("TC:", FieldFault::NoValue),
            ("TC:1e5", FieldFault::NotANumber),
            ("TC:.5", FieldFault::NotANumber),
            ("TC:5.", FieldFault::NotANumber),
            ("TC:--5", FieldFault::NotANumber),
            ("TC:-NAN", FieldFault::NotANumber),
            ("TC:+5", FieldFault::NotANumber),
            ("BAT:1.5", FieldFault::NotANumber),
            ("BAT:65536", FieldFault::NotANumber),
            ("MILLIS:4294967296", FieldFault::NotANumber),
            ("ACC:1;2;", FieldFault::NotANumber),
            ("ACC:1;2", FieldFault::Count { expected: 3, present: 2 }),
            ("DATE:1-2-3-4", FieldFault::Count { expected: 3, present: 4 }),
            ("TIME:1-2-3+4+5", FieldFault::Count { expected: 3, present: 5 }),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }
}
