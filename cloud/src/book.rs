//! What the cloud knows of networks, gateways, devices and tokens: the operator's registry, held in memory with the keys
//! of every device, and beside each device what was heard of it.
//!
//! The registry side never changes under a reader: a new version of the registry makes a new [`Book`], and devices that
//! did not change are handed over with all they heard.

mod classic;
mod dossier;
mod receipts;
mod signers;
mod templates;
mod vitals;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::rotation::{missed, next_step};
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::e5_renewal::{HandedKey, PqMix};
use fivefold_core::id::{BootContext, Did, Epoch, Net, Sid};
use fivefold_core::oscore::Context;
use fivefold_core::profile::{KeyIndexes, Mode, Overrides, Policy, Profile};
use fivefold_core::proof::KeyName;
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::suite::agreement::PublicX;
use fivefold_core::time::Millis;
use fivefold_core::wire::control::LinkKey;
use fivefold_core::wire::state::Phase;
use fivefold_keep::registry::{
    self, FirstContexts, Gateway, Network, NetworkKey, ReceiptSigner, Registry, RegistryError, Renewal, Rotation,
    Signer, Token,
};
use fivefold_keep::sign::VerifyingKey;
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

use crate::accepted::ContextId;
use crate::context::ContextSecrets;
use crate::pulse::Pulse;
use crate::renewal::{Orders, Runs};
use crate::restored::{self, Restored};
use crate::store::{AgreedBy, CommandRow, ContextRow, LinkReport, Recent, Standing, Write};

pub(crate) use classic::Live as ClassicLive;
pub(crate) use classic::level_of;
pub use classic::{Blind, ClassicDevice, ClassicSource, Classics};
pub(crate) use dossier::Told;
pub use dossier::{Dossier, Open, Tries, Unsigned};
pub use receipts::ReceiptSigners;
pub use signers::{KnownSigner, Signers};
pub use templates::Templates;
pub use vitals::Vital;

/// Boots of a device of mode R that are kept ready.
const READY: usize = 2;
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
    /// K_blind of mode P, where it is known.
    pub(crate) blind: Option<BlindKey>,
    /// What it received; `None` until it was looked up.
    pub(crate) recent: Option<Recent>,
    pub(crate) lease: Lease,
    pub(crate) failures: u32,
    /// To be written with the row.
    pub(crate) sealed: Option<Vec<u8>>,
    /// How it was agreed; `None` if it was installed.
    pub(crate) agreed: Option<AgreedBy>,
    /// Draining, and messages came that nobody has confirmed since: item 10 of the next answer does.
    pub(crate) unsaid: bool,
    /// The store was put back from a copy: how its answers are numbered.
    pub(crate) restored: Option<Restored>,
}

impl Ctx {
    /// The bound of our own numbers to make durable next.
    pub(crate) fn proposal(&self, block: u32, now: Millis) -> Option<u32> {
        restored::proposal(self.restored, &self.lease, block, now)
    }

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
            agreed: self.agreed,
            failures: self.failures,
            bound: self.lease.bound(),
            restored_at: self.restored.map(|r| r.at),
        }
    }
}

/// What is kept of a boot of mode R that is none of the two that spoke last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Older {
    pub(crate) id: ContextId,
    epoch: Epoch,
    /// Since when it drains.
    pub(crate) since: Millis,
    /// Our own numbers below this may have been used.
    bound: u32,
    failures: u32,
    restored: Option<Restored>,
    /// Whether its row is known to be durable.
    written: bool,
}

impl Older {
    fn of(ctx: &Ctx) -> Self {
        let Ctx { id, epoch, since, failures, restored, written, .. } = *ctx;
        Self { id, epoch, since, bound: ctx.lease.bound(), failures, restored, written }
    }

