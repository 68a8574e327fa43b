//! Templates of readings (docs/protocol.md 7), as an operator's file has them: an id, and the columns of its rows.
//!
//! ```toml
//! [[template]]
//! id = 3
//! columns = [{ name = "level", unit = "m" }, { name = "gate/open" }]
//! ```
//!
//! Each mistake is named with the line that its template begins in.

use std::path::{Path, PathBuf};

use fivefold_core::reading::template::{Column, Definition};
use serde::Deserialize;

use crate::files::{self, FileError};
use crate::own_sensors::{Mistake, Mistakes, line_of};

/// Columns of one template, at most: no payload has room for more values.
pub const COLUMNS: usize = 64;
/// Characters of a name or a unit, at most.
pub const WORD: usize = 64;

/// A template of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Which one rows name.
    pub id: u64,
    /// What is registered: `[id, [name, unit or null], ..]`.
    pub definition: Vec<u8>,
    /// The line that it begins in.
    pub line: usize,
}

/// Why a file gives no templates.
#[derive(Debug, thiserror::Error)]
pub enum TemplatesError {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    template: Vec<toml::Spanned<toml::Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: u64,
    columns: Vec<ColumnRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnRow {
    name: String,
    unit: Option<String>,
}

/// Reads the text of a file.
///
/// # Errors
/// Every template that is none, an id that stands there twice, and a file without any.
pub fn read(text: &str) -> Result<Vec<Template>, Mistakes> {
    let one = |line, what: String| Mistakes(vec![Mistake { line, what }]);
    let said = |e: &toml::de::Error| e.message().lines().collect::<Vec<_>>().join("; ");
    let file: File =
        toml::from_str(text).map_err(|e| one(e.span().map_or(1, |span| line_of(text, span.start)), said(&e)))?;
    let (mut all, mut mistakes): (Vec<Template>, Vec<Mistake>) = (Vec::new(), Vec::new());
    for table in file.template {
        let line = line_of(text, table.span().start);
        let row = table.into_inner().try_into::<Row>().map_err(|e| said(&e));
        match row.and_then(|row| row.check(&all, line)) {
            Ok(template) => all.push(template),
            Err(what) => mistakes.push(Mistake { line, what }),
        }
    }
    match (mistakes.is_empty(), all.is_empty()) {
        (false, _) => Err(Mistakes(mistakes)),
        (true, true) => Err(one(1, "there is no [[template]] in it".into())),
        (true, false) => Ok(all),
    }
}

/// Reads a file.
///
/// # Errors
/// [`TemplatesError`].
pub fn read_file(path: &Path) -> Result<Vec<Template>, TemplatesError> {
    let text = files::read_text(path)?;
    read(&text).map_err(|mistakes| TemplatesError::Wrong { path: path.to_owned(), mistakes })
}

impl Row {
    fn check(&self, before: &[Template], line: usize) -> Result<Template, String> {
        let named = |what: String| format!("template {}: {what}", self.id);
        if let Some(other) = before.iter().find(|t| t.id == self.id) {
            return Err(named(format!("line {} has this id already", other.line)));
        }
        if self.columns.is_empty() || self.columns.len() > COLUMNS {
            return Err(named(format!("it has {} columns, and 1 to {COLUMNS} are needed", self.columns.len())));
        }
        for (at, column) in self.columns.iter().enumerate() {
            column.check().map_err(|what| named(format!("column {}: {what}", at + 1)))?;
            if self.columns.iter().take(at).any(|other| other.name == column.name) {
                return Err(named(format!("column {}: another one is called {} too", at + 1, column.name)));
            }
        }
        let columns: Vec<_> = self.columns.iter().map(|c| Column { name: &c.name, unit: c.unit.as_deref() }).collect();
        // Heads of at most 9 bytes around words of a known length.
        let mut definition = vec![0; 32 + columns.len() * (32 + 2 * WORD)];
        let len = Definition::emit(self.id, &columns, &mut definition).map_err(|_| named("it is too long".into()))?;
        definition.truncate(len);
        Ok(Template { id: self.id, definition, line })
    }
}

impl ColumnRow {
    /// Names are those of SenML (RFC 8428 4.5.1): what is shown must not depend on how it was sent.
    fn check(&self) -> Result<(), String> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '/' | '_');
        let begins = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !self.name.chars().all(is_of_name) || self.name.len() > WORD {
            let name = self.name.escape_debug();
            return Err(format!(
                "'{name}' is no name; begin with a letter or digit, and take letters, digits and - : . / _, {WORD} at most"
            ));
        }
        match &self.unit {
            Some(unit) if unit.is_empty() || unit.len() > WORD || unit.chars().any(char::is_control) => {
                Err(format!("unit '{}' is none; leave it out where there is no unit", unit.escape_debug()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: &str =
        "[[template]]\nid = 3\ncolumns = [{ name = \"level\", unit = \"m\" }, { name = \"gate/open\" }]\n";

    #[test]
    fn a_template_becomes_the_bytes_that_are_registered() {
        let all = read(&format!("# ours\n{GATE}\n[[template]]\nid = 0\ncolumns = [{{ name = \"x\" }}]\n")).unwrap();
        assert_eq!(all.iter().map(|t| (t.id, t.line)).collect::<Vec<_>>(), [(3, 2), (0, 6)]);
        let definition = Definition::parse(&all[0].definition).unwrap();
        let columns: Vec<_> = definition.columns().map(|c| (c.name, c.unit)).collect();
        assert_eq!((definition.id, columns), (3, vec![("level", Some("m")), ("gate/open", None)]));
        assert_eq!(hex::encode(&all[0].definition), "830382656c6576656c616d8269676174652f6f70656ef6");
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = format!(
            "{GATE}[[template]]\nid = 3\ncolumns = [{{ name = \"x\" }}]\n[[template]]\nid = 4\ncolumns = []\n\
             [[template]]\nid = 5\ncolumns = [{{ name = \"a b\" }}]\n[[template]]\nid = -1\ncolumns = [{{ name = \"x\" }}]\n\
             [[template]]\nid = 6\ncolumns = [{{ name = \"x\" }}, {{ name = \"x\" }}]\n[[template]]\nid = 7\n\
             [[template]]\nid = 8\ncolumns = [{{ name = \"x\", unit = \"\" }}]\n[[template]]\nid = 9\ncolumns = [{{ nam = \"x\" }}]\n"
        );
        let Mistakes(found) = read(&text).unwrap_err();
        assert_eq!(found.iter().map(|m| m.line).collect::<Vec<_>>(), [4, 7, 10, 13, 16, 19, 21, 24], "{found:?}");
        let words = ["line 1 has", "0 columns", "'a b' is no name", "-1", "called x too", "columns", "unit ''", "nam"];
        for (mistake, word) in found.iter().zip(words) {
            assert!(mistake.what.contains(word), "{mistake}");
        }
        let names: Vec<String> = (0..=COLUMNS).map(|n| format!("{{ name = \"c{n}\" }}")).collect();
        let many = format!("[[template]]\nid = 1\ncolumns = [{}]\n", names.join(", "));
        for (text, line) in [("", 1), ("[[templates]]\n", 1), ("\n[[template]]\nid = \n", 3), (many.as_str(), 1)] {
            assert_eq!(read(text).unwrap_err().0[0].line, line, "{text}");
        }
    }
}
