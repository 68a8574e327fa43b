//! A folder, searched for secrets that lie open, and for certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fivefold_keep::vault::PASSPHRASE_FILE;

use super::{certificates, read};
use crate::facts::{Bare, Facts};

/// Files that are looked at, at most.
const MOST: usize = 200_000;
/// How deep.
const DEEPEST: usize = 8;
/// Bytes of a file in which a key would begin.
const START: u64 = 64 * 1024;

/// Searches a folder and those in it. Links are not followed.
pub(super) fn search(folder: &Path, facts: &mut Facts) {
    let mut left = vec![(folder.to_owned(), 0)];
    let mut count = 0;
    while let Some((folder, depth)) = left.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) => {
                facts.unread.push(format!("cannot read {}: {e}", folder.display()));
                continue;
            }
        };
        for entry in entries.flatten() {
            count += 1;
            let path = entry.path();
            if count > MOST || depth > DEEPEST {
                facts.unread.push(format!("{} is deeper, or has more files, than is looked at", folder.display()));
                return;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push((path, depth + 1)),
                Ok(kind) if kind.is_file() => look(path, facts),
                _ => {}
            }
        }
    }
    facts.is_searched = true;
}

fn look(path: PathBuf, facts: &mut Facts) {
    let start = match read::start_of(&path, START) {
        Ok(start) => start,
        Err(wrong) => return facts.unread.push(wrong),
    };
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mode = fs::metadata(&path).map_or(0, |m| m.permissions().mode() & 0o777);
    if name == PASSPHRASE_FILE && mode & 0o077 != 0 {
        let why = format!("can be read by others (mode {mode:03o})");
        facts.bare.push(Bare { cure: format!("chmod 600 {}", path.display()), path: path.clone(), why });
    }
    if is_clear_key(&start) {
        let cure = format!(
            "take it away, or seal it; what it opens is known to whoever has a copy: shred -u {}",
            path.display()
        );
        facts.bare.push(Bare { cure, path: path.clone(), why: "holds a private key in the clear".into() });
    }
    if path.extension().is_some_and(|e| e == "pem" || e == "crt") {
        certificates::look(&path, &start, facts);
    }
}

/// Whether a private key that nothing seals begins here.
fn is_clear_key(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let begins = |line: &str| {
        line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----") && !line.contains("ENCRYPTED")
    };
    // Old keys say on the next lines that they are encrypted.
    text.lines().any(begins) && !text.contains("Proc-Type: 4,ENCRYPTED")
}
