//! Bundles that must not verify, each for one reason.

use anyhow::Context as _;
use fivefold_core::proof::Sign1;
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::statement::{CONTEXT, Salt, Statement, Subject};
use fivefold_evidence::bundle::{Bundle, Path};
use fivefold_evidence::verify::Step;
use fivefold_keep::ca::{Authority, chain_der};
use fivefold_sim::deployment::Deployment;
use fivefold_sim::family::wall;
use fivefold_sim::gateway::GatewayStation;

use super::Sample;

/// What is at hand to break a bundle with.
pub(super) struct Case<'c> {
    /// It.
    pub(super) bundle: &'c Bundle<'c>,
    /// All of its village.
    pub(super) all: &'c [Bundle<'c>],
    /// Certifies for it.
    pub(super) deployment: &'c Deployment,
    /// Somebody with a key and a certificate who is not the device.
    pub(super) gateway: &'c GatewayStation,
}

type Made = anyhow::Result<Option<Vec<u8>>>;

/// A way to break a bundle, and the step that must see it. It makes none where the village has not what it needs.
pub(super) struct Kind {
    what: &'static str,
    step: Step,
    make: fn(&Case<'_>) -> Made,
}

const fn kind(what: &'static str, step: Step, make: fn(&Case<'_>) -> Made) -> Kind {
    Kind { what, step, make }
}

/// All.
pub(super) const KINDS: [Kind; 16] = [
    kind("a byte of the reading changed", Step::Path, |c| {
        let tbs = changed(c.bundle.tbs);
        emit(&Bundle { tbs: &tbs, ..c.bundle.clone() })
    }),
    kind("another salt", Step::Path, |c| emit(&Bundle { salt: Salt([7; 16]), ..c.bundle.clone() })),
    kind("another reading of its batch in its place", Step::Path, |c| {
        let Some(other) = c.neighbour() else { return Ok(None) };
        emit(&Bundle { tbs: other.tbs, salt: other.salt, ..c.bundle.clone() })
    }),
    kind("the path of another reading", Step::Path, |c| {
        let Some(other) = c.neighbour() else { return Ok(None) };
        emit(&Bundle { path: other.path.clone(), ..c.bundle.clone() })
    }),
    kind("the device's signature changed", Step::Signature, |c| {
        let signed = changed(c.bundle.signed);
        emit(&Bundle { signed: &signed, ..c.bundle.clone() })
    }),
    kind("the certificate of another device", Step::Signature, |c| {
        let Some(other) = c.other_device() else { return Ok(None) };
        emit(&Bundle { chain: other.chain.clone(), ..c.bundle.clone() })
    }),
    kind("a reading never sent, signed by the gateway in the device's name", Step::Signature, |c| c.forged(None)),
    kind("a reading never sent, signed and certified as the gateway's", Step::Chain, |c| {
        let (name, spki) = (c.gateway.proven.name(), c.gateway.receipt_key().spki());
        let chain = c.deployment.authority().certify_receipts(name, spki, wall(0).0 / 1000 - 60, 90)?.chain;
        c.forged(Some(&chain_der(&chain)))
    }),
    kind("certified by another authority of the same name", Step::Chain, |c| {
        let (subject, ..) = c.reading()?;
        let spki = c.bundle_spki()?;
        let stranger = Authority::create("village")?.0;
        let chain = chain_der(&stranger.certify_classic(subject.did, &spki, wall(0).0 / 1000 - 60, 90)?.chain);
        emit(&Bundle { chain: chain.iter().map(Vec::as_slice).collect(), ..c.bundle.clone() })
    }),
    kind("a byte of the certificate's signature changed", Step::Chain, |c| {
        let own = changed(c.bundle.chain.first().context("no certificate")?);
        emit(&Bundle { chain: vec![&own], ..c.bundle.clone() })
    }),
    kind("the enrolment of another device", Step::Enrolment, |c| {
        let Some(other) = c.other_device() else { return Ok(None) };
        emit(&Bundle { enrolment: other.enrolment, ..c.bundle.clone() })
    }),
    kind("the policy of another device", Step::Policy, |c| {
        let Some(other) = c.other_device() else { return Ok(None) };
        emit(&Bundle { policy: other.policy, ..c.bundle.clone() })
    }),
    kind("the batch proven by another entry", Step::Log, |c| {
        emit(&Bundle { proof: c.bundle.policy.proof, ..c.bundle.clone() })
    }),
    kind("a witness too few", Step::Witnesses, |c| {
        let end = c.bundle.proof.rfind('\u{2014}').context("nobody signed")?;
        emit(&Bundle { proof: c.bundle.proof.get(..end).context("no text")?, ..c.bundle.clone() })
    }),
    kind("a byte of what a gateway heard changed", Step::Receipts, |c| {
        let mut receipts = c.bundle.receipts.clone();
        let Some(first) = receipts.first_mut() else { return Ok(None) };
        let envelope = changed(first.envelope);
        first.envelope = &envelope;
        emit(&Bundle { receipts: receipts.clone(), ..c.bundle.clone() })
    }),
    kind("cut in the middle", Step::Decode, |c| {
        let mut bytes = c.bundle.emit()?;
        bytes.truncate(bytes.len() / 2);
        Ok(Some(bytes))
    }),
];

