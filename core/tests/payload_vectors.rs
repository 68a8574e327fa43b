//! Every case of vectors/standards/senml-rfc8428.json, merkle-rfc9162.json and cose-sign1.json, and V9 and V10 of
//! docs/protocol.md 16.4.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use aws_lc_rs::signature;
use coset::{CborSerializable, TaggedCborSerializable};
use fivefold_core::id::{Did, Epoch};
use fivefold_core::proof::merkle::{
    Hash, Tree, prove_consistency, prove_inclusion, root, verify_consistency, verify_inclusion,
};
use fivefold_core::proof::statement::{self, BlindKey, SignedLevel, Statement, Subject};
use fivefold_core::proof::{KeyName, Sign, Sign1, SignAlg, SignError, Signature, SignatureRefused, ToBeSigned, Verify};
use fivefold_core::reading::{BaseName, Fields, Item, Number, Pack, Payload, Record, Value as Measured};
use fivefold_core::wire::cbor::Writer;
use serde_json::{Map, Value};

fn path(file: &str) -> String {
    format!("{}/../vectors/standards/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(file)).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name} is empty");
    list
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(case[field].as_str().unwrap_or_else(|| panic!("no {field} in {case}"))).unwrap()
}

fn hash(value: &Value) -> Hash {
    Hash(hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap())
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

// --- SenML -----------------------------------------------------------------------------------------------------------

fn number(value: &Value) -> Number {
    value.as_i64().map_or_else(|| Number::Float(value.as_f64().unwrap()), Number::Integer)
}

fn base64url(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut have, mut out) = (0u32, 0, Vec::new());
    for c in text.chars() {
        bits = bits << 6 | u32::try_from(DIGITS.find(c).unwrap()).unwrap();
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 0xFF) as u8);
        }
    }
    out
}

/// The record of a JSON pack as our fields.
fn fields<'a>(record: &'a Map<String, Value>, data: &'a Option<Vec<u8>>) -> Fields<'a> {
    let mut f = Fields::default();
    for (label, value) in record {
        match label.as_str() {
            "n" => f.name = value.as_str(),
            "u" => f.unit = value.as_str(),
            "v" => f.value = Some(Measured::Number(number(value))),
            "vs" => f.value = value.as_str().map(Measured::Text),
            "vb" => f.value = value.as_bool().map(Measured::Bool),
            "vd" => f.value = data.as_deref().map(Measured::Bytes),
            "s" => f.sum = Some(number(value)),
            "t" => f.time = Some(number(value)),
            "bver" => f.base_version = value.as_u64().map(|v| v as u8),
            "bn" => f.base_name = value.as_str(),
            "bt" => f.base_time = Some(number(value)),
            "bu" => f.base_unit = value.as_str(),
            other => panic!("label {other}"),
        }
    }
    f
}

fn check_resolved(name: &str, record: &Record<'_>, expected: &Value) {
    let expected = expected.as_object().unwrap();
    assert_eq!(format!("{}{}", record.base_name, record.name), expected["n"].as_str().unwrap(), "{name}");
    assert_eq!(record.unit, expected.get("u").and_then(Value::as_str), "{name}");
    assert_eq!(record.time.as_f64(), expected["t"].as_f64().unwrap(), "{name}: t");
    assert_eq!(record.sum.map(Number::as_f64), expected.get("s").and_then(Value::as_f64), "{name}: s");
    assert_eq!(record.version.map(u64::from), expected.get("bver").and_then(Value::as_u64), "{name}: bver");
    assert_eq!(record.is_time_relative(), expected["t"].as_f64().unwrap() < 268_435_456.0);
    match record.value {
        Some(Measured::Number(v)) => assert_eq!(v.as_f64(), expected["v"].as_f64().unwrap(), "{name}: v"),
        Some(Measured::Text(v)) => assert_eq!(v, expected["vs"].as_str().unwrap(), "{name}: vs"),
        Some(Measured::Bool(v)) => assert_eq!(v, expected["vb"].as_bool().unwrap(), "{name}: vb"),
        Some(Measured::Bytes(v)) => assert_eq!(v, base64url(expected["vd"].as_str().unwrap()), "{name}: vd"),
        None => panic!("{name}: no value"),
    }
}

