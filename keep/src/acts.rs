//! What people did at a gateway: a line each, in a file of its folder. The operator's book, where such lines are chained by hash, is
//! another machine's; whoever has this folder can alter the file.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, Readers};
use crate::registry::By;

/// File name of it.
pub const ACTS_FILE: &str = "operator.log";

/// One line: JSON, and written whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When, Unix seconds.
    pub at: u64,
    /// Who.
    pub who: String,
    /// From where.
    #[serde(rename = "from")]
    pub place: String,
    /// By which command.
    pub command: String,
    /// What.
    pub done: String,
    /// To what: names and numbers, never a secret.
    pub about: String,
}

/// Adds a line, durably.
///
/// # Errors
/// [`FileError::Write`].
pub fn enter(folder: &Path, by: &By, done: &str, about: impl Display) -> Result<(), FileError> {
    let path = folder.join(ACTS_FILE);
    let failed = |source| FileError::Write { path: path.clone(), source };
    let line = serde_json::to_string(&by.act(done, about)).map_err(|e| failed(e.into()))?;
    files::ensure(&path, Readers::Owner).map_err(failed)?;
    // Root does not write through somebody else's link.
    let no_link = OFlags::NOFOLLOW.bits() as i32;
    let mut file = OpenOptions::new().append(true).custom_flags(no_link).open(&path).map_err(failed)?;
    // At once, so that two commands do not mix theirs; behind an end of line, for a crash may have left half of one.
    file.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// All lines; none where nothing was done. Empty ones, and what a crash left of one, are passed over.
///
/// # Errors
/// [`FileError::Read`].
pub fn read(folder: &Path) -> Result<Vec<Act>, FileError> {
    let path = folder.join(ACTS_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    Ok(files::read_text(&path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_a_line_behind_those_before_and_half_of_one_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let by = |at| By::new("operator anna", "pts/1", "gateway token add", at);
        enter(folder.path(), &by(7), "token made", "token dam\n").unwrap();
        let path = folder.path().join(ACTS_FILE);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"at\":8,\"who")).unwrap();
        enter(folder.path(), &by(9), "token revoked", "token dam").unwrap();
        let told: Vec<_> = read(folder.path()).unwrap().into_iter().map(|a| (a.at, a.who, a.about)).collect();
        assert_eq!(
            told,
            [(7, "operator anna".into(), "token dam?".into()), (9, "operator anna".to_owned(), "token dam".to_owned())]
        );
    }

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(ACTS_FILE)).unwrap();
        enter(folder.path(), &By::new("operator anna", "pts/1", "gateway token add", 7), "done", "this").unwrap_err();
        assert_eq!(std::fs::read_to_string(other).unwrap(), "kept");
    }
}
