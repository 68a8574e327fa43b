//! A log in a folder: entries are durable before anybody is told their place, and the tree only grows.
//!
//! | File | What | Read by |
//! |---|---|---|
//! | `checkpoint` | the head that everybody is shown, with the signatures of witnesses | the world |
//! | `tile/…` | hashes and entries as C2SP says | the world |
//! | `own/journal` | entries that came since, each with a check | this module |
//! | `own/journal-torn-…` | what power cuts left of records that nobody was told of | nobody |
//! | `own/signed` | the last head that was signed, shown or not | this module |
//! | `own/heads/<size>` | heads that were shown with cosignatures, one of each size | this module |
//! | `own/lock` | whoever holds it is the one that writes | this module |
//!
//! **Order of writing.** An entry goes to the journal and is synced: now it has its place, for good, and
//! [`Log::append`] returns; callers that come while the disk is busy share the next sync. [`Log::sign`] writes
//! tiles of all durable entries and syncs them, shows itself by a consistency proof from those very files that the tree goes
//! on from the last signed head, signs, and syncs the head to `own/signed`. Only then may it leave the house. [`Log::show`]
//! puts it at `checkpoint`. After a crash at any point the journal holds every entry that was acknowledged and is not
//! in tiles of a signed head; part of a record at its end was never acknowledged and is cut off. A whole record that does
//! not read is damage, not a crash: the log does not open, and nothing is removed. But a power cut may leave a file longer than
//! what was written of it: where no record reads from one on to the end, none of them is in a signed head, and none was
//! acknowledged as far as its owner knows ([`Log::open_known`]), they are moved to a file `own/journal-torn-…`, and the log goes on.
//!
//! **When writing fails** nothing more is accepted until the log is opened again: what a failed sync has left on the disk
//! is not known.

mod entry;
mod heads;
mod journal;
mod tree;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fivefold_core::proof::merkle::{self, Hash, Tree};
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::format::Newer;

use crate::checkpoint::{Authentic, Checkpoint, LogKey, Refused, Signed};
use crate::note::{Malformed, VKey};
use crate::tile::{Directory, FetchError, Tiles};
use crate::tlog_proof::TlogProof;
use heads::Heads;
use journal::Journal;

pub use entry::{ENTRY, Entry, EntryKind};
pub use journal::Aside;

/// Why a log does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody else writes to it.
    #[error("another process writes to the log in {}: end it first", .0.display())]
    Taken(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its journal has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The disk, while writing entries or tiles.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed before; what the disk holds is not known.
    #[error("writing to the log failed before: start again, so that it is read from the disk")]
    Stopped,
    /// A tile is missing or wrong.
    #[error(transparent)]
    Tile(#[from] FetchError),
    /// What stands on the disk is no log of this key.
    #[error("{path}: {source}", path = path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: Refused,
    },
    /// The journal is another log's, or begins after what the tiles hold.
    #[error("{path}: {reason}", path = path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: &'static str,
    },
    /// A record of the journal is not what was written: it may have been acknowledged, so nothing is cut off.
    #[error("{path} is damaged at byte {offset}: entry {entry} of the log does not read; nothing was removed, bring the file back from a copy", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Which entry of the log it was.
        entry: u64,
    },
    /// The tree does not go on from a head that was signed before (EV-05): nothing is signed.
    #[error("EV-05: the tree of {size} entries does not go on from the signed head of {before} entries: {source}")]
    Inconsistent {
        /// Entries of the head before.
        before: u64,
        /// Entries now.
        size: u64,
        /// What was wrong.
        source: merkle::NotProven,
    },
    /// There is no such entry or tree.
    #[error("the log has no entry {0} in a head of that size")]
    NoEntry(u64),
    /// A head cannot be written down.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Entries that are durable, and those that wait for the disk.
struct State {
    journal: Option<Journal>,
    waiting: Vec<Entry>,
    /// Entries that have a place: durable ones and `waiting`, and those that are just being written.
    placed: u64,
    durable: u64,
    /// Entries from `signed` on, all durable.
    fresh: Vec<Entry>,
    /// Those in tiles of a signed head.
    signed: u64,
    failed: bool,
}

