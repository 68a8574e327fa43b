//! What a classic frame tells, and whether it is what the operator says that its device sends.

use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::wire::classic::{Carrier, Report};
use fivefold_keep::registry::ClassicProfile;
use fivefold_waspmote::hardened::signature::Part;
use fivefold_waspmote::hardened::{Number, Peer, Sealed};
use fivefold_waspmote::{
    Clear, Destination, Encoding, Encrypted, Entry, Field, FieldFault, Fields, Frame, FrameType, Reading, Refused,
    Sensors, Serial, Software, Table, Text, Tiny, Value,
};
use serde_json::json;

use crate::book::ClassicDevice;
use crate::classic::{Suite, ValueRow};

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// What stands for the type of a tiny frame: it has none.
const TINY: u8 = 0;

/// What history looks at.
pub(super) struct Trace {
    pub(super) sequence: u8,
    pub(super) heads: u8,
    pub(super) fields: Vec<u8>,
    pub(super) blocks: Vec<[u8; 4]>,
}

/// What a frame tells.
pub(super) struct Told {
    pub(super) suite: Suite,
    pub(super) origin: Origin,
    pub(super) node_id: String,
    pub(super) outer: Option<u8>,
    pub(super) kind: u8,
    pub(super) sequence: Option<u8>,
    /// Why it is no reading.
    pub(super) refused: Option<Code>,
    /// Another gateway holds its key: what that one brings counts, and this is counted as so.
    pub(super) elsewhere: Option<Code>,
    /// What is to be known of it.
    pub(super) codes: Vec<Code>,
    pub(super) content: String,
    pub(super) values: Vec<ValueRow>,
    pub(super) for_cloud: bool,
    /// What was opened here.
    pub(super) inner: Option<Vec<u8>>,
    pub(super) trace: Option<Trace>,
    /// Of a hardened frame that opened.
    pub(super) number: Option<(Peer, Number)>,
    /// It is a part of a signature, and no reading.
    pub(super) is_part: bool,
}

/// Reads a report of this device.
pub(super) fn tell(device: &ClassicDevice, report: &Report<'_>) -> Told {
    let mut told = Told {
        suite: Suite::Classic,
        origin: Origin::Plain,
        node_id: device.source.node_id.clone().unwrap_or_default(),
        outer: report.frame.get(3).copied(),
        kind: report.frame.get(3).copied().unwrap_or_default(),
        sequence: None,
        refused: report.code,
        elsewhere: None,
        codes: Vec::new(),
        content: "{}".into(),
        values: Vec::new(),
        for_cloud: false,
        inner: None,
        trace: None,
        number: None,
        is_part: false,
    };
    let known = of_serial(device);
    let frame = Frame::parse_as(report.frame, known).or_else(|refused| {
        let old = Frame::parse_as(report.frame, Reading { software: Software::BeforeV012, ..known });
        old.map_err(|_| refused)
    });
    match frame {
        Ok(Frame::Clear(clear)) => {
            told.judge_plain(device, clear.serial);
            told.fields(device, &clear, None, Code::ClassicMalformed);
        }
        Ok(Frame::Encrypted(frame)) => {
            told.origin = Origin::Legacy;
            told.for_cloud = frame.destination() == Destination::Cloud;
            told.encrypted(device, report, &frame);
        }
        Ok(Frame::Hardened(frame)) => {
            told.suite = Suite::Hardened;
            told.origin = Origin::Legacy;
            told.hardened(device, report, frame);
        }
        Ok(Frame::OverTheAir(_)) => told.refuse(Code::ClassicOverTheAir),
        Ok(_) => told.refuse(Code::ClassicMalformed),
        // A tiny frame has no delimiter, and only a network server says whose it is.
        Err(_) if report.carrier == Carrier::Lorawan => told.tiny(device, report.frame),
        Err(_) => told.refuse(Code::ClassicMalformed),
    }
    told
}

