//! `fivefold outbox`: where readings go, what waits for whom, what a sink will never take, and the secrets of sinks.

use std::process::ExitCode;

use fivefold_cloud::api::{DeadLetters, OutboxShown, OutboxSinks};
use serde_json::json;

use crate::clock;
use crate::output::{Output, answer, table};
use crate::reading::Cloud;

mod secret;

/// Arguments of `fivefold outbox`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Seal the secret of a sink for the cloud: a webhook's key, or the password at a broker. The cloud reads it when it starts.
    AddSecret(secret::Args),
    /// List what a sink refused for good, with what it said. Exit code 1 while there is any.
    Dead(Dead),
    /// List all sinks, and what waits for each. Exit code 1 while one is away, or has refused something for good.
    List(List),
    /// Stop sending to a sink: what comes waits for it.
    Pause(One),
    /// Send again what a sink refused for good, under the same ids.
    Resend(Resend),
    /// Go on sending to a sink, or try one now that is away.
    Resume(One),
    /// Show one sink. Exit code 1 while it is away, or has refused something for good.
    Show(One),
}

#[derive(Clone, Debug, clap::Args)]
struct List {
    #[command(flatten)]
    cloud: Cloud,
}

#[derive(Clone, Debug, clap::Args)]
struct One {
    #[command(flatten)]
    cloud: Cloud,
    /// The sink's name in cloud.toml.
    name: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Dead {
    #[command(flatten)]
    one: One,
    /// How many, at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Those behind this letter.
    #[arg(long, value_name = "LETTER", default_value_t = 0)]
    after: i64,
}

#[derive(Clone, Debug, clap::Args)]
struct Resend {
    #[command(flatten)]
    one: One,
    /// All that it has.
    #[arg(long, conflicts_with = "letters", required_unless_present = "letters")]
    all: bool,
    /// Letters, by the numbers that `fivefold outbox dead` shows.
    #[arg(value_name = "LETTER")]
    letters: Vec<i64>,
}

/// Runs the command.
///
/// # Errors
/// One sentence about what is in the way.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::AddSecret(args) => secret::run(args, output),
        Verb::Dead(args) => dead(args, output),
        Verb::List(args) => list(&args.cloud, output),
        Verb::Pause(one) => act(one, "pause", &json!({}), output),
        Verb::Resend(args) => act(&args.one, "resend", &json!({ "letters": args.letters }), output),
        Verb::Resume(one) => act(one, "resume", &json!({}), output),
        Verb::Show(one) => show(one, output),
    }
}

fn sinks(cloud: &Cloud) -> anyhow::Result<Vec<OutboxShown>> {
    Ok(serde_json::from_value::<OutboxSinks>(cloud.connect()?.fetch("/v1/outbox")?)?.sinks)
}

/// 1 where somebody should look.
fn code(sinks: &[OutboxShown]) -> ExitCode {
    let is_wrong = |sink: &OutboxShown| sink.state == "away" || sink.dead > 0;
    ExitCode::from(u8::from(sinks.iter().any(is_wrong)))
}

fn time(at: Option<u64>) -> String {
    at.map_or("-".into(), |at| clock::minute(at / 1000))
}

