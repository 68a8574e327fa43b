//! What a witness remembers, as files.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use fivefold_core::suite::sha256;
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::format::{self, Newer};

use super::engine::{Fork, Pending};
use super::request::Record;
use crate::note::Malformed;

/// A witness's records as files, one for each log. While it lives nobody else has them: two witnesses with one set of keys could
/// cosign two heads of one size.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: std::fs::File,
}

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A record has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// Another witness has them.
    #[error("{path} is held by a witness that runs: stop that one first; two with one set of keys could cosign a fork", path = path.display())]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// It is no record. To begin anew would let a log be rolled back: nothing is cosigned.
    #[error("{path} is no record of a log: {source}; bring back the right one, for without it the log could be rolled back", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: Malformed,
    },
}

/// Forks of one log that are kept, at most: one proves it.
const MOST_FORKS: usize = 16;

impl Store {
    /// In a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Taken`] while another one has them, or a file.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        files::create_folder(folder)?;
        let path = folder.join("lock");
        let lock = files::open_or_create(&path, Readers::Everybody);
        let lock = lock.map_err(|source| FileError::Write { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Taken { path }),
            Err(TryLockError::Error(source)) => Err(FileError::Write { path, source }.into()),
        }
    }

    /// What is remembered of a log.
    ///
    /// # Errors
    /// [`StoreError`] when there is a file, and it is no record.
    pub fn read(&self, origin: &str) -> Result<Option<Record>, StoreError> {
        let path = self.path(origin, "head");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::Read { path, source }.into()),
        };
        let record = match core::str::from_utf8(&bytes) {
            Ok(text) => format::of_lines(path.display(), text)?.as_bytes(),
            Err(_) => &bytes,
        };
        Record::parse(record).map(Some).map_err(|source| StoreError::Malformed { path, source })
    }

    /// Makes a record durable.
    ///
    /// # Errors
    /// [`FileError::Write`]: then it must not be cosigned.
    pub fn write(&self, pending: &Pending) -> Result<(), FileError> {
        let path = self.path(pending.origin(), "head");
        files::write(&path, Readers::Owner, pending.record().to_string().as_bytes())
    }

    /// Keeps the proof of a fork: both heads. Of each log a few are enough.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn keep(&self, fork: &Fork) -> Result<Option<PathBuf>, FileError> {
        let text = format!("{}\n{}", fork.ours, fork.theirs);
        let origin = &fork.ours.unverified().origin;
        let number = (0..MOST_FORKS).find_map(|n| {
            let path = self.path(origin, &format!("fork-{n}"));
            match std::fs::read(&path) {
                Ok(kept) => (kept == text.as_bytes()).then_some(None),
                Err(_) => Some(Some(path)),
            }
        });
        let Some(Some(path)) = number else { return Ok(None) };
        files::write(&path, Readers::Owner, text.as_bytes())?;
        Ok(Some(path))
    }

    /// A log's name may have any character: its hash has none that a file may not.
    fn path(&self, origin: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", hex::encode(sha256(&[origin.as_bytes()]))))
    }
}
