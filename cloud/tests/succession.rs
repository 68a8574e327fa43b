//! A network that gets another primary gateway: nobody answers under contexts that an earlier one may have answered under.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_cloud::push::build;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::{Mode, Overrides, Policy, Profile};
use fivefold_core::wire::state::{Share, State};
use fivefold_keep::registry::{Gateway, NewDevice, Registry, Word};
use fivefold_keep::vault::Vault;

struct Site {
    _folder: tempfile::TempDir,
    vault: Vault,
    book: Registry,
    net: Net,
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
        let net = book.add_network(&vault, "n", Profile::ToBoth, None).unwrap().net;
        Self { _folder: folder, vault, book, net }
    }

    fn gateway(&mut self, n: u32) {
        let gateway = Gateway {
            gateway: GatewayId(n),
            net: self.net,
            name: format!("g{n}"),
            sid: Sid(n as u16),
            did: Did([0xA0 + n as u8; 8]),
            primary: true,
            receipt_keys: Vec::new(),
            revoked_at: None,
        };
        self.book.add_gateway(&gateway).unwrap();
    }

    fn device(&mut self, sid: u16, mode: Mode) -> Did {
        let policy = Policy { mode, ..Policy::new(Profile::ToBoth) };
        let (net, overrides) = (self.net, Overrides::NONE);
        let new = NewDevice { did: None, sid: Some(Sid(sid)), net, policy, overrides, words: None, key: None };
        self.book.add_device(&self.vault, &new, 1).unwrap().0.did
    }

    /// What a gateway is pushed: device, epoch, and whether it may answer.
    fn pushed(&self, n: u32) -> Vec<(u16, u16, bool)> {
        let name = GatewayName { net: self.net, gateway: GatewayId(n) };
        let push = build(&self.book, &|_| Ok((0, Vec::new())), &self.vault, name).unwrap();
        let contexts = |part: &[u8]| -> Vec<(u16, u16, bool)> {
            let state = State::parse(part).unwrap();
            state.contexts.iter().map(|c| (c.sid.0, c.epoch.0, matches!(c.share, Share::Primary { .. }))).collect()
        };
        push.parts.iter().flat_map(|part| contexts(part)).collect()
    }
}

#[test]
fn another_primary_opens_what_an_earlier_one_answered_and_answers_only_what_is_agreed_after_it() {
    let mut site = Site::new();
    site.gateway(1);
    let did = site.device(0x0a01, Mode::Persistent);
    let random = site.device(0x0a02, Mode::Random);
    assert_eq!(site.pushed(1), [(0x0a01, 1, true), (0x0a02, 0, true)]);
    site.book.revoke_gateway("g1", Word { who: "operator", at: 2 }).unwrap();
    site.gateway(2);
    // Of mode R a receive part would be of one boot: it gets none.
    assert_eq!(site.pushed(2), [(0x0a01, 1, false)]);
    site.device(0x0a03, Mode::Persistent);
    site.book.enrol_again(&site.vault, did, None, 3).unwrap();
    site.book.enrol_again(&site.vault, random, None, 3).unwrap();
    assert_eq!(site.pushed(2), [(0x0a01, 2, true), (0x0a02, 0, true), (0x0a03, 1, true)]);
    let held = site.book.held_before().unwrap();
    assert_eq!(held[&did], Epoch(1));
}
