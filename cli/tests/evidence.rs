//! `fivefold evidence verify` answers by its exit code, in words, and in one JSON object a line, and opens no socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bundles;

use std::process::{Command, Output};

use bundles::put;
use fivefold_evidence::bundle::Bundle;
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

/// Takes the timestamp out of a bundle of the vectors: the files of the bundle without it, its trust file, its token and its list.
fn unstamped(folder: &std::path::Path, id: &str) -> [String; 4] {
    let [bundle, trust] = put(folder, id);
    let bytes = std::fs::read(&bundle).unwrap();
    let mut read = Bundle::parse(&bytes).unwrap();
    let stamp = read.timestamps.remove(0);
    let [token, list] = ["token", "list"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    std::fs::write(&token, stamp.token).unwrap();
    std::fs::write(&list, stamp.lists[0]).unwrap();
    std::fs::write(&bundle, read.emit().unwrap()).unwrap();
    [bundle, trust, token, list]
}

/// One sentence and exit code 2; no file was touched, and none is left behind.
fn refused(folder: &std::path::Path, arguments: &[&str], why: &str) {
    let files = || {
        let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        all.sort();
        all.into_iter().map(|f| (std::fs::read(&f).unwrap(), f)).collect::<Vec<_>>()
    };
    let before = files();
    let done = fivefold(arguments);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains(why) && said.trim_end().lines().count() == 1, "{said:?} does not say `{why}`");
    assert!(files() == before, "{why}");
}

#[test]
fn a_timestamp_is_added_if_it_holds_by_the_trust_file_and_else_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let [bundle, trust, token, list] = unstamped(folder.path(), "a timestamp");
    let add = ["evidence", "timestamp", &bundle, "--response", &token, "--crl", &list, "--trust", &trust];
    let whole = std::fs::read(&token).unwrap();
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&token, altered).unwrap();
    refused(folder.path(), &add, "not taken: the signature of a timestamp does not hold; nothing was written");
    std::fs::write(&token, whole).unwrap();
    let text = std::fs::read_to_string(&trust).unwrap();
    std::fs::write(&trust, text.split("[timestamps]").next().unwrap()).unwrap();
    refused(folder.path(), &add, "names no authority of timestamps; write it anew with: fivefold evidence trust --tsa");
    std::fs::write(&trust, text).unwrap();
    let done = fivefold(&add);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains("CN=Example TSA at 2026-09-21T14:14:20Z"), "{said}");
    let done = fivefold(&["-o", "json", "evidence", "verify", &bundle, "--trust", &trust]);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&said["verdict"], &said["timestamps"][0]["at"]), (&"proven".into(), &1_790_000_060.into()));
}

#[test]
fn no_timestamp_is_added_of_which_the_verifier_would_refuse_the_certificate_or_the_list() {
    for (certificate, why) in [
        ("with two purposes", "not for timestamps and nothing else"),
        ("that had ended", "was not valid when it signed"),
        ("by another authority of the same name", "the signature of a certificate does not hold"),
        ("listed as revoked at that time", "was revoked before it signed"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let id = format!("timestamp by a certificate {certificate}");
        let [bundle, trust, token, list] = unstamped(folder.path(), &id);
        let add = ["evidence", "timestamp", &bundle, "--response", &token, "--crl", &list, "--trust", &trust];
        refused(folder.path(), &add, why);
    }
}

#[test]
fn an_authority_that_answers_with_another_time_than_now_is_not_believed() {
    use std::io::{Read as _, Write as _};

    let folder = tempfile::tempdir().unwrap();
    let [bundle, trust, token, _] = unstamped(folder.path(), "a timestamp");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let token = std::fs::read(token).unwrap();
    let authority = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", token.len());
        socket.write_all(&[head.as_bytes(), &token].concat()).unwrap();
    });
    let add = ["evidence", "timestamp", &bundle, "--tsa", &url, "--trust", &trust];
    refused(folder.path(), &add, "the authority says that it is 2026-09-21T14:14:20Z, and this machine's clock says");
    authority.join().unwrap();
}
