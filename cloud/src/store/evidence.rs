//! Signed batches: what devices claimed, what was verified of it, and what it proves.

use std::collections::HashMap;

use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, Net};
use fivefold_core::proof::Signature;
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{Salt, SignedLevel, Subject};
use fivefold_core::time::Millis;
use fivefold_evidence::log::EntryKind;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::read::{boot, origin_number, uint};
use super::write::int;
use super::{CountKey, Reader, StoreError};
use crate::accepted::signed::{Bitmap, Candidate, Claim, Late, LeafRow, Partial, SignedBatch};
use crate::accepted::{ContextId, flag};
use crate::book::{Dossier, Open, Unsigned};
use fivefold_core::e4_channel::Origin;

/// Contexts of a device whose messages a claim may be about: a batch closes at renewal, and its signature may come later.
const CONTEXTS: i64 = 6;
/// Statements of before that are looked at, beside those that should precede.
const STATEMENTS: i64 = 8;
/// Parts of one signature, at most, and bytes of one.
pub const PARTS: u16 = 16;
/// See [`PARTS`].
pub const PART: usize = 128;

/// A part of a signature (docs/protocol.md 7.1, item 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// The device.
    pub did: Did,
    /// Number of the batch.
    pub number: u64,
    /// Which part, from 0.
    pub index: u16,
    /// How many parts.
    pub count: u16,
    /// The part.
    pub bytes: Vec<u8>,
    /// The context it came under.
    pub context: ContextId,
}

/// Leaf hashes (docs/protocol.md 7.1, item 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavesRow {
    /// The device.
    pub did: Did,
    /// Number of the batch.
    pub number: u64,
    /// Which is the first, among the readings of the batch.
    pub first: u8,
    /// The hashes.
    pub hashes: Vec<Hash>,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    Open,
    /// Verified.
    Verified,
    /// The signature does not hold (EV-01).
    Invalid,
    /// It cannot be completed (EV-03).
    Incomplete,
}

impl State {
    const fn number(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Verified => 1,
            Self::Invalid => 2,
            Self::Incomplete => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Open),
            1 => Some(Self::Verified),
            2 => Some(Self::Invalid),
            3 => Some(Self::Incomplete),
            _ => None,
        }
    }
}

/// A claim that comes to nothing, and under what to count that, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The claim.
    pub claim: Claim,
    /// [`State::Invalid`] or [`State::Incomplete`].
    pub state: State,
    /// With its code.
    pub key: CountKey,
}

/// What one write says of evidence.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What devices said they signed.
    pub claims: Vec<Claim>,
    /// Parts of such.
    pub parts: Vec<PartRow>,
    /// Leaf hashes.
    pub leaves: Vec<LeavesRow>,
    /// Batches that were verified, with what else was noticed.
    pub signed: Vec<(SignedBatch, Option<CountKey>)>,
    /// Readings that came after their batch was verified.
    pub late: Vec<Late>,
    /// Claims that come to nothing.
    pub closed: Vec<Closed>,
}

impl Evidence {
    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.claims.is_empty()
            && self.parts.is_empty()
            && self.leaves.is_empty()
            && self.signed.is_empty()
            && self.late.is_empty()
            && self.closed.is_empty()
    }
}

/// A statement that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementRow {
    /// Number of the batch.
    pub number: u64,
    /// SHA-256 of it.
    pub hash: Hash,
    /// The context of its readings.
    pub context: ContextId,
    /// Sender number that bit 0 of the bitmap stands for.
    pub first: u64,
    /// Which numbers.
    pub bitmap: Bitmap,
}

/// What is known that a claim may be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPast {
    /// What became of it so far; `None` if it is not known.
    pub state: Option<State>,
    /// Contexts with messages under its numbers; that under which it came first.
    pub candidates: Vec<Candidate>,
    /// Leaf hashes that the device gave, by index.
    pub given: Vec<(u8, Hash)>,
    /// Statements of the device: those of this number and of the one before, and the latest others.
    pub statements: Vec<StatementRow>,
    /// How many claims there are of the number before.
    pub claims_before: u32,
}

type Result<T> = rusqlite::Result<T>;

const SAME: &str = "did = ?1 AND number = ?2 AND first = ?3 AND bitmap = ?4 AND signature = ?5";

