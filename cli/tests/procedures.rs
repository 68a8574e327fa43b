//! The procedures of docs/operate.md, typed as they stand there, with running daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold};
use serde_json::Value;

/// A deployment whose operator works through a procedure.
struct Walk {
    farm: Farm,
    cloud: Option<Daemon>,
    gateway: Option<Daemon>,
    /// What the page says and what stands for it here.
    words: Vec<(&'static str, String)>,
}

impl Walk {
    fn new(levels: &str) -> Self {
        let farm = Farm::with_levels(levels);
        let words = vec![
            ("field-7", "one".to_owned()),
            ("acde480000000001", farm.did.clone()),
            ("https://cloud.example:8443", format!("https://localhost:{}", farm.ingest.port())),
            ("192.0.2.10:17754", "127.0.0.1:0".to_owned()),
            ("/mnt/backup", "sets".to_owned()),
            ("/var/lib/fivefold-gateway/north", "farm/gateways/north".to_owned()),
        ];
        let cloud = Some(Daemon::start(&farm.cloud(), 0));
        let gateway = Some(Daemon::start(&farm.gateway(), 0));
        Self { farm, cloud, gateway, words }
    }

    /// What `line` answers, as JSON where it is a command of ours that worked.
    fn type_in(&mut self, line: &str) -> Value {
        match line {
            "systemctl stop fivefold-cloud" => self.cloud.take().unwrap().stop(),
            "systemctl start fivefold-cloud" => {
                self.cloud = Some(Daemon::start(&self.farm.cloud(), 0));
                // Who types the next line does so when it is up.
                self.wait(|w| TcpStream::connect(w.farm.ingest).is_ok());
            }
            "systemctl restart fivefold-gateway@north" => {
                self.gateway.take().unwrap().stop();
                self.gateway = Some(Daemon::start(&self.farm.gateway(), 0));
            }
            _ => return self.shell(line),
        }
        Value::Null
    }

    fn shell(&mut self, line: &str) -> Value {
        let typed = self.words.iter().fold(line.to_owned(), |line, (page, here)| line.replace(page, here));
        let program = Path::new(env!("CARGO_BIN_EXE_fivefold"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let ours = typed.starts_with("fivefold ") && !typed.contains(" > ");
        let typed = if ours { format!("{typed} -o json") } else { typed };
        let mut command = Command::new("sh");
        command.args(["-ec", &typed]).env("PATH", path).current_dir(self.farm.folder.path());
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "`{typed}`: {}", String::from_utf8_lossy(&done.stderr));
        let said: Value = if ours { serde_json::from_slice(&done.stdout).unwrap() } else { Value::Null };
        if let Some(hash) = said["ca_sha256"].as_str() {
            self.words.push(("00f1d2...", hash.to_owned()));
        }
        said
    }

    /// Works through the n-th block of a section.
    fn block(&mut self, title: &str, n: usize) -> Vec<Value> {
        let lines = blocks(title).swap_remove(n);
        lines.iter().map(|line| self.type_in(line)).collect()
    }

    /// Has the node take so many readings, and waits until they are confirmed.
    fn readings(&self, count: u32) {
        let node = self.farm.node();
        let mut node = fivefold(&node.each_ref().map(String::as_str));
        node.args(["--every", "0.3", "--retry", "1", "--wait", "90", "--count", &count.to_string()]);
        let done = node.output().unwrap();
        assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    }

    /// A node that takes readings until the test ends.
    fn node(&self) -> Daemon {
        let quick = ["--every", "0.7", "--retry", "1", "--renew-resend", "3", "--renew-pause", "1"];
        let words = self.farm.node().into_iter().chain(quick.map(str::to_owned));
        Daemon::start(&words.collect::<Vec<_>>(), 0)
    }

    fn device(&self) -> Value {
        answer(&["device", "show", "--dir", &self.farm.path(""), &self.farm.did])
    }

    #[track_caller]
    fn renewed(&self, epoch: u64) {
        self.wait(|w| w.device()["renewal"]["highest_epoch"].as_u64() >= Some(epoch));
    }

    /// Until more readings are stored than before.
    #[track_caller]
    fn readings_flow(&self) {
        let before = self.farm.stored();
        self.wait(|w| w.farm.stored() >= before + 2);
    }

    #[track_caller]
    fn wait(&self, until: impl Fn(&Self) -> bool) {
        let came = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(300));
            until(self)
        });
        assert!(came, "it never came: {}", self.device());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(3000)..]).into_owned()
}

/// The shell blocks of a section: lines without comments, those that go on joined.
fn blocks(title: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operate.md")).unwrap();
    let after = page.split_once(&format!("\n### {title}\n")).unwrap_or_else(|| panic!("no section {title}")).1;
    let section = after.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let shell = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = |block: &str| {
        let bare: Vec<&str> = block.lines().map(|line| line.split(" #").next().unwrap().trim_end()).collect();
        bare.join("\n").replace("\\\n", " ").lines().map(str::to_owned).collect()
    };
    shell.map(lines).collect()
}

