//! How far each sink of readings is, what waits for it, and what it will never take.
//!
//! The table of readings is the queue: a sink has a place in it, that moves over what is settled alone. Labels that are raised
//! are a second queue, dead letters that a person sends again a third. Readings that were held and are released behind a sink's
//! place will be one more: a table of them, a place in `outbox`, and a part of [`Reader::outbox_page`].

use fivefold_core::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, Transaction, params};

use super::alarms::cut;
use super::read::{FROM, READING, reading, uint};
use super::write::int;
use super::{Reader, ReadingRow, StoreError};
use crate::accepted::{MessageHash, flag};

/// Dead letters of a sink, at most. Then it waits for a person: nothing is put aside that nobody can look through.
pub const MOST_DEAD: u64 = 10_000;
/// What the readings of a page may hold, in bytes: long payloads make it shorter.
const PAGE: usize = 16 << 20;

/// A sink as `cloud.toml` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSink {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it begins with all readings that are stored, if it is new.
    pub from_start: bool,
}

/// A letter that a sink will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The reading's row.
    pub reading: i64,
    /// Whether it is the raised label.
    pub label: bool,
    /// In the sink's words.
    pub said: String,
}

/// What became of what was sent to a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxMove {
    /// The sink.
    pub name: String,
    /// All readings up to this one are settled.
    pub reading: Option<i64>,
    /// All labels up to this one are.
    pub raised: Option<i64>,
    /// What it took.
    pub sent: u64,
    /// What is sent again.
    pub retried: u64,
    /// What it will never take.
    pub dead: Vec<Dead>,
    /// Dead letters that were sent again: gone, or what was said this time.
    pub again: Vec<(i64, Option<String>)>,
    /// What it said, if it took nothing.
    pub failed: Option<String>,
}

/// What a person wants of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Stop sending.
    Pause,
    /// Go on, now.
    Resume,
    /// Send these dead letters again; all of them, where none is named.
    Resend(Option<Vec<i64>>),
}

/// What is written of the outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxWrite {
    /// All sinks that there are now.
    pub sinks: Option<Vec<OutboxSink>>,
    /// What became of what was sent.
    pub moves: Vec<OutboxMove>,
    /// What people want, by sink.
    pub asked: Vec<(String, Asked)>,
}

impl OutboxWrite {
    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.sinks.is_none() && self.moves.is_empty() && self.asked.is_empty()
    }
}

/// A sink, and what waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Readings behind its place, refused and quarantined ones too, which it is not sent.
    pub waiting: u64,
    /// When the first of them came.
    pub oldest: Option<Millis>,
    /// Dead letters.
    pub dead: u64,
    /// Those of them that a person sends again.
    pub again: u64,
    /// Those of them of which nothing is sent: their reading is pruned, in quarantine, or no longer there.
    pub void: u64,
    /// Since when it is there.
    pub since: Millis,
    /// What it took so far, labels too.
    pub sent: u64,
    /// How often something was sent again.
    pub retried: u64,
    /// Grows when a person wants it tried now.
    pub asked: i64,
    /// When a person stopped it.
    pub paused: Option<Millis>,
    /// When it was left out of cloud.toml.
    pub gone: Option<Millis>,
    /// When it was tried last.
    pub tried: Option<Millis>,
    /// What it said since the last that it took.
    pub failed: Option<String>,
}

/// What waits, of one queue each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxPage {
    /// Dead letters that a person sends again: their ids.
    pub again: Vec<(i64, bool, OutboxReading)>,
    /// Ids of those of which nothing is sent: their reading is pruned, in quarantine, or no longer there.
    pub void: Vec<i64>,
    /// Readings.
    pub readings: Vec<OutboxReading>,
    /// Labels that were raised: their rows.
    pub labels: Vec<(i64, OutboxReading)>,
    /// When all of the page is settled, all readings up to this one are.
    pub reading: i64,
    /// The same of labels.
    pub raised: i64,
    /// Whether that is further than the sink's place, though nothing is sent.
    pub is_ahead: bool,
    /// Whether there may be more, or something that a person wants now.
    pub is_urgent: bool,
}

impl OutboxPage {
    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.again.is_empty() && self.readings.is_empty() && self.labels.is_empty()
    }
}

/// A reading with what names it for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxReading {
    /// The reading.
    pub row: ReadingRow,
    /// Tells two messages under one number apart.
    pub hash: MessageHash,
}

