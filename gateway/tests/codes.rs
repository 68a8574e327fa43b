//! Every code that a gateway counts, provoked from outside, counted by device, explained, and told to the cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::net::SocketAddr;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::{OscoreOption, PartialIv};
use fivefold_core::profile::{Mode, Profile, Radio};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::wire::coap::{self, POST, Protected, Token, Type};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_core::wire::event::Event;
use fivefold_core::wire::ieee802154::{Ack, append_fcs};
use fivefold_core::wire::mesh;
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::{Layers, Tiny, Wants};
use fivefold_gateway::gateway::{Cloud, Limits, Setup};

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

fn refused(world: &mut World, frame: &[u8], code: Code) {
    let before = world.gateway.tally().total(code);
    let stored = world.stored().len();
    let heard = world.frame(frame);
    assert_eq!(heard.dropped.iter().map(|d| d.0).collect::<Vec<_>>(), [code]);
    assert_eq!(world.gateway.tally().total(code), before + 1);
    assert_eq!(world.stored().len(), stored, "{code} stored something");
    world.explained(code, Some(frame));
}

fn tiny_of(device: &mut Device) -> Vec<u8> {
    let (tiny, _) = device.tiny(READING, Wants::Answer);
    device.on_air(&tiny)
}

fn reseal(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    frame.truncate(frame.len() - 2);
    change(&mut frame);
    let len = frame.len();
    frame.extend([0; 2]);
    append_fcs(&mut frame, len).unwrap();
    frame
}

#[test]
fn each_link_code_is_counted_and_nothing_passes() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut stranger = Device::new(2, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let good = tiny_of(&mut d);
    // E1-01 to E1-05, E1-11: one bit or byte of a good frame each.
    let frame = reseal(good.clone(), |f| f[0] &= !0x08);
    refused(&mut w, &frame, Code::LinkUnsecured);
    let frame = reseal(good.clone(), |f| f[3] ^= 1);
    refused(&mut w, &frame, Code::LinkNotOurs);
    let frame = reseal(good.clone(), |f| f[9] = 0x0D);
    refused(&mut w, &frame, Code::LinkLevelTooLow);
    let frame = reseal(good.clone(), |f| f[14] = 9);
    refused(&mut w, &frame, Code::LinkKeyUnknown);
    let frame = reseal(good.clone(), |f| *f.last_mut().unwrap() ^= 1);
    refused(&mut w, &frame, Code::LinkForged);
    refused(&mut w, &good[..good.len() - 1], Code::LinkMalformed);
    // The frame itself, and then once more.
    assert_eq!(w.frame(&good).dropped, []);
    refused(&mut w, &good, Code::LinkReplayed);
    // A stranger, and one who jumps.
    let frame = tiny_of(&mut stranger);
    refused(&mut w, &frame, Code::LinkNeighbourUnknown);
    d.link.keys_mut().forget(1);
    d.link.keys_mut().install(1, &Key::new(KEY), 100_000).unwrap();
    while let Some(due) = d.link.keys().lease_due() {
        d.link.keys_mut().extend_lease(due);
    }
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::LinkCounterJump);
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::LinkNeighbourUnknown);
}

#[test]
fn a_datagram_of_our_own_that_comes_back_is_a_loop() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let header = mesh::Header { hops: 3, originator: GATEWAY_SID, destination: Sid::ANY_GATEWAY };
    let mut frame = [0; 127];
    let len = d.link.seal(Sid::ANY_GATEWAY, Ack::None, Some(header), &[0x22, 1], &mut frame).unwrap();
    refused(&mut w, &frame[..len], Code::LinkHopLimit);
}

