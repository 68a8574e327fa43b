//! The devices that the cloud lets in, and their C2 contexts. At most 512 bytes each in memory; hashes of accepted
//! messages and old boot ids lie in the store.

use std::cmp::{Ordering, Reverse};

use fivefold_core::counter::{Counter, Lease};
use fivefold_core::e2_gateway::{E2, E2Local, E2Secret, peer_id};
use fivefold_core::error::{Code, LeaseSpent, Rejected, SealError};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, Sid};
use fivefold_core::oscore::{
    AnswerNumber, Authentic, Context, FAILURES_HARD, FAILURES_SOFT, Id, NUMBER_LIMIT, PartialIv, RENEW_AT,
    ReceiveContext, RequestId, UnnumberedAnswer,
};
use fivefold_core::profile::{KeyIndexes, Mode, Overrides, Policy};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::window::Window64;
use fivefold_core::wire::state::{Share, Standing};

use super::flight::Via;
use super::neighbours::Places;
use super::output::{ContextName, first8};

/// Contexts that are tried for one message, at most: the active one, eight pending ones, and eight that drain.
pub(super) const TRIALS: usize = 17;
/// Answer numbers in one lease (docs/protocol.md 8.2, W1), and how few may be left before the next is asked for.
pub(super) const ANSWER_BLOCK: u32 = 64;
const ANSWER_LOW: u32 = 16;
/// Failures are written each time so many were counted.
const FAILURES_STEP: u32 = 256;
/// An order to renew is not said again for so long, in milliseconds: the device is about it.
const SAY_AGAIN: u64 = 300_000;
/// Milliseconds for which the way back to a device is remembered.
const ROUTE_LIFE: u64 = 600_000;

/// One device.
pub(super) struct Device {
    pub(super) did: Did,
    pub(super) sid: Sid,
    pub(super) policy: Policy,
    pub(super) overrides: Overrides,
    route: Option<(Via, Millis)>,
    minute: u32,
    messages: u16,
    answers: u16,
    runs: u16,
    renewal_said: bool,
    /// Which network keys it said last that it has, in this run.
    pub(super) link_keys: Option<KeyIndexes>,
    /// The cloud wants it to renew; when it was told last.
    ordered: Option<Millis>,
    /// In the order in which they are tried.
    pub(super) slots: Vec<Slot>,
    /// Only in mode R, and only where this gateway is the primary.
    pub(super) families: Vec<Family>,
}

/// One C2 context that can open.
pub(super) struct Slot {
    pub(super) name: ContextName,
    pub(super) epoch: Epoch,
    pub(super) standing: Standing,
    share: OwnShare,
    pub(super) window: Window64,
    pub(super) lease: Lease,
    pub(super) lease_asked: bool,
    /// All numbers of ours are used, or it was forgotten and with it which answers were given: nothing more is sent.
    spent: bool,
    pub(super) failures: u32,
    /// Whether the store has said what it knows of the context: before, nothing is opened.
    pub(super) ready: bool,
    /// Draining, and messages came that nobody has confirmed since: item 10 of the next answer does.
    pub(super) unsaid: bool,
    /// Place among boots: greater is newer.
    order: u32,
}

enum OwnShare {
    Primary(Context<E2>),
    Secondary(ReceiveContext<E2>),
}

/// Where the contexts of a device in mode R come from.
pub(super) struct Family {
    pub(super) name: ContextName,
    pub(super) epoch: Epoch,
    pub(super) standing: Standing,
    pub(super) alg: Alg,
    pub(super) ready: bool,
    secret: E2Secret,
}

impl Device {
    pub(super) fn new(did: Did, sid: Sid, policy: Policy, overrides: Overrides) -> Self {
        Self {
            did,
            sid,
            policy,
            overrides,
            route: None,
            minute: 0,
            messages: 0,
            answers: 0,
            runs: 0,
            renewal_said: false,
            link_keys: None,
            ordered: None,
            slots: Vec::new(),
            families: Vec::new(),
        }
    }

