//! What pruning costs ingest: rows a second that the store takes, alone and while readings are pruned between its groups.
//!
//! `cargo bench -p fivefold-cloud --bench pruning -- PASSES`. Batches of 1,000 readings are judged before the clock starts, then two
//! threads hand them in, each the next one when the last is durable: as gateways do. While they do so in every second turn, a
//! third measures and prunes without a pause, oldest first, as much as it can. At last everything is pruned with nobody beside.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::{NOW, READING, World, device, word};
use fivefold_cloud::limits::{Part, ROWS, Step};
use fivefold_cloud::store::{Store, Write};
use fivefold_core::id::Sid;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::wire::envelope::{Envelope, Kind};

const DEVICES: u16 = 100;
const BATCH: u64 = 1_000;
const BATCHES: u64 = 100;

/// Batches as the engine judged them.
fn judged(w: &mut World, from: u64) -> Vec<Write> {
    let one = |n: u64| {
        let sid = Sid(1 + (n % u64::from(DEVICES)) as u16);
        word(Kind::DangerPlain, sid, n / u64::from(DEVICES), READING)
    };
    let batch = |b: u64| {
        let envelopes: Vec<Envelope<'_>> = (b * BATCH..(b + 1) * BATCH).map(one).collect();
        let body = w.gateway.batch(&envelopes);
        std::mem::take(&mut w.cloud.judge(&w.gateway.proven, &body, NOW).unwrap().write)
    };
    (from..from + BATCHES).map(batch).collect()
}

/// Hands all in by two threads; rows a second.
fn ingest(store: &Store, writes: Vec<Write>) -> f64 {
    let rows = writes.len() as u64 * BATCH;
    let writes = Mutex::new(writes.into_iter());
    let began = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let Some(write) = writes.lock().unwrap().next() else { return };
                    store.commit_now(write).unwrap();
                }
            });
        }
    });
    rows as f64 / began.elapsed().as_secs_f64()
}

/// Measures and prunes until there is nothing left, or until it is told to stop; rows.
fn prune(w: &World, stop: &AtomicBool) -> u64 {
    let store = w.cloud.memory().store();
    let step = Step { part: Part::Readings, before: NOW.plus(1), excess: 0, floor: i64::MAX, now: NOW, rows: ROWS };
    let mut rows = 0;
    while !stop.load(Ordering::Relaxed) {
        let measured = w.cloud.memory().read(|r| r.measure(10_000)).unwrap();
        store.measured(measured).unwrap();
        let stepped = store.prune(step).unwrap();
        rows += stepped.rows;
        if stepped.is_done && measured.is_all() && stepped.rows == 0 {
            return rows;
        }
    }
    rows
}

fn main() {
    let passes: u64 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(3);
    let devices = (1..=DEVICES).map(|n| device(n, Profile::DangerLinkOnly, Mode::Persistent)).collect();
    let mut w = World::new(devices);
    let never = AtomicBool::new(false);
    let first = judged(&mut w, 0);
    println!("ready: {:.0} rows/s into an empty store", ingest(w.cloud.memory().store(), first));
    println!("pass   rows/s alone   rows/s while pruning   ratio   pruned rows/s meanwhile");
    for pass in 0..passes {
        let (alone, beside) =
            (judged(&mut w, 1 + (2 * pass + 1) * BATCHES), judged(&mut w, 1 + (2 * pass + 2) * BATCHES));
        let alone = ingest(w.cloud.memory().store(), alone);
        let stop = AtomicBool::new(false);
        let (ingested, pruned) = std::thread::scope(|s| {
            let pruning = s.spawn(|| (Instant::now(), prune(&w, &stop)));
            let ingested = ingest(w.cloud.memory().store(), beside);
            stop.store(true, Ordering::Relaxed);
            let (began, rows) = pruning.join().unwrap();
            (ingested, rows as f64 / began.elapsed().as_secs_f64())
        });
        println!("{pass:>4}   {alone:>12.0}   {ingested:>20.0}   {:>5.2}   {pruned:>23.0}", ingested / alone);
    }
    let began = Instant::now();
    let rows = prune(&w, &never);
    println!("alone: {:.0} rows/s pruned", rows as f64 / began.elapsed().as_secs_f64());
}
