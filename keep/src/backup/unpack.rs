//! Putting back what a set has, into a folder that is not there yet.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::set::Set;
use super::tree::{self, Index, PART, Record};
use super::{BackupError, Result};
use crate::files;
use crate::vault::VAULT_FILE;

impl Set {
    /// Puts everything back into `into`, which is made anew, and looks at it: every page and every file is what the index
    /// says, and on the disk. [`Set::check`] comes first.
    ///
    /// # Errors
    /// [`BackupError`]; then `into` is not there.
    pub fn unpack(&self, into: &Path) -> Result<()> {
        remove(into)?;
        let done = self.unpack_into(into);
        if done.is_err() {
            remove(into)?;
        }
        done
    }

    fn unpack_into(&self, into: &Path) -> Result<()> {
        let mut folders = BTreeSet::new();
        folder(into, into, &mut folders)?;
        let mut there = HashSet::new();
        let mut index = Index::default();
        for file in &self.files {
            let mut from = self.opener(file)?;
            let (found, until) = Index::read(&mut from)?;
            index = found;
            let mut open: Option<(File, PathBuf)> = None;
            tree::records(&mut from, until, &mut |record| {
                match record {
                    Record::Database { path, .. } | Record::File { path, .. } => {
                        let at = into.join(path);
                        folder(files::folder_of(&at), into, &mut folders)?;
                        let mut options = OpenOptions::new();
                        let is_file = matches!(record, Record::File { .. });
                        let made = options.write(true).create(true).truncate(is_file).mode(0o600).open(&at);
                        there.insert(path.to_owned());
                        open = Some((made.map_err(|e| BackupError::writing(&at, e))?, at));
                    }
                    Record::Page { number, bytes } => {
                        if let Some((file, at)) = &open {
                            let to = u64::from(number - 1) * bytes.len() as u64;
                            file.write_all_at(bytes, to).map_err(|e| BackupError::writing(at, e))?;
                        }
                    }
                    Record::Bytes(bytes) => {
                        if let Some((file, at)) = &mut open {
                            file.write_all(bytes).map_err(|e| BackupError::writing(at, e))?;
                        }
                    }
                }
                Ok(())
            })?;
        }
        for (entry, hashes) in index.manifest.databases.iter().zip(&index.pages) {
            there.remove(&entry.path);
            let at = into.join(&entry.path);
            let file = whole(&at, entry.mode, u64::from(entry.pages) * u64::from(entry.page_size))?;
            let mut page = vec![0; entry.page_size as usize];
            for (number, hash) in hashes.iter().enumerate() {
                let from = number as u64 * u64::from(entry.page_size);
                file.read_exact_at(&mut page, from).map_err(|e| BackupError::reading(&at, e))?;
                if tree::page_hash(&page) != *hash {
                    return Err(BackupError::Content { path: at, reason: "a page did not come back" });
                }
            }
        }
        for entry in &index.manifest.files {
            there.remove(&entry.path);
            let at = into.join(&entry.path);
            let file = whole(&at, entry.mode, entry.len)?;
            let mut hash = digest::Context::new(&digest::SHA256);
            let mut part = vec![0; PART.min(entry.len as usize)];
            let mut from = 0;
            while from < entry.len {
                let n = (entry.len - from).min(PART as u64) as usize;
                let part = part.get_mut(..n).unwrap_or_default();
                file.read_exact_at(part, from).map_err(|e| BackupError::reading(&at, e))?;
                hash.update(part);
                from += n as u64;
            }
            if hex::encode(hash.finish()) != entry.sha256 {
                return Err(BackupError::Content { path: at, reason: "a file did not come back" });
            }
        }
        // What the set had once and the folder had no more.
        for path in there {
            files::remove(&into.join(path))?;
        }
        // What lies in a folder is there after a crash when the folder was synced; those above come last.
        for at in folders.iter().rev() {
            File::open(at).and_then(|f| f.sync_all()).map_err(|e| BackupError::writing(at, e))?;
        }
        Ok(())
    }

    /// Lets the recovery passphrase open the vault that was put back.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn put_recovery_envelope(&self, into: &Path) -> Result<()> {
        if let Some(text) = self.head().and_then(|head| head.recovery.as_ref()) {
            files::write(&into.join(VAULT_FILE), files::Readers::Everybody, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Folders of other parties that lie in one: each with a vault of its own, by their paths in it.
///
/// # Errors
/// [`BackupError`].
pub fn parties_in(folder: &Path) -> Result<Vec<String>> {
    tree::parties_in(folder, "", 4)
}

/// A file of that length and mode, synced.
fn whole(at: &Path, mode: u32, len: u64) -> Result<File> {
    let failed = |e| BackupError::writing(at, e);
    let file = File::options().read(true).write(true).open(at).map_err(failed)?;
    file.set_len(len).and_then(|()| file.set_permissions(Permissions::from_mode(mode))).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(file)
}

/// Makes a folder in `into`, and notes it and those above it.
fn folder(at: &Path, into: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(at).map_err(|e| BackupError::writing(at, e))?;
    folders.extend(at.ancestors().take_while(|above| above.starts_with(into)).map(Path::to_owned));
    Ok(())
}

fn remove(at: &Path) -> Result<()> {
    match fs::remove_dir_all(at) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(BackupError::writing(at, e)),
        _ => Ok(()),
    }
}
