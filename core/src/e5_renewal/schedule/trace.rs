//! RFC 9529 section 3, value by value, and the invalid messages of its section 4 (vectors/standards/rfc9529-edhoc.json).

#![cfg(test)]

extern crate std;

use serde_json::Value;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::e3_cloud::E3;
use crate::e5_renewal::credential::{Identity, read_id};
use crate::e5_renewal::initiator::{Initiator, WaitM2};
use crate::e5_renewal::message::{ErrorMessage, Offer, ToServer, ignore_ead, read_claim};
use crate::e5_renewal::responder::{Responder, WaitM3};
use crate::error::Code;
use crate::suite::agreement::Agree;
use crate::suite::p256::AgreementKey;
use crate::wire::cbor::Reader;

const BOOK: &str = include_str!("../../../../vectors/standards/rfc9529-edhoc.json");

struct Trace(Value);

impl Trace {
    fn of_method_3() -> Self {
        let book: Value = serde_json::from_str(BOOK).unwrap();
        let mut traces = book["traces"].as_array().unwrap().iter();
        Self(traces.find(|t| t["method"] == 3).unwrap().clone())
    }

    /// The value of that name in that part.
    fn at(&self, part: &str, name: &str) -> Vec<u8> {
        hex::decode(self.0[part][name].as_str().unwrap_or_else(|| panic!("no {part}/{name}"))).unwrap()
    }

    fn key(&self, part: &str, name: &str) -> AgreementKey {
        AgreementKey::from_random(&self.at(part, name).try_into().unwrap()).unwrap()
    }

    fn id(&self, part: &str, name: &str) -> Id {
        Id::new(&self.at(part, name)).unwrap()
    }
}

