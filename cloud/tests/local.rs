//! A network whose devices agree their keys with a gateway alone: what that gateway is told, and that the cloud has no part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_cloud::book::{Book, Source};
use fivefold_cloud::push::build;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, GatewayId, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::wire::state::State;
use fivefold_keep::registry::{DeviceKey, FirstContexts, Gateway, NewDevice, Registry, draw_key};
use fivefold_keep::vault::Vault;

struct Operator {
    _folder: tempfile::TempDir,
    vault: Vault,
    book: Registry,
}

fn a_key() -> PublicX {
    draw_key().unwrap().0.public_x()
}

impl Operator {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let book = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        Self { _folder: folder, vault, book }
    }

    fn network(&mut self, name: &str) -> Net {
        self.book.add_network(&self.vault, name, Profile::ToGateway, None).unwrap().net
    }

    fn gateway(&mut self, n: u32, net: Net, primary: bool) {
        let (gateway, name, sid, did) = (GatewayId(n), format!("g{n}"), Sid(n as u16), Did([0xA0 + n as u8; 8]));
        let (receipt_keys, revoked_at) = (Vec::new(), None);
        self.book.add_gateway(&Gateway { gateway, net, name, sid, did, primary, receipt_keys, revoked_at }).unwrap();
    }

    fn device(&mut self, net: Net, sid: u16, key: Option<DeviceKey>, pq_mix: bool) -> Did {
        let policy = Policy { pq_mix, ..Policy::new(Profile::ToGateway) };
        let overrides = Overrides::NONE;
        let new = NewDevice { did: None, sid: Some(Sid(sid)), net, policy, overrides, words: None, key };
        self.book.add_device(&self.vault, &new, 1).unwrap().0.did
    }

    /// What a gateway is told: version, contexts, and local keys.
    fn told(&self, net: Net, n: u32) -> (u64, usize, Vec<(Sid, PublicX)>) {
        let name = GatewayName { net, gateway: GatewayId(n) };
        let push = build(&self.book, &|_| Ok((0, Vec::new())), &self.vault, name).unwrap();
        let states: Vec<State<'_>> = push.parts.iter().map(|part| State::parse(part).unwrap()).collect();
        let local = states.iter().flat_map(|s| s.local.iter().map(|l| (l.sid, l.x)).collect::<Vec<_>>()).collect();
        (push.version, states.iter().map(|s| s.contexts.len()).sum(), local)
    }
}

#[test]
fn the_gateway_is_told_public_keys_and_nothing_secret_of_its_devices_and_the_cloud_serves_none_of_them() {
    let mut o = Operator::new();
    let (shed, field) = (o.network("shed"), o.network("field"));
    o.gateway(1, shed, true);
    o.gateway(2, shed, false);
    o.gateway(3, field, true);
    o.book.set_local("shed", "g1", a_key()).unwrap();
    let (first, second) = (a_key(), a_key());
    let key = |x| Some(DeviceKey { x, first: FirstContexts::Agreed });
    let local = o.device(shed, 0x0a01, key(first), false);
    let other = o.device(field, 0x0a01, None, true);
    let (version, contexts, keys) = o.told(shed, 1);
    assert_eq!((contexts, keys), (0, vec![(Sid(0x0a01), first)]));
    // Another gateway of the network has no part in it, and other networks are as they were.
    assert_eq!((o.told(shed, 2).1, o.told(shed, 2).2), (0, vec![]));
    assert_eq!((o.told(field, 3).1, o.told(field, 3).2), (1, vec![]));
    // Enrolled again: another key, under a greater version.
    o.book.enrol_again(&o.vault, local, key(second).as_ref(), 3).unwrap();
    let (later, _, keys) = o.told(shed, 1);
    assert!(later > version);
    assert_eq!(keys, [(Sid(0x0a01), second)]);
    let source = Source::read(&o.book, &o.vault, &Book::default()).unwrap();
    let served: Vec<Did> = source.devices.iter().map(|d| d.device.did).collect();
    assert_eq!(served, [other]);
    o.book.revoke_device(local, 4).unwrap();
    assert_eq!(o.told(shed, 1).2, []);
}
