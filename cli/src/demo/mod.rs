//! `fivefold demo`: the dam of Black Hat 2018, with the levels switched on. One cloud, five gateways, four networks, and the
//! shore with its classic nodes, as processes with real sockets and files; then every attack of docs/threats.md against each network;
//! at the end the level of the water is proven to a stranger.

pub mod evidence;
pub mod graded;
pub mod processes;
pub mod renewal;
pub mod shore;
pub mod siege;
pub mod tables;
pub mod threats;
pub mod village;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_core::profile::Profile;
use fivefold_keep::files::{self, Readers};
use serde_json::json;

use crate::api::Api;
use crate::attack::each;
use crate::attack::permit::{PERMIT_FILE, Permit};
use crate::operator::{Folder, Operator};
use crate::output::Output;
use crate::range;
use evidence::{Cut, Proven};
use graded::Audited;
use renewal::Renewed;
use shore::Shore;
use siege::{Row, Siege};
use tables::Balance;
use threats::Table;
use village::{INSIDER, Village};

/// Arguments of `fivefold demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Leave everything running at the end, and print commands to try.
    #[arg(long)]
    keep: bool,
    /// The same, with every way of the gateways leading through wires that nobody holds: `fivefold range run` takes them.
    #[arg(long, conflicts_with = "keep")]
    for_range: bool,
    /// Write what was on the air, and the CoAP messages it stands for, as a capture for Wireshark.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Only let readings flow.
    #[arg(long)]
    no_attacks: bool,
    /// Leave nodes and networks the keys that they were installed with: a capture then opens with the secrets in their
    /// folders.
    #[arg(long)]
    no_renewal: bool,
    /// Only these attacks. Repeat for more.
    #[arg(long = "attack", value_name = "NAME")]
    attacks: Vec<String>,
    /// Seconds between two readings of a node.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    every: f64,
    /// Folder to work in, new or empty; a temporary one if not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Args {
    const fn stays(&self) -> bool {
        self.keep || self.for_range
    }
}

