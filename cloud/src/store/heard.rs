//! Which gateways brought a reading, with what their receipts need to prove it: kept in the transaction that takes the batch.

use std::collections::BTreeMap;

use fivefold_core::id::GatewayId;
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::receipt::Receipt;
use fivefold_core::proof::{KeyName, Sign1};
use fivefold_evidence::bundle::RECEIPTS;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::write::int;
use super::{Reader, StoreError};
use crate::accepted::flag;

/// The envelopes of a batch, as far as its receipt is to prove single ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// Leaf hashes of all of them, in order; none if nothing is kept.
    pub leaves: Vec<Hash>,
    /// Those of readings of devices that sign.
    pub kept: Vec<Kept>,
}

/// An envelope that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which of the write's accepted rows came in it.
    pub accepted: usize,
    /// Its place in the batch.
    pub index: usize,
    /// Its bytes.
    pub envelope: Vec<u8>,
}

/// What one gateway brought: an envelope, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardRow {
    /// Row of the receipt.
    pub receipt: i64,
    /// Its place among the receipt's envelopes.
    pub index: usize,
    /// Its bytes.
    pub envelope: Vec<u8>,
    /// The path from it to the receipt's root, where it is kept by itself.
    pub path: Option<Vec<Hash>>,
}

/// A receipt, with the leaves under its root where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// What names the key that signed it.
    pub key: KeyName,
    /// Who signed it.
    pub gateway: GatewayId,
    /// What it is over.
    pub root: Hash,
    /// Over how many envelopes.
    pub count: u64,
    /// Leaf hashes of all its envelopes, in order; none where each envelope that is kept has its path.
    pub leaves: Vec<Hash>,
}

/// Keeps the envelopes of a batch whose receipt has this row; `readings` are the rows that its accepted messages have, new
/// or known. What a gateway brings twice is kept once, and of so many gateways as a bundle has room for.
pub(super) fn put(
    tx: &Transaction<'_>,
    hearing: &Hearing,
    readings: &[Option<i64>],
    gateway: GatewayId,
    receipt: i64,
) -> rusqlite::Result<()> {
    let mut is_new = false;
    for kept in &hearing.kept {
        let Some(reading) = readings.get(kept.accepted).copied().flatten() else { continue };
        let sql = "INSERT INTO heard (reading, gateway, receipt, idx, envelope) SELECT ?1, ?2, ?3, ?4, ?5
                   WHERE (SELECT count(*) FROM heard WHERE reading = ?1) < ?6
                   AND EXISTS (SELECT 1 FROM reading WHERE id = ?1 AND flags & ?7 = 0) ON CONFLICT DO NOTHING";
        let index = int(kept.index as u64);
        let values = params![reading, gateway.0, receipt, index, kept.envelope, RECEIPTS as i64, flag::PRUNED];
        is_new |= tx.prepare_cached(sql)?.execute(values)? > 0;
    }
    if !is_new {
        return Ok(());
    }
    let mut query = tx.prepare_cached("SELECT idx FROM heard WHERE receipt = ? ORDER BY idx")?;
    let kept = query.query_map([receipt], place)?.collect::<rusqlite::Result<Vec<_>>>()?;
    // Whichever is shorter: what surrounds a reading is not its device's, and may be anybody's.
    let height = hearing.leaves.len().next_power_of_two().trailing_zeros() as usize;
    let is_alone = kept.len().saturating_mul(height + 1) < hearing.leaves.len();
    let mut paths = vec![Vec::new(); kept.len()];
    let mut others = None;
    if is_alone {
        walk(&hearing.leaves, 0, &kept, &mut paths);
    } else {
        let rest = hearing.leaves.iter().enumerate().filter(|(at, _)| kept.binary_search(at).is_err());
        others = Some(bytes_of(rest.map(|(_, leaf)| leaf)));
    }
    for (at, path) in kept.iter().zip(&paths) {
        let path = is_alone.then(|| bytes_of(path));
        let sql = "UPDATE heard SET path = ? WHERE receipt = ? AND idx = ?";
        tx.prepare_cached(sql)?.execute(params![path, receipt, int(*at as u64)])?;
    }
    tx.prepare_cached("UPDATE receipt SET others = ? WHERE id = ?")?.execute(params![others, receipt])?;
    Ok(())
}

