//! The rules of the server, one by one.

use fivefold_core::e5_renewal::key_message::to_be_signed;
use fivefold_core::error::{Code, Severity};
use fivefold_core::id::Serial;
use fivefold_core::wire::key_message::{Auth, KeyEpoch, KeyLen, KeyLevel, Kr1, RsaSize};
use fivefold_keep::key_message::{
    Answered, Chain, Decoy, Decrypt, DeviceKey, DeviceSide, Identity, KeyMessages, KeyState, Outcome, Proof,
    PublicRsaKey, Report, Rsa1024, ServerKey, SignatureRefused, Undecryptable, VerifyPss, refusal,
};

use crate::book::{
    BOOK, HOUR, NOW, SERIAL, accepted, answer_to, answered, device, fresh, h, key, offered, proof, refused, sender,
    server, server_key, usual,
};

fn again(server: &mut KeyMessages, message: &[u8]) -> [u8; 40] {
    let Outcome::Again(answer) = server.handle_message(NOW, message) else { panic!("no repeat") };
    answer.to_bytes()
}

#[test]
fn device_and_server_agree_on_a_key_of_every_kind() {
    for size in [RsaSize::Rsa2048, RsaSize::Rsa3072] {
        for auth in [Auth::Mac, Auth::Signature] {
            let mut server = server(KeyLevel::E3, size, auth, KeyLen::B32);
            let (message, offer) = sender(size, auth).offer(KeyEpoch(5), fresh(9)).unwrap();
            let unsaved = accepted(&mut server, NOW, &message);
            let record = unsaved.record();
            assert_eq!((record.serial, record.epoch, record.auth, record.size), (SERIAL, KeyEpoch(5), auth, size));
            assert_eq!(record.fresh.danger_key(), fresh(9).danger_key());
            let answer = server.handle_durable(unsaved).to_bytes();
            assert_eq!(offer.answer(&answer).unwrap().danger_key(), fresh(9).danger_key());
        }
    }
}

#[test]
fn the_first_rule_that_is_broken_is_the_reason() {
    // Everything is wrong with this one; then it is mended from the front.
    let mut server = server(KeyLevel::E3, RsaSize::Rsa2048, Auth::Signature, KeyLen::B32);
    let stranger = Serial([9; 8]);
    let (mut message, _) = offered(9);
    message[14] = 2;
    message[15] = 0x10;
    message[6..14].copy_from_slice(&stranger.0);
    message[20..24].fill(0xEE);
    assert_eq!(refused(&mut server, NOW, &message), refusal::LEVEL);
    message[14] = 3;
    assert_eq!(refused(&mut server, NOW, &message), refusal::SERIAL);
    message[6..14].copy_from_slice(&SERIAL.0);
    assert_eq!(refused(&mut server, NOW, &message), refusal::KEY_LENGTH);
    message[15] = 0x20;
    assert_eq!(refused(&mut server, NOW, &message), refusal::SERVER_KEY);
    let (good, _) = offered(9);
    message[20..24].copy_from_slice(&good[20..24]);
    message[300] ^= 1;
    assert_eq!(refused(&mut server, NOW, &message), refusal::PROOF);
    message[300] ^= 1;
    assert_eq!(refused(&mut server, NOW, &message), refusal::EPOCH);
}

#[test]
fn a_device_that_signs_may_not_use_a_mac_and_one_with_a_mac_may_not_change_size() {
    let (maced, _) = sender(RsaSize::Rsa2048, Auth::Mac).offer(KeyEpoch(5), fresh(5)).unwrap();
    assert_eq!(refused(&mut usual(), NOW, &maced), refusal::ALG);
    let mut server = server(KeyLevel::E3, RsaSize::Rsa3072, Auth::Mac, KeyLen::B32);
    assert_eq!(refused(&mut server, NOW, &maced), refusal::ALG);
    assert_eq!(refused(&mut server, NOW, &offered(5).0), refusal::ALG);
}

