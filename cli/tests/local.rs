//! A site without a cloud, with real daemons: a node agrees its keys with the gateway alone, its readings stay there and are
//! read out there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use farm::{Daemon, answer, fivefold, refused, says};
use serde_json::Value;
use tempfile::TempDir;

/// Looks until there is something, for as long as a machine that has much else to do may take.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never {what}");
}

struct Site {
    folder: TempDir,
    did: String,
}

impl Site {
    /// An operator's folder with one network, its gateway, which agrees keys alone, and a node.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { folder, did: String::new() };
        let dir = site.path("");
        let udp: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let [radio, node] = [0, 1].map(|i| udp[i].local_addr().unwrap().to_string());
        answer(&["init", &dir]);
        answer(&["network", "add", "--dir", &dir, "--levels", "e1+e2+e4", "farm"]);
        answer(&["gateway", "add", "--dir", &dir, "--net", "farm", "shed", "--radio", &radio, "--air", &node]);
        let key = answer(&["gateway", "local", "--dir", &site.path("gateways/shed")])["key"].clone();
        answer(&["network", "local", "--dir", &dir, "farm", "--gateway", "shed", "--key", key.as_str().unwrap()]);
        let device = answer(&["device", "add", "--dir", &dir, "--net", "farm", "--bind", &node, "--air", &radio]);
        Self { did: device["did"].as_str().unwrap().into(), ..site }
    }

    fn path(&self, part: &str) -> String {
        self.folder.path().join("site").join(part).display().to_string()
    }

    fn tell(&self) -> Value {
        answer(&["gateway", "state", "--dir", &self.path(""), "shed"])
    }

    fn gateway(&self) -> [String; 4] {
        ["gateway", "run", "--dir", &self.path("gateways/shed")].map(str::to_owned)
    }

    /// A node that takes so many readings and ends when all of them are confirmed.
    fn node(&self, count: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let dir = self.path(&format!("nodes/{}", self.did));
        let run = ["node", "run", "--dir", &dir, "--count", count, "--every", "0.2", "--wait", "60", "--retry", "1"];
        let fast = ["--renew-resend", "1", "--renew-pause", "1"];
        let done = fivefold(&[&run[..], &fast, more].concat()).output().unwrap();
        let lines = String::from_utf8_lossy(&done.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        (done.status.code(), lines)
    }

    fn kept(&self, more: &[&str]) -> Vec<Value> {
        let dir = self.path("gateways/shed");
        let list = ["reading", "list", "--dir", &dir, "--limit", "1000"];
        answer(&[&list[..], more].concat()).as_array().unwrap().clone()
    }
}

fn agreed(lines: &[Value]) -> usize {
    lines.iter().filter(|l| l["event"] == "renewed").count()
}

fn is_reading(reading: &Value) -> bool {
    reading["records"].as_array().is_some_and(|r| !r.is_empty())
}

