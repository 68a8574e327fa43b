//! Readings in the store of a gateway without a cloud: read out while it runs, deleted while it does not.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_cloud::api::ReadingShown;
use fivefold_core::id::{Did, Sid};
use fivefold_core::wire::envelope::Envelope;
use fivefold_core::wire::state::State;
use fivefold_gateway::config::{Config, Destination};
use fivefold_gateway::daemon::wall_clock;
use fivefold_gateway::spool::{Spool, SpoolReader};
use fivefold_keep::share::GATEWAY_FILE;
use serde_json::json;

use super::{List, show};
use crate::operator::acted;
use crate::output::{Output, answer};

/// `fivefold reading forget`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Forget {
    /// The gateway's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The id of the last one to delete; all before it go too.
    #[arg(long, value_name = "ID")]
    upto: u64,
}

/// Whether a folder is a gateway's.
pub(crate) fn is_gateway(dir: &Path) -> bool {
    dir.join(GATEWAY_FILE).exists()
}

fn config(dir: &Path) -> anyhow::Result<Config> {
    let config = Config::read(dir, wall_clock())?;
    anyhow::ensure!(
        matches!(config.uplink, Destination::None { .. }),
        "gateway {} sends its readings to a cloud; ask that one: fivefold reading list",
        config.name
    );
    Ok(config)
}

/// Lists what a gateway keeps, the newest last.
///
/// # Errors
/// The gateway has a cloud, or its store or vault does not open.
pub(super) fn list(list: &List, output: Output) -> anyhow::Result<()> {
    let config = config(&list.which.cloud.dir)?;
    anyhow::ensure!(list.which.net.is_none(), "a gateway keeps readings of one network; leave out --net");
    let vault = Arc::new(config.open_vault()?);
    let limit = list.limit as usize;
    let mut shown = Vec::new();
    if let Some(reader) = SpoolReader::open(&config.store)? {
        let devices = devices(&reader, &vault)?;
        let mut seen = HashSet::new();
        for (_, bytes) in reader.page(list.after, limit)? {
            let Ok(envelope) = Envelope::parse(&bytes) else { continue };
            // The store was cut before it knew what it had taken: the same message once more is no other reading.
            let opened = envelope.opened.map(|o| (o.kid, o.epoch, o.bctx, o.piv));
            let device = opened.and_then(|(sid, ..)| devices.get(&sid)).copied();
            let of = |d: &String| device.is_some_and(|did| did.to_string() == *d);
            if list.which.device.as_ref().is_none_or(of) && seen.insert(opened) {
                shown.extend(ReadingShown::kept(&envelope, config.identity, device));
            }
        }
    }
    show(serde_json::to_value(&shown)?, &shown, output);
    Ok(())
}

fn devices(reader: &SpoolReader, vault: &Arc<fivefold_keep::vault::Vault>) -> anyhow::Result<HashMap<Sid, Did>> {
    let state = reader.state(vault)?;
    let parts = state.iter().flat_map(|s| &s.parts).filter_map(|part| State::parse(part).ok());
    Ok(parts.flat_map(|s| s.devices.iter().map(|d| (d.sid, d.did)).collect::<Vec<_>>()).collect())
}

/// Deletes what was read out.
///
/// # Errors
/// As [`list`]; the gateway runs.
pub(super) fn forget(args: &Forget, output: Output) -> anyhow::Result<()> {
    let config = config(&args.dir)?;
    let vault = config.open_vault()?;
    let deleted = Spool::forget(&config.store, Box::new(Arc::new(vault)), args.upto)?;
    acted(&args.dir, "readings deleted", format_args!("{deleted}, up to {}", args.upto))?;
    answer(output, &json!({ "deleted": deleted }), || {
        format!("Deleted {deleted} readings from the store of {}.", config.name)
    });
    Ok(())
}
