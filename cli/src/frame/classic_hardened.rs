//! `fivefold frame decode` on frames of the hardened classic profile (docs/protocol.md 12.4, 12.5).

use anyhow::{Context as _, anyhow, bail};
use fivefold_core::error::Code;
use fivefold_waspmote::hardened::{self, Key, Number, Peer, Sealed};
use fivefold_waspmote::key_message::Part;
use fivefold_waspmote::{Frame, SerialOrder};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::classic::{ClassicArgs, Reason, Report, object, read_clear};

fn malformed(word: &'static str, sentence: String) -> Report {
    let refused = Some(Reason { code: Code::ClassicMalformed, word, sentence });
    Report { json: suite(json!({})), refused, ..Report::default() }
}

fn suite(value: Value) -> Map<String, Value> {
    let mut json = object(value);
    json.insert("suite".into(), json!("classic-hardened"));
    json
}

/// A hardened frame, opened if there is a key of 32 bytes.
///
/// # Errors
/// A key that is no such key, or a sensor that cannot be added.
pub(super) fn frame(args: &ClassicArgs, bytes: &[u8]) -> anyhow::Result<Report> {
    let sealed = match Sealed::parse(bytes) {
        Ok(sealed) => sealed,
        Err(refused) => return Ok(malformed(refused.as_str(), refused.to_string())),
    };
    let peer = match sealed.peer {
        Peer::Cloud => "cloud",
        Peer::Gateway => "gateway",
    };
    let Number { epoch, sequence, seed } = sealed.number;
    let json = suite(json!({
        "generation": "v15", "encoding": "binary", "type": sealed.peer.frame_type(), "type_name": "hardened",
        "serial": sealed.serial().to_string(), "node_id": null, "sequence": null, "fields": [], "destination": peer,
        "epoch": epoch.0, "number": sequence, "seed": hex::encode(seed),
        "clear": ["type", "length", "serial", "epoch", "number", "seed"],
        "encrypted": ["type of the readings", "node_id", "sequence", "fields"],
        "inner": null,
    }));
    let text = format!(
        "Classic, hardened, to the {peer} (0x{:02x}), from {}: key epoch {}, number {sequence}\n",
        sealed.peer.frame_type(),
        sealed.serial(),
        epoch.0,
    );
    let report = Report { json, text, refused: None };
    match key(args)? {
        Some(key) => open(report, &sealed, &key, args),
        None => {
            let hint =
                "AES-256-CCM: everything else is encrypted, and proven by a tag. To open it: --key-hex with 32 bytes\n";
            Ok(Report { text: report.text + hint, ..report })
        }
    }
}

fn open(mut report: Report, sealed: &Sealed<'_>, key: &Key, args: &ClassicArgs) -> anyhow::Result<Report> {
    let opened = match sealed.open(key) {
        Ok(opened) => opened,
        Err(refused) => {
            let code = match refused {
                hardened::Refused::Tag => Code::HardenedForged,
                _ => Code::ClassicForged,
            };
            report.refused = Some(Reason { code, word: refused.as_str(), sentence: refused.to_string() });
            return Ok(report);
        }
    };
    let clear = match Frame::parse(opened.frame()) {
        Ok(Frame::Clear(clear)) => clear,
        Ok(_) => bail!("a hardened frame opened to something that it cannot hold"),
        Err(refused) => {
            report.refused = Some(refused.into());
            return Ok(report);
        }
    };
    let own = args.own_sensors()?;
    let mut inner = read_clear(&clear, own.of(args.table.unwrap_or(clear.table())), SerialOrder::BigEndian);
    inner.json.insert("suite".into(), json!("classic-hardened"));
    report.json.insert("inner".into(), Value::Object(inner.json));
    report.text += &format!("The tag is right: a holder of this key sealed it.\n\nInside:\n{}", inner.text);
    report.refused = inner.refused;
    Ok(report)
}

fn key(args: &ClassicArgs) -> anyhow::Result<Option<Key>> {
    if args.key_text.is_some() {
        bail!("a hardened frame has no key text: --key-hex with the 32 bytes of its key");
    }
    let Some(text) = &args.key_hex else { return Ok(None) };
    let bytes = Zeroizing::new(hex::decode(text.as_str()).context("--key-hex is not hex")?);
    let bytes = bytes.first_chunk().filter(|_| bytes.len() == 32);
    Ok(Some(Key::from_bytes(*bytes.ok_or_else(|| anyhow!("a hardened frame opens with --key-hex of 32 bytes"))?)))
}

/// A part of a key message.
pub(super) fn key_message(bytes: &[u8]) -> Report {
    let part = match Part::parse(bytes) {
        Ok(part) => part,
        Err(refused) => return malformed(refused.as_str(), refused.to_string()),
    };
    let json = suite(json!({
        "generation": "v15", "encoding": "binary", "type": 0x6a, "type_name": "key-message",
        "serial": part.serial().to_string(), "node_id": null, "sequence": null, "fields": [],
        "message": part.id, "part": part.index, "parts": part.count, "bytes": hex::encode(part.bytes),
    }));
    let text = format!(
        "Classic, hardened: part {} of {} of key message {}, {} bytes, about the key of {}\n",
        u16::from(part.index) + 1,
        part.count,
        part.id,
        part.bytes.len(),
        part.serial(),
    );
    Report { json, text, refused: None }
}