    /// The context again, as one that drains.
    pub(crate) fn again(self, bctx: BootContext, keys: Option<Context<E3>>, recent: Recent) -> Ctx {
        Ctx {
            id: self.id,
            epoch: self.epoch,
            bctx: Some(bctx),
            standing: Standing::Draining,
            since: self.since,
            written: self.written,
            keys,
            blind: None,
            recent: Some(recent),
            lease: restored::lease(self.restored, self.bound),
            failures: self.failures,
            sealed: None,
            agreed: None,
            unsaid: false,
            restored: self.restored,
        }
    }
}

/// What was heard of a device, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Of C3: in mode P by epoch, the newest first; in mode R the two boots that spoke last, the active one first. Of devices
    /// that the gateway or nobody vouches for: the one in use, or those two boots.
    pub(crate) contexts: Vec<Ctx>,
    /// The boots before those.
    pub(crate) older: HashMap<BootContext, Older>,
    /// New boots of the last day.
    pub(crate) boots: VecDeque<Millis>,
    /// Runs of EDHOC.
    pub(crate) runs: Runs,
    /// What orders them.
    pub(crate) orders: Orders,
    /// Commands without a result.
    pub(crate) commands: Vec<CommandRow>,
    pub(crate) last_command: u64,
    /// Which network keys it said last that it has.
    pub(crate) link_keys: Option<LinkReport>,
    /// Index of the network key that was put last into an answer to it, and when first.
    pub(crate) link_told: Option<(u8, Millis)>,
    /// When it asked for an answer last.
    pub(crate) asked: Option<Millis>,
    /// Where the count for E3-11 began, how many came since, and when.
    pub(crate) gap: Option<(u64, u64, Millis)>,
    /// When it was heard, and how often it speaks.
    pub(crate) pulse: Pulse,
    /// What is open of its evidence.
    pub(crate) dossier: Dossier,
}

impl Live {
    /// The context in use; before there is one, the newest.
    pub(crate) fn active(&self) -> Option<&Ctx> {
        let first = self.contexts.first();
        self.contexts.iter().find(|c| c.standing == Standing::Active).or(first)
    }

    /// The same, to be changed.
    pub(crate) fn active_mut(&mut self) -> Option<&mut Ctx> {
        let at = self.contexts.iter().position(|c| c.standing == Standing::Active).unwrap_or(0);
        self.contexts.get_mut(at)
    }

    /// A context took something under a number above all that it had. Of mode R nothing says which boot is the later one: the
    /// first message of a boot may be kept back until the next boot was heard. So the one that goes on is the active one, and
    /// the other drains.
    pub(crate) fn speaks(&mut self, context: ContextId, write: &mut Write) {
        let drained = |c: &Ctx| c.id == context && c.bctx.is_some() && c.standing == Standing::Draining;
        let Some(at) = self.contexts.iter().position(drained) else { return };
        self.contexts.swap(0, at);
        for (place, ctx) in self.contexts.iter_mut().enumerate() {
            let standing = if place == 0 { Standing::Active } else { Standing::Draining };
            if ctx.standing != standing {
                (ctx.standing, ctx.since) = (standing, write.now);
                write.standings.push((ctx.id, standing, write.now));
            }
        }
    }

    /// Puts a boot of mode R into place `at` of the two that are kept ready. The last one gives way and is kept by name.
    pub(crate) fn put_boot(&mut self, at: usize, ctx: Ctx) {
        self.contexts.insert(at.min(self.contexts.len()), ctx);
        while self.contexts.len() > READY {
            if let Some(last) = self.contexts.pop()
                && let Some(bctx) = last.bctx
            {
                self.older.insert(bctx, Older::of(&last));
            }
        }
    }
}

/// A context of a device, for showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextState {
    /// Key generation.
    pub epoch: Epoch,
    /// What it may be used for.
    pub standing: Standing,
    /// Since when.
    pub since: Millis,
    /// When it was agreed; `None` if it was installed.
    pub agreed: Option<Millis>,
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
    /// Its public key for EDHOC, if it can renew.
    pub(crate) key: Option<PublicX>,
    /// What its record wants mixed into what EDHOC gives.
    pub(crate) mix: Option<PqMix>,
    enrolled: registry::Device,
    /// What holds for contexts of it that the store does not know.
    pub(crate) restored: Option<Restored>,
    /// In mode R: what the contexts of every boot come from.
    pub(crate) bootstrap: Option<E3Secret>,
    /// In mode R: what hides the leaves of every boot.
    pub(crate) blind: Option<BlindKey>,
    // Handed over to the device of the next book, whole: who still has this one sees the same.
    live: Arc<Mutex<Live>>,
}

