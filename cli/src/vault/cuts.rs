//! A re-keying that a power cut ends anywhere: every secret opens afterwards, and it goes on to its end.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_cloud::accepted::ContextId;
use fivefold_cloud::store::{ContextRow, Standing, Store, Write};
use fivefold_core::id::{Did, Epoch, GatewayGroup, Net, Sid};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::{Alg, sha256};
use fivefold_core::time::Millis;
use fivefold_core::wire::state::{self, Added, Share};
use fivefold_gateway::gateway::{AddedContext, AppliedState, Record};
use fivefold_gateway::spool::Spool;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Registry;
use fivefold_keep::vault::{KeyId, PASSPHRASE_FILE, Rekey, VAULT_FILE, Vault, describe};

use super::places::{Part, Place};

/// A vault as the version before made it, but for one round of PBKDF2: the data key is what the passphrase gives.
const BEFORE: &str = r#"kdf = "pbkdf2-hmac-sha256"
rounds = 1
salt = "AAECAwQFBgcICQoLDA0ODw=="
check = "RlZTMQABAgMEBQYHCAkKC+X2o1iZl90YR9x+aO3FidjWH7qVpq76p86XfJHERUO9sI1G83LggicR10r5WgXtmw=="
"#;
/// And as it is now. Both were made in Python, by other people's cryptography.
const NOW: &str = r#"format = 2
[source]
kind = "passphrase-file"
path = "passphrase"
rounds = 1
salt = "AAECAwQFBgcICQoLDA0ODw=="
[key]
id = "0102030405060708"
wrapped = "AAECAwQFBgcICQoLkpTbM6bBkV8P7l9K2+iJlMoVXnNaGBNrDFblJ2L++hUBxQd4emzsp6j4dMK1Ibp3"
"#;
const PASSPHRASE: &str = "ecAWQul+aWxAsafB6pb/QEkAdS0M5Qhowfq1jBD/jBE=\n";

