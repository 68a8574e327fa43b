//! A store that was put back from a copy (docs/protocol.md 8.4): nothing is sealed twice under one number, and devices go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::*;
use fivefold_cloud::store::restored;
use fivefold_core::error::Code;
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;
use fivefold_keep::registry::Device;

fn enrolled(mode: Mode) -> Device {
    Device { enrolled_at: NOW.0 / 1000, ..device(0x0a17, Profile::ToCloud, mode) }
}

/// The store's files, as a copy of its folder has them.
type Copy = [Option<Vec<u8>>; 2];
const FILES: [&str; 2] = ["", "-wal"];

fn copy(store: &Path) -> Copy {
    FILES.map(|beside| std::fs::read(format!("{}{beside}", store.display())).ok())
}

/// Puts a copy back, and says so.
fn put_back(store: &Path, copy: &Copy, at: Millis) {
    for (beside, bytes) in FILES.iter().chain(&["-shm"]).zip(copy.iter().chain(&[None])) {
        let path = format!("{}{beside}", store.display());
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = bytes {
            std::fs::write(path, bytes).unwrap();
        }
    }
    restored(store, at).unwrap();
}

/// The number of the answer to one message; `None` when it has none of its own.
fn number_of(w: &mut World, node: &Node, sent: &Sent) -> Option<u64> {
    let reply = w.post(&[sent.envelope()]);
    let (code, _, piv) = node.open(sent, &reply.answers[0]);
    assert_eq!(code, fivefold_core::wire::coap::CHANGED);
    piv.map(|p| p.value())
}

#[test]
fn what_was_answered_since_the_copy_is_answered_under_another_number() {
    let d = enrolled(Mode::Persistent);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::of(&d);
    let first = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &first), None);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    let second = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &second), None);
    let again = number_of(&mut w, &node, &second).unwrap();

    let mut highest = again;
    for hour in [1, 2] {
        w.now = NOW.plus(hour * 3_600_000);
        let now = w.now;
        w = w.stopped(|store| put_back(store, &kept, now));
        w.now = now.plus(60_000);
        // What is lost comes back from a recording, as the reading that it is; the nonce of its first answer does not.
        for sent in [&second, &first, &node.send(READING)] {
            let number = number_of(&mut w, &node, sent).expect("a number of our own");
            assert!(number >= u64::from(NUMBER_LIMIT) && number > highest, "{number} after {highest}");
            highest = number;
        }
        // A restart forgets nothing of it.
        w = w.restart();
        let sent = node.send(READING);
        let number = number_of(&mut w, &node, &sent).unwrap();
        assert!(number > highest);
        highest = number;
    }
    assert_eq!(w.count(Code::CloudNonceReuse), 0);
}

#[test]
fn a_context_that_the_copy_does_not_have_counts_as_used() {
    let d = enrolled(Mode::Persistent);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::of(&d);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
    let now = NOW.plus(1_000);
    w = w.stopped(|store| {
        put_back(store, &Copy::default(), now);
    });
    w.now = now.plus(60_000);
    assert!(number_of(&mut w, &node, &sent).unwrap() >= u64::from(NUMBER_LIMIT));
    // One that was enrolled since has nothing to forget.
    w.source.devices[0].enrolled_at += 100;
    let again = w.enrol_again(0x0a17);
    let mut node = Node::of(&again);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
}

#[test]
fn boots_of_mode_r_are_answered_again_after_the_device_was_enrolled_again() {
    let d = enrolled(Mode::Random);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::boot(&d, 1);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    let now = NOW.plus(1_000);
    w = w.stopped(|store| put_back(store, &kept, now));
    w.now = now.plus(60_000);
    for boot in [1, 2] {
        let sent = Node::boot(&d, boot).at(7).send(READING);
        assert!(w.post(&[sent.envelope()]).answers.is_empty(), "boot {boot}");
    }
    assert_eq!(w.readings().len(), 3, "what it says is taken");
}
