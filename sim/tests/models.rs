//! The models at a depth that takes seconds, and their broken variants. `./ci.sh states` looks further.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::suite::set_seal_witness;
use fivefold_sim::model::cases::CASES;
use fivefold_sim::model::explore::Reach;
use fivefold_sim::model::seals::sealed;

const THREADS: usize = 2;

#[test]
fn every_promise_is_kept_half_as_far_as_ci_looks() {
    set_seal_witness(sealed);
    for case in CASES {
        let looked = case.look(Reach { depth: case.depth / 2, threads: THREADS }).unwrap();
        if let Some(violation) = looked.violation {
            panic!("{}: {}\n{}", case.name, violation.what, violation.story.join("\n"));
        }
        assert!(looked.states > 20, "{}: {} states", case.name, looked.states);
    }
}

#[test]
fn broken_variants_that_show_at_once_are_found() {
    set_seal_witness(sealed);
    let mut found = 0;
    for case in CASES {
        for &(flaw, depth, faults) in case.flaws.iter().filter(|(_, depth, _)| *depth <= 4) {
            let looked = case.find(flaw, depth, faults, THREADS).unwrap();
            assert!(looked.violation.is_some(), "not found: {flaw}");
            found += 1;
        }
    }
    assert!(found > 0);
}