impl OutboxReading {
    /// Bytes that it takes in memory, about.
    fn weight(&self) -> usize {
        512 + self.row.payload.len() + self.row.classic.as_ref().map_or(0, |c| c.content.len())
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// Its number, by which it is sent again.
    pub id: i64,
    /// The reading.
    pub reading: OutboxReading,
    /// Whether it is the raised label.
    pub label: bool,
    /// When it was put aside last.
    pub at: Millis,
    /// How often it was tried.
    pub tries: u64,
    /// What the sink said.
    pub said: String,
    /// When a person sent it again, if it waits for that.
    pub again: Option<Millis>,
}

const HIDDEN: u8 = flag::HIDDEN | flag::PRUNED;

/// What is true of a letter `d` of which nothing is sent.
fn void() -> String {
    format!("NOT EXISTS (SELECT 1 FROM reading v WHERE v.id = d.reading AND v.flags & {HIDDEN} = 0)")
}

pub(super) fn write(tx: &Transaction<'_>, write: &OutboxWrite, now: Millis) -> Result<()> {
    if let Some(sinks) = &write.sinks {
        tx.prepare_cached("UPDATE outbox SET gone = coalesce(gone, ?)")?.execute([int(now.0)])?;
        for sink in sinks {
            tx.prepare_cached(
                "INSERT INTO outbox (name, kind, reading, raised, since) VALUES (?1, ?2,
                 CASE WHEN ?3 THEN 0 ELSE coalesce((SELECT max(id) FROM reading), 0) END,
                 coalesce((SELECT max(id) FROM raised), 0), ?4) ON CONFLICT (name) DO UPDATE SET gone = NULL",
            )?
            .execute(params![sink.name, sink.kind, sink.from_start, int(now.0)])?;
        }
    }
    write.moves.iter().try_for_each(|moved| moves(tx, moved, now))?;
    for (name, asked) in &write.asked {
        match asked {
            Asked::Pause => {
                tx.prepare_cached("UPDATE outbox SET paused = coalesce(paused, ?2) WHERE name = ?1")?
                    .execute(params![name, int(now.0)])?;
            }
            Asked::Resume => {
                tx.prepare_cached("UPDATE outbox SET paused = NULL, asked = asked + 1 WHERE name = ?")?
                    .execute([name])?;
            }
            Asked::Resend(letters) => resend(tx, name, letters.as_deref(), now)?,
        }
    }
    Ok(())
}

fn moves(tx: &Transaction<'_>, moved: &OutboxMove, now: Millis) -> Result<()> {
    let failed = moved.failed.as_deref().map(cut);
    tx.prepare_cached(
        "UPDATE outbox SET reading = max(reading, coalesce(?2, 0)), raised = max(raised, coalesce(?3, 0)),
         sent = sent + ?4, retried = retried + ?5, tried = ?6,
         failed = CASE WHEN ?7 IS NOT NULL THEN ?7 WHEN ?8 THEN NULL ELSE failed END WHERE name = ?1",
    )?
    .execute(params![
        moved.name,
        moved.reading,
        moved.raised,
        int(moved.sent),
        int(moved.retried),
        int(now.0),
        failed,
        // Whoever refuses a reading is there.
        moved.sent > 0 || moved.reading.is_some() || moved.raised.is_some() || !moved.dead.is_empty()
    ])?;
    for Dead { reading, label, said } in &moved.dead {
        tx.prepare_cached(
            "INSERT INTO dead_letter (sink, reading, label, at, tries, said) VALUES (?1, ?2, ?3, ?4, 1, ?5)
             ON CONFLICT (sink, reading, label) DO UPDATE SET at = ?4, tries = tries + 1, said = ?5, again = NULL",
        )?
        .execute(params![moved.name, reading, label, int(now.0), cut(said)])?;
    }
    for (letter, said) in &moved.again {
        match said {
            None => tx.prepare_cached("DELETE FROM dead_letter WHERE id = ?")?.execute([letter])?,
            Some(said) => tx
                .prepare_cached(
                    "UPDATE dead_letter SET at = ?2, tries = tries + 1, said = ?3, again = NULL WHERE id = ?1",
                )?
                .execute(params![letter, int(now.0), cut(said)])?,
        };
    }
    Ok(())
}

