//! Proofs of inclusion as text (C2SP `tlog-proof`): an entry's place, the path to the root, and the checkpoint with all
//! its signatures. It stands by itself: whoever has pinned the log's key and its witnesses needs nothing else.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::proof::merkle::{self, Hash};

use crate::checkpoint::{Authentic, Refused, Signed};
use crate::note::{self, LONGEST_NOTE, Malformed, VKey};

/// Its first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Hashes, at most: a tree has fewer than 2^63 leaves.
const LONGEST_PATH: usize = 63;
/// Bytes of extra data, at most.
const LONGEST_EXTRA: usize = 64 * 1024;

/// A proof whose shape is checked; nothing of it is believed before [`TlogProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Data that nobody has signed. Ours has none.
    pub extra: Option<Vec<u8>>,
    /// The entry's place in the log, from 0.
    pub index: u64,
    /// The path, leaf side first.
    pub path: Vec<Hash>,
    /// The checkpoint.
    pub checkpoint: Signed,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIncluded {
    /// Its checkpoint is not believed.
    #[error(transparent)]
    Checkpoint(#[from] Refused),
    /// The path does not lead from the entry to the root.
    #[error("the entry is not shown to be in the log: {0}")]
    Path(merkle::NotProven),
}

impl TlogProof {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LONGEST_NOTE + LONGEST_EXTRA * 2 {
            return Err(Malformed("a proof is longer than any can be"));
        }
        let text = core::str::from_utf8(bytes).map_err(|_| Malformed("a proof is not UTF-8"))?;
        let mut rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n'));
        let mut next = || {
            let (line, after) = rest?.split_once('\n')?;
            rest = Some(after);
            Some(line)
        };
        let mut line = next().ok_or(Malformed("the first line is not c2sp.org/tlog-proof@v1"))?;
        let mut extra = None;
        if let Some(data) = line.strip_prefix("extra ") {
            let data = STANDARD.decode(data).map_err(|_| Malformed("the extra data is not base64"))?;
            if data.len() > LONGEST_EXTRA {
                return Err(Malformed("the extra data is longer than 64 KiB"));
            }
            extra = Some(data);
            line = next().unwrap_or_default();
        }
        let index = line.strip_prefix("index ").ok_or(Malformed("the index line is missing"))?;
        let index = note::decimal(index)?;
        let mut path = Vec::new();
        loop {
            match next().ok_or(Malformed("the empty line before the checkpoint is missing"))? {
                "" => break,
                _ if path.len() == LONGEST_PATH => return Err(Malformed("a path is longer than any can be")),
                line => path.push(Hash(note::hash(line)?)),
            }
        }
        let checkpoint = Signed::parse(rest.unwrap_or_default().as_bytes())?;
        Ok(Self { extra, index, path, checkpoint })
    }

    /// Believes it if `log` has signed its checkpoint and `entry` is where it says.
    ///
    /// # Errors
    /// [`NotIncluded`] with what was wrong.
    pub fn verify(&self, entry: &[u8], log: &VKey) -> Result<Authentic<'_>, NotIncluded> {
        let authentic = self.checkpoint.open(log)?;
        self.leads_from(entry).map_err(NotIncluded::Path)?;
        Ok(authentic)
    }

    /// That `entry` is where it says in the tree of its checkpoint, which nobody may have signed.
    pub(crate) fn leads_from(&self, entry: &[u8]) -> Result<(), merkle::NotProven> {
        let head = self.checkpoint.unverified();
        merkle::verify_inclusion(&Hash::of_leaf([entry]), self.index, head.size, &self.path, &head.root)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", note::hash_text(&hash.0)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
