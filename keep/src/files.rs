//! Files that survive a crash whole, and secret files that only their owner reads.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
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

impl Readers {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everybody => 0o644,
        }
    }
}

/// Writes a file so that after a crash either the old content or the new stands there, and syncs file and folder. Of root it
/// belongs to the owner of its folder, as with [`create`].
///
/// # Errors
/// [`FileError::Write`].
pub fn write(path: &Path, readers: Readers, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let folder = folder_of(path);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || {
        let mut file = create_anew(Path::new(&temporary), readers)?;
        file.set_permissions(Permissions::from_mode(readers.mode()))?;
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

/// Makes a file that is not there yet. What root makes belongs to the owner of the folder, as SQLite does it beside a database:
/// the daemon whose folder it is must read it, whoever typed the command.
///
/// # Errors
/// As the system says; there is something of this name, for one.
pub fn create(path: &Path, readers: Readers) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(readers.mode()).open(path)?;
    if let Some((uid, gid)) = other_owner(&file.metadata()?, folder_of(path))? {
        // Where root may not give files away, as in some containers, they stay root's.
        let _ = fchown(&file, Some(uid), Some(gid));
    }
    Ok(file)
}

/// The same in the place of what is there: what a crash left of a file that was to get its name later, or somebody else's link,
/// which must not be written through.
///
/// # Errors
/// As the system says.
pub fn create_anew(path: &Path, readers: Readers) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => create(path, readers),
    }
}

/// Opens a file for writing, as a lock, say; where it is not there, it is made as by [`create`].
///
/// # Errors
/// As the system says.
pub fn open_or_create(path: &Path, readers: Readers) -> io::Result<File> {
    match create(path, readers) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => OpenOptions::new().write(true).open(path),
        done => done,
    }
}

/// Makes an empty file where there is none: for a database, which SQLite would make as whoever asks. One that is there is not even
/// opened, for a process that closes it loses its locks on it.
///
/// # Errors
/// As the system says.
pub fn ensure(path: &Path, readers: Readers) -> io::Result<()> {
    match create(path, readers) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Whose something new is to be: of root's, the owner of the folder.
fn other_owner(made: &fs::Metadata, folder: &Path) -> io::Result<Option<(u32, u32)>> {
    let owner = fs::metadata(folder)?;
    Ok((made.uid() == 0 && owner.uid() != 0).then(|| (owner.uid(), owner.gid())))
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

/// Makes a folder that only its owner enters, and those above it. What root makes belongs to the owner of the folder around it.
///
/// # Errors
/// [`FileError::Write`].
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    create_folders(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Makes a folder that everybody may enter who may enter the one around it, and those above it.
///
/// # Errors
/// As the system says.
pub fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_folders(folder_of(path))?;
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    if let Some((uid, gid)) = other_owner(&fs::symlink_metadata(path)?, folder_of(path))? {
        let _ = lchown(path, Some(uid), Some(gid));
    }
    Ok(())
}

/// Gives a folder and all in it to the owner of another, if root does it; links are not followed.
///
/// # Errors
/// [`FileError::Write`].
pub fn give_as(folder: &Path, model: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: folder.to_owned(), source };
    let owner = fs::symlink_metadata(folder).and_then(|made| other_owner(&made, model)).map_err(failed)?;
    let Some((uid, gid)) = owner else { return Ok(()) };
    give(CWD, folder, Uid::from_raw(uid), Gid::from_raw(gid)).map_err(|e| failed(e.into()))
}

/// Gives what `name` is in an open folder, and all in it first. No path is gone twice, and nobody else may change what is in a folder
/// until it is given: who gets the rest cannot put a link to other files into the way.
fn give<P: rustix::path::Arg + Copy>(at: BorrowedFd<'_>, name: P, uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        }
        opened => opened?,
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            give(folder.as_fd(), entry.file_name(), uid, gid)?;
        }
    }
    rustix::fs::fchown(&folder, Some(uid), Some(gid))
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
    fn what_root_makes_belongs_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        // Only root can give a folder away; of anybody else all is their own, and must stay so.
        let is_root = std::os::unix::fs::chown(folder.path(), Some(4242), Some(4243)).is_ok();
        let owner = |path: &Path| fs::symlink_metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
        let theirs = owner(folder.path());
        assert_eq!(is_root, theirs == (4242, 4243), "this test shows more when root runs it");
        let at = |name: &str| folder.path().join(name);
        write(&at("a"), Readers::Owner, b"old").unwrap();
        if is_root {
            std::os::unix::fs::chown(at("a"), Some(0), Some(0)).unwrap();
        }
        write(&at("a"), Readers::Owner, b"new").unwrap();
        drop(open_or_create(&at("lock"), Readers::Owner).unwrap());
        drop(open_or_create(&at("lock"), Readers::Owner).unwrap());
        create_folder(&at("b/c")).unwrap();
        write(&at("b/c/d"), Readers::Everybody, b"").unwrap();
        for made in ["a", "lock", "b", "b/c", "b/c/d"] {
            assert_eq!(owner(&at(made)).0, theirs.0, "{made}");
        }
        let beside = tempfile::tempdir().unwrap();
        let [given, kept] = ["e/f", "kept"].map(|name| beside.path().join(name));
        create_folder(&given).unwrap();
        fs::write(given.join("g"), "").unwrap();
        fs::write(&kept, "").unwrap();
        std::os::unix::fs::symlink(&kept, given.join("link")).unwrap();
        let mine = owner(&kept);
        give_as(&beside.path().join("e"), folder.path()).unwrap();
        for path in [&beside.path().join("e"), &given, &given.join("g"), &given.join("link")] {
            assert_eq!(owner(path).0, theirs.0, "{}", path.display());
        }
        assert_eq!(owner(&kept), mine);
    }

    #[test]
    fn a_link_in_the_place_of_what_is_written_next_is_not_followed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, other) = (folder.path().join("a"), outside.path().join("b"));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("a.new")).unwrap();
        write(&path, Readers::Owner, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"new".to_vec(), b"kept".to_vec()));
        std::os::unix::fs::symlink(outside.path().join("nowhere"), folder.path().join("l")).unwrap();
        assert!(create(&folder.path().join("l"), Readers::Owner).is_err());
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
