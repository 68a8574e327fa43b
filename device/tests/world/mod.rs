//! A radio world in one process: nodes on model flash, a gateway and a cloud built from core, and an air that loses,
//! doubles and delays.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::too_many_arguments
)]

pub mod cloud;
pub mod gateway;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{
    FixedNeighbours, Identity as Name154, KeyState, Link, LinkKeys, LinkPolicy, Neighbour, Neighbours,
    Received as Heard, Registration, Station, TableFull,
};
use fivefold_core::e2_gateway::{E2, E2Secret};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::e5_renewal::{Credential, HandedKey, Identity, PeerKid, PqMix, Responder, ToServer, WaitM3};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, Sid};
use fivefold_core::key::Key;
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{AnswerNumber, Context, PartialIv, Plaintext, judge_tiny_request};
use fivefold_core::profile::{Mode, Policy, Profile, Sign};
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use fivefold_core::suite::p256::SigningKey;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap;
use fivefold_core::wire::control::{Downlink, Earlier, Received};
use fivefold_core::wire::ieee802154::{Ack, Frame as Frame154, Pan, SecurityLevel};
use fivefold_core::wire::mesh;
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::{EdhocRule, Inner, KidLength, Layers, Tiny, Wants, Within};
use fivefold_device::evidence::{self, Signing};
use fivefold_device::renewal::{Keys, Peer, Stage};
use fivefold_device::storage::{RECORD, Slot, Slots, Storage, StoredContext};
use fivefold_device::{Entropy, Event, Node, Number, Output, Record, Secrets, Settings};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use cloud::{GROUP, PSK, Toy};
pub use gateway::{GatewayStation, Mood};

pub const PAN: Pan = Pan(0x4321);
pub const GATEWAY: Sid = Sid(0x0001);
pub const KEY: [u8; 16] = [0x42; 16];
pub const ALG: Alg = Alg::AesCcm16_64_256;

pub fn did(sid: Sid) -> Did {
    let [a, b] = sid.to_bytes();
    Did([0xac, 0xde, 0x48, 0, 0, 0, a, b])
}

pub fn e3(sid: Sid, epoch: Epoch) -> E3Secret {
    if epoch.0 == 0 {
        return E3Secret::bootstrap(&[9; 32], did(sid));
    }
    E3Secret::new(&[epoch.0 as u8 ^ sid.0 as u8 ^ 0x30; 32], &[3; 8]).unwrap()
}

pub fn e2(sid: Sid, epoch: Epoch) -> E2Secret {
    E2Secret::new([epoch.0 as u8 ^ sid.0 as u8 ^ 0x20; 32], [2; 8])
}

/// A day, in milliseconds.
pub const DAY: u64 = 86_400_000;
pub const HOUR: u64 = 3_600_000;

pub fn secrets(sid: Sid, epoch: Epoch) -> Secrets {
    let mut s = Secrets::default();
    s.link.push((1, Key::new(KEY))).unwrap();
    s.e2 = Some(e2(sid, epoch));
    s.e3 = Some(e3(sid, epoch));
    s.blind = Some(blind(sid, epoch));
    s
}

pub fn blind(sid: Sid, epoch: Epoch) -> BlindKey {
    BlindKey::new([epoch.0 as u8 ^ sid.0 as u8 ^ 0x40; 32])
}

/// The key that a device signs its readings with.
pub fn signing_key(sid: Sid) -> SigningKey {
    SigningKey::from_random(&[sid.0 as u8 | 1; 32]).unwrap()
}

/// A device that signs where its policy says so.
pub type Evidence = Option<Signing<SigningKey>>;

pub fn settings(sid: Sid, profile: Profile) -> Settings {
    Settings::new(did(sid), sid, PAN, Policy::new(profile), Epoch(1))
}

/// How a device is enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Installed contexts, and nothing to renew them with.
    Fixed,
    /// Installed contexts, renewed by EDHOC.
    Installed,
    /// No contexts: EDHOC agrees on the first ones.
    Bare,
}

/// Two slots that survive a reboot, and a power cut after so many bytes of the following writes.
#[derive(Clone, Debug)]
pub struct Flash {
    pub slots: [[u8; RECORD]; 2],
    pub power: Option<usize>,
    pub writes: usize,
}

impl Default for Flash {
    fn default() -> Self {
        Self { slots: [[0xFF; RECORD]; 2], power: None, writes: 0 }
    }
}

