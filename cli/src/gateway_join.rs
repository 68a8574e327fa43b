//! How a gateway comes by its certificate: `invite`, `sign` and `allow-late-renewal` at the operator, `join` at the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, Sid};
use fivefold_core::time::Millis;
use fivefold_gateway::join::{self, Site};
use fivefold_keep::enrol::{Grant, Request, Token};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::share::CA_FILE;
use fivefold_keep::tls::{Anchor, Pin, certificate_hash};
use serde_json::json;

use crate::clock;
use crate::gateway::{Name, Papers, Standby, plan, role};
use crate::operator::{Folder, acted, by, who};
use crate::output::{Output, answer};

/// `fivefold gateway invite`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Invite {
    #[command(flatten)]
    folder: Folder,
    /// The network that a new gateway serves: its certificate is for that one alone.
    #[arg(long)]
    net: Option<String>,
    /// Its name. One that is known already gets another token: its certificates are revoked once that is used.
    name: String,
    /// EUI-64 of its radio; drawn if not given.
    #[arg(long)]
    did: Option<Did>,
    /// Short address of its radio, 4 hex digits; the next free one if not given.
    #[arg(long)]
    sid: Option<Sid>,
    /// It only hears for the primary gateway of the network: it opens E2 and never answers under it.
    #[arg(long)]
    secondary: bool,
    /// How long the token is good.
    #[arg(long, default_value_t = 72, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..=720))]
    hours: u16,
    /// Write the token here (mode 600) instead of showing it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// `fivefold gateway join`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Join {
    /// The gateway's folder: made if it is not there. Keys are made in it and stay.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the cloud is, e.g. https://cloud.example:8443.
    #[arg(long, value_name = "URL")]
    cloud: Option<String>,
    /// The operator's CA certificate, ca.pem.
    #[arg(long, value_name = "FILE", conflicts_with = "ca_hash")]
    ca_file: Option<PathBuf>,
    /// SHA-256 of the operator's CA certificate (DER), as `invite` shows it.
    #[arg(long, value_name = "HEX")]
    ca_hash: Option<String>,
    /// The token of `fivefold gateway invite`, in a file that nobody else reads.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csr_file", "grant_file"])]
    token_file: Option<PathBuf>,
    /// Without a way to the cloud: write the request here, for `fivefold gateway sign`.
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "grant_file")]
    csr_file: Option<PathBuf>,
    /// For whom the request is: urn:gw:<net>:<gw>, as `invite` shows it.
    #[arg(long, value_name = "URN", requires = "csr_file")]
    name: Option<GatewayName>,
    /// What `fivefold gateway sign` wrote.
    #[arg(long, value_name = "FILE")]
    grant_file: Option<PathBuf>,
    /// UDP address of its radio (ZEP).
    #[arg(long, default_value = "127.0.0.1:17754", value_name = "ADDR")]
    radio: SocketAddr,
    /// A radio that hears it. Repeat for each.
    #[arg(long, value_name = "ADDR")]
    air: Vec<SocketAddr>,
    /// Offer CoAP over UDP to devices with IP here, e.g. 127.0.0.1:5683.
    #[arg(long, value_name = "ADDR")]
    coap: Option<SocketAddr>,
}

/// `fivefold gateway sign`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sign {
    #[command(flatten)]
    folder: Folder,
    /// The request that `fivefold gateway join --csr-file` wrote.
    request: PathBuf,
    /// Write what the gateway is granted here.
    #[arg(long, value_name = "FILE")]
    grant_file: PathBuf,
}

/// `fivefold gateway allow-late-renewal`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Late {
    #[command(flatten)]
    name: Name,
    /// How long the word holds.
    #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=90))]
    days: u16,
}