/// What is known of whoever sends a frame of this device.
fn of_serial(device: &ClassicDevice) -> Reading {
    Reading { generation: Some(device.source.serial.generation()), ..Reading::default() }
}

/// Whether a frame names its device, in either order of the bytes of v12 (W4).
fn names(device: &ClassicDevice, serial: Serial) -> bool {
    serial == device.source.serial || serial.reversed() == device.source.serial
}

impl Told {
    /// The first reason stays.
    fn refuse(&mut self, code: Code) {
        self.refused.get_or_insert(code);
    }

    fn judge_plain(&mut self, device: &ClassicDevice, serial: Serial) {
        if device.has_key() {
            self.refuse(Code::ClassicRelabelled);
        } else if !names(device, serial) {
            self.refuse(Code::ClassicForeignInner);
        }
    }

    fn encrypted(&mut self, device: &ClassicDevice, report: &Report<'_>, frame: &Encrypted<'_>) {
        let source = &device.source;
        if source.profile == ClassicProfile::Hardened {
            return self.refuse(Code::ClassicRelabelled);
        }
        if !names(device, frame.serial) {
            self.refuse(Code::ClassicForeignInner);
        }
        // The type is clear and bound to nothing: who may open it is what the operator said.
        let bits = match frame.destination() {
            Destination::Gateway => source.gateway_key,
            Destination::Cloud => source.cloud_key.as_ref().map(|k| k.bits()),
        };
        if frame.kind.key_bits().is_some_and(|claimed| bits.is_some_and(|bits| bits != claimed)) {
            return self.refuse(Code::ClassicRelabelled);
        }
        match (frame.destination(), bits) {
            (Destination::Gateway, Some(_)) => match report.inner {
                Some(inner) => match Frame::parse_as(inner, of_serial(device)) {
                    Ok(Frame::Clear(clear)) => {
                        if !names(device, clear.serial) {
                            self.refuse(Code::ClassicForeignInner);
                        }
                        self.fields(device, &clear, Some(frame), Code::ClassicForged);
                    }
                    Ok(_) | Err(_) => self.refuse(Code::ClassicForged),
                },
                // Its gateway holds the key: what it did not open was relabelled on the way.
                None => self.refuse(Code::ClassicRelabelled),
            },
            (Destination::Cloud, Some(_)) => match source.cloud_key.as_ref().map(|key| frame.open(key)) {
                Some(Ok(inner)) => {
                    self.fields(device, &inner.clear(), Some(frame), Code::ClassicForged);
                    self.inner = Some(inner.bytes().to_vec());
                }
                Some(Err(Refused::ForeignSerial | Refused::ForeignNodeId)) => self.refuse(Code::ClassicForeignInner),
                _ => self.refuse(Code::ClassicForged),
            },
            (_, None) if device.has_key() => self.refuse(Code::ClassicRelabelled),
            // Somebody else holds its key: kept as it came, for who does (W14). Whether it was sealed at all, nobody here knows.
            (Destination::Cloud, None) => {
                self.origin = Origin::Plain;
                self.content = json!({ "opened": false }).to_string();
            }
            (Destination::Gateway, None) => self.refuse(Code::ClassicForged),
        }
    }

