//! `fivefold node waspmote`: a software Waspmote, to try a gateway out before real nodes are pointed at it.
//!
//! It does what the vendor's library does: its counter starts at 0 at every start and goes on at 0 after 255, nobody
//! acknowledges a frame, and what was not heard is lost. Only the hardened profile has numbers that never come again.

mod keys;
mod road;
mod signing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fivefold_core::id::Did;
use fivefold_core::proof::statement::{BlindKey, SignedLevel};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::ClassicSecret;
use fivefold_waspmote::hardened::{self, Epoch, Lease, Number, Peer};
use fivefold_waspmote::xbee::Address64;
use fivefold_waspmote::{
    Builder, ClassicKey, Encoding, Encrypted, EncryptedType, Frame, Generation, KeyBits, Kind, Sender, Sensors, Serial,
    SerialOrder, Table, Text, Value,
};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use crate::output::Output as Form;
use keys::Renewal;
use road::Road;
use signing::{Signed, Signer};

pub(crate) use keys::{NodeKeys, PeerWord};
pub(crate) use road::post_over;

/// `fivefold node waspmote`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("carrier").required(true).args(["http", "xbee"]))]
pub(super) struct Args {
    /// Its serial: 16 hex digits (v15), or a decimal number (v12).
    #[arg(long)]
    serial: Serial,
    /// Its name, up to 16 characters.
    #[arg(long, value_name = "NAME", default_value = "node_01")]
    node_id: String,
    /// Send by HTTP to this HOST:PORT, as a 4G module does.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Send by the XBee module on this serial line (API mode 2).
    #[arg(long, value_name = "LINE", requires = "to")]
    xbee: Option<PathBuf>,
    /// Address of the gateway's XBee module, 16 hex digits.
    #[arg(long, value_name = "MAC")]
    to: Option<Address64>,
    /// What its sketch does before it sends.
    #[arg(long, value_enum, default_value_t = Seal::None)]
    seal: Seal,
    /// File with its key: as many hex digits as the key has, or the text that stands in the sketch. Hardened: 64 hex digits.
    #[arg(long, value_name = "FILE", required_if_eq_any = [("seal", "gateway"), ("seal", "cloud")])]
    key_file: Option<PathBuf>,
    /// Size of the key in bits: 128, 192 or 256.
    #[arg(long, value_name = "BITS", default_value_t = 256)]
    key_bits: u16,
    /// File for the numbers that are used up, as the EEPROM of a hardened node has them.
    #[arg(long, value_name = "FILE", required_if_eq_any = [("seal", "hardened-gateway"), ("seal", "hardened-cloud")])]
    state: Option<PathBuf>,
    /// Epoch of its hardened key.
    #[arg(long, value_name = "N", default_value_t = 1)]
    epoch: u32,
    /// Draw its hardened keys itself: a file of `fivefold device key-messages --form toml`. Its keys stand beside --state; without
    /// one there, and without --key-file, it asks for its first before it sends anything.
    #[arg(long, value_name = "FILE", requires = "state")]
    key_messages: Option<PathBuf>,
    /// Renew the key after so many frames.
    #[arg(long, value_name = "N", requires = "key_messages", value_parser = clap::value_parser!(u64).range(1..))]
    renew_every: Option<u64>,
    /// Sign what was acknowledged, with the RSA key of this file (`fivefold device certify --make`). What was signed last
    /// stands beside --state.
    #[arg(long, value_name = "FILE", requires = "state")]
    sign: Option<PathBuf>,
    /// Readings in a signed batch.
    #[arg(long, value_name = "N", requires = "sign", default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=64))]
    sign_batch: u8,
    /// Send frames in ASCII.
    #[arg(long)]
    ascii: bool,
    /// Send the frames of this file as they are, one in hex per line, again and again.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seal", "ascii"])]
    recorded: Option<PathBuf>,
    /// Seconds between two frames.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    every: f64,
    /// Stop after so many frames.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// What the sketch does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Seal {
    /// Nothing.
    None,
    /// AES-ECB for the gateway.
    Gateway,
    /// AES-ECB for the cloud.
    Cloud,
    /// The hardened profile, for the gateway.
    HardenedGateway,
    /// The hardened profile, for the cloud.
    HardenedCloud,
}

/// What is said of a frame that was acknowledged.
const DELIVERED: &str = "delivered";

