//! What each byte of a frame means, for people.

use fivefold_core::oscore::Plaintext;
use fivefold_core::suite::TAG;
use fivefold_core::wire::coap::{Message, Options, Type};
use fivefold_core::wire::ieee802154::{Ack, Address, Frame, Security};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{EdhocRule, Inner, Tiny, Wants};
use serde::Serialize;

/// Some bytes of a layer, and what they mean.
#[derive(Clone, Debug, Serialize)]
pub struct Field {
    /// Where they begin in their part.
    pub offset: usize,
    /// Which bytes are counted: `frame`, `plaintext`.
    pub part: &'static str,
    /// The bytes.
    pub hex: String,
    /// Name, as docs/protocol.md or the RFC has it.
    pub name: &'static str,
    /// What the value says.
    pub meaning: String,
}

/// Cuts bytes into fields, one after the other.
pub struct Cutter<'b> {
    part: &'static str,
    rest: &'b [u8],
    offset: usize,
    fields: Vec<Field>,
}

impl<'b> Cutter<'b> {
    /// Over all of `bytes`.
    pub fn new(part: &'static str, bytes: &'b [u8]) -> Self {
        Self { part, rest: bytes, offset: 0, fields: Vec::new() }
    }

    /// The next `len` bytes, or what is left.
    pub fn cut(&mut self, len: usize, name: &'static str, meaning: impl Into<String>) {
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        if !bytes.is_empty() {
            let meaning = meaning.into();
            self.fields.push(Field { offset: self.offset, part: self.part, hex: hex::encode(bytes), name, meaning });
        }
        self.offset += bytes.len();
        self.rest = rest;
    }

    /// Ciphertext and an integrity code of `code` bytes, to the end.
    fn sealed(&mut self, code: usize, name: &'static str, meaning: &str) {
        self.cut(self.rest.len().saturating_sub(code), "ciphertext", meaning);
        self.cut(code, name, format!("{} bits of CCM", 8 * code));
    }

    /// What was cut, and the rest under one name.
    pub fn finish(mut self, name: &'static str) -> Vec<Field> {
        self.cut(self.rest.len(), name, "");
        self.fields
    }
}

/// An 802.15.4 frame without check sequence.
pub fn frame(bytes: &[u8], view: &Frame<'_>, security: Option<&Security>) -> Vec<Field> {
    let mut c = Cutter::new("frame", bytes);
    let fcf = u16::from_le_bytes([bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0)]);
    let ack = match view.ack {
        Ack::None => "no ack",
        Ack::Request => "ack requested",
    };
    c.cut(2, "frame control", format!("{fcf:#06x} (little-endian): data, secured, version 2006, {ack}"));
    c.cut(1, "sequence number", view.sequence.to_string());
    c.cut(2, "destination PAN", format!("{:04x} (little-endian)", view.pan.0));
    c.cut(2, "destination", format!("{} (little-endian)", view.destination));
    match view.source {
        Address::Short(sid) => c.cut(2, "source", format!("{sid} (little-endian)")),
        Address::Extended(did) => c.cut(8, "source", format!("{did} (little-endian): HELLO frames only")),
    }
    security_header(&mut c, view.security, security);
    c.finish("not judged")
}

/// An E1S message.
pub fn e1s(bytes: &[u8], security: Option<&Security>) -> Vec<Field> {
    let mut c = Cutter::new("frame", bytes);
    c.cut(1, "RuleID", "1f: E1S, E1 in the payload of a radio without one");
    let header = bytes.get(1..7).and_then(|h| h.try_into().ok()).unwrap_or_default();
    security_header(&mut c, header, security);
    c.finish("not judged")
}

fn security_header(c: &mut Cutter<'_>, header: [u8; 6], security: Option<&Security>) {
    let [control, a, b, d, e, index] = header;
    let level = match control & 7 {
        5 => "ENC-MIC-32",
        6 => "ENC-MIC-64",
        7 => "ENC-MIC-128",
        4 => "encrypted without a code",
        1..=3 => "not encrypted",
        _ => "no security",
    };
    c.cut(1, "security control", format!("level {} ({level}), key identifier mode {}", control & 7, control >> 3 & 3));
    let counter = u32::from_le_bytes([a, b, d, e]);
    c.cut(4, "frame counter", format!("{counter} (little-endian)"));
    c.cut(1, "key index", format!("network key {index}"));
    if let Some(security) = security {
        c.sealed(security.level.mic_len(), "MIC", "sealed by E1");
    }
}

