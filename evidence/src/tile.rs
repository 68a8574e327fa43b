//! Tiles: a log's tree and entries as static files (C2SP `tlog-tiles`), and proofs made of nothing else.
//!
//! A tile of level L holds up to 256 hashes, each the root over 256^L entries; a bundle holds up to 256 entries. Proofs
//! that are made here believe no tile: they hold or do not hold against a checkpoint.

use core::cell::RefCell;
use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use fivefold_core::proof::merkle::{self, Hash};

use crate::note::{Malformed, decimal};

/// Hashes or entries of a full tile.
pub const WIDTH: u64 = 256;
/// Levels of the tree in a tile.
const HEIGHT: u32 = 8;
/// Bytes of an entry, at most: what its length before it can say.
pub const LONGEST_ENTRY: usize = u16::MAX as usize;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// Entries themselves.
    Entries,
    /// Hashes of this level, 0 (of entries) to 63.
    Hashes(u8),
}

/// The place of a tile, written as C2SP writes it: `tile/0/x001/234`, `tile/entries/000.p/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    /// What it holds.
    pub what: What,
    /// Which of its level, from 0.
    pub index: u64,
    /// How many hashes or entries: 1 to 256, and partial below 256.
    pub width: u16,
}

impl TilePath {
    /// Of a tile in a log of `size` entries; none when there is nothing of it yet.
    pub fn within(size: u64, what: What, index: u64) -> Option<Self> {
        let level = match what {
            What::Entries => 0,
            What::Hashes(level) => u32::from(level),
        };
        let all = size.checked_shr(level.checked_mul(HEIGHT)?).unwrap_or(0);
        let width = all.saturating_sub(index.checked_mul(WIDTH)?).min(WIDTH);
        (width > 0).then_some(Self { what, index, width: u16::try_from(width).ok()? })
    }

    /// Whether nothing can be added to it.
    pub const fn is_full(&self) -> bool {
        self.width as u64 == WIDTH
    }

    /// The full tile that takes its place one day.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: WIDTH as u16, ..self }
    }

    /// The folder with all partial tiles of this place.
    pub fn partials(&self) -> String {
        let mut path = self.full().to_string();
        path.push_str(".p");
        path
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Entries => f.write_str("tile/entries")?,
            What::Hashes(level) => write!(f, "tile/{level}")?,
        }
        let digits = format!("{:03}", self.index);
        let digits = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
        let groups = digits.len() / 3;
        for (i, group) in digits.as_bytes().chunks(3).enumerate() {
            let group = core::str::from_utf8(group).map_err(|_| fmt::Error)?;
            write!(f, "/{}{group}", if i + 1 < groups { "x" } else { "" })?;
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TilePath {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("no path of a tile");
        let rest = text.strip_prefix("tile/").ok_or(WRONG)?;
        let (what, rest) = rest.split_once('/').ok_or(WRONG)?;
        let what = match what {
            "entries" => What::Entries,
            level => What::Hashes(u8::try_from(decimal(level)?).ok().filter(|l| *l < 64).ok_or(WRONG)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, WIDTH as u16),
            Some((index, width)) => {
                let width = u16::try_from(decimal(width)?).map_err(|_| WRONG)?;
                (index, if (1..WIDTH as u16).contains(&width) { width } else { return Err(WRONG) })
            }
        };
        let mut number = 0u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|d| d.is_ascii_digit()) {
                return Err(WRONG);
            }
            let group: u64 = digits.parse().map_err(|_| WRONG)?;
            number = number.checked_mul(1000).and_then(|n| n.checked_add(group)).ok_or(WRONG)?;
        }
        let path = Self { what, index: number, width };
        // One form alone: x before all groups but the last, none of zeros in front.
        if path.to_string() == text { Ok(path) } else { Err(WRONG) }
    }
}

/// Whether a path is one of a log's public files: `checkpoint` or a tile, and nothing else that may lie in its folder.
pub fn is_public(path: &str) -> bool {
    path == "checkpoint" || path.parse::<TilePath>().is_ok()
}

/// Hashes of a tile of this width.
///
/// # Errors
/// [`Malformed`] for another number of bytes.
pub fn parse_hashes(bytes: &[u8], width: u16) -> Result<Vec<Hash>, Malformed> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != usize::from(width) {
        return Err(Malformed("a tile of another width"));
    }
    Ok(hashes.iter().copied().map(Hash).collect())
}

