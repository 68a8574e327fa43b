//! SenML packs in CBOR (RFC 8428 6).
//!
//! Reading is strict where the RFC is (labels are integers, one value, no duplicates, definite lengths, finite numbers)
//! and free where other encoders are free: labels in any order, floats of any size, unknown labels ignored unless they
//! must be understood. Writing is deterministic CBOR.

use crate::error::SealError;
use crate::reading::Value;
use crate::wire::cbor::{Element, List, Major, Malformed, Number, Reader, Writer};

/// The SenML version that a pack without `bver` has, and the highest that is understood.
const VERSION: u8 = 10;
/// Pairs in one record, at most.
const PAIRS: u64 = 32;
/// Times below this are relative to now (RFC 8428 4.5.3).
const ABSOLUTE: f64 = 268_435_456.0;
const TOO_LONG: Malformed = Malformed::new("SenML: a name longer than 128 bytes, or a unit longer than 64");

/// Where names start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseName {
    /// At the device: bn is `urn:dev:mac:<did>:` unless the pack says otherwise (docs/protocol.md 7).
    Implied,
    /// In the pack alone: a record without any name is refused.
    Required,
}

/// A pack: one or more records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pack<'b> {
    fields: List<'b, Fields<'b>>,
}

impl<'b> Pack<'b> {
    /// Reads a pack, and nothing after it, and resolves it once to see that it can be.
    ///
    /// # Errors
    /// When it is no valid pack: the reason says which rule it breaks.
    pub fn parse(bytes: &'b [u8], base: BaseName) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        if r.peek()? != Major::Array {
            return Err(Malformed::new("SenML: a pack is an array"));
        }
        let pack = Self { fields: List::parse(&mut r)? };
        r.end()?;
        if pack.fields.is_empty() {
            return Err(Malformed::new("SenML: a pack has at least one record"));
        }
        let mut bases = Bases::default();
        for fields in &pack.fields {
            bases.resolve(&fields, base)?;
        }
        Ok(pack)
    }

    /// The records as they stand in the pack.
    pub fn fields(&self) -> impl Iterator<Item = Fields<'b>> + use<'b> {
        self.fields.iter()
    }

    /// The records resolved (RFC 8428 4.6): base values are applied, relative times stay relative.
    pub fn records(&self) -> impl Iterator<Item = Record<'b>> + use<'b> {
        let mut bases = Bases::default();
        // `Pack::parse` resolved each of them; under `Implied` nothing is refused for its name.
        self.fields.iter().filter_map(move |fields| bases.resolve(&fields, BaseName::Implied).ok().flatten())
    }

    /// Writes a pack of these records in deterministic CBOR, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small, a number is not finite, or a name or a unit too long.
    pub fn emit(records: &[Fields<'_>], out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(records.len())?;
        records.iter().try_for_each(|r| r.emit(&mut w))?;
        Ok(w.len())
    }
}

/// A resolved record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'b> {
    /// bn, empty when it is implied.
    pub base_name: &'b str,
    /// n; the full name is `base_name` and this, one after the other.
    pub name: &'b str,
    /// Unit.
    pub unit: Option<&'b str>,
    /// Value; `None` only beside a sum.
    pub value: Option<Value<'b>>,
    /// Integrated sum.
    pub sum: Option<Number>,
    /// Seconds: Unix time, or an offset from now when [`Record::is_time_relative`].
    pub time: Number,
    /// Seconds until the next reading, at most.
    pub update: Option<Number>,
    /// SenML version, when it is not 10.
    pub version: Option<u8>,
}

impl Record<'_> {
    /// Whether `time` counts from when the reading was made.
    pub fn is_time_relative(&self) -> bool {
        self.time.as_f64() < ABSOLUTE
    }
}

/// A record as it stands in a pack. Everything is optional; labels and order are those of deterministic CBOR.
///
/// A base field holds for all records behind it: without [`Fields::NAME`] and [`Fields::UNIT`] a few bytes for each record would
/// repeat a long one as often as they like, wherever records are resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fields<'b> {
    /// 0, n: name.
    pub name: Option<&'b str>,
    /// 1, u: unit.
    pub unit: Option<&'b str>,
    /// 2, 3, 4 or 8: v, vs, vb or vd.
    pub value: Option<Value<'b>>,
    /// 5, s: sum.
    pub sum: Option<Number>,
    /// 6, t: time.
    pub time: Option<Number>,
    /// 7, ut: update time.
    pub update: Option<Number>,
    /// -1, bver: version.
    pub base_version: Option<u8>,
    /// -2, bn: base name.
    pub base_name: Option<&'b str>,
    /// -3, bt: base time.
    pub base_time: Option<Number>,
    /// -4, bu: base unit.
    pub base_unit: Option<&'b str>,
    /// -5, bv: base value.
    pub base_value: Option<Number>,
    /// -6, bs: base sum.
    pub base_sum: Option<Number>,
}

