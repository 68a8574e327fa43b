//! EDHOC as docs/protocol.md 11 has it: sizes, what is refused and what that costs, what comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod runs;

use fivefold_core::e2_gateway::{E2, E2Local};
use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{
    Announce, Credential, ErrorMessage, HandedKey, Identity, Initiator, Message, PeerKid, PqMix, Responder, ToServer,
};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::oscore::Id;
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::{Agree, PublicX};
use fivefold_core::wire::tiny::{EdhocRule, KidLength, Tiny};
use runs::{EPOCH, Parties, SID, key, own_vector, run};

#[test]
fn v18_a_run_with_the_cloud_and_what_it_gives() {
    let parties = Parties::default();
    let vector = own_vector("V18");
    let mut ccs = [0; Credential::LONGEST];
    for (credential, name) in [(&parties.device, "credential_device"), (&parties.cloud, "credential_cloud")] {
        let n = credential.emit(&mut ccs).unwrap();
        assert_eq!(ccs[..n], vector(name));
        assert_eq!(Credential::parse(&ccs[..n]).unwrap().kid(), credential.kid());
    }
    for alg in [Alg::AesCcm16_64_256, Alg::AesCcm16_64_128] {
        let done = run::<E3>(&parties, EPOCH, Announce::Nothing);
        for (message, name) in done.messages.iter().zip(["message_1", "message_2", "message_3", "message_4"]) {
            assert_eq!(message.as_bytes(), vector(name), "{name}");
        }
        let mix = PqMix::new(&core::array::from_fn(|i| 0x60 + i as u8), Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]));
        for agreed in [done.on_device, done.at_server] {
            assert_eq!(agreed.epoch(), Some(EPOCH));
            let secrets = agreed.secrets(alg, Some(&mix));
            let (ms3, salt3) = match alg {
                Alg::AesCcm16_64_256 => ("ms3", "salt3"),
                Alg::AesCcm16_64_128 => ("ms3_alg_10", "salt3_alg_10"),
            };
            assert_eq!(secrets.e3.danger_master_secret(), vector(ms3));
            assert_eq!(secrets.e3.master_salt(), vector(salt3));
            assert_eq!(secrets.e2_root.danger_bytes()[..], vector("e2_root"));
            assert_eq!(secrets.blind.danger_bytes()[..], vector("blind"));
        }
    }
}

#[test]
fn v18_the_same_with_a_gateway_alone() {
    let vector = own_vector("V18");
    for (alg, secret) in [(Alg::AesCcm16_64_256, "local"), (Alg::AesCcm16_64_128, "ms3_alg_10")] {
        let done = run::<E2>(&Parties::default(), EPOCH, Announce::Nothing);
        let [device, gateway] = [done.on_device, done.at_server].map(|agreed| agreed.secrets(alg));
        for secrets in [&device, &gateway] {
            assert_eq!(secrets.e2.danger_master_secret(), vector(secret));
            assert_eq!(secrets.e2.master_salt(), vector("salt3_alg_10"));
            assert_eq!(secrets.blind.danger_bytes()[..], vector("local_blind"));
        }
        // What was stored opens what the other side seals; the gateway bears the bytes of the epoch.
        let salt = gateway.e2.master_salt().try_into().unwrap();
        let stored = E2Local::new(gateway.e2.danger_master_secret(), &salt).unwrap();
        let gateway = stored.context_for_peer(SID, EPOCH, None, alg).unwrap();
        let device = device.e2.context_for_device(SID, EPOCH, None, alg).unwrap();
        assert_eq!(gateway.sender_id().as_bytes(), [5]);
        let mut lease = fivefold_core::counter::Lease::resume(0, 1);
        lease.extend(1);
        let (mut sealed, mut opened) = ([0; 32], [0; 32]);
        let (request, n) = device.seal_request(lease.take().unwrap(), b"\x02\xffhi", &mut sealed).unwrap();
        assert_eq!(gateway.open_request(request.piv, &sealed[..n], &mut opened).unwrap().plaintext(), b"\x02\xffhi");
    }
}

