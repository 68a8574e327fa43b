//! Backup and restore of a cloud's store, beside `VACUUM INTO`, which is what one would type without us; and what a backup
//! costs the writer that goes on meanwhile.
//!
//! `cargo bench -p fivefold-cloud --bench backup -- ROWS`. Readings have 40 bytes of payload, of 10,000 contexts in turn. A backup
//! runs in a process of its own, as the command does; the writer commits 1,024 rows at a time as the store's does (WAL, FULL).
//! Everything lies on one disk: from another one, reading and writing would not share it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fivefold_cloud::store::{Store, restored};
use fivefold_core::time::Millis;
use fivefold_keep::backup::{Job, Opening, Plan, Set, write};
use fivefold_keep::ca::Authority;
use fivefold_keep::files::{self, Readers};
use fivefold_keep::share::CA_FILE;
use fivefold_keep::vault::Vault;
use rusqlite::{Connection, params};

const STORE: &str = "readings.db";
const CONTEXTS: i64 = 10_000;
/// How long the writer is watched, each time.
const WATCHED: Duration = Duration::from_secs(8);
/// The folder to back up and the set, where this process is to do nothing else.
const JOB: [&str; 2] = ["FIVEFOLD_BENCH_FOLDER", "FIVEFOLD_BENCH_SET"];

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.pragma_update(None, "cache_size", -65_536).unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 8192).unwrap();
    db
}

/// Readings with these ids, as the store writes them, in one transaction.
fn insert(db: &mut Connection, ids: std::ops::Range<i64>) {
    let tx = db.transaction().unwrap();
    let mut row = tx
        .prepare_cached(
            "INSERT INTO reading (id, ctx, piv, variant, hash, sid, origin, gateway, seq, received, ingested, link, hops, key_index, \
             rssi, lqi, fresh, flags, payload) VALUES (?1, ?2, ?3, 0, randomblob(16), ?4, 0, 1, ?1, ?5, ?5, 1, 1, 1, -70, 200, 0, 0, \
             randomblob(40))",
        )
        .unwrap();
    for id in ids {
        let at = 1_790_000_000_000 + id;
        row.execute(params![id, id % CONTEXTS, id / CONTEXTS, id % CONTEXTS, at]).unwrap();
    }
    drop(row);
    tx.commit().unwrap();
}

fn fill(path: &Path, from: i64, to: i64) {
    let mut db = open(path);
    for first in (from..to).step_by(4096) {
        insert(&mut db, first..(first + 4096).min(to));
    }
}

/// Rows a second that the writer commits in that time, and its longest commit, and how long the log of changes became.
fn ingest(path: &Path, next: &mut i64, until: impl Fn(Instant) -> bool) -> (f64, Duration, f64) {
    let mut db = open(path);
    let (start, first, mut longest) = (Instant::now(), *next, Duration::ZERO);
    while !until(start) {
        let began = Instant::now();
        insert(&mut db, *next..*next + 1024);
        longest = longest.max(began.elapsed());
        *next += 1024;
    }
    ((*next - first) as f64 / start.elapsed().as_secs_f64(), longest, megabytes(&log_of(path)))
}

fn job(folder: &Path, to: &Path) -> u64 {
    let plan = Plan { databases: vec![STORE.into()], ..Plan::default() };
    let job = Job { folder, passphrase_file: None, to, recovery: None, of: "cloud", plan: &plan, at: 1_790_000_000 };
    write(&job).unwrap().bytes
}

/// A backup by a process of its own; how long it took.
fn backup(folder: &Path, to: &Path) -> Duration {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().unwrap());
    assert!(command.env(JOB[0], folder).env(JOB[1], to).status().unwrap().success());
    start.elapsed()
}

fn megabytes(path: &Path) -> f64 {
    std::fs::metadata(path).unwrap().len() as f64 / 1e6
}

