//! The other direction: of what a node was given, the bytes that it sent are made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::{
    Builder, Encoding, FrameType, Joined, Joint, Reading, Sender, Sensors, Serial, SerialOrder, Software, Stamp, Table,
    Text, Tiny, Value, fragments, stamped, tiny_frames,
};
use fivefold_waspmote::{ClassicKey, Clear, Encrypted, EncryptedType, Entry, Frame, Generation};
use proptest::prelude::*;
use serde_json::Value as Json;

mod support;
use support::{bytes, cases, clear, encrypted as encrypted_frame, key, sent, table, vectors};

/// What the sketch handed to the node for one field.
fn values(sensor: &Json) -> Vec<Value<'_>> {
    let bits = sensor["value_bits"].as_array();
    let of = |(at, value): (usize, &'_ Json)| -> Value<'static> {
        match (bits, value) {
            (Some(bits), _) => {
                let bits = u32::from_str_radix(bits[at].as_str().unwrap(), 16).unwrap();
                Value::Float(f64::from(f32::from_bits(bits)))
            }
            (None, value) => Value::Integer(value.as_i64().unwrap()),
        }
    };
    let list = sensor["values"].as_array().unwrap();
    match list[0].as_str() {
        Some(text) => vec![Value::Text(Text::new(text.as_bytes()))],
        None => list.iter().enumerate().map(of).collect(),
    }
}

fn serial(case: &Json) -> Serial {
    let hex = case["serial_hex"].as_str().unwrap();
    match hex.len() {
        8 => Serial::V12(u32::from_str_radix(hex, 16).unwrap()),
        _ => hex.parse().unwrap(),
    }
}

fn built(case: &Json, encoding: Encoding, table: Table, order: SerialOrder) -> Vec<u8> {
    let sensors = Sensors::of(table);
    let node_id = Text::new(case["node_id"].as_str().unwrap().as_bytes());
    let sequence = u8::try_from(case["sequence"].as_u64().unwrap()).unwrap();
    let mut builder = Builder::new(&sensors, encoding, &Sender { serial: serial(case), order, node_id, sequence });
    if let Some(kind) = case["set_frame_type"].as_u64() {
        builder = builder.kind(FrameType::from_number(u8::try_from(kind).unwrap()).unwrap());
    }
    if let Some(most) = case["max_size"].as_u64() {
        builder = builder.limit(usize::try_from(most).unwrap());
    }
    for sensor in case["sensors"].as_array().unwrap() {
        let id = u8::try_from(sensor["id"].as_u64().unwrap()).unwrap();
        let added = match sensor["decimals"].as_u64() {
            Some(decimals) => builder.add_with_decimals(id, &values(sensor), u8::try_from(decimals).unwrap()),
            None => builder.add(id, &values(sensor)),
        };
        let refused = sensor["rejected_by_node"] == true;
        assert_eq!(added.is_err(), refused, "{}: {} {added:?}", case["id"], sensor["tag"]);
    }
    builder.finish()
}

#[test]
fn every_plain_frame_is_made_of_what_the_node_was_given() {
    let all = vectors("plain-frames.json");
    assert_eq!(cases(&all).len(), 80);
    for case in cases(&all) {
        let reversed = case["id"] == "v12-b-old-api-serial-little-endian-derived";
        let order = if reversed { SerialOrder::LittleEndian } else { SerialOrder::BigEndian };
        let encoding = if case["mode"] == "ascii" { Encoding::Ascii } else { Encoding::Binary };
        let frame = built(case, encoding, table(case), order);
        assert_eq!(hex::encode(frame), case["frame_hex"].as_str().unwrap(), "{}", case["id"]);
    }
}

#[test]
fn every_inner_frame_is_made_of_what_the_node_was_given() {
    let all = vectors("encrypted-frames.json");
    for case in cases(&all) {
        let encoding = if case["inner_mode"] == "ascii" { Encoding::Ascii } else { Encoding::Binary };
        let table = if case["hw"] == "v12" { Table::V12 } else { Table::Default };
        let frame = built(case, encoding, table, SerialOrder::BigEndian);
        assert_eq!(hex::encode(frame), case["inner_frame_hex"].as_str().unwrap(), "{}", case["id"]);
    }
}

