//! Files that survive a crash whole, and secret files that only their owner reads.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes of a file that is read, at most: a thousand times what any of ours has.
const LONGEST: u64 = 16 << 20;

/// Why a file could not be read or written. Each is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Others than the owner can read a secret.
    #[error("{path} can be read by others (mode {mode:03o}); type: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Reading failed.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    /// Whether it is the same at the next try, until somebody mends it. A file that is not there may lie on a medium that is about to
    /// come.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Exposed { .. } => true,
            Self::Read { source, .. } => {
                matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::FileTooLarge)
            }
            Self::Write { .. } => false,
        }
    }
}

/// Who may read a file that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner, mode 600.
    Owner,
    /// Everybody, mode 644.
    Everybody,
}

/// Writes a file so that after a crash either the old content or the new stands there, and syncs file and folder.
///
/// # Errors
/// [`FileError::Write`].
pub fn write(path: &Path, readers: Readers, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let folder = folder_of(path);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed)
}

/// Bytes that are free on the disk of a folder, for who is not root.
///
/// # Errors
/// What the system says.
pub fn free(folder: &Path) -> io::Result<u64> {
    let of = rustix::fs::statvfs(folder)?;
    Ok(of.f_bavail.saturating_mul(of.f_frsize))
}

/// Reads a secret file, if nobody but its owner can.
///
/// # Errors
/// [`FileError::Exposed`], [`FileError::Read`].
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    whole(path).map(Zeroizing::new).map_err(failed)
}

/// Reads a text file that is no secret.
///
/// # Errors
/// [`FileError::Read`].
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let text = whole(path).and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text")));
    text.map_err(|source| FileError::Read { path: path.to_owned(), source })
}

/// Reads a file of a bounded length. A pipe or a device would never end, or never begin, so it has to be a file.
fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {} MiB", LONGEST >> 20));
    if meta.len() > LONGEST {
        return Err(too_long());
    }
    // All at once: what is copied to make room would stay where it was, secrets too.
    let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST { Err(too_long()) } else { Ok(bytes) }
}

/// Removes a file, if it is there, and syncs the folder.
///
/// # Errors
/// [`FileError::Write`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    File::open(folder_of(path)).and_then(|f| f.sync_all()).map_err(failed)
}

/// Makes a folder that only its owner enters, and those above it.
///
/// # Errors
/// [`FileError::Write`].
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// The folder that a relative path in a config file starts from: the one the file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, Readers::Everybody, b"secret").unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(matches!(error, FileError::Exposed { mode: 0o644, .. }));
        assert!(error.to_string().contains("type: chmod 600"), "{error}");
        write(&path, Readers::Owner, b"secret").unwrap();
        assert_eq!(read_private(&path).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_text(Path::new("/nowhere/at-all")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/at-all"), "{error}");
    }

    #[test]
    fn what_does_not_end_or_is_no_file_is_refused_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.set_len(LONGEST).unwrap();
        assert_eq!(read_private(&path).unwrap().len() as u64, LONGEST);
        file.set_len(1 << 40).unwrap();
        for error in [read_private(&path).unwrap_err(), read_text(&path).unwrap_err()] {
            assert!(error.to_string().ends_with("long: it is longer than 16 MiB"), "{error}");
        }
        for path in [folder.path(), Path::new("/dev/zero")] {
            assert!(read_text(path).unwrap_err().to_string().ends_with("it is no file"));
        }
    }

    #[test]
    fn what_is_free_is_said_of_a_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).unwrap() > 0);
        assert!(free(&folder.path().join("nowhere")).is_err());
    }
}