#[test]
fn a_repeat_gets_the_same_answer_and_another_message_of_the_epoch_none() {
    let (mut server, (message, _), (other, _)) = (usual(), offered(5), offered(5));
    let answer = answered(&mut server, NOW, &message);
    assert_eq!(again(&mut server, &message), answer);
    assert_eq!(refused(&mut server, NOW, &other), refusal::OTHER_OF_EPOCH);
    let switch = server.handle_frame(NOW, SERIAL, KeyEpoch(5)).unwrap().unwrap();
    server.handle_switched(SERIAL, &switch);
    assert_eq!(again(&mut server, &message), answer, "the device may not have heard it before it tried the key");
    let _ = answered(&mut server, NOW, &offered(6).0);
    assert_eq!(refused(&mut server, NOW, &message), refusal::EPOCH);
}

#[test]
fn a_key_that_did_not_become_durable_is_made_again_by_the_same_message_and_by_no_other() {
    let (mut server, (message, _), (other, _)) = (usual(), offered(5), offered(5));
    drop(accepted(&mut server, NOW, &message));
    assert_eq!(refused(&mut server, NOW, &other), refusal::OTHER_OF_EPOCH);
    assert_eq!(server.chain(SERIAL).unwrap().current(), KeyEpoch(4));
    let (first, second) = (accepted(&mut server, NOW, &message), accepted(&mut server, NOW, &message));
    let answer = server.handle_durable(first).to_bytes();
    assert_eq!(server.handle_durable(second).to_bytes(), answer);
    assert_eq!(again(&mut server, &message), answer);
    let keys: Vec<_> = server.chain(SERIAL).unwrap().keys().collect();
    assert_eq!(keys, [(KeyEpoch(4), KeyState::Active), (KeyEpoch(5), KeyState::Pending)]);
}

#[test]
fn a_server_that_comes_back_answers_a_repeat_as_before() {
    let (mut server, (message, _)) = (usual(), offered(5));
    let unsaved = accepted(&mut server, NOW, &message);
    let record = unsaved.record();
    let stored = Answered { epoch: record.epoch, message: record.message, answer: record.answer };
    let keys = vec![(KeyEpoch(4), KeyState::Active), (record.epoch, KeyState::Pending)];
    let answer = server.handle_durable(unsaved).to_bytes();
    let mut back = usual();
    let mut known = back.retire(SERIAL).unwrap();
    known.chain = Chain::restore(keys, Some(stored));
    back.enrol(SERIAL, known);
    assert_eq!(again(&mut back, &message), answer);
    assert_eq!(refused(&mut back, NOW, &offered(5).0), refusal::OTHER_OF_EPOCH);
}

#[test]
fn six_messages_of_a_device_are_decrypted_in_an_hour() {
    let mut server = usual();
    for epoch in 5..11 {
        let _ = answered(&mut server, NOW, &offered(epoch).0);
    }
    let (seventh, _) = offered(11);
    assert_eq!(refused(&mut server, NOW.plus(HOUR - 1), &seventh), refusal::RATE);
    let _ = accepted(&mut server, NOW.plus(HOUR), &seventh);
}

#[test]
fn forgeries_and_recordings_use_up_nothing_of_a_device() {
    let (mut server, (old, _)) = (usual(), offered(5));
    let _ = answered(&mut server, NOW, &old);
    let (next, _) = offered(6);
    let mut forged = next.clone();
    forged[24] ^= 1;
    for _ in 0..20 {
        assert_eq!(refused(&mut server, NOW, &forged), refusal::PROOF);
    }
    for _ in 0..6 {
        let _ = again(&mut server, &old);
    }
    assert_eq!(refused(&mut server, NOW, &old), refusal::REPEAT_RATE);
    let _ = answered(&mut server, NOW, &next);
    for _ in 0..20 {
        assert_eq!(refused(&mut server, NOW, &old), refusal::EPOCH);
    }
    let _ = accepted(&mut server, NOW, &offered(7).0);
}

