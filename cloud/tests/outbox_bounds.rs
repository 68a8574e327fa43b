//! Readings out, under payloads that say too much, beside pruning, and of letters whose reading is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod common;
mod sinks;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::signer::{signature_item, signing_world};
use common::{NOW, Node, READING, World, device, word};
use fivefold_cloud::accepted::flag;
use fivefold_cloud::cloud::Cloud;
use fivefold_cloud::embedded::Embedded;
use fivefold_cloud::limits::{Part, Step};
use fivefold_cloud::outbox::run;
use fivefold_cloud::store::{Asked, Dead, OutboxMove, OutboxRow, OutboxSink, OutboxWrite, Write};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::reading::Payload;
use fivefold_core::wire::envelope::Kind;
use fivefold_sinks::{Answer, Most, Outbound, Sending, Sink, Verdict};
use sinks::Virtual;

fn commit(cloud: &Cloud<Embedded>, outbox: OutboxWrite) {
    cloud.memory().store().commit_now(Write { now: NOW, outbox, ..Write::default() }).unwrap();
}

fn enter(cloud: &Cloud<Embedded>, names: &[&str]) {
    let of = |name: &&str| OutboxSink { name: (*name).to_owned(), kind: "webhook", from_start: true };
    let outbox = OutboxWrite { sinks: Some(names.iter().map(of).collect()), ..OutboxWrite::default() };
    commit(cloud, outbox);
}

fn moved(cloud: &Cloud<Embedded>, moved: OutboxMove) {
    let moves = vec![OutboxMove { name: "plant".into(), ..moved }];
    commit(cloud, OutboxWrite { moves, ..OutboxWrite::default() });
}

fn row(cloud: &Cloud<Embedded>) -> OutboxRow {
    cloud.memory().read(|r| r.outbox()).unwrap().remove(0)
}

/// `[{bn: long, n: ""...}, ..]`: a base name, and records of three bytes that all have it.
fn repeated(name: usize, records: usize) -> Vec<u8> {
    let mut bytes = vec![0x9a];
    bytes.extend(u32::try_from(records + 1).unwrap().to_be_bytes());
    if records < 1 << 16 {
        bytes = vec![0x99];
        bytes.extend(u16::try_from(records + 1).unwrap().to_be_bytes());
    }
    bytes.extend([0xa1, 0x21]);
    match u8::try_from(name) {
        Ok(short) => bytes.extend([0x78, short]),
        Err(_) => {
            bytes.push(0x7a);
            bytes.extend(u32::try_from(name).unwrap().to_be_bytes());
        }
    }
    bytes.resize(bytes.len() + name, b'a');
    bytes.extend([0xa1, 0x02, 0x00].repeat(records));
    bytes
}

/// Takes everything, and remembers what it was: id, bytes of the payload, values.
struct Takes(Arc<Mutex<Vec<(String, usize, usize)>>>);

impl Sink for Takes {
    fn most(&self) -> Most {
        Most { readings: 4096, bytes: 8 << 20 }
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        let weight: usize = batch.iter().map(|r| r.weight()).sum();
        assert!(batch.len() == 1 || weight <= 8 << 20, "{weight}");
        let of = |r: &Arc<Outbound>| (r.id.clone(), r.payload.len(), r.values.len());
        self.0.lock().unwrap().extend(batch.iter().map(of));
        Box::pin(std::future::ready(Answer::Taken))
    }
}

/// Everything that waits for the sink goes out; in order, what came.
fn all(cloud: &Arc<Cloud<Embedded>>, is_done: impl Fn(&OutboxRow) -> bool) -> Vec<(String, usize, usize)> {
    let taken = Arc::<Mutex<Vec<_>>>::default();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let clock = Virtual::at(NOW);
        tokio::spawn(run(cloud.clone(), "plant".into(), Box::new(Takes(taken.clone())), clock.clone()));
        until("done", &clock, || is_done(&row(cloud))).await;
    });
    Arc::try_unwrap(taken).ok().unwrap().into_inner().unwrap()
}

