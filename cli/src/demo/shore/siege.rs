//! The siege of the classic nodes: every attack of the second table of docs/threats.md, through live sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_keep::registry::Registry;
use serde_json::Value;

use super::{NAME, Node, ROAD, Said, Shore, UPLINK};
use crate::api::Api;
use crate::attack::classic::{Classic, clear_in};
use crate::attack::permit::{PERMIT_FILE, ca_of};
use crate::attack::plan::Plan;
use crate::attack::{Hands, Report, Way, each};
use crate::demo::processes::free_tcp;
use crate::demo::siege::{Cell, Row, copy_databases, counted_by, report_of, start};
use crate::demo::tables::Balance;
use crate::demo::threats::{Attack, Gain, Outcome, Table};
use crate::operator::{REGISTRY_FILE, acting};

/// Readings of each node that the cloud must have before the siege begins.
const PEACE: usize = 4;
/// How long what was forged may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(1500);

/// The besieger.
pub struct Siege<'s> {
    shore: &'s mut Shore,
    api: Api,
    /// The operator's folder.
    dir: PathBuf,
    folder: PathBuf,
    turn: u32,
    /// Ids of forged readings that an earlier attack is charged with.
    charged: HashSet<i64>,
    /// How much was stored of each before.
    before: HashMap<String, usize>,
}

/// Counters: (process, code) → count.
type Counts = BTreeMap<(String, String), u64>;

