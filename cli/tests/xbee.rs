//! Gateway, relay and nodes as processes, each with an emulated XBee module on a pseudo-terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deployment::{Daemon, Deployment, command, fivefold, free_udp, mistake, tick};
use fivefold::xbee_air::{Place, XbeeAir};
use fivefold_core::id::Did;
use fivefold_gateway::xbee::kind::Kind;
use fivefold_gateway::xbee::tty;
use fivefold_waspmote::Frame;
use fivefold_waspmote::xbee::{Address16, Address64, At, Decoder, LinkKey, Mode, Packet, link_key_commands};
use serde_json::Value;

const GATEWAY: &str = "0013a2004f8ec519";
const NEAR: &str = "0013a20000000001";
const FAR: &str = "0013a20000000002";
const RELAY: &str = "0013a20000000003";
const WASPMOTE: &str = "0013a20027fd3629";

fn free_tcp() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn mac(text: &str) -> Did {
    text.parse().unwrap()
}

/// A village on XBee modules: the far node is heard by the relay alone.
struct Village {
    d: Deployment,
    air: XbeeAir,
    token: String,
    gateway: Option<Daemon>,
}

impl Village {
    fn new(kind: Kind, more: &str) -> Self {
        let d = Deployment::new();
        let places = [GATEWAY, NEAR, FAR, RELAY, WASPMOTE];
        let places = places.map(|name| Place { mac: mac(name), kind, link: d.path(name) });
        let air = XbeeAir::start(places.to_vec(), vec![(mac(GATEWAY), mac(FAR)), (mac(NEAR), mac(FAR))]).unwrap();
        let [radio] = free_udp();
        let add = ["gateway", "add", "--dir", &d.farm(), "--net", "field-7", "north", "--did", GATEWAY];
        fivefold(&[&add[..], &["--radio", &radio]].concat());
        let toml = d.path("farm/gateways/north/gateway.toml");
        let mut toml = OpenOptions::new().append(true).open(toml).unwrap();
        writeln!(toml, "\n[xbee]\nport = \"{}\"\nkind = \"{kind}\"\n{more}", d.at(GATEWAY)).unwrap();
        let token = d.at("token");
        std::fs::write(&token, &d.token).unwrap();
        Self { d, air, token, gateway: None }
    }

    fn device(&self, did: &str, radio: &str, parent: &str) -> String {
        let farm = self.d.farm();
        let add = ["device", "add", "--dir", &farm, "--net", "field-7", "--did", did, "--radio", radio];
        let added = fivefold(&[&add[..], &["--kid-length", "2", "--parent", parent]].concat());
        added["sid"].as_str().unwrap().to_owned()
    }

    fn start(&mut self) {
        let folder = self.d.at("farm/gateways/north");
        self.gateway = Some(Daemon::start(&["gateway", "run", "--dir", &folder], &self.d.path("gateway.log")));
    }

    fn folder(&self, did: &str) -> String {
        self.d.at(&format!("farm/nodes/{did}"))
    }

    fn readings(&self, did: &str) -> Vec<Value> {
        let list =
            fivefold(&["reading", "list", "--dir", &self.d.farm(), "--token-file", &self.token, "--device", did]);
        list.as_array().unwrap().clone()
    }

    fn said(&self) -> String {
        self.gateway.as_ref().map(Daemon::said).unwrap_or_default()
    }
}

