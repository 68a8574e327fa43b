//! LoRaWAN with everything real but the radio: a node of the SDK, a network server's MQTT events through Mosquitto, gateway and
//! cloud as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;
mod mosquitto;

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deployment::{Daemon, Deployment, fivefold, free_tcp, free_udp, mistake};
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::Pan;
use fivefold_device::{Entropy, Event, Node, Output, Secrets, Settings};
use fivefold_keep::share::NodeShare;
use mosquitto::{Mosquitto, Tls, until};
use serde_json::{Value, json};

const APPLICATION: &str = "8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11";
const DEV_EUI: &str = "70b3d57ed0052a9c";
const READING: &[u8] = &[0x81, 0xA2, 0x00, 0x61, b't', 0x02, 0x18, 0x19];

/// Which network server the test plays, by the events of its documentation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lns {
    ChirpStack,
    Things,
}

impl Lns {
    fn settings(self) -> String {
        let (kind, application) = match self {
            Self::ChirpStack => ("chirpstack", APPLICATION),
            Self::Things => ("things-stack", "orchard@farm"),
        };
        format!("kind = \"{kind}\"\napplication = \"{application}\"\nactivation = \"otaa\"\n")
    }

    /// The first event of the vectors, with another device, port, counter and payload; and its topic.
    fn event(self, dev_eui: &str, f_cnt: u32, f_port: u8, payload: &[u8]) -> (String, Vec<u8>) {
        let file = match self {
            Self::ChirpStack => include_str!("../../vectors/lorawan/chirpstack-up.json"),
            Self::Things => include_str!("../../vectors/lorawan/things-stack-up.json"),
        };
        let file: Value = serde_json::from_str(file).unwrap();
        let (mut event, topic) = (file["cases"][0]["event"].clone(), file["cases"][0]["topic"].as_str().unwrap());
        let data = json!(STANDARD.encode(payload));
        match self {
            Self::ChirpStack => {
                event["deviceInfo"]["devEui"] = json!(dev_eui);
                (event["fCnt"], event["fPort"], event["data"]) = (json!(f_cnt), json!(f_port), data);
            }
            Self::Things => {
                event["end_device_ids"]["dev_eui"] = json!(dev_eui.to_uppercase());
                event["end_device_ids"]["device_id"] = json!(format!("eui-{dev_eui}"));
                let up = &mut event["uplink_message"];
                (up["f_cnt"], up["f_port"], up["frm_payload"]) = (json!(f_cnt), json!(f_port), data);
            }
        }
        (topic.replace(DEV_EUI, dev_eui), event.to_string().into_bytes())
    }

    fn commands(self) -> String {
        match self {
            Self::ChirpStack => format!("application/{APPLICATION}/device/+/command/down"),
            Self::Things => "v3/orchard@farm/devices/+/down/push".into(),
        }
    }

    /// What a command sends down: topic level of the device, FPort, FRMPayload.
    fn command(self, (topic, text): (String, String)) -> (String, Vec<u8>) {
        let levels: Vec<&str> = topic.split('/').collect();
        let command: Value = serde_json::from_str(&text).unwrap();
        let (device, port, data) = match self {
            Self::ChirpStack => {
                assert_eq!(command["devEui"], levels[3]);
                (levels[3], &command["fPort"], &command["data"])
            }
            Self::Things => (levels[3], &command["downlinks"][0]["f_port"], &command["downlinks"][0]["frm_payload"]),
        };
        let payload = STANDARD.decode(data.as_str().unwrap()).unwrap();
        (device.into(), [&[u8::try_from(port.as_u64().unwrap()).unwrap()], &payload[..]].concat())
    }
}

/// A gateway that hears a network server, and the folder of its network's devices.
struct World {
    d: Deployment,
    gateway: Option<Daemon>,
    metrics: SocketAddr,
}

impl World {
    /// With a network of these levels, whose gateway has these lines in `[lorawan]`.
    fn new(levels: &str, lorawan: &str) -> Self {
        Self::with(&["--levels", levels], lorawan)
    }

    fn with(network: &[&str], lorawan: &str) -> Self {
        let d = Deployment::new();
        let dir = d.farm();
        let [radio, air] = free_udp();
        fivefold(&[&["network", "add", "--dir", &dir, "orchard"], network].concat());
        let add = ["gateway", "add", "--dir", &dir, "--net", "orchard", "barn", "--radio", &radio, "--air", &air];
        fivefold(&add);
        let file = d.path("farm/gateways/barn/gateway.toml");
        let metrics = free_tcp();
        let text = fs::read_to_string(&file).unwrap();
        let text = format!("{text}\n[metrics]\nbind = \"{metrics}\"\n[lorawan]\n{lorawan}");
        fs::write(&file, text).unwrap();
        let mut world = Self { d, gateway: None, metrics };
        world.start();
        until("a gateway that knows its network", || (world.state_version() > 0).then_some(()));
        world
    }