#[test]
fn both_keys_of_a_server_count_until_one_is_retired() {
    let mut server = usual();
    let (key, pkcs8) = ServerKey::generate(RsaSize::Rsa2048).unwrap();
    let (new, old) = (key.public().kid(), server_key(2048).public().kid());
    server.add_key(key).unwrap();
    let twin = server.add_key(ServerKey::from_pkcs8(&pkcs8).unwrap()).unwrap_err();
    assert_eq!(twin.0, new);
    let _ = answered(&mut server, NOW, &offered(5).0);
    server.retire_key(old);
    assert_eq!(refused(&mut server, NOW, &offered(6).0), refusal::SERVER_KEY);
    server.retire_key(new);
    assert_eq!(refused(&mut server, NOW, &offered(6).0), refusal::NO_KEY_OF_SIZE);
}

#[test]
fn a_key_of_another_size_is_not_taken_for_the_one_that_is_named() {
    // A MAC says nothing of the size that C was encrypted for: srv_kid of the 2048-bit key, C of 3072 bits.
    let mut server = server(KeyLevel::E3, RsaSize::Rsa3072, Auth::Mac, KeyLen::B32);
    let (good, _) = sender(RsaSize::Rsa3072, Auth::Mac).offer(KeyEpoch(5), fresh(5)).unwrap();
    let mut header: [u8; 24] = good[..24].try_into().unwrap();
    header[20..].copy_from_slice(&server_key(2048).public().kid().0);
    let c = &good[24..24 + 384];
    let message = [&header[..], c, &crate::book::enrolment_key().mac(&header, c)].concat();
    assert_eq!(refused(&mut server, NOW, &message), refusal::SERVER_KEY);
}

#[test]
fn frames_move_a_key_from_pending_to_active_and_the_old_one_out() {
    let mut server = usual();
    let at = |server: &KeyMessages, hours: u64, epoch| {
        server.handle_frame(NOW.plus(hours * HOUR), SERIAL, KeyEpoch(epoch)).map_err(|r| r.code)
    };
    let _ = answered(&mut server, NOW, &offered(5).0);
    assert_eq!(at(&server, 0, 4), Ok(None), "the old key counts until the new one was used");
    assert_eq!(at(&server, 0, 6), Err(Code::CloudNoContext));
    let switch = at(&server, 1, 5).unwrap().unwrap();
    assert_eq!((switch.activates, switch.drains), (KeyEpoch(5), Some((KeyEpoch(4), NOW.plus(97 * HOUR)))));
    assert_eq!(at(&server, 1, 5).unwrap().unwrap(), switch, "until it is durable it is the first frame");
    server.handle_switched(SERIAL, &switch);
    assert_eq!((at(&server, 2, 5), at(&server, 97, 4)), (Ok(None), Ok(None)));
    assert_eq!(at(&server, 98, 4), Err(Code::CloudStale));
    assert_eq!(server.handle_timeout(NOW.plus(97 * HOUR)), []);
    assert_eq!(server.handle_timeout(NOW.plus(98 * HOUR)), [(SERIAL, KeyEpoch(4))]);
    assert_eq!(server.handle_frame(NOW, Serial([9; 8]), KeyEpoch(1)).unwrap_err().code, Code::CloudUnknownKid);
}

#[test]
fn a_device_that_is_retired_is_a_stranger() {
    let (mut server, (message, _)) = (usual(), offered(5));
    assert!(server.retire(SERIAL).is_some());
    assert_eq!(refused(&mut server, NOW, &message), refusal::SERIAL);
    let unsaved = {
        server.enrol(SERIAL, device(proof(RsaSize::Rsa2048, Auth::Signature), KeyLen::B32));
        accepted(&mut server, NOW, &message)
    };
    server.retire(SERIAL);
    let _ = server.handle_durable(unsaved);
    assert!(server.chain(SERIAL).is_none());
}

#[test]
fn a_refusal_names_the_serial_of_a_device_and_no_other() {
    let mut server = usual();
    let (mut message, _) = offered(5);
    message[300] ^= 1;
    let _ = server.handle_message(NOW, &message);
    assert_eq!(server.poll_report(), Some(Report::Refused { serial: Some(SERIAL), reason: refusal::PROOF }));
    message[6] ^= 1;
    let _ = server.handle_message(NOW, &message);
    assert_eq!(server.poll_report(), Some(Report::Refused { serial: None, reason: refusal::SERIAL }));
    assert_eq!(server.poll_report(), None);
}

