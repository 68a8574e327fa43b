//! What devices sign, and the only way in which a reading becomes `signed`: a signature over it was verified here.

use fivefold_core::error::SealError;
use fivefold_core::id::{BootContext, Did};
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::statement::{CONTEXT, Salt, Statement, Subject};
use fivefold_core::proof::{Header, Sign1, Verify as _};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_keep::sign::VerifyingKey;

use super::ContextId;

/// Arrangements of leaves that are tried where a gateway vouched for several messages under one number.
const ARRANGEMENTS: usize = 16;

/// Which numbers are in a batch: 1 to 8 bytes as they were signed, bit j (least significant first) for number first + j.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bitmap {
    bytes: [u8; 8],
    len: u8,
}

impl Bitmap {
    /// From 1 to 8 bytes; `None` otherwise.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len()).ok().filter(|len| (1..=8).contains(len))?;
        let mut all = [0; 8];
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(Self { bytes: all, len })
    }

    /// As signed.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// Bit j for number first + j.
    pub const fn bits(self) -> u64 {
        u64::from_le_bytes(self.bytes)
    }

    /// Of the same length, with these bits of it alone.
    #[must_use]
    pub const fn only(self, bits: u64) -> Self {
        Self { bytes: (self.bits() & bits).to_le_bytes(), len: self.len }
    }
}

/// In which chain of statements a batch is: that of its device over all its epochs, or, of a device that keeps none of its
/// numbers (mode R), that of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chain {
    /// The boot of this context.
    Boot(ContextId),
    /// The device's.
    Device,
}

impl Chain {
    /// Of what comes under this context.
    pub const fn of(context: ContextId, boot: Option<BootContext>) -> Self {
        match boot {
            Some(_) => Self::Boot(context),
            None => Self::Device,
        }
    }
}

/// What tells a batch from all others of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchName {
    /// Its chain.
    pub chain: Chain,
    /// Its number there.
    pub number: u64,
}

/// What a device says that it signed (docs/protocol.md 7.1, item 1). Nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The device.
    pub did: Did,
    /// In which chain.
    pub chain: Chain,
    /// Number of the batch.
    pub number: u64,
    /// Sender number that bit 0 of the bitmap stands for.
    pub first: u64,
    /// Which numbers.
    pub bitmap: Bitmap,
    /// The signature: of 64 bytes, or of a classic node's RSA.
    pub signature: Box<[u8]>,
    /// The context it came under; its readings may be of an older one.
    pub context: ContextId,
    /// When it came.
    pub at: Millis,
}

impl Claim {
    /// Which batch it is about.
    pub const fn name(&self) -> BatchName {
        BatchName { chain: self.chain, number: self.number }
    }

    /// Its numbers with their bits, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = (u32, u64)> + use<> {
        let (bits, first) = (self.bitmap.bits(), self.first);
        (0..64).filter(move |j| bits >> j & 1 == 1).filter_map(move |j| Some((j, first.checked_add(j.into())?)))
    }

    /// Whether number `piv` is in it.
    pub fn covers(&self, piv: u64) -> bool {
        piv.checked_sub(self.first).is_some_and(|j| j < 64 && self.bitmap.bits() >> j & 1 == 1)
    }

    /// Whether both say the same, whenever and however they came.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.did, self.number, self.first, self.bitmap, &self.signature)
            == (other.did, other.number, other.first, other.bitmap, &other.signature)
    }

    /// Whether one of both is over some of the other's readings, as when a device signs again over what is here.
    pub const fn narrows(&self, first: u64, bitmap: Bitmap) -> bool {
        let (mine, other) = (self.bitmap.bits(), bitmap.bits());
        self.first == first && (mine & other == mine || mine & other == other)
    }
}

/// A message that may be in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRow {
    /// Its row.
    pub reading: i64,
    /// Sender number.
    pub piv: u64,
    /// Hides its leaf.
    pub salt: Salt,
    /// As sent.
    pub payload: Vec<u8>,
    /// Whether it is kept out of what is shown.
    pub is_hidden: bool,
}