impl<'s> Siege<'s> {
    /// Before the first attack.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(shore: &'s mut Shore, api: Api, dir: &Path, logs: &Path) -> anyhow::Result<Self> {
        let folder = logs.join(NAME).join("attacks");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { shore, api, dir: dir.to_owned(), folder, turn: 0, charged: HashSet::new(), before: HashMap::new() })
    }

    /// Runs all attacks of the table that are chosen. `tell` hears of each outcome.
    ///
    /// # Errors
    /// An attacker cannot be started, or the cloud does not answer.
    pub fn run(
        &mut self,
        table: &Table,
        chosen: impl Fn(&str) -> bool,
        tell: impl Fn(&Row),
    ) -> anyhow::Result<(Vec<Row>, Balance)> {
        self.peace()?;
        // What is stored by now and was made by no node is no work of attackers to come.
        self.forged()?;
        let mut rows = Vec::new();
        for attack in table.attacks.iter().filter(|a| chosen(&a.name)) {
            let mut row = self.attempt(attack, table).with_context(|| format!("attack {}", attack.name))?;
            // On a slow machine his moment may have passed; what he obtained at any time counts.
            for _ in 0..2 {
                if row.cells.iter().all(|cell| cell.expected.0.is_subset(&cell.obtained.0)) {
                    break;
                }
                let again = self.attempt(attack, table)?;
                for (cell, again) in row.cells.iter_mut().zip(again.cells) {
                    cell.add(again);
                }
            }
            tell(&row);
            rows.push(row);
            if let Some(dead) = self.shore.casualties().into_iter().next() {
                anyhow::bail!("{dead}");
            }
        }
        Ok((rows, self.balance()?))
    }

    /// Asks the cloud, which may be starting again just now.
    fn fetch(&self, path: &str) -> anyhow::Result<Value> {
        let until = now() + Duration::from_secs(30);
        loop {
            match self.api.fetch(path) {
                Err(e) if now() > until => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
                answer => return answer,
            }
        }
    }

    /// Readings of this network: id, serial, frame in clear, how it was proven.
    fn rows(&self) -> anyhow::Result<Vec<Stored>> {
        let net = self.shore.net.to_string();
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.fetch(&format!("/v1/readings?net={net}&limit=1000{cursor}"))?;
            for row in page.get("readings").and_then(Value::as_array).into_iter().flatten() {
                let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
                // Kept as it came, for whoever holds its key: nobody here has read anything.
                if row.get("opened") == Some(&Value::Bool(false)) {
                    continue;
                }
                let clear = hex::decode(text("payload")).ok().and_then(|report| clear_in(&report));
                all.push(Stored {
                    id: row.get("id").and_then(Value::as_i64).unwrap_or(0),
                    serial: text("serial").to_owned(),
                    clear: hex::encode(clear.unwrap_or_default()),
                    proven: text("proof").to_owned(),
                });
            }
            match page.get("next").and_then(Value::as_i64) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Waits until every node has been heard.
    fn peace(&mut self) -> anyhow::Result<()> {
        let regular = self
            .shore
            .nodes
            .iter()
            .chain([&self.shore.own])
            .chain(&self.shore.by_radio)
            .map(|n| n.serial.to_string())
            .collect();
        self.await_heard(regular, PEACE)?;
        for node in &mut self.shore.recorded {
            node.process.resume()?;
        }
        self.await_heard(self.shore.recorded.iter().map(|n| n.serial.to_string()).collect(), 1)
    }

    /// What is stored by now is of a time before: nobody recorded it.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn going_on(mut self) -> anyhow::Result<Self> {
        for row in self.rows()? {
            *self.before.entry(row.serial).or_default() += 1;
        }
        Ok(self)
    }

    /// Waits until so many readings of each are stored, beside those of before.
    fn await_heard(&self, serials: Vec<String>, times: usize) -> anyhow::Result<()> {
        let heard = |rows: &[Stored], serial: &String| rows.iter().filter(|row| row.serial == *serial).count();
        let wanted = |serial: &String| self.before.get(serial).copied().unwrap_or(0) + times;
        let until = now() + Duration::from_secs(90);
        loop {
            let rows = self.rows()?;
            let silent: Vec<_> = serials.iter().filter(|s| heard(&rows, s) < wanted(s)).cloned().collect();
            if silent.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(now() < until, "after 90 s the cloud has not enough readings of: {}", silent.join(", "));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn said(&self) -> HashMap<String, Said> {
        self.shore.all().map(|node| (node.serial.to_string(), node.said())).collect()
    }

    /// Serials of which something is stored that the node did not make, or oftener than it made it.
    fn forged(&mut self) -> anyhow::Result<HashSet<String>> {
        // What nodes said is read after what is stored: then it covers that.
        let rows = self.rows()?;
        let said = self.said();
        let mut times: HashMap<(&str, &str), usize> = HashMap::new();
        let mut forged = HashSet::new();
        for row in &rows {
            let seen = times.entry((&row.serial, &row.clear)).or_default();
            *seen += 1;
            let made = said.get(&row.serial).and_then(|s| s.made.get(&row.clear)).copied().unwrap_or(0);
            if *seen > made && self.charged.insert(row.id) {
                forged.insert(row.serial.clone());
            }
        }
        Ok(forged)
    }

    fn counts(&self) -> anyhow::Result<Counts> {
        let net = self.shore.net.to_string();
        let mut counts = Counts::new();
        let answer = self.fetch("/v1/rejections")?;
        for row in answer.as_array().into_iter().flatten() {
            if row["place"] == "cloud" && row["net"] == net.as_str() {
                let code = row["code"].as_str().unwrap_or_default().to_owned();
                *counts.entry(("cloud".to_owned(), code)).or_default() += row["count"].as_u64().unwrap_or(0);
            }
        }
        for (code, n) in counted_by(self.shore.gateway.metrics) {
            *counts.entry(("gateway".to_owned(), code)).or_default() += n;
        }
        Ok(counts)
    }

    /// Waits until the counters stand still, and says how far they moved.
    fn settle(&self, before: &Counts) -> anyhow::Result<BTreeMap<String, u64>> {
        let until = now() + Duration::from_secs(4);
        let mut last = self.counts()?;
        loop {
            std::thread::sleep(Duration::from_millis(250));
            let counts = self.counts()?;
            if counts == last || now() > until {
                let mut moved = BTreeMap::new();
                for (key, n) in counts {
                    // A process that starts again counts from 0.
                    let old = before.get(&key).copied().filter(|old| *old <= n).unwrap_or(0);
                    if n > old {
                        *moved.entry(key.1).or_default() += n - old;
                    }
                }
                return Ok(moved);
            }
            last = counts;
        }
    }

    fn attempt(&mut self, attack: &Attack, table: &Table) -> anyhow::Result<Row> {
        let before = self.counts()?;
        let way = each::named(&attack.name).context("no such attack")?.way;
        let rows = self.rows()?.len();
        let reports = match way {
            Way::Hands(Hands::Restarts) => self.replay_over_restarts()?,
            Way::Hands(Hands::Withholds) => self.withhold()?,
            Way::Hands(Hands::Drops) => self.drop_frames()?,
            Way::Hands(Hands::Itself) => self.be_themselves()?,
            Way::Hands(Hands::ReadsWires | Hands::FlipsWires) => anyhow::bail!("no attack on classic nodes"),
            Way::Process(_) => self.each(&attack.name)?,
        };
        // Nobody takes readings back but who commands the database.
        let is_shorter = self.rows()?.len() < rows;
        let counted = self.settle(&before)?;
        let mut forged = self.forged()?;
        let awaited = attack.expected.iter().filter(|e| e.0.contains(&Gain::Forges)).count();
        let until = now() + ON_ITS_WAY;
        loop {
            // What comes later yet would be charged to the next attack.
            std::thread::sleep(Duration::from_millis(300));
            let more = self.forged()?;
            let is_over = more.is_empty() && (forged.len() >= awaited || now() > until);
            forged.extend(more);
            if is_over {
                break;
            }
        }
        self.turn += 1;
        let cell = |(at, node): (usize, &Node)| {
            let title = node.sketch.title();
            let column = table.networks.iter().position(|n| n == title).context("a node without a column")?;
            let (report, obtained) = reports.get(at).cloned().context("an attack without a report")?;
            let mut obtained = report.gained(obtained);
            if forged.contains(&node.serial.to_string()) {
                obtained = obtained.and(Gain::Forges);
            }
            if is_shorter {
                obtained = obtained.and(Gain::Loses);
            }
            anyhow::Ok(Cell {
                network: title.to_owned(),
                name: node.serial.to_string(),
                expected: attack.expected.get(column).cloned().unwrap_or_default(),
                obtained,
                attempts: report.attempts,
                // One gateway and one network: the counters are those of all columns, and stand in the first.
                counted: if at == 0 { counted.clone() } else { BTreeMap::new() },
                note: report.note,
            })
        };
        let cells = self.shore.nodes.iter().enumerate().map(cell).collect::<anyhow::Result<_>>()?;
        Ok(Row { attack: attack.name.clone(), what: attack.what.clone(), cells })
    }

    /// An attacker process for each victim, all at once.
    fn each(&self, name: &str) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let running = (0..self.shore.nodes.len()).map(|at| start(&self.folder, name, at, &self.plan(at, name)?));
        let running = running.collect::<anyhow::Result<Vec<_>>>()?;
        running.into_iter().map(|child| Ok((report_of(child)?, Outcome::default()))).collect()
    }

    fn plan(&self, at: usize, name: &str) -> anyhow::Result<Plan> {
        let shore = &*self.shore;
        let victim = shore.nodes.get(at).context("no such node")?;
        let said = victim.said();
        // What is looked for are counter and values: what stands before them is the same in all frames.
        let oracle = said.made.keys().map(|clear| clear.get(2 * 15..).unwrap_or_default().to_owned()).collect();
        let own_key = shore.own.key_file.clone().filter(|_| name.starts_with("classic-insider"));
        let others = shore.all().filter(|n| n.serial != victim.serial).map(|n| n.serial.to_string()).collect();
        let mut plan = Plan {
            turn: self.turn,
            net: shore.net.to_string(),
            permit: Some(self.dir.join(PERMIT_FILE)),
            ca: ca_of(&self.dir),
            recording: shore.recording.clone(),
            cloud: format!("https://localhost:{}", shore.ingest.port()),
            classic: Some(Classic { http: shore.http.to_string(), victim: victim.serial.to_string(), others, own_key }),
            oracle,
            ..Plan::default()
        };
        if name.starts_with("classic-gateway") {
            plan.gateway = Some(shore.gateway.folder.clone());
            plan.gateway_pid = shore.gateway.process.id();
            plan.credentials = shore.gateway.process.credentials().map(Path::to_owned);
        }
        if name.starts_with("classic-database") {
            let folder = self.folder.join("stolen");
            if at == 0 {
                let _ = std::fs::remove_dir_all(&folder);
                std::fs::create_dir_all(&folder)?;
                for source in [&self.dir, &self.dir.join("cloud")] {
                    copy_databases(source, &folder)?;
                }
            }
            plan.database = std::fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
            let key = victim.key_file.as_ref().map(std::fs::read).transpose()?;
            let word =
                |key: Vec<u8>| key.split(u8::is_ascii_whitespace).rfind(|word| !word.is_empty()).map(hex::encode);
            plan.oracle_secrets = key.and_then(word).into_iter().collect();
        }
        Ok(plan)
    }

    /// Every node starts again, so that its counter does, and what was recorded is played at once.
    fn replay_over_restarts(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        for node in &mut self.shore.nodes {
            node.process.kill();
            node.process.resume()?;
        }
        std::thread::sleep(Duration::from_millis(300));
        self.each("classic-recorder-replays")
    }

    fn delivered(&self) -> Vec<HashMap<String, usize>> {
        let of = |node: &Node| {
            let mut times = HashMap::new();
            for clear in node.said().delivered {
                *times.entry(clear).or_default() += 1;
            }
            times
        };
        self.shore.nodes.iter().map(of).collect()
    }

    /// What was acknowledged between two looks, and is not stored.
    fn missing(
        &self,
        before: &[HashMap<String, usize>],
        after: &[HashMap<String, usize>],
    ) -> anyhow::Result<Vec<(usize, usize)>> {
        let stored: BTreeSet<(String, String)> = self.rows()?.into_iter().map(|r| (r.serial, r.clear)).collect();
        let of = |((before, after), node): ((&HashMap<_, _>, &HashMap<String, usize>), &Node)| {
            let new: Vec<&String> = after.iter().filter(|(k, n)| before.get(*k) != Some(*n)).map(|(k, _)| k).collect();
            let serial = node.serial.to_string();
            let missing = new.iter().filter(|clear| !stored.contains(&(serial.clone(), (**clear).clone()))).count();
            (new.len(), missing)
        };
        Ok(before.iter().zip(after).zip(&self.shore.nodes).map(of).collect())
    }

    /// The gateway forwards nothing for a while.
    fn withhold(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let nowhere = *free_tcp(1)?.first().context("no port")?;
        let (before, after) = self.while_led_astray(UPLINK, &nowhere.to_string())?;
        let kept = self.missing(&before, &after)?;
        self.shore.wires.order(&format!("to {UPLINK} {}", self.shore.ingest))?;
        let until = now() + Duration::from_secs(30);
        let mut missing = kept.clone();
        while now() < until && missing.iter().any(|(_, missing)| *missing > 0) {
            std::thread::sleep(Duration::from_millis(300));
            missing = self.missing(&before, &after)?;
        }
        Ok(judged(&kept, &missing))
    }

    /// Somebody in the gateway's place acknowledges frames, and throws them away.
    fn drop_frames(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let impostor = Impostor::start()?;
        let to = impostor.address.clone();
        let (before, after) = self.while_led_astray(ROAD, &to)?;
        self.shore.wires.order(&format!("to {ROAD} {}", self.shore.http))?;
        let kept = self.missing(&before, &after)?;
        std::thread::sleep(Duration::from_secs(2));
        let missing = self.missing(&before, &after)?;
        Ok(judged(&kept, &missing))
    }

    /// Leads a wire elsewhere until every node had two more frames acknowledged. Says what was acknowledged before and after.
    #[expect(clippy::type_complexity, reason = "two looks at the same thing")]
    fn while_led_astray(
        &mut self,
        wire: usize,
        to: &str,
    ) -> anyhow::Result<(Vec<HashMap<String, usize>>, Vec<HashMap<String, usize>>)> {
        self.shore.wires.order(&format!("to {wire} {to}"))?;
        std::thread::sleep(Duration::from_millis(300));
        let before = self.delivered();
        let total = |all: &HashMap<String, usize>| all.values().sum::<usize>();
        let until = now() + Duration::from_secs(30);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let after = self.delivered();
            let enough = before.iter().zip(&after).all(|(b, a)| total(a) >= total(b) + 2);
            if enough || now() > until {
                return Ok((before, after));
            }
        }
    }

    /// Each node in the wrong hands speaks as itself, and is then revoked.
    fn be_themselves(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let of_each = |siege: &Self| -> anyhow::Result<Vec<usize>> {
            let rows = siege.rows()?;
            let count = |node: &Node| rows.iter().filter(|r| r.serial == node.serial.to_string()).count();
            Ok(siege.shore.nodes.iter().map(count).collect())
        };
        let before = of_each(self)?;
        let until = now() + Duration::from_secs(20);
        let mut taken = before.clone();
        while now() < until && taken.iter().zip(&before).any(|(t, b)| t == b) {
            std::thread::sleep(Duration::from_millis(200));
            taken = of_each(self)?;
        }
        let mut registry = Registry::open(&self.dir.join(REGISTRY_FILE), acting(crate::clock::now()?))?;
        for node in &self.shore.nodes {
            registry.revoke_classic(node.serial, crate::clock::now()?)?;
        }
        let until = now() + Duration::from_secs(20);
        let (mut last, mut since) = (of_each(self)?, now());
        let is_silent = loop {
            std::thread::sleep(Duration::from_millis(250));
            let stored = of_each(self)?;
            if stored != last {
                (last, since) = (stored, now());
            }
            match now() {
                t if t > since + Duration::from_secs(5) => break true,
                t if t > until => break false,
                _ => {}
            }
        };
        let outcome = |(before, taken): (usize, usize)| match (taken > before, is_silent) {
            (true, true) => Outcome::default().and(Gain::Itself),
            (_, false) => Outcome::default().and(Gain::Forges),
            _ => Outcome::default(),
        };
        let note = if is_silent { "silent once it was revoked" } else { "not silent once it was revoked" };
        Ok(before.into_iter().zip(taken).map(|both| (Report::tried(1, note), outcome(both))).collect())
    }

    fn balance(&self) -> anyhow::Result<Balance> {
        let rows = self.rows()?;
        let said = self.said();
        let mut balance = Balance::of_classic(NAME, self.shore.all().count());
        let stored: HashSet<(&str, &str)> = rows.iter().map(|r| (r.serial.as_str(), r.clear.as_str())).collect();
        for (serial, said) in &said {
            balance.sent += said.made.len();
            balance.acknowledged += said.delivered.len();
            balance.stored += said.made.keys().filter(|c| stored.contains(&(serial.as_str(), c.as_str()))).count();
            let unstored = |clear: &&String| !stored.contains(&(serial.as_str(), clear.as_str()));
            balance.lost += said.delivered.iter().filter(unstored).count();
        }
        for row in &rows {
            if said.get(&row.serial).is_some_and(|s| s.made.contains_key(&row.clear)) {
                *balance.proven.entry(row.proven.clone()).or_default() += 1;
            } else {
                balance.forged += 1;
            }
        }
        Ok(balance)
    }
}

