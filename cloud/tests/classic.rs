//! Classic frames: each attack of `vectors/waspmote/attacks.json`, and what must not be taken for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::classic::*;
use common::*;
use fivefold_core::e4_channel::Origin;
use fivefold_core::error::Code;
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_keep::registry::ClassicProfile;
use fivefold_waspmote::{EncryptedType, KeyBits, hardened};

const MINUTE: u64 = 60_000;
/// BAT 80 and TCA 21.5; ids 52 and 12 of v15 are uint8 and float.
const FIELDS: &[u8] = &[52, 80, 74, 0, 0, 0xAC, 0x41];

fn at(minutes: u64) -> Millis {
    NOW.plus(minutes * MINUTE)
}

fn sequences(w: &World) -> Vec<u8> {
    w.readings().iter().filter_map(|r| r.classic.as_ref()?.sequence).collect()
}

fn flags(w: &World) -> Vec<String> {
    w.readings().iter().map(|r| r.classic.as_ref().unwrap().codes.clone()).collect()
}

/// As the same ciphertext for the cloud.
fn for_cloud(mut frame: Vec<u8>) -> Vec<u8> {
    frame[3] = 0x64;
    frame
}

#[test]
fn a_replayed_frame_is_kept_apart_while_no_boot_explains_it_and_flagged_after() {
    let frames = frames(&attack("replay"), "frames");
    for apart in [0, 15 * MINUTE] {
        let mut w = world(vec![Classic::to_gateway()]);
        let when = |n: u64| Millis(NOW.0 + n * apart);
        assert_eq!(bring(&mut w, &frames[0], when(0)), None);
        assert_eq!(bring(&mut w, &frames[1], when(1)), None);
        assert_eq!(bring(&mut w, &frames[2], when(2)), Some(Code::ClassicReplayed));
        assert_eq!(sequences(&w), [10, 11]);
        assert_eq!(w.count(Code::ClassicReplayed), 1);
        let aside = w.cloud.memory().read(|r| r.kept_aside(10)).unwrap();
        assert_eq!(aside.len(), 1);
        assert_eq!((aside[0].code, aside[0].classic.as_ref().unwrap().sequence), (Code::ClassicReplayed, Some(10)));
    }
    // Eleven frames at this node's pace, none of which was heard: a boot can be. Nobody can tell, and it is said.
    let mut w = world(vec![Classic::to_gateway()]);
    bring(&mut w, &frames[0], at(0));
    bring(&mut w, &frames[1], at(1));
    assert_eq!(bring(&mut w, &frames[2], at(20)), None);
    assert_eq!(flags(&w), ["", "", "CL-05"]);
}

#[test]
fn a_frame_made_of_blocks_of_two_others_is_kept_apart() {
    let case = attack("ecb-cut-and-paste");
    let (captured, forged) = (frames(&case, "captured"), frames(&case, "forged_hex"));
    let mut w = world(vec![Classic::to_gateway()]);
    assert_eq!(bring(&mut w, &captured[0], at(0)), None);
    assert_eq!(bring(&mut w, &captured[1], at(15)), None);
    assert_eq!(bring(&mut w, &forged[0], at(30)), Some(Code::ClassicSpliced));
    assert_eq!(w.count(Code::ClassicSpliced), 1);
    // The same where the cloud opens it, and after a restart: history is durable.
    let mut w = world(vec![Classic::to_cloud()]);
    assert_eq!(bring(&mut w, &for_cloud(captured[0].clone()), at(0)), None);
    assert_eq!(bring(&mut w, &for_cloud(captured[1].clone()), at(0)), None);
    w = w.restart();
    assert_eq!(bring(&mut w, &for_cloud(forged[0].clone()), at(0)), Some(Code::ClassicSpliced));
    assert_eq!(w.readings().len(), 2);
}

#[test]
fn a_frame_under_the_serial_of_another_node_is_refused() {
    let frame = frames(&attack("outer-serial-swap"), "frame_hex").remove(0);
    for (device, frame) in [(Classic::to_gateway(), frame.clone()), (Classic::to_cloud(), for_cloud(frame))] {
        let mut w = world(vec![device]);
        assert_eq!(bring(&mut w, &frame, at(0)), Some(Code::ClassicForeignInner));
        assert_eq!((w.readings().len(), w.count(Code::ClassicForeignInner)), (0, 1));
    }
}

