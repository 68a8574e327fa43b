//! Signed batches: what devices claimed, what was verified of it, and what it proves.

use std::collections::HashMap;

use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, Net};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{Salt, SignedLevel, Subject};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Report;
use fivefold_evidence::log::EntryKind;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::read::{boot, origin_number, uint};
use super::write::int;
use super::{CountKey, Reader, StoreError};
use crate::accepted::signed::{BatchName, Bitmap, Candidate, Chain, Claim, Late, LeafRow, Partial, SignedBatch};
use crate::accepted::{ContextId, flag};
use crate::book::{Dossier, Open, Unsigned};
use crate::cloud::PATIENCE;
use fivefold_core::e4_channel::Origin;

/// Contexts of a device whose messages a claim may be about: a batch closes at renewal, and its signature may come later.
const CONTEXTS: i64 = 6;
/// Statements of before that are looked at, beside those that should precede; and of those, as many.
const STATEMENTS: i64 = 8;
/// Claims of one device that wait for something, at most: the oldest is given up (EV-03). What is all here waits for nothing.
pub const OPEN: usize = 64;
/// Claims of one device that came to nothing and are remembered, so that none is counted twice, at most.
const CLOSED: i64 = 256;
/// Batches of one device of which leaf hashes wait for a signature, at most: those of which any came longest ago are given up.
const GIVEN: i64 = 64;
/// Batches that one reading may complete, at most: an honest device makes three statements about it.
const COMPLETED: i64 = 64;
/// Batches that a device speaks of at a time, at most: a part that waits for its answer goes out again for as long as its message
/// lives, while later batches come and are settled.
const SPOKEN_OF: i64 = 16;
/// Parts of one signature, at most, and bytes of one.
pub const PARTS: u16 = 16;
/// See [`PARTS`].
pub const PART: usize = 128;

/// A part of a signature (docs/protocol.md 7.1, item 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// The device.
    pub did: Did,
    /// In which chain the batch is.
    pub chain: Chain,
    /// Of a classic node whose key it was sealed under, 3 or 2; of others 0. No part displaces one of another level.
    pub level: u8,
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
    /// In which chain the batch is.
    pub chain: Chain,
    /// Number of the batch.
    pub number: u64,
    /// Which is the first, among the readings of the batch.
    pub first: u8,
    /// The hashes.
    pub hashes: Vec<Hash>,
    /// When they came.
    pub at: Millis,
    /// Under what to count those of others that give way.
    pub given_up: CountKey,
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
    /// What devices said they signed, and under what to count those that give way.
    pub claims: Vec<(Claim, CountKey)>,
    /// Parts of such.
    pub parts: Vec<PartRow>,
    /// Leaf hashes.
    pub leaves: Vec<LeavesRow>,
    /// Batches that were verified, with what else was noticed.
    pub signed: Vec<(SignedBatch, Option<CountKey>)>,
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

/// Claims under one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Row of the first: rows go up.
    pub first: Option<i64>,
    /// How many there are.
    pub count: u32,
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
    /// Statements of the same chain: those of this number and of the one before, and the latest others.
    pub statements: Vec<StatementRow>,
    /// Claims of its number, in its chain.
    pub claims: Claims,
    /// Those of the number before.
    pub claims_before: Claims,
}

type Result<T> = rusqlite::Result<T>;

const SAME: &str = "did = ?1 AND number = ?2 AND first = ?3 AND bitmap = ?4 AND signature = ?5";

/// Writes what a [`super::Write`] says of evidence; what is to be counted comes back.
pub(super) fn put(tx: &Transaction<'_>, evidence: &Evidence) -> Result<Vec<(CountKey, u64)>> {
    let mut counts = Vec::new();
    // What was here before gives way first, so that a claim which is decided at once takes nobody's place.
    for (claim, key) in &evidence.claims {
        counts.push((*key, give_way(tx, claim.did)?));
    }
    evidence.claims.iter().try_for_each(|(c, _)| claim(tx, c))?;
    evidence.parts.iter().try_for_each(|p| part(tx, p))?;
    for l in &evidence.leaves {
        counts.push((l.given_up, leaves(tx, l)?));
    }
    for (batch, key) in &evidence.signed {
        if signed(tx, batch)? {
            counts.extend(key.map(|key| (key, 1)));
        }
    }
    for closed in &evidence.closed {
        if close(tx, &closed.claim, closed.state)? {
            counts.push((closed.key, 1));
        }
    }
    counts.retain(|(_, n)| *n > 0);
    Ok(counts)
}