pub(crate) fn invite(args: &Invite, output: Output) -> anyhow::Result<()> {
    let (settings, mut registry) = args.folder.open_book()?;
    let (now, who) = (clock::now()?, who());
    let known = registry.gateways()?.into_iter().find(|g| g.name == args.name);
    let gateway = match (known, &args.net) {
        (Some(known), net) => {
            let of_net = net.as_ref().map(|net| registry.network(net)).transpose()?;
            anyhow::ensure!(
                of_net.is_none_or(|n| n.net == known.net) && args.did.is_none() && args.sid.is_none(),
                "a gateway called {} exists already: to invite it again, type its name alone; for another, choose another name",
                args.name
            );
            known
        }
        (None, Some(net)) => {
            let gateway = plan(&registry, net, &args.name, args.did, args.sid, Standby::of(args.secondary))?;
            registry.add_gateway(&gateway)?;
            gateway
        }
        (None, None) => {
            anyhow::bail!("there is no gateway {}; to invite a new one, say for which network: --net NAME", args.name)
        }
    };
    let until = now + u64::from(args.hours) * 3600;
    let token = registry.invite_gateway(&gateway, until, by(&who, now))?;
    let ca = files::read_text(&args.folder.dir.join(CA_FILE))?;
    let hash = hex::encode(certificate_hash(ca.as_bytes())?);
    if let Some(file) = &args.token_file {
        files::write(file, Readers::Owner, format!("{}\n", token.danger_text()).as_bytes())?;
    }
    let shown = args.token_file.is_none().then(|| token.danger_text());
    let value = json!({
        "name": gateway.name, "gateway": gateway.gateway.to_string(), "net": gateway.net.to_string(),
        "certified_as": gateway.certified_as().to_string(), "role": role(&gateway), "token": shown,
        "token_file": args.token_file, "expires_at": until, "ca_sha256": hash, "cloud": settings.cloud,
    });
    answer(output, &value, || {
        let where_to = match (&args.token_file, shown) {
            (Some(file), _) => format!("Its token is in {}: carry it there.", file.display()),
            (None, token) => format!(
                "Its token, shown this once; put it into a file there (chmod 600):\n\n  {}",
                token.unwrap_or_default()
            ),
        };
        let file =
            args.token_file.as_deref().and_then(Path::file_name).map_or("TOKEN_FILE".into(), |f| f.to_string_lossy());
        format!(
            "Invited gateway {} ({}) until {}. {where_to}\n\n\
             At the gateway: fivefold gateway join --dir {} --cloud {} --ca-hash {hash} --token-file {file}",
            gateway.name,
            gateway.certified_as(),
            clock::text(until),
            gateway.name,
            settings.cloud
        )
    });
    Ok(())
}

pub(crate) fn join(args: &Join, output: Output) -> anyhow::Result<()> {
    let now = Millis(clock::now()? * 1000);
    if let (Some(file), Some(name)) = (&args.csr_file, args.name) {
        let request = join::prepare(&args.dir, name, now)?;
        files::write(file, Readers::Everybody, request.as_bytes())?;
        let value = json!({ "folder": args.dir, "certified_as": name.to_string(), "request": file });
        answer(output, &value, || {
            let file = file.display();
            format!(
                "Made keys in {}, which stay there. The request is in {file}: carry it to the operator.\n\n\
                 There: fivefold gateway sign --dir FARM {file} --grant-file FILE",
                args.dir.display()
            )
        });
        return Ok(());
    }
    let cloud = args.cloud.clone().context("say where the cloud is: --cloud https://HOST:PORT")?;
    anyhow::ensure!(cloud.starts_with("https://"), "--cloud {cloud}: write https://HOST:PORT, as invite shows it");
    let pin = pin(args)?;
    let grant = match (&args.token_file, &args.grant_file) {
        (Some(file), _) => {
            let text = files::read_private(file)?;
            let text = std::str::from_utf8(&text).unwrap_or_default().trim();
            let token: Token = text.parse().with_context(|| format!("{}", file.display()))?;
            let request = join::prepare(&args.dir, token.name(), now)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(join::ask(&cloud, &pin, &token, request))?
        }
        (None, Some(file)) => {
            let text = files::read_text(file)?;
            Grant::parse(&text).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?
        }
        (None, None) => anyhow::bail!(
            "say how to join: --token-file FILE (from fivefold gateway invite), or --csr-file FILE and then --grant-file FILE"
        ),
    };
    let site = Site { cloud, radio: args.radio, air: args.air.clone(), coap: args.coap };
    let (name, identity) = join::settle(&args.dir, &grant, &pin, &site, now)?;
    acted(
        &args.dir,
        "joined",
        format_args!("{}, serial {}, of {}", identity.gateway()?, identity.serial(), site.cloud),
    )?;
    let until = identity.validity().1.0 / 1000;
    let value = json!({
        "name": name, "folder": args.dir, "certified_as": identity.gateway()?.to_string(),
        "serial": identity.serial().to_string(), "not_after": until,
    });
    answer(output, &value, || {
        let dir = args.dir.display();
        format!(
            "Joined as gateway {name}, certified until {}; it renews by itself.\n\nNext: fivefold gateway run --dir {dir}",
            clock::text(until)
        )
    });
    Ok(())
}