#[test]
fn a_run_without_the_mix_differs_where_the_mix_is_meant_to() {
    let secrets =
        |mix| run::<E3>(&Parties::default(), EPOCH, Announce::Nothing).at_server.secrets(Alg::AesCcm16_64_256, mix);
    let mix = PqMix::new(&[7; 32], Did([1; 8]));
    let (mixed, plain) = (secrets(Some(&mix)), secrets(None));
    assert_ne!(mixed.e3.danger_master_secret(), plain.e3.danger_master_secret());
    assert_ne!(mixed.e2_root.danger_bytes(), plain.e2_root.danger_bytes());
    assert_ne!(mixed.blind.danger_bytes(), plain.blind.danger_bytes());
    assert_eq!(mixed.e3.master_salt(), plain.e3.master_salt());
}

#[test]
fn messages_have_the_sizes_of_protocol_11() {
    for (epoch, announce, message_1) in [
        (Epoch(1), Announce::Nothing, 38),
        (Epoch(23), Announce::Nothing, 38),
        (Epoch(24), Announce::Nothing, 39),
        (Epoch(0x20), Announce::Nothing, 38),
        (Epoch(0x37), Announce::Nothing, 38),
        (Epoch(0x38), Announce::Nothing, 39),
        (Epoch(255), Announce::Nothing, 39),
        (Epoch(256), Announce::Nothing, 40),
        (Epoch(0xFFFF), Announce::Sid, 46),
    ] {
        let done = run::<E3>(&Parties::default(), epoch, announce);
        let sizes = done.messages.map(|m| m.as_bytes().len());
        assert_eq!(sizes, [message_1, 47, 24, 9], "{epoch}");
        assert_eq!(done.on_device.epoch(), Some(epoch));
        assert!(sizes.iter().all(|n| *n <= Message::LONGEST));
        // LoRaWAN DR0 takes 51 bytes, where the RuleID is the port.
        assert!(sizes.iter().all(|n| *n <= 51));
    }
}

#[test]
fn a_tiny_frame_carries_a_message_as_it_is() {
    let done = run::<E3>(&Parties::default(), EPOCH, Announce::Nothing);
    let rules = [EdhocRule::ToServer, EdhocRule::ToClient, EdhocRule::ToServer, EdhocRule::ToClient];
    for ((message, rule), first) in done.messages.iter().zip(rules).zip([0x10, 0x11, 0x10, 0x11]) {
        let payload = message.as_bytes();
        let mut frame = [0; 64];
        let n = Tiny::Edhoc { rule, payload }.emit(&mut frame).unwrap();
        assert_eq!((n, frame[0]), (payload.len() + 1, first));
        assert_eq!(Tiny::parse(&frame[..n], KidLength::None), Ok(Tiny::Edhoc { rule, payload }));
    }
    // An error: down it stands alone, up it stands behind C_R.
    let error = ErrorMessage::UnknownCredential.to_message();
    let mut frame = [0; 64];
    let n = Tiny::Edhoc { rule: EdhocRule::Error, payload: error.as_bytes() }.emit(&mut frame).unwrap();
    assert_eq!(frame[..n], [0x12, 0x03, 0xF5]);
    let up = [&[0x42, 0x0A, 0x17][..], error.as_bytes()].concat();
    let expected = ToServer::Error { c_r: SID.into(), error: ErrorMessage::UnknownCredential };
    assert_eq!(ToServer::parse(&up), Ok(expected));
}

