//! Networks without a cloud: their devices agree keys with one gateway alone ("C2 local", docs/protocol.md 11).
//!
//! The gateway made its DH key itself; that it stands here is the operator's word for it, and what devices are handed.

use fivefold_core::id::{GatewayId, Net};
use fivefold_core::profile::{Policy, Profile};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use rusqlite::{OptionalExtension as _, params};

use super::deeds::Done;
use super::{DeviceKey, FirstContexts, Network, Registry, RegistryError, Result, draw_key};

/// With whom the devices of a network without a cloud agree their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The network.
    pub net: Net,
    /// Its gateway.
    pub gateway: GatewayId,
    /// Public DH key of that gateway.
    pub x: PublicX,
}

fn refuse<T>(text: String) -> Result<T> {
    Err(RegistryError::Refused(text))
}

impl Registry {
    /// Enters the gateway that the devices of a network agree their keys with. Where there was another one, or another key
    /// of it, each device is to be enrolled again.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] where E3 is declared, for a gateway of another network, a revoked or a secondary one, for
    /// what is no key, and where devices agree with the cloud already.
    pub fn set_local(&mut self, network: &str, gateway: &str, x: PublicX) -> Result<Local> {
        let network = self.network(network)?;
        let gateway = self.gateway(gateway)?;
        let Network { net, name, profile, .. } = &network;
        if *profile != Profile::ToGateway {
            return refuse(format!(
                "network {name} has the levels {}: a gateway agrees keys alone only under {}, for it must never come to hold a \
                 key of E3; add a network with --levels {}",
                profile.as_str(),
                Profile::ToGateway.as_str(),
                Profile::ToGateway.as_str()
            ));
        }
        if gateway.net != *net || !gateway.primary || gateway.revoked_at.is_some() {
            return refuse(format!(
                "gateway {} cannot: that takes a primary gateway of network {name} which is not revoked; see: fivefold gateway \
                 list",
                gateway.name
            ));
        }
        if draw_key()?.0.agree(&x).is_err() || x.0 == [0; 32] {
            return refuse(format!("{x} is no key: type what fivefold gateway local said at the gateway"));
        }
        if self.classic_networks()?.contains(net) {
            return refuse(format!(
                "network {name} takes classic devices, and only a cloud judges what they send; add another network"
            ));
        }
        if self.local(*net)?.is_none() && self.devices()?.iter().any(|d| d.net == *net && d.revoked_at.is_none()) {
            return refuse(format!(
                "devices of network {name} are enrolled with the cloud; add a new network for those that have none"
            ));
        }
        let local = Local { net: *net, gateway: gateway.gateway, x };
        self.change(
            Done::new("gateway agrees keys alone", format_args!("network {name}, gateway {}", gateway.name)),
            |tx| {
                let sql = "INSERT OR REPLACE INTO local_networks VALUES (?, ?, ?)";
                tx.execute(sql, params![local.net.0, local.gateway.0, local.x.0])
            },
        )?;
        Ok(local)
    }

    /// With whom the devices of a network agree their keys, if not with the cloud.
    ///
    /// # Errors
    /// [`RegistryError::Database`].
    pub fn local(&self, net: Net) -> Result<Option<Local>> {
        let read = |r: &rusqlite::Row<'_>| Ok(Local { net, gateway: GatewayId(r.get(0)?), x: PublicX(r.get(1)?) });
        let row = self.db.query_row("SELECT gw, x FROM local_networks WHERE net = ?", [net.0], read).optional();
        row.map_err(|e| self.failed(e))
    }

