//! Carries out steps of pruning, and knows how much of each part there is.
//!
//! A row is ledger and reading in one. First what it says goes, with all that stands beside it; the row stays, and knows a
//! repeat. It goes too when no repeat can be a reading any more (docs/protocol.md 8.1): when the keys of its context are
//! erased, so that nothing opens under it. The newest row of each table stays: ids are never used again.

use fivefold_core::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::read::uint;
use super::write::int;
use super::{Reader, StoreError};
use crate::accepted::flag;
use crate::book::{DRAIN, STALE};
use crate::limits::{Part, Step, Taken, UNPROVEN};

/// What a row of the ledger takes, with its place in the index, about.
const ROW: i64 = 100;
/// The same of one in quarantine, beside what is in it; of an explanation; of an alarm; and of an envelope that was heard.
const ASIDE: i64 = 60;
const WHY: i64 = 240;
const ALARM: i64 = 130;
const HEARD: i64 = 40;
/// Readings that something needed and that are looked at again in a step, at most: the oldest.
const AGAIN: u32 = 256;
/// Rows of the log that one step looks at for each so many of others: each has a batch with it.
const BATCH: u32 = 8;
/// Contexts that one step looks at, at most.
const CONTEXTS: u32 = 2_000;
/// Rows among which the newest is looked for: a gateway that was away brings old ones in between.
const LATE: u32 = 1_000;
/// Contexts that drained are left alone for so long after their keys were erased.
const SETTLED: u64 = DRAIN + STALE + 24 * 3600 * 1000;

/// What a reading says, with what stands beside it, takes so much, about.
const WEIGHT: &str = "(length(r.payload) + CASE WHEN l.reading IS NULL THEN 0 ELSE 45 END
    + CASE WHEN k.reading IS NULL THEN 0 ELSE 110 + length(k.content)
        + (SELECT coalesce(sum(110 + length(v.value)), 0) FROM classic_value v WHERE v.reading = r.id)
        + coalesce((SELECT 60 + length(w.raw) FROM classic_cloud w WHERE w.reading = r.id), 0) END)";
const CONTENTS: &str = "reading r LEFT JOIN leaf l ON l.reading = r.id LEFT JOIN classic k ON k.reading = r.id";
/// What an entry of the log proves with, where that is kept.
const PROOF: &str = "coalesce(length(b.leaves), 0) + coalesce(length(b.cose), 0)
    + coalesce(length(r.cose) + coalesce(length(r.others), 0)
        + (SELECT coalesce(sum(40 + length(h.envelope) + coalesce(length(h.path), 0)), 0) FROM heard h
           WHERE h.receipt = r.id), 0)";
const PROOFS: &str = "log_entry e LEFT JOIN batch b ON e.kind = 'b1' AND b.id = e.ref
    LEFT JOIN receipt r ON e.kind = 'g1' AND r.id = e.ref";

/// What is kept of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize {
    /// Of what.
    pub part: Part,
    /// Rows.
    pub rows: u64,
    /// What they take, about.
    pub bytes: u64,
    /// When the oldest came.
    pub oldest: Option<Millis>,
    /// Rows that were pruned since the store was made.
    pub pruned: u64,
    /// What came before may be pruned.
    pub till: Option<Millis>,
}

/// What came to a table since it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Grown {
    from: i64,
    upto: i64,
    rows: i64,
    bytes: i64,
}

/// What came since the store was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    readings: Grown,
    ledger: Grown,
    refusals: Grown,
    evidence: Grown,
    is_all: bool,
}

impl Measured {
    /// Whether nothing is left to be measured.
    pub const fn is_all(&self) -> bool {
        self.is_all
    }

    fn is_empty(&self) -> bool {
        [self.readings, self.refusals, self.evidence].iter().all(|g| g.upto == g.from)
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Rows that were pruned.
    pub rows: u64,
    /// Whether nothing more is due.
    pub is_done: bool,
}

/// What the writer does between two groups.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Measured(Measured),
    Prune(Step),
}

