//! The device engine signs, the cloud engine verifies: over a link that loses, repeats and delays both ways, while the device loses
//! power and the cloud restarts. Every batch ends verified, or its readings stay what they were; none is signed falsely.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../cloud/tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{NET, World};
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::{LinkClass, Mode, Profile, Radio, Sign};
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Outer, Protected, Type};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_core::wire::ieee802154::Pan;
use fivefold_device::evidence::{Downlink, Signing};
use fivefold_device::renewal::NoCurve;
use fivefold_device::{Entropy, Event, Node, Output, Record, Secrets, Settings};
use fivefold_keep::registry;
use fivefold_keep::sign::SigningKey;

const SID: Sid = Sid(0x0a17);
const MINUTE: u64 = 60_000;

type Device = Node<8, NoCurve, Signing<SigningKey>>;

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
    registered: registry::Device,
    pkcs8: Vec<u8>,
    device: Device,
    record: Option<Record>,
    dice: Dice,
    storm: bool,
    boots: u8,
    now: u64,
    late: Vec<(Way, Vec<u8>)>,
    /// Payload and number of what the device took, but for what a reboot may have kept from the cloud.
    taken: BTreeMap<u64, u8>,
    signed: BTreeSet<u32>,
    complete: BTreeSet<u32>,
}

fn boot(d: &registry::Device, key: SigningKey, record: Option<Record>, boots: u8, seed: u64) -> Device {
    let mut policy = d.policy;
    policy.radio = Radio::Ip;
    let settings = Settings::new(d.did, d.sid, Pan(0x4321), policy, d.epoch);
    let mut ms3 = vec![d.epoch.0 as u8; d.policy.alg.key_len()];
    ms3[..8].copy_from_slice(&d.did.0);
    let (e3, blind) = (E3Secret::new(&ms3, &[5; 8]), Some(BlindKey::new([7; 32])));
    let secrets = Secrets { e3, blind, ..Secrets::default() };
    let random = core::array::from_fn(|n| (n as u8).wrapping_mul(7) ^ boots.wrapping_mul(31) ^ seed as u8);
    let entropy = Entropy::check(random).unwrap();
    let evidence = Signing::new(key, Downlink::Heard);
    Node::boot_signing(Millis(0), settings, &secrets, (None, evidence), record, &entropy).unwrap()
}