#[test]
fn each_tiny_code_is_counted() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let frame = d.on_air(&[0x38, 1, 2, 3]);
    refused(&mut w, &frame, Code::TinyMalformed);
    let frame = d.on_air(&[0x22, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    refused(&mut w, &frame, Code::PivNotMinimal);
    let frame = d.on_air(&[0x11, 1, 2, 3]);
    refused(&mut w, &frame, Code::TinyMalformed);
    // Two fragments that contradict each other.
    let piece = d.on_air(&[0x17, 5, 0, 1, 2, 3]);
    assert_eq!(w.frame(&piece).dropped, []);
    let frame = d.on_air(&[0x17, 5, 0, 9, 2, 3]);
    refused(&mut w, &frame, Code::FragmentLost);
    // One that nobody completes.
    let piece = d.on_air(&[0x17, 6, 0, 1, 2, 3]);
    w.frame(&piece);
    assert!(w.wait(60_000).dropped.contains(&(Code::FragmentLost, Some(d.sid))));
    assert_eq!(w.explained(Code::FragmentLost, None).reason, "fragment timeout");
}

#[test]
fn fragments_make_the_whole_message() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let long: Vec<u8> = [&[0x84, 0x01, 0x58, 0xA0][..], &[7; 160], &[1, 1]].concat();
    let (tiny, _) = d.tiny(&long, Wants::Nothing);
    for piece in fivefold_core::wire::tiny::Fragments::new(&tiny, 9, 60).unwrap() {
        let mut bytes = [0; 80];
        let len = piece.emit(&mut bytes).unwrap();
        let frame = d.on_air(&bytes[..len]);
        assert_eq!(w.frame(&frame).dropped, []);
    }
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn unknown_senders_are_counted_at_the_level_they_claim() {
    let mut known = Device::new(1, Profile::ToCloud);
    let stranger = Device::new(9, Profile::ToGateway);
    let mut w = World::of(&[&known]);
    for (layers, code) in [
        (Layers::C3, Code::CloudUnknownKid),
        (Layers::C2, Code::GatewayUnknownKid),
        (Layers::C2OverC3, Code::GatewayUnknownKid),
    ] {
        let (tiny, _) = stranger.tiny_at(1, layers, READING, Wants::Answer);
        let header = mesh::Header { hops: 3, originator: stranger.sid, destination: Sid::ANY_GATEWAY };
        let mut frame = [0; 127];
        let len = known.link.seal(Sid::ANY_GATEWAY, Ack::None, Some(header), &tiny, &mut frame).unwrap();
        refused(&mut w, &frame[..len], code);
    }
}

#[test]
fn without_a_context_a_message_is_kept_and_taken_when_the_context_comes() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[]);
    let listed =
        fivefold_core::wire::state::Device { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides };
    w.push(&emit_state(2, &[listed], &[], &[], &[])).unwrap();
    w.greet(&[&d]);
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::GatewayNoContext);
    w.push(&state(3, &[&d], Standing::Active)).unwrap();
    let stored = w.stored();
    assert_eq!(stored.len(), 1);
    assert_eq!(Envelope::parse(&stored[0]).unwrap().kind, Kind::GatewayOpened);
}

#[test]
fn an_insider_that_speaks_as_another_is_a_forger_at_e2() {
    let mut insider = Device::new(1, Profile::ToGateway);
    let victim = Device::new(2, Profile::ToGateway);
    let mut w = World::of(&[&insider, &victim]);
    let (tiny, _) = insider.tiny(READING, Wants::Answer);
    let header = mesh::Header { hops: 3, originator: victim.sid, destination: Sid::ANY_GATEWAY };
    let mut frame = [0; 127];
    let len = insider.link.seal(Sid::ANY_GATEWAY, Ack::None, Some(header), &tiny, &mut frame).unwrap();
    let heard = w.frame(&frame[..len]);
    assert_eq!(heard.dropped, [(Code::GatewayForged, Some(victim.sid))]);
    assert_eq!(w.explained(Code::GatewayForged, Some(&frame[..len])).sid, Some(victim.sid.to_string()));
    assert!(w.stored().is_empty());
}

