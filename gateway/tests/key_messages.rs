//! Key messages of classic nodes at the gateway (docs/protocol.md 12.5): parts come together, a whole KR1 is durable before anybody
//! waits for its answer, and KR2 goes out when its key is here. Whatever is wrong with a part is E5-08.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::id::{Serial, ServerKid, Sid};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, Kind, Originator, Reply};
use fivefold_core::wire::key_message::{
    Auth, Confirmation, Header, KR1_LONGEST, KeyEpoch, KeyLen, KeyLevel, Kr1, Kr2, RsaSize, Status,
};
use fivefold_core::wire::state::{ClassicDevice, ClassicFlags, HardenedKey, Part as StatePart, State};
use fivefold_gateway::gateway::{Arrival, ClassicDone, Output};
use fivefold_waspmote::key_message::{Cut, LONGEST_FRAME, Part};

const REFUSED: (Code, Option<Sid>) = (Code::KeyMessageRefused, Some(Sid(0x0a00)));

fn serial(n: u8) -> [u8; 8] {
    [0x8A, 0x73, 0x84, 0x47, 0x78, 0x76, 0x15, n]
}

/// So many devices, each hardened or not; the first one has the gateway's keys of these epochs.
fn book(version: u64, devices: u8, hardened: bool, epochs: &[u32]) -> Vec<u8> {
    let names: Vec<String> = (0..devices).map(|n| hex::encode(serial(n))).collect();
    let keys: Vec<_> = epochs.iter().map(|epoch| HardenedKey { epoch: *epoch, key: &[7; 32] }).collect();
    let device = |n: usize| ClassicDevice {
        serial: &names[n],
        sid: Sid(0x0a00 + n as u16),
        flags: ClassicFlags { hardened },
        dev_eui: (n == 0).then_some([5; 8]),
        key: None,
        hardened: if n == 0 { List::of(&keys) } else { List::default() },
    };
    let classic: Vec<_> = (0..names.len()).map(device).collect();
    let state = State {
        version,
        net: NET,
        group: GROUP,
        part: StatePart::WHOLE,
        devices: List::default(),
        contexts: List::default(),
        keys: List::default(),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::of(&classic),
    };
    let mut out = vec![0; 16 << 10];
    let len = state.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

fn world() -> World {
    let mut world = World::new();
    world.push(&book(1, 1, true, &[])).unwrap();
    world
}

fn header(n: u8, level: KeyLevel, epoch: u32) -> Header {
    Header {
        size: RsaSize::Rsa2048,
        auth: Auth::Mac,
        serial: Serial(serial(n)),
        level,
        keylen: KeyLen::B32,
        epoch: KeyEpoch(epoch),
        server: ServerKid([1, 2, 3, 4]),
    }
}

fn kr1(header: Header, filler: u8) -> Vec<u8> {
    let (c, s) = ([filler; 256], [filler; 32]);
    let mut out = [0; KR1_LONGEST];
    let len = Kr1 { header, ciphertext: &c, proof: &s }.emit(&mut out).unwrap();
    out[..len].to_vec()
}

fn parts(n: u8, id: u8, message: &[u8]) -> Vec<Vec<u8>> {
    let cut = Cut::new(serial(n), id, message, 73).unwrap();
    let frame = |index| {
        let mut out = [0; LONGEST_FRAME];
        let len = cut.part(index).unwrap().emit(&mut out).unwrap();
        out[..len].to_vec()
    };
    (0..cut.count()).map(frame).collect()
}

fn hand_in(world: &mut World, ticket: u64, carrier: Carrier, frame: &[u8]) -> Heard {
    let arrival = Arrival { carrier, source: Some([5; 8]), rssi: None, frame, lorawan: None };
    world.gateway.handle_classic(world.now, ticket, arrival);
    world.run()
}

/// What became of a frame at once, and what was counted.
fn bring(world: &mut World, frame: &[u8]) -> (Option<ClassicDone>, Vec<(Code, Option<Sid>)>) {
    let mut heard = hand_in(world, 5, Carrier::Xbee, frame);
    assert!(heard.classic.len() <= 1);
    (heard.classic.pop().map(|(_, done)| done), heard.dropped)
}

/// All parts but the last are noted; the last one waits.
fn send(world: &mut World, frames: &[Vec<u8>]) {
    let (last, first) = frames.split_last().unwrap();
    for frame in first {
        assert_eq!(bring(world, frame), (Some(ClassicDone::Noted), vec![]));
    }
    assert_eq!(bring(world, last), (None, vec![]), "whoever brought it waits");
}

fn refused(world: &mut World, frame: &[u8]) {
    let (done, dropped) = bring(world, frame);
    assert!(matches!(done, Some(ClassicDone::Refused(r)) if r.code == Code::KeyMessageRefused), "{done:?}");
    assert_eq!(dropped, [REFUSED]);
}

fn messages(world: &World) -> Vec<(u64, Vec<u8>)> {
    let stored = world.stored();
    let of = |bytes: &Vec<u8>| {
        let envelope = Envelope::parse(bytes).unwrap();
        assert_eq!(envelope.kind, Kind::KeyMessage);
        assert_eq!(envelope.originator, Originator::Classic(&hex::encode(serial(0))));
        (envelope.seq, envelope.bytes.to_vec())
    };
    stored.iter().map(of).collect()
}

fn kr2(header: &Header) -> Kr2 {
    Kr2::answer_to(header, Status::Accepted, Confirmation([9; 16]))
}

/// The cloud's reply, with a KR2 for the envelope of that number.
fn reply(world: &mut World, seq: u64, kr2: &[u8]) -> Heard {
    let name = hex::encode(serial(0));
    let downlinks = [Downlink {
        kind: DownlinkKind::KeyMessage,
        originator: Some(Originator::Classic(&name)),
        bytes: kr2,
        seq: Some(seq),
        expires: None,
    }];
    let reply = Reply { durable_upto: seq, refused: List::default(), downlinks: List::of(&downlinks) };
    world.gateway.handle_uplink_reply(world.now, world.boot, &reply);
    world.run()
}

fn answer_in(heard: &Heard) -> Vec<(u64, Vec<u8>)> {
    let of = |(ticket, done): &(u64, ClassicDone)| {
        let ClassicDone::Answer(frame) = done else { panic!("{done:?}") };
        let part = Part::parse(frame).unwrap();
        assert_eq!((part.serial, part.index, part.count), (serial(0), 0, 1), "one frame on every radio");
        (*ticket, part.bytes.to_vec())
    };
    heard.classic.iter().map(of).collect()
}

#[test]
fn parts_come_together_in_any_order_and_the_answer_goes_to_who_brought_the_last() {
    let mut w = world();
    let header = header(0, KeyLevel::E3, 1);
    let message = kr1(header, 0xCC);
    let mut frames = parts(0, 7, &message);
    frames.reverse();
    // A repeat changes nothing.
    assert_eq!(bring(&mut w, &frames[0]), (Some(ClassicDone::Noted), vec![]));
    send(&mut w, &frames);
    let stored = messages(&w);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].1, message);
    let heard = reply(&mut w, stored[0].0, &kr2(&header).to_bytes());
    assert_eq!(answer_in(&heard), [(5, kr2(&header).to_bytes().to_vec())]);
    assert!(heard.dropped.is_empty());
    // Nobody waits any more.
    assert!(reply(&mut w, stored[0].0, &kr2(&header).to_bytes()).classic.is_empty());
}

