//! Makes RSA key messages with the keys of vectors/key-message.json, has the server answer them, and prints both, one JSON
//! object a line: for `vectors/make.py --key-messages FILE`, which opens them without us.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey};
use fivefold_core::id::Serial;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{Auth, KeyEpoch, KeyLen, KeyLevel, RsaSize};
use fivefold_keep::key_message::{
    Chain, DRAIN_MS, Device, DeviceKey, DeviceSide, Identity, KeyMessages, Outcome, Proof, ServerKey,
};
use serde_json::{Value, json};

const SERIAL: Serial = Serial([1; 8]);

fn main() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/key-message.json");
    let book: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let h = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let key =
        |name: &str, part: &str| h(&book["keys"].as_array().unwrap().iter().find(|k| k["name"] == name).unwrap()[part]);
    let enrolment_key = || EnrolmentKey::new(h(&book["enrolment_key"]).try_into().unwrap());

    for size in [RsaSize::Rsa2048, RsaSize::Rsa3072] {
        let (server_name, device_name) = (format!("server{}", size.bits()), format!("device{}", size.bits()));
        for auth in [Auth::Mac, Auth::Signature] {
            for keylen in KeyLen::ALL {
                let (identity, proof) = match auth {
                    Auth::Mac => (Identity::mac(enrolment_key()), Proof::Mac { key: enrolment_key(), size }),
                    Auth::Signature => {
                        let public = DeviceKey::from_spki(&key(&device_name, "spki")).unwrap();
                        let identity = Identity::signing(&key(&device_name, "pkcs8")).unwrap();
                        (identity, Proof::Signature(Box::new(public)))
                    }
                };
                let mut server = KeyMessages::new(KeyLevel::E3, DRAIN_MS);
                server.add_key(ServerKey::from_pkcs8(&key(&server_name, "pkcs8")).unwrap()).unwrap();
                server.enrol(SERIAL, Device { proof, keylen, rsa1024_until: None, chain: Chain::new() });

                let mut random = [0; 48];
                getrandom::fill(&mut random).unwrap();
                let (seed, newkey) = random.split_first_chunk::<16>().unwrap();
                let newkey = &newkey[..keylen.bytes()];
                let device = DeviceSide::new(SERIAL, KeyLevel::E3, identity, &key(&server_name, "spki")).unwrap();
                let (kr1, offer) = device.offer(KeyEpoch(1), FreshKey::new(seed, newkey).unwrap()).unwrap();
                let Outcome::Persist(unsaved) = server.handle_message(Millis(0), &kr1) else {
                    panic!("our server refused our device: {:?}", server.poll_report())
                };
                let kr2 = server.handle_durable(unsaved).to_bytes();
                offer.answer(&kr2).expect("our device took our server's answer");
                let line = json!({
                    "server": server_name, "device": device_name, "seed": hex::encode(seed),
                    "newkey": hex::encode(newkey), "kr1": hex::encode(&kr1), "kr2": hex::encode(kr2),
                });
                println!("{line}");
            }
        }
    }
}
