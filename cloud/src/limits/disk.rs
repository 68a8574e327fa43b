//! What a folder takes of its disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes of all files below a folder but those of the store, which knows its own (its free pages are used again). What cannot
/// be read counts nothing; what is linked stands elsewhere.
pub fn beside(folder: &Path, store: &Path) -> u64 {
    let own = ["", "-wal", "-shm"].map(|end| with(store, end));
    let mut bytes = 0u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !own.contains(&path) {
                bytes = bytes.saturating_add(entry.metadata().map_or(0, |m| m.len()));
            }
        }
    }
    bytes
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_weighed_without_its_store_and_what_is_linked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("log/tile")).unwrap();
        for (name, bytes) in [("store.db", 1000), ("store.db-wal", 1000), ("cloud.toml", 7), ("log/tile/000", 30)] {
            std::fs::write(at(name), vec![0; bytes]).unwrap();
        }
        std::os::unix::fs::symlink(at("log"), at("elsewhere")).unwrap();
        assert_eq!(beside(folder.path(), &at("store.db")), 37);
    }
}
