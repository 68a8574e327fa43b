//! What reading an encrypted frame costs beside its AES blocks: parse and open a frame of AES-256 with five fields, then
//! read all values too, against decrypting the same blocks with an expanded key and nothing else.
//!
//! `cargo bench -p fivefold-waspmote --bench frame`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes::Aes256;
use aes::cipher::{Block, BlockCipherDecrypt as _, KeyInit as _};
use fivefold_waspmote::{
    Builder, ClassicKey, Clear, Encoding, Encrypted, EncryptedType, Entry, Frame, LONGEST_INNER, Sender, Sensors,
    Serial, SerialOrder, Table, Text, Value,
};

const KEY: [u8; 32] = [7; 32];
const ROUNDS: u32 = 20_000;
const REPEATS: usize = 40;

fn made(sensors: &Sensors, encoding: Encoding) -> Vec<u8> {
    let serial = Serial::V15(*b"\x11\x1f\xfd\x1b\x3e\x50\x0f\x56");
    let sender = Sender { serial, order: SerialOrder::BigEndian, node_id: Text::new(b"node_01"), sequence: 10 };
    let mut builder = Builder::new(sensors, encoding, &sender);
    for (id, value) in [(74, 21.25), (76, 40.5), (77, 101_325.0), (53, 0.0)] {
        let values = [Value::Float(value), Value::Float(value)];
        let count = usize::from(sensors.by_id(id).unwrap().fields);
        builder.add(id, &values[..count]).unwrap();
    }
    builder.add(52, &[Value::Integer(90)]).unwrap();
    let inner = builder.finish();
    let Ok(Frame::Clear(inner)) = Frame::parse(&inner) else { panic!("a frame in clear") };
    let key = ClassicKey::from_bytes(&KEY).unwrap();
    Encrypted::seal(EncryptedType::Gateway, &inner, &key).unwrap()
}

/// Parses and opens; what was in it is read by [`summed`].
fn opened<'b>(frame: &[u8], key: &ClassicKey, room: &'b mut [u8; LONGEST_INNER]) -> Clear<'b> {
    let Ok(Frame::Encrypted(outer)) = Frame::parse(frame) else { panic!("an encrypted frame") };
    outer.open_in(key, room).unwrap()
}

/// All values of all fields.
fn summed(inner: &Clear<'_>, sensors: &Sensors) -> f64 {
    let mut sum = 0.0;
    for entry in inner.fields(sensors) {
        let Ok(Entry::Field(field)) = entry else { panic!("a known field") };
        for value in field.values {
            sum += match value {
                Value::Float(number) => number,
                Value::Integer(number) => number as f64,
                Value::Text(_) => 0.0,
            };
        }
    }
    sum
}

fn timed(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    start.elapsed() / ROUNDS
}

fn main() {
    let sensors = Sensors::of(Table::Default);
    let key = ClassicKey::from_bytes(&KEY).unwrap();
    let bare = Aes256::new_from_slice(&KEY).unwrap();
    for encoding in [Encoding::Binary, Encoding::Ascii] {
        let frame = made(&sensors, encoding);
        let ciphertext = &frame[13..];
        let mut copy = [0; LONGEST_INNER];
        // In turn, so that whatever else the machine does meets all; the least of each is reported.
        let (mut bare_blocks, mut open, mut read) = (Duration::MAX, Duration::MAX, Duration::MAX);
        for _ in 0..REPEATS {
            bare_blocks = bare_blocks.min(timed(|| {
                let copy = &mut copy[..ciphertext.len()];
                copy.copy_from_slice(black_box(ciphertext));
                bare.decrypt_blocks(Block::<Aes256>::slice_as_chunks_mut(copy).0);
                black_box(&copy);
            }));
            open = open.min(timed(|| {
                black_box(opened(black_box(&frame), &key, &mut copy));
            }));
            read = read.min(timed(|| {
                black_box(summed(&opened(black_box(&frame), &key, &mut copy), &sensors));
            }));
        }
        let times = |all: Duration| all.as_secs_f64() / bare_blocks.as_secs_f64();
        println!(
            "{} frame, 5 fields, {} blocks of AES-256: bare blocks {bare_blocks:?}; parse and open {open:?}, {:.2} times; \
             and read all values {read:?}, {:.2} times",
            encoding.as_str(),
            ciphertext.len() / 16,
            times(open),
            times(read),
        );
    }
}
