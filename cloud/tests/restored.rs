//! A store that was put back from a copy (docs/protocol.md 8.4): nothing is sealed twice under one number, what came since and
//! is brought again is no reading, and devices go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::classic::{Classic, SERIAL, binary, bring, bring_of, envelope, hardened_frame, said};
use common::runs::{renew, renewal};
use common::signer::{signature_item, signing_world};
use common::*;
use fivefold_cloud::accepted::{Freshness, flag};
use fivefold_cloud::limits::Part;
use fivefold_cloud::store::{Held, HeldRow, Query, ReadingRow, Release, restored};
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::control::Downlink as ControlMap;
use fivefold_core::wire::envelope::Kind;
use fivefold_keep::registry::{ClassicProfile, Device};
use fivefold_waspmote::hardened::Peer;
use rusqlite::Connection;

fn enrolled(mode: Mode) -> Device {
    Device { enrolled_at: NOW.0 / 1000, ..device(0x0a17, Profile::ToCloud, mode) }
}

/// The store's files, as a copy of its folder has them.
type Copy = [Option<Vec<u8>>; 2];
const FILES: [&str; 2] = ["", "-wal"];

fn copy(store: &Path) -> Copy {
    FILES.map(|beside| std::fs::read(format!("{}{beside}", store.display())).ok())
}

/// Puts a copy back, and says so.
fn put_back(store: &Path, copy: &Copy, at: Millis) {
    for (beside, bytes) in FILES.iter().chain(&["-shm"]).zip(copy.iter().chain(&[None])) {
        let path = format!("{}{beside}", store.display());
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = bytes {
            std::fs::write(path, bytes).unwrap();
        }
    }
    restored(store, at).unwrap();
}

/// The number of the answer to one message; `None` when it has none of its own.
fn number_of(w: &mut World, node: &Node, sent: &Sent) -> Option<u64> {
    let reply = w.post(&[sent.envelope()]);
    let (code, _, piv) = node.open(sent, &reply.answers[0]);
    assert_eq!(code, fivefold_core::wire::coap::CHANGED);
    piv.map(|p| p.value())
}

#[test]
fn what_was_answered_since_the_copy_is_answered_under_another_number() {
    let d = enrolled(Mode::Persistent);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::of(&d);
    let first = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &first), None);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    let second = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &second), None);
    let again = number_of(&mut w, &node, &second).unwrap();

    let mut highest = again;
    for hour in [1, 2] {
        w.now = NOW.plus(hour * 3_600_000);
        let now = w.now;
        w = w.stopped(|store| put_back(store, &kept, now));
        w.now = now.plus(60_000);
        // What is lost comes back from a recording; the nonce of its first answer does not.
        for sent in [&second, &first, &node.send(READING)] {
            let number = number_of(&mut w, &node, sent).expect("a number of our own");
            assert!(number >= u64::from(NUMBER_LIMIT) && number > highest, "{number} after {highest}");
            highest = number;
        }
        // A restart forgets nothing of it.
        w = w.restart();
        let sent = node.send(READING);
        let number = number_of(&mut w, &node, &sent).unwrap();
        assert!(number > highest);
        highest = number;
    }
    assert_eq!(w.count(Code::CloudNonceReuse), 0);
}

#[test]
fn a_context_that_the_copy_does_not_have_counts_as_used() {
    let d = enrolled(Mode::Persistent);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::of(&d);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
    let now = NOW.plus(1_000);
    w = w.stopped(|store| {
        put_back(store, &Copy::default(), now);
    });
    w.now = now.plus(60_000);
    assert!(number_of(&mut w, &node, &sent).unwrap() >= u64::from(NUMBER_LIMIT));
    // One that was enrolled since has nothing to forget.
    w.source.devices[0].enrolled_at += 100;
    let again = w.enrol_again(0x0a17);
    let mut node = Node::of(&again);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
}

#[test]
fn boots_of_mode_r_are_answered_again_after_the_device_was_enrolled_again() {
    let d = enrolled(Mode::Random);
    let mut w = World::new(vec![d.clone()]);
    let mut node = Node::boot(&d, 1);
    let sent = node.send(READING);
    assert_eq!(number_of(&mut w, &node, &sent), None);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    let now = NOW.plus(1_000);
    w = w.stopped(|store| put_back(store, &kept, now));
    w.now = now.plus(60_000);
    for boot in [1, 2] {
        let sent = Node::boot(&d, boot).at(7).send(READING);
        assert!(w.post(&[sent.envelope()]).answers.is_empty(), "boot {boot}");
    }
    assert_eq!((w.readings().len(), held(&w).len()), (1, 2), "what it says is kept, and held");
    w.now = now.plus(120_000);
    w.source.devices[0].enrolled_at = w.now.0 / 1000;
    let again = w.enrol_again(0x0a17);
    w.post(&[Node::boot(&again, 3).send(READING).envelope()]);
    assert_eq!((w.readings().len(), held(&w).len()), (2, 2));
}