#[test]
fn every_senml_pack_resolves_and_is_written_as_the_vectors_say() {
    let book = read("senml-rfc8428.json");
    for case in list(&book, "cases").iter().chain(list(&book, "own")) {
        let name = case["name"].as_str().unwrap();
        let json: Vec<_> = list(case, "json").iter().map(|r| r.as_object().unwrap()).collect();
        let data: Vec<_> = json.iter().map(|r| r.get("vd").map(|v| base64url(v.as_str().unwrap()))).collect();
        let records: Vec<_> = json.iter().zip(&data).map(|(r, d)| fields(r, d)).collect();
        let deterministic = bytes(case, "cbor_deterministic");
        let mut out = vec![0; 2000];
        let n = Pack::emit(&records, &mut out).unwrap();
        assert_eq!(hex::encode(&out[..n]), hex::encode(&deterministic), "{name}");
        let mut encodings = vec![deterministic];
        if case["cbor_rfc"].is_string() {
            encodings.push(bytes(case, "cbor_rfc"));
        }
        for encoding in &encodings {
            let base = if name.contains("implied") || case["section"].is_null() {
                BaseName::Implied
            } else {
                BaseName::Required
            };
            let pack = Pack::parse(encoding, base).unwrap_or_else(|e| panic!("{name}: {e}"));
            let resolved: Vec<_> = pack.records().collect();
            let expected = list(case, "resolved");
            assert_eq!(resolved.len(), expected.len(), "{name}");
            resolved.iter().zip(expected).for_each(|(r, e)| check_resolved(name, r, e));
            let again: Vec<_> = pack.fields().collect();
            let n = Pack::emit(&again, &mut out).unwrap();
            assert_eq!(Pack::parse(&out[..n], base).unwrap().records().collect::<Vec<_>>(), resolved, "{name}");
        }
    }
}

#[test]
fn every_malformed_senml_pack_is_refused() {
    for case in list(&read("senml-rfc8428.json"), "malformed") {
        let cbor = bytes(case, "cbor");
        assert!(Pack::parse(&cbor, BaseName::Required).is_err(), "{}", case["name"]);
        let name = case["name"].as_str().unwrap();
        // bn is implied inside a payload, and a payload is a sequence: those three mean something else there.
        let in_payload = match (name, Payload::parse(&cbor)) {
            ("no name", Ok(Payload::Sequence(mut items))) => matches!(items.next(), Some(Item::Senml(_))),
            ("not an array", Ok(Payload::Sequence(mut items))) => matches!(items.next(), Some(Item::Control(_))),
            ("record not a map", Ok(Payload::Sequence(mut items))) => matches!(items.next(), Some(Item::Template(_))),
            (_, parsed) => parsed.is_err(),
        };
        assert!(in_payload, "{name}");
    }
}

// --- Merkle ----------------------------------------------------------------------------------------------------------

fn check_tree(leaves: &[Hash], expected_root: &Hash, case: &Value) {
    let size = leaves.len();
    let mut tree = Tree::new();
    tree.extend(leaves.iter().copied());
    assert_eq!((tree.root(), tree.size()), (*expected_root, size as u64));
    for proof in list(case, "inclusion") {
        let index = proof["leaf_index"].as_u64().unwrap();
        let path = hashes(&proof["proof"]);
        assert_eq!(prove_inclusion(leaves, index as usize).unwrap().as_slice(), path);
        verify_inclusion(&leaves[index as usize], index, size as u64, &path, expected_root).unwrap();
    }
    for proof in list(case, "consistency") {
        let size1 = proof["size1"].as_u64().unwrap();
        let path = hashes(&proof["proof"]);
        let root1 = root(&leaves[..size1 as usize]);
        if proof["root1"].is_string() {
            assert_eq!(root1, hash(&proof["root1"]));
        }
        assert_eq!(prove_consistency(leaves, size1 as usize).unwrap().as_slice(), path);
        verify_consistency(size1, &root1, size as u64, expected_root, &path).unwrap();
    }
}