impl Case<'_> {
    /// The bundle broken in this way, if it can be.
    pub(super) fn made(&self, kind: &Kind) -> anyhow::Result<Option<Sample>> {
        let bytes = (kind.make)(self).with_context(|| kind.what)?;
        Ok(bytes.map(|bytes| Sample { what: kind.what, step: Some(kind.step), bytes }))
    }

    fn neighbour(&self) -> Option<&Bundle<'_>> {
        self.all.iter().find(|b| b.signed == self.bundle.signed && b.tbs != self.bundle.tbs)
    }

    fn other_device(&self) -> Option<&Bundle<'_>> {
        self.all.iter().find(|b| b.chain != self.bundle.chain)
    }

    fn reading(&self) -> anyhow::Result<(Subject, u64, &[u8])> {
        Subject::parse_tbs(self.bundle.tbs).map_err(|e| anyhow::anyhow!(e.reason))
    }

    fn bundle_spki(&self) -> anyhow::Result<Vec<u8>> {
        let record = fivefold_evidence::record::Enrolment::parse(self.bundle.enrolment.record);
        Ok(record.map_err(|e| anyhow::anyhow!(e.reason))?.spki.to_vec())
    }

    /// A batch of one reading under the device's name that the device never sent, signed by the gateway's key.
    fn forged(&self, chain: Option<&[Vec<u8>]>) -> Made {
        let (subject, piv, payload) = self.reading()?;
        let payload = changed(payload);
        let salt = Salt([9; 16]);
        let mut tbs = vec![0; payload.len() + 64];
        let len = subject.emit_tbs(piv, &payload, &mut tbs)?;
        tbs.truncate(len);
        let leaves = [Hash::of_leaf([&salt.0[..], &tbs])];
        let (root, previous) = (root(&leaves), Hash([0; 32]));
        let statement = Statement { subject, number: 1, first_piv: piv, bitmap: &[1], root, previous };
        let mut stated = [0; Statement::LONGEST];
        let len = statement.emit(&mut stated)?;
        let mut signed = vec![0; len + Sign1::OVERHEAD];
        let stated = stated.get(..len).context("too long")?;
        let len = Sign1::seal(self.gateway.receipt_key(), CONTEXT, stated, &mut signed)?;
        signed.truncate(len);
        let chain = match chain {
            Some(chain) => chain.iter().map(Vec::as_slice).collect(),
            None => self.bundle.chain.clone(),
        };
        emit(&Bundle { tbs: &tbs, salt, path: Path::of(&leaves, 0)?, signed: &signed, chain, ..self.bundle.clone() })
    }
}

fn emit(bundle: &Bundle<'_>) -> Made {
    Ok(Some(bundle.emit()?))
}

/// The same but for a bit of the last byte.
fn changed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes
}
