//! Pruning: whatever goes, whenever it goes, no repeat becomes a reading, nothing goes that is not due, and no id comes again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::classic::{Classic, SERIAL, binary, envelope, report};
use common::signer::{Signer, signature_item};
use common::*;
use fivefold_cloud::accepted::{ContextId, MessageHash, flag};
use fivefold_cloud::limits::{Floors, Part, ROWS, Step, UNPROVEN};
use fivefold_cloud::store::{JOURNAL, LogWrite, Quarantined, Reader, ReadingRow, Store, StoreError, Write};
use fivefold_core::error::Code;
use fivefold_core::id::{GatewayId, Sid};
use fivefold_core::profile::{Mode, Profile, Sign};
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind};
use fivefold_keep::registry::Device;
use proptest::prelude::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const PLAIN: u16 = 1;
const RANDOM: u16 = 2;
const WORD: u16 = 3;
const LINK: u16 = 4;
const SIGNS: u16 = 5;

/// What was on the way at some time.
#[derive(Clone)]
enum Heard {
    Sealed(Sent),
    Word(Kind, u16, u64, Vec<u8>),
    /// With the number of its envelope: a gateway that brings it again says the same.
    Classic(Vec<u8>, Millis, u64),
}

impl Heard {
    fn post(&self, w: &mut World) {
        match self {
            Self::Sealed(sent) => w.post(&[sent.envelope()]),
            Self::Word(kind, sid, piv, bytes) => w.post(&[word(*kind, Sid(*sid), *piv, bytes)]),
            Self::Classic(bytes, at, seq) => w.post(&[Envelope { seq: *seq, ..envelope(SERIAL, bytes, *at) }]),
        };
    }
}

fn store(w: &World) -> &Store {
    w.cloud.memory().store()
}

fn read<T>(w: &World, ask: impl FnOnce(&Reader) -> Result<T, StoreError>) -> T {
    w.cloud.memory().read(ask).unwrap()
}

fn measure(w: &World, most: u32) {
    loop {
        let measured = read(w, |r| r.measure(most));
        store(w).measured(measured).unwrap();
        if measured.is_all() {
            return;
        }
    }
}

/// All steps that are due for a part.
fn prune(w: &World, step: Step) -> u64 {
    measure(w, 7);
    let mut rows = 0;
    loop {
        let stepped = store(w).prune(step).unwrap();
        rows += stepped.rows;
        if stepped.is_done {
            return rows;
        }
    }
}

fn step(part: Part, now: Millis, older: u64) -> Step {
    Step { part, before: Millis(now.0.saturating_sub(older)), excess: 0, floor: i64::MAX, now, rows: ROWS }
}

/// What waits for the log has its place there.
fn place(w: &World) {
    let waiting = read(w, |r| r.log_waiting(10_000));
    let (_, next) = read(w, |r| r.log_standing());
    let placed = waiting.iter().zip(next..).map(|(entry, index)| (entry.row, index)).collect();
    let log = LogWrite { placed, ..LogWrite::default() };
    store(w).commit_now(Write { log, ..Write::default() }).unwrap();
}

fn devices() -> Vec<Device> {
    let mut signs = device(SIGNS, Profile::ToCloud, Mode::Persistent);
    signs.policy.sign = Sign::Batch;
    vec![
        device(PLAIN, Profile::ToCloud, Mode::Persistent),
        device(RANDOM, Profile::ToCloud, Mode::Random),
        device(WORD, Profile::ToGateway, Mode::Persistent),
        device(LINK, Profile::DangerLinkOnly, Mode::Persistent),
        signs,
    ]
}

/// Two clouds that hear the same; one of them prunes.
struct Twins {
    pruned: World,
    whole: World,
    plain: Node,
    random: Node,
    signs: Node,
    signer: Signer,
    signed: usize,
    boots: u8,
    numbers: u64,
    heard: Vec<Heard>,
    /// What was due at some time: what came before this, below this id.
    due: Vec<(u64, i64)>,
}

