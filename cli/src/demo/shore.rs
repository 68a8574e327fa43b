//! The fifth network of the demo: classic nodes (Waspmote, Plug & Sense!), as their owners have them, through one gateway.
//!
//! One node speaks in clear, one encrypts for the gateway, one for the cloud, one has the hardened profile and gets
//! its key by a message of its own; a fifth is the insider's own. Two more send one
//! frame each that the vendor's code made. All these send by HTTP, through a wire that the recorder hears; two send by
//! emulated XBee modules on serial lines.

pub mod siege;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::id::Net;
use fivefold_core::profile::Profile;
use fivefold_core::wire::key_message::{KeyLevel, RsaSize};
use fivefold_gateway::xbee::kind::Kind;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{ClassicKeys, ClassicProfile, ClassicSecret, NewClassic};
use fivefold_keep::share::{self, GATEWAY_FILE, GatewayHttp, GatewayMetrics, GatewaySettings, GatewayXbee};
use fivefold_waspmote::{KeyBits, Serial};
use serde_json::Value;

use super::processes::{Obedient, Process, free_tcp, free_udp};
use super::village::{Gateway, strings, text};
use crate::attack::plan::Station;
use crate::gateway;
use crate::node::waspmote::{NodeKeys, PeerWord};
use crate::operator::Operator;
use crate::xbee_air::{Place, XbeeAir};

/// Its name.
pub const NAME: &str = "shore";
/// The wire between nodes and gateway; the one between gateway and cloud is the next.
pub const ROAD: usize = 0;
/// The second one.
pub const UPLINK: usize = 1;

/// Frames that the vendor's code made (vectors/waspmote/http.json), with the key that opens the second.
const RECORDED: [(&str, &str, Option<&str>); 2] = [
    ("ff316df953435031", "3c3d3e0213ff316df95343503123d71fd9012e0125ff2001", None),
    (
        "21f5476add6138f6",
        "3c3d3e604821f5476add6138f6370997916713d0007773e9d6bea38a7839192c11a8c176e2b8d5434f34822e0ad1edf7417b8b6d97d2eb80e50\
         329d84ffdfd48cde5d1314afdeb07fdfa85279d",
        Some("4BM03Fz8FS6u1xfmxj8hvSlNZXsqGfLw"),
    ),
];

/// Address of the gateway's XBee module.
const GATEWAY_MAC: &str = "0013a200400a0001";
/// Nodes with a module: its address, their serial, and what their sketch does.
const RADIOS: [(&str, &str, Sketch); 2] = [
    ("0013a200400a0010", "7a00000000000010", Sketch::Clear),
    ("0013a200400a0011", "7a00000000000011", Sketch::ToCloud),
];

/// What a node's sketch does with its frames; a column of the table of docs/threats.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sketch {
    /// Sends them in clear.
    Clear,
    /// Encrypts them for the gateway.
    ToGateway,
    /// Encrypts them for the cloud.
    ToCloud,
    /// Seals them for the gateway, by the hardened profile.
    Hardened,
}

impl Sketch {
    /// All that are attacked.
    pub const ALL: [Self; 4] = [Self::Clear, Self::ToGateway, Self::ToCloud, Self::Hardened];

    /// As it heads a column.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Clear => "in clear",
            Self::ToGateway => "AES to gateway",
            Self::ToCloud => "AES to cloud",
            Self::Hardened => "hardened",
        }
    }

    /// By what a node is told of it: the value of `--seal`.
    pub fn of(seal: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sketch| sketch.seal() == seal)
    }

    const fn seal(self) -> &'static str {
        match self {
            Self::Clear => "none",
            Self::ToGateway => "gateway",
            Self::ToCloud => "cloud",
            Self::Hardened => "hardened-gateway",
        }
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// What its sketch does.
    pub sketch: Sketch,
    /// Its serial.
    pub serial: Serial,
    /// Its key, if it has one; the last word of the file.
    pub key_file: Option<PathBuf>,
    /// The software node.
    pub process: Process,
}