impl Fields<'_> {
    /// Bytes of a full name, base name and name one after the other, at most (docs/protocol.md 7).
    pub const NAME: usize = 128;
    /// Bytes of a unit, at most.
    pub const UNIT: usize = 64;

    fn is_too_long(&self) -> bool {
        let over = |text: Option<&str>, most: usize| text.is_some_and(|t| t.len() > most);
        over(self.name, Self::NAME)
            || over(self.base_name, Self::NAME)
            || over(self.unit, Self::UNIT)
            || over(self.base_unit, Self::UNIT)
    }
}

impl<'b> Element<'b> for Fields<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        if r.peek()? != Major::Map {
            return Err(Malformed::new("SenML: a record is a map"));
        }
        let pairs = r.map()?;
        if pairs > PAIRS {
            return Err(Malformed::new("SenML: more than 32 fields in a record"));
        }
        let start = r.clone();
        let mut fields = Self::default();
        let mut seen = 0u32;
        for before in 0..pairs {
            if r.peek()? == Major::Text {
                let rest = r.rest();
                let label = r.text()?;
                if label.ends_with('_') {
                    return Err(Malformed::new("SenML: a field that must be understood is unknown"));
                }
                if LABELS.contains(&label) {
                    return Err(Malformed::new("SenML: standard labels are integers in CBOR"));
                }
                once(&start, before, rest, r.rest())?;
                r.item()?;
                continue;
            }
            let rest = r.rest();
            let label = r.int()?;
            if !(-6..=8).contains(&label) {
                once(&start, before, rest, r.rest())?;
                r.item()?;
                continue;
            }
            let bit = 1u32 << (label + 6);
            if seen & bit != 0 {
                return Err(Malformed::new("SenML: a label is repeated"));
            }
            seen |= bit;
            let mut value = |value| {
                if fields.value.replace(value).is_some() {
                    return Err(Malformed::new("SenML: a record has one value at most"));
                }
                Ok(())
            };
            match label {
                0 => fields.name = Some(r.text()?),
                1 => fields.unit = Some(r.text()?),
                2 => value(Value::Number(number(r)?))?,
                3 => value(Value::Text(r.text()?))?,
                4 => value(Value::Bool(r.bool()?))?,
                5 => fields.sum = Some(number(r)?),
                6 => fields.time = Some(number(r)?),
                7 => fields.update = Some(number(r)?),
                8 => value(Value::Bytes(r.bytes()?))?,
                -1 => {
                    let version = r.uint()?;
                    if version > VERSION {
                        return Err(Malformed::new("SenML: a version above 10"));
                    }
                    fields.base_version = Some(version);
                }
                -2 => fields.base_name = Some(r.text()?),
                -3 => fields.base_time = Some(number(r)?),
                -4 => fields.base_unit = Some(r.text()?),
                -5 => fields.base_value = Some(number(r)?),
                _ => fields.base_sum = Some(number(r)?),
            }
        }
        if fields.is_too_long() {
            return Err(TOO_LONG);
        }
        Ok(fields)
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        if self.is_too_long() {
            return Err(SealError::TooLong);
        }
        let present = [
            self.name.is_some(),
            self.unit.is_some(),
            self.value.is_some(),
            self.sum.is_some(),
            self.time.is_some(),
            self.update.is_some(),
            self.base_version.is_some(),
            self.base_name.is_some(),
            self.base_time.is_some(),
            self.base_unit.is_some(),
            self.base_value.is_some(),
            self.base_sum.is_some(),
        ];
        w.map(present.into_iter().map(usize::from).sum())?;
        text(w, 0, self.name)?;
        text(w, 1, self.unit)?;
        match self.value {
            Some(Value::Number(v)) => float(w, 2, Some(v))?,
            Some(Value::Text(v)) => text(w, 3, Some(v))?,
            Some(Value::Bool(v)) => {
                w.int(4)?;
                w.bool(v)?;
            }
            Some(Value::Bytes(_)) | None => {}
        }
        float(w, 5, self.sum)?;
        float(w, 6, self.time)?;
        float(w, 7, self.update)?;
        if let Some(Value::Bytes(v)) = self.value {
            w.int(8)?;
            w.bytes(v)?;
        }
        if let Some(version) = self.base_version {
            w.int(-1)?;
            w.unsigned(version)?;
        }
        text(w, -2, self.base_name)?;
        float(w, -3, self.base_time)?;
        text(w, -4, self.base_unit)?;
        float(w, -5, self.base_value)?;
        float(w, -6, self.base_sum)
    }
}

