//! Whether a database is as its last writer closed it, so that a daemon need not read all of it before it starts.
//!
//! What a power cut or a killed process may leave is found by reading a database through, and a large one takes longer than anybody
//! waits. After a clean stop there is nothing to find: everything is synced and the journal is empty. Then a mark stands beside
//! the file, `NAME.closed`, and is gone, durably, before the next writer begins. It says of which file it is: a copy that was put in
//! its place, or a file that somebody else wrote, is another one. What a disk lets rot later is found where it is read.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::files::{self, FileError, Readers};

/// How a database was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There is nothing in it yet.
    Empty,
    /// Its last writer closed it, and nobody touched it since.
    Closed,
    /// Its last writer was interrupted, or it is another file than the one that was closed.
    Unknown,
}

/// How the database was left. The mark is gone, durably, when this returns. For whoever has it alone, before it is opened.
///
/// # Errors
/// [`FileError::Write`]: the mark cannot be removed.
pub fn take(path: &Path) -> Result<Left, FileError> {
    let mark = mark(path);
    let was = fs::read_to_string(&mark).ok();
    files::remove(&mark)?;
    let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    let journal = length(&with(path, "-wal"));
    Ok(match was {
        _ if length(path) == 0 && journal == 0 => Left::Empty,
        Some(was) if journal == 0 && name(path).is_ok_and(|is| is == was) => Left::Closed,
        _ => Left::Unknown,
    })
}

/// Empties the journal of a database in WAL mode, and marks it as closed; for its only writer, which writes nothing after it. Where
/// somebody reads just now, the journal stays, there is no mark, and the next start reads it through.
pub fn leave(db: &Connection, path: &Path) {
    // Whoever stops a daemon waits.
    let _ = db.busy_timeout(Duration::from_secs(1));
    let checkpoint = || db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0));
    if matches!(checkpoint(), Ok(0)) {
        // Without it the next start takes longer, and nothing is lost.
        let _ = write(path);
    }
}

/// The checkpoint has synced the file. To open it here would be wrong: closing it again ends every lock that the process has on it.
fn write(path: &Path) -> io::Result<()> {
    files::write(&mark(path), Readers::Owner, name(path)?.as_bytes()).map_err(io::Error::other)
}

/// What no other file is called, and this one no more once it was changed.
fn name(path: &Path) -> io::Result<String> {
    let m = fs::metadata(path)?;
    Ok(format!("{} {} {} {}.{:09}\n", m.dev(), m.ino(), m.len(), m.ctime(), m.ctime_nsec()))
}

fn mark(path: &Path) -> PathBuf {
    with(path, ".closed")
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS a (b)")
            .unwrap();
        db
    }

    fn closed(path: &Path) {
        let db = opened(path);
        db.execute("INSERT INTO a VALUES (1)", []).unwrap();
        leave(&db, path);
        drop(db);
    }

    #[test]
    fn what_was_closed_is_known_once_and_what_was_interrupted_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        assert_eq!(take(&path).unwrap(), Left::Empty);
        closed(&path);
        assert_eq!(take(&path).unwrap(), Left::Closed);
        assert_eq!(take(&path).unwrap(), Left::Unknown, "the mark was taken");
        let db = opened(&path);
        leave(&db, &path);
        db.execute("INSERT INTO a VALUES (2)", []).unwrap();
        std::mem::forget(db);
        assert_eq!(take(&path).unwrap(), Left::Unknown, "something is in its journal");
    }

    #[test]
    fn another_file_in_its_place_is_not_what_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        closed(&path);
        // As `cp -a` and a restore do: the same bytes, with the same times.
        let copy = folder.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
        fs::File::options().write(true).open(&copy).unwrap().set_times(times).unwrap();
        fs::rename(&copy, &path).unwrap();
        assert_eq!(take(&path).unwrap(), Left::Unknown);
        closed(&path);
        let db = opened(&path);
        db.execute("INSERT INTO a VALUES (2)", []).unwrap();
        drop(db);
        assert_eq!(take(&path).unwrap(), Left::Unknown, "somebody else wrote to it");
    }

    #[test]
    fn while_somebody_reads_it_is_not_marked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let db = opened(&path);
        db.execute("INSERT INTO a VALUES (1)", []).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let count = || reader.query_row("SELECT count(*) FROM a", [], |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!(count(), 1);
        leave(&db, &path);
        assert!(!mark(&path).exists());
        reader.execute_batch("COMMIT").unwrap();
        // One that reads nothing just now is in nobody's way.
        leave(&db, &path);
        drop(db);
        assert_eq!(count(), 1);
        drop(reader);
        assert_eq!(take(&path).unwrap(), Left::Closed);
    }
}
