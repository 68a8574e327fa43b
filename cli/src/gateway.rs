//! `fivefold gateway`: gateways and their shares.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use fivefold_core::id::Did;
use fivefold_keep::ca::{LONGEST_DAYS, Role, signing_key};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::Gateway;
use fivefold_keep::share::{
    self, CA_FILE, CERTIFICATE_FILE, GATEWAY_FILE, GatewayCoap, GatewayLimits, GatewayLink, GatewaySecrets,
    GatewaySettings, GatewayStore, GatewayUplink,
};
use fivefold_keep::vault::{Vault, random};
use serde_json::{Value, json};

use crate::clock;
use crate::operator::{Folder, Operator, check_name};
use crate::output::{Output, answer, table};

/// First lines of every `gateway.toml`.
pub const GATEWAY_HEADING: &str = "A Fivefold gateway. Paths are relative to this file; secrets are in secrets.sealed.\n\
                                   Run it with: fivefold gateway run --dir THIS_FOLDER";

/// Arguments of `fivefold gateway`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Add a gateway and write its share.
    Add(Add),
    /// List all gateways.
    List(Folder),
    /// Issue a new certificate for 90 days, over the same name.
    RenewCertificate(Name),
    /// Revoke a gateway: live connections are cut within a second.
    Revoke(Name),
    /// Run the gateway of a share until it is told to stop.
    Run(crate::gateway_run::Run),
    /// Show one gateway.
    Show(Name),
}

#[derive(Clone, Debug, clap::Args)]
struct Name {
    #[command(flatten)]
    folder: Folder,
    /// Its name or id.
    name: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    new: New,
}

/// A gateway to be.
#[derive(Clone, Debug, clap::Args)]
pub struct New {
    /// The network it serves: its certificate is for that one alone.
    #[arg(long)]
    pub net: String,
    /// Its name.
    pub name: String,
    /// UDP address of its radio (ZEP).
    #[arg(long, default_value = "127.0.0.1:17754", value_name = "ADDR")]
    pub radio: SocketAddr,
    /// A radio that hears it. Repeat for each.
    #[arg(long, value_name = "ADDR")]
    pub air: Vec<SocketAddr>,
    /// Offer CoAP over UDP to devices with IP here, e.g. 127.0.0.1:5683.
    #[arg(long, value_name = "ADDR")]
    pub coap: Option<SocketAddr>,
    /// Where it finds the cloud, if not where the operator's folder says.
    #[arg(long, value_name = "URL")]
    pub cloud: Option<String>,
    /// EUI-64 of its radio; drawn if not given.
    #[arg(long)]
    pub did: Option<Did>,
    /// Short address of its radio, 4 hex digits; the next free one if not given.
    #[arg(long)]
    pub sid: Option<fivefold_core::id::Sid>,
    /// It only hears for the primary gateway of the network: it opens E2 and never answers under it.
    #[arg(long)]
    pub secondary: bool,
}

