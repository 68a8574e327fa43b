//! The deployment as attackers find it: the networks of the operator's book whose parties run on this machine, with an ear on
//! their air and a machine in the middle of their wires.
//!
//! What a network needs to be a range: two nodes or more that run as software (the last one by short id is the insider's); an
//! address in their `air` at which nobody of it listens, for the ear; and gateways that call the cloud at such an address, for
//! the wire. A network that has not is left out, and the report says why.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::id::Net;
use fivefold_keep::registry::{self, Registry};
use fivefold_keep::share::{
    CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewaySettings, NODE_FILE, NodeSettings, read_config,
};

use super::own::reached;
use super::running::{self, Running};
use crate::attack::permit::Permit;
use crate::attack::plan::Station;
use crate::attack::{backhaul, thief};
use crate::demo::evidence::Witnesses;
use crate::demo::processes::{Obedient, Process};
use crate::demo::shore::{self, ROAD, Shore, Sketch, UPLINK};
use crate::demo::village::{Gateway, Network, Node, Village};
use crate::operator::{REGISTRY_FILE, gateway_folder, node_folder};

/// What is attacked.
#[derive(Debug)]
pub(super) struct Field {
    /// Networks of the modern suite.
    pub(super) village: Village,
    /// Networks of classic nodes.
    pub(super) shores: Vec<Shore>,
    /// What is not, and why, in sentences.
    pub(super) left_out: Vec<String>,
}

/// Where everything is looked for.
struct Search<'a> {
    dir: &'a Path,
    /// Folder of recordings.
    work: &'a Path,
    permit: &'a Permit,
    registry: Registry,
    running: Vec<Running>,
    ingest: SocketAddr,
    api: SocketAddr,
}

impl Field {
    /// Looks at the operator's book and at what runs, and takes ears and wires. Nothing is sent to anybody yet.
    ///
    /// # Errors
    /// The book cannot be read, the cloud does not run here, or an address that would be spoken to is not in the permit.
    pub(super) fn find(dir: &Path, token: &str, permit: &Permit, work: &Path) -> anyhow::Result<Self> {
        let settings: CloudSettings = read_config(&dir.join("cloud").join(CLOUD_FILE))?;
        let search = Search {
            dir,
            work,
            permit,
            registry: Registry::open_read_only(&dir.join(REGISTRY_FILE))?,
            running: running::all(),
            ingest: reached(settings.ingest.bind),
            api: reached(settings.api.bind),
        };
        search.permitted("the cloud", search.ingest)?;
        search.permitted("the API of the cloud", search.api)?;
        let cloud = search.process("the cloud", |r| r.does("cloud", "run") && r.is_of(&dir.join("cloud")));
        let cloud = cloud.map_err(|why| anyhow::anyhow!(why))?;
        let (mut networks, mut shores, mut left_out, mut wires) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let classic = search.registry.classic_networks()?;
        for network in search.registry.networks()? {
            let found = match classic.contains(&network.net) {
                true => search.shore(&network).map(|found| found.map(|shore| shores.push(shore))),
                false => search.network(&network, &mut wires).map(|found| found.map(|network| networks.push(network))),
            };
            if let Err(why) = found? {
                left_out.push(format!("network {}: {why}", network.name));
            }
        }
        let village = Village {
            dir: dir.to_owned(),
            logs: work.to_owned(),
            cloud,
            ingest: search.ingest,
            api: search.api,
            token: token.to_owned(),
            backhaul: forward(work, &wires, search.ingest)?,
            networks,
            witnesses: Witnesses::unknown(),
        };
        Ok(Self { village, shores, left_out })
    }

    /// Lets everything run on that was started again meanwhile, and the insiders go on as honest nodes, but those who were
    /// revoked.
    ///
    /// # Errors
    /// The book cannot be read, or a node cannot be started.
    pub(super) fn leave(&mut self) -> anyhow::Result<()> {
        let book = Registry::open_read_only(&self.village.dir.join(REGISTRY_FILE))?.devices()?;
        for insider in self.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
            let is_enrolled = book.iter().any(|d| d.did == insider.did && d.revoked_at.is_none());
            if is_enrolled && insider.process.id().is_none() {
                insider.process.resume()?;
            }
        }
        let village = &mut self.village;
        let networks = village.networks.iter_mut().flat_map(|n| {
            n.gateways.iter_mut().map(|g| &mut g.process).chain(n.nodes.iter_mut().map(|n| &mut n.process))
        });
        let shores = self.shores.iter_mut().flat_map(|s| {
            s.nodes.iter_mut().chain([&mut s.own]).map(|n| &mut n.process).chain([&mut s.gateway.process])
        });
        for process in networks.chain(shores).chain([&mut village.cloud]) {
            process.leave_running();
        }
        Ok(())
    }
}

/// A machine in the middle that leads each of these addresses to the cloud.
fn forward(folder: &Path, wires: &[SocketAddr], to: SocketAddr) -> anyhow::Result<Obedient> {
    let mut arguments = vec!["attack".into(), "backhaul".into(), "--record".into(), folder.display().to_string()];
    arguments.extend(wires.iter().flat_map(|wire| ["--forward".into(), format!("{wire}={to}")]));
    Obedient::start(&arguments)
}

