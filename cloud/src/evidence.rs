//! Bundles of evidence (docs/protocol.md 13.3): what the store, the book and the log know of readings, put together for
//! strangers. Nothing is claimed here: whoever gets a bundle verifies it.

mod receipts;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use fivefold_core::id::Did;
use fivefold_core::proof::Sign1;
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_evidence::bundle::{Bundle, Definition, FILE_BYTES, Logged, NotAssembled, Path};
use fivefold_evidence::checkpoint::{Authentic, Signed};
use fivefold_evidence::log::{EntryKind, LogError};
use fivefold_evidence::record::{Configured, Enrolment};

use crate::book::Book;
use crate::cloud::holds_reading;
use crate::log::Logging;
use crate::store::{EvidenceRow, Placed, Proof, Reader, StoreError};

use receipts::Receipts;

/// Readings in one answer, at most.
pub const READINGS: usize = 10_000;
/// So many witnesses must have cosigned, where there are so many (docs/protocol.md 13.2).
const WITNESSES: usize = 2;

/// Why there are no bundles. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A bundle cannot be put together.
    #[error(transparent)]
    NotAssembled(#[from] NotAssembled),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than one answer holds.
    #[error("there are more than {READINGS} readings, or more than 64 MiB of evidence: name a shorter time")]
    TooMany,
}

/// Bundles, and what is not proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Bundles, one after the other.
    pub bundles: Vec<u8>,
    /// How many.
    pub proven: u64,
    /// Readings without one.
    pub missing: Missing,
}

/// Readings that have no evidence yet, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// No signature over them was verified.
    pub unsigned: u64,
    /// Their batch waits to become an entry of the log.
    pub unlogged: u64,
    /// No head with their batch is shown with enough cosignatures.
    pub unwitnessed: u64,
    /// The log has no record of their device's key or policy that witnesses saw.
    pub unrecorded: u64,
    /// What they said, or what proved them, is pruned (`[limits]` of `cloud.toml`): they wait for nothing.
    pub pruned: u64,
}

impl Missing {
    /// How many.
    pub const fn count(&self) -> u64 {
        self.unsigned + self.unlogged + self.unwitnessed + self.unrecorded + self.pruned
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.count();
        let word = if self.pruned < n { "not proven yet" } else { "not proven any more" };
        write!(f, "{n} {} {word}", if n == 1 { "reading is" } else { "readings are" })?;
        let why = [
            (self.unsigned, "in no batch whose signature was verified"),
            (self.unlogged, "waiting to be written to the log"),
            (self.unwitnessed, "in no head of the log that enough witnesses cosigned"),
            (self.unrecorded, "of a device whose key or policy is not in the log yet"),
            (self.pruned, "pruned for their age or size, as [limits] of cloud.toml says"),
        ];
        let mut said = ": ";
        for (n, why) in why.into_iter().filter(|(n, _)| *n > 0) {
            write!(f, "{said}{n} {why}")?;
            said = ", ";
        }
        Ok(())
    }
}

/// Where a batch stands.
enum Place {
    Unlogged,
    Unwitnessed,
    Unrecorded,
    Proven(Box<Proven>),
}

/// What all readings of a batch that use the same template have in common in their bundles.
struct Proven {
    proof: String,
    chain: Vec<Vec<u8>>,
    enrolment: (Vec<u8>, String),
    revocations: (Vec<u8>, String),
    policy: (Vec<u8>, String),
    template: Option<(u64, Vec<u8>)>,
}