type Result<T> = rusqlite::Result<T>;

/// Carries out a task. Where the disk is full, the journal is what holds the room: it goes into the file, and the task is tried
/// once more.
pub(super) fn carry_out(db: &mut Connection, task: &Task) -> Result<Stepped> {
    once(db, task).or_else(|error| {
        let written: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
        if written == 0 { once(db, task) } else { Err(error) }
    })
}

/// In a transaction of its own: if it fails, nothing of it happened.
fn once(db: &mut Connection, task: &Task) -> Result<Stepped> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let stepped = match task {
        Task::Measured(measured) => grow(&tx, measured),
        Task::Prune(step) => {
            // Since somebody looked a label may have been raised, of a reading that a sink has had for long.
            let is_floored = matches!(step.part, Part::Readings | Part::Ledger);
            let unsent = if is_floored { super::outbox::floor(&tx)? } else { None };
            let step = &Step { floor: step.floor.min(unsent.unwrap_or(i64::MAX)), ..*step };
            match step.part {
                Part::Readings => contents(&tx, step),
                Part::Ledger => rows(&tx, step),
                Part::Refusals => refusals(&tx, step),
                Part::Alarms => super::alarms::prune(&tx, step, (step.excess / ALARM as u64) as i64),
                Part::Evidence => evidence(&tx, step),
            }
        }
    }?;
    if let Task::Prune(step) = task {
        tx.prepare_cached("UPDATE part SET gone = gone + ? WHERE name = ?")?
            .execute(params![int(stepped.rows), step.part.as_str()])?;
    }
    tx.commit()?;
    Ok(stepped)
}

fn grow(tx: &Transaction<'_>, m: &Measured) -> Result<Stepped> {
    let parts = [
        (Part::Readings, m.readings),
        (Part::Ledger, m.ledger),
        (Part::Refusals, m.refusals),
        (Part::Evidence, m.evidence),
    ];
    for (part, g) in parts {
        // Said once, however often it is.
        let sql = "UPDATE part SET n = n + ?, bytes = bytes + ?, measured = ? WHERE name = ? AND measured = ?";
        tx.prepare_cached(sql)?.execute(params![g.rows, g.bytes, g.upto, part.as_str(), g.from])?;
    }
    Ok(Stepped { rows: 0, is_done: m.is_all })
}

/// How far a part is measured, and pruned.
fn standing(db: &Connection, part: Part) -> Result<(i64, i64)> {
    db.prepare_cached("SELECT measured, pruned FROM part WHERE name = ?")?
        .query_row([part.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))
}

fn shrink(tx: &Transaction<'_>, part: Part, rows: i64, bytes: i64) -> Result<()> {
    tx.prepare_cached("UPDATE part SET n = max(n - ?, 0), bytes = max(bytes - ?, 0) WHERE name = ?")?
        .execute(params![rows, bytes, part.as_str()])?;
    Ok(())
}