fn pin(args: &Join) -> anyhow::Result<Pin> {
    match (&args.ca_file, &args.ca_hash) {
        (Some(file), _) => {
            let pem = files::read_text(file)?;
            Ok(Pin::Anchor(Anchor::from_pem(pem.as_bytes()).with_context(|| format!("{}", file.display()))?))
        }
        (None, Some(hex)) => {
            let hash: Option<[u8; 32]> = hex::decode(hex).ok().and_then(|h| h.try_into().ok());
            Ok(Pin::Hash(hash.context("--ca-hash is not 64 hex digits: copy it from what invite showed")?))
        }
        (None, None) => {
            anyhow::bail!("say which CA is the operator's: --ca-file ca.pem, or --ca-hash HEX as invite shows it")
        }
    }
}

pub(crate) fn sign(args: &Sign, output: Output) -> anyhow::Result<()> {
    let mut operator = args.folder.open()?;
    let pem = files::read_text(&args.request)?;
    let shown = args.request.display().to_string();
    let request = Request::parse(pem.as_bytes()).with_context(|| shown.clone())?;
    let authority = operator.authority()?;
    let issued = operator
        .registry
        .sign_gateway(&authority, &request, by(&who(), clock::now()?))
        .with_context(|| shown.clone())?;
    let grant = operator.registry.grant(&issued, authority.certificate())?;
    files::write(&args.grant_file, Readers::Everybody, grant.emit().as_bytes())?;
    let papers = Papers::of(&operator.registry)?;
    let mut value = papers.json_of(&issued.gateway);
    if let Some(object) = value.as_object_mut() {
        object.insert("grant".into(), json!(args.grant_file));
    }
    let hash = hex::encode(certificate_hash(authority.certificate().as_bytes())?);
    answer(output, &value, || {
        let file = args.grant_file.display();
        format!(
            "Signed for gateway {}. The grant is in {file}, no secret: carry it to the gateway.\n\n\
             There: fivefold gateway join --dir {} --cloud {} --ca-hash {hash} --grant-file {file}",
            issued.gateway.name, issued.gateway.name, operator.settings.cloud
        )
    });
    Ok(())
}

pub(crate) fn allow_late_renewal(args: &Late, output: Output) -> anyhow::Result<()> {
    let (_, mut registry) = args.name.folder.open_book()?;
    let (now, who) = (clock::now()?, who());
    let gateway = registry.gateway(&args.name.name)?;
    let until = now + u64::from(args.days) * 86_400;
    registry.allow_late_renewal(&gateway, until, by(&who, now))?;
    let mut value = Papers::of(&registry)?.json_of(&gateway);
    if let Some(object) = value.as_object_mut() {
        object.insert("late_until".into(), json!(until));
    }
    answer(output, &value, || {
        format!(
            "Gateway {} may renew once with a certificate that has ended, until {}. It does so by itself, within minutes \
             of reaching the cloud.",
            gateway.name,
            clock::text(until)
        )
    });
    Ok(())
}