/// What a node said of itself.
#[derive(Debug, Default)]
pub struct Said {
    /// Frames in clear, in hex, and how often it made each: its counter starts again when it does.
    pub made: HashMap<String, usize>,
    /// Those that the gateway acknowledged.
    pub delivered: Vec<String>,
}

impl Node {
    /// Everything it said so far.
    pub fn said(&self) -> Said {
        let mut said = Said::default();
        let mut last = String::new();
        for line in self.process.said(0).0 {
            let word = |field| line.get(field).and_then(Value::as_str).unwrap_or_default();
            match word("event") {
                "reading" => {
                    last = word("payload").to_owned();
                    *said.made.entry(last.clone()).or_default() += 1;
                }
                "delivered" => said.delivered.push(last.clone()),
                _ => {}
            }
        }
        said
    }
}

/// The network, running.
#[derive(Debug)]
pub struct Shore {
    /// Its id.
    pub net: Net,
    /// Its gateway.
    pub gateway: Gateway,
    /// Where the gateway takes frames.
    pub http: SocketAddr,
    /// The wires: between nodes and gateway, and between gateway and cloud.
    pub wires: Obedient,
    /// Where the cloud listens for gateways.
    pub ingest: SocketAddr,
    /// Nodes that are attacked, in the order of [`Sketch::ALL`].
    pub nodes: Vec<Node>,
    /// The node that the insider owns: it encrypts for the gateway.
    pub own: Node,
    /// Nodes that send what was recorded, once, when they are told to: no node sends a frame again that nobody heard.
    pub recorded: Vec<Node>,
    /// Nodes with an XBee module.
    pub by_radio: Vec<Node>,
    /// What was heard on the wire between nodes and gateway.
    pub recording: PathBuf,
    /// The modules, and the air between them, if it is ours.
    pub air: Option<XbeeAir>,
}