    /// Takes a context of the state, and returns its name. Of what this device cannot use (another algorithm than its
    /// record has, an epoch that is none) nothing is kept.
    pub(super) fn install(
        &mut self,
        group: GatewayGroup,
        c: &fivefold_core::wire::state::Context<'_>,
    ) -> Option<ContextName> {
        if c.alg != self.policy.alg || !self.policy.profile.has_e2() {
            return None;
        }
        let standing = match c.standing {
            Standing::Due => {
                // Not told yet, or told as it was before this state.
                self.ordered.get_or_insert(Millis(0));
                Standing::Active
            }
            Standing::Active => {
                self.ordered = None;
                Standing::Active
            }
            other => other,
        };
        let c = &fivefold_core::wire::state::Context { standing, ..*c };
        match c.share {
            Share::Primary { master_secret, master_salt } => {
                let name = name_of(group, c);
                let secret = E2Secret::new(*master_secret, *master_salt);
                if self.policy.mode == Mode::Random {
                    let standing = c.standing;
                    match self.families.iter_mut().find(|f| f.name == name) {
                        Some(f) => f.standing = standing,
                        None => {
                            let family = Family { name, epoch: c.epoch, standing, alg: c.alg, ready: false, secret };
                            self.families.push(family);
                        }
                    }
                } else {
                    let context = secret.context_for_peer(c.sid, c.epoch, None, c.alg).ok()?;
                    self.put(Slot::new(name, c.epoch, c.standing, OwnShare::Primary(context)));
                }
                Some(name)
            }
            Share::Secondary { device_key, common_iv } => {
                let peer = peer_id(c.sid, c.epoch, c.bctx).ok()?;
                let context = ReceiveContext::from_parts(c.alg, device_key, *common_iv, peer, Id::from(c.sid), c.bctx)?;
                let name = name_of(group, c);
                self.put(Slot::new(name, c.epoch, c.standing, OwnShare::Secondary(context)));
                Some(name)
            }
        }
    }

    /// Takes a context that was agreed here, under its name; `None` when this device cannot use it.
    pub(super) fn install_local(
        &mut self,
        epoch: Epoch,
        standing: Standing,
        secret: &E2Local,
        name: ContextName,
    ) -> Option<ContextName> {
        let fits = secret.danger_master_secret().len() == self.policy.alg.key_len();
        if !fits || !self.policy.can_agree_locally() {
            return None;
        }
        let context = secret.context_for_peer(self.sid, epoch, None, self.policy.alg).ok()?;
        self.put(Slot::new(name, epoch, standing, OwnShare::Primary(context)));
        Some(name)
    }

    /// Which names this device's contexts have; those of the state that are not among `named` are dropped. What is gone for
    /// ever with them is put into `gone`.
    pub(super) fn retain(&mut self, named: &dyn Fn(ContextName) -> bool, gone: &mut Vec<ContextName>) {
        gone.extend(self.slots.iter().filter(|s| s.boot().is_none() && !named(s.name)).map(|s| s.name));
        self.families.retain(|f| named(f.name));
        let families = &self.families;
        self.slots.retain(|s| named(s.name) || families.iter().any(|f| s.is_of(f)));
        let standing = |s: &Slot| families.iter().find(|f| s.is_of(f)).map(|f| f.standing);
        for s in &mut self.slots {
            if let Some(standing) = standing(s) {
                s.standing = standing;
            }
        }
        self.sort();
        self.slots.shrink_to_fit();
        self.families.shrink_to_fit();
    }

    fn put(&mut self, slot: Slot) {
        match self.slots.iter_mut().find(|s| s.name == slot.name) {
            // What was heard here may be news to the cloud: a context never goes back.
            Some(same) => same.standing = further(same.standing, slot.standing),
            None => self.slots.push(slot),
        }
    }

