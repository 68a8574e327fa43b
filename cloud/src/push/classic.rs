//! Classic devices in a gateway's state (item 11): who they are, and what the gateway opens of them.

use fivefold_core::id::{Net, Sid};
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{self, ClassicFlags};
use fivefold_keep::registry::{ClassicProfile, Registry, RegistryError};
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

/// What a gateway gets of one classic device. Never its key for the cloud.
pub(super) struct ClassicShare {
    sid: Sid,
    serial: String,
    flags: ClassicFlags,
    dev_eui: Option<[u8; 8]>,
    key: Option<Zeroizing<Vec<u8>>>,
}

impl ClassicShare {
    /// Those of a network, by short id. Every gateway of it hears them, so each gets the keys for gateways.
    pub(super) fn of_net(registry: &Registry, vault: &Vault, net: Net) -> Result<Vec<Self>, RegistryError> {
        let mut all = Vec::new();
        for device in registry.classic_devices()?.iter().filter(|d| d.net == net && d.revoked_at.is_none()) {
            let key = match device.gateway_key {
                Some(_) => registry.classic_keys(vault, device)?.gateway,
                None => None,
            };
            all.push(Self {
                sid: device.sid,
                serial: device.serial.to_string(),
                flags: ClassicFlags { hardened: device.profile == ClassicProfile::Hardened },
                dev_eui: device.dev_eui.map(|eui| eui.0),
                key: key.map(|key| Zeroizing::new(key.bytes().to_vec())),
            });
        }
        all.sort_unstable_by_key(|d| d.sid);
        Ok(all)
    }

    /// As it is written.
    pub(super) fn listed(&self) -> state::ClassicDevice<'_> {
        state::ClassicDevice {
            serial: &self.serial,
            sid: self.sid,
            flags: self.flags,
            dev_eui: self.dev_eui,
            key: self.key.as_ref().map(|key| key.as_slice()),
            hardened: List::default(),
        }
    }
}