/// Measures what came, and says what is counted of readings and of the ledger: rows and bytes.
fn sizes(w: &World) -> [(u64, u64); 2] {
    let memory = w.cloud.memory();
    loop {
        let measured = memory.read(|r| r.measure(7)).unwrap();
        memory.store().measured(measured).unwrap();
        if measured.is_all() {
            break;
        }
    }
    [Part::Readings, Part::Ledger].map(|part| {
        let size = memory.read(|r| r.part(part)).unwrap();
        (size.rows, size.bytes)
    })
}

fn held(w: &World) -> Vec<ReadingRow> {
    w.ledger().into_iter().filter(|r| r.flags & flag::HELD != 0).collect()
}

/// The process ends; what `which` names is released; it starts again. Says how many that were.
fn released(w: World, which: Release) -> (World, u64) {
    let mut count = 0;
    let w = w.stopped(|store| count = Held::open(store).unwrap().release(&which).unwrap());
    (w, count)
}

/// A device, what it sent before the copy was made and after, all of it stored; then the copy is put back.
fn after_a_restore(d: &Device) -> (World, Node, Vec<Sent>) {
    let mut w = World::renewing(vec![d.clone()], vec![renewal(d)]);
    let mut node = Node::of(d);
    let before = node.send(READING);
    w.post(&[before.envelope()]);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    let since: Vec<Sent> = (0..20).map(|_| node.send(READING)).collect();
    w.post(&since.iter().map(Sent::envelope).collect::<Vec<_>>());
    assert_eq!(w.readings().len(), 21);
    let now = NOW.plus(3_600_000);
    w = w.stopped(|store| put_back(store, &kept, now));
    w.now = now.plus(60_000);
    w.source.renewals[0].ordered_at = Some(now.0 / 1000);
    w.reload();
    let mut captured = vec![before];
    captured.extend(since);
    (w, node, captured)
}

#[test]
fn nothing_that_was_captured_since_the_copy_is_a_reading_and_the_device_delivers_again_by_itself() {
    let (mut w, mut node, captured) = after_a_restore(&enrolled(Mode::Persistent));
    let all: Vec<_> = captured.iter().map(Sent::envelope).collect();
    // The first is known from the copy. Of the others nobody can tell, however often they come.
    for _ in 0..2 {
        let reply = w.post_second(&all);
        assert!(reply.refused.is_empty() && reply.upto > 0, "the gateway may forget them");
        w = w.restart();
    }
    assert_eq!((w.readings().len(), held(&w).len()), (1, 20));
    assert_eq!((w.count(Code::CloudHeld), w.count(Code::CloudDuplicate)), (20, 22));
    let of_device = w.cloud.memory().read(|r| r.last_of(w.source.devices[0].did)).unwrap();
    assert_eq!(of_device, Some((NOW, 1)), "nothing is heard of it by them");

    // Its own go the same way. However fast recordings are repeated, it has its acknowledgements, and the order to renew.
    let mut ask = |w: &mut World| {
        let own = node.send(READING);
        let reply = w.post(&[own.envelope()]);
        let (code, control, _) = node.open(&own, &reply.answers[0]);
        assert_eq!(code, fivefold_core::wire::coap::CHANGED);
        ControlMap::parse(&control).unwrap().renew
    };
    w.now = w.now.plus(60_000);
    assert_eq!(ask(&mut w), Some(5));
    for _ in 0..62 {
        w.now = w.now.plus(5_000);
        w.post_second(&all[5..]);
    }
    assert_eq!(ask(&mut w), Some(5));
    assert_eq!((w.readings().len(), w.count(Code::CloudHeld)), (1, 22));

    let mut new = renew(&mut w, 2);
    for readings in [2, 3] {
        let sent = new.send(READING);
        let reply = w.post(&[sent.envelope()]);
        assert_eq!(new.open(&sent, &reply.answers[0]).0, fivefold_core::wire::coap::CHANGED);
        assert_eq!(w.readings().len(), readings);
        w = w.restart();
    }
    // The context of before drains: late messages under it are held like the others, until nothing is opened under it.
    w.post_second(&[node.send(READING).envelope()]);
    assert_eq!((w.readings().len(), w.count(Code::CloudHeld)), (3, 23));
    w.now = w.now.plus(97 * 3_600_000);
    let stale = node.send(READING);
    assert_eq!(w.post_second(&[stale.envelope()]).refused[0].1, Code::CloudStale);
    assert_eq!((w.readings().len(), w.count(Code::CloudHeld)), (3, 23));
}