/// A tile of these hashes.
pub fn emit_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Entries of a bundle of this width: each after its length, 2 bytes.
///
/// # Errors
/// [`Malformed`] when it is cut short, or holds another number of entries.
pub fn parse_entries(mut bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, Malformed> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(Malformed("a bundle of entries is cut short"))?;
        if entries.len() == usize::from(width) {
            return Err(Malformed("a bundle of another width"));
        }
        entries.push(entry);
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err(Malformed("a bundle of entries is cut short"));
    }
    if entries.len() != usize::from(width) {
        return Err(Malformed("a bundle of another width"));
    }
    Ok(entries)
}

/// A bundle of these entries.
///
/// # Errors
/// [`Malformed`] for an entry longer than [`LONGEST_ENTRY`].
pub fn emit_entries<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    for entry in entries.iter().map(AsRef::as_ref) {
        let length = u16::try_from(entry.len()).map_err(|_| Malformed("an entry longer than 65535 bytes"))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(entry);
    }
    Ok(out)
}

/// Why a file of a log was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is none of this name.
    #[error("{0} is not there")]
    Missing(String),
    /// It could not be read, or the server did not answer.
    #[error("cannot read {path}: {source}")]
    Failed {
        /// Its path in the log.
        path: String,
        /// What was said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is not what its name says.
    #[error("{path}: {reason}")]
    Malformed {
        /// Its path in the log.
        path: String,
        /// What was wrong.
        reason: Malformed,
    },
}

/// Where the static files of a log come from: a folder, a web server.
pub trait Fetch {
    /// The bytes of a file by its path in the log, `checkpoint` or a [`TilePath`].
    ///
    /// # Errors
    /// [`FetchError::Missing`] when it is certain that there is none; [`FetchError::Failed`] for all else.
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError>;
}

/// The files of a log in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(pub PathBuf);

impl Fetch for Directory {
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        std::fs::read(self.0.join(path)).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => FetchError::Missing(path.into()),
            _ => FetchError::Failed { path: path.into(), source: source.into() },
        })
    }
}

impl<F: Fetch + ?Sized> Fetch for &F {
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        (**self).fetch(path)
    }
}

/// The bytes of a tile, or of the full one that has taken its place, cut to the width asked for.
///
/// # Errors
/// [`FetchError`].
pub fn fetch_hashes(from: &impl Fetch, path: TilePath) -> Result<Vec<Hash>, FetchError> {
    let read = |path: TilePath| {
        let bytes = from.fetch(&path.to_string())?;
        parse_hashes(&bytes, path.width).map_err(|reason| FetchError::Malformed { path: path.to_string(), reason })
    };
    match read(path) {
        Err(FetchError::Missing(_)) if !path.is_full() => {
            let mut hashes = read(path.full())?;
            hashes.truncate(path.width.into());
            Ok(hashes)
        }
        other => other,
    }
}

/// The entries of a bundle, or of the full one that has taken its place.
///
/// # Errors
/// [`FetchError`].
pub fn fetch_entries(from: &impl Fetch, index: u64, width: u16) -> Result<Vec<Vec<u8>>, FetchError> {
    let path = TilePath { what: What::Entries, index, width };
    let read = |path: TilePath| {
        let bytes = from.fetch(&path.to_string())?;
        let entries = parse_entries(&bytes, path.width)
            .map_err(|reason| FetchError::Malformed { path: path.to_string(), reason })?;
        Ok(entries.into_iter().take(width.into()).map(<[u8]>::to_vec).collect())
    };
    match read(path) {
        Err(FetchError::Missing(_)) if !path.is_full() => read(path.full()),
        other => other,
    }
}

/// The tree of a log of a known size, read from its tiles. It remembers tiles that it has read.
#[derive(Debug)]
pub struct Tiles<F> {
    from: F,
    size: u64,
    read: RefCell<BTreeMap<(u8, u64), Vec<Hash>>>,
}

impl<F: Fetch> Tiles<F> {
    /// Of a log whose checkpoint says `size`.
    pub const fn new(from: F, size: u64) -> Self {
        Self { from, size, read: RefCell::new(BTreeMap::new()) }
    }

    /// Entries.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over the first `size` entries, as the tiles have it.
    ///
    /// # Errors
    /// [`FetchError`] when a tile cannot be had, or the log is shorter.
    pub fn root(&self, size: u64) -> Result<Hash, FetchError> {
        if size == 0 { Ok(Hash::of_nothing()) } else { self.over(0, size) }
    }

