//! Cosignatures: what a witness says about a checkpoint (C2SP `tlog-cosignature`).
//!
//! "At this time, this was the largest tree of this log that I had seen, and it went on from all that I had seen before."
//! Two kinds: Ed25519 over time and note (`cosignature/v1`), and ML-DSA-44 over name, time, origin, size and root
//! (`subtree/v1`), which a quantum computer cannot forge. In both the signature begins with the time, 8 bytes.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, ML_DSA_44, ML_DSA_44_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::checkpoint::{Authentic, Checkpoint, Refused};
use crate::note::{Kind, Line, Malformed, Note, VKey};

/// Bytes of an ML-DSA-44 signature (FIPS 204).
const ML_DSA_44_SIGNATURE: usize = 2420;

/// A cosignature that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosigned<'k> {
    /// Whose.
    pub key: &'k VKey,
    /// When the witness says it was made: unix time, seconds, never 0.
    pub at: u64,
}

/// Who must have cosigned. Keys of one name are one witness, who counts once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    keys: Vec<VKey>,
    need: usize,
    pq_need: usize,
}

/// What a checkpoint that meets a [`Rule`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// By then as many as are needed had seen it: unix time, seconds.
    pub at: u64,
    /// Each witness that cosigned and the earliest of its times, by name.
    pub witnesses: Vec<(String, u64)>,
}

/// Why a checkpoint does not meet a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWitnessed {
    /// A line is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too few witnesses.
    #[error("{have} of the {need} witnesses that are needed have cosigned")]
    TooFew {
        /// Who did.
        have: usize,
        /// Who must.
        need: usize,
    },
    /// Too few of them with ML-DSA-44.
    #[error("{have} of the {need} witnesses that are needed have cosigned with ML-DSA-44")]
    TooFewPq {
        /// Who did.
        have: usize,
        /// Who must.
        need: usize,
    },
}

impl Rule {
    /// That `need` witnesses have cosigned, and `pq_need` of them with ML-DSA-44.
    ///
    /// # Errors
    /// [`Malformed`] for a key twice, a log's key, and a number that they cannot reach; `need` is 1 at least.
    pub fn new(keys: Vec<VKey>, need: usize, pq_need: usize) -> Result<Self, Malformed> {
        if keys.iter().any(|key| key.kind() == Kind::Log) {
            return Err(Malformed("a log's key among those of witnesses"));
        }
        if keys
            .iter()
            .enumerate()
            .any(|(i, key)| keys.iter().take(i).any(|k| k.name() == key.name() && k.id() == key.id()))
        {
            return Err(Malformed("a witness's key twice"));
        }
        let names =
            |pq: fn(&VKey) -> bool| keys.iter().filter(|key| pq(key)).map(VKey::name).collect::<BTreeSet<_>>().len();
        if need == 0 || need > names(|_| true) || pq_need > names(|key| key.kind() == Kind::WitnessPq) {
            return Err(Malformed("more witnesses are needed than there are, or none"));
        }
        Ok(Self { keys, need, pq_need })
    }

    /// The keys.
    pub fn keys(&self) -> &[VKey] {
        &self.keys
    }

    /// Whether a checkpoint meets it.
    ///
    /// # Errors
    /// [`NotWitnessed`] with what is missing or wrong.
    pub fn check(&self, checkpoint: &Authentic<'_>) -> Result<Witnessed, NotWitnessed> {
        let mut times: BTreeMap<&str, u64> = BTreeMap::new();
        let mut pq = BTreeSet::new();
        for Cosigned { key, at } in checkpoint.cosigned(&self.keys)? {
            times.entry(key.name()).and_modify(|before| *before = at.min(*before)).or_insert(at);
            if key.kind() == Kind::WitnessPq {
                pq.insert(key.name());
            }
        }
        let mut ordered: Vec<u64> = times.values().copied().collect();
        ordered.sort_unstable();
        let at = ordered.get(self.need - 1);
        let at = *at.ok_or(NotWitnessed::TooFew { have: times.len(), need: self.need })?;
        if pq.len() < self.pq_need {
            return Err(NotWitnessed::TooFewPq { have: pq.len(), need: self.pq_need });
        }
        Ok(Witnessed { at, witnesses: times.into_iter().map(|(name, at)| (name.into(), at)).collect() })
    }
}

/// What an Ed25519 cosignature signs.
pub fn message_v1(at: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {at}\n{text}").into_bytes()
}

