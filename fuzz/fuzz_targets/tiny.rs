//! Tiny frames with both lengths of kid: what parses is emitted as it was, and what expands compresses to what it was.
#![no_main]

use fivefold_core::oscore::Id;
use fivefold_core::wire::coap::{Outer, Protected};
use fivefold_core::wire::tiny::{KidLength, Tiny, Way};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for kid_length in [KidLength::None, KidLength::Two] {
        let Ok(tiny) = Tiny::parse(bytes, kid_length) else { continue };
        let mut out = [0; 4096];
        let len = tiny.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        assert_eq!(len, tiny.emitted_len());

        let kid = Id::new(&[0x0A, 0x17]);
        let Ok(len) = tiny.expand(kid, &mut out) else { continue };
        let message = &out[..len];
        let (expanded, way, layers) = match tiny {
            Tiny::Request { layers, .. } => {
                (Protected::parse_request(message, Outer::Strict), Way::Up(kid_length), layers)
            }
            Tiny::Downlink { layers, .. } => (Protected::parse_request(message, Outer::Strict), Way::Down, layers),
            Tiny::Answer { layers, .. } => (Protected::parse_answer(message), Way::Down, layers),
            Tiny::DeviceAnswer { layers, .. } => (Protected::parse_answer(message), Way::Up(kid_length), layers),
            _ => panic!("stands for no message, and expands"),
        };
        let expanded = expanded.expect("what we expand is strict OSCORE");
        let back = Tiny::compress(&expanded, layers, way).expect("what expands compresses");
        assert_eq!(back, tiny);
    }
});
