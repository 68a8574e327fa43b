//! The command that runs a year.

use std::process::ExitCode;

use fivefold_sim::year::plan::YearPlan;
use fivefold_sim::year::{Broken, Summary, run as run_year};
use serde_json::json;

use crate::Format;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many devices, in five networks.
    #[arg(long, default_value_t = 1000)]
    devices: usize,
    /// For how many days things break; eight calm ones follow.
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// Everything random comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Days between two rotations of a network's key.
    #[arg(long, default_value_t = 91)]
    rotation: u64,
    /// Tell everything of one device, by its place.
    #[arg(long)]
    follow: Option<usize>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let Args { rotation, follow, .. } = *args;
    let plan = YearPlan { rotation, follow, ..YearPlan::new(args.seed, args.devices, args.days) };
    let came_to = run_year(&plan, |day, so_far| {
        if args.output == Format::Text && (day.is_multiple_of(10) || day == args.days) {
            let started: u64 = so_far.started.values().sum();
            eprintln!("day {day} of {}: {started} runs began, {} ended in new contexts", args.days, so_far.finished);
        }
    });
    match came_to {
        Err(error) => {
            eprintln!("the year of seed {} could not be run: {error:#}", args.seed);
            ExitCode::from(2)
        }
        Ok(Err(broken)) => {
            tell(args, &broken);
            ExitCode::FAILURE
        }
        Ok(Ok(summary)) => {
            print(args, &summary);
            ExitCode::SUCCESS
        }
    }
}

fn again(args: &Args) -> String {
    let Args { devices, days, seed, rotation, .. } = args;
    let witness = if cfg!(feature = "witness") { " --features witness" } else { "" };
    format!(
        "cargo run --release -p fivefold-sim{witness} -- renewal --devices {devices} --days {days} --rotation {rotation} \
         --seed {seed}"
    )
}

fn tell(args: &Args, broken: &Broken) {
    let Broken { seed, what, at, story } = broken;
    if args.output == Format::Json {
        let whole = json!({ "seed": seed, "promise": what, "at_ms": at, "again": again(args), "story": story });
        return println!("{whole:#}");
    }
    for line in story {
        println!("  {line}");
    }
    println!("SIM_SEED={seed} broke promise {what}, on day {:.2}", *at as f64 / 86_400_000.0);
    println!("  {}", again(args));
}

fn print(args: &Args, s: &Summary) {
    let started: u64 = s.started.values().sum();
    let mean = s.took.0 / s.finished.max(1);
    let [honest, hostile] = &s.readings.lost;
    if args.output == Format::Json {
        let whole = json!({
            "seed": args.seed, "devices": args.devices, "days": args.days,
            "renewals": {
                "started": s.started, "finished": s.finished, "failed": s.failed, "mean_ms": mean,
                "longest_ms": s.took.1, "most_under_way": s.most_under_way, "most_asked_at_a_gateway": s.most_asked,
                "most_pending_of_a_device": s.most_pending,
            },
            "readings": {
                "taken": s.readings.taken, "stored": s.readings.stored, "not_taken": s.not_taken,
                "lost_behind_honest_gateways": honest, "lost_behind_hostile_gateways": hostile,
                "most_posted_at_a_time": s.most_posted, "longest_silence_ms": s.longest_silence,
            },
            "rotations": s.rotations.0, "revoked": s.rotations.1, "frames_shut_out": s.shut_out, "broke": s.broke, "frames": s.frames.0,
            "frames_lost": s.frames.1, "deeds_of_hostile_gateways": s.deeds, "nonces_watched": s.seals_watched, "refused": s.refused,
            "lasted_ms": s.lasted, "digest": format!("{:016x}", s.digest), "broken": null,
        });
        return println!("{whole:#}");
    }
    let list = |of: Vec<String>| if of.is_empty() { "none".to_owned() } else { of.join(", ") };
    let told = |of: &std::collections::BTreeMap<&'static str, u64>| {
        list(of.iter().map(|(what, n)| format!("{what}: {n}")).collect())
    };
    let counted =
        |of: &std::collections::BTreeMap<String, u64>| list(of.iter().map(|(what, n)| format!("{what} {n}")).collect());
    println!("seed {}: {} devices, {} days", args.seed, args.devices, args.days);
    println!("runs begun: {started} ({})", counted(&s.started));
    println!("runs that ended in new contexts: {}; failed: {}", s.finished, counted(&s.failed));
    println!(
        "from the first message of a renewal to new contexts: {:.1} s on average, {:.1} h at most",
        mean as f64 / 1000.0,
        s.took.1 as f64 / 3_600_000.0
    );
    println!(
        "at most at a time: {} devices with a run under way, {} messages of EDHOC waiting at one gateway, {} pending \
         contexts of one device, {} envelopes handed on by one gateway",
        s.most_under_way, s.most_asked, s.most_pending, s.most_posted
    );
    println!(
        "network keys rotated: {}; nodes stolen and revoked: {}, {} frames of whom E1 refused in the end",
        s.rotations.0, s.rotations.1, s.shut_out
    );
    println!(
        "readings taken: {}, stored: {}; not taken for want of room or keys: {}",
        s.readings.taken, s.readings.stored, s.not_taken
    );
    println!("lost behind honest gateways: {}", told(honest));
    println!("lost behind hostile gateways, and of stolen nodes: {}", told(hostile));
    println!("longest time without an acknowledgement: {:.1} h", s.longest_silence as f64 / 3_600_000.0);
    println!("what broke: {}; hostile gateways meddled {} times", told(&s.broke), s.deeds);
    println!("frames and datagrams: {}, lost {}", s.frames.0, s.frames.1);
    println!("refused: {}", told(&s.refused));
    if !s.seals_watched {
        println!("nonces were not watched: build with --features witness for that");
    }
    println!("every promise was kept (digest {:016x})", s.digest);
}
