//! Classic nodes before a running gateway and cloud: their frames go in by HTTP, and what became of each comes from the cloud's API.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use fivefold_keep::registry::{ClassicKeys, ClassicSecret, NewClassic};
use fivefold_waspmote::{ClassicKey, Encrypted, EncryptedType, Frame, KeyBits};
use serde_json::Value;

use crate::deployment::{Daemon, Deployment, fivefold, free_udp, now};

/// The node and key of `attacks.json`.
pub const VICTIM: &str = "111ffd1b3e500f56";
pub const KEY: &str = "FQPiKck8QtMYffXGftVZHZfZnnLPiWZp";
/// BAT 80 and TC 21.5.
pub const FIELDS: &[u8] = &[52, 80, 74, 0, 0, 0xAC, 0x41];

/// Who holds a node's key.
#[derive(Clone, Copy)]
pub enum Holder {
    Cloud,
    Gateway,
}

/// A node of the book.
pub struct Node {
    pub serial: &'static str,
    /// Its 256-bit key as text, and the operator's words where it is weak.
    pub key: Option<(Holder, &'static str, Option<&'static str>)>,
}

impl Node {
    pub const fn plain(serial: &'static str) -> Self {
        Self { serial, key: None }
    }

    pub const fn keyed(serial: &'static str, holder: Holder, key: &'static str) -> Self {
        Self { serial, key: Some((holder, key, None)) }
    }
}

pub fn keys(holder: Holder, text: &str) -> ClassicKeys {
    let key = Some(ClassicSecret::read(text.as_bytes(), KeyBits::Aes256).unwrap());
    match holder {
        Holder::Cloud => ClassicKeys { gateway: None, cloud: key },
        Holder::Gateway => ClassicKeys { gateway: key, cloud: None },
    }
}

/// What a node was told, and what became of its frame.
#[derive(Debug)]
pub struct Verdict {
    /// Status and body of the answer.
    pub said: (u16, String),
    /// The reading it became.
    pub reading: Option<Value>,
    /// What was kept apart.
    pub aside: Option<Value>,
}

impl Verdict {
    /// The first code against it: the gateway's, or the cloud's.
    pub fn code(&self) -> String {
        if let Some(aside) = &self.aside {
            return aside["code"].as_str().unwrap().to_owned();
        }
        let flag = self.reading.as_ref().and_then(|r| r["flags"][0].as_str()).map(str::to_owned);
        let refused =
            self.said.1.split_whitespace().find(|w| w.starts_with("CL-") || w.starts_with("E5-")).map(str::to_owned);
        flag.or(refused).unwrap_or_else(|| "-".into())
    }

    /// `plain` or `legacy` for what became a reading.
    pub fn label(&self) -> &str {
        self.reading.as_ref().map_or("-", |r| r["proven"].as_str().unwrap())
    }
}

/// A farm with classic nodes, its cloud and a gateway that takes frames by HTTP.
pub struct Fleet {
    pub farm: Deployment,
    pub gateway: Daemon,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
}

impl Fleet {
    pub async fn new(nodes: &[Node]) -> Self {
        let farm = Deployment::new();
        let mut operator = farm.operator();
        let net = operator.registry.allow_classic("field-7").unwrap().net;
        for node in nodes {
            let mut new = NewClassic::plain(node.serial.parse().unwrap(), net);
            if let Some((holder, key, words)) = node.key {
                new.keys = keys(holder, key);
                new.words = words.map(str::to_owned);
            }
            operator.registry.add_classic(&operator.vault, &new, now()).unwrap();
        }
        let [radio] = free_udp();
        fivefold(&["gateway", "add", "--dir", &farm.farm(), "--net", "field-7", "north", "--radio", &radio]);
        let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [http, metrics] = [0, 1].map(|at| ports[at].local_addr().unwrap());
        drop(ports);
        let config = farm.path("farm/gateways/north/gateway.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let more = format!(
            "\n[insecure_http]\nbind = \"{http}\"\nconnections_per_address = 8\nrequest_seconds = 5\n\n\
             [metrics]\nbind = \"{metrics}\"\n"
        );
        std::fs::write(&config, text + &more).unwrap();
        let folder = farm.at("farm/gateways/north");
        let gateway = Daemon::start(&["gateway", "run", "--dir", &folder], &farm.path("north.log"));
        let fleet = Self { farm, gateway, http, metrics };
        let count = nodes.len();
        fleet.wait_for("the book at the gateway", || fleet.gauge("classic_devices") >= count as u64).await;
        fleet
    }

