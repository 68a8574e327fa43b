//! Signed batches: what raises a label, what does not, and what is counted (docs/protocol.md 13.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::signer::{Signer, carry, leaves_item, malleated, signature_item, signing_world, signing_world_by};
use common::*;
use fivefold_cloud::store::{Query, State};
use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::wire::control::{BatchState, Downlink};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_keep::device_key::DeviceAlg;

const HOUR: u64 = 3600 * 1000;

/// What the answer to the last of these messages says of a batch.
fn told(node: &Node, sent: &Sent, reply: &Answers) -> Option<(u64, u8, Vec<u8>)> {
    let (_, payload, _) = node.open(sent, reply.answers.last()?);
    if payload.is_empty() {
        return None;
    }
    match Downlink::parse(&payload).unwrap().batch? {
        BatchState::Complete { number } => Some((number, 0, vec![])),
        BatchState::SignAgain { number, bitmap } => Some((number, 1, bitmap.to_vec())),
        BatchState::SendLeaves { number } => Some((number, 2, vec![])),
    }
}

fn labels(world: &World) -> Vec<&'static str> {
    let mut rows = world.readings();
    rows.sort_by_key(|r| (r.epoch, r.piv));
    rows.iter().map(|r| r.origin.as_str()).collect()
}

fn reading(n: u8) -> Vec<u8> {
    vec![0x82, 0x01, 0x18, 0x64 + n]
}

/// Sends readings and lets all but those under `lost` come.
fn readings(world: &mut World, node: &mut Node, signer: &mut Signer, n: u8, lost: &[u64]) -> Vec<Sent> {
    let sent: Vec<Sent> = (0..n).map(|i| signer.reading(node, &reading(i))).collect();
    for sent in sent.iter().filter(|s| !lost.contains(&s.request.piv.value())) {
        world.post(&[sent.envelope()]);
    }
    sent
}

#[test]
fn a_signature_over_what_is_here_makes_it_signed_and_the_device_hears_so() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[]);
    assert_eq!(labels(&world), ["node"; 3]);
    let item = signature_item(&signer.close());
    let sent = node.send(&item);
    let reply = world.post(&[sent.envelope()]);
    assert_eq!(told(&node, &sent, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world), ["signed", "signed", "signed", "node"], "what carried the signature is in no batch yet");
    assert_eq!(world.readings()[0].origin, Origin::Signed);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
    // Its answer was lost: it says so again.
    let again = node.send(&item);
    let reply = world.post(&[again.envelope()]);
    assert_eq!(told(&node, &again, &reply), Some((1, 0, vec![])));
    // The next one is chained to it, over a restart too.
    let mut world = world.restart();
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let item = signature_item(&signer.close());
    let sent = node.send(&item);
    let reply = world.post(&[sent.envelope()]);
    assert_eq!(told(&node, &sent, &reply), Some((2, 0, vec![])));
    assert_eq!(labels(&world).iter().filter(|l| **l == "signed").count(), 5);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
}

#[test]
fn a_signature_that_comes_in_parts_or_before_its_readings_counts_when_all_is_here() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 2, &[0, 1]);
    let batch = signer.close();
    for part in carry::parts(&batch, 30).iter().rev() {
        let sent = node.send(part);
        world.post(&[sent.envelope()]);
    }
    assert!(!labels(&world).contains(&"signed"));
    let mut world = world.restart();
    world.post(&[sent[0].envelope()]);
    assert!(!labels(&world).contains(&"signed"));
    let reply = world.post_second(&[sent[1].envelope()]);
    assert_eq!(labels(&world)[..2], ["signed", "signed"]);
    assert_eq!(told(&node, &sent[1], &reply), Some((1, 0, vec![])), "said with the next answer");
}

#[test]
fn parts_of_two_signatures_come_in_any_order() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let first = carry::parts(&signer.close(), 60);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let second = carry::parts(&signer.close(), 60);
    for part in [&first[0], &second[0], &second[1], &first[1]] {
        let sent = node.send(part);
        world.post(&[sent.envelope()]);
    }
    assert_eq!((first.len(), second.len()), (2, 2));
    let of_readings: Vec<_> = labels(&world).into_iter().filter(|l| *l == "signed").collect();
    assert_eq!(of_readings.len(), 4, "{:?}", labels(&world));
    assert_eq!(world.count(Code::EvidenceIncomplete), 0);
}

#[test]
fn a_part_that_comes_late_counts_after_those_of_later_batches() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let mut late = Vec::new();
    for _ in 0..10 {
        readings(&mut world, &mut node, &mut signer, 1, &[]);
        let parts = carry::parts(&signer.close(), 60);
        for part in if late.is_empty() { &parts[..1] } else { &parts[..] } {
            let sent = node.send(part);
            world.post(&[sent.envelope()]);
        }
        late.push(parts);
    }
    let sent = node.send(&late[0][1]);
    world.post(&[sent.envelope()]);
    assert_eq!(labels(&world).into_iter().filter(|l| *l == "signed").count(), 10, "{:?}", labels(&world));
}