/// Standard labels in their JSON spelling: as text they are refused, since a JSON encoder was taken for a CBOR one.
const LABELS: [&str; 15] = ["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"];

fn text(w: &mut Writer<'_>, label: i8, value: Option<&str>) -> Result<(), SealError> {
    let Some(value) = value else { return Ok(()) };
    w.int(label)?;
    w.text(value)
}

fn float(w: &mut Writer<'_>, label: i8, value: Option<Number>) -> Result<(), SealError> {
    let Some(value) = value else { return Ok(()) };
    w.int(label)?;
    w.number(value)
}

/// An unknown label (the bytes from `at` to `after`) must not stand among the `before` pairs that begin at `start`.
fn once(start: &Reader<'_>, before: u64, at: &[u8], after: &[u8]) -> Result<(), Malformed> {
    let label = at.get(..at.len() - after.len()).unwrap_or_default();
    let mut earlier = start.clone();
    for _ in 0..before {
        if earlier.item()? == label {
            return Err(Malformed::new("SenML: a label is repeated"));
        }
        earlier.item()?;
    }
    Ok(())
}

/// A number: integer, float, or decimal fraction (tag 4, RFC 8949 3.4.4) that a double holds exactly rounded.
fn number(r: &mut Reader<'_>) -> Result<Number, Malformed> {
    const INEXACT: Malformed = Malformed::new("SenML: a decimal fraction out of range");
    if r.peek()? != Major::Tag {
        return r.number();
    }
    if r.tag()? != 4 {
        return Err(Malformed::new("SenML: a number is missing"));
    }
    r.array_of(2)?;
    let (exponent, mantissa) = (r.int()?, r.int()?);
    // Below these limits both factors are exact, so that the result is rounded once.
    if mantissa.unsigned_abs() > 1 << 53 || exponent.unsigned_abs() > 22 {
        return Err(INEXACT);
    }
    let power = (0..exponent.unsigned_abs()).fold(1.0f64, |p, _| p * 10.0);
    let mantissa = mantissa as f64;
    Ok(Number::Float(if exponent < 0 { mantissa / power } else { mantissa * power }))
}

#[derive(Default)]
struct Bases<'b> {
    name: &'b str,
    time: Option<Number>,
    unit: Option<&'b str>,
    value: Option<Number>,
    sum: Option<Number>,
    version: Option<u8>,
}

impl<'b> Bases<'b> {
    /// Takes over the base fields, and gives the record if it is more than those.
    fn resolve(&mut self, f: &Fields<'b>, base: BaseName) -> Result<Option<Record<'b>>, Malformed> {
        if f.base_version.is_some_and(|v| self.version.is_some_and(|earlier| earlier != v)) {
            return Err(Malformed::new("SenML: versions of one pack differ"));
        }
        self.version = f.base_version.or(self.version);
        self.name = f.base_name.unwrap_or(self.name);
        self.time = f.base_time.or(self.time);
        self.unit = f.base_unit.or(self.unit);
        self.value = f.base_value.or(self.value);
        self.sum = f.base_sum.or(self.sum);
        let regular = [f.name.is_some(), f.unit.is_some(), f.value.is_some(), f.sum.is_some(), f.time.is_some()];
        if !regular.contains(&true) && f.update.is_none() {
            return Ok(None);
        }
        // RFC 8428 4.5.4: of base value and value, and of base sum and sum, a missing one is zero.
        let value = match (f.value, self.value) {
            (Some(Value::Number(own)), base) => Some(Value::Number(sum(base, own)?)),
            (None, Some(base)) => Some(Value::Number(base)),
            (own, _) => own,
        };
        let total = match (f.sum, self.sum) {
            (Some(own), base) => Some(sum(base, own)?),
            (None, base) => base,
        };
        if value.is_none() && total.is_none() {
            return Err(Malformed::new("SenML: a record without value and sum"));
        }
        let name = f.name.unwrap_or_default();
        check_name(self.name, name, base)?;
        Ok(Some(Record {
            base_name: self.name,
            name,
            unit: f.unit.or(self.unit),
            value,
            sum: total,
            time: sum(self.time, f.time.unwrap_or(Number::Integer(0)))?,
            update: f.update,
            version: self.version.filter(|v| *v != VERSION),
        }))
    }
}

/// RFC 8428 4.5.1: letters, digits and `- : . / _`, beginning with a letter or digit.
fn check_name(base_name: &str, name: &str, base: BaseName) -> Result<(), Malformed> {
    if base_name.len() + name.len() > Fields::NAME {
        return Err(TOO_LONG);
    }
    let mut characters = base_name.bytes().chain(name.bytes()).peekable();
    match (characters.peek(), base) {
        (None, BaseName::Required) => return Err(Malformed::new("SenML: a record without any name")),
        (Some(first), _) if !first.is_ascii_alphanumeric() && !base_name.is_empty() => {
            return Err(Malformed::new("SenML: a name begins with a letter or digit"));
        }
        (Some(first), BaseName::Required) if !first.is_ascii_alphanumeric() => {
            return Err(Malformed::new("SenML: a name begins with a letter or digit"));
        }
        _ => {}
    }
    if characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b':' | b'.' | b'/' | b'_')) {
        Ok(())
    } else {
        Err(Malformed::new("SenML: a character that no name has"))
    }
}

