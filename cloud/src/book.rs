//! What the cloud knows of networks, gateways, devices and tokens: the operator's registry, held in memory with the keys
//! of every device, and beside each device what was heard of it.
//!
//! The registry side never changes under a reader: a new version of the registry makes a new [`Book`], and devices that
//! did not change are handed over with all they heard.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::rotation::next_step;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{BootContext, Did, Epoch, Net, Sid};
use fivefold_core::oscore::{Context, NUMBER_LIMIT};
use fivefold_core::profile::{KeyIndexes, Mode, Overrides, Policy, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::control::LinkKey;
use fivefold_core::wire::state::Phase;
use fivefold_keep::registry::{self, Gateway, Network, NetworkKey, Registry, RegistryError, Rotation, Token};
use fivefold_keep::sign::VerifyingKey;
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

use crate::accepted::ContextId;
use crate::store::{CommandRow, ContextRow, Recent, Standing, Write};

/// How long an older context still receives (docs/protocol.md 17), in milliseconds.
pub const DRAIN: u64 = 96 * 3600 * 1000;
/// How long after that its messages are still told apart from forged ones (E3-10), before its secret is erased.
pub const STALE: u64 = 24 * 3600 * 1000;

/// What the engine keeps of one context beside its row.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) id: ContextId,
    pub(crate) epoch: Epoch,
    pub(crate) bctx: Option<BootContext>,
    pub(crate) standing: Standing,
    pub(crate) since: Millis,
    /// Whether its row is known to be durable.
    pub(crate) written: bool,
    /// The keys; none where the gateway's word is all there is.
    pub(crate) keys: Option<Context<E3>>,
    /// What it received; `None` until it was looked up.
    pub(crate) recent: Option<Recent>,
    pub(crate) lease: Lease,
    pub(crate) failures: u32,
    /// To be written with the row.
    pub(crate) sealed: Option<Vec<u8>>,
}

impl Ctx {
    pub(crate) fn row(&self, device: &Device, level: u8) -> ContextRow {
        ContextRow {
            id: self.id,
            net: device.net,
            did: device.did,
            level,
            epoch: self.epoch,
            bctx: self.bctx,
            standing: self.standing,
            since: self.since,
            sealed: self.sealed.clone(),
            failures: self.failures,
            bound: self.lease.bound(),
        }
    }
}

/// What was heard of a device, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Of C3: in mode P by epoch, the newest first; in mode R the latest two boots, the newest first. Of devices that the
    /// gateway or nobody vouches for: the one in use, or the latest two boots.
    pub(crate) contexts: Vec<Ctx>,
    /// Boots before those: since when they drain.
    pub(crate) older: HashMap<BootContext, (ContextId, Millis)>,
    /// New boots of the last day.
    pub(crate) boots: VecDeque<Millis>,
    /// Commands without a result.
    pub(crate) commands: Vec<CommandRow>,
    pub(crate) last_command: u64,
    /// Which network keys it said last that it has, and when.
    pub(crate) link_keys: Option<(KeyIndexes, Millis)>,
    /// Where the count for E3-11 began, how many came since, and when.
    pub(crate) gap: Option<(u64, u64, Millis)>,
    /// When it was heard last, and how often it speaks (milliseconds, smoothed; 0 until that is known).
    pub(crate) heard: Option<Millis>,
    pub(crate) period: u64,
    pub(crate) silent: bool,
}

/// A device as the cloud serves it.
#[derive(Debug)]
pub struct Device {
    /// Permanent id.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// Network.
    pub net: Net,
    /// Its policy record.
    pub policy: Policy,
    /// What the operator lets it do that is not safe.
    pub overrides: Overrides,
    /// Epoch of its newest secrets; 0 in mode R.
    pub epoch: Epoch,
    enrolled: registry::Device,
    /// In mode R: what the contexts of every boot come from.
    pub(crate) bootstrap: Option<E3Secret>,
    live: Mutex<Live>,
}

impl Device {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // What is inside is consistent after every statement: a panic elsewhere leaves nothing half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 3, 2 or 1: by which level its messages are proven here.
    pub const fn level(&self) -> u8 {
        match self.policy.profile {
            Profile::ToBoth | Profile::ToCloud => 3,
            Profile::ToGateway => 2,
            Profile::DangerLinkOnly => 1,
        }
    }

    /// Which network keys it said last that it has, and when.
    pub fn link_keys(&self) -> Option<(KeyIndexes, Millis)> {
        self.live().link_keys
    }

    /// When it was heard last since this process started.
    pub fn heard(&self) -> Option<Millis> {
        self.live().heard
    }
}