#[test]
fn nobody_waits_before_the_message_is_durable_and_no_answer_leaves_before_what_is_written_with_it() {
    let mut w = world();
    let header = header(0, KeyLevel::E3, 1);
    let frames = parts(0, 7, &kr1(header, 0xCC));
    let (last, first) = frames.split_last().unwrap();
    first.iter().for_each(|frame| drop(bring(&mut w, frame)));
    let arrival = Arrival { carrier: Carrier::Xbee, source: None, rssi: None, frame: last, lorawan: None };
    w.gateway.handle_classic(w.now, 5, arrival);
    assert!(matches!(w.gateway.poll(), Some(Output::Persist(_))));
    assert!(w.gateway.poll().is_none());
    w.gateway.handle_store_failed();
    let outputs: Vec<_> = std::iter::from_fn(|| w.gateway.poll()).collect();
    assert!(
        outputs.iter().any(
            |o| matches!(o, Output::Classic { ticket: 5, done: ClassicDone::Refused(r) } if r.code == Code::StoreFull)
        ),
        "{outputs:?}"
    );
}

#[test]
fn a_key_of_the_gateways_own_is_here_before_the_node_hears_of_it() {
    let mut w = world();
    let header = header(0, KeyLevel::E2, 3);
    send(&mut w, &parts(0, 7, &kr1(header, 0xCC)));
    let seq = messages(&w)[0].0;
    let heard = reply(&mut w, seq, &kr2(&header).to_bytes());
    assert!(heard.classic.is_empty(), "a frame under that key could not be opened yet");
    // A state without it changes nothing; the one that has it lets the answer out.
    w.gateway.handle_state(w.now, &book(2, 1, true, &[2])).unwrap();
    assert!(w.run().classic.is_empty());
    w.gateway.handle_state(w.now, &book(3, 1, true, &[2, 3])).unwrap();
    assert_eq!(answer_in(&w.run()).len(), 1);
    // Where the key is here already, nothing waits.
    send(&mut w, &parts(0, 8, &kr1(header, 0xCC)));
    let seq = messages(&w).last().unwrap().0;
    assert_eq!(answer_in(&reply(&mut w, seq, &kr2(&header).to_bytes())).len(), 1);
}

