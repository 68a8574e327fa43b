//! The device engine and the gateway engine agree keys without a cloud ("C2 local"), over a link that loses, repeats and
//! delays, while either dies between any two of its outputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../gateway/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use common::{GROUP, KEY, NET, PAN, World};
use fivefold_core::e5_renewal::{Credential, PeerKid};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{Overrides, Policy, Profile, Radio};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::suite::set_seal_witness;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::Envelope;
use fivefold_core::wire::state::{Device as Listed, LocalKey, NetworkKey, Part, Phase, State};
use fivefold_device::renewal::{Keys, Peer, Timers};
use fivefold_device::{Entropy, Event, Node, Output, Record, Secrets, SendRefused, Settings};
use fivefold_gateway::gateway::{Local, Setup};
use fivefold_keep::sign::AgreementKey;

const SID: Sid = Sid(0x0a17);
const READING: &[u8] = &[0x82, 0x01, 0x15];
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// SHA-256(key ‖ nonce) of every seal.
static SEALED: LazyLock<Mutex<HashMap<[u8; 32], [u8; 32]>>> = LazyLock::new(Mutex::default);
static REPEATED: Mutex<u32> = Mutex::new(0);

fn watch(nonce: &[u8; 32], plaintext: &[u8; 32]) {
    if SEALED.lock().unwrap().insert(*nonce, *plaintext).is_some() {
        *REPEATED.lock().unwrap() += 1;
    }
}

fn key(n: u8) -> AgreementKey {
    AgreementKey::from_random(&[n; 32]).unwrap()
}

fn site(boot: GatewayBoot) -> Setup {
    let local = Local { kid: PeerKid::new(1).unwrap(), key: Arc::new(key(1)), seed: [boot.0[0]; 32] };
    Setup { local: Some(local), ..common::setup(boot) }
}

/// What chance does, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

enum Way {
    Up,
    Down,
}

struct Place {
    world: Option<World>,
    node: Node<8, AgreementKey>,
    record: Option<Record>,
    policy: Policy,
    dice: Dice,
    storm: bool,
    boots: u8,
    uptime: Millis,
    late: Vec<(Way, Vec<u8>)>,
    delivered: BTreeSet<(Epoch, u64)>,
    agreed: usize,
    deaths: [usize; 2],
}

fn policy(radio: Radio) -> Policy {
    let mut policy = Policy::new(Profile::ToGateway);
    (policy.radio, policy.pq_mix) = (radio, false);
    policy
}

fn told(policy: Policy) -> Vec<u8> {
    let overrides = Overrides { danger_link_only: false, danger_no_link: policy.radio == Radio::Ip };
    let listed = [Listed { sid: SID, did: common::did(23), policy, overrides }];
    let local = [LocalKey { sid: SID, x: key(2).public_x() }];
    let keys = [NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }];
    let state = State {
        version: 1,
        net: NET,
        group: GROUP,
        part: Part::WHOLE,
        devices: List::of(&listed),
        contexts: List::default(),
        keys: List::of(&keys),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::of(&local),
        classic: List::default(),
    };
    let mut out = vec![0; 1024];
    let len = state.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

fn boot(policy: Policy, record: Option<Record>, seed: u64, boots: u8) -> Node<8, AgreementKey> {
    let mut settings = Settings::new(common::did(23), SID, PAN, policy, Epoch(1));
    settings.timers = Timers {
        back_off: MINUTE,
        enrolment: 5_000,
        longest: 10 * MINUTE,
        renew_after: Some(30 * MINUTE),
        ..Timers::default()
    };
    let mut secrets = Secrets::default();
    secrets.link.push((1, Key::new(KEY))).unwrap();
    let keys = Keys {
        own: key(2),
        credential: Credential::device(SID, key(2).public_x()),
        peer: Peer::Gateway(Credential::peer(PeerKid::new(1).unwrap(), key(1).public_x())),
        mix: None,
        group: GROUP,
    };
    let random = core::array::from_fn(|n| (n as u8).wrapping_mul(7) ^ boots.wrapping_mul(31) ^ seed as u8);
    let entropy = Entropy::check(random).unwrap();
    Node::boot_renewing(Millis(0), settings, &secrets, Some(keys), record, &entropy).unwrap()
}

impl Place {
    fn new(radio: Radio, seed: u64) -> Self {
        let policy = policy(radio);
        let mut world = World::with(site);
        world.push(&told(policy)).unwrap();
        Self {
            world: Some(world),
            node: boot(policy, None, seed, 0),
            record: None,
            policy,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            storm: true,
            boots: 0,
            uptime: Millis(0),
            late: Vec::new(),
            delivered: BTreeSet::new(),
            agreed: 0,
            deaths: [0; 2],
        }
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.storm && self.dice.below(one_in) == 0
    }

    /// Something on its way: lost, twice, late, or as it should be.
    fn send(&mut self, way: Way, bytes: Vec<u8>) {
        if self.chance(5) {
            return;
        }
        if self.chance(20) {
            return self.late.push((way, bytes));
        }
        let twice = self.chance(10);
        self.bring(&way, &bytes);
        if twice {
            self.bring(&way, &bytes);
        }
    }

