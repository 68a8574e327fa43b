//! Requests, answers and grants of enrolment, as bytes, as text and on a serial line. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::base45;
use fivefold_core::wire::enrolment::{Answer, Grant, Request, SigningRequest, TEXT_LONGEST, emit_text, parse_text};
use fivefold_core::wire::serial::{Deframer, LONGEST};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 1024];
    if let Ok(request) = Request::parse(bytes) {
        let len = request.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    if let Ok(request) = SigningRequest::parse(bytes) {
        let len = request.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let len = answer.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        let mut text = [0; TEXT_LONGEST];
        let len = emit_text(bytes, &mut text).expect("it fits");
        let mut back = [0; Answer::LONGEST];
        assert_eq!(parse_text(&text[..len], &mut back), Ok(Some(bytes.len())));
        assert_eq!(&back[..bytes.len()], bytes);
    }
    if let Ok(grant) = Grant::parse(bytes) {
        let len = grant.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
    }
    let _ = parse_text(bytes, &mut out);
    if let Ok(len) = base45::parse(bytes, &mut out) {
        let mut text = vec![0; bytes.len()];
        assert_eq!(base45::emit(&out[..len], &mut text), Ok(bytes.len()));
        assert_eq!(text, bytes);
    }
    let (mut deframer, mut sent) = (Deframer::default(), [0; LONGEST]);
    for byte in bytes {
        deframer.feed(*byte);
        while let Some(frame) = deframer.frame() {
            let len = frame.emit(&mut sent).expect("it fits");
            assert!(bytes.windows(len).any(|w| w == &sent[..len]));
        }
    }
});
