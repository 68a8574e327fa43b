//! Policy record, control maps, envelopes, gateway state and payloads: what they take, what they refuse, and that no bytes
//! make them panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::error::{Code, SealError};
use fivefold_core::id::{BootContext, Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::profile::{
    InvalidPolicy, KeyIndexes, KidLength, LinkClass, Mode, Overrides, Policy, Profile, Radio, Sign,
};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::proof::statement::Statement;
use fivefold_core::proof::{KeyName, Sign as _, Sign1, SignAlg, SignError, Signature, SignatureRefused, Verify};
use fivefold_core::reading::{
    BaseName, Definition, Fields, Item as PayloadItem, Number, Pack, Payload, Reading, Template, Value,
    template::Column,
};
use fivefold_core::suite::{Alg, sha256};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::control::{
    self, Batch as BatchItem, BatchState, Command, CommandResult, Earlier, LinkKey, Received,
};
use fivefold_core::wire::envelope::{
    self, Batch, Downlink, DownlinkKind, Envelope, Item, Kind, Opened, Originator, Refusal, Reply,
};
use fivefold_core::wire::state::{
    Admission, Context, Device, Known, NetworkKey, Part, PartHash, Phase, Serial, Share, Standing, State, admit,
};
use proptest::prelude::*;

// --- Policy ----------------------------------------------------------------------------------------------------------

#[test]
fn a_policy_record_is_read_as_it_was_written() {
    let mut out = [0; Policy::LONGEST];
    for profile in Profile::ALL {
        for radio in Radio::ALL {
            let policy = Policy {
                alg: Alg::AesCcm16_64_128,
                mode: Mode::Random,
                kid_length: KidLength::Two,
                ack_every: 255,
                sign: Sign::Batch,
                batch: 64,
                pq_mix: false,
                radio,
                renew_days: 90,
                ..Policy::new(profile)
            };
            let n = policy.emit(&mut out).unwrap();
            assert_eq!(Policy::parse(&out[..n]), Ok(policy));
        }
    }
}

#[test]
fn a_policy_record_with_anything_missing_unknown_or_more_is_refused() {
    let mut out = [0; Policy::LONGEST + 1];
    let n = Policy::new(Profile::ToCloud).emit(&mut out).unwrap();
    assert_eq!(hex::encode(&out[..n]), "aa010d020b03000400050106000718200 8f50901 0a181e".replace(' ', ""));
    for len in 0..n {
        assert!(Policy::parse(&out[..len]).is_err());
    }
    assert!(Policy::parse(&out[..=n]).is_err());
    for (at, value) in [(0, 0xA9), (1, 2), (2, 0x0C), (4, 9), (6, 2), (8, 1), (12, 2), (18, 0)] {
        let mut other = out[..n].to_vec();
        other[at] = value;
        assert!(Policy::parse(&other).is_err(), "byte {at}");
    }
}

#[test]
fn a_policy_that_protects_too_little_needs_its_override() {
    let link_only = Overrides { danger_link_only: true, ..Overrides::NONE };
    let no_link = Overrides { danger_no_link: true, ..Overrides::NONE };
    let both = Overrides { danger_link_only: true, danger_no_link: true };
    let with = |profile, radio| Policy { radio, ..Policy::new(profile) };
    for profile in [Profile::ToGateway, Profile::ToCloud, Profile::ToBoth] {
        assert_eq!(Policy::new(profile).validate(Overrides::NONE), Ok(()));
        assert_eq!(with(profile, Radio::Ieee802154Mic32).validate(Overrides::NONE), Ok(()));
        for radio in [Radio::Ip, Radio::XbeeEe] {
            assert!(with(profile, radio).validate(link_only).is_err());
            assert_eq!(with(profile, radio).validate(no_link), Ok(()));
        }
    }
    let alone = Policy::new(Profile::DangerLinkOnly);
    assert!(alone.validate(no_link).is_err());
    assert_eq!(alone.validate(link_only), Ok(()));
    for radio in [Radio::Ieee802154Mic32, Radio::Digimesh, Radio::Ip, Radio::XbeeEe] {
        assert!(with(Profile::DangerLinkOnly, radio).validate(both).is_err(), "{radio}");
    }
    assert!(Policy { sign: Sign::Batch, ..alone }.validate(both).is_err());
    let cloud = Policy::new(Profile::ToCloud);
    for broken in [
        Policy { ack_every: 0, ..cloud },
        Policy { batch: 0, ..cloud },
        Policy { batch: 65, ..cloud },
        Policy { renew_days: 0, ..cloud },
        Policy { renew_days: 91, ..cloud },
    ] {
        assert!(matches!(broken.validate(both), Err(InvalidPolicy { .. })));
    }
}

#[test]
fn the_digest_of_what_a_node_runs_covers_record_and_key_indexes() {
    let policy = Policy::new(Profile::ToBoth);
    let indexes = KeyIndexes { sending: 1, receiving: None };
    let digest = policy.digest8(indexes);
    let cbor = hex::decode("aa010f020b030004000501060007182008f509010a181e8201f6").unwrap();
    assert_eq!(digest, sha256(&[&cbor])[..8]);
    assert_ne!(digest, policy.digest8(KeyIndexes { sending: 1, receiving: Some(2) }));
    assert_ne!(digest, Policy { ack_every: 2, ..policy }.digest8(indexes));
}

#[test]
fn words_of_a_configuration_are_read_as_they_are_written() {
    for profile in Profile::ALL {
        assert_eq!(profile.as_str().parse(), Ok(profile));
        assert_eq!(Profile::from_levels(profile.levels()), Some(profile));
    }
    for radio in Radio::ALL {
        assert_eq!(radio.to_string().parse(), Ok(radio));
    }
    for class in LinkClass::ALL {
        assert_eq!(class.to_string().parse(), Ok(class));
        assert_eq!(LinkClass::from_wire(class.wire()), Some(class));
    }
    assert!("e1+e4".parse::<Profile>().is_err() && "r".parse::<Mode>().is_err());
    assert!(!LinkClass::None.is_e1() && !LinkClass::XbeeEe.is_e1() && LinkClass::Lorawan.is_e1());
}

// --- Control maps ----------------------------------------------------------------------------------------------------

#[test]
fn an_uplink_control_map_is_read_as_it_was_written() {
    let results = [
        CommandResult { id: 7, status: 0, value: None },
        CommandResult { id: 8, status: 3, value: Some(&[0x82, 1, 2]) },
    ];
    let map = control::Uplink {
        batch: Some(BatchItem::Signature { number: 1, first_piv: 300, bitmap: &[0x0B], signature: &[9; 64] }),
        results: List::of(&results),
        status: Some(control::Status { boots: 3, uptime_s: 86_400, reset_cause: 1, millivolts: 3300, flags: 1 }),
        config_version: Some(2),
        key_indexes: Some(KeyIndexes { sending: 1, receiving: Some(2) }),
        leaves: Some(control::Leaves { number: 1, first_index: 0, hashes: &[5; 64] }),
        digest: Some([1; 8]),
    };
    let mut out = [0; 300];
    let n = map.emit(&mut out).unwrap();
    let parsed = control::Uplink::parse(&out[..n]).unwrap();
    assert_eq!(parsed, map);
    assert_eq!(parsed.leaves.unwrap().iter().count(), 2);
    let mut again = [0; 300];
    assert_eq!(parsed.emit(&mut again).map(|m| again[..m].to_vec()), Ok(out[..n].to_vec()));
    assert_eq!(map.emit(&mut [0; 20]), Err(SealError::BufferTooSmall));
}

#[test]
fn a_downlink_control_map_is_read_as_it_was_written() {
    let commands = [
        Command { id: 4, op: 1, arguments: &[] },
        Command { id: 5, op: 2, arguments: &[0x18, 0x64, 0x61, b'x', 0xF6] },
    ];
    let map = control::Downlink {
        received: Some(Received { base_piv: 300, bitmap: &[0b1011] }),
        commands: List::of(&commands),
        config: Some(control::ConfigChunk { version: 2, index: 0, count: 3, bytes: b"abc" }),
        batch: Some(BatchState::SignAgain { number: 1, bitmap: &[3] }),
        time: Some(control::Time { unix_s: 1_790_000_000, accuracy_s: 2 }),
        renew: Some(1),
        link_key: Some(LinkKey { index: 2, key: Some(&[7; 16]), phase: Phase::Distribute }),
        poll_again_s: Some(60),
        group: Some(GatewayGroup(0x0102_0304)),
        earlier: Some(Earlier { epoch: Epoch(4), received: Received { base_piv: 700, bitmap: &[1, 2] } }),
    };
    let mut out = [0; 200];
    let n = map.emit(&mut out).unwrap();
    assert_eq!(control::Downlink::parse(&out[..n]), Ok(map));
    assert!(!format!("{:?}", control::Downlink::parse(&out[..n]).unwrap()).contains("[7, 7"), "a key is printed");
}

#[test]
fn item_one_covers_what_came_and_nothing_else() {
    let mut bitmap = [0; 8];
    let some = Received::of_last(300, 0b1_0000_0001_0000_0011, &mut bitmap).unwrap();
    let covered: Vec<u64> = (200..400).filter(|n| some.covers(*n)).collect();
    assert_eq!(covered, [284, 292, 299, 300]);
    let all = Received::of_last(63, u64::MAX, &mut bitmap).unwrap();
    assert_eq!((all.base_piv, all.bitmap.len()), (0, 8));
    assert!((0..64).all(|n| all.covers(n)) && !all.covers(64));
    assert_eq!(Received::of_last(5, 0, &mut bitmap), None);
    assert_eq!(Received::of_last(5, 1 << 9, &mut bitmap), None, "no number is below 0");
}

#[test]
fn an_acknowledgement_covers_what_its_bits_say() {
    let received = Received { base_piv: 300, bitmap: &[0b1011, 1] };
    let covered: Vec<_> = (290..330).filter(|piv| received.covers(*piv)).collect();
    assert_eq!(covered, [300, 301, 303, 308]);
    assert!(!received.covers(u64::MAX));
}

#[test]
fn item_ten_speaks_of_one_older_epoch() {
    let earlier = Earlier { epoch: Epoch(4), received: Received { base_piv: 300, bitmap: &[0b101] } };
    let mut out = [0; 20];
    let n = control::Downlink { earlier: Some(earlier), ..control::Downlink::default() }.emit(&mut out).unwrap();
    assert_eq!(hex::encode(&out[..n]), "a10a830419012c4105");
    assert_eq!(control::Downlink::parse(&out[..n]).unwrap().earlier, Some(earlier));
    assert!(earlier.covers(Epoch(4), 300) && earlier.covers(Epoch(4), 302));
    assert!(!earlier.covers(Epoch(4), 301) && !earlier.covers(Epoch(5), 300));
}

#[test]
fn control_maps_with_other_keys_or_shapes_are_refused() {
    for uplink in [
        "a0ff",
        "a10800",
        "a100f6",
        "a2040104 01",
        "a2 0701 0401",
        "bf0401ff",
        "a104 1801",
        "a1051a0100",
        "a10582 00f6",
        "a105 8201 18ff",
        "a106830100 40",
        "a106830100 581f 00",
        "a1028103",
        "a1 0747 01020304050607",
        "8104",
        "a1018401 0040 5840",
        "a101 8401 02 02 41 00",
        "a10384 01020304",
        "a1038501 02 03 1a00010000 00",
    ] {
        let bytes = hex::decode(uplink.replace(' ', "")).unwrap();
        assert!(control::Uplink::parse(&bytes).is_err(), "{uplink}");
    }
    for downlink in [
        "a10a00",
        "a1018201 40",
        "a101820149 000000000000000000",
        "a1028101",
        "a10281 8101",
        "a1038401020243aabbcc",
        "a104820101",
        "a10483010041ff",
        "a104820103",
        "a107830150",
        "a107830100 01",
        "a1078301f601",
        "a10783 00f602",
        "a107830 1f604",
        "a10943010203",
        "a20800 0800",
        "a10a8201 4101",
        "a10a830100 40",
        "a10a830000 4101",
        "a10a831a0001000000 4101",
    ] {
        let bytes = hex::decode(downlink.replace(' ', "")).unwrap();
        assert!(control::Downlink::parse(&bytes).is_err(), "{downlink}");
    }
    assert_eq!(control::Uplink::parse(&[0xA0]), Ok(control::Uplink::default()));
    assert_eq!(control::STORED, hex::decode("a1016673746f726564").unwrap()[..]);
}

// --- Envelopes -------------------------------------------------------------------------------------------------------

fn envelope(seq: u64) -> Envelope<'static> {
    Envelope {
        seq,
        received: Millis(1_790_000_000_123 + seq),
        kind: Kind::CloudTiny,
        bytes: &[0x50, 2, 1, 0x2C, 0x95, 1, 0x2C, 0x0A, 0x17, 0xFF, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        originator: Originator::Node { net: Net(7), sid: Sid(0x0a17) },
        rssi: Some(-71),
        lqi: Some(200),
        opened: None,
        link: LinkClass::MacCcm,
        hops: Some(3),
        key_index: Some(1),
    }
}

#[test]
fn an_envelope_has_the_bytes_of_the_specification() {
    let mut out = [0; 200];
    let n = envelope(5).emit(&mut out).unwrap();
    assert_eq!(
        hex::encode(&out[..n]),
        concat!(
            "aa",
            "0105",
            "021b000001a0c499ba80",
            "0301",
            "0453",
            "5002012c95012c0a17ff010203040506070809",
            "0546",
            "000000070a17",
            "063846",
            "0718c8",
            "0901",
            "0a03",
            "0b01"
        )
        .replace("1b000001a0c499ba80", &format!("1b{:016x}", 1_790_000_000_128u64))
    );
    assert_eq!(Envelope::parse(&out[..n]), Ok(envelope(5)));
    assert!(Envelope::parse(&out[..=n]).is_err());
}

#[test]
fn an_envelope_that_lacks_what_its_kind_needs_is_refused() {
    let opened = Opened { kid: Sid(0x0a17), piv: 300, bctx: None, epoch: Epoch(0) };
    let mut out = [0; 200];
    let mut judge = |e: Envelope<'_>| {
        let n = e.emit(&mut out).unwrap();
        Envelope::parse(&out[..n]).is_ok()
    };
    for kind in Kind::ALL {
        assert_eq!(Kind::from_wire(kind.wire()), Some(kind));
        let needs = matches!(kind, Kind::GatewayOpened | Kind::DangerPlain);
        assert_eq!(judge(Envelope { kind, ..envelope(1) }), !needs, "{kind:?}");
        assert!(judge(Envelope { kind, opened: Some(opened), ..envelope(1) }), "{kind:?}");
    }
    let with_epoch = Opened { epoch: Epoch(1), ..opened };
    assert!(!judge(Envelope { kind: Kind::DangerPlain, opened: Some(with_epoch), ..envelope(1) }));
    assert!(judge(Envelope { kind: Kind::GatewayOpened, opened: Some(with_epoch), ..envelope(1) }));
    let with_boot = Opened { bctx: Some(BootContext([1; 8])), ..opened };
    assert!(judge(Envelope { kind: Kind::CloudTiny, opened: Some(with_boot), ..envelope(1) }));
    assert!(judge(Envelope { kind: Kind::Classic, originator: Originator::Classic("node-17"), ..envelope(1) }));
    assert!(!judge(Envelope { key_index: Some(0), ..envelope(1) }));
    assert!(Kind::from_wire(0).is_none() && Kind::from_wire(9).is_none());
}

