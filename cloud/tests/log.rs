//! The log's writer: every event goes to the log once, in the order in which it became durable, whatever is cut in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::signer::{signature_item, signing_world};
use common::*;
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::log::{Logging, LoggingError, Serving};
use fivefold_cloud::service::Service;
use fivefold_cloud::store::{LogRecord, Store};
use fivefold_core::profile::{Mode, Overrides, Policy, Profile, Sign};
use fivefold_core::proof::KeyName;
use fivefold_core::reading::Definition;
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::log::{EntryKind, Log};
use fivefold_evidence::record::{Configured, Enrolment, Made, Revocations};
use fivefold_keep::ca::Authority;
use fivefold_keep::enrol::{Keys, Request};
use fivefold_keep::registry::{KeyOrigin, NewDevice, Registry, Replaces, Signer, Word};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::vault::Vault;
use zeroize::Zeroizing;

fn key() -> LogKey {
    LogKey::from_seed("fivefold.00000000/log", &Zeroizing::new([5; 32])).unwrap()
}

fn logging(world: &World, folder: &Path) -> Result<Logging, LoggingError> {
    Logging::open(folder, key(), &[], Serving::ToNobody, world.cloud.memory())
}

fn kinds(log: &Log) -> Vec<&'static str> {
    (0..log.durable()).map(|i| log.entry(i).unwrap().unwrap().kind().unwrap().name()).collect()
}

/// Two readings and their signature, each in a batch of its own.
fn signed() -> World {
    let (mut world, mut node, mut signer) = signing_world(Profile::ToCloud, Mode::Persistent);
    for _ in 0..2 {
        let sent = signer.reading(&mut node, READING);
        world.post(&[sent.envelope()]);
    }
    let carrier = node.send(&signature_item(&signer.close()));
    world.post(&[carrier.envelope()]);
    world
}

fn no_deeds(mut records: Vec<LogRecord>) -> Vec<LogRecord> {
    records.retain(|r| r.kind != EntryKind::Operator);
    records
}

fn waiting(world: &World) -> u64 {
    world.cloud.memory().read(|r| r.log_standing()).unwrap().0
}

#[test]
fn receipts_and_batches_go_to_the_log_in_their_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = signed();
    let open = logging(&world, folder.path()).unwrap();
    assert_eq!(open.write(world.cloud.memory()).unwrap(), 4);
    assert_eq!(kinds(open.log()), ["g1", "g1", "g1", "b1"]);
    assert_eq!((open.write(world.cloud.memory()).unwrap(), waiting(&world)), (0, 0));
    drop(open);
    let world = world.restart();
    let open = logging(&world, folder.path()).unwrap();
    assert_eq!((open.write(world.cloud.memory()).unwrap(), open.log().durable()), (0, 4));
}

#[test]
fn a_store_that_fails_behind_the_log_doubles_nothing_when_it_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = signed();
    let open = logging(&world, folder.path()).unwrap();
    // The log has taken all, and the store takes no place.
    let trouble = rusqlite::Connection::open(&world.path).unwrap();
    trouble
        .execute_batch("CREATE TRIGGER trouble BEFORE UPDATE ON log_entry BEGIN SELECT RAISE(ABORT, 'disk'); END")
        .unwrap();
    for _ in 0..3 {
        assert!(matches!(open.write(world.cloud.memory()), Err(LoggingError::Store(_))));
        assert_eq!((open.log().durable(), waiting(&world)), (4, 4));
    }
    trouble.execute_batch("DROP TRIGGER trouble").unwrap();
    assert_eq!(open.write(world.cloud.memory()).unwrap(), 4);
    assert_eq!((open.log().durable(), waiting(&world)), (4, 0));
    assert_eq!(kinds(open.log()), ["g1", "g1", "g1", "b1"]);
}

#[test]
fn a_crash_behind_any_entry_loses_none_and_doubles_none() {
    for written in 0..=4 {
        let folder = tempfile::tempdir().unwrap();
        let world = signed();
        let queue = world.cloud.memory().read(|r| r.log_waiting(100)).unwrap();
        // So many went to the log, and their places are not in the store.
        let log = Log::open(folder.path(), key()).unwrap();
        let entries: Vec<_> = queue.iter().map(|w| w.entry).collect();
        log.append(&entries[..written]).unwrap();
        drop(log);
        let world = world.restart();
        let open = logging(&world, folder.path()).unwrap();
        assert_eq!(waiting(&world), 4 - written as u64);
        assert_eq!(open.write(world.cloud.memory()).unwrap(), 4 - written);
        let there: Vec<_> = (0..open.log().durable()).map(|i| open.log().entry(i).unwrap().unwrap()).collect();
        assert_eq!(there, entries);
    }
}