/// The plaintext of an E1 frame.
pub fn link_plaintext(bytes: &[u8], parsed: &mesh::Plaintext<'_>) -> Vec<Field> {
    let mut c = Cutter::new("plaintext", bytes);
    if let Some(header) = parsed.mesh {
        c.cut(1, "mesh header", format!("{} hops left, both addresses short", header.hops));
        c.cut(2, "originator", header.originator.to_string());
        c.cut(2, "final", header.destination.to_string());
    }
    c.finish(match parsed.dispatch {
        mesh::Dispatch::Fragment => "RFC 4944 fragment",
        mesh::Dispatch::Iphc => "LOWPAN_IPHC",
        mesh::Dispatch::Tiny(_) => "tiny frame",
    })
}

/// A tiny frame.
pub fn tiny(bytes: &[u8], tiny: &Tiny<'_>) -> Vec<Field> {
    let mut c = Cutter::new("frame", bytes);
    let rule = bytes.first().copied().unwrap_or_default();
    match tiny {
        Tiny::Request { layers, wants, piv, bctx, kid, .. } => {
            let form = if bctx.is_some() { "explicit form, with boot id" } else { "short form" };
            let answer = match wants {
                Wants::Answer => "answer wanted",
                Wants::Nothing => "no answer wanted",
            };
            let n = piv.as_bytes().len();
            c.cut(1, "RuleID", format!("{rule:02x}: request under {}, {answer}, {form}", layers.as_str()));
            if bctx.is_some() {
                c.cut(1, "PIV length", n.to_string());
            }
            c.cut(n, "Partial IV", format!("number {}", piv.value()));
            if let Some(bctx) = bctx {
                c.cut(8, "boot id", format!("ID Context {bctx}"));
            }
            if let Some(kid) = kid {
                c.cut(2, "kid", format!("device {kid}"));
            }
            c.sealed(TAG, "tag", &format!("sealed by {}", layers.as_str()));
        }
        Tiny::Answer { layers, token, piv, .. } => {
            c.cut(1, "RuleID", format!("{rule:02x}: answer under {}", layers.as_str()));
            c.cut(1, "token", format!("to the request whose number ends in {token:02x}"));
            if let Some(piv) = piv {
                c.cut(1, "PIV length", piv.as_bytes().len().to_string());
                c.cut(piv.as_bytes().len(), "Partial IV", format!("the answer's own number {}", piv.value()));
            }
            c.sealed(TAG, "tag", &format!("sealed by {}", layers.as_str()));
        }
        Tiny::Downlink { layers, token, piv, .. } => {
            c.cut(1, "RuleID", format!("{rule:02x}: downlink request under {}", layers.as_str()));
            c.cut(1, "token", format!("{token:02x}"));
            c.cut(1, "PIV length", piv.as_bytes().len().to_string());
            c.cut(piv.as_bytes().len(), "Partial IV", format!("number {}", piv.value()));
            c.sealed(TAG, "tag", &format!("sealed by {}", layers.as_str()));
        }
        Tiny::DeviceAnswer { layers, token, .. } => {
            c.cut(1, "RuleID", format!("{rule:02x}: device's answer to a downlink request, under {}", layers.as_str()));
            c.cut(1, "token", format!("{token:02x}"));
            c.sealed(TAG, "tag", &format!("sealed by {}", layers.as_str()));
        }
        Tiny::Edhoc { rule: which, .. } => {
            let which = match which {
                EdhocRule::Error => "error",
                EdhocRule::ToClient => "to the client",
                EdhocRule::ToServer => "to the server",
            };
            c.cut(1, "RuleID", format!("{rule:02x}: EDHOC, {which}"));
            return c.finish("EDHOC message");
        }
        Tiny::Fragment { tag, index, last, .. } => {
            c.cut(1, "RuleID", "17: fragment");
            c.cut(1, "tag", tag.to_string());
            c.cut(1, "place", format!("index {index}{}", if *last { ", the last" } else { "" }));
            return c.finish("fragment");
        }
        Tiny::Hello(_) => {
            c.cut(1, "RuleID", "13: E1 control");
            let kind = match bytes.get(1) {
                Some(1) => "HELLO",
                Some(2) => "HELLO-ACK",
                Some(3) => "HELLO-FIN",
                Some(4) => "KEY-SWITCH",
                _ => "unknown",
            };
            c.cut(1, "message", kind);
            return c.finish("nonces, short id, key index");
        }
        Tiny::Link(_) => return c.finish("E1S message"),
        Tiny::Plain { piv, kid, .. } => {
            c.cut(1, "RuleID", format!("{rule:02x}: no protection but E1's (INSECURE: e1 only)"));
            c.cut(piv.as_bytes().len(), "Partial IV", format!("number {}", piv.value()));
            if let Some(kid) = kid {
                c.cut(2, "kid", format!("device {kid}"));
            }
            return c.finish("payload");
        }
    }
    c.finish("rest")
}