    /// Of the hardened profile: what it tells counts if it opens, and the ledger says of its number whether it is new.
    fn hardened(&mut self, device: &ClassicDevice, report: &Report<'_>, frame: &[u8]) {
        let source = &device.source;
        if source.profile != ClassicProfile::Hardened {
            return self.refuse(Code::ClassicRelabelled);
        }
        let Ok(sealed) = Sealed::parse(frame) else { return self.refuse(Code::ClassicMalformed) };
        if !names(device, sealed.serial()) {
            return self.refuse(Code::ClassicForeignInner);
        }
        let inner = match sealed.peer {
            // Every gateway of the network hears it, and one has its key.
            Peer::Gateway if report.inner.is_none() && self.refused.is_none() => {
                self.elsewhere = Some(Code::GatewayNoContext);
                return;
            }
            Peer::Gateway => report.inner.map(<[u8]>::to_vec),
            Peer::Cloud => {
                self.for_cloud = true;
                let key = source.hardened.iter().find(|(epoch, _)| *epoch == sealed.number.epoch);
                key.and_then(|(_, key)| sealed.open(key).ok()).map(|opened| opened.frame().to_vec())
            }
        };
        // Nobody has its key, or it was changed.
        let Some(inner) = inner else { return self.refuse(Code::HardenedForged) };
        if let Ok(part) = Part::parse(&inner) {
            if !names(device, Serial::V15(part.serial)) {
                self.refuse(Code::ClassicForeignInner);
            }
            (self.number, self.is_part) = (Some((sealed.peer, sealed.number)), true);
            self.inner = Some(inner);
            return;
        }
        match Frame::parse_as(&inner, of_serial(device)) {
            Ok(Frame::Clear(clear)) => {
                if !names(device, clear.serial) {
                    self.refuse(Code::ClassicForeignInner);
                }
                self.fields(device, &clear, None, Code::ClassicForged);
                // History has no say in it.
                self.trace = None;
                self.number = Some((sealed.peer, sealed.number));
            }
            _ => self.refuse(Code::ClassicForged),
        }
        self.inner = Some(inner);
    }

    fn tiny(&mut self, device: &ClassicDevice, bytes: &[u8]) {
        self.outer = None;
        self.kind = TINY;
        let Ok(tiny) = Tiny::parse(bytes) else { return self.refuse(Code::ClassicMalformed) };
        // Never encrypted (W6), whatever keys its device has for whole frames.
        if device.has_key() {
            self.refuse(Code::ClassicRelabelled);
        }
        self.sequence = Some(tiny.sequence);
        let sensors = device.source.sensors.of(device.source.table.unwrap_or(match device.source.serial {
            Serial::V12(_) => Table::V12,
            Serial::V15(_) => Table::Default,
        }));
        let ids = self.contents(tiny.fields(sensors), sensors, Code::ClassicMalformed);
        self.trace = Some(Trace { sequence: tiny.sequence, heads: 0, fields: ids, blocks: Vec::new() });
    }

    /// Takes the fields of a frame that could be read; `around` is what it was inside of.
    fn fields(&mut self, device: &ClassicDevice, clear: &Clear<'_>, around: Option<&Encrypted<'_>>, broken: Code) {
        self.kind = clear.bytes.get(3).copied().unwrap_or_default();
        self.sequence = Some(clear.sequence);
        self.node_id = text(clear.node_id);
        let of_type = matches!(clear.kind, FrameType::AgricultureXtreme | FrameType::WaterXtreme);
        let table = device.source.table.filter(|_| !of_type).unwrap_or(clear.table());
        let sensors = device.source.sensors.of(table);
        let fields = self.contents(clear.fields(sensors), sensors, broken);
        let (heads, blocks) = around.map_or((0, Vec::new()), |frame| blocks(frame, clear));
        self.trace = Some(Trace { sequence: clear.sequence, heads, fields, blocks });
    }