/// These readings get other ids, under which they are counted once more: they are taken off. So is the last one that was counted, to
/// be counted again: what a reader measured meanwhile goes on from there, and is not taken.
pub(super) fn uncount(tx: &Transaction<'_>, readings: &[i64]) -> Result<()> {
    let (measured, _) = standing(tx, Part::Readings)?;
    let (mut known, mut kept, mut bytes) = (0, 0, 0);
    {
        let sql = format!("SELECT r.flags & {} = 0, {WEIGHT} FROM {CONTENTS} WHERE r.id = ?", flag::PRUNED);
        let mut weigh = tx.prepare_cached(&sql)?;
        let last = Some(measured).filter(|last| !readings.contains(last));
        for id in readings.iter().copied().filter(|id| *id <= measured).chain(last) {
            let row: Option<(bool, i64)> = weigh.query_row([id], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
            let Some((is_kept, weight)) = row else { continue };
            known += 1;
            if is_kept {
                (kept, bytes) = (kept + 1, bytes + weight);
            }
        }
    }
    shrink(tx, Part::Readings, kept, bytes)?;
    shrink(tx, Part::Ledger, known, known * ROW)?;
    tx.prepare_cached("UPDATE part SET measured = ? WHERE name IN (?, ?)")?.execute(params![
        measured - 1,
        Part::Readings.as_str(),
        Part::Ledger.as_str()
    ])?;
    Ok(())
}

fn pruned_upto(tx: &Transaction<'_>, part: Part, upto: i64, till: i64) -> Result<()> {
    tx.prepare_cached("UPDATE part SET pruned = max(pruned, ?), till = max(till, ?) WHERE name = ?")?
        .execute(params![upto, till, part.as_str()])?;
    Ok(())
}

/// Goes through what came in its order: what is too old goes, and the oldest of the rest until enough is freed.
struct Going<'s> {
    step: &'s Step,
    rows: i64,
    bytes: i64,
    upto: Option<i64>,
    till: i64,
    looked: u32,
    stopped: bool,
}

impl<'s> Going<'s> {
    const fn new(step: &'s Step) -> Self {
        Self { step, rows: 0, bytes: 0, upto: None, till: 0, looked: 0, stopped: false }
    }

    /// Whether it goes. If not, nothing behind it does.
    fn goes(&mut self, at: i64) -> bool {
        let is_due = uint(at) < self.step.before.0 || uint(self.bytes) < self.step.excess;
        self.stopped |= !is_due;
        is_due
    }

    fn took(&mut self, id: i64, at: i64, rows: i64, bytes: i64) {
        self.looked += 1;
        self.rows += rows;
        self.bytes += bytes;
        self.upto = Some(id);
        self.till = self.till.max(at);
    }

    fn stepped(&self, most: u32) -> Stepped {
        Stepped { rows: uint(self.rows), is_done: self.stopped || self.looked < most }
    }
}

/// What readings say.
fn contents(tx: &Transaction<'_>, step: &Step) -> Result<Stepped> {
    let (measured, pruned) = standing(tx, Part::Readings)?;
    let newest_value: Option<i64> = tx
        .prepare_cached("SELECT reading FROM classic_value ORDER BY id DESC LIMIT 1")?
        .query_row([], |r| r.get(0))
        .optional()?;
    // A signature may come over it still; and the newest value gives the next its id.
    let needed = "(l.reading IS NOT NULL AND l.batch IS NULL AND r.ingested >= ?1
                   OR k.reading IS NOT NULL AND r.id IS ?2)";
    let waits = int(step.now.0.saturating_sub(UNPROVEN));
    let again = format!(
        "SELECT r.id, {WEIGHT}, {needed} FROM (SELECT reading FROM spared WHERE reading < ?4 ORDER BY reading LIMIT ?3) s
         JOIN reading r ON r.id = s.reading LEFT JOIN leaf l ON l.reading = r.id LEFT JOIN classic k ON k.reading = r.id"
    );
    let free: Vec<(i64, i64)> = {
        let mut query = tx.prepare_cached(&again)?;
        let all = query
            .query_map(params![waits, newest_value, AGAIN, step.floor], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let all = all.collect::<Result<Vec<(i64, i64, bool)>>>()?;
        all.into_iter().filter(|(.., needed)| !needed).map(|(id, bytes, _)| (id, bytes)).collect()
    };
    let are_more = free.len() == AGAIN as usize;
    let mut going = Going::new(step);
    for (id, bytes) in free {
        tx.prepare_cached("DELETE FROM spared WHERE reading = ?")?.execute([id])?;
        erase(tx, id - 1, id)?;
        (going.rows, going.bytes) = (going.rows + 1, going.bytes + bytes);
    }
    let sql = format!(
        "SELECT r.id, r.ingested, {WEIGHT}, {needed} FROM {CONTENTS} WHERE r.id > ?3 AND r.id <= ?4 ORDER BY r.id LIMIT ?5"
    );
    {
        let mut query = tx.prepare_cached(&sql)?;
        let upto = measured.min(step.floor.saturating_sub(1));
        let mut rows = query.query(params![waits, newest_value, pruned, upto, step.rows])?;
        let mut spare = tx.prepare_cached("INSERT OR IGNORE INTO spared VALUES (?)")?;
        while let Some(r) = rows.next()? {
            let (id, at): (i64, i64) = (r.get(0)?, r.get(1)?);
            if !going.goes(at) {
                break;
            }
            if r.get(3)? {
                spare.execute([id])?;
                going.took(id, at, 0, 0);
            } else {
                going.took(id, at, 1, r.get(2)?);
            }
        }
    }
    if let Some(upto) = going.upto {
        erase(tx, pruned, upto)?;
        pruned_upto(tx, Part::Readings, upto, going.till)?;
        // Labels that were raised of them are told to nobody any more.
        tx.prepare_cached(
            "DELETE FROM raised WHERE id IN (SELECT id FROM (SELECT id, reading FROM raised
                 WHERE id < (SELECT max(id) FROM raised) ORDER BY id LIMIT ?) WHERE reading <= ?)",
        )?
        .execute(params![step.rows, upto])?;
    }
    shrink(tx, Part::Readings, going.rows, going.bytes)?;
    let stepped = going.stepped(step.rows);
    Ok(Stepped { is_done: stepped.is_done && !are_more, ..stepped })
}

