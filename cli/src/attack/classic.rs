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
use super::plan::{Plan, found};
use super::thief::Thief;
use crate::node::waspmote::post;

/// Keys that are tried first: the one of sketches whose text is too long, and words.
const GUESSES: [&str; 5] = ["", "libelium", "LibeliumLibelium", "1234567890123456", "password"];
/// Frames that a replay takes.
const REPLAYED: usize = 20;

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
struct Foe<'p> {
    plan: &'p Plan,
    means: &'p Classic,
    victim: Serial,
    /// Frames of the victim, oldest first.
    heard: Vec<Vec<u8>>,
}

impl<'p> Foe<'p> {
    fn new(plan: &'p Plan) -> anyhow::Result<Self> {
        let means = plan.classic.as_ref().context("the plan has no classic node")?;
        let victim: Serial = means.victim.parse().map_err(|e| anyhow::anyhow!("{}: {e}", means.victim))?;
        let mut heard = frames_in(&std::fs::read(&plan.recording)?);
        heard.retain(|frame| serial_of(frame) == Some(victim));
        anyhow::ensure!(!heard.is_empty(), "nothing was heard of {victim}");
        Ok(Self { plan, means, victim, heard })
    }

    /// Hands frames in as any client can. He does not hear what became of them.
    fn hand_in(&self, frames: &[Vec<u8>]) -> anyhow::Result<usize> {
        for frame in frames {
            // A gateway that is starting again hears the next one.
            let _ = post(&self.means.http, frame);
        }
        Ok(frames.len())
    }

