//! `fivefold node run` as a process: it starts, says what is wrong in one sentence, and never uses an identity twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use fivefold_core::id::{Did, Epoch, GatewayGroup, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile, Sign};
use fivefold_keep::device_key::DeviceAlg;
use fivefold_keep::share::{NodeLink, NodeSecrets, NodeShare, make_signing_key};
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

fn free() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn share(dir: &Path, sid: u16, epoch: u16, bind: SocketAddr, air: SocketAddr, parent: &str) {
    let [a, b] = sid.to_be_bytes();
    NodeShare {
        did: Did([0xac, 0xde, 0x48, 0, 0, 0, a, b]),
        sid: Sid(sid),
        net: Net(7),
        pan: 0x4321,
        group: GatewayGroup(1),
        epoch: Epoch(epoch),
        policy: Policy::new(Profile::ToCloud),
        overrides: Overrides::NONE,
        link: NodeLink { bind, air: vec![air], parents: vec![parent.into()] },
        cloud: None,
        gateway: None,
        secrets: NodeSecrets {
            key_index: 1,
            network_key: Zeroizing::new([0x42; 16]),
            e3: Some((Zeroizing::new(vec![epoch as u8; 32]), [3; 8])),
            e2_root: None,
            root_psk: Zeroizing::new([9; 32]),
            dh_key: None,
            blind: None,
        },
    }
    .write(dir)
    .unwrap();
}

/// The same node, one that is to sign each of its readings.
fn signing_share(dir: &Path, blind: Option<[u8; 32]>) {
    share(dir, 0x0a11, 1, free(), free(), "0000");
    let mut share = NodeShare::read(dir).unwrap();
    (share.policy.sign, share.policy.batch) = (Sign::Batch, 1);
    share.secrets.blind = blind.map(Zeroizing::new);
    fs::remove_dir_all(dir).unwrap();
    share.write(dir).unwrap();
}

fn node(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    command.args(["-o", "json", "node", "run", "--dir"]).arg(dir).args(arguments);
    command
}

const ONCE: [&str; 6] = ["--count", "1", "--every", "0.1", "--wait", "0.5"];

fn said(output: &Output) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn sentence(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn numbers(output: &Output) -> Vec<u64> {
    said(output).iter().filter(|l| l["event"] == "reading").map(|l| l["number"].as_u64().unwrap()).collect()
}

#[test]
fn two_nodes_prove_themselves_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (free(), free());
    let folders = [dir.path().join("a"), dir.path().join("b")];
    share(&folders[0], 0x0a11, 1, a, b, "0000");
    share(&folders[1], 0x0a12, 1, b, a, "0a11");
    let other = node(&folders[1], &["--count", "1", "--wait", "6"]).stdout(std::process::Stdio::null()).spawn();
    let output = node(&folders[0], &["--count", "1", "--wait", "6"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "there is no cloud: nothing was confirmed");
    assert!(said(&output).iter().any(|l| l["event"] == "synced" && l["sid"] == "0a12"), "{}", sentence(&output));
    assert_eq!(other.unwrap().wait().unwrap().code(), Some(1));
}

#[test]
fn numbers_go_on_after_a_restart_and_lost_counters_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("n");
    share(&folder, 0x0a11, 1, free(), free(), "0000");
    for file in SHARE {
        fs::copy(folder.join(file), dir.path().join(file)).unwrap();
    }
    let first = numbers(&node(&folder, &ONCE).output().unwrap());
    let second = numbers(&node(&folder, &ONCE).output().unwrap());
    assert!(first[0] < second[0], "{first:?} {second:?}");
    // One damaged copy is survived, two are told, and so is a removed folder.
    let slots = ["slot-a.sealed", "slot-b.sealed"].map(|s| folder.join("state").join(s));
    fs::write(&slots[0], b"damaged").unwrap();
    let third = numbers(&node(&folder, &ONCE).output().unwrap());
    assert!(second[0] < third[0]);
    for slot in &slots {
        fs::write(slot, b"damaged").unwrap();
    }
    let lost = node(&folder, &ONCE).output().unwrap();
    assert_eq!(lost.status.code(), Some(2));
    assert!(sentence(&lost).contains("enrol the device again"), "{}", sentence(&lost));
    fs::remove_dir_all(folder.join("state")).unwrap();
    let lost = node(&folder, &ONCE).output().unwrap();
    assert!(lost.status.code() == Some(2) && sentence(&lost).contains("enrol the device again"));
    // New secrets start from 0 by right.
    share(&folder, 0x0a11, 2, free(), free(), "0000");
    assert_eq!(numbers(&node(&folder, &ONCE).output().unwrap()), [0]);
    // The old ones, put back from a copy, do not.
    for file in SHARE {
        fs::copy(dir.path().join(file), folder.join(file)).unwrap();
    }
    let old = node(&folder, &ONCE).output().unwrap();
    assert!(old.status.code() == Some(2) && sentence(&old).contains("enrol the device again"), "{}", sentence(&old));
}

