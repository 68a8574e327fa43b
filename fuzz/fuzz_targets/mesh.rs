//! What stands in an E1 frame: mesh header and dispatch.
#![no_main]

use fivefold_core::wire::mesh;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plaintext) = mesh::parse(bytes) {
        let mut out = [0; 4096];
        let len = plaintext.mesh.map_or(0, |h| h.emit(&mut out).expect("it fits"));
        out[len..len + plaintext.rest.len()].copy_from_slice(plaintext.rest);
        assert_eq!(&out[..len + plaintext.rest.len()], bytes);
    }
});
