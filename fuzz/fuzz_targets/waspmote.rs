//! Classic frames: reading ends for any bytes, what is understood is made again, what opens is what was sealed.
#![no_main]

use fivefold_waspmote::{
    Builder, ClassicKey, Clear, Encoding, Encrypted, EncryptedType, Entry, Frame, Generation, Joint, Reading, Sender,
    Sensors, SerialOrder, Software, Stamp, Table, Tiny, Value, fragments, stamped, tiny_frames,
};
use libfuzzer_sys::fuzz_target;

const TABLES: [Table; 4] = [Table::Default, Table::Agriculture, Table::Water, Table::V12];

fn clear(read: &Clear<'_>, key: &ClassicKey) {
    for table in TABLES {
        let sensors = Sensors::of(table);
        let _ = read.decode(&sensors).map(|decoded| format!("{decoded:?}"));
        if let Ok(cut) = tiny_frames(read, &sensors, read.bytes.len()) {
            assert!(cut.pieces.iter().all(|piece| Tiny::parse(piece).is_ok()), "we made them");
        }
        let mut joint = Joint::of_fragment(read);
        for piece in fragments(read, &sensors, read.bytes.len()).map(|cut| cut.pieces).unwrap_or_default() {
            // A shorter N can make a frame of the kind that is refused as stamped; no other refusal can be.
            if let Ok(Frame::Clear(piece)) =
                Frame::parse_as(&piece, Reading { generation: Some(read.generation()), ..Reading::default() })
            {
                joint.join_fragment(&piece);
            }
        }
        drop(joint.frame());
        again(read, &sensors);
    }
    stamped(read, 1_700_000_000, Stamp::AsNode);
    let kind = if read.generation() == Generation::V15 { EncryptedType::Gateway } else { EncryptedType::Gateway256 };
    if let Ok(sealed) = Encrypted::seal(kind, read, key) {
        let Ok(Frame::Encrypted(outer)) = Frame::parse(&sealed) else { panic!("what we seal is a frame") };
        let opened = outer.open(key).expect("what we seal opens");
        // Behind a TIME with a negative offset a node writes a zero (W3); the first one of the padding is taken for it.
        let same = opened.bytes() == read.bytes || opened.bytes().strip_suffix(&[0]) == Some(read.bytes);
        assert!(same, "what opens is what was sealed");
    }
}

/// A binary frame that is understood to its end is made again byte for byte, NaN apart.
fn again(read: &Clear<'_>, sensors: &Sensors) {
    if read.encoding != Encoding::Binary || read.node_id.bytes().contains(&b' ') {
        return;
    }
    let (node_id, sequence) = (read.node_id, read.sequence);
    let sender = Sender { serial: read.serial, order: SerialOrder::BigEndian, node_id, sequence };
    let mut builder = Builder::new(sensors, Encoding::Binary, &sender).kind(read.kind);
    for entry in read.fields(sensors) {
        let Ok(Entry::Field(field)) = entry else { return };
        let values: Vec<Value<'_>> = field.values.iter().collect();
        let unlike = |value: &Value<'_>| match value {
            Value::Float(number) => number.is_nan(),
            Value::Text(text) => text.bytes().contains(&b'#'),
            Value::Integer(_) => false,
        };
        if values.iter().any(unlike) || builder.add(field.id.expect("binary"), &values).is_err() {
            return;
        }
    }
    assert_eq!(builder.finish(), read.bytes);
}

fuzz_target!(|bytes: &[u8]| {
    let key = ClassicKey::from_bytes(&[7; 32]).expect("32 bytes");
    if let Ok(tiny) = Tiny::parse(bytes) {
        for table in TABLES {
            tiny.fields(&Sensors::of(table)).for_each(drop);
        }
    }
    for generation in [None, Some(Generation::V12), Some(Generation::V15)] {
        match Frame::parse_as(bytes, Reading { generation, ..Reading::default() }) {
            Ok(Frame::Clear(read)) => clear(&read, &key),
            Ok(Frame::Encrypted(outer)) => drop(outer.open(&key).map(|inner| inner.clear().sequence)),
            _ => {}
        }
    }
    let old = Reading { software: Software::BeforeV012, ..Reading::default() };
    if let Ok(Frame::Clear(read)) = Frame::parse_as(bytes, old) {
        for table in TABLES {
            read.fields(&Sensors::of(table)).for_each(drop);
        }
    }
});
