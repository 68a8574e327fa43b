//! Alarms: raised in the transaction of what is counted, and kept until every sink has taken them.

use fivefold_alarm::{Alarm, AlarmId, Cause, Subject, Window};
use fivefold_core::error::{At, Code, Severity};
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::time::Millis;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::read::uint;
use super::write::int;
use super::{CountKey, ORPHAN_LIFE, Place, Reader, Stepped, StoreError};
use crate::limits::Step;

/// Alarms that are kept, at most. Above it those go first that every sink has, then the least severe, of these the oldest.
pub const MOST_ALARMS: u64 = 100_000;
/// Windows that are kept apart, at most; above it a code is counted for all together.
const MOST_WINDOWS: u64 = 4_096;
/// Devices whose alarms of one code and network are kept apart, at most.
const MOST_DEVICES: u64 = 32;
/// How long an alarm is shown that every sink has, in milliseconds: 90 days.
const SHOWN: u64 = 90 * 24 * 3600 * 1000;
/// Bytes of what a sink said, at most.
const LONGEST_REASON: usize = 300;

type Result<T> = rusqlite::Result<T>;

/// What a sink said, so far as it is kept.
pub(super) fn cut(reason: &str) -> &str {
    let ends = reason.char_indices().map(|(i, c)| i + c.len_utf8());
    reason.get(..ends.take_while(|end| *end <= LONGEST_REASON).last().unwrap_or(0)).unwrap_or_default()
}

/// What is written of alarms and their sinks, beside those that counts raise.
#[derive(Clone, Debug, Default)]
pub struct AlarmWrite {
    /// All sinks that there are: new ones get what is raised from now on, others are forgotten.
    pub sinks: Option<Vec<String>>,
    /// A sink has taken an alarm.
    pub taken: Vec<(String, i64)>,
    /// A sink has not, and why.
    pub refused: Vec<(String, String)>,
    /// Looks which alarms are over.
    pub sweep: bool,
}

impl AlarmWrite {
    pub(super) const fn is_empty(&self) -> bool {
        self.sinks.is_none() && self.taken.is_empty() && self.refused.is_empty() && !self.sweep
    }
}

/// An alarm as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmRow {
    /// Its row, in the order in which alarms were raised.
    pub n: i64,
    /// What it says.
    pub alarm: Alarm,
    /// When it was over.
    pub over: Option<Millis>,
}

/// A sink as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkRow {
    /// Its name in cloud.toml.
    pub name: String,
    /// Alarms that wait for it.
    pub waiting: u64,
    /// When the oldest of them was raised.
    pub oldest: Option<Millis>,
    /// When it was tried last.
    pub tried: Option<Millis>,
    /// What went wrong since it took one.
    pub failed: Option<String>,
}

fn number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

fn severity(number: u8) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::High, Severity::Critical]
        .into_iter()
        .find(|s| self::number(*s) == number)
}

fn known(n: i64) -> Option<u32> {
    u32::try_from(n).ok()
}

/// Net, gateway and device as they are stored.
fn columns(of: Subject) -> (i64, i64, i64) {
    (of.net.map_or(-1, |n| n.0.into()), of.gateway.map_or(-1, |g| g.0.into()), of.sid.map_or(-1, |s| s.0.into()))
}

fn subject((net, gateway, sid): (i64, i64, i64)) -> Subject {
    Subject { net: known(net).map(Net), gateway: known(gateway).map(GatewayId), sid: u16::try_from(sid).ok().map(Sid) }
}

/// What was counted, and how severe who saw it says that it is.
pub(super) fn count(
    tx: &Transaction<'_>,
    key: &CountKey,
    times: u64,
    said: Option<Severity>,
    now: Millis,
) -> Result<()> {
    let steps = key.code.steps();
    if steps.is_empty() || times == 0 {
        return Ok(());
    }
    let of = place(tx, key)?;
    let (net, gateway, sid) = columns(of);
    let mut window = tx
        .prepare_cached("SELECT state FROM alarm_window WHERE code = ? AND net = ? AND gateway = ? AND sid = ?")?
        .query_row(params![key.code.as_str(), net, gateway, sid], |r| r.get::<_, Vec<u8>>(0))
        .optional()?
        .and_then(|state| Window::from_bytes(&state))
        .unwrap_or_default();
    // One that is over, unseen by the sweep so far, is over before the next begins.
    if window.advance(steps, now) {
        over(tx, (key.code.as_str(), net, gateway, sid), now)?;
    }
    if let Some(severity) = window.count(steps, times, said, now) {
        put(tx, &Alarm { cause: Cause::Code(key.code), severity, of, times: window.total().max(1), at: now })?;
    }
    tx.prepare_cached(
        "INSERT INTO alarm_window VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (code, net, gateway, sid) DO UPDATE SET state = ?5",
    )?
    .execute(params![key.code.as_str(), net, gateway, sid, window.to_bytes()])?;
    Ok(())
}

