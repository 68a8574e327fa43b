//! # The operator's log: who did what to the book, when, and from where
//!
//! Every change of the book leaves one line, in the transaction of the change. There is no way around it: a book is opened for
//! changes by somebody ([`By`]), a change has a name ([`Done`]), and outside of [`Registry::logged`] the file takes no write
//! (SQLite's `query_only`). The one exception is named: [`Registry::written`] alone, for what devices agree by themselves.
//!
//! Each line holds the hash of the line before, so that none can be altered, dropped or moved unseen as long as somebody has
//! the last hash; the cloud puts the hashes into the evidence log (docs/evidence.md 4, `op`). Names stay here: they are personal
//! data, and the hashes tell none of them, for each line has a salt that nobody guesses.

use std::fmt::Display;

use fivefold_core::suite::sha256;
use fivefold_core::wire::cbor::Writer;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::{Registry, Result, hidden};
use crate::acts::Act;
use crate::vault::{VaultError, random};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS deeds (         -- the operator's log; only grows
    n           INTEGER PRIMARY KEY,       -- 1, 2, 3: none is left out
    deed        INTEGER NOT NULL,          -- n of the first line of the same command, or request
    at          INTEGER NOT NULL,
    who         TEXT NOT NULL,
    place       TEXT NOT NULL,             -- from where
    command     TEXT NOT NULL,             -- by which command, or daemon
    done        TEXT NOT NULL,             -- what
    about       TEXT NOT NULL,             -- to what: ids and names, never a secret
    version     INTEGER NOT NULL,          -- of the book, behind it
    salt        BLOB NOT NULL,             -- so that the hash of a line says nothing of it
    before      BLOB NOT NULL              -- hash of the line before; of the first, zeros
) STRICT;";

/// What a backup that was written and read back is called.
const BACKUP: &str = "backup made";
/// Characters of who, from where, and by which command, at most.
const SHORT: usize = 64;
/// Characters of what something was done to, at most.
const LONG: usize = 256;

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// By whom a book is opened for changes, from where, with what, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    who: String,
    place: String,
    command: String,
    at: u64,
}

impl By {
    /// `who`: a person, a token's name, or a daemon. `place`: a terminal, or an address. `command`: its words, without what was
    /// behind them. `at`: Unix seconds. What is too long is cut, and control characters are shown as `?`.
    pub fn new(who: impl Display, place: impl Display, command: impl Display, at: u64) -> Self {
        Self { who: plain(&who, SHORT), place: plain(&place, SHORT), command: plain(&command, SHORT), at }
    }
}

impl By {
    /// The same as a line where there is no book.
    pub(crate) fn act(&self, done: &str, about: impl Display) -> Act {
        let Self { who, place, command, at } = self.clone();
        Act { at, who, place, command, done: plain(&done, SHORT), about: plain(&about, LONG) }
    }
}

/// What is done, and to what: ids and names, never a secret.
#[derive(Clone, Debug)]
pub(super) struct Done {
    done: &'static str,
    about: String,
}

impl Done {
    pub(super) fn new(done: &'static str, about: impl Display) -> Self {
        Self { done, about: plain(&about, LONG) }
    }

    /// To several devices at once: how many, and between which.
    pub(super) fn many<D: Display>(done: &'static str, mut devices: impl ExactSizeIterator<Item = D>) -> Self {
        let n = devices.len();
        match (devices.next(), devices.last()) {
            (Some(first), Some(last)) => Self::new(done, format_args!("{n} devices, {first} to {last}")),
            (Some(one), None) => Self::new(done, format_args!("device {one}")),
            (None, _) => Self::new(done, "no device"),
        }
    }
}

fn plain(text: &impl Display, most: usize) -> String {
    text.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).take(most).collect()
}

/// Whoever has the book open for changes.
#[derive(Debug)]
pub(super) struct Hand {
    by: By,
    /// What salts come from.
    seed: [u8; 32],
    /// The first line that came of it.
    deed: Option<u64>,
}

