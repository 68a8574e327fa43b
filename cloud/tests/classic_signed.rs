//! Hardened classic nodes sign batches of what was acknowledged (docs/protocol.md 13.4), by RSA-PSS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::classic::*;
use common::*;
use fivefold_core::error::Code;
use fivefold_core::id::Epoch as KeyEpoch;
use fivefold_core::proof::batch::{Claim, Members, NO_PREVIOUS};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{BlindKey, SignedLevel, Subject};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::classic_signature::BatchSignature;
use fivefold_keep::registry::{ClassicProfile, KeyOrigin, Signer};
use fivefold_keep::sign::RsaSigningKey;
use fivefold_waspmote::hardened::signature::Part;
use fivefold_waspmote::hardened::{Epoch, Key, LONGEST, Number, Peer, seal};

const KEY_OF_NODE: [u8; 32] = [1; 32];

/// A node, and what it would sign.
struct Node {
    peer: Peer,
    key: RsaSigningKey,
    sequence: u32,
    open: Vec<(u64, Hash)>,
    number: u32,
    previous: Hash,
}

fn device() -> Classic {
    Classic {
        profile: ClassicProfile::Hardened,
        hardened_key: Some(KEY_OF_NODE),
        signs: true,
        ..Classic::plain(SERIAL, 0x0c01)
    }
}

fn signing_world(peer: Peer) -> (World, Node) {
    let (key, _) = RsaSigningKey::generate().unwrap();
    let mut w = World::new(Vec::new());
    w.source.classics = vec![device()];
    w.source.signers.push(Signer {
        did: device().did(),
        spki: key.spki().to_vec(),
        origin: KeyOrigin::Elsewhere,
        chain: String::new(),
        not_after: u64::MAX,
        certified_at: 1,
        revoked_at: None,
    });
    w.reload();
    (w, Node { peer, key, sequence: 10, open: Vec::new(), number: 0, previous: NO_PREVIOUS })
}

impl Node {
    fn subject(&self) -> Subject {
        let level = if self.peer == Peer::Cloud { SignedLevel::Cloud } else { SignedLevel::Gateway };
        Subject { level, did: device().did(), epoch: KeyEpoch(1), bctx: None }
    }

    /// Seals what it sends, and the gateway hands it on.
    fn bring(&mut self, w: &mut World, clear: &[u8]) -> Option<Code> {
        self.sequence += 1;
        let number = Number { epoch: Epoch(1), sequence: self.sequence, seed: [7; 4] };
        let mut out = [0; LONGEST];
        let len = seal(self.peer, &Key::from_bytes(KEY_OF_NODE), &number, clear, &mut out).unwrap();
        let bytes = said(&out[..len], Carrier::Http, (self.peer == Peer::Gateway).then_some(clear));
        w.now = Millis(w.now.0 + 1000);
        let received = w.now;
        w.post(&[envelope(SERIAL, &bytes, received)]).refused.first().map(|(_, code)| *code)
    }

    /// A reading that is acknowledged.
    fn reading(&mut self, w: &mut World, value: u8) {
        let clear = binary(SERIAL, "node_01", value, &[52, value]);
        assert_eq!(self.bring(w, &clear), None);
        let subject = self.subject();
        let piv = u64::from(self.sequence);
        let blind = BlindKey::classic(&KEY_OF_NODE, subject.level, subject.did, 1);
        self.open.push((piv, subject.leaf(&blind.salt(piv), piv, &clear)));
    }

    /// Parts of the signature over what is open, by that key.
    fn close(&mut self, by: Option<&RsaSigningKey>, change: impl FnOnce(&mut Vec<Hash>, &mut Vec<u8>)) -> Vec<Vec<u8>> {
        self.number += 1;
        let open = std::mem::take(&mut self.open);
        let members = open[1..].iter().fold(Members::one(open[0].0), |m, (piv, _)| m.with(*piv).unwrap());
        let claim = Claim { subject: self.subject(), number: self.number.into(), members, previous: self.previous };
        let (mut leaves, mut nothing) = (open.iter().map(|(_, leaf)| *leaf).collect(), Vec::new());
        let mut signature = Vec::new();
        // What is changed of the leaves is signed; what is changed of the signature is not.
        change(&mut leaves, &mut nothing);
        let stated = claim.over(leaves).unwrap();
        signature.extend(by.unwrap_or(&self.key).sign(&stated).unwrap());
        for at in nothing {
            signature[usize::from(at)] ^= 1;
        }
        self.previous = stated.hash();
        let mut bitmap = [0; 8];
        let said = BatchSignature {
            number: self.number,
            first: u32::try_from(members.first()).unwrap(),
            bitmap: members.bitmap(&mut bitmap),
            signature: &signature,
        };
        let mut bytes = [0; BatchSignature::LONGEST];
        let len = said.emit(&mut bytes).unwrap();
        let Classic { serial: fivefold_waspmote::Serial::V15(serial), .. } = device() else { panic!() };
        let chunks: Vec<&[u8]> = bytes[..len].chunks(100).collect();
        let part = |(index, bytes): (u8, &&[u8])| {
            let mut out = [0; LONGEST];
            let part = Part { serial, batch: self.number, index, count: chunks.len() as u8, bytes };
            let n = part.emit(&mut out).unwrap();
            out[..n].to_vec()
        };
        (0u8..).zip(&chunks).map(part).collect()
    }
}

