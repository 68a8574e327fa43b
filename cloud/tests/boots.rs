//! Boots of mode R: nothing says which of two came later, so that a message of an earlier boot which comes late, or is kept
//! back on purpose, must not silence the one that runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::oscore::PartialIv;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::wire::coap;

const HOUR: u64 = 3600 * 1000;

fn world() -> World {
    World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Random)])
}

fn boot(world: &World, boot: u8) -> Node {
    Node::boot(&world.source.devices[0], boot)
}

/// The number of the answer to what was sent, which must be there.
fn answered(world: &mut World, node: &Node, sent: &Sent) -> Option<PartialIv> {
    let reply = world.post(&[sent.envelope()]);
    let (code, _, piv) = node.open(sent, &reply.answers[0]);
    assert_eq!(code, coap::CHANGED);
    piv
}

#[test]
fn the_first_message_of_an_earlier_boot_that_comes_late_takes_no_answer_from_the_boot_that_runs() {
    let mut world = world();
    let (mut earlier, mut running) = (boot(&world, 1), boot(&world, 2));
    let kept_back = earlier.send(READING);
    let sent = running.send(READING);
    answered(&mut world, &running, &sent);
    answered(&mut world, &earlier, &kept_back);
    // The answer to the first was lost: it comes again, and nothing new is behind it.
    let first = answered(&mut world, &running, &sent).expect("a number of our own");
    world = world.restart();
    assert!(answered(&mut world, &running, &sent).unwrap() > first);
    assert_eq!(world.readings().len(), 2);
}

#[test]
fn the_boot_that_goes_on_is_the_active_one_and_never_stale() {
    let mut world = world();
    let (mut earlier, mut running) = (boot(&world, 1), boot(&world, 2));
    let (kept_back, too_old) = (earlier.send(READING), earlier.send(READING));
    let sent = running.send(READING);
    answered(&mut world, &running, &sent);
    answered(&mut world, &earlier, &kept_back);
    let next = running.send(READING);
    answered(&mut world, &running, &next);
    world.now = world.now.plus(97 * HOUR);
    world = world.restart();
    let sent = running.send(READING);
    answered(&mut world, &running, &sent);
    let reply = world.post(&[too_old.envelope()]);
    assert_eq!(reply.refused[0].1, Code::CloudStale);
    assert_eq!(world.readings().len(), 4);
}

#[test]
fn a_boot_that_others_pushed_aside_comes_back_and_answers_it_under_no_number_twice() {
    let mut world = world();
    let mut running = boot(&world, 9);
    let kept_back: Vec<_> = (1..=6).map(|b| (boot(&world, b), boot(&world, b).send(READING))).collect();
    let sent = running.send(READING);
    assert_eq!(answered(&mut world, &running, &sent), None);
    let mut last = None;
    for (round, pair) in kept_back.chunks(2).enumerate() {
        for (node, old) in pair {
            answered(&mut world, node, old);
        }
        if round == 1 {
            world = world.restart();
        }
        let number = answered(&mut world, &running, &sent);
        assert!(number > last, "{number:?} after {last:?}");
        last = number;
    }
    // It goes on, long after.
    world.now = world.now.plus(95 * HOUR);
    let next = running.send(READING);
    assert_eq!(answered(&mut world, &running, &next), None);
    world.now = world.now.plus(95 * HOUR);
    let next = running.send(READING);
    assert_eq!(answered(&mut world, &running, &next), None);
    assert_eq!((world.readings().len(), world.count(Code::CloudStale)), (9, 0));
}

#[test]
fn recordings_of_earlier_boots_make_none_of_them_the_active_one() {
    let mut world = world();
    let mut recorded = Vec::new();
    for b in 1..=4 {
        let mut node = boot(&world, b);
        let sent = node.send(READING);
        answered(&mut world, &node, &sent);
        recorded.push(sent);
    }
    let mut running = boot(&world, 4);
    running.lease.take().unwrap();
    world.now = world.now.plus(50 * HOUR);
    for sent in &recorded {
        world.post(&[sent.envelope()]);
    }
    world.now = world.now.plus(50 * HOUR);
    let sent = running.send(READING);
    answered(&mut world, &running, &sent);
    // They drain since the boot after them, whatever was brought again meanwhile.
    let mut third = boot(&world, 3);
    third.lease.take().unwrap();
    assert_eq!(world.post(&[third.send(READING).envelope()]).refused[0].1, Code::CloudStale);
    assert_eq!(world.readings().len(), 5);
}

#[test]
fn a_boot_whose_first_batch_was_not_stored_and_that_others_pushed_aside_has_its_row_when_it_is() {
    let mut world = world();
    let mut boots: Vec<_> = (1..=3).map(|b| boot(&world, b)).collect();
    let sent: Vec<_> = boots.iter_mut().map(|node| node.send(READING)).collect();
    for sent in &sent {
        // Judged, and the store takes nothing.
        let body = world.gateway.batch(&[sent.envelope()]);
        drop(world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap());
    }
    for (node, sent) in boots.iter().zip(&sent) {
        answered(&mut world, node, sent);
    }
    let world = world.restart();
    assert_eq!(world.readings().len(), 3);
}
