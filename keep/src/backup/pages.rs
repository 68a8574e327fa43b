//! The pages of a SQLite database as they were at one moment, while others go on writing it.
//!
//! A read transaction is held as long as pages are read. Meanwhile SQLite overwrites nothing that it needs: a page of the file
//! is only overwritten with what stands in the log of changes up to where the transaction began, and that log does not begin
//! anew, unless everything in it was in the file when the transaction began; then the file is not overwritten at all. So the
//! file, with what is committed in the log laid over it, is the database at the last commit that was found there. (The formats
//! of both are fixed for good: sqlite.org/fileformat2.html, sqlite.org/walformat.html.)
//!
//! Closing a file drops the locks that its process has on it, so the file is closed after the connection; and a process that
//! has the same database open otherwise does not take a backup of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{BackupError, Result};

/// First bytes of a database.
pub(super) const SQLITE: &[u8; 16] = b"SQLite format 3\0";
/// Pages that are read at a time.
const AHEAD: usize = 256;
/// How often the log of changes may begin anew before we give up; it does so once at most.
const TRIES: usize = 16;
/// What the log of changes may grow by while pages are read, at least: as much as the database has, where that is more.
const GROWTH: u64 = 1 << 30;

/// A database at one moment. Fields are dropped in their order: the transaction ends before the file is closed.
pub(super) struct Snapshot {
    db: Connection,
    file: File,
    log: Option<File>,
    path: PathBuf,
    log_path: PathBuf,
    log_header: Vec<u8>,
    changed: HashMap<u32, u64>,
    page_size: usize,
    pages: u32,
    ahead: Vec<u8>,
    ahead_from: u32,
    log_most: u64,
}

impl Snapshot {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| BackupError::Database { path: path.to_owned(), source };
        let reading = |e| BackupError::reading(path, e);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(failed)?;
        db.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
        db.execute_batch("BEGIN").map_err(failed)?;
        let _: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(failed)?;
        let page_size: u32 = db.pragma_query_value(None, "page_size", |r| r.get(0)).map_err(failed)?;
        let file = File::open(path).map_err(reading)?;
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        let log_path = PathBuf::from(name);
        let log = match File::open(&log_path) {
            Ok(log) => Some(log),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(BackupError::reading(&log_path, e)),
        };
        let committed = log.as_ref().map(|log| Committed::read(log, page_size)).transpose();
        let committed = committed.map_err(|e| BackupError::reading(&log_path, e))?.unwrap_or_default();
        let len = file.metadata().map_err(reading)?.len();
        let pages = match committed.pages {
            Some(pages) => pages,
            None => pages_of(&file, len, page_size).map_err(reading)?,
        };
        let log_len = log.as_ref().map_or(Ok(0), |l| l.metadata().map(|m| m.len())).map_err(reading)?;
        Ok(Self {
            db,
            file,
            log,
            path: path.to_owned(),
            log_path,
            log_header: committed.header,
            changed: committed.changed,
            page_size: page_size as usize,
            pages,
            ahead: Vec::new(),
            ahead_from: 0,
            log_most: log_len + len.max(GROWTH),
        })
    }

    pub(super) const fn page_size(&self) -> u32 {
        self.page_size as u32
    }

    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// One number out of it.
    pub(super) fn number(&self, sql: &str) -> rusqlite::Result<u64> {
        self.db.query_row(sql, [], |r| r.get::<_, i64>(0)).map(|n| n.unsigned_abs())
    }

    /// Page `number`, from 1, into `out`, which has the length of one.
    pub(super) fn page(&mut self, number: u32, out: &mut [u8]) -> Result<()> {
        if let (Some(at), Some(log)) = (self.changed.get(&number), &self.log) {
            let reading = |e| BackupError::reading(&self.log_path, e);
            let read = log.read_exact_at(out, *at);
            if header(log).map_err(reading)? == self.log_header {
                return read.map_err(reading);
            }
            // It began anew: so everything that it had was in the file when the transaction began, and still is.
            self.changed.clear();
        }
        let size = self.page_size;
        let held = (self.ahead.len() / size) as u32;
        if !(self.ahead_from..self.ahead_from + held).contains(&number) {
            self.fill(number)?;
        }
        let from = (number - self.ahead_from) as usize * size;
        let page = self.ahead.get(from..from + size).ok_or_else(|| BackupError::Changed { path: self.path.clone() })?;
        out.copy_from_slice(page);
        Ok(())
    }

    fn fill(&mut self, from: u32) -> Result<()> {
        let slow = |log: &File| log.metadata().is_ok_and(|m| m.len() > self.log_most);
        if self.log.as_ref().is_some_and(slow) {
            return Err(BackupError::Slow { path: self.log_path.clone() });
        }
        self.ahead.resize(AHEAD * self.page_size, 0);
        let (start, mut have) = (u64::from(from - 1) * self.page_size as u64, 0);
        while let Some(room) = self.ahead.get_mut(have..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, start + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BackupError::reading(&self.path, e)),
            }
        }
        self.ahead.truncate(have - have % self.page_size);
        self.ahead_from = from;
        Ok(())
    }
}

