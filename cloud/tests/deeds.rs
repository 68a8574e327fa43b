//! The operator's log in the evidence log: every line once, in its order, whatever is cut in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Arc;

use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::log::{Logging, Serving};
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::error::Code;
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::deeds::{Compared, compare};
use fivefold_evidence::log::{Entry, EntryKind};
use fivefold_evidence::record::Deed;
use fivefold_keep::registry::{By, Registry};
use fivefold_keep::vault::Vault;
use tempfile::TempDir;
use zeroize::Zeroizing;

const NOW: Millis = Millis(1_790_000_000_000);

/// An operator's folder, and its cloud while it runs.
struct Site {
    folder: TempDir,
    vault: Arc<Vault>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        Registry::create(&folder.path().join("registry.db"), by("init")).unwrap();
        Self { folder, vault }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn book(&self) -> Registry {
        Registry::open(&self.path("registry.db"), by("network add")).unwrap()
    }

    fn add(&self, name: &str) {
        self.book().add_network(&self.vault, name, Profile::ToCloud, None).unwrap();
    }

    fn start(&self) -> Service {
        let store = Store::open(&self.path("readings.db")).unwrap();
        let service =
            Service::open(store, self.path("registry.db"), self.vault.clone(), RenewalSettings::default(), NOW)
                .unwrap();
        let key = LogKey::from_seed("fivefold.00000000/log", &Zeroizing::new([5; 32])).unwrap();
        let logging = Logging::open(&self.path("log"), key, &[], Serving::ToNobody, service.cloud.memory()).unwrap();
        service.with_logging(logging)
    }

    /// What the evidence log has of the lines that the book has now.
    fn compared(&self, service: &Service) -> Compared {
        let log = service.logging().unwrap().log();
        let entries = (0..log.durable()).map(|i| (i, log.entry(i).unwrap().unwrap()));
        let of_operator: Vec<(u64, Entry)> = entries.filter(|(_, e)| e.kind() == Some(EntryKind::Operator)).collect();
        compare(&self.book().deeds(0, u32::MAX).unwrap(), &of_operator)
    }
}

fn by(command: &str) -> By {
    By::new("anna", "pts/1", command, 1)
}

fn queued(service: &Service) -> Vec<u64> {
    let records = service.cloud.memory().read(|r| r.log_records()).unwrap();
    let deeds = records.iter().filter(|r| r.kind == EntryKind::Operator);
    deeds.map(|r| Deed::parse(&r.record).unwrap().number).collect()
}

fn holds(logged: usize) -> Compared {
    Compared { logged, waiting: 0, wrong: Vec::new() }
}

fn alarms(service: &Service) -> usize {
    let counts = service.cloud.memory().read(|r| r.counts()).unwrap();
    counts.iter().filter(|c| c.key.code == Code::EvidenceLog).count()
}

#[test]
fn every_line_goes_to_the_log_once_in_its_order_and_what_was_done_without_a_cloud_too() {
    let site = Site::new();
    site.add("a");
    site.add("b");
    let service = site.start();
    // The cloud's own key was made when it started.
    assert_eq!(queued(&service), [1, 2, 3]);
    site.add("c");
    // No version of the book comes of this one.
    site.book().enter_deed("command queued", "device acde480000000001").unwrap();
    service.refresh(NOW).unwrap();
    service.refresh(NOW).unwrap();
    assert_eq!(queued(&service), [1, 2, 3, 4, 5]);
    service.write_log().unwrap();
    assert_eq!(site.compared(&service), holds(5));
    drop(service);
    let service = site.start();
    service.write_log().unwrap();
    assert_eq!((queued(&service).len(), site.compared(&service), alarms(&service)), (5, holds(5), 0));
}

#[test]
fn a_crash_between_book_store_and_log_loses_no_line_and_doubles_none() {
    let site = Site::new();
    let mut expected = 1;
    for round in 0..4 {
        site.add(&format!("before {round}"));
        // It dies when the lines are in the book alone, in the store, or in the log with no place in the store.
        let service = site.start();
        site.add(&format!("meanwhile {round}"));
        if round > 0 {
            service.refresh(NOW).unwrap();
        }
        if round > 1 {
            service.write_log().unwrap();
        }
        expected += 2;
        drop(service);
        if round == 3 {
            let store = rusqlite::Connection::open(site.path("readings.db")).unwrap();
            assert!(store.execute("UPDATE log_entry SET idx = NULL WHERE idx >= 3", []).unwrap() > 0);
        }
    }
    let service = site.start();
    service.write_log().unwrap();
    assert_eq!(queued(&service), (1..=expected).collect::<Vec<u64>>());
    assert_eq!(site.compared(&service), holds(usize::try_from(expected).unwrap()));
}

#[test]
fn many_lines_are_queued_in_groups() {
    let site = Site::new();
    let mut book = site.book();
    for n in 0..2_500 {
        book.enter_deed("command queued", n).unwrap();
    }
    let service = site.start();
    assert_eq!(queued(&service), (1..=2_501).collect::<Vec<u64>>());
}

#[test]
fn lines_that_were_altered_or_put_back_are_an_alarm_and_both_courses_stay_in_the_log() {
    let site = Site::new();
    site.add("a");
    let copy = std::fs::read(site.path("registry.db")).unwrap();
    let service = site.start();
    site.add("b");
    service.refresh(NOW).unwrap();
    service.write_log().unwrap();
    assert_eq!((site.compared(&service), alarms(&service)), (holds(3), 0));
    drop(service);
    // The book is put back from a copy, and goes on otherwise.
    for more in ["registry.db-wal", "registry.db-shm"] {
        let _ = std::fs::remove_file(site.path(more));
    }
    std::fs::write(site.path("registry.db"), copy).unwrap();
    site.add("c");
    let service = site.start();
    assert_eq!(alarms(&service), 1);
    service.write_log().unwrap();
    let compared = site.compared(&service);
    assert!(compared.wrong[0].contains("put back from a copy"), "{compared:?}");
    assert_eq!((queued(&service), compared.logged), (vec![1, 2, 3, 2, 3], 3));
    // From here on it goes on.
    site.add("d");
    service.refresh(NOW).unwrap();
    service.write_log().unwrap();
    assert_eq!((queued(&service).last(), alarms(&service), site.compared(&service).logged), (Some(&4), 1, 4));
    drop(service);

    // A line is altered with all that follows hashed anew: the log has the others.
    let file = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    file.execute("UPDATE deeds SET who = 'nobody' WHERE n = 4", []).unwrap();
    drop(file);
    let service = site.start();
    assert_eq!(alarms(&service), 1, "one row of counters");
    assert_eq!(queued(&service).last(), Some(&4), "what stands there now goes to the log as well");
}
