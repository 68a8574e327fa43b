//! The control maps of both directions. What is emitted says what was parsed: an empty list is left out.
#![no_main]

use fivefold_core::wire::control::{Downlink, Uplink};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(map) = Uplink::parse(bytes) {
        let _ = (map.results.iter().count(), map.leaves.as_ref().map(|l| l.iter().count()));
        let len = map.emit(&mut out).expect("it fits");
        assert_eq!(Uplink::parse(&out[..len]), Ok(map));
    }
    if let Ok(map) = Downlink::parse(bytes) {
        let _ = (map.commands.iter().count(), map.received.as_ref().map(|r| r.covers(u64::MAX)));
        let len = map.emit(&mut out).expect("it fits");
        assert_eq!(Downlink::parse(&out[..len]), Ok(map));
    }
});
