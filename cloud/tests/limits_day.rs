//! A day at the edge of the disk budget, by a clock that does not wait: what is refused stays at the gateway and comes later,
//! what goes is the oldest and no more than the operator said, nothing is taken twice, and the gauges are true. And a disk that is
//! full to the last byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Gateway, Node, Sent};
use fivefold_cloud::accepted::flag;
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::limits::{Full, Part, Policy, ROWS};
use fivefold_cloud::log::{Logging, Serving};
use fivefold_cloud::service::{IngestError, Keeper, Service};
use fivefold_cloud::store::{
    CountKey, JOURNAL, OutboxMove, OutboxSink, OutboxWrite, Place, Query, Reader, Store, StoreError, Write,
};
use fivefold_core::counter::Lease;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::error::Code;
use fivefold_core::id::Net;
use fivefold_core::profile::{Overrides, Policy as DevicePolicy, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Originator};
use fivefold_evidence::checkpoint::LogKey;
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::registry::{By, NewDevice, Registry, Word};
use fivefold_keep::share::{CloudLimit, CloudLimits};
use fivefold_keep::vault::Vault;
use tokio::task::block_in_place;
use zeroize::Zeroizing;

const START: Millis = Millis(1_790_000_000_000);
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
const MIB: u64 = 1 << 20;
/// Devices that speak in each batch.
const DEVICES: usize = 24;
/// One in so many minutes.
const BATCH_MINUTES: u64 = 5;
/// Room for half a day.
const BUDGET: u64 = JOURNAL + 5 * MIB;
/// Minutes in which a sink of readings is away.
const SINK_AWAY: Range<u64> = 13 * 60..20 * 60 + 30;
/// What the operator keeps of readings, once it was full.
const KEPT: u64 = 2 * MIB;

struct Site {
    folder: tempfile::TempDir,
    vault: Arc<Vault>,
    gateway: Gateway,
    nodes: Vec<(Net, Node)>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let by = By::new("test", "here", "test", 1);
        let mut book = Registry::create(&folder.path().join("registry.db"), by).unwrap();
        let net = book.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        let gateway = Gateway::new(net, 1);
        book.add_gateway(&gateway.registered()).unwrap();
        let (ca, _) = Authority::create("day").unwrap();
        let issued = ca.issue(&Role::Gateway(net, gateway.proven.gateway()), START.0 / 1000, 90).unwrap();
        let word = Word { who: "operator", at: START.0 / 1000 };
        let key = gateway.key.spki();
        book.enter_certificate(Some((gateway.proven.gateway(), key)), &issued.certified, word).unwrap();
        let policy = DevicePolicy::new(Profile::ToCloud);
        let nodes = (0..DEVICES).map(|_| {
            let new =
                NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None };
            let (device, secrets) = book.add_device(&vault, &new, START.0 / 1000).unwrap();
            let e3 = E3Secret::new(&secrets.ms3, &secrets.salt3).unwrap();
            let context = e3.context_for_device(device.sid, device.epoch, None, policy.alg).unwrap();
            let mut lease = Lease::resume(0, 1 << 20);
            lease.extend(1 << 20);
            (net, Node { sid: device.sid, context, lease, bctx: None })
        });
        let nodes = nodes.collect();
        std::fs::create_dir(folder.path().join("cloud")).unwrap();
        Self { vault: Arc::new(vault), gateway, nodes, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, kept: Option<u64>, now: Millis) -> Arc<Service> {
        let mut policy = policy(kept);
        policy.disk = Some(BUDGET);
        Arc::new(self.open(now, |cloud, store| Keeper::new(policy, cloud, store, false)))
    }

    fn open(&self, now: Millis, keeper: impl FnOnce(PathBuf, PathBuf) -> Keeper) -> Service {
        let (cloud, path) = (self.path("cloud"), self.path("cloud/readings.db"));
        let store = Store::open(&path).unwrap();
        let settings = RenewalSettings::default();
        let service = Service::open(store, self.path("registry.db"), self.vault.clone(), settings, now).unwrap();
        let key = LogKey::from_seed("fivefold.00000000/log", &Zeroizing::new([5; 32])).unwrap();
        let log = Logging::open(&self.path("cloud/log"), key, &[], Serving::ToNobody, service.cloud.memory()).unwrap();
        service.with_logging(log).with_keeper(keeper(cloud, path))
    }

    /// A batch of one reading of each device.
    fn batch(&mut self, now: Millis) -> Vec<u8> {
        let net = self.nodes[0].0;
        let text = format!("{:1100}", now.0);
        let payload = [&b"\x81\xA2\x00\x64text\x03\x79\x04\x4C"[..], text.as_bytes()].concat();
        let sent: Vec<Sent> = self.nodes.iter_mut().map(|(_, node)| node.send(&payload)).collect();
        let envelopes = sent.iter().map(|s| {
            let originator = Originator::Node { net, sid: s.sid };
            Envelope { received: now, originator, ..s.envelope() }
        });
        let envelopes: Vec<Envelope<'_>> = envelopes.collect();
        self.gateway.batch(&envelopes)
    }
}

