//! ZEP datagrams. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::zep::Zep;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(zep) = Zep::parse(bytes)
        && let Ok(header) = zep.header()
    {
        assert_eq!([&header[..], zep.frame].concat(), bytes);
    }
});
