//! The commands with which an operator enters classic devices, as they are typed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use fivefold_keep::registry::{HardenedHolder, Registry};
use fivefold_keep::vault::Vault;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.answer(&["init", &site.dir()]);
        site.answer(&["network", "add", "mast", "--classic"]);
        site
    }

    fn dir(&self) -> String {
        self.0.path().join("site").display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
        if arguments[0] != "init" {
            command.env("FIVEFOLD_DIR", self.dir());
        }
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    #[track_caller]
    fn answer(&self, arguments: &[&str]) -> Value {
        let mut with: Vec<&str> = arguments.to_vec();
        with.extend(["-o", "json"]);
        serde_json::from_str(&self.says(&with)).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let done = self.run(arguments);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} says {said}, and not {word}");
        }
    }

    /// A file that its owner alone can read.
    fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }
}

const SERIAL: &str = "8a7384477876150c";

#[test]
fn a_classic_device_is_entered_with_its_keys_and_shown_as_what_it_is() {
    let site = Site::new();
    let gateway = site.file("gateway-key", b"Fb9iZ1AeU9Yu9vTf\n");
    let cloud = site.file("cloud-key", b"23582d8aa5e39a9ff365954662d083ff23582d8aa5e39a9ff365954662d083fe");
    let added = site.answer(&[
        "device",
        "add",
        "--net",
        "mast",
        "--classic",
        SERIAL,
        "--node-id",
        "park-7",
        "--table",
        "water",
        "--dev-eui",
        "70b3d57ed0000001",
        "--gateway-key-file",
        &gateway,
        "--gateway-key-bits",
        "128",
        "--cloud-key-file",
        &cloud,
        "--cloud-key-bits",
        "256",
    ]);
    assert_eq!(
        (&added["classic"], &added["serial"], &added["levels"]),
        (&json!(true), &json!(SERIAL), &json!("classic"))
    );
    assert_eq!(added["gateway_key"], json!({ "bits": 128, "weakness": "printable" }));
    assert_eq!(added["cloud_key"], json!({ "bits": 256, "weakness": null }));
    assert_eq!((&added["node_id"], &added["table"]), (&json!("park-7"), &json!("water")));
    assert_eq!((&added["generation"], &added["hardened"]), (&json!("v15"), &json!(false)));
    assert_eq!(site.answer(&["device", "show", SERIAL]), added);
    let second = site.answer(&["device", "add", "--net", "mast", "--classic", "387264539"]);
    assert_eq!((&second["generation"], &second["did"]), (&json!("v12"), &json!("000000001715301b")));
    let modern = site.answer(&["device", "add", "--net", "mast"]);
    let listed = site.answer(&["device", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!((&listed[0]["did"], &listed[0]["classic"]), (&modern["did"], &json!(false)));
    assert_eq!(listed.as_array().unwrap()[1..], [added, second]);
    let list = site.says(&["device", "list"]);
    let line = list.lines().find(|l| l.contains(SERIAL)).unwrap();
    assert!(line.contains("classic: AES-128 for the gateway, printable; AES-256 for the cloud"), "{line}");
    let shown = site.says(&["device", "show", "387264539"]);
    assert!(shown.contains("classic, v12") && shown.contains("in clear") && shown.contains("AR-10"), "{shown}");
    // What the gateway and the cloud will open with is what stood in the files.
    let registry = Registry::open(
        &Path::new(&site.dir()).join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let vault = Vault::open_folder(Path::new(&site.dir())).unwrap();
    let device = registry.classic_device(SERIAL.parse().unwrap()).unwrap();
    let keys = registry.classic_keys(&vault, &device).unwrap();
    assert_eq!(keys.gateway.unwrap().bytes(), b"Fb9iZ1AeU9Yu9vTf");
    assert_eq!(keys.cloud.unwrap().bytes()[..4], [0x23, 0x58, 0x2D, 0x8A]);
}

#[test]
fn what_is_typed_wrong_gets_one_sentence() {
    let site = Site::new();
    let add = |more: &[&str], words: &[&str]| {
        let mut all = vec!["device", "add", "--net", "mast"];
        all.extend(more);
        site.refused(&all, words);
    };
    let long = site.file("long", b"Od2ayZnAVbrzWZHU1");
    let weak = site.file("weak", b"libelium");
    let with = |file: &str, more: &[&str], words: &[&str]| {
        let mut all = vec!["--classic", SERIAL, "--gateway-key-file", file, "--gateway-key-bits", "128"];
        all.extend(more);
        add(&all, words);
    };
    with(&long, &[], &["17 bytes", "all-zero key", &long]);
    with(&weak, &[], &["CL-13", "tried first", "--danger-weak-key"]);
    with(&weak, &["--danger-weak-key", "yes"], &["CL-13"]);
    add(&["--classic", SERIAL, "--gateway-key-file", &weak], &["--gateway-key-bits"]);
    add(&["--classic", SERIAL, "--gateway-key-file", &weak, "--gateway-key-bits", "100"], &["128, 192 or 256"]);
    add(&["--classic", "8A73844778761"], &["16 hex digits"]);
    add(&["--classic", "0000000000000000"], &["zeros"]);
    add(&["--classic", SERIAL, "--mode", "R"], &["--mode", "--classic"]);
    add(&["--node-id", "park-7"], &["--classic"]);
    add(&["--cloud-key-file", &weak, "--cloud-key-bits", "128"], &["--classic"]);
    std::fs::set_permissions(&weak, std::fs::Permissions::from_mode(0o644)).unwrap();
    with(&weak, &[], &["can be read by others", "chmod 600"]);
    site.answer(&["network", "add", "modern"]);
    site.refused(&["device", "add", "--net", "modern", "--classic", SERIAL], &["fivefold network set"]);
    site.refused(&["device", "show", "387264539"], &["no device 387264539", "fivefold device list"]);
    assert_eq!(site.answer(&["device", "list"]), json!([]));
}

#[test]
fn a_weak_key_is_taken_in_so_many_words_and_stays_marked() {
    let site = Site::new();
    let weak = site.file("weak", b"libelium");
    let words = "on a mast until spring";
    let added = site.answer(&[
        "device",
        "add",
        "--net",
        "mast",
        "--classic",
        SERIAL,
        "--cloud-key-file",
        &weak,
        "--cloud-key-bits",
        "192",
        "--danger-weak-key",
        words,
    ]);
    assert_eq!(
        (&added["cloud_key"], &added["override"]),
        (&json!({ "bits": 192, "weakness": "dictionary" }), &json!(words))
    );
    let shown = site.says(&["device", "show", SERIAL]);
    assert!(shown.contains("INSECURE") && shown.contains("CL-13"), "{shown}");
    // Another key takes its place, and the words go with it.
    let strong = site.file("strong", b"23582d8aa5e39a9ff365954662d083ff");
    let set = site.answer(&["device", "set-keys", SERIAL, "--cloud-key-file", &strong, "--cloud-key-bits", "128"]);
    assert_eq!((&set["cloud_key"], &set["override"]), (&json!({ "bits": 128, "weakness": null }), &Value::Null));
}

#[test]
fn a_classic_device_is_renamed_and_revoked_like_any_other() {
    let site = Site::new();
    site.answer(&["device", "add", "--net", "mast", "--classic", "387264539"]);
    assert_eq!(site.answer(&["device", "rename", "387264539", "pump"])["node_id"], "pump");
    site.refused(&["network", "set", "mast", "--classic", "no"], &["1 classic device", "revoke"]);
    site.refused(&["device", "revoke", "387264539", "--rotate"], &["no network key"]);
    let revoked = site.answer(&["device", "revoke", "387264539"]);
    assert!(revoked["revoked_at"].is_u64());
    assert!(site.says(&["device", "list"]).contains("revoked"));
    assert_eq!(site.answer(&["network", "set", "mast", "--classic", "no"])["classic"], false);
    let listed = site.answer(&["network", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["classic"]), (&json!("mast"), &json!(false)));
    site.answer(&["network", "set", "mast", "--classic", "yes"]);
    let list = site.says(&["network", "list"]);
    assert!(list.lines().any(|l| l.contains("mast") && l.ends_with("classic")), "{list}");
}

#[test]
fn a_node_that_can_be_flashed_gets_a_key_of_the_hardened_profile_in_a_file_for_its_sketch() {
    let site = Site::new();
    site.answer(&["device", "add", "--net", "mast", "--classic", SERIAL]);
    site.refused(&["device", "harden", SERIAL], &["no primary gateway", "fivefold gateway add"]);
    site.answer(&["gateway", "add", "--net", "mast", "pole"]);
    let hardened = site.answer(&["device", "harden", SERIAL]);
    assert_eq!((&hardened["hardened"], &hardened["epoch"]), (&json!(true), &json!(1)));
    let file = Path::new(hardened["file"].as_str().unwrap());
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let header = std::fs::read_to_string(file).unwrap();
    let bytes = header.split("ff_gateway_key[32] = {").nth(1).unwrap().split('}').next().unwrap();
    let bytes: Vec<u8> = bytes
        .split_terminator(',')
        .map(|byte| u8::from_str_radix(byte.strip_prefix("0x").unwrap(), 16).unwrap())
        .collect();
    let registry = Registry::open(
        &Path::new(&site.dir()).join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let vault = Vault::open_folder(Path::new(&site.dir())).unwrap();
    let device = registry.classic_device(SERIAL.parse().unwrap()).unwrap();
    let primary = HardenedHolder::Gateway(registry.gateway("pole").unwrap().gateway);
    let keys = registry.hardened_keys(&vault, &device, primary, 4).unwrap();
    assert_eq!(keys[0].key.as_slice(), bytes);
    let again = site.file("again.h", b"");
    assert_eq!(site.answer(&["device", "harden", SERIAL, "--out", &again])["epoch"], 2);
    // The cloud's are counted apart, and are another file.
    let to_cloud = site.answer(&["device", "harden", SERIAL, "--peer", "cloud"]);
    assert_eq!(to_cloud["epoch"], 1);
    let header = std::fs::read_to_string(to_cloud["file"].as_str().unwrap()).unwrap();
    assert!(header.contains("ff_cloud_key[32] = {") && header.contains("ff_cloud_key_epoch = 1;"));
    assert!(site.says(&["device", "list"]).contains("classic: hardened"));
}

#[test]
fn a_network_takes_sensors_of_the_users_own_and_names_mistakes_by_line() {
    let site = Site::new();
    let good = site.file("own.toml", b"[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\n");
    let bad = site.file("bad.toml", b"[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\n[[sensor]]\nid = 22\ntag = \"ICE\"\ntype = \"uint8\"\n");
    site.refused(&["network", "set", "mast", "--sensors", &bad], &["bad.toml", "line 5", "id 22 is SNOW already"]);
    site.refused(&["network", "add", "yard", "--classic", "--sensors", &bad], &["line 5"]);
    site.refused(&["network", "set", "mast"], &["--sensors"]);
    assert_eq!(site.answer(&["network", "list"]).as_array().unwrap().len(), 1, "nothing was added");
    assert_eq!(site.answer(&["network", "set", "mast", "--sensors", &good])["sensors"], 1);
    let yard = site.answer(&["network", "add", "yard", "--classic", "--sensors", &good]);
    assert_eq!((&yard["classic"], &yard["sensors"]), (&json!(true), &json!(1)));
    assert!(site.says(&["network", "set", "mast", "--no-sensors"]).contains("0 sensors of your own"));
    assert_eq!(site.answer(&["network", "list"])[0]["sensors"], 0);
}

#[test]
fn one_key_on_two_devices_is_said_when_it_is_entered_and_by_the_audit() {
    let site = Site::new();
    assert!(!site.says(&["device", "list"]).contains("grave"));
    let key = site.file("key", b"23582d8aa5e39a9ff365954662d083ff");
    let add = |serial: &'static str| {
        vec![
            "device",
            "add",
            "--net",
            "mast",
            "--classic",
            serial,
            "--gateway-key-file",
            &key,
            "--gateway-key-bits",
            "128",
        ]
    };
    assert!(!site.says(&add(SERIAL)).contains("AR-07"));
    let said = site.says(&add("387264539"));
    assert!(said.contains("AR-07: device 8a7384477876150c has a key of it too"), "{said}");
    let done = site.run(&["audit"]);
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(1), "{told}");
    let shared = "AR-07  critical: classic device 387264539, device 8a7384477876150c have one key";
    for rule in [shared, "AR-09  high: ", "AR-10  critical: "] {
        assert!(told.contains(rule), "{told}");
    }
    assert!(site.says(&["device", "list"]).contains("3 grave findings: fivefold audit"));
    let other = site.file("other", b"33582d8aa5e39a9ff365954662d083ff");
    let set = ["device", "set-keys", "387264539", "--gateway-key-file", &other, "--gateway-key-bits", "128"];
    assert_eq!(site.answer(&set).get("key_shared_with"), None);
    let set = ["device", "set-keys", "387264539", "--gateway-key-file", &key, "--gateway-key-bits", "128"];
    assert_eq!(site.answer(&set)["key_shared_with"], "device 8a7384477876150c");
}

#[test]
fn many_devices_are_entered_from_a_file_or_none_with_every_mistake_by_its_line() {
    let site = Site::new();
    site.answer(&["network", "add", "yard"]);
    let good = "serial,node_id,gateway_key,gateway_key_bits,cloud_key,cloud_key_bits,table,dev_eui,sid\n\
                8a7384477876150c,park-7,Fb9iZ1AeU9Yu9vTf,128,,,,,0a17\r\n\
                \n387264539,,,,23582d8aa5e39a9ff365954662d083ff,128,v12,70b3d57ed0000002,\n\
                5,\"a\"\"b\",\"Pq,4-\"\"xT7mK2wZ90\",128,,,,,";
    let exposed = site.0.path().join("exposed.csv");
    std::fs::write(&exposed, good).unwrap();
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let add = |file: &str, more: &[&str]| {
        let mut words = vec!["device", "add", "--net", "mast", "--classic", "--csv", file, "-o", "json"];
        words.extend_from_slice(more);
        let done = site.run(&words);
        let said = if done.status.code() == Some(2) { &done.stderr } else { &done.stdout };
        (done.status.code().unwrap(), serde_json::from_slice::<Value>(said).unwrap())
    };
    assert_eq!(add(exposed.to_str().unwrap(), &[]).0, 2, "others can read it");
    let bad = format!(
        "serial,node_id,gateway_key,gateway_key_bits,cloud_key,cloud_key_bits,sid,net,dev_eui,danger_weak_key\n{}",
        [
            "1,,,,,,,,,",                                    // line 2
            "1,,,,,,,,,",                                    // a serial twice
            "2,,Od2ayZnAVbrzWZHU1,128,,,,,,",                // longer than its key
            "3,,libelium,128,,,,,,",                         // in a dictionary
            "4,,Fb9iZ1AeU9,256,,,,,,",                       // short
            "5,,00000000000000000000000000000000,128,,,,,,", // zero
            "6,,Fb9iZ1AeU9Yu9vTf,128,,,,,,",                 // one key on two
            "7,,Fb9iZ1AeU9Yu9vTf,128,,,,,,",
            "8,,Fb9iZ1AeU9Yu9vTg,,,,,,,", // no size
            "9,a b,,,,,,,,",              // no node id
            "10,,,,,,,yard,,",            // a network that takes none
            "11,,,,,,,nowhere,,",
            "12,,,,,,fffe,,,", // a reserved sid
            "x,,,,,,,,,",
            "13,,,",
            "14,, Fb9iZ1AeU9Yu9vTh,128,,,,,,", // a blank before the key
            "15,,,,Fb9iZ1AeU9Yu9vTi,100,,,,",
            "16,,libelium,128,,,,,,on masts until spring", // taken, in the operator's words
            "17,,,,,,,,70b3d57ed0000001,",
            "18,,,,,,,,70b3d57ed0000001,",
        ]
        .join("\n")
    );
    let bad = site.file("bad.csv", bad.as_bytes());
    let (code, said) = add(&bad, &[]);
    assert_eq!((code, &said["rows"], &said["entered"]), (1, &json!(20), &json!(0)), "{said}");
    let refused: Vec<(u64, &str)> = said["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["line"].as_u64().unwrap(), r["error"].as_str().unwrap()))
        .collect();
    let expected = [
        (3, "line 2 has it already"),
        (4, "17"),
        (5, "CL-13"),
        (6, "CL-13"),
        (7, "CL-13"),
        (8, "line 9 has a key of it too (AR-07)"),
        (9, "line 8 has a key of it too (AR-07)"),
        (10, "gateway_key_bits is missing"),
        (11, "node id"),
        (12, "takes no classic devices"),
        (13, "there is no network nowhere"),
        (14, "AR-38"),
        (15, "serial `x`"),
        (16, "4 fields, and the head has 10"),
        (17, "blank"),
        (18, "128, 192 or 256"),
        (21, "line 20 has the DevEUI"),
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:?}");
    for ((line, why), (at, word)) in refused.iter().zip(expected) {
        assert!(*line == at && why.contains(word), "line {line}: {why}; expected {at}: {word}");
        assert!(!why.contains("Fb9iZ1"), "a key is said: {why}");
    }
    assert_eq!(site.answer(&["device", "list"]), json!([]));
    // The good rows alone, where one says so.
    let (code, said) = add(&bad, &["--skip-bad"]);
    assert_eq!((code, &said["entered"]), (0, &json!(3)), "{said}");
    let file = site.file("good.csv", good.as_bytes());
    let (code, said) = add(&file, &[]);
    assert_eq!((code, &said["entered"]), (0, &json!(3)), "{said}");
    let shown = site.answer(&["device", "show", SERIAL]);
    assert_eq!(
        (&shown["sid"], &shown["node_id"], &shown["gateway_key"]["bits"]),
        (&json!("0a17"), &json!("park-7"), &json!(128))
    );
    let registry = Registry::open(
        &Path::new(&site.dir()).join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let vault = Vault::open_folder(Path::new(&site.dir())).unwrap();
    let device = registry.classic_device("5".parse().unwrap()).unwrap();
    assert_eq!(device.node_id.as_deref(), Some("a\"b"));
    let keys = registry.classic_keys(&vault, &device).unwrap();
    assert_eq!(keys.gateway.unwrap().bytes(), b"Pq,4-\"xT7mK2wZ90");
    site.refused(&["device", "add", "--net", "mast", "--classic"], &["--csv FILE"]);
    site.refused(&["device", "add", "--net", "mast", "--classic", "5", "--csv", &file], &["--csv FILE"]);
    site.refused(&["device", "add", "--net", "mast", "--csv", &file], &["--classic"]);
}
