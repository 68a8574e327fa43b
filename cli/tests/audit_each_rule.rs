//! Every rule about what stands beside Fivefold has a good file, in which none finds anything, and a bad one, in which it alone
//! does; and every rule of the audit is explained. The same of the rules about a deployment: audit/tests/rules.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use serde_json::Value;

const MOSQUITTO: &str = "persistence true
listener 1883 127.0.0.1
listener 8883
certfile /etc/mosquitto/server.pem
keyfile /etc/mosquitto/server.key
cafile /etc/mosquitto/farm-ca.pem
require_certificate true
tls_version tlsv1.3
allow_anonymous false
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
connection head-office
address office.example:8883
bridge_cafile /etc/mosquitto/office-ca.pem
topic readings/# out 1
";
const CHIRPSTACK: &str = r#"[postgresql]
dsn = "postgres://chirpstack:$DB_PASSWORD@db.farm.example/chirpstack?sslmode=verify-full"
[redis]
servers = ["redis://127.0.0.1/"]
[api]
bind = "127.0.0.1:8080"
secret = "$API_SECRET"
[gateway]
allow_unknown_gateways = false
[integration]
enabled = ["mqtt"]
[integration.mqtt]
server = "ssl://broker.farm.example:8883/"
"#;
const PROFILE: &str = r#"{"deviceProfile": {"name": "soil", "supportsOtaa": true},
 "devices": [{"devEui": "0004a30b001a2b3d", "skipFcntCheck": false, "deviceKeys": {"nwkKey": "d3a1b6e5290cf84417be6b03c85f92ae"}}]}
"#;
const PG_HBA: &str = "local all postgres peer\nhostssl fivefold cloud 10.20.0.7/32 scram-sha-256\n";
const SSHD: &str = include_str!("../../audit/tests/fixtures/sshd/good.conf");
const UNIT: &str = "[Service]
User=fivefold
ProtectSystem=strict
NoNewPrivileges=yes
EnvironmentFile=FOLDER/environment
ExecStart=/usr/bin/fivefold cloud run --dir /var/lib/fivefold/cloud
";
const DUMP: &str = "CREATE TABLE `encryptionData` (`id` int, `waspmote_id` text, `private_aes` text, `public_rsa` text, `modulus_rsa` text);
CREATE TABLE `users` (`id` int, `user` text, `passwd` text);
CREATE TABLE `sensorParser` (`id` int, `value` text);
CREATE TABLE `notes` (`id` int);
INSERT INTO `notes` VALUES (1);
-- Dump completed on 2026-01-01
";