#[test]
fn what_a_power_cut_tore_off_the_log_is_written_again_unless_the_store_knows_it() {
    for is_known in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let world = signed();
        let queue = world.cloud.memory().read(|r| r.log_waiting(100)).unwrap();
        let entries: Vec<_> = queue.iter().map(|w| w.entry).collect();
        if is_known {
            logging(&world, folder.path()).unwrap().write(world.cloud.memory()).unwrap();
        } else {
            Log::open(folder.path(), key()).unwrap().append(&entries).unwrap();
        }
        // The last record and a half were not written.
        let path = folder.path().join("own/journal");
        let mut torn = std::fs::read(&path).unwrap();
        let from = torn.len() - 63;
        torn[from..].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let world = world.restart();
        let opened = logging(&world, folder.path());
        if is_known {
            assert!(opened.unwrap_err().to_string().contains("entry 2 of the log does not read"));
            assert_eq!(std::fs::read(&path).unwrap(), torn);
            continue;
        }
        let open = opened.unwrap();
        assert_eq!((open.log().aside().unwrap().entry, waiting(&world)), (2, 2));
        assert_eq!(open.write(world.cloud.memory()).unwrap(), 2);
        let there: Vec<_> = (0..open.log().durable()).map(|i| open.log().entry(i).unwrap().unwrap()).collect();
        assert_eq!(there, entries);
    }
}

#[test]
fn a_store_that_was_put_back_goes_on_behind_what_it_forgot() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = |path: &Path| ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())));
    let copy = files(&copies.path().join("copy.db"));
    let world = signed();
    let open = logging(&world, folder.path()).unwrap();
    let world = world.stopped(|path| {
        for (from, to) in files(path).iter().zip(&copy).filter(|(from, _)| from.exists()) {
            std::fs::copy(from, to).unwrap();
        }
    });
    open.write(world.cloud.memory()).unwrap();
    drop(open);
    // The copy knows the events, and none of their places; nor what comes after it.
    let world = world.stopped(|path| {
        for (from, to) in copy.iter().zip(files(path)) {
            let _ = std::fs::remove_file(&to);
            if from.exists() && !to.ends_with("-shm") {
                std::fs::copy(from, &to).unwrap();
            }
        }
        fivefold_cloud::store::restored(path, NOW).unwrap();
    });
    assert_eq!(waiting(&world), 4);
    let open = logging(&world, folder.path()).unwrap();
    assert_eq!((waiting(&world), open.log().durable()), (0, 4));
}

#[test]
fn a_log_that_is_older_than_the_store_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let world = signed();
    logging(&world, folder.path()).unwrap().write(world.cloud.memory()).unwrap();
    let other = tempfile::tempdir().unwrap();
    let refused = logging(&world, other.path()).unwrap_err();
    assert!(matches!(refused, LoggingError::Shorter { known: 4, have: 0 }), "{refused}");
    assert!(refused.to_string().starts_with("EV-05"));
}

