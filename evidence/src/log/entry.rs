//! What stands in the log: a kind and a hash.

use fivefold_core::proof::merkle::Hash;

use crate::note::Malformed;

/// Bytes of an entry: two letters and a hash.
pub const ENTRY: usize = 34;

/// What an entry is about (docs/protocol.md 13.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// `b1`: a batch that a device signed.
    Batch,
    /// `g1`: a receipt that a gateway signed.
    Receipt,
    /// `en`: a device was enrolled with its signing key.
    Enrolment,
    /// `rv`: the list of revoked signing keys.
    Revocation,
    /// `rs`: the cloud was restored from a copy.
    Restore,
    /// `cf`: what a device was set to.
    Policy,
    /// `op`: a line of the operator's log.
    Operator,
}

impl EntryKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Batch, Self::Receipt, Self::Enrolment, Self::Revocation, Self::Restore, Self::Policy, Self::Operator];

    /// Its two letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "b1",
            Self::Receipt => "g1",
            Self::Enrolment => "en",
            Self::Revocation => "rv",
            Self::Restore => "rs",
            Self::Policy => "cf",
            Self::Operator => "op",
        }
    }
}

/// An entry: what it is about, and the SHA-256 of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(pub(super) [u8; ENTRY]);

impl Entry {
    /// Of a record's bytes.
    pub fn of(kind: EntryKind, record: &[u8]) -> Self {
        let mut entry = [0; ENTRY];
        let hash = fivefold_core::suite::sha256(&[record]);
        entry.iter_mut().zip(kind.name().as_bytes().iter().chain(&hash)).for_each(|(e, b)| *e = *b);
        Self(entry)
    }

    /// Of bytes as they stand in a log.
    ///
    /// # Errors
    /// [`Malformed`] for another length, or letters that mean nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let entry = Self(bytes.try_into().map_err(|_| Malformed("an entry is not 34 bytes"))?);
        entry.kind().ok_or(Malformed("an entry of a kind that does not exist"))?;
        Ok(entry)
    }

    /// What it is about.
    pub fn kind(&self) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|kind| self.0.starts_with(kind.name().as_bytes()))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; ENTRY] {
        &self.0
    }

    pub(super) fn leaf(&self) -> Hash {
        Hash::of_leaf([&self.0])
    }
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
