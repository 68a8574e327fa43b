//! The vectors, for tests in both directions.
#![allow(dead_code, unreachable_pub)]

use fivefold_waspmote::{ClassicKey, Clear, Encrypted, Frame, KeyBits, Refused, Table};
use serde_json::Value as Json;

pub fn vectors(name: &str) -> Json {
    let path = format!("{}/../vectors/waspmote/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn cases(of: &Json) -> &[Json] {
    of["cases"].as_array().unwrap()
}

pub fn bytes(case: &Json, name: &str) -> Vec<u8> {
    hex::decode(case[name].as_str().unwrap_or_else(|| panic!("{} has no {name}", case["id"]))).unwrap()
}

pub fn table(case: &Json) -> Table {
    let name = case["table"].as_str().unwrap().trim_end_matches("_xtreme");
    Table::from_word(name).unwrap()
}

pub fn clear(frame: Result<Frame<'_>, Refused>) -> Clear<'_> {
    match frame {
        Ok(Frame::Clear(clear)) => clear,
        other => panic!("{other:?}"),
    }
}

pub fn sent(case: &Json) -> Vec<&Json> {
    case["sensors"].as_array().unwrap().iter().filter(|s| s["rejected_by_node"] != true).collect()
}

pub fn key(case: &Json) -> ClassicKey {
    match case["key_ascii"].as_str() {
        Some(text) => {
            let bits = KeyBits::from_bits(u16::try_from(case["aes_bits"].as_u64().unwrap()).unwrap()).unwrap();
            ClassicKey::from_text(text.as_bytes(), bits).unwrap()
        }
        None => ClassicKey::from_bytes(&bytes(case, "effective_key_hex")).unwrap(),
    }
}

pub fn encrypted(frame: &[u8]) -> Encrypted<'_> {
    match Frame::parse(frame) {
        Ok(Frame::Encrypted(encrypted)) => encrypted,
        other => panic!("{other:?}"),
    }
}