/// Runs it until `--count` frames went out, or for ever.
///
/// # Errors
/// One sentence with what to do next. A frame that could not be sent is none: it is said, and lost.
pub(super) fn run(args: &Args, form: Form) -> anyhow::Result<ExitCode> {
    anyhow::ensure!((0.001..=1e9).contains(&args.every), "--every {} is no number of seconds above 0", args.every);
    let mut node = Node::new(args)?;
    let mut road = road(args)?;
    say(form, &json!({ "event": "started", "serial": args.serial.to_string(), "suite": node.suite() }));
    let mut lost = 0;
    for number in 0..args.count.unwrap_or(u64::MAX) {
        if number > 0 {
            std::thread::sleep(Duration::from_secs_f64(args.every));
        }
        let is_time = args.renew_every.is_some_and(|every| number > 0 && number % every == 0);
        node.sealer.renew(&mut road, is_time, form, Duration::from_secs_f64(args.every))?;
        let (clear, frame, numbered) = node.next()?;
        let reading = json!({ "event": "reading", "number": number, "payload": hex::encode(&clear), "frame": hex::encode(&frame) });
        say(form, &reading);
        match road.send(&frame) {
            Ok(said) => {
                say(form, &json!({ "event": said, "number": number }));
                if let (Some(numbered), true) = (numbered, said == DELIVERED) {
                    lost += node.sealer.sign(&mut road, form, (&numbered, &clear))?;
                }
            }
            Err(why) => {
                lost += 1;
                say(form, &json!({ "event": "lost", "number": number, "why": format!("{why:#}") }));
            }
        }
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(form: Form, line: &Json) {
    match form {
        Form::Json => println!("{line}"),
        Form::Human => {
            let text = |field: &str| line.get(field).and_then(Json::as_str).unwrap_or_default();
            let number = line.get("number").and_then(Json::as_u64).map_or(String::new(), |n| n.to_string());
            println!("{:<9} {number:>4}  {}{}", text("event"), text("frame"), text("why"));
        }
    }
}

/// The sketch.
struct Node {
    serial: Serial,
    node_id: String,
    encoding: Encoding,
    sealer: Sealer,
    sequence: u8,
    /// Tenths of a degree.
    temperature: i64,
    /// Pascal.
    pressure: i64,
}

enum Sealer {
    Clear,
    Ecb(EncryptedType, ClassicKey),
    Hardened(Box<Hardened>),
    Recorded(Vec<Vec<u8>>),
}

/// The sketch of a hardened node.
struct Hardened {
    peer: Peer,
    serial: Serial,
    key: Option<Held>,
    epoch: Epoch,
    lease: Lease,
    state: PathBuf,
    renewal: Option<Renewal>,
    signer: Option<Signer>,
}

/// A key, and what hides the leaves of readings under it.
struct Held {
    key: hardened::Key,
    blind: BlindKey,
}

impl Held {
    fn new(bytes: &[u8; 32], peer: Peer, serial: Serial, epoch: Epoch) -> anyhow::Result<Self> {
        let did = Did(v15(serial)?);
        let blind = BlindKey::classic(bytes, level(peer), did, epoch.0);
        Ok(Self { key: hardened::Key::from_bytes(*bytes), blind })
    }
}

fn v15(serial: Serial) -> anyhow::Result<[u8; 8]> {
    match serial {
        Serial::V15(bytes) => Ok(bytes),
        Serial::V12(_) => bail!("the hardened profile is for v15 hardware: its serial has 16 hex digits"),
    }
}

const fn level(peer: Peer) -> SignedLevel {
    match peer {
        Peer::Cloud => SignedLevel::Cloud,
        Peer::Gateway => SignedLevel::Gateway,
    }
}

impl Node {
    fn new(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            serial: args.serial,
            node_id: args.node_id.clone(),
            encoding: if args.ascii { Encoding::Ascii } else { Encoding::Binary },
            sealer: Sealer::new(args)?,
            sequence: 0,
            pressure: 90_000 + i64::from(u16::from_be_bytes(random()?) / 4),
            temperature: 180 + i64::from(random::<1>()?.first().copied().unwrap_or(0) % 80),
        })
    }

    const fn suite(&self) -> &'static str {
        if matches!(self.sealer, Sealer::Hardened(_)) { "classic-hardened" } else { "classic" }
    }

    /// The next frame in clear, and as it goes out.
    fn next(&mut self) -> anyhow::Result<(Vec<u8>, Vec<u8>, Option<Number>)> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        if let Sealer::Recorded(frames) = &self.sealer {
            let frame = frames.get(usize::from(sequence) % frames.len().max(1)).cloned().unwrap_or_default();
            return Ok((frame.clone(), frame, None));
        }
        let [step] = random::<1>()?;
        self.temperature += i64::from(step % 7) - 3;
        self.pressure += i64::from(step / 7 % 9) - 4;
        let clear = self.clear(sequence)?;
        let (sealed, number) = self.sealer.seal(&clear)?;
        Ok((clear, sealed, number))
    }

    fn clear(&self, sequence: u8) -> anyhow::Result<Vec<u8>> {
        let (table, tag) = match self.serial.generation() {
            Generation::V12 => (Table::V12, "TCA"),
            Generation::V15 => (Table::Default, "TC"),
        };
        let sensors = Sensors::of(table);
        let id = |tag: &str| sensors.with_tag(tag.as_bytes()).next().map(|s| s.id).context("the table lacks a sensor");
        let (thermometer, battery) = (id(tag)?, id("BAT")?);
        let sender = Sender {
            serial: self.serial,
            order: SerialOrder::BigEndian,
            node_id: Text::new(self.node_id.as_bytes()),
            sequence,
        };
        let mut frame = Builder::new(&sensors, self.encoding, &sender);
        let single = f64::from(self.temperature as f32 / 10.0);
        frame.add(thermometer, &[Value::Float(single)]).context("the temperature")?;
        frame.add(battery, &[Value::Integer(91)]).context("the battery")?;
        if let Some(barometer) = sensors.with_tag(b"PRES").next().filter(|s| s.kind == Kind::Float) {
            frame.add(barometer.id, &[Value::Float(f64::from(self.pressure as f32))]).context("the pressure")?;
        }
        Ok(frame.finish())
    }
}

