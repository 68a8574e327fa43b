//! What a node is given when it starts: who it is, its secrets, its record, randomness.

use core::fmt;

use fivefold_core::e1_link::{self, Air, E1, Identity, LinkKeys, LinkPolicy, Station};
use fivefold_core::e2_gateway::{E2, E2Secret};
use fivefold_core::e3_cloud::{E3, E3Secret, NoSuchContext};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::Context;
use fivefold_core::profile::{LinkClass, Mode, Policy, Radio};
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::wire::ieee802154::{Pan, SecurityLevel};
use fivefold_core::wire::mesh::MAX_HOPS;
use heapless::Vec;

use crate::entropy::{Entropy, Unhealthy};
use crate::evidence::Chain;
use crate::outbox::Patience;
use crate::relay::{Mesh, Ways};
use crate::renewal::{Keys, Timers};
use crate::storage::{Record, StoredContext, StoredKey};

/// Who a node is and what it must do. Nothing secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// EUI-64.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// The network's PAN id.
    pub pan: Pan,
    /// Its policy record.
    pub policy: Policy,
    /// Key generation of its secrets. Where they hold no contexts (enrolment by EDHOC): the first one to agree on.
    pub epoch: Epoch,
    /// Next hops.
    pub ways: Ways,
    /// Hops that its own messages may take, 1..=14.
    pub hops: u8,
    /// How long unanswered messages wait.
    pub patience: Patience,
    /// How patient renewal is.
    pub timers: Timers,
}

impl Settings {
    /// A node one hop from its gateway.
    pub fn new(did: Did, sid: Sid, pan: Pan, policy: Policy, epoch: Epoch) -> Self {
        let mut ways = Ways::default();
        let _ = ways.parents.push(Sid::ANY_GATEWAY);
        let (patience, timers) = (Patience::default(), Timers::default());
        Self { did, sid, pan, policy, epoch, ways, hops: MAX_HOPS, patience, timers }
    }
}

/// The secrets of a node.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Network keys with their indexes, the older one first.
    pub link: Vec<(u8, Key<E1, 16>), 2>,
    /// What C2 is derived from.
    pub e2: Option<E2Secret>,
    /// What C3 is derived from.
    pub e3: Option<E3Secret>,
    /// K_blind of the same epoch, where readings are signed.
    pub blind: Option<BlindKey>,
}

impl Secrets {
    const fn is_bare(&self) -> bool {
        self.e2.is_none() && self.e3.is_none()
    }
}

/// Why a node does not start. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootRefused {
    /// The record is of a later key generation than the secrets: old secrets would repeat numbers.
    EpochWentBack,
    /// The random generator is broken.
    Entropy(Unhealthy),
    /// Mode R has epoch 0, mode P an epoch of 1 or greater.
    EpochOfMode,
    /// A secret that the policy needs is missing.
    MissingSecret(&'static str),
    /// A context that docs/protocol.md rules out.
    NoContext(NoSuchContext),
    /// This engine does not drive that radio.
    Radio,
    /// It is to agree its keys with its gateway alone, and its policy record promises more than that gives.
    LocalPolicy,
    /// The stored contexts were agreed with the cloud and the share names a gateway, or the other way round.
    OtherPeer,
    /// No next hop towards a gateway is given, or its hops are not 1 to 14.
    Ways,
}

impl fmt::Display for BootRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EpochWentBack => f.write_str(
                "the stored counters are of a later epoch than the secrets; install the secrets of the newest enrolment",
            ),
            Self::Entropy(e) => write!(f, "{e}; nothing is transmitted"),
            Self::EpochOfMode => f.write_str("mode R runs on epoch 0, mode P on epoch 1 or greater; enrol the device again"),
            Self::MissingSecret(what) => write!(f, "{what} is missing; install the device's share again"),
            Self::NoContext(e) => write!(f, "no context: {e}"),
            Self::Radio => f.write_str("this engine speaks 802.15.4 frames, E1S over XBee modules, and CoAP over UDP only"),
            Self::LocalPolicy => f.write_str(
                "keys are agreed with a gateway alone only in mode P under e1+e2+e4 and without pq_mix; enrol the device again",
            ),
            Self::OtherPeer => f.write_str(
                "the stored keys were agreed with another party than this share names; enrol the device again",
            ),
            Self::Ways => f.write_str("a node needs a parent (0000 is a gateway in reach) and 1 to 14 hops"),
        }
    }
}

impl core::error::Error for BootRefused {}

/// The OSCORE ends of a device, of one epoch.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) gateway: Option<Context<E2>>,
    pub(crate) cloud: Option<Context<E3>>,
}

