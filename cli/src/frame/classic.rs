//! `fivefold frame decode` on classic frames: what a Waspmote node sent, in clear or encrypted (W2 to W7).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use fivefold_core::error::Code;
use fivefold_keep::own_sensors::OwnSensors;
use fivefold_waspmote::{
    ClassicKey, Clear, Decoded, Encrypted, Field as Found, Frame, Generation, Inner, KeyBits, KeyRefused, Reading,
    Refused, Sensors, Serial, SerialOrder, Software, Table, Text, Tiny, Value as Measured, Weak,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{classic_hardened, classic_text};
use crate::output::{Output, answer};

/// What a classic frame is read with.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Classic frames")]
pub struct ClassicArgs {
    /// Key of the node as Meshlium stores it: text, filled with zeros up to --key-bits.
    #[arg(long, value_name = "TEXT", requires = "key_bits", conflicts_with = "key_hex")]
    pub key_text: Option<KeyText>,
    /// Size of --key-text.
    #[arg(long, value_name = "128|192|256", value_parser = parse_bits, requires = "key_text")]
    pub key_bits: Option<KeyBits>,
    /// Key of the node: 16, 24 or 32 bytes.
    #[arg(long, value_name = "HEX")]
    pub key_hex: Option<KeyText>,
    /// Table of the node's sensors; without it, the one that the node's type and hardware have.
    #[arg(long, value_name = "default|agriculture|water|v12", value_parser = parse_table)]
    pub table: Option<Table>,
    /// Sensors of your own, added to the tables: a TOML or JSON file, described in docs/tools.md.
    #[arg(long, value_name = "FILE")]
    pub sensors: Option<PathBuf>,
    /// Hardware that sent the frame, where its type does not say (types 1 to 5).
    #[arg(long, value_name = "v12|v15", value_parser = parse_generation)]
    pub generation: Option<Generation>,
    /// Order of the serial's bytes in binary frames of v12: little for software older than API v026.
    #[arg(long, value_name = "big|little", value_parser = parse_order, default_value = "big")]
    pub serial_order: SerialOrder,
    /// The node's software is older than API v012 (2014): its binary frames say how many fields they have, and not how long
    /// they are.
    #[arg(long)]
    pub before_v012: bool,
}

/// A key as it was typed: wiped, and never shown.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// The characters, for who decodes them.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for KeyText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText(…)")
    }
}

impl ClassicArgs {
    /// The tables, with the sensors of the file that was named.
    pub(super) fn own_sensors(&self) -> anyhow::Result<OwnSensors> {
        Ok(self.sensors.as_deref().map(OwnSensors::read_file).transpose()?.map(|(own, _)| own).unwrap_or_default())
    }

    /// The first option that was given and that no other kind of frame has.
    pub fn given(&self) -> Option<&'static str> {
        [
            ("--key-text", self.key_text.is_some()),
            ("--key-hex", self.key_hex.is_some()),
            ("--table", self.table.is_some()),
            ("--sensors", self.sensors.is_some()),
            ("--generation", self.generation.is_some()),
            ("--before-v012", self.before_v012),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

fn parse_bits(text: &str) -> Result<KeyBits, String> {
    text.parse().ok().and_then(KeyBits::from_bits).ok_or_else(|| "expected 128, 192 or 256".into())
}

fn parse_table(text: &str) -> Result<Table, String> {
    Table::from_word(text).ok_or_else(|| "expected default, agriculture, water or v12".into())
}

fn parse_generation(text: &str) -> Result<Generation, String> {
    [Generation::V12, Generation::V15]
        .into_iter()
        .find(|g| g.as_str() == text)
        .ok_or_else(|| "expected v12 or v15".into())
}

fn parse_order(text: &str) -> Result<SerialOrder, String> {
    match text {
        "big" => Ok(SerialOrder::BigEndian),
        "little" => Ok(SerialOrder::LittleEndian),
        _ => Err("expected big or little".into()),
    }
}

/// Why something is refused: a code of docs/protocol.md 14, a stable word, a sentence.
#[derive(Clone, Debug)]
pub struct Reason {
    /// The code.
    pub code: Code,
    /// The word.
    pub word: &'static str,
    /// The sentence.
    pub sentence: String,
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::ForeignSerial | Refused::ForeignNodeId => Code::ClassicForeignInner,
            Refused::NotOpened | Refused::Inner { .. } | Refused::Padding | Refused::Nested { .. } => {
                Code::ClassicForged
            }
            _ => Code::ClassicMalformed,
        };
        Self { code, word: refused.as_str(), sentence: refused.to_string() }
    }
}