fn resend(tx: &Transaction<'_>, name: &str, letters: Option<&[i64]>, now: Millis) -> Result<()> {
    const AGAIN: &str = "UPDATE dead_letter SET again = coalesce(again, ?2) WHERE sink = ?1";
    match letters {
        None => drop(tx.prepare_cached(AGAIN)?.execute(params![name, int(now.0)])?),
        Some(letters) => {
            let mut one = tx.prepare_cached(&format!("{AGAIN} AND id = ?3"))?;
            letters.iter().try_for_each(|letter| one.execute(params![name, int(now.0), letter]).map(drop))?;
        }
    }
    tx.prepare_cached("UPDATE outbox SET asked = asked + 1 WHERE name = ?")?.execute([name])?;
    Ok(())
}

fn outbox_reading(r: &Row<'_>) -> Result<OutboxReading> {
    Ok(OutboxReading { row: reading(r)?, hash: MessageHash(r.get("hash")?) })
}

/// Columns of [`outbox_reading`].
fn columns() -> String {
    format!("{READING}, {}, r.hash AS hash", super::classic::COLUMNS)
}

/// Rows until there is no room for more, the first in any case; and whether there may be others. `is_over` takes the room of a
/// row, and says whether that was too much.
fn rows<T>(
    db: &Connection,
    sql: &str,
    p: impl rusqlite::Params,
    most: usize,
    mut row: impl FnMut(&Row<'_>) -> Result<T>,
    mut is_over: impl FnMut(&T) -> bool,
) -> Result<(Vec<T>, bool)> {
    let (mut all, mut query) = (Vec::new(), db.prepare_cached(sql)?);
    let mut rows = query.query(p)?;
    while let Some(r) = rows.next()? {
        let one = row(r)?;
        if is_over(&one) && !all.is_empty() {
            return Ok((all, true));
        }
        all.push(one);
    }
    let is_cut = all.len() >= most;
    Ok((all, is_cut))
}

/// Readings that go out, behind the first of these up to the second.
fn readings(
    db: &Connection,
    (after, last): (i64, i64),
    most: usize,
    is_over: impl FnMut(&OutboxReading) -> bool,
) -> Result<(Vec<OutboxReading>, bool)> {
    let columns = columns();
    let sql = format!("{columns} {FROM} r.flags & {HIDDEN} = 0 AND r.id > ?1 AND r.id <= ?2 ORDER BY r.id LIMIT ?3");
    rows(db, &sql, params![after, last, most as i64], most, outbox_reading, is_over)
}

/// Where a sink is, and the last reading and label that there are.
struct Place {
    reading: i64,
    raised: i64,
    last: i64,
    last_raised: i64,
}

fn place(db: &Connection, name: &str) -> Result<Option<Place>> {
    let sql =
        "SELECT reading, raised, coalesce((SELECT max(id) FROM reading), 0), coalesce((SELECT max(id) FROM raised), 0)
        FROM outbox WHERE name = ?";
    let place =
        |r: &Row<'_>| Ok(Place { reading: r.get(0)?, raised: r.get(1)?, last: r.get(2)?, last_raised: r.get(3)? });
    db.prepare_cached(sql)?.query_row([name], place).optional()
}

/// Dead letters that a person sends again.
fn letters(
    db: &Connection,
    name: &str,
    most: usize,
    mut is_over: impl FnMut(&OutboxReading) -> bool,
) -> Result<Vec<(i64, bool, OutboxReading)>> {
    let sql = format!(
        "{}, d.id AS letter, d.label AS label FROM dead_letter d JOIN reading r ON r.id = d.reading
         JOIN context c ON c.id = r.ctx LEFT JOIN classic k ON k.reading = r.id
         WHERE d.sink = ?1 AND d.again IS NOT NULL AND r.flags & {HIDDEN} = 0 ORDER BY d.id LIMIT ?2",
        columns()
    );
    let row = |r: &Row<'_>| Ok((r.get("letter")?, r.get("label")?, outbox_reading(r)?));
    Ok(rows(db, &sql, params![name, most as i64], most, row, |(.., r)| is_over(r))?.0)
}

/// Those of them of which nothing is sent.
fn void_letters(db: &Connection, name: &str, most: usize) -> Result<Vec<i64>> {
    let sql = format!(
        "SELECT d.id FROM dead_letter d WHERE d.sink = ?1 AND d.again IS NOT NULL AND {} ORDER BY d.id LIMIT ?2",
        void()
    );
    db.prepare_cached(&sql)?.query_map(params![name, most as i64], |r| r.get(0))?.collect()
}

/// Labels that were raised, behind the first of these up to the second, of readings up to the third.
fn labels(
    db: &Connection,
    (after, last, reading): (i64, i64, i64),
    most: usize,
    mut is_over: impl FnMut(&OutboxReading) -> bool,
) -> Result<(Vec<(i64, OutboxReading)>, bool)> {
    let sql = format!(
        "{}, a.id AS raised FROM raised a JOIN reading r ON r.id = a.reading
         JOIN context c ON c.id = r.ctx LEFT JOIN classic k ON k.reading = r.id
         WHERE a.id > ?1 AND a.id <= ?2 AND a.reading <= ?3 AND r.flags & {HIDDEN} = 0 ORDER BY a.id LIMIT ?4",
        columns()
    );
    let row = |r: &Row<'_>| Ok((r.get("raised")?, outbox_reading(r)?));
    rows(db, &sql, params![after, last, reading, most as i64], most, row, |(_, r)| is_over(r))
}

/// Where the next page begins: behind what is in this one, or behind all there is.
fn ends(is_cut: bool, at: Option<i64>, all: i64) -> i64 {
    at.filter(|_| is_cut).unwrap_or(all)
}

/// See [`Reader::floor`].
pub(super) fn floor(db: &Connection) -> Result<Option<i64>> {
    let sql = "SELECT min(n) FROM (SELECT min(reading) AS n FROM outbox WHERE gone IS NULL
        UNION ALL SELECT min(d.reading) FROM dead_letter d JOIN outbox k ON k.name = d.sink WHERE k.gone IS NULL
        UNION ALL SELECT min(a.reading) FROM outbox k JOIN raised a ON a.id > k.raised
                  WHERE k.gone IS NULL AND a.reading <= k.reading)";
    db.prepare_cached(sql)?.query_row([], |r| r.get(0))
}