/// Secrets of a device, as far as the cloud's engine needs them.
pub struct Secrets {
    /// MS3.
    pub ms3: Zeroizing<Vec<u8>>,
    /// salt3.
    pub salt3: [u8; 8],
    /// root_psk, for mode R.
    pub root_psk: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// A device of the registry. Secrets are left out for those that the book before has unchanged.
#[derive(Debug)]
pub struct Enrolled {
    /// Without secrets.
    pub device: registry::Device,
    /// Its secrets.
    pub secrets: Option<Secrets>,
}

/// What a [`Book`] is made from.
#[derive(Debug, Default)]
pub struct Source {
    /// Version of the registry.
    pub version: u64,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Its gateways, revoked ones too.
    pub gateways: Vec<Gateway>,
    /// Its tokens, revoked ones too.
    pub tokens: Vec<Token>,
    /// Its devices, revoked ones too.
    pub devices: Vec<Enrolled>,
    /// Networks whose key is being rotated.
    pub rotations: Vec<LinkRotation>,
}

/// A network whose key is being rotated (docs/protocol.md 4.3).
#[derive(Debug)]
pub struct LinkRotation {
    /// Where it stands.
    pub rotation: Rotation,
    /// The keys of the network.
    pub keys: Vec<NetworkKey>,
}

impl LinkRotation {
    /// What a device is told next, with the key if it is handed out.
    pub(crate) fn told(&self, has: Option<KeyIndexes>) -> Option<LinkKey<'_>> {
        if self.rotation.is_paused {
            return None;
        }
        let keys: Vec<_> = self.keys.iter().map(|k| (k.index, k.phase)).collect();
        let step = next_step(&keys, has)?;
        let key = self.keys.iter().find(|k| k.index == step.index && step.phase == Phase::Distribute);
        Some(LinkKey { index: step.index, key: key.map(|k| &*k.key), phase: step.phase })
    }
}

impl Source {
    /// Reads the registry, and opens the secrets of devices that `before` does not have as they are.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn read(registry: &Registry, vault: &Vault, before: &Book) -> Result<Self, RegistryError> {
        // The version first: what changes while we read makes a newer version, and is read again.
        let version = registry.version()?;
        let devices = registry.devices()?.into_iter().map(|device| {
            let known = before.devices.get(&(device.net, device.sid)).is_some_and(|d| d.enrolled == device);
            let secrets = if known || device.revoked_at.is_some() {
                None
            } else {
                let s = registry.secrets(vault, &device)?;
                Some(Secrets { ms3: s.ms3.clone(), salt3: s.salt3, root_psk: s.root_psk.clone() })
            };
            Ok(Enrolled { device, secrets })
        });
        Ok(Self {
            version,
            networks: registry.networks()?,
            gateways: registry.gateways()?,
            tokens: registry.tokens()?,
            devices: devices.collect::<Result<_, RegistryError>>()?,
            rotations: registry
                .rotations()?
                .into_iter()
                .map(|r| Ok(LinkRotation { keys: registry.network_keys(vault, r.net)?, rotation: r }))
                .collect::<Result<_, RegistryError>>()?,
        })
    }
}

/// A gateway as the cloud knows it.
#[derive(Debug)]
pub struct KnownGateway {
    /// As registered.
    pub registered: Gateway,
    /// Checks its receipts.
    pub key: VerifyingKey,
}

/// One version of the registry, ready for use.
#[derive(Debug, Default)]
pub struct Book {
    /// Version of the registry.
    pub version: u64,
    /// Networks.
    pub networks: Vec<Network>,
    /// Devices that are served.
    pub devices: HashMap<(Net, Sid), Arc<Device>>,
    /// The same by permanent id.
    pub by_did: HashMap<Did, Arc<Device>>,
    /// Devices that are revoked.
    pub revoked: HashSet<(Net, Sid)>,
    /// Gateways that are not revoked.
    pub gateways: HashMap<GatewayName, KnownGateway>,
    /// All gateways, for showing.
    pub all_gateways: Vec<Gateway>,
    /// Tokens that are not revoked.
    pub tokens: Vec<Token>,
    /// Networks whose key is or was rotated.
    pub rotations: HashMap<Net, LinkRotation>,
}

/// What remains of earlier runs: contexts, and commands without a result.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Contexts of the store.
    pub contexts: Vec<ContextRow>,
    /// Commands without a result.
    pub commands: Vec<CommandRow>,
    /// The highest command id of each device.
    pub last_commands: Vec<(Did, u64)>,
    /// Which network keys devices said they have, and when.
    pub link_keys: Vec<(Did, KeyIndexes, Millis)>,
}

