//! Emulated XBee modules on pseudo-terminals, and the air between them: for tests and demonstrations.
//!
//! Each module has a line of its own in API mode 2, an address, and settings; what a host gives it goes to the modules of
//! the same kind in reach, and what became of it comes back as a status. [`XbeeAir`] does it in a thread, `fivefold xbee-air`
//! as a process that takes orders on its standard input.

mod module;

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use fivefold_core::id::Did;
use fivefold_gateway::xbee::kind::{Addressing, Encryption, Kind};
use fivefold_waspmote::xbee::{Address16, Address64, Packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use module::Module;
pub use module::Place;

/// How often orders are looked for, in nanoseconds.
const LOOK_UP: i64 = 10_000_000;
/// Strength of every signal, in dBm.
const STRENGTH: i16 = -40;
/// Delivery statuses of 0x8B: no acknowledgement, and too long.
const NOT_ACKNOWLEDGED: u8 = 0x21;
const TOO_LONG: u8 = 0x74;
/// The same of 0x89, which knows fewer.
const NO_ACK: u8 = 1;
const PURGED: u8 = 3;
/// Receive options: it was for one (0x90), for all (0x80, 0x90).
const ACKNOWLEDGED: u8 = 0x01;
const TO_ALL: u8 = 0x02;

/// Something that the air is told.
enum Order {
    Plug(Did),
    Say(Did, Vec<u8>),
    Stop,
    Unplug(Did),
}

/// Modules that run until this is dropped.
#[derive(Debug)]
pub struct XbeeAir {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl XbeeAir {
    /// Starts the modules; those of a pair in `apart` do not hear each other.
    ///
    /// # Errors
    /// The system has no pseudo-terminal, or a link cannot be made.
    pub fn start(places: Vec<Place>, apart: Vec<(Did, Did)>) -> io::Result<Self> {
        let modules = places.into_iter().map(Module::new).collect::<io::Result<Vec<_>>>()?;
        let (orders, given) = channel();
        let air = Air { modules, apart };
        let thread = std::thread::Builder::new().name("xbee air".into()).spawn(move || air.run(&given))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// The host of a module hears these bytes as they are.
    pub fn say(&self, mac: Did, bytes: &[u8]) {
        let _ = self.orders.send(Order::Say(mac, bytes.to_vec()));
    }

    /// The line of a module goes away.
    pub fn unplug(&self, mac: Did) {
        let _ = self.orders.send(Order::Unplug(mac));
    }

    /// The line of a module comes back.
    pub fn plug(&self, mac: Did) {
        let _ = self.orders.send(Order::Plug(mac));
    }
}

impl Drop for XbeeAir {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The air, and who is in it.
struct Air {
    modules: Vec<Module>,
    apart: Vec<(Did, Did)>,
}

/// What a host wants to be sent.
struct Payload<'b> {
    id: u8,
    to: To,
    bytes: &'b [u8],
    /// Endpoints, cluster and profile, where it came with them.
    explicit: Option<([u8; 2], u16, u16)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    All,
    Long(Did),
    Short([u8; 2]),
}

impl Air {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Stop => return,
                    Order::Say(mac, bytes) => self.with(mac, |module| module.say_raw(&bytes)),
                    Order::Unplug(mac) => self.with(mac, Module::unplug),
                    Order::Plug(mac) => self.with(mac, |module| {
                        if let Err(why) = module.plug() {
                            tracing::error!("no line for module {mac}: {why}");
                        }
                    }),
                }
            }
            let mut lines: Vec<_> =
                self.modules.iter().filter_map(Module::master).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let look_up = Timespec { tv_sec: 0, tv_nsec: LOOK_UP };
            if poll(&mut lines, Some(&look_up)).unwrap_or(0) == 0 {
                continue;
            }
            for at in 0..self.modules.len() {
                let packets = self.modules.get_mut(at).map(Module::hear).unwrap_or_default();
                for packet in packets {
                    if let Ok(packet) = Packet::parse(&packet) {
                        self.take(at, &packet);
                    }
                }
            }
        }
    }

    fn with(&mut self, mac: Did, act: impl FnOnce(&mut Module)) {
        if let Some(module) = self.modules.iter_mut().find(|m| m.place.mac == mac) {
            act(module);
        }
    }

    /// What the host of module `at` said.
    fn take(&mut self, at: usize, packet: &Packet<'_>) {
        let to = |destination: Address64| match destination {
            Address64::BROADCAST => To::All,
            Address64(mac) => To::Long(Did(mac)),
        };
        let payload = match *packet {
            Packet::AtCommand { id, at: setting, value } | Packet::AtQueued { id, at: setting, value } => {
                if let Some(module) = self.modules.get_mut(at) {
                    module.command(id, setting, value);
                }
                return;
            }
            Packet::Transmit64 { id, destination, payload, .. } | Packet::Transmit { id, destination, payload, .. } => {
                Payload { id, to: to(destination), bytes: payload, explicit: None }
            }
            Packet::Transmit16 { id, destination: Address16(short), payload, .. } => {
                let to = if short == [0xFF, 0xFF] { To::All } else { To::Short(short) };
                Payload { id, to, bytes: payload, explicit: None }
            }
            Packet::Explicit { id, destination, endpoints, cluster, profile, payload, .. } => {
                let explicit = Some((endpoints, cluster, profile));
                Payload { id, to: to(destination), bytes: payload, explicit }
            }
            _ => return,
        };
        let Some(sender) = self.modules.get(at) else { return };
        let heard = self.deliver(sender, &payload);
        if payload.id == 0 {
            return;
        }
        let kind = sender.place.kind;
        sender.say(&match (kind, heard) {
            (Kind::Ieee802154, heard) => {
                let status = match heard {
                    Delivery::Done => 0,
                    Delivery::Unheard => NO_ACK,
                    Delivery::TooLong => PURGED,
                };
                Packet::TransmitStatusLegacy { id: payload.id, status }
            }
            (_, heard) => {
                let delivery = match heard {
                    Delivery::Done => 0,
                    Delivery::Unheard => NOT_ACKNOWLEDGED,
                    Delivery::TooLong => TOO_LONG,
                };
                let (network, discovery) = (Address16::UNKNOWN, 0);
                Packet::TransmitStatus { id: payload.id, network, retries: 0, delivery, discovery }
            }
        });
    }

    fn deliver(&self, sender: &Module, payload: &Payload<'_>) -> Delivery {
        let encryption = if sender.encryption().is_some() { Encryption::On } else { Encryption::Off };
        let addressing = match payload.to {
            To::All => Addressing::Broadcast,
            To::Long(_) => Addressing::Long,
            To::Short(_) => Addressing::Short,
        };
        if payload.bytes.len() > sender.place.kind.longest(addressing, encryption) {
            return Delivery::TooLong;
        }
        let mut heard = payload.to == To::All;
        for module in self.modules.iter().filter(|m| self.reaches(sender, m)) {
            let is_for = match payload.to {
                To::All => true,
                To::Long(mac) => module.place.mac == mac,
                To::Short(short) => module.short() == Some(short),
            };
            if !is_for {
                continue;
            }
            heard = true;
            // With another key it is garbage, and nothing tells the host (W10).
            if sender.encryption() == module.encryption() {
                say(module, sender, payload, payload.bytes);
            } else {
                let garbage: Vec<u8> = payload.bytes.iter().map(|byte| byte ^ 0xA5).collect();
                say(module, sender, payload, &garbage);
            }
        }
        if heard { Delivery::Done } else { Delivery::Unheard }
    }

    /// One that encrypts and one that does not hear nothing of each other.
    fn reaches(&self, sender: &Module, module: &Module) -> bool {
        let (a, b) = (sender.place.mac, module.place.mac);
        let apart = self.apart.iter().any(|&pair| pair == (a, b) || pair == (b, a));
        a != b
            && !apart
            && sender.place.kind == module.place.kind
            && sender.encryption().is_some() == module.encryption().is_some()
    }
}