    /// Whether this context is here.
    pub(super) fn knows(&self, group: GatewayGroup, c: &fivefold_core::wire::state::Context<'_>) -> bool {
        let name = name_of(group, c);
        self.slots.iter().any(|s| s.name == name) || self.families.iter().any(|f| f.name == name)
    }

    /// Whether a context of this epoch is here.
    pub(super) fn has_epoch(&self, epoch: Epoch) -> bool {
        self.slots.iter().any(|s| s.epoch == epoch) || self.families.iter().any(|f| f.epoch == epoch)
    }

    /// A message under this context was verified. The first one under a pending context makes it the active one, and all of
    /// lower epochs drain (docs/protocol.md 11). Whether that was now.
    pub(super) fn in_use(&mut self, context: ContextName) -> bool {
        let pending = |s: &&Slot| s.name == context && s.standing == Standing::Pending;
        let Some(epoch) = self.slots.iter().find(pending).map(|s| s.epoch) else { return false };
        for s in &mut self.slots {
            match s.epoch.cmp(&epoch) {
                Ordering::Equal => s.standing = Standing::Active,
                Ordering::Less => s.standing = Standing::Draining,
                Ordering::Greater => {}
            }
        }
        self.renewal_said = false;
        self.ordered = None;
        self.sort();
        true
    }

    /// Whether the device is to be told now that the cloud wants it to renew; once more after a while, if it does not.
    pub(super) fn is_ordered(&self, now: Millis) -> bool {
        self.ordered.is_some_and(|told| now.since(told) >= SAY_AGAIN)
    }

    pub(super) fn told(&mut self, now: Millis) {
        if let Some(told) = &mut self.ordered {
            *told = now;
        }
    }