/// Makes the name under which a context's secret is sealed.
fn sealed_name(did: Did, epoch: Epoch) -> String {
    format!("cloud context {did} {epoch}")
}

/// What a book is made with, beside its source.
pub struct Maker<'a> {
    /// Seals secrets of contexts, so that draining ones outlive a restart. Without it they do not.
    pub vault: Option<&'a Vault>,
    /// Gives rows to new contexts.
    pub new_context: &'a dyn Fn() -> ContextId,
    /// Whether the store had no reading: then no context has to be looked up.
    pub fresh_store: bool,
    /// The time.
    pub now: Millis,
}

impl Maker<'_> {
    /// The book of `source`. Devices that `before` has unchanged are handed over; `remembered` is for the first book of a
    /// process. What is new goes into `write`, to be committed before the book is used.
    pub fn book(&self, source: Source, before: &Book, remembered: Remembered, write: &mut Write) -> Book {
        let mut rows: HashMap<Did, Vec<ContextRow>> = HashMap::new();
        for row in remembered.contexts {
            rows.entry(row.did).or_default().push(row);
        }
        let mut commands: HashMap<Did, Vec<CommandRow>> = HashMap::new();
        for command in remembered.commands {
            commands.entry(command.did).or_default().push(command);
        }
        let last_commands: HashMap<Did, u64> = remembered.last_commands.into_iter().collect();
        let link_keys: HashMap<Did, (KeyIndexes, Millis)> =
            remembered.link_keys.into_iter().map(|(did, keys, at)| (did, (keys, at))).collect();
        let mut book = Book { version: source.version, networks: source.networks, ..Book::default() };
        for Enrolled { device, secrets } in source.devices {
            let place = (device.net, device.sid);
            if device.revoked_at.is_some() {
                book.revoked.insert(place);
                continue;
            }
            let known = before.devices.get(&place).filter(|d| d.enrolled.did == device.did);
            let device = match (known, secrets) {
                (Some(known), _) if known.enrolled == device => known.clone(),
                (_, None) => continue,
                (known, Some(secrets)) => {
                    let mut live = known.map(|k| std::mem::take(&mut *k.live())).unwrap_or_default();
                    if known.is_none() {
                        live.commands = commands.remove(&device.did).unwrap_or_default();
                        live.last_command = last_commands.get(&device.did).copied().unwrap_or(0);
                        live.link_keys = link_keys.get(&device.did).copied();
                    }
                    let rows = rows.remove(&device.did).unwrap_or_default();
                    Arc::new(self.device(device, &secrets, live, rows, write))
                }
            };
            book.by_did.insert(device.did, device.clone());
            book.devices.insert(place, device);
        }
        for gateway in source.gateways {
            if gateway.revoked_at.is_none() {
                match VerifyingKey::from_spki(&gateway.spki) {
                    Ok(key) => {
                        let name = GatewayName { net: gateway.net, gateway: gateway.gateway };
                        book.gateways.insert(name, KnownGateway { registered: gateway.clone(), key });
                    }
                    Err(error) => {
                        tracing::error!(gateway = %gateway.gateway, %error, "its receipt key is unusable: not served");
                    }
                }
            }
            book.all_gateways.push(gateway);
        }
        book.rotations = source.rotations.into_iter().map(|r| (r.rotation.net, r)).collect();
        book.tokens = source.tokens.into_iter().filter(|t| t.revoked_at.is_none()).collect();
        book
    }

    fn device(
        &self,
        enrolled: registry::Device,
        secrets: &Secrets,
        live: Live,
        rows: Vec<ContextRow>,
        write: &mut Write,
    ) -> Device {
        let random = enrolled.policy.mode == Mode::Random;
        let mut device = Device {
            did: enrolled.did,
            sid: enrolled.sid,
            net: enrolled.net,
            policy: enrolled.policy,
            overrides: enrolled.overrides,
            epoch: if random { Epoch(0) } else { enrolled.epoch },
            bootstrap: None,
            live: Mutex::default(),
            enrolled,
        };
        let level = device.level();
        if random && level == 3 {
            device.bootstrap = Some(E3Secret::bootstrap(&secrets.root_psk, device.did));
        }
        let mut live = live;
        let rows = rows.into_iter().filter(|r| r.net == device.net && r.level == level);
        if random {
            self.boots(&device, &mut live, rows.collect());
        } else {
            self.epochs(&device, secrets, &mut live, rows.collect(), write);
        }
        *device.live() = live;
        device
    }

    /// Mode R: the latest two boots are kept ready, the others by name.
    fn boots(&self, device: &Device, live: &mut Live, rows: Vec<ContextRow>) {
        live.contexts.retain(|c| c.bctx.is_some());
        let mut rows: Vec<_> = rows.into_iter().filter(|r| r.bctx.is_some()).collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.id));
        for row in rows {
            let Some(bctx) = row.bctx else { continue };
            let keys = match &device.bootstrap {
                Some(b) => b.context_for_peer(device.sid, Epoch(0), Some(bctx), device.policy.alg).ok(),
                None => None,
            };
            if live.contexts.len() < 2 {
                live.contexts.push(self.remembered(&row, keys));
            } else {
                live.older.insert(bctx, (row.id, row.since));
            }
        }
    }

    /// Mode P: the registry's epoch, and those before it that still drain.
    fn epochs(&self, device: &Device, secrets: &Secrets, live: &mut Live, rows: Vec<ContextRow>, write: &mut Write) {
        live.contexts.retain(|c| c.bctx.is_none() && c.epoch < device.epoch);
        for row in rows {
            if row.bctx.is_some() || live.contexts.iter().any(|c| c.epoch == row.epoch) {
                continue;
            }
            let over = row.standing == Standing::Draining && self.now.since(row.since) > DRAIN + STALE;
            let keys = if device.level() < 3 {
                None
            } else if row.epoch == device.epoch {
                keys(device, &secrets.ms3, &secrets.salt3, row.epoch)
            } else if over {
                if row.sealed.is_some() {
                    write.forgotten.push(row.id);
                }
                continue;
            } else {
                self.unsealed(device, &row)
            };
            if row.epoch == device.epoch || keys.is_some() {
                live.contexts.push(self.remembered(&row, keys));
            }
        }
        if !live.contexts.iter().any(|c| c.epoch == device.epoch) {
            let standing = if live.contexts.is_empty() { Standing::Active } else { Standing::Pending };
            let ctx = Ctx {
                id: (self.new_context)(),
                epoch: device.epoch,
                bctx: None,
                standing,
                since: self.now,
                written: true,
                keys: if device.level() < 3 { None } else { keys(device, &secrets.ms3, &secrets.salt3, device.epoch) },
                recent: Some(Recent::default()),
                lease: Lease::resume(0, NUMBER_LIMIT),
                failures: 0,
                sealed: self.sealed(device, secrets),
            };
            write.contexts.push(ctx.row(device, device.level()));
            live.contexts.push(Ctx { sealed: None, ..ctx });
        }
        live.contexts.sort_by_key(|c| std::cmp::Reverse(c.epoch));
    }

    fn remembered(&self, row: &ContextRow, keys: Option<Context<E3>>) -> Ctx {
        Ctx {
            id: row.id,
            epoch: row.epoch,
            bctx: row.bctx,
            standing: row.standing,
            since: row.since,
            written: true,
            keys,
            recent: self.fresh_store.then(Recent::default),
            lease: Lease::resume(row.bound, NUMBER_LIMIT),
            failures: row.failures,
            sealed: None,
        }
    }

    fn sealed(&self, device: &Device, secrets: &Secrets) -> Option<Vec<u8>> {
        if device.level() < 3 {
            return None;
        }
        let mut bytes = Zeroizing::new(secrets.ms3.to_vec());
        bytes.extend_from_slice(&secrets.salt3);
        self.vault.and_then(|v| v.seal(&sealed_name(device.did, device.epoch), &bytes).ok())
    }

    fn unsealed(&self, device: &Device, row: &ContextRow) -> Option<Context<E3>> {
        let sealed = row.sealed.as_ref()?;
        let bytes = self.vault?.open(&sealed_name(device.did, row.epoch), sealed).ok()?;
        let (ms3, salt3) = bytes.split_last_chunk::<8>()?;
        keys(device, ms3, salt3, row.epoch)
    }
}

fn keys(device: &Device, ms3: &[u8], salt3: &[u8; 8], epoch: Epoch) -> Option<Context<E3>> {
    E3Secret::new(ms3, salt3)?.context_for_peer(device.sid, epoch, None, device.policy.alg).ok()
}

impl Book {
    /// The gateway of this name, unless it is revoked or was never registered.
    pub fn gateway(&self, name: GatewayName) -> Option<&KnownGateway> {
        self.gateways.get(&name)
    }

    /// The network of this id.
    pub fn network(&self, net: Net) -> Option<&Network> {
        self.networks.iter().find(|n| n.net == net)
    }
}