/// These devices as they are in the book now, and how far those are that can renew.
fn changed(registry: &Registry, touched: &[Did]) -> Result<(Vec<registry::Device>, Vec<Renewal>), RegistryError> {
    let (mut devices, mut renewals) = (Vec::with_capacity(touched.len()), Vec::new());
    for did in touched {
        // No device ever leaves the book.
        devices.extend(registry.known_device(*did)?);
        renewals.extend(registry.renewal(*did)?);
    }
    renewals.sort_unstable_by_key(|r| r.did);
    Ok((devices, renewals))
}

fn find(renewals: &[Renewal], did: Did) -> Option<&Renewal> {
    renewals.binary_search_by_key(&did, |r| r.did).ok().and_then(|i| renewals.get(i))
}

impl Device {
    fn is(&self, enrolled: &registry::Device, key: Option<PublicX>) -> bool {
        self.enrolled == *enrolled && self.key == key
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // What is inside is consistent after every statement: a panic elsewhere leaves nothing half done.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the registry has it.
    pub(crate) const fn enrolled(&self) -> &registry::Device {
        &self.enrolled
    }

    /// 3, 2 or 1: by which level its messages are proven here.
    pub const fn level(&self) -> u8 {
        match self.policy.profile {
            Profile::ToBoth | Profile::ToCloud => 3,
            Profile::ToGateway => 2,
            Profile::DangerLinkOnly => 1,
        }
    }

    /// Its contexts of mode P, the newest first.
    pub fn contexts(&self) -> Vec<ContextState> {
        let live = self.live();
        let of = |c: &Ctx| ContextState {
            epoch: c.epoch,
            standing: c.standing,
            since: c.since,
            agreed: c.agreed.map(|a| a.at),
        };
        live.contexts.iter().filter(|c| c.bctx.is_none()).map(of).collect()
    }

    /// Whether it can renew.
    pub const fn can_renew(&self) -> bool {
        self.key.is_some()
    }

    /// When the operator ordered it to renew, unless it has done so since.
    pub fn ordered_to_renew(&self) -> Option<Millis> {
        let live = self.live();
        let done = live.active().map(|c| c.agreed.map_or(c.since, |a| a.at));
        live.orders.ordered().filter(|at| done.is_none_or(|done| *at > done))
    }

    /// Which network keys it said last that it has.
    pub fn link_keys(&self) -> Option<LinkReport> {
        self.live().link_keys
    }

    /// When it was heard last since this process started.
    pub fn heard(&self) -> Option<Millis> {
        self.live().pulse.heard
    }
}

/// Secrets of a device, as far as the cloud's engine needs them.
pub struct Secrets {
    /// MS3.
    pub ms3: Zeroizing<Vec<u8>>,
    /// salt3.
    pub salt3: [u8; 8],
    /// K_e2root.
    pub e2_root: Zeroizing<[u8; 32]>,
    /// K_blind.
    pub blind: Zeroizing<[u8; 32]>,
    /// root_psk, for mode R and to be mixed in.
    pub root_psk: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// What is kept of an installed context.
    fn of_context(&self, profile: Profile) -> ContextSecrets {
        ContextSecrets {
            e3: if profile.has_e3() { E3Secret::new(&self.ms3, &self.salt3) } else { None },
            e2_root: profile.has_e2().then(|| E2Root::new(*self.e2_root)),
            blind: Some(BlindKey::new(*self.blind)),
        }
    }
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
    /// Whether these are those that changed since the book before: then all others are as they were.
    pub is_change: bool,
    /// Devices that can renew, by permanent id; of a change, those of its devices.
    pub renewals: Vec<Renewal>,
    /// Networks whose key is being rotated.
    pub rotations: Vec<LinkRotation>,
    /// Classic devices that are not revoked.
    pub classics: Vec<ClassicSource>,
    /// Signing keys of devices, revoked ones too, by device, the oldest first.
    pub signers: Vec<Signer>,
    /// Templates, by network.
    pub templates: Templates,
    /// Gateways' keys for receipts that have a certificate, revoked ones too.
    pub receipt_signers: Vec<ReceiptSigner>,
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
    fn phases(&self) -> Vec<(u8, Phase)> {
        self.keys.iter().map(|k| (k.index, k.phase)).collect()
    }

