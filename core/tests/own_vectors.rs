//! V9 to V17 of docs/protocol.md 16.4, as vectors/make.py computed them without us (vectors/own.json).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::oscore::PartialIv;
use fivefold_core::profile::{KeyIndexes, KidLength, LinkClass, Overrides, Policy, Profile};
use fivefold_core::proof::merkle::{Hash, root};
use fivefold_core::proof::receipt::{CONTEXT, GatewayBoot, Receipt, Tally};
use fivefold_core::proof::statement::{BlindKey, SignedLevel, Statement, Subject};
use fivefold_core::proof::{KeyName, Sign1, SignAlg, SignatureRefused, ToBeSigned, Verify};
use fivefold_core::suite::agreement::PublicX;
use fivefold_core::suite::{Alg, hkdf_expand, hmac_sha256};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::{Downlink, DownlinkKind, Envelope, Kind, Opened, Originator, Refusal, Reply};
use fivefold_core::wire::state::{Context, Device, LocalKey, NetworkKey, Part, Phase, Serial, Share, Standing, State};
use fivefold_core::wire::tiny::Tiny;
use serde_json::Value;

const DID: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
const SID: Sid = Sid(0x0a17);
const PAYLOAD: [u8; 8] = [0x84, 0x01, 0x18, 0xD7, 0x18, 0x2D, 0x18, 0x25];

fn book() -> Value {
    let path = format!("{}/../vectors/own.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// One value of one vector.
fn value(id: &str, key: &str) -> Vec<u8> {
    let book = book();
    let case = book["vectors"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    hex::decode(case[key].as_str().unwrap_or_else(|| panic!("{id} has no {key}"))).unwrap()
}

fn counting<const N: usize>(from: u8) -> [u8; N] {
    core::array::from_fn(|i| from + i as u8)
}

#[test]
fn v9_v10_a_leaf_and_a_statement() {
    let subject = Subject { level: SignedLevel::Cloud, did: DID, epoch: Epoch(5), bctx: None };
    let salt = |piv| BlindKey::new(counting(0x40)).salt(piv);
    assert_eq!(salt(300).0[..], value("V9", "salt"));
    let mut out = [0; Statement::LONGEST];
    let n = subject.emit_tbs(300, &PAYLOAD, &mut out).unwrap();
    assert_eq!(out[..n], value("V9", "tbs"));
    let leaves = [300, 301, 303].map(|piv| subject.leaf(&salt(piv), piv, &PAYLOAD));
    assert_eq!(leaves[0].0[..], value("V9", "leaf"));
    assert_eq!(root(&leaves).0[..], value("V10", "root"));
    let statement =
        Statement { subject, number: 1, first_piv: 300, bitmap: &[0x0B], root: root(&leaves), previous: Hash([0; 32]) };
    let n = statement.emit(&mut out).unwrap();
    assert_eq!(out[..n], value("V10", "statement"));
    assert_eq!(Statement::parse(&out[..n]), Ok(statement));
}

#[test]
fn v11_the_pre_shared_secret_is_mixed_in() {
    let key: [u8; 32] = hkdf_expand(&counting(0x60), &[b"e5-pqmix-v1", &DID.0]);
    assert_eq!(hmac_sha256(&key, &[&counting::<32>(0)])[..], value("V11", "mix"));
}

#[test]
fn v12_a_reading_of_e1_alone() {
    let piv = PartialIv::from_value(300);
    for (key, length, kid) in [("tiny", KidLength::None, None), ("tiny_with_kid", KidLength::Two, Some(SID))] {
        let bytes = value("V12", key);
        let Ok(Tiny::Plain { piv: read, kid: who, payload }) = Tiny::parse(&bytes, length) else { panic!("{key}") };
        assert_eq!((read, who, payload), (piv, kid, &PAYLOAD[..]));
        let mut out = [0; 32];
        let n = Tiny::Plain { piv, kid: who, payload: &PAYLOAD }.emit(&mut out).unwrap();
        assert_eq!(out[..n], bytes);
    }
}

#[test]
fn v13_a_policy_record_and_its_digest() {
    let policy = Policy::new(Profile::ToBoth);
    let mut out = [0; Policy::LONGEST];
    let n = policy.emit(&mut out).unwrap();
    assert_eq!(out[..n], value("V13", "record"));
    assert_eq!(policy.digest8(KeyIndexes { sending: 1, receiving: None })[..], value("V13", "digest"));
}

fn node() -> Originator<'static> {
    Originator::Node { net: Net(7), sid: SID }
}

fn envelopes(message: &[u8]) -> [Envelope<'_>; 2] {
    let sealed = Envelope {
        seq: 5,
        received: Millis(1_790_000_000_123),
        kind: Kind::CloudTiny,
        bytes: message,
        originator: node(),
        rssi: Some(-71),
        lqi: Some(200),
        opened: None,
        link: LinkClass::MacCcm,
        hops: Some(3),
        key_index: Some(1),
    };
    let plain = Envelope {
        seq: 6,
        received: Millis(1_790_000_000_456),
        kind: Kind::DangerPlain,
        bytes: &PAYLOAD,
        rssi: None,
        lqi: None,
        opened: Some(Opened { kid: SID, piv: 300, bctx: None, epoch: Epoch(0) }),
        hops: None,
        ..sealed
    };
    [sealed, plain]
}

#[test]
fn v14_two_envelopes() {
    let message = value("V1", "oscore");
    for (envelope, key) in envelopes(&message).iter().zip(["cloud", "plain"]) {
        let expected = value("V14", key);
        let mut out = [0; 200];
        let n = envelope.emit(&mut out).unwrap();
        assert_eq!(out[..n], expected);
        assert_eq!(Envelope::parse(&expected), Ok(*envelope));
    }
}

struct TestKey(Vec<u8>);

impl Verify for TestKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }
    fn key_name(&self) -> KeyName {
        KeyName([0x70, 0x6D, 0x34, 0x20, 0xEC, 0x3E, 0x1F, 0x36])
    }
    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0)
            .verify(&message.concat(), signature)
            .map_err(|_| SignatureRefused)
    }
}

