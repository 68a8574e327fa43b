//! `fivefold log check`: all static files of a log, from the first entry to the signed head.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_evidence::checkpoint::Signed;
use fivefold_evidence::monitor::{self, CheckError};
use fivefold_evidence::note::VKey;
use fivefold_evidence::tile::FetchError;
use serde_json::json;

use super::remote::Source;
use super::vkey;
use crate::output::{Output, answer};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The log's key, as `fivefold log show` prints it: from its operator, not from the log.
    #[arg(long = "log", value_name = "VKEY", value_parser = vkey)]
    log: VKey,
    /// A head that the log showed earlier (a signed note), which must be its beginning. Repeat for more.
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let before = args.since.iter().map(|path| {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Signed::parse(&bytes).with_context(|| format!("{} is no signed head", path.display()))
    });
    let before = before.collect::<anyhow::Result<Vec<_>>>()?;
    let files = args.source.open()?;
    match monitor::check(&files, &args.log, &before) {
        Ok((signed, checked)) => {
            let head = signed.unverified();
            let value = json!({
                "holds": true, "origin": head.origin, "size": head.size, "root": head.root.to_string(),
                "entries": checked.entries, "others": checked.others, "tiles": checked.tiles, "since": before.len(),
            });
            answer(output, &value, || {
                let kinds: Vec<_> = checked.entries.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
                let kinds = if kinds.is_empty() { "none".into() } else { kinds.join(", ") };
                format!(
                    "{}: all {} entries are those of the signed head ({kinds}; {} of other kinds), by {} tiles of hashes.\n\
                     Root {}. {} earlier heads are its beginnings.",
                    head.origin,
                    head.size,
                    checked.others,
                    checked.tiles,
                    head.root,
                    before.len()
                )
            });
            Ok(ExitCode::SUCCESS)
        }
        // Nobody answered: that says nothing of the log.
        Err(CheckError::Fetch(error @ FetchError::Failed { .. })) => Err(error.into()),
        Err(wrong) => {
            answer(output, &json!({ "holds": false, "reason": wrong.to_string() }), || {
                format!("The log does not hold: {wrong}.")
            });
            Ok(ExitCode::from(1))
        }
    }
}
