//! An upgrade in the middle of a campaign of renewals: the release before this one and this one run one deployment together, as
//! processes, and change places one by one, from the cloud down and from the nodes up. Nothing is lost, nothing comes twice, and
//! every node renews in each company.
//!
//! `./ci.sh skew` builds the release before and says where it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "ports/mod.rs"]
#[allow(unreachable_pub, reason = "other tests use it too")]
mod ports;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than a machine takes that does other things too.
const PATIENCE: Duration = Duration::from_secs(240);
const NETWORKS: [(&str, &str, &str); 2] = [("one", "e1+e3+e4", "north"), ("two", "e1+e2+e4", "south")];
const NODES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Before,
    This,
}

impl Release {
    fn command(self, arguments: &[&str]) -> Command {
        let before = || PathBuf::from(std::env::var_os("FIVEFOLD_BEFORE").expect("./ci.sh skew says where it is"));
        let mut command = Command::new(match self {
            Self::Before => before(),
            Self::This => env!("CARGO_BIN_EXE_fivefold").into(),
        });
        command.args(["-o", "json"]).args(arguments);
        command
    }

    #[track_caller]
    fn answer(self, arguments: &[&str]) -> Value {
        let done = self.command(arguments).output().unwrap();
        assert!(done.status.success(), "{self:?} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

/// A cloud or a gateway.
struct Daemon(Child);

impl Daemon {
    fn stop(mut self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node whose readings are numbers that count up, whichever release it is of.
struct Node {
    did: String,
    next: Arc<Mutex<u64>>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    ends: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
    said: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    fn start(&mut self, release: Release, farm: &Farm) {
        let folder = farm.path(&format!("nodes/{}", self.did));
        let times = ["--retry", "5", "--renew-pause", "1", "--renew-resend", "5", "--wait", "240"];
        let mut command = release.command(&[&["node", "run", "--dir", &folder, "--stdin"][..], &times].concat());
        let log = farm.log(&format!("node {} {release:?}", self.did));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (mut into, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (ends, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (next, done, lines) = (self.next.clone(), ends.clone(), said.clone());
        let feeds = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let mut next = next.lock().unwrap();
                writeln!(into, "{{\"n\":\"count\",\"u\":\"/\",\"v\":{next}}}").unwrap();
                *next += 1;
                drop(next);
                std::thread::sleep(Duration::from_millis(1500));
            }
        });
        let reads = std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        self.running = Some(Running { child, ends, threads: [feeds, reads], said });
    }

    /// Ends it as soon as everything is confirmed that it was given.
    fn stop(&mut self) {
        let Running { mut child, ends, threads, said } = self.running.take().unwrap();
        ends.store(true, Ordering::Relaxed);
        let [feeds, reads] = threads;
        feeds.join().unwrap();
        let ended = child.wait().unwrap();
        reads.join().unwrap();
        let said = said.lock().unwrap();
        assert!(ended.success(), "{ended}: {:?}", &said[said.len().saturating_sub(12)..]);
    }

    fn delivered(&self) -> usize {
        let said = self.running.as_ref().unwrap().said.lock().unwrap();
        said.iter().filter(|line| line["event"] == "delivered").count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.ends.store(true, Ordering::Relaxed);
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

struct Farm {
    folder: TempDir,
    cloud: Option<Daemon>,
    gateways: Vec<Option<Daemon>>,
    nodes: Vec<Node>,
    token: String,
    /// Who keeps the book.
    keeper: Release,
}

impl Farm {
    /// Made by the release before, and run by it.
    fn of_before() -> Self {
        let keeper = Release::Before;
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token").display().to_string();
        let mut farm = Self { folder, cloud: None, gateways: Vec::new(), nodes: Vec::new(), token, keeper };
        let dir = farm.path("");
        let [ingest, api] = [ports::free_tcp(), ports::free_tcp()].map(|a| a.to_string());
        keeper.answer(&["init", &dir, "--ingest", &ingest, "--api", &api]);
        for (net, levels, gateway) in NETWORKS {
            let sockets: Vec<UdpSocket> = (0..=NODES).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let addresses: Vec<String> = sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
            let (radio, nodes) = addresses.split_first().unwrap();
            let air: Vec<&str> = nodes.iter().flat_map(|n| ["--air", n]).collect();
            keeper.answer(&["network", "add", "--dir", &dir, "--levels", levels, net]);
            let add = ["gateway", "add", "--dir", &dir, "--net", net, gateway, "--radio", radio];
            keeper.answer(&[&add[..], &air].concat());
            for node in nodes {
                let add = ["device", "add", "--dir", &dir, "--net", net, "--bind", node, "--air", radio];
                let did = keeper.answer(&add)["did"].as_str().unwrap().to_owned();
                farm.nodes.push(Node { did, next: Arc::default(), running: None });
            }
            farm.gateways.push(None);
        }
        let token = keeper.answer(&["token", "add", "--dir", &dir, "t"]);
        fs::write(&farm.token, token["token"].as_str().unwrap()).unwrap();
        farm.cloud(keeper);
        (0..NETWORKS.len()).for_each(|n| farm.gateway(n, keeper));
        (0..farm.nodes.len()).for_each(|n| farm.node(n, keeper));
        farm
    }

    fn path(&self, part: &str) -> String {
        self.folder.path().join("farm").join(part).display().to_string()
    }

    fn log(&self, name: &str) -> fs::File {
        fs::File::options().create(true).append(true).open(self.folder.path().join(format!("{name}.log"))).unwrap()
    }

    fn daemon(&self, release: Release, noun: &str, folder: &str) -> Daemon {
        let log = self.log(&format!("{noun} {release:?}"));
        let mut command = release.command(&[noun, "run", "--dir", &self.path(folder)]);
        Daemon(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Puts a cloud of a release in the place of the one that runs.
    fn cloud(&mut self, release: Release) {
        self.cloud.take().into_iter().for_each(Daemon::stop);
        self.cloud = Some(self.daemon(release, "cloud", "cloud"));
        self.keeper = release;
    }

    fn gateway(&mut self, n: usize, release: Release) {
        self.gateways[n].take().into_iter().for_each(Daemon::stop);
        self.gateways[n] = Some(self.daemon(release, "gateway", &format!("gateways/{}", NETWORKS[n].2)));
    }

    fn node(&mut self, n: usize, release: Release) {
        let mut node =
            std::mem::replace(&mut self.nodes[n], Node { did: String::new(), next: Arc::default(), running: None });
        if node.running.is_some() {
            node.stop();
        }
        node.start(release, self);
        self.nodes[n] = node;
    }

    fn epochs(&self) -> Vec<u64> {
        let epoch = |node: &Node| {
            let shown = self.keeper.answer(&["device", "show", "--dir", &self.path(""), &node.did]);
            shown["renewal"]["highest_epoch"].as_u64().unwrap()
        };
        self.nodes.iter().map(epoch).collect()
    }

    /// Orders everybody to renew, changes `who` in the middle of it, and waits until everybody has, and delivers.
    fn campaign(&mut self, what: &str, mut change: impl FnMut(&mut Self)) {
        let begun = Instant::now();
        let before = self.epochs();
        self.keeper.answer(&["device", "renew", "--dir", &self.path(""), "--all"]);
        change(self);
        self.until(what, |farm| farm.epochs().iter().zip(&before).all(|(now, before)| now > before));
        let delivered: Vec<usize> = self.nodes.iter().map(Node::delivered).collect();
        self.until(what, |farm| farm.nodes.iter().zip(&delivered).all(|(node, before)| node.delivered() > *before));
        println!("{what}: all renewed, {:?} to {:?}, in {:.0?}", before, self.epochs(), begun.elapsed());
    }

    #[track_caller]
    fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            if begun.elapsed() > PATIENCE {
                for entry in fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
                    if entry.path().extension().is_some_and(|e| e == "log") {
                        let text = fs::read_to_string(entry.path()).unwrap();
                        let last: Vec<&str> = text.lines().rev().take(6).collect();
                        eprintln!("{}: {last:#?}", entry.path().display());
                    }
                }
                panic!("{what}: not after {PATIENCE:?}; epochs {:?}", self.epochs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The numbers that stand at the cloud of a node, in order.
    fn stored(&self, did: &str) -> Vec<u64> {
        let (dir, token) = (self.path(""), &self.token);
        let list = ["reading", "list", "--dir", &dir, "--token-file", token, "--device", did, "--limit", "1000"];
        let done = self.keeper.command(&list).output().unwrap();
        // It starts, perhaps.
        let Ok(Value::Array(readings)) = serde_json::from_slice(&done.stdout) else { return Vec::new() };
        let records = readings.iter().flat_map(|reading| reading["records"].as_array().unwrap());
        let mut stored: Vec<u64> = records.map(|record| record["value"].as_f64().unwrap() as u64).collect();
        stored.sort_unstable();
        stored
    }

    /// Ends all nodes; what each was given stands at the cloud, each number once.
    fn nothing_is_lost_nor_there_twice(&mut self) {
        self.nodes.iter_mut().for_each(Node::stop);
        for node in &self.nodes {
            let given = *node.next.lock().unwrap();
            // A gateway confirmed what it has durable; it is on its way.
            self.until("what gateways keep", |farm| farm.stored(&node.did).len() as u64 >= given);
            assert_eq!(self.stored(&node.did), (0..given).collect::<Vec<_>>(), "of {}", node.did);
            println!("{}: {given} readings given, each stored once", node.did);
        }
    }
}

#[test]
#[ignore = "needs the release before this one: ./ci.sh skew"]
fn the_cloud_first_then_gateways_then_nodes_in_the_middle_of_a_campaign() {
    let mut farm = Farm::of_before();
    farm.until("the beginning", |farm| farm.nodes.iter().all(|n| n.delivered() > 1));
    farm.keeper.answer(&["key", "rotate", "--dir", &farm.path(""), "--network", "one"]);
    farm.campaign("a newer cloud", |farm| farm.cloud(Release::This));
    assert!(PathBuf::from(farm.path("registry.db.format-2")).exists());
    farm.campaign("newer gateways", |farm| (0..NETWORKS.len()).for_each(|n| farm.gateway(n, Release::This)));
    farm.campaign("newer nodes", |farm| (0..farm.nodes.len()).for_each(|n| farm.node(n, Release::This)));
    farm.nothing_is_lost_nor_there_twice();
    // Back is not allowed, and said in one sentence; what is there stays good.
    farm.cloud.take().unwrap().stop();
    let refused = Release::Before.command(&["cloud", "run", "--dir", &farm.path("cloud")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("format"), "{refused:?}");
    farm.cloud(Release::This);
    farm.node(0, Release::This);
    farm.until("after the older cloud was refused", |farm| farm.nodes[0].delivered() > 0);
}

#[test]
#[ignore = "needs the release before this one: ./ci.sh skew"]
fn nodes_first_then_gateways_then_the_cloud_in_the_middle_of_a_campaign() {
    let mut farm = Farm::of_before();
    farm.until("the beginning", |farm| farm.nodes.iter().all(|n| n.delivered() > 1));
    farm.keeper.answer(&["key", "rotate", "--dir", &farm.path(""), "--network", "one"]);
    farm.campaign("newer nodes", |farm| (0..farm.nodes.len()).for_each(|n| farm.node(n, Release::This)));
    farm.campaign("newer gateways", |farm| (0..NETWORKS.len()).for_each(|n| farm.gateway(n, Release::This)));
    farm.campaign("a newer cloud", |farm| farm.cloud(Release::This));
    farm.nothing_is_lost_nor_there_twice();
}