#[test]
fn what_is_held_is_released_by_gateway_device_and_time() {
    let (mut w, mut node, captured) = after_a_restore(&enrolled(Mode::Persistent));
    let did = w.source.devices[0].did;
    w.post_second(&captured[1..11].iter().map(Sent::envelope).collect::<Vec<_>>());
    w.post(&[node.send(READING).envelope(), node.send(READING).envelope()]);
    let newest = w.ledger().last().unwrap().id;
    let (first, second) = (w.gateway.proven.gateway(), w.second.proven.gateway());
    let mut rows = Vec::new();
    w = w.stopped(|store| rows = Held::open(store).unwrap().rows().unwrap());
    let row = |gateway, count| HeldRow { net: NET, did, gateway, count, first: NOW, last: NOW };
    assert_eq!(rows, [row(first, 2), row(second, 10)]);

    let (w, count) = released(w, Release { gateway: Some(first), since: Some(NOW.plus(1)), ..Release::default() });
    assert_eq!((count, w.readings().len()), (0, 1));
    let (w, count) = released(w, Release { gateway: Some(first), since: Some(NOW), ..Release::default() });
    assert_eq!((count, w.readings().len()), (2, 3));
    // Whoever follows by ids finds them, in their order.
    let next = Query { cursor: Some(newest), limit: 100, ..Query::default() };
    let followed = w.cloud.memory().read(|r| r.readings(&next)).unwrap();
    assert_eq!(followed.iter().map(|r| r.piv).collect::<Vec<_>>(), [21, 22]);
    assert!(followed.iter().all(|r| r.freshness == Freshness::Late && r.flags & flag::HIDDEN == 0));
    let (mut w, count) = released(w, Release { device: Some(did), ..Release::default() });
    assert_eq!((count, w.readings().len(), held(&w).len()), (10, 13, 0));
    // They are in the ledger as they were: nothing comes a second time.
    w.post_second(&captured.iter().map(Sent::envelope).collect::<Vec<_>>()[..11]);
    assert_eq!((w.readings().len(), w.count(Code::CloudHeld)), (13, 12));
}

#[test]
fn what_is_held_does_nothing() {
    let d = enrolled(Mode::Persistent);
    let mut w = World::renewing(vec![d.clone()], vec![renewal(&d)]);
    let command = w.cloud.command(d.did, 3, vec![0x05], w.now).unwrap();
    let write = fivefold_cloud::store::Write { commands: vec![command], ..Default::default() };
    w.cloud.memory().store().commit_now(write).unwrap();
    w = w.stopped(|store| {
        restored(store, NOW.plus(1_000)).unwrap();
    });
    w.now = NOW.plus(60_000);
    // {2: [[1, 0]], 3: [1, 2, 3, 4, 0]}: a result and a report, perhaps of long ago.
    let said = b"\xA2\x02\x81\x82\x01\x00\x03\x85\x01\x02\x03\x04\x00";
    let open = |w: &World| w.cloud.memory().read(|r| Ok((r.open_commands()?.len(), r.report(d.did)?.is_some())));
    let mut old = Node::of(&d);
    w.post(&[old.send(said).envelope()]);
    assert_eq!((held(&w).len(), open(&w).unwrap()), (1, (1, false)));
    let mut new = renew(&mut w, 2);
    w.post(&[new.send(said).envelope()]);
    assert_eq!((held(&w).len(), open(&w).unwrap()), (1, (0, true)));
}