struct NoKey;

impl fivefold_core::proof::Sign for NoKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }
    fn key_name(&self) -> KeyName {
        KeyName([8; 8])
    }
    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let hash = sha256(message);
        let mut both = [0; 64];
        both[..32].copy_from_slice(&hash);
        both[32..].copy_from_slice(&hash);
        Ok(Signature(both))
    }
}

/// A stand-in for a signature: it shows who checks what, not that it is safe.
impl Verify for NoKey {
    fn alg(&self) -> SignAlg {
        SignAlg::Esp256
    }
    fn key_name(&self) -> KeyName {
        KeyName([8; 8])
    }
    fn verify(&self, message: &[&[u8]], signature: &[u8]) -> Result<(), SignatureRefused> {
        if NoKey.sign(message).unwrap().0 == *signature { Ok(()) } else { Err(SignatureRefused) }
    }
}

fn batch(envelopes: u64) -> Vec<u8> {
    let mut body = Vec::new();
    let mut tally = Tally::new(GatewayId(1), GatewayBoot([2; 8]));
    let mut out = [0; 200];
    for seq in 1..=envelopes {
        let n = envelope(seq).emit(&mut out).unwrap();
        tally.add(&out[..n], &envelope(seq));
        body.extend_from_slice(&out[..n]);
    }
    let mut signed = [0; Receipt::LONGEST];
    let n = tally.receipt().seal(&NoKey, &mut signed).unwrap();
    body.extend_from_slice(&signed[..n]);
    body
}