fn labels(w: &World) -> Vec<&'static str> {
    w.readings().iter().map(|r| r.origin.as_str()).collect()
}

#[test]
fn what_a_hardened_node_signs_is_called_signed_whatever_comes_first_and_its_parts_are_no_readings() {
    for peer in [Peer::Cloud, Peer::Gateway] {
        let (mut w, mut node) = signing_world(peer);
        (1..=3).for_each(|value| node.reading(&mut w, value));
        assert_eq!(labels(&w), ["legacy"; 3]);
        let parts = node.close(None, |_, _| ());
        assert_eq!(parts.len(), 3);
        for part in parts.iter().rev() {
            assert_eq!(node.bring(&mut w, part), None);
        }
        assert_eq!(labels(&w), ["signed"; 3], "{peer:?}");
        // The next is chained to it, also behind a restart in the middle of its parts.
        (4..=5).for_each(|value| node.reading(&mut w, value));
        let parts = node.close(None, |_, _| ());
        assert_eq!(node.bring(&mut w, &parts[0]), None);
        let mut w = w.restart();
        for part in &parts[1..] {
            assert_eq!(node.bring(&mut w, part), None);
        }
        assert_eq!(labels(&w), ["signed"; 5]);
        assert!(w.counts().is_empty(), "{:?}", w.counts());
    }
}

#[test]
fn a_signature_that_does_not_hold_signs_nothing_and_is_counted() {
    type Change = fn(&mut Vec<Hash>, &mut Vec<u8>);
    let (other, _) = RsaSigningKey::generate().unwrap();
    let changes: [(Option<&RsaSigningKey>, Change); 4] = [
        (None, |_, altered| altered.push(17)),
        (Some(&other), |_, _| ()),
        (None, |leaves, _| leaves.swap(0, 1)),
        (None, |leaves, _| leaves[2] = leaves[1]),
    ];
    for (by, change) in changes {
        let (mut w, mut node) = signing_world(Peer::Cloud);
        (1..=3).for_each(|value| node.reading(&mut w, value));
        for part in node.close(by, change) {
            assert_eq!(node.bring(&mut w, &part), None);
        }
        assert_eq!((labels(&w), w.count(Code::EvidenceSignature)), (vec!["legacy"; 3], 1));
    }
}

#[test]
fn readings_that_are_missing_are_waited_for_and_a_lost_batch_is_a_gap() {
    let (mut w, mut node) = signing_world(Peer::Cloud);
    (1..=2).for_each(|value| node.reading(&mut w, value));
    let lost = node.close(None, |_, _| ());
    (3..=4).for_each(|value| node.reading(&mut w, value));
    let parts = node.close(None, |_, _| ());
    drop(lost);
    for part in &parts {
        assert_eq!(node.bring(&mut w, part), None);
    }
    assert!(!labels(&w).contains(&"signed"), "what it is chained to is not known");
    w.now = w.now.plus(97 * 3_600_000);
    let write = w.cloud.handle_timeout(w.now);
    w.cloud.memory().store().commit_now(write).unwrap();
    assert_eq!(w.count(Code::EvidenceIncomplete), 1);
}

#[test]
fn a_node_without_a_key_in_the_book_signs_nothing() {
    let (mut w, mut node) = signing_world(Peer::Cloud);
    w.source.signers.clear();
    w.source.classics[0].signs = false;
    w.reload();
    (1..=2).for_each(|value| node.reading(&mut w, value));
    for part in node.close(None, |_, _| ()) {
        assert_eq!(node.bring(&mut w, &part), None);
    }
    assert_eq!(labels(&w), ["legacy"; 2]);
}
