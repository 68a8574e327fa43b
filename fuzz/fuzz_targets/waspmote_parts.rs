//! Parts of key messages, as frames behind a length byte each. What parses is emitted as it was, no assembly holds more than
//! a message, and what is cut comes together.
#![no_main]

use fivefold_waspmote::key_message::{Assembly, Cut, LONGEST, LONGEST_FRAME, Part};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut rest, mut assembly) = (bytes, Assembly::new());
    while let Some((&len, after)) = rest.split_first() {
        let (frame, after) = after.split_at_checked(usize::from(len)).unwrap_or((after, &[]));
        rest = after;
        let Ok(part) = Part::parse(frame) else { continue };
        let mut out = [0; LONGEST_FRAME];
        let emitted = part.emit(&mut out).expect("it was as long");
        assert_eq!(&out[..emitted], frame);
        if let Ok(Some(message)) = assembly.take(&part) {
            assert!((1..=LONGEST).contains(&message.len()) && assembly.is_empty());
        }
        assert!(assembly.missing().count() <= usize::from(u8::MAX));
    }
    let Some((&room, message)) = bytes.split_first() else { return };
    if let Ok(cut) = Cut::new([7; 8], room, message, usize::from(room)) {
        let mut assembly = Assembly::new();
        let last = cut.count() - 1;
        for index in 0..=last {
            let whole = assembly.take(&cut.part(index).expect("it is counted")).expect("it was cut here");
            assert_eq!(whole.as_deref(), (index == last).then_some(message));
        }
        assert!(cut.part(cut.count()).is_none());
    }
});
