//! A witness and a monitor against logs that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;

use fivefold_core::proof::merkle::Hash;
use fivefold_evidence::checkpoint::{Checkpoint, LogKey, Signed};
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::log::{Entry, EntryKind, Log};
use fivefold_evidence::monitor::{self, CheckError, Finding, Memory, Monitor, MonitorError, WITNESS_MISSING_S};
use fivefold_evidence::note::{Kind, Line, VKey};
use fivefold_evidence::tile::Directory;
use fivefold_evidence::witness::{Answer, Record, Request, Store, StoreError, Witness};
use zeroize::Zeroizing;

const ORIGIN: &str = "fivefold.01020304/log";
const NOW: u64 = 1_795_000_000;

fn log_key() -> LogKey {
    LogKey::from_seed(ORIGIN, &Zeroizing::new([7; 32])).unwrap()
}

fn keys() -> Vec<CosigningKey> {
    let key = |kind, n: u8| CosigningKey::from_seed("witness.example/w", kind, &Zeroizing::new([n; 32])).unwrap();
    vec![key(Kind::Witness, 1), key(Kind::WitnessPq, 2)]
}

fn vkeys() -> Vec<VKey> {
    keys().iter().map(|key| key.vkey().clone()).collect()
}

fn witness() -> Witness {
    let mut witness = Witness::new(keys());
    witness.watch(vec![log_key().vkey().clone()], None).unwrap();
    witness
}

/// A log of entries that begin with `n` other ones.
fn log(folder: &tempfile::TempDir, first: u64, count: u64) -> Log {
    let log = Log::open(folder.path(), log_key()).unwrap();
    let entries: Vec<_> = (first..first + count).map(|n| Entry::of(EntryKind::Batch, &n.to_be_bytes())).collect();
    log.append(&entries).unwrap();
    log
}

fn more(log: &Log, first: u64, count: u64) -> Signed {
    let entries: Vec<_> = (first..first + count).map(|n| Entry::of(EntryKind::Batch, &n.to_be_bytes())).collect();
    log.append(&entries).unwrap();
    log.publish().unwrap()
}

fn ask(log: &Log, old: u64) -> Request {
    let checkpoint = log.sign().unwrap();
    let size = checkpoint.unverified().size;
    Request { old, proof: log.prove_consistency(old.min(size), size).unwrap(), checkpoint }
}

/// One request, as a server does it.
fn add(witness: &mut Witness, now: u64, request: &Request) -> Answer {
    match witness.add_checkpoint(now, request.to_string().as_bytes()) {
        Ok(pending) => witness.cosign(pending).unwrap_or_else(|refused| refused),
        Err(answer) => answer,
    }
}

fn status(witness: &mut Witness, request: &Request) -> u16 {
    add(witness, NOW, request).status
}

#[test]
fn a_log_that_grows_is_cosigned_by_every_key_and_the_signatures_hold() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, 0, 10);
    let mut witness = witness();
    let answer = add(&mut witness, NOW, &ask(&log, 0));
    assert_eq!(answer.status, 200, "{}", answer.body);
    more(&log, 10, 300);
    let request = ask(&log, 10);
    let answer = add(&mut witness, NOW + 5, &request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut signed = request.checkpoint.clone();
    for line in answer.body.lines() {
        signed.add(line.parse::<Line>().unwrap()).unwrap();
    }
    let vkeys = vkeys();
    let cosigned = signed.open(log.vkey()).unwrap().cosigned(&vkeys).unwrap();
    assert_eq!(
        cosigned.iter().map(|c| (c.key.kind(), c.at)).collect::<Vec<_>>(),
        [(Kind::Witness, NOW + 5), (Kind::WitnessPq, NOW + 5)]
    );
    // The same head again: a new time.
    let again = Request { old: 310, proof: Vec::new(), checkpoint: request.checkpoint };
    assert_eq!(add(&mut witness, NOW + 600, &again).status, 200);
}

