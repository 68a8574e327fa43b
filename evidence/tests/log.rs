//! A log in a folder: what was acknowledged is there after any crash, and no two heads contradict each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use fivefold_core::proof::merkle::{self, Hash, verify_consistency};
use fivefold_evidence::checkpoint::{LogKey, Signed};
use fivefold_evidence::cosignature::{CosigningKey, Rule};
use fivefold_evidence::log::{Entry, EntryKind, Log, LogError};
use fivefold_evidence::monitor;
use fivefold_evidence::note::Kind;
use fivefold_evidence::tile::{Directory, Fetch as _};
use fivefold_evidence::tlog_proof::TlogProof;
use proptest::prelude::*;
use zeroize::Zeroizing;

const ORIGIN: &str = "fivefold.01020304/log";

fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &Zeroizing::new([7; 32])).unwrap()
}

fn open(folder: &Path) -> Log {
    Log::open(folder, key()).unwrap()
}

fn entry(n: u64) -> Entry {
    Entry::of(EntryKind::ALL[n as usize % EntryKind::ALL.len()], &n.to_be_bytes())
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(entry).collect()
}

fn root(range: std::ops::Range<u64>) -> Hash {
    merkle::root(&range.map(|n| Hash::of_leaf([entry(n).as_bytes()])).collect::<Vec<_>>())
}

#[test]
fn what_is_appended_has_its_place_is_shown_and_proven() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    assert_eq!(log.append(&entries(0..3)).unwrap(), 0);
    assert_eq!(log.append(&[]).unwrap(), 3);
    assert_eq!(log.append(&entries(3..700)).unwrap(), 3);
    assert!(log.shown().unwrap().is_none());
    assert!(matches!(log.prove(0, 1), Err(LogError::NoEntry(0))), "nothing is signed yet");
    let signed = log.publish().unwrap();
    let head = signed.open(log.vkey()).unwrap().head();
    assert_eq!((head.size, head.root), (700, root(0..700)));
    assert_eq!(log.publish().unwrap(), signed, "without new entries it is the same");
    for index in (0..700).step_by(37).chain([255, 256, 511, 512, 699]) {
        assert_eq!(log.entry(index).unwrap(), Some(entry(index)));
        let proof = log.tlog_proof(index, signed.clone()).unwrap().to_string();
        TlogProof::parse(proof.as_bytes()).unwrap().verify(entry(index).as_bytes(), log.vkey()).unwrap();
        let small = log.prove(index, index + 1).unwrap();
        let leaf = Hash::of_leaf([entry(index).as_bytes()]);
        merkle::verify_inclusion(&leaf, index, index + 1, &small, &root(0..index + 1)).unwrap();
    }
    assert_eq!(log.entry(700).unwrap(), None);
    let (_, checked) = monitor::check(&Directory(folder.path().into()), log.vkey(), &[]).unwrap();
    assert_eq!((checked.entries.values().sum::<u64>(), checked.others), (700, 0));
}

#[test]
fn another_writer_is_refused_and_so_is_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    assert!(matches!(Log::open(folder.path(), key()), Err(LogError::Taken(_))));
    log.append(&entries(0..1)).unwrap();
    log.publish().unwrap();
    drop(log);
    let other = LogKey::from_seed(ORIGIN, &Zeroizing::new([8; 32])).unwrap();
    assert!(matches!(Log::open(folder.path(), other), Err(LogError::Head { .. })));
    let renamed = LogKey::from_seed("fivefold.ffffffff/log", &Zeroizing::new([7; 32])).unwrap();
    assert!(matches!(Log::open(folder.path(), renamed), Err(LogError::Head { .. })));
    assert_eq!(open(folder.path()).durable(), 1);
}

/// Five entries, the first two of which are in tiles of a signed head; and the journal's bytes.
fn journal() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    log.append(&entries(0..2)).unwrap();
    log.publish().unwrap();
    log.append(&entries(2..5)).unwrap();
    let path = folder.path().join("own/journal");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 48 + 5 * 42);
    (folder, path, whole)
}

