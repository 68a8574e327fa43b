//! Item 9: what gateways say of when they heard a reading. A receipt that would not stand is left out: with it, the whole
//! bundle would be refused, and no gateway may spoil the evidence of a device.

use std::collections::HashMap;
use std::rc::Rc;

use fivefold_core::proof::KeyName;
use fivefold_core::proof::merkle::{Hash, verify_inclusion};
use fivefold_evidence::bundle::{Heard, Path};
use fivefold_evidence::checkpoint::Signed;
use fivefold_evidence::log::EntryKind;
use fivefold_evidence::record::Revocations;
use fivefold_evidence::verify::is_about;

use super::{Export, ExportError, Proven};
use crate::store::{HeardRow, Leaves};
use crate::witnesses::LONGEST_PAUSE;

/// Receipts that are held ready at a time, at most: readings of one batch of a gateway follow each other.
const READY: usize = 64;

/// A gateway's receipt that strangers can be shown.
struct Receipt {
    cose: Vec<u8>,
    key: KeyName,
    root: Hash,
    count: u64,
    leaves: Vec<Hash>,
    proof: String,
    chain: Vec<Vec<u8>>,
    /// When the last of the witnesses had seen it, whoever that is, Unix seconds.
    seen: u64,
}

impl Receipt {
    /// The path to its root from an envelope; `None` if what is kept leads elsewhere.
    fn path(&self, row: &HeardRow) -> Option<Path> {
        let Some(hashes) = &row.path else { return Path::of(&self.leaves, row.index).ok() };
        let (index, size) = (row.index as u64, self.count);
        verify_inclusion(&Hash::of_leaf([&row.envelope]), index, size, hashes, &self.root).ok()?;
        Some(Path { index, size, hashes: hashes.clone() })
    }
}

/// One of them with an envelope under it.
pub(super) struct Shown {
    receipt: Rc<Receipt>,
    envelope: Vec<u8>,
    path: Path,
}

impl Shown {
    pub(super) fn heard(&self) -> Heard<'_> {
        Heard {
            receipt: &self.receipt.cose,
            envelope: &self.envelope,
            path: self.path.clone(),
            proof: &self.receipt.proof,
            chain: self.receipt.chain.iter().map(Vec::as_slice).collect(),
        }
    }
}

/// The receipts of an export.
pub(super) struct Receipts<'e> {
    export: &'e Export<'e>,
    ready: HashMap<i64, Option<Rc<Receipt>>>,
}

impl<'e> Receipts<'e> {
    pub(super) fn new(export: &'e Export<'e>) -> Self {
        Self { export, ready: HashMap::new() }
    }

    /// Receipts that stand in the bundle of a reading, the earliest first.
    pub(super) fn of(&mut self, reading: i64, tbs: &[u8], common: &Proven) -> Result<Vec<Shown>, ExportError> {
        let mut shown = Vec::new();
        let (enrolment, list) = (&common.enrolment.0, Revocations::parse(&common.revocations.0));
        for row in self.export.reader.heard(reading)? {
            if !is_about(&row.envelope, tbs, enrolment) {
                continue;
            }
            let Some(receipt) = self.ready(row.receipt)? else { continue };
            let is_revoked = |list: &Revocations| list.since(receipt.key).is_some_and(|since| since <= receipt.seen);
            if list.as_ref().is_ok_and(is_revoked) {
                continue;
            }
            let Some(path) = receipt.path(&row) else { continue };
            shown.push(Shown { receipt, envelope: row.envelope, path });
        }
        Ok(shown)
    }

    fn ready(&mut self, row: i64) -> Result<Option<Rc<Receipt>>, ExportError> {
        if let Some(known) = self.ready.get(&row) {
            return Ok(known.clone());
        }
        let receipt = self.read(row)?.map(Rc::new);
        if self.ready.len() >= READY {
            self.ready.clear();
        }
        self.ready.insert(row, receipt.clone());
        Ok(receipt)
    }

    /// A receipt whose key has a certificate that was valid when witnesses saw it.
    fn read(&self, row: i64) -> Result<Option<Receipt>, ExportError> {
        let Export { reader, book, logging, .. } = self.export;
        let Some(kept) = reader.receipt_leaves(row)? else { return Ok(None) };
        let Some(signer) = book.receipt_signers.named(kept.key).filter(|s| s.gateway == kept.gateway) else {
            return Ok(None);
        };
        let Some(index) = reader.log_index(EntryKind::Receipt, row)? else { return Ok(None) };
        let Some(head) = self.export.witnessed(index)? else { return Ok(None) };
        let Some((first, seen)) = self.seen(&head) else { return Ok(None) };
        let Some(certificate) = signer.certificate_over(first, seen) else { return Ok(None) };
        let (chain, proof) = (certificate.chain.clone(), logging.log().tlog_proof(index, head)?.to_string());
        let Leaves { cose, key, root, count, leaves, .. } = kept;
        Ok(Some(Receipt { cose, key, root, count, leaves, proof, chain, seen }))
    }

    /// When the first and the last of the witnesses saw a head: however many of them somebody asks for, it was in between. Of
    /// witnesses that are not known here, or not any more, nothing is known but that they see a head while it is the newest.
    fn seen(&self, head: &Signed) -> Option<(u64, u64)> {
        let logging = self.export.logging;
        let authentic = head.open(logging.log().vkey()).ok()?;
        let cosigned = logging.witnesses().iter().flat_map(|w| authentic.cosigned(w.keys()).unwrap_or_default());
        let times: Vec<u64> = cosigned.map(|c| c.at).collect();
        Some((*times.iter().min()?, times.iter().max()?.saturating_add(LONGEST_PAUSE.as_secs())))
    }
}
