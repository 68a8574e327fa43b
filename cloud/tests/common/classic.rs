//! Classic nodes, and what a gateway reports of their frames.

use fivefold_cloud::book::{Blind, ClassicSource};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, GatewayId, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::proof::statement::{BlindKey, SignedLevel};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::{BYTES, Carrier, Report};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_keep::own_sensors::OwnSensors;
use fivefold_keep::registry::{ClassicProfile, HardenedHolder};
use fivefold_waspmote::{ClassicKey, Encrypted, EncryptedType, Frame, KeyBits, Serial, Table, hardened};
use serde_json::Value;

use super::{NET, World};

/// The node and key of `attacks.json`.
pub const SERIAL: &str = "111ffd1b3e500f56";
pub const KEY: &str = "FQPiKck8QtMYffXGftVZHZfZnnLPiWZp";

/// A classic device as the book has it.
#[derive(Clone)]
pub struct Classic {
    pub serial: Serial,
    pub sid: Sid,
    pub gateway_key: Option<KeyBits>,
    /// Text and size, as Meshlium has them.
    pub cloud_key: Option<(&'static str, KeyBits)>,
    pub table: Option<Table>,
    pub profile: ClassicProfile,
    /// Its key for the cloud in the hardened profile, of epoch 1.
    pub hardened_key: Option<[u8; 32]>,
    /// When its hardened keys were drawn.
    pub drawn: Millis,
    /// Whether it has a signing key.
    pub signs: bool,
    /// Sensors of its network's own, as a file has them.
    pub sensors: &'static str,
}

impl Classic {
    pub fn plain(serial: &str, sid: u16) -> Self {
        Self {
            serial: serial.parse().unwrap(),
            sid: Sid(sid),
            gateway_key: None,
            cloud_key: None,
            table: None,
            profile: ClassicProfile::Classic,
            hardened_key: None,
            drawn: Millis(0),
            signs: false,
            sensors: "",
        }
    }

    /// With the key of `attacks.json` at its gateway.
    pub fn to_gateway() -> Self {
        Self { gateway_key: Some(KeyBits::Aes256), ..Self::plain(SERIAL, 0x0c01) }
    }

    /// With the same key at the cloud.
    pub fn to_cloud() -> Self {
        Self { cloud_key: Some((KEY, KeyBits::Aes256)), ..Self::plain(SERIAL, 0x0c01) }
    }

    pub fn did(&self) -> Did {
        Did(match self.serial {
            Serial::V15(bytes) => bytes,
            Serial::V12(number) => u64::from(number).to_be_bytes(),
        })
    }

