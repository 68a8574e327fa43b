//! Where the text of a configuration comes from, and how far what it includes is followed.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of one file, at most.
pub const LONGEST: usize = 1024 * 1024;
/// Files of one examination, and folders that are listed for it, at most.
pub const MOST_FILES: usize = 256;
/// Bytes of all of them, at most.
const LONGEST_WHOLE: usize = 4 * LONGEST;
/// How deep they include each other, at most: as deep as OpenSSH goes.
const DEEPEST: usize = 16;
/// Names in one folder that are looked at, at most.
const MOST_NAMES: usize = 4096;

/// Why a file was not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The system does not give it; what it said.
    Failed(String),
    /// It is none of its kind: what was expected, and the line where it ends to be one (0: not known).
    Form(String, usize),
    /// It is longer than [`LONGEST`].
    Long,
    /// It includes itself.
    Loop,
    /// Too many files, or too deep.
    Many,
    /// There is none.
    Missing,
    /// It is not UTF-8.
    NotText,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Form(expected, 0) => write!(f, "it is not {expected}"),
            Self::Form(expected, line) => write!(f, "line {line}: it is not {expected}"),
            Self::Long => write!(f, "it is longer than {LONGEST} bytes, or all together are than {LONGEST_WHOLE}"),
            Self::Loop => f.write_str("it includes itself"),
            Self::Many => write!(f, "more than {MOST_FILES} files, or {DEEPEST} deep, include each other"),
            Self::Missing => f.write_str("there is none"),
            Self::NotText => f.write_str("it is not UTF-8 text"),
        }
    }
}

impl std::error::Error for Unread {}

/// Gives files.
pub trait Files {
    /// The first [`LONGEST`] bytes of a file, and one more if there are more.
    ///
    /// # Errors
    /// [`Unread::Failed`], [`Unread::Missing`].
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Unread>;

    /// Names in a folder, in any order.
    ///
    /// # Errors
    /// [`Unread::Failed`], [`Unread::Many`].
    fn list(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Unread>;

    /// Permission bits of a file; `None` where they are not known.
    fn mode(&mut self, path: &Path) -> Option<u32>;
}

/// Those of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

fn failed(e: std::io::Error) -> Unread {
    if e.kind() == std::io::ErrorKind::NotFound { Unread::Missing } else { Unread::Failed(e.to_string()) }
}

impl Files for Disk {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Unread> {
        // A pipe or a device may never end, and opening one may never return.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Unread::Failed("it is not a regular file".into()));
        }
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Unread> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            if names.len() == MOST_NAMES {
                return Err(Unread::Many);
            }
            names.push(entry.map_err(failed)?.path());
        }
        Ok(names)
    }

    fn mode(&mut self, path: &Path) -> Option<u32> {
        fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o777)
    }
}

/// A walk through files that include each other.
pub struct Walk<'f> {
    files: &'f mut dyn Files,
    open: Vec<PathBuf>,
    entered: usize,
    bytes: usize,
}

impl<'f> Walk<'f> {
    /// Begins.
    pub fn new(files: &'f mut dyn Files) -> Self {
        Self { files, open: Vec::new(), entered: 0, bytes: 0 }
    }

    /// Text of a file. Without an error, [`Walk::leave`] follows when all that it includes was entered and left.
    ///
    /// # Errors
    /// It cannot be read, is too long, is open already.
    pub fn enter(&mut self, path: &Path) -> Result<String, Unread> {
        if self.open.iter().any(|p| p == path) {
            return Err(Unread::Loop);
        }
        if self.entered == MOST_FILES || self.open.len() == DEEPEST {
            return Err(Unread::Many);
        }
        self.entered += 1;
        let bytes = self.files.read(path)?;
        self.bytes = self.bytes.saturating_add(bytes.len());
        if bytes.len() > LONGEST || self.bytes > LONGEST_WHOLE {
            return Err(Unread::Long);
        }
        let text = String::from_utf8(bytes).map_err(|_| Unread::NotText)?;
        self.open.push(path.to_owned());
        Ok(text)
    }

    /// Leaves the file that was entered last.
    pub fn leave(&mut self) {
        self.open.pop();
    }

    /// Names in a folder. One that is listed again and again, once for each word of a line, counts each time.
    fn list(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Unread> {
        if self.entered == MOST_FILES {
            return Err(Unread::Many);
        }
        self.entered += 1;
        self.files.list(folder)
    }

    /// Files in a folder whose name ends so, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn ending(&mut self, folder: &Path, end: &str) -> Result<Vec<PathBuf>, Unread> {
        let is_one = |name: &OsStr| {
            let name = name.as_encoded_bytes();
            name.ends_with(end.as_bytes()) && !name.starts_with(b".")
        };
        let mut all = self.list(folder)?;
        all.retain(|p| p.file_name().is_some_and(is_one));
        all.sort();
        Ok(all)
    }

