//! What vectors/key_message.py made without us: our server takes it, or refuses it for the reason that stands there.

use fivefold_core::e5_renewal::key_message::{FreshKey, MessageHash, Offer};
use fivefold_core::wire::key_message::{KeyEpoch, KeyLevel, Kr1, RsaSize};
use fivefold_keep::key_message::{PublicRsaKey, refusal};

use crate::book::{BOOK, NOW, accepted, h, key, refused, server, usual};

#[test]
fn every_message_that_is_to_be_accepted_is_and_gets_the_answer_that_stands_there() {
    let mut seen = 0;
    for case in BOOK["accepted"].as_array().unwrap() {
        let (bytes, answer) = (h(&case["kr1"]), h(&case["kr2"]));
        let kr1 = Kr1::parse(&bytes).unwrap();
        let header = kr1.header;
        assert_eq!(header.epoch, KeyEpoch(case["epoch"].as_u64().unwrap() as u32));
        assert_eq!(header.level, if case["level"] == 2 { KeyLevel::E2 } else { KeyLevel::E3 });
        assert_eq!(MessageHash::of(&kr1).0[..], h(&case["kr1_sha256"]));
        // The device's side of every size; RSA-1024 at the server is in rules.rs.
        let fresh = || FreshKey::new(&h(&case["seed"]).try_into().unwrap(), &h(&case["newkey"])).unwrap();
        assert_eq!(Offer::new(&kr1, fresh()).answer(&answer).unwrap().danger_key(), h(&case["newkey"]));
        if header.size != RsaSize::Rsa1024 {
            let mut server = server(header.level, header.size, header.auth, header.keylen);
            let unsaved = accepted(&mut server, NOW, &bytes);
            assert_eq!(unsaved.record().fresh.danger_plaintext(), fresh().danger_plaintext());
            assert_eq!(server.handle_durable(unsaved).to_bytes()[..], answer, "{}", case["id"]);
        }
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn every_message_that_is_to_be_refused_is_for_the_reason_that_stands_there() {
    let mut server = usual();
    let mut seen = 0;
    for case in BOOK["refused"].as_array().unwrap() {
        // Six of a device are decrypted in an hour: an hour for each.
        seen += 1;
        let reason = refused(&mut server, NOW.plus(seen * crate::book::HOUR), &h(&case["kr1"]));
        assert_eq!(reason.reason, case["refused"].as_str().unwrap(), "{}", case["id"]);
    }
    assert_eq!(seen, 32);
    let good = h(&BOOK["accepted"][0]["kr1"]);
    let _ = accepted(&mut server, NOW.plus(100 * crate::book::HOUR), &good);
}

#[test]
fn a_server_names_its_key_as_the_second_implementation_does() {
    for entry in BOOK["keys"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        assert_eq!(PublicRsaKey::from_spki(&key(name, "spki")).unwrap().kid().to_string(), entry["kid"], "{name}");
    }
}

#[test]
fn a_message_of_1024_bits_is_for_no_key_of_this_server() {
    let case = BOOK["accepted"].as_array().unwrap().iter().find(|c| c["id"] == "signed-1024").unwrap();
    assert_eq!(refused(&mut usual(), NOW, &h(&case["kr1"])), refusal::NO_KEY_OF_SIZE);
}
