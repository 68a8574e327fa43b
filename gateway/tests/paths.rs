//! The way of a reading through a gateway, for each combination of levels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::oscore::PartialIv;
use fivefold_core::profile::Profile;
use fivefold_core::wire::coap::{CHANGED, GATEWAY_TIMEOUT};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::{KidLength, Tiny, Wants};
use fivefold_gateway::gateway::Cloud;

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

#[test]
fn a_reading_for_the_gateway_is_stored_and_then_answered_without_a_number() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    assert_eq!(heard.dropped, []);
    let stored = w.stored();
    assert_eq!(stored.len(), 1);
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!(envelope.kind, Kind::GatewayOpened);
    assert_eq!(envelope.bytes, [&[0x02, 0xFF], READING].concat());
    assert_eq!((envelope.opened.unwrap().piv, envelope.opened.unwrap().kid), (0, d.sid));
    let answer = d.hear(&heard.air[0]).unwrap();
    assert_eq!(d.open_c2(&request, &answer), C2Said { code: CHANGED, payload: vec![], c3: None, numbered: false });
}

#[test]
fn a_repeat_for_the_gateway_is_counted_and_answered_under_a_number() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let (first, second) = (d.on_air(&tiny), d.on_air(&tiny));
    w.frame(&first);
    let heard = w.frame(&second);
    assert_eq!(heard.dropped, [(Code::GatewayDuplicate, Some(d.sid))]);
    assert_eq!(w.stored().len(), 1);
    let answer = d.hear(&heard.air[0]).unwrap();
    assert_eq!(d.open_c2(&request, &answer), C2Said { code: CHANGED, payload: vec![], c3: None, numbered: true });
}

#[test]
fn a_reading_for_the_cloud_is_passed_on_unread_and_its_answer_comes_back() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    assert!(heard.dropped.is_empty() && heard.air.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!((envelope.kind, envelope.opened), (Kind::CloudTiny, None));
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    assert!(w.stored().is_empty());
    let tiny = d.hear(&heard.air[0]).unwrap();
    let Tiny::Answer { token, piv, ciphertext, .. } = Tiny::parse(&tiny, KidLength::None).unwrap() else { panic!() };
    assert_eq!(token, 0);
    assert_eq!(d.open_c3(&request, piv, ciphertext), (CHANGED, vec![]));
}

#[test]
fn a_repeat_for_the_cloud_gets_the_first_answer_again_and_is_not_passed_on() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Answer);
    let frames: Vec<_> = (0..4).map(|_| d.on_air(&tiny)).collect();
    w.frame(&frames[0]);
    assert_eq!(w.frame(&frames[1]).dropped, [(Code::CloudDuplicate, Some(d.sid))]);
    let stored = w.stored();
    assert_eq!(stored.len(), 1);
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let first = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let again = w.frame(&frames[2]);
    assert_eq!(d.hear(&first.air[0]).unwrap(), d.hear(&again.air[0]).unwrap());
    assert!(w.stored().is_empty());
}

#[test]
fn a_repeat_goes_on_once_more_when_the_first_was_delivered_and_no_answer_came() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Answer);
    let frames: Vec<_> = (0..3).map(|_| d.on_air(&tiny)).collect();
    w.frame(&frames[0]);
    w.deliver(1, &[]);
    assert!(w.stored().is_empty());
    assert_eq!(w.frame(&frames[1]).dropped, [(Code::CloudDuplicate, Some(d.sid))]);
    assert_eq!(w.stored().len(), 1);
    w.frame(&frames[2]);
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn under_both_levels_the_clouds_answer_comes_wrapped_in_c2() {
    let mut d = Device::new(1, Profile::ToBoth);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    assert!(w.frame(&frame).air.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!(envelope.kind, Kind::CloudTiny);
    assert_eq!(envelope.opened.unwrap().epoch, d.epoch());
    let answer = cloud_answer(&d, envelope.bytes, None, b"\xa0");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let tiny = d.hear(&heard.air[0]).unwrap();
    let said = d.open_c2(&request, &tiny);
    assert_eq!((said.code, said.payload, said.numbered), (CHANGED, vec![0xa0], false));
    assert!(w.wait(1000).air.iter().all(|f| d.hear(f).is_none_or(|t| t[0] == 0x13)));
}

#[test]
fn without_the_cloud_custody_is_confirmed_and_its_answer_follows_under_a_number() {
    let mut d = Device::new(1, Profile::ToBoth);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    w.frame(&frame);
    let heard = w.wait(400);
    let tinies: Vec<_> = heard.air.iter().filter_map(|f| d.hear(f)).collect();
    let said = d.open_c2(&request, &tinies[0]);
    assert_eq!((said.code, said.numbered), (GATEWAY_TIMEOUT, false));
    assert_eq!(said.payload, b"\xA1\x01\x66stored");
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let tiny = d.hear(&heard.air[0]).unwrap();
    let said = d.open_c2(&request, &tiny);
    assert_eq!((said.code, said.numbered), (CHANGED, true));
}

#[test]
fn with_the_cloud_known_away_custody_is_confirmed_at_once() {
    let mut d = Device::new(1, Profile::ToBoth);
    let mut w = World::of(&[&d]);
    w.gateway.handle_cloud(w.now, Cloud::Away);
    let (tiny, request) = d.tiny(READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    let tiny = d.hear(&heard.air[0]).unwrap();
    assert_eq!(d.open_c2(&request, &tiny).code, GATEWAY_TIMEOUT);
}

#[test]
fn a_device_with_e1_alone_is_passed_on_as_such_and_never_answered() {
    let mut d = Device::new(1, Profile::DangerLinkOnly);
    let mut w = World::of(&[&d]);
    let tiny = Tiny::Plain { piv: PartialIv::from_value(3), kid: None, payload: READING };
    let mut bytes = [0; 64];
    let len = tiny.emit(&mut bytes).unwrap();
    let frame = d.on_air(&bytes[..len]);
    let heard = w.frame(&frame);
    assert!(heard.dropped.is_empty() && heard.air.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!((envelope.kind, envelope.bytes, envelope.opened.unwrap().piv), (Kind::DangerPlain, READING, 3));
}

#[test]
fn one_who_said_hello_before_it_was_registered_is_asked_for_it_when_it_is() {
    let (a, mut b) = (Device::new(1, Profile::ToGateway), Device::new(2, Profile::ToGateway));
    let mut w = World::of(&[&a]);
    // By now the gateway says HELLO once a minute.
    while w.now.0 < START.0 + 300_000 {
        w.wait(1_000);
    }
    while w.wait(1_000).air.is_empty() {}
    let mut hello = [0; 127];
    let len = (0..3_000).find_map(|ms| b.link.poll_control(w.now.plus(ms), &mut hello).map(|c| c.len)).unwrap();
    assert_eq!(w.frame(&hello[..len]).dropped, [(Code::LinkNeighbourUnknown, None)]);
    w.push(&state(2, &[&a, &b], Standing::Active)).unwrap();
    // It need not say it again: it answers.
    let mut synced = false;
    for _ in 0..40 {
        for frame in w.wait(100).air {
            let _ = b.link.receive(w.now, &mut { frame });
        }
        while let Some(control) = b.link.poll_control(w.now, &mut hello) {
            if control.to.is_some() {
                w.frame(&hello[..control.len]);
            }
        }
        while let Some(due) = b.link.keys().lease_due() {
            b.link.keys_mut().extend_lease(due);
        }
        let (tiny, _) = b.tiny(READING, Wants::Answer);
        let frame = b.on_air(&tiny);
        synced |= w.frame(&frame).dropped.is_empty();
    }
    assert!(synced);
}
