//! RSA key messages and their answers. What parses is emitted as it was, and no foreign answer ends a device's wait.
#![no_main]

use fivefold_core::e5_renewal::key_message::{FreshKey, MessageHash, Offer};
use fivefold_core::wire::key_message::{KR1_LONGEST, KeyLen, Kr1, Kr2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let fresh = || FreshKey::new(&[1; 16], &[2; 32]).expect("32 bytes");
    if let Ok(kr1) = Kr1::parse(bytes) {
        let mut out = [0; KR1_LONGEST];
        let len = kr1.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        assert_eq!(kr1.header.message_len(), len);
        let answer = fresh().accept(&kr1.header, &MessageHash::of(&kr1));
        assert_eq!(Kr2::parse(&answer.to_bytes()), Ok(answer));
        assert!(Offer::new(&kr1, fresh()).answer(bytes).is_err());
    }
    if let Ok(kr2) = Kr2::parse(bytes) {
        assert_eq!(&kr2.to_bytes()[..], bytes);
    }
    for announced in KeyLen::ALL {
        if let Ok(fresh) = FreshKey::from_plaintext(bytes, announced) {
            assert_eq!(fresh.danger_plaintext(), bytes);
        }
    }
});