#[test]
fn a_journal_cut_anywhere_gives_its_whole_records_and_takes_new_ones() {
    let (folder, path, whole) = journal();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        match Log::open(folder.path(), key()) {
            Ok(log) => {
                let whole_records = (cut - 48) as u64 / 42;
                assert_eq!(log.durable(), whole_records, "cut at {cut}");
                assert_eq!(log.append(&entries(whole_records..whole_records + 1)).unwrap(), whole_records);
                drop(log);
                let log = open(folder.path());
                assert_eq!(log.durable(), whole_records + 1);
            }
            // Acknowledged and signed entries are missing: that is no crash of ours.
            Err(LogError::Journal { .. }) => {
                assert!(cut < 48 + 2 * 42, "cut at {cut}");
                assert_eq!(fs::read(&path).unwrap(), &whole[..cut], "cut at {cut}");
            }
            Err(e) => panic!("cut at {cut}: {e}"),
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(Log::open(folder.path(), key()).is_err());
}

#[test]
fn an_altered_byte_of_the_journal_is_named_and_nothing_is_removed() {
    let (folder, path, whole) = journal();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Log::open(folder.path(), key()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), bytes, "{error}");
        error
    };
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        // With part of a record behind it, too: what was torn is no reason to cut off what was not.
        for more in [&[][..], &[0x62; 41]] {
            match refused(&[&altered, more].concat()) {
                LogError::Damaged { offset, entry, .. } => {
                    assert_eq!(entry, (at as u64 - 48) / 42, "altered at {at}");
                    assert_eq!(offset, 48 + entry * 42, "altered at {at}");
                }
                LogError::Journal { .. } => assert!(at < 48, "altered at {at}"),
                // The byte of the format.
                LogError::Newer(newer) => assert_eq!((at, newer.known), (7, 1)),
                e => panic!("altered at {at}: {e}"),
            }
        }
    }
    // More than a record that nobody wrote is no torn record.
    let said = refused(&[&whole[..], &[0; 100]].concat()).to_string();
    assert!(
        said.contains("own/journal is damaged at byte 258: entry 5 ") && said.contains("nothing was removed"),
        "{said}"
    );
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(folder.path()).durable(), 5);
}

#[test]
fn what_a_power_cut_leaves_of_records_that_nobody_was_told_of_is_moved_aside() {
    let (mut moved, mut refused) = (0, 0);
    for (known, longer) in [(0, 0), (2, 4096), (3, 0), (4, 41), (5, 100)] {
        let (folder, path, whole) = journal();
        for cut in (48..whole.len()).step_by(5) {
            // The file has its length, and what is behind the cut was not written yet.
            let mut torn = whole[..cut].to_vec();
            torn.resize(whole.len() + longer, 0);
            fs::write(&path, &torn).unwrap();
            let reads = (0..5).take_while(|n| torn[48 + n * 42..][..42] == whole[48 + n * 42..][..42]).count();
            let first = reads as u64;
            match Log::open_known(folder.path(), key(), known) {
                Ok(log) => {
                    moved += 1;
                    assert!(first >= known.max(2), "cut at {cut}, known {known}");
                    let aside = log.aside().unwrap().clone();
                    assert_eq!((aside.entry, log.durable()), (first, first));
                    assert_eq!(fs::read(&aside.path).unwrap(), &torn[48 + reads * 42..]);
                    assert_eq!(log.append(&entries(first..5)).unwrap(), first);
                    drop(log);
                    assert_eq!(fs::read(&path).unwrap(), whole);
                    assert!(open(folder.path()).aside().is_none());
                    fs::remove_file(aside.path).unwrap();
                }
                Err(LogError::Damaged { offset, entry, .. }) => {
                    refused += 1;
                    assert_eq!((entry, offset), (first, 48 + first * 42));
                    assert!(first < known.max(2), "cut at {cut}, known {known}");
                    assert_eq!(fs::read(&path).unwrap(), torn);
                }
                Err(e) => panic!("cut at {cut}, known {known}: {e}"),
            }
        }
    }
    assert!(moved > 60 && refused > 60, "{moved} {refused}");
}

#[test]
fn damage_with_a_whole_record_behind_it_is_no_power_cut() {
    let (folder, path, whole) = journal();
    for at in (48..whole.len()).step_by(3) {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(&path, &altered).unwrap();
        let opened = Log::open_known(folder.path(), key(), 2);
        if at >= 48 + 4 * 42 {
            let log = opened.unwrap();
            assert_eq!((log.durable(), log.aside().unwrap().bytes), (4, 42));
        } else {
            assert!(matches!(opened, Err(LogError::Damaged { .. })), "altered at {at}");
            assert_eq!(fs::read(&path).unwrap(), altered);
        }
    }
}

