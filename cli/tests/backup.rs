//! Backups of a deployment that runs, and what is made of them after its disk is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::path::Path;

use farm::token::{LABEL, MODULE, Token};
use farm::{Daemon, Farm, answer, fivefold, refusal, refused, says};
use fivefold_keep::backup::{Job, Plan, write};
use serde_json::Value;

/// A deployment, with a folder beside it for its backups.
struct Kept {
    farm: Farm,
}

impl Kept {
    fn new(levels: &str) -> Self {
        Self { farm: Farm::with_levels(levels) }
    }

    fn at(&self, part: &str) -> String {
        self.farm.folder.path().join(part).display().to_string()
    }

    fn back_up(&self, more: &[&str]) -> Value {
        let (dir, to) = (self.farm.path(""), self.at("set"));
        answer(&[&["cloud", "backup", "--dir", &dir, "--to", &to][..], more].concat())
    }

    /// Lets the node deliver so many readings; which numbers they had.
    fn deliver(&self, count: &str) -> Vec<u64> {
        let node = self.farm.node();
        let node: Vec<&str> = node.iter().map(String::as_str).collect();
        let more = [
            "--every",
            "0.05",
            "--count",
            count,
            "--wait",
            "60",
            "--retry",
            "2",
            "--renew-resend",
            "3",
            "--renew-pause",
            "1",
        ];
        let done = fivefold(&[node.as_slice(), &more].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        let events = said.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        events.filter(|e| e["event"] == "reading").map(|e| e["number"].as_u64().unwrap()).collect()
    }

    fn restore(&self, more: &[&str]) -> Vec<String> {
        let (dir, from) = (self.farm.path(""), self.at("set"));
        let words = ["cloud", "restore", "--dir", &dir, "--from", &from];
        words.iter().chain(more).map(|w| (*w).to_owned()).collect()
    }
}

fn done(arguments: &[String]) -> Value {
    answer(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What lies in a folder and below it, without what processes leave.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            all.extend(files(&entry.path()).iter().map(|below| format!("{name}/{below}")));
        } else {
            all.push(name);
        }
    }
    all.sort();
    all
}

#[test]
fn a_cloud_that_runs_is_backed_up_and_comes_back_after_its_disk_is_gone_and_the_node_delivers_untouched() {
    let kept = Kept::new("e1+e3+e4");
    let (gateway, cloud) = (Daemon::start(&kept.farm.gateway(), 0), Daemon::start(&kept.farm.cloud(), 0));
    kept.deliver("3");
    let full = kept.back_up(&[]);
    assert_eq!((full["number"].as_u64(), full["holds"]["readings"].as_u64()), (Some(0), Some(3)));
    kept.deliver("2");
    let increment = kept.back_up(&[]);
    assert_eq!((increment["number"].as_u64(), increment["holds"]["readings"].as_u64()), (Some(1), Some(5)));
    assert!(increment["pages"].as_u64() < full["pages"].as_u64(), "{increment}");
    // Lost with the disk.
    kept.deliver("1");

    let (dir, to) = (kept.farm.path(""), kept.at("set"));
    let whole = answer(&["cloud", "backup", "--dir", &dir, "--to", &to, "--verify"]);
    assert_eq!((&whole["whole"], whole["upto"].as_u64()), (&true.into(), Some(1)));
    let list = answer(&["cloud", "backup", "--to", &to, "--list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!((&list[1]["of"], &list[1]["set"]), (&"cloud".into(), &full["set"]));
    // The operator's log names who took them.
    let log = answer(&["operator", "log", "--dir", &dir]).to_string();
    assert_eq!(log.matches("backup made").count(), 2, "{log}");

    // While it runs, nothing is put in its place.
    let error = refused(&kept.restore(&["--replace"]));
    says(&error, &["vault.toml is in use by a daemon", "stop that first"]);
    says(&refused(&kept.restore(&[])), &["is there; add --replace"]);
    // Nor where its vault.toml is lost.
    fs::rename(format!("{dir}/vault.toml"), kept.at("vault.toml")).unwrap();
    let error = refused(&kept.restore(&["--replace", "--passphrase-file", &format!("{dir}/passphrase")]));
    says(&error, &["is in use by a daemon"]);
    fs::rename(kept.at("vault.toml"), format!("{dir}/vault.toml")).unwrap();
    cloud.stop();

    // The disk is gone, but for folders of gateways and nodes, which are others' machines.
    let passphrase = kept.at("safe");
    fs::rename(format!("{dir}/passphrase"), &passphrase).unwrap();
    fs::rename(&dir, kept.at("gone")).unwrap();
    says(&refused(&kept.restore(&[])), &["name the passphrase file of the vault with --passphrase-file"]);
    let told = done(&kept.restore(&["--passphrase-file", &passphrase]));
    assert_eq!((told["number"].as_u64(), told["holds"]["readings"].as_u64()), (Some(1), Some(5)));
    assert!(
        told["restored"]["contexts"].as_u64().unwrap() >= 1 && told["restored"]["ordered"].as_u64() == Some(1),
        "{told}"
    );
    for party in ["gateways", "nodes"] {
        fs::rename(kept.at(&format!("gone/{party}")), format!("{dir}/{party}")).unwrap();
    }
    let cloud = Daemon::start(&kept.farm.cloud(), 0);
    assert!(kept.farm.stored() >= 5);
    // Nobody touches the node: it is told to renew, and goes on under what it agreed then.
    let quick = ["--every", "0.7", "--retry", "1", "--renew-resend", "3", "--renew-pause", "1"];
    let words: Vec<String> = kept.farm.node().into_iter().chain(quick.map(str::to_owned)).collect();
    let node = Daemon::start(&words, 0);
    let comes = |until: &dyn Fn() -> bool| {
        let came = (0..300).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            until()
        });
        assert!(came, "it never came");
    };
    let device = || answer(&["device", "show", "--dir", &dir, &kept.farm.did]);
    comes(&|| device()["renewal"]["highest_epoch"].as_u64() >= Some(2));
    let before = kept.farm.stored();
    comes(&|| kept.farm.stored() >= before + 2);
    node.stop();
    let log = answer(&["operator", "log", "--dir", &dir]).to_string();
    assert!(
        log.contains("cloud restored") && log.contains(&format!("from set {}", full["set"].as_str().unwrap())),
        "{log}"
    );
    // The set is gone on with.
    assert_eq!(kept.back_up(&[])["number"].as_u64(), Some(2));
    cloud.stop();
    gateway.stop();
}

