//! Makes a log of N entries in a folder, with heads from before beside it, for whoever checks static files from outside.
//!
//! `cargo run -p fivefold-evidence --example make_log -- DIR N [HEADS]`: DIR is the log, DIR/heads has HEADS signed
//! notes of earlier sizes, DIR/vkeys the keys to pin, one a line: the log's, then two witnesses'. Keys are made of published
//! seeds: never use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::log::{Entry, EntryKind, Log};
use fivefold_evidence::note::Kind;
use fivefold_evidence::witness::{Request, Witness};
use zeroize::Zeroizing;

/// Entries that are appended at a time.
const BATCH: u64 = 4096;
/// The time of the first cosignature.
const AT: u64 = 1_790_000_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let usage = "make_log DIR N [HEADS]";
    let folder = PathBuf::from(args.next().expect(usage));
    let count: u64 = args.next().and_then(|n| n.parse().ok()).expect(usage);
    let heads: u64 = args.next().map_or(8, |n| n.parse().expect(usage));
    let key = LogKey::from_seed("fivefold.00000000/log", &Zeroizing::new([1; 32])).unwrap();
    let cosigning = |name, kind, n: u8| CosigningKey::from_seed(name, kind, &Zeroizing::new([n; 32])).unwrap();
    let mut witnesses: Vec<Witness> = [
        vec![cosigning("one.example", Kind::Witness, 2), cosigning("one.example", Kind::WitnessPq, 3)],
        vec![cosigning("two.example", Kind::Witness, 4)],
    ]
    .into_iter()
    .map(Witness::new)
    .collect();
    let log = Log::open(&folder, key).unwrap();
    let mut vkeys = format!("{}\n", log.vkey());
    for witness in &mut witnesses {
        witness.vkeys().for_each(|vkey| vkeys.push_str(&format!("{vkey}\n")));
        witness.watch(vec![log.vkey().clone()], None).unwrap();
    }
    fs::create_dir_all(folder.join("heads")).unwrap();
    fs::write(folder.join("vkeys"), vkeys).unwrap();

    let mut at = log.durable();
    let mut shown = log.shown().unwrap().map_or(0, |head| head.unverified().size);
    assert!(at == 0 && shown == 0, "{} has a log already", folder.display());
    for number in 1..=heads.max(1) {
        // The last is the whole log; those before have sizes of every kind.
        let end = if number == heads.max(1) { count } else { count * number / heads + number % 3 };
        while at < end {
            let batch: Vec<_> = (at..end.min(at + BATCH)).map(entry).collect();
            log.append(&batch).unwrap();
            at += batch.len() as u64;
        }
        let mut signed = log.sign().unwrap();
        let size = signed.unverified().size;
        let request =
            Request { old: shown, proof: log.prove_consistency(shown, size).unwrap(), checkpoint: signed.clone() };
        for witness in &mut witnesses {
            let pending = witness.add_checkpoint(AT + number, request.to_string().as_bytes()).unwrap();
            let answer = witness.cosign(pending).unwrap();
            answer.body.lines().for_each(|line| signed.add(line.parse().unwrap()).unwrap());
        }
        log.show(&signed).unwrap();
        fs::write(folder.join(format!("heads/{size}")), signed.to_string()).unwrap();
        shown = size;
    }
    println!("{shown} entries in {}", folder.display());
}

fn entry(number: u64) -> Entry {
    let kinds = EntryKind::ALL;
    // Mostly batches, as in a log of a deployment.
    let kind = if number.is_multiple_of(50) { kinds[(number / 50) as usize % kinds.len()] } else { EntryKind::Batch };
    Entry::of(kind, &number.to_be_bytes())
}
