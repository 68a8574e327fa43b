//! Time from a node's send to its verified 2.04 across gateway and cloud on loopback, at 1 and at 1,000 messages a second.
//!
//! `cargo bench -p fivefold-sim --bench latency -- SECONDS [LEVELS]`. Gateway and cloud are the real ones, each in a
//! process of its own; 2,000 devices are real node engines in this one, on one UDP socket. The clock starts when a reading
//! is handed to its node, and stops when that node says `Delivered`: it opened and verified the cloud's answer. In between
//! lie the seals, ZEP over UDP, the gateway's durable write, TLS, and the cloud's durable write.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{Process, Yard, free_udp, say, seconds};
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::key::Key;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Frame, Pan};
use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};
use fivefold_device::{ENTROPY, Entropy, Event, Node, Number, Output, Secrets, Settings};
use fivefold_keep::share::{self, DangerSynced, GATEWAY_FILE, GatewaySettings};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

const DEVICES: u32 = 2_000;
/// Nodes that boot in a second: a gateway greets 256 at a time.
const BOOTS_A_SECOND: u64 = 100;
const NETWORK: &str = "net";
/// 18 bytes: `[{n: "temp", u: "Cel", v: 21.5}]`.
const READING: &[u8] = b"\x81\xA3\x00\x64temp\x01\x63Cel\x02\xF9\x4D\x60";

/// All nodes, and their air.
struct Village {
    started: Instant,
    nodes: Vec<Node<8>>,
    by_sid: HashMap<u16, usize>,
    socket: UdpSocket,
    gateway: SocketAddr,
    heard: Receiver<Vec<u8>>,
    /// When nodes want to be looked at.
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    /// Readings on their way, by node and number.
    under_way: HashMap<(usize, Number), Instant>,
    took: Vec<Duration>,
    synced: usize,
    resent: usize,
    sequence: u32,
}

impl Village {
    fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    /// Carries out what a node wants.
    fn run(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].poll() {
            match output {
                Output::Event(Event::Delivered { number, .. }) => {
                    if let Some(sent) = self.under_way.remove(&(at, number)) {
                        self.took.push(sent.elapsed());
                    }
                }
                Output::Event(Event::Synced(..)) => self.synced += 1,
                Output::Event(Event::Sent { attempt, .. }) if attempt > 1 => self.resent += 1,
                Output::Transmit(frame) => {
                    self.sequence += 1;
                    let (device, sequence) = (self.nodes[at].settings().sid.0, self.sequence);
                    let zep = Zep { channel: 26, device, lqi: 255, time: [0; 8], sequence, frame: frame.as_bytes() };
                    let mut out = [0; MAX_DATAGRAM];
                    let len = zep.emit(&mut out).unwrap();
                    self.socket.send_to(&out[..len], self.gateway).unwrap();
                }
                // Its flash is memory that never fails, and it is never switched off.
                Output::Persist(_) => {}
                _ => {}
            }
        }
        if let Some(wake) = self.nodes[at].poll_timeout() {
            self.wakes.push(Reverse((wake.0, at)));
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        let Ok(zep) = Zep::parse(datagram) else { return };
        let body = &zep.frame[..zep.frame.len() - 2];
        let Ok(frame) = Frame::parse(body) else { return };
        let Some(&at) = self.by_sid.get(&frame.destination.0) else { return };
        let now = self.now();
        self.nodes[at].handle_frame(now, &mut zep.frame.to_vec());
        self.run(at);
    }