#[test]
fn each_refusal_has_the_status_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, 0, 10);
    let mut witness = witness();
    let good = ask(&log, 0);

    for body in [&b""[..], b"old 0\n", b"old 00\n\n", b"old 0\n\nx", b"new 0\n\n", b"\xff", b"old 0\nAAAA\n\n"] {
        assert_eq!(witness.add_checkpoint(NOW, body).unwrap_err().status, 400, "{body:?}");
    }
    let mut many = good.clone();
    many.proof = vec![Hash([1; 32]); 64];
    assert_eq!(status(&mut witness, &many), 400, "more than 63 hashes");

    let other = LogKey::from_seed("other.example/log", &Zeroizing::new([7; 32])).unwrap();
    let other = other.danger_sign(&Checkpoint::empty("other.example/log")).unwrap();
    assert_eq!(status(&mut witness, &Request { checkpoint: other, ..good.clone() }), 404);
    let forged = LogKey::from_seed(ORIGIN, &Zeroizing::new([8; 32])).unwrap();
    let forged = forged.danger_sign(good.checkpoint.unverified()).unwrap();
    assert_eq!(status(&mut witness, &Request { checkpoint: forged, ..good.clone() }), 403);
    assert_eq!(status(&mut witness, &Request { old: 11, ..good.clone() }), 400);
    assert_eq!(status(&mut witness, &Request { proof: vec![Hash([0; 32])], ..good.clone() }), 422, "from nothing");

    let answer = add(&mut witness, NOW, &Request { old: 5, ..good.clone() });
    assert_eq!((answer.status, answer.content_type, answer.body.as_str()), (409, "text/x.tlog.size", "0\n"));
    assert_eq!(status(&mut witness, &good), 200);
    let answer = add(&mut witness, NOW, &good);
    assert_eq!((answer.status, answer.content_type, answer.body.as_str()), (409, "text/x.tlog.size", "10\n"));
    assert!(answer.fork.is_none());

    more(&log, 10, 10);
    let next = ask(&log, 10);
    let mut short = next.clone();
    short.proof.pop();
    assert_eq!(status(&mut witness, &short), 422);
    let mut altered = next.clone();
    altered.proof[0].0[0] ^= 1;
    assert_eq!(status(&mut witness, &altered), 422);
    assert_eq!(add(&mut witness, NOW - 61, &next).status, 503, "its clock went back");
    assert_eq!(add(&mut witness, NOW - 59, &next).status, 200);
    assert!(witness.logs().all(|(_, record)| record.unwrap().at == NOW), "no time before one that was stated");
}

#[test]
fn a_fork_and_a_rollback_are_refused_and_the_fork_is_proven() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, forked) = (log(&a, 0, 20), log(&b, 1, 20));
    let mut witness = witness();
    assert_eq!(status(&mut witness, &ask(&ours, 0)), 200);
    // Same size, another root, signed by the log: both heads together are the proof.
    let mut same = ask(&forked, 20);
    let answer = add(&mut witness, NOW, &same);
    assert_eq!(answer.status, 409);
    let fork = answer.fork.unwrap();
    assert_eq!((fork.ours.unverified().size, fork.theirs.unverified().size), (20, 20));
    let heads = [&fork.ours, &fork.theirs].map(|signed| signed.open(ours.vkey()).unwrap().head().root);
    assert_ne!(heads[0], heads[1]);
    // A larger fork: its proof leads elsewhere.
    more(&forked, 50, 5);
    same = ask(&forked, 20);
    assert_eq!(status(&mut witness, &same), 422);
    // A smaller head of the same log.
    let small = tempfile::tempdir().unwrap();
    let small = ask(&log(&small, 0, 5), 0);
    assert_eq!(status(&mut witness, &small), 409);
    assert_eq!(status(&mut witness, &Request { old: 5, proof: Vec::new(), ..small }), 409);
    let store = tempfile::tempdir().unwrap();
    let store = Store::open(store.path()).unwrap();
    let kept = store.keep(&fork).unwrap().unwrap();
    assert!(store.keep(&fork).unwrap().is_none(), "once is enough");
    let text = fs::read_to_string(kept).unwrap();
    assert!(text.contains(&fork.ours.to_string()) && text.contains(&fork.theirs.to_string()));
}

