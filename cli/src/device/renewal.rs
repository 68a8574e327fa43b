//! Keys for renewal by EDHOC, and the operator's order to renew.

use std::process::ExitCode;

use anyhow::Context as _;
use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::id::{Did, Net};
use fivefold_core::profile::Policy;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_keep::registry::{DeviceKey, FirstContexts, Renewal, Whom, can_renew, draw_key};
use fivefold_keep::share::PeerKey;
use fivefold_keep::site::LOCAL_KID;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock;
use crate::operator::{Folder, Operator};
use crate::output::{Output, answer};

/// Where a device has its first contexts from, as it is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum First {
    /// They stand in its share.
    #[default]
    Installed,
    /// It agrees them with the cloud, before its first reading.
    Agreed,
}

/// What a device that renews is handed beside its contexts.
pub(super) struct Keys {
    /// For the book.
    pub(super) key: DeviceKey,
    /// Its own scalar.
    pub(super) scalar: Zeroizing<[u8; 32]>,
    /// With whom it renews.
    pub(super) peer: Peer,
}

/// With whom a device renews, by the public key that it is handed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// The cloud.
    Cloud(PeerKey),
    /// Its gateway alone.
    Gateway(PeerKey),
}

impl Keys {
    /// Whether its share holds its first contexts.
    pub(super) fn are_installed(&self) -> bool {
        self.key.first == FirstContexts::Installed
    }
}

/// Makes a record one of a device that agrees its keys with its gateway alone, where its network says so.
pub(super) fn fit(operator: &Operator, net: Net, policy: &mut Policy) -> anyhow::Result<()> {
    // A gateway has no root_psk to mix in.
    policy.pq_mix &= operator.registry.local(net)?.is_none();
    Ok(())
}

/// Draws the key of a device of a network, if its record lets it renew. Where keys are agreed with a gateway alone, the first
/// ones are too.
///
/// # Errors
/// It cannot renew, and is to agree its first contexts.
pub(super) fn draw(operator: &mut Operator, net: Net, policy: &Policy, first: First) -> anyhow::Result<Option<Keys>> {
    if let Some(local) = operator.registry.local(net)? {
        let kid = PeerKid::new(LOCAL_KID).context("the name of the gateway's key is out of range")?;
        let (key, scalar) = draw_key()?;
        let peer = Peer::Gateway(PeerKey { kid, x: local.x });
        return Ok(Some(Keys { key: DeviceKey { x: key.public_x(), first: FirstContexts::Agreed }, scalar, peer }));
    }
    if !can_renew(policy) {
        anyhow::ensure!(
            first == First::Installed,
            "first contexts are agreed in mode P with E2 or E3 only; leave out --first-contexts"
        );
        return Ok(None);
    }
    let identity = operator.registry.cloud_identity(&operator.vault)?;
    let (key, scalar) = draw_key()?;
    let first = match first {
        First::Agreed => FirstContexts::Agreed,
        First::Installed => FirstContexts::Installed,
    };
    let peer = Peer::Cloud(PeerKey { kid: identity.kid, x: identity.key.public_x() });
    Ok(Some(Keys { key: DeviceKey { x: key.public_x(), first }, scalar, peer }))
}

/// Arguments of `fivefold device renew`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "whom", required = true, multiple = false, args = ["did", "network", "all"])]
pub(super) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// One device, by its EUI-64.
    did: Option<Did>,
    /// All devices of a network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// All devices.
    #[arg(long)]
    all: bool,
}

/// Orders devices to renew.
///
/// # Errors
/// None of them can, or the book refuses.
pub(super) fn order(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let (_, mut registry) = args.folder.open_book()?;
    let whom = match (args.did, &args.network) {
        (Some(did), _) => Whom::Device(did),
        (None, Some(name)) => Whom::Network(registry.network(name)?.net),
        (None, None) => Whom::All,
    };
    let ordered = registry.order_renewal(whom, clock::now()?).context("nothing was ordered")?;
    answer(output, &json!({ "ordered": ordered }), || {
        let devices = if ordered == 1 { "1 device".into() } else { format!("{ordered} devices") };
        format!(
            "Ordered {devices} to renew: each is told in its next answers, a few a second, and until then its contexts stay.\n\
             Where each stands: fivefold device list"
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// How far a device is, for a program.
pub(super) fn json_of(renewal: Option<&Renewal>) -> Value {
    renewal.map_or(Value::Null, |r| {
        json!({
            "highest_epoch": r.highest.0, "agreed_at": r.agreed_at, "ordered_at": r.ordered_at,
            "first_contexts": if r.first == FirstContexts::Agreed { "agreed" } else { "installed" },
            "key": r.x.to_string(), "finding": is_installed(r).then_some("AR-43"),
        })
    })
}

/// Whether the contexts in use lay in a file once, which ends with the first renewal.
pub(super) fn is_installed(renewal: &Renewal) -> bool {
    renewal.first == FirstContexts::Installed && renewal.agreed_at.is_none()
}

/// How far a device is, for a person.
pub(super) fn words(renewal: Option<&Renewal>) -> String {
    match renewal {
        None => "never: it has no key for renewal".into(),
        Some(Renewal { agreed_at: Some(at), .. }) => clock::text(*at),
        Some(Renewal { first: FirstContexts::Agreed, .. }) => "not yet: it has no contexts".into(),
        Some(_) => "not yet: the contexts in use lay in a file (AR-43)".into(),
    }
}

/// The greatest epoch of a device, agreed or installed.
pub(super) fn epoch(device: &fivefold_keep::registry::Device, renewal: Option<&Renewal>) -> String {
    match renewal {
        Some(r) if r.highest.0 > 0 => r.highest.to_string(),
        Some(_) => "-".into(),
        None => device.epoch.to_string(),
    }
}