impl Hand {
    pub(super) fn of(by: By) -> std::result::Result<Self, VaultError> {
        Ok(Self { by, seed: *random::<32>()?, deed: None })
    }
}

/// What a change means for gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    /// A new version: they are told of it.
    Version,
    /// None.
    NoVersion,
    /// Nothing else is changed: the line is all there is.
    LineAlone,
}

/// One line of the operator's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// 1, 2, 3.
    pub number: u64,
    /// Number of the first line of the same command, or request.
    pub deed: u64,
    /// When, Unix seconds.
    pub at: u64,
    /// Who.
    pub who: String,
    /// From where.
    pub place: String,
    /// By which command, or daemon.
    pub command: String,
    /// What.
    pub done: String,
    /// To what.
    pub about: String,
    /// Version of the book behind it.
    pub version: u64,
    /// Random.
    pub salt: [u8; 16],
    /// Hash of the line before.
    pub before: [u8; 32],
}

impl Line {
    /// Its hash (docs/evidence.md 4): SHA-256 of `["deed", n, deed, at, who, place, command, done, about, version, salt, before]`
    /// in deterministic CBOR.
    pub fn hash(&self) -> [u8; 32] {
        let texts = [&self.who, &self.place, &self.command, &self.done, &self.about];
        let mut out = vec![0; 160 + texts.iter().map(|t| t.len()).sum::<usize>()];
        let mut w = Writer::new(&mut out);
        let written = (|| {
            w.array(12)?;
            w.text("deed")?;
            [self.number, self.deed, self.at].into_iter().try_for_each(|n| w.unsigned(n))?;
            texts.iter().try_for_each(|t| w.text(t))?;
            w.unsigned(self.version)?;
            w.bytes(&self.salt)?;
            w.bytes(&self.before)
        })();
        let n = w.len();
        // It has room for all of it, or else it is no hash of a line.
        written.map_or([0; 32], |()| sha256(&[out.get(..n).unwrap_or_default()]))
    }
}

impl Registry {
    /// Runs `change` in one transaction, with one line of the operator's log if it changed anything. `None`: nothing of it stays.
    pub(super) fn logged<T, E: From<rusqlite::Error>>(
        &mut self,
        done: &Done,
        makes: Makes,
        change: impl FnOnce(&Transaction<'_>) -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, E> {
        let mut hand = self.hand.take();
        let deed = hand.as_ref().and_then(|h| h.deed);
        let out = self.written(|tx| {
            let before = tx.total_changes();
            let Some(value) = change(tx)? else { return Ok(None) };
            if makes != Makes::LineAlone && tx.total_changes() == before {
                return Ok(Some((value, deed)));
            }
            if makes == Makes::Version {
                tx.execute("UPDATE meta SET version = version + 1", [])?;
            }
            let hand = hand.as_ref().ok_or_else(read_only)?;
            Ok(Some((value, Some(write(tx, hand, done)?))))
        });
        let out = out.map(|out| {
            out.map(|(value, deed)| {
                if let Some(hand) = &mut hand {
                    hand.deed = deed;
                }
                value
            })
        });
        self.hand = hand;
        out
    }

    /// Runs `change` in one transaction and says nothing of it: for what devices agree by themselves, which is nobody's deed.
    pub(super) fn written<T, E: From<rusqlite::Error>>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, E> {
        self.db.pragma_update(None, "query_only", false)?;
        let done = (|| -> std::result::Result<Option<T>, E> {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = change(&tx)?;
            if done.is_some() {
                tx.commit()?;
            }
            Ok(done)
        })();
        let closed = self.db.pragma_update(None, "query_only", true);
        let done = done?;
        closed?;
        Ok(done)
    }

    /// Enters what was done elsewhere than in the book: a command that is queued, say.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database): then it must not be done.
    pub fn enter_deed(&mut self, done: &'static str, about: impl Display) -> Result<()> {
        let done = Done::new(done, about);
        self.logged(&done, Makes::LineAlone, |_| Ok::<_, rusqlite::Error>(Some(()))).map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Lines of the operator's log behind this number, at most so many, in their order.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn deeds(&self, after: u64, most: u32) -> Result<Vec<Line>> {
        let sql = format!("SELECT {COLUMNS} FROM deeds WHERE n > {after} ORDER BY n LIMIT {most}");
        self.all(&sql, line_of)
    }

    /// Enters a backup that was written and read back.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn enter_backup(&mut self, about: impl Display) -> Result<()> {
        self.enter_deed(BACKUP, about)
    }