#[test]
fn an_offer_says_what_the_device_said() {
    let (_, message) = Initiator::<E3, _>::offer(key(0xC0), SID, Epoch(0x0203), Announce::Sid).unwrap();
    let Ok(ToServer::Offer(offer)) = ToServer::parse(message.as_bytes()) else { panic!() };
    assert_eq!((offer.epoch(), offer.announced()), (Some(Epoch(0x0203)), Some(SID)));
    assert!(message.as_bytes().ends_with(&[0x42, 0x02, 0x03, 0x39, 0xFD, 0xE8, 0x42, 0x0A, 0x17]));
    // The short id twice, of another length, or missing; another critical item; a list of suites that ends in 2.
    let rest = &message.as_bytes()[3..40];
    for (tail, code) in [
        ("39fde8420a1739fde8420a17", Some(Code::RenewalForged)),
        ("39fde8410a", Some(Code::RenewalForged)),
        ("39fde8", Some(Code::RenewalForged)),
        ("39fde7420a17", Some(Code::RenewalForged)),
        ("19fde9420a17", None),
        ("", None),
    ] {
        let payload = [&[0xF5, 3, 2][..], rest, &hex::decode(tail).unwrap()].concat();
        let read = ToServer::parse(&payload);
        assert_eq!(read.as_ref().err().map(|r| r.code), code, "{tail}");
        if let Ok(ToServer::Offer(offer)) = read {
            assert_eq!(offer.announced(), None);
        }
    }
    for (suites, code) in [
        ("820602", None),
        ("83060302", None),
        ("820206", Some(Code::RenewalSuite)),
        ("820202", Some(Code::RenewalSuite)),
        ("83020602", Some(Code::RenewalSuite)),
        ("03", Some(Code::RenewalSuite)),
        ("8102", Some(Code::RenewalForged)),
        ("80", Some(Code::RenewalForged)),
        ("9802", Some(Code::RenewalForged)),
        ("1802", Some(Code::RenewalForged)),
    ] {
        let payload = [&[0xF5, 3][..], &hex::decode(suites).unwrap(), rest].concat();
        assert_eq!(ToServer::parse(&payload).err().map(|r| r.code), code, "{suites}");
    }
    for method in [0, 1, 2, 4] {
        let payload = [&[0xF5, method, 2][..], rest].concat();
        assert_eq!(ToServer::parse(&payload).unwrap_err().code, Code::RenewalSuite);
    }
}

#[test]
fn epochs_that_a_device_cannot_have_are_not_offered() {
    for (sid, epoch) in [(SID, Epoch(0)), (Sid(0x0a17), Epoch(0x0a17)), (Sid(0), Epoch(1)), (Sid(0xE201), Epoch(1))] {
        assert!(Initiator::<E3, _>::offer(key(0xC0), sid, epoch, Announce::Nothing).is_err(), "{sid} {epoch}");
    }
    // C_I that is no epoch, or the short id: the first is for the record to say, the second is refused.
    let parties = Parties::default();
    for (c_i, epoch) in [(&[][..], None), (&[0], None), (&[0, 5], None), (&[5], Some(Epoch(5))), (&[1, 2, 3], None)] {
        let (_, message) = Initiator::<E3, _>::danger_offer(key(0xC0), Id::new(c_i).unwrap());
        let Ok(ToServer::Offer(offer)) = ToServer::parse(message.as_bytes()) else { panic!() };
        assert_eq!(offer.epoch(), epoch);
        let answered = Responder::<E3, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud());
        assert_eq!(answered.unwrap().0.epoch(), epoch);
    }
    let (_, message) = Initiator::<E3, _>::danger_offer(key(0xC0), SID.into());
    let Ok(ToServer::Offer(offer)) = ToServer::parse(message.as_bytes()) else { panic!() };
    let refused = Responder::<E3, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap_err();
    assert_eq!(refused.code, Code::RenewalForged);
}

#[test]
fn hostile_public_keys_are_refused() {
    let parties = Parties::default();
    let p = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let off_curve = "a04e73601df544a70ba7ea1e57030f7d4b4eb7f673924e58d54ca77a5e7d4d4a";
    // Zero is on the curve, and refused all the same.
    for x in [p, off_curve, &"ff".repeat(32), &"00".repeat(32)] {
        let bad: PublicX = x.parse().unwrap();
        let mut message_1 = hex::decode("f503025820").unwrap();
        message_1.extend(bad.0);
        message_1.push(5);
        let Ok(ToServer::Offer(offer)) = ToServer::parse(&message_1) else { panic!() };
        let refused = Responder::<E3, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap_err();
        assert_eq!(refused.code, Code::RenewalForged);

        let (waiting, _) = Initiator::<E3, _>::offer(key(0xC0), SID, EPOCH, Announce::Nothing).unwrap();
        let mut message_2 = vec![0x58, 45];
        message_2.extend(bad.0);
        message_2.extend([0; 13]);
        let refused = waiting.handle_message_2(&message_2, &parties.on_device(), &parties.cloud).unwrap_err();
        assert_eq!((refused.rejected.code, refused.session.is_some()), (Code::RenewalForged, true));
    }
    let unknown = Credential::peer(PeerKid::new(0).unwrap(), off_curve.parse().unwrap());
    let (waiting, message_1) = Initiator::<E3, _>::offer(key(0xC0), SID, EPOCH, Announce::Nothing).unwrap();
    let Ok(ToServer::Offer(offer)) = ToServer::parse(message_1.as_bytes()) else { panic!() };
    let (_, message_2) = Responder::<E3, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap();
    let refused = waiting.handle_message_2(message_2.as_bytes(), &parties.on_device(), &unknown).unwrap_err();
    assert_eq!(refused.rejected.code, Code::RenewalForged);
}