impl Shore {
    /// Builds and starts it.
    ///
    /// # Errors
    /// A part cannot be made or started.
    pub fn settle(operator: &mut Operator, logs: &Path, ingest: SocketAddr, every: f64) -> anyhow::Result<Self> {
        let folder = logs.join(NAME);
        std::fs::create_dir_all(&folder)?;
        let [http, road, uplink, metrics] = free_tcp(4)?[..] else { anyhow::bail!("no free ports") };
        let mut arguments = strings(&["attack", "backhaul", "--record", &text(&folder)]);
        for wire in [format!("{road}={http}"), format!("{uplink}={ingest}")] {
            arguments.extend(["--forward".into(), wire]);
        }
        let wires = Obedient::start(&arguments)?;

        let network = operator.registry.add_network(&operator.vault, NAME, Profile::ToCloud, None)?;
        operator.registry.allow_classic(NAME)?;
        let radio = *free_udp(1)?.first().context("no free port")?;
        let made = gateway::create(
            operator,
            &gateway::New {
                net: NAME.into(),
                name: NAME.into(),
                radio,
                air: Vec::new(),
                coap: None,
                cloud: Some(format!("https://localhost:{}", uplink.port())),
                did: None,
                sid: None,
                secondary: false,
            },
        )?;
        let dir = operator.gateway_folder(&made.name);
        let path = dir.join(GATEWAY_FILE);
        let mut settings: GatewaySettings = share::read_config(&path)?;
        settings.metrics = Some(GatewayMetrics { bind: metrics });
        // All come through one wire here, attackers too: limits for honest fleets would starve the nodes.
        settings.limits.messages_a_minute = 600;
        settings.insecure_http = Some(GatewayHttp {
            connections: 256,
            connections_per_address: 256,
            requests_a_minute: 60_000,
            request_seconds: 30,
            bind: http,
        });
        let line = |mac: &str| folder.join(format!("line-{mac}"));
        let places = RADIOS
            .iter()
            .map(|(mac, ..)| *mac)
            .chain([GATEWAY_MAC])
            .map(|mac| Ok(Place { mac: mac.parse()?, kind: Kind::Digimesh, link: line(mac) }));
        let air = XbeeAir::start(places.collect::<anyhow::Result<_>>()?, Vec::new())?;
        settings.xbee = Some(GatewayXbee {
            port: line(GATEWAY_MAC),
            baud: 115_200,
            kind: Kind::Digimesh.to_string(),
            link_key_file: None,
            answer_time: true,
        });
        share::write_config(&path, gateway::GATEWAY_HEADING, &settings)?;
        let station = Station {
            name: format!("gateway {NAME}"),
            addr: radio,
            sid: made.sid.to_string(),
            eui64: made.did.to_string(),
        };
        let run = strings(&["-o", "json", "gateway", "run", "--dir", &text(&dir)]);
        let process = Process::start(logs, &station.name, run)?;
        let id = made.gateway.to_string();
        let gateway = Gateway { name: made.name, id, station, folder: dir, wire: UPLINK, metrics, process };

        let mut enrol = |sketch, serial: &str, key: Option<&str>| {
            enrol(operator, &folder, network.net, sketch, serial.parse()?, key)
        };
        let prepare = |(sketch, serial, key_file): (Sketch, Serial, Option<PathBuf>), more: &[String]| {
            let (to, every) = (road.to_string(), every.to_string());
            let serial_text = serial.to_string();
            let fixed = ["-o", "json", "node", "waspmote", "--every", &every, "--serial", &serial_text];
            let radio = RADIOS.iter().find(|(_, s, _)| *s == serial_text).map(|(mac, ..)| text(&line(mac)));
            let way = match &radio {
                Some(line) => ["--xbee", line, "--to", GATEWAY_MAC].to_vec(),
                None => ["--http", &to].to_vec(),
            };
            let fixed = [&fixed[..], &way].concat();
            // With a name of one letter, the first block of ciphertext ends with the sequence (W7).
            let mut arguments = strings(&[&fixed[..], &["--node-id", "7"]].concat());
            arguments.extend_from_slice(more);
            let mut key_file = key_file;
            match key_file.as_mut().filter(|_| more.is_empty()) {
                Some(path) if sketch == Sketch::Hardened => {
                    // It draws its key itself, and keeps it beside its numbers.
                    let eeprom = text(&path.with_extension("eeprom"));
                    let keys =
                        ["--seal", sketch.seal(), "--key-messages", &text(path), "--state", &eeprom].map(str::to_owned);
                    arguments.extend(keys);
                    *path = format!("{eeprom}.key").into();
                }
                Some(path) => arguments.extend(strings(&["--seal", sketch.seal(), "--key-file", &text(path)])),
                None => {}
            }
            let process = Process::prepare(logs, &format!("node {NAME} {serial}"), arguments);
            Node { sketch, serial, key_file, process }
        };
        let mut nodes = Vec::new();
        for (at, sketch) in Sketch::ALL.into_iter().enumerate() {
            let has_text = matches!(sketch, Sketch::ToCloud | Sketch::ToGateway);
            let key = has_text.then(random_text).transpose()?;
            let enrolled = enrol(sketch, &format!("7a0000000000000{at}"), key.as_deref())?;
            nodes.push(prepare(enrolled, &[]));
        }
        let own = enrol(Sketch::ToGateway, "7a000000000000ff", Some(&random_text()?))?;
        let own = prepare(own, &[]);
        let mut recorded = Vec::new();
        for (serial, frame, key) in RECORDED {
            let file = folder.join(format!("{serial}.frames"));
            std::fs::write(&file, frame)?;
            let sketch = if key.is_some() { Sketch::ToGateway } else { Sketch::Clear };
            let enrolled = enrol(sketch, serial, key)?;
            recorded.push(prepare(enrolled, &strings(&["--recorded", &text(&file), "--count", "1"])));
        }
        let mut by_radio = Vec::new();
        for (_, serial, sketch) in RADIOS {
            let key = (sketch != Sketch::Clear).then(random_text).transpose()?;
            by_radio.push(prepare(enrol(sketch, serial, key.as_deref())?, &[]));
        }
        let mut own = own;
        for node in nodes.iter_mut().chain([&mut own]).chain(&mut by_radio) {
            node.process.resume()?;
        }
        let recording = crate::attack::backhaul::recording(&folder, ROAD);
        let (net, air) = (network.net, Some(air));
        Ok(Self { net, gateway, http, wires, ingest, nodes, own, recorded, by_radio, recording, air })
    }

