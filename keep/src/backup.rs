//! Backups of a folder that is in use: sealed, verified after writing, and from the second on only what has changed.
//!
//! A **set** is a folder of files `0000.ffb`, `0001.ffb`, ..: the first has everything, each of the others what has changed
//! since the one before. What is kept of a database are its pages, as they were at one moment; of everything else, whole
//! files. So a backup knows nothing of tables, and what is put back is an older folder as any other: its databases are
//! brought to this program's format when they are opened.
//!
//! Every file is sealed in frames under a key of its own (`frames`), which is sealed under the data key of the vault that
//! lies in the folder. The head of the file, which is no secret, has that vault's envelope, and on wish another one around
//! the same data key, which a recovery passphrase opens: so a backup opens where nothing else is left.

mod frames;
mod pages;
mod set;
mod tree;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use crate::files::FileError;
use crate::vault::VaultError;

pub use frames::Head;
pub use set::{Checked, Job, Opening, Plan, Set, Written, heads, write};
pub use unpack::parties_in;

/// Why a backup was not written, or is not put back. Each is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file became another one while it was read.
    #[error("{path} was changed while it was read; type the command again", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// What is in a file does not fit together, although nobody changed it.
    #[error("{path} does not hold together ({reason}); keep it, restore what is before it, and report this", path = path.display())]
    Content {
        /// The file of the set.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// SQLite said no.
    #[error("the database {path}: {source}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A frame does not open.
    #[error(
        "frame {frame} of {path} was changed or cut{}",
        before.map_or(String::new(), |n| format!("; what was backed up before it is whole: --upto {n}")),
        path = path.display()
    )]
    Frame {
        /// The file of the set.
        path: PathBuf,
        /// Which one, from 0.
        frame: u64,
        /// Number of the file before it.
        before: Option<u32>,
    },
    /// There is no room left.
    #[error(
        "the disk of {path} is full; what was begun is removed, and what was there before is as it was: make room, and type this \
         again",
        path = path.display()
    )]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// Another backup is being written into this folder, or one of it is being restored.
    #[error("{folder} is in use by another backup; wait until that one is done, then type this again", folder = folder.display())]
    InUse {
        /// The folder of the set.
        folder: PathBuf,
    },
    /// A set would hold itself.
    #[error("{to} lies in {folder}, which is to be backed up; name another folder with --to", to = to.display(), folder = folder.display())]
    Inside {
        /// Where the set was to be.
        to: PathBuf,
        /// What was to be in it.
        folder: PathBuf,
    },
    /// A file of the set is not there.
    #[error(
        "{folder} lacks {number:04}.ffb, without which nothing after it can be restored: bring it back{}",
        number.checked_sub(1).map_or(String::new(), |n| format!(", or restore what is before it: --upto {n}")),
        folder = folder.display()
    )]
    Missing {
        /// The folder of the set.
        folder: PathBuf,
        /// Which one.
        number: u32,
    },
    /// There is no set.
    #[error("{folder} has no backup; name the folder that `backup --to` wrote", folder = folder.display())]
    NoSet {
        /// The folder.
        folder: PathBuf,
    },
    /// A recovery passphrase was given for a set that has no envelope for one.
    #[error("{path} was written without --recovery-file; name the passphrase file of the vault with --passphrase-file", path = path.display())]
    NoRecovery {
        /// The file of the set.
        path: PathBuf,
    },
    /// It does not begin as a backup does.
    #[error("{path} is no backup, or its head is damaged: bring it back from another copy", path = path.display())]
    NotBackup {
        /// The file.
        path: PathBuf,
    },
    /// The set is somebody else's.
    #[error("{path} is a backup of {theirs}, and this is {ours}; name another folder", path = path.display())]
    Other {
        /// The file of the set.
        path: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who is here.
        ours: String,
    },
    /// A file of another set stands among those of this one.
    #[error(
        "{path} does not go on from the file before it: one of the two was brought from another set; bring back the right one{}",
        before.map_or(String::new(), |n| format!(", or restore what is before it: --upto {n}")),
        path = path.display()
    )]
    OtherSet {
        /// The file.
        path: PathBuf,
        /// Number of the file before it.
        before: Option<u32>,
    },
    /// The set was sealed under a data key that this vault does not have.
    #[error(
        "{path} was sealed under another key than the vault's here: to go on writing, begin a new set in an empty folder; to restore, \
         name the passphrase file of its time with --passphrase-file, or --recovery-file",
        path = path.display()
    )]
    OtherVault {
        /// The file of the set.
        path: PathBuf,
    },
    /// Secrets in the folder are under two data keys: no vault of later opens both.
    #[error(
        "{folder} is between two data keys, and a backup of it could not be put back: finish that with fivefold vault rekey --dir \
         {folder}, then begin a new set in an empty folder",
        folder = folder.display()
    )]
    Rekeying {
        /// What was to be backed up.
        folder: PathBuf,
    },
    /// The log of changes of a database grew while its pages were read.
    #[error(
        "the disk of the backup is too slow: {path} would have grown without an end meanwhile; name a folder on a local disk with --to, \
         and copy the set from there",
        path = path.display()
    )]
    Slow {
        /// The log of changes.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("{path} has format {found}, this program knows {known}; use the newer program", path = path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// As found.
        found: u16,
        /// As known.
        known: u16,
    },
    /// Something in the folder is neither a file nor a folder.
    #[error("{path} is neither a file nor a folder, and a backup has no place for it; move it away", path = path.display())]
    Unfit {
        /// What.
        path: PathBuf,
    },
    /// There is no such number in the set.
    #[error("{folder} ends with number {last}: there is no {asked}", folder = folder.display())]
    Upto {
        /// The folder of the set.
        folder: PathBuf,
        /// The last number that is there.
        last: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The vault does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl BackupError {
    fn reading(path: &Path, source: io::Error) -> Self {
        FileError::Read { path: path.to_owned(), source }.into()
    }

    fn writing(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path: path.to_owned() }
            }
            _ => FileError::Write { path: path.to_owned(), source }.into(),
        }
    }
}

type Result<T> = std::result::Result<T, BackupError>;

#[cfg(test)]
mod tests;
