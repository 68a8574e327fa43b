//! Models of renewal, rotation and nonces over the engines themselves: everything within bounds is looked at, and each
//! broken variant must be found.
//!
//! `cargo run --release -p fivefold-sim --features witness -- states [MODEL] [--deeper N]`

use std::process::ExitCode;
use std::time::Instant;

use fivefold_sim::model::cases::{CASES, Case};
use fivefold_sim::model::explore::{Reach, Violation};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One model: its name begins so.
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// So many moves more than usual, or fewer; each takes about five times as long as the one before.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    deeper: isize,
    /// Tells how each broken variant was found.
    #[arg(long)]
    story: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    fivefold_core::suite::set_seal_witness(fivefold_sim::model::seals::sealed);
    let chosen: Vec<&Case> =
        CASES.iter().filter(|c| args.model.as_ref().is_none_or(|m| c.name.starts_with(m.as_str()))).collect();
    if chosen.is_empty() {
        let names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        eprintln!("no such model; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut is_well = true;
    for case in chosen {
        match look(case, args) {
            Ok(well) => is_well &= well,
            Err(error) => {
                eprintln!("{}: {error:#}", case.name);
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(!is_well))
}

#[expect(clippy::disallowed_methods, reason = "says how long it took")]
fn look(case: &Case, args: &Args) -> anyhow::Result<bool> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{}: {}", case.name, case.about);
    let began = Instant::now();
    let looked = case.look(Reach { depth: case.depth.saturating_add_signed(args.deeper), threads })?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "  {} states, {} moves, depth {}, a fair course from each: {}  ({seconds:.1} s)",
        looked.states,
        looked.moves,
        looked.levels.len().saturating_sub(1),
        if looked.violation.is_none() { "every promise is kept" } else { "BROKEN" },
    );
    let mut is_well = looked.violation.is_none();
    if let Some(violation) = &looked.violation {
        tell(violation);
    }
    for &(flaw, depth, faults) in case.flaws {
        let looked = case.find(flaw, depth, faults, threads)?;
        match &looked.violation {
            Some(violation) => {
                let after = match violation.moves {
                    0 => "though nothing else breaks".into(),
                    n => format!("after {n} moves"),
                };
                println!("  found: {flaw}: {after}, {}", violation.what);
                if args.story {
                    tell(violation);
                }
            }
            None => {
                println!("  NOT FOUND within {depth} moves, {} states: {flaw}", looked.states);
                is_well = false;
            }
        }
    }
    Ok(is_well)
}

fn tell(violation: &Violation) {
    println!("    {} moves to: {}", violation.moves, violation.what);
    violation.story.iter().for_each(|line| println!("    {line}"));
}