    /// A context that drains and has messages that nobody has confirmed.
    pub(super) fn unsaid(&mut self) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|s| s.unsaid)
    }

    /// Active first, then pending, the newest first, then draining; of each the newer boot first.
    pub(super) fn sort(&mut self) {
        self.slots.sort_by_key(|s| (s.standing, Reverse(s.epoch), Reverse(s.order)));
    }

    /// The greatest epoch that something is here for.
    pub(super) fn newest_epoch(&self) -> Option<Epoch> {
        self.slots.iter().map(|s| s.epoch).chain(self.families.iter().map(|f| f.epoch)).max()
    }

    /// Numbers that were taken in the context that is tried first.
    pub(super) fn window_in_use(&self) -> Option<Window64> {
        self.slots.first().map(|s| s.window)
    }

    /// Opens a C2 message with the contexts that may have sealed it. What it said is at the front of `out`.
    ///
    /// # Errors
    /// `E2-02` when there is none to try, `E2-03` when no tag holds, `E2-09` beyond a limit, `T-01`.
    pub(super) fn open(
        &self,
        piv: PartialIv,
        boot: Option<BootContext>,
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<Spoken, Rejected> {
        piv.check_limit::<E2>()?;
        let mut refused = NO_CONTEXT;
        let fits = |s: &&Slot| s.ready && (boot.is_none() || s.boot() == boot);
        for slot in self.slots.iter().filter(fits).take(TRIALS) {
            if slot.failures >= FAILURES_HARD {
                refused = Rejected::new(Code::GatewayLimitReached, "2^20 failed verifications: renew the context");
                continue;
            }
            match slot.share.open(piv, ciphertext, out) {
                Ok(authentic) => return Ok(Spoken::of(slot.name, slot.epoch, slot.boot(), authentic)),
                Err(r) => refused = r,
            }
        }
        Err(refused)
    }

    /// Tries a boot id that none of the latest has. The caller asks the store whether it was opened before, and then
    /// calls [`Self::add_boot`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_boot(
        &self,
        piv: PartialIv,
        boot: BootContext,
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<Spoken, Rejected> {
        piv.check_limit::<E2>()?;
        let mut refused = NO_CONTEXT;
        for family in self.families.iter().filter(|f| f.ready).take(TRIALS) {
            let Ok(context) = family.secret.context_for_peer(self.sid, family.epoch, Some(boot), family.alg) else {
                continue;
            };
            match context.open_request(piv, ciphertext, out) {
                Ok(authentic) => return Ok(Spoken::of(family.name, family.epoch, Some(boot), authentic)),
                Err(r) => refused = r,
            }
        }
        Err(refused)
    }

    /// Makes a context for a boot, the newest of its family from now on; the third newest goes for ever. Returns the
    /// name of the new one, whose window the store does not know yet.
    pub(super) fn add_boot(&mut self, family: ContextName, boot: BootContext) -> Option<ContextName> {
        let f = self.families.iter().find(|f| f.name == family)?;
        let name = boot_name(family, boot);
        let order = 1 + self.slots.iter().filter(|s| s.is_of(f)).map(|s| s.order).max().unwrap_or(0);
        if let Some(same) = self.slots.iter_mut().find(|s| s.name == name) {
            same.order = order;
        } else {
            let context = f.secret.context_for_peer(self.sid, f.epoch, Some(boot), f.alg).ok()?;
            let mut slot = Slot::new(name, f.epoch, f.standing, OwnShare::Primary(context));
            slot.order = order;
            self.slots.push(slot);
        }
        let mut orders: Vec<u32> = self.slots.iter().filter(|s| s.is_of(f)).map(|s| s.order).collect();
        orders.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(&oldest) = orders.get(2) {
            let keep = |s: &Slot| !s.is_of(f) || s.order > oldest;
            self.slots.retain(keep);
        }
        self.sort();
        Some(name)
    }

    /// Whether one of the latest contexts has this boot id.
    pub(super) fn knows_boot(&self, boot: BootContext) -> bool {
        self.slots.iter().any(|s| s.share.boot() == Some(boot))
    }

    pub(super) fn slot(&mut self, name: ContextName) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|s| s.name == name)
    }

    /// One failed verification, whatever was tried. A count to be written, now and then.
    pub(super) fn failed(&mut self) -> Option<(ContextName, u32)> {
        let slot = self.slots.first_mut()?;
        slot.failures = slot.failures.saturating_add(1);
        (slot.failures % FAILURES_STEP == 0).then_some((slot.name, slot.failures))
    }

    /// Whether the device should be told, for the first time in this run, that this context is to be renewed.
    pub(super) fn wants_renewal(&mut self, context: ContextName, number: u64) -> bool {
        let Some(slot) = self.slot(context) else { return false };
        let due = number >= u64::from(RENEW_AT) || slot.failures >= FAILURES_SOFT;
        due && !std::mem::replace(&mut self.renewal_said, true)
    }

    /// Remembers by what the device was heard.
    pub(super) fn heard(&mut self, now: Millis, via: Via) {
        self.route = Some((via, now));
    }

    /// What takes frames to the device, if it was heard in the last ten minutes.
    pub(super) fn route(&self, now: Millis) -> Option<Via> {
        self.route.filter(|(_, at)| now.since(*at) <= ROUTE_LIFE).map(|(via, _)| via)
    }

    /// Counts a message against the rate; `false` above `limit` in this minute.
    pub(super) fn admits(&mut self, now: Millis, limit: u16) -> bool {
        self.turn(now);
        self.messages = self.messages.saturating_add(1);
        self.messages <= limit
    }

    /// As [`Self::admits`], for answers to repeats: each takes a sender number of ours.
    pub(super) fn may_answer_again(&mut self, now: Millis, limit: u16) -> bool {
        self.turn(now);
        self.answers = self.answers.saturating_add(1);
        self.answers <= limit
    }

    /// As [`Self::admits`], for messages of EDHOC.
    pub(super) fn admits_run(&mut self, now: Millis) -> bool {
        self.turn(now);
        self.runs = self.runs.saturating_add(1);
        self.runs <= super::renewal::RUNS_A_MINUTE
    }

    fn turn(&mut self, now: Millis) {
        let minute = (now.0 / 60_000) as u32;
        if self.minute != minute {
            (self.minute, self.messages, self.answers, self.runs) = (minute, 0, 0, 0);
        }
    }
}

