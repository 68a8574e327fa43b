//! A deployment on loopback with a running cloud, as its operator has it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../ports/mod.rs"]
mod ports;

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fivefold::operator::{Folder, Operator};
use fivefold_keep::ca::Role;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Word;
use fivefold_keep::share::{CERTIFICATE_FILE, GatewaySecrets};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::tls::{Anchor, Groups, Identity, client_config_api};
use fivefold_keep::vault::Vault;
use serde_json::Value;
use tempfile::TempDir;

pub use ports::free_tcp;

pub const DAY: u64 = 86_400;

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json"]).args(arguments);
    command
}

/// The answer of a command that must work.
#[track_caller]
pub fn fivefold(arguments: &[&str]) -> Value {
    let done = command(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// What a command says that must fail.
#[track_caller]
pub fn mistake(arguments: &[&str]) -> String {
    let done = command(arguments).output().unwrap();
    // Of a daemon it says whether it lasts: `daemons.rs`.
    assert!(matches!(done.status.code(), Some(2 | 78)), "{arguments:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "certificates are made for the time that is")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
pub fn tick() -> Instant {
    Instant::now()
}

/// A process that ends with the test.
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}

impl Daemon {
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::of(command(arguments), log)
    }

    /// The same, of a command that somebody added to.
    pub fn of(mut command: Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it by a signal, and waits until it has ended: the exit code, if there is one.
    pub fn end(&mut self, signal: &str) -> Option<i32> {
        let kill = ["-s", signal, &self.child.id().to_string()];
        assert!(Command::new("kill").args(kill).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    /// Waits until it says something.
    pub async fn says(&self, what: &str) {
        for _ in 0..400 {
            if self.said().contains(what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never says `{what}`: {}", self.said());
    }
}

impl Drop for Daemon {
    /// As a power cut ends it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Deployment {
    pub folder: TempDir,
    pub ingest: SocketAddr,
    pub api: SocketAddr,
    pub token: String,
    pub cloud: Option<Daemon>,
}

impl Deployment {
    /// A farm with one network, `field-7`, and its cloud running.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [ingest, api] = [free_tcp(), free_tcp()];
        let mut d = Self { folder, ingest, api, token: String::new(), cloud: None };
        let dir = d.farm();
        fivefold(&["init", &dir, "--ingest", &ingest.to_string(), "--api", &api.to_string()]);
        fivefold(&["network", "add", "--dir", &dir, "field-7"]);
        d.token =
            fivefold(&["token", "add", "--dir", &dir, "t", "--scope", "operate"])["token"].as_str().unwrap().to_owned();
        d.cloud = Some(Daemon::start(&["cloud", "run", "--dir", &d.at("farm/cloud")], &d.path("cloud.log")));
        d
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn farm(&self) -> String {
        self.at("farm")
    }

    /// Where gateways find the cloud.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.ingest.port())
    }

    pub fn ca(&self) -> String {
        self.at("farm/ca.pem")
    }

    pub fn anchor(&self) -> Anchor {
        Anchor::from_pem(&std::fs::read(self.ca()).unwrap()).unwrap()
    }

    pub fn operator(&self) -> Operator {
        Folder { dir: self.path("farm"), passphrase_file: None }.open().unwrap()
    }

    /// The cloud's API.
    pub async fn ask(&self, path: &str) -> Value {
        let tls = client_config_api(&self.anchor(), Groups::HybridOnly).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let url = format!("https://localhost:{}{path}", self.api.port());
        for _ in 0..200 {
            if let Ok(answer) = client.get(&url).bearer_auth(&self.token).send().await {
                assert_eq!(answer.status().as_u16(), 200, "{path}");
                return answer.json().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the cloud does not listen: {}", self.cloud.as_ref().map(Daemon::said).unwrap_or_default());
    }

    /// How often the cloud counted E4-01: of one gateway, or of all and nobody.
    pub async fn refusals(&self, gateway: Option<&str>) -> u64 {
        let rejections = self.ask("/v1/rejections").await;
        let rows = rejections.as_array().unwrap().iter().filter(|r| r["code"] == "E4-01" && r["place"] == "cloud");
        rows.filter(|r| gateway.is_none_or(|g| r["gateway"] == g)).map(|r| r["count"].as_u64().unwrap()).sum()
    }

    /// Waits until the cloud counted at least `wanted` of them.
    pub async fn refused(&self, gateway: Option<&str>, wanted: u64) {
        for _ in 0..200 {
            if self.refusals(gateway).await >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} refusals of {gateway:?}, {wanted} expected", self.refusals(gateway).await);
    }

    pub fn show(&self, gateway: &str) -> Value {
        fivefold(&["gateway", "show", "--dir", &self.farm(), gateway])
    }

    /// Waits until the history of a gateway has a deed so often.
    #[track_caller]
    pub fn done(&self, gateway: &str, deed: &str, times: usize, daemon: &Daemon) -> Value {
        for _ in 0..300 {
            let shown = self.show(gateway);
            let history = shown["history"].as_array().unwrap();
            if history.iter().filter(|e| e["what"] == deed).count() >= times {
                return shown;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("never {deed}: {:#}\n{}", self.show(gateway), daemon.said());
    }

    /// The certificate in a gateway's folder.
    pub fn identity(&self, folder: &Path) -> Identity {
        let vault = Vault::open_folder(folder).unwrap();
        let secrets = GatewaySecrets::read(&vault, folder).unwrap();
        let chain = std::fs::read(folder.join(CERTIFICATE_FILE)).unwrap();
        Identity::from_pkcs8(&chain, &secrets.tls_key).unwrap()
    }

    /// Gives a gateway's folder a certificate of the operator's that was made some days ago, and enters it.
    pub fn age(&self, gateway: &str, folder: &Path, days_ago: u64) {
        let mut operator = self.operator();
        let at = now() - days_ago * DAY;
        let gateway = operator.registry.gateway(gateway).unwrap();
        let role = Role::Gateway(gateway.net, gateway.gateway);
        let issued = operator.authority().unwrap().issue(&role, at, 90).unwrap();
        let vault = Vault::open_folder(folder).unwrap();
        let secrets = GatewaySecrets::read(&vault, folder).unwrap();
        let receipts = SigningKey::from_pkcs8(&secrets.signing_key).unwrap().spki().to_vec();
        GatewaySecrets { tls_key: issued.key, ..secrets }.write(&vault, folder).unwrap();
        let chain = issued.certified.chain.as_bytes();
        files::write(&folder.join(CERTIFICATE_FILE), Readers::Everybody, chain).unwrap();
        let owner = Some((gateway.gateway, receipts.as_slice()));
        let word = Word { who: "operator", at };
        operator.registry.enter_certificate(owner, &issued.certified, word).unwrap();
    }

    /// Adds a device to `field-7`, on the air with a radio: did and folder.
    pub fn device(&self, node: &str, radio: &str) -> (String, String) {
        let net = ["device", "add", "--dir", &self.farm(), "--net", "field-7", "--bind", node, "--air", radio];
        let did = fivefold(&net)["did"].as_str().unwrap().to_owned();
        let folder = self.at(&format!("farm/nodes/{did}"));
        (did, folder)
    }

    /// Sends readings from a node, which must all be confirmed.
    #[track_caller]
    pub fn readings(&self, node: &str, count: usize, gateway: &Daemon) {
        let (count, wait) = (count.to_string(), "30");
        let run = ["node", "run", "--dir", node, "--every", "0.2", "--count", &count, "--wait", wait];
        let sent = command(&run).output().unwrap();
        let words = String::from_utf8_lossy(&sent.stdout);
        assert!(sent.status.success(), "{words}\n{}\n{}", String::from_utf8_lossy(&sent.stderr), gateway.said());
    }
}

/// UDP addresses on loopback that are free.
pub fn free_udp<const N: usize>() -> [String; N] {
    let sockets: Vec<UdpSocket> = (0..N).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|i| sockets[i].local_addr().unwrap().to_string())
}
