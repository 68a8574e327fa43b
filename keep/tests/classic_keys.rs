//! Key messages of classic devices in the operator's book: who may send them, and where each key stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e5_renewal::key_message::{FreshKey, MessageHash};
use fivefold_core::id::{Did, GatewayId, Net, Serial as KeySerial, ServerKid, Sid};
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{Auth, Confirmation, Header, KeyEpoch, KeyLen, KeyLevel, Kr2, RsaSize, Status};
use fivefold_keep::key_message::{KeyState, PENDING, PendingKey, Switch};
use fivefold_keep::registry::{ClassicDevice, ClassicProfile, Gateway, HardenedHolder, NewClassic, Registry};
use fivefold_keep::vault::Vault;
use serde_json::Value;

const SERIAL: &str = "0123456789abcdef";
const GATEWAY: HardenedHolder = HardenedHolder::Gateway(GatewayId(1));

struct Site {
    _folder: tempfile::TempDir,
    vault: Vault,
    book: Registry,
    net: Net,
}

fn pkcs8(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/key-message.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let keys = vectors["keys"].as_array().unwrap();
    hex::decode(keys.iter().find(|k| k["name"] == name).unwrap()["pkcs8"].as_str().unwrap()).unwrap()
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = book.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        book.allow_classic("n").unwrap();
        book.add_classic(&vault, &NewClassic::plain(SERIAL.parse().unwrap(), net), 1).unwrap();
        book.enter_message_server(&vault, &pkcs8("server2048"), 1).unwrap();
        Self { _folder: folder, vault, book, net }
    }

    fn gateway(&mut self) {
        let gateway = Gateway {
            gateway: GatewayId(1),
            net: self.net,
            name: "g".into(),
            sid: Sid(1),
            did: Did([1; 8]),
            primary: true,
            receipt_keys: Vec::new(),
            revoked_at: None,
        };
        self.book.add_gateway(&gateway).unwrap();
    }

    fn enrol(&mut self, level: KeyLevel) -> Result<ClassicDevice, String> {
        let enrolled = self.book.enrol_for_messages(&self.vault, SERIAL.parse().unwrap(), (level, RsaSize::Rsa2048), 2);
        enrolled.map(|(device, _)| device).map_err(|e| e.to_string())
    }

    fn agree(&mut self, level: KeyLevel, epoch: u32, evicts: Option<u32>) -> bool {
        let holder = if level == KeyLevel::E2 { GATEWAY } else { HardenedHolder::Cloud };
        self.book.agree_hardened(&self.vault, &pending(level, epoch, evicts), holder, 3).unwrap()
    }

    fn states(&self, level: KeyLevel) -> Vec<(u32, KeyState)> {
        let all = self.book.enrolled_for_messages(&self.vault).unwrap();
        let one = all.into_iter().find(|e| e.level == level).unwrap();
        one.chain.keys().map(|(epoch, state)| (epoch.0, state)).collect()
    }

    fn held(&self, holder: HardenedHolder, most: usize) -> Vec<(u32, u8)> {
        let device = self.book.classic_device(SERIAL.parse().unwrap()).unwrap();
        let keys = self.book.hardened_keys(&self.vault, &device, holder, most).unwrap();
        keys.iter().map(|k| (k.epoch, k.key[0])).collect()
    }
}

fn serial() -> KeySerial {
    SERIAL.parse().unwrap()
}

fn pending(level: KeyLevel, epoch: u32, evicts: Option<u32>) -> PendingKey {
    let header = Header {
        size: RsaSize::Rsa2048,
        auth: Auth::Mac,
        serial: serial(),
        level,
        keylen: KeyLen::B32,
        epoch: KeyEpoch(epoch),
        server: ServerKid([9; 4]),
    };
    PendingKey {
        serial: serial(),
        level,
        epoch: KeyEpoch(epoch),
        auth: Auth::Mac,
        size: RsaSize::Rsa2048,
        message: MessageHash([epoch as u8; 32]),
        answer: Kr2::answer_to(&header, Status::Accepted, Confirmation([epoch as u8; 16])),
        fresh: FreshKey::new(&[1; 16], &[epoch as u8; 32]).unwrap(),
        evicts: evicts.map(KeyEpoch),
    }
}

