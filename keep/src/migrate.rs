//! Brings databases forward to the present format (docs/operate.md, "Files and their formats").

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::files::{self, Readers};
use crate::format::Newer;

/// Why a database was not brought to the present format. It is whole, and in the format that it was in, or a step further.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// It is of a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// It is of an earlier format than this program brings forward.
    #[error("{path} has format {found}, and this program knows formats {oldest} to {known}; no release wrote it, so make it anew", path = path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// The format that it has.
        found: i64,
        /// The earliest that this program knows.
        oldest: i64,
        /// The latest.
        known: i64,
    },
    /// There is no room, or the disk fails.
    #[error(
        "the disk does not take {path} in format {known} ({detail}): it is whole in format {found}, and nothing is lost; make \
         room, then start this again",
        path = path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// The format that it has.
        found: i64,
        /// The format that it was to have.
        known: i64,
        /// What was said.
        detail: String,
    },
    /// The copy of what was there before could not be written.
    #[error("{path} keeps its format {found}, for the copy of it beside it could not be written: {source}", path = path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// The format that it has.
        found: i64,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite.
    #[error("{path}: {source}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}

impl Stopped {
    /// Whether it is the same at the next try, until somebody mends it. Room on a disk comes and goes.
    pub const fn is_lasting(&self) -> bool {
        matches!(self, Self::Newer(_) | Self::TooOld { .. })
    }

    fn of(path: &Path, (found, known): (i64, i64), source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure) => {
                Self::Full { path, found, known, detail: source.to_string() }
            }
            _ => Self::Database { path, source },
        }
    }
}

/// What makes format `to` of the one before: SQL, or code, in a transaction of the caller's.
pub type Step<'a> = &'a dyn Fn(&Connection, i64) -> rusqlite::Result<()>;

/// The formats of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The earliest that is brought forward; 0 is an empty file.
    pub oldest: i64,
    /// The present one.
    pub known: i64,
}

impl Formats {
    /// The format of a database, if it is one of these.
    ///
    /// # Errors
    /// [`Stopped::Newer`], [`Stopped::TooOld`], [`Stopped::Database`].
    pub fn of(self, db: &Connection, path: &Path) -> Result<i64, Stopped> {
        let Self { oldest, known } = self;
        let found = read(db).map_err(|source| Stopped::of(path, (oldest, known), source))?;
        if found > known {
            return Err(Newer::new(path.display(), found, known).into());
        }
        if found < oldest {
            return Err(Stopped::TooOld { path: path.to_owned(), found, oldest, known });
        }
        Ok(found)
    }

    /// Brings a database forward, each step in a transaction with its number: cut anywhere, it goes on from the last whole
    /// step. `Some` is the format that it was in.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn step_by_step(self, db: &mut Connection, path: &Path, step: Step<'_>) -> Result<Option<i64>, Stopped> {
        let begun = self.of(db, path)?;
        for to in begun + 1..=self.known {
            self.advance(db, to, step).map_err(|source| Stopped::of(path, (to - 1, self.known), source))?;
        }
        Ok((begun < self.known).then_some(begun))
    }

    /// Brings a database forward in one transaction, behind a copy of the whole beside it, `NAME.format-N`. Of several
    /// processes one does it.
    ///
    /// # Errors
    /// [`Stopped`]: then it is as it was.
    pub fn beside_a_copy(self, db: &mut Connection, path: &Path, step: Step<'_>) -> Result<Option<i64>, Stopped> {
        if self.of(db, path)? == self.known {
            return Ok(None);
        }
        let failed = |found| move |source| Stopped::of(path, (found, self.known), source);
        // Nobody writes from here on, so that the copy is what is brought forward.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(self.oldest))?;
        let found = self.of(&tx, path)?;
        if found == self.known {
            return Ok(None);
        }
        copy(path, found, self.known)?;
        let all = || {
            for to in found + 1..=self.known {
                step(&tx, to)?;
            }
            tx.pragma_update(None, "user_version", self.known)
        };
        all().map_err(failed(found))?;
        tx.commit().map_err(failed(found))?;
        Ok(Some(found))
    }

    fn advance(self, db: &mut Connection, to: i64, step: Step<'_>) -> rusqlite::Result<()> {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step(&tx, to)?;
        tx.pragma_update(None, "user_version", to)?;
        tx.commit()
    }
}

