//! `fivefold frame`: what a frame is, byte by byte, and what the given keys open of it.

pub mod classic;
mod classic_hardened;
mod classic_text;
pub mod decode;
pub mod envelope;
pub mod fields;
pub mod keys;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use fivefold_core::error::Rejected;
use fivefold_core::id::Did;
use fivefold_core::oscore::{Id, PartialIv};
use fivefold_core::wire::ieee802154::Security;
use fivefold_core::wire::tiny::KidLength;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Output, answer, table};
use decode::{CheckSequence, Question};
use envelope::EnvelopeLayer;
use fields::Field;
use keys::Keys;

/// Look into frames.
#[derive(Clone, Debug, clap::Args)]
pub struct FrameArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FrameCommand,
}

/// What to do with a frame.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum FrameCommand {
    /// Open one frame as a receiver would that keeps no state, and explain each byte. Exits 1 when it is refused.
    Decode(DecodeArgs),
}

/// Arguments of `fivefold frame decode`.
#[derive(Clone, Debug, clap::Args)]
pub struct DecodeArgs {
    /// What the bytes are. Without it, what starts with 3c3d3e is a classic frame.
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Keys: a JSON file, described in docs/tools.md.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Who the link says sent a tiny frame: needed with --kid-length 0.
    #[arg(long, value_name = "HEX")]
    pub link_kid: Option<String>,
    /// Bytes of the kid in tiny requests: K of the device's record.
    #[arg(long, default_value_t = 0, value_parser = parse_kid_length, value_name = "0|2")]
    pub kid_length: u8,
    /// Who sent the message; default: device for requests, peer for answers.
    #[arg(long, value_enum)]
    pub from: Option<Sender>,
    /// EUI-64 that the radio reports as source: needed for e1s.
    #[arg(long, value_name = "HEX")]
    pub source_eui64: Option<Did>,
    /// Partial IV of the request that an answer belongs to.
    #[arg(long, value_name = "HEX")]
    pub request_piv: Option<String>,
    /// The 802.15.4 frame ends with its check sequence: check it.
    #[arg(long)]
    pub fcs: bool,
    /// The bytes, in hex; spaces and colons are skipped.
    #[arg(value_name = "HEX")]
    pub bytes: String,
    /// What classic frames are read with.
    #[command(flatten)]
    pub classic: classic::ClassicArgs,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A frame of a Waspmote or Plug & Sense! node.
    Classic,
    /// A tiny frame of such a node, from a carrier that says who sent it.
    ClassicTiny,
    /// A CoAP message over UDP with OSCORE.
    Coap,
    /// An 802.15.4 frame.
    E1,
    /// An E1S message (RuleID 1f).
    E1s,
    /// An envelope on its way from a gateway to the cloud.
    Envelope,
    /// A tiny frame.
    Tiny,
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sender {
    /// The device.
    Device,
    /// The gateway or the cloud.
    Peer,
}

/// What was found in a frame.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the bytes were said to be.
    pub kind: Kind,
    envelope: Option<EnvelopeLayer>,
    link: Option<LinkLayer>,
    layers: Vec<OscoreLayer>,
    /// Fields of a message that has no layer of its own: an empty CoAP message, EDHOC, a fragment.
    unprotected: Vec<Field>,
    /// What the application gets, if everything on the way to it opened.
    pub application: Option<Vec<u8>>,
    /// Why a receiver refuses the frame.
    pub refused: Option<Rejected>,
    /// Why what an E1 frame or an envelope carries did not open; that itself did.
    pub not_opened: Option<Rejected>,
}

/// E1: a frame or an E1S message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkLayer {
    level: u8,
    security_level: u8,
    key_index: u8,
    frame_counter: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_pan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    source_eui64: Option<String>,
    plaintext: Option<String>,
    mesh: Option<MeshHeader>,
    dispatch: Option<&'static str>,
    fields: Vec<Field>,
}

/// Mesh header in an E1 plaintext.
#[derive(Clone, Debug, Serialize)]
pub struct MeshHeader {
    hops: u8,
    originator: String,
    #[serde(rename = "final")]
    destination: String,
}

/// E2 or E3: an OSCORE message.
#[derive(Clone, Debug, Serialize)]
pub struct OscoreLayer {
    level: u8,
    context: Option<String>,
    alg: Option<u8>,
    kid: Option<String>,
    kid_context: Option<String>,
    partial_iv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_piv: Option<String>,
    ciphertext: String,
    plaintext: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inner_rule: Option<u8>,
    inner_code: Option<String>,
    fields: Vec<Field>,
}

impl LinkLayer {
    fn of(header: [u8; 6], security: Option<&Security>) -> Self {
        let [control, a, b, c, d, key_index] = header;
        let security_level = security.map_or(control & 7, |s| s.level.number());
        let frame_counter = u32::from_le_bytes([a, b, c, d]);
        Self { level: 1, security_level, key_index, frame_counter, ..Self::default() }
    }
}