#[test]
fn a_device_that_is_enrolled_counts_by_hardened_frames_alone_and_each_level_is_its_own() {
    let mut site = Site::new();
    assert!(site.enrol(KeyLevel::E2).unwrap_err().contains("no primary gateway"));
    site.gateway();
    assert_eq!(site.enrol(KeyLevel::E2).unwrap().profile, ClassicProfile::Hardened);
    assert_eq!(site.enrol(KeyLevel::E3).unwrap().profile, ClassicProfile::Hardened);
    let of = |site: &Site| site.book.enrolled_for_messages(&site.vault).unwrap();
    let before: Vec<_> = of(&site).iter().map(|e| (e.level, e.key.mac(&[0; 24], b"c"))).collect();
    assert_eq!(before.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [KeyLevel::E2, KeyLevel::E3]);
    assert_ne!(before[0].1, before[1].1, "a key for each level");
    // Once more draws another one, and the other level keeps its own.
    site.enrol(KeyLevel::E2).unwrap();
    let after: Vec<_> = of(&site).iter().map(|e| (e.level, e.key.mac(&[0; 24], b"c"))).collect();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    site.book.end_key_messages(SERIAL.parse().unwrap(), KeyLevel::E2).unwrap();
    assert!(site.book.end_key_messages(SERIAL.parse().unwrap(), KeyLevel::E2).is_err());
    assert_eq!(of(&site).len(), 1);
    site.book.revoke_classic(SERIAL.parse().unwrap(), 9).unwrap();
    assert!(of(&site).is_empty());
    assert!(site.enrol(KeyLevel::E3).unwrap_err().contains("revoked"));
}

#[test]
fn no_key_of_1024_bits_is_made_and_none_is_entered_twice() {
    let mut site = Site::new();
    let refused =
        site.book.enrol_for_messages(&site.vault, SERIAL.parse().unwrap(), (KeyLevel::E3, RsaSize::Rsa1024), 2);
    assert!(refused.unwrap_err().to_string().contains("2048 and 3072"));
    assert!(site.book.enter_message_server(&site.vault, &pkcs8("server1024"), 2).is_err());
    let again = site.book.enter_message_server(&site.vault, &pkcs8("server2048"), 2);
    assert!(again.unwrap_err().to_string().contains("has the id"));
    let servers = site.book.message_servers().unwrap();
    assert_eq!(servers.len(), 1);
    let key = site.book.message_server(&site.vault, servers[0].kid).unwrap();
    assert_eq!(key.public().spki(), servers[0].spki);
}

#[test]
fn a_key_is_entered_once_under_the_next_epoch_and_waits_for_its_first_frame() {
    let mut site = Site::new();
    site.gateway();
    site.enrol(KeyLevel::E2).unwrap();
    assert!(!site.agree(KeyLevel::E3, 1, None), "not enrolled for that level");
    assert!(!site.agree(KeyLevel::E2, 2, None), "not the next one");
    let version = site.book.version().unwrap();
    assert!(site.agree(KeyLevel::E2, 1, None));
    assert!(site.book.version().unwrap() > version, "gateways are pushed it");
    assert!(!site.agree(KeyLevel::E2, 1, None), "taken");
    assert_eq!(site.states(KeyLevel::E2), [(1, KeyState::Pending)]);
    assert_eq!(site.book.unused_hardened().unwrap(), [(Did(serial().0), 2, 1)].into());
    // Its owner alone has it.
    assert_eq!((site.held(GATEWAY, 4), site.held(HardenedHolder::Cloud, 4)), (vec![(1, 1)], vec![]));
    assert_eq!(site.held(HardenedHolder::Gateway(GatewayId(2)), 4), []);
    // One that is drawn by hand takes the next epoch, and answers to nobody.
    site.book.harden_classic(&site.vault, SERIAL.parse().unwrap(), 4).unwrap();
    assert!(!site.agree(KeyLevel::E2, 2, None));
    assert!(site.agree(KeyLevel::E2, 3, None));
    site.book.revoke_classic(SERIAL.parse().unwrap(), 9).unwrap();
    assert!(!site.agree(KeyLevel::E2, 4, None), "revoked");
}