#[test]
fn v15_the_receipt_over_them() {
    let message = value("V1", "oscore");
    let mut tally = Tally::new(GatewayId(0xA1), GatewayBoot([1, 2, 3, 4, 5, 6, 7, 8]));
    for (envelope, key) in envelopes(&message).iter().zip(["cloud", "plain"]) {
        tally.add(&value("V14", key), envelope);
    }
    let receipt = tally.receipt();
    assert_eq!(receipt.root.0[..], value("V15", "root"));
    let mut out = [0; 100];
    let n = receipt.emit(&mut out).unwrap();
    assert_eq!(out[..n], value("V15", "receipt"));
    let cose = value("V15", "cose_sign1");
    let signed = Sign1::parse(&cose).unwrap();
    assert_eq!(ToBeSigned::new(signed.header, CONTEXT, &out[..n]).parts().concat(), value("V15", "to_be_signed"));
    let public = hex::decode(concat!(
        "04ef4f74c234ddac822105cc94f7f6d2e080d4c2dec2288b7641edb5f9bb1c93b5",
        "1d29b8eb8395f9b53d3fc28b737704d42124df4fc97e36be9bb15c04468cd1e7"
    ));
    assert_eq!(Receipt::open(&cose, &TestKey(public.unwrap())), Ok(receipt));
}

