//! Kills gateways, the cloud and nodes (SIGKILL) at random moments under load, and then looks at what they left:
//!
//! 1. every reading that a node saw acknowledged is stored, and none is stored twice;
//! 2. nothing is stored that no node made, although what is on the air is replayed all the time to everybody;
//! 3. no process ever sealed two messages under one key and nonce: each writes a fingerprint of key and nonce to a file
//!    before it seals, and all files are compared at the end.
//!
//! `cargo run --release -p fivefold-sim --features witness -- kill --kills 100`
//!
//! The processes are this very program, which behaves as `fivefold` when it is started with its arguments.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold::api::Api;
use fivefold::attack::air::{Transmitter, recorded};
use fivefold::attack::door::Door;
use fivefold::demo::processes::Process;
use fivefold::demo::siege::key_of;
use fivefold::demo::village::{Said, Village};
use fivefold_core::profile::Profile;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::Value;

/// File of fingerprints in the folder of each process.
const SEALS: &str = "seals.witness";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many kills.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// At least so many seconds of killing; more kills then.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Which random moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between two readings of a node.
    #[arg(long, default_value_t = 0.4)]
    every: f64,
    /// Folder to work in; a temporary one if not given. It stays when something is wrong.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Whether this is a process of the test, which is started with the words of `fivefold`.
pub(crate) fn is_process(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|first| first == "-o" || first == "attack")
}

/// `fivefold`, each of whose seals is told to a file.
pub(crate) fn process(arguments: Vec<OsString>) -> ExitCode {
    witness(&arguments);
    fivefold::main(arguments)
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match test(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill: {error:#}");
            ExitCode::from(2)
        }
    }
}

static FINGERPRINTS: OnceLock<File> = OnceLock::new();

/// From now on every seal of this process is told to its file first.
fn witness(arguments: &[OsString]) {
    let folder = arguments.iter().skip_while(|a| *a != "--dir").nth(1);
    let Some(folder) = folder else { return };
    let path = Path::new(folder).join(SEALS);
    if let Ok(file) = File::options().create(true).append(true).open(path) {
        let _ = FINGERPRINTS.set(file);
        fivefold_core::suite::set_seal_witness(|nonce, plaintext| {
            let mut line = [0u8; 64];
            let (first, second) = line.split_at_mut(32);
            first.copy_from_slice(nonce);
            second.copy_from_slice(plaintext);
            // Who cannot be watched must not seal.
            if FINGERPRINTS.get().is_some_and(|mut f| f.write_all(&line).is_err()) {
                std::process::abort();
            }
        });
    }
}

fn test(args: &Args) -> anyhow::Result<bool> {
    let temporary;
    let root = match &args.folder {
        Some(folder) => folder.as_path(),
        None => {
            temporary = tempfile::Builder::new().prefix("fivefold-kill-").tempdir()?.keep();
            temporary.as_path()
        }
    };
    let started = now();
    let say = |text: &str| eprintln!("{:>6.1} s  {text}", started.elapsed().as_secs_f32());
    say(&format!("seed {}, folder {}", args.seed, root.display()));
    let mut village = Village::start(root, false, args.every, |what| say(what))?;
    let api =
        Api::new(&village.dir.join("ca.pem"), &format!("https://localhost:{}", village.api.port()), &village.token)?;
    wait_for(&api, &mut village)?;
    let replayer = Replayer::start(&village, args.seed);
    let kills = kill(args, &mut village, &say)?;
    let replays = replayer.finish();
    say("healing: everything may arrive now");
    let verdict = heal(&api, &mut village)?;
    let seals = check_seals(&village)?;
    say(&format!(
        "{kills} kills, {replays} frames replayed meanwhile; {} readings made, {} acknowledged, {} stored; {} seals under as many nonces",
        verdict.made, verdict.acknowledged, verdict.stored, seals.seen
    ));
    let mut good = true;
    for (what, n) in [
        ("acknowledged and not stored", verdict.lost),
        ("stored twice", verdict.doubled),
        ("stored and made by no node", verdict.invented),
        ("nonces used twice under one key", seals.repeated),
    ] {
        say(&format!("{n} {what}"));
        good &= n == 0;
    }
    good &= seals.seen > 0 && replays > 0;
    drop(village);
    if good && args.folder.is_none() {
        let _ = std::fs::remove_dir_all(root);
    } else if !good {
        say(&format!("FAILED with seed {}; the evidence is in {}", args.seed, root.display()));
    }
    Ok(good)
}

/// Kills until enough is killed. Returns how often.
fn kill(args: &Args, village: &mut Village, say: &impl Fn(&str)) -> anyhow::Result<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let until = now() + Duration::from_secs(args.seconds);
    let mut kills = 0;
    while kills < args.kills || now() < until {
        std::thread::sleep(Duration::from_millis(u64::from(random.next_u32() % 300)));
        let process = pick(village, random.next_u32());
        let down = Duration::from_millis(u64::from(random.next_u32() % 400));
        process.kill();
        std::thread::sleep(down);
        process.resume()?;
        kills += 1;
        if kills % 20 == 0 {
            say(&format!("{kills} kills"));
        }
    }
    Ok(kills)
}

/// Sends what the ears recorded to gateways and nodes again, all the time: whoever just started is not to believe it.
struct Replayer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Replayer {
    /// Frames that one receiver gets at once: the newest ones, and as many from anywhere.
    const AT_ONCE: usize = 40;