/// A C2 plaintext of a tiny link.
pub fn inner(bytes: &[u8], inner: &Inner<'_>) -> Vec<Field> {
    let mut c = Cutter::new("plaintext", bytes);
    match inner {
        Inner::Same { .. } => c.cut(1, "inner rule", "01: C3 under the same number, kid and boot id"),
        Inner::Explicit { piv, bctx, .. } => {
            let n = piv.as_bytes().len();
            c.cut(1, "inner rule", "C3 under a number of its own");
            c.cut(1, "PIV length", n.to_string());
            c.cut(n, "Partial IV", format!("number {}", piv.value()));
            if let Some(bctx) = bctx {
                c.cut(8, "boot id", format!("ID Context {bctx}"));
            }
        }
        Inner::Own { code, .. } => {
            c.cut(1, "inner rule", "04: the gateway's own answer, no C3");
            c.cut(1, "code", dotted(*code));
            return c.finish("payload");
        }
    }
    c.sealed(TAG, "tag", "sealed by e3");
    c.finish("rest")
}

/// An OSCORE plaintext.
pub fn plaintext(bytes: &[u8]) -> Vec<Field> {
    let mut c = Cutter::new("plaintext", bytes);
    if let Some(inner) = Plaintext::parse(bytes) {
        c.cut(1, "code", dotted(inner.code));
        options(&mut c, inner.options);
        if !inner.payload.is_empty() {
            c.cut(1, "payload marker", "");
        }
        return c.finish("payload");
    }
    c.finish("no code, options and payload")
}

/// A CoAP message.
pub fn coap(bytes: &[u8], message: &Message<'_>) -> Vec<Field> {
    let mut c = Cutter::new("frame", bytes);
    let token = message.token.as_bytes().len();
    let kind = match message.kind {
        Type::Con => "CON, confirmable",
        Type::Non => "NON, non-confirmable",
        Type::Ack => "ACK",
        Type::Rst => "RST",
    };
    c.cut(1, "version, type, token length", format!("1, {kind}, {token}"));
    c.cut(1, "code", dotted(message.code));
    c.cut(2, "message id", message.message_id.to_string());
    c.cut(token, "token", "");
    options(&mut c, message.options);
    if !message.payload.is_empty() {
        c.cut(1, "payload marker", "");
        if message.options().any(|(n, _)| n == 9) {
            c.sealed(TAG, "tag", "sealed by OSCORE");
        }
    }
    c.finish("payload")
}

fn options(c: &mut Cutter<'_>, raw: &[u8]) {
    let mut before = 0;
    let mut rest = raw.len();
    for (option, value) in Options::new(raw) {
        // An option takes as many bytes as the walk over the ones before it and its own head and value.
        let mut head = [0; 5];
        let head = fivefold_core::wire::coap::emit_option(&mut head, before, option, &[]).unwrap_or(1)
            + match value.len() {
                0..=12 => 0,
                13..=268 => 1,
                _ => 2,
            };
        before = option;
        let name = match option {
            3 => "Uri-Host",
            6 => "Observe",
            7 => "Uri-Port",
            9 => "OSCORE",
            11 => "Uri-Path",
            12 => "Content-Format",
            15 => "Uri-Query",
            17 => "Accept",
            258 => "No-Response",
            _ => "option",
        };
        let text = match option {
            9 => oscore_option(value),
            12 | 17 | 6 | 7 => fivefold_core::wire::coap::uint(value).map(|n| n.to_string()).unwrap_or_default(),
            _ => String::from_utf8_lossy(value).into_owned(),
        };
        c.cut(head + value.len(), name, format!("number {option}: {text}"));
        rest = rest.saturating_sub(head + value.len());
    }
    c.cut(rest, "options", "");
}

fn oscore_option(value: &[u8]) -> String {
    let Ok(option) = fivefold_core::oscore::OscoreOption::parse(value) else {
        return "malformed".to_owned();
    };
    let mut said = Vec::new();
    if let Some(piv) = option.piv {
        said.push(format!("Partial IV {}", piv.value()));
    }
    if let Some(context) = option.kid_context {
        said.push(format!("kid context {}", hex::encode(context)));
    }
    match option.kid {
        Some([]) => said.push("kid empty".to_owned()),
        Some(kid) => said.push(format!("kid {}", hex::encode(kid))),
        None => {}
    }
    if said.is_empty() { "empty".to_owned() } else { said.join(", ") }
}

/// A CoAP code as RFC 7252 writes it.
pub fn dotted(code: u8) -> String {
    format!("{}.{:02}", code >> 5, code & 0x1F)
}