#[test]
fn who_waits_too_long_is_told_that_it_is_kept_and_the_same_message_is_passed_on_once_at_a_time() {
    let mut w = world();
    let header = header(0, KeyLevel::E3, 1);
    let message = kr1(header, 0xCC);
    send(&mut w, &parts(0, 7, &message));
    // Under another id: the node lost patience. Both wait for the one answer.
    let again = parts(0, 8, &message);
    again[..again.len() - 1].iter().for_each(|frame| drop(bring(&mut w, frame)));
    assert!(hand_in(&mut w, 6, Carrier::Http, again.last().unwrap()).classic.is_empty());
    assert_eq!(messages(&w).len(), 1);
    assert_eq!(w.gateway.poll_timeout().map(|at| at <= w.now.plus(5_000)), Some(true));
    w.now = w.now.plus(5_000);
    w.gateway.handle_timeout(w.now);
    let tickets: Vec<_> = w.run().classic;
    assert_eq!(tickets, [(5, ClassicDone::Stored), (6, ClassicDone::Stored)]);
    // A late answer is nobody's; the node sends its message again.
    let seq = messages(&w)[0].0;
    assert!(reply(&mut w, seq, &kr2(&header).to_bytes()).classic.is_empty());
    send(&mut w, &parts(0, 9, &message));
    let seq = messages(&w).last().unwrap().0;
    assert_eq!(answer_in(&reply(&mut w, seq, &kr2(&header).to_bytes())).len(), 1);
}

#[test]
fn every_fault_of_a_part_is_refused_and_counted() {
    let mut w = world();
    let message = kr1(header(0, KeyLevel::E3, 1), 0xCC);
    let frames = parts(0, 7, &message);
    assert_eq!(bring(&mut w, &frames[0]), (Some(ClassicDone::Noted), vec![]));
    // Altered: the first stays, and the message of the node comes through.
    let mut altered = frames[0].clone();
    *altered.last_mut().unwrap() ^= 1;
    refused(&mut w, &altered);
    // An index that its count has not, a count of none, no byte.
    for (at, byte) in [(14, 6), (15, 0), (15, 17)] {
        let mut frame = frames[1].clone();
        frame[at] = byte;
        refused(&mut w, &frame);
    }
    let mut empty = frames[1][..16].to_vec();
    empty[4] = 11;
    refused(&mut w, &empty);
    send(&mut w, &frames[1..]);
    assert_eq!(messages(&w).len(), 1);
}