    /// The key that the network sends under, if a device that said this last missed it.
    pub(crate) fn missed(&self, has: Option<KeyIndexes>) -> Option<HandedKey> {
        let index = missed(&self.phases(), has)?;
        self.keys.iter().find(|k| k.index == index).map(|k| HandedKey::new(index, *k.key))
    }

    /// What a device is told next, with the key if it is handed out.
    pub(crate) fn told(&self, has: Option<KeyIndexes>) -> Option<LinkKey<'_>> {
        let step = next_step(&self.phases(), has)?;
        let key = self.keys.iter().find(|k| k.index == step.index && step.phase == Phase::Distribute);
        Some(LinkKey { index: step.index, key: key.map(|k| &*k.key), phase: step.phase })
    }

    /// Whether it is durable that a device was given this key: `told` is what it was given last.
    pub(crate) fn was_given(&self, index: u8, told: Option<(u8, Millis)>) -> bool {
        told.is_some_and(|(last, at)| last == index && at.0 / 1000 >= self.rotation.started_at)
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
        let touched = registry.touched_since(before.version)?;
        let (all, renewals) = match &touched {
            None => (registry.devices()?, registry.renewals()?),
            Some(touched) => changed(registry, touched)?,
        };
        let networks = registry.networks()?;
        let mut local = HashSet::new();
        for network in &networks {
            local.extend(registry.local(network.net)?.map(|l| l.net));
        }
        // Devices that agree their keys with a gateway alone are none of the cloud's.
        let devices = all.into_iter().filter(|d| !local.contains(&d.net)).map(|device| {
            let key = find(&renewals, device.did).map(|r| r.x);
            let known = before.devices.get(&(device.net, device.sid)).is_some_and(|d| d.is(&device, key));
            let secrets = if known || device.revoked_at.is_some() {
                None
            } else {
                let s = registry.secrets(vault, &device)?;
                Some(Secrets {
                    ms3: s.ms3.clone(),
                    salt3: s.salt3,
                    e2_root: s.e2_root.clone(),
                    blind: s.blind.clone(),
                    root_psk: s.root_psk.clone(),
                })
            };
            Ok(Enrolled { device, secrets })
        });
        Ok(Self {
            version,
            networks,
            gateways: registry.gateways()?,
            tokens: registry.tokens()?,
            devices: devices.collect::<Result<_, RegistryError>>()?,
            is_change: touched.is_some(),
            renewals,
            rotations: registry
                .rotations()?
                .into_iter()
                .map(|r| Ok(LinkRotation { keys: registry.network_keys(vault, r.net)?, rotation: r }))
                .collect::<Result<_, RegistryError>>()?,
            classics: ClassicSource::read(registry, vault)?,
            signers: {
                let mut all = registry.signers()?;
                all.extend(registry.classic_signers()?);
                all.sort_by_key(|s| s.did);
                all
            },
            templates: Templates::of(registry.templates()?),
            receipt_signers: registry.receipt_signers()?,
        })
    }
}

/// A gateway as the cloud knows it.
#[derive(Clone, Debug)]
pub struct KnownGateway {
    /// As registered.
    pub registered: Gateway,
    /// Check its receipts, the newest first.
    pub keys: Vec<VerifyingKey>,
}

