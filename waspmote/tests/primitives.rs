//! vectors/waspmote/hash.json, aes-primitives.json and rsa.json: what the vendor's libraries compute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::cipher::{Chaining, Padding, encrypt, vendor_decrypt};
use fivefold_waspmote::hash::Algorithm;
use fivefold_waspmote::rsa::{CrtKey, power, power_of_bytes, whole_root};
use num_bigint::BigUint;
use serde_json::Value;

fn cases(file: &str) -> Vec<Value> {
    let mut vectors: Value = serde_json::from_str(file).unwrap();
    let Value::Array(cases) = vectors["cases"].take() else { panic!("no cases") };
    assert!(!cases.is_empty());
    cases
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn every_hash_of_a_node_is_computed_and_is_the_standard_one() {
    for (n, case) in cases(include_str!("../../vectors/waspmote/hash.json")).iter().enumerate() {
        let algorithm = Algorithm::named(case["algorithm"].as_str().unwrap()).unwrap();
        let message = bytes(&case["message_hex"]);
        let digest = algorithm.of_bits(&message, 8 * message.len()).unwrap();
        assert_eq!(digest, bytes(&case["vendor_digest_hex"]), "case {n}: {algorithm:?}");
        let standard = digest == bytes(&case["standard_digest_hex"]);
        assert_eq!(standard, case["matches_standard"].as_bool().unwrap(), "case {n}: {algorithm:?}");
    }
}

#[test]
fn every_ciphertext_of_a_node_is_made_and_read_with_the_losses_of_its_own_code() {
    for (n, case) in cases(include_str!("../../vectors/waspmote/aes-primitives.json")).iter().enumerate() {
        let text = |key: &str| case[key].as_str().unwrap();
        let iv: [u8; 16];
        let chaining = match text("mode") {
            "ECB" => Chaining::Ecb,
            "CBC" => {
                iv = bytes(&case["iv_hex"]).try_into().unwrap();
                Chaining::Cbc(&iv)
            }
            other => panic!("no such mode: {other}"),
        };
        let padding = match text("padding") {
            "PKCS5" => Padding::Pkcs5,
            "ZEROS" => Padding::Zeros,
            other => panic!("no such padding: {other}"),
        };
        let name = format!("case {n}: {} bits, {} {}", case["bits"], text("mode"), text("padding"));
        let (key, plaintext, ciphertext) =
            (bytes(&case["key_hex"]), bytes(&case["plaintext_hex"]), bytes(&case["ciphertext_hex"]));
        assert_eq!(case["bits"].as_u64().unwrap(), 8 * key.len() as u64, "{name}");
        assert_eq!(encrypt(&key, chaining, padding, &plaintext).unwrap(), ciphertext, "{name}");
        let back = vendor_decrypt(&key, chaining, padding, &ciphertext).unwrap();
        assert_eq!(back, bytes(&case["vendor_decrypt_hex"]), "{name}");
        assert_eq!(back == plaintext, case["roundtrip_ok"].as_bool().unwrap(), "{name}");
        // PKCS #7 adds a block to whole blocks, the vendor does not; otherwise they agree.
        let standard = padding == Padding::Pkcs5 && plaintext.len() % 16 != 0;
        assert_eq!(standard, case["standard_pkcs7"].as_bool().unwrap(), "{name}");
    }
}

#[test]
fn every_number_of_a_nodes_rsa_is_computed() {
    for (n, case) in cases(include_str!("../../vectors/waspmote/rsa.json")).iter().enumerate() {
        let text = |key: &str| case[key].as_str().unwrap();
        let name = format!("case {n}: {} bits, e = {}", case["bits"], text("e_hex"));
        let encrypted = match case.get("overload").and_then(Value::as_str) {
            None => power(text("message_hex"), text("e_hex"), text("n_hex")),
            Some("binary") => power_of_bytes(&bytes(&case["message_hex"]), text("e_hex"), text("n_hex")),
            Some(other) => panic!("no such overload: {other}"),
        };
        assert_eq!(encrypted.unwrap(), text("encrypt_output_text"), "{name}");
        if let Some(said) = case.get("message_text") {
            assert_eq!(said.as_str().unwrap().as_bytes(), bytes(&case["message_hex"]), "{name}");
        }
        let Some(private) = case.get("private_op_output_text") else { continue };
        assert_eq!(
            power(text("message_hex"), text("d_hex"), text("n_hex")).unwrap(),
            private.as_str().unwrap(),
            "{name}"
        );

        let hex = |key: &str| BigUint::parse_bytes(text(key).as_bytes(), 16).unwrap();
        let (p, q, d) = (hex("p_hex"), hex("q_hex"), hex("d_hex"));
        let [dp, dq, qinv] = [&d % (&p - 1u32), &d % (&q - 1u32), q.modinv(&p).unwrap()].map(|n| n.to_str_radix(16));
        let key = CrtKey { p: text("p_hex"), q: text("q_hex"), dp: &dp, dq: &dq, qinv: &qinv };
        let decrypted = key.decrypt(text("encrypt_output_text")).unwrap();
        assert_eq!(decrypted, text("crt_decrypt_of_output_text"), "{name}");
        // The other prime first: the difference of the two remainders is negative in half of the cases.
        let [dp, dq, pinv] = [&d % (&q - 1u32), &d % (&p - 1u32), p.modinv(&q).unwrap()].map(|n| n.to_str_radix(16));
        let key = CrtKey { p: text("q_hex"), q: text("p_hex"), dp: &dp, dq: &dq, qinv: &pinv };
        assert_eq!(key.decrypt(text("encrypt_output_text")).unwrap(), decrypted, "{name}");
    }
}

#[test]
fn a_key_under_e_3_is_read_from_the_ciphertext_alone() {
    let cases = cases(include_str!("../../vectors/waspmote/rsa.json"));
    let case = cases.last().unwrap();
    assert!(case["note"].as_str().unwrap().starts_with("e=3 and a 256-bit message"));
    let key = whole_root(case["encrypt_output_text"].as_str().unwrap(), 3).unwrap();
    assert_eq!(key.unwrap().to_lowercase(), case["message_hex"].as_str().unwrap());
    // Under 512 bits the same message was reduced, and has no whole root.
    assert_eq!(whole_root(cases[0]["encrypt_output_text"].as_str().unwrap(), 3), Ok(None));
}