/// A reading as the cloud shows it.
struct Stored {
    id: i64,
    serial: String,
    clear: String,
    proven: String,
}

fn judged(kept: &[(usize, usize)], missing: &[(usize, usize)]) -> Vec<(Report, Outcome)> {
    let one = |((new, kept), (_, missing)): (&(usize, usize), &(usize, usize))| {
        let outcome = match (kept, missing) {
            (0, _) => Outcome::default(),
            (_, 0) => Outcome::default().and(Gain::Withholds),
            _ => Outcome::default().and(Gain::Loses),
        };
        (Report::tried(*new, format!("{kept} of {new} readings kept away for a while, {missing} for good")), outcome)
    };
    kept.iter().zip(missing).map(one).collect()
}

/// A gateway that says yes to everything.
struct Impostor {
    address: String,
    over: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
}

impl Impostor {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (over, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&over), Arc::clone(&taken));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let mut stream = stream;
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let mut request = [0; 2048];
                // The frame of the demo's nodes comes in one piece, or in two.
                let _ = stream.read(&mut request);
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
        });
        Ok(Self { address, over, taken })
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        tracing::debug!(taken = self.taken.load(Ordering::Relaxed), "the impostor leaves");
        let _ = std::net::TcpStream::connect(&self.address);
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
fn now() -> Instant {
    Instant::now()
}