/// One version of the registry, ready for use.
#[derive(Clone, Debug, Default)]
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
    pub rotations: HashMap<Net, Arc<LinkRotation>>,
    /// Classic devices that are served.
    pub classics: Classics,
    /// Signing keys of devices.
    pub signers: Arc<Signers>,
    /// Templates, by network.
    pub templates: Arc<Templates>,
    /// Gateways' keys for receipts.
    pub receipt_signers: Arc<ReceiptSigners>,
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
    /// Which network keys devices said they have.
    pub link_keys: Vec<(Did, LinkReport)>,
    /// Which network key each was given last, and when first.
    pub link_told: Vec<(Did, u8, Millis)>,
    /// What is open of devices' evidence.
    pub dossiers: Vec<(Did, Dossier)>,
}

/// What a book is made with, beside its source.
pub struct Maker<'a> {
    /// Seals secrets of contexts, so that draining ones outlive a restart. Without it they do not.
    pub vault: Option<&'a Vault>,
    /// Gives rows to new contexts.
    pub new_context: &'a dyn Fn() -> ContextId,
    /// Whether the store had no reading: then no context has to be looked up.
    pub fresh_store: bool,
    /// When the store was put back from a copy, if ever (docs/protocol.md 8.4).
    pub restored: Option<Millis>,
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
        let link_keys: HashMap<Did, LinkReport> = remembered.link_keys.into_iter().collect();
        let link_told: HashMap<Did, (u8, Millis)> =
            remembered.link_told.into_iter().map(|(did, index, at)| (did, (index, at))).collect();
        let mut dossiers: HashMap<Did, Dossier> = remembered.dossiers.into_iter().collect();
        let mut book = Book { version: source.version, networks: source.networks, ..Book::default() };
        if source.is_change {
            (book.devices, book.by_did) = (before.devices.clone(), before.by_did.clone());
            book.revoked.clone_from(&before.revoked);
            for Enrolled { device, .. } in &source.devices {
                book.devices.remove(&(device.net, device.sid));
                book.by_did.remove(&device.did);
                book.revoked.remove(&(device.net, device.sid));
            }
        }
        for Enrolled { device, secrets } in source.devices {
            let place = (device.net, device.sid);
            if device.revoked_at.is_some() {
                book.revoked.insert(place);
                continue;
            }
            let renewal = find(&source.renewals, device.did);
            let known = before.devices.get(&place).filter(|d| d.enrolled.did == device.did);
            let device = match (known, secrets) {
                (Some(known), _) if known.is(&device, renewal.map(|r| r.x)) => known.clone(),
                (_, None) => continue,
                (known, Some(secrets)) => {
                    let live = known.map(|k| k.live.clone()).unwrap_or_default();
                    if known.is_none() {
                        let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
                        live.commands = commands.remove(&device.did).unwrap_or_default();
                        // Ids that were given since the copy was made are not in it.
                        let forgotten = self.restored.map_or(0, |at| at.0 / 1000);
                        live.last_command = last_commands.get(&device.did).copied().unwrap_or(0).max(forgotten);
                        live.link_keys = link_keys.get(&device.did).copied();
                        live.link_told = link_told.get(&device.did).copied();
                        live.dossier = dossiers.remove(&device.did).unwrap_or_default();
                    }
                    let rows = rows.remove(&device.did).unwrap_or_default();
                    Arc::new(self.device(device, &secrets, live, rows, renewal, write))
                }
            };
            if let Some(renewal) = renewal {
                let mut live = device.live();
                live.runs.spend(renewal.highest);
                live.orders.noted(renewal);
            }
            book.by_did.insert(device.did, device.clone());
            book.devices.insert(place, device);
        }
        book.classics = Classics::of(source.classics, &before.classics, self.restored);
        for device in book.classics.iter() {
            if let Some(dossier) = dossiers.remove(&device.source.did) {
                device.live().dossier = dossier;
            }
        }
        book.signers = Arc::new(Signers::of(source.signers));
        book.templates = Arc::new(source.templates);
        book.take_gateways(source.gateways, source.receipt_signers);
        book.rotations = source.rotations.into_iter().map(|r| (r.rotation.net, Arc::new(r))).collect();
        book.tokens = source.tokens.into_iter().filter(|t| t.revoked_at.is_none()).collect();
        book
    }

    fn device(
        &self,
        enrolled: registry::Device,
        secrets: &Secrets,
        live: Arc<Mutex<Live>>,
        rows: Vec<ContextRow>,
        renewal: Option<&Renewal>,
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
            key: renewal.map(|r| r.x),
            mix: enrolled.policy.pq_mix.then(|| PqMix::new(&secrets.root_psk, enrolled.did)),
            bootstrap: None,
            blind: random.then(|| BlindKey::bootstrap(&secrets.root_psk, enrolled.did)),
            live,
            restored: Restored::unknown(self.restored, &enrolled),
            enrolled,
        };
        let level = device.level();
        if random && level == 3 {
            device.bootstrap = Some(E3Secret::bootstrap(&secrets.root_psk, device.did));
        }
        let rows = rows.into_iter().filter(|r| r.net == device.net && r.level == level);
        let mut live = device.live();
        if random {
            self.boots(&device, &mut live, rows.collect());
        } else {
            let installed = renewal.is_none_or(|r| r.first == FirstContexts::Installed);
            self.epochs(&device, installed.then_some(secrets), &mut live, rows.collect(), write);
            // Runs under another key, or below another epoch, come to nothing.
            live.runs.abandon();
        }
        drop(live);
        device
    }

    /// Mode R: two boots are kept ready, the active one among them, the others by name.
    fn boots(&self, device: &Device, live: &mut Live, rows: Vec<ContextRow>) {
        live.contexts.retain(|c| c.bctx.is_some());
        let mut rows: Vec<_> = rows.into_iter().filter(|r| r.bctx.is_some()).collect();
        rows.sort_by_key(|r| (r.standing != Standing::Active, std::cmp::Reverse(r.id)));
        for row in rows {
            let Some(bctx) = row.bctx else { continue };
            let keys = match &device.bootstrap {
                Some(b) => b.context_for_peer(device.sid, Epoch(0), Some(bctx), device.policy.alg).ok(),
                None => None,
            };
            let last = live.contexts.len();
            live.put_boot(last, self.remembered(device, &row, keys, None));
        }
    }

    /// Mode P: the installed epoch, what was agreed after it, and what still drains.
    fn epochs(
        &self,
        device: &Device,
        installed: Option<&Secrets>,
        live: &mut Live,
        rows: Vec<ContextRow>,
        write: &mut Write,
    ) {
        live.contexts.retain(|c| c.bctx.is_none());
        let installed = installed.map(|secrets| secrets.of_context(device.policy.profile));
        for row in rows {
            if row.bctx.is_some() || live.contexts.iter().any(|c| c.epoch == row.epoch) {
                continue;
            }
            if row.standing == Standing::Draining {
                if row.sealed.is_none() {
                    // Erased, whatever the registry still has of it.
                    continue;
                }
                if self.now.since(row.since) > DRAIN + STALE {
                    write.forgotten.push(row.id);
                    write.new_generation |= device.policy.profile.has_e2();
                    continue;
                }
            }
            let of = |secrets: &ContextSecrets| (keys(device, secrets, row.epoch), secrets.blind.as_ref().map(again));
            let (keys, blind) = match &installed {
                Some(secrets) if row.epoch == device.epoch => of(secrets),
                _ => self.unsealed(device, &row).as_ref().map(of).unwrap_or_default(),
            };
            if device.level() < 3 || keys.is_some() {
                live.contexts.push(self.remembered(device, &row, keys, blind));
            }
        }
        if let Some(secrets) = installed
            && !live.contexts.iter().any(|c| c.epoch >= device.epoch)
        {
            let standing = if live.contexts.is_empty() { Standing::Active } else { Standing::Pending };
            let ctx = Ctx {
                id: (self.new_context)(),
                epoch: device.epoch,
                bctx: None,
                standing,
                since: self.now,
                written: true,
                keys: keys(device, &secrets, device.epoch),
                blind: secrets.blind.as_ref().map(again),
                recent: Some(Recent::default()),
                lease: restored::lease(device.restored, 0),
                failures: 0,
                sealed: self.vault.and_then(|v| secrets.seal(v, device.did, device.epoch).ok()),
                agreed: None,
                unsaid: false,
                restored: device.restored,
            };
            write.contexts.push(ctx.row(device, device.level()));
            write.new_generation |= device.policy.profile.has_e2();
            live.contexts.push(Ctx { sealed: None, ..ctx });
        }
        live.contexts.sort_by_key(|c| std::cmp::Reverse(c.epoch));
    }

    fn remembered(&self, device: &Device, row: &ContextRow, keys: Option<Context<E3>>, blind: Option<BlindKey>) -> Ctx {
        let restored = row.restored_at.map(|at| Restored::of(at, row.agreed.map(|a| a.at), &device.enrolled));
        Ctx {
            id: row.id,
            epoch: row.epoch,
            bctx: row.bctx,
            standing: row.standing,
            since: row.since,
            written: true,
            keys,
            blind,
            recent: self.fresh_store.then(Recent::default),
            lease: restored::lease(restored, row.bound),
            failures: row.failures,
            sealed: None,
            agreed: row.agreed,
            unsaid: false,
            restored,
        }
    }

    fn unsealed(&self, device: &Device, row: &ContextRow) -> Option<ContextSecrets> {
        ContextSecrets::open(self.vault?, device.did, row.epoch, row.sealed.as_ref()?)
            .inspect_err(|error| tracing::error!(did = %device.did, epoch = %row.epoch, %error, "a context is lost"))
            .ok()
    }
}