impl Slot {
    fn new(name: ContextName, epoch: Epoch, standing: Standing, share: OwnShare) -> Self {
        Self {
            name,
            epoch,
            standing,
            share,
            window: Window64::new(),
            lease: Lease::resume(0, NUMBER_LIMIT),
            lease_asked: false,
            spent: false,
            failures: 0,
            ready: false,
            unsaid: false,
            order: 0,
        }
    }

    fn is_of(&self, family: &Family) -> bool {
        self.share.boot().is_some_and(|boot| boot_name(family.name, boot) == self.name)
    }

    /// What the store knows.
    pub(super) fn recall(&mut self, numbers: &[u32], bound: u32, failures: u32) {
        let mut numbers: Vec<u32> = numbers.to_vec();
        numbers.sort_unstable();
        for n in numbers {
            self.window.mark(n.into());
        }
        self.lease = Lease::resume(bound, NUMBER_LIMIT);
        self.spent = bound >= NUMBER_LIMIT;
        self.failures = failures;
        self.ready = true;
    }

    /// Boot id, in mode R.
    pub(super) fn boot(&self) -> Option<BootContext> {
        self.share.boot()
    }

    /// Whether this gateway may send under the context: it is the primary of its group, and the context is not on its
    /// way out, nor was it forgotten.
    pub(super) fn can_send(&self) -> bool {
        matches!(self.share, OwnShare::Primary(_)) && self.standing != Standing::Draining && !self.spent
    }

    /// The bound to write next, when few numbers are left and no write is on its way.
    pub(super) fn lease_due(&mut self) -> Option<u32> {
        if self.lease_asked || self.lease.left() >= ANSWER_LOW || !self.can_send() {
            return None;
        }
        let bound = self.lease.proposal(ANSWER_BLOCK)?;
        self.lease_asked = true;
        Some(bound)
    }

    /// Numbers that are left, of the side that has fewer. One that only receives until it has drained needs none.
    pub(super) fn left(&self) -> Option<u32> {
        let theirs = self.window.highest().map_or(0, |highest| highest.saturating_add(1));
        let used = theirs.max(self.lease.next().into());
        let left = u64::from(NUMBER_LIMIT).saturating_sub(used);
        (self.ready && self.standing == Standing::Active && !self.spent).then_some(u32::try_from(left).unwrap_or(0))
    }

    /// The next number of ours.
    pub(super) fn take(&mut self) -> Result<Counter, LeaseSpent> {
        self.lease.take()
    }

    /// Seals an answer.
    pub(super) fn seal_answer(
        &self,
        to: &RequestId,
        number: AnswerNumber<E2>,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        match &self.share {
            OwnShare::Primary(context) => context.seal_answer(to, number, plaintext, out),
            OwnShare::Secondary(_) => Err(SealError::LeaseSpent),
        }
    }

    /// Seals a request to the device.
    pub(super) fn seal_request(
        &self,
        n: Counter,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(RequestId, usize), SealError> {
        match &self.share {
            OwnShare::Primary(context) => context.seal_request(n, plaintext, out),
            OwnShare::Secondary(_) => Err(SealError::LeaseSpent),
        }
    }
}

impl OwnShare {
    fn recipient_id(&self) -> Id {
        match self {
            Self::Primary(c) => c.recipient_id(),
            Self::Secondary(c) => c.recipient_id(),
        }
    }

    fn boot(&self) -> Option<BootContext> {
        match self {
            Self::Primary(c) => c.id_context(),
            Self::Secondary(c) => c.id_context(),
        }
    }

    fn open<'b>(&self, piv: PartialIv, ciphertext: &[u8], out: &'b mut [u8]) -> Result<Authentic<'b, E2>, Rejected> {
        match self {
            Self::Primary(c) => c.open_request(piv, ciphertext, out),
            Self::Secondary(c) => c.open_request(piv, ciphertext, out),
        }
    }
}