/// Writes what a [`super::Write`] says of evidence; what is to be counted comes back.
pub(super) fn put(tx: &Transaction<'_>, evidence: &Evidence) -> Result<Vec<(CountKey, u64)>> {
    let mut counts = Vec::new();
    evidence.claims.iter().try_for_each(|c| claim(tx, c))?;
    for p in &evidence.parts {
        // Another division of the same signature, or another signature: what is older is of no use.
        tx.prepare_cached("DELETE FROM batch_part WHERE did = ? AND (number <> ? OR count <> ?)")?.execute(params![
            p.did.0,
            int(p.number),
            p.count
        ])?;
        tx.prepare_cached(
            "INSERT INTO batch_part VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (did, number, idx) DO UPDATE SET count = ?4, bytes = ?5",
        )?
        .execute(params![p.did.0, int(p.number), p.index, p.count, p.bytes])?;
    }
    for l in &evidence.leaves {
        for (i, hash) in (i64::from(l.first)..).zip(&l.hashes) {
            tx.prepare_cached(
                "INSERT INTO batch_leaf VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (did, number, idx) DO UPDATE SET hash = ?4",
            )?
            .execute(params![l.did.0, int(l.number), i, hash.0])?;
        }
    }
    for (batch, key) in &evidence.signed {
        if signed(tx, batch)? {
            counts.extend(key.map(|key| (key, 1)));
        }
    }
    for late in &evidence.late {
        let c = late.claim();
        let sql = format!("UPDATE batch SET missing = missing & ?6 WHERE {SAME} AND state = 1 RETURNING id");
        let id: Option<i64> = tx
            .prepare_cached(&sql)?
            .query_row(
                params![c.did.0, int(c.number), int(c.first), c.bitmap.as_bytes(), c.signature.0, bits(late.missing())],
                |r| r.get(0),
            )
            .optional()?;
        if let Some(id) = id {
            proves(tx, id, late.readings())?;
        }
    }
    for closed in &evidence.closed {
        if close(tx, closed)? {
            counts.push((closed.key, 1));
        }
    }
    Ok(counts)
}

const fn bits(bits: u64) -> i64 {
    i64::from_le_bytes(bits.to_le_bytes())
}

fn claim(tx: &Transaction<'_>, c: &Claim) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO batch (did, number, first, bitmap, signature, ctx, at) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        c.did.0,
        int(c.number),
        int(c.first),
        c.bitmap.as_bytes(),
        c.signature.0,
        c.context.0,
        int(c.at.0)
    ])?;
    Ok(())
}

/// Whether it was not known as verified before.
fn signed(tx: &Transaction<'_>, batch: &SignedBatch) -> Result<bool> {
    let p = batch.proven();
    let c = &p.claim;
    let leaves: Vec<u8> = p.leaves.iter().flat_map(|l| l.0).collect();
    let sql = format!(
        "UPDATE batch SET state = 1, ctx = ?6, missing = ?7, statement = ?8, leaves = ?9, cose = ?10
         WHERE {SAME} AND state <> 1 RETURNING id"
    );
    let id: Option<i64> = tx
        .prepare_cached(&sql)?
        .query_row(
            params![
                c.did.0,
                int(c.number),
                int(c.first),
                c.bitmap.as_bytes(),
                c.signature.0,
                p.context.0,
                bits(p.missing),
                p.statement.0,
                leaves,
                p.cose
            ],
            |r| r.get(0),
        )
        .optional()?;
    let Some(id) = id else { return Ok(false) };
    proves(tx, id, &p.readings)?;
    // It is called verified, so it goes to the log (W9).
    super::log::queue(tx, EntryKind::Batch, id)?;
    // They are in its leaves now.
    for table in ["batch_part", "batch_leaf"] {
        let sql = format!("DELETE FROM {table} WHERE did = ? AND number = ?");
        tx.prepare_cached(&sql)?.execute(params![c.did.0, int(c.number)])?;
    }
    Ok(true)
}

/// Nothing else makes a reading `signed`. What was quarantined meanwhile stays what it was, and so do frames of classic
/// nodes and what nothing but the link protected.
fn proves(tx: &Transaction<'_>, batch: i64, readings: &[i64]) -> Result<()> {
    for reading in readings {
        tx.prepare_cached("UPDATE leaf SET batch = ? WHERE reading = ?")?.execute([batch, *reading])?;
        tx.prepare_cached("UPDATE reading SET origin = ? WHERE id = ? AND flags & ? = 0 AND origin IN (?, ?)")?
            .execute(params![
                origin_number(Origin::Signed),
                reading,
                flag::QUARANTINED | flag::REFUSED,
                origin_number(Origin::Node),
                origin_number(Origin::Gateway(fivefold_core::id::GatewayId(0)))
            ])?;
    }
    Ok(())
}

