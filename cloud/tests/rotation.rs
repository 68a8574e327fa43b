//! The network key is rotated: what devices are told under E3, what the cloud makes of what they say, and the steps that
//! it takes by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::*;
use fivefold_cloud::campaign::{Beside, Campaign, Why};
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::service::Service;
use fivefold_cloud::store::{Store, Write};
use fivefold_core::id::{Did, Net, Sid};
use fivefold_core::profile::{KeyIndexes, Mode, Overrides, Policy, Profile, Radio};
use fivefold_core::time::Millis;
use fivefold_core::wire::control::{Downlink, LinkKey, Uplink};
use fivefold_core::wire::envelope::Kind;
use fivefold_core::wire::state::Phase;
use fivefold_keep::registry::{NewDevice, Registry, Rotation, Why as Reason};
use fivefold_keep::rotation::{DRAIN_S, NotNow, Place, RECOVERY_S, Stage};
use fivefold_keep::vault::Vault;

const SID: u16 = 0x0a17;

fn says(sending: u8, receiving: u8) -> Vec<u8> {
    let receiving = (receiving > 0).then_some(receiving);
    let map = Uplink { key_indexes: Some(KeyIndexes { sending, receiving }), ..Uplink::default() };
    let mut out = [0; 16];
    let len = map.emit(&mut out).unwrap();
    out[..len].to_vec()
}

fn begun() -> Rotation {
    Rotation::begin(NET, 1, 2, NOW.0 / 1000)
}

fn with(profile: Profile, rotation: Option<Rotation>) -> World {
    let mut world = World::new(vec![device(SID, profile, Mode::Persistent)]);
    world.source.rotation = rotation;
    world.reload();
    world
}

fn told(world: &mut World, node: &mut Node, payload: &[u8]) -> Option<(u8, Phase, Option<[u8; 16]>)> {
    let sent = node.send(payload);
    let reply = world.post(&[sent.envelope()]);
    let (_, payload, _) = node.open(&sent, &reply.answers[0]);
    let map = if payload.is_empty() { Downlink::default() } else { Downlink::parse(&payload).unwrap() };
    map.link_key.map(|LinkKey { index, key, phase }| (index, phase, key.copied()))
}

fn campaign(world: &World) -> Campaign {
    let book = world.cloud.book();
    Campaign::of(&book, &book.rotations[&NET], &Beside::default(), world.now)
}

#[test]
fn a_device_is_told_each_step_until_it_says_that_it_took_it() {
    let mut world = with(Profile::ToCloud, Some(begun()));
    let mut node = Node::of(&world.source.devices[0]);
    let key = Some((2, Phase::Distribute, Some(network_key(2))));
    assert_eq!(told(&mut world, &mut node, READING), key);
    assert_eq!(told(&mut world, &mut node, &says(1, 0)), key);
    assert_eq!(told(&mut world, &mut node, &says(1, 2)), None);
    assert_eq!(campaign(&world).members[0].place, Place::Has);
    world.source.rotation = Some(begun().switched(NOW.0 / 1000 + 1).unwrap());
    world.reload();
    assert_eq!(told(&mut world, &mut node, READING), Some((2, Phase::Switch, None)));
    // What was said outlives the process.
    let mut world = world.restart();
    assert_eq!(told(&mut world, &mut node, READING), Some((2, Phase::Switch, None)));
    assert_eq!(told(&mut world, &mut node, &says(2, 1)), None);
    let done = world.source.rotation.take().unwrap().retired(NOW.0 / 1000 + 2).unwrap();
    world.source.rotation = Some(done);
    world.reload();
    assert_eq!(told(&mut world, &mut node, READING), Some((1, Phase::Retire, None)));
    assert_eq!(told(&mut world, &mut node, &says(2, 0)), None);
    assert_eq!(campaign(&world).late().count(), 0);
}