    /// The path of entry `index` in the tree of the first `size` entries, leaf side first (RFC 9162 2.1.3.1).
    ///
    /// # Errors
    /// [`FetchError`] when a tile cannot be had, or there is no such entry.
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, FetchError> {
        if index >= size {
            return Err(FetchError::Missing(format!("entry {index}")));
        }
        let (mut from, mut to) = (0, size);
        let mut path = Vec::new();
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                path.push(self.over(middle, to)?);
                to = middle;
            } else {
                path.push(self.over(from, middle)?);
                from = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// That the tree of the first `size` entries is the beginning of that of the first `later` (RFC 9162 2.1.4.1); empty
    /// for `size` 0 and for `later` itself.
    ///
    /// # Errors
    /// [`FetchError`] when a tile cannot be had, or the log is shorter.
    pub fn prove_consistency(&self, size: u64, later: u64) -> Result<Vec<Hash>, FetchError> {
        if size > later {
            return Err(FetchError::Missing(format!("a tree of {size} entries")));
        }
        let (mut from, mut to, mut is_whole) = (0, later, true);
        let mut path = Vec::new();
        if size == 0 {
            return Ok(path);
        }
        while size < to {
            let middle = from + split(to - from);
            if size <= middle {
                path.push(self.over(middle, to)?);
                to = middle;
            } else {
                path.push(self.over(from, middle)?);
                from = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            path.push(self.over(from, to)?);
        }
        path.reverse();
        Ok(path)
    }

    /// The root over entries `from..to`, where `from` is a multiple of the power of two that `to - from` fits in.
    fn over(&self, from: u64, to: u64) -> Result<Hash, FetchError> {
        // The full subtrees, largest first.
        let mut roots = Vec::new();
        let mut at = from;
        while at < to {
            let height = (to - at).ilog2();
            roots.push(self.subtree(height, at >> height)?);
            at += 1 << height;
        }
        let root = roots.into_iter().rev().reduce(|right, left| Hash::of_node(&left, &right));
        Ok(root.unwrap_or_else(Hash::of_nothing))
    }

    /// The root over entries `index * 2^height` and the 2^height - 1 after it.
    pub(crate) fn subtree(&self, height: u32, index: u64) -> Result<Hash, FetchError> {
        let level = u8::try_from(height / HEIGHT).unwrap_or(u8::MAX);
        let inside = height % HEIGHT;
        let missing = || FetchError::Missing(format!("a tree of more than {} entries", self.size));
        let first = index.checked_shl(inside).ok_or_else(missing)?;
        let (tile, offset) = (first / WIDTH, usize::try_from(first % WIDTH).unwrap_or(usize::MAX));
        let mut read = self.read.borrow_mut();
        let hashes = match read.entry((level, tile)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => {
                let path = TilePath::within(self.size, What::Hashes(level), tile).ok_or_else(missing)?;
                unread.insert(fetch_hashes(&self.from, path)?)
            }
        };
        hashes.get(offset..).and_then(|h| h.get(..1 << inside)).map(merkle::root).ok_or_else(missing)
    }
}

/// The largest power of two below `n`, which is at least 2.
const fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_page() {
        let path = |what, index, width| TilePath { what, index, width }.to_string();
        assert_eq!(path(What::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(What::Hashes(1), 0, 17), "tile/1/000.p/17");
        assert_eq!(path(What::Entries, 273, 112), "tile/entries/273.p/112");
        assert_eq!(path(What::Entries, 1000, 256), "tile/entries/x001/000");
    }

    #[test]
    fn a_path_has_one_form() {
        for wrong in [
            "tile/0/1",
            "tile/00/000",
            "tile/64/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/entries/../000",
            "tile/0/",
            "tile//000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "/tile/0/000",
            "tile/0/000/",
            "tile/-1/000",
        ] {
            assert!(wrong.parse::<TilePath>().is_err() && !is_public(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_the_logs_own_is_not_public() {
        assert!(is_public("checkpoint") && is_public("tile/0/000") && is_public("tile/entries/x001/000.p/9"));
        for own in
            ["own/journal", "own/signed", "", "tile", "checkpoint/", "/checkpoint", "checkpoint.new", "tile/0/000.new"]
        {
            assert!(!is_public(own), "{own}");
        }
    }

    #[test]
    fn widths_are_those_of_the_page() {
        let width = |size, level, index| TilePath::within(size, What::Hashes(level), index).map(|p| p.width);
        assert_eq!(width(70_000, 0, 272), Some(256));
        assert_eq!(width(70_000, 0, 273), Some(112));
        assert_eq!(width(70_000, 0, 274), None);
        assert_eq!((width(70_000, 1, 0), width(70_000, 1, 1), width(70_000, 2, 0)), (Some(256), Some(17), Some(1)));
        assert_eq!((width(256, 0, 0), width(256, 1, 0), width(256, 2, 0)), (Some(256), Some(1), None));
        assert_eq!(width(u64::MAX, 7, 0), Some(255));
        assert_eq!(width(u64::MAX, 8, 0), None);
    }
}
