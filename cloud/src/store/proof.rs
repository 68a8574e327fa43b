//! What the store knows of the evidence for readings.

use fivefold_core::id::{Did, Epoch, Net};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{Salt, Subject};
use fivefold_core::time::Millis;
use rusqlite::params;

use super::evidence::{OF_SUBJECTS, as_signed, subject_of};
use super::read::uint;
use super::write::int;
use super::{Reader, StoreError};
use crate::accepted::flag;

/// A reading, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRow {
    /// Its row.
    pub reading: i64,
    /// What all leaves of its context have in common.
    pub subject: Subject,
    /// Its network.
    pub net: Net,
    /// Sender number.
    pub piv: u64,
    /// As sent.
    pub payload: Vec<u8>,
    /// The batch that it is in, if its signature was verified.
    pub proof: Option<Proof>,
    /// What it said, or what proves it, is pruned.
    pub is_pruned: bool,
}

/// A reading's place in a batch that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Hides its leaf.
    pub salt: Salt,
    /// Row of the batch.
    pub batch: i64,
    /// All leaves of the batch, in order of their numbers.
    pub leaves: Vec<Hash>,
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
}

impl Reader {
    /// Readings of a device that came in this time, in their order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn evidence(&self, did: Did, from: Millis, to: Millis, limit: usize) -> Result<Vec<EvidenceRow>, StoreError> {
        let sql = format!(
            "SELECT c.level, c.epoch, c.bctx, r.piv, r.payload, l.salt, b.id, b.leaves, b.cose, c.net, r.id,
                          r.flags & ?6 <> 0 OR (l.batch IS NOT NULL AND b.leaves IS NULL)
                   FROM reading r JOIN context c ON c.id = r.ctx LEFT JOIN leaf l ON l.reading = r.id
                   LEFT JOIN batch b ON b.id = l.batch AND b.state = 1 AND b.leaves IS NOT NULL AND r.origin = 5
                   WHERE r.ctx IN (SELECT id FROM context WHERE did = ?1 AND {OF_SUBJECTS})
                   AND r.ingested >= ?2 AND r.ingested < ?3 AND r.flags & ?4 = 0 ORDER BY r.id LIMIT ?5"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.all(&sql, params![did.0, int(from.0), int(to.0), flag::HIDDEN, limit, flag::PRUNED], |r| {
            let level = r.get(0)?;
            let subject = subject_of(did, (level, Epoch(r.get(1)?), &r.get::<_, Vec<u8>>(2)?));
            let proof = match (r.get::<_, Option<[u8; 16]>>(5)?, r.get::<_, Option<i64>>(6)?) {
                (Some(salt), Some(batch)) => {
                    let leaves: Vec<u8> = r.get(7)?;
                    let leaves = leaves.chunks_exact(32).filter_map(|l| l.try_into().ok().map(Hash)).collect();
                    Some(Proof { salt: Salt(salt), batch, leaves, cose: r.get(8)? })
                }
                _ => None,
            };
            let (piv, payload) = (uint(r.get(3)?), as_signed(level, r.get(4)?));
            let reading = r.get(10)?;
            Ok(EvidenceRow { reading, subject, net: Net(r.get(9)?), piv, payload, proof, is_pruned: r.get(11)? })
        })
    }
}
