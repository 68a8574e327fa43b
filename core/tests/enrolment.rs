//! Enrolment against V19, which an independent implementation made (docs/protocol.md 11.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod runs;

use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::e5_renewal::enrolment::{AuthorityKey, Opened, answer};
use fivefold_core::id::{Did, Epoch, GatewayGroup, Net};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::proof::possession::{Possession, SigningPublic};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::suite::p256::{SigningKey, VerifyingKey};
use fivefold_core::wire::enrolment::{Answer, Grant, Request, SigningRequest, TEXT_LONGEST, emit_text};
use runs::{SID, key, own_vector};

#[test]
fn v19_request_grant_answer_and_text() {
    let vector = own_vector("V19");
    let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
    let (device, cloud) = (key(0x80), key(0xA0));
    let request = Request { did, x: device.public_x(), made: Some(1_790_000_000), signing: None };
    let mut out = [0; Answer::LONGEST];
    let len = request.emit(&mut out).unwrap();
    assert_eq!(out[..len], vector("request"));
    assert_eq!(Request::parse(&out[..len]), Ok(request));
    let mut text = [0; TEXT_LONGEST];
    let n = emit_text(&out[..len], &mut text).unwrap();
    assert_eq!(text[..n], vector("text"));

    let network_key = core::array::from_fn(|i| 0xC0 + i as u8);
    let root_psk = core::array::from_fn(|i| 0x60 + i as u8);
    let grant = Grant {
        net: Net(7),
        sid: SID,
        pan: 0x4321,
        group: GatewayGroup(1),
        epoch: Epoch(1),
        policy: Policy::new(Profile::ToBoth),
        overrides: Overrides::NONE,
        cloud_kid: PeerKid::new(0).unwrap(),
        cloud_x: cloud.public_x(),
        key_index: 1,
        network_key: &network_key,
        root_psk: &root_psk,
    };
    let len = grant.emit(&mut out).unwrap();
    assert_eq!(out[..len], vector("grant"));

    // The test key of cose-sign1.json; both sides sign as RFC 6979 says.
    let scalar = hex::decode("894e92be8e8da52c698ceaa248a1aeb49181f5694e321bfda97a41233ba31a64").unwrap();
    let ca = SigningKey::from_random(&scalar.try_into().unwrap()).unwrap();
    let public = AuthorityKey::from_spki(&ca.spki()).unwrap();
    let len = answer(&request, &grant, (&ca, &public), key(0xE0), &mut out).unwrap();
    assert_eq!(out[..len], vector("answer"));
    let opened = Opened::open(&vector("answer"), did, &device).unwrap();
    assert_eq!(opened.verify(&VerifyingKey::from_spki(&ca.spki()).unwrap()), Ok(grant));
}

#[test]
fn v21_requests_with_a_signing_key() {
    let vector = own_vector("V21");
    let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
    let x = key(0x80).public_x();
    let signer = SigningKey::from_random(&core::array::from_fn(|i| 0x21 + i as u8)).unwrap();
    let point = SigningPublic::from_spki(&signer.spki()).unwrap();
    let verifier = VerifyingKey::from_spki(&signer.spki()).unwrap();
    let proven = |x: Option<&PublicX>| Possession::prove(&signer, point, did, x).unwrap();
    let mut out = [0; Request::LONGEST];

    let enrols = Request { did, x, made: Some(1_790_000_000), signing: Some(proven(Some(&x))) };
    let len = enrols.emit(&mut out).unwrap();
    assert_eq!(out[..len], vector("enrols"));
    let read = Request::parse(&vector("enrols")).unwrap();
    assert_eq!(read.signing.unwrap().verify(&verifier, did, Some(&x)), Ok(()));

    for (name, x, made) in [("enrolled", Some(x), Some(1_790_000_000)), ("bare", None, None)] {
        let asks = SigningRequest { did, x, made, signing: proven(x.as_ref()) };
        let len = asks.emit(&mut out).unwrap();
        assert_eq!(out[..len], vector(name), "{name}");
        let read = SigningRequest::parse(&vector(name)).unwrap();
        assert_eq!((read, read.signing.verify(&verifier, did, x.as_ref())), (asks, Ok(())));
    }
}