#[test]
fn v16_the_state_of_a_gateway() {
    let devices = [Device { sid: SID, did: DID, policy: Policy::new(Profile::ToBoth), overrides: Overrides::NONE }];
    let (ms2, salt2): ([u8; 32], [u8; 8]) = (counting(0x20), [0x9E, 0x7C, 0xA9, 0x22, 0x23, 0x78, 0x63, 0x40]);
    let device_key = value("V4", "sender_key");
    let common_iv = hex::decode("3e632a2caca976bed7fa61731a").unwrap().try_into().unwrap();
    let primary = Context {
        sid: SID,
        epoch: Epoch(5),
        alg: Alg::AesCcm16_64_256,
        standing: Standing::Active,
        bctx: None,
        share: Share::Primary { master_secret: &ms2, master_salt: &salt2 },
    };
    let secondary = Context {
        epoch: Epoch(6),
        standing: Standing::Pending,
        share: Share::Secondary { device_key: &device_key, common_iv: &common_iv },
        ..primary
    };
    let contexts = [primary, secondary];
    let key = counting(0xC0);
    let keys = [NetworkKey { index: 1, key: &key, phase: Phase::Switch }];
    let revoked = [Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 2])];
    let serials = [Serial(&[0x4A; 16])];
    let state = State {
        version: 12,
        net: Net(7),
        group: GatewayGroup(1),
        part: Part::WHOLE,
        devices: List::of(&devices),
        contexts: List::of(&contexts),
        keys: List::of(&keys),
        revoked: List::of(&revoked),
        revoked_serials: List::of(&serials),
        local: List::default(),
        classic: List::default(),
    };
    let expected = value("V16", "state");
    let mut out = [0; 400];
    let n = state.emit(&mut out).unwrap();
    assert_eq!(hex::encode(&out[..n]), hex::encode(&expected));
    assert_eq!(State::parse(&expected), Ok(state));
}

#[test]
fn v19_the_state_of_a_gateway_that_agrees_keys_alone() {
    let policy = Policy { pq_mix: false, ..Policy::new(Profile::ToGateway) };
    let devices = [Device { sid: SID, did: DID, policy, overrides: Overrides::NONE }];
    let credential = value("V18", "credential_device");
    let x = PublicX(credential[credential.len() - 32..].try_into().unwrap());
    let (key, local) = (counting(0xC0), [LocalKey { sid: SID, x }]);
    let keys = [NetworkKey { index: 1, key: &key, phase: Phase::Switch }];
    let state = State {
        version: 3,
        net: Net(7),
        group: GatewayGroup(1),
        part: Part::WHOLE,
        devices: List::of(&devices),
        contexts: List::default(),
        keys: List::of(&keys),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::of(&local),
        classic: List::default(),
    };
    let expected = value("V20", "state");
    let mut out = [0; 200];
    let n = state.emit(&mut out).unwrap();
    assert_eq!(hex::encode(&out[..n]), hex::encode(&expected));
    assert_eq!(State::parse(&expected), Ok(state.clone()));
    // Where nobody agrees keys here, item 10 is left out and not empty.
    let (before, list) = expected.split_at(expected.len() - 39);
    assert_eq!(list[..2], [0x81, 0x82]);
    assert!(State::parse(&[before, &[0x80]].concat()).is_err());
    let mut without = before[..before.len() - 1].to_vec();
    without[0] = 0xA9;
    assert_eq!(State::parse(&without), Ok(State { local: List::default(), ..state }));
}

#[test]
fn v17_the_reply_to_the_batch() {
    let answer = hex::decode("514400002c90ffbf7d614f50a9a7d2ad").unwrap();
    let refused = [Refusal { seq: 6, code: Code::CloudLevelMissing }];
    let downlinks = [Downlink {
        kind: DownlinkKind::Answer,
        originator: Some(node()),
        bytes: &answer,
        seq: Some(5),
        expires: Some(Millis(1_790_000_247_000)),
    }];
    let reply = Reply { durable_upto: 6, refused: List::of(&refused), downlinks: List::of(&downlinks) };
    let expected = value("V17", "reply");
    let mut out = [0; 200];
    let n = reply.emit(&mut out).unwrap();
    assert_eq!(out[..n], expected);
    assert_eq!(Reply::parse(&expected), Ok(reply));
}
