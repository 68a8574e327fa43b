//! The pages that a real gateway and a real cloud show to Prometheus are those of the table, and none names a device.
//!
//! With `FIVEFOLD_PAGES`, a folder, they are left there: `./ci.sh metrics` has promtool look at them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use deployment::{Daemon, Deployment, fivefold, free_tcp, free_udp};
use fivefold_core::error::Code;
use fivefold_core::metric::{Row, cloud, gateway};
use fivefold_keep::tls::{Groups, client_config_api};
use serde_json::Value;

/// Status line and body of what a gateway says to this.
fn ask(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    let (head, body) = said.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

async fn of_cloud(d: &Deployment, path: &str) -> Option<String> {
    let tls = client_config_api(&d.anchor(), Groups::HybridOnly).unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let url = format!("https://localhost:{}{path}", d.api.port());
    let answer = client.get(&url).bearer_auth(&d.token).send().await.ok()?;
    if path == "/v1/metrics" {
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    }
    answer.text().await.ok()
}

/// Metrics of the table that the page has no sample of.
fn missing(page: &str, table: &[Row]) -> Vec<&'static str> {
    let has = |row: &Row, line: &str| line.strip_prefix(row.name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    // Without a finding there is none to show.
    let is_clean = |row: &Row| row.name.ends_with("_audit_findings") && page.contains("_audit_grade 0\n");
    let missing = table.iter().filter(|row| !is_clean(row) && !page.lines().any(|line| has(row, line)));
    missing.map(|row| row.name).collect()
}

/// Every line is of the table, with just its labels.
fn check(page: &str, table: &[Row]) {
    let mut codes = BTreeSet::new();
    for line in page.lines() {
        let said = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        let name = said.split(['{', ' ']).next().unwrap();
        let row = table.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("not in the table: {line}"));
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind, format!("{name} {}", row.kind.as_str()));
        } else if !line.starts_with('#') {
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            let labels: Vec<_> =
                labels.split(',').filter(|l| !l.is_empty()).map(|l| l.split_once('=').unwrap()).collect();
            assert!(labels.iter().map(|(l, _)| *l).eq(row.labels.iter().map(|l| l.as_str())), "{line}");
            codes
                .extend(labels.iter().filter(|(l, _)| *l == "code").map(|(_, code)| code.trim_matches('"').to_owned()));
        }
    }
    assert_eq!(codes, Code::ALL.iter().map(ToString::to_string).collect());
}

#[tokio::test]
async fn both_pages_have_every_metric_and_every_code_and_no_device() {
    let mut d = Deployment::new();
    let farm = d.farm();
    // A sink that nobody listens at.
    let settings = d.path("farm/cloud/cloud.toml");
    let (ops, plant) = (free_tcp(), free_tcp());
    let more = format!(
        "\n[[alarm.sink]]\nname = \"ops\"\nwebhook = \"http://{ops}/\"\n\n[[outbox]]\nname = \"plant\"\nwebhook = \"http://{plant}/\"\n\n\
         [limits]\ndisk_max_mib = 1024\n"
    );
    std::fs::write(&settings, std::fs::read_to_string(&settings).unwrap() + &more).unwrap();
    fivefold(&["alarm", "add-secret", "--dir", &farm, "ops", "--draw"]);
    fivefold(&["outbox", "add-secret", "--dir", &farm, "plant", "--draw"]);
    d.cloud = None;
    d.cloud = Some(Daemon::start(&["cloud", "run", "--dir", &d.at("farm/cloud")], &d.path("cloud.log")));
    let [radio, node] = free_udp();
    fivefold(&["network", "add", "--dir", &farm, "--levels", "e1+e2+e3+e4", "both"]);
    let add = ["gateway", "add", "--dir", &farm, "--net", "both", "north", "--radio", &radio, "--air", &node];
    fivefold(&add);
    let device = ["device", "add", "--dir", &farm, "--net", "both", "--bind", &node, "--air", &radio];
    let device = fivefold(&device);
    let did = device["did"].as_str().unwrap();
    let config = d.path("farm/gateways/north/gateway.toml");
    let metrics = free_tcp();
    let text = std::fs::read_to_string(&config).unwrap() + &format!("\n[metrics]\nbind = \"{metrics}\"\n");
    std::fs::write(&config, text).unwrap();
    let folder = d.at("farm/gateways/north");
    let gateway = Daemon::start(&["gateway", "run", "--dir", &folder], &d.path("north.log"));
    let node_folder = d.at(&format!("farm/nodes/{did}"));
    let run = ["node", "run", "--dir", &node_folder, "--every", "0.2", "--retry", "1"];
    let _node = Daemon::start(&run, &d.path("node.log"));
    let mut health = None;
    while health.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        health = of_cloud(&d, "/v1/health").await;
    }
    let health = health.unwrap();
    assert!(health.contains("\"backup_at\":null"), "{health}");
    let before = deployment::now();
    fivefold(&["cloud", "backup", "--dir", &farm, "--to", &d.at("set")]);
    // No frame: it is refused and counted, and of that the gateway tells the cloud how it is.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut pages, mut lacking) = (None, Vec::new());
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stranger.send_to(b"no frame", &radio).unwrap();
        let Some((status, near)) = ask(metrics, "/metrics") else { continue };
        assert_eq!(status, "HTTP/1.1 200 OK");
        let Some(far) = of_cloud(&d, "/v1/metrics").await else { continue };
        lacking = [missing(&near, gateway::ALL), missing(&far, cloud::ALL)].concat();
        if lacking.is_empty() {
            pages = Some((near, far));
            break;
        }
    }
    let (near, far) = pages.unwrap_or_else(|| panic!("never shown: {lacking:?}\n{}", gateway.said()));
    let health: Value = serde_json::from_str(&of_cloud(&d, "/v1/health").await.unwrap()).unwrap();
    let backup = health["backup_at"].as_u64().unwrap();
    assert!(
        backup >= before && far.contains(&format!("\nfivefold_cloud_backup_timestamp_seconds {backup}\n")),
        "{health}"
    );
    check(&near, gateway::ALL);
    check(&far, cloud::ALL);
    let told: Value = serde_json::from_str(&ask(metrics, "/rejections").unwrap().1).unwrap();
    assert!(told.as_array().unwrap().iter().any(|row| row["code"] == "E1-11"), "{told}");
    assert!(ask(metrics, "/").unwrap().0.contains("404"));
    for page in [&near, &far] {
        assert!(!page.contains(did), "{page}");
    }
    if let Some(folder) = std::env::var_os("FIVEFOLD_PAGES") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::write(folder.join("gateway"), near).unwrap();
        std::fs::write(folder.join("cloud"), far).unwrap();
    }
}
