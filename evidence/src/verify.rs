//! # The verifier: from a bundle to a verdict, step by step
//!
//! | Step | Refused when |
//! |---|---|
//! | `decode` | the bytes are no bundle at all: the one step after which nothing is known (`unreadable`) |
//! | `leaf` | item 2 is not `["r1", ..]` |
//! | `path` | item 3 does not lead from the leaf to the root of the statement |
//! | `statement` | item 4 is no COSE_Sign1 with a statement, or level, device, epoch, boot or number are others than those of the leaf |
//! | `signature` | the key of the first certificate of item 5 has not signed the statement |
//! | `chain` | item 5 does not lead to a pinned authority, or is not for this device |
//! | `enrolment` | item 6 is of another device or key, or not in the log |
//! | `policy` | item 11 is of another device, or not in the log; item 8 is not what it says, or of no template in the reading |
//! | `log` | item 7 does not prove the batch to be in the pinned log |
//! | `witnesses` | fewer than k of the pinned witnesses cosigned it, or one of their lines does not hold |
//! | `revocation` | item 10 is not in the log, older than item 7, or says that the key was revoked before the witness time; or item 5 was not valid then |
//! | `receipts` | one of item 9 is not signed, certified, logged, or not about this reading |
//! | `timestamps` | one of item 12 does not hold, although the trust file names authorities |
//!
//! All must pass. There is no network and no clock: the same bytes and the same trust give the same answer for ever.
//!
//! Spec: docs/protocol.md 13.3, docs/evidence.md 7.

mod heard;
mod report;
mod verifier;

pub use heard::{HeardBy, is_about};
pub use report::{Kept, Report, Stamped, Value, Verdict, Witness};
pub use verifier::Verifier;

use fivefold_core::id::{Did, Epoch, Net, Sid};
use fivefold_core::proof::merkle::{Hash, verify_inclusion};
use fivefold_core::proof::statement::{CONTEXT, Statement, Subject};
use fivefold_core::proof::{KeyName, Sign1, SignAlg};
use fivefold_core::reading::Definition;
use fivefold_core::suite::sha256;
use fivefold_core::wire::cbor::{Major, Malformed, Reader};

use crate::bundle::Bundle;
use crate::chain::{Certified, Whom};
use crate::der::{self, NotDer};
use crate::log::EntryKind;
use crate::logged::{self, Place, Unproven};
use crate::record::{Configured, Enrolment, Revocations};
use crate::timestamp;
use crate::trust::Trust;

/// A step of the verifier, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The bytes are read.
    Decode,
    /// The leaf is made.
    Leaf,
    /// It leads to the root of the batch.
    Path,
    /// The statement is about this reading.
    Statement,
    /// The key signed it.
    Signature,
    /// The operator says whose key it is.
    Chain,
    /// The log says so too.
    Enrolment,
    /// What the device had to do, and what its columns mean.
    Policy,
    /// The batch is in the log.
    Log,
    /// Witnesses saw it.
    Witnesses,
    /// The key was not revoked.
    Revocation,
    /// Gateways heard it.
    Receipts,
    /// Others say what time it was.
    Timestamps,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 13] = [
        Self::Decode,
        Self::Leaf,
        Self::Path,
        Self::Statement,
        Self::Signature,
        Self::Chain,
        Self::Enrolment,
        Self::Policy,
        Self::Log,
        Self::Witnesses,
        Self::Revocation,
        Self::Receipts,
        Self::Timestamps,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Leaf => "leaf",
            Self::Path => "path",
            Self::Statement => "statement",
            Self::Signature => "signature",
            Self::Chain => "chain",
            Self::Enrolment => "enrolment",
            Self::Policy => "policy",
            Self::Log => "log",
            Self::Witnesses => "witnesses",
            Self::Revocation => "revocation",
            Self::Receipts => "receipts",
            Self::Timestamps => "timestamps",
        }
    }
}

/// Why a bundle does not prove its reading: the first step that failed, and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", step.as_str())]
pub struct Refused {
    /// Which step.
    pub step: Step,
    /// Why, for a person.
    pub reason: String,
}

impl Step {
    fn refused(self, reason: impl Into<String>) -> Refused {
        Refused { step: self, reason: reason.into() }
    }

    fn malformed(self, reason: Malformed) -> Refused {
        self.refused(reason.reason)
    }
}

/// What a bundle proves. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Proven<'b> {
    pub(crate) tbs: Tbs<'b>,
    pub(crate) batch: u64,
    pub(crate) order: u64,
    pub(crate) of: u64,
    pub(crate) enrolment: Enrolment<'b>,
    pub(crate) key: KeyName,
    pub(crate) place: Place,
    pub(crate) template: Option<Definition<'b>>,
    pub(crate) revoked: Option<u64>,
    pub(crate) list: u64,
    pub(crate) heard: Vec<HeardBy>,
    pub(crate) stamps: Vec<Stamped>,
    pub(crate) unchecked_stamps: usize,
}