/// Messages of one context that a claim may be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The context.
    pub context: ContextId,
    /// What all leaves have in common.
    pub subject: Subject,
    /// The messages under the claim's numbers, by number.
    pub rows: Vec<LeafRow>,
}

impl Candidate {
    fn under(&self, piv: u64) -> impl Iterator<Item = (&LeafRow, Hash)> {
        let rows = self.rows.iter().filter(move |r| r.piv == piv);
        rows.map(|r| (r, self.subject.leaf(&r.salt, r.piv, &r.payload)))
    }

    /// Bits of the claim's numbers under which a message is here.
    pub fn has(&self, claim: &Claim) -> u64 {
        let here = claim.numbers().filter(|(_, piv)| self.rows.iter().any(|r| r.piv == *piv));
        here.fold(0, |bits, (j, _)| bits | 1 << j)
    }

    /// Ways to put leaves under the claim's numbers: those that the device gave, then those of the messages here.
    fn arrangements(&self, claim: &Claim, given: &[(u8, Hash)]) -> Vec<Vec<Hash>> {
        let of = |i: usize| given.iter().find(|(at, _)| usize::from(*at) == i).map(|(_, hash)| *hash);
        let mut options: Vec<(Option<Hash>, Vec<Hash>)> = Vec::with_capacity(64);
        for (i, (_, piv)) in claim.numbers().enumerate() {
            options.push((of(i), self.under(piv).map(|(_, hash)| hash).collect()));
        }
        let mut all: Vec<Vec<Hash>> = Vec::new();
        let mut add = |arrangement: Option<Vec<Hash>>| all.extend(arrangement.filter(|a| !a.is_empty()));
        if !given.is_empty() {
            add(options.iter().map(|(given, rows)| given.or(rows.first().copied())).collect());
        }
        // Several messages stand under one number by a gateway's word alone: at most a few.
        let ways = options.iter().fold(1usize, |n, (_, rows)| n.saturating_mul(rows.len().max(1)));
        for way in 0..ways.min(ARRANGEMENTS) {
            let mut rest = way;
            let pick = |(given, rows): &(Option<Hash>, Vec<Hash>)| {
                let n = rows.len().max(1);
                let at = rest % n;
                rest /= n;
                rows.get(at).copied().or(*given)
            };
            add(options.iter().map(pick).collect());
        }
        all.dedup();
        all
    }
}

/// A batch whose signature was verified, and the readings that it proves. There is one way to one:
/// ```compile_fail,E0451
/// use fivefold_cloud::accepted::signed::{Proven, SignedBatch};
/// fn invent(proven: Proven) -> SignedBatch { SignedBatch { proven } }
/// ```
/// ```
/// use fivefold_cloud::accepted::signed::{Proven, SignedBatch};
/// fn look(batch: &SignedBatch) -> &Proven { batch.proven() }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBatch {
    proven: Proven,
}

/// What stands in a [`SignedBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// What was claimed.
    pub claim: Claim,
    /// The context of its readings.
    pub context: ContextId,
    /// SHA-256 of the statement.
    pub statement: Hash,
    /// The statement before, as this one names it.
    pub previous: Hash,
    /// The leaves, in order of their numbers.
    pub leaves: Vec<Hash>,
    /// Rows of the readings that it proves.
    pub readings: Vec<i64>,
    /// Bits of numbers whose reading is not here.
    pub missing: u64,
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
}

