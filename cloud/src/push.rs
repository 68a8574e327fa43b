//! The state that each gateway is pushed (docs/protocol.md, "Gateway state"): built from the registry and the contexts of the
//! store alone, so that one version has one content.
//!
//! The version is the sum of both: each only grows, so a sum that is the same twice means that neither has changed.

mod classic;

use std::collections::HashMap;
use std::time::Duration;

use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::SealError;
use fivefold_core::id::{Did, Epoch, GatewayGroup, Net, Sid};
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{
    self, Added, Context, LocalKey, NetworkKey, PART_BYTES, Part, Share, Standing, State,
};
use fivefold_keep::registry::{self, Device, FirstContexts, Gateway, Network, Registry, RegistryError, Renewal};
use fivefold_keep::vault::Vault;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::context::ContextSecrets;
use crate::store::{self, ContextRow, StoreError};
use classic::ClassicShare;

/// Bytes of devices and contexts in one part, at most; the rest is for keys and revocations.
const PART: usize = PART_BYTES / 4 * 3;

/// Contexts are gathered for so long at least, and for so many times as long as it took to build the last state.
const GATHER: Duration = Duration::from_secs(5);
const GATHER_TIMES: u32 = 20;

/// Why a state could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The gateway is not registered, or revoked.
    #[error("gateway {0} is not registered, or revoked")]
    Unknown(GatewayName),
    /// The registry did not give what is in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store did not give what is in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part did not fit.
    #[error("a part of the state of {gateway} could not be written: {reason}")]
    Encode {
        /// Whose.
        gateway: GatewayName,
        /// Why.
        reason: SealError,
    },
}

/// A gateway's state, in parts. Holds secrets: wiped when dropped.
pub struct Push {
    /// Version of all parts.
    pub version: u64,
    /// The parts, in order.
    pub parts: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Push(version {}, {} parts)", self.version, self.parts.len())
    }
}

/// The contexts of a network as they are in the store now, with their generation.
pub type Contexts<'a> = &'a dyn Fn(Net) -> Result<(u64, Vec<ContextRow>), StoreError>;

/// Builds the state of one gateway from registry and store as they are now.
///
/// # Errors
/// [`PushError`].
pub fn build(
    registry: &Registry,
    contexts: Contexts<'_>,
    vault: &Vault,
    gateway: GatewayName,
) -> Result<Push, PushError> {
    loop {
        let version = registry.version()?;
        let (generation, rows) = contexts(gateway.net)?;
        let push = build_once(registry, rows, vault, gateway, version + generation)?;
        // What changed while it was read belongs to the next version: then this content belongs to neither.
        if registry.version()? == version {
            return Ok(push);
        }
    }
}

