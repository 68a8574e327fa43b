use super::*;
use proptest::prelude::*;

const SERIAL: [u8; 8] = [0x2F, 0x4A, 0x51, 0x23, 0x78, 0x31, 0x23, 0xB1];
const NUMBER: Number = Number { epoch: Epoch(3), sequence: 0x0102_0304, seed: [0xA1, 0xA2, 0xA3, 0xA4] };

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

/// A binary frame of a node `plant1` with sequence 7, fields as given.
fn clear(fields: &[u8]) -> Vec<u8> {
    let mut frame = [&b"<=>\x06\0"[..], &SERIAL, b"plant1#\x07", fields].concat();
    frame[4] = u8::try_from(frame.len() - 5).unwrap();
    frame
}

fn sealed(peer: Peer, frame: &[u8]) -> Vec<u8> {
    let mut out = [0; LONGEST];
    let len = seal(peer, &key(1), &NUMBER, frame, &mut out).unwrap();
    assert_eq!(len, frame.len() + OVERHEAD);
    out[..len].to_vec()
}

#[test]
fn a_frame_comes_back_byte_for_byte() {
    for peer in [Peer::Cloud, Peer::Gateway] {
        for fields in [&[][..], &[0x2C, 0x40, 0x4C, 0xCD, 0xCC], &[0; 200]] {
            let clear = clear(fields);
            let sealed = sealed(peer, &clear);
            let parsed = Sealed::parse(&sealed).unwrap();
            assert_eq!((parsed.peer, parsed.serial, parsed.number), (peer, SERIAL, NUMBER));
            let opened = parsed.open(&key(1)).unwrap();
            assert_eq!((opened.frame(), opened.number()), (&clear[..], NUMBER));
        }
    }
}

#[test]
fn no_bit_of_a_frame_can_be_changed() {
    let good = sealed(Peer::Gateway, &clear(b"\x34\x55"));
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let opened = Sealed::parse(&bad).and_then(|frame| frame.open(&key(1)));
        assert!(opened.is_err(), "bit {bit}");
        if bit >= 5 * 8 {
            assert_eq!(opened, Err(Refused::Tag), "bit {bit}");
        }
    }
    // Relabelled for the cloud, under the same key.
    let mut bad = good.clone();
    bad[3] = Peer::Cloud.frame_type();
    assert_eq!(Sealed::parse(&bad).unwrap().open(&key(1)), Err(Refused::Tag));
    assert_eq!(Sealed::parse(&good).unwrap().open(&key(2)), Err(Refused::Tag));
    assert!(Sealed::parse(&good).unwrap().open(&key(1)).is_ok());
}

#[test]
fn what_is_not_shaped_as_one_is_refused_with_its_reason() {
    let good = sealed(Peer::Gateway, &clear(b"\x34\x55"));
    for cut in 0..good.len() {
        let expected = match cut {
            0..HEADER => Refused::Short { found: cut },
            _ => Refused::Length { found: cut - 5, said: good[4] },
        };
        assert_eq!(Sealed::parse(&good[..cut]), Err(expected), "cut at {cut}");
    }
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        Sealed::parse(&frame).map(|_| ())
    };
    assert_eq!(with(2, b'<'), Err(Refused::Start));
    for kind in [0x60, 0x64, 0x6A, 0x6C, 0x6D, 0xE8, 6] {
        assert_eq!(with(3, kind), Err(Refused::Type(kind)));
    }
    let mut long = good.clone();
    long.resize(LONGEST + 1, 0);
    assert_eq!(Sealed::parse(&long), Err(Refused::Long { found: LONGEST + 1 }));
    let mut short = good[..HEADER + TAG + SHORTEST_PLAIN - 1].to_vec();
    short[4] = u8::try_from(short.len() - 5).unwrap();
    assert_eq!(Sealed::parse(&short), Err(Refused::Short { found: short.len() }));
}

#[test]
fn only_a_binary_frame_of_v15_hardware_can_be_sealed() {
    let refused = |frame: &[u8]| {
        let mut out = [0; LONGEST];
        seal(Peer::Gateway, &key(1), &NUMBER, frame, &mut out).unwrap_err()
    };
    let good = clear(b"\x34\x55");
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    assert_eq!(refused(&good[..12]), Refused::Clear("it is too short"));
    assert_eq!(refused(&with(0, b'>')), Refused::Clear("it does not start with <=>"));
    assert_eq!(refused(&with(4, 0)), Refused::Clear("its length is not what it says"));
    for kind in [0x86, 0x60, 0x68, 9] {
        assert_eq!(refused(&with(3, kind)), Refused::Clear("its type is none of 1 to 8"));
    }
    assert_eq!(refused(&with(3, 0)), Refused::Clear("its type is of v12 hardware"));
    let mut endless = [&b"<=>\x06\x19"[..], &SERIAL, &[b'x'; 17]].concat();
    assert_eq!(refused(&endless), Refused::Clear("no # after the node id"));
    endless[29] = b'#';
    assert_eq!(refused(&endless), Refused::Clear("no sequence"));
    let long = clear(&[0; LONGEST - OVERHEAD - 20]);
    assert_eq!(refused(&long), Refused::Long { found: LONGEST + 1 });
    let mut little = [0; 40];
    assert_eq!(
        seal(Peer::Gateway, &key(1), &NUMBER, &good, &mut little),
        Err(Refused::Buffer { wanted: good.len() + OVERHEAD })
    );
}