#[test]
fn what_is_durable_is_remembered_and_what_is_not_was_never_cosigned() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = log(&folder, 0, 10);
    let store = Store::open(state.path()).unwrap();
    // A second process with the same keys would remember for itself alone.
    assert!(matches!(Store::open(state.path()), Err(StoreError::Taken { .. })));
    let start = || {
        let mut witness = Witness::new(keys());
        witness.watch(vec![log_key().vkey().clone()], store.read(ORIGIN).unwrap()).unwrap();
        witness
    };
    let request = ask(&log, 0).to_string();
    // The power goes before the record is written: nothing has happened.
    let pending = start().add_checkpoint(NOW, request.as_bytes()).unwrap();
    drop(pending);
    // And after: the answer is lost, and a client that asks again is told the size.
    let pending = start().add_checkpoint(NOW, request.as_bytes()).unwrap();
    store.write(&pending).unwrap();
    drop(pending);
    let mut witness = start();
    assert_eq!(witness.add_checkpoint(NOW, request.as_bytes()).unwrap_err().body, "10\n");
    let again = Request { old: 10, proof: Vec::new(), checkpoint: log.sign().unwrap() };
    assert_eq!(add(&mut witness, NOW, &again).status, 200);
    let record = store.read(ORIGIN).unwrap().unwrap();
    assert_eq!(Record::parse(record.to_string().as_bytes()).unwrap(), record);
    // A record that cannot be read is no reason to begin anew.
    let mut files = fs::read_dir(state.path()).unwrap().map(|file| file.unwrap().path());
    let path = files.find(|path| path.extension().is_some_and(|e| e == "head")).unwrap();
    fs::write(&path, "time 0\n").unwrap();
    assert!(matches!(store.read(ORIGIN), Err(StoreError::Malformed { .. })));
    // Nor is one of another key.
    let other = LogKey::from_seed(ORIGIN, &Zeroizing::new([8; 32])).unwrap();
    assert!(Witness::new(keys()).watch(vec![other.vkey().clone()], Some(record)).is_err());
}

#[test]
fn two_requests_at_once_do_not_roll_back() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, 0, 10);
    let mut witness = witness();
    let first = witness.add_checkpoint(NOW, ask(&log, 0).to_string().as_bytes()).unwrap();
    more(&log, 10, 5);
    let second = witness.add_checkpoint(NOW, ask(&log, 0).to_string().as_bytes()).unwrap();
    assert_eq!(witness.cosign(second).unwrap().status, 200);
    assert_eq!(witness.cosign(first).unwrap_err().status, 409);
}

// --- monitor ---------------------------------------------------------------------------------------------------------

fn monitor(witnesses: Vec<VKey>) -> Monitor {
    Monitor::new(log_key().vkey().clone(), witnesses, Memory::default()).unwrap()
}

fn files(folder: &tempfile::TempDir) -> Directory {
    Directory(folder.path().into())
}

#[test]
fn a_monitor_is_content_with_a_log_that_grows_and_remembers_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, 0, 10);
    log.publish().unwrap();
    let mut monitor = monitor(Vec::new());
    for round in 1..5 {
        let look = monitor.look(&files(&folder), NOW).unwrap();
        assert!(look.findings.is_empty(), "{:?}", look.findings);
        more(&log, round * 300, 300);
        let memory = Memory::parse(&monitor.memory().to_string()).unwrap();
        monitor = Monitor::new(log_key().vkey().clone(), Vec::new(), memory).unwrap();
    }
    let other = LogKey::from_seed(ORIGIN, &Zeroizing::new([8; 32])).unwrap();
    let refused = Monitor::new(other.vkey().clone(), Vec::new(), monitor.memory().clone());
    assert!(matches!(refused, Err(MonitorError::Checkpoint(_))));
    assert!(Memory::parse("checkpoint = 7").is_err() && Memory::parse("seen = 1").is_err());
}

#[test]
fn a_monitor_names_a_fork_with_its_proof_and_goes_on_remembering_what_it_saw_first() {
    for (size, more_of) in [(20, 0), (20, 7), (20, 300)] {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = log(&a, 0, size);
        ours.publish().unwrap();
        let forked = log(&b, 1, size);
        more(&forked, 100, more_of);
        let mut monitor = monitor(Vec::new());
        assert!(monitor.look(&files(&a), NOW).unwrap().findings.is_empty());
        let memory = monitor.memory().clone();
        for _ in 0..2 {
            let look = monitor.look(&files(&b), NOW).unwrap();
            let [Finding::Fork { before, now, .. }] = &look.findings[..] else { panic!("{:?}", look.findings) };
            assert!(before.open(ours.vkey()).is_ok() && now.open(ours.vkey()).is_ok());
            assert_eq!(*monitor.memory(), memory);
        }
        // The other way round, a smaller tree that is no beginning.
        more(&ours, 400, 50);
        monitor.look(&files(&a), NOW).unwrap();
        let look = monitor.look(&files(&b), NOW).unwrap();
        assert!(
            look.findings.iter().any(|f| matches!(f, Finding::Fork { .. } | Finding::Tiles { .. })),
            "{:?}",
            look.findings
        );
    }
}