#[test]
fn every_frame_is_cut_into_the_pieces_that_the_node_made_and_put_together_again() {
    let all = vectors("tiny-and-fragments.json");
    let sensors = Sensors::of(Table::Default);
    for case in cases(&all) {
        let id = &case["id"];
        let mut whole = case.clone();
        whole.as_object_mut().unwrap().remove("max_size");
        let full = built(&whole, Encoding::Binary, Table::Default, SerialOrder::BigEndian);
        assert_eq!(hex::encode(&full), case["full_frame_hex"].as_str().unwrap(), "{id}");
        let full = clear(Frame::parse(&full));
        let most = usize::try_from(case["max_size"].as_u64().unwrap()).unwrap();
        let tiny = case["kind"] == "tiny";
        let cut = if tiny { tiny_frames } else { fragments };
        let cut = cut(&full, &sensors, most).unwrap();
        let wanted: Vec<Vec<u8>> =
            case["pieces"].as_array().unwrap().iter().map(|piece| bytes(piece, "frame_hex")).collect();
        assert_eq!(cut.pieces, wanted, "{id}");
        let mut joint: Option<Joint> = None;
        for piece in &cut.pieces {
            let other = if tiny { Tiny::parse(piece).unwrap() } else { Tiny::parse(&[1, 2]).unwrap() };
            match (&mut joint, tiny) {
                (None, true) => joint = Some(Joint::of_tiny(&other)),
                (None, false) => joint = Some(Joint::of_fragment(&clear(Frame::parse(piece)))),
                (Some(joint), true) => {
                    assert_eq!(joint.join_tiny(&other), Joined::Added);
                    assert_eq!(joint.join_tiny(&other), Joined::Repeated);
                }
                (Some(joint), false) => {
                    assert_eq!(joint.join_fragment(&clear(Frame::parse(piece))), Joined::Added);
                    assert_eq!(joint.join_fragment(&clear(Frame::parse(piece))), Joined::Repeated);
                }
            }
        }
        for (piece, sent) in cut.pieces.iter().zip(case["pieces"].as_array().unwrap()) {
            let Some(encrypted) = sent["encrypted_hex"].as_str() else { continue };
            let sealed = Encrypted::seal(EncryptedType::Cloud, &clear(Frame::parse(piece)), &key(case)).unwrap();
            assert_eq!(hex::encode(&sealed), encrypted, "{id}");
            assert_eq!(encrypted_frame(&sealed).open(&key(case)).unwrap().bytes(), &piece[..], "{id}");
        }
        let joint = joint.unwrap();
        let read = joint.fields(&sensors).filter(|entry| matches!(entry, Ok(Entry::Field(_)))).count();
        assert_eq!(read, sent(case).len() - cut.dropped, "{id}");
        if !tiny {
            let again = joint.frame().unwrap();
            assert_eq!(clear(Frame::parse(&again)).decode(&sensors).unwrap().fields.len(), read);
        }
    }
}

#[test]
fn a_timestamp_is_put_where_the_node_puts_it_also_where_that_is_wrong() {
    let all = vectors("sequence-and-timestamp.json");
    for case in cases(&all) {
        let Some(epoch) = case["epoch"].as_u64() else { continue };
        let epoch = u32::try_from(epoch).unwrap();
        let after = bytes(case, "after_hex");
        if case["id"] == "ts-ascii" {
            let stamp = format!("TST:{epoch}#").len();
            let mut before = after[..after.len() - stamp].to_vec();
            before[4] -= 1;
            assert_eq!(stamped(&clear(Frame::parse(&before)), epoch, Stamp::Right).unwrap(), after);
            continue;
        }
        let before = bytes(case, "before_hex");
        let before = clear(Frame::parse(&before));
        assert_eq!(stamped(&before, epoch, Stamp::AsNode).unwrap(), after, "{}", case["id"]);
        let right = stamped(&before, epoch, Stamp::Right).unwrap();
        let sensors = Sensors::of(Table::Default);
        assert_eq!(clear(Frame::parse(&right)).decode(&sensors).unwrap().fields[0].tag.to_str(), Some("TST"));
        assert_eq!(right == after, case["id"] == "ts-normal");
    }
}

