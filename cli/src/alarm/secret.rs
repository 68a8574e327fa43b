//! `fivefold alarm add-secret`.

use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::alarm;
use fivefold_keep::share::{CLOUD_FILE, CloudAlarmSink, CloudSettings, read_config};
use serde_json::json;

use super::test::cloud_folder;
use crate::output::{Output, answer};
use crate::secret::Args;

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let folder = cloud_folder(&args.dir)?;
    let settings: CloudSettings = read_config(&folder.join(CLOUD_FILE))?;
    let sinks = alarm::check(&settings.alarm.sink, &folder)?;
    let names: Vec<&str> = sinks.iter().map(|s| s.name.as_str()).collect();
    let sink = sinks.iter().find(|s| s.name == args.name).with_context(|| {
        format!("{} has no sink \"{}\" in [[alarm.sink]]; it has: {}", folder.join(CLOUD_FILE).display(), args.name, {
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        })
    })?;
    anyhow::ensure!(
        sink.secret_use().is_some(),
        "the sink {} needs no secret: it has no username; write one into {CLOUD_FILE} first",
        sink.name
    );
    let is_webhook = settings.alarm.sink.iter().any(|s| s.name == args.name && s.webhook.is_some());
    let to = CloudAlarmSink::secret_file(&folder, &sink.name);
    let drawn = args.seal(&folder, &settings, &to, "alarm secret sealed", is_webhook, |random| hex::encode(random))?;
    let value = json!({ "sink": sink.name, "secret": drawn.as_deref() });
    answer(output, &value, || {
        let kept = format!(
            "Sealed the secret of {}. The cloud reads it when it starts; try it: fivefold alarm test",
            sink.name
        );
        match &drawn {
            Some(drawn) => format!("{kept}\nFor the receiver, shown once: {}", drawn.as_str()),
            None => kept,
        }
    });
    Ok(ExitCode::SUCCESS)
}