/// What these readings say goes, but of those that are spared.
fn erase(tx: &Transaction<'_>, after: i64, upto: i64) -> Result<()> {
    let these = |id: &str| {
        format!(
            "{id} > ?1 AND {id} <= ?2 AND {id} NOT IN (SELECT reading FROM spared WHERE reading > ?1 AND reading <= ?2)"
        )
    };
    let heard = format!(
        "SELECT coalesce(sum({HEARD} + length(envelope) + coalesce(length(path), 0)), 0) FROM heard WHERE {}",
        these("reading")
    );
    let heard: i64 = tx.prepare_cached(&heard)?.query_row([after, upto], |r| r.get(0))?;
    shrink(tx, Part::Evidence, 0, heard)?;
    for table in ["leaf", "heard", "classic_value", "classic_cloud", "classic"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE {}", these("reading")))?.execute([after, upto])?;
    }
    // A row that is made shorter where it stands leaves its page as it is: it goes, and comes back without what it said.
    tx.execute_batch("CREATE TEMP TABLE IF NOT EXISTS bare AS SELECT * FROM reading LIMIT 0; DELETE FROM temp.bare")?;
    let these = these("id");
    tx.prepare_cached(&format!("INSERT INTO temp.bare SELECT * FROM reading WHERE {these}"))?.execute([after, upto])?;
    tx.prepare_cached(&format!("DELETE FROM reading WHERE {these}"))?.execute([after, upto])?;
    tx.prepare_cached("UPDATE temp.bare SET payload = x'', flags = flags | ?")?.execute([flag::PRUNED])?;
    tx.prepare_cached("INSERT INTO reading SELECT * FROM temp.bare ORDER BY id")?.execute([])?;
    Ok(())
}

