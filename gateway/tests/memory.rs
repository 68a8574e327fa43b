//! What a gateway keeps in memory: at most 512 bytes a device, for 100,000 devices (docs/benchmarks.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::alloc::System;

use common::*;
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{
    Context as Pushed, Device as Listed, NetworkKey, Part, Phase, Share, Standing, State,
};
use fivefold_gateway::gateway::{Gateway, Lookup, Output, Restored, Stored};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// A network has less than 65,536 short ids, so 100,000 devices are two networks with a gateway each.
const DEVICES: u32 = 50_000;
const IN_PART: u32 = 2_000;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated and not freed.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn did_of(n: u32) -> Did {
    Did([0xAC, 0xDE, 0x48, 0, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8, n as u8])
}

fn part(index: u32) -> Vec<u8> {
    let policy = Policy::new(Profile::ToBoth);
    let numbers = index * IN_PART..(index + 1) * IN_PART;
    let listed: Vec<Listed> = numbers
        .clone()
        .map(|n| Listed { sid: Sid(n as u16 + 1), did: did_of(n), policy, overrides: Overrides::NONE })
        .collect();
    let secrets: Vec<_> = numbers.map(|n| E2Root::new([n as u8; 32]).secret(GROUP)).collect();
    let contexts: Vec<Pushed<'_>> = listed
        .iter()
        .zip(&secrets)
        .map(|(d, s)| Pushed {
            sid: d.sid,
            epoch: Epoch(1),
            alg: policy.alg,
            standing: Standing::Active,
            bctx: None,
            share: Share::Primary { master_secret: s.danger_master_secret(), master_salt: s.master_salt() },
        })
        .collect();
    let key = [NetworkKey { index: 1, key: &KEY, phase: Phase::Switch }];
    emitted(&State {
        part: Part { index: index as u16, count: (DEVICES / IN_PART) as u16 },
        devices: List::of(&listed),
        contexts: List::of(&contexts),
        keys: if index == 0 { List::of(&key) } else { List::default() },
        ..bare_state(1)
    })
}

fn carry_out(gateway: &mut Gateway) {
    while let Some(output) = gateway.poll() {
        if let Output::Lookup(Lookup::Context(context)) = output {
            gateway.handle_stored(START, Stored::Context { context, numbers: vec![], bound: 0, failures: 0 });
        }
    }
}

#[test]
fn a_hundred_thousand_devices_take_at_most_512_bytes_each() {
    let before = allocated();
    let gateways: Vec<Gateway> = (0..2)
        .map(|_| {
            let mut gateway = Gateway::new(START, setup(GatewayBoot([1; 8])), Restored::default());
            for index in 0..DEVICES / IN_PART {
                gateway.handle_state(START, &part(index)).unwrap();
            }
            carry_out(&mut gateway);
            for n in 0..DEVICES {
                // Every one of them is a neighbour, though few are in any real network.
                gateway.danger_assume_synced(did_of(n), Sid(n as u16 + 1), 1, 0).unwrap();
            }
            gateway.handle_durable(START, u64::MAX);
            carry_out(&mut gateway);
            assert_eq!(gateway.devices(), DEVICES as usize);
            gateway
        })
        .collect();
    let each = (allocated() - before) / (2 * DEVICES as usize);
    println!("{each} bytes a device");
    drop(gateways);
    assert!(each <= 512, "{each} bytes a device");
}
