//! Shares that lie in the operator's folder: the cloud's, gateways', nodes'.

use std::path::Path;

use fivefold_core::id::Sid;
use fivefold_keep::registry::REGISTRY_FILE;
use fivefold_keep::share::{
    self, CERTIFICATE_FILE, CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewaySettings, NODE_FILE, NodeSettings,
    PolicySettings,
};
use fivefold_keep::vault::{self, Source, VAULT_FILE};
use serde::de::DeserializeOwned;

use super::{certificates, read};
use crate::facts::{Config, Device, Facts, Gateway, ShareSeen, VaultSeen, Wrap};
use crate::rule::Subject;

/// Files that no gateway may have: the operator's, the cloud's, a node's.
const STRANGE: [&str; 7] =
    [REGISTRY_FILE, "ca-key.sealed", "issuer-key.sealed", "operator.toml", CLOUD_FILE, NODE_FILE, "nodes"];

pub(super) fn config<T: DeserializeOwned>(path: &Path, facts: &mut Facts) -> Option<Config<T>> {
    let read = read::text(path).and_then(|text| {
        let settings = share::parse_config(path, &text).map_err(|e| e.to_string())?;
        Ok(Config::new(path, &text, settings))
    });
    read.map_err(|wrong| facts.unread.push(wrong)).ok()
}

/// The cloud's config, if its folder is here.
pub(super) fn cloud(folder: &Path, path: &Path, facts: &mut Facts) {
    if folder.exists() {
        facts.cloud = config::<CloudSettings>(path, facts);
    }
}

/// Where the key comes from that opens a folder's vault.
pub(super) fn vault(subject: Subject, folder: &Path, facts: &mut Facts) {
    let description = match vault::describe(folder) {
        Ok(description) => description,
        Err(e) => return facts.unread.push(e.to_string()),
    };
    let wrap = match description.source {
        Source::PassphraseFile(path) if path.parent() == Some(folder) => Wrap::Beside(path),
        Source::PassphraseFile(path) => Wrap::Elsewhere(path),
        source => Wrap::Held(source.to_string()),
    };
    facts.vaults.push(VaultSeen { subject, folder: folder.to_owned(), wrap });
}

/// Gateways of the book, as far as their shares are here.
pub(super) fn gateways(operator: &Path, facts: &mut Facts) {
    let own = vault::describe(operator).ok().and_then(|d| d.key);
    for at in 0..facts.gateways.len() {
        let Some(gateway) = facts.gateways.get(at).filter(|g| !g.is_revoked) else { continue };
        let folder = operator.join("gateways").join(&gateway.name);
        let subject = gateway.subject();
        if !folder.join(GATEWAY_FILE).exists() {
            continue;
        }
        let config = config::<GatewaySettings>(&folder.join(GATEWAY_FILE), facts);
        let mut strange: Vec<_> = STRANGE.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
        if own.is_some() && vault::describe(&folder).ok().and_then(|d| d.key) == own {
            strange.push(folder.join(VAULT_FILE));
        }
        vault(subject, &folder, facts);
        if let Some(gateway) = facts.gateways.get_mut(at) {
            (gateway.config, gateway.strange) = (config, Some(strange));
        }
    }
}

/// A gateway whose folder this is: there is no book here.
pub(super) fn gateway_alone(folder: &Path, facts: &mut Facts) {
    let Some(config) = config::<GatewaySettings>(&folder.join(GATEWAY_FILE), facts) else { return };
    let strange = STRANGE.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
    let own = folder.join(CERTIFICATE_FILE);
    let none = || format!("{} begins with no certificate that can be read", own.display());
    let certificate = read::text(&own).and_then(|text| certificates::life(text.as_bytes()).ok_or_else(none));
    let certificate = certificate.map_err(|wrong| facts.unread.push(wrong)).ok();
    let gateway = Gateway {
        name: config.settings.name.clone(),
        network: config.settings.net.clone(),
        sid: config.settings.link.sid.parse().unwrap_or(Sid(0)),
        is_primary: false,
        is_revoked: false,
        certificate,
        config: Some(config),
        strange: Some(strange),
        link_keys: None,
    };
    vault(gateway.subject(), folder, facts);
    facts.gateways.push(gateway);
}

/// Devices of the book, as far as their shares are here.
pub(super) fn nodes(operator: &Path, facts: &mut Facts) {
    for at in 0..facts.devices.len() {
        let Some(device) = facts.devices.get(at).filter(|d| d.revoked_at.is_none()) else { continue };
        let path = operator.join("nodes").join(&device.name).join(NODE_FILE);
        if !path.exists() {
            continue;
        }
        let Some(config) = config::<NodeSettings>(&path, facts) else { continue };
        if let Some(device) = facts.devices.get_mut(at) {
            let differs = differs(device, &config.settings);
            device.share = Some(ShareSeen { path, differs });
        }
    }
}

/// What a share says that the book does not.
pub(super) fn differs(device: &Device, share: &NodeSettings) -> Option<String> {
    let book = words(&PolicySettings::of(&device.policy, device.overrides));
    let here = words(&share.policy);
    let mut all: Vec<(&str, String, String)> =
        here.into_iter().zip(book).map(|((what, here), (_, book))| (what, here, book)).collect();
    let mut digits =
        |what, here: &str, book: &str| all.push((what, here.to_ascii_lowercase(), book.to_ascii_lowercase()));
    digits("device id", &share.did, &device.name);
    digits("short id", &share.sid, &device.sid.to_string());
    if let Some(place) = &device.place {
        digits("network id", &share.net, &place.net);
        digits("PAN id", &share.pan, &place.pan);
        digits("gateway group", &share.group, &place.group);
        digits("epoch", &share.epoch.to_string(), &place.epoch.to_string());
    }
    let one = all.iter().find(|(_, here, book)| here != book);
    one.map(|(what, here, book)| format!("{what} is {here} there and {book} in the book"))
}

/// All of a record, in words: what is new in it is compared as well, or this does not compile.
fn words(record: &PolicySettings) -> [(&'static str, String); 10] {
    let PolicySettings {
        profile,
        alg,
        mode,
        kid_length,
        ack_every,
        radio,
        renew_days,
        sign_batch,
        danger_link_only,
        danger_no_link,
    } = record;
    [
        ("levels", profile.clone()),
        ("alg", alg.to_string()),
        ("mode", mode.clone()),
        ("kid_length", kid_length.to_string()),
        ("ack_every", ack_every.to_string()),
        ("radio", radio.clone()),
        ("renew_days", renew_days.to_string()),
        ("sign", sign_batch.map_or("none".into(), |n| format!("batch:{n}"))),
        ("danger_link_only", danger_link_only.to_string()),
        ("danger_no_link", danger_no_link.to_string()),
    ]
}
