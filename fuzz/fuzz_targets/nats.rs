//! What a NATS server says: what comes in pieces is what comes at once, and no more is taken than was there. The first byte says
//! how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser alone, without the sink that it stands in.
#[allow(dead_code, reason = "what is said to a server, and what of it matters, is the sink's")]
#[path = "../../sinks/src/nats/wire.rs"]
mod wire;

use bytes::BytesMut;

fn heard(bytes: &[u8], piece: usize) -> (Vec<String>, usize) {
    let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match wire::take(&mut buffer) {
                Ok(Some(said)) => {
                    assert!(buffer.len() < before);
                    all.push(format!("{said:?}"));
                }
                Ok(None) => {
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(nonsense) => {
                    all.push(nonsense.to_string());
                    return (all, 0);
                }
            }
        }
    }
    (all, buffer.len())
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    assert_eq!(heard(bytes, usize::MAX), heard(bytes, usize::from(*piece).max(1)));
});