/// Gives up the oldest open claims that are too many. Says how many of them are to be counted.
fn give_way(tx: &Transaction<'_>, did: Did) -> Result<u64> {
    let sql = format!("{CLAIM} FROM batch WHERE did = ? AND state = 0 ORDER BY id DESC LIMIT -1 OFFSET ?");
    let over = tx.prepare_cached(&sql)?.query_map(params![did.0, OPEN as i64], claimed)?.collect::<Result<Vec<_>>>()?;
    let mut counted = 0;
    for claim in over {
        counted += u64::from(close(tx, &claim, State::Incomplete)?);
    }
    Ok(counted)
}

fn part(tx: &Transaction<'_>, p: &PartRow) -> Result<()> {
    // Another division of the same signature, or a batch of long ago: that is of no use. Parts of those that a device still
    // speaks of come in any order.
    tx.prepare_cached(
        "DELETE FROM batch_part WHERE did = ?1 AND level = ?6
         AND (chain <> ?2 OR number = ?3 AND count <> ?4 OR abs(number - ?3) >= ?5)",
    )?
    .execute(params![p.did.0, row_of(p.chain), int(p.number), p.count, SPOKEN_OF, p.level])?;
    tx.prepare_cached(
        "INSERT INTO batch_part (did, chain, level, number, idx, count, bytes, ctx) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (did, chain, level, number, idx) DO UPDATE SET count = ?6, bytes = ?7, ctx = ?8",
    )?
    .execute(params![p.did.0, row_of(p.chain), p.level, int(p.number), p.index, p.count, p.bytes, p.context.0])?;
    Ok(())
}

/// Says how many batches had to give way. Those for which a claim is open do last, and none that its device still speaks of.
/// Of a batch that was decided hashes may come late, or once more: they go first, and are nothing that was given up.
fn leaves(tx: &Transaction<'_>, l: &LeavesRow) -> Result<u64> {
    // A claim does not wait longer for its readings either.
    let expired = l.at.0.saturating_sub(PATIENCE);
    tx.prepare_cached("DELETE FROM batch_leaf WHERE did = ? AND at < ?")?.execute(params![l.did.0, int(expired)])?;
    for (i, hash) in (i64::from(l.first)..).zip(&l.hashes) {
        tx.prepare_cached(
            "INSERT INTO batch_leaf VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (did, chain, number, idx) DO UPDATE SET hash = ?5, at = ?6",
        )?
        .execute(params![l.did.0, row_of(l.chain), int(l.number), i, hash.0, int(l.at.0)])?;
    }
    let claimed =
        "EXISTS (SELECT 1 FROM batch b WHERE b.did = l.did AND b.number = l.number AND b.chain = l.chain AND b.state";
    let sql = format!(
        "SELECT chain, number, {claimed} <> 0) AS decided FROM batch_leaf l WHERE did = ? GROUP BY chain, number
         ORDER BY {claimed} = 0) DESC, decided, max(at) DESC, max(rowid) DESC LIMIT -1 OFFSET ?"
    );
    let over = tx
        .prepare_cached(&sql)?
        .query_map(params![l.did.0, GIVEN], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
        .collect::<Result<Vec<(i64, i64, bool)>>>()?;
    for (chain, number, _) in &over {
        tx.prepare_cached("DELETE FROM batch_leaf WHERE did = ? AND chain = ? AND number = ?")?
            .execute(params![l.did.0, chain, number])?;
    }
    Ok(over.iter().filter(|(_, _, decided)| !decided).count() as u64)
}

