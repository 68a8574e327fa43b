//! Which lines of the operator's log are in the log or wait for it, and which are to come.

use std::collections::HashSet;

use fivefold_core::suite::sha256;
use fivefold_evidence::log::EntryKind;
use fivefold_evidence::record::Deed;
use fivefold_keep::registry::{Line, Registry, RegistryError};

use crate::store::LogRecord;

/// Lines that are queued in one transaction.
const GROUP: u32 = 1024;

/// What was queued of the operator's log so far.
#[derive(Debug, Default)]
pub struct Deeds {
    known: HashSet<[u8; 32]>,
    /// Number and hash of the last one.
    last: Option<(u64, [u8; 32])>,
    /// How many lines the book had when all of them were known.
    whole: Option<u64>,
}

/// What the book has that was not queued.
#[derive(Debug)]
pub struct News {
    /// Records to be queued.
    pub records: Vec<LogRecord>,
    /// The book's lines do not go on from those that were queued: it was put back from a copy, or they were altered.
    pub is_fork: bool,
    /// There may be more behind them.
    pub is_cut: bool,
    last: Option<(u64, [u8; 32])>,
    lines: u64,
}

impl Deeds {
    /// Takes note of a record that is durable.
    pub(super) fn take(&mut self, record: &[u8]) {
        self.known.insert(sha256(&[record]));
        if let Ok(deed) = Deed::parse(record) {
            self.last = Some((deed.number, deed.line));
        }
    }

    /// What the book has that was not queued; `None`: nothing. A look is one question where nothing was done since.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn news(&self, book: &Registry) -> Result<Option<News>, RegistryError> {
        let lines = book.last_deed()?;
        if self.whole == Some(lines) {
            return Ok(None);
        }
        let (number, hash) = self.last.unwrap_or_default();
        // The last one again: the others must go on from it.
        let after = number.saturating_sub(1);
        let read = book.deeds(after, GROUP + 1)?;
        let goes_on = match read.first() {
            _ if number == 0 => true,
            Some(line) => line.number == number && line.hash() == hash,
            None => false,
        };
        if goes_on {
            let is_cut = read.len() as u64 > u64::from(GROUP);
            let fresh: Vec<_> = read.into_iter().filter(|l| l.number > number).collect();
            return Ok(Some(self.of(&fresh, false, is_cut, lines)));
        }
        let all = book.deeds(0, u32::MAX)?;
        Ok(Some(self.of(&all, true, false, lines)))
    }

    fn of(&self, lines: &[Line], is_fork: bool, is_cut: bool, all: u64) -> News {
        let record = |line: &Line| Deed::of(line).emit().ok();
        let records = lines.iter().filter_map(record).filter(|r| !self.known.contains(&sha256(&[r])));
        let records = records.map(|record| LogRecord { kind: EntryKind::Operator, did: None, record }).collect();
        let last = lines.last().map(|l| (l.number, l.hash())).or(if is_fork { None } else { self.last });
        News { records, is_fork, is_cut, last, lines: all }
    }

    /// Takes note of what is durable now.
    pub fn took(&mut self, news: &News) {
        news.records.iter().for_each(|r| self.take(&r.record));
        self.last = news.last;
        self.whole = (!news.is_cut).then_some(news.lines);
    }
}