#[test]
fn pieces_of_a_first_and_a_second_signature_of_one_batch_are_no_forgery_together() {
    for order in [[0, 1], [1, 0]] {
        let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
        let sent = readings(&mut world, &mut node, &mut signer, 4, &[1]);
        let first = signer.close();
        let second = carry::parts(&signer.again(&first, 0b1101), 60);
        let first = carry::parts(&first, 60);
        assert_eq!((first.len(), second.len()), (2, 2));
        let mut last = None;
        for part in first.iter().chain(order.map(|at| &second[at])) {
            let carrier = node.send(part);
            let reply = world.post(&[carrier.envelope()]);
            last = told(&node, &carrier, &reply);
        }
        assert_eq!(last, Some((1, 0, vec![])));
        assert_eq!(labels(&world)[..3], ["signed"; 3]);
        // What both were together is weighed once more.
        world.post(&[sent[1].envelope()]);
        world.now = world.now.plus(97 * HOUR);
        let write = world.cloud.handle_timeout(world.now);
        world.cloud.memory().store().commit_now(write).unwrap();
        let did = world.source.devices[0].did;
        assert_eq!(world.cloud.memory().read(|r| r.batches(did, State::Open)).unwrap(), 0);
        let counted = [Code::EvidenceSignature, Code::EvidenceIncomplete, Code::EvidenceChain].map(|c| world.count(c));
        assert_eq!(counted, [0, 0, 0]);
    }
}

#[test]
fn a_missing_reading_is_left_out_of_a_second_signature_and_signed_by_the_first_once_it_comes() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 4, &[1]);
    let first = signer.close();
    let carrier = node.send(&signature_item(&first));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 1, vec![0b1101])));
    let second = signer.again(&first, 0b1101);
    let carrier = node.send(&signature_item(&second));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
    let mut world = world.restart();
    world.post(&[sent[1].envelope()]);
    assert_eq!(labels(&world)[..4], ["signed"; 4]);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
}

#[test]
fn what_proved_a_reading_first_stays_its_proof() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[]);
    let first = signer.close();
    let proofs = |world: &World| {
        let db = rusqlite::Connection::open(&world.path).unwrap();
        let sql = "SELECT group_concat(batch) FROM (SELECT batch FROM leaf WHERE batch IS NOT NULL ORDER BY reading)";
        db.query_row(sql, [], |r| r.get::<_, String>(0)).unwrap()
    };
    let carrier = node.send(&signature_item(&first));
    world.post(&[carrier.envelope()]);
    let before = proofs(&world);
    let carrier = node.send(&signature_item(&signer.again(&first, 0b101)));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])), "it holds, too");
    assert_eq!(proofs(&world), before);
}

#[test]
fn leaf_hashes_prove_the_rest_and_the_missing_reading_joins_when_it_comes() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let batch = signer.close();
    // Two hashes fit in a frame.
    for (first, count) in [(0, 2), (2, 1)] {
        let carrier = node.send(&leaves_item(&batch, first, count));
        world.post(&[carrier.envelope()]);
    }
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..2], ["signed"; 2]);
    let mut world = world.restart();
    world.post(&[sent[1].envelope()]);
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
}

#[test]
fn a_device_that_only_repeats_itself_is_asked_for_leaf_hashes() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let batch = signer.close();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let carrier = node.send(&signature_item(&batch));
        let reply = world.post(&[carrier.envelope()]);
        asked.push(told(&node, &carrier, &reply).unwrap().1);
    }
    assert_eq!(asked, [1, 1, 2]);
    let carrier = node.send(&leaves_item(&batch, 0, 3));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..2], ["signed"; 2]);
}

#[test]
fn ev_01_a_signature_that_does_not_hold_makes_nothing_signed() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[]);
    let batch = signer.close();
    let mut broken = batch.clone();
    broken.signature[7] ^= 1;
    let mut fewer = batch.clone();
    fewer.bitmap = vec![0b011];
    let mut of_nobody = batch.clone();
    of_nobody.signature = Signer::new(&world.source.devices[0]).sign(&batch);
    for (n, bad) in [broken, fewer, of_nobody].iter().enumerate() {
        for _ in 0..2 {
            let carrier = node.send(&signature_item(bad));
            world.post(&[carrier.envelope()]);
        }
        assert_eq!(world.count(Code::EvidenceSignature), n as u64 + 1, "each is counted once");
    }
    assert!(!labels(&world).contains(&"signed"));
    // The true one is none the worse for it.
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
}

#[test]
fn ev_01_every_bit_of_a_signature_counts() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let batch = signer.close();
    for byte in 0..64 {
        let mut bad = batch.clone();
        bad.signature[byte] ^= 1 << (byte % 8);
        let carrier = node.send(&signature_item(&bad));
        world.post(&[carrier.envelope()]);
        assert_eq!(world.count(Code::EvidenceSignature), byte as u64 + 1);
    }
    assert!(!labels(&world).contains(&"signed"));
}

#[test]
fn ed25519_makes_signed_what_it_signed_and_no_second_signature_or_other_algorithm_does() {
    let (mut world, mut node, mut signer) = signing_world_by(Profile::ToCloud, Mode::Persistent, DeviceAlg::Ed25519);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let batch = signer.close();
    let (mut more, mut weak, mut p256) = (batch.clone(), batch.clone(), batch.clone());
    more.signature = malleated(&batch.signature);
    // R is the neutral element.
    weak.signature[..32].copy_from_slice(&[[1].as_slice(), &[0; 31]].concat());
    p256.signature = Signer::new(&world.source.devices[0]).sign(&batch);
    for (n, bad) in [more, weak, p256].iter().enumerate() {
        let carrier = node.send(&signature_item(bad));
        world.post(&[carrier.envelope()]);
        assert_eq!(world.count(Code::EvidenceSignature), n as u64 + 1);
    }
    assert!(!labels(&world).contains(&"signed"));
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..2], ["signed"; 2]);
}

