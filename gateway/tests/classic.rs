//! Frames of classic devices at the gateway: each handed on once and as it came, opened where the key is here, and what is wrong
//! with it said beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_core::error::Code;
use fivefold_core::id::Sid;
use fivefold_core::profile::LinkClass;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::classic::{Carrier, Report};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use fivefold_core::wire::state::{ClassicDevice, ClassicFlags, State};
use fivefold_gateway::gateway::{Activation, Arrival, ClassicDone, Limits, OverLorawan, Setup};
use serde_json::Value;

/// A file of vectors.
fn vectors(name: &str) -> Value {
    let path = format!("{}/../vectors/waspmote/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn case<'v>(vectors: &'v Value, id: &str) -> &'v Value {
    vectors["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no case {id}"))
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(case[field].as_str().unwrap_or_else(|| panic!("no {field}"))).unwrap()
}

/// An entry of the book.
#[derive(Clone)]
struct Known {
    serial: String,
    sid: Sid,
    dev_eui: Option<[u8; 8]>,
    key: Option<Vec<u8>>,
}

fn known(serial: &str, sid: u16) -> Known {
    Known { serial: serial.into(), sid: Sid(sid), dev_eui: None, key: None }
}

/// As the serial of a vector is written in a book.
fn written(case: &Value) -> String {
    let serial = case["serial_hex"].as_str().unwrap();
    if serial.len() == 8 { u32::from_str_radix(serial, 16).unwrap().to_string() } else { serial.to_owned() }
}

fn book(version: u64, devices: &[Known]) -> Vec<u8> {
    let classic: Vec<_> = devices
        .iter()
        .map(|d| ClassicDevice {
            serial: &d.serial,
            sid: d.sid,
            flags: ClassicFlags::default(),
            dev_eui: d.dev_eui,
            key: d.key.as_deref(),
            hardened: List::default(),
        })
        .collect();
    emitted(&State { classic: List::of(&classic), ..bare_state(version) })
}

fn world(devices: &[Known]) -> World {
    let mut world = World::new();
    world.push(&book(1, devices)).unwrap();
    world
}

fn bring(world: &mut World, carrier: Carrier, source: Option<[u8; 8]>, frame: &[u8]) -> (ClassicDone, Heard) {
    let ticket = 7_000 + frame.len() as u64;
    world.gateway.handle_classic(world.now, ticket, Arrival { carrier, source, rssi: Some(-71), frame, lorawan: None });
    let mut heard = world.run();
    assert_eq!(heard.classic.len(), 1, "one answer for one frame");
    let (answered, done) = heard.classic.remove(0);
    assert_eq!(answered, ticket);
    (done, heard)
}

fn http(world: &mut World, frame: &[u8]) -> (ClassicDone, Heard) {
    bring(world, Carrier::Http, None, frame)
}

/// The last envelope in the spool.
fn last(world: &World, check: impl FnOnce(&Envelope<'_>, &Report<'_>)) {
    let stored = world.stored();
    let envelope = Envelope::parse(stored.last().expect("nothing is stored")).unwrap();
    assert_eq!(envelope.kind, Kind::Classic);
    check(&envelope, &Report::parse(envelope.bytes).unwrap());
}

#[test]
fn a_frame_from_before_api_v012_is_handed_on_under_the_serial_of_its_node() {
    let mut w = world(&[known("387264539", 0x0c02)]);
    // One field in the place of N, and the serial little-endian: BAT 80.
    let old = b"<=>\x00\x01\x1b\x30\x15\x17node1#\x07\x34\x50";
    assert_eq!(http(&mut w, old).0, ClassicDone::Stored);
    last(&w, |envelope, report| {
        assert_eq!(envelope.originator, Originator::Classic("387264539"));
        assert_eq!((report.frame, report.code), (&old[..], None));
    });
    // Another number of fields than it says is no frame of any age.
    let mut wrong = old.to_vec();
    wrong[4] = 2;
    let (done, _) = http(&mut w, &wrong);
    assert!(matches!(done, ClassicDone::Refused(rejected) if rejected.code == Code::ClassicMalformed), "{done:?}");
}

