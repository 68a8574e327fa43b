//! Names and secrets of everybody in the village, drawn from its seed.

use std::net::{Ipv4Addr, SocketAddr};

use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{Mode, Overrides, Policy, Profile, Radio, Sign};
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::ieee802154::Pan;
use fivefold_core::wire::state::{Context, Device, NetworkKey, PART_BYTES, Part, Phase, Share, Standing, State};
use fivefold_device::evidence::{Downlink, Signing};
use fivefold_device::{PARENTS, Secrets, Settings};
use fivefold_keep::device_key::{DeviceAlg, DeviceSigningKey};
use fivefold_keep::registry;
use zeroize::Zeroizing;

use crate::dice::Dice;
use crate::plan::{Carrier, NodePlan, Parent};

/// The one network.
pub const NET: Net = Net(7);
/// Its gateway group.
pub const GROUP: GatewayGroup = GatewayGroup(3);
/// Its PAN.
pub const PAN: Pan = Pan(0x4321);
/// Index of its key.
pub const KEY_INDEX: u8 = 1;
/// When the world begins, by the clocks of gateways and cloud.
pub const START: u64 = 1_790_000_000_000;
/// IP devices are told apart by their ports, from this one on.
const FIRST_PORT: u16 = 20_000;

/// Wall clock at a moment of the run.
pub const fn wall(now: u64) -> Millis {
    Millis(START + now)
}

/// Short id of a gateway.
pub const fn gateway_sid(place: usize) -> Sid {
    Sid(1 + place as u16)
}

/// Name of a gateway in its certificate.
pub const fn gateway_id(place: usize) -> GatewayId {
    GatewayId(0x10 + place as u32)
}

/// Short id of a node.
pub const fn node_sid(place: usize) -> Sid {
    Sid(0x0a10 + place as u16)
}

/// EUI-64 of whoever has this short id.
pub fn did(sid: Sid) -> Did {
    let [a, b] = sid.to_bytes();
    Did([0xAC, 0xDE, 0x48, 0, 0, 0, a, b])
}

/// Address of an IP device.
pub fn address(place: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + place as u16))
}

/// Whose address it is.
pub fn place_of(address: SocketAddr) -> Option<usize> {
    address.port().checked_sub(FIRST_PORT).map(usize::from)
}

/// A member of the network with all its secrets, as the operator knows it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its short id.
    pub sid: Sid,
    /// Its policy record.
    pub policy: Policy,
    /// What the operator lets it do.
    pub overrides: Overrides,
    parents: Vec<Sid>,
    ms3: Vec<u8>,
    salt3: [u8; 8],
    e2_root: [u8; 32],
    root_psk: [u8; 32],
    blind: [u8; 32],
    /// What it signs with, if it signs.
    pub signer: Option<Signer>,
}

/// A node's key for signing, and what the operator's book says of it. The key is no part of the seed: nothing that happens
/// depends on which one it is.
#[derive(Clone, Debug)]
pub struct Signer {
    pkcs8: Zeroizing<Vec<u8>>,
    /// Whether it hears what becomes of its batches.
    pub downlink: Downlink,
    /// As the book has it.
    pub registered: registry::Signer,
}

impl Signer {
    fn new(did: Did, downlink: Downlink) -> anyhow::Result<Self> {
        // Both algorithms that the profile allows, side by side.
        let is_odd = did.0.last().is_some_and(|b| b & 1 == 1);
        let (key, pkcs8) = DeviceSigningKey::generate(if is_odd { DeviceAlg::Ed25519 } else { DeviceAlg::P256 })?;
        let registered = registry::Signer {
            did,
            spki: key.public().spki().to_vec(),
            origin: registry::KeyOrigin::Device,
            chain: String::new(),
            not_after: u64::MAX,
            certified_at: 1,
            revoked_at: None,
        };
        Ok(Self { pkcs8, downlink, registered })
    }

    fn signing(&self) -> anyhow::Result<Signing<DeviceSigningKey>> {
        Ok(Signing::new(DeviceSigningKey::from_pkcs8(&self.pkcs8)?, self.downlink))
    }
}

impl Member {
    /// Draws the secrets of a node.
    ///
    /// # Errors
    /// No randomness for its key.
    pub fn draw(dice: &mut Dice, place: usize, plan: &NodePlan) -> anyhow::Result<Self> {
        let mut policy = Policy::new(plan.profile);
        policy.mode = plan.mode;
        policy.alg = plan.alg;
        policy.kid_length = plan.kid_length;
        policy.ack_every = plan.ack_every.max(1);
        policy.radio = if plan.carrier == Carrier::Ip { Radio::Ip } else { Radio::Ieee802154 };
        let signer = plan.signs.map(|signs| Signer::new(did(node_sid(place)), signs.downlink)).transpose()?;
        if let Some(signs) = plan.signs {
            (policy.sign, policy.batch) = (Sign::Batch, signs.batch);
        }
        let parents = plan.parents.iter().take(PARENTS).map(|p| match p {
            Parent::Gateway => Sid::ANY_GATEWAY,
            Parent::Node(place) => node_sid(*place),
        });
        let mut ms3 = dice.bytes::<32>().to_vec();
        ms3.truncate(policy.alg.key_len());
        Ok(Self {
            sid: node_sid(place),
            policy,
            overrides: Overrides {
                danger_link_only: plan.profile == Profile::DangerLinkOnly,
                danger_no_link: plan.carrier == Carrier::Ip,
            },
            parents: parents.collect(),
            ms3,
            salt3: dice.bytes(),
            e2_root: dice.bytes(),
            root_psk: dice.bytes(),
            blind: dice.bytes(),
            signer,
        })
    }