impl Storage for Flash {
    type Error = &'static str;
    fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), Self::Error> {
        *out = self.slots[slot as usize];
        Ok(())
    }
    fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), Self::Error> {
        self.writes += 1;
        let n = self.power.map_or(RECORD, |left| left.min(RECORD));
        self.power = self.power.map(|left| left - n);
        self.slots[slot as usize][..n].copy_from_slice(&bytes[..n]);
        if n < RECORD { Err("power cut") } else { Ok(()) }
    }
}

/// A node with its flash and what it told.
pub struct Device {
    pub settings: Settings,
    pub enrolment: Enrolment,
    pub node: Node<8, Toy, Evidence>,
    pub slots: Option<Slots<Flash>>,
    pub events: Vec<Event>,
    pub dropped: Vec<fivefold_core::error::Rejected>,
    pub executed: Vec<u64>,
    /// Cut the power after so many outputs; a persisted record is torn at the byte given.
    pub fuse: Option<(usize, usize)>,
    pub dead: bool,
    /// Commands are answered at once.
    pub obedient: bool,
    /// What was written, the last one last.
    pub written: Vec<Record>,
    /// The power goes while the record after so many is written: what was on flash, and what was to be.
    pub cut_at: Option<usize>,
    pub cut: Option<(Flash, Record)>,
}

impl Device {
    pub fn boot(now: Millis, settings: Settings, enrolment: Enrolment, flash: Flash, rng: &mut ChaCha8Rng) -> Self {
        let (slots, record) = Slots::open(flash).unwrap();
        let node = boot(now, &settings, enrolment, record, rng);
        Self {
            settings,
            enrolment,
            node,
            slots: Some(slots),
            events: Vec::new(),
            dropped: Vec::new(),
            executed: Vec::new(),
            fuse: None,
            dead: false,
            obedient: true,
            written: Vec::new(),
            cut_at: None,
            cut: None,
        }
    }

    pub fn reboot(&mut self, now: Millis, rng: &mut ChaCha8Rng) {
        let flash = self.slots.take().unwrap().into_storage();
        let (slots, record) = Slots::open(flash).unwrap();
        self.node = boot(now, &self.settings, self.enrolment, record, rng);
        self.slots = Some(slots);
        (self.dead, self.fuse) = (false, None);
    }