#[test]
fn a_frame_whose_type_was_changed_on_the_way_is_refused() {
    let case = attack("type-relabel-0x60-to-0x64");
    let (relabelled, original) = (frames(&case, "frame_hex").remove(0), frames(&case, "original_hex").remove(0));
    let mut w = world(vec![Classic::to_gateway()]);
    assert_eq!(bring(&mut w, &relabelled, at(0)), Some(Code::ClassicRelabelled));
    assert_eq!(bring(&mut w, &original, at(0)), None);
    // And the other way round: a frame for the cloud that says it is for the gateway.
    let mut w = world(vec![Classic::to_cloud()]);
    let unopened = report(&original, None);
    assert_eq!(w.post(&[envelope(SERIAL, &unopened, at(0))]).refused[0].1, Code::ClassicRelabelled);
    assert_eq!(bring(&mut w, &relabelled, at(0)), None);
    // One for the gateway that its gateway did not open.
    let mut w = world(vec![Classic::to_gateway()]);
    assert_eq!(w.post(&[envelope(SERIAL, &unopened, at(0))]).refused[0].1, Code::ClassicRelabelled);
    assert_eq!(w.readings().len(), 0);
}

#[test]
fn a_flipped_bit_is_refused() {
    let frame = frames(&attack("bit-flip-in-block-1"), "frame_hex").remove(0);
    for (device, frame) in [(Classic::to_gateway(), frame.clone()), (Classic::to_cloud(), for_cloud(frame))] {
        let mut w = world(vec![device]);
        assert_eq!(bring(&mut w, &frame, at(0)), Some(Code::ClassicForged));
        assert_eq!((w.readings().len(), w.count(Code::ClassicForged)), (0, 1));
    }
}

#[test]
fn equal_readings_are_readings_and_it_is_said_what_anybody_sees_of_them() {
    let frames = frames(&attack("ecb-equality-leak"), "frames");
    let mut w = world(vec![Classic::to_gateway()]);
    assert_eq!(bring(&mut w, &frames[0], at(0)), None);
    assert_eq!(bring(&mut w, &frames[1], at(15)), None);
    let equal: Vec<_> = w.readings().iter().map(|r| r.classic.as_ref().unwrap().equal).collect();
    assert_eq!(equal, [0, 1]);
    assert_eq!(flags(&w), ["", ""]);
}

#[test]
fn a_plain_frame_of_a_node_with_a_key_is_refused_and_of_one_without_is_called_plain() {
    let frame = binary(SERIAL, "node_01", 1, FIELDS);
    for device in [Classic::to_gateway(), Classic::to_cloud()] {
        let mut w = world(vec![device]);
        assert_eq!(bring(&mut w, &frame, at(0)), Some(Code::ClassicRelabelled));
        assert_eq!((w.readings().len(), w.count(Code::ClassicRelabelled)), (0, 1));
    }
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    assert_eq!(bring(&mut w, &frame, at(0)), None);
    let readings = w.readings();
    assert_eq!(readings[0].origin, Origin::Plain);
    assert!(readings[0].flags & fivefold_cloud::accepted::flag::INSECURE != 0);
    // An encrypted one says more, and not much: nobody signed it.
    let mut w = world(vec![Classic::to_cloud()]);
    bring(&mut w, &sealed(EncryptedType::Cloud, 1, FIELDS), at(0));
    assert_eq!(w.readings()[0].origin, Origin::Legacy);
}

#[test]
fn two_gateways_and_a_module_that_sends_again_make_one_reading() {
    let mut w = world(vec![Classic::to_cloud()]);
    let frame = sealed(EncryptedType::Cloud, 7, FIELDS);
    let bytes = report(&frame, None);
    assert!(w.post(&[envelope(SERIAL, &bytes, at(0))]).refused.is_empty());
    assert!(w.post_second(&[envelope(SERIAL, &bytes, at(0).plus(900))]).refused.is_empty());
    assert!(w.post(&[envelope(SERIAL, &bytes, at(0).plus(5_000))]).refused.is_empty());
    // An hour later the second gateway brings what it heard then, though other frames came meanwhile.
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 8, FIELDS), at(15)), None);
    assert!(w.post_second(&[envelope(SERIAL, &bytes, at(0).plus(2_000))]).refused.is_empty());
    assert_eq!(sequences(&w), [7, 8]);
    assert_eq!((w.count(Code::GatewayDuplicate), w.count(Code::ClassicReplayed)), (3, 0));
}

