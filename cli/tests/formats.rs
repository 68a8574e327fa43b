//! A deployment as a program of an earlier format left it (vectors/formats/deployment.json), and each file of a deployment in a later
//! format: the one is opened whole, the other refused in one sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use farm::{Farm, answer, refused, says};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_evidence::log::Log;
use fivefold_gateway::spool::Spool;
use fivefold_keep::registry::{By, REGISTRY_FILE, Registry};
use fivefold_keep::share::{GatewaySecrets, NodeShare};
use fivefold_keep::vault::Vault;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

struct Older {
    folder: TempDir,
    did: String,
}

impl Older {
    fn unpack() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/formats/deployment.json");
        let made: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let did = made["did"].as_str().unwrap().to_owned();
        let older = Self { folder: tempfile::tempdir().unwrap(), did };
        for (name, content) in made["files"].as_object().unwrap() {
            let path = PathBuf::from(older.path(&name.replace("NODE", &older.did)));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let (form, content) = content.as_object().unwrap().iter().next().unwrap();
            let content = content.as_str().unwrap();
            match form.as_str() {
                "text" => fs::write(&path, content).unwrap(),
                "hex" => fs::write(&path, hex::decode(content).unwrap()).unwrap(),
                // Rows stand in the order of their tables' names.
                _ => {
                    let sql = format!("PRAGMA foreign_keys = OFF; {content}");
                    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
                }
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        older
    }

    fn path(&self, part: &str) -> String {
        self.folder.path().join("farm").join(part).display().to_string()
    }
}

fn format(path: &str) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
}

fn by() -> By {
    By::new("test", "here", "test", 1)
}

#[test]
fn a_deployment_of_an_earlier_format_is_opened_whole_and_its_book_leaves_a_copy() {
    let older = Older::unpack();
    let book = older.path(REGISTRY_FILE);
    let vault = Vault::open_folder(Path::new(&older.path(""))).unwrap();
    // Who only reads reads it as it would become, and leaves it alone.
    let reader = Registry::open_read_only(Path::new(&book)).unwrap();
    let devices = reader.devices().unwrap();
    assert_eq!((devices.len(), format(&book)), (1, 2));
    assert_eq!((reader.deeds(0, 10).unwrap(), reader.classic_devices().unwrap()), (Vec::new(), Vec::new()));
    let secrets = reader.secrets(&vault, &devices[0]).unwrap();
    drop(reader);

    // Root may type it in the folder of a daemon's user.
    let _ = chown(older.path(""), Some(4242), Some(4242));
    let shown = answer(&["device", "show", "--dir", &older.path(""), &older.did]);
    assert!(shown["renewal"]["highest_epoch"].as_u64() > Some(1), "{shown}");
    let present = format(&book);
    assert!(present > 2);
    let beside = older.path("registry.db.format-2");
    assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&beside).unwrap().uid(), fs::metadata(older.path("")).unwrap().uid());
    assert_eq!(format(&beside), 2);
    // It is what an older program would go on with.
    let mut copy = Registry::open(Path::new(&beside), by()).unwrap();
    assert_eq!(copy.devices().unwrap(), devices);
    assert_eq!(*copy.secrets(&vault, &devices[0]).unwrap().root_psk, *secrets.root_psk);
    copy.revoke_device(devices[0].did, 9).unwrap();
    let now = Registry::open(Path::new(&book), by()).unwrap();
    assert_eq!(now.devices().unwrap(), devices, "the copy is another file");
    assert_eq!(now.networks().unwrap().len(), 1);
    assert_eq!(now.network_keys(&vault, devices[0].net).unwrap().len(), 2, "a rotation is under way");
    assert_eq!(now.tokens().unwrap()[0].name, "reader");

    let gateway = older.path("gateways/north");
    let of_gateway = Vault::open_folder(Path::new(&gateway)).unwrap();
    GatewaySecrets::read(&of_gateway, Path::new(&gateway)).unwrap();
    let store = Path::new(&gateway).join("store.db");
    let (_, kept) = Spool::open(&store, GatewayBoot([1; 8]), Box::new(Arc::new(of_gateway))).unwrap();
    assert!(kept.state.is_some(), "what the cloud pushed");
    let node = older.path(&format!("nodes/{}", older.did));
    NodeShare::read(Path::new(&node)).unwrap();
    answer(&["node", "run", "--check", "--dir", &node]);
    let store = older.path("cloud/readings.db");
    drop(fivefold_cloud::store::Store::open(Path::new(&store)).unwrap());
    let cloud = PathBuf::from(older.path("cloud"));
    let ca = fs::read_to_string(cloud.join("ca.pem")).unwrap();
    let key = fivefold_cloud::log_key::open_or_make(&cloud, &vault, &ca).unwrap();
    let log = Log::open(&cloud.join("log"), key).unwrap();
    assert!(log.durable() > 0);
}

