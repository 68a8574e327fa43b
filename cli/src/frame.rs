//! `fivefold frame`: what a frame is, byte by byte, and what the given keys open of it.

pub mod decode;
pub mod fields;
pub mod keys;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::error::Rejected;
use fivefold_core::id::Did;
use fivefold_core::oscore::{Id, PartialIv};
use fivefold_core::wire::ieee802154::{Security, SecurityLevel};
use fivefold_core::wire::tiny::KidLength;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::Output;
use decode::{CheckSequence, Question};
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
    /// What the bytes are.
    #[arg(long, value_enum)]
    pub kind: Kind,
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
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A CoAP message over UDP with OSCORE.
    Coap,
    /// An 802.15.4 frame.
    E1,
    /// An E1S message (RuleID 1f).
    E1s,
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
    layers: Vec<Layer>,
    /// Fields of a message that has no layer of its own: an empty CoAP message, EDHOC, a fragment.
    unprotected: Vec<Field>,
    /// What the application gets, if everything on the way to it opened.
    pub application: Option<Vec<u8>>,
    /// Why a receiver refuses the frame.
    pub refused: Option<Rejected>,
    /// Why what an E1 frame carries did not open; E1 itself did.
    pub not_opened: Option<Rejected>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Layer {
    Link(Box<LinkLayer>),
    Oscore(Box<OscoreLayer>),
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
        Self { kind, layers: Vec::new(), unprotected: Vec::new(), application: None, refused: None, not_opened: None }
    }

    fn push_link(&mut self, layer: LinkLayer) -> LinkSlot {
        self.layers.push(Layer::Link(Box::new(layer)));
        LinkSlot
    }

    fn push_oscore(&mut self, layer: OscoreLayer) {
        self.layers.push(Layer::Oscore(Box::new(layer)));
    }

    /// As `-o json` prints it.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "kind": self.kind,
            "layers": self.layers,
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
