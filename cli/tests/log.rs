//! `fivefold log`: a witness as a process, a log that asks it, and what monitors and checks say about true and altered files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use fivefold_cloud::log_key::{self, LOG_FOLDER};
use fivefold_cloud::witnesses::{Witness, publish};
use fivefold_evidence::log::{Entry, EntryKind, Log};
use fivefold_evidence::note::VKey;
use fivefold_keep::vault::Vault;
use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json"]).args(arguments);
    command
}

/// The exit code and the answer of a command.
fn ask(arguments: &[&str]) -> (i32, Value) {
    let done = command(arguments).output().unwrap();
    let answer = if done.stdout.is_empty() { &done.stderr } else { &done.stdout };
    let text = String::from_utf8_lossy(answer);
    let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    (done.status.code().unwrap(), value)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn witness(dir: &Path, log: &str) -> (Running, String, Vec<VKey>) {
    let mut child =
        command(&["log", "witness", "--dir", dir.to_str().unwrap(), "--log", log, "--insecure-http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let keys = ready["vkeys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().parse().unwrap()).collect();
    (Running(child), ready["url"].as_str().unwrap().into(), keys)
}

fn append(log: &Log, from: u64, count: u64) {
    let entries: Vec<_> = (from..from + count).map(|n| Entry::of(EntryKind::Batch, &n.to_be_bytes())).collect();
    log.append(&entries).unwrap();
}

#[test]
fn a_log_is_shown_cosigned_checked_and_monitored_and_a_changed_one_is_found() {
    let root = tempfile::tempdir().unwrap();
    let operator = root.path().join("farm");
    let dir = operator.to_str().unwrap();
    assert_eq!(ask(&["init", dir]).0, 0);
    let (code, shown) = ask(&["log", "show", "--dir", dir]);
    assert_eq!((code, shown["size"].as_u64()), (0, Some(0)));
    let vkey = shown["vkey"].as_str().unwrap();

    // A witness with a name of its own, made once; its keys stay.
    let (w, memory) = (root.path().join("w"), root.path().join("memory.toml"));
    assert_eq!(ask(&["log", "witness", "--dir", w.to_str().unwrap()]).0, 2, "a new one needs a name");
    let made = ask(&["log", "witness", "--dir", w.to_str().unwrap(), "--name", "w.example/1"]);
    assert_eq!((made.0, made.1["vkeys"].as_array().unwrap().len()), (0, 2));
    assert_eq!(ask(&["log", "witness", "--dir", w.to_str().unwrap(), "--name", "w.example/2"]).0, 2);
    let (running, url, keys) = witness(&w, vkey);
    let again: Vec<_> = made.1["vkeys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect();
    assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), again);

    let vault = Vault::open_folder(&operator).unwrap();
    let cloud = operator.join("cloud");
    let key = log_key::open_or_make(&cloud, &vault, "").unwrap();
    assert_eq!(key.vkey().to_string(), vkey);
    let folder = cloud.join(LOG_FOLDER);
    let log = Arc::new(Log::open(&folder, key).unwrap());
    append(&log, 0, 300);
    let witnesses = Arc::new(vec![Witness::new(&url, keys.clone(), None).unwrap()]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let published = runtime.block_on(publish(&log, &witnesses)).unwrap();
    assert!(published.failed.is_empty(), "{:?}", published.failed);

    let (code, shown) = ask(&["log", "show", "--dir", dir]);
    assert_eq!((code, shown["size"].as_u64()), (0, Some(300)));
    let kinds: Vec<_> = shown["signatures"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Ed25519", "ML-DSA-44"]);

    let files = folder.to_str().unwrap();
    let head = root.path().join("head");
    std::fs::write(&head, published.signed.to_string()).unwrap();
    let check = ["log", "check", files, "--log", vkey, "--since", head.to_str().unwrap()];
    let pins: Vec<_> = keys.iter().map(ToString::to_string).collect();
    let monitor = [
        "log",
        "monitor",
        files,
        "--log",
        vkey,
        "--witness",
        &pins[0],
        "--witness",
        &pins[1],
        "--memory",
        memory.to_str().unwrap(),
    ];
    let (code, checked) = ask(&check);
    assert_eq!(
        (code, checked["entries"]["b1"].as_u64(), checked["others"].as_u64()),
        (0, Some(300), Some(0)),
        "{checked}"
    );
    let (code, look) = ask(&monitor);
    assert_eq!((code, look["size"].as_u64(), look["strangers"].as_array().unwrap().len()), (0, Some(300), 0), "{look}");
    append(&log, 300, 300);
    runtime.block_on(publish(&log, &witnesses)).unwrap();
    assert_eq!((ask(&check).0, ask(&monitor).0), (0, 0));

    // The witness ends and starts again: it remembers.
    drop(running);
    let (_running, url, _) = witness(&w, vkey);
    let fork = root.path().join("fork");
    let forked = Arc::new(Log::open(&fork, log_key::open_or_make(&cloud, &vault, "").unwrap()).unwrap());
    append(&forked, 1, 600);
    let asked = Arc::new(vec![Witness::new(&url, keys, None).unwrap()]);
    let published = runtime.block_on(publish(&forked, &asked)).unwrap();
    assert!(published.failed[0].1.is_alarm(), "{:?}", published.failed);
    let mut kept: Vec<_> = std::fs::read_dir(w.join("state"))
        .unwrap()
        .filter_map(|f| Some(f.unwrap().path().extension()?.to_string_lossy().into_owned()))
        .collect();
    kept.sort();
    assert_eq!(kept, ["fork-0", "head"], "beside the lock, which has no extension");
    // A second process on the same records could cosign another head of one size.
    let second =
        ask(&["log", "witness", "--dir", w.to_str().unwrap(), "--log", vkey, "--insecure-http", "127.0.0.1:0"]);
    assert_eq!(second.0, 2, "{}", second.1);
    assert!(second.1.to_string().contains("stop that one first"), "{}", second.1);

    let mut there = monitor;
    there[2] = fork.to_str().unwrap();
    let (code, look) = ask(&there);
    assert_eq!(code, 1, "{look}");
    assert!(look["findings"][0]["text"].as_str().unwrap().contains("forked"), "{look}");
    let proof = std::fs::read_to_string(look["proofs"][0].as_str().unwrap()).unwrap();
    assert_eq!(proof.matches("\n600\n").count(), 2, "both heads of 600 entries");
    let mut against = check;
    against[2] = fork.to_str().unwrap();
    assert_eq!(ask(&against).0, 1);

    // A changed byte, another key, and nothing at all.
    let bundle = folder.join("tile/entries/000");
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let (code, wrong) = ask(&check);
    assert_eq!((code, wrong["holds"].as_bool()), (1, Some(false)), "{wrong}");
    assert!(wrong["reason"].as_str().unwrap().contains("entry 2"), "{wrong}");
    assert_eq!(ask(&["log", "check", files, "--log", &pins[0]]).0, 1);
    assert_eq!(ask(&["log", "check", files, "--log", "x"]).0, 2);
    assert_eq!(ask(&["log", "check", "/nowhere", "--log", vkey]).0, 2);
    assert_eq!(ask(&["log", "monitor", "http://127.0.0.1:9/", "--log", vkey]).0, 2);
}
