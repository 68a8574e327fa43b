//! A monitor: reads a log's static files from outside, and says when it does not go on from what it showed before, or
//! when a witness has not been heard of for a day (EV-05).
//!
//! [`Monitor::look`] is one look at a log, [`check`] reads all of it.

use core::fmt;
use std::collections::BTreeMap;

use fivefold_core::error::Severity;
use fivefold_core::proof::merkle::{self, Hash, Tree};
use fivefold_keep::format::{self, Newer, Unread};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Refused, Signed};
use crate::log::{Entry, EntryKind};
use crate::note::{LONGEST_NOTE, Malformed, VKey};
use crate::tile::{self, Fetch, FetchError, TilePath, Tiles, WIDTH, What};

/// Seconds without a new cosignature of a witness after which it is missing.
pub const WITNESS_MISSING_S: u64 = 24 * 3600;

/// What a look has found. Each is EV-05.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Two heads that the log has signed cannot both be true: here is the proof.
    Fork {
        /// What it showed before.
        before: Box<Signed>,
        /// What it shows now.
        now: Box<Signed>,
        /// What was wrong.
        reason: String,
    },
    /// The log shows fewer entries than before, though none are changed.
    Shrunk {
        /// Entries before.
        before: u64,
        /// Entries now.
        now: u64,
    },
    /// Its files are not those of the head that it has signed.
    Tiles {
        /// What was wrong.
        reason: String,
    },
    /// No new cosignature of a witness for a day.
    WitnessMissing {
        /// Its name.
        name: String,
        /// The last one, or the first look at this log: unix time, seconds.
        since: u64,
    },
    /// A cosignature that says it is of a pinned witness does not hold.
    WitnessWrong {
        /// What was wrong.
        reason: String,
    },
}

impl Finding {
    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Fork { .. } | Self::Tiles { .. } | Self::WitnessWrong { .. } => Severity::Critical,
            Self::Shrunk { .. } | Self::WitnessMissing { .. } => Severity::Warning,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork { before, now, reason } => {
                let (before, now) = (before.unverified(), now.unverified());
                write!(
                    f,
                    "the log has forked: it signed {} entries under {} and {} entries under {}: {reason}",
                    before.size, before.root, now.size, now.root
                )
            }
            Self::Shrunk { before, now } => write!(f, "the log shows {now} entries, and showed {before} before"),
            Self::Tiles { reason } => write!(f, "the log's files are not those of its signed head: {reason}"),
            Self::WitnessMissing { name, since } => {
                write!(f, "no new cosignature of {name} for more than a day (since unix time {since})")
            }
            Self::WitnessWrong { reason } => write!(f, "{reason}"),
        }
    }
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A file of the log was not obtained.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What stands at `checkpoint` is not of this log: anybody may have put it there.
    #[error("the checkpoint is not believed: {0}")]
    Checkpoint(#[from] Refused),
}

/// It is not what a monitor wrote.
#[derive(Debug, thiserror::Error)]
pub enum NoMemory {
    /// It has a later format.
    #[error(transparent)]
    Newer(Newer),
    /// It is none.
    #[error("not what a monitor wrote")]
    Form,
}

impl From<Unread> for NoMemory {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Newer(newer) => Self::Newer(newer),
            Unread::Form(_) => Self::Form,
        }
    }
}

/// What a monitor remembers between looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The largest head seen, as a signed note.
    checkpoint: Option<String>,
    /// When a witness's newest cosignature was made, by its own word; of a witness that never was seen, the time of
    /// the first look. Unix time, seconds.
    witnesses: BTreeMap<String, u64>,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// It is no memory, or of a later format: to begin anew would forget what the log has shown.
    pub fn parse(text: &str) -> Result<Self, NoMemory> {
        Ok(format::from_toml("this memory of a monitor", text)?)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// What a look saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The head that the log shows.
    pub checkpoint: Signed,
    /// Witnesses whose cosignatures it has, and their times.
    pub witnesses: Vec<(String, u64)>,
    /// Names in lines that belong to no pinned key.
    pub strangers: Vec<String>,
    /// What was found; nothing when all is well.
    pub findings: Vec<Finding>,
}

/// Watches one log.
#[derive(Clone, Debug)]
pub struct Monitor {
    log: VKey,
    witnesses: Vec<VKey>,
    memory: Memory,
}

impl Monitor {
    /// Of a pinned log and its pinned witnesses, with what it remembers.
    ///
    /// # Errors
    /// [`MonitorError::Checkpoint`] when it remembers another log.
    pub fn new(log: VKey, witnesses: Vec<VKey>, memory: Memory) -> Result<Self, MonitorError> {
        let monitor = Self { log, witnesses, memory };
        if let Some(before) = monitor.remembered() {
            before.map_err(Refused::from)?.open(&monitor.log)?;
        }
        Ok(monitor)
    }