/// As the cloud does: everything parsed, then the receipt opened and compared.
fn take(body: &[u8]) -> Result<u64, &'static str> {
    let mut tally = Tally::new(GatewayId(1), GatewayBoot([2; 8]));
    for item in Batch::new(body).map_err(|e| e.reason)? {
        match item.map_err(|e| e.reason)? {
            Item::Envelope(bytes, envelope) => tally.add(bytes, &envelope),
            Item::Receipt(bytes) => {
                let receipt = Receipt::open(bytes, &NoKey).map_err(|e| e.reason)?;
                return if receipt == tally.receipt() { Ok(receipt.count) } else { Err("does not fit") };
            }
        }
    }
    Err("no receipt")
}

#[test]
fn a_batch_is_taken_only_with_the_receipt_that_fits_it() {
    assert_eq!(take(&batch(3)), Ok(3));
    assert_eq!(take(&batch(0)), Ok(0));
    let body = batch(3);
    let mut out = [0; 200];
    let one = envelope(1).emit(&mut out).unwrap();
    assert_eq!(take(&body[one..]), Err("does not fit"));
    assert_eq!(take(&[&body[..], &out[..one]].concat()), Err("batch: something follows the receipt"));
    assert_eq!(take(&body[..3 * one]), Err("batch: the receipt is missing"));
    for at in 0..body.len() {
        for bit in 0..8 {
            let mut other = body.clone();
            other[at] ^= 1 << bit;
            assert!(take(&other).is_err(), "bit {bit} of byte {at}");
        }
    }
    for len in 0..body.len() {
        assert!(take(&body[..len]).is_err());
    }
}

