//! Deterministic CBOR (RFC 8949 4.2) over byte slices, without a heap.
//!
//! Reading is strict: the shortest head, definite lengths, map keys of ours in strictly ascending order. What another
//! encoder may do more freely (the order of SenML labels) says so where it is read. Writing is minicbor's encoder.

mod list;

pub use list::{Element, Elements, List};

use core::{fmt, str};

use minicbor::encode::write::{Cursor, EndOfSlice};

use crate::error::{Code, Rejected, SealError};
use crate::level::OscoreLevel;

/// Bytes that do not have the shape they should; the place that reads them knows the code to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why, in a few words.
    pub reason: &'static str,
}

impl Malformed {
    /// With its reason.
    pub const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// Counted under `code`.
    pub const fn counted(self, code: Code) -> Rejected {
        Rejected::new(code, self.reason)
    }

    /// Found inside what level `L` sealed: E2-07 or E3-07.
    pub const fn inside<L: OscoreLevel>(self) -> Rejected {
        Rejected::new(L::INNER, self.reason)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl core::error::Error for Malformed {}

const ENDS_EARLY: Malformed = Malformed::new("CBOR ends early");
const NOT_SHORTEST: Malformed = Malformed::new("CBOR head is not the shortest");

/// The kind of the next item, by its major type (RFC 8949 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// 0: unsigned integer.
    Unsigned,
    /// 1: negative integer.
    Negative,
    /// 2: byte string.
    Bytes,
    /// 3: text string.
    Text,
    /// 4: array.
    Array,
    /// 5: map.
    Map,
    /// 6: tag.
    Tag,
    /// 7: simple value or float.
    Simple,
}

/// A number as CBOR carries it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer of at most 64 bits with sign.
    Integer(i64),
    /// A finite float.
    Float(f64),
}

impl Number {
    /// As a double; integers beyond 2^53 are rounded.
    pub const fn as_f64(self) -> f64 {
        match self {
            Self::Integer(i) => i as f64,
            Self::Float(f) => f,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(i) => i.fmt(f),
            Self::Float(x) => x.fmt(f),
        }
    }
}