#[test]
fn a_batch_that_is_sent_again_is_no_repeat() {
    let mut w = world(vec![Classic::to_cloud()]);
    let reports: Vec<_> = (0..5).map(|n| report(&sealed(EncryptedType::Cloud, n, FIELDS), None)).collect();
    let envelopes: Vec<_> = (0..).zip(&reports).map(|(n, bytes)| envelope(SERIAL, bytes, at(n))).collect();
    w.now = at(5);
    let body = w.gateway.batch(&envelopes);
    // It was judged, and the store failed.
    let judged = w.cloud.judge(&w.gateway.proven, &body, w.now).unwrap();
    assert_eq!(judged.write.classic.len(), 5);
    w.cloud.abandon(&judged);
    assert!(w.post_body(&body).unwrap().refused.is_empty());
    assert!(w.post_body(&body).unwrap().refused.is_empty());
    // The reply was lost with the process.
    w = w.restart();
    assert!(w.post_body(&body).unwrap().refused.is_empty());
    assert_eq!(sequences(&w), [0, 1, 2, 3, 4]);
    assert_eq!(flags(&w), ["", "", "", "", ""]);
    assert_eq!(w.count(Code::ClassicReplayed), 0);
}

#[test]
fn a_node_that_goes_three_times_around_or_boots_again_and_again_is_not_accused() {
    let mut w = world(vec![Classic::to_cloud()]);
    for n in 0..700_u64 {
        // Every tenth is lost.
        if n % 10 != 3 {
            assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, n as u8, FIELDS), at(n)), None, "{n}");
        }
    }
    for n in 0..50_u64 {
        // A node that sleeps with its power off boots for every frame.
        let frame = sealed(EncryptedType::Cloud, 0, &[52, 80 + (n % 2) as u8, 74, 0, 0, 0xAC, 0x41]);
        assert_eq!(bring(&mut w, &frame, at(700 + n * 10)), None, "{n}");
    }
    // It boots once, and goes on from there.
    for n in 0..30 {
        assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, n as u8, FIELDS), at(1300 + n)), None, "{n}");
    }
    assert_eq!(w.readings().len(), 630 + 50 + 30);
    // The first of the boots came after 187, with the readings of an earlier one: that is all.
    let accused: Vec<_> = flags(&w).into_iter().filter(|f| !f.is_empty()).collect();
    assert_eq!(accused, ["CL-05"]);
    // What is remembered is bounded.
    let history = w.cloud.memory().read(|r| r.classic_history(Classic::to_cloud().did())).unwrap();
    assert_eq!(history.len(), 512);
}

#[test]
fn a_row_of_frames_replayed_in_their_order_is_flagged_to_its_end() {
    let mut w = world(vec![Classic::to_cloud()]);
    let frames: Vec<_> = (0..40).map(|n| sealed(EncryptedType::Cloud, n, &[52, n, 74, 0, 0, n, 0x41])).collect();
    for (n, frame) in (0..).zip(&frames) {
        assert_eq!(bring(&mut w, frame, at(n)), None);
    }
    // At once: no node does that.
    for frame in &frames[10..15] {
        assert_eq!(bring(&mut w, frame, at(41)), Some(Code::ClassicReplayed));
    }
    // After as long as a boot and ten lost frames take: possible, and flagged until something new comes.
    for (n, frame) in (0..).zip(&frames[10..20]) {
        assert_eq!(bring(&mut w, frame, at(60 + n)), None);
    }
    assert_eq!(flags(&w)[40..], ["CL-05"; 10]);
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 20, &[52, 99, 74, 0, 0, 9, 9]), at(70)), None);
    assert_eq!(flags(&w).last().unwrap(), "");
}

#[test]
fn a_node_whose_readings_never_change_is_flagged_for_a_while_after_a_boot_and_not_for_ever() {
    let mut w = world(vec![Classic::to_cloud()]);
    for n in 0..300_u64 {
        assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, (n % 200) as u8, FIELDS), at(n)), None, "{n}");
    }
    let flags = flags(&w);
    assert!(flags[..200].iter().chain(&flags[232..]).all(String::is_empty));
    assert_eq!(flags[200..232], ["CL-05"; 32]);
}

