//! What the cloud holds since its store was put back from a copy, and the operator's word that it is no recording.

use anyhow::Context as _;
use fivefold_cloud::config::Config;
use fivefold_cloud::store::{Held, Release};
use fivefold_core::time::Millis;
use fivefold_keep::registry::Registry;
use serde_json::{Value, json};

use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer, table};

/// `fivefold reading release`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("whose").required(true).multiple(true).args(["gateway", "device"])))]
pub(super) struct Which {
    #[command(flatten)]
    folder: Folder,
    /// What this gateway brought first: you know that it did not replay anything.
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Of this device: its EUI-64, of a classic node its serial, 16 hex digits.
    #[arg(long, value_name = "DID")]
    device: Option<String>,
    /// Received at a gateway at or after this time, by its clock: 2026-11-01, or 2026-11-01T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = clock::parse)]
    since: Option<u64>,
}

fn open(folder: &Folder) -> anyhow::Result<Held> {
    let config = Config::load(&folder.dir.join("cloud"))?;
    anyhow::ensure!(
        config.store.exists(),
        "{} is not there, so nothing is held: start the cloud once (fivefold cloud run)",
        config.store.display()
    );
    Ok(Held::open(&config.store)?)
}

/// Lists what is held.
///
/// # Errors
/// The folder is no operator's, or the store does not open.
pub(super) fn list(folder: &Folder, output: Output) -> anyhow::Result<()> {
    let (_, registry) = folder.open_book()?;
    let (networks, gateways) = (registry.networks()?, registry.gateways()?);
    let held = open(folder)?.rows()?;
    let shown: Vec<Value> = held
        .iter()
        .map(|row| {
            let net =
                networks.iter().find(|n| n.net == row.net).map_or_else(|| row.net.to_string(), |n| n.name.clone());
            let gateway = gateways.iter().find(|g| g.gateway == row.gateway);
            let gateway = gateway.map_or_else(|| row.gateway.to_string(), |g| g.name.clone());
            json!({ "network": net, "device": row.did.to_string(), "gateway": gateway, "readings": row.count,
                    "first_received_ms": row.first.0, "last_received_ms": row.last.0 })
        })
        .collect();
    answer(output, &Value::Array(shown.clone()), || {
        if shown.is_empty() {
            return "Nothing is held.".to_owned();
        }
        let mut t = table(&["NETWORK", "DEVICE", "GATEWAY", "READINGS", "FIRST RECEIVED", "LAST RECEIVED"]);
        for (row, shown) in held.iter().zip(&shown) {
            let word = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
            let (first, last) = (clock::text(row.first.0 / 1000), clock::text(row.last.0 / 1000));
            t.add_row([word("network"), word("device"), word("gateway"), row.count.to_string(), first, last]);
        }
        format!(
            "{}\n\nThey came under keys of before the cloud was restored, and may be recordings. Of a gateway that you trust:\n\
             fivefold reading release --gateway NAME --since TIME",
            t.trim_fmt()
        )
    });
    Ok(())
}

/// Makes readings of what is held.
///
/// # Errors
/// No such gateway or device; the folder is no operator's, or the store does not open.
pub(super) fn release(args: &Which, output: Output) -> anyhow::Result<()> {
    let (_, mut registry) = args.folder.open_book()?;
    let which = args.resolved(&registry)?;
    let mut held = open(&args.folder)?;
    // The word is given before it has an effect: then no reading is there without it.
    registry.enter_deed("release of held readings", args.words())?;
    let released = held.release(&which)?;
    let value = json!({ "released": released, "gateway": args.gateway, "device": args.device, "since": args.since });
    answer(output, &value, || {
        let words = args.words();
        match released {
            0 => format!("Nothing is held {words}."),
            n => format!(
                "Released {n} readings {words}, held since the restore. They are called what they were, and late."
            ),
        }
    });
    Ok(())
}

impl Which {
    fn words(&self) -> String {
        let gateway = self.gateway.as_ref().map(|name| format!("of gateway {name}"));
        let device = self.device.as_ref().map(|did| format!("of device {did}"));
        let since = self.since.map(|at| format!("received since {}", clock::text(at)));
        [gateway, device, since].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn resolved(&self, registry: &Registry) -> anyhow::Result<Release> {
        let gateways = registry.gateways()?;
        let gateway = self.gateway.as_ref().map(|name| {
            let found = gateways.iter().find(|g| g.name == *name);
            found.map(|g| g.gateway).with_context(|| format!("no gateway `{name}`; see fivefold gateway list"))
        });
        let (devices, classics) = (registry.devices()?, registry.classic_devices()?);
        let device = self.device.as_ref().map(|did| {
            let found = devices.iter().map(|d| d.did).chain(classics.iter().map(|d| d.did));
            found
                .into_iter()
                .find(|known| known.to_string() == *did)
                .with_context(|| format!("no device `{did}`; see fivefold device list"))
        });
        let since = self.since.map(|at| Millis(at.saturating_mul(1000)));
        Ok(Release { gateway: gateway.transpose()?, device: device.transpose()?, since })
    }
}