/// What an ML-DSA-44 cosignature signs: a whole tree, from leaf 0.
///
/// # Errors
/// [`Malformed`] when a name or an origin is empty or longer than 255 bytes.
pub fn message_subtree(witness: &str, at: u64, head: &Checkpoint) -> Result<Vec<u8>, Malformed> {
    let mut message = b"subtree/v1\n\0".to_vec();
    let counted = |text: &str, message: &mut Vec<u8>| match u8::try_from(text.len()) {
        Ok(n @ 1..) => {
            message.push(n);
            message.extend_from_slice(text.as_bytes());
            Ok(())
        }
        _ => Err(Malformed("a name of a witness or an origin of 1 to 255 bytes is needed")),
    };
    counted(witness, &mut message)?;
    message.extend_from_slice(&at.to_be_bytes());
    counted(&head.origin, &mut message)?;
    message.extend_from_slice(&0u64.to_be_bytes());
    message.extend_from_slice(&head.size.to_be_bytes());
    message.extend_from_slice(&head.root.0);
    Ok(message)
}

/// Checks one line that says it is of `key`; the time that it states, 0 for none.
pub(crate) fn verify(key: &VKey, note: &Note, head: &Checkpoint, line: &Line) -> Result<u64, Refused> {
    let refused = || Refused::Signature(key.name().into());
    let (at, signature) = line.signature.split_first_chunk().ok_or_else(refused)?;
    let at = u64::from_be_bytes(*at);
    if at > i64::MAX as u64 {
        return Err(refused());
    }
    match key.kind() {
        Kind::Log => return Err(Refused::Kind(key.name().into())),
        Kind::Witness => UnparsedPublicKey::new(&ED25519, key.public()).verify(&message_v1(at, note.text()), signature),
        Kind::WitnessPq => {
            let message = message_subtree(key.name(), at, head)?;
            UnparsedPublicKey::new(&ML_DSA_44, key.public()).verify(&message, signature)
        }
    }
    .map_err(|_| refused())?;
    Ok(at)
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    MlDsa44(Box<PqdsaKeyPair>),
}

/// A key that cosigns. Prints only its public half.
pub struct CosigningKey {
    pair: Pair,
    vkey: VKey,
}

impl CosigningKey {
    /// Of a witness's name, a kind ([`Kind::Witness`] or [`Kind::WitnessPq`]), and the seed of the key, 32 bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the name cannot be a key's, or the kind is a log's.
    pub fn from_seed(name: &str, kind: Kind, seed: &Zeroizing<[u8; 32]>) -> Result<Self, Malformed> {
        let bad = |_| Malformed("no seed of a key");
        let (pair, public) = match kind {
            Kind::Log => return Err(Malformed("a log's key does not cosign")),
            Kind::Witness => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| Malformed("no seed of a key"))?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
            Kind::WitnessPq => {
                let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &seed[..]).map_err(bad)?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::MlDsa44(Box::new(pair)), public)
            }
        };
        Ok(Self { pair, vkey: VKey::new(name, kind, &public)? })
    }

    /// Its public half, to be pinned.
    pub const fn vkey(&self) -> &VKey {
        &self.vkey
    }

    /// Cosigns a checkpoint. Whoever calls this has made durable that this is the largest tree seen of the log.
    pub(crate) fn cosign(&self, at: u64, text: &str, head: &Checkpoint) -> Result<Line, Malformed> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(&message_v1(at, text)).as_ref().to_vec(),
            Pair::MlDsa44(pair) => {
                let message = message_subtree(self.vkey.name(), at, head)?;
                let mut signature = vec![0; ML_DSA_44_SIGNATURE];
                let n = pair.sign(&message, &mut signature).map_err(|_| Malformed("the key gave no signature"))?;
                signature.truncate(n);
                signature
            }
        };
        let signature = [&at.to_be_bytes()[..], &signature].concat();
        Ok(Line { name: self.vkey.name().into(), key: self.vkey.id(), signature })
    }

    /// Cosigns without having seen anything of the log: for tests of those who refuse it.
    ///
    /// # Errors
    /// [`Malformed`] when the head cannot be written.
    pub fn danger_cosign(&self, at: u64, head: &Checkpoint) -> Result<Line, Malformed> {
        self.cosign(at, &head.to_string(), head)
    }
}

impl fmt::Debug for CosigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosigningKey({:?})", self.vkey)
    }
}
