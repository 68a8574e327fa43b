//! A device's end of signed batches, built from core.

use std::collections::BTreeMap;
use std::sync::Arc;

use fivefold_core::id::{BootContext, Epoch};
use fivefold_core::profile::{Mode, Profile, Sign as Signed};
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::statement::{BlindKey, CONTEXT, SignedLevel, Statement, Subject};
use fivefold_core::proof::{Header, Sign as _, ToBeSigned};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::control::{Batch, Leaves, Uplink};
use fivefold_keep::ca::Authority;
use fivefold_keep::device_key::{DeviceAlg, DeviceSigningKey};
use fivefold_keep::registry;

use super::{NOW, Node, Sent, World, device};

/// A batch that was signed.
#[derive(Clone, Debug)]
pub struct Closed {
    pub number: u64,
    pub first: u64,
    pub bitmap: Vec<u8>,
    pub leaves: Vec<Hash>,
    pub previous: Hash,
    pub signature: [u8; 64],
}

#[derive(Clone)]
pub struct Signer {
    key: Arc<DeviceSigningKey>,
    subject: Subject,
    psk: bool,
    number: u64,
    previous: Hash,
    open: Vec<(u64, Hash)>,
    statements: BTreeMap<u64, Hash>,
}

/// A world with one device that signs, whose key is in the book.
pub fn signing_world(profile: Profile, mode: Mode) -> (World, Node, Signer) {
    signing_world_by(profile, mode, DeviceAlg::P256)
}

/// The same, whose key is of either kind.
pub fn signing_world_by(profile: Profile, mode: Mode, alg: DeviceAlg) -> (World, Node, Signer) {
    let mut one = device(0x0a17, profile, mode);
    one.policy.sign = Signed::Batch;
    let mut world = World::new(vec![one.clone()]);
    let signer = Signer::by(&one, alg);
    signer.enter(&mut world);
    (world, Node::of(&one), signer)
}

impl Signer {
    pub fn new(d: &registry::Device) -> Self {
        Self::by(d, DeviceAlg::P256)
    }

    pub fn by(d: &registry::Device, alg: DeviceAlg) -> Self {
        let (key, _) = DeviceSigningKey::generate(alg).unwrap();
        let level = if d.policy.profile.has_e3() { SignedLevel::Cloud } else { SignedLevel::Gateway };
        Self {
            key: Arc::new(key),
            subject: Subject { level, did: d.did, epoch: d.epoch, bctx: None },
            psk: false,
            number: 1,
            previous: Hash([0; 32]),
            open: Vec::new(),
            statements: BTreeMap::new(),
        }
    }

    pub fn boot(&mut self, boot: u8) {
        self.subject = Subject { epoch: Epoch(0), bctx: Some(BootContext([boot; 8])), ..self.subject };
        self.psk = true;
    }

    /// Puts its key into the book.
    pub fn enter(&self, world: &mut World) {
        world.source.signers.push(registry::Signer {
            did: self.subject.did,
            spki: self.key.public().spki().to_vec(),
            origin: registry::KeyOrigin::Device,
            chain: String::new(),
            not_after: u64::MAX,
            certified_at: 1,
            revoked_at: None,
        });
        world.reload();
    }

    /// Its key is certified.
    pub fn certify(&self, world: &mut World, authority: &Authority) {
        let certified = authority.certify_device(self.subject.did, &self.key.public(), NOW.0 / 1000 - 60, 365).unwrap();
        for signer in world.source.signers.iter_mut().filter(|s| s.did == self.subject.did) {
            signer.chain.clone_from(&certified.chain);
        }
        world.reload();
    }

    /// Takes its key out of the book.
    pub fn leave(&self, world: &mut World) {
        world.source.signers.retain(|s| s.did != self.subject.did);
        world.reload();
    }

    /// Its key is revoked.
    pub fn revoke(&self, world: &mut World, now: Millis) {
        let keys = world.source.signers.iter_mut().filter(|s| s.did == self.subject.did);
        keys.for_each(|s| s.revoked_at = Some(now.0 / 1000));
        world.reload();
    }

    /// A reading is sealed, and joins the open batch.
    pub fn reading(&mut self, node: &mut Node, payload: &[u8]) -> Sent {
        let sent = node.send(payload);
        let piv = sent.request.piv.value();
        let blind = if self.psk { BlindKey::bootstrap(&[9; 32], self.subject.did) } else { BlindKey::new([7; 32]) };
        self.open.push((piv, self.subject.leaf(&blind.salt(piv), piv, payload)));
        sent
    }