fn list(cloud: &Cloud, output: Output) -> anyhow::Result<ExitCode> {
    let all = sinks(cloud)?;
    answer(output, &json!({ "sinks": all }), || {
        if all.is_empty() {
            return "Readings go nowhere: cloud.toml has no [[outbox]]. See docs/operate.md, \"Readings out\".".into();
        }
        let mut t = table(&["SINK", "KIND", "STATE", "WAITING", "OLDEST", "DEAD", "SENT", "WHAT IS WRONG"]);
        for sink in &all {
            t.add_row([
                sink.name.clone(),
                sink.kind.clone(),
                sink.state.clone(),
                sink.waiting.to_string(),
                time(sink.oldest_ms),
                sink.dead.to_string(),
                sink.sent.to_string(),
                sink.failed.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        t.trim_fmt()
    });
    Ok(code(&all))
}

/// All of a sink, in sentences.
fn sentences(sink: &OutboxShown) -> String {
    let OutboxShown { name, kind, state, waiting, dead, again, void, sent, retried, .. } = sink;
    let mut text = format!("Sink {name} ({kind}): {state}. {waiting} waiting");
    if let Some(oldest) = sink.oldest_ms {
        text += &format!(", the oldest since {}", time(Some(oldest)));
    }
    text += &format!(". {sent} sent, {retried} of them more than once or still to come again. Dead: {dead}");
    if *again > 0 {
        text += &format!(", {again} of them on their way again");
    }
    text += ".";
    if let Some(failed) = &sink.failed {
        text += &format!("\nTried last at {}: {failed}", time(sink.tried_ms));
    }
    if state == "gone" {
        text += "\nIt is not in cloud.toml any more, and nothing is sent to it: put its table back, and start the cloud anew";
    } else if *void > 0 {
        text += &format!(
            "\nOf {void} of the dead nothing can be sent: their readings are pruned, in quarantine, or no longer there. Take them \
             out: fivefold outbox resend {name} --all"
        );
    }
    if *dead > *again {
        text += &format!("\nWhat it refused for good: fivefold outbox dead {name}");
    }
    if state == "paused" {
        text += &format!("\nGo on: fivefold outbox resume {name}");
    }
    text
}

fn show(one: &One, output: Output) -> anyhow::Result<ExitCode> {
    let all = sinks(&one.cloud)?;
    let names: Vec<&str> = all.iter().filter(|sink| sink.state != "gone").map(|sink| &*sink.name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let Some(sink) = all.iter().find(|sink| sink.name == one.name) else {
        anyhow::bail!("no readings go to a sink \"{}\"; cloud.toml has in [[outbox]]: {names}", one.name);
    };
    answer(output, &json!(sink), || sentences(sink));
    Ok(code(std::slice::from_ref(sink)))
}

fn dead(args: &Dead, output: Output) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/outbox/{}/dead?limit={}&cursor={}", checked(&args.one.name)?, args.limit, args.after);
    let letters: DeadLetters = serde_json::from_value(args.one.cloud.connect()?.fetch(&path)?)?;
    answer(output, &json!(letters), || {
        if letters.letters.is_empty() {
            return "No dead letter.".into();
        }
        let mut t = table(&["LETTER", "DEVICE", "CAME", "REFUSED", "TRIES", "WHAT THE SINK SAID", "ID"]);
        for letter in &letters.letters {
            let again = if letter.again_ms.is_some() { " (on its way again)" } else { "" };
            t.add_row([
                letter.letter.to_string(),
                letter.device.clone(),
                time(Some(letter.ingested_ms)),
                time(Some(letter.at_ms)),
                letter.tries.to_string(),
                format!("{}{again}", letter.said),
                letter.id.clone(),
            ]);
        }
        let more = letters.next.map(|next| format!("\nThere are more: --after {next}")).unwrap_or_default();
        format!("{}{more}\nSend them again: fivefold outbox resend {} --all", t.trim_fmt(), args.one.name)
    });
    Ok(ExitCode::from(u8::from(!letters.letters.is_empty())))
}

/// A name that may stand in a path.
fn checked(name: &str) -> anyhow::Result<&str> {
    anyhow::ensure!(
        fivefold_keep::share::CloudOutbox::is_name(name),
        "\"{name}\" is no name of a sink: expected 1 to 32 lower-case letters, digits and dashes"
    );
    Ok(name)
}

fn act(one: &One, what: &str, body: &serde_json::Value, output: Output) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/outbox/{}/{what}", checked(&one.name)?);
    let sink: OutboxShown = serde_json::from_value(one.cloud.connect()?.post(&path, body)?)?;
    answer(output, &json!(sink), || sentences(&sink));
    Ok(ExitCode::SUCCESS)
}
