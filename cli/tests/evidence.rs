//! `fivefold evidence verify` answers by its exit code, in words, and in one JSON object a line, and opens no socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bundles;

use std::process::{Command, Output};

use bundles::put;
use serde_json::Value;

fn fivefold(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(arguments).output().unwrap()
}

#[test]
fn the_exit_code_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    for (id, code, begins) in [
        ("plain", 0, "PROVEN. This reading"),
        ("all readings of a batch", 0, "PROVEN. Reading 1 of 4"),
        ("another payload", 1, "NOT PROVEN. This reading is refused at the step `path`"),
        ("one of two refused", 1, "PROVEN. Reading 1 of 2"),
        ("unreadable: cut", 2, "UNREADABLE."),
        ("unreadable: nothing", 2, "UNREADABLE."),
    ] {
        let [bundle, trust] = put(folder.path(), id);
        let done = fivefold(&["evidence", "verify", &bundle, "--trust", &trust]);
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(code), "{id}: {text}{}", String::from_utf8_lossy(&done.stderr));
        assert!(text.starts_with(begins), "{id}: {text}");
        assert_eq!(text.contains("NOT proven:"), text.contains("\nPROVEN") || text.starts_with("PROVEN"), "{text}");
        let done = fivefold(&["-o", "json", "evidence", "verify", &bundle, "--trust", &trust]);
        assert_eq!(done.status.code(), Some(code));
        for line in String::from_utf8(done.stdout).unwrap().lines() {
            let said: Value = serde_json::from_str(line).unwrap();
            assert_eq!(said["step"].is_null(), said["verdict"] == "proven", "{line}");
        }
    }
}

#[test]
fn a_wrong_trust_file_is_an_error_and_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let [bundle, trust] = put(folder.path(), "plain");
    let text = std::fs::read_to_string(&trust).unwrap();
    std::fs::write(&trust, text.replace("need = ", "need = 9")).unwrap();
    let done = fivefold(&["evidence", "verify", &bundle, "--trust", &trust]);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(done.stderr).unwrap().contains("witnesses.need is 9"));
    let done = fivefold(&["evidence", "verify", &bundle, "--trust", "nothing.toml"]);
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn it_is_shown_what_is_in_a_bundle_and_said_that_nothing_of_it_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let [bundle, _] = put(folder.path(), "another payload");
    let done = fivefold(&["evidence", "show", &bundle]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && text.contains("nothing verified") && text.contains("12 timestamps"), "{text}");
    let done = fivefold(&["-o", "json", "evidence", "show", &bundle]);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(said["tbs"].as_str().unwrap().starts_with("87627231"));
}
