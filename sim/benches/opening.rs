//! What a gateway's path in memory costs beside the primitive's own limit: open E1, then E2, of a 40-byte message, against
//! the two bare AEAD calls on expanded keys. Parsing, lookup and window are in; the durable write (W5) is not.
//!
//! `cargo bench -p fivefold-sim --bench opening`. What a device takes in memory: `gateway/tests/memory.rs`. W5:
//! `durable.rs`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Station};
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::Plaintext;
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::{AeadSchedule, Alg, LinkSchedule, MicLen};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::coap::POST;
use fivefold_core::wire::ieee802154::{Ack, Pan};
use fivefold_core::wire::state::{Context, Device, NetworkKey, Part, Phase, Share, Standing, State};
use fivefold_core::wire::tiny::{Layers, Tiny, Wants};
use fivefold_gateway::gateway::{Capture, Gateway, Limits, Lookup, Output, Restored, Setup, Stored};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const PAYLOAD: [u8; 40] = [0x42; 40];
const KEY: [u8; 16] = [7; 16];
const NET: Net = Net(7);
const GROUP: GatewayGroup = GatewayGroup(7);
const PAN: Pan = Pan(0x4321);
/// A network can name about 57,000 devices: short ids have 16 bits, and some are reserved. So two gateways, of a network
/// each, have 100,000.
const HALF: u32 = 50_000;
const FULL: u32 = 2 * HALF;
const ROUNDS: usize = 60_000;
/// Frames that a busy gateway takes from its queue at a time, as `daemon.rs` does.
const AT_A_TIME: usize = 64;

fn did(n: u32) -> Did {
    Did((0xACDE_4800_0000_0000 | u64::from(n)).to_be_bytes())
}

fn sid(n: u32) -> Sid {
    Sid(0x0100 + n as u16)
}

/// A node that only talks.
struct Talker {
    sid: Sid,
    link: Link<FixedNeighbours<1>>,
    lease: Lease,
    secret: fivefold_core::e2_gateway::E2Secret,
}

fn root(n: u32) -> E2Root {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    E2Root::new(bytes)
}

impl Talker {
    fn new(n: u32) -> Self {
        let mut keys = LinkKeys::new();
        keys.install(1, &Key::new(KEY), 1).unwrap();
        let identity = Identity { did: did(n), sid: sid(n), pan: PAN, station: Station::Node };
        let link = Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), [9; 32]);
        Self { sid: sid(n), link, lease: Lease::resume(0, 1 << 20), secret: root(n).secret(GROUP) }
    }

    /// E1 around tiny E2 around 40 bytes, under the next numbers.
    fn frame(&mut self) -> Vec<u8> {
        while let Some(write) = self.link.keys().lease_due() {
            self.link.keys_mut().extend_lease(write);
        }
        if self.lease.left() == 0 {
            let bound = self.lease.proposal(64).unwrap();
            self.lease.extend(bound);
        }
        let context = self.secret.context_for_device(self.sid, Epoch(1), None, Alg::AesCcm16_64_256).unwrap();
        let mut plaintext = [0; 64];
        let len = Plaintext { code: POST, options: &[], payload: &PAYLOAD }.emit(&mut plaintext).unwrap();
        let mut sealed = [0; 80];
        let (request, len) = context.seal_request(self.lease.take().unwrap(), &plaintext[..len], &mut sealed).unwrap();
        let ciphertext = &sealed[..len];
        let tiny = Tiny::Request {
            layers: Layers::C2,
            wants: Wants::Answer,
            piv: request.piv,
            bctx: None,
            kid: None,
            ciphertext,
        };
        let mut payload = [0; 100];
        let len = tiny.emit(&mut payload).unwrap();
        let mut frame = [0; 127];
        let len = self.link.seal(Sid::ANY_GATEWAY, Ack::None, None, &payload[..len], &mut frame).unwrap();
        frame[..len].to_vec()
    }
}

fn gateway() -> Gateway {
    let setup = Setup {
        net: NET,
        gateway: GatewayId(1),
        boot: GatewayBoot([1; 8]),
        identity: Identity { did: Did([0xEE; 8]), sid: Sid(1), pan: PAN, station: Station::Gateway },
        policy: LinkPolicy::default(),
        seed: [5; 32],
        keys: vec![(1, Key::new(KEY))],
        coap_devices: std::collections::HashMap::new(),
        limits: Limits::default(),
        capture: Capture::Off,
        local: None,
    };
    Gateway::new(Millis(1), setup, Restored::default())
}

