//! Checkpoints: what a log signs of its tree (C2SP `tlog-checkpoint`).
//!
//! [`Checkpoint`] is the text, [`Signed`] the note around it, whose shape is checked and nothing else; [`Signed::open`]
//! turns it into [`Authentic`], which only a log's signature makes.

use core::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use fivefold_core::proof::merkle::Hash;
use zeroize::Zeroizing;

use crate::cosignature::{self, Cosigned};
use crate::note::{self, Kind, Line, Malformed, Note, VKey};

/// The head of a log's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Lines after the third, without their newlines. Ours writes none; no witness speaks of them.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// Of a log without entries.
    pub fn empty(origin: &str) -> Self {
        Self { origin: origin.into(), size: 0, root: Hash::of_nothing(), extensions: Vec::new() }
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let body = text.strip_suffix('\n').ok_or(Malformed("the text of a note ends in a newline"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Malformed("a checkpoint has three lines at least"));
        };
        if origin.is_empty() {
            return Err(Malformed("a checkpoint without an origin"));
        }
        let extensions: Vec<String> = lines.map(Into::into).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(Malformed("a checkpoint has an empty line"));
        }
        Ok(Self { origin: origin.into(), size: note::decimal(size)?, root: Hash(note::hash(root)?), extensions })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, note::hash_text(&self.root.0))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Why a checkpoint is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none.
    #[error("no checkpoint: {0}")]
    Malformed(#[from] Malformed),
    /// Two lines say that they are one key's.
    #[error("two signatures of {0}")]
    Doubled(String),
    /// It is another log's.
    #[error("a checkpoint of {0}, not of the log that is trusted")]
    Origin(String),
    /// The trusted log has not signed it.
    #[error("the log has not signed this checkpoint")]
    NotSigned,
    /// A line says that it is a trusted key's, and is not.
    #[error("the signature of {0} does not hold")]
    Signature(String),
    /// A key is not of the kind that is needed here.
    #[error("{0} is not a key of this kind")]
    Kind(String),
}

/// A checkpoint with signatures: its shape is checked, nothing is believed before [`Signed::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    note: Note,
    head: Checkpoint,
}

impl Signed {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::of(Note::parse(bytes)?)
    }

    /// Of a note.
    ///
    /// # Errors
    /// [`Malformed`] when its text is no checkpoint.
    pub fn of(note: Note) -> Result<Self, Malformed> {
        Ok(Self { head: Checkpoint::parse(note.text())?, note })
    }

    /// What it says, which nobody may have signed.
    pub const fn unverified(&self) -> &Checkpoint {
        &self.head
    }

    /// The note.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Believes it if `log` has signed it: its origin must be the key's name, and every line that says it is this key's
    /// must hold.
    ///
    /// # Errors
    /// [`Refused`] with what was wrong.
    pub fn open(&self, log: &VKey) -> Result<Authentic<'_>, Refused> {
        if log.kind() != Kind::Log {
            return Err(Refused::Kind(log.name().into()));
        }
        if self.head.origin != log.name() {
            return Err(Refused::Origin(self.head.origin.clone()));
        }
        let line = only_line(log, &self.note)?.ok_or(Refused::NotSigned)?;
        UnparsedPublicKey::new(&ED25519, log.public())
            .verify(self.note.text().as_bytes(), &line.signature)
            .map_err(|_| Refused::Signature(log.name().into()))?;
        Ok(Authentic { signed: self })
    }

    /// Adds signatures of witnesses. They are not checked here.
    ///
    /// # Errors
    /// [`Malformed`] when there are too many.
    pub fn add(&mut self, line: Line) -> Result<(), Malformed> {
        self.note.add(line)
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A checkpoint that its log has signed. Made by [`Signed::open`] alone.
#[derive(Clone, Copy, Debug)]
pub struct Authentic<'n> {
    signed: &'n Signed,
}

impl<'n> Authentic<'n> {
    /// What the log says.
    pub const fn head(&self) -> &'n Checkpoint {
        &self.signed.head
    }

    /// The note around it.
    pub const fn signed(&self) -> &'n Signed {
        self.signed
    }

    /// Which of these keys have cosigned it, and when, in their order. Lines of other keys count for nothing, and so do
    /// cosignatures that state no time.
    ///
    /// # Errors
    /// [`Refused::Signature`] when a line says it is of one of the keys, and is not; [`Refused::Doubled`] for two such
    /// lines; [`Refused::Kind`] for a log's key among them.
    pub fn cosigned<'k>(&self, witnesses: &'k [VKey]) -> Result<Vec<Cosigned<'k>>, Refused> {
        let mut all = Vec::new();
        for key in witnesses {
            if let Some(line) = only_line(key, &self.signed.note)? {
                let at = cosignature::verify(key, &self.signed.note, &self.signed.head, line)?;
                all.extend((at > 0).then_some(Cosigned { key, at }));
            }
        }
        Ok(all)
    }

    /// Names in lines that belong neither to `log` nor to `witnesses`: said, not believed.
    pub fn strangers<'k>(&self, log: &VKey, witnesses: &'k [VKey]) -> Vec<&'n str> {
        let known = |line: &&Line| !log.wrote(line) && !witnesses.iter().any(|key| key.wrote(line));
        self.signed.note.lines().iter().filter(known).map(|line| line.name.as_str()).collect()
    }
}

fn only_line<'n>(key: &VKey, note: &'n Note) -> Result<Option<&'n Line>, Refused> {
    let mut lines = note.lines().iter().filter(|line| key.wrote(line));
    let line = lines.next();
    if lines.next().is_some() { Err(Refused::Doubled(key.name().into())) } else { Ok(line) }
}

/// The key that signs a log's checkpoints: Ed25519. Prints only its public half.
pub struct LogKey {
    pair: Ed25519KeyPair,
    vkey: VKey,
}

impl LogKey {
    /// Of a log's origin and the seed of its key (RFC 8032), 32 bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the origin cannot be a key's name.
    pub fn from_seed(origin: &str, seed: &Zeroizing<[u8; 32]>) -> Result<Self, Malformed> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| Malformed("no seed of an Ed25519 key"))?;
        let vkey = VKey::new(origin, Kind::Log, pair.public_key().as_ref())?;
        Ok(Self { pair, vkey })
    }

    /// Its public half, to be pinned.
    pub const fn vkey(&self) -> &VKey {
        &self.vkey
    }

    /// Signs a checkpoint. Whoever calls this has made sure that it goes on from all that was signed before.
    pub(crate) fn sign(&self, head: &Checkpoint) -> Result<Signed, Malformed> {
        let text = head.to_string();
        let signature = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        let line = Line { name: self.vkey.name().into(), key: self.vkey.id(), signature };
        Signed::of(Note::new(text, vec![line])?)
    }

    /// Signs a head that no tree need stand behind: for tests of those who refuse it.
    ///
    /// # Errors
    /// [`Malformed`] when it cannot be written as a checkpoint.
    pub fn danger_sign(&self, head: &Checkpoint) -> Result<Signed, Malformed> {
        self.sign(head)
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({:?})", self.vkey)
    }
}
