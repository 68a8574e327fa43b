//! # The gateway engine: one E1 hop, one C2 end, and a proxy for what it cannot read
//!
//! | | |
//! |---|---|
//! | Key held by | K_net, and MS2(gg) or the receive part of the devices of its group, or C2 local; never MS3, K_e2root, root_psk |
//! | Hides       | nothing that it passes on; what it opened under C2 it reads |
//! | Proves      | to the cloud that a C2 message was new and of that device: the gateway's word |
//! | Binds       | every message to the number, window and hash that were durable before it was answered or handed on |
//! | Drops as    | all of `E1`, `T`, `E2`; `E3-01`, `E3-05`, `E3-08`, `E3-09`; `E4-03`, `E4-04`; `E5-08`; `CL-01`, `CL-07`, `CL-09`, `CL-10`; counted, and told upward |
//! | Does not    | read C3, answer in the cloud's place, change what it forwards, trust what it stored in the clear |
//! | Spec        | docs/protocol.md 4 to 6, 8, 9, 10 |
//!
//! [`Gateway`] has no socket, clock, disk or thread. Inputs are its `handle_*` methods, what it wants done comes out of
//! [`Gateway::poll`] as a script to be carried out in order. Nothing is sealed before what it depends on is durable: the
//! rim says so by [`Gateway::handle_durable`], and only then is the answer made, so that a crash between any two outputs
//! loses work and never repeats a nonce.

mod answer;
mod classic;
mod devices;
mod downlink;
mod flight;
mod link_keys;
mod local;
mod lorawan;
mod neighbours;
mod output;
mod prefilter;
mod proxy;
mod receive;
mod renewal;
mod sealed;
mod state;
mod tally;
mod why;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use fivefold_core::e1_link::{Air as LinkAir, E1, Identity, LeaseWrite, Link, LinkKeys, LinkPolicy, Over};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Epoch, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::LinkClass;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_core::wire::event::{self, Event};
use fivefold_core::wire::ieee802154::MAX_FRAME;
use fivefold_core::wire::state::Added;
use fivefold_core::wire::tiny::Reassembly;
use fivefold_waspmote::hardened::Window;

use answer::{C2Answer, Held};
pub use classic::{Arrival, ClassicDone, OverLorawan};
use classic::{KeyParts, Roll, ToAnswer};
use devices::Devices;
pub(crate) use devices::boot_name;
use downlink::Asked;
use flight::{Flights, Timer};
pub use local::Local;
use local::Site;
pub use lorawan::{Activation, Lorawan};
pub use neighbours::Air;
use output::first8;
pub use output::{
    AddedContext, AgreedContext, AppliedState, ContextName, HardenedName, LinkKeyName, Lookup, Output, Record, Stored,
    Toward,
};
pub use receive::OpenedFrame;
use sealed::{Orphan, Waiting};
use state::Collecting;
pub use tally::Tally;

/// HELLO exchanges at a time.
const GREETINGS: usize = 256;
/// Milliseconds between two events, when there is something to tell, and when there is not.
const EVENT_PAUSE: u64 = 2_000;
const SIGN_OF_LIFE: u64 = 60_000;
/// The spool takes no events any more above this many percent of its size: readings go first.
const EVENTS_UP_TO: u64 = 90;
const WARN_FROM: u64 = 80;
/// Bytes that no envelope exceeds.
const MOST_STORED: usize = 2048;
const WARN_AGAIN_BELOW: u64 = 70;
/// Milliseconds without the cloud after which `E4-05` is counted.
const AWAY_LONG: [u64; 2] = [15 * 60_000, 6 * 3_600_000];

/// Whether expanded messages are handed out for a capture file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// No.
    #[default]
    Off,
    /// As [`Output::Expanded`].
    On,
}

/// Whether the cloud can be reached, as far as the uplink knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// There is none: this gateway agrees keys alone, and keeps what it accepts.
    Absent,
    /// The last exchange failed, or none was tried yet.
    Away,
    /// The last exchange worked.
    Reachable,
}

/// What bounds a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// C3 messages a minute and device that are passed on (docs/protocol.md 5).
    pub messages_a_minute: u16,
    /// Bytes of envelopes in the spool; above it new messages are refused, stored ones stay.
    pub spool_bytes: u64,
    /// Milliseconds to wait for the cloud's answer before custody is confirmed (5.04 "stored").
    pub custody_after: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages_a_minute: 60, spool_bytes: 64 << 20, custody_after: 400 }
    }
}