#[test]
fn a_batch_larger_than_its_limits_is_refused() {
    assert_eq!(take(&batch(1000)), Ok(1000));
    assert_eq!(take(&batch(1001)), Err("batch: more than 1000 envelopes"));
    assert!(Batch::new(&vec![0; envelope::BYTES + 1]).is_err());
    let broken = [0xA0; 10];
    assert_eq!(Batch::new(&broken).unwrap().count(), 1, "after an error nothing more comes");
}

#[test]
fn a_receipt_under_another_name_or_context_is_refused_as_ev_01() {
    let receipt = Tally::new(GatewayId(1), GatewayBoot([2; 8])).receipt();
    let mut signed = [0; Receipt::LONGEST];
    let n = receipt.seal(&NoKey, &mut signed).unwrap();
    assert_eq!(Receipt::open(&signed[..n], &NoKey), Ok(receipt));
    assert_eq!(receipt.root, Hash::of_nothing());
    let mut payload = [0; 100];
    let m = receipt.emit(&mut payload).unwrap();
    let n = Sign1::seal(&NoKey, b"iotsec-batch-v1", &payload[..m], &mut signed).unwrap();
    assert_eq!(Receipt::open(&signed[..n], &NoKey).unwrap_err().code, Code::EvidenceSignature);
}

#[test]
fn a_reply_and_its_downlinks_are_read_as_they_were_written() {
    let refused = [Refusal { seq: 4, code: Code::CloudForged }, Refusal { seq: 6, code: Code::ChannelWrongNet }];
    let downlinks = [
        Downlink {
            kind: DownlinkKind::Answer,
            originator: Some(Originator::Node { net: Net(7), sid: Sid(0x0a17) }),
            bytes: &[0x50, 0x44, 0, 0],
            seq: Some(5),
            expires: Some(Millis(1_790_000_000_000)),
        },
        Downlink { kind: DownlinkKind::State, originator: None, bytes: &[0xA0], seq: None, expires: None },
        Downlink {
            kind: DownlinkKind::KeyMessage,
            originator: Some(Originator::Classic("8a7384477876150c")),
            bytes: &[0xE5; 40],
            seq: Some(8),
            expires: None,
        },
    ];
    let reply = Reply { durable_upto: 9, refused: List::of(&refused), downlinks: List::of(&downlinks) };
    let mut out = [0; 200];
    let n = reply.emit(&mut out).unwrap();
    assert_eq!(Reply::parse(&out[..n]), Ok(reply));
    let empty = Reply { durable_upto: 9, refused: List::default(), downlinks: List::default() };
    assert_eq!(empty.emit(&mut out), Ok(3));
    assert_eq!(out[..3], [0xA1, 1, 9]);
    let n = envelope::emit_downlinks(&downlinks, &mut out).unwrap();
    assert!(envelope::parse_downlinks(&out[..n]).unwrap().iter().eq(downlinks));
    let mut nameless = [0; 40];
    let n = Downlink { originator: None, ..downlinks[0] }.emit(&mut nameless).unwrap();
    assert!(Downlink::parse(&nameless[..n]).is_err());
}

