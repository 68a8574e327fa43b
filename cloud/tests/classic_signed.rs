//! Hardened classic nodes sign batches of what was acknowledged (docs/protocol.md 13.4), by RSA-PSS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::classic::*;
use common::*;
use fivefold_cloud::store::{Published, PublishedRow, Write};
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
        let frame = self.frame(clear);
        self.hand_on(w, &frame, clear)
    }

    fn frame(&mut self, clear: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let number = Number { epoch: Epoch(1), sequence: self.sequence, seed: [7; 4] };
        sealed(self.peer, KEY_OF_NODE, &number, clear)
    }

    fn hand_on(&self, w: &mut World, frame: &[u8], clear: &[u8]) -> Option<Code> {
        let bytes = said(frame, Carrier::Http, (self.peer == Peer::Gateway).then_some(clear));
        let received = later(w);
        w.post(&[envelope(SERIAL, &bytes, received)]).refused.first().map(|(_, code)| *code)
    }

    /// A reading that is acknowledged.
    fn reading(&mut self, w: &mut World, value: u8) {
        let clear = reading_of(value);
        assert_eq!(self.bring(w, &clear), None);
        self.sign_it(&clear);
    }

    /// What went out last joins the batch.
    fn sign_it(&mut self, clear: &[u8]) {
        let subject = self.subject();
        let piv = u64::from(self.sequence);
        let blind = BlindKey::classic(&KEY_OF_NODE, subject.level, subject.did, 1);
        self.open.push((piv, subject.leaf(&blind.salt(piv), piv, clear)));
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
        parts(&BatchSignature {
            number: self.number,
            first: u32::try_from(members.first()).unwrap(),
            bitmap: members.bitmap(&mut bitmap),
            signature: &signature,
        })
    }
}

fn parts(said: &BatchSignature<'_>) -> Vec<Vec<u8>> {
    let mut bytes = [0; BatchSignature::LONGEST];
    let len = said.emit(&mut bytes).unwrap();
    let Classic { serial: fivefold_waspmote::Serial::V15(serial), .. } = device() else { panic!() };
    let chunks: Vec<&[u8]> = bytes[..len].chunks(100).collect();
    let part = |(index, bytes): (u8, &&[u8])| {
        let mut out = [0; LONGEST];
        let part = Part { serial, batch: said.number, index, count: chunks.len() as u8, bytes };
        let n = part.emit(&mut out).unwrap();
        out[..n].to_vec()
    };
    (0u8..).zip(&chunks).map(part).collect()
}

fn reading_of(value: u8) -> Vec<u8> {
    binary(SERIAL, "node_01", value, &[52, value])
}

fn sealed(peer: Peer, key: [u8; 32], number: &Number, clear: &[u8]) -> Vec<u8> {
    let mut out = [0; LONGEST];
    let len = seal(peer, &Key::from_bytes(key), number, clear, &mut out).unwrap();
    out[..len].to_vec()
}

fn later(w: &mut World) -> Millis {
    w.now = Millis(w.now.0 + 1000);
    w.now
}

