//! Every case of vectors/standards/tlog-c2sp.json by its name, and the trees of merkle-rfc9162.json as tiles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use fivefold_core::proof::merkle::{Hash, Tree, verify_consistency, verify_inclusion};
use fivefold_evidence::checkpoint::{Checkpoint, LogKey, Refused, Signed};
use fivefold_evidence::cosignature::{CosigningKey, NotWitnessed, Rule, message_subtree, message_v1};
use fivefold_evidence::note::{Kind, Note, VKey};
use fivefold_evidence::tile::{self, Fetch, FetchError, TilePath, Tiles, What};
use fivefold_evidence::tlog_proof::TlogProof;
use serde_json::Value;
use zeroize::Zeroizing;

fn read(name: &str) -> Value {
    let path = format!("{}/../vectors/standards/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list<'v>(book: &'v Value, name: &str) -> &'v Vec<Value> {
    book[name].as_array().unwrap_or_else(|| panic!("{name}"))
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} of {case}"))
}

fn bytes(case: &Value, name: &str) -> Vec<u8> {
    hex::decode(text(case, name)).unwrap()
}

fn hash(value: &Value) -> Hash {
    Hash(hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap())
}

fn vkey(book: &Value, name: &str) -> VKey {
    text(&book["keys"][name], "vkey").parse().unwrap()
}

fn seed(book: &Value, name: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(bytes(&book["keys"][name], "seed").try_into().unwrap())
}

#[test]
fn keys_are_those_of_their_seeds() {
    let book = read("tlog-c2sp.json");
    for (name, key) in book["keys"].as_object().unwrap() {
        let made = match key["type"].as_u64() {
            Some(1) => LogKey::from_seed(text(key, "name"), &seed(&book, name)).unwrap().vkey().clone(),
            Some(4) => {
                CosigningKey::from_seed(text(key, "name"), Kind::Witness, &seed(&book, name)).unwrap().vkey().clone()
            }
            _ => {
                CosigningKey::from_seed(text(key, "name"), Kind::WitnessPq, &seed(&book, name)).unwrap().vkey().clone()
            }
        };
        assert_eq!(made.to_string(), text(key, "vkey"), "{name}");
        assert_eq!(made, vkey(&book, name), "{name}");
    }
}

#[test]
fn checkpoints_verify_by_each_key_as_they_should() {
    let book = read("tlog-c2sp.json");
    let witnesses = ["w1", "w2", "pq"].map(|name| (name, vkey(&book, name)));
    let log = vkey(&book, "log");
    let entries: Vec<_> =
        list(&book, "own_entries").iter().map(|e| hex::decode(e.as_str().unwrap()).unwrap()).collect();
    for case in list(&book, "own_checkpoints") {
        let id = text(case, "id");
        let signed = Signed::parse(text(case, "checkpoint").as_bytes()).unwrap();
        assert_eq!(signed.to_string(), text(case, "checkpoint"), "{id}");
        let size = case["size"].as_u64().unwrap();
        let mut tree = Tree::new();
        tree.extend(entries.iter().take(size as usize).map(|e| Hash::of_leaf([e])));
        let head = signed.unverified();
        assert_eq!((head.size, head.root, tree.root()), (size, hash(&case["root"]), head.root), "{id}");
        let authentic = signed.open(&log).unwrap_or_else(|e| panic!("{id}: {e}"));
        for (name, key) in &witnesses {
            let cosigned = authentic.cosigned(std::slice::from_ref(key)).unwrap();
            let verifies = case["verifies"][name].as_bool();
            assert_eq!(!cosigned.is_empty(), verifies == Some(true), "{id}: {name}");
            for cosigned in cosigned {
                assert_eq!(cosigned.at, case["timestamp"].as_u64().unwrap(), "{id}: {name}");
            }
        }
        let known = case["signers"].as_array().unwrap().iter().filter(|s| *s != "unknown").count();
        let all = witnesses.clone().map(|(_, key)| key);
        assert_eq!(authentic.strangers(&log, &all).len(), head_lines(&signed) - known, "{id}");
    }
}

