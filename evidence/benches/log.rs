//! Entries a second that the log makes durable and integrates, beside the bare rate of syncs on the same disk, in one run.
//!
//! `cargo bench -p fivefold-evidence --bench log -- SECONDS [DIR]`: so long for each line, in DIR or in the temporary folder.
//!
//! Each caller appends one entry at a time and waits until it is durable. "Integrated" is that and a signed and shown head
//! for every so many entries, with all tiles synced before it is signed.
//!
//! For comparison, Tessera's own page (transparency-dev/tessera, docs/performance.md) has for its POSIX storage, without
//! antispam, integrated entries a second: around 2,900 on a 12-core VM with a mirrored pair of SAS disks (3,000 writers),
//! and more than 1,500 on an e2-micro (600 writers).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::log::{Entry, EntryKind, Log};
use zeroize::Zeroizing;

fn main() {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let time = Duration::from_secs_f64(args.first().map_or(3.0, |s| s.parse().unwrap()));
    let place = args.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    for round in 1..=3 {
        println!("round {round}");
        let folder = tempfile::tempdir_in(&place).unwrap();
        let bare = syncs(folder.path(), time);
        println!("  bare: 42 bytes appended and synced            {bare:>10.0} syncs/s");
        for callers in [1, 8, 64, 512] {
            let folder = tempfile::tempdir_in(&place).unwrap();
            let durable = appended(folder.path(), time, callers, None);
            let (rate, of) = (durable, durable / bare);
            println!(
                "  durable, {callers:>3} callers of one entry each        {rate:>10.0} entries/s  {of:>7.1} x bare syncs"
            );
        }
        for (callers, every) in [(64, 100), (512, 1000)] {
            let folder = tempfile::tempdir_in(&place).unwrap();
            let rate = appended(folder.path(), time, callers, Some(Duration::from_millis(every)));
            println!(
                "  integrated, {callers:>3} callers, a head every {every:>4} ms  {rate:>10.0} entries/s  {:>7.1} x bare syncs",
                rate / bare
            );
        }
        let folder = tempfile::tempdir_in(&place).unwrap();
        println!("  integrated, batches of 4096, a head for each   {:>10.0} entries/s", batches(folder.path(), time));
    }
}

fn log(folder: &Path) -> Log {
    Log::open(folder, LogKey::from_seed("bench.example/log", &Zeroizing::new([1; 32])).unwrap()).unwrap()
}

/// What the disk can do at most: the journal's record, written and synced, and nothing else.
fn syncs(folder: &Path, time: Duration) -> f64 {
    let mut file = File::options().create(true).append(true).open(folder.join("bare")).unwrap();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        file.write_all(&[7; 42]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Entries a second of callers that each wait for their own; with `every`, those in a shown head when it is over.
fn appended(folder: &Path, time: Duration, callers: u64, every: Option<Duration>) -> f64 {
    let log = log(folder);
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..callers {
            let (log, over, count) = (&log, &over, &count);
            scope.spawn(move || {
                let mut number = caller << 32;
                while !over.load(Ordering::Relaxed) {
                    log.append(&[Entry::of(EntryKind::Batch, &number.to_be_bytes())]).unwrap();
                    number += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while start.elapsed() < time {
            std::thread::sleep(every.unwrap_or(time).min(time.saturating_sub(start.elapsed())));
            if every.is_some() {
                log.publish().unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let done = match every {
        Some(_) => log.publish().unwrap().unverified().size,
        None => count.load(Ordering::Relaxed),
    };
    done as f64 / start.elapsed().as_secs_f64()
}

fn batches(folder: &Path, time: Duration) -> f64 {
    let log = log(folder);
    let start = Instant::now();
    let mut number = 0u64;
    while start.elapsed() < time {
        let batch: Vec<_> = (number..number + 4096).map(|n| Entry::of(EntryKind::Batch, &n.to_be_bytes())).collect();
        log.append(&batch).unwrap();
        log.publish().unwrap();
        number += 4096;
    }
    number as f64 / start.elapsed().as_secs_f64()
}