#[test]
fn what_a_node_seals_wrongly_opens_as_nothing() {
    // A node that does not use `seal`: type 96 inside.
    let header = header(0x68, 31, &SERIAL, &NUMBER);
    let mut body = *b"\x60#\x07";
    let tag = close(&key(1), &header, 0x68, &NUMBER, &mut body).unwrap();
    let frame = [&header[..], &body, &tag].concat();
    let opened = Sealed::parse(&frame).unwrap().open(&key(1));
    assert_eq!(opened, Err(Refused::Content("its type is none of 1 to 8")));
}

#[test]
fn an_answer_is_taken_for_the_frame_that_it_answers_and_no_other() {
    for peer in [Peer::Cloud, Peer::Gateway] {
        let frame = sealed(peer, &clear(b"\x34\x55"));
        let opened = Sealed::parse(&frame).unwrap().open(&key(1)).unwrap();
        let said = Answer { wish: Wish::Renew, time: 1_795_651_200 };
        let answer = said.seal(peer, &SERIAL, &opened, &key(1)).unwrap();
        assert_eq!(Answer::open(&answer, peer, &SERIAL, &NUMBER, &key(1)), Ok(said));
        assert!(Sealed::parse(&answer).is_err(), "an answer is no frame");

        let other = Number { sequence: NUMBER.sequence + 1, ..NUMBER };
        assert_eq!(Answer::open(&answer, peer, &SERIAL, &other, &key(1)), Err(Refused::Foreign));
        assert_eq!(Answer::open(&answer, peer, &[0; 8], &NUMBER, &key(1)), Err(Refused::Foreign));
        assert_eq!(Answer::open(&answer, peer, &SERIAL, &NUMBER, &key(2)), Err(Refused::Tag));
        assert_eq!(Answer::open(&frame, peer, &SERIAL, &NUMBER, &key(1)), Err(Refused::Foreign));
        for bit in 0..8 * ANSWER {
            let mut bad = answer;
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 8 * HEADER { Refused::Foreign } else { Refused::Tag };
            assert_eq!(Answer::open(&bad, peer, &SERIAL, &NUMBER, &key(1)), Err(expected), "bit {bit}");
        }
        for cut in 0..ANSWER {
            assert!(Answer::open(&answer[..cut], peer, &SERIAL, &NUMBER, &key(1)).is_err());
        }
    }
}

#[test]
fn no_key_is_printed() {
    use alloc::format;
    assert_eq!(format!("{:?}", key(0x41)), "Key(…)");
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_to_what_it_was(
        id in proptest::collection::vec(any::<u8>().prop_filter("#", |&b| b != b'#'), 0..17),
        fields in proptest::collection::vec(any::<u8>(), 0..200), kind in 1_u8..9,
        epoch in any::<u32>(), sequence in any::<u32>(), seed in any::<[u8; 4]>(), serial in any::<[u8; 8]>(),
    ) {
        let mut frame = [&b"<=>"[..], &[kind, 0], &serial, &id, b"#\x09", &fields].concat();
        frame[4] = u8::try_from(frame.len() - 5).unwrap();
        let number = Number { epoch: Epoch(epoch), sequence, seed };
        let mut out = [0; LONGEST];
        match seal(Peer::Cloud, &key(9), &number, &frame, &mut out) {
            Ok(len) => {
                let opened = Sealed::parse(&out[..len]).unwrap().open(&key(9)).unwrap();
                prop_assert_eq!(opened.frame(), &frame[..]);
            }
            Err(why) => prop_assert_eq!(why, Refused::Long { found: frame.len() + OVERHEAD }),
        }
    }
}

#[test]
fn parts_of_a_signature_are_sealed_like_readings_and_nothing_else_of_their_type_is() {
    let part = signature::Part { serial: SERIAL, batch: 7, index: 2, count: 3, bytes: &[9; 100] };
    let mut clear = [0; 160];
    let len = part.emit(&mut clear).unwrap();
    assert_eq!((len, signature::Part::parse(&clear[..len])), (119, Ok(part)));
    let (key, number) = (Key::from_bytes([3; 32]), Number { epoch: Epoch(1), sequence: 5, seed: [1; 4] });
    let mut out = [0; LONGEST];
    let sealed = seal(Peer::Cloud, &key, &number, &clear[..len], &mut out).unwrap();
    assert_eq!(sealed, len + OVERHEAD);
    let opened = Sealed::parse(&out[..sealed]).unwrap().open(&key).unwrap();
    assert_eq!(opened.frame(), &clear[..len]);

    for (at, byte) in [(0, 0), (3, 0x6A), (4, 1), (17, 3), (18, 0), (18, 17)] {
        let mut bad = clear;
        bad[at] = byte;
        assert!(signature::Part::parse(&bad[..len]).is_err(), "{at}");
        assert!(seal(Peer::Cloud, &key, &number, &bad[..len], &mut out).is_err(), "{at}");
    }
    for cut in 0..len {
        assert!(signature::Part::parse(&clear[..cut]).is_err());
    }
    for bytes in [&[][..], &[0; 129]] {
        assert!(signature::Part { bytes, ..part }.emit(&mut [0; 200]).is_err());
    }
    assert_eq!(part.emit(&mut [0; 118]), Err(Refused::Buffer { wanted: 119 }));
}
