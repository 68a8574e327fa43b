//! vectors/hardened.json: what another implementation, in Python, seals, refuses and cuts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_waspmote::hardened::{Answer, Epoch, Key, LONGEST, Number, Peer, Refused, Sealed, Wish, seal};
use fivefold_waspmote::key_message::{Assembly, Cut, LONGEST_FRAME, Part};
use fivefold_waspmote::{Frame, Serial};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/hardened.json")).unwrap()
}

fn cases(book: &Value, what: &str) -> Vec<Value> {
    let cases = book[what].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn word(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

#[test]
fn every_frame_and_every_answer_is_sealed_and_opened_as_there() {
    for case in cases(&vectors(), "frames") {
        let name = case["name"].as_str().unwrap();
        let peer = match case["peer"].as_str().unwrap() {
            "cloud" => Peer::Cloud,
            "gateway" => Peer::Gateway,
            other => panic!("no such peer: {other}"),
        };
        let (key, serial) = (Key::from_bytes(array(&case["key"])), array(&case["serial"]));
        let number = Number {
            epoch: Epoch(word(&case["epoch"])),
            sequence: word(&case["sequence"]),
            seed: array(&case["seed"]),
        };
        let (clear, expected) = (bytes(&case["clear"]), bytes(&case["sealed"]));
        let mut out = [0; LONGEST];
        let len = seal(peer, &key, &number, &clear, &mut out).unwrap();
        assert_eq!(&out[..len], &expected[..], "{name}");

        let Ok(Frame::Hardened(frame)) = Frame::parse(&expected) else { panic!("{name}: no hardened frame") };
        let sealed = Sealed::parse(frame).unwrap();
        assert_eq!((sealed.peer, sealed.serial(), sealed.number), (peer, Serial::V15(serial), number), "{name}");
        let opened = sealed.open(&key).unwrap();
        assert_eq!(opened.frame(), &clear[..], "{name}");
        assert!(matches!(Frame::parse(opened.frame()), Ok(Frame::Clear(_))), "{name}");

        let wish = if case["answer"]["wish"] == 0 { Wish::None } else { Wish::Renew };
        let answer = Answer { wish, time: word(&case["answer"]["time"]) };
        let sealed = answer.seal(peer, &serial, &opened, &key).unwrap();
        assert_eq!(sealed.to_vec(), bytes(&case["answer"]["sealed"]), "{name}");
        assert_eq!(Answer::open(&sealed, peer, &serial, &number, &key), Ok(answer), "{name}");
    }
}

#[test]
fn what_is_refused_there_is_refused_with_the_same_word() {
    let book = vectors();
    let key = Key::from_bytes(array(&book["frames"][0]["key"]));
    for case in cases(&book, "refused") {
        let name = case["name"].as_str().unwrap();
        let refused = Sealed::parse(&bytes(&case["frame"])).and_then(|frame| frame.open(&key)).map(|_| ());
        assert_eq!(refused.as_ref().map_err(Refused::as_str), Err(case["word"].as_str().unwrap()), "{name}");
    }
}

#[test]
fn a_key_message_is_cut_and_put_together_as_there() {
    for case in cases(&vectors(), "parts") {
        let name = case["name"].as_str().unwrap();
        let (message, serial) = (bytes(&case["message"]), array(&case["serial"]));
        let (id, room) = (case["id"].as_u64().unwrap() as u8, case["room"].as_u64().unwrap() as usize);
        let cut = Cut::new(serial, id, &message, room).unwrap();
        let frames: Vec<_> = cases(&case, "frames").iter().map(bytes).collect();
        assert_eq!(usize::from(cut.count()), frames.len(), "{name}");
        let mut assembly = Assembly::new();
        let mut whole = None;
        for (index, frame) in (0..).zip(&frames) {
            let mut out = [0; LONGEST_FRAME];
            let len = cut.part(index).unwrap().emit(&mut out).unwrap();
            assert_eq!(&out[..len], &frame[..], "{name}");
            let Ok(Frame::KeyMessage(frame)) = Frame::parse(frame) else { panic!("{name}: no part") };
            assert_eq!(whole, None, "{name}");
            whole = assembly.take(&Part::parse(frame).unwrap()).unwrap();
        }
        assert_eq!(whole, Some(message), "{name}");
    }
}
