//! What is said of a batch on the air: its signature, whole or in pieces, and leaf hashes.

use fivefold_core::id::{Did, Epoch};
use fivefold_core::proof::Signature;
use fivefold_core::proof::batch::Members;
use fivefold_core::proof::statement::{SignedLevel, Subject};
use fivefold_core::wire::control::{Batch, Leaves, Uplink};

use super::Item;
use crate::relay::PAYLOAD;

/// Leaf hashes in one message, at most: a payload has no room for more.
pub(super) const HASHES: usize = PAYLOAD / 32;
/// What stands before item 1 in a control map that has nothing else.
const BEFORE: usize = 2;

/// What is left to say of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Leaf hashes from this one on, and then its signature or not.
    Leaves {
        /// Index of the next.
        next: u8,
        /// Whether the signature follows.
        signature: bool,
    },
    /// Nothing.
    Nothing,
    /// The signature: `bytes` of it in each piece, or all of it where that is 0.
    Signature {
        /// Index of the next piece.
        next: u8,
        /// Bytes in each.
        bytes: u8,
    },
}

impl Pieces {
    /// All of a signature.
    pub(super) const SIGNATURE: Self = Self::Signature { next: 0, bytes: 0 };
}

/// A batch that was signed, and is not known to be complete at the other side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) number: u32,
    pub(super) subject: Subject,
    pub(super) members: Members,
    pub(super) signature: Signature,
    pub(super) pieces: Pieces,
    /// What the other side said it has, until that led to something, as a bitmap; 0 for nothing said.
    pub(super) have: u64,
    /// It was signed again over fewer readings.
    pub(super) fewer: bool,
    /// It was signed again, chained to nothing.
    pub(super) unchained: bool,
    /// It was asked for such a statement while the batch before was on its way.
    pub(super) late: bool,
}

impl Closed {
    /// What the other side said it has.
    pub(super) fn have(&self) -> Option<Members> {
        Members::parse(self.members.first(), &self.have.to_le_bytes())
    }

    /// Item 1, whole or as the next piece. `None` where no piece fits.
    pub(super) fn signature(&self, next: u8, bytes: u8, room: usize, out: &mut [u8]) -> Option<Item> {
        let (mut whole, mut bitmap) = ([0; 96], [0; 8]);
        let number = u64::from(self.number);
        let bitmap = self.members.bitmap(&mut bitmap);
        let (first_piv, signature) = (self.members.first(), &self.signature.0);
        let item = Batch::Signature { number, first_piv, bitmap, signature };
        let len = Uplink { batch: Some(item), ..Uplink::default() }.emit(&mut whole).ok()?;
        let item = |len, then| Item { len, batch: self.number, then };
        if len <= room {
            out.get_mut(..len)?.copy_from_slice(whole.get(..len)?);
            return Some(item(len, Pieces::Nothing));
        }
        let whole = whole.get(BEFORE..len)?;
        // Of the pieces that are out already the size is given; where it does not fit any more they begin anew.
        let chunk = |index: u8, size: usize, out: &mut [u8]| {
            let count = whole.len().div_ceil(size);
            let bytes = whole.chunks(size).nth(index.into())?;
            let (index, count) = (index.into(), u16::try_from(count).ok()?);
            let batch = Some(Batch::Chunk { number, index, count, bytes });
            let len = Uplink { batch, ..Uplink::default() }.emit(out).ok().filter(|len| *len <= room)?;
            let next = index + 1;
            let then = Pieces::Signature { next: next as u8, bytes: size as u8 };
            Some(item(len, if next == count { Pieces::Nothing } else { then }))
        };
        if let Some(same) = (bytes > 0).then(|| chunk(next, bytes.into(), out)).flatten() {
            return Some(same);
        }
        // Map, key, array, index, count of one byte each, the number, and the head of the bytes.
        let around = 5 + uint(self.number) + 2;
        let size = room.checked_sub(around).filter(|size| *size > 0)?;
        chunk(0, size, out)
    }

    /// Item 6 from leaf `next` on, of all `hashes`. `None` where none fits.
    pub(super) fn leaves(
        &self,
        (next, signature): (u8, bool),
        hashes: impl Iterator<Item = [u8; 32]>,
        room: usize,
        out: &mut [u8],
    ) -> Option<Item> {
        // Map, key and array of one byte each, the number, the index, and the head of the bytes.
        let around = 3 + uint(self.number) + uint(next.into()) + 2;
        let fit = (room.checked_sub(around)? / 32).min(HASHES);
        let mut bytes = [0; 32 * HASHES];
        let mut count = 0;
        for (to, hash) in bytes.chunks_exact_mut(32).zip(hashes.skip(next.into())).take(fit) {
            to.copy_from_slice(&hash);
            count += 1;
        }
        let hashes = bytes.get(..32 * count).filter(|b| !b.is_empty())?;
        let leaves = Some(Leaves { number: self.number.into(), first_index: next, hashes });
        let len = Uplink { leaves, ..Uplink::default() }.emit(out).ok().filter(|len| *len <= room)?;
        let next = u32::from(next) + count as u32;
        let then = match (next < self.members.count(), signature) {
            (true, _) => Pieces::Leaves { next: next as u8, signature },
            (false, true) => Pieces::SIGNATURE,
            (false, false) => Pieces::Nothing,
        };
        Some(Item { len, batch: self.number, then })
    }
}

/// Bytes of an unsigned CBOR integer.
const fn uint(n: u32) -> usize {
    match n {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    }
}

/// Says of each message that the signature of a batch takes how long its control map is, where there is room for `room` bytes.
/// Whether all of it can be said.
pub fn signature_messages(number: u32, members: Members, room: usize, mut each: impl FnMut(usize)) -> bool {
    let subject = Subject { level: SignedLevel::Cloud, did: Did([0; 8]), epoch: Epoch(1), bctx: None };
    let (signature, pieces) = (Signature([0; 64]), Pieces::SIGNATURE);
    let mut batch =
        Closed { number, subject, members, signature, pieces, have: 0, fewer: false, unchained: false, late: false };
    let mut out = [0; PAYLOAD];
    while let Pieces::Signature { next, bytes } = batch.pieces {
        let Some(item) = batch.signature(next, bytes, room, &mut out) else { return false };
        each(item.len);
        batch.pieces = item.then;
    }
    true
}
