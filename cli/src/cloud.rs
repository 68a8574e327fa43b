//! `fivefold cloud`: the cloud of an operator's folder, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use fivefold_cloud::daemon;
use serde_json::{Map, Value, json};

use crate::output::{self, Output};

/// Arguments of `fivefold cloud`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Run the cloud until it is told to stop. SIGHUP reloads its certificate.
    Run(Run),
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// The cloud's folder, with cloud.toml: DIR/cloud after `fivefold init DIR`.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Print the resolved configuration, open the secrets, and stop.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
///
/// # Errors
/// One sentence about why it cannot start.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let Verb::Run(run) = &args.verb;
    if run.check {
        let resolved = daemon::check(&run.dir)?;
        output::answer(output, &by_line(&resolved), || resolved.clone());
        return Ok(ExitCode::SUCCESS);
    }
    output::log(output);
    daemon::run(&run.dir, |at| match output {
        Output::Human => println!("Gateways connect to {}; people and programs to https://{}.", at.ingest, at.api),
        Output::Json => {
            let ready = json!({ "event": "ready", "ingest": at.ingest.to_string(), "api": at.api.to_string() });
            println!("{ready}");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `name = value` lines as one object.
fn by_line(text: &str) -> Value {
    let lines = text.lines().filter_map(|line| line.split_once(" = "));
    Value::Object(lines.map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>())
}
