//! EDHOC against lakers, both ways. A run of lakers under aiocoap, by its shapes: captures.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod runs;

use fivefold_core::e2_gateway::E2;
use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, Responder, ToServer};
use fivefold_core::error::Code;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::oscore::Id;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::suite::{Alg, sha256};
use lakers::{
    ConnId, CredentialTransfer, EADItem, EDHOCMethod, EDHOCSuite, EdhocInitiator, EdhocMessageBuffer, EdhocResponder,
};
use lakers_crypto_rustcrypto::Crypto;
use rand_core_06::{CryptoRng, Error, RngCore, impls};
use runs::{Parties, key};

/// Randomness for lakers: SHA-256 in counter mode over a seed.
struct Seeded(u64);

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(32) {
            self.0 += 1;
            let block = sha256(&[&self.0.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Seeded {}

fn lakers_credential(credential: &Credential<'_>) -> lakers::Credential {
    let mut out = [0; 192];
    let n = credential.emit(&mut out).unwrap();
    let parsed = lakers::Credential::parse_ccs(&out[..n]).unwrap();
    assert_eq!(parsed.kid.unwrap().as_slice(), credential.kid().as_bytes());
    assert_eq!(parsed.public_key(), Some(credential.public_x().0));
    parsed
}

fn buffer(message: &[u8]) -> EdhocMessageBuffer {
    EdhocMessageBuffer::new_from_slice(message).unwrap()
}

/// Credentials of ours, and those of the capture, which have a subject and a y.
fn parties() -> [Parties; 2] {
    let foreign_i = hex::decode(concat!(
        "a202666e6f64652d3108a101a5010202410a2001215820ac75e9ece3e50bfc8ed60399889522405c47bf16df96660a41298cb4307f7eb6",
        "2258206e5de611388a4b8a8211334ac7d37ecb52a387d257e6db3c2a93df21ff3affc8"
    ));
    let foreign_r = hex::decode(concat!(
        "a20262677708a101a5010202410b2001215820bbc34960526ea4d32e940cad2a234148ddc21791a12afbcbac93622046dd44f0",
        "2258204519e257236b2a0ce2023f0931f1f386ca7afda64fcde0108c224c51eabf6072"
    ));
    let (ccs_i, ccs_r) = (foreign_i.unwrap().leak(), foreign_r.unwrap().leak());
    let stock = |hex: &str| {
        fivefold_core::suite::p256::AgreementKey::from_random(&hex::decode(hex).unwrap().try_into().unwrap()).unwrap()
    };
    let parties = Parties {
        device_key: stock("fb13adeb6518cee5f88417660841142e830a81fe334380a953406a1305e8706b"),
        device: Credential::parse(ccs_i).unwrap(),
        cloud_key: stock("72cc4761dbd4c78f758931aa589d348d1ef874a7e303ede2f140dcf3e6aa4aac"),
        cloud: Credential::parse(ccs_r).unwrap(),
    };
    [Parties::default(), parties]
}

/// What a run with a gateway gives, by lakers' exporter: the secrets of algorithms 10 and 11, and the salt.
fn exported(export: &mut dyn FnMut(u8, usize) -> Vec<u8>) -> [Vec<u8>; 3] {
    [export(0, 16), export(0, 32), export(1, 8)]
}

#[test]
fn our_device_and_lakers_as_server_agree() {
    for parties in parties() {
        for epoch in [Epoch(1), Epoch(24), Epoch(0x37), Epoch(0x1234)] {
            let sid = Sid(0x0a17);
            let agree = |alg| {
                let (device, m1) = Initiator::<E2, _>::offer(key(0xC0), sid, epoch, Announce::Nothing).unwrap();
                let server = EdhocResponder::new(
                    Crypto::new(Seeded(u64::from(epoch.0))),
                    EDHOCMethod::StatStat,
                    *parties.cloud_key.danger_scalar(),
                    lakers_credential(&parties.cloud),
                );
                let (server, c_i, ead_1) = server.process_message_1(&buffer(&m1.as_bytes()[1..])).unwrap();
                epoch.with_bytes(|bytes| assert_eq!(c_i.as_slice(), bytes));
                assert!(ead_1.is_none());
                let c_r = ConnId::from_slice(&sid.to_bytes()).unwrap();
                let (server, m2) = server.prepare_message_2(CredentialTransfer::ByReference, Some(c_r), &None).unwrap();
                let (device, m3) =
                    device.handle_message_2(m2.as_slice(), &parties.on_device(), &parties.cloud).unwrap();
                assert_eq!(m3.as_bytes()[..3], [0x42, 0x0A, 0x17]);
                let (server, id_cred_i, _) = server.parse_message_3(&buffer(&m3.as_bytes()[3..])).unwrap();
                let device_credential = lakers_credential(&parties.device);
                assert_eq!(id_cred_i.as_full_value(), device_credential.by_kid().unwrap().as_full_value());
                let (server, _) = server.verify_message_3(device_credential).unwrap();
                let (mut server, m4) = server.prepare_message_4(&None).unwrap();
                let agreed = device.handle_message_4(m4.as_slice()).unwrap();
                let theirs = exported(&mut |label, n| server.edhoc_exporter(label, &[], n)[..n].to_vec());
                (agreed.secrets(alg), theirs)
            };
            let (ours, [secret, _, salt]) = agree(Alg::AesCcm16_64_128);
            assert_eq!((ours.e2.danger_master_secret(), ours.e2.master_salt()), (&secret[..], &salt[..]));
            let (ours, [_, secret, salt]) = agree(Alg::AesCcm16_64_256);
            assert_eq!((ours.e2.danger_master_secret(), ours.e2.master_salt()), (&secret[..], &salt[..]));
        }
    }
}

#[test]
fn lakers_as_device_and_our_server_agree() {
    for parties in parties() {
        for c_i in [&[5][..], &[0x99], &[0x12, 0x34]] {
            let sid = Sid(0x0a17);
            let agree = |alg| {
                let mut device =
                    EdhocInitiator::new(Crypto::new(Seeded(77)), EDHOCMethod::StatStat, EDHOCSuite::CipherSuite2);
                device.set_identity(*parties.device_key.danger_scalar(), lakers_credential(&parties.device));
                let (device, m1) = device.prepare_message_1(ConnId::from_slice(c_i), &None).unwrap();
                let payload = [&[0xF5], m1.as_slice()].concat();
                let Ok(ToServer::Offer(offer)) = ToServer::parse(&payload) else { panic!("no offer") };
                assert_eq!(offer.c_i().as_bytes(), c_i);
                let (server, m2) = Responder::<E2, _>::answer(&offer, key(0xE0), sid, &parties.at_cloud()).unwrap();
                let (device, c_r, id_cred_r, _) = device.parse_message_2(&buffer(m2.as_bytes())).unwrap();
                assert_eq!(c_r.as_slice(), sid.to_bytes());
                let cloud = lakers_credential(&parties.cloud);
                assert_eq!(id_cred_r.as_full_value(), cloud.by_kid().unwrap().as_full_value());
                let device = device.verify_message_2(cloud).unwrap();
                let (device, m3, _) = device.prepare_message_3(CredentialTransfer::ByReference, &None).unwrap();
                let payload = [c_r.as_cbor(), m3.as_slice()].concat();
                let Ok(ToServer::Proof { c_r, message_3 }) = ToServer::parse(&payload) else { panic!("no proof") };
                assert_eq!(c_r, Id::from(sid));
                let claimed = server.handle_message_3(message_3).unwrap();
                assert_eq!(claimed.id_cred_i(), parties.device.kid());
                let (agreed, m4) = claimed.verify(&parties.device).unwrap();
                let (mut device, _) = device.process_message_4(&buffer(m4.as_bytes())).unwrap();
                let theirs = exported(&mut |label, n| device.edhoc_exporter(label, &[], n)[..n].to_vec());
                (agreed.secrets(alg), theirs)
            };
            let (ours, [secret, _, salt]) = agree(Alg::AesCcm16_64_128);
            assert_eq!((ours.e2.danger_master_secret(), ours.e2.master_salt()), (&secret[..], &salt[..]));
            let (ours, [_, secret, salt]) = agree(Alg::AesCcm16_64_256);
            assert_eq!((ours.e2.danger_master_secret(), ours.e2.master_salt()), (&secret[..], &salt[..]));
        }
    }
}

#[test]
fn what_lakers_adds_is_passed_over_or_refused_as_it_says() {
    let parties = Parties::default();
    for (is_critical, taken) in [(false, true), (true, false)] {
        let mut ead = EADItem::new();
        (ead.label, ead.is_critical, ead.value) = (1, is_critical, Some(buffer(&[0x42, 1, 2])));
        let device = EdhocInitiator::new(Crypto::new(Seeded(3)), EDHOCMethod::StatStat, EDHOCSuite::CipherSuite2);
        let (_, m1) = device.prepare_message_1(ConnId::from_slice(&[5]), &Some(ead.clone())).unwrap();
        let payload = [&[0xF5], m1.as_slice()].concat();
        let read = ToServer::parse(&payload);
        assert_eq!(read.is_ok(), taken);
        assert!(read.is_ok() || read.unwrap_err().code == Code::RenewalForged);

        // The same in message_2 of lakers, and message_4.
        let (device, m1) = Initiator::<E2, _>::offer(key(0xC0), runs::SID, runs::EPOCH, Announce::Nothing).unwrap();
        let server = EdhocResponder::new(
            Crypto::new(Seeded(4)),
            EDHOCMethod::StatStat,
            *parties.cloud_key.danger_scalar(),
            lakers_credential(&parties.cloud),
        );
        let (server, ..) = server.process_message_1(&buffer(&m1.as_bytes()[1..])).unwrap();
        let c_r = ConnId::from_slice(&runs::SID.to_bytes());
        let (server, m2) = server.prepare_message_2(CredentialTransfer::ByReference, c_r, &Some(ead.clone())).unwrap();
        let got = device.handle_message_2(m2.as_slice(), &parties.on_device(), &parties.cloud);
        assert_eq!(got.is_ok(), taken);
        let Ok((device, m3)) = got else { continue };
        let (server, ..) = server.parse_message_3(&buffer(&m3.as_bytes()[3..])).unwrap();
        let (server, _) = server.verify_message_3(lakers_credential(&parties.device)).unwrap();
        let (_, m4) = server.prepare_message_4(&Some(ead)).unwrap();
        assert!(m4.as_slice().len() > 9);
        assert!(device.handle_message_4(m4.as_slice()).is_ok());
    }
}

#[test]
fn what_lakers_adds_late_is_passed_over_or_refused_as_it_says() {
    let parties = Parties::default();
    for (is_critical, taken) in [(false, true), (true, false)] {
        let mut ead = EADItem::new();
        (ead.label, ead.is_critical, ead.value) = (1, is_critical, Some(buffer(&[0x42, 1, 2])));

        // In message_4, whose sender is proven already.
        let (device, m1) = Initiator::<E2, _>::offer(key(0xC0), runs::SID, runs::EPOCH, Announce::Nothing).unwrap();
        let server = EdhocResponder::new(
            Crypto::new(Seeded(6)),
            EDHOCMethod::StatStat,
            *parties.cloud_key.danger_scalar(),
            lakers_credential(&parties.cloud),
        );
        let (server, ..) = server.process_message_1(&buffer(&m1.as_bytes()[1..])).unwrap();
        let c_r = ConnId::from_slice(&runs::SID.to_bytes());
        let (server, m2) = server.prepare_message_2(CredentialTransfer::ByReference, c_r, &None).unwrap();
        let (device, m3) = device.handle_message_2(m2.as_slice(), &parties.on_device(), &parties.cloud).unwrap();
        let (server, ..) = server.parse_message_3(&buffer(&m3.as_bytes()[3..])).unwrap();
        let (server, _) = server.verify_message_3(lakers_credential(&parties.device)).unwrap();
        let (_, m4) = server.prepare_message_4(&Some(ead.clone())).unwrap();
        match device.handle_message_4(m4.as_slice()) {
            Ok(_) => assert!(taken),
            Err(refused) => assert!(!taken && refused.session.is_some()),
        }

        // In message_3, where MAC_3 holds it.
        let mut device = EdhocInitiator::new(Crypto::new(Seeded(7)), EDHOCMethod::StatStat, EDHOCSuite::CipherSuite2);
        device.set_identity(*parties.device_key.danger_scalar(), lakers_credential(&parties.device));
        let (device, m1) = device.prepare_message_1(ConnId::from_slice(&[5]), &None).unwrap();
        let payload = [&[0xF5], m1.as_slice()].concat();
        let Ok(ToServer::Offer(offer)) = ToServer::parse(&payload) else { panic!("no offer") };
        let (server, m2) = Responder::<E2, _>::answer(&offer, key(0xE0), runs::SID, &parties.at_cloud()).unwrap();
        let (device, ..) = device.parse_message_2(&buffer(m2.as_bytes())).unwrap();
        let device = device.verify_message_2(lakers_credential(&parties.cloud)).unwrap();
        let (_, m3, _) = device.prepare_message_3(CredentialTransfer::ByReference, &Some(ead)).unwrap();
        match server.handle_message_3(m3.as_slice()) {
            Ok(claimed) => assert!(taken && claimed.verify(&parties.device).is_ok()),
            Err(refused) => assert!(!taken && refused.session.is_none()),
        }
    }
}

#[test]
fn a_server_that_chooses_its_own_c_r_gets_only_a_test_run() {
    let parties = Parties::default();
    let own: Identity<'_, _> = parties.on_device();
    // A C_R of the server's choice is taken in a test run, but for one that equals C_I.
    for (c_i, taken) in [(Some(5), true), (Some(0x37), false), (None, false)] {
        let (device, m1) = match c_i {
            Some(c_i) => Initiator::<E2, _>::danger_offer(key(0xC0), Id::new(&[c_i]).unwrap()),
            None => Initiator::<E2, _>::offer(key(0xC0), runs::SID, runs::EPOCH, Announce::Nothing).unwrap(),
        };
        let server = EdhocResponder::new(
            Crypto::new(Seeded(5)),
            EDHOCMethod::StatStat,
            *parties.cloud_key.danger_scalar(),
            lakers_credential(&parties.cloud),
        );
        let (server, ..) = server.process_message_1(&buffer(&m1.as_bytes()[1..])).unwrap();
        let c_r = ConnId::from_slice(&[0x37]);
        let (_, m2) = server.prepare_message_2(CredentialTransfer::ByReference, c_r, &None).unwrap();
        assert_eq!(device.handle_message_2(m2.as_slice(), &own, &parties.cloud).is_ok(), taken);
    }
}