/// What an occurrence is counted together with. Where one is an alarm, the device is kept apart: somebody has to go there. Where
/// only many are, they are added up. Names that strangers claim make no more rows than there may be.
fn place(tx: &Transaction<'_>, key: &CountKey) -> Result<Subject> {
    let one_is_enough = key.code.steps().iter().any(|step| step.at == At::Times(1));
    let of = Subject { net: key.net, gateway: key.gateway, sid: key.sid.filter(|_| one_is_enough) };
    let (net, gateway, sid) = columns(of);
    let is_there = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM alarm_window WHERE code = ? AND net = ? AND gateway = ? AND sid = ?)",
        )?
        .query_row(params![key.code.as_str(), net, gateway, sid], |r| r.get::<_, bool>(0))?;
    if is_there {
        return Ok(of);
    }
    let rows = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<u64> {
        tx.prepare_cached(sql)?.query_row(params, |r| r.get(0)).map(uint)
    };
    if rows("SELECT count(*) FROM alarm_window", &[])? >= MOST_WINDOWS {
        return Ok(Subject::default());
    }
    let devices = "SELECT count(*) FROM alarm_window WHERE code = ? AND net = ? AND sid >= 0";
    if of.sid.is_some() && rows(devices, &[&key.code.as_str(), &net])? >= MOST_DEVICES {
        return Ok(Subject { sid: None, ..of });
    }
    Ok(of)
}

/// Keeps an alarm.
fn put(tx: &Transaction<'_>, alarm: &Alarm) -> Result<()> {
    let (net, gateway, sid) = columns(alarm.of);
    tx.prepare_cached(
        "INSERT INTO alarm (id, at, cause, severity, net, gateway, sid, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![
        alarm.id().0,
        int(alarm.at.0),
        alarm.cause.as_str(),
        number(alarm.severity),
        net,
        gateway,
        sid,
        int(alarm.times)
    ])?;
    trim(tx, MOST_ALARMS, alarm.at)
}

/// Alarms that a sink still waits for.
const WAITED_FOR: &str = "EXISTS (SELECT 1 FROM alarm_sink k WHERE k.upto < a.n
    AND NOT EXISTS (SELECT 1 FROM alarm_sent s WHERE s.sink = k.name AND s.n = a.n))";

/// Makes room, and says so where a sink will miss something.
fn trim(tx: &Transaction<'_>, most: u64, now: Millis) -> Result<()> {
    let rows = uint(tx.prepare_cached("SELECT count(*) FROM alarm")?.query_row([], |r| r.get(0))?);
    if rows <= most {
        return Ok(());
    }
    // Many at a time, so that it is not done for each; what says that something was dropped stays.
    let surplus = int(rows - most + most / 100);
    let old = format!("DELETE FROM alarm WHERE n IN (SELECT n FROM alarm a WHERE NOT {WAITED_FOR} ORDER BY n LIMIT ?)");
    let gone = tx.execute(&old, [surplus])? as u64;
    let missing = (rows - most).saturating_sub(gone);
    if missing == 0 {
        return Ok(());
    }
    let dropped = Cause::Dropped.as_str();
    // One that no sink has yet counts on: it says the same.
    let unsent =
        "UPDATE alarm SET times = times + ?2 WHERE n = (SELECT max(n) FROM alarm WHERE cause = ?1) AND NOT EXISTS
         (SELECT 1 FROM alarm_sink k WHERE k.upto >= alarm.n
          OR EXISTS (SELECT 1 FROM alarm_sent s WHERE s.sink = k.name AND s.n = alarm.n))";
    let is_said = tx.execute(unsent, params![dropped, int(missing)])? > 0;
    let least = "DELETE FROM alarm WHERE n IN (SELECT n FROM alarm WHERE cause <> ?1 ORDER BY severity, n LIMIT ?2)";
    let gone = tx.execute(least, params![dropped, int(missing + u64::from(!is_said))])? as u64;
    tracing::error!(gone, "alarms were dropped: there were more than are kept, and no sink took them");
    if !is_said {
        let cause = Cause::Dropped;
        let alarm = Alarm { cause, severity: Severity::Critical, of: Subject::default(), times: gone, at: now };
        tx.execute(
            "INSERT INTO alarm (id, at, cause, severity, net, gateway, sid, times) VALUES (?, ?, ?, ?, -1, -1, -1, ?)
             ON CONFLICT (id) DO UPDATE SET times = times + excluded.times",
            params![alarm.id().0, int(now.0), dropped, number(alarm.severity), int(gone)],
        )?;
    }
    Ok(())
}