    /// What is to be kept, after each look.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Looks at the log at `now` (unix time, seconds). What it shows is remembered only if it goes on.
    ///
    /// # Errors
    /// [`MonitorError`] when nothing can be said: no answer, or a checkpoint that the log has not signed.
    pub fn look(&mut self, from: &impl Fetch, now: u64) -> Result<Look, MonitorError> {
        let checkpoint = read_checkpoint(from)?;
        let authentic = checkpoint.open(&self.log)?;
        let head = authentic.head();
        let mut findings = Vec::new();
        let mut grown = true;
        let before = self.remembered().transpose().map_err(Refused::from)?;
        if let Some(before) = before {
            let was = before.unverified();
            match goes_on(from, was.size.min(head.size), was.size.max(head.size), |small| {
                if small == was.size { (was.root, head.root) } else { (head.root, was.root) }
            }) {
                Ok(()) if head.size < was.size => {
                    findings.push(Finding::Shrunk { before: was.size, now: head.size });
                    grown = false;
                }
                Ok(()) => {}
                Err(Way::Fork(reason)) => {
                    grown = false;
                    findings.push(Finding::Fork {
                        before: Box::new(before.clone()),
                        now: Box::new(checkpoint.clone()),
                        reason: reason.to_string(),
                    });
                }
                Err(Way::Tiles(reason)) => {
                    grown = false;
                    findings.push(Finding::Tiles { reason });
                }
                Err(Way::Fetch(e)) => return Err(e.into()),
            }
        } else {
            match root(from, head.size) {
                Ok(root) if root == head.root => {}
                Ok(_) => findings.push(Finding::Tiles { reason: "the tiles lead to another root".into() }),
                Err(Way::Fetch(e)) => return Err(e.into()),
                Err(Way::Tiles(reason)) => findings.push(Finding::Tiles { reason }),
                Err(Way::Fork(_)) => {}
            }
            grown = findings.is_empty();
        }
        let mut witnesses: BTreeMap<String, u64> = BTreeMap::new();
        match authentic.cosigned(&self.witnesses) {
            Ok(all) => {
                for cosigned in all {
                    let at = witnesses.entry(cosigned.key.name().into()).or_default();
                    *at = (*at).max(cosigned.at);
                }
            }
            Err(e) => findings.push(Finding::WitnessWrong { reason: e.to_string() }),
        }
        for key in &self.witnesses {
            let seen = witnesses.get(key.name()).copied();
            let since = self.memory.witnesses.entry(key.name().into()).or_insert(seen.unwrap_or(now));
            // A time from the future would hide a witness that is missing.
            *since = (*since).max(seen.unwrap_or(0).min(now));
            let missing = Finding::WitnessMissing { name: key.name().into(), since: *since };
            if now.saturating_sub(*since) > WITNESS_MISSING_S && !findings.contains(&missing) {
                findings.push(missing);
            }
        }
        if grown {
            self.memory.checkpoint = Some(checkpoint.to_string());
        }
        let strangers = authentic.strangers(&self.log, &self.witnesses);
        let strangers = strangers.into_iter().map(Into::into).collect();
        Ok(Look { witnesses: witnesses.into_iter().collect(), strangers, findings, checkpoint })
    }

    fn remembered(&self) -> Option<Result<Signed, Malformed>> {
        self.memory.checkpoint.as_ref().map(|text| Signed::parse(text.as_bytes()))
    }
}

/// Reads the checkpoint of a log. Nothing of it is believed.
///
/// # Errors
/// [`FetchError`].
pub fn read_checkpoint(from: &impl Fetch) -> Result<Signed, FetchError> {
    let bytes = from.fetch("checkpoint")?;
    let malformed = |reason| FetchError::Malformed { path: "checkpoint".into(), reason };
    if bytes.len() > LONGEST_NOTE {
        return Err(malformed(Malformed("a note longer than 256 KiB")));
    }
    Signed::parse(&bytes).map_err(malformed)
}

enum Way {
    Fetch(FetchError),
    Fork(merkle::NotProven),
    Tiles(String),
}

impl From<FetchError> for Way {
    fn from(e: FetchError) -> Self {
        match e {
            FetchError::Failed { .. } => Self::Fetch(e),
            // It has signed that it has them.
            e => Self::Tiles(e.to_string()),
        }
    }
}

fn root(from: &impl Fetch, size: u64) -> Result<Hash, Way> {
    Ok(Tiles::new(from, size).root(size)?)
}