/// Whether that is news, and to be counted: it is not where the same readings are in a batch that was verified.
fn close(tx: &Transaction<'_>, closed: &Closed) -> Result<bool> {
    let c = &closed.claim;
    let sql = format!("UPDATE batch SET state = ?6 WHERE {SAME} AND state = 0");
    let changed = tx.prepare_cached(&sql)?.execute(params![
        c.did.0,
        int(c.number),
        int(c.first),
        c.bitmap.as_bytes(),
        c.signature.0,
        closed.state.number()
    ])?;
    if changed == 0 || closed.state == State::Invalid {
        return Ok(changed != 0);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM batch WHERE did = ? AND number = ? AND first = ? AND state = 1)";
    let elsewhere: bool =
        tx.prepare_cached(sql)?.query_row(params![c.did.0, int(c.number), int(c.first)], |r| r.get(0))?;
    Ok(!elsewhere)
}

const CLAIM: &str = "SELECT did, number, first, bitmap, signature, ctx, at";

fn claimed(r: &Row<'_>) -> Result<Claim> {
    Ok(Claim {
        did: Did(r.get(0)?),
        number: uint(r.get(1)?),
        first: uint(r.get(2)?),
        bitmap: Bitmap::new(&r.get::<_, Vec<u8>>(3)?).ok_or(rusqlite::Error::InvalidQuery)?,
        signature: Signature(r.get(4)?),
        context: ContextId(r.get(5)?),
        at: Millis(uint(r.get(6)?)),
    })
}