fn over(tx: &Transaction<'_>, window: (&str, i64, i64, i64), now: Millis) -> Result<()> {
    let at = params![window.0, window.1, window.2, window.3, int(now.0)];
    tx.prepare_cached(
        "UPDATE alarm SET over = ?5 WHERE over IS NULL AND cause = ?1 AND net = ?2 AND gateway = ?3 AND sid = ?4",
    )?
    .execute(at)?;
    Ok(())
}

/// Carries out what is to be written.
pub(super) fn write(tx: &Transaction<'_>, write: &AlarmWrite, now: Millis) -> Result<()> {
    if let Some(sinks) = &write.sinks {
        register(tx, sinks)?;
    }
    for (sink, n) in &write.taken {
        taken(tx, sink, *n, now)?;
    }
    for (sink, reason) in &write.refused {
        let reason = cut(reason);
        tx.prepare_cached("UPDATE alarm_sink SET tried = ?2, failed = ?3 WHERE name = ?1")?.execute(params![
            sink,
            int(now.0),
            reason
        ])?;
    }
    if write.sweep { sweep(tx, now) } else { Ok(()) }
}

fn register(tx: &Transaction<'_>, sinks: &[String]) -> Result<()> {
    let known: Vec<String> = {
        let mut names = tx.prepare("SELECT name FROM alarm_sink")?;
        names.query_map([], |r| r.get(0))?.collect::<Result<_>>()?
    };
    for gone in known.iter().filter(|name| !sinks.contains(name)) {
        tx.execute("DELETE FROM alarm_sink WHERE name = ?", [gone])?;
        tx.execute("DELETE FROM alarm_sent WHERE sink = ?", [gone])?;
    }
    for new in sinks.iter().filter(|name| !known.contains(name)) {
        tx.execute("INSERT INTO alarm_sink (name, upto) SELECT ?, coalesce(max(n), 0) FROM alarm", [new])?;
    }
    Ok(())
}

fn taken(tx: &Transaction<'_>, sink: &str, n: i64, now: Millis) -> Result<()> {
    tx.prepare_cached("UPDATE alarm_sink SET tried = ?2, failed = NULL WHERE name = ?1")?
        .execute(params![sink, int(now.0)])?;
    tx.prepare_cached(
        "INSERT INTO alarm_sent SELECT name, ?2 FROM alarm_sink WHERE name = ?1 AND upto < ?2 ON CONFLICT DO NOTHING",
    )?
    .execute(params![sink, n])?;
    // Everything before the first that it has not is at the sink.
    tx.prepare_cached(
        "UPDATE alarm_sink SET upto = max(upto, coalesce(
             (SELECT min(a.n) - 1 FROM alarm a WHERE a.n > alarm_sink.upto
              AND NOT EXISTS (SELECT 1 FROM alarm_sent s WHERE s.sink = ?1 AND s.n = a.n)),
             (SELECT max(n) FROM alarm), upto)) WHERE name = ?1",
    )?
    .execute([sink])?;
    tx.prepare_cached("DELETE FROM alarm_sent WHERE sink = ?1 AND n <= (SELECT upto FROM alarm_sink WHERE name = ?1)")?
        .execute([sink])?;
    Ok(())
}