#[test]
fn what_cannot_be_restored_is_told_in_one_sentence_and_nothing_is_touched() {
    let kept = Kept::new("e1+e3+e4");
    let dir = kept.farm.path("");
    let recovery = kept.at("recovery");
    kept.back_up(&["--recovery-file", &recovery]);
    answer(&["token", "add", "--dir", &dir, "second"]);
    kept.back_up(&[]);
    answer(&["token", "add", "--dir", &dir, "third"]);
    let before = files(Path::new(&dir));
    let refuses = |more: &[&str], words: &[&str]| {
        let error = refused(&kept.restore(&[&["--replace"][..], more].concat()));
        says(&error, words);
        assert_eq!(files(Path::new(&dir)), before, "{error}");
        let beside = fs::read_dir(kept.farm.folder.path()).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = beside.filter(|n| n.to_string_lossy().starts_with("farm.")).collect();
        assert!(left.is_empty(), "{left:?}");
    };
    let to = kept.at("set");
    let verify = ["cloud", "backup", "--dir", &dir, "--to", &to, "--verify"];
    let file = |n: u32| format!("{to}/{n:04}.ffb");
    let good = fs::read(file(1)).unwrap();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    for bytes in [&altered[..], &good[..good.len() - 3]] {
        fs::write(file(1), bytes).unwrap();
        refuses(&[], &["frame 0 of ", "0001.ffb was changed or cut", "--upto 0"]);
        let broken = fivefold(&verify).output().unwrap();
        assert_eq!(broken.status.code(), Some(1));
        assert_eq!(serde_json::from_slice::<Value>(&broken.stdout).unwrap()["whole"], false);
    }
    let mut newer = good.clone();
    newer[5] = 9;
    fs::write(file(1), newer).unwrap();
    refuses(&[], &["0001.ffb has format 9, this program knows 1; use the newer program"]);
    fs::write(file(1), &good).unwrap();
    fs::rename(file(0), kept.at("first")).unwrap();
    refuses(&[], &["lacks 0000.ffb"]);
    fs::rename(kept.at("first"), file(0)).unwrap();
    refuses(&["--upto", "7"], &["ends with number 1: there is no 7"]);
    let wrong = kept.at("wrong");
    farm::private(Path::new(&wrong), "another passphrase than the right one");
    refuses(&["--passphrase-file", &wrong], &["does not open"]);
    refuses(&["--recovery-file", &wrong], &["does not open"]);
    refuses(&["--log", &kept.at("nowhere")], &["is no log"]);
    let nowhere = kept.at("nowhere");
    let error = refusal(&mut fivefold(&["cloud", "restore", "--dir", &dir, "--replace", "--from", &nowhere]));
    says(&error, &["cannot read", "nowhere"]);
    // Onto a full disk.
    let words = kept.restore(&["--replace"]);
    let mut full = std::process::Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 20; exec \"$0\" -o json \"$@\"", env!("CARGO_BIN_EXE_fivefold")])
        .args(&words);
    says(&refusal(&mut full), &["is full; what was begun is removed"]);
    refuses(&["--upto", "8"], &["there is no 8"]);
    // Of another deployment.
    let other = Farm::new();
    let theirs = other.path("");
    let pass = format!("{dir}/passphrase");
    let words = ["cloud", "restore", "--dir", &theirs, "--replace", "--from", &to, "--passphrase-file", &pass];
    says(
        &refusal(&mut fivefold(&words)),
        &["is a backup of the deployment of the CA", "and this is the deployment of the CA"],
    );
    let error = refusal(&mut fivefold(&["cloud", "backup", "--dir", &theirs, "--to", &to]));
    says(&error, &["0001.ffb is a backup of cloud of the CA"]);
    let north = kept.farm.path("gateways/north");
    let words = ["gateway", "restore", "--dir", &north, "--replace", "--from", &to, "--passphrase-file", &pass];
    says(&refusal(&mut fivefold(&words)), &["the set is of cloud", "fivefold cloud restore"]);
    // Into what it is of, and onto a full disk.
    let inside = kept.farm.path("cloud/set");
    says(&refusal(&mut fivefold(&["cloud", "backup", "--dir", &dir, "--to", &inside])), &["which is to be backed up"]);
    std::os::unix::fs::symlink("/dev/full", format!("{to}/0002.ffb.part")).unwrap();
    says(
        &refusal(&mut fivefold(&["cloud", "backup", "--dir", &dir, "--to", &to])),
        &["is full", "what was there before is as it was"],
    );
    assert_eq!(answer(&verify)["upto"], 1);

    // An older one, over the folder that is there: gateways and nodes stay, and the old folder is kept.
    let told = done(&kept.restore(&["--replace", "--upto", "0"]));
    let aside = told["before"].as_str().unwrap();
    assert!(Path::new(aside).join("registry.db").exists() && !Path::new(aside).join("gateways/north").exists());
    assert!(Path::new(&kept.farm.path("gateways/north/gateway.toml")).exists());
    let tokens = answer(&["token", "list", "--dir", &dir]).to_string();
    assert!(tokens.contains("\"t\"") && !tokens.contains("second"), "{tokens}");
    answer(&["cloud", "run", "--dir", &kept.farm.path("cloud"), "--check"]);

    // By the recovery passphrase, which then opens the vault.
    fs::remove_dir_all(&dir).unwrap();
    done(&kept.restore(&["--recovery-file", &recovery]));
    assert_eq!(fs::read(format!("{dir}/passphrase")).unwrap(), fs::read(&recovery).unwrap());
    answer(&["cloud", "run", "--dir", &kept.farm.path("cloud"), "--check"]);
    assert!(answer(&["token", "list", "--dir", &dir]).to_string().contains("second"));
}

