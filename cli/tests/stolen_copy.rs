//! Full copies of the cloud's and of a gateway's disk, without what wraps their keys: no context opens, nothing can be
//! signed, and no key stands anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use farm::secrets::{self, Search, Secret};
use farm::token::{LABEL, MODULE, Token};
use farm::{Daemon, Farm, answer, fivefold, private, refusal, says};
use fivefold::attack::database::{self, windows};
use fivefold::attack::plan::Plan;
use fivefold_core::counter::Lease;
use fivefold_core::e2_gateway::{E2, E2Root, E2Secret};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{Context, PartialIv};
use fivefold_core::suite::Alg;
use fivefold_keep::registry::Registry;
use fivefold_keep::vault::Vault;

/// A deployment that has run: contexts at the cloud, a pushed state at the gateway, envelopes that wait there.
struct Lived {
    farm: Farm,
    secrets: Vec<Secret>,
    /// What a device sealed under C3 and C2.
    messages: Messages,
}

struct Messages {
    sid: Sid,
    salt3: [u8; 8],
    salt2: [u8; 8],
    e3: (PartialIv, Vec<u8>),
    e2: (PartialIv, Vec<u8>),
}

impl Messages {
    /// How many of them open if `ms` is taken for MS3, and for MS2. Ids and salts are no secrets.
    fn open_under(&self, ms: &[u8; 32]) -> usize {
        let mut out = [0; 64];
        let e3 = E3Secret::new(ms, &self.salt3).unwrap();
        let e3: Context<E3> = e3.context_for_peer(self.sid, Epoch(2), None, Alg::AesCcm16_64_256).unwrap();
        let e2 = E2Secret::new(*ms, self.salt2);
        let e2: Context<E2> = e2.context_for_peer(self.sid, Epoch(2), None, Alg::AesCcm16_64_256).unwrap();
        let opened = [
            e3.open_request(self.e3.0, &self.e3.1, &mut out).is_ok(),
            e2.open_request(self.e2.0, &self.e2.1, &mut out).is_ok(),
        ];
        opened.into_iter().filter(|opened| *opened).count()
    }
}

fn sealed<L: OscoreLevel>(context: &Context<L>) -> (PartialIv, Vec<u8>) {
    let mut lease = Lease::resume(7, 8);
    lease.extend(8);
    let mut out = [0; 64];
    let (request, len) =
        context.seal_request(lease.take().unwrap(), b"\x02\xffwhat nobody else reads", &mut out).unwrap();
    (request.piv, out[..len].to_vec())
}

impl Lived {
    fn new() -> Self {
        let farm = Farm::with_levels("e1+e2+e3+e4");
        let node = |farm: &Farm, count: &str, wait: &str| {
            let words = farm.node();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let more = ["--every", "0.05", "--count", count, "--wait", wait, "--retry", "1"];
            fivefold(&[words.as_slice(), &more].concat()).output().unwrap().status.code()
        };
        let gateway = Daemon::start(&farm.gateway(), 0);
        let cloud = Daemon::start(&farm.cloud(), 0);
        assert_eq!(node(&farm, "3", "60"), Some(0));
        // Another epoch: the first one drains, and its secrets stand in the cloud's store.
        let dir = farm.path("");
        answer(&["device", "enrol-again", "--dir", &dir, &farm.did]);
        std::thread::sleep(std::time::Duration::from_secs(2));
        cloud.stop();
        node(&farm, "3", "1");
        gateway.stop();

        let vault = Vault::open_folder(Path::new(&dir)).unwrap();
        let book = Registry::open_read_only(Path::new(&farm.path("registry.db"))).unwrap();
        let device = book.device(farm.did.parse().unwrap()).unwrap();
        let own = book.secrets(&vault, &device).unwrap();
        let group = book.networks().unwrap()[0].group;
        let e2 = E2Root::new(*own.e2_root).secret(group);
        let (sid, epoch) = (device.sid, device.epoch);
        let e3: Context<E3> = E3Secret::new(&own.ms3, &own.salt3)
            .unwrap()
            .context_for_device(sid, epoch, None, Alg::AesCcm16_64_256)
            .unwrap();
        let messages = Messages {
            sid,
            salt3: own.salt3,
            salt2: *e2.master_salt(),
            e3: sealed(&e3),
            e2: sealed::<E2>(&e2.context_for_device(sid, epoch, None, Alg::AesCcm16_64_256).unwrap()),
        };
        let secrets = secrets::of(&farm);
        Self { farm, secrets, messages }
    }

    /// Everything of the operator, the cloud and the gateway, as a thief of their disks has it.
    fn copy(&self, to: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        copy(&self.farm.folder.path().join("farm"), to, &mut files);
        assert!(
            files.iter().any(|f| f.ends_with("cloud/readings.db")) && files.iter().any(|f| f.ends_with("store.db"))
        );
        files
    }
}

/// Copies a folder, without the nodes' shares and without passphrase files.
fn copy(from: &Path, to: &Path, files: &mut Vec<PathBuf>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_name().to_str().unwrap() {
            "nodes" | "passphrase" => {}
            _ if from.is_dir() => copy(&from, &to, files),
            _ => {
                fs::copy(&from, &to).unwrap();
                files.push(to);
            }
        }
    }
}