/// What was signed of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tbs<'b> {
    pub(crate) subject: Subject,
    pub(crate) piv: u64,
    pub(crate) payload: &'b [u8],
}

/// Reads all bundles of a file and says of each what it proves. A file that cannot be read to its end is one answer.
pub fn verify_file(file: &[u8], trust: &Trust) -> Vec<Report> {
    Verifier::new(trust).file(file)
}

/// Goes through all steps.
///
/// # Errors
/// The first that fails.
pub fn verify<'b>(bundle: &Bundle<'b>, trust: &Trust) -> Result<Proven<'b>, Refused> {
    through(bundle, &Verifier::new(trust))
}

fn through<'b>(bundle: &Bundle<'b>, by: &Verifier<'_>) -> Result<Proven<'b>, Refused> {
    let tbs = Tbs::parse(bundle.tbs).map_err(|e| Step::Leaf.malformed(e))?;
    let leaf = Hash::of_leaf([&bundle.salt.0, bundle.tbs]);

    let signed = Sign1::parse(bundle.signed).map_err(|e| Step::Statement.malformed(e))?;
    let statement = Statement::parse(signed.danger_payload()).map_err(|e| Step::Statement.malformed(e))?;
    let path = &bundle.path;
    verify_inclusion(&leaf, path.index, path.size, &path.hashes, &statement.root)
        .map_err(|e| Step::Path.refused(e.reason))?;
    agree(&tbs, &statement, path.index, path.size).map_err(|reason| Step::Statement.refused(reason))?;

    let first = bundle.chain.first().copied().unwrap_or_default();
    let spki = der::spki_of(first).map_err(|NotDer| Step::Chain.refused("a certificate cannot be read"))?;
    if signed.header.alg == SignAlg::Ps256 && !is_classic_frame(tbs.payload, tbs.subject.did) {
        return Err(Step::Signature.refused("RSA is for classic nodes, and the reading is no frame of this one"));
    }
    by.signed(bundle.signed, spki, CONTEXT).map_err(|reason| Step::Signature.refused(reason))?;

    let did = tbs.subject.did;
    let certified = by.certified(&bundle.chain, Whom::Device(did)).map_err(|reason| Step::Chain.refused(reason))?;
    let enrolment = enrolled(bundle, did, &certified, by)?;
    let template = configured(bundle, &tbs, by)?;

    let place = logged::check(EntryKind::Batch, bundle.signed, bundle.proof, by).map_err(|e| match e {
        Unproven::Log(reason) => Step::Log.refused(reason),
        Unproven::Witnesses(reason) => Step::Witnesses.refused(reason),
    })?;

    let name = signed.header.key;
    let list = not_revoked(bundle, name, &certified, &place, by)?;
    let heard = heard::check(bundle, &tbs, &enrolment, &list, by)?;
    let (stamps, unchecked_stamps) = stamped(bundle, &place, by.trust)?;
    Ok(Proven {
        batch: statement.number,
        order: path.index,
        of: path.size,
        tbs,
        enrolment,
        key: name,
        revoked: list.since(name),
        list: list.number,
        place,
        template,
        heard,
        stamps,
        unchecked_stamps,
    })
}

impl<'b> Tbs<'b> {
    fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let (subject, piv, payload) = Subject::parse_tbs(bytes)?;
        Ok(Self { subject, piv, payload })
    }
}

/// Whether it is a binary frame of the classic node with this did, which is its serial: `<=>`, type 1 to 8, N, serial.
fn is_classic_frame(payload: &[u8], did: Did) -> bool {
    let Some((&[b'<', b'=', b'>', kind, n, ref serial @ ..], _)) = payload.split_first_chunk::<13>() else {
        return false;
    };
    (1..=8).contains(&kind) && payload.len() == usize::from(n) + 5 && *serial == did.0
}

/// The statement is about this reading: it stands in the bitmap, at the place that the path says.
fn agree(tbs: &Tbs<'_>, statement: &Statement<'_>, index: u64, size: u64) -> Result<(), &'static str> {
    let (mine, theirs) = (tbs.subject, statement.subject);
    if mine.level != theirs.level {
        return Err("the statement is about another level");
    }
    if mine.did != theirs.did {
        return Err("the statement is about another device");
    }
    if mine.epoch != theirs.epoch {
        return Err("the statement is about another epoch");
    }
    if mine.bctx != theirs.bctx {
        return Err("the statement is about another boot");
    }
    if u64::from(statement.leaves()) != size {
        return Err("the statement is about another number of readings");
    }
    let at = tbs.piv.checked_sub(statement.first_piv).filter(|at| *at < 64);
    let at = at.ok_or("the number of the reading is not in the statement")?;
    let bitmap = statement.bitmap.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    if bitmap >> at & 1 == 0 {
        return Err("the number of the reading is not in the statement");
    }
    let before = bitmap & ((1 << at) - 1);
    if u64::from(before.count_ones()) != index {
        return Err("the reading stands at another place of the batch");
    }
    Ok(())
}

