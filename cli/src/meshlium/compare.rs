//! `fivefold compare meshlium`: both run side by side, and this says what one of them saw and the other did not.
//!
//! Rows meet by serial, sequence and sensor, when their values are equal and their times not further apart than a window. Both
//! sides are put into a database on disk first, which is gone with the process: memory does not grow with their number.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::config::Config;
use fivefold_cloud::store::seen_classic;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::dump::{Event, Place, Row};
use super::file::{self, DumpFile, zone_of};
use super::live::{Live, Where};
use super::rows::{Meaning, Part, Terms, meaning};
use crate::operator::Folder;
use crate::output::{Output, answer, table};

/// Rows that are asked of a live database at once.
const PART: usize = 1000;

/// Arguments of `fivefold compare meshlium`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    folder: Folder,
    /// A dump of its database.
    #[arg(value_name = "DUMP", required_unless_present = "live")]
    dump: Option<PathBuf>,
    /// Its running database: mysql://LOGIN@localhost/MeshliumDB?socket=PATH. Nothing in it is changed.
    #[arg(long, value_name = "URL", conflicts_with = "dump")]
    live: Option<String>,
    #[command(flatten)]
    place: Where,
    /// Of this network alone.
    #[arg(long, value_name = "NAME")]
    net: Option<String>,
    /// Zone of the times in the dump, where it is not the one that it says, or UTC.
    #[arg(long, value_name = "ZONE", value_parser = |text: &str| zone_of(text).map_err(|e| e.to_string()))]
    time_zone: Option<TimeZone>,
    /// Compare from this time on, e.g. 2026-11-25T18:00:00Z. Without it: since both were there.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Compare before this time. Without it: until the first of them ends.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Seconds that the two may be apart in when they received the same.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    window: u32,
    /// Differences that are listed of each side, at most; all are counted.
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

/// Who saw something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Meshlium = 0,
    Here = 1,
}

/// A reading that one of them saw.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    side: Side,
    serial: String,
    sequence: Option<i64>,
    sensor: String,
    value: String,
    /// Unix seconds.
    at: i64,
    /// Line of the dump.
    line: i64,
}

/// What came out.
#[derive(Default)]
struct Differences {
    same: u64,
    only: [(u64, Vec<Seen>); 2],
}

impl Compare {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<ExitCode> {
        let (_, registry) = self.folder.open_book()?;
        let net = self.net.as_ref().map(|name| registry.network(name)).transpose()?.map(|n| n.net);
        let store = Config::load(&self.folder.dir.join("cloud"))?.store;
        let both = Both::new()?;
        let mut not_compared = 0u64;
        match (&self.live, &self.dump) {
            (Some(url), _) => {
                let mut live = Live::connect(url, &self.place)?;
                live.warn();
                let terms = Terms { zone: self.time_zone.clone().unwrap_or(TimeZone::UTC), is_latin1: false };
                let mut after = i64::MIN;
                loop {
                    let rows = live.after("sensorParser", after, PART)?;
                    for row in &rows {
                        let row = row.row("sensorParser");
                        after = after.max(row.value("id").and_then(super::book::id_of).unwrap_or(i64::MAX));
                        both.meshlium(&row, &terms, &mut not_compared)?;
                    }
                    if rows.len() < PART {
                        break;
                    }
                }
            }
            (None, Some(dump)) => {
                let file = DumpFile::open(dump)?;
                let mut dump = file.walk(Place::default(), None)?.context("the dump changes while it is read")?;
                loop {
                    match dump.next().context("cannot read the dump")? {
                        Event::Row(row) => {
                            both.meshlium(&row, &file::terms(&row, self.time_zone.as_ref())?, &mut not_compared)?;
                        }
                        Event::Skipped { .. } => not_compared += 1,
                        Event::End => break,
                    }
                }
            }
            (None, None) => anyhow::bail!("name a dump, or a database with --live"),
        }
        seen_classic(&store, net, &mut |row| {
            let at = seconds(&row.timestamp);
            let sequence = row.sequence.map(i64::from);
            let (serial, sensor, value) = (row.serial, row.tag, row.value);
            let seen = Seen { side: Side::Here, serial, sequence, sensor, value, at, line: 0 };
            both.put(&seen)
        })??;
        let (since, until) = both.span(self)?;
        let found = both.differences(since, until, self)?;
        self.say(&found, since, until, not_compared, output);
        let same = found.only.iter().all(|(count, _)| *count == 0);
        Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn say(&self, found: &Differences, since: i64, until: i64, not_compared: u64, output: Output) {
        let list = |side: Side| {
            let (count, rows) = found.only.get(side as usize).cloned().unwrap_or_default();
            let rows: Vec<Value> = rows.iter().map(Seen::json).collect();
            json!({ "count": count, "rows": rows })
        };
        let value = json!({
            "same": found.same, "only_meshlium": list(Side::Meshlium), "only_fivefold": list(Side::Here),
            "since": time(since), "until": time(until), "window_s": self.window, "not_compared": not_compared,
        });
        answer(output, &value, || {
            let mut said = String::new();
            if found.only.iter().any(|(count, _)| *count > 0) {
                let mut t = table(&["SEEN BY", "RECEIVED", "SERIAL", "SEQUENCE", "SENSOR", "VALUE", "LINE"]);
                for seen in found.only.iter().flat_map(|(_, rows)| rows) {
                    t.add_row(seen.columns());
                }
                said = format!("{}\n", t.trim_fmt());
            }
            let [(meshlium, _), (here, _)] = &found.only;
            said.push_str(&format!(
                "From {} to {}: {} readings came to both, {meshlium} to the Meshlium alone, {here} to Fivefold alone.",
                time(since),
                time(until),
                found.same
            ));
            if not_compared > 0 {
                said.push_str(&format!(
                    " {not_compared} rows of the Meshlium are no readings; fivefold import says why."
                ));
            }
            said
        });
    }
}

impl Seen {
    fn json(&self) -> Value {
        json!({ "serial": self.serial, "sequence": self.sequence, "sensor": self.sensor, "value": self.value,
                "time": time(self.at), "line": self.line })
    }

