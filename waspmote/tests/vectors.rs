//! Every vector of vectors/waspmote that a frame can show by itself, by name: what a node sent is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::{
    ClassicKey, Clear, Encoding, Encrypted, EncryptedType, Entry, Frame, Generation, Reading, Refused, Sensors,
    SerialOrder, Table, Tiny, Value,
};
use serde_json::Value as Json;

mod support;
use support::{bytes, cases, clear, encrypted, key, sent, table, vectors};

fn check_fields<'a>(
    id: &Json,
    fields: impl Iterator<Item = Result<Entry<'a>, Refused>>,
    sensors: &[&Json],
    ascii: bool,
    table: Table,
) {
    let mut sensors = sensors.iter();
    for entry in fields {
        let Ok(Entry::Field(field)) = entry else { panic!("{id}: {entry:?}") };
        let sensor = sensors.next().unwrap();
        assert_eq!(field.id.map(u64::from), sensor["id"].as_u64(), "{id}");
        assert_eq!(field.tag.to_str(), sensor["tag"].as_str(), "{id}");
        let mut wanted = sensor["values"].as_array().unwrap().clone();
        if sensor["call"] == "u8x3_gmt" && !ascii {
            wanted.truncate(3);
        }
        let found: Vec<Value<'_>> = field.values.iter().collect();
        assert_eq!(found.len(), wanted.len(), "{id} {found:?}");
        for (found, wanted) in found.iter().zip(&wanted) {
            let same = match found {
                Value::Integer(number) => wanted.as_i64() == Some(*number),
                // Nodes print 7 digits, and with the decimals of the table: the last one may be half of itself away.
                Value::Float(number) if ascii => {
                    let wanted = wanted.as_f64().unwrap();
                    let decimals = Sensors::of(table).by_id(field.id.unwrap()).unwrap().decimals;
                    (wanted - number).abs() <= 0.5001 * 0.1_f64.powi(i32::from(decimals)) + wanted.abs() * 1e-6
                }
                // Exactly; serde_json reads decimals of doubles to a last bit only.
                Value::Float(number) => wanted.as_f64().unwrap() as f32 == *number as f32,
                Value::Text(text) => text.to_str() == Some(&wanted.as_str().unwrap().replace('#', "_")),
            };
            assert!(same, "{id}: found {found:?}, wanted {wanted}");
        }
    }
    assert_eq!(sensors.next(), None, "{id}: a field is missing");
}

fn check_head(case: &Json, frame: &Clear<'_>) {
    let id = &case["id"];
    assert_eq!(frame.generation().as_str(), case["hw"], "{id}");
    let serial = case["serial_decimal"].as_u64().map(|n| n.to_string());
    let serial = serial.unwrap_or_else(|| case["serial_hex"].as_str().unwrap().to_owned());
    if frame.generation() == Generation::V15 || case["serial_decimal"].is_u64() {
        assert_eq!(frame.serial.to_string(), serial, "{id}");
    }
    let name = case["node_id"].as_str().unwrap().replace(['#', ' '], "_");
    assert_eq!(frame.node_id.to_str(), Some(&*name), "{id}");
    assert_eq!(u64::from(frame.sequence), case["sequence"], "{id}");
}

#[test]
fn every_plain_frame_is_read_to_what_the_node_was_given() {
    let all = vectors("plain-frames.json");
    assert_eq!(cases(&all).len(), 80);
    for case in cases(&all) {
        let frame = bytes(case, "frame_hex");
        let reversed = case["id"] == "v12-b-old-api-serial-little-endian-derived";
        let order = if reversed { SerialOrder::LittleEndian } else { SerialOrder::BigEndian };
        let read = clear(Frame::parse_as(&frame, Reading { order, ..Reading::default() }));
        check_head(case, &read);
        assert_eq!(read.encoding.as_str(), case["mode"], "{}", case["id"]);
        let ascii = read.encoding == Encoding::Ascii;
        assert_eq!(u64::from(read.kind.number() | if ascii { 0x80 } else { 0 }), case["frame_type_byte"]);
        assert_eq!(read.table(), table(case), "{}", case["id"]);
        let sensors = Sensors::of(read.table());
        check_fields(&case["id"], read.fields(&sensors), &sent(case), ascii, read.table());
        if let Some(decoded) = case["decoded"].as_array() {
            let decoded: Vec<&Json> = decoded.iter().collect();
            check_fields(&case["id"], read.fields(&sensors), &decoded, false, read.table());
        }
    }
}

