//! Key messages of classic nodes at the service, with a registry, a vault and a store (docs/protocol.md 12): what is agreed stands in
//! the book before anybody is answered, every refusal is silence and E5-08, and each key goes to its one holder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::classic::{SERIAL, binary, envelope as classic_envelope, said};
use common::{Gateway, NOW};
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::key_desk::{KeyDesk, MESSAGES_OF_GATEWAY};
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, Offer};
use fivefold_core::error::Code;
use fivefold_core::id::{GatewayId, Net, Serial};
use fivefold_core::profile::{LinkClass, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::envelope::{DownlinkKind, Envelope, Kind, Originator, Reply};
use fivefold_core::wire::key_message::{KR1_LONGEST, KeyEpoch, KeyLevel, Kr1, RsaSize};
use fivefold_core::wire::state::State;
use fivefold_keep::key_message::{DRAIN_MS, DeviceSide, Identity, KeyState};
use fivefold_keep::registry::{self, HardenedHolder, NewClassic, NodeEnrolment, Registry};
use fivefold_keep::vault::Vault;
use fivefold_waspmote::hardened::{Epoch, Key, LONGEST, Number, Peer, seal};
use serde_json::Value;
use tokio::task::block_in_place;

const HOUR: u64 = 3_600_000;
const OTHER: &str = "0123456789abcdef";

fn vector_key(name: &str, part: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/key-message.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let keys = vectors["keys"].as_array().unwrap();
    hex::decode(keys.iter().find(|k| k["name"] == name).unwrap()[part].as_str().unwrap()).unwrap()
}

struct Site {
    folder: tempfile::TempDir,
    vault: Arc<Vault>,
    book: Registry,
    net: Net,
    gateways: Vec<Gateway>,
    now: Millis,
}

impl Site {
    /// A network with a primary and a secondary gateway, another network with one, and a classic device of the first.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut book = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = book.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        let other = book.add_network(&vault, "m", Profile::ToCloud, None).unwrap().net;
        let gateways: Vec<_> = [(net, 1), (net, 2), (other, 3)].map(|(net, id)| Gateway::new(net, id)).into();
        for gateway in &gateways {
            book.add_gateway(&registered(gateway)).unwrap();
        }
        book.allow_classic("n").unwrap();
        for serial in [SERIAL, OTHER] {
            book.add_classic(&vault, &NewClassic::plain(serial.parse().unwrap(), net), 1).unwrap();
        }
        book.enter_message_server(&vault, &vector_key("server2048", "pkcs8"), 1).unwrap();
        Self { folder, vault: Arc::new(vault), book, net, gateways, now: NOW }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn service(&self) -> Arc<Service> {
        let store = Store::open(&self.path("readings.db")).unwrap();
        let open =
            || Service::open(store, self.path("registry.db"), self.vault.clone(), RenewalSettings::default(), self.now);
        Arc::new(block_in_place(open).unwrap())
    }

    fn enrol(&mut self, level: KeyLevel) -> Node {
        let serial = SERIAL.parse().unwrap();
        let made = self.book.enrol_for_messages(&self.vault, serial, (level, RsaSize::Rsa2048), 2).unwrap();
        Node::of(&made.1)
    }

    fn refresh(&self, service: &Arc<Service>) {
        block_in_place(|| service.refresh(self.now)).unwrap();
    }

    /// Posts what a gateway brings, and returns every KR2 that comes back, with the number that it answers.
    async fn post(&mut self, service: &Arc<Service>, by: usize, envelopes: &[Envelope<'_>]) -> Vec<(u64, Vec<u8>)> {
        let body = self.gateways[by].batch(envelopes);
        self.post_body(service, by, &body).await
    }

    async fn post_body(&self, service: &Arc<Service>, by: usize, body: &[u8]) -> Vec<(u64, Vec<u8>)> {
        // Of certificates the registry knows nothing here.
        let known = self.gateways.iter().map(registered).collect();
        service.cloud.replace_book(service.cloud.book().with_gateways(known, Vec::new()));
        let reply = service.ingest(&self.gateways[by].proven, body, self.now).await.unwrap();
        let reply = Reply::parse(&reply).unwrap();
        let mut answers = Vec::new();
        for downlink in reply.downlinks.iter() {
            assert_eq!(downlink.kind, DownlinkKind::KeyMessage);
            assert_eq!(downlink.originator, Some(Originator::Classic(SERIAL)));
            answers.push((downlink.seq.unwrap(), downlink.bytes.to_vec()));
        }
        answers
    }

    /// One message by the primary; its KR2, if there is one.
    async fn ask(&mut self, service: &Arc<Service>, kr1: &[u8]) -> Option<Vec<u8>> {
        self.post(service, 0, &[key_envelope(kr1)]).await.pop().map(|(_, kr2)| kr2)
    }

    fn chain(&self, level: KeyLevel) -> Vec<(u32, KeyState)> {
        let all = self.book.enrolled_for_messages(&self.vault).unwrap();
        let one = all.iter().find(|e| e.level == level).unwrap();
        one.chain.keys().map(|(epoch, state)| (epoch.0, state)).collect()
    }

    fn device(&self) -> registry::ClassicDevice {
        self.book.classic_device(SERIAL.parse().unwrap()).unwrap()
    }

    fn held(&self, holder: HardenedHolder) -> Vec<(u32, [u8; 32])> {
        let keys = self.book.hardened_keys(&self.vault, &self.device(), holder, 20).unwrap();
        keys.iter().map(|k| (k.epoch, *k.key)).collect()
    }

    /// Epochs of the device's keys in what a gateway is pushed.
    fn pushed(&self, service: &Arc<Service>, by: usize) -> Vec<u32> {
        let push = block_in_place(|| service.push(self.gateways[by].proven.name())).unwrap();
        let state = State::parse(&push.parts[0]).unwrap();
        let device = state.classic.iter().find(|d| d.serial == SERIAL);
        device.map(|d| d.hardened.iter().map(|k| k.epoch).collect()).unwrap_or_default()
    }
}

fn registered(gateway: &Gateway) -> registry::Gateway {
    registry::Gateway { primary: gateway.proven.gateway() != GatewayId(2), ..gateway.registered() }
}

fn counted(service: &Arc<Service>) -> u64 {
    let rows = service.cloud.memory().read(|r| r.counts()).unwrap();
    rows.iter().filter(|row| row.key.code == Code::KeyMessageRefused).map(|row| row.count).sum()
}

fn readings(service: &Arc<Service>) -> usize {
    service.cloud.memory().read(|r| r.ledger()).unwrap().len()
}

fn key_envelope(kr1: &[u8]) -> Envelope<'_> {
    Envelope {
        seq: 0,
        received: NOW,
        kind: Kind::KeyMessage,
        bytes: kr1,
        originator: Originator::Classic(SERIAL),
        rssi: None,
        lqi: None,
        opened: None,
        link: LinkClass::None,
        hops: None,
        key_index: None,
    }
}

/// A node with its enrolment key.
struct Node {
    level: KeyLevel,
    enrolment: [u8; 32],
    spki: Vec<u8>,
}

impl Node {
    fn of(enrolment: &NodeEnrolment) -> Self {
        Self { level: enrolment.level, enrolment: *enrolment.key, spki: enrolment.server.spki.clone() }
    }

    fn offer_with(&self, epoch: u32, key: &[u8], serial: &str, spki: &[u8]) -> (Vec<u8>, Offer) {
        let identity = Identity::mac(EnrolmentKey::new(self.enrolment));
        let side = DeviceSide::new(serial.parse::<Serial>().unwrap(), self.level, identity, spki).unwrap();
        side.offer(KeyEpoch(epoch), FreshKey::new(&[3; 16], key).unwrap()).unwrap()
    }

    fn offer(&self, epoch: u32) -> (Vec<u8>, Offer) {
        self.offer_with(epoch, &[epoch as u8; 32], SERIAL, &self.spki)
    }

    /// The same message with something changed, and S made anew over it.
    fn changed(&self, kr1: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = kr1.to_vec();
        change(&mut bytes);
        let at = bytes.len() - 32;
        let header: [u8; 24] = bytes[..24].try_into().unwrap();
        let mac = EnrolmentKey::new(self.enrolment).mac(&header, &bytes[24..at]);
        bytes[at..].copy_from_slice(&mac);
        bytes
    }
}

fn frame(peer: Peer, epoch: u32, sequence: u32) -> Vec<u8> {
    let clear = binary(SERIAL, "n", sequence as u8, &[52, 80]);
    let number = Number { epoch: Epoch(epoch), sequence, seed: [7; 4] };
    let mut out = [0; LONGEST];
    let len = seal(peer, &Key::from_bytes([epoch as u8; 32]), &number, &clear, &mut out).unwrap();
    out[..len].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_the_cloud_is_in_use_before_its_node_hears_of_it_and_no_gateway_gets_it() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let service = site.service();
    let (kr1, offer) = node.offer(1);
    // By whatever gateway of its network.
    let answers = site.post(&service, 1, &[key_envelope(&kr1)]).await;
    assert_eq!(answers[0].0, 1, "it names the envelope that it answers");
    assert_eq!(offer.answer(&answers[0].1).unwrap().danger_key(), [1; 32]);
    assert_eq!(site.held(HardenedHolder::Cloud), [(1, [1; 32])]);
    assert_eq!((site.pushed(&service, 0), site.pushed(&service, 1)), (vec![], vec![]));
    assert_eq!(site.chain(KeyLevel::E3), [(1, KeyState::Pending)]);
    // The first frame under it is a reading, and takes it into use.
    let report = said(&frame(Peer::Cloud, 1, 5), Carrier::Http, None);
    site.post(&service, 0, &[classic_envelope(SERIAL, &report, NOW)]).await;
    assert_eq!(site.chain(KeyLevel::E3), [(1, KeyState::Active)]);
    assert_eq!(readings(&service), 1);
    assert_eq!(counted(&service), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_gateways_is_the_primarys_alone_and_by_it_alone() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E2);
    let service = site.service();
    let (kr1, offer) = node.offer(1);
    // The secondary hears it too, and a stolen gateway of another network says so.
    for by in [1, 2] {
        assert!(site.post(&service, by, &[key_envelope(&kr1)]).await.is_empty());
    }
    assert_eq!((counted(&service), site.chain(KeyLevel::E2)), (2, vec![]));
    let kr2 = site.ask(&service, &kr1).await.unwrap();
    assert_eq!(offer.answer(&kr2).unwrap().danger_key(), [1; 32]);
    assert_eq!(site.held(HardenedHolder::Gateway(GatewayId(1))), [(1, [1; 32])]);
    assert_eq!((site.pushed(&service, 0), site.pushed(&service, 1)), (vec![1], vec![]));
    assert_eq!(site.held(HardenedHolder::Cloud), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_counts_until_the_new_one_is_used_and_is_erased_when_it_has_drained() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E2);
    let service = site.service();
    let report = |epoch, sequence| {
        let inner = binary(SERIAL, "n", sequence as u8, &[52, 80]);
        said(&frame(Peer::Gateway, epoch, sequence), Carrier::Http, Some(&inner))
    };
    for epoch in [1, 2] {
        site.ask(&service, &node.offer(epoch).0).await.unwrap();
        if epoch == 1 {
            let said = report(1, 1);
            site.post(&service, 0, &[classic_envelope(SERIAL, &said, NOW)]).await;
        }
    }
    assert_eq!(site.chain(KeyLevel::E2), [(1, KeyState::Active), (2, KeyState::Pending)]);
    assert_eq!(site.pushed(&service, 0), [1, 2], "both are valid");
    let (old, new) = (report(1, 2), report(2, 3));
    site.post(&service, 0, &[classic_envelope(SERIAL, &old, NOW), classic_envelope(SERIAL, &new, NOW)]).await;
    let until = site.now.plus(DRAIN_MS);
    assert_eq!(site.chain(KeyLevel::E2), [(1, KeyState::Draining { until }), (2, KeyState::Active)]);
    assert_eq!(site.pushed(&service, 0), [1, 2]);
    block_in_place(|| service.expire_keys(until)).unwrap();
    assert_eq!(site.chain(KeyLevel::E2).len(), 2);
    // Also by a cloud that started since.
    drop(service);
    let service = site.service();
    block_in_place(|| service.expire_keys(until.plus(1))).unwrap();
    assert_eq!(site.chain(KeyLevel::E2), [(2, KeyState::Active)]);
    assert_eq!(site.pushed(&service, 0), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_as_the_first_was_by_any_cloud_and_six_times_an_hour() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let service = site.service();
    let (kr1, _) = node.offer(1);
    let body = site.gateways[0].batch(&[key_envelope(&kr1)]);
    let first = site.post_body(&service, 0, &body).await;
    // The reply was lost, and the gateway posts the batch again: to this cloud, or to the one after a crash.
    assert_eq!(site.post_body(&service, 0, &body).await, first);
    drop(service);
    let service = site.service();
    assert_eq!(site.post_body(&service, 0, &body).await, first);
    for _ in 0..5 {
        assert_eq!(site.ask(&service, &kr1).await.as_ref(), Some(&first[0].1));
    }
    assert_eq!((site.ask(&service, &kr1).await, counted(&service)), (None, 1));
    site.now = site.now.plus(HOUR);
    assert!(site.ask(&service, &kr1).await.is_some());
    assert_eq!(site.chain(KeyLevel::E3), [(1, KeyState::Pending)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_behind_the_book_loses_the_answer_and_not_the_key() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let (kr1, offer) = node.offer(1);
    let by = site.gateways[0].proven.name();
    // The process ends between the book's write and everything behind it.
    let mut desk = KeyDesk::default();
    desk.follow(&site.book, &site.vault).unwrap();
    let taken = desk.take(&mut site.book, &site.vault, by, &kr1, NOW).unwrap();
    let lost = taken.answer.unwrap().to_bytes();
    drop(desk);
    let service = site.service();
    let kr2 = site.ask(&service, &kr1).await.unwrap();
    assert_eq!(kr2, lost);
    assert_eq!(offer.answer(&kr2).unwrap().danger_key(), [1; 32]);
    let report = said(&frame(Peer::Cloud, 1, 5), Carrier::Http, None);
    site.post(&service, 0, &[classic_envelope(SERIAL, &report, NOW)]).await;
    assert_eq!(site.chain(KeyLevel::E3), [(1, KeyState::Active)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_cannot_be_written_agrees_on_nothing_and_costs_no_reading() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    site.book.harden_classic_to_cloud(&site.vault, SERIAL.parse().unwrap(), 3).unwrap();
    let key = *site.book.hardened_keys(&site.vault, &site.device(), HardenedHolder::Cloud, 1).unwrap()[0].key;
    let service = site.service();
    let (kr1, offer) = node.offer(2);
    let full = rusqlite::Connection::open(site.path("registry.db")).unwrap();
    full.execute_batch("CREATE TRIGGER t BEFORE INSERT ON classic_hardened BEGIN SELECT RAISE(ABORT, 'full'); END")
        .unwrap();
    let mut sealed = [0; LONGEST];
    let number = Number { epoch: Epoch(1), sequence: 1, seed: [7; 4] };
    let clear = binary(SERIAL, "n", 1, &[52, 80]);
    let len = seal(Peer::Cloud, &Key::from_bytes(key), &number, &clear, &mut sealed).unwrap();
    let report = said(&sealed[..len], Carrier::Http, None);
    let both = [key_envelope(&kr1), classic_envelope(SERIAL, &report, NOW)];
    assert!(site.post(&service, 0, &both).await.is_empty());
    assert_eq!((readings(&service), counted(&service)), (1, 0), "its own disk is nobody's fault");
    full.execute_batch("DROP TRIGGER t").unwrap();
    let kr2 = site.ask(&service, &kr1).await.expect("the repeat is a new message");
    assert_eq!(offer.answer(&kr2).unwrap().danger_key(), [2; 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_drawn_by_hand_in_the_same_moment_voids_the_message() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let service = site.service();
    let (kr1, _) = node.offer(1);
    site.book.harden_classic_to_cloud(&site.vault, SERIAL.parse().unwrap(), 3).unwrap();
    assert_eq!((site.ask(&service, &kr1).await, counted(&service)), (None, 1));
    assert_eq!((site.ask(&service, &kr1).await, counted(&service)), (None, 2));
    assert!(site.ask(&service, &node.offer(2).0).await.is_some(), "the one after it is taken");
    assert_eq!(site.held(HardenedHolder::Cloud).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_silence_counted_and_leaves_the_book_as_it_was() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let service = site.service();
    let good = node.offer(1).0;
    let other = Node { enrolment: [9; 32], spki: node.spki.clone(), ..node };
    let (other_2048, server_3072) = (vector_key("other2048", "spki"), vector_key("server3072", "spki"));
    let shorter = node.offer_with(1, &[1; 16], SERIAL, &node.spki).0;
    let flipped = |n: usize| {
        let mut bytes = good.clone();
        bytes[n] ^= 1;
        bytes
    };
    // A header that says 1024 bits, and the C and S of such a message.
    let mut rsa_1024 = [good[..24].to_vec(), vec![0x11; 128 + 32]].concat();
    rsa_1024[5] = 0x81;
    let signed = {
        let mut header = Kr1::parse(&good).unwrap().header;
        header.auth = fivefold_core::wire::key_message::Auth::Signature;
        let mut out = [0; KR1_LONGEST];
        let len = Kr1 { header, ciphertext: &[7; 256], proof: &[8; 256] }.emit(&mut out).unwrap();
        out[..len].to_vec()
    };
    let to_gateway = Node { level: KeyLevel::E2, spki: node.spki.clone(), ..node };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no message", vec![1, 2, 3]),
        ("cut", good[..311].to_vec()),
        ("S of another enrolment key", other.offer(1).0),
        ("S changed", flipped(good.len() - 1)),
        ("C changed", flipped(100)),
        ("C that does not open, with a good S", node.changed(&good, |bytes| bytes[100] ^= 1)),
        ("the header changed", flipped(19)),
        ("epoch left out", node.offer(2).0),
        ("the last epoch", node.offer(u32::MAX).0),
        ("a shorter key", shorter.clone()),
        ("a key of 16 bytes that says 32", node.changed(&shorter, |bytes| bytes[15] = 0x20)),
        ("an unknown serial", node.offer_with(1, &[1; 32], "ffffffffffffff01", &node.spki).0),
        ("a device that sends none", node.offer_with(1, &[1; 32], OTHER, &node.spki).0),
        ("for another server", node.offer_with(1, &[1; 32], SERIAL, &other_2048).0),
        ("a size that no key has", node.offer_with(1, &[1; 32], SERIAL, &server_3072).0),
        ("RSA-1024", rsa_1024),
        ("signed, where the record says mac", signed),
        ("a level that it is not enrolled for", to_gateway.offer(1).0),
    ];
    for (n, (name, kr1)) in (1..).zip(&cases) {
        assert_eq!(site.ask(&service, kr1).await, None, "{name}");
        assert_eq!(counted(&service), n, "{name}");
        assert_eq!(site.chain(KeyLevel::E3), [], "{name}");
    }
    // Nothing of it stands in the way of the node. Another message of its epoch then does.
    let refused = counted(&service);
    assert!(site.ask(&service, &good).await.is_some());
    assert_eq!((site.ask(&service, &node.offer(1).0).await, counted(&service)), (None, refused + 1));
    // Nor does it once it may send none any more.
    site.book.end_key_messages(SERIAL.parse().unwrap(), KeyLevel::E3).unwrap();
    site.refresh(&service);
    assert_eq!((site.ask(&service, &node.offer(2).0).await, counted(&service)), (None, refused + 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn six_new_keys_an_hour_also_while_the_book_changes_and_sixty_messages_a_minute_of_a_gateway() {
    let mut site = Site::new();
    let node = site.enrol(KeyLevel::E3);
    let service = site.service();
    for epoch in 1..=6 {
        assert!(site.ask(&service, &node.offer(epoch).0).await.is_some(), "{epoch}");
        // The book has another version, and what was counted stays.
        site.book.rename_classic(SERIAL.parse().unwrap(), &format!("n{epoch}")).unwrap();
        site.refresh(&service);
    }
    assert_eq!((site.ask(&service, &node.offer(7).0).await, counted(&service)), (None, 1));
    site.now = site.now.plus(HOUR);
    assert!(site.ask(&service, &node.offer(7).0).await.is_some());
    // A flood by one gateway: what is beyond the sixtieth costs nothing, and the other gateway's passes.
    let rubbish = vec![7; 312];
    let flood = vec![key_envelope(&rubbish); usize::from(MESSAGES_OF_GATEWAY) + 9];
    assert!(site.post(&service, 0, &flood).await.is_empty());
    let (kr1, _) = node.offer(8);
    assert!(site.ask(&service, &kr1).await.is_none());
    assert_eq!(counted(&service), 1 + u64::from(MESSAGES_OF_GATEWAY) + 9 + 1);
    assert_eq!(site.post(&service, 1, &[key_envelope(&kr1)]).await.len(), 1);
    site.now = site.now.plus(60_000);
    assert!(site.ask(&service, &kr1).await.is_some(), "a minute later");
    assert_eq!(site.net, site.gateways[0].proven.net());
}
