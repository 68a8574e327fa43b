//! DER (X.690 10), as strictly as a proof needs it: tags of one byte, definite lengths in their shortest form.

/// What is not DER, or not what should stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotDer;

/// Tags that occur.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// `[0]`, constructed.
    pub(crate) const CONTEXT_0: u8 = 0xA0;
    /// `[1]`, constructed.
    pub(crate) const CONTEXT_1: u8 = 0xA1;
}

/// One element: its tag, its contents, and all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'b> {
    pub(crate) tag: u8,
    pub(crate) contents: &'b [u8],
    pub(crate) whole: &'b [u8],
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Der<'b> {
    rest: &'b [u8],
}

impl<'b> Der<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    pub(crate) const fn end(&self) -> Result<(), NotDer> {
        if self.rest.is_empty() { Ok(()) } else { Err(NotDer) }
    }

    /// Whether the next element bears this tag.
    pub(crate) fn is_next(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'b>, NotDer> {
        let start = self.rest;
        let (&[tag, first], mut rest) = start.split_first_chunk().ok_or(NotDer)?;
        // Tags of more than one byte do not occur.
        if tag & 0x1F == 0x1F {
            return Err(NotDer);
        }
        let length = match first {
            0..=0x7F => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7F)).ok_or(NotDer)?;
                rest = after;
                let length = bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                if bytes.first() == Some(&0) || length < 0x80 {
                    return Err(NotDer);
                }
                length
            }
            _ => return Err(NotDer),
        };
        let (contents, after) = rest.split_at_checked(length).ok_or(NotDer)?;
        self.rest = after;
        let whole = start.get(..start.len() - after.len()).ok_or(NotDer)?;
        Ok(Element { tag, contents, whole })
    }

    /// The next element, which must bear this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<Element<'b>, NotDer> {
        self.any().and_then(|e| if e.tag == tag { Ok(e) } else { Err(NotDer) })
    }

    /// The inside of the next element, which must bear this tag.
    pub(crate) fn inside(&mut self, tag: u8) -> Result<Self, NotDer> {
        Ok(Self::new(self.take(tag)?.contents))
    }

    /// The next element, if it bears this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'b>>, NotDer> {
        if self.is_next(tag) { self.take(tag).map(Some) } else { Ok(None) }
    }
}

/// Tag and length.
pub(crate) fn head(tag: u8, length: usize) -> Vec<u8> {
    match length {
        0..=0x7F => vec![tag, length as u8],
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = bytes.get(length.leading_zeros() as usize / 8..).unwrap_or_default();
            [&[tag, 0x80 | bytes.len() as u8], bytes].concat()
        }
    }
}

/// An element of these contents.
pub(crate) fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    [head(tag, contents.len()), contents].concat()
}

/// SubjectPublicKeyInfo of a certificate, by its place: the sixth element of what is signed, the version not counted.
pub(crate) fn spki_of(certificate: &[u8]) -> Result<&[u8], NotDer> {
    let mut tbs = Der::new(certificate).inside(tag::SEQUENCE)?.inside(tag::SEQUENCE)?;
    tbs.optional(tag::CONTEXT_0)?;
    for _ in 0..5 {
        tbs.any()?;
    }
    tbs.any().map(|e| e.whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_only_in_its_shortest_form() {
        for n in [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x1_0000] {
            let bytes = element(tag::OCTET_STRING, &[&vec![7; n]]);
            let mut der = Der::new(&bytes);
            assert_eq!(der.take(tag::OCTET_STRING).unwrap().contents.len(), n);
            assert!(der.is_at_end() && Der::new(&bytes[..bytes.len() - 1]).any().is_err());
        }
        for bytes in [&[4, 0x81, 0x7F][..], &[4, 0x82, 0, 0x80], &[4, 0x80, 0, 0], &[0x1F, 0x81, 0], &[4], &[]] {
            let longer = [bytes, &[0; 300]].concat();
            assert!(bytes.is_empty() || bytes.len() == 1 || Der::new(&longer).any().is_err(), "{bytes:?}");
            assert!(Der::new(bytes).any().is_err());
        }
    }
}
