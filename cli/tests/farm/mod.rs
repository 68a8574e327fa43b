//! A deployment on free ports, for tests that look at it from outside.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

#[path = "../ports/mod.rs"]
mod ports;
pub mod secrets;
pub mod token;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use fivefold_keep::tls::{Anchor, Groups, client_config_api};
use serde_json::Value;
use tempfile::TempDir;

/// An operator's folder with a cloud, two networks, their gateways and a node of the first, on free ports.
pub struct Farm {
    pub folder: TempDir,
    pub ingest: SocketAddr,
    pub api: SocketAddr,
    pub radio: SocketAddr,
    pub node: SocketAddr,
    pub did: String,
    pub token: PathBuf,
}

pub fn fivefold(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json"]).args(arguments);
    command
}

pub fn answer(arguments: &[&str]) -> Value {
    let done = fivefold(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

impl Farm {
    pub fn new() -> Self {
        Self::with_levels("e1+e3+e4")
    }

    /// With networks of these levels.
    pub fn with_levels(levels: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let udp: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let [ingest, api] = [ports::free_tcp(), ports::free_tcp()];
        let [radio, node] = [0, 1].map(|i| udp[i].local_addr().unwrap());
        let token = folder.path().join("token");
        let mut farm = Self { folder, ingest, api, radio, node, did: String::new(), token };
        let dir = farm.path("");
        let (radio, node) = (radio.to_string(), node.to_string());
        answer(&["init", &dir, "--ingest", &ingest.to_string(), "--api", &api.to_string()]);
        for (net, name) in [("one", "north"), ("two", "south")] {
            answer(&["network", "add", "--dir", &dir, "--levels", levels, net]);
            answer(&["gateway", "add", "--dir", &dir, "--net", net, name, "--radio", &radio, "--air", &node]);
        }
        let device = answer(&["device", "add", "--dir", &dir, "--net", "one", "--bind", &node, "--air", &radio]);
        farm.did = device["did"].as_str().unwrap().to_owned();
        fs::write(
            &farm.token,
            answer(&["token", "add", "--dir", &dir, "t", "--scope", "operate"])["token"].as_str().unwrap(),
        )
        .unwrap();
        farm
    }

    pub fn path(&self, part: &str) -> String {
        self.folder.path().join("farm").join(part).display().to_string()
    }

    pub fn cloud(&self) -> [String; 4] {
        ["cloud", "run", "--dir", &self.path("cloud")].map(str::to_owned)
    }

    pub fn gateway(&self) -> [String; 4] {
        ["gateway", "run", "--dir", &self.path("gateways/north")].map(str::to_owned)
    }

    pub fn node(&self) -> [String; 4] {
        ["node", "run", "--dir", &self.path(&format!("nodes/{}", self.did))].map(str::to_owned)
    }

    /// A TCP address that nobody listens at.
    pub fn free(&self) -> SocketAddr {
        ports::free_tcp()
    }

    pub fn stored(&self) -> usize {
        let (dir, token) = (self.path(""), self.token.display().to_string());
        let list = ["reading", "list", "--dir", &dir, "--token-file", &token, "--limit", "1000"];
        for _ in 0..100 {
            let done = fivefold(&list).output().unwrap();
            if done.status.success() {
                return serde_json::from_slice::<Value>(&done.stdout).unwrap().as_array().unwrap().len();
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the cloud does not answer");
    }

    /// Asks something of the cloud; the status of its answer.
    pub fn post(&self, path: &str, body: &'static str) -> u16 {
        let anchor = Anchor::from_pem(&fs::read(self.path("ca.pem")).unwrap()).unwrap();
        let tls = client_config_api(&anchor, Groups::HybridOnly).unwrap();
        let token = fs::read_to_string(&self.token).unwrap();
        let url = format!("https://localhost:{}{path}", self.api.port());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().use_preconfigured_tls(tls).build().unwrap();
            let request = client.post(url).bearer_auth(token).header("content-type", "application/json");
            request.body(body).send().await.unwrap().status().as_u16()
        })
    }
}

/// Runs something that must refuse, and returns its one sentence. Of a daemon the exit code says whether it lasts: `daemons.rs`.
pub fn refused(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refusal(&mut fivefold(&arguments))
}

/// As [`refused`], for a command in surroundings of its own.
pub fn refusal(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(matches!(status.code(), Some(2 | 78)), "{status} {command:?}: {text}");
    let last = text.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text}"));
    error["error"].as_str().unwrap().to_owned()
}

#[track_caller]
pub fn says(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "`{sentence}` does not say `{word}`");
    }
    assert!(!sentence.contains('\n') && sentence.len() < 400, "{sentence}");
    // No cause is told twice.
    for (i, part) in sentence.split(": ").enumerate() {
        assert!(!sentence.split(": ").skip(i + 1).any(|p| p == part && p.len() > 12), "{sentence}");
    }
}

/// Writes a file that its owner alone reads.
pub fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A daemon that ends with the test; files that it writes may have so many KiB (0: any size).
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(arguments: &[String], most: u32) -> Self {
        let limit = if most > 0 { format!("trap '' XFSZ; ulimit -f {};", most * 2) } else { String::new() };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit} exec \"$0\" -o json \"$@\""), env!("CARGO_BIN_EXE_fivefold")]);
        Self::spawn(command.args(arguments))
    }

    /// Starts one in surroundings of its own; what it says goes where the command says, or nowhere.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) {
        let told = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(told.success());
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