/// Where a restore was killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// While files were written.
    Unpacking,
    /// All was whole, and nothing was moved.
    Whole,
    /// The old folder was moved.
    Aside,
    /// The same, and the machine started again: a package makes an empty folder then.
    AsideAndEmpty,
    /// The old folder was moved, and another new one just became whole.
    AsideAgain,
    /// The new folder was in its place, and no folder of others in it.
    InPlace,
    /// One of others was in it.
    OneParty,
}

#[test]
fn a_restore_that_was_killed_between_any_two_renames_is_finished_by_typing_it_again_or_gives_way_to_another() {
    let kept = Kept::new("e1+e3+e4");
    let dir = kept.farm.path("");
    let dir = dir.trim_end_matches('/');
    let shell = |line: &str| {
        let done = std::process::Command::new("sh").args(["-ec", line]).current_dir(kept.farm.folder.path()).status();
        assert!(done.unwrap().success(), "{line}");
    };
    kept.back_up(&[]);
    answer(&["token", "add", "--dir", dir, "second"]);
    let last = kept.back_up(&[]);
    // What a restore of the last number has when it is whole.
    let (whole, passphrase) = (kept.at("whole"), format!("{dir}/passphrase"));
    let words = [
        "cloud",
        "restore",
        "--dir",
        &whole,
        "--from",
        &kept.at("set"),
        "--passphrase-file",
        &passphrase,
        "--upto",
        "1",
    ];
    answer(&words);
    farm::private(&Path::new(&whole).join("of-then"), "its store counts as restored then, and not now");
    let mark =
        serde_json::json!({ "set": last["set"], "number": 1, "before": format!("{dir}.before-cut") }).to_string();
    farm::private(&Path::new(&whole).join("restored.json"), &mark);
    let mut first = String::new();
    for (cut, upto) in [
        (Cut::Unpacking, "1"),
        (Cut::Whole, "1"),
        (Cut::Whole, "0"),
        (Cut::Aside, "1"),
        (Cut::Aside, "0"),
        (Cut::AsideAndEmpty, "1"),
        (Cut::AsideAgain, "1"),
        (Cut::InPlace, "1"),
        (Cut::OneParty, "1"),
        (Cut::OneParty, "0"),
    ] {
        let mut in_place = false;
        match cut {
            Cut::Unpacking => shell("mkdir -p farm.restoring/cloud; echo half > farm.restoring/registry.db"),
            Cut::Whole => shell("cp -a whole farm.restored"),
            Cut::Aside => shell("cp -a whole farm.restored; mv farm farm.before-cut"),
            Cut::AsideAndEmpty => shell("cp -a whole farm.restored; mv farm farm.before-cut; mkdir farm"),
            Cut::AsideAgain => shell("cp -a whole farm.restoring; mkdir farm.restored; mv farm farm.before-cut"),
            Cut::InPlace => shell("mv farm farm.before-cut; cp -a whole farm"),
            Cut::OneParty => shell(
                "mv farm farm.before-cut; cp -a whole farm; mkdir farm/gateways; mv farm.before-cut/gateways/north farm/gateways",
            ),
        }
        if matches!(cut, Cut::InPlace | Cut::OneParty) {
            in_place = true;
            let error = refusal(&mut fivefold(&["cloud", "backup", "--dir", dir, "--to", &kept.at("set")]));
            says(&error, &["was not put back to its end", "type the command again"]);
        }
        // Word for word what was typed before, whose files may have moved with the folder.
        let more: &[&str] = if cut == Cut::AsideAgain { &["--passphrase-file", &passphrase] } else { &[] };
        let told = done(&kept.restore(&[&["--replace", "--upto", upto], more].concat()));
        let resumed = in_place && upto == "1";
        assert_eq!(told["resumed"] == true, resumed, "{cut:?} {upto}: {told}");
        // Whatever was not in its place is made anew: the old folder may have been in use meanwhile.
        assert_eq!(Path::new(dir).join("of-then").exists(), resumed, "{cut:?} {upto}");
        for there in ["gateways/north/gateway.toml", "gateways/south/gateway.toml", "registry.db", "cloud/cloud.toml"] {
            assert!(Path::new(dir).join(there).exists(), "{cut:?} {upto}: {there}");
        }
        assert!(Path::new(dir).join(format!("nodes/{}", kept.farm.did)).exists(), "{cut:?} {upto}");
        for left in ["farm.restoring", "farm.restored", "farm/restored.json"] {
            assert!(!Path::new(&kept.at(left)).exists(), "{cut:?} {upto}: {left}");
        }
        let tokens = answer(&["token", "list", "--dir", dir]).to_string();
        assert_eq!(tokens.contains("second"), upto == "1", "{cut:?} {upto}: {tokens}");
        answer(&["cloud", "run", "--dir", &kept.farm.path("cloud"), "--check"]);
        let before = told["before"].as_str().unwrap();
        assert!(Path::new(before).join("registry.db").exists(), "nothing is ever deleted: {before}");
        if cut == Cut::Unpacking {
            first = before.to_owned();
        }
        shell("[ ! -e farm.before-cut ] || mv farm.before-cut $(mktemp -d ./cut.XXXXXX)");
        shell("rm -f farm/of-then");
    }
    assert!(Path::new(&first).exists(), "nothing is ever deleted");
}

