//! Two parties and a run between them, with the keys of V18.
#![allow(dead_code)]

use fivefold_core::e5_renewal::{
    Agreed, Announce, Credential, Identity, Initiator, Message, PeerKid, Responder, ToServer,
};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::level::OscoreLevel;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::suite::p256::AgreementKey;

pub(crate) const SID: Sid = Sid(0x0a17);
pub(crate) const EPOCH: Epoch = Epoch(5);

/// The private key `from`, `from` + 1, and so on.
pub(crate) fn key(from: u8) -> AgreementKey {
    AgreementKey::from_random(&core::array::from_fn(|i| from.wrapping_add(i as u8))).unwrap()
}

pub(crate) struct Parties {
    pub(crate) device_key: AgreementKey,
    pub(crate) device: Credential<'static>,
    pub(crate) cloud_key: AgreementKey,
    pub(crate) cloud: Credential<'static>,
}

impl Default for Parties {
    fn default() -> Self {
        let (device_key, cloud_key) = (key(0x80), key(0xA0));
        let device = Credential::device(SID, device_key.public_x());
        let cloud = Credential::peer(PeerKid::new(0).unwrap(), cloud_key.public_x());
        Self { device_key, device, cloud_key, cloud }
    }
}

impl Parties {
    pub(crate) fn on_device(&self) -> Identity<'_, AgreementKey> {
        Identity { key: &self.device_key, credential: &self.device }
    }

    pub(crate) fn at_cloud(&self) -> Identity<'_, AgreementKey> {
        Identity { key: &self.cloud_key, credential: &self.cloud }
    }
}

pub(crate) struct Done<L> {
    pub(crate) messages: [Message; 4],
    pub(crate) on_device: Agreed<L>,
    pub(crate) at_server: Agreed<L>,
}

pub(crate) fn run<L: OscoreLevel>(parties: &Parties, epoch: Epoch, announce: Announce) -> Done<L> {
    let (device, m1) = Initiator::<L, _>::offer(key(0xC0), SID, epoch, announce).unwrap();
    let Ok(ToServer::Offer(offer)) = ToServer::parse(m1.as_bytes()) else { panic!("no offer") };
    assert_eq!(offer.epoch(), Some(epoch));
    let (server, m2) = Responder::<L, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap();
    let (device, m3) = device.handle_message_2(m2.as_bytes(), &parties.on_device(), &parties.cloud).unwrap();
    let Ok(ToServer::Proof { c_r, message_3 }) = ToServer::parse(m3.as_bytes()) else { panic!("no proof") };
    assert_eq!(c_r, SID.into());
    let claimed = server.handle_message_3(message_3).unwrap();
    assert_eq!(claimed.id_cred_i(), parties.device.kid());
    let (at_server, m4) = claimed.verify(&parties.device).unwrap();
    let on_device = device.handle_message_4(m4.as_bytes()).unwrap();
    Done { messages: [m1, m2, m3, m4], on_device, at_server }
}

/// The values of one of our own vectors, by name.
pub(crate) fn own_vector(id: &str) -> impl Fn(&str) -> Vec<u8> {
    let path = format!("{}/../vectors/own.json", env!("CARGO_MANIFEST_DIR"));
    let book: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = book["vectors"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone();
    move |name| hex::decode(case[name].as_str().unwrap_or_else(|| panic!("no {name}"))).unwrap()
}
