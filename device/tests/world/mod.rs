//! A radio world in one process: nodes on model flash, a gateway and a cloud built from core, and an air that loses,
//! doubles and delays.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::too_many_arguments
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Received, Station};
use fivefold_core::e2_gateway::{E2, E2Secret};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::id::{BootContext, Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::level::OscoreLevel;
use fivefold_core::oscore::{AnswerNumber, Context, PartialIv, Plaintext, judge_tiny_request};
use fivefold_core::profile::{Mode, Policy, Profile};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap;
use fivefold_core::wire::ieee802154::{Ack, Frame as Frame154, Pan, SecurityLevel};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Wants, Within};
use fivefold_device::storage::{RECORD, Slot, Slots, Storage};
use fivefold_device::{Entropy, Event, Node, Output, Record, Secrets, Settings};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

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

pub fn secrets(sid: Sid, epoch: Epoch) -> Secrets {
    let mut s = Secrets::default();
    s.link.push((1, Key::new(KEY))).unwrap();
    s.e2 = Some(e2(sid, epoch));
    s.e3 = Some(e3(sid, epoch));
    s
}

pub fn settings(sid: Sid, profile: Profile) -> Settings {
    Settings::new(did(sid), sid, PAN, Policy::new(profile), Epoch(1))
}

/// Two slots that survive a reboot, and a power cut after so many bytes of a write.
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
        let n = self.power.take().unwrap_or(RECORD);
        self.slots[slot as usize][..n].copy_from_slice(&bytes[..n]);
        if n < RECORD { Err("power cut") } else { Ok(()) }
    }
}

/// A node with its flash and what it told.
pub struct Device {
    pub settings: Settings,
    pub node: Node<8>,
    pub slots: Option<Slots<Flash>>,
    pub events: Vec<Event>,
    pub dropped: Vec<fivefold_core::error::Rejected>,
    pub executed: Vec<u64>,
    /// Cut the power after so many outputs; a persisted record is torn at the byte given.
    pub fuse: Option<(usize, usize)>,
    pub dead: bool,
    /// Commands are answered at once.
    pub obedient: bool,
}

impl Device {
    pub fn boot(now: Millis, settings: Settings, flash: Flash, rng: &mut ChaCha8Rng) -> Self {
        let (slots, record) = Slots::open(flash).unwrap();
        let node = boot(now, &settings, record, rng);
        Self {
            settings,
            node,
            slots: Some(slots),
            events: Vec::new(),
            dropped: Vec::new(),
            executed: Vec::new(),
            fuse: None,
            dead: false,
            obedient: true,
        }
    }

    pub fn reboot(&mut self, now: Millis, rng: &mut ChaCha8Rng) {
        let flash = self.slots.take().unwrap().into_storage();
        let (slots, record) = Slots::open(flash).unwrap();
        self.node = boot(now, &self.settings, record, rng);
        self.slots = Some(slots);
        (self.dead, self.fuse) = (false, None);
    }

    pub fn delivered(&self) -> BTreeSet<u32> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Delivered { number, .. } = e { Some(*number) } else { None })
            .collect()
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
                        self.slots = Some(slots);
                    }
                    break;
                }
                *left -= 1;
            }
            match output {
                Output::Persist(record) => self.slots.as_mut().unwrap().write(&record).unwrap(),
                Output::Transmit(frame) => frames.push(frame.as_bytes().to_vec()),
                Output::Event(event) => self.events.push(event),
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

fn boot(now: Millis, settings: &Settings, record: Option<Record>, rng: &mut ChaCha8Rng) -> Node<8> {
    let mut bytes = [0; 64];
    rng.fill_bytes(&mut bytes);
    let entropy = Entropy::check(bytes).unwrap();
    Node::boot(now, settings.clone(), &secrets(settings.sid, settings.epoch), record, &entropy).unwrap()
}

/// How the gateway and the cloud behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Everything is answered by who should.
    Kind,
    /// The gateway acknowledges custody and hands nothing on.
    Withholding,
    /// The gateway answers with this code in its own name.
    Lying(u8),
    /// Nothing is answered.
    Silent,
    /// The cloud answers with this code.
    Code(u8),
}

/// What arrived at the end that the policy names.
#[derive(Default)]
pub struct Ledger {
    /// (sid, boot id, number) -> payload
    pub readings: BTreeMap<(u16, Option<[u8; 8]>, u64), Vec<u8>>,
    pub duplicates: usize,
    /// Numbers that came twice with different content.
    pub reused: usize,
}