    /// When the last one was begun, Unix seconds.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn last_backup(&self) -> Result<Option<u64>> {
        let sql = "SELECT at FROM deeds WHERE done = ? ORDER BY n DESC LIMIT 1";
        let at = self.db.query_row(sql, [BACKUP], |r| r.get(0)).optional();
        at.map(|at| at.map(hidden)).map_err(|e| self.failed(e))
    }

    /// How many lines the operator's log has: the number of the last one.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn last_deed(&self) -> Result<u64> {
        let sql = "SELECT coalesce(max(n), 0) FROM deeds";
        self.db.query_row(sql, [], |r| r.get(0)).map(hidden).map_err(|e| self.failed(e))
    }

    /// All lines of the operator's log, and what is wrong with them, a sentence each: lines that are missing or do not follow
    /// from the line before, and changes of the book that no line tells of. Whoever altered the last lines is found by the
    /// evidence log alone.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn check_deeds(&self) -> Result<(Vec<Line>, Vec<String>)> {
        // The version first: what is done meanwhile has a greater one.
        let version = self.version()?;
        let lines = self.deeds(0, u32::MAX)?;
        let mut wrong = faults(&lines);
        if let Some(last) = lines.last().filter(|last| last.version < version) {
            let (n, then) = (last.number, last.version);
            wrong
                .push(format!("the book is at version {version}, and line {n}, the last one, tells of version {then}"));
        }
        Ok((lines, wrong))
    }
}

const COLUMNS: &str = "n, deed, at, who, place, command, done, about, version, salt, before";

fn line_of(r: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        number: hidden(r.get(0)?),
        deed: hidden(r.get(1)?),
        at: hidden(r.get(2)?),
        who: r.get(3)?,
        place: r.get(4)?,
        command: r.get(5)?,
        done: r.get(6)?,
        about: r.get(7)?,
        version: hidden(r.get(8)?),
        salt: r.get(9)?,
        before: r.get(10)?,
    })
}

/// Writes the next line; returns the number of the first one of its deed.
fn write(tx: &Transaction<'_>, hand: &Hand, done: &Done) -> rusqlite::Result<u64> {
    let last = format!("SELECT {COLUMNS} FROM deeds ORDER BY n DESC LIMIT 1");
    let last = tx.query_row(&last, [], line_of).optional()?;
    let number = last.as_ref().map_or(1, |l| l.number.saturating_add(1));
    let deed = hand.deed.unwrap_or(number);
    let version: i64 = tx.query_row("SELECT version FROM meta", [], |r| r.get(0))?;
    let salt = sha256(&[&hand.seed, &number.to_be_bytes()]);
    let By { who, place, command, at } = &hand.by;
    tx.execute(
        &format!("INSERT INTO deeds ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        params![
            number as i64,
            deed as i64,
            *at as i64,
            who,
            place,
            command,
            done.done,
            done.about,
            version,
            salt.first_chunk::<16>(),
            last.map_or([0; 32], |l| l.hash()),
        ],
    )?;
    Ok(deed)
}