/// A log that is open for writing. Shared by reference among threads.
pub struct Log {
    directory: PathBuf,
    key: LogKey,
    state: Mutex<State>,
    changed: Condvar,
    /// The tree at the last signed head, and that head. Held while tiles are written.
    head: Mutex<(Tree, Signed)>,
    heads: Mutex<Heads>,
    aside: Option<Aside>,
    _lock: File,
}

impl Log {
    /// Opens the log in `directory`, or begins one there. Its origin is the name of the key.
    ///
    /// # Errors
    /// [`LogError::Taken`] while another writes to it; others when what stands there is not a log of this key.
    pub fn open(directory: &Path, key: LogKey) -> Result<Self, LogError> {
        Self::open_known(directory, key, u64::MAX)
    }

    /// The same for an owner who knows that nobody was told the place of any entry from number `known` on, but by this log, and
    /// who appends those again: what a power cut left of them is moved aside ([`Log::aside`]).
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_known(directory: &Path, key: LogKey, known: u64) -> Result<Self, LogError> {
        let own = directory.join("own");
        files::create_folder(&own)?;
        let path = own.join("lock");
        let failed = |source| LogError::Write { path: path.clone(), source };
        let lock = files::open_or_create(&path, Readers::Everybody).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Taken(directory.into())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let signed = read_head(&own.join("signed"), key.vkey())?;
        let signed = match signed {
            Some(signed) => signed,
            // Nothing was ever signed: the empty head may be, for every tree goes on from it.
            None => {
                if directory.join("checkpoint").exists() {
                    let path = own.join("signed");
                    return Err(LogError::Journal { path, reason: "is missing, although a checkpoint is shown" });
                }
                // Where a signed head is, there is a journal; so that one comes first.
                Journal::create(&own.join("journal"), key.vkey().name(), 0)?;
                let signed = key.sign(&Checkpoint::empty(key.vkey().name()))?;
                files::write(&own.join("signed"), Readers::Owner, signed.to_string().as_bytes())?;
                signed
            }
        };
        let size = signed.unverified().size;
        let tiles = Tiles::new(Directory(directory.into()), size);
        let tree = tree::read(&tiles)?;
        if tree.root() != signed.unverified().root {
            let source = merkle::NotProven { reason: "the tiles have another root than the signed head" };
            return Err(LogError::Inconsistent { before: size, size, source });
        }
        let (journal, fresh, aside) = Journal::open(&own.join("journal"), key.vkey().name(), (size, known))?;
        let durable = size + fresh.len() as u64;
        let state = State {
            journal: Some(journal),
            waiting: Vec::new(),
            placed: durable,
            durable,
            fresh,
            signed: size,
            failed: false,
        };
        Ok(Self {
            directory: directory.into(),
            key,
            state: Mutex::new(state),
            changed: Condvar::new(),
            head: Mutex::new((tree, signed)),
            heads: Mutex::new(Heads::open(&own.join("heads"))?),
            aside,
            _lock: lock,
        })
    }

    /// The key to pin.
    pub const fn vkey(&self) -> &VKey {
        self.key.vkey()
    }