/// Who a gateway is, and what it starts with.
pub struct Setup {
    /// The network of its certificate.
    pub net: Net,
    /// Its name there.
    pub gateway: GatewayId,
    /// This run.
    pub boot: GatewayBoot,
    /// Who it is on the radio.
    pub identity: Identity,
    /// Levels of the network.
    pub policy: LinkPolicy,
    /// 32 random bytes, drawn at this start.
    pub seed: [u8; 32],
    /// Network keys to use before the first state comes, the oldest first.
    pub keys: Vec<(u8, Key<E1, 16>)>,
    /// Devices with IP of their own that do not say who they are when they renew.
    pub coap_devices: HashMap<IpAddr, Sid>,
    /// Bounds.
    pub limits: Limits,
    /// Whether to hand out expanded messages.
    pub capture: Capture,
    /// At a site without a cloud: what it agrees keys with its devices with.
    pub local: Option<Local>,
}

/// What the store has from before.
#[derive(Default)]
pub struct Restored {
    /// The state that was applied last.
    pub state: Option<AppliedState>,
    /// Contexts that were handed over after it.
    pub added: Vec<AddedContext>,
    /// Contexts that were agreed with this gateway alone.
    pub agreed: Vec<AgreedContext>,
    /// Numbers that were taken under keys of the hardened profile.
    pub hardened: Vec<(HardenedName, Window)>,
    /// Bounds of frame counters.
    pub link_leases: Vec<(LinkKeyName, u32)>,
    /// The same for every key that is not among them.
    pub link_floor: u32,
    /// The next sequence number.
    pub next_seq: u64,
    /// Bytes in the spool.
    pub spool_used: u64,
}

/// What waits until a write is durable.
enum Then {
    Agreed { sid: Sid, epoch: Epoch, back: renewal::Back },
    Answer(Box<C2Answer>),
    AnswerLease { sid: Sid, context: ContextName, bound: u32 },
    Classic(u64, Option<Box<ToAnswer>>),
    Flight(u64),
    KeyAnswer(Box<classic::Answered>),
    KeyMessage(Box<classic::Passed>),
    Run { sid: Sid, back: renewal::Back, payload: Box<[u8]> },
    LinkLease(LeaseWrite),
}

/// The engine of one gateway.
pub struct Gateway {
    net: Net,
    name: GatewayId,
    limits: Limits,
    capture: Capture,
    boot: GatewayBoot,
    link: Link<Air, GREETINGS>,
    link_keys: HashMap<u8, LinkKeyName>,
    pushed_keys: link_keys::Pushed,
    link_leases: HashMap<LinkKeyName, u32>,
    link_floor: u32,
    link_lease_asked: bool,
    held: VecDeque<Held>,
    devices: Devices,
    /// Contexts and families of which the store has not yet said what it knows, and whose they are.
    recalling: HashMap<ContextName, Sid>,
    flights: Flights,
    timers: BTreeSet<(Millis, Timer)>,
    waiting: HashMap<u64, Waiting>,
    orphans: VecDeque<Orphan>,
    pieces: HashMap<Sid, Box<Reassembly<{ receive::LONGEST_TINY }>>>,
    asked: HashMap<(Sid, u8), Asked>,
    runs: renewal::Runs,
    site: Option<Site>,
    classic: Roll,
    key_parts: KeyParts,
    module_class: LinkClass,
    /// In which minute, and how many devices were ordered to renew.
    orders: (u64, u16),
    coap_devices: HashMap<IpAddr, Sid>,
    confirmed: HashMap<u16, proxy::Outgoing>,
    applied: Option<(u64, Vec<Option<fivefold_core::wire::state::PartHash>>)>,
    // Gateway groups of its parts.
    groups: Vec<fivefold_core::id::GatewayGroup>,
    collecting: Option<Collecting>,
    tally: Tally,
    scribe: why::Scribe,
    outputs: VecDeque<Output>,
    then: VecDeque<(u64, Then)>,
    persisted: u64,
    next_seq: u64,
    spool_used: u64,
    warned_full: bool,
    store_works: bool,
    cloud: Cloud,
    away_since: Millis,
    away_said: usize,
    started: Millis,
    last_event: Millis,
    ticket: u64,
    message_id: u16,
    downlink_token: u8,
    scratch: Box<[u8; receive::LONGEST_COAP]>,
}

