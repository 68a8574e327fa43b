//! What a gateway tells of a classic frame. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::classic::{self, Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; classic::BYTES];
    if let Ok(report) = Report::parse(bytes) {
        let len = report.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
});
