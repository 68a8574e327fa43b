//! Every command and every route of the API, with every secret of the deployment looked for in what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bundles;
mod farm;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use farm::secrets::{self, Search, Secret};
use farm::token::{LABEL, MODULE, PIN, Token};
use farm::{Daemon, Farm, private};
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::log::{Entry, EntryKind, Log};
use fivefold_keep::registry::{Line, Registry};
use fivefold_keep::tls::{Anchor, Groups, client_config_api};
use fivefold_keep::vault::Vault;
use serde_json::Value;
use zeroize::Zeroizing;

/// Commands that are not run here, and why.
const NOT_HERE: [(&str, &str); 7] = [
    ("attack backhaul", "an attacker of the demo: what it steals is what it says"),
    ("attack listen", "the same"),
    ("attack run", "the same"),
    ("demo", "it runs the other commands for minutes; its words are tables"),
    ("range run", "it attacks for a minute, and says what the demo says; without a permit it is run below"),
    ("node relay", "it needs a module on a serial line; it says what a node does"),
    ("xbee-air", "the air of emulated modules: it has no secret"),
];

/// Commands that are deeds: all others of the program's own list leave the book as it is.
const CHANGE: [&str; 43] = [
    "network add",
    "network set",
    "network local",
    "gateway add",
    "gateway allow-late-renewal",
    "gateway invite",
    "gateway renew-certificate",
    "gateway revoke",
    "gateway sign",
    "device add",
    "device certify",
    "device enrol",
    "device enrol-again",
    "device harden",
    "device key-messages",
    "device rename",
    "device renew",
    "device revoke",
    "device set",
    "device set-keys",
    "import meshlium",
    "key pause",
    "key resume",
    "key retire",
    "key rollback",
    "key rotate",
    "key switch",
    "range permit",
    "reading release",
    "template add",
    "token add",
    "token revoke",
    "cloud backup",
    "cloud renew-certificate",
    "cloud renew-issuer",
    "cloud restored",
    "cloud replace-ca",
    "vault rekey",
    "vault rewrap passphrase-file",
    "vault rewrap systemd-credential",
    "vault rewrap pkcs11",
    "alarm add-secret",
    "outbox add-secret",
];

/// A dump of a Meshlium with a key and a login.
const MESHLIUM: &str = "CREATE TABLE encryptionData (id int, waspmote_id text, private_aes text, public_rsa text, modulus_rsa text);
INSERT INTO encryptionData VALUES (1, 'dam', 'wJ4h8Xq2Tn6Zr0Yb', NULL, NULL);
CREATE TABLE users (idusers int, user text, passwd text);
INSERT INTO users VALUES (1, 'root', '0c9a1ad5f2be4e0f8d6b7c3a2e1f0d4c');
CREATE TABLE sensorParser (id int, id_wasp text, id_secret text, frame_type int, frame_number int, sensor text, value text,
 timestamp text);
INSERT INTO sensorParser VALUES (1, 'dam', '8A7384477876150C', 134, 1, 'TCA', '21.5', '2026-10-01 12:00:00'),
 (2, 'dam', '8A7384477876150C', 134, 2, 'TCA', '21.6', '2026-10-01 12:01:00');
-- Dump completed
";

/// A deployment, and all that was said about it.
struct Heard {
    farm: Farm,
    /// Commands of the farm that left a line in the operator's log.
    deeds: BTreeSet<String>,
    /// Daemons that run.
    running: usize,
    form: &'static str,
    token: Token,
    commands: BTreeSet<String>,
    said: Vec<(String, Vec<u8>)>,
    secrets: Vec<Secret>,
}

impl Heard {
    fn command(&self, words: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
        command.args(["-o", self.form]).args(words.split(' ')).args(more);
        command.env("SOFTHSM2_CONF", &self.token.conf).env("CREDENTIALS_DIRECTORY", self.farm.folder.path());
        // As much as can be said.
        command.env("RUST_LOG", "trace").env("FIVEFOLD_DIR", self.farm.path(""));
        command
    }

