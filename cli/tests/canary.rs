//! The stolen gateway, as the process that it is: a reading that it carried is looked for in its memory, in a core dump of it,
//! in its swap, on its disk and in what it said. docs/threats.md says where it is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use farm::{Daemon, Farm, fivefold};
use fivefold::attack::database::forms;
use fivefold::attack::memory;
use fivefold_core::suite::sha256;
use memchr::memmem::Finder;

/// How often it is sent.
const TIMES: usize = 200;
/// How much of a text is looked for at once. Of memory that was given back the first bytes are overwritten soon, so a text is
/// looked for by its parts.
const PART: usize = 16;

/// A value that is nowhere else: a text, and a number.
struct Canary {
    text: String,
    number: f64,
    needles: Vec<(String, Finder<'static>)>,
    longest: usize,
}

impl Canary {
    fn new() -> Self {
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let text: String =
            hex::encode(random).chars().map(|c| char::from(b'A' + c.to_digit(16).unwrap() as u8)).collect();
        // Fifteen digits: every reader of JSON takes it for the same number, and no shorter form of CBOR holds it.
        let digest = u64::from_be_bytes(sha256(&[&random])[..8].try_into().unwrap());
        let decimal = format!("{}.{:09}", 100_000 + digest % 900_000, 1 + 2 * ((digest >> 32) % 499_999_999));
        let number: f64 = decimal.parse().unwrap();
        let mut needles = Vec::new();
        let mut add = |what: &str, bytes: &[u8]| needles.push((what.to_owned(), bytes.to_vec()));
        for part in text.as_bytes()[..48].chunks(PART) {
            forms(part).iter().for_each(|form| add("the text", form));
        }
        // As CBOR has it, as a processor has it, and as people do.
        forms(&number.to_be_bytes()).iter().for_each(|form| add("the number", form));
        add("the number in a register", &number.to_le_bytes());
        add("the number in words", decimal.as_bytes());
        let longest = needles.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
        let needles = needles.iter().map(|(what, bytes)| (what.clone(), Finder::new(bytes).into_owned())).collect();
        Self { text: text[..48].to_owned(), number, needles, longest }
    }

    /// What a node is told to send: the one in one message, the other in the next.
    fn lines(&self) -> String {
        let (text, number) = (&self.text, self.number);
        format!("{{\"n\":\"c\",\"vs\":\"{text}\"}}\n{{\"n\":\"d\",\"v\":{number}}}\n").repeat(TIMES / 2)
    }

    fn look(&self, bytes: &[u8], found: &mut BTreeSet<String>) {
        found.extend(self.needles.iter().filter(|(_, f)| f.find(bytes).is_some()).map(|(what, _)| what.clone()));
    }

    /// What of it stands in a file, however long that is.
    fn in_file(&self, mut file: File, found: &mut BTreeSet<String>) -> u64 {
        let mut piece = Vec::new();
        let mut all = 0;
        loop {
            piece.drain(..piece.len().saturating_sub(self.longest));
            let came = (&mut file).take(4 << 20).read_to_end(&mut piece).unwrap() as u64;
            if came == 0 {
                return all;
            }
            all += came;
            self.look(&piece, found);
        }
    }

    /// What of it stands in a file, or in any of a folder.
    fn on_disk(&self, path: &Path) -> BTreeSet<String> {
        let (mut found, mut bytes) = (BTreeSet::new(), 0);
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else {
                bytes += self.in_file(File::open(&path).unwrap(), &mut found);
            }
        }
        assert!(bytes > 0, "nothing was searched in {}", path.display());
        found
    }

