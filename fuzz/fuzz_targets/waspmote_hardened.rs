//! Hardened frames. Nobody without the key makes one that opens; what can be sealed opens to what it was; no number of a
//! window is taken twice.
#![no_main]

use fivefold_waspmote::hardened::{Answer, Epoch, Key, LONGEST, Number, Peer, Sealed, Window, Wish, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = Key::from_bytes([0x42; 32]);
    if let Ok(frame) = Sealed::parse(bytes) {
        assert!(frame.open(&key).is_err());
        assert!(Answer::open(bytes, frame.peer, &frame.serial, &frame.number, &key).is_err());
    }
    let (number, mut out) = (Number { epoch: Epoch(1), sequence: 7, seed: [9; 4] }, [0; LONGEST]);
    for peer in [Peer::Cloud, Peer::Gateway] {
        let Ok(len) = seal(peer, &key, &number, bytes, &mut out) else { continue };
        let frame = Sealed::parse(&out[..len]).expect("it was sealed here");
        let opened = frame.open(&key).expect("it was sealed here");
        assert_eq!((opened.frame(), opened.number()), (bytes, number));
        let said = Answer { wish: Wish::Renew, time: len as u32 };
        let answer = said.seal(peer, &frame.serial, &opened, &key).expect("it always fits");
        assert_eq!(Answer::open(&answer, peer, &frame.serial, &number, &key), Ok(said));
    }
    let mut window = bytes.first_chunk().and_then(Window::from_bytes).unwrap_or_default();
    for number in bytes.chunks_exact(4) {
        let sequence = u32::from_be_bytes(number.try_into().expect("four"));
        if let Ok(fresh) = window.check(sequence) {
            window.mark(fresh);
        }
        assert!(window.check(sequence).is_err());
        assert_eq!(Window::from_bytes(&window.to_bytes()), Some(window));
    }
});