    /// The operator's log, and all else that is in the book.
    fn book(&self) -> (Vec<Line>, Vec<String>) {
        let path = self.farm.path("registry.db");
        let (lines, wrong) = Registry::open_read_only(Path::new(&path)).unwrap().check_deeds().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let db = rusqlite::Connection::open(path).unwrap();
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'deeds' ORDER BY name";
        let names: Vec<String> =
            db.prepare(names).unwrap().query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        let rows = names.iter().flat_map(|name| {
            let mut query = db.prepare(&format!("SELECT * FROM {name}")).unwrap();
            let columns = query.column_count();
            let row = |r: &rusqlite::Row<'_>| {
                let values = (0..columns).map(|i| r.get::<_, rusqlite::types::Value>(i).unwrap());
                Ok(format!("{name}: {:?}", values.collect::<Vec<_>>()))
            };
            query.query_map([], row).unwrap().map(Result::unwrap).collect::<Vec<_>>()
        });
        (lines, rows.collect())
    }

    /// Whoever changes the book leaves one deed, and nobody leaves two.
    fn account(&mut self, words: &str, before: &(Vec<Line>, Vec<String>)) {
        let after = self.book();
        let fresh = &after.0[before.0.len()..];
        let own: BTreeSet<u64> = fresh.iter().filter(|l| l.command == words).map(|l| l.deed).collect();
        assert!(own.len() <= 1, "`{words}` left {} deeds", own.len());
        if self.running == 0 {
            assert!(after.1 == before.1 || own.len() == 1, "`{words}` changed the book and left no deed");
            assert!(fresh.iter().all(|l| l.command == words), "`{words}` left lines of another command");
        }
        if !own.is_empty() {
            self.deeds.insert(words.to_owned());
        }
    }

    /// Runs a command to its end.
    fn run(&mut self, words: &str, more: &[&str]) -> String {
        let before = self.book();
        let done = self.command(words, more).output().unwrap();
        let said = [done.stdout.as_slice(), &done.stderr].concat();
        assert_eq!(done.status.code(), Some(0), "{words} {more:?}: {}", String::from_utf8_lossy(&said));
        self.account(words, &before);
        self.commands.insert(words.to_owned());
        self.said.push((format!("{words} {more:?}"), said));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Runs one whose exit code says whether it found something.
    fn look(&mut self, words: &str, more: &[&str]) {
        let done = self.command(words, more).output().unwrap();
        assert!(matches!(done.status.code(), Some(0 | 1)), "{words} {more:?}");
        self.commands.insert(words.to_owned());
        self.said.push((format!("{words} {more:?}"), [done.stdout, done.stderr].concat()));
    }

    /// Runs a command that is to fail.
    fn fail(&mut self, words: &str, more: &[&str]) {
        let done = self.command(words, more).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{words} {more:?}");
        self.said.push((format!("{words} {more:?}"), [done.stdout, done.stderr].concat()));
    }

    /// Starts one that does not end by itself; what it says goes into a file.
    fn start(&mut self, words: &str, more: &[&str]) -> (Daemon, PathBuf) {
        let log = self.farm.folder.path().join(format!("{}.log", words.replace(' ', "-")));
        let mut command = self.command(words, more);
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null()).spawn().unwrap();
        self.commands.insert(words.to_owned());
        self.running += 1;
        (Daemon(child), log)
    }

    fn stop(&mut self, (daemon, log): (Daemon, PathBuf)) {
        daemon.stop();
        self.running -= 1;
        let said = fs::read(&log).unwrap();
        assert!(!said.is_empty(), "{} said nothing", log.display());
        self.said.push((log.display().to_string(), said));
    }

    /// Takes the secrets of this moment along.
    fn remember(&mut self) {
        self.secrets.extend(secrets::of(&self.farm));
        self.secrets.sort();
        self.secrets.dedup();
    }
}

fn the_day_after_tomorrow() -> String {
    let now = fivefold::clock::now().unwrap();
    fivefold::clock::text(now + 2 * 86_400)[..10].to_owned()
}

