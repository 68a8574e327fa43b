//! Bundles of the vectors, as files.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Writes one of the vectors into the folder: `evb` and `trust.toml`.
pub(crate) fn put(folder: &Path, id: &str) -> [String; 2] {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/evidence/bundles.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let case = vectors["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap();
    let trust = vectors["trust"][case["trust"].as_str().unwrap()].as_str().unwrap();
    let [bundle, believed] = ["bundle.evb", "trust.toml"].map(|name| folder.join(name));
    std::fs::write(&bundle, STANDARD.decode(case["bundle"].as_str().unwrap()).unwrap()).unwrap();
    std::fs::write(&believed, trust).unwrap();
    [bundle, believed].map(|p| p.to_str().unwrap().to_owned())
}