    fn last(&self) -> &[u8] {
        self.heard.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// A lie in the victim's name that its sequence does not betray, if he can see the sequence.
    fn lie(&self, ahead: u8) -> anyhow::Result<Vec<u8>> {
        let sequence = match Frame::parse(self.last()) {
            Ok(Frame::Clear(clear)) => clear.sequence.wrapping_add(ahead),
            // A node that has just started: as many as were heard.
            _ => (self.heard.len() as u8).wrapping_add(ahead),
        };
        lie(self.victim, sequence)
    }
}

/// 66.6 degrees, which no node of the demo measures.
fn lie(serial: Serial, sequence: u8) -> anyhow::Result<Vec<u8>> {
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
fn sealed(clear: &[u8], key: &ClassicKey) -> anyhow::Result<Vec<Vec<u8>>> {
    let Frame::Clear(inner) = Frame::parse(clear)? else { anyhow::bail!("no frame in clear") };
    let kinds = [EncryptedType::Gateway, EncryptedType::Cloud];
    Ok(kinds.into_iter().map(|kind| Encrypted::seal(kind, &inner, key)).collect::<Result<_, _>>()?)
}

fn hardened(clear: &[u8], key: [u8; 32], sequence: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let number = Number { epoch: Epoch(1), sequence, seed: [7; 4] };
    let seal = |peer| {
        let mut out = vec![0; clear.len() + hardened::OVERHEAD];
        hardened::seal(peer, &hardened::Key::from_bytes(key), &number, clear, &mut out).map(|_| out)
    };
    Ok([Peer::Gateway, Peer::Cloud].into_iter().map(seal).collect::<Result<_, _>>()?)
}

/// Runs one attack on classic nodes.
///
/// # Errors
/// The plan lacks something, or a file or socket fails.
pub fn run(name: &str, plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    match name {
        "classic-stranger-speaks" => foe.speaks(),
        "classic-stranger-guesses" => foe.guesses(),
        "classic-recorder-reads" => Ok(foe.reads(&guesses()?)),
        "classic-recorder-replays" => foe.replays(),
        "classic-recorder-flips" => foe.flips(),
        "classic-recorder-cuts" => foe.cuts(),
        "classic-recorder-relabels" => foe.relabels(),
        "classic-insider-reads" => Ok(foe.reads(&[foe.own_key()?])),
        "classic-insider-forges" => foe.forges(),
        "classic-gateway-reads" => foe.gateway_reads(),
        "classic-gateway-alters" => foe.gateway_alters(),
        "classic-gateway-replays" => foe.gateway_replays(),
        "classic-gateway-invents" => foe.gateway_invents(),
        "classic-database-readings" => super::database::readings(plan),
        "classic-database-keys" => super::database::copies_of_secrets(plan),
        _ => anyhow::bail!("no attack is called {name}"),
    }
}

fn guesses() -> anyhow::Result<Vec<ClassicKey>> {
    let sizes = [KeyBits::Aes128, KeyBits::Aes192, KeyBits::Aes256];
    let all = GUESSES.iter().flat_map(|word| sizes.map(|bits| (word, bits)));
    Ok(all.filter_map(|(word, bits)| ClassicKey::from_text(word.as_bytes(), bits).ok()).collect())
}

impl Foe<'_> {
    /// Frames in clear, in the node's name.
    fn speaks(&self) -> anyhow::Result<Report> {
        let frames: Vec<_> = (1..5).map(|ahead| self.lie(ahead)).collect::<anyhow::Result<_>>()?;
        Ok(Report::tried(self.hand_in(&frames)?, "frames in clear, in the node's name"))
    }

    /// Frames under keys that are easy to guess.
    fn guesses(&self) -> anyhow::Result<Report> {
        let clear = self.lie(1)?;
        let mut frames = hardened(&clear, [0; 32], u32::MAX / 2)?;
        for key in guesses()? {
            frames.extend(sealed(&clear, &key)?);
        }
        Ok(Report::tried(self.hand_in(&frames)?, "frames sealed under keys that people choose"))
    }

    /// What these keys open of what was heard, or what stands there in clear.
    fn reads(&self, keys: &[ClassicKey]) -> Report {
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
        Report { attempts: tries, read, note: format!("{} keys on {} frames", keys.len(), self.heard.len()) }
    }

    fn replays(&self) -> anyhow::Result<Report> {
        let from = self.heard.len().saturating_sub(REPLAYED + 2);
        let frames: Vec<_> = self.heard.iter().skip(from).take(REPLAYED).cloned().collect();
        Ok(Report::tried(self.hand_in(&frames)?, "recorded frames again"))
    }

    /// One bit of every byte of the last frame.
    fn flips(&self) -> anyhow::Result<Report> {
        let last = self.last();
        let frames: Vec<Vec<u8>> = (0..last.len())
            .map(|at| {
                let mut frame = last.to_vec();
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << (at % 8);
                }
                frame
            })
            .collect();
        Ok(Report::tried(self.hand_in(&frames)?, "one bit of every byte"))
    }

    /// The beginning of a new frame, with its sequence, and the values of older ones.
    fn cuts(&self) -> anyhow::Result<Report> {
        let newest = self.last();
        // The inner header ends with a block, by the length of this node's name.
        let head = if matches!(Frame::parse(newest), Ok(Frame::Clear(_))) { 16 } else { 13 + 16 };
        let (head, values) = (newest.get(..head).unwrap_or_default(), head);
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for old in self.heard.iter().rev().skip(1).filter(|old| old.len() == newest.len()).take(8) {
            let cut = [head, old.get(values..).unwrap_or_default()].concat();
            if !self.heard.contains(&cut) && !frames.contains(&cut) {
                frames.push(cut);
            }
        }
        Ok(Report::tried(self.hand_in(&frames)?, "blocks of two frames in one"))
    }

