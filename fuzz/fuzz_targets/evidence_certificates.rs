//! Certificates in chains: what is read has one form, so its outside written again is the same bytes.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../evidence/src/chain.rs"]
mod chain;
#[path = "../../evidence/src/der.rs"]
mod der;

use fivefold_core::id::Did;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let spki = der::spki_of(bytes).map(<[u8]>::to_vec);
    if let Ok(read) = chain::read(bytes) {
        assert_eq!(spki.as_deref(), Ok(read.public_key().raw), "found by its place, it is what the parser found");
    }
    if let Ok(anchor) = chain::Anchor::from_der(bytes) {
        // Nobody stands under it by this alone.
        assert!(chain::follow(&[bytes], &[anchor], chain::Whom::Device(Did([0; 8]))).is_err());
    }
});