// --- Gateway state ---------------------------------------------------------------------------------------------------

fn device(sid: u16) -> Device {
    Device {
        sid: Sid(sid),
        did: Did([0xAC, 0xDE, 0x48, 0, 0, 0, (sid >> 8) as u8, sid as u8]),
        policy: Policy::new(Profile::ToBoth),
        overrides: Overrides::NONE,
    }
}

const MASTER: [u8; 32] = [0x42; 32];

fn context(sid: u16) -> Context<'static> {
    Context {
        sid: Sid(sid),
        epoch: Epoch(1),
        alg: Alg::AesCcm16_64_256,
        standing: Standing::Active,
        bctx: None,
        share: Share::Primary { master_secret: &MASTER, master_salt: &[3; 8] },
    }
}

fn emitted(state: &State<'_>) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let n = state.emit(&mut out).unwrap();
    out.truncate(n);
    out
}

#[test]
fn a_gateway_state_is_read_as_it_was_written_and_prints_no_key() {
    let secondary = Context {
        epoch: Epoch(2),
        alg: Alg::AesCcm16_64_128,
        standing: Standing::Pending,
        bctx: Some(BootContext([9; 8])),
        share: Share::Secondary { device_key: &[5; 16], common_iv: &[6; 13] },
        ..context(1)
    };
    let (devices, contexts) = ([device(1), device(2)], [context(1), secondary, context(2)]);
    let keys = [
        NetworkKey { index: 1, key: &[1; 16], phase: Phase::Switch },
        NetworkKey { index: 2, key: &[2; 16], phase: Phase::Distribute },
        NetworkKey { index: 3, key: &[3; 16], phase: Phase::Retire },
        NetworkKey { index: 4, key: &[4; 16], phase: Phase::Keep },
    ];
    let revoked = [Did([1; 8])];
    let serials = [Serial(&[0x4A]), Serial(&[0x4A; 20])];
    let state = State {
        version: 12,
        net: Net(7),
        group: GatewayGroup(1),
        part: Part { index: 1, count: 3 },
        devices: List::of(&devices),
        contexts: List::of(&contexts),
        keys: List::of(&keys),
        revoked: List::of(&revoked),
        revoked_serials: List::of(&serials),
        local: List::default(),
        classic: List::default(),
    };
    let bytes = emitted(&state);
    let parsed = State::parse(&bytes).unwrap();
    assert_eq!(parsed, state);
    let printed = format!("{parsed:?}");
    assert!(!printed.contains("66, 66") && !printed.contains("[1, 1, 1, 1, 1, 1, 1, 1, 1"), "{printed}");
}

#[test]
fn what_is_longest_in_a_state_is_no_longer_than_said() {
    use fivefold_core::wire::cbor::{Element, Writer};
    let length = |emit: &dyn Fn(&mut Writer<'_>) -> Result<(), SealError>| {
        let mut out = [0; 200];
        let mut w = Writer::new(&mut out);
        emit(&mut w).unwrap();
        w.len()
    };
    let longest = Policy { ack_every: 255, batch: 64, renew_days: 90, ..Policy::new(Profile::ToBoth) };
    let device = Device { policy: longest, overrides: Overrides::from_bits(3).unwrap(), ..device(1) };
    assert_eq!(length(&|w| device.emit(w)), Device::LONGEST);
    let share = Share::Secondary { device_key: &[5; 32], common_iv: &[6; 13] };
    let context = Context { epoch: Epoch(u16::MAX), bctx: Some(BootContext([1; 8])), share, ..context(1) };
    assert_eq!(length(&|w| context.emit(w)), Context::LONGEST);
    let key = NetworkKey { index: 254, key: &[1; 16], phase: Phase::Retire };
    assert_eq!(length(&|w| key.emit(w)), NetworkKey::LONGEST);
}

#[test]
fn a_gateway_state_out_of_order_or_out_of_policy_is_refused() {
    let base = State {
        version: 1,
        net: Net(7),
        group: GatewayGroup(1),
        part: Part::WHOLE,
        devices: List::default(),
        contexts: List::default(),
        keys: List::default(),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::default(),
    };
    let refused = |state: State<'_>| State::parse(&emitted(&state)).is_err();
    assert!(!refused(base.clone()));
    let backwards = [device(2), device(1)];
    assert!(refused(State { devices: List::of(&backwards), ..base.clone() }));
    let twice = [device(1), device(1)];
    assert!(refused(State { devices: List::of(&twice), ..base.clone() }));
    let reserved = [device(0xE205)];
    assert!(refused(State { devices: List::of(&reserved), ..base.clone() }));
    let unsafe_device = [Device { policy: Policy::new(Profile::DangerLinkOnly), ..device(1) }];
    assert!(refused(State { devices: List::of(&unsafe_device), ..base.clone() }));
    let allowed = [Device { overrides: Overrides { danger_link_only: true, ..Overrides::NONE }, ..unsafe_device[0] }];
    assert!(!refused(State { devices: List::of(&allowed), ..base.clone() }));
    let short = [Context { share: Share::Secondary { device_key: &[5; 16], common_iv: &[6; 13] }, ..context(1) }];
    assert!(refused(State { contexts: List::of(&short), ..base.clone() }), "16 bytes under algorithm 11");
    let booted = [Context { bctx: Some(BootContext([1; 8])), ..context(1) }];
    assert!(refused(State { contexts: List::of(&booted), ..base.clone() }));
    let keys = [NetworkKey { index: 1, key: &[0xEE; 16], phase: Phase::Keep }];
    let mut bytes = emitted(&State { keys: List::of(&keys), ..base.clone() });
    let phase = bytes.iter().rposition(|b| *b == 0xEE).unwrap() + 1;
    for (number, is_one) in [(0, false), (1, true), (4, true), (5, false)] {
        bytes[phase] = number;
        assert_eq!(State::parse(&bytes).is_ok(), is_one, "phase {number}");
    }
    for serials in [&[Serial(&[2]), Serial(&[1])][..], &[Serial(&[])], &[Serial(&[1; 21])]] {
        assert!(refused(State { revoked_serials: List::of(serials), ..base.clone() }));
    }
    for part in [Part { index: 1, count: 1 }, Part { index: 0, count: 0 }, Part { index: 0, count: 4097 }] {
        assert!(refused(State { part, ..base.clone() }));
    }
}

