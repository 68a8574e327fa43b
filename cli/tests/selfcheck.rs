//! Daemons look at themselves before they start and while they run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use farm::{Daemon, Farm, fivefold, refused};
use serde_json::Value;

/// A waiver for what a gateway has that it may not have.
fn waiver(until: &str) -> String {
    format!(
        "[[waiver]]\nrule = \"AR-05\"\nsubject = \"gateway north\"\nfinding = \"node.toml\"\nowner = \"Maria Keller\"\n\
         reason = \"a bench\"\nuntil = \"{until}\"\n"
    )
}

fn page(of: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(of).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

#[test]
fn a_gateway_with_a_file_that_none_may_have_starts_only_if_somebody_answers_for_it() {
    let farm = Farm::new();
    let at = |name: &str| farm.path(&format!("gateways/north/{name}"));
    let check = || [&farm.gateway()[..], &["--check".to_owned()]].concat();
    assert!(fivefold(&check().iter().map(String::as_str).collect::<Vec<_>>()).status().unwrap().success());
    fs::write(at("node.toml"), "").unwrap();
    for refusal in [refused(&check()), refused(&farm.gateway())] {
        farm::says(&refusal, &["AR-05", "node.toml", "waivers.toml", "rule = \"AR-05\", subject = \"gateway north\""]);
    }
    fs::write(at("waivers.toml"), waiver("2020-01-01")).unwrap();
    assert!(refused(&farm.gateway()).contains("ended with 2020-01-01"));
    fs::write(at("waivers.toml"), waiver("2999-12-31").replace("owner", "over")).unwrap();
    assert!(refused(&farm.gateway()).contains("waivers.toml:5"));
    fs::write(at("waivers.toml"), waiver("2999-12-31")).unwrap();
    assert!(fivefold(&check().iter().map(String::as_str).collect::<Vec<_>>()).status().unwrap().success());

    // It runs, says by whose word, and shows what it found beside.
    let metrics = farm.free();
    let config = fs::read_to_string(at("gateway.toml")).unwrap();
    fs::write(at("gateway.toml"), format!("{config}\n[metrics]\nbind = \"{metrics}\"\n")).unwrap();
    let log = fs::File::create(farm.folder.path().join("log")).unwrap();
    let arguments = farm.gateway();
    let mut command = fivefold(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let _gateway = Daemon(command.stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap());
    let mut seen = String::new();
    for _ in 0..300 {
        seen = page(metrics).unwrap_or_default();
        if seen.contains("fivefold_gateway_audit_findings{") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen.contains("fivefold_gateway_audit_findings{rule=\"AR-36\",severity=\"medium\"} 1\n"), "{seen}");
    assert!(!seen.contains("\nfivefold_gateway_audit_grade "), "nobody told it of its devices yet: {seen}");
    let said = fs::read_to_string(farm.folder.path().join("log")).unwrap();
    assert!(said.contains("waived until 2999-12-31 by Maria Keller (a bench)"), "{said}");
}

impl Site {
    /// A farm whose cloud runs.
    fn new() -> Self {
        let farm = Farm::new();
        let dir = farm.path("");
        let words = "a test bench, nothing else";
        farm::answer(&["network", "add", "--dir", &dir, "--levels", "e1", "--danger-link-only", words, "bench"]);
        let cloud = Daemon::start(&farm.cloud(), 0);
        Self { farm, cloud }
    }

    /// What the audit says with the running cloud, once it says that.
    fn audit(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let (dir, token) = (self.farm.path(""), self.farm.token.display().to_string());
        let mut last = Value::Null;
        for _ in 0..30 {
            let done = fivefold(&["audit", "--dir", &dir, "--live", "--token-file", &token]).output().unwrap();
            last = serde_json::from_slice(&done.stdout).unwrap_or_default();
            if is_it(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        panic!("{last:#}");
    }
}

struct Site {
    farm: Farm,
    cloud: Daemon,
}

fn findings<'a>(report: &'a Value, rule: &str) -> Vec<&'a Value> {
    report["findings"].as_array().into_iter().flatten().filter(|f| f["rule"] == rule).collect()
}

#[test]
fn a_cloud_shows_its_grade_counts_what_is_critical_and_names_a_node_that_runs_another_policy() {
    let site = Site::new();
    let health = fetch(&site.farm, "/v1/health", |h| !h["audit"].is_null());
    assert_eq!(health["audit"]["grade"], "F", "{health}");
    let report = fetch(&site.farm, "/v1/audit", |_| true);
    assert_eq!(findings(&report, "AR-01").len(), 1, "{report:#}");
    let rows = fetch(&site.farm, "/v1/rejections", |rows| {
        rows.as_array().is_some_and(|r| r.iter().any(|r| r["code"] == "CF-01"))
    });
    let counted: Vec<&Value> = rows.as_array().unwrap().iter().filter(|r| r["code"] == "CF-01").collect();
    assert_eq!(
        (counted.len(), &counted[0]["count"], &counted[0]["place"]),
        (1, &1.into(), &"cloud".into()),
        "{rows:#}"
    );

    let _gateway = Daemon::start(&site.farm.gateway(), 0);
    let node = Daemon::start(&site.farm.node(), 0);
    let judged = |report: &Value, id: &str| -> Value {
        report["rules"].as_array().into_iter().flatten().find(|r| r["rule"] == id).cloned().unwrap_or_default()
    };
    let seen = site.audit(|report| judged(report, "AR-41")["not_looked_at"] == Value::Array(vec![]));
    assert!(findings(&seen, "AR-41").is_empty(), "{seen:#}");
    node.stop();
    let config = site.farm.path(&format!("nodes/{}/node.toml", site.farm.did));
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("ack_every"), "{text}");
    let line = text.lines().find(|line| line.starts_with("renew_days")).unwrap();
    fs::write(&config, text.replace(line, "renew_days = 77")).unwrap();
    let node = Daemon::start(&site.farm.node(), 0);
    let seen = site.audit(|report| findings(report, "AR-41").iter().any(|f| f["finding"] == "reported"));
    let found = findings(&seen, "AR-41");
    let reported = found.iter().find(|f| f["finding"] == "reported").unwrap();
    assert_eq!(reported["subject"]["words"], format!("device {}", site.farm.did));
    node.stop();
    site.cloud.stop();
}

#[test]
fn a_cloud_whose_store_was_put_back_as_if_nothing_had_happened_does_not_start() {
    let site = Site::new();
    fetch(&site.farm, "/v1/health", |health| health["status"] == "ok");
    let Site { farm, cloud } = site;
    let dir = farm.path("");
    cloud.stop();
    let store = ["readings.db", "readings.db-wal"].map(|name| farm.path(&format!("cloud/{name}")));
    let copies = store.clone().map(|file| fs::read(file).ok());
    let cloud = Daemon::start(&farm.cloud(), 0);
    let entries = |more_than: u64| {
        fetch(&farm, "/v1/log", |log| log["entries"].as_u64().is_some_and(|n| n > more_than))["entries"]
            .as_u64()
            .unwrap()
    };
    let before = entries(0);
    // What the book says, a store that is put back says again; of what was between, it knows nothing.
    for (sign, more) in [("batch:8", 0), ("none", 1)] {
        farm::answer(&["device", "set", "--dir", &dir, &farm.did, "--sign", sign]);
        entries(before + more);
    }
    cloud.stop();
    let _ = fs::remove_file(farm.path("cloud/readings.db-shm"));
    for (file, copy) in store.iter().zip(copies) {
        match copy {
            Some(copy) => fs::write(file, copy).unwrap(),
            None => drop(fs::remove_file(file)),
        }
    }
    farm::says(&refused(&farm.cloud()), &["AR-40", "fivefold cloud restored", "waivers.toml"]);
    farm::answer(&["cloud", "restored", "--dir", &dir]);
    let cloud = Daemon::start(&farm.cloud(), 0);
    entries(before);
    cloud.stop();
}

/// What the API says, once it says what is waited for.
fn fetch(farm: &Farm, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let ca = farm.folder.path().join("farm/ca.pem");
    let token = fs::read_to_string(&farm.token).unwrap();
    let api = fivefold::api::Api::new(&ca, &format!("https://{}", farm.api), token.trim()).unwrap();
    let mut last = Value::Null;
    for _ in 0..300 {
        last = api.fetch(path).unwrap_or_default();
        if is_it(&last) {
            return last;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{path}: {last:#}");
}