#[test]
fn what_opens_the_vault_comes_back_where_it_is_looked_for_or_is_asked_for() {
    let kept = Kept::new("e1+e3+e4");
    let (dir, to) = (kept.farm.path(""), kept.at("set"));
    let token = Token::new(kept.farm.folder.path());
    let answer = |words: &[&str]| -> Value {
        let done = fivefold(words).env("SOFTHSM2_CONF", &token.conf).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let check = || answer(&["cloud", "run", "--dir", &kept.farm.path("cloud"), "--check"]);
    let backup = ["cloud", "backup", "--dir", &dir, "--to", &to];
    let restore = ["cloud", "restore", "--dir", &dir, "--from", &to];
    // A token's PIN, in a file in the folder.
    let pin = kept.farm.path("keys/pin");
    fs::create_dir(kept.farm.path("keys")).unwrap();
    fs::copy(&token.pin, &pin).unwrap();
    let rewrap = ["vault", "rewrap", "pkcs11", "--dir", &dir, "--module", MODULE, "--token", LABEL, "--key", "farm"];
    answer(&[&rewrap[..], &["--pin-file", &pin, "--generate-key"]].concat());
    answer(&backup);
    let told = answer(&[&restore[..], &["--replace"]].concat());
    assert_eq!(told["restored"]["to_put"], Value::Array(Vec::new()));
    assert_eq!(fs::read(&pin).unwrap(), fs::read(&token.pin).unwrap());
    check();
    // Where nothing is left, it is asked for, and then brought along.
    fs::rename(&dir, kept.at("gone")).unwrap();
    let error = refusal(fivefold(&restore).env("SOFTHSM2_CONF", &token.conf));
    says(&error, &["put the file with the PIN of token `fivefold`", "keys/pin", "--replace"]);
    fs::create_dir_all(kept.farm.path("keys")).unwrap();
    fs::copy(&token.pin, &pin).unwrap();
    answer(&[&restore[..], &["--replace"]].concat());
    check();

    // A passphrase elsewhere, which was lost there; and where the cloud looks for it, against the vault.
    let [elsewhere, safe] = ["elsewhere", "safe"].map(|name| kept.at(name));
    answer(&["vault", "rewrap", "passphrase-file", "--dir", &dir, &elsewhere]);
    let cloud = kept.farm.path("cloud/cloud.toml");
    let text = fs::read_to_string(&cloud).unwrap();
    fs::write(&cloud, text.replace("store = ", "passphrase_file = \"opens\"\nstore = ")).unwrap();
    fs::rename(&elsewhere, kept.farm.path("cloud/opens")).unwrap();
    fs::copy(kept.farm.path("cloud/opens"), &safe).unwrap();
    answer(&[&backup[..], &["--passphrase-file", &kept.farm.path("cloud/opens")]].concat());
    fs::remove_dir_all(&dir).unwrap();
    let told = answer(&[&restore[..], &["--passphrase-file", &safe]].concat());
    assert_eq!(told["restored"]["to_put"], serde_json::json!([elsewhere]));
    check();
}

/// Writes a set as a program did that asked nothing of settings.
fn write_set(folder: &str, of: &str, to: &str) {
    let plan = Plan::default();
    let (folder, to) = (Path::new(folder), Path::new(to));
    let job = Job { folder, passphrase_file: None, to, recovery: None, of, plan: &plan, at: 1_790_000_000 };
    write(&job).unwrap();
}

#[test]
fn settings_by_which_a_copy_would_use_the_databases_of_the_old_place_are_refused() {
    let kept = Kept::new("e1+e2+e4");
    let dir = kept.farm.path("");
    let (cloud, north) = (kept.farm.path("cloud/cloud.toml"), kept.farm.path("gateways/north/gateway.toml"));
    let change = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).unwrap();
        text
    };
    let absolute = format!("\"{}\"", kept.farm.path("cloud/readings.db"));
    for (key, good, path) in [
        ("store", "\"readings.db\"", absolute.as_str()),
        ("store", "\"readings.db\"", "\"../../farm/cloud/readings.db\""),
        ("registry", "\"../registry.db\"", &format!("\"{}\"", kept.farm.path("registry.db"))),
        ("vault", "\"..\"", &format!("\"{}\"", dir.trim_end_matches('/'))),
    ] {
        let before = change(&cloud, &format!("{key} = {good}"), &format!("{key} = {path}"));
        let words = ["cloud", "backup", "--dir", &dir, "--to", &kept.at("set")];
        says(
            &refusal(&mut fivefold(&words)),
            &[&format!("`{key}` in cloud/cloud.toml"), "relative", "type this again"],
        );
        assert!(!Path::new(&kept.at("set")).exists());
        // A set that has it all the same.
        let set = kept.at(&format!("set of {}", path.len()));
        write_set(&dir, "cloud", &set);
        for restored in [dir.clone(), kept.at("elsewhere")] {
            let pass = format!("{dir}/passphrase");
            let words =
                ["cloud", "restore", "--dir", &restored, "--from", &set, "--replace", "--passphrase-file", &pass];
            says(&refusal(&mut fivefold(&words)), &[&format!("`{key}` in cloud/cloud.toml of the set"), "relative"]);
            // Nothing was made of the store in the old place, and nothing is left beside it.
            assert!(!Path::new(&kept.farm.path("cloud/readings.db")).exists());
            for left in ["farm.restoring", "farm.restored", "elsewhere", "elsewhere.restoring"] {
                assert!(!Path::new(&kept.at(left)).exists(), "{left}");
            }
        }
        fs::write(&cloud, before).unwrap();
    }
    // The same of a gateway.
    let folder = kept.farm.path("gateways/north");
    let store = format!("\"{folder}/store.db\"");
    change(&north, "path = \"store.db\"", &format!("path = {store}"));
    let to = kept.at("north");
    let words = ["gateway", "backup", "--dir", &folder, "--to", &to];
    says(&refusal(&mut fivefold(&words)), &["`store.path` in gateway.toml", "relative", "type this again"]);
    write_set(&folder, "gateway north", &to);
    let words = ["gateway", "restore", "--dir", &folder, "--from", &to, "--replace"];
    says(&refusal(&mut fivefold(&words)), &["`store.path` in gateway.toml of the set", "relative"]);
    assert!(!Path::new(&format!("{folder}/store.db")).exists());
}