/// Rows of the ledger, of contexts under which nothing can open any more. Of all others they stay: of contexts in use, of boots
/// of mode R, whose keys are made anew whenever one speaks, of what nothing but the link proves, and of classic frames.
fn rows(tx: &Transaction<'_>, step: &Step) -> Result<Stepped> {
    let (_, from) = standing(tx, Part::Ledger)?;
    let (_, said) = standing(tx, Part::Readings)?;
    let newest: i64 = tx.prepare_cached("SELECT coalesce(max(id), 0) FROM reading")?.query_row([], |r| r.get(0))?;
    let below = step.floor.min(said.saturating_add(1)).min(newest);
    let erased = int(step.now.0.saturating_sub(SETTLED));
    let contexts = tx
        .prepare_cached(
            "SELECT id, since FROM context WHERE standing = 3 AND sealed IS NULL AND bctx = x'' AND level > 1
             AND since >= ? AND since < ? ORDER BY since LIMIT ?",
        )?
        .query_map(params![from, erased, CONTEXTS], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<Vec<(i64, i64)>>>()?;
    let most = i64::from(step.rows);
    // Of what is not too old, as many as are too much.
    let surplus = int(step.excess) / ROW;
    let (mut gone, mut upto, mut is_last) = (0i64, from, contexts.len() < CONTEXTS as usize);
    for (context, since) in contexts {
        for (before, wanted) in [(int(step.before.0), most), (i64::MAX, surplus)] {
            let limit = (wanted.min(most) - gone).max(0);
            let sql = "DELETE FROM reading WHERE id IN (SELECT id FROM reading
                       WHERE ctx = ? AND flags & ? <> 0 AND id < ? AND ingested < ? LIMIT ?)";
            gone += tx.prepare_cached(sql)?.execute(params![context, flag::PRUNED, below, before, limit])? as i64;
        }
        let more: bool = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM reading WHERE ctx = ?)")?
            .query_row([context], |r| r.get(0))?;
        if more || gone >= most {
            // Where some must stay, those behind it drained later: their rows are no older.
            is_last = true;
            break;
        }
        upto = since;
    }
    shrink(tx, Part::Ledger, gone, gone * ROW)?;
    pruned_upto(tx, Part::Ledger, upto, 0)?;
    // Without a row that went and a context that is done with, the next step would find the same.
    let is_done = gone < most && (is_last || upto == from);
    Ok(Stepped { rows: uint(gone), is_done })
}

/// Explanations, and what was kept apart. A message that is kept apart once more is nothing new.
fn refusals(tx: &Transaction<'_>, step: &Step) -> Result<Stepped> {
    let (measured, _) = standing(tx, Part::Refusals)?;
    let mut going = Going::new(step);
    {
        let sql = format!(
            "SELECT id, at, {ASIDE} + length(payload) FROM quarantine
             WHERE id <= ? AND id < (SELECT max(id) FROM quarantine) ORDER BY id LIMIT ?"
        );
        let mut query = tx.prepare_cached(&sql)?;
        let mut rows = query.query(params![measured, step.rows])?;
        while let Some(r) = rows.next()? {
            let (id, at) = (r.get(0)?, r.get(1)?);
            if !going.goes(at) {
                break;
            }
            going.took(id, at, 1, r.get(2)?);
        }
    }
    if let Some(upto) = going.upto {
        tx.prepare_cached("DELETE FROM quarantine WHERE id <= ?")?.execute([upto])?;
        pruned_upto(tx, Part::Refusals, upto, going.till)?;
    }
    shrink(tx, Part::Refusals, going.rows, going.bytes)?;
    let stepped = going.stepped(step.rows);
    // Of explanations there are so many at most; what they take counts when nothing else is left that could go.
    let over = if stepped.is_done { (int(step.excess) - going.bytes).max(0) / WHY } else { 0 };
    let mut why = 0;
    for (before, limit) in [(int(step.before.0), i64::from(step.rows)), (i64::MAX, over.min(i64::from(step.rows)))] {
        let sql = "DELETE FROM why WHERE n IN (SELECT n FROM why WHERE at < ? ORDER BY at LIMIT ?)";
        why += tx.prepare_cached(sql)?.execute(params![before, limit])? as u64;
    }
    Ok(Stepped { rows: stepped.rows + why, is_done: stepped.is_done && why < u64::from(step.rows) })
}