/// The frame made again of what was read of it: `None` if a part of it was not understood.
fn again(read: &Clear<'_>, sensors: &Sensors) -> Option<Vec<u8>> {
    let sender =
        Sender { serial: read.serial, order: SerialOrder::BigEndian, node_id: read.node_id, sequence: read.sequence };
    let mut builder = Builder::new(sensors, read.encoding, &sender).kind(read.kind);
    for entry in read.fields(sensors) {
        let Ok(Entry::Field(field)) = entry else { return None };
        builder.add(field.id?, &field.values.iter().collect::<Vec<_>>()).ok()?;
    }
    Some(builder.finish())
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(b"<=>\x06\x20\x01\x02\x03\x04\x05\x06\x07#ab#".to_vec()),
        Just(b"<=>\x02\x20\x01\x02\x03\x04ab#".to_vec()),
        Just(b"<=>\x86\x01#0123456789ABCDEF#ab#7#".to_vec()),
        Just(b"<=>\x80\x02#1234##7#".to_vec()),
        Just(b"<=>\x60\x18\x01\x02\x03\x04\x05\x06\x07#".to_vec()),
        Just(b"<=>".to_vec()),
        Just(vec![]),
    ];
    (start, proptest::collection::vec(any::<u8>(), 0..260), any::<bool>()).prop_map(|(mut bytes, rest, measure)| {
        bytes.extend(rest);
        if measure && bytes.len() > 5 && bytes[3] & 0x80 == 0 {
            bytes.truncate(255);
            bytes[4] = u8::try_from(bytes.len() - 5).unwrap();
        }
        bytes
    })
}

proptest! {
    #[test]
    fn whatever_the_bytes_are_reading_them_ends_without_a_panic(frame in header(), v12: bool, little: bool, old: bool) {
        let reading = Reading {
            generation: Some(if v12 { Generation::V12 } else { Generation::V15 }),
            order: if little { SerialOrder::LittleEndian } else { SerialOrder::BigEndian },
            software: if old { Software::BeforeV012 } else { Software::V012 },
        };
        for parsed in [Frame::parse(&frame), Frame::parse_as(&frame, reading)] {
            match parsed {
                Ok(Frame::Clear(read)) => {
                    prop_assert_eq!(read.bytes, &frame[..]);
                    for table in [Table::Default, Table::Agriculture, Table::Water, Table::V12] {
                        let sensors = Sensors::of(table);
                        for entry in read.fields(&sensors).flatten() {
                            if let Entry::Field(field) = entry {
                                let shown: Vec<String> = field.values.iter().map(|value| value.to_string()).collect();
                                prop_assert!(!shown.is_empty());
                            }
                        }
                    }
                }
                Ok(Frame::Encrypted(read)) => {
                    prop_assert_eq!(read.ciphertext.len() % 16, 0);
                    let key = ClassicKey::from_bytes(&[7; 24]).unwrap();
                    prop_assert!(read.open(&key).is_err(), "nobody has this key");
                }
                _ => {}
            }
        }
        if let Ok(tiny) = Tiny::parse(&frame) {
            prop_assert!(tiny.fields(&Sensors::of(Table::Default)).count() <= tiny.payload.len());
        }
    }

    #[test]
    fn a_binary_frame_that_is_understood_is_made_again_byte_for_byte(
        id in proptest::collection::vec(any::<u8>().prop_filter("stored otherwise", |b| !b"# ".contains(b)), 0..=16),
        serial in any::<[u8; 8]>(),
        sequence: u8,
        fields in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 48)), 0..6),
    ) {
        let sensors = Sensors::of(Table::Default);
        let mut frame = b"<=>\x06\0".to_vec();
        frame.extend(serial);
        frame.extend(id);
        frame.extend([b'#', sequence]);
        for (sensor, bytes) in &fields {
            let Some(sensor) = sensors.by_id(*sensor) else { continue };
            frame.push(sensor.id);
            match sensor.kind.width() {
                Some(width) => frame.extend(&bytes[..width * usize::from(sensor.fields)]),
                None => frame.extend([&[7], b"a:b;c-d"[..].as_ref()].concat()),
            }
        }
        prop_assume!(frame.len() <= 255);
        frame[4] = u8::try_from(frame.len() - 5).unwrap();
        let Ok(Frame::Clear(read)) = Frame::parse(&frame) else { return Ok(()) };
        let nan = read.fields(&sensors).flatten().any(|entry| {
            matches!(entry, Entry::Field(field) if field.values.iter().any(|v| matches!(v, Value::Float(f) if f.is_nan())))
        });
        prop_assume!(!nan);
        prop_assert_eq!(again(&read, &sensors).unwrap(), frame);
    }
}

#[test]
fn every_frame_that_a_node_sent_is_made_again_of_what_was_read_of_it() {
    let all = vectors("plain-frames.json");
    for case in cases(&all) {
        // These decimals are not those of the table.
        if case["id"] == "v15-a-float-precision" {
            continue;
        }
        let frame = bytes(case, "frame_hex");
        let read = clear(Frame::parse(&frame));
        let sensors = Sensors::of(read.table());
        assert_eq!(again(&read, &sensors).map(hex::encode), Some(hex::encode(&frame)), "{}", case["id"]);
    }
}
