//! What the cloud pushes to a gateway (downlink 4): its allow-list, C2 contexts, network keys and revocations
//! (docs/protocol.md 10 and "Gateway state").
//!
//! Every push is the whole state under a version that only grows. A large one comes in parts: each part is a map of its
//! own with the same version, and lists go on from part to part in the same order. [`admit`] is the version rule.

mod added;
mod classic;

use core::fmt;

pub use added::Added;
pub use classic::{ClassicDevice, ClassicFlags, HARDENED_KEYS, HardenedKey};

use crate::error::{Code, Rejected, SealError};
use crate::id::{BootContext, Did, Epoch, GatewayGroup, Net, Sid};
use crate::profile::{Overrides, Policy, key_index};
use crate::suite::agreement::PublicX;
use crate::suite::{Alg, sha256};
use crate::wire::cbor::{Element, List, Malformed, Reader, Writer};

/// Parts of one state, at most.
pub const PARTS: u16 = 4096;
/// Bytes of one part, at most: a downlink still fits a reply of 1 MiB.
pub const PART_BYTES: usize = super::addressable(512 * 1024);

/// One part of a gateway's state.
///
/// `{1: version, 2: net, 3: gg, 4: [part, parts], 5: [device], 6: [context], 7: [network key], 8: [revoked did],
/// 9: [revoked serial], ?10: [local key], ?11: [classic device]}`, the first nine always present, items 10 and 11 only where
/// they are not empty. Lists are strictly ascending: devices, local keys and classic devices by sid, contexts by (sid, epoch,
/// bctx), keys by index, revocations by did and by serial number.
#[derive(Clone, Debug, PartialEq)]
pub struct State<'b> {
    /// 1: grows with every change of anything below.
    pub version: u64,
    /// 2: the network; must be the gateway's own.
    pub net: Net,
    /// 3: the gateway's group.
    pub group: GatewayGroup,
    /// 4: which part this is.
    pub part: Part,
    /// 5: the allow-list.
    pub devices: List<'b, Device>,
    /// 6: C2 contexts.
    pub contexts: List<'b, Context<'b>>,
    /// 7: network keys.
    pub keys: List<'b, NetworkKey<'b>>,
    /// 8: devices that are revoked.
    pub revoked: List<'b, Did>,
    /// 9: certificates of the cloud that are revoked: who shows one is not the cloud.
    pub revoked_serials: List<'b, Serial<'b>>,
    /// 10: devices that agree their keys with this gateway alone ("C2 local", docs/protocol.md 11), each in item 5 of the
    /// same part. Their messages end at the gateway: there is no E3 that it could come to hold.
    pub local: List<'b, LocalKey>,
    /// 11: classic devices (docs/protocol.md, "Classic frames over E4").
    pub classic: List<'b, ClassicDevice<'b>>,
}

