//! `fivefold log monitor`: one look at a log, or one every so often, with a memory in a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_evidence::monitor::{Finding, Look, Memory, Monitor};
use fivefold_evidence::note::VKey;
use fivefold_keep::files::{self, Readers};
use serde_json::{Value, json};

use super::remote::Source;
use super::vkey;
use crate::clock;
use crate::output::{Output, answer};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The log's key, as `fivefold log show` prints it: from its operator, not from the log.
    #[arg(long = "log", value_name = "VKEY", value_parser = vkey)]
    log: VKey,
    /// Key of a witness that must not be missing for a day. Repeat for more.
    #[arg(long = "witness", value_name = "VKEY", value_parser = vkey)]
    witnesses: Vec<VKey>,
    /// What this monitor remembers: without it nothing is compared with what was shown before.
    #[arg(long, value_name = "FILE", default_value = "log-monitor.toml")]
    memory: PathBuf,
    /// Look again after so many seconds, until something is wrong.
    #[arg(long, value_name = "SECONDS")]
    every: Option<u64>,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let files = args.source.open()?;
    let memory = if args.memory.exists() {
        let text = files::read_text(&args.memory)?;
        Memory::parse(&text).with_context(|| format!("{}: keep it, and ask who changed it", args.memory.display()))?
    } else {
        Memory::default()
    };
    let mut monitor = Monitor::new(args.log.clone(), args.witnesses.clone(), memory)
        .with_context(|| format!("{} is about another log", args.memory.display()))?;
    loop {
        let look = match monitor.look(&files, clock::now()?) {
            Ok(look) => look,
            Err(error) if args.every.is_some() => {
                eprintln!("fivefold: {error}");
                pause(args.every);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        files::write(&args.memory, Readers::Owner, monitor.memory().to_string().as_bytes())?;
        let kept = keep_forks(&args.memory, &look)?;
        answer(output, &shown(&look, &kept), || words(&look, &kept));
        if !look.findings.is_empty() {
            return Ok(ExitCode::from(1));
        }
        if args.every.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
        pause(args.every);
    }
}

fn pause(every: Option<u64>) {
    std::thread::sleep(Duration::from_secs(every.unwrap_or(0).max(1)));
}

/// Both heads of a fork in a file beside the memory: the proof, for whoever is to be shown it.
fn keep_forks(memory: &Path, look: &Look) -> anyhow::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for finding in &look.findings {
        let Finding::Fork { before, now, .. } = finding else { continue };
        let path = memory.with_extension(format!("fork-{}", now.unverified().size));
        files::write(&path, Readers::Owner, format!("{before}\n{now}").as_bytes())?;
        kept.push(path);
    }
    Ok(kept)
}

fn shown(look: &Look, kept: &[PathBuf]) -> Value {
    let head = look.checkpoint.unverified();
    let findings: Vec<_> = look
        .findings
        .iter()
        .map(|f| json!({ "code": "EV-05", "severity": f.severity().as_str(), "text": f.to_string() }))
        .collect();
    let witnesses: Vec<_> = look.witnesses.iter().map(|(name, at)| json!({ "name": name, "time": at })).collect();
    json!({
        "origin": head.origin, "size": head.size, "root": head.root.to_string(), "witnesses": witnesses,
        "strangers": look.strangers, "findings": findings, "proofs": kept,
    })
}

fn words(look: &Look, kept: &[PathBuf]) -> String {
    let head = look.checkpoint.unverified();
    let mut text = format!("{}: {} entries, root {}.", head.origin, head.size, head.root);
    for (name, at) in &look.witnesses {
        text += &format!("\nCosigned by {name}, {}.", clock::text(*at));
    }
    if !look.strangers.is_empty() {
        text += &format!("\nSignatures of keys that are not pinned, not checked: {}.", look.strangers.join(", "));
    }
    if look.findings.is_empty() {
        text += "\nIt goes on from what it showed before.";
    }
    for finding in &look.findings {
        text += &format!("\nEV-05 ({}): {finding}.", finding.severity().as_str());
    }
    for path in kept {
        text += &format!("\nBoth signed heads are in {}: with the log's key they prove it to anybody.", path.display());
    }
    text
}
