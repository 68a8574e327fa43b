//! The state that the cloud pushes to a gateway. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::state::State;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(state) = State::parse(bytes) {
        let len = state.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        let _ = (state.devices.iter().count(), state.contexts.iter().count(), state.keys.iter().count());
        let _ = state.revoked.iter().count();
    }
});