fn scenario(form: &'static str) -> Heard {
    let farm = Farm::with_levels("e1+e2+e3+e4");
    let token = Token::new(farm.folder.path());
    private(&farm.folder.path().join("credential"), "a credential that nobody prints 161803");
    let secret = |name: &str, bytes: &str| Secret { name: name.into(), bytes: bytes.as_bytes().to_vec() };
    let mut secrets = vec![
        secret("the PIN", PIN),
        secret("the credential", "a credential that nobody prints 161803"),
        secret("the farm's token", &fs::read_to_string(&farm.token).unwrap()),
    ];
    let (frame, keys, key) = a_frame(farm.folder.path());
    secrets.push(Secret { name: "key of a vector's frame".into(), bytes: key });
    let (deeds, said) = (BTreeSet::new(), Vec::new());
    let mut heard = Heard { farm, deeds, running: 0, form, token, commands: BTreeSet::new(), said, secrets };
    let at = |heard: &Heard, part: &str| heard.farm.folder.path().join(part).display().to_string();

    // Making things.
    let dir = at(&heard, "another");
    heard.run("init", &[&dir]);
    heard.run("network add", &["three"]);
    heard.run("range list", &[]);
    heard.run("range permit", &["--until", &the_day_after_tomorrow()]);
    heard.fail("range run", &["--token-file", &heard.farm.token.display().to_string()]);
    let (radio, node) = (heard.farm.radio.to_string(), heard.farm.node.to_string());
    heard.run("gateway add", &["--net", "three", "west", "--radio", &radio, "--air", &node]);
    let sensor = at(&heard, "sensor-context");
    heard.run("device add", &["--net", "three", "--alg", "10", "--did", "acde480000000001", "--aiocoap", &sensor]);
    let told = heard.run("token add", &["me"]);
    let words = told.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let new = words.into_iter().find(|w| w.starts_with("ff_") && w.len() == 67).unwrap().to_owned();
    heard.secrets.push(secret("the new token", &new));
    heard.said.retain(|(what, _)| !what.starts_with("token add"));

    // What a Meshlium knew: keys of nodes, and hashes of logins.
    heard.run("network set", &["three", "--classic", "yes"]);
    let dump = at(&heard, "DUMP.sql");
    private(Path::new(&dump), MESHLIUM);
    heard.secrets.push(secret("a key of a Meshlium", "wJ4h8Xq2Tn6Zr0Yb"));
    heard.secrets.push(secret("a hash of a Meshlium", "0c9a1ad5f2be4e0f8d6b7c3a2e1f0d4c"));
    heard.run("import meshlium", &["--net", "three", &dump]);
    heard.run("compare meshlium", &["--until", "2000-01-01T00:00:00Z", &dump]);

    // Classic devices, their keys, and the tokens of those that post.
    let [classic, bearer] = ["classic.key", "bearer"].map(|p| at(&heard, p));
    private(Path::new(&classic), "Qp7Lm3Vx9Ks2Dt5W");
    private(Path::new(&bearer), "bearer-of-a-phone-4471-5580-9327");
    heard.secrets.push(secret("key of a classic device", "Qp7Lm3Vx9Ks2Dt5W"));
    heard.secrets.push(secret("token of a phone", "bearer-of-a-phone-4471-5580-9327"));
    heard.run("device rename", &["8a7384477876150c", "dam_2"]);
    let key = ["--gateway-key-file", &classic, "--gateway-key-bits", "128"];
    heard.run("device set-keys", &[&["8a7384477876150c"][..], &key].concat());
    let north = heard.farm.path("gateways/north");
    heard.run("gateway token add", &["--dir", &north, "phone", "--known", &bearer]);
    heard.run("gateway token list", &["--dir", &north]);
    heard.run("gateway token revoke", &["--dir", &north, "phone"]);
    let host = answers_once();
    let seal = ["--seal", "gateway", "--key-file", &classic, "--key-bits", "128", "--count", "1"];
    heard.run("node waspmote", &[&["--serial", "8a7384477876150c", "--http", &host][..], &seal].concat());
    let header = at(&heard, "hardened.h");
    heard.run("device harden", &["8a7384477876150c", "--out", &header]);
    let header = fs::read_to_string(header).unwrap();
    let digits: String = header.split("0x").skip(1).filter_map(|byte| byte.get(..2)).collect();
    heard.secrets.push(Secret { name: "key of the hardened profile".into(), bytes: hex::decode(digits).unwrap() });
    let header = at(&heard, "key-messages.h");
    heard.run("device key-messages", &["8a7384477876150c", "--out", &header]);
    let header = fs::read_to_string(header).unwrap();
    let key = header.lines().find(|line| line.contains("enrolment_key")).unwrap();
    let digits: String = key.split("0x").skip(1).filter_map(|byte| byte.get(..2)).collect();
    heard.secrets.push(Secret { name: "enrolment key of a classic node".into(), bytes: hex::decode(digits).unwrap() });
    heard.look("audit", &[]);
    heard.look("audit rules", &[]);
    heard.run("audit explain", &["AR-04"]);

    // Words that are the same for everybody.
    let pages = at(&heard, "man1");
    heard.run("man", &[&pages]);
    for (words, of) in [("completion", "bash"), ("config", "cloud")] {
        heard.run(words, &[of]);
    }

    // Who is told of alarms: nobody is there.
    let (settings, key) = (at(&heard, "farm/cloud/cloud.toml"), at(&heard, "webhook.key"));
    let sink = "\n[[alarm.sink]]\nname = \"duty\"\nwebhook = \"http://127.0.0.1:1/\"\n";
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + sink).unwrap();
    private(Path::new(&key), "a webhook's key 577215664901");
    heard.secrets.push(secret("key of a webhook", "a webhook's key 577215664901"));
    heard.run("alarm add-secret", &["duty", "--file", &key]);
    heard.look("alarm test", &[]);

    // Where readings go: nobody is there either.
    let sink = "\n[[outbox]]\nname = \"plant\"\nwebhook = \"http://127.0.0.1:1/\"\n";
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + sink).unwrap();
    let key = at(&heard, "outbox.key");
    private(Path::new(&key), "an outbox's key 662607015");
    heard.secrets.push(secret("key of an outbox", "an outbox's key 662607015"));
    heard.run("outbox add-secret", &["plant", "--file", &key]);

    // What the columns of rows mean.
    let templates = at(&heard, "templates.toml");
    private(Path::new(&templates), "[[template]]\nid = 3\ncolumns = [{ name = \"level\", unit = \"m\" }]\n");
    heard.run("template add", &["--net", "one", &templates]);
    heard.run("template list", &[]);

    // A device that makes its own key.
    let [own, asks, told] = ["farm/nodes/own", "own.request", "own.answer"].map(|p| at(&heard, p));
    heard.run("node join", &["--dir", &own, "--sign", "--request-file", &asks, "--request-qr"]);
    heard.run("device enrol", &["--net", "three", &asks, "--answer-file", &told, "--qr"]);
    heard.run("node join", &["--dir", &own, "--answer-file", &told, "--bind", &node, "--air", &radio]);

    // And one that is in the book, and begins to sign.
    let [did, signs] = [heard.farm.did.clone(), at(&heard, "signs.request")];
    let node_dir = at(&heard, &format!("farm/nodes/{did}"));
    heard.run("node signing-request", &["--dir", &node_dir, "--request-file", &signs, "--request-qr"]);
    heard.run("device certify", &[&did, "--request", &signs]);
    heard.run("device set", &[&did, "--sign", "none"]);

    // Running them.
    let (cloud, gateway) = (at(&heard, "farm/cloud"), at(&heard, "farm/gateways/north"));
    let did = heard.farm.did.clone();
    let share = at(&heard, &format!("farm/nodes/{did}"));
    for (words, dir) in [("cloud run", &cloud), ("gateway run", &gateway), ("node run", &share)] {
        heard.run(words, &["--dir", dir, "--check"]);
    }
    heard.remember();
    let running = heard.start("cloud run", &["--dir", &cloud]);
    heard.run("cloud limits", &["--dir", &cloud]);
    let capture = at(&heard, "capture.pcap");
    let gate = heard.start("gateway run", &["--dir", &gateway, "--pcap", &capture]);
    let send = ["--dir", &share, "--every", "0.1", "--count", "3", "--wait", "60", "--retry", "2"];
    heard.run("node run", &send);
    let token = heard.farm.token.display().to_string();
    copies(&mut heard);
    heard.run("reading list", &["--token-file", &token]);
    heard.run("reading list", &["--token-file", &token, "--imported"]);
    heard.run("reading quarantine", &["--token-file", &token]);
    heard.run("reading unknown", &["--token-file", &token]);
    heard.look("alarm list", &["--token-file", &token]);
    heard.look("outbox list", &["--token-file", &token]);
    for verb in ["show", "dead"] {
        heard.look(&format!("outbox {verb}"), &["plant", "--token-file", &token]);
    }
    for verb in ["pause", "resume"] {
        heard.run(&format!("outbox {verb}"), &["plant", "--token-file", &token]);
    }
    heard.run("outbox resend", &["plant", "--all", "--token-file", &token]);
    heard.look("why", &["--token-file", &token]);
    heard.look("why", &["--dir", &gateway]);
    let follow = heard.start("reading follow", &["--token-file", &token]);
    ask_everything(&mut heard, &did);
    let evidence = at(&heard, "reading.evb");
    let always = ["--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--out", &evidence];
    heard.look("evidence export", &[&["--token-file", &token, "--device", &did][..], &always].concat());
    for _ in 0..20 {
        heard.run("node run", &send);
        if fs::metadata(&follow.1).unwrap().len() > 0 {
            break;
        }
    }
    heard.run("device renew", &[&did]);
    heard.run("key rotate", &["--network", "one"]);
    for step in ["pause", "resume", "show", "rollback"] {
        heard.run(&format!("key {step}"), &["--network", "one"]);
    }
    heard.run("key rotate", &["--network", "two"]);
    heard.run("key switch", &["--network", "two"]);
    heard.run("key retire", &["--network", "two", "--now"]);
    heard.remember();
    heard.run("gateway renew-certificate", &["north"]);
    heard.run("device enrol-again", &["acde480000000001"]);
    heard.remember();
    for running in [follow, gate, running] {
        heard.stop(running);
    }

    without_a_cloud(&mut heard);

    // A gateway that makes its own keys, and new keys for the cloud.
    let [east, invitation, csr, grant] = ["farm/gateways/east", "invitation", "csr", "grant"].map(|p| at(&heard, p));
    let told = heard.run("gateway invite", &["--net", "three", "east", "--secondary", "--token-file", &invitation]);
    heard.secrets.push(secret("the invitation", fs::read_to_string(&invitation).unwrap().trim()));
    let is_of_name = |c: char| c.is_ascii_hexdigit() || "urn:gw".contains(c);
    let urn = told.split(|c| !is_of_name(c)).find(|w| w.starts_with("urn:gw:") && w.len() == 24).unwrap().to_owned();
    heard.run("gateway join", &["--dir", &east, "--csr-file", &csr, "--name", &urn]);
    heard.run("gateway sign", &[&csr, "--grant-file", &grant]);
    let (url, ca) = (format!("https://localhost:{}", heard.farm.ingest.port()), heard.farm.path("ca.pem"));
    heard.run("gateway join", &["--dir", &east, "--cloud", &url, "--ca-file", &ca, "--grant-file", &grant]);
    heard.run("gateway allow-late-renewal", &["east"]);
    heard.remember();
    for words in ["cloud renew-certificate", "cloud renew-issuer", "cloud certificates"] {
        heard.run(words, &[]);
    }
    heard.remember();

    // Looking at them.
    for words in ["network list", "gateway list", "device list", "token list", "budget"] {
        heard.run(words, &[]);
    }
    let witness = a_log(&mut heard);
    evidence_of_others(&mut heard, &witness);
    heard.run("gateway show", &["north"]);
    heard.run("device show", &[&did]);
    heard.run("frame decode", &["--kind", "e1", "--keys", &keys, &frame]);

    // Who did all that.
    heard.run("operator log", &["--check"]);

    // Other wraps and other keys.
    let farm = heard.farm.path("");
    heard.run("vault rekey", &["--dir", &farm]);
    heard.run("vault rekey", &["--dir", &gateway]);
    let passphrase = at(&heard, "another passphrase");
    heard.run("vault rewrap passphrase-file", &["--dir", &farm, &passphrase]);
    heard.remember();
    heard.run("vault show", &["--dir", &farm]);
    heard
}