#[test]
fn every_value_of_the_key_schedule_is_that_of_rfc_9529() {
    let t = Trace::of_method_3();
    let [x, y, i, r] = [("message_1", "X"), ("message_2", "Y"), ("message_3", "SK_I"), ("message_2", "SK_R")]
        .map(|(p, n)| t.key(p, n));
    let (cred_i, cred_r) = (t.at("message_3", "CRED_I_cbor"), t.at("message_2", "CRED_R_cbor"));
    let (cred_i, cred_r) = (Credential::parse(&cred_i).unwrap(), Credential::parse(&cred_r).unwrap());
    let at = |part: &str, name: &str| t.at(part, name);
    for (name, key, public) in [("X", &x, "G_X"), ("Y", &y, "G_Y"), ("SK_I", &i, "PK_I_x"), ("SK_R", &r, "PK_R_x")] {
        let part = if matches!(name, "X") {
            "message_1"
        } else if name == "SK_I" {
            "message_3"
        } else {
            "message_2"
        };
        assert_eq!(key.public_x().0[..], at(part, public), "{public}");
    }
    assert_eq!(cred_i.public_x(), i.public_x());
    assert_eq!(cred_r.public_x(), r.public_x());

    let h_message_1 = sha256(&[&at("message_1", "message_1")]);
    assert_eq!(h_message_1[..], at("message_2", "H_message_1"));
    let g_xy = y.agree(&x.public_x()).unwrap();
    assert_eq!(g_xy.danger_bytes()[..], at("message_2", "G_XY"));
    let keys = Keys2e::new(&y.public_x(), &h_message_1, &g_xy);
    assert_eq!(keys.th_2[..], at("message_2", "TH_2"));
    assert_eq!(keys.prk_2e.0[..], at("message_2", "PRK_2e"));
    assert_eq!(keys.prk_2e.kdf::<32>(1, &[&keys.th_2])[..], at("message_2", "SALT_3e2m"));
    let g_rx = r.agree(&x.public_x()).unwrap();
    assert_eq!(g_rx.danger_bytes()[..], at("message_2", "G_RX"));
    let mut text = at("message_2", "PLAINTEXT_2");
    assert_eq!(keys.prk_2e.kdf::<11>(0, &[&keys.th_2])[..], at("message_2", "KEYSTREAM_2"));
    keys.apply_keystream_2(&mut text, &mut [0; 11]).unwrap();
    assert_eq!(text, at("message_2", "CIPHERTEXT_2"));

    let keys = keys.with_responder(&g_rx);
    assert_eq!(keys.prk_3e2m.0[..], at("message_2", "PRK_3e2m"));
    assert_eq!(keys.mac_2(t.id("message_2", "C_R"), &cred_r, &[])[..], at("message_2", "MAC_2"));

    let keys = keys.after_message_2(&at("message_2", "PLAINTEXT_2"), &cred_r);
    assert_eq!(keys.th_3[..], at("message_3", "TH_3"));
    assert_eq!(keys.prk_3e2m.kdf::<16>(3, &[&keys.th_3])[..], at("message_3", "K_3"));
    assert_eq!(keys.prk_3e2m.kdf::<13>(4, &[&keys.th_3])[..], at("message_3", "IV_3"));
    assert_eq!(keys.prk_3e2m.aead(3, 4, &keys.th_3).aad[..], at("message_3", "A_3"));
    assert_eq!(keys.prk_3e2m.kdf::<32>(5, &[&keys.th_3])[..], at("message_3", "SALT_4e3m"));
    let g_iy = i.agree(&y.public_x()).unwrap();
    assert_eq!(g_iy.danger_bytes()[..], at("message_3", "G_IY"));
    let prk_4e3m = keys.with_initiator(&g_iy);
    assert_eq!(prk_4e3m.0[..], at("message_3", "PRK_4e3m"));
    assert_eq!(keys.mac_3(&prk_4e3m, &cred_i, &[])[..], at("message_3", "MAC_3"));
    let mut text = at("message_3", "PLAINTEXT_3");
    let tag = keys.seal_3(&mut text);
    assert_eq!([&text[..], &tag].concat(), at("message_3", "CIPHERTEXT_3"));

    let keys = keys.after_message_3(prk_4e3m, &at("message_3", "PLAINTEXT_3"), &cred_i);
    assert_eq!(keys.th_4[..], at("message_3", "TH_4"));
    assert_eq!(keys.prk_4e3m.kdf::<16>(8, &[&keys.th_4])[..], at("message_4", "K_4"));
    assert_eq!(keys.prk_4e3m.kdf::<13>(9, &[&keys.th_4])[..], at("message_4", "IV_4"));
    assert_eq!(keys.prk_4e3m.aead(8, 9, &keys.th_4).aad[..], at("message_4", "A_4"));
    assert_eq!(keys.seal_4(&mut [])[..], at("message_4", "CIPHERTEXT_4"));
    let prk_out: [u8; 32] = keys.prk_4e3m.kdf(7, &[&keys.th_4]);
    assert_eq!(prk_out[..], at("exporter", "PRK_out"));
    let exporter = keys.exporter();
    assert_eq!(exporter.0.0[..], at("exporter", "PRK_exporter"));
    assert_eq!(exporter.export::<16>(0)[..], at("oscore", "OSCORE_Master_Secret"));
    assert_eq!(exporter.export::<8>(1)[..], at("oscore", "OSCORE_Master_Salt"));
    // EDHOC_KeyUpdate is not ours; its values show EDHOC_KDF with a context of another length.
    let updated = Prk(Prk(prk_out).kdf(11, &[&at("key_update", "KeyUpdate_context")]));
    assert_eq!(updated.0[..], at("key_update", "PRK_out_after_KeyUpdate"));
}

