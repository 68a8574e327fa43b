//! What a file of a set holds: records, and behind them the index of everything that the folder had.
//!
//! The stream is: records; the index; where the index begins (8). A database's record is `D ‖ path ‖ page size (4)`, and
//! behind it those of its pages, `P ‖ number (4) ‖ page`, in ascending order; a file's is `F ‖ path ‖ length (8) ‖ bytes`. A path is
//! its length (2) and UTF-8. The index is the length (4) of a [`Manifest`], JSON, and 16 bytes of SHA-256 for each page of each
//! database in its order: what does not stand in the records is in a file of the set before, under the same hash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::frames::Opener;
use super::{BackupError, Result};
use crate::vault::VAULT_FILE;

pub(super) type PageHash = [u8; 16];

pub(super) const DATABASE: u8 = b'D';
pub(super) const FILE: u8 = b'F';
pub(super) const PAGE: u8 = b'P';

/// Bytes of a manifest, at most.
const LONGEST: u64 = 256 << 20;
/// How deep folders lie in each other, at most.
const DEEPEST: usize = 32;
/// Bytes of a file that are in memory at a time.
pub(super) const PART: usize = 1 << 20;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

pub(super) fn page_hash(page: &[u8]) -> PageHash {
    sha256(page).first_chunk().copied().unwrap_or_default()
}

/// A database, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) page_size: u32,
    pub(super) pages: u32,
}

/// A file, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) len: u64,
    pub(super) sha256: String,
}

/// Everything that the folder had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) databases: Vec<Database>,
    pub(super) files: Vec<Kept>,
    pub(super) counts: BTreeMap<String, u64>,
}

/// The manifest, and the hash of each page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) manifest: Manifest,
    pub(super) pages: Vec<Vec<PageHash>>,
}

impl Index {
    pub(super) fn database(&self, path: &str) -> Option<(&Database, &[PageHash])> {
        let at = self.manifest.databases.iter().position(|d| d.path == path)?;
        Some((self.manifest.databases.get(at)?, self.pages.get(at)?))
    }

    /// The hash of a page, where the database has pages of that size.
    pub(super) fn page(&self, path: &str, page_size: u32) -> impl Fn(u32) -> Option<PageHash> {
        let hashes = self.database(path).filter(|(d, _)| d.page_size == page_size).map(|(_, hashes)| hashes);
        move |number| hashes?.get((number as usize).checked_sub(1)?).copied()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(&self.manifest).unwrap_or_default();
        let mut bytes = (json.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&json);
        self.pages.iter().flatten().for_each(|hash| bytes.extend_from_slice(hash));
        bytes
    }

    /// The index of a file, and where it begins.
    pub(super) fn read(from: &mut Opener) -> Result<(Self, u64)> {
        from.check_end()?;
        let path = from.path().to_owned();
        let wrong = |reason| BackupError::Content { path: path.clone(), reason };
        let tail = from.len().checked_sub(8).ok_or_else(|| wrong("it has no index"))?;
        from.go_to(tail);
        let begins = u64::from_be_bytes(array(from)?);
        if begins > tail {
            return Err(wrong("its index begins behind its end"));
        }
        from.go_to(begins);
        let len = u32::from_be_bytes(array(from)?);
        if u64::from(len) > LONGEST.min(tail - begins) {
            return Err(wrong("its index is longer than it is"));
        }
        let mut json = vec![0; len as usize];
        from.take(&mut json)?.ok_or_else(|| wrong("its index is cut"))?;
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|_| wrong("its index does not read"))?;
        let hashes: u64 = manifest.databases.iter().map(|d| u64::from(d.pages) * 16).sum();
        if from.position() + hashes != tail {
            return Err(wrong("its index has another number of pages"));
        }
        let paths = manifest.databases.iter().map(|d| &d.path).chain(manifest.files.iter().map(|f| &f.path));
        let sizes = manifest.databases.iter().all(|d| (512..=65_536).contains(&d.page_size));
        if !sizes || !paths.clone().all(|p| stays_inside(p)) {
            return Err(wrong("its index names what cannot be"));
        }
        let mut pages = Vec::with_capacity(manifest.databases.len());
        for database in &manifest.databases {
            let mut hashes = vec![[0; 16]; database.pages as usize];
            from.take(hashes.as_flattened_mut())?.ok_or_else(|| wrong("its index is cut"))?;
            pages.push(hashes);
        }
        Ok((Self { manifest, pages }, begins))
    }
}

/// Whether a path stays in the folder that it is put into.
fn stays_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

