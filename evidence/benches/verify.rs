//! Bundles verified a second on one core, from bytes to a verdict: with two witnesses by Ed25519 and one by ML-DSA-44, without
//! and with a receipt.
//!
//! `cargo bench -p fivefold-evidence --bench verify`
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../tests/sample/mod.rs"]
mod sample;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fivefold_core::proof::statement::SignedLevel;
use fivefold_evidence::bundle::Bundle;
use fivefold_evidence::verify::{Verdict, verify, verify_file};
use sample::Village;

fn bundles(c: &mut Criterion) {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Cloud, None, 32, &[0]);
    let trust = village.trust();
    let with = village.bundle(&batch, 3).bytes();
    let without = {
        let mut bundle = village.bundle(&batch, 3);
        bundle.receipts.clear();
        bundle.bytes()
    };
    let mut group = c.benchmark_group("evidence");
    group.throughput(Throughput::Elements(1));
    for (name, bytes) in [("without receipt", &without), ("with receipt", &with)] {
        assert_eq!(verify_file(bytes, &trust)[0].verdict, Verdict::Proven);
        println!("{name}: {} bytes", bytes.len());
        group.bench_function(name, |b| b.iter(|| verify(&Bundle::parse(bytes).unwrap(), &trust).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, bundles);
criterion_main!(benches);
