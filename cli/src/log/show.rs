//! `fivefold log show`: the log of an operator's cloud, as it lies in its folder. The cloud may run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_cloud::log_key::{self, LOG_FOLDER};
use fivefold_evidence::monitor::read_checkpoint;
use fivefold_evidence::note::Kind;
use fivefold_evidence::tile::{Directory, FetchError};
use serde_json::{Value, json};

use crate::operator::Folder;
use crate::output::{Output, answer};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// The cloud's folder, if it is not `cloud` in the operator's.
    #[arg(long, value_name = "DIR")]
    cloud: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let cloud = args.cloud.clone().unwrap_or_else(|| args.folder.dir.join("cloud"));
    let vkey = log_key::vkey(&cloud)
        .with_context(|| format!("{} has no log yet; its cloud makes the key when it starts", cloud.display()))?;
    let log = cloud.join(LOG_FOLDER);
    let signed = match read_checkpoint(&Directory(log.clone())) {
        Ok(signed) => Some(signed),
        Err(FetchError::Missing(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(signed) = signed else {
        let value =
            json!({ "origin": vkey.name(), "vkey": vkey.to_string(), "size": 0, "checkpoint": null, "signatures": [] });
        answer(output, &value, || format!("{}\nKey to pin: {vkey}\nNo head was shown yet.", vkey.name()));
        return Ok(ExitCode::SUCCESS);
    };
    let head = signed.open(&vkey).with_context(|| format!("the head in {} is not this log's", log.display()))?.head();
    // Whose the keys are is not known here: names, and what kind a length tells.
    let lines: Vec<(String, String, Option<u64>, Kind)> = signed
        .note()
        .lines()
        .iter()
        .filter(|line| !vkey.wrote(line))
        .map(|line| {
            let kind = if line.signature.len() > 72 { Kind::WitnessPq } else { Kind::Witness };
            let at = line.signature.first_chunk().map(|time| u64::from_be_bytes(*time));
            (line.name.clone(), line.key.to_string(), at, kind)
        })
        .collect();
    let signatures: Vec<Value> = lines
        .iter()
        .map(|(name, key, at, kind)| json!({ "name": name, "key": key, "time": at, "kind": word(*kind) }))
        .collect();
    let value = json!({
        "origin": vkey.name(), "vkey": vkey.to_string(), "size": head.size, "root": head.root.to_string(),
        "checkpoint": signed.to_string(), "signatures": signatures,
    });
    answer(output, &value, || {
        let mut text = format!("{}\nKey to pin: {vkey}\n{} entries, root {}", vkey.name(), head.size, head.root);
        for (name, key, at, kind) in &lines {
            let at = at.map_or_else(|| "?".into(), crate::clock::text);
            text += &format!("\nCosigned by {name}+{key} ({}), {at} by its own word", word(*kind));
        }
        if lines.is_empty() {
            text += "\nNo witness has cosigned this head: nobody but the operator says when it existed.";
        }
        text
    });
    Ok(ExitCode::SUCCESS)
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Log | Kind::Witness => "Ed25519",
        Kind::WitnessPq => "ML-DSA-44",
    }
}