#[test]
fn every_flipped_bit_under_e1_is_forged_or_malformed_and_never_a_reading() {
    let mut d = Device::new(1, Profile::ToBoth);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    for bit in 0..tiny.len() * 8 {
        let mut flipped = tiny.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A = "answer wanted" is not authenticated, and changes nothing that is.
        if bit == 2 {
            continue;
        }
        let frame = d.on_air(&flipped);
        let heard = w.frame(&frame);
        assert_eq!(heard.dropped.len(), 1, "bit {bit}");
        assert!(w.stored().is_empty(), "bit {bit}");
    }
    let frame = d.on_air(&tiny);
    assert_eq!(w.frame(&frame).dropped, []);
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn a_flipped_l_is_inner_malformed() {
    // L = 1 sent, L = 2 heard; and the other way round.
    for (profile, flip) in [(Profile::ToGateway, 0x18), (Profile::ToBoth, 0x18)] {
        let mut d = Device::new(1, profile);
        let mut w = World::of(&[&d]);
        let (mut tiny, _) = d.tiny(READING, Wants::Nothing);
        tiny[0] ^= flip;
        let frame = d.on_air(&tiny);
        refused(&mut w, &frame, Code::GatewayInnerMalformed);
    }
}

#[test]
fn below_the_window_is_a_replay_and_another_message_under_a_number_is_nonce_reuse() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny_at(100, Layers::C2, READING, Wants::Answer);
    let frame = d.on_air(&tiny);
    assert_eq!(w.frame(&frame).dropped, []);
    let (old, _) = d.tiny_at(36, Layers::C2, READING, Wants::Answer);
    let frame = d.on_air(&old);
    refused(&mut w, &frame, Code::GatewayReplayed);
    let (other, request) = d.tiny_at(100, Layers::C2, &[0x82, 0x01, 0x02], Wants::Answer);
    let frame = d.on_air(&other);
    let heard = w.frame(&frame);
    assert_eq!(heard.dropped, [(Code::GatewayNonceReuse, Some(d.sid))]);
    assert!(w.explained(Code::GatewayNonceReuse, Some(&frame)).came.ends_with("sender number 100"));
    let answer = d.hear(&heard.air[0]).unwrap();
    let said = d.open_c2(&request, &answer);
    assert_eq!((said.code, said.numbered), (coap::UNAUTHORIZED, true));
    assert_eq!(w.stored().len(), 1);
}

#[test]
fn a_body_that_is_no_cbor_is_inner_malformed_and_answered_so() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, request) = d.tiny(&[0xFF, 0xFF], Wants::Answer);
    let frame = d.on_air(&tiny);
    let heard = w.frame(&frame);
    assert_eq!(heard.dropped, [(Code::GatewayInnerMalformed, Some(d.sid))]);
    w.explained(Code::GatewayInnerMalformed, Some(&frame));
    let answer = d.hear(&heard.air[0]).unwrap();
    assert_eq!(d.open_c2(&request, &answer).code, coap::BAD_REQUEST);
    assert!(w.stored().is_empty());
}

#[test]
fn what_is_below_the_declared_level_is_refused() {
    for (profile, layers, code) in [
        (Profile::ToGateway, Layers::C3, Code::GatewayLevelMissing),
        (Profile::ToBoth, Layers::C3, Code::GatewayLevelMissing),
        (Profile::ToBoth, Layers::C2, Code::CloudLevelMissing),
        (Profile::ToCloud, Layers::C2, Code::CloudLevelMissing),
        (Profile::ToCloud, Layers::C2OverC3, Code::GatewayUnknownKid),
        (Profile::ToGateway, Layers::C2OverC3, Code::GatewayInnerMalformed),
    ] {
        let mut d = Device::new(1, profile);
        let mut w = World::of(&[&d]);
        let (tiny, _) = d.tiny_as(layers, READING, Wants::Nothing);
        let frame = d.on_air(&tiny);
        refused(&mut w, &frame, code);
    }
    // And nothing but the link, without the operator's word for it.
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let plain = Tiny::Plain { piv: PartialIv::from_value(1), kid: None, payload: READING };
    let mut bytes = [0; 32];
    let len = plain.emit(&mut bytes).unwrap();
    let frame = d.on_air(&bytes[..len]);
    refused(&mut w, &frame, Code::GatewayLevelMissing);
}

#[test]
fn another_algorithm_than_the_record_has_opens_nothing() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    d.policy.alg = fivefold_core::suite::Alg::AesCcm16_64_128;
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::GatewayForged);
}

#[test]
fn numbers_above_the_limit_are_refused() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let frame = d.frame_of(Layers::C2, Wants::Nothing, PartialIv::from_value((1 << 20) + 1), &[9; 20]);
    let frame = d.on_air(&frame);
    refused(&mut w, &frame, Code::GatewayLimitReached);
}

#[test]
fn more_messages_a_minute_than_allowed_are_not_passed_on() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    for _ in 0..60 {
        let frame = tiny_of(&mut d);
        assert_eq!(w.frame(&frame).dropped, []);
    }
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::CloudLimitReached);
    w.wait(60_000);
    let frame = tiny_of(&mut d);
    assert_eq!(w.frame(&frame).dropped, []);
}

