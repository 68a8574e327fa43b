//! `fivefold audit` over what is broken, enormous, endless or somebody's joke: a clear finding or a clear error each time, never a
//! crash, never a pass, and no more memory than a computer of a gateway has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// KiB of memory that the command may map, its program among them (some 120 MB as tests build it).
const MEMORY: u32 = 400_000;
/// Seconds that it may take: nothing here is worth waiting for.
const WORK: u32 = 30;

fn run(arguments: &[&str]) -> Output {
    let limits = format!("ulimit -v {MEMORY}; exec timeout {WORK} \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limits, env!("CARGO_BIN_EXE_fivefold"), "audit"]).args(arguments);
    command.env_remove("FIVEFOLD_DIR").output().unwrap()
}

/// Runs it, which must neither pass nor break, and returns what it said: one sentence at least that names the culprit.
#[track_caller]
fn refused(arguments: &[&str], culprit: &str) -> String {
    let done = run(arguments);
    let said = [String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)].concat();
    let shown: String = said.chars().take(2000).collect();
    assert!(matches!(done.status.code(), Some(1 | 2)), "{arguments:?}: {:?}: {shown}", done.status);
    assert!(!said.contains("panicked") && said.len() < 1_000_000, "{arguments:?}: {shown}");
    assert!(said.contains(culprit), "{arguments:?} does not name {culprit}: {shown}");
    assert!(!said.contains("A  the whole") && !said.contains("B  the whole"), "{arguments:?}: {shown}");
    said
}

#[track_caller]
fn fivefold(arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_fivefold")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn farm(folder: &Path) -> String {
    let dir = folder.join("farm").display().to_string();
    fivefold(&["init", &dir]);
    fivefold(&["network", "add", "--dir", &dir, "dams"]);
    fivefold(&["gateway", "add", "--dir", &dir, "--net", "dams", "north"]);
    dir
}

/// Puts something bad where a file is expected.
type Bad = fn(&Path);

const BAD: &[(&str, Bad)] = &[
    ("binary rubbish", |path| fs::write(path, (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap()),
    ("words without sense", |path| fs::write(path, "nonsense and more of it\n".repeat(500)).unwrap()),
    ("brackets without end", |path| fs::write(path, "[".repeat(200_000)).unwrap()),
    ("tables without end", |path| fs::write(path, format!("a = {}", "{a=".repeat(200_000))).unwrap()),
    ("one line without end", |path| fs::write(path, "x".repeat(900_000)).unwrap()),
    ("a gigabyte", |path| File::create(path).unwrap().set_len(1 << 30).unwrap()),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a link to itself", |path| symlink(path.file_name().unwrap(), path).unwrap()),
    ("a link to nothing", |path| symlink("/nowhere/at-all", path).unwrap()),
    ("a device without end", |path| symlink("/dev/zero", path).unwrap()),
    ("a pipe that nobody writes to", |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
];

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path).unwrap();
    } else {
        let _ = fs::remove_file(path);
    }
}

/// Each of them at a place; `look` says with which words the place is looked at.
fn each_at(path: &Path, look: &[&str]) {
    let name = path.file_name().unwrap().to_str().unwrap();
    for (what, put) in BAD {
        remove(path);
        put(path);
        println!("{what} at {name}");
        refused(look, name);
    }
    remove(path);
}

#[test]
fn files_of_others_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for system in ["chirpstack", "meshlium", "mosquitto", "pg-hba", "sshd", "unit"] {
        let path = folder.path().join(format!("of-{system}"));
        each_at(&path, &["--beside", &format!("{system}={}", path.display())]);
    }
}

#[test]
fn a_book_a_config_a_certificate_and_waivers_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = farm(folder.path());
    let at = |name: &str| PathBuf::from(&dir).join(name);
    // A node, and a folder of a gateway, by themselves.
    each_at(&folder.path().join("node.toml"), &["--node", folder.path().join("node.toml").to_str().unwrap()]);
    let waivers = folder.path().join("waivers.toml");
    each_at(&waivers, &["--dir", &dir, "--waivers", waivers.to_str().unwrap()]);
    for name in ["cloud/cloud.toml", "vault.toml", "gateways/north/gateway.toml", "gateways/north/certificate.pem"] {
        let (path, kept) = (at(name), folder.path().join("kept"));
        fs::rename(&path, &kept).unwrap();
        let alone = at("gateways/north").display().to_string();
        each_at(&path, &["--dir", if name.starts_with("gateways") { &alone } else { &dir }]);
        fs::rename(&kept, &path).unwrap();
    }
    // The book last: it is what makes this an operator's folder.
    fs::remove_file(at("registry.db")).unwrap();
    each_at(&at("registry.db"), &["--dir", &dir]);
}