/// A site of its own, where a gateway agrees keys alone.
fn without_a_cloud(heard: &mut Heard) {
    let (radio, node) = (heard.farm.radio.to_string(), heard.farm.node.to_string());
    heard.run("network add", &["--levels", "e1+e2+e4", "shed"]);
    heard.run("gateway add", &["--net", "shed", "barn", "--radio", &radio, "--air", &node]);
    let barn = heard.farm.path("gateways/barn");
    let told = heard.run("gateway local", &["--dir", &barn]);
    let is_key = |w: &&str| w.len() == 64 && w.bytes().all(|c| c.is_ascii_hexdigit());
    let key = told.split(|c: char| !c.is_ascii_alphanumeric()).find(is_key).unwrap().to_owned();
    heard.run("network local", &["shed", "--gateway", "barn", "--key", &key]);
    let did = "acde480000000077";
    heard.run("device add", &["--net", "shed", "--did", did, "--bind", &node, "--air", &radio]);
    heard.run("gateway state", &["barn"]);
    heard.remember();
    let gate = heard.start("gateway run", &["--dir", &barn]);
    let share = heard.farm.path(&format!("nodes/{did}"));
    let send =
        ["--dir", &share, "--every", "0.1", "--count", "2", "--wait", "60", "--retry", "2", "--renew-pause", "1"];
    heard.run("node run", &send);
    heard.run("reading list", &["--dir", &barn]);
    heard.remember();
    heard.stop(gate);
    heard.run("reading forget", &["--dir", &barn, "--upto", "1"]);
}