    /// What of it a process has: in memory and in swap, in files that it holds open and nobody else sees any more, and in what it
    /// was started with. It stands still meanwhile.
    fn in_process(&self, pid: u32) -> BTreeSet<String> {
        signal("STOP", pid);
        let mut found = BTreeSet::new();
        let image = memory::read(pid, self.longest, |piece| self.look(piece, &mut found)).unwrap();
        for open in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let path = open.unwrap().path();
            if fs::metadata(&path).is_ok_and(|m| m.is_file()) {
                self.in_file(File::open(path).unwrap(), &mut found);
            }
        }
        for what in ["cmdline", "environ"] {
            self.look(&fs::read(format!("/proc/{pid}/{what}")).unwrap(), &mut found);
        }
        signal("CONT", pid);
        println!("process {pid}: {image:?}: {found:?}");
        assert!(image.bytes > 4 << 20 && image.unread == 0, "{image:?}");
        found
    }

    /// What of it stands in a core dump, with all that a process has mapped.
    fn in_core(&self, pid: u32, folder: &Path) -> BTreeSet<String> {
        let core = folder.join("core");
        let pid = pid.to_string();
        let done = Command::new("gcore").arg("-a").arg("-o").arg(&core).arg(&pid).stdin(Stdio::null()).output();
        let done = done.expect("there is no gcore; type: apt-get install gdb");
        let said = [done.stdout, done.stderr].concat();
        let core = folder.join(format!("core.{pid}"));
        assert!(done.status.success() && core.exists(), "no core dump: {}", String::from_utf8_lossy(&said));
        assert!(fs::metadata(&core).unwrap().len() > 4 << 20);
        let found = self.on_disk(&core);
        fs::remove_file(core).unwrap();
        found
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// A gateway that carries a canary, or will, and the node that sends it.
struct Carried {
    farm: Farm,
    canary: Canary,
    gateway: Option<Daemon>,
    node: Node,
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Carried {
    /// Starts both, and waits until so many messages are in the gateway's store. The cloud is away: it was there once, and told
    /// the gateway of the node.
    fn new(levels: &str, messages: i64) -> Self {
        let farm = Farm::with_levels(levels);
        let folder = farm.folder.path().to_owned();
        let config = farm.path("gateways/north/gateway.toml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(!text.contains("[limits]"));
        fs::write(&config, text + "[limits]\nmessages_a_minute = 6000\n").unwrap();
        // It says as much as it can, and writes what it hears.
        let log = File::create(folder.join("gateway.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
        command.args(farm.gateway()).arg("--pcap").arg(folder.join("heard.pcapng")).env("RUST_LOG", "trace");
        let gateway = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let gateway = Some(Daemon(gateway));
        let words = farm.node();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let node = |more: &[&str]| fivefold(&[words.as_slice(), &["--wait", "60", "--retry", "1"], more].concat());
        let cloud = Daemon::start(&farm.cloud(), 0);
        assert!(node(&["--count", "1"]).output().unwrap().status.success());
        cloud.stop();
        let canary = Canary::new();
        let mut command = node(&["--stdin"]);
        let mut node = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = node.stdin.take().unwrap();
        let lines = canary.lines();
        std::thread::spawn(move || input.write_all(lines.as_bytes()));
        let carried = Self { farm, canary, gateway, node: Node(node) };
        carried.wait_for(messages);
        carried
    }

    fn wait_for(&self, messages: i64) {
        let store = self.store().join("store.db");
        for _ in 0..400 {
            std::thread::sleep(Duration::from_millis(50));
            let count = rusqlite::Connection::open(&store)
                .and_then(|db| db.query_row("SELECT COUNT(*) FROM spool", [], |row| row.get::<_, i64>(0)));
            if count.is_ok_and(|count| count >= messages) {
                return;
            }
        }
        panic!("the node's messages do not come to the gateway");
    }

    fn store(&self) -> PathBuf {
        self.farm.path("gateways/north").into()
    }

    fn pid(&self) -> u32 {
        self.gateway.as_ref().unwrap().0.id()
    }

    /// What of it is anywhere on the gateway's disk: its folder, its log, its capture.
    fn on_its_disk(&self) -> BTreeSet<String> {
        let folder = self.farm.folder.path();
        let places = [self.store(), folder.join("gateway.log"), folder.join("heard.pcapng")];
        places.iter().flat_map(|place| self.canary.on_disk(place)).collect()
    }
}

const NOWHERE: BTreeSet<String> = BTreeSet::new();

#[test]
fn under_e3_a_reading_is_nowhere_in_the_gateway_that_carried_it() {
    let mut carried = Carried::new("e1+e3+e4", 2);
    let (canary, pid) = (&carried.canary, carried.pid());
    // While it waits for a cloud.
    assert_eq!(canary.in_process(pid), NOWHERE);
    assert_eq!(carried.on_its_disk(), NOWHERE);
    let node = canary.in_process(carried.node.0.id());
    assert!(node.contains("the text") && node.contains("the number"), "the search finds nothing in the node: {node:?}");

    // When all of it was passed on and confirmed.
    let cloud = Daemon::start(&carried.farm.cloud(), 0);
    assert!(carried.node.0.wait().unwrap().success(), "not all readings were confirmed");
    assert_eq!(canary.in_process(pid), NOWHERE);
    assert_eq!(canary.in_core(pid, carried.farm.folder.path()), NOWHERE);
    assert_eq!(carried.on_its_disk(), NOWHERE);
    carried.gateway.take().unwrap().stop();
    assert_eq!(carried.on_its_disk(), NOWHERE);
    // It went through: the cloud has it.
    let stored = canary.on_disk(Path::new(&carried.farm.path("cloud")));
    assert!(stored.contains("the text"), "{stored:?}");
    cloud.stop();
}

#[test]
fn under_e2_it_is_found_where_the_threats_say() {
    let carried = Carried::new("e1+e2+e4", 30);
    let (canary, pid) = (&carried.canary, carried.pid());
    let everything = |place: &str, found: &BTreeSet<String>| {
        assert!(found.contains("the text") && found.contains("the number"), "{place}: {found:?}");
    };
    everything("memory", &canary.in_process(pid));
    everything("core dump", &canary.in_core(pid, carried.farm.folder.path()));
    everything("store", &canary.on_disk(&carried.store()));
    // What it says and what it captures has the reading in neither case.
    for file in ["gateway.log", "heard.pcapng"] {
        assert_eq!(canary.on_disk(&carried.farm.folder.path().join(file)), NOWHERE, "{file}");
    }
    let threats = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threats.md")).unwrap();
    for said in ["in the memory of the gateway", "in its store until the cloud has it", "in no log and in no capture"] {
        assert!(threats.split_whitespace().collect::<Vec<_>>().join(" ").contains(said), "docs/threats.md: {said}");
    }
}
