//! The village of the demo: one operator's folder, one cloud, five gateways, four networks, and their nodes, each an OS
//! process of its own on loopback. The classic nodes are in [`super::shore`].
//!
//! ```text
//!   gateway ── 1st ── 2nd ── 3rd          three radio hops; the ear of the recorder hears all of them
//!      ├────── 4th
//!      └────── 5th (hears the 1st, too): the node that turns
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::profile::{Mode, Profile, Radio};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Scope;
use fivefold_keep::share::{self, GATEWAY_FILE, GatewayMetrics, GatewaySettings};
use fivefold_keep::vault::PASSPHRASE_FILE;
use serde_json::Value;

use super::evidence::{self, Witnesses};
use super::graded::{self, BEST, WRONG};
use super::processes::{CREDENTIALS, Obedient, Process, free_tcp, free_udp};
use crate::attack::plan::Station;
use crate::operator::{Folder, Operator};
use crate::{device, gateway, init};

/// Nodes in a network; the last one is the insider.
pub const NODES: usize = 5;
/// Which node of a network is the insider.
pub const INSIDER: usize = 4;

/// The four networks: name, combination, gateways.
const NETWORKS: [(&str, Profile, usize); 4] = [
    ("spillway", Profile::ToGateway, 1),
    ("crest", Profile::ToCloud, 1),
    ("gallery", Profile::ToBoth, 2),
    ("bench", Profile::DangerLinkOnly, 1),
];
/// The network of the gauge: its signer measures the level of the water.
pub const GAUGE: &str = "crest";
/// Readings that a node signs at once.
const BATCH: u8 = 4;
/// What the operator said to have a network with E1 alone.
const OVERRIDE: &str = "a demo of what E1 alone does not protect";

/// A gateway of the village.
#[derive(Debug)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its id, 8 hex digits.
    pub id: String,
    /// Its radio.
    pub station: Station,
    /// Its folder.
    pub folder: PathBuf,
    /// Its wire at the backhaul.
    pub wire: usize,
    /// Where its counters are read.
    pub metrics: SocketAddr,
    /// The daemon.
    pub process: Process,
}

/// A node of the village.
#[derive(Debug)]
pub struct Node {
    /// EUI-64.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// Its radio.
    pub station: Station,
    /// Its folder.
    pub folder: PathBuf,
    /// Radio hops to the gateway.
    pub hops: u8,
    /// The software node.
    pub process: Process,
}

/// Names a message of a device: under new keys its numbers start at 0 again.
pub const fn named(epoch: u64, number: u64) -> u64 {
    epoch << 32 | number
}

/// What a node says of itself, read from its log. Messages stand under their names.
#[derive(Debug, Default)]
pub struct Said {
    /// The newest keys that the other side has used, by their epoch; 0 before the first renewal.
    pub renewed: u64,
    /// Readings taken: number and payload in hex.
    pub readings: HashMap<u64, String>,
    /// Numbers sent at least once.
    pub sent: std::collections::BTreeSet<u64>,
    /// Numbers confirmed.
    pub delivered: std::collections::BTreeSet<u64>,
    /// Numbers that a gateway took into custody.
    pub custody: std::collections::BTreeSet<u64>,
    /// Milliseconds from sending to confirmation.
    pub latencies: Vec<u64>,
    /// What it refused, by code.
    pub refused: HashMap<String, u64>,
}

impl Node {
    /// Everything it said so far.
    pub fn said(&self) -> Said {
        let mut said = Said::default();
        for line in self.process.said(0).0 {
            let text_of = |field| line.get(field).and_then(Value::as_str).unwrap_or_default();
            let number_of = |field| line.get(field).and_then(Value::as_u64);
            let number = number_of("number").map(|n| named(number_of("epoch").unwrap_or(0), n));
            match (text_of("event"), number) {
                ("reading", Some(n)) => {
                    said.readings.insert(n, text_of("payload").to_owned());
                }
                ("sent", Some(n)) => {
                    said.sent.insert(n);
                }
                ("delivered", Some(n)) => {
                    said.delivered.insert(n);
                    said.latencies.extend(number_of("after_ms"));
                }
                ("custody", Some(n)) => {
                    said.custody.insert(n);
                }
                ("renewal_confirmed", _) => said.renewed = number_of("epoch").unwrap_or(0),
                ("refused", _) => {
                    *said.refused.entry(text_of("code").to_owned()).or_default() += 1;
                }
                _ => {}
            }
        }
        said
    }
}

impl Said {
    /// Whether the node made what the cloud shows under number `n`: the reading in it is the one it took. What it says
    /// of itself (control maps) follows the reading, or stands alone under a number that it sent.
    pub fn made(&self, n: u64, shown: &Value) -> bool {
        let control: String = shown["other"].as_array().into_iter().flatten().filter_map(|c| c.as_str()).collect();
        let reading = shown["payload"].as_str().and_then(|p| p.strip_suffix(&control)).unwrap_or_default();
        self.readings.get(&n).map_or(reading.is_empty() && self.sent.contains(&n), |made| made == reading)
    }
}

