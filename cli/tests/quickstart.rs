//! The README's "Run your own", on free ports: init, network, gateway, device, and readings that arrive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn fivefold(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json"]).args(arguments);
    command
}

fn answer(arguments: &[&str]) -> Value {
    let done = fivefold(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A daemon that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(arguments: &[&str], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        Self(fivefold(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn readings_travel_from_node_to_cloud_and_are_listed_with_their_proof() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let farm = at("farm");
    let tcp: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let udp: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let [ingest, api] = [0, 1].map(|i| tcp[i].local_addr().unwrap().to_string());
    let [radio, node] = [0, 1].map(|i| udp[i].local_addr().unwrap().to_string());
    drop((tcp, udp));

    answer(&["init", &farm, "--ingest", &ingest, "--api", &api]);
    answer(&["network", "add", "--dir", &farm, "field-7"]);
    let gateway = ["gateway", "add", "--dir", &farm, "--net", "field-7", "north", "--radio", &radio, "--air", &node];
    answer(&gateway);
    let device = answer(&["device", "add", "--dir", &farm, "--net", "field-7", "--bind", &node, "--air", &radio]);
    let did = device["did"].as_str().unwrap();
    let token = at("token");
    std::fs::write(&token, answer(&["token", "add", "--dir", &farm, "me"])["token"].as_str().unwrap()).unwrap();

    let _cloud = Daemon::start(&["cloud", "run", "--dir", &at("farm/cloud")], &folder.path().join("cloud.log"));
    let gateway = at("farm/gateways/north");
    let _gateway = Daemon::start(&["gateway", "run", "--dir", &gateway], &folder.path().join("gateway.log"));
    let node = at(&format!("farm/nodes/{did}"));
    let sent = fivefold(&["node", "run", "--dir", &node, "--every", "0.2", "--count", "3", "--wait", "30"]);
    let sent = { sent }.output().unwrap();
    let words = String::from_utf8_lossy(&sent.stdout);
    let logs = || ["cloud", "gateway"].map(|l| std::fs::read_to_string(at(&format!("{l}.log"))).unwrap_or_default());
    assert!(sent.status.success(), "{words}\n{}\n{:?}", String::from_utf8_lossy(&sent.stderr), logs());

    let list = answer(&["reading", "list", "--dir", &farm, "--token-file", &token, "--device", did]);
    let readings = list.as_array().unwrap();
    let numbers: Vec<u64> = readings.iter().map(|r| r["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(readings.iter().all(|r| r["proof"] == "node" && r["insecure"] == false && r["device"] == did));
    assert!(readings.iter().all(|r| r["records"].as_array().is_some_and(|r| !r.is_empty())));

    let refused = fivefold(&["reading", "list", "--dir", &farm]).env_remove("FIVEFOLD_TOKEN").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("fivefold token add"));
}

#[test]
fn a_network_key_is_rotated_while_readings_flow() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let farm = at("farm");
    let tcp: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let udp: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let [ingest, api] = [0, 1].map(|i| tcp[i].local_addr().unwrap().to_string());
    let [radio, node] = [0, 1].map(|i| udp[i].local_addr().unwrap().to_string());
    drop((tcp, udp));
    answer(&["init", &farm, "--ingest", &ingest, "--api", &api]);
    answer(&["network", "add", "--dir", &farm, "field-7"]);
    answer(&["gateway", "add", "--dir", &farm, "--net", "field-7", "north", "--radio", &radio, "--air", &node]);
    let device = answer(&["device", "add", "--dir", &farm, "--net", "field-7", "--bind", &node, "--air", &radio]);
    let did = device["did"].as_str().unwrap();
    let token = at("token");
    std::fs::write(&token, answer(&["token", "add", "--dir", &farm, "me"])["token"].as_str().unwrap()).unwrap();
    let _cloud = Daemon::start(&["cloud", "run", "--dir", &at("farm/cloud")], &folder.path().join("cloud.log"));
    let gateway = at("farm/gateways/north");
    let _gateway = Daemon::start(&["gateway", "run", "--dir", &gateway], &folder.path().join("gateway.log"));
    let node = at(&format!("farm/nodes/{did}"));
    let _node = Daemon::start(&["node", "run", "--dir", &node, "--every", "0.3"], &folder.path().join("node.log"));

    // Which network key the frames of readings came under, of the newest readings.
    let under = || -> Vec<u64> {
        let list = ["reading", "list", "--dir", &farm, "--token-file", &token, "--limit", "3"];
        let done = fivefold(&list).output().unwrap();
        let readings: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        readings.as_array().into_iter().flatten().filter_map(|r| r["key_index"].as_u64()).collect()
    };
    let becomes = |wanted: u64| {
        for _ in 0..200 {
            let seen = under();
            if seen.len() == 3 && seen.iter().all(|i| *i == wanted) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("readings come under {:?}, {wanted} expected", under());
    };
    let step = |verb: &[&str]| answer(&[&["key"], verb, &["--dir", &farm, "--network", "field-7"]].concat());
    becomes(1);
    assert_eq!(step(&["rotate"])["rotation"]["stage"], "handing out");
    let again = fivefold(&["key", "rotate", "--dir", &farm, "--network", "field-7"]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    // Handed out, and as soon as everybody has it, switched to: nobody says a word.
    becomes(2);
    let shown = step(&["show", "--all", "--token-file", &token]);
    assert_eq!(shown["rotation"]["stage"], "draining");
    let campaign = &shown["campaign"];
    assert_eq!(
        (&campaign["devices"], &campaign["sends_under_it"], &campaign["late"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert_eq!(campaign["members"][0]["device"], did);
    let early = fivefold(&["key", "retire", "--dir", &farm, "--network", "field-7"]).output().unwrap();
    assert_eq!(early.status.code(), Some(2));
    assert_eq!(step(&["retire", "--now"])["rotation"]["stage"], "done");
    std::thread::sleep(std::time::Duration::from_secs(1));
    becomes(2);
    let text = std::process::Command::new(env!("CARGO_BIN_EXE_fivefold"))
        .args(["key", "show", "--dir", &farm, "--network", "field-7", "--token-file", &token])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("done since") && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    // The last one that is left is revoked, and the key with it.
    let revoked = answer(&["device", "revoke", "--dir", &farm, did, "--rotate"]);
    assert_eq!((&revoked["rotation"]["index"], &revoked["rotation"]["urgent"]), (&3.into(), &true.into()));
    // Nothing was lost on the way.
    let list = answer(&["reading", "list", "--dir", &farm, "--token-file", &token, "--limit", "1000"]);
    let numbers: Vec<u64> = list.as_array().unwrap().iter().map(|r| r["number"].as_u64().unwrap()).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), numbers.len());
    assert!(sorted.windows(2).all(|w| w[1] == w[0] + 1), "{sorted:?}");
}