/// A whole batch whose signature does not hold.
fn forge(world: &mut World, node: &mut Node, signer: &mut Signer) {
    readings(world, node, signer, 2, &[]);
    let mut bad = signer.close();
    bad.signature[7] ^= 1;
    let carrier = node.send(&signature_item(&bad));
    world.post(&[carrier.envelope()]);
}

#[test]
fn ev_01_counts_after_a_restart_too_whatever_number_was_claimed_before_it_and_in_whatever_boot() {
    let sign = |world: &mut World, node: &mut Node, signer: &mut Signer, batches: u8| {
        for _ in 0..batches {
            readings(world, node, signer, 2, &[]);
            let carrier = node.send(&signature_item(&signer.close()));
            world.post(&[carrier.envelope()]);
        }
    };
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let far = invented(&mut signer, &mut node, 1_000_000_000);
    let carrier = node.send(&far);
    world.post(&[carrier.envelope()]);
    let mut world = world.restart();
    sign(&mut world, &mut node, &mut signer, 2);
    forge(&mut world, &mut node, &mut signer);
    assert_eq!(world.count(Code::EvidenceSignature), 1);
    let (mut world, _, key) = signing_world(Profile::ToCloud, Mode::Random);
    for (boot, batches) in [(3, 5), (4, 1)] {
        let (mut node, mut signer) = (Node::boot(&world.source.devices[0], boot), key.clone());
        signer.boot(boot);
        sign(&mut world, &mut node, &mut signer, batches);
        if boot == 4 {
            forge(&mut world, &mut node, &mut signer);
        } else {
            world = world.restart();
        }
    }
    assert_eq!(world.count(Code::EvidenceSignature), 1);
}

#[test]
fn ev_02_a_device_that_must_sign_and_does_not() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 1, &[]);
    let overdue = |world: &World| {
        let write = world.cloud.handle_timeout(world.now);
        world.cloud.memory().store().commit_now(write).unwrap();
        world.count(Code::EvidenceOverdue)
    };
    world.now = world.now.plus(47 * HOUR);
    assert_eq!(overdue(&world), 0);
    let mut world = world.restart();
    world.now = world.now.plus(2 * HOUR);
    assert_eq!(overdue(&world), 1);
    assert_eq!(overdue(&world), 1, "once a day");
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    world.now = world.now.plus(25 * HOUR);
    assert_eq!(overdue(&world), 1);
    // Many readings are too late as well, however short the time.
    let mut world = world.restart();
    let most = 2 * u32::from(world.source.devices[0].policy.batch);
    (0..=most).for_each(|_| drop(readings(&mut world, &mut node, &mut signer, 1, &[])));
    assert_eq!(overdue(&world), 2);
}

#[test]
fn ev_03_what_cannot_be_completed_stays_a_reading() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    let mut world = world.restart();
    let look = |world: &World| {
        let write = world.cloud.handle_timeout(world.now);
        world.cloud.memory().store().commit_now(write).unwrap();
        world.count(Code::EvidenceIncomplete)
    };
    world.now = world.now.plus(95 * HOUR);
    assert_eq!(look(&world), 0);
    world.now = world.now.plus(2 * HOUR);
    assert_eq!(look(&world), 1);
    assert_eq!(look(&world.restart()), 1);
}

#[test]
fn ev_03_a_gap_in_the_chain_is_no_fork() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    // Batch 2 never comes, and 3 names what it was chained to: that cannot be known here.
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    signer.close();
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let third = signer.close();
    let carrier = node.send(&signature_item(&third));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((3, 1, vec![0b11])), "all are here: begin the chain anew");
    assert_eq!((world.count(Code::EvidenceSignature), world.count(Code::EvidenceChain)), (0, 0));
    // It signs again, chained to nothing; the next is chained to that.
    let again = signer.chained(&third, Hash([0; 32]));
    let carrier = node.send(&signature_item(&again));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((3, 0, vec![])));
    assert_eq!((world.count(Code::EvidenceIncomplete), world.count(Code::EvidenceChain)), (1, 0));
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((4, 0, vec![])));
    // Three more never come, and this one names the last that was settled.
    for _ in 0..3 {
        readings(&mut world, &mut node, &mut signer, 2, &[]);
        signer.close();
    }
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let last = signer.close();
    let last = signer.chained(&last, signer.statement(4));
    let carrier = node.send(&signature_item(&last));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((8, 0, vec![])));
    assert_eq!((world.count(Code::EvidenceIncomplete), world.count(Code::EvidenceChain)), (2, 0));
}

#[test]
fn ev_03_a_second_signature_that_was_lost_is_no_forgery_of_the_next() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let first = signer.close();
    let carrier = node.send(&signature_item(&first));
    world.post(&[carrier.envelope()]);
    // It signs again over what is here, and that never comes; what was missing does.
    signer.again(&first, 0b101);
    world.post(&[sent[1].envelope()]);
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let second = signer.close();
    let carrier = node.send(&signature_item(&second));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 1, vec![0b11])));
    let carrier = node.send(&signature_item(&signer.chained(&second, Hash([0; 32]))));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 0, vec![])));
    let counted = [Code::EvidenceSignature, Code::EvidenceIncomplete, Code::EvidenceChain].map(|c| world.count(c));
    assert_eq!(counted, [0, 1, 0]);
}

