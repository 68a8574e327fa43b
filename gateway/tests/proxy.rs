//! Devices with IP of their own, behind the gateway as their CoAP proxy (docs/protocol.md 5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::net::SocketAddr;

use common::*;
use fivefold_core::e2_gateway::{E2, Nesting, seal_both};
use fivefold_core::error::Code;
use fivefold_core::oscore::{OscoreOption, RequestId, judge_answer, nested_answer};
use fivefold_core::profile::{Profile, Radio};
use fivefold_core::wire::coap::{self, CHANGED, Message, POST, Protected, Token, Type, number};
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_gateway::gateway::Cloud;

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

fn client() -> SocketAddr {
    "127.0.0.1:40001".parse().unwrap()
}

fn ip(profile: Profile) -> Device {
    let mut d = Device::new(1, profile);
    d.policy.radio = Radio::Ip;
    d.overrides.danger_no_link = true;
    d
}

/// A request as a stock client sends it: Uri-Host outside, Uri-Path inside.
fn request(d: &mut Device, kind: Type, message_id: u16, inside: &[u8]) -> (Vec<u8>, RequestId) {
    let n = d.next;
    d.next += 1;
    let plaintext = [&[POST], inside, &[0xFF], READING].concat();
    let (mut inner, mut sealed) = ([0; 200], [0; 200]);
    let (id, len) = match d.policy.profile {
        Profile::ToGateway => d.c2().seal_request(counter(n), &plaintext, &mut sealed).unwrap(),
        Profile::ToBoth => {
            let both =
                seal_both(&d.c2(), &d.c3(), counter(n), &plaintext, Nesting::Coap, &mut inner, &mut sealed).unwrap();
            (both.request, both.len)
        }
        _ => d.c3().seal_request(counter(n), &plaintext, &mut sealed).unwrap(),
    };
    let kid = d.sid.to_bytes();
    let option = OscoreOption { piv: Some(id.piv), kid_context: None, kid: Some(&kid) };
    let mut value = [0; 16];
    let value_len = option.emit(&mut value).unwrap();
    let mut options = [0; 64];
    let mut at = coap::emit_option(&mut options, 0, number::URI_HOST, b"gateway.example").unwrap();
    at += coap::emit_option(&mut options[at..], number::URI_HOST, number::OSCORE, &value[..value_len]).unwrap();
    let message = Message {
        kind,
        code: POST,
        message_id,
        token: Token::new(&[0xAA, 0xBB, 0xCC]).unwrap(),
        options: &options[..at],
        payload: &sealed[..len],
    };
    let mut out = vec![0; message.emitted_len()];
    let len = message.emit(&mut out).unwrap();
    out.truncate(len);
    (out, id)
}

fn uri_path() -> Vec<u8> {
    let mut out = [0; 16];
    let n = coap::emit_option(&mut out, 0, number::URI_PATH, b"r").unwrap();
    out[..n].to_vec()
}

#[test]
fn the_clouds_answer_comes_in_the_acknowledgement_if_it_is_quick() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (datagram, id) = request(&mut d, Type::Con, 77, &uri_path());
    assert!(w.coap(client(), &datagram).udp.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!(envelope.kind, Kind::CloudCoap);
    let inside = Protected::parse_request(envelope.bytes, coap::Outer::Strict).expect("Uri-Host is not passed on");
    assert_eq!(inside.ciphertext, Message::parse(&datagram).unwrap().payload);
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let (to, bytes) = &heard.udp[0];
    assert_eq!(*to, client());
    let answer = Protected::parse_answer(bytes).unwrap();
    assert_eq!((answer.kind, answer.message_id, answer.token.as_bytes()), (Type::Ack, 77, &[0xAA, 0xBB, 0xCC][..]));
    assert_eq!(d.open_c3(&id, None, answer.ciphertext), (CHANGED, vec![]));
}

#[test]
fn a_slow_cloud_is_bridged_by_an_empty_acknowledgement_and_a_confirmable_answer() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (datagram, id) = request(&mut d, Type::Con, 77, &[]);
    w.coap(client(), &datagram);
    let heard = w.wait(300);
    assert_eq!(heard.udp, [(client(), vec![0x60, 0, 0, 77])]);
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let bytes = heard.udp[0].1.clone();
    let answer = Protected::parse_answer(&bytes).unwrap();
    assert_eq!((answer.kind, answer.token.as_bytes()), (Type::Con, &[0xAA, 0xBB, 0xCC][..]));
    assert_eq!(d.open_c3(&id, None, answer.ciphertext), (CHANGED, vec![]));
    // Until it is acknowledged it comes again.
    assert_eq!(w.wait(2_500).udp, [(client(), bytes.clone())]);
    let mut ack = [0; 4];
    Message::empty(Type::Ack, answer.message_id).emit(&mut ack).unwrap();
    assert!(w.coap(client(), &ack).dropped.is_empty());
    assert!(w.wait(60_000).udp.is_empty());
}