#[test]
fn keys_that_are_none_of_ours_are_refused() {
    let spki = key("server2048", "spki");
    assert!(PublicRsaKey::from_spki(&spki[..spki.len() - 1]).is_err());
    assert!(PublicRsaKey::from_spki(&[&spki[..], &[0]].concat()).is_err());
    let exponent = spki.len() - 3;
    for (e, good) in [([1, 0, 1], true), ([0, 0xFF, 0xFF], false), ([1, 0, 2], false), ([1, 0, 3], true)] {
        let other = [&spki[..exponent], &e].concat();
        assert_eq!(PublicRsaKey::from_spki(&other).is_ok(), good, "{e:?}");
    }
    assert!(DeviceKey::from_spki(&key("device1024", "spki")).is_err());
    assert!(ServerKey::from_pkcs8(&key("server1024", "pkcs8")).is_err());
    assert!(ServerKey::generate(RsaSize::Rsa1024).is_err());
    assert!(Identity::signing(&key("device1024", "pkcs8")).is_err());
    let identity = Identity::signing(&key("device3072", "pkcs8")).unwrap();
    assert!(DeviceSide::new(SERIAL, KeyLevel::E3, identity, &spki).is_err(), "hdr has one size for both");
}

// RSA-1024: this version has no private operation of that size. The rules around it are tried with one that knows by
// heart what vectors/key_message.py made.

struct ByHeart(Vec<(Vec<u8>, Vec<u8>)>);

impl Decrypt for ByHeart {
    fn decrypt(&self, _: &[u8], c: &[u8], m: &mut [u8; RsaSize::LONGEST]) -> Result<usize, Undecryptable> {
        let (_, known) = self.0.iter().find(|(known, _)| known == c).ok_or(Undecryptable)?;
        m[..known.len()].copy_from_slice(known);
        Ok(known.len())
    }
}