impl Place {
    fn new(seed: u64, batch: u8) -> Self {
        let mut registered = common::device(SID.0, Profile::ToCloud, Mode::Persistent);
        (registered.policy.sign, registered.policy.batch) = (Sign::Batch, batch);
        let mut world = World::new(vec![registered.clone()]);
        let (key, pkcs8) = SigningKey::generate().unwrap();
        world.source.signers.push(registry::Signer {
            did: registered.did,
            spki: key.spki().to_vec(),
            origin: registry::KeyOrigin::Device,
            chain: String::new(),
            not_after: u64::MAX,
            certified_at: 1,
            revoked_at: None,
        });
        world.reload();
        Self {
            device: boot(&registered, key, None, 0, seed),
            world: Some(world),
            registered,
            pkcs8: pkcs8.to_vec(),
            record: None,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            storm: true,
            boots: 0,
            now: 0,
            late: Vec::new(),
            taken: BTreeMap::new(),
            signed: BTreeSet::new(),
            complete: BTreeSet::new(),
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.storm && self.dice.below(one_in) == 0
    }

    fn send(&mut self, way: Way, bytes: Vec<u8>) {
        if self.chance(5) {
            return;
        }
        if self.chance(10) {
            return self.late.push((way, bytes));
        }
        let twice = self.chance(10);
        self.bring(&way, &bytes);
        if twice {
            self.bring(&way, &bytes);
        }
    }

    fn bring(&mut self, way: &Way, bytes: &[u8]) {
        if let Way::Down = way {
            return self.device.handle_datagram(Millis(self.now), bytes);
        }
        let request = Protected::parse_request(bytes, Outer::Strict).unwrap();
        let world = self.world.as_mut().unwrap();
        let envelope = Envelope {
            seq: 0,
            received: world.now,
            kind: Kind::CloudTiny,
            bytes,
            originator: Originator::Node { net: NET, sid: SID },
            rssi: None,
            lqi: None,
            opened: None,
            link: LinkClass::MacCcm,
            hops: None,
            key_index: Some(1),
        };
        let answers = world.post(&[envelope]).answers;
        for answer in answers {
            let answer = Protected::parse_answer(&answer).unwrap();
            let answer = Protected { kind: Type::Non, token: request.token, ..answer };
            self.send(Way::Down, common::emit(&answer));
        }
    }

    /// Carries the device's script out, unless its power goes.
    fn run(&mut self) {
        while let Some(output) = self.device.poll() {
            if self.chance(400) {
                return self.reboot();
            }
            match output {
                Output::Persist(record) => self.record = Some(record),
                Output::Datagram(datagram) => self.send(Way::Up, datagram.to_vec()),
                Output::Event(Event::BatchSigned { number, .. }) => {
                    self.signed.insert(number);
                }
                Output::Event(Event::BatchComplete(number)) => {
                    self.complete.insert(number);
                }
                _ => {}
            }
        }
    }

    fn reboot(&mut self) {
        self.boots = self.boots.wrapping_add(1);
        self.now = 0;
        let key = SigningKey::from_pkcs8(&self.pkcs8).unwrap();
        let seed = self.dice.below(u64::MAX);
        self.device = boot(&self.registered, key, self.record.clone(), self.boots, seed);
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let world = self.world.as_mut().unwrap();
        world.now = world.now.plus(ms);
        self.device.handle_timeout(Millis(self.now));
        self.run();
        if self.dice.below(3) == 0 {
            for (way, bytes) in core::mem::take(&mut self.late) {
                self.bring(&way, &bytes);
                self.run();
            }
        }
        if self.chance(60) {
            self.world = self.world.take().map(World::restart);
        }
    }

    fn read(&mut self, value: u8) {
        if let Ok(number) = self.device.send(Millis(self.now), &[0x82, 0x01, 0x18, value]) {
            assert_eq!(number.epoch, Epoch(1));
            self.taken.insert(number.value.into(), value);
        }
        self.run();
    }

    /// Nothing is lost any more; everything comes to its end.
    fn heal(&mut self) {
        self.storm = false;
        for value in 0..40 {
            self.read(200 + value % 50);
            for _ in 0..20 {
                self.pass(MINUTE);
            }
        }
    }
}

/// Lives a while, and checks what the cloud calls signed. Signed readings, and all that the cloud has.
fn live(seed: u64, batch: u8, calm: bool) -> (usize, usize) {
    let mut place = Place::new(seed, batch);
    place.storm = !calm;
    for n in 0..120u8 {
        place.read(24 + n);
        let pause = place.dice.below(5_000);
        place.pass(pause);
    }
    place.heal();
    let world = place.world.as_ref().unwrap();
    for code in [Code::EvidenceSignature, Code::CloudNonceReuse, Code::CloudForged] {
        assert_eq!(world.count(code), 0, "seed {seed}: {code}");
    }
    let rows = world.readings();
    let (mut signed, mut readings) = (0, 0);
    for row in &rows {
        let Some(value) = place.taken.get(&row.piv) else { continue };
        readings += 1;
        if row.origin == Origin::Signed {
            signed += 1;
            assert_eq!(row.payload[..4], [0x82, 0x01, 0x18, *value], "seed {seed}, number {}", row.piv);
        }
    }
    let stray = rows.iter().filter(|r| r.origin == Origin::Signed && !place.taken.contains_key(&r.piv)).count();
    assert_eq!(stray, 0, "seed {seed}: only readings are in batches");
    if calm || place.boots == 0 {
        // All but the open batch.
        assert!(readings - signed < usize::from(batch), "seed {seed}: {signed} of {readings} signed");
    }
    if calm {
        assert_eq!(place.signed.difference(&place.complete).count(), 0);
    }
    (signed, readings)
}

#[test]
fn on_a_calm_day_every_batch_is_verified_and_the_device_hears_so() {
    for batch in [1, 5, 32, 64] {
        let (signed, readings) = live(1, batch, true);
        assert!(readings >= 100 && signed >= readings / 2, "{signed} of {readings} in batches of {batch}");
    }
}

#[test]
fn loss_repeats_delay_reboots_and_restarts_never_sign_falsely_and_leave_what_they_can() {
    let (mut signed, mut readings) = (0, 0);
    for seed in 1..=24 {
        let (s, r) = live(seed, [1, 3, 8, 20][seed as usize % 4], false);
        (signed, readings) = (signed + s, readings + r);
    }
    println!("{signed} of {readings} readings signed");
    assert!(signed * 10 > readings * 7, "{signed} of {readings}");
}
