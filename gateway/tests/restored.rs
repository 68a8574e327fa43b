//! A gateway whose store was put back from a copy (docs/protocol.md 8.4): it seals nothing twice under one number, whatever
//! is played to it again, and answers again under what was agreed since.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use common::*;
use fivefold_core::id::BootContext;
use fivefold_core::profile::{Mode, Profile};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::set_seal_witness;
use fivefold_core::time::Millis;
use fivefold_core::wire::state::Standing;
use fivefold_core::wire::tiny::{KidLength, Tiny, Wants};
use fivefold_gateway::gateway::{Cloud, Gateway};
use fivefold_gateway::spool::{PutBack, Site, Spool, SpoolError, SpoolReader, restored};

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];
const HOUR: u64 = 3_600_000;

/// SHA-256(key ‖ nonce) of every seal of a story, with SHA-256(plaintext).
static SEALED: LazyLock<Mutex<HashMap<[u8; 32], [u8; 32]>>> = LazyLock::new(Mutex::default);
static REPEATED: LazyLock<Mutex<u32>> = LazyLock::new(Mutex::default);

fn watch(nonce: &[u8; 32], plaintext: &[u8; 32]) {
    if SEALED.lock().unwrap().insert(*nonce, *plaintext).is_some() {
        *REPEATED.lock().unwrap() += 1;
    }
}

/// A message as it was on the air: of what is behind E1, which whoever has the network key can frame anew.
type Recorded = Vec<u8>;

/// Stops a gateway, does something to its store, and starts it again at that time.
fn stopped(w: World, now: Millis, with: impl FnOnce(&Path)) -> World {
    let World { gateway, spool, boots, setup, dir, .. } = w;
    drop((gateway, spool));
    with(&dir.path().join("spool.db"));
    let boots = boots + 1;
    let boot = GatewayBoot([boots; 8]);
    let (spool, known) = Spool::open(&dir.path().join("spool.db"), boot, Box::new(Veil)).unwrap();
    let gateway = Gateway::new(now, setup(boot), known);
    let mut w = World { gateway, spool, now, persisted: 0, boot, boots, setup, dir, fuse: None, refusals: Vec::new() };
    w.gateway.handle_cloud(now, Cloud::Away);
    w.run();
    w
}

fn put_back(store: &Path, copy: &[u8], site: Site, now: Millis) -> PutBack {
    for beside in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{beside}", store.display()));
    }
    std::fs::write(store, copy).unwrap();
    restored(store, site, START, now).unwrap()
}

/// Answers of the gateway that its device understands.
fn answers(d: &mut Device, heard: &Heard) -> usize {
    let tiny = heard.air.iter().filter_map(|frame| d.hear(frame));
    tiny.filter(|t| matches!(Tiny::parse(t, KidLength::None), Ok(Tiny::Answer { .. }))).count()
}

/// Sends a message again or for the first time.
fn play(w: &mut World, d: &mut Device, message: &Recorded) -> usize {
    let frame = d.on_air(message);
    let heard = w.frame(&frame);
    let now = answers(d, &heard);
    let later = w.wait(500);
    now + answers(d, &later)
}

fn say(w: &mut World, d: &mut Device, record: &mut Vec<Recorded>) -> usize {
    let (message, _) = d.tiny(READING, Wants::Answer);
    let n = play(w, d, &message);
    record.push(message);
    n
}

/// The device has heard the gateway's counters up to there, as by HELLO, and the gateway the device's.
fn greeted(w: &mut World, d: &mut Device, counter: u32) {
    d.link.danger_assume_synced(did(200), GATEWAY_SID, 1, counter).unwrap();
    let last = d.link.keys().sending().unwrap();
    let _ = w.gateway.danger_assume_synced(d.did, d.sid, last, 0);
}