/// As it stands in the store.
const fn row_of(chain: Chain) -> i64 {
    match chain {
        Chain::Boot(context) => context.0,
        Chain::Device => 0,
    }
}

const fn chain_of(row: i64) -> Chain {
    match row {
        0 => Chain::Device,
        context => Chain::Boot(ContextId(context)),
    }
}

const fn bits(bits: u64) -> i64 {
    i64::from_le_bytes(bits.to_le_bytes())
}

fn claim(tx: &Transaction<'_>, c: &Claim) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO batch (did, chain, number, first, bitmap, signature, ctx, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        c.did.0,
        row_of(c.chain),
        int(c.number),
        int(c.first),
        c.bitmap.as_bytes(),
        &c.signature[..],
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
        "UPDATE batch SET state = 1, ctx = ?6, missing = ?7, statement = ?8, leaves = ?9, cose = ?10, chain = ?11
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
                &c.signature[..],
                p.context.0,
                bits(p.missing),
                p.statement.0,
                leaves,
                p.cose,
                row_of(c.chain)
            ],
            |r| r.get(0),
        )
        .optional()?;
    let Some(id) = id else { return Ok(false) };
    proves(tx, id, &p.readings)?;
    // One that was missing may have come since it was weighed.
    complete(tx, id)?;
    // It is called verified, so it goes to the log (W9).
    super::log::queue(tx, EntryKind::Batch, id)?;
    // They are in its leaves now.
    for table in ["batch_part", "batch_leaf"] {
        let sql = format!("DELETE FROM {table} WHERE did = ? AND chain = ? AND number = ?");
        tx.prepare_cached(&sql)?.execute(params![c.did.0, row_of(c.chain), int(c.number)])?;
    }
    Ok(true)
}

/// A reading was written: batches that were verified without it may be waiting for it.
pub(super) fn arrived(tx: &Transaction<'_>, context: ContextId, piv: u64) -> Result<()> {
    let sql = "SELECT id FROM batch WHERE ctx = ? AND missing <> 0 AND first BETWEEN ? AND ? ORDER BY id LIMIT ?";
    let waiting = tx
        .prepare_cached(sql)?
        .query_map(params![context.0, int(piv.saturating_sub(63)), int(piv), COMPLETED], |r| r.get(0))?
        .collect::<Result<Vec<i64>>>()?;
    waiting.into_iter().try_for_each(|id| complete(tx, id))
}

/// Looks for what is missing of a verified batch. The same transaction that writes the later of both, reading or verification,
/// comes here: there is no moment between them.
fn complete(tx: &Transaction<'_>, id: i64) -> Result<()> {
    let sql = format!("{CLAIM}, missing, leaves FROM batch WHERE id = ? AND missing <> 0");
    let partial = tx.prepare_cached(&sql)?.query_row([id], partial).optional()?;
    let Some(partial) = partial else { return Ok(()) };
    let sql = format!("SELECT {SUBJECT} FROM context WHERE id = ?");
    let subject = |r: &Row<'_>| subject(partial.claim.did, r);
    let Some((context, subject)) = tx.prepare_cached(&sql)?.query_row([partial.claim.context.0], subject).optional()?
    else {
        return Ok(());
    };
    let mut rows = leaf_rows(tx, context, &partial.claim)?;
    rows.retain(|r| r.piv.checked_sub(partial.claim.first).is_some_and(|j| j < 64 && partial.missing >> j & 1 == 1));
    let Some(late) = Late::of(&partial, &Candidate { context, subject, rows }) else { return Ok(()) };
    tx.prepare_cached("UPDATE batch SET missing = ? WHERE id = ?")?.execute(params![bits(late.missing()), id])?;
    proves(tx, id, late.readings())
}

fn partial(r: &Row<'_>) -> Result<Partial> {
    let missing = u64::from_le_bytes(r.get::<_, i64>(8)?.to_le_bytes());
    let leaves: Vec<u8> = r.get(9)?;
    let leaves = leaves.chunks_exact(32).filter_map(|l| l.try_into().ok().map(Hash)).collect();
    Ok(Partial { claim: claimed(r)?, leaves, missing })
}

