//! # The trust file: what a stranger believes before anything is shown
//!
//! ```toml
//! [operator]
//! ca = ["-----BEGIN CERTIFICATE-----..."]   # who may say whose key it is
//! [log]
//! vkey = "fivefold.1a2b3c4d/log+..."        # the log's key (C2SP signed-note)
//! [witnesses]
//! need = 2                                  # how many of them must have cosigned
//! pq_need = 1                               # and how many of those by ML-DSA-44; 0 if it is not here
//! vkeys = ["...", "...", "..."]
//! [timestamps]                              # optional
//! ca = ["-----BEGIN CERTIFICATE-----..."]   # authorities of RFC 3161 timestamps
//! ```
//!
//! It is not secret, and whoever can change it decides what is proven: it comes to the stranger by another way than the
//! bundle does. Keys of one name are one witness, which counts once.
//!
//! Spec: docs/evidence.md 6.

use std::collections::BTreeSet;
use std::str::FromStr;

use fivefold_keep::format;
use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem;

use crate::chain::Anchor;
use crate::cosignature::Rule;
use crate::note::{Kind, VKey};

/// Bytes of a trust file, at most.
pub const BYTES: usize = 1 << 20;
/// Keys or certificates in one list, at most.
const MOST: usize = 64;

/// What is believed: keys and certificates, and how many witnesses it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Who may say whose key it is.
    pub operators: Vec<Anchor>,
    /// The log.
    pub log: VKey,
    /// Who must have cosigned.
    pub rule: Rule,
    /// Who may say what time it was; nobody, if timestamps are not asked for.
    pub timestamps: Vec<Anchor>,
}