#[test]
fn what_includes_itself_and_folders_that_are_links_to_themselves_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.conf");
    for (system, text) in [
        ("mosquitto", "listener 1883\ninclude_dir .\n"),
        ("pg-hba", "local all all trust\ninclude a.conf\n"),
        ("sshd", "PasswordAuthentication yes\nInclude a.conf\n"),
    ] {
        fs::write(&path, text).unwrap();
        let said = refused(&["--beside", &format!("{system}={}", path.display())], "a.conf");
        assert!(said.contains("FX-01") && said.contains("it includes itself"), "{system}: {said}");
    }
    fs::remove_file(path).unwrap();

    let dir = farm(folder.path());
    symlink("..", format!("{dir}/up")).unwrap();
    symlink(".", format!("{dir}/gateways/again")).unwrap();
    symlink("loop", format!("{dir}/loop")).unwrap();
    let said = refused(&["--dir", &dir], "AR-36");
    for link in ["/up", "/again", "/loop"] {
        assert!(said.contains(link), "{link} is passed over: {said}");
    }
    // One folder in another, deeper than anybody looks.
    fs::create_dir_all(format!("{dir}/{}", "d/".repeat(300))).unwrap();
    refused(&["--dir", &dir], "deeper, or has more files, than is looked at");
}

/// The rules that are broken, what the command ends with, and the report.
fn broken(arguments: &[&str]) -> (BTreeSet<String>, i32, Value) {
    let done = run(&[&["-o", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    let rules = report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap().to_owned());
    (rules.collect(), done.status.code().unwrap(), report)
}

#[test]
fn waivers_that_are_over_or_nobodys_waive_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = farm(folder.path());
    let (_, _, report) = broken(&["--dir", &dir]);
    let whole = |until: &str, owner: &str, reason: &str| -> String {
        let grave = report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] != "low");
        let one = |f: &Value| {
            format!(
                "[[waiver]]\nrule = {}\nsubject = {}\nfinding = {}\n{owner}\n{reason}\n{until}\n",
                f["rule"], f["subject"]["words"], f["finding"]
            )
        };
        grave.map(one).collect()
    };
    let file = folder.path().join("waivers.toml");
    let with = |text: String| {
        fs::write(&file, text).unwrap();
        broken(&["--dir", &dir, "--waivers", file.to_str().unwrap()])
    };
    let (until, owner, reason) = ("until = \"2999-12-31\"", "owner = \"Ann\"", "reason = \"a test\"");
    assert_eq!(with(whole(until, owner, reason)).1, 0, "as they are, they waive: what follows can fail");
    for (text, says) in [
        (whole("until = \"2020-01-01\"", owner, reason), "it ended with 2020-01-01"),
        (whole("until = \"for ever\"", owner, reason), "is no day"),
        (whole("", owner, reason), "no until"),
        (whole(until, "", reason), "no owner"),
        (whole(until, "owner = \" \"", reason), "no owner"),
        (whole(until, owner, ""), "no reason"),
        (whole(until, owner, reason).replace("AR-36", "AR-99"), "no rule `AR-99`"),
        (whole(until, owner, reason).replace("subject = \"", "subject = \"gateway gone, or "), "there is no"),
    ] {
        let (rules, code, report) = with(text);
        assert_eq!((code, report["waived"].as_array().unwrap().len()), (1, 0), "{says}");
        assert!(rules.contains("AR-36") && rules.contains("WAIVER"), "{says}: {rules:?}");
        assert!(report["findings"].to_string().contains(says), "{says}: {:#}", report["findings"]);
    }
}

/// What a gateway's own config can break, all at once.
const WORST: &str = r#"
[[link.danger_synced]]
did = "acde480000000001"
sid = "0a11"
key_index = 1
counter = 0
[metrics]
bind = "0.0.0.0:9464"
[insecure_http]
bind = "[::]:8080"
requests_a_minute = 1000000
[limits]
messages_a_minute = 65535
[lorawan]
kind = "chirpstack"
broker = "mqtt://broker.example:1883"
application = "a"
activation = "abp"
abp = ["0004a30b001c0530"]
insecure_mqtt = true
"#;

#[test]
fn a_deployment_with_every_fault_at_once_is_told_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let dir = farm(folder.path());
    fivefold(&["network", "add", "--dir", &dir, "--levels", "e1", "--danger-link-only", "a test bench", "bench"]);
    let config = format!("{dir}/gateways/north/gateway.toml");
    let text = fs::read_to_string(&config).unwrap();
    let worse = [
        ("[link]\n", "[link]\nminimum_level = 4\n"),
        ("\"store.db\"", "\"/dev/shm/store.db\""),
        ("https://", "http://"),
    ];
    let text = worse.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from}: {text}");
        text.replace(from, to)
    });
    fs::write(&config, text + WORST).unwrap();
    // Put together, for ./ci.sh places looks for such lines too.
    let key = ["-----BEGIN", "PRIVATE", "KEY-----\nAAAA\n-----END", "PRIVATE", "KEY-----\n"].join(" ");
    fs::write(format!("{dir}/old.key"), key).unwrap();
    fs::write(format!("{dir}/gateways/north/operator.toml"), "").unwrap();
    let (rules, code, report) = broken(&["--dir", &dir, "--profile", "e1+e2+e3+e4"]);
    assert_eq!((code, report["unreadable"].to_string().as_str()), (1, "[]"), "{:#}", report["unreadable"]);
    for rule in ["AR-01", "AR-03", "AR-05", "AR-06", "AR-21", "AR-30", "AR-31", "AR-32", "AR-36", "AR-37", "AR-39"] {
        assert!(rules.contains(rule), "{rule} is hidden by the others: {rules:?}");
    }
    assert_eq!(report["grade"], "F");
}
