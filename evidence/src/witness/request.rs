//! What a witness is asked, and what it remembers, as text.

use core::fmt;

use fivefold_core::proof::merkle::Hash;

use crate::checkpoint::Signed;
use crate::note::{self, LONGEST_NOTE, Malformed};

/// Bytes of a request, at most.
pub const LONGEST_REQUEST: usize = LONGEST_NOTE + 64 * 1024;
/// Hashes of a proof, at most.
const LONGEST_PROOF: usize = 63;

/// A request to cosign, as it came: nothing is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Entries of the head that the witness is thought to have.
    pub old: u64,
    /// From that head to the checkpoint.
    pub proof: Vec<Hash>,
    /// What is to be cosigned.
    pub checkpoint: Signed,
}

impl Request {
    /// Reads the body of `add-checkpoint`.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.len() > LONGEST_REQUEST {
            return Err(Malformed("a request is longer than any can be"));
        }
        let text = core::str::from_utf8(body).map_err(|_| Malformed("a request is not UTF-8"))?;
        let (first, mut rest) = text.split_once('\n').ok_or(Malformed("a request has no line of the old size"))?;
        let old = first.strip_prefix("old ").ok_or(Malformed("a request has no line of the old size"))?;
        let old = note::decimal(old)?;
        let mut proof = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or(Malformed("a request has no checkpoint"))?;
            rest = after;
            match line {
                "" => break,
                _ if proof.len() == LONGEST_PROOF => return Err(Malformed("a proof of more than 63 hashes")),
                line => proof.push(Hash(note::hash(line)?)),
            }
        }
        Ok(Self { old, proof, checkpoint: Signed::parse(rest.as_bytes())? })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", note::hash_text(&hash.0)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// What a witness remembers of a log: the largest head that it has cosigned, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When: unix time, seconds.
    pub at: u64,
    /// The head, with the log's signature.
    pub head: Signed,
}

impl Record {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a record begins with the time that it was made");
        let text = core::str::from_utf8(bytes).map_err(|_| WRONG)?;
        let (time, head) = text.split_once('\n').ok_or(WRONG)?;
        let at = note::decimal(time.strip_prefix("time ").ok_or(WRONG)?)?;
        Ok(Self { at, head: Signed::parse(head.as_bytes())? })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time {}\n{}", self.at, self.head)
    }
}