#[test]
fn an_older_state_or_another_one_under_the_same_version_is_refused() {
    let hash = |n: u8| PartHash::of(&[n]);
    let two = |a: Option<u8>, b: Option<u8>| [a.map(hash), b.map(hash)];
    let part = |index| Part { index, count: 2 };
    let applied_parts = two(Some(1), Some(2));
    let applied = Some(Known { version: 10, parts: &applied_parts });
    let collecting_parts = two(Some(3), None);
    let collecting = Some(Known { version: 12, parts: &collecting_parts });
    let code = |r: Result<Admission, fivefold_core::error::Rejected>| r.map_err(|e| e.code);
    const REFUSED: Result<Admission, Code> = Err(Code::ChannelSequence);

    assert_eq!(code(admit(None, None, 0, part(0), hash(9))), Ok(Admission::Start));
    assert_eq!(code(admit(applied, None, 10, part(1), hash(2))), Ok(Admission::Repeat));
    assert_eq!(code(admit(applied, None, 10, part(1), hash(1))), REFUSED);
    assert_eq!(code(admit(applied, None, 10, Part::WHOLE, hash(1))), REFUSED);
    assert_eq!(code(admit(applied, None, 9, part(0), hash(1))), REFUSED);
    assert_eq!(code(admit(applied, None, 11, part(1), hash(1))), Ok(Admission::Start));
    assert_eq!(code(admit(applied, collecting, 12, part(1), hash(4))), Ok(Admission::Continue));
    assert_eq!(code(admit(applied, collecting, 12, part(0), hash(3))), Ok(Admission::Repeat));
    assert_eq!(code(admit(applied, collecting, 12, part(0), hash(4))), REFUSED);
    assert_eq!(code(admit(applied, collecting, 11, part(0), hash(4))), REFUSED);
    assert_eq!(code(admit(applied, collecting, 13, part(0), hash(4))), Ok(Admission::Start));
    assert_eq!(code(admit(applied, collecting, 12, Part { index: 1, count: 3 }, hash(4))), REFUSED);
}

// --- Payloads --------------------------------------------------------------------------------------------------------

#[test]
fn a_payload_is_a_sequence_of_packs_rows_and_maps_or_one_classic_frame() {
    let mut buffer = [0; 128];
    let mut reading = Reading::new(&mut buffer);
    reading.measure("temp", "Cel", 21.5f32).unwrap().measure("bat", "%EL", 87u8).unwrap();
    let pack = reading.finish().unwrap().to_vec();
    let mut row = [0; 64];
    let values = [Some(Value::Number(Number::Float(1.25))), None, Some(Value::Bool(true)), Some(Value::Text("x"))];
    let n = Template::emit(4, &values, &mut row).unwrap();
    let payload = [&pack[..], &row[..n], &[0xA1, 4, 2]].concat();
    let Payload::Sequence(mut items) = Payload::parse(&payload).unwrap() else { panic!("classic") };
    let Some(PayloadItem::Senml(senml)) = items.next() else { panic!("no pack") };
    let records: Vec<_> = senml.records().map(|r| (r.name, r.unit, r.value.unwrap().to_string())).collect();
    assert_eq!(records, [("temp", Some("Cel"), "21.5".into()), ("bat", Some("%EL"), "87".into())]);
    let Some(PayloadItem::Template(template)) = items.next() else { panic!("no row") };
    assert_eq!((template.id(), template.values().collect::<Vec<_>>()), (4, values.to_vec()));
    let Some(PayloadItem::Control(map)) = items.next() else { panic!("no map") };
    assert_eq!(control::Uplink::parse(map).unwrap().config_version, Some(2));
    assert!(items.next().is_none());
    assert!(matches!(Payload::parse(b"<=>anything"), Ok(Payload::Classic(b"<=>anything"))));
    assert!(matches!(Payload::parse(b""), Ok(Payload::Sequence(items)) if items.clone().next().is_none()));
    for wrong in ["80", "8120", "01", "8101ff", "f6", "a1", "8140", "820180"] {
        assert!(Payload::parse(&hex::decode(wrong).unwrap()).is_err(), "{wrong}");
    }
}

