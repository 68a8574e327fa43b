//! Facts from real folders, good ones and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use fivefold_audit::facts::{Context, Facts, KeySince, Wrap};
use fivefold_audit::gather::{self, Secrets};
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, Outcome};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_keep::registry::{
    ClassicKeys, ClassicSecret, Device, KeyOrigin, NewClassic, NewDevice, Registry, Replaces, Signer,
};
use fivefold_keep::share::{NodeLink, NodeSettings, PolicySettings, write_config};
use fivefold_keep::vault::Vault;
use fivefold_waspmote::{KeyBits, Serial};
use zeroize::Zeroizing;

const NOW: u64 = 1_790_000_000;

struct Farm {
    folder: tempfile::TempDir,
    registry: Registry,
    vault: Vault,
}

impl Farm {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let registry = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        Self { folder, registry, vault }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn device(&mut self, network: &str) -> Device {
        let net = self.registry.network(network).unwrap().net;
        let policy = Policy::new(Profile::ToCloud);
        let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None };
        self.registry.add_device(&self.vault, &new, NOW).unwrap().0
    }

    fn look(&self) -> Facts {
        look(self.folder.path(), Secrets::Open(None))
    }

    fn found(&self) -> Vec<String> {
        let audit = Audit::of(&self.look(), &Waivers::NONE);
        assert!(audit.unread.is_empty(), "{:?}", audit.unread);
        audit.findings.iter().map(|f| format!("{} {}", f.rule.id, f.subject)).collect()
    }
}

fn look(folder: &Path, secrets: Secrets<'_>) -> Facts {
    let mut facts = Facts::at(NOW);
    gather::deployment(folder, secrets, &mut facts);
    facts
}

#[test]
fn a_book_is_looked_at_with_its_secrets() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    let device = farm.device("dams");
    let facts = farm.look();
    assert!(facts.unread.is_empty(), "{:?}", facts.unread);
    assert_eq!(facts.networks[0].keys.as_ref().unwrap().len(), 1);
    assert_eq!(facts.networks[0].key_since, Some(KeySince::InUse(NOW)));
    assert_eq!(facts.devices[0].keys.as_ref().unwrap().len(), 4);
    assert_eq!(facts.devices[0].context, Context::Installed(NOW));
    assert!(matches!(facts.vaults[0].wrap, Wrap::Beside(_)));
    assert_eq!(farm.found(), ["AR-36 deployment"]);
    let shown = format!("{facts:?}");
    let secrets = farm.registry.secrets(&farm.vault, &device).unwrap();
    for secret in [secrets.ms3.as_slice(), secrets.root_psk.as_slice(), secrets.e2_root.as_slice()] {
        assert!(!shown.contains(&hex::encode(secret)) && !shown.contains(&format!("{secret:?}")));
    }
}

#[test]
fn weak_and_shared_keys_are_found_in_a_real_book() {
    let mut farm = Farm::new();
    let text = Zeroizing::new(*b"Libelium-Dam-Key");
    for (name, pan) in [("one", 0x1111), ("two", 0x2222)] {
        farm.registry.danger_adopt_network(&farm.vault, name, Profile::ToCloud, None, pan, &text).unwrap();
    }
    assert_eq!(farm.found(), ["AR-04 network one", "AR-04 network two", "AR-07 network one", "AR-36 deployment"]);
    let sealed = Audit::of(&look(farm.folder.path(), Secrets::Sealed), &Waivers::NONE);
    assert_eq!(sealed.findings.len(), 1);
    let judged = sealed.rules.iter().find(|j| j.rule.id == "AR-04").unwrap();
    assert_eq!(judged.unknown.len(), 2);
}

#[test]
fn classic_devices_and_revoked_ones_are_found() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "old", Profile::ToCloud, None).unwrap();
    farm.registry.allow_classic("old").unwrap();
    let net = farm.registry.network("old").unwrap().net;
    for serial in [387_264_539, 387_264_540] {
        let mut new = NewClassic::plain(Serial::V12(serial), net);
        let key = ClassicSecret::read(b"a good key 12345", KeyBits::Aes128).unwrap();
        new.keys = ClassicKeys { gateway: None, cloud: Some(key) };
        farm.registry.add_classic(&farm.vault, &new, NOW).unwrap();
    }
    let gone = farm.device("old");
    farm.registry.revoke_device(gone.did, NOW).unwrap();
    let found = farm.found();
    let revoked = format!("AR-19 device {}", gone.did);
    for wanted in
        ["AR-07 device 387264539", "AR-09 network old", "AR-10 network old", "AR-08 device 387264539", &revoked]
    {
        assert!(found.iter().any(|f| f == wanted), "{wanted} in {found:?}");
    }
}

