//! `fivefold device`: devices and their shares.

mod bulk;
mod classic;
mod classic_bulk;
mod enrol;
mod key_messages;
mod renewal;
mod revoke;
mod signing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{Mode, Overrides, Policy, Profile, Radio, Sign};
use fivefold_core::suite::Alg;
use fivefold_core::wire::state::Phase;
use fivefold_core::wire::tiny::KidLength;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{Device, DeviceSecrets, Network, NetworkKey, NewDevice, Registry, Renewal, Signer};
use fivefold_keep::share::{
    self, GATEWAY_FILE, GatewaySettings, NodeLink, NodeSecrets, NodeShare, SIGNING_KEY_FILE, vault_of_share,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock;
use crate::gateway::GATEWAY_HEADING;
use crate::network::insecure_mark;
use crate::operator::{Folder, Operator, node_folder};
use crate::output::{Output, answer, table};

pub(crate) use enrol::spoken;
pub use renewal::First;
pub use signing::{Signing, Signs};

/// Arguments of `fivefold device`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Make a device's share, keys and all: to commission by cable, and for tests. Devices that make their own key are
    /// enrolled with `enrol`; classic ones are entered with `--classic SERIAL`, or many from a CSV file.
    Add(Box<Add>),
    /// Certify the signing key of a device that is in the book.
    Certify(signing::Certify),
    /// Enrol a device that made its own key: answer its request, from a file, over a serial line, or many from a CSV file.
    Enrol(Box<enrol::Args>),
    /// Install new secrets under a greater epoch: after a repair, or when a device lost its state.
    EnrolAgain(EnrolAgain),
    /// Draw a key of the hardened profile for a classic device and the primary gateway of its network, under the next epoch.
    Harden(classic::Harden),
    /// Let a hardened classic device draw its next keys itself, by the RSA key message, and write what its sketch needs for that.
    KeyMessages(key_messages::KeyMessages),
    /// List all devices.
    List(Folder),
    /// Order devices to renew their contexts by EDHOC: one, those of a network, or all.
    Renew(renewal::Args),
    /// Enter the node id that a classic device has now.
    Rename(classic::Rename),
    /// Revoke a device: cloud and gateways refuse it from now on. It still has the network key, and passes E1 until that
    /// is rotated.
    Revoke(revoke::Args),
    /// Let a device sign its readings, or no more.
    Set(signing::Set),
    /// Give a classic device other keys, in place of all that it had.
    SetKeys(classic::SetKeys),
    /// Show one device.
    Show(Any),
}

/// A device of any kind.
#[derive(Clone, Debug, clap::Args)]
struct Any {
    #[command(flatten)]
    folder: Folder,
    /// Its EUI-64, or the serial of a classic device.
    #[arg(value_name = "DEVICE", value_parser = classic::Which::parse)]
    device: classic::Which,
}

#[derive(Clone, Debug, clap::Args)]
struct One {
    #[command(flatten)]
    folder: Folder,
    /// Its EUI-64.
    did: Did,
}

/// What a device is told of its place on the radio.
#[derive(Clone, Debug, clap::Args)]
pub struct Handing {
    /// UDP address of its radio (ZEP), or of its CoAP socket where the radio is `ip`.
    /// Left out, the device hears and is heard by the gateways whose shares are still in this folder, on this machine.
    #[arg(long, value_name = "ADDR", requires = "air")]
    pub bind: Option<SocketAddr>,
    /// A radio that hears it; of an `ip` device, the gateway's CoAP address. Repeat for each.
    #[arg(long, value_name = "ADDR")]
    pub air: Vec<SocketAddr>,
    /// Short address to send uplink to; 0000 is any gateway in reach. Repeat for more, best first.
    #[arg(long = "parent", value_name = "SID", default_values_t = [Sid::ANY_GATEWAY])]
    pub parents: Vec<Sid>,
    /// Also write the E3 context in the form of aiocoap (a stock OSCORE client), into this folder, readable by you alone.
    #[arg(long, value_name = "DIR")]
    pub aiocoap: Option<PathBuf>,
    /// Whether its share holds its first contexts, or it agrees them with the cloud (mode P, E2 or E3). At a site without a
    /// cloud it always agrees them, with the gateway.
    #[arg(long, value_enum, default_value_t)]
    pub first_contexts: First,
}

