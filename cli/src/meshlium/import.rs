//! `fivefold import meshlium`: nodes with their keys into the operator's book, history beside the ledger.
//!
//! The history comes first, in parts that are durable together with the place where to go on. The book is made up after that,
//! as a whole, and made up again whenever the same is imported once more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_cloud::config::Config;
use fivefold_cloud::store::{ImportBatch, ImportNote, ImportedFrame, ImportedValue, Imports, Run};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::own_sensors;
use fivefold_keep::registry::{Network, did_of};
use fivefold_waspmote::{KeyBits, Sensor, Serial};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::book::{Book, Rules};
use super::dump::{Event, Place, Row};
use super::enter::enter;
use super::file::{self, DumpFile, zone_of};
use super::live::{Live, Where};
use super::rows::{Fate, Meaning, Note, Part, Terms, meaning, shown};
use crate::operator::{Folder, check_name};
use crate::output::{Output, answer};

/// Events of a dump that are made durable at once.
const PART: usize = 1000;
/// From so many bytes on a bar shows how far it is.
const LONG_FILE: u64 = 100_000;
/// Lines of the report that are shown to a person.
const SHOWN: usize = 200;
/// Rows that are looked at again in a live database: those that became visible after ones with a higher id.
const LATE: i64 = 500;

/// Arguments of `fivefold import meshlium`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    folder: Folder,
    /// A dump of its database: mysqldump --result-file=DUMP.sql MeshliumDB.
    #[arg(value_name = "DUMP", required_unless_present = "follow")]
    dump: Option<PathBuf>,
    /// Read its running database instead, and what comes to it until interrupted: mysql://LOGIN@localhost/MeshliumDB?socket=PATH.
    /// Nothing in it is changed.
    #[arg(long, value_name = "URL", conflicts_with = "dump")]
    follow: Option<String>,
    #[command(flatten)]
    live: Where,
    /// With --follow: end when everything was read.
    #[arg(long, requires = "follow")]
    once: bool,
    /// With --follow: seconds between two looks.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    every: u64,
    /// The network that its nodes belong to.
    #[arg(long, value_name = "NAME")]
    net: String,
    /// Name of that Meshlium here. Two of them need two.
    #[arg(long, default_value = "meshlium", value_name = "NAME")]
    from: String,
    /// Zone of the times in it, where it is not the one that the dump says, or UTC.
    #[arg(long, value_name = "ZONE", value_parser = |text: &str| zone_of(text).map_err(|e| e.to_string()))]
    time_zone: Option<TimeZone>,
    /// Size of all keys: 128, 192 or 256. Without it, of each the smallest that its text fits in; the database does not say.
    #[arg(long, value_name = "BITS", value_parser = bits)]
    key_bits: Option<KeyBits>,
    /// Takes keys too that are zero, short or in a dictionary, which anybody can guess. Your words are kept.
    #[arg(long, value_name = "WORDS")]
    danger_weak_keys: Option<String>,
    /// Serials with fewer rows are not entered as devices.
    #[arg(long, default_value_t = 2, value_name = "N")]
    least_rows: u64,
    /// File for the report, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// File for the sensors that users added, as `fivefold network set --sensors` and `frame decode --sensors` take it.
    #[arg(long, value_name = "FILE")]
    sensors_file: Option<PathBuf>,
}

fn bits(text: &str) -> Result<KeyBits, String> {
    text.parse().ok().and_then(KeyBits::from_bits).ok_or_else(|| "expected 128, 192 or 256".to_owned())
}

/// What one run did.
struct Told {
    run: Run,
    began_at: u64,
    added: usize,
    known: usize,
    keys: usize,
    sensors: Vec<Sensor>,
    notes: Vec<ImportNote>,
}

impl Import {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<ExitCode> {
        check_name(&self.from)?;
        anyhow::ensure!(
            self.danger_weak_keys.as_ref().is_none_or(|words| words.len() >= 8),
            "say in a few words why keys that anybody can guess are to be taken: --danger-weak-keys \"WORDS\""
        );
        let (_, registry) = self.folder.open_book()?;
        let network = registry.network(&self.net)?;
        anyhow::ensure!(
            registry.classic_networks()?.contains(&network.net),
            "network {} takes no classic devices; allow them: fivefold network set {} --classic yes",
            self.net,
            self.net
        );
        drop(registry);
        let mut imports = Imports::open(&Config::load(&self.folder.dir.join("cloud"))?.store)?;
        match (&self.follow, &self.dump) {
            (Some(url), _) => self.follow(url, &network, &mut imports, output),
            (None, Some(dump)) => self.whole(dump, &network, &mut imports, output),
            (None, None) => anyhow::bail!("name a dump, or a database with --follow"),
        }
    }