    /// All nodes.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain([&self.own]).chain(&self.recorded).chain(&self.by_radio)
    }

    /// Lets everything run on but the nodes with a module, and says under which process ids. Gateway and nodes start again, on
    /// their way to each other and the cloud: the wires end with the demo, and so do the modules. For a range they stay on the
    /// way that leads through a machine in the middle.
    ///
    /// # Errors
    /// The gateway's config cannot be written, or a process cannot be started.
    pub fn leave_running(&mut self, ingest: SocketAddr, for_range: bool) -> anyhow::Result<Vec<u32>> {
        self.gateway.process.stop();
        let path = self.gateway.folder.join(GATEWAY_FILE);
        let mut settings: GatewaySettings = share::read_config(&path)?;
        if let Some(uplink) = settings.uplink.as_mut().filter(|_| !for_range) {
            uplink.cloud = format!("https://localhost:{}", ingest.port());
        }
        settings.xbee = None;
        share::write_config(&path, gateway::GATEWAY_HEADING, &settings)?;
        self.gateway.process.resume()?;
        let nodes = self.nodes.iter_mut().chain([&mut self.own]).map(|node| {
            if !for_range {
                node.process.stop();
                node.process.resume_with("--http", &self.http.to_string())?;
            }
            anyhow::Ok(node.process.leave_running())
        });
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(nodes.into_iter().chain([self.gateway.process.leave_running()]).flatten().collect())
    }

    /// Ends every process.
    pub fn end(&mut self) {
        let nodes = self.nodes.iter_mut().chain([&mut self.own]).chain(&mut self.by_radio).chain(&mut self.recorded);
        nodes.map(|n| &mut n.process).chain([&mut self.gateway.process]).for_each(Process::stop);
    }

    /// Every process that should be running and is not, with its last words.
    pub fn casualties(&mut self) -> Vec<String> {
        let nodes = self.nodes.iter_mut().chain([&mut self.own]).chain(&mut self.by_radio).map(|n| &mut n.process);
        nodes.chain([&mut self.gateway.process]).filter_map(Process::has_died).collect()
    }
}

/// Writes the node's key, and enters it.
fn enrol(
    operator: &mut Operator,
    folder: &Path,
    net: Net,
    sketch: Sketch,
    serial: Serial,
    key: Option<&str>,
) -> anyhow::Result<(Sketch, Serial, Option<PathBuf>)> {
    let key_file = key.map(|key| {
        let path = folder.join(format!("{serial}.key"));
        files::write(&path, Readers::Owner, key.as_bytes()).map(|()| path)
    });
    let key_file = key_file.transpose()?;
    let secret = key.map(|key| ClassicSecret::read(key.as_bytes(), KeyBits::Aes256)).transpose()?;
    let (gateway, cloud) = match sketch {
        Sketch::ToCloud => (None, secret),
        Sketch::Clear | Sketch::Hardened | Sketch::ToGateway => (secret, None),
    };
    let new = NewClassic {
        keys: ClassicKeys { gateway, cloud },
        profile: ClassicProfile::Classic,
        ..NewClassic::plain(serial, net)
    };
    let now = crate::clock::now()?;
    operator.registry.add_classic(&operator.vault, &new, now)?;
    if sketch != Sketch::Hardened {
        return Ok((sketch, serial, key_file));
    }
    let wanted = (KeyLevel::E2, RsaSize::Rsa2048);
    let (_, enrolment) = operator.registry.enrol_for_messages(&operator.vault, serial, wanted, now)?;
    let path = folder.join(format!("{serial}.toml"));
    let keys = NodeKeys::of(serial, PeerWord::Gateway, &enrolment).to_text()?;
    files::write(&path, Readers::Owner, keys.as_bytes())?;
    Ok((sketch, serial, Some(path)))
}

/// A key as a careful owner writes it into a sketch: 32 letters and digits.
fn random_text() -> anyhow::Result<String> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(bytes.iter().filter_map(|b| LETTERS.get(usize::from(b % 64))).map(|b| char::from(*b)).collect())
}
