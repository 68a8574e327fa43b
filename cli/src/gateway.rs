//! `fivefold gateway`: gateways and their shares.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use fivefold_core::id::{Did, GatewayId};
use fivefold_keep::ca::{Certified, LONGEST_DAYS, Role, signing_key};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::{Certificate, Event, Gateway, Registry};
use fivefold_keep::share::{
    self, CA_FILE, CERTIFICATE_FILE, GATEWAY_FILE, GatewayCoap, GatewayLimits, GatewayLink, GatewaySecrets,
    GatewaySettings, GatewayStore, GatewayUplink,
};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::vault::{Vault, random};
use serde_json::{Value, json};

use crate::backup;
use crate::clock;
use crate::gateway_join;
use crate::gateway_local;
use crate::operator::{Folder, Operator, by, check_name, who};
use crate::output::{Output, answer, table};

pub use fivefold_gateway::join::HEADING as GATEWAY_HEADING;

/// Arguments of `fivefold gateway`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Add a gateway and write its share, keys included: for one machine. Elsewhere: invite, and join there.
    Add(Add),
    /// Let a gateway renew once with a certificate that has ended.
    AllowLateRenewal(gateway_join::Late),
    /// At the gateway: back its folder up, while it runs: all of it first, then what has changed. It is read back.
    Backup(backup::Backup),
    /// Make a token by which a gateway, new or known, gets its certificate for keys of its own.
    Invite(gateway_join::Invite),
    /// At the gateway: make keys, get a certificate for them, and write the gateway's folder.
    Join(gateway_join::Join),
    /// List all gateways.
    List(Folder),
    /// At the gateway of a site without a cloud: make the key with which it agrees keys with its devices alone.
    Local(gateway_local::Local),
    /// Make new keys and a certificate in the share of a gateway that was added here.
    RenewCertificate(Name),
    /// At the gateway: make its folder out of a backup, so that it may start: it repeats no number. If it is interrupted, type
    /// it again.
    Restore(backup::Restore),
    /// Revoke a gateway: live connections are cut within a second.
    Revoke(Name),
    /// Run the gateway of a share until it is told to stop.
    Run(crate::gateway_run::Run),
    /// Show one gateway, with its certificates and what was done about them.
    Show(Name),
    /// Sign the request of a gateway that has no way to the cloud yet.
    Sign(gateway_join::Sign),
    /// Write what a gateway without a cloud is to know: devices, network keys, revocations.
    State(gateway_local::State),
    /// At the gateway: bearer tokens for classic frames at /hw/ps.
    Token(crate::gateway_token::Token),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Name {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Its name or id.
    pub(crate) name: String,
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
        Verb::Backup(args) => return backup::backup(args, backup::Of::Gateway, output),
        Verb::Restore(args) => return backup::restore(args, backup::Of::Gateway, output),
        Verb::Add(args) => add(args, output)?,
        Verb::AllowLateRenewal(args) => gateway_join::allow_late_renewal(args, output)?,
        Verb::Invite(args) => gateway_join::invite(args, output)?,
        Verb::Join(args) => gateway_join::join(args, output)?,
        Verb::Local(args) => gateway_local::local(args, output)?,
        Verb::Sign(args) => gateway_join::sign(args, output)?,
        Verb::State(args) => gateway_local::state(args, output)?,
        Verb::Token(args) => crate::gateway_token::token(args, output)?,
        Verb::List(folder) => {
            let (_, registry) = folder.open_book()?;
            let papers = Papers::of(&registry)?;
            let gateways = registry.gateways()?;
            answer(output, &Value::Array(gateways.iter().map(|g| papers.json_of(g)).collect()), || {
                let mut t = table(&["NAME", "ID", "NETWORK", "ROLE", "UNTIL", "STATE"]);
                for g in &gateways {
                    let until = papers.in_force(g).map_or("-".into(), |c| clock::text(c.not_after));
                    let (id, net) = (g.gateway.to_string(), g.net.to_string());
                    t.add_row([g.name.clone(), id, net, role(g).into(), until, papers.state(g)]);
                }
                t.trim_fmt()
            });
        }
        Verb::RenewCertificate(name) => {
            let mut operator = name.folder.open()?;
            let gateway = operator.registry.gateway(&name.name)?;
            anyhow::ensure!(gateway.revoked_at.is_none(), "gateway {} is revoked; add a new one", gateway.name);
            let folder = operator.gateway_folder(&gateway.name);
            anyhow::ensure!(
                folder.exists(),
                "the share of {} is not here: a gateway that joined renews by itself; after its end see: \
                 fivefold gateway allow-late-renewal {}",
                gateway.name,
                gateway.name
            );
            let vault = Vault::open_folder(&folder)?;
            let old = GatewaySecrets::read(&vault, &folder)?;
            let receipts = SigningKey::from_pkcs8(&old.signing_key)?.spki().to_vec();
            let certified = certify(&operator, &gateway, &vault, &folder, old)?;
            let owner = Some((gateway.gateway, receipts.as_slice()));
            enter(&mut operator, owner, &certified)?;
            let value = json!({ "name": gateway.name, "serial": certified.serial });
            answer(output, &value, || format!("Renewed the certificate of {} in {}.", gateway.name, folder.display()));
        }
        Verb::Revoke(name) => {
            let (_, mut registry) = name.folder.open_book()?;
            let gateway = registry.revoke_gateway(&name.name, by(&who(), clock::now()?))?;
            answer(output, &Papers::of(&registry)?.json_of(&gateway), || {
                format!(
                    "Revoked gateway {}. If somebody had it in their hands, rotate the network key of {} too.",
                    gateway.name, gateway.net
                )
            });
        }
        Verb::Show(name) => {
            let (_, registry) = name.folder.open_book()?;
            let g = registry.gateway(&name.name)?;
            let papers = Papers::of(&registry)?;
            answer(output, &papers.json_of(&g), || papers.text_of(&g));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Enters a gateway in the book and writes its share.
///
/// # Errors
/// The book refuses, or a file cannot be written.
pub fn create(operator: &mut Operator, args: &New) -> anyhow::Result<Gateway> {
    let mut gateway = plan(&operator.registry, &args.net, &args.name, args.did, args.sid, Standby::of(args.secondary))?;
    let network = operator.registry.network(&args.net)?;
    let (signing, spki) = signing_key()?;
    let folder = operator.gateway_folder(&args.name);
    anyhow::ensure!(!folder.exists(), "{} exists already; choose another name or remove it", folder.display());
    files::create_folder(&folder)?;
    let vault = Vault::create(&folder)?;
    let secrets = GatewaySecrets {
        tls_key: Default::default(),
        signing_key: signing,
        network_keys: operator.registry.network_keys(&operator.vault, network.net)?,
    };
    let certified = certify(operator, &gateway, &vault, &folder, secrets)?;
    let ca = files::read_text(&operator.dir.join(CA_FILE))?;
    files::write(&folder.join(CA_FILE), Readers::Everybody, ca.as_bytes())?;
    let settings = GatewaySettings {
        name: args.name.clone(),
        id: gateway.gateway.to_string(),
        net: network.net.to_string(),
        group: network.group.to_string(),
        link: GatewayLink {
            did: gateway.did.to_string(),
            sid: gateway.sid.to_string(),
            pan: format!("{:04x}", network.pan),
            bind: args.radio,
            air: args.air.clone(),
            minimum_level: 6,
            danger_synced: Vec::new(),
        },
        coap: args.coap.map(|bind| GatewayCoap { bind, devices: Vec::new() }),
        uplink: Some(GatewayUplink {
            cloud: args.cloud.clone().unwrap_or_else(|| operator.settings.cloud.clone()),
            insecure_allow_x25519: false,
        }),
        local: None,
        store: GatewayStore::default(),
        limits: GatewayLimits::default(),
        metrics: None,
        insecure_http: None,
        xbee: None,
        lorawan: None,
    };
    share::write_config(&folder.join(GATEWAY_FILE), GATEWAY_HEADING, &settings)?;
    operator.registry.add_gateway(&gateway)?;
    let owner = Some((gateway.gateway, spki.as_slice()));
    enter(operator, owner, &certified)?;
    gateway.receipt_keys = vec![spki];
    Ok(gateway)
}

/// Whether a gateway is the one that answers under E2, or hears for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    Primary,
    Secondary,
}

impl Standby {
    pub(crate) const fn of(secondary: bool) -> Self {
        if secondary { Self::Secondary } else { Self::Primary }
    }
}

/// A gateway as it would be entered in the book.
pub(crate) fn plan(
    registry: &Registry,
    net: &str,
    name: &str,
    did: Option<Did>,
    sid: Option<fivefold_core::id::Sid>,
    standby: Standby,
) -> anyhow::Result<Gateway> {
    check_name(name)?;
    let network = registry.network(net)?;
    let (id, free) = registry.next_gateway(network.net)?;
    let did = match did {
        Some(did) => did,
        None => {
            let mut did = *random::<8>()?;
            did[0] = (did[0] | 0x02) & !0x01;
            Did(did)
        }
    };
    Ok(Gateway {
        gateway: id,
        net: network.net,
        name: name.to_owned(),
        sid: sid.unwrap_or(free),
        did,
        primary: standby == Standby::Primary,
        receipt_keys: Vec::new(),
        revoked_at: None,
    })
}

fn add(args: &Add, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let gateway = create(&mut operator, &args.new)?;
    let folder = operator.gateway_folder(&gateway.name);
    let mut value = Papers::of(&operator.registry)?.json_of(&gateway);
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

/// Issues a certificate, and seals its key with the other secrets.
fn certify(
    operator: &Operator,
    gateway: &Gateway,
    vault: &Vault,
    folder: &Path,
    secrets: GatewaySecrets,
) -> anyhow::Result<Certified> {
    let role = Role::Gateway(gateway.net, gateway.gateway);
    let issued = operator.authority()?.issue(&role, clock::now()?, LONGEST_DAYS)?;
    GatewaySecrets { tls_key: issued.key, ..secrets }.write(vault, folder)?;
    files::write(&folder.join(CERTIFICATE_FILE), Readers::Everybody, issued.certified.chain.as_bytes())?;
    Ok(issued.certified)
}

/// Enters a gateway's certificate with its key for receipts, which gets a certificate of its own.
fn enter(operator: &mut Operator, owner: Option<(GatewayId, &[u8])>, certified: &Certified) -> anyhow::Result<()> {
    let (who, authority) = (who(), operator.authority()?);
    let word = by(&who, clock::now()?);
    operator.registry.enter_certificate(owner, certified, word)?;
    operator.registry.certify_receipts(&authority, word)?;
    Ok(())
}

pub(crate) fn role(gateway: &Gateway) -> &'static str {
    if gateway.primary { "primary" } else { "secondary" }
}

/// Certificates and history of all gateways, for showing.
pub(crate) struct Papers {
    certificates: Vec<Certificate>,
    history: Vec<Event>,
    now: u64,
}

impl Papers {
    pub(crate) fn of(registry: &Registry) -> anyhow::Result<Self> {
        let (certificates, history) = (registry.certificates()?, registry.history()?);
        Ok(Self { certificates, history, now: clock::now()? })
    }

    fn certificates(&self, gateway: GatewayId) -> impl DoubleEndedIterator<Item = &Certificate> {
        self.certificates.iter().filter(move |c| c.gateway == Some(gateway))
    }

    fn history(&self, gateway: GatewayId) -> impl Iterator<Item = &Event> {
        self.history.iter().filter(move |e| e.gateway == Some(gateway))
    }

    /// The newest certificate that is not revoked, ended or not.
    fn in_force(&self, g: &Gateway) -> Option<&Certificate> {
        self.certificates(g.gateway).rfind(|c| c.revoked_at.is_none())
    }

    fn state(&self, g: &Gateway) -> String {
        match (g.revoked_at, self.in_force(g)) {
            (Some(at), _) => format!("revoked {}", clock::text(at)),
            (None, None) => "invited".into(),
            (None, Some(c)) if c.not_after <= self.now => "certificate ended".into(),
            (None, Some(_)) => "active".into(),
        }
    }

    pub(crate) fn json_of(&self, g: &Gateway) -> Value {
        let certificates = self.certificates(g.gateway).map(|c| {
            json!({ "serial": c.serial, "spki_sha256": c.spki.to_string(), "not_before": c.not_before,
                    "not_after": c.not_after, "revoked_at": c.revoked_at })
        });
        let history = self.history(g.gateway).map(|e| {
            json!({ "at": e.at, "who": e.who, "what": e.deed.as_str(), "serial": e.serial,
                    "spki_sha256": e.spki.map(|s| s.to_string()) })
        });
        json!({
            "name": g.name, "gateway": g.gateway.to_string(), "net": g.net.to_string(), "sid": g.sid.to_string(),
            "did": g.did.to_string(), "role": role(g), "certified_as": g.certified_as().to_string(),
            "state": self.state(g), "revoked_at": g.revoked_at,
            "serial": self.in_force(g).map(|c| c.serial.clone()),
            "not_after": self.in_force(g).map(|c| c.not_after),
            "certificates": certificates.collect::<Vec<_>>(), "history": history.collect::<Vec<_>>(),
        })
    }

    fn text_of(&self, g: &Gateway) -> String {
        let certificate = self
            .in_force(g)
            .map_or("none yet".into(), |c| format!("serial {}, until {}", c.serial, clock::text(c.not_after)));
        let mut text = format!(
            "gateway {}\n  id           {}\n  network      {}\n  role         {}\n  radio        {} {}\n  \
             certificate  {certificate}\n  state        {}",
            g.name,
            g.gateway,
            g.net,
            role(g),
            g.sid,
            g.did,
            self.state(g)
        );
        for e in self.history(g.gateway) {
            let serial = e.serial.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
            text.push_str(&format!("\n  {}  {}{serial}, by {}", clock::text(e.at), e.deed.as_str(), e.who));
        }
        text
    }
}
