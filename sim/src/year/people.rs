//! Everybody in the year: entered by the operator in a real registry, under a real vault.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::e5_renewal::{Credential, PeerKid, PqMix};
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{Overrides, Policy, Profile, Radio};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::wire::ieee802154::Pan;
use fivefold_device::renewal::{Keys as RenewalKeys, Peer};
use fivefold_device::{Secrets, Settings};
use fivefold_keep::ca::Authority;
use fivefold_keep::enrol::{Keys, Request};
use fivefold_keep::registry::{self, By, DeviceKey, DeviceSecrets, FirstContexts, NewDevice, Registry, Word};
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::vault::Vault;

use super::plan::{NETWORKS, YearPlan};
use crate::dice::Dice;
use crate::family::START;
use crate::gateway::{GatewayStation, Site};
use crate::node::Owner;

/// A network.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its id.
    pub(super) net: Net,
    /// What its devices must use.
    pub(super) profile: Profile,
    /// Whether its gateways were taken over.
    pub(super) hostile: bool,
    /// Its gateways, by place; the primary first.
    pub(super) gateways: Vec<usize>,
    /// Its devices, by place.
    pub(super) devices: Vec<usize>,
    pan: Pan,
    group: GatewayGroup,
    key: (u8, [u8; 16]),
}

/// A device as its owner installed it.
#[derive(Debug)]
pub(super) struct Resident {
    /// As the registry has it.
    pub(super) device: registry::Device,
    /// Its network, by place.
    pub(super) network: usize,
    /// Whose parent it gives its frames to first: another node, by place, or a gateway.
    pub(super) parent: Option<(usize, Sid)>,
    place: Place,
    first: FirstContexts,
    secrets: DeviceSecrets,
    scalar: [u8; 32],
    cloud: (PeerKid, PublicX),
}

impl Resident {
    /// Whether it has IP, and no E1.
    pub(super) fn is_ip(&self) -> bool {
        self.device.policy.radio == Radio::Ip
    }
}

impl Owner for Resident {
    fn settings(&self) -> Settings {
        let device = &self.device;
        let mut settings = Settings::new(device.did, device.sid, self.place.pan, device.policy, Epoch(1));
        if let Some((_, sid)) = self.parent {
            let _ = settings.ways.parents.insert(0, sid);
        }
        settings
    }

    fn secrets(&self, network_key: &[u8; 16]) -> Secrets {
        let mut secrets = Secrets::default();
        let _ = secrets.link.push((self.place.key.0, Key::new(*network_key)));
        if self.first == FirstContexts::Installed {
            let profile = self.device.policy.profile;
            secrets.e2 = profile.has_e2().then(|| E2Root::new(*self.secrets.e2_root).secret(self.place.group));
            secrets.e3 = E3Secret::new(&self.secrets.ms3, &self.secrets.salt3).filter(|_| profile.has_e3());
        }
        secrets
    }

    fn keys(&self) -> Option<RenewalKeys<AgreementKey>> {
        let own = AgreementKey::from_random(&self.scalar)?;
        Some(RenewalKeys {
            credential: Credential::device(self.device.sid, own.public_x()),
            own,
            peer: Peer::Cloud(Credential::peer(self.cloud.0, self.cloud.1)),
            mix: Some(PqMix::new(&self.secrets.root_psk, self.device.did)),
            group: self.place.group,
        })
    }
}

/// The operator's folder, and all who are entered in it.
#[derive(Debug)]
pub(super) struct People {
    /// Where the registry lies.
    pub(super) registry: PathBuf,
    /// Opens what is sealed in it.
    pub(super) vault: Arc<Vault>,
    /// The networks.
    pub(super) places: Vec<Place>,
    /// The devices, with the network key that each was given.
    pub(super) residents: Vec<(Resident, [u8; 16])>,
    /// The gateways.
    pub(super) gateways: Vec<GatewayStation>,
}