    fn start(village: &Village, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let targets: Vec<(PathBuf, Vec<SocketAddr>)> = village
            .networks
            .iter()
            .map(|n| {
                let gateways = n.gateways.iter().map(|g| g.station.addr);
                (n.recording.clone(), gateways.chain(n.nodes.iter().map(|n| n.station.addr)).collect())
            })
            .collect();
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5EED);
            let mut sent = 0;
            let Ok(mut radio) = Transmitter::new(Door::Loopback) else { return 0 };
            while !ended.load(Ordering::Relaxed) {
                let which = random.next_u32() as usize;
                let Some((recording, stations)) = targets.get(which % targets.len().max(1)) else { return sent };
                let heard = recorded(recording).unwrap_or_default();
                let Some(station) = stations.get(random.next_u32() as usize % stations.len().max(1)) else { continue };
                let newest = heard.iter().rev().take(Self::AT_ONCE).rev();
                let any = (0..Self::AT_ONCE).filter_map(|_| heard.get(random.next_u32() as usize % heard.len().max(1)));
                for frame in newest.chain(any) {
                    sent += u64::from(radio.send(*station, &frame.bytes()).is_ok());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            sent
        });
        Self { stop, thread }
    }

    /// Ends it, and says how many frames it sent.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0)
    }
}

/// The cloud one time in five, a gateway two times, a node two times.
fn pick(village: &mut Village, random: u32) -> &mut Process {
    let (kind, which) = (random % 5, (random / 5) as usize);
    if kind > 0 {
        let mut some: Vec<&mut Process> = Vec::new();
        for network in &mut village.networks {
            if kind <= 2 {
                some.extend(network.gateways.iter_mut().map(|g| &mut g.process));
            } else {
                some.extend(network.nodes.iter_mut().map(|n| &mut n.process));
            }
        }
        let len = some.len().max(1);
        if let Some(process) = some.into_iter().nth(which % len) {
            return process;
        }
    }
    &mut village.cloud
}

fn wait_for(api: &Api, village: &mut Village) -> anyhow::Result<()> {
    for _ in 0..300 {
        if api.fetch("/v1/health").is_ok() {
            return Ok(());
        }
        if let Some(last_words) = village.casualties().into_iter().next() {
            anyhow::bail!("{last_words}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the cloud does not come up; see {}", village.logs.display())
}

#[derive(Debug, Default)]
struct Verdict {
    made: usize,
    acknowledged: usize,
    stored: usize,
    lost: usize,
    doubled: usize,
    invented: usize,
}

/// Lets everything arrive, and counts.
fn heal(api: &Api, village: &mut Village) -> anyhow::Result<Verdict> {
    wait_for(api, village)?;
    let until = now() + Duration::from_secs(45);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let verdict = judge(api, village)?;
        if verdict.lost == 0 || now() > until {
            // Once more: nothing may come twice later. What a gateway acknowledged in this moment may be in its store still,
            // on the way to the cloud.
            std::thread::sleep(Duration::from_secs(3));
            let verdict = judge(api, village)?;
            if verdict.lost == 0 || now() > until {
                return Ok(verdict);
            }
        }
    }
}

fn judge(api: &Api, village: &Village) -> anyhow::Result<Verdict> {
    // What nodes said is read first: what is acknowledged by then must be found.
    let mut made = 0;
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for network in &village.networks {
        for node in &network.nodes {
            let (did, said) = (node.did.to_string(), node.said());
            made += said.readings.len();
            if network.profile != Profile::DangerLinkOnly {
                acknowledged
                    .extend(said.delivered.iter().filter(|n| said.readings.contains_key(n)).map(|n| (did.clone(), *n)));
            }
        }
    }
    let mut stored: HashMap<(String, u64), usize> = HashMap::new();
    let mut verdict = Verdict { made, acknowledged: acknowledged.len(), ..Verdict::default() };
    let mut shown: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.fetch(&format!("/v1/readings?limit=1000{cursor}"))?;
        let readings = page.get("readings").and_then(Value::as_array).context("the API gave no readings")?;
        shown.extend(readings.iter().cloned());
        match page.get("next").and_then(Value::as_i64) {
            Some(next) if !readings.is_empty() => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    // And what they said since is read last: what is stored by now must have been made by one of them.
    let all = village.networks.iter().flat_map(|n| &n.nodes);
    let nodes: HashMap<String, Said> = all.map(|n| (n.did.to_string(), n.said())).collect();
    for reading in &shown {
        let key = key_of(reading);
        verdict.invented += usize::from(!nodes.get(&key.0).is_some_and(|n| n.made(key.1, reading)));
        *stored.entry(key).or_default() += 1;
    }
    verdict.stored = stored.len();
    verdict.doubled = stored.values().filter(|n| **n > 1).count();
    verdict.lost = acknowledged.iter().filter(|key| !stored.contains_key(key)).count();
    Ok(verdict)
}

#[derive(Debug, Default)]
struct Seals {
    seen: usize,
    repeated: usize,
}

/// Compares the fingerprints of all processes.
fn check_seals(village: &Village) -> anyhow::Result<Seals> {
    let mut folders = vec![village.dir.join("cloud")];
    for network in &village.networks {
        folders.extend(network.gateways.iter().map(|g| g.folder.clone()));
        folders.extend(network.nodes.iter().map(|n| n.folder.clone()));
    }
    let mut seen: HashSet<[u8; 32]> = HashSet::new();
    let mut seals = Seals::default();
    for folder in folders {
        let path = folder.join(SEALS);
        let bytes = std::fs::read(&path).with_context(|| format!("no fingerprints in {}", path.display()))?;
        for line in bytes.chunks_exact(64) {
            let Some((nonce, _)) = line.split_first_chunk::<32>() else { continue };
            seals.seen += 1;
            if !seen.insert(*nonce) {
                seals.repeated += 1;
                eprintln!("          a nonce was used twice under one key; the second time by {}", folder.display());
            }
        }
    }
    Ok(seals)
}

#[expect(clippy::disallowed_methods, reason = "the test kills real processes in real time")]
fn now() -> Instant {
    Instant::now()
}