fn build_once(
    registry: &Registry,
    rows: Vec<ContextRow>,
    vault: &Vault,
    name: GatewayName,
    version: u64,
) -> Result<Push, PushError> {
    let gateways = registry.gateways()?;
    let gateway = gateways
        .iter()
        .find(|g| g.gateway == name.gateway && g.net == name.net && g.revoked_at.is_none())
        .ok_or(PushError::Unknown(name))?;
    let network = registry.networks()?.into_iter().find(|n| n.net == name.net).ok_or(PushError::Unknown(name))?;
    let keys = registry.network_keys(vault, name.net)?;
    let keys: Vec<NetworkKey<'_>> =
        keys.iter().map(|k| NetworkKey { index: k.index, key: &k.key, phase: k.phase }).collect();
    let (mut revoked, mut devices) = (Vec::<Did>::new(), Vec::<Device>::new());
    for device in registry.devices_of(name.net)? {
        if device.revoked_at.is_some() {
            revoked.push(device.did);
        } else {
            devices.push(device);
        }
    }
    revoked.sort_unstable();
    devices.sort_unstable_by_key(|d| d.sid);
    let of_cloud = registry.revoked_of_cloud()?;
    let serials: Vec<state::Serial<'_>> = of_cloud.iter().map(|serial| state::Serial(&serial.0)).collect();
    let mut rows_of: HashMap<Did, Vec<ContextRow>> = HashMap::new();
    for row in rows {
        rows_of.entry(row.did).or_default().push(row);
    }
    let held_before = registry.held_before()?;
    let renewals: HashMap<Did, Renewal> = registry.renewals_of(name.net)?.into_iter().map(|r| (r.did, r)).collect();
    let local = registry.local(name.net)?;
    let mut chunks = Chunks::default();
    for device in &devices {
        if let Some(local) = local {
            // It agrees its keys with one gateway alone; no other has any.
            let key = renewals.get(&device.did).filter(|_| local.gateway == name.gateway);
            let key = key.map(|r| LocalKey { sid: device.sid, x: r.x }).filter(|_| device.policy.can_agree_locally());
            chunks.add(device, Vec::new(), key);
            continue;
        }
        let rows = rows_of.remove(&device.did).unwrap_or_default();
        let renewal = renewals.get(&device.did);
        let installed = renewal.is_none_or(|r| r.first == FirstContexts::Installed);
        let ordered = renewal.and_then(Renewal::ordered_until);
        let held = held_before.get(&device.did).copied();
        let known = Known { device, rows, installed, held, ordered };
        let shares = known.shares(registry, vault, network.group, gateway)?;
        chunks.add(device, shares, None);
    }
    for share in ClassicShare::of(registry, vault, name)? {
        chunks.add_classic(share);
    }
    let chunks = chunks.done();
    let count = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    let mut parts = Vec::with_capacity(chunks.len());
    for (index, Chunk { devices, shares, local, classic }) in (0u16..).zip(&chunks) {
        let hardened: Vec<_> = classic.iter().map(ClassicShare::hardened).collect();
        let classic: Vec<_> = classic.iter().zip(&hardened).map(|(share, keys)| share.listed(keys)).collect();
        let contexts: Vec<Context<'_>> = shares.iter().filter_map(GatewayShare::context).collect();
        let last = index + 1 == count;
        let state = State {
            version,
            net: name.net,
            group: network.group,
            part: Part { index, count },
            devices: List::of(devices),
            contexts: List::of(&contexts),
            keys: if last { List::of(&keys) } else { List::default() },
            revoked: if last { List::of(&revoked) } else { List::default() },
            revoked_serials: if last { List::of(&serials) } else { List::default() },
            local: List::of(local),
            classic: List::of(&classic),
        };
        let mut out = Zeroizing::new(vec![0; PART_BYTES]);
        let len = state.emit(&mut out).map_err(|reason| PushError::Encode { gateway: name, reason })?;
        out.truncate(len);
        parts.push(out);
    }
    Ok(Push { version, parts })
}

/// What goes into one part.
#[derive(Default)]
struct Chunk {
    devices: Vec<state::Device>,
    shares: Vec<GatewayShare>,
    local: Vec<LocalKey>,
    classic: Vec<ClassicShare>,
}

/// Parts, the last of which is being filled.
#[derive(Default)]
struct Chunks {
    full: Vec<Chunk>,
    last: Chunk,
    filled: usize,
}

impl Chunks {
    fn add(&mut self, device: &Device, shares: Vec<GatewayShare>, local: Option<LocalKey>) {
        let of_local = if local.is_some() { LocalKey::LONGEST } else { 0 };
        self.room(state::Device::LONGEST + shares.len() * Context::LONGEST + of_local);
        self.last.devices.push(listed(device));
        self.last.shares.extend(shares);
        self.last.local.extend(local);
    }

    fn add_classic(&mut self, share: ClassicShare) {
        self.room(state::ClassicDevice::LONGEST);
        self.last.classic.push(share);
    }

    /// Begins another part where this one has no room for so much more.
    fn room(&mut self, takes: usize) {
        if self.filled + takes > PART {
            self.full.push(std::mem::take(&mut self.last));
            self.filled = 0;
        }
        self.filled += takes;
    }

    fn done(mut self) -> Vec<Chunk> {
        self.full.push(self.last);
        self.full
    }
}

/// A device of the registry, with what the store knows of its contexts, by epoch.
struct Known<'a> {
    device: &'a Device,
    rows: Vec<ContextRow>,
    /// Whether the secrets of the registry were ever handed out.
    installed: bool,
    /// The newest epoch under which an earlier primary may have answered.
    held: Option<Epoch>,
    /// When the operator ordered it to renew.
    ordered: Option<Millis>,
}

