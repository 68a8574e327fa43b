//! The modern suite over LoRaWAN: FPort is the RuleID, both ways, and the link counts as far as the operator says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use fivefold_core::profile::{LinkClass, Profile, Radio};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::CHANGED;
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, Kind, Originator, emit_downlinks};
use fivefold_core::wire::tiny::{EdhocRule, KidLength, Tiny, Wants};
use fivefold_gateway::gateway::{Activation, Lorawan};

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

/// A device whose record says LoRaWAN.
fn device(profile: Profile) -> Device {
    let mut d = Device::new(1, profile);
    d.policy.radio = Radio::Lorawan;
    d
}

/// Hands a tiny frame to the gateway as a network server would, and carries out what comes of it.
fn send_as(w: &mut World, dev_eui: Did, tiny: &[u8], activation: Activation) -> (Result<(), Rejected>, Heard) {
    let (f_port, payload) = (tiny[0], &tiny[1..]);
    let received = Some(Millis(w.now.0 - 5_000));
    let heard = Lorawan { dev_eui, f_port, payload, activation, rssi: Some(-87), received };
    let done = w.gateway.handle_lorawan(w.now, heard);
    (done, w.run())
}

fn send(w: &mut World, d: &Device, tiny: &[u8]) -> Heard {
    let (done, heard) = send_as(w, d.did, tiny, Activation::OverTheAir);
    assert_eq!(done, Ok(()), "{heard:?}");
    heard
}

/// The tiny frame of the one downlink, put together from FPort and FRMPayload.
fn down(heard: &Heard, to: &Device) -> Vec<u8> {
    assert!(heard.air.is_empty());
    let [(dev_eui, f_port, payload)] = &heard.lorawan[..] else { panic!("{heard:?}") };
    assert_eq!(*dev_eui, to.did);
    [&[*f_port], &payload[..]].concat()
}