#[derive(Clone, Debug, clap::Args)]
struct EnrolAgain {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    handing: Handing,
}

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    classic: classic::New,
}

/// Every so many messages a device on LoRaWAN wants an answer (docs/protocol.md 9.1): each takes a receive window of everybody.
const LORAWAN_ACK_EVERY: u8 = 8;

/// What a device's policy record says, where the network does not.
#[derive(Clone, Debug, clap::Args)]
pub struct Record {
    /// AEAD of E2 and E3: 11 is AES-256, 10 is AES-128 for stock devices that know nothing else.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u8).range(10..=11))]
    pub alg: u8,
    /// Bytes of the sender in tiny requests: 0 takes it from the link.
    #[arg(long, default_value_t = 0, value_parser = kid_length, value_name = "0|2")]
    pub kid_length: u8,
    /// It wants an answer every so many messages [default: 8 on lorawan, else 1].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub ack_every: Option<u8>,
    /// What carries its frames: 802.15.4, 802.15.4-mic32, ip and others of docs/protocol.md 6.4.
    #[arg(long, default_value = "802.15.4", value_parser = radio)]
    pub radio: Radio,
    /// Allows a radio without E1 (ip, for one; lorawan under ABP): strangers then reach the gateway in its name. Your words are
    /// kept.
    #[arg(long, value_name = "WORDS")]
    pub danger_no_link: Option<String>,
    /// Whether it signs its readings.
    #[command(flatten)]
    pub signs: Signs,
}

impl Record {
    /// The record in a network that signs in batches of `signing`, if it does; what it overrides, and the operator's words
    /// for that.
    ///
    /// # Errors
    /// A radio without E1, and no words for it; more readings in a batch than the device may sign.
    pub fn of(
        &self,
        (network, signing): (&Network, Option<u8>),
        mode: Mode,
    ) -> anyhow::Result<(Policy, Overrides, Option<String>)> {
        let mut policy = Policy::new(network.profile);
        self.signs.resolve(signing)?.set(&mut policy);
        policy.alg = if self.alg == 10 { Alg::AesCcm16_64_128 } else { Alg::AesCcm16_64_256 };
        policy.mode = mode;
        policy.kid_length = if self.kid_length == 2 { KidLength::Two } else { KidLength::None };
        let usual = if self.radio == Radio::Lorawan { LORAWAN_ACK_EVERY } else { 1 };
        policy.ack_every = self.ack_every.unwrap_or(usual);
        policy.radio = self.radio;
        let is_e1 = self.radio.link_class().is_e1();
        anyhow::ensure!(
            self.danger_no_link.as_ref().map_or(is_e1, |w| w.len() >= 8),
            "radio {} has no E1, so strangers reach the gateway in this device's name; if you want that, say so: \
             --danger-no-link \"WORDS\"",
            self.radio.as_str()
        );
        // Under ABP, which no record says, LoRaWAN is none either: the gateway's configuration names such devices.
        let under_abp = self.radio == Radio::Lorawan && self.danger_no_link.is_some();
        let danger_no_link = !is_e1 || under_abp;
        let overrides = Overrides { danger_link_only: network.profile == Profile::DangerLinkOnly, danger_no_link };
        Ok((policy, overrides, self.danger_no_link.clone().or(network.override_words.clone())))
    }
}

/// A device to be.
#[derive(Clone, Debug, clap::Args)]
pub struct New {
    /// Its network: the levels that it must use are the network's.
    #[arg(long)]
    pub net: String,
    /// EUI-64; drawn if not given.
    #[arg(long)]
    pub did: Option<Did>,
    /// Short id, 4 hex digits; the next free one if not given.
    #[arg(long)]
    pub sid: Option<Sid>,
    /// P: the device has flash that it can trust. R: it draws a boot id instead.
    #[arg(long, default_value = "P", value_parser = mode)]
    pub mode: Mode,
    /// Its policy record.
    #[command(flatten)]
    pub record: Record,
    /// Its place on the radio.
    #[command(flatten)]
    pub handing: Handing,
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::ALL.into_iter().find(|m| m.as_str() == text).ok_or_else(|| "expected P or R".into())
}