#[test]
fn to_whom_a_key_was_given_is_durable_before_the_key_leaves() {
    let mut world = with(Profile::ToCloud, Some(begun()));
    let mut node = Node::of(&world.source.devices[0]);
    let sent = node.send(READING);
    let body = world.gateway.batch(&[sent.envelope()]);
    // As the service does it, up to the reply: that this write comes first is its promise.
    let mut judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
    let store = world.cloud.memory().store();
    let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
    let committed = store.commit_now((*write).clone()).unwrap();
    let concluded = world.cloud.conclude(judged, write, committed);
    let given = concluded.write.link_told.clone();
    assert_eq!(given, [(world.source.devices[0].did, 2)]);
    store.commit_now((*concluded.write).clone()).unwrap();
    let reply = world.cloud.reply(concluded);
    assert!(reply.len() > 40);
    let told = world.cloud.memory().read(|r| r.link_told()).unwrap();
    assert_eq!(told.iter().map(|(did, index, _)| (*did, *index)).collect::<Vec<_>>(), given);
    // Once is enough.
    let sent = node.send(READING);
    let body = world.gateway.batch(&[sent.envelope()]);
    let mut judged = world.cloud.judge(&world.gateway.proven, &body, world.now).unwrap();
    let write = std::sync::Arc::new(std::mem::take(&mut judged.write));
    let committed = world.cloud.memory().store().commit_now((*write).clone()).unwrap();
    assert!(world.cloud.conclude(judged, write, committed).write.link_told.is_empty());
}

#[test]
fn a_paused_rotation_hands_nothing_out_and_a_device_of_the_gateway_gets_nothing_from_here() {
    let mut world = with(Profile::ToCloud, Some(begun().paused().unwrap()));
    let mut node = Node::of(&world.source.devices[0]);
    for payload in [READING, &says(1, 0), &says(1, 2)] {
        assert_eq!(told(&mut world, &mut node, payload), None);
    }
    assert!(world.cloud.memory().read(|r| r.link_told()).unwrap().is_empty());
    let mut world = with(Profile::ToGateway, Some(begun()));
    let inner = [&[0x02, 0xFF][..], &says(1, 2)].concat();
    let reply = world.post(&[word(Kind::GatewayOpened, Sid(SID), 0, &inner)]);
    assert_eq!((reply.upto, reply.answers.len(), reply.refused.len()), (1, 0, 0));
    assert_eq!(campaign(&world).members[0].place, Place::Has, "by the gateway's word");
}

#[test]
fn what_was_said_first_and_comes_last_counts_for_nothing() {
    let mut world = with(Profile::ToCloud, Some(begun()));
    let mut node = Node::of(&world.source.devices[0]);
    let early = node.send(&says(1, 0));
    told(&mut world, &mut node, &says(1, 2));
    // A message that was parked, and a recording of one that was taken.
    for _ in 0..2 {
        world.post(&[early.envelope()]);
        assert_eq!(campaign(&world).members[0].place, Place::Has);
    }
    let mut gateway = with(Profile::ToGateway, Some(begun()));
    for (piv, sending, receiving) in [(5, 1, 2), (4, 1, 0), (5, 1, 2)] {
        let inner = [&[0x02, 0xFF][..], &says(sending, receiving)].concat();
        gateway.post(&[word(Kind::GatewayOpened, Sid(SID), piv, &inner)]);
        assert_eq!(campaign(&gateway).members[0].place, Place::Has);
    }
}

#[test]
fn since_when_a_device_stands_where_it_stands_is_kept_while_it_says_the_same() {
    let mut world = with(Profile::ToCloud, Some(begun()));
    let mut node = Node::of(&world.source.devices[0]);
    told(&mut world, &mut node, &says(1, 2));
    world.now = NOW.plus(60_000);
    told(&mut world, &mut node, &says(1, 2));
    let world = world.restart();
    assert_eq!(campaign(&world).members[0].since, NOW);
    assert_eq!(world.cloud.book().by_did[&world.source.devices[0].did].link_keys().unwrap().at, NOW.plus(60_000));
}

#[test]
fn who_is_late_is_told_with_the_reason() {
    let mut world = with(Profile::ToCloud, Some(begun()));
    let mut node = Node::of(&world.source.devices[0]);
    let why = |world: &World| campaign(world).members[0].late;
    assert_eq!(why(&world), Some(Why::NeverHeard));
    told(&mut world, &mut node, READING);
    assert_eq!(why(&world), Some(Why::BeingTold));
    world.now = NOW.plus(60_000);
    told(&mut world, &mut node, READING);
    assert_eq!(why(&world), Some(Why::Unanswered { told: NOW }));
    told(&mut world, &mut node, &says(1, 2));
    assert_eq!(why(&world), None);
}

