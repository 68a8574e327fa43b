//! The OSCORE option. What parses is emitted as it was.
#![no_main]

use fivefold_core::oscore::{OscoreOption, PartialIv};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(option) = OscoreOption::parse(bytes) {
        let len = option.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        assert_eq!(len, option.emitted_len());
    }
    if let Ok(piv) = PartialIv::from_minimal(bytes) {
        assert_eq!(piv.as_bytes(), bytes);
    }
});