/// Runs the demo. Exits 1 when an outcome is not the one that docs/threats.md states, or a reading got lost.
///
/// # Errors
/// A part cannot be started, or ends by itself.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let table = Table::of_threats_page().map_err(|e| anyhow::anyhow!(e))?;
    let classic = Table::of_classic_nodes().map_err(|e| anyhow::anyhow!(e))?;
    for name in &args.attacks {
        let known = table.attacks.iter().chain(&classic.attacks).any(|a| a.name == *name);
        anyhow::ensure!(known, "no attack is called {name}; docs/threats.md has the list");
    }
    let progress = Progress::begin();
    let root = match &args.folder {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("fivefold-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    progress.tell(&format!("A dam, its sensors and its enemies, in {}", root.display()));
    let mut village = Village::start(&root, args.pcap.is_some(), args.every, |what| progress.tell(what))?;
    progress.tell("enrolling network shore (classic)");
    let mut operator = Folder { dir: village.dir.clone(), passphrase_file: None }.open()?;
    let mut shore = Shore::settle(&mut operator, &village.logs, village.ingest, args.every)?;
    sign_permit(&operator)?;
    drop(operator);
    let done = besiege(args, output, (&table, &classic), &progress, &mut village, &mut shore);
    if let Some(path) = &args.pcap {
        write_capture(&mut village, path)?;
        progress.tell(&format!("capture written to {}", path.display()));
    }
    if args.stays() && done.is_ok() {
        leave_running(&mut village, &mut shore, &root, args.for_range)?;
        let words =
            if args.for_range { tables::to_a_range(&village, &root) } else { tables::commands(&village, &root) };
        match output {
            Output::Human => println!("\n{words}"),
            Output::Json => eprintln!("{words}"),
        }
    } else if done.is_err() {
        eprintln!("The logs are in {}.", village.logs.display());
    } else {
        drop((village, shore));
        if args.folder.is_none() {
            let _ = std::fs::remove_dir_all(&root);
        }
    }
    done
}

fn besiege(
    args: &Args,
    output: Output,
    (table, classic): (&Table, &Table),
    progress: &Progress,
    village: &mut Village,
    shore: &mut Shore,
) -> anyhow::Result<ExitCode> {
    let api =
        Api::new(&village.dir.join("ca.pem"), &format!("https://localhost:{}", village.api.port()), &village.token)?;
    let (dir, logs) = (village.dir.clone(), village.logs.clone());
    let chosen = |name: &str| !args.no_attacks && (args.attacks.is_empty() || args.attacks.iter().any(|a| a == name));
    // The classic nodes are besieged at the same time: they have nothing to do with the others but the cloud.
    let (seen, classic_seen) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut siege = shore::siege::Siege::new(shore, api, &dir, &logs)?;
            siege.run(classic, chosen, |row| progress.outcome(row))
        });
        let seen = besiege_village(args, table, progress, village, chosen);
        (seen, beside.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the siege of the classic nodes broke off"))))
    });
    let Seen { rows, renewals, mut balances, audited } = seen?;
    let (classic_rows, balance) = classic_seen?;
    balances.push(balance);
    let proven = prove(args, progress, village, shore)?;
    let lost: Vec<&Balance> = balances.iter().filter(|b| !b.is_whole()).collect();
    let all: Vec<Row> = rows.iter().chain(&classic_rows).cloned().collect();
    let wrong = all.iter().flat_map(|r| &r.cells).filter(|c| !c.is_as_stated()).count();
    let ok = wrong == 0 && lost.is_empty() && renewals.iter().all(Renewed::is_whole) && proven.is_whole();
    let ok = ok && audited.is_whole();
    match output {
        Output::Json => {
            let tables = json!({ "networks": balances, "attacks": rows, "classic_attacks": classic_rows,
                                 "renewals": renewals, "evidence": proven, "audit": audited, "as_stated": ok });
            println!("{tables:#}");
        }
        Output::Human => {
            println!("\n{}", tables::balances(&balances));
            if !rows.is_empty() {
                println!("\n{}", tables::attacks("What each attacker obtained", &rows, &table.networks));
            }
            if !classic_rows.is_empty() {
                let heading = "What each attacker obtained from classic nodes, by what their sketch does";
                println!("\n{}", tables::attacks(heading, &classic_rows, &classic.networks));
            }
            if !renewals.is_empty() {
                println!("\n{}", renewal::words(&renewals));
            }
            println!("\n{}", graded::words(&audited));
            println!("\n{}", evidence::words(&proven));
            println!("\n{}", tables::verdict(&all, &balances));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Proves the level of the water to a stranger, with the network cut.
fn prove(args: &Args, progress: &Progress, village: &mut Village, shore: &mut Shore) -> anyhow::Result<Proven> {
    progress.tell("proving the level of the water to a stranger");
    let fetched = evidence::fetch(&Siege::new(village)?)?;
    let cut = if evidence::is_namespace_allowed() {
        Cut::Namespace
    } else if args.stays() {
        Cut::NotCut
    } else {
        village.end();
        shore.end();
        Cut::NobodyListens
    };
    evidence::prove(fetched, cut)
}

/// What came of the four networks.
struct Seen {
    rows: Vec<Row>,
    renewals: Vec<Renewed>,
    balances: Vec<Balance>,
    audited: Audited,
}

fn besiege_village(
    args: &Args,
    table: &Table,
    progress: &Progress,
    village: &mut Village,
    chosen: impl Fn(&str) -> bool,
) -> anyhow::Result<Seen> {
    let mut siege = Siege::new(village)?;
    siege.await_cloud()?;
    progress.tell("readings flow");
    let audit = std::thread::spawn(graded::look(siege.village, args.pcap.is_some())?);
    siege.peace(&BTreeMap::new())?;
    let audited = audit.join().map_err(|_| anyhow::anyhow!("the audit broke off"))?;
    let mut rows: Vec<Row> = Vec::new();
    let attacks: Vec<_> = table.attacks.iter().filter(|a| chosen(&a.name)).collect();
    for (i, attack) in attacks.iter().enumerate() {
        progress.attack(i + 1, attacks.len(), &attack.name, &attack.what);
        let row = siege.run(attack, table).with_context(|| format!("attack {}", attack.name))?;
        progress.outcome(&row);
        rows.push(row);
        if let Some(dead) = siege.village.casualties().into_iter().find(|d| !is_insider(d)) {
            anyhow::bail!("{dead}");
        }
    }
    let renewals = if args.no_renewal {
        Vec::new()
    } else {
        progress.tell("renewing keys while readings flow, and shutting out the stolen nodes");
        renewal::renew(&mut siege)?
    };
    progress.tell("letting the last readings arrive");
    let balances = tables::balance(&mut siege, Duration::from_secs(15))?;
    Ok(Seen { rows, renewals, balances, audited })
}

/// The insider's process stops when its owner turns: that is no casualty.
fn is_insider(words: &str) -> bool {
    words.contains(&format!("{:04x} ended", 0x0101 + INSIDER))
}

/// The operator's word that his own deployment may be attacked: the attackers speak to nobody else.
fn sign_permit(operator: &Operator) -> anyhow::Result<()> {
    let dir = &operator.dir;
    let now = crate::clock::now()?;
    let attacks = each::ALL.iter().map(|attack| attack.name.to_owned()).collect();
    let path = dir.join(PERMIT_FILE);
    Permit::write(&path, &operator.signer()?, range::own::addresses(dir)?, attacks, (now, now + 86_400))?;
    Ok(())
}

fn write_capture(village: &mut Village, path: &std::path::Path) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    for gateway in village.networks.iter_mut().flat_map(|n| &mut n.gateways) {
        gateway.process.stop();
        let part = village.logs.join(format!("{}.pcapng", gateway.name));
        if part.exists() {
            parts.push(part);
        }
    }
    fivefold_gateway::pcap::merge(&parts, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Leaves everything running, with what its user needs beside it: `token` for the API, and `pids` to stop it.
fn leave_running(
    village: &mut Village,
    shore: &mut Shore,
    root: &std::path::Path,
    for_range: bool,
) -> anyhow::Result<()> {
    let mut pids = village.leave_running(for_range)?;
    pids.extend(shore.leave_running(village.ingest, for_range)?);
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    files::write(&root.join("token"), Readers::Owner, village.token.as_bytes())?;
    files::write(&root.join("pids"), Readers::Owner, (pids.join(" ") + "\n").as_bytes())?;
    Ok(())
}

/// What the demo and the range say while they work, on standard error.
#[derive(Debug)]
pub struct Progress {
    lively: bool,
    started: std::time::Instant,
}

impl Progress {
    #[expect(clippy::disallowed_methods, reason = "progress shows how long it took")]
    /// From now on.
    pub fn begin() -> Self {
        Self { lively: std::io::stderr().is_terminal(), started: std::time::Instant::now() }
    }

    /// Says something.
    pub fn tell(&self, what: &str) {
        eprintln!("{:>5.1} s  {what}", self.started.elapsed().as_secs_f32());
    }

    /// An attack begins.
    pub fn attack(&self, i: usize, n: usize, name: &str, what: &str) {
        if self.lively {
            let line = format!("{:>5.1} s  {i:>2}/{n}  {name}: {what} ...", self.started.elapsed().as_secs_f32());
            // A line that wraps cannot be taken back.
            let line: String = line.chars().take(tables::width().saturating_sub(1)).collect();
            eprint!("{line}\r");
        }
    }

    /// What came of it.
    pub fn outcome(&self, row: &Row) {
        let mark = if row.cells.iter().all(siege::Cell::is_as_stated) { "" } else { "  NOT AS STATED" };
        let clear = if self.lively { "\x1b[2K" } else { "" };
        eprintln!("{clear}{:>5.1} s  {:<27} {}{mark}", self.started.elapsed().as_secs_f32(), row.attack, summary(row));
    }
}

/// What an attack obtained, and where: `nothing`, `withholds`, or `reads in e1+e2+e4, e1 only`.
fn summary(row: &Row) -> String {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for cell in &row.cells {
        places.entry(cell.obtained.to_string()).or_default().push(&cell.network);
    }
    if let [only] = places.keys().collect::<Vec<_>>()[..] {
        return only.clone();
    }
    let somewhere = places.iter().filter(|(what, _)| *what != "nothing");
    somewhere.map(|(what, where_)| format!("{what} in {}", where_.join(", "))).collect::<Vec<_>>().join("; ")
}

/// What a network is called in a table: insecure ones say so.
fn title(profile: Profile) -> &'static str {
    if profile == Profile::DangerLinkOnly { "e1 only (INSECURE)" } else { profile.as_str() }
}