impl Ends {
    /// Those of contexts that EDHOC agreed on.
    pub(crate) fn agreed(
        settings: &Settings,
        group: GatewayGroup,
        context: &StoredContext,
        epoch: Epoch,
    ) -> Result<Self, BootRefused> {
        let policy = &settings.policy;
        if let Some(local) = context.e2_local() {
            let end = local.context_for_device(settings.sid, epoch, None, policy.alg);
            return Ok(Self { gateway: Some(end.map_err(BootRefused::NoContext)?), cloud: None });
        }
        let e2 = context.e2_root().filter(|_| policy.profile.has_e2()).map(|root| root.secret(group));
        let e3 = policy.profile.has_e3().then(|| context.e3()).flatten();
        Self::of(settings, e2.as_ref(), e3.as_ref(), epoch, None)
    }

    fn of(
        settings: &Settings,
        e2: Option<&E2Secret>,
        e3: Option<&E3Secret>,
        epoch: Epoch,
        bctx: Option<BootContext>,
    ) -> Result<Self, BootRefused> {
        let (sid, alg, profile) = (settings.sid, settings.policy.alg, settings.policy.profile);
        let gateway = match (e2, profile.has_e2()) {
            (Some(e2), true) => Some(e2.context_for_device(sid, epoch, bctx, alg).map_err(BootRefused::NoContext)?),
            (None, true) => return Err(BootRefused::MissingSecret("the E2 secret")),
            (_, false) => None,
        };
        let cloud = match (e3, profile.has_e3()) {
            (Some(e3), true) => Some(e3.context_for_device(sid, epoch, bctx, alg).map_err(BootRefused::NoContext)?),
            (None, true) => return Err(BootRefused::MissingSecret("the E3 secret")),
            (_, false) => None,
        };
        Ok(Self { gateway, cloud })
    }

    /// Whether there are none: nothing can be sealed.
    pub(crate) const fn is_empty(&self) -> bool {
        self.gateway.is_none() && self.cloud.is_none()
    }
}

pub(crate) struct Started {
    pub(crate) record: Record,
    pub(crate) mesh: Option<Mesh>,
    pub(crate) ends: Ends,
}

// Inlined, like all that builds an engine: each call in between puts one more copy of it on a small stack.
#[inline(always)]
pub(crate) fn relay(
    settings: &Settings,
    secrets: &Secrets,
    record: Option<Record>,
    entropy: &Entropy,
) -> Result<(Record, Mesh), BootRefused> {
    let record = next_record(settings, secrets, record, entropy)?;
    let mesh = mesh(settings, secrets, &record, entropy)?.ok_or(BootRefused::Radio)?;
    Ok((record, mesh))
}

#[inline(always)]
pub(crate) fn start<A>(
    settings: &Settings,
    secrets: &Secrets,
    keys: Option<&Keys<A>>,
    record: Option<Record>,
    entropy: &Entropy,
) -> Result<Started, BootRefused> {
    let random = settings.policy.mode == Mode::Random;
    let profile = settings.policy.profile;
    if random != (settings.epoch.0 == 0) {
        return Err(BootRefused::EpochOfMode);
    }
    if settings.policy.pq_mix && keys.is_some_and(|k| k.mix.is_none()) {
        return Err(BootRefused::MissingSecret("root_psk, which the policy mixes into what is agreed on,"));
    }
    let local = keys.is_some_and(|k| k.peer.is_gateway());
    if local && !settings.policy.can_agree_locally() {
        return Err(BootRefused::LocalPolicy);
    }
    let group = keys.map(|k| k.group);
    // Without contexts a device begins by agreeing on some, if it can.
    let bare = group.is_some() && !random && secrets.is_bare();
    let record = next_record(settings, secrets, record, entropy)?;
    let ends = match (&record.context, group) {
        (Some(context), Some(_)) if context.is_local() != local => return Err(BootRefused::OtherPeer),
        (Some(context), Some(group)) => Ends::agreed(settings, group, context, record.epoch)?,
        (Some(_), None) => return Err(BootRefused::MissingSecret("the key of the last renewals")),
        (None, _) if bare && (profile.has_e2() || profile.has_e3()) => Ends::default(),
        (None, _) => {
            let bctx = random.then(|| entropy.boot_context());
            Ends::of(settings, secrets.e2.as_ref(), secrets.e3.as_ref(), settings.epoch, bctx)?
        }
    };
    let mesh = mesh(settings, secrets, &record, entropy)?;
    Ok(Started { record, mesh, ends })
}