impl Gateway {
    /// A gateway that has just started. Its first outputs ask the store what it knows of each context.
    pub fn new(now: Millis, setup: Setup, restored: Restored) -> Self {
        let mut keys = LinkKeys::new();
        let link_leases: HashMap<_, _> = restored.link_leases.into_iter().collect();
        let mut link_keys = HashMap::new();
        let share = if restored.state.as_ref().is_some_and(link_keys::names_keys) { &[][..] } else { &setup.keys };
        for (index, key) in share {
            let name = link_key_name(*index, key);
            if keys.install(*index, key, link_leases.get(&name).copied().unwrap_or(restored.link_floor)).is_ok() {
                link_keys.insert(*index, name);
            }
        }
        let mut gateway = Self {
            net: setup.net,
            name: setup.gateway,
            limits: setup.limits,
            capture: setup.capture,
            boot: setup.boot,
            link: Link::new(setup.identity, setup.policy, keys, Air::new(), setup.seed),
            link_keys,
            pushed_keys: link_keys::Pushed::default(),
            link_leases,
            link_floor: restored.link_floor,
            link_lease_asked: false,
            held: VecDeque::new(),
            devices: Devices::new(),
            recalling: HashMap::new(),
            flights: Flights::default(),
            timers: BTreeSet::new(),
            waiting: HashMap::new(),
            orphans: VecDeque::new(),
            pieces: HashMap::new(),
            asked: HashMap::new(),
            runs: renewal::Runs::default(),
            cloud: if setup.local.is_some() { Cloud::Absent } else { Cloud::Away },
            site: setup.local.map(|local| Site::new(local, &restored.agreed)),
            classic: Roll::new(restored.hardened),
            key_parts: KeyParts::default(),
            module_class: LinkClass::None,
            orders: (0, 0),
            coap_devices: setup.coap_devices,
            confirmed: HashMap::new(),
            applied: None,
            groups: Vec::new(),
            collecting: None,
            tally: Tally::default(),
            scribe: why::Scribe::default(),
            outputs: VecDeque::new(),
            then: VecDeque::new(),
            persisted: 0,
            next_seq: restored.next_seq.max(1),
            spool_used: restored.spool_used,
            warned_full: false,
            store_works: true,
            away_since: now,
            away_said: 0,
            started: now,
            last_event: now,
            ticket: 0,
            message_id: u16::from_be_bytes([setup.seed[0], setup.seed[1]]),
            downlink_token: 0,
            scratch: Box::new([0; receive::LONGEST_COAP]),
        };
        for context in restored.added {
            if let Ok(added) = Added::parse(&context.bytes) {
                gateway.runs.added.insert((added.context.sid, added.context.epoch), context);
            }
        }
        if let Some(state) = restored.state {
            gateway.resume_state(now, &state);
        }
        gateway.ask_link_lease();
        gateway
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Self::poll`] has something.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let event =
            if self.tally.has_news() { self.last_event.plus(EVENT_PAUSE) } else { self.last_event.plus(SIGN_OF_LIFE) };
        let timer = self.timers.first().map(|(at, _)| *at);
        let link = self.link.poll_timeout().filter(|_| self.link.keys().is_ready());
        [Some(event), timer, link, self.flights.expiry(), self.key_parts.expiry()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.scribe.over(now);
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let Some((_, timer)) = self.timers.pop_first() else { break };
            self.ring(now, timer);
        }
        let mut frame = [0; MAX_FRAME];
        while let Some(control) = self.link.poll_control(now, &mut frame) {
            self.transmit(control.over, frame.get(..control.len).unwrap_or_default());
            if control.to.is_none()
                && let LinkAir::Both { .. } = self.link.policy().air
                && let Some(again) = self.link.repeat_hello(now, &mut frame)
            {
                self.transmit(again.over, frame.get(..again.len).unwrap_or_default());
            }
        }
        self.ask_link_lease();
        self.flights.expire(now);
        self.orphans.retain(|o| o.is_young(now));
        self.asked.retain(|_, a| a.is_young(now));
        self.runs.expire(now);
        self.expire_local(now);
        self.expire_pieces(now);
        self.classic.expire(now);
        self.expire_key_parts(now);
        if self.cloud == Cloud::Away
            && let Some(long) = AWAY_LONG.get(self.away_said)
            && now.since(self.away_since) >= *long
        {
            self.away_said += 1;
            self.count(Rejected::new(Code::CloudUnreachable, "the cloud cannot be reached"), None);
        }
        if let Some(rejected) = self.link.keys().alarm()
            && self.tally.total(rejected.code) == 0
        {
            self.count(rejected, None);
        }
        self.tell(now);
    }

    /// The first `count` outputs of [`Output::Persist`], counted since the start of the engine, are durable.
    pub fn handle_durable(&mut self, now: Millis, count: u64) {
        while let Some((mark, _)) = self.then.front()
            && *mark <= count
        {
            let Some((_, then)) = self.then.pop_front() else { break };
            match then {
                Then::Agreed { sid, epoch, back } => self.agreed(sid, epoch, back),
                Then::Answer(answer) => self.answer_c2(now, *answer),
                Then::AnswerLease { sid, context, bound } => {
                    if let Some(slot) = self.devices.slot(sid, context) {
                        slot.lease.extend(bound);
                        slot.lease_asked = false;
                    }
                }

                Then::Classic(ticket, to) => self.classic_is_durable(now, ticket, to.as_deref()),
                Then::KeyAnswer(answered) => self.send_key_answer(*answered),
                Then::KeyMessage(passed) => self.key_message_is_durable(now, *passed),
                Then::Flight(id) => self.flight_is_durable(now, id),
                Then::Run { sid, back, payload } => self.answer_run(sid, back, &payload),
                Then::LinkLease(lease) => {
                    self.link_lease_asked = false;
                    self.link.keys_mut().extend_lease(lease);
                    self.send_held();
                    self.ask_link_lease();
                }
            }
        }
    }

    /// A write failed: nothing of what was polled since the last [`Self::handle_durable`] is durable. Everything that
    /// would have to be stored is refused (`E4-04`) until the rim has made a new engine from the store.
    pub fn handle_store_failed(&mut self) {
        self.store_works = false;
        self.fail_classic();
        self.count(Rejected::new(Code::StoreFull, "the store cannot be written"), None);
    }

    /// The cloud came or went.
    pub fn handle_cloud(&mut self, now: Millis, cloud: Cloud) {
        if self.cloud != cloud {
            self.away_since = now;
            self.away_said = 0;
        }
        self.cloud = cloud;
    }

    /// All counters.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts something that the rim refused, so that the cloud hears of it.
    pub fn count(&mut self, rejected: Rejected, sid: Option<Sid>) {
        self.tally.count(rejected.code, sid.filter(|s| self.devices.contains(*s) || self.classic.contains(*s)));
        self.outputs.push_back(Output::Dropped { rejected, sid });
        self.explain(rejected, sid);
    }

    /// Counts what the rim refused so many times.
    pub fn count_often(&mut self, rejected: Rejected, times: u64) {
        self.tally.add(rejected.code, None, times);
        self.outputs.push_back(Output::Dropped { rejected, sid: None });
        self.explain(rejected, None);
    }

    /// Version of the state that is applied; 0 before the first.
    pub fn state_version(&self) -> u64 {
        self.applied.as_ref().map_or(0, |(version, _)| *version)
    }

    /// How many devices are let in.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// How many classic devices are known.
    pub fn classic_devices(&self) -> usize {
        self.classic.len()
    }

    /// Numbers that are left under C2 before the limit, in the context in use that has the fewest; `None` without one.
    pub fn numbers_left(&self) -> Option<u32> {
        self.devices.iter().flat_map(|device| &device.slots).filter_map(devices::Slot::left).min()
    }

    /// Milliseconds since the cloud could be reached last; `None` where there is none.
    pub fn away(&self, now: Millis) -> Option<u64> {
        match self.cloud {
            Cloud::Absent => None,
            Cloud::Away => Some(now.since(self.away_since)),
            Cloud::Reachable => Some(0),
        }
    }

    /// Its bounds.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of envelopes in the spool, written or about to be.
    pub fn spool_used(&self) -> u64 {
        self.spool_used
    }

    /// The link, to look at.
    pub fn link(&self) -> &Link<Air, GREETINGS> {
        &self.link
    }

    /// Believes a neighbour's last frame counter without proof: for tests, and for replaying captures.
    ///
    /// # Errors
    /// As [`Link::danger_assume_synced`].
    pub fn danger_assume_synced(
        &mut self,
        did: fivefold_core::id::Did,
        sid: Sid,
        key_index: u8,
        counter: u32,
    ) -> Result<(), Rejected> {
        self.link.danger_assume_synced(did, sid, key_index, counter)
    }

    fn persist(&mut self, record: Record) {
        self.persisted += 1;
        self.outputs.push_back(Output::Persist(record));
    }

    fn after_persist(&mut self, then: Then) {
        self.then.push_back((self.persisted, then));
    }

    fn transmit(&mut self, over: Over, bytes: &[u8]) {
        self.outputs.push_back(match over {
            Over::E1s { to } => Output::TransmitMessage { to, message: bytes.into() },
            Over::Ieee802154 => Output::Transmit(bytes.into()),
        });
    }

    fn expanded(&mut self, sid: Sid, toward: Toward, message: &[u8]) {
        if self.capture == Capture::On {
            self.outputs.push_back(Output::Expanded { sid, toward, message: message.into() });
        }
    }

    fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    fn ask_link_lease(&mut self) {
        if self.link_lease_asked {
            return;
        }
        let Some(lease) = self.link.keys().lease_due() else { return };
        let Some(&key) = self.link_keys.get(&lease.key_index) else { return };
        self.link_lease_asked = true;
        self.link_leases.insert(key, lease.bound);
        self.persist(Record::LinkLease { key, bound: lease.bound });
        self.after_persist(Then::LinkLease(lease));
    }

    /// Writes an envelope, if there is room; its number.
    ///
    /// # Errors
    /// `E4-04`.
    fn store(&mut self, envelope: &Envelope<'_>) -> Result<u64, Rejected> {
        let mut bytes = vec![0; envelope.bytes.len() + 128];
        let len = envelope
            .emit(&mut bytes)
            .map_err(|_| Rejected::new(Code::TinyMalformed, "longer than an envelope takes"))?;
        bytes.truncate(len);
        self.check_room(len)?;
        self.spool_used += len as u64;
        if !self.warned_full && self.spool_used * 100 >= self.limits.spool_bytes * WARN_FROM {
            self.warned_full = true;
            self.count(Rejected::new(Code::StoreFull, "the spool is 80 % full"), None);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.persist(Record::Envelope { seq, bytes: bytes.into() });
        Ok(seq)
    }

    /// Whether so many bytes more can be stored.
    ///
    /// # Errors
    /// `E4-04`.
    fn check_room(&self, bytes: usize) -> Result<(), Rejected> {
        let room = self.limits.spool_bytes.saturating_sub(self.spool_used);
        if self.store_works && bytes as u64 <= room {
            return Ok(());
        }
        Err(Rejected::new(Code::StoreFull, "the spool is full: what is stored stays, what is new is refused"))
    }

    /// Whether a message of any length can be stored.
    pub fn has_room(&self) -> bool {
        self.check_room(MOST_STORED).is_ok()
    }

    /// Bytes of envelopes that the store deleted for a [`Record::Delivered`].
    pub fn handle_freed(&mut self, bytes: u64) {
        self.spool_used = self.spool_used.saturating_sub(bytes);
        if self.spool_used * 100 < self.limits.spool_bytes * WARN_AGAIN_BELOW {
            self.warned_full = false;
        }
    }

    /// Tells the cloud what was counted.
    fn tell(&mut self, now: Millis) {
        let pause = if self.tally.has_news() { EVENT_PAUSE } else { SIGN_OF_LIFE };
        if now.since(self.last_event) < pause {
            return;
        }
        self.last_event = now;
        if !self.store_works || self.spool_used * 100 >= self.limits.spool_bytes * EVENTS_UP_TO {
            return;
        }
        let counts = self.tally.take();
        if self.cloud == Cloud::Absent {
            // Nobody reads them, and readings need the room. The counters go on.
            return;
        }
        let event = Event {
            uptime: now.since(self.started) / 1000,
            spool_used: self.spool_used,
            spool_max: self.limits.spool_bytes,
            counts: List::of(&counts),
        };
        let mut bytes = [0; event::BYTES];
        let Ok(len) = event.emit(&mut bytes) else { return };
        let envelope = Envelope {
            seq: self.next_seq,
            received: now,
            kind: Kind::Event,
            bytes: bytes.get(..len).unwrap_or_default(),
            originator: Originator::Node { net: self.net, sid: Sid::ANY_GATEWAY },
            rssi: None,
            lqi: None,
            opened: None,
            link: LinkClass::None,
            hops: None,
            key_index: None,
        };
        // A spool without room for it: the next event says the same.
        let _ = self.store(&envelope);
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("net", &self.net).field("devices", &self.devices.len()).finish_non_exhaustive()
    }
}

fn link_key_name(index: u8, key: &Key<E1, 16>) -> LinkKeyName {
    LinkKeyName(first8(&[b"fivefold net key", &[index], key.danger_bytes()]))
}

/// A boot id as bytes, for an OSCORE option.
fn boot_bytes(boot: Option<&BootContext>) -> Option<&[u8]> {
    boot.map(|b| &b.0[..])
}
