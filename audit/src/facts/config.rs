//! A config file that was read, and on which line each key stands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::rule::Subject;

/// A config file.
#[derive(Clone, Debug)]
pub struct Config<T> {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub settings: T,
    lines: HashMap<String, usize>,
}

impl<T> Config<T> {
    /// From what was read.
    pub fn new(path: &Path, text: &str, settings: T) -> Self {
        Self { path: path.to_owned(), settings, lines: keys(text) }
    }

    /// A subject that is written at this key, e.g. `link.minimum_level`.
    pub fn place(&self, subject: Subject, key: &str) -> Subject {
        subject.on(key).at(&self.path, self.lines.get(key).copied())
    }
}

/// The line of a byte of a text, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// Where each key of a TOML file stands, as far as it is written one a line: only to point at.
fn keys(text: &str) -> HashMap<String, usize> {
    let mut table = String::new();
    let mut all = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            table = head.trim_matches(|c| "[] ".contains(c)).to_owned();
            all.entry(table.clone()).or_insert(number);
        } else if let Some((key, _)) = line.split_once('=') {
            let key = if table.is_empty() { key.trim().to_owned() } else { format!("{table}.{}", key.trim()) };
            all.entry(key).or_insert(number);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_on_its_line() {
        let found = keys("a = 1\n\n[link]\nminimum_level = 5\n[[x.y]]\nz = \"[\"\n");
        assert_eq!(found.get("a"), Some(&1));
        assert_eq!(found.get("link.minimum_level"), Some(&4));
        assert_eq!(found.get("x.y.z"), Some(&6));
        assert_eq!(line_of("a\nb\n", 2), 2);
    }
}
