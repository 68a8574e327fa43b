//! A node of the hardened profile from the command that draws its key to the reading in the cloud, with running daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold};
use fivefold_keep::registry::{HardenedHolder, Registry};
use fivefold_keep::vault::Vault;
use fivefold_waspmote::hardened::{ANSWER, Answer, Epoch, Key, Number, Peer, seal};
use serde_json::Value;

const SERIAL: [u8; 8] = [0x8A, 0x73, 0x84, 0x47, 0x78, 0x76, 0x15, 0x0C];
const NAME: &str = "8a7384477876150c";

/// What a module sends, and what it is answered.
fn post(to: SocketAddr, frame: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let frame = hex::encode_upper(frame);
    write!(stream, "GET /getpost_frame_parser.php?frame={frame} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

/// Asks again until something holds, for as long as a loaded machine may need.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within two minutes");
}

#[test]
fn a_hardened_node_is_read_once_and_its_clear_frames_are_no_readings() {
    let farm = Farm::new();
    let dir = farm.path("");
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    answer(&["network", "set", "--dir", &dir, "one", "--classic", "yes"]);
    answer(&["device", "add", "--dir", &dir, "--net", "one", "--classic", NAME, "--node-id", "n"]);
    assert_eq!(answer(&["device", "harden", "--dir", &dir, NAME])["epoch"], 1);
    let config = farm.path("gateways/north/gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[insecure_http]\nbind = \"{http}\"\n")).unwrap();
    let registry = Registry::open(
        &Path::new(&dir).join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let vault = Vault::open_folder(Path::new(&dir)).unwrap();
    let device = registry.classic_device(NAME.parse().unwrap()).unwrap();
    let primary = HardenedHolder::Gateway(registry.gateway("north").unwrap().gateway);
    let key = Key::from_bytes(*registry.hardened_keys(&vault, &device, primary, 1).unwrap()[0].key);

    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);
    // Battery 35, as the node's library makes it.
    let clear = [&b"<=>\x06\x0d"[..], &SERIAL, b"n#\x05", &[52, 35]].concat();
    let number = |sequence| Number { epoch: Epoch(1), sequence, seed: [7; 4] };
    let sealed = |sequence| {
        let mut out = [0; 255];
        let len = seal(Peer::Gateway, &key, &number(sequence), &clear, &mut out).unwrap();
        out[..len].to_vec()
    };
    // Until the cloud has told the gateway of it, the node is a stranger there.
    let frame = sealed(64);
    let said = until("the frame is taken", || post(http, &frame).filter(|said| said.contains(" 200 ")));
    let body = said.split("\r\n\r\n").nth(1).unwrap().lines().nth(1).expect("an answer for the node");
    let bytes = hex::decode(body).unwrap();
    assert_eq!(bytes.len(), ANSWER);
    let told = Answer::open(&bytes, Peer::Gateway, &SERIAL, &number(64), &key).unwrap();
    assert!(told.time > 1_735_689_600, "an authentic time");
    let again = post(http, &frame).unwrap();
    assert!(again.contains("CL-15"), "{again}");
    assert!(post(http, &clear).unwrap().contains(" 200 "), "a clear frame is handed on, for the cloud to judge");
    let token = farm.token.display().to_string();
    let list = |verb: &str| -> Option<Vec<Value>> {
        let done = fivefold(&["reading", verb, "--dir", &dir, "--token-file", &token]).output().unwrap();
        let all: Value = done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())?;
        let all = all.as_array().unwrap().iter().filter(|r| r["suite"].is_string() || r["classic"].is_object());
        Some(all.cloned().collect()).filter(|all: &Vec<Value>| !all.is_empty())
    };
    let readings = until("the reading is there", || list("list"));
    assert_eq!(readings.len(), 1, "{readings:#?}");
    let reading = &readings[0];
    assert_eq!((&reading["suite"], &reading["serial"]), (&"classic-hardened".into(), &NAME.into()));
    assert_eq!((&reading["proof"], &reading["proven"]), (&"legacy".into(), &"legacy".into()));
    assert_eq!(reading["fields"][0]["tag"], "BAT");
    let kept = until("the clear frame is kept apart", || list("quarantine"));
    assert!(kept.iter().any(|k| k.to_string().contains("CL-02")), "{kept:#?}");
    assert_eq!(list("list").unwrap().len(), 1);
}