#[test]
fn every_frame_of_a_known_serial_is_stored_as_it_came_before_anybody_hears_so() {
    for file in ["plain-frames", "encrypted-frames", "sequence-and-timestamp"] {
        for case in vectors(file)["cases"].as_array().unwrap() {
            let (Some(_), Some(frame)) = (case["serial_hex"].as_str(), case["frame_hex"].as_str()) else { continue };
            let (id, frame, serial) = (&case["id"], hex::decode(frame).unwrap(), written(case));
            if fivefold_waspmote::Frame::parse(&frame).is_err() {
                continue;
            }
            let mut w = world(&[known(&serial, 0x0a17)]);
            w.gateway.handle_classic(
                w.now,
                3,
                Arrival { carrier: Carrier::Http, source: None, rssi: None, frame: &frame, lorawan: None },
            );
            // The write comes first; the word that it is durable only after the commit.
            let first = w.gateway.poll();
            assert!(matches!(first, Some(fivefold_gateway::gateway::Output::Persist(_))), "{id}: {first:?}");
            assert!(w.gateway.poll().is_none(), "{id}: said more before it was durable");
            let mut w = world(&[known(&serial, 0x0a17)]);
            assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored, "{id}");
            last(&w, |envelope, report| {
                assert_eq!(envelope.originator, Originator::Classic(&serial), "{id}");
                assert_eq!((report.frame, report.code, report.inner), (&*frame, None, None), "{id}");
                assert_eq!((report.carrier, envelope.rssi), (Carrier::Http, Some(-71)), "{id}");
            });
        }
    }
}

#[test]
fn what_is_sealed_for_the_gateway_is_opened_there_and_what_is_sealed_for_the_cloud_passes_unread() {
    let vectors = vectors("encrypted-frames");
    let (mut opened, mut passed) = (0, 0);
    for case in vectors["cases"].as_array().unwrap() {
        let (Some(key), Some(frame)) = (case["effective_key_hex"].as_str(), case["frame_hex"].as_str()) else {
            continue;
        };
        let (id, frame) = (&case["id"], hex::decode(frame).unwrap());
        let mut device = known(&written(case), 0x0a17);
        device.key = Some(hex::decode(key).unwrap());
        let mut w = world(&[device]);
        if !matches!(fivefold_waspmote::Frame::parse(&frame), Ok(fivefold_waspmote::Frame::Encrypted(_))) {
            continue;
        }
        assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored, "{id}");
        let is_for_cloud = matches!(frame[3], 0x64..=0x67);
        last(&w, |_, report| {
            assert_eq!((report.frame, report.code), (&*frame, None), "{id}");
            if is_for_cloud {
                assert_eq!(report.inner, None, "{id}");
            } else {
                assert_eq!(report.inner, Some(&*bytes(case, "inner_frame_hex")), "{id}");
            }
        });
        if is_for_cloud { passed += 1 } else { opened += 1 }
    }
    assert!(opened >= 12 && passed >= 12, "{opened} opened, {passed} passed");
}

#[test]
fn what_the_key_does_not_open_is_handed_on_with_its_code_and_counted() {
    let vectors = vectors("encrypted-frames");
    let case = case(&vectors, "v15-a-aes256-gateway");
    let mut device = known(&written(case), 0x0a17);
    device.key = Some(vec![9; 32]);
    let mut w = world(&[device]);
    let frame = bytes(case, "frame_hex");
    let (done, heard) = http(&mut w, &frame);
    assert_eq!((done, heard.dropped), (ClassicDone::Stored, vec![(Code::ClassicForged, Some(Sid(0x0a17)))]));
    last(&w, |_, report| {
        assert_eq!((report.frame, report.inner, report.code), (&*frame, None, Some(Code::ClassicForged)));
    });
    assert_eq!(w.gateway.tally().total(Code::ClassicForged), 1);
}

