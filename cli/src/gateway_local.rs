//! `fivefold gateway local` and `state`: a gateway at a site without a cloud, which agrees keys with its devices alone.

use std::path::PathBuf;

use anyhow::Context as _;
use fivefold_cloud::push;
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::registry::draw_key;
use fivefold_keep::share::{self, GATEWAY_FILE, GatewayLocal, GatewaySettings};
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::site::{self, LOCAL_KEY_FILE, STATE_FILE};
use fivefold_keep::vault::Vault;
use serde_json::json;

use crate::gateway::GATEWAY_HEADING;
use crate::operator::{CA_KEY_FILE, Folder, acted};
use crate::output::{Output, answer};

/// Arguments of `fivefold gateway local`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Local {
    /// The gateway's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Makes the key with which the gateway agrees keys, if it has none, and says in its config that there is no cloud.
///
/// # Errors
/// The folder is no gateway's, or a file cannot be written.
pub(crate) fn local(args: &Local, output: Output) -> anyhow::Result<()> {
    let path = args.dir.join(GATEWAY_FILE);
    anyhow::ensure!(path.exists(), "{} is no gateway's folder: it has no {GATEWAY_FILE}", args.dir.display());
    let mut settings: GatewaySettings = share::read_config(&path)?;
    let vault = Vault::open_folder(&args.dir)?;
    let file = args.dir.join(LOCAL_KEY_FILE);
    let x = if file.exists() {
        let scalar = vault.open_file(&file)?;
        let key = scalar.as_slice().try_into().ok().and_then(AgreementKey::from_random);
        key.with_context(|| format!("{} holds no key", file.display()))?.public_x()
    } else {
        let (key, scalar) = draw_key()?;
        vault.seal_file(&file, scalar.as_slice())?;
        key.public_x()
    };
    if settings.local.is_none() || settings.uplink.is_some() {
        (settings.uplink, settings.local) = (None, Some(GatewayLocal::default()));
        share::write_config(&path, GATEWAY_HEADING, &settings)?;
        acted(&args.dir, "made a site without a cloud", format_args!("key {x}"))?;
    }
    answer(output, &json!({ "name": settings.name, "net": settings.net, "key": x.to_string() }), || {
        format!(
            "Gateway {} agrees keys with its devices alone from its next start on, and has no cloud.\n  key  {x}\n\n\
             Next, in the operator's folder: fivefold network local {} --gateway {} --key {x}",
            settings.name, settings.net, settings.name
        )
    });
    Ok(())
}

/// Arguments of `fivefold gateway state`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct State {
    #[command(flatten)]
    folder: Folder,
    /// The gateway's name or id.
    name: String,
    /// Where to write it; left out, into the gateway's folder, if that is still here.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes what the gateway is to know, for it alone to open.
///
/// # Errors
/// Its network has a cloud, or the key of the CA is not here, or the file cannot be written.
pub(crate) fn state(args: &State, output: Output) -> anyhow::Result<()> {
    let operator = args.folder.open()?;
    let gateway = operator.registry.gateway(&args.name)?;
    let local = operator.registry.local(gateway.net)?.filter(|l| l.gateway == gateway.gateway);
    let local = local.with_context(|| {
        format!(
            "the devices of network {} do not agree keys with gateway {} alone; the cloud tells it what it needs",
            gateway.net, gateway.name
        )
    })?;
    let folder = operator.gateway_folder(&gateway.name);
    let out = match &args.out {
        Some(out) => out.clone(),
        None if folder.exists() => folder.join(STATE_FILE),
        None => anyhow::bail!("the folder of gateway {} is not here; say where to write: --out FILE", gateway.name),
    };
    operator.authority()?;
    let ca = SigningKey::from_pkcs8(&operator.vault.open_file(&operator.dir.join(CA_KEY_FILE))?)?;
    let none = |_| Ok((0, Vec::new()));
    let push = push::build(&operator.registry, &none, &operator.vault, gateway.certified_as())?;
    let file = site::seal(&ca, gateway.certified_as(), &local.x, &push.parts)?;
    files::write(&out, Readers::Owner, &file)?;
    let devices =
        operator.registry.devices()?.iter().filter(|d| d.net == gateway.net && d.revoked_at.is_none()).count();
    let value = json!({ "name": gateway.name, "version": push.version, "devices": devices, "file": out });
    let count = if devices == 1 { "1 device".into() } else { format!("{devices} devices") };
    answer(output, &value, || {
        format!(
            "Wrote version {} for gateway {}, with {count}, into {}. It takes it up within a second of finding it as \
             {STATE_FILE} in its folder.",
            push.version,
            gateway.name,
            out.display()
        )
    });
    Ok(())
}

/// A public key as it is typed.
pub(crate) fn key(text: &str) -> Result<PublicX, String> {
    text.parse().map_err(|_| "expected the 64 hex digits that fivefold gateway local said at the gateway".into())
}