/// What was found, or why it is left out.
type Found<T> = anyhow::Result<Result<T, String>>;

impl Search<'_> {
    fn permitted(&self, what: &str, address: SocketAddr) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.permit.allows(address),
            "{what} listens at {address}, which is not in the permit: nothing was sent; for another permit type: fivefold \
             range permit --dir {} --until DAY",
            self.dir.display()
        );
        Ok(())
    }

    fn process(&self, name: &str, is_it: impl Fn(&Running) -> bool) -> Result<Process, String> {
        let running = self.running.iter().find(|r| is_it(r));
        running.ok_or_else(|| format!("{name} does not run on this machine"))?.process(name)
    }

    fn network(&self, network: &registry::Network, wires: &mut Vec<SocketAddr>) -> Found<Network> {
        let net = network.net;
        let mut known = self.registry.gateways()?;
        known.retain(|g| g.net == net && g.revoked_at.is_none());
        known.sort_by_key(|g| !g.primary);
        let mut devices = self.registry.devices()?;
        devices.retain(|d| d.net == net && d.revoked_at.is_none());
        devices.sort_by_key(|d| d.sid);
        if known.is_empty() || devices.len() < 2 {
            return Ok(Err("it has no gateway, or fewer than two nodes".into()));
        }
        let (mut gateways, mut nodes, mut air, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        for gateway in &known {
            match self.gateway(gateway, wires.len() + taken.len())? {
                Ok((found, wire)) => {
                    gateways.push(found);
                    taken.push(wire);
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        for device in &devices {
            let folder = node_folder(self.dir, &device.did.to_string());
            let name = format!("node {} {}", network.name, device.sid);
            if !folder.join(NODE_FILE).exists() {
                return Ok(Err(format!("{name} is not in the operator's folder")));
            }
            let settings: NodeSettings = read_config(&folder.join(NODE_FILE))?;
            let addr = reached(settings.link.bind);
            self.permitted(&name, addr)?;
            let process = match self.process(&name, |r| r.does("node", "run") && r.is_of(&folder)) {
                Ok(process) => process,
                Err(why) => return Ok(Err(why)),
            };
            air.extend(settings.link.air);
            let (sid, eui64) = (device.sid.to_string(), device.did.to_string());
            let station = Station { name, addr, sid, eui64 };
            nodes.push(Node { did: device.did, sid: device.sid, station, folder, hops: 1, process });
        }
        let stations = gateways.iter().map(|g: &Gateway| g.station.addr).chain(nodes.iter().map(|n| n.station.addr));
        let listening: BTreeSet<SocketAddr> = stations.collect();
        let Some(ear) = air.difference(&listening).find(|a| a.ip().is_loopback()).copied() else {
            return Ok(Err("its air has no ear: add an address of this machine to `air` in each node.toml".into()));
        };
        let recording = self.work.join(format!("air-{}.jsonl", network.name));
        std::fs::write(&recording, "")?;
        let arguments = ["attack", "listen", "--bind", &ear.to_string(), "--out", &recording.display().to_string()];
        let ear = Process::start(self.work, &format!("ear {}", network.name), arguments.map(str::to_owned).to_vec())?;
        wires.extend(taken);
        let pan = format!("{:04x}", network.pan);
        let (name, profile) = (network.name.clone(), network.profile);
        Ok(Ok(Network { name, net, pan, profile, gateways, nodes, recording, ear }))
    }

    /// A gateway, and where its wire begins.
    fn gateway(&self, gateway: &registry::Gateway, wire: usize) -> Found<(Gateway, SocketAddr)> {
        let folder = gateway_folder(self.dir, &gateway.name);
        let name = format!("gateway {}", gateway.name);
        if !folder.join(GATEWAY_FILE).exists() {
            return Ok(Err(format!("{name} is not in the operator's folder")));
        }
        let settings: GatewaySettings = read_config(&folder.join(GATEWAY_FILE))?;
        let addr = reached(settings.link.bind);
        self.permitted(&name, addr)?;
        let Some(metrics) = settings.metrics.map(|m| reached(m.bind)) else {
            return Ok(Err(format!("{name} has no [metrics]: nobody sees what it counts")));
        };
        self.permitted(&format!("the metrics page of {name}"), metrics)?;
        let Some(uplink) = settings.uplink else { return Ok(Err(format!("{name} has no cloud"))) };
        let (begins, _) = thief::cloud_of(&uplink.cloud)?;
        if begins == self.ingest || !begins.ip().is_loopback() {
            return Ok(Err(format!(
                "{name} calls the cloud itself: let `cloud` in its [uplink] be an address of this machine at which nobody \
                 listens, e.g. https://localhost:9443, and the range is the wire"
            )));
        }
        let process = match self.process(&name, |r| r.does("gateway", "run") && r.is_of(&folder)) {
            Ok(process) => process,
            Err(why) => return Ok(Err(why)),
        };
        let (sid, eui64, id) = (gateway.sid.to_string(), gateway.did.to_string(), gateway.gateway.to_string());
        let station = Station { name, addr, sid, eui64 };
        let found = Gateway { name: gateway.name.clone(), id, station, folder, wire, metrics, process };
        Ok(Ok((found, begins)))
    }

    fn shore(&self, network: &registry::Network) -> Found<Shore> {
        let known = self.registry.gateways()?.into_iter().find(|g| g.net == network.net && g.revoked_at.is_none());
        let Some(known) = known else { return Ok(Err("it has no gateway".into())) };
        let (gateway, uplink) = match self.gateway(&known, UPLINK)? {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let settings: GatewaySettings = read_config(&gateway.folder.join(GATEWAY_FILE))?;
        let Some(http) = settings.insecure_http.map(|http| reached(http.bind)) else {
            return Ok(Err("its gateway has no [insecure_http]: nobody hands frames in".into()));
        };
        self.permitted("the listener for classic frames", http)?;
        let (mut nodes, road) = match self.classic_nodes(network.net, http)? {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        // The insider has the key of a node of his own, which is none of those that he attacks.
        let own = nodes.iter().rposition(|n: &shore::Node| n.sketch == Sketch::ToGateway && n.key_file.is_some());
        let Some(own) = own.filter(|_| nodes.len() > 1) else {
            return Ok(Err("it has no node with an AES key for its gateway, which could be the insider's".into()));
        };
        let own = nodes.remove(own);
        nodes.sort_by_key(|n| Sketch::ALL.iter().position(|s| *s == n.sketch));
        let folder = self.work.join(&network.name);
        std::fs::create_dir_all(&folder)?;
        let mut arguments = vec!["attack".into(), "backhaul".into(), "--record".into(), folder.display().to_string()];
        for wire in [format!("{road}={http}"), format!("{uplink}={}", self.ingest)] {
            arguments.extend(["--forward".into(), wire]);
        }
        Ok(Ok(Shore {
            net: network.net,
            gateway,
            http,
            wires: Obedient::start(&arguments)?,
            ingest: self.ingest,
            nodes,
            own,
            recorded: Vec::new(),
            by_radio: Vec::new(),
            recording: backhaul::recording(&folder, ROAD),
            air: None,
        }))
    }

    /// The nodes of a network that run here and hand their frames in by a wire, by serial; and where that begins.
    fn classic_nodes(&self, net: Net, http: SocketAddr) -> Found<(Vec<shore::Node>, SocketAddr)> {
        let mut devices = self.registry.classic_devices()?;
        devices.retain(|d| d.net == net && d.revoked_at.is_none());
        devices.sort_by_key(|d| d.serial.to_string());
        let (mut nodes, mut roads) = (Vec::new(), BTreeSet::new());
        for device in devices {
            let serial = device.serial.to_string();
            // No word of such a node names its deployment: of two with one serial, it is the one that writes beside it.
            let is_it = |r: &&Running| r.does("node", "waspmote") && r.option("--serial") == Some(&serial);
            let mut candidates: Vec<&Running> = self.running.iter().filter(is_it).collect();
            if candidates.len() > 1 {
                candidates.retain(|r| r.writes_below(self.dir.parent().unwrap_or(self.dir)));
            }
            let running = match candidates[..] {
                [] => continue,
                [one] => one,
                _ => {
                    return Ok(Err(format!("several processes speak as {serial}, and nobody can tell which is meant")));
                }
            };
            let Some(road) = running.option("--http").and_then(|http| http.parse::<SocketAddr>().ok()) else {
                continue;
            };
            let Some(sketch) = Sketch::of(running.option("--seal").unwrap_or("none")) else { continue };
            let process = match running.process(&format!("node {serial}")) {
                Ok(process) => process,
                Err(why) => return Ok(Err(why)),
            };
            // The hardened one draws its key itself, and keeps it beside its numbers.
            let drawn = running.path("--state").map(|state| PathBuf::from(format!("{}.key", state.display())));
            let key_file = if sketch == Sketch::Hardened { drawn } else { running.path("--key-file") };
            nodes.push(shore::Node { sketch, serial: device.serial, key_file, process });
            roads.insert(road);
        }
        let roads: Vec<SocketAddr> = roads.into_iter().collect();
        let [road] = roads[..] else {
            return Ok(Err("no node runs here that hands its frames in by HTTP, or they use several addresses".into()));
        };
        if road == http || !road.ip().is_loopback() {
            return Ok(Err(format!(
                "its nodes call the gateway itself: start them with --http and an address of this machine at which nobody \
                 listens, and the range leads them to {http}"
            )));
        }
        Ok(Ok((nodes, road)))
    }
}

/// Where the cloud is for people.
///
/// # Errors
/// Its config cannot be read.
pub(super) fn api_of(dir: &Path) -> anyhow::Result<String> {
    let settings: CloudSettings = read_config(&dir.join("cloud").join(CLOUD_FILE)).context("the cloud's config")?;
    Ok(format!("https://localhost:{}", settings.api.bind.port()))
}