/// Puts together what proves the readings of a device that came in this time.
///
/// # Errors
/// [`ExportError`].
pub fn export(
    reader: &Reader,
    book: &Book,
    logging: &Logging,
    did: Did,
    from: Millis,
    to: Millis,
) -> Result<Exported, ExportError> {
    let rows = reader.evidence(did, from, to, READINGS + 1)?;
    if rows.len() > READINGS {
        return Err(ExportError::TooMany);
    }
    let mut exported = Exported::default();
    let mut places: HashMap<(i64, Option<u64>), Place> = HashMap::new();
    let export = Export { reader, book, logging, did };
    let mut receipts = Receipts::new(&export);
    for row in &rows {
        if row.is_pruned {
            exported.missing.pruned += 1;
            continue;
        }
        if !holds_reading(&row.payload) {
            continue;
        }
        let Some(proof) = &row.proof else {
            exported.missing.unsigned += 1;
            continue;
        };
        let template = book.templates.first_of(row.net, &row.payload);
        let place = match places.entry((proof.batch, template.map(|(id, _)| id))) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(export.place(proof, template)?),
        };
        match place {
            Place::Proven(common) => {
                exported.bundles.extend(bundle(row, proof, common, &mut receipts)?);
                exported.proven += 1;
            }
            Place::Unlogged => exported.missing.unlogged += 1,
            Place::Unrecorded => exported.missing.unrecorded += 1,
            Place::Unwitnessed => exported.missing.unwitnessed += 1,
        }
        if exported.bundles.len() > FILE_BYTES {
            return Err(ExportError::TooMany);
        }
    }
    Ok(exported)
}

fn bundle(
    row: &EvidenceRow,
    proof: &Proof,
    common: &Proven,
    receipts: &mut Receipts<'_>,
) -> Result<Vec<u8>, ExportError> {
    let mut tbs = vec![0; row.payload.len() + 48];
    let len = row.subject.emit_tbs(row.piv, &row.payload, &mut tbs).map_err(NotAssembled::from)?;
    tbs.truncate(len);
    let leaf = row.subject.leaf(&proof.salt, row.piv, &row.payload);
    let index = proof.leaves.iter().position(|l| *l == leaf).ok_or(NotAssembled::NoSuchLeaf)?;
    let shown = receipts.of(row.reading, &tbs, common)?;
    let mut bundle = Bundle {
        tbs: &tbs,
        salt: proof.salt,
        path: Path::of(&proof.leaves, index)?,
        signed: &proof.cose,
        chain: common.chain.iter().map(Vec::as_slice).collect(),
        enrolment: logged(&common.enrolment),
        proof: &common.proof,
        template: common.template.as_ref().map(|(id, definition)| Definition { id: *id, definition }),
        receipts: shown.iter().map(receipts::Shown::heard).collect(),
        revocations: logged(&common.revocations),
        policy: logged(&common.policy),
        timestamps: Vec::new(),
    };
    loop {
        match bundle.assemble() {
            // The latest of many gateways, with many witnesses each, may find no room.
            Err(NotAssembled::TooMuch(_) | NotAssembled::Unwritable(_)) if bundle.receipts.pop().is_some() => {}
            assembled => return Ok(assembled?),
        }
    }
}

fn logged((record, proof): &(Vec<u8>, String)) -> Logged<'_> {
    Logged { record, proof }
}

/// For one device.
struct Export<'a> {
    reader: &'a Reader,
    book: &'a Book,
    logging: &'a Logging,
    did: Did,
}