#[test]
fn fragments_share_a_sequence_and_are_no_repeats() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    for n in 0..5 {
        for fields in [&[52, 80][..], &[74, 0, 0, 0xAC, 0x41], &[76, 0, 0, 0, 0x42]] {
            assert_eq!(bring(&mut w, &binary(SERIAL, "n", 30 + n, fields), at(u64::from(n))), None);
        }
    }
    assert_eq!(w.readings().len(), 15);
    assert_eq!(flags(&w), [""; 15]);
}

#[test]
fn a_number_that_a_node_cannot_have_reached_is_flagged() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    for n in 0..10 {
        assert_eq!(bring(&mut w, &binary(SERIAL, "n", 100 + n, &[52, n]), at(u64::from(n))), None);
    }
    assert_eq!(bring(&mut w, &binary(SERIAL, "n", 200, &[52, 77]), at(10)), None);
    assert_eq!(flags(&w).last().unwrap(), "CL-08");
    assert_eq!(w.count(Code::ClassicSequence), 1);
}

#[test]
fn an_unknown_sensor_leaves_what_was_read_and_the_rest_raw() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    assert_eq!(bring(&mut w, &binary(SERIAL, "n", 1, &[52, 80, 22, 1, 2, 3]), at(0)), None);
    let row = w.readings()[0].classic.clone().unwrap();
    let content: serde_json::Value = serde_json::from_str(&row.content).unwrap();
    assert_eq!(row.codes, "CL-16");
    assert_eq!(content["fields"], serde_json::json!([{ "id": 52, "tag": "BAT", "values": [80] }]));
    assert_eq!(content["rest"]["raw"], "16010203");
    // A field that ends behind the frame: nothing of it is believed.
    assert_eq!(bring(&mut w, &binary(SERIAL, "n", 2, &[52, 80, 74, 1]), at(1)), Some(Code::ClassicMalformed));
    assert_eq!(w.readings().len(), 1);
}

#[test]
fn sensors_of_a_users_own_are_read_as_the_file_of_the_network_says() {
    let own = "[[sensor]]\nid = 22\ntag = \"SNOW\"\ntype = \"float32\"\ndecimals = 1\n\n\
               [[sensor]]\nid = 200\ntag = \"ICE\"\ntype = \"uint16\"\nfields = 2\ntable = \"v12\"\n";
    // SNOW 10.0, then BAT 80; of v12: ICE 3 and 4.
    let fields = [22, 0, 0, 0x20, 0x41, 52, 80];
    let of_v12 = b"<=>\x00\x10\x17\x15\x30\x1bnode1#\x01\xc8\x03\x00\x04\x00";
    let devices = || {
        vec![
            Classic { sensors: own, ..Classic::to_cloud() },
            Classic { sensors: own, ..Classic::plain("387264539", 0x0c02) },
        ]
    };
    let mut w = world(devices());
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 1, &fields), at(0)), None);
    assert_eq!(bring_of(&mut w, "387264539", of_v12, at(1)), None);
    w = w.restart();
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 2, &fields), at(2)), None);
    let rows = w.readings();
    let contents: Vec<_> = rows.iter().map(|r| r.classic.as_ref().unwrap()).collect();
    for row in [contents[0], contents[2]] {
        assert_eq!(row.codes, "");
        assert!(
            row.content.contains(r#"{"id":22,"tag":"SNOW","values":[10.0]},{"id":52,"tag":"BAT","values":[80]}"#),
            "{}",
            row.content
        );
    }
    assert!(contents[1].content.contains(r#"{"id":200,"tag":"ICE","values":[3,4]}"#), "{}", contents[1].content);
    // Without the file, the rest of the frame stays raw.
    let mut w = world(vec![Classic::to_cloud()]);
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 1, &fields), at(0)), None);
    assert_eq!(w.readings()[0].classic.as_ref().unwrap().codes, "CL-16");
}