    /// What a power cut had left at the end of the journal, if it was moved aside when the log was opened.
    pub const fn aside(&self) -> Option<&Aside> {
        self.aside.as_ref()
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Entries that are durable.
    pub fn durable(&self) -> u64 {
        self.state().durable
    }

    /// Appends entries, side by side and in this order, and returns the place of the first when all of them are durable.
    /// Without entries it is the place that the next one gets. Calls that come while the disk is busy share one sync.
    ///
    /// # Errors
    /// [`LogError::Write`] when the disk failed, and [`LogError::Stopped`] ever after: whether these entries are in the log
    /// is then known only when it is opened again.
    pub fn append(&self, entries: &[Entry]) -> Result<u64, LogError> {
        let mut state = self.state();
        if state.failed {
            return Err(LogError::Stopped);
        }
        let first = state.placed;
        state.waiting.extend_from_slice(entries);
        state.placed += entries.len() as u64;
        let last = state.placed;
        loop {
            if state.durable >= last {
                return Ok(first);
            }
            if state.failed {
                return Err(LogError::Stopped);
            }
            // Who finds the journal writes for all that wait.
            let Some(mut journal) = state.journal.take() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let batch = std::mem::take(&mut state.waiting);
            drop(state);
            let written = journal.append(&batch);
            state = self.state();
            state.journal = Some(journal);
            match written {
                Ok(()) => {
                    state.durable += batch.len() as u64;
                    state.fresh.extend_from_slice(&batch);
                }
                Err(_) => state.failed = true,
            }
            self.changed.notify_all();
            written?;
        }
    }

    /// Writes the tiles of all durable entries and signs the head over them. It goes on from all that was signed before, or
    /// nothing is signed. Nobody is shown it yet; witnesses may be asked. Signed again without new entries it is the same.
    ///
    /// # Errors
    /// [`LogError::Inconsistent`] when the files on the disk are not what was signed before; otherwise the disk.
    pub fn sign(&self) -> Result<Signed, LogError> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let (tree, before) = &*head;
        let fresh = {
            let state = self.state();
            if state.failed {
                return Err(LogError::Stopped);
            }
            state.fresh.clone()
        };
        if fresh.is_empty() {
            return Ok(before.clone());
        }
        let grown = tree::write(&self.directory, tree, &fresh)?;
        let before = before.unverified();
        let next = Checkpoint {
            origin: before.origin.clone(),
            size: grown.size(),
            root: grown.root(),
            extensions: Vec::new(),
        };
        self.check_goes_on(before, &next)?;
        let signed = self.key.sign(&next)?;
        files::write(&self.directory.join("own/signed"), Readers::Owner, signed.to_string().as_bytes())?;
        *head = (grown, signed.clone());
        // Still under the lock: nobody else may take the same entries for fresh ones.
        self.forget(fresh.len(), next.size)?;
        Ok(signed)
    }

    /// Shows a head, with the signatures of witnesses that it has got.
    ///
    /// # Errors
    /// [`LogError::Head`] for one that this log has not signed; [`LogError::Inconsistent`] when what is shown now is not its
    /// beginning; otherwise the disk.
    pub fn show(&self, signed: &Signed) -> Result<(), LogError> {
        let path = self.directory.join("checkpoint");
        let refused = |source| LogError::Head { path: path.clone(), source };
        let head = signed.open(self.vkey()).map_err(refused)?.head();
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.shown()?;
        let before = before.as_ref().map(Signed::unverified);
        if let Some(before) = before {
            self.check_goes_on(before, head)?;
        }
        if signed.note().lines().len() > 1 {
            heads.keep(head.size, signed)?;
        }
        files::write(&path, Readers::Everybody, signed.to_string().as_bytes())?;
        tree::tidy(&self.directory, before.map_or(0, |before| before.size), head.size);
        Ok(())
    }

    /// Signs and shows, without asking a witness.
    ///
    /// # Errors
    /// Those of [`Log::sign`] and [`Log::show`].
    pub fn publish(&self) -> Result<Signed, LogError> {
        let signed = self.sign()?;
        // What is shown may have signatures of witnesses over the same head; those are worth more.
        match self.shown()? {
            Some(shown) if shown.unverified() == signed.unverified() => Ok(shown),
            _ => {
                self.show(&signed)?;
                Ok(signed)
            }
        }
    }

    /// The head that the world is shown, with its signatures.
    ///
    /// # Errors
    /// [`LogError::Head`] when the file is no head of this log.
    pub fn shown(&self) -> Result<Option<Signed>, LogError> {
        read_head(&self.directory.join("checkpoint"), self.vkey())
    }