impl Reader {
    /// All sinks that ever were, with what waits for them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox(&self) -> std::result::Result<Vec<OutboxRow>, StoreError> {
        let sql = format!(
            "SELECT k.name, k.kind, max(coalesce((SELECT max(id) FROM reading), 0) - k.reading, 0),
            (SELECT ingested FROM reading WHERE id > k.reading ORDER BY id LIMIT 1),
            (SELECT count(*) FROM dead_letter WHERE sink = k.name),
            (SELECT count(*) FROM dead_letter WHERE sink = k.name AND again IS NOT NULL),
            k.since, k.sent, k.retried, k.asked, k.paused, k.gone, k.tried, k.failed,
            (SELECT count(*) FROM dead_letter d WHERE d.sink = k.name AND {}) FROM outbox k ORDER BY k.name",
            void()
        );
        let time = |at: Option<i64>| at.map(|at| Millis(uint(at)));
        self.all(&sql, [], |r| {
            Ok(OutboxRow {
                name: r.get(0)?,
                kind: r.get(1)?,
                waiting: uint(r.get(2)?),
                oldest: time(r.get(3)?),
                dead: uint(r.get(4)?),
                again: uint(r.get(5)?),
                since: Millis(uint(r.get(6)?)),
                sent: uint(r.get(7)?),
                retried: uint(r.get(8)?),
                asked: r.get(9)?,
                paused: time(r.get(10)?),
                gone: time(r.get(11)?),
                tried: time(r.get(12)?),
                failed: r.get(13)?,
                void: uint(r.get(14)?),
            })
        })
    }

    /// Whether a person stopped this sink, how often one wanted it tried now, and how many dead letters it has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox_state(&self, name: &str) -> std::result::Result<(bool, i64, u64), StoreError> {
        let sql = "SELECT k.paused IS NOT NULL, k.asked,
            (SELECT count(*) FROM dead_letter WHERE sink = k.name AND again IS NULL) FROM outbox k WHERE k.name = ?";
        let found = self.all(sql, [name], |r| Ok((r.get(0)?, r.get(1)?, uint(r.get(2)?))))?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// What waits for a sink: at most so many, of which labels and what is sent again are a quarter each, and fewer where their
    /// payloads are long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox_page(&self, name: &str, most: usize) -> std::result::Result<OutboxPage, StoreError> {
        self.ask(|db| {
            // One moment for all: a label that is passed over here is in the reading that is read here.
            let moment = db.unchecked_transaction()?;
            let Some(Place { reading, raised, last, last_raised }) = place(&moment, name)? else {
                return Ok(OutboxPage::default());
            };
            let (quarter, most) = ((most / 4).max(1), most.max(1));
            let mut bytes = 0;
            let mut is_over = |r: &OutboxReading| {
                bytes += r.weight();
                bytes > PAGE
            };
            let again = letters(&moment, name, quarter, &mut is_over)?;
            let void = void_letters(&moment, name, quarter)?;
            let (labels, is_labels_cut) = labels(&moment, (raised, last_raised, reading), quarter, &mut is_over)?;
            let room = most.saturating_sub(again.len() + labels.len()).max(1);
            let (readings, is_cut) = readings(&moment, (reading, last), room, is_over)?;
            let to = ends(is_cut, readings.last().map(|r| r.row.id), last.max(reading));
            let to_raised = ends(is_labels_cut, labels.last().map(|l| l.0), last_raised.max(raised));
            let is_ahead = to > reading || to_raised > raised;
            let is_urgent = !again.is_empty() || is_cut || is_labels_cut;
            Ok(OutboxPage { again, void, readings, labels, reading: to, raised: to_raised, is_ahead, is_urgent })
        })
    }

    /// What is behind a page: readings, labels of readings that were looked at before, and dead letters, of which the page may
    /// have so many. `upto` says which reading and which label were looked at last, the sink's place where it says nothing. With
    /// no room there are dead letters alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox_behind(
        &self,
        name: &str,
        upto: (Option<i64>, Option<i64>),
        in_page: usize,
        most: usize,
    ) -> std::result::Result<OutboxPage, StoreError> {
        self.ask(|db| {
            let moment = db.unchecked_transaction()?;
            let Some(place) = place(&moment, name)? else { return Ok(OutboxPage::default()) };
            let (after, raised) = (upto.0.unwrap_or(place.reading), upto.1.unwrap_or(place.raised));
            let mut bytes = 0;
            let mut is_over = |r: &OutboxReading| {
                bytes += r.weight();
                bytes > PAGE
            };
            let quarter = (most / 4).max(1);
            let again = letters(&moment, name, in_page + quarter, &mut is_over)?;
            let void = void_letters(&moment, name, quarter)?;
            let mut page = OutboxPage { again, void, reading: after, raised, ..OutboxPage::default() };
            if most > 0 {
                let (behind, is_labels_cut) =
                    labels(&moment, (raised, place.last_raised, after), quarter, &mut is_over)?;
                let (readings, is_cut) = readings(&moment, (after, place.last), most, is_over)?;
                page.reading = ends(is_cut, readings.last().map(|r| r.row.id), place.last.max(after));
                page.raised = ends(is_labels_cut, behind.last().map(|l| l.0), place.last_raised.max(raised));
                (page.labels, page.readings) = (behind, readings);
            }
            Ok(page)
        })
    }

    /// Dead letters of a sink behind number `after`, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dead_letters(&self, name: &str, after: i64, limit: u32) -> std::result::Result<Vec<DeadRow>, StoreError> {
        let sql = format!(
            "{}, d.id AS letter, d.label AS label, d.at AS at, d.tries AS tries, d.said AS said, d.again AS again
             FROM dead_letter d JOIN reading r ON r.id = d.reading JOIN context c ON c.id = r.ctx
             LEFT JOIN classic k ON k.reading = r.id WHERE d.sink = ?1 AND d.id > ?2 ORDER BY d.id LIMIT ?3",
            columns()
        );
        self.all(&sql, params![name, after, limit], |r| {
            Ok(DeadRow {
                id: r.get("letter")?,
                reading: outbox_reading(r)?,
                label: r.get("label")?,
                at: Millis(uint(r.get("at")?)),
                tries: uint(r.get("tries")?),
                said: r.get("said")?,
                again: r.get::<_, Option<i64>>("again")?.map(|at| Millis(uint(at))),
            })
        })
    }

    /// How many readings behind the place of a sink were pruned: it was not in `cloud.toml`, and does not get them. Refused and
    /// quarantined ones are among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox_missed(&self, name: &str) -> std::result::Result<u64, StoreError> {
        let sql = "SELECT max(p.pruned - k.reading, 0) - (SELECT count(*) FROM spared WHERE reading > k.reading)
            FROM outbox k, part p WHERE p.name = 'readings' AND k.name = ?";
        Ok(self.all(sql, [name], |r| r.get(0))?.pop().map_or(0, uint))
    }

    /// For who removes old readings: the first reading that a sink of cloud.toml may still need, itself or for a label that was
    /// raised, so that nothing below it is missed; `None` where no sink needs any. The last reading that a sink has is needed
    /// too: were the table ever empty, SQLite would give its numbers to other readings, and a sink would take them for sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn floor(&self) -> std::result::Result<Option<i64>, StoreError> {
        self.ask(floor)
    }
}
