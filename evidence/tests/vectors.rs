//! The bundles of vectors/evidence: made by hand, by the verifier that shares no line with ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Verdict, verify_file};
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