/// Carries out what the engine wants, over a store that is empty and never fails.
fn settle(gateway: &mut Gateway, persisted: &mut u64) {
    loop {
        let mut idle = true;
        while let Some(output) = gateway.poll() {
            idle = false;
            match output {
                Output::Persist(_) => *persisted += 1,
                Output::Lookup(Lookup::Context(context)) => {
                    let stored = Stored::Context { context, numbers: Vec::new(), bound: 0, failures: 0 };
                    gateway.handle_stored(Millis(1), stored);
                }
                Output::Lookup(Lookup::Family(family)) => {
                    gateway.handle_stored(Millis(1), Stored::Family { family, boots: Vec::new() });
                }
                _ => {}
            }
        }
        gateway.handle_durable(Millis(1), *persisted);
        if idle {
            return;
        }
    }
}

/// A gateway that was told of `count` devices, all of them heard before.
fn village(count: u32) -> Gateway {
    const PER_PART: u32 = 2_000;
    let (mut gateway, mut persisted) = (gateway(), 0);
    settle(&mut gateway, &mut persisted);
    let parts = count.div_ceil(PER_PART);
    for part in 0..parts {
        let numbers = part * PER_PART..count.min((part + 1) * PER_PART);
        let policy = Policy::new(Profile::ToGateway);
        let devices: Vec<Device> =
            numbers.clone().map(|n| Device { sid: sid(n), did: did(n), policy, overrides: Overrides::NONE }).collect();
        let secrets: Vec<_> = numbers.clone().map(|n| root(n).secret(GROUP)).collect();
        let contexts: Vec<Context<'_>> = numbers
            .zip(&secrets)
            .map(|(n, s)| Context {
                sid: sid(n),
                epoch: Epoch(1),
                alg: Alg::AesCcm16_64_256,
                standing: Standing::Active,
                bctx: None,
                share: Share::Primary { master_secret: s.danger_master_secret(), master_salt: s.master_salt() },
            })
            .collect();
        let keys = [NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }];
        let state = State {
            version: 1,
            net: NET,
            group: GROUP,
            part: Part { index: part as u16, count: parts as u16 },
            devices: List::of(&devices),
            contexts: List::of(&contexts),
            keys: List::of(if part == 0 { &keys[..] } else { &[] }),
            revoked: List::default(),
            revoked_serials: List::default(),
            local: List::default(),
            classic: List::default(),
        };
        let mut bytes = vec![0; 512 * 1024];
        let len = state.emit(&mut bytes).unwrap();
        gateway.handle_state(Millis(1), &bytes[..len]).unwrap();
        settle(&mut gateway, &mut persisted);
    }
    assert_eq!(gateway.devices(), count as usize);
    for n in 0..count {
        gateway.danger_assume_synced(did(n), sid(n), 1, 0).unwrap();
    }
    gateway
}

/// Nanoseconds for each of `frames`, the best of five passes of `pass`.
fn best(count: usize, mut pass: impl FnMut() -> Duration) -> f64 {
    (0..5).map(|_| pass().as_nanos() as f64 / count as f64).fold(f64::INFINITY, f64::min)
}

fn bare() -> f64 {
    let e1 = LinkSchedule::new(&KEY);
    let e2 = AeadSchedule::new(Alg::AesCcm16_64_256, &[3; 32]);
    // Under E1: RuleID, a number of 2 bytes, 42 bytes of plaintext and 8 of tag. Under E2: code, marker, 40 bytes.
    let (nonce, aad1, aad2) = ([1u8; 13], [0u8; 15], [0u8; 23]);
    let (mut body1, mut body2) = ([5u8; 53], [5u8; 42]);
    let mic = e1.seal(MicLen::M8, &nonce, &aad1, &mut body1);
    let tag = e2.seal(&nonce, &aad2, &mut body2);
    let copies: Vec<_> = (0..ROUNDS).map(|_| (body1, body2)).collect();
    best(ROUNDS, || {
        let mut copies = copies.clone();
        let started = Instant::now();
        for (one, two) in &mut copies {
            e1.open(black_box(&nonce), &aad1, one, &mic).unwrap();
            e2.open(black_box(&nonce), &aad2, two, &tag).unwrap();
            black_box((&one, &two));
        }
        started.elapsed()
    })
}

