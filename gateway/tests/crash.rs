//! The gateway dies between any two outputs: what it acknowledged is there, nothing is counted as new twice, and no nonce
//! is used for two messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex};

use common::*;
use fivefold_core::id::BootContext;
use fivefold_core::oscore::RequestId;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::suite::set_seal_witness;
use fivefold_core::wire::coap::{CHANGED, Outer, Protected};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::tiny::{KidLength, Tiny, Wants};
use fivefold_gateway::gateway::Cloud;

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

/// SHA-256(key ‖ nonce) of every seal of a scenario, with SHA-256(plaintext).
static SEALED: LazyLock<Mutex<HashMap<[u8; 32], [u8; 32]>>> = LazyLock::new(Mutex::default);
static REPEATED: LazyLock<Mutex<u32>> = LazyLock::new(Mutex::default);

fn watch(nonce: &[u8; 32], plaintext: &[u8; 32]) {
    if SEALED.lock().unwrap().insert(*nonce, *plaintext).is_some() {
        *REPEATED.lock().unwrap() += 1;
    }
}

/// A cloud that keeps what it was brought, once each, and answers: the first time without a number, then under its own.
#[derive(Default)]
struct Ledger {
    readings: BTreeMap<u64, usize>,
    numbers: u32,
}

impl Ledger {
    /// Takes everything in the spool, and says that it has it.
    fn drain(&mut self, world: &mut World, device: &Device) -> Heard {
        let mut answers = Vec::new();
        let mut upto = 0;
        for bytes in world.stored() {
            let envelope = Envelope::parse(&bytes).unwrap();
            upto = envelope.seq;
            match envelope.kind {
                Kind::GatewayOpened => *self.readings.entry(envelope.opened.unwrap().piv).or_default() += 1,
                Kind::CloudTiny => {
                    let message = Protected::parse_request(envelope.bytes, Outer::Strict).unwrap();
                    let piv = message.option.piv.unwrap().value();
                    let times = self.readings.entry(piv).or_default();
                    *times += 1;
                    let number = (*times > 1).then(|| {
                        self.numbers += 1;
                        self.numbers - 1
                    });
                    answers.push((envelope.seq, device.sid, cloud_answer(device, envelope.bytes, number, b"")));
                }
                other => panic!("{other:?}"),
            }
        }
        world.deliver(upto, &answers)
    }
}

/// Answers in what was heard that confirm a request: the gateway's 2.04 where it may say so, else the cloud's.
fn confirmed(device: &mut Device, heard: &Heard, requests: &[(Vec<u8>, RequestId)]) -> Vec<usize> {
    let mut done = Vec::new();
    for frame in &heard.air {
        let Some(tiny) = device.hear(frame) else { continue };
        let Ok(Tiny::Answer { token, piv, ciphertext, .. }) = Tiny::parse(&tiny, KidLength::None) else { continue };
        let Some(at) = requests.iter().position(|(_, r)| r.piv.value() as u8 == token) else { continue };
        let to = &requests[at].1;
        let code = match device.policy.profile {
            Profile::ToCloud => device.open_c3(to, piv, ciphertext).0,
            _ => device.open_c2(to, &tiny).code,
        };
        if code == CHANGED {
            done.push(at);
        }
    }
    done
}

/// Three messages, each sent until it is confirmed, through a gateway that dies after `fuse` outputs and a second time
/// after as many again. Returns how many outputs a run without death would have carried out.
fn scenario(profile: Profile, mode: Mode, cloud: Cloud, fuse: usize) -> bool {
    SEALED.lock().unwrap().clear();
    let mut d = Device::new(1, profile);
    d.policy.mode = mode;
    if mode == Mode::Random {
        d.bctx = Some(BootContext([7; 8]));
    }
    let mut w = World::of(&[&d]);
    w.gateway.handle_cloud(w.now, cloud);
    // The set-up is no part of it.
    w.fuse = Some(fuse);
    let requests: Vec<_> = (0..3).map(|_| d.tiny(READING, Wants::Answer)).collect();
    let mut open: Vec<usize> = vec![0, 1, 2];
    let mut ledger = Ledger::default();
    let mut deaths = 0;
    for round in 0..20 {
        for at in open.clone() {
            let frame = d.on_air(&requests[at].0);
            let heard = w.frame(&frame);
            let done = confirmed(&mut d, &heard, &requests);
            open.retain(|o| !done.contains(o));
            if w.dead() {
                break;
            }
        }
        if !w.dead() {
            let heard = w.wait(500);
            let done = confirmed(&mut d, &heard, &requests);
            open.retain(|o| !done.contains(o));
        }
        if !w.dead() && (cloud == Cloud::Reachable || round > 3) {
            let heard = ledger.drain(&mut w, &d);
            let done = confirmed(&mut d, &heard, &requests);
            open.retain(|o| !done.contains(o));
        }
        if w.dead() {
            deaths += 1;
            w = w.restart();
            w.gateway.handle_cloud(w.now, cloud);
            w.wait(0);
            w.greet(&[]);
            // The device is heard again: HELLO is no part of this.
            let last = d.link.keys().sending().unwrap();
            w.gateway.danger_assume_synced(d.did, d.sid, last, 0).unwrap();
            w.fuse = (deaths < 2).then_some(fuse);
        }
        if open.is_empty() {
            break;
        }
    }
    assert!(open.is_empty(), "{profile} {mode} {fuse}: {open:?} were never confirmed");
    w.fuse = None;
    ledger.drain(&mut w, &d);
    let numbers: Vec<u64> = ledger.readings.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2], "{profile} {mode} {fuse}: what was acknowledged is missing");
    assert_eq!(*REPEATED.lock().unwrap(), 0, "{profile} {mode} {fuse}: a nonce was used twice");
    deaths > 0
}

#[test]
fn a_death_between_any_two_outputs_loses_work_and_never_safety() {
    set_seal_witness(watch);
    for (profile, mode) in [
        (Profile::ToGateway, Mode::Persistent),
        (Profile::ToGateway, Mode::Random),
        (Profile::ToBoth, Mode::Persistent),
        (Profile::ToBoth, Mode::Random),
        (Profile::ToCloud, Mode::Persistent),
    ] {
        for cloud in [Cloud::Reachable, Cloud::Away] {
            let died = (1..200).take_while(|fuse| scenario(profile, mode, cloud, *fuse)).count();
            assert!(died > 5, "{profile} {mode}: only {died} places to die at");
        }
    }
}