    /// Whether a device of this network may have this record and key.
    pub(super) fn check_local(&self, net: Net, policy: &Policy, key: Option<&DeviceKey>) -> Result<()> {
        let agrees = key.is_some_and(|k| k.first == FirstContexts::Agreed);
        if self.local(net)?.is_some() && !(agrees && policy.can_agree_locally()) {
            return refuse(
                "devices of this network agree their keys with its gateway alone: make their shares with fivefold device \
                 add, of mode P and with --first-contexts agreed"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::id::Did;
    use fivefold_core::profile::Overrides;

    use super::super::{Gateway, NewDevice, Whom};
    use super::*;
    use crate::vault::Vault;

    struct Book {
        registry: Registry,
        vault: Vault,
        _folder: tempfile::TempDir,
    }

    fn book() -> Book {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let registry =
            Registry::create(&folder.path().join("registry.db"), super::super::By::new("test", "here", "test", 1))
                .unwrap();
        Book { registry, vault, _folder: folder }
    }

    impl Book {
        fn network(&mut self, name: &str, profile: Profile) -> Net {
            let net = self.registry.add_network(&self.vault, name, profile, None).unwrap().net;
            self.gateway(&format!("gw-{name}"), net, true);
            net
        }

        fn gateway(&mut self, name: &str, net: Net, primary: bool) {
            let (gateway, sid) = self.registry.next_gateway(net).unwrap();
            let did = Did([gateway.0 as u8; 8]);
            let (receipt_keys, revoked_at) = (Vec::new(), None);
            let name = name.into();
            self.registry
                .add_gateway(&Gateway { gateway, net, name, sid, did, primary, receipt_keys, revoked_at })
                .unwrap();
        }

        fn add(&mut self, net: Net, first: FirstContexts, pq_mix: bool) -> Result<Did> {
            let mut policy = Policy::new(Profile::ToGateway);
            policy.pq_mix = pq_mix;
            let key = Some(DeviceKey { x: draw_key()?.0.public_x(), first });
            let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key };
            self.registry.add_device(&self.vault, &new, 1).map(|(device, _)| device.did)
        }
    }

    fn a_key() -> PublicX {
        draw_key().unwrap().0.public_x()
    }

    #[test]
    fn a_gateway_agrees_alone_only_where_there_is_no_e3() {
        let mut b = book();
        for (name, profile) in [("cloud", Profile::ToCloud), ("both", Profile::ToBoth)] {
            b.network(name, profile);
            let refused = b.registry.set_local(name, &format!("gw-{name}"), a_key()).unwrap_err().to_string();
            assert!(refused.contains("never come to hold a key of E3"), "{refused}");
        }
        let net = b.network("farm", Profile::ToGateway);
        b.gateway("standby", net, false);
        for (gateway, x, why) in
            [("gw-both", a_key(), "primary"), ("standby", a_key(), "primary"), ("gw-farm", PublicX([0; 32]), "no key")]
        {
            let refused = b.registry.set_local("farm", gateway, x).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let local = b.registry.set_local("farm", "gw-farm", a_key()).unwrap();
        assert_eq!(b.registry.local(net).unwrap(), Some(local));
    }

    #[test]
    fn its_devices_hold_no_contexts_of_the_cloud_and_none_that_did_are_taken_over() {
        let mut b = book();
        let net = b.network("farm", Profile::ToGateway);
        b.registry.set_local("farm", "gw-farm", a_key()).unwrap();
        assert!(b.add(net, FirstContexts::Installed, false).unwrap_err().to_string().contains("gateway alone"));
        assert!(b.add(net, FirstContexts::Agreed, true).is_err(), "a gateway has no root_psk to mix in");
        let did = b.add(net, FirstContexts::Agreed, false).unwrap();
        let refused = b.registry.order_renewal(Whom::Device(did), 5).unwrap_err().to_string();
        assert!(refused.contains("gateway alone"), "{refused}");
        assert!(b.registry.order_renewal(Whom::All, 5).is_err());
        let other = b.network("old", Profile::ToGateway);
        b.add(other, FirstContexts::Installed, true).unwrap();
        assert!(b.registry.set_local("old", "gw-old", a_key()).unwrap_err().to_string().contains("new network"));
    }
}