#[test]
fn by_a_gateways_word_it_is_held_too_and_what_nothing_proves_is_not() {
    let d = Device { enrolled_at: NOW.0 / 1000, ..device(3, Profile::ToGateway, Mode::Persistent) };
    let plain = Device { enrolled_at: NOW.0 / 1000, ..device(4, Profile::DangerLinkOnly, Mode::Persistent) };
    let mut w = World::new(vec![d, plain]);
    w = w.stopped(|store| {
        restored(store, NOW.plus(1_000)).unwrap();
    });
    w.now = NOW.plus(60_000);
    let bytes = [b"\x02\xFF", READING].concat();
    w.post(&[word(Kind::GatewayOpened, Sid(3), 0, &bytes), word(Kind::DangerPlain, Sid(4), 0, READING)]);
    w.post(&[word(Kind::GatewayOpened, Sid(3), 0, &bytes)]);
    let readings = w.readings();
    assert_eq!((readings.len(), readings[0].sid, held(&w).len()), (1, Sid(4), 1));
    assert_eq!((w.count(Code::CloudHeld), w.count(Code::GatewayDuplicate)), (1, 1));
}

#[test]
fn a_signature_under_keys_of_after_gives_what_is_held_its_label_and_it_stays_held() {
    let (mut w, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    let did = w.source.devices[0].did;
    w = w.stopped(|store| {
        restored(store, NOW.plus(1_000)).unwrap();
    });
    w.now = NOW.plus(60_000);
    for value in [0x64, 0x65] {
        let sent = signer.reading(&mut node, &[0x82, 0x01, 0x18, value]);
        w.post(&[sent.envelope()]);
    }
    let signature = signature_item(&signer.close());
    w.post(&[node.send(&signature).envelope()]);
    let labels = |rows: Vec<ReadingRow>| rows.iter().map(|r| r.origin.as_str()).collect::<Vec<_>>();
    assert_eq!(labels(held(&w)), ["node"; 3], "it may be of long ago");
    w.source.devices[0].enrolled_at = w.now.0 / 1000;
    let mut newer = Node::of(&w.enrol_again(0x0a17));
    w.post(&[newer.send(&signature).envelope()]);
    assert_eq!((labels(held(&w)), labels(w.readings())), (vec!["signed", "signed", "node"], vec!["node"]));
    let (w, count) = released(w, Release { device: Some(did), ..Release::default() });
    assert_eq!((count, labels(w.readings())), (3, vec!["node", "signed", "signed", "node"]));
    // What proves them went with them.
    let proven = w.cloud.memory().read(|r| r.evidence(did, Millis(0), w.now.plus(1), 10)).unwrap();
    assert_eq!(proven.iter().map(|row| row.proof.is_some()).collect::<Vec<_>>(), [false, true, true, false]);
}

/// What people's own tables show of classic frames: their sequences, and when a gateway received them.
fn shown(w: &World) -> Vec<(u8, String)> {
    let db = Connection::open(&w.path).unwrap();
    let mut query = db.prepare("SELECT frame_number, timestamp FROM sensorParser ORDER BY id").unwrap();
    query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn sequences(w: &World) -> Vec<u8> {
    shown(w).into_iter().map(|(sequence, _)| sequence).collect()
}

const PLAIN: &str = "0123456789abcdef";

/// A hardened classic node and a plain one; frames 0 to 5 of the first were stored, and a copy of when it had sent one is put back.
fn classics_after_a_restore() -> World {
    let hardened = Classic {
        profile: ClassicProfile::Hardened,
        hardened_key: Some([1; 32]),
        drawn: NOW,
        ..Classic::plain(SERIAL, 0x0c01)
    };
    let mut w = common::classic::world(vec![hardened, Classic::plain(PLAIN, 0x0c02)]);
    assert_eq!(bring(&mut w, &hardened_frame(Peer::Cloud, 1, 0, 1), NOW), None);
    let mut kept = Copy::default();
    w = w.stopped(|store| kept = copy(store));
    for sequence in 1..6 {
        assert_eq!(bring(&mut w, &hardened_frame(Peer::Cloud, 1, sequence, 1), NOW), None);
    }
    assert_eq!((w.readings().len(), sequences(&w)), (6, vec![0, 1, 2, 3, 4, 5]));
    let now = NOW.plus(3_600_000);
    w = w.stopped(|store| put_back(store, &kept, now));
    w.now = now.plus(60_000);
    w
}

#[test]
fn recordings_of_hardened_classic_frames_are_no_readings_until_a_key_is_drawn_that_no_recording_has() {
    let mut w = classics_after_a_restore();
    for expected in [None, Some(Code::HardenedReplayed)] {
        for sequence in 0..6 {
            let code = bring(&mut w, &hardened_frame(Peer::Cloud, 1, sequence, 1), NOW);
            assert_eq!(code, if sequence == 0 { Some(Code::HardenedReplayed) } else { expected }, "{sequence}");
        }
        w = w.restart();
    }
    assert_eq!((w.readings().len(), held(&w).len(), w.count(Code::CloudHeld)), (1, 5, 5));
    assert_eq!(sequences(&w), [0], "nor are they shown in any other way");
    // By a gateway's word about such a key as well.
    let inner = binary(SERIAL, "node_01", 7, &[52, 80]);
    let bytes = said(&hardened_frame(Peer::Gateway, 1, 7, 9), Carrier::Http, Some(&inner));
    w.post_second(&[envelope(SERIAL, &bytes, NOW)]);
    assert_eq!((w.readings().len(), held(&w).len()), (1, 6));
    // What nothing proves anyway goes on, and so does the node under a key of after.
    let now = w.now;
    assert_eq!(bring_of(&mut w, PLAIN, &binary(PLAIN, "node_02", 5, &[52, 80]), now), None);
    assert_eq!(w.readings().len(), 2);
    (w.source.classics[0].hardened_key, w.source.classics[0].drawn) = (Some([2; 32]), now);
    w.reload();
    assert_eq!(bring(&mut w, &hardened_frame(Peer::Cloud, 1, 60, 2), now), None);
    assert_eq!((w.readings().len(), held(&w).len()), (3, 6));
}

#[test]
fn held_classic_frames_say_what_they_would_have_said_when_they_are_released() {
    let mut w = classics_after_a_restore();
    for sequence in 1..6 {
        bring(&mut w, &hardened_frame(Peer::Cloud, 1, sequence, 1), NOW);
    }
    let newest = w.ledger().last().unwrap().id;
    let did = w.source.classics[0].did();
    let last = w.cloud.memory().read(|r| r.last_of(did)).unwrap();
    assert_eq!(last, Some((NOW, 1)), "of what is held nothing is heard");
    let (w, count) = released(w, Release { device: Some(did), ..Release::default() });
    assert_eq!((count, sequences(&w)), (5, vec![0, 1, 2, 3, 4, 5]));
    assert!(shown(&w).iter().all(|(_, at)| *at == shown(&w)[0].1), "when they were received");
    let next = Query { cursor: Some(newest), limit: 100, ..Query::default() };
    let followed = w.cloud.memory().read(|r| r.readings(&next)).unwrap();
    assert_eq!(followed.len(), 5);
    let as_ever = w.readings()[0].classic.clone().unwrap();
    for (reading, sequence) in followed.iter().zip(1u8..) {
        let classic = reading.classic.clone().unwrap();
        assert_eq!((classic.sequence, &classic.content), (Some(sequence), &as_ever.content));
    }
    let db = Connection::open(&w.path).unwrap();
    let raw: i64 = db.query_row("SELECT count(*) FROM sensorCloud", [], |r| r.get(0)).unwrap();
    assert_eq!(raw, 6, "frames for the cloud, as they came");
}

#[test]
fn what_is_released_is_counted_once() {
    let (mut w, _, captured) = after_a_restore(&enrolled(Mode::Persistent));
    let (first, rest) = (&captured[1..15], &captured[15..]);
    w.post_second(&first.iter().map(Sent::envelope).collect::<Vec<_>>());
    let counted = sizes(&w);
    assert_eq!(counted.map(|(rows, _)| rows), [15, 15]);
    w.post(&rest.iter().map(Sent::envelope).collect::<Vec<_>>());
    // A reader has measured them, and nobody took note of it yet.
    let measured = w.cloud.memory().read(|r| r.measure(100)).unwrap();
    let (gateway, second) = (Some(w.gateway.proven.gateway()), Some(w.second.proven.gateway()));
    let (w, count) = released(w, Release { gateway: second, ..Release::default() });
    assert_eq!(count, 14);
    w.cloud.memory().store().measured(measured).unwrap();
    let after = sizes(&w);
    assert_eq!(after.map(|(rows, _)| rows), [21, 21]);
    // Some are measured and some are not; none is counted twice, however often it is said.
    let newest = w.ledger().last().unwrap().id;
    let (w, count) = released(w, Release { gateway, ..Release::default() });
    assert_eq!((count, sizes(&w)), (6, after));
    assert!(w.ledger().last().unwrap().id > newest);
    let db = Connection::open(&w.path).unwrap();
    let sql = "SELECT count(*), sum(length(payload)) FROM reading";
    let (rows, bytes): (u32, u32) = db.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    let (rows, bytes) = (u64::from(rows), u64::from(bytes));
    assert_eq!(after, [(rows, bytes), (rows, rows * 100)]);
}