/// Messages that nothing opened for a day go, and are an alarm: what they said is lost (E3-02).
pub(super) fn unopened(tx: &Transaction<'_>, now: Millis) -> Result<()> {
    let lost: Vec<CountKey> = {
        let mut old = tx.prepare_cached("DELETE FROM orphan WHERE at < ? RETURNING net, gateway, sid")?;
        let keys = old.query_map([int(now.0.saturating_sub(ORPHAN_LIFE))], |r| {
            let Subject { net, gateway, sid } = subject((r.get(0)?, r.get(1)?, r.get(2)?));
            Ok(CountKey { code: Code::CloudNoContext, net, gateway, sid, place: Place::Cloud })
        })?;
        keys.collect::<Result<_>>()?
    };
    lost.iter().try_for_each(|key| count(tx, key, 1, Some(Severity::Warning), now))
}

/// Alarms that are over are marked, windows that are quiet go, and what every sink has goes after a while.
fn sweep(tx: &Transaction<'_>, now: Millis) -> Result<()> {
    type Found = (String, (i64, i64, i64), Vec<u8>);
    unopened(tx, now)?;
    let windows: Vec<Found> = {
        let mut all = tx.prepare_cached("SELECT code, net, gateway, sid, state FROM alarm_window")?;
        let found = all.query_map([], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?, r.get(3)?), r.get(4)?)))?;
        found.collect::<Result<_>>()?
    };
    for (code, (net, gateway, sid), state) in windows {
        let mut window = Window::from_bytes(&state).unwrap_or_default();
        let steps = code.parse::<Code>().map_or(&[][..], Code::steps);
        let is_over = window.advance(steps, now);
        if is_over {
            over(tx, (&code, net, gateway, sid), now)?;
        }
        let place = params![code, net, gateway, sid];
        if window.is_quiet() {
            tx.prepare_cached("DELETE FROM alarm_window WHERE code = ? AND net = ? AND gateway = ? AND sid = ?")?
                .execute(place)?;
        } else if is_over {
            tx.prepare_cached(
                "UPDATE alarm_window SET state = ?5 WHERE code = ?1 AND net = ?2 AND gateway = ?3 AND sid = ?4",
            )?
            .execute(params![code, net, gateway, sid, window.to_bytes()])?;
        }
    }
    let old = format!("DELETE FROM alarm WHERE at < ? AND n IN (SELECT n FROM alarm a WHERE NOT {WAITED_FOR})");
    tx.prepare_cached(&old)?.execute([int(now.0.saturating_sub(SHOWN))])?;
    Ok(())
}

/// Alarms that are over and that every sink has: those that are too old, and of the others so many.
pub(super) fn prune(tx: &Transaction<'_>, step: &Step, surplus: i64) -> Result<Stepped> {
    let mut rows = 0;
    for (before, limit) in [(int(step.before.0), i64::from(step.rows)), (i64::MAX, surplus.min(i64::from(step.rows)))] {
        let sql = format!(
            "DELETE FROM alarm WHERE n IN (SELECT n FROM (SELECT * FROM alarm ORDER BY n LIMIT ?3) a
             WHERE at < ?1 AND over IS NOT NULL AND NOT {WAITED_FOR} LIMIT ?2)"
        );
        rows += tx.prepare_cached(&sql)?.execute(params![before, limit, step.rows])? as u64;
    }
    Ok(Stepped { rows, is_done: rows < u64::from(step.rows) })
}

const ALARM: &str = "SELECT a.n, a.at, a.cause, a.severity, a.net, a.gateway, a.sid, a.times, a.over FROM alarm a";

fn row(r: &Row<'_>) -> Result<AlarmRow> {
    let cause: String = r.get(2)?;
    Ok(AlarmRow {
        n: r.get(0)?,
        alarm: Alarm {
            cause: Cause::from_word(&cause).ok_or(rusqlite::Error::InvalidQuery)?,
            severity: severity(r.get(3)?).ok_or(rusqlite::Error::InvalidQuery)?,
            of: subject((r.get(4)?, r.get(5)?, r.get(6)?)),
            times: uint(r.get(7)?),
            at: Millis(uint(r.get(1)?)),
        },
        over: r.get::<_, Option<i64>>(8)?.map(|at| Millis(uint(at))),
    })
}

