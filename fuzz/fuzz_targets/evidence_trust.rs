//! Trust files: one that is read names somebody in each place, and a mistake is one sentence.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../evidence/src/chain.rs"]
mod chain;
#[path = "../../evidence/src/checkpoint.rs"]
mod checkpoint;
#[path = "../../evidence/src/cosignature.rs"]
mod cosignature;
#[path = "../../evidence/src/der.rs"]
mod der;
#[path = "../../keep/src/format.rs"]
pub mod format;
#[path = "../../evidence/src/note.rs"]
mod note;
#[path = "../../evidence/src/trust.rs"]
mod trust;

// What the trust file says of its format is read by the crate that keeps files; of that crate it is all that is wanted here.
extern crate self as fivefold_keep;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<trust::Trust>() {
    Ok(read) => assert!(!read.rule.keys().is_empty() && !read.operators.is_empty()),
    Err(e) => assert!(!e.to_string().contains('\n')),
});
