//! A dump as a file: which one it is, and where a walk through it goes on.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::suite::sha256;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::dump::{Dump, Insert, Place, Row};
use super::rows::Terms;

/// Bytes that tell one file from another: at its beginning, and before where a walk was left.
const MARK: u64 = 64 * 1024;

/// A dump.
#[derive(Debug)]
pub(crate) struct DumpFile {
    path: PathBuf,
    /// How long it is.
    pub(crate) size: u64,
    /// SHA-256 of its size and its head.
    pub(crate) digest: [u8; 32],
    /// Where its head has a zero byte, which mysqldump writes as `\0`.
    pub(crate) zero: Option<usize>,
}

impl DumpFile {
    /// Looks at a file.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        // A pipe is no dump: who walks through one comes back to it.
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
        anyhow::ensure!(meta.is_file(), "{shown} is no file");
        let mut file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
        let size = meta.len();
        let mut head = Vec::new();
        file.by_ref().take(MARK).read_to_end(&mut head).with_context(|| format!("cannot read {shown}"))?;
        let packed =
            [(&b"\x1F\x8B"[..], "gunzip"), (b"BZh", "bunzip2"), (b"\xFD7zXZ", "unxz"), (b"PK\x03\x04", "unzip")];
        if let Some((_, tool)) = packed.iter().find(|(magic, _)| head.starts_with(magic)) {
            anyhow::bail!("{shown} is compressed; unpack it first: {tool} {shown}");
        }
        anyhow::ensure!(
            !head.starts_with(b"\xFF\xFE") && !head.starts_with(b"\xFE\xFF"),
            "{shown} is in UTF-16, as PowerShell writes it; make the dump again with: mysqldump --result-file={shown}"
        );
        let digest = sha256(&[&size.to_be_bytes(), &head]);
        let zero = head.iter().position(|byte| *byte == 0);
        Ok(Self { path: path.to_owned(), size, digest, zero })
    }

    /// Walks on from `place`; `None` where the file is another one there than when it was left.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn walk(&self, place: Place, mark: Option<&str>) -> anyhow::Result<Option<Dump<File>>> {
        if mark.is_some_and(|mark| self.mark(place.offset).ok().as_deref() != Some(mark)) {
            return Ok(None);
        }
        let mut file = File::open(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let mut place = place;
        if place.offset == 0 {
            let mut mark = [0; 3];
            // Some editors put one in front of UTF-8.
            if file.read(&mut mark).unwrap_or(0) == 3 && mark == [0xEF, 0xBB, 0xBF] {
                place.offset = 3;
            }
        }
        file.seek(SeekFrom::Start(place.offset)).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(Some(Dump::at(place, file)))
    }

    /// What stands before an offset, as a digest.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn mark(&self, offset: u64) -> anyhow::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset.saturating_sub(MARK)))?;
        let mut before = Vec::new();
        file.take(offset.min(MARK)).read_to_end(&mut before)?;
        Ok(hex::encode(sha256(&[&before])))
    }
}

/// In which terms a row is read; `zone` is what the operator said.
///
/// # Errors
/// The dump says a zone that nobody knows.
pub(crate) fn terms(row: &Row<'_>, zone: Option<&TimeZone>) -> anyhow::Result<Terms> {
    let zone = match (zone, row.time_zone) {
        (Some(zone), _) => zone.clone(),
        (None, "" | "+00:00" | "UTC") => TimeZone::UTC,
        (None, said) => zone_of(said)?,
    };
    Ok(Terms { zone, is_latin1: row.names == "latin1" })
}

/// A zone by its name (`Europe/Madrid`) or its offset (`+01:00`).
///
/// # Errors
/// It is none.
pub(crate) fn zone_of(name: &str) -> anyhow::Result<TimeZone> {
    let offset = || {
        let (sign, rest) =
            name.strip_prefix('+').map(|r| (1, r)).or_else(|| name.strip_prefix('-').map(|r| (-1, r)))?;
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let seconds = sign * (hours * 3600 + minutes * 60);
        jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
    };
    let bare: String = name.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
    match offset() {
        Some(zone) => Ok(zone),
        None => TimeZone::get(name).map_err(|_| {
            anyhow::anyhow!("`{bare}` is no time zone; give one such as Europe/Madrid or +01:00 with --time-zone")
        }),
    }
}

/// A place as the store keeps it.
pub(crate) fn to_json(place: &Place, mark: &str) -> String {
    let insert =
        place.insert.as_ref().map(|i| json!({ "database": i.database, "table": i.table, "columns": i.columns }));
    json!({
        "offset": place.offset, "line": place.line, "delimiter": hex::encode(&place.delimiter),
        "conditional": place.conditional, "backslash": place.backslash, "database": place.database,
        "tables": place.tables, "insert": insert, "names": place.names, "time_zone": place.time_zone, "mark": mark,
    })
    .to_string()
}

/// The same, read; `None` for what is no place of this version.
pub(crate) fn from_json(text: &str) -> Option<(Place, String)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let insert = match value.get("insert")? {
        Value::Null => None,
        insert => Some(Insert {
            database: insert.get("database")?.as_str().map(str::to_owned),
            table: insert.get("table")?.as_str()?.to_owned(),
            columns: serde_json::from_value(insert.get("columns")?.clone()).ok()?,
        }),
    };
    let place = Place {
        offset: value.get("offset")?.as_u64()?,
        line: value.get("line")?.as_u64()?,
        delimiter: hex::decode(text("delimiter")?).ok()?,
        conditional: flag("conditional")?,
        backslash: flag("backslash")?,
        database: text("database")?,
        tables: serde_json::from_value(value.get("tables")?.clone()).ok()?,
        insert,
        names: text("names")?,
        time_zone: text("time_zone")?,
    };
    Some((place, text("mark")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_as_it_is() {
        let place = Place {
            offset: 1 << 40,
            line: 7,
            delimiter: b"$$".to_vec(),
            conditional: true,
            database: "MeshliumDB".into(),
            tables: vec![("t".into(), vec!["a".into(), "b".into()])],
            insert: Some(Insert { database: None, table: "t".into(), columns: Some(vec!["a".into()]) }),
            ..Place::default()
        };
        assert_eq!(from_json(&to_json(&place, "ab")), Some((place, "ab".into())));
        assert_eq!(from_json(&to_json(&Place::default(), "")), Some((Place::default(), String::new())));
        for broken in ["", "{}", "7", r#"{"offset":-1}"#] {
            assert_eq!(from_json(broken), None);
        }
    }

    #[test]
    fn a_zone_has_a_name_or_an_offset() {
        for good in ["UTC", "Europe/Madrid", "+01:00", "-03:30"] {
            assert!(zone_of(good).is_ok(), "{good}");
        }
        for bad in ["SYSTEM", "+99:00", "there\u{1b}[2J", "+1"] {
            assert!(!zone_of(bad).unwrap_err().to_string().contains('\u{1b}'), "{bad}");
        }
    }
}