#[test]
fn once_a_year() {
    let mut w = Walk::new("e1+e3+e4");
    w.readings(2);
    answer(&["token", "add", "--dir", &w.farm.path(""), "me"]);
    let said = w.block("Once a year", 0);
    assert_eq!(said[1]["ordered"], 1);
    // Everything new is good after a restart too, and the device renews.
    w.type_in("systemctl stop fivefold-cloud");
    w.type_in("systemctl start fivefold-cloud");
    let _node = w.node();
    w.renewed(2);
    w.readings_flow();
    assert!(std::fs::read_to_string(w.farm.folder.path().join("token-2027")).unwrap().len() > 20);
}

#[test]
fn a_stolen_node() {
    let mut w = Walk::new("e1+e3+e4");
    w.readings(1);
    let said = w.block("A stolen node", 0);
    assert_eq!((&said[0]["rotation"]["urgent"], &said[1]["rotation"]["index"]), (&true.into(), &2.into()));
    assert!(w.device()["revoked_at"].as_u64().is_some() && said[2]["did"] != w.farm.did.as_str());
}

#[test]
fn a_stolen_gateway() {
    let mut w = Walk::new("e1+e2+e3+e4");
    w.readings(1);
    let said = w.block("A stolen gateway", 0);
    assert!(said[1]["revoked_at"].as_u64().is_some(), "{}", said[1]);
    assert_eq!((said[3]["name"].as_str(), said[5]["epoch"].as_u64()), (Some("north-2"), Some(2)));
}

#[test]
fn a_lost_operator_key() {
    let mut w = Walk::new("e1+e3+e4");
    w.readings(1);
    w.shell("mkdir safe && cp farm/passphrase farm/vault.toml safe/ && rm farm/passphrase");
    w.block("A lost operator key", 0);

    w.shell("rm farm/ca-key.sealed");
    let said = w.block("A lost operator key", 1);
    assert_eq!(said[1]["to_invite"].as_array().unwrap().len(), 2);
    w.readings(2);
    assert_eq!(w.farm.stored(), 3);
}

#[test]
fn another_machine_another_name() {
    let mut w = Walk::new("e1+e3+e4");
    w.words.extend([("new.example", "127.0.0.2".to_owned()), ("cloud.example", "localhost".to_owned())]);
    w.words.push(("/mnt/moved", "moved".to_owned()));
    w.readings(1);
    w.block("Another machine, another name", 0);
    // The new machine: its cloud listens elsewhere, too. Gateways and nodes are machines of their own, and stay.
    w.shell("mv farm old && rm -r moved/gateways moved/nodes");
    w.shell("sed -i s/127.0.0.1/0.0.0.0/ moved/cloud/cloud.toml");
    let said = w.block("Another machine, another name", 1);
    assert_eq!(said[1]["names"], serde_json::json!(["127.0.0.2", "localhost"]));
    w.shell("mv old/gateways old/nodes farm/");
    // By the name that it knows, and by the new one.
    w.readings(1);
    w.block("Another machine, another name", 2);
    let said = w.block("Another machine, another name", 3);
    assert_eq!(said[0]["cloud"], format!("https://127.0.0.2:{}", w.farm.ingest.port()));
    w.readings(1);
    assert_eq!(w.farm.stored(), 3);
    // Who dials the old name is not let down by chance: it is in the certificate no more.
    let names = w.shell("fivefold cloud renew-certificate --dir farm")["names"].clone();
    assert_eq!(names, serde_json::json!(["127.0.0.2"]));
}

fn back_from_a_backup(levels: &str) {
    let mut w = Walk::new(levels);
    let _node = w.node();
    w.readings_flow();
    let said = w.block("Back from a backup", 0);
    assert_eq!((&said[0]["number"], &said[1]["whole"], &said[2][0]["of"]), (&0.into(), &true.into(), &"cloud".into()));
    // Of these the copy knows nothing.
    w.readings_flow();
    let running = fivefold(&["cloud", "restored", "--dir", &w.farm.path("")]).output().unwrap();
    assert!(text(&running.stderr).contains("in use"), "{}", text(&running.stderr));
    let said = w.block("Back from a backup", 2);
    let restored = &said[1]["restored"];
    assert_eq!((&restored["ordered"], &restored["contexts"]), (&1.into(), &1.into()));
    w.readings_flow();
    w.renewed(2);
    w.readings_flow();
}

#[test]
fn back_from_a_backup_with_e3() {
    back_from_a_backup("e1+e3+e4");
}

#[test]
fn back_from_a_backup_with_e2_and_e3() {
    back_from_a_backup("e1+e2+e3+e4");
}
