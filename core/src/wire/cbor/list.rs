//! Arrays of one kind of element: read where they lie, or written from a slice.

use core::fmt;
use core::marker::PhantomData;

use crate::error::SealError;
use crate::wire::cbor::{ENDS_EARLY, Malformed, Reader, Writer};

/// Something that stands in a [`List`].
pub trait Element<'b>: Clone {
    /// Reads one.
    ///
    /// # Errors
    /// When it does not have its shape.
    fn parse(from: &mut Reader<'b>) -> Result<Self, Malformed>;

    /// Writes one.
    ///
    /// # Errors
    /// When the buffer is full.
    fn emit(&self, to: &mut Writer<'_>) -> Result<(), SealError>;
}

/// A CBOR array of one kind of element: as it came, or as a slice that is to be written.
pub struct List<'b, T> {
    form: Form<'b, T>,
}

enum Form<'b, T> {
    Encoded { items: &'b [u8], count: usize, of: PhantomData<fn() -> T> },
    Slice(&'b [T]),
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for List<'_, T> {}
impl<T> Clone for Form<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Form<'_, T> {}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl<'b, T> List<'b, T> {
    /// Of these elements.
    pub const fn of(elements: &'b [T]) -> Self {
        Self { form: Form::Slice(elements) }
    }

    /// How many.
    pub const fn len(&self) -> usize {
        match self.form {
            Form::Encoded { count, .. } => count,
            Form::Slice(s) => s.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'b, T: Element<'b>> List<'b, T> {
    /// Reads an array and checks every element.
    ///
    /// # Errors
    /// When it is no array, or an element does not have its shape.
    pub fn parse(from: &mut Reader<'b>) -> Result<Self, Malformed> {
        let count = from.array()?;
        let start = from.rest();
        for _ in 0..count {
            T::parse(from)?;
        }
        let items = start.get(..start.len() - from.rest().len()).ok_or(ENDS_EARLY)?;
        let count = usize::try_from(count).map_err(|_| ENDS_EARLY)?;
        Ok(Self { form: Form::Encoded { items, count, of: PhantomData } })
    }

    /// Writes the array.
    ///
    /// # Errors
    /// When the buffer is full.
    pub fn emit(&self, to: &mut Writer<'_>) -> Result<(), SealError> {
        to.array(self.len())?;
        match self.form {
            Form::Encoded { items, .. } => to.encoded(items),
            Form::Slice(s) => s.iter().try_for_each(|e| e.emit(to)),
        }
    }

    /// The elements, in order.
    pub fn iter(&self) -> Elements<'b, T> {
        match self.form {
            Form::Encoded { items, .. } => Elements { reader: Reader::new(items), slice: [].iter() },
            Form::Slice(s) => Elements { reader: Reader::new(&[]), slice: s.iter() },
        }
    }
}

impl<'b, T: Element<'b>> IntoIterator for &List<'b, T> {
    type Item = T;
    type IntoIter = Elements<'b, T>;
    fn into_iter(self) -> Elements<'b, T> {
        self.iter()
    }
}

impl<'b, T: Element<'b> + PartialEq> PartialEq for List<'b, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'b, T: Element<'b> + fmt::Debug> fmt::Debug for List<'b, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator over the elements of a [`List`].
#[derive(Debug)]
pub struct Elements<'b, T> {
    reader: Reader<'b>,
    slice: core::slice::Iter<'b, T>,
}

impl<'b, T: Element<'b>> Iterator for Elements<'b, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        if let Some(element) = self.slice.next() {
            return Some(element.clone());
        }
        if self.reader.is_at_end() {
            return None;
        }
        // `List::parse` checked each of them.
        T::parse(&mut self.reader).ok()
    }
}