fn head_lines(signed: &Signed) -> usize {
    signed.note().lines().len()
}

#[test]
fn what_we_sign_is_what_the_vectors_hold() {
    let book = read("tlog-c2sp.json");
    let log = LogKey::from_seed("log.example/fivefold", &seed(&book, "log")).unwrap();
    let mut cosigned = 0;
    for case in list(&book, "own_checkpoints") {
        let signed = Signed::parse(text(case, "checkpoint").as_bytes()).unwrap();
        let ours = log.danger_sign(signed.unverified()).unwrap();
        let line = ours.note().lines().first().unwrap();
        assert!(signed.note().lines().contains(line), "{}", case["id"]);
        for name in ["w1", "w2"] {
            let key = CosigningKey::from_seed(vkey(&book, name).name(), Kind::Witness, &seed(&book, name)).unwrap();
            if case["verifies"][name].as_bool() == Some(true) {
                let line = key.danger_cosign(case["timestamp"].as_u64().unwrap(), signed.unverified()).unwrap();
                assert!(signed.note().lines().contains(&line), "{}: {name}", case["id"]);
                cosigned += 1;
            }
        }
    }
    assert!(cosigned >= 6, "{cosigned}");
}

#[test]
fn signed_messages_are_those_of_the_vectors() {
    let book = read("tlog-c2sp.json");
    let thirteen = list(&book, "own_checkpoints").iter().find(|c| c["id"] == "13 entries, PQ witness too").unwrap();
    let signed = Signed::parse(text(thirteen, "checkpoint").as_bytes()).unwrap();
    let at = thirteen["timestamp"].as_u64().unwrap();
    let messages = &book["signed_messages"];
    assert_eq!(message_v1(at, signed.note().text()), bytes(messages, "cosignature_v1_message_of_w1_over_13"));
    let subtree = message_subtree(vkey(&book, "pq").name(), at, signed.unverified()).unwrap();
    assert_eq!(subtree, bytes(messages, "subtree_v1_message_of_pq_over_13"));
}

#[test]
fn an_ml_dsa_cosignature_of_ours_holds_and_no_altered_one_does() {
    let book = read("tlog-c2sp.json");
    let log = LogKey::from_seed("log.example/fivefold", &seed(&book, "log")).unwrap();
    let pq = CosigningKey::from_seed("witness.example/pq", Kind::WitnessPq, &seed(&book, "pq")).unwrap();
    let mut signed = log.danger_sign(&Checkpoint::empty("log.example/fivefold")).unwrap();
    let line = pq.danger_cosign(1_790_000_000, signed.unverified()).unwrap();
    signed.add(line.clone()).unwrap();
    let witnesses = [vkey(&book, "pq")];
    assert_eq!(signed.open(log.vkey()).unwrap().cosigned(&witnesses).unwrap()[0].at, 1_790_000_000);
    for at in (0..line.signature.len()).step_by(61).chain([0, 7, 8, line.signature.len() - 1]) {
        let mut altered = line.clone();
        altered.signature[at] ^= 1;
        signed.add(altered).unwrap();
        assert!(signed.open(log.vkey()).unwrap().cosigned(&witnesses).is_err(), "byte {at}");
    }
    let mut cut = line;
    cut.signature.pop();
    signed.add(cut).unwrap();
    assert!(signed.open(log.vkey()).unwrap().cosigned(&witnesses).is_err());
}

