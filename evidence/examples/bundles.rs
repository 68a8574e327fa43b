//! Writes sample bundles into a folder, each valid or broken in one way, for verifiers to agree on:
//!
//! ```sh
//! cargo run -p fivefold-evidence --example bundles -- DIR 200 SEED
//! ```
//!
//! They are wrong in more ways than a village of the simulator can be, which writes bundles too (`fivefold-sim --bundles`).
//! `trust.toml` is what to believe; `NNNN.evb` are the bundles; `expected.json` says of each its verdict, the step that must
//! refuse it, and what is wrong with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::path::PathBuf;

use fivefold_evidence::bundle::Bundles;
use fivefold_evidence::verify::{Step, verify_file};
use sample::broken::cases;
use sample::{Dice, Village};
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("usage: bundles DIR [NUMBER [SEED]]"));
    let number: usize = arguments.next().map_or(200, |n| n.parse().expect("a number of bundles"));
    let mut dice = Dice(arguments.next().map_or(1, |n| n.parse().expect("a seed")));
    std::fs::create_dir_all(&folder).unwrap();

    let mut village = Village::new(40);
    let (trust_text, trust) = (village.trust_text(), village.trust());
    std::fs::write(folder.join("trust.toml"), &trust_text).unwrap();
    let (mut expected, mut wrong) = (Vec::new(), 0);
    while expected.len() < number {
        for case in cases(&mut village, &mut dice) {
            if expected.len() == number {
                break;
            }
            let file = format!("{:04}.evb", expected.len());
            std::fs::write(folder.join(&file), &case.bytes).unwrap();
            let verdict = match case.step {
                None => "proven",
                Some(Step::Decode) => "unreadable",
                Some(_) => "refused",
            };
            let step = case.step.map(Step::as_str);
            // What is expected is what was broken; what our own verifier says is compared with it here, too.
            let said = verify_file(&case.bytes, &trust);
            if said.len() != 1 || said[0].step != step {
                wrong += 1;
                println!(
                    "{file}: {} should fail at {step:?}, and does at {:?}: {:?}",
                    case.name, said[0].step, said[0].reason
                );
            }
            expected.push(
                json!({ "file": file, "trust": "trust.toml", "what": case.name, "verdict": verdict, "step": step }),
            );
        }
    }
    std::fs::write(folder.join("expected.json"), serde_json::to_string_pretty(&expected).unwrap()).unwrap();
    let readable = expected.iter().filter(|e| e["verdict"] != "unreadable").count();
    println!(
        "{} bundles ({readable} readable) in {}; {wrong} of them not as expected",
        expected.len(),
        folder.display()
    );
    // One file with several readings, as an export writes it.
    let several: Vec<u8> = (0..3).flat_map(|n| std::fs::read(folder.join(format!("{n:04}.evb"))).unwrap()).collect();
    assert_eq!(Bundles::new(&several).unwrap().count(), 3);
    std::fs::write(folder.join("several.evb"), several).unwrap();
    assert_eq!(wrong, 0, "the verifier does not say what it should");
}