/// What is wrong with lines that begin with the first one.
fn faults(lines: &[Line]) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut number, mut hash, mut version) = (0, [0; 32], None);
    for line in lines {
        let n = line.number;
        if n != number + 1 {
            wrong.push(format!("line {} is missing: line {n} follows line {number}", number + 1));
        } else if line.before != hash {
            wrong.push(format!(
                "line {n} does not follow from line {number}: one of them was altered, or another stood there"
            ));
        }
        if version.is_some_and(|before: u64| !(before..=before.saturating_add(1)).contains(&line.version)) {
            let (from, to) = (version.unwrap_or_default(), line.version);
            wrong.push(format!(
                "the book went from version {from} to {to} between lines {number} and {n}, and no line tells of it"
            ));
        }
        (number, hash, version) = (n, line.hash(), Some(line.version));
    }
    wrong
}

fn read_only() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
    rusqlite::Error::SqliteFailure(code, Some("the book was opened for reading".into()))
}

#[cfg(test)]
mod tests {
    use fivefold_core::profile::Profile;

    use super::*;
    use crate::vault::Vault;

    struct Book {
        folder: tempfile::TempDir,
        vault: Vault,
    }

    impl Book {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let vault = Vault::create(folder.path()).unwrap();
            Registry::create(&folder.path().join("registry.db"), By::new("anna", "pts/1", "init", 1)).unwrap();
            Self { folder, vault }
        }

        fn open(&self, command: &str, at: u64) -> Registry {
            let by = By::new("anna", "pts/1", command, at);
            Registry::open(&self.folder.path().join("registry.db"), by).unwrap()
        }

        /// What somebody does to the file who goes around this program.
        fn tamper(&self, sql: &str) -> Vec<String> {
            Connection::open(self.folder.path().join("registry.db")).unwrap().execute_batch(sql).unwrap();
            self.open("check", 9).check_deeds().unwrap().1
        }