/// What is wrong with a trust file: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTrust {
    /// It is no TOML, or lacks something, or has something more.
    #[error("the trust file cannot be read: {0}")]
    Form(String),
    /// Larger than [`BYTES`].
    #[error("the trust file is larger than 1 MiB")]
    TooLarge,
    /// A list without entries.
    #[error("the trust file names nobody in {0}; one is needed at least")]
    Nobody(&'static str),
    /// A list with too many entries.
    #[error("the trust file names more than 64 in {0}")]
    TooMany(&'static str),
    /// A certificate that is none.
    #[error("{place} number {number} is no certificate of an authority: {why}")]
    Certificate {
        /// Where it stands.
        place: &'static str,
        /// From 1.
        number: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key that is none.
    #[error("{place} `{shown}` is no key of its kind: {why}")]
    Key {
        /// Where it stands.
        place: &'static str,
        /// Its beginning.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key twice, or that of the log as a witness.
    #[error("the key `{0}` stands in the trust file twice; each witness counts once, and the log is none of its own")]
    Doubled(String),
    /// Fewer than one, or more than there are.
    #[error(
        "witnesses.need is {need}, but it must be 1 at least, and at most the number of witnesses in witnesses.vkeys, {there}"
    )]
    Need {
        /// What it is.
        need: u64,
        /// What there is.
        there: usize,
    },
    /// More than there are, or more than are needed.
    #[error("witnesses.pq_need is {need}, but only {there} of the witnesses have an ML-DSA-44 key")]
    PqNeed {
        /// What it is.
        need: u64,
        /// How many there are.
        there: usize,
    },
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    operator: Authorities,
    log: LogWritten,
    witnesses: WitnessesWritten,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamps: Option<Authorities>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorities {
    ca: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogWritten {
    vkey: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessesWritten {
    need: u64,
    #[serde(default)]
    pq_need: u64,
    vkeys: Vec<String>,
}

impl FromStr for Trust {
    type Err = NotTrust;

    fn from_str(text: &str) -> Result<Self, NotTrust> {
        if text.len() > BYTES {
            return Err(NotTrust::TooLarge);
        }
        let file: Written = format::from_toml("it", text).map_err(|e| NotTrust::Form(e.message()))?;
        let operators = anchors(&file.operator.ca, "operator.ca")?;
        let log = key(&file.log.vkey, "log.vkey", &[Kind::Log])?;
        counted(file.witnesses.vkeys.len(), "witnesses.vkeys")?;
        let mut witnesses: Vec<VKey> = Vec::new();
        for text in &file.witnesses.vkeys {
            let witness = key(text, "witnesses.vkeys", &[Kind::Witness, Kind::WitnessPq])?;
            let is_known = |k: &VKey| k.public() == witness.public();
            if witnesses.iter().any(is_known) || is_known(&log) {
                return Err(NotTrust::Doubled(witness.name().into()));
            }
            witnesses.push(witness);
        }
        // Keys of one name are one witness.
        let names = |keys: &mut dyn Iterator<Item = &VKey>| keys.map(VKey::name).collect::<BTreeSet<_>>().len();
        let there = names(&mut witnesses.iter());
        let need = usize::try_from(file.witnesses.need).ok().filter(|n| (1..=there).contains(n));
        let need = need.ok_or(NotTrust::Need { need: file.witnesses.need, there })?;
        let there = names(&mut witnesses.iter().filter(|k| k.kind() == Kind::WitnessPq));
        let pq_need = usize::try_from(file.witnesses.pq_need).ok().filter(|n| *n <= there);
        let pq_need = pq_need.ok_or(NotTrust::PqNeed { need: file.witnesses.pq_need, there })?;
        let timestamps = file.timestamps.map_or(Ok(Vec::new()), |t| anchors(&t.ca, "timestamps.ca"))?;
        let rule = Rule::new(witnesses, need, pq_need).map_err(|e| NotTrust::Form(e.to_string()))?;
        Ok(Self { operators, log, rule, timestamps })
    }
}

/// Writes a trust file: certificates in PEM, keys as C2SP writes them.
///
/// # Errors
/// [`NotTrust`], when what is written could not be read again.
pub fn write(
    operators: &[String],
    log: &VKey,
    witnesses: &[VKey],
    (need, pq_need): (usize, usize),
    timestamps: &[String],
) -> Result<String, NotTrust> {
    let file = Written {
        operator: Authorities { ca: operators.to_vec() },
        log: LogWritten { vkey: log.to_string() },
        witnesses: WitnessesWritten {
            need: need as u64,
            pq_need: pq_need as u64,
            vkeys: witnesses.iter().map(VKey::to_string).collect(),
        },
        timestamps: (!timestamps.is_empty()).then(|| Authorities { ca: timestamps.to_vec() }),
    };
    let text = toml::to_string_pretty(&file).map_err(|e| NotTrust::Form(e.to_string()))?;
    text.parse::<Trust>()?;
    Ok(text)
}

fn counted(n: usize, place: &'static str) -> Result<(), NotTrust> {
    match n {
        0 => Err(NotTrust::Nobody(place)),
        1..=MOST => Ok(()),
        _ => Err(NotTrust::TooMany(place)),
    }
}

fn anchors(pems: &[String], place: &'static str) -> Result<Vec<Anchor>, NotTrust> {
    counted(pems.len(), place)?;
    let read = |(at, pem): (usize, &String)| {
        let wrong = |why| NotTrust::Certificate { place, number: at + 1, why };
        anchor(pem).map_err(wrong)
    };
    pems.iter().enumerate().map(read).collect()
}

/// One certificate in PEM, and nothing after it.
fn anchor(pem: &str) -> Result<Anchor, &'static str> {
    let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
    let (first, more) = (blocks.next(), blocks.next());
    let pem = first.ok_or("it has no block of PEM")?.map_err(|_| "it is not PEM")?;
    if more.is_some() {
        return Err("it has more than one block of PEM");
    }
    if pem.label != "CERTIFICATE" {
        return Err("it is another kind of PEM");
    }
    Anchor::from_der(&pem.contents)
}

fn key(text: &str, place: &'static str, kinds: &[Kind]) -> Result<VKey, NotTrust> {
    let wrong = |why: String| NotTrust::Key { place, shown: text.chars().take(40).collect(), why };
    let key: VKey = text.parse().map_err(|e: crate::note::Malformed| wrong(e.to_string()))?;
    if !kinds.contains(&key.kind()) {
        let why = match key.kind() {
            Kind::Log => "it is the key of a log, not of a witness",
            Kind::Witness | Kind::WitnessPq => "it is the key of a witness, not of a log",
        };
        return Err(wrong(why.into()));
    }
    Ok(key)
}
