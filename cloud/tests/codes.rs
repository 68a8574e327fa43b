//! Every code that the cloud counts is provoked here, and seen counted and explained.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::*;
use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::id::{Net, Sid};
use fivefold_core::oscore::Plaintext;
use fivefold_core::profile::{LinkClass, Mode, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap;
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_keep::registry::RegisteredTemplate;
use fivefold_keep::why::Question;

const HOUR: u64 = 3600 * 1000;

fn cloud_only() -> World {
    World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Persistent)])
}

fn first(world: &World) -> Node {
    Node::of(&world.source.devices[0])
}

#[test]
fn a_reading_is_stored_once_and_answered_with_2_04() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let sent = node.send(READING);
    let reply = world.post(&[sent.envelope()]);
    assert_eq!((reply.upto, reply.refused.len()), (1, 0));
    assert_eq!(node.open(&sent, &reply.answers[0]), (coap::CHANGED, vec![], None));
    let readings = world.readings();
    assert_eq!(readings.len(), 1);
    assert_eq!((readings[0].origin, &readings[0].payload[..]), (Origin::Node, READING));
    assert!(world.counts().is_empty());
}

#[test]
fn a_repeat_is_one_reading_counted_and_answered_under_a_number_of_our_own() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let sent = node.send(READING);
    world.post(&[sent.envelope()]);
    let again = world.post(&[sent.envelope()]);
    let (code, _, piv) = node.open(&sent, &again.answers[0]);
    assert_eq!(code, coap::CHANGED);
    assert!(piv.is_some());
    let third = world.post(&[sent.envelope()]);
    assert!(node.open(&sent, &third.answers[0]).2 > piv);
    assert_eq!((world.readings().len(), world.count(Code::CloudDuplicate)), (1, 2));
}

#[test]
fn after_a_crash_between_commit_and_reply_the_batch_is_a_repeat_and_no_answer_number_returns() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let sent = node.send(READING);
    let body = world.gateway.batch(&[sent.envelope()]);
    let judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
    world.cloud.memory().store().commit_now(judged.write.clone()).unwrap();
    drop(judged);
    let world = world.restart();
    let reply = world.post_body(&body).unwrap();
    let (code, _, piv) = node.open(&sent, &reply.answers[0]);
    assert_eq!(code, coap::CHANGED);
    let piv = piv.expect("the answer without a number counts as used");
    let world = world.restart();
    let later = world.post_body(&body).unwrap();
    assert!(node.open(&sent, &later.answers[0]).2.unwrap() > piv);
    assert_eq!(world.readings().len(), 1);
}

#[test]
fn the_second_gateway_of_a_message_gets_no_answer_at_once_and_one_later() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let sent = node.send(READING);
    assert_eq!(world.post(&[sent.envelope()]).answers.len(), 1);
    world.now = world.now.plus(100);
    assert_eq!(world.post_second(&[sent.envelope()]).answers.len(), 0);
    world.now = world.now.plus(4000);
    let late = world.post_second(&[sent.envelope()]);
    assert!(node.open(&sent, &late.answers[0]).2.is_some());
    assert_eq!(world.readings().len(), 1);
}

#[test]
fn under_both_levels_the_primary_gets_the_answer_whoever_came_first() {
    let mut world = World::new(vec![device(2, Profile::ToBoth, Mode::Persistent)]);
    world.source.gateways[1].primary = false;
    world.reload();
    world.cloud.pushed(world.second.proven.gateway(), 1);
    let mut node = first(&world);
    let opened = |piv| Some(Opened { kid: Sid(2), piv, bctx: None, epoch: fivefold_core::id::Epoch(1) });
    let sent = node.send(READING);
    assert_eq!(world.post_second(&[Envelope { opened: opened(0), ..sent.envelope() }]).answers.len(), 0);
    world.now = world.now.plus(3);
    let reply = world.post(&[Envelope { opened: opened(0), ..sent.envelope() }]);
    assert_eq!(node.open(&sent, &reply.answers[0]).0, coap::CHANGED);
    let sent = node.send(READING);
    let reply = world.post(&[Envelope { opened: opened(1), ..sent.envelope() }]);
    assert_eq!(node.open(&sent, &reply.answers[0]).2, None, "the first one needs no number of its own");
    assert_eq!(world.post_second(&[Envelope { opened: opened(1), ..sent.envelope() }]).answers.len(), 0);
    assert_eq!(world.readings().len(), 2);
}