#[test]
fn a_log_whose_files_were_changed_signs_nothing() {
    for (file, at) in [("tile/0/000.p/200", 5 * 32), ("tile/entries/000.p/200", 40)] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        log.append(&entries(0..200)).unwrap();
        log.publish().unwrap();
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        log.append(&entries(200..210)).unwrap();
        assert!(matches!(log.sign(), Err(LogError::Tile(_))), "{file}");
    }
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    log.append(&entries(0..600)).unwrap();
    let signed = log.publish().unwrap();
    // A full tile, which the next entries do not touch.
    let path = folder.path().join("tile/1/000.p/2");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    log.append(&entries(600..601)).unwrap();
    let refused = log.sign();
    assert!(matches!(refused, Err(LogError::Inconsistent { .. })), "{refused:?}");
    assert_eq!(log.shown().unwrap().unwrap(), signed);
    drop(log);
    assert!(matches!(Log::open(folder.path(), key()), Err(LogError::Inconsistent { .. })));
}

#[test]
fn a_head_of_another_tree_is_not_shown() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(a.path());
    log.append(&entries(0..10)).unwrap();
    let first = log.publish().unwrap();
    log.append(&entries(10..20)).unwrap();
    let second = log.sign().unwrap();
    let fork = open(b.path());
    fork.append(&entries(5..25)).unwrap();
    let forked = fork.publish().unwrap();
    assert!(matches!(log.show(&forked), Err(LogError::Inconsistent { .. })));
    log.show(&second).unwrap();
    assert!(matches!(log.show(&first), Err(LogError::Inconsistent { .. })), "it would take entries back");
    assert_eq!(log.shown().unwrap().unwrap(), second);
    let stranger = LogKey::from_seed(ORIGIN, &Zeroizing::new([9; 32])).unwrap();
    let stranger = stranger.danger_sign(second.unverified()).unwrap();
    assert!(matches!(log.show(&stranger), Err(LogError::Head { .. })));
}

#[test]
fn entries_of_many_callers_are_each_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let places: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let work = |caller: u64| {
            let log = &log;
            move || {
                (0..25).map(|n| (caller * 100 + n, log.append(&[entry(caller * 100 + n)]).unwrap())).collect::<Vec<_>>()
            }
        };
        let callers: Vec<_> = (0..8).map(|caller| scope.spawn(work(caller))).collect();
        let publisher = scope.spawn(|| (0..5).for_each(|_| drop(log.publish().unwrap())));
        publisher.join().unwrap();
        callers.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    log.publish().unwrap();
    let mut taken: Vec<_> = places.iter().map(|(_, place)| *place).collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..200).collect::<Vec<_>>());
    assert!(places.iter().all(|(n, place)| log.entry(*place).unwrap() == Some(entry(*n))));
    drop(log);
    let log = open(folder.path());
    assert!(places.iter().all(|(n, place)| log.entry(*place).unwrap() == Some(entry(*n))));
    monitor::check(&Directory(folder.path().into()), log.vkey(), &[]).unwrap();
}

#[test]
fn a_long_journal_is_written_anew_and_partial_tiles_go_when_the_full_one_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    log.append(&entries(0..200)).unwrap();
    log.publish().unwrap();
    assert!(folder.path().join("tile/0/000.p/200").exists());
    log.append(&entries(200..7000)).unwrap();
    assert!(fs::metadata(folder.path().join("own/journal")).unwrap().len() > 256 * 1024);
    log.sign().unwrap();
    assert_eq!(fs::metadata(folder.path().join("own/journal")).unwrap().len(), 48);
    assert!(folder.path().join("tile/0/000.p/200").exists(), "the shown head needs it");
    log.publish().unwrap();
    assert!(!folder.path().join("tile/0/000.p").exists() && !folder.path().join("tile/entries/000.p").exists());
    assert_eq!(log.append(&entries(7000..7001)).unwrap(), 7000);
    drop(log);
    let log = open(folder.path());
    assert_eq!((log.durable(), log.entry(7000).unwrap()), (7001, Some(entry(7000))));
    let head = log.publish().unwrap();
    assert_eq!(head.unverified().root, root(0..7001));
}

