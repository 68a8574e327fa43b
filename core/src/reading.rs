//! # Readings: what travels inside the innermost seal
//!
//! | | |
//! |---|---|
//! | Hides  | nothing: the seal around it does |
//! | Binds  | nothing: names are relative to the device that the seal proves |
//! | Drops as | "inner malformed": `E2-07` or `E3-07`, as the level that opened it says |
//! | Does not | know units or ranges: what a device says is passed on as it said it |
//! | Spec   | docs/protocol.md 7; RFC 8428 |
//!
//! A payload is a CBOR sequence of SenML packs, template rows and control maps, or one classic frame. All views are
//! checked when they are made and then total; nothing is copied.

pub mod senml;
pub mod template;

pub use senml::{BaseName, Fields, Pack, Reading, Record};
pub use template::{Definition, Template};

use core::fmt;

use crate::wire::cbor::{Major, Reader};
pub use crate::wire::cbor::{Malformed, Number};

/// What a payload is, by its first byte.
#[derive(Clone, Debug)]
pub enum Payload<'b> {
    /// One classic frame, as it came: it starts with `<` (3C).
    Classic(&'b [u8]),
    /// Items of our own.
    Sequence(Items<'b>),
}

impl<'b> Payload<'b> {
    /// Bytes of a payload, at most: no gateway takes a longer message from a device (docs/protocol.md 7).
    pub const LONGEST: usize = 2048;

    /// Tells the two apart and checks every item of a sequence; an empty payload is a sequence of nothing. Names are
    /// relative to the device ([`BaseName::Implied`]); a control map is checked for being well formed, and read by
    /// [`wire::control`](crate::wire::control).
    ///
    /// # Errors
    /// At the first item that does not have its shape: then nothing of the payload is good. When it is longer than
    /// [`Payload::LONGEST`].
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::LONGEST {
            return Err(Malformed::new("a payload longer than 2048 bytes"));
        }
        if bytes.first() == Some(&b'<') {
            return Ok(Self::Classic(bytes));
        }
        let items = Items { reader: Reader::new(bytes) };
        let mut checked = Reader::new(bytes);
        while !checked.is_at_end() {
            Item::parse(&mut checked)?;
        }
        Ok(Self::Sequence(items))
    }
}

/// One item of a payload.
#[derive(Clone, Debug)]
pub enum Item<'b> {
    /// A control map, as it came ([`wire::control::Uplink`](crate::wire::control::Uplink) or
    /// [`Downlink`](crate::wire::control::Downlink)).
    Control(&'b [u8]),
    /// A SenML pack.
    Senml(Pack<'b>),
    /// A row of a template.
    Template(Template<'b>),
}

impl<'b> Item<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        match r.peek()? {
            Major::Map => r.item().map(Self::Control),
            Major::Array => {
                let item = r.item()?;
                let mut inside = Reader::new(item);
                if inside.array()? == 0 {
                    return Err(Malformed::new("an empty array is no item"));
                }
                match inside.peek()? {
                    Major::Map => Pack::parse(item, BaseName::Implied).map(Self::Senml),
                    Major::Unsigned => Template::parse(item).map(Self::Template),
                    _ => Err(Malformed::new("an array starts with a map or a template id")),
                }
            }
            _ => Err(Malformed::new("an item is an array or a map")),
        }
    }
}

/// Iterator over the items of a payload.
#[derive(Clone, Debug)]
pub struct Items<'b> {
    reader: Reader<'b>,
}

impl<'b> Iterator for Items<'b> {
    type Item = Item<'b>;

    fn next(&mut self) -> Option<Item<'b>> {
        if self.reader.is_at_end() {
            return None;
        }
        // `Payload::parse` checked each of them.
        Item::parse(&mut self.reader).ok()
    }
}

/// A value of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'b> {
    /// True or false.
    Bool(bool),
    /// Opaque bytes.
    Bytes(&'b [u8]),
    /// A finite number.
    Number(Number),
    /// Text.
    Text(&'b str),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|b| write!(f, "{b:02x}")),
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl From<$int> for Number {
            fn from(value: $int) -> Self {
                Self::Integer(i64::from(value))
            }
        }
    )*};
}
integers!(u8, u16, u32, i8, i16, i32, i64);

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<f32> for Number {
    fn from(value: f32) -> Self {
        Self::Float(f64::from(value))
    }
}