#[test]
fn a_frame_from_before_api_v012_is_read_as_what_it_is() {
    let mut w = world(vec![Classic::plain("387264539", 0x0c02), Classic::plain(SERIAL, 0x0c01)]);
    let old = b"<=>\x00\x01\x1b\x30\x15\x17node1#\x07\x34\x50";
    assert_eq!(bring_of(&mut w, "387264539", old, at(0)), None);
    let row = w.readings()[0].classic.clone().unwrap();
    assert_eq!((row.sequence, &*row.codes), (Some(7), ""));
    assert!(row.content.contains(r#""tag":"BAT","values":[80]"#), "{}", row.content);
    assert_eq!(bring_of(&mut w, SERIAL, old, at(1)), Some(Code::ClassicMalformed), "v15 never sent such");
}

#[test]
fn a_node_that_falls_silent_is_counted_once_and_once_more_after_a_day() {
    let mut w = world(vec![Classic::to_gateway(), Classic::plain("387264539", 0x0c02)]);
    let watch = |w: &mut World, now| {
        w.now = now;
        let write = w.cloud.handle_timeout(now);
        w.cloud.memory().store().commit_now(write).unwrap();
        w.count(Code::CloudSilence)
    };
    for n in 0..4 {
        assert_eq!(bring(&mut w, &sealed(EncryptedType::Gateway, n, &[52, 80 + n]), at(15 * u64::from(n))), None);
    }
    // Under the same serial, but kept apart: it is not heard by that.
    assert_eq!(bring(&mut w, &binary(SERIAL, "node_01", 9, FIELDS), at(89)), Some(Code::ClassicRelabelled));
    assert_eq!(watch(&mut w, at(90)), 0);
    assert_eq!(watch(&mut w, at(91)), 1, "three periods of 15 minutes since 45");
    assert_eq!(watch(&mut w, at(900)), 1);
    assert_eq!(watch(&mut w, at(46 + 24 * 60)), 2);
    assert_eq!(watch(&mut w, at(3000)), 2, "each is said once; who was never heard is not missed");
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Gateway, 4, &[52, 70]), at(3001)), None);
    assert_eq!(watch(&mut w, at(3002)), 2);
}

#[test]
fn a_flood_under_a_serial_fills_no_disk() {
    let mut w = world(vec![Classic::to_cloud()]);
    let frames: Vec<_> =
        (0..500_u16).map(|n| report(&binary(SERIAL, "node_01", n as u8, &[52, (n >> 8) as u8]), None)).collect();
    for _ in 0..3 {
        let envelopes: Vec<_> = frames.iter().map(|bytes| envelope(SERIAL, bytes, at(0))).collect();
        assert_eq!(w.post(&envelopes).refused.len(), 500);
    }
    assert_eq!((w.count(Code::ClassicRelabelled), w.ledger().len()), (1500, 1000));
    // The next day there is room again, and a true frame was never in question.
    w.now = at(24 * 60);
    assert_eq!(bring(&mut w, &binary(SERIAL, "node_01", 1, &[52, 7]), at(24 * 60)), Some(Code::ClassicRelabelled));
    assert_eq!(bring(&mut w, &sealed(EncryptedType::Cloud, 1, FIELDS), at(24 * 60)), None);
    assert_eq!((w.ledger().len(), w.readings().len()), (1002, 1));
}

#[test]
fn a_stranger_is_listed_and_nothing_else() {
    let mut w = world(vec![Classic::to_cloud()]);
    let frame = binary("0123456789abcdef", "x", 1, FIELDS);
    assert_eq!(bring_of(&mut w, "0123456789abcdef", &frame, at(0)), Some(Code::ClassicUnknown));
    assert_eq!(bring_of(&mut w, "0123456789abcdef", &frame, at(11)), Some(Code::ClassicUnknown));
    let unknown = w.cloud.memory().read(|r| r.unknown()).unwrap();
    assert_eq!(unknown.len(), 1);
    assert_eq!((unknown[0].serial.as_str(), unknown[0].reports, &unknown[0].frame), ("0123456789abcdef", 2, &frame));
    assert_eq!((w.readings().len(), w.ledger().len()), (0, 0));
}

#[test]
fn a_frame_that_somebody_else_holds_the_key_of_is_kept_as_it_came() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    let frame = sealed(EncryptedType::Cloud, 1, FIELDS);
    assert_eq!(bring(&mut w, &frame, at(0)), None);
    let readings = w.readings();
    // Nobody here knows whether it was sealed at all.
    assert_eq!((readings[0].origin, readings[0].classic.as_ref().unwrap().sequence), (Origin::Plain, None));
    // For the gateway it would have to have a key there.
    let mut frame = frame;
    frame[3] = 0x60;
    let unopened = report(&frame, None);
    assert_eq!(w.post(&[envelope(SERIAL, &unopened, at(1))]).refused[0].1, Code::ClassicForged);
}

