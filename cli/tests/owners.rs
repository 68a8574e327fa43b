//! What root types in the folder of a daemon leaves nothing there that the daemon, which is another user, cannot read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farm::{Daemon, Farm, answer};

/// Every file and folder in one, and that one.
fn all(folder: &Path) -> Vec<PathBuf> {
    let below = |entry: PathBuf| if entry.is_dir() { all(&entry) } else { vec![entry] };
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(below).chain([folder.to_owned()]).collect()
}

/// Folders that belong to a user who runs no command here: by root, to another one; else to whom they belong.
struct Theirs {
    folders: Vec<PathBuf>,
    uid: u32,
}

impl Theirs {
    fn new(folders: &[String]) -> Self {
        let folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
        let given = chown(&folders[0], Some(4242), Some(4242)).is_ok();
        if given {
            folders.iter().flat_map(|f| all(f)).for_each(|path| lchown(path, Some(4242), Some(4242)).unwrap());
        } else {
            eprintln!("only root can give folders away: all files are those of one user here");
        }
        let uid = fs::metadata(&folders[0]).unwrap().uid();
        assert_eq!(given, uid == 4242);
        Self { folders, uid }
    }

    #[track_caller]
    fn holds(&self, after: &str) {
        let of_others = |path: &PathBuf| fs::symlink_metadata(path).unwrap().uid() != self.uid;
        let others: Vec<_> = self.folders.iter().flat_map(|f| all(f)).filter(of_others).collect();
        assert!(others.is_empty(), "after `{after}`: {others:?}");
    }
}

#[test]
fn commands_that_root_types_leave_all_to_the_daemon_whose_folder_it_is() {
    let farm = Farm::new();
    let at = |name: &str| farm.folder.path().join(name).display().to_string();
    let (dir, north, south) = (farm.path(""), farm.path("gateways/north"), farm.path("gateways/south"));
    let (farms, set, of_gateway, csr) = (at("farm"), at("set"), at("set of north"), at("csr"));
    let [another, joined] = [farm.path("passphrase-2"), farm.path("gateways/joined")];
    fs::create_dir(&set).unwrap();
    fs::create_dir(&of_gateway).unwrap();
    let hook = "[[outbox]]\nname = \"hook\"\nwebhook = \"http://127.0.0.1:9/\"\n";
    let config = farm.path("cloud/cloud.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + hook).unwrap();
    let theirs = Theirs::new(&[farms.clone(), set.clone(), of_gateway.clone()]);
    for words in [
        &["cloud", "restored", "--dir", &dir][..],
        &["cloud", "renew-certificate", "--dir", &dir],
        &["cloud", "renew-issuer", "--dir", &dir],
        &["cloud", "replace-ca", "--dir", &dir],
        &["outbox", "add-secret", "--dir", &dir, "hook", "--draw"],
        &["network", "add", "--dir", &dir, "three"],
        &["gateway", "add", "--dir", &dir, "--net", "three", "west"],
        &["device", "add", "--dir", &dir, "--net", "three"],
        &["gateway", "join", "--dir", &joined, "--csr-file", &csr, "--name", "urn:gw:00000001:00000002"],
        &["gateway", "token", "add", "--dir", &north, "meter"],
        &["gateway", "local", "--dir", &south],
        &["vault", "rewrap", "passphrase-file", "--dir", &dir, &another],
        &["vault", "rekey", "--dir", &dir],
        &["vault", "rekey", "--dir", &north],
        &["cloud", "backup", "--dir", &dir, "--to", &set],
        &["gateway", "backup", "--dir", &north, "--to", &of_gateway],
        &["cloud", "restore", "--dir", &farms, "--from", &set, "--replace"],
        &["gateway", "restore", "--dir", &north, "--from", &of_gateway, "--replace"],
    ] {
        answer(words);
        theirs.holds(&words.join(" "));
    }
    let cloud = Daemon::start(&farm.cloud(), 0);
    let came = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        TcpStream::connect(farm.ingest).is_ok()
    });
    assert!(came, "the cloud is not up");
    cloud.stop();
    theirs.holds("cloud run");
}
