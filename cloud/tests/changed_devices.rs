//! A large book is not read whole for each change: what a cloud has in the end is the same, and who did not change is not made anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::id::{Did, Epoch, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::time::Millis;
use fivefold_keep::registry::{By, DeviceKey, FirstContexts, NewDevice, Registry, Whom};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::Vault;

const NOW: Millis = Millis(1_790_000_000_000);

struct Site {
    folder: tempfile::TempDir,
    vault: Arc<Vault>,
    book: Registry,
    net: Net,
    drawn: u8,
}

/// What is known of devices: who is served, with what, and whose places are revoked.
type Known = (BTreeMap<Did, (Sid, Epoch, Policy, bool)>, BTreeSet<(Net, Sid)>);

fn known(service: &Service) -> Known {
    let book = service.cloud.book();
    let served = book.by_did.values().map(|d| (d.did, (d.sid, d.epoch, d.policy, d.can_renew())));
    assert_eq!(book.by_did.len(), book.devices.len());
    for ((net, sid), device) in &book.devices {
        assert_eq!((*net, *sid), (device.net, device.sid));
        assert!(Arc::ptr_eq(device, &book.by_did[&device.did]));
    }
    (served.collect(), book.revoked.iter().copied().collect())
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let by = By::new("anna", "pts/1", "device add", 1);
        let mut book = Registry::create(&folder.path().join("registry.db"), by).unwrap();
        let net = book.add_network(&vault, "one", Profile::ToCloud, None).unwrap().net;
        Self { folder, vault, book, net, drawn: 0 }
    }

    fn add(&mut self, can_renew: bool) -> Did {
        self.drawn += 1;
        let x = AgreementKey::from_random(&[self.drawn; 32]).unwrap().public_x();
        let key = can_renew.then_some(DeviceKey { x, first: FirstContexts::Installed });
        let (policy, overrides) = (Policy::new(Profile::ToCloud), Overrides::NONE);
        let new = NewDevice { did: None, sid: None, net: self.net, policy, overrides, words: None, key };
        self.book.add_device(&self.vault, &new, NOW.0 / 1000).unwrap().0.did
    }

    fn open(&self, store: &str) -> Service {
        let store = Store::open(&self.folder.path().join(store)).unwrap();
        let book = self.folder.path().join("registry.db");
        Service::open(store, book, self.vault.clone(), RenewalSettings::default(), NOW).unwrap()
    }
}

#[test]
fn a_cloud_that_follows_changes_knows_what_one_that_reads_all_of_the_book_knows() {
    let mut site = Site::new();
    let [a, b, c, d] = [true, true, false, false].map(|can| site.add(can));
    let following = site.open("following.db");
    let at_first = following.cloud.book();
    let mut n = 0;
    let mut same = |site: &Site, following: &Service| {
        following.refresh(NOW).unwrap();
        n += 1;
        let whole = site.open(&format!("whole-{n}.db"));
        // Starting it makes a key of its own at most once, and no version.
        assert_eq!(known(following), known(&whole), "after change {n}");
        assert_eq!(following.cloud.book().version, site.book.version().unwrap());
    };
    same(&site, &following);
    let e = site.add(true);
    same(&site, &following);
    site.book.revoke_device(c, NOW.0 / 1000).unwrap();
    same(&site, &following);
    site.book.enrol_again(&site.vault, b, None, NOW.0 / 1000).unwrap();
    same(&site, &following);
    site.book.order_renewal(Whom::Device(a), NOW.0 / 1000).unwrap();
    same(&site, &following);
    assert!(following.cloud.book().by_did[&a].ordered_to_renew().is_some());
    site.book.revoke_device(e, NOW.0 / 1000).unwrap();
    site.book.add_network(&site.vault, "two", Profile::ToCloud, None).unwrap();
    let f = site.add(false);
    same(&site, &following);
    // What changed and what did not.
    let book = following.cloud.book();
    assert!(Arc::ptr_eq(&at_first.by_did[&d], &book.by_did[&d]));
    assert!(!Arc::ptr_eq(&at_first.by_did[&b], &book.by_did[&b]));
    assert_eq!(book.by_did.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([a, b, d, f]));
}
