//! `fivefold evidence trust`: what others need to verify this deployment's evidence.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::log_key;
use fivefold_evidence::note::{Kind, VKey};
use fivefold_evidence::trust;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::share::CA_FILE;
use serde_json::json;

use crate::output::{Output, answer};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Written {
    /// The operator's folder, or another one with ca.pem in it.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The log's key, if the cloud's folder is not `cloud` in that folder: as fivefold log show says it.
    #[arg(long, value_name = "VKEY")]
    log: Option<String>,
    /// A witness's key, as the witness says it; once for each key.
    #[arg(long = "witness", required = true, value_name = "VKEY")]
    witnesses: Vec<String>,
    /// How many witnesses must have cosigned; without it, all of them.
    #[arg(long, value_name = "K")]
    need: Option<usize>,
    /// How many of those by ML-DSA-44; without it, one if there is such a key.
    #[arg(long, value_name = "N")]
    pq_need: Option<usize>,
    /// Certificate (PEM) of an authority of timestamps; once for each.
    #[arg(long = "tsa", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Where the trust file goes; without it, to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Written, output: Output) -> anyhow::Result<ExitCode> {
    let ca = files::read_text(&args.dir.join(CA_FILE))?;
    let key = |text: &String| text.parse::<VKey>().with_context(|| format!("`{text}` is no key of a log or witness"));
    let log = match &args.log {
        Some(text) => key(text)?,
        None => log_key::vkey(&args.dir.join("cloud")).with_context(|| {
            format!("{} has no cloud with a log; name the log's key with --log", args.dir.display())
        })?,
    };
    let witnesses = args.witnesses.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&str> = witnesses.iter().map(VKey::name).collect();
    names.sort_unstable();
    names.dedup();
    let has_pq = witnesses.iter().any(|w| w.kind() == Kind::WitnessPq);
    let need = (args.need.unwrap_or(names.len()), args.pq_need.unwrap_or(usize::from(has_pq)));
    let authorities = args.authorities.iter().map(|f| files::read_text(f)).collect::<Result<Vec<_>, _>>()?;
    let text =
        trust::write(&[ca], &log, &witnesses, need, &authorities).context("a trust file cannot be made of this")?;
    let value = json!({ "trust": text, "file": args.out, "need": need.0, "pq_need": need.1 });
    match &args.out {
        None => answer(output, &value, || text.clone()),
        Some(file) => {
            files::write(file, Readers::Everybody, text.as_bytes())?;
            answer(output, &value, || {
                format!(
                    "Wrote {}. Whoever verifies with it believes this operator, this log, and {} of {} witnesses: give it to \
                     people by another way than bundles.",
                    file.display(),
                    need.0,
                    names.len()
                )
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}
