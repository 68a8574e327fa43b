//! What the pages tell people to type is what the command takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Lines of shell blocks that run `fivefold`, without comments, variables and redirections.
fn commands(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let (mut found, mut in_shell, mut line) = (Vec::new(), false, String::new());
    for part in text.lines() {
        if let Some(language) = part.strip_prefix("```") {
            in_shell = !in_shell && language == "sh";
            continue;
        }
        if !in_shell {
            continue;
        }
        line.push_str(part.split(" #").next().unwrap().trim_end());
        if let Some(goes_on) = line.strip_suffix('\\') {
            line = goes_on.to_owned();
            continue;
        }
        let whole = std::mem::take(&mut line);
        let command = whole.split([';', '|', '>']).next().unwrap().trim();
        if command.starts_with("fivefold ") {
            found.push(command.replace("<id>", "acde480000000001"));
        }
    }
    found
}

/// As a shell splits it, as far as the pages need that: spaces, and double quotes around words with spaces.
fn words(command: &str) -> Vec<OsString> {
    let quoted = command.split('"').enumerate();
    let parts = quoted.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(OsString::from).collect(),
        _ => vec![OsString::from(part)],
    });
    parts.collect()
}

#[test]
fn every_command_in_the_pages_is_a_command() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut pages = vec![root.join("README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|e| e.unwrap().path()));
    let mut seen = 0;
    for page in pages.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        for command in commands(page) {
            if let Err(wrong) = fivefold::check(words(&command)) {
                panic!("{}: `{command}`: {wrong}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} commands were found");
}

#[test]
fn a_command_that_is_none_is_told_so() {
    assert!(fivefold::check(words("fivefold reading list --dir farm")).is_ok());
    assert!(fivefold::check(words("fivefold reading lsit")).unwrap_err().contains("lsit"));
}
