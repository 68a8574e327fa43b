//! What evidence costs in the store. `cargo test -p fivefold-cloud --test evidence_storage -- --nocapture` prints it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use common::signer::{Signer, signature_item};
use common::*;
use fivefold_cloud::store::Store;
use fivefold_core::e4_channel::Origin;
use fivefold_core::profile::{Mode, Profile, Sign};
use fivefold_core::wire::envelope::Envelope;

/// Readings of each run: many pages of every table.
const READINGS: usize = 4096;

/// Bytes of the store with so many readings, signed in batches of `n`; 0: not signed.
fn bytes(n: usize) -> u64 {
    let mut one = device(0x0a17, Profile::ToCloud, Mode::Persistent);
    one.policy.sign = if n == 0 { Sign::None } else { Sign::Batch };
    let mut world = World::new(vec![one.clone()]);
    let mut signer = Signer::new(&one);
    signer.enter(&mut world);
    let mut node = Node::of(&one);
    let mut sent: Vec<Sent> = Vec::new();
    for i in 1..=READINGS {
        sent.push(if n == 0 { node.send(READING) } else { signer.reading(&mut node, READING) });
        if n > 0 && i % n == 0 {
            sent.push(node.send(&signature_item(&signer.close())));
        }
        if sent.len() >= 512 {
            let envelopes: Vec<Envelope<'_>> = sent.iter().map(Sent::envelope).collect();
            world.post(&envelopes);
            sent.clear();
        }
    }
    let envelopes: Vec<Envelope<'_>> = sent.iter().map(Sent::envelope).collect();
    world.post(&envelopes);
    let signed = world.readings().iter().filter(|r| r.origin == Origin::Signed).count();
    assert_eq!(signed, if n == 0 { 0 } else { READINGS }, "N = {n}");
    let mut size = 0;
    world.stopped(|path| {
        // Whoever closes it last leaves one file.
        drop(Store::open(path).unwrap());
        size = std::fs::metadata(path).unwrap().len();
    });
    size
}

#[test]
fn evidence_costs_a_part_of_what_a_reading_costs() {
    let without = bytes(0);
    let per = |bytes: u64| bytes as f64 / READINGS as f64;
    println!("a reading without evidence: {:.0} bytes, a million of them {:.0} MB", per(without), per(without));
    for n in [1, 8, 32, 64] {
        let more = per(bytes(n) - without);
        println!("N = {n:2}: {more:.0} bytes more for each, {more:.0} MB for a million");
        let most = if n == 1 { 1100.0 } else { 400.0 };
        assert!(more < most, "N = {n}: {more} bytes");
    }
}
