//! `fivefold key`: rotation of a network's key (docs/protocol.md 4.3), step by step, by the operator's word.

use std::process::ExitCode;

use fivefold_keep::registry::{Network, Rotation};
use serde_json::{Value, json};

use crate::clock;
use crate::operator::Folder;
use crate::output::{Output, answer};

/// Arguments of `fivefold key`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Tell nobody anything for now.
    Pause(Which),
    /// Give up the key before; gateways keep it in recovery for 30 days.
    Retire(Which),
    /// Go on after a pause.
    Resume(Which),
    /// Go back one step: from draining to handing out, from handing out to the key before.
    Rollback(Which),
    /// Draw a new network key, and hand it to every device of the network that is not revoked, under E3.
    Rotate(Which),
    /// Show where the rotation of a network stands.
    Show(Which),
    /// Send under the new key. A device that does not have it yet is not heard until it is retired and enrolled again:
    /// see `link_keys` of /v1/devices first.
    Switch(Which),
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    folder: Folder,
    /// The network: its name or id.
    #[arg(long)]
    network: String,
}

impl Verb {
    const fn which(&self) -> &Which {
        match self {
            Self::Pause(w)
            | Self::Retire(w)
            | Self::Resume(w)
            | Self::Rollback(w)
            | Self::Rotate(w)
            | Self::Show(w)
            | Self::Switch(w) => w,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The book refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let which = args.verb.which();
    let now = clock::now()?;
    if matches!(args.verb, Verb::Rotate(_)) {
        let mut operator = which.folder.open()?;
        let network = operator.registry.network(&which.network)?;
        anyhow::ensure!(
            network.profile.has_e3(),
            "network {} is {}: a new network key goes to devices under E3 alone, so it cannot be rotated",
            network.name,
            network.profile
        );
        let rotation = operator.registry.rotate_network_key(&operator.vault, network.net, now)?;
        tell(output, &network, Some(&rotation));
        return Ok(ExitCode::SUCCESS);
    }
    let (_, mut registry) = which.folder.open_book()?;
    let network = registry.network(&which.network)?;
    let net = network.net;
    let rotation = match &args.verb {
        Verb::Pause(_) => Some(registry.set_rotation_paused(net, true)?),
        Verb::Resume(_) => Some(registry.set_rotation_paused(net, false)?),
        Verb::Retire(_) => Some(registry.retire_network_key(net, now)?),
        Verb::Rollback(_) => Some(registry.roll_back_network_key(net, now)?),
        Verb::Switch(_) => Some(registry.switch_network_key(net, now)?),
        Verb::Show(_) | Verb::Rotate(_) => registry.rotation(net)?,
    };
    tell(output, &network, rotation.as_ref());
    Ok(ExitCode::SUCCESS)
}

fn tell(output: Output, network: &Network, rotation: Option<&Rotation>) {
    answer(output, &json_of(network, rotation), || {
        let Some(r) = rotation else { return format!("The key of network {} was never rotated.", network.name) };
        let next = match (r.stage(), r.is_paused) {
            (_, true) => "paused; go on with: fivefold key resume",
            ("handing out", _) => "when enough devices have it: fivefold key switch",
            ("draining", _) => "when all devices send under it (7 days at most): fivefold key retire",
            _ => "the rotation is over",
        };
        format!(
            "Network {}: key {} follows key {}, {} since {}.\nNext: {next}",
            network.name,
            r.index,
            r.previous,
            r.stage(),
            clock::text(r.retired_at.or(r.switched_at).unwrap_or(r.started_at))
        )
    });
}

fn json_of(network: &Network, rotation: Option<&Rotation>) -> Value {
    let rotation = rotation.map(|r| {
        json!({
            "previous": r.previous, "index": r.index, "stage": r.stage(), "paused": r.is_paused,
            "started_at": r.started_at, "switched_at": r.switched_at, "retired_at": r.retired_at,
        })
    });
    json!({ "network": network.name, "net": network.net.to_string(), "levels": network.profile.as_str(), "rotation": rotation })
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_networks_with_e3_can_hand_out_keys() {
        use fivefold_core::profile::Profile;

        let can: Vec<_> = Profile::ALL.into_iter().filter(|p| p.has_e3()).collect();
        assert_eq!(can, [Profile::ToCloud, Profile::ToBoth]);
    }
}