/// Copies of what runs, and folders that are made of them.
fn copies(heard: &mut Heard) {
    let [set, back, recovery, theirs, north] = ["set", "back", "recovery", "set of north", "north again"]
        .map(|p| heard.farm.folder.path().join(p).display().to_string());
    heard.run("cloud backup", &["--to", &set, "--recovery-file", &recovery]);
    let drawn = fs::read_to_string(&recovery).unwrap().trim().to_owned();
    heard.secrets.push(Secret { name: "a recovery passphrase".into(), bytes: drawn.into_bytes() });
    for look in ["--list", "--verify"] {
        heard.run("cloud backup", &["--to", &set, look]);
    }
    heard.run("cloud restore", &["--dir", &back, "--from", &set, "--recovery-file", &recovery]);
    let gateway = heard.farm.path("gateways/north");
    let passphrase = heard.farm.path("gateways/north/passphrase");
    heard.run("gateway backup", &["--dir", &gateway, "--to", &theirs]);
    heard.run("gateway restore", &["--dir", &north, "--from", &theirs, "--passphrase-file", &passphrase]);
    // A set is no secret to whoever finds it.
    for (name, set) in [("the cloud's set", set), ("a gateway's set", theirs)] {
        heard.said.push((name.into(), fs::read(Path::new(&set).join("0000.ffb")).unwrap()));
    }
}

