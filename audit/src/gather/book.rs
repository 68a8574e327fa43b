//! The operator's book.

use std::collections::HashMap;

use fivefold_core::id::{GatewayGroup, GatewayId, Net};
use fivefold_core::profile::{Mode, Profile};
use fivefold_keep::registry::{
    ClassicKeyKind, ClassicProfile, FirstContexts, Registry, RegistryError, Renewal, Signer, is_refused,
};
use fivefold_keep::vault::Vault;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificates;
use crate::facts::{
    Classic, Context, Device, DevicePlace, Facts, Gateway, KeySeen, KeySince, Network, Sharer, SignerSeen, TokenSeen,
    Weakness,
};
use crate::keys;
use crate::rule::{Kind, Severity, Subject};

/// What the book says without its secrets.
///
/// # Errors
/// [`RegistryError`]: it cannot be read.
pub fn book(registry: &Registry, facts: &mut Facts) -> Result<(), RegistryError> {
    let networks = registry.networks()?;
    let names: HashMap<Net, String> = networks.iter().map(|n| (n.net, n.name.clone())).collect();
    let name = |net: Net| names.get(&net).cloned().unwrap_or_else(|| net.to_string());
    let air: HashMap<Net, (u16, GatewayGroup)> = networks.iter().map(|n| (n.net, (n.pan, n.group))).collect();
    let renewals: HashMap<_, Renewal> = registry.renewals()?.into_iter().map(|r| (r.did, r)).collect();
    let signers: HashMap<_, Signer> =
        registry.signers()?.into_iter().filter(|s| s.revoked_at.is_none()).map(|s| (s.did, s)).collect();
    let classic_signers: HashMap<_, Signer> =
        registry.classic_signers()?.into_iter().filter(|s| s.revoked_at.is_none()).map(|s| (s.did, s)).collect();
    let mut first_seen: HashMap<Net, u64> = HashMap::new();
    let mut see = |net: Net, at: u64| {
        let first = first_seen.entry(net).or_insert(at);
        *first = at.min(*first);
    };
    let mut local = Vec::new();
    for network in &networks {
        local.extend(registry.local(network.net)?.map(|l| l.net));
    }
    for device in registry.devices()? {
        see(device.net, device.enrolled_at);
        let renewal = renewals.get(&device.did);
        let context = match (device.policy.profile, device.policy.mode, renewal) {
            (Profile::DangerLinkOnly, ..) => Context::None,
            (_, Mode::Random, _) => Context::Boot,
            _ if local.contains(&device.net) => Context::AtGateway,
            (.., Some(Renewal { agreed_at: Some(at), .. })) => Context::Agreed(*at),
            (.., Some(r)) if r.first == FirstContexts::Agreed => Context::Awaited,
            _ => Context::Installed(device.enrolled_at),
        };
        let signer = signers.get(&device.did).map(|s| SignerSeen {
            origin: Some(s.origin),
            is_dh_key: renewal.is_some_and(|r| x_of(&s.spki) == Some(r.x.0.as_slice())),
        });
        facts.devices.push(Device {
            name: device.did.to_string(),
            network: name(device.net),
            sid: device.sid,
            place: air.get(&device.net).map(|(pan, group)| DevicePlace {
                net: device.net.to_string(),
                pan: format!("{pan:04x}"),
                group: group.to_string(),
                epoch: device.epoch.0,
            }),
            policy: device.policy,
            overrides: device.overrides,
            revoked_at: device.revoked_at,
            keys: None,
            context,
            signer,
            share: None,
            reported: None,
        });
    }
    let certificates = registry.certificates()?;
    let newest = |id: GatewayId| {
        let own = certificates.iter().filter(|c| c.gateway == Some(id) && c.revoked_at.is_none());
        own.max_by_key(|c| c.not_after).map(|c| (c.not_before, c.not_after))
    };
    for gateway in registry.gateways()? {
        let certificate = newest(gateway.gateway);
        certificates.iter().filter(|c| c.gateway == Some(gateway.gateway)).for_each(|c| see(gateway.net, c.not_before));
        facts.gateways.push(Gateway {
            name: gateway.name,
            network: name(gateway.net),
            sid: gateway.sid,
            is_primary: gateway.primary,
            is_revoked: gateway.revoked_at.is_some(),
            certificate,
            config: None,
            strange: None,
            link_keys: None,
        });
    }
    for device in registry.classic_devices()? {
        see(device.net, device.added_at);
        let signer = classic_signers.get(&device.did);
        let owner = Subject::new(Kind::Device, device.serial.to_string()).of(&name(device.net));
        if let Some(signer) = signer.filter(|_| device.revoked_at.is_none()) {
            public_key(owner, &signer.spki, facts);
        }
        let keys = [("its key for the gateway", device.gateway_key), ("its key for the cloud", device.cloud_key)];
        facts.classic.push(Classic {
            name: device.serial.to_string(),
            network: name(device.net),
            sid: device.sid,
            is_hardened: device.profile == ClassicProfile::Hardened,
            keys: keys.into_iter().filter_map(|(what, key)| key.map(|key| seen(what, key))).collect(),
            has_key_messages: !registry.message_levels(device.did)?.is_empty(),
            signer: signer.map(|s| SignerSeen { origin: Some(s.origin), is_dh_key: false }),
            revoked_at: device.revoked_at,
        });
    }
    for group in registry.classic_sharers()? {
        let sharer = |d: fivefold_keep::registry::ClassicDevice| Sharer {
            name: d.serial.to_string(),
            network: name(d.net),
            is_revoked: d.revoked_at.is_some(),
        };
        facts.sharers.push(group.into_iter().map(sharer).collect());
    }
    for network in networks {
        let rotation = registry.rotation(network.net)?;
        let key_since = match &rotation {
            Some(r) if r.switched_at.is_some() && r.rolled_back_at.is_none() => Some(KeySince::Made(r.started_at)),
            // The key in use came by a rotation before this one, which the book forgot, or with the network.
            Some(r) if r.previous != 1 => Some(KeySince::InUse(r.started_at)),
            _ => first_seen.get(&network.net).copied().map(KeySince::InUse),
        };
        facts.networks.push(Network {
            is_local: local.contains(&network.net),
            name: network.name,
            profile: network.profile,
            keys: None,
            key_since,
            rotation,
        });
    }
    for server in registry.message_servers()? {
        public_key(Subject::cloud(), &server.spki, facts);
    }
    let tokens = registry.tokens()?.into_iter().filter(|t| t.revoked_at.is_none());
    facts.tokens.extend(tokens.map(|t| TokenSeen {
        name: t.name,
        scope: t.scope,
        made: t.created_at,
        ends: t.ends_at,
    }));
    facts.has_book = true;
    Ok(())
}