#[test]
fn a_full_spool_refuses_what_is_new_and_keeps_what_is_there() {
    fn small(boot: GatewayBoot) -> Setup {
        Setup { limits: Limits { spool_bytes: 600, ..Limits::default() }, ..setup(boot) }
    }
    for profile in [Profile::ToGateway, Profile::ToCloud, Profile::ToBoth] {
        let mut d = Device::new(1, profile);
        let mut w = World::with(small);
        w.push(&state(1, &[&d], Standing::Active)).unwrap();
        w.greet(&[&d]);
        let mut taken = 0;
        let full = loop {
            let (tiny, request) = d.tiny(READING, Wants::Answer);
            let frame = d.on_air(&tiny);
            let heard = w.frame(&frame);
            match heard.dropped.last() {
                Some((Code::StoreFull, Some(_))) => {
                    assert!(w.explained(Code::StoreFull, Some(&frame)).expected.ends_with("at most 600"));
                    break (tiny, request, heard);
                }
                // The warning at 80 % names no device.
                Some((Code::StoreFull, None)) | None => taken += 1,
                other => panic!("{other:?}"),
            }
        };
        assert!(taken >= 3 && full.2.air.is_empty(), "{profile}: acknowledged what it refused");
        assert_eq!(w.stored().len(), taken);
        // Once there is room the same message is taken as new.
        w.deliver(u64::MAX, &[]);
        let frame = d.on_air(&full.0);
        w.frame(&frame);
        assert_eq!(w.stored().len(), 1, "{profile}");
    }
}

#[test]
fn a_cloud_that_is_away_for_long_is_counted_twice() {
    let d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    w.gateway.handle_cloud(w.now, Cloud::Away);
    for minutes in 1..=361u64 {
        w.wait(60_000);
        let said = w.gateway.tally().total(Code::CloudUnreachable);
        assert_eq!(said, u64::from(minutes >= 15) + u64::from(minutes >= 360), "minute {minutes}");
    }
    let kept = w.explained(Code::CloudUnreachable, None);
    assert!(kept.came.ends_with(&format!("{} s", 360 * 60)), "{kept:?}");
}

#[test]
fn a_state_is_never_rolled_back() {
    let (a, b) = (Device::new(1, Profile::ToCloud), Device::new(2, Profile::ToCloud));
    let mut w = World::of(&[&a, &b]);
    let newer = state(5, &[&a], Standing::Active);
    w.push(&newer).unwrap();
    assert_eq!(w.gateway.devices(), 1);
    let older = state(4, &[&a, &b], Standing::Active);
    assert_eq!(w.push(&older).unwrap_err().code, Code::ChannelSequence);
    let same_version = state(5, &[&a, &b], Standing::Active);
    assert_eq!(w.push(&same_version).unwrap_err().code, Code::ChannelSequence);
    assert_eq!(w.push(&newer), Ok(()));
    assert_eq!(w.gateway.devices(), 1);
    assert_eq!(w.gateway.tally().total(Code::ChannelSequence), 2);
    assert!(w.explained(Code::ChannelSequence, None).expected.ends_with("at least 5"));
    // Nor after a restart.
    let mut w = w.restart();
    assert_eq!((w.gateway.state_version(), w.gateway.devices()), (5, 1));
    assert_eq!(w.push(&older).unwrap_err().code, Code::ChannelSequence);
    assert_eq!(w.gateway.devices(), 1);
}

#[test]
fn a_state_of_another_network_is_refused() {
    let mut w = World::of(&[]);
    let mut other = state(9, &[], Standing::Active);
    // Item 2, the network: a byte string of four.
    let at = other.windows(6).position(|b| b[..2] == [0x02, 0x44]).unwrap();
    other[at + 5] ^= 1;
    assert_eq!(w.push(&other).unwrap_err().code, Code::ChannelWrongNet);
    assert!(w.explained(Code::ChannelWrongNet, None).expected.ends_with("network 00000007"));
}

