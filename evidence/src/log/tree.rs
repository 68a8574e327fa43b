//! The tiles of a log on the disk: written whole and synced, before a head that needs them is signed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fivefold_core::proof::merkle::{self, Hash, Tree};
use fivefold_keep::files::{self, Readers};

use super::{Entry, LogError};
use crate::note::Malformed;
use crate::tile::{self, Directory, Fetch, FetchError, TilePath, Tiles, WIDTH, What};

/// The tree of a log from its tiles: as many hashes are read as the size has bits.
pub(super) fn read<F: Fetch>(tiles: &Tiles<F>) -> Result<Tree, FetchError> {
    let mut roots = Vec::new();
    let mut at = 0;
    for height in (0..64).rev().filter(|height| tiles.size() >> height & 1 == 1) {
        roots.push(tiles.subtree(height, at >> height)?);
        at += 1 << height;
    }
    Tree::of_roots(tiles.size(), &roots).ok_or_else(|| FetchError::Missing("a full subtree".into()))
}

/// Entry `index` of a log of `size` entries.
pub(super) fn entry(directory: &Path, size: u64, index: u64) -> Result<Option<Entry>, FetchError> {
    let Some(path) = TilePath::within(size, What::Entries, index / WIDTH) else { return Ok(None) };
    let entries = tile::fetch_entries(&Directory(directory.into()), path.index, path.width)?;
    let entry = usize::try_from(index % WIDTH).ok().and_then(|at| entries.get(at));
    let parsed = entry.map(|bytes| Entry::parse(bytes)).transpose();
    parsed.map_err(|reason| FetchError::Malformed { path: path.to_string(), reason })
}

/// Writes all tiles of `tree` and `fresh` entries behind it that are not those of `tree` alone, and syncs them and
/// their folders; the tree that they make.
pub(super) fn write(directory: &Path, tree: &Tree, fresh: &[Entry]) -> Result<Tree, LogError> {
    let from = Directory(directory.into());
    let (old, new) = (tree.size(), tree.size() + fresh.len() as u64);
    let mut out = Out { directory, folders: BTreeSet::new() };

    // The bundle and the tile that are not full, and what comes after.
    let start = old / WIDTH * WIDTH;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut hashes = Vec::new();
    if let Some(path) = TilePath::within(old, What::Entries, old / WIDTH) {
        entries = tile::fetch_entries(&from, path.index, path.width)?;
        hashes = tile::fetch_hashes(&from, TilePath { what: What::Hashes(0), ..path })?;
        if !entries.iter().map(|entry| Hash::of_leaf([entry])).eq(hashes.iter().copied()) {
            let reason = Malformed("entries are not those of the hashes beside them");
            return Err(FetchError::Malformed { path: path.to_string(), reason }.into());
        }
    }
    entries.extend(fresh.iter().map(|entry| entry.as_ref().to_vec()));
    hashes.extend(fresh.iter().map(Entry::leaf));
    for (index, bundle) in (start / WIDTH..).zip(entries.chunks(WIDTH as usize)) {
        out.write(TilePath::within(new, What::Entries, index), &tile::emit_entries(bundle)?)?;
    }
    // Level by level: full tiles give one hash each to the level above.
    let mut first = start / WIDTH;
    for level in 0..64 {
        let mut above = Vec::new();
        for (index, tile) in (first..).zip(hashes.chunks(WIDTH as usize)) {
            out.write(TilePath::within(new, What::Hashes(level), index), &tile::emit_hashes(tile))?;
            if tile.len() as u64 == WIDTH {
                above.push(merkle::root(tile));
            }
        }
        if above.is_empty() {
            break;
        }
        // The new hashes of the level above start at `first`; the tile they go to may have some already.
        let next = first / WIDTH;
        let before =
            TilePath { what: What::Hashes(level + 1), index: next, width: u16::try_from(first % WIDTH).unwrap_or(0) };
        hashes = if before.width == 0 { Vec::new() } else { tile::fetch_hashes(&from, before)? };
        hashes.extend(above);
        first = next;
    }
    out.sync()?;
    let mut grown = tree.clone();
    grown.extend(fresh.iter().map(Entry::leaf));
    Ok(grown)
}

/// Takes away partial tiles whose full one has come between the heads that were and are shown. What cannot be taken away
/// does no harm.
pub(super) fn tidy(directory: &Path, before: u64, shown: u64) {
    let levels = (0..8).map(|level| (What::Hashes(level), u32::from(level) * 8));
    for (what, shift) in core::iter::once((What::Entries, 0)).chain(levels) {
        let full = |size: u64| size.checked_shr(shift + 8).unwrap_or(0);
        for index in full(before)..full(shown) {
            let partials = TilePath { what, index, width: 1 }.partials();
            let _ = fs::remove_dir_all(directory.join(partials));
        }
    }
}

/// Files that are being written, and folders that have to be synced after them.
struct Out<'d> {
    directory: &'d Path,
    folders: BTreeSet<PathBuf>,
}

impl Out<'_> {
    fn write(&mut self, path: Option<TilePath>, bytes: &[u8]) -> Result<(), LogError> {
        let Some(path) = path else { return Ok(()) };
        let path = self.directory.join(path.to_string());
        let failed = |source| LogError::Write { path: path.clone(), source };
        let folder = path.parent().unwrap_or(self.directory);
        if !folder.is_dir() {
            files::create_folders(folder).map_err(failed)?;
            self.folders.extend(folder.ancestors().take_while(|f| *f != self.directory).map(Path::to_owned));
            self.folders.insert(self.directory.to_owned());
        }
        self.folders.insert(folder.to_owned());
        // A reader must never see half a tile, nor a crash leave one.
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let mut file = files::create_anew(temporary, Readers::Everybody).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        fs::rename(temporary, &path).map_err(failed)
    }

    /// After this all that was written is durable.
    fn sync(self) -> Result<(), LogError> {
        // Deepest first, though any order will do: nothing is signed before all of them are.
        for folder in self.folders.iter().rev() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| LogError::Write { path: folder.clone(), source })?;
        }
        Ok(())
    }
}
