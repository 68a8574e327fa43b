//! What a service manager sees of the daemons: when they are ready, that they live, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;

use std::fs;
use std::path::Path;
use std::process::Command;

use deployment::{Daemon, Deployment};

const READ_THROUGH: &str = "read through before anything is accepted";

/// Waits until the cloud answers, ends it by this signal, and says what it logged.
async fn until(d: &mut Deployment, signal: &str) -> String {
    d.ask("/v1/health").await;
    let mut cloud = d.cloud.take().unwrap();
    cloud.end(signal);
    let said = cloud.said();
    fs::remove_file(&cloud.log).unwrap();
    said
}

fn start(d: &mut Deployment) {
    d.cloud = Some(Daemon::start(&["cloud", "run", "--dir", &d.at("farm/cloud")], &d.path("cloud.log")));
}

#[tokio::test]
async fn a_store_is_read_through_after_a_stop_that_did_not_close_it_and_after_no_other() {
    let mut d = Deployment::new();
    let mark = d.path("farm/cloud/readings.db.closed");
    for (signal, read_before) in [("TERM", false), ("KILL", false), ("TERM", true), ("TERM", false)] {
        let said = until(&mut d, signal).await;
        assert_eq!(said.contains(READ_THROUGH), read_before, "{said}");
        assert_eq!(mark.exists(), signal == "TERM");
        start(&mut d);
    }
    until(&mut d, "TERM").await;
    // The same bytes in another file: a copy that was put back by hand.
    let (store, copy) = (d.path("farm/cloud/readings.db"), d.path("copy"));
    assert!(Command::new("cp").args(["-a".as_ref(), store.as_os_str(), copy.as_os_str()]).status().unwrap().success());
    fs::rename(&copy, &store).unwrap();
    start(&mut d);
    let said = until(&mut d, "TERM").await;
    assert!(said.contains(READ_THROUGH), "{said}");
}

/// Overwrites the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_store_that_was_changed_since_it_was_closed_is_found_damaged() {
    let mut d = Deployment::new();
    until(&mut d, "TERM").await;
    damage(&d.path("farm/cloud/readings.db"));
    let run = ["cloud", "run", "--dir", &d.at("farm/cloud")];
    let done = deployment::command(&run).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("is damaged"), "{said}");
}