impl<'b> State<'b> {
    /// Reads one part, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, an item is missing or unknown, or a list is not strictly ascending.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let items = r.map()?;
        if !(9..=11).contains(&items) {
            return Err(Malformed::new("state: nine to eleven items are needed"));
        }
        key(&mut r, 1)?;
        let version = r.unsigned()?;
        key(&mut r, 2)?;
        let net = Net::from_bytes(*r.bytes_of()?);
        key(&mut r, 3)?;
        let group = GatewayGroup::from_bytes(*r.bytes_of()?);
        key(&mut r, 4)?;
        let part = Part::parse(&mut r)?;
        key(&mut r, 5)?;
        let devices = ascending(&mut r, |d: &Device| d.sid)?;
        key(&mut r, 6)?;
        let contexts = ascending(&mut r, |c: &Context<'b>| (c.sid, c.epoch, c.bctx))?;
        key(&mut r, 7)?;
        let keys = ascending(&mut r, |k: &NetworkKey<'b>| k.index)?;
        key(&mut r, 8)?;
        let revoked = ascending(&mut r, |did: &Did| *did)?;
        key(&mut r, 9)?;
        let revoked_serials = ascending(&mut r, |serial: &Serial<'b>| *serial)?;
        let (mut local, mut classic) = (List::default(), List::default());
        for at in 9..items {
            match r.unsigned()? {
                10 if at == 9 => local = filled(ascending(&mut r, |l: &LocalKey| l.sid)?)?,
                11 if at + 1 == items => classic = filled(ascending(&mut r, |c: &ClassicDevice<'b>| c.sid)?)?,
                _ => return Err(OUT_OF_ORDER),
            }
        }
        r.end()?;
        let mut of_device = devices.iter();
        if !local.iter().all(|l| of_device.any(|d| d.sid == l.sid && d.policy.can_agree_locally())) {
            return Err(Malformed::new(
                "state: a local key of a device that is not listed, or whose messages go further",
            ));
        }
        Ok(Self { version, net, group, part, devices, contexts, keys, revoked, revoked_serials, local, classic })
    }

    /// Writes it, and returns how many bytes it took. The caller brings lists in ascending order.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(9 + usize::from(!self.local.is_empty()) + usize::from(!self.classic.is_empty()))?;
        w.unsigned(1u8)?;
        w.unsigned(self.version)?;
        w.unsigned(2u8)?;
        w.bytes(&self.net.to_bytes())?;
        w.unsigned(3u8)?;
        w.bytes(&self.group.to_bytes())?;
        w.unsigned(4u8)?;
        w.array(2)?;
        w.unsigned(self.part.index)?;
        w.unsigned(self.part.count)?;
        w.unsigned(5u8)?;
        self.devices.emit(&mut w)?;
        w.unsigned(6u8)?;
        self.contexts.emit(&mut w)?;
        w.unsigned(7u8)?;
        self.keys.emit(&mut w)?;
        w.unsigned(8u8)?;
        self.revoked.emit(&mut w)?;
        w.unsigned(9u8)?;
        self.revoked_serials.emit(&mut w)?;
        if !self.local.is_empty() {
            w.unsigned(10u8)?;
            self.local.emit(&mut w)?;
        }
        if !self.classic.is_empty() {
            w.unsigned(11u8)?;
            self.classic.emit(&mut w)?;
        }
        Ok(w.len())
    }
}

const OUT_OF_ORDER: Malformed = Malformed::new("state: items 1 to 11 in order are needed");

fn key(r: &mut Reader<'_>, n: u64) -> Result<(), Malformed> {
    if r.unsigned()? == n { Ok(()) } else { Err(OUT_OF_ORDER) }
}

fn filled<'b, T: Element<'b>>(list: List<'b, T>) -> Result<List<'b, T>, Malformed> {
    if list.is_empty() {
        Err(Malformed::new("state: items 10 and 11 are left out where they are empty"))
    } else {
        Ok(list)
    }
}

fn ascending<'b, T: Element<'b>, K: Ord>(r: &mut Reader<'b>, key: impl Fn(&T) -> K) -> Result<List<'b, T>, Malformed> {
    let list = List::parse(r)?;
    if list.iter().map(|e| key(&e)).is_sorted_by(|a, b| a < b) {
        Ok(list)
    } else {
        Err(Malformed::new("state: a list is not in ascending order"))
    }
}

/// Which part of how many: `index` counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// This one, below `count`.
    pub index: u16,
    /// How many make the whole, 1 to [`PARTS`].
    pub count: u16,
}

impl Part {
    /// A state of one part.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        let part = Self { index: r.uint()?, count: r.uint()? };
        if part.index < part.count && part.count <= PARTS {
            Ok(part)
        } else {
            Err(Malformed::new("state: part out of range"))
        }
    }
}

/// A device that the gateway takes messages from: `[sid, did, policy record, overrides]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its short id.
    pub sid: Sid,
    /// Its permanent id.
    pub did: Did,
    /// What it must do: levels, algorithm, mode, K, radio and the rest.
    pub policy: Policy,
    /// What the operator lets it do that is not safe.
    pub overrides: Overrides,
}

impl Device {
    /// Bytes of one as CBOR, at most: for cutting a state into parts.
    pub const LONGEST: usize = 1 + 3 + 9 + Policy::LONGEST + 1;
}

impl Element<'_> for Device {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(4)?;
        let sid = Sid::from_bytes(*r.bytes_of()?);
        let did = Did(*r.bytes_of()?);
        let policy = <Policy as Element<'_>>::parse(r)?;
        let overrides = Overrides::from_bits(r.uint()?).ok_or(Malformed::new("state: unknown override"))?;
        if !sid.is_assignable() {
            return Err(Malformed::new("state: this short id is reserved"));
        }
        policy.validate(overrides).map_err(|e| Malformed::new(e.reason))?;
        Ok(Self { sid, did, policy, overrides })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(4)?;
        w.bytes(&self.sid.to_bytes())?;
        w.bytes(&self.did.0)?;
        Element::emit(&self.policy, w)?;
        w.unsigned(self.overrides.bits())
    }
}

/// The public DH key of a device that agrees its keys with the gateway alone: `[sid, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey {
    /// The device.
    pub sid: Sid,
    /// Its key. Another one is another enrolment: what was agreed under the one before is void.
    pub x: PublicX,
}