#[test]
fn the_book_of_the_operator_is_in_the_log_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::create(folder.path()).unwrap();
    let book = folder.path().join("registry.db");
    let mut registry = Registry::create(&book, fivefold_keep::registry::By::new("test", "here", "test", 1)).unwrap();
    let net = registry.add_network(&vault, "field-7", Profile::ToCloud, None).unwrap().net;
    let mut add = |sign| {
        let policy = Policy { sign, ..Policy::new(Profile::ToCloud) };
        let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key: None };
        registry.add_device(&vault, &new, 1).unwrap().0
    };
    let (signs, _) = (add(Sign::Batch), add(Sign::None));
    let spki = SigningKey::generate().unwrap().0.spki().to_vec();
    let signer = Signer {
        did: signs.did,
        spki: spki.clone(),
        origin: KeyOrigin::SecureElement,
        chain: String::new(),
        not_after: 1 << 40,
        certified_at: 2,
        revoked_at: None,
    };
    registry.enter_signer(&signer, Replaces::Nothing).unwrap();
    let open = || {
        let vault = Arc::new(Vault::open_folder(folder.path()).unwrap());
        let store = Store::open(&folder.path().join("readings.db")).unwrap();
        Service::open(store, book.clone(), vault, RenewalSettings::default(), NOW).unwrap()
    };
    let records = |service: &Service| no_deeds(service.cloud.memory().read(|r| r.log_records()).unwrap());
    let service = open();
    let first = records(&service);
    let [list, enrolled, configured] = &first[..] else { panic!("{first:?}") };
    assert_eq!(Revocations::parse(&list.record).unwrap(), Revocations::default());
    let sid = signs.sid;
    let said = Enrolment { did: signs.did, net, sid, spki: &spki, made: Made::InSecureElement };
    assert_eq!(Enrolment::parse(&enrolled.record).unwrap(), said);
    let said = Configured::parse(&configured.record).unwrap();
    assert_eq!((said.did, Policy::parse(said.policy).unwrap()), (signs.did, signs.policy));
    drop(service);
    let service = open();
    assert_eq!(records(&service), first, "each once, whoever starts again");
    // A template is registered: the log says so of each device that signs.
    let template = fivefold_keep::templates::read("[[template]]\nid = 3\ncolumns = [{ name = \"level\" }]\n").unwrap();
    registry.add_templates("field-7", &template, 5).unwrap();
    service.refresh(NOW).unwrap();
    service.refresh(NOW).unwrap();
    let all = records(&service);
    let said = Configured::parse(&all[3].record).unwrap();
    let hash = Definition::parse(&template[0].definition).unwrap().hash();
    assert_eq!((all.len(), said.did, said.templates), (4, signs.did, vec![(3, hash)]));
    registry.revoke_device(signs.did, 77).unwrap();
    service.refresh(NOW).unwrap();
    service.refresh(NOW).unwrap();
    let all = records(&service);
    let list = Revocations::parse(&all[4].record).unwrap();
    assert_eq!((all.len(), list.number, list.keys), (5, 1, vec![(signer.name(), 77)]));
    assert_eq!(all[4].kind, EntryKind::Revocation);
}

#[test]
fn a_key_for_receipts_that_is_revoked_goes_to_the_list_although_the_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::create(folder.path()).unwrap();
    let book = folder.path().join("registry.db");
    let mut registry = Registry::create(&book, fivefold_keep::registry::By::new("test", "here", "test", 1)).unwrap();
    let net = registry.add_network(&vault, "field-7", Profile::ToCloud, None).unwrap().net;
    let gateway = fivefold_keep::registry::Gateway { net, ..Gateway::new(net, 1).registered() };
    registry.add_gateway(&gateway).unwrap();
    let (authority, _) = Authority::create("operator").unwrap();
    let enrol = |registry: &mut Registry, at: u64| {
        let keys = Keys::draw().unwrap();
        let request = keys.request(gateway.certified_as()).unwrap();
        let token = registry.invite_gateway(&gateway, at + 60, Word { who: "operator", at }).unwrap();
        registry.enrol_gateway(&authority, &token, &Request::parse(request.as_bytes()).unwrap(), at).unwrap();
        KeyName::of(SigningKey::from_pkcs8(&keys.receipts).unwrap().spki())
    };
    let at = NOW.0 / 1000;
    let first = enrol(&mut registry, at);
    let store = Store::open(&folder.path().join("readings.db")).unwrap();
    let service = Service::open(store, book, Arc::new(vault), RenewalSettings::default(), NOW).unwrap();
    assert_eq!(service.cloud.book().receipt_signers.named(first).unwrap().gateway, gateway.gateway);
    let version = registry.version().unwrap();
    let second = enrol(&mut registry, at + 10);
    assert_eq!(registry.version().unwrap(), version);
    service.refresh(NOW).unwrap();
    service.refresh(NOW).unwrap();
    let records = no_deeds(service.cloud.memory().read(|r| r.log_records()).unwrap());
    let lists: Vec<_> = records.iter().map(|r| Revocations::parse(&r.record).unwrap()).collect();
    assert_eq!((lists.len(), lists[1].number, &lists[1].keys), (2, 1, &vec![(first, at + 10)]));
    assert!(service.cloud.book().receipt_signers.named(second).unwrap().revoked_at.is_none());
    registry.revoke_gateway(&gateway.name, Word { who: "operator", at: at + 20 }).unwrap();
    service.refresh(NOW).unwrap();
    let records = no_deeds(service.cloud.memory().read(|r| r.log_records()).unwrap());
    let last = Revocations::parse(&records.last().unwrap().record).unwrap();
    assert_eq!((records.len(), last.since(first), last.since(second)), (3, Some(at + 10), Some(at + 20)));
}