#[test]
fn a_frame_under_somebody_elses_serial_is_handed_on_as_foreign() {
    let vectors = vectors("attacks");
    let swap = case(&vectors, "outer-serial-swap");
    let mut device = known(swap["outer_serial_hex"].as_str().unwrap(), 0x0a17);
    let mut key = swap["key_ascii"].as_str().unwrap().as_bytes().to_vec();
    key.resize(swap["aes_bits"].as_u64().unwrap() as usize / 8, 0);
    device.key = Some(key);
    let mut w = world(&[device]);
    let (done, heard) = http(&mut w, &bytes(swap, "frame_hex"));
    assert_eq!((done, heard.dropped), (ClassicDone::Stored, vec![(Code::ClassicForeignInner, Some(Sid(0x0a17)))]));
    last(&w, |_, report| assert_eq!(report.code, Some(Code::ClassicForeignInner)));
}

#[test]
fn what_is_no_frame_is_refused_and_not_stored() {
    let mut w = world(&[known("8a7384477876150c", 0x0a17)]);
    let mut refused = 0;
    for case in vectors("malformed")["cases"].as_array().unwrap() {
        let Some(frame) = case["frame_hex"].as_str().map(|hex| hex::decode(hex).unwrap()) else { continue };
        if fivefold_waspmote::Frame::parse(&frame).is_ok() {
            continue;
        }
        let (done, _) = http(&mut w, &frame);
        let ClassicDone::Refused(rejected) = done else { panic!("{}: {done:?}", case["id"]) };
        assert_eq!(rejected.code, Code::ClassicMalformed, "{}", case["id"]);
        refused += 1;
        assert_eq!(w.gateway.tally().total(Code::ClassicMalformed), refused);
    }
    assert!(refused > 5);
    let (done, _) = http(&mut w, &[b'<'; 513]);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicMalformed));
    assert_eq!(w.stored(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_stranger_is_counted_each_time_and_reported_once_in_ten_minutes() {
    let vectors = vectors("plain-frames");
    let frame = bytes(case(&vectors, "v15-a-uint8"), "frame_hex");
    let mut w = world(&[]);
    for minute in 0..=20 {
        let (done, heard) = http(&mut w, &frame);
        assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicUnknown));
        assert_eq!(heard.dropped, [(Code::ClassicUnknown, None)]);
        assert_eq!(w.stored().len(), 1 + minute / 10, "minute {minute}");
        w.wait(60_000);
    }
    last(&w, |envelope, report| {
        assert_eq!(envelope.originator, Originator::Classic("8a7384477876150c"));
        assert_eq!((report.frame, report.code), (&*frame, Some(Code::ClassicUnknown)));
    });
    assert_eq!(w.gateway.tally().total(Code::ClassicUnknown), 21);
    // Once it is in the book it is none.
    w.push(&book(2, &[known("8a7384477876150c", 0x0a17)])).unwrap();
    assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored);
    // And once it is taken out it is one again.
    w.push(&book(3, &[])).unwrap();
    assert!(matches!(http(&mut w, &frame).0, ClassicDone::Refused(r) if r.code == Code::ClassicUnknown));
}

#[test]
fn many_strangers_are_not_all_reported() {
    let mut w = world(&[]);
    for n in 0..200_u32 {
        let ascii = [&b"<=>\x86\x01#"[..], format!("8A73844778{n:06X}#n#1#BAT:35#").as_bytes()].concat();
        assert!(matches!(http(&mut w, &ascii).0, ClassicDone::Refused(r) if r.code == Code::ClassicUnknown), "{n}");
    }
    assert_eq!(w.stored().len(), 60);
    assert_eq!(w.gateway.tally().total(Code::ClassicUnknown), 200);
}

#[test]
fn one_serial_does_not_crowd_out_another() {
    let vectors = vectors("plain-frames");
    let frame = bytes(case(&vectors, "v15-a-uint8"), "frame_hex");
    let mut w = world(&[known("8a7384477876150c", 0x0a17), known("387264539", 0x0a18)]);
    for _ in 0..60 {
        assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored);
    }
    let (done, heard) = http(&mut w, &frame);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicTooMany), "{done:?}");
    assert_eq!(heard.dropped, [(Code::ClassicTooMany, Some(Sid(0x0a17)))]);
    assert_eq!(w.stored().len(), 60);
    assert_eq!(http(&mut w, b"<=>\x80\x01#387264539#n#1#BAT:35#").0, ClassicDone::Stored);
    w.wait(60_000);
    assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored);
}