#[test]
fn a_row_gets_its_names_and_units_from_its_definition() {
    let columns = [Column { name: "level", unit: Some("m") }, Column { name: "valve", unit: None }];
    let mut bytes = [0; 64];
    let n = Definition::emit(9, &columns, &mut bytes).unwrap();
    let definition = Definition::parse(&bytes[..n]).unwrap();
    assert_eq!(definition.hash(), sha256(&[&bytes[..n]]));
    let mut row = [0; 32];
    let m = Template::emit(9, &[None, Some(Value::Bool(false))], &mut row).unwrap();
    let resolved: Vec<_> = definition.resolve(&Template::parse(&row[..m]).unwrap()).unwrap().collect();
    assert_eq!(resolved, [(columns[1], Value::Bool(false))]);
    let m = Template::emit(9, &[None], &mut row).unwrap();
    assert!(definition.resolve(&Template::parse(&row[..m]).unwrap()).is_err());
}

#[test]
fn a_reading_that_does_not_fit_or_is_no_number_leaves_the_pack_as_it_was() {
    let mut buffer = [0; 24];
    let mut reading = Reading::new(&mut buffer);
    reading.measure("a", "Cel", 1).unwrap();
    assert_eq!(reading.measure("temperature", "Cel", 2).err(), Some(SealError::BufferTooSmall));
    assert_eq!(reading.measure("b", "Cel", f64::NAN).err(), Some(SealError::NotFinite));
    let pack = reading.finish().unwrap();
    assert_eq!(Pack::parse(pack, BaseName::Required).unwrap().records().count(), 1);
    let mut buffer = [0; 400];
    let mut reading = Reading::new(&mut buffer);
    for _ in 0..Reading::RECORDS {
        reading.measure("a", "Cel", 1).unwrap();
    }
    assert_eq!(reading.measure("a", "Cel", 1).err(), Some(SealError::TooLong));
    assert_eq!(Pack::parse(reading.finish().unwrap(), BaseName::Required).unwrap().records().count(), 23);
    assert!(Reading::new(&mut []).finish().is_err());
}

#[test]
fn base_value_and_base_sum_stand_in_where_a_record_has_none() {
    let records = [
        Fields {
            name: Some("a"),
            base_value: Some(Number::Integer(10)),
            base_sum: Some(Number::Float(0.5)),
            ..Fields::default()
        },
        Fields { name: Some("b"), value: Some(Value::Number(Number::Integer(1))), ..Fields::default() },
        Fields { name: Some("c"), value: Some(Value::Text("x")), sum: Some(Number::Integer(2)), ..Fields::default() },
    ];
    let mut out = [0; 100];
    let n = Pack::emit(&records, &mut out).unwrap();
    let resolved: Vec<_> = Pack::parse(&out[..n], BaseName::Required)
        .unwrap()
        .records()
        .map(|r| (r.value.unwrap().to_string(), r.sum.unwrap().as_f64()))
        .collect();
    assert_eq!(resolved, [("10".into(), 0.5), ("11".into(), 0.5), ("x".into(), 2.5)]);
}

#[test]
fn senml_rules_that_the_vectors_do_not_show_hold_too() {
    let parse = |hex_text: &str| {
        let bytes = hex::decode(hex_text.replace(' ', "")).unwrap();
        Pack::parse(&bytes, BaseName::Required).map(|p| p.records().count())
    };
    assert_eq!(parse("81a2 006161 02c4820 1 05".replace(' ', "").as_str()), Ok(1)); // 5 x 10^1
    assert!(parse("81a2 006161 02c48218 1e05").is_err()); // a decimal fraction beyond what is exact
    assert!(parse("81a2 006161 02c1 05").is_err()); // another tag
    assert!(parse("81a3 006161 0201 0201").is_err());
    assert!(parse("81a4 006161 0201 181e01 181e02").is_err()); // an unknown label twice
    assert_eq!(parse("81a3 006161 0201 181e01"), Ok(1));
    assert_eq!(parse("81a3 0201 006161 6378797a01"), Ok(1)); // any order, unknown text label
    assert!(parse("81a2 006161 016143").is_err()); // neither value nor sum
    assert!(parse("81a2 006120 0201").is_err()); // a blank in a name
    assert!(parse("81a2 00612d 0201").is_err()); // begins with a dash
    assert!(parse("82 a3 2005 006161 0201 a3 2006 006161 0201").is_err()); // versions differ
}

#[test]
fn a_name_and_a_unit_end_somewhere_and_so_does_a_payload() {
    let (name, unit) = ("n".repeat(128), "u".repeat(64));
    let one = Fields { value: Some(Value::Number(Number::Integer(1))), ..Fields::default() };
    let of = |records: &[Fields<'_>]| {
        let mut out = [0; 600];
        let n = Pack::emit(records, &mut out)?;
        Ok::<_, SealError>(Pack::parse(&out[..n], BaseName::Implied).is_ok() && Payload::parse(&out[..n]).is_ok())
    };
    assert_eq!(of(&[Fields { name: Some(&name), unit: Some(&unit), ..one }]), Ok(true));
    let with_base = |base, name| Fields { base_name: Some(base), name: Some(name), ..one };
    assert_eq!(of(&[with_base(&name[..100], &name[..28]), one]), Ok(true));
    assert_eq!(of(&[with_base(&name[..100], &name[..29])]), Ok(false), "together they are too long");
    assert_eq!(of(&[with_base(&name[..100], "a"), Fields { name: Some(&name[..29]), ..one }]), Ok(false));
    let (long, wide) = ("n".repeat(129), "u".repeat(65));
    let too_long = [
        Fields { name: Some(&long), ..one },
        Fields { base_name: Some(&long), ..one },
        Fields { unit: Some(&wide), ..one },
        Fields { base_unit: Some(&wide), ..one },
    ];
    for fields in too_long {
        assert_eq!(of(&[fields]), Err(SealError::TooLong), "a device makes no such record");
    }
    // Nor does it, record by record, behind a base name.
    let mut buffer = [0; 600];
    let mut reading = Reading::new(&mut buffer);
    reading.push(&with_base(&name[..100], "a")).unwrap();
    assert_eq!(reading.measure(&name[..29], "Cel", 1).err(), Some(SealError::TooLong));
    reading.measure(&name[..28], "Cel", 1).unwrap().push(&with_base("b", &name[..127])).unwrap();
    assert!(Payload::parse(reading.finish().unwrap()).is_ok());
    let text = |n: usize| [&b"\x81\xA2\x00\x61a\x03\x79"[..], &(n as u16).to_be_bytes(), &vec![b'x'; n]].concat();
    assert!(Payload::parse(&text(Payload::LONGEST - 8)).is_err(), "one byte too many");
    assert!(Payload::parse(&text(Payload::LONGEST - 9)).is_ok());
    assert!(Payload::parse(&vec![b'<'; Payload::LONGEST + 1]).is_err());
}