    fn bring(&mut self, way: &Way, bytes: &[u8]) {
        let ip = self.policy.radio == Radio::Ip;
        match way {
            Way::Up => {
                if self.chance(60) {
                    let outputs = 1 + self.dice.below(8) as usize;
                    self.world().fuse = Some(outputs);
                }
                let client = "127.0.0.9:40001".parse().unwrap();
                let heard = if ip { self.world().coap(client, bytes) } else { self.world().frame(bytes) };
                self.down(heard);
            }
            Way::Down if ip => self.node.handle_datagram(self.uptime, bytes),
            Way::Down => self.node.handle_frame(self.uptime, &mut bytes.to_vec()),
        }
    }

    fn down(&mut self, heard: common::Heard) {
        assert!(heard.exchanges.is_empty());
        let ip = self.policy.radio == Radio::Ip;
        let all = if ip { heard.udp.into_iter().map(|(_, message)| message).collect() } else { heard.air };
        for bytes in all {
            self.send(Way::Down, bytes);
        }
        if self.world().dead() {
            self.deaths[1] += 1;
            let world = self.world.take().unwrap().restart();
            self.world = Some(world);
        }
    }

    /// Carries out the device's script; it may die before any line of it.
    fn script(&mut self) {
        while let Some(output) = self.node.poll() {
            if self.chance(250) {
                self.deaths[0] += 1;
                self.boots += 1;
                self.node = boot(self.policy, self.record.clone(), self.dice.0, self.boots);
                self.uptime = Millis(0);
                continue;
            }
            match output {
                Output::Persist(record) => self.record = Some(record),
                Output::Transmit(frame) => self.send(Way::Up, frame.as_bytes().to_vec()),
                Output::Datagram(message) => self.send(Way::Up, message.to_vec()),
                Output::Event(Event::Delivered { number, .. }) => {
                    self.delivered.insert((number.epoch, number.value.into()));
                }
                Output::Event(Event::RenewalAgreed(_)) => self.agreed += 1,
                _ => {}
            }
        }
    }

    fn run(&mut self, time: u64) {
        let end = self.world().now.plus(time);
        let mut next_reading = self.world().now;
        while self.world().now < end {
            let now = self.world().now;
            let gateway = self.world().gateway.poll_timeout().map_or(1_000, |at| at.since(now));
            let node = self.node.poll_timeout().map_or(1_000, |at| at.since(self.uptime));
            let step = gateway.min(node).min(next_reading.since(now)).clamp(10, 60_000);
            self.uptime = self.uptime.plus(step);
            let heard = self.world().wait(step);
            self.down(heard);
            for (way, bytes) in std::mem::take(&mut self.late) {
                self.bring(&way, &bytes);
            }
            self.node.handle_timeout(self.uptime);
            self.script();
            if self.world().now >= next_reading {
                next_reading = self.world().now.plus(MINUTE);
                match self.node.send(self.uptime, READING) {
                    Ok(_) | Err(SendRefused::Full | SendRefused::NotAgreed | SendRefused::RenewalNeeded) => {}
                    Err(other) => panic!("{other}"),
                }
                self.script();
            }
        }
    }

    fn stored(&mut self) -> BTreeSet<(Epoch, u64)> {
        let opened = |bytes: &Vec<u8>| Envelope::parse(bytes).unwrap().opened.unwrap();
        self.world().stored().iter().map(opened).map(|o| (o.epoch, o.piv)).collect()
    }
}

#[test]
fn no_device_ends_without_keys_that_both_sides_hold_and_nothing_confirmed_is_lost() {
    set_seal_witness(watch);
    for radio in [Radio::Ieee802154, Radio::Ip] {
        for seed in 1..=2 {
            SEALED.lock().unwrap().clear();
            let mut place = Place::new(radio, seed);
            place.run(10 * HOUR);
            let [node, gateway] = place.deaths;
            assert!(node > 3 && gateway > 3, "{radio} {seed}: {node} and {gateway} deaths");
            assert!(place.agreed > 5, "{radio} {seed}: {} runs", place.agreed);
            place.storm = false;
            let before = place.agreed;
            place.run(2 * HOUR);
            assert!(place.agreed > before, "{radio} {seed}: keys are renewed");
            let before = place.delivered.len();
            place.run(10 * MINUTE);
            assert!(place.delivered.len() >= before + 8, "{radio} {seed}: readings pass");
            assert!(before > 300, "{radio} {seed}: {before} readings");
            let (stored, delivered) = (place.stored(), place.delivered.clone());
            let lost: Vec<_> = delivered.difference(&stored).collect();
            assert!(lost.is_empty(), "{radio} {seed}: confirmed and not stored: {lost:?}");
            assert_eq!(*REPEATED.lock().unwrap(), 0, "{radio} {seed}: a nonce was used twice");
        }
    }
}
