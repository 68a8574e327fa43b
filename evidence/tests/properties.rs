//! What holds for every log, note and tile, and for bytes that are none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use fivefold_core::proof::merkle::{self, Hash};
use fivefold_evidence::checkpoint::{Checkpoint, LogKey, Signed};
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::note::{Kind, Note, VKey};
use fivefold_evidence::tile::{
    Fetch, FetchError, TilePath, Tiles, What, emit_entries, emit_hashes, parse_entries, parse_hashes,
};
use fivefold_evidence::tlog_proof::TlogProof;
use fivefold_evidence::witness::Request;
use proptest::prelude::*;
use zeroize::Zeroizing;

struct InMemory(BTreeMap<String, Vec<u8>>);

impl Fetch for InMemory {
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        self.0.get(path).cloned().ok_or_else(|| FetchError::Missing(path.into()))
    }
}

/// All tiles of a tree.
fn tiles(leaves: &[Hash]) -> InMemory {
    let mut files = BTreeMap::new();
    let mut hashes = leaves.to_vec();
    for level in 0.. {
        for (index, tile) in (0..).zip(hashes.chunks(256)) {
            let path = TilePath::within(leaves.len() as u64, What::Hashes(level), index).unwrap();
            assert_eq!(usize::from(path.width), tile.len());
            files.insert(path.to_string(), emit_hashes(tile));
        }
        hashes = hashes.chunks_exact(256).map(merkle::root).collect();
        if hashes.is_empty() {
            break;
        }
    }
    InMemory(files)
}

fn signed(size: u64, root: [u8; 32], extensions: Vec<String>) -> Signed {
    let log = LogKey::from_seed("log.example/a", &Zeroizing::new([1; 32])).unwrap();
    let witness = CosigningKey::from_seed("w.example", Kind::Witness, &Zeroizing::new([2; 32])).unwrap();
    let head = Checkpoint { origin: "log.example/a".into(), size, root: Hash(root), extensions };
    let mut signed = log.danger_sign(&head).unwrap();
    signed.add(witness.danger_cosign(1_790_000_000, &head).unwrap()).unwrap();
    signed
}

fn log_vkey() -> VKey {
    LogKey::from_seed("log.example/a", &Zeroizing::new([1; 32])).unwrap().vkey().clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn proofs_from_tiles_are_those_over_all_leaves(count in 1usize..1400, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let leaves: Vec<_> = (0..count as u64).map(|i| Hash::of_leaf([&i.to_be_bytes()])).collect();
        let read = Tiles::new(tiles(&leaves), count as u64);
        let size = a.index(count) + 1;
        let (index, first) = (b.index(size), b.index(size) + 1);
        let part = &leaves[..size];
        prop_assert_eq!(read.root(size as u64).unwrap(), merkle::root(part));
        let path = read.prove_inclusion(index as u64, size as u64).unwrap();
        let wanted = merkle::prove_inclusion(part, index).unwrap();
        prop_assert_eq!(&path[..], wanted.as_slice());
        let path = read.prove_consistency(first as u64, size as u64).unwrap();
        let wanted = merkle::prove_consistency(part, first).unwrap();
        prop_assert_eq!(&path[..], wanted.as_slice());
    }

    #[test]
    fn a_tree_goes_on_from_the_roots_of_its_full_subtrees(count in 0u64..600, more in 0u64..300) {
        let leaf = |i: u64| Hash::of_leaf([&i.to_be_bytes()]);
        let mut whole = merkle::Tree::new();
        whole.extend((0..count).map(leaf));
        let (mut full, mut at) = (Vec::new(), 0u64);
        for height in (0..64).rev().filter(|h| count >> h & 1 == 1) {
            full.push(merkle::root(&(at..at + (1 << height)).map(leaf).collect::<Vec<_>>()));
            at += 1 << height;
        }
        let mut again = merkle::Tree::of_roots(count, &full).unwrap();
        prop_assert_eq!(again.root(), whole.root());
        again.extend((count..count + more).map(leaf));
        whole.extend((count..count + more).map(leaf));
        prop_assert_eq!((again.size(), again.root()), (whole.size(), whole.root()));
        full.push(Hash([0; 32]));
        prop_assert!(merkle::Tree::of_roots(count, &full).is_none());
    }

    #[test]
    fn paths_are_read_as_they_are_written(level in 0u8..64, entries in any::<bool>(), index in any::<u64>(), width in 1u16..=256) {
        let what = if entries { What::Entries } else { What::Hashes(level) };
        let path = TilePath { what, index, width };
        prop_assert_eq!(path.to_string().parse::<TilePath>(), Ok(path));
    }

    #[test]
    fn bundles_are_read_as_they_are_written(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..=256)) {
        let bytes = emit_entries(&entries).unwrap();
        let width = u16::try_from(entries.len()).unwrap();
        prop_assert_eq!(parse_entries(&bytes, width).unwrap(), entries);
        prop_assert!(parse_entries(&bytes, width + 1).is_err() && parse_entries(&bytes[..bytes.len() - 1], width).is_err());
    }

    #[test]
    fn bytes_that_are_nothing_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), width in 1u16..=256) {
        let _ = (Note::parse(&bytes), Signed::parse(&bytes), TlogProof::parse(&bytes), Request::parse(&bytes));
        let _ = (parse_entries(&bytes, width), parse_hashes(&bytes, width));
        let text = String::from_utf8_lossy(&bytes);
        let _ = (text.parse::<VKey>(), text.parse::<TilePath>());
    }

    #[test]
    fn a_head_with_any_byte_changed_is_not_believed(
        size in 0u64..1 << 63, root in any::<[u8; 32]>(), lines in prop::collection::vec("[a-z =]{1,20}", 0..3),
        at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>(),
    ) {
        let signed = signed(size, root, lines);
        let whole = signed.to_string().into_bytes();
        prop_assert_eq!(&Signed::parse(&whole).unwrap(), &signed);
        prop_assert!(signed.open(&log_vkey()).is_ok());
        let mut altered = whole.clone();
        let at = at.index(whole.len());
        if cut { altered.truncate(at) } else { altered[at] = to }
        if altered != whole && let Ok(other) = Signed::parse(&altered) {
            prop_assert_eq!(other.to_string().into_bytes(), altered, "what parses has one form");
            let witness = CosigningKey::from_seed("w.example", Kind::Witness, &Zeroizing::new([2; 32])).unwrap();
            let keys = [witness.vkey().clone()];
            let vkey = log_vkey();
            // Either the log's line or the witness's does not hold any more, or is not there.
            let believed = other.open(&vkey).is_ok_and(|head| head.cosigned(&keys).is_ok_and(|all| !all.is_empty()));
            prop_assert!(!believed);
        }
    }
}