#[test]
fn a_node_agrees_with_the_gateway_alone_and_its_readings_are_read_out_there() {
    let site = Site::new();
    assert_eq!(site.tell()["devices"], 1);
    let gateway = Daemon::start(&site.gateway(), 0);
    let (code, lines) = site.node("4", &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(agreed(&lines), 1, "{lines:?}");
    // While the gateway runs.
    let kept = site.kept(&[]);
    let readings: Vec<&Value> = kept.iter().filter(|r| is_reading(r)).collect();
    assert!(readings.len() >= 4, "{kept:?}");
    for r in &readings {
        assert_eq!(
            (r["device"].as_str(), r["proof"].as_str(), r["epoch"].as_u64()),
            (Some(&*site.did), Some("gateway"), Some(1))
        );
    }
    // Both start again from what is durable, and renew under way.
    gateway.stop();
    let gateway = Daemon::start(&site.gateway(), 0);
    let (code, lines) = site.node("30", &["--renew-every", "2"]);
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(agreed(&lines) >= 1, "{lines:?}");
    let after = kept.last().unwrap()["id"].to_string();
    let later = site.kept(&["--after", &after]);
    assert!(later.iter().any(|r| r["epoch"].as_u64() > Some(1)), "{later:?}");
    assert_eq!(site.kept(&[]).len(), kept.len() + later.len());
    // What was read out is deleted once the gateway stands still.
    let shed = site.path("gateways/shed");
    let forget = ["reading", "forget", "--dir", &shed, "--upto", &after].map(str::to_owned);
    says(&refused(&forget), &["in use", "stop that one first"]);
    gateway.stop();
    let forget: Vec<&str> = forget.iter().map(String::as_str).collect();
    assert!(answer(&forget)["deleted"].as_u64().unwrap() >= kept.len() as u64);
    assert_eq!(site.kept(&[]).len(), later.len());
}

#[test]
fn a_gateway_that_was_put_back_from_a_copy_agrees_anew_with_its_devices_and_takes_nothing_twice() {
    let site = Site::new();
    site.tell();
    let shed = site.path("gateways/shed");
    let to = site.folder.path().join("set").display().to_string();
    let gateway = Daemon::start(&site.gateway(), 0);
    let (code, lines) = site.node("3", &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    let made = answer(&["gateway", "backup", "--dir", &shed, "--to", &to]);
    let copied = site.kept(&[]);
    assert_eq!((&made["of"], &made["holds"]["waiting"]), (&"gateway shed".into(), &copied.len().into()), "{made}");
    // Lost with the disk.
    let (code, lines) = site.node("2", &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    let restore = ["gateway", "restore", "--dir", &shed, "--from", &to, "--replace"];
    says(&refused(&restore.map(str::to_owned)), &["vault.toml is in use by a daemon"]);
    gateway.stop();
    let told = answer(&restore);
    assert!(told["restored"]["contexts"].as_u64() >= Some(1), "{told}");
    assert_eq!((&told["restored"]["waiting"], site.kept(&[])), (&copied.len().into(), copied.clone()));
    // The node renews in its own time; nobody touches it, and the operator's file is the one that the copy has.
    let _gateway = Daemon::start(&site.gateway(), 0);
    let node = site.path(&format!("nodes/{}", site.did));
    let words = ["node", "run", "--dir", &node, "--every", "0.3", "--retry", "1", "--renew-every", "4"];
    let _node = Daemon::spawn(fivefold(&words).args(["--renew-resend", "1", "--renew-pause", "1"]));
    let kept = until("six readings under new keys", || {
        let kept = site.kept(&[]);
        let after = kept.get(copied.len()..)?;
        (after.iter().filter(|r| is_reading(r)).count() >= 6).then_some(kept)
    });
    let after = kept.get(copied.len()..).unwrap();
    let epoch = |readings: &[Value]| readings.iter().filter_map(|r| r["epoch"].as_u64()).max();
    assert!(epoch(after) > epoch(&copied), "{kept:?}");
    // Under what was given up nothing is taken, for it may be a recording.
    let given_up = epoch(&copied);
    assert!(after.iter().all(|r| r["epoch"].as_u64() > given_up), "{kept:?}");
    let mut names: Vec<String> = kept.iter().map(|r| format!("{} {} {}", r["epoch"], r["boot"], r["number"])).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), kept.len(), "{kept:?}");
}

#[test]
fn the_network_key_is_rotated_by_the_same_file() {
    let site = Site::new();
    let dir = site.path("");
    site.tell();
    let _gateway = Daemon::start(&site.gateway(), 0);
    // One node all the time: who starts often soon gets no more answers to its HELLO in that minute.
    let log = site.path("node.log");
    let node = ["node", "run", "--dir", &site.path(&format!("nodes/{}", site.did)), "--every", "0.3", "--retry", "1"];
    let said = fs::File::create(&log).unwrap();
    let _node = Daemon(fivefold(&node).stdout(said).stderr(Stdio::null()).spawn().unwrap());
    // Until the gateway says that a reading came under this key.
    let under = |index: u64| {
        until("under the other key", || {
            let kept = site.kept(&[]);
            (kept.last()?["key_index"].as_u64() == Some(index)).then_some(())
        });
    };
    let tell = |verb: &[&str]| {
        answer(&[&["key"], verb, &["--dir", &dir, "--network", "farm"]].concat());
        site.tell();
    };
    under(1);
    tell(&["rotate"]);
    // The node has the new key when it says so.
    until("given the key", || fs::read_to_string(&log).unwrap().contains("link_keys").then_some(()));
    tell(&["switch"]);
    under(2);
    tell(&["retire", "--now"]);
    let before = site.kept(&[]).len();
    until("heard under the new key alone", || (site.kept(&[]).len() > before + 3).then_some(()));
    under(2);
}

#[test]
fn what_the_operator_writes_reaches_a_running_gateway_and_an_older_file_does_not() {
    let site = Site::new();
    let folder = site.path("gateways/shed");
    let file = Path::new(&folder).join("site.state");
    let metrics = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = Path::new(&folder).join("gateway.toml");
    let text = fs::read_to_string(&config).unwrap() + &format!("\n[metrics]\nbind = \"{metrics}\"\n");
    fs::write(&config, text).unwrap();
    let page = || until("counters", || get(&metrics).ok());
    let knows = |n: &str| until(n, || page().contains(&format!("fivefold_gateway_devices {n}\n")).then_some(()));
    // How often E4-03 was counted.
    let refused = || -> f64 {
        let page = page();
        let line = page.lines().find(|l| l.contains("code=\"E4-03\""));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    };
    // Nobody is known yet.
    let _gateway = Daemon::start(&site.gateway(), 0);
    knows("0");
    site.tell();
    knows("1");
    let old = fs::read(&file).unwrap();
    answer(&["device", "revoke", "--dir", &site.path(""), &site.did]);
    site.tell();
    knows("0");
    // An old copy, and something that is none.
    fs::write(&file, old).unwrap();
    until("refused", || (refused() >= 1.0).then_some(()));
    fs::write(&file, "nothing").unwrap();
    until("refused again", || (refused() >= 2.0).then_some(()));
    knows("0");
}

fn get(address: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[test]
fn every_mistake_gets_one_sentence_with_the_next_step() {
    let site = Site::new();
    let dir = site.path("");
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    // Under E3 a gateway never agrees keys.
    answer(&["network", "add", "--dir", &dir, "--levels", "e1+e2+e3+e4", "both"]);
    answer(&["gateway", "add", "--dir", &dir, "--net", "both", "tower"]);
    let key = answer(&["gateway", "local", "--dir", &site.path("gateways/tower")])["key"].as_str().unwrap().to_owned();
    let local = ["network", "local", "--dir", &dir, "both", "--gateway", "tower", "--key", &key];
    says(&refused(&own(&local)), &["E3", "--levels e1+e2+e4"]);
    says(&refused(&own(&["gateway", "state", "--dir", &dir, "tower"])), &["tower", "the cloud tells it"]);
    // A key is made once.
    let again = answer(&["gateway", "local", "--dir", &site.path("gateways/tower")]);
    assert_eq!(again["key"].as_str(), Some(&*key));
    let short = own(&["network", "local", "--dir", &dir, "farm", "--gateway", "shed", "--key", "00ff"]);
    let done = Command::new(env!("CARGO_BIN_EXE_fivefold")).args(&short).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("64 hex digits"));
    // Its devices agree with it, and with nobody else.
    let mode_r = ["device", "add", "--dir", &dir, "--net", "farm", "--mode", "R"];
    says(&refused(&own(&mode_r)), &["gateway alone", "mode P"]);
    says(&refused(&own(&["device", "renew", "--dir", &dir, &site.did])), &["gateway alone"]);
    // A gateway says one thing or the other, and has its key.
    let folder = site.path("gateways/shed");
    let config = Path::new(&folder).join("gateway.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.clone() + "\n[uplink]\ncloud = \"https://localhost:1\"\n").unwrap();
    says(&refused(&site.gateway()), &["gateway.toml", "[uplink]", "[local]"]);
    fs::write(&config, good.replace("[local]", "[limits]").replace("state = \"site.state\"", "")).unwrap();
    says(&refused(&site.gateway()), &["gateway.toml", "fivefold gateway local"]);
    fs::write(&config, good).unwrap();
    fs::remove_file(Path::new(&folder).join("local-key.sealed")).unwrap();
    says(&refused(&site.gateway()), &["local-key.sealed"]);
    let readings = ["reading", "list", "--dir", &site.path("gateways/tower")];
    assert!(answer(&readings).as_array().unwrap().is_empty());
}