/// Reads items one after the other. Every method consumes what it returns, or fails and leaves the position undefined.
#[derive(Clone, Debug)]
pub struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    /// Over all of `bytes`.
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub const fn rest(&self) -> &'b [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// When something does.
    pub const fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::new("bytes after the last item")) }
    }

    /// The kind of the next item.
    ///
    /// # Errors
    /// At the end.
    pub fn peek(&self) -> Result<Major, Malformed> {
        let first = self.rest.first().ok_or(ENDS_EARLY)?;
        Ok(match first >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            6 => Major::Tag,
            _ => Major::Simple,
        })
    }

    fn take(&mut self, n: u64) -> Result<&'b [u8], Malformed> {
        let n = usize::try_from(n).map_err(|_| ENDS_EARLY)?;
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Major type and argument of the next head; not for major type 7, whose argument may be a float.
    #[inline]
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let [first] = self.fixed::<1>()?;
        let (argument, least) = match first & 0x1F {
            short @ 0..=23 => (u64::from(short), 0),
            24 => (u64::from(u8::from_be_bytes(self.fixed()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.fixed()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.fixed()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.fixed()?), 1 << 32),
            31 => return Err(Malformed::new("CBOR of indefinite length")),
            _ => return Err(Malformed::new("CBOR head is reserved")),
        };
        if argument < least {
            return Err(NOT_SHORTEST);
        }
        Ok((first >> 5, argument))
    }

    fn expect(&mut self, major: u8, reason: &'static str) -> Result<u64, Malformed> {
        match self.head()? {
            (m, argument) if m == major => Ok(argument),
            _ => Err(Malformed::new(reason)),
        }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn unsigned(&mut self) -> Result<u64, Malformed> {
        self.expect(0, "an unsigned integer is missing")
    }

    /// An unsigned integer that fits `T`.
    ///
    /// # Errors
    /// When the next item is something else or too large.
    pub fn uint<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.unsigned()?).map_err(|_| Malformed::new("an integer is out of range"))
    }

    /// An integer with sign.
    ///
    /// # Errors
    /// When the next item is something else or does not fit 64 bits with sign.
    pub fn int(&mut self) -> Result<i64, Malformed> {
        let (major, argument) = self.head()?;
        let argument = i64::try_from(argument).map_err(|_| Malformed::new("an integer is out of range"))?;
        match major {
            0 => Ok(argument),
            1 => Ok(-1 - argument),
            _ => Err(Malformed::new("an integer is missing")),
        }
    }

    /// A byte string.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        let n = self.expect(2, "a byte string is missing")?;
        self.take(n)
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// When the next item is something else or has another length.
    pub fn bytes_of<const N: usize>(&mut self) -> Result<&'b [u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed::new("a byte string has a wrong length"))
    }

    /// A text string.
    ///
    /// # Errors
    /// When the next item is something else or no UTF-8.
    pub fn text(&mut self) -> Result<&'b str, Malformed> {
        let n = self.expect(3, "a text string is missing")?;
        str::from_utf8(self.take(n)?).map_err(|_| Malformed::new("a text string is not UTF-8"))
    }

    /// The head of an array: how many items follow.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn array(&mut self) -> Result<u64, Malformed> {
        self.expect(4, "an array is missing")
    }

    /// The head of an array of exactly `n` items.
    ///
    /// # Errors
    /// When the next item is something else or has another length.
    pub fn array_of(&mut self, n: u64) -> Result<(), Malformed> {
        if self.array()? == n { Ok(()) } else { Err(Malformed::new("an array has a wrong length")) }
    }

    /// The head of a map: how many pairs follow.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn map(&mut self) -> Result<u64, Malformed> {
        self.expect(5, "a map is missing")
    }

    /// The head of a map whose keys are unsigned integers in strictly ascending order.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn keys(&mut self) -> Result<Keys, Malformed> {
        Ok(Keys { left: self.map()?, above: None })
    }

    /// A tag.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn tag(&mut self) -> Result<u64, Malformed> {
        self.expect(6, "a tag is missing")
    }

    /// True or false.
    ///
    /// # Errors
    /// When the next item is something else.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.fixed::<1>()? {
            [0xF4] => Ok(false),
            [0xF5] => Ok(true),
            _ => Err(Malformed::new("true or false is missing")),
        }
    }

    /// Consumes a null, if it comes next.
    pub fn null(&mut self) -> bool {
        match self.rest.split_first() {
            Some((0xF6, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A finite number: integer or float of any size. A float need not be the shortest.
    ///
    /// # Errors
    /// When the next item is something else, NaN or infinite.
    pub fn number(&mut self) -> Result<Number, Malformed> {
        let float = match *self.rest {
            [0xF9, a, b, ..] => {
                self.take(3)?;
                f64::from(half_to_single([a, b]))
            }
            [0xFA, a, b, c, d, ..] => {
                self.take(5)?;
                f64::from(f32::from_be_bytes([a, b, c, d]))
            }
            [0xFB, a, b, c, d, e, f, g, h, ..] => {
                self.take(9)?;
                f64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
            [0..=0x3B, ..] => return self.int().map(Number::Integer),
            [] => return Err(ENDS_EARLY),
            _ => return Err(Malformed::new("a number is missing")),
        };
        if float.is_finite() { Ok(Number::Float(float)) } else { Err(Malformed::new("a number is not finite")) }
    }

    /// Steps over the next item, whatever it is, checks that it is well formed, and returns its bytes.
    ///
    /// # Errors
    /// When it is not well formed, or has an indefinite length or a head that is not the shortest.
    pub fn item(&mut self) -> Result<&'b [u8], Malformed> {
        let start = self.rest;
        let mut left = 1u64;
        while left > 0 {
            left -= 1;
            let more = match self.peek()? {
                Major::Simple => {
                    self.simple()?;
                    0
                }
                Major::Text => {
                    self.text()?;
                    0
                }
                major => match (major, self.head()?.1) {
                    (Major::Bytes, n) => {
                        self.take(n)?;
                        0
                    }
                    (Major::Array, n) => n,
                    (Major::Map, n) => n.checked_mul(2).ok_or(ENDS_EARLY)?,
                    (Major::Tag, _) => 1,
                    _ => 0,
                },
            };
            // Every item is at least one byte long.
            left = left.checked_add(more).filter(|l| *l <= self.rest.len() as u64).ok_or(ENDS_EARLY)?;
        }
        start.get(..start.len() - self.rest.len()).ok_or(ENDS_EARLY)
    }

    fn simple(&mut self) -> Result<(), Malformed> {
        let [first] = self.fixed::<1>()?;
        match first & 0x1F {
            0..=23 => Ok(()),
            24 => match self.fixed::<1>()? {
                [32..=255] => Ok(()),
                _ => Err(NOT_SHORTEST),
            },
            25 => self.take(2).map(drop),
            26 => self.take(4).map(drop),
            27 => self.take(8).map(drop),
            _ => Err(Malformed::new("CBOR head is reserved")),
        }
    }
}

/// The keys of a map, read one by one: unsigned, strictly ascending.
#[derive(Debug)]
pub struct Keys {
    left: u64,
    above: Option<u64>,
}

impl Keys {
    /// The next key; `None` after the last. The caller reads the value before it asks again.
    ///
    /// # Errors
    /// When the key is no unsigned integer, repeated, or out of order.
    pub fn next(&mut self, from: &mut Reader<'_>) -> Result<Option<u64>, Malformed> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let key = from.unsigned()?;
        if self.above.is_some_and(|above| key <= above) {
            return Err(Malformed::new("map keys repeat or are out of order"));
        }
        self.above = Some(key);
        Ok(Some(key))
    }
}

/// Writes items one after the other into a slice.
pub struct Writer<'b> {
    encoder: minicbor::Encoder<Cursor<&'b mut [u8]>>,
}

type Written = Result<(), SealError>;

fn fits<T>(result: Result<T, minicbor::encode::Error<EndOfSlice>>) -> Written {
    result.map(drop).map_err(|_| SealError::BufferTooSmall)
}

impl<'b> Writer<'b> {
    /// Over all of `out`.
    pub fn new(out: &'b mut [u8]) -> Self {
        Self { encoder: minicbor::Encoder::new(Cursor::new(out)) }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.encoder.writer().position()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// When the buffer is full; so in all methods here.
    pub fn unsigned(&mut self, value: impl Into<u64>) -> Written {
        fits(self.encoder.u64(value.into()))
    }

    /// An integer with sign.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn int(&mut self, value: impl Into<i64>) -> Written {
        fits(self.encoder.i64(value.into()))
    }

    /// A byte string.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn bytes(&mut self, value: &[u8]) -> Written {
        fits(self.encoder.bytes(value))
    }

    /// The head of a byte string of `n` bytes.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn bytes_head(&mut self, n: usize) -> Written {
        fits(self.encoder.bytes_len(n as u64))
    }

    /// A text string.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn text(&mut self, value: &str) -> Written {
        fits(self.encoder.str(value))
    }

    /// The head of an array of `n` items.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn array(&mut self, n: usize) -> Written {
        fits(self.encoder.array(n as u64))
    }

    /// The head of a map of `n` pairs.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn map(&mut self, n: usize) -> Written {
        fits(self.encoder.map(n as u64))
    }

    /// A tag.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn tag(&mut self, tag: u64) -> Written {
        fits(self.encoder.tag(minicbor::data::Tag::new(tag)))
    }

    /// True or false.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn bool(&mut self, value: bool) -> Written {
        fits(self.encoder.bool(value))
    }

    /// Null.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn null(&mut self) -> Written {
        fits(self.encoder.null())
    }

    /// A finite number in its shortest form: an integer if it is one, else the shortest float that keeps the value.
    ///
    /// # Errors
    /// When the buffer is full, or the number is not finite.
    pub fn number(&mut self, value: Number) -> Written {
        let float = match value {
            Number::Integer(i) => return self.int(i),
            Number::Float(f) => f,
        };
        if !float.is_finite() {
            return Err(SealError::NotFinite);
        }
        if let Some(integer) = integral(float) {
            return self.int(integer);
        }
        let single = float as f32;
        if f64::from(single) != float {
            return fits(self.encoder.f64(float));
        }
        let mut short = [0; 3];
        let half = minicbor::Encoder::new(Cursor::new(&mut short[..])).f16(single).is_ok();
        let [_, a, b] = short;
        if half && half_to_single([a, b]) == single {
            fits(self.encoder.f16(single))
        } else {
            fits(self.encoder.f32(single))
        }
    }

    /// Items that are encoded already.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn encoded(&mut self, items: &[u8]) -> Written {
        use minicbor::encode::Write;
        self.encoder.writer_mut().write_all(items).map_err(|_| SealError::BufferTooSmall)
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} bytes)", self.len())
    }
}

