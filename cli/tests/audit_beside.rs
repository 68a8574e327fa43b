//! `fivefold audit` on what stands beside Fivefold: other people's files, a Meshlium's dump, a node that is to ship.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(arguments).env_remove("FIVEFOLD_DIR").output().unwrap()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit/tests/fixtures").join(name);
    path.display().to_string()
}

/// Exit code, and the rules that are broken.
fn broken(arguments: &[&str]) -> (i32, BTreeSet<String>) {
    let done = run(&[&["audit", "-o", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let rules = report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap().to_owned()).collect();
    (done.status.code().unwrap(), rules)
}

#[test]
fn a_file_that_is_named_is_looked_at_without_any_deployment() {
    let sshd = |name: &str| format!("sshd={}", fixture(name));
    let (code, rules) = broken(&["--beside", &sshd("sshd/bad.conf")]);
    assert_eq!((code, rules), (1, BTreeSet::from(["AR-44".into(), "FX-01".into()])));
    assert_eq!(broken(&["--beside", &format!("mosquitto={}", fixture("mosquitto/good.conf"))]), (0, BTreeSet::new()));
    let (code, rules) = broken(&["--beside", "sshd=/nowhere/at-all"]);
    assert_eq!((code, rules), (2, BTreeSet::new()), "what cannot be read is no good");
    for wrong in ["sshd", "ssh=/etc/x", "sshd="] {
        let done = run(&["audit", "--beside", wrong]);
        assert_eq!(done.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&done.stderr).contains("sshd=/etc/ssh/sshd_config"), "{wrong}");
    }
}

#[test]
fn reports_have_the_forms_of_others_and_other_commands_have_not() {
    let file = format!("unit={}", fixture("unit/bad.service"));
    let sarif = run(&["audit", "--beside", &file, "-o", "sarif"]);
    let report: Value = serde_json::from_slice(&sarif.stdout).unwrap();
    assert_eq!(report["version"], "2.1.0");
    let secret = report["runs"][0]["results"].as_array().unwrap().iter().find(|r| r["ruleId"] == "FX-34").unwrap();
    assert_eq!(secret["locations"][0]["physicalLocation"]["region"]["startLine"], 7);
    let junit = String::from_utf8(run(&["audit", "--beside", &file, "-o", "junit"]).stdout).unwrap();
    assert!(junit.starts_with("<?xml") && junit.contains("classname=\"FX-31\""), "{junit}");
    let other = run(&["budget", "-o", "sarif"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("fivefold audit"));
}

#[test]
fn a_meshliums_dump_shows_its_keys_accounts_and_readings_and_none_of_them_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.sql");
    let text = "CREATE TABLE `encryptionData` (\n `id` int,\n `waspmote_id` text,\n `private_aes` text\n);\n\
                INSERT INTO `encryptionData` VALUES (1,'node_01','libeliumlibelium'),(2,'node_02','kX7!pQz2#Lw9vTb4');\n\
                CREATE TABLE `users` (\n `id` int,\n `user` text,\n `passwd` text\n);\n\
                INSERT INTO `users` VALUES (1,'admin','libelium2007');\n\
                CREATE TABLE `sensorParser` (\n `id` int,\n `value` text\n);\n\
                INSERT INTO `sensorParser` VALUES (1,'3.5');\n-- Dump completed on 2026-01-01\n";
    std::fs::write(&path, text).unwrap();
    let file = format!("meshlium={}", path.display());
    let (code, rules) = broken(&["--beside", &file]);
    let expected = ["AR-08", "AR-09", "FX-41", "FX-42", "FX-43", "FX-44"].map(str::to_owned);
    assert_eq!((code, rules), (1, BTreeSet::from(expected)));
    let said = String::from_utf8(run(&["audit", "--beside", &file]).stdout).unwrap();
    for secret in ["libeliumlibelium", "kX7!pQz2", "libelium2007"] {
        assert!(!said.contains(secret), "{said}");
    }
    std::fs::write(&path, "no dump").unwrap();
    assert_eq!(broken(&["--beside", &file]).0, 2);
}