fn fivefold(words: &[&str]) {
    let _ = crate::main(["fivefold", "-o", "json"].iter().chain(words).map(Into::into));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Takes a new folder to another vault.
fn under(dir: &Path, vault_toml: &str) {
    let vault = Vault::open_folder(dir).unwrap();
    let secrets: Vec<_> = sealed_files(dir).into_iter().map(|p| (vault.open_file(&p).unwrap(), p)).collect();
    drop(vault);
    fs::write(dir.join(VAULT_FILE), vault_toml).unwrap();
    files::write(&dir.join(PASSPHRASE_FILE), Readers::Owner, PASSPHRASE.as_bytes()).unwrap();
    let vault = Vault::open_folder(dir).unwrap();
    for (secret, path) in secrets {
        vault.seal_file(&path, &secret).unwrap();
    }
    let book = dir.join("registry.db");
    if book.exists() {
        rusqlite::Connection::open(&book).unwrap().execute("DELETE FROM cloud_keys", []).unwrap();
        Registry::open(&book, fivefold_keep::registry::By::new("test", "here", "test", 1))
            .unwrap()
            .cloud_identity(&vault)
            .unwrap();
    }
}

fn sealed_files(dir: &Path) -> Vec<PathBuf> {
    let parts = Place::of(dir).unwrap().parts().unwrap();
    let state = ["state/slot-a.sealed", "state/slot-b.sealed", "secrets.sealed"].map(|f| dir.join(f));
    let files = parts.into_iter().filter_map(|p| if let Part::File(p) = p { Some(p) } else { None });
    let mut all: Vec<PathBuf> = files.chain(state.into_iter().filter(|p| p.exists())).collect();
    all.sort();
    all.dedup();
    all
}

/// An operator's folder with a cloud that has a draining context, a gateway with a state, and a node with counters.
fn yard(dir: &Path, vault_toml: &str) -> [PathBuf; 3] {
    let farm = dir.join("farm");
    fivefold(&["init", text(&farm), "--ingest", "127.0.0.1:1", "--api", "127.0.0.1:2"]);
    under(&farm, vault_toml);
    fivefold(&["network", "add", "--dir", text(&farm), "--levels", "e1+e2+e3+e4", "one"]);
    fivefold(&["gateway", "add", "--dir", text(&farm), "--net", "one", "north"]);
    let did = Did([0xac, 0xde, 0x48, 0, 0, 0, 0, 1]);
    let air = ["--bind", "127.0.0.1:0", "--air", "127.0.0.1:9"];
    fivefold(&[&["device", "add", "--dir", text(&farm), "--net", "one", "--did", &did.to_string()], &air[..]].concat());
    let vault = Vault::open_folder(&farm).unwrap();
    let row = ContextRow {
        id: ContextId(1),
        net: Net(1),
        did,
        level: 3,
        epoch: Epoch(1),
        bctx: None,
        standing: Standing::Draining,
        since: Millis(1),
        sealed: Some(vault.seal(&format!("cloud context {did} 1"), b"a context that drains").unwrap()),
        failures: 0,
        bound: 0,
        restored_at: None,
        agreed: None,
    };
    let store = Store::open(&farm.join("cloud/readings.db")).unwrap();
    store.commit_now(Write { contexts: vec![row], ..Write::default() }).unwrap();

    let gateway = farm.join("gateways/north");
    under(&gateway, vault_toml);
    let vault = Arc::new(Vault::open_folder(&gateway).unwrap());
    let (mut spool, _) = Spool::open(&gateway.join("store.db"), GatewayBoot([1; 8]), Box::new(vault)).unwrap();
    let parts = [b"one".as_slice(), b"two"].map(Into::into).into();
    spool.write(&Record::State(AppliedState { version: 3, applied: Millis(5), parts })).unwrap();
    let (sid, epoch) = (Sid(0x0a17), Epoch(2));
    let share = Share::Primary { master_secret: &[0x4D; 32], master_salt: &[0x53; 8] };
    let (alg, standing) = (Alg::AesCcm16_64_256, state::Standing::Pending);
    let context = state::Context { sid, epoch, alg, standing, bctx: None, share };
    let mut bytes = [0; Added::LONGEST];
    let len = Added { version: 4, net: Net(1), group: GatewayGroup(1), context }.emit(&mut bytes).unwrap();
    let context = AddedContext { version: 4, bytes: bytes[..len].into() };
    spool.write(&Record::Added { sid, epoch, context }).unwrap();
    spool.commit().unwrap();

    let node = farm.join("nodes").join(did.to_string());
    under(&node, vault_toml);
    fivefold(&["node", "run", "--dir", text(&node), "--count", "1", "--wait", "0.1"]);
    [farm, gateway, node]
}

/// Every secret that the vault of `dir` opens, by its place.
fn secrets(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let vault = Arc::new(Vault::open_folder(dir).unwrap());
    let mut all: Vec<(String, Vec<u8>)> =
        sealed_files(dir).iter().map(|p| (text(p).to_owned(), vault.open_file(p).unwrap().to_vec())).collect();
    let book = dir.join("registry.db");
    if book.exists() {
        let mut book = Registry::open(&book, fivefold_keep::registry::By::new("test", "here", "test", 1)).unwrap();
        let renewal = book.cloud_identity(&vault).unwrap().key.public_x();
        all.push(("cloud key".into(), renewal.to_string().into_bytes()));
        for network in book.networks().unwrap() {
            for key in book.network_keys(&vault, network.net).unwrap() {
                all.push((format!("network key {}", key.index), key.key.to_vec()));
            }
        }
        for device in book.devices().unwrap() {
            let secrets = book.secrets(&vault, &device).unwrap();
            all.push((device.did.to_string(), [secrets.ms3.to_vec(), secrets.root_psk.to_vec()].concat()));
        }
        let db = rusqlite::Connection::open(dir.join("cloud/readings.db")).unwrap();
        let row = db.query_row("SELECT did, epoch, sealed FROM context", [], |r| {
            Ok((Did(r.get(0)?), r.get::<_, u16>(1)?, r.get::<_, Vec<u8>>(2)?))
        });
        let (did, epoch, sealed) = row.unwrap();
        all.push(("context".into(), vault.open(&format!("cloud context {did} {epoch}"), &sealed).unwrap().to_vec()));
    }
    let store = dir.join("store.db");
    if store.exists() {
        let (_, restored) = Spool::open(&store, GatewayBoot([2; 8]), Box::new(vault.clone())).unwrap();
        all.extend(restored.state.unwrap().parts.into_iter().map(|p| ("state".into(), p.to_vec())));
        all.extend(restored.added.into_iter().map(|c| ("handed over".into(), c.bytes.to_vec())));
    }
    let marker = dir.join("started");
    if marker.exists() {
        let own = hex::encode(sha256(&[&fs::read(dir.join("secrets.sealed")).unwrap()]));
        assert!(fs::read_to_string(marker).unwrap().contains(&own), "a node would start from 0 with old secrets");
    }
    all
}

/// Re-keys `dir` up to its `stop`-th event: the end of a durable write, or the power cut in the middle of one. Returns
/// whether it came to its end.
fn rekey(dir: &Path, stop: usize) -> bool {
    let events = Cell::new(0);
    let is_cut = || {
        events.set(events.get() + 1);
        events.get() > stop
    };
    let parts = Place::of(dir).unwrap().parts().unwrap();
    let rekey = Rekey::begin(dir, None).unwrap();
    for part in &parts {
        if is_cut() {
            return false;
        }
        let mut disk = |path: &Path, readers, bytes: &[u8]| {
            for len in [0, bytes.len() / 2, bytes.len()] {
                if is_cut() {
                    let mut beside = path.as_os_str().to_owned();
                    beside.push(".new");
                    fs::write(beside, &bytes[..len]).unwrap();
                    anyhow::bail!("cut");
                }
            }
            files::write(path, readers, bytes)?;
            anyhow::ensure!(!is_cut(), "cut");
            Ok(())
        };
        match part.reseal(rekey.vault(), &mut disk) {
            Ok(_) => {}
            Err(e) if e.to_string() == "cut" => return false,
            Err(e) => panic!("{part:?}: {e}"),
        }
    }
    if is_cut() {
        return false;
    }
    rekey.finish().unwrap();
    true
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Whether any file below `dir` has something that was sealed under `key`.
fn holds(dir: &Path, key: Option<KeyId>) -> bool {
    let header = key.map_or(b"FVS1".to_vec(), |k| [b"FVS2".to_vec(), hex::decode(k.to_string()).unwrap()].concat());
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).any(|path| {
        if path.is_dir() {
            return !path.join(VAULT_FILE).exists() && holds(&path, key);
        }
        memchr::memmem::find(&fs::read(path).unwrap(), &header).is_some()
    })
}

fn cut_everywhere(dir: &Path, at_least: usize) {
    let kept = dir.with_extension("kept");
    copy(dir, &kept);
    let old = describe(dir).unwrap().key;
    let before = secrets(dir);
    assert!(holds(dir, old));
    let mut stop = 0;
    while !rekey(dir, stop) {
        assert_eq!(secrets(dir), before, "cut at {stop}");
        assert!(rekey(dir, usize::MAX), "it goes on after a cut at {stop}");
        assert_eq!(secrets(dir), before, "ended after a cut at {stop}");
        assert!(!holds(dir, old), "cut at {stop}: something is under the key before still");
        copy(&kept, dir);
        stop += 1;
    }
    assert!(stop >= at_least, "only {stop} cuts in {}", dir.display());
    assert_eq!(secrets(dir), before);
    assert_ne!(describe(dir).unwrap().key, old);
}

#[test]
fn a_cut_anywhere_in_a_rekeying_leaves_every_secret_open_and_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for (dir, at_least) in yard(folder.path(), NOW).iter().zip([13, 7, 17]) {
        cut_everywhere(dir, at_least);
    }
}

#[test]
fn so_it_does_in_folders_of_before_there_was_an_envelope() {
    let folder = tempfile::tempdir().unwrap();
    for (dir, at_least) in yard(folder.path(), BEFORE).iter().zip([13, 7, 17]) {
        assert_eq!(describe(dir).unwrap().key, None);
        cut_everywhere(dir, at_least);
    }
}