#[test]
fn every_merkle_tree_has_its_root_and_proofs() {
    let book = read("merkle-rfc9162.json");
    let seven = &book["seven_leaf_example"];
    let leaves: Vec<_> =
        list(seven, "leaves").iter().map(|l| Hash::of_leaf([&hex::decode(l.as_str().unwrap()).unwrap()])).collect();
    check_tree(&leaves, &hash(&seven["hash"]), seven);
    let all: Vec<_> =
        list(&book, "own_leaves").iter().map(|l| Hash::of_leaf([&hex::decode(l.as_str().unwrap()).unwrap()])).collect();
    for case in list(&book, "own") {
        let size = case["tree_size"].as_u64().unwrap() as usize;
        check_tree(&all[..size], &hash(&case["root"]), case);
    }
}

#[test]
fn a_proof_with_anything_changed_proves_nothing() {
    let leaves: Vec<_> = (0u8..21).map(|i| Hash::of_leaf([&[i]])).collect();
    let whole = root(&leaves);
    for index in 0..leaves.len() {
        let proof = prove_inclusion(&leaves, index).unwrap();
        let path = proof.as_slice();
        let check = |i: u64, n: u64, p: &[Hash]| verify_inclusion(&leaves[index], i, n, p, &whole);
        check(index as u64, 21, path).unwrap();
        assert!((0..30).filter(|i| *i != index as u64).all(|i| check(i, 21, path).is_err()));
        assert!(check(index as u64, 21, &path[1..]).is_err());
        assert!(check(index as u64, 21, &[path, &[whole]].concat()).is_err());
        for at in 0..path.len() {
            let mut other = path.to_vec();
            other[at].0[0] ^= 1;
            assert!(check(index as u64, 21, &other).is_err());
        }
    }
    assert!(prove_inclusion(&leaves, 21).is_none());
    for size in 1..21usize {
        let proof = prove_consistency(&leaves, size).unwrap();
        let path = proof.as_slice();
        let old = root(&leaves[..size]);
        let check = |n: u64, r: &Hash, p: &[Hash]| verify_consistency(n, r, 21, &whole, p);
        check(size as u64, &old, path).unwrap();
        assert!(check(size as u64, &whole, path).is_err());
        assert!(check(size as u64, &old, &path[1..]).is_err());
        assert!(check(size as u64, &old, &[path, &[whole]].concat()).is_err());
        for at in 0..path.len() {
            let mut other = path.to_vec();
            other[at].0[31] ^= 0x80;
            assert!(check(size as u64, &old, &other).is_err());
        }
    }
    assert!(prove_consistency(&leaves, 0).is_none() && prove_consistency(&leaves, 22).is_none());
}

