//! Binary frames from before API v012: the vectors' frames of v12 with the header that older software wrote (W4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::{
    Encoding, Frame, Generation, Reading, Refused, Sensors, Serial, Software, TIME_REQUEST, Table,
};

mod support;
use support::{bytes, cases, clear, vectors};

const OLD: Reading =
    Reading { generation: None, order: fivefold_waspmote::SerialOrder::BigEndian, software: Software::BeforeV012 };

/// As older software would have sent it: its number of fields in the place of N, and its serial the other way round.
fn old(frame: &[u8], count: u8, serial: u32) -> Vec<u8> {
    let mut old = frame.to_vec();
    old[4] = count;
    old[5..9].copy_from_slice(&serial.to_le_bytes());
    old
}

#[test]
fn the_fields_of_an_old_frame_are_those_of_the_same_frame_today_and_neither_is_taken_for_the_other() {
    let sensors = Sensors::of(Table::V12);
    let mut seen = 0;
    for case in cases(&vectors("plain-frames.json")) {
        let frame = bytes(case, "frame_hex");
        let today = clear(Frame::parse(&frame));
        let (Encoding::Binary, Serial::V12(serial)) = (today.encoding, today.serial) else { continue };
        let fields = today.decode(&sensors).unwrap();
        assert!(fields.rest.is_none());
        let count = u8::try_from(fields.fields.len()).unwrap();
        let old = old(&frame, count, serial);
        let read = clear(Frame::parse_as(&old, OLD));
        assert_eq!(
            (read.kind, read.serial, read.sequence),
            (today.kind, today.serial, today.sequence),
            "{}",
            case["id"]
        );
        assert_eq!((read.node_id, read.count, read.payload), (today.node_id, Some(count), today.payload));
        assert_eq!(read.decode(&sensors).unwrap().fields, fields.fields);
        assert!(Frame::parse(&old).is_err(), "{}", case["id"]);
        assert!(Frame::parse_as(&frame, OLD).is_err(), "{}", case["id"]);
        // One field more or less, and one byte.
        for wrong in [count + 1, count - 1] {
            let mut broken = old.clone();
            broken[4] = wrong;
            assert_eq!(
                Frame::parse_as(&broken, OLD).unwrap_err(),
                Refused::FieldCount { promised: wrong, present: count },
                "{}",
                case["id"]
            );
        }
        assert!(Frame::parse_as(&old[..old.len() - 1], OLD).is_err());
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn what_is_not_known_of_old_frames_is_refused_by_name() {
    let refused = |frame: &[u8]| Frame::parse_as(frame, OLD).unwrap_err();
    // BAT 80, then a sensor that is in no table: what follows cannot be counted.
    let of = |count: u8, tail: &[u8]| [b"<=>\x00", &[count][..], b"\x1b\x30\x15\x17node1#\x07", tail].concat();
    let read = |frame: &[u8]| clear(Frame::parse_as(frame, OLD)).serial;
    assert_eq!(read(&of(1, &[52, 80])), Serial::V12(387_264_539));
    assert_eq!(read(&of(2, &[52, 80, 255, 1, 2])), Serial::V12(387_264_539));
    assert_eq!(refused(&of(1, &[52, 80, 255, 1, 2])), Refused::FieldCount { promised: 1, present: 2 });
    assert!(matches!(refused(&of(1, &[52])), Refused::FieldLength { id: 52, .. }));
    // Nothing was added yet.
    assert_eq!(clear(Frame::parse_as(&of(b'?', &[]), OLD)).count, Some(0));
    assert!(matches!(refused(&of(b'?', &[52, 80])), Refused::FieldCount { promised: 0, .. }));
    // The first software of all wrote the serial as text.
    let first = [b"<=>\x00\x01", &b"387264539#node1#\x07"[..], &[52, 80]].concat();
    assert_eq!((refused(&first), refused(&first).as_str()), (Refused::SerialText, "serial-text"));
    assert_ne!(Frame::parse(&first).unwrap_err(), Refused::SerialText, "only who knows the sender looks for it");
    // v15 is younger than all of it.
    let v15 = Reading { generation: Some(Generation::V15), ..OLD };
    assert_eq!(Frame::parse_as(&of(1, &[52, 80]), v15).unwrap_err(), Refused::Generation);
    for kind in [6, 7, 8] {
        let mut frame = of(1, &[52, 80]);
        frame[3] = kind;
        assert_eq!(refused(&frame), Refused::Generation);
    }
    assert!(matches!(Frame::parse_as(&TIME_REQUEST, OLD), Ok(Frame::TimeRequest)));
}
