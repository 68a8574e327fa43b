//! The serial line of an XBee module, in both modes. Whole packets are emitted as they were; each byte is accounted for.
#![no_main]

use fivefold_waspmote::xbee::{Decoder, LONGEST, Mode, Packet, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    for mode in [Mode::Plain, Mode::Escaped] {
        let mut decoder = Decoder::new(mode);
        for &byte in line {
            if decoder.push(byte) != Some(Ok(())) {
                continue;
            }
            let packet = decoder.packet();
            assert!((1..=LONGEST).contains(&packet.len()));
            let mut again = Decoder::new(mode);
            let framed = frame(packet, mode).expect("it is no longer than what was found");
            let (last, before) = framed.split_last().expect("not empty");
            assert!(before.iter().all(|&byte| again.push(byte).is_none()));
            assert_eq!((again.push(*last), again.packet()), (Some(Ok(())), packet));
            if let Ok(parsed) = Packet::parse(packet) {
                assert_eq!(&parsed.to_bytes()[..], packet);
                assert_eq!(parsed.emit(mode).expect("as long"), framed);
            }
        }
        let _ = decoder.idle();
        assert_eq!(decoder.idle(), Ok(()));
        assert!(decoder.noise() <= line.len() as u64);
    }
    if let Ok(parsed) = Packet::parse(line) {
        assert_eq!(&parsed.to_bytes()[..], line);
    }
});