/// The integer that a float is, if it is one that 53 bits hold; not for -0.0, which no integer is.
fn integral(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    if !(-LIMIT..=LIMIT).contains(&float) || (float == 0.0 && float.is_sign_negative()) {
        return None;
    }
    let integer = float as i64;
    (integer as f64 == float).then_some(integer)
}

fn half_to_single(bytes: [u8; 2]) -> f32 {
    minicbor::Decoder::new(&[0xF9, bytes[0], bytes[1]]).f16().unwrap_or(f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut Writer<'_>) -> Written) -> ([u8; 16], usize) {
        let mut out = [0; 16];
        let mut w = Writer::new(&mut out);
        f(&mut w).unwrap();
        let n = w.len();
        (out, n)
    }

    #[test]
    fn a_head_that_is_not_the_shortest_is_refused() {
        for bytes in
            [&[0x18, 23][..], &[0x19, 0, 255], &[0x1A, 0, 0, 255, 255], &[0x1B, 0, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(Reader::new(bytes).unsigned(), Err(NOT_SHORTEST));
            assert_eq!(Reader::new(bytes).item(), Err(NOT_SHORTEST));
        }
        assert_eq!(Reader::new(&[0x18, 24]).unsigned(), Ok(24));
    }

    #[test]
    fn indefinite_lengths_are_refused() {
        for bytes in [&[0x9F, 0xFF][..], &[0xBF, 0xFF], &[0x5F, 0xFF], &[0x7F, 0xFF]] {
            assert!(Reader::new(bytes).item().is_err());
        }
    }

    #[test]
    fn repeated_or_unsorted_keys_are_refused() {
        let read = |bytes: &[u8]| {
            let mut r = Reader::new(bytes);
            let mut keys = r.keys()?;
            while keys.next(&mut r)?.is_some() {
                r.item()?;
            }
            r.end()
        };
        assert_eq!(read(&[0xA2, 1, 0, 2, 0]), Ok(()));
        assert!(read(&[0xA2, 1, 0, 1, 0]).is_err());
        assert!(read(&[0xA2, 2, 0, 1, 0]).is_err());
        assert!(read(&[0xA1, 1, 0, 2]).is_err());
    }

    #[test]
    fn an_item_larger_than_the_bytes_is_refused_at_once() {
        assert!(Reader::new(&[0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).item().is_err());
        assert!(Reader::new(&[0xBB, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).item().is_err());
        assert!(Reader::new(&[0x5A, 0xFF, 0xFF, 0xFF, 0xFF, 1]).item().is_err());
        assert_eq!(Reader::new(&[0x82, 0x01, 0xA1, 0x61, 0x61, 0xF6, 9]).item().unwrap().len(), 6);
    }

    #[test]
    fn a_float_takes_the_shortest_form_that_keeps_it() {
        for (value, bytes) in [
            (21.5, &[0xF9, 0x4D, 0x60][..]),
            (1234.5, &[0xFA, 0x44, 0x9A, 0x50, 0x00]),
            (23.1, &[0xFB, 0x40, 0x37, 0x19, 0x99, 0x99, 0x99, 0x99, 0x9A]),
            (-3.0, &[0x22]),
            (101_325.0, &[0x1A, 0, 1, 0x8B, 0xCD]),
            (-0.0, &[0xF9, 0x80, 0]),
            (5.960_464_477_539_063e-8, &[0xF9, 0, 1]),
        ] {
            let (out, n) = written(|w| w.number(Number::Float(value)));
            assert_eq!(&out[..n], bytes, "{value}");
            assert_eq!(Reader::new(bytes).number().unwrap().as_f64(), value);
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_neither_read_nor_written() {
        assert!(Reader::new(&[0xF9, 0x7E, 0]).number().is_err());
        assert!(Reader::new(&[0xFA, 0x7F, 0x80, 0, 0]).number().is_err());
        let mut out = [0; 9];
        assert_eq!(Writer::new(&mut out).number(Number::Float(f64::INFINITY)), Err(SealError::NotFinite));
    }

    #[test]
    fn a_full_buffer_is_said_to_be_full() {
        let mut out = [0; 2];
        assert_eq!(Writer::new(&mut out).bytes(&[1, 2]), Err(SealError::BufferTooSmall));
    }

    #[test]
    fn integers_keep_their_sign_and_range() {
        for value in [0, 23, 24, -1, -24, -25, i64::MAX, i64::MIN] {
            let (out, n) = written(|w| w.int(value));
            assert_eq!(Reader::new(&out[..n]).int(), Ok(value));
        }
        assert!(Reader::new(&[0x3B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).int().is_err());
    }
}