/// The same key, beside the context that it belongs to.
pub(crate) const fn again(blind: &BlindKey) -> BlindKey {
    BlindKey::new(*blind.danger_bytes())
}

/// The cloud's end of C3, where the device has one.
pub(crate) fn keys(device: &Device, secrets: &ContextSecrets, epoch: Epoch) -> Option<Context<E3>> {
    if device.level() < 3 {
        return None;
    }
    secrets.e3.as_ref()?.context_for_peer(device.sid, epoch, None, device.policy.alg).ok()
}

impl Book {
    /// The same with these gateways: certificates change without a new version.
    pub fn with_gateways(&self, gateways: Vec<Gateway>, receipt_signers: Vec<ReceiptSigner>) -> Self {
        let mut book = self.clone();
        book.take_gateways(gateways, receipt_signers);
        book
    }

    fn take_gateways(&mut self, gateways: Vec<Gateway>, receipt_signers: Vec<ReceiptSigner>) {
        self.receipt_signers = Arc::new(ReceiptSigners::of(receipt_signers));
        self.gateways.clear();
        for gateway in gateways.iter().filter(|g| g.revoked_at.is_none()) {
            let mut keys = Vec::with_capacity(gateway.receipt_keys.len());
            for spki in &gateway.receipt_keys {
                match VerifyingKey::from_spki(spki) {
                    Ok(key) => keys.push(key),
                    Err(error) => tracing::error!(gateway = %gateway.gateway, %error, "a receipt key is unusable"),
                }
            }
            self.gateways.insert(gateway.certified_as(), KnownGateway { registered: gateway.clone(), keys });
        }
        self.all_gateways = gateways;
    }

    /// Keys of devices and gateways that are revoked, and when in Unix seconds, by name: what the log's list of revocations
    /// holds.
    pub fn revoked_keys(&self) -> Vec<(KeyName, u64)> {
        let mut keys: Vec<_> = self.signers.revoked().chain(self.receipt_signers.revoked()).collect();
        keys.sort_unstable();
        keys
    }

    /// The gateway of this name, unless it is revoked or was never registered.
    pub fn gateway(&self, name: GatewayName) -> Option<&KnownGateway> {
        self.gateways.get(&name)
    }

    /// The network of this id.
    pub fn network(&self, net: Net) -> Option<&Network> {
        self.networks.iter().find(|n| n.net == net)
    }
}