/// What batches and receipts prove with. That they were, where they stand in the log and which numbers they are about stays: a
/// repeat of one is no news. Nothing goes that the log has not.
fn evidence(tx: &Transaction<'_>, step: &Step) -> Result<Stepped> {
    let (measured, pruned) = standing(tx, Part::Evidence)?;
    let till: i64 = tx.prepare_cached("SELECT till FROM part WHERE name = 'readings'")?.query_row([], |r| r.get(0))?;
    // What proves a reading goes with it.
    let step = Step { before: step.before.max(Millis(uint(till))), ..*step };
    let most = (step.rows / BATCH).max(1);
    let sql = format!(
        "SELECT e.id, e.kind, e.ref, e.idx IS NULL, coalesce(b.at, r.at, 0), {PROOF}, b.ctx, b.first
         FROM {PROOFS} WHERE e.id > ?1 AND e.id <= ?2 ORDER BY e.id LIMIT ?3"
    );
    type Entry = (i64, String, Option<i64>, bool, i64, i64);
    let entries = tx
        .prepare_cached(&sql)?
        .query_map([pruned, measured, i64::from(most)], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
        })?
        .collect::<Result<Vec<Entry>>>()?;
    let mut going = Going::new(&step);
    for (id, kind, of, waits, at, bytes) in entries {
        match (&*kind, of) {
            _ if waits => {
                going.stopped = true;
                break;
            }
            ("b1" | "g1", Some(_)) if !going.goes(at) => break,
            ("b1", Some(batch)) => {
                tx.prepare_cached("UPDATE batch SET leaves = NULL, cose = NULL, missing = 0 WHERE id = ?")?
                    .execute([batch])?;
                going.took(id, at, 1, bytes);
            }
            ("g1", Some(receipt)) => {
                tx.prepare_cached("UPDATE receipt SET cose = x'', others = NULL WHERE id = ?")?.execute([receipt])?;
                tx.prepare_cached("DELETE FROM heard WHERE receipt = ?")?.execute([receipt])?;
                going.took(id, at, 1, bytes);
            }
            // Of what else happened the record is all there is.
            _ => going.took(id, 0, 0, 0),
        }
    }
    if let Some(upto) = going.upto {
        pruned_upto(tx, Part::Evidence, upto, going.till)?;
    }
    shrink(tx, Part::Evidence, going.rows, going.bytes)?;
    Ok(going.stepped(most))
}