#[test]
fn a_gateway_that_runs_is_backed_up_and_goes_on_from_its_copy() {
    let kept = Kept::new("e1+e3+e4");
    let north = kept.farm.path("gateways/north");
    let to = kept.at("north");
    let (cloud, gateway) = (Daemon::start(&kept.farm.cloud(), 0), Daemon::start(&kept.farm.gateway(), 0));
    kept.deliver("2");
    let told = answer(&["gateway", "backup", "--dir", &north, "--to", &to]);
    assert_eq!((&told["of"], told["number"].as_u64()), (&"gateway north".into(), Some(0)));
    kept.deliver("2");
    assert_eq!(answer(&["gateway", "backup", "--dir", &north, "--to", &to])["number"], 1);
    kept.deliver("2");
    let words = ["gateway", "restore", "--dir", &north, "--from", &to, "--replace"];
    says(&refusal(&mut fivefold(&words)), &["vault.toml is in use by a daemon"]);
    gateway.stop();
    says(
        &refusal(&mut fivefold(&["cloud", "restore", "--dir", &north, "--from", &to, "--replace"])),
        &["the set is of gateway north"],
    );
    // Into nobody else's folder: there would be two of that gateway, or no cloud any more.
    let south = kept.farm.path("gateways/south");
    let (everything, node) = (kept.farm.path(""), kept.farm.path(&format!("nodes/{}", kept.farm.did)));
    let passphrase = format!("{north}/passphrase");
    for (dir, whose) in [(south, "gateway south"), (everything, "cloud"), (node, "a node")] {
        let words = ["gateway", "restore", "--dir", &dir, "--from", &to, "--replace", "--passphrase-file", &passphrase];
        let error = refusal(&mut fivefold(&words));
        says(&error, &[&format!("is the folder of {whose}, and the set is of gateway north"), "--dir"]);
    }
    let told = answer(&words);
    assert!(told["restored"]["frame_counters_from"].as_u64().unwrap() > 60_000, "{told}");
    assert!(Path::new(told["before"].as_str().unwrap()).exists());
    let gateway = Daemon::start(&kept.farm.gateway(), 0);
    kept.deliver("3");
    assert_eq!(kept.farm.stored(), 9, "each once");
    gateway.stop();
    cloud.stop();
}
