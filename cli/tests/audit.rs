//! `fivefold audit`: what the command says of a real folder, its exit codes, and its words about each rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(arguments).env_remove("FIVEFOLD_DIR").output().unwrap()
}

fn code(done: &Output) -> i32 {
    done.status.code().unwrap()
}

fn text(done: &Output) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

fn farm(folder: &Path) -> String {
    let dir = folder.join("farm").display().to_string();
    for arguments in [
        &["init", &dir][..],
        &["network", "add", "--dir", &dir, "dams"],
        &["gateway", "add", "--dir", &dir, "--net", "dams", "north"],
    ] {
        let done = run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    dir
}

#[test]
fn a_fresh_deployment_has_its_passphrase_beside_it_and_nothing_else_that_is_grave() {
    let folder = tempfile::tempdir().unwrap();
    let dir = farm(folder.path());
    let done = run(&["audit", "--dir", &dir, "-o", "json"]);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let grave: Vec<&Value> = report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] != "low").collect();
    assert!(!grave.is_empty() && grave.iter().all(|f| f["rule"] == "AR-36"), "{grave:?}");
    assert_eq!((code(&done), &report["networks"][0]["network"]), (1, &Value::from("dams")));
    assert_eq!(report["unreadable"], Value::Array(vec![]));

    // Waived, it passes, and is still there.
    let mut waivers = String::new();
    for finding in grave {
        let subject = finding["subject"]["words"].as_str().unwrap();
        let part = finding["finding"].as_str().unwrap();
        waivers += &format!(
            "[[waiver]]\nrule = \"AR-36\"\nsubject = \"{subject}\"\nfinding = \"{part}\"\nowner = \"M\"\nreason = \"r\"\nuntil = \"2999-12-31\"\n"
        );
    }
    let file = folder.path().join("waivers.toml");
    std::fs::write(&file, waivers).unwrap();
    let done = run(&["audit", "--dir", &dir, "--waivers", file.to_str().unwrap()]);
    let said = text(&done);
    assert_eq!(code(&done), 0, "{said}");
    assert!(said.contains("waived until 2999-12-31 by M (r)") && said.contains("Not looked at"), "{said}");

    // What the operator wants is more than what is there.
    let file = file.to_str().unwrap();
    let wants = run(&["audit", "--dir", &dir, "--waivers", file, "--profile", "e1+e2+e3+e4"]);
    assert_eq!(code(&wants), 1);
    assert!(text(&wants).contains("AR-06"), "{}", text(&wants));
}

#[test]
fn e1_alone_is_f_and_what_cannot_be_read_is_neither_yes_nor_no() {
    let folder = tempfile::tempdir().unwrap();
    let dir = farm(folder.path());
    let words = "a test bench, nothing else";
    let added = run(&["network", "add", "--dir", &dir, "--levels", "e1", "--danger-link-only", words, "bench"]);
    assert!(added.status.success());
    let done = run(&["audit", "--dir", &dir]);
    assert_eq!(code(&done), 1);
    assert!(text(&done).contains("F  network bench (never better than F: E1 alone)"), "{}", text(&done));
    std::fs::remove_file(format!("{dir}/passphrase")).unwrap();
    let done = run(&["audit", "--dir", &dir]);
    assert_eq!(code(&done), 2);
    assert!(text(&done).contains("--without-secrets"), "{}", text(&done));
    let nothing = folder.path().join("nothing").display().to_string();
    assert_eq!(code(&run(&["audit", "--dir", &nothing])), 2);
    let waivers = run(&["audit", "--dir", &dir, "--waivers", &nothing]);
    assert_eq!(code(&waivers), 2);
    assert!(String::from_utf8_lossy(&waivers.stderr).contains("waivers"));
}

#[test]
fn every_rule_is_listed_and_explained() {
    let listed: Value = serde_json::from_slice(&run(&["audit", "rules", "-o", "json"]).stdout).unwrap();
    let listed = listed.as_array().unwrap();
    assert!(listed.len() >= 44);
    for rule in listed {
        let id = rule["rule"].as_str().unwrap();
        for (text, least) in [("title", 5), ("why", 20), ("cure", 10), ("source", 5)] {
            assert!(rule[text].as_str().unwrap().len() > least, "{id} {text}");
        }
    }
    let one = text(&run(&["audit", "explain", "ar-19"]));
    assert!(one.contains("AR-19") && one.contains("What mends it: ") && one.contains("fivefold key rotate"), "{one}");
    let waiver = text(&run(&["audit", "explain", "waiver"]));
    assert!(waiver.contains("WAIVER") && waiver.contains("What mends it: "), "{waiver}");
    let none = run(&["audit", "explain", "AR-99"]);
    assert_eq!(code(&none), 2);
    assert!(String::from_utf8_lossy(&none.stderr).contains("fivefold audit rules"));
}

#[test]
fn a_reader_that_stops_is_no_fault_and_a_report_that_cannot_be_written_is_no_pass() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit/tests/fixtures/unit/good.service");
    let beside = format!("unit={}", unit.display());
    for arguments in [&["audit", "--beside", &beside][..], &["audit", "rules"]] {
        let run = |out: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_fivefold"))
                .args(arguments)
                .stdout(out)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut stops = run(Stdio::piped());
        drop(stops.stdout.take());
        let stops = stops.wait_with_output().unwrap();
        assert_eq!((code(&stops), String::from_utf8_lossy(&stops.stderr).as_ref()), (0, ""), "{arguments:?}");
        let full = run(std::fs::File::options().write(true).open("/dev/full").unwrap().into());
        let full = full.wait_with_output().unwrap();
        assert_eq!(code(&full), 2, "{arguments:?}");
        assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write"), "{arguments:?}");
    }
}