impl People {
    /// Enters them.
    ///
    /// # Errors
    /// When this machine cannot do it.
    pub(super) fn enrol(folder: &Path, plan: &YearPlan, dice: &mut Dice) -> anyhow::Result<Self> {
        let vault = Vault::create(folder)?;
        let registry = folder.join("registry.db");
        let mut book = Registry::create(&registry, By::new("operator", "the year", "init", 0))?;
        let (authority, _) = Authority::create("year")?;
        let (mut places, mut gateways) = (Vec::new(), Vec::new());
        for (name, profile, hostile) in NETWORKS {
            let network = book.add_network(&vault, name, profile, None)?;
            let keys = book.network_keys(&vault, network.net)?;
            let key = keys.first().map(|k| (k.index, *k.key)).unwrap_or_default();
            let mut place = Place {
                net: network.net,
                profile,
                hostile,
                gateways: Vec::new(),
                devices: Vec::new(),
                pan: Pan(network.pan),
                group: network.group,
                key,
            };
            // One network has a second gateway, which can open what comes to it, and answer nothing.
            for n in 0..if name == "both" { 2 } else { 1 } {
                let at = gateways.len();
                let sid = Sid(1 + n);
                let did = Did([0xA0, at as u8, 0, 0, 0, 0, 0, n as u8]);
                let gateway = GatewayId(0x10 + at as u32);
                let site = Site { net: place.net, pan: place.pan, gateway, sid, did, primary: n == 0, key };
                let keys = Keys::draw()?;
                let signing = SigningKey::from_pkcs8(&keys.receipts)?;
                let station = GatewayStation::at(folder, site, signing);
                book.add_gateway(&station.registered())?;
                let request = Request::parse(keys.request(station.proven.name())?.as_bytes())?;
                let word = Word { who: "operator", at: START / 1000 };
                book.sign_gateway(&authority, &request, word)?;
                place.gateways.push(at);
                gateways.push(station);
            }
            places.push(place);
        }
        let identity = book.cloud_identity(&vault)?;
        let cloud = (identity.kid, identity.key.public_x());
        let mut residents: Vec<(Resident, [u8; 16])> = Vec::new();
        for n in 0..plan.devices {
            let network = n % places.len();
            let Some(place) = places.get_mut(network) else { continue };
            let among = place.devices.len();
            let mut policy = Policy::new(place.profile);
            let is_ip = place.profile == Profile::ToCloud && among % 10 == 7;
            if is_ip {
                policy.radio = Radio::Ip;
            }
            // Every sixth has its frames passed on by the one before it.
            let parent = place.devices.last().filter(|_| !is_ip && among % 6 == 5);
            let parent = parent.and_then(|&up| Some((up, residents.get(up)?))).filter(|(_, up)| !up.0.is_ip());
            let parent = parent.map(|(up, resident)| (up, resident.0.device.sid));
            let scalar = dice.bytes();
            let own = AgreementKey::from_random(&scalar).ok_or_else(|| anyhow::anyhow!("no key"))?;
            // A third agrees on its first contexts as well.
            let first = if among % 3 == 1 { FirstContexts::Agreed } else { FirstContexts::Installed };
            let did = Did([0xAC, 0xDE, 0x48, 0, network as u8, 0, (among >> 8) as u8, among as u8]);
            let new = NewDevice {
                did: Some(did),
                sid: Some(Sid(0x0a10 + among as u16)),
                net: place.net,
                policy,
                overrides: Overrides { danger_link_only: false, danger_no_link: is_ip },
                words: is_ip.then(|| "on a wire of its own".into()),
                key: Some(DeviceKey { x: own.public_x(), first }),
            };
            let (device, secrets) = book.add_device(&vault, &new, START / 1000)?;
            place.devices.push(n);
            let (place, key) = (place.clone(), place.key.1);
            residents.push((Resident { device, network, parent, place, first, secrets, scalar, cloud }, key));
        }
        Ok(Self { registry, vault: Arc::new(vault), places, residents, gateways })
    }
}