#[test]
fn what_is_chained_to_a_statement_that_was_signed_again_is_no_forgery_however_often_it_is_said() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    // The first never comes, so that the second is asked for once more. The third names what the second was at first.
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    signer.close();
    let mut batches = Vec::new();
    for _ in 0..2 {
        readings(&mut world, &mut node, &mut signer, 2, &[]);
        batches.push(signer.close());
    }
    for batch in [&batches[0], &batches[1], &batches[1]] {
        let carrier = node.send(&signature_item(batch));
        let reply = world.post(&[carrier.envelope()]);
        assert_eq!(told(&node, &carrier, &reply), Some((batch.number, 1, vec![0b11])));
    }
    for batch in &batches {
        let carrier = node.send(&signature_item(&signer.chained(batch, Hash([0; 32]))));
        let reply = world.post(&[carrier.envelope()]);
        assert_eq!(told(&node, &carrier, &reply), Some((batch.number, 0, vec![])));
        assert_eq!(world.count(Code::EvidenceSignature), 0);
    }
    // What nothing can verify any more waits as long as any claim, and its readings are signed elsewhere.
    world.now = world.now.plus(97 * HOUR);
    let write = world.cloud.handle_timeout(world.now);
    world.cloud.memory().store().commit_now(write).unwrap();
    let did = world.source.devices[0].did;
    let rows = |state| world.cloud.memory().read(|r| r.batches(did, state)).unwrap();
    assert_eq!([State::Open, State::Verified, State::Invalid, State::Incomplete].map(rows), [0, 2, 0, 2]);
    let counted = [Code::EvidenceSignature, Code::EvidenceIncomplete, Code::EvidenceChain].map(|c| world.count(c));
    assert_eq!(counted, [0, 2, 0]);
}

#[test]
fn what_an_earlier_process_asked_for_is_no_forgery_after_a_restart() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let first = signer.close();
    let carrier = node.send(&signature_item(&first));
    world.post(&[carrier.envelope()]);
    // It was asked, and signs again over what is here; that is lost, and what was missing comes.
    signer.again(&first, 0b101);
    let mut world = world.restart();
    world.post(&[sent[1].envelope()]);
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
    // The next names the statement that was lost, and is asked to begin anew; another process hears that.
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let second = signer.close();
    let carrier = node.send(&signature_item(&second));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 1, vec![0b11])));
    let mut world = world.restart();
    let carrier = node.send(&signature_item(&signer.chained(&second, Hash([0; 32]))));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 0, vec![])));
    let counted = [Code::EvidenceSignature, Code::EvidenceIncomplete, Code::EvidenceChain].map(|c| world.count(c));
    assert_eq!(counted, [0, 1, 0]);
}

#[test]
fn ev_03_a_chain_that_begins_anew_after_a_reboot_that_followed_a_second_statement_is_no_fork() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let first = signer.close();
    let carrier = node.send(&signature_item(&first));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 1, vec![0b101])));
    let carrier = node.send(&signature_item(&signer.again(&first, 0b101)));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    // Which of both statements arrived the device does not know after a reboot, so that it names none.
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let second = signer.close();
    let carrier = node.send(&signature_item(&signer.chained(&second, Hash([0; 32]))));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 0, vec![])));
    let counted = [Code::EvidenceSignature, Code::EvidenceIncomplete, Code::EvidenceChain].map(|c| world.count(c));
    assert_eq!(counted, [0, 1, 0]);
}

#[test]
fn ev_03_statements_under_one_number_are_one_batch_that_cannot_be_completed() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[0, 1]);
    let first = signer.close();
    for said in [&first, &signer.again(&first, 0b110)] {
        let carrier = node.send(&signature_item(said));
        world.post(&[carrier.envelope()]);
    }
    world.now = world.now.plus(97 * HOUR);
    let write = world.cloud.handle_timeout(world.now);
    assert_eq!(write.evidence.closed.len(), 2);
    world.cloud.memory().store().commit_now(write).unwrap();
    assert_eq!(world.count(Code::EvidenceIncomplete), 1);
}

#[test]
fn leaf_hashes_that_come_after_their_batch_was_verified_give_nothing_up() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    for _ in 0..66 {
        readings(&mut world, &mut node, &mut signer, 1, &[]);
        let batch = signer.close();
        for item in [signature_item(&batch), leaves_item(&batch, 0, 1)] {
            let carrier = node.send(&item);
            world.post(&[carrier.envelope()]);
        }
    }
    assert_eq!(world.count(Code::EvidenceIncomplete), 0);
}

#[test]
fn ev_04_a_statement_that_names_another_before_it() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    for _ in 0..2 {
        readings(&mut world, &mut node, &mut signer, 2, &[]);
        let carrier = node.send(&signature_item(&signer.close()));
        world.post(&[carrier.envelope()]);
    }
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let third = signer.close();
    for (n, previous) in [signer.statement(1), Hash([0; 32])].into_iter().enumerate() {
        let carrier = node.send(&signature_item(&signer.chained(&third, previous)));
        world.post(&[carrier.envelope()]);
        assert_eq!(world.count(Code::EvidenceChain), n as u64 + 1);
    }
    assert_eq!(world.count(Code::EvidenceSignature), 0);
}

#[test]
fn ev_04_a_number_that_is_used_for_other_readings() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let mut other = signer.clone();
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    readings(&mut world, &mut node, &mut other, 2, &[]);
    let carrier = node.send(&signature_item(&other.close()));
    world.post(&[carrier.envelope()]);
    assert_eq!((world.count(Code::EvidenceChain), world.count(Code::EvidenceSignature)), (1, 0));
}

