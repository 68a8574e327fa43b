//! A witness's engine under requests of any kind: as they come, and steps of a log that may lie, go back and fork. Whatever it is asked,
//! the heads that it cosigned are those of one tree that only grew, at times that do not go back.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../evidence/src/checkpoint.rs"]
mod checkpoint;
#[path = "../../evidence/src/cosignature.rs"]
mod cosignature;
#[path = "../../evidence/src/witness/engine.rs"]
mod engine;
#[path = "../../evidence/src/note.rs"]
mod note;
#[path = "../../evidence/src/witness/request.rs"]
mod request;

use std::sync::LazyLock;

use checkpoint::{Checkpoint, LogKey, Signed};
use cosignature::CosigningKey;
use engine::Witness;
use fivefold_core::proof::merkle::{Hash, prove_consistency, root};
use libfuzzer_sys::fuzz_target;
use note::{Kind, VKey};
use request::Request;
use zeroize::Zeroizing;

const ORIGIN: &str = "log.example/fuzz";
const ENTRIES: usize = 15;
/// From this entry on there are two histories.
const FORK: usize = 6;

struct Log {
    key: VKey,
    leaves: [Vec<Hash>; 2],
    /// By history and size.
    heads: [Vec<Signed>; 2],
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let key = LogKey::from_seed(ORIGIN, &Zeroizing::new([1; 32])).expect("a key");
    let leaf = |history: usize, n: usize| Hash::of_leaf([&[n as u8, if n < FORK { 0 } else { history as u8 }]]);
    let leaves = [0, 1].map(|h| (0..ENTRIES).map(|n| leaf(h, n)).collect::<Vec<_>>());
    let head = |leaves: &[Hash], size: usize| {
        let head = Checkpoint { root: root(&leaves[..size]), size: size as u64, ..Checkpoint::empty(ORIGIN) };
        key.danger_sign(&head).expect("a head")
    };
    let heads = [0, 1].map(|h| (0..=ENTRIES).map(|size| head(&leaves[h], size)).collect());
    Log { key: key.vkey().clone(), leaves, heads }
});

/// One step of the log: which history and size, from which size, a proof that is right or cut or altered, and when.
fn step(step: &[u8; 4]) -> (u64, Vec<u8>) {
    let [which, old, proof, time] = *step;
    let (history, size) = (usize::from(which >> 7), usize::from(which) % (ENTRIES + 1));
    let old = usize::from(old) % (ENTRIES + 2);
    let mut hashes = prove_consistency(&LOG.leaves[history][..size], old).map_or(Vec::new(), |p| p.as_slice().to_vec());
    match proof {
        0..0xC0 => {}
        0xC0..0xD0 => drop(hashes.pop()),
        0xD0..0xE0 => hashes.push(Hash([proof; 32])),
        _ => hashes.iter_mut().take(1).for_each(|hash| hash.0[usize::from(proof % 32)] ^= 1),
    }
    let checkpoint = LOG.heads[history][size].clone();
    let request = Request { old: old as u64, proof: hashes, checkpoint };
    (1_790_000_000 + u64::from(time), request.to_string().into_bytes())
}

fuzz_target!(|bytes: &[u8]| {
    let key = CosigningKey::from_seed("witness.example", Kind::Witness, &Zeroizing::new([2; 32])).expect("a key");
    let mut witness = Witness::new(vec![key]);
    witness.watch(vec![LOG.key.clone()], None).expect("a log's key");
    let mut asked = vec![(1_790_000_000, bytes.to_vec())];
    asked.extend(bytes.as_chunks::<4>().0.iter().take(32).map(step));
    let (mut last, mut cosigned) = ((0, 0), Vec::new());
    for (now, body) in asked {
        let Ok(pending) = witness.add_checkpoint(now, &body) else { continue };
        let (at, head) = (pending.record().at, pending.record().head.unverified().clone());
        let answer = witness.cosign(pending).expect("nobody came between");
        assert_eq!(answer.status, 200);
        assert!(at >= last.0 && head.size >= last.1, "it went back");
        last = (at, head.size);
        cosigned.push(head);
    }
    let is_of =
        |leaves: &[Hash]| cosigned.iter().all(|h| usize::try_from(h.size).is_ok_and(|n| root(&leaves[..n]) == h.root));
    assert!(LOG.leaves.iter().any(|leaves| is_of(leaves)), "a fork was cosigned");
});