/// A public key of the book.
fn public_key(subject: Subject, spki: &[u8], facts: &mut Facts) {
    match SubjectPublicKeyInfo::from_der(spki) {
        Ok((_, key)) => certificates::rsa(subject, &key, facts),
        Err(_) => facts.unread.push(format!("the book has a public key of {subject} that cannot be read")),
    }
}

/// What stands in the book of a classic device's key.
fn seen(what: &'static str, key: ClassicKeyKind) -> KeySeen {
    let weak = key.weakness.map(|weak| Weakness {
        why: if is_refused(weak) { format!("CL-13, {weak}") } else { weak.to_string() },
        // Text is what the vendor's programs take.
        severity: if is_refused(weak) { Severity::Critical } else { Severity::Low },
    });
    KeySeen { what: what.into(), print: None, weak }
}

/// The x coordinate of a SubjectPublicKeyInfo of P-256.
fn x_of(spki: &[u8]) -> Option<&[u8]> {
    spki.get(spki.len().checked_sub(64)?..spki.len().checked_sub(32)?)
}

/// What the book's secrets are worth.
///
/// # Errors
/// [`RegistryError`]: one does not open.
pub fn secrets(registry: &Registry, vault: &Vault, facts: &mut Facts) -> Result<(), RegistryError> {
    for network in registry.networks()? {
        let keys = registry.network_keys(vault, network.net)?;
        let names: [&[u8]; 3] = [network.name.as_bytes(), &network.net.0.to_be_bytes(), &network.pan.to_be_bytes()];
        let keys =
            keys.iter().map(|k| keys::look(format!("its key under index {}", k.index), k.key.as_slice(), &names));
        let keys = keys.collect();
        if let Some(seen) = facts.networks.iter_mut().find(|n| n.name == network.name) {
            seen.keys = Some(keys);
        }
    }
    let mut seen: HashMap<String, &mut Device> = facts.devices.iter_mut().map(|d| (d.name.clone(), d)).collect();
    for device in registry.devices()? {
        let Some(seen) = seen.get_mut(&device.did.to_string()) else { continue };
        let secrets = registry.secrets(vault, &device)?;
        let sid = device.sid.0.to_be_bytes();
        let names: [&[u8]; 3] = [&device.did.0, &sid, seen.network.as_bytes()];
        let all: [(&str, &[u8]); 4] = [
            ("MS3", &secrets.ms3),
            ("K_e2root", secrets.e2_root.as_slice()),
            ("K_blind", secrets.blind.as_slice()),
            ("root_psk", secrets.root_psk.as_slice()),
        ];
        let keys = all.map(|(what, key)| keys::look(what, key, &names));
        seen.keys = Some(keys.into());
    }
    Ok(())
}
