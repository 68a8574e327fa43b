//! How a software Waspmote of the hardened profile signs what was acknowledged (docs/protocol.md 13.4).
//!
//! Beside its numbers stands what a node has in its EEPROM of it: number and hash of the last statement, durable before
//! anything of its signature leaves.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::id::{Did, Epoch as KeyEpoch};
use fivefold_core::proof::batch::{Claim, Members, NO_PREVIOUS};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{BlindKey, SignedLevel, Subject};
use fivefold_core::wire::classic_signature::BatchSignature;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::sign::RsaSigningKey;
use fivefold_waspmote::hardened::signature::{self, LONGEST_PART, Part};
use fivefold_waspmote::hardened::{Number, OVERHEAD};

/// What a node signs with, and what it is about to sign.
pub(super) struct Signer {
    key: RsaSigningKey,
    level: SignedLevel,
    did: Did,
    /// Readings in a batch.
    most: u8,
    state: PathBuf,
    number: u32,
    previous: Hash,
    open: Option<Open>,
}

/// A batch that is not signed yet: its leaves, in order of their numbers.
struct Open {
    subject: Subject,
    members: Members,
    leaves: Vec<Hash>,
}

impl Signer {
    /// With the key of that file (PKCS #8, DER); what it signed last stands beside `state`.
    pub(super) fn open(
        file: &Path,
        state: &Path,
        level: SignedLevel,
        serial: [u8; 8],
        most: u8,
    ) -> anyhow::Result<Self> {
        let key = RsaSigningKey::from_pkcs8(&files::read_private(file)?).with_context(|| {
            format!("{} is no RSA key (PKCS #8, DER); make one: fivefold device certify --make", file.display())
        })?;
        let mut name = state.as_os_str().to_owned();
        name.push(".signed");
        let state = PathBuf::from(name);
        let damaged = || format!("{} is damaged", state.display());
        let (number, previous) = match std::fs::read_to_string(&state) {
            Ok(text) => {
                let (number, hash) = text.trim().split_once(' ').with_context(damaged)?;
                let mut previous = [0; 32];
                hex::decode_to_slice(hash, &mut previous).with_context(damaged)?;
                (number.parse().with_context(damaged)?, Hash(previous))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (0, NO_PREVIOUS),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", state.display())),
        };
        Ok(Self { key, level, did: Did(serial), most, state, number, previous, open: None })
    }

    /// A frame was acknowledged. Out come the parts of the signature over the batch before, if this one is not in it, and over
    /// the batch that is full with it.
    pub(super) fn take(
        &mut self,
        blind: &BlindKey,
        number: &Number,
        frame: &[u8],
        room: usize,
    ) -> anyhow::Result<Vec<Signed>> {
        // A greater epoch no statement can name.
        let Ok(epoch) = u16::try_from(number.epoch.0) else { return Ok(Vec::new()) };
        let subject = Subject { level: self.level, did: self.did, epoch: KeyEpoch(epoch), bctx: None };
        let piv = u64::from(number.sequence);
        let leaf = subject.leaf(&blind.salt(piv), piv, frame);
        let joined = self.open.as_ref().filter(|o| o.subject == subject).and_then(|o| o.members.with(piv));
        let mut signed = Vec::new();
        match (joined, &mut self.open) {
            (Some(members), Some(open)) => {
                open.members = members;
                open.leaves.push(leaf);
            }
            _ => {
                signed.extend(self.close(room)?);
                self.open = Some(Open { subject, members: Members::one(piv), leaves: vec![leaf] });
            }
        }
        if self.open.as_ref().is_some_and(|o| o.leaves.len() >= usize::from(self.most)) {
            signed.extend(self.close(room)?);
        }
        Ok(signed)
    }

    /// Signs what is open.
    fn close(&mut self, room: usize) -> anyhow::Result<Option<Signed>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let number = self.number.checked_add(1).context("this node has used all numbers of batches")?;
        let claim =
            Claim { subject: open.subject, number: number.into(), members: open.members, previous: self.previous };
        let stated = claim.over(open.leaves).context("a batch that is none")?;
        let signature = self.key.sign(&stated)?;
        let text = format!("{number} {}\n", hex::encode(stated.hash().0));
        files::write(&self.state, Readers::Owner, text.as_bytes())?;
        (self.number, self.previous) = (number, stated.hash());
        let first = u32::try_from(open.members.first()).context("a sequence of four bytes")?;
        let mut bitmap = [0; 8];
        let said = BatchSignature { number, first, bitmap: open.members.bitmap(&mut bitmap), signature: &signature };
        let mut bytes = [0; BatchSignature::LONGEST];
        let len = said.emit(&mut bytes)?;
        let whole = bytes.get(..len).unwrap_or_default();
        let each = room.saturating_sub(OVERHEAD + signature::HEADER).clamp(1, LONGEST_PART);
        let count = u8::try_from(len.div_ceil(each)).context("a signature has at most 16 parts")?;
        let part = |(index, bytes)| -> anyhow::Result<Vec<u8>> {
            let mut out = vec![0; signature::HEADER + LONGEST_PART];
            let n = Part { serial: self.did.0, batch: number, index, count, bytes }.emit(&mut out)?;
            out.truncate(n);
            Ok(out)
        };
        let parts = (0u8..).zip(whole.chunks(each)).map(part).collect::<anyhow::Result<_>>()?;
        Ok(Some(Signed { batch: number, readings: open.members.count(), parts }))
    }
}

/// A signature as it goes out: frames in clear, to be sealed.
pub(super) struct Signed {
    /// Number of the batch.
    pub(super) batch: u32,
    /// Readings in it.
    pub(super) readings: u32,
    /// The frames.
    pub(super) parts: Vec<Vec<u8>>,
}