impl VerifyPss for ByHeart {
    fn size(&self) -> RsaSize {
        RsaSize::Rsa1024
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRefused> {
        let held = self.0.iter().any(|known| (&known.0[..], &known.1[..]) == (message, signature));
        held.then_some(()).ok_or(SignatureRefused)
    }
}

/// A server of 1024 bits, one of its devices listed as said, and that device's message for epoch 5.
fn of_1024_bits(until: Option<u64>, id: &str) -> (KeyMessages, Vec<u8>) {
    let case = BOOK["accepted"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap();
    let message = h(&case["kr1"]);
    let kr1 = Kr1::parse(&message).unwrap();
    let m = [h(&case["seed"]), h(&case["newkey"])].concat();
    let label = kr1.header.to_bytes();
    let knows = || {
        let signed = to_be_signed(&label, kr1.ciphertext).concat();
        Box::new(ByHeart(vec![(signed, kr1.proof.to_vec())]))
    };
    let (c, s) = (vec![7; 128], vec![8; 128]);
    let decoy_key = ByHeart(vec![(to_be_signed(&[0; 24], &c).concat(), s.clone())]);
    let decoy = Decoy { header: [0; 24], ciphertext: c.clone(), signature: s, key: Box::new(decoy_key) };
    let private = ByHeart(vec![(kr1.ciphertext.to_vec(), m), (c, vec![0; 48])]);
    let public = PublicRsaKey::from_spki(&key("server1024", "spki")).unwrap();
    let mut server = usual();
    server.add_key(ServerKey::danger_foreign(public, Box::new(private), decoy).unwrap()).unwrap();
    let proof = match kr1.header.auth {
        Auth::Mac => proof(RsaSize::Rsa1024, Auth::Mac),
        Auth::Signature => Proof::Signature(knows()),
    };
    let mut device = device(proof, KeyLen::B32);
    device.rsa1024_until = until.map(|hours| NOW.plus(hours * HOUR));
    server.enrol(SERIAL, device);
    (server, message)
}

fn reports(server: &mut KeyMessages) -> Vec<Report> {
    std::iter::from_fn(|| server.poll_report()).collect()
}

#[test]
fn rsa_1024_is_for_listed_devices_until_their_date_and_every_use_is_ar_12() {
    for id in ["signed-1024", "mac-1024"] {
        let (mut server, message) = of_1024_bits(Some(1), id);
        let leave = Rsa1024::Listed { until: NOW.plus(HOUR) };
        assert_eq!(leave.severity(), Severity::High);
        let unsaved = accepted(&mut server, NOW.plus(HOUR), &message);
        assert_eq!(reports(&mut server), [Report::Rsa1024 { serial: SERIAL, leave }]);
        assert_eq!(unsaved.record().size, RsaSize::Rsa1024);
        let _ = server.handle_durable(unsaved);
        let _ = again(&mut server, &message);
        assert_eq!(reports(&mut server), [Report::Rsa1024 { serial: SERIAL, leave }], "a repeat is a use");

        let (mut server, message) = of_1024_bits(Some(1), id);
        let leave = Rsa1024::Lapsed { until: NOW.plus(HOUR) };
        assert_eq!(leave.severity(), Severity::Critical);
        let Outcome::Silence = server.handle_message(NOW.plus(HOUR + 1), &message) else { panic!("{id}") };
        let refused = Report::Refused { serial: Some(SERIAL), reason: refusal::RSA_1024_LAPSED };
        assert_eq!(reports(&mut server), [Report::Rsa1024 { serial: SERIAL, leave }, refused]);

        let (mut server, message) = of_1024_bits(None, id);
        let Outcome::Silence = server.handle_message(NOW, &message) else { panic!("{id}") };
        let refused = Report::Refused { serial: Some(SERIAL), reason: refusal::RSA_1024_UNLISTED };
        assert_eq!(reports(&mut server), [Report::Rsa1024 { serial: SERIAL, leave: Rsa1024::Unlisted }, refused]);
    }
}

#[test]
fn nobody_else_raises_ar_12_in_the_name_of_a_device() {
    let (mut server, mut message) = of_1024_bits(None, "signed-1024");
    message[200] ^= 1;
    let Outcome::Silence = server.handle_message(NOW, &message) else { panic!() };
    let refused = |serial, reason| Report::Refused { serial, reason };
    assert_eq!(reports(&mut server), [refused(Some(SERIAL), refusal::RSA_1024_UNLISTED)]);
    message[6] ^= 1;
    let Outcome::Silence = server.handle_message(NOW, &message) else { panic!() };
    assert_eq!(reports(&mut server), [refused(None, refusal::RSA_1024_UNLISTED)]);
}

#[test]
fn a_device_of_2048_bits_may_not_step_down_to_1024_even_if_it_is_listed() {
    let (mut server, message) = of_1024_bits(Some(1), "signed-1024");
    let mut known = device(proof(RsaSize::Rsa2048, Auth::Signature), KeyLen::B32);
    known.rsa1024_until = Some(NOW.plus(HOUR));
    server.enrol(SERIAL, known);
    assert_eq!(refused(&mut server, NOW, &message), refusal::ALG);
}

#[test]
fn a_decoy_of_another_key_is_refused() {
    let (public, private, _) = server_key(2048).danger_into_parts();
    let (_, _, other) = ServerKey::generate(RsaSize::Rsa2048).unwrap().0.danger_into_parts();
    assert!(ServerKey::danger_foreign(public, private, other).is_err());
}

#[test]
fn an_answer_to_another_message_is_no_repeat() {
    let mut server = usual();
    let mut known = device(proof(RsaSize::Rsa2048, Auth::Signature), KeyLen::B32);
    known.chain = Chain::restore(vec![(KeyEpoch(5), KeyState::Pending)], Some(answer_to(&offered(5).0)));
    server.enrol(SERIAL, known);
    assert_eq!(refused(&mut server, NOW, &offered(5).0), refusal::OTHER_OF_EPOCH);
}