fn policy(kept: Option<u64>) -> Policy {
    let words = CloudLimits {
        keep_free_mib: Some(0),
        readings: CloudLimit { days: Some(2), max_mib: kept.map(|bytes| bytes / MIB) },
        ..CloudLimits::default()
    };
    Policy::check(&words).unwrap()
}

fn read<T>(service: &Service, ask: impl FnOnce(&Reader) -> Result<T, StoreError>) -> T {
    service.cloud.memory().read(ask).unwrap()
}

/// A sink has all readings that are there.
async fn send(service: &Service, now: Millis) -> i64 {
    let last = read(service, |r| r.last_id());
    let moved = OutboxMove { name: "lake".into(), reading: Some(last), ..OutboxMove::default() };
    let outbox = OutboxWrite { moves: vec![moved], ..OutboxWrite::default() };
    service.commit(Write { now, outbox, ..Write::default() }).await.unwrap();
    last
}

/// Everything that is due, as the daemon does it.
fn keep(service: &Arc<Service>, now: Millis) {
    block_in_place(|| {
        service.write_log().unwrap();
        while !service.keep_limits(now).unwrap() {}
    });
}

/// What the gauges say is what SQLite and the disk say.
fn gauges(site: &Site, service: &Service) {
    let usage = service.usage().unwrap();
    let path = site.path("cloud/readings.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let number = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap() as u64;
    let pages = number("PRAGMA page_count") - number("PRAGMA freelist_count");
    let journal = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |m| m.len()).max(JOURNAL);
    let log = folder(&site.path("cloud/log"));
    let is = pages * number("PRAGMA page_size") + journal + log;
    // The log is weighed every five minutes.
    assert!(usage.used.abs_diff(is) <= 64 * 1024, "{} of {is}", usage.used);
    let part = |part| read(service, |r| r.part(part));
    let (readings, ledger) = (part(Part::Readings), part(Part::Ledger));
    assert_eq!(ledger.rows, number("SELECT count(*) FROM reading"));
    assert_eq!(readings.rows, number("SELECT count(*) FROM reading WHERE flags & 64 = 0"));
    assert_eq!(readings.bytes, number("SELECT sum(length(payload)) FROM reading"));
    let proofs = "SELECT sum(length(cose) + coalesce(length(others), 0)) FROM receipt";
    assert_eq!(part(Part::Evidence).bytes, number(proofs));
    let oldest = number("SELECT min(ingested) FROM reading WHERE flags & 64 = 0");
    assert_eq!(readings.oldest, Some(Millis(oldest)));
    // What rows take is an estimate, and near what the table and its index really take.
    let table = "SELECT sum(payload) FROM dbstat WHERE name IN ('reading', 'sqlite_autoindex_reading_1')";
    let (said, real) = (readings.bytes + ledger.bytes, number(table));
    assert!(said.abs_diff(real) * 100 <= 15 * real, "{said} of {real}");
}