impl Known<'_> {
    /// What the gateway gets of each of its contexts, by epoch.
    fn shares(
        &self,
        registry: &Registry,
        vault: &Vault,
        group: GatewayGroup,
        gateway: &Gateway,
    ) -> Result<Vec<GatewayShare>, PushError> {
        let device = self.device;
        let mut out = Vec::new();
        if !device.policy.profile.has_e2() {
            return Ok(out);
        }
        if device.policy.mode == Mode::Random {
            // The receive part of mode R is of one boot, and the registry knows no boots. Of mode R the registry's epoch counts
            // how often the device was enrolled: its contexts are all of epoch 0.
            if gateway.primary && self.held.is_none_or(|held| device.epoch > held) {
                let secrets = registry.secrets(vault, device)?;
                let root = E2Root::bootstrap(&secrets.root_psk, device.did);
                out.extend(GatewayShare::new(device, Epoch(0), Standing::Active, &root, group, true));
            }
            return Ok(out);
        }
        let mut share = |epoch, standing, root: &E2Root| {
            // Under what was an earlier primary's, this one opens and never answers (K2).
            let primary = gateway.primary && self.held.is_none_or(|held| epoch > held);
            out.extend(GatewayShare::new(device, epoch, standing, root, group, primary));
        };
        let installed = || -> Result<E2Root, RegistryError> {
            let secrets: registry::DeviceSecrets = registry.secrets(vault, device)?;
            Ok(E2Root::new(*secrets.e2_root))
        };
        for row in &self.rows {
            let root = match &row.sealed {
                // What drained is at its end when its secret is erased.
                None if row.standing == store::Standing::Draining => None,
                _ if self.installed && row.epoch == device.epoch => Some(installed()?),
                None => None,
                Some(sealed) => match ContextSecrets::open(vault, row.did, row.epoch, sealed) {
                    Ok(secrets) => secrets.e2_root,
                    Err(error) => {
                        // Whatever else is in the state must reach its gateway, revocations above all.
                        tracing::error!(did = %row.did, epoch = %row.epoch, %error, "a context is not pushed");
                        None
                    }
                },
            };
            if let Some(root) = root {
                share(row.epoch, self.standing(row), &root);
            }
        }
        // The book of the cloud has not taken it up yet.
        if self.installed && self.rows.iter().all(|row| row.epoch < device.epoch) {
            let standing = if self.rows.is_empty() { Standing::Active } else { Standing::Pending };
            share(device.epoch, standing, &installed()?);
        }
        Ok(out)
    }
}

impl Known<'_> {
    fn standing(&self, row: &ContextRow) -> Standing {
        let agreed = row.agreed.map_or(row.since, |by| by.at);
        match row.standing {
            // Where E3 is declared the cloud says so itself.
            store::Standing::Active if self.device.policy.profile == Profile::ToGateway => {
                if self.ordered.is_some_and(|at| at > agreed) { Standing::Due } else { Standing::Active }
            }
            store::Standing::Active => Standing::Active,
            store::Standing::Pending => Standing::Pending,
            store::Standing::Draining => Standing::Draining,
        }
    }
}

fn listed(device: &Device) -> state::Device {
    let Device { sid, did, policy, overrides, .. } = *device;
    state::Device { sid, did, policy, overrides }
}

/// When the next state goes to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// Not before then: what changes until then goes with it.
    At(Instant),
    /// There is nothing new.
    Unchanged,
}

/// What one connection was pushed last, and when. What the operator changes is pushed at once; contexts, of which a campaign
/// changes thousands, are gathered, the longer the more it costs to build a state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pushed(Option<Last>);

#[derive(Clone, Copy, Debug)]
struct Last {
    version: u64,
    generation: u64,
    at: Instant,
    pause: Duration,
}

impl Pushed {
    /// When the next state goes out, of this version of the registry and generation of contexts.
    pub fn due(&self, version: u64, generation: u64, now: Instant) -> Due {
        match self.0 {
            None => Due::Now,
            Some(last) if version > last.version => Due::Now,
            Some(last) if generation <= last.generation => Due::Unchanged,
            Some(last) if now >= last.at + last.pause => Due::Now,
            Some(last) => Due::At(last.at + last.pause),
        }
    }

    /// Takes note that a state of at least these was built, from `began` until `at`.
    pub fn took(&mut self, version: u64, generation: u64, began: Instant, at: Instant) {
        let pause = GATHER.max((at - began) * GATHER_TIMES);
        self.0 = Some(Last { version, generation, at, pause });
    }
}

