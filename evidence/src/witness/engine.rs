//! The engine: bytes and the time come in, an answer goes out. It has no disk.

use core::fmt;
use std::collections::BTreeMap;

use fivefold_core::proof::merkle::{self, Hash};

use super::request::{Record, Request};
use crate::checkpoint::{Checkpoint, Refused, Signed};
use crate::cosignature::CosigningKey;
use crate::note::{self, Kind, VKey};

/// Seconds that a clock may go back before nothing is cosigned any more.
const CLOCK_BACK_S: u64 = 60;

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, 400, 403, 404, 409, 422 or 503.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Signature lines; or the size that the witness has; or a sentence.
    pub body: String,
    /// Two heads of one log that cannot both be true, signed by the log: proof that it lies, to be kept and shown.
    pub fork: Option<Box<Fork>>,
}

/// Two heads of one log that were both signed by it, and of which neither goes on from the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// What was cosigned.
    pub ours: Signed,
    /// What was to be.
    pub theirs: Signed,
}

impl Answer {
    fn refused(status: u16, why: impl fmt::Display) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{why}\n"), fork: None }
    }

    fn conflict(size: u64) -> Self {
        Self { status: 409, content_type: "text/x.tlog.size", body: format!("{size}\n"), fork: None }
    }
}

struct Watched {
    keys: Vec<VKey>,
    record: Option<Record>,
}

/// A head that may be cosigned as soon as its record is durable. Neither copied nor made by anybody else.
#[derive(Debug)]
#[must_use = "make its record durable, then cosign"]
pub struct Pending {
    record: Record,
}

impl Pending {
    /// What is to be made durable.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The log that it is about.
    pub fn origin(&self) -> &str {
        &self.record.head.unverified().origin
    }
}

/// The engine.
pub struct Witness {
    keys: Vec<CosigningKey>,
    logs: BTreeMap<String, Watched>,
}

impl Witness {
    /// With the keys that it signs with, each with every head.
    pub const fn new(keys: Vec<CosigningKey>) -> Self {
        Self { keys, logs: BTreeMap::new() }
    }

    /// Its public keys, to be pinned.
    pub fn vkeys(&self) -> impl Iterator<Item = &VKey> {
        self.keys.iter().map(CosigningKey::vkey)
    }

    /// Watches a log by its keys, any of which will do, with what is remembered of it.
    ///
    /// # Errors
    /// [`Refused`] when the keys are not of one log, or none of them has signed what is remembered.
    pub fn watch(&mut self, keys: Vec<VKey>, record: Option<Record>) -> Result<(), Refused> {
        let origin = keys.first().map(|key| key.name().to_owned()).ok_or(Refused::NotSigned)?;
        if let Some(other) = keys.iter().find(|key| key.name() != origin || key.kind() != Kind::Log) {
            return Err(Refused::Kind(other.to_string()));
        }
        if let Some(record) = &record
            && !keys.iter().any(|key| record.head.open(key).is_ok())
        {
            return Err(Refused::NotSigned);
        }
        self.logs.insert(origin, Watched { keys, record });
        Ok(())
    }

    /// Entries of the head that was cosigned last, and when; of each log.
    pub fn logs(&self) -> impl Iterator<Item = (&str, Option<&Record>)> {
        self.logs.iter().map(|(origin, watched)| (origin.as_str(), watched.record.as_ref()))
    }

    /// Looks at the body of `add-checkpoint`, which came at `now` (unix time, seconds).
    ///
    /// # Errors
    /// The [`Answer`] that refuses it.
    pub fn add_checkpoint(&self, now: u64, body: &[u8]) -> Result<Pending, Answer> {
        let request = Request::parse(body).map_err(|e| Answer::refused(400, e))?;
        let head = request.checkpoint.unverified();
        let unknown = || Answer::refused(404, "no log of this origin is watched here");
        let watched = self.logs.get(&head.origin).ok_or_else(unknown)?;
        if !watched.keys.iter().any(|key| request.checkpoint.open(key).is_ok()) {
            return Err(Answer::refused(403, "no known key of the log has signed this checkpoint"));
        }
        if request.old > head.size {
            return Err(Answer::refused(400, "the old size is larger than the checkpoint"));
        }
        let empty = Checkpoint::empty(&head.origin);
        let ours = watched.record.as_ref().map_or(&empty, |record| record.head.unverified());
        let fork = || {
            let ours = watched.record.as_ref()?.head.clone();
            Some(Box::new(Fork { ours, theirs: request.checkpoint.clone() }))
        };
        if request.old != ours.size {
            return Err(Answer::conflict(ours.size));
        }
        if head.size == ours.size && head.root != ours.root {
            return Err(Answer { fork: fork(), ..Answer::conflict(ours.size) });
        }
        goes_on(ours, head, &request.proof)
            .map_err(|e| Answer::refused(422, format_args!("the checkpoint is not shown to go on: {e}")))?;
        let last = watched.record.as_ref().map_or(0, |record| record.at);
        if now.saturating_add(CLOCK_BACK_S) < last || now == 0 {
            return Err(Answer::refused(503, "this witness's clock went back: ask again when it is right"));
        }
        // Without the lines of others: what is remembered is what the log said.
        let lines = request.checkpoint.note().lines().iter();
        let lines = lines.filter(|line| watched.keys.iter().any(|key| key.wrote(line))).cloned().collect();
        let note = note::Note::new(request.checkpoint.note().text().into(), lines);
        let head = note.and_then(Signed::of).map_err(|e| Answer::refused(400, e))?;
        Ok(Pending { record: Record { at: now.max(last), head } })
    }

    /// Cosigns what has become durable. The calls of [`Witness::add_checkpoint`] and this one must be one step: nobody else
    /// may have been cosigned for the same log between them.
    ///
    /// # Errors
    /// [`Answer`] 503 when a key gives no signature, and 409 when somebody else was cosigned between.
    pub fn cosign(&mut self, pending: Pending) -> Result<Answer, Answer> {
        let Record { at, head } = &pending.record;
        let watched = self.logs.get_mut(pending.origin());
        let watched = watched.ok_or_else(|| Answer::refused(404, "no log of this origin is watched here"))?;
        let last = watched.record.as_ref().map_or(0, |record| record.head.unverified().size);
        if head.unverified().size < last {
            return Err(Answer::conflict(last));
        }
        let mut body = String::new();
        for key in &self.keys {
            let line = key.cosign(*at, head.note().text(), head.unverified()).map_err(|e| Answer::refused(503, e))?;
            body.push_str(&line.to_string());
        }
        watched.record = Some(pending.record);
        Ok(Answer { status: 200, content_type: "text/plain; charset=utf-8", body, fork: None })
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Witness({:?}, {} logs)", self.keys, self.logs.len())
    }
}

/// That `head` goes on from `ours`, by a proof that is empty where there is nothing to prove.
fn goes_on(ours: &Checkpoint, head: &Checkpoint, proof: &[Hash]) -> Result<(), merkle::NotProven> {
    match (ours.size, proof) {
        (0, []) => Ok(()),
        (0, _) => Err(merkle::NotProven { reason: "a proof from an empty tree is empty" }),
        _ => merkle::verify_consistency(ours.size, &ours.root, head.size, &head.root, proof),
    }
}
