//! Policy records. What parses is emitted as it was.
#![no_main]

use fivefold_core::profile::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::parse(bytes) {
        let mut out = [0; Policy::LONGEST];
        let len = policy.emit(&mut out).expect("LONGEST is enough");
        assert_eq!(&out[..len], bytes);
    }
});
