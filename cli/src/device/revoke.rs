//! `fivefold device revoke`: cloud and gateways refuse the device at once. The network key it keeps, so it passes E1 until
//! that is rotated, which is offered, and done with `--rotate`.

use std::process::ExitCode;

use fivefold_keep::registry::{Device, Network, ShutOut};
use serde_json::{Value, json};

use fivefold_core::id::Did;

use super::{Any, classic, json_of, signing};
use crate::clock;
use crate::key;
use crate::output::{Output, answer};

/// Arguments of `fivefold device revoke`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    any: Any,
    /// Rotate the network's key at once, without this device. While a rotation is under way, it is hurried, and another
    /// one follows if the device may know the new key already.
    #[arg(long)]
    rotate: bool,
    /// Revoke its signing key alone, and nothing else of it.
    #[arg(long, conflicts_with = "rotate")]
    signing_key: bool,
}

/// Runs the command.
///
/// # Errors
/// The book refuses, or the network's key cannot be rotated.
pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let (_, mut registry) = args.any.folder.open_book()?;
    match args.any.device.resolve(&registry)? {
        classic::Kind::Classic(device) => {
            anyhow::ensure!(
                !args.rotate,
                "classic device {} has no network key of ours: revoke it without --rotate",
                device.serial
            );
            if args.signing_key {
                signing::revoke_classic(&mut registry, device.serial, output)?;
            } else {
                classic::revoke(&mut registry, device.serial, output)?;
            }
        }
        classic::Kind::Modern(did) if args.signing_key => signing::revoke(&mut registry, did, output)?,
        classic::Kind::Modern(did) if args.rotate => shut_out(args, did, output)?,
        classic::Kind::Modern(did) => refuse(args, did, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse(args: &Args, did: Did, output: Output) -> anyhow::Result<()> {
    let (_, mut registry) = args.any.folder.open_book()?;
    let device = registry.revoke_device(did, clock::now()?)?;
    let network = registry.network(&device.net.to_string())?;
    let value = json_of(&registry, &device, registry.renewal(did)?.as_ref())?;
    let value = with(value, "passes_e1", json!(has_network_key(&device)));
    answer(output, &value, || {
        let dir = args.any.folder.dir.display();
        let still = match (has_network_key(&device), key::check_rotate(&network)) {
            (false, _) => String::new(),
            (true, Err(no_way)) => format!("\nIt still has the network key and passes E1, for\n{no_way}."),
            (true, Ok(())) => format!(
                "\nIt still has the network key, and passes E1 until that is rotated:\n  \
                 fivefold device revoke --dir {dir} {did} --rotate"
            ),
        };
        format!("Revoked device {did}: cloud and gateways refuse it from now on.{still}")
    });
    Ok(())
}

fn shut_out(args: &Args, did: Did, output: Output) -> anyhow::Result<()> {
    let now = clock::now()?;
    let mut operator = args.any.folder.open()?;
    let registry = &mut operator.registry;
    let network = registry.network(&registry.device(did)?.net.to_string())?;
    check(&registry.device(did)?, &network)?;
    let device = registry.revoke_device(did, now)?;
    let shut_out = registry.shut_out(&operator.vault, did, now)?;
    let (ShutOut::Begun(rotation) | ShutOut::Hurried(rotation) | ShutOut::Overtaken(rotation)) = &shut_out;
    let value = with(json_of(registry, &device, registry.renewal(did)?.as_ref())?, "passes_e1", json!(true));
    let rotated = key::json_of(&network, Some(rotation)).get("rotation").cloned().unwrap_or_default();
    answer(output, &with(value, "rotation", rotated), || {
        let what = match &shut_out {
            ShutOut::Begun(_) => {
                "A new network key goes to everybody else. Until the key before is retired, it\npasses E1."
            }
            ShutOut::Hurried(_) => {
                "A rotation that it is told nothing of is under way, and hurries now. Until the key\nbefore is retired, it passes E1."
            }
            ShutOut::Overtaken(_) => {
                "A rotation is under way, and hurries now. If the device was given its key already,\nanother one follows by itself. Until then it passes E1."
            }
        };
        let stands = key::text_of(&network, Some(rotation));
        format!("Revoked device {did}: cloud and gateways refuse it from now on.\n{what}\n{stands}")
    });
    Ok(())
}

/// Whether a rotation shuts it out, before it is revoked.
fn check(device: &Device, network: &Network) -> anyhow::Result<()> {
    key::check_rotate(network)?;
    anyhow::ensure!(
        has_network_key(device),
        "device {} is on a radio without E1 of ours and has no network key: revoke it without --rotate",
        device.did
    );
    Ok(())
}

/// Whether it is on a radio with E1 of ours.
fn has_network_key(device: &Device) -> bool {
    device.policy.radio.link_class().has_network_key()
}

fn with(mut value: Value, name: &str, more: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.into(), more);
    }
    value
}