    pub fn delivered(&self) -> BTreeSet<Number> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Delivered { number, .. } = e { Some(*number) } else { None })
            .collect()
    }

    /// What is on flash.
    pub fn persisted(&self) -> Option<&Record> {
        self.written.last()
    }

    /// W2: the epoch of a run is used up on flash before a message of it leaves.
    fn durable_before(&self) {
        if let Stage::WaitMessage2(epoch) | Stage::WaitMessage4(epoch) = self.node.stage() {
            assert!(self.persisted().unwrap().next_epoch > epoch, "message 1 before W2");
        }
    }

    /// W1, W3: contexts and numbers are on flash before a message is sealed with them.
    fn sealed_after(&self, event: &Event) {
        let (Event::Sent { number, .. }, Mode::Persistent) = (event, self.settings.policy.mode) else { return };
        let record = self.persisted().unwrap();
        assert!(number.epoch <= record.epoch, "sealed before W3");
        assert!(number.epoch < record.epoch || number.value < record.piv_bound, "sealed before W1");
    }

    /// Events of renewal, in order.
    pub fn renewals(&self) -> Vec<Event> {
        let about = |e: &&Event| {
            matches!(
                e,
                Event::RenewalStarted { .. }
                    | Event::RenewalAgreed(_)
                    | Event::RenewalConfirmed(_)
                    | Event::RenewalFailed { .. }
                    | Event::RenewalNeeded(_)
            )
        };
        self.events.iter().filter(about).copied().collect()
    }

    /// Carries the script out; returns the frames for the air.
    fn run(&mut self, now: Millis) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !self.dead {
            let Some(output) = self.node.poll() else { break };
            if let Some((left, torn)) = &mut self.fuse {
                if *left == 0 {
                    // The power goes while this one is carried out.
                    self.dead = true;
                    if let Output::Persist(record) = output {
                        let mut flash = self.slots.take().unwrap().into_storage();
                        flash.power = Some(*torn);
                        let mut slots = Slots::open(flash).unwrap().0;
                        let _ = slots.write(&record);
                        let mut flash = slots.into_storage();
                        flash.power = None;
                        self.slots = Some(Slots::open(flash).unwrap().0);
                    }
                    break;
                }
                *left -= 1;
            }
            if self.cut_at == Some(self.written.len())
                && let Output::Persist(record) = output
            {
                let flash = self.slots.take().unwrap().into_storage();
                (self.cut, self.dead) = (Some((flash, record)), true);
                break;
            }
            match output {
                Output::Persist(record) => {
                    self.slots.as_mut().unwrap().write(&record).unwrap();
                    self.written.push(record);
                }
                Output::Transmit(frame) => {
                    self.durable_before();
                    frames.push(frame.as_bytes().to_vec());
                }
                Output::Event(event) => {
                    self.sealed_after(&event);
                    self.events.push(event);
                }
                Output::Dropped(rejected) => self.dropped.push(rejected),
                Output::Execute(command) => {
                    self.executed.push(command.id);
                    if self.obedient {
                        self.node.command_done(now, command.id, fivefold_device::node::status::DONE);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        frames
    }
}

fn boot(
    now: Millis,
    settings: &Settings,
    enrolment: Enrolment,
    record: Option<Record>,
    rng: &mut ChaCha8Rng,
) -> Node<8, Toy, Evidence> {
    let mut bytes = [0; 64];
    rng.fill_bytes(&mut bytes);
    let entropy = Entropy::check(bytes).unwrap();
    let mut secrets = secrets(settings.sid, settings.epoch);
    if enrolment == Enrolment::Bare {
        (secrets.e2, secrets.e3) = (None, None);
    }
    let keys = (enrolment != Enrolment::Fixed).then(|| cloud::keys(settings.sid));
    let signs = settings.policy.sign == Sign::Batch;
    let evidence = signs.then(|| Signing::new(signing_key(settings.sid), evidence::Downlink::Heard));
    Node::boot_signing(now, settings.clone(), &secrets, (keys, evidence), record, &entropy).unwrap()
}

/// What the air does to a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a thousand frames, so many are lost.
    pub loss: u32,
    /// So many come twice.
    pub double: u32,
    /// Frames are delayed by up to so many milliseconds.
    pub delay: u64,
}

pub struct World {
    pub now: Millis,
    pub rng: ChaCha8Rng,
    pub devices: Vec<Device>,
    pub gateway: GatewayStation,
    /// Who hears whom: pairs of stations; the gateway is number 0, device n is n + 1.
    pub reach: Vec<(usize, usize)>,
    pub weather: Weather,
    air: Vec<(Millis, usize, Vec<u8>)>,
    /// Every frame that was ever sent: who, when, bytes.
    pub log: Vec<(usize, Millis, Vec<u8>)>,
    seen: HashMap<(Did, u8, u32), Vec<u8>>,
    pub repeated_counters: usize,
    /// Frames of this length are lost.
    pub lost_length: Option<usize>,
}

impl World {
    /// Devices in a row: the gateway hears the first, that one the second, and so on.
    pub fn row(seed: u64, profiles: &[Profile]) -> Self {
        Self::of(seed, Self::settings_of_row(profiles))
    }

    /// A row of devices that renew.
    pub fn renewing(seed: u64, profiles: &[Profile], enrolment: Enrolment) -> Self {
        Self::enrolled(seed, Self::settings_of_row(profiles), enrolment)
    }

    fn settings_of_row(profiles: &[Profile]) -> Vec<Settings> {
        let mut all: Vec<Settings> = Vec::new();
        for (n, &profile) in profiles.iter().enumerate() {
            let mut s = settings(Sid(0x0a10 + n as u16), profile);
            if let Some(before) = all.last() {
                s.ways.parents.clear();
                s.ways.parents.push(before.sid).unwrap();
            }
            all.push(s);
        }
        all
    }

    pub fn of(seed: u64, settings: Vec<Settings>) -> Self {
        Self::enrolled(seed, settings, Enrolment::Fixed)
    }

    pub fn enrolled(seed: u64, settings: Vec<Settings>, enrolment: Enrolment) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut gateway_seed = [0; 32];
        rng.fill_bytes(&mut gateway_seed);
        let mut gateway = GatewayStation::new(gateway_seed);
        let mut devices = Vec::new();
        for s in settings {
            gateway.enrol(&s, enrolment != Enrolment::Bare);
            devices.push(Device::boot(Millis(0), s, enrolment, Flash::default(), &mut rng));
        }
        let reach = (0..devices.len()).map(|n| (n, n + 1)).collect();
        Self {
            now: Millis(0),
            rng,
            devices,
            gateway,
            reach,
            weather: Weather::default(),
            air: Vec::new(),
            log: Vec::new(),
            seen: HashMap::new(),
            repeated_counters: 0,
            lost_length: None,
        }
    }

    /// Lets `ms` milliseconds pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while self.now < end {
            self.step();
            self.now = self.now.plus(10);
        }
    }

    /// Lets `ms` milliseconds pass, from one thing that happens to the next: for days.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        let mut restless = 0;
        while self.now < end {
            self.step();
            let nodes = self.devices.iter().filter(|d| !d.dead).filter_map(|d| d.node.poll_timeout());
            let air = self.air.iter().map(|(at, ..)| *at);
            let next = nodes.chain(air).chain(self.gateway.link.poll_timeout()).min().unwrap_or(end);
            restless = if next <= self.now { restless + 1 } else { 0 };
            let timeouts: Vec<_> = self.devices.iter().map(|d| d.node.poll_timeout()).collect();
            assert!(restless < 1_000, "at {:?} somebody never comes to rest: {timeouts:?}", self.now);
            self.now = next.max(self.now.plus(1)).min(end);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.air.drain(..).partition(|(at, _, _)| *at <= now);
        self.air = later;
        for (_, to, frame) in due {
            self.hear(to, frame);
        }
        for n in 0..self.devices.len() {
            if self.devices[n].dead {
                continue;
            }
            self.devices[n].node.handle_timeout(now);
            self.flush(n);
        }
        if let Some(write) = self.gateway.link.keys().lease_due() {
            self.gateway.link.keys_mut().extend_lease(write);
        }
        let mut out = [0; 127];
        while let Some(control) = self.gateway.link.poll_control(now, &mut out) {
            self.send(0, out[..control.len].to_vec());
        }
    }

    pub fn hear(&mut self, to: usize, mut frame: Vec<u8>) {
        let now = self.now;
        if to == 0 {
            for answer in self.gateway.frame(now, &frame) {
                self.send(0, answer);
            }
        } else if !self.devices[to - 1].dead {
            self.devices[to - 1].node.handle_frame(now, &mut frame);
            self.flush(to - 1);
        }
    }

    pub fn flush(&mut self, n: usize) {
        for frame in self.devices[n].run(self.now) {
            self.send(n + 1, frame);
        }
    }

    pub fn send(&mut self, from: usize, frame: Vec<u8>) {
        self.log.push((from, self.now, frame.clone()));
        let sender = if from == 0 { did(GATEWAY) } else { self.devices[from - 1].settings.did };
        let view = Frame154::parse(&frame[..frame.len() - 2]).unwrap();
        let security = view.security(SecurityLevel::EncMic32).unwrap();
        if self.seen.insert((sender, security.key_index, security.frame_counter), frame.clone()).is_some() {
            self.repeated_counters += 1;
        }
        if self.lost_length == Some(frame.len()) {
            return;
        }
        let others: Vec<usize> = self
            .reach
            .iter()
            .filter_map(|&(a, b)| {
                if a == from {
                    Some(b)
                } else if b == from {
                    Some(a)
                } else {
                    None
                }
            })
            .collect();
        for to in others {
            let copies = 1 + usize::from(self.rng.next_u32() % 1000 < self.weather.double);
            for _ in 0..copies {
                if self.rng.next_u32() % 1000 >= self.weather.loss {
                    let delay = 2 + if self.weather.delay > 0 { self.rng.next_u64() % self.weather.delay } else { 0 };
                    self.air.push((self.now.plus(delay), to, frame.clone()));
                }
            }
        }
    }

    /// The gateway sends these bytes as a datagram of its own to a device in reach.
    pub fn gateway_says(&mut self, n: usize, payload: &[u8]) {
        let to = self.devices[n].settings.sid;
        let header = mesh::Header { hops: 14, originator: GATEWAY, destination: to };
        let mut out = [0; 127];
        let len = self.gateway.link.seal(to, Ack::Request, Some(header), payload, &mut out).unwrap();
        self.send(0, out[..len].to_vec());
    }

    /// What is on its way is lost.
    pub fn air_is_cleared(&mut self) {
        self.air.clear();
    }

    /// Hands a reading to a device.
    pub fn read(&mut self, n: usize, value: u8) -> Result<Number, fivefold_device::SendRefused> {
        let number = self.devices[n].node.send(self.now, &[0x82, 0x01, value & 0x17]);
        self.flush(n);
        number
    }

    /// The power comes back, and this is on flash.
    pub fn restart(&mut self, n: usize, flash: Flash) {
        self.devices[n].slots = Some(Slots::open(flash).unwrap().0);
        self.devices[n].cut_at = None;
        self.reboot(n);
    }

    pub fn reboot(&mut self, n: usize) {
        let now = self.now;
        self.devices[n].reboot(now, &mut self.rng);
        self.flush(n);
    }
}