#[test]
fn a_crash_between_any_two_writes_loses_no_signature() {
    for crash_after in 0..2 {
        let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
        readings(&mut world, &mut node, &mut signer, 2, &[]);
        let carrier = node.send(&signature_item(&signer.close()));
        let body = world.gateway.batch(&[carrier.envelope()]);
        let mut judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
        if crash_after > 0 {
            let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
            let committed = world.cloud.memory().store().commit_now((*write).clone()).unwrap();
            // What was verified is not written.
            let concluded = world.cloud.conclude(judged, write, committed);
            assert!(!concluded.write.is_empty());
        } else {
            drop(judged);
        }
        let world = world.restart();
        assert!(!labels(&world).contains(&"signed"));
        let reply = world.post_body(&body).unwrap();
        assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
        assert_eq!(labels(&world)[..2], ["signed"; 2]);
        // And once more, when the reply alone was lost.
        let world = world.restart();
        let reply = world.post_body(&body).unwrap();
        assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
        assert_eq!(world.count(Code::EvidenceSignature) + world.count(Code::EvidenceChain), 0);
    }
}

#[test]
fn a_batch_of_an_older_epoch_is_signed_under_the_newer_one() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[]);
    let batch = signer.close();
    let mut newer = Node::of(&world.enrol_again(0x0a17));
    // Numbers begin anew: messages of both epochs stand under them.
    let first = newer.send(READING);
    world.post(&[first.envelope()]);
    let mut world = world.restart();
    let carrier = newer.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&newer, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world), ["signed", "signed", "signed", "node", "node"]);
}

#[test]
fn a_reading_by_a_gateways_word_is_signed_if_it_is_the_one_that_the_device_made() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToGateway, Mode::Persistent);
    let said = |payload: &[u8]| [b"\x02\xFF", payload].concat();
    let (a, b, lie) = (said(&reading(0)), said(&reading(1)), said(&reading(9)));
    let sid = node.sid;
    signer.reading(&mut node, &reading(0));
    signer.reading(&mut node, &reading(1));
    // The gateway made one up before the true one came.
    world.post(&[word(Kind::GatewayOpened, sid, 0, &a), word(Kind::GatewayOpened, sid, 1, &lie)]);
    world.post(&[word(Kind::GatewayOpened, sid, 1, &b)]);
    let carrier = said(&signature_item(&signer.close()));
    world.post(&[word(Kind::GatewayOpened, sid, 2, &carrier)]);
    let signed: Vec<_> = world.readings().into_iter().filter(|r| r.origin == Origin::Signed).collect();
    assert_eq!(signed.iter().map(|r| r.payload.clone()).collect::<Vec<_>>(), [reading(0), reading(1)]);
    assert_eq!(world.readings().len(), 4);
    assert_eq!(world.count(Code::EvidenceSignature), 0);
}

#[test]
fn what_comes_late_joins_its_batch_only_if_it_is_what_was_signed() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToGateway, Mode::Persistent);
    let said = |payload: &[u8]| [b"\x02\xFF", payload].concat();
    let sid = node.sid;
    (0..2).for_each(|i| drop(signer.reading(&mut node, &reading(i))));
    let batch = signer.close();
    world.post(&[word(Kind::GatewayOpened, sid, 0, &said(&reading(0)))]);
    world.post(&[word(Kind::GatewayOpened, sid, 2, &said(&leaves_item(&batch, 0, 2)))]);
    world.post(&[word(Kind::GatewayOpened, sid, 3, &said(&signature_item(&batch)))]);
    assert_eq!(labels(&world)[0], "signed");
    world.post(&[word(Kind::GatewayOpened, sid, 1, &said(&reading(9)))]);
    assert_eq!(labels(&world)[1], "gateway");
    let mut world = world.restart();
    world.post(&[word(Kind::GatewayOpened, sid, 1, &said(&reading(1)))]);
    let signed: Vec<_> = world.readings().into_iter().filter(|r| r.origin == Origin::Signed).collect();
    assert_eq!(signed.iter().map(|r| r.payload.clone()).collect::<Vec<_>>(), [reading(0), reading(1)]);
}

#[test]
fn a_quarantined_message_never_becomes_signed() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let mut twin = Node::of(&world.source.devices[0]).at(1);
    let other = twin.send(READING);
    world.post(&[other.envelope()]);
    assert_eq!(world.count(Code::CloudNonceReuse), 1);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    let ledger = world.ledger();
    let signed: Vec<u64> = ledger.iter().filter(|r| r.origin == Origin::Signed).map(|r| r.piv).collect();
    assert_eq!(signed, [0]);
}

/// A batch of two readings of which the second does not come, with its leaf hashes and its signature: it holds without it.
fn holds_without_the_second(world: &mut World, node: &mut Node, signer: &mut Signer) -> Sent {
    let (here, missing) = (signer.reading(node, &reading(0)), signer.reading(node, &reading(1)));
    let batch = signer.close();
    let (hashes, carrier) = (node.send(&leaves_item(&batch, 0, 2)), node.send(&signature_item(&batch)));
    world.post(&[here.envelope(), hashes.envelope(), carrier.envelope()]);
    missing
}