/// A C2 message that opened: who spoke, and the right to one answer without a number, to be used only once the
/// acceptance is durable. Its plaintext lies at the front of the buffer it was opened into.
pub(super) struct Spoken {
    /// Name of the context; of the family, for a boot that is new.
    pub(super) context: ContextName,
    pub(super) epoch: Epoch,
    pub(super) boot: Option<BootContext>,
    pub(super) len: usize,
    pub(super) request: RequestId,
    pub(super) right: UnnumberedAnswer<E2>,
}

impl Spoken {
    fn of(context: ContextName, epoch: Epoch, boot: Option<BootContext>, a: Authentic<'_, E2>) -> Self {
        Self { context, epoch, boot, len: a.plaintext().len(), request: a.request(), right: a.unnumbered() }
    }
}

const NO_CONTEXT: Rejected = Rejected::new(Code::GatewayNoContext, "no C2 context of this device, epoch and boot");

/// The name of a context, or of a family of mode R.
fn name_of(group: GatewayGroup, c: &fivefold_core::wire::state::Context<'_>) -> ContextName {
    let (group, sid, epoch, alg) = (group.to_bytes(), c.sid.to_bytes(), c.epoch.0.to_be_bytes(), [c.alg.cose()]);
    let mut parts: Vec<&[u8]> = vec![b"fivefold c2 name", &group, &sid, &epoch, &alg];
    match &c.share {
        Share::Primary { master_secret, master_salt } => parts.extend([&master_secret[..], &master_salt[..]]),
        Share::Secondary { device_key, common_iv } => {
            let boot: &[u8] = c.bctx.as_ref().map_or(&[], |b| &b.0);
            parts.extend([*device_key, &common_iv[..], boot]);
        }
    }
    ContextName(first8(&parts))
}

const fn further(a: Standing, b: Standing) -> Standing {
    match (a, b) {
        (Standing::Draining, _) | (_, Standing::Draining) => Standing::Draining,
        (Standing::Active | Standing::Due, _) | (_, Standing::Active | Standing::Due) => Standing::Active,
        (Standing::Pending, Standing::Pending) => Standing::Pending,
    }
}

/// The name of one boot's context.
pub(crate) fn boot_name(family: ContextName, boot: BootContext) -> ContextName {
    ContextName(first8(&[b"fivefold c2 boot", &family.0, &boot.0]))
}

/// All devices, found by short id without hashing.
pub(super) struct Devices {
    entries: Vec<Device>,
    places: Places,
}

impl Devices {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), places: Places::new() }
    }

    pub(super) fn find(&self, sid: Sid) -> Option<&Device> {
        self.entries.get(self.places.of(sid)?)
    }

    pub(super) fn find_mut(&mut self, sid: Sid) -> Option<&mut Device> {
        self.entries.get_mut(self.places.of(sid)?)
    }

    /// Reads a little of everything that opening a message of this device reads.
    pub(super) fn look(&self, sid: Sid) -> Option<(bool, bool, Id)> {
        let device = self.find(sid)?;
        let slot = device.slots.first()?;
        Some((device.policy.profile.has_e2(), slot.ready, slot.share.recipient_id()))
    }

    pub(super) fn contains(&self, sid: Sid) -> bool {
        self.places.of(sid).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.entries.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn take_all(&mut self) -> Vec<Device> {
        for d in &self.entries {
            self.places.set(d.sid, None);
        }
        std::mem::take(&mut self.entries)
    }

    pub(super) fn put(&mut self, device: Device) {
        self.places.set(device.sid, Some(self.entries.len()));
        self.entries.push(device);
    }

    pub(super) fn reserve(&mut self, n: usize) {
        self.entries.reserve_exact(n);
    }

    /// The device that has a context of this name.
    pub(super) fn slot(&mut self, sid: Sid, name: ContextName) -> Option<&mut Slot> {
        self.find_mut(sid)?.slot(name)
    }
}
