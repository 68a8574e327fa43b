//! Whether something stands in the pinned log, and when enough witnesses had seen that.

use fivefold_core::suite::sha256;

use crate::note::Kind;
use crate::tlog_proof::{NotIncluded, TlogProof};
use crate::trust::Trust;

/// What an entry is about, as its first two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Batch,
    Configured,
    Enrolment,
    Receipt,
    Revocations,
}

impl Of {
    const fn letters(self) -> &'static [u8; 2] {
        match self {
            Self::Batch => b"b1",
            Self::Configured => b"cf",
            Self::Enrolment => b"en",
            Self::Receipt => b"g1",
            Self::Revocations => b"rv",
        }
    }
}

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
pub(crate) fn check(of: Of, record: &[u8], proof: &str, trust: &Trust) -> Result<Place, Unproven> {
    let log = |why: String| Unproven::Log(why);
    let read = TlogProof::parse(proof.as_bytes()).map_err(|e| log(e.to_string()))?;
    if read.extra.is_some() {
        return Err(log("the proof carries data that nobody signed".into()));
    }
    if read.to_string() != proof {
        return Err(log("the proof is not written in its one form".into()));
    }
    let [a, b] = *of.letters();
    let mut entry = [0; 34];
    entry.iter_mut().zip([a, b].into_iter().chain(sha256(&[record]))).for_each(|(e, byte)| *e = byte);
    let authentic = read.verify(&entry, &trust.log).map_err(|e| match e {
        NotIncluded::Checkpoint(e) => log(e.to_string()),
        NotIncluded::Path(e) => log(format!("the entry is not in this tree: {e}")),
    })?;
    let mut pinned = std::iter::once(&trust.log).chain(&trust.witnesses);
    if pinned.any(|key| read.checkpoint.note().lines().iter().filter(|line| key.wrote(line)).count() > 1) {
        return Err(log("a pinned key signed the checkpoint twice".into()));
    }
    let cosigned = authentic.cosigned(&trust.witnesses).map_err(|e| Unproven::Witnesses(e.to_string()))?;
    // Keys of one name are one witness.
    let mut seen: Vec<Seen> = Vec::new();
    for c in &cosigned {
        let is_pq = c.key.kind() == Kind::WitnessPq;
        match seen.iter_mut().find(|s| s.name == c.key.name()) {
            Some(s) => (s.at, s.is_pq) = (s.at.min(c.at), s.is_pq | is_pq),
            None => seen.push(Seen { name: c.key.name().into(), at: c.at, is_pq }),
        }
    }
    let (there, pq) = (seen.len(), seen.iter().filter(|s| s.is_pq).count());
    let mut times: Vec<u64> = seen.iter().map(|s| s.at).collect();
    times.sort_unstable();
    let time = times
        .get(trust.need.saturating_sub(1))
        .copied()
        .ok_or_else(|| Unproven::Witnesses(format!("{there} of the pinned witnesses cosigned, {} must", trust.need)))?;
    if pq < trust.pq_need {
        let need = trust.pq_need;
        return Err(Unproven::Witnesses(format!("{pq} of the pinned witnesses cosigned by ML-DSA-44, {need} must")));
    }
    let strangers = authentic.strangers(&trust.log, &trust.witnesses).into_iter().map(str::to_owned).collect();
    let note = sha256(&[read.checkpoint.to_string().as_bytes()]);
    Ok(Place { index: read.index, size: authentic.head().size, seen, time, strangers, note })
}