    /// Signs what is open, and chains the next to it.
    pub fn close(&mut self) -> Closed {
        let first = self.open[0].0;
        let bits = self.open.iter().fold(0u64, |bits, (piv, _)| bits | 1 << (piv - first));
        let len = 8 - bits.leading_zeros() as usize / 8;
        let mut batch = Closed {
            number: self.number,
            first,
            bitmap: bits.to_le_bytes()[..len].to_vec(),
            leaves: self.open.drain(..).map(|(_, leaf)| leaf).collect(),
            previous: self.previous,
            signature: [0; 64],
        };
        batch.signature = self.sign(&batch);
        self.number += 1;
        self.settled(&batch);
        batch
    }

    fn settled(&mut self, batch: &Closed) {
        self.previous = self.hash(batch);
        self.statements.insert(batch.number, self.previous);
    }

    /// Signs again over those of the bitmap alone.
    pub fn again(&mut self, batch: &Closed, bits: u64) -> Closed {
        let mut all = u64::from_le_bytes(std::array::from_fn(|i| batch.bitmap.get(i).copied().unwrap_or(0)));
        let mut leaves = Vec::new();
        for leaf in &batch.leaves {
            let j = all.trailing_zeros();
            all &= all - 1;
            if bits >> j & 1 == 1 {
                leaves.push(*leaf);
            }
        }
        let len = 8 - bits.leading_zeros() as usize / 8;
        let mut again = Closed { bitmap: bits.to_le_bytes()[..len].to_vec(), leaves, ..batch.clone() };
        again.signature = self.sign(&again);
        self.settled(&again);
        again
    }

    /// The same batch, with another statement before it.
    pub fn chained(&mut self, batch: &Closed, previous: Hash) -> Closed {
        let mut again = Closed { previous, ..batch.clone() };
        again.signature = self.sign(&again);
        self.settled(&again);
        again
    }

    pub fn statement(&self, number: u64) -> Hash {
        self.statements[&number]
    }

    fn bytes(&self, batch: &Closed) -> Vec<u8> {
        let mut out = [0; Statement::LONGEST];
        let statement = Statement {
            subject: self.subject,
            number: batch.number,
            first_piv: batch.first,
            bitmap: &batch.bitmap,
            root: root(&batch.leaves),
            previous: batch.previous,
        };
        let len = statement.emit(&mut out).unwrap();
        out[..len].to_vec()
    }

    fn hash(&self, batch: &Closed) -> Hash {
        Hash(sha256(&[&self.bytes(batch)]))
    }

    pub fn sign(&self, batch: &Closed) -> [u8; 64] {
        let header = Header { alg: self.key.alg(), key: self.key.key_name() };
        let statement = self.bytes(batch);
        self.key.sign(&ToBeSigned::new(header, CONTEXT, &statement).parts()).unwrap().0
    }
}

fn map(uplink: &Uplink<'_>) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let len = uplink.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

/// Item 1.
pub fn signature_item(b: &Closed) -> Vec<u8> {
    let (number, first_piv, bitmap) = (b.number, b.first, &b.bitmap[..]);
    let batch = Batch::Signature { number, first_piv, bitmap, signature: &b.signature };
    map(&Uplink { batch: Some(batch), ..Uplink::default() })
}

/// Item 6.
pub fn leaves_item(b: &Closed, first: usize, count: usize) -> Vec<u8> {
    let hashes: Vec<u8> = b.leaves[first..first + count].iter().flat_map(|h| h.0).collect();
    let leaves = Leaves { number: b.number, first_index: first as u8, hashes: &hashes };
    map(&Uplink { leaves: Some(leaves), ..Uplink::default() })
}

pub mod carry {
    use super::*;

    /// Item 1 in parts of so many bytes.
    pub fn parts(b: &Closed, size: usize) -> Vec<Vec<u8>> {
        let whole = signature_item(b);
        let value = &whole[2..];
        let count = value.len().div_ceil(size) as u16;
        let part = |(index, bytes): (usize, &[u8])| {
            let batch = Batch::Chunk { number: b.number, index: index as u16, count, bytes };
            map(&Uplink { batch: Some(batch), ..Uplink::default() })
        };
        value.chunks(size).enumerate().map(part).collect()
    }
}

/// A second signature that any other than a strict verifier takes for the same: S + L, where L is the order of Ed25519's group.
pub fn malleated(signature: &[u8]) -> [u8; 64] {
    const ORDER: [u8; 16] =
        [0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE, 0x14];
    let mut order = [0; 32];
    order[..16].copy_from_slice(&ORDER);
    order[31] = 0x10;
    let (mut more, mut carry): ([u8; 64], u16) = (signature.try_into().unwrap(), 0);
    for (byte, order) in more[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    more
}