#[test]
fn e3_01_unknown_kid() {
    let mut world = cloud_only();
    let stranger = Node::of(&device(0x0b00, Profile::ToCloud, Mode::Persistent)).send(READING);
    let reply = world.post(&[stranger.envelope()]);
    assert_eq!(reply.refused, [(1, Code::CloudUnknownKid)]);
    // A kid that is not the originator's.
    let mut node = first(&world);
    let sent = node.send(READING);
    let other = Envelope { originator: Originator::Node { net: NET, sid: Sid(0x0b00) }, ..sent.envelope() };
    world.post(&[other]);
    // A revoked device.
    world.source.devices[0].revoked_at = Some(5);
    world.reload();
    world.post(&[sent.envelope()]);
    assert_eq!((world.count(Code::CloudUnknownKid), world.readings().len()), (3, 0));
    let kept = world.explained(Code::CloudUnknownKid);
    assert_eq!(kept.id, sent.name(), "a message has one name, whoever brings it");
}

#[test]
fn e3_02_orphans_wait_for_their_boot_and_are_then_stored() {
    let mut world = World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Random)]);
    let mut node = Node::boot(&world.source.devices[0], 1);
    let explicit = node.send(READING);
    let bctx = node.bctx.take();
    let (second, third) = (node.send(READING), node.send(READING));
    node.bctx = bctx;
    let reply = world.post(&[second.envelope(), third.envelope()]);
    assert!(reply.answers.is_empty());
    assert_eq!(world.count(Code::CloudNoContext), 2);
    world.now = world.now.plus(5000);
    let reply = world.post(&[explicit.envelope()]);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(world.readings().len(), 3);
    // Sent again, they are repeats.
    world.post(&[second.envelope()]);
    assert_eq!((world.readings().len(), world.count(Code::CloudDuplicate)), (3, 1));
}

#[test]
fn e3_02_a_boot_of_a_device_in_mode_p_has_no_context() {
    let mut world = cloud_only();
    let sent = Node::boot(&world.source.devices[0], 1).send(READING);
    world.post(&[sent.envelope()]);
    assert_eq!(world.count(Code::CloudNoContext), 1);
}

#[test]
fn e3_03_any_flipped_bit_is_forged() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    let start = sent.message.len() - READING.len() - 10;
    for at in start..sent.message.len() {
        let mut flipped = sent.clone();
        flipped.message[at] ^= 0x10;
        let reply = world.post(&[flipped.envelope()]);
        assert_eq!(reply.refused[0].1, Code::CloudForged, "byte {at}");
        assert!(reply.answers.is_empty());
    }
    assert_eq!(world.count(Code::CloudForged), (sent.message.len() - start) as u64);
    let kept = world.explained(Code::CloudForged);
    assert!(kept.expected.ends_with("epoch 1") && kept.came.ends_with("sender number 0"), "{kept:?}");
    assert!(world.ledger().is_empty());
}

#[test]
fn e3_06_two_messages_under_one_number_are_both_quarantined_and_told_to_renew() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    let mut clone = first(&world);
    let other = clone.send(b"\x81\xA2\x00\x61a\x02\x01");
    world.post(&[sent.envelope()]);
    let reply = world.post(&[other.envelope()]);
    assert_eq!(reply.refused, [(2, Code::CloudNonceReuse)]);
    assert_eq!(clone.open(&other, &reply.answers[0]).0, coap::UNAUTHORIZED);
    assert_eq!((world.readings().len(), world.ledger().len()), (0, 1));
    assert_eq!(world.cloud.memory().read(|r| r.quarantined()).unwrap().len(), 1);
    assert_eq!(world.count(Code::CloudNonceReuse), 1);
    let kept = world.explained(Code::CloudNonceReuse);
    assert_eq!(kept.id, other.name());
    assert!(kept.came.ends_with("sender number 0"), "{kept:?}");
}