    fn begin(&self, imports: &mut Imports, network: &Network, digest: &[u8]) -> anyhow::Result<Run> {
        let run = imports.begin(&self.from, network.net, digest)?;
        run.with_context(|| {
            format!(
                "{} was imported into another network before; give this one a name of its own with --from",
                self.from
            )
        })
    }

    fn whole(
        &self,
        path: &std::path::Path,
        network: &Network,
        imports: &mut Imports,
        output: Output,
    ) -> anyhow::Result<ExitCode> {
        let dump = DumpFile::open(path)?;
        let mut run = self.begin(imports, network, &dump.digest)?;
        let began_at = self.history(&dump, imports, &mut run)?;
        let mut book = Book::default();
        self.scan(&dump, &mut book)?;
        let told = self.settle(book, network, imports, run, began_at)?;
        self.say(&told, output)
    }

    /// Takes what is left of a dump's history. Returns the offset at which it began.
    fn history(&self, file: &DumpFile, imports: &mut Imports, run: &mut Run) -> anyhow::Result<u64> {
        let (place, mark) = file::from_json(&run.place).map_or((Place::default(), None), |(p, m)| (p, Some(m)));
        let mut dump = match file.walk(place, mark.as_deref())? {
            Some(dump) => dump,
            None => {
                imports.restart(run)?;
                file.walk(Place::default(), None)?.context("the dump changes while it is read")?
            }
        };
        let began_at = dump.offset();
        if run.is_done {
            return Ok(began_at);
        }
        let bar = bar(file.size);
        while !run.is_done {
            let mut batch = ImportBatch::default();
            for _ in 0..PART {
                match dump.next().context("cannot read the dump")? {
                    Event::Row(row) => take(&row, &file::terms(&row, self.time_zone.as_ref())?, &mut batch),
                    Event::Skipped { why, table, line } => {
                        let text = format!("a row of {} could not be read: {}", shown(table), why.as_str());
                        let table = table.to_owned();
                        let note = Note { line, table, row: None, reason: why.as_str(), fate: Fate::Refused, text };
                        batch.notes.push(note.into());
                    }
                    Event::End => {
                        batch.is_last = true;
                        break;
                    }
                }
            }
            let place = dump.place();
            if batch.is_last && !dump.completed() {
                let text = "the dump does not say that it is complete: was it cut?".to_owned();
                let (line, table) = (place.line, String::new());
                let note = Note { line, table, row: None, reason: "incomplete", fate: Fate::Taken, text };
                batch.notes.push(note.into());
            }
            batch.place = file::to_json(&place, &file.mark(place.offset)?);
            imports.put(run, &batch)?;
            bar.set_position(place.offset);
        }
        bar.finish_and_clear();
        Ok(began_at)
    }