#[test]
fn what_comes_together_to_no_key_message_of_its_node_goes_nowhere() {
    let mut w = world();
    let last_refused = |w: &mut World, frames: Vec<Vec<u8>>| {
        let (last, first) = frames.split_last().unwrap();
        first.iter().for_each(|frame| assert_eq!(bring(w, frame).0, Some(ClassicDone::Noted)));
        refused(w, last);
    };
    // Rubbish, another length than alg says, epoch 0, and another node's.
    last_refused(&mut w, parts(0, 1, &[0xAB; 200]));
    let good = kr1(header(0, KeyLevel::E3, 1), 0xCC);
    last_refused(&mut w, parts(0, 2, &good[..300]));
    let mut zero = good.clone();
    zero[16..20].fill(0);
    last_refused(&mut w, parts(0, 3, &zero));
    last_refused(&mut w, parts(0, 4, &kr1(header(1, KeyLevel::E3, 1), 0xCC)));
    assert!(messages(&w).is_empty());
    // Parts that sum up to more than a message may have.
    for index in 0..5 {
        let part = Part { serial: serial(0), id: 9, index, count: 16, bytes: &[0; 239] };
        let mut out = [0; LONGEST_FRAME];
        let len = part.emit(&mut out).unwrap();
        match index {
            4 => refused(&mut w, &out[..len]),
            _ => assert_eq!(bring(&mut w, &out[..len]).0, Some(ClassicDone::Noted)),
        }
    }
}

#[test]
fn parts_that_do_not_come_are_given_up_and_another_id_begins_anew() {
    let mut w = world();
    let message = kr1(header(0, KeyLevel::E3, 1), 0xCC);
    let (old, new) = (parts(0, 1, &message), parts(0, 2, &message));
    bring(&mut w, &old[0]);
    w.now = w.now.plus(59_000);
    w.gateway.handle_timeout(w.now);
    assert!(w.run().dropped.is_empty());
    bring(&mut w, &new[0]);
    w.now = w.now.plus(59_000);
    w.gateway.handle_timeout(w.now);
    assert!(w.run().dropped.is_empty(), "the time is that of the new one");
    w.now = w.now.plus(1_000);
    w.gateway.handle_timeout(w.now);
    assert_eq!(w.run().dropped, [REFUSED]);
    // What comes then is a beginning, and not an end.
    for frame in &new[1..] {
        assert_eq!(bring(&mut w, frame).0, Some(ClassicDone::Noted));
    }
    assert!(messages(&w).is_empty());
}

#[test]
fn a_flood_is_bounded_for_each_node_and_for_all() {
    let mut w = world();
    let whole = |w: &mut World, n: u8, id: u8| {
        let frames = parts(n, id, &kr1(header(n, KeyLevel::E3, 1), id));
        let (last, first) = frames.split_last().unwrap();
        first.iter().for_each(|frame| drop(bring(w, frame)));
        bring(w, last)
    };
    for id in 0..6 {
        assert_eq!(whole(&mut w, 0, id), (None, vec![]), "{id}");
    }
    let (done, dropped) = whole(&mut w, 0, 6);
    assert!(matches!(done, Some(ClassicDone::Refused(r)) if r.code == Code::KeyMessageRefused), "{done:?}");
    assert_eq!(dropped, [REFUSED]);
    w.now = w.now.plus(60_000);
    assert_eq!(whole(&mut w, 0, 7), (None, vec![]));
    // Of 70 nodes at once ten have to come again, and not more than 64 messages are unfinished.
    w.push(&book(2, 70, true, &[])).unwrap();
    w.now = w.now.plus(60_000);
    let refused = (0..70).filter(|n| matches!(whole(&mut w, *n, 50).0, Some(ClassicDone::Refused(_)))).count();
    assert_eq!(refused, 10);
    w.now = w.now.plus(60_000);
    let mut gave_way = 0;
    for n in 0..70 {
        let first = parts(n, 2, &kr1(header(n, KeyLevel::E3, 1), 2)).remove(0);
        gave_way += bring(&mut w, &first).1.len();
    }
    assert_eq!(gave_way, 6);
}