#[test]
fn e3_07_what_is_malformed_inside_uses_its_number_and_is_no_reading() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let bad = [
        node.send(b"\x81\x81"),
        node.seal(Plaintext { code: 0x01, options: &[], payload: READING }),
        node.seal(Plaintext { code: coap::POST, options: b"\xB1r", payload: READING }),
        node.seal(Plaintext { code: coap::POST, options: &[], payload: &[] }),
    ];
    for (sent, code) in
        bad.iter().zip([coap::BAD_REQUEST, coap::METHOD_NOT_ALLOWED, coap::BAD_OPTION, coap::BAD_REQUEST])
    {
        let reply = world.post(&[sent.envelope()]);
        assert_eq!(node.open(sent, &reply.answers[0]).0, code);
        assert_eq!(reply.refused[0].1, Code::CloudInnerMalformed);
    }
    assert_eq!((world.readings().len(), world.ledger().len()), (0, 4));
    assert_eq!(world.count(Code::CloudInnerMalformed), 4);
    let kept = world.explained(Code::CloudInnerMalformed);
    assert_eq!(kept.id, bad[3].name());
    assert!(kept.came.ends_with("sender number 3"), "{kept:?}");
    world.post(&[bad[0].envelope()]);
    assert_eq!(world.count(Code::CloudDuplicate), 1);
}

#[test]
fn over_udp_a_resource_of_ours_is_read_and_others_are_refused() {
    let mut world = cloud_only();
    let mut node = first(&world);
    for (options, code) in [(&b"\xB1r"[..], coap::CHANGED), (b"\xB1x", coap::NOT_FOUND), (b"\x11x", coap::BAD_OPTION)] {
        let sent = node.seal(Plaintext { code: coap::POST, options, payload: READING });
        let reply = world.post(&[Envelope { kind: Kind::CloudCoap, ..sent.envelope() }]);
        assert_eq!(node.open(&sent, &reply.answers[0]).0, code);
    }
    assert_eq!((world.readings().len(), world.count(Code::CloudInnerMalformed)), (1, 2));
}

#[test]
fn e3_08_what_lacks_a_declared_level_is_never_delivered() {
    let mut world = World::new(vec![
        device(1, Profile::ToCloud, Mode::Persistent),
        device(2, Profile::ToBoth, Mode::Persistent),
        device(3, Profile::ToGateway, Mode::Persistent),
        device(4, Profile::DangerLinkOnly, Mode::Persistent),
    ]);
    let mut nodes: Vec<Node> = world.source.devices.iter().map(Node::of).collect();
    let plain = [b"\x02\xFF", READING].concat();
    let sent: Vec<Sent> = nodes.iter_mut().map(|n| n.send(READING)).collect();
    let mut refused = vec![
        // Both levels declared, and the gateway says nothing of C2; or that it was another device's.
        sent[1].envelope(),
        Envelope {
            opened: Some(Opened { kid: Sid(1), piv: 0, bctx: None, epoch: fivefold_core::id::Epoch(1) }),
            ..sent[1].envelope()
        },
        // E2 or E1 alone declared, and C3 comes.
        sent[2].envelope(),
        sent[3].envelope(),
        // No E1.
        Envelope { link: LinkClass::None, ..sent[0].envelope() },
    ];
    for sid in [1, 2, 4] {
        refused.push(word(Kind::GatewayOpened, Sid(sid), 0, &plain));
    }
    for sid in [1, 2, 3] {
        refused.push(word(Kind::DangerPlain, Sid(sid), 0, READING));
    }
    let n = refused.len() as u64;
    let reply = world.post(&refused);
    assert!(reply.refused.iter().all(|(_, code)| *code == Code::CloudLevelMissing), "{:?}", reply.refused);
    assert_eq!((world.count(Code::CloudLevelMissing), world.ledger().len()), (n, 0));
    let all = world.why(&Question { code: Some(Code::CloudLevelMissing), limit: 100, ..Question::default() });
    for (profile, came) in [("e1+e2+e3+e4", "E3 alone"), ("e1+e3+e4", "no E1"), ("e1", "E2 alone")] {
        assert!(all.iter().any(|k| k.expected.ends_with(profile) && k.came.ends_with(came)), "{profile}: {all:?}");
    }
    // With what they declare, all four are read.
    let opened = Opened { kid: Sid(2), piv: 0, bctx: None, epoch: fivefold_core::id::Epoch(1) };
    world.post(&[
        sent[0].envelope(),
        Envelope { opened: Some(opened), ..sent[1].envelope() },
        word(Kind::GatewayOpened, Sid(3), 0, &plain),
        word(Kind::DangerPlain, Sid(4), 0, READING),
    ]);
    let labels: Vec<_> = world.readings().iter().map(|r| r.origin.as_str()).collect();
    assert_eq!(labels, ["node", "node", "gateway", "plain"]);
}

