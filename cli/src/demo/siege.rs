//! The siege: every attack of docs/threats.md against every network, through live processes, and what came of it.

mod seen;
mod wires;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_core::profile::Profile;
use fivefold_keep::registry::Registry;
use fivefold_keep::share::NodeShare;
use serde::Serialize;
use serde_json::Value;

use super::processes::CREDENTIALS;
use super::threats::{Attack, Gain, Outcome, Table};
use super::village::{Network, Village, title_of};
use crate::api::Api;
use crate::attack::permit::{PERMIT_FILE, ca_of};
use crate::attack::plan::{Plan, Station};
use crate::attack::{Hands, Report, Way, each};
use crate::operator::{REGISTRY_FILE, acting};
use seen::Counted;
pub(super) use seen::counted_by;
pub use seen::key_of;

/// Readings of each node that the cloud must get before the siege begins.
const PEACE: usize = 3;

/// What one attack came to in one network.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// `e1+e3+e4` and so on: the column.
    pub network: String,
    /// Name of the network, or serial of the node.
    pub name: String,
    /// What docs/threats.md says.
    pub expected: Outcome,
    /// What was seen.
    pub obtained: Outcome,
    /// How many things the attacker tried.
    pub attempts: u64,
    /// How many the receiving processes counted meanwhile, by code.
    pub counted: BTreeMap<String, u64>,
    /// The attacker's own words.
    pub note: String,
}

/// One row of the second table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The attack.
    pub attack: String,
    /// What is done.
    pub what: String,
    /// One for each network.
    pub cells: Vec<Cell>,
}

impl Cell {
    /// Whether it came out as the page says.
    pub fn is_as_stated(&self) -> bool {
        self.expected == self.obtained
    }

    /// With what another attempt came to.
    pub(super) fn add(&mut self, again: Self) {
        self.obtained.0.extend(again.obtained.0);
        self.attempts += again.attempts;
        for (code, n) in again.counted {
            *self.counted.entry(code).or_default() += n;
        }
        self.note = again.note;
    }
}

/// A reading as the cloud shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stored {
    /// EUI-64 of the device.
    pub did: String,
    /// Its number.
    pub piv: u64,
    /// Its payload, in hex.
    pub payload: String,
}

/// The besieger: all attackers at once, with what each of them needs.
pub struct Siege<'v> {
    /// What is besieged.
    pub village: &'v mut Village,
    api: Api,
    folder: PathBuf,
    // Ids of forged readings that an earlier attack is charged with.
    charged: HashSet<i64>,
    // Gateways were started again since the insiders last proved themselves to them.
    strange: bool,
    /// How many readings of each network were stored when nodes were no longer cut off.
    flow_since: Option<Vec<usize>>,
    turn: u32,
    /// What the operator takes every network for, whatever it is.
    claim: Option<Profile>,
}