#[test]
fn counters_that_an_earlier_version_wrote_go_on() {
    let dir = tempfile::tempdir().unwrap();
    share(dir.path(), 0x0a11, 1, free(), free(), "0000");
    // 256 bytes of version 2: epoch 1, network key 1, no message from number 64 on.
    let mut record = [0; 256];
    (record[0], record[1], record[11], record[13]) = (0x46, 2, 1, 2);
    (record[15], record[19], record[32], record[33]) = (1, 64, 1, 1);
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    let crc = record[..252].iter().fold(!0, |crc, &b| (0..8).fold(crc ^ u32::from(b), |crc, _| step(crc)));
    record[252..].copy_from_slice(&(!crc).to_be_bytes());
    let vault = Vault::open_folder(dir.path()).unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    for slot in ["slot-a.sealed", "slot-b.sealed"] {
        vault.seal_file(&dir.path().join("state").join(slot), &record).unwrap();
    }
    let output = node(dir.path(), &ONCE).output().unwrap();
    assert_eq!(numbers(&output), [64], "{}", sentence(&output));
}

const SHARE: [&str; 4] = ["node.toml", "passphrase", "secrets.sealed", "vault.toml"];

#[test]
fn a_node_whose_policy_wants_signatures_signs_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("n");
    let events =
        |output: &Output, event: &str| said(output).into_iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
    signing_share(&folder, Some([4; 32]));
    let without = node(&folder, &ONCE).output().unwrap();
    let [unsigned] = &events(&without, "unsigned")[..] else { panic!("{}", sentence(&without)) };
    assert!(unsigned["reason"].as_str().unwrap().contains("signing-request"), "{unsigned}");
    assert_eq!((events(&without, "batch_signed").len(), numbers(&without).len()), (0, 1));
    make_signing_key(&Vault::open_folder(&folder).unwrap(), &folder, DeviceAlg::Ed25519).unwrap();
    for batch in 1..3 {
        let with = node(&folder, &ONCE).output().unwrap();
        let [signed] = &events(&with, "batch_signed")[..] else { panic!("{}", sentence(&with)) };
        assert_eq!((signed["batch"].as_u64(), signed["readings"].as_u64()), (Some(batch), Some(1)), "over restarts");
        assert_eq!(events(&with, "unsigned").len(), 0);
    }
    // A share of before has nothing to hide leaves with.
    let old = dir.path().join("o");
    signing_share(&old, None);
    make_signing_key(&Vault::open_folder(&old).unwrap(), &old, DeviceAlg::P256).unwrap();
    let output = node(&old, &ONCE).output().unwrap();
    assert_eq!((events(&output, "unsigned").len(), numbers(&output).len()), (1, 1), "{}", sentence(&output));
}

#[test]
fn every_mistake_gets_one_sentence_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("n");
    let bind = free();
    share(&folder, 0x0a11, 1, bind, free(), "0000");
    let refused = |arguments: &[&str], words: &str| {
        let output = node(&folder, arguments).output().unwrap();
        let text = sentence(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    };
    refused(&["--every", "0"], "--every 0");
    let socket = UdpSocket::bind(bind).unwrap();
    refused(&ONCE, "change [link] bind in node.toml");
    drop(socket);
    let config = fs::read_to_string(folder.join("node.toml")).unwrap();
    fs::write(folder.join("node.toml"), format!("{config}\nspeed = 1\n")).unwrap();
    refused(&["--check"], "speed");
    fs::write(folder.join("node.toml"), config.replace("air = [\"", "air = [] # [\"")).unwrap();
    refused(&["--check"], "[link] air");
    fs::write(folder.join("node.toml"), &config).unwrap();
    fs::set_permissions(folder.join("passphrase"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&ONCE, "chmod 600");
    fs::write(folder.join("passphrase"), "another passphrase than that").unwrap();
    fs::set_permissions(folder.join("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
    refused(&ONCE, "passphrase");
}

#[test]
fn one_identity_runs_once_and_a_signal_ends_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("n");
    share(&folder, 0x0a11, 1, free(), free(), "0000");
    let first = node(&folder, &["--every", "0.1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let marker = folder.join("started");
    while !marker.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = node(&folder, &ONCE).output().unwrap();
    assert!(second.status.code() == Some(2) && sentence(&second).contains("stop the other node first"));
    let told = Command::new("kill").arg(first.id().to_string()).status().unwrap();
    assert!(told.success());
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", sentence(&output));
    assert_eq!(said(&output).last().unwrap()["event"], "stopped");
}

#[test]
fn readings_come_from_standard_input_line_by_line() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("n");
    share(&folder, 0x0a11, 1, free(), free(), "0000");
    let run = |lines: &str| {
        let mut child = node(&folder, &["--stdin", "--wait", "0.3"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = run("{\"n\":\"temp\",\"u\":\"Cel\",\"v\":21.5}\n\n[{\"n\":\"door\",\"vb\":true}]\n");
    assert_eq!(numbers(&output).len(), 2, "{}", sentence(&output));
    let output = run("{\"n\":\"temp\",\"v\":\"warm\"}\n");
    assert!(output.status.code() == Some(2) && sentence(&output).contains("line 1"), "{}", sentence(&output));
    let long = format!("{{\"n\":\"text\",\"vs\":\"{}\"}}\n", "x".repeat(90));
    let output = run(&long);
    assert!(output.status.code() == Some(2) && sentence(&output).contains("split it"), "{}", sentence(&output));
}
