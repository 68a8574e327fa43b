//! `fivefold node run` renews its keys with running daemons: the first ones, at the operator's order, by age, and after its
//! power was cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold};
use fivefold_keep::share::NodeShare;
use serde_json::Value;

/// Long enough for a slow machine to answer, and to start its daemons meanwhile.
const PATIENT: [&str; 2] = ["--renew-resend", "5"];
/// How long a node may say nothing at all.
const SILENCE: Duration = Duration::from_secs(90);

/// A node whose lines are read as they come.
struct Running {
    child: Child,
    lines: Receiver<Value>,
}

impl Running {
    fn start(farm: &Farm, more: &[&str]) -> Self {
        let arguments = farm.node();
        let mut command = fivefold(&arguments.each_ref().map(String::as_str));
        // A gateway that has no key of the device lets sixty messages a minute pass.
        command.args(["--every", "1.5", "--retry", "5", "--renew-pause", "1"]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    /// Reads on until this is said. Of which epoch, and what was said before.
    #[track_caller]
    fn until(&self, event: &str) -> (u64, Vec<Value>) {
        let mut said: Vec<Value> = Vec::new();
        while said.len() < 400
            && let Ok(line) = self.lines.recv_timeout(SILENCE)
        {
            if line["event"] == event {
                return (line["epoch"].as_u64().unwrap(), said);
            }
            said.push(line);
        }
        panic!("never said: {event}; last: {:?}", &said[said.len().saturating_sub(12)..]);
    }

    /// The same, of this epoch.
    #[track_caller]
    fn until_under(&self, epoch: u64, event: &str) -> Vec<Value> {
        let mut before = Vec::new();
        loop {
            let (found, said) = self.until(event);
            before.extend(said);
            if found == epoch {
                return before;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reason(said: &[Value]) -> &str {
    said.iter().rev().find(|l| l["event"] == "renewal_started").and_then(|l| l["reason"].as_str()).unwrap()
}

/// With a device that agrees its first contexts.
fn agreed(levels: &str) -> Farm {
    let mut farm = Farm::with_levels(levels);
    let (dir, node, radio) = (farm.path(""), farm.node.to_string(), farm.radio.to_string());
    answer(&["device", "revoke", "--dir", &dir, &farm.did]);
    let add = ["device", "add", "--dir", &dir, "--net", "one", "--bind", &node, "--air", &radio];
    let made = answer(&[&add[..], &["--first-contexts", "agreed"]].concat());
    farm.did = made["did"].as_str().unwrap().to_owned();
    farm
}

fn renews(levels: &str) {
    let farm = agreed(levels);
    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);

    let node = Running::start(&farm, &PATIENT);
    let (first, said) = node.until("renewed");
    assert_eq!(reason(&said), "enrolment");
    assert!(said.iter().all(|l| l["event"] != "sent"), "something was sent before there were keys");
    node.until_under(first, "delivered");

    // In the second of the agreement, perhaps: the order counts all the same.
    answer(&["device", "renew", "--dir", &farm.path(""), &farm.did]);
    let (second, said) = node.until("renewed");
    assert_eq!(reason(&said), "ordered");
    assert!(second > first);
    node.until_under(second, "renewal_confirmed");
    drop(node);

    // Its power was cut; it goes on with what it agreed on, and its numbers go on.
    let node = Running::start(&farm, &[&PATIENT[..], &["--renew-every", "3"]].concat());
    let (_, said) = node.until("delivered");
    assert_eq!(said[0]["epoch"], second, "{}", said[0]);
    let taken = said.iter().find(|l| l["event"] == "reading").unwrap();
    assert!(taken["number"].as_u64() >= Some(64), "{taken}");
    let (third, said) = node.until("renewed");
    assert_eq!(reason(&said), "age");
    assert!(third > second);
    node.until_under(third, "delivered");
    drop(node);

    let shown = answer(&["device", "show", "--dir", &farm.path(""), &farm.did]);
    assert!(shown["renewal"]["highest_epoch"].as_u64() >= Some(third), "{shown}");
    assert!(farm.stored() > 2);
}

#[test]
fn a_node_with_e3_renews_with_running_daemons() {
    renews("e1+e3+e4");
}

#[test]
fn a_node_with_e2_alone_renews_with_running_daemons() {
    renews("e1+e2+e4");
}

#[test]
fn a_node_with_e2_and_e3_renews_with_running_daemons() {
    renews("e1+e2+e3+e4");
}

#[test]
fn what_was_installed_leaves_the_share_when_other_keys_are_in_use() {
    let farm = Farm::with_levels("e1+e2+e3+e4");
    let folder = farm.path(&format!("nodes/{}", farm.did));
    let share = || NodeShare::read(Path::new(&folder)).unwrap();
    let has_contexts = |share: &NodeShare| (share.secrets.e3.is_some(), share.secrets.e2_root.is_some());
    let (installed, root_psk) = (has_contexts(&share()), share().secrets.root_psk);
    assert_eq!(installed, (true, true));
    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);
    let node = Running::start(&farm, &[&PATIENT[..], &["--renew-every", "3"]].concat());
    let (epoch, _) = node.until("renewed");
    node.until_under(epoch, "renewal_confirmed");
    drop(node);
    let left = share();
    assert_eq!((has_contexts(&left), left.secrets.root_psk == root_psk), ((false, false), true));
    // It goes on with what it agreed on, and its numbers go on.
    let node = Running::start(&farm, &PATIENT);
    let (_, said) = node.until("delivered");
    assert!(said[0]["epoch"].as_u64() >= Some(epoch), "{}", said[0]);
    drop(node);
    // Without its counters it does not start: the share is not a new one.
    std::fs::remove_dir_all(Path::new(&folder).join("state")).unwrap();
    let refused = fivefold(&farm.node().each_ref().map(String::as_str)).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lost the counters"));
}

#[test]
fn a_node_without_a_cloud_keeps_trying_and_says_so() {
    let farm = agreed("e1+e3+e4");
    let node = Running::start(&farm, &["--renew-resend", "0.5"]);
    let (first, _) = node.until("renewal_failed");
    let (second, said) = node.until("renewal_failed");
    assert_eq!(reason(&said), "enrolment");
    assert!(second > first);
    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);
    node.until("delivered");
}
