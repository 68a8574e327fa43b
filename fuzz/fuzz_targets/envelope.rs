//! What a gateway posts: envelopes and batches of them. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::envelope::{Batch, Envelope, Item};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(envelope) = Envelope::parse(bytes) {
        let len = envelope.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    let Ok(batch) = Batch::new(bytes) else { return };
    for item in batch {
        match item {
            Ok(Item::Envelope(encoded, envelope)) => {
                let len = envelope.emit(&mut out).expect("it fits");
                assert_eq!(&out[..len], encoded);
            }
            Ok(Item::Receipt(_)) => {}
            Err(_) => break,
        }
    }
});