/// A network of the village.
#[derive(Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub net: Net,
    /// PAN id, 4 hex digits.
    pub pan: String,
    /// The combination.
    pub profile: Profile,
    /// Its gateways, the primary first.
    pub gateways: Vec<Gateway>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// What the ear heard.
    pub recording: PathBuf,
    /// The ear.
    pub ear: Process,
}

impl Network {
    /// Which node signs its readings, in [`GAUGE`] and [`Self::ROBBED`].
    pub const SIGNER: usize = 1;
    /// The network in whose signer's name its stolen gateway invents readings.
    pub const ROBBED: &str = "spillway";

    /// Its nodes but the last one, which is the insider.
    pub fn honest(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.nodes.iter().take(self.nodes.len().saturating_sub(1))
    }

    /// The same, to start them again.
    pub fn honest_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Node> {
        let honest = self.nodes.len().saturating_sub(1);
        self.nodes.iter_mut().take(honest)
    }
}

/// As a combination heads a column: `e1+e3+e4`, or `e1 only`.
pub fn title_of(profile: Profile) -> &'static str {
    if profile == Profile::DangerLinkOnly { "e1 only" } else { profile.as_str() }
}

/// The whole village, running.
#[derive(Debug)]
pub struct Village {
    /// The operator's folder.
    pub dir: PathBuf,
    /// Folder of logs and recordings.
    pub logs: PathBuf,
    /// The cloud.
    pub cloud: Process,
    /// Where the cloud listens for gateways.
    pub ingest: SocketAddr,
    /// Where the cloud's API listens.
    pub api: SocketAddr,
    /// A token for the API.
    pub token: String,
    /// The machine in the middle.
    pub backhaul: Obedient,
    /// The networks.
    pub networks: Vec<Network>,
    /// Who has seen the cloud's log.
    pub witnesses: Witnesses,
}

/// Addresses of one network before anything runs.
struct Site {
    gateways: Vec<SocketAddr>,
    nodes: Vec<SocketAddr>,
    ear: SocketAddr,
}

impl Site {
    fn new(gateways: usize) -> anyhow::Result<Self> {
        let all = free_udp(gateways + NODES + 1)?;
        let (first, rest) = all.split_at(gateways);
        let (nodes, ear) = rest.split_at(NODES);
        Ok(Self {
            gateways: first.to_vec(),
            nodes: nodes.to_vec(),
            ear: ear.first().copied().unwrap_or(([127, 0, 0, 1], 0).into()),
        })
    }

    /// Who hears node `n`: its neighbours and the ear. Direct neighbours of one gateway are those of all.
    fn air_of_node(&self, n: usize) -> Vec<SocketAddr> {
        let neighbours: &[usize] = match n {
            0 => &[1, INSIDER],
            1 => &[0, 2],
            2 => &[1],
            INSIDER => &[0],
            _ => &[],
        };
        let gateways = if matches!(n, 0 | 3 | INSIDER) { self.gateways.as_slice() } else { &[] };
        let nodes = neighbours.iter().filter_map(|&i| self.nodes.get(i));
        gateways.iter().chain(nodes).copied().chain([self.ear]).collect()
    }

    fn air_of_gateway(&self) -> Vec<SocketAddr> {
        [0, 3, INSIDER].iter().filter_map(|&i| self.nodes.get(i)).copied().chain([self.ear]).collect()
    }
}

/// Short ids of the nodes of every network, as the map above.
fn sid_of(n: usize) -> Sid {
    Sid(0x0101 + n as u16)
}

pub(super) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

