//! `fivefold alarm add-secret`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::alarm;
use fivefold_keep::files;
use fivefold_keep::registry::Registry;
use fivefold_keep::share::{CLOUD_FILE, CloudAlarmSink, CloudSettings, read_config};
use fivefold_keep::vault::{Vault, random};
use serde_json::json;
use zeroize::Zeroizing;

use super::test::cloud_folder;
use crate::clock;
use crate::operator::acting;
use crate::output::{Output, answer};

/// Bytes of a secret, at most.
const LONGEST: u64 = 1024;
/// Bytes of a webhook's secret, at least: a shorter one can be guessed from what it signed.
const SHORTEST_KEY: usize = 16;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The cloud's folder, or the operator's with the cloud in it.
    #[arg(long, env = "FIVEFOLD_DIR", default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// The sink's name in cloud.toml.
    name: String,
    /// File with the secret, which only its owner can read; without it, it is read from standard input. A line end behind it is
    /// none of it.
    #[arg(long, value_name = "FILE", conflicts_with = "draw")]
    file: Option<PathBuf>,
    /// Draw a secret for a webhook, and print it once, for its receiver.
    #[arg(long)]
    draw: bool,
}

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
    anyhow::ensure!(is_webhook || !args.draw, "--draw is for webhooks: a password is the server's, not ours to draw");
    let secret = if args.draw { Zeroizing::new(hex::encode(*random::<32>()?).into_bytes()) } else { read(args)? };
    anyhow::ensure!(!secret.is_empty(), "the secret is empty; nothing was changed");
    anyhow::ensure!(
        !is_webhook || secret.len() >= SHORTEST_KEY,
        "a webhook's secret needs at least {SHORTEST_KEY} bytes; --draw makes one"
    );
    let vault = Vault::open_folder_with(
        &folder.join(&settings.vault),
        settings.passphrase_file.as_ref().map(|p| folder.join(p)).as_deref(),
    )?;
    Registry::open(&folder.join(&settings.registry), acting(clock::now()?))?
        .enter_deed("alarm secret sealed", format_args!("sink {}", sink.name))?;
    vault.seal_file(&CloudAlarmSink::secret_file(&folder, &sink.name), &secret)?;
    let drawn = args.draw.then(|| String::from_utf8_lossy(&secret).into_owned());
    let value = json!({ "sink": sink.name, "secret": drawn });
    answer(output, &value, || {
        let kept = format!(
            "Sealed the secret of {}. The cloud reads it when it starts; try it: fivefold alarm test",
            sink.name
        );
        match &drawn {
            Some(drawn) => format!("{kept}\nFor the receiver, shown once: {drawn}"),
            None => kept,
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn read(args: &Args) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut secret = match &args.file {
        Some(file) => files::read_private(file)?,
        None => {
            let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
            std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut secret).context("cannot read standard input")?;
            secret
        }
    };
    anyhow::ensure!(secret.len() as u64 <= LONGEST, "a secret has {LONGEST} bytes at most; nothing was changed");
    while secret.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(secret)
}
