//! Heads that were shown with cosignatures, one of each size: what proves earliest that an entry existed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fivefold_keep::files::{self, FileError, Readers};

use crate::checkpoint::Signed;

pub(super) struct Heads {
    folder: PathBuf,
    /// Sizes, and how many lines their heads have, once known.
    sizes: BTreeMap<u64, usize>,
}

impl Heads {
    pub(super) fn open(folder: &Path) -> Result<Self, FileError> {
        files::create_folder(folder)?;
        let failed = |source: io::Error| FileError::Read { path: folder.into(), source };
        let mut sizes = BTreeMap::new();
        for file in std::fs::read_dir(folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            // What is no number is a file that was being written when the power went.
            sizes.extend(name.to_str().and_then(|name| name.parse().ok()).map(|size| (size, usize::MAX)));
        }
        Ok(Self { folder: folder.into(), sizes })
    }

    /// Keeps a head, unless one of its size with as many signatures is kept already.
    pub(super) fn keep(&mut self, size: u64, signed: &Signed) -> Result<(), FileError> {
        let lines = signed.note().lines().len();
        if self.sizes.get(&size).is_none_or(|kept| *kept < lines) {
            files::write(&self.path(size), Readers::Owner, signed.to_string().as_bytes())?;
            self.sizes.insert(size, lines);
        }
        Ok(())
    }

    /// Those that have entry `index`, the smallest first.
    pub(super) fn with(&self, index: u64) -> Vec<PathBuf> {
        let from = index.saturating_add(1);
        self.sizes.range(from..).map(|(size, _)| self.path(*size)).collect()
    }

    fn path(&self, size: u64) -> PathBuf {
        self.folder.join(size.to_string())
    }
}
