//! Formats of what is kept on disk (docs/operate.md, "Files and their formats").
//!
//! Whatever is kept says its format: a database in `user_version`, a sealed record in its first bytes, a text of ours in a key or
//! first line `format`, without which it is of format 1. What a program does not know it refuses, in one sentence, and leaves as
//! it is: to guess would lose what the newer program wrote.

use std::fmt::Display;

use serde::de::{DeserializeOwned, Error as _};
use toml::de::{DeTable, DeValue, Deserializer};

/// Something has a later format than this program knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} has format {found}, and this program knows up to format {known}; use the fivefold that wrote it, or a later one"
)]
pub struct Newer {
    /// What it is: a file, or the name of a record.
    pub what: String,
    /// The format that it has.
    pub found: i64,
    /// The latest that this program knows.
    pub known: i64,
}

impl Newer {
    /// `found` is none that this program knows.
    pub fn new(what: impl Display, found: i64, known: i64) -> Self {
        Self { what: what.to_string(), found, known }
    }
}

/// The format of all texts of ours so far.
const TEXT: i64 = 1;

/// Why a text is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is of a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// It is not of its form.
    #[error(transparent)]
    Form(#[from] toml::de::Error),
}

impl Unread {
    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        match self {
            Self::Newer(newer) => newer.to_string(),
            Self::Form(e) => e.message().lines().collect::<Vec<_>>().join("; "),
        }
    }

    /// Where in the text, in bytes.
    pub fn span(&self) -> Option<std::ops::Range<usize>> {
        match self {
            Self::Newer(_) => None,
            Self::Form(e) => e.span(),
        }
    }
}

/// Reads a TOML text, which may have the key `format`; `what` is what a refusal calls it. A later format is refused as such,
/// whatever else is in it.
///
/// # Errors
/// [`Unread`].
pub fn from_toml<T: DeserializeOwned>(what: impl Display, text: &str) -> Result<T, Unread> {
    let mut table = DeTable::parse(text)?;
    if let Some(value) = table.get_mut().remove("format") {
        let found = match value.get_ref() {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().filter(|n| *n >= 1),
            _ => None,
        };
        let found = found.ok_or_else(|| toml::de::Error::custom("format is a whole number, from 1 on"))?;
        if found > TEXT {
            return Err(Newer::new(what, found, TEXT).into());
        }
    }
    Ok(T::deserialize(Deserializer::from(table))?)
}

/// A text that is no TOML, without the line `format N` that it may begin with.
///
/// # Errors
/// [`Newer`].
pub fn of_lines(what: impl Display, text: &str) -> Result<&str, Newer> {
    let line = text.strip_prefix("format ").and_then(|rest| rest.split_once('\n'));
    let Some((number, rest)) = line else { return Ok(text) };
    match number.parse() {
        Ok(TEXT) => Ok(rest),
        // What is no number is none that we know either.
        found => Err(Newer::new(what, found.unwrap_or(i64::MAX), TEXT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        name: String,
    }

    #[test]
    fn a_text_without_a_format_is_of_format_1_and_a_later_one_is_refused_as_such_whatever_is_in_it() {
        let name = || Form { name: "a".into() };
        assert_eq!(from_toml::<Form>("x.toml", "name = 'a'").unwrap(), name());
        assert_eq!(from_toml::<Form>("x.toml", "name = 'a'\nformat = 1").unwrap(), name());
        for text in ["format = 2\nname = 'a'", "something = 1\nformat = 0x2", "format = 2\n[name]\nx = 1"] {
            let refused = from_toml::<Form>("x.toml", text).unwrap_err().message();
            assert_eq!(
                refused,
                "x.toml has format 2, and this program knows up to format 1; use the fivefold that wrote it, or a later one"
            );
        }
        for text in ["format = 0", "format = -1", "format = '2'", "format = 2.0", "format = 99999999999999999999"] {
            let refused = from_toml::<Form>("x.toml", text).unwrap_err().message();
            assert_eq!(refused, "format is a whole number, from 1 on", "{text}");
        }
        // Places in the text are as they were.
        let wrong = from_toml::<Form>("x.toml", "format = 1\nnames = 'a'").unwrap_err();
        assert_eq!(wrong.span().unwrap().start, 11);
    }

    #[test]
    fn a_text_of_lines_may_begin_with_its_format() {
        assert_eq!(of_lines("started", "00ff\n"), Ok("00ff\n"));
        assert_eq!(of_lines("started", "format 1\n00ff\n"), Ok("00ff\n"));
        assert_eq!(of_lines("started", "format 7\n"), Err(Newer::new("started", 7, 1)));
        assert!(of_lines("started", "format x\n").is_err());
        assert_eq!(of_lines("started", "format"), Ok("format"));
    }
}
