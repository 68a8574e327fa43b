//! E4: the envelope in which a gateway hands a message to the cloud (docs/protocol.md 10).

use fivefold_core::error::{Code, Rejected};
use fivefold_core::wire::cbor::{Malformed, Reader};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use serde::Serialize;

use super::fields::{Cutter, Field};

/// E4: an envelope. Its protection is the channel, which is not in the bytes.
#[derive(Clone, Debug, Serialize)]
pub struct EnvelopeLayer {
    level: u8,
    seq: u64,
    received_unix_ms: u64,
    message: &'static str,
    originator: String,
    rssi: Option<i16>,
    lqi: Option<u8>,
    opened: Option<OpenedBy>,
    e1: &'static str,
    hops: Option<u8>,
    key_index: Option<u8>,
    plaintext: String,
    /// What each byte is.
    pub fields: Vec<Field>,
}

/// Which message the gateway opened around it.
#[derive(Clone, Debug, Serialize)]
struct OpenedBy {
    kid: String,
    partial_iv: u64,
    kid_context: Option<String>,
    epoch: u16,
}

impl EnvelopeLayer {
    /// Of a parsed envelope and the bytes it was parsed from.
    ///
    /// # Errors
    /// `T-01`, when they are not of one another.
    pub fn of(bytes: &[u8], envelope: &Envelope<'_>) -> Result<Self, Rejected> {
        let originator = match envelope.originator {
            Originator::Classic(name) => name.to_owned(),
            Originator::Node { net, sid } => format!("{net}:{sid}"),
        };
        Ok(Self {
            level: 4,
            seq: envelope.seq,
            received_unix_ms: envelope.received.0,
            message: words(envelope.kind),
            originator,
            rssi: envelope.rssi,
            lqi: envelope.lqi,
            opened: envelope.opened.map(|o| OpenedBy {
                kid: o.kid.to_string(),
                partial_iv: o.piv,
                kid_context: o.bctx.map(|b| hex::encode(b.0)),
                epoch: o.epoch.0,
            }),
            e1: envelope.link.as_str(),
            hops: envelope.hops,
            key_index: envelope.key_index,
            plaintext: hex::encode(envelope.bytes),
            fields: explained(bytes, envelope).map_err(|m| m.counted(Code::TinyMalformed))?,
        })
    }

    /// One line for a person.
    pub fn title(&self) -> String {
        format!("E4  envelope {} from {}: {}", self.seq, self.originator, self.message)
    }
}

const fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::CloudTiny => "C3 message, expanded from a tiny frame",
        Kind::GatewayOpened => "plaintext that the gateway opened",
        Kind::Edhoc => "EDHOC",
        Kind::Classic => "classic frame",
        Kind::Event => "event at the gateway",
        Kind::CloudCoap => "C3 message that came as CoAP over UDP",
        Kind::KeyMessage => "key message of a classic device (KR1)",
        Kind::DangerPlain => "payload that only the link protected (INSECURE)",
    }
}

fn explained(bytes: &[u8], envelope: &Envelope<'_>) -> Result<Vec<Field>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut cutter = Cutter::new("envelope", bytes);
    let mut keys = reader.keys()?;
    let mut before = bytes.len();
    cutter.cut(before - reader.rest().len(), "map", "");
    before = reader.rest().len();
    while let Some(key) = keys.next(&mut reader)? {
        reader.item()?;
        let len = before - reader.rest().len();
        before = reader.rest().len();
        let (name, meaning) = match key {
            1 => ("seq", envelope.seq.to_string()),
            2 => ("received", format!("{} ms after 1970", envelope.received.0)),
            3 => ("kind", format!("{}: {}", envelope.kind.wire(), words(envelope.kind))),
            4 => ("message", format!("{} bytes", envelope.bytes.len())),
            5 => ("originator", "net and short id, or a classic device's name".to_owned()),
            6 => ("rssi", envelope.rssi.map_or_else(String::new, |n| format!("{n} dBm"))),
            7 => ("lqi", envelope.lqi.map_or_else(String::new, |n| n.to_string())),
            8 => ("opened", "what the gateway opened around it: kid, number, boot id, epoch".to_owned()),
            9 => ("e1", envelope.link.as_str().to_owned()),
            10 => ("hops", envelope.hops.map_or_else(String::new, |n| format!("{n} hops left"))),
            _ => ("key index", envelope.key_index.map_or_else(String::new, |n| format!("network key {n}"))),
        };
        cutter.cut(len, name, meaning);
    }
    Ok(cutter.finish("rest"))
}
