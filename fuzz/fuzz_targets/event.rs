//! What a gateway tells of itself. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::event::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(event) = Event::parse(bytes) {
        let len = event.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        let _ = event.counts.iter().count();
    }
});