    pub fn source(&self) -> ClassicSource {
        ClassicSource {
            did: self.did(),
            sid: self.sid,
            net: NET,
            serial: self.serial,
            node_id: None,
            table: self.table,
            gateway_key: self.gateway_key,
            cloud_key: self.cloud_key.map(|(text, bits)| ClassicKey::from_text(text.as_bytes(), bits).unwrap()),
            hardened: self
                .hardened_key
                .map(|k| (hardened::Epoch(1), hardened::Key::from_bytes(k)))
                .into_iter()
                .collect(),
            signs: self.signs,
            blinds: self
                .hardened_key
                .filter(|_| self.signs)
                .iter()
                .flat_map(|key| {
                    let holders = [
                        (HardenedHolder::Cloud, SignedLevel::Cloud),
                        (HardenedHolder::Gateway(GatewayId(1)), SignedLevel::Gateway),
                    ];
                    holders.map(|(holder, level)| Blind {
                        holder,
                        epoch: hardened::Epoch(1),
                        key: BlindKey::classic(key, level, self.did(), 1),
                    })
                })
                .collect(),
            unused: Vec::new(),
            since: [2, 3].map(|level| ((level, hardened::Epoch(1)), self.drawn)).into(),
            profile: self.profile,
            sensors: std::sync::Arc::new(OwnSensors::read(self.sensors).unwrap()),
        }
    }
}

/// A world with these classic devices.
pub fn world(classics: Vec<Classic>) -> World {
    let mut w = World::new(Vec::new());
    w.source.classics = classics;
    w.reload();
    w
}

pub fn key() -> ClassicKey {
    ClassicKey::from_text(KEY.as_bytes(), KeyBits::Aes256).unwrap()
}

/// What the gateway says of a frame, opened with `key` where it holds one.
pub fn report(frame: &[u8], key: Option<&ClassicKey>) -> Vec<u8> {
    let mut said = Report { frame, carrier: Carrier::Http, inner: None, source: None, code: None };
    let opened = match (Frame::parse(frame), key) {
        (Ok(Frame::Encrypted(e)), Some(key)) if e.kind == EncryptedType::Gateway => Some(e.open(key)),
        _ => None,
    };
    let inner = match opened {
        Some(Ok(inner)) => Some(inner),
        Some(Err(refused)) => {
            let foreign = refused == fivefold_waspmote::Refused::ForeignSerial;
            said.code = Some(if foreign { Code::ClassicForeignInner } else { Code::ClassicForged });
            None
        }
        None => None,
    };
    said.inner = inner.as_ref().map(|i| i.bytes());
    let mut out = vec![0; BYTES];
    let len = said.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

/// What a gateway says of a frame by LoRaWAN, or of one that it opened.
pub fn said(frame: &[u8], carrier: Carrier, inner: Option<&[u8]>) -> Vec<u8> {
    let mut out = vec![0; BYTES];
    let len = Report { frame, carrier, inner, source: Some([7; 8]), code: None }.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

pub fn envelope<'b>(serial: &'b str, report: &'b [u8], received: Millis) -> Envelope<'b> {
    Envelope {
        seq: 0,
        received,
        kind: Kind::Classic,
        bytes: report,
        originator: Originator::Classic(serial),
        rssi: None,
        lqi: None,
        opened: None,
        link: LinkClass::None,
        hops: None,
        key_index: None,
    }
}

/// Posts a frame of the node of `attacks.json`: the code with which it was refused, if it was.
pub fn bring(w: &mut World, frame: &[u8], received: Millis) -> Option<Code> {
    bring_of(w, SERIAL, frame, received)
}

/// The same of another node.
pub fn bring_of(w: &mut World, serial: &str, frame: &[u8], received: Millis) -> Option<Code> {
    w.now = w.now.max(received);
    let bytes = report(frame, Some(&key()));
    let answers = w.post(&[envelope(serial, &bytes, received)]);
    answers.refused.first().map(|(_, code)| *code)
}

/// A binary frame of v15.
pub fn binary(serial: &str, node_id: &str, sequence: u8, fields: &[u8]) -> Vec<u8> {
    let mut frame = b"<=>\x06\0".to_vec();
    frame.extend(hex::decode(serial).unwrap());
    frame.extend_from_slice(node_id.as_bytes());
    frame.push(b'#');
    frame.push(sequence);
    frame.extend_from_slice(fields);
    frame[4] = (frame.len() - 5) as u8;
    frame
}

/// The same, encrypted under the key of `attacks.json`.
pub fn sealed(kind: EncryptedType, sequence: u8, fields: &[u8]) -> Vec<u8> {
    let inner = binary(SERIAL, "node_01", sequence, fields);
    let Ok(Frame::Clear(clear)) = Frame::parse(&inner) else { panic!("no frame") };
    Encrypted::seal(kind, &clear, &key()).unwrap()
}

/// A hardened frame of the same node, under a key of so many bytes `key`.
pub fn hardened_frame(peer: hardened::Peer, epoch: u32, sequence: u32, key: u8) -> Vec<u8> {
    let clear = binary(SERIAL, "node_01", sequence as u8, &[52, 80]);
    let number = hardened::Number { epoch: hardened::Epoch(epoch), sequence, seed: [7; 4] };
    let mut out = [0; hardened::LONGEST];
    let len = hardened::seal(peer, &hardened::Key::from_bytes([key; 32]), &number, &clear, &mut out).unwrap();
    out[..len].to_vec()
}

/// A case of `attacks.json`.
pub fn attack(id: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/waspmote/attacks.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone()
}

/// Frames of it under a name: one, or a list.
pub fn frames(case: &Value, name: &str) -> Vec<Vec<u8>> {
    let one = |v: &Value| hex::decode(v.as_str().unwrap()).unwrap();
    case[name].as_array().map_or_else(|| vec![one(&case[name])], |list| list.iter().map(one).collect())
}