#[test]
fn every_encrypted_frame_opens_to_its_inner_frame_and_is_made_of_it_again() {
    let all = vectors("encrypted-frames.json");
    assert_eq!(cases(&all).len(), 46);
    for case in cases(&all) {
        let id = &case["id"];
        let frame = bytes(case, "frame_hex");
        let outer = encrypted(&frame);
        let key = if id.as_str().unwrap().contains("overlong") {
            ClassicKey::from_bytes(&bytes(case, "effective_key_hex")).unwrap()
        } else {
            key(case)
        };
        let inner = outer.open(&key).unwrap_or_else(|refused| panic!("{id}: {refused}"));
        assert_eq!(hex::encode(inner.bytes()), case["inner_frame_hex"].as_str().unwrap(), "{id}");
        let read = inner.clear();
        check_head(case, &read);
        let sensors = Sensors::of(read.table());
        check_fields(id, read.fields(&sensors), &sent(case), read.encoding == Encoding::Ascii, read.table());
        let kind =
            EncryptedType::from_number(u8::try_from(case["frame_type_byte"].as_u64().unwrap()).unwrap()).unwrap();
        assert_eq!(Encrypted::seal(kind, &read, &key).unwrap(), frame, "{id}");
    }
}

#[test]
fn every_tiny_frame_and_fragment_is_read() {
    let all = vectors("tiny-and-fragments.json");
    assert_eq!(cases(&all).len(), 6);
    let sensors = Sensors::of(Table::Default);
    for case in cases(&all) {
        let id = &case["id"];
        let full = bytes(case, "full_frame_hex");
        let full = clear(Frame::parse(&full));
        check_fields(id, full.fields(&sensors), &sent(case), false, Table::Default);
        let mut found = 0;
        for piece in case["pieces"].as_array().unwrap() {
            let piece = bytes(piece, "frame_hex");
            let (sequence, fields) = if case["kind"] == "tiny" {
                let tiny = Tiny::parse(&piece).unwrap();
                (tiny.sequence, tiny.fields(&sensors))
            } else {
                let fragment = clear(Frame::parse(&piece));
                (fragment.sequence, fragment.fields(&sensors))
            };
            assert_eq!(u64::from(sequence), case["sequence"], "{id}");
            for entry in fields {
                assert!(matches!(entry, Ok(Entry::Field(_))), "{id}: {entry:?}");
                found += 1;
            }
        }
        // A field that does not fit the smallest frame is dropped: there STR and GPS.
        let dropped = if id == "tiny-min-10" { 2 } else { 0 };
        assert_eq!(found, sent(case).len() - dropped, "{id}");
    }
}