/// The two calls with a key of its own for each message, in random order: what the memory alone costs. Then the same with
/// the keys of a group looked at before its first message is opened, as the gateway does with its devices.
fn bare_cold(count: u32, order: &[usize]) -> (f64, f64) {
    let e1 = LinkSchedule::new(&KEY);
    let keys: Vec<AeadSchedule> = (0..count)
        .map(|n| {
            let mut key = [3; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            AeadSchedule::new(Alg::AesCcm16_64_256, &key)
        })
        .collect();
    let (nonce, aad1, aad2) = ([1u8; 13], [0u8; 15], [0u8; 23]);
    let mut body1 = [5u8; 53];
    let mic = e1.seal(MicLen::M8, &nonce, &aad1, &mut body1);
    let sealed: Vec<([u8; 42], [u8; 8])> = order
        .iter()
        .map(|&n| {
            let mut body = [5u8; 42];
            let tag = keys[n].seal(&nonce, &aad2, &mut body);
            (body, tag)
        })
        .collect();
    let pass = |foresee: bool| {
        let mut copies: Vec<Vec<u8>> = sealed.iter().map(|_| body1.to_vec()).collect();
        let mut sealed = sealed.clone();
        let started = Instant::now();
        let groups = copies.chunks_mut(AT_A_TIME).zip(sealed.chunks_mut(AT_A_TIME));
        for (numbers, (copies, sealed)) in order.chunks(AT_A_TIME).zip(groups) {
            if foresee {
                // There is no way into a schedule but a copy of it, which reads all of its lines.
                numbers.iter().for_each(|&n| drop(black_box(keys[n].clone())));
            }
            for ((&n, one), (two, tag)) in numbers.iter().zip(copies).zip(sealed) {
                e1.open(black_box(&nonce), &aad1, one, &mic).unwrap();
                keys[n].open(black_box(&nonce), &aad2, two, tag).unwrap();
                black_box((&one, &two));
            }
        }
        started.elapsed()
    };
    (best(order.len(), || pass(false)), best(order.len(), || pass(true)))
}

/// Opens frames, each at the gateway it names. Passes differ in the counters only.
fn engine(gateways: &mut [Gateway], passes: &[Vec<(usize, Vec<u8>)>]) -> f64 {
    let mut passes = passes.iter();
    let count = passes.clone().next().unwrap().len();
    best(count, || {
        let mut frames = passes.next().unwrap().clone();
        let started = Instant::now();
        for group in frames.chunks_mut(AT_A_TIME) {
            for (at, frame) in &*group {
                gateways[*at].foresee(frame);
            }
            for (at, frame) in group {
                let mut out = [0; 128];
                let opened = gateways[*at].open_frame(Millis(2), frame, &mut out).unwrap();
                assert!(opened.fresh);
                black_box(&out);
            }
        }
        started.elapsed()
    })
}

fn main() {
    let bare = bare();
    println!("two bare AEAD calls, keys expanded         {bare:>8.0} ns");

    let mut one = [village(1)];
    let mut talker = Talker::new(0);
    let passes: Vec<Vec<(usize, Vec<u8>)>> =
        (0..5).map(|_| (0..4_000).map(|_| (0, talker.frame())).collect()).collect();
    let hot = engine(&mut one, &passes);
    println!("gateway, one device                        {hot:>8.0} ns   {:.2} times bare", hot / bare);

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut shuffled = || {
        let mut order: Vec<usize> = (0..FULL as usize).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.next_u32() as usize % (i + 1));
        }
        order
    };
    let (bare_cold, bare_ahead) = bare_cold(FULL, &shuffled());
    println!("two bare AEAD calls, {FULL} keys in turn    {bare_cold:>8.0} ns");
    println!("the same, keys looked at {AT_A_TIME} ahead           {bare_ahead:>8.0} ns");
    let mut full = [village(HALF), village(HALF)];
    let mut talkers: Vec<Talker> = (0..2).flat_map(|_| (0..HALF).map(Talker::new)).collect();
    let passes: Vec<Vec<(usize, Vec<u8>)>> =
        (0..5).map(|_| shuffled().into_iter().map(|n| (n / HALF as usize, talkers[n].frame())).collect()).collect();
    let cold = engine(&mut full, &passes);
    println!(
        "gateways, {FULL} devices in random order   {cold:>8.0} ns   {:.2} times bare, {:.2} times bare with keys ahead",
        cold / bare_cold,
        cold / bare_ahead
    );
}