#[test]
fn a_reading_that_comes_in_the_moment_in_which_its_batch_is_verified_is_signed() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let batch = signer.close();
    let hashes = [node.send(&leaves_item(&batch, 0, 2)), node.send(&leaves_item(&batch, 2, 1))];
    hashes.iter().for_each(|h| drop(world.post(&[h.envelope()])));
    let carrier = node.send(&signature_item(&batch));
    let body = world.gateway.batch(&[carrier.envelope()]);
    let mut judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
    let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
    let committed = world.cloud.memory().store().commit_now((*write).clone()).unwrap();
    let concluded = world.cloud.conclude(judged, write, committed);
    // It is verified, and that is not written yet.
    world.post_second(&[sent[1].envelope()]);
    world.cloud.memory().store().commit_now((*concluded.write).clone()).unwrap();
    world.cloud.reply(concluded);
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
}

#[test]
fn however_many_batches_wait_for_a_reading_each_gets_its_own() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let missing: Vec<Sent> = (0..40).map(|_| holds_without_the_second(&mut world, &mut node, &mut signer)).collect();
    let signed = |world: &World| labels(world).iter().filter(|l| **l == "signed").count();
    assert_eq!(signed(&world), 40);
    let (now, later) = missing.split_at(20);
    world.post(&now.iter().map(Sent::envelope).collect::<Vec<_>>());
    assert_eq!(signed(&world), 60);
    let mut world = world.restart();
    world.post(&later.iter().map(Sent::envelope).collect::<Vec<_>>());
    assert_eq!(signed(&world), 80);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
}

/// A signature of nobody over readings that never come.
fn invented(signer: &mut Signer, node: &mut Node, number: u64) -> Vec<u8> {
    let mut invented = signer.clone();
    invented.reading(node, &reading(0));
    let batch = invented.close();
    let mut signature = [0x11; 64];
    signature[..8].copy_from_slice(&number.to_be_bytes());
    signature_item(&common::signer::Closed { number, first: batch.first + 100_000, signature, ..batch })
}

#[test]
fn a_message_speaks_of_one_batch_and_what_is_more_is_counted() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let batch = signer.close();
    let mut payload = [signature_item(&batch), leaves_item(&batch, 0, 1)].concat();
    for number in 10..14 {
        payload.extend(invented(&mut signer, &mut node, number));
    }
    payload.extend(leaves_item(&common::signer::Closed { number: 20, ..batch.clone() }, 0, 1));
    let carrier = node.send(&payload);
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])), "the first of them is taken");
    let did = world.source.devices[0].did;
    let open = world.cloud.memory().read(|r| r.batches(did, State::Open)).unwrap();
    assert_eq!((open, world.count(Code::CloudLimitReached)), (0, 5));
}

#[test]
fn claims_that_nothing_completes_take_a_bounded_room_and_the_oldest_gives_way_counted() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let flood = |world: &mut World, node: &mut Node, signer: &mut Signer, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let item = invented(signer, node, number);
            let sent = node.send(&item);
            world.post(&[sent.envelope()]);
        }
    };
    let did = world.source.devices[0].did;
    let rows = |world: &World, state| world.cloud.memory().read(|r| r.batches(did, state)).unwrap();
    flood(&mut world, &mut node, &mut signer, 100..164);
    assert_eq!((rows(&world, State::Open), world.count(Code::EvidenceIncomplete)), (64, 0));
    // What is all here takes nobody's place, and is decided at once.
    readings(&mut world, &mut node, &mut signer, 3, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!((rows(&world, State::Open), world.count(Code::EvidenceIncomplete)), (64, 0));
    flood(&mut world, &mut node, &mut signer, 164..170);
    assert_eq!((rows(&world, State::Open), world.count(Code::EvidenceIncomplete)), (64, 6));
    // A true one that waits for a reading gets it, for it is not the oldest of so many; over a restart too.
    let mut world = world.restart();
    let (here, late) = (signer.reading(&mut node, &reading(0)), signer.reading(&mut node, &reading(1)));
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[here.envelope(), carrier.envelope()]);
    flood(&mut world, &mut node, &mut signer, 170..200);
    let mut world = world.restart();
    world.post(&[late.envelope()]);
    assert_eq!(labels(&world).iter().filter(|l| **l == "signed").count(), 5);
    assert!(rows(&world, State::Open) <= 64);
}

#[test]
fn ev_03_what_is_said_again_of_verified_batches_hides_none_that_waits() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let waiting = invented(&mut signer, &mut node, 100);
    let mut carriers = vec![node.send(&waiting)];
    for _ in 0..70 {
        carriers.push(signer.reading(&mut node, &reading(0)));
        let item = signature_item(&signer.close());
        carriers.extend([node.send(&item), node.send(&item)]);
    }
    for carrier in &carriers {
        world.post(&[carrier.envelope()]);
    }
    let did = world.source.devices[0].did;
    let rows = |world: &World, state| world.cloud.memory().read(|r| r.batches(did, state)).unwrap();
    let before = (rows(&world, State::Open), world.count(Code::EvidenceIncomplete));
    world.now = world.now.plus(97 * HOUR);
    let write = world.cloud.handle_timeout(world.now);
    world.cloud.memory().store().commit_now(write).unwrap();
    assert_eq!((before, rows(&world, State::Verified)), ((1, 0), 70));
    assert_eq!((rows(&world, State::Open), world.count(Code::EvidenceIncomplete)), (0, 1));
}

#[test]
fn what_came_to_nothing_is_not_remembered_for_ever() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let batch = signer.close();
    let mut carriers = Vec::new();
    for n in 0..300u16 {
        let mut bad = batch.clone();
        bad.signature[..2].copy_from_slice(&n.to_be_bytes());
        carriers.push(node.send(&signature_item(&bad)));
    }
    world.post(&carriers.iter().map(Sent::envelope).collect::<Vec<_>>());
    let did = world.source.devices[0].did;
    let closed = world.cloud.memory().read(|r| r.batches(did, State::Invalid)).unwrap();
    assert_eq!((closed, world.count(Code::EvidenceSignature)), (256, 300));
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
}