impl Report {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            envelope: None,
            link: None,
            layers: Vec::new(),
            unprotected: Vec::new(),
            application: None,
            refused: None,
            not_opened: None,
        }
    }

    /// Sets the E1 layer: the first one, of which a frame has at most one.
    fn push_link(&mut self, layer: LinkLayer) {
        self.link = Some(layer);
    }

    /// The E1 layer.
    fn link(&mut self) -> &mut LinkLayer {
        self.link.get_or_insert_default()
    }

    /// The OSCORE layer that was pushed last.
    fn innermost(&mut self) -> Option<&mut OscoreLayer> {
        self.layers.last_mut()
    }

    /// Adds an OSCORE layer inside those that are there.
    fn push_oscore(&mut self, layer: OscoreLayer) {
        self.layers.push(layer);
    }

    /// As `-o json` prints it.
    pub fn to_json(&self) -> Value {
        let link = self.link.iter().map(|layer| json!(layer));
        let envelope = self.envelope.iter().map(|layer| json!(layer));
        let layers: Vec<Value> = envelope.chain(link).chain(self.layers.iter().map(|layer| json!(layer))).collect();
        let mut value = json!({
            "kind": self.kind,
            "layers": layers,
            "application": self.application.as_ref().map(hex::encode),
        });
        let object = value.as_object_mut();
        if let Some(object) = object {
            if !self.unprotected.is_empty() {
                object.insert("fields".to_owned(), json!(self.unprotected));
            }
            if let Some(rejected) = self.refused {
                object.insert("code".to_owned(), json!(rejected.code.as_str()));
                object.insert("reason".to_owned(), json!(rejected.reason));
            }
            if let Some(rejected) = self.not_opened {
                let told = json!({ "code": rejected.code.as_str(), "reason": rejected.reason });
                object.insert("not_opened".to_owned(), told);
            }
        }
        value
    }
}

/// Runs the command.
///
/// # Errors
/// What is missing in the question, or cannot be read.
pub fn run(args: &FrameArgs, output: Output) -> anyhow::Result<ExitCode> {
    let FrameCommand::Decode(args) = &args.command;
    let text: String = args.bytes.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let bytes = hex::decode(text).context("the frame is not hex")?;
    let kind = match args.kind {
        Some(kind) => kind,
        None if bytes.starts_with(b"<=>") || bytes.is_empty() => Kind::Classic,
        None => bail!("say what the bytes are: --kind coap, e1, e1s, envelope, tiny, classic or classic-tiny"),
    };
    if let Kind::Classic | Kind::ClassicTiny = kind {
        if args.keys.is_some() {
            bail!(
                "--keys is for other frames: a classic one opens with --key-text TEXT --key-bits N, or --key-hex HEX"
            );
        }
        return classic::run(&args.classic, kind, &bytes, output);
    }
    if let Some(option) = args.classic.given() {
        bail!("{option} is for classic frames: --kind classic");
    }
    let report = decode_args(args, kind, &bytes)?;
    answer(output, &report.to_json(), || report.to_text());
    Ok(if report.refused.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn decode_args(args: &DecodeArgs, kind: Kind, bytes: &[u8]) -> anyhow::Result<Report> {
    let keys = args.keys.as_deref().map_or_else(|| Ok(Keys::none()), Keys::read)?;
    if args.fcs && kind != Kind::E1 {
        bail!("--fcs is for --kind e1: no other kind ends with a check sequence");
    }
    let link_kid = match &args.link_kid {
        None => None,
        Some(text) => {
            let kid = hex::decode(text).context("--link-kid is not hex")?;
            Some(Id::new(&kid).context("--link-kid is longer than 7 bytes")?)
        }
    };
    let request = match &args.request_piv {
        None => None,
        Some(text) => {
            let piv = hex::decode(text).context("--request-piv is not hex")?;
            Some(PartialIv::from_minimal(&piv).map_err(|r| anyhow!("--request-piv: {}", r.reason))?)
        }
    };
    let question = Question {
        kind,
        keys: &keys,
        link_kid,
        kid_length: if args.kid_length == 2 { KidLength::Two } else { KidLength::None },
        from: args.from,
        source: args.source_eui64,
        request,
        check_sequence: if args.fcs { CheckSequence::Present } else { CheckSequence::Absent },
    };
    decode::decode(&question, bytes)
}

fn parse_kid_length(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "2" => Ok(2),
        _ => Err("expected 0 or 2".into()),
    }
}

impl Report {
    /// As a person reads it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(envelope) = &self.envelope {
            text += &format!("{}\n{}\n\n", envelope.title(), listed(&envelope.fields));
        }
        if let Some(link) = &self.link {
            let opened = if link.plaintext.is_some() { "opened" } else { "not opened" };
            let source = link.source_eui64.as_deref().unwrap_or("unknown EUI-64");
            text += &format!(
                "E1  level {}, key index {}, counter {}, from {source}: {opened}\n{}\n\n",
                link.security_level,
                link.key_index,
                link.frame_counter,
                listed(&link.fields)
            );
        }
        for layer in &self.layers {
            let context = layer.context.as_deref().map_or("not opened".into(), |name| format!("opened with {name}"));
            let number = layer.partial_iv.as_deref().unwrap_or("none");
            text += &format!("E{}  Partial IV {number}: {context}\n{}\n\n", layer.level, listed(&layer.fields));
        }
        if !self.unprotected.is_empty() {
            text += &format!("No layer of protection\n{}\n\n", listed(&self.unprotected));
        }
        text += &match (&self.refused, &self.not_opened, &self.application) {
            (Some(rejected), ..) => format!("REFUSED  {}: {}", rejected.code.as_str(), rejected.reason),
            (_, Some(rejected), _) => {
                format!("What it carries is refused: {}: {}", rejected.code.as_str(), rejected.reason)
            }
            (.., Some(application)) => format!("For the application: {}", hex::encode(application)),
            _ => "Nothing for the application was opened.".into(),
        };
        text
    }
}

fn listed(fields: &[Field]) -> String {
    let mut rows = table(&["part", "at", "bytes", "name", "meaning"]);
    for field in fields {
        let Field { offset, part, hex, name, meaning } = field;
        rows.add_row(vec![(*part).to_owned(), offset.to_string(), hex.clone(), (*name).to_owned(), meaning.clone()]);
    }
    rows.to_string()
}