fn story(profile: Profile, mode: Mode) {
    SEALED.lock().unwrap().clear();
    let what = format!("{profile} {mode}");
    let mut d = Device::new(1, profile);
    d.policy.mode = mode;
    let boots = |d: &mut Device, n: u8| {
        if mode == Mode::Random {
            (d.bctx, d.next) = (Some(BootContext([n; 8])), 0);
        }
    };
    boots(&mut d, 1);
    let mut w = World::of(&[&d]);
    w.gateway.handle_cloud(w.now, Cloud::Away);
    let mut record = Vec::new();
    for _ in 0..2 {
        assert_eq!(say(&mut w, &mut d, &mut record), 1, "{what}");
    }
    let mut copy = Vec::new();
    w = stopped(w, START, |store| copy = std::fs::read(store).unwrap());
    greeted(&mut w, &mut d, 0);
    // What the copy does not know: numbers, a boot, and a context of its own.
    for _ in 0..3 {
        assert_eq!(say(&mut w, &mut d, &mut record), 1, "{what}");
    }
    boots(&mut d, 2);
    if mode == Mode::Persistent {
        d.renew(2);
        w.push(&state(2, &[&d], Standing::Active)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(say(&mut w, &mut d, &mut record), 1, "{what}");
    }
    let mut version = 2;
    for put in [1, 2] {
        let now = START.plus(put * HOUR);
        let mut done = None;
        w = stopped(w, now, |store| done = Some(put_back(store, &copy, Site::WithCloud, now)));
        let done = done.unwrap();
        assert!(done.contexts >= 1 && done.floor > 1024 * 3600, "{what}: {done:?}");
        greeted(&mut w, &mut d, done.floor - 1);
        let replay = |w: &mut World, d: &mut Device| {
            for message in &record {
                assert_eq!(play(w, d, message), 0, "{what}: a recording was answered");
            }
        };
        // Before the cloud has said anything, and after it has.
        replay(&mut w, &mut d);
        version += 1;
        w.push(&state(version, &[&d], Standing::Active)).unwrap();
        replay(&mut w, &mut d);
        let stored = w.stored().len();
        assert_eq!(say(&mut w, &mut d, &mut Vec::new()), 0, "{what}: a context of before is spent");
        assert!(w.stored().len() > stored, "{what}: what it says is taken");
        // A restart forgets nothing of it.
        let at = w.now;
        w = stopped(w, at, |_| ());
        greeted(&mut w, &mut d, done.floor - 1);
        replay(&mut w, &mut d);
        boots(&mut d, 10 + put as u8);
        if mode == Mode::Random {
            assert_eq!(say(&mut w, &mut d, &mut Vec::new()), 0, "{what}: nor is any other boot answered");
        }
        assert_eq!(*REPEATED.lock().unwrap(), 0, "{what}: a nonce was used twice");
        // What is agreed now is new; in mode R that takes another enrolment.
        let mut fresh = Device::new(1, profile);
        (fresh.policy, fresh.link) = (d.policy, std::mem::replace(&mut d.link, Device::new(1, profile).link));
        match mode {
            Mode::Persistent => fresh.renew(10 + put as u16),
            Mode::Random => fresh.root = fivefold_core::e2_gateway::E2Root::new([0x70 + put as u8; 32]),
        }
        boots(&mut fresh, 20 + put as u8);
        version += 1;
        w.push(&state(version, &[&fresh], Standing::Active)).unwrap();
        assert_eq!(say(&mut w, &mut fresh, &mut Vec::new()), 1, "{what}: it is answered again");
        assert_eq!(*REPEATED.lock().unwrap(), 0, "{what}: a nonce was used twice");
        d.link = fresh.link;
    }
}

#[test]
fn what_was_said_since_the_copy_is_not_said_again_under_the_same_number_whatever_is_played() {
    set_seal_witness(watch);
    for profile in [Profile::ToGateway, Profile::ToBoth] {
        for mode in [Mode::Persistent, Mode::Random] {
            story(profile, mode);
        }
    }
    a_copy_of_which_no_number_is_left_is_refused_and_untouched();
}

/// Not a test of its own: the witness is one for the process.
fn a_copy_of_which_no_number_is_left_is_refused_and_untouched() {
    let d = Device::new(1, Profile::ToGateway);
    let w = World::of(&[&d]);
    let path = w.path();
    assert!(matches!(restored(&path, Site::WithCloud, START, START), Err(SpoolError::InUse { .. })));
    stopped(w, START, |store| {
        let before = std::fs::read(store).unwrap();
        let day = 24 * HOUR;
        for (then, now, why) in [
            (START.plus(1), START, "it is from the future"),
            (START, START.plus(50 * day), "none is left"),
            (START, START.plus(20_000 * day), "none is left"),
        ] {
            let error = restored(store, Site::WithCloud, then, now).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("check the clock"), "{error}");
        }
        assert_eq!(std::fs::read(store).unwrap(), before);
        // Put back day after day, the same copy ends too.
        let days = (0..60).take_while(|_| restored(store, Site::WithCloud, START, START.plus(day)).is_ok()).count();
        assert!((30..45).contains(&days), "{days}");
    });
}

#[test]
fn a_store_that_was_put_back_has_a_format_that_the_release_before_refuses_and_no_other_one_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let format = || -> i64 {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
    };
    let opened = || drop(Spool::open(&path, GatewayBoot([1; 8]), Box::new(Veil)).unwrap());
    opened();
    opened();
    assert_eq!(format(), 1);
    restored(&path, Site::WithCloud, START, START.plus(HOUR)).unwrap();
    assert_eq!(format(), 2);
    opened();
    assert_eq!(format(), 2);
    assert!(SpoolReader::open(&path).unwrap().is_some());
}