#[test]
fn a_monitor_tells_a_log_that_shrank_from_one_whose_files_are_wrong() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = log(&a, 0, 300);
    long.publish().unwrap();
    let mut monitor = monitor(Vec::new());
    monitor.look(&files(&a), NOW).unwrap();
    // An old head beside the tiles of the new one: stale, and not a lie.
    let short = log(&b, 0, 10);
    let old = short.publish().unwrap();
    fs::write(a.path().join("checkpoint"), old.to_string()).unwrap();
    let look = monitor.look(&files(&a), NOW).unwrap();
    assert!(matches!(look.findings[..], [Finding::Shrunk { before: 300, now: 10 }]), "{:?}", look.findings);
    fs::write(a.path().join("checkpoint"), long.sign().unwrap().to_string()).unwrap();
    more(&long, 300, 10);
    fs::remove_dir_all(a.path().join("tile/0")).unwrap();
    let look = monitor.look(&files(&a), NOW).unwrap();
    assert!(matches!(look.findings[..], [Finding::Tiles { .. }]), "{:?}", look.findings);
    fs::write(a.path().join("checkpoint"), "hello\n").unwrap();
    assert!(monitor.look(&files(&a), NOW).is_err());
}

#[test]
fn a_witness_that_is_silent_for_a_day_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, 0, 10);
    let mut witness = witness();
    let cosigned = |witness: &mut Witness, now| {
        let request = ask(&log, witness.logs().next().and_then(|(_, r)| r).map_or(0, |r| r.head.unverified().size));
        let answer = add(witness, now, &request);
        let mut signed = request.checkpoint;
        answer.body.lines().for_each(|line| signed.add(line.parse().unwrap()).unwrap());
        log.show(&signed).unwrap();
    };
    cosigned(&mut witness, NOW);
    let mut watched = monitor(vkeys());
    let look = watched.look(&files(&folder), NOW + 10).unwrap();
    assert_eq!((look.witnesses, look.findings), (vec![("witness.example/w".into(), NOW)], vec![]));
    assert!(watched.look(&files(&folder), NOW + WITNESS_MISSING_S).unwrap().findings.is_empty());
    let late = watched.look(&files(&folder), NOW + WITNESS_MISSING_S + 1).unwrap().findings;
    assert_eq!(late, [Finding::WitnessMissing { name: "witness.example/w".into(), since: NOW }]);
    cosigned(&mut witness, NOW + WITNESS_MISSING_S + 2);
    assert!(watched.look(&files(&folder), NOW + WITNESS_MISSING_S + 3).unwrap().findings.is_empty());
    // One that never came is missed a day after the first look.
    let never = CosigningKey::from_seed("never.example", Kind::Witness, &Zeroizing::new([9; 32])).unwrap();
    let mut watched = monitor(vec![never.vkey().clone()]);
    assert!(watched.look(&files(&folder), NOW).unwrap().findings.is_empty());
    let late = watched.look(&files(&folder), NOW + WITNESS_MISSING_S + 1).unwrap();
    assert_eq!(late.findings.len(), 1);
    assert_eq!(late.strangers.len(), 2);
}

#[test]
fn a_reading_of_the_whole_log_finds_every_altered_byte_and_a_fork() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = log(&a, 0, 270);
    let head = ours.publish().unwrap();
    let later = more(&ours, 500, 1);
    let vkey = ours.vkey();
    assert!(monitor::check(&files(&a), vkey, &[head.clone(), later]).is_ok());
    let forked = log(&b, 1, 300);
    forked.publish().unwrap();
    assert!(matches!(monitor::check(&files(&b), vkey, &[head]), Err(CheckError::Fork { size: 270, .. })));
    for file in
        ["checkpoint", "tile/0/000", "tile/0/001.p/15", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/15"]
    {
        let path = a.path().join(file);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40 + 1).chain([whole.len() - 1]) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            assert!(monitor::check(&files(&a), vkey, &[]).is_err(), "{file} at {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(monitor::check(&files(&a), vkey, &[]).is_err(), "{file} cut short");
        fs::remove_file(&path).unwrap();
        assert!(monitor::check(&files(&a), vkey, &[]).is_err(), "{file} missing");
        fs::write(&path, whole).unwrap();
    }
    assert!(monitor::check(&files(&a), vkey, &[]).is_ok());
}