/// One step of the records.
pub(super) enum Record<'a> {
    Database {
        path: &'a str,
        page_size: u32,
    },
    Page {
        number: u32,
        bytes: &'a [u8],
    },
    File {
        path: &'a str,
        len: u64,
    },
    /// The next bytes of the file.
    Bytes(&'a [u8]),
}

/// Reads the records up to the index, which begins there.
pub(super) fn records(from: &mut Opener, until: u64, each: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<()> {
    let wrong = |from: &Opener, reason| BackupError::Content { path: from.path().to_owned(), reason };
    let (mut page, mut part) = (Vec::new(), vec![0; PART]);
    from.go_to(0);
    while from.position() < until {
        let [kind] = array(from)?;
        match kind {
            DATABASE => {
                let path = path_of(from)?;
                let page_size = u32::from_be_bytes(array(from)?);
                if !(512..=65_536).contains(&page_size) {
                    return Err(wrong(from, "a page has an impossible size"));
                }
                page.resize(page_size as usize, 0);
                each(Record::Database { path: &path, page_size })?;
            }
            PAGE if !page.is_empty() => {
                let number = u32::from_be_bytes(array(from)?);
                if from.take(&mut page)?.is_none() || number == 0 {
                    return Err(wrong(from, "a page is cut"));
                }
                each(Record::Page { number, bytes: &page })?;
            }
            FILE => {
                page.clear();
                let path = path_of(from)?;
                let len = u64::from_be_bytes(array(from)?);
                each(Record::File { path: &path, len })?;
                let mut left = len;
                while left > 0 {
                    let now = part.get_mut(..left.min(PART as u64) as usize).unwrap_or_default();
                    if from.take(now)?.is_none() {
                        return Err(wrong(from, "a file is cut"));
                    }
                    left -= now.len() as u64;
                    each(Record::Bytes(now))?;
                }
            }
            _ => return Err(wrong(from, "a record is of no kind")),
        }
    }
    if from.position() == until { Ok(()) } else { Err(wrong(from, "its records run into the index")) }
}

fn array<const N: usize>(from: &mut Opener) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match from.take(&mut bytes)? {
        Some(()) => Ok(bytes),
        None => Err(BackupError::Content { path: from.path().to_owned(), reason: "it ends too early" }),
    }
}

fn path_of(from: &mut Opener) -> Result<String> {
    let mut bytes = vec![0; u16::from_be_bytes(array(from)?).into()];
    let taken = from.take(&mut bytes)?;
    let path = taken.and_then(|()| String::from_utf8(bytes).ok()).filter(|p| stays_inside(p));
    path.ok_or_else(|| BackupError::Content { path: from.path().to_owned(), reason: "a path leads out of the folder" })
}

/// Files below a folder, with their paths in it, in order. A folder with a vault of its own is another party's; what begins
/// anew with each process is nobody's.
pub(super) fn files_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    below(folder, "", DEEPEST, &mut files)?;
    Ok(files)
}

fn below(folder: &Path, words: &str, deep: usize, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let unfit = |path: &Path| BackupError::Unfit { path: path.to_owned() };
    for entry in entries(folder)? {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else { return Err(unfit(&path)) };
        let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            // It was there a moment ago.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(BackupError::reading(&path, e)),
        };
        if meta.is_dir() {
            if is_link || deep == 0 {
                return Err(unfit(&path));
            }
            if !path.join(VAULT_FILE).exists() {
                below(&path, &format!("{words}{name}/"), deep - 1, files)?;
            }
        } else if meta.is_file() && !is_passing(&name) {
            files.push((format!("{words}{name}"), path));
        }
    }
    Ok(())
}

/// Folders below one that have a vault of their own, with their paths in it.
pub(super) fn parties_in(folder: &Path, words: &str, deep: usize) -> Result<Vec<String>> {
    let mut parties = Vec::new();
    for entry in entries(folder)? {
        let (path, name) = (entry.path(), entry.file_name());
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let words = format!("{words}{}", name.to_string_lossy());
        if path.join(VAULT_FILE).exists() {
            parties.push(words);
        } else if deep > 0 {
            parties.extend(parties_in(&path, &format!("{words}/"), deep - 1)?);
        }
    }
    Ok(parties)
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let read = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = read.map_err(|e| BackupError::reading(folder, e))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// What belongs to a process that runs, or to a write that is not done.
fn is_passing(name: &str) -> bool {
    ["-journal", "-shm", "-wal", ".closed", ".lock", ".new"].iter().any(|end| name.ends_with(end))
}

pub(super) fn mode_of(meta: &fs::Metadata) -> u32 {
    meta.permissions().mode() & 0o777
}