/// How many pages a file has of which nothing stands in a log.
fn pages_of(file: &File, len: u64, page_size: u32) -> io::Result<u32> {
    let mut head = [0; 100];
    if len < 100 {
        return Ok(0);
    }
    file.read_exact_at(&mut head, 0)?;
    let said = word(&head, 28).filter(|_| word(&head, 24) == word(&head, 92)).filter(|n| *n > 0);
    Ok(said.unwrap_or_else(|| u32::try_from(len / u64::from(page_size)).unwrap_or(u32::MAX)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// What is committed in a log of changes.
#[derive(Default)]
struct Committed {
    /// How it begins: with another one it begins anew.
    header: Vec<u8>,
    /// Where the newest content of a page lies in the log.
    changed: HashMap<u32, u64>,
    /// Pages of the database after the last commit.
    pages: Option<u32>,
}

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

impl Committed {
    fn read(log: &File, page_size: u32) -> io::Result<Self> {
        for _ in 0..TRIES {
            let before = header(log)?;
            let found = Self::behind(&before, log, page_size)?;
            // If it began anew in between, what was found is part of what it was before.
            if header(log)? == before {
                return Ok(Self { header: before, ..found });
            }
        }
        Err(io::Error::other("it begins anew all the time"))
    }

    fn behind(header: &[u8], log: &File, page_size: u32) -> io::Result<Self> {
        let mut found = Self::default();
        let big = match word(header, 0) {
            Some(0x377f_0682) => false,
            Some(0x377f_0683) => true,
            _ => return Ok(found),
        };
        let Some((said, rest)) = header.split_at_checked(24) else { return Ok(found) };
        let mut sum = Sum { big, a: 0, b: 0 };
        sum.add(said);
        if !sum.is(rest) || word(header, 8) != Some(page_size) {
            return Ok(found);
        }
        let salt = header.get(16..24).unwrap_or_default();
        let mut frame = vec![0; FRAME_HEADER + page_size as usize];
        let (mut at, mut open) = (HEADER as u64, Vec::new());
        loop {
            match log.read_exact_at(&mut frame, at) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(found),
                Err(e) => return Err(e),
            }
            let (head, page) = frame.split_at(FRAME_HEADER);
            sum.add(head.get(..8).unwrap_or_default());
            sum.add(page);
            let (Some(number), Some(after)) = (word(head, 0), word(head, 4)) else { return Ok(found) };
            if head.get(8..16) != Some(salt) || !head.get(16..).is_some_and(|said| sum.is(said)) {
                return Ok(found);
            }
            open.push((number, at + FRAME_HEADER as u64));
            at += frame.len() as u64;
            if after > 0 {
                found.changed.extend(open.drain(..));
                found.pages = Some(after);
            }
        }
    }
}

fn header(log: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    match log.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The sums of a log of changes.
struct Sum {
    big: bool,
    a: u32,
    b: u32,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |b: &[u8; 4]| if self.big { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) };
        for [x, y] in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
            self.a = self.a.wrapping_add(word(x)).wrapping_add(self.b);
            self.b = self.b.wrapping_add(word(y)).wrapping_add(self.a);
        }
    }

    fn is(&self, said: &[u8]) -> bool {
        word(said, 0) == Some(self.a) && word(said, 4) == Some(self.b)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    fn content(db: &Connection) -> Vec<(i64, Vec<u8>)> {
        let mut query = db.prepare("SELECT id, bytes FROM t ORDER BY id").unwrap();
        query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(|row| row.unwrap()).collect()
    }

    fn put_down(snapshot: &mut Snapshot, path: &Path) {
        let file = File::create(path).unwrap();
        let mut page = vec![0; snapshot.page_size() as usize];
        for number in 1..=snapshot.pages() {
            snapshot.page(number, &mut page).unwrap();
            file.write_all_at(&page, u64::from(number - 1) * page.len() as u64).unwrap();
        }
    }

    /// Every transaction writes one number into all rows: a database that was torn has two of them.
    #[test]
    fn what_is_read_beside_a_writer_that_never_rests_is_the_database_of_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live.db");
        let mut db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "synchronous", "OFF").unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 40).unwrap();
        db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, bytes BLOB); CREATE INDEX t_n ON t (n)")
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            let mut n = 0_i64;
            while !until.load(Ordering::Relaxed) {
                n += 1;
                let tx = db.transaction().unwrap();
                tx.execute("INSERT INTO t VALUES (NULL, 0, randomblob(700))", []).unwrap();
                tx.execute("DELETE FROM t WHERE id % 7 = ? % 7 AND id < ? - 60", [n, n]).unwrap();
                tx.execute("UPDATE t SET n = ?", [n]).unwrap();
                tx.commit().unwrap();
                std::thread::sleep(Duration::from_micros(300));
                if n % 50 == 0 {
                    // The log begins anew, too, if nobody reads just then.
                    db.busy_timeout(Duration::ZERO).unwrap();
                    let _ = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
                    db.busy_timeout(Duration::from_secs(10)).unwrap();
                }
            }
            n
        });
        let mut seen = Vec::new();
        while seen.len() < 25 && !writer.is_finished() {
            // Where somebody reads at any time, the log only grows.
            std::thread::sleep(Duration::from_millis(5));
            let mut snapshot = Snapshot::open(&path).unwrap();
            if snapshot.pages() < 8 {
                continue;
            }
            let copy = folder.path().join("copy.db");
            put_down(&mut snapshot, &copy);
            drop(snapshot);
            let copy = Connection::open(&copy).unwrap();
            let whole: String = copy.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
            assert_eq!(whole, "ok");
            let (least, most): (i64, i64) =
                copy.query_row("SELECT min(n), max(n) FROM t", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
            assert_eq!(least, most, "two moments in one copy");
            seen.push(least);
        }
        stop.store(true, Ordering::Relaxed);
        let last = writer.join().unwrap();
        assert!(seen.is_sorted() && seen.first() < seen.last() && *seen.last().unwrap() <= last, "{seen:?} {last}");
    }

    #[test]
    fn a_database_with_or_without_a_log_of_changes_is_read_as_sqlite_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for mode in ["WAL", "DELETE"] {
            let path = folder.path().join(mode);
            let db = Connection::open(&path).unwrap();
            db.pragma_update(None, "journal_mode", mode).unwrap();
            db.pragma_update(None, "synchronous", "OFF").unwrap();
            db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB)").unwrap();
            for rows in [0, 1, 300] {
                for _ in 0..rows {
                    db.execute("INSERT INTO t (bytes) VALUES (randomblob(500))", []).unwrap();
                }
                // The other connection is of the same process: it is not used while the copy is made.
                let mut snapshot = Snapshot::open(&path).unwrap();
                let copy = folder.path().join("copy");
                let _ = std::fs::remove_file(&copy);
                put_down(&mut snapshot, &copy);
                drop(snapshot);
                assert_eq!(content(&Connection::open(&copy).unwrap()), content(&db), "{mode} {rows}");
                let _ = std::fs::remove_file(folder.path().join("copy-wal"));
            }
            // Shrunk.
            db.execute_batch("DELETE FROM t WHERE id > 3; VACUUM").unwrap();
            let mut snapshot = Snapshot::open(&path).unwrap();
            assert!(snapshot.pages() < 8, "{}", snapshot.pages());
            let copy = folder.path().join("shrunk");
            put_down(&mut snapshot, &copy);
            drop(snapshot);
            assert_eq!(content(&Connection::open(&copy).unwrap()).len(), 3);
        }
    }
}
