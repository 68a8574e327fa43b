//! Runs villages from seeds, and says which of them broke a promise; years of renewals; every course of events up to a depth;
//! processes that are killed; and evidence, for verifiers to agree on.
//!
//! `cargo run --release -p fivefold-sim --features witness -- --seeds 1000`
//! `cargo run --release -p fivefold-sim -- --bundles FOLDER --number 1000`
//! `cargo run --release -p fivefold-sim -- renewal --devices 1000 --days 365 --seed 1`
//! `cargo run --release -p fivefold-sim --features witness -- states renewal`
//! `cargo run --release -p fivefold-sim --features witness -- kill --kills 100`

mod bundles;
#[cfg(feature = "witness")]
mod kill;
mod renewal;
#[cfg(feature = "witness")]
mod states;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, Subcommand, ValueEnum};
use fivefold_sim::world::Batches;
use fivefold_sim::{Broken, Plan, Summary, run};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Processes of a village are killed at random moments under load, and what they left is looked at
    #[cfg(feature = "witness")]
    Kill(kill::Args),
    /// A year of renewals and of rotations of network keys, in one process
    Renewal(renewal::Args),
    /// Every course of events up to a depth, and broken variants that must be found
    #[cfg(feature = "witness")]
    States(states::Args),
}

#[derive(Debug, Parser)]
#[command(about = "Run the engines in villages made of seeds, under loss, reboots and a hostile gateway")]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many villages.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// For how many virtual seconds things break in each, in place of what the seed says.
    #[arg(long)]
    seconds_virtual: Option<u64>,
    /// Nodes sign their readings in batches, and what becomes of every batch is looked at.
    #[arg(long)]
    signing: bool,
    /// Write bundles of evidence into this folder: of readings that nodes of such villages signed, from the stores and logs
    /// of their clouds; three of ten are made to be refused.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["seeds", "seconds_virtual"])]
    bundles: Option<PathBuf>,
    /// How many bundles.
    #[arg(long, default_value_t = 1000, requires = "bundles")]
    number: usize,
    /// Villages at a time; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Default)]
struct Totals {
    done: u64,
    broken: Vec<Broken>,
    errors: Vec<String>,
    sent: usize,
    acknowledged: usize,
    stored: usize,
    reboots: u64,
    frames: u64,
    forwarded: u64,
    commands: usize,
    batches: Batches,
    hours: f64,
    refused: BTreeMap<&'static str, u64>,
    watched: bool,
}

impl Totals {
    fn add(&mut self, s: &Summary) {
        self.sent += s.sent;
        self.acknowledged += s.acknowledged;
        self.stored += s.stored;
        self.reboots += s.reboots;
        self.frames += s.frames;
        self.forwarded += s.forwarded;
        self.commands += s.commands;
        self.batches.add(&s.batches);
        self.hours += s.lasted as f64 / 3_600_000.0;
        self.watched |= s.seals_watched;
        for (code, n) in &s.refused {
            *self.refused.entry(code).or_default() += n;
        }
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "witness")]
    {
        let arguments: Vec<_> = std::env::args_os().collect();
        if kill::is_process(&arguments) {
            return kill::process(arguments);
        }
    }
    let args = Args::parse();
    match &args.command {
        #[cfg(feature = "witness")]
        Some(Command::Kill(args)) => return kill::run(args),
        #[cfg(feature = "witness")]
        Some(Command::States(args)) => return states::run(args),
        Some(Command::Renewal(_)) | None => {}
    }
    #[cfg(feature = "witness")]
    fivefold_core::suite::set_seal_witness(fivefold_sim::watch::sealed);
    if let Some(Command::Renewal(args)) = &args.command {
        return renewal::run(args);
    }
    if let Some(folder) = &args.bundles {
        return bundles::run(folder, args.number, args.start, jobs(&args));
    }
    let totals = all(&args);
    print(&args, &totals);
    match (totals.broken.is_empty(), totals.errors.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(2),
    }
}

fn jobs(args: &Args) -> usize {
    args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1).max(1)
}