#[test]
fn a_serial_in_the_byte_order_of_old_software_is_the_same_device() {
    let serial = 387_264_539_u32;
    let mut w = world(&[known("387264539", 0x0a17)]);
    for order in [serial.to_be_bytes(), serial.to_le_bytes()] {
        let frame = [&b"<=>\x00\x09"[..], &order, b"n#\x05", &[52, 35]].concat();
        assert_eq!(http(&mut w, &frame).0, ClassicDone::Stored, "{order:02x?}");
        last(&w, |envelope, _| assert_eq!(envelope.originator, Originator::Classic("387264539")));
    }
}

#[test]
fn the_time_is_told_to_whoever_asks_by_radio_and_to_nobody_else() {
    let request = vectors("xbee-api")["time_sync_request"].clone();
    let frame = bytes(&request, "payload_hex");
    let mut w = world(&[]);
    let (done, heard) = bring(&mut w, Carrier::Xbee, Some([0, 0x13, 0xA2, 0, 0x4F, 0x8E, 0xC5, 0x19]), &frame);
    let ClassicDone::Answer(answer) = done else { panic!("{done:?}") };
    assert_eq!(&*answer, b"20260921141320+0000", "{}", w.now.0);
    assert_eq!((heard.dropped, w.gateway.tally().total(Code::ClassicTimeAnswered)), (vec![], 1));
    let (done, _) = http(&mut w, &frame);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicMalformed));
    assert_eq!(w.stored(), Vec::<Vec<u8>>::new());
}

#[test]
fn over_the_air_commands_are_counted_and_go_nowhere() {
    let mut w = world(&[known("8a7384477876150c", 0x0a17)]);
    for command in 0x78..=0x7F_u8 {
        let frame = [&b"<=>"[..], &[command], b"LIBELIUM", &[0; 20]].concat();
        let (done, _) = bring(&mut w, Carrier::Xbee, Some([7; 8]), &frame);
        assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicOverTheAir), "{command:02x}");
    }
    assert_eq!((w.gateway.tally().total(Code::ClassicOverTheAir), w.stored().len()), (8, 0));
}

#[test]
fn a_tiny_frame_is_of_the_device_whose_radio_brought_it() {
    let vectors = vectors("tiny-and-fragments");
    let tiny = vectors["cases"].as_array().unwrap().iter().find(|c| c["kind"] == "tiny").unwrap();
    let frame = bytes(&tiny["pieces"][0], "frame_hex");
    let mut device = known("8a7384477876150c", 0x0a17);
    device.dev_eui = Some([5; 8]);
    let mut w = world(&[device, known("387264539", 0x0a18)]);
    assert_eq!(bring(&mut w, Carrier::Lorawan, Some([5; 8]), &frame).0, ClassicDone::Stored);
    last(&w, |envelope, report| {
        assert_eq!(envelope.originator, Originator::Classic("8a7384477876150c"));
        assert_eq!((report.frame, report.source), (&*frame, Some([5; 8])));
        assert!(envelope.link.is_e1(), "a network server vouches for the radio");
    });
    // A radio that nobody knows, and one that names somebody else.
    let (done, _) = bring(&mut w, Carrier::Lorawan, Some([6; 8]), &frame);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicUnknown));
    last(&w, |envelope, _| assert_eq!(envelope.originator, Originator::Classic("0606060606060606")));
    let own = b"<=>\x86\x01#8A7384477876150C#n#1#BAT:35#";
    let (done, _) = bring(&mut w, Carrier::Lorawan, Some([6; 8]), own);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicUnknown), "whatever serial it writes");
    let other = b"<=>\x80\x01#387264539#n#1#BAT:35#";
    let (done, heard) = bring(&mut w, Carrier::Lorawan, Some([5; 8]), other);
    assert_eq!((done, heard.dropped), (ClassicDone::Stored, vec![(Code::ClassicForeignInner, Some(Sid(0x0a18)))]));
    // By HTTP it is no frame.
    let (done, _) = http(&mut w, &frame);
    assert!(matches!(done, ClassicDone::Refused(r) if r.code == Code::ClassicMalformed));
}