#[test]
fn proofs_prove_what_they_say() {
    let book = read("tlog-c2sp.json");
    for case in list(&book, "own_proofs") {
        let id = text(case, "id");
        let proof = TlogProof::parse(text(case, "text").as_bytes()).unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!(proof.to_string(), text(case, "text"), "{id}");
        let path: Vec<_> = case["proof"].as_array().unwrap().iter().map(hash).collect();
        assert_eq!((proof.index, &proof.path), (case["index"].as_u64().unwrap(), &path), "{id}");
        assert_eq!(proof.extra.is_some(), id == "with extra");
        let entry = bytes(case, "entry");
        assert_eq!(Hash::of_leaf([&entry]), hash(&case["leaf_hash"]), "{id}");
        let head = proof.verify(&entry, &vkey(&book, "log")).unwrap_or_else(|e| panic!("{id}: {e}"));
        assert_eq!(head.head().size, case["size"].as_u64().unwrap(), "{id}");
        let other = [&entry[..33], &[entry[33] ^ 1]].concat();
        assert!(proof.verify(&other, &vkey(&book, "log")).is_err(), "{id}");
    }
}

#[test]
fn malformed_proofs_are_refused_where_they_should_be() {
    let book = read("tlog-c2sp.json");
    let rule = Rule::new(vec![vkey(&book, "w1"), vkey(&book, "w2")], 2, 0).unwrap();
    let one = Rule::new(vec![vkey(&book, "w2")], 1, 0).unwrap();
    for case in list(&book, "malformed_proofs") {
        let (id, at) = (text(case, "id"), text(case, "detected_at"));
        let proof = TlogProof::parse(text(case, "text").as_bytes());
        assert_eq!(proof.is_err(), at == "parse", "{id}: {proof:?}");
        let Ok(proof) = proof else { continue };
        let log = vkey(&book, "log");
        match proof.verify(&bytes(case, "entry"), &log) {
            Err(_) => assert_ne!(id, "witness timestamp changed"),
            Ok(head) => {
                assert_eq!(id, "witness timestamp changed");
                assert!(
                    matches!(rule.check(&head), Err(NotWitnessed::Refused(Refused::Signature(name))) if name.ends_with("w1"))
                );
                assert!(one.check(&head).is_ok(), "w2 stays valid");
            }
        }
    }
}

#[test]
fn malformed_checkpoints_are_refused() {
    let book = read("tlog-c2sp.json");
    for case in list(&book, "malformed_checkpoints") {
        assert!(Signed::parse(text(case, "checkpoint").as_bytes()).is_err(), "{}", case["id"]);
    }
}

#[test]
fn the_rule_of_witnesses_counts_names_and_takes_the_time_by_which_enough_had_seen_it() {
    let book = read("tlog-c2sp.json");
    let log = LogKey::from_seed("log.example/fivefold", &seed(&book, "log")).unwrap();
    let key = |name: &str, kind, n: u8| CosigningKey::from_seed(name, kind, &Zeroizing::new([n; 32])).unwrap();
    let keys = [
        key("a.example", Kind::Witness, 1),
        key("a.example", Kind::WitnessPq, 2),
        key("b.example", Kind::Witness, 3),
        key("c.example", Kind::WitnessPq, 4),
    ];
    let vkeys: Vec<_> = keys.iter().map(|key| key.vkey().clone()).collect();
    let mut signed = log.danger_sign(&Checkpoint::empty("log.example/fivefold")).unwrap();
    let check = |signed: &Signed, need, pq| {
        Rule::new(vkeys.clone(), need, pq).unwrap().check(&signed.open(log.vkey()).unwrap()).map(|w| w.at)
    };
    let add = |signed: &mut Signed, key: &CosigningKey, at| {
        let line = key.danger_cosign(at, signed.unverified()).unwrap();
        signed.add(line).unwrap();
    };
    add(&mut signed, &keys[0], 500);
    add(&mut signed, &keys[1], 400);
    assert_eq!(check(&signed, 1, 1), Ok(400));
    assert_eq!(check(&signed, 2, 0), Err(NotWitnessed::TooFew { have: 1, need: 2 }), "two keys are one witness");
    add(&mut signed, &keys[2], 0);
    assert_eq!(
        check(&signed, 2, 0),
        Err(NotWitnessed::TooFew { have: 1, need: 2 }),
        "without a time it does not count"
    );
    add(&mut signed, &keys[2], 300);
    assert_eq!((check(&signed, 1, 0), check(&signed, 2, 0)), (Ok(300), Ok(400)));
    assert_eq!(check(&signed, 2, 2), Err(NotWitnessed::TooFewPq { have: 1, need: 2 }));
    add(&mut signed, &keys[3], 900);
    assert_eq!((check(&signed, 3, 2), check(&signed, 1, 2)), (Ok(900), Ok(300)));

    assert!(Rule::new(vkeys.clone(), 0, 0).is_err() && Rule::new(vkeys.clone(), 4, 0).is_err());
    assert!(Rule::new(vkeys.clone(), 1, 3).is_err() && Rule::new([&vkeys[..], &vkeys[..1]].concat(), 1, 0).is_err());
    let doubled = format!("{signed}{}", keys[0].danger_cosign(600, signed.unverified()).unwrap());
    let doubled = Signed::parse(doubled.as_bytes()).unwrap();
    assert_eq!(check(&doubled, 1, 0), Err(NotWitnessed::Refused(Refused::Doubled("a.example".into()))));
}