/// Time passes until it is so.
async fn until(what: &str, clock: &Virtual, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !tokio::task::block_in_place(&is) {
        assert!(started.elapsed() < Duration::from_secs(60), "never {what}");
        clock.pass(1000).await;
    }
}

/// Takes from everybody but one device, until it may.
struct Picky {
    but: Did,
    may: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<(Did, u64)>>>,
}

impl Sink for Picky {
    fn most(&self) -> Most {
        Most { readings: 10, bytes: 1 << 20 }
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        let verdicts = batch.iter().map(|r| {
            if r.did == self.but && !self.may.load(Ordering::Relaxed) {
                return Verdict::Retry("it has no right".into());
            }
            self.taken.lock().unwrap().push((r.did, r.number));
            Verdict::Done
        });
        Box::pin(std::future::ready(Answer::Each(verdicts.collect())))
    }
}

#[test]
fn a_device_that_a_sink_does_not_take_from_holds_up_no_other() {
    let devices: Vec<_> = [1, 2, 3].map(|sid| device(sid, Profile::ToCloud, Mode::Persistent)).into();
    let (dids, mut nodes) =
        ([0, 1, 2].map(|at: usize| devices[at].did), devices.iter().map(Node::of).collect::<Vec<_>>());
    let mut world = World::new(devices);
    for _ in 0..60 {
        let sent: Vec<_> = nodes.iter_mut().map(|node| node.send(READING)).collect();
        world.post(&sent.iter().map(common::Sent::envelope).collect::<Vec<_>>());
    }
    enter(&world.cloud, &["plant"]);
    let db = rusqlite::Connection::open(&world.path).unwrap();
    let (cloud, clock) = (Arc::new(world.cloud), Virtual::at(NOW));
    let (may, taken) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
    let start = || {
        let picky = Box::new(Picky { but: dids[0], may: may.clone(), taken: taken.clone() });
        tokio::spawn(run(cloud.clone(), "plant".into(), picky, clock.clone()))
    };
    let of = |did: Did| -> Vec<u64> {
        taken.lock().unwrap().iter().filter(|(d, _)| *d == did).map(|(_, number)| *number).collect()
    };
    let have = |n: usize| dids[1..].iter().all(|did| of(*did).len() == n);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let task = start();
        until("all of the others", &clock, || have(60)).await;
        until("that is said", &clock, || {
            row(&cloud).failed.is_some_and(|f| f.contains("it has no right") && f.contains(&dids[0].to_string()))
        })
        .await;
        assert!(of(dids[0]).is_empty());
        // Started anew the others come again, and nobody is passed over.
        task.abort();
        let _ = task.await;
        start();
        until("all of the others again", &clock, || have(120)).await;
        until("its place", &clock, || row(&cloud).waiting == 180).await;
        // What a person sends again and a label that is raised do not wait for it either.
        let dead = vec![Dead { reading: 2, label: false, said: "no".into() }];
        let asked = vec![("plant".to_owned(), Asked::Resend(None))];
        tokio::task::block_in_place(|| {
            moved(&cloud, OutboxMove { dead, ..OutboxMove::default() });
            commit(&cloud, OutboxWrite { asked, ..OutboxWrite::default() });
        });
        until("the letter", &clock, || row(&cloud).dead == 0).await;
        db.execute("INSERT INTO raised (reading) VALUES (2)", []).unwrap();
        until("the label", &clock, || of(dids[1]).len() == 122).await;
        assert_eq!((row(&cloud).waiting, of(dids[0]).len()), (180, 0), "and it is held yet");
        may.store(true, Ordering::Relaxed);
        until("all", &clock, || row(&cloud).waiting == 0).await;
    });
    assert_eq!(of(dids[0]), (0..60).collect::<Vec<_>>(), "once, and in order");
    assert_eq!(of(dids[1]), (0..60).chain(0..60).chain([0, 0]).collect::<Vec<_>>());
}

