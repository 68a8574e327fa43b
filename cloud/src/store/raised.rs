//! Labels that were raised after their reading was stored, for those who follow readings.

use fivefold_core::id::{BootContext, Did, Epoch, Net};
use fivefold_core::time::Millis;
use rusqlite::{Transaction, params};

use super::read::{boot, uint};
use super::{Query, Reader, StoreError};
use crate::accepted::flag;

/// A label that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedRow {
    /// Grows with every label that is raised: the cursor.
    pub id: i64,
    /// The reading's.
    pub reading: i64,
    /// Its network.
    pub net: Net,
    /// Its device.
    pub did: Did,
    /// Its key generation.
    pub epoch: Epoch,
    /// Its boot, in mode R.
    pub bctx: Option<BootContext>,
    /// Its sender number.
    pub piv: u64,
}

/// Labels that were raised, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// The labels; all of them are `signed` now.
    pub rows: Vec<RaisedRow>,
    /// What was looked at: give it as `after`.
    pub next: i64,
}

/// In the transaction in which it was raised.
pub(super) fn put(tx: &Transaction<'_>, reading: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO raised (reading) VALUES (?)")?.execute([reading])?;
    Ok(())
}

impl Reader {
    /// The last label that was raised; 0 for none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_raised(&self) -> Result<i64, StoreError> {
        let last = self.all("SELECT coalesce(max(id), 0) FROM raised", [], |r| r.get(0))?;
        Ok(last.into_iter().next().unwrap_or(0))
    }

    /// Labels that were raised after this one, of readings that `q` is about and whose id its cursor has passed: those to come
    /// are shown with the label that they have then. At most as many as its limit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn raised(&self, after: i64, q: &Query) -> Result<Raised, StoreError> {
        let last = self.last_raised()?;
        let sql = "SELECT a.id, a.reading, c.net, c.did, c.epoch, c.bctx, r.piv
                   FROM raised a JOIN reading r ON r.id = a.reading JOIN context c ON c.id = r.ctx
                   WHERE a.id > ?1 AND a.id <= ?2 AND a.reading <= ?3 AND r.flags & ?4 = 0
                   AND (?5 IS NULL OR c.net = ?5) AND (?6 IS NULL OR c.did = ?6)
                   AND (?7 IS NULL OR r.ingested >= ?7) AND (?8 IS NULL OR r.ingested < ?8) ORDER BY a.id LIMIT ?9";
        let time = |t: Option<Millis>| t.map(|t| i64::try_from(t.0).unwrap_or(i64::MAX));
        let (hidden, passed) = (flag::HIDDEN | flag::PRUNED, q.cursor.unwrap_or(0));
        let (net, did) = (q.net.map(|n| n.0), q.device.map(|d| d.0));
        let which = params![after, last, passed, hidden, net, did, time(q.since), time(q.until), q.limit];
        let rows = self.all(sql, which, |r| {
            Ok(RaisedRow {
                id: r.get(0)?,
                reading: r.get(1)?,
                net: Net(r.get(2)?),
                did: Did(r.get(3)?),
                epoch: Epoch(r.get(4)?),
                bctx: boot(&r.get::<_, Vec<u8>>(5)?),
                piv: uint(r.get(6)?),
            })
        })?;
        let is_cut = rows.len() >= q.limit as usize;
        let next = rows.last().map(|r| r.id).filter(|_| is_cut).unwrap_or_else(|| last.max(after));
        Ok(Raised { rows, next })
    }
}
