//! An old copy of the cloud is put back, and a hostile gateway brings again all that it wrote down since: no reading comes of
//! it, devices deliver again by themselves, and the logs say what happened. Over real processes, so it takes its time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold};
use fivefold_core::wire::envelope::Envelope;
use fivefold_gateway::spool::SpoolReader;
use serde_json::Value;

/// How many messages the hostile gateway writes down, at least.
const CAPTURED: usize = 8;
/// Requests of a node that wait for an answer, at most (docs/protocol.md 9.1).
const WAITING: usize = 4;

struct Site {
    farm: Farm,
}

impl Site {
    fn shell(&self, line: &str) {
        let done = Command::new("sh").args(["-ec", line]).current_dir(self.farm.folder.path()).output().unwrap();
        assert!(done.status.success(), "`{line}`: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn cloud(&self) -> Daemon {
        Daemon::start(&self.farm.cloud(), 0)
    }

    fn gateway(&self) -> Daemon {
        Daemon::start(&self.farm.gateway(), 0)
    }

    /// A node that takes readings until the test ends.
    fn node(&self) -> Daemon {
        let quick = ["--every", "0.4", "--retry", "1", "--renew-resend", "3", "--renew-pause", "1"];
        let words = self.farm.node().into_iter().chain(quick.map(str::to_owned));
        Daemon::start(&words.collect::<Vec<_>>(), 0)
    }

    /// How many messages the gateway has, and the cloud has not. What the node sent again is one of them.
    fn kept(&self) -> usize {
        let store = self.farm.path("gateways/north/store.db");
        let page = SpoolReader::open(Path::new(&store)).unwrap().map(|spool| spool.page(None, 1000).unwrap());
        let page = page.unwrap_or_default();
        let message = |bytes| Envelope::parse(bytes).map(|e| (e.kind as u8, e.opened.map(|o| o.piv), e.bytes)).unwrap();
        page.iter().map(|(_, bytes)| message(bytes)).collect::<HashSet<_>>().len()
    }

    fn renewed_to(&self) -> u64 {
        let shown = answer(&["device", "show", "--dir", &self.farm.path(""), &self.farm.did]);
        shown["renewal"]["highest_epoch"].as_u64().unwrap()
    }

    /// What is held, of all gateways.
    fn held(&self) -> usize {
        let held = answer(&["reading", "held", "--dir", &self.farm.path("")]);
        held.as_array().unwrap().iter().map(|row| row["readings"].as_u64().unwrap() as usize).sum()
    }

    #[track_caller]
    fn until(&self, what: &str, came: impl Fn(&Self) -> bool) {
        let came = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            came(self)
        });
        assert!(came, "never: {what}; stored {}, held {}", self.farm.stored(), self.held());
    }
}

fn nothing_captured_comes_back(levels: &str) {
    let site = Site { farm: Farm::with_levels(levels) };
    let dir = site.farm.path("");
    let (cloud, gateway, node) = (site.cloud(), site.gateway(), site.node());
    site.until("readings before the copy", |s| s.farm.stored() >= 2);
    let set = site.farm.folder.path().join("set").display().to_string();
    let made = answer(&["cloud", "backup", "--dir", &dir, "--to", &set]);
    assert_eq!(made["number"], 0);
    // What the node sends between the copy and its stop is lost with the disk, as all that follows.
    node.stop();
    cloud.stop();

    // The hostile gateway writes down what the node sends from now on, before the cloud has it.
    let node = site.node();
    site.until("messages at the gateway", |s| s.kept() >= CAPTURED);
    node.stop();
    gateway.stop();
    site.shell("cp -a farm/gateways/north written-down");
    let captured = site.kept();
    let (cloud, gateway) = (site.cloud(), site.gateway());
    site.until("all of it at the cloud", |s| s.kept() == 0);
    let lost = site.farm.stored();
    gateway.stop();
    cloud.stop();

    // The copy is put back.
    let told = answer(&["cloud", "restore", "--dir", &dir, "--from", &set, "--replace"]);
    let restored = &told["restored"];
    assert_eq!((&restored["ordered"], &restored["to_enrol_again"]), (&1.into(), &Value::Array(Vec::new())), "{told}");
    let cloud = site.cloud();
    let before = site.farm.stored();
    assert!(before >= 2 && before < lost);

    // It has its own certificate, and brings all of it again.
    site.shell("mv farm/gateways/north honest && mv written-down farm/gateways/north");
    let hostile = site.gateway();
    site.until("all of it once more", |s| s.kept() == 0);
    hostile.stop();
    // Whatever the copy has is a repeat, as far as the node waited for answers then; all else is held.
    let held = site.held();
    assert!(held <= captured && held + WAITING >= captured, "{held} of {captured}");
    assert_eq!(site.farm.stored(), before, "a recording is a reading");
    site.shell("rm -r farm/gateways/north && mv honest farm/gateways/north");

    // Nobody touches the node.
    let (gateway, node) = (site.gateway(), site.node());
    site.until("new keys", |s| s.renewed_to() >= 2);
    site.until("readings under them", |s| s.farm.stored() >= before + 3);
    let of_node = site.held();
    node.stop();

    // What happened is in the logs, and in the alarms.
    assert_eq!(site.farm.post("/v1/log/checkpoint", ""), 200);
    let token = site.farm.token.display().to_string();
    let why = answer(&["why", "--dir", &dir, "--token-file", &token, "E3-14"]);
    assert!(why.to_string().contains("E3-14"), "{why}");
    site.until("the alarm", |s| {
        let alarms = answer(&["alarm", "list", "--dir", &s.farm.path(""), "--token-file", &token]);
        alarms.to_string().contains("E3-14")
    });
    let vkey = answer(&["log", "show", "--dir", &dir])["vkey"].as_str().unwrap().to_owned();
    let log = answer(&["log", "check", &site.farm.path("cloud/log"), "--log", &vkey]);
    assert_eq!((&log["holds"], &log["entries"]["rs"]), (&true.into(), &1.into()), "{log}");

    // It was all honest, says the operator while the cloud runs.
    let stored = site.farm.stored();
    let release = ["reading", "release", "--dir", &dir, "--gateway", "north"];
    let released = answer(&[&release[..], &["--since", "2100-01-01"]].concat());
    assert_eq!((&released["released"], site.held()), (&0.into(), of_node));
    let released = answer(&release);
    assert_eq!((&released["released"], site.held()), (&of_node.into(), 0));
    assert_eq!(site.farm.stored(), stored + of_node);
    let lines = answer(&["operator", "log", "--dir", &dir]);
    let line = lines["lines"].as_array().unwrap().last().unwrap();
    assert_eq!((&line["command"], &line["done"]), (&"reading release".into(), &"release of held readings".into()));
    assert!(line["about"].as_str().unwrap().contains("gateway north"), "{line}");
    for wrong in [&["reading", "release", "--dir", &dir][..], &["reading", "release", "--dir", &dir, "--gateway", "x"]]
    {
        assert_eq!(fivefold(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
    drop((cloud, gateway));
}

#[test]
fn nothing_captured_comes_back_with_e3() {
    nothing_captured_comes_back("e1+e3+e4");
}

#[test]
fn nothing_captured_comes_back_with_e2_and_e3() {
    nothing_captured_comes_back("e1+e2+e3+e4");
}

#[test]
fn nothing_captured_comes_back_with_e2() {
    nothing_captured_comes_back("e1+e2+e4");
}