impl Village {
    /// Builds and starts everything. `tell` hears of progress.
    ///
    /// # Errors
    /// A part cannot be made or started.
    pub fn start(root: &Path, capture: bool, every: f64, mut tell: impl FnMut(&str)) -> anyhow::Result<Self> {
        let (dir, logs) = (root.join("operator"), root.join("logs"));
        std::fs::create_dir_all(&logs)?;
        let tcp = free_tcp(2 + NETWORKS.iter().map(|n| n.2).sum::<usize>())?;
        let [ingest, api, ref wires @ ..] = tcp[..] else { anyhow::bail!("no free ports") };
        tell("making the operator's folder");
        init::create(&init::Args {
            dir: dir.clone(),
            name: "dam".into(),
            cloud_names: vec!["localhost".into(), "127.0.0.1".into()],
            ingest,
            api,
        })?;
        let credentials = root.join("credentials");
        files::create_folder(&credentials)?;
        let mut operator = Folder { dir: dir.clone(), passphrase_file: None }.open()?;
        let now = crate::clock::now()?;
        let token = operator.registry.add_token("demo", Scope::Audit, now + 30 * 86_400, now)?.to_string();

        tell("starting two witnesses, the cloud and the wires to it");
        let witnesses = Witnesses::start(root, &dir, &logs)?;
        let cloud = Process::start(
            &logs,
            "cloud",
            strings(&["-o", "json", "cloud", "run", "--dir", &text(&dir.join("cloud"))]),
        )?;
        let mut arguments = strings(&["attack", "backhaul", "--record", &text(&logs)]);
        for wire in wires {
            arguments.extend(["--forward".into(), format!("{wire}={ingest}")]);
        }
        let backhaul = Obedient::start(&arguments)?;

        let mut networks = Vec::new();
        let mut wires = wires.iter().copied().enumerate();
        for (name, profile, count) in NETWORKS {
            tell(&format!("enrolling network {name} ({profile})"));
            let new = New { name, profile, count, capture, every, credentials: &credentials };
            networks.push(settle(&mut operator, &logs, &new, &mut wires)?);
        }
        Ok(Self { dir, logs, cloud, ingest, api, token, backhaul, networks, witnesses })
    }

    /// Ends every process but the machine in the middle, which listens for nobody then.
    pub fn end(&mut self) {
        let networks = self.networks.iter_mut();
        let parts = networks.flat_map(|n| {
            let gateways = n.gateways.iter_mut().map(|g| &mut g.process);
            gateways.chain(n.nodes.iter_mut().map(|n| &mut n.process)).chain([&mut n.ear])
        });
        parts.chain([&mut self.cloud]).chain(&mut self.witnesses.processes).for_each(Process::stop);
    }

    /// Every process that should be running and is not, with its last words.
    pub fn casualties(&mut self) -> Vec<String> {
        let networks = self.networks.iter_mut();
        let parts = networks.flat_map(|n| {
            let gateways = n.gateways.iter_mut().map(|g| &mut g.process);
            gateways.chain(n.nodes.iter_mut().map(|n| &mut n.process)).chain([&mut n.ear])
        });
        parts.chain([&mut self.cloud]).chain(&mut self.witnesses.processes).filter_map(Process::has_died).collect()
    }

    /// Lets everything run on, and says under which process ids. The gateways start again, on their way to the cloud itself:
    /// the machine in the middle ends with the demo. For a range they stay on the way that leads through one.
    ///
    /// # Errors
    /// A gateway's config cannot be written, or it cannot be started.
    pub fn leave_running(&mut self, for_range: bool) -> anyhow::Result<Vec<u32>> {
        let cloud = format!("https://localhost:{}", self.ingest.port());
        for gateway in self.networks.iter_mut().flat_map(|n| &mut n.gateways).filter(|_| !for_range) {
            gateway.process.stop();
            let path = gateway.folder.join(GATEWAY_FILE);
            let mut settings: GatewaySettings = share::read_config(&path)?;
            if let Some(uplink) = &mut settings.uplink {
                uplink.cloud.clone_from(&cloud);
            }
            share::write_config(&path, gateway::GATEWAY_HEADING, &settings)?;
            gateway.process.resume()?;
        }
        let networks = self.networks.iter_mut();
        let parts = networks.flat_map(|n| {
            n.gateways.iter_mut().map(|g| &mut g.process).chain(n.nodes.iter_mut().map(|n| &mut n.process))
        });
        let parts = parts.chain([&mut self.cloud]).chain(&mut self.witnesses.processes);
        Ok(parts.filter_map(Process::leave_running).collect())
    }
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Lets a credential open a gateway's vault, and no file beside it: what docs/operate.md says, with the demo in systemd's place.
fn hand_over(folder: &Path, credentials: &Path) -> anyhow::Result<()> {
    const NAME: &str = "fivefold";
    let passphrase = folder.join(PASSPHRASE_FILE);
    files::write(&credentials.join(NAME), Readers::Owner, &files::read_private(&passphrase)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["-o", "json", "vault", "rewrap", "systemd-credential", "--dir"]).arg(folder).arg(NAME);
    let done = command.env(CREDENTIALS, credentials).stdin(Stdio::null()).output().context("cannot rewrap a vault")?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(std::fs::remove_file(passphrase)?)
}

/// A network that is to be.
struct New<'a> {
    name: &'a str,
    profile: Profile,
    /// Gateways.
    count: usize,
    /// Whether its air is captured.
    capture: bool,
    every: f64,
    /// Where the best network's gateway gets what opens its vault.
    credentials: &'a Path,
}