impl Reader {
    /// Alarms that a sink has not taken, the oldest first, behind row `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting_alarms(&self, sink: &str, after: i64, limit: u32) -> std::result::Result<Vec<AlarmRow>, StoreError> {
        let sql = format!(
            "{ALARM}, alarm_sink k WHERE k.name = ?1 AND a.n > max(k.upto, ?2)
             AND NOT EXISTS (SELECT 1 FROM alarm_sent s WHERE s.sink = ?1 AND s.n = a.n) ORDER BY a.n LIMIT ?3"
        );
        self.all(&sql, params![sink, after, limit], row)
    }

    /// Alarms that are at least so severe, raised at or after `since`, the newest first; before row `before`, if that is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alarms(
        &self,
        least: Severity,
        since: Millis,
        before: Option<i64>,
        limit: u32,
    ) -> std::result::Result<Vec<AlarmRow>, StoreError> {
        let sql = format!("{ALARM} WHERE a.severity >= ?1 AND a.at >= ?2 AND a.n < ?3 ORDER BY a.n DESC LIMIT ?4");
        self.all(&sql, params![number(least), int(since.0), before.unwrap_or(i64::MAX), limit], row)
    }

    /// Sinks, with what waits for them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alarm_sinks(&self) -> std::result::Result<Vec<SinkRow>, StoreError> {
        let sql = "SELECT k.name, count(a.n), min(a.at), k.tried, k.failed FROM alarm_sink k LEFT JOIN alarm a
                   ON a.n > k.upto AND NOT EXISTS (SELECT 1 FROM alarm_sent s WHERE s.sink = k.name AND s.n = a.n)
                   GROUP BY k.name ORDER BY k.name";
        self.all(sql, [], |r| {
            let time = |at: Option<i64>| at.map(|at| Millis(uint(at)));
            Ok(SinkRow {
                name: r.get(0)?,
                waiting: uint(r.get(1)?),
                oldest: time(r.get(2)?),
                tried: time(r.get(3)?),
                failed: r.get(4)?,
            })
        })
    }
}