impl Sealer {
    fn new(args: &Args) -> anyhow::Result<Self> {
        if let Some(path) = &args.recorded {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let frames = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(hex::decode);
            let frames: Vec<Vec<u8>> =
                frames.collect::<Result<_, _>>().with_context(|| format!("{} is not lines of hex", path.display()))?;
            anyhow::ensure!(!frames.is_empty(), "{} has no frame: write one in hex per line", path.display());
            return Ok(Self::Recorded(frames));
        }
        let generation = args.serial.generation();
        let bits = KeyBits::from_bits(args.key_bits)
            .with_context(|| format!("--key-bits {} is no size of AES: write 128, 192 or 256", args.key_bits))?;
        Ok(match (args.seal, generation) {
            (Seal::None, _) => Self::Clear,
            (Seal::Gateway, Generation::V15) => Self::Ecb(EncryptedType::Gateway, classic_key(args, bits)?),
            (Seal::Gateway, Generation::V12) => {
                let kind = match bits {
                    KeyBits::Aes128 => EncryptedType::Gateway128,
                    KeyBits::Aes192 => EncryptedType::Gateway192,
                    KeyBits::Aes256 => EncryptedType::Gateway256,
                };
                Self::Ecb(kind, classic_key(args, bits)?)
            }
            (Seal::Cloud, Generation::V15) => Self::Ecb(EncryptedType::Cloud, classic_key(args, bits)?),
            (Seal::Cloud, Generation::V12) => Self::Ecb(EncryptedType::CloudV12, classic_key(args, bits)?),
            (Seal::HardenedGateway | Seal::HardenedCloud, Generation::V12) => {
                bail!("the hardened profile is for v15 hardware: its serial has 16 hex digits")
            }
            (Seal::HardenedGateway, _) => Self::hardened(args, Peer::Gateway)?,
            (Seal::HardenedCloud, _) => Self::hardened(args, Peer::Cloud)?,
        })
    }