#[test]
fn a_payload_that_would_say_gigabytes_is_refused_at_once_and_says_why() {
    let mut world = World::new(vec![device(3, Profile::ToGateway, Mode::Persistent)]);
    // Half a megabyte of a name, 150,000 times.
    let plain = [&b"\x02\xFF"[..], &repeated(500_000, 150_000)].concat();
    assert!(plain.len() < 1 << 20);
    let started = Instant::now();
    let reply = world.post(&[word(Kind::GatewayOpened, Sid(3), 0, &plain)]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(reply.refused[0].1, Code::GatewayInnerMalformed);
    assert_eq!(world.explained(Code::GatewayInnerMalformed).reason, "a payload longer than 2048 bytes");
    let plain = [&b"\x02\xFF"[..], &repeated(129, 300)].concat();
    world.now = NOW.plus(60_000);
    assert_eq!(world.post(&[word(Kind::GatewayOpened, Sid(3), 1, &plain)]).refused.len(), 1);
    assert!(world.explained(Code::GatewayInnerMalformed).reason.contains("a name longer than 128 bytes"));
    assert_eq!(world.readings().len(), 0);
}

#[test]
fn what_an_earlier_cloud_stored_of_that_goes_out_without_its_values() {
    let one = device(1, Profile::ToCloud, Mode::Persistent);
    let (mut world, mut node) = (World::new(vec![one.clone()]), Node::of(&one));
    (0..24).for_each(|_| drop(world.post(&[node.send(READING).envelope()])));
    let long = repeated(500_000, 150_000);
    let db = rusqlite::Connection::open(&world.path).unwrap();
    db.execute("UPDATE reading SET payload = ? WHERE id > 2", [&long]).unwrap();
    enter(&world.cloud, &["plant"]);
    // A page holds 16 MiB of them, whatever it may hold of others.
    let page = world.cloud.memory().read(|r| r.outbox_page("plant", 4096)).unwrap();
    let held = page.readings.len();
    assert!((10..=20).contains(&held) && page.is_urgent, "{held}");
    assert_eq!(page.reading, held as i64, "and the sink is no further than that");
    let cloud = Arc::new(world.cloud);
    let taken = all(&cloud, |row| row.waiting == 0);
    let sizes: Vec<_> = taken.iter().map(|(_, payload, values)| (*payload, *values)).collect();
    assert_eq!(sizes, [vec![(READING.len(), 1); 2], vec![(long.len(), 0); 22]].concat());
}

#[test]
fn readings_that_say_as_much_as_they_may_all_go_out_in_order() {
    let one = device(1, Profile::ToCloud, Mode::Persistent);
    let (mut world, mut node) = (World::new(vec![one.clone()]), Node::of(&one));
    let payload = repeated(128, 630);
    assert!(Payload::parse(&payload).is_ok() && payload.len() <= Payload::LONGEST);
    for _ in 0..8 {
        let sent: Vec<_> = (0..40).map(|_| node.send(&payload)).collect();
        world.post(&sent.iter().map(common::Sent::envelope).collect::<Vec<_>>());
    }
    enter(&world.cloud, &["plant"]);
    let cloud = Arc::new(world.cloud);
    let taken = all(&cloud, |row| row.waiting == 0);
    // More than is prepared at a time: 630 values of 224 bytes each.
    assert_eq!((taken.len(), taken[0].2), (320, 630));
    let numbers: Vec<u64> = taken.iter().map(|(id, ..)| id.split('-').nth(5).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..320).collect::<Vec<_>>());
}

