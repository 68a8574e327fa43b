//! `fivefold operator log`: who did what to this deployment, when, and from where.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::log_key::{self, LOG_FOLDER};
use fivefold_evidence::deeds::{Compared, compare};
use fivefold_evidence::log::Entry;
use fivefold_evidence::monitor;
use fivefold_evidence::tile::{Directory, FetchError};
use fivefold_keep::acts::{self, Act};
use fivefold_keep::registry::{Line, Registry};
use fivefold_keep::share::GATEWAY_FILE;
use serde_json::{Value, json};

use super::{Folder, REGISTRY_FILE};
use crate::clock;
use crate::output::{Output, answer, table};

/// Arguments of `fivefold operator`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Show the operator's log: who did what, when, from where. With --check: whether each line is the one that the evidence
    /// log has the hash of; exit code 1 when one is not.
    Log(Log),
}

#[derive(Clone, Debug, clap::Args)]
struct Log {
    #[command(flatten)]
    folder: Folder,
    /// Show lines of this time and later: a day (2026-11-01), or a time (2026-11-01T08:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = clock::parse)]
    since: Option<u64>,
    /// Check all lines: that each follows from the one before, that each change of the book has one, and that they hash to what
    /// the cloud's evidence log has.
    #[arg(long)]
    check: bool,
    /// The cloud's folder, if it is not `cloud` in the operator's.
    #[arg(long, value_name = "DIR", requires = "check")]
    cloud: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The folder is none, or the log cannot be read.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let Verb::Log(args) = &args.verb;
    if args.folder.dir.join(GATEWAY_FILE).exists() {
        return at_gateway(args, output);
    }
    args.folder.ensure()?;
    let book = Registry::open_read_only(&args.folder.dir.join(REGISTRY_FILE))?;
    let (lines, wrong) = book.check_deeds()?;
    let checked = if args.check { Some(against_log(args, &lines, wrong)?) } else { None };
    let shown: Vec<&Line> = lines.iter().filter(|l| args.since.is_none_or(|since| l.at >= since)).collect();
    let check = checked
        .as_ref()
        .map(|c| json!({ "holds": c.wrong.is_empty(), "logged": c.logged, "waiting": c.waiting, "wrong": c.wrong }));
    let value = json!({ "lines": shown.iter().map(|l| json_of(l)).collect::<Vec<_>>(), "check": check });
    answer(output, &value, || {
        let mut text = text_of(&shown);
        if let Some(checked) = &checked {
            text += &verdict(checked, lines.len());
        }
        text
    });
    Ok(if checked.is_none_or(|c| c.wrong.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was done in a gateway's folder.
fn at_gateway(args: &Log, output: Output) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!args.check, "the lines of a gateway are in no evidence log; leave --check out");
    let mut acts = acts::read(&args.folder.dir)?;
    acts.retain(|act| args.since.is_none_or(|since| act.at >= since));
    answer(output, &json!({ "lines": acts, "check": null }), || {
        let mut t = table(&["WHEN", "WHO", "FROM", "BY", "WHAT", "TO"]);
        for act in &acts {
            let Act { at, who, place, command, done, about } = act;
            t.add_row([&clock::text(*at), who, place, command, done, about]);
        }
        if acts.is_empty() { "Nothing was done.".into() } else { crate::output::printable(&t.trim_fmt()) }
    });
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with lines in themselves, and against the evidence log of the cloud.
fn against_log(args: &Log, lines: &[Line], wrong: Vec<String>) -> anyhow::Result<Compared> {
    let cloud = args.cloud.clone().unwrap_or_else(|| args.folder.dir.join("cloud"));
    let mut compared = compare(lines, &entries(&cloud)?);
    compared.wrong.splice(0..0, wrong);
    Ok(compared)
}

/// The entries of the operator's log in the evidence log: none before its first head. All of its files are checked.
fn entries(cloud: &std::path::Path) -> anyhow::Result<Vec<(u64, Entry)>> {
    let key = log_key::vkey(cloud)
        .with_context(|| format!("{} has no evidence log; name the cloud's folder: --cloud DIR", cloud.display()))?;
    match monitor::check(&Directory(cloud.join(LOG_FOLDER)), &key, &[]) {
        Ok((_, checked)) => Ok(checked.operator),
        Err(monitor::CheckError::Fetch(FetchError::Missing(file))) if file == "checkpoint" => Ok(Vec::new()),
        Err(error) => Err(anyhow::Error::from(error).context("the evidence log does not hold")),
    }
}

fn json_of(line: &Line) -> Value {
    json!({
        "number": line.number, "deed": line.deed, "at": line.at, "who": line.who, "from": line.place,
        "command": line.command, "done": line.done, "about": line.about, "version": line.version,
        "salt": hex::encode(line.salt), "before": hex::encode(line.before), "hash": hex::encode(line.hash()),
    })
}

fn text_of(lines: &[&Line]) -> String {
    if lines.is_empty() {
        return "Nothing was done.".into();
    }
    let mut t = table(&["LINE", "WHEN", "WHO", "FROM", "BY", "WHAT", "TO"]);
    for line in lines {
        // Of a deed of several lines, who and how stands on the first.
        let first = |text: &String| if line.deed == line.number { text.clone() } else { String::new() };
        t.add_row([
            line.number.to_string(),
            clock::text(line.at),
            first(&line.who),
            first(&line.place),
            first(&line.command),
            line.done.clone(),
            line.about.clone(),
        ]);
    }
    crate::output::printable(&t.trim_fmt())
}

fn verdict(checked: &Compared, lines: usize) -> String {
    let Compared { logged, waiting, wrong } = checked;
    let counted = format!("{lines} lines, {logged} of them in the evidence log, {waiting} to come");
    if wrong.is_empty() {
        return format!("\n\nEverything holds: {counted}.");
    }
    format!("\n\nThe operator's log does not hold ({counted}):\n{}", wrong.join("\n"))
}
