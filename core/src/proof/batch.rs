//! A batch of readings (docs/protocol.md 13.1): which numbers are in it, and the statement over their leaves.

use crate::proof::merkle::{Hash, Tree};
use crate::proof::statement::{CONTEXT, Statement, Subject};
use crate::proof::{Header, Sign, SignError, Signature, ToBeSigned};
use crate::suite::sha256;

/// The prev of a batch that has none before it.
pub const NO_PREVIOUS: Hash = Hash([0; 32]);

/// Which sender numbers are in a batch: one or more of the 64 from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    first: u64,
    // Bit j, the least significant first, stands for `first + j`.
    bits: u64,
}

impl Members {
    /// Numbers of a batch, at most.
    pub const MOST: u64 = 64;

    /// One number.
    pub const fn one(number: u64) -> Self {
        Self { first: number, bits: 1 }
    }

    /// As they stand in a statement or control item. `None` without a member, and for a bitmap of more than 8 bytes.
    pub fn parse(first: u64, bitmap: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..bitmap.len())?.copy_from_slice(bitmap);
        let bits = u64::from_le_bytes(bytes);
        (bits != 0).then_some(Self { first, bits })
    }

    /// With one number more. `None` when it lies before the first, or 64 or more behind it.
    #[must_use]
    pub fn with(self, number: u64) -> Option<Self> {
        Some(Self { bits: self.bits | self.bit(number)?, ..self })
    }

    fn bit(self, number: u64) -> Option<u64> {
        let at = u32::try_from(number.checked_sub(self.first)?).ok()?;
        1u64.checked_shl(at)
    }

    /// The number that bit 0 stands for.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The bitmap as a number: bit j stands for `first + j`.
    pub const fn bits(&self) -> u64 {
        self.bits
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Whether a number is among them.
    pub fn covers(&self, number: u64) -> bool {
        self.bit(number).is_some_and(|bit| self.bits & bit != 0)
    }

    /// Whether each of these is among the others, and both begin at the same number.
    pub const fn are_within(&self, others: &Self) -> bool {
        self.first == others.first && self.bits & !others.bits == 0
    }

    /// Those that are among the others, too. `None` when none is, or they begin at another number.
    pub fn common(&self, others: &Self) -> Option<Self> {
        let bits = self.bits & others.bits;
        (self.first == others.first && bits != 0).then_some(Self { bits, ..*self })
    }

    /// One by one, in order.
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        (0..64).filter(move |at| self.bits >> at & 1 == 1).map(move |at| self.first.saturating_add(at))
    }

    /// The bitmap, in as few bytes as hold it.
    pub fn bitmap<'o>(&self, out: &'o mut [u8; 8]) -> &'o [u8] {
        *out = self.bits.to_le_bytes();
        let unused = self.bits.leading_zeros() as usize / 8;
        out.get(..8usize.saturating_sub(unused).max(1)).unwrap_or_default()
    }
}

/// What a device says of a batch, but for the root: that is made of the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose readings.
    pub subject: Subject,
    /// Number of the batch.
    pub number: u64,
    /// Which numbers.
    pub members: Members,
    /// SHA-256 of the statement before, or [`NO_PREVIOUS`].
    pub previous: Hash,
}

impl Claim {
    /// The statement over these leaves, which are those of the members, in order of their numbers; and its bytes. `None` when
    /// they are more or fewer than the members.
    pub fn over(&self, leaves: impl IntoIterator<Item = Hash>) -> Option<Stated> {
        let mut tree = Tree::new();
        tree.extend(leaves);
        if tree.size() != u64::from(self.members.count()) {
            return None;
        }
        let mut bitmap = [0; 8];
        let statement = Statement {
            subject: self.subject,
            number: self.number,
            first_piv: self.members.first,
            bitmap: self.members.bitmap(&mut bitmap),
            root: tree.root(),
            previous: self.previous,
        };
        let mut bytes = [0; Statement::LONGEST];
        let len = statement.emit(&mut bytes).ok()?;
        Some(Stated { bytes, len })
    }
}

/// The bytes of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    bytes: [u8; Statement::LONGEST],
    len: usize,
}

impl Stated {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Its hash: prev of the next one.
    pub fn hash(&self) -> Hash {
        Hash(sha256(&[self.as_bytes()]))
    }

    /// Signs it as the payload of the COSE_Sign1 that the cloud puts together again.
    ///
    /// # Errors
    /// When the signer fails.
    pub fn sign(&self, key: &impl Sign) -> Result<Signature, SignError> {
        let header = Header { alg: key.alg(), key: key.key_name() };
        key.sign(&ToBeSigned::new(header, CONTEXT, self.as_bytes()).parts())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_number_more_than_63_behind_the_first_is_of_another_batch() {
        let members = Members::one(300);
        assert_eq!(members.with(299), None);
        assert_eq!(members.with(364), None);
        let all = (301..364).try_fold(members, Members::with).unwrap();
        assert_eq!((all.count(), all.bitmap(&mut [0; 8]).len()), (64, 8));
        assert_eq!(Members::parse(1, &[]), None);
        assert_eq!(Members::parse(1, &[0, 0]), None);
        assert_eq!(Members::parse(1, &[1; 9]), None);
    }

    proptest! {
        #[test]
        fn members_are_what_their_bitmap_says(first in 0u64..1 << 20, bits in 1u64..) {
            let mut out = [0; 8];
            let members = Members { first, bits };
            let bitmap = members.bitmap(&mut out);
            prop_assert_eq!(Members::parse(first, bitmap), Some(members));
            prop_assert!(bitmap.last() != Some(&0));
            let numbers: Vec<u64> = members.numbers().collect();
            prop_assert_eq!(numbers.len() as u32, members.count());
            prop_assert!(numbers.iter().all(|&n| members.covers(n)));
            let again = numbers.iter().try_fold(Members { first, bits: 0 }, |m, &n| m.with(n));
            prop_assert_eq!(again, Some(members));
            let all = Members { first, bits: u64::MAX };
            prop_assert!(members.are_within(&all));
            prop_assert_eq!(members.are_within(&Members { first, bits: bits & (bits - 1) }), false);
        }
    }
}