/// Waits until `what` is so.
#[track_caller]
fn until<T>(mut what: impl FnMut() -> Option<T>, else_say: impl Fn() -> String) -> T {
    let begun = tick();
    while begun.elapsed() < Duration::from_secs(90) {
        if let Some(found) = what() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{}", else_say());
}

#[test]
fn readings_go_over_emulated_modules_directly_and_by_a_relay_and_are_answered() {
    let mut village = Village::new(Kind::Ieee802154, "");
    let relay = village.device(RELAY, "xbee", "0000");
    village.device(NEAR, "xbee", "0000");
    village.device(FAR, "xbee", &relay);
    village.start();
    let (folder, port) = (village.folder(RELAY), village.d.at(RELAY));
    let relay = ["node", "relay", "--dir", &folder, "--xbee", &port];
    let relay = Daemon::start(&relay, &village.d.path("relay.log"));
    let nodes = [NEAR, FAR].map(|did| {
        let (folder, port) = (village.folder(did), village.d.at(did));
        let run = ["node", "run", "--dir", &folder, "--xbee", &port, "--every", "0.2", "--count", "3", "--wait", "90"];
        let mut run = command(&run);
        run.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    for (node, did) in nodes.into_iter().zip([NEAR, FAR]) {
        let done = node.wait_with_output().unwrap();
        let words = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(done.status.success(), "{did}: {words:?}\n{}\n{}", village.said(), relay.said());
        assert!(words[0].matches("\"delivered\"").count() >= 3, "every answer verified: {}", words[0]);
        let readings = village.readings(did);
        assert_eq!(readings.len(), 3, "{readings:?}");
        assert!(readings.iter().all(|r| r["e1"] == "e1s" && r["proof"] == "node"), "{readings:?}");
    }
}

#[test]
fn a_gateway_whose_module_is_pulled_out_takes_it_again() {
    let mut village = Village::new(Kind::Digimesh, "");
    let toml = village.d.path("farm/gateways/north/gateway.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text.replacen("[link]\n", "[link]\nminimum_level = 5\n", 1)).unwrap();
    village.device(NEAR, "digimesh", "0000");
    village.air.unplug(mac(GATEWAY));
    village.start();
    until(|| village.said().contains("no XBee module").then_some(()), || village.said());
    village.air.plug(mac(GATEWAY));
    let (folder, port) = (village.folder(NEAR), village.d.at(NEAR));
    let said = mistake(&["node", "run", "--dir", &folder]);
    assert!(said.contains("--xbee /dev/ttyUSB0"), "{said}");
    let run = ["node", "run", "--dir", &folder, "--xbee", &port, "--every", "0.2", "--count", "2", "--wait", "90"];
    let done = command(&run).output().unwrap();
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stdout), village.said());
    assert!(village.readings(NEAR).iter().all(|r| r["e1"] == "e1s"));
}

/// The node's side of a module.
struct Host {
    tty: std::fs::File,
    decoder: Decoder,
}

impl Host {
    fn open(path: &Path) -> Self {
        Self { tty: tty::open(path, 115_200).unwrap(), decoder: Decoder::new(Mode::Escaped) }
    }

    /// Whether the module took a setting since the last time.
    fn settings(&mut self) -> bool {
        let mut byte = [0];
        while self.tty.read(&mut byte).is_ok_and(|n| n == 1) {
            if self.decoder.push(byte[0]) == Some(Ok(()))
                && matches!(Packet::parse(self.decoder.packet()), Ok(Packet::AtResponse { at: At::ENCRYPTION, .. }))
            {
                return true;
            }
        }
        false
    }

    /// The next payload for it, if one is there.
    fn hears(&mut self) -> Option<Vec<u8>> {
        let mut byte = [0];
        while self.tty.read(&mut byte).is_ok_and(|n| n == 1) {
            if self.decoder.push(byte[0]) == Some(Ok(())) {
                match Packet::parse(self.decoder.packet()).unwrap() {
                    Packet::Receive { payload, .. } | Packet::Receive64 { payload, .. } => {
                        return Some(payload.to_vec());
                    }
                    _ => {}
                }
            }
        }
        None
    }
}

fn vectors() -> Value {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/waspmote/xbee-api.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// The sum of the gateway's counters whose line has these words.
fn page(metrics: &str, words: &str) -> u64 {
    let Ok(mut stream) = TcpStream::connect(metrics) else { return 0 };
    let mut page = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").and_then(|()| stream.read_to_string(&mut page));
    asked.unwrap();
    let lines = page.lines().filter(|line| line.contains(words) && !line.starts_with('#'));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// How often the gateway counted a code, of anybody.
fn counted(metrics: &str, code: &str) -> u64 {
    page(metrics, &format!("code=\"{code}\""))
}

#[test]
fn a_waspmote_is_told_the_time_its_frames_come_through_and_who_programs_it_is_reported() {
    let metrics = free_tcp();
    let mut village = Village::new(Kind::Us900hp, &format!("[metrics]\nbind = \"{metrics}\""));
    village.start();
    until(|| village.said().contains(&format!("XBee module {GATEWAY}")).then_some(()), || village.said());
    let mut waspmote = Host::open(&village.d.path(WASPMOTE));
    let vectors = vectors();
    tty::write_all(&waspmote.tty, &bytes(&vectors["time_sync_request"]["uart_bytes_hex"])).unwrap();
    let told = until(|| waspmote.hears(), || village.said());
    let told = String::from_utf8(told).unwrap();
    assert_eq!((told.len(), &told[14..]), (19, "+0000"), "{told}");
    assert!(told[..14].bytes().all(|b| b.is_ascii_digit()) && &told[..2] == "20", "{told}");
    assert_eq!(counted(&metrics, "CL-12"), 1);

    // A stranger's frame as vendor code sends it, and a packet of over-the-air programming.
    tty::write_all(&waspmote.tty, &bytes(&vectors["tx"][0]["uart_bytes_hex"])).unwrap();
    until(|| (counted(&metrics, "CL-07") == 1).then_some(()), || village.said());
    let mut new_firmware = b"<=>\x7a".to_vec();
    new_firmware.extend([0x20; 40]);
    let destination = Address64(mac(GATEWAY).0);
    let (network, radius, options) = (Address16::UNKNOWN, 0, 0);
    let packet = Packet::Transmit { id: 1, destination, network, radius, options, payload: &new_firmware };
    tty::write_all(&waspmote.tty, &packet.emit(Mode::Escaped).unwrap()).unwrap();
    until(|| (counted(&metrics, "CL-09") == 1).then_some(()), || village.said());

    // What vendor code takes from a module, byte for byte, and what it does not.
    let cases = vectors["rx"].as_array().unwrap();
    for case in cases {
        village.air.say(mac(GATEWAY), &bytes(&case["uart_bytes_hex"]));
    }
    // Some carry what is no frame: those were made to try the escapes.
    let taken = cases.iter().filter(|case| case["vendor_result"] == 0);
    let (frames, others): (Vec<_>, Vec<_>) = taken.partition(|case| serial(&bytes(&case["payload_hex"])).is_some());
    let wanted = (1 + frames.len() as u64, 3 + others.len() as u64);
    let seen = || (counted(&metrics, "CL-07"), counted(&metrics, "CL-01"));
    until(|| (seen() == wanted).then_some(()), || format!("{:?}, not {wanted:?}\n{}", seen(), village.said()));
}

const LIVE: &str = "0011223344556677";

#[test]
fn frames_of_known_serials_are_stored_once_by_whatever_packet_they_come_and_labelled() {
    let metrics = free_tcp();
    let more = format!("link_key_file = \"link.key\"\n[metrics]\nbind = \"{metrics}\"");
    let mut village = Village::new(Kind::Us900hp, &more);
    let key = village.d.path("farm/gateways/north/link.key");
    std::fs::write(&key, "zbw8vnigkr629rdn\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let farm = village.d.farm();
    fivefold(&["network", "set", "--dir", &farm, "field-7", "--classic", "yes"]);
    let vectors = vectors();
    let cases: Vec<_> = vectors["rx"].as_array().unwrap().iter().filter(|c| c["vendor_result"] == 0).collect();
    let frames = cases.iter().map(|c| c["payload_hex"].as_str().unwrap().to_owned());
    let frames: BTreeSet<String> = frames.filter(|frame| serial(&hex::decode(frame).unwrap()).is_some()).collect();
    let serials: BTreeSet<String> = frames.iter().filter_map(|frame| serial(&hex::decode(frame).unwrap())).collect();
    assert_eq!((frames.len(), serials.len()), (4, 4));
    for serial in serials.iter().map(String::as_str).chain([LIVE]) {
        fivefold(&["device", "add", "--dir", &farm, "--net", "field-7", "--classic", serial, "--node-id", "x1"]);
    }
    village.start();
    until(|| village.said().contains(&format!("XBee module {GATEWAY}")).then_some(()), || village.said());
    // Its first state may be of before the last of them was added: the cloud looks into its operator's book now and then.
    let known = || page(&metrics, "fivefold_gateway_classic_devices ");
    until(|| (known() == 5).then_some(()), || format!("{} known\n{}", known(), village.said()));
    for case in &cases {
        village.air.say(mac(GATEWAY), &bytes(&case["uart_bytes_hex"]));
    }
    // A live one, which shares the modules' key.
    let mut host = Host::open(&village.d.path(WASPMOTE));
    let key = LinkKey::from_text("zbw8vnigkr629rdn").unwrap();
    for command in link_key_commands(1, &key) {
        tty::write_all(&host.tty, &command.emit(Mode::Escaped).unwrap()).unwrap();
    }
    until(|| host.settings().then_some(()), || village.said());
    drop(host);
    let line = village.d.at(WASPMOTE);
    let live =
        ["node", "waspmote", "--serial", LIVE, "--xbee", &line, "--to", GATEWAY, "--count", "2", "--every", "0.2"];
    let done = command(&live).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let all = || {
        let list = ["reading", "list", "--dir", &farm, "--token-file", &village.token, "--limit", "100"];
        fivefold(&list).as_array().unwrap().clone()
    };
    let of_live = |r: &&Value| r["serial"] == LIVE;
    let readings = until(
        || Some(all()).filter(|r| r.iter().filter(of_live).count() == 2 && r.len() >= frames.len() + 2),
        || format!("{:?}\n{}", all(), village.said()),
    );
    for frame in &frames {
        let found: Vec<_> = readings.iter().filter(|r| r["payload"].as_str().unwrap().contains(frame)).collect();
        assert_eq!(found.len(), 1, "{frame}: {readings:?}");
        assert!(found[0]["payload"].as_str().unwrap().contains(WASPMOTE), "it names the module that it came from");
    }
    assert_eq!(readings.len(), frames.len() + 2, "the others are repeats: {readings:?}");
    let labelled = |r: &Value| r["e1"] == "xbee-ee" && r["proof"] == "plain" && r["proven"] == "plain";
    assert!(readings.iter().all(labelled), "{readings:?}");
}

/// The serial in a frame without encryption; none in what is no frame.
fn serial(frame: &[u8]) -> Option<String> {
    match Frame::parse(frame) {
        Ok(Frame::Clear(clear)) => Some(clear.serial.to_string()),
        _ => None,
    }
}