#[test]
fn e3_09_a_number_beyond_the_limit_is_refused() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    let parsed = coap::Protected::parse_request(&sent.message, coap::Outer::Strict).unwrap();
    let piv = fivefold_core::oscore::PartialIv::from_value((1 << 20) + 1);
    let option = fivefold_core::oscore::OscoreOption { piv: Some(piv), ..parsed.option };
    let beyond = Sent { message: emit(&coap::Protected { option, ..parsed }), ..sent.clone() };
    assert_eq!(world.post(&[beyond.envelope()]).refused[0].1, Code::CloudLimitReached);
    assert_eq!(world.count(Code::CloudLimitReached), 1);
    let kept = world.explained(Code::CloudLimitReached);
    assert!(kept.expected.ends_with("at most 1048576") && kept.came.ends_with("number 1048577"), "{kept:?}");
}

#[test]
fn e3_09_a_number_near_the_limit_is_told_to_renew() {
    let mut world = cloud_only();
    let mut node = first(&world).at(49_152);
    let sent = node.send(READING);
    let reply = world.post(&[sent.envelope()]);
    let (_, payload, _) = node.open(&sent, &reply.answers[0]);
    assert_eq!(fivefold_core::wire::control::Downlink::parse(&payload).unwrap().renew, Some(1));
}

#[test]
fn e3_10_a_context_that_drained_too_long_ago_is_stale() {
    let mut world = cloud_only();
    let mut old = first(&world);
    let (a, b) = (old.send(READING), old.send(READING));
    world.post(&[a.envelope()]);
    let again = world.enrol_again(0x0a17);
    let mut new = Node::of(&again);
    let c = new.send(READING);
    let reply = world.post(&[c.envelope()]);
    assert_eq!(new.open(&c, &reply.answers[0]).0, coap::CHANGED);
    // Draining: taken, and not answered.
    let reply = world.post(&[b.envelope()]);
    assert_eq!((reply.answers.len(), world.readings().len()), (0, 3));
    world.now = world.now.plus(97 * HOUR);
    let late = old.send(READING);
    let reply = world.post(&[late.envelope()]);
    assert_eq!(reply.refused[0].1, Code::CloudStale);
    assert_eq!((world.readings().len(), world.count(Code::CloudStale)), (3, 1));
    assert_eq!(world.cloud.memory().read(|r| r.quarantined()).unwrap().len(), 1);
}

#[test]
fn e3_11_and_e3_12_missing_numbers_and_silence_are_seen() {
    let mut world = cloud_only();
    world.cloud.set_gap_period(Millis(60_000));
    let mut node = first(&world);
    for i in 0..20 {
        let sent = node.send(READING);
        if i % 2 == 0 {
            world.post(&[Envelope { received: world.now, ..sent.envelope() }]);
        }
        world.now = world.now.plus(1000);
    }
    let write = world.cloud.handle_timeout(world.now);
    assert!(write.is_empty());
    world.now = world.now.plus(61_000);
    let write = world.cloud.handle_timeout(world.now);
    world.cloud.memory().store().commit_now(write).unwrap();
    assert_eq!((world.count(Code::CloudPivGap), world.count(Code::CloudSilence)), (1, 1));
    world.now = world.now.plus(61_000);
    assert!(world.cloud.handle_timeout(world.now).is_empty(), "each is said once");
}

#[test]
fn e3_13_too_many_boots_and_a_boot_that_restarts() {
    let mut world = World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Random)]);
    for boot in 1..=21 {
        let sent = Node::boot(&world.source.devices[0], boot).send(READING);
        world.post(&[sent.envelope()]);
    }
    assert_eq!((world.readings().len(), world.count(Code::CloudBootRepeats)), (21, 1));
    let other = Node::boot(&world.source.devices[0], 21).send(b"\x81\xA2\x00\x61a\x02\x01");
    world.post(&[other.envelope()]);
    assert_eq!((world.count(Code::CloudBootRepeats), world.count(Code::CloudNonceReuse)), (2, 1));
}