/// The Certificate Transparency known answer and other people's probes are read where they lie beside the repository;
/// they are not copied into it.
#[test]
fn other_peoples_merkle_probes_agree_where_they_are_present() {
    let beside = format!("{}/../../shared/vectors/standards/merkle-rfc9162.json", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read(beside) else { return };
    let book: Value = serde_json::from_slice(&text).unwrap();
    let known = &book["ct_known_answer"];
    let mut tree = Tree::new();
    let roots = hashes(&known["roots_by_size"]);
    assert_eq!(tree.root(), roots[0]);
    for (i, leaf) in list(known, "leaves").iter().enumerate() {
        let leaf = Hash::of_leaf([&hex::decode(leaf.as_str().unwrap()).unwrap()]);
        assert_eq!(leaf, hash(&known["leaf_hashes"][i]));
        tree.append(leaf);
        assert_eq!(tree.root(), roots[i + 1]);
    }
    let typed = |v: &Value| hex::decode(v.as_str()?).ok()?.try_into().ok().map(Hash);
    let typed_all = |v: &Value| v.as_array().map_or(Some(Vec::new()), |a| a.iter().map(typed).collect());
    for probe in list(&book["probes"], "inclusion") {
        let valid = typed(&probe["leaf_hash"])
            .zip(typed(&probe["root"]))
            .zip(typed_all(&probe["proof"]))
            .zip(probe["leaf_index"].as_u64().zip(probe["tree_size"].as_u64()))
            .is_some_and(|(((leaf, root), proof), (index, size))| {
                verify_inclusion(&leaf, index, size, &proof, &root).is_ok()
            });
        assert_eq!(valid, probe["valid"].as_bool().unwrap(), "{probe}");
    }
    for probe in list(&book["probes"], "consistency") {
        if probe["size1"] == probe["size2"] && typed(&probe["root1"]).is_none() {
            continue; // a "root" of another length than a hash never gets as far as a proof here
        }
        let valid = typed(&probe["root1"])
            .zip(typed(&probe["root2"]))
            .zip(typed_all(&probe["proof"]))
            .zip(probe["size1"].as_u64().zip(probe["size2"].as_u64()))
            .is_some_and(|(((root1, root2), proof), (size1, size2))| {
                verify_consistency(size1, &root1, size2, &root2, &proof).is_ok()
            });
        assert_eq!(valid, probe["valid"].as_bool().unwrap(), "{probe}");
    }
}

// --- COSE ------------------------------------------------------------------------------------------------------------

/// A public key of a case, checked by aws-lc-rs.
struct PublicKey {
    alg: SignAlg,
    name: KeyName,
    raw: Vec<u8>,
}

impl PublicKey {
    fn of(case: &Value) -> Self {
        let x = bytes(&case["key"], "x");
        let (alg, raw) = match case["key"]["kty"].as_str() {
            Some("EC") => (SignAlg::Esp256, [&[4], &x[..], &bytes(&case["key"], "y")].concat()),
            _ => (SignAlg::Ed25519, x),
        };
        Self { alg, name: KeyName::of(&bytes(case, "spki")), raw }
    }
}

impl Verify for PublicKey {
    fn alg(&self) -> SignAlg {
        self.alg
    }
    fn key_name(&self) -> KeyName {
        self.name
    }
    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused> {
        let how: &dyn signature::VerificationAlgorithm = match self.alg {
            SignAlg::Esp256 => &signature::ECDSA_P256_SHA256_FIXED,
            SignAlg::Ed25519 => &signature::ED25519,
            SignAlg::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        };
        signature::UnparsedPublicKey::new(how, &self.raw)
            .verify(&message.concat(), signature)
            .map_err(|_| SignatureRefused)
    }
}

#[test]
fn every_cose_sign1_of_ours_verifies_or_is_refused_as_the_vectors_say() {
    for case in list(&read("cose-sign1.json"), "own") {
        let (cose, context) = (bytes(case, "cose_sign1"), bytes(case, "external_aad"));
        let key = PublicKey::of(case);
        assert_eq!(hex::encode(key.name.0), case["kid8"].as_str().unwrap());
        let verified = Sign1::parse(&cose).ok().and_then(|s| s.verify(&key, &context).ok().map(<[u8]>::to_vec));
        let expected = case["verifies"].as_bool().unwrap().then(|| bytes(case, "payload"));
        assert_eq!(verified, expected, "{}", case["id"]);
        if let Some(payload) = expected {
            let signed = Sign1::parse(&cose).unwrap();
            let mut protected = [0; 15];
            let mut w = Writer::new(&mut protected);
            signed.header.emit(&mut w).unwrap();
            let len = w.len();
            assert_eq!(protected[1..len], bytes(case, "protected"));
            let to_be_signed = ToBeSigned::new(signed.header, &context, &payload);
            assert_eq!(to_be_signed.parts().concat(), bytes(case, "to_be_signed"), "{}", case["id"]);
            let statement = Statement::parse(&payload).unwrap();
            let mut out = [0; Statement::LONGEST];
            let n = statement.emit(&mut out).unwrap();
            assert_eq!(out[..n], payload);
            // Another implementation builds the same bytes to be signed.
            let oracle = coset::CoseSign1::from_tagged_slice(&cose).unwrap();
            assert_eq!(oracle.tbs_data(&context), to_be_signed.parts().concat());
        }
    }
}

/// Ed25519 is deterministic: what we sign must be the bytes of the vector.
struct Ed25519Seed(signature::Ed25519KeyPair, KeyName);

impl Sign for Ed25519Seed {
    fn alg(&self) -> SignAlg {
        SignAlg::Ed25519
    }
    fn key_name(&self) -> KeyName {
        self.1
    }
    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let signature = self.0.sign(&message.concat());
        signature.as_ref().try_into().map(Signature).map_err(|_| SignError::SignerFailed)
    }
}