        fn filled() -> Self {
            let book = Self::new();
            for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
                book.open("network add", n as u64).add_network(&book.vault, name, Profile::ToCloud, None).unwrap();
            }
            book
        }
    }

    #[test]
    fn every_change_leaves_one_line_and_those_of_one_command_are_one_deed() {
        let book = Book::new();
        let mut opened = book.open("network add", 7);
        opened.add_network(&book.vault, "north", Profile::ToCloud, None).unwrap();
        opened.allow_classic("north").unwrap();
        book.open("token add", 8).add_token("shop", crate::registry::Scope::Read, 9, 8).unwrap();
        let (lines, wrong) = opened.check_deeds().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let told: Vec<_> = lines.iter().map(|l| (l.number, l.deed, l.at, l.who.as_str(), l.about.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, 1, 7, "anna", "network north"),
                (2, 1, 7, "anna", "network north"),
                (3, 3, 8, "anna", "token shop, scope read, ends at 9")
            ]
        );
        assert_eq!(lines[2].version, opened.version().unwrap());
        assert_eq!(lines[1].before, lines[0].hash());
    }

    #[test]
    fn what_changes_nothing_or_is_refused_leaves_no_line() {
        let book = Book::new();
        let mut opened = book.open("network add", 7);
        opened.add_network(&book.vault, "north", Profile::ToCloud, None).unwrap();
        opened.allow_classic("north").unwrap();
        let version = opened.version().unwrap();
        opened.allow_classic("north").unwrap();
        opened.add_network(&book.vault, "north", Profile::ToCloud, None).unwrap_err();
        opened.revoke_token("nobody", 1).unwrap_err();
        assert_eq!((opened.last_deed().unwrap(), opened.version().unwrap()), (2, version));
    }

    #[test]
    fn nothing_is_written_but_with_a_line() {
        let book = Book::filled();
        let opened = book.open("network add", 7);
        let refused = opened.db.execute("DELETE FROM tokens", []).unwrap_err();
        assert!(refused.to_string().contains("readonly"), "{refused}");
        let mut reading = Registry::open_read_only(&book.folder.path().join("registry.db")).unwrap();
        assert!(reading.allow_classic("a").is_err());
    }

    #[test]
    fn a_line_that_was_altered_dropped_or_moved_is_found_and_so_is_a_change_without_one() {
        let (book, copies) = (Book::filled(), tempfile::tempdir().unwrap());
        let mut copy = 0;
        let mut alter = |sql: &str| {
            copy += 1;
            let path = copies.path().join(copy.to_string());
            let whole = Connection::open(book.folder.path().join("registry.db")).unwrap();
            whole.execute("VACUUM INTO ?", [path.to_str().unwrap()]).unwrap();
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            Registry::open_read_only(&path).unwrap().check_deeds().unwrap().1
        };
        assert!(alter("").is_empty());
        for column in ["deed", "at", "version"] {
            assert!(!alter(&format!("UPDATE deeds SET {column} = {column} + 1 WHERE n = 2")).is_empty(), "{column}");
        }
        for column in ["who", "place", "command", "done", "about"] {
            let wrong = alter(&format!("UPDATE deeds SET {column} = 'x' WHERE n = 2"));
            assert!(wrong[0].contains("line 3 does not follow from line 2"), "{column}: {wrong:?}");
        }
        assert!(alter("UPDATE deeds SET salt = zeroblob(16) WHERE n = 2")[0].contains("line 3"));
        assert!(alter("DELETE FROM deeds WHERE n = 2")[0].contains("line 2 is missing"));
        assert!(alter("DELETE FROM deeds WHERE n = 1")[0].contains("line 1 is missing"));
        let dropped = alter("DELETE FROM deeds WHERE n = 2; UPDATE deeds SET n = n - 1 WHERE n > 2");
        assert!(dropped[0].contains("line 2 does not follow"), "{dropped:?}");
        let moved = alter(
            "UPDATE deeds SET n = 9 WHERE n = 2; UPDATE deeds SET n = 2 WHERE n = 3; UPDATE deeds SET n = 3 WHERE n = 9",
        );
        assert!(!moved.is_empty());
        let last = alter("DELETE FROM deeds WHERE n = 4");
        assert!(last[0].contains("line 3, the last one"), "{last:?}");
        let around = alter("UPDATE meta SET version = version + 1");
        assert!(around[0].contains("the book is at version"), "{around:?}");
    }

    #[test]
    fn a_change_between_two_lines_that_none_tells_of_is_found() {
        let book = Book::filled();
        assert!(!book.tamper("UPDATE meta SET version = version + 1").is_empty());
        book.open("token add", 8).add_token("shop", crate::registry::Scope::Read, 9, 8).unwrap();
        let (_, wrong) = book.open("check", 9).check_deeds().unwrap();
        assert!(wrong[0].contains("between lines 4 and 5"), "{wrong:?}");
    }

    #[test]
    fn what_was_done_elsewhere_is_a_line_and_no_version() {
        let book = Book::filled();
        let mut opened = book.open("api", 5);
        let version = opened.version().unwrap();
        opened.enter_deed("command queued", "device acde480000000001\n, op 7").unwrap();
        let line = opened.deeds(4, 10).unwrap().remove(0);
        assert_eq!((line.number, line.about.as_str()), (5, "device acde480000000001?, op 7"));
        assert_eq!((line.version, opened.version().unwrap()), (version, version));
        assert!(opened.check_deeds().unwrap().1.is_empty());
    }

    #[test]
    fn names_that_are_too_long_are_cut_and_still_hash() {
        let by = By::new("é".repeat(999), "x", "y", u64::MAX);
        assert_eq!(by.who.chars().count(), SHORT);
        let book = Book::filled();
        let mut opened = Registry::open(&book.folder.path().join("registry.db"), by).unwrap();
        opened.enter_deed("tried", "ö".repeat(999)).unwrap();
        let line = opened.deeds(4, 1).unwrap().remove(0);
        assert_eq!(line.about.chars().count(), LONG);
        assert_ne!(line.hash(), [0; 32]);
    }
}
