//! Sensors that a user added to the nodes' software: rows of a file, in TOML, or in JSON with the same names.
//!
//! Each mistake is named with the line that its row begins in. A table of the nodes' own that a row does not name is left alone.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fivefold_waspmote::{Kind, Sensor, Sensors, Table};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// A row of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: u8,
    tag: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "one")]
    fields: u8,
    #[serde(default)]
    decimals: u8,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    description: String,
    #[serde(default = "usual_table")]
    table: String,
}

const fn one() -> u8 {
    1
}

fn usual_table() -> String {
    Table::Default.as_str().into()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    sensor: Vec<toml::Spanned<toml::Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile {
    #[serde(default)]
    sensor: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct JsonRows {
    sensor: Vec<Row>,
}

/// What is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its line, from 1 on.
    pub line: usize,
    /// What it is, in one sentence.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// All that is wrong in a file, at least one, by line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, mistake)| {
            let before = if at == 0 { "" } else { "; " };
            write!(f, "{before}{mistake}")
        })
    }
}

/// Why a file gives no sensors.
#[derive(Debug, thiserror::Error)]
pub enum OwnSensorsError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is wrong.
    #[error("{path}: {mistakes}", path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        mistakes: Mistakes,
    },
}

/// The tables of the nodes, with the sensors of a user's own.
#[derive(Clone, Debug)]
pub struct OwnSensors {
    tables: [Sensors; 4],
    rows: usize,
}

impl Default for OwnSensors {
    fn default() -> Self {
        Self { tables: ALL.map(Sensors::of), rows: 0 }
    }
}

const ALL: [Table; 4] = [Table::Default, Table::Agriculture, Table::Water, Table::V12];

const fn place(table: Table) -> usize {
    match table {
        Table::Default => 0,
        Table::Agriculture => 1,
        Table::Water => 2,
        Table::V12 => 3,
    }
}

impl OwnSensors {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Every row that is none, or that its table has no place for.
    pub fn read(text: &str) -> Result<Self, Mistakes> {
        let is_json = text.trim_start().starts_with('{');
        let rows = if is_json { json_rows(text) } else { toml_rows(text) }?;
        let mut own = Self::default();
        let mut mistakes = Vec::new();
        for (line, row) in rows {
            if let Err(what) = row.and_then(|row| own.add(row)) {
                mistakes.push(Mistake { line, what });
            }
        }
        if mistakes.is_empty() { Ok(own) } else { Err(Mistakes(mistakes)) }
    }

    /// Reads a file: what it holds, and its text.
    ///
    /// # Errors
    /// [`OwnSensorsError`].
    pub fn read_file(path: &Path) -> Result<(Self, String), OwnSensorsError> {
        let text = files::read_text(path)?;
        let own = Self::read(&text).map_err(|mistakes| OwnSensorsError::Wrong { path: path.to_owned(), mistakes })?;
        Ok((own, text))
    }

    /// A table with what was added to it.
    pub const fn of(&self, table: Table) -> &Sensors {
        let [default, agriculture, water, v12] = &self.tables;
        match table {
            Table::Default => default,
            Table::Agriculture => agriculture,
            Table::Water => water,
            Table::V12 => v12,
        }
    }

    /// How many sensors of a user's own there are.
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn add(&mut self, row: Row) -> Result<(), String> {
        let named = |what: String| format!("sensor {} ({}): {what}", row.id, row.tag.escape_debug());
        let kind = Kind::from_word(&row.kind).ok_or_else(|| {
            named(format!(
                "type '{}' is none of uint8, int16, uint16, float32, string or uint32",
                row.kind.escape_debug()
            ))
        })?;
        let table = Table::from_word(&row.table).ok_or_else(|| {
            named(format!("table '{}' is none of default, agriculture, water or v12", row.table.escape_debug()))
        })?;
        let sensor = Sensor {
            id: row.id,
            tag: row.tag.clone().into(),
            kind,
            fields: row.fields,
            decimals: row.decimals,
            unit: row.unit.clone().into(),
            description: row.description.clone().into(),
        };
        let Some(sensors) = self.tables.get_mut(place(table)) else { return Ok(()) };
        sensors.add(sensor).map_err(|why| named(format!("{why} in table {}", table.as_str())))?;
        self.rows += 1;
        Ok(())
    }
}

/// The text of a file with these sensors, for the nodes' default table.
pub fn to_json(sensors: &[Sensor]) -> String {
    let row = |s: &Sensor| Row {
        id: s.id,
        tag: s.tag.clone().into_owned(),
        kind: s.kind.as_str().into(),
        fields: s.fields,
        decimals: s.decimals,
        unit: s.unit.clone().into_owned(),
        description: s.description.clone().into_owned(),
        table: usual_table(),
    };
    // Nothing in a row can fail to be written.
    serde_json::to_string_pretty(&JsonRows { sensor: sensors.iter().map(row).collect() }).unwrap_or_default()
}

/// Rows with the line that each begins in.
type Rows = Vec<(usize, Result<Row, String>)>;

