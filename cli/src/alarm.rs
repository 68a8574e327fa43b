//! `fivefold alarm`: what was raised, whether sinks take it, and their secrets.

mod secret;
mod test;

pub(crate) use test::cloud_folder;

use std::process::ExitCode;

use fivefold_cloud::api::{Alarms, SinkShown};
use serde_json::json;

use crate::clock;
use crate::output::{Output, answer, table};
use crate::reading::Cloud;

/// Arguments of `fivefold alarm`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Seal the secret of a sink for the cloud: a webhook's key, or the password at a mail server or broker. The cloud reads it
    /// when it starts.
    AddSecret(crate::secret::Args),
    /// List alarms, the newest first, and what waits for which sink. Exit code 1 while a sink does not take what waits for it.
    List(List),
    /// Send a test to the sinks of a cloud's folder, and say what each answered. Exit code 1 when one has not taken it.
    Test(test::Args),
}

#[derive(Clone, Debug, clap::Args)]
struct List {
    #[command(flatten)]
    cloud: Cloud,
    /// At least so severe.
    #[arg(long, value_parser = ["warning", "high", "critical"], default_value = "warning")]
    least: String,
    /// Raised within so many hours.
    #[arg(long, value_name = "HOURS")]
    hours: Option<u32>,
    /// How many, at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// One sentence about what is in the way.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::AddSecret(args) => secret::run(args, output),
        Verb::List(args) => list(args, output),
        Verb::Test(args) => test::run(args, output),
    }
}

fn list(args: &List, output: Output) -> anyhow::Result<ExitCode> {
    let since = match args.hours {
        Some(hours) => clock::now()?.saturating_sub(u64::from(hours) * 3600) * 1000,
        None => 0,
    };
    let path = format!("/v1/alarms?least={}&since={since}&limit={}", args.least, args.limit);
    let answered: Alarms = serde_json::from_value(args.cloud.connect()?.fetch(&path)?)?;
    let stuck = answered.sinks.iter().any(|sink| sink.failed.is_some());
    answer(output, &json!(answered), || {
        let mut text = if answered.alarms.is_empty() { "No alarm.".to_owned() } else { alarms(&answered) };
        if answered.sinks.is_empty() {
            text += "\n\nNobody is told: cloud.toml has no [[alarm.sink]]. See docs/operate.md, \"Alarms\".";
        } else {
            text += &format!("\n\n{}", sinks(&answered.sinks));
        }
        text
    });
    Ok(if stuck { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn alarms(answered: &Alarms) -> String {
    let mut t = table(&["RAISED", "STATE", "ALARM", "ID"]);
    for alarm in &answered.alarms {
        let state = alarm.over_ms.map_or("lasts".into(), |at| format!("over {}", clock::minute(at / 1000)));
        t.add_row([clock::minute(alarm.at_ms / 1000), state, alarm.text.clone(), alarm.id.clone()]);
    }
    let more = if answered.next.is_some() { "\nThere are older ones: --limit, or --hours." } else { "" };
    format!("{}{more}", t.trim_fmt())
}

fn sinks(all: &[SinkShown]) -> String {
    let mut t = table(&["SINK", "WAITING", "OLDEST", "TRIED", "WHAT IS WRONG"]);
    for sink in all {
        let time = |at: Option<u64>| at.map_or("-".into(), |at| clock::minute(at / 1000));
        t.add_row([
            sink.name.clone(),
            sink.waiting.to_string(),
            time(sink.oldest_ms),
            time(sink.tried_ms),
            sink.failed.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    t.trim_fmt()
}