impl LocalKey {
    /// Bytes of one as CBOR, at most: for cutting a state into parts.
    pub const LONGEST: usize = 1 + 3 + 34;
}

impl Element<'_> for LocalKey {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        Ok(Self { sid: Sid::from_bytes(*r.bytes_of()?), x: PublicX(*r.bytes_of()?) })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.bytes(&self.sid.to_bytes())?;
        w.bytes(&self.x.0)
    }
}

/// What a context may be used for (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// 1: in use.
    Active,
    /// 4: in use, and to be renewed: a gateway that is the end of the way says so in its next answers (7.3, item 6).
    Due,
    /// 2: agreed, not yet seen in use.
    Pending,
    /// 3: a newer one is in use; receive only.
    Draining,
}

/// A C2 context: `[sid, epoch, alg, standing, role, secret, salt or iv, bctx or null]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'b> {
    /// The device.
    pub sid: Sid,
    /// Its key generation.
    pub epoch: Epoch,
    /// AEAD of the context.
    pub alg: Alg,
    /// What it may be used for.
    pub standing: Standing,
    /// Of a secondary in mode R: the boot that the part is for. A primary derives it from what a message carries.
    pub bctx: Option<BootContext>,
    /// What this gateway gets of it.
    pub share: Share<'b>,
}

/// What a gateway gets of a C2 context (docs/protocol.md 3, K2). Prints none of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Share<'b> {
    /// Role 1: it may open and answer. MS2(gg) and salt2(gg).
    Primary {
        /// MS2(gg).
        master_secret: &'b [u8; 32],
        /// salt2(gg).
        master_salt: &'b [u8; 8],
    },
    /// Role 2: it may open, and never send. The receive part.
    Secondary {
        /// The device's sender key, 16 or 32 bytes as the algorithm says.
        device_key: &'b [u8],
        /// The Common IV.
        common_iv: &'b [u8; 13],
    },
}

impl fmt::Debug for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary { .. } => "Primary(..)",
            Self::Secondary { .. } => "Secondary(..)",
        })
    }
}

impl Context<'_> {
    /// Bytes of one as CBOR, at most: for cutting a state into parts.
    pub const LONGEST: usize = 1 + 3 + 3 + 1 + 1 + 1 + 34 + 14 + 9;
}

impl<'b> Element<'b> for Context<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(8)?;
        let sid = Sid::from_bytes(*r.bytes_of()?);
        let epoch = Epoch(r.uint()?);
        let alg = Alg::from_cose(r.uint()?).ok_or(Malformed::new("state: unknown algorithm"))?;
        let standing = match r.unsigned()? {
            1 => Standing::Active,
            2 => Standing::Pending,
            3 => Standing::Draining,
            4 => Standing::Due,
            _ => return Err(Malformed::new("state: unknown standing of a context")),
        };
        let share = match r.unsigned()? {
            1 => Share::Primary { master_secret: r.bytes_of()?, master_salt: r.bytes_of()? },
            2 => Share::Secondary { device_key: r.bytes()?, common_iv: r.bytes_of()? },
            _ => return Err(Malformed::new("state: unknown role in a context")),
        };
        if matches!(share, Share::Secondary { device_key, .. } if device_key.len() != alg.key_len()) {
            return Err(Malformed::new("state: a key has not the length of its algorithm"));
        }
        let bctx = if r.null() { None } else { Some(BootContext(*r.bytes_of()?)) };
        if bctx.is_some() && matches!(share, Share::Primary { .. }) {
            return Err(Malformed::new("state: a primary share has no boot id"));
        }
        Ok(Self { sid, epoch, alg, standing, bctx, share })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(8)?;
        w.bytes(&self.sid.to_bytes())?;
        w.unsigned(self.epoch.0)?;
        w.unsigned(self.alg.cose())?;
        w.unsigned(match self.standing {
            Standing::Active => 1u8,
            Standing::Pending => 2,
            Standing::Draining => 3,
            Standing::Due => 4,
        })?;
        match self.share {
            Share::Primary { master_secret, master_salt } => {
                w.unsigned(1u8)?;
                w.bytes(master_secret)?;
                w.bytes(master_salt)?;
            }
            Share::Secondary { device_key, common_iv } => {
                w.unsigned(2u8)?;
                w.bytes(device_key)?;
                w.bytes(common_iv)?;
            }
        }
        match self.bctx {
            Some(bctx) => w.bytes(&bctx.0),
            None => w.null(),
        }
    }
}