#[test]
fn with_the_cloud_away_it_is_silent_and_the_clients_repeats_are_counted() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    w.gateway.handle_cloud(w.now, Cloud::Away);
    let (datagram, id) = request(&mut d, Type::Con, 77, &[]);
    w.coap(client(), &datagram);
    for _ in 0..4 {
        assert!(w.wait(3_000).udp.is_empty());
        let heard = w.coap(client(), &datagram);
        assert_eq!(heard.dropped, [(Code::CloudDuplicate, Some(d.sid))]);
        assert!(heard.udp.is_empty());
    }
    assert_eq!(w.stored().len(), 1);
    w.gateway.handle_cloud(w.now, Cloud::Reachable);
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let answer = Protected::parse_answer(&heard.udp[0].1).unwrap();
    assert_eq!((answer.kind, answer.message_id), (Type::Ack, 77));
    assert_eq!(d.open_c3(&id, None, answer.ciphertext), (CHANGED, vec![]));
}

#[test]
fn a_request_that_is_not_confirmable_gets_an_answer_that_is_not() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (datagram, _) = request(&mut d, Type::Non, 5, &[]);
    w.coap(client(), &datagram);
    assert!(w.wait(1_000).udp.is_empty());
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    assert_eq!(Protected::parse_answer(&heard.udp[0].1).unwrap().kind, Type::Non);
}

#[test]
fn after_247_seconds_nobody_waits_any_more() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (datagram, _) = request(&mut d, Type::Con, 5, &[]);
    w.coap(client(), &datagram);
    w.wait(247_001);
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    let answer = cloud_answer(&d, envelope.bytes, None, b"");
    assert!(w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]).udp.is_empty());
}

#[test]
fn a_reading_for_the_gateway_over_ip_is_stored_in_the_form_that_tiny_ones_have() {
    let mut d = ip(Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let (datagram, id) = request(&mut d, Type::Con, 9, &uri_path());
    let heard = w.coap(client(), &datagram);
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!((envelope.kind, envelope.bytes), (Kind::GatewayOpened, &[&[POST, 0xFF], READING].concat()[..]));
    let answer = Protected::parse_answer(&heard.udp[0].1).unwrap();
    assert_eq!((answer.kind, answer.message_id), (Type::Ack, 9));
    let mut out = [0; 64];
    let context = d.c2();
    let opened = context.open_answer(&id, None, answer.ciphertext, &mut out).unwrap();
    assert_eq!(judge_answer::<E2>(opened.plaintext()).unwrap().code, CHANGED);
    // Another resource is refused under protection.
    let mut path = [0; 16];
    let n = coap::emit_option(&mut path, 0, number::URI_PATH, b"elsewhere").unwrap();
    let (datagram, id) = request(&mut d, Type::Con, 10, &path[..n]);
    let heard = w.coap(client(), &datagram);
    assert_eq!(heard.dropped, [(Code::GatewayInnerMalformed, Some(d.sid))]);
    let answer = Protected::parse_answer(&heard.udp[0].1).unwrap();
    let opened = context.open_answer(&id, answer.option.piv, answer.ciphertext, &mut out).unwrap();
    assert_eq!(judge_answer::<E2>(opened.plaintext()).unwrap().code, coap::NOT_FOUND);
}

#[test]
fn both_levels_over_ip_are_one_coap_message_inside_the_other() {
    let mut d = ip(Profile::ToBoth);
    let mut w = World::of(&[&d]);
    let (datagram, id) = request(&mut d, Type::Con, 9, &uri_path());
    w.coap(client(), &datagram);
    let stored = w.stored();
    let envelope = Envelope::parse(&stored[0]).unwrap();
    assert_eq!(envelope.kind, Kind::CloudCoap);
    assert_eq!(envelope.opened.unwrap().piv, 0);
    let answer = cloud_answer(&d, envelope.bytes, None, b"\xa0");
    let heard = w.deliver(envelope.seq, &[(envelope.seq, d.sid, answer)]);
    let answer = Protected::parse_answer(&heard.udp[0].1).unwrap();
    let mut out = [0; 100];
    let context = d.c2();
    let opened = context.open_answer(&id, answer.option.piv, answer.ciphertext, &mut out).unwrap();
    let (option, ct3) = nested_answer::<E2>(opened.plaintext()).unwrap().expect("C3 inside");
    assert_eq!(d.open_c3(&id, option.piv, ct3), (CHANGED, vec![0xa0]));
}

#[test]
fn an_observing_client_and_other_outer_options_are_malformed() {
    let mut d = ip(Profile::ToCloud);
    let mut w = World::of(&[&d]);
    let (mut datagram, _) = request(&mut d, Type::Con, 9, &[]);
    datagram[1] = 0x05;
    assert_eq!(w.coap(client(), &datagram).dropped, [(Code::TinyMalformed, None)]);
    for cut in 0..datagram.len().min(40) {
        assert_eq!(w.coap(client(), &datagram[..cut]).dropped.len(), 1);
    }
}