/// What is broken, in which kind of file, what takes the place of what, and which rules find it: one, but where the thing that one is
/// about is what another is about as well.
const BAD: &[(&str, &str, &str, &str, &[&str])] = &[
    ("mosquitto", MOSQUITTO, "persistence true", "persistence true\ninclude_dir gone", &["FX-01"]),
    ("mosquitto", MOSQUITTO, "allow_anonymous false", "allow_anonymous true", &["FX-02"]),
    ("mosquitto", MOSQUITTO, "listener 1883 127.0.0.1", "listener 1883", &["FX-03"]),
    ("mosquitto", MOSQUITTO, "require_certificate true\n", "", &["FX-04"]),
    // Whoever needs neither a certificate nor an account.
    ("mosquitto", MOSQUITTO, NO_NAMES, "tls_version tlsv1.3\nallow_anonymous false\n", &["FX-04", "FX-05"]),
    ("mosquitto", MOSQUITTO, "acl_file /etc/mosquitto/acl\n", "", &["FX-06"]),
    ("mosquitto", MOSQUITTO, "persistence true\n", "", &["FX-07"]),
    ("mosquitto", MOSQUITTO, "tlsv1.3", "tlsv1.1", &["FX-08"]),
    ("mosquitto", MOSQUITTO, "bridge_cafile /etc/mosquitto/office-ca.pem\n", "", &["FX-09"]),
    ("mosquitto", MOSQUITTO, "bridge_cafile", "bridge_insecure true\nbridge_cafile", &["FX-09"]),
    ("chirpstack", CHIRPSTACK, "$API_SECRET", "you-must-replace-this", &["FX-11"]),
    ("chirpstack", CHIRPSTACK, "127.0.0.1:8080", "0.0.0.0:8080", &["FX-12"]),
    ("chirpstack", CHIRPSTACK, "redis://127.0.0.1/", "redis://cache.farm.example/", &["FX-13"]),
    ("chirpstack", CHIRPSTACK, "$DB_PASSWORD", "kX7pQz2Lw9vTb4", &["FX-14"]),
    ("chirpstack", CHIRPSTACK, "$DB_PASSWORD", "chirpstack", &["FX-15"]),
    ("chirpstack", CHIRPSTACK, "gateways = false", "gateways = true", &["FX-16"]),
    ("chirpstack", PROFILE, "d3a1b6e5290cf84417be6b03c85f92ae", "2B7E151628AED2A6ABF7158809CF4F3C", &["AR-08"]),
    ("chirpstack", PROFILE, "\"supportsOtaa\": true", "\"supportsOtaa\": false", &["AR-39"]),
    ("chirpstack", PROFILE, "\"skipFcntCheck\": false", "\"skipFcntCheck\": true", &["AR-39"]),
    ("pg-hba", PG_HBA, "local all", "include more.conf\nlocal all", &["FX-01"]),
    ("pg-hba", PG_HBA, "scram-sha-256", "trust", &["FX-21"]),
    ("pg-hba", PG_HBA, "peer", "trust", &["FX-22"]),
    ("pg-hba", PG_HBA, "scram-sha-256", "md5", &["FX-23"]),
    ("pg-hba", PG_HBA, "10.20.0.7/32", "0.0.0.0/0", &["FX-24"]),
    ("pg-hba", PG_HBA, "hostssl", "host", &["FX-25"]),
    ("sshd", SSHD, "PasswordAuthentication no", "PasswordAuthentication yes", &["AR-44"]),
    ("unit", UNIT, "User=fivefold\n", "", &["FX-31"]),
    ("unit", UNIT, "ProtectSystem=strict\n", "", &["FX-32"]),
    ("unit", UNIT, "NoNewPrivileges=yes\n", "", &["FX-33"]),
    ("unit", UNIT, "ExecStart", "Environment=\"MQTT_PASSWORD=summer in the city\"\nExecStart", &["FX-34"]),
    ("unit", UNIT, "FOLDER/environment", "FOLDER/open", &["FX-35"]),
    // Who has the key of a classic node in the clear has a node that uses it in ECB.
    (
        "meshlium",
        DUMP,
        "-- Dump",
        "INSERT INTO `encryptionData` VALUES (1,'dam',0xD3A1B6E5290CF84417BE6B03C85F92AE,NULL,NULL);\n-- Dump",
        &["AR-09", "FX-41"],
    ),
    // And a default password is an account's.
    (
        "meshlium",
        DUMP,
        "-- Dump",
        "INSERT INTO `users` VALUES (1,'admin','libelium2007');\n-- Dump",
        &["FX-42", "FX-43"],
    ),
    (
        "meshlium",
        DUMP,
        "-- Dump",
        "INSERT INTO `users` VALUES (1,'ann','0c9a1ad5f2be4e0f8d6b7c3a2e1f0d4c');\n-- Dump",
        &["FX-43"],
    ),
    ("meshlium", DUMP, "-- Dump", "INSERT INTO `sensorParser` VALUES (1,'3.5');\n-- Dump", &["FX-44"]),
    ("meshlium", DUMP, "-- Dump completed on 2026-01-01\n", "", &["FX-01"]),
];

const NO_NAMES: &str =
    "require_certificate true\ntls_version tlsv1.3\nallow_anonymous false\npassword_file /etc/mosquitto/passwd\n";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(arguments).env_remove("FIVEFOLD_DIR").output().unwrap()
}