#[test]
fn the_earliest_head_that_is_enough_proves_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let witness =
        |n: u8| CosigningKey::from_seed(&format!("w{n}.example"), Kind::Witness, &Zeroizing::new([n; 32])).unwrap();
    let (a, b) = (witness(1), witness(2));
    let rule = Rule::new(vec![a.vkey().clone(), b.vkey().clone()], 2, 0).unwrap();
    let show = |at, cosigners: &[&CosigningKey]| {
        let mut signed = log.sign().unwrap();
        for key in cosigners {
            let line = key.danger_cosign(at, signed.unverified()).unwrap();
            signed.add(line).unwrap();
        }
        log.show(&signed).unwrap();
        signed
    };
    log.append(&entries(0..5)).unwrap();
    show(100, &[&a]);
    let second = show(200, &[&a, &b]);
    show(300, &[&a, &b]);
    log.append(&entries(5..9)).unwrap();
    show(400, &[]);
    let enough = |head: &fivefold_evidence::checkpoint::Authentic<'_>| rule.check(head).is_ok();
    for _ in 0..2 {
        assert_eq!(log.first_shown_with(4, enough).unwrap(), second);
        assert_eq!(log.first_shown_with(5, enough).unwrap().unverified().size, 9, "what is shown now, enough or not");
        assert!(matches!(log.first_shown_with(9, enough), Err(LogError::NoEntry(9))));
    }
    let third = show(500, &[&b, &a]);
    drop(log);
    let log = open(folder.path());
    assert_eq!(log.first_shown_with(4, enough).unwrap(), second);
    assert_eq!(log.first_shown_with(5, enough).unwrap(), third);
}

/// What happens to a log, one thing after the other.
#[derive(Clone, Debug)]
enum Event {
    Append(u64),
    Sign,
    Show,
    /// The process ends; files that a crash may have left are put there before it starts again.
    Crash(Leave),
}

#[derive(Clone, Copy, Debug)]
enum Leave {
    Nothing,
    /// Bytes of an entry that nobody was told of.
    TornJournal(u8),
    /// Tiles were written, nothing was signed.
    TilesUnsigned,
    /// A head was signed and not shown.
    SignedUnshown,
    /// Temporary files.
    Temporary,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1u64..400).prop_map(Event::Append),
        2 => Just(Event::Sign),
        2 => Just(Event::Show),
        2 => prop_oneof![
            Just(Leave::Nothing),
            (0u8..42).prop_map(Leave::TornJournal),
            Just(Leave::TilesUnsigned),
            Just(Leave::SignedUnshown),
            Just(Leave::Temporary),
        ].prop_map(Event::Crash),
    ]
}

fn crash(folder: &Path, log: Log, leave: Leave) {
    let own = folder.join("own");
    match leave {
        Leave::Nothing => drop(log),
        Leave::TornJournal(n) => {
            drop(log);
            let mut journal = fs::read(own.join("journal")).unwrap();
            journal.extend((0..n).map(|b| b.wrapping_mul(31)));
            fs::write(own.join("journal"), journal).unwrap();
        }
        Leave::TilesUnsigned => {
            // Everything of a signing but tiles is taken back.
            let kept = ["signed", "journal"].map(|name| fs::read(own.join(name)).unwrap());
            log.sign().unwrap();
            drop(log);
            for (name, bytes) in ["signed", "journal"].iter().zip(kept) {
                fs::write(own.join(name), bytes).unwrap();
            }
        }
        Leave::SignedUnshown => {
            // Before the journal was written anew.
            let journal = fs::read(own.join("journal")).unwrap();
            log.sign().unwrap();
            drop(log);
            fs::write(own.join("journal"), journal).unwrap();
        }
        Leave::Temporary => {
            drop(log);
            for name in ["checkpoint.new", "own/signed.new", "own/journal.new", "own/heads/12.new"] {
                fs::write(folder.join(name), b"half").unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_loses_an_acknowledged_entry_or_makes_two_heads_that_contradict(
        events in prop::collection::vec(event(), 1..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        let mut count = 0;
        let mut heads: Vec<Signed> = Vec::new();
        for event in events {
            match event {
                Event::Append(n) => {
                    prop_assert_eq!(log.append(&entries(count..count + n)).unwrap(), count);
                    count += n;
                }
                Event::Sign => heads.push(log.sign().unwrap()),
                Event::Show => {
                    let signed = log.sign().unwrap();
                    log.show(&signed).unwrap();
                    heads.push(signed);
                }
                Event::Crash(leave) => {
                    crash(folder.path(), log, leave);
                    log = open(folder.path());
                    prop_assert_eq!(log.durable(), count);
                }
            }
        }
        heads.push(log.publish().unwrap());
        for pair in heads.windows(2) {
            let (a, b) = (pair[0].unverified(), pair[1].unverified());
            prop_assert!(a.size <= b.size);
            prop_assert_eq!(b.root, root(0..b.size));
            if a.size > 0 {
                let proof = log.prove_consistency(a.size, b.size).unwrap();
                prop_assert!(verify_consistency(a.size, &a.root, b.size, &b.root, &proof).is_ok());
            }
        }
        let files = Directory(folder.path().into());
        prop_assert!(files.fetch("checkpoint").is_ok());
        let (head, _) = monitor::check(&files, log.vkey(), &heads).unwrap();
        prop_assert_eq!(head.unverified().size, count);
    }
}