#[test]
fn a_key_size_that_is_not_the_operators_is_a_changed_type() {
    let device = Classic { gateway_key: Some(KeyBits::Aes256), ..Classic::plain("387264539", 1) };
    let mut w = world(vec![device]);
    let mut frame = b"<=>\x61\0".to_vec();
    frame.extend_from_slice(&387_264_539_u32.to_be_bytes());
    frame.extend_from_slice(b"n#");
    frame.extend_from_slice(&[7; 16]);
    frame[4] = (frame.len() - 5) as u8;
    let unopened = report(&frame, None);
    assert_eq!(w.post(&[envelope("387264539", &unopened, at(0))]).refused[0].1, Code::ClassicRelabelled);
}

#[test]
fn a_tiny_frame_by_lorawan_is_read_by_its_devices_table_and_is_plain() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    // Sequence and length first; the bytes of `<=>` would be a sequence like any other.
    let bytes = said(&[0x3C, 4, 52, 80], Carrier::Lorawan, None);
    assert!(w.post(&[envelope(SERIAL, &bytes, at(0))]).refused.is_empty());
    let readings = w.readings();
    let row = readings[0].classic.as_ref().unwrap();
    assert_eq!((readings[0].origin, row.sequence, row.outer), (Origin::Plain, Some(0x3C), None));
    assert!(row.content.contains("\"BAT\""), "{}", row.content);
    // By any other way it is no frame, and of a device with a key nothing is tiny.
    let bytes = said(&[0x3D, 4, 52, 80], Carrier::Http, None);
    assert_eq!(w.post(&[envelope(SERIAL, &bytes, at(1))]).refused[0].1, Code::ClassicMalformed);
    let mut w = world(vec![Classic::to_cloud()]);
    let bytes = said(&[0x3D, 4, 52, 80], Carrier::Lorawan, None);
    assert_eq!(w.post(&[envelope(SERIAL, &bytes, at(1))]).refused[0].1, Code::ClassicRelabelled);
}

#[test]
fn a_hardened_device_has_no_other_frames_and_is_never_called_node() {
    let device = Classic { profile: ClassicProfile::Hardened, ..Classic::plain(SERIAL, 1) };
    let mut w = world(vec![device]);
    let clear = binary(SERIAL, "node_01", 1, FIELDS);
    let number = hardened::Number { epoch: hardened::Epoch(1), sequence: 9, seed: [3; 4] };
    let mut out = [0; hardened::LONGEST];
    let key = hardened::Key::from_bytes([5; 32]);
    let len = hardened::seal(hardened::Peer::Gateway, &key, &number, &clear, &mut out).unwrap();
    let bytes = said(&out[..len], Carrier::Http, Some(&clear));
    assert!(w.post(&[envelope(SERIAL, &bytes, at(0))]).refused.is_empty());
    let readings = w.readings();
    let row = readings[0].classic.as_ref().unwrap();
    assert_eq!((readings[0].origin, row.suite.as_str(), row.sequence), (Origin::Legacy, "classic-hardened", Some(1)));
    // A second gateway heard it, and has no key of this device: nothing is wrong with that.
    let bytes = said(&out[..len], Carrier::Http, None);
    assert!(w.post_second(&[envelope(SERIAL, &bytes, at(0))]).refused.is_empty());
    assert_eq!((w.ledger().len(), w.count(Code::GatewayNoContext), w.count(Code::HardenedForged)), (1, 1, 0));
    let mut for_cloud = out;
    for_cloud[3] = hardened::Peer::Cloud.frame_type();
    for (frame, code) in [(&clear[..], Code::ClassicRelabelled), (&for_cloud[..len], Code::HardenedForged)] {
        let bytes = said(frame, Carrier::Http, None);
        assert_eq!(w.post(&[envelope(SERIAL, &bytes, at(1))]).refused[0].1, code);
    }
    // And of another device a hardened frame is a changed type.
    let mut w = world(vec![Classic::to_gateway()]);
    let bytes = said(&out[..len], Carrier::Http, None);
    assert_eq!(w.post(&[envelope(SERIAL, &bytes, at(0))]).refused[0].1, Code::ClassicRelabelled);
}
