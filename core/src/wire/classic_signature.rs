//! What a hardened classic node says that it signed (docs/protocol.md, "Signatures of classic nodes"): the parts of type 6E,
//! one after the other.
//!
//! ```text
//! CBOR [batch_no, first_piv, bitmap(1..8), signature(256 | 384 | 512)]
//! ```

use crate::error::SealError;
use crate::proof::SignAlg;
use crate::wire::cbor::{Malformed, Reader, Writer};

/// A signature over the statement of a batch, which the cloud puts together from the readings that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSignature<'b> {
    /// Number of the batch.
    pub number: u32,
    /// Sequence that bit 0 of the bitmap stands for.
    pub first: u32,
    /// Which sequences; 1 to 8 bytes, bit j is the least significant first.
    pub bitmap: &'b [u8],
    /// RSASSA-PSS.
    pub signature: &'b [u8],
}

impl<'b> BatchSignature<'b> {
    /// Bytes of the longest.
    pub const LONGEST: usize = 1 + 5 + 5 + 9 + 3 + 512;

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        r.array_of(4)?;
        let said = Self { number: r.uint()?, first: r.uint()?, bitmap: r.bytes()?, signature: r.bytes()? };
        r.end()?;
        if said.bitmap.is_empty() || said.bitmap.len() > 8 {
            return Err(Malformed::new("signature: a bitmap has 1 to 8 bytes"));
        }
        if !SignAlg::Ps256.fits(said.signature.len()) {
            return Err(Malformed::new("signature: RSA of 2048, 3072 or 4096 bits"));
        }
        Ok(said)
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`BatchSignature::LONGEST`] bytes always suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.array(4)?;
        w.unsigned(self.number)?;
        w.unsigned(self.first)?;
        w.bytes(self.bitmap)?;
        w.bytes(self.signature)?;
        Ok(w.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_no_cut_of_it_is_one() {
        for len in [256, 384, 512] {
            let said =
                BatchSignature { number: u32::MAX, first: 1 << 20, bitmap: &[1; 8], signature: &[7; 512][..len] };
            let mut out = [0; BatchSignature::LONGEST];
            let n = said.emit(&mut out).unwrap();
            assert_eq!(BatchSignature::parse(&out[..n]), Ok(said));
            (0..n).for_each(|cut| assert!(BatchSignature::parse(&out[..cut]).is_err()));
            assert_eq!(said.emit(&mut out[..n - 1]), Err(SealError::BufferTooSmall));
        }
    }

    #[test]
    fn what_no_node_can_have_signed_is_none() {
        let good = BatchSignature { number: 1, first: 1, bitmap: &[1], signature: &[7; 256] };
        let refused = |said: BatchSignature<'_>| {
            let mut out = [0; 600];
            let n = said.emit(&mut out).unwrap();
            BatchSignature::parse(&out[..n]).is_err()
        };
        assert!(!refused(good));
        assert!(refused(BatchSignature { bitmap: &[], ..good }) && refused(BatchSignature { bitmap: &[1; 9], ..good }));
        for signature in [&[7; 64][..], &[7; 128], &[7; 255], &[7; 257]] {
            assert!(refused(BatchSignature { signature, ..good }));
        }
    }
}