    /// Walks through a dump for what belongs in the book.
    fn scan(&self, file: &DumpFile, book: &mut Book) -> anyhow::Result<()> {
        let mut dump = file.walk(Place::default(), None)?.context("the dump changes while it is read")?;
        let bar = bar(file.size);
        for n in 0u64.. {
            match dump.next().context("cannot read the dump")? {
                Event::Row(row) => book.take(&row, &file::terms(&row, self.time_zone.as_ref())?),
                Event::Skipped { .. } => {}
                Event::End => break,
            }
            if n % 1000 == 0 {
                bar.set_position(dump.offset());
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Enters the book, and puts down what is to be said of it.
    fn settle(
        &self,
        book: Book,
        network: &Network,
        imports: &mut Imports,
        mut run: Run,
        began_at: u64,
    ) -> anyhow::Result<Told> {
        let words = self.danger_weak_keys.as_deref();
        let rules = Rules { words, bits: self.key_bits, least_rows: self.least_rows };
        let mut settled = book.settle(&imports.nodes(&run)?, rules);
        let keys = settled.devices.iter().filter(|d| d.key.is_some()).count();
        let mut operator = self.folder.open()?;
        let entered = enter(&mut operator, network, &settled.devices, words, &mut settled.notes)?;
        let notes: Vec<ImportNote> = settled.notes.into_iter().map(ImportNote::from).collect();
        imports.book(&mut run, &notes)?;
        let notes = imports.notes(&run)?;
        Ok(Told { began_at, added: entered.added, known: entered.known, keys, sensors: settled.sensors, notes, run })
    }

    fn follow(&self, url: &str, network: &Network, imports: &mut Imports, output: Output) -> anyhow::Result<ExitCode> {
        let mut live = Live::connect(url, &self.live)?;
        live.warn();
        let mut run = self.begin(imports, network, b"")?;
        let mut cursor = Cursor::of(&run.place);
        let terms = Terms { zone: self.time_zone.clone().unwrap_or(TimeZone::UTC), is_latin1: false };
        let (mut serials, mut is_new) = (BTreeSet::new(), true);
        loop {
            let found = self.look(&mut live, &mut cursor, &terms, imports, &mut run);
            let more = match found {
                Ok(more) => more,
                Err(lost) if !self.once && lost.downcast_ref::<mysql::Error>().is_some() => {
                    crate::output::error(output, &lost.context("the line to the Meshlium is lost, and made again"));
                    std::thread::sleep(Duration::from_secs(self.every));
                    if let Ok(again) = Live::connect(url, &self.live) {
                        live = again;
                    }
                    continue;
                }
                Err(wrong) => return Err(wrong),
            };
            is_new |= more.serials.into_iter().fold(false, |new, serial| serials.insert(serial) | new);
            if more.is_full {
                continue;
            }
            if is_new {
                // A node that was not there before: the book is made up again.
                is_new = false;
                let mut book = Book::default();
                for table in ["encryptionData", "sensors", "users", "login", "tokens"] {
                    live.all(table, 10_000)?.iter().for_each(|row| book.take(&row.row(table), &terms));
                }
                let told = self.settle(book, network, imports, run.clone(), 0)?;
                if self.once {
                    return self.say(&told, output);
                }
                self.say(&told, output)?;
            } else if self.once {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(Duration::from_secs(self.every));
        }
    }

    /// Takes the next rows of a live database.
    fn look(
        &self,
        live: &mut Live,
        cursor: &mut Cursor,
        terms: &Terms,
        imports: &mut Imports,
        run: &mut Run,
    ) -> anyhow::Result<Looked> {
        let mut batch = ImportBatch::default();
        let mut is_full = false;
        for (table, after, seen) in [
            ("sensorParser", &mut cursor.values, &mut cursor.seen_values),
            ("sensorCloud", &mut cursor.frames, &mut cursor.seen_frames),
        ] {
            if !live.has(table)? {
                continue;
            }
            let highest = live.highest(table)?.unwrap_or(*after);
            anyhow::ensure!(
                highest >= *after,
                "ids of {table} began anew (it had {after}, and now {highest}): give it another name with --from"
            );
            let rows = live.after(table, *after - LATE, PART + LATE as usize)?;
            is_full |= rows.len() > LATE as usize + PART / 2;
            for row in &rows {
                let row = row.row(table);
                let id = row.value("id").and_then(super::book::id_of);
                if id.is_none_or(|id| seen.insert(id)) {
                    take(&row, terms, &mut batch);
                }
                *after = (*after).max(id.unwrap_or(0));
            }
            let (oldest, kept) = (*after - 2 * LATE, std::mem::take(seen));
            seen.extend(kept.into_iter().filter(|id| *id > oldest));
        }
        let serials = batch.values.iter().filter_map(|v| v.serial.parse().ok()).collect();
        if !(batch.values.is_empty() && batch.frames.is_empty() && batch.notes.is_empty()) {
            batch.place = json!({ "values": cursor.values, "frames": cursor.frames }).to_string();
            imports.put(run, &batch)?;
        }
        Ok(Looked { is_full, serials })
    }

    fn say(&self, told: &Told, output: Output) -> anyhow::Result<ExitCode> {
        let lines: Vec<Value> = told.notes.iter().map(note_json).collect();
        if let Some(path) = &self.report {
            let mut text = Vec::new();
            for line in &lines {
                writeln!(text, "{line}")?;
            }
            files::write(path, Readers::Everybody, &text)?;
        }
        if let Some(path) = &self.sensors_file {
            files::write(path, Readers::Everybody, own_sensors::to_json(&told.sensors).as_bytes())?;
        }
        let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
        told.notes.iter().for_each(|n| *by_reason.entry(n.reason.as_str()).or_default() += 1);
        let refused = told.notes.iter().filter(|n| n.fate == Fate::Refused.as_str()).count();
        let Run { stored, repeated, unsaid, .. } = &told.run;
        let value = json!({
            "from": self.from, "net": self.net, "stored": stored, "repeated": repeated, "refused": refused,
            "began_at": told.began_at, "devices": { "added": told.added, "known": told.known, "with_key": told.keys },
            "sensors": sensors_json(&told.sensors), "by_reason": by_reason, "unsaid": unsaid, "notes": lines,
        });
        answer(output, &value, || self.text(told, refused, &by_reason));
        Ok(if refused == 0 && *unsaid == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn text(&self, told: &Told, refused: usize, by_reason: &BTreeMap<&str, usize>) -> String {
        let mut said = String::new();
        for n in told.notes.iter().take(SHOWN) {
            let at = if n.line == 0 { String::new() } else { format!("line {}: ", n.line) };
            let row = n.row.map(|id| format!(" {id}")).unwrap_or_default();
            said.push_str(&format!("{at}{}{row}: {} ({}): {}\n", n.table, n.fate, n.reason, n.text));
        }
        if told.notes.len() > SHOWN {
            let more = told.notes.len() - SHOWN;
            said.push_str(&format!("and {more} lines more; all of them are in the file that --report names\n"));
        }
        if told.run.unsaid > 0 {
            said.push_str(&format!("{} lines more were too many to keep\n", told.run.unsaid));
        }
        for (reason, n) in by_reason {
            said.push_str(&format!("{n:>8}  {reason}\n"));
        }
        said.push_str(&format!(
            "From {} into {}: {} rows stored, {} were there, {refused} refused. {} devices entered, {} were there, {} have a \
             key. Nothing of this is proven: see it with fivefold reading list --imported.",
            self.from, self.net, told.run.stored, told.run.repeated, told.added, told.known, told.keys
        ));
        if self.key_bits.is_none() && told.keys > 0 {
            said.push_str(
                "\nThe size of each key is the smallest that its text fits in. Where nodes use a longer one, import again with \
                 --key-bits.",
            );
        }
        said
    }
}

/// Puts a row where it belongs.
fn take(row: &Row<'_>, terms: &Terms, batch: &mut ImportBatch) {
    match meaning(row, Part::History, terms) {
        Meaning::Reading(r) => {
            if r.is_markup {
                let text =
                    format!("kept as it is, as data: {} {} {}", shown(&r.node_id), shown(&r.sensor), shown(&r.value));
                let (line, table) = (row.line, row.table.to_owned());
                let note = Note { line, table, row: Some(r.row), reason: "markup", fate: Fate::Taken, text };
                batch.notes.push(note.into());
            }
            batch.values.push(ImportedValue {
                row: r.row,
                did: did_of(r.serial),
                serial: r.serial.to_string(),
                node_id: r.node_id,
                kind: r.frame_type,
                sequence: r.sequence,
                tag: r.sensor,
                value: r.value,
                timestamp: r.timestamp,
                sync: r.sync,
                line: row.line,
            });
        }
        Meaning::ForCloud(f) => batch.frames.push(ImportedFrame {
            row: f.row,
            did: did_of(f.serial),
            serial: f.serial.to_string(),
            kind: f.frame_type,
            raw: f.raw,
            timestamp: f.timestamp,
            sync: f.sync,
            line: row.line,
        }),
        Meaning::Refused(note) => batch.notes.push(note.into()),
        Meaning::Key(_) | Meaning::Listed(_) | Meaning::Account | Meaning::Other => {}
    }
}

/// How far a live database was read.
#[derive(Default)]
struct Cursor {
    values: i64,
    frames: i64,
    seen_values: BTreeSet<i64>,
    seen_frames: BTreeSet<i64>,
}

impl Cursor {
    fn of(place: &str) -> Self {
        let place: Value = serde_json::from_str(place).unwrap_or_default();
        let at = |key: &str| place.get(key).and_then(Value::as_i64).unwrap_or(0);
        Self { values: at("values"), frames: at("frames"), ..Self::default() }
    }
}

struct Looked {
    is_full: bool,
    serials: Vec<Serial>,
}

/// A bar on standard error, if that is a terminal, and this takes long enough to be looked at.
fn bar(size: u64) -> ProgressBar {
    if size < LONG_FILE {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}% {bytes}/{total_bytes} {eta}");
    style.map_or_else(|_| ProgressBar::new(size), |style| ProgressBar::new(size).with_style(style))
}

fn note_json(n: &ImportNote) -> Value {
    json!({ "line": n.line, "table": n.table, "row": n.row, "reason": n.reason, "fate": n.fate, "text": n.text })
}

fn sensors_json(sensors: &[Sensor]) -> Value {
    let one = |s: &Sensor| {
        json!({ "id": s.id, "tag": s.tag, "type": s.kind.as_str(), "fields": s.fields, "ascii_decimals": s.decimals,
                "unit": s.unit, "description": s.description })
    };
    Value::Array(sensors.iter().map(one).collect())
}