/// Enrols one network and starts its gateways and nodes.
fn settle(
    operator: &mut Operator,
    logs: &Path,
    new: &New<'_>,
    wires: &mut impl Iterator<Item = (usize, SocketAddr)>,
) -> anyhow::Result<Network> {
    let &New { name, profile, count, capture, every, credentials } = new;
    let site = Site::new(count)?;
    let words = (profile == Profile::DangerLinkOnly).then_some(OVERRIDE);
    let network = operator.registry.add_network(&operator.vault, name, profile, words)?;
    let recording = logs.join(format!("air-{name}.jsonl"));
    std::fs::write(&recording, "")?;
    let ear = Process::start(
        logs,
        &format!("ear {name}"),
        strings(&["attack", "listen", "--bind", &site.ear.to_string(), "--out", &text(&recording)]),
    )?;
    let mut gateways = Vec::new();
    for (i, &bind) in site.gateways.iter().enumerate() {
        let (wire, uplink) = wires.next().ok_or_else(|| anyhow::anyhow!("no wire left"))?;
        let made = gateway::create(
            operator,
            &gateway::New {
                net: name.into(),
                name: if i == 0 { name.into() } else { format!("{name}-{}", i + 1) },
                radio: bind,
                air: site.air_of_gateway(),
                coap: None,
                cloud: Some(format!("https://localhost:{}", uplink.port())),
                did: None,
                sid: None,
                secondary: i > 0,
            },
        )?;
        let folder = operator.gateway_folder(&made.name);
        let credentials = (name == BEST).then_some(credentials);
        if let Some(credentials) = credentials {
            hand_over(&folder, credentials)?;
        }
        let station = Station {
            name: format!("gateway {}", made.name),
            addr: bind,
            sid: made.sid.to_string(),
            eui64: made.did.to_string(),
        };
        let metrics = free_tcp(1)?.first().copied().unwrap_or(bind);
        let path = folder.join(GATEWAY_FILE);
        let mut settings: GatewaySettings = share::read_config(&path)?;
        settings.metrics = Some(GatewayMetrics { bind: metrics });
        // Attackers speak in the nodes' names all the time: the limit for honest fleets would starve the nodes.
        settings.limits.messages_a_minute = 600;
        share::write_config(&path, gateway::GATEWAY_HEADING, &settings)?;
        let mut arguments = strings(&["-o", "json", "gateway", "run", "--dir", &text(&folder)]);
        if capture {
            arguments.extend(["--pcap".into(), text(&logs.join(format!("{}.pcapng", made.name)))]);
        }
        let mut process = Process::prepare(logs, &station.name, arguments).with_credentials(credentials);
        process.resume()?;
        let id = made.gateway.to_string();
        gateways.push(Gateway { name: made.name, id, station, folder, wire, metrics, process });
    }
    let mut nodes = Vec::new();
    for (n, &bind) in site.nodes.iter().enumerate() {
        let hops = [1, 2, 3, 1, 1].get(n).copied().unwrap_or(1);
        let parent = if hops == 1 { Sid::ANY_GATEWAY } else { sid_of(n - 1) };
        let signs = n == Network::SIGNER && matches!(name, GAUGE | Network::ROBBED);
        let sign = signs.then_some(device::Signing { batch: Some(BATCH) });
        let (made, folder) = device::create(
            operator,
            &device::New {
                net: name.into(),
                did: None,
                sid: Some(sid_of(n)),
                mode: Mode::Persistent,
                record: device::Record {
                    // One stock device among them: AES-128, as Wireshark can open it. The best network has one only where it looks.
                    alg: if n == 3 && (capture || name != BEST) { 10 } else { 11 },
                    kid_length: 0,
                    ack_every: None,
                    radio: Radio::Ieee802154,
                    danger_no_link: None,
                    signs: device::Signs { sign, no_downlink: false },
                },
                handing: device::Handing {
                    bind: Some(bind),
                    air: site.air_of_node(n),
                    parents: vec![parent],
                    aiocoap: None,
                    first_contexts: device::First::Installed,
                },
            },
        )?;
        let station = Station {
            name: format!("node {} {}", name, made.sid),
            addr: bind,
            sid: made.sid.to_string(),
            eui64: made.did.to_string(),
        };
        if profile == Profile::DangerLinkOnly && n == WRONG {
            graded::mistake(&folder)?;
        }
        if signs {
            evidence::certify(&operator.dir, &folder, &made.did.to_string())?;
        }
        let (dir, every) = (text(&folder), every.to_string());
        let mut arguments = strings(&["-o", "json", "node", "run", "--dir", &dir, "--every", &every, "--retry", "3"]);
        if signs && name == GAUGE {
            arguments.extend(strings(&["--sensor", "level"]));
        }
        let process = Process::start(logs, &station.name, arguments)?;
        nodes.push(Node { did: made.did, sid: made.sid, station, folder, hops, process });
    }
    let pan = format!("{:04x}", network.pan);
    Ok(Network { name: name.into(), net: network.net, pan, profile, gateways, nodes, recording, ear })
}
