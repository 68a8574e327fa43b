//! Rows of a template, from a node's standard input to what a stranger reads in a bundle: names and units come from what the
//! operator registered, and the log says that he did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use farm::{Daemon, Farm, answer, fivefold, refused, says};
use fivefold_keep::share::{self, CLOUD_FILE, CloudSettings, CloudWitness, OneOrMore};
use serde_json::{Value, json};

const GATE: &str = "[[template]]\nid = 3\ncolumns = [{ name = \"level\", unit = \"m\" }, { name = \"gate/open\" }]\n";

/// Like [`answer`], for commands that take the farm's folder.
fn ask(farm: &Farm, words: &[&str]) -> Value {
    answer(&[words, &["--dir", &farm.path("")]].concat())
}

fn refuse(farm: &Farm, words: &[&str]) -> String {
    let dir = farm.path("");
    refused(&[words, &["--dir", &dir]].concat().iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A witness of the farm's log that the cloud asks; its keys, and the log's.
fn witness(farm: &Farm) -> (Running, Vec<String>, String) {
    let log = ask(farm, &["log", "show"])["vkey"].as_str().unwrap().to_owned();
    let folder = farm.folder.path().join("witness").display().to_string();
    let made = answer(&["log", "witness", "--dir", &folder, "--name", "witness.example/w1"]);
    let keys: Vec<String> = made["vkeys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect();
    let mut child = fivefold(&["log", "witness", "--dir", &folder, "--log", &log, "--insecure-http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let path = farm.path("cloud");
    let path = Path::new(&path).join(CLOUD_FILE);
    let mut settings: CloudSettings = share::read_config(&path).unwrap();
    settings.log.head_every_s = 1;
    let url = ready["url"].as_str().unwrap().to_owned();
    settings.log.witnesses = vec![CloudWitness { url, vkey: OneOrMore::More(keys.clone()), ca: None }];
    share::write_config(&path, "# The cloud.\n", &settings).unwrap();
    (Running(child), keys, log)
}

/// Runs a node until these two lines are confirmed.
fn send(dir: &str, template: &str, lines: [&str; 2], between: impl FnOnce()) {
    let mut node = fivefold(&["node", "run", "--dir", dir, "--stdin", "--template", template, "--retry", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    writeln!(input, "{}", lines[0]).unwrap();
    between();
    writeln!(input, "{}", lines[1]).unwrap();
    drop(input);
    assert!(node.wait().unwrap().success());
}

#[test]
fn a_row_is_read_by_its_template_from_the_node_to_the_bundle() {
    let farm = Farm::new();
    let file = farm.folder.path().join("gate.toml").display().to_string();
    let wrong = format!("{GATE}\n[[template]]\nid = 4\ncolumns = [{{ name = \"a b\" }}]\n");
    fs::write(&file, wrong).unwrap();
    says(&refuse(&farm, &["template", "add", &file, "--net", "one"]), &["gate.toml", "line 5", "template 4", "'a b'"]);
    assert_eq!(ask(&farm, &["template", "list"]), json!([]), "all or none");
    fs::write(&file, GATE).unwrap();
    let added = ask(&farm, &["template", "add", &file, "--net", "one"]);
    assert_eq!((&added["new"], &added["templates"][0]["id"]), (&json!(1), &json!(3)));
    assert_eq!(ask(&farm, &["template", "add", &file, "--net", "one"])["new"], json!(0), "the same once more");
    fs::write(&file, GATE.replace("\"m\"", "\"cm\"")).unwrap();
    let sentence = refuse(&farm, &["template", "add", &file, "--net", "one"]);
    says(&sentence, &["line 1", "template 3 of network one", "another id"]);
    assert_eq!(ask(&farm, &["template", "list"])[0]["columns"][0], json!({ "name": "level", "unit": "m" }));

    let (radio, bind) = (farm.radio.to_string(), farm.node.to_string());
    let device = ["device", "add", "--net", "one", "--sign", "batch:2", "--bind", &bind, "--air", &radio];
    let did = ask(&farm, &device)["did"].as_str().unwrap().to_owned();
    let node = farm.path(&format!("nodes/{did}"));
    let request = answer(&["node", "signing-request", "--dir", &node])["request"].as_str().unwrap().to_owned();
    ask(&farm, &["device", "certify", &did, "--request", &request]);
    let (_witness, keys, log) = witness(&farm);
    let _cloud = Daemon::start(&farm.cloud(), 0);
    let _gateway = Daemon::start(&farm.gateway(), 0);
    farm.stored();
    let token = farm.token.display().to_string();
    let heard = farm.folder.path().join("heard");
    let follow = ["reading", "follow", "--dir", &farm.path(""), "--token-file", &token].map(str::to_owned);
    let mut follow = fivefold(&follow.each_ref().map(String::as_str));
    let follow = follow.stdout(fs::File::create(&heard).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let _follow = Running(follow);
    let mut strangers = 0;
    while fs::metadata(&heard).unwrap().len() == 0 {
        assert!(strangers < 40, "nobody hears");
        send(&node, "9", ["[7]", "[8]"], || ());
        strangers += 2;
    }
    // The first of a batch is heard of before the second is made, and with it the signature.
    let is_heard = || fs::read_to_string(&heard).unwrap().contains("\"gate/open\"");
    send(&node, "3", ["[1.25, true]", "[1.5, null]"], || {
        (0..400).find(|_| is_heard() || (std::thread::sleep(Duration::from_millis(25)), false).1).unwrap();
    });

    let rows = ask(&farm, &["reading", "list", "--device", &did, "--token-file", &token, "--limit", "1000"]);
    let rows: Vec<&Value> = rows.as_array().unwrap().iter().flat_map(|r| r["templates"].as_array().unwrap()).collect();
    let (rows, others): (Vec<&Value>, Vec<&Value>) = rows.into_iter().partition(|r| r["id"] == 3);
    let level = |value: f64| json!({ "name": "level", "unit": "m", "value": value });
    let open = |value: Value| json!({ "name": "gate/open", "unit": null, "value": value });
    assert_eq!(rows[0]["columns"], json!([level(1.25), open(json!(true))]));
    assert_eq!(rows[1]["columns"], json!([level(1.5), open(Value::Null)]));
    assert_eq!(others.len(), strangers);
    assert_eq!((&others[0]["id"], &others[0]["values"], &others[0]["columns"]), (&json!(9), &json!([7]), &Value::Null));
    let dir = farm.path("");
    let words = ["reading", "list", "--device", &did, "--token-file", &token, "--dir", &dir];
    let mut plain = std::process::Command::new(env!("CARGO_BIN_EXE_fivefold"));
    let text = String::from_utf8(plain.args(words).output().unwrap().stdout).unwrap();
    for part in ["level 1.25 m, gate/open true", "level 1.5 m, gate/open missing", "template 9 [7]"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let [trust, bundles] = ["trust.toml", "gate.evb"].map(|f| farm.folder.path().join(f).display().to_string());
    let pins: Vec<&str> = keys.iter().flat_map(|k| ["--witness", k]).collect();
    ask(&farm, &[&["evidence", "trust", "--log", &log, "--need", "1", "--out", &trust][..], &pins].concat());
    let always = ["--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--out", &bundles, "--dir", &dir];
    let export = [&["evidence", "export", "--device", &did, "--token-file", &token][..], &always].concat();
    let count = || {
        let done = fivefold(&export).output().unwrap();
        serde_json::from_slice::<Value>(&done.stdout).map_or(0, |said| said["readings"].as_u64().unwrap_or(0))
    };
    let mut tries = 0;
    while count() < strangers as u64 + 2 {
        tries += 1;
        assert!(tries < 120, "no batch is signed, logged and cosigned");
        std::thread::sleep(Duration::from_millis(250));
    }
    let done = fivefold(&["evidence", "verify", &bundles, "--trust", &trust]).output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let said = String::from_utf8(done.stdout).unwrap();
    let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let value =
        |report: &Value, at: usize| (report["values"][at]["name"].clone(), report["values"][at]["unit"].clone());
    assert_eq!(value(&reports[0], 0), (json!("template 9, column 1"), Value::Null), "nobody registered it");
    let rows = &reports[strangers..];
    assert_eq!(value(&rows[0], 0), (json!("level"), json!("m")), "{said}");
    assert_eq!(value(&rows[0], 1), (json!("gate/open"), Value::Null));
    assert_eq!(rows[1]["values"].as_array().unwrap().len(), 1, "a missing value is none");

    // Followers heard of the reading first, and then that it is signed.
    let heard = fs::read_to_string(&heard).unwrap();
    let heard: Vec<Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = heard.iter().position(|h| h["templates"][0]["values"] == json!([1.25, true])).unwrap();
    let (before, label) = (&heard[first], heard[first..].iter().find(|h| h["reading"] == heard[first]["id"]).unwrap());
    assert_eq!((&before["proof"], &label["label"]), (&json!("node"), &json!("signed")));
    assert_eq!((&label["device"], &label["number"]), (&before["device"], &before["number"]));
}