/// What became of a payload.
#[derive(Clone, Copy)]
enum Delivery {
    Done,
    TooLong,
    Unheard,
}

/// The host of `module` hears what the host of `sender` said.
fn say(module: &Module, sender: &Module, payload: &Payload<'_>, bytes: &[u8]) {
    let to_all = payload.to == To::All;
    let source = Address64(sender.place.mac.0);
    let (network, options) = (Address16::UNKNOWN, if to_all { TO_ALL } else { ACKNOWLEDGED });
    module.say(&match (sender.place.kind, sender.short(), payload.explicit) {
        (Kind::Ieee802154, short, _) => {
            let options = if to_all { TO_ALL } else { 0 };
            match short {
                Some(short) => Packet::Receive16 { source: Address16(short), rssi: STRENGTH, options, payload: bytes },
                None => Packet::Receive64 { source, rssi: STRENGTH, options, payload: bytes },
            }
        }
        (_, _, Some((endpoints, cluster, profile))) => {
            Packet::ExplicitReceive { source, network, endpoints, cluster, profile, options, payload: bytes }
        }
        _ => Packet::Receive { source, network, options, payload: bytes },
    });
}

/// Arguments of `fivefold xbee-air`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A module: MAC=LINK or MAC=LINK,KIND. LINK becomes a link to its line.
    #[arg(long = "module", required = true, value_name = "MAC=LINK")]
    modules: Vec<Place>,
    /// Two modules that do not hear each other.
    #[arg(long, value_name = "MAC,MAC")]
    apart: Vec<Pair>,
}