#[test]
fn the_signing_key_of_a_classic_node_is_looked_at() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "old", Profile::ToCloud, None).unwrap();
    farm.registry.allow_classic("old").unwrap();
    let serial = Serial::V15([1, 2, 3, 4, 5, 6, 7, 8]);
    let new = NewClassic::plain(serial, farm.registry.network("old").unwrap().net);
    farm.registry.add_classic(&farm.vault, &new, NOW).unwrap();
    let (device, _) = farm.registry.harden_classic_to_cloud(&farm.vault, serial, NOW).unwrap();
    // RSA, 2048 bits, exponent 65537: the one form that the book takes.
    let head = "30820122300d06092a864886f70d01010105000382010f003082010a0282010100";
    let spki = hex::decode(format!("{head}{}0203010001", "c1".repeat(256))).unwrap();
    let signer = Signer {
        did: device.did,
        spki,
        origin: KeyOrigin::Elsewhere,
        chain: String::new(),
        not_after: NOW + 1,
        certified_at: NOW,
        revoked_at: None,
    };
    farm.registry.enter_classic_signer(serial, &signer, Replaces::Nothing).unwrap();
    let found = farm.found();
    assert!(found.contains(&format!("AR-26 device {serial}")), "{found:?}");
    let facts = farm.look();
    assert_eq!(
        (facts.rsa.len(), facts.rsa[0].bits(), facts.rsa[0].subject.name.clone()),
        (1, 2048, serial.to_string())
    );
}

#[test]
fn a_share_that_differs_from_the_book_is_found() {
    let mut farm = Farm::new();
    let network = farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    let device = farm.device("dams");
    let path = farm.path("nodes").join(device.did.to_string()).join("node.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut settings = NodeSettings {
        did: device.did.to_string(),
        sid: device.sid.to_string(),
        net: device.net.to_string(),
        pan: format!("{:04x}", network.pan),
        group: network.group.to_string(),
        epoch: device.epoch.0,
        policy: PolicySettings::of(&device.policy, device.overrides),
        link: NodeLink { bind: "127.0.0.1:1".parse().unwrap(), air: vec![], parents: vec![] },
        cloud: None,
        gateway: None,
    };
    write_config(&path, "", &settings).unwrap();
    assert_eq!(farm.found(), ["AR-36 deployment"]);
    settings.policy.alg = 10;
    write_config(&path, "", &settings).unwrap();
    let found = Audit::of(&farm.look(), &Waivers::NONE);
    let one = found.findings.iter().find(|f| f.rule.id == "AR-41").unwrap();
    assert!(one.sentence.contains("alg is 10 there and 11 in the book"), "{}", one.sentence);
    settings.policy.alg = 11;
    type Change = fn(&mut NodeSettings);
    let changes: [(Change, &str); 9] = [
        (|s| s.policy.danger_no_link = true, "danger_no_link is true there"),
        (|s| s.policy.danger_link_only = true, "danger_link_only is true there"),
        (|s| s.policy.sign_batch = Some(8), "sign is batch:8 there"),
        (|s| s.did = "acde4800000000ff".into(), "device id is acde4800000000ff there"),
        (|s| s.sid = "0fff".into(), "short id is 0fff there"),
        (|s| s.net = "0000beef".into(), "network id is 0000beef there"),
        (|s| s.pan = "0bad".into(), "PAN id is 0bad there"),
        (|s| s.group = "0000beef".into(), "gateway group is 0000beef there"),
        (|s| s.epoch = 77, "epoch is 77 there"),
    ];
    for (change, says) in changes {
        let mut other = settings.clone();
        change(&mut other);
        write_config(&path, "", &other).unwrap();
        let found = Audit::of(&farm.look(), &Waivers::NONE);
        let one = found.findings.iter().find(|f| f.rule.id == "AR-41");
        assert!(one.is_some_and(|f| f.sentence.contains(says)), "{says}: {:?}", one.map(|f| &f.sentence));
    }
    settings.sid = settings.sid.to_ascii_uppercase();
    settings.pan = settings.pan.to_ascii_uppercase();
    write_config(&path, "", &settings).unwrap();
    assert_eq!(farm.found(), ["AR-36 deployment"], "digits are the same however they are written");

    // One that was revoked is no device to ship.
    farm.registry.revoke_device(device.did, NOW).unwrap();
    let mut facts = farm.look();
    gather::node(&path, &mut facts);
    let found = Audit::of(&facts, &Waivers::NONE);
    assert!(found.findings.iter().any(|f| f.rule.id == "AR-41" && f.sentence.contains("revoked in the book")));
}