fn enrolled<'b>(
    bundle: &Bundle<'b>,
    did: Did,
    certified: &Certified,
    by: &Verifier<'_>,
) -> Result<Enrolment<'b>, Refused> {
    let step = Step::Enrolment;
    let enrolment = Enrolment::parse(bundle.enrolment.record).map_err(|e| step.malformed(e))?;
    if enrolment.did != did {
        return Err(step.refused("another device was enrolled"));
    }
    if enrolment.spki != certified.spki {
        return Err(step.refused("the device was enrolled with another key"));
    }
    let logged = bundle.enrolment;
    logged::check(EntryKind::Enrolment, logged.record, logged.proof, by).map_err(|e| step.refused(e.into_reason()))?;
    Ok(enrolment)
}

fn configured<'b>(bundle: &Bundle<'b>, tbs: &Tbs<'b>, by: &Verifier<'_>) -> Result<Option<Definition<'b>>, Refused> {
    let step = Step::Policy;
    let logged = bundle.policy;
    let record = Configured::parse(logged.record).map_err(|e| step.malformed(e))?;
    if record.did != tbs.subject.did {
        return Err(step.refused("the policy is of another device"));
    }
    logged::check(EntryKind::Policy, logged.record, logged.proof, by).map_err(|e| step.refused(e.into_reason()))?;
    let Some(shown) = &bundle.template else { return Ok(None) };
    let registered = record.templates.iter().find(|(id, _)| *id == shown.id);
    if registered.is_none_or(|(_, hash)| *hash != sha256(&[shown.definition])) {
        return Err(step.refused("the template is not the one that was registered"));
    }
    if !has_row(tbs.payload, shown.id) {
        return Err(step.refused("the reading has no row of the template"));
    }
    // What was registered may be of no use: then its columns stay without names.
    Ok(Definition::parse(shown.definition).ok().filter(|d| d.id == shown.id))
}

/// Whether one item of the payload is a row of this template.
fn has_row(payload: &[u8], id: u64) -> bool {
    let mut r = Reader::new(payload);
    let mut rows = 0;
    while !r.is_at_end() {
        let Ok(item) = r.item() else { return false };
        let mut inside = Reader::new(item);
        let is_row = inside.peek() == Ok(Major::Array)
            && inside.array().is_ok_and(|n| n > 0)
            && inside.peek() == Ok(Major::Unsigned)
            && inside.unsigned() == Ok(id);
        rows += usize::from(is_row);
    }
    rows > 0
}

fn not_revoked(
    bundle: &Bundle<'_>,
    key: KeyName,
    certified: &Certified,
    place: &Place,
    by: &Verifier<'_>,
) -> Result<Revocations, Refused> {
    let step = Step::Revocation;
    let logged = bundle.revocations;
    let list = Revocations::parse(logged.record).map_err(|e| step.malformed(e))?;
    let at = logged::check(EntryKind::Revocation, logged.record, logged.proof, by)
        .map_err(|e| step.refused(e.into_reason()))?;
    if at.size < place.size {
        return Err(step.refused("the list of revoked keys is from a smaller log than the batch"));
    }
    if list.since(key).is_some_and(|since| since <= place.time) {
        return Err(step.refused("the key was revoked before the witness time"));
    }
    if !certified.covers(place.time) {
        return Err(step.refused("a certificate of the key was not valid at the witness time"));
    }
    Ok(list)
}

/// Timestamps that hold, and how many nobody was named to check.
fn stamped(bundle: &Bundle<'_>, place: &Place, trust: &Trust) -> Result<(Vec<Stamped>, usize), Refused> {
    if trust.timestamps.is_empty() {
        return Ok((Vec::new(), bundle.timestamps.len()));
    }
    let check = |stamp| {
        timestamp::check(stamp, &place.note, &trust.timestamps).map_err(|reason| Step::Timestamps.refused(reason))
    };
    Ok((bundle.timestamps.iter().map(check).collect::<Result<_, _>>()?, 0))
}

impl Proven<'_> {
    /// The device.
    pub const fn did(&self) -> Did {
        self.tbs.subject.did
    }

    /// Its network and short id, as it was enrolled.
    pub const fn address(&self) -> (Net, Sid) {
        (self.enrolment.net, self.enrolment.sid)
    }

    /// Key generation and sender number.
    pub const fn number(&self) -> (Epoch, u64) {
        (self.tbs.subject.epoch, self.tbs.piv)
    }

    /// What the device said.
    pub const fn payload(&self) -> &[u8] {
        self.tbs.payload
    }

    /// It existed before this time, Unix seconds: so many witnesses as are needed had seen it by then.
    pub const fn existed_before(&self) -> u64 {
        self.place.time
    }
}