impl Twins {
    fn new() -> Self {
        let all = devices();
        let signer = Signer::new(&all[4]);
        let world = || {
            let mut w = World::renewing(devices(), Vec::new());
            w.source.classics = vec![Classic::plain(SERIAL, 0x0b01)];
            signer.enter(&mut w);
            w
        };
        Self {
            pruned: world(),
            whole: world(),
            plain: Node::of(&all[0]),
            random: Node::boot(&all[1], 1),
            signs: Node::of(&all[4]),
            signer,
            signed: 0,
            boots: 1,
            numbers: 0,
            heard: Vec::new(),
            due: Vec::new(),
        }
    }

    fn both(&mut self, mut act: impl FnMut(&mut World)) {
        act(&mut self.pruned);
        act(&mut self.whole);
    }

    fn hear(&mut self, heard: Heard) {
        self.both(|w| heard.post(w));
        self.heard.push(heard);
    }

    fn speak(&mut self, who: u16) {
        self.numbers += 1;
        let number = self.numbers;
        let heard = match who {
            PLAIN => Heard::Sealed(self.plain.send(READING)),
            RANDOM => Heard::Sealed(self.random.send(READING)),
            SIGNS if self.signed < 8 => {
                self.signed += 1;
                Heard::Sealed(self.signer.reading(&mut self.signs, READING))
            }
            SIGNS => return self.sign(),
            WORD => Heard::Word(Kind::GatewayOpened, WORD, number, [b"\x02\xFF", READING].concat()),
            LINK => Heard::Word(Kind::DangerPlain, LINK, number, READING.to_vec()),
            _ => {
                let frame = binary(SERIAL, "node_01", number as u8, &[52, number as u8]);
                Heard::Classic(report(&frame, None), self.pruned.now, 0)
            }
        };
        self.hear(heard);
        let seq = self.pruned.gateway.seq;
        if let Some(Heard::Classic(.., known)) = self.heard.last_mut() {
            *known = seq;
        }
    }

    fn sign(&mut self) {
        if self.signed > 0 {
            self.signed = 0;
            let closed = self.signer.close();
            let sent = self.signs.send(&signature_item(&closed));
            self.hear(Heard::Sealed(sent));
        }
    }

    /// The first device gets new keys; those before drain once it used them.
    fn renew(&mut self) {
        self.both(|w| drop(w.enrol_again(PLAIN)));
        let device = self.pruned.source.devices[0].clone();
        self.plain = Node::of(&device);
        self.speak(PLAIN);
    }

    fn pass(&mut self, time: u64) {
        self.both(|w| {
            w.now = w.now.plus(time);
            let due = w.cloud.handle_timeout(w.now);
            store(w).commit_now(due).unwrap();
        });
    }

    fn prune(&mut self, older: u64, excess: u64, floor: i64, rows: u32) {
        place(&self.pruned);
        let now = self.pruned.now;
        let step = |part| Step { excess, floor, rows, ..step(part, now, older) };
        for part in Part::ALL {
            prune(&self.pruned, step(part));
        }
        self.due.push((if excess > 0 { u64::MAX } else { step(Part::Readings).before.0 }, floor));
    }

    fn restart(self) -> Self {
        Self { pruned: self.pruned.restart(), whole: self.whole.restart(), ..self }
    }

    /// Everything that was ever heard comes again: nothing of it is new, and it is called what the whole cloud calls it.
    fn replay(&mut self) {
        let rows = |w: &World| {
            let ids: BTreeSet<i64> = w.ledger().iter().map(|r| r.id).collect();
            (ids, w.readings())
        };
        let (before, whole_before) = (rows(&self.pruned), rows(&self.whole));
        for heard in self.heard.clone() {
            self.both(|w| heard.post(w));
        }
        assert_eq!(rows(&self.pruned), before, "a repeat became a reading");
        assert_eq!(rows(&self.whole), whole_before);
        let counts = |w: &World| {
            let all = read(w, |r| r.counts()).into_iter();
            all.map(|row| (row.key.code, row.count))
                .filter(|(code, _)| *code != Code::EvidenceIncomplete)
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(&self.pruned), counts(&self.whole));
    }

