//! `fivefold cloud limits`: what the cloud keeps, and what it takes of its disk.

use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_cloud::config::Config;
use fivefold_cloud::limits::{Part, Space, disk, time};
use fivefold_cloud::store::Reader;
use fivefold_core::time::Millis;
use fivefold_keep::files;
use serde_json::json;

use crate::clock;
use crate::output::{Output, answer, table};

const MIB: u64 = 1 << 20;

/// Arguments of `fivefold cloud limits`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The cloud's folder, with cloud.toml: DIR/cloud after `fivefold init DIR`.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command. The cloud may run meanwhile, and need not.
///
/// # Errors
/// One sentence about what cannot be read.
pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.dir)?;
    let reader = Reader::open(&config.store)?;
    let policy = config.limits;
    let beside = disk::beside(&config.folder, &config.store);
    let space = Space { store: reader.taken()?, beside, free: files::free(&config.folder)? };
    let (used, free, spare) = (space.used(), space.free, space.store.spare);
    let full = policy.room(space, false).err();
    let now = Millis(clock::now()?.saturating_mul(1000));
    // Where there is no reading yet, nothing is held.
    let ages = reader.newest_heard()?.map(|heard| time(now, Some(heard))).filter(|ages| *ages < now);
    let parts = Part::ALL.into_iter().map(|part| reader.part(part)).collect::<Result<Vec<_>, _>>()?;
    let shown = parts.iter().map(|p| {
        let limit = policy.limit(p.part);
        json!({ "part": p.part.as_str(), "rows": p.rows, "bytes": p.bytes, "oldest_ms": p.oldest.map(|at| at.0),
                "max_age_ms": limit.age, "max_bytes": limit.bytes, "pruned": p.pruned,
                "pruned_before_ms": p.till.map(|at| at.0) })
    });
    let value = json!({ "used_bytes": used, "beside_bytes": beside, "max_bytes": policy.disk, "free_bytes": free, "spare_bytes": spare, "keep_free_bytes": policy.keep_free,
                        "full": full.map(|full| full.to_string()), "ages_held_at_ms": ages.map(|at| at.0), "parts": shown.collect::<Vec<_>>() });
    answer(output, &value, || {
        let mut t = table(&["PART", "ROWS", "KIB", "OLDEST", "LIMIT", "PRUNED"]);
        for p in &parts {
            t.add_row([
                p.part.to_string(),
                p.rows.to_string(),
                p.bytes.div_ceil(1024).to_string(),
                p.oldest.map_or("-".into(), |at| clock::minute(at.0 / 1000)),
                policy.limit(p.part).to_string(),
                p.pruned.to_string(),
            ]);
        }
        let of = policy.disk.map_or(String::new(), |most| format!(" of {}", most / MIB));
        let (used, beside, free, spare) = (used / MIB, beside / MIB, free / MIB, spare / MIB);
        let takes = format!(
            "The cloud takes {used}{of} MiB of its disk, {beside} of them beside the store. The disk has {free} MiB free, and the \
             store's file {spare} more."
        );
        let full = full.map_or(String::new(), |full| format!("\nNo room: {full}."));
        let held = ages.map_or(String::new(), |at| {
            format!(
                "\nPruning by age is held at {}, a day after the newest reading, until a newer one comes; is the clock right?",
                clock::minute(at.0 / 1000)
            )
        });
        format!("{}\n\n{takes}{full}{held}", t.trim_fmt())
    });
    Ok(if full.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
