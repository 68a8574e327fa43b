//! `fivefold alarm test`: straight to the sinks, past the queue, with the cloud's own settings and secrets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fivefold_alarm::{Alarm, Cause, Subject};
use fivefold_cloud::config::Config;
use fivefold_core::error::Severity;
use fivefold_core::time::Millis;
use fivefold_keep::share::CLOUD_FILE;
use serde_json::{Value, json};

use crate::clock;
use crate::output::{Output, answer, table};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The cloud's folder, or the operator's with the cloud in it.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// This sink alone.
    name: Option<String>,
}

/// The folder with cloud.toml.
///
/// # Errors
/// There is none.
pub(crate) fn cloud_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    let places = [dir.to_owned(), dir.join("cloud")];
    let found = places.into_iter().find(|place| place.join(CLOUD_FILE).exists());
    found.ok_or_else(|| {
        anyhow::anyhow!("{} has no {CLOUD_FILE}; name the cloud's or the operator's folder with --dir", dir.display())
    })
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let folder = cloud_folder(&args.dir)?;
    let config = Config::load(&folder)?;
    let wanted = |name: &str| args.name.as_deref().is_none_or(|only| only == name);
    let sinks: Vec<_> = config.alarm_sinks.iter().filter(|sink| wanted(&sink.name)).collect();
    if sinks.is_empty() {
        let file = folder.join(CLOUD_FILE);
        match &args.name {
            Some(name) => anyhow::bail!("{} has no sink \"{name}\" in [[alarm.sink]]", file.display()),
            None => anyhow::bail!("{} has no [[alarm.sink]]: nobody is told of alarms", file.display()),
        }
    }
    let vault = config.open_vault()?;
    let now = Millis(clock::now()? * 1000);
    let alarm = Alarm { cause: Cause::Test, severity: Severity::Critical, of: Subject::default(), times: 1, at: now };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = Vec::new();
    for sink in sinks {
        let told = match sink.prepare(&vault) {
            Ok(prepared) => runtime.block_on(prepared.deliver(&alarm, now)).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        results.push((sink, told.err()));
    }
    let all_took = results.iter().all(|(_, wrong)| wrong.is_none());
    let shown: Vec<Value> = results
        .iter()
        .map(|(sink, wrong)| json!({ "sink": sink.name, "at": sink.to_string(), "taken": wrong.is_none(), "wrong": wrong }))
        .collect();
    answer(output, &json!({ "id": alarm.id().to_string(), "sinks": shown }), || {
        let mut t = table(&["SINK", "RESULT"]);
        for (sink, wrong) in &results {
            t.add_row([sink.to_string(), wrong.clone().unwrap_or_else(|| "taken".into())]);
        }
        t.trim_fmt()
    });
    Ok(if all_took { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