fn folder(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { folder(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

/// What is in the ledger: how many rows, and how many of them were pruned. They are the oldest.
fn ledger(service: &Service) -> (usize, usize) {
    let rows = read(service, |r| r.ledger());
    let pruned = rows.iter().take_while(|r| r.flags & flag::PRUNED != 0).count();
    assert!(rows[pruned..].iter().all(|r| r.flags & flag::PRUNED == 0 && r.payload.len() > 1100));
    let numbers: BTreeMap<_, _> = rows.iter().map(|r| ((r.did, r.epoch.0, r.piv), r.id)).collect();
    assert_eq!(numbers.len(), rows.len(), "one is there twice");
    (rows.len(), pruned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_the_edge_of_the_disk_budget_loses_nothing_and_the_gauges_are_true() {
    let mut site = Site::new();
    let mut now = START;
    let mut service = block_in_place(|| site.start(None, now));
    let sink = OutboxSink { name: "lake".into(), kind: "parquet", from_start: true };
    let outbox = OutboxWrite { sinks: Some(vec![sink]), ..OutboxWrite::default() };
    service.commit(Write { now, outbox, ..Write::default() }).await.unwrap();
    let (mut taken_by_sink, mut most_kept) = (0, 0);
    let mut spool: VecDeque<Vec<u8>> = VecDeque::new();
    let mut taken: Vec<Vec<u8>> = Vec::new();
    let (mut sent, mut refused, mut first_refused, mut longest_spool) = (0, 0, None, 0);
    for minute in (0..24 * 60).step_by(BATCH_MINUTES as usize) {
        now = START.plus(minute * MINUTE);
        spool.push_back(site.batch(now));
        sent += DEVICES;
        // At noon the operator says what is to be kept, and starts the cloud again.
        if minute == 12 * 60 {
            assert!(refused > 0, "it was never full");
            let before = ledger(&service);
            assert_eq!(before, (taken.len() * DEVICES, 0), "nothing goes for want of room");
            drop(service);
            service = block_in_place(|| site.start(Some(KEPT), now));
        }
        keep(&service, now);
        // The gateway sends what waits, in its order, until it hears no.
        while let Some(body) = spool.front() {
            match service.ingest(&site.gateway.proven, body, now).await {
                Ok(_) => taken.push(spool.pop_front().unwrap()),
                Err(IngestError::Full(full)) => {
                    refused += 1;
                    first_refused.get_or_insert(minute);
                    assert!(full.to_string().contains("E4-04"), "{full}");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            let used = service.usage().unwrap().used;
            assert!(used <= BUDGET, "{used} of {BUDGET}");
            keep(&service, now);
        }
        longest_spool = longest_spool.max(spool.len());
        let is_away = SINK_AWAY.contains(&minute);
        if !is_away {
            taken_by_sink = send(&service, now).await;
        }
        if minute % 60 == 0 {
            // Somebody brings again what he recorded.
            for body in taken.iter().step_by(7) {
                if let Err(error) = service.ingest(&site.gateway.proven, body, now).await {
                    assert!(matches!(error, IngestError::Full(_)), "{error}");
                }
            }
            keep(&service, now);
            gauges(&site, &service);
            let (rows, pruned) = ledger(&service);
            assert_eq!(rows, taken.len() * DEVICES, "acknowledged and in the ledger");
            let kept = read(&service, |r| r.part(Part::Readings));
            assert_eq!((kept.pruned, kept.rows), (pruned as u64, (rows - pruned) as u64));
            assert!(pruned as i64 <= taken_by_sink, "a sink has not got what was pruned");
            if is_away {
                most_kept = most_kept.max(kept.bytes);
            } else if pruned > 0 {
                // No more went than was too much, but for the last row of it.
                assert!((KEPT - 2_000..=KEPT).contains(&kept.bytes), "{}", kept.bytes);
            }
        }
    }
    let (rows, pruned) = ledger(&service);
    assert_eq!((rows, spool.len()), (sent, 0), "all that was refused came later");
    assert!(pruned > ROWS as usize);
    assert!(most_kept > KEPT, "more was kept for the sink than was wanted");
    let visible = Query { limit: 100_000, ..Query::default() };
    assert_eq!(read(&service, |r| r.readings(&visible)).len(), rows - pruned);
    // Everything again, after a restart with a clock that is years ahead, and right a while later: nothing is new, and nothing old.
    drop(service);
    let service = block_in_place(|| site.start(Some(KEPT), now));
    let kept = read(&service, |r| r.part(Part::Readings));
    keep(&service, now.plus(3 * 365 * DAY));
    assert_eq!(service.usage().unwrap().behind, 3 * 365 * DAY - DAY);
    assert_eq!(read(&service, |r| r.part(Part::Readings)), kept, "only a clock says that it is old");
    keep(&service, now);
    assert_eq!(service.usage().unwrap().behind, 0);
    for body in &taken {
        service.ingest(&site.gateway.proven, body, now).await.unwrap();
    }
    assert_eq!(ledger(&service), (rows, pruned));
    let counts = read(&service, |r| r.counts());
    let count =
        |code| counts.iter().filter(|c| c.key.code == code && c.key.gateway.is_some()).map(|c| c.count).sum::<u64>();
    assert!(count(Code::StoreFull) >= refused, "each refusal is counted");
    assert_eq!(count(Code::CloudNonceReuse), 0);
    println!(
        "{sent} readings sent and stored; full after {} h; {refused} times no, at most {longest_spool} batches waited; \
         {pruned} pruned, {} kept",
        first_refused.unwrap() / 60,
        rows - pruned
    );
}

/// Set by the test below for itself, in a process whose files cannot grow further.
const SMALL: &str = "FIVEFOLD_TEST_SMALL_DISK";

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_byte_left_is_pruned_all_the_same_and_what_that_frees_is_room() {
    if std::env::var_os(SMALL).is_none() {
        let name = "a_disk_without_a_byte_left_is_pruned_all_the_same_and_what_that_frees_is_room";
        // Blocks of 512 bytes: 8 MiB for each file, the journal too.
        let done = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(SMALL, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("there is room again"), "{said}");
        return;
    }
    let mut site = Site::new();
    let mut policy = policy(Some(MIB));
    policy.keep_free = MIB / 2;
    // Four fifths are between an empty store and what is left once it is pruned.
    policy.disk = Some((JOURNAL + MIB) / 4 * 5);
    let keeper = |cloud, store| Keeper::new(policy, cloud, store, false).with_free(|_| Ok(0));
    let service = Arc::new(block_in_place(|| site.open(START, keeper)));
    let mut now = START;
    block_in_place(|| assert!(service.keep_limits(now).unwrap()));
    let refused = site.batch(now);
    let full = service.ingest(&site.gateway.proven, &refused, now).await.unwrap_err();
    assert!(matches!(full, IngestError::Full(Full::Disk { free: 0, spare: 0, .. })), "{full}");
    // What was under way fills the disk to the last byte.
    let store = service.cloud.memory().store();
    let mut stored = || {
        let body = site.batch(now);
        let mut judged = service.cloud.judge(&site.gateway.proven, &body, now).unwrap();
        store.commit_now(std::mem::take(&mut judged.write))
    };
    block_in_place(|| while stored().is_ok() {});
    let counted = || {
        let key = CountKey { code: Code::LinkForged, net: None, gateway: None, sid: None, place: Place::Cloud };
        let mut write = Write { now, ..Write::default() };
        write.count(key);
        store.commit_now(write)
    };
    block_in_place(|| while counted().is_ok() {});
    let (rows, pruned) = ledger(&service);
    assert!(rows > 1_000 && pruned == 0, "{rows}");
    now = now.plus(MINUTE);
    let first = block_in_place(|| service.keep_limits(now));
    assert!(first.is_err(), "that a batch was refused cannot be counted");
    assert!(read(&service, |r| r.part(Part::Readings)).pruned > 0, "and what is due goes all the same");
    keep(&service, now);
    assert_eq!(service.usage().unwrap().refusing, None, "it is free in the file that will not grow");
    service.ingest(&site.gateway.proven, &refused, now).await.unwrap();
    assert_eq!(ledger(&service).0, rows + DEVICES);
    let counts = read(&service, |r| r.counts());
    let full = |by_gateway| {
        let full = counts.iter().filter(|c| c.key.code == Code::StoreFull && c.key.gateway.is_some() == by_gateway);
        full.map(|c| c.count).sum::<u64>()
    };
    assert_eq!((full(true), full(false)), (1, 1), "a refusal, and that it is nearly full, which had no room at first");
    println!("there is room again");
}
