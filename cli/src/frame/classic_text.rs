//! Classic frames, for people. What came over the wire is shown escaped.

use fivefold_waspmote::{
    ClassicKey, Clear, Encoding, Encrypted, Entry, Fields, Generation, Refused, Sensors, Serial, Text, Tiny,
};

use crate::output::table;

/// Rows of what each byte means.
struct Rows<'b> {
    bytes: &'b [u8],
    at: usize,
    rows: Vec<[String; 4]>,
}

impl<'b> Rows<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0, rows: Vec::new() }
    }

    fn cut(&mut self, length: usize, name: impl Into<String>, meaning: impl Into<String>) {
        let end = self.at.saturating_add(length).min(self.bytes.len());
        if let Some(bytes) = self.bytes.get(self.at..end).filter(|bytes| !bytes.is_empty()) {
            self.rows.push([self.at.to_string(), hex::encode(bytes), name.into(), meaning.into()]);
        }
        self.at = end;
    }

    /// Fields, each to where the next one starts.
    fn fields(&mut self, fields: Fields<'_>, sensors: &Sensors) {
        let mut found = Vec::new();
        for entry in fields {
            found.push(match entry {
                Ok(Entry::Field(field)) => {
                    let values: Vec<String> = field.values.iter().map(|value| value.to_string()).collect();
                    let sensor = field.id.and_then(|id| sensors.by_id(id));
                    let name = match field.id {
                        Some(id) => format!("{} ({id})", field.tag),
                        None => format!("{} (?)", field.tag),
                    };
                    let unit = sensor.map_or("", |sensor| &sensor.unit);
                    let what = sensor.map_or("not one tag of the table", |sensor| &sensor.description);
                    let value = format!("{} {unit}", values.join("; "));
                    let what = if what.is_empty() { String::new() } else { format!("  [{what}]") };
                    (field.at, name, format!("{}{what}", value.trim_end()))
                }
                Ok(Entry::Refused(field)) => (field.at, "refused".into(), format!("{}: {}", field.text, field.fault)),
                Ok(Entry::Rest(rest)) => {
                    let why = format!("sensor {} is not in the table: nobody can say where its field ends", rest.id);
                    (rest.at, "kept raw".into(), why)
                }
                Err(Refused::FieldLength { at, id }) => (at, "refused".into(), format!("sensor {id}: cut off")),
                Err(refused) => (self.at, "refused".into(), refused.to_string()),
            });
        }
        let ends: Vec<usize> = found.iter().skip(1).map(|(at, ..)| *at).chain([self.bytes.len()]).collect();
        for ((at, name, meaning), end) in found.into_iter().zip(ends) {
            self.at = at;
            self.cut(end.saturating_sub(at), name, meaning);
        }
    }

    fn finish(self) -> String {
        let mut rows = table(&["at", "bytes", "name", "meaning"]);
        for row in self.rows {
            rows.add_row(row.to_vec());
        }
        format!("{rows}\n")
    }
}

fn named(serial: Serial, node_id: Option<Text<'_>>) -> String {
    match node_id {
        None => format!("from {serial}"),
        Some(id) if id.is_empty() => format!("from {serial} without a node id"),
        Some(id) => format!("from {serial} \"{id}\""),
    }
}

/// A frame in clear.
pub(super) fn clear(frame: &Clear<'_>, sensors: &Sensors) -> String {
    let (kind, encoding) = (frame.kind, frame.encoding.as_str());
    let title = format!(
        "Classic {}, {encoding}, {} ({}), {}, sequence {}: nothing proves any of it\n",
        frame.generation().as_str(),
        kind.as_str(),
        kind.number(),
        named(frame.serial, Some(frame.node_id)),
        frame.sequence,
    );
    let mut rows = Rows::new(frame.bytes);
    rows.cut(3, "delimiter", "<=>");
    rows.cut(1, "type", format!("{}, {encoding}", kind.as_str()));
    let id = (frame.node_id.bytes().len(), frame.node_id.to_string());
    match frame.encoding {
        Encoding::Ascii => {
            rows.cut(1, "fields", format!("{} follow", frame.count.unwrap_or_default()));
            let digits = match frame.serial {
                Serial::V15(_) => 16,
                Serial::V12(number) => number.to_string().len(),
            };
            rows.cut(digits + 2, "serial", frame.serial.to_string());
            rows.cut(id.0 + 1, "node id", id.1);
            rows.cut(frame.sequence.to_string().len() + 1, "sequence", frame.sequence.to_string());
        }
        Encoding::Binary => {
            match frame.count {
                Some(count) => rows.cut(1, "fields", format!("{count} follow (before API v012)")),
                None => rows.cut(1, "N", "bytes after this one"),
            }
            rows.cut(frame.generation().serial_length(), "serial", frame.serial.to_string());
            rows.cut(id.0 + 1, "node id", id.1);
            rows.cut(1, "sequence", frame.sequence.to_string());
        }
    }
    rows.fields(frame.fields(sensors), sensors);
    title + &rows.finish()
}

/// An encrypted frame.
pub(super) fn sealed(frame: &Encrypted<'_>, key: Option<&ClassicKey>) -> String {
    let kind = frame.kind;
    let title = format!(
        "Classic {}, encrypted to the {} (0x{:02x}), {}\n",
        kind.generation().as_str(),
        frame.destination().as_str(),
        kind.number(),
        named(frame.serial, frame.node_id),
    );
    let mut rows = Rows::new(frame.bytes);
    rows.cut(3, "delimiter", "<=>");
    rows.cut(1, "type", format!("{}: not bound to what is encrypted", kind.as_str()));
    rows.cut(1, "N", "bytes after this one");
    rows.cut(kind.generation().serial_length(), "serial", frame.serial.to_string());
    if let Some(id) = frame.node_id {
        rows.cut(id.bytes().len() + 1, "node id", id.to_string());
    }
    for (number, block) in frame.ciphertext.chunks(16).enumerate() {
        let same = frame.ciphertext.chunks(16).take(number).position(|earlier| earlier == block);
        let meaning = same.map_or(String::new(), |earlier| format!("the same as block {earlier}: so is what it hides"));
        rows.cut(block.len(), format!("block {number}"), meaning);
    }
    let closed = match kind.generation() {
        Generation::V12 => "sequence and fields",
        Generation::V15 => "node id, sequence and fields",
    };
    let told = match key {
        None => format!(
            "In clear: type, length and whose it is. Encrypted, without an integrity code: {closed}.\nTo open it: --key-text TEXT \
             --key-bits 128|192|256, or --key-hex HEX\n"
        ),
        Some(key) => match key.weakness() {
            Some(weak) => format!("Key of {} bits; {weak}\n", key.bits().bits()),
            None => format!("Key of {} bits\n", key.bits().bits()),
        },
    };
    title + &rows.finish() + &told
}

/// A tiny frame.
pub(super) fn tiny(frame: &Tiny<'_>, sensors: &Sensors) -> String {
    let title = format!("Classic tiny frame, sequence {}: the carrier says who sent it\n", frame.sequence);
    let mut rows = Rows::new(frame.bytes);
    rows.cut(1, "sequence", frame.sequence.to_string());
    rows.cut(1, "length", "bytes of the frame");
    rows.fields(frame.fields(sensors), sensors);
    title + &rows.finish()
}