fn sum(base: Option<Number>, own: Number) -> Result<Number, Malformed> {
    let total = match (base, own) {
        (None, own) => return Ok(own),
        (Some(Number::Integer(a)), Number::Integer(b)) if a.checked_add(b).is_some() => {
            return Ok(Number::Integer(a.saturating_add(b)));
        }
        (Some(a), b) => a.as_f64() + b.as_f64(),
    };
    if total.is_finite() { Ok(Number::Float(total)) } else { Err(Malformed::new("SenML: a sum is not finite")) }
}

/// Puts a pack together on a device, record by record, in a buffer of its own.
///
/// ```
/// use fivefold_core::reading::Reading;
/// let mut buffer = [0; 64];
/// let mut reading = Reading::new(&mut buffer);
/// reading.measure("temp", "Cel", 21.5)?.measure("bat", "%EL", 87)?;
/// assert_eq!(reading.finish()?.len(), 31);
/// # Ok::<(), fivefold_core::error::SealError>(())
/// ```
#[derive(Debug)]
pub struct Reading<'b> {
    out: &'b mut [u8],
    len: usize,
    count: u8,
    // Bytes of the base name that holds.
    base: usize,
}

impl<'b> Reading<'b> {
    /// Records in one pack, at most: its array head stays one byte.
    pub const RECORDS: u8 = 23;

    /// An empty pack, to be written to `out`.
    pub const fn new(out: &'b mut [u8]) -> Self {
        Self { out, len: 1, count: 0, base: 0 }
    }

    /// Adds a measured number.
    ///
    /// # Errors
    /// As [`Reading::push`].
    pub fn measure(&mut self, name: &str, unit: &str, value: impl Into<Number>) -> Result<&mut Self, SealError> {
        self.push(&Fields {
            name: Some(name),
            unit: Some(unit),
            value: Some(Value::Number(value.into())),
            ..Fields::default()
        })
    }

    /// Adds a record with what it has.
    ///
    /// # Errors
    /// When the buffer is full, a number is not finite, a name or a unit is longer than anybody takes ([`Fields::NAME`],
    /// [`Fields::UNIT`]), or the pack has [`Reading::RECORDS`] records: it then stays as it was.
    pub fn push(&mut self, fields: &Fields<'_>) -> Result<&mut Self, SealError> {
        let base = fields.base_name.map_or(self.base, str::len);
        let is_too_long = base + fields.name.map_or(0, str::len) > Fields::NAME;
        if self.count == Self::RECORDS || is_too_long {
            return Err(SealError::TooLong);
        }
        let mut w = Writer::new(self.out.get_mut(self.len..).ok_or(SealError::BufferTooSmall)?);
        fields.emit(&mut w)?;
        self.len += w.len();
        self.count += 1;
        self.base = base;
        Ok(self)
    }

    /// The pack.
    ///
    /// # Errors
    /// When nothing was added: an empty pack is none.
    pub fn finish(self) -> Result<&'b [u8], SealError> {
        let Self { out, len, count, .. } = self;
        if count == 0 {
            return Err(SealError::BufferTooSmall);
        }
        *out.first_mut().ok_or(SealError::BufferTooSmall)? = 0x80 | count;
        out.get(..len).ok_or(SealError::BufferTooSmall)
    }
}