    fn hardened(args: &Args, peer: Peer) -> anyhow::Result<Self> {
        let state = args.state.clone().unwrap_or_default();
        let sign = |file: &PathBuf| Signer::open(file, &state, level(peer), v15(args.serial)?, args.sign_batch);
        let signer = args.sign.as_ref().map(sign).transpose()?;
        let renewal =
            args.key_messages.as_deref().map(|path| Renewal::open(path, &state, args.serial, peer)).transpose()?;
        let kept = match &renewal {
            Some(renewal) => renewal.kept()?,
            None => None,
        };
        let (epoch, key) = match kept {
            Some((epoch, key)) => (epoch, Some(key)),
            None if args.key_file.is_none() && renewal.is_some() => (Epoch(0), None),
            None => {
                let text = key_text(args)?;
                let mut bytes = Zeroizing::new([0; 32]);
                hex::decode_to_slice(text.as_slice(), bytes.as_mut_slice())
                    .context("a hardened key is 64 hex digits")?;
                (Epoch(args.epoch), Some(bytes))
            }
        };
        let key = key.map(|bytes| Held::new(&bytes, peer, args.serial, epoch)).transpose()?;
        let stored = match std::fs::read_to_string(&state) {
            Ok(end) => end.trim().parse().with_context(|| format!("{} is no number", state.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", state.display())),
        };
        let lease = Lease::boot(stored);
        Ok(Self::Hardened(Box::new(Hardened { peer, serial: args.serial, key, epoch, lease, state, renewal, signer })))
    }

    /// Sees to it that a hardened node has a key: where it has none, where it is time for the next, and where a message of it
    /// waits for its answer. Only without any key is it tried until it works.
    fn renew(&mut self, road: &mut Road, is_time: bool, form: Form, pause: Duration) -> anyhow::Result<()> {
        let Self::Hardened(node) = self else { return Ok(()) };
        let Some(renewal) = &mut node.renewal else { return Ok(()) };
        if node.key.is_some() && !is_time && !renewal.waits(node.epoch)? {
            return Ok(());
        }
        loop {
            let (frames, offer, epoch) = renewal.offer(node.epoch, road.room())?;
            say(form, &json!({ "event": "key-message", "epoch": epoch.0, "parts": frames.len() }));
            let why = match road.ask(&frames) {
                Ok(Some(frame)) => match renewal.take((offer, epoch), &frame)? {
                    Ok(key) => {
                        (node.key, node.epoch) = (Some(Held::new(&key, node.peer, node.serial, epoch)?), epoch);
                        say(form, &json!({ "event": "renewed", "epoch": epoch.0 }));
                        return Ok(());
                    }
                    Err(_) => "an answer that is not to this message (E5-08)".to_owned(),
                },
                Ok(None) => "no answer".to_owned(),
                Err(why) => format!("{why:#}"),
            };
            say(form, &json!({ "event": "unanswered", "epoch": epoch.0, "why": why }));
            if node.key.is_some() {
                return Ok(());
            }
            std::thread::sleep(pause.max(Duration::from_millis(200)));
        }
    }

    /// Takes note of a frame that was acknowledged, and sends what is signed with it. Says how many parts were lost.
    fn sign(&mut self, road: &mut Road, form: Form, (number, clear): (&Number, &[u8])) -> anyhow::Result<u64> {
        let Self::Hardened(node) = self else { return Ok(0) };
        let (Some(signer), Some(held)) = (&mut node.signer, &node.key) else { return Ok(0) };
        let mut lost = 0;
        for Signed { batch, readings, parts } in signer.take(&held.blind, number, clear, road.room())? {
            let mut bytes = 0;
            for part in &parts {
                let (frame, _) = self.seal(part)?;
                bytes += frame.len();
                // Once more, under the same number, if nobody says that it came.
                if let Err(why) = road.send(&frame).or_else(|_| road.send(&frame)) {
                    lost += 1;
                    say(form, &json!({ "event": "lost", "batch": batch, "why": format!("{why:#}") }));
                }
            }
            let said = json!({ "event": "signed", "batch": batch, "readings": readings, "parts": parts.len(), "bytes": bytes });
            say(form, &said);
        }
        Ok(lost)
    }

    fn seal(&mut self, clear: &[u8]) -> anyhow::Result<(Vec<u8>, Option<Number>)> {
        match self {
            Self::Clear | Self::Recorded(_) => Ok((clear.to_vec(), None)),
            Self::Ecb(kind, key) => {
                let Frame::Clear(inner) = Frame::parse(clear)? else { bail!("no frame in clear") };
                Ok((Encrypted::seal(*kind, &inner, key)?, None))
            }
            Self::Hardened(node) => {
                let Hardened { peer, key, epoch, lease, state, .. } = &mut **node;
                let key = &key.as_ref().context("no key")?.key;
                if let Some(end) = lease.due() {
                    files::write(state, Readers::Owner, end.to_string().as_bytes())?;
                    lease.extend(end);
                }
                let sequence =
                    lease.take().map_err(|_| anyhow::anyhow!("all numbers of this key are used: renew it"))?;
                let number = Number { epoch: *epoch, sequence, seed: random()? };
                let mut out = vec![0; clear.len() + hardened::OVERHEAD];
                hardened::seal(*peer, key, &number, clear, &mut out)?;
                Ok((out, Some(number)))
            }
        }
    }
}

fn key_text(args: &Args) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let path: &Path = args.key_file.as_deref().context("--key-file is missing")?;
    let mut text = Zeroizing::new(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    Ok(text)
}

fn classic_key(args: &Args, bits: KeyBits) -> anyhow::Result<ClassicKey> {
    Ok(ClassicSecret::read(&key_text(args)?, bits)?.key()?)
}

/// The way to the gateway.
fn road(args: &Args) -> anyhow::Result<Road> {
    match (&args.http, &args.xbee, args.to) {
        (Some(host), ..) => Ok(Road::Http(host.clone())),
        (None, Some(path), Some(to)) => Road::by_radio(path, to),
        _ => bail!("give --http HOST:PORT, or --xbee LINE with --to MAC"),
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(bytes)
}
