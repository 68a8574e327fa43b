//! A hardened classic node that signs, from the command that makes its key to a bundle that a stranger verifies, with running
//! daemons: node, gateway, cloud and a witness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold, private, refused};
use fivefold_keep::registry::{HardenedHolder, Registry};
use fivefold_keep::vault::Vault;
use serde_json::Value;

const NAME: &str = "8a7384477876150c";

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

/// Starts a witness of this log: where it is asked, and its keys.
fn witness(dir: &str, log: &str) -> (Daemon, String, Vec<String>) {
    answer(&["log", "witness", "--dir", dir, "--name", "witness.example/w"]);
    let listen = ["log", "witness", "--dir", dir, "--log", log, "--insecure-http", "127.0.0.1:0"];
    let mut child = fivefold(&listen).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let keys = ready["vkeys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
    (Daemon(child), ready["url"].as_str().unwrap().to_owned(), keys)
}

#[test]
fn what_a_hardened_node_signed_is_proven_to_a_stranger() {
    let farm = Farm::new();
    let dir = farm.path("");
    let at = |name: &str| farm.folder.path().join(name).display().to_string();
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    answer(&["network", "set", "--dir", &dir, "one", "--classic", "yes"]);
    answer(&["device", "add", "--dir", &dir, "--net", "one", "--classic", NAME, "--node-id", "n"]);
    let signs = at("signs.der");
    let make = ["device", "certify", "--dir", &dir, NAME, "--make", &signs].map(str::to_owned);
    assert!(refused(&make).contains("not hardened"));
    answer(&["device", "harden", "--dir", &dir, NAME]);
    let made = answer(&make.each_ref().map(String::as_str));
    assert_eq!((&made["origin"], &made["origin_words"]), (&3.into(), &"made elsewhere".into()));
    let check = String::from_utf8(fivefold(&["audit", "--dir", &dir]).output().unwrap().stdout).unwrap();
    assert!(check.contains("AR-26") && check.contains(NAME), "{check}");
    let again = ["device", "certify", "--dir", &dir, NAME, "--make", &at("other.der")].map(str::to_owned);
    assert!(refused(&again).contains("--replace"));

    let config = farm.path("gateways/north/gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[insecure_http]\nbind = \"{http}\"\n")).unwrap();
    let log = answer(&["log", "show", "--dir", &dir])["vkey"].as_str().unwrap().to_owned();
    let (_witness, url, vkeys) = witness(&at("witness"), &log);
    let config = farm.path("cloud/cloud.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let keys: Vec<String> = vkeys.iter().map(|key| format!("{key:?}")).collect();
    let more = format!("[[log.witnesses]]\nurl = {url:?}\nvkey = [{}]\n", keys.join(", "));
    let every = "head_every_s = 1\n";
    let text = match text.find("head_every_s") {
        Some(from) => {
            let end = text[from..].find('\n').map_or(text.len(), |n| from + n + 1);
            format!("{}{every}{}", &text[..from], &text[end..])
        }
        None => format!("{text}\n[log]\n{every}"),
    };
    std::fs::write(&config, format!("{text}\n{more}")).unwrap();

    let registry = Registry::open(
        &Path::new(&dir).join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let vault = Vault::open_folder(Path::new(&dir)).unwrap();
    let device = registry.classic_device(NAME.parse().unwrap()).unwrap();
    let primary = HardenedHolder::Gateway(registry.gateway("north").unwrap().gateway);
    let key = at("key");
    let digits = hex::encode(*registry.hardened_keys(&vault, &device, primary, 1).unwrap()[0].key);
    private(Path::new(&key), &digits);

    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);
    let (to, state) = (http.to_string(), at("eeprom"));
    let node = |count: &str, batch: &str| -> Vec<Value> {
        let sends =
            ["node", "waspmote", "--serial", NAME, "--http", &to, "--seal", "hardened-gateway", "--key-file", &key];
        let signed = ["--state", &state, "--every", "0.01", "--count", count, "--sign", &signs, "--sign-batch", batch];
        let done = fivefold(&[&sends[..], &signed].concat()).output().unwrap();
        String::from_utf8(done.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // Until the cloud has told the gateway of it, the node is a stranger there.
    until("a frame is taken", || node("1", "64").iter().any(|said| said["event"] == "delivered").then_some(()));
    for batch in 1..=2 {
        let said = node("3", "3");
        let signed = said.iter().find(|said| said["event"] == "signed").unwrap();
        assert_eq!((&signed["batch"], &signed["readings"], &signed["parts"]), (&batch.into(), &3.into(), &3.into()));
    }

    let token = farm.token.display().to_string();
    let proofs = || -> Option<Vec<String>> {
        let done = fivefold(&["reading", "list", "--dir", &dir, "--token-file", &token]).output().unwrap();
        let all: Value = done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())?;
        let classic = all.as_array().unwrap().iter().filter(|r| r["serial"] == NAME);
        Some(classic.map(|r| r["proof"].as_str().unwrap().to_owned()).collect())
    };
    let is_signed = |all: &Vec<String>| all.iter().filter(|proof| *proof == "signed").count() == 6;
    let all = until("six readings are signed", || proofs().filter(is_signed));
    assert!(all.contains(&"legacy".into()) && all.len() == 7, "{all:?}");

    let (trust, bundles) = (at("trust.toml"), at("node.evb"));
    let mut words = vec!["evidence", "trust", "--dir", &dir, "--log", &log, "--need", "1", "--out", &trust];
    vkeys.iter().for_each(|key| words.extend(["--witness", key]));
    answer(&words);
    let export = ["evidence", "export", "--dir", &dir, "--token-file", &token, "--device", NAME];
    let always = ["--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--out", &bundles];
    until("six readings are proven", || {
        let done = fivefold(&[&export[..], &always].concat()).output().unwrap();
        let said: Value = serde_json::from_slice(&done.stdout).ok()?;
        (said["readings"] == 6).then_some(())
    });
    let verify = || {
        let done = fivefold(&["evidence", "verify", &bundles, "--trust", &trust]).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (done.status.code(), said)
    };
    let (code, said) = verify();
    assert_eq!((code, said.len()), (Some(0), 6), "{said:#?}");
    assert_eq!((&said[0]["device"], &said[0]["level"], &said[5]["batch"]), (&NAME.into(), &2.into(), &2.into()));
    assert!(said[0]["payload"].as_str().unwrap().starts_with("3c3d3e06"));
    let elsewhere = said[0]["not_proven"].to_string();
    assert!(elsewhere.contains("elsewhere"), "{elsewhere}");
    // One bit of a signature: the last byte of item 4 stands before the certificates.
    let mut bytes = std::fs::read(&bundles).unwrap();
    let head = [0x59, 0x01, 0x00];
    let place = bytes.windows(3).position(|w| w == head).unwrap() + 3 + 255;
    bytes[place] ^= 1;
    std::fs::write(&bundles, bytes).unwrap();
    let (code, said) = verify();
    assert_eq!((code, said[0]["step"].as_str()), (Some(1), Some("signature")), "{said:#?}");
}