impl Reader {
    /// What is open of every device's evidence.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dossiers(&self) -> std::result::Result<Vec<(Did, Dossier)>, StoreError> {
        let mut all: HashMap<Did, Dossier> = HashMap::new();
        for claim in self.all(&format!("{CLAIM} FROM batch WHERE state = 0 ORDER BY id"), [], claimed)? {
            all.entry(claim.did).or_default().open.push(Open { claim, asked: 0 });
        }
        let sql = format!("{CLAIM}, missing, leaves FROM batch WHERE state = 1 AND missing <> 0 ORDER BY id");
        let partial = self.all(&sql, [], |r| {
            let missing = u64::from_le_bytes(r.get::<_, i64>(7)?.to_le_bytes());
            let leaves: Vec<u8> = r.get(8)?;
            let leaves = leaves.chunks_exact(32).filter_map(|l| l.try_into().ok().map(Hash)).collect();
            let claim = claimed(r)?;
            Ok(Partial { context: claim.context, claim, leaves, missing })
        })?;
        for partial in partial {
            let known = &mut all.entry(partial.claim.did).or_default().partial;
            known.push(partial);
            if known.len() > Dossier::MOST {
                known.remove(0);
            }
        }
        let sql = "SELECT c.did, min(r.ingested), count(*)
                   FROM leaf l JOIN reading r ON r.id = l.reading JOIN context c ON c.id = r.ctx
                   WHERE l.batch IS NULL
                   AND r.ingested > coalesce((SELECT max(at) FROM batch WHERE batch.did = c.did), 0) GROUP BY c.did";
        let unsigned =
            self.all(sql, [], |r| Ok((Did(r.get(0)?), Unsigned { since: Millis(uint(r.get(1)?)), count: r.get(2)? })))?;
        for (did, unsigned) in unsigned {
            all.entry(did).or_default().unsigned = Some(unsigned);
        }
        Ok(all.into_iter().collect())
    }

    /// What is known that a claim of a device of this network may be about.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_past(&self, net: Net, claim: &Claim) -> std::result::Result<BatchPast, StoreError> {
        let (did, number, first) = (claim.did.0, int(claim.number), int(claim.first));
        let last = first.saturating_add(63);
        let sql = format!("SELECT state FROM batch WHERE {SAME}");
        let same = params![did, number, first, claim.bitmap.as_bytes(), claim.signature.0];
        let state = self.all(&sql, same, |r| State::from_number(r.get(0)?).ok_or(rusqlite::Error::InvalidQuery))?;
        let sql = "SELECT id, level, epoch, bctx FROM context WHERE net = ? AND did = ? AND level > 1
                   ORDER BY id = ? DESC, id DESC LIMIT ?";
        let contexts = self.all(sql, params![net.0, did, claim.context.0, CONTEXTS], |r| {
            let level = if r.get::<_, u8>(1)? == 3 { SignedLevel::Cloud } else { SignedLevel::Gateway };
            let (epoch, bctx) = (Epoch(r.get(2)?), boot(&r.get::<_, Vec<u8>>(3)?));
            Ok((ContextId(r.get(0)?), Subject { level, did: claim.did, epoch, bctx }))
        })?;
        let sql = "SELECT r.id, r.piv, l.salt, r.payload, r.flags FROM reading r JOIN leaf l ON l.reading = r.id
                   WHERE r.ctx = ? AND r.piv BETWEEN ? AND ? AND r.flags & ? = 0 ORDER BY r.piv, r.variant";
        let mut candidates = Vec::new();
        for (context, subject) in contexts {
            let rows = self.all(sql, params![context.0, first, last, flag::REFUSED], |r| {
                Ok(LeafRow {
                    reading: r.get(0)?,
                    piv: uint(r.get(1)?),
                    salt: Salt(r.get(2)?),
                    payload: r.get(3)?,
                    is_hidden: r.get::<_, u8>(4)? & flag::QUARANTINED != 0,
                })
            })?;
            let rows: Vec<LeafRow> = rows.into_iter().filter(|r| claim.covers(r.piv)).collect();
            if !rows.is_empty() {
                candidates.push(Candidate { context, subject, rows });
            }
        }
        let sql = "SELECT idx, hash FROM batch_leaf WHERE did = ? AND number = ? ORDER BY idx";
        let given = self.all(sql, params![did, number], |r| Ok((r.get(0)?, Hash(r.get(1)?))))?;
        let sql = "SELECT number, statement, ctx, first, bitmap FROM batch WHERE did = ?1 AND state = 1
                   AND (number IN (?2, ?2 - 1) OR id IN (SELECT id FROM batch WHERE did = ?1 AND state = 1
                   ORDER BY id DESC LIMIT ?3)) ORDER BY id DESC LIMIT 64";
        let statements = self.all(sql, params![did, number, STATEMENTS], |r| {
            Ok(StatementRow {
                number: uint(r.get(0)?),
                hash: Hash(r.get(1)?),
                context: ContextId(r.get(2)?),
                first: uint(r.get(3)?),
                bitmap: Bitmap::new(&r.get::<_, Vec<u8>>(4)?).ok_or(rusqlite::Error::InvalidQuery)?,
            })
        })?;
        let sql = "SELECT count(*) FROM batch WHERE did = ? AND number = ? - 1";
        let claims_before = self.all(sql, params![did, number], |r| r.get(0))?.pop().unwrap_or(0);
        Ok(BatchPast { state: state.into_iter().next(), candidates, given, statements, claims_before })
    }

    /// The signature of a batch whose parts are all here: its bytes, one after the other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_parts(&self, did: Did, number: u64) -> std::result::Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT count, bytes FROM batch_part WHERE did = ? AND number = ? ORDER BY idx";
        let parts: Vec<(u16, Vec<u8>)> = self.all(sql, params![did.0, int(number)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let whole = parts.first().is_some_and(|(count, _)| usize::from(*count) == parts.len());
        Ok(whole.then(|| parts.into_iter().flat_map(|(_, bytes)| bytes).collect()))
    }

    /// How many batches of a device there are in this state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batches(&self, did: Did, state: State) -> std::result::Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM batch WHERE did = ? AND state = ?";
        Ok(self.all(sql, params![did.0, state.number()], |r| r.get(0))?.pop().map_or(0, uint))
    }
}

/// The code of a claim that comes to nothing.
impl Closed {
    /// With what to count: [`State::Invalid`] is EV-01, all else EV-03.
    pub const fn new(claim: Claim, state: State, key: CountKey) -> Self {
        let code = match state {
            State::Invalid => Code::EvidenceSignature,
            _ => Code::EvidenceIncomplete,
        };
        Self { claim, state, key: CountKey { code, ..key } }
    }
}
