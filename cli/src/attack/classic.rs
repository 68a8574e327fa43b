//! Attackers of classic nodes (Waspmote, Plug & Sense!), whose frames prove nothing: what W16 of the wire's description names,
//! through the gateway's own listener, or with a stolen gateway.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::wire::classic::{self, Carrier, Report as Told};
use fivefold_waspmote::hardened::{self, Epoch, Number, Peer, Sealed};
use fivefold_waspmote::{
    Builder, ClassicKey, Clear, Encoding, Encrypted, EncryptedType, Frame, KeyBits, Sender, Sensors, Serial,
    SerialOrder, Table, Text, Value,
};
use serde::{Deserialize, Serialize};

use super::Report;
use super::door::Door;
use super::plan::{Plan, found};
use super::thief::Thief;
use crate::node::waspmote::post_over;

/// Keys that are tried first: the one of sketches whose text is too long, and words.
const GUESSES: [&str; 5] = ["", "libelium", "LibeliumLibelium", "1234567890123456", "password"];
/// Frames that a replay takes.
pub(super) const REPLAYED: usize = 20;

/// What attackers of classic nodes have beside the rest of a [`Plan`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classic {
    /// Where the gateway takes frames, HOST:PORT.
    pub http: String,
    /// Serial of the node that it is about.
    pub victim: String,
    /// Serials of the others.
    pub others: Vec<String>,
    /// Key file of a node that the attacker owns.
    pub own_key: Option<PathBuf>,
}

/// The attacker, with what he heard.
pub(super) struct Foe<'p> {
    plan: &'p Plan,
    pub(super) means: &'p Classic,
    pub(super) victim: Serial,
    /// Frames of the victim, oldest first.
    pub(super) heard: Vec<Vec<u8>>,
}

impl<'p> Foe<'p> {
    pub(super) fn new(plan: &'p Plan) -> anyhow::Result<Self> {
        let means = plan.classic.as_ref().context("the plan has no classic node")?;
        let victim: Serial = means.victim.parse().map_err(|e| anyhow::anyhow!("{}: {e}", means.victim))?;
        let mut heard = frames_in(&std::fs::read(&plan.recording)?);
        heard.retain(|frame| serial_of(frame) == Some(victim));
        anyhow::ensure!(!heard.is_empty(), "nothing was heard of {victim}");
        Ok(Self { plan, means, victim, heard })
    }

    /// Hands frames in as any client can. He does not hear what became of them.
    pub(super) fn hand_in(&self, frames: &[Vec<u8>]) -> anyhow::Result<usize> {
        let door = Door::of(self.plan)?;
        let gateway = door.resolve(&self.means.http)?;
        for frame in frames {
            // A gateway that is starting again hears the next one.
            let _ = door.connect(gateway).and_then(|stream| post_over(stream, &self.means.http, frame));
        }
        Ok(frames.len())
    }

