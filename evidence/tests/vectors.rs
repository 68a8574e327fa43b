//! The bundles and lines of vectors/evidence: made by hand, by the verifier that shares no line with ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_evidence::deeds::compare;
use fivefold_evidence::log::{Entry, EntryKind};
use fivefold_evidence::record::Deed;
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Verdict, verify_file};
use fivefold_keep::registry::Line;
use serde_json::Value;

#[test]
fn each_bundle_gets_the_verdict_that_stands_beside_it() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/evidence/bundles.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut readings, mut wrong) = (0, Vec::new());
    for case in vectors["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let trust: Trust = vectors["trust"][case["trust"].as_str().unwrap()].as_str().unwrap().parse().unwrap();
        let said = verify_file(&STANDARD.decode(case["bundle"].as_str().unwrap()).unwrap(), &trust);
        let expected = case["expect"].as_array().unwrap();
        let is = |(said, expected): (&fivefold_evidence::verify::Report, &Value)| {
            let verdict = match said.verdict {
                Verdict::Proven => "proven",
                Verdict::Refused => "refused",
                Verdict::Unreadable => "unreadable",
            };
            expected["verdict"] == verdict && expected["step"].as_str() == said.step
        };
        if said.len() != expected.len() || !said.iter().zip(expected).all(is) {
            let got: Vec<_> = said.iter().map(|r| (r.step, r.reason.clone())).collect();
            wrong.push(format!("{id}: {got:?} instead of {expected:?}"));
        }
        readings += said.len();
    }
    assert!(readings > 140, "{readings}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_of_the_operators_log_hash_to_the_records_and_entries_beside_them() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/evidence/operator-log.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let nth = |list: &str, n: usize| vectors[list][n].as_str().unwrap().to_owned();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap();
    let of = |line: &Value| Line {
        number: number(line, "number"),
        deed: number(line, "deed"),
        at: number(line, "at"),
        who: text(line, "who"),
        place: text(line, "from"),
        command: text(line, "command"),
        done: text(line, "done"),
        about: text(line, "about"),
        version: number(line, "version"),
        salt: hex::decode(text(line, "salt")).unwrap().try_into().unwrap(),
        before: hex::decode(text(line, "before")).unwrap().try_into().unwrap(),
    };
    let lines: Vec<Line> = vectors["lines"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(lines.len(), 5);
    let mut log = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(hex::encode(line.hash()), vectors["lines"][n]["hash"], "line {n}");
        let record = Deed::of(line).emit().unwrap();
        let entry = Entry::of(EntryKind::Operator, &record);
        assert_eq!((hex::encode(&record), hex::encode(entry)), (nth("records", n), nth("entries", n)));
        log.push((n as u64, entry));
    }
    assert_eq!(compare(&lines, &log).logged, 5);
}