    /// Lives on until `until`.
    fn live(&mut self, until: Instant) {
        loop {
            let now = self.now();
            while let Some(&Reverse((wake, at))) = self.wakes.peek()
                && wake <= now.0
            {
                self.wakes.pop();
                // Others of the same node may lie behind it: one look is enough.
                if self.nodes[at].poll_timeout().is_some_and(|t| t <= now) {
                    self.nodes[at].handle_timeout(now);
                    self.run(at);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let due = self.wakes.peek().map_or(1000, |Reverse((wake, _))| wake.saturating_sub(now.0).max(1));
            match self.heard.recv_timeout(left.min(Duration::from_millis(due))) {
                Ok(datagram) => self.hear(&datagram),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn send(&mut self, at: usize) {
        let sent = Instant::now();
        let now = self.now();
        let number = self.nodes[at].send(now, READING).unwrap();
        self.under_way.insert((at, number), sent);
        self.run(at);
    }

    /// So many a second for so many seconds, each from the next node of a random order.
    fn measure(&mut self, rate: f64, seconds: f64, order: &[usize], processes: &[&Process; 2]) {
        self.took.clear();
        self.resent = 0;
        let count = (rate * seconds).round() as usize;
        let used: Vec<f64> = processes.iter().map(|p| p.cpu()).collect();
        let started = Instant::now();
        for n in 0..count {
            self.live(started + Duration::from_secs_f64(n as f64 / rate));
            self.send(order[n % order.len()]);
        }
        let over = started.elapsed().as_secs_f64();
        let used: Vec<f64> = processes.iter().zip(used).map(|(p, u)| 50.0 * (p.cpu() - u) / over).collect();
        // What is still under way comes, or is sent again and comes.
        let patience = Instant::now() + Duration::from_secs(20);
        while !self.under_way.is_empty() && Instant::now() < patience {
            self.live(Instant::now() + Duration::from_millis(50));
        }
        self.took.sort_unstable();
        let at = |share: f64| {
            let place = ((self.took.len() as f64 * share).ceil() as usize).clamp(1, self.took.len().max(1)) - 1;
            self.took.get(place).map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0)
        };
        println!(
            "  {rate:>6.0}   {:>8}   {:>9.2}   {:>9.2}   {:>9.2}   {:>6}   {:>6}   {:>7.0} %   {:>5.0} %",
            self.took.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            self.resent,
            count - self.took.len(),
            used[0],
            used[1]
        );
        self.under_way.clear();
    }
}

fn bench(profile: Profile, seconds: f64) {
    println!("{} over {DEVICES} devices", profile.as_str());
    let mut yard = Yard::new();
    let net = yard.network(NETWORK, profile);
    let (radio, air) = (free_udp(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let air_at = air.local_addr().unwrap().to_string();
    let folder = yard.gateway(NETWORK, "gateway", &["--radio", &radio.to_string(), "--air", &air_at]);
    let network = yard.operator.registry.network(NETWORK).unwrap();
    let keys = yard.operator.registry.network_keys(&yard.operator.vault, net).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let (mut nodes, mut neighbours) = (Vec::new(), Vec::new());
    for n in 0..DEVICES {
        let (device, own) = yard.device(net, profile, n);
        let mut secrets = Secrets::default();
        let _ = secrets.link.push((keys[0].index, Key::new(*keys[0].key)));
        secrets.e2 = profile.has_e2().then(|| E2Root::new(*own.e2_root).secret(network.group));
        secrets.e3 = E3Secret::new(&own.ms3, &own.salt3);
        let settings = Settings::new(device.did, device.sid, Pan(network.pan), device.policy, device.epoch);
        let mut entropy = [0; ENTROPY];
        random.fill_bytes(&mut entropy);
        nodes.push((device.sid, settings, secrets, Entropy::check(entropy).unwrap()));
        let (did, sid) = (device.did.to_string(), device.sid.to_string());
        neighbours.push(DangerSynced { did, sid, key_index: keys[0].index, counter: 0 });
    }
    let cloud = Process::start_ready(&["as-cloud", yard.cloud().to_str().unwrap()]);
    // The first run takes what the cloud pushes; the second knows the nodes as neighbours that were heard before, for no
    // more than 256 strangers are greeted in a minute.
    let gateway = Process::start_ready(&["as-gateway", folder.to_str().unwrap()]);
    std::thread::sleep(Duration::from_secs(5));
    drop(gateway);
    let file = folder.join(GATEWAY_FILE);
    let mut settings: GatewaySettings = share::read_config(&file).unwrap();
    settings.link.danger_synced = neighbours;
    share::write_config(&file, "A benchmark's gateway.", &settings).unwrap();
    let gateway = Process::start_ready(&["as-gateway", folder.to_str().unwrap()]);

    let (heard, frames) = channel();
    let listening = air.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        while let Ok((len, _)) = listening.recv_from(&mut buffer) {
            if heard.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut village = Village {
        started: Instant::now(),
        nodes: Vec::new(),
        by_sid: HashMap::new(),
        socket: air,
        gateway: radio,
        heard: frames,
        wakes: BinaryHeap::new(),
        under_way: HashMap::new(),
        took: Vec::new(),
        synced: 0,
        resent: 0,
        sequence: 0,
    };
    for (n, (sid, settings, secrets, entropy)) in nodes.into_iter().enumerate() {
        village.live(village.started + Duration::from_millis(n as u64 * 1000 / BOOTS_A_SECOND));
        let node = Node::boot(village.now(), settings, &secrets, None, &entropy).unwrap();
        village.by_sid.insert(sid.0, n);
        village.nodes.push(node);
        village.run(n);
    }
    village.live(Instant::now() + Duration::from_secs(8));
    println!("  {} of them greeted the gateway", village.synced);
    let mut order: Vec<usize> = (0..village.nodes.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.next_u32() as usize % (i + 1));
    }
    // Every node once, slowly: each has sent before it is measured.
    for &at in &order {
        village.send(at);
        village.live(Instant::now() + Duration::from_millis(3));
    }
    village.live(Instant::now() + Duration::from_secs(3));
    village.under_way.clear();
    println!(
        "   a second   messages   median ms     99 % ms     most ms   resent     lost   gateway   cloud (of two cores)"
    );
    village.measure(1.0, 2.0 * seconds, &order, &[&gateway, &cloud]);
    village.measure(1000.0, seconds, &order, &[&gateway, &cloud]);
    println!();
}

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("as-cloud") => {
            fivefold_cloud::daemon::run(&PathBuf::from(args.next().unwrap()), |_| say("ready"), || ()).unwrap();
        }
        Some("as-gateway") => {
            let folder = PathBuf::from(args.next().unwrap());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(fivefold_gateway::daemon::run(&folder, None, |_| say("ready"), || ())).unwrap();
        }
        _ => {
            let named = std::env::args().find_map(|a| Profile::ALL.into_iter().find(|p| p.as_str() == a));
            bench(named.unwrap_or(Profile::ToCloud), seconds(10.0));
        }
    }
}