/// Tiles of the vectors' trees, in memory.
struct InMemory(BTreeMap<String, Vec<u8>>);

impl InMemory {
    fn of(leaves: &[Hash]) -> Self {
        let mut files = BTreeMap::new();
        for (index, tile) in (0..).zip(leaves.chunks(256)) {
            let path = TilePath::within(leaves.len() as u64, What::Hashes(0), index).unwrap();
            files.insert(path.to_string(), tile::emit_hashes(tile));
        }
        Self(files)
    }
}

impl Fetch for InMemory {
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        self.0.get(path).cloned().ok_or_else(|| FetchError::Missing(path.into()))
    }
}

#[test]
fn proofs_from_tiles_are_those_of_rfc_9162() {
    let book = read("merkle-rfc9162.json");
    let leaves: Vec<_> = list(&book, "own_leaves")
        .iter()
        .map(|leaf| Hash::of_leaf([&hex::decode(leaf.as_str().unwrap()).unwrap()]))
        .collect();
    let (mut inclusion, mut consistency) = (0, 0);
    for case in list(&book, "own") {
        let size = case["tree_size"].as_u64().unwrap();
        // The tiles of a larger tree have all that a smaller one needs.
        for of in [size as usize, leaves.len()] {
            let tiles = Tiles::new(InMemory::of(&leaves[..of]), of as u64);
            assert_eq!(tiles.root(size).unwrap(), hash(&case["root"]));
            for proof in list(case, "inclusion") {
                let index = proof["leaf_index"].as_u64().unwrap();
                let wanted: Vec<_> = list(proof, "proof").iter().map(hash).collect();
                assert_eq!(tiles.prove_inclusion(index, size).unwrap(), wanted, "{index} of {size}");
                inclusion += 1;
            }
            for proof in list(case, "consistency") {
                let first = proof["size1"].as_u64().unwrap();
                let wanted: Vec<_> = list(proof, "proof").iter().map(hash).collect();
                assert_eq!(tiles.prove_consistency(first, size).unwrap(), wanted, "{first} to {size}");
                consistency += 1;
            }
        }
        let tiles = Tiles::new(InMemory::of(&leaves[..size as usize]), size);
        assert!(tiles.prove_inclusion(size, size).is_err() && tiles.prove_consistency(size + 1, size).is_err());
        assert!(tiles.root(size + 1).is_err());
    }
    assert!(inclusion > 100 && consistency > 100, "{inclusion}, {consistency}");
}