/// Phase of a network key (docs/protocol.md 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// 1: take frames under it.
    Distribute,
    /// 2: send under it.
    Switch,
    /// 3: give it up. A gateway keeps it for 30 days, only to take EDHOC under it.
    Retire,
    /// 4, gateways alone: take frames under it, and tell no device about it. It drains, or its rotation is paused.
    Keep,
}

impl Phase {
    /// Its number: 1 to 4.
    pub const fn wire(self) -> u8 {
        match self {
            Self::Distribute => 1,
            Self::Switch => 2,
            Self::Retire => 3,
            Self::Keep => 4,
        }
    }

    /// The phase of this number.
    pub const fn from_wire(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Distribute),
            2 => Some(Self::Switch),
            3 => Some(Self::Retire),
            4 => Some(Self::Keep),
            _ => None,
        }
    }

    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_wire(r.unsigned()?).ok_or(Malformed::new("a key phase is 1 to 4"))
    }

    /// As devices are told it.
    pub(crate) fn parse_told(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let told = Self::from_wire(r.unsigned()?).filter(|phase| *phase != Self::Keep);
        told.ok_or(Malformed::new("what a device is told of a key is 1 to 3"))
    }
}

/// A network key: `[index, key, phase]`. Prints all but the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetworkKey<'b> {
    /// 1 to 254.
    pub index: u8,
    /// K_net of this index.
    pub key: &'b [u8; 16],
    /// What to do with it.
    pub phase: Phase,
}

impl fmt::Debug for NetworkKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({}, {:?})", self.index, self.phase)
    }
}

impl NetworkKey<'_> {
    /// Bytes of one as CBOR, at most: for cutting a state into parts.
    pub const LONGEST: usize = 1 + 2 + 17 + 1;
}

impl<'b> Element<'b> for NetworkKey<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        Ok(Self { index: key_index(r)?, key: r.bytes_of()?, phase: Phase::parse(r)? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(3)?;
        w.unsigned(self.index)?;
        w.bytes(self.key)?;
        w.unsigned(self.phase.wire())
    }
}

impl Element<'_> for Did {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.bytes_of().copied().map(Self)
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.bytes(&self.0)
    }
}

/// Serial number of a certificate: 1 to 20 bytes (RFC 5280 4.1.2.2), as they stand in it. Ordered as byte strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial<'b>(pub &'b [u8]);

impl<'b> Element<'b> for Serial<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        match r.bytes()? {
            serial if (1..=20).contains(&serial.len()) => Ok(Self(serial)),
            _ => Err(Malformed::new("state: a serial number has 1 to 20 bytes")),
        }
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.bytes(self.0)
    }
}

/// SHA-256 of one part's bytes: what a gateway remembers of each part of the state that it applied, or is collecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartHash(pub [u8; 32]);

impl PartHash {
    /// Of the bytes of a part as they came.
    pub fn of(part: &[u8]) -> Self {
        Self(sha256(&[part]))
    }
}

/// A state that a gateway has: its version and the hashes of its parts, in order. Of one that is being collected, the
/// parts that have not come are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its version.
    pub version: u64,
    /// One entry for each part.
    pub parts: &'a [Option<PartHash>],
}

/// What to do with a part that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It was had already, with the same content: nothing to do.
    Repeat,
    /// The first part of a newer state: drop what was being collected, and collect this one.
    Start,
    /// A further part of the state that is being collected.
    Continue,
}

/// The version rule: a state is applied when all its parts are there, and never again something older or something else
/// under the same version. `applied` survives restarts; `collecting` need not.
///
/// # Errors
/// E4-03 when the version is lower than the applied one or the one being collected, or equal with other content or
/// another number of parts.
pub fn admit(
    applied: Option<Known<'_>>,
    collecting: Option<Known<'_>>,
    version: u64,
    part: Part,
    hash: PartHash,
) -> Result<Admission, Rejected> {
    for (known, is_collecting) in [(applied, false), (collecting, true)] {
        let Some(known) = known else { continue };
        if version < known.version {
            return Err(Rejected::new(Code::ChannelSequence, "state: an older version than the one here"));
        }
        if version > known.version {
            continue;
        }
        if known.parts.len() != usize::from(part.count) {
            return Err(Rejected::new(Code::ChannelSequence, "state: the same version in another number of parts"));
        }
        return match known.parts.get(usize::from(part.index)).copied().flatten() {
            Some(had) if had == hash => Ok(Admission::Repeat),
            None if is_collecting => Ok(Admission::Continue),
            _ => Err(Rejected::new(Code::ChannelSequence, "state: the same version with other content")),
        };
    }
    Ok(Admission::Start)
}