fn radio(text: &str) -> Result<Radio, String> {
    let known = || Radio::ALL.map(Radio::as_str).join(", ");
    Radio::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| format!("expected one of {}", known()))
}

fn kid_length(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "2" => Ok(2),
        _ => Err("expected 0 or 2".into()),
    }
}

/// Runs the command.
///
/// # Errors
/// The book refuses, or a file cannot be written.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Add(args) => return add(args, output),
        Verb::Certify(args) => return signing::certify(args, output),
        Verb::Enrol(args) => return enrol::run(args, output),
        Verb::EnrolAgain(args) => {
            let mut operator = args.one.folder.open()?;
            let Device { net, policy, .. } = operator.registry.device(args.one.did)?;
            opens_signing_key(&node_folder(&operator.dir, &args.one.did.to_string()))?;
            let keys = renewal::draw(&mut operator, net, &policy, args.handing.first_contexts)?;
            let key = keys.as_ref().map(|k| &k.key);
            let (device, secrets) = operator.registry.enrol_again(&operator.vault, args.one.did, key, clock::now()?)?;
            let folder = hand_out(&operator, &device, secrets, keys, &args.handing)?;
            answer(output, &json_with_folder(&operator.registry, &device, &folder)?, || {
                format!(
                    "Installed device {} anew: epoch {}. Its share is in {}.",
                    device.did,
                    device.epoch,
                    folder.display()
                )
            });
        }
        Verb::Harden(args) => classic::harden(args, output)?,
        Verb::KeyMessages(args) => key_messages::run(args, output)?,
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let devices = registry.devices()?;
            let renewals = registry.renewals()?;
            let renewal_of =
                |d: &Device| renewals.binary_search_by_key(&d.did, |r| r.did).ok().and_then(|i| renewals.get(i));
            let classics = registry.classic_devices()?;
            let signers = registry.signers()?;
            let modern = devices.iter().map(|d| json_with(d, renewal_of(d), &signers));
            let value = modern.chain(classics.iter().map(classic::json_of)).collect();
            let findings = crate::audit::hint(&registry)?;
            answer(output, &Value::Array(value), || {
                let mut t = table(&["DEVICE", "SID", "NETWORK", "LEVELS", "ALG", "EPOCH", "RENEWED", "STATE"]);
                for d in &devices {
                    let renewal = renewal_of(d);
                    let levels = format!("{}{}", d.policy.profile.as_str(), mark(d));
                    t.add_row([
                        d.did.to_string(),
                        d.sid.to_string(),
                        d.net.to_string(),
                        levels,
                        d.policy.alg.cose().to_string(),
                        renewal::epoch(d, renewal),
                        renewed(renewal),
                        state(d),
                    ]);
                }
                t.add_rows(classics.iter().map(classic::row));
                t.trim_fmt() + &findings
            });
        }
        Verb::Renew(args) => return renewal::order(args, output),
        Verb::Rename(args) => classic::rename(args, output)?,
        Verb::Revoke(args) => return revoke::run(args, output),
        Verb::Set(args) => return signing::set(args, output),
        Verb::SetKeys(args) => classic::set_keys(args, output)?,
        Verb::Show(any) => {
            let (_, registry) = any.folder.open_book()?;
            let did = match any.device.resolve(&registry)? {
                classic::Kind::Classic(device) => {
                    classic::show(&device, output);
                    return Ok(ExitCode::SUCCESS);
                }
                classic::Kind::Modern(did) => did,
            };
            let d = registry.device(did)?;
            let renewal = registry.renewal(d.did)?;
            let renewed = match registry.local(d.net)? {
                Some(_) => "with its gateway alone, which knows how far it is".into(),
                None => renewal::words(renewal.as_ref()),
            };
            let signers = registry.signers_of(did)?;
            answer(output, &json_with(&d, renewal.as_ref(), &signers), || {
                format!(
                    "device {}\n  sid          {}\n  network      {}\n  levels       {}{}\n  algorithm    {}\n  mode         {}\n  \
                     radio        {}\n  enrolled     {}\n  epoch        {}\n  renewed      {}{}\n  signing      {}\n  state        {}",
                    d.did,
                    d.sid,
                    d.net,
                    d.policy.profile.as_str(),
                    mark(&d),
                    d.policy.alg.cose(),
                    d.policy.mode.as_str(),
                    d.policy.radio.as_str(),
                    clock::text(d.enrolled_at),
                    renewal::epoch(&d, renewal.as_ref()),
                    renewed,
                    ordered(renewal.as_ref()),
                    signing::words(&d, &signers),
                    state(&d)
                )
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Enrols a device and writes its share. Returns it with the folder of the share.
///
/// # Errors
/// The book refuses, or a file cannot be written.
pub fn create(operator: &mut Operator, args: &New) -> anyhow::Result<(Device, PathBuf)> {
    let network = operator.registry.network(&args.net)?;
    let signing = operator.registry.network_signing(network.net)?;
    let (mut policy, overrides, words) = args.record.of((&network, signing), args.mode)?;
    renewal::fit(operator, network.net, &mut policy)?;
    let keys = renewal::draw(operator, network.net, &policy, args.handing.first_contexts)?;
    let key = keys.as_ref().map(|k| k.key);
    let new = NewDevice { did: args.did, sid: args.sid, net: network.net, policy, overrides, words, key };
    let (device, secrets) = operator.registry.add_device(&operator.vault, &new, clock::now()?)?;
    let folder = hand_out(operator, &device, secrets, keys, &args.handing)?;
    Ok((device, folder))
}

fn add(args: &Add, output: Output) -> anyhow::Result<ExitCode> {
    args.classic.refuse_alone()?;
    let mut operator = args.folder.open()?;
    if let Some(path) = &args.classic.csv {
        return classic_bulk::run(&mut operator, path, (&args.classic, &args.new.net), output);
    }
    if let Some(serial) = args.classic.classic.flatten() {
        classic::add(&mut operator, (serial, &args.classic), (&args.new.net, args.new.sid), output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (device, folder) = create(&mut operator, &args.new)?;
    let note = match operator.registry.renewal(device.did)? {
        Some(r) if renewal::is_installed(&r) => {
            " It holds the keys in use, which stays a finding until the first renewal (AR-43)."
        }
        _ => "",
    };
    let local = operator.registry.local(device.net)?;
    let gateways = operator.registry.gateways()?;
    let tell = local.and_then(|l| gateways.iter().find(|g| g.gateway == l.gateway)).map_or(String::new(), |gateway| {
        format!("tell its gateway: fivefold gateway state --dir {} {}; then ", operator.dir.display(), gateway.name)
    });
    answer(output, &json_with_folder(&operator.registry, &device, &folder)?, || {
        format!(
            "Enrolled device {} in network {} as {} ({}{}). Its share is in {}.{}\n\n\
             Next: {tell}flash it, or run it as a software node: fivefold node run --dir {}",
            device.did,
            args.new.net,
            device.sid,
            device.policy.profile.as_str(),
            mark(&device),
            folder.display(),
            note,
            folder.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Writes the share of a device, and what was asked for beside it.
fn hand_out(
    operator: &Operator,
    device: &Device,
    secrets: DeviceSecrets,
    renews: Option<renewal::Keys>,
    handing: &Handing,
) -> anyhow::Result<PathBuf> {
    let installed = renews.as_ref().is_none_or(renewal::Keys::are_installed);
    let network = operator.registry.network(&device.net.to_string())?;
    let key = network_key(operator, &network)?;
    if let Some(folder) = &handing.aiocoap {
        anyhow::ensure!(
            installed,
            "--aiocoap writes installed contexts, and this device agrees its first ones; leave it out"
        );
        write_aiocoap(folder, device, &secrets)?;
    }
    let (bind, air) = match handing.bind {
        Some(bind) => (bind, handing.air.clone()),
        None => on_this_machine(operator, device, &handing.air)?,
    };
    let profile = device.policy.profile;
    let (cloud, gateway, dh_key) = match renews {
        None => (None, None, None),
        Some(renewal::Keys { peer: renewal::Peer::Cloud(peer), scalar, .. }) => (Some(peer), None, Some(scalar)),
        Some(renewal::Keys { peer: renewal::Peer::Gateway(peer), scalar, .. }) => (None, Some(peer), Some(scalar)),
    };
    let share = NodeShare {
        did: device.did,
        sid: device.sid,
        net: device.net,
        pan: network.pan,
        group: network.group,
        epoch: device.epoch,
        policy: device.policy,
        overrides: device.overrides,
        link: NodeLink { bind, air, parents: handing.parents.iter().map(Sid::to_string).collect() },
        cloud,
        gateway,
        secrets: NodeSecrets {
            key_index: key.index,
            network_key: key.key,
            e3: (profile.has_e3() && installed).then(|| (secrets.ms3.clone(), secrets.salt3)),
            e2_root: (profile.has_e2() && installed).then(|| secrets.e2_root.clone()),
            root_psk: secrets.root_psk.clone(),
            dh_key,
            blind: (device.policy.sign == Sign::Batch && installed).then(|| secrets.blind.clone()),
        },
    };
    let folder = node_folder(&operator.dir, &device.did.to_string());
    share.write(&folder)?;
    Ok(folder)
}

/// Looks whether the signing key in a node's folder opens, before anything is changed: its new share goes under the same vault.
fn opens_signing_key(folder: &Path) -> anyhow::Result<()> {
    if !folder.join(SIGNING_KEY_FILE).exists() {
        return Ok(());
    }
    vault_of_share(folder).map(drop).with_context(|| {
        format!(
            "{}: the signing key of this device does not open, so nothing was changed; bring back vault.toml and passphrase, or move \
             {SIGNING_KEY_FILE} away and certify another",
            folder.display()
        )
    })
}

/// The key of a network that its devices send under.
fn network_key(operator: &Operator, network: &Network) -> anyhow::Result<NetworkKey> {
    let of_network = operator.registry.network_keys(&operator.vault, network.net)?;
    let key = of_network.into_iter().rev().find(|k| k.phase == Phase::Switch);
    key.ok_or_else(|| anyhow::anyhow!("network {} has no key in use", network.name))
}

/// A free port on loopback for the device's radio, in the air of the network's gateways: their config is told. Where
/// `air` is given, it stays as it is.
fn on_this_machine(
    operator: &Operator,
    device: &Device,
    air: &[SocketAddr],
) -> anyhow::Result<(SocketAddr, Vec<SocketAddr>)> {
    let count = u16::try_from(operator.registry.devices()?.len() % 20_000).unwrap_or(0);
    let bind = SocketAddr::from(([127, 0, 0, 1], 20_000 + count));
    if !air.is_empty() {
        return Ok((bind, air.to_vec()));
    }
    let mut heard_by = Vec::new();
    for gateway in operator.registry.gateways()?.iter().filter(|g| g.net == device.net && g.revoked_at.is_none()) {
        let path = operator.gateway_folder(&gateway.name).join(GATEWAY_FILE);
        if !path.exists() {
            continue;
        }
        let mut settings: GatewaySettings = share::read_config(&path)?;
        if device.policy.radio == Radio::Ip {
            heard_by.extend(settings.coap.as_ref().map(|c| c.bind));
            continue;
        }
        heard_by.push(settings.link.bind);
        settings.link.air.push(bind);
        share::write_config(&path, GATEWAY_HEADING, &settings)?;
    }
    Ok((bind, heard_by))
}

/// A context folder of aiocoap: `settings.json` of its `FilesystemSecurityContext`.
fn write_aiocoap(folder: &Path, device: &Device, secrets: &DeviceSecrets) -> anyhow::Result<()> {
    anyhow::ensure!(
        device.policy.profile == Profile::ToCloud,
        "--aiocoap is for e1+e3+e4: a stock client has one OSCORE context, and it is the cloud's"
    );
    let algorithm = match device.policy.alg {
        Alg::AesCcm16_64_128 => "AES-CCM-16-64-128",
        Alg::AesCcm16_64_256 => "AES-CCM-16-64-256",
    };
    let text = Zeroizing::new(format!(
        "{{\"sender-id_hex\": \"{}\", \"recipient-id_hex\": \"{}\", \"secret_hex\": \"{}\", \"salt_hex\": \"{}\", \
         \"algorithm\": \"{algorithm}\"}}\n",
        device.sid,
        device.epoch.with_bytes(|b| hex::encode(b)),
        hex::encode(secrets.ms3.as_slice()),
        hex::encode(secrets.salt3)
    ));
    files::create_folder(folder)?;
    Ok(files::write(&folder.join("settings.json"), Readers::Owner, text.as_bytes())?)
}

fn mark(device: &Device) -> &'static str {
    match (device.policy.profile, device.overrides.danger_no_link) {
        (Profile::DangerLinkOnly, _) => insecure_mark(Profile::DangerLinkOnly),
        (_, true) => " INSECURE: no E1 (AR-02)",
        _ => "",
    }
}

fn state(device: &Device) -> String {
    device.revoked_at.map_or("active".into(), |at| format!("revoked {}", clock::text(at)))
}

fn ordered(renewal: Option<&Renewal>) -> String {
    let pending = renewal.and_then(|r| r.ordered_at.filter(|at| r.agreed_at.is_none_or(|done| done <= *at)));
    pending.map_or(String::new(), |at| format!(" (ordered {})", clock::text(at)))
}

fn renewed(renewal: Option<&Renewal>) -> String {
    match renewal {
        Some(r) if renewal::is_installed(r) => "installed (AR-43)".into(),
        _ => renewal.and_then(|r| r.agreed_at).map_or("-".into(), clock::text),
    }
}

fn json_of(registry: &Registry, d: &Device, renewal: Option<&Renewal>) -> anyhow::Result<Value> {
    Ok(json_with(d, renewal, &registry.signers_of(d.did)?))
}

/// With the signing keys of this device, which may stand among others'.
fn json_with(d: &Device, renewal: Option<&Renewal>, signers: &[Signer]) -> Value {
    let own = signers.iter().filter(|s| s.did == d.did);
    let (in_force, before): (Vec<_>, Vec<_>) = own.partition(|s| s.revoked_at.is_none());
    let unsigned = d.policy.sign == Sign::Batch && in_force.is_empty() && d.revoked_at.is_none();
    json!({
        "classic": false, "did": d.did.to_string(), "sid": d.sid.to_string(), "net": d.net.to_string(),
        "levels": d.policy.profile.as_str(), "alg": d.policy.alg.cose(), "mode": d.policy.mode.as_str(),
        "radio": d.policy.radio.as_str(), "epoch": d.epoch.0, "enrolled_at": d.enrolled_at, "revoked_at": d.revoked_at,
        "insecure": d.policy.profile == Profile::DangerLinkOnly || d.overrides.danger_no_link, "override": d.words,
        "renewal": renewal::json_of(renewal), "sign": Signing::of(&d.policy).to_string(),
        "signing": {
            "key": in_force.first().map(|s| signing::json_of(s)),
            "revoked": before.iter().map(|s| signing::json_of(s)).collect::<Vec<_>>(),
            "finding": unsigned.then_some("AR-25"),
        },
    })
}

fn json_with_folder(registry: &Registry, device: &Device, folder: &Path) -> anyhow::Result<Value> {
    let mut value = json_of(registry, device, registry.renewal(device.did)?.as_ref())?;
    if let Some(object) = value.as_object_mut() {
        object.insert("folder".into(), json!(folder));
    }
    Ok(value)
}