    fn columns(&self) -> [String; 7] {
        let plain = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).take(40).collect();
        let who = if self.side == Side::Here { "Fivefold" } else { "Meshlium" };
        let line = if self.line > 0 { self.line.to_string() } else { String::new() };
        let sequence = self.sequence.map_or_else(String::new, |n| n.to_string());
        [who.to_owned(), time(self.at), self.serial.clone(), sequence, plain(&self.sensor), plain(&self.value), line]
    }
}

fn time(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| "?".to_owned(), |t| t.to_string())
}

/// Unix seconds of `YYYY-MM-DD hh:mm:ss`, UTC; 0 for what is none.
fn seconds(timestamp: &str) -> i64 {
    let parsed = timestamp.parse::<jiff::civil::DateTime>().and_then(|t| TimeZone::UTC.to_timestamp(t));
    parsed.map_or(0, Timestamp::as_second)
}

/// Whether two values are the same: as texts, or as numbers that one of them printed with fewer digits.
fn same_value(a: &str, b: &str) -> bool {
    let close = |a: &str, b: &str| match (a.trim().parse::<f64>(), b.trim().parse::<f64>()) {
        (Ok(x), Ok(y)) => (x - y).abs() <= 1e-5 * x.abs().max(y.abs()) + 1e-9 || x.to_bits() == y.to_bits(),
        _ => a.trim() == b.trim(),
    };
    a.split(';').count() == b.split(';').count() && a.split(';').zip(b.split(';')).all(|(a, b)| close(a, b))
}

/// Both sides, on disk.
struct Both(Connection);

impl Both {
    fn new() -> anyhow::Result<Self> {
        // A database without a name is a file that SQLite deletes.
        let db = Connection::open("").context("cannot make a file for the comparison")?;
        db.execute_batch(
            "CREATE TABLE seen (side INTEGER, serial TEXT, sequence INTEGER, sensor TEXT, value TEXT, at INTEGER, line INTEGER);
             BEGIN;",
        )?;
        Ok(Self(db))
    }