/// The record of this boot, from that of the last one.
fn next_record(
    settings: &Settings,
    secrets: &Secrets,
    record: Option<Record>,
    entropy: &Entropy,
) -> Result<Record, BootRefused> {
    let random = settings.policy.mode == Mode::Random;
    let mut next = match record {
        None => enrolled(settings.epoch, secrets, Record::new(Epoch(0))),
        // What EDHOC agreed on since is of a later epoch, and goes on.
        Some(record) if record.epoch > settings.epoch && (record.context.is_none() || random) => {
            return Err(BootRefused::EpochWentBack);
        }
        Some(record) if record.entropy == entropy.mark() => return Err(BootRefused::Entropy(Unhealthy::Repeated)),
        Some(record) if record.epoch < settings.epoch => enrolled(settings.epoch, secrets, record),
        // The record decides which network keys there are: one that was retired over the air does not come back with the
        // next boot, and its numbers with it.
        Some(record) => record,
    };
    next.boots = next.boots.saturating_add(1);
    next.entropy = entropy.mark();
    if random {
        // Each boot signs a chain of its own, whether or not something is kept between them (docs/protocol.md 13.1).
        next.chain = Chain::NONE;
    }
    Ok(next)
}

/// A record for newly installed secrets. Numbers of C2 and C3 start at 0 with them; those of network keys go on, and so do
/// epochs: one that was offered once is never offered again.
fn enrolled(epoch: Epoch, secrets: &Secrets, mut record: Record) -> Record {
    record.epoch = epoch;
    let first = if secrets.is_bare() { epoch } else { Epoch(epoch.0.saturating_add(1)) };
    record.next_epoch = record.next_epoch.max(first);
    (record.piv_bound, record.confirmed, record.context) = (0, false, None);
    (record.runs, record.silence, record.unanswered) = (0, 0, 0);
    let mut keys = [None; 2];
    for (slot, (index, _)) in keys.iter_mut().zip(&secrets.link) {
        let bound = record.key(*index).map_or(first_bound(epoch), |known| known.bound);
        *slot = Some(StoredKey { index: *index, bound, key: None });
    }
    record.keys = keys;
    record
}

/// The link, with the keys of the record and of the secrets. `None` for radios without E1 of ours.
#[inline(always)]
fn mesh(
    settings: &Settings,
    secrets: &Secrets,
    record: &Record,
    entropy: &Entropy,
) -> Result<Option<Mesh>, BootRefused> {
    let (sending, air) = match settings.policy.radio {
        Radio::Ieee802154 => (SecurityLevel::EncMic64, Air::Ieee802154),
        Radio::Ieee802154Mic32 => (SecurityLevel::EncMic32, Air::Ieee802154),
        Radio::Xbee => (SecurityLevel::EncMic64, Air::E1s { longest: XBEE }),
        Radio::Digimesh => (SecurityLevel::EncMic32, Air::E1s { longest: DIGIMESH }),
        radio if radio.link_class() == LinkClass::None || is_bare(radio) => return Ok(None),
        _ => return Err(BootRefused::Radio),
    };
    if settings.ways.parents.is_empty() || !(1..=MAX_HOPS).contains(&settings.hops) {
        return Err(BootRefused::Ways);
    }
    let mut keys = LinkKeys::new();
    for stored in record.keys.iter().flatten() {
        let installed =
            || secrets.link.iter().find(|(index, _)| *index == stored.index).map(|(_, k)| *k.danger_bytes());
        // A key that cannot be taken is left out; without any the next line says so.
        if let Some(key) = stored.key.or_else(installed) {
            let _ = keys.install(stored.index, &Key::new(key), stored.bound);
        }
    }
    let _ = keys.resume_under(record.sending);
    keys.sending().ok_or(BootRefused::MissingSecret("the network key"))?;
    let identity = Identity { did: settings.did, sid: settings.sid, pan: settings.pan, station: Station::Node };
    let policy = LinkPolicy { minimum: sending, sending, air };
    Ok(Some(Mesh::new(identity, policy, keys, settings.ways.clone(), entropy.link_seed())))
}

/// Whether the radio's own link is E1, so that tiny frames go out as they are.
pub(crate) const fn is_bare(radio: Radio) -> bool {
    cfg!(feature = "lorawan") && matches!(radio, Radio::Lorawan)
}

/// Bytes that an XBee 802.15.4 module sends at once, without encryption of its own.
pub(crate) const XBEE: u8 = 100;
/// Bytes that an XBee DigiMesh module sends at once.
pub(crate) const DIGIMESH: u8 = 73;

/// Where the frame counters of a device start that knows of none: in the sixteen millions of its epoch. A device that lost
/// its record is enrolled again with a greater epoch, and the network key may still be the one it used.
pub(crate) fn first_bound(epoch: Epoch) -> u32 {
    u32::from(epoch.0.saturating_sub(1) % (e1_link::ROTATE_AT >> 24) as u16) << 24
}
