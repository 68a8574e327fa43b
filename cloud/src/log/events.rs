//! Which events are in the log or wait for it, and which are to come.

use std::collections::{BTreeMap, HashMap, HashSet};

use fivefold_core::id::Did;
use fivefold_core::profile::{Policy, Sign};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_evidence::log::EntryKind;
use fivefold_evidence::record::{Configured, Enrolment, Made, Restored, Revocations};
use fivefold_keep::registry::KeyOrigin;

use super::deeds::Deeds;
use crate::book::{Book, KnownSigner};
use crate::store::LogRecord;

/// What a classic node that signs is set to, in the place of a policy record (docs/protocol.md 13.4).
const HARDENED: &[u8] = b"classic, hardened";

/// What was queued for the log so far, but for batches and receipts.
#[derive(Debug, Default)]
pub struct Events {
    enrolled: HashSet<[u8; 32]>,
    configured: HashMap<Did, [u8; 32]>,
    revocations: Option<Revocations>,
    restored: HashSet<[u8; 32]>,
    /// Of the operator's log.
    pub deeds: Deeds,
}

impl Events {
    /// Of what the store has.
    pub fn of(records: &[LogRecord]) -> Self {
        let mut this = Self::default();
        this.take(records);
        this
    }

    /// Takes note of records that are durable.
    pub fn take(&mut self, records: &[LogRecord]) {
        for LogRecord { kind, did, record } in records {
            let hash = sha256(&[record]);
            match (kind, did) {
                (EntryKind::Enrolment, _) => drop(self.enrolled.insert(hash)),
                (EntryKind::Policy, Some(did)) => drop(self.configured.insert(*did, hash)),
                (EntryKind::Operator, _) => self.deeds.take(record),
                (EntryKind::Restore, _) => drop(self.restored.insert(hash)),
                (EntryKind::Revocation, _) => {
                    self.revocations = Revocations::parse(record).ok().or(self.revocations.take())
                }
                _ => {}
            }
        }
    }

    /// What this version of the book has that was not queued; and when the store was put back from a copy.
    pub fn news(&self, book: &Book, restored: Option<Millis>) -> Vec<LogRecord> {
        let mut news = Vec::new();
        let mut add = |kind, did, record: Option<Vec<u8>>| {
            news.extend(record.map(|record| LogRecord { kind, did, record }));
        };
        // A log begins with an empty list, so that every list has one before it.
        let listed = match &self.revocations {
            Some(list) => list.clone(),
            None => {
                add(EntryKind::Revocation, None, Revocations::default().emit().ok());
                Revocations::default()
            }
        };
        let what = "the store was put back from a copy";
        let record = restored.and_then(|at| Restored { at: at.0 / 1000, what }.emit().ok());
        add(EntryKind::Restore, None, record.filter(|r| !self.restored.contains(&sha256(&[r]))));
        for signer in book.signers.all() {
            let record = enrolment(book, signer).filter(|r| !self.enrolled.contains(&sha256(&[r])));
            add(EntryKind::Enrolment, Some(signer.registered.did), record);
        }
        // Those that sign may be few of very many.
        let signs =
            book.by_did.values().filter(|d| d.policy.sign == Sign::Batch || self.configured.contains_key(&d.did));
        let devices: BTreeMap<Did, _> = signs.map(|device| (device.did, device)).collect();
        for (did, device) in devices {
            let mut policy = [0; Policy::LONGEST];
            let templates = book.templates.hashes(device.net);
            let record = device
                .policy
                .emit(&mut policy)
                .ok()
                .and_then(|len| Configured { did, policy: policy.get(..len)?, templates }.emit().ok());
            let is_new = |r: &Vec<u8>| self.configured.get(&did) != Some(&sha256(&[r]));
            add(EntryKind::Policy, Some(did), record.filter(is_new));
        }
        for classic in book.classics.iter().filter(|d| d.source.signs) {
            let did = classic.source.did;
            let record = Configured { did, policy: HARDENED, templates: Vec::new() }.emit().ok();
            let is_new = |r: &Vec<u8>| self.configured.get(&did) != Some(&sha256(&[r]));
            add(EntryKind::Policy, Some(did), record.filter(is_new));
        }
        let keys = book.revoked_keys();
        if keys != listed.keys {
            let next = Revocations { number: listed.number.saturating_add(1), keys };
            add(EntryKind::Revocation, None, next.emit().ok());
        }
        news
    }
}

fn enrolment(book: &Book, signer: &KnownSigner) -> Option<Vec<u8>> {
    let registered = &signer.registered;
    // Of one that was revoked before the log began nothing is ever proven.
    let of_classic =
        || book.classics.iter().find(|d| d.source.did == registered.did).map(|d| (d.source.net, d.source.sid));
    let (net, sid) = book.by_did.get(&registered.did).map(|d| (d.net, d.sid)).or_else(of_classic)?;
    let made = match registered.origin {
        KeyOrigin::Unknown => Made::Unknown,
        KeyOrigin::Device => Made::OnDevice,
        KeyOrigin::SecureElement => Made::InSecureElement,
        KeyOrigin::Elsewhere => Made::Elsewhere,
    };
    let record = Enrolment { did: registered.did, net, sid, spki: &registered.spki, made };
    record.emit().ok()
}