impl Reader {
    /// What came since the store was measured, so many rows of each table at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn measure(&self, most: u32) -> std::result::Result<Measured, StoreError> {
        self.ask(|db| {
            let snapshot = db.unchecked_transaction()?;
            let grown = |part: Part, sql: &str| -> Result<(Grown, i64)> {
                let (from, _) = standing(&snapshot, part)?;
                snapshot.prepare_cached(sql)?.query_row(params![from, most], |r| {
                    let upto = r.get::<_, Option<i64>>(0)?.unwrap_or(from);
                    Ok((Grown { from, upto, rows: r.get(2)?, bytes: r.get(3)? }, r.get(1)?))
                })
            };
            let is_kept = format!("flags & {} = 0", flag::PRUNED);
            let (readings, n) = grown(
                Part::Readings,
                &format!(
                    "SELECT max(id), count(*), coalesce(sum({is_kept}), 0), coalesce(sum(CASE WHEN {is_kept} THEN w ELSE 0 END), 0)
                     FROM (SELECT r.id, r.flags, {WEIGHT} AS w FROM {CONTENTS} WHERE r.id > ?1 ORDER BY r.id LIMIT ?2)"
                ),
            )?;
            let ledger = Grown { rows: n, bytes: n * ROW, ..readings };
            let (refusals, apart) = grown(
                Part::Refusals,
                &format!(
                    "SELECT max(id), count(*), count(*), coalesce(sum({ASIDE} + length(payload)), 0)
                     FROM (SELECT id, payload FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2)"
                ),
            )?;
            let (evidence, entries) = grown(
                Part::Evidence,
                &format!(
                    "SELECT max(id), count(*), coalesce(sum(kind IN ('b1', 'g1')), 0), coalesce(sum(w), 0)
                     FROM (SELECT e.id, e.kind, {PROOF} AS w FROM {PROOFS} WHERE e.id > ?1 ORDER BY e.id LIMIT ?2)"
                ),
            )?;
            let is_all = [n, apart, entries].iter().all(|n| *n < i64::from(most));
            Ok(Measured { readings, ledger, refusals, evidence, is_all })
        })
    }

    /// What is kept of a part, as it was measured last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn part(&self, part: Part) -> std::result::Result<PartSize, StoreError> {
        let sql = "SELECT n, bytes, gone, till, pruned FROM part WHERE name = ?";
        let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?));
        let (mut rows, mut bytes, gone, till, pruned): (i64, i64, i64, i64, i64) =
            self.all(sql, [part.as_str()], row)?.pop().unwrap_or_default();
        let first = match part {
            Part::Readings => "SELECT ingested FROM reading WHERE id > ? ORDER BY id LIMIT 1",
            Part::Ledger => "SELECT ingested FROM reading WHERE ?1 IS ?1 ORDER BY id LIMIT 1",
            Part::Refusals => {
                "SELECT min(at) FROM (SELECT * FROM (SELECT at FROM quarantine WHERE ?1 IS ?1 ORDER BY id LIMIT 1)
                                   UNION ALL SELECT * FROM (SELECT at FROM why ORDER BY n LIMIT 1))"
            }
            Part::Alarms => "SELECT at FROM alarm WHERE ?1 IS ?1 ORDER BY n LIMIT 1",
            Part::Evidence => {
                "SELECT coalesce(b.at, r.at) FROM log_entry e LEFT JOIN batch b ON e.kind = 'b1' AND b.id = e.ref
                                   LEFT JOIN receipt r ON e.kind = 'g1' AND r.id = e.ref
                                   WHERE e.id > ? AND e.kind IN ('b1', 'g1') ORDER BY e.id LIMIT 1"
            }
        };
        let oldest = self.all(first, [pruned], |r| r.get::<_, Option<i64>>(0))?.pop().flatten();
        let counted = match part {
            Part::Refusals => Some(("SELECT count(*) FROM why", WHY)),
            Part::Alarms => Some(("SELECT count(*) FROM alarm", ALARM)),
            _ => None,
        };
        if let Some((sql, each)) = counted {
            let n: i64 = self.all(sql, [], |r| r.get(0))?.pop().unwrap_or(0);
            (rows, bytes) = (rows + n, bytes + n * each);
        }
        Ok(PartSize {
            part,
            rows: uint(rows),
            bytes: uint(bytes),
            oldest: oldest.map(|at| Millis(uint(at))),
            pruned: uint(gone),
            till: (till > 0).then(|| Millis(uint(till))),
        })
    }

    /// The newest of what gateways heard of late, by their clocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest_heard(&self) -> std::result::Result<Option<Millis>, StoreError> {
        let sql = "SELECT max(received) FROM (SELECT received FROM reading ORDER BY id DESC LIMIT ?)";
        let newest = self.all(sql, [LATE], |r| r.get::<_, Option<i64>>(0))?.pop().flatten();
        Ok(newest.map(|at| Millis(uint(at))))
    }

    /// What the store takes of its disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn taken(&self) -> std::result::Result<Taken, StoreError> {
        self.ask(|db| super::taken_by(db, self.path()))
    }
}

impl super::Store {
    /// Takes note of what a reader measured, between two groups of the writer. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn measured(&self, measured: Measured) -> std::result::Result<(), StoreError> {
        if measured.is_empty() {
            return Ok(());
        }
        self.between(Task::Measured(measured)).map(drop)
    }

    /// Carries out a step of pruning, between two groups of the writer. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing was pruned by it.
    pub fn prune(&self, step: Step) -> std::result::Result<Stepped, StoreError> {
        self.between(Task::Prune(step))
    }
}