#[test]
fn leaf_hashes_of_batches_that_never_verify_give_way_and_those_of_a_batch_to_come_stay() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    readings(&mut world, &mut node, &mut signer, 3, &[1, 2]);
    let batch = signer.close();
    let hashes = node.send(&leaves_item(&batch, 0, 2));
    let carrier = node.send(&signature_item(&batch));
    world.post(&[hashes.envelope(), carrier.envelope()]);
    let flood: Vec<Sent> = (100..200)
        .map(|number| node.send(&leaves_item(&common::signer::Closed { number, ..batch.clone() }, 0, 2)))
        .collect();
    world.post(&flood.iter().map(Sent::envelope).collect::<Vec<_>>());
    let batches = |world: &World| {
        let db = rusqlite::Connection::open(&world.path).unwrap();
        let sql = "SELECT count(DISTINCT number) FROM batch_leaf";
        db.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((batches(&world), world.count(Code::EvidenceIncomplete)), (64, 37));
    // A claim waits for that one.
    let rest = node.send(&leaves_item(&batch, 2, 1));
    let reply = world.post(&[rest.envelope()]);
    assert_eq!(told(&node, &rest, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[0], "signed");
    // The others wait no longer than a claim does.
    world.now = world.now.plus(97 * HOUR);
    let one = node.send(&leaves_item(&common::signer::Closed { number: 300, ..batch }, 0, 1));
    world.post(&[one.envelope()]);
    assert_eq!((batches(&world), world.count(Code::EvidenceIncomplete)), (1, 37));
}

#[test]
fn a_device_costs_no_more_than_so_many_verifications_at_a_time_and_what_comes_again_costs_none() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    for number in 0..9 {
        // Statements that hold, so that there is much to try.
        readings(&mut world, &mut node, &mut signer, 1, &[]);
        let carrier = node.send(&signature_item(&signer.close()));
        world.post(&[carrier.envelope()]);
        assert_eq!(world.count(Code::CloudLimitReached), 0, "{number}");
    }
    let sent: Vec<Sent> = (0..3).map(|i| signer.reading(&mut node, &reading(i))).collect();
    sent[..2].iter().for_each(|s| drop(world.post(&[s.envelope()])));
    let batch = signer.close();
    // All but one is here, and nothing says what they are chained to: each is weighed when that one comes.
    for number in 100..160 {
        let carrier = node.send(&signature_item(&common::signer::Closed { number, ..batch.clone() }));
        world.post(&[carrier.envelope()]);
    }
    let carrier = node.send(&signature_item(&batch));
    world.post(&[carrier.envelope()]);
    world.post(&[sent[2].envelope()]);
    assert_eq!(world.count(Code::CloudLimitReached), 1);
    assert_eq!(labels(&world).iter().filter(|l| **l == "signed").count(), 12);
    for _ in 0..3 {
        world.now = world.now.plus(60_000);
        world.post(&[sent[2].envelope()]);
    }
    assert_eq!(world.count(Code::CloudLimitReached), 1);
}

#[test]
fn a_crash_after_the_reading_that_completes_a_batch_loses_no_signature() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 3, &[1]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    let body = world.gateway.batch(&[sent[1].envelope()]);
    let mut judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
    let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
    let committed = world.cloud.memory().store().commit_now((*write).clone()).unwrap();
    // What was verified is not written.
    assert!(!world.cloud.conclude(judged, write, committed).write.evidence.signed.is_empty());
    let world = world.restart();
    assert!(!labels(&world).contains(&"signed"));
    world.post_body(&body).unwrap();
    assert_eq!(labels(&world)[..3], ["signed"; 3]);
}

#[test]
fn labels_that_are_raised_are_told_in_order_once_and_from_where_one_left_off() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let late = holds_without_the_second(&mut world, &mut node, &mut signer);
    let all = Query { limit: 100, cursor: Some(i64::MAX), ..Query::default() };
    let raised = |world: &World, after, q: &Query| world.cloud.memory().read(|r| r.raised(after, q)).unwrap();
    let first = raised(&world, 0, &all);
    assert_eq!(first.rows.iter().map(|r| (r.piv, r.epoch.0, r.bctx)).collect::<Vec<_>>(), [(0, 1, None)]);
    assert_eq!(raised(&world, first.next, &all).rows, []);
    let mut world = world.restart();
    world.post(&[late.envelope()]);
    let second = raised(&world, first.next, &all);
    assert_eq!(second.rows.iter().map(|r| r.piv).collect::<Vec<_>>(), [1]);
    // A reading that the reader has not come to is shown with its label when it is.
    let behind = Query { cursor: Some(second.rows[0].reading - 1), ..all.clone() };
    assert_eq!(raised(&world, first.next, &behind).rows, []);
    // A page has an end, and goes on from there.
    let one = Query { limit: 1, ..all.clone() };
    let page = raised(&world, 0, &one);
    assert_eq!((page.rows.len(), raised(&world, page.next, &one).rows[0].piv), (1, 1));
    let others = Query { device: Some(fivefold_core::id::Did([9; 8])), ..all };
    assert_eq!((raised(&world, 0, &others).rows.len(), raised(&world, 0, &others).next), (0, second.next));
}