const SUBJECT: &str = "id, level, epoch, bctx";

/// What the leaves of a context have in common.
fn subject(did: Did, r: &Row<'_>) -> Result<(ContextId, Subject)> {
    let bctx: Vec<u8> = r.get(3)?;
    Ok((ContextId(r.get(0)?), subject_of(did, (r.get(1)?, Epoch(r.get(2)?), &bctx))))
}

/// Contexts whose messages may be leaves: of OSCORE, and of the keys of hardened classic nodes (`key`, level, epoch). A run of a
/// gateway that happens to begin so has no row with a salt.
pub(super) const OF_SUBJECTS: &str =
    "(level > 1 OR (substr(bctx, 1, 3) = x'6b6579' AND substr(bctx, 4, 1) IN (x'02', x'03')
                                      AND substr(bctx, 5, 2) = x'0000'))";

/// What all leaves of one of those have in common, by its level, epoch and boot.
pub(super) fn subject_of(did: Did, (level, epoch, bctx): (u8, Epoch, &[u8])) -> Subject {
    let (level, epoch, bctx) = match (level, bctx) {
        (1, &[b'k', b'e', b'y', level, _, _, high, low]) => (level, Epoch(u16::from_be_bytes([high, low])), None),
        _ => (level, epoch, boot(bctx)),
    };
    let level = if level == 3 { SignedLevel::Cloud } else { SignedLevel::Gateway };
    Subject { level, did, epoch, bctx }
}

/// What was signed of a message that is stored: of a classic one (level 1) the frame that was opened.
pub(super) fn as_signed(level: u8, payload: Vec<u8>) -> Vec<u8> {
    match Report::parse(&payload) {
        Ok(Report { inner: Some(inner), .. }) if level == 1 => inner.to_vec(),
        _ => payload,
    }
}