/// A witness with its keys, of which one that is public is returned, and a log with heads.
fn a_log(heard: &mut Heard) -> String {
    let [witness, log, memory] = ["w", "a log", "memory.toml"].map(|p| heard.farm.folder.path().join(p));
    let [w, l, m] = [&witness, &log, &memory].map(|path| path.display().to_string());
    let told = heard.run("log witness", &["--dir", &w, "--name", "w.example/1"]);
    let mut words = told.split(|c: char| c.is_whitespace() || c == '"');
    let public = words.find(|word| word.starts_with("w.example/1+")).unwrap().to_owned();
    let vault = Vault::open_folder(&witness).unwrap();
    for file in ["ed25519-seed.sealed", "ml-dsa-44-seed.sealed"] {
        let bytes = vault.open_file(&witness.join(file)).unwrap().to_vec();
        heard.secrets.push(Secret { name: format!("{file} of a witness"), bytes });
    }
    let seed = Zeroizing::new(std::array::from_fn(|i| 0x3B ^ (i as u8).wrapping_mul(29)));
    heard.secrets.push(Secret { name: "seed of another log's key".into(), bytes: seed.to_vec() });
    let written = Log::open(&log, LogKey::from_seed("log.example/a", &seed).unwrap()).unwrap();
    written.append(&[Entry::of(EntryKind::Batch, b"a record")]).unwrap();
    written.publish().unwrap();
    let vkey = written.vkey().to_string();
    heard.run("log show", &[]);
    heard.run("log check", &[&l, "--log", &vkey]);
    heard.run("log monitor", &[&l, "--log", &vkey, "--memory", &m]);
    public
}