fn all(args: &Args) -> Totals {
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs(args) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= args.seeds {
                        return;
                    }
                    let seed = args.start.wrapping_add(n);
                    let mut plan = if args.signing { Plan::signing(seed) } else { Plan::random(seed) };
                    if let Some(seconds) = args.seconds_virtual {
                        plan.storm = seconds * 1000;
                    }
                    let came_to = run(&plan);
                    let Ok(mut totals) = totals.lock() else { return };
                    totals.done += 1;
                    match came_to {
                        Ok(Ok(summary)) => totals.add(&summary),
                        Ok(Err(broken)) => {
                            tell(args, &broken);
                            totals.broken.push(*broken);
                        }
                        Err(error) => totals.errors.push(format!("seed {}: {error:#}", plan.seed)),
                    }
                    if args.output == Format::Text && totals.done.is_multiple_of(100) {
                        eprintln!("{} of {} villages, {} broken", totals.done, args.seeds, totals.broken.len());
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_default()
}

fn tell(args: &Args, broken: &Broken) {
    if args.output == Format::Json {
        return;
    }
    println!("SIM_SEED={} broke promise {} after {:.3} s", broken.seed, broken.what, broken.at as f64 / 1000.0);
    println!("  {}", again(args, broken.seed));
    println!("  {:?}", broken.plan);
    for line in &broken.story {
        println!("  {line}");
    }
}

fn again(args: &Args, seed: u64) -> String {
    let seconds = args.seconds_virtual.map_or(String::new(), |s| format!(" --seconds-virtual {s}"));
    let signing = if args.signing { " --signing" } else { "" };
    let witness = if cfg!(feature = "witness") { " --features witness" } else { "" };
    format!("cargo run --release -p fivefold-sim{witness} -- --start {seed} --seeds 1{seconds}{signing}")
}

fn print(args: &Args, t: &Totals) {
    if args.output == Format::Json {
        let broken: Vec<_> = t
            .broken
            .iter()
            .map(|b| json!({"seed": b.seed, "promise": b.what, "at_ms": b.at, "again": again(args, b.seed), "story": b.story}))
            .collect();
        let whole = json!({
            "villages": t.done, "virtual_hours": t.hours, "readings": t.sent, "acknowledged": t.acknowledged,
            "stored": t.stored, "reboots": t.reboots, "frames": t.frames, "forwarded": t.forwarded,
            "commands": t.commands,
            "batches": {
                "complete": t.batches.complete, "recovered": t.batches.recovered, "given_up": t.batches.given_up,
                "lost_with_power": t.batches.lost, "readings_signed": t.batches.readings,
            },
            "refused": t.refused, "nonces_watched": t.watched,
            "broken": broken, "errors": t.errors,
        });
        println!("{whole:#}");
        return;
    }
    for error in &t.errors {
        println!("{error}");
    }
    println!(
        "{} villages, {:.0} virtual hours: {} readings taken, {} acknowledged, {} rows stored, {} reboots, {} commands",
        t.done, t.hours, t.sent, t.acknowledged, t.stored, t.reboots, t.commands
    );
    let b = &t.batches;
    println!(
        "{} readings signed; {} batches complete, {} completed by recovery, {} given up (EV-03), {} lost with the power of their \
         node",
        b.readings, b.complete, b.recovered, b.given_up, b.lost
    );
    println!("{} frames on the air, {} of them sent on by relays", t.frames, t.forwarded);
    let refused: Vec<String> = t.refused.iter().map(|(code, n)| format!("{code} {n}")).collect();
    println!("refused: {}", refused.join(", "));
    if !t.watched {
        println!("nonces were not watched: build with --features witness for that");
    }
    match t.broken.len() {
        0 if t.errors.is_empty() => println!("every promise was kept"),
        0 => println!("{} villages could not be run", t.errors.len()),
        n => println!("{n} villages broke a promise: {:?}", t.broken.iter().map(|b| b.seed).collect::<Vec<_>>()),
    }
}