/// Runs the command.
///
/// # Errors
/// The book refuses, or a file cannot be written.
pub fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Run(run) => return crate::gateway_run::run(run, output),
        Verb::Add(args) => add(args, output)?,
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let gateways = registry.gateways()?;
            answer(output, &Value::Array(gateways.iter().map(json_of).collect()), || {
                let mut t = table(&["NAME", "ID", "NETWORK", "ROLE", "STATE"]);
                for g in &gateways {
                    t.add_row([g.name.clone(), g.gateway.to_string(), g.net.to_string(), role(g).into(), state(g)]);
                }
                t.trim_fmt()
            });
        }
        Verb::RenewCertificate(name) => {
            let mut operator = name.folder.open()?;
            let gateway = operator.registry.gateway(&name.name)?;
            anyhow::ensure!(gateway.revoked_at.is_none(), "gateway {} is revoked; add a new one", gateway.name);
            let folder = operator.gateway_folder(&gateway.name);
            let vault = Vault::open_folder(&folder)?;
            let old = GatewaySecrets::read(&vault, &folder)?;
            let serial = certify(&operator, &gateway, &vault, &folder, old)?;
            operator.registry.renew_gateway(gateway.gateway, &serial)?;
            let value = json!({ "name": gateway.name, "serial": serial });
            answer(output, &value, || format!("Renewed the certificate of {} in {}.", gateway.name, folder.display()));
        }
        Verb::Revoke(name) => {
            let (_, mut registry) = name.folder.open_book()?;
            let gateway = registry.revoke_gateway(&name.name, clock::now()?)?;
            answer(output, &json_of(&gateway), || {
                format!(
                    "Revoked gateway {}. If somebody had it in their hands, rotate the network key of {} too.",
                    gateway.name, gateway.net
                )
            });
        }
        Verb::Show(name) => {
            let (_, registry) = name.folder.open_book()?;
            let g = registry.gateway(&name.name)?;
            answer(output, &json_of(&g), || {
                format!(
                    "gateway {}\n  id           {}\n  network      {}\n  role         {}\n  radio        {} {}\n  \
                     certificate  serial {}\n  state        {}",
                    g.name,
                    g.gateway,
                    g.net,
                    role(&g),
                    g.sid,
                    g.did,
                    g.serial,
                    state(&g)
                )
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Enters a gateway in the book and writes its share.
///
/// # Errors
/// The book refuses, or a file cannot be written.
pub fn create(operator: &mut Operator, args: &New) -> anyhow::Result<Gateway> {
    check_name(&args.name)?;
    let network = operator.registry.network(&args.net)?;
    let (id, free) = operator.registry.next_gateway(network.net)?;
    let did = match args.did {
        Some(did) => did,
        None => {
            let mut did = *random::<8>()?;
            did[0] = (did[0] | 0x02) & !0x01;
            Did(did)
        }
    };
    let (signing, spki) = signing_key()?;
    let mut gateway = Gateway {
        gateway: id,
        net: network.net,
        name: args.name.clone(),
        sid: args.sid.unwrap_or(free),
        did,
        primary: !args.secondary,
        spki,
        serial: String::new(),
        revoked_at: None,
    };
    let folder = operator.gateway_folder(&args.name);
    anyhow::ensure!(!folder.exists(), "{} exists already; choose another name or remove it", folder.display());
    files::create_folder(&folder)?;
    let vault = Vault::create(&folder)?;
    let secrets = GatewaySecrets {
        tls_key: Default::default(),
        signing_key: signing,
        network_keys: operator.registry.network_keys(&operator.vault, network.net)?,
    };
    gateway.serial = certify(operator, &gateway, &vault, &folder, secrets)?;
    let ca = files::read_text(&operator.dir.join(CA_FILE))?;
    files::write(&folder.join(CA_FILE), Readers::Everybody, ca.as_bytes())?;
    let settings = GatewaySettings {
        name: args.name.clone(),
        id: id.to_string(),
        net: network.net.to_string(),
        group: network.group.to_string(),
        link: GatewayLink {
            did: did.to_string(),
            sid: gateway.sid.to_string(),
            pan: format!("{:04x}", network.pan),
            bind: args.radio,
            air: args.air.clone(),
            minimum_level: 6,
            danger_synced: Vec::new(),
        },
        coap: args.coap.map(|bind| GatewayCoap { bind, devices: Vec::new() }),
        uplink: GatewayUplink {
            cloud: args.cloud.clone().unwrap_or_else(|| operator.settings.cloud.clone()),
            insecure_allow_x25519: false,
        },
        store: GatewayStore::default(),
        limits: GatewayLimits::default(),
        metrics: None,
    };
    share::write_config(&folder.join(GATEWAY_FILE), GATEWAY_HEADING, &settings)?;
    operator.registry.add_gateway(&gateway)?;
    Ok(gateway)
}

fn add(args: &Add, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let gateway = create(&mut operator, &args.new)?;
    let folder = operator.gateway_folder(&gateway.name);
    let mut value = json_of(&gateway);
    if let Some(object) = value.as_object_mut() {
        object.insert("folder".into(), json!(folder));
    }
    answer(output, &value, || {
        format!(
            "Added gateway {} for network {} as its {} gateway. Its share is in {}.\n\n\
             Next: fivefold device add --dir {} --net {}",
            gateway.name,
            args.new.net,
            role(&gateway),
            folder.display(),
            operator.dir.display(),
            args.new.net
        )
    });
    Ok(())
}

/// Issues a certificate, and seals its key with the other secrets. Returns the serial number.
fn certify(
    operator: &Operator,
    gateway: &Gateway,
    vault: &Vault,
    folder: &Path,
    secrets: GatewaySecrets,
) -> anyhow::Result<String> {
    let role = Role::Gateway(gateway.net, gateway.gateway);
    let issued = operator.authority()?.issue(&role, clock::now()?, LONGEST_DAYS)?;
    GatewaySecrets { tls_key: issued.key, ..secrets }.write(vault, folder)?;
    files::write(&folder.join(CERTIFICATE_FILE), Readers::Everybody, issued.certificate.as_bytes())?;
    Ok(issued.serial)
}

fn role(gateway: &Gateway) -> &'static str {
    if gateway.primary { "primary" } else { "secondary" }
}

fn state(gateway: &Gateway) -> String {
    gateway.revoked_at.map_or("active".into(), |at| format!("revoked {}", clock::text(at)))
}

fn json_of(g: &Gateway) -> Value {
    json!({
        "name": g.name, "gateway": g.gateway.to_string(), "net": g.net.to_string(), "sid": g.sid.to_string(),
        "did": g.did.to_string(), "role": role(g), "serial": g.serial, "revoked_at": g.revoked_at,
    })
}