#[test]
fn the_first_frame_under_a_key_lets_the_one_before_drain_and_drops_what_was_passed_over() {
    let mut site = Site::new();
    site.enrol(KeyLevel::E3).unwrap();
    (1..=3).for_each(|epoch| assert!(site.agree(KeyLevel::E3, epoch, None)));
    let switch = |activates, drains: Option<u32>, drops: &[u32]| Switch {
        activates: KeyEpoch(activates),
        drains: drains.map(|e| (KeyEpoch(e), Millis(77_000))),
        drops: drops.iter().copied().map(KeyEpoch).collect(),
    };
    site.book.switch_hardened(serial(), KeyLevel::E3, &switch(1, None, &[])).unwrap();
    site.book.switch_hardened(serial(), KeyLevel::E3, &switch(3, Some(1), &[2])).unwrap();
    let draining = KeyState::Draining { until: Millis(77_000) };
    assert_eq!(site.states(KeyLevel::E3), [(1, draining), (3, KeyState::Active)]);
    assert!(site.book.unused_hardened().unwrap().is_empty());
    assert_eq!(site.held(HardenedHolder::Cloud, 9), [(1, 1), (3, 3)], "the one that drains opens frames");
    site.book.forget_hardened(KeyLevel::E3, &[(serial(), KeyEpoch(1))]).unwrap();
    assert_eq!(site.held(HardenedHolder::Cloud, 9), [(3, 3)]);
    assert_eq!(site.states(KeyLevel::E3), [(3, KeyState::Active)]);
}

#[test]
fn a_holder_of_few_keys_has_the_one_in_use_and_the_newest() {
    let mut site = Site::new();
    site.enrol(KeyLevel::E3).unwrap();
    assert!(site.agree(KeyLevel::E3, 1, None));
    let first = Switch { activates: KeyEpoch(1), drains: None, drops: Vec::new() };
    site.book.switch_hardened(serial(), KeyLevel::E3, &first).unwrap();
    for epoch in 2..=PENDING as u32 + 1 {
        assert!(site.agree(KeyLevel::E3, epoch, None));
    }
    // The ninth that waits takes the place of the first of them.
    assert!(site.agree(KeyLevel::E3, 10, Some(2)));
    let epochs = |most| site.held(HardenedHolder::Cloud, most).iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>();
    assert_eq!(epochs(4), [1, 8, 9, 10]);
    assert_eq!(epochs(20), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_key_that_a_message_brought_is_as_old_as_the_enrolment_key_that_proved_it() {
    let mut site = Site::new();
    let did = Did(serial().0);
    let since = |site: &Site| {
        let mut all: Vec<_> = site.book.hardened_since().unwrap().into_iter().collect();
        all.sort_unstable();
        all.into_iter().map(|((whose, level, epoch), at)| (whose == did, level, epoch, at)).collect::<Vec<_>>()
    };
    // Enrolled at 2, agreed at 3.
    site.enrol(KeyLevel::E3).unwrap();
    assert!(site.agree(KeyLevel::E3, 1, None));
    site.book.harden_classic_to_cloud(&site.vault, SERIAL.parse().unwrap(), 5).unwrap();
    assert_eq!(since(&site), [(true, 3, 1, 2), (true, 3, 2, 5)]);
    // With another enrolment key nobody knows any more how old the first key is.
    let again = (KeyLevel::E3, RsaSize::Rsa2048);
    site.book.enrol_for_messages(&site.vault, SERIAL.parse().unwrap(), again, 7).unwrap();
    assert_eq!(since(&site), [(true, 3, 2, 5)]);
    let agreed = pending(KeyLevel::E3, 3, None);
    assert!(site.book.agree_hardened(&site.vault, &agreed, HardenedHolder::Cloud, 8).unwrap());
    assert_eq!(since(&site), [(true, 3, 2, 5), (true, 3, 3, 7)]);
}