#[test]
fn trees_of_many_tiles_prove_by_the_same_rules() {
    let leaves: Vec<_> = (0..1500u64).map(|i| Hash::of_leaf([&i.to_be_bytes()])).collect();
    let mut files = InMemory::of(&leaves).0;
    let above: Vec<_> = leaves.chunks_exact(256).map(fivefold_core::proof::merkle::root).collect();
    files.insert("tile/1/000.p/5".into(), tile::emit_hashes(&above));
    let tiles = Tiles::new(InMemory(files), 1500);
    for size in [1, 255, 256, 257, 511, 512, 513, 1024, 1280, 1281, 1499, 1500u64] {
        let root = tiles.root(size).unwrap();
        assert_eq!(root, fivefold_core::proof::merkle::root(&leaves[..size as usize]));
        for index in
            [0, 1, 254, 255, 256, 257, 511, 1023, 1024, 1279, 1280, 1498, 1499u64].into_iter().filter(|i| *i < size)
        {
            let path = tiles.prove_inclusion(index, size).unwrap();
            verify_inclusion(&leaves[index as usize], index, size, &path, &root).unwrap();
        }
        let whole = tiles.root(1500).unwrap();
        verify_consistency(size, &root, 1500, &whole, &tiles.prove_consistency(size, 1500).unwrap()).unwrap();
    }
}

/// The examples of the C2SP pages and Tessera's test log are read where they lie beside the repository; they are not copied
/// into it.
#[test]
fn other_peoples_notes_and_tiles_agree_where_they_are_present() {
    let beside = format!("{}/../../shared/vectors/standards/tlog-c2sp.json", env!("CARGO_MANIFEST_DIR"));
    let Ok(found) = std::fs::read(beside) else { return };
    let book: Value = serde_json::from_slice(&found).unwrap();
    for case in list(&book, "public") {
        let note = Note::parse(text(case, "note").as_bytes()).unwrap();
        assert_eq!(note.to_string(), text(case, "note"), "{}", case["id"]);
        for (line, wanted) in note.lines().iter().zip(case["signatures"].as_array().into_iter().flatten()) {
            assert_eq!(line.name, text(wanted, "name"));
            assert_eq!(line.key.to_string(), text(wanted, "key_id"));
            assert_eq!(line.signature.len() as u64, wanted["length"].as_u64().unwrap());
        }
        for key in list(case, "vkeys") {
            let key: VKey = key.as_str().unwrap().parse().unwrap();
            let line = note.lines().iter().find(|line| key.wrote(line)).unwrap();
            use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
            let verifier = UnparsedPublicKey::new(&ED25519, key.public());
            verifier.verify(note.text().as_bytes(), &line.signature).unwrap();
        }
    }
    let tessera = &book["tessera"];
    let log: VKey = text(tessera, "vkey").parse().unwrap();
    let entries: Vec<_> = list(tessera, "entries").iter().map(|e| hex::decode(e.as_str().unwrap()).unwrap()).collect();
    let bundle = bytes(tessera, "entry_bundle_000_p_15");
    assert_eq!(tile::parse_entries(&bundle, 15).unwrap(), entries);
    assert_eq!(tile::emit_entries(&entries).unwrap(), bundle);
    let hashes = tile::parse_hashes(&bytes(tessera, "tile_0_000_p_15"), 15).unwrap();
    assert!(entries.iter().zip(&hashes).all(|(entry, hash)| Hash::of_leaf([entry]) == *hash));
    let tiles = Tiles::new(InMemory::of(&hashes), 15);
    let heads: Vec<_> =
        list(tessera, "checkpoints").iter().map(|c| Signed::parse(text(c, "checkpoint").as_bytes()).unwrap()).collect();
    assert_eq!(heads.len(), 16);
    for (signed, case) in heads.iter().zip(list(tessera, "checkpoints")) {
        let head = signed.open(&log).unwrap().head();
        assert_eq!((head.root, head.size), (hash(&case["root"]), case["size"].as_u64().unwrap()));
        assert_eq!(tiles.root(head.size).unwrap(), head.root);
        for before in heads.iter().map(Signed::unverified).filter(|b| b.size > 0 && b.size <= head.size) {
            let proof = tiles.prove_consistency(before.size, head.size).unwrap();
            verify_consistency(before.size, &before.root, head.size, &head.root, &proof).unwrap();
        }
    }
}
