//! Heads of the log and witnesses, over real sockets: what holds is shown, what contradicts is an alarm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fivefold_cloud::witnesses::serve::{Served, serve};
use fivefold_cloud::witnesses::{Published, Witness, WitnessError, publish, run};
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::cosignature::{CosigningKey, Rule};
use fivefold_evidence::log::{Entry, EntryKind, Log};
use fivefold_evidence::note::{Kind, VKey};
use fivefold_evidence::witness::{Store, Witness as Engine};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

const ORIGIN: &str = "fivefold.01020304/log";

fn log_key() -> LogKey {
    LogKey::from_seed(ORIGIN, &Zeroizing::new([7; 32])).unwrap()
}

fn open(folder: &Path) -> Arc<Log> {
    Arc::new(Log::open(folder, log_key()).unwrap())
}

fn append(log: &Log, from: u64, count: u64) {
    let entries: Vec<_> = (from..from + count).map(|n| Entry::of(EntryKind::Batch, &n.to_be_bytes())).collect();
    log.append(&entries).unwrap();
}

/// A witness that runs, and what is needed to ask it.
struct Running {
    url: String,
    keys: Vec<VKey>,
    stop: watch::Sender<bool>,
}

async fn witness(n: u8, state: &Path) -> Running {
    let key =
        |kind, seed: u8| CosigningKey::from_seed(&format!("w{n}.example"), kind, &Zeroizing::new([seed; 32])).unwrap();
    let keys = vec![key(Kind::Witness, n), key(Kind::WitnessPq, n + 100)];
    let vkeys = keys.iter().map(|key| key.vkey().clone()).collect();
    let store = Store::open(state).unwrap();
    let mut engine = Engine::new(keys);
    engine.watch(vec![log_key().vkey().clone()], store.read(ORIGIN).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, None, Arc::new(Served::new(engine, store)), stopped));
    Running { url, keys: vkeys, stop }
}

fn asked(all: &[&Running]) -> Arc<Vec<Witness>> {
    Arc::new(all.iter().map(|w| Witness::new(&w.url, w.keys.clone(), None).unwrap()).collect())
}

fn error(published: &Published) -> &WitnessError {
    let [(_, error)] = &published.failed[..] else { panic!("{:?}", published.failed) };
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_shown_with_what_its_witnesses_said() {
    let (folder, a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(folder.path());
    let (one, two) = (witness(1, a.path()).await, witness(2, b.path()).await);
    let all = asked(&[&one, &two]);
    let rule = Rule::new([&one.keys[..], &two.keys].concat(), 2, 2).unwrap();
    append(&log, 0, 10);
    for round in 1..4 {
        let published = publish(&log, &all).await.unwrap();
        assert!(published.failed.is_empty(), "{:?}", published.failed);
        let shown = log.shown().unwrap().unwrap();
        assert_eq!(shown, published.signed);
        rule.check(&shown.open(log.vkey()).unwrap()).unwrap();
        assert_eq!(shown.note().lines().len(), 5);
        // Entries come, or none: both are cosigned.
        append(&log, round * 500, (round % 2) * 300);
    }
    assert!(all.iter().all(|w| w.standing().error.is_none() && w.standing().at.is_some()));
    // Whoever asks anew does not know what the witness has seen, and is told.
    let again = asked(&[&one, &two]);
    append(&log, 7000, 3);
    assert!(publish(&log, &again).await.unwrap().failed.is_empty());
    // One is away: the head is shown all the same, with the other's word.
    one.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    append(&log, 8000, 3);
    let published = publish(&log, &again).await.unwrap();
    assert!(matches!(error(&published), WitnessError::Away(_)), "{:?}", published.failed);
    assert!(again[0].standing().error.is_some());
    let shown = log.shown().unwrap().unwrap();
    let authentic = shown.open(log.vkey()).unwrap();
    assert!(rule.check(&authentic).is_err());
    assert_eq!(authentic.cosigned(&two.keys).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_from_an_old_copy_and_one_that_forked_are_alarms() {
    let state = tempfile::tempdir().unwrap();
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let running = witness(1, state.path()).await;
    let first = open(folders[0].path());
    append(&first, 0, 10);
    assert!(publish(&first, &asked(&[&running])).await.unwrap().failed.is_empty());

    let old = open(folders[1].path());
    append(&old, 0, 5);
    let published = publish(&old, &asked(&[&running])).await.unwrap();
    assert!(matches!(error(&published), WitnessError::Ahead { seen: 10, have: 5 }), "{:?}", published.failed);
    assert!(error(&published).is_alarm());

    for (folder, count) in [(2, 10), (3, 30)] {
        let forked = open(folders[folder].path());
        append(&forked, 1, count);
        let published = publish(&forked, &asked(&[&running])).await.unwrap();
        assert!(matches!(error(&published), WitnessError::Fork { size: 10 }), "{:?}", published.failed);
        assert!(error(&published).is_alarm());
    }
    let kept = std::fs::read_dir(state.path())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains(".fork-"));
    assert_eq!(kept.count(), 1, "two heads of one size are kept as proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_by_another_key_is_not_believed() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(folder.path());
    append(&log, 0, 10);
    let running = witness(1, state.path()).await;
    let other = CosigningKey::from_seed("w1.example", Kind::Witness, &Zeroizing::new([99; 32])).unwrap();
    let all = Arc::new(vec![Witness::new(&running.url, vec![other.vkey().clone()], None).unwrap()]);
    let published = publish(&log, &all).await.unwrap();
    assert!(matches!(error(&published), WitnessError::Answer(_)), "{:?}", published.failed);
    assert_eq!(log.shown().unwrap().unwrap().note().lines().len(), 1);
    for (url, keys) in [("ftp://x", running.keys.clone()), ("https://x", running.keys.clone()), ("http://x", vec![])] {
        assert!(matches!(Witness::new(url, keys, None), Err(WitnessError::Settings { .. })), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_come_by_themselves_and_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (stop, stopped) = watch::channel(false);
    let wanted = Arc::new(Notify::new());
    let (sizes, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let shows = log.clone();
    let show = move || {
        let (log, sizes) = (shows.clone(), sizes.clone());
        async move {
            let done = publish(&log, &Arc::new(Vec::new())).await.unwrap();
            sizes.send(done.signed.unverified().size).unwrap();
        }
    };
    let every = Duration::from_secs(600);
    let task = tokio::spawn(run(every, wanted.clone(), stopped, show));
    assert_eq!(heard.recv().await, Some(0), "at once");
    append(&log, 0, 7);
    wanted.notify_one();
    assert_eq!(heard.recv().await, Some(7));
    stop.send(true).unwrap();
    task.await.unwrap();
}
