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
/// Bytes of a file that are searched, and of all of them.
const LONGEST: u64 = 4 << 20;
const LONGEST_WHOLE: u64 = 1 << 30;
/// How the body of an OpenSSH key begins, and how it goes on where nothing seals it: the name of its cipher is `none`.
const OPENSSH: &str = "b3BlbnNzaC1rZXktdjEA";
const OPENSSH_NONE: &str = "AAAABG5vbmU";

/// Searches a folder and those in it. Links are not followed, and said.
pub(super) fn search(folder: &Path, facts: &mut Facts) {
    let mut left = vec![(folder.to_owned(), 0)];
    let (mut count, mut bytes) = (0, 0);
    while let Some((folder, depth)) = left.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(_) if depth > 0 && is_gone(&folder) => continue,
            Err(e) => {
                facts.unread.push(format!("cannot read {}: {e}", folder.display()));
                continue;
            }
        };
        for entry in entries {
            count += 1;
            if count > MOST || depth > DEEPEST {
                facts.unread.push(format!("{} is deeper, or has more files, than is looked at", folder.display()));
                return;
            }
            let entry = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            let (path, kind) = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    facts.unread.push(format!("cannot read all of {}: {e}", folder.display()));
                    continue;
                }
            };
            if kind.is_dir() {
                left.push((path, depth + 1));
            } else if kind.is_symlink() {
                facts.unsearched.push((path, "a look of its own: links are not followed"));
            } else if kind.is_file() && bytes < LONGEST_WHOLE {
                bytes += look(path, facts);
            } else if kind.is_file() {
                facts.unsearched.push((path, "a folder of its own: no more than 1 GiB of one is searched"));
            }
        }
    }
    facts.is_searched = true;
}

/// Looks at a file; how many bytes of it were read.
fn look(path: PathBuf, facts: &mut Facts) -> u64 {
    if facts.has_databases_open && is_database(&path) {
        facts.unsearched.push((path, "a look from outside, for this process has it open: fivefold audit"));
        return 0;
    }
    let start = match read::start_of(&path, LONGEST) {
        Ok(start) => start,
        Err(_) if is_gone(&path) => return 0,
        Err(wrong) => {
            facts.unread.push(wrong);
            return 0;
        }
    };
    let length = start.len() as u64;
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
    if length == LONGEST {
        facts.unsearched.push((path, "time: its first 4 MiB were searched"));
    }
    length
}

/// Whether what was listed is there no more: of a deployment that runs, files are written beside the old ones and take their names.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Whether this is a database of SQLite's, or one of the files beside it.
fn is_database(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    [".db", ".db-wal", ".db-shm", ".db-journal"].iter().any(|ending| name.ends_with(ending))
}

/// Whether there is a private key that nothing seals. Each is looked at by itself.
fn is_clear_key(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let key = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.split_once("PRIVATE KEY-----"));
        let Some((label, rest)) = key else { continue };
        let body = if rest.is_empty() { lines.peek().copied().unwrap_or_default() } else { rest };
        // Old keys say so on the next line, those of OpenSSH in their first bytes.
        let cipher = body.strip_prefix(OPENSSH).filter(|_| label == "OPENSSH ");
        let is_sealed = label == "ENCRYPTED "
            || body.starts_with("Proc-Type: 4,ENCRYPTED")
            || cipher.is_some_and(|cipher| !cipher.starts_with(OPENSSH_NONE));
        if !is_sealed {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together, for ./ci.sh places looks for such lines too.
    fn pem(label: &str, body: &str) -> String {
        let label = [label, "PRIVATE", "KEY-----"].join(" ");
        format!("-----BEGIN {}\n{body}\n-----END {}\n", label.trim_start(), label.trim_start())
    }

    #[test]
    fn a_process_opens_no_database_again_that_it_has_open() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["readings.db", "readings.db-wal", "readings.db-shm", "notes.txt"] {
            std::fs::write(folder.path().join(name), pem("", "AAAA")).unwrap();
        }
        let search_as = |has_databases_open| {
            let mut facts = Facts { has_databases_open, ..Facts::at(1) };
            search(folder.path(), &mut facts);
            (facts.bare.len(), facts.unsearched.len())
        };
        assert_eq!((search_as(false), search_as(true)), ((4, 0), (1, 3)));
    }

    #[test]
    fn a_file_that_went_while_its_folder_was_read_is_no_fault_and_one_that_cannot_be_read_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut facts = Facts::at(1);
        assert_eq!(look(folder.path().join("slot-a.sealed.new"), &mut facts), 0);
        assert!(facts.unread.is_empty(), "{:?}", facts.unread);
        // A folder is no file: it is there, and cannot be read as one.
        look(folder.path().to_owned(), &mut facts);
        search(&folder.path().join("named-by-the-user"), &mut facts);
        assert_eq!(facts.unread.len(), 2, "{:?}", facts.unread);
    }

    #[test]
    fn a_sealed_key_is_told_from_one_in_the_clear() {
        let sealed = [
            pem("ENCRYPTED", "AAAA"),
            pem("RSA", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA"),
            pem("OPENSSH", "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0"),
        ];
        let clear = [
            pem("", "AAAA"),
            pem("RSA", "AAAA"),
            pem("EC", "AAAA"),
            pem("OPENSSH", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE"),
        ];
        for text in &sealed {
            assert!(!is_clear_key(text.as_bytes()), "{text}");
        }
        for text in &clear {
            assert!(is_clear_key(text.as_bytes()), "{text}");
            assert!(is_clear_key(text.replace('\n', "\r\n  ").as_bytes()), "{text}");
            for other in &sealed {
                assert!(
                    is_clear_key(format!("{other}{text}").as_bytes()),
                    "one that is sealed excuses no other: {text}"
                );
            }
        }
        assert!(!is_clear_key(b"-----BEGIN CERTIFICATE-----\nAAAA\n"));
    }
}