#[test]
fn a_revoked_device_is_a_stranger_at_once() {
    let mut d = Device::new(1, Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let listed =
        fivefold_core::wire::state::Device { sid: d.sid, did: d.did, policy: d.policy, overrides: d.overrides };
    w.push(&emit_state(2, &[listed], &[], &[], &[d.did])).unwrap();
    let frame = tiny_of(&mut d);
    refused(&mut w, &frame, Code::LinkNeighbourUnknown);
    assert_eq!(w.gateway.danger_assume_synced(d.did, d.sid, 1, 0).unwrap_err().code, Code::LinkNeighbourUnknown);
    assert_eq!(w.gateway.devices(), 0);
}

#[test]
fn a_boot_recorded_two_boots_ago_is_a_replay() {
    let mut d = Device::new(1, Profile::ToGateway);
    d.policy.mode = Mode::Random;
    let mut w = World::of(&[&d]);
    let mut recorded = Vec::new();
    for boot in 1..=3 {
        d.bctx = Some(BootContext([boot; 8]));
        let (tiny, request) = d.tiny_at(0, Layers::C2, READING, Wants::Answer);
        let frame = d.on_air(&tiny);
        let heard = w.frame(&frame);
        assert_eq!(heard.dropped, [], "boot {boot}");
        let answer = d.hear(&heard.air[0]).unwrap();
        assert_eq!(d.open_c2(&request, &answer).code, coap::CHANGED);
        recorded.push(tiny);
    }
    assert_eq!(w.stored().len(), 3);
    for (at, code) in [(0, Code::GatewayReplayed), (1, Code::GatewayDuplicate), (2, Code::GatewayDuplicate)] {
        let frame = d.on_air(&recorded[at]);
        refused(&mut w, &frame, code);
    }
    // Nor after a restart, when all windows of old boots are gone.
    let mut w = w.restart();
    w.greet(&[]);
    w.gateway.danger_assume_synced(d.did, d.sid, 1, 0).unwrap();
    for (at, code) in [(0, Code::GatewayReplayed), (1, Code::GatewayDuplicate), (2, Code::GatewayDuplicate)] {
        let frame = d.on_air(&recorded[at]);
        refused(&mut w, &frame, code);
    }
}

#[test]
fn what_was_counted_is_told_upward_by_code_and_device() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny_as(Layers::C3, READING, Wants::Nothing);
    let frames: Vec<_> = (0..3).map(|_| d.on_air(&tiny)).collect();
    for frame in &frames {
        refused(&mut w, frame, Code::GatewayLevelMissing);
    }
    w.wait(2_000);
    let reader = w.spool.reader().unwrap();
    let all = reader.batch(0, 1000, 1 << 20).unwrap().unwrap();
    let events: Vec<_> = all
        .envelopes
        .iter()
        .filter_map(|(_, bytes)| Some(Envelope::parse(bytes).unwrap()).filter(|e| e.kind == Kind::Event))
        .collect();
    let event = Event::parse(events.last().unwrap().bytes).unwrap();
    let mine = event.counts.iter().find(|c| c.code == Code::GatewayLevelMissing).unwrap();
    assert_eq!((mine.sid, mine.count), (Some(d.sid), 3));
}

#[test]
fn ip_devices_need_the_operators_word_and_a_kid_of_the_list() {
    let from: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let message = |kid: &[u8]| {
        let option = OscoreOption { piv: Some(PartialIv::from_value(1)), kid_context: None, kid: Some(kid) };
        let m = Protected {
            kind: Type::Con,
            code: POST,
            message_id: 7,
            token: Token::from(9),
            option,
            ciphertext: &[5; 20],
        };
        let mut out = vec![0; m.emitted_len()];
        let len = m.emit(&mut out).unwrap();
        out.truncate(len);
        out
    };
    let radio = Device::new(1, Profile::ToCloud);
    let both = Device::new(2, Profile::ToBoth);
    let mut w = World::of(&[&radio, &both]);
    let dropped = |w: &mut World, m: &[u8]| {
        let dropped: Vec<_> = w.coap(from, m).dropped.iter().map(|d| d.0).collect();
        dropped.iter().for_each(|code| drop(w.explained(*code, Some(m))));
        dropped
    };
    assert_eq!(dropped(&mut w, &message(&[])), [Code::CloudUnknownKid]);
    assert_eq!(dropped(&mut w, &message(&[9, 9])), [Code::CloudUnknownKid]);
    assert_eq!(dropped(&mut w, &message(&radio.sid.to_bytes())), [Code::CloudLevelMissing]);
    assert_eq!(dropped(&mut w, &message(&both.sid.to_bytes())), [Code::GatewayLevelMissing]);
    assert_eq!(dropped(&mut w, b"\x40\x05\0\x01"), [Code::TinyMalformed]);
    assert!(w.stored().is_empty());
    // With the override it passes.
    let mut ip = Device::new(3, Profile::ToCloud);
    ip.policy.radio = Radio::Ip;
    ip.overrides.danger_no_link = true;
    w.push(&state(2, &[&ip], Standing::Active)).unwrap();
    assert_eq!(dropped(&mut w, &message(&ip.sid.to_bytes())), []);
    let stored = w.stored();
    assert_eq!(Envelope::parse(&stored[0]).unwrap().kind, Kind::CloudCoap);
}