impl From<KeyRefused> for Reason {
    fn from(refused: KeyRefused) -> Self {
        Self { code: Code::ClassicWeakKey, word: refused.as_str(), sentence: refused.to_string() }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// As `-o json` prints it, but for the reason.
    pub json: Map<String, Value>,
    /// As a person reads it, but for the reason.
    pub text: String,
    /// Why it is refused.
    pub refused: Option<Reason>,
}

impl Report {
    fn refused(mut self, reason: impl Into<Reason>) -> Self {
        self.refused = Some(reason.into());
        self
    }
}

/// Decodes, answers and says how it went.
///
/// # Errors
/// A key, a table or a file that cannot be what it was given for.
pub fn run(args: &ClassicArgs, kind: super::Kind, bytes: &[u8], output: Output) -> anyhow::Result<ExitCode> {
    let mut report = decode(args, kind, bytes)?;
    report.json.entry("suite").or_insert_with(|| json!("classic"));
    if let Some(reason) = &report.refused {
        report.json.insert("code".into(), json!(reason.code.as_str()));
        report.json.insert("refused".into(), json!(reason.word));
        report.json.insert("reason".into(), json!(reason.sentence));
        report.text += &format!("REFUSED  {}: {}", reason.code.as_str(), reason.sentence);
    }
    let code = if report.refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    answer(output, &Value::Object(report.json), || report.text.trim_end().to_owned());
    Ok(code)
}

fn decode(args: &ClassicArgs, kind: super::Kind, bytes: &[u8]) -> anyhow::Result<Report> {
    if kind == super::Kind::Classic {
        match Frame::parse(bytes) {
            Ok(Frame::Hardened(frame)) => return classic_hardened::frame(args, frame),
            Ok(Frame::KeyMessage(frame)) => return Ok(classic_hardened::key_message(frame)),
            _ => {}
        }
    }
    let key = match key(args)? {
        Ok(key) => key,
        Err(refused) => return Ok(Report::default().refused(refused)),
    };
    let own = args.own_sensors()?;
    let sensors = |table: Table| own.of(args.table.unwrap_or(table));
    if kind == super::Kind::ClassicTiny {
        return Ok(tiny(bytes, sensors(Table::Default)));
    }
    // A table says which hardware it is for, where the type does not.
    let hardware = |table| if table == Table::V12 { Generation::V12 } else { Generation::V15 };
    // Whoever counts fields writes the serial the other way round.
    let (software, order) = match args.before_v012 {
        true => (Software::BeforeV012, SerialOrder::LittleEndian),
        false => (Software::V012, args.serial_order),
    };
    let known = Reading { generation: args.generation, order, software };
    let told = Reading { generation: args.generation.or(args.table.map(hardware)), ..known };
    let frame = match Frame::parse_as(bytes, told).or_else(|_| Frame::parse_as(bytes, known)) {
        Ok(frame) => frame,
        Err(refused) => return Ok(Report::default().refused(refused)),
    };
    let frame = match frame {
        Frame::Clear(clear) => {
            let read = read_clear(&clear, sensors(clear.table()), order);
            match (&read.refused, key) {
                (None, Some(_)) => Report { refused: Some(plain()), ..read },
                _ => read,
            }
        }
        Frame::Encrypted(outer) => match key.map(|key| (outer.open(&key), key)) {
            None => sealed(&outer, order, None),
            Some((Err(refused), key)) => sealed(&outer, order, Some(&key)).refused(refused),
            Some((Ok(inner), key)) => {
                let sensors = sensors(inner.clear().table());
                opened(sealed(&outer, order, Some(&key)), &inner, sensors, order)
            }
        },
        Frame::TimeRequest => time_request(bytes),
        Frame::OverTheAir(command) => Report {
            json: object(json!({ "type": command.command & 0x7f, "type_name": command.as_str() })),
            text: String::new(),
            refused: Some(Reason {
                code: Code::ClassicOverTheAir,
                word: "over-the-air",
                sentence: format!("a command of over-the-air programming ({}), no reading", command.as_str()),
            }),
        },
        _ => bail!("this command does not know such frames yet"),
    };
    Ok(frame)
}

/// Why a frame in clear is refused when its node has a key.
fn plain() -> Reason {
    Reason {
        code: Code::ClassicRelabelled,
        word: "plain",
        sentence: "the frame is in clear, and a node with a key does not send such: anybody can have made it".into(),
    }
}

/// The key, none, or why a node would not use it as it stands.
fn key(args: &ClassicArgs) -> anyhow::Result<Result<Option<ClassicKey>, KeyRefused>> {
    if let (Some(text), Some(bits)) = (&args.key_text, args.key_bits) {
        return Ok(ClassicKey::from_text(text.0.as_bytes(), bits).map(Some));
    }
    let Some(text) = &args.key_hex else { return Ok(Ok(None)) };
    let bytes = Zeroizing::new(hex::decode(text.0.as_bytes()).context("--key-hex is not hex")?);
    Ok(Ok(Some(ClassicKey::from_bytes(&bytes).context("--key-hex")?)))
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The serial as it stands on the wire: hex of a binary frame's bytes, decimal of an ASCII frame of v12.
pub(super) fn wire_serial(serial: Serial, order: SerialOrder, encoding: &str) -> String {
    match (serial, order) {
        (Serial::V12(number), SerialOrder::BigEndian) if encoding == "binary" => format!("{number:08x}"),
        (Serial::V12(number), SerialOrder::LittleEndian) if encoding == "binary" => {
            format!("{:08x}", number.swap_bytes())
        }
        _ => serial.to_string(),
    }
}

/// Text as JSON has it: itself, or with what is not UTF-8 escaped.
fn string(text: Text<'_>) -> Value {
    text.to_str().map_or_else(|| json!(text.to_string()), |text| json!(text))
}

fn measured(value: Measured<'_>) -> Value {
    match value {
        Measured::Integer(number) => json!(number),
        Measured::Float(number) if number.is_finite() => json!(number),
        Measured::Float(_) => json!(value.to_string()),
        Measured::Text(text) => string(text),
    }
}

fn field(field: &Found<'_>) -> Value {
    let values: Vec<Value> = field.values.iter().map(measured).collect();
    json!({ "id": field.id, "tag": string(field.tag), "values": values })
}

/// Adds the fields to what is said of a frame.
fn add_fields(json: &mut Map<String, Value>, decoded: &Decoded<'_>) {
    json.insert("fields".into(), decoded.fields.iter().map(field).collect());
    if !decoded.refused.is_empty() {
        let refused = |f: &fivefold_waspmote::RefusedField<'_>| json!({ "text": string(f.text), "refused": f.fault.as_str(), "reason": f.fault.to_string() });
        json.insert("refused_fields".into(), decoded.refused.iter().map(refused).collect());
    }
    if let Some(rest) = decoded.rest {
        json.insert(
            "rest".into(),
            json!({
                "at": rest.at,
                "hex": hex::encode(rest.bytes),
                "code": Code::ClassicUnknownSensor.as_str(),
                "reason": format!("sensor {} is not in the table: nobody can say where its field ends", rest.id),
            }),
        );
    }
}

pub(super) fn read_clear(clear: &Clear<'_>, sensors: &Sensors, order: SerialOrder) -> Report {
    let encoding = clear.encoding.as_str();
    let mut json = object(json!({
        "generation": clear.generation().as_str(),
        "encoding": encoding,
        "type": clear.kind.number(),
        "type_name": clear.kind.as_str(),
        "serial": wire_serial(clear.serial, order, encoding),
        "node_id": string(clear.node_id),
        "sequence": clear.sequence,
        "table": sensors.table().as_str(),
        "fields": [],
    }));
    if let Serial::V12(number) = clear.serial {
        json.insert("serial_decimal".into(), json!(number));
    }
    if clear.node_id.to_str().is_none() {
        json.insert("node_id_hex".into(), json!(hex::encode(clear.node_id.bytes())));
    }
    let text = classic_text::clear(clear, sensors);
    match clear.decode(sensors) {
        Ok(decoded) => {
            add_fields(&mut json, &decoded);
            Report { json, text, refused: None }
        }
        Err(refused) => Report { json, text, refused: None }.refused(refused),
    }
}

/// What is clear of an encrypted frame, and what is not.
fn sealed(outer: &Encrypted<'_>, order: SerialOrder, key: Option<&ClassicKey>) -> Report {
    let (clear, closed): (&[&str], &[&str]) = match outer.node_id {
        None => (&["type", "length", "serial"], &["node_id", "sequence", "fields"]),
        Some(_) => (&["type", "length", "serial", "node_id"], &["sequence", "fields"]),
    };
    let mut json = object(json!({
        "generation": outer.kind.generation().as_str(),
        "encoding": "binary",
        "type": outer.kind.number(),
        "type_name": outer.kind.as_str(),
        "serial": wire_serial(outer.serial, order, "binary"),
        "node_id": outer.node_id.map(string),
        "sequence": null,
        "fields": [],
        "destination": outer.destination().as_str(),
        "ciphertext": hex::encode(outer.ciphertext),
        "clear": clear,
        "encrypted": closed,
        "inner": null,
    }));
    if let Serial::V12(number) = outer.serial {
        json.insert("serial_decimal".into(), json!(number));
    }
    if let Some(key) = key {
        let weakness = key.weakness();
        let code = weakness.filter(|weak| *weak != Weak::Printable).map(|_| Code::ClassicWeakKey.as_str());
        let told = json!({
            "bits": key.bits().bits(),
            "weakness": weakness.map(Weak::as_str),
            "code": code,
        });
        json.insert("key".into(), told);
    }
    Report { json, text: classic_text::sealed(outer, key), refused: None }
}

fn opened(mut outer: Report, inner: &Inner, sensors: &Sensors, order: SerialOrder) -> Report {
    let mut read = read_clear(&inner.clear(), sensors, order);
    read.json.insert("suite".into(), json!("classic"));
    outer.json.insert("inner".into(), Value::Object(read.json));
    outer.text += &format!("\nInside:\n{}", read.text);
    outer.refused = read.refused;
    outer
}

fn tiny(bytes: &[u8], sensors: &Sensors) -> Report {
    let tiny = match Tiny::parse(bytes) {
        Ok(tiny) => tiny,
        Err(refused) => return Report::default().refused(refused),
    };
    let mut json = object(json!({
        "encoding": "binary", "type_name": "tiny", "sequence": tiny.sequence, "table": sensors.table().as_str(),
    }));
    let text = classic_text::tiny(&tiny, sensors);
    match Decoded::of(tiny.fields(sensors)) {
        Ok(decoded) => {
            add_fields(&mut json, &decoded);
            Report { json, text, refused: None }
        }
        Err(refused) => Report { json, text, refused: None }.refused(refused),
    }
}

fn time_request(bytes: &[u8]) -> Report {
    let json = object(json!({
        "generation": "v12", "encoding": "ascii", "type": 27, "type_name": "time-request",
        "serial": "387264539", "node_id": "node1", "sequence": 0, "fields": [],
    }));
    let text = format!(
        "Classic time request, the same from every node: {}\nThe answer is 19 characters, YYYYMMDDhhmmss+hhmm, and nothing \
         proves it.",
        hex::encode(bytes)
    );
    Report { json, text, refused: None }
}
