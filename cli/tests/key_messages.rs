//! A classic node that draws its keys itself, with running daemons (docs/protocol.md 12): from the command that enrols it, over its
//! key messages by HTTP and by XBee modules, to readings under keys that nobody brought by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use farm::{Daemon, Farm, answer, fivefold, refused, says};
use fivefold::xbee_air::{Place, XbeeAir};
use fivefold_core::wire::key_message::KeyLevel;
use fivefold_gateway::xbee::kind::Kind;
use fivefold_keep::key_message::KeyState;
use fivefold_keep::registry::Registry;
use fivefold_keep::vault::Vault;
use serde_json::Value;

const BY_HTTP: &str = "8a7384477876150c";
const BY_RADIO: &str = "8a7384477876150d";
const GATEWAY_MAC: &str = "0013a200400a0001";
const NODE_MAC: &str = "0013a200400a0010";

/// Asks again until something holds, for as long as a loaded machine may need.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1800 {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{what}: not within three minutes");
}

/// A software node, ended with the test.
struct Node(Child, Arc<Mutex<Vec<Value>>>);

impl Node {
    fn start(arguments: &[&str]) -> Self {
        let mut child = fivefold(&[&["node", "waspmote", "--every", "0.3"], arguments].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = (Arc::new(Mutex::new(Vec::new())), BufReader::new(child.stdout.take().unwrap()));
        let hears = said.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                hears.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self(child, said)
    }

    fn renewed(&self) -> Vec<u64> {
        let said = self.1.lock().unwrap();
        said.iter().filter(|l| l["event"] == "renewed").map(|l| l["epoch"].as_u64().unwrap()).collect()
    }

    fn wait_for_epoch(&self, epoch: u64) {
        until(&format!("epoch {epoch}"), || self.renewed().contains(&epoch).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Site {
    farm: Farm,
    dir: String,
    http: SocketAddr,
}

impl Site {
    /// A gateway that takes frames by HTTP and by a module.
    fn new() -> Self {
        let farm = Farm::new();
        let dir = farm.path("");
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        answer(&["network", "set", "--dir", &dir, "one", "--classic", "yes"]);
        for serial in [BY_HTTP, BY_RADIO] {
            answer(&["device", "add", "--dir", &dir, "--net", "one", "--classic", serial]);
        }
        let config = farm.path("gateways/north/gateway.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let port = farm.path("line-gateway");
        let more = format!("\n[insecure_http]\nbind = \"{http}\"\n\n[xbee]\nport = \"{port}\"\nkind = \"digimesh\"\n");
        std::fs::write(&config, text + &more).unwrap();
        Self { farm, dir, http }
    }

    /// Where the keys of a device stand.
    fn chain(&self, serial: &str, level: KeyLevel) -> Vec<(u32, KeyState)> {
        let book = Registry::open_read_only(&Path::new(&self.dir).join("registry.db")).unwrap();
        let vault = Vault::open_folder(Path::new(&self.dir)).unwrap();
        let all = book.enrolled_for_messages(&vault).unwrap();
        let one = all.iter().find(|e| e.serial.to_string() == serial && e.level == level).unwrap();
        one.chain.keys().map(|(epoch, state)| (epoch.0, state)).collect()
    }

    /// Readings of a hardened node.
    fn readings(&self, serial: &str) -> usize {
        let token = self.farm.token.display().to_string();
        let list = ["reading", "list", "--dir", &self.dir, "--token-file", &token, "--limit", "1000"];
        let done = fivefold(&list).output().unwrap();
        if !done.status.success() {
            return 0;
        }
        let all: Value = serde_json::from_slice(&done.stdout).unwrap();
        let of = |r: &&Value| r["serial"] == serial && r["suite"] == "classic-hardened";
        all.as_array().unwrap().iter().filter(of).count()
    }
}

#[test]
fn a_node_by_http_gets_its_first_key_from_the_gateway_and_the_next_ones_and_goes_on_after_every_stop() {
    let site = Site::new();
    let file = site.farm.path("k.toml");
    let made = answer(&["device", "key-messages", "--dir", &site.dir, BY_HTTP, "--form", "toml", "--out", &file]);
    assert_eq!((&made["kr1_auth"], &made["hardened"]), (&"mac".into(), &true.into()));
    let state = site.farm.path("eeprom");
    let http = site.http.to_string();
    let node = |more: &[&str]| {
        let fixed = ["--http", &http, "--serial", BY_HTTP, "--seal", "hardened-gateway", "--key-messages", &file];
        Node::start(&[&fixed[..], &["--state", &state], more].concat())
    };
    // Nobody is there: it asks, and sends nothing.
    let first = node(&[]);
    until("it asks", || first.1.lock().unwrap().iter().any(|l| l["event"] == "unanswered").then_some(()));
    let _cloud = Daemon::start(&site.farm.cloud(), 0);
    let gateway = Daemon::start(&site.farm.gateway(), 0);
    first.wait_for_epoch(1);
    until("a reading under its first key", || (site.readings(BY_HTTP) > 0).then_some(()));
    until("it is in use", || (site.chain(BY_HTTP, KeyLevel::E2) == [(1, KeyState::Active)]).then_some(()));
    // Its power goes: it goes on with the key that it has.
    drop(first);
    let second = node(&["--renew-every", "3"]);
    second.wait_for_epoch(3);
    drop(gateway);
    let _gateway = Daemon::start(&site.farm.gateway(), 0);
    let reached = *second.renewed().last().unwrap();
    second.wait_for_epoch(reached + 1);
    drop(second);
    let chain = site.chain(BY_HTTP, KeyLevel::E2);
    assert!(chain.iter().any(|(_, s)| matches!(s, KeyState::Draining { .. })), "{chain:?}");
    assert_eq!(chain.iter().filter(|(_, s)| *s == KeyState::Active).count(), 1, "{chain:?}");
}

#[test]
fn a_node_by_radio_agrees_a_key_with_the_cloud_alone() {
    let site = Site::new();
    let file = site.farm.path("k.toml");
    answer(&[
        "device",
        "key-messages",
        "--dir",
        &site.dir,
        BY_RADIO,
        "--peer",
        "cloud",
        "--form",
        "toml",
        "--out",
        &file,
    ]);
    let places = [(GATEWAY_MAC, "line-gateway"), (NODE_MAC, "line-node")];
    let places = places.map(|(mac, line)| Place {
        mac: mac.parse().unwrap(),
        kind: Kind::Digimesh,
        link: site.farm.path(line).into(),
    });
    let _air = XbeeAir::start(places.to_vec(), Vec::new()).unwrap();
    let _cloud = Daemon::start(&site.farm.cloud(), 0);
    let _gateway = Daemon::start(&site.farm.gateway(), 0);
    let (line, state) = (site.farm.path("line-node"), site.farm.path("eeprom"));
    let fixed = ["--xbee", &line, "--to", GATEWAY_MAC, "--serial", BY_RADIO, "--seal", "hardened-cloud"];
    let node = Node::start(&[&fixed[..], &["--key-messages", &file, "--state", &state, "--renew-every", "3"]].concat());
    node.wait_for_epoch(2);
    until("readings", || (site.readings(BY_RADIO) > 3).then_some(()));
    until("the second key is in use", || {
        let chain = site.chain(BY_RADIO, KeyLevel::E3);
        chain.iter().any(|(epoch, s)| *epoch >= 2 && *s == KeyState::Active).then_some(())
    });
}

#[test]
fn what_the_command_writes_is_for_its_owner_alone_and_what_it_refuses_it_says() {
    let farm = Farm::new();
    let dir = farm.path("");
    answer(&["network", "set", "--dir", &dir, "one", "--classic", "yes"]);
    for serial in [BY_HTTP, "387264539"] {
        answer(&["device", "add", "--dir", &dir, "--net", "one", "--classic", serial]);
    }
    let command = |more: &[&str]| -> Vec<String> {
        [&["device", "key-messages", "--dir", &dir], more].concat().into_iter().map(str::to_owned).collect()
    };
    says(&refused(&command(&[BY_HTTP, "--off"])), &["sends no key messages"]);
    says(&refused(&command(&["387264539"])), &["v12"]);
    let made = answer(&["device", "key-messages", "--dir", &dir, BY_HTTP]);
    let file = Path::new(made["file"].as_str().unwrap());
    assert!(file.ends_with("nodes/8a7384477876150c/key-messages.h"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(file).unwrap();
    for (name, bytes) in [("server[4]", 4), ("modulus[256]", 256), ("enrolment_key[32]", 32)] {
        let line = text.lines().find(|l| l.contains(&format!("ff_gateway_{name}"))).unwrap();
        assert_eq!(line.matches("0x").count(), bytes, "{line}");
    }
    let shown = answer(&["device", "show", "--dir", &dir, BY_HTTP]);
    assert_eq!(shown["hardened"], true);
    answer(&["device", "key-messages", "--dir", &dir, BY_HTTP, "--off"]);
    let done = fivefold(&["device", "key-messages", "--dir", &dir, BY_HTTP, "--bits", "1024"]).output().unwrap();
    assert!(String::from_utf8_lossy(&done.stderr).contains("RSA-1024 is refused"));
    assert!(!done.status.success());
}