/// What names an alarm, for who has only its row.
impl AlarmRow {
    /// Its id.
    pub fn id(&self) -> AlarmId {
        self.alarm.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MIGRATIONS;
    use rusqlite::Connection;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn open() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|sql| db.execute_batch(sql).unwrap());
        db
    }

    fn in_one<T>(db: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> T) -> T {
        let tx = db.transaction().unwrap();
        let done = work(&tx);
        tx.commit().unwrap();
        done
    }

    fn key(code: Code, net: u32, sid: u16) -> CountKey {
        CountKey { code, net: Some(Net(net)), gateway: None, sid: Some(Sid(sid)), place: Place::Cloud }
    }

    fn number_of(db: &Connection, sql: &str) -> u64 {
        uint(db.query_row(sql, [], |r| r.get(0)).unwrap())
    }

    fn alarm(code: Code, severity: Severity, n: u64) -> Alarm {
        Alarm { cause: Cause::Code(code), severity, of: Subject::default(), times: 1, at: NOW.plus(n) }
    }

    fn sinks(names: &[&str]) -> AlarmWrite {
        AlarmWrite { sinks: Some(names.iter().map(|n| (*n).to_owned()).collect()), ..AlarmWrite::default() }
    }

    #[test]
    fn names_that_strangers_claim_make_a_bounded_number_of_windows_and_alarms() {
        let mut db = open();
        in_one(&mut db, |tx| {
            for net in 0..400 {
                for sid in 0..40 {
                    count(tx, &key(Code::GatewayLevelMissing, net, sid), 1, None, NOW).unwrap();
                }
            }
        });
        let windows = number_of(&db, "SELECT count(*) FROM alarm_window");
        assert!(windows <= MOST_WINDOWS + 1, "{windows}");
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm"), windows, "one each");
        let devices = "SELECT max(n) FROM (SELECT count(*) AS n FROM alarm_window WHERE sid >= 0 GROUP BY code, net)";
        assert_eq!(number_of(&db, devices), MOST_DEVICES);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm_window WHERE net = -1"), 1, "the rest together");
        // When it is quiet, nothing of it stays.
        in_one(&mut db, |tx| sweep(tx, NOW.plus(1_000_000)).unwrap());
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm_window"), 0);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm WHERE over IS NULL"), 0);
    }

    #[test]
    fn what_every_sink_has_goes_first_and_of_the_rest_the_least_severe() {
        let mut db = open();
        in_one(&mut db, |tx| {
            write(tx, &sinks(&["a", "b"]), NOW).unwrap();
            for n in 0..30 {
                let severity = [Severity::Critical, Severity::Warning, Severity::High][(n % 3) as usize];
                put(tx, &alarm(Code::CloudForged, severity, n)).unwrap();
            }
            // Of 30, both have the first ten, one has all.
            (1..=10).for_each(|n| taken(tx, "a", n, NOW).unwrap());
            (1..=30).rev().for_each(|n| taken(tx, "b", n, NOW).unwrap());
            assert_eq!(tx.query_row("SELECT count(*) FROM alarm_sent WHERE sink = 'b'", [], |r| r.get(0)), Ok(0));
            trim(tx, 20, NOW).unwrap();
        });
        assert_eq!(number_of(&db, "SELECT min(n) FROM alarm"), 11);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm WHERE cause = 'dropped'"), 0);
        in_one(&mut db, |tx| trim(tx, 15, NOW).unwrap());
        in_one(&mut db, |tx| trim(tx, 12, NOW).unwrap());
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm"), 12);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm WHERE severity = 2"), 0, "warnings went");
        assert_eq!(
            number_of(&db, "SELECT count(*) FROM alarm WHERE severity = 4 AND cause <> 'dropped'"),
            6,
            "no critical one did"
        );
        let said = "SELECT times FROM alarm WHERE cause = 'dropped' AND severity = 4";
        assert_eq!(number_of(&db, said), 9, "one alarm says how many");
        in_one(&mut db, |tx| trim(tx, 3, NOW).unwrap());
        assert_eq!(
            number_of(&db, "SELECT count(*) FROM alarm WHERE cause = 'dropped'"),
            1,
            "it is never dropped itself"
        );
    }

    #[test]
    fn a_new_sink_gets_what_comes_and_one_that_is_gone_holds_nothing() {
        let mut db = open();
        in_one(&mut db, |tx| {
            put(tx, &alarm(Code::CloudForged, Severity::High, 0)).unwrap();
            write(tx, &sinks(&["a"]), NOW).unwrap();
            put(tx, &alarm(Code::CloudForged, Severity::High, 1)).unwrap();
            write(tx, &sinks(&["a", "b"]), NOW).unwrap();
        });
        let waiting = |db: &Connection, sink: &str| {
            let sql = format!("SELECT count(*) FROM alarm a JOIN alarm_sink k ON a.n > k.upto WHERE k.name = '{sink}'");
            number_of(db, &sql)
        };
        assert_eq!((waiting(&db, "a"), waiting(&db, "b")), (1, 0));
        in_one(&mut db, |tx| {
            write(tx, &sinks(&["b"]), NOW).unwrap();
            sweep(tx, NOW.plus(SHOWN + 10)).unwrap();
        });
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm"), 0, "old, and nobody waits for it");
    }

    #[test]
    fn what_nothing_opened_for_a_day_is_an_alarm_and_what_is_younger_is_kept() {
        let mut db = open();
        let orphan = "INSERT INTO orphan (net, sid, at, gateway, hash, envelope) VALUES (7, ?1, ?2, 1, ?1, x'00')";
        for (sid, age) in [(1, ORPHAN_LIFE + 1), (2, ORPHAN_LIFE + 2), (3, ORPHAN_LIFE)] {
            db.execute(orphan, params![sid, int(NOW.0 - age)]).unwrap();
        }
        in_one(&mut db, |tx| sweep(tx, NOW).unwrap());
        assert_eq!(number_of(&db, "SELECT sid FROM orphan"), 3);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm WHERE cause = 'E3-02' AND severity = 2 AND net = 7"), 1);
        assert_eq!(number_of(&db, "SELECT count(*) FROM alarm"), 1);
    }

    #[test]
    fn what_a_sink_says_is_cut_between_characters() {
        let mut db = open();
        let refused = AlarmWrite { refused: vec![("a".into(), "ä".repeat(400))], ..AlarmWrite::default() };
        in_one(&mut db, |tx| {
            write(tx, &sinks(&["a"]), NOW).unwrap();
            write(tx, &refused, NOW).unwrap();
        });
        assert_eq!(number_of(&db, "SELECT length(failed) FROM alarm_sink"), (LONGEST_REASON / 2) as u64);
    }
}