#[test]
fn a_disk_that_takes_no_copy_of_the_book_loses_nothing_and_all_goes_on_when_there_is_room() {
    let older = Older::unpack();
    let (dir, book) = (older.path(""), older.path(REGISTRY_FILE));
    let list = ["-o", "json", "device", "list", "--dir", &dir];
    for kib in [1, 8, 40] {
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
        let mut command = Command::new("sh");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_fivefold")]).args(list);
        says(
            &farm::refusal(&mut command),
            &["registry.db", "it is whole in format 2, and nothing is lost; make room, then start this again"],
        );
        assert_eq!(format(&book), 2);
        assert!(!Path::new(&older.path("registry.db.format-2.new")).exists(), "{kib}");
    }
    assert_eq!(answer(&list[2..]).as_array().unwrap().len(), 1);
    assert!(format(&book) > 2);
}

/// Puts a file into a later format, by the place where its format stands.
fn raise(path: &str) {
    let bytes = fs::read(path).unwrap();
    if path.ends_with(".db") {
        return Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    }
    let later = match bytes.strip_prefix(b"FVS2") {
        Some(rest) => [b"FVS9", rest].concat(),
        None => {
            let text = String::from_utf8(bytes).unwrap();
            let begins = text.lines().any(|l| l.starts_with("format = "));
            match (path.ends_with(".toml"), begins) {
                (true, true) => text.replace("format = 2", "format = 9").into_bytes(),
                // Whatever else is in it.
                (true, false) => format!("format = 9\nof_later = true\n{text}").into_bytes(),
                (false, _) => format!("format 9\n{text}").into_bytes(),
            }
        }
    };
    fs::write(path, later).unwrap();
}

#[test]
fn whatever_has_a_later_format_is_refused_in_one_sentence_and_left_as_it_is() {
    let farm = Farm::new();
    let (dir, did) = (farm.path(""), farm.did.clone());
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<String>>();
    let node = format!("nodes/{did}");
    let (listed, cloud, gateway, runs) = (
        words(&["device", "list", "--dir", &dir]),
        farm.cloud().to_vec(),
        farm.gateway().to_vec(),
        farm.node().to_vec(),
    );
    // Counters of a node, and the stores.
    drop(fivefold_cloud::store::Store::open(Path::new(&farm.path("cloud/readings.db"))).unwrap());
    let share = PathBuf::from(farm.path("gateways/north"));
    let vault = Arc::new(Vault::open_folder(&share).unwrap());
    drop(Spool::open(&share.join("store.db"), GatewayBoot([1; 8]), Box::new(vault)).unwrap());
    fs::write(farm.path(&format!("{node}/started")), "").unwrap();
    fs::write(farm.path("waivers.toml"), "").unwrap();
    let audit = words(&["audit", "--dir", &dir, "--waivers", &farm.path("waivers.toml")]);
    let tokens = words(&["gateway", "token", "list", "--dir", &farm.path("gateways/north")]);
    answer(&["gateway", "token", "add", "--dir", &farm.path("gateways/north"), "t"]);
    for (file, command) in [
        ("registry.db", &listed),
        ("operator.toml", &listed),
        ("vault.toml", &cloud),
        ("cloud/cloud.toml", &cloud),
        ("cloud/key.sealed", &cloud),
        ("waivers.toml", &audit),
        ("cloud/readings.db", &cloud),
        ("gateways/north/gateway.toml", &gateway),
        ("gateways/north/vault.toml", &gateway),
        ("gateways/north/secrets.sealed", &gateway),
        ("gateways/north/store.db", &gateway),
        ("gateways/north/http-tokens.toml", &tokens),
        (&format!("{node}/node.toml"), &runs),
        (&format!("{node}/vault.toml"), &runs),
        (&format!("{node}/secrets.sealed"), &runs),
        (&format!("{node}/started"), &runs),
    ] {
        let path = farm.path(file);
        let kept = fs::read(&path).unwrap();
        raise(&path);
        let later = fs::read(&path).unwrap();
        let said = refused(command);
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let found = if file.ends_with(".db") {
            "has format 99, and this program knows up to format"
        } else {
            "has format 9, and this program knows up to format"
        };
        says(&said, &[name, found, "use the fivefold that wrote it, or a later one"]);
        assert_eq!(fs::read(&path).unwrap(), later, "{file}");
        fs::write(&path, kept).unwrap();
    }
}

#[test]
fn every_file_of_a_deployment_stands_in_the_table_of_formats() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operate.md")).unwrap();
    let (_, table) = manual.split_once("#### Files and their formats").unwrap();
    let rows = table.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    let named: BTreeSet<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    let older = Older::unpack();
    answer(&["device", "list", "--dir", &older.path("")]);
    let (mut folders, mut found) = (vec![PathBuf::from(older.path(""))], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                // Its files are C2SP's, but for the journal.
                if !entry.ends_with("cloud/log") {
                    folders.push(entry);
                }
                continue;
            }
            found += 1;
            let path = entry.to_str().unwrap();
            let is_named = named.iter().any(|name| {
                let name = name.replace("-N", "-2");
                name.strip_prefix('*').map_or(path.ends_with(&format!("/{name}")), |end| path.ends_with(end))
            });
            assert!(is_named, "{path} is not in the table");
        }
    }
    assert!(found > 20, "{found}");
}