#[test]
fn only_the_holder_of_the_credential_is_believed() {
    let parties = Parties::default();
    let offer = || Initiator::<E3, _>::offer(key(0xC0), SID, EPOCH, Announce::Nothing).unwrap();
    let answer = |message_1: &Message, own: &Identity<'_, _>, sid| {
        let Ok(ToServer::Offer(offer)) = ToServer::parse(message_1.as_bytes()) else { panic!() };
        Responder::<E3, _>::answer(&offer, key(0xE0), sid, own).unwrap()
    };
    let of_device = |message_2: &Message| {
        offer()
            .0
            .handle_message_2(message_2.as_bytes(), &parties.on_device(), &parties.cloud)
            .map_err(|r| r.rejected.code)
    };
    let (_, message_1) = offer();
    // A stranger under the cloud's kid; the cloud under another kid; the cloud for another device.
    let stranger = key(0x33);
    let forged = Credential::peer(PeerKid::new(0).unwrap(), stranger.public_x());
    let own = Identity { key: &stranger, credential: &forged };
    assert_eq!(of_device(&answer(&message_1, &own, SID).1).unwrap_err(), Code::RenewalForged);
    let own = Identity { key: &stranger, credential: &parties.cloud };
    assert_eq!(of_device(&answer(&message_1, &own, SID).1).unwrap_err(), Code::RenewalForged);
    let renamed = Credential::peer(PeerKid::new(1).unwrap(), parties.cloud.public_x());
    let own = Identity { key: &parties.cloud_key, credential: &renamed };
    assert_eq!(of_device(&answer(&message_1, &own, SID).1).unwrap_err(), Code::RenewalUnknownCredential);
    assert_eq!(of_device(&answer(&message_1, &parties.at_cloud(), Sid(7)).1).unwrap_err(), Code::RenewalForged);

    // A stranger under the device's kid; a device under its own kid where another one's was looked up.
    let at_cloud = |own: &Identity<'_, _>, looked_up: &Credential<'_>| {
        let (session, message_2) = answer(&message_1, &parties.at_cloud(), SID);
        let (_, message_3) = offer().0.handle_message_2(message_2.as_bytes(), own, &parties.cloud).unwrap();
        let Ok(ToServer::Proof { message_3, .. }) = ToServer::parse(message_3.as_bytes()) else { panic!() };
        session.handle_message_3(message_3).unwrap().verify(looked_up).map(drop).map_err(|r| r.code)
    };
    let own = Identity { key: &stranger, credential: &parties.device };
    assert_eq!(at_cloud(&own, &parties.device), Err(Code::RenewalForged));
    let other = Credential::device(Sid(8), stranger.public_x());
    let own = Identity { key: &stranger, credential: &other };
    assert_eq!(at_cloud(&own, &parties.device), Err(Code::RenewalUnknownCredential));
    assert_eq!(at_cloud(&own, &other), Ok(()));
    assert_eq!(at_cloud(&parties.on_device(), &parties.device), Ok(()));
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused_by_name() {
    let parties = Parties::default();
    let done = run::<E3>(&parties, EPOCH, Announce::Sid);
    let [m1, m2, m3, m4] = done.messages.map(|m| m.as_bytes().to_vec());
    let offer = || Initiator::<E3, _>::offer(key(0xC0), SID, EPOCH, Announce::Sid).unwrap().0;
    let renewal = |code| matches!(code, Code::RenewalForged | Code::RenewalSuite | Code::RenewalUnknownCredential);

    // message_1: refused at once, or the device refuses the answer to it.
    let mut answered = 0;
    for altered in altered(&m1) {
        match ToServer::parse(&altered) {
            Err(rejected) => assert!(renewal(rejected.code)),
            Ok(ToServer::Offer(read)) => match Responder::<E3, _>::answer(&read, key(0xE0), SID, &parties.at_cloud()) {
                Err(rejected) => assert!(renewal(rejected.code)),
                Ok((_, message_2)) => {
                    let got = offer().handle_message_2(message_2.as_bytes(), &parties.on_device(), &parties.cloud);
                    assert_eq!(got.unwrap_err().rejected.code, Code::RenewalForged);
                    answered += 1;
                }
            },
            Ok(other) => panic!("{other:?}"),
        }
    }
    assert!(answered > 100, "half of all x are on the curve: {answered}");

    // message_2: none of them costs the device its session.
    for altered in altered(&m2) {
        let refused = offer().handle_message_2(&altered, &parties.on_device(), &parties.cloud).unwrap_err();
        assert!(renewal(refused.rejected.code));
        let session = refused.session.expect("anybody can send this");
        assert!(session.handle_message_2(&m2, &parties.on_device(), &parties.cloud).is_ok());
    }

    // message_3: none of them costs the cloud its session.
    let Ok(ToServer::Offer(read)) = ToServer::parse(&m1) else { panic!() };
    let (mut session, _) = Responder::<E3, _>::answer(&read, key(0xE0), SID, &parties.at_cloud()).unwrap();
    for altered in altered(&m3) {
        match ToServer::parse(&altered) {
            Err(rejected) => assert!(renewal(rejected.code)),
            Ok(ToServer::Proof { c_r, .. }) if c_r != Id::from(SID) => {}
            Ok(ToServer::Proof { message_3, .. }) => {
                let refused = session.handle_message_3(message_3).unwrap_err();
                assert_eq!(refused.rejected.code, Code::RenewalForged);
                session = refused.session.expect("anybody can send this");
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
    let claimed = session.handle_message_3(&m3[3..]).unwrap();
    assert!(claimed.verify(&parties.device).is_ok());

    // message_4, and message_2 once more in its place.
    let waiting = || offer().handle_message_2(&m2, &parties.on_device(), &parties.cloud).unwrap().0;
    for altered in altered(&m4) {
        let refused = waiting().handle_message_4(&altered).unwrap_err();
        assert_eq!(refused.rejected.code, Code::RenewalForged);
        assert!(refused.session.expect("anybody can send this").handle_message_4(&m4).is_ok());
    }
    let refused = waiting().handle_message_4(&m2).unwrap_err();
    assert!(refused.session.unwrap().handle_message_4(&m4).is_ok());
}

#[test]
fn message_4_hands_over_a_network_key_where_there_is_one_and_is_what_it_was_where_there_is_none() {
    let parties = Parties::default();
    let plain = run::<E3>(&parties, EPOCH, Announce::Nothing);
    assert!(plain.on_device.handed().is_none());
    for handed in [None, Some(HandedKey::new(2, [7; 16])), Some(HandedKey::new(254, [8; 16]))] {
        let (device, m1) = Initiator::<E3, _>::offer(key(0xC0), SID, EPOCH, Announce::Nothing).unwrap();
        let Ok(ToServer::Offer(offer)) = ToServer::parse(m1.as_bytes()) else { panic!() };
        let (server, m2) = Responder::<E3, _>::answer(&offer, key(0xE0), SID, &parties.at_cloud()).unwrap();
        let (device, m3) = device.handle_message_2(m2.as_bytes(), &parties.on_device(), &parties.cloud).unwrap();
        let claimed = server.handle_message_3(&m3.as_bytes()[3..]).unwrap();
        let (at_server, m4) = claimed.verify_and_hand(&parties.device, handed.clone()).unwrap();
        let m4 = m4.as_bytes();
        assert_eq!(m4 == plain.messages[3].as_bytes(), handed.is_none());
        assert!(m4.len() <= Message::LONGEST && !m4.windows(16).any(|w| w == [7; 16] || w == [8; 16]));
        // No message_2 is as short, so that none is taken for the other.
        assert!(m4.len() < m2.as_bytes().len());
        let mut device = device;
        for altered in altered(m4) {
            let refused = device.handle_message_4(&altered).unwrap_err();
            assert_eq!(refused.rejected.code, Code::RenewalForged);
            device = refused.session.expect("anybody can send this");
        }
        let on_device = device.handle_message_4(m4).unwrap();
        assert_eq!(on_device.handed().map(HandedKey::told), handed.as_ref().map(HandedKey::told));
        // What is agreed does not depend on it.
        let secret = |agreed: fivefold_core::e5_renewal::Agreed<E3>| {
            agreed.secrets(Alg::AesCcm16_64_256, None).e3.danger_master_secret().to_vec()
        };
        assert_eq!(secret(on_device), secret(at_server));
    }
}

#[test]
fn an_error_message_is_read_and_written_in_its_one_form() {
    for (hex, error) in [
        ("0202", ErrorMessage::WrongSuite),
        ("03f5", ErrorMessage::UnknownCredential),
        ("0167726566757365 64", ErrorMessage::Unspecified("refused")),
        ("2bf6", ErrorMessage::Other(-12)),
    ] {
        let bytes = hex::decode(hex.replace(' ', "")).unwrap();
        assert_eq!(ErrorMessage::parse(&bytes), Ok(error));
        assert_eq!(error.to_message().as_bytes(), bytes);
        for end in 0..bytes.len() {
            assert_eq!(ErrorMessage::parse(&bytes[..end]).unwrap_err().code, Code::RenewalForged);
        }
    }
    assert_eq!(ErrorMessage::parse(&hex::decode("02820203").unwrap()), Ok(ErrorMessage::WrongSuite));
    for bad in ["0000", "03f4", "0103", "020202", "02f6"] {
        assert!(ErrorMessage::parse(&hex::decode(bad).unwrap()).is_err(), "{bad}");
    }
    let long = "é".repeat(40);
    let message = ErrorMessage::Unspecified(&long).to_message();
    assert!(matches!(ErrorMessage::parse(message.as_bytes()), Ok(ErrorMessage::Unspecified(t)) if t.len() == 44));
}

#[test]
fn a_credential_of_another_library_is_taken_as_it_is_or_not_at_all() {
    let good = hex::decode(concat!(
        "a202666e6f64652d3108a101a5010202410a2001215820ac75e9ece3e50bfc8ed60399889522405c47bf16df96660a41298cb4307f7eb6",
        "2258206e5de611388a4b8a8211334ac7d37ecb52a387d257e6db3c2a93df21ff3affc8"
    ))
    .unwrap();
    let credential = Credential::parse(&good).unwrap();
    assert_eq!(credential.kid().as_bytes(), [0x0A]);
    let mut out = [0; 128];
    assert_eq!(credential.emit(&mut out).map(|n| out[..n].to_vec()), Ok(good.clone()));
    for end in 0..good.len() {
        assert!(Credential::parse(&good[..end]).is_err());
    }
    for bad in [
        "a108a101a301022001215820",         // ends early
        "a0",                               // nothing in it
        "a108a102a0",                       // another confirmation
        "a108a101a401010202410a2001215820", // kty OKP
        "a108a101a401020202400a2001215820", // no kid in it
    ] {
        let mut bytes = hex::decode(bad).unwrap();
        bytes.extend([7; 32]);
        assert!(Credential::parse(&bytes).is_err(), "{bad}");
    }
}

/// All truncations, all flips of one bit, and one byte too many.
fn altered(message: &[u8]) -> Vec<Vec<u8>> {
    let truncated = (0..message.len()).map(|end| message[..end].to_vec());
    let flipped = (0..message.len() * 8).map(|bit| {
        let mut flipped = message.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    let longer = [0x00, 0x40, 0xF5].map(|b| [message, &[b]].concat());
    truncated.chain(flipped).chain(longer).collect()
}