    pub async fn wait_for(&self, what: &str, mut is: impl FnMut() -> bool) {
        for _ in 0..2400 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {}", self.gateway.said());
    }

    /// The gateway's counters.
    fn page(&self) -> String {
        let mut page = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.metrics) {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
            let _ = stream.read_to_string(&mut page);
        }
        page
    }

    pub fn gauge(&self, name: &str) -> u64 {
        let name = format!("fivefold_gateway_{name} ");
        self.page().lines().find_map(|l| l.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    /// How often the gateway counted a code.
    pub fn counted(&self, code: &str) -> u64 {
        let code = format!("code=\"{code}\"");
        let page = self.page();
        let lines = page.lines().filter(|l| l.contains(&code));
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// The whole answer to a request, as it is.
    pub fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Posts a frame: status and body.
    pub fn post(&self, frame: &[u8]) -> (u16, String) {
        let frame = hex::encode_upper(frame);
        let request = format!("GET /getpost_frame_parser.php?frame={frame} HTTP/1.1\r\nConnection: close\r\n\r\n");
        let said = self.ask(request.as_bytes());
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{said}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Readings of a node, the latest first.
    pub async fn readings(&self, serial: &str) -> Vec<Value> {
        let path = format!("/v1/readings?device={}&order=desc&limit=1000", did(serial));
        self.farm.ask(&path).await["readings"].as_array().unwrap().clone()
    }

    /// What was kept apart of a node, the latest first.
    pub async fn aside(&self, serial: &str) -> Vec<Value> {
        let all = self.farm.ask("/v1/quarantine?limit=1000").await;
        all.as_array().unwrap().iter().filter(|q| q["device"] == did(serial)).cloned().collect()
    }

    /// Hands in a frame of a node, and waits until it is known what became of it.
    pub async fn try_frame(&self, serial: &str, frame: &[u8]) -> Verdict {
        let before = (self.readings(serial).await.len(), self.aside(serial).await.len());
        let said = self.post(frame);
        if said.0 != 200 {
            return Verdict { said, reading: None, aside: None };
        }
        for _ in 0..1200 {
            let (readings, aside) = (self.readings(serial).await, self.aside(serial).await);
            if readings.len() > before.0 {
                return Verdict { said, reading: readings.into_iter().next(), aside: None };
            }
            if aside.len() > before.1 {
                return Verdict { said, reading: None, aside: aside.into_iter().next() };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nothing became of {}: {}", hex::encode(frame), self.gateway.said());
    }
}

/// As the cloud names a node.
pub fn did(serial: &str) -> String {
    if serial.len() == 16 { serial.to_owned() } else { format!("{:016x}", serial.parse::<u32>().unwrap()) }
}

/// A binary frame of v15.
pub fn plain(serial: &str, node_id: &[u8], sequence: u8, fields: &[u8]) -> Vec<u8> {
    let mut frame = b"<=>\x06\0".to_vec();
    frame.extend(hex::decode(serial).unwrap());
    frame.extend_from_slice(node_id);
    frame.push(b'#');
    frame.push(sequence);
    frame.extend_from_slice(fields);
    frame[4] = (frame.len() - 5) as u8;
    frame
}

/// The same inside of an encrypted one.
pub fn sealed(kind: EncryptedType, key: &str, serial: &str, sequence: u8, fields: &[u8]) -> Vec<u8> {
    let inner = plain(serial, b"node_01", sequence, fields);
    let Ok(Frame::Clear(clear)) = Frame::parse(&inner) else { panic!("no frame") };
    let key = ClassicKey::from_text(key.as_bytes(), KeyBits::Aes256).unwrap();
    Encrypted::seal(kind, &clear, &key).unwrap()
}

pub fn vectors(name: &str) -> Value {
    let path = format!("{}/../vectors/waspmote/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}