/// An operator's book and a running cloud over it.
struct Site {
    folder: tempfile::TempDir,
    vault: Vault,
    registry: Registry,
    net: Net,
    devices: Vec<Did>,
}

impl Site {
    fn of(profile: Profile, devices: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = registry.add_network(&vault, "field-7", profile, None).unwrap().net;
        let mut site = Self { folder, vault, registry, net, devices: Vec::new() };
        for _ in 0..devices {
            let did = site.add(Policy::new(profile), Overrides::NONE);
            site.devices.push(did);
        }
        site
    }

    fn add(&mut self, policy: Policy, overrides: Overrides) -> Did {
        let words = (overrides != Overrides::NONE).then(|| "behind the fence".into());
        let new = NewDevice { did: None, sid: None, net: self.net, policy, overrides, words, key: None };
        self.registry.add_device(&self.vault, &new, 1).unwrap().0.did
    }

    fn cloud(&self, store: &str) -> Service {
        let vault = Arc::new(Vault::open_folder(self.folder.path()).unwrap());
        let store = Store::open(&self.folder.path().join(store)).unwrap();
        Service::open(store, self.folder.path().join("registry.db"), vault, RenewalSettings::default(), NOW).unwrap()
    }

    /// Devices said so; the cloud that is started next knows.
    fn said(&self, store: &str, devices: &[Did], sending: u8, receiving: u8, now: Millis) {
        let receiving = (receiving > 0).then_some(receiving);
        let link_keys = devices.iter().map(|did| (*did, KeyIndexes { sending, receiving })).collect();
        let store = Store::open(&self.folder.path().join(store)).unwrap();
        store.commit_now(Write { now, link_keys, ..Write::default() }).unwrap();
    }

    fn rotation(&self) -> Rotation {
        self.registry.rotation(self.net).unwrap().unwrap()
    }

    fn phases(&self) -> Vec<(u8, u8)> {
        let keys = self.registry.network_keys(&self.vault, self.net).unwrap();
        keys.iter().map(|k| (k.index, k.phase.wire())).collect()
    }
}

const fn at(s: u64) -> Millis {
    Millis(NOW.0 + s * 1000)
}

const fn unix(s: u64) -> u64 {
    at(s).0 / 1000
}

#[test]
fn a_rotation_goes_through_all_its_stages_without_a_word() {
    let mut site = Site::of(Profile::ToCloud, 20);
    // One that has no network key does not count.
    let wired = Policy { radio: Radio::Ip, ..Policy::new(Profile::ToCloud) };
    site.add(wired, Overrides { danger_no_link: true, ..Overrides::NONE });
    site.registry.rotate_network_key(&site.vault, site.net, Reason::Planned, unix(0)).unwrap();
    let advance = |now| {
        let cloud = site.cloud("a.db");
        // Twice: the second time there is nothing to do.
        cloud.advance_rotations(now).unwrap();
        let version = site.registry.version().unwrap();
        cloud.advance_rotations(now).unwrap();
        assert_eq!(site.registry.version().unwrap(), version);
        assert_eq!(cloud.cloud.book().version, version, "and the book knows it");
    };
    site.said("a.db", &site.devices[..18], 1, 2, at(1));
    advance(at(2));
    assert_eq!(site.rotation().stage(), Stage::HandingOut, "18 of 20");
    site.said("a.db", &site.devices[18..19], 1, 2, at(3));
    advance(at(4));
    assert_eq!((site.rotation().stage(), site.rotation().since()), (Stage::Draining, unix(4)));
    assert_eq!(site.phases(), [(1, 4), (2, 2)]);
    advance(at(4 + DRAIN_S - 1));
    assert_eq!(site.rotation().stage(), Stage::Draining);
    advance(at(4 + DRAIN_S));
    assert_eq!((site.rotation().stage(), site.phases()), (Stage::Done, vec![(1, 3), (2, 2)]));
    advance(at(4 + DRAIN_S + RECOVERY_S));
    assert_eq!(site.phases(), [(1, 3), (2, 2)]);
    advance(at(5 + DRAIN_S + RECOVERY_S));
    assert_eq!(site.phases(), [(2, 2)]);
}

