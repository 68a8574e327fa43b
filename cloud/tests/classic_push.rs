//! What gateways are pushed of classic devices: who they are and their keys for gateways, and never those for the cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::Gateway;
use common::classic::SERIAL;
use fivefold_cloud::push;
use fivefold_core::id::Did;
use fivefold_core::profile::Profile;
use fivefold_core::wire::state::State;
use fivefold_keep::registry::{ClassicKeys, ClassicSecret, NewClassic, Registry};
use fivefold_keep::vault::Vault;

const FOR_GATEWAY: [u8; 32] = *b"kept by the gateways, AES-256 :)";
const FOR_CLOUD: [u8; 16] = *b"never at gateway";

#[test]
fn a_gateway_is_told_every_classic_device_of_its_network_and_no_key_for_the_cloud() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::create(folder.path()).unwrap();
    let mut book = Registry::create(
        &folder.path().join("registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let [net, other] = ["n", "other"].map(|name| {
        let net = book.add_network(&vault, name, Profile::ToCloud, None).unwrap().net;
        book.allow_classic(name).unwrap();
        net
    });
    let keys = || ClassicKeys {
        gateway: Some(ClassicSecret::from_bytes(&FOR_GATEWAY).unwrap()),
        cloud: Some(ClassicSecret::from_bytes(&FOR_CLOUD).unwrap()),
    };
    let both =
        NewClassic { keys: keys(), dev_eui: Some(Did([9; 8])), ..NewClassic::plain(SERIAL.parse().unwrap(), net) };
    book.add_classic(&vault, &both, 1).unwrap();
    book.add_classic(&vault, &NewClassic::plain("387264539".parse().unwrap(), net), 1).unwrap();
    book.add_classic(&vault, &NewClassic::plain("222ffd1b3e500f56".parse().unwrap(), other), 1).unwrap();
    book.add_classic(&vault, &NewClassic::plain("333ffd1b3e500f56".parse().unwrap(), net), 1).unwrap();
    book.revoke_classic("333ffd1b3e500f56".parse().unwrap(), 2).unwrap();
    let gateway = Gateway::new(net, 1);
    book.add_gateway(&gateway.registered()).unwrap();

    let push = push::build(&book, &|_| Ok((0, Vec::new())), &vault, gateway.proven.name()).unwrap();
    let mut told = Vec::new();
    for part in &push.parts {
        assert!(!part.windows(16).any(|w| w == FOR_CLOUD), "the cloud's key at a gateway");
        for d in State::parse(part).unwrap().classic.iter() {
            told.push((d.serial.to_owned(), d.key.map(<[u8]>::to_vec), d.dev_eui));
        }
    }
    assert_eq!(
        told,
        [(SERIAL.to_owned(), Some(FOR_GATEWAY.to_vec()), Some([9; 8])), ("387264539".to_owned(), None, None)]
    );
}