impl<'v> Siege<'v> {
    /// Before the first attack.
    ///
    /// # Errors
    /// The API client cannot be made.
    pub fn new(village: &'v mut Village) -> anyhow::Result<Self> {
        let api = Api::new(
            &village.dir.join("ca.pem"),
            &format!("https://localhost:{}", village.api.port()),
            &village.token,
        )?;
        let folder = village.logs.join("attacks");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            village,
            api,
            folder,
            charged: HashSet::new(),
            strange: false,
            flow_since: None,
            turn: 0,
            claim: None,
        })
    }

    /// Judges every network as if it were of this combination.
    #[must_use]
    pub fn claiming(mut self, claim: Option<Profile>) -> Self {
        self.claim = claim;
        self
    }

    /// The API, to look at what is stored.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Runs one attack against every network. An attacker who obtained less than the page says comes back, twice at most: on
    /// a slow machine his moment may have passed. What he obtained at any time counts.
    ///
    /// # Errors
    /// An attacker cannot be started, or the cloud does not answer.
    pub fn run(&mut self, attack: &Attack, table: &Table) -> anyhow::Result<Row> {
        let mut row = self.attempt(attack, table)?;
        for _ in 0..2 {
            if row.cells.iter().all(|cell| cell.expected.0.is_subset(&cell.obtained.0)) {
                break;
            }
            let again = self.attempt(attack, table)?;
            for (cell, again) in row.cells.iter_mut().zip(again.cells) {
                cell.add(again);
            }
        }
        Ok(row)
    }

    /// Waits until more was heard of every node than is stored in `before`.
    ///
    /// # Errors
    /// A node is silent for 90 seconds, or a process ended.
    pub fn peace(&mut self, before: &BTreeMap<(String, u64), Value>) -> anyhow::Result<()> {
        let heard =
            |stored: &BTreeMap<(String, u64), Value>, did: &str| stored.keys().filter(|(d, _)| d == did).count();
        // A HELLO that nobody heard is said again after a minute.
        let until = now() + Duration::from_secs(90);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            if let Some(dead) = self.village.casualties().into_iter().next() {
                anyhow::bail!("{dead}");
            }
            let stored = self.stored()?;
            let nodes = self.village.networks.iter().flat_map(|n| &n.nodes);
            let is_silent = |did: &str| heard(&stored, did) < heard(before, did) + PEACE;
            let silent: Vec<_> =
                nodes.filter(|n| is_silent(&n.did.to_string())).map(|n| n.station.name.clone()).collect();
            if silent.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(now() < until, "after 90 s the cloud has not enough readings of: {}", silent.join(", "));
        }
    }

    /// What is stored by now and was made by no node is no work of attackers to come.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn forget_what_was_forged(&mut self) -> anyhow::Result<()> {
        self.forged().map(drop)
    }

    fn attempt(&mut self, attack: &Attack, table: &Table) -> anyhow::Result<Row> {
        let (reports, counted) = match attack.name.as_str() {
            // The victims of one network's recorder are another network's gateway: one at a time tells whose is whose.
            "recorder-replays-elsewhere" => self.one_at_a_time(&attack.name)?,
            name => {
                let before = self.counts()?;
                let reports = self.carry_out(name)?;
                (reports, self.settle(&before)?)
            }
        };
        // What was forged may still be on its way; what comes later yet is charged to the next attack.
        let awaited = attack.expected.iter().filter(|e| e.0.contains(&Gain::Forges)).count();
        let mut forged = self.forged()?;
        let until = now() + Duration::from_secs(3);
        while forged.len() < awaited && now() < until {
            std::thread::sleep(Duration::from_millis(150));
            forged.extend(self.forged()?);
        }
        self.turn += 1;
        let mut cells = Vec::new();
        for (at, network) in self.village.networks.iter().enumerate() {
            let title = title_of(self.claim.unwrap_or(network.profile));
            let column = table.networks.iter().position(|n| n == title).context("a network without a column")?;
            let (report, obtained) = reports.get(at).cloned().context("an attack without a report")?;
            let mut obtained = report.gained(obtained);
            if forged.contains(&network.net.to_string()) {
                obtained = obtained.and(Gain::Forges);
            }
            let net = network.net.to_string();
            let counted = counted.iter().filter(|((n, _), _)| *n == net || n.is_empty());
            cells.push(Cell {
                network: title.to_owned(),
                name: network.name.clone(),
                expected: attack.expected.get(column).cloned().unwrap_or_default(),
                obtained,
                attempts: report.attempts,
                counted: counted.map(|((_, code), n)| (code.clone(), *n)).collect(),
                note: report.note,
            });
        }
        Ok(Row { attack: attack.name.clone(), what: attack.what.clone(), cells })
    }

    /// One network after the other, and everything that was counted meanwhile is the attacker's.
    fn one_at_a_time(&mut self, name: &str) -> anyhow::Result<(Vec<(Report, Outcome)>, Counted)> {
        let (mut reports, mut counted) = (Vec::new(), Counted::new());
        for at in 0..self.village.networks.len() {
            let before = self.counts()?;
            let plan = self.plan(at, name)?;
            reports.push((report_of(start(&self.folder, name, at, &plan)?)?, Outcome::default()));
            let net = self.village.networks.get(at).map(|n| n.net.to_string()).unwrap_or_default();
            for ((_, code), n) in self.settle(&before)? {
                *counted.entry((net.clone(), code)).or_default() += n;
            }
        }
        Ok((reports, counted))
    }

    /// Reports by network, and what was gained beyond reading and forging, which are judged for every attack alike.
    fn carry_out(&mut self, name: &str) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let attack = each::named(name).with_context(|| format!("no attack is called {name}"))?;
        match attack.way {
            Way::Hands(Hands::Restarts) => self.replay_over_restarts(),
            Way::Hands(Hands::ReadsWires) => self.read_the_wires(),
            Way::Hands(Hands::FlipsWires) => self.flip_the_wires(),
            Way::Hands(Hands::Withholds) => self.withhold(false),
            Way::Hands(Hands::Drops) => self.withhold(true),
            Way::Hands(Hands::Itself) => self.be_itself(),
            // Attackers who play the cloud are of no use where nobody is led to them.
            Way::Process(_) if matches!(name, "backhaul-impersonates" | "gateway-as-cloud") => self.lead_astray(name),
            Way::Process(_) if name == "database-keys" => self.search_together(),
            Way::Process(_) => self.plain(name),
        }
    }

    /// The attackers share one copy and the work: what one of them finds, all have.
    fn search_together(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let mut reports = self.plain("database-keys")?;
        let read = reports.iter().map(|(r, _)| r.read).sum();
        reports.iter_mut().for_each(|(report, _)| report.read = read);
        Ok(reports)
    }

    /// An attacker process for each network, all at once.
    fn plain(&mut self, name: &str) -> anyhow::Result<Vec<(Report, Outcome)>> {
        if name.starts_with("insider-") || name.starts_with("stolen-node") {
            self.ready_the_insiders()?;
        }
        let mut running = Vec::new();
        for at in 0..self.village.networks.len() {
            let plan = self.plan(at, name)?;
            running.push(start(&self.folder, name, at, &plan)?);
        }
        running.into_iter().map(|child| Ok((report_of(child)?, Outcome::default()))).collect()
    }

    /// Lets the insiders prove themselves to gateways that started again, and stops their own processes: their evil
    /// twins use the same counters.
    fn ready_the_insiders(&mut self) -> anyhow::Result<()> {
        if self.strange {
            let before = self.of_the_insiders()?;
            for node in self.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
                if node.process.id().is_none() {
                    node.process.resume()?;
                }
            }
            let until = now() + Duration::from_secs(20);
            while now() < until && self.of_the_insiders()?.iter().zip(&before).any(|(now, before)| now == before) {
                std::thread::sleep(Duration::from_millis(100));
            }
            self.strange = false;
        }
        self.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()).for_each(|n| n.process.stop());
        Ok(())
    }

    /// How many messages of each network's insider are stored.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn of_the_insiders(&self) -> anyhow::Result<Vec<usize>> {
        let stored = self.stored()?;
        let dids = self.village.networks.iter().filter_map(|n| n.nodes.last()).map(|n| n.did.to_string());
        Ok(dids.map(|did| stored.keys().filter(|(d, _)| *d == did).count()).collect())
    }

    /// What an attacker of this kind has.
    fn plan(&self, at: usize, name: &str) -> anyhow::Result<Plan> {
        let network = self.village.networks.get(at).context("no such network")?;
        let others = self.village.networks.iter().filter(|n| n.net != network.net);
        let elsewhere: Vec<Station> = if network.gateways.len() > 1 {
            network.gateways.iter().skip(1).map(|g| g.station.clone()).collect()
        } else {
            others.filter_map(|n| n.gateways.first()).map(|g| g.station.clone()).collect()
        };
        // In reach: the primary gateway, and the nodes.
        let stations = network.gateways.iter().take(1).map(|g| g.station.clone());
        let stations = stations.chain(network.nodes.iter().map(|n| n.station.clone())).collect();
        let mut plan = Plan {
            turn: self.turn,
            net: network.net.to_string(),
            pan: network.pan.clone(),
            permit: Some(self.village.dir.join(PERMIT_FILE)),
            ca: ca_of(&self.village.dir),
            recording: network.recording.clone(),
            stations,
            elsewhere,
            cloud: format!("https://localhost:{}", self.village.ingest.port()),
            oracle: payloads(network),
            ..Plan::default()
        };
        if name.starts_with("insider-") || name.starts_with("stolen-node") {
            plan.node = network.nodes.last().map(|n| n.folder.clone());
        }
        if name.starts_with("gateway-") {
            let gateway = network.gateways.first().context("no gateway")?;
            plan.gateway = Some(gateway.folder.clone());
            plan.gateway_pid = gateway.process.id();
            plan.credentials = gateway.process.credentials().map(Path::to_owned);
        }
        if name.starts_with("database-") {
            // They share one copy and the work: it holds all networks.
            plan.database = self.copy_of_the_databases(at == 0)?;
            plan.share = Some((at, self.village.networks.len()));
            plan.oracle_secrets = secrets_of(network)?;
        }
        Ok(plan)
    }

    /// A copy of the databases, made anew or as it lies there.
    fn copy_of_the_databases(&self, anew: bool) -> anyhow::Result<Vec<PathBuf>> {
        let folder = self.folder.join("stolen");
        if anew {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder)?;
            for source in [&self.village.dir, &self.village.dir.join("cloud")] {
                copy_databases(source, &folder)?;
            }
        }
        let files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
        let is_copied = |file: &PathBuf| !text(file).contains(".look-");
        files.filter(|file| file.as_ref().map_or(true, is_copied)).collect()
    }

    /// `recorder-replays-restart`: node, relay, gateway and cloud in turn are cut off and start again; the recording is
    /// played to them each time.
    fn replay_over_restarts(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        self.strange = true;
        let mut sum: Vec<Report> = vec![Report::default(); self.village.networks.len()];
        for part in ["node", "relay", "gateway", "cloud"] {
            for network in &mut self.village.networks {
                match part {
                    "node" => restart(network.honest_mut().last().map(|n| &mut n.process))?,
                    "relay" => restart(network.nodes.first_mut().map(|n| &mut n.process))?,
                    "gateway" => restart(network.gateways.first_mut().map(|g| &mut g.process))?,
                    _ => {}
                }
            }
            if part == "cloud" {
                restart(Some(&mut self.village.cloud))?;
                self.await_cloud()?;
            }
            std::thread::sleep(Duration::from_millis(400));
            for (sum, (report, _)) in sum.iter_mut().zip(self.plain("recorder-replays-hop")?) {
                sum.attempts += report.attempts;
            }
        }
        self.was_cut()?;
        let note = "node, relay, gateway and cloud restarted; the recording played after each".to_owned();
        Ok(sum.into_iter().map(|r| (Report { note: note.clone(), ..r }, Outcome::default())).collect())
    }

    /// Waits until the cloud answers.
    ///
    /// # Errors
    /// It does not within 20 seconds.
    pub fn await_cloud(&mut self) -> anyhow::Result<()> {
        let until = now() + Duration::from_secs(20);
        loop {
            match self.api.fetch("/v1/health") {
                Ok(_) => return Ok(()),
                Err(e) if now() > until => return Err(e.context("the cloud does not come up")),
                Err(_) => {}
            }
            if let Some(last_words) = self.village.cloud.has_died() {
                anyhow::bail!("{last_words}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The stolen node speaks as itself, and is then revoked.
    fn be_itself(&mut self) -> anyhow::Result<Vec<(Report, Outcome)>> {
        let before = self.of_the_insiders()?;
        for node in self.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
            node.process.resume()?;
        }
        let until = now() + Duration::from_secs(20);
        let mut taken = before.clone();
        while now() < until && taken.iter().zip(&before).any(|(t, b)| t == b) {
            std::thread::sleep(Duration::from_millis(200));
            taken = self.of_the_insiders()?;
        }
        let mut registry = Registry::open(&self.village.dir.join(REGISTRY_FILE), acting(crate::clock::now()?))?;
        for node in self.village.networks.iter().filter_map(|n| n.nodes.last()) {
            registry.revoke_device(node.did, crate::clock::now()?)?;
        }
        // The cloud looks once a second and tells its gateways. Who is revoked is silent from then on.
        let until = now() + Duration::from_secs(15);
        let (mut last, mut since) = (self.of_the_insiders()?, now());
        let is_silent = loop {
            std::thread::sleep(Duration::from_millis(250));
            let stored = self.of_the_insiders()?;
            if stored != last {
                (last, since) = (stored, now());
            }
            if now() > since + Duration::from_secs(5) {
                break true;
            }
            if now() > until {
                break false;
            }
        };
        for node in self.village.networks.iter_mut().filter_map(|n| n.nodes.last_mut()) {
            node.process.stop();
        }
        let mut reports = Vec::new();
        for ((before, taken), last) in before.into_iter().zip(taken).zip(last) {
            let silent = if is_silent { "silent" } else { "not silent" };
            let note = format!("{} readings of its own taken; {silent} once it was revoked", last - before);
            let outcome = match (taken > before, is_silent) {
                (true, true) => Outcome::default().and(Gain::Itself),
                (_, false) => Outcome::default().and(Gain::Forges),
                _ => Outcome::default(),
            };
            reports.push((Report::tried(last - before, note), outcome));
        }
        Ok(reports)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn restart(process: Option<&mut super::processes::Process>) -> anyhow::Result<()> {
    let Some(process) = process else { return Ok(()) };
    process.kill();
    process.resume()
}

pub(super) fn copy_databases(source: &Path, folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(source)?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".db") {
            match std::fs::copy(entry.path(), folder.join(&name)) {
                // What stands beside a database comes and goes with those who have it open.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !name.ends_with(".db") => {}
                copied => drop(copied?),
            }
        }
        // Files copied one by one while they are written may not fit together: whoever copies a database that is in use
        // takes a snapshot as well.
        if name.ends_with(".db") {
            let live = rusqlite::Connection::open(entry.path())?;
            let snapshot = text(&folder.join(format!("{name}.snapshot")));
            live.execute("VACUUM INTO ?", [snapshot]).context("the database cannot be copied")?;
        }
    }
    Ok(())
}

fn payloads(network: &Network) -> Vec<String> {
    let mut all: Vec<String> = network.nodes.iter().flat_map(|n| n.said().readings.into_values()).collect();
    all.sort();
    all.dedup();
    all
}

/// (device, number) of everything that nodes but the insider have sent.
fn sent_by(network: &Network) -> BTreeSet<(String, u64)> {
    network.honest().flat_map(|n| n.said().sent.into_iter().map(|number| (n.did.to_string(), number))).collect()
}

/// Secrets of the deployment, to judge whether a copy of the database holds one.
fn secrets_of(network: &Network) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for node in &network.nodes {
        let share = NodeShare::read(&node.folder)?;
        all.push(hex::encode(share.secrets.network_key.as_slice()));
        all.push(hex::encode(share.secrets.root_psk.as_slice()));
        all.extend(share.secrets.e3.iter().map(|(ms3, _)| hex::encode(ms3.as_slice())));
        all.extend(share.secrets.e2_root.iter().map(|root| hex::encode(root.as_slice())));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

pub(super) fn start(folder: &Path, name: &str, at: usize, plan: &Plan) -> anyhow::Result<Child> {
    let path = folder.join(format!("{name}-{at}.json"));
    std::fs::write(&path, serde_json::to_vec(plan)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["attack", "run", name, "--plan"]).arg(&path);
    command.envs(plan.credentials.iter().map(|folder| (CREDENTIALS, folder)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start the attacker {name}"))
}

pub(super) fn report_of(child: Child) -> anyhow::Result<Report> {
    let done = child.wait_with_output()?;
    anyhow::ensure!(done.status.success(), "an attacker failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    serde_json::from_slice(&done.stdout).context("an attacker did not report")
}

#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
fn now() -> Instant {
    Instant::now()
}