/// A bundle, which is no secret, and what is believed of this deployment.
fn evidence_of_others(heard: &mut Heard, witness: &str) {
    let [bundle, trust] = bundles::put(heard.farm.folder.path(), "plain");
    let [question, own] =
        ["question.tsq", "own-trust.toml"].map(|p| heard.farm.folder.path().join(p).display().to_string());
    heard.run("evidence show", &[&bundle]);
    heard.run("evidence verify", &[&bundle, "--trust", &trust]);
    heard.run("evidence timestamp", &[&bundle, "--request", &question]);
    heard.run("evidence trust", &["--witness", witness, "--out", &own]);
}

/// Where one request by HTTP is answered.
fn answers_once() -> String {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    host
}

/// A frame of the vectors, a file with its key, and the key.
fn a_frame(folder: &Path) -> (String, String, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/standards/ieee802154-ccm.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let frames = vectors["frames"].as_array().unwrap();
    let frame = frames.iter().find(|f| f["in_profile_4_1"] == true && f["source_short"].is_string()).unwrap();
    let keys = serde_json::json!({
        "e1": [{ "index": frame["key_index"], "key": frame["key"] }],
        "neighbours": [{ "short": frame["source_short"], "eui64": frame["source_eui64"] }],
    });
    let file = folder.join("keys.json");
    private(&file, &keys.to_string());
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    (text(&frame["frame"]), file.display().to_string(), hex::decode(text(&frame["key"])).unwrap())
}

/// Every route of the API that the cloud describes, and some that it does not.
fn ask_everything(heard: &mut Heard, did: &str) {
    let anchor = Anchor::from_pem(&fs::read(heard.farm.path("ca.pem")).unwrap()).unwrap();
    let tls = client_config_api(&anchor, Groups::HybridOnly).unwrap();
    let token = fs::read_to_string(&heard.farm.token).unwrap();
    let url = format!("https://localhost:{}", heard.farm.api.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(async {
        let client = reqwest::Client::builder().use_preconfigured_tls(tls).build().unwrap();
        let document = client.get(format!("{url}/openapi.json")).send().await.unwrap().bytes().await.unwrap();
        let described: Value = serde_json::from_slice(&document).unwrap();
        let mut said = vec![("/openapi.json".to_owned(), document.to_vec())];
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys().filter(|m| *m != "parameters") {
                for query in ["", "?since=0", "?limit=0", "?cursor=0"] {
                    let to = format!("{url}{}{query}", path.replace("{did}", did));
                    let method: reqwest::Method = method.to_uppercase().parse().unwrap();
                    let mut request = client.request(method.clone(), &to).bearer_auth(&token);
                    if method == reqwest::Method::POST {
                        request = request.header("content-type", "application/json").body("{\"op\": 7, \"args\": [1]}");
                    }
                    let mut answer = request.send().await.unwrap();
                    let mut body = format!("{:?}", answer.headers()).into_bytes();
                    // A stream of events does not end.
                    let wait = Duration::from_millis(500);
                    while let Ok(Ok(Some(part))) = tokio::time::timeout(wait, answer.chunk()).await {
                        body.extend_from_slice(&part);
                    }
                    said.push((format!("{method} {path}{query}"), body));
                }
            }
        }
        for path in ["/", "/v1", "/v1/registry", "/registry.db", "/passphrase", "/../passphrase", "/v1/devices/../keys"]
        {
            let answer = client.get(format!("{url}{path}")).bearer_auth(&token).send().await.unwrap();
            said.push((path.to_owned(), answer.bytes().await.unwrap().to_vec()));
        }
        said
    });
    let routes: BTreeSet<&str> = said.iter().map(|(what, _)| what.split('?').next().unwrap()).collect();
    assert!(routes.len() >= 9, "{routes:?}");
    assert!(
        said.iter().any(|(what, body)| what.contains("stream?since") && body.len() > 1000),
        "the stream said nothing"
    );
    heard.said.extend(said);
}

