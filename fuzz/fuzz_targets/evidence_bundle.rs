//! Files of bundles. What is read is written again as it was.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../evidence/src/bundle.rs"]
mod bundle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(bundles) = bundle::Bundles::new(bytes) else { return };
    let (mut again, mut is_whole) = (Vec::new(), true);
    for read in bundles {
        match read {
            Ok(read) => again.extend(read.emit().expect("what was read can be written")),
            Err(_) => is_whole = false,
        }
    }
    assert!(bytes.starts_with(&again) && (!is_whole || again == bytes));
});
