//! What stands inside OSCORE: code, options and payload, and the rules for them.
#![no_main]

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::oscore::{Plaintext, judge_answer, judge_request, judge_tiny_request, nested_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Some(plaintext) = Plaintext::parse(bytes) {
        let len = plaintext.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    let _ = (judge_request::<E2>(bytes), judge_request::<E3>(bytes));
    let _ = (judge_tiny_request::<E2>(bytes), judge_tiny_request::<E3>(bytes));
    let _ = (judge_answer::<E2>(bytes), judge_answer::<E3>(bytes));
    let _ = (nested_answer::<E2>(bytes), nested_answer::<E3>(bytes));
});