    /// Other types, and other nodes' serials, on the same ciphertext.
    fn relabels(&self) -> anyhow::Result<Report> {
        let mut frames = Vec::new();
        for kind in [0x06, 0x60, 0x64, 0x66, 0x67, 0x68, 0x69] {
            let mut frame = self.last().to_vec();
            if let Some(byte) = frame.get_mut(3).filter(|byte| **byte != kind) {
                *byte = kind;
                frames.push(frame);
            }
        }
        for other in &self.means.others {
            let Ok(Serial::V15(serial)) = other.parse() else { continue };
            let mut frame = self.last().to_vec();
            if let Some(place) = frame.get_mut(5..13) {
                place.copy_from_slice(&serial);
                frames.push(frame);
            }
        }
        Ok(Report::tried(self.hand_in(&frames)?, "other types and serials around the same bytes"))
    }

    fn own_key(&self) -> anyhow::Result<ClassicKey> {
        let path = self.means.own_key.as_deref().context("the plan has no node of the attacker's")?;
        Ok(ClassicKey::from_text(key_text(path)?.as_bytes(), KeyBits::Aes256)?)
    }

    /// Speaks as the victim under the key of his own node.
    fn forges(&self) -> anyhow::Result<Report> {
        let clear = self.lie(1)?;
        let mut frames = sealed(&clear, &self.own_key()?)?;
        frames.extend(hardened(&clear, [0xA7; 32], u32::MAX / 2)?);
        frames.push(clear);
        Ok(Report::tried(self.hand_in(&frames)?, "the victim's name under another node's key, and in clear"))
    }

    /// Disk, memory, and every key of the gateway's on what passed.
    fn gateway_reads(&self) -> anyhow::Result<Report> {
        let searched = super::thief::disk_and_memory(self.plan)?;
        let folder = self.plan.gateway.as_deref().context("the plan names no stolen gateway")?;
        let keys: Vec<ClassicKey> =
            super::opener::stolen_classic(folder)?.iter().filter_map(|key| ClassicKey::from_bytes(key).ok()).collect();
        let opened = self.reads(&keys);
        let note = format!("{}; {}", searched.note, opened.note);
        Ok(Report { attempts: searched.attempts + opened.attempts, read: searched.read + opened.read, note })
    }

    /// Hands reports in with the gateway's certificate.
    fn report(&self, reports: &[(Vec<u8>, Option<Vec<u8>>)]) -> anyhow::Result<String> {
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

    /// What it forwards, with a bit of every byte flipped; what it was to open, as it likes.
    fn gateway_alters(&self) -> anyhow::Result<Report> {
        let mut reports = Vec::new();
        for at in 13..self.last().len() {
            let mut frame = self.last().to_vec();
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            reports.push((frame, None));
        }
        if is_for_gateway(self.last()) {
            // What it says that it opened is its word.
            for (ahead, (_, inner)) in (1..).zip(&mut reports) {
                *inner = Some(self.lie(ahead)?);
            }
        }
        if let Ok(Frame::Clear(_)) = Frame::parse(self.last()) {
            reports.push((self.lie(1)?, None));
        }
        let answer = self.report(&reports)?;
        Ok(Report::tried(reports.len(), format!("altered frames; the cloud answered {answer}")))
    }

    fn gateway_replays(&self) -> anyhow::Result<Report> {
        let reports: Vec<_> = self.heard.iter().rev().skip(2).take(REPLAYED).map(|f| (f.clone(), None)).collect();
        let answer = self.report(&reports)?;
        Ok(Report::tried(reports.len(), format!("what passed, in a new batch; the cloud answered {answer}")))
    }

    /// Readings that no node made, in every way the wire has.
    fn gateway_invents(&self) -> anyhow::Result<Report> {
        let clear = self.lie(2)?;
        let mut noise = self.last().to_vec();
        getrandom::fill(noise.get_mut(13..).unwrap_or_default())?;
        let reports = [
            (clear.clone(), None),
            (self.last().to_vec(), Some(clear.clone())),
            (noise.clone(), Some(clear)),
            (noise, None),
        ];
        let answer = self.report(&reports)?;
        Ok(Report::tried(reports.len(), format!("readings of its own; the cloud answered {answer}")))
    }
}

fn is_for_gateway(frame: &[u8]) -> bool {
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