    /// EUI-64.
    pub fn did(&self) -> Did {
        did(self.sid)
    }

    /// The epoch that its contexts have.
    pub const fn epoch(&self) -> Epoch {
        match self.policy.mode {
            Mode::Persistent => Epoch(1),
            Mode::Random => Epoch(0),
        }
    }

    fn e2(&self) -> E2Root {
        match self.policy.mode {
            Mode::Persistent => E2Root::new(self.e2_root),
            Mode::Random => E2Root::bootstrap(&self.root_psk, self.did()),
        }
    }

    /// The node's own settings.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.did(), self.sid, PAN, self.policy, self.epoch());
        settings.ways.parents = self.parents.iter().copied().collect();
        settings
    }

    /// The node's own secrets.
    pub fn secrets(&self, network_key: &[u8; 16]) -> Secrets {
        let mut secrets = Secrets::default();
        let _ = secrets.link.push((KEY_INDEX, Key::new(*network_key)));
        secrets.e2 = Some(self.e2().secret(GROUP));
        secrets.e3 = match self.policy.mode {
            Mode::Persistent => E3Secret::new(&self.ms3, &self.salt3),
            Mode::Random => Some(E3Secret::bootstrap(&self.root_psk, self.did())),
        };
        secrets.blind = Some(BlindKey::new(self.blind)).filter(|_| self.signer.is_some());
        secrets
    }

    /// What it signs with.
    pub fn signing(&self) -> anyhow::Result<Option<Signing<DeviceSigningKey>>> {
        self.signer.as_ref().map(Signer::signing).transpose()
    }

    /// As the registry has it.
    pub fn registered(&self) -> registry::Device {
        registry::Device {
            did: self.did(),
            sid: self.sid,
            net: NET,
            policy: self.policy,
            overrides: self.overrides,
            words: None,
            epoch: Epoch(1),
            enrolled_at: 1,
            revoked_at: None,
        }
    }

    /// What the cloud has of its secrets.
    pub fn at_cloud(&self) -> fivefold_cloud::book::Secrets {
        fivefold_cloud::book::Secrets {
            ms3: self.ms3.clone().into(),
            salt3: self.salt3,
            e2_root: self.e2_root.into(),
            blind: self.blind.into(),
            root_psk: self.root_psk.into(),
        }
    }
}

/// What the cloud pushes to a gateway: as docs/protocol.md, "Gateway state", has it.
pub fn state(members: &[Member], network_key: &[u8; 16], primary: bool) -> anyhow::Result<Vec<u8>> {
    let devices: Vec<Device> =
        members.iter().map(|m| Device { sid: m.sid, did: m.did(), policy: m.policy, overrides: m.overrides }).collect();
    let mut shares: Vec<(&Member, Vec<u8>, Vec<u8>)> = Vec::new();
    for member in members.iter().filter(|m| m.policy.profile.has_e2()) {
        let secret = member.e2().secret(GROUP);
        if primary {
            shares.push((member, secret.danger_master_secret().to_vec(), secret.master_salt().to_vec()));
        } else if member.policy.mode == Mode::Persistent {
            let context = secret
                .context_for_peer(member.sid, member.epoch(), None, member.policy.alg)
                .map_err(|e| anyhow::anyhow!("no context: {e}"))?;
            let part = context.receive_part();
            shares.push((member, part.danger_recipient_key().to_vec(), part.common_iv().to_vec()));
        }
    }
    let mut contexts = Vec::new();
    for (member, first, second) in &shares {
        let share = if primary {
            Share::Primary { master_secret: first.as_slice().try_into()?, master_salt: second.as_slice().try_into()? }
        } else {
            Share::Secondary { device_key: first, common_iv: second.as_slice().try_into()? }
        };
        let (sid, alg, epoch) = (member.sid, member.policy.alg, member.epoch());
        contexts.push(Context { sid, epoch, alg, standing: Standing::Active, bctx: None, share });
    }
    let keys = [NetworkKey { index: KEY_INDEX, key: network_key, phase: Phase::Switch }];
    let state = State {
        version: 1,
        net: NET,
        group: GROUP,
        part: Part::WHOLE,
        devices: List::of(&devices),
        contexts: List::of(&contexts),
        keys: List::of(&keys),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::default(),
    };
    let mut out = vec![0; PART_BYTES];
    let len = state.emit(&mut out).map_err(|e| anyhow::anyhow!("state: {e}"))?;
    out.truncate(len);
    Ok(out)
}