/// Bytes that are written as numbers in JSON.
fn numbers(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::Array(items) => {
            let bytes: Vec<u8> = items.iter().filter_map(|i| u8::try_from(i.as_u64()?).ok()).collect();
            if !bytes.is_empty() && bytes.len() == items.len() {
                found.push(bytes);
            }
            items.iter().for_each(|i| numbers(i, found));
        }
        Value::Object(fields) => fields.values().for_each(|v| numbers(v, found)),
        _ => {}
    }
}

fn search(mut heard: Heard) {
    // The last steps: by then nothing of it opens by a passphrase any more.
    let farm = heard.farm.path("");
    let pin = heard.token.pin.display().to_string();
    heard.run("vault rewrap systemd-credential", &["--dir", &farm, "credential"]);
    let key = ["--module", MODULE, "--token", LABEL, "--key", "farm", "--pin-file", &pin, "--generate-key"];
    let dir = ["--dir", &farm];
    heard.run("vault rewrap pkcs11", &[&dir[..], &key].concat());
    heard.run("cloud restored", &dir);
    heard.run("reading held", &dir);
    heard.run("reading release", &[&dir[..], &["--gateway", "north"]].concat());
    heard.run("cloud replace-ca", &dir);
    private(Path::new(&pin), "a wrong pin 57721");
    heard.secrets.push(Secret { name: "a wrong PIN".into(), bytes: b"a wrong pin 57721".to_vec() });
    heard.fail("network add", &["four"]);
    heard.fail("vault rekey", &dir);
    private(Path::new(&pin), PIN);
    heard.run("vault show", &dir);
    heard.run("device revoke", &["acde480000000001"]);
    heard.run("gateway revoke", &["west"]);
    heard.run("token revoke", &["me"]);

    let mut commands: BTreeSet<String> = fivefold::commands().into_iter().collect();
    for (words, _) in NOT_HERE {
        assert!(commands.remove(words), "`{words}` is no command");
    }
    let missing: Vec<_> = commands.difference(&heard.commands).collect();
    assert!(missing.is_empty(), "run these here too: {missing:?}");

    // What the operator's log says of all of them.
    let lines = heard.book().0;
    heard.said.push(("the operator's log".into(), format!("{lines:#?}").into_bytes()));
    let known: BTreeSet<String> = fivefold::commands().into_iter().collect();
    let unknown: Vec<_> = lines.iter().filter(|l| !known.contains(&l.command)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for words in CHANGE {
        assert!(heard.deeds.remove(words), "`{words}` left no deed");
    }
    assert!(heard.deeds.is_empty(), "these change the book as well: {:?}", heard.deeds);

    let search = Search::new(&heard.secrets);
    let total: usize = heard.said.iter().map(|(_, said)| said.len()).sum();
    assert!(heard.secrets.len() > 50 && total > 20_000, "{} secrets, {total} bytes", heard.secrets.len());
    for (what, said) in &heard.said {
        assert_eq!(search.found(said), Vec::<&str>::new(), "{what}");
        for line in String::from_utf8_lossy(said).lines().chain([&*String::from_utf8_lossy(said)]) {
            let mut bytes = Vec::new();
            if let Ok(value) = serde_json::from_str(line) {
                numbers(&value, &mut bytes);
            }
            for bytes in bytes {
                assert_eq!(search.found(&bytes), Vec::<&str>::new(), "{what}, as numbers");
            }
        }
    }
    // It does find what is there: the file that holds them in the clear.
    let context = heard.farm.folder.path().join("sensor-context");
    let files = fs::read_dir(&context).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
    assert!(files.flat_map(|f| search.found(&f).len().checked_sub(1)).next().is_some(), "the search finds nothing");
}

#[test]
fn no_command_and_no_route_says_a_secret_in_json() {
    search(scenario("json"));
}

#[test]
fn no_command_and_no_route_says_a_secret_to_a_person() {
    search(scenario("human"));
}