#[test]
fn a_node_that_is_not_hardened_a_stranger_and_one_without_a_way_back_send_none() {
    let mut w = World::new();
    w.push(&book(1, 1, false, &[])).unwrap();
    let frames = parts(0, 1, &kr1(header(0, KeyLevel::E3, 1), 1));
    refused(&mut w, &frames[0]);
    let (done, _) = bring(&mut w, &parts(9, 1, &kr1(header(9, KeyLevel::E3, 1), 1))[0]);
    assert!(matches!(done, Some(ClassicDone::Refused(r)) if r.code == Code::ClassicUnknown));
    w.push(&book(2, 1, true, &[])).unwrap();
    let heard = hand_in(&mut w, 5, Carrier::Lorawan, &frames[0]);
    assert!(matches!(heard.classic[0].1, ClassicDone::Refused(r) if r.code == Code::KeyMessageRefused));
    assert_eq!(heard.dropped, [REFUSED]);
    assert_eq!(bring(&mut w, &frames[0]).0, Some(ClassicDone::Noted));
}

#[test]
fn what_is_no_answer_to_a_message_is_none() {
    let mut w = world();
    let header = header(0, KeyLevel::E3, 4);
    send(&mut w, &parts(0, 7, &kr1(header, 0xCC)));
    let seq = messages(&w)[0].0;
    let good = kr2(&header).to_bytes();
    let heard = reply(&mut w, seq, &good[..39]);
    assert_eq!((heard.classic.len(), heard.dropped), (0, vec![(Code::KeyMessageRefused, None)]));
    for other in [Header { epoch: KeyEpoch(5), ..header }, Header { level: KeyLevel::E2, ..header }] {
        assert!(reply(&mut w, seq, &kr2(&other).to_bytes()).classic.is_empty());
    }
    assert!(reply(&mut w, seq + 1, &good).classic.is_empty());
    assert_eq!(answer_in(&reply(&mut w, seq, &good)).len(), 1);
}

#[test]
fn a_message_survives_a_power_cut_wherever_it_comes_and_its_node_is_never_answered_for_nothing() {
    let header = header(0, KeyLevel::E3, 1);
    let message = kr1(header, 0xCC);
    for fuse in 0..8 {
        let mut w = world();
        w.fuse = Some(fuse);
        for frame in parts(0, 7, &message) {
            if !w.dead() {
                hand_in(&mut w, 5, Carrier::Xbee, &frame);
            }
        }
        let was_stored = !w.stored().is_empty();
        let mut w = w.restart();
        w.now = Millis(w.now.0 + 1);
        // What was durable goes to the cloud from here too; who had waited for it is gone with the power.
        assert_eq!(!w.stored().is_empty(), was_stored, "{fuse}");
        if let Some((seq, kept)) = messages(&w).pop() {
            assert_eq!(kept, message);
            assert!(reply(&mut w, seq, &kr2(&header).to_bytes()).classic.is_empty());
        }
        // The node sends it again.
        send(&mut w, &parts(0, 8, &message));
        let seq = messages(&w).last().unwrap().0;
        assert_eq!(answer_in(&reply(&mut w, seq, &kr2(&header).to_bytes())).len(), 1, "{fuse}");
    }
}