/// What one gateway gets of one context: MS2 and salt2 where it is the primary, else the receive part (K2). Never K_e2root,
/// from which those of every group could be had (K1).
pub struct GatewayShare {
    sid: Sid,
    alg: Alg,
    epoch: Epoch,
    standing: Standing,
    primary: bool,
    first: Zeroizing<Vec<u8>>,
    second: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for GatewayShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GatewayShare({}, epoch {})", self.sid, self.epoch)
    }
}

impl GatewayShare {
    fn new(
        device: &Device,
        epoch: Epoch,
        standing: Standing,
        root: &E2Root,
        group: GatewayGroup,
        primary: bool,
    ) -> Option<Self> {
        let secret = root.secret(group);
        let (first, second) = if primary {
            (secret.danger_master_secret().to_vec(), secret.master_salt().to_vec())
        } else {
            let part = secret.context_for_peer(device.sid, epoch, None, device.policy.alg).ok()?.receive_part();
            (part.danger_recipient_key().to_vec(), part.common_iv().to_vec())
        };
        let (sid, alg) = (device.sid, device.policy.alg);
        Some(Self { sid, alg, epoch, standing, primary, first: first.into(), second: second.into() })
    }

    fn context(&self) -> Option<Context<'_>> {
        let share = if self.primary {
            Share::Primary {
                master_secret: self.first.as_slice().try_into().ok()?,
                master_salt: self.second.as_slice().try_into().ok()?,
            }
        } else {
            Share::Secondary { device_key: &self.first, common_iv: self.second.as_slice().try_into().ok()? }
        };
        let Self { sid, alg, epoch, standing, .. } = *self;
        Some(Context { sid, epoch, alg, standing, bctx: None, share })
    }
}

/// One context that was just agreed, for the gateway that forwarded the run (docs/protocol.md 8.2, W6): the bytes of a
/// downlink 5. `version` is read after the context is durable. `None` where there is no E2.
pub fn added(
    version: u64,
    network: &Network,
    gateway: &Gateway,
    device: &Device,
    (epoch, root): (Epoch, &E2Root),
) -> Option<Zeroizing<Vec<u8>>> {
    if !device.policy.profile.has_e2() {
        return None;
    }
    let share = GatewayShare::new(device, epoch, Standing::Pending, root, network.group, gateway.primary)?;
    let context = share.context()?;
    let mut out = Zeroizing::new(vec![0; Added::LONGEST]);
    let len = Added { version, net: network.net, group: network.group, context }.emit(&mut out).ok()?;
    out.truncate(len);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_renewals_are_a_few_states_and_a_revocation_is_one_at_once() {
        let start = Instant::now();
        let mut pushed = Pushed::default();
        let mut built = 0;
        let mut step = |pushed: &mut Pushed, now: Instant, version, generation, cost| {
            let due = pushed.due(version, generation, now);
            if due == Due::Now {
                built += 1;
                pushed.took(version, generation, now, now + cost);
            }
            (due, built)
        };
        let cost = Duration::from_millis(100);
        assert_eq!(step(&mut pushed, start, 1, 0, cost).0, Due::Now, "whoever comes is told what there is");
        // One each 20 ms: 20 s in all.
        let mut last = (Due::Now, 0);
        for n in 1..=1000 {
            last = step(&mut pushed, start + Duration::from_millis(n * 20), 1, n, cost);
        }
        assert!(matches!(last.0, Due::At(_)));
        assert!((4..=5).contains(&last.1), "{} states", last.1);
        // What the operator does waits for nothing.
        let now = start + Duration::from_secs(20);
        assert_eq!(step(&mut pushed, now, 2, 1000, Duration::from_secs(3)), (Due::Now, last.1 + 1));
        assert_eq!(step(&mut pushed, now, 2, 1000, cost).0, Due::Unchanged);
        // A state that costs three seconds is not built again for a minute.
        let at = now + Duration::from_secs(3 + 60);
        assert_eq!(step(&mut pushed, now + Duration::from_secs(30), 2, 1001, cost).0, Due::At(at));
        assert_eq!(step(&mut pushed, at, 2, 1001, cost).0, Due::Now);
    }
}
