//! What a log and its witnesses write: notes, keys, checkpoints, proofs, tiles, requests, records. What parses is emitted as
//! it was, and nothing is believed that nobody signed.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../evidence/src/checkpoint.rs"]
mod checkpoint;
#[path = "../../evidence/src/cosignature.rs"]
mod cosignature;
#[path = "../../evidence/src/note.rs"]
mod note;
#[path = "../../evidence/src/witness/request.rs"]
mod request;
#[path = "../../evidence/src/tile.rs"]
mod tile;
#[path = "../../evidence/src/tlog_proof.rs"]
mod tlog_proof;

use std::sync::LazyLock;

use checkpoint::{LogKey, Signed};
use libfuzzer_sys::fuzz_target;
use note::{Line, Note, VKey};
use request::{Record, Request};
use tile::{TilePath, emit_entries, emit_hashes, parse_entries, parse_hashes};
use tlog_proof::TlogProof;
use zeroize::Zeroizing;

static LOG: LazyLock<VKey> =
    LazyLock::new(|| LogKey::from_seed("log.example/fuzz", &Zeroizing::new([1; 32])).expect("a key").vkey().clone());

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    if let Ok(signed) = Signed::parse(bytes) {
        assert_eq!(signed.to_string().as_bytes(), bytes);
        assert_eq!(signed.unverified().to_string(), signed.note().text());
        assert!(signed.open(&LOG).is_err());
    }
    if let Ok(proof) = TlogProof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
        assert!(proof.verify(b"entry", &LOG).is_err());
    }
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
    }
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(record.to_string().as_bytes(), bytes);
    }
    if let Ok(text) = core::str::from_utf8(bytes) {
        if let Ok(key) = text.parse::<VKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(line) = text.parse::<Line>() {
            assert_eq!(line.to_string(), format!("{text}\n"));
        }
        if let Ok(path) = text.parse::<TilePath>() {
            assert_eq!(path.to_string(), text);
        }
    }
    let Some((width, rest)) = bytes.split_first() else { return };
    let width = u16::from(*width) + 1;
    if let Ok(entries) = parse_entries(rest, width) {
        assert_eq!(entries.len(), usize::from(width));
        assert_eq!(emit_entries(&entries).expect("they were short enough"), rest);
    }
    if let Ok(hashes) = parse_hashes(rest, width) {
        assert_eq!(emit_hashes(&hashes), rest);
    }
});