/// The messages of a context under the numbers of a claim.
fn leaf_rows(db: &Connection, context: ContextId, claim: &Claim) -> Result<Vec<LeafRow>> {
    let sql = "SELECT r.id, r.piv, l.salt, r.payload, r.flags, c.level
               FROM reading r JOIN leaf l ON l.reading = r.id JOIN context c ON c.id = r.ctx
               WHERE r.ctx = ? AND r.piv BETWEEN ? AND ? AND r.flags & ? = 0 ORDER BY r.piv, r.variant";
    let last = int(claim.first).saturating_add(63);
    let mut rows = db
        .prepare_cached(sql)?
        .query_map(params![context.0, int(claim.first), last, flag::REFUSED], |r| {
            Ok(LeafRow {
                reading: r.get(0)?,
                piv: uint(r.get(1)?),
                salt: Salt(r.get(2)?),
                payload: as_signed(r.get(5)?, r.get(3)?),
                is_hidden: r.get::<_, u8>(4)? & flag::QUARANTINED != 0,
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    rows.retain(|r| claim.covers(r.piv));
    Ok(rows)
}

/// Nothing else makes a reading `signed`, and what proves it first stays its proof. What was quarantined meanwhile stays what it was, and so does what nothing but the
/// link protected. Of classic frames hardened ones alone have a leaf. What is held is held all the same: it has its label when
/// it is released.
fn proves(tx: &Transaction<'_>, batch: i64, readings: &[i64]) -> Result<()> {
    for reading in readings {
        tx.prepare_cached("UPDATE leaf SET batch = ? WHERE reading = ? AND batch IS NULL")?
            .execute([batch, *reading])?;
        let raised = tx
            .prepare_cached("UPDATE reading SET origin = ? WHERE id = ? AND flags & ? = 0 AND origin IN (?, ?, ?)")?
            .execute(params![
                origin_number(Origin::Signed),
                reading,
                flag::QUARANTINED | flag::REFUSED,
                origin_number(Origin::Node),
                origin_number(Origin::Legacy),
                origin_number(Origin::Gateway(fivefold_core::id::GatewayId(0)))
            ])?;
        if raised > 0 {
            super::raised::put(tx, *reading)?;
        }
    }
    Ok(())
}

/// Whether that is news, and to be counted: it is not where the same readings are in a batch that was verified, or given up
/// before under another statement.
fn close(tx: &Transaction<'_>, c: &Claim, state: State) -> Result<bool> {
    let sql = format!("UPDATE batch SET state = ?6 WHERE {SAME} AND state = 0");
    let changed = tx.prepare_cached(&sql)?.execute(params![
        c.did.0,
        int(c.number),
        int(c.first),
        c.bitmap.as_bytes(),
        &c.signature[..],
        state.number()
    ])?;
    // Those of long ago are told from nothing any more: no statement to come names one.
    let sql = "DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE did = ? AND state > 1 ORDER BY id DESC LIMIT -1 OFFSET ?)";
    tx.prepare_cached(sql)?.execute(params![c.did.0, CLOSED])?;
    if changed == 0 || state == State::Invalid {
        return Ok(changed != 0);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM batch WHERE did = ?1 AND number = ?2 AND first = ?3 AND chain = ?6
               AND (state = 1 OR state = 3 AND NOT (bitmap = ?4 AND signature = ?5)))";
    let same = params![c.did.0, int(c.number), int(c.first), c.bitmap.as_bytes(), &c.signature[..], row_of(c.chain)];
    let elsewhere: bool = tx.prepare_cached(sql)?.query_row(same, |r| r.get(0))?;
    Ok(!elsewhere)
}

const CLAIM: &str = "SELECT did, number, first, bitmap, signature, ctx, at, chain";

fn claimed(r: &Row<'_>) -> Result<Claim> {
    Ok(Claim {
        did: Did(r.get(0)?),
        chain: chain_of(r.get(7)?),
        number: uint(r.get(1)?),
        first: uint(r.get(2)?),
        bitmap: Bitmap::new(&r.get::<_, Vec<u8>>(3)?).ok_or(rusqlite::Error::InvalidQuery)?,
        signature: r.get::<_, Vec<u8>>(4)?.into(),
        context: ContextId(r.get(5)?),
        at: Millis(uint(r.get(6)?)),
    })
}

impl Reader {
    /// What is open of every device's evidence: at most [`OPEN`] claims of each, by the transaction that takes them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dossiers(&self) -> std::result::Result<Vec<(Did, Dossier)>, StoreError> {
        let mut all: HashMap<Did, Dossier> = HashMap::new();
        for claim in self.all(&format!("{CLAIM} FROM batch WHERE state = 0 ORDER BY id"), [], claimed)? {
            all.entry(claim.did).or_default().open.push(Open { claim, asked: 0 });
        }
        let sql = "SELECT did, max(id) FROM batch GROUP BY did";
        for (did, last) in self.all(sql, [], |r| Ok((Did(r.get(0)?), r.get(1)?)))? {
            all.entry(did).or_default().claimed_before = Some(last);
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
        let chain = row_of(claim.chain);
        let sql = format!("SELECT state FROM batch WHERE {SAME}");
        let same = params![did, number, first, claim.bitmap.as_bytes(), &claim.signature[..]];
        let state = self.all(&sql, same, |r| State::from_number(r.get(0)?).ok_or(rusqlite::Error::InvalidQuery))?;
        // A boot signs its own messages; else a batch closes at renewal, and its signature may come later. Of a classic node
        // nothing that a gateway opened speaks of what was sealed for the cloud.
        let sql = format!(
            "SELECT {SUBJECT} FROM context WHERE net = ?1 AND did = ?2 AND {OF_SUBJECTS}
             AND (id = ?3 OR ?4 = 0 AND (bctx = x'' OR level = 1 AND substr(bctx, 4, 1) =
                  (SELECT substr(c.bctx, 4, 1) FROM context c WHERE c.id = ?3))) ORDER BY id = ?3 DESC, id DESC LIMIT ?5"
        );
        let contexts =
            self.all(&sql, params![net.0, did, claim.context.0, chain, CONTEXTS], |r| subject(claim.did, r))?;
        let mut candidates = Vec::new();
        for (context, subject) in contexts {
            let rows = self.ask(|db| leaf_rows(db, context, claim))?;
            if !rows.is_empty() {
                candidates.push(Candidate { context, subject, rows });
            }
        }
        let sql = "SELECT idx, hash FROM batch_leaf WHERE did = ? AND chain = ? AND number = ? ORDER BY idx";
        let given = self.all(sql, params![did, chain, number], |r| Ok((r.get(0)?, Hash(r.get(1)?))))?;
        let statement = |r: &Row<'_>| {
            Ok(StatementRow {
                number: uint(r.get(0)?),
                hash: Hash(r.get(1)?),
                context: ContextId(r.get(2)?),
                first: uint(r.get(3)?),
                bitmap: Bitmap::new(&r.get::<_, Vec<u8>>(4)?).ok_or(rusqlite::Error::InvalidQuery)?,
            })
        };
        let of = "SELECT number, statement, ctx, first, bitmap FROM batch WHERE did = ?1 AND chain = ?2 AND state = 1";
        let of_number = format!("{of} AND number = ?3 ORDER BY id DESC LIMIT ?4");
        let mut statements = Vec::new();
        for number in [Some(number), number.checked_sub(1)].into_iter().flatten() {
            statements.extend(self.all(&of_number, params![did, chain, number, STATEMENTS], statement)?);
        }
        let latest = format!("{of} ORDER BY id DESC LIMIT ?3");
        for latest in self.all(&latest, params![did, chain, STATEMENTS], statement)? {
            if !statements.contains(&latest) {
                statements.push(latest);
            }
        }
        let sql = "SELECT min(id), count(*) FROM batch WHERE did = ? AND number = ? AND chain = ?";
        let row = |r: &Row<'_>| Ok(Claims { first: r.get(0)?, count: r.get(1)? });
        let claims = self.all(sql, params![did, number, chain], row)?.pop().unwrap_or_default();
        let claims_before = self.all(sql, params![did, number - 1, chain], row)?.pop().unwrap_or_default();
        Ok(BatchPast { state: state.into_iter().next(), candidates, given, statements, claims, claims_before })
    }

    /// The signature of a batch whose parts are all here, of this level or else of any: its bytes, one after the other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_parts(
        &self,
        did: Did,
        batch: BatchName,
        level: Option<u8>,
    ) -> std::result::Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT level, count, bytes FROM batch_part
                   WHERE did = ?1 AND chain = ?2 AND number = ?3 AND level = coalesce(?4, level) ORDER BY level, idx";
        let at = params![did.0, row_of(batch.chain), int(batch.number), level];
        let parts: Vec<(u8, u16, Vec<u8>)> = self.all(sql, at, |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let is_whole = |of: &&[(u8, u16, Vec<u8>)]| of.first().is_some_and(|(_, n, _)| usize::from(*n) == of.len());
        let whole = parts.chunk_by(|a, b| a.0 == b.0).find(is_whole);
        Ok(whole.map(|parts| parts.iter().flat_map(|(.., bytes)| bytes).copied().collect()))
    }

    /// The last part of each signature of a device whose parts are all here and of whose batch there is no claim: whoever made
    /// them durable did not live to write it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unclaimed_parts(&self, did: Did) -> std::result::Result<Vec<PartRow>, StoreError> {
        let sql = "SELECT chain, level, number, idx, count, bytes, ctx FROM batch_part p WHERE did = ? AND idx = count - 1
                   AND count = (SELECT count(*) FROM batch_part q WHERE q.did = p.did AND q.chain = p.chain
                                AND q.level = p.level AND q.number = p.number)
                   AND NOT EXISTS (SELECT 1 FROM batch b WHERE b.did = p.did AND b.number = p.number AND b.chain = p.chain)";
        self.all(sql, [did.0], |r| {
            Ok(PartRow {
                did,
                chain: chain_of(r.get(0)?),
                level: r.get(1)?,
                number: uint(r.get(2)?),
                index: r.get(3)?,
                count: r.get(4)?,
                bytes: r.get(5)?,
                context: ContextId(r.get(6)?),
            })
        })
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