fn read(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |r| r.get(0))
}

/// Where the copy of a database of format `found` stands.
pub fn copy_beside(path: &Path, found: i64) -> PathBuf {
    with(path, &format!(".format-{found}"))
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Writes the copy, whole and durable, or not at all.
fn copy(path: &Path, found: i64, known: i64) -> Result<(), Stopped> {
    let at = copy_beside(path, found);
    let new = with(&at, ".new");
    let written = |source: io::Error| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Stopped::Full { path: path.to_owned(), found, known, detail: source.to_string() }
        }
        _ => Stopped::Copy { path: path.to_owned(), found, source },
    };
    drop(files::create_anew(&new, Readers::Owner).map_err(written)?);
    let vacuum = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags)?.execute("VACUUM INTO ?", [new.to_string_lossy()])
    };
    let finish = || {
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &at)?;
        File::open(files::folder_of(&at))?.sync_all()
    };
    let done =
        vacuum().map_err(|source| Stopped::of(path, (found, known), source)).and_then(|_| finish().map_err(written));
    if done.is_err() {
        // Of no use, and in the way of what is short of room. What cannot be removed is removed the next time.
        let _ = fs::remove_file(&new);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const FORMATS: Formats = Formats { oldest: 1, known: 4 };

    /// As a step of ours: some rows are written anew, and a column comes in.
    fn step(db: &Connection, to: i64) -> rusqlite::Result<()> {
        db.execute_batch(&format!(
            "CREATE TABLE made{to} AS SELECT id, bytes FROM row; ALTER TABLE row ADD COLUMN of{to} INTEGER DEFAULT {to};"
        ))
    }

    fn made(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("a.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE row (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
             WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
             INSERT INTO row SELECT i, zeroblob(900) FROM n;
             PRAGMA user_version = 1;",
        )
        .unwrap();
        (path, db)
    }

    fn rows(db: &Connection) -> i64 {
        db.query_row("SELECT count(*) FROM row WHERE length(bytes) = 900", [], |r| r.get(0)).unwrap()
    }

    #[test]
    fn a_disk_that_is_full_at_any_page_of_any_step_loses_nothing_and_the_rest_follows_when_there_is_room() {
        for at_once in [false, true] {
            let mut stops = Vec::new();
            for room in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let (path, mut db) = made(folder.path());
                let pages: i64 = db.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
                db.pragma_update(None, "max_page_count", pages + room).unwrap();
                let go = |db: &mut Connection| match at_once {
                    true => FORMATS.beside_a_copy(db, &path, &step),
                    false => FORMATS.step_by_step(db, &path, &step),
                };
                let Err(stopped) = go(&mut db) else { break };
                let found = read(&db).unwrap();
                assert!(matches!(&stopped, Stopped::Full { found: said, known: 4, .. } if *said == found), "{stopped}");
                assert!(stopped.to_string().contains("and nothing is lost; make room"), "{stopped}");
                assert_eq!(rows(&db), 40);
                assert!(!at_once || found == 1);
                stops.push(found);
                db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
                assert_eq!(go(&mut db).unwrap(), Some(found));
                assert_eq!((read(&db).unwrap(), rows(&db)), (4, 40));
            }
            assert!(stops.len() > 20, "{stops:?}");
            assert_eq!(stops.last(), Some(if at_once { &1 } else { &3 }));
        }
    }

    /// The files of a database as a power cut leaves them: what is in memory is lost.
    fn as_cut(path: &Path, into: &Path) -> PathBuf {
        for end in ["", "-wal"] {
            if with(path, end).exists() {
                fs::copy(with(path, end), with(&into.join("a.db"), end)).unwrap();
            }
        }
        into.join("a.db")
    }

    #[test]
    fn killed_before_in_or_behind_any_step_it_goes_on_from_the_last_that_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut db) = made(folder.path());
        let cuts = RefCell::new(Vec::new());
        let cut = |to| {
            let into = tempfile::tempdir().unwrap();
            as_cut(&path, into.path());
            cuts.borrow_mut().push((to, into));
        };
        let spied = |db: &Connection, to: i64| {
            cut(to);
            step(db, to)?;
            cut(to);
            Ok(())
        };
        assert_eq!(FORMATS.step_by_step(&mut db, &path, &spied).unwrap(), Some(1));
        assert_eq!(FORMATS.step_by_step(&mut db, &path, &spied).unwrap(), None);
        let cuts = cuts.into_inner();
        assert_eq!(cuts.len(), 6);
        for (to, into) in cuts {
            let path = into.path().join("a.db");
            let mut db = Connection::open(&path).unwrap();
            assert_eq!(read(&db).unwrap(), to - 1);
            assert_eq!(FORMATS.step_by_step(&mut db, &path, &step).unwrap(), Some(to - 1));
            assert_eq!((read(&db).unwrap(), rows(&db)), (4, 40));
        }
    }

    #[test]
    fn the_copy_beside_it_is_whole_and_private_and_one_that_was_cut_is_made_anew() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, mut db) = made(folder.path());
        let beside = copy_beside(&path, 1);
        fs::write(with(&beside, ".new"), "cut").unwrap();
        let fails = |_: &Connection, _: i64| Err(rusqlite::Error::QueryReturnedNoRows);
        assert!(matches!(FORMATS.beside_a_copy(&mut db, &path, &fails), Err(Stopped::Database { .. })));
        assert_eq!((read(&db).unwrap(), rows(&db)), (1, 40));
        assert_eq!(FORMATS.beside_a_copy(&mut db, &path, &step).unwrap(), Some(1));
        assert_eq!(FORMATS.beside_a_copy(&mut db, &path, &step).unwrap(), None);
        assert_eq!((read(&db).unwrap(), rows(&db)), (4, 40));
        let copied = Connection::open(&beside).unwrap();
        assert_eq!((read(&copied).unwrap(), rows(&copied)), (1, 40));
        assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!with(&beside, ".new").exists());
    }

    #[test]
    fn two_processes_that_bring_it_forward_at_once_do_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, db) = made(folder.path());
        drop(db);
        let done = std::thread::scope(|scope| {
            let each = || {
                let mut db = Connection::open(&path).unwrap();
                db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                FORMATS.beside_a_copy(&mut db, &path, &step).unwrap()
            };
            [scope.spawn(each), scope.spawn(each), scope.spawn(each)].map(|t| t.join().unwrap())
        });
        assert_eq!(done.iter().flatten().count(), 1, "{done:?}");
    }

    #[test]
    fn a_later_format_and_one_that_is_too_old_are_refused_in_one_sentence_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut db) = made(folder.path());
        for (format, said) in [
            (
                5,
                "a.db has format 5, and this program knows up to format 4; use the fivefold that wrote it, or a later one",
            ),
            (0, "a.db has format 0, and this program knows formats 1 to 4; no release wrote it, so make it anew"),
        ] {
            db.pragma_update(None, "user_version", format).unwrap();
            for refused in [FORMATS.step_by_step(&mut db, &path, &step), FORMATS.beside_a_copy(&mut db, &path, &step)] {
                assert!(refused.unwrap_err().to_string().ends_with(said));
            }
            assert_eq!((read(&db).unwrap(), rows(&db)), (format, 40));
        }
        assert!(!copy_beside(&path, 1).exists());
    }
}
