//! Reassembly of RuleID 17: each chunk of the input is a fragment. What comes out whole is what one cut up.
#![no_main]

use fivefold_core::time::Millis;
use fivefold_core::wire::tiny::{Fragments, KidLength, Reassembly, Tiny};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Arbitrary fragments: time, tag, last and index, length, bytes.
    let mut reassembly = Reassembly::<512>::new();
    let mut rest = bytes;
    let mut now = 0;
    while let [wait, tag, place, len, more @ ..] = rest {
        now += u64::from(*wait) * 100;
        let part = &more[..usize::from(*len).min(more.len())];
        rest = &more[part.len()..];
        let _ = reassembly.expire(Millis(now));
        let _ = reassembly.take(Millis(now), *tag, place & 0x7F, place & 0x80 != 0, part);
    }
    // A datagram cut up and put together again.
    let [tag, size, datagram @ ..] = bytes else { return };
    let Some(fragments) = Fragments::new(datagram, *tag, usize::from(*size)) else { return };
    let mut reassembly = Reassembly::<4096>::new();
    let mut whole = None;
    for fragment in fragments {
        let mut frame = [0; 300];
        let len = fragment.emit(&mut frame).expect("a fragment fits");
        assert_eq!(Tiny::parse(&frame[..len], KidLength::None), Ok(fragment));
        let Tiny::Fragment { tag, index, last, bytes: part } = fragment else { panic!("not a fragment") };
        whole = reassembly.take(Millis(0), tag, index, last, part).expect("in order").map(<[u8]>::to_vec);
    }
    assert_eq!(whole.as_deref(), Some(datagram));
});
