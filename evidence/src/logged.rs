//! Whether something stands in the pinned log, and when enough witnesses had seen that.

use fivefold_core::suite::sha256;

use crate::checkpoint::Signed;
use crate::log::{Entry, EntryKind};
use crate::note::Kind;
use crate::tlog_proof::TlogProof;
use crate::trust::Trust;
use crate::verify::Verifier;

/// A place in the log that enough witnesses saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the entry.
    pub(crate) index: u64,
    /// Entries of the checkpoint.
    pub(crate) size: u64,
    /// Who of the pinned witnesses cosigned, and when (Unix seconds).
    pub(crate) seen: Vec<Seen>,
    /// When as many as are needed had, Unix seconds.
    pub(crate) time: u64,
    /// Names in lines of keys that are not pinned: nothing follows from them.
    pub(crate) strangers: Vec<String>,
    /// SHA-256 of the signed note.
    pub(crate) note: [u8; 32],
}

/// A witness that cosigned: when first, and whether by ML-DSA-44 too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) at: u64,
    pub(crate) is_pq: bool,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It is not in the log, or the log has not signed it.
    Log(String),
    /// Not enough witnesses saw it.
    Witnesses(String),
}

impl Unproven {
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Log(why) | Self::Witnesses(why) => why,
        }
    }
}

/// Checks that the hash of `record` is an entry of the pinned log, and that enough of the pinned witnesses saw it.
pub(crate) fn check(kind: EntryKind, record: &[u8], proof: &str, by: &Verifier<'_>) -> Result<Place, Unproven> {
    let log = |why: String| Unproven::Log(why);
    let read = TlogProof::parse(proof.as_bytes()).map_err(|e| log(e.to_string()))?;
    if read.extra.is_some() {
        return Err(log("the proof carries data that nobody signed".into()));
    }
    if read.to_string() != proof {
        return Err(log("the proof is not written in its one form".into()));
    }
    read.leads_from(Entry::of(kind, record).as_bytes())
        .map_err(|e| log(format!("the entry is not in this tree: {e}")))?;
    let checkpoint = read.checkpoint.to_string();
    let place = by.places.or(checkpoint, |text| witnessed(&read.checkpoint, text, by.trust))?;
    Ok(Place { index: read.index, ..place })
}

/// A checkpoint that is the pinned log's, and that enough of the pinned witnesses saw: the place of its first entry.
fn witnessed(checkpoint: &Signed, text: &str, trust: &Trust) -> Result<Place, Unproven> {
    let log = |why: String| Unproven::Log(why);
    let authentic = checkpoint.open(&trust.log).map_err(|e| log(e.to_string()))?;
    let lines = || checkpoint.note().lines().iter();
    let mut pinned = std::iter::once(&trust.log).chain(trust.rule.keys());
    if pinned.any(|key| lines().filter(|line| key.wrote(line)).count() > 1) {
        return Err(log("a pinned key signed the checkpoint twice".into()));
    }
    let witnessed = trust.rule.check(&authentic).map_err(|e| Unproven::Witnesses(e.to_string()))?;
    // Every line of a pinned key holds, once there is a rule that is met.
    let by_pq = |name: &str| {
        let mut keys = trust.rule.keys().iter().filter(|k| k.kind() == Kind::WitnessPq && k.name() == name);
        keys.any(|key| lines().any(|line| key.wrote(line)))
    };
    let seen = witnessed.witnesses.into_iter().map(|(name, at)| Seen { is_pq: by_pq(&name), name, at }).collect();
    let strangers = authentic.strangers(&trust.log, trust.rule.keys()).into_iter().map(str::to_owned).collect();
    let note = sha256(&[text.as_bytes()]);
    Ok(Place { index: 0, size: authentic.head().size, seen, time: witnessed.at, strangers, note })
}