/// What the thief of a copy can do with it.
fn nothing_comes_of(lived: &Lived, copy: &Path, files: &[PathBuf]) {
    // No key of any kind, in any form, in any byte.
    let search = Search::new(&lived.secrets);
    for file in files {
        assert_eq!(search.found(&fs::read(file).unwrap()), Vec::<&str>::new(), "{}", file.display());
    }
    // No 32 bytes in a row are a data key or wrap one.
    let plan = Plan {
        database: files.to_vec(),
        oracle_secrets: lived.secrets.iter().map(|s| hex::encode(&s.bytes)).collect(),
        ..Plan::default()
    };
    let report = database::keys(&plan).unwrap();
    assert!(report.read == 0 && report.attempts > 1_000, "{report:?}");
    // None are a master secret of E3 or E2: no context opens what a device sealed.
    let mut tried = 0;
    for file in files.iter().filter(|f| f.to_str().unwrap().contains(".db")) {
        let (n, opened) = windows(&fs::read(file).unwrap(), |ms| lived.messages.open_under(ms) > 0);
        assert_eq!(opened, 0, "{}", file.display());
        tried += n;
    }
    assert!(tried > 1_000, "only {tried} were tried");
    // And what signs does not open: no certificate by the CA, no receipt and no handshake by cloud or gateway.
    for (dir, file) in [
        ("", "ca-key.sealed"),
        ("", "cloud/issuer-key.sealed"),
        ("", "cloud/key.sealed"),
        ("", "cloud/log-key.sealed"),
        ("gateways/north", "secrets.sealed"),
    ] {
        let dir = copy.join(dir);
        assert!(dir.join(file).exists() && Vault::open_folder(&dir).is_err());
    }
}

#[test]
fn a_copy_of_everything_but_the_wrapping_key_gives_no_key_no_context_and_no_signature() {
    let lived = Lived::new();
    let around = tempfile::tempdir().unwrap();
    let token = Token::new(&around.path().join("token"));
    private(&around.path().join("fivefold"), "what systemd hands over 4669201");
    let command = |words: &[&str]| {
        let mut command = fivefold(words);
        command.env("SOFTHSM2_CONF", &token.conf).env("CREDENTIALS_DIRECTORY", around.path());
        command
    };
    let works = |mut command: Command| {
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (operator, gateway) = (lived.farm.path(""), lived.farm.path("gateways/north"));
    let pin = token.pin.to_str().unwrap();
    token.make_key("k", 32, &["--sensitive"]);
    let hsm = ["pkcs11", "--module", MODULE, "--token", LABEL, "--key", "k", "--pin-file", pin];
    let sources: [(&str, &[&str], &[&str]); 3] = [
        ("a passphrase file", &[], &["cannot read", "passphrase"]),
        ("a credential", &["systemd-credential", "fivefold"], &["CREDENTIALS_DIRECTORY is not set"]),
        ("a token", &hsm, &["libsofthsm2.so does not load"]),
    ];
    for (name, source, why) in sources {
        if !source.is_empty() {
            for dir in [&operator, &gateway] {
                works(command(&[&["vault", "rewrap"], source, &["--dir", dir]].concat()));
            }
        }
        let to = around.path().join(format!("without {name}"));
        let files = lived.copy(&to);
        nothing_comes_of(&lived, &to, &files);
        let check = |place: &str, dir: &str| {
            [place, "run", "--check", "--dir", to.join(dir).to_str().unwrap()].map(str::to_owned)
        };
        for check in [check("cloud", "cloud"), check("gateway", "gateways/north")] {
            let words = check.each_ref().map(String::as_str);
            let mut elsewhere = fivefold(&words);
            says(&refusal(elsewhere.env_remove("CREDENTIALS_DIRECTORY").env("SOFTHSM2_CONF", "/nowhere")), why);
        }
        // With the wrapping key the very same copy does open: it was all there.
        if source.is_empty() {
            for dir in ["", "gateways/north"] {
                let passphrase = Path::new(dir).join("passphrase");
                fs::copy(lived.farm.path(passphrase.to_str().unwrap()), to.join(passphrase)).unwrap();
            }
        }
        for check in [check("cloud", "cloud"), check("gateway", "gateways/north")] {
            works(command(&check.each_ref().map(String::as_str)));
        }
    }
}

#[test]
fn one_forgotten_key_in_a_copy_is_found_and_opens() {
    let lived = Lived::new();
    let to = tempfile::tempdir().unwrap();
    let mut files = lived.copy(to.path());
    let planted = to.path().join("core dump");
    let is_told = |name: &str| lived.secrets.iter().find(|s| s.name.starts_with(name)).unwrap();
    for name in ["data key of", "wrapping key of"] {
        let key = is_told(name);
        fs::write(&planted, [&[0; 50], b"text".as_slice(), &key.bytes, b"more"].concat()).unwrap();
        files.push(planted.clone());
        assert!(Search::new(&lived.secrets).found(&fs::read(&planted).unwrap()).contains(&key.name.as_str()));
        // Without an oracle: it is tried, and it opens.
        let report = database::keys(&Plan { database: files.clone(), ..Plan::default() }).unwrap();
        assert!(report.read > 0, "{name}: {report:?}");
        files.pop();
    }
    for name in ["MS2 of", "MS3 of"] {
        let copy = [&[0; 50], b"text".as_slice(), &is_told(name).bytes, b"more"].concat();
        assert_eq!(windows(&copy, |ms| lived.messages.open_under(ms) == 1).1, 1, "{name}");
    }
}