impl Export<'_> {
    fn place(&self, proof: &Proof, template: Option<(u64, &[u8])>) -> Result<Place, ExportError> {
        let Some(index) = self.reader.log_index(EntryKind::Batch, proof.batch)? else { return Ok(Place::Unlogged) };
        let Some(head) = self.witnessed(index)? else { return Ok(Place::Unwitnessed) };
        let log = self.logging.log();
        // By the key that signed, whether it is in force or not.
        let Ok(sign1) = Sign1::parse(&proof.cose) else { return Ok(Place::Unrecorded) };
        let Some(signer) = self.book.signers.named(sign1.header.key) else { return Ok(Place::Unrecorded) };
        let of_key = |p: &Placed| {
            Enrolment::parse(&p.record).is_ok_and(|e| e.did == self.did && e.spki == signer.registered.spki)
        };
        let enrolments = self.reader.log_placed(EntryKind::Enrolment, Some(self.did))?;
        let policies = self.reader.log_placed(EntryKind::Policy, Some(self.did))?;
        // What held when the batch was logged; if the log began later, what held then.
        let held = |all: &[&Placed]| all.iter().find(|p| p.index < index).or(all.last()).map(|p| (**p).clone());
        let mut policy = held(&policies.iter().collect::<Vec<_>>());
        // If the template was registered later, the first record that has it and that witnesses saw.
        let mut shown = None;
        if let Some((id, definition)) = template {
            let hash = sha256(&[definition]);
            let has = |p: &&Placed| Configured::parse(&p.record).is_ok_and(|c| c.templates.contains(&(id, hash)));
            let with = held(&policies.iter().filter(has).collect::<Vec<_>>());
            if let Some(with) = with
                && self.witnessed(with.index)?.is_some()
            {
                (policy, shown) = (Some(with), Some((id, definition.to_vec())));
            }
        }
        let (Some(enrolment), Some(policy)) = (enrolments.into_iter().find(of_key), policy) else {
            return Ok(Place::Unrecorded);
        };
        // The newest list there is, under a head that is no older than the batch's.
        let newest = log.shown()?.filter(|shown| self.is_enough(shown, Enough::Some)).unwrap_or_else(|| head.clone());
        let newest = if newest.unverified().size < head.unverified().size { head.clone() } else { newest };
        let size = newest.unverified().size;
        let lists = self.reader.log_placed(EntryKind::Revocation, None)?;
        let Some(list) = lists.into_iter().find(|l| l.index < size) else { return Ok(Place::Unrecorded) };
        // Under the batch's own head, if they stand in it: one checkpoint is verified once, and compresses.
        let first = |index| if index < head.unverified().size { Ok(Some(head.clone())) } else { self.witnessed(index) };
        let (Some(enrolled), Some(configured)) = (first(enrolment.index)?, first(policy.index)?) else {
            return Ok(Place::Unrecorded);
        };
        let prove = |index, under| log.tlog_proof(index, under).map(|proof| proof.to_string());
        Ok(Place::Proven(Box::new(Proven {
            proof: prove(index, head)?,
            chain: signer.registered.chain_der(),
            enrolment: (enrolment.record, prove(enrolment.index, enrolled)?),
            revocations: (list.record, prove(list.index, newest)?),
            policy: (policy.record, prove(policy.index, configured)?),
            template: shown,
        })))
    }

    /// The first head with this entry that all witnesses cosigned, by all their keys; else the first that is enough.
    fn witnessed(&self, index: u64) -> Result<Option<Signed>, ExportError> {
        for enough in [Enough::All, Enough::Some] {
            let head = match self.logging.log().first_shown_with(index, |head| self.holds(head, enough)) {
                Ok(head) => head,
                Err(LogError::NoEntry(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if self.is_enough(&head, enough) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    fn is_enough(&self, head: &Signed, enough: Enough) -> bool {
        head.open(self.logging.log().vkey()).is_ok_and(|authentic| self.holds(&authentic, enough))
    }

    fn holds(&self, head: &Authentic<'_>, enough: Enough) -> bool {
        let witnesses = self.logging.witnesses();
        let cosigned = |keys| head.cosigned(keys).map_or(0, |c| c.len());
        match enough {
            Enough::All => !witnesses.is_empty() && witnesses.iter().all(|w| cosigned(w.keys()) == w.keys().len()),
            Enough::Some => {
                witnesses.iter().filter(|w| cosigned(w.keys()) > 0).count() >= WITNESSES.min(witnesses.len()).max(1)
            }
        }
    }
}

/// Which cosignatures a head needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enough {
    All,
    Some,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_sentence() {
        let missing = Missing { unsigned: 1, unwitnessed: 2, ..Missing::default() };
        let said = "3 readings are not proven yet: 1 in no batch whose signature was verified, 2 in no head of the log that \
                    enough witnesses cosigned";
        assert_eq!(missing.to_string(), said);
        let gone = Missing { pruned: 2, ..Missing::default() };
        let said = "2 readings are not proven any more: 2 pruned for their age or size, as [limits] of cloud.toml says";
        assert_eq!(gone.to_string(), said);
        let one = Missing { unlogged: 1, ..Missing::default() };
        assert_eq!(one.to_string(), "1 reading is not proven yet: 1 waiting to be written to the log");
    }
}