pub struct GatewayStation {
    pub link: Link<FixedNeighbours<16>>,
    pub mood: Mood,
    pub ledger: Ledger,
    pub control: Vec<u8>,
    policies: HashMap<Sid, (Policy, Epoch)>,
    numbers: Lease,
    answered: BTreeSet<(u8, u16, Option<[u8; 8]>, u64)>,
    hashes: HashMap<(u8, u16, Option<[u8; 8]>, u64), [u8; 32]>,
    pub plain: Vec<Vec<u8>>,
    /// Answers as they left, before E1.
    pub answers: Vec<Vec<u8>>,
    /// Requests as they came, after E1.
    pub requests: Vec<Vec<u8>>,
    boots: HashMap<Sid, BootContext>,
    pub refused: Vec<fivefold_core::error::Rejected>,
}

impl GatewayStation {
    fn new(seed: [u8; 32]) -> Self {
        let mut keys = LinkKeys::new();
        keys.install(1, &Key::new(KEY), 0).unwrap();
        let identity = Identity { did: did(GATEWAY), sid: GATEWAY, pan: PAN, station: Station::Gateway };
        let mut numbers = Lease::resume(0, 1 << 20);
        numbers.extend(1 << 20);
        Self {
            link: Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), seed),
            mood: Mood::Kind,
            ledger: Ledger::default(),
            control: Vec::new(),
            policies: HashMap::new(),
            numbers,
            answered: BTreeSet::new(),
            hashes: HashMap::new(),
            plain: Vec::new(),
            answers: Vec::new(),
            requests: Vec::new(),
            boots: HashMap::new(),
            refused: Vec::new(),
        }
    }

    fn frame(&mut self, now: Millis, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut frame = frame.to_vec();
        let (from, originator, payload) = match self.link.receive(now, &mut frame) {
            Ok(Received::Deliver(d)) => (d.from, d.originator, d.payload.to_vec()),
            Ok(_) => return vec![],
            Err(r) => {
                self.refused.push(r);
                return vec![];
            }
        };
        self.requests.push(payload.clone());
        let answer = self.request(originator, &payload);
        let Some(answer) = answer else { return vec![] };
        self.answers.push(answer.clone());
        let header = mesh::Header { hops: 14, originator: GATEWAY, destination: originator };
        let mut out = [0; 127];
        let len = self.link.seal(from, Ack::Request, Some(header), &answer, &mut out).unwrap();
        vec![out[..len].to_vec()]
    }

    fn request(&mut self, sid: Sid, payload: &[u8]) -> Option<Vec<u8>> {
        let (policy, epoch) = self.policies[&sid];
        let tiny = Tiny::parse(payload, policy.kid_length).unwrap();
        let (layers, wants, piv, bctx, kid, ciphertext) = match tiny {
            Tiny::Request { layers, wants, piv, bctx, kid, ciphertext } => (layers, wants, piv, bctx, kid, ciphertext),
            Tiny::Plain { payload, .. } => {
                self.plain.push(payload.to_vec());
                return None;
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(kid, (policy.kid_length == KidLength::Two).then_some(sid));
        if let Some(bctx) = bctx {
            self.boots.insert(sid, bctx);
        }
        let bctx = if policy.mode == Mode::Random { Some(self.boots[&sid]) } else { None };
        let c2 = e2(sid, epoch).context_for_peer(sid, epoch, bctx, ALG).ok();
        let c3 = e3(sid, epoch).context_for_peer(sid, epoch, bctx, ALG).unwrap();
        let (mut outer, mut inner) = ([0; 128], [0; 128]);
        let token = piv.value() as u8;
        let own = |me: &mut Self, plaintext: &[u8]| -> Option<Vec<u8>> {
            (wants == Wants::Answer).then(|| {
                let (piv, sealed) = me.seal(2, sid, bctx, c2.as_ref().unwrap(), piv, ciphertext, plaintext);
                emit(Tiny::Answer { layers, token, piv, ciphertext: &sealed })
            })
        };
        let (piv3, ct3) = match layers {
            Layers::C3 => (piv, ciphertext.to_vec()),
            Layers::C2 => {
                let opened = c2.as_ref().unwrap().open_request(piv, ciphertext, &mut outer).unwrap();
                let reading = judge_tiny_request::<E2>(opened.plaintext()).unwrap().to_vec();
                self.note(2, sid, bctx, piv.value(), ciphertext, &reading);
                return match self.mood {
                    Mood::Silent => None,
                    Mood::Withholding => own(self, &[coap::GATEWAY_TIMEOUT]),
                    Mood::Code(code) | Mood::Lying(code) => own(self, &[code]),
                    Mood::Kind => {
                        let plaintext = self.confirmation();
                        own(self, &plaintext)
                    }
                };
            }
            Layers::C2OverC3 => {
                let opened = c2.as_ref().unwrap().open_request(piv, ciphertext, &mut outer).unwrap();
                match Inner::parse(opened.plaintext(), Within::Request).unwrap() {
                    Inner::Same { ct3 } => (piv, ct3.to_vec()),
                    Inner::Explicit { piv, ct3, .. } => (piv, ct3.to_vec()),
                    other => panic!("{other:?}"),
                }
            }
        };
        if self.mood == Mood::Withholding {
            return own(self, &[&[0x04, coap::GATEWAY_TIMEOUT][..], &fivefold_core::wire::control::STORED].concat());
        }
        if let Mood::Lying(code) = self.mood
            && layers == Layers::C2OverC3
        {
            return own(self, &[0x04, code]);
        }
        let opened = c3.open_request(piv3, &ct3, &mut inner).unwrap();
        let reading = judge_tiny_request::<E3>(opened.plaintext()).unwrap().to_vec();
        self.note(3, sid, bctx, piv3.value(), &ct3, &reading);
        if self.mood == Mood::Silent || wants == Wants::Nothing {
            return None;
        }
        let plaintext = if let Mood::Code(code) = self.mood { vec![code] } else { self.confirmation() };
        let (piv_a, sealed) = self.seal(3, sid, bctx, &c3, piv3, &ct3, &plaintext);
        if layers == Layers::C3 {
            return Some(emit(Tiny::Answer { layers, token, piv: piv_a, ciphertext: &sealed }));
        }
        let inner = match piv_a {
            None => Inner::Same { ct3: &sealed },
            Some(piv) => Inner::Explicit { piv, bctx: None, ct3: &sealed },
        };
        let mut plaintext = [0; 128];
        let len = inner.emit(&mut plaintext).unwrap();
        own(self, &plaintext[..len])
    }

    fn confirmation(&self) -> Vec<u8> {
        let mut out = [0; 120];
        let len = Plaintext { code: coap::CHANGED, options: &[], payload: &self.control }.emit(&mut out).unwrap();
        out[..len].to_vec()
    }

    fn note(&mut self, level: u8, sid: Sid, bctx: Option<BootContext>, piv: u64, ciphertext: &[u8], reading: &[u8]) {
        let bctx = bctx.map(|b| b.0);
        let hash = fivefold_core::suite::sha256(&[ciphertext]);
        match self.hashes.insert((level, sid.0, bctx, piv), hash) {
            Some(before) if before == hash => self.ledger.duplicates += 1,
            Some(_) => self.ledger.reused += 1,
            None => {}
        }
        self.ledger.readings.insert((sid.0, bctx, piv), reading.to_vec());
    }

    fn seal<L: OscoreLevel>(
        &mut self,
        level: u8,
        sid: Sid,
        bctx: Option<BootContext>,
        context: &Context<L>,
        piv: PartialIv,
        ciphertext: &[u8],
        plaintext: &[u8],
    ) -> (Option<PartialIv>, Vec<u8>) {
        let (mut scratch, mut out) = ([0; 128], [0; 128]);
        let request = context.open_request(piv, ciphertext, &mut scratch).unwrap();
        let to = request.request();
        let first = self.answered.insert((level, sid.0, bctx.map(|b| b.0), piv.value()));
        let (number, own) = if first {
            (AnswerNumber::Unnumbered(request.unnumbered()), None)
        } else {
            let n = self.numbers.take().unwrap();
            let own = PartialIv::from_value(n.value());
            (AnswerNumber::Own(n), Some(own))
        };
        let len = context.seal_answer(&to, number, plaintext, &mut out).unwrap();
        (own, out[..len].to_vec())
    }
}

fn emit(tiny: Tiny<'_>) -> Vec<u8> {
    let mut out = [0; 160];
    let len = tiny.emit(&mut out).unwrap();
    out[..len].to_vec()
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
        let mut all: Vec<Settings> = Vec::new();
        for (n, &profile) in profiles.iter().enumerate() {
            let mut s = settings(Sid(0x0a10 + n as u16), profile);
            if let Some(before) = all.last() {
                s.ways.parents.clear();
                s.ways.parents.push(before.sid).unwrap();
            }
            all.push(s);
        }
        Self::of(seed, all)
    }

    pub fn of(seed: u64, settings: Vec<Settings>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut gateway_seed = [0; 32];
        rng.fill_bytes(&mut gateway_seed);
        let mut gateway = GatewayStation::new(gateway_seed);
        let mut devices = Vec::new();
        for s in settings {
            gateway.policies.insert(s.sid, (s.policy, s.epoch));
            devices.push(Device::boot(Millis(0), s, Flash::default(), &mut rng));
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
    pub fn read(&mut self, n: usize, value: u8) -> Result<u32, fivefold_device::SendRefused> {
        let number = self.devices[n].node.send(self.now, &[0x82, 0x01, value & 0x17]);
        self.flush(n);
        number
    }

    pub fn reboot(&mut self, n: usize) {
        let now = self.now;
        self.devices[n].reboot(now, &mut self.rng);
        self.flush(n);
    }
}
