//! `fivefold outbox add-secret`.

use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_keep::share::{CLOUD_FILE, CloudOutbox, CloudSettings, read_config};
use serde_json::json;

use crate::alarm::cloud_folder;
use crate::output::{Output, answer};
pub(super) use crate::secret::Args;

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let folder = cloud_folder(&args.dir)?;
    let settings: CloudSettings = read_config(&folder.join(CLOUD_FILE))?;
    let sinks = fivefold_sinks::check(&settings.outbox, &folder)?;
    let names: Vec<&str> = sinks.iter().map(|s| s.name.as_str()).collect();
    let sink = sinks.iter().find(|s| s.name == args.name).with_context(|| {
        format!("{} has no sink \"{}\" in [[outbox]]; it has: {}", folder.join(CLOUD_FILE).display(), args.name, {
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        })
    })?;
    anyhow::ensure!(sink.secret_use().is_some(), "the sink {} needs no secret as it is in {CLOUD_FILE}", sink.name);
    let to = CloudOutbox::secret_file(&folder, &sink.name);
    let draw = |random: &[u8; 32]| format!("whsec_{}", STANDARD.encode(random));
    let drawn = args.seal(&folder, &settings, &to, "outbox secret sealed", sink.kind() == "webhook", draw)?;
    answer(output, &json!({ "sink": sink.name, "secret": drawn.as_deref() }), || {
        let kept = format!("Sealed the secret of {}. The cloud reads it when it starts.", sink.name);
        match &drawn {
            Some(drawn) => format!("{kept}\nFor the receiver, shown once: {}", drawn.as_str()),
            None => kept,
        }
    });
    Ok(ExitCode::SUCCESS)
}
