//! Requests of Waspmote modules (W13): what comes in pieces is what comes at once, and nothing grows without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser alone, without the daemon that it stands in.
#[path = "../../gateway/src/classic/http/form.rs"]
mod form;
#[allow(dead_code, reason = "what a refusal is called and counted as is the listener's")]
#[path = "../../gateway/src/classic/http/refusal.rs"]
mod refusal;
#[path = "../../gateway/src/classic/http/request.rs"]
mod request;

use form::LONGEST_FRAME;
use refusal::Refusal;
use request::{LONGEST_WAIT, Parser, Request, Step};

fn heard(bytes: &[u8], piece: usize) -> Vec<Result<Request, Refusal>> {
    let mut parser = Parser::new();
    let mut all = Vec::new();
    for mut piece in bytes.chunks(piece) {
        loop {
            piece = &piece[parser.push(piece)..];
            assert!(parser.room() <= LONGEST_WAIT);
            match parser.step() {
                Ok(Step::Whole(request)) => {
                    assert!((1..=LONGEST_FRAME).contains(&request.frame.len()));
                    all.push(Ok(request));
                }
                Ok(Step::Continue) => {}
                Ok(Step::More(_)) if piece.is_empty() => break,
                Ok(Step::More(_)) => assert!(parser.room() > 0),
                Err(refusal) => {
                    all.push(Err(refusal));
                    if refusal.severs() {
                        return all;
                    }
                }
            }
        }
    }
    match parser.end() {
        Ok(Some(request)) => all.push(Ok(request)),
        Ok(None) => {}
        Err(refusal) => all.push(Err(refusal)),
    }
    all
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    assert_eq!(heard(bytes, usize::MAX), heard(bytes, usize::from(*piece).max(1)));
});