    /// The smallest head that has entry `index`, was shown with a cosignature and is enough for the caller: its witnesses
    /// have seen the entry earliest. If none is, the one that is shown now.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] when no head that was shown has the entry.
    pub fn first_shown_with(&self, index: u64, enough: impl Fn(&Authentic<'_>) -> bool) -> Result<Signed, LogError> {
        let kept = self.heads.lock().unwrap_or_else(PoisonError::into_inner).with(index);
        for path in kept {
            let Some(signed) = read_head(&path, self.vkey())? else { continue };
            if signed.open(self.vkey()).is_ok_and(|authentic| enough(&authentic)) {
                return Ok(signed);
            }
        }
        self.shown()?.filter(|shown| shown.unverified().size > index).ok_or(LogError::NoEntry(index))
    }

    /// The path of entry `index` in the tree of the first `size` entries.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] when there is no such entry in a signed head.
    pub fn prove(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        let tiles = self.tiles();
        if index >= size || size > tiles.size() {
            return Err(LogError::NoEntry(index));
        }
        Ok(tiles.prove_inclusion(index, size)?)
    }

    /// That the first `size` entries are the beginning of the first `later`.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] when no signed head is as large.
    pub fn prove_consistency(&self, size: u64, later: u64) -> Result<Vec<Hash>, LogError> {
        let tiles = self.tiles();
        if size > later || later > tiles.size() {
            return Err(LogError::NoEntry(later));
        }
        Ok(tiles.prove_consistency(size, later)?)
    }

    /// The proof that entry `index` is in the log, under the given head.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] when the head has no such entry.
    pub fn tlog_proof(&self, index: u64, under: Signed) -> Result<TlogProof, LogError> {
        let path = self.prove(index, under.unverified().size)?;
        Ok(TlogProof { extra: None, index, path, checkpoint: under })
    }

    /// Entry `index`, if it is durable.
    ///
    /// # Errors
    /// [`LogError::Tile`] when its bundle cannot be read.
    pub fn entry(&self, index: u64) -> Result<Option<Entry>, LogError> {
        let signed = {
            let state = self.state();
            if let Some(at) = index.checked_sub(state.signed) {
                return Ok(usize::try_from(at).ok().and_then(|at| state.fresh.get(at)).copied());
            }
            state.signed
        };
        Ok(tree::entry(&self.directory, signed, index)?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tiles(&self) -> Tiles<Directory> {
        Tiles::new(Directory(self.directory.clone()), self.state().signed)
    }

    /// By the files on the disk alone.
    fn check_goes_on(&self, before: &Checkpoint, next: &Checkpoint) -> Result<(), LogError> {
        let inconsistent = |source| LogError::Inconsistent { before: before.size, size: next.size, source };
        if next.size < before.size {
            return Err(inconsistent(merkle::NotProven { reason: "it is shorter" }));
        }
        let tiles = Tiles::new(Directory(self.directory.clone()), next.size);
        if tiles.root(next.size)? != next.root {
            return Err(inconsistent(merkle::NotProven { reason: "the tiles lead to another root" }));
        }
        if before.size == 0 {
            return Ok(());
        }
        let proof = tiles.prove_consistency(before.size, next.size)?;
        merkle::verify_consistency(before.size, &before.root, next.size, &next.root, &proof).map_err(inconsistent)
    }

    /// Entries up to `size` are in tiles of a signed head: the journal need not hold them any more.
    fn forget(&self, count: usize, size: u64) -> Result<(), LogError> {
        let mut state = self.state();
        let fresh = &mut state.fresh;
        fresh.drain(..count.min(fresh.len()));
        state.signed = size;
        let mut journal = loop {
            match state.journal.take() {
                Some(journal) => break journal,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let rewritten = if journal.is_long() && !state.failed { journal.rewrite(size, &state.fresh) } else { Ok(()) };
        state.journal = Some(journal);
        state.failed |= rewritten.is_err();
        self.changed.notify_all();
        rewritten
    }
}

impl core::fmt::Debug for Log {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Log({:?} in {})", self.key, self.directory.display())
    }
}

/// A head in a file, if there is one; it must be of this key.
fn read_head(path: &Path, vkey: &VKey) -> Result<Option<Signed>, LogError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path: path.into(), source }.into()),
    };
    let refused = |source| LogError::Head { path: path.into(), source };
    let signed = Signed::parse(&bytes).map_err(|e| refused(e.into()))?;
    let _: Authentic<'_> = signed.open(vkey).map_err(refused)?;
    Ok(Some(signed))
}
