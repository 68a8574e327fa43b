//! What the cloud tells a gateway: replies to batches and downlinks. What is emitted says what was parsed: an empty list is left out.
#![no_main]

use fivefold_core::wire::envelope::{Downlink, Reply, emit_downlinks, parse_downlinks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(reply) = Reply::parse(bytes) {
        let len = reply.emit(&mut out).expect("it fits");
        let _ = (reply.refused.iter().count(), reply.downlinks.iter().count());
        assert_eq!(Reply::parse(&out[..len]), Ok(reply));
    }
    if let Ok(downlink) = Downlink::parse(bytes) {
        let len = downlink.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    if let Ok(downlinks) = parse_downlinks(bytes) {
        let all: Vec<_> = downlinks.iter().collect();
        let len = emit_downlinks(&all, &mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
});
