//! What a gateway's crypto path costs beside the primitive's own limit: open E1, then E2, of a 40-byte message, against the
//! two bare AEAD calls on the same key schedules. `cargo bench -p fivefold-sim --bench opening`
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Received, Station};
use fivefold_core::e2_gateway::E2Secret;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::Plaintext;
use fivefold_core::suite::{AeadSchedule, Alg, LinkSchedule, MicLen};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::POST;
use fivefold_core::wire::ieee802154::{Ack, Pan};
use fivefold_core::wire::tiny::{KidLength, Layers, Tiny, Wants};

const PAYLOAD: [u8; 40] = [0x42; 40];
const NODE: (Did, Sid) = (Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]), Sid(0x0a17));
const GATEWAY: (Did, Sid) = (Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 2]), Sid(0x0001));
const FRAMES: u32 = 4096;

fn link(who: (Did, Sid), station: Station) -> Link<FixedNeighbours<4>> {
    let mut keys = LinkKeys::new();
    keys.install(1, &Key::new([7; 16]), 0).unwrap();
    while let Some(write) = keys.lease_due() {
        keys.extend_lease(write);
        if write.bound > FRAMES {
            break;
        }
    }
    let identity = Identity { did: who.0, sid: who.1, pan: Pan(0x4321), station };
    Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), [9; 32])
}

/// Frames of a node, one for each number: E1 around tiny E2 around 40 bytes.
fn frames() -> Vec<Vec<u8>> {
    let secret = E2Secret::new([3; 32], [4; 8]);
    let context = secret.context_for_device(NODE.1, Epoch(1), None, Alg::AesCcm16_64_256).unwrap();
    let mut node = link(NODE, Station::Node);
    let mut lease = Lease::resume(0, 1 << 20);
    lease.extend(FRAMES);
    (0..FRAMES)
        .map(|_| {
            while let Some(write) = node.keys().lease_due() {
                node.keys_mut().extend_lease(write);
            }
            let mut plaintext = [0; 64];
            let len = Plaintext { code: POST, options: &[], payload: &PAYLOAD }.emit(&mut plaintext).unwrap();
            let mut sealed = [0; 80];
            let (request, len) = context.seal_request(lease.take().unwrap(), &plaintext[..len], &mut sealed).unwrap();
            let tiny = Tiny::Request {
                layers: Layers::C2,
                wants: Wants::Answer,
                piv: request.piv,
                bctx: None,
                kid: None,
                ciphertext: &sealed[..len],
            };
            let mut payload = [0; 100];
            let len = tiny.emit(&mut payload).unwrap();
            let mut frame = [0; 127];
            let len = node.seal(Sid::ANY_GATEWAY, Ack::None, None, &payload[..len], &mut frame).unwrap();
            frame[..len].to_vec()
        })
        .collect()
}

fn bench(c: &mut Criterion) {
    let frames = frames();
    let mut group = c.benchmark_group("open E1 then E2, 40 bytes");

    let e1 = LinkSchedule::new(&[7; 16]);
    let e2 = AeadSchedule::new(Alg::AesCcm16_64_256, &[3; 32]);
    // 52 bytes under E1: RuleID, number, 42 bytes of plaintext and 8 of tag. 42 under E2.
    let (nonce, aad1, aad2) = ([1u8; 13], [0u8; 15], [0u8; 23]);
    let (mut body1, mut body2) = ([5u8; 53], [5u8; 42]);
    let mic = e1.seal(MicLen::M8, &nonce, &aad1, &mut body1);
    let tag = e2.seal(&nonce, &aad2, &mut body2);
    group.bench_function("two bare AEAD calls", |b| {
        b.iter_batched(
            || (body1, body2),
            |(mut one, mut two)| {
                e1.open(black_box(&nonce), &aad1, &mut one, &mic).unwrap();
                e2.open(black_box(&nonce), &aad2, &mut two, &tag).unwrap();
                (one, two)
            },
            BatchSize::SmallInput,
        );
    });

    let secret = E2Secret::new([3; 32], [4; 8]);
    let context = secret.context_for_peer(NODE.1, Epoch(1), None, Alg::AesCcm16_64_256).unwrap();
    let opening = context.opening();
    for (name, kept) in [("core, E2 key expanded each time", None), ("core, E2 key kept expanded", Some(&opening))] {
        group.bench_function(name, |b| {
            // All frames in order, as one round: each number is new to the receiver.
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                let mut left = rounds;
                while left > 0 {
                    let mut gateway = link(GATEWAY, Station::Gateway);
                    gateway.danger_assume_synced(NODE.0, NODE.1, 1, 0).unwrap();
                    let take = left.min(u64::from(FRAMES - 1)) as usize;
                    let mut copies: Vec<Vec<u8>> = frames[1..=take].to_vec();
                    let started = Instant::now();
                    for frame in &mut copies {
                        let Received::Deliver(got) = gateway.receive(Millis(0), frame).unwrap() else { panic!() };
                        let Tiny::Request { piv, ciphertext, .. } = Tiny::parse(got.payload, KidLength::None).unwrap()
                        else {
                            panic!()
                        };
                        let mut out = [0; 64];
                        let opened = match kept {
                            None => context.open_request(piv, ciphertext, &mut out),
                            Some(kept) => context.open_request_with(kept, piv, ciphertext, &mut out),
                        };
                        black_box(opened.unwrap().plaintext());
                    }
                    spent += started.elapsed();
                    left -= take as u64;
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
