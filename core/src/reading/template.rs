//! Template rows: an id that a device type registered, then values in the order of its columns (docs/protocol.md 7).

use crate::error::SealError;
use crate::reading::Value;
use crate::suite::sha256;
use crate::wire::cbor::{Element, Major, Malformed, Reader, Writer};

/// A row: `[id, value, ..]`, null where one is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Template<'b> {
    id: u64,
    count: usize,
    values: &'b [u8],
}

impl<'b> Template<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is no array that starts with an unsigned integer, or a value is neither null, number, text, bytes nor
    /// true or false.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let n = r.array()?.checked_sub(1).ok_or(Malformed::new("template: the id is missing"))?;
        let id = r.unsigned()?;
        let values = r.rest();
        for _ in 0..n {
            value(&mut r)?;
        }
        r.end()?;
        // Each value was at least one byte long.
        Ok(Self { id, count: usize::try_from(n).unwrap_or(values.len()), values })
    }

    /// Writes a row, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small, or a number is not finite.
    pub fn emit(id: u64, values: &[Option<Value<'_>>], out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(1 + values.len())?;
        w.unsigned(id)?;
        for value in values {
            match value {
                None => w.null()?,
                Some(Value::Bool(b)) => w.bool(*b)?,
                Some(Value::Bytes(bytes)) => w.bytes(bytes)?,
                Some(Value::Number(n)) => w.number(*n)?,
                Some(Value::Text(text)) => w.text(text)?,
            }
        }
        Ok(w.len())
    }

    /// Which template.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// How many values, the missing ones counted.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no value at all.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order; `None` for a missing one.
    pub fn values(&self) -> impl Iterator<Item = Option<Value<'b>>> + Clone + use<'b> {
        let mut r = Reader::new(self.values);
        // `Template::parse` checked each of them.
        (0..self.count).map_while(move |_| value(&mut r).ok())
    }
}

fn value<'b>(r: &mut Reader<'b>) -> Result<Option<Value<'b>>, Malformed> {
    if r.null() {
        return Ok(None);
    }
    Ok(Some(match r.peek()? {
        Major::Bytes => Value::Bytes(r.bytes()?),
        Major::Text => Value::Text(r.text()?),
        Major::Simple if matches!(r.rest(), [0xF4 | 0xF5, ..]) => Value::Bool(r.bool()?),
        _ => Value::Number(r.number()?),
    }))
}

/// What a device type registered: `[id, [name, unit or null], ..]`, one pair for each column.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition<'b> {
    /// Which template.
    pub id: u64,
    columns: &'b [u8],
    count: usize,
    hash: [u8; 32],
}

/// One column of a template: `[name, unit or null]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'b> {
    /// Name of the value, relative to the device.
    pub name: &'b str,
    /// Its unit (RFC 8428 12.1), if it has one.
    pub unit: Option<&'b str>,
}

impl<'b> Element<'b> for Column<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        let name = r.text()?;
        Ok(Self { name, unit: if r.null() { None } else { Some(r.text()?) } })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.text(self.name)?;
        match self.unit {
            Some(unit) => w.text(unit),
            None => w.null(),
        }
    }
}

impl<'b> Definition<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let n = r.array()?.checked_sub(1).ok_or(Malformed::new("template: the id is missing"))?;
        let id = r.unsigned()?;
        let columns = r.rest();
        for _ in 0..n {
            Column::parse(&mut r)?;
        }
        r.end()?;
        Ok(Self { id, columns, count: usize::try_from(n).unwrap_or(columns.len()), hash: sha256(&[bytes]) })
    }

    /// Writes one, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(id: u64, columns: &[Column<'_>], out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(1 + columns.len())?;
        w.unsigned(id)?;
        columns.iter().try_for_each(|c| c.emit(&mut w))?;
        Ok(w.len())
    }

    /// SHA-256 of its bytes: by this it is registered.
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The columns in order.
    pub fn columns(&self) -> impl Iterator<Item = Column<'b>> + Clone + use<'b> {
        let mut r = Reader::new(self.columns);
        // `Definition::parse` checked each of them.
        (0..self.count).map_while(move |_| Column::parse(&mut r).ok())
    }

    /// The values of a row with their columns, the missing ones left out.
    ///
    /// # Errors
    /// When the row belongs to another template, or has another number of values.
    pub fn resolve(
        &self,
        row: &Template<'b>,
    ) -> Result<impl Iterator<Item = (Column<'b>, Value<'b>)> + use<'b>, Malformed> {
        if row.id != self.id || row.count != self.count {
            return Err(Malformed::new("template: the row does not fit its definition"));
        }
        Ok(self.columns().zip(row.values()).filter_map(|(column, value)| Some((column, value?))))
    }
}