#[test]
fn a_boot_recorded_long_ago_is_a_repeat_after_a_restart_too() {
    let mut world = World::new(vec![device(0x0a17, Profile::ToCloud, Mode::Random)]);
    let recorded: Vec<_> = (1..=4).map(|b| Node::boot(&world.source.devices[0], b).send(READING)).collect();
    recorded.iter().for_each(|s| drop(world.post(&[s.envelope()])));
    let mut world = world.restart();
    for sent in &recorded {
        world.post(&[sent.envelope()]);
    }
    assert_eq!((world.readings().len(), world.count(Code::CloudDuplicate)), (4, 4));
}

#[test]
fn e4_02_an_originator_of_another_network() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    let other = Envelope { originator: Originator::Node { net: Net(8), sid: Sid(0x0a17) }, ..sent.envelope() };
    assert_eq!(world.post(&[other]).refused[0].1, Code::ChannelWrongNet);
    assert_eq!((world.count(Code::ChannelWrongNet), world.ledger().len()), (1, 0));
    let kept = world.explained(Code::ChannelWrongNet);
    assert!(kept.expected.ends_with(&NET.to_string()) && kept.came.ends_with("network 00000008"), "{kept:?}");
}

#[test]
fn e4_03_gaps_and_other_content_under_a_number_are_counted_and_honest_repeats_are_not() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let sent: Vec<_> = (0..4).map(|_| node.send(READING)).collect();
    let body = world.gateway.batch(&[sent[0].envelope()]);
    world.post_body(&body).unwrap();
    world.post_body(&body).unwrap();
    assert_eq!(world.count(Code::ChannelSequence), 0);
    // 1 was followed by 5.
    world.gateway.seq = 4;
    world.post(&[sent[1].envelope()]);
    assert_eq!(world.count(Code::ChannelSequence), 1);
    // 5 again, with other content.
    world.gateway.seq = 4;
    world.post(&[sent[2].envelope()]);
    assert!(world.count(Code::ChannelSequence) >= 2);
    let before = world.count(Code::ChannelSequence);
    // A gap inside a batch.
    world.post(&[Envelope { seq: 6, ..sent[2].envelope() }, Envelope { seq: 8, ..sent[3].envelope() }]);
    assert_eq!(world.count(Code::ChannelSequence), before + 1);
    assert_eq!(world.readings().len(), 4, "what is true is kept whatever its envelope is numbered");
}

#[test]
fn e4_06_a_gateway_whose_clock_is_ahead() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    world.post(&[Envelope { received: NOW.plus(61_000), ..sent.envelope() }]);
    assert_eq!((world.count(Code::GatewayClockOff), world.readings().len()), (1, 1));
    let kept = world.explained(Code::GatewayClockOff);
    assert!(kept.expected.ends_with("60 s") && kept.came.ends_with("61 s"), "{kept:?}");
}

#[test]
fn ev_01_a_receipt_that_does_not_hold_refuses_the_whole_batch() {
    let mut world = cloud_only();
    let sent = first(&world).send(READING);
    let mut foreign = Gateway::new(NET, 1);
    let body = foreign.batch(&[sent.envelope()]);
    assert_eq!(world.post_body(&body).err().unwrap().rejected.code, Code::EvidenceSignature);
    let good = world.gateway.batch(&[sent.envelope()]);
    let mut other = world.gateway.batch(&[first(&world).send(b"\x81\xA2\x00\x61a\x02\x01").envelope()]);
    let receipt = 150.min(good.len());
    let cut = good.len() - receipt;
    other.truncate(other.len().saturating_sub(receipt));
    other.extend_from_slice(&good[cut..]);
    assert!(world.post_body(&other).is_err());
    for at in (0..good.len()).step_by(3) {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert!(world.post_body(&flipped).is_err(), "byte {at}");
    }
    assert!(world.ledger().is_empty());
    assert_eq!(world.explained(Code::EvidenceSignature).gateway.as_deref(), Some("00000001"));
    assert!(world.count(Code::EvidenceSignature) > 1 && world.count(Code::TinyMalformed) > 0);
}