/// That the first `small` entries are the beginning of the first `large`, by the log's tiles. A fork is one only if both
/// heads can be told apart by the tiles: if the tiles are not those of the larger head, they are wrong.
fn goes_on(from: &impl Fetch, small: u64, large: u64, roots: impl Fn(u64) -> (Hash, Hash)) -> Result<(), Way> {
    let (root, later) = roots(small);
    if small == large {
        let wrong = merkle::NotProven { reason: "two roots over as many entries" };
        return if root == later { Ok(()) } else { Err(Way::Fork(wrong)) };
    }
    if small == 0 {
        let wrong = merkle::NotProven { reason: "an empty tree has another root" };
        return if root == Hash::of_nothing() { Ok(()) } else { Err(Way::Fork(wrong)) };
    }
    let tiles = Tiles::new(from, large);
    let proof = tiles.prove_consistency(small, large)?;
    match merkle::verify_consistency(small, &root, large, &later, &proof) {
        Ok(()) => Ok(()),
        Err(reason) if tiles.root(large)? == later => Err(Way::Fork(reason)),
        Err(_) => Err(Way::Tiles("the tiles lead to another root".into())),
    }
}

/// What a reading of a whole log has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries of each kind.
    pub entries: BTreeMap<&'static str, u64>,
    /// Entries that are none of ours.
    pub others: u64,
    /// Tiles with hashes that were read.
    pub tiles: u64,
    /// Entries of the operator's log, with their places.
    pub operator: Vec<(u64, Entry)>,
}

/// Why a whole log is not what its head says.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file was not obtained, or is not what its name says.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The checkpoint is not of this log.
    #[error("the checkpoint is not believed: {0}")]
    Checkpoint(#[from] Refused),
    /// An entry is not the one that its hash stands for.
    #[error("entry {0} is not the one whose hash stands in the tile")]
    Entry(u64),
    /// A hash in a tile is not the root of the tile below it.
    #[error("{0}: a hash is not the root of the tile below it")]
    Tile(String),
    /// The tree has another root than the signed head.
    #[error("the entries have another root than the signed head")]
    Root,
    /// A head from before is not the beginning of this one.
    #[error("EV-05: the log does not go on from the head of {size} entries: {reason}")]
    Fork {
        /// Entries of that head.
        size: u64,
        /// What was wrong.
        reason: &'static str,
    },
}

/// Reads all entries and tiles of a log, and believes nothing but the key: every entry against its hash, every hash
/// against the tile below, the root against the head, and that `before` (heads from before, in any order) are its beginnings.
///
/// # Errors
/// [`CheckError`] with the first thing that is wrong.
pub fn check(from: &impl Fetch, log: &VKey, before: &[Signed]) -> Result<(Signed, Checked), CheckError> {
    let checkpoint = read_checkpoint(from)?;
    let size = checkpoint.open(log)?.head().size;
    let mut checked = Checked::default();
    let mut tree = Tree::new();
    let mut earlier: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
    for signed in before {
        let head = signed.open(log)?.head();
        if head.size > size {
            return Err(CheckError::Fork { size: head.size, reason: "the log has fewer entries now" });
        }
        earlier.entry(head.size).or_default().push(head.root);
    }
    let agree = |tree: &Tree| match earlier.get(&tree.size()) {
        Some(roots) if roots.iter().any(|root| *root != tree.root()) => {
            Err(CheckError::Fork { size: tree.size(), reason: "it had other entries then" })
        }
        _ => Ok(()),
    };
    agree(&tree)?;
    // The roots of full tiles, level by level.
    let mut roots: Vec<Hash> = Vec::new();
    for index in 0..size.div_ceil(WIDTH) {
        let Some(path) = TilePath::within(size, What::Hashes(0), index) else { break };
        let hashes = tile::fetch_hashes(from, path)?;
        let entries = tile::fetch_entries(from, index, path.width)?;
        checked.tiles += 1;
        for (entry, hash) in entries.iter().zip(&hashes) {
            if Hash::of_leaf([entry]) != *hash {
                return Err(CheckError::Entry(tree.size()));
            }
            match Entry::parse(entry).ok().and_then(|entry| Some((entry, entry.kind()?))) {
                Some((entry, kind)) => {
                    *checked.entries.entry(kind.name()).or_default() += 1;
                    if kind == EntryKind::Operator {
                        checked.operator.push((tree.size(), entry));
                    }
                }
                None => checked.others += 1,
            }
            tree.append(*hash);
            agree(&tree)?;
        }
        if path.is_full() {
            roots.push(merkle::root(&hashes));
        }
    }
    for level in 1..64u8 {
        let mut above = Vec::new();
        for (index, below) in (0..).zip(roots.chunks(WIDTH as usize)) {
            let Some(path) = TilePath::within(size, What::Hashes(level), index) else { break };
            if tile::fetch_hashes(from, path)? != below {
                return Err(CheckError::Tile(path.to_string()));
            }
            checked.tiles += 1;
            if path.is_full() {
                above.push(merkle::root(below));
            }
        }
        if above.is_empty() {
            break;
        }
        roots = above;
    }
    if tree.size() != size || tree.root() != checkpoint.unverified().root {
        return Err(CheckError::Root);
    }
    Ok((checkpoint, checked))
}