fn toml_rows(text: &str) -> Result<Rows, Mistakes> {
    let line = |span: Range<usize>| line_of(text, span.start);
    let one = |e: toml::de::Error| {
        let what = e.message().lines().collect::<Vec<_>>().join("; ");
        Mistakes(vec![Mistake { line: e.span().map_or(1, line), what }])
    };
    let file: TomlFile = toml::from_str(text).map_err(one)?;
    let row = |table: toml::Spanned<toml::Table>| {
        let line = line(table.span());
        (line, table.into_inner().try_into::<Row>().map_err(|e| e.message().lines().collect::<Vec<_>>().join("; ")))
    };
    Ok(file.sensor.into_iter().map(row).collect())
}

fn json_rows(text: &str) -> Result<Rows, Mistakes> {
    let file: JsonFile =
        serde_json::from_str(text).map_err(|e| Mistakes(vec![Mistake { line: e.line().max(1), what: short(&e) }]))?;
    // The rows stand in the only list: where each begins is found by reading one after the other.
    let mut at = text.find('[').map_or(text.len(), |list| list + 1);
    let mut rows = Vec::with_capacity(file.sensor.len());
    for value in file.sensor {
        let rest = text.get(at..).unwrap_or_default();
        at += rest.len() - rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace()).len();
        let row = match value {
            serde_json::Value::Object(_) => serde_json::from_value(value).map_err(|e| short(&e)),
            _ => Err("a sensor is an object with id, tag and type".into()),
        };
        rows.push((line_of(text, at), row));
        let mut one =
            serde_json::Deserializer::from_str(text.get(at..).unwrap_or_default()).into_iter::<serde::de::IgnoredAny>();
        one.next();
        at += one.byte_offset();
    }
    Ok(rows)
}

/// What it says, without its own count of lines.
fn short(e: &serde_json::Error) -> String {
    let told = e.to_string();
    told.rsplit_once(" at line ").map_or(told.clone(), |(what, _)| what.to_owned())
}

/// The line, from 1 on, that byte `at` of a text stands in.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().get(..at).unwrap_or_default().iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNOW: &str = "[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\nunit = \"mm\"\n";

    #[test]
    fn a_row_goes_to_the_table_that_it_names_and_to_no_other() {
        let text = format!("# ours\n{SNOW}\n[[sensor]]\nid = 200\ntag = \"ICE\"\ntype = \"uint8\"\ntable = \"v12\"\n");
        let own = OwnSensors::read(&text).unwrap();
        assert_eq!((own.len(), own.of(Table::Default).by_id(22).unwrap().unit.as_ref()), (2, "mm"));
        assert_eq!(own.of(Table::V12).by_id(200).unwrap().tag, "ICE");
        assert_ne!(own.of(Table::V12).by_id(22).map(|s| s.tag.as_ref()), Some("SNOW"));
        assert_eq!(own.of(Table::Water).iter().count(), Sensors::of(Table::Water).iter().count());
        assert!(OwnSensors::read("").unwrap().is_empty());
    }

    #[test]
    fn what_is_written_as_json_reads_as_it_was() {
        let own = OwnSensors::read(SNOW).unwrap();
        let sensor = own.of(Table::Default).by_id(22).unwrap().clone();
        let text = to_json(std::slice::from_ref(&sensor));
        assert_eq!(OwnSensors::read(&text).unwrap().of(Table::Default).by_id(22), Some(&sensor));
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let toml = format!(
            "{SNOW}[[sensor]]\nid = 52\ntag = \"ICE\"\ntype = \"uint8\"\n[[sensor]]\nid = 300\ntag = \"A\"\ntype = \"uint8\"\n\
             [[sensor]]\nid = 23\ntag = \"A\"\ntype = \"double\"\n[[sensor]]\nid = 24\ntag = \"B\"\ntype = \"uint8\"\ntable = \"x\"\n"
        );
        let Mistakes(found) = OwnSensors::read(&toml).unwrap_err();
        let lines: Vec<_> = found.iter().map(|m| m.line).collect();
        assert_eq!(lines, [6, 10, 14, 18], "{found:?}");
        for (mistake, word) in found.iter().zip(["id 52 is BAT already in table default", "300", "double", "'x'"]) {
            assert!(mistake.what.contains(word), "{mistake}");
        }
        let json = "{ \"sensor\": [\n  { \"id\": 22, \"tag\": \"SNOW\", \"type\": \"float32\" },\n  { \"id\": 22, \"tag\": \"ICE\",\n    \
                    \"type\": \"uint8\" },\n  { \"id\": 23, \"name\": \"ICE\" }\n] }";
        let Mistakes(found) = OwnSensors::read(json).unwrap_err();
        let lines: Vec<_> = found.iter().map(|m| m.line).collect();
        assert_eq!(lines, [3, 5], "{found:?}");
        assert!(found[0].what.contains("id 22 is SNOW already"), "{found:?}");
        assert!(found[1].what.contains("name"), "{found:?}");
        for (text, line) in
            [("[[sensor]]\nid = \n", 2), ("{ \"sensor\": [\n }", 2), ("[[sensors]]\nid = 1\n", 1), ("[]", 1)]
        {
            assert_eq!(OwnSensors::read(text).unwrap_err().0[0].line, line, "{text}");
        }
    }
}