#[test]
fn e2_01_a_gateway_that_was_never_pushed_a_context_vouches_for_nobody() {
    let mut world = World::new(vec![device(3, Profile::ToGateway, Mode::Persistent)]);
    let plain = [b"\x02\xFF", READING].concat();
    let reply = world.post_second(&[word(Kind::GatewayOpened, Sid(3), 0, &plain)]);
    assert_eq!(reply.refused[0].1, Code::GatewayUnknownKid);
    world.post(&[word(Kind::GatewayOpened, Sid(3), 0, &plain)]);
    assert_eq!((world.readings().len(), world.count(Code::GatewayUnknownKid)), (1, 1));
}

#[test]
fn e2_codes_of_a_gateways_word() {
    let mut world = World::new(vec![device(3, Profile::ToGateway, Mode::Persistent)]);
    let plain = [b"\x02\xFF", READING].concat();
    let other = [&b"\x02\xFF"[..], b"\x81\xA2\x00\x61a\x02\x01"].concat();
    let at = |piv| word(Kind::GatewayOpened, Sid(3), piv, &plain);
    world.post(&[at(0), at(0)]);
    assert_eq!(world.count(Code::GatewayDuplicate), 1);
    world.post(&[word(Kind::GatewayOpened, Sid(3), 0, &other)]);
    assert_eq!((world.count(Code::GatewayNonceReuse), world.readings().len()), (1, 2), "both stay visible");
    let mut wrong = at(5);
    wrong.opened.as_mut().unwrap().epoch = fivefold_core::id::Epoch(9);
    let refused = [
        (wrong, Code::GatewayNoContext),
        (at((1 << 20) + 1), Code::GatewayLimitReached),
        (word(Kind::GatewayOpened, Sid(3), 6, b"\x02\xFF\x81\x81"), Code::GatewayInnerMalformed),
    ];
    for (envelope, code) in refused {
        assert_eq!(world.post(&[envelope]).refused[0].1, code);
        assert_eq!(world.count(code), 1);
    }
    assert_eq!(world.readings().len(), 2);
}

#[test]
fn no_byte_of_a_payload_is_in_an_explanation_and_the_search_for_it_can_find() {
    const CANARY: &[u8] = b"CANARY-7f3a91c0e5d2-CANARY";
    let mut world = World::new(vec![
        device(1, Profile::ToCloud, Mode::Persistent),
        device(3, Profile::ToGateway, Mode::Persistent),
        device(4, Profile::DangerLinkOnly, Mode::Persistent),
    ]);
    let holds = |world: &World| {
        let files = std::fs::read_dir(world.path.parent().unwrap()).unwrap();
        let mut files = files.map(|f| std::fs::read(f.unwrap().path()).unwrap());
        files.any(|bytes| bytes.windows(CANARY.len()).any(|b| b == CANARY))
    };
    let plain = [b"\x02\xFF", CANARY].concat();
    let reply = world.post(&[
        // In the clear, of devices that declare more, of strangers, of another network, and malformed.
        word(Kind::GatewayOpened, Sid(1), 0, &plain),
        word(Kind::DangerPlain, Sid(3), 0, CANARY),
        word(Kind::GatewayOpened, Sid(9), 0, &plain),
        word(Kind::DangerPlain, Sid(9), 0, CANARY),
        word(Kind::GatewayOpened, Sid(3), 1, &plain),
        word(Kind::DangerPlain, Sid(4), 1, CANARY),
        word(Kind::CloudTiny, Sid(1), 2, CANARY),
        word(Kind::Event, Sid(0), 2, CANARY),
        Envelope {
            originator: Originator::Node { net: Net(8), sid: Sid(1) },
            ..word(Kind::GatewayOpened, Sid(1), 3, &plain)
        },
    ]);
    assert_eq!(reply.refused.len(), 9);
    assert!(world.why(&Question { limit: 100, ..Question::default() }).len() >= 9);
    assert!(!holds(&world), "a payload is in the store");
    // What opens is kept, readable, as docs/threats.md says.
    let reading = [&[0x82, 0x01, 0x58, CANARY.len() as u8], CANARY].concat();
    let sent = first(&world).send(&reading);
    world.post(&[sent.envelope()]);
    assert_eq!(world.readings().len(), 1);
    assert!(holds(&world), "the search finds nothing that is there");
}

