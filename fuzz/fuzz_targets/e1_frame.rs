//! 802.15.4 frames without keys: header, security control and check sequence. What parses is emitted as it was.
#![no_main]

use fivefold_core::wire::ieee802154::{FCS, Frame, MAX_FRAME, SecurityLevel, append_fcs, check_fcs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut out = [0; 4096];
    if let Ok(frame) = Frame::parse(bytes) {
        let len = frame.emit(&mut out).expect("it fits");
        assert_eq!(&out[..len], bytes);
        let _ = frame.security(SecurityLevel::EncMic32);
    }
    if bytes.len() + FCS <= MAX_FRAME {
        let room = &mut out[..bytes.len() + FCS];
        room[..bytes.len()].copy_from_slice(bytes);
        let len = append_fcs(room, bytes.len()).expect("it fits");
        assert_eq!(check_fcs(&room[..len]), Ok(bytes));
    }
    let _ = check_fcs(bytes);
});
