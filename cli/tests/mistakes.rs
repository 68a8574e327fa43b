//! What goes wrong on real machines: each gets one clear sentence with the next step, exit code 2, and what was accepted
//! before stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use farm::{Daemon, Farm, fivefold, refused, says};

fn let_others_read(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn secrets_that_others_can_read_are_refused_with_the_command_that_helps() {
    let farm = Farm::new();
    let cases = [
        ("passphrase", farm.cloud()),
        ("cloud/key.sealed", farm.cloud()),
        ("gateways/north/passphrase", farm.gateway()),
        ("gateways/north/secrets.sealed", farm.gateway()),
        (&format!("nodes/{}/passphrase", farm.did), farm.node()),
        (&format!("nodes/{}/secrets.sealed", farm.did), farm.node()),
    ];
    for (file, command) in cases {
        let path = PathBuf::from(farm.path(file));
        let_others_read(&path);
        says(&refused(&command), &["can be read by others", "chmod 600", path.file_name().unwrap().to_str().unwrap()]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, path.with_extension("away")).unwrap();
        says(&refused(&command), &[path.file_name().unwrap().to_str().unwrap()]);
        fs::rename(path.with_extension("away"), &path).unwrap();
    }
}

#[test]
fn a_passphrase_of_another_deployment_and_a_certificate_of_another_network_are_named() {
    let farm = Farm::new();
    let other = farm.path("gateways/south/passphrase");
    let mine = farm.path("gateways/north/passphrase");
    let kept = fs::read(&mine).unwrap();
    fs::copy(&other, &mine).unwrap();
    says(&refused(&farm.gateway()), &["passphrase", "another deployment"]);
    fs::write(&mine, kept).unwrap();
    // The whole share of another network's gateway, but for the config.
    for file in ["certificate.pem", "secrets.sealed", "vault.toml", "passphrase"] {
        fs::copy(farm.path(&format!("gateways/south/{file}")), farm.path(&format!("gateways/north/{file}"))).unwrap();
    }
    says(&refused(&farm.gateway()), &["certificate.pem", "urn:gw:00000002"]);
}

#[test]
fn a_port_in_use_is_named_with_the_setting_that_changes_it() {
    let farm = Farm::new();
    let _taken = (UdpSocket::bind(farm.radio).unwrap(), UdpSocket::bind(farm.node).unwrap());
    says(&refused(&farm.gateway()), &[&farm.radio.to_string()]);
    says(&refused(&farm.node()), &[&farm.node.to_string(), "node.toml"]);
    for (address, setting) in [(farm.ingest, "ingest.bind"), (farm.api, "api.bind")] {
        let _taken = TcpListener::bind(address).unwrap();
        says(&refused(&farm.cloud()), &[&address.to_string(), setting, "cloud.toml"]);
    }
}

#[test]
fn unknown_settings_are_errors_with_their_line() {
    let farm = Farm::new();
    let cases = [
        ("cloud/cloud.toml", farm.cloud()),
        ("gateways/north/gateway.toml", farm.gateway()),
        (&format!("nodes/{}/node.toml", farm.did), farm.node()),
    ];
    for (file, command) in cases {
        let text = fs::read_to_string(farm.path(file)).unwrap();
        fs::write(farm.path(file), format!("{text}colour = 1\n")).unwrap();
        let line = format!("line {}", text.lines().count() + 1);
        says(
            &refused(&command),
            &[&line, "unknown field `colour`", Path::new(file).file_name().unwrap().to_str().unwrap()],
        );
        fs::write(farm.path(file), "=\n").unwrap();
        says(&refused(&command), &["line 1"]);
    }
}

#[test]
fn a_damaged_store_is_never_overwritten() {
    let farm = Farm::new();
    let noise: Vec<u8> = (0..8192u32).map(|i| (i * 31 % 251) as u8).collect();
    for (file, command) in [
        ("registry.db", farm.cloud()),
        ("cloud/readings.db", farm.cloud()),
        ("gateways/north/store.db", farm.gateway()),
    ] {
        let path = farm.path(file);
        let kept = fs::read(&path).ok();
        fs::write(&path, &noise).unwrap();
        says(&refused(&command), &["is damaged", file.rsplit('/').next().unwrap()]);
        assert_eq!(fs::read(&path).unwrap(), noise, "{file}");
        match kept {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    says(&refused(&["device".into(), "list".into(), "--dir".into(), farm.path("cloud")]), &["fivefold init"]);
}

#[test]
fn a_cloud_whose_disk_is_full_acknowledges_nothing_and_loses_nothing() {
    let farm = Farm::new();
    let _gateway = Daemon::start(&farm.gateway(), 0);
    let node = |count: &str, wait: &str| {
        let node = farm.node();
        let mut arguments: Vec<&str> = node.iter().map(String::as_str).collect();
        arguments.extend(["--every", "0.05", "--count", count, "--wait", wait]);
        let done = fivefold(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        said.lines().filter(|l| l.contains("\"event\":\"delivered\"")).count()
    };
    let before = {
        let _cloud = Daemon::start(&farm.cloud(), 0);
        let before = node("3", "30");
        assert_eq!((before, farm.stored()), (3, 3));
        before
    };
    // No file may grow beyond what the store has already.
    let full = {
        let kib = fs::metadata(farm.path("cloud/readings.db")).unwrap().len().div_ceil(1024) as u32;
        let _cloud = Daemon::start(&farm.cloud(), kib);
        node("40", "3")
    };
    let _cloud = Daemon::start(&farm.cloud(), 0);
    assert!(farm.stored() >= before + full, "{full} were acknowledged, {} are stored", farm.stored());
    let after = node("2", "30");
    assert!(after >= 2, "the cloud works again: {after}");
    let stored = farm.stored();
    assert!(stored >= before + full + after, "{stored} stored; {before}, {full} and {after} acknowledged");
}
