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
}

/// A receipt with the leaves under its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// What names the key that signed it.
    pub key: KeyName,
    /// Who signed it.
    pub gateway: GatewayId,
    /// Leaf hashes of all its envelopes, in order.
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
        let sql = "INSERT INTO heard SELECT ?1, ?2, ?3, ?4, ?5
                   WHERE (SELECT count(*) FROM heard WHERE reading = ?1) < ?6 ON CONFLICT DO NOTHING";
        let index = int(kept.index as u64);
        let values = params![reading, gateway.0, receipt, index, kept.envelope, RECEIPTS as i64];
        is_new |= tx.prepare_cached(sql)?.execute(values)? > 0;
    }
    if !is_new {
        return Ok(());
    }
    let mut query = tx.prepare_cached("SELECT idx FROM heard WHERE receipt = ? ORDER BY idx")?;
    let kept = query.query_map([receipt], place)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let others = hearing.leaves.iter().enumerate().filter(|(at, _)| kept.binary_search(at).is_err());
    let others: Vec<u8> = others.flat_map(|(_, leaf)| leaf.0).collect();
    tx.prepare_cached("UPDATE receipt SET others = ? WHERE id = ?")?.execute(params![others, receipt])?;
    Ok(())
}

impl Reader {
    /// In which envelopes a reading came, the earliest receipt first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn heard(&self, reading: i64) -> Result<Vec<HeardRow>, StoreError> {
        let sql = "SELECT idx, receipt, envelope FROM heard WHERE reading = ? ORDER BY receipt, idx";
        self.all(sql, [reading], |r| Ok(HeardRow { index: place(r)?, receipt: r.get(1)?, envelope: r.get(2)? }))
    }

    /// A receipt whose envelopes were kept; `None` if what is kept does not make its root.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn receipt_leaves(&self, receipt: i64) -> Result<Option<Leaves>, StoreError> {
        let sql = "SELECT cose, others FROM receipt WHERE id = ? AND others IS NOT NULL";
        let found = self.all(sql, [receipt], |r| Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, Vec<u8>>(1)?)))?;
        let Some((cose, others)) = found.into_iter().next() else { return Ok(None) };
        let kept = self.all("SELECT idx, envelope FROM heard WHERE receipt = ?", [receipt], |r| {
            Ok((place(r)?, Hash::of_leaf([&r.get::<_, Vec<u8>>(1)?])))
        })?;
        let mut kept: BTreeMap<usize, Hash> = kept.into_iter().collect();
        let mut others = others.chunks_exact(32).filter_map(|h| h.try_into().ok().map(Hash));
        let next = |at| kept.remove(&at).or_else(|| others.next());
        let leaves: Vec<Hash> = (0..).map_while(next).collect();
        let Ok(signed) = Sign1::parse(&cose) else { return Ok(None) };
        let Ok(said) = Receipt::parse(signed.danger_payload()) else { return Ok(None) };
        let is_whole = said.count == leaves.len() as u64 && said.root == root(&leaves);
        let (key, gateway) = (signed.header.key, said.gateway);
        Ok(is_whole.then_some(Leaves { cose, key, gateway, leaves }))
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