/// A gateway says that it opened this frame, and that this was in it.
fn claim_to_open(w: &mut World, is_primary: bool, frame: &[u8], clear: &[u8]) {
    let bytes = said(frame, Carrier::Http, Some(clear));
    let received = later(w);
    let envelope = envelope(SERIAL, &bytes, received);
    if is_primary {
        w.post(&[envelope]);
    } else {
        w.post_second(&[envelope]);
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

#[test]
fn no_gateway_destroys_or_accuses_what_it_has_not_the_key_of() {
    for (peer, liar_is_primary) in [(Peer::Cloud, false), (Peer::Cloud, true), (Peer::Gateway, false)] {
        let (mut w, mut node) = signing_world(peer);
        (1..=3).for_each(|value| node.reading(&mut w, value));
        let true_ones = node.close(None, |_, _| ());
        for part in &true_ones[..2] {
            assert_eq!(node.bring(&mut w, part), None);
        }
        // Of a batch far ahead, of another division of this batch, and one whole: over the sequences of its readings, with a
        // signature of nobody.
        let of = |number, signature| BatchSignature { number, first: 11, bitmap: &[0b111], signature };
        let far = parts(&of(1_000_000_000, &[0x11; 256]));
        let other = parts(&of(1, &[0x12; 384]));
        let whole = parts(&of(1, &[0x13; 256]));
        let invented: Vec<_> = [&far[..1], &other[..1], &whole[..]].concat();
        for (sequence, clear) in (1000..).zip(&invented) {
            let frame = sealed(Peer::Gateway, [9; 32], &Number { epoch: Epoch(1), sequence, seed: [7; 4] }, clear);
            claim_to_open(&mut w, liar_is_primary, &frame, clear);
        }
        assert_eq!(w.count(Code::EvidenceSignature), 0, "{peer:?}");
        assert_eq!(node.bring(&mut w, &true_ones[2]), None);
        assert_eq!((labels(&w), w.count(Code::EvidenceSignature)), (vec!["signed"; 3], 0), "{peer:?}");
    }
}

#[test]
fn what_a_gateway_without_the_key_tells_first_makes_nothing_of_who_has_it_vanish() {
    for is_true in [false, true] {
        let (mut w, mut node) = signing_world(Peer::Gateway);
        for value in 1..=3 {
            let clear = reading_of(value);
            let frame = node.frame(&clear);
            let told = if is_true { clear.clone() } else { reading_of(99) };
            claim_to_open(&mut w, false, &frame, &told);
            assert_eq!(node.hand_on(&mut w, &frame, &clear), None);
            node.sign_it(&clear);
        }
        for part in node.close(None, |_, _| ()) {
            let frame = node.frame(&part);
            claim_to_open(&mut w, false, &frame, &reading_of(99));
            assert_eq!(node.hand_on(&mut w, &frame, &part), None);
        }
        let signed = labels(&w).iter().filter(|l| **l == "signed").count();
        assert_eq!((signed, w.count(Code::EvidenceSignature)), (3, 0), "told truly: {is_true}");
    }
}

#[test]
fn a_crash_between_two_writes_loses_no_signature_of_a_classic_node() {
    for (peer, comes_again) in [Peer::Cloud, Peer::Gateway].into_iter().flat_map(|p| [(p, true), (p, false)]) {
        let (mut w, mut node) = signing_world(peer);
        (1..=3).for_each(|value| node.reading(&mut w, value));
        let parts = node.close(None, |_, _| ());
        for part in &parts[..2] {
            assert_eq!(node.bring(&mut w, part), None);
        }
        let frame = node.frame(&parts[2]);
        let bytes = said(&frame, Carrier::Http, (peer == Peer::Gateway).then_some(&parts[2][..]));
        let received = later(&mut w);
        let body = w.gateway.batch(&[envelope(SERIAL, &bytes, received)]);
        let mut judged = w.cloud.judge(&w.gateway.proven, &body, w.now).unwrap();
        let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
        let committed = w.cloud.memory().store().commit_now((*write).clone()).unwrap();
        // What was verified is not written.
        assert!(!w.cloud.conclude(judged, write, committed).write.is_empty());
        let mut w = w.restart();
        assert_eq!(labels(&w), ["legacy"; 3]);
        // The gateway sends it again; or it is given up meanwhile, and the node goes on.
        if comes_again {
            w.post_body(&body).unwrap();
        } else {
            node.reading(&mut w, 4);
        }
        assert_eq!(labels(&w)[..3], ["signed"; 3], "{peer:?}, {comes_again}");
        assert_eq!(w.count(Code::EvidenceSignature), 0);
    }
}

#[test]
fn ev_02_leaves_a_node_time_for_batches_of_64_and_counts_each_reading_once() {
    let overdue = |w: &World| {
        let write = w.cloud.handle_timeout(w.now);
        w.cloud.memory().store().commit_now(write).unwrap();
        w.count(Code::EvidenceOverdue)
    };
    let (mut w, mut node) = signing_world(Peer::Gateway);
    (0..88).for_each(|value| node.reading(&mut w, value));
    let reports: Vec<Vec<u8>> =
        (88..128).map(|value| said(&node.frame(&reading_of(value)), Carrier::Http, Some(&reading_of(value)))).collect();
    let received = later(&mut w);
    let envelopes: Vec<_> = reports.iter().map(|report| envelope(SERIAL, report, received)).collect();
    let body = w.gateway.batch(&envelopes);
    w.post_body(&body).unwrap();
    assert_eq!(overdue(&w), 0, "one batch waits while the node signs the one before");
    let mut w = w.restart();
    w.post_body(&body).unwrap();
    assert_eq!(overdue(&w), 0, "they came again");
    node.reading(&mut w, 128);
    assert_eq!(overdue(&w), 1);
}

#[test]
fn parts_that_a_store_of_before_had_count_with_those_that_come_after() {
    for peer in [Peer::Cloud, Peer::Gateway] {
        let (mut w, mut node) = signing_world(peer);
        (1..=3).for_each(|value| node.reading(&mut w, value));
        let parts = node.close(None, |_, _| ());
        for part in &parts[..2] {
            assert_eq!(node.bring(&mut w, part), None);
        }
        // As the version before left it.
        let mut w = w.stopped(|path| older::take_back(path, 12));
        assert_eq!(node.bring(&mut w, &parts[2]), None);
        assert_eq!(labels(&w), ["signed"; 3], "{peer:?}");
    }
}

#[test]
fn a_broker_is_told_once_more_of_values_that_it_has_when_their_signature_was_verified() {
    let (mut w, mut node) = signing_world(Peer::Cloud);
    let read = |w: &World| {
        let new = w.cloud.memory().read(|r| r.to_be_published(100)).unwrap();
        let (raised, next) = w.cloud.memory().read(|r| r.raised_to_be_published()).unwrap();
        let told = |rows: &[PublishedRow]| rows.iter().map(|r| (r.id, r.proven.as_str())).collect::<Vec<_>>();
        (told(&new), told(&raised), next)
    };
    let acknowledged = |w: &World, published: Published| {
        let write = Write { published: Some(published), ..Write::default() };
        w.cloud.memory().store().commit_now(write).unwrap();
    };
    (1..=2).for_each(|value| node.reading(&mut w, value));
    let (new, raised, _) = read(&w);
    assert_eq!((&new[..], &raised[..]), (&[(1, "legacy"), (2, "legacy")][..], &[][..]));
    // The broker has the first one alone when all are signed.
    acknowledged(&w, Published { value: 1, raised: 0 });
    for part in node.close(None, |_, _| ()) {
        assert_eq!(node.bring(&mut w, &part), None);
    }
    let (new, raised, next) = read(&w);
    assert_eq!((&new[..], &raised[..]), (&[(2, "signed")][..], &[(1, "signed")][..]));
    acknowledged(&w, Published { value: 2, raised: 0 });
    acknowledged(&w, next);
    let w = w.restart();
    assert_eq!((read(&w).0, read(&w).1), (Vec::new(), Vec::new()), "and not again");
    assert_eq!(w.cloud.memory().read(|r| r.published()).unwrap(), Published { value: 2, raised: 2 });
}
