//! `fivefold network`: networks and the combination that each must use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fivefold_core::profile::Profile;
use fivefold_core::suite::agreement::PublicX;
use fivefold_keep::files;
use fivefold_keep::own_sensors::OwnSensors;
use fivefold_keep::registry::Network;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::device::Signing;
use crate::operator::{Folder, check_name};
use crate::output::{Output, answer, table};

/// Arguments of `fivefold network`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Add a network.
    Add(Add),
    /// List all networks.
    List(Folder),
    /// Let a network take classic devices (Waspmote, Plug & Sense!) or no more of them, say which sensors their nodes have that
    /// no table of the vendor's knows, or let devices that are added to it sign.
    Set(Set),
    /// Let the devices of a network without a cloud agree their keys with its gateway alone (e1+e2+e4).
    Local(Local),
}

#[derive(Clone, Debug, clap::Args)]
struct Local {
    #[command(flatten)]
    folder: Folder,
    /// Its name or id.
    name: String,
    /// The gateway, its primary one.
    #[arg(long, value_name = "NAME")]
    gateway: String,
    /// The gateway's public key, as fivefold gateway local said it there.
    #[arg(long, value_name = "KEY", value_parser = crate::gateway_local::key)]
    key: PublicX,
}

#[derive(Clone, Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true, args = ["classic", "sign", "sensors", "no_sensors"])]
struct Set {
    #[command(flatten)]
    folder: Folder,
    /// Its name or id.
    name: String,
    /// Whether it takes classic devices.
    #[arg(long, value_name = "yes|no", value_enum)]
    classic: Option<Classic>,
    /// Whether devices that are added to it from now on sign their readings, in batches of N: none, batch (32) or batch:N.
    #[arg(long, value_name = "none|batch[:N]")]
    sign: Option<Signing>,
    /// Sensors that you added to your nodes' software, in place of those of before: a TOML or JSON file, described in
    /// docs/tools.md. The cloud reads frames with them from now on.
    #[arg(long, value_name = "FILE", conflicts_with = "no_sensors")]
    sensors: Option<PathBuf>,
    /// Its nodes have no sensors but the vendor's.
    #[arg(long)]
    no_sensors: bool,
}

/// Whether a network takes classic devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Classic {
    /// It does not.
    No,
    /// It does.
    Yes,
}

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    folder: Folder,
    /// Its name.
    name: String,
    /// Levels that every message must have: e1+e3+e4 (the gateway can neither read nor alter), e1+e2+e3+e4 (the gateway
    /// also vouches and takes custody), e1+e2+e4 (the gateway reads). `e1` alone needs --danger-link-only as well.
    #[arg(long, default_value = "e1+e3+e4", value_parser = profile, value_name = "LEVELS")]
    levels: Profile,
    /// Allows `--levels e1`. Your words are kept and shown, e.g. "a test bench; readings may be read and forged".
    #[arg(long, value_name = "WORDS")]
    danger_link_only: Option<String>,
    /// It takes classic devices too (Waspmote, Plug & Sense!), whose frames nothing proves. It is marked for it wherever it
    /// is shown.
    #[arg(long)]
    classic: bool,
    /// Whether its devices sign their readings, in batches of N: none, batch (32) or batch:N. It can be told otherwise for each
    /// device.
    #[arg(long, value_name = "none|batch[:N]", default_value = "none")]
    sign: Signing,
    /// With --classic: sensors that you added to your nodes' software, a TOML or JSON file (docs/tools.md).
    #[arg(long, value_name = "FILE", requires = "classic")]
    sensors: Option<PathBuf>,
    /// PAN id of radios that exist already, 4 hex digits; with --danger-adopt-key.
    #[arg(long, value_name = "PAN", value_parser = pan, requires = "danger_adopt_key")]
    pan: Option<u16>,
    /// Take the network key that these radios have from this file (32 hex digits, readable by you alone) rather than draw
    /// one: whoever had it keeps it.
    #[arg(long, value_name = "FILE", requires = "pan")]
    danger_adopt_key: Option<PathBuf>,
}

fn pan(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 16).ok().filter(|_| text.len() == 4).ok_or_else(|| "expected 4 hex digits".into())
}