    /// What is there of what should be, and nothing else.
    fn check(&self) {
        let (kept, all) = (self.pruned.readings(), self.whole.readings());
        let ids: BTreeSet<i64> = kept.iter().map(|r| r.id).collect();
        for row in &kept {
            assert!(all.contains(row), "altered: {row:?}");
        }
        for row in &all {
            let may_go = self.due.iter().any(|(before, floor)| row.ingested.0 < *before && row.id < *floor);
            assert!(ids.contains(&row.id) || may_go, "it was not due: {row:?}");
        }
        let newest = |w: &World| read(w, |r| r.last_id());
        assert_eq!(newest(&self.pruned), newest(&self.whole), "an id came again");
        self.gauges();
    }

    /// What is counted is what is there.
    fn gauges(&self) {
        measure(&self.pruned, 10_000);
        let part = |part| read(&self.pruned, |r| r.part(part));
        let ledger = self.pruned.ledger();
        let kept: Vec<&ReadingRow> = ledger.iter().filter(|r| r.flags & flag::PRUNED == 0).collect();
        assert_eq!(part(Part::Ledger).rows, ledger.len() as u64);
        assert_eq!(part(Part::Readings).rows, kept.len() as u64);
        let gone = ledger.iter().filter(|r| r.flags & flag::PRUNED != 0);
        assert!(gone.clone().all(|r| r.payload.is_empty() && r.classic.is_none()));
        let payloads: u64 = kept.iter().map(|r| r.payload.len() as u64).sum();
        let said = part(Part::Readings).bytes;
        assert!(said >= payloads && said <= payloads + 400 * kept.len() as u64, "{said} of {payloads}");
        if kept.is_empty() {
            assert_eq!(said, 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Speak(u16),
    Again(usize),
    Reuse,
    Sign,
    Renew,
    Boot,
    Pass(u64),
    Prune { older: u64, excess: u64, rows: u32, floor: Option<i64> },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let prune = (
        prop_oneof![Just(u64::MAX / 4), 0..30u64],
        prop_oneof![3 => Just(0u64), 1 => 1..2_000u64],
        1..40u32,
        prop::option::of(1..40i64),
    );
    prop_oneof![
        8 => (PLAIN..=6).prop_map(Act::Speak),
        2 => any::<usize>().prop_map(Act::Again),
        1 => Just(Act::Reuse),
        1 => Just(Act::Sign),
        1 => Just(Act::Renew),
        1 => Just(Act::Boot),
        3 => (1..200u64).prop_map(Act::Pass),
        3 => prune.prop_map(|(older, excess, rows, floor)| Act::Prune { older, excess, rows, floor }),
        1 => Just(Act::Restart),
    ]
}

fn live(acts: Vec<Act>) {
    let mut t = Twins::new();
    for act in acts {
        match act {
            Act::Speak(who) => t.speak(who),
            Act::Again(n) if !t.heard.is_empty() => {
                let heard = t.heard[n % t.heard.len()].clone();
                t.both(|w| heard.post(w));
            }
            Act::Again(_) => {}
            Act::Reuse if t.numbers > 0 => {
                let other = [&b"\x02\xFF"[..], b"\x81\xA2\x00\x61a\x02\x01"].concat();
                t.hear(Heard::Word(Kind::GatewayOpened, WORD, t.numbers, other));
            }
            Act::Reuse => {}
            Act::Sign => t.sign(),
            Act::Renew => t.renew(),
            Act::Boot => {
                t.boots += 1;
                t.random = Node::boot(&devices()[1], t.boots);
                t.speak(RANDOM);
            }
            Act::Pass(hours) => t.pass(hours * HOUR),
            Act::Prune { older, excess, rows, floor } => {
                t.prune(older.saturating_mul(DAY), excess, floor.unwrap_or(i64::MAX), rows);
            }
            Act::Restart => t = t.restart(),
        }
    }
    t.check();
    t.replay();
    // Whatever drains has drained, and its rows go.
    t.pass(7 * DAY);
    t.pass(DAY);
    t.prune(0, 0, i64::MAX, 50);
    t.check();
    t.replay();
    t = t.restart();
    t.replay();
    // A clock that is set back opens nothing again.
    t.both(|w| w.now = Millis(w.now.0 - 300 * DAY));
    let rows = t.pruned.ledger().len();
    for heard in t.heard.clone() {
        heard.post(&mut t.pruned);
    }
    assert_eq!(t.pruned.ledger().len(), rows);
    t.both(|w| w.now = Millis(w.now.0 + 300 * DAY));
    t.speak(LINK);
    t.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whenever_it_is_pruned_no_repeat_becomes_a_reading_and_no_id_comes_again(acts in prop::collection::vec(act(), 10..40)) {
        live(acts);
    }
}

#[test]
fn rows_go_when_the_keys_of_their_context_are_erased_and_not_before() {
    let mut t = Twins::new();
    for who in [PLAIN, PLAIN, WORD, LINK, RANDOM, 6, PLAIN] {
        t.speak(who);
    }
    t.renew();
    t.pass(95 * HOUR);
    t.prune(0, 0, i64::MAX, ROWS);
    // All is pruned but what readings are known by; the value that gives the next its id stays.
    assert_eq!((t.pruned.ledger().len(), t.pruned.readings().len()), (8, 1));
    t.pass(DAY + 2 * HOUR);
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!(t.pruned.ledger().len(), 8, "its keys were erased just now");
    t.pass(DAY);
    t.prune(0, 0, i64::MAX, ROWS);
    let left = t.pruned.ledger();
    // The three of the old context are gone, and nothing else.
    assert_eq!((left.len(), t.whole.ledger().len()), (5, 8));
    assert_eq!(read(&t.pruned, |r| r.part(Part::Ledger)).pruned, 3);
    t.replay();
    t.check();
}

#[test]
fn the_newest_row_stays_so_that_its_id_is_never_used_again() {
    let mut t = Twins::new();
    t.speak(PLAIN);
    // The last thing of all is a row that could go.
    let late = t.plain.send(READING);
    t.renew();
    t.hear(Heard::Sealed(late));
    let newest = read(&t.pruned, |r| r.last_id());
    t.pass(10 * DAY);
    t.pass(DAY);
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!((t.pruned.ledger().len(), read(&t.pruned, |r| r.last_id())), (2, newest));
    t = t.restart();
    t.speak(LINK);
    assert_eq!(read(&t.pruned, |r| r.last_id()), newest + 1);
    t.check();
}

#[test]
fn what_a_signature_may_come_over_waits_for_it_and_goes_when_it_was_verified() {
    let mut t = Twins::new();
    t.speak(SIGNS);
    t.speak(SIGNS);
    t.speak(PLAIN);
    t.prune(0, 0, i64::MAX, ROWS);
    // Of now nothing is older than now.
    assert_eq!(t.pruned.readings().len(), 3);
    t.pass(DAY);
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!(t.pruned.readings().len(), 2, "unproven ones stay");
    t.sign();
    assert!(t.pruned.readings().iter().filter(|r| r.origin.as_str() == "signed").count() == 2);
    t.pass(HOUR);
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!(t.pruned.readings().len(), 0);
    assert_eq!(read(&t.pruned, |r| r.part(Part::Evidence)).bytes, 0);
    t.replay();
    // Others are given up after a while.
    t.speak(SIGNS);
    t.pass(UNPROVEN + HOUR);
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!(t.pruned.readings().len(), 0);
    t.check();
    t.replay();
}

#[test]
fn what_proves_readings_may_go_before_them_and_that_is_said_of_each() {
    let mut t = Twins::new();
    t.speak(SIGNS);
    t.speak(SIGNS);
    t.sign();
    t.pass(DAY);
    place(&t.pruned);
    let did = devices()[4].did;
    let evidence = |t: &Twins| read(&t.pruned, |r| r.evidence(did, Millis(0), t.pruned.now, 100));
    let proven = |t: &Twins| evidence(t).iter().filter(|row| row.proof.is_some()).count();
    assert_eq!((proven(&t), evidence(&t).iter().filter(|row| row.is_pruned).count()), (2, 0));
    prune(&t.pruned, step(Part::Evidence, t.pruned.now, 0));
    assert_eq!((proven(&t), evidence(&t).iter().filter(|row| row.is_pruned).count()), (0, 2));
    let labels = t.pruned.readings();
    assert_eq!(labels.iter().filter(|r| r.origin.as_str() == "signed").count(), 2, "they were verified");
    t.replay();
    t.prune(0, 0, i64::MAX, ROWS);
    assert_eq!(evidence(&t).iter().filter(|row| row.is_pruned).count(), evidence(&t).len());
    t.replay();
}

#[test]
fn nothing_goes_from_the_floor_on_or_above_what_is_too_much_or_what_the_log_has_not() {
    let mut t = Twins::new();
    for _ in 0..10 {
        t.speak(PLAIN);
    }
    t.pass(DAY);
    let floors = Floors { undelivered: Some(4), not_backed_up: Some(7) };
    let policy = fivefold_keep::share::CloudLimits {
        readings: fivefold_keep::share::CloudLimit { days: Some(1), max_mib: None },
        ..Default::default()
    };
    let policy = fivefold_cloud::limits::Policy::check(&policy).unwrap();
    prune(&t.pruned, policy.step(Part::Readings, 0, floors, t.pruned.now.plus(1)).unwrap());
    assert_eq!(t.pruned.readings().iter().map(|r| r.id).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10]);
    let each = read(&t.pruned, |r| r.part(Part::Readings)).bytes / 7;
    let surplus = Step { excess: 2 * each, ..step(Part::Readings, t.pruned.now, u64::MAX) };
    assert_eq!(store(&t.pruned).prune(surplus).unwrap().rows, 2);
    assert_eq!(t.pruned.readings()[0].id, 6);
    // Receipts whose place in the log is not known stay, however old.
    let evidence = step(Part::Evidence, t.pruned.now, 0);
    assert_eq!(prune(&t.pruned, evidence), 0);
    place(&t.pruned);
    assert_eq!(prune(&t.pruned, evidence), 10);
    assert_eq!(read(&t.pruned, |r| r.log_waiting(100)).len(), 0);
}

#[test]
fn a_store_of_before_is_counted_once_it_is_opened() {
    let mut t = Twins::new();
    for who in [PLAIN, LINK, 6, WORD] {
        t.speak(who);
    }
    measure(&t.pruned, 10_000);
    t.pruned = t.pruned.stopped(|path| older::take_back(path, 18));
    assert_eq!(read(&t.pruned, |r| r.part(Part::Readings)).rows, 0);
    t.gauges();
    assert_eq!(read(&t.pruned, |r| r.part(Part::Readings)).rows, 4);
    t.pass(DAY);
    t.prune(0, 0, i64::MAX, ROWS);
    t.replay();
}

/// Set by the test below for itself, in a process whose files cannot grow further.
const SMALL: &str = "FIVEFOLD_TEST_SMALL_DISK";

#[test]
fn on_a_full_disk_pruning_goes_on_and_what_was_acknowledged_is_there() {
    let Ok(path) = std::env::var(SMALL) else {
        let folder = tempfile::tempdir().unwrap();
        let name = "on_a_full_disk_pruning_goes_on_and_what_was_acknowledged_is_there";
        // Blocks of 512 bytes: 2 MiB for each file, the journal too.
        let done = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(SMALL, folder.path().join("readings.db"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("full after"), "{said}");
        return;
    };
    let path = PathBuf::from(path);
    let d = device(PLAIN, Profile::ToCloud, Mode::Persistent);
    let mut w = World::new(vec![d.clone()]);
    let cloud = start(&path, &w.source, None, NOW);
    let mut node = Node::of(&d);
    let long = [&b"\x81\xA2\x00\x64text\x03\x79\x02\x58"[..], &[b'x'; 600]].concat();
    let mut taken: Vec<Sent> = Vec::new();
    let post = |w: &mut World, sent: &[Sent]| {
        let envelopes: Vec<_> = sent.iter().map(Sent::envelope).collect();
        let body = w.gateway.batch(&envelopes);
        let mut judged = cloud.judge(&w.gateway.proven, &body, NOW).unwrap();
        let write = std::mem::take(&mut judged.write);
        cloud.memory().store().commit_now(write)
    };
    let refused = loop {
        let batch: Vec<Sent> = (0..20).map(|_| node.send(&long)).collect();
        match post(&mut w, &batch) {
            Ok(_) => taken.extend(batch),
            Err(_) => break batch,
        }
    };
    println!("full after {} readings", taken.len());
    assert!(taken.len() > 100);
    let ledger = || cloud.memory().read(|r| r.ledger()).unwrap();
    assert_eq!(ledger().len(), taken.len());
    // There is no room for what is counted either, until the journal has gone into the file.
    loop {
        let measured = cloud.memory().read(|r| r.measure(100)).unwrap();
        cloud.memory().store().measured(measured).unwrap();
        if measured.is_all() {
            break;
        }
    }
    let mut rows = 0;
    loop {
        let half = Step { rows: 16, floor: taken.len() as i64 / 2, ..step(Part::Readings, NOW.plus(1), 0) };
        let stepped = cloud.memory().store().prune(half).unwrap();
        rows += stepped.rows;
        if stepped.is_done {
            break;
        }
    }
    assert_eq!(rows, taken.len() as u64 / 2 - 1);
    let (gone, kept): (Vec<_>, Vec<_>) = ledger().into_iter().partition(|r| r.flags & flag::PRUNED != 0);
    assert_eq!((gone.len() as u64, kept.len()), (rows, taken.len() - rows as usize));
    assert!(kept.iter().all(|r| r.payload == long) && gone.iter().all(|r| r.id < kept[0].id));
    // What was refused is taken now that there is room, and what was taken is not taken twice.
    post(&mut w, &refused).unwrap();
    for batch in taken.chunks(20) {
        post(&mut w, batch).unwrap();
    }
    assert_eq!(ledger().len(), taken.len() + refused.len());
    assert!(Path::new(&path).exists());
}

#[test]
fn the_journal_is_no_longer_than_ever_once_nobody_reads_what_it_grew_for() {
    let w = World::new(Vec::new());
    let length = || std::fs::metadata(format!("{}-wal", w.path.display())).unwrap().len();
    let write = |bytes| {
        let apart = Quarantined {
            code: Code::CloudNonceReuse,
            context: ContextId(1),
            piv: 1,
            hash: MessageHash([1; 16]),
            gateway: GatewayId(1),
            at: NOW,
            payload: vec![7; bytes],
        };
        store(&w).commit_now(Write { quarantined: vec![apart], ..Write::default() }).unwrap();
    };
    let backup = rusqlite::Connection::open(&w.path).unwrap();
    backup.execute_batch("BEGIN; SELECT count(*) FROM reading;").unwrap();
    (0..40).for_each(|_| write(1 << 20));
    assert!(length() > JOURNAL, "{}", length());
    backup.execute_batch("COMMIT;").unwrap();
    (0..3).for_each(|_| write(1));
    assert!(length() <= JOURNAL, "{}", length());
}