/// The rules that are broken, and what the command ends with.
fn broken(arguments: &[&str]) -> (BTreeSet<String>, i32) {
    let done = run(&[&["audit", "-o", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    assert_eq!(report["unreadable"], Value::Array(vec![]), "{arguments:?}");
    let rules = report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap().to_owned());
    (rules.collect(), done.status.code().unwrap())
}

fn set(rules: &[&str]) -> BTreeSet<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

struct Beside(tempfile::TempDir);

impl Beside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("environment", 0o600), ("open", 0o644)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "A=b\n").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        Self(folder)
    }

    fn broken(&self, system: &str, text: &str) -> BTreeSet<String> {
        let path = self.0.path().join(if system == "unit" { "a.service" } else { "a" });
        std::fs::write(&path, text.replace("FOLDER", &self.0.path().display().to_string())).unwrap();
        let (rules, code) = broken(&["--beside", &format!("{system}={}", path.display())]);
        assert!(code == 0 || !rules.is_empty(), "{system}: it fails for nothing");
        rules
    }
}

#[test]
fn in_a_good_file_of_others_no_rule_finds_anything() {
    let beside = Beside::new();
    for (system, good) in [
        ("mosquitto", MOSQUITTO),
        ("chirpstack", CHIRPSTACK),
        ("chirpstack", PROFILE),
        ("pg-hba", PG_HBA),
        ("sshd", SSHD),
        ("unit", UNIT),
        ("meshlium", DUMP),
    ] {
        assert_eq!(beside.broken(system, good), set(&[]), "{system}: {good}");
    }
}

#[test]
fn each_bad_file_of_others_is_found_by_its_rule_and_by_no_other() {
    let beside = Beside::new();
    for (system, good, from, to, rules) in BAD {
        assert!(good.contains(from), "{from}");
        assert_eq!(beside.broken(system, &good.replace(from, to)), set(rules), "{system}: {to} for {from}");
    }
}

#[test]
fn a_node_that_ran_already_is_found_by_its_rule_alone() {
    let folder = tempfile::tempdir().unwrap();
    let node = "did = \"acde480000000001\"\nsid = \"0a17\"\nnet = \"0000beef\"\npan = \"4321\"\ngroup = \"0000e205\"\nepoch = 1\n\
                [policy]\nprofile = \"e1+e3+e4\"\nalg = 11\nmode = \"P\"\nkid_length = 0\nack_every = 1\nradio = \"802.15.4\"\n\
                renew_days = 30\n[link]\nbind = \"127.0.0.1:1\"\nair = []\n";
    std::fs::write(folder.path().join("node.toml"), node).unwrap();
    let path = folder.path().display().to_string();
    assert_eq!(broken(&["--node", &path]), (set(&[]), 0));
    std::fs::write(folder.path().join("started"), "").unwrap();
    assert_eq!(broken(&["--node", &path]), (set(&["FX-51"]), 1));
}

#[test]
fn no_rule_is_without_a_bad_file_and_each_says_its_cause_and_its_cure() {
    let listed: Value = serde_json::from_slice(&run(&["audit", "rules", "-o", "json"]).stdout).unwrap();
    let found: BTreeSet<&str> = BAD.iter().flat_map(|(.., rules)| *rules).copied().chain(["FX-51"]).collect();
    for rule in listed.as_array().unwrap() {
        let id = rule["rule"].as_str().unwrap();
        assert!(!id.starts_with("FX-") || found.contains(id), "{id} has no bad file");
        let done = run(&["audit", "explain", id]);
        let said = String::from_utf8(done.stdout).unwrap();
        let cause = said.find(rule["why"].as_str().unwrap()).unwrap_or_else(|| panic!("{id}: no cause: {said}"));
        let cure = said.find(&format!("What mends it: {}", rule["cure"].as_str().unwrap()));
        assert!(done.status.success() && said.starts_with(id) && cure.is_some_and(|at| at > cause), "{said}");
        assert!(said.contains(rule["severity"].as_str().unwrap()) && said.contains("From: "), "{said}");
    }
}
