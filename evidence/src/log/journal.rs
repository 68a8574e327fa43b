//! The journal: entries that have a place and are in no signed tree yet.
//!
//! A header of 48 bytes: 8 of name and version, the number of the first entry, 32 of SHA-256 over the origin. Then
//! records of 42 bytes: an entry, and the first 8 bytes of SHA-256 over the number of the entry and the entry.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fivefold_core::suite::sha256;
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::format::Newer;

use super::{ENTRY, Entry, LogError};

const MAGIC: &[u8; 8] = b"5fjrnl\0\x01";
/// Its name and its version.
const NAME: &[u8; 7] = b"5fjrnl\0";
const VERSION: u8 = 1;
const HEADER: usize = 48;
const CHECK: usize = 8;
const RECORD: usize = ENTRY + CHECK;
/// Bytes from which on a journal is written anew without what tiles hold.
const LONG: u64 = 256 * 1024;

pub(super) struct Journal {
    path: PathBuf,
    file: File,
    origin: [u8; 32],
    /// Number of the next entry.
    next: u64,
    bytes: u64,
}

/// What a power cut left at the end of a journal, as a file beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// The entry that would have stood first in it. Nobody was told a place from there on.
    pub entry: u64,
    /// How many bytes it has.
    pub bytes: usize,
}

impl Aside {
    /// Durable, before the journal is cut. The same tail has the same name: cut in between, it is written once more.
    fn keep(journal: &Path, entry: u64, tail: &[u8]) -> Result<Self, FileError> {
        let [a, b, c, d, ..] = sha256(&[tail]);
        let path = journal.with_file_name(format!("journal-torn-{entry}-{a:02x}{b:02x}{c:02x}{d:02x}"));
        files::write(&path, Readers::Owner, tail)?;
        Ok(Self { path, entry, bytes: tail.len() })
    }
}

impl Journal {
    /// Begins one, for entries from number `first` on.
    pub(super) fn create(path: &Path, origin: &str, first: u64) -> Result<(), FileError> {
        files::write(path, Readers::Owner, &emit(&sha256(&[origin.as_bytes()]), first, &[]))
    }

    /// Opens the journal of a log whose signed head has `signed` entries; the entries behind those, and where a torn tail went. A last
    /// record that is shorter than one was never acknowledged and is cut off. From entry `known` on nobody was told a place: records
    /// from there to the end of which none reads are what a power cut leaves, and are moved aside. Nothing else is ever removed.
    pub(super) fn open(
        path: &Path,
        origin: &str,
        (signed, known): (u64, u64),
    ) -> Result<(Self, Vec<Entry>, Option<Aside>), LogError> {
        let origin = sha256(&[origin.as_bytes()]);
        let wrong = |reason| LogError::Journal { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|source| FileError::Read { path: path.into(), source })?;
        let (header, records) = bytes.split_first_chunk::<HEADER>().ok_or_else(|| wrong("is cut short"))?;
        if let Some(&found) = header.strip_prefix(NAME).and_then(|rest| rest.first())
            && found > VERSION
        {
            return Err(Newer::new(path.display(), found.into(), VERSION.into()).into());
        }
        let first = parse_header(header, &origin).ok_or_else(|| wrong("is not the journal of this log"))?;
        let old = signed.checked_sub(first).and_then(|n| usize::try_from(n).ok());
        let old = old.ok_or_else(|| wrong("does not go on from the signed head: entries are missing"))?;
        let numbered = (first..).zip(records.as_chunks::<RECORD>().0).enumerate();
        let read: Vec<_> = numbered.map(|(at, (entry, record))| (at, entry, parse_record(record, entry))).collect();
        let entries: Vec<Entry> = read.iter().map_while(|(.., record)| *record).collect();
        if let Some((at, entry, _)) = read.get(entries.len()) {
            let offset = (HEADER + at * RECORD) as u64;
            let is_torn = read.iter().skip(*at).all(|(.., record)| record.is_none()) && *entry >= signed.max(known);
            if !is_torn {
                return Err(LogError::Damaged { path: path.into(), offset, entry: *entry });
            }
        }
        let fresh = entries.get(old..).ok_or_else(|| wrong("does not reach the signed head: entries are missing"))?;
        let whole = (HEADER + entries.len() * RECORD) as u64;
        let failed = |source| LogError::Write { path: path.into(), source };
        let file = File::options().append(true).open(path).map_err(failed)?;
        let tail = bytes.get(HEADER + entries.len() * RECORD..).unwrap_or_default();
        let aside =
            (tail.len() >= RECORD).then(|| Aside::keep(path, first + entries.len() as u64, tail)).transpose()?;
        if !tail.is_empty() {
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let next = first + entries.len() as u64;
        Ok((Self { path: path.into(), file, origin, next, bytes: whole }, fresh.to_vec(), aside))
    }

    /// Appends entries and syncs them.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let records = records(self.next, entries);
        let written = self.file.write_all(&records).and_then(|()| self.file.sync_data());
        written.map_err(|source| LogError::Write { path: self.path.clone(), source })?;
        self.next += entries.len() as u64;
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// Whether it is worth writing anew.
    pub(super) const fn is_long(&self) -> bool {
        self.bytes > LONG
    }

    /// Writes it anew with these entries alone, from number `first` on.
    pub(super) fn rewrite(&mut self, first: u64, entries: &[Entry]) -> Result<(), LogError> {
        let bytes = emit(&self.origin, first, entries);
        files::write(&self.path, Readers::Owner, &bytes)?;
        let failed = |source| LogError::Write { path: self.path.clone(), source };
        self.file = File::options().append(true).open(&self.path).map_err(failed)?;
        self.next = first + entries.len() as u64;
        self.bytes = bytes.len() as u64;
        Ok(())
    }
}

fn emit(origin: &[u8; 32], first: u64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &first.to_be_bytes(), origin].concat();
    bytes.extend(records(first, entries));
    bytes
}

fn records(first: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * RECORD);
    for (number, entry) in (first..).zip(entries) {
        out.extend_from_slice(entry.as_bytes());
        out.extend_from_slice(&check(number, entry));
    }
    out
}

fn parse_header(header: &[u8; HEADER], origin: &[u8; 32]) -> Option<u64> {
    let rest = header.strip_prefix(MAGIC)?;
    let (first, of) = rest.split_first_chunk()?;
    (of == origin).then_some(u64::from_be_bytes(*first))
}

fn parse_record(record: &[u8; RECORD], number: u64) -> Option<Entry> {
    let (entry, of) = record.split_first_chunk::<ENTRY>()?;
    let entry = Entry(*entry);
    (of == check(number, &entry)).then_some(entry)
}

fn check(number: u64, entry: &Entry) -> [u8; CHECK] {
    let mut first = [0; CHECK];
    first.iter_mut().zip(sha256(&[&number.to_be_bytes(), entry.as_bytes()])).for_each(|(f, h)| *f = h);
    first
}
