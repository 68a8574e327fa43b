//! Every byte of a bundle matters: whichever is altered, the bundle is refused or unreadable, and never proven.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod sample;

use std::collections::BTreeMap;
use std::sync::Mutex;

use fivefold_core::proof::statement::SignedLevel;
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Verdict, verify_file};
use sample::Village;

/// What is done to one byte, to the next, and so on: what a text, a hash and a length must each notice. Every other value of every
/// byte is the matter of `examples/alter.rs`, in `./ci.sh evidence`.
const MASKS: [u8; 3] = [0x01, 0x20, 0x80];

/// Alters every byte of `whole` from `from` on, one after the other; returns how often each step refused.
fn alter(whole: &[u8], trust: &Trust) -> BTreeMap<&'static str, usize> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let steps = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let steps = &steps;
            scope.spawn(move || {
                let mut mine: BTreeMap<&'static str, usize> = BTreeMap::new();
                let mut altered = whole.to_vec();
                for at in (thread..whole.len()).step_by(threads) {
                    altered[at] = whole[at] ^ MASKS[at % MASKS.len()];
                    let said = verify_file(&altered, trust);
                    assert!(
                        said.iter().all(|r| r.verdict != Verdict::Proven),
                        "byte {at} may be {:02x} instead of {:02x}",
                        altered[at],
                        whole[at]
                    );
                    *mine.entry(said[0].step.unwrap()).or_default() += 1;
                    altered[at] = whole[at];
                }
                let mut all = steps.lock().unwrap();
                mine.into_iter().for_each(|(step, n)| *all.entry(step).or_default() += n);
            });
        }
    });
    steps.into_inner().unwrap()
}

#[test]
fn no_altered_byte_passes() {
    let mut village = Village::new(40);
    // A template, a receipt, all of the witnesses needed: no line of it is spare.
    let batch = village.batch(0, SignedLevel::Cloud, None, 5, &[0]);
    let trust = village.trust();
    let whole = village.bundle(&batch, 2).bytes();
    let said = verify_file(&whole, &trust);
    assert_eq!(said[0].verdict, Verdict::Proven, "{:?}", said[0].reason);
    assert!(said[0].values.iter().any(|v| v.name == "battery") && said[0].heard.len() == 1);
    let steps = alter(&whole, &trust);
    let tried: usize = steps.values().sum();
    println!("{} bytes, {tried} alterations, none passes: {steps:?}", whole.len());
    assert!(tried >= whole.len() && steps.len() >= 11, "{steps:?}");
}

#[test]
fn no_cut_passes() {
    let mut village = Village::new(41);
    let batch = village.batch(0, SignedLevel::Cloud, None, 3, &[]);
    let trust = village.trust();
    let whole = village.bundle(&batch, 1).bytes();
    for n in 0..whole.len() {
        assert_eq!(verify_file(&whole[..n], &trust)[0].verdict, Verdict::Unreadable, "cut to {n} bytes");
    }
}

/// Where names and ids of signature lines stand: nothing signs these, so that who alters one makes it the line of somebody else.
fn names_of_lines(whole: &[u8]) -> Vec<std::ops::Range<usize>> {
    const DASH: &[u8] = "\n\u{2014} ".as_bytes();
    /// Characters of base64 that a key id of 4 bytes reaches into.
    const ID: usize = 6;
    let begins = (0..whole.len()).filter(|at| whole[*at..].starts_with(DASH)).map(|at| at + DASH.len());
    begins
        .map(|at| {
            let name = whole[at..].iter().position(|b| *b == b' ').unwrap();
            at..at + name + 1 + ID
        })
        .collect()
}

#[test]
fn where_a_witness_is_to_spare_its_line_may_become_nobodys_and_nothing_else_may_be_altered() {
    let mut village = Village::new(42);
    let batch = village.batch(0, SignedLevel::Cloud, None, 3, &[]);
    // Two of the three are enough.
    let trust: Trust =
        village.trust_text().replace("need = 3", "need = 2").replace("pq_need = 1", "pq_need = 0").parse().unwrap();
    let whole = village.bundle(&batch, 1).bytes();
    assert_eq!(verify_file(&whole, &trust)[0].verdict, Verdict::Proven);
    let names = names_of_lines(&whole);
    let (mut spare, mut refused) = (0, 0);
    let mut altered = whole.clone();
    // Around those, every byte; of all others, which the test above alters one by one, some.
    let is_near = |at: usize| names.iter().any(|n| (n.start.saturating_sub(8)..n.end + 8).contains(&at));
    for at in (0..whole.len()).filter(|at| at % 16 == 0 || is_near(*at)) {
        altered[at] = whole[at] ^ MASKS[at % MASKS.len()];
        let said = verify_file(&altered, &trust);
        if said.iter().any(|r| r.verdict == Verdict::Proven) {
            spare += 1;
            assert!(
                names.iter().any(|n| n.contains(&at)),
                "byte {at} is no part of a name or an id, and may be altered"
            );
        } else {
            refused += 1;
        }
        altered[at] = whole[at];
    }
    println!("{refused} alterations refused, {spare} made a line of a witness that is not needed nobody's");
    assert!(spare > 0 && refused > whole.len() / 16, "{refused} {spare}");
}