#[test]
fn a_reading_for_the_cloud_is_passed_on_as_lorawan_and_its_answer_goes_to_the_network_server() {
    let mut d = device(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let heard = send(&mut w, &d, &tiny);
    assert!(heard.dropped.is_empty() && heard.lorawan.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!((envelope.kind, envelope.link, envelope.rssi), (Kind::CloudTiny, LinkClass::Lorawan, Some(-87)));
    assert_eq!(envelope.received, Millis(w.now.0 - 5_000), "when the network server received it");
    assert_eq!((envelope.hops, envelope.key_index, envelope.lqi), (None, None, None));
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let tiny = down(&heard, &d);
    assert_eq!(tiny[0], 0x01, "FPort 1 is the RuleID of an answer under C3");
    let Tiny::Answer { piv, ciphertext, .. } = Tiny::parse(&tiny, KidLength::None).unwrap() else { panic!() };
    assert_eq!(d.open_c3(&request, piv, ciphertext), (CHANGED, vec![]));
}

#[test]
fn a_reading_for_the_gateway_is_stored_before_it_is_answered() {
    for profile in [Profile::ToGateway, Profile::ToBoth] {
        let mut d = device(profile);
        let mut w = World::of(&[&d]);
        let (tiny, request) = d.tiny(READING, Wants::Answer);
        let mut heard = send(&mut w, &d, &tiny);
        assert_eq!(w.stored().len(), 1);
        if profile == Profile::ToBoth {
            assert!(heard.lorawan.is_empty(), "the cloud may answer first");
            heard = w.wait(500);
        }
        let said = d.open_c2(&request, &down(&heard, &d));
        assert!(said.c3.is_none() && !said.numbered);
    }
}

#[test]
fn what_comes_again_is_stored_once() {
    let mut d = device(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    send(&mut w, &d, &tiny);
    let (done, heard) = send_as(&mut w, d.did, &tiny, Activation::OverTheAir);
    assert_eq!(done.unwrap_err().code, Code::CloudDuplicate);
    assert_eq!(heard.dropped, [(Code::CloudDuplicate, Some(d.sid))]);
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn a_device_under_abp_is_no_e1_and_needs_the_override() {
    for (profile, code) in
        [(Profile::ToCloud, Code::CloudLevelMissing), (Profile::ToGateway, Code::GatewayLevelMissing)]
    {
        let mut d = device(profile);
        let mut w = World::of(&[&d]);
        let (tiny, _) = d.tiny(READING, Wants::Nothing);
        let (done, _) = send_as(&mut w, d.did, &tiny, Activation::Personalisation);
        assert_eq!(done.unwrap_err().code, code);
        assert!(w.stored().is_empty());
        d.overrides.danger_no_link = true;
        let mut w = World::of(&[&d]);
        let (done, _) = send_as(&mut w, d.did, &tiny, Activation::Personalisation);
        assert_eq!(done, Ok(()));
        assert_eq!(Envelope::parse(&w.stored()[0]).unwrap().link, LinkClass::None);
    }
}

#[test]
fn a_device_of_another_radio_an_unknown_deveui_and_ports_that_are_no_rule_are_refused() {
    let mut other = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&other]);
    let (tiny, _) = other.tiny(READING, Wants::Nothing);
    let refused = |w: &mut World, did: Did, tiny: &[u8]| {
        let (done, heard) = send_as(w, did, tiny, Activation::OverTheAir);
        assert_eq!(heard.dropped.len(), 1, "each is counted");
        done.unwrap_err().code
    };
    assert_eq!(refused(&mut w, other.did, &tiny), Code::CloudLevelMissing, "802.15.4 in its record");
    assert_eq!(refused(&mut w, did(9), &tiny), Code::CloudUnknownKid);
    let mut d = device(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    for port in [0x00, 0x13, 0x14, 0x1F, 0x38, 0xE0, 0xFF] {
        assert_eq!(refused(&mut w, d.did, &[&[port], &tiny[1..]].concat()), Code::TinyMalformed, "port {port}");
    }
    assert!(w.stored().is_empty());
    // A frame without payload is the radio's own business.
    assert!(send(&mut w, &d, &tiny[..1]).dropped.is_empty());
}

#[test]
fn a_kid_of_another_device_is_refused_before_anything_is_opened() {
    let (mut d, mut victim) = (device(Profile::ToCloud), Device::new(2, Profile::ToCloud));
    for device in [&mut d, &mut victim] {
        device.policy.radio = Radio::Lorawan;
        device.policy.kid_length = KidLength::Two;
    }
    let mut w = World::of(&[&d, &victim]);
    let (tiny, _) = victim.tiny(READING, Wants::Nothing);
    let (done, _) = send_as(&mut w, d.did, &tiny, Activation::OverTheAir);
    assert_eq!(done.unwrap_err().code, Code::TinyMalformed);
    assert!(w.stored().is_empty());
    assert!(send(&mut w, &victim, &tiny).dropped.is_empty());
}

#[test]
fn a_run_of_edhoc_goes_up_and_its_answer_down() {
    let d = device(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let tiny = Tiny::Edhoc { rule: EdhocRule::ToServer, payload: &[0xF5, 1, 2, 3] };
    let mut frame = [0; 16];
    let len = tiny.emit(&mut frame).unwrap();
    let heard = send(&mut w, &d, &frame[..len]);
    let (ticket, envelope) = &heard.exchanges[0];
    assert_eq!(Envelope::parse(envelope).unwrap().link, LinkClass::Lorawan);
    let downlink = Downlink {
        kind: DownlinkKind::Edhoc,
        originator: Some(Originator::Node { net: NET, sid: d.sid }),
        bytes: &[0x43, 7, 8, 9],
        seq: Some(*ticket),
        expires: None,
    };
    let mut reply = [0; 64];
    let len = emit_downlinks(&[downlink], &mut reply).unwrap();
    w.gateway.handle_exchanged(*ticket, Some(&reply[..len]));
    let heard = w.run();
    assert_eq!(down(&heard, &d), [0x11, 0x43, 7, 8, 9], "FPort 17");
}

#[test]
fn a_spool_without_room_asks_for_patience() {
    let mut d = device(Profile::ToCloud);
    let mut w = World::with(|boot| {
        let mut setup = setup(boot);
        setup.limits.spool_bytes = 16;
        setup
    });
    w.push(&state(1, &[&d], fivefold_core::wire::state::Standing::Active)).unwrap();
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    let (done, _) = send_as(&mut w, d.did, &tiny, Activation::OverTheAir);
    assert_eq!(done.unwrap_err().code, Code::StoreFull, "not acknowledged: the broker keeps it");
}
