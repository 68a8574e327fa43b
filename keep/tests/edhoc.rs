//! A run of EDHOC over aws-lc-rs gives, byte for byte, what the second implementation computed (V18).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, PeerKid, PqMix, Responder, ToServer};
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::Agree;
use fivefold_keep::sign::AgreementKey;

#[test]
fn v18_both_sides_over_aws_lc() {
    let path = format!("{}/../vectors/own.json", env!("CARGO_MANIFEST_DIR"));
    let own = std::fs::read_to_string(path).unwrap();
    let v18 = own.split("\"V18\"").nth(1).unwrap();
    let value = |name: &str| {
        let rest = v18.split(&format!("\"{name}\": \"")).nth(1).unwrap_or_else(|| panic!("no {name}"));
        hex::decode(rest.split('"').next().unwrap()).unwrap()
    };
    let key = |from: u8| AgreementKey::from_random(&core::array::from_fn(|i| from.wrapping_add(i as u8))).unwrap();
    let (device_key, cloud_key, sid) = (key(0x80), key(0xA0), Sid(0x0a17));
    let device = Credential::device(sid, device_key.public_x());
    let cloud = Credential::peer(PeerKid::new(0).unwrap(), cloud_key.public_x());

    let (waiting, m1) = Initiator::<E3, _>::offer(key(0xC0), sid, Epoch(5), Announce::Nothing).unwrap();
    assert_eq!(m1.as_bytes(), value("message_1"));
    let Ok(ToServer::Offer(offer)) = ToServer::parse(m1.as_bytes()) else { panic!() };
    let at_cloud = Identity { key: &cloud_key, credential: &cloud };
    let (session, m2) = Responder::<E3, _>::answer(&offer, key(0xE0), sid, &at_cloud).unwrap();
    assert_eq!(m2.as_bytes(), value("message_2"));
    let on_device = Identity { key: &device_key, credential: &device };
    let (waiting, m3) = waiting.handle_message_2(m2.as_bytes(), &on_device, &cloud).unwrap();
    assert_eq!(m3.as_bytes(), value("message_3"));
    let Ok(ToServer::Proof { message_3, .. }) = ToServer::parse(m3.as_bytes()) else { panic!() };
    let (at_cloud, m4) = session.handle_message_3(message_3).unwrap().verify(&device).unwrap();
    assert_eq!(m4.as_bytes(), value("message_4"));
    let on_device = waiting.handle_message_4(m4.as_bytes()).unwrap();
    let mix = PqMix::new(&core::array::from_fn(|i| 0x60 + i as u8), Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]));
    for agreed in [at_cloud, on_device] {
        let secrets = agreed.secrets(Alg::AesCcm16_64_256, Some(&mix));
        assert_eq!(secrets.e3.danger_master_secret(), value("ms3"));
        assert_eq!(secrets.e2_root.danger_bytes()[..], value("e2_root"));
    }
}