fn bytes_of<'h>(hashes: impl IntoIterator<Item = &'h Hash>) -> Vec<u8> {
    hashes.into_iter().flat_map(|h| h.0).collect()
}

fn hashes_of(bytes: &[u8]) -> impl Iterator<Item = Hash> {
    bytes.chunks_exact(32).filter_map(|h| h.try_into().ok().map(Hash))
}

/// The root over `leaves`, which begin at place `first`; each of the places `at`, ascending, gets its path. One walk for all.
fn walk(leaves: &[Hash], first: usize, at: &[usize], paths: &mut [Vec<Hash>]) -> Hash {
    if at.is_empty() || leaves.len() < 2 {
        return root(leaves);
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let middle = first + left.len();
    let here = at.partition_point(|at| *at < middle);
    let ((at_left, at_right), (of_left, of_right)) = (at.split_at(here), paths.split_at_mut(here));
    let (left, right) = (walk(left, first, at_left, of_left), walk(right, middle, at_right, of_right));
    of_left.iter_mut().for_each(|path| path.push(right));
    of_right.iter_mut().for_each(|path| path.push(left));
    Hash::of_node(&left, &right)
}

impl Reader {
    /// In which envelopes a reading came, the earliest receipt first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn heard(&self, reading: i64) -> Result<Vec<HeardRow>, StoreError> {
        let sql = "SELECT idx, receipt, envelope, path FROM heard WHERE reading = ? ORDER BY receipt, idx";
        self.all(sql, [reading], |r| {
            let path = r.get::<_, Option<Vec<u8>>>(3)?.map(|path| hashes_of(&path).collect());
            Ok(HeardRow { index: place(r)?, receipt: r.get(1)?, envelope: r.get(2)?, path })
        })
    }

    /// A receipt whose envelopes were kept; `None` if what is kept of all of them does not make its root.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn receipt_leaves(&self, receipt: i64) -> Result<Option<Leaves>, StoreError> {
        let sql = "SELECT cose, others FROM receipt WHERE id = ?";
        let found = self.all(sql, [receipt], |r| Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, Option<Vec<u8>>>(1)?)))?;
        let Some((cose, others)) = found.into_iter().next() else { return Ok(None) };
        let Ok(signed) = Sign1::parse(&cose) else { return Ok(None) };
        let Ok(said) = Receipt::parse(signed.danger_payload()) else { return Ok(None) };
        let (key, gateway) = (signed.header.key, said.gateway);
        let of = |cose, leaves| Leaves { cose, key, gateway, root: said.root, count: said.count, leaves };
        let Some(others) = others else { return Ok(Some(of(cose, Vec::new()))) };
        let kept = self.all("SELECT idx, envelope FROM heard WHERE receipt = ?", [receipt], |r| {
            Ok((place(r)?, Hash::of_leaf([&r.get::<_, Vec<u8>>(1)?])))
        })?;
        let mut kept: BTreeMap<usize, Hash> = kept.into_iter().collect();
        let mut others = hashes_of(&others);
        let next = |at| kept.remove(&at).or_else(|| others.next());
        let leaves: Vec<Hash> = (0..).map_while(next).collect();
        let is_whole = said.count == leaves.len() as u64 && said.root == root(&leaves);
        Ok(is_whole.then(|| of(cose, leaves)))
    }
}

/// The first column, as a place in a batch.
fn place(row: &Row<'_>) -> rusqlite::Result<usize> {
    Ok(row.get::<_, u32>(0)? as usize)
}

/// The row of a receipt.
pub(super) fn receipt(tx: &Transaction<'_>, r: &super::ReceiptRow) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM receipt WHERE gateway = ? AND boot = ? AND first = ? AND count = ? AND root = ?";
    let values = params![r.gateway.0, r.boot.0, int(r.first), int(r.count), r.root.0];
    tx.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()
}
