//! One trust file, many bundles: the readings of a batch share its signature, its chain and their checkpoints, and what held
//! once is not computed again when the very same bytes come again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use fivefold_core::proof::{KeyName, Sign1, statement};
use fivefold_keep::sign::VerifyingKey;

use super::{Report, Step, through};
use crate::bundle::{Bundle, Bundles};
use crate::chain::{self, Certified, Whom, Why};
use crate::logged::Place;
use crate::trust::Trust;

/// Verifies bundles by one trust file. What it answers is what [`verify_file`](super::verify_file) answers, sooner.
pub struct Verifier<'t> {
    pub(crate) trust: &'t Trust,
    /// By the whole text of a checkpoint, with all its signatures.
    pub(crate) places: Known<String, Place>,
    /// By all certificates.
    chains: Known<(Vec<Vec<u8>>, Whom), Certified>,
    /// By the whole COSE_Sign1, the key, and what it was signed for.
    signed: Known<[Vec<u8>; 3], ()>,
}

impl<'t> Verifier<'t> {
    /// By this trust file.
    pub fn new(trust: &'t Trust) -> Self {
        Self { trust, places: Known::new(), chains: Known::new(), signed: Known::new() }
    }

    /// Reads all bundles of a file and says of each what it proves. A file that cannot be read to its end is one answer.
    pub fn file(&self, file: &[u8]) -> Vec<Report> {
        match Bundles::new(file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Err(e) => vec![Report::refused(&Step::Decode.malformed(e))],
            Ok(bundles) => bundles.iter().map(|bundle| self.report(bundle)).collect(),
        }
    }

    /// What one bundle proves, for programs.
    pub fn report(&self, bundle: &Bundle<'_>) -> Report {
        match through(bundle, self) {
            Ok(proven) => Report::proven(&proven),
            Err(refused) => Report::refused(&refused),
        }
    }

    /// Checks that the key with this SubjectPublicKeyInfo signed a COSE_Sign1.
    pub(super) fn signed(&self, sign1: &[u8], spki: &[u8], context: &[u8]) -> Result<(), Why> {
        self.signed.or([sign1, spki, context].map(<[u8]>::to_vec), |_| {
            let signed = Sign1::parse(sign1).map_err(|e| e.reason)?;
            if signed.header.key != KeyName::of(spki) {
                return Err("signed by another key");
            }
            // RSA is for batches of devices, and never a gateway's.
            let of_device = context == statement::CONTEXT;
            let key = if of_device { VerifyingKey::of_device(spki) } else { VerifyingKey::from_spki(spki) };
            let key = key.map_err(|_| "the key is none that signs such a thing")?;
            signed.verify(&key, context).map(drop).map_err(|e| e.reason)
        })
    }

    /// Follows a chain to one of the pinned operators.
    pub(super) fn certified(&self, chain: &[&[u8]], whom: Whom) -> Result<Certified, Why> {
        let key = (chain.iter().map(|der| der.to_vec()).collect(), whom);
        self.chains.or(key, |_| chain::follow(chain, &self.trust.operators, whom))
    }
}

impl fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.trust)
    }
}

/// What held, by everything that it depends on but the trust file, byte for byte. What was refused is not kept, and what differs in
/// one bit is not found: it is verified like anything that is new. So no more is kept than the files are long.
pub(crate) struct Known<K, T>(RefCell<HashMap<K, T>>);

impl<K: Eq + Hash, T: Clone> Known<K, T> {
    fn new() -> Self {
        Self(RefCell::default())
    }

    /// What is known of `of`, or what `check` says of it now.
    pub(crate) fn or<E>(&self, of: K, check: impl FnOnce(&K) -> Result<T, E>) -> Result<T, E> {
        if let Some(known) = self.0.borrow().get(&of) {
            return Ok(known.clone());
        }
        let held = check(&of)?;
        self.0.borrow_mut().insert(of, held.clone());
        Ok(held)
    }
}