#[test]
fn no_reading_is_pruned_whose_raised_label_a_sink_has_not() {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    for _ in 0..3 {
        let sent = signer.reading(&mut node, READING);
        world.post(&[sent.envelope()]);
    }
    enter(&world.cloud, &["plant"]);
    moved(&world.cloud, OutboxMove { reading: Some(3), ..OutboxMove::default() });
    let now = NOW.plus(24 * 3_600_000);
    let prune = |world: &World, floor: i64| {
        let store = world.cloud.memory().store();
        let measured = world.cloud.memory().read(|r| r.measure(1000)).unwrap();
        store.measured(measured).unwrap();
        store.prune(Step { part: Part::Readings, before: now, excess: 0, floor, now, rows: 100 }).unwrap().rows
    };
    let floor = |world: &World| world.cloud.memory().read(|r| r.floor()).unwrap();
    // Two wait for a signature, though the sink has them and they are old enough.
    assert_eq!((floor(&world), prune(&world, 3), world.readings().len()), (Some(3), 0, 3));
    let item = signature_item(&signer.close());
    world.post(&[node.send(&item).envelope()]);
    assert_eq!(floor(&world), Some(1), "the sink has not heard that they are signed");
    // Neither by who asked for the floor nor by who asked before the signature came.
    assert_eq!((prune(&world, 1), prune(&world, i64::MAX), world.readings().len()), (0, 0, 4));
    let page = world.cloud.memory().read(|r| r.outbox_page("plant", 100)).unwrap();
    assert_eq!(page.labels.iter().map(|(_, r)| r.row.id).collect::<Vec<_>>(), [1, 2, 3]);
    moved(&world.cloud, OutboxMove { raised: Some(page.raised), ..OutboxMove::default() });
    assert_eq!(floor(&world), Some(3));
    assert_eq!((prune(&world, 3), world.readings().iter().map(|r| r.id).collect::<Vec<_>>()), (2, vec![3, 4]));
    // A sink that is not in cloud.toml holds nothing back, and is told what it missed.
    enter(&world.cloud, &[]);
    let sent: Vec<_> = (0..3).map(|_| node.send(b"\xA1\x04\x01")).collect();
    world.post(&sent.iter().map(common::Sent::envelope).collect::<Vec<_>>());
    assert_eq!(floor(&world), None);
    assert!(prune(&world, 7) >= 3);
    enter(&world.cloud, &["plant"]);
    assert_eq!(world.cloud.memory().read(|r| r.outbox_missed("plant")).unwrap(), 3, "4, 5 and 6");
}

#[test]
fn letters_whose_reading_is_gone_are_said_and_taken_out_and_none_goes_out_hollow() {
    let one = device(1, Profile::ToCloud, Mode::Persistent);
    let (mut world, mut node) = (World::new(vec![one.clone()]), Node::of(&one));
    (0..5).for_each(|_| drop(world.post(&[node.send(READING).envelope()])));
    enter(&world.cloud, &["plant"]);
    let dead = (1..=4).map(|reading| Dead { reading, label: false, said: "no".into() }).collect();
    moved(&world.cloud, OutboxMove { reading: Some(5), dead, ..OutboxMove::default() });
    assert_eq!((row(&world.cloud).dead, row(&world.cloud).void), (4, 0));
    let db = rusqlite::Connection::open(&world.path).unwrap();
    db.execute("UPDATE reading SET flags = flags | ? WHERE id = 1", [flag::QUARANTINED]).unwrap();
    db.execute("UPDATE reading SET flags = flags | ?, payload = x'' WHERE id = 2", [flag::PRUNED]).unwrap();
    db.execute("DELETE FROM reading WHERE id = 3", []).unwrap();
    assert_eq!((row(&world.cloud).dead, row(&world.cloud).void), (4, 3));
    let asked = vec![("plant".to_owned(), Asked::Resend(None))];
    commit(&world.cloud, OutboxWrite { asked, ..OutboxWrite::default() });
    let cloud = Arc::new(world.cloud);
    let taken = all(&cloud, |row| row.dead == 0);
    assert_eq!((taken.len(), taken[0].2), (1, 1), "{taken:?}");
    assert_eq!((row(&cloud).void, row(&cloud).sent), (0, 1));
}
