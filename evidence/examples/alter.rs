//! Alters a bundle byte by byte and shows that each alteration is refused:
//!
//! ```sh
//! cargo run --release -p fivefold-evidence --example alter -- FILE TRUST [VALUES]
//! ```
//!
//! VALUES is how many other values each byte takes, those with one bit changed first; 255 is every one. The second verifier
//! does the same with the same file: `interop/evidence/alter.py`. One [`Verifier`] sees all of a thread's alterations: what it
//! knows to hold it knows byte for byte, so what was altered is verified each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Step, Verdict, Verifier, verify_file};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, trust, more @ ..] = &arguments[..] else { panic!("usage: alter FILE TRUST [VALUES]") };
    let values: usize = more.first().map_or(255, |n| n.parse().expect("a number of values"));
    let whole = std::fs::read(file).unwrap();
    let trust: Trust = std::fs::read_to_string(trust).unwrap().parse().unwrap();
    assert!(verify_file(&whole, &trust).iter().all(|r| r.verdict == Verdict::Proven), "unaltered it is not proven");

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let (whole, trust) = (&whole, &trust);
        let run = |first| scope.spawn(move || alter(whole, trust, first, threads, values));
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|part| part.join().unwrap()).collect()
    });
    let (mut steps, mut proven) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for (counted, found) in parts {
        counted.into_iter().for_each(|(step, n)| *steps.entry(step).or_default() += n);
        proven.extend(found);
    }
    let tried = steps.values().sum::<usize>() + proven.len();
    assert_eq!(tried, whole.len() * values.min(255), "not every alteration was tried");
    let (bytes, refused, not) = (whole.len(), tried - proven.len(), proven.len());
    println!("{tried} alterations of one byte in {bytes} bytes: {refused} refused, {not} not");
    // In the very words of the second verifier.
    let counted = Step::ALL.iter().filter_map(|step| Some(format!("{} {}", step.as_str(), steps.get(step.as_str())?)));
    println!("  {}", counted.collect::<Vec<_>>().join(", "));
    proven.iter().take(20).for_each(|(at, value)| println!("  proven with byte {at} changed to {value:02x}"));
    if proven.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Part = (BTreeMap<&'static str, usize>, Vec<(usize, u8)>);

/// Every `threads`-th byte from `first` on.
fn alter(whole: &[u8], trust: &Trust, first: usize, threads: usize, values: usize) -> Part {
    let mut masks: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
    masks.extend((1..=255u8).filter(|mask| !mask.is_power_of_two()));
    masks.truncate(values);
    let by = Verifier::new(trust);
    let (mut altered, mut steps, mut proven) = (whole.to_vec(), BTreeMap::new(), Vec::new());
    for at in (first..whole.len()).step_by(threads) {
        for mask in &masks {
            altered[at] = whole[at] ^ mask;
            let said = by.file(&altered);
            match said.iter().find(|r| r.verdict != Verdict::Proven) {
                Some(refused) => *steps.entry(refused.step.unwrap()).or_default() += 1,
                None => proven.push((at, altered[at])),
            }
        }
        altered[at] = whole[at];
    }
    (steps, proven)
}
