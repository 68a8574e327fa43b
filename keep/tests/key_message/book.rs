//! Keys of vectors/key-message.json, and servers and devices that have them.

use std::sync::LazyLock;

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey, MessageHash, Offer};
use fivefold_core::error::Rejected;
use fivefold_core::id::Serial;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{
    Auth, Confirmation, Header, KeyEpoch, KeyLen, KeyLevel, Kr1, Kr2, RsaSize, Status,
};
use fivefold_keep::key_message::{
    Answered, Chain, DRAIN_MS, Device, DeviceKey, DeviceSide, Identity, KeyMessages, KeyState, Outcome, Proof, Report,
    ServerKey, Unsaved,
};
use serde_json::Value;

pub(crate) const SERIAL: Serial = Serial([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const NOW: Millis = Millis(1_790_000_000_000);

pub(crate) static BOOK: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/key-message.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
});

pub(crate) fn h(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// `pkcs8` or `spki` of a key of the book.
pub(crate) fn key(name: &str, part: &str) -> Vec<u8> {
    let keys = BOOK["keys"].as_array().unwrap();
    h(&keys.iter().find(|k| k["name"] == name).unwrap_or_else(|| panic!("no key {name}"))[part])
}

pub(crate) fn enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new(h(&BOOK["enrolment_key"]).try_into().unwrap())
}

pub(crate) fn server_key(bits: usize) -> ServerKey {
    ServerKey::from_pkcs8(&key(&format!("server{bits}"), "pkcs8")).unwrap()
}

pub(crate) fn proof(size: RsaSize, auth: Auth) -> Proof {
    match auth {
        Auth::Mac => Proof::Mac { key: enrolment_key(), size },
        Auth::Signature => {
            let spki = key(&format!("device{}", size.bits()), "spki");
            Proof::Signature(Box::new(DeviceKey::from_spki(&spki).unwrap()))
        }
    }
}

/// The key of that epoch is active.
pub(crate) fn chain(epoch: u32) -> Chain {
    Chain::restore(vec![(KeyEpoch(epoch), KeyState::Active)], None)
}

pub(crate) fn device(proof: Proof, keylen: KeyLen) -> Device {
    Device { proof, keylen, rsa1024_until: None, chain: chain(4) }
}

/// A server with its keys of 2048 and 3072 bits and one device, whose key of epoch 4 is active.
pub(crate) fn server(level: KeyLevel, size: RsaSize, auth: Auth, keylen: KeyLen) -> KeyMessages {
    let mut server = KeyMessages::new(level, DRAIN_MS);
    server.add_key(server_key(2048)).unwrap();
    server.add_key(server_key(3072)).unwrap();
    server.enrol(SERIAL, device(proof(size, auth), keylen));
    server
}

/// The usual one: E3, 2048 bits, signed, AES-256.
pub(crate) fn usual() -> KeyMessages {
    server(KeyLevel::E3, RsaSize::Rsa2048, Auth::Signature, KeyLen::B32)
}

/// The device of [`usual`], or its like with an HMAC or another size.
pub(crate) fn sender(size: RsaSize, auth: Auth) -> DeviceSide {
    let identity = match auth {
        Auth::Mac => Identity::mac(enrolment_key()),
        Auth::Signature => Identity::signing(&key(&format!("device{}", size.bits()), "pkcs8")).unwrap(),
    };
    DeviceSide::new(SERIAL, KeyLevel::E3, identity, &key(&format!("server{}", size.bits()), "spki")).unwrap()
}

pub(crate) fn fresh(byte: u8) -> FreshKey {
    FreshKey::new(&[byte; 16], &[byte ^ 0xFF; 32]).unwrap()
}

/// A message of the usual device for that epoch, and what waits for its answer.
pub(crate) fn offered(epoch: u32) -> (Vec<u8>, Offer) {
    sender(RsaSize::Rsa2048, Auth::Signature).offer(KeyEpoch(epoch), fresh(epoch as u8)).unwrap()
}

/// What the server refuses it for. Outside nothing is to be seen.
#[track_caller]
pub(crate) fn refused(server: &mut KeyMessages, now: Millis, message: &[u8]) -> Rejected {
    let Outcome::Silence = server.handle_message(now, message) else { panic!("the server is not silent") };
    let mut reasons = Vec::new();
    while let Some(report) = server.poll_report() {
        if let Report::Refused { reason, .. } = report {
            reasons.push(reason);
        }
    }
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0].code.as_str(), "E5-08");
    reasons[0]
}

#[track_caller]
pub(crate) fn accepted(server: &mut KeyMessages, now: Millis, message: &[u8]) -> Unsaved {
    match server.handle_message(now, message) {
        Outcome::Persist(unsaved) => unsaved,
        other => panic!("{other:?}: {:?}", server.poll_report()),
    }
}

/// The answer, after the key is durable.
#[track_caller]
pub(crate) fn answered(server: &mut KeyMessages, now: Millis, message: &[u8]) -> [u8; 40] {
    let unsaved = accepted(server, now, message);
    server.handle_durable(unsaved).to_bytes()
}

/// An answer that some message got.
pub(crate) fn answer_to(message: &[u8]) -> Answered {
    let kr1 = Kr1::parse(message).unwrap();
    let Header { epoch, .. } = kr1.header;
    let answer = Kr2::answer_to(&kr1.header, Status::Accepted, Confirmation([7; 16]));
    Answered { epoch, message: MessageHash::of(&kr1), answer }
}
