//! A Meshlium's dump, looked at and not imported (`fivefold audit --beside meshlium=DUMP`).

use std::path::Path;

use anyhow::Context as _;
use fivefold_audit::foreign::{NOT_EXAMINED, Notes, meshlium};
use jiff::tz::TimeZone;

use super::dump::{Event, Place, Row, Value};
use super::file::DumpFile;
use super::rows::{Meaning, Part, Terms, meaning, shown};

/// What a dump shows.
///
/// # Errors
/// It cannot be read, or is no dump.
pub(crate) fn examine(path: &Path) -> anyhow::Result<Notes> {
    let file = DumpFile::open(path)?;
    // A disk's image would be read to its end.
    if let Some(at) = file.zero {
        let shown = path.display();
        anyhow::bail!(
            "{shown} is no dump: it has a zero byte at offset {at}; make one with: mysqldump --result-file={shown}"
        );
    }
    let mut dump = file.walk(Place::default(), None)?.context("the dump changes while it is read")?;
    // Times are not looked at.
    let terms = Terms { zone: TimeZone::UTC, is_latin1: false };
    let mut notes = Notes::default();
    let (mut readings, mut first, mut rows) = (0_u64, 0, 0_u64);
    loop {
        match dump.next().with_context(|| format!("cannot read {}", path.display()))? {
            Event::End => break,
            Event::Skipped { why, table, line } => {
                let what = format!("a row of {} was not looked at: {}", shown(table), why.as_str());
                notes.say(NOT_EXAMINED, path, at(line), what);
            }
            Event::Row(row) => {
                rows += 1;
                if row.table == "sensorParser" {
                    readings += 1;
                    first = if first == 0 { at(row.line) } else { first };
                }
                look(path, &row, &terms, &mut notes);
            }
        }
    }
    anyhow::ensure!(rows > 0, "{} holds no row of a table: is it a dump, made by mysqldump?", path.display());
    if !dump.completed() {
        notes.say(NOT_EXAMINED, path, 0, "the dump does not say that it is complete: was it cut?");
    }
    meshlium::readings(path, first, readings, &mut notes);
    Ok(notes)
}

fn at(line: u64) -> usize {
    usize::try_from(line).unwrap_or(0)
}

fn look(path: &Path, row: &Row<'_>, terms: &Terms, notes: &mut Notes) {
    match meaning(row, Part::Book, terms) {
        Meaning::Key(key) => {
            if let Some(text) = &key.text {
                meshlium::key(path, at(row.line), &key.node, text, notes);
            }
            if key.rsa_bits > 0 {
                meshlium::rsa(path, at(row.line), &key.node, key.rsa_bits, notes);
            }
        }
        Meaning::Account => {
            let is_secret = |column: &str| {
                let column = column.to_ascii_lowercase();
                ["pass", "pwd", "token", "hash", "secret"].iter().any(|word| column.contains(word))
            };
            let texts: Vec<&[u8]> = row
                .columns
                .iter()
                .zip(row.values)
                .filter_map(|(column, value)| match value {
                    Value::Text(text) if is_secret(column) => Some(text.as_slice()),
                    _ => None,
                })
                .collect();
            meshlium::account(path, at(row.line), row.table, &texts, notes);
        }
        Meaning::Refused(note) => {
            let what = format!("a row of {} was not looked at: {}", shown(row.table), note.text);
            notes.say(NOT_EXAMINED, path, at(row.line), what);
        }
        _ => {}
    }
}
