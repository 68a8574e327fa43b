//! What is said of a bundle, for programs: one JSON object for each reading. People get [`words`](crate::words).

use fivefold_core::proof::statement::SignedLevel;
use fivefold_core::reading::{Item, Number, Payload, Value as Said};
use serde::Serialize;

use super::{HeardBy, Proven, Refused, Step};
use crate::record::Made;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every step passed.
    Proven,
    /// One did not.
    Refused,
    /// These bytes are no bundle.
    Unreadable,
}

/// What a bundle proves, or why it does not. Of a refused one nothing is said that its bytes claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// The step that failed.
    pub step: Option<&'static str>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// Device, 16 hex digits.
    pub device: Option<String>,
    /// Its network, 8 hex digits, as it was enrolled.
    pub net: Option<String>,
    /// Its short id, 4 hex digits, as it was enrolled.
    pub sid: Option<String>,
    /// For whom it was sealed: 3 the cloud, 2 a gateway.
    pub level: Option<u8>,
    /// Key generation.
    pub epoch: Option<u16>,
    /// Boot, 16 hex digits, of a device that cannot store numbers.
    pub boot: Option<String>,
    /// The device's number of the reading: later ones are greater, within one epoch and boot.
    pub piv: Option<u64>,
    /// Number of the signed batch.
    pub batch: Option<u64>,
    /// Place of the reading in it, from 0.
    pub order: Option<u64>,
    /// Readings in it.
    pub of: Option<u64>,
    /// Which key signed, 16 hex digits: the first 8 bytes of SHA-256 over its SubjectPublicKeyInfo.
    pub key: Option<String>,
    /// Where the key was made, as the operator says: `unknown`, `device`, `secure-element`, `elsewhere`.
    pub key_made: Option<&'static str>,
    /// What the device said, hex.
    pub payload: Option<String>,
    /// The same, decoded.
    pub values: Vec<Value>,
    /// It existed before this time, Unix seconds.
    pub existed_before: Option<u64>,
    /// Who of the pinned witnesses cosigned.
    pub witnesses: Vec<Witness>,
    /// Names in signature lines of keys that are not pinned; nothing follows from them.
    pub ignored: Vec<String>,
    /// Gateways that say they heard it.
    pub heard: Vec<HeardBy>,
    /// Authorities that say when the checkpoint existed.
    pub timestamps: Vec<Stamped>,
    /// Timestamps that were not looked at, because the trust file names no authority.
    pub timestamps_unchecked: usize,
    /// When the key was revoked, Unix seconds, if it was after the witness time.
    pub revoked_later: Option<u64>,
    /// Number of the list of revoked keys that was looked at.
    pub revocation_list: Option<u64>,
    /// What is not proven, in sentences.
    pub not_proven: Vec<String>,
}

/// A witness that cosigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Its name.
    pub name: String,
    /// When it says it did, Unix seconds: the earliest of its cosignatures.
    pub time: u64,
    /// By ML-DSA-44 too.
    pub pq: bool,
}

/// A timestamp that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// Who made it: the subject of its certificate.
    pub authority: String,
    /// When, Unix seconds.
    pub at: u64,
    /// Whether its issuer's revocation list was there and did not name it.
    pub revocation_checked: bool,
}

/// One value of the reading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    /// Its name within the device; of a template whose definition is not there, `template <id>, column <n>`.
    pub name: String,
    /// Its unit.
    pub unit: Option<String>,
    /// What it is; `null` beside a sum.
    pub value: Option<Kept>,
    /// Its sum over time, in SenML.
    pub sum: Option<f64>,
}

/// A value, as JSON has it: bytes are hex.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Kept {
    /// True or false.
    Bool(bool),
    /// A float.
    Float(f64),
    /// An integer.
    Integer(i64),
    /// A text, or bytes in hex.
    Text(String),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Float(x) => x.fmt(f),
            Self::Integer(i) => i.fmt(f),
            // What a device says may hold anything; nothing of it moves a cursor.
            Self::Text(text) => text.escape_debug().fmt(f),
        }
    }
}

impl From<Said<'_>> for Kept {
    fn from(value: Said<'_>) -> Self {
        match value {
            Said::Bool(b) => Self::Bool(b),
            Said::Bytes(bytes) => Self::Text(hex::encode(bytes)),
            Said::Number(Number::Integer(i)) => Self::Integer(i),
            Said::Number(Number::Float(x)) => Self::Float(x),
            Said::Text(text) => Self::Text(text.into()),
        }
    }
}

impl Report {
    fn empty(verdict: Verdict) -> Self {
        Self {
            verdict,
            step: None,
            reason: None,
            device: None,
            net: None,
            sid: None,
            level: None,
            epoch: None,
            boot: None,
            piv: None,
            batch: None,
            order: None,
            of: None,
            key: None,
            key_made: None,
            payload: None,
            values: Vec::new(),
            existed_before: None,
            witnesses: Vec::new(),
            ignored: Vec::new(),
            heard: Vec::new(),
            timestamps: Vec::new(),
            timestamps_unchecked: 0,
            revoked_later: None,
            revocation_list: None,
            not_proven: Vec::new(),
        }
    }

