//! CoAP messages, and the OSCORE messages among them. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::coap::{Message, Outer, Protected, split_options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(message) = Message::parse(bytes) {
        let len = message.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        assert_eq!(len, message.emitted_len());
        let _ = message.options().count();
    }
    for outer in [Outer::Strict, Outer::StockClient] {
        if let Ok(request) = Protected::parse_request(bytes, outer) {
            let len = request.emit(&mut out).expect("it fits");
            assert_eq!(Protected::parse_request(&out[..len], Outer::Strict), Ok(request));
            if outer == Outer::Strict {
                assert_eq!(&out[..len], bytes);
            }
        }
    }
    if let Ok(answer) = Protected::parse_answer(bytes) {
        let len = answer.emit(&mut out).expect("it fits");
        assert_eq!(Protected::parse_answer(&out[..len]), Ok(answer));
    }
    let _ = split_options(bytes);
});