impl SignedBatch {
    /// Verifies a claim over messages here and leaf hashes that the device `given`, with one of these statements before it.
    /// `None` when leaves are missing, no signature holds, or no `tries` are left: each takes one.
    pub(crate) fn verify(
        claim: &Claim,
        candidate: &Candidate,
        given: &[(u8, Hash)],
        previous: &[Hash],
        key: &VerifyingKey,
        tries: &mut u32,
    ) -> Option<Self> {
        let arrangements = candidate.arrangements(claim, given);
        for (leaves, previous) in arrangements.iter().flat_map(|a| previous.iter().map(move |p| (a, *p))) {
            *tries = tries.checked_sub(1)?;
            let statement = Statement {
                subject: candidate.subject,
                number: claim.number,
                first_piv: claim.first,
                bitmap: claim.bitmap.as_bytes(),
                root: root(leaves),
                previous,
            };
            let Ok((statement, cose)) = whole(&statement, &claim.signature, key) else { continue };
            if Sign1::parse(&cose).is_ok_and(|sign1| sign1.verify(key, CONTEXT).is_ok()) {
                return Some(Self::new(claim, candidate, leaves, statement, previous, cose));
            }
        }
        None
    }

    fn new(
        claim: &Claim,
        candidate: &Candidate,
        leaves: &[Hash],
        statement: Hash,
        previous: Hash,
        cose: Vec<u8>,
    ) -> Self {
        let (mut readings, mut missing) = (Vec::new(), 0);
        for ((j, piv), leaf) in claim.numbers().zip(leaves) {
            match candidate.under(piv).find(|(_, hash)| hash == leaf) {
                Some((row, _)) if row.is_hidden => {}
                Some((row, _)) => readings.push(row.reading),
                None => missing |= 1 << j,
            }
        }
        let (claim, context, leaves) = (claim.clone(), candidate.context, leaves.to_vec());
        Self { proven: Proven { claim, context, statement, previous, leaves, readings, missing, cose } }
    }

    /// What it proves.
    pub const fn proven(&self) -> &Proven {
        &self.proven
    }
}

/// A batch that was verified while readings of it were missing, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partial {
    /// What was claimed; the context is that of its readings.
    pub claim: Claim,
    /// Its leaves.
    pub leaves: Vec<Hash>,
    /// Bits of numbers whose reading is not here.
    pub missing: u64,
}

/// Readings that came after their batch was verified, and whose leaves are in it. Made like a [`SignedBatch`], and by nobody
/// else: the store asks in the transaction in which the later of both is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    readings: Vec<i64>,
    missing: u64,
}

impl Late {
    /// Of those under the batch's numbers, the readings whose leaf it has. `None` when there is none.
    pub(crate) fn of(partial: &Partial, candidate: &Candidate) -> Option<Self> {
        if candidate.context != partial.claim.context {
            return None;
        }
        let (mut readings, mut missing) = (Vec::new(), partial.missing);
        for ((j, piv), leaf) in partial.claim.numbers().zip(&partial.leaves) {
            if partial.missing >> j & 1 == 1
                && let Some((row, _)) = candidate.under(piv).find(|(_, hash)| hash == leaf)
            {
                missing &= !(1 << j);
                readings.extend((!row.is_hidden).then_some(row.reading));
            }
        }
        (missing != partial.missing).then_some(Self { readings, missing })
    }

    /// Rows of the readings.
    pub fn readings(&self) -> &[i64] {
        &self.readings
    }

    /// Bits that are still missing.
    pub const fn missing(&self) -> u64 {
        self.missing
    }
}

/// The statement's hash, and the COSE_Sign1 that a signature makes of it; nothing is verified.
fn whole(statement: &Statement<'_>, signature: &[u8], key: &VerifyingKey) -> Result<(Hash, Vec<u8>), SealError> {
    let mut bytes = [0; Statement::LONGEST];
    let len = statement.emit(&mut bytes)?;
    let bytes = bytes.get(..len).ok_or(SealError::BufferTooSmall)?;
    let mut cose = vec![0; len + Sign1::AROUND + signature.len()];
    let header = Header { alg: key.alg(), key: key.key_name() };
    let len = Sign1::of(header, bytes, signature).emit(&mut cose)?;
    cose.truncate(len);
    Ok((Hash(sha256(&[bytes])), cose))
}