#[test]
fn both_engines_speak_the_messages_of_rfc_9529() {
    let t = Trace::of_method_3();
    let (cred_i, cred_r) = (t.at("message_3", "CRED_I_cbor"), t.at("message_2", "CRED_R_cbor"));
    let (cred_i, cred_r) = (Credential::parse(&cred_i).unwrap(), Credential::parse(&cred_r).unwrap());
    let (i, r) = (t.key("message_3", "SK_I"), t.key("message_2", "SK_R"));
    let (own_i, own_r) = (Identity { key: &i, credential: &cred_i }, Identity { key: &r, credential: &cred_r });
    let (c_i, c_r) = (t.id("message_1", "C_I"), t.id("message_2", "C_R"));
    let (message_1, message_2) = (t.at("message_1", "message_1"), t.at("message_2", "message_2"));
    let before = |prefix: &[u8], message: &[u8]| [prefix, message].concat();

    let first = before(&[0xF5], &t.at("message_1_first", "message_1"));
    let refused = ToServer::parse(&first).unwrap_err();
    assert_eq!(refused.code, Code::RenewalSuite);
    assert_eq!(ErrorMessage::about(&refused).to_message().as_bytes(), t.at("error", "error"));

    let payload = before(&[0xF5], &message_1);
    let Ok(ToServer::Offer(offer)) = ToServer::parse(&payload) else { panic!("no message_1") };
    assert_eq!((offer.c_i(), offer.as_bytes()), (c_i, &message_1[..]));
    let (server, sent) = Responder::<E3, WaitM3<_>>::answer_as(&offer, t.key("message_2", "Y"), c_r, &own_r).unwrap();
    assert_eq!(sent.as_bytes(), message_2);

    let device = Initiator::<E3, WaitM2<_>>::waiting(t.key("message_1", "X"), &message_1, c_i, Some(c_r));
    let (device, sent) = device.handle_message_2(&message_2, &own_i, &cred_r).unwrap();
    let message_3 = t.at("message_3", "message_3");
    assert_eq!(sent.as_bytes(), before(c_r.as_bytes(), &message_3));

    let claimed = server.handle_message_3(&message_3).unwrap();
    assert_eq!(claimed.id_cred_i(), cred_i.kid());
    let (at_server, sent) = claimed.verify(&cred_i).unwrap();
    assert_eq!(sent.as_bytes(), t.at("message_4", "message_4"));
    let on_device = device.handle_message_4(sent.as_bytes()).unwrap();
    for agreed in [at_server, on_device] {
        assert_eq!((agreed.c_i(), agreed.c_r()), (c_i, c_r));
        let secrets = agreed.secrets(Alg::AesCcm16_64_128, None);
        assert_eq!(secrets.e3.danger_master_secret(), t.at("oscore", "OSCORE_Master_Secret"));
        assert_eq!(secrets.e3.master_salt(), t.at("oscore", "OSCORE_Master_Salt"));
    }
}

#[test]
fn the_invalid_messages_of_rfc_9529_are_refused() {
    let book: Value = serde_json::from_str(BOOK).unwrap();
    let key = |n| AgreementKey::from_random(&[n; 32]).unwrap();
    let own = Credential::device(crate::id::Sid(1), key(1).public_x());
    let (static_key, mut seen) = (key(1), 0);
    for case in book["invalid"].as_array().unwrap() {
        let bytes = hex::decode(case["bytes"].as_str().unwrap()).unwrap();
        let title = case["title"].as_str().unwrap();
        let code = match case["field"].as_str().unwrap() {
            "message_1" => {
                Offer::parse(&bytes)
                    .and_then(|offer| {
                        let own = Identity { key: &static_key, credential: &own };
                        Responder::<E3, _>::answer(&offer, key(2), crate::id::Sid(1), &own).map(drop)
                    })
                    .unwrap_err()
                    .code
            }
            "message_2" => {
                let waiting = Initiator::<E3, _>::danger_offer(key(3), Id::new(&[5]).unwrap()).0;
                let own = Identity { key: &static_key, credential: &own };
                waiting.handle_message_2(&bytes, &own, own.credential).unwrap_err().rejected.code
            }
            "PLAINTEXT_2" => {
                let mut r = Reader::new(&bytes);
                let read = read_id(&mut r).and_then(|_| read_claim(&mut r).map(drop));
                read.unwrap_err().counted(Code::RenewalForged).code
            }
            other => panic!("{other}"),
        };
        // The suites of two cases are others than 2: that is what is seen first.
        let expected = match title {
            "Error in length of ephemeral key" | "Curve point of low order" => Code::RenewalSuite,
            _ => Code::RenewalForged,
        };
        assert_eq!(code, expected, "{title}");
        seen += 1;
    }
    assert_eq!(seen, 15);
}

#[test]
fn data_that_means_nothing_is_passed_over_unless_it_is_critical() {
    for (ead, taken) in [
        ("", true),
        ("00", true),
        ("0040", true),
        ("19fde9420a17", true),
        ("0a0b4101", true),
        ("20", false),
        ("2041ff", false),
        ("39fde8420a17", false),
        ("40", false),
        ("f6", false),
        ("1801", false),
    ] {
        let bytes = hex::decode(ead).unwrap();
        assert_eq!(ignore_ead(&mut Reader::new(&bytes)).is_ok(), taken, "{}", String::from(ead));
    }
}