    /// The version of the state that the gateway works by.
    fn state_version(&self) -> u64 {
        let page = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        let page = page().unwrap_or_default();
        let line = page.lines().find_map(|l| l.strip_prefix("fivefold_gateway_state_version "));
        line.and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Does something in the operator's book, and waits until the gateway knows of it.
    fn told(&self, arguments: &[&str]) -> Value {
        let before = self.state_version();
        let answer = fivefold(arguments);
        until("a gateway that knows of it", || (self.state_version() > before).then_some(()));
        answer
    }

    fn start(&mut self) {
        let folder = self.d.at("farm/gateways/barn");
        self.gateway = Some(Daemon::start(&["gateway", "run", "--dir", &folder], &self.d.path("barn.log")));
    }

    fn gateway(&self) -> &Daemon {
        self.gateway.as_ref().unwrap()
    }

    /// Waits until the gateway reads events; `times` since it started first.
    async fn listens(&self, times: usize) {
        for _ in 0..1200 {
            if self.gateway().said().matches("the LoRaWAN broker is there").count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it never hears the broker: {}", self.gateway().said());
    }

    fn device(&self, dev_eui: &str, more: &[&str]) -> Radio {
        let dir = self.d.farm();
        let [bind, air] = free_udp();
        let add = [
            "device",
            "add",
            "--dir",
            &dir,
            "--net",
            "orchard",
            "--did",
            dev_eui,
            "--radio",
            "lorawan",
            "--ack-every",
            "1",
        ];
        self.told(&[&add[..], &["--bind", &bind, "--air", &air], more].concat());
        Radio::boot(&self.d.path(&format!("farm/nodes/{dev_eui}")))
    }

    /// Waits until the cloud has at least so many readings of the device.
    async fn readings(&self, dev_eui: &str, count: usize) -> Vec<Value> {
        for _ in 0..600 {
            let all = self.d.ask(&format!("/v1/readings?device={dev_eui}")).await;
            let mut all = all["readings"].as_array().unwrap().clone();
            all.retain(|r| r["records"].as_array().is_some_and(|records| !records.is_empty()));
            if all.len() >= count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the cloud never has {count} readings of {dev_eui}: {}", self.gateway().said());
    }

    /// Waits until the gateway told the cloud of so many refusals under a code.
    async fn refused(&self, code: &str, count: u64) {
        for _ in 0..600 {
            let rows = self.d.ask("/v1/rejections").await;
            let rows = rows.as_array().unwrap().iter().filter(|r| r["code"] == code);
            if rows.map(|r| r["count"].as_u64().unwrap()).sum::<u64>() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("never {count} times {code}");
    }
}

/// A node whose radio is the test.
struct Radio {
    node: Node,
    now: Millis,
    delivered: HashMap<u32, bool>,
}

impl Radio {
    fn boot(folder: &Path) -> Self {
        let share = NodeShare::read(folder).unwrap();
        let own = &share.secrets;
        let secrets = Secrets {
            e3: own.e3.as_ref().map(|(ms3, salt3)| E3Secret::new(ms3, salt3).unwrap()),
            e2: own.e2_root.as_ref().map(|root| E2Root::new(**root).secret(share.group)),
            ..Secrets::default()
        };
        let settings = Settings::new(share.did, share.sid, Pan(share.pan), share.policy, share.epoch);
        let entropy = Entropy::check(std::array::from_fn(|n| (n * 7) as u8)).unwrap();
        let node = Node::boot(Millis(0), settings, &secrets, None, &entropy).unwrap();
        Self { node, now: Millis(0), delivered: HashMap::new() }
    }

    /// Carries the node's script out: the frames for the radio.
    fn run(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(output) = self.node.poll() {
            match output {
                Output::Tiny(frame) => sent.push(frame.to_vec()),
                Output::Event(Event::Delivered { number, .. }) => {
                    self.delivered.insert(number.value, true);
                }
                Output::Dropped(rejected) => panic!("{rejected}"),
                // Nothing is kept: the node runs once.
                _ => {}
            }
        }
        sent
    }

    /// One reading, as the frame that carries it, and its number.
    fn reading(&mut self) -> (u32, Vec<u8>) {
        self.now = self.now.plus(60_000);
        self.node.handle_timeout(self.now);
        self.run();
        let number = self.node.send(self.now, READING).unwrap();
        let mut sent = self.run();
        (number.value, sent.pop().unwrap())
    }

    fn hears(&mut self, frame: &[u8]) {
        self.node.handle_tiny(self.now, frame);
        self.run();
    }

    fn has(&self, number: u32) -> bool {
        self.delivered.contains_key(&number)
    }
}

fn clear(lns: Lns, broker: &Mosquitto) -> String {
    format!("{}broker = \"mqtt://localhost:{}\"\ninsecure_mqtt = true\n", lns.settings(), broker.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_goes_up_through_either_network_server_and_its_answer_comes_down() {
    for (lns, levels, proof) in [
        (Lns::ChirpStack, "e1+e3+e4", "node"),
        (Lns::Things, "e1+e2+e3+e4", "node"),
        (Lns::ChirpStack, "e1+e2+e4", "gateway"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let world = World::new(levels, &clear(lns, &broker));
        let mut radio = world.device(DEV_EUI, &[]);
        world.listens(1).await;
        let ear = broker.hear(&lns.commands());
        let mut numbers = Vec::new();
        for f_cnt in 0..3 {
            let (number, frame) = radio.reading();
            let (topic, event) = lns.event(DEV_EUI, f_cnt, frame[0], &frame[1..]);
            broker.publish(&topic, &event);
            // Custody first, then the cloud's own, or that alone.
            while !radio.has(number) {
                let (device, answer) = lns.command(ear.next(|| world.gateway().said()));
                let named = if lns == Lns::Things { format!("eui-{DEV_EUI}") } else { DEV_EUI.into() };
                assert_eq!(device, named);
                radio.hears(&answer);
            }
            numbers.push(number);
        }
        let readings = world.readings(DEV_EUI, 3).await;
        assert_eq!(readings.len(), 3);
        for r in &readings {
            assert_eq!((r["proof"].as_str(), r["e1"].as_str()), (Some(proof), Some("lorawan")), "{r}");
            assert_eq!((r["rssi"].as_i64(), r["insecure"].as_bool()), (Some(-87), Some(false)));
            // As the network server says, not as the gateway's clock does.
            assert!(r["received_ms"].as_u64() < r["ingested_ms"].as_u64());
            assert_eq!(r["records"][0]["value"], 25);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_broker_or_gateway_are_away_and_nothing_is_stored_twice() {
    let lns = Lns::ChirpStack;
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(folder.path());
    let mut world = World::new("e1+e3+e4", &clear(lns, &broker));
    let mut radio = world.device(DEV_EUI, &[]);
    world.listens(1).await;
    let mut f_cnt = 0;
    let mut send = |broker: &Mosquitto, frame: &[u8]| {
        f_cnt += 1;
        let (topic, event) = lns.event(DEV_EUI, f_cnt, frame[0], &frame[1..]);
        broker.publish(&topic, &event);
    };
    let ear = broker.hear(&lns.commands());
    let (number, first) = radio.reading();
    send(&broker, &first);
    world.readings(DEV_EUI, 1).await;
    radio.hears(&lns.command(ear.next(|| world.gateway().said())).1);
    assert!(radio.has(number));

    // The broker goes and comes back, and the gateway with it.
    broker.stop();
    world.gateway().says("the LoRaWAN broker is away").await;
    broker.restart();
    world.listens(2).await;
    let ear = broker.hear(&lns.commands());
    let (number, frame) = radio.reading();
    send(&broker, &frame);
    world.readings(DEV_EUI, 2).await;
    radio.hears(&lns.command(ear.next(|| world.gateway().said())).1);
    assert!(radio.has(number));

    // The gateway loses power: what comes meanwhile waits at the broker, also over a restart of that.
    world.gateway = None;
    for _ in 0..3 {
        send(&broker, &radio.reading().1);
    }
    broker.restart();
    let ear = broker.hear(&lns.commands());
    world.start();
    world.readings(DEV_EUI, 5).await;
    for _ in 0..3 {
        radio.hears(&lns.command(ear.next(|| world.gateway().said())).1);
    }

    // The same events again, as after a crash before the acknowledgement: known, and not stored.
    for _ in 0..2 {
        send(&broker, &first);
    }
    world.refused("E3-05", 2).await;
    send(&broker, &radio.reading().1);
    assert_eq!(world.readings(DEV_EUI, 6).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_counted_and_holds_nobody_up() {
    let lns = Lns::ChirpStack;
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let world = World::new("e1+e3+e4", &format!("{}abp = [\"70b3d57ed0052aff\"]\n", clear(lns, &broker)));
    let mut radio = world.device(DEV_EUI, &[]);
    let mut abp = world.device("70b3d57ed0052aff", &[]);
    world.listens(1).await;
    let file: Value = serde_json::from_str(include_str!("../../vectors/lorawan/chirpstack-up.json")).unwrap();
    let mut bad = 0;
    for case in file["cases"].as_array().unwrap() {
        let topic = case["topic"].as_str().unwrap();
        // Others are under topics that nobody asked for.
        if case["expect"]["refused"].is_string() && topic.ends_with("/up") && topic.contains(APPLICATION) {
            let event = case["raw"].as_str().map_or_else(|| case["event"].to_string(), str::to_owned);
            broker.publish(topic, event.as_bytes());
            bad += 1;
        }
    }
    broker.publish(&lns.event(DEV_EUI, 1, 1, &[]).0, &vec![b'['; 60_000]);
    // A port that is no rule of ours, and a device under ABP, which is no E1.
    let (number, frame) = radio.reading();
    let (topic, event) = lns.event(DEV_EUI, 1, 0x40, &frame[1..]);
    broker.publish(&topic, &event);
    let (_, from_abp) = abp.reading();
    let (topic, event) = lns.event("70b3d57ed0052aff", 1, from_abp[0], &from_abp[1..]);
    broker.publish(&topic, &event);
    let ear = broker.hear(&lns.commands());
    let (topic, event) = lns.event(DEV_EUI, 2, frame[0], &frame[1..]);
    broker.publish(&topic, &event);
    radio.hears(&lns.command(ear.next(|| world.gateway().said())).1);
    assert!(radio.has(number));
    assert!(bad >= 8, "{bad}");
    world.refused("T-01", bad + 2).await;
    world.refused("E3-08", 1).await;
    assert_eq!(world.readings(DEV_EUI, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_reached_by_tls_with_a_password_and_a_wrong_ca_is_refused() {
    let lns = Lns::ChirpStack;
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let broker = Mosquitto::with(folder.path(), Some(&tls), Some(("fivefold", "s3cret")));
    let password = folder.path().join("password");
    fivefold_keep::files::write(&password, fivefold_keep::files::Readers::Owner, b"s3cret\n").unwrap();
    let words = |ca: &Path| {
        format!(
            "{}broker = \"mqtts://localhost:{}\"\nca_file = \"{}\"\nusername = \"fivefold\"\npassword_file = \"{}\"\n",
            lns.settings(),
            broker.port,
            ca.display(),
            password.display()
        )
    };
    let mut world = World::new("e1+e3+e4", &words(&tls.ca));
    let mut radio = world.device(DEV_EUI, &[]);
    world.listens(1).await;
    let ear = broker.hear(&lns.commands());
    let (number, frame) = radio.reading();
    let (topic, event) = lns.event(DEV_EUI, 1, frame[0], &frame[1..]);
    broker.publish(&topic, &event);
    radio.hears(&lns.command(ear.next(|| world.gateway().said())).1);
    assert!(radio.has(number));
    assert!(!world.gateway().said().contains("s3cret"));

    // Somebody in the broker's place, whose certificate another CA signed.
    world.gateway = None;
    let file = world.d.path("farm/gateways/barn/gateway.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&tls.ca.display().to_string(), &world.d.ca())).unwrap();
    world.start();
    world.gateway().says("the LoRaWAN broker is away").await;
    assert!(world.gateway().said().contains("certificate"), "{}", world.gateway().said());

    // A password that others can read, and clear text by no other name than its own.
    world.gateway = None;
    let folder = world.d.at("farm/gateways/barn");
    fivefold_keep::files::write(&password, fivefold_keep::files::Readers::Everybody, b"s3cret\n").unwrap();
    let said = mistake(&["gateway", "run", "--dir", &folder]);
    assert!(said.contains("chmod 600"), "{said}");
    fs::write(&file, text.replace("mqtts://", "mqtt://")).unwrap();
    let said = mistake(&["gateway", "run", "--dir", &folder]);
    assert!(said.contains("lorawan.broker") && said.contains("insecure_mqtt"), "{said}");
}

/// A CA and a certificate for localhost.
fn certificates(folder: &Path) -> Tls {
    let [ca, certificate, key] = ["broker-ca.pem", "broker.pem", "broker.key"].map(|name| folder.join(name));
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(Vec::new()).unwrap();
    own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    own.distinguished_name.push(rcgen::DnType::CommonName, "a broker's CA");
    let signed = own.self_signed(&ca_key).unwrap();
    fs::write(&ca, signed.pem()).unwrap();
    let issuer = rcgen::Issuer::new(own, ca_key);
    let broker_key = rcgen::KeyPair::generate().unwrap();
    let broker = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    fs::write(&certificate, broker.signed_by(&broker_key, &issuer).unwrap().pem()).unwrap();
    fs::write(&key, broker_key.serialize_pem()).unwrap();
    Tls { ca, certificate, key }
}

/// What is in the vectors' events: the node that sent it.
const SERIAL: &str = "b1c69a9c4af277c9";

/// A case of the vectors of a network server: topic and event.
fn vector(lns: Lns, case: usize) -> (String, Vec<u8>) {
    let file = match lns {
        Lns::ChirpStack => include_str!("../../vectors/lorawan/chirpstack-up.json"),
        Lns::Things => include_str!("../../vectors/lorawan/things-stack-up.json"),
    };
    let file: Value = serde_json::from_str(file).unwrap();
    let case = &file["cases"][case];
    (case["topic"].as_str().unwrap().into(), case["event"].to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn waspmote_frames_of_either_network_server_are_stored_once_decoded_and_labelled() {
    for lns in [Lns::ChirpStack, Lns::Things] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let world = World::with(&["--classic"], &clear(lns, &broker));
        let dir = world.d.farm();
        let add = ["device", "add", "--dir", &dir, "--net", "orchard", "--classic"];
        world.told(&[&add[..], &[SERIAL, "--dev-eui", DEV_EUI]].concat());
        let other = "70b3d57ed0052aff";
        world.told(&[&add[..], &["0f0777f92eb00145", "--dev-eui", other]].concat());
        world.listens(1).await;

        // A tiny frame, twice, as after a lost acknowledgement; then a whole one.
        for case in [0, 0, 1] {
            let (topic, event) = vector(lns, case);
            broker.publish(&topic, &event);
        }
        let all = world.classic(SERIAL, 2).await;
        let [tiny, whole] = ["tiny", "information"].map(|kind| all.iter().find(|r| r["type"] == kind).unwrap());
        for r in [tiny, whole] {
            assert_eq!((&r["serial"], &r["proof"], &r["suite"]), (&json!(SERIAL), &json!("plain"), &json!("classic")));
            assert_eq!((&r["e1"], &r["rssi"], &r["sequence"]), (&json!("lorawan"), &json!(-87), &json!(203)), "{r}");
            let field = |tag: &str| r["fields"].as_array().unwrap().iter().find(|f| f["tag"] == tag).unwrap().clone();
            assert_eq!(field("STR")["values"], json!(["tiny541"]));
            assert_eq!(field("ACC")["values"], json!([172, 748, -921]));
        }
        assert_eq!(whole["node_id"], "nd81");

        // A whole frame of another node than the DevEUI's, and a DevEUI that is in no book.
        let frame = vector(lns, 1);
        let event = |dev_eui: &str| {
            let text = String::from_utf8(frame.1.clone()).unwrap();
            let topic = frame.0.replace(DEV_EUI, dev_eui);
            let upper = text.replace(&DEV_EUI.to_uppercase(), &dev_eui.to_uppercase());
            (topic, upper.replace(DEV_EUI, dev_eui).into_bytes())
        };
        let (topic, foreign) = event(other);
        broker.publish(&topic, &foreign);
        let (topic, stranger) = lns.event("70b3d57ed0052aaa", 9, 3, &[0x07, 0x04, 0x34, 0x50]);
        broker.publish(&topic, &stranger);
        world.refused("CL-03", 1).await;
        world.refused("CL-07", 1).await;
        let unknown = world.d.ask("/v1/classic/unknown").await;
        assert_eq!((&unknown[0]["serial"], &unknown[0]["carrier"]), (&json!("70b3d57ed0052aaa"), &json!("lorawan")));
        assert_eq!(world.classic(SERIAL, 2).await.len(), 2);
    }
}

impl World {
    /// Waits until the cloud has at least so many classic readings of a serial.
    async fn classic(&self, serial: &str, count: usize) -> Vec<Value> {
        for _ in 0..600 {
            let all = self.d.ask(&format!("/v1/readings?device={serial}")).await;
            let all = all["readings"].as_array().unwrap();
            if all.len() >= count {
                return all.clone();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the cloud never has {count} readings of {serial}: {}", self.gateway().said());
    }
}