#[test]
fn what_we_sign_is_what_the_vectors_hold() {
    let book = read("cose-sign1.json");
    let ours = list(&book, "own").iter().filter(|c| c["verifies"] == true && c["key"]["kty"] == "OKP");
    let mut signed = 0;
    for case in ours {
        let pair = signature::Ed25519KeyPair::from_seed_unchecked(&bytes(&case["key"], "d")).unwrap();
        let key = Ed25519Seed(pair, KeyName::of(&bytes(case, "spki")));
        let mut out = [0; 300];
        let n = Sign1::seal(&key, &bytes(case, "external_aad"), &bytes(case, "payload"), &mut out).unwrap();
        assert_eq!(out[..n], bytes(case, "cose_sign1"), "{}", case["id"]);
        assert!(coset::CoseSign1::from_slice(&out[1..n]).is_ok());
        signed += 1;
    }
    assert_eq!(signed, 3);
}

// --- V9 and V10 ------------------------------------------------------------------------------------------------------

#[test]
fn v9_and_v10_a_leaf_and_a_statement_are_those_of_the_specification() {
    let k_blind = BlindKey::new(core::array::from_fn(|i| 0x40 + i as u8));
    let payload = hex::decode("840118d7182d1825").unwrap();
    let subject =
        Subject { level: SignedLevel::Cloud, did: Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]), epoch: Epoch(5), bctx: None };
    let salt = k_blind.salt(300);
    assert_eq!(hex::encode(salt.0), "ee1601a5deb4ee7ed499e580fb42e334");
    let mut tbs = [0; 64];
    let n = subject.emit_tbs(300, &payload, &mut tbs).unwrap();
    assert_eq!(hex::encode(&tbs[..n]), "876272310348acde480000000001054019012c48840118d7182d1825");
    let leaf = subject.leaf(&salt, 300, &payload);
    assert_eq!(leaf.to_string(), "efa7cac1456b2383aac65fb986cf2b9c608a97973e11181c7c9f992967726cdf");

    let leaves: Vec<_> = [300, 301, 303].map(|piv| subject.leaf(&k_blind.salt(piv), piv, &payload)).to_vec();
    let root = root(&leaves);
    assert_eq!(root.to_string(), "396dfe810a9d51977eb5312459a8e57cc1fce65c15576483c6846d3f27b7cfe0");
    let statement = Statement { subject, number: 1, first_piv: 300, bitmap: &[0x0B], root, previous: Hash([0; 32]) };
    let mut out = [0; Statement::LONGEST];
    let n = statement.emit(&mut out).unwrap();
    assert_eq!(
        hex::encode(&out[..n]),
        format!(
            "8a6262310348acde48000000000105400119012c410b5820396dfe810a9d51977eb5312459a8e57cc1fce65c15576483c6846d3f27b7cfe05820{}",
            "00".repeat(32)
        )
    );
    assert_eq!(statement.leaves(), 3);
    assert_eq!(Statement::parse(&out[..n]).unwrap(), statement);
    assert_eq!(statement::CONTEXT, b"iotsec-batch-v1");
}