    /// Files that a pattern with `*` and `?` in its last part names, in order; a path without those is itself.
    ///
    /// # Errors
    /// The folder cannot be read, or the pattern has more in it than is followed here.
    pub fn matching(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, Unread> {
        let is_pattern = |part: &OsStr| part.as_encoded_bytes().iter().any(|b| b"*?[".contains(b));
        let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
            return Ok(vec![pattern.to_owned()]);
        };
        if is_pattern(folder.as_os_str()) || name.as_encoded_bytes().contains(&b'[') {
            return Err(Unread::Failed("such a pattern is not followed here".into()));
        }
        if !is_pattern(name) {
            return Ok(vec![pattern.to_owned()]);
        }
        let mut all = self.list(folder)?;
        let is_one = |n: &OsStr| {
            let n = n.as_encoded_bytes();
            !n.starts_with(b".") && matches(name.as_encoded_bytes(), n)
        };
        all.retain(|p| p.file_name().is_some_and(is_one));
        all.sort();
        Ok(all)
    }

    /// Permission bits of a file.
    pub fn mode(&mut self, path: &Path) -> Option<u32> {
        self.files.mode(path)
    }
}

/// A path as a file names it: relative to its own folder.
pub(super) fn beside(file: &Path, what: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(what)
}

/// Whether a text fits a pattern with `*` and `?`. In time that grows with both lengths multiplied, at most.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&sign) if sign == b'?' || sign == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|b| *b == b'*')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Files that a test makes up.
    #[derive(Default)]
    pub(crate) struct Made(pub(crate) BTreeMap<PathBuf, (Vec<u8>, u32)>);

    impl Made {
        pub(crate) fn with(mut self, path: &str, text: &str) -> Self {
            self.0.insert(path.into(), (text.into(), 0o644));
            self
        }
    }

    impl Files for Made {
        fn read(&mut self, path: &Path) -> Result<Vec<u8>, Unread> {
            self.0.get(path).map(|f| f.0.clone()).ok_or(Unread::Missing)
        }

        fn list(&mut self, folder: &Path) -> Result<Vec<PathBuf>, Unread> {
            let mut all: Vec<_> = self.0.keys().filter(|p| p.parent() == Some(folder)).cloned().collect();
            all.reverse();
            Ok(all)
        }

        fn mode(&mut self, path: &Path) -> Option<u32> {
            self.0.get(path).map(|f| f.1)
        }
    }

    #[test]
    fn a_pattern_fits_what_a_shell_would_take() {
        for (pattern, text, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_walk_ends_where_files_include_themselves_or_each_other_without_end() {
        let mut files = Made::default().with("/a", "a").with("/b", "\u{fffd}");
        files.0.insert("/c".into(), (vec![0xFF], 0o600));
        files.0.insert("/long".into(), (vec![b'x'; LONGEST + 1], 0o600));
        let mut walk = Walk::new(&mut files);
        assert_eq!(walk.enter(Path::new("/a")).as_deref(), Ok("a"));
        assert_eq!(walk.enter(Path::new("/a")), Err(Unread::Loop));
        assert_eq!(walk.enter(Path::new("/c")), Err(Unread::NotText));
        assert_eq!(walk.enter(Path::new("/long")), Err(Unread::Long));
        assert_eq!(walk.enter(Path::new("/none")), Err(Unread::Missing));
        walk.leave();
        let entered = (0..MOST_FILES).take_while(|_| walk.enter(Path::new("/b")).map(|_| walk.leave()).is_ok()).count();
        assert_eq!(entered, MOST_FILES - 4);
        assert_eq!(walk.enter(Path::new("/b")), Err(Unread::Many));
    }

    #[test]
    fn a_pattern_names_files_in_order_and_no_hidden_ones() {
        let mut files =
            Made::default().with("/d/2.conf", "").with("/d/10.conf", "").with("/d/.3.conf", "").with("/d/x", "");
        let mut walk = Walk::new(&mut files);
        let found = walk.matching(Path::new("/d/*.conf")).unwrap();
        assert_eq!(found, [PathBuf::from("/d/10.conf"), PathBuf::from("/d/2.conf")]);
        assert_eq!(walk.matching(Path::new("/d/x")).unwrap(), [PathBuf::from("/d/x")]);
        assert!(walk.matching(Path::new("/*/x")).is_err());
    }
}
