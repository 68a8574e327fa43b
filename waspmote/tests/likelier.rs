//! Binary frames of types 1 to 5 do not say which hardware sent them: how often the reader finds out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::{
    Builder, Encoding, Frame, FrameType, Generation, Kind, Sender, Sensor, Sensors, Serial, SerialOrder, Table, Text,
    Value,
};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

fn values(sensor: &Sensor, dice: &mut Dice) -> Vec<Value<'static>> {
    let one = |dice: &mut Dice| match sensor.kind {
        Kind::Float => Value::Float(f64::from((dice.below(100_000) as f32 - 30_000.0) / 100.0)),
        Kind::Text => Value::Text(Text::new(b"hello")),
        Kind::U8 => Value::Integer(dice.below(101) as i64),
        Kind::I16 | Kind::U16 | Kind::U32 => Value::Integer(dice.below(2_000) as i64),
    };
    (0..sensor.fields).map(|_| one(dice)).collect()
}

/// Of frames as nodes of this hardware send them, how many are read as of the other.
fn misread(table: Table, names: &[&str], frames: usize) -> usize {
    let (mut dice, sensors, mut wrong) = (Dice(0x5EED), Sensors::of(table), 0);
    let known: Vec<&Sensor> = sensors.iter().filter(|sensor| sensor.fields < 4).collect();
    for round in 0..frames {
        let serial = match table {
            Table::V12 => Serial::V12(u32::try_from(dice.next() & 0xFFFF_FFFF).unwrap()),
            _ => Serial::V15((dice.next() << 32 ^ dice.next()).to_be_bytes()),
        };
        let node_id = Text::new(names[round % names.len()].as_bytes());
        let sequence = u8::try_from(dice.below(256)).unwrap();
        let sender = Sender { serial, order: SerialOrder::BigEndian, node_id, sequence };
        let mut builder = Builder::new(&sensors, Encoding::Binary, &sender).kind(FrameType::Event);
        for _ in 0..1 + dice.below(5) {
            let sensor = known[dice.below(known.len())];
            let _ = builder.add(sensor.id, &values(sensor, &mut dice));
        }
        let frame = builder.finish();
        let told = match Frame::parse(&frame) {
            Ok(Frame::Clear(read)) => read.generation(),
            other => panic!("{other:?}"),
        };
        wrong += usize::from((told == Generation::V12) != (table == Table::V12));
    }
    wrong
}

#[test]
fn of_named_nodes_hardly_a_frame_is_taken_for_one_of_the_other_hardware() {
    let names = ["node_01", "park-7", "SCP1", "smartcity_node16", "W", "n12", "Tank", "weather"];
    let (new, old) = (misread(Table::Default, &names, 4_000), misread(Table::V12, &names, 4_000));
    assert!(new <= 40, "{new} of 4000 frames of v15 were read as v12");
    assert!(old <= 40, "{old} of 4000 frames of v12 were read as v15");
}

#[test]
fn of_nodes_without_a_name_few_are() {
    let (new, old) = (misread(Table::Default, &[""], 4_000), misread(Table::V12, &[""], 4_000));
    assert!(new <= 40, "{new} of 4000 frames of v15 were read as v12");
    assert!(old <= 40, "{old} of 4000 frames of v12 were read as v15");
}