fn read_key(path: &Path) -> anyhow::Result<Zeroizing<[u8; 16]>> {
    let text = files::read_private(path)?;
    let mut key = Zeroizing::new([0; 16]);
    hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice())
        .map_err(|_| anyhow::anyhow!("{} holds no network key; expected 32 hex digits", path.display()))?;
    Ok(key)
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::ALL
        .into_iter()
        .find(|p| p.as_str() == text)
        .ok_or_else(|| "expected e1+e2+e4, e1+e3+e4, e1+e2+e3+e4, or e1 with --danger-link-only".into())
}

/// Runs the command.
///
/// # Errors
/// The book refuses.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Add(add) => {
            check_name(&add.name)?;
            anyhow::ensure!(
                add.levels == Profile::DangerLinkOnly || add.danger_link_only.is_none(),
                "--danger-link-only goes with --levels e1 alone; leave it out"
            );
            anyhow::ensure!(
                add.levels != Profile::DangerLinkOnly || add.danger_link_only.as_ref().is_some_and(|w| w.len() >= 8),
                "E1 alone lets anyone with the one network key read and forge every reading; if you want that, say so: \
                 --danger-link-only \"WORDS\""
            );
            anyhow::ensure!(
                add.levels != Profile::DangerLinkOnly || add.sign == Signing::NONE,
                "a batch is signed over messages of E2 or E3, and E1 alone has none; leave out --sign"
            );
            // Looked at first: a network is not added halfway.
            let sensors = add.sensors.as_deref().map(OwnSensors::read_file).transpose()?;
            let mut operator = add.folder.open()?;
            let vault = &operator.vault;
            let words = add.danger_link_only.as_deref();
            let network = match (add.pan, &add.danger_adopt_key) {
                (Some(pan), Some(file)) => {
                    let key = read_key(file)?;
                    operator.registry.danger_adopt_network(vault, &add.name, add.levels, words, pan, &key)?
                }
                _ => operator.registry.add_network(vault, &add.name, add.levels, words)?,
            };
            if add.classic {
                operator.registry.allow_classic(&network.name)?;
            }
            if add.sign.batch.is_some() {
                operator.registry.set_network_signing(&network.name, add.sign.batch)?;
            }
            let mut takes = Takes { classic: add.classic, sensors: 0 };
            if let Some((own, text)) = &sensors {
                operator.registry.set_classic_sensors(&network.name, Some(text))?;
                takes.sensors = own.len();
            }
            let dir = operator.dir.display();
            answer(output, &json_of(&network, takes, add.sign), || {
                let mark = marks(network.profile, takes);
                format!(
                    "Added network {} ({}){mark}: id {}, PAN {:04x}, network key under index 1.\n\n\
                     Next: fivefold gateway add --dir {dir} --net {} NAME",
                    network.name,
                    network.profile.as_str(),
                    network.net,
                    network.pan,
                    network.name
                )
            });
        }
        Verb::Local(local) => {
            let (_, mut registry) = local.folder.open_book()?;
            let before = registry.local(registry.network(&local.name)?.net)?;
            let now = registry.set_local(&local.name, &local.gateway, local.key)?;
            let gateway = registry.gateway(&local.gateway)?.name;
            let changed = before.is_some_and(|before| before != now);
            let value = json!({ "net": now.net.to_string(), "gateway": gateway, "key": now.x.to_string() });
            let dir = local.folder.dir.display();
            answer(output, &value, || {
                let next = if changed {
                    "Devices that agreed with the key before must be enrolled again: fivefold device enrol-again"
                } else {
                    "Next: fivefold device add"
                };
                format!(
                    "Devices of network {} agree their keys with gateway {gateway} alone. Whoever steals that gateway reads and \
                     forges everything of them.\n\n{next} --dir {dir}",
                    local.name
                )
            });
        }
        Verb::Set(set) => self::set(set, output)?,
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let networks = registry.networks()?;
            let (classic, sensors) = (registry.classic_networks()?, registry.classic_sensors()?);
            let takes = |n: &Network| Takes {
                classic: classic.contains(&n.net),
                sensors: sensors.get(&n.net).map_or(0, |own| own.len()),
            };
            let mut signs = Vec::with_capacity(networks.len());
            for network in &networks {
                signs.push(Signing { batch: registry.network_signing(network.net)? });
            }
            let each = networks.iter().zip(&signs);
            let value = Value::Array(each.clone().map(|(n, signing)| json_of(n, takes(n), *signing)).collect());
            answer(output, &value, || {
                let mut t = table(&["NAME", "ID", "PAN", "LEVELS", ""]);
                for (n, signing) in each {
                    let pan = format!("{:04x}", n.pan);
                    let signs = signing.batch.map_or(String::new(), |_| format!(" sign={signing}"));
                    let marks = format!("{}{signs}", marks(n.profile, takes(n)));
                    t.add_row([&n.name, &n.net.to_string(), &pan, n.profile.as_str(), marks.trim()]);
                }
                t.trim_fmt()
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what classic devices it takes, which sensors they have, and whether devices of its own sign.
fn set(args: &Set, output: Output) -> anyhow::Result<()> {
    let sensors = args.sensors.as_deref().map(OwnSensors::read_file).transpose()?;
    let (_, mut registry) = args.folder.open_book()?;
    let network = registry.network(&args.name)?;
    if let Some(signing) = args.sign {
        anyhow::ensure!(
            network.profile != Profile::DangerLinkOnly || signing == Signing::NONE,
            "network {} has E1 alone, and a batch is signed over messages of E2 or E3",
            network.name
        );
        registry.set_network_signing(&args.name, signing.batch)?;
    }
    match args.classic {
        Some(Classic::Yes) => _ = registry.allow_classic(&args.name)?,
        Some(Classic::No) => _ = registry.forbid_classic(&args.name)?,
        None => {}
    }
    if sensors.is_some() || args.no_sensors {
        registry.set_classic_sensors(&args.name, sensors.as_ref().map(|(_, text)| text.as_str()))?;
    }
    let takes = Takes {
        classic: registry.classic_networks()?.contains(&network.net),
        sensors: registry.classic_sensors()?.get(&network.net).map_or(0, |own| own.len()),
    };
    let signing = Signing { batch: registry.network_signing(network.net)? };
    answer(output, &json_of(&network, takes, signing), || {
        let mut said: Vec<String> = Vec::new();
        match args.classic {
            Some(Classic::No) => said.push("takes no classic devices".into()),
            Some(Classic::Yes) => {
                said.push("takes classic devices: what they send is shown as legacy or plain, never as proven".into());
            }
            None => {}
        }
        if args.sensors.is_some() || args.no_sensors {
            let s = if takes.sensors == 1 { "" } else { "s" };
            said.push(format!("reads frames of classic devices with {} sensor{s} of your own", takes.sensors));
        }
        said.extend(args.sign.map(|signing| {
            format!(
                "gives devices that are added to it sign = {signing}; those that are in it stay as they are (fivefold device set)"
            )
        }));
        format!("Network {} {}.", network.name, said.join(", and "))
    });
    Ok(())
}

/// What a network takes of classic devices.
#[derive(Clone, Copy, Debug)]
struct Takes {
    /// Whether it takes any.
    classic: bool,
    /// How many sensors of a user's own they have.
    sensors: usize,
}

/// What stands behind everything that belongs to a network with E1 alone.
pub fn insecure_mark(profile: Profile) -> &'static str {
    if profile == Profile::DangerLinkOnly { " INSECURE: E1 alone (AR-01)" } else { "" }
}

/// All that is to be seen of a network at once.
fn marks(profile: Profile, takes: Takes) -> String {
    let classic = if takes.classic { " classic" } else { "" };
    format!("{classic}{}", insecure_mark(profile))
}

fn json_of(n: &Network, takes: Takes, signing: Signing) -> Value {
    json!({
        "name": n.name, "net": n.net.to_string(), "pan": format!("{:04x}", n.pan), "levels": n.profile.as_str(),
        "group": n.group.to_string(), "insecure": n.profile == Profile::DangerLinkOnly, "override": n.override_words,
        "classic": takes.classic, "sensors": takes.sensors, "sign": signing.to_string(),
    })
}
