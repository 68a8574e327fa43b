//! Classic devices in a gateway's state (item 11): who they are, and what the gateway opens of them.

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::Sid;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{self, ClassicFlags};
use fivefold_keep::registry::{ClassicProfile, HardenedHolder, HardenedKey, Registry, RegistryError};
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

/// What a gateway gets of one classic device. Never its key for the cloud.
pub(super) struct ClassicShare {
    sid: Sid,
    serial: String,
    flags: ClassicFlags,
    dev_eui: Option<[u8; 8]>,
    key: Option<Zeroizing<Vec<u8>>>,
    hardened: Vec<HardenedKey>,
}

impl ClassicShare {
    /// Those of a gateway's network, by short id. Every gateway of it hears them, so each gets the keys for gateways; keys of
    /// the hardened profile only the one that they were drawn for, since it answers under them.
    pub(super) fn of(registry: &Registry, vault: &Vault, to: GatewayName) -> Result<Vec<Self>, RegistryError> {
        let (net, holder) = (to.net, HardenedHolder::Gateway(to.gateway));
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
                hardened: registry.hardened_keys(vault, device, holder, state::HARDENED_KEYS)?,
            });
        }
        all.sort_unstable_by_key(|d| d.sid);
        Ok(all)
    }

    /// Its keys of the hardened profile, as they are written. Those of a device that is not hardened any more are not.
    pub(super) fn hardened(&self) -> Vec<state::HardenedKey<'_>> {
        let keys = self.hardened.iter().filter(|_| self.flags.hardened);
        keys.map(|k| state::HardenedKey { epoch: k.epoch, key: &k.key }).collect()
    }

    /// As it is written, with those.
    pub(super) fn listed<'s>(&'s self, hardened: &'s [state::HardenedKey<'s>]) -> state::ClassicDevice<'s> {
        state::ClassicDevice {
            serial: &self.serial,
            sid: self.sid,
            flags: self.flags,
            dev_eui: self.dev_eui,
            key: self.key.as_ref().map(|key| key.as_slice()),
            hardened: List::of(hardened),
        }
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::id::{Did, GatewayId, Net};
    use fivefold_core::profile::Profile;
    use fivefold_keep::registry::{ClassicKeys, ClassicSecret, Gateway, NewClassic};

    use super::*;

    fn gateway(net: Net, n: u32) -> Gateway {
        Gateway {
            gateway: GatewayId(n),
            net,
            name: format!("g{n}"),
            sid: Sid(n as u16),
            did: Did([n as u8; 8]),
            primary: n == 1,
            receipt_keys: Vec::new(),
            revoked_at: None,
        }
    }

    #[test]
    fn every_gateway_gets_the_classic_keys_and_one_alone_those_of_the_hardened_profile() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = registry.add_network(&vault, "mast", Profile::ToCloud, None).unwrap().net;
        registry.allow_classic("mast").unwrap();
        for n in [1, 2] {
            registry.add_gateway(&gateway(net, n)).unwrap();
        }
        let key = |byte| ClassicSecret::from_bytes(&[byte, 0x58, 0xE3, 0x9A, 0xF3, 1, 2, 0x95, 9, 4, 7, 8, 1, 3, 5, 6]);
        let keys = ClassicKeys { gateway: key(0x23).ok(), cloud: key(0x24).ok() };
        let sealed = NewClassic { keys, ..NewClassic::plain("387264539".parse().unwrap(), net) };
        let hardened = NewClassic::plain("8a7384477876150c".parse().unwrap(), net);
        for new in [&sealed, &hardened] {
            registry.add_classic(&vault, new, 1).unwrap();
        }
        let (_, drawn) = registry.harden_classic(&vault, hardened.serial, 2).unwrap();
        for n in [1, 2] {
            let to = GatewayName { net, gateway: GatewayId(n) };
            let shares = ClassicShare::of(&registry, &vault, to).unwrap();
            let keys: Vec<_> = shares.iter().map(ClassicShare::hardened).collect();
            let listed: Vec<_> = shares.iter().zip(&keys).map(|(share, keys)| share.listed(keys)).collect();
            assert_eq!(listed[0].key.unwrap()[0], 0x23, "the gateway's, and not the cloud's");
            assert_eq!((listed[1].serial, listed[1].flags.hardened), ("8a7384477876150c", true));
            let expected = if n == 1 { vec![(1, *drawn.key)] } else { Vec::new() };
            assert_eq!(listed[1].hardened.iter().map(|k| (k.epoch, *k.key)).collect::<Vec<_>>(), expected);
        }
    }
}