#[test]
fn refusals_of_a_flood_are_a_sample_and_a_week_later_gone() {
    let mut world = cloud_only();
    let stranger = Node::of(&device(0x0b00, Profile::ToCloud, Mode::Persistent)).send(READING);
    let mut node = first(&world);
    let sent = node.send(READING);
    world.post(&[Envelope { link: LinkClass::None, ..sent.envelope() }]);
    for _ in 0..20 {
        let flood = vec![stranger.envelope(); 200];
        world.post(&flood);
    }
    assert_eq!(world.count(Code::CloudUnknownKid), 4000);
    let all = Question { limit: 1000, ..Question::default() };
    let of = |world: &World, code: Code| world.why(&all).iter().filter(|k| k.code == code.as_str()).count();
    assert_eq!((of(&world, Code::CloudUnknownKid), of(&world, Code::CloudLevelMissing)), (10, 1));
    world.now = world.now.plus(8 * 24 * HOUR);
    world.post(&[stranger.envelope()]);
    assert_eq!(world.why(&all).len(), 1);
}

#[test]
fn commands_go_out_until_their_result_comes() {
    let mut world = cloud_only();
    let did = world.source.devices[0].did;
    let command = world.cloud.command(did, 3, vec![0x05], world.now).unwrap();
    let write = fivefold_cloud::store::Write { commands: vec![command.clone()], ..Default::default() };
    world.cloud.memory().store().commit_now(write).unwrap();
    world.cloud.commanded(command);
    let mut node = first(&world);
    for _ in 0..2 {
        let sent = node.send(READING);
        let reply = world.post(&[sent.envelope()]);
        let (_, payload, _) = node.open(&sent, &reply.answers[0]);
        let map = fivefold_core::wire::control::Downlink::parse(&payload).unwrap();
        let commands: Vec<_> = map.commands.iter().map(|c| (c.id, c.op, c.arguments.to_vec())).collect();
        assert_eq!(commands, [(1, 3, vec![0x05])]);
        world = world.restart();
    }
    // {2: [[1, 0]]}
    let sent = node.send(b"\xA1\x02\x81\x82\x01\x00");
    let reply = world.post(&[sent.envelope()]);
    let (_, payload, _) = node.open(&sent, &reply.answers[0]);
    assert!(fivefold_core::wire::control::Downlink::parse(&payload).unwrap().commands.is_empty());
    let known = world.cloud.memory().read(|r| r.commands_of(did)).unwrap();
    assert!(known[0].done.is_some());
    assert!(world.restart().cloud.memory().read(|r| r.open_commands()).unwrap().is_empty());
}

#[test]
fn item_one_covers_a_message_whose_answer_was_lost() {
    let mut world = cloud_only();
    let mut node = first(&world);
    let (a, b) = (node.send(READING), node.send(READING));
    world.post(&[a.envelope()]);
    let reply = world.post(&[b.envelope()]);
    let (_, payload, _) = node.open(&b, &reply.answers[0]);
    let map = fivefold_core::wire::control::Downlink::parse(&payload).unwrap();
    assert!(map.received.unwrap().covers(0) && map.received.unwrap().covers(1));
}

#[test]
fn rows_that_no_template_fits_are_kept_and_counted_and_nothing_refuses_them() {
    let mut world = cloud_only();
    world.source.templates = vec![RegisteredTemplate {
        net: NET,
        id: 3,
        // [3, ["level", "m"]]
        definition: hex::decode("82038265".to_owned() + "6c6576656c616d").unwrap(),
        added_at: 1,
    }];
    world.reload();
    let did = world.source.devices[0].did;
    let mut node = first(&world);
    let unknown = |world: &World| world.cloud.memory().read(|r| r.unknown_rows(did)).unwrap();
    let known = node.send(&[0x82, 0x03, 0x01]);
    world.post(&[known.envelope()]);
    assert_eq!(unknown(&world), None);
    // Another id, and a value too many; the first of them comes twice and counts once.
    let sent = [node.send(&[0x82, 0x18, 0x20, 0x01]), node.send(&[0x83, 0x03, 0x01, 0x02])];
    world.post(&[sent[0].envelope()]);
    world.post(&[sent[0].envelope()]);
    world.post(&[sent[1].envelope()]);
    let mut world = world.restart();
    world.reload();
    let said = unknown(&world).unwrap();
    assert_eq!((said.count, said.template, said.at), (2, 3, NOW));
    assert_eq!(world.readings().len(), 3);
    assert_eq!(world.counts().keys().collect::<Vec<_>>(), [&Code::CloudDuplicate]);
}
