//! The inner rules of C2 over C3. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::tiny::{Inner, Within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    for within in [Within::Answer, Within::DeviceAnswer, Within::Downlink, Within::Request] {
        if let Ok(inner) = Inner::parse(bytes, within) {
            let len = inner.emit(&mut out).expect("it fits");
            assert_eq!(&out[..len], bytes);
            let _ = inner.answer(1);
        }
    }
});