#[test]
fn a_full_spool_refuses_and_says_so() {
    fn small(boot: GatewayBoot) -> Setup {
        Setup { limits: Limits { spool_bytes: 600, ..Limits::default() }, ..setup(boot) }
    }
    let vectors = vectors("plain-frames");
    let frame = bytes(case(&vectors, "v15-a-uint8"), "frame_hex");
    let mut w = World::with(small);
    w.push(&book(1, &[known("8a7384477876150c", 0x0a17)])).unwrap();
    let mut stored = 0;
    let refused = loop {
        match http(&mut w, &frame).0 {
            ClassicDone::Stored => stored += 1,
            other => break other,
        }
    };
    assert!(matches!(refused, ClassicDone::Refused(r) if r.code == Code::StoreFull), "{refused:?}");
    assert!(stored > 1);
    assert_eq!(w.stored().len(), stored);
}

#[test]
fn a_store_that_fails_refuses_what_waited_for_it() {
    let vectors = vectors("plain-frames");
    let frame = bytes(case(&vectors, "v15-a-uint8"), "frame_hex");
    let mut w = world(&[known("8a7384477876150c", 0x0a17)]);
    let arrival = Arrival { carrier: Carrier::Http, source: None, rssi: None, frame: &frame, lorawan: None };
    w.gateway.handle_classic(w.now, 1, arrival);
    while w.gateway.poll().is_some() {}
    w.gateway.handle_classic(w.now, 2, arrival);
    w.gateway.handle_store_failed();
    w.gateway.handle_classic(w.now, 3, arrival);
    let mut refused = Vec::new();
    while let Some(output) = w.gateway.poll() {
        match output {
            fivefold_gateway::gateway::Output::Classic { ticket, done: ClassicDone::Refused(rejected) } => {
                assert_eq!(rejected.code, Code::StoreFull);
                refused.push(ticket);
            }
            fivefold_gateway::gateway::Output::Dropped { .. } | fivefold_gateway::gateway::Output::Explained(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, [1, 2, 3]);
}

#[test]
fn who_is_known_survives_a_restart() {
    let vectors = vectors("encrypted-frames");
    let case = case(&vectors, "v12-a-aes256-gateway");
    let mut device = known(&written(case), 0x0a17);
    device.key = Some(bytes(case, "effective_key_hex"));
    let mut w = world(&[device]).restart();
    assert_eq!(http(&mut w, &bytes(case, "frame_hex")).0, ClassicDone::Stored);
    last(&w, |_, report| assert_eq!(report.inner, Some(&*bytes(case, "inner_frame_hex"))));
}

#[test]
fn a_frame_over_lorawan_is_of_the_time_of_its_network_server_and_no_e1_under_abp() {
    let vectors = vectors("tiny-and-fragments");
    let tiny = case(&vectors, "tiny-lorawan-51");
    let frame = hex::decode(tiny["pieces"][0]["frame_hex"].as_str().unwrap()).unwrap();
    let dev_eui = [7; 8];
    for (activation, class) in
        [(Activation::OverTheAir, LinkClass::Lorawan), (Activation::Personalisation, LinkClass::None)]
    {
        let mut world = World::new();
        let device = Known { dev_eui: Some(dev_eui), ..known(&written(tiny), 0x0a11) };
        world.push(&book(1, &[device])).unwrap();
        let received = Some(Millis(world.now.0 - 3_600_000));
        let lorawan = Some(OverLorawan { activation, received });
        let (carrier, source) = (Carrier::Lorawan, Some(dev_eui));
        world.gateway.handle_classic(world.now, 1, Arrival { carrier, source, rssi: None, frame: &frame, lorawan });
        world.run();
        let stored = world.stored();
        let envelope = Envelope::parse(&stored[0]).unwrap();
        assert_eq!((envelope.link, Some(envelope.received)), (class, received));
    }
}