#[test]
fn the_operators_word_and_another_process_that_was_slower_change_nothing_twice() {
    let mut site = Site::of(Profile::ToCloud, 1);
    site.registry.rotate_network_key(&site.vault, site.net, Reason::Planned, unix(0)).unwrap();
    for store in ["a.db", "b.db"] {
        site.said(store, &site.devices, 1, 2, at(1));
    }
    let (first, second) = (site.cloud("a.db"), site.cloud("b.db"));
    first.advance_rotations(at(2)).unwrap();
    let switched = site.rotation();
    // It does not know yet, wants the same step, and comes too late; then it knows.
    second.advance_rotations(at(3)).unwrap();
    assert_eq!(site.rotation(), switched);
    let version = site.registry.version().unwrap();
    site.registry.step_rotation(site.net, |r| r.paused()).unwrap();
    first.refresh(at(4)).unwrap();
    first.advance_rotations(at(4 + 2 * DRAIN_S)).unwrap();
    assert_eq!((site.rotation().stage(), site.registry.version().unwrap()), (Stage::Draining, version + 1));
    assert_eq!(site.rotation().rolled_back(unix(2 * DRAIN_S)), Err(NotNow::TooLate));
}

#[test]
fn a_rollback_waits_for_devices_that_may_send_under_the_new_key() {
    let mut site = Site::of(Profile::ToCloud, 2);
    site.registry.rotate_network_key(&site.vault, site.net, Reason::Planned, unix(0)).unwrap();
    site.said("a.db", &site.devices, 1, 2, at(1));
    site.cloud("a.db").advance_rotations(at(2)).unwrap();
    site.said("a.db", &site.devices[..1], 2, 1, at(3));
    site.registry.step_rotation(site.net, |r| r.rolled_back(unix(4))).unwrap();
    site.cloud("a.db").advance_rotations(at(5)).unwrap();
    assert_eq!((site.rotation().stage(), site.phases()), (Stage::RollingBack, vec![(1, 2), (2, 4)]));
    site.said("a.db", &site.devices, 1, 2, at(6));
    site.cloud("a.db").advance_rotations(at(7)).unwrap();
    assert_eq!((site.rotation().stage(), site.phases()), (Stage::Done, vec![(1, 2), (2, 3)]));
}

#[test]
fn a_device_that_is_revoked_in_between_makes_it_start_over_only_if_it_may_know_the_key() {
    for (profile, was_given, starts_over) in
        [(Profile::ToCloud, true, true), (Profile::ToCloud, false, false), (Profile::ToGateway, false, true)]
    {
        let mut site = Site::of(profile, 3);
        site.registry.rotate_network_key(&site.vault, site.net, Reason::Planned, unix(0)).unwrap();
        let (stolen, rest) = (site.devices[0], site.devices[1..].to_vec());
        if was_given {
            let store = Store::open(&site.folder.path().join("a.db")).unwrap();
            store.commit_now(Write { now: at(1), link_told: vec![(stolen, 2)], ..Write::default() }).unwrap();
        }
        site.registry.revoke_device(stolen, unix(2)).unwrap();
        site.registry.shut_out(&site.vault, stolen, unix(2)).unwrap();
        site.said("a.db", &rest, 1, 2, at(3));
        site.cloud("a.db").advance_rotations(at(4)).unwrap();
        // In a hurry: it does not wait for seven days once nobody needs them.
        site.said("a.db", &rest, 2, 1, at(5));
        let cloud = site.cloud("a.db");
        cloud.advance_rotations(at(6)).unwrap();
        assert_eq!((site.rotation().stage(), site.rotation().index), (Stage::Done, 2), "{profile}");
        assert_eq!(cloud.known_outside(&site.rotation()).unwrap().len(), usize::from(starts_over));
        cloud.advance_rotations(at(7)).unwrap();
        let next = site.rotation();
        assert_eq!((next.index, next.starts_over), (if starts_over { 3 } else { 2 }, false), "{profile}");
        assert!(!starts_over || next.is_urgent && next.stage() == Stage::HandingOut);
        drop(cloud);
        let version = site.registry.version().unwrap();
        site.cloud("a.db").advance_rotations(at(8)).unwrap();
        assert_eq!(site.registry.version().unwrap(), version, "and only once");
    }
}