// --- Anything --------------------------------------------------------------------------------------------------------

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::parse(&bytes);
        let _ = control::Uplink::parse(&bytes);
        let _ = control::Downlink::parse(&bytes);
        let _ = Envelope::parse(&bytes);
        let _ = Downlink::parse(&bytes);
        let _ = Reply::parse(&bytes);
        let _ = State::parse(&bytes);
        let _ = Statement::parse(&bytes);
        let _ = Receipt::parse(&bytes);
        let _ = Sign1::parse(&bytes);
        let _ = Definition::parse(&bytes);
        let _ = Batch::new(&bytes).map(Iterator::count);
        if let Ok(Payload::Sequence(items)) = Payload::parse(&bytes) {
            for item in items {
                match item {
                    PayloadItem::Senml(pack) => { pack.records().count(); }
                    PayloadItem::Template(row) => assert_eq!(row.values().count(), row.len()),
                    PayloadItem::Control(map) => { let _ = control::Uplink::parse(map); }
                }
            }
        }
    }

    #[test]
    fn one_changed_byte_is_refused_or_read_as_what_it_then_says(at in 0usize..80, to: u8) {
        let mut out = [0; 200];
        let n = envelope(5).emit(&mut out).unwrap();
        out[at % n] = to;
        if let Ok(read) = Envelope::parse(&out[..n]) {
            let mut again = [0; 200];
            let m = read.emit(&mut again).unwrap();
            prop_assert_eq!(&again[..m], &out[..n]);
        }
    }

    #[test]
    fn an_envelope_is_read_as_it_was_written(
        seq: u64, rx: u64, kind in 0usize..8, bytes in proptest::collection::vec(any::<u8>(), 0..300), net: u32, sid: u16,
        rssi: Option<i16>, lqi: Option<u8>, piv: u64, bctx: Option<[u8; 8]>, hops: Option<u8>, index in 1u8..255,
    ) {
        let kind = Kind::ALL[kind];
        let bctx = bctx.filter(|_| kind != Kind::DangerPlain).map(BootContext);
        let e = Envelope {
            seq, received: Millis(rx), kind, bytes: &bytes, originator: Originator::Node { net: Net(net), sid: Sid(sid) },
            rssi, lqi, opened: Some(Opened { kid: Sid(sid), piv, bctx, epoch: Epoch(0) }), link: LinkClass::E1s, hops,
            key_index: Some(index),
        };
        let mut out = vec![0; bytes.len() + 100];
        let n = e.emit(&mut out).unwrap();
        prop_assert_eq!(Envelope::parse(&out[..n]).unwrap(), e);
    }

    #[test]
    fn a_record_is_read_as_it_was_written(v in proptest::num::f64::NORMAL | proptest::num::f64::ZERO, t: i64) {
        let fields = Fields {
            name: Some("a"), value: Some(Value::Number(Number::Float(v))), time: Some(Number::Integer(t)), ..Fields::default()
        };
        let mut out = [0; 64];
        let n = Pack::emit(&[fields], &mut out).unwrap();
        let record = Pack::parse(&out[..n], BaseName::Required).unwrap().records().next().unwrap();
        prop_assert_eq!(record.time, Number::Integer(t));
        let Some(Value::Number(read)) = record.value else { panic!("no number") };
        prop_assert_eq!(read.as_f64(), v);
    }

    #[test]
    fn a_tree_proves_every_leaf_and_every_beginning(size in 1usize..200, index: usize, old in 1usize..200) {
        use fivefold_core::proof::merkle::{prove_consistency, prove_inclusion, root, verify_consistency, verify_inclusion};
        let leaves: Vec<_> = (0..size as u32).map(|i| Hash::of_leaf([&i.to_be_bytes()])).collect();
        let whole = root(&leaves);
        let index = index % size;
        let proof = prove_inclusion(&leaves, index).unwrap();
        prop_assert!(verify_inclusion(&leaves[index], index as u64, size as u64, proof.as_slice(), &whole).is_ok());
        let old = old.min(size);
        let proof = prove_consistency(&leaves, old).unwrap();
        prop_assert!(verify_consistency(old as u64, &root(&leaves[..old]), size as u64, &whole, proof.as_slice()).is_ok());
    }
}