    pub(super) fn last(&self) -> &[u8] {
        self.heard.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// A lie in the victim's name that its sequence does not betray, if he can see the sequence.
    pub(super) fn lie(&self, ahead: u8) -> anyhow::Result<Vec<u8>> {
        lie(self.victim, self.sequence(ahead))
    }

    /// A number so far ahead of the victim's.
    pub(super) fn sequence(&self, ahead: u8) -> u8 {
        match Frame::parse(self.last()) {
            Ok(Frame::Clear(clear)) => clear.sequence.wrapping_add(ahead),
            // A node that has just started: as many as were heard.
            _ => (self.heard.len() as u8).wrapping_add(ahead),
        }
    }
}

/// 66.6 degrees, which no node of the demo measures.
pub(super) fn lie(serial: Serial, sequence: u8) -> anyhow::Result<Vec<u8>> {
    let sensors = Sensors::of(Table::Default);
    let sender = Sender { serial, order: SerialOrder::BigEndian, node_id: Text::new(b"7"), sequence };
    let mut frame = Builder::new(&sensors, Encoding::Binary, &sender);
    let thermometer = sensors.with_tag(b"TC").next().context("the table has no thermometer")?;
    frame.add(thermometer.id, &[Value::Float(f64::from(66.6f32))]).context("a value")?;
    Ok(frame.finish())
}

/// Frames in a recording of HTTP.
fn frames_in(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts = memchr::memmem::find_iter(bytes, b"frame=");
    let digits = starts.map(|at| {
        let rest = bytes.get(at + 6..).unwrap_or_default();
        rest.get(..rest.iter().take_while(|b| b.is_ascii_hexdigit()).count()).unwrap_or_default()
    });
    digits.filter_map(|digits| hex::decode(digits).ok()).collect()
}

fn serial_of(frame: &[u8]) -> Option<Serial> {
    match Frame::parse(frame).ok()? {
        Frame::Clear(clear) => Some(clear.serial),
        Frame::Encrypted(encrypted) => Some(encrypted.serial),
        _ => Some(Serial::V15(Sealed::parse(frame).ok()?.serial)),
    }
}

/// Seals a lie under a key, in every way that a node of this key could.
pub(super) fn sealed(clear: &[u8], key: &ClassicKey) -> anyhow::Result<Vec<Vec<u8>>> {
    let Frame::Clear(inner) = Frame::parse(clear)? else { anyhow::bail!("no frame in clear") };
    let kinds = [EncryptedType::Gateway, EncryptedType::Cloud];
    Ok(kinds.into_iter().map(|kind| Encrypted::seal(kind, &inner, key)).collect::<Result<_, _>>()?)
}

pub(super) fn hardened(clear: &[u8], key: [u8; 32], sequence: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let number = Number { epoch: Epoch(1), sequence, seed: [7; 4] };
    let seal = |peer| {
        let mut out = vec![0; clear.len() + hardened::OVERHEAD];
        hardened::seal(peer, &hardened::Key::from_bytes(key), &number, clear, &mut out).map(|_| out)
    };
    Ok([Peer::Gateway, Peer::Cloud].into_iter().map(seal).collect::<Result<_, _>>()?)
}

/// Keys that people choose.
pub(super) fn guesses() -> anyhow::Result<Vec<ClassicKey>> {
    let sizes = [KeyBits::Aes128, KeyBits::Aes192, KeyBits::Aes256];
    let all = GUESSES.iter().flat_map(|word| sizes.map(|bits| (word, bits)));
    Ok(all.filter_map(|(word, bits)| ClassicKey::from_text(word.as_bytes(), bits).ok()).collect())
}

impl Foe<'_> {
    /// What these keys open of what was heard, or what stands there in clear.
    pub(super) fn reads(&self, keys: &[ClassicKey]) -> Report {
        let mut clear = Vec::new();
        let mut tries = 0;
        for frame in &self.heard {
            tries += 1;
            match Frame::parse(frame) {
                Ok(Frame::Clear(inner)) => clear.extend_from_slice(inner.bytes),
                Ok(Frame::Encrypted(encrypted)) => {
                    tries += keys.len() as u64;
                    for inner in keys.iter().filter_map(|key| encrypted.open(key).ok()) {
                        clear.extend_from_slice(inner.bytes());
                    }
                }
                _ => {}
            }
        }
        let read = found(&clear, &self.plan.payloads());
        let note = format!("{} keys on {} frames", keys.len(), self.heard.len());
        Report { attempts: tries, read, note, ..Report::default() }
    }

    pub(super) fn own_key(&self) -> anyhow::Result<ClassicKey> {
        let path = self.means.own_key.as_deref().context("the plan has no node of the attacker's")?;
        Ok(ClassicKey::from_text(key_text(path)?.as_bytes(), KeyBits::Aes256)?)
    }

    /// Hands reports in with the gateway's certificate.
    pub(super) fn report(&self, reports: &[(Vec<u8>, Option<Vec<u8>>)]) -> anyhow::Result<String> {
        let mut thief = Thief::of(self.plan)?;
        let mut mail = Vec::new();
        for (frame, inner) in reports {
            let told = Told { frame, carrier: Carrier::Http, inner: inner.as_deref(), source: None, code: None };
            let mut out = vec![0; classic::BYTES];
            let len = told.emit(&mut out)?;
            out.truncate(len);
            mail.push((self.means.victim.clone(), out));
        }
        thief.hand_in_classic(&mail)
    }
}

pub(super) fn is_for_gateway(frame: &[u8]) -> bool {
    matches!(frame.get(3), Some(0x60 | 0x68))
}

/// The text in a key file.
fn key_text(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// The frame in clear that a row of the cloud stands for: what was opened, or what came.
pub fn clear_in(report: &[u8]) -> Option<Vec<u8>> {
    let told = Told::parse(report).ok()?;
    let bytes = told.inner.unwrap_or(told.frame);
    matches!(Frame::parse(bytes), Ok(Frame::Clear(Clear { .. }))).then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_a_recording_and_a_lie_is_a_frame() {
        let serial: Serial = "111ffd1b3e500f56".parse().unwrap();
        let lie = lie(serial, 9).unwrap();
        let recording = format!("POST / HTTP/1.1\r\n\r\nframe={}HTTP/1.1 200 OK\r\n\r\n", hex::encode_upper(&lie));
        assert_eq!(frames_in(recording.as_bytes()), std::slice::from_ref(&lie));
        assert_eq!(serial_of(&lie), Some(serial));
    }
}