    /// Of a bundle that proves nothing.
    pub fn refused(refused: &Refused) -> Self {
        let verdict = if refused.step == Step::Decode { Verdict::Unreadable } else { Verdict::Refused };
        Self { step: Some(refused.step.as_str()), reason: Some(refused.reason.clone()), ..Self::empty(verdict) }
    }

    /// Of one that does.
    pub fn proven(proven: &Proven<'_>) -> Self {
        let subject = proven.tbs.subject;
        let seen = proven.place.seen.iter();
        Self {
            device: Some(subject.did.to_string()),
            net: Some(proven.enrolment.net.to_string()),
            sid: Some(proven.enrolment.sid.to_string()),
            level: Some(match subject.level {
                SignedLevel::Cloud => 3,
                SignedLevel::Gateway => 2,
            }),
            epoch: Some(subject.epoch.0),
            boot: subject.bctx.map(|b| b.to_string()),
            piv: Some(proven.tbs.piv),
            batch: Some(proven.batch),
            order: Some(proven.order),
            of: Some(proven.of),
            key: Some(proven.key.to_string()),
            key_made: Some(proven.enrolment.made.as_str()),
            payload: Some(hex::encode(proven.tbs.payload)),
            values: values(proven),
            existed_before: Some(proven.place.time),
            witnesses: seen.map(|s| Witness { name: s.name.clone(), time: s.at, pq: s.is_pq }).collect(),
            ignored: proven.place.strangers.clone(),
            heard: proven.heard.clone(),
            timestamps: proven.stamps.clone(),
            timestamps_unchecked: proven.unchecked_stamps,
            revoked_later: proven.revoked,
            revocation_list: Some(proven.list),
            not_proven: not_proven(proven),
            ..Self::empty(Verdict::Proven)
        }
    }
}

/// The payload, decoded as far as it can be.
fn values(proven: &Proven<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    let Ok(Payload::Sequence(items)) = Payload::parse(proven.tbs.payload) else { return all };
    for item in items {
        match item {
            Item::Control(_) => {}
            Item::Senml(pack) => all.extend(pack.records().map(|r| Value {
                name: format!("{}{}", r.base_name, r.name),
                unit: r.unit.map(str::to_owned),
                value: r.value.map(Kept::from),
                sum: r.sum.map(Number::as_f64),
            })),
            Item::Template(row) => {
                let known = proven.template.as_ref().and_then(|d| d.resolve(&row).ok());
                match known {
                    Some(columns) => all.extend(columns.map(|(column, value)| Value {
                        name: column.name.into(),
                        unit: column.unit.map(str::to_owned),
                        value: Some(value.into()),
                        sum: None,
                    })),
                    None => all.extend(row.values().enumerate().filter_map(|(at, value)| {
                        let name = format!("template {}, column {}", row.id(), at + 1);
                        Some(Value { name, unit: None, value: Some(value?.into()), sum: None })
                    })),
                }
            }
        }
    }
    all
}

fn not_proven(proven: &Proven<'_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    all.push(match proven.enrolment.made {
        Made::InSecureElement => "that the key lives in a secure element is the operator's word".into(),
        Made::Elsewhere => {
            "that only the sensor had the key: it was made elsewhere, and whoever made it had it too".into()
        }
        Made::OnDevice | Made::Unknown => {
            "that the key lived only in the sensor: whoever opened it may have taken it out".into()
        }
    });
    all.push("where the sensor stood, that it was the thing measured, and that it measured rightly".into());
    all.push("when it was measured: it existed before the witness time, but for how long is not known".into());
    all.push("that a witness stands outside of the operator's control".into());
    all.push("that no newer list of revoked keys exists: only the log itself can tell".into());
    if !proven.heard.is_empty() {
        all.push("when a gateway heard it: that is what the gateway says".into());
        if proven.tbs.subject.level == SignedLevel::Cloud {
            let of_number = "that the message which a gateway heard under this number held this reading: sealed for the cloud, it \
                             shows its boot and number, and neither key generation nor content";
            all.push(of_number.into());
        }
    }
    if proven.unchecked_stamps > 0 {
        all.push("what its timestamps say: the trust file names no authority for them".into());
    }
    if has_unknown_columns(proven) {
        all.push("what the columns of its template mean: no definition that fits them is in the bundle".into());
    }
    all
}

fn has_unknown_columns(proven: &Proven<'_>) -> bool {
    let Ok(Payload::Sequence(mut items)) = Payload::parse(proven.tbs.payload) else { return false };
    items.any(|i| match i {
        Item::Template(row) => proven.template.as_ref().is_none_or(|d| d.resolve(&row).is_err()),
        Item::Control(_) | Item::Senml(_) => false,
    })
}