#[test]
fn every_malformed_frame_meets_the_reaction_that_its_vector_asks_for() {
    let all = vectors("malformed.json");
    assert_eq!(cases(&all).len(), 14);
    for case in cases(&all) {
        let id = case["id"].as_str().unwrap();
        let name = if id == "http-empty" { "frame_parameter" } else { "frame_hex" };
        let frame = bytes(case, name);
        let sensors = Sensors::of(Table::Default);
        let found = match Frame::parse(&frame) {
            Err(refused) => refused.as_str(),
            Ok(Frame::OverTheAir(_)) => "over-the-air",
            Ok(Frame::Encrypted(outer)) => outer.open(&key(case)).map_or_else(Refused::as_str, |_| "accepted"),
            Ok(Frame::Clear(read)) => match read.decode(&sensors) {
                Err(refused) => refused.as_str(),
                Ok(decoded) if decoded.refused.is_empty() => "accepted",
                Ok(decoded) => {
                    assert_eq!(decoded.fields.len(), 2);
                    decoded.refused[0].fault.as_str()
                }
            },
            Ok(other) => panic!("{id}: {other:?}"),
        };
        let wanted = match id {
            "truncated-header-0" | "http-empty" => "short",
            "truncated-header-5" | "length-too-large" | "truncated-payload" | "enc-ciphertext-15-short" => "truncated",
            "string-length-overrun" => "field-length",
            "reserved-type-127" => "over-the-air",
            "ascii-sequence-256" => "sequence",
            "ascii-serial-15-digits" => "serial",
            "ascii-empty-value" => "no-value",
            "ascii-node-id-markup" => "accepted",
            "enc-outer-serial-changed" => "foreign-serial",
            "enc-nested" => "nested",
            _ => panic!("{id} is new"),
        };
        assert_eq!(found, wanted, "{id}: {}", case["why"]);
    }
}

#[test]
fn a_timestamp_that_the_node_put_into_its_own_header_is_refused_and_any_other_is_read() {
    let all = vectors("sequence-and-timestamp.json");
    let sensors = Sensors::of(Table::Default);
    let mut sequences = Vec::new();
    for frame in all["sequence"]["frames"].as_array().unwrap() {
        let frame = hex::decode(frame.as_str().unwrap()).unwrap();
        sequences.push(clear(Frame::parse(&frame)).sequence);
    }
    assert_eq!(sequences, [254, 255, 0]);
    for case in cases(&all) {
        let name = if case["after_hex"].is_string() { "after_hex" } else { "frame_hex" };
        let frame = bytes(case, name);
        let parsed = Frame::parse(&frame);
        if case["id"] == "ts-serial-byte5-is-0x23" {
            assert_eq!(parsed.unwrap_err(), Refused::Stamped);
            continue;
        }
        let read = clear(parsed);
        assert_eq!(read.serial.to_string(), case["serial_hex"].as_str().unwrap());
        let decoded = read.decode(&sensors).unwrap();
        let stamp = decoded.fields.iter().find(|field| field.id == Some(123));
        let epoch = stamp.map(|field| field.values.iter().next().unwrap());
        assert_eq!(epoch, case["epoch"].as_i64().map(Value::Integer), "{}", case["id"]);
    }
}

#[test]
fn an_attack_that_one_frame_can_show_is_shown() {
    let all = vectors("attacks.json");
    let sensors = Sensors::of(Table::Default);
    let case = |id: &str| cases(&all).iter().find(|case| case["id"] == id).unwrap();

    // Nothing in the format detects this: the receiver has to remember blocks.
    let forged = case("ecb-cut-and-paste");
    let inner = encrypted(&bytes(forged, "forged_hex")).open(&key(forged)).unwrap();
    assert_eq!(hex::encode(inner.bytes()), forged["forged_inner_hex"].as_str().unwrap());
    assert_eq!(inner.clear().decode(&sensors).unwrap().fields.len(), 3);

    let swapped = case("outer-serial-swap");
    assert_eq!(encrypted(&bytes(swapped, "frame_hex")).open(&key(forged)).unwrap_err(), Refused::ForeignSerial);

    let relabelled = bytes(case("type-relabel-0x60-to-0x64"), "frame_hex");
    assert_eq!(encrypted(&relabelled).kind, EncryptedType::Cloud);
    assert!(encrypted(&relabelled).open(&key(forged)).is_ok());

    let flipped = bytes(case("bit-flip-in-block-1"), "frame_hex");
    let refused = encrypted(&flipped).open(&key(forged)).unwrap_err();
    assert_eq!(refused, Refused::Inner { reason: "node-id" });
}
