//! The operator's log: who did what, when and from where; and that nobody alters it unseen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold};
use rusqlite::Connection;
use serde_json::Value;

fn log(farm: &Farm, more: &[&str]) -> (Option<i32>, Value) {
    let dir = farm.path("");
    let done = fivefold(&[&["operator", "log", "--dir", &dir], more].concat()).output().unwrap();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or_default())
}

fn lines(farm: &Farm) -> Vec<Value> {
    log(farm, &[]).1["lines"].as_array().unwrap().clone()
}

/// The operator's log against the evidence log, once that has all of it.
fn checked(farm: &Farm) -> Value {
    for _ in 0..100 {
        assert_eq!(farm.post("/v1/log/checkpoint", ""), 200);
        let (code, said) = log(farm, &["--check"]);
        if code == Some(0) && said["check"]["waiting"] == 0 && said["check"]["logged"].as_u64() > Some(0) {
            return said["check"].clone();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{:?}", log(farm, &["--check"]));
}

#[test]
fn who_did_what_is_in_the_log_and_whoever_alters_it_is_found() {
    let farm = Farm::new();
    let first = lines(&farm);
    let commands: Vec<_> = first.iter().map(|l| l["command"].as_str().unwrap()).collect();
    assert_eq!((commands[0], commands.last().unwrap()), ("init", &"token add"));
    for line in &first {
        assert!(line["who"].as_str().unwrap().starts_with("operator"), "{line}");
        assert!(line["who"].as_str().unwrap().contains("(uid "), "{line}");
    }
    let mut revoke = fivefold(&["gateway", "revoke", "--dir", &farm.path(""), "south"]);
    assert!(revoke.env("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22").status().unwrap().success());
    let revoked = lines(&farm).pop().unwrap();
    assert_eq!((&revoked["from"], &revoked["done"]), (&"ssh 192.0.2.7".into(), &"gateway revoked".into()));
    assert_eq!(log(&farm, &["--since", "2100-01-01"]).1["lines"].as_array().unwrap().len(), 0);
    assert_eq!(log(&farm, &["--since", "2020-01-01T00:00:00Z"]).1["lines"].as_array().unwrap().len(), first.len() + 1);
    assert_eq!(log(&farm, &["--since", "yesterday"]).0, Some(2));

    // With a cloud, lines go to the evidence log, those from before it and what comes by its API.
    let cloud = Daemon::start(&farm.cloud(), 0);
    farm.stored();
    let commands = format!("/v1/devices/{}/commands", farm.did);
    assert_eq!(farm.post(&commands, "{\"op\": 7, \"args\": [271828]}"), 202);
    let command = lines(&farm).pop().unwrap();
    assert_eq!((&command["who"], &command["done"]), (&"token t".into(), &"command queued".into()));
    assert_eq!(command["from"], "127.0.0.1");
    assert!(command["about"].as_str().unwrap().contains(&farm.did));
    assert!(!command.to_string().contains("271828"), "what a command carries is nobody else's: {command}");
    let all = lines(&farm).len() as u64;
    assert_eq!(checked(&farm)["logged"], all);
    cloud.stop();

    // One line altered, dropped, moved, or all after it written anew.
    let book = farm.path("registry.db");
    let tamper = |sql: &str| {
        let whole = std::fs::read(&book).unwrap();
        Connection::open(&book).unwrap().execute_batch(sql).unwrap();
        let found = log(&farm, &["--check"]);
        for more in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{book}{more}"));
        }
        std::fs::write(&book, whole).unwrap();
        found
    };
    // What stands beside the file goes into it.
    Connection::open(&book).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let last = all;
    for sql in [
        "UPDATE deeds SET who = 'nobody' WHERE n = 2".to_owned(),
        format!("UPDATE deeds SET place = 'pts/9' WHERE n = {last}"),
        "DELETE FROM deeds WHERE n = 2".to_owned(),
        format!("DELETE FROM deeds WHERE n = {last}"),
        "DELETE FROM deeds".to_owned(),
        "UPDATE deeds SET n = 99 WHERE n = 2; UPDATE deeds SET n = 2 WHERE n = 3; UPDATE deeds SET n = 3 WHERE n = 99"
            .into(),
        "UPDATE meta SET version = version + 1".to_owned(),
    ] {
        let (code, said) = tamper(&sql);
        assert_eq!((code, &said["check"]["holds"]), (Some(1), &Value::Bool(false)), "{sql}: {}", said["check"]);
        assert!(!said["check"]["wrong"].as_array().unwrap().is_empty(), "{sql}");
    }
    assert_eq!(log(&farm, &["--check"]).0, Some(0), "put back, it holds again");
}

#[test]
fn waivers_that_an_audit_was_told_of_are_in_the_log_once_and_so_are_their_changes() {
    let farm = Farm::new();
    let (dir, file) = (farm.path(""), farm.folder.path().join("waivers.toml"));
    let waiver = |until: &str| {
        let words = "rule = \"AR-09\"\nsubject = \"network one\"\nowner = \"Maria Keller\"\nreason = \"until March\"";
        std::fs::write(&file, format!("[[waiver]]\n{words}\nuntil = \"{until}\"\n")).unwrap();
    };
    let audit = || {
        let before = lines(&farm).len();
        let done = fivefold(&["audit", "--dir", &dir, "--waivers", file.to_str().unwrap()]).output().unwrap();
        assert!(matches!(done.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&done.stderr));
        lines(&farm).split_off(before)
    };
    waiver("2099-03-31");
    let told = audit();
    assert_eq!(told.len(), 1);
    let about = told[0]["about"].as_str().unwrap();
    assert_eq!((&told[0]["command"], &told[0]["done"]), (&"audit".into(), &"waived".into()));
    for word in ["AR-09", "network one", "Maria Keller", "2099-03-31"] {
        assert!(about.contains(word), "{about}");
    }
    assert!(!about.contains("until March"), "of the words there is a hash: {about}");
    assert!(audit().is_empty(), "once");
    waiver("2099-04-30");
    assert_eq!(audit()[0]["done"], "waiver changed");
    // Past its last day it holds nothing.
    waiver("2020-01-01");
    assert_eq!(audit()[0]["done"], "waiver removed");
    assert!(audit().is_empty());
    assert_eq!(answer(&["operator", "log", "--dir", &dir])["check"], Value::Null);

    // Those of a running cloud stand beside its config, and it enters them itself.
    let of_cloud = farm.path("cloud/waivers.toml");
    let run = || {
        let before = lines(&farm).len();
        let cloud = Daemon::start(&farm.cloud(), 0);
        farm.stored();
        cloud.stop();
        lines(&farm).split_off(before)
    };
    waiver("2099-03-31");
    std::fs::copy(&file, &of_cloud).unwrap();
    let told = run();
    assert_eq!((told.len(), &told[0]["who"], &told[0]["done"]), (1, &"cloud".into(), &"waived".into()));
    assert!(run().is_empty(), "once, whoever starts again");
    std::fs::remove_file(&of_cloud).unwrap();
    assert_eq!(run()[0]["done"], "waiver removed");
}

#[test]
fn what_is_done_at_a_gateway_is_a_line_in_its_folder() {
    let farm = Farm::new();
    let (north, set) = (farm.path("gateways/north"), farm.folder.path().join("set").display().to_string());
    let again = farm.path("gateways/north/passphrase-2");
    answer(&["gateway", "token", "add", "--dir", &north, "dam"]);
    answer(&["gateway", "token", "revoke", "--dir", &north, "dam"]);
    answer(&["vault", "rewrap", "passphrase-file", "--dir", &north, &again]);
    answer(&["vault", "rekey", "--dir", &north]);
    answer(&["gateway", "backup", "--dir", &north, "--to", &set]);
    let told = || answer(&["operator", "log", "--dir", &north])["lines"].as_array().unwrap().clone();
    let before = told();
    let done: Vec<_> = before.iter().map(|l| l["done"].as_str().unwrap()).collect();
    assert_eq!(done, ["token made", "token revoked", "vault rewrapped", "vault rekeyed", "backup made"]);
    assert!(before.iter().all(|l| l["who"].as_str().unwrap().contains("(uid ")), "{before:?}");
    assert_eq!((&before[0]["command"], &before[0]["about"]), (&"gateway token add".into(), &"token dam".into()));
    answer(&["gateway", "restore", "--dir", &north, "--from", &set, "--replace"]);
    let after = told();
    assert_eq!((&after[..4], &after[4]["done"]), (&before[..4], &"restored from a backup".into()));
    assert_eq!(fivefold(&["operator", "log", "--dir", &north, "--check"]).status().unwrap().code(), Some(2));
    // A token that was made is shown, whatever becomes of its line.
    let log = farm.path("gateways/north/operator.log");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let made = fivefold(&["gateway", "token", "add", "--dir", &north, "lake"]).output().unwrap();
    assert_eq!(made.status.code(), Some(2));
    let shown: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(shown["token"].as_str().unwrap().starts_with("ffb_"));
}

#[test]
fn a_token_goes_into_a_file_that_its_owner_alone_reads_and_another_file_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let farm = Farm::new();
    let (dir, file) = (farm.path(""), farm.folder.path().join("own").display().to_string());
    // Where it cannot be written there is no token, and the name stays free.
    let nowhere = farm.folder.path().join("nowhere/own").display().to_string();
    let refused = fivefold(&["token", "add", "--dir", &dir, "me", "--token-file", &nowhere]).status().unwrap();
    assert_eq!(refused.code(), Some(2));
    let said = answer(&["token", "add", "--dir", &dir, "me", "--token-file", &file]);
    assert_eq!((&said["token"], &said["token_file"]), (&Value::Null, &file.as_str().into()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let warned = |file: &str| {
        let done = fivefold(&["reading", "list", "--dir", &dir, "--token-file", file]).output().unwrap();
        String::from_utf8(done.stderr).unwrap().contains("can be read by others")
    };
    assert!(!warned(&file));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warned(&file));
}

#[test]
fn a_cloud_that_has_no_store_yet_says_so_when_it_is_checked() {
    let farm = Farm::new();
    let cloud = farm.path("cloud");
    let check = || answer(&["cloud", "run", "--dir", &cloud, "--check"])["store.begins"].clone();
    assert_eq!(check(), "empty: there is no store there yet");
    std::fs::write(farm.path("cloud/readings.db"), "").unwrap();
    assert_eq!(check(), Value::Null);
}