#[test]
fn keys_and_passphrases_that_lie_open_are_found_and_sealed_ones_are_not() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    fs::create_dir(farm.path("backup")).unwrap();
    // Put together, for ./ci.sh places looks for such lines too.
    let key = ["-----BEGIN", "PRIVATE", "KEY-----\nAAAA\n-----END", "PRIVATE", "KEY-----\n"].join(" ");
    fs::write(farm.path("backup/broker.key"), &key).unwrap();
    fs::write(farm.path("backup/sealed.key"), key.replace("PRIVATE", "ENCRYPTED PRIVATE")).unwrap();
    farm.vault.seal_file(&farm.path("x.sealed"), key.as_bytes()).unwrap();
    let bare: Vec<_> = farm.look().bare.into_iter().map(|b| b.path).collect();
    assert_eq!(bare, [farm.path("backup/broker.key")]);
    fs::write(farm.path("backup/broker.key"), "x".repeat(100_000) + "\n" + &key).unwrap();
    assert_eq!(farm.look().bare.len(), 1, "it is found wherever it begins");
    fs::remove_file(farm.path("backup/broker.key")).unwrap();
    assert_eq!(farm.look().unsearched, []);
    symlink("/var/backups", farm.path("backup/old")).unwrap();
    fs::File::create(farm.path("backup/image")).unwrap().set_len(1 << 30).unwrap();
    let mut passed_over: Vec<_> = farm.look().unsearched.into_iter().map(|(path, _)| path).collect();
    passed_over.sort();
    assert_eq!(passed_over, [farm.path("backup/image"), farm.path("backup/old")]);
    let audit = Audit::of(&farm.look(), &Waivers::NONE);
    let judged = audit.rules.iter().find(|j| j.rule.id == "AR-36").unwrap();
    assert_eq!((judged.good, judged.unknown.len()), (0, 2));
    fs::set_permissions(farm.path("passphrase"), Permissions::from_mode(0o644)).unwrap();
    let facts = look(farm.folder.path(), Secrets::Sealed);
    assert!(facts.bare[0].why.contains("mode 644") && facts.bare[0].cure.contains("chmod 600"), "{:?}", facts.bare);
}

fn refused(folder: &Path, says: &str) {
    let facts = look(folder, Secrets::Open(None));
    assert!(facts.unread.iter().any(|u| u.contains(says)), "{says}: {:?}", facts.unread);
    assert_eq!(Audit::of(&facts, &Waivers::NONE).outcome(), Outcome::Unreadable);
}

#[test]
fn rubbish_is_unreadable_and_never_a_pass() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), "is no operator's folder");
    fs::write(folder.path().join("registry.db"), (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap();
    refused(folder.path(), "registry");
    fs::remove_file(folder.path().join("registry.db")).unwrap();
    let config = folder.path().join("gateway.toml");
    fs::write(&config, [0xFF, 0, 1]).unwrap();
    refused(folder.path(), "is no text");
    fs::write(&config, "name = 7").unwrap();
    refused(folder.path(), "gateway.toml: line 1");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    refused(folder.path(), "is no file");
}

#[test]
fn a_certificate_that_is_damaged_is_unreadable_and_none_is_no_good_one() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    for inside in ["!!!!", "AAAA", ""] {
        let text = format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n");
        fs::write(farm.path("ca.pem"), text).unwrap();
        refused(farm.folder.path(), "1 certificate(s), of which 1 cannot be read");
    }
    fs::write(farm.path("ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    refused(farm.folder.path(), "1 certificate(s), of which 1 cannot be read");

    let gateway = tempfile::tempdir().unwrap();
    let config = "name = \"north\"\nid = \"00000001\"\nnet = \"00000001\"\ngroup = \"00000001\"\n[link]\n\
                  did = \"acde4800000000a1\"\nsid = \"0001\"\npan = \"4321\"\nbind = \"127.0.0.1:17754\"\nair = []\n";
    fs::write(gateway.path().join("gateway.toml"), config).unwrap();
    fs::write(gateway.path().join("certificate.pem"), "no certificate").unwrap();
    refused(gateway.path(), "certificate.pem begins with no certificate that can be read");
}

#[test]
fn a_file_of_a_gigabyte_and_links_in_a_loop_cost_nothing() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    fs::create_dir(farm.path("cloud")).unwrap();
    let config = farm.path("cloud/cloud.toml");
    fs::File::create(&config).unwrap().set_len(1 << 30).unwrap();
    refused(farm.folder.path(), "is longer than 1 MiB");
    fs::remove_file(&config).unwrap();
    symlink("cloud.toml", &config).unwrap();
    refused(farm.folder.path(), "cannot read");
    fs::remove_file(&config).unwrap();
    fs::remove_dir(farm.path("cloud")).unwrap();
    symlink("..", farm.path("up")).unwrap();
    symlink(".", farm.path("nodes")).unwrap();
    assert_eq!(farm.found(), ["AR-36 deployment"]);
}

#[test]
fn a_vault_that_does_not_open_is_unreadable() {
    let mut farm = Farm::new();
    farm.registry.add_network(&farm.vault, "dams", Profile::ToCloud, None).unwrap();
    fs::rename(farm.path("passphrase"), farm.path("elsewhere")).unwrap();
    refused(farm.folder.path(), "--without-secrets");
    let elsewhere = farm.path("elsewhere");
    assert!(look(farm.folder.path(), Secrets::Open(Some(&elsewhere))).unread.is_empty());
    assert!(look(farm.folder.path(), Secrets::Sealed).unread.is_empty());
}
