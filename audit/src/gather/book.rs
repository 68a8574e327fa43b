//! The operator's book.

use std::collections::HashMap;

use fivefold_core::id::Net;
use fivefold_keep::registry::{ClassicProfile, Registry, RegistryError};

use crate::facts::{Classic, Device, Facts, KeySeen, Network};

/// What the book says without its secrets.
///
/// # Errors
/// [`RegistryError`]: it cannot be read.
pub fn book(registry: &Registry, facts: &mut Facts) -> Result<(), RegistryError> {
    let networks = registry.networks()?;
    let names: HashMap<Net, String> = networks.iter().map(|n| (n.net, n.name.clone())).collect();
    let name = |net: Net| names.get(&net).cloned().unwrap_or_else(|| net.to_string());
    facts.networks.extend(networks.iter().map(|n| Network { name: n.name.clone(), profile: n.profile }));
    for device in registry.devices()? {
        facts.devices.push(Device {
            name: device.did.to_string(),
            network: name(device.net),
            policy: device.policy,
            overrides: device.overrides,
            is_revoked: device.revoked_at.is_some(),
        });
    }
    for device in registry.classic_devices()? {
        let keys = [("its key for the gateway", device.gateway_key), ("its key for the cloud", device.cloud_key)];
        let seen = |(what, key): (&str, Option<fivefold_keep::registry::ClassicKeyKind>)| {
            let weak = key?.weakness.map(|w| w.to_string());
            Some(KeySeen { what: what.to_owned(), weak, file: None })
        };
        facts.classic.push(Classic {
            name: device.serial.to_string(),
            network: name(device.net),
            is_hardened: device.profile == ClassicProfile::Hardened,
            keys: keys.into_iter().filter_map(seen).collect(),
            is_revoked: device.revoked_at.is_some(),
        });
    }
    Ok(())
}