    /// Reads field after field: what is kept as JSON, and each for itself. Returns what stands for each in the history.
    fn contents(&mut self, entries: Fields<'_>, sensors: &Sensors, broken: Code) -> Vec<u8> {
        let (mut fields, mut refused, mut rest, mut ids) = (Vec::new(), Vec::new(), None, Vec::new());
        for entry in entries {
            match entry {
                Ok(Entry::Field(field)) => {
                    let values: Vec<_> = field.values.iter().map(value).collect();
                    fields.push(json!({ "id": field.id, "tag": text(field.tag), "values": values }));
                    self.values.push(row(&field, sensors));
                    ids.push(field.id.unwrap_or_else(|| fold(field.tag.bytes())));
                }
                Ok(Entry::Refused(field)) => {
                    let reason = field.fault.to_string();
                    refused.push(json!({ "at": field.at, "text": text(field.text), "reason": reason }));
                    let _: FieldFault = field.fault;
                }
                Ok(Entry::Rest(raw)) => {
                    let reason = format!("sensor {} is in no table", raw.id);
                    rest = Some(json!({ "at": raw.at, "reason": reason, "raw": hex::encode(raw.bytes) }));
                }
                Err(error) => {
                    // A field that ends behind the frame: nothing before it is to be believed either.
                    self.values.clear();
                    self.content = json!({ "fields": [], "reason": error.to_string() }).to_string();
                    self.refuse(broken);
                    return ids;
                }
            }
        }
        if rest.is_some() || !refused.is_empty() {
            self.codes.push(Code::ClassicUnknownSensor);
        }
        let mut content = json!({ "table": sensors.table().as_str(), "fields": fields });
        if let Some(map) = content.as_object_mut() {
            map.extend(rest.map(|rest| ("rest".to_owned(), rest)));
            if !refused.is_empty() {
                map.insert("refused".into(), refused.into());
            }
        }
        self.content = content.to_string();
        ids
    }
}

/// Blocks of ciphertext from the one with the sequence on, and how many of them the sequence is in.
fn blocks(frame: &Encrypted<'_>, inner: &Clear<'_>) -> (u8, Vec<[u8; 4]>) {
    let header = inner.bytes.len().saturating_sub(inner.payload.len());
    // `1 byte` before binary fields, or digits and a `#` before those of ASCII.
    let (first, last) = match inner.encoding {
        Encoding::Binary => (header.saturating_sub(1), header.saturating_sub(1)),
        Encoding::Ascii => {
            let digits = 1 + usize::from(inner.sequence > 9) + usize::from(inner.sequence > 99);
            (header.saturating_sub(1 + digits), header.saturating_sub(2))
        }
    };
    let heads = (last / BLOCK).saturating_sub(first / BLOCK) + 1;
    let all = frame.ciphertext.chunks_exact(BLOCK).skip(first / BLOCK);
    (heads as u8, all.filter_map(|b| b.first_chunk().copied()).collect())
}

/// Bytes of a node as text: what is no UTF-8 comes out escaped.
fn text(bytes: Text<'_>) -> String {
    bytes.to_str().map_or_else(|| bytes.to_string(), str::to_owned)
}

fn fold(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0x80, |all, byte| all.rotate_left(3) ^ byte)
}

fn value(v: Value<'_>) -> serde_json::Value {
    match v {
        Value::Integer(i) => json!(i),
        Value::Float(f) if f.is_finite() => json!(f),
        Value::Float(_) => json!(v.to_string()),
        Value::Text(t) => json!(text(t)),
    }
}

/// A field as ASCII frames have it (W3), whatever the encoding: a dashboard sees one form.
fn row(field: &Field<'_>, sensors: &Sensors) -> ValueRow {
    let tag = text(field.tag);
    let decimals = sensors.with_tag(field.tag.bytes()).next().map_or(2, |s| usize::from(s.decimals));
    let one = |v: Value<'_>| match v {
        Value::Float(f) if f.is_finite() => format!("{f:.decimals$}"),
        Value::Text(t) => text(t),
        other => other.to_string(),
    };
    let values: Vec<String> = field.values.iter().map(one).collect();
    let value = match (tag.as_str(), values.as_slice()) {
        ("TIME", [hours, minutes, seconds, offset]) => {
            let sign = if offset.starts_with('-') { "" } else { "+" };
            format!("{hours}-{minutes}-{seconds}{sign}{offset}")
        }
        ("DATE" | "TIME", _) => values.join("-"),
        _ => values.join(";"),
    };
    ValueRow { tag, value }
}