#[derive(Clone, Copy, Debug)]
struct Pair(Did, Did);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (a, b) = text.split_once(',').ok_or("expected MAC,MAC")?;
        let mac = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
        Ok(Self(mac(a)?, mac(b)?))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mac, rest) = text.split_once('=').ok_or("expected MAC=LINK or MAC=LINK,KIND")?;
        let mac = mac.parse().map_err(|e| format!("{mac}: {e}"))?;
        let kind = rest.rsplit_once(',').and_then(|(link, word)| Some((link, Kind::from_word(word)?)));
        let (link, kind) = kind.unwrap_or((rest, Kind::Ieee802154));
        Ok(Self { mac, kind, link: PathBuf::from(link) })
    }
}

/// Runs the modules until it is killed. Orders on standard input, one a line, each answered by one of JSON: `say MAC HEX`,
/// `unplug MAC`, `plug MAC`.
///
/// # Errors
/// The system has no pseudo-terminal, or a link cannot be made.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let apart = args.apart.iter().map(|&Pair(a, b)| (a, b)).collect();
    let air = XbeeAir::start(args.modules.clone(), apart).context("no line for an emulated module")?;
    let answer = |value: serde_json::Value| {
        let mut out = io::stdout().lock();
        writeln!(out, "{value}").and_then(|()| out.flush())
    };
    let modules = args.modules.iter().map(|m| json!({"mac": m.mac.to_string(), "line": m.link}));
    answer(json!({"event": "ready", "modules": modules.collect::<Vec<_>>()}))?;
    for line in io::stdin().lock().lines() {
        match obey(&air, &line?) {
            Ok(()) => answer(json!({"done": true}))?,
            Err(why) => answer(json!({"done": false, "error": why.to_string()}))?,
        }
    }
    // Nobody gives orders: it runs on.
    loop {
        std::thread::park();
    }
}

fn obey(air: &XbeeAir, order: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = order.split_whitespace().collect();
    match *words.as_slice() {
        ["say", mac, bytes] => air.say(mac.parse()?, &hex::decode(bytes)?),
        ["unplug", mac] => air.unplug(mac.parse()?),
        ["plug", mac] => air.plug(mac.parse()?),
        _ => bail!("say MAC HEX, unplug MAC, or plug MAC"),
    }
    Ok(())
}