fn main() {
    if let [Some(folder), Some(to)] = JOB.map(std::env::var_os) {
        job(&PathBuf::from(folder), &PathBuf::from(to));
        return;
    }
    let rows: i64 = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(20_000);
    let all = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let (folder, set) = (all.path().join("site"), all.path().join("set"));
    std::fs::create_dir(&folder).unwrap();
    drop(Vault::create(&folder).unwrap());
    let (authority, _) = Authority::create("bench").unwrap();
    files::write(&folder.join(CA_FILE), Readers::Everybody, authority.certificate().as_bytes()).unwrap();
    let store = folder.join(STORE);
    drop(Store::open(&store).unwrap());
    fill(&store, 1, rows + 1);
    open(&store).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    println!("{rows} readings, {:.0} MB", megabytes(&store));
    let say = |what: &str, rows: i64, took: Duration, more: &str| {
        println!("{what:<34} {:>7.2} s {:>12.0} rows/s  {more}", took.as_secs_f64(), rows as f64 / took.as_secs_f64());
    };

    let bare = all.path().join("vacuum.db");
    let start = Instant::now();
    open(&store).execute("VACUUM INTO ?1", [bare.to_str().unwrap()]).unwrap();
    std::fs::File::open(&bare).unwrap().sync_all().unwrap();
    say("VACUUM INTO, bare, in clear", rows, start.elapsed(), &format!("{:.0} MB", megabytes(&bare)));
    std::fs::remove_file(&bare).unwrap();

    let took = backup(&folder, &set);
    let written = megabytes(&set.join("0000.ffb"));
    say("full backup, read back", rows, took, &format!("{written:.0} MB"));
    let more = (rows / 100).max(1);
    fill(&store, rows + 1, rows + more + 1);
    let took = backup(&folder, &set);
    let written = megabytes(&set.join("0001.ffb"));
    say(
        "increment of 1 %, read back",
        rows,
        took,
        &format!("{written:.1} MB, {:.0} new rows/s", more as f64 / took.as_secs_f64()),
    );

    let opened = Set::open(&set, None, Opening::Folder(&folder, None)).unwrap();
    let start = Instant::now();
    opened.check().unwrap();
    say("verify", rows, start.elapsed(), "");
    let back = all.path().join("back");
    let start = Instant::now();
    opened.unpack(&back).unwrap();
    let unpacked = start.elapsed();
    restored(&back.join(STORE), Millis(1_800_000_000_000)).unwrap();
    say(
        "restore, checked, 8.4 done",
        rows,
        start.elapsed(),
        &format!("{:.2} s of it to put files back", unpacked.as_secs_f64()),
    );
    drop(opened);
    let there: i64 = open(&back.join(STORE)).query_row("SELECT count(*) FROM reading", [], |r| r.get(0)).unwrap();
    assert_eq!(there, rows + more);
    std::fs::remove_dir_all(&back).unwrap();

    // What it costs the writer: the same time without and with backups, one after the other, in turn.
    let mut next = rows + more + 1;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        alone.push(ingest(&store, &mut next, |start| start.elapsed() > WATCHED));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (folder, set, told, ended) =
            (folder.clone(), all.path().join("beside"), Arc::clone(&stop), Arc::clone(&done));
        let backups = std::thread::spawn(move || {
            let mut n = 0;
            while !told.load(Ordering::Relaxed) {
                let _ = std::fs::remove_dir_all(&set);
                backup(&folder, &set);
                n += 1;
            }
            ended.store(true, Ordering::Relaxed);
            n
        });
        beside.push(ingest(&store, &mut next, |start| {
            if start.elapsed() > WATCHED {
                stop.store(true, Ordering::Relaxed);
            }
            done.load(Ordering::Relaxed)
        }));
        assert!(backups.join().unwrap() > 0);
    }
    let rate = |of: &[(f64, Duration, f64)]| of.iter().map(|(r, ..)| r).sum::<f64>() / of.len() as f64;
    let longest = |of: &[(f64, Duration, f64)]| of.iter().map(|(_, l, _)| l.as_millis()).max().unwrap();
    let log = beside.iter().map(|(.., log)| *log).fold(0.0, f64::max);
    let (a, b) = (rate(&alone), rate(&beside));
    println!("ingest alone                       {a:>12.0} rows/s, longest commit {} ms", longest(&alone));
    println!(
        "ingest beside full backups         {b:>12.0} rows/s, longest commit {} ms: {:.0} % less; log of changes {log:.0} MB",
        longest(&beside),
        100.0 * (1.0 - b / a)
    );
}

/// The log of changes of a store.
fn log_of(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