    fn put(&self, seen: &Seen) -> anyhow::Result<()> {
        self.0.prepare_cached("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            seen.side as i64,
            seen.serial,
            seen.sequence,
            seen.sensor,
            seen.value,
            seen.at,
            seen.line
        ])?;
        Ok(())
    }

    fn meshlium(&self, row: &Row<'_>, terms: &Terms, not_compared: &mut u64) -> anyhow::Result<()> {
        match meaning(row, Part::History, terms) {
            Meaning::Reading(r) => self.put(&Seen {
                side: Side::Meshlium,
                serial: r.serial.to_string(),
                sequence: r.sequence.map(i64::from),
                sensor: r.sensor,
                value: r.value,
                at: seconds(&r.timestamp),
                line: i64::try_from(row.line).unwrap_or(0),
            }),
            Meaning::Refused(_) => {
                *not_compared += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// From when to when is compared: while both were there, a window more on either side.
    fn span(&self, args: &Compare) -> anyhow::Result<(i64, i64)> {
        let of = |side: Side| {
            let sql = "SELECT min(at), max(at) FROM seen WHERE side = ?";
            self.0.query_row(sql, [side as i64], |r| Ok(r.get::<_, Option<i64>>(0)?.zip(r.get::<_, Option<i64>>(1)?)))
        };
        let window = i64::from(args.window);
        let (since, until) = match (of(Side::Meshlium)?, of(Side::Here)?) {
            (Some(a), Some(b)) => (a.0.max(b.0) - window, a.1.min(b.1) + window),
            (Some(one), None) | (None, Some(one)) => (one.0, one.1),
            (None, None) => (0, 0),
        };
        let given = |t: Option<Timestamp>| t.map(Timestamp::as_second);
        Ok((given(args.since).unwrap_or(since), given(args.until).map_or(until, |t| t - 1)))
    }

    fn differences(&self, since: i64, until: i64, args: &Compare) -> anyhow::Result<Differences> {
        let mut found = Differences::default();
        // What is near the ends may have its like beyond them.
        let window = i64::from(args.window);
        let sql = "SELECT side, serial, sequence, sensor, value, at, line FROM seen WHERE at BETWEEN ? AND ?
                   ORDER BY serial, sequence, sensor, at, side";
        let mut select = self.0.prepare(sql)?;
        let mut rows = select.query([since.saturating_sub(window), until.saturating_add(window)])?;
        let mut waiting: VecDeque<Seen> = VecDeque::new();
        let alone = |seen: Seen, found: &mut Differences| {
            if (since..=until).contains(&seen.at)
                && let Some((count, listed)) = found.only.get_mut(seen.side as usize)
            {
                *count += 1;
                if listed.len() < args.limit {
                    listed.push(seen);
                }
            }
        };
        while let Some(r) = rows.next()? {
            let side = if r.get::<_, i64>(0)? == 0 { Side::Meshlium } else { Side::Here };
            let (serial, sequence, sensor, value) = (r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?);
            let seen = Seen { side, serial, sequence, sensor, value, at: r.get(5)?, line: r.get(6)? };
            let meets = |w: &Seen| {
                (&w.serial, w.sequence, &w.sensor) == (&seen.serial, seen.sequence, &seen.sensor)
                    && w.at >= seen.at - window
            };
            while waiting.front().is_some_and(|w| !meets(w)) {
                if let Some(late) = waiting.pop_front() {
                    alone(late, &mut found);
                }
            }
            let like = waiting.iter().position(|w| w.side != side && same_value(&w.value, &seen.value));
            match like.and_then(|at| waiting.remove(at)) {
                // Both outside of what is compared: neither counts.
                Some(other) if [other.at, seen.at].iter().any(|at| (since..=until).contains(at)) => found.same += 1,
                Some(_) => {}
                None => waiting.push_back(seen),
            }
        }
        waiting.into_iter().for_each(|late| alone(late, &mut found));
        found.only.iter_mut().for_each(|(_, listed)| listed.sort_by_key(|seen| seen.at));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Compare {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            compare: Compare,
        }
        <Line as clap::Parser>::parse_from([&["compare", "x.sql"], words].concat()).compare
    }

    fn both(rows: &[(Side, i64, &str, i64)]) -> Both {
        let both = Both::new().unwrap();
        for (side, sequence, value, at) in rows {
            let (serial, sensor) = ("8a7384477876150c".into(), "TCA".into());
            let (sequence, value) = (Some(*sequence), (*value).into());
            both.put(&Seen { side: *side, serial, sequence, sensor, value, at: *at, line: 7 }).unwrap();
        }
        both
    }

    fn outcome(rows: &[(Side, i64, &str, i64)], words: &[&str]) -> (u64, u64, u64) {
        let (both, args) = (both(rows), args(words));
        let (since, until) = both.span(&args).unwrap();
        let found = both.differences(since, until, &args).unwrap();
        (found.same, found.only[0].0, found.only[1].0)
    }

    use Side::{Here, Meshlium};

    #[test]
    fn readings_meet_by_number_and_value_within_the_window() {
        let rows = [
            (Meshlium, 1, "21.50", 1000),
            (Here, 1, "21.5", 1300),
            (Meshlium, 2, "21.5", 1000),
            (Here, 2, "21.6", 1000),
            (Meshlium, 3, "1;2", 1000),
            (Here, 3, "1;2", 2000),
        ];
        let within = |window: &str| {
            let span = ["--since", "1970-01-01T00:00:00Z", "--until", "1970-01-01T01:00:00Z"];
            outcome(&rows, &[&span[..], &["--window", window]].concat())
        };
        assert_eq!(within("600"), (1, 2, 2));
        assert_eq!(within("1000"), (2, 1, 1));
        assert_eq!(within("1"), (0, 3, 3));
    }

    #[test]
    fn a_number_that_comes_again_after_256_frames_meets_its_own() {
        let hours = [0i64, 3600, 7200];
        let rows: Vec<_> =
            hours.iter().flat_map(|h| [(Meshlium, 9, "4", 10_000 + h), (Here, 9, "4", 10_001 + h)]).collect();
        assert_eq!(outcome(&rows, &[]), (3, 0, 0));
        // Twice there and once here: one is alone.
        assert_eq!(outcome(&[&rows[..], &[(Meshlium, 9, "4", 10_002)]].concat(), &[]), (3, 1, 0));
    }

    #[test]
    fn what_was_before_the_other_one_came_is_no_difference() {
        let rows =
            [(Meshlium, 1, "1", 0), (Meshlium, 2, "2", 100_000), (Here, 2, "2", 100_000), (Here, 3, "3", 300_000)];
        assert_eq!(outcome(&rows, &[]), (1, 0, 0));
        assert_eq!(outcome(&rows, &["--since", "1970-01-01T00:00:00Z"]), (1, 1, 0));
        assert_eq!(outcome(&rows[..1], &[]), (0, 1, 0), "one side alone");
    }
}