#[test]
fn each_boot_of_mode_r_is_a_chain_of_its_own() {
    let (mut world, _, mut signer) = signing_world(Profile::ToCloud, Mode::Random);
    let key = signer.clone();
    for boot in 3..6 {
        let mut node = Node::boot(&world.source.devices[0], boot);
        signer = key.clone();
        signer.boot(boot);
        for number in 1..3 {
            readings(&mut world, &mut node, &mut signer, 2, &[]);
            let carrier = node.send(&signature_item(&signer.close()));
            let reply = world.post(&[carrier.envelope()]);
            assert_eq!(told(&node, &carrier, &reply), Some((number, 0, vec![])));
        }
    }
    assert_eq!(labels(&world).iter().filter(|l| **l == "signed").count(), 12);
    assert!(world.counts().is_empty(), "{:?}", world.counts());
    // Within one boot a fork is one.
    let mut other = signer.clone();
    let mut node = Node::boot(&world.source.devices[0], 5).at(100);
    readings(&mut world, &mut node, &mut signer, 1, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    readings(&mut world, &mut node, &mut other, 1, &[]);
    let carrier = node.send(&signature_item(&other.close()));
    world.post(&[carrier.envelope()]);
    assert_eq!(world.count(Code::EvidenceChain), 1);
}

#[test]
fn a_boot_is_told_nothing_of_another_boots_batches_and_gets_none_of_its_leaf_hashes() {
    let (mut world, _, signer) = signing_world(Profile::ToCloud, Mode::Random);
    let boot = |world: &World, signer: &Signer, boot: u8| {
        let mut signer = signer.clone();
        signer.boot(boot);
        (Node::boot(&world.source.devices[0], boot), signer)
    };
    let (mut first, mut of_first) = boot(&world, &signer, 3);
    readings(&mut world, &mut first, &mut of_first, 2, &[]);
    let carrier = first.send(&signature_item(&of_first.close()));
    world.post(&[carrier.envelope()]);
    // Heard by another gateway as well, which is not the one that answers: what is to be said of it waits.
    assert!(world.post_second(&[carrier.envelope()]).answers.is_empty());
    let (mut second, mut of_second) = boot(&world, &signer, 4);
    let sent = of_second.reading(&mut second, &reading(5));
    let reply = world.post(&[sent.envelope()]);
    assert_eq!(told(&second, &sent, &reply), None);
    of_second.reading(&mut second, &reading(6));
    let hashes = second.send(&leaves_item(&of_second.close(), 0, 2));
    world.post(&[hashes.envelope()]);
    let (mut third, mut of_third) = boot(&world, &signer, 5);
    readings(&mut world, &mut third, &mut of_third, 2, &[1]);
    let carrier = third.send(&signature_item(&of_third.close()));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&third, &carrier, &reply), Some((1, 1, vec![0b01])), "its own second reading is missing");
    assert_eq!(world.count(Code::EvidenceSignature), 0);
}

#[test]
fn what_another_boot_said_first_is_in_the_chain_of_the_boot_that_it_is_of() {
    let (mut world, _, mut signer) = signing_world(Profile::ToCloud, Mode::Random);
    let [mut node, mut other] = [3, 4].map(|boot| Node::boot(&world.source.devices[0], boot));
    signer.boot(3);
    let sent = [0, 1].map(|n| signer.reading(&mut node, &reading(n)));
    let item = signature_item(&signer.close());
    let [first, second] = sent;
    for sent in [other.send(&item), first, second, node.send(&item)] {
        world.post(&[sent.envelope()]);
    }
    // The next is chained to it.
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((2, 0, vec![])));
    assert!(world.counts().is_empty(), "{:?}", world.counts());
}

#[test]
fn boots_of_mode_r_sign_too() {
    let (mut world, _, mut signer) = signing_world(Profile::ToCloud, Mode::Random);
    let mut node = Node::boot(&world.source.devices[0], 3);
    signer.boot(3);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    assert_eq!(labels(&world)[..2], ["signed"; 2]);
}

#[test]
fn what_a_device_signs_without_being_told_to_or_without_a_key_in_the_book_raises_nothing() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    signer.leave(&mut world);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let batch = signer.close();
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), None);
    assert!(!labels(&world).contains(&"signed") && world.counts().is_empty());
    // The key is entered later.
    signer.enter(&mut world);
    let carrier = node.send(&signature_item(&batch));
    let reply = world.post(&[carrier.envelope()]);
    assert_eq!(told(&node, &carrier, &reply), Some((1, 0, vec![])));
    let mut world = World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Persistent)]);
    let mut node = Node::of(&world.source.devices[0]);
    let mut signer = Signer::new(&world.source.devices[0]);
    signer.enter(&mut world);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[Envelope { ..carrier.envelope() }]);
    assert!(!labels(&world).contains(&"signed"));
}

#[test]
fn a_revoked_key_counts_for_what_came_before_and_for_nothing_after() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let sent = readings(&mut world, &mut node, &mut signer, 2, &[1]);
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    readings(&mut world, &mut node, &mut signer, 2, &[]);
    let second = signer.close();
    signer.revoke(&mut world, NOW.plus(1000));
    world.now = world.now.plus(2000);
    // What was missing of the first comes.
    world.post(&[sent[1].envelope()]);
    let carrier = node.send(&signature_item(&second));
    world.post(&[carrier.envelope()]);
    let signed = world.readings().iter().filter(|r| r.origin == Origin::Signed).count();
    assert_eq!(signed, 2);
}
